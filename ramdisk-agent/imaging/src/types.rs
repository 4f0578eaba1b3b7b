//! What a writer needs of others, and what it tells them.

use std::io;
use std::ops::Range;

use images::Manifest;
use protocol::ChunkId;
use protocol::job::CloudConfig;
use serde::Serialize;
use zstd::bulk::Decompressor;

/// Where an image is written. Calls come from several threads.
pub trait Medium: Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Reads all of `into`, from where the bytes are kept.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `from`.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes a range read as zeros, and gives its room back where that can be done.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn zero(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Where that cannot be promised.
    fn flush(&self) -> io::Result<()>;
}

/// Where chunks come from. Calls come from several threads.
pub trait Chunks: Sync {
    /// The raw bytes of a chunk, verified, into `raw` of its exact length. Who waits for them looks at `is_stopped`.
    ///
    /// # Errors
    /// [`ImagingError::Refused`] where they cannot be had or are others, [`ImagingError::Cancelled`].
    fn chunk(
        &self,
        index: usize,
        id: ChunkId,
        decompressor: &mut Decompressor<'_>,
        raw: &mut [u8],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), ImagingError>;
}

/// Who is told, and who may stop it. Calls come from several threads.
pub trait Watch: Sync {
    /// How far it is.
    fn tell(&self, progress: Progress);

    /// True where it is to stop.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// An image, and what is to become of it on its disk.
pub struct Image<'a> {
    /// What it is.
    pub manifest: &'a Manifest,
    /// Where its chunks come from.
    pub chunks: &'a dyn Chunks,
    /// Files of the config partition; `None` leaves the image as it is.
    pub config: Option<&'a CloudConfig>,
    /// Grow the last partition to the end of the disk.
    pub grow_root: bool,
    /// Below the medium all is encrypted with a new key: what was there before nobody reads, so nothing behind the image is zeroed.
    pub encrypted: bool,
}

/// How far a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes of it.
    pub done: u64,
    /// Bytes it has.
    pub total: u64,
}

/// What a write is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Looks whether the image fits.
    #[default]
    Plan,
    /// Writes chunks.
    Write,
    /// Reads back.
    Verify,
    /// Makes it bootable.
    Customise,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Written {
    /// Bytes of chunks, config partition and partition tables.
    pub written: u64,
    /// Bytes of holes.
    pub zeroed: u64,
    /// Bytes that were read back.
    pub verified: u64,
    /// Number and bytes of the partition that was grown.
    pub grown: Option<(u32, u64)>,
}

/// Why an image was not written; the disk does not boot then.
#[derive(Debug, thiserror::Error)]
pub enum ImagingError {
    /// The image cannot be had or does not fit.
    #[error("{0}")]
    Refused(String),
    /// The disk.
    #[error("cannot {action} the disk")]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What was read back is not what was written.
    #[error("the disk returns other bytes than were written, at byte {0}")]
    Differs(u64),
    /// It was told to stop.
    #[error("stopped as it was told")]
    Cancelled,
}

impl ImagingError {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, cause }
    }
}
