//! Requests of a virtio-blk driver (VIRTIO 1.2, 5.2.6), judged before anything is done: a guest may ask for whatever it
//! likes, and what comes out of here lies within the disk.

use std::ops::Range;

use crate::config::{ZERO_RANGES_MAX, ZERO_SECTORS_MAX};

/// Bytes of a sector, whatever the block size.
pub const SECTOR: u64 = 512;
/// Bytes of the head of a request.
pub const HEAD: usize = 16;
/// Bytes of a range in a discard or write-zeroes request.
pub const ZERO_RANGE: usize = 16;
/// Bytes of a serial number.
pub const SERIAL: usize = 20;
/// Bytes that one request may move; nothing is buffered whole, but no request should keep a queue for long.
pub const DATA_MAX: u64 = 64 << 20;

/// Answer in the last byte of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Not done, or not whole.
    Failed = 1,
    /// Not known to this device.
    Unsupported = 2,
}

/// What a disk has, as far as requests are judged by it.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// Bytes, a multiple of [`SECTOR`].
    pub size: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// A request that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Bytes of the disk to the guest.
    Read(Range<u64>),
    /// Bytes of the guest to the disk.
    Write(Range<u64>),
    /// Make durable what was written.
    Flush,
    /// The serial number.
    Serial,
    /// Ranges follow in the data; see [`zero_ranges`].
    Zero(Zeroing),
}

/// Which of the two requests that leave zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroing {
    /// The content is not needed any more.
    Discard,
    /// Zeros are wanted.
    Write,
}

impl Disk {
    /// Judges a request with this head, followed by `from_guest` bytes of data and with room for `to_guest` bytes before
    /// its status.
    ///
    /// # Errors
    /// The status that the guest gets.
    pub fn judge(self, head: &[u8; HEAD], from_guest: u64, to_guest: u64) -> Result<Work, Status> {
        let [a, b, c, d, _, _, _, _, sector @ ..] = *head;
        let first = u64::from_le_bytes(sector);
        let changes = |work| if self.read_only { Err(Status::Failed) } else { Ok(work) };
        match u32::from_le_bytes([a, b, c, d]) {
            0 => Ok(Work::Read(self.range(first, to_guest)?)),
            1 => changes(Work::Write(self.range(first, from_guest)?)),
            4 => Ok(Work::Flush),
            8 if to_guest >= SERIAL as u64 => Ok(Work::Serial),
            8 => Err(Status::Failed),
            11 => changes(Work::Zero(Zeroing::Discard)),
            13 => changes(Work::Zero(Zeroing::Write)),
            _ => Err(Status::Unsupported),
        }
    }

    /// Judges the ranges of a discard or write-zeroes request (VIRTIO 1.2, 5.2.6: sector, number of sectors, flags of
    /// which only `unmap` of write-zeroes is known).
    ///
    /// # Errors
    /// As [`Disk::judge`].
    pub fn zero_ranges(self, kind: Zeroing, data: &[u8]) -> Result<Vec<Range<u64>>, Status> {
        let (ranges, rest) = data.as_chunks::<ZERO_RANGE>();
        if ranges.is_empty() || !rest.is_empty() || ranges.len() > ZERO_RANGES_MAX as usize {
            return Err(Status::Failed);
        }
        let one = |range: &[u8; ZERO_RANGE]| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = *range;
            let (first, number) =
                (u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), u32::from_le_bytes([n0, n1, n2, n3]));
            let known = u32::from(kind == Zeroing::Write);
            if u32::from_le_bytes([f0, f1, f2, f3]) & !known != 0 {
                return Err(Status::Unsupported);
            }
            if number > ZERO_SECTORS_MAX {
                return Err(Status::Failed);
            }
            self.within(first, u64::from(number) * SECTOR)
        };
        ranges.iter().map(one).collect()
    }

    fn range(self, first: u64, bytes: u64) -> Result<Range<u64>, Status> {
        if !bytes.is_multiple_of(SECTOR) || bytes > DATA_MAX {
            return Err(Status::Failed);
        }
        self.within(first, bytes)
    }

    fn within(self, first: u64, bytes: u64) -> Result<Range<u64>, Status> {
        let start = first.checked_mul(SECTOR).ok_or(Status::Failed)?;
        let end = start.checked_add(bytes).filter(|end| *end <= self.size).ok_or(Status::Failed)?;
        Ok(start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISK: Disk = Disk { size: 1 << 20, read_only: false };

    fn head(kind: u32, sector: u64) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[8..].copy_from_slice(&sector.to_le_bytes());
        head
    }

    fn zero_range(sector: u64, number: u32, flags: u32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &number.to_le_bytes(), &flags.to_le_bytes()].concat()
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(DISK.judge(&head(0, 2), 0, 1024), Ok(Work::Read(1024..2048)));
        assert_eq!(DISK.judge(&head(1, 2047), 512, 0), Ok(Work::Write(1_048_064..1_048_576)));
        assert_eq!(DISK.judge(&head(4, u64::MAX), 0, 0), Ok(Work::Flush));
        assert_eq!(DISK.judge(&head(8, 0), 0, 20), Ok(Work::Serial));
        assert_eq!(DISK.judge(&head(11, 0), 16, 0), Ok(Work::Zero(Zeroing::Discard)));
        assert_eq!(DISK.judge(&head(13, 0), 16, 0), Ok(Work::Zero(Zeroing::Write)));
    }

    #[test]
    fn what_lies_outside_or_is_not_known_is_refused() {
        for (kind, sector, bytes) in
            [(0, 2048, 512), (0, 2047, 1024), (1, 1 << 55, 512), (1, u64::MAX, 512), (0, 0, 511), (1, 0, 1)]
        {
            assert_eq!(DISK.judge(&head(kind, sector), bytes, bytes), Err(Status::Failed), "{kind} {sector}");
        }
        assert_eq!(DISK.judge(&head(8, 0), 0, 19), Err(Status::Failed));
        assert_eq!(DISK.judge(&head(2, 0), 0, 0), Err(Status::Unsupported));
        let large = Disk { size: 1 << 40, read_only: false };
        assert_eq!(large.judge(&head(0, 0), 0, DATA_MAX + 512), Err(Status::Failed));
    }

    #[test]
    fn a_read_only_disk_is_not_changed() {
        let disk = Disk { read_only: true, ..DISK };
        for kind in [1, 11, 13] {
            assert_eq!(disk.judge(&head(kind, 0), 512, 0), Err(Status::Failed), "{kind}");
        }
        assert_eq!(disk.judge(&head(0, 0), 0, 512), Ok(Work::Read(0..512)));
    }

    #[test]
    fn ranges_to_zero_are_judged_one_by_one() {
        let (discard, write) = (Zeroing::Discard, Zeroing::Write);
        let two = [zero_range(0, 8, 0), zero_range(8, 2040, 0)].concat();
        assert_eq!(DISK.zero_ranges(discard, &two), Ok(vec![0..4096, 4096..1 << 20]));
        assert_eq!(DISK.zero_ranges(write, &zero_range(0, 1, 1)), Ok(std::iter::once(0..512).collect()));
        assert_eq!(DISK.zero_ranges(discard, &zero_range(0, 1, 1)), Err(Status::Unsupported));
        for wrong in [
            Vec::new(),
            vec![0; 15],
            zero_range(0, 2049, 0),
            zero_range(u64::MAX, 1, 0),
            zero_range(0, ZERO_SECTORS_MAX + 1, 0),
            vec![0; ZERO_RANGE * 17],
        ] {
            assert_eq!(DISK.zero_ranges(discard, &wrong), Err(Status::Failed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_allowed_lies_within_the_disk(head: [u8; HEAD], kind in 0_u32..14, from: u64, to: u64,
                                                    data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut head = head;
            head[..4].copy_from_slice(&kind.to_le_bytes());
            if let Ok(Work::Read(range) | Work::Write(range)) = DISK.judge(&head, from, to) {
                prop_assert!(range.start <= range.end && range.end <= DISK.size);
            }
            for range in DISK.zero_ranges(Zeroing::Write, &data).unwrap_or_default() {
                prop_assert!(range.start <= range.end && range.end <= DISK.size);
            }
        }
    }
}
