//! A disk (or a plain file, in tests and benchmarks) that is read and written past the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::fault::{Fault, FaultCode};

use crate::sys::{self, Buffer};

/// Bytes written at once where a range has to be zeroed by hand.
const ZERO_PIECE: usize = 1 << 20;

/// An open target.
pub struct Target {
    file: File,
    path: PathBuf,
    size: u64,
    sector: u32,
    block: bool,
}

/// A failed operation on a disk.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path} at byte {offset}: {cause}")]
pub struct DeviceError {
    what: &'static str,
    path: PathBuf,
    offset: u64,
    #[source]
    cause: io::Error,
}

impl From<DeviceError> for Fault {
    fn from(e: DeviceError) -> Self {
        match e.cause.raw_os_error() {
            Some(libc::EBUSY) => Self::new(
                FaultCode::DiskRefused,
                format!("{} is in use (mounted, or part of a RAID or LVM)", e.path.display()),
                "stop what uses the disk, then try again",
            ),
            _ => Self::new(
                FaultCode::DiskIo,
                e.to_string(),
                "check the drive's health and cabling; replace the drive if it happens again",
            ),
        }
    }
}

impl Target {
    /// Opens for writing, so that nobody else may hold it (O_EXCL on a block device: not mounted, no RAID member).
    ///
    /// # Errors
    /// Where it cannot be opened, or its size cannot be read.
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        Self::open_with(path, true)
    }

    /// Opens for reading, beside others.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn open_read(path: &Path) -> Result<Self, DeviceError> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, write: bool) -> Result<Self, DeviceError> {
        let fail = |what, cause| DeviceError { what, path: path.to_owned(), offset: 0, cause };
        let block = std::fs::metadata(path).map_err(|e| fail("open", e))?.file_type().is_block_device();
        let open = |flags| {
            let exclusive = if block && write { libc::O_EXCL } else { 0 };
            OpenOptions::new().read(true).write(write).custom_flags(flags | exclusive).open(path)
        };
        let mut file = open(libc::O_DIRECT).or_else(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => open(0),
            _ => Err(e),
        });
        // Some file systems take O_DIRECT at open and refuse 512-byte offsets at the first read.
        if let Ok(found) = &file
            && !block
            && found.read_at(&mut Buffer::new(512)[..512], 512).is_err()
        {
            file = open(0);
        }
        let file = file.map_err(|e| fail("open", e))?;
        let (size, sector) = if block {
            let size = sys::block_size_bytes(&file).map_err(|e| fail("read the size of", e))?;
            (size, sys::block_sector(&file).map_err(|e| fail("read the sector size of", e))?)
        } else {
            (file.metadata().map_err(|e| fail("read the size of", e))?.len(), 512)
        };
        Ok(Self { file, path: path.to_owned(), size, sector, block })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Logical sector in bytes.
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// True for a write-protected block device.
    pub fn is_read_only(&self) -> bool {
        self.block && sys::block_read_only(&self.file).unwrap_or(false)
    }

    /// Reads all of `into`, whose address, length and offset are aligned.
    ///
    /// # Errors
    /// Where the device fails or ends.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.file.read_exact_at(into, offset).map_err(|e| self.failed("read", offset, e))
    }

    /// Writes all of `from`, whose address, length and offset are aligned.
    ///
    /// # Errors
    /// Where the device fails or ends.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DeviceError> {
        self.file.write_all_at(from, offset).map_err(|e| self.failed("write", offset, e))
    }

    /// Makes a range read as zeros: by the device's own command where it has one, else by writing.
    ///
    /// # Errors
    /// Where even writing fails.
    pub fn zero(&self, range: &Range<u64>) -> Result<(), DeviceError> {
        let quick = if self.block { sys::block_zero } else { sys::file_zero };
        match quick(&self.file, range) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Err(self.failed("zero", range.start, e)),
            Err(_) => self.zero_by_writing(range),
        }
    }

    fn zero_by_writing(&self, range: &Range<u64>) -> Result<(), DeviceError> {
        let zeros = Buffer::new(ZERO_PIECE);
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZERO_PIECE as u64);
            self.write_at(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }

    /// Tells the device that a range is unused; nothing relies on it.
    pub fn discard(&self, range: &Range<u64>) {
        if self.block {
            // Not every device can; what must be zero is zeroed by `zero` all the same.
            let _ = sys::block_discard(&self.file, range);
        }
    }

    /// Gives a range back to the device, which guarantees that it reads as zeros.
    ///
    /// # Errors
    /// Where the device guarantees nothing, or fails.
    pub fn give_back(&self, range: &Range<u64>) -> io::Result<()> {
        if self.block { sys::block_punch(&self.file, range) } else { sys::file_zero(&self.file, range) }
    }

    /// The device itself, for commands that are no reads or writes; `None` for a plain file.
    pub fn device(&self) -> Option<&File> {
        Some(&self.file).filter(|_| self.block)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn flush(&self) -> Result<(), DeviceError> {
        self.hit(failpoint::Point::AgentFlush)?;
        self.file.sync_data().map_err(|e| self.failed("flush", 0, e))
    }

    /// Lets the kernel see the new partitions. Best effort: the next boot reads the table anyway.
    ///
    /// # Errors
    /// Where the kernel cannot now.
    pub fn reread_partitions(&self) -> io::Result<()> {
        if self.block { sys::block_reread(&self.file) } else { Ok(()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place where a test lets the device fail, or this program die.
    ///
    /// # Errors
    /// What the test wants.
    pub fn hit(&self, point: failpoint::Point) -> Result<(), DeviceError> {
        failpoint::hit(point).map_err(|e| self.failed("use", 0, e))
    }

    fn failed(&self, what: &'static str, offset: u64, cause: io::Error) -> DeviceError {
        DeviceError { what, path: self.path.clone(), offset, cause }
    }
}
