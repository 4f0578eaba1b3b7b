//! One worker: takes the next chunk, leaves it where the disk has it already, else fetches, checks and writes it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use failpoint::Point;
use images::ChunkRef;
use images::chunk;
use images::manifest::PROBE_BLOCK;
use protocol::fault::{Fault, FaultCode};
use ramdisk_agent_core::edges::Split;
use ramdisk_agent_core::plan::WritePlan;
use xxhash_rust::xxh3::xxh3_128;

use super::{Write, Written};
use crate::fetch::Fetcher;
use crate::sys::Buffer;
use crate::verify;

/// Pieces that are flushed and read back together: 64 MiB, so that flushes stay rare.
const CHECK_BATCH: usize = 16;
/// How often the reader looks for a batch.
const CHECK_LOOK: Duration = Duration::from_millis(5);

impl Write<'_> {
    /// Works until there is no more chunk, or any thread failed.
    pub(super) fn run(&self) -> Result<(), Fault> {
        let result = self.work();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn work(&self) -> Result<(), Fault> {
        let mut fetcher = Fetcher::new(self.server)
            .map_err(|e| Fault::new(FaultCode::Agent, format!("start zstd: {e}"), "report the fault"))?;
        let mut raw = Buffer::new(self.manifest.chunk_size as usize);
        while let Some((index, chunk)) = self.take() {
            self.feed.check_abort()?;
            let len = self.manifest.chunk_len(index);
            self.chunk(index, chunk, &mut fetcher, &mut raw[..len])?;
            self.feed.did(1, len as u64);
        }
        Ok(())
    }

    fn take(&self) -> Option<(usize, ChunkRef)> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(chunk) = self.manifest.chunks.get(index)? {
                return Some((index, *chunk));
            }
        }
    }

    fn chunk(
        &self,
        index: usize,
        chunk: ChunkRef,
        fetcher: &mut Fetcher,
        raw: &mut [u8],
    ) -> Result<(), Fault> {
        let offset = self.manifest.chunk_offset(index);
        let split = self.edges.split(offset..offset + raw.len() as u64);
        let whole = split.head.is_empty() && split.tail.is_empty();
        // The ends were wiped, so a chunk that reaches into one cannot be there any more.
        if whole && self.is_there(offset, &chunk, raw)? {
            self.kept.fetch_add(1, Ordering::Relaxed);
            self.kept_bytes.fetch_add(raw.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        let bytes = fetcher.chunk(self.feed, index, chunk.id, raw)?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
        self.hold(offset, &split, raw);
        self.put(offset, &split, raw)
    }

    /// True where the disk holds the chunk at its place. The probe block tells a different disk cheaply; only the
    /// hash of all of it tells an equal one.
    fn is_there(&self, offset: u64, chunk: &ChunkRef, raw: &mut [u8]) -> Result<bool, Fault> {
        let at = chunk.probe.0 as usize * PROBE_BLOCK;
        let end = raw.len().min(at + PROBE_BLOCK);
        let Some(block) = raw.get_mut(at..end) else { return Ok(false) };
        self.target.read_at(offset + at as u64, block)?;
        if crc32fast::hash(block) != chunk.probe.1 {
            return Ok(false);
        }
        self.target.read_at(offset, raw)?;
        Ok(chunk::sha256(raw) == chunk.id.0)
    }

    fn put(&self, offset: u64, split: &Split, raw: &[u8]) -> Result<(), Fault> {
        let body = &split.body;
        if body.is_empty() {
            return Ok(());
        }
        let bytes = &raw[(body.start - offset) as usize..(body.end - offset) as usize];
        let hash = xxh3_128(bytes);
        self.target.hit(Point::AgentChunkWrite)?;
        self.target.write_at(body.start, bytes)?;
        self.target.hit(Point::AgentChunkWritten)?;
        self.bytes_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let piece = Written { offset: body.start, len: bytes.len(), hash };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        Ok(())
    }

    /// Keeps what belongs to the ends of the disk in memory until the end.
    fn hold(&self, offset: u64, split: &Split, raw: &[u8]) {
        if split.head.is_empty() && split.tail.is_empty() {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (range, base, tail) in [(&split.head, 0, false), (&split.tail, self.edges.tail_start(), true)] {
            if range.is_empty() {
                continue;
            }
            let from = &raw[(range.start - offset) as usize..];
            let len = (range.end - range.start) as usize;
            let at = (range.start - base) as usize;
            let to = if tail { &mut held.tail } else { &mut held.head };
            to[at..at + len].copy_from_slice(&from[..len]);
        }
    }

    /// Reads back what is written while the rest is still being fetched, so that the disk is not idle: a batch is
    /// taken, flushed, then read. What is left when the workers are done is read back afterwards. Bytes read.
    pub(super) fn check_early(&self) -> Result<u64, Fault> {
        let mut raw = Buffer::new(self.manifest.chunk_size as usize);
        let mut read = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let batch = {
                let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                if written.len() < CHECK_BATCH { Vec::new() } else { std::mem::take(&mut *written) }
            };
            if batch.is_empty() {
                std::thread::sleep(CHECK_LOOK);
                continue;
            }
            let checked = self.check_batch(&batch, &mut raw);
            if checked.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            read += checked?;
        }
        Ok(read)
    }

    fn check_batch(&self, batch: &[Written], raw: &mut Buffer) -> Result<u64, Fault> {
        self.target.flush()?;
        let mut read = 0;
        for piece in batch {
            self.feed.check_abort()?;
            read += verify::piece(self.target, piece, raw)?;
        }
        Ok(read)
    }

    pub(super) fn zero_holes(&self, plan: &WritePlan) -> Result<(), Fault> {
        for hole in &plan.holes {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.feed.check_abort()?;
            self.target
                .hit(Point::AgentHole)
                .and_then(|()| self.target.zero(hole))
                .inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }
}
