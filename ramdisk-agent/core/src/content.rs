//! What a disk or partition holds, told from its first and last bytes. Parsers take bytes and never fail: what is not
//! recognised is `Unknown`.

use images::chunk::is_zero;
use protocol::inventory::{DiskContent, Partition};
use protocol::limits::REPORTED_STRING_MAX;

use crate::gpt::Table;

/// Bytes of the beginning (and of the end) of a disk that [`disk`] looks at.
pub const LOOK: usize = 1 << 20;
/// Bytes of the beginning of a partition that [`signature`] looks at.
pub const LOOK_PARTITION: usize = 256 << 10;
/// Partitions listed; a table of the standard size has no more.
const PARTITIONS_MAX: usize = 128;

/// Offset, bytes, name. Sources: libblkid's `superblocks/*.c` and the formats' own documents.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"LUKS\xba\xbe", "crypto_LUKS"),
    (0, b"XFSB", "xfs"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"-FVE-FS-", "BitLocker"),
    (0x40 + (64 << 10), b"_BHRfS_M", "btrfs"),
    (4086, b"SWAPSPACE2", "swap"),
    (4086, b"SWAP-SPACE", "swap"),
    (0, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (32769, b"CD001", "iso9660"),
    (0, b"hsqs", "squashfs"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT16   ", "vfat"),
    (54, b"FAT12   ", "vfat"),
    (3, b"EXFAT   ", "exfat"),
    (0, b"BLKOROOT", "ceph_bluestore"),
    (0, b"bluestore block device", "ceph_bluestore"),
];
/// md 1.0 has its superblock between 8 and 12 KiB before the end, on a 4 KiB boundary (md(4)).
const MD_1_0_FROM_END: usize = 8 << 10;

/// Content of a disk of `size` bytes from its first and last (up to [`LOOK`]) bytes. The partitions' own content is
/// not filled in.
pub fn disk(head: &[u8], tail: &[u8], size: u64, sector: u64) -> DiskContent {
    if is_zero(head) && is_zero(tail) {
        return DiskContent::Blank;
    }
    if let Ok(table) = Table::parse(head, sector) {
        let partitions = table.partitions().into_iter().take(PARTITIONS_MAX).map(|e| Partition {
            number: e.number,
            start_bytes: e.bytes.start,
            size_bytes: e.bytes.end - e.bytes.start,
            name: (!e.name.is_empty()).then(|| cut(&e.name)),
            content: None,
        });
        return DiskContent::Partitioned { table: "gpt".into(), partitions: partitions.collect() };
    }
    // A file system's boot sector ends in 55 AA too, so signatures come before the DOS table.
    if let Some(name) = signature(head).or_else(|| signature_at_end(tail)) {
        return DiskContent::Signature { name: name.into() };
    }
    match mbr(head, size, sector) {
        Some(partitions) => DiskContent::Partitioned { table: "mbr".into(), partitions },
        None => DiskContent::Unknown,
    }
}

/// Name of the file system or other member that begins with these bytes.
pub fn signature(head: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    if let Some((_, _, name)) = SIGNATURES.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Some(name);
    }
    // LVM's label is in one of the first four sectors (LVM2 `label.h`).
    if (0..4).any(|i| has(i * 512, b"LABELONE") && has(i * 512 + 24, b"LVM2 001")) {
        return Some("LVM2_member");
    }
    if is_zfs(head) {
        return Some("zfs_member");
    }
    // ext2/3/4: magic at 1080, features at 1116 (ext4's `ext4.h`): journal 4, extents 0x40.
    if has(1080, b"\x53\xef") {
        let word =
            |at: usize| head.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        return Some(match (word(1116) & 4 != 0, word(1120) & 0x40 != 0) {
            (_, true) => "ext4",
            (true, false) => "ext3",
            (false, false) => "ext2",
        });
    }
    None
}

/// ZFS: uberblocks fill the second half of the first 256 KiB label, of either byte order (OpenZFS `uberblock_impl.h`).
fn is_zfs(head: &[u8]) -> bool {
    let ring = head.get(128 << 10..256 << 10).unwrap_or_default();
    ring.chunks_exact(1024)
        .any(|u| u.starts_with(&0x00ba_b10cu64.to_le_bytes()) || u.starts_with(&0x00ba_b10cu64.to_be_bytes()))
}

fn signature_at_end(tail: &[u8]) -> Option<&'static str> {
    let at = tail.len().checked_sub(MD_1_0_FROM_END)? & !0xfff;
    (tail.get(at..at + 4)? == b"\xfc\x4e\x2b\xa9").then_some("linux_raid_member")
}

/// The four records of a DOS table, where they make sense.
fn mbr(head: &[u8], size: u64, sector: u64) -> Option<Vec<Partition>> {
    if head.get(510..512)? != b"\x55\xaa" {
        return None;
    }
    let mut found = Vec::new();
    for (number, r) in (1..).zip(head.get(446..510)?.as_chunks::<16>().0) {
        let word = |at: usize| u64::from(u32::from_le_bytes([r[at], r[at + 1], r[at + 2], r[at + 3]]));
        let (start, count) = (word(8) * sector, word(12) * sector);
        if r[4] == 0 || count == 0 {
            continue;
        }
        if r[0] & 0x7f != 0 || start >= size {
            return None;
        }
        found.push(Partition { number, start_bytes: start, size_bytes: count, name: None, content: None });
    }
    (!found.is_empty()).then_some(found)
}

/// Cuts what a machine reports to the limit, on a character boundary.
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(REPORTED_STRING_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = vec![0; LOOK];
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn knows_signatures() {
        for (at, magic, name) in SIGNATURES {
            assert_eq!(signature(&with(*at, magic)), Some(*name));
        }
        assert_eq!(signature(&with(1080, b"\x53\xef")), Some("ext2"));
        assert_eq!(signature(&with(140 << 10, &0x00ba_b10cu64.to_le_bytes())), Some("zfs_member"));
        let mut lvm = with(512, b"LABELONE");
        lvm[536..544].copy_from_slice(b"LVM2 001");
        assert_eq!(signature(&lvm), Some("LVM2_member"));
        let zero = vec![0; LOOK];
        assert_eq!(disk(&zero, &zero, 1 << 30, 512), DiskContent::Blank);
        let md = with(LOOK - (8 << 10), b"\xfc\x4e\x2b\xa9");
        let name = "linux_raid_member".to_owned();
        assert_eq!(disk(&zero, &md, 1 << 30, 512), DiskContent::Signature { name });
        assert_eq!(disk(&with(7, b"x"), &zero, 1 << 30, 512), DiskContent::Unknown);
    }

    #[test]
    fn knows_dos_tables() {
        let mut head = with(510, b"\x55\xaa");
        head[446 + 4] = 0x83;
        head[446 + 9] = 8;
        head[446 + 13] = 16;
        let DiskContent::Partitioned { table, partitions } = disk(&head, &[0; 512], 1 << 30, 512) else {
            panic!("not recognised")
        };
        assert_eq!((table.as_str(), partitions[0].start_bytes), ("mbr", 2048 * 512));
        head[446] = 0x33;
        assert_eq!(disk(&head, &[0; 512], 1 << 30, 512), DiskContent::Unknown);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(head in proptest::collection::vec(any::<u8>(), 0..2048), size: u64, tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = disk(&head, &tail, size, 512);
            let _ = disk(&head, &tail, size, 4096);
            let _ = signature(&head);
        }

        #[test]
        fn cut_keeps_the_limit(text in ".{0,700}") {
            prop_assert!(cut(&text).len() <= REPORTED_STRING_MAX);
        }
    }
}
