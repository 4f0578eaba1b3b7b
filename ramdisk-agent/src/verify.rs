//! Reading back, past the page cache, what was written.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use images::chunk::is_zero;
use images::manifest::{CHUNK_SIZE, Manifest};
use protocol::fault::{Fault, FaultCode};
use protocol::report::Stage;
use xxhash_rust::xxh3::xxh3_128;

use crate::device::Target;
use crate::feed::Feed;
use crate::sys::{Buffer, PAGE};
use crate::write::{Written, join, workers};

/// Reads back every piece and compares its hash; of each hole (at most 1 GiB, zeroed by one command of the kernel)
/// the first, middle and last block. Bytes read.
///
/// # Errors
/// [`FaultCode::DiskReadBack`] naming the place.
pub fn read_back(
    target: &Target,
    pieces: &[Written],
    holes: &[Range<u64>],
    feed: &Feed,
) -> Result<u64, Fault> {
    let total = pieces.iter().map(|p| p.len as u64).sum();
    feed.stage(Stage::Verify, pieces.len() as u64, total);
    let next = AtomicUsize::new(0);
    let longest = pieces.iter().map(|p| p.len).max().unwrap_or(0);
    let work = || {
        let mut raw = Buffer::new(longest);
        while let Some(found) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            feed.check_abort()?;
            let read = piece(target, found, &mut raw)
                .inspect_err(|_| next.store(pieces.len(), Ordering::Relaxed))?;
            feed.did(1, read);
        }
        Ok(())
    };
    std::thread::scope(|scope| join((0..workers()).map(|_| scope.spawn(work)).collect()))?;
    let mut sampled = 0;
    for hole in holes {
        sampled += sample_hole(target, hole)?;
    }
    Ok(total + sampled)
}

/// Reads back one piece into `raw`, which is at least as long, and compares its hash. Bytes read.
///
/// # Errors
/// [`FaultCode::DiskReadBack`] naming the place.
pub fn piece(target: &Target, piece: &Written, raw: &mut Buffer) -> Result<u64, Fault> {
    let bytes = &mut raw[..piece.len];
    target.read_at(piece.offset, bytes)?;
    if xxh3_128(bytes) == piece.hash { Ok(piece.len as u64) } else { Err(differs(target, piece.offset)) }
}

fn sample_hole(target: &Target, hole: &Range<u64>) -> Result<u64, Fault> {
    let len = (hole.end - hole.start).min(PAGE as u64);
    let middle = hole.start + (hole.end - hole.start) / 2 / PAGE as u64 * PAGE as u64;
    let mut block = Buffer::new(PAGE);
    for at in [hole.start, middle.min(hole.end - len), hole.end - len] {
        target.read_at(at, &mut block[..len as usize])?;
        if !is_zero(&block[..len as usize]) {
            return Err(differs(target, at));
        }
    }
    Ok(3 * len)
}

/// Reads the ranges and fails where any byte is not zero. Bytes read.
///
/// # Errors
/// [`FaultCode::DiskReadBack`] naming the place.
pub fn zeros(target: &Target, ranges: &[Range<u64>]) -> Result<u64, Fault> {
    let mut block = Buffer::new(1 << 20);
    let mut read = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(block.len() as u64) as usize;
            target.read_at(at, &mut block[..len])?;
            if !is_zero(&block[..len]) {
                return Err(differs(target, at));
            }
            at += len as u64;
            read += len as u64;
        }
    }
    Ok(read)
}

/// Compares a disk with an image: the number of equal chunks and the indices of those that differ. The first chunk,
/// whose table was adapted to the disk, the last, and grown or configured file systems differ on a deployed disk.
///
/// # Errors
/// Where the disk fails, or the job was stopped.
pub fn compare(target: &Target, manifest: &Manifest, feed: &Feed) -> Result<(u64, Vec<usize>), Fault> {
    let data = manifest.chunks.len() as u64;
    feed.stage(Stage::Verify, data, manifest.raw_size);
    let mut raw = Buffer::new(CHUNK_SIZE as usize);
    let (mut equal, mut other) = (0, Vec::new());
    for (index, chunk) in manifest.chunks.iter().enumerate() {
        feed.check_abort()?;
        let len = manifest.chunk_len(index);
        let offset = manifest.chunk_offset(index);
        let same = offset + len as u64 <= target.size() && {
            target.read_at(offset, &mut raw[..len])?;
            match chunk {
                Some(chunk) => images::chunk::sha256(&raw[..len]) == chunk.id.0,
                None => is_zero(&raw[..len]),
            }
        };
        if same {
            equal += 1
        } else {
            other.push(index)
        }
        feed.did(1, len as u64);
    }
    Ok((equal, other))
}

/// The fault of a disk that does not return what it was given.
pub fn differs(target: &Target, offset: u64) -> Fault {
    Fault::new(
        FaultCode::DiskReadBack,
        format!("{} returns other bytes than were written, at byte {offset}", target.path().display()),
        "replace the drive: it loses data; the disk does not boot",
    )
}
