//! The log of QEMU's `blklogwrites`, whose form is that of Linux' dm-log-writes (drivers/md/dm-log-writes.c; QEMU,
//! block/blklogwrites.c): one sector of header, then for each request one sector that says what it was, and its data.

use std::fs;
use std::path::Path;
use std::sync::Arc;

/// `WRITE_LOG_MAGIC`: "hshwfsj" in the order of a little-endian number.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// `WRITE_LOG_VERSION`.
const VERSION: u64 = 1;
/// Flags of an entry.
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const KNOWN: u64 = FLUSH | FUA | DISCARD;
/// Octets of a sector of the log; QEMU is told so.
const UNIT: usize = 512;
/// Longest log that is read, in octets: a small image and what is around it.
const LOG_MAX: u64 = 1 << 30;

/// What a disk was told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Write this at this octet.
    Write {
        /// Where, in octets.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// Make durable what was written.
    Flush,
}

/// Everything that a disk was told, in the order in which it was done.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Vec<Entry>);

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("cannot read the log of writes")]
    File(#[source] std::io::Error),
    /// It is none, or of another form.
    #[error("not a log of writes: {0}")]
    Form(String),
}

impl Log {
    /// Reads the log in this file.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let length = fs::metadata(path).map_err(LogError::File)?.len();
        if length > LOG_MAX {
            return Err(LogError::Form(format!("{length} octets are more than {LOG_MAX}")));
        }
        Self::parse(&fs::read(path).map_err(LogError::File)?)
    }

    /// Reads a log. A discard is a write of zeros where it says so by its length; what a disk returns for a range that it merely
    /// was told to forget is not known, so it is left out: the agent relies on no discard.
    ///
    /// # Errors
    /// [`LogError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let form = |what: &str| LogError::Form(what.to_owned());
        let head = numbers(bytes, 0).ok_or_else(|| form("shorter than its header"))?;
        // The fourth is half a number; what is behind it in the sector is zero.
        let [magic, version, entries, unit] = head;
        if magic != MAGIC || version != VERSION || unit & 0xffff_ffff != UNIT as u64 {
            return Err(LogError::Form(format!("magic {magic:x}, version {version}, sectors of {unit}")));
        }
        let (mut log, mut at) = (Self::default(), UNIT);
        for number in 0..entries {
            let cut = || LogError::Form(format!("entry {number} of {entries} is cut off"));
            let [sector, sectors, flags, _] = numbers(bytes, at).ok_or_else(cut)?;
            at += UNIT;
            if flags & !KNOWN != 0 {
                return Err(LogError::Form(format!("entry {number} has flags {flags:x}")));
            }
            // A flush that comes with a write is done before it.
            if flags & FLUSH != 0 {
                log.0.push(Entry::Flush);
            }
            let length = usize::try_from(sectors).ok().and_then(|n| n.checked_mul(UNIT)).ok_or_else(cut)?;
            if length == 0 || flags & DISCARD != 0 {
                continue;
            }
            let data = at.checked_add(length).and_then(|end| bytes.get(at..end)).ok_or_else(cut)?;
            at += length;
            let offset = sector.checked_mul(UNIT as u64).ok_or_else(cut)?;
            log.0.push(Entry::Write { offset, data: data.into() });
            // Durable with the answer. That what came before may be lost all the same is not told apart: nobody here relies on it.
            if flags & FUA != 0 {
                log.0.push(Entry::Flush);
            }
        }
        Ok(log)
    }

    /// Number of flushes.
    pub fn flushes(&self) -> usize {
        self.0.iter().filter(|entry| **entry == Entry::Flush).count()
    }

    /// Without what came before the first write that `is_first` finds. What was not flushed before it stays in: `base` gets the rest.
    #[must_use]
    pub fn since(mut self, is_first: impl Fn(u64, &[u8]) -> bool, base: &mut super::Disk) -> Self {
        let first = self
            .0
            .iter()
            .position(|entry| matches!(entry, Entry::Write { offset, data } if is_first(*offset, data)));
        let rest = self.0.split_off(first.unwrap_or(0));
        for entry in &self.0 {
            if let Entry::Write { offset, data } = entry {
                base.write(*offset, data);
            }
        }
        base.settle();
        Self(rest)
    }
}

/// Four little-endian numbers of 64 bits.
fn numbers(bytes: &[u8], at: usize) -> Option<[u64; 4]> {
    let mut found = [0; 4];
    for (index, number) in found.iter_mut().enumerate() {
        let from = at + 8 * index;
        *number = u64::from_le_bytes(bytes.get(from..from + 8)?.try_into().ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(numbers: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.resize(UNIT, 0);
        bytes
    }

    fn sample(entries: u64) -> Vec<u8> {
        let mut bytes = sector(&[MAGIC, VERSION, entries, UNIT as u64]);
        bytes.extend(sector(&[8, 2, 0, 0]));
        bytes.extend([0xaa; 2 * UNIT]);
        bytes.extend(sector(&[0, 0, FLUSH, 0]));
        bytes.extend(sector(&[128, 8, DISCARD, 0]));
        bytes.extend(sector(&[1, 1, FUA, 0]));
        bytes.extend([0xbb; UNIT]);
        bytes
    }

    #[test]
    fn requests_are_read_in_their_order() {
        let log = Log::parse(&sample(4)).unwrap();
        let write = |offset, byte, length| Entry::Write { offset, data: vec![byte; length].into() };
        assert_eq!(log.0, [write(4096, 0xaa, 2 * UNIT), Entry::Flush, write(512, 0xbb, UNIT), Entry::Flush]);
        assert_eq!(log.flushes(), 2);
    }

    #[test]
    fn what_is_no_log_or_cut_off_is_refused() {
        let good = sample(4);
        for length in [0, 20, UNIT, good.len() - 1] {
            assert!(Log::parse(&good[..length]).is_err(), "{length} octets");
        }
        for (at, byte) in [(0, 0), (8, 2), (25, 0), (UNIT + 16, 8), (UNIT + 15, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Log::parse(&bad).is_err(), "octet {at}");
        }
    }
}
