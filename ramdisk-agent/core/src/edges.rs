//! The two ends of a disk, which decide whether it boots. A firmware finds a GPT by its first or, failing that, by its
//! last sectors (UEFI 2.10, 5.3.2; EDK2 even restores the first from the last), and boot code by the first. So neither
//! end is written with image bytes before everything between them is written and read back.

use std::ops::Range;

/// Bytes at each end that are zeroed first and written last.
pub const EDGE: u64 = 1 << 20;

/// The ends of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edges {
    disk_size: u64,
}

/// A range of the disk cut at the edges; a piece that does not exist is an empty range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// What lies in the first MiB.
    pub head: Range<u64>,
    /// What may be written at once.
    pub body: Range<u64>,
    /// What lies in the last MiB.
    pub tail: Range<u64>,
}

impl Edges {
    /// The edges of a disk of `disk_size` bytes; `None` where it is too small to have two.
    pub fn of(disk_size: u64) -> Option<Self> {
        (disk_size >= 4 * EDGE).then_some(Self { disk_size })
    }

    /// First byte of the tail.
    pub fn tail_start(&self) -> u64 {
        self.disk_size - EDGE
    }

    /// Cuts `range`, which must lie on the disk (what lies beyond is dropped).
    pub fn split(&self, range: Range<u64>) -> Split {
        let within = |low: u64, high: u64| {
            let start = range.start.clamp(low, high);
            start..range.end.clamp(start, high)
        };
        Split {
            head: within(0, EDGE),
            body: within(EDGE, self.tail_start()),
            tail: within(self.tail_start(), self.disk_size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_make_the_whole(size in 4 * EDGE..64 * EDGE, a in 0..64 * EDGE, len in 0..8 * EDGE) {
            let edges = Edges::of(size).unwrap();
            let a = a.min(size);
            let range = a..(a + len).min(size);
            let s = edges.split(range.clone());
            let total = [&s.head, &s.body, &s.tail].iter().map(|r| r.end - r.start).sum::<u64>();
            prop_assert_eq!(total, range.end - range.start);
            prop_assert!(s.body.start >= EDGE && s.body.end <= size - EDGE);
            prop_assert!(s.head.end <= EDGE && s.tail.start >= size - EDGE);
        }
    }
}
