//! Whether a disk boots, and if so, whether it is complete. Stricter than any firmware: what some firmware could start counts as
//! bootable.
//!
//! | the disk has | then |
//! |---|---|
//! | anything in its first sector: boot code, a protective MBR, a file system's parameters | every octet is that of a complete disk |
//! | no first sector, but a sound table at either end, or the mark of a CD | everything between the ends is that of a complete disk |
//! | neither | it does not boot |
//!
//! The second row is what firmware of UEFI must refuse (2.10, 5.3.2: a table counts only behind a protective MBR), and what some do not.

use super::{Disk, SECTOR};

/// Octets at each end that hold tables and boot code.
const EDGE: usize = 1 << 20;
/// Most entries of a table, and octets of one, that are looked at.
const ENTRIES_MAX: usize = 1024;
const ENTRY_MAX: usize = 4096;
/// Where ISO 9660 has its descriptor (ECMA-119, 6.2.1), and its mark.
const CD: usize = 0x8001;

/// A state that a disk may be in when it boots.
#[derive(Debug, Clone)]
pub struct Complete {
    /// What it is, such as `old` or `new`.
    pub name: &'static str,
    /// Every octet.
    pub bytes: Vec<u8>,
}

/// What a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No firmware starts it.
    Dark,
    /// It boots and is this.
    Complete(&'static str),
    /// No firmware should start it, some might; the OS on it is this, and complete.
    Behind(&'static str),
    /// It boots and is nothing whole.
    Incomplete(String),
}

/// Judges disks.
#[derive(Debug)]
pub struct Judge {
    complete: Vec<Complete>,
}

impl Judge {
    /// With these states a disk may boot.
    pub fn new(complete: Vec<Complete>) -> Self {
        Self { complete }
    }

    /// What this disk is.
    pub fn judge(&self, disk: &Disk) -> Verdict {
        let bytes = disk.bytes();
        if bytes.len() < 4 * EDGE {
            return Verdict::Incomplete("smaller than 4 MiB".into());
        }
        let inner = EDGE..bytes.len() - EDGE;
        if bytes[..SECTOR].iter().any(|b| *b != 0) {
            return self.whole("a first sector", bytes, 0..bytes.len(), Verdict::Complete);
        }
        match table(bytes) {
            Some(what) => self.whole(what, bytes, inner, Verdict::Behind),
            None => Verdict::Dark,
        }
    }

    fn whole(
        &self,
        what: &str,
        bytes: &[u8],
        range: std::ops::Range<usize>,
        verdict: impl Fn(&'static str) -> Verdict,
    ) -> Verdict {
        let mut differs = Vec::new();
        for complete in &self.complete {
            if complete.bytes.len() != bytes.len() {
                differs.push(format!("{} has another size", complete.name));
                continue;
            }
            let (is, should) = (&bytes[range.clone()], &complete.bytes[range.clone()]);
            if is == should {
                return verdict(complete.name);
            }
            let at = is.iter().zip(should).position(|(a, b)| a != b).unwrap_or_default();
            differs.push(format!("{} has another octet at {}", complete.name, range.start + at));
        }
        Verdict::Incomplete(format!("it has {what}, but {}", differs.join(", ")))
    }
}

/// What somebody could boot the disk by who does not look at its first sector.
fn table(bytes: &[u8]) -> Option<&'static str> {
    let last = bytes.len() / SECTOR - 1;
    if is_table(bytes, 1) {
        Some("a partition table")
    } else if is_table(bytes, last) {
        Some("a backup of its partition table")
    } else if bytes.get(CD..CD + 5) == Some(b"CD001") {
        Some("the mark of a CD")
    } else {
        None
    }
}

/// A sound header of a GPT in this sector, with sound entries (UEFI 2.10, 5.3.2).
fn is_table(bytes: &[u8], sector: usize) -> bool {
    let sound = || {
        let header = bytes.get(sector * SECTOR..(sector + 1) * SECTOR)?;
        let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let large = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let length = usize::try_from(number(12)?).ok()?;
        if !header.starts_with(b"EFI PART") || large(24)? != sector as u64 {
            return None;
        }
        let mut summed = header.get(..length)?.to_vec();
        summed.get_mut(16..20)?.fill(0);
        if crc32fast::hash(&summed) != number(16)? {
            return None;
        }
        let (count, size) = (usize::try_from(number(80)?).ok()?, usize::try_from(number(84)?).ok()?);
        if count > ENTRIES_MAX || size > ENTRY_MAX {
            return None;
        }
        let from = usize::try_from(large(72)?).ok()?.checked_mul(SECTOR)?;
        let entries = bytes.get(from..from.checked_add(count * size)?)?;
        (crc32fast::hash(entries) == number(88)?).then_some(())
    };
    sound().is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A disk of 8 MiB with a table at both ends and an octet in the middle of it.
    pub fn whole() -> Vec<u8> {
        let mut bytes = vec![0; 8 << 20];
        let last = bytes.len() / SECTOR - 1;
        bytes[4 << 20] = 7;
        bytes[440] = 1;
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let entries = [0x11; 128];
        for (header, at) in [(1_usize, 2_usize), (last, last - 1)] {
            bytes[at * SECTOR..at * SECTOR + 128].copy_from_slice(&entries);
            let mut head = [0; 92];
            head[..8].copy_from_slice(b"EFI PART");
            head[12..16].copy_from_slice(&92_u32.to_le_bytes());
            head[24..32].copy_from_slice(&(header as u64).to_le_bytes());
            head[72..80].copy_from_slice(&(at as u64).to_le_bytes());
            head[80..84].copy_from_slice(&1_u32.to_le_bytes());
            head[84..88].copy_from_slice(&128_u32.to_le_bytes());
            head[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            let sum = crc32fast::hash(&head);
            head[16..20].copy_from_slice(&sum.to_le_bytes());
            bytes[header * SECTOR..header * SECTOR + 92].copy_from_slice(&head);
        }
        bytes
    }

    fn verdict(change: impl FnOnce(&mut Vec<u8>)) -> Verdict {
        let judge = Judge::new(vec![Complete { name: "new", bytes: whole() }]);
        let mut bytes = whole();
        change(&mut bytes);
        judge.judge(&Disk::new(bytes))
    }

    fn is_incomplete(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Incomplete(_))
    }

    #[test]
    fn a_disk_is_whole_or_dark_or_neither() {
        assert_eq!(verdict(|_| ()), Verdict::Complete("new"));
        assert_eq!(verdict(|b| b.fill(0)), Verdict::Dark);
        // The first sector alone is gone: no firmware should boot it, and if one did, all is there.
        assert_eq!(verdict(|b| b[..SECTOR].fill(0)), Verdict::Behind("new"));
        let both_ends = |b: &mut Vec<u8>| {
            b[..2 * SECTOR].fill(0);
            let last = b.len() - SECTOR;
            b[last..].fill(0);
        };
        assert_eq!(verdict(both_ends), Verdict::Dark);
        // Damaged tables are none.
        let broken = |b: &mut Vec<u8>| {
            b[..SECTOR].fill(0);
            b[2 * SECTOR] ^= 1;
            let last = b.len() - SECTOR;
            b[last + 80] ^= 1;
        };
        assert_eq!(verdict(broken), Verdict::Dark);
    }

    #[test]
    fn whatever_boots_and_is_not_whole_is_found() {
        assert!(is_incomplete(&verdict(|b| b[4 << 20] = 0)), "a lost octet");
        assert!(is_incomplete(&verdict(|b| b[SECTOR] = 0)), "a first sector and no table");
        for keep_primary in [true, false] {
            let verdict = verdict(|b| {
                b[..SECTOR].fill(0);
                let last = b.len() - SECTOR;
                b[if keep_primary { last } else { SECTOR }] = 0;
                b[4 << 20] = 0;
            });
            assert!(is_incomplete(&verdict), "one table, primary {keep_primary}, and a lost octet");
        }
        let cd = verdict(|b| {
            b.fill(0);
            b[CD..CD + 5].copy_from_slice(b"CD001");
        });
        assert!(is_incomplete(&cd));
    }
}
