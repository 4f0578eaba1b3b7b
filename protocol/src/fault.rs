//! What can go wrong on a machine, as a code that programs know and a sentence that a technician can act on.

use serde::{Deserialize, Serialize};

/// A failure with its cause and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct Fault {
    /// Stable code.
    pub code: FaultCode,
    /// What happened, naming the disk, chunk or address it happened to.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(code: FaultCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

/// Kinds of failure. Only added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FaultCode {
    /// No disk answers to the name in the job, or more than one does.
    DiskNotFound,
    /// The disk is smaller than the image needs.
    DiskTooSmall,
    /// The disk changed between plan and write, is read-only, mounted, or otherwise not to be touched.
    DiskRefused,
    /// Reading or writing the disk failed.
    DiskIo,
    /// What was read back is not what was written.
    DiskReadBack,
    /// A chunk's bytes do not have the hash in the manifest.
    ChunkCorrupt,
    /// A chunk or manifest could not be fetched within the retry budget.
    Fetch,
    /// The manifest is not valid or is not the one named in the job.
    Manifest,
    /// Nobody who is trusted vouches for the image: it is not signed, by another key, altered, or older than what is taken.
    Untrusted,
    /// The image cannot be customised (no GPT, no room for the config partition).
    Customise,
    /// The firmware's boot entries could not be set.
    BootEntry,
    /// Hardware inspection failed.
    Inspect,
    /// A deadline passed.
    Timeout,
    /// The agent broke: a panic, or an answer that makes no sense.
    Agent,
    /// Stopped by a person.
    Aborted,
    /// The machine could not be switched on or restarted through its management controller.
    Power,
    /// Firmware or settings could not be changed through the management controller.
    Service,
    /// A disk that is a volume could not be made, or the DPU could not present it.
    Volume,
    /// A disk could not be erased, or what was read back says that it was not.
    Erase,
    /// A kind this build does not know.
    #[serde(other)]
    Other,
}
