//! What the first bytes of a raw disk tell: its partition table, and the firmware that can start it.

use std::collections::BTreeSet;

use crate::manifest::{Firmware, PartitionTable};

/// Bytes from the start of a disk that [`look`] wants to see: a GPT of 128 entries at either sector size, and room.
pub const HEAD_LEN: usize = 64 << 10;

/// Sector sizes that disks have, in bytes.
const SECTORS: [usize; 2] = [512, 4096];
/// Partition entries that are looked at, at most; the specification's minimum is what everybody writes.
const ENTRIES_MAX: usize = 1024;
/// EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as it lies on the disk (UEFI 2.10, table 5.7).
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// BIOS boot partition, 21686148-6449-6E6F-744E-656564454649.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// What [`look`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The partition table.
    pub partition_table: PartitionTable,
    /// Firmware that something on the disk is there for: an EFI system partition, or boot code in the MBR or a BIOS
    /// boot partition. Empty where there is neither, or no partition table.
    pub firmware: BTreeSet<Firmware>,
    /// Sector size that the partition table was made for, where it tells.
    pub sector: Option<usize>,
}

/// Looks at the first [`HEAD_LEN`] bytes of a disk, or at all of a smaller one.
pub fn look(head: &[u8]) -> Found {
    let mbr = head.get(..512).filter(|s| s.ends_with(&[0x55, 0xaa]));
    let boot_code = mbr.and_then(|s| s.get(..440)).is_some_and(|code| code.iter().any(|b| *b != 0));
    let gpt = SECTORS.into_iter().find_map(|sector| Some((sector, gpt_types(head, sector)?)));
    let (partition_table, sector, mut firmware) = match (gpt, mbr.and_then(mbr_types)) {
        (Some((sector, types)), _) => {
            let mut firmware = BTreeSet::new();
            firmware.extend(types.contains(&ESP).then_some(Firmware::Uefi));
            firmware.extend(types.contains(&BIOS_BOOT).then_some(Firmware::Bios));
            (PartitionTable::Gpt, Some(sector), firmware)
        }
        (None, Some(types)) => {
            let uefi = types.contains(&0xef).then_some(Firmware::Uefi);
            (PartitionTable::Mbr, None, uefi.into_iter().collect())
        }
        (None, None) => (PartitionTable::None, None, BTreeSet::new()),
    };
    if boot_code && partition_table != PartitionTable::None {
        firmware.insert(Firmware::Bios);
    }
    Found { partition_table, firmware, sector }
}

/// Types of the partitions in a GPT whose header is sound (UEFI 2.10, 5.3.2); `None` where there is none.
fn gpt_types(head: &[u8], sector: usize) -> Option<Vec<[u8; 16]>> {
    let block = head.get(sector..sector * 2)?;
    let header = block.strip_prefix(b"EFI PART")?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(*header.get(at - 8..)?.first_chunk()?));
    let length = usize::try_from(u32_at(12)?).ok().filter(|n| (92..=sector).contains(n))?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(block.get(..16)?);
    crc.update(&[0; 4]); // the field itself counts as zero
    crc.update(block.get(20..length)?);
    if crc.finalize() != u32_at(16)? {
        return None;
    }
    let start = u64::from_le_bytes(*block.get(72..)?.first_chunk()?);
    let start = usize::try_from(start).ok()?.checked_mul(sector)?;
    let count = usize::try_from(u32_at(80)?).ok()?.min(ENTRIES_MAX);
    let size = usize::try_from(u32_at(84)?).ok().filter(|n| *n >= 128)?;
    let entries = head.get(start..).unwrap_or_default().chunks_exact(size).take(count);
    Some(entries.filter_map(|e| e.first_chunk().copied()).filter(|t| *t != [0; 16]).collect())
}

/// Types of the partitions in an MBR; `None` where it is a boot sector without any, such as that of a FAT volume.
fn mbr_types(sector: &[u8]) -> Option<Vec<u8>> {
    let (entries, _) = sector.get(446..510)?.as_chunks::<16>();
    let sound = entries.iter().all(|e| matches!(e[0], 0 | 0x80));
    let types: Vec<u8> = entries.iter().map(|e| e[4]).filter(|t| *t != 0).collect();
    (sound && !types.is_empty()).then_some(types)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(sector: usize, types: &[[u8; 16]]) -> Vec<u8> {
        let mut head = vec![0; HEAD_LEN];
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        head[sector..sector + 92].copy_from_slice(&header);
        for (i, t) in types.iter().enumerate() {
            head[2 * sector + 128 * i..][..16].copy_from_slice(t);
        }
        mbr(&mut head, 0xee);
        head
    }

    fn mbr(head: &mut [u8], kind: u8) {
        head[450] = kind;
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
    }

    #[test]
    fn gpt_at_both_sector_sizes() {
        for sector in SECTORS {
            let found = look(&disk(sector, &[BIOS_BOOT, ESP]));
            assert_eq!(found.partition_table, PartitionTable::Gpt);
            assert_eq!(found.sector, Some(sector));
            assert_eq!(found.firmware, BTreeSet::from([Firmware::Bios, Firmware::Uefi]));
            assert_eq!(look(&disk(sector, &[ESP])).firmware, BTreeSet::from([Firmware::Uefi]));
            assert_eq!(look(&disk(sector, &[])).firmware, BTreeSet::new());
        }
    }

    #[test]
    fn a_gpt_with_a_wrong_checksum_is_none() {
        let mut head = disk(512, &[ESP]);
        head[512 + 40] ^= 1;
        assert_eq!(look(&head).partition_table, PartitionTable::Mbr);
    }

    #[test]
    fn mbr_with_and_without_boot_code() {
        let mut head = vec![0; HEAD_LEN];
        mbr(&mut head, 0x83);
        assert_eq!(look(&head).partition_table, PartitionTable::Mbr);
        assert_eq!(look(&head).firmware, BTreeSet::new());
        head[0] = 0xeb;
        assert_eq!(look(&head).firmware, BTreeSet::from([Firmware::Bios]));
        mbr(&mut head, 0xef);
        assert_eq!(look(&head).firmware, BTreeSet::from([Firmware::Bios, Firmware::Uefi]));
    }

    #[test]
    fn a_file_system_alone_is_no_partition_table() {
        let mut head = vec![0xf6; HEAD_LEN];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(look(&head).partition_table, PartitionTable::None);
        assert_eq!(look(&head).firmware, BTreeSet::new());
        assert_eq!(look(&[]).partition_table, PartitionTable::None);
    }

    proptest! {
        #[test]
        fn no_head_panics(mut head in proptest::collection::vec(any::<u8>(), 0..9000), at: usize, with: [u8; 8]) {
            look(&head);
            let mut made = disk(512, &[ESP]);
            let at = at % (made.len() - 8);
            made[at..at + 8].copy_from_slice(&with);
            look(&made);
            head.truncate(600);
            look(&head);
        }
    }
}
