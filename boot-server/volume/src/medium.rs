//! Bytes of one volume while an image is written into it: a file of this machine, or whatever a connection leads to ([`crate::nbd`]).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

/// Bytes that are written at once where a range has to be zeroed by hand.
const ZERO_PIECE: usize = 1 << 20;

/// Where an image is written. Calls come from several threads.
pub(crate) trait Medium: Sync {
    /// What it is called in errors.
    fn path(&self) -> &Path;
    /// Bytes.
    fn size(&self) -> u64;
    /// Reads all of `into`, from where the bytes are kept.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `from`.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;
    /// Makes a range read as zeros, and gives its room back where that can be done.
    fn zero(&self, range: Range<u64>) -> io::Result<()>;
    /// Makes what was written durable.
    fn flush(&self) -> io::Result<()>;
}

/// A file.
#[derive(Debug)]
pub(crate) struct FileMedium {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FileMedium {
    /// Opens it for reading and writing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, path: path.to_owned(), size })
    }
}

impl Medium for FileMedium {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        // What was flushed leaves the page cache, so that the bytes come from where they are kept. Only advice: a file
        // system in memory has no other place.
        let len = std::num::NonZeroU64::new(into.len() as u64);
        fadvise(&self.file, offset, len, Advice::DontNeed)?;
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.file, flags, range.start, range.end - range.start).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; ZERO_PIECE];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZERO_PIECE as u64);
            self.write_at(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
