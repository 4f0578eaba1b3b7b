//! What the server serves: the trait that names files, and the two kinds of file.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use crate::transfer::Summary;

/// A file on its way: opened, or made for the client that asks. Ends in [`OpenError`] where there is none for it; the
/// error's words are sent to the client and so must say nothing about the server's disk.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<File, OpenError>> + Send + 'a>>;

/// Where files come from.
pub trait Files: Send + Sync + 'static {
    /// The file of this name, which is already [normalised](crate::normalise), for this client. It may wait (for a
    /// database, say): only the client's own transfer waits with it, and no longer than
    /// [`OPEN_MAX`](crate::limits::OPEN_MAX).
    fn open<'a>(&'a self, peer: SocketAddr, name: &'a str) -> Opening<'a>;

    /// A transfer ended, well or not.
    fn finished(&self, peer: SocketAddr, name: &str, summary: &Summary) {
        let _ = (peer, name, summary);
    }
}

/// Why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none of this name.
    #[error("file not found")]
    NotFound,
    /// There is, but not for this client now.
    #[error("access denied")]
    Denied,
    /// It could not be opened.
    #[error("file could not be opened")]
    Io(#[source] io::Error),
}

/// A file to serve. Cloning shares the contents.
#[derive(Debug, Clone)]
pub enum File {
    /// In memory, shared by all transfers.
    Memory(Arc<[u8]>),
    /// Built into the program.
    Static(&'static [u8]),
    /// On disk, read by position, so that all transfers share one handle. The length is fixed when it is opened.
    Disk(Arc<std::fs::File>, u64),
}

impl File {
    /// A file on disk with the length that it has now.
    ///
    /// # Errors
    /// The system's error where the length cannot be read, or `InvalidInput` for what is not a regular file.
    pub fn from_file(file: std::fs::File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self::Disk(Arc::new(file), meta.len()))
    }

    /// Length in octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Static(bytes) => bytes.len() as u64,
            Self::Disk(_, len) => *len,
        }
    }

    /// True where there is not one octet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with blocks of `size` octets from `offset` on, each after `header` octets that are the caller's to fill
    /// afterwards,
    /// and returns how many octets there were: fewer than asked for only at the end. `out` is a multiple of
    /// `header + size`, or ends in a shorter block.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub(crate) fn read_blocks(
        &self,
        offset: u64,
        (header, size): (usize, usize),
        out: &mut [u8],
    ) -> io::Result<usize> {
        let mut got = 0;
        if !matches!(self, Self::Disk(..)) {
            for block in out.chunks_mut(header + size) {
                got += self.read_at(offset + got as u64, block.get_mut(header..).unwrap_or_default())?;
            }
            return Ok(got);
        }
        // One read for all blocks, to the end of the buffer; then each moves to its place, which is never behind it.
        let blocks = out.len().div_ceil(header + size);
        let from = header * blocks;
        got = self.read_at(offset, &mut out[from..])?;
        for n in 0..blocks {
            let start = (n * size).min(got);
            let end = (start + size).min(got);
            out.copy_within(from + start..from + end, n * (header + size) + header);
        }
        Ok(got)
    }

    /// Fills `buf` from `offset` on and returns how many octets there were: fewer than asked for only at the end.
    ///
    /// # Errors
    /// The system's error, or `UnexpectedEof` where the file became shorter since it was opened.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.len().saturating_sub(offset);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..want];
        let from_memory = |bytes: &[u8], buf: &mut [u8]| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            buf.copy_from_slice(&bytes[start..start + want]);
        };
        match self {
            Self::Memory(bytes) => from_memory(bytes, buf),
            Self::Static(bytes) => from_memory(bytes, buf),
            Self::Disk(file, _) => file.read_exact_at(buf, offset)?,
        }
        Ok(want)
    }
}
