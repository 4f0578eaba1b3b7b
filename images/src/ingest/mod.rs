//! From an image file to an image: reads the disk, cuts it into chunks, puts them into the store, and checks
//! everything that was said about the file. A file that is not what it should be is refused with the reason, and
//! nothing of it stays.

mod open;
mod pipeline;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use protocol::Sha256;

pub use crate::reader::{Format, Metered, Source, Tally};

use crate::disk;
use crate::manifest::{
    Architecture, CHUNK_SIZE, Datasource, FORMAT, Firmware, Manifest, RAW_SIZE_MAX, is_name,
};
use crate::reader::{ReadError, sniff};
use crate::store::{Store, StoreError};
use open::Opened;
use pipeline::Output;

/// Largest raw disk that is taken by default, in bytes: an installed OS is a tenth of it, and what a small file
/// unpacks to beyond it is a mistake or an attack.
pub const DEFAULT_RAW_MAX: u64 = 256 << 30;
/// zstd level by default: 3 packs 170 MB/s per core here, 9 a quarter of that for an eighth less space.
pub const DEFAULT_LEVEL: i32 = 3;
/// Most worker threads that are used without being told.
const WORKERS_MAX: usize = 8;

/// What is said about an image file, and how it is to be taken.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Name of the image, as [`Manifest::name`].
    pub name: String,
    /// Version of the image, as [`Manifest::version`].
    pub version: String,
    /// Machine architecture.
    pub architecture: Architecture,
    /// Firmware it boots on; told by the disk where `None`.
    pub firmware: Option<BTreeSet<Firmware>>,
    /// Smallest disk it may be written to, in bytes; the raw size where `None`.
    pub minimum_disk: Option<u64>,
    /// User that cloud-init makes by default, if any.
    pub default_user: Option<String>,
    /// How the OS is told who it is, as [`Manifest::datasource`].
    pub datasource: Option<Datasource>,
    /// Format of the file; told by its first bytes where `None`.
    pub format: Option<Format>,
    /// Size of the file as given, in bytes.
    pub expected_size: Option<u64>,
    /// SHA-256 of the file as given.
    pub expected_sha256: Option<Sha256>,
    /// Size of the raw disk in it, in bytes.
    pub expected_raw_size: Option<u64>,
    /// SHA-256 of the raw disk in it.
    pub expected_raw_sha256: Option<Sha256>,
    /// Bounds.
    pub limits: Limits,
    /// zstd level of the chunks, 1 to 19.
    pub compression_level: i32,
    /// Raw bytes per chunk: a power of two from 64 KiB to 4 MiB.
    pub chunk_size: u32,
}

/// Bounds on what is taken in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest raw disk, in bytes.
    pub raw_size_max: u64,
    /// Threads that hash and compress, at least 1; each needs about three chunks of memory.
    pub workers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self { raw_size_max: DEFAULT_RAW_MAX, workers: cores.clamp(2, WORKERS_MAX) }
    }
}

impl IngestOptions {
    /// Everything by default except what nothing can tell.
    pub fn new(name: impl Into<String>, version: impl Into<String>, architecture: Architecture) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            architecture,
            firmware: None,
            minimum_disk: None,
            default_user: None,
            datasource: None,
            format: None,
            expected_size: None,
            expected_sha256: None,
            expected_raw_size: None,
            expected_raw_sha256: None,
            limits: Limits::default(),
            compression_level: DEFAULT_LEVEL,
            chunk_size: CHUNK_SIZE,
        }
    }

    fn check(&self) -> Result<(), IngestError> {
        let refuse = |why: String| Err(IngestError::Options(why));
        for (what, text) in [("name", &self.name), ("version", &self.version)] {
            if !is_name(text) {
                return refuse(format!("{what} `{text}` must be 1 to 64 of a-z, 0-9, `.`, `-`, `_`"));
            }
        }
        if !(1..=19).contains(&self.compression_level) {
            return refuse(format!("compression level {} is not from 1 to 19", self.compression_level));
        }
        if !self.chunk_size.is_power_of_two() || !((64 << 10)..=CHUNK_SIZE).contains(&self.chunk_size) {
            return refuse(format!(
                "chunk size {} is not a power of two from 64 KiB to 4 MiB",
                self.chunk_size
            ));
        }
        Ok(())
    }

    fn raw_max(&self) -> u64 {
        self.limits.raw_size_max.min(RAW_SIZE_MAX)
    }
}

/// How far an ingest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestProgress {
    /// What it does now.
    pub stage: Stage,
    /// Bytes done in this stage, in the unit of `total`.
    pub done: u64,
    /// Bytes to do in this stage, where known: the file's for a stream, else the raw disk's.
    pub total: Option<u64>,
    /// Raw bytes read.
    pub raw_bytes: u64,
    /// Chunks with data that are in the store.
    pub chunks: u64,
    /// Chunks that are holes.
    pub holes: u64,
    /// Chunks, of those with data, that the store had already.
    pub reused: u64,
    /// Bytes written to the store.
    pub stored_bytes: u64,
}

/// Stage of an ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A stream in a format that must be read out of order is put aside.
    Spool,
    /// The file is hashed as it was given.
    Check,
    /// The disk is read, and its chunks are stored.
    Read,
}

/// Why an image file is refused.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// What was asked cannot be.
    #[error("{0}")]
    Options(String),
    /// The file cannot be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing in it.
    #[error("image is empty")]
    Empty,
    /// Not whole sectors.
    #[error("raw disk of {0} bytes is not a multiple of 512")]
    NotSectors(u64),
    /// The raw disk is larger than allowed, whatever the file's size.
    #[error("raw disk is larger than the {limit} bytes allowed")]
    TooBig {
        /// Bytes allowed.
        limit: u64,
    },
    /// The file is larger than any that holds an allowed disk.
    #[error("image file is larger than the {limit} bytes allowed")]
    FileTooBig {
        /// Bytes allowed.
        limit: u64,
    },
    /// The file lies about its size.
    #[error("image file has {found} bytes, {expected} were announced")]
    WrongSize {
        /// Bytes announced.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The stream went on after what was announced.
    #[error("image file has more than the {expected} bytes announced")]
    Longer {
        /// Bytes announced.
        expected: u64,
    },
    /// The file has another hash.
    #[error("image file hashes to {found}, {expected} was announced")]
    WrongHash {
        /// Announced.
        expected: Sha256,
        /// Found.
        found: Sha256,
    },
    /// The disk has another size.
    #[error("raw disk has {found} bytes, {expected} were announced")]
    WrongRawSize {
        /// Bytes announced.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The disk has another hash.
    #[error("raw disk hashes to {found}, {expected} was announced")]
    WrongRawHash {
        /// Announced.
        expected: Sha256,
        /// Found.
        found: Sha256,
    },
    /// An image file in a compressed file.
    #[error("{outer} file holds a {inner} file, not a raw disk; decompress it first")]
    Nested {
        /// The compressed file.
        outer: Format,
        /// What it holds.
        inner: Format,
    },
    /// The smallest disk it may be written to cannot hold it.
    #[error("minimum disk of {minimum_disk} bytes cannot hold the raw disk of {raw_size} bytes")]
    MinimumDisk {
        /// As asked.
        minimum_disk: u64,
        /// As found.
        raw_size: u64,
    },
    /// A chunk cannot be compressed.
    #[error("cannot compress chunk {index}")]
    Compress {
        /// Its place.
        index: usize,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The caller stopped it.
    #[error("ingest was cancelled")]
    Cancelled,
    /// A thread could not be started or ended early.
    #[error("ingest worker failed")]
    Worker(#[source] Option<std::io::Error>),
}

/// Reads an image file into `store` and makes the image visible. Blocks; uses [`Limits::workers`] threads beside the
/// caller's, and memory for about three chunks per thread.
///
/// `progress` is called after every chunk and can stop the work.
///
/// # Errors
/// Where the file is not what it should be, or the store fails. Then nothing is visible, and chunks that came with
/// this file alone are gone again.
pub fn ingest(
    store: &Store,
    source: Source,
    options: IngestOptions,
    progress: &mut dyn FnMut(IngestProgress) -> ControlFlow<()>,
) -> Result<Manifest, IngestError> {
    ingest_signed(store, source, options, progress, &|_| None)
}

/// As [`ingest`]; `sign` is asked for the signature of the image before it becomes visible.
///
/// # Errors
/// As [`ingest`].
pub fn ingest_signed(
    store: &Store,
    source: Source,
    options: IngestOptions,
    progress: &mut dyn FnMut(IngestProgress) -> ControlFlow<()>,
    sign: &dyn Fn(&Manifest) -> Option<String>,
) -> Result<Manifest, IngestError> {
    options.check()?;
    let mut opened = open::open(store, source, &options, progress)?;
    if let Some(size) = opened.disk.size() {
        check_raw_size(size, &options)?;
    }
    let writer = store.writer();
    let output = pipeline::run(&mut opened, &writer, &options, progress)
        .map_err(|e| opened.explain(e, options.expected_size))?;
    opened.check_file(&output, &options)?;
    let manifest = manifest(output, options)?;
    writer.put_signed(&manifest, sign(&manifest).as_deref())?;
    Ok(manifest)
}

fn check_raw_size(size: u64, options: &IngestOptions) -> Result<(), IngestError> {
    if size == 0 {
        return Err(IngestError::Empty);
    }
    if !size.is_multiple_of(512) {
        return Err(IngestError::NotSectors(size));
    }
    if size > options.raw_max() {
        return Err(IngestError::TooBig { limit: options.raw_max() });
    }
    if let Some(expected) = options.expected_raw_size.filter(|e| *e != size) {
        return Err(IngestError::WrongRawSize { expected, found: size });
    }
    if let Some(minimum_disk) = options.minimum_disk.filter(|m| *m < size) {
        return Err(IngestError::MinimumDisk { minimum_disk, raw_size: size });
    }
    Ok(())
}

/// A compressed file must hold a disk, not another image format that would be written to disks as it is.
fn check_nested(format: Format, head: &[u8]) -> Result<(), IngestError> {
    if !matches!(format, Format::RawZst | Format::RawGz | Format::RawXz) {
        return Ok(());
    }
    match sniff(head)? {
        Format::Raw => Ok(()),
        inner => Err(IngestError::Nested { outer: format, inner }),
    }
}

fn manifest(output: Output, options: IngestOptions) -> Result<Manifest, IngestError> {
    check_raw_size(output.raw_size, &options)?;
    if let Some(expected) = options.expected_raw_sha256.filter(|e| *e != output.sha256) {
        return Err(IngestError::WrongRawHash { expected, found: output.sha256 });
    }
    let found = disk::look(&output.head);
    Ok(Manifest {
        format: FORMAT.to_owned(),
        name: options.name,
        version: options.version,
        architecture: options.architecture,
        firmware: options.firmware.unwrap_or(found.firmware),
        partition_table: found.partition_table,
        raw_size: output.raw_size,
        sha256: output.sha256,
        minimum_disk: options.minimum_disk.unwrap_or(output.raw_size),
        default_user: options.default_user,
        datasource: options.datasource,
        chunk_size: options.chunk_size,
        chunks: output.chunks,
    })
}

impl Opened {
    /// A stream that ended too early or went on too long is the reason behind whatever its decoder says.
    fn explain(&self, error: IngestError, expected_size: Option<u64>) -> IngestError {
        let (IngestError::Read(_), Some(tally)) = (&error, &self.tally) else { return error };
        match expected_size {
            Some(expected) if tally.is_over() => IngestError::Longer { expected },
            Some(expected) if tally.is_ended() && tally.bytes() != expected => {
                IngestError::WrongSize { expected, found: tally.bytes() }
            }
            None if tally.is_over() => IngestError::FileTooBig { limit: self.file_limit },
            _ => error,
        }
    }

    /// Compares the file, as it was given, with what was said about it.
    fn check_file(&self, output: &Output, options: &IngestOptions) -> Result<(), IngestError> {
        let size = self.tally.as_ref().map(|t| t.bytes());
        if let (Some(expected), Some(found)) = (options.expected_size, size)
            && expected != found
        {
            return Err(IngestError::WrongSize { expected, found });
        }
        let hash = match self.format {
            Format::Raw => Some(output.sha256),
            _ => self.tally.as_ref().and_then(|t| t.sha256()),
        };
        match (options.expected_sha256, hash) {
            (Some(expected), Some(found)) if expected != found => {
                Err(IngestError::WrongHash { expected, found })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
