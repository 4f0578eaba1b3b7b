//! The GUID partition table (UEFI 2.10, 5.3): read it from a disk's first sectors, and make the pair of tables for a
//! disk that is larger than the image: backup at the real end, last partition grown, a config partition before the end.

use std::ops::Range;

/// Logical sector size that images are made for, in bytes.
pub const SECTOR: u64 = 512;
/// Partitions begin and end on multiples of this, in bytes.
pub const ALIGN: u64 = 1 << 20;
/// Size of the config partition, in bytes.
pub const CONFIG_SIZE: u64 = 8 << 20;
/// Name of the config partition in the table.
pub const CONFIG_NAME: &str = "cidata";
/// Entries of a table that are read; the standard makes 128.
const ENTRIES_MAX: usize = 1024;
const ENTRY_SIZE: usize = 128;
const HEADER_SIZE: usize = 92;
/// Basic data, EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, as stored.
const TYPE_BASIC_DATA: [u8; 16] =
    [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];
/// EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as stored.
const TYPE_ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// No `EFI PART` in the second sector.
    #[error("no GPT header")]
    NoHeader,
    /// A field that cannot be.
    #[error("GPT header: {0}")]
    Invalid(&'static str),
    /// Checksum of header or entries is wrong.
    #[error("GPT {0} checksum is wrong")]
    Checksum(&'static str),
    /// The disk is too small.
    #[error("partitions end at byte {used}, the config partition would begin at {config}")]
    NoRoom {
        /// End of the last partition, in bytes.
        used: u64,
        /// Where the config partition would begin, in bytes.
        config: u64,
    },
    /// Every entry is taken.
    #[error("no free entry for the config partition")]
    Full,
    /// A partition reaches beyond the disk.
    #[error("a partition ends at byte {end}, the disk can hold partitions up to {limit}")]
    BeyondEnd {
        /// End of the partition, in bytes.
        end: u64,
        /// First byte behind the usable area.
        limit: u64,
    },
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number in the table, from 1.
    pub number: u32,
    /// Type, as stored.
    pub kind: [u8; 16],
    /// Unique id, as stored.
    pub guid: [u8; 16],
    /// First and one-past-last byte.
    pub bytes: Range<u64>,
    /// Name.
    pub name: String,
}

impl Entry {
    /// True for an EFI system partition.
    pub fn is_esp(&self) -> bool {
        self.kind == TYPE_ESP
    }
}

/// A table whose checksums are right.
#[derive(Debug, Clone)]
pub struct Table {
    header: [u8; HEADER_SIZE],
    entries: Vec<u8>,
    sector: u64,
}

/// What to write for a table on a larger disk.
#[derive(Debug, Clone)]
pub struct Relocated {
    /// Bytes of the disk's beginning: protective MBR, header, entries. Boot code in the MBR is kept.
    pub head: Vec<u8>,
    /// Bytes of the disk's end: entries and backup header; they end with the disk.
    pub tail: Vec<u8>,
    /// The config partition, in bytes of the disk.
    pub config: Option<Range<u64>>,
    /// The EFI system partition.
    pub esp: Option<Entry>,
    /// The grown partition and its new size in bytes.
    pub grown: Option<(u32, u64)>,
}

impl Table {
    /// Reads the table in `head`, the first bytes of a disk (at least the first 34 sectors).
    ///
    /// # Errors
    /// Where there is none or it is damaged.
    pub fn parse(head: &[u8], sector: u64) -> Result<Self, GptError> {
        let at = usize::try_from(sector).map_err(|_| GptError::Invalid("sector size"))?;
        let header: [u8; HEADER_SIZE] = head
            .get(at..at.saturating_add(HEADER_SIZE))
            .and_then(|b| b.try_into().ok())
            .ok_or(GptError::NoHeader)?;
        if &header[..8] != b"EFI PART" {
            return Err(GptError::NoHeader);
        }
        if u32_at(&header, 12) as usize != HEADER_SIZE {
            return Err(GptError::Invalid("header size is not 92"));
        }
        if header_crc(&header) != u32_at(&header, 16) {
            return Err(GptError::Checksum("header"));
        }
        let count = u32_at(&header, 80) as usize;
        if u32_at(&header, 84) as usize != ENTRY_SIZE || count == 0 || count > ENTRIES_MAX {
            return Err(GptError::Invalid("entry array is not 1 to 1,024 entries of 128 bytes"));
        }
        let start = u64_at(&header, 72)
            .checked_mul(sector)
            .and_then(|b| usize::try_from(b).ok())
            .filter(|b| *b >= 2 * at)
            .ok_or(GptError::Invalid("entries lie outside"))?;
        let entries = head
            .get(start..start.saturating_add(count * ENTRY_SIZE))
            .ok_or(GptError::Invalid("entries lie outside"))?;
        if crc32fast::hash(entries) != u32_at(&header, 88) {
            return Err(GptError::Checksum("entries"));
        }
        Ok(Self { header, entries: entries.to_vec(), sector })
    }

    /// Partitions in the order of their numbers; entries that run backwards are left out.
    pub fn partitions(&self) -> Vec<Entry> {
        (1u32..)
            .zip(self.entries.as_chunks::<ENTRY_SIZE>().0)
            .filter(|(_, e)| e[..16] != [0; 16])
            .filter_map(|(number, e)| {
                let (first, last) = (u64_at(e, 32), u64_at(e, 40));
                let bytes = first.checked_mul(self.sector)?..last.checked_add(1)?.checked_mul(self.sector)?;
                let units: Vec<u16> =
                    e[56..128].as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c)).collect();
                let name = String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned();
                (bytes.start < bytes.end).then(|| Entry {
                    number,
                    kind: array_at(e, 0),
                    guid: array_at(e, 16),
                    bytes,
                    name,
                })
            })
            .collect()
    }

    /// The tables for a disk of `disk_size` bytes. `head` is the image's beginning that this table was read from;
    /// `config` is the unique id of the config partition to add.
    ///
    /// # Errors
    /// Where the partitions do not fit.
    pub fn relocate(
        mut self,
        head: &[u8],
        disk_size: u64,
        grow: bool,
        config: Option<[u8; 16]>,
    ) -> Result<Relocated, GptError> {
        let sectors = disk_size / self.sector;
        let array = (self.entries.len() as u64).div_ceil(self.sector);
        let last_usable = sectors.checked_sub(array + 2).ok_or(GptError::Invalid("disk is too small"))?;
        let usable_end = (last_usable + 1) * self.sector;
        let parts = self.partitions();
        let last = parts.iter().max_by_key(|p| p.bytes.end).cloned();
        let used = last.as_ref().map_or(0, |p| p.bytes.end);
        if used > usable_end {
            return Err(GptError::BeyondEnd { end: used, limit: usable_end });
        }
        let config = config.map(|guid| self.add_config(&parts, disk_size, guid)).transpose()?;
        let limit = config.as_ref().map_or(usable_end / ALIGN * ALIGN, |c| c.start);
        let mut grown = None;
        if let Some(last) = last.filter(|l| grow && l.bytes.end < limit) {
            let at = (last.number as usize - 1) * ENTRY_SIZE + 40;
            self.entries[at..at + 8].copy_from_slice(&(limit / self.sector - 1).to_le_bytes());
            grown = Some((last.number, limit - last.bytes.start));
        }
        let esp = self.partitions().into_iter().find(Entry::is_esp);
        let head = self.write_head(head, sectors, last_usable);
        let tail = self.write_tail(sectors, last_usable);
        Ok(Relocated { head, tail, config, esp, grown })
    }

    /// Puts the config partition before the last MiB, which stays free for the backup table.
    fn add_config(
        &mut self,
        parts: &[Entry],
        disk_size: u64,
        guid: [u8; 16],
    ) -> Result<Range<u64>, GptError> {
        let end = disk_size.saturating_sub(crate::edges::EDGE) / ALIGN * ALIGN;
        let start = end.saturating_sub(CONFIG_SIZE);
        let used = parts.iter().map(|p| p.bytes.end).max().unwrap_or(0).max(2 * ALIGN);
        if used > start {
            return Err(GptError::NoRoom { used, config: start });
        }
        let (slots, _) = self.entries.as_chunks_mut::<ENTRY_SIZE>();
        let behind = parts.iter().map(|p| p.number as usize).max().unwrap_or(0);
        let free = |i: &usize| slots[*i][..16] == [0; 16];
        let slot = (behind..slots.len()).find(free).or_else(|| (0..slots.len()).find(free));
        let entry = &mut slots[slot.ok_or(GptError::Full)?];
        *entry = [0; ENTRY_SIZE];
        entry[..16].copy_from_slice(&TYPE_BASIC_DATA);
        entry[16..32].copy_from_slice(&guid);
        entry[32..40].copy_from_slice(&(start / self.sector).to_le_bytes());
        entry[40..48].copy_from_slice(&(end / self.sector - 1).to_le_bytes());
        for (at, unit) in entry[56..].as_chunks_mut::<2>().0.iter_mut().zip(CONFIG_NAME.encode_utf16()) {
            *at = unit.to_le_bytes();
        }
        Ok(start..end)
    }

    fn header_for(&self, my: u64, alternate: u64, entries: u64, last_usable: u64) -> [u8; HEADER_SIZE] {
        let mut h = self.header;
        h[24..32].copy_from_slice(&my.to_le_bytes());
        h[32..40].copy_from_slice(&alternate.to_le_bytes());
        h[48..56].copy_from_slice(&last_usable.to_le_bytes());
        h[72..80].copy_from_slice(&entries.to_le_bytes());
        h[88..92].copy_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        let crc = header_crc(&h);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h
    }

    fn write_head(&self, image: &[u8], sectors: u64, last_usable: u64) -> Vec<u8> {
        let mut head = image.to_vec();
        // Protective MBR: the 0xEE record spans the disk (UEFI 2.10, 5.2.3); boot code and other records stay.
        let record = &mut head[446..462];
        if record[4] == 0xee {
            let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
            record[12..16].copy_from_slice(&size.to_le_bytes());
        }
        let at = self.sector as usize;
        let lba = u64_at(&self.header, 72);
        head[at..at + HEADER_SIZE].copy_from_slice(&self.header_for(1, sectors - 1, lba, last_usable));
        let start = lba as usize * at;
        head[start..start + self.entries.len()].copy_from_slice(&self.entries);
        head
    }

    fn write_tail(&self, sectors: u64, last_usable: u64) -> Vec<u8> {
        let header = self.header_for(sectors - 1, 1, last_usable + 1, last_usable);
        let mut tail = vec![0; ((sectors - 1 - last_usable) * self.sector) as usize];
        tail[..self.entries.len()].copy_from_slice(&self.entries);
        let at = tail.len() - self.sector as usize;
        tail[at..at + HEADER_SIZE].copy_from_slice(&header);
        tail
    }
}

fn header_crc(header: &[u8; HEADER_SIZE]) -> u32 {
    let mut h = *header;
    h[16..20].fill(0);
    crc32fast::hash(&h)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table with these partitions (first and last MiB) on an image of `mib` MiB.
    fn image(parts: &[(u64, u64)], mib: u64) -> Vec<u8> {
        let mut t = Table { header: [0; HEADER_SIZE], entries: vec![0; 128 * 128], sector: SECTOR };
        t.header[..12].copy_from_slice(b"EFI PART\0\0\x01\0");
        t.header[12] = 92;
        t.header[40..48].copy_from_slice(&34u64.to_le_bytes());
        t.header[72] = 2;
        t.header[80] = 128;
        t.header[84] = 128;
        for (i, (first, last)) in parts.iter().enumerate() {
            let e = &mut t.entries[i * 128..(i + 1) * 128];
            e[..16].copy_from_slice(if i == 0 { &TYPE_ESP } else { &TYPE_BASIC_DATA });
            e[16] = i as u8 + 1;
            e[32..40].copy_from_slice(&(first * 2048).to_le_bytes());
            e[40..48].copy_from_slice(&(last * 2048 - 1).to_le_bytes());
        }
        let mut blank = vec![0; 1 << 20];
        blank[450] = 0xee;
        t.write_head(&blank, mib * 2048, mib * 2048 - 34)
    }

    #[test]
    fn moves_and_grows() {
        let head = image(&[(1, 8), (8, 60)], 64);
        let table = Table::parse(&head, SECTOR).unwrap();
        assert_eq!(table.partitions().len(), 2);
        let disk = (256 << 20) + 512;
        let r = table.relocate(&head, disk, true, Some([7; 16])).unwrap();
        assert_eq!(r.config, Some(247 << 20..255 << 20));
        assert_eq!(r.grown, Some((2, 239 << 20)));
        let back = Table::parse(&r.head, SECTOR).unwrap();
        let parts = back.partitions();
        assert_eq!(parts[1].bytes, 8 << 20..247 << 20);
        assert_eq!((parts[2].number, parts[2].name.as_str()), (3, "cidata"));
        assert_eq!(u64_at(&back.header, 32) * 512, disk - 512);
        assert_eq!(r.tail.len(), 33 * 512);
        assert_eq!(r.tail[..16384], r.head[1024..1024 + 16384]);
    }

    /// The crate `gpt` makes the image's table and reads both of ours: an implementation that shares no line with this one.
    #[test]
    fn an_independent_reader_agrees() {
        let device = std::io::Cursor::new(vec![0; 64 << 20]);
        let config =
            ::gpt::GptConfig::new().writable(true).logical_block_size(::gpt::disk::LogicalBlockSize::Lb512);
        let mut disk = config.create_from_device(device, None).unwrap();
        disk.add_partition("ESP", 8 << 20, ::gpt::partition_types::EFI, 0, Some(2048)).unwrap();
        disk.add_partition("root", 40 << 20, ::gpt::partition_types::LINUX_FS, 0, Some(2048)).unwrap();
        let image = disk.write().unwrap().into_inner();

        let size = 256 << 20;
        let head = &image[..1 << 20];
        let moved =
            Table::parse(head, SECTOR).unwrap().relocate(head, size as u64, true, Some([7; 16])).unwrap();
        let mut bytes = vec![0; size];
        bytes[..moved.head.len()].copy_from_slice(&moved.head);
        bytes[size - moved.tail.len()..].copy_from_slice(&moved.tail);

        let config = ::gpt::GptConfig::new().only_valid_headers(true);
        let read = config.open_from_device(std::io::Cursor::new(bytes)).unwrap();
        assert_eq!(read.primary_header().unwrap().backup_lba * 512, size as u64 - 512);
        assert_eq!(read.backup_header().unwrap().backup_lba, 1);
        let names: Vec<&str> = read.partitions().values().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["ESP", "root", "cidata"]);
        let root = &read.partitions()[&2];
        assert_eq!(moved.grown, Some((2, (root.last_lba - root.first_lba + 1) * 512)));
        let config = &read.partitions()[&3];
        assert_eq!(moved.config, Some(config.first_lba * 512..(config.last_lba + 1) * 512));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let head = image(&[(1, 8), (8, 60)], 64);
        let table = || Table::parse(&head, SECTOR).unwrap();
        assert!(matches!(
            table().relocate(&head, 64 << 20, true, Some([7; 16])),
            Err(GptError::NoRoom { .. })
        ));
        assert!(matches!(table().relocate(&head, 32 << 20, true, None), Err(GptError::BeyondEnd { .. })));
        let r = table().relocate(&head, 64 << 20, false, None).unwrap();
        assert_eq!((r.grown, r.config), (None, None));
        assert!(r.esp.is_some_and(|e| e.number == 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut head in Just(image(&[(1, 8)], 64)), at in 512usize..1200, byte: u8, disk in 0u64..1 << 32) {
            head[at] = byte;
            if let Ok(table) = Table::parse(&head, SECTOR) {
                let _ = table.partitions();
                let _ = table.relocate(&head, disk, true, Some([1; 16]));
            }
            let _ = Table::parse(&head[..at], SECTOR);
            let _ = Table::parse(&head, 4096);
        }

        /// Headers with right checksums and wild numbers.
        #[test]
        fn no_field_panics(at in 20usize..92, bytes: [u8; 8], disk in 0u64..1 << 40) {
            let mut head = image(&[(1, 8)], 64);
            let end = (at + 8).min(92);
            head[512 + at..512 + end].copy_from_slice(&bytes[..end - at]);
            let crc = header_crc(head[512..604].try_into().unwrap());
            head[528..532].copy_from_slice(&crc.to_le_bytes());
            if let Ok(table) = Table::parse(&head, SECTOR) {
                let _ = table.relocate(&head, disk, true, Some([1; 16]));
            }
        }
    }
}
