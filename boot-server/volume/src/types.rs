//! What backends are asked and what they answer.

use protocol::agent::Password;
use protocol::job::CloudConfig;
use protocol::{DpuId, ImageId, SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};

/// What a backend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Files in a directory.
    File,
    /// Files in a directory behind an iSCSI target that Billet runs.
    Iscsi,
    /// Logical units of a target that somebody else runs.
    IscsiExternal,
    /// Images of Ceph.
    Rbd,
    /// Namespaces of an NVMe subsystem that somebody else runs.
    NvmeTcp,
    /// Images under layers on DPUs.
    Instant,
}

impl Kind {
    /// As it is written in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Iscsi => "iscsi",
            Self::IscsiExternal => "iscsi-external",
            Self::Rbd => "rbd",
            Self::NvmeTcp => "nvme-tcp",
            Self::Instant => "instant",
        }
    }
}

/// What [`Backend::revoke`](crate::Backend::revoke) is worth where somebody does not let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// It cuts the connection: a machine that cannot be reached may be replaced.
    Cuts,
    /// It fails for as long as somebody has the volume open.
    Refuses,
    /// It only forgets: nobody here knows who is connected, so the DPU must have said that it let go.
    Trusts,
}

/// What a new volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Zeros.
    Blank,
    /// What a volume of the same backend held.
    Snapshot {
        /// Whose snapshot.
        volume: VolumeId,
        /// Which.
        snapshot: SnapshotId,
    },
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grantee {
    /// The DPU.
    pub dpu: DpuId,
    /// Name that it gives to targets (`iqn.…`).
    pub initiator: String,
}

/// An image, and what is to become of it on its disk.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// Where its chunks are.
    pub store: images::Store,
    /// The image.
    pub image: ImageId,
    /// Keys of those whose images are written.
    pub anchor: std::sync::Arc<images::trust::Anchor>,
    /// Files of the config partition; `None` leaves the image as it is.
    pub config: Option<CloudConfig>,
    /// Grow the last partition to the end of the volume.
    pub grow_root: bool,
    /// Opens the volume, where it is encrypted.
    pub key: Option<Password>,
}

/// How much fits, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// All there is.
    pub total: u64,
    /// What can still be written.
    pub free: u64,
    /// What volumes and snapshots take.
    pub used: u64,
}

/// Something that a backend keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stored {
    /// The volume.
    pub volume: VolumeId,
    /// Its snapshot, or else the volume itself.
    pub snapshot: Option<SnapshotId>,
    /// Bytes.
    pub size: u64,
}

/// What is left of a call that was never finished.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Leftover {
    /// Such as a path, in the backend's own words.
    pub what: String,
}

/// Who is connected to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Who was let in.
    pub granted: Option<DpuId>,
    /// Names or addresses of who is connected; `None` where the backend does not know.
    pub connected: Option<Vec<String>>,
}
