//! What the server serves: the trait that names files, and the two kinds of file.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::transfer::Summary;

/// Where files come from. Called from the server's own task: it must answer at once, without waiting for a network
/// or a lock.
pub trait Files: Send + Sync + 'static {
    /// The file of this name, which is already [normalised](crate::normalise).
    ///
    /// # Errors
    /// [`OpenError`]; its words are sent to the client and so must say nothing about the server's disk.
    fn open(&self, peer: SocketAddr, name: &str) -> Result<File, OpenError>;

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
