//! Where a disk keeps what makes it look used: the ranges that a light clean zeroes. Not an erasure of data.

use std::ops::Range;

use protocol::inventory::{Disk, DiskContent};

use crate::edges::EDGE;

/// ZFS keeps two labels of 256 KiB at each end of its device, aligned down to 256 KiB (OpenZFS `vdev_label.c`), and
/// md metadata 0.90 lies in the last 128 KiB, 1.0 in the last 12 KiB: two MiB at the end hold all of them and the
/// backup GPT.
const END: u64 = 2 * EDGE;
/// Btrfs keeps copies of its superblock at 64 MiB and 256 GiB (btrfs on-disk format).
const BTRFS_MIRRORS: [u64; 2] = [64 << 20, 256 << 30];
const BTRFS_SUPER: u64 = 64 << 10;

/// The ranges to zero, sorted, merged, within the disk.
pub fn ranges(disk: &Disk) -> Vec<Range<u64>> {
    let size = disk.size_bytes;
    let mut found = vec![0..2 * EDGE, size.saturating_sub(END)..size];
    found.extend(BTRFS_MIRRORS.map(|at| at..at + BTRFS_SUPER));
    if let DiskContent::Partitioned { partitions, .. } = &disk.content {
        for p in partitions {
            let end = p.start_bytes.saturating_add(p.size_bytes);
            found.push(p.start_bytes..p.start_bytes.saturating_add(EDGE));
            found.push(end.saturating_sub(EDGE).max(p.start_bytes)..end);
        }
    }
    let sector = u64::from(disk.logical_sector.max(512));
    let mut found: Vec<_> = found
        .into_iter()
        .map(|r| r.start / sector * sector..r.end.min(size).next_multiple_of(sector).min(size))
        .filter(|r| r.start < r.end)
        .collect();
    found.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for r in found {
        match merged.last_mut() {
            Some(last) if r.start <= last.end => last.end = last.end.max(r.end),
            _ => merged.push(r),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::inventory::Partition;

    proptest! {
        #[test]
        fn stays_on_the_disk(mib in 1u64..4096, parts in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..8)) {
            let mut disk = crate::plan::tests::disk("sda", "A", mib << 20);
            disk.content = DiskContent::Partitioned {
                table: "gpt".into(),
                partitions: parts.iter().map(|(start_bytes, size_bytes)| Partition {
                    number: 1, start_bytes: *start_bytes, size_bytes: *size_bytes, name: None, content: None,
                }).collect(),
            };
            let ranges = ranges(&disk);
            prop_assert_eq!(ranges[0].start, 0);
            prop_assert_eq!(ranges.last().unwrap().end, mib << 20);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            prop_assert!(ranges.iter().all(|r| r.start % 512 == 0 && r.end % 512 == 0));
        }
    }
}
