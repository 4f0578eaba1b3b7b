//! Readers: the raw bytes of a disk, in order, out of the file formats that images come in. The format is told by
//! the first bytes, never by a file's name. What becomes of the bytes is `ingest`'s business.

mod gz;
pub mod input;
mod members;
mod qcow2;
mod raw;
mod xz;
mod zst;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

pub use input::{Input, Metered, Tally};
pub use qcow2::{Qcow2, Qcow2Error};
pub use raw::{RawFile, RawStream};

/// Bytes at the start of a file that [`sniff`] wants to see; fewer are enough for a shorter file.
pub const SNIFF_LEN: usize = 512;

/// A disk's raw bytes, in order.
pub trait RawDisk: Send {
    /// Size of the raw disk in bytes, where it is known before its end.
    fn size(&self) -> Option<u64>;

    /// Reads the next `buf.len()` bytes; fewer only at the end, where everything that can be wrong with the file's
    /// end has been looked at. A caller goes on until it gets fewer, and does not go on after an error.
    ///
    /// # Errors
    /// Where the file cannot be read or is not what its format says.
    fn read_chunk(&mut self, buf: &mut [u8]) -> Result<Piece, ReadError>;
}

/// What [`RawDisk::read_chunk`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes were put in the buffer; they may still be zeros.
    Data(usize),
    /// So many bytes are zeros; the buffer's content is not to be used.
    Hole(usize),
}

impl Piece {
    /// Bytes of the disk that this piece covers.
    pub fn len(self) -> usize {
        match self {
            Self::Data(n) | Self::Hole(n) => n,
        }
    }

    /// True at the end.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// Raw in zstd frames (RFC 8878).
    RawZst,
    /// Raw in gzip members (RFC 1952).
    RawGz,
    /// Raw in xz streams (the .xz file format 1.2.1).
    RawXz,
    /// QEMU's qcow2, version 2 or 3.
    Qcow2,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::RawGz => "raw.gz",
            Self::RawXz => "raw.xz",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Raw, Self::RawZst, Self::RawGz, Self::RawXz, Self::Qcow2]
            .into_iter()
            .find(|f| f.to_string() == s)
            .ok_or_else(|| format!("`{s}` is not one of raw, raw.zst, raw.gz, raw.xz, qcow2"))
    }
}

/// Where an image file comes from.
pub enum Source {
    /// Bytes as they arrive, such as an upload.
    Stream(Box<dyn Read + Send>),
    /// A file or block device; its holes are not read.
    File(File),
}

impl Source {
    /// A stream.
    pub fn stream(reader: impl Read + Send + 'static) -> Self {
        Self::Stream(Box::new(reader))
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn path(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::File)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::File(_) => "File",
        })
    }
}

/// Why a disk cannot be read from a file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or stream itself failed.
    #[error("cannot read the image file")]
    Source(#[source] io::Error),
    /// It ends in the middle.
    #[error("{format} image is cut short after {raw} raw bytes")]
    Truncated {
        /// The format.
        format: Format,
        /// Raw bytes that were there.
        raw: u64,
    },
    /// It cannot be decoded.
    #[error("{format} image is damaged after {raw} raw bytes")]
    Damaged {
        /// The format.
        format: Format,
        /// Raw bytes before the damage.
        raw: u64,
        /// What the decoder says.
        #[source]
        cause: io::Error,
    },
    /// Something follows its end.
    #[error("{format} image is followed by data that does not belong to it, after {raw} raw bytes")]
    TrailingData {
        /// The format.
        format: Format,
        /// Raw bytes before.
        raw: u64,
    },
    /// A format that needs to be read out of order, in a stream.
    #[error("{0} image cannot be read from a stream, only from a file")]
    NeedsFile(Format),
    /// A qcow2 file that is damaged or has what is not read here.
    #[error(transparent)]
    Qcow2(#[from] Qcow2Error),
    /// A format that is known and not read.
    #[error("image is a {0}, which is not read here; convert it to qcow2 or raw first")]
    Unsupported(&'static str),
}

/// The format that a file's first bytes (up to [`SNIFF_LEN`]) tell; what tells nothing is raw.
///
/// # Errors
/// [`ReadError::Unsupported`] for formats that would otherwise be taken for raw.
pub fn sniff(head: &[u8]) -> Result<Format, ReadError> {
    /// Offset, bytes there, what it is.
    const OTHERS: [(usize, &[u8], &str); 10] = [
        (0, b"KDMV", "VMDK"),
        (0, b"# Disk DescriptorFile", "VMDK descriptor"),
        (0, b"vhdxfile", "VHDX"),
        (0, b"conectix", "VHD"),
        (64, &[0x7f, 0x10, 0xda, 0xbe], "VDI"),
        (0, b"QED\0", "QED"),
        (0, b"BZh", "bzip2 file"),
        (0, &[0x04, 0x22, 0x4d, 0x18], "lz4 file"),
        (0, b"PK\x03\x04", "zip file"),
        (0, b"7z\xbc\xaf\x27\x1c", "7z file"),
    ];
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if at(0, b"QFI\xfb") {
        return Ok(Format::Qcow2);
    }
    if at(0, &[0x1f, 0x8b, 0x08]) {
        return Ok(Format::RawGz);
    }
    if at(0, b"\xfd7zXZ\0") {
        return Ok(Format::RawXz);
    }
    if zst::is_frame(head) {
        return Ok(Format::RawZst);
    }
    match OTHERS.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        Some((_, _, what)) => Err(ReadError::Unsupported(what)),
        None => Ok(Format::Raw),
    }
}

/// The disk in a stream.
///
/// # Errors
/// [`ReadError::NeedsFile`] for qcow2.
pub fn open_stream(input: Input, format: Format) -> Result<Box<dyn RawDisk>, ReadError> {
    match format {
        Format::Raw => Ok(Box::new(RawStream::new(input))),
        Format::RawZst => Ok(Box::new(zst::open(input))),
        Format::RawGz => Ok(Box::new(gz::open(input))),
        Format::RawXz => Ok(Box::new(xz::open(input))),
        Format::Qcow2 => Err(ReadError::NeedsFile(format)),
    }
}

/// The format of a file by its first bytes; the file is rewound.
///
/// # Errors
/// As [`sniff`], and where the file cannot be read.
pub fn sniff_file(file: &mut File) -> Result<Format, ReadError> {
    let mut head = Vec::with_capacity(SNIFF_LEN);
    file.seek(SeekFrom::Start(0))
        .and_then(|_| Read::by_ref(file).take(SNIFF_LEN as u64).read_to_end(&mut head))
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(ReadError::Source)?;
    sniff(&head)
}

/// Reads until `buf` is full or the end; returns the bytes read.
fn read_full(reader: &mut (impl Read + ?Sized), buf: &mut [u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// The disk in a file in a format that is read out of order, or raw.
///
/// # Errors
/// Where the file is not of that format.
pub fn open_file(file: File, format: Format) -> Result<Box<dyn RawDisk>, ReadError> {
    match format {
        Format::Raw => Ok(Box::new(RawFile::new(file)?)),
        Format::Qcow2 => Ok(Box::new(Qcow2::open(file)?)),
        other => open_stream(Input::new(file), other),
    }
}
