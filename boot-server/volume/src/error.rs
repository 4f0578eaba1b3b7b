//! Why a backend did not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use protocol::{DpuId, SnapshotId, VolumeId};

/// Why a backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No such volume.
    #[error("volume {0} is not in the backend")]
    NoVolume(VolumeId),
    /// No such snapshot.
    #[error("snapshot {snapshot} of volume {volume} is not in the backend")]
    NoSnapshot {
        /// Whose.
        volume: VolumeId,
        /// Which.
        snapshot: SnapshotId,
    },
    /// There is one already, and it is another.
    #[error("volume {volume} exists with {found} bytes, wanted are {wanted}")]
    Exists {
        /// The volume.
        volume: VolumeId,
        /// Bytes it has.
        found: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// Somebody is connected.
    #[error("volume {volume} is in use by {by}")]
    InUse {
        /// The volume.
        volume: VolumeId,
        /// Who, in words.
        by: String,
    },
    /// A DPU was let in.
    #[error("volume {volume} was given to DPU {dpu}")]
    Granted {
        /// The volume.
        volume: VolumeId,
        /// Who has it.
        dpu: DpuId,
    },
    /// Snapshots have to go first.
    #[error("volume {volume} has {count} snapshots")]
    HasSnapshots {
        /// The volume.
        volume: VolumeId,
        /// How many.
        count: usize,
    },
    /// It does not fit.
    #[error("no room for {wanted} bytes: {why}")]
    NoRoom {
        /// Bytes asked for.
        wanted: u64,
        /// Why, in words.
        why: String,
    },
    /// It would be wrong to do it.
    #[error("{0}")]
    Refused(String),
    /// This backend cannot.
    #[error("a backend of kind `{kind}` cannot {what}")]
    Unsupported {
        /// Of which kind it is.
        kind: &'static str,
        /// What it cannot.
        what: &'static str,
    },
    /// The image cannot be had or does not fit.
    #[error("write image {image}: {why}")]
    Image {
        /// Which.
        image: protocol::ImageId,
        /// Why, in words.
        why: String,
    },
    /// What was read back is not what was written.
    #[error("the backend returns other bytes than were written, at byte {offset} of volume {volume}")]
    Differs {
        /// The volume.
        volume: VolumeId,
        /// Where.
        offset: u64,
    },
    /// It was told to stop.
    #[error("stopped as it was told")]
    Cancelled,
    /// A file or directory.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Such as `open`.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A program said no, or nothing in time.
    #[error("`{program}` failed to {what}: {said}")]
    Program {
        /// Such as `tgtadm`.
        program: &'static str,
        /// What it was to do.
        what: String,
        /// What it said; never a password.
        said: String,
    },
}

impl BackendError {
    /// True where the same call may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Program { .. } | Self::InUse { .. })
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}
