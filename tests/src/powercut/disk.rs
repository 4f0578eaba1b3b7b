//! A disk in memory that can take back what was written to it since it was last settled.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::SECTOR;

/// Octets of a disk, and what was under those that were written.
#[derive(Debug, Clone)]
pub struct Disk {
    bytes: Vec<u8>,
    undo: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// A blank disk of `size` octets.
    pub fn blank(size: usize) -> Self {
        Self::new(vec![0; size])
    }

    /// A disk with these octets.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, undo: Vec::new() }
    }

    /// The disk in this file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        std::fs::read(path).map(Self::new)
    }

    /// All octets.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes; what lies beyond the disk's end is dropped.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.write_sectors(offset, data, 0..data.len().div_ceil(SECTOR));
    }

    /// Writes some sectors of `data` alone.
    pub fn write_sectors(&mut self, offset: u64, data: &[u8], sectors: Range<usize>) {
        let from = (sectors.start * SECTOR).min(data.len());
        let data = &data[from..(sectors.end * SECTOR).min(data.len())];
        let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(from).min(self.bytes.len());
        let end = at.saturating_add(data.len()).min(self.bytes.len());
        let under = &mut self.bytes[at..end];
        self.undo.push((at, under.to_vec()));
        under.copy_from_slice(&data[..end - at]);
    }

    /// What was written stays.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    /// What was written since the disk was settled is taken back.
    pub fn take_back(&mut self) {
        while let Some((at, bytes)) = self.undo.pop() {
            self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_taken_back_in_their_order() {
        let mut disk = Disk::blank(4 * SECTOR);
        disk.write(0, &[1; 2 * SECTOR]);
        disk.settle();
        disk.write(512, &[2; 2 * SECTOR]);
        disk.write_sectors(0, &[3; 4 * SECTOR], 1..2);
        let sector = |disk: &Disk, n: usize| disk.bytes()[n * SECTOR];
        assert_eq!([0, 1, 2, 3].map(|n| sector(&disk, n)), [1, 3, 2, 0]);
        disk.write(3 * 512, &[9; 4 * SECTOR]);
        disk.take_back();
        assert_eq!([0, 1, 2, 3].map(|n| sector(&disk, n)), [1, 1, 0, 0]);
    }
}
