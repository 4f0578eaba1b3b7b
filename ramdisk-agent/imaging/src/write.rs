//! An image into a disk, in the order in which the agent writes one, so that at every moment the disk is either not bootable or
//! complete; the first sector decides, which no power cut tears (decision 55):
//!
//! ```text
//!  sector 0, ends wiped ─▶ chunks (threads) + holes ─▶ flush ─▶ read back ─▶ config partition ─▶ last MiB ─▶ first MiB ─▶ sector 0
//! ```
//!
//! Blocks.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use failpoint::{Point, hit};
use images::chunk::is_zero;
use images::{ChunkRef, PartitionTable};
use protocol::DiskId;
use protocol::fault::Fault;
use protocol::inventory::{Disk, DiskContent, Transport};
use ramdisk_agent_core::cidata;
use ramdisk_agent_core::edges::{EDGE, Edges};
use ramdisk_agent_core::gpt::CONFIG_SIZE;
use ramdisk_agent_core::plan::{self, WritePlan};
use ramdisk_agent_core::seal::{Adapted, Ends};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Image, ImagingError, Medium, Progress, Step, Watch, Written};

/// Most threads of one write; each holds a raw chunk and its frame, about 8 MiB.
const THREADS_MAX: usize = 4;
/// Longest range that is zeroed at once, in bytes: between two it is looked whether to stop.
pub const ZERO_MAX: u64 = 1 << 30;
/// Bytes of the first sector: what a disk writes whole or not at all.
const FIRST: usize = 512;
/// Bytes of a block of a hole that is read back.
const BLOCK: usize = 4096;

/// Writes the image into a medium that nobody else has open, and reads it back. After a crash it is done again from the start.
///
/// # Errors
/// [`ImagingError`]; the disk does not boot then.
pub fn write(medium: &dyn Medium, image: &Image<'_>, watch: &dyn Watch) -> Result<Written, ImagingError> {
    watch.tell(Progress::default());
    let plan = plan::for_disk(image.manifest, &as_disk(medium.size()), image.config.is_some())
        .map_err(|fault| ImagingError::Refused(fault.message))?;
    let edges = Edges::of(medium.size())
        .ok_or_else(|| ImagingError::Refused("the volume is smaller than 4 MiB".into()))?;
    let write = Write {
        medium,
        image,
        edges,
        watch,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        total: plan.data_bytes,
        written: Mutex::default(),
        ends: Mutex::new((vec![0; EDGE as usize], vec![0; EDGE as usize])),
    };
    write.run(&plan)
}

/// One write.
struct Write<'a> {
    medium: &'a dyn Medium,
    image: &'a Image<'a>,
    edges: Edges,
    watch: &'a dyn Watch,
    next: AtomicUsize,
    stop: AtomicBool,
    done: AtomicU64,
    total: u64,
    written: Mutex<Vec<Piece>>,
    ends: Mutex<(Vec<u8>, Vec<u8>)>,
}

/// A piece that was written, to be read back.
struct Piece {
    offset: u64,
    len: usize,
    hash: u128,
}

impl Write<'_> {
    fn run(self, plan: &WritePlan) -> Result<Written, ImagingError> {
        self.put(0, &[0; FIRST])?;
        self.put(FIRST as u64, &vec![0; EDGE as usize - FIRST])?;
        self.put(self.edges.tail_start(), &vec![0; EDGE as usize])?;
        hit(Point::ImagingWiped).map_err(ImagingError::io("wipe"))?;
        let holes = self.holes(plan);
        self.tell(Step::Write, 0);
        self.chunks(&holes)?;
        self.medium.flush().map_err(ImagingError::io("flush"))?;
        let verified = self.read_back(&holes)?;
        self.check()?;
        self.tell(Step::Customise, 0);
        let (config, adapted) = self.seal()?;
        Ok(Written {
            written: self.done.load(Ordering::Relaxed) + config + 2 * EDGE,
            zeroed: holes.iter().map(|r| r.end - r.start).sum(),
            verified: verified + config + 2 * EDGE,
            grown: adapted.grown,
        })
    }

    /// Holes of the image, and all behind it: what was there before must not be read. In an encrypted volume nobody can.
    fn holes(&self, plan: &WritePlan) -> Vec<Range<u64>> {
        let mut holes = plan.holes.clone();
        if self.image.encrypted {
            return holes;
        }
        let mut at = self.image.manifest.raw_size.max(EDGE);
        while at < self.edges.tail_start() {
            let end = (at + ZERO_MAX).min(self.edges.tail_start());
            holes.push(at..end);
            at = end;
        }
        holes
    }

    /// All chunks and holes; the first error of any thread counts.
    fn chunks(&self, holes: &[Range<u64>]) -> Result<(), ImagingError> {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let mut running: Vec<_> = (0..threads.clamp(2, THREADS_MAX))
                .map(|_| scope.spawn(|| self.stopping(self.some_chunks())))
                .collect();
            running.push(scope.spawn(|| self.stopping(self.zero(holes))));
            let mut first = Ok(());
            for thread in running {
                let ended = thread.join().unwrap_or_else(|_| {
                    Err(ImagingError::Refused("a thread that wrote it broke down".into()))
                });
                first = first.and(ended);
            }
            first
        })
    }

    fn stopping(&self, result: Result<(), ImagingError>) -> Result<(), ImagingError> {
        result.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))
    }

    fn some_chunks(&self) -> Result<(), ImagingError> {
        let mut decompressor =
            zstd::bulk::Decompressor::new().map_err(|e| ImagingError::Refused(format!("start zstd: {e}")))?;
        let is_stopped = || self.stop.load(Ordering::Relaxed) || self.watch.is_cancelled();
        let mut raw = vec![0; self.image.manifest.chunk_size as usize];
        while let Some((index, chunk)) = self.take() {
            self.check()?;
            let raw = &mut raw[..self.image.manifest.chunk_len(index)];
            match self.image.chunks.chunk(index, chunk.id, &mut decompressor, raw, &is_stopped) {
                // Another thread failed; it says why.
                Err(ImagingError::Cancelled) if !self.watch.is_cancelled() => return Ok(()),
                fetched => fetched?,
            }
            self.chunk(self.image.manifest.chunk_offset(index), raw)?;
            self.done.fetch_add(raw.len() as u64, Ordering::Relaxed);
            self.tell(Step::Write, self.done.load(Ordering::Relaxed));
        }
        Ok(())
    }

    fn take(&self) -> Option<(usize, ChunkRef)> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(chunk) = self.image.manifest.chunks.get(index)? {
                return Some((index, *chunk));
            }
        }
    }

    /// Writes what of a verified chunk lies between the ends, and keeps what lies in them.
    fn chunk(&self, offset: u64, raw: &[u8]) -> Result<(), ImagingError> {
        let split = self.edges.split(offset..offset + raw.len() as u64);
        let part = |range: &Range<u64>| &raw[(range.start - offset) as usize..(range.end - offset) as usize];
        if !split.body.is_empty() {
            let bytes = part(&split.body);
            hit(Point::ImagingChunk)
                .and_then(|()| self.medium.write_at(split.body.start, bytes))
                .map_err(ImagingError::io("write"))?;
            let piece = Piece { offset: split.body.start, len: bytes.len(), hash: xxh3_128(bytes) };
            self.written.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        }
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if !split.head.is_empty() {
            let at = split.head.start as usize;
            ends.0[at..split.head.end as usize].copy_from_slice(part(&split.head));
        }
        if !split.tail.is_empty() {
            let at = (split.tail.start - self.edges.tail_start()) as usize;
            let bytes = part(&split.tail);
            ends.1[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn zero(&self, holes: &[Range<u64>]) -> Result<(), ImagingError> {
        for hole in holes {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.check()?;
            self.medium.zero(hole.clone()).map_err(ImagingError::io("zero"))?;
        }
        Ok(())
    }

    /// Reads back every piece, and of each hole the first, middle and last block. Bytes read.
    fn read_back(&self, holes: &[Range<u64>]) -> Result<u64, ImagingError> {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let mut raw = vec![0; self.image.manifest.chunk_size as usize];
        let mut read = 0;
        for piece in &written {
            self.check()?;
            let bytes = &mut raw[..piece.len];
            self.medium.read_at(piece.offset, bytes).map_err(ImagingError::io("read"))?;
            if xxh3_128(bytes) != piece.hash {
                return Err(ImagingError::Differs(piece.offset));
            }
            read += piece.len as u64;
            self.tell(Step::Verify, read);
        }
        for hole in holes {
            let len = (hole.end - hole.start).min(BLOCK as u64);
            let middle = hole.start + (hole.end - hole.start) / 2 / BLOCK as u64 * BLOCK as u64;
            for at in [hole.start, middle.min(hole.end - len), hole.end - len] {
                let block = &mut raw[..len as usize];
                self.medium.read_at(at, block).map_err(ImagingError::io("read"))?;
                if !is_zero(block) {
                    return Err(ImagingError::Differs(at));
                }
                read += len;
            }
        }
        Ok(read)
    }

    /// Config partition, last MiB, first MiB. Bytes of the config partition.
    fn seal(&self) -> Result<(u64, Adapted), ImagingError> {
        let (mut head, mut tail) =
            std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        let refuse = |fault: Fault| ImagingError::Refused(fault.message);
        let (mut adapted, mut bytes) = (Adapted::default(), 0);
        if self.image.manifest.partition_table == PartitionTable::Gpt {
            let guid = self.image.config.is_some().then(|| uuid::Uuid::new_v4().to_bytes_le());
            let ends = Ends { head: &mut head, tail: &mut tail, disk_size: self.medium.size() };
            adapted = ends.adapt(&self.image.manifest.name, self.image.grow_root, guid).map_err(refuse)?;
            if let (Some(config), Some(range)) = (self.image.config, &adapted.config) {
                let mut partition = vec![0; CONFIG_SIZE as usize];
                cidata::make(config, &mut partition).map_err(refuse)?;
                self.put(range.start, &partition)?;
                bytes = CONFIG_SIZE;
            }
        }
        self.check()?;
        hit(Point::ImagingTail).map_err(ImagingError::io("seal"))?;
        self.put(self.edges.tail_start(), &tail)?;
        self.put(FIRST as u64, &head[FIRST..])?;
        hit(Point::ImagingFirst).map_err(ImagingError::io("seal"))?;
        self.put(0, &head[..FIRST])?;
        Ok((bytes, adapted))
    }

    /// Writes, flushes, reads back, compares.
    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), ImagingError> {
        self.medium.write_at(offset, bytes).map_err(ImagingError::io("write"))?;
        self.medium.flush().map_err(ImagingError::io("flush"))?;
        let mut back = vec![0; bytes.len()];
        self.medium.read_at(offset, &mut back).map_err(ImagingError::io("read"))?;
        if back == bytes { Ok(()) } else { Err(ImagingError::Differs(offset)) }
    }

    fn check(&self) -> Result<(), ImagingError> {
        if self.watch.is_cancelled() { Err(ImagingError::Cancelled) } else { Ok(()) }
    }

    fn tell(&self, step: Step, done: u64) {
        self.watch.tell(Progress { step, done, total: self.total });
    }
}

/// A volume of this many bytes as a plan takes a disk.
pub fn as_disk(size_bytes: u64) -> Disk {
    Disk {
        id: DiskId::of(None, Some("volume"), None),
        name: "volume".into(),
        bus_path: None,
        model: Some("volume".into()),
        serial: None,
        wwn: None,
        firmware: None,
        size_bytes,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        transport: Transport::Virtio,
        removable: false,
        read_only: false,
        content: DiskContent::Blank,
    }
}
