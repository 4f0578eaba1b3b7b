//! Removing chunks that no manifest and no writer needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use protocol::ChunkId;

use super::{Store, StoreError, lock, names};

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

impl Store {
    /// Removes every chunk that no manifest names and no writer of this process relies on. Writers may run
    /// meanwhile; they wait where they want to take up a chunk.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process (or another [`Store::open`] of this one) has the store open,
    /// [`StoreError::Manifest`] where a manifest cannot be read and so its chunks are not known; then nothing is
    /// removed.
    pub fn collect_garbage(&self) -> Result<Collected, StoreError> {
        self.collect(None)
    }

    /// As [`Store::collect_garbage`], of these chunks only.
    pub(super) fn collect_only(&self, candidates: BTreeSet<ChunkId>) -> Result<Collected, StoreError> {
        if candidates.is_empty() { Ok(Collected::default()) } else { self.collect(Some(candidates)) }
    }

    pub(super) fn release(&self, ids: &BTreeSet<ChunkId>) {
        let mut held = self.held();
        for id in ids {
            if let Some(count) = held.get_mut(id) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    held.remove(id);
                }
            }
        }
    }

    fn collect(&self, candidates: Option<BTreeSet<ChunkId>>) -> Result<Collected, StoreError> {
        let held = self.held();
        let path = self.0.root.join("lock");
        if !lock::try_exclusive(&self.0.lock).map_err(StoreError::io("lock", &path))? {
            return Err(StoreError::InUse);
        }
        let collected = self.collect_alone(candidates, |id| held.contains_key(&id));
        lock::shared(&self.0.lock).map_err(StoreError::io("lock", &path))?;
        collected
    }

    fn collect_alone(
        &self,
        candidates: Option<BTreeSet<ChunkId>>,
        is_held: impl Fn(ChunkId) -> bool,
    ) -> Result<Collected, StoreError> {
        let mut named = BTreeSet::new();
        for id in self.image_ids()? {
            named.extend(self.manifest(id)?.chunks.iter().flatten().map(|c| c.id));
        }
        let candidates = match candidates {
            Some(some) => some,
            None => self.chunk_ids()?,
        };
        let mut collected = Collected::default();
        for id in candidates.difference(&named).copied().filter(|id| !is_held(*id)) {
            collected.bytes += self.remove_chunk(id)?;
            collected.chunks += 1;
        }
        Ok(collected)
    }

    /// Ids of all chunks that have a file.
    fn chunk_ids(&self) -> Result<BTreeSet<ChunkId>, StoreError> {
        let chunks = self.0.root.join("chunks");
        let mut ids = BTreeSet::new();
        for dir in names(&chunks)?.iter().filter(|name| name.len() == 2) {
            let files = names(&chunks.join(dir))?;
            ids.extend(files.iter().filter_map(|name| name.strip_suffix(".zst")?.parse::<ChunkId>().ok()));
        }
        Ok(ids)
    }

    /// Removes the file of a chunk; returns its size. No error where it is gone already.
    fn remove_chunk(&self, id: ChunkId) -> Result<u64, StoreError> {
        let path = self.chunk_path(id);
        let size = fs::metadata(&path).map_or(0, |m| m.len());
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(cause))
            }
            _ => Ok(size),
        }
    }
}
