//! A volume: what lies behind a disk. Here also the simplest, a file or block device.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::request::SECTOR;

/// What is called when a part of a volume is there (`true`), or cannot be had (`false`).
pub type Then = Box<dyn FnOnce(bool) + Send>;

/// Bytes that survive us. All offsets are within the volume: `request` saw to that.
pub trait Volume: Send + Sync {
    /// Bytes, a multiple of [`SECTOR`].
    fn size(&self) -> u64;

    /// True where it must not be changed.
    fn read_only(&self) -> bool;

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// Where the bytes cannot be read, or are not here ([`Volume::missing`]).
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `from` at `offset`. Survives the end of this process at once, a power cut after [`Volume::flush`].
    ///
    /// # Errors
    /// Where it cannot be written; what the range then holds is not said.
    fn write(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// Makes `range` read as zeros, by giving its room back where that can be done.
    ///
    /// # Errors
    /// As [`Volume::write`].
    fn zero(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes durable all that was written before.
    ///
    /// # Errors
    /// Where that cannot be promised.
    fn flush(&self) -> io::Result<()>;

    /// A part of `range` that must be fetched before the range can be read: to be given to [`Volume::when_here`].
    fn missing(&self, range: &Range<u64>) -> Option<u32>;

    /// Calls `then` when the part `missing` is here, or cannot be had; at once, where it is here meanwhile.
    fn when_here(&self, missing: u32, then: Then);
}

/// A file, or what stands in for one in a test of power cuts.
pub trait Storage: Send + Sync {
    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// Where the bytes cannot be read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `from` at `offset`.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// Makes `range` read as zeros.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn zero(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes durable all that was written before.
    ///
    /// # Errors
    /// Where that cannot be promised; then it never is again.
    fn sync(&self) -> io::Result<()>;
}

/// Why a file cannot be a volume.
#[derive(Debug, thiserror::Error)]
pub enum FileVolumeError {
    /// It cannot be opened or measured.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Neither a file nor a block device.
    #[error("{} is neither a file nor a block device", .0.display())]
    Kind(PathBuf),
    /// Part of a sector, or nothing.
    #[error("{} has {size} bytes, which is not a multiple of 512 above 0", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// Another process serves it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
}

/// A file or block device, written in place.
#[derive(Debug)]
pub struct Backing {
    file: File,
    /// A block device has no holes to punch.
    device: bool,
    /// The kernel says once that it lost what it should have written, and then forgets it (fsync(2)); we do not.
    lost: AtomicBool,
}

impl Backing {
    /// Of an open file.
    ///
    /// # Errors
    /// Where the file cannot be looked at.
    pub fn new(file: File) -> io::Result<Self> {
        let device = file.metadata()?.file_type().is_block_device();
        Ok(Self { file, device, lost: AtomicBool::new(false) })
    }
}

impl Storage for Backing {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        if self.device { write_zeros(&self.file, range) } else { punch(&self.file, range) }
    }

    fn sync(&self) -> io::Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write was lost by the disk below"));
        }
        self.file.sync_data().inspect_err(|_| self.lost.store(true, Ordering::Release))
    }
}

/// A file or block device as it is.
#[derive(Debug)]
pub struct FileVolume {
    backing: Backing,
    size: u64,
    read_only: bool,
}

impl FileVolume {
    /// Opens the file or block device at `path`, locked against other writers that lock (flock(2)).
    ///
    /// # Errors
    /// Where it cannot be a volume.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, FileVolumeError> {
        let failed = |cause| FileVolumeError::Open { path: path.to_owned(), cause };
        let mut file = File::options().read(true).write(!read_only).open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FileVolumeError::Kind(path.to_owned()));
        }
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => FileVolumeError::InUse(path.to_owned()),
            std::fs::TryLockError::Error(cause) => failed(cause),
        })?;
        let size = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(failed)?;
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(FileVolumeError::Size { path: path.to_owned(), size });
        }
        Ok(Self { backing: Backing::new(file).map_err(failed)?, size, read_only })
    }
}

impl Volume for FileVolume {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.backing.read_at(into, offset)
    }

    fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.backing.write_at(from, offset)
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.backing.zero(range)
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.backing.sync() }
    }

    fn missing(&self, _: &Range<u64>) -> Option<u32> {
        None
    }

    fn when_here(&self, _: u32, then: Then) {
        then(true);
    }
}

/// Makes a hole in a file, or writes zeros where the file system has no holes.
fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let (Ok(start), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, hole, start, length) {
        Err(nix::errno::Errno::EOPNOTSUPP) => write_zeros(file, range),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    let zeros = vec![0; PIECE.min(usize::try_from(range.end - range.start).unwrap_or(PIECE))];
    for start in range.clone().step_by(PIECE) {
        let length = usize::try_from(range.end - start).unwrap_or(PIECE).min(PIECE);
        file.write_all_at(zeros.get(..length).unwrap_or(&zeros), start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, size: u64) -> PathBuf {
        let path = std::env::temp_dir().join(format!("billet-blk-{name}-{}", std::process::id()));
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    #[test]
    fn a_file_keeps_what_is_written_and_forgets_what_is_zeroed() {
        let path = scratch("file", 1 << 20);
        let volume = FileVolume::open(&path, false).unwrap();
        assert_eq!((volume.size(), volume.missing(&(0..1 << 20))), (1 << 20, None));
        volume.write(&[7; 8192], 4096).unwrap();
        volume.zero(4096..8192).unwrap();
        volume.zero(0..0).unwrap();
        volume.flush().unwrap();
        let mut found = vec![1; 12288];
        volume.read(&mut found, 0).unwrap();
        assert_eq!(found, [vec![0; 8192], vec![7; 4096]].concat());
        write_zeros(&volume.backing.file, 8192..12288).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 1 << 20]);
        assert!(volume.read(&mut found, 1 << 20).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_cannot_be_a_volume_is_said() {
        let path = scratch("wrong", 513);
        assert!(matches!(FileVolume::open(&path, true), Err(FileVolumeError::Size { size: 513, .. })));
        File::options().write(true).open(&path).unwrap().set_len(512).unwrap();
        let held = FileVolume::open(&path, false).unwrap();
        assert!(matches!(FileVolume::open(&path, false), Err(FileVolumeError::InUse(_))));
        drop(held);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(FileVolume::open(&path, false), Err(FileVolumeError::Open { .. })));
        assert!(matches!(FileVolume::open(Path::new("/dev/null"), true), Err(FileVolumeError::Kind(_))));
    }
}
