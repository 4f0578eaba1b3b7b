//! Where volumes are kept. A [`Backend`] makes, copies and removes volumes, lets one DPU at a time in and cuts it off again,
//! and writes images into them. Which volumes there are to be, whose they are and who may have them is the server's business; how
//! a volume becomes a host's disk is the DPU's (`dpu-agent`).
//!
//! Every call may be done again: a server that does not know whether a call was carried out makes it once more.

mod error;
mod external;
mod file;
mod files;
mod grants;
mod imaging;
mod instant;
mod iscsi;
mod luks;
mod medium;
mod nbd;
mod program;
mod rbd;
mod settings;
mod types;

use async_trait::async_trait;
use protocol::agent::Password;
use protocol::{SnapshotId, VolumeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use ::imaging::{Progress, Step, Written as ImageWritten};
pub use error::BackendError;
pub use external::{ExternalBackend, ExternalSettings, Unit};
pub use file::FileBackend;
pub use instant::{InstantBackend, InstantSettings};
pub use iscsi::{IscsiBackend, IscsiSettings};
pub use rbd::{RbdBackend, RbdSettings};
pub use settings::{FileSettings, Settings};
pub use types::{Capacity, Fencing, Grantee, ImageSource, Kind, Leftover, Origin, Stats, Stored};

/// One place where volumes are kept.
#[async_trait]
pub trait Backend: Send + Sync {
    /// What it is.
    fn kind(&self) -> Kind;

    /// What [`Backend::revoke`] is worth.
    fn fencing(&self) -> Fencing;

    /// Its settings where it keeps nothing itself: its volumes are images under layers on DPUs, and who opens it sees to them.
    fn instant(&self) -> Option<&InstantSettings> {
        None
    }

    /// Makes a volume of `size` bytes, a multiple of [`SECTOR`]. A copy of a snapshot that is smaller is followed by zeros.
    ///
    /// # Errors
    /// [`BackendError::Exists`] where there is one of another size, [`BackendError::NoRoom`], [`BackendError::NoSnapshot`],
    /// [`BackendError::Refused`] where the snapshot is larger.
    async fn create(&self, volume: VolumeId, size: u64, from: Origin) -> Result<(), BackendError>;

    /// Makes what was just created an encrypted volume that this key opens: of its bytes the first
    /// [`LUKS_HEADER`](protocol::dpu::LUKS_HEADER) are the header, the others hold what is chance. Done again, it loses what
    /// was written since.
    ///
    /// # Errors
    /// [`BackendError::Granted`] where somebody was let in, [`BackendError::NoVolume`].
    async fn encrypt(&self, volume: VolumeId, key: &Password) -> Result<(), BackendError>;

    /// Makes a volume larger; the new end reads as zeros.
    ///
    /// # Errors
    /// [`BackendError::Refused`] where it would become smaller, [`BackendError::InUse`] where this backend cannot do it while
    /// somebody is connected, [`BackendError::NoRoom`].
    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError>;

    /// Removes a volume and what was granted of it. Nothing is said where there is none.
    ///
    /// # Errors
    /// [`BackendError::InUse`] where somebody is connected, [`BackendError::HasSnapshots`].
    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError>;

    /// Keeps the volume as it is now, as after a power cut: what a host was told is written is in it.
    ///
    /// # Errors
    /// [`BackendError::InUse`] where this backend cannot do it while somebody is connected, [`BackendError::Unsupported`].
    async fn snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError>;

    /// Removes a snapshot; volumes that were made of it stay. Nothing is said where there is none.
    ///
    /// # Errors
    /// Where the backend fails.
    async fn delete_snapshot(&self, volume: VolumeId, snapshot: SnapshotId) -> Result<(), BackendError>;

    /// Lets one DPU in and nobody else, and says what it connects to. The same call again says the same.
    ///
    /// # Errors
    /// [`BackendError::Granted`] where another has it: it is revoked first.
    async fn grant(&self, volume: VolumeId, to: &Grantee) -> Result<protocol::dpu::Backend, BackendError>;

    /// Takes that away and cuts the connection: when it returns, nobody can write, as far as [`Backend::fencing`] goes. Nothing
    /// is said where there is no volume.
    ///
    /// # Errors
    /// Where that cannot be said for sure; then the volume must be given to nobody else.
    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError>;

    /// Notes who has a granted volume open, so that a revocation shuts out those as well whom nobody sees any more then. Of a backend
    /// that closes connections by itself there is nothing to note.
    ///
    /// # Errors
    /// Where the backend does not answer.
    async fn note_clients(&self, _volume: VolumeId) -> Result<(), BackendError> {
        Ok(())
    }

    /// Writes an image: its chunks are verified, its holes are zeros, the config partition is made as by a deploy; then all of
    /// it is read back and compared. `progress` is told; where `cancel` says so it stops. Until it is done the volume does not
    /// boot. After a crash it is done again from the start.
    ///
    /// # Errors
    /// [`BackendError::Granted`] where somebody was let in, [`BackendError::Image`], [`BackendError::Differs`],
    /// [`BackendError::Cancelled`].
    async fn write_image(
        &self,
        volume: VolumeId,
        image: ImageSource,
        progress: watch::Sender<Progress>,
        cancel: CancellationToken,
    ) -> Result<ImageWritten, BackendError>;

    /// How much fits.
    ///
    /// # Errors
    /// Where the backend does not say.
    async fn capacity(&self) -> Result<Capacity, BackendError>;

    /// All volumes and snapshots of ours that it has, in order, and what of ours is neither.
    ///
    /// # Errors
    /// Where the backend does not say.
    async fn list(&self) -> Result<Vec<Stored>, BackendError>;

    /// Remains of calls that were never finished, such as half a copy. They are removed by [`Backend::sweep`].
    ///
    /// # Errors
    /// Where the backend does not say.
    async fn leftovers(&self) -> Result<Vec<Leftover>, BackendError>;

    /// Removes [`Backend::leftovers`]. To be called while no other call runs.
    ///
    /// # Errors
    /// Where one cannot be removed.
    async fn sweep(&self) -> Result<(), BackendError>;

    /// Who is connected.
    ///
    /// # Errors
    /// [`BackendError::NoVolume`], or where the backend does not say.
    async fn stats(&self, volume: VolumeId) -> Result<Stats, BackendError>;
}

/// Sizes of volumes are multiples of this, in bytes.
pub const SECTOR: u64 = 512;
