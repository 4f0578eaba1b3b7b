//! What the guest is told of the disk: feature bits and configuration space (VIRTIO 1.2, 5.2.3 and 5.2.4).

use crate::request::SECTOR;

/// Queues that a frontend may use; one for each processor of a large host is more than enough.
pub const QUEUES_MAX: u16 = 64;
/// Descriptors of a queue.
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// Data segments of a request: QEMU's queues have 128 descriptors, of which header and status take one each.
pub const SEGMENTS_MAX: u32 = 126;
/// Ranges in one discard or write-zeroes request.
pub const ZERO_RANGES_MAX: u32 = 16;
/// Sectors of one such range: 1 GiB, so that no request keeps a queue for long.
pub const ZERO_SECTORS_MAX: u32 = 1 << 21;
/// Octets of configuration space that a frontend may ask for (the rest of the structure reads as zeros).
pub const SPACE_MAX: u32 = 256;

/// Feature bits (VIRTIO 1.2, 5.2.3, 6; vhost-user protocol, "Feature negotiation").
pub mod feature {
    /// The number of segments is limited.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The disk cannot be written.
    pub const READ_ONLY: u64 = 1 << 5;
    /// The block size is given.
    pub const BLOCK_SIZE: u64 = 1 << 6;
    /// What is written is durable after a flush.
    pub const FLUSH: u64 = 1 << 9;
    /// The size of physical blocks is given.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// More than one queue.
    pub const QUEUES: u64 = 1 << 12;
    /// Discard.
    pub const DISCARD: u64 = 1 << 13;
    /// Write zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// Descriptor tables of their own.
    pub const INDIRECT: u64 = 1 << 28;
    /// Interrupts and kicks on demand.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user's own features can be asked for.
    pub const PROTOCOL: u64 = 1 << 30;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Feature bits of a disk.
pub fn features(read_only: bool) -> u64 {
    use feature::{
        BLOCK_SIZE, DISCARD, EVENT_IDX, FLUSH, INDIRECT, PROTOCOL, QUEUES, READ_ONLY, SEG_MAX, TOPOLOGY,
        VERSION_1, WRITE_ZEROES,
    };
    let always =
        SEG_MAX | BLOCK_SIZE | FLUSH | TOPOLOGY | QUEUES | INDIRECT | EVENT_IDX | PROTOCOL | VERSION_1;
    always | if read_only { READ_ONLY } else { DISCARD | WRITE_ZEROES }
}

/// `size` octets from `offset` of the configuration space of a disk of `bytes` bytes; zeros where there is nothing.
/// `None` where more is asked for than [`SPACE_MAX`].
pub fn space(bytes: u64, offset: u32, size: u32) -> Option<Vec<u8>> {
    let end = offset.checked_add(size).filter(|end| *end <= SPACE_MAX)?;
    let mut space = Vec::with_capacity(SPACE_MAX as usize);
    space.extend((bytes / SECTOR).to_le_bytes());
    space.extend(0_u32.to_le_bytes()); // size_max: no limit of our own
    space.extend(SEGMENTS_MAX.to_le_bytes());
    space.extend([0; 4]); // geometry: not offered
    space.extend((SECTOR as u32).to_le_bytes());
    space.extend([3, 0]); // physical blocks of 8 sectors, aligned
    space.extend(8_u16.to_le_bytes()); // min_io_size in sectors
    space.extend(0_u32.to_le_bytes()); // opt_io_size: none is better
    space.extend([0, 0]); // writeback (not offered), unused
    space.extend(QUEUES_MAX.to_le_bytes());
    for _ in ["discard", "write zeroes"] {
        space.extend(ZERO_SECTORS_MAX.to_le_bytes());
        space.extend(ZERO_RANGES_MAX.to_le_bytes());
        if space.len() == 44 {
            space.extend(8_u32.to_le_bytes()); // discard_sector_alignment
        }
    }
    space.push(1); // write_zeroes_may_unmap
    space.resize(SPACE_MAX as usize, 0);
    Some(space.get(offset as usize..end as usize)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_is_laid_out_as_virtio_says() {
        let all = space(1 << 30, 0, SPACE_MAX).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(all[..8].try_into().unwrap()), 1 << 21, "capacity in sectors");
        assert_eq!((u32_at(12), u32_at(20)), (126, 512), "seg_max, blk_size");
        assert_eq!(u16::from_le_bytes([all[34], all[35]]), QUEUES_MAX);
        assert_eq!((u32_at(36), u32_at(40), u32_at(44)), (1 << 21, 16, 8), "discard");
        assert_eq!((u32_at(48), u32_at(52), all[56]), (1 << 21, 16, 1), "write zeroes");
        assert!(all[57..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_piece_of_the_space_is_bounded() {
        assert_eq!(space(512, 0, 9).unwrap(), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(space(512, SPACE_MAX, 0), Some(Vec::new()));
        assert_eq!(space(512, 8, SPACE_MAX), None);
        assert_eq!(space(512, u32::MAX, 2), None);
    }

    #[test]
    fn a_read_only_disk_offers_nothing_that_changes_it() {
        let changes = feature::DISCARD | feature::WRITE_ZEROES;
        assert_eq!(features(true) & (changes | feature::READ_ONLY), feature::READ_ONLY);
        assert_eq!(features(false) & (changes | feature::READ_ONLY), changes);
    }
}
