//! Which sectors of an image's chunks are in the layer: because the guest wrote them, or because the chunk was fetched.
//! Nothing ever leaves, so an answer that is true stays true.

use std::ops::Range;

use images::Manifest;

use crate::request::SECTOR;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Sectors of a chunk are in the layer.
    Written {
        /// Chunk.
        chunk: u32,
        /// First sector within the chunk.
        first: u16,
        /// Sectors, at least 1.
        count: u16,
    },
    /// All of a chunk is.
    Here {
        /// Chunk.
        chunk: u32,
    },
}

/// The map of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    chunk_size: u64,
    /// Bytes of the image; what the volume has beyond is always here.
    raw_size: u64,
    chunks: Vec<Chunk>,
    missing: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chunk {
    Absent,
    /// A bit per sector.
    Partial(Vec<u64>),
    Here,
}

impl Map {
    /// The map of an image of which nothing was fetched; its holes are here, as holes.
    pub fn new(manifest: &Manifest) -> Self {
        let chunk = |id: &Option<_>| if id.is_some() { Chunk::Absent } else { Chunk::Here };
        let chunks: Vec<Chunk> = manifest.chunks.iter().map(chunk).collect();
        let missing = chunks.iter().filter(|c| **c == Chunk::Absent).count();
        Self { chunk_size: manifest.chunk_size.into(), raw_size: manifest.raw_size, chunks, missing }
    }

    /// Chunks that are not wholly here.
    pub fn missing_chunks(&self) -> Vec<u32> {
        (0_u32..).zip(&self.chunks).filter(|(_, c)| **c != Chunk::Here).map(|(index, _)| index).collect()
    }

    /// How many chunks are not wholly here.
    pub fn missing_count(&self) -> usize {
        self.missing
    }

    /// True where all of a chunk is here, or there is no such chunk.
    pub fn is_here(&self, chunk: u32) -> bool {
        matches!(self.chunks.get(chunk as usize), Some(Chunk::Here) | None)
    }

    /// The first chunk that must be fetched before the bytes of `range` can be read.
    pub fn missing(&self, range: &Range<u64>) -> Option<u32> {
        let lacks = |(chunk, sectors): &(u32, Range<u16>)| match self.chunks.get(*chunk as usize) {
            Some(Chunk::Absent) => true,
            Some(Chunk::Partial(bits)) => sectors.clone().any(|s| !bit(bits, s)),
            Some(Chunk::Here) | None => false,
        };
        self.pieces(range.clone()).find(lacks).map(|(chunk, _)| chunk)
    }

    /// What writing the bytes of `range` changes.
    pub fn changes(&self, range: Range<u64>) -> Vec<Change> {
        let changes = |(chunk, sectors): &(u32, Range<u16>)| match self.chunks.get(*chunk as usize) {
            Some(Chunk::Absent) => true,
            Some(Chunk::Partial(bits)) => sectors.clone().any(|s| !bit(bits, s)),
            Some(Chunk::Here) | None => false,
        };
        let change = |(chunk, sectors): (u32, Range<u16>)| Change::Written {
            chunk,
            first: sectors.start,
            count: sectors.end - sectors.start,
        };
        self.pieces(range).filter(changes).map(change).collect()
    }

    /// Sectors of `chunk` that are not here: what a fetched chunk fills.
    pub fn gaps(&self, chunk: u32) -> Vec<Range<u16>> {
        let sectors = self.sectors(chunk);
        match self.chunks.get(chunk as usize) {
            Some(Chunk::Absent) => std::iter::once(0..sectors).collect(),
            Some(Chunk::Partial(bits)) => runs(sectors, |s| !bit(bits, s)),
            Some(Chunk::Here) | None => Vec::new(),
        }
    }

    /// Takes a change in. One that does not fit this image, which no journal of it has, is left out.
    pub fn apply(&mut self, change: Change) {
        let (Change::Written { chunk, .. } | Change::Here { chunk }) = change;
        let sectors = self.sectors(chunk);
        let Some(state) = self.chunks.get_mut(chunk as usize) else { return };
        if *state == Chunk::Here {
            return;
        }
        let whole = match change {
            Change::Here { .. } => true,
            Change::Written { first, count, .. } => {
                let mut bits = match std::mem::replace(state, Chunk::Absent) {
                    Chunk::Partial(bits) => bits,
                    Chunk::Absent | Chunk::Here => vec![0; usize::from(sectors).div_ceil(64)],
                };
                for sector in first..first.saturating_add(count).min(sectors) {
                    if let Some(word) = bits.get_mut(usize::from(sector / 64)) {
                        *word |= 1 << (sector % 64);
                    }
                }
                let whole = (0..sectors).all(|s| bit(&bits, s));
                *state = Chunk::Partial(bits);
                whole
            }
        };
        if whole {
            *state = Chunk::Here;
            self.missing -= 1;
        }
    }

    /// The changes that make this map out of a new one of `manifest`.
    pub fn as_changes(&self, manifest: &Manifest) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((chunk, state), data) in (0_u32..).zip(&self.chunks).zip(&manifest.chunks) {
            match state {
                Chunk::Here if data.is_some() => changes.push(Change::Here { chunk }),
                Chunk::Here | Chunk::Absent => {}
                Chunk::Partial(bits) => {
                    let written = runs(self.sectors(chunk), |s| bit(bits, s));
                    let change =
                        |r: Range<u16>| Change::Written { chunk, first: r.start, count: r.end - r.start };
                    changes.extend(written.into_iter().map(change));
                }
            }
        }
        changes
    }

    /// Cuts a range, whose ends are sectors, at the ends of chunks and of the image.
    fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (u32, Range<u16>)> {
        let (mut at, end, size) = (range.start, range.end.min(self.raw_size), self.chunk_size);
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (chunk, within) = (at / size, at % size);
                let stop = (chunk * size + size).min(end);
                let sectors = (within / SECTOR) as u16..((stop - chunk * size) / SECTOR) as u16;
                at = stop;
                (chunk as u32, sectors)
            })
        })
    }

    fn sectors(&self, chunk: u32) -> u16 {
        let left = self.raw_size.saturating_sub(u64::from(chunk) * self.chunk_size);
        (left.min(self.chunk_size) / SECTOR) as u16
    }
}

fn bit(bits: &[u64], sector: u16) -> bool {
    bits.get(usize::from(sector / 64)).is_some_and(|word| word >> (sector % 64) & 1 == 1)
}

/// Runs of the sectors below `end` that are as wanted.
fn runs(end: u16, wanted: impl Fn(u16) -> bool) -> Vec<Range<u16>> {
    let mut runs: Vec<Range<u16>> = Vec::new();
    for sector in (0..end).filter(|s| wanted(*s)) {
        match runs.last_mut() {
            Some(run) if run.end == sector => run.end += 1,
            _ => runs.push(sector..sector + 1),
        }
    }
    runs
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use images::manifest::{self, Probe};
    use images::{Architecture, ChunkRef, PartitionTable, chunk};
    use proptest::prelude::*;
    use protocol::ChunkId;

    use super::*;

    pub(crate) const CHUNK: usize = manifest::CHUNK_SIZE_MIN as usize;

    /// An image of `raw` in chunks of 64 KiB; chunks of zeros are holes.
    pub(crate) fn manifest_of(raw: &[u8]) -> Manifest {
        let chunk = |bytes: &[u8]| {
            chunk::probe(bytes).map(|_| ChunkRef { id: ChunkId(chunk::sha256(bytes)), probe: Probe(0, 0) })
        };
        Manifest {
            format: manifest::FORMAT.to_owned(),
            name: "test".to_owned(),
            version: "1".to_owned(),
            architecture: Architecture::X86_64,
            firmware: BTreeSet::new(),
            partition_table: PartitionTable::None,
            raw_size: raw.len() as u64,
            sha256: chunk::sha256(raw),
            minimum_disk: raw.len() as u64,
            default_user: None,
            datasource: None,
            chunk_size: manifest::CHUNK_SIZE_MIN,
            chunks: raw.chunks(CHUNK).map(chunk).collect(),
        }
    }

    /// Data, a hole, data, and a short chunk.
    fn image() -> Manifest {
        let mut raw = vec![1; 3 * CHUNK + 1024];
        raw[CHUNK..2 * CHUNK].fill(0);
        manifest_of(&raw)
    }

    #[test]
    fn holes_and_what_lies_beyond_the_image_are_here() {
        let map = Map::new(&image());
        assert_eq!(map.missing_chunks(), [0, 2, 3]);
        let size = CHUNK as u64;
        assert_eq!(map.missing(&(size..2 * size)), None);
        assert_eq!(map.missing(&(size..2 * size + 512)), Some(2));
        assert_eq!(map.missing(&(3 * size + 1024..9 * size)), None);
        assert_eq!(map.changes(3 * size + 1024..9 * size), []);
        assert!(map.is_here(1) && map.is_here(4) && !map.is_here(3));
    }

    #[test]
    fn a_chunk_that_is_written_over_is_never_fetched() {
        let mut map = Map::new(&image());
        let end = 3 * CHUNK as u64;
        assert_eq!(map.changes(end - 512..end + 512).len(), 2, "cut at the end of a chunk");
        for at in [end + 512, end] {
            for change in map.changes(at..at + 512) {
                map.apply(change);
            }
        }
        assert!(map.is_here(3));
        assert_eq!((map.missing_chunks(), map.missing_count()), (vec![0, 2], 2));
        assert_eq!(map.changes(end..end + 1024), []);
    }

    #[test]
    fn a_fetched_chunk_fills_the_gaps_only() {
        let mut map = Map::new(&image());
        map.apply(Change::Written { chunk: 0, first: 3, count: 2 });
        assert_eq!(map.gaps(0), [0..3, 5..128]);
        assert_eq!(map.gaps(3), std::iter::once(0..2).collect::<Vec<_>>());
        map.apply(Change::Here { chunk: 0 });
        map.apply(Change::Here { chunk: 9 });
        assert_eq!(map.gaps(0), []);
        assert_eq!(map.missing_count(), 2);
    }

    proptest! {
        #[test]
        fn a_map_is_its_changes(writes in proptest::collection::vec((0_u64..400, 1_u64..200), 0..20), here: Option<u8>) {
            let manifest = image();
            let mut map = Map::new(&manifest);
            let mut sectors = vec![false; 600];
            for (first, count) in writes {
                for change in map.changes(first * SECTOR..(first + count) * SECTOR) {
                    map.apply(change);
                }
                sectors[first as usize..(first + count) as usize].fill(true);
                prop_assert_eq!(map.missing(&(first * SECTOR..(first + count) * SECTOR)), None);
            }
            // Sector by sector: here where written, in the hole, or beyond the image.
            for (sector, written) in (0_u64..).zip(&sectors) {
                let here = *written || (128..256).contains(&sector) || sector >= 386;
                prop_assert_eq!(map.missing(&(sector * SECTOR..(sector + 1) * SECTOR)).is_none(), here, "{}", sector);
            }
            if let Some(chunk) = here {
                map.apply(Change::Here { chunk: u32::from(chunk % 4) });
            }
            let mut again = Map::new(&manifest);
            map.as_changes(&manifest).into_iter().for_each(|c| again.apply(c));
            prop_assert_eq!(again, map);
        }
    }
}
