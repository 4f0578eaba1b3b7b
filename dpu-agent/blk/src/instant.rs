//! A volume that is an image under a copy-on-write layer. What the guest writes goes to the layer at once, by the sector,
//! whether the chunk below was fetched or not; a chunk that comes later fills the gaps.
//!
//! Order of things, each before the next (`layer::journal` says why that is enough):
//! a write: bytes to the layer, record to the journal, answer to the guest.
//! a flush: layer durable, commit to the journal, journal durable, answer to the guest.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::layer::journal::{self, HEAD, RECORD};
use crate::layer::map::{Change, Map};
use crate::request::SECTOR;
use crate::volume::Storage;

/// Locks that writers of chunks which are not here share with whoever fills their gaps.
const STRIPES: usize = 64;

/// Layer, journal and map; `hydrate` brings the chunks.
#[derive(Debug)]
pub struct Layer<S> {
    bytes: S,
    journal: S,
    chunk_size: u64,
    state: Mutex<State>,
    /// One flush at a time.
    flushing: Mutex<()>,
    stripes: [RwLock<()>; STRIPES],
}

#[derive(Debug)]
struct State {
    map: Map,
    /// Records in the journal.
    records: u64,
    /// Records before this are durable, and so are the bytes that they speak of.
    committed: u64,
}

impl<S: Storage> Layer<S> {
    /// A layer of `bytes` whose `journal` holds `records` records, all of them committed, which say what `map` says.
    pub fn new(bytes: S, journal: S, chunk_size: u32, map: Map, records: u64) -> Self {
        Self {
            bytes,
            journal,
            chunk_size: chunk_size.into(),
            state: Mutex::new(State { map, records, committed: records }),
            flushing: Mutex::new(()),
            stripes: std::array::from_fn(|_| RwLock::new(())),
        }
    }

    /// See [`Map::missing`].
    pub fn missing(&self, range: &Range<u64>) -> Option<u32> {
        self.state().map.missing(range)
    }

    /// See [`Map::is_here`].
    pub fn is_here(&self, chunk: u32) -> bool {
        self.state().map.is_here(chunk)
    }

    /// See [`Map::missing_count`].
    pub fn missing_count(&self) -> usize {
        self.state().map.missing_count()
    }

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// Where bytes are missing, or cannot be read.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(chunk) = self.missing(&(offset..offset + into.len() as u64)) {
            return Err(io::Error::other(format!("chunk {chunk} was not fetched")));
        }
        self.bytes.read_at(into, offset)
    }

    /// Writes `from` at `offset`. Chunks that are here now because of it.
    ///
    /// # Errors
    /// Where layer or journal cannot be written.
    pub fn write(&self, from: &[u8], offset: u64) -> io::Result<Vec<u32>> {
        self.change(offset..offset + from.len() as u64, || self.bytes.write_at(from, offset))
    }

    /// Makes `range` read as zeros. Chunks that are here now because of it.
    ///
    /// # Errors
    /// As [`Layer::write`].
    pub fn zero(&self, range: Range<u64>) -> io::Result<Vec<u32>> {
        self.change(range.clone(), || self.bytes.zero(range))
    }

    /// Puts the verified bytes of `chunk` wherever nothing was written.
    ///
    /// # Errors
    /// As [`Layer::write`].
    pub fn fill(&self, chunk: u32, raw: &[u8]) -> io::Result<()> {
        let stripe =
            self.stripes.get(chunk as usize % STRIPES).ok_or_else(|| io::Error::other("no stripe"))?;
        let _alone = stripe.write().unwrap_or_else(PoisonError::into_inner);
        let start = u64::from(chunk) * self.chunk_size;
        let gaps = self.state().map.gaps(chunk);
        for gap in gaps {
            let (first, end) = (u64::from(gap.start) * SECTOR, u64::from(gap.end) * SECTOR);
            let bytes = raw.get(first as usize..end as usize);
            self.bytes.write_at(bytes.ok_or(io::ErrorKind::UnexpectedEof)?, start + first)?;
        }
        self.record(|map| if map.is_here(chunk) { Vec::new() } else { Vec::from([Change::Here { chunk }]) })
    }

    /// Makes durable all that was written before.
    ///
    /// # Errors
    /// Where that cannot be promised.
    pub fn flush(&self) -> io::Result<()> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let covers = self.state().records;
        self.bytes.sync()?;
        let mut state = self.state();
        if state.committed == covers {
            return Ok(());
        }
        let number = state.records;
        self.journal.write_at(&journal::commit(number, covers), record_at(number))?;
        state.records += 1;
        let only = number == covers;
        drop(state);
        self.journal.sync()?;
        // The commit itself needs no commit.
        self.state().committed = if only { covers + 1 } else { covers };
        Ok(())
    }

    fn change(&self, range: Range<u64>, write: impl FnOnce() -> io::Result<()>) -> io::Result<Vec<u32>> {
        let changes = self.state().map.changes(range.clone());
        if changes.is_empty() {
            write()?;
            return Ok(Vec::new());
        }
        let mut stripes: Vec<usize> = changes.iter().map(|c| chunk_of(*c) as usize % STRIPES).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let locks = stripes.iter().filter_map(|s| self.stripes.get(*s));
        let _with_others: Vec<_> = locks.map(|l| l.read().unwrap_or_else(PoisonError::into_inner)).collect();
        write()?;
        self.record(|map| map.changes(range))?;
        let state = self.state();
        Ok(changes.into_iter().map(chunk_of).filter(|chunk| state.map.is_here(*chunk)).collect())
    }

    /// Writes down what `changes` says has changed, then takes it in.
    fn record(&self, changes: impl FnOnce(&Map) -> Vec<Change>) -> io::Result<()> {
        let mut state = self.state();
        let changes = changes(&state.map);
        let number = state.records;
        let records = (number..).zip(&changes).flat_map(|(n, change)| journal::record(n, *change));
        self.journal.write_at(&records.collect::<Vec<u8>>(), record_at(number))?;
        state.records += changes.len() as u64;
        changes.into_iter().for_each(|change| state.map.apply(change));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_at(number: u64) -> u64 {
    HEAD as u64 + number * RECORD as u64
}

fn chunk_of(change: Change) -> u32 {
    let (Change::Written { chunk, .. } | Change::Here { chunk }) = change;
    chunk
}

#[cfg(test)]
pub(crate) mod tests;
