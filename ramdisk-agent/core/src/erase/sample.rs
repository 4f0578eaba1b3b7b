//! Where a disk is read back after an erase, and what must be there. Chance comes in as a seed.

use std::collections::BTreeSet;

use protocol::erase::{Expected, Sampled};

/// Size of a sample, in bytes: a multiple of every sector size in use.
pub const BLOCK: u64 = 4096;
/// Blocks at random places. Where 1 in 220 blocks was left, 1,024 of them miss it with a probability below 1 in 100; a spinning
/// disk reads them in ten seconds.
const RANDOM: u32 = 1024;
/// Blocks at each end, one after the other: tables, boot loaders, metadata of RAIDs.
const EDGE: u32 = 512;
/// Blocks of known content written before the erase.
const SENTINELS: u32 = 64;
/// What begins a sentinel.
const MARK: &[u8; 16] = b"billet sentinel\0";

/// Numbers that nobody can foresee who does not know the seed; not for keys (SplitMix64).
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is below 2^-24 for disks below an exbibyte.
        self.next() % end.max(1)
    }
}

/// Where and with what one disk is checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// First bytes of blocks to read back, in the order of the disk: start, end and random ones.
    pub places: Vec<u64>,
    /// First bytes of sentinels.
    pub sentinels: Vec<u64>,
    /// How much of what.
    counts: (u32, u32, u32),
    seed: u64,
    tile: Vec<u8>,
}

/// Plans the checks of a disk; `None` where it is smaller than a few blocks.
pub fn plan(size_bytes: u64, seed: u64) -> Option<Plan> {
    let blocks = size_bytes / BLOCK;
    if blocks < 8 {
        return None;
    }
    let mut chance = Chance(seed);
    let edge = u64::from(EDGE).min(blocks / 4);
    let mut places: BTreeSet<u64> = (0..edge).chain(blocks - edge..blocks).collect();
    let random = u64::from(RANDOM).min(blocks - 2 * edge);
    let wanted = places.len() as u64 + random;
    while (places.len() as u64) < wanted {
        places.insert(chance.below(blocks));
    }
    let wanted = u64::from(SENTINELS).min(blocks / 4);
    let mut sentinels = BTreeSet::new();
    while (sentinels.len() as u64) < wanted {
        sentinels.insert(chance.below(blocks));
    }
    let tile: Vec<u8> = (0..BLOCK / 8).flat_map(|_| chance.next().to_le_bytes()).collect();
    let bytes = |blocks: BTreeSet<u64>| blocks.into_iter().map(|block| block * BLOCK).collect();
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Plan {
        places: bytes(places),
        sentinels: bytes(sentinels),
        counts: (narrow(edge), narrow(edge), narrow(random)),
        seed,
        tile,
    })
}

impl Plan {
    /// The content of the sentinel at `offset`.
    pub fn sentinel(&self, offset: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        let mut chance = Chance(self.seed ^ !offset);
        block[..16].copy_from_slice(MARK);
        for piece in block[16..].as_chunks_mut::<8>().0 {
            *piece = chance.next().to_le_bytes();
        }
        block
    }

    /// Writes the pattern of the overwrite for `offset` into `into`, whole blocks. Each block differs from every other, so a drive
    /// that keeps equal blocks once, or that wraps round at a smaller size than it says, does not pass.
    pub fn pattern(&self, offset: u64, into: &mut [u8]) {
        for (n, block) in into.chunks_mut(BLOCK as usize).enumerate() {
            let len = block.len();
            block.copy_from_slice(&self.tile[..len]);
            let at = offset + n as u64 * BLOCK;
            let stamp = [at.to_le_bytes(), (self.seed ^ at.rotate_left(32)).to_le_bytes()].concat();
            // In each sector of it.
            for sector in block.chunks_mut(512).filter(|sector| sector.len() >= 16) {
                sector[..16].copy_from_slice(&stamp);
            }
        }
    }

    /// What was read back, for the record.
    pub fn sampled(&self, expected: Expected) -> Sampled {
        let (start, end, random) = self.counts;
        Sampled {
            expected,
            random,
            start,
            end,
            block_bytes: BLOCK as u32,
            sentinels: u32::try_from(self.sentinels.len()).unwrap_or(u32::MAX),
            bound_ppm: bound_ppm(random),
        }
    }
}

/// The share of blocks, in millionths, of which `n` random ones miss all with a probability of 1 in 100: 1 - 0.01^(1/n).
fn bound_ppm(n: u32) -> u32 {
    if n == 0 {
        return 1_000_000;
    }
    let share = 1.0 - 0.01_f64.powf(1.0 / f64::from(n));
    (share * 1e6).ceil() as u32
}

/// Whether a sector of what was there is still there: `before` and `after` are one block.
pub fn left(before: &[u8], after: &[u8]) -> bool {
    before.chunks(512).zip(after.chunks(512)).any(|(was, is)| was == is && !proves_nothing(was))
}

/// True for a sector of one octet over and over, zeros or ones as a rule: a drive that never held anything has the same.
pub fn proves_nothing(sector: &[u8]) -> bool {
    sector.iter().all(|octet| Some(octet) == sector.first())
}
