//! An image into a volume, in the order in which the agent writes a disk, so that at every moment the volume is either not
//! bootable or complete:
//!
//! ```text
//!  wipe ends ─▶ chunks (threads) + holes ─▶ flush ─▶ read back ─▶ config partition ─▶ last MiB ─▶ first MiB
//! ```
//!
//! What the ends become and what lies in the config partition is decided by `ramdisk_agent_core`, for both. Blocks.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use images::chunk::is_zero;
use images::{ChunkRef, Manifest, PartitionTable};
use protocol::agent::Password;
use protocol::fault::Fault;
use protocol::inventory::{Disk, DiskContent, Transport};
use protocol::{DiskId, VolumeId};
use ramdisk_agent_core::cidata;
use ramdisk_agent_core::edges::{EDGE, Edges};
use ramdisk_agent_core::gpt::CONFIG_SIZE;
use ramdisk_agent_core::plan::{self, WritePlan};
use ramdisk_agent_core::seal::{Adapted, Ends};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

use crate::luks::{self, Chance};
use crate::medium::Medium;
use crate::{BackendError, ImageSource, ImageWritten, Progress, Step};

/// Most threads of one write; each holds a raw chunk and its frame, about 8 MiB.
const THREADS_MAX: usize = 4;
/// Longest range that is zeroed at once, in bytes: between two it is looked whether to stop.
const ZERO_MAX: u64 = 1 << 30;
/// Bytes of a block of a hole that is read back.
const BLOCK: usize = 4096;

/// Who is told, and who may stop it.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) cancel: CancellationToken,
}

/// Writes the image into a medium that nobody else has open.
///
/// # Errors
/// As [`crate::Backend::write_image`]; the volume does not boot then.
pub(crate) fn write(
    volume: VolumeId,
    medium: &dyn Medium,
    image: &ImageSource,
    watched: &Watched,
) -> Result<ImageWritten, BackendError> {
    watched.progress.send_replace(Progress::default());
    let refuse = |why: String| BackendError::Image { image: image.image, why };
    let manifest = image.store.manifest(image.image).map_err(|e| refuse(chain(&e)))?;
    let plan = plan::for_disk(&manifest, &as_disk(volume, medium.size()), image.config.is_some())
        .map_err(|fault| refuse(fault.message))?;
    let edges = Edges::of(medium.size()).ok_or_else(|| refuse("the volume is smaller than 4 MiB".into()))?;
    let write = Write {
        volume,
        medium,
        image,
        manifest: &manifest,
        edges,
        watched,
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
    volume: VolumeId,
    medium: &'a dyn Medium,
    image: &'a ImageSource,
    manifest: &'a Manifest,
    edges: Edges,
    watched: &'a Watched,
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
    fn run(self, plan: &WritePlan) -> Result<ImageWritten, BackendError> {
        self.put(0, &vec![0; EDGE as usize])?;
        self.put(self.edges.tail_start(), &vec![0; EDGE as usize])?;
        let holes = self.holes(plan);
        self.tell(Step::Write, 0);
        self.chunks(&holes)?;
        self.medium.flush().map_err(self.io("flush"))?;
        let verified = self.read_back(&holes)?;
        self.check()?;
        self.tell(Step::Customise, 0);
        let (config, adapted) = self.seal()?;
        Ok(ImageWritten {
            written: self.done.load(Ordering::Relaxed) + config + 2 * EDGE,
            zeroed: holes.iter().map(|r| r.end - r.start).sum(),
            verified: verified + config + 2 * EDGE,
            grown: adapted.grown,
        })
    }

    /// Holes of the image, and all behind it: what was there before must not be read. In an encrypted volume nobody can.
    fn holes(&self, plan: &WritePlan) -> Vec<Range<u64>> {
        let mut holes = plan.holes.clone();
        if self.image.key.is_some() {
            return holes;
        }
        let mut at = self.manifest.raw_size.max(EDGE);
        while at < self.edges.tail_start() {
            let end = (at + ZERO_MAX).min(self.edges.tail_start());
            holes.push(at..end);
            at = end;
        }
        holes
    }

    /// All chunks and holes; the first error of any thread counts.
    fn chunks(&self, holes: &[Range<u64>]) -> Result<(), BackendError> {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let mut running: Vec<_> = (0..threads.clamp(2, THREADS_MAX))
                .map(|_| scope.spawn(|| self.stopping(self.some_chunks())))
                .collect();
            running.push(scope.spawn(|| self.stopping(self.zero(holes))));
            let mut first = Ok(());
            for thread in running {
                let ended = thread.join().unwrap_or_else(|_| {
                    Err(BackendError::Refused("a thread that wrote an image broke down".into()))
                });
                first = first.and(ended);
            }
            first
        })
    }

    fn stopping(&self, result: Result<(), BackendError>) -> Result<(), BackendError> {
        result.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))
    }

    fn some_chunks(&self) -> Result<(), BackendError> {
        let mut decompressor =
            zstd::bulk::Decompressor::new().map_err(|e| self.refused(format!("start zstd: {e}")))?;
        let mut raw = vec![0; self.manifest.chunk_size as usize];
        while let Some((index, chunk)) = self.take() {
            self.check()?;
            let raw = &mut raw[..self.manifest.chunk_len(index)];
            let frame = self.image.store.chunk_frame(chunk.id).map_err(|e| self.refused(chain(&e)))?;
            images::chunk::open(&mut decompressor, chunk.id, &frame, raw)
                .map_err(|e| self.refused(chain(&e)))?;
            self.chunk(self.manifest.chunk_offset(index), raw)?;
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
            if let Some(chunk) = self.manifest.chunks.get(index)? {
                return Some((index, *chunk));
            }
        }
    }

    /// Writes what of a verified chunk lies between the ends, and keeps what lies in them.
    fn chunk(&self, offset: u64, raw: &[u8]) -> Result<(), BackendError> {
        let split = self.edges.split(offset..offset + raw.len() as u64);
        let part = |range: &Range<u64>| &raw[(range.start - offset) as usize..(range.end - offset) as usize];
        if !split.body.is_empty() {
            let bytes = part(&split.body);
            self.medium.write_at(split.body.start, bytes).map_err(self.io("write"))?;
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

    fn zero(&self, holes: &[Range<u64>]) -> Result<(), BackendError> {
        for hole in holes {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.check()?;
            self.medium.zero(hole.clone()).map_err(self.io("zero"))?;
        }
        Ok(())
    }

    /// Reads back every piece, and of each hole the first, middle and last block. Bytes read.
    fn read_back(&self, holes: &[Range<u64>]) -> Result<u64, BackendError> {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let mut raw = vec![0; self.manifest.chunk_size as usize];
        let mut read = 0;
        for piece in &written {
            self.check()?;
            let bytes = &mut raw[..piece.len];
            self.medium.read_at(piece.offset, bytes).map_err(self.io("read"))?;
            if xxh3_128(bytes) != piece.hash {
                return Err(self.differs(piece.offset));
            }
            read += piece.len as u64;
            self.tell(Step::Verify, read);
        }
        for hole in holes {
            let len = (hole.end - hole.start).min(BLOCK as u64);
            let middle = hole.start + (hole.end - hole.start) / 2 / BLOCK as u64 * BLOCK as u64;
            for at in [hole.start, middle.min(hole.end - len), hole.end - len] {
                let block = &mut raw[..len as usize];
                self.medium.read_at(at, block).map_err(self.io("read"))?;
                if !is_zero(block) {
                    return Err(self.differs(at));
                }
                read += len;
            }
        }
        Ok(read)
    }

    /// Config partition, last MiB, first MiB. Bytes of the config partition.
    fn seal(&self) -> Result<(u64, Adapted), BackendError> {
        let (mut head, mut tail) =
            std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        let refuse = |fault: Fault| self.refused(fault.message);
        let (mut adapted, mut bytes) = (Adapted::default(), 0);
        if self.manifest.partition_table == PartitionTable::Gpt {
            let guid = self.image.config.is_some().then(|| uuid::Uuid::new_v4().to_bytes_le());
            let ends = Ends { head: &mut head, tail: &mut tail, disk_size: self.medium.size() };
            adapted = ends.adapt(&self.manifest.name, self.image.grow_root, guid).map_err(refuse)?;
            if let (Some(config), Some(range)) = (&self.image.config, &adapted.config) {
                let mut partition = vec![0; CONFIG_SIZE as usize];
                cidata::make(config, &mut partition).map_err(refuse)?;
                self.put(range.start, &partition)?;
                bytes = CONFIG_SIZE;
            }
        }
        self.check()?;
        self.put(self.edges.tail_start(), &tail)?;
        self.put(0, &head)?;
        Ok((bytes, adapted))
    }

    /// Writes, flushes, reads back, compares.
    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.medium.write_at(offset, bytes).map_err(self.io("write"))?;
        self.medium.flush().map_err(self.io("flush"))?;
        let mut back = vec![0; bytes.len()];
        self.medium.read_at(offset, &mut back).map_err(self.io("read"))?;
        if back == bytes { Ok(()) } else { Err(self.differs(offset)) }
    }

    fn check(&self) -> Result<(), BackendError> {
        if self.watched.cancel.is_cancelled() { Err(BackendError::Cancelled) } else { Ok(()) }
    }

    fn tell(&self, step: Step, done: u64) {
        self.watched.progress.send_replace(Progress { step, done, total: self.total });
    }

    fn io(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> BackendError {
        BackendError::io(action, self.medium.path())
    }

    fn differs(&self, offset: u64) -> BackendError {
        BackendError::Differs { volume: self.volume, offset }
    }

    fn refused(&self, why: String) -> BackendError {
        BackendError::Image { image: self.image.image, why }
    }
}

/// Puts the header of an encrypted volume where it belongs.
///
/// # Errors
/// Where it cannot be written and read back.
pub(crate) fn encrypt(volume: VolumeId, medium: &dyn Medium, key: &Password) -> Result<(), BackendError> {
    let chance = Chance::new()
        .map_err(|e| BackendError::Refused(format!("no random numbers for a volume's key: {e}")))?;
    let header = luks::header(key, &chance);
    let (path, mut back) = (medium.path(), vec![0; header.len()]);
    medium.write_at(0, &header).map_err(BackendError::io("write", path))?;
    medium.flush().map_err(BackendError::io("flush", path))?;
    medium.read_at(0, &mut back).map_err(BackendError::io("read", path))?;
    if back == header { Ok(()) } else { Err(BackendError::Differs { volume, offset: 0 }) }
}

/// The volume as a plan takes a disk.
fn as_disk(volume: VolumeId, size_bytes: u64) -> Disk {
    Disk {
        id: DiskId::of(None, Some(&volume.to_string()), None),
        name: "volume".into(),
        bus_path: None,
        model: Some("volume".into()),
        serial: Some(volume.to_string()),
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

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Zeroes all of a medium.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn zero_all(medium: &dyn Medium) -> Result<(), BackendError> {
    let mut at = 0;
    while at < medium.size() {
        let end = (at + ZERO_MAX).min(medium.size());
        medium.zero(at..end).map_err(BackendError::io("zero", medium.path()))?;
        at = end;
    }
    medium.flush().map_err(BackendError::io("flush", medium.path()))
}
