//! Writing an image to a disk. The order is the point: both ends of the disk are zeroed first and written last, and
//! nothing is written that was not hashed, so that at every instant the disk is either not bootable or complete. A power
//! cut may leave any part of what was not flushed, so one sector, which a disk writes whole or not at all, decides: the
//! first is zeroed before all else and written after all else (decision 55).
//!
//! ```text
//!  sector 0, ends wiped ─▶ chunks (workers) + holes ─▶ flush ─▶ read back ─▶ config partition ─▶ last MiB ─▶ first MiB ─▶ sector 0
//!  └─ not bootable from here ───────────────────────────────────────────────────────────────────────────────────────────┘ bootable
//! ```

mod seal;
mod worker;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use failpoint::Point;
use images::Manifest;
use protocol::fault::{Fault, FaultCode};
use protocol::report::{Stage, Summary};
use ramdisk_agent_core::edges::{EDGE, Edges};
use ramdisk_agent_core::plan::WritePlan;

pub use seal::seal;

use crate::device::Target;
use crate::feed::Feed;
use crate::sys::Buffer;
use crate::verify;

/// Most workers. Each holds a raw chunk and its frame, about 8 MiB: with four the process stays far below 128 MiB,
/// and four keep the network, two or more processors and the disk busy at once.
const WORKERS_MAX: usize = 4;

/// What the workers share.
pub struct Write<'a> {
    /// The image.
    pub manifest: &'a Manifest,
    /// Where it goes.
    pub target: &'a Target,
    /// Base URL of the server.
    pub server: &'a str,
    /// Where progress goes.
    pub feed: &'a Feed,
    edges: Edges,
    next: AtomicUsize,
    stop: AtomicBool,
    written: Mutex<Vec<Written>>,
    held: Mutex<Held>,
    fetched: AtomicU64,
    kept: AtomicU64,
    kept_bytes: AtomicU64,
    bytes_fetched: AtomicU64,
    bytes_written: AtomicU64,
}

/// A piece that was written, to be read back.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: usize,
    /// xxh3-128 of it.
    pub hash: u128,
}

/// The image's bytes of both ends of the disk; zero where the image has none.
pub struct Held {
    /// First MiB.
    pub head: Buffer,
    /// Last MiB.
    pub tail: Buffer,
}

/// Number of workers on this machine.
pub fn workers() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cpus).clamp(2, WORKERS_MAX)
}

/// Writes everything but the ends and reads it back. What was done, and the ends that are still to be written.
///
/// # Errors
/// The first fault of any worker; the disk does not boot then.
pub fn write(
    manifest: &Manifest,
    plan: &WritePlan,
    target: &Target,
    server: &str,
    feed: &Feed,
) -> Result<(Summary, Held), Fault> {
    let edges = Edges::of(target.size()).ok_or_else(|| {
        Fault::new(FaultCode::DiskTooSmall, "disk is smaller than 4 MiB", "choose a larger disk")
    })?;
    feed.stage(Stage::Write, plan.data_chunks, plan.data_bytes);
    wipe_ends(target, edges)?;
    target.hit(Point::AgentWiped)?;
    let shared = Write {
        manifest,
        target,
        server,
        feed,
        edges,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        written: Mutex::default(),
        held: Mutex::new(Held { head: Buffer::new(EDGE as usize), tail: Buffer::new(EDGE as usize) }),
        fetched: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        kept_bytes: AtomicU64::new(0),
        bytes_fetched: AtomicU64::new(0),
        bytes_written: AtomicU64::new(0),
    };
    let checked_early = std::thread::scope(|scope| {
        // A spinning disk would only seek between the two; there everything is read back at the end.
        let checking = (!plan.disk.rotational).then(|| scope.spawn(|| shared.check_early()));
        let mut running: Vec<_> = (0..workers()).map(|_| scope.spawn(|| shared.run())).collect();
        running.push(scope.spawn(|| shared.zero_holes(plan)));
        let written = join(running);
        shared.stop.store(true, Ordering::Relaxed);
        let checked = join(checking.into_iter().collect());
        written.and(checked)
    })?;
    target.flush()?;
    target.hit(Point::AgentReadBack)?;
    let written = shared.written.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let holes = plan.holes.iter().map(|r| r.end - r.start).sum();
    let verified = verify::read_back(target, &written, &plan.holes, feed)?;
    let load = |c: &AtomicU64| c.load(Ordering::Relaxed);
    let summary = Summary {
        chunks_fetched: load(&shared.fetched),
        chunks_kept: load(&shared.kept),
        bytes_fetched: load(&shared.bytes_fetched),
        bytes_written: load(&shared.bytes_written),
        bytes_zeroed: holes,
        bytes_verified: verified + checked_early.iter().sum::<u64>() + load(&shared.kept_bytes),
    };
    Ok((summary, shared.held.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)))
}

/// Zeroes both ends, the first sector before the rest, and flushes: from here on no firmware boots the disk, not even by
/// its backup table.
fn wipe_ends(target: &Target, edges: Edges) -> Result<(), Fault> {
    let zeros = Buffer::new(EDGE as usize);
    let sector = target.sector() as usize;
    target.write_at(0, &zeros[..sector])?;
    target.flush()?;
    target.hit(Point::AgentFirstWiped)?;
    target.write_at(sector as u64, &zeros[sector..])?;
    target.write_at(edges.tail_start(), &zeros)?;
    Ok(target.flush()?)
}

/// Waits for all; the first fault counts.
pub(crate) fn join<T>(
    running: Vec<std::thread::ScopedJoinHandle<'_, Result<T, Fault>>>,
) -> Result<Vec<T>, Fault> {
    let mut done = Vec::new();
    let mut first = None;
    for thread in running {
        match thread.join() {
            Ok(Ok(value)) => done.push(value),
            Ok(Err(fault)) => first = first.or(Some(fault)),
            Err(_) => {
                let fault = Fault::new(
                    FaultCode::Agent,
                    "a worker of the agent broke down",
                    "see the console of the machine, report the fault, deploy again",
                );
                first = first.or(Some(fault));
            }
        }
    }
    first.map_or(Ok(done), Err)
}
