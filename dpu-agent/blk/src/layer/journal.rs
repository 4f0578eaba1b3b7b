//! The journal of a layer: which of its bytes count. Written before a request is answered, so that it survives the end of
//! this process; made durable by a flush, so that it survives a power cut.
//!
//! ```text
//! 0   "BILLETL1"   8 image id   40 volume size   48 id of the boot   64 zeros   76 CRC-32 of all that
//! 80  records of 16 bytes: kind, 3 zeros, chunk u32, first u16, count u16, CRC-32 of the record's number and these
//!     kind 1 written, 2 here, 3 commit (records that it covers, u64, in the place of chunk, first, count)
//! ```
//! A power cut keeps of a file's pages what it likes. So a record counts after one only where a commit covers it: that was
//! written after the layer's bytes up to there were durable. As long as the machine runs, every record counts.

use protocol::{ImageId, Sha256};

use super::map::Change;

/// Bytes of the head.
pub const HEAD: usize = 80;
/// Bytes of a record.
pub const RECORD: usize = 16;
const MAGIC: &[u8; 8] = b"BILLETL1";

/// Id of a boot of the machine (proc(5), `/proc/sys/kernel/random/boot_id`).
pub type BootId = [u8; 16];

/// What a journal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Image of the volume.
    pub image: ImageId,
    /// Bytes of the volume.
    pub size: u64,
    /// Boot in which the journal is written.
    pub boot: BootId,
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Its head is damaged, or it is something else.
    #[error("not a journal of a layer, or its head is damaged")]
    Head,
    /// It belongs to another volume.
    #[error("the layer is of image {found} with {size} bytes")]
    Other {
        /// Image.
        found: ImageId,
        /// Bytes.
        size: u64,
    },
}

impl Head {
    /// The bytes of a new journal that holds `changes`, which are durable in the layer.
    pub fn journal(&self, changes: &[Change]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + RECORD * (changes.len() + 1));
        bytes.extend(MAGIC);
        bytes.extend(self.image.0.0);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.boot);
        bytes.resize(HEAD - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        for (number, change) in (0_u64..).zip(changes) {
            bytes.extend(record(number, *change));
        }
        bytes.extend(commit(changes.len() as u64, changes.len() as u64));
        bytes
    }

    /// The changes of journal `bytes` that count: in the same boot all, else those that are committed.
    ///
    /// # Errors
    /// Where it is no journal, or another volume's.
    pub fn replay(&self, bytes: &[u8]) -> Result<Vec<Change>, JournalError> {
        let found = Self::parse(bytes).ok_or(JournalError::Head)?;
        if (found.image, found.size) != (self.image, self.size) {
            return Err(JournalError::Other { found: found.image, size: found.size });
        }
        let (mut changes, mut committed) = (Vec::new(), 0);
        let (records, _) = bytes.get(HEAD..).unwrap_or_default().as_chunks::<RECORD>();
        for (number, bytes) in (0_u64..).zip(records) {
            match parse(number, bytes) {
                Some(Record::Change(change)) => changes.push((number, change)),
                Some(Record::Commit(covers)) => committed = covers,
                // A record that was not written whole, or not at all: nothing after it counts.
                None => break,
            }
        }
        let counts = |number: u64| found.boot == self.boot || number < committed;
        Ok(changes.into_iter().filter(|(number, _)| counts(*number)).map(|(_, change)| change).collect())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<HEAD>()?;
        let (body, crc) = head.split_at(HEAD - 4);
        if !body.starts_with(MAGIC) || crc != crc32fast::hash(body).to_le_bytes() {
            return None;
        }
        Some(Self {
            image: ImageId(Sha256(body.get(8..40)?.try_into().ok()?)),
            size: u64::from_le_bytes(body.get(40..48)?.try_into().ok()?),
            boot: body.get(48..64)?.try_into().ok()?,
        })
    }
}

/// Record `number`, of a change.
pub fn record(number: u64, change: Change) -> [u8; RECORD] {
    match change {
        Change::Written { chunk, first, count } => {
            let [a, b] = first.to_le_bytes();
            let [c, d] = count.to_le_bytes();
            sealed(number, 1, chunk, [a, b, c, d])
        }
        Change::Here { chunk } => sealed(number, 2, chunk, [0; 4]),
    }
}

/// Record `number`, which says that the records before `covers` are durable in the layer.
pub fn commit(number: u64, covers: u64) -> [u8; RECORD] {
    sealed(number, 3, covers as u32, ((covers >> 32) as u32).to_le_bytes())
}

enum Record {
    Change(Change),
    Commit(u64),
}

fn sealed(number: u64, kind: u8, low: u32, high: [u8; 4]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let (body, crc) = bytes.split_at_mut(12);
    body.copy_from_slice(&[&[kind, 0, 0, 0][..], &low.to_le_bytes(), &high].concat());
    crc.copy_from_slice(&seal(number, body).to_le_bytes());
    bytes
}

/// The number keeps a record from counting in another's place.
fn seal(number: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

fn parse(number: u64, bytes: &[u8; RECORD]) -> Option<Record> {
    let (body, crc) = bytes.split_at(12);
    if crc != seal(number, body).to_le_bytes() {
        return None;
    }
    let [kind, _, _, _, c0, c1, c2, c3, f0, f1, n0, n1, ..] = *bytes;
    let chunk = u32::from_le_bytes([c0, c1, c2, c3]);
    match kind {
        1 => Some(Record::Change(Change::Written {
            chunk,
            first: u16::from_le_bytes([f0, f1]),
            count: u16::from_le_bytes([n0, n1]),
        })),
        2 => Some(Record::Change(Change::Here { chunk })),
        3 => Some(Record::Commit(u64::from_le_bytes([c0, c1, c2, c3, f0, f1, n0, n1]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD_A: Head = Head { image: ImageId(Sha256([7; 32])), size: 1 << 30, boot: [1; 16] };
    const AFTER_POWER_CUT: Head = Head { boot: [2; 16], ..HEAD_A };

    fn changes() -> Vec<Change> {
        vec![Change::Written { chunk: 1, first: 2, count: 3 }, Change::Here { chunk: 70_000 }]
    }

    /// The bytes of format 1. If a test against them fails, do not change them: volumes in the field would be lost.
    #[test]
    fn golden_bytes_of_format_1() {
        let journal = HEAD_A.journal(&changes());
        assert_eq!(&journal[..8], b"BILLETL1");
        assert_eq!(journal[40..48], (1_u64 << 30).to_le_bytes());
        assert_eq!(journal.len(), HEAD + 3 * RECORD);
        let records: Vec<[u8; 12]> =
            journal[HEAD..].chunks(RECORD).map(|r| r[..12].try_into().unwrap()).collect();
        assert_eq!(
            records,
            [
                [1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 3, 0],
                [2, 0, 0, 0, 0x70, 0x11, 1, 0, 0, 0, 0, 0],
                [3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            ]
        );
        assert_eq!(crc32fast::hash(&journal), 0x6796_f564);
    }

    #[test]
    fn what_is_not_committed_counts_while_the_machine_runs() {
        let mut journal = HEAD_A.journal(&changes());
        let late = Change::Here { chunk: 5 };
        journal.extend(record(3, late));
        assert_eq!(HEAD_A.replay(&journal).unwrap(), [changes(), vec![late]].concat());
        assert_eq!(AFTER_POWER_CUT.replay(&journal).unwrap(), changes());
        // A commit that covers what came before the flush began, not what came while it lasted.
        journal.extend(record(4, Change::Here { chunk: 6 }));
        journal.extend(commit(5, 4));
        assert_eq!(AFTER_POWER_CUT.replay(&journal).unwrap(), [changes(), vec![late]].concat());
    }

    #[test]
    fn another_volumes_journal_is_refused() {
        let journal = HEAD_A.journal(&changes());
        let other = Head { size: 512, ..HEAD_A };
        assert_eq!(
            other.replay(&journal),
            Err(JournalError::Other { found: HEAD_A.image, size: HEAD_A.size })
        );
        assert_eq!(HEAD_A.replay(&journal[..HEAD - 1]), Err(JournalError::Head));
        let mut damaged = journal;
        damaged[50] ^= 1;
        assert_eq!(HEAD_A.replay(&damaged), Err(JournalError::Head));
    }

    proptest! {
        #[test]
        fn a_damaged_or_torn_record_ends_the_journal(at in 0_usize..3 * RECORD, bit in 0_u8..8, cut: bool) {
            let mut journal = HEAD_A.journal(&changes());
            if cut {
                journal.truncate(HEAD + at);
            } else {
                journal[HEAD + at] ^= 1 << bit;
            }
            let whole = (at / RECORD).min(2);
            prop_assert_eq!(HEAD_A.replay(&journal).unwrap(), changes()[..whole].to_vec());
            prop_assert_eq!(AFTER_POWER_CUT.replay(&journal).unwrap(), vec![]);
        }
    }
}
