//! Erases disks between tenants. First every disk is made unbootable, so that nothing that was on the machine can run again and write
//! on a disk that was done; then each is erased by the strongest way that it has, and read back.
//!
//! ```text
//! all disks: tables and signatures go ─▶ each disk: sentinels ─▶ method, or the next ─▶ samples ─▶ record
//!                                                                         the rest of the machine ─▶ record
//! ```

mod ask;
mod check;
mod drive;
mod machine;
#[cfg(test)]
mod model;
mod run;
#[cfg(test)]
mod tests;

use std::path::Path;

use protocol::erase::{EraseMethod, EraseOrder, EraseRecord, EraseResult, Expected, Grade, NotUsed, Sampled};
use protocol::fault::{Fault, FaultCode};
use protocol::inventory::Disk;
use protocol::job::DiskTarget;
use protocol::report::{Stage, Summary};
use ramdisk_agent_core::erase::{self as core, Abilities};
use ramdisk_agent_core::{plan, wipe};

use crate::deploy;
use crate::device::Target;
use crate::feed::{self, Feed};
use drive::Drive;
use run::Ended;

/// Disks at once: more of one shelf only wait for each other.
const AT_ONCE: usize = 16;
const HINT: &str = "look at the drive; replace it if it happens again. The node is not offered before every disk of it is erased";

/// Erases exactly these disks, and where that was asked for cleans the rest of the machine.
///
/// # Errors
/// The first reason why nothing was begun, or all disks that were not erased.
pub fn erase(
    targets: &[DiskTarget],
    order: &EraseOrder,
    disks: &[Disk],
    dev: &Path,
    feed: &Feed,
) -> Result<Summary, Fault> {
    feed.stage(Stage::Erase, 0, 0);
    let chosen = targets.iter().map(|t| plan::find(t, disks)).collect::<Result<Vec<_>, _>>()?;
    let skipped = if order.whole { rest(&chosen, order, disks)? } else { Vec::new() };
    for (disk, why) in skipped {
        feed.disk(record(disk, EraseResult::Skipped { why: why.to_owned() }));
    }
    feed.check_abort()?;
    let opened: Vec<_> = chosen.iter().map(|disk| (*disk, prepare(disk, dev, feed))).collect();
    let (mut summary, mut failed) = (Summary::default(), Vec::new());
    for some in opened.chunks(AT_ONCE) {
        let done: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> =
                some.iter().map(|one| scope.spawn(move || one_disk(one.0, &one.1, feed))).collect();
            running.into_iter().map(|thread| thread.join()).collect()
        });
        for ((disk, _), done) in some.iter().zip(done) {
            // A thread that panicked leaves its disk as it is, which is not erased.
            let record = done.unwrap_or_else(|_| {
                Ok(record(
                    disk,
                    EraseResult::Failed { why: "the agent broke while it was erased".to_owned() },
                ))
            })?;
            if let EraseResult::Failed { why } = &record.result {
                failed.push(format!("{}: {why}", plan::describe(disk)));
            } else {
                summary.bytes_zeroed += disk.size_bytes;
            }
        }
    }
    if order.whole {
        feed.machine(machine::clean());
    }
    if failed.is_empty() {
        return Ok(summary);
    }
    let message =
        format!("{} of {} disks were not erased: {}", failed.len(), chosen.len(), failed.join("; "));
    Err(Fault::new(FaultCode::Erase, message, HINT))
}

/// The disks that are not touched by rule. One that is neither that nor named ends the job before it begins.
fn rest<'a>(
    chosen: &[&Disk],
    order: &EraseOrder,
    disks: &'a [Disk],
) -> Result<Vec<(&'a Disk, &'static str)>, Fault> {
    let done = |disk: &Disk| disk.id.as_ref().is_some_and(|id| order.done.contains(id));
    let mut skipped = Vec::new();
    for disk in disks.iter().filter(|disk| !done(disk) && !chosen.iter().any(|c| c.name == disk.name)) {
        match core::skipped(disk) {
            Some(why) => skipped.push((disk, why)),
            None => {
                return Err(Fault::new(
                    FaultCode::DiskRefused,
                    format!("{} is in the machine and not in the job", plan::describe(disk)),
                    "inspect the node again; a disk that reports no name of its own must come out of the machine",
                ));
            }
        }
    }
    Ok(skipped)
}

/// A disk that is ready to be erased.
struct Ready {
    target: Target,
    abilities: Abilities,
}

/// Opens a disk and makes it unbootable.
fn prepare(disk: &Disk, dev: &Path, feed: &Feed) -> Result<Ready, Fault> {
    let target = deploy::open(disk, &dev.join(&disk.name))?;
    // Also unlocks a drive that a cut left locked by our own password.
    let abilities = ask::abilities(&target, disk);
    for range in wipe::ranges(disk) {
        feed.check_abort()?;
        target.zero(&range)?;
    }
    target.flush()?;
    Ok(Ready { target, abilities })
}

fn one_disk(disk: &Disk, ready: &Result<Ready, Fault>, feed: &Feed) -> Result<EraseRecord, Fault> {
    let made = match ready {
        Ok(ready) => erase_drive(&ready.target, disk, &ready.abilities, seed(), feed)?,
        Err(fault) => record(disk, EraseResult::Failed { why: fault.message.clone() }),
    };
    if let Ok(ready) = ready
        && let Err(e) = ready.target.reread_partitions()
    {
        eprintln!("billet: the kernel keeps its old view of {}: {e}", disk.name);
    }
    feed.disk(made.clone());
    Ok(made)
}

/// Erases one drive and reads it back. Whatever does not come to its end is in the record; only an abort is a fault.
fn erase_drive(
    drive: &dyn Drive,
    disk: &Disk,
    abilities: &Abilities,
    seed: u64,
    feed: &Feed,
) -> Result<EraseRecord, Fault> {
    let ways = core::methods(abilities);
    let mut made = record(disk, EraseResult::Erased);
    made.not_used = ways.not_used;
    let fail = |mut made: EraseRecord, why: String| {
        made.result = EraseResult::Failed { why };
        made.grade = Grade::None;
        made.ended = feed::now();
        Ok(made)
    };
    let Some(checks) = core::sample::plan(drive.size(), seed) else {
        return fail(made, "it is too small to be read back".to_owned());
    };
    let before = match check::before(drive, &checks) {
        Ok(before) => before,
        Err(why) => return fail(made, why),
    };
    for method in ways.methods {
        feed.note(format!("{}: {method}", plan::describe(disk)));
        match run::run(drive, method, abilities, &checks, feed) {
            Ok(()) => {
                made.method = Some(method);
                let expected = expected(method);
                // A drive that says "done" of what it did not do is not asked to do it in another way.
                return match check::after(drive, &checks, &before, expected).and_then(|()| ends(drive, disk))
                {
                    Ok(()) => {
                        let sampled: Sampled = checks.sampled(expected);
                        made.ended = feed::now();
                        Ok(EraseRecord { grade: core::grade(method, disk), sampled: Some(sampled), ..made })
                    }
                    Err(why) => fail(made, why),
                };
            }
            Err(Ended::Refused(why)) => made.not_used.push(NotUsed { method, why }),
            Err(Ended::Fault(fault)) => return Err(fault),
        }
    }
    fail(made, "no way was left".to_owned())
}

fn expected(method: EraseMethod) -> Expected {
    match method {
        EraseMethod::Discard => Expected::Zeros,
        EraseMethod::Overwrite => Expected::Pattern,
        _ => Expected::Changed,
    }
}

/// Zeros where tables and signatures would be, so that the disk is seen as blank.
fn ends(drive: &dyn Drive, disk: &Disk) -> Result<(), String> {
    let ranges = wipe::ranges(disk);
    let zeroed = ranges.iter().try_for_each(|range| drive.zero(range)).and_then(|()| drive.flush());
    zeroed.map_err(|error| error.to_string())?;
    check::zeros(drive, &ranges)
}

/// A record of this disk, to be filled in.
fn record(disk: &Disk, result: EraseResult) -> EraseRecord {
    let now = feed::now();
    EraseRecord {
        disk: disk.id.clone(),
        name: disk.name.clone(),
        model: disk.model.clone(),
        serial: disk.serial.clone(),
        wwn: disk.wwn.clone(),
        firmware: disk.firmware.clone(),
        size_bytes: disk.size_bytes,
        transport: disk.transport,
        result,
        method: None,
        grade: Grade::None,
        not_used: Vec::new(),
        began: now,
        ended: now,
        sampled: None,
    }
}

fn seed() -> u64 {
    u64::from(crate::fetch::random()) << 32 | u64::from(crate::fetch::random())
}
