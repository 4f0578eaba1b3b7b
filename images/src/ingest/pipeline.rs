//! The moving parts of an ingest: one thread reads, one hashes the whole disk in order, some hash, compress and
//! store chunks. Chunk buffers come from a fixed pool, so memory is bounded and a slow part holds up the reader.
//!
//! ```text
//!             ┌─▶ hasher (whole disk, in order)
//!  reader ────┤
//!    ▲        └─▶ workers (chunk id, zstd, store) ──▶ results ──▶ reader
//!    └────────────── buffers given back ◀───┘
//! ```

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use protocol::{ChunkId, Sha256};
use sha2::Digest;

use super::open::Opened;
use super::{IngestError, IngestOptions, IngestProgress, Stage, check_nested, check_raw_size};
use crate::chunk;
use crate::disk::HEAD_LEN;
use crate::manifest::ChunkRef;
use crate::reader::Piece;
use crate::store::Writer;

/// Pieces that may wait for the hasher: data is bounded by the pool already, this bounds holes.
const HASH_QUEUE: usize = 64;
/// Zeros that stand for a hole where the whole disk is hashed.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A disk that was read to its end.
pub(super) struct Output {
    pub(super) raw_size: u64,
    pub(super) sha256: Sha256,
    pub(super) chunks: Vec<Option<ChunkRef>>,
    /// Its first bytes, [`HEAD_LEN`] at most.
    pub(super) head: Vec<u8>,
}

/// Reads all of a disk into `writer`.
pub(super) fn run(
    opened: &mut Opened,
    writer: &Writer,
    options: &IngestOptions,
    progress: &mut dyn FnMut(IngestProgress) -> ControlFlow<()>,
) -> Result<Output, IngestError> {
    let workers = options.limits.workers.max(1);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (jobs, job_queue) = mpsc::sync_channel(workers);
        let (results, result_queue) = mpsc::channel();
        let (pieces, piece_queue) = mpsc::sync_channel(HASH_QUEUE);
        let start = |e| IngestError::Worker(Some(e));
        let hasher = thread::Builder::new().spawn_scoped(scope, move || hash(&piece_queue)).map_err(start)?;
        let job_queue = Arc::new(Mutex::new(job_queue));
        for _ in 0..workers {
            let (job_queue, results, failed) = (Arc::clone(&job_queue), results.clone(), &failed);
            let level = options.compression_level;
            thread::Builder::new()
                .spawn_scoped(scope, move || work(&job_queue, &results, writer, level, failed))
                .map_err(start)?;
        }
        drop((job_queue, results));

        let pool = Pool::new(workers * 2 + 2, options.chunk_size as usize);
        let mut reader = Reader { opened, options, progress, seen: Seen::default() };
        reader.read_all(&pool, jobs, pieces, &result_queue)?;
        while let Ok(result) = result_queue.recv() {
            reader.seen.take(result)?;
            reader.tell()?;
        }
        let sha256 = hasher.join().map_err(|_| IngestError::Worker(None))?;
        let Seen { raw_size, chunks, head, .. } = reader.seen;
        Ok(Output { raw_size, sha256, chunks, head })
    })
}

/// The calling thread's part.
struct Reader<'a> {
    opened: &'a mut Opened,
    options: &'a IngestOptions,
    progress: &'a mut dyn FnMut(IngestProgress) -> ControlFlow<()>,
    seen: Seen,
}

/// What is known so far.
#[derive(Default)]
struct Seen {
    raw_size: u64,
    head: Vec<u8>,
    chunks: Vec<Option<ChunkRef>>,
    done: u64,
    holes: u64,
    reused: u64,
    stored_bytes: u64,
}

impl Reader<'_> {
    /// Reads the disk to its end and hands the pieces out. The channels are closed on return.
    fn read_all(
        &mut self,
        pool: &Pool,
        jobs: SyncSender<Job>,
        pieces: SyncSender<Bytes>,
        results: &Receiver<Stored>,
    ) -> Result<(), IngestError> {
        let full = self.options.chunk_size as usize;
        loop {
            let mut buffer = pool.take().ok_or(IngestError::Worker(None))?;
            let piece = self.opened.disk.read_chunk(&mut buffer.bytes)?;
            let index = self.seen.chunks.len();
            if !piece.is_empty() {
                self.look(piece, &buffer.bytes)?;
                self.seen.chunks.push(None);
            }
            match piece {
                Piece::Data(0) | Piece::Hole(0) => {}
                Piece::Hole(n) => {
                    self.seen.holes += 1;
                    pieces.send(Bytes::Zeros(n)).map_err(|_| IngestError::Worker(None))?;
                }
                Piece::Data(n) => {
                    let chunk = Arc::new(Chunk { buffer, len: n });
                    let for_hasher = Bytes::Data(Arc::clone(&chunk));
                    pieces.send(for_hasher).map_err(|_| IngestError::Worker(None))?;
                    jobs.send(Job { index, chunk }).map_err(|_| IngestError::Worker(None))?;
                }
            }
            while let Ok(result) = results.try_recv() {
                self.seen.take(result)?;
            }
            self.tell()?;
            if piece.len() < full {
                break;
            }
        }
        // Before the last chunks are stored: what can be refused now is.
        check_raw_size(self.seen.raw_size, self.options)
    }

    fn look(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), IngestError> {
        self.seen.raw_size += piece.len() as u64;
        if self.seen.raw_size > self.options.raw_max() {
            return Err(IngestError::TooBig { limit: self.options.raw_max() });
        }
        if let (true, Piece::Data(n)) = (self.seen.chunks.is_empty(), piece) {
            self.seen.head = bytes.get(..n.min(HEAD_LEN)).unwrap_or_default().to_vec();
            check_nested(self.opened.format, &self.seen.head)?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), IngestError> {
        let seen = &self.seen;
        let raw = self.opened.disk.size();
        let (done, total) = match &self.opened.tally {
            Some(tally) if raw.is_none() => (tally.bytes(), self.opened.file_size),
            _ => (seen.raw_size, raw),
        };
        let now = IngestProgress {
            stage: Stage::Read,
            done,
            total,
            raw_bytes: seen.raw_size,
            chunks: seen.done,
            holes: seen.holes,
            reused: seen.reused,
            stored_bytes: seen.stored_bytes,
        };
        match (self.progress)(now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(IngestError::Cancelled),
        }
    }
}

impl Seen {
    fn take(&mut self, stored: Stored) -> Result<(), IngestError> {
        match stored.result? {
            Kept::Hole => self.holes += 1,
            Kept::Chunk { chunk, bytes } => {
                self.done += 1;
                self.reused += u64::from(bytes.is_none());
                self.stored_bytes += bytes.unwrap_or(0);
                if let Some(slot) = self.chunks.get_mut(stored.index) {
                    *slot = Some(chunk);
                }
            }
        }
        Ok(())
    }
}

/// A fixed number of buffers; each comes back when the last who uses it lets it go.
struct Pool {
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
}

struct Buffer {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Pool {
    fn new(count: usize, size: usize) -> Self {
        let (home, free) = mpsc::channel();
        for _ in 0..count {
            // Cannot fail: both ends are here.
            let _ = home.send(vec![0; size]);
        }
        Self { free, home }
    }

    /// Waits for a free buffer.
    fn take(&self) -> Option<Buffer> {
        let bytes = self.free.recv().ok()?;
        Some(Buffer { bytes, home: self.home.clone() })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Where the pool is gone, so is the need for it.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

struct Chunk {
    buffer: Buffer,
    len: usize,
}

impl Chunk {
    fn raw(&self) -> &[u8] {
        self.buffer.bytes.get(..self.len).unwrap_or_default()
    }
}

enum Bytes {
    Data(Arc<Chunk>),
    Zeros(usize),
}

/// Hashes the whole disk in order, until the reader is done.
fn hash(pieces: &Receiver<Bytes>) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    while let Ok(piece) = pieces.recv() {
        match piece {
            Bytes::Data(chunk) => hasher.update(chunk.raw()),
            Bytes::Zeros(mut left) => {
                while left > 0 {
                    let now = left.min(ZEROS.len());
                    hasher.update(ZEROS.get(..now).unwrap_or_default());
                    left -= now;
                }
            }
        }
    }
    Sha256(hasher.finalize().into())
}

struct Job {
    index: usize,
    chunk: Arc<Chunk>,
}

struct Stored {
    index: usize,
    result: Result<Kept, IngestError>,
}

enum Kept {
    Hole,
    /// `bytes` were written; `None` where the store had the chunk.
    Chunk {
        chunk: ChunkRef,
        bytes: Option<u64>,
    },
}

/// Stores chunks until there are no more. After a failure it takes the rest and does nothing, so nobody waits.
fn work(
    jobs: &Mutex<Receiver<Job>>,
    results: &Sender<Stored>,
    writer: &Writer,
    level: i32,
    failed: &AtomicBool,
) {
    let mut tools = Tools::new(level);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { index, chunk }) = job else { return };
        if failed.load(Ordering::Relaxed) {
            continue;
        }
        let result = match &mut tools {
            Ok(tools) => tools.keep(index, chunk.raw(), writer),
            Err(cause) => Err(IngestError::Compress { index, cause: cause.kind().into() }),
        };
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        if results.send(Stored { index, result }).is_err() {
            failed.store(true, Ordering::Relaxed);
        }
    }
}

struct Tools {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Tools {
    fn new(level: i32) -> std::io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level)?;
        Ok(Self { compressor, decompressor: zstd::bulk::Decompressor::new()? })
    }

    fn keep(&mut self, index: usize, raw: &[u8], writer: &Writer) -> Result<Kept, IngestError> {
        let Some(probe) = chunk::probe(raw) else { return Ok(Kept::Hole) };
        let id = ChunkId(chunk::sha256(raw));
        let chunk = ChunkRef { id, probe };
        if writer.reuse_chunk(id, raw.len(), &mut self.decompressor)? {
            return Ok(Kept::Chunk { chunk, bytes: None });
        }
        let frame = self.compressor.compress(raw).map_err(|cause| IngestError::Compress { index, cause })?;
        writer.put_chunk(id, &frame)?;
        Ok(Kept::Chunk { chunk, bytes: Some(frame.len() as u64) })
    }
}
