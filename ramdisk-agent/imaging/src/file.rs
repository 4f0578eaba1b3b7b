//! A file or block device as a medium.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

use crate::Medium;

/// Bytes that are written at once where a range has to be zeroed by hand.
const ZERO_PIECE: usize = 1 << 20;

/// A file or block device.
#[derive(Debug)]
pub struct FileMedium {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FileMedium {
    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// Where that is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(path)?;
        // A device's metadata have no length.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, path: path.to_owned(), size })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Medium for FileMedium {
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
