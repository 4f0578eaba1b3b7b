//! Raw disks: a stream, and a file whose holes are not read.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::input::{Input, source_error};
use super::{Format, Piece, RawDisk, ReadError, read_full};

/// A raw disk that arrives in order; its end is the stream's end.
pub struct RawStream(Input);

impl RawStream {
    /// The disk in `input`.
    pub fn new(input: Input) -> Self {
        Self(input)
    }
}

impl RawDisk for RawStream {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read_chunk(&mut self, buf: &mut [u8]) -> Result<Piece, ReadError> {
        let (n, result) = read_full(&mut self.0, buf);
        result.map_err(|e| ReadError::Source(source_error(e).unwrap_or_else(|e| e)))?;
        Ok(Piece::Data(n))
    }
}

/// A raw disk in a file or a block device.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    size: u64,
    at: u64,
    /// No data lies between `at` and here.
    data_from: u64,
    /// False where the file system does not tell holes.
    knows_holes: bool,
}

impl RawFile {
    /// The disk in `file`.
    ///
    /// # Errors
    /// Where its size cannot be told.
    pub fn new(mut file: File) -> Result<Self, ReadError> {
        let size = file.seek(SeekFrom::End(0)).map_err(ReadError::Source)?;
        Ok(Self { file, size, at: 0, data_from: 0, knows_holes: true })
    }

    /// Finds where data goes on, at or after `at`.
    fn find_data(&mut self) {
        if self.data_from > self.at || !self.knows_holes {
            return;
        }
        let Ok(at) = i64::try_from(self.at) else { return };
        match lseek(&self.file, at, Whence::SeekData) {
            Ok(found) => self.data_from = u64::try_from(found).unwrap_or(self.at),
            Err(Errno::ENXIO) => self.data_from = self.size, // nothing but a hole up to the end
            Err(_) => self.knows_holes = false,
        }
    }
}

impl RawDisk for RawFile {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn read_chunk(&mut self, buf: &mut [u8]) -> Result<Piece, ReadError> {
        let left = self.size.saturating_sub(self.at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let next = self.at + n as u64;
        self.find_data();
        let piece = if n > 0 && self.data_from >= next {
            Piece::Hole(n)
        } else {
            let buf = buf.get_mut(..n).unwrap_or_default();
            self.file.read_exact_at(buf, self.at).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    ReadError::Truncated { format: Format::Raw, raw: self.at }
                }
                _ => ReadError::Source(e),
            })?;
            Piece::Data(n)
        };
        self.at = next;
        Ok(piece)
    }
}
