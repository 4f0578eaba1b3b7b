//! One job from its first check to its last flush.

use std::path::Path;

use failpoint::Point;
use images::{Manifest, PartitionTable};
use protocol::fault::{Fault, FaultCode};
use protocol::inventory::Disk;
use protocol::job::{DeploySpec, DiskTarget};
use protocol::report::{Stage, Summary};
use ramdisk_agent_core::plan::{self, WritePlan};
use ramdisk_agent_core::wipe;

use crate::customise::boot_entry;
use crate::device::Target;
use crate::feed::Feed;
use crate::fetch::Fetcher;
use crate::inspect::tree::Tree;
use crate::trust::Trust;
use crate::{verify, write};

/// Writes an OS to the one disk that the job names.
///
/// # Errors
/// The fault to report; before the write began the disk is as it was, after it the disk does not boot.
pub fn deploy(
    spec: &DeploySpec,
    disks: &[Disk],
    dev: &Path,
    server: &str,
    trust: &Trust,
    feed: &Feed,
) -> Result<Summary, Fault> {
    feed.stage(Stage::Plan, 0, 0);
    let manifest = manifest(spec, server, trust, feed)?;
    let plan = plan::deploy(spec, &manifest, disks)?;
    say(&plan, spec, feed);
    feed.check_abort()?;
    write_plan(spec, &manifest, &plan, &dev.join(&plan.disk.name), server, feed)
}

/// The manifest of the job's image.
///
/// # Errors
/// Where it cannot be had, is not the one named, or nobody who is trusted vouches for it.
pub fn manifest(spec: &DeploySpec, server: &str, trust: &Trust, feed: &Feed) -> Result<Manifest, Fault> {
    let mut fetcher = Fetcher::new(server)
        .map_err(|e| Fault::new(FaultCode::Agent, format!("start zstd: {e}"), "report the fault"))?;
    fetcher.manifest(feed, spec.image, trust)
}

/// Carries out a plan on the device at `path`.
///
/// # Errors
/// As [`deploy`].
pub fn write_plan(
    spec: &DeploySpec,
    manifest: &Manifest,
    plan: &WritePlan,
    path: &Path,
    server: &str,
    feed: &Feed,
) -> Result<Summary, Fault> {
    let target = open(&plan.disk, path)?;
    target.hit(Point::AgentOpened)?;
    let (mut summary, held) = write::write(manifest, plan, &target, server, feed)?;
    let gpt = manifest.partition_table == PartitionTable::Gpt;
    let sealed = write::seal(spec, gpt, held, &target, feed)?;
    target.hit(Point::AgentDone)?;
    summary.bytes_written += sealed.bytes;
    summary.bytes_verified += sealed.bytes;
    if let Some(label) = &spec.boot_entry {
        // The disk is complete; without an entry most firmwares still find it by the default path of its ESP, and the
        // server's boot script leads to it, so this is told and does not undo the deploy.
        match boot_entry::set(&Tree::new(Path::new("/")), label, sealed.esp.as_ref()) {
            Ok(done) => feed.note(done),
            Err(e) => feed.note(format!("the firmware's boot entry could not be set: {e}")),
        }
    }
    Ok(summary)
}

/// Wipes tables and signatures of exactly these disks and reads back. Not an erasure of data.
///
/// # Errors
/// The first fault; disks named before it are wiped.
pub fn clean(targets: &[DiskTarget], disks: &[Disk], dev: &Path, feed: &Feed) -> Result<Summary, Fault> {
    let chosen = targets.iter().map(|t| plan::find(t, disks)).collect::<Result<Vec<_>, _>>()?;
    feed.stage(Stage::Clean, 0, 0);
    let mut summary = Summary::default();
    for disk in chosen {
        feed.check_abort()?;
        let target = open(disk, &dev.join(&disk.name))?;
        let ranges = wipe::ranges(disk);
        target.discard(&(0..target.size()));
        for range in &ranges {
            target.zero(range)?;
            summary.bytes_zeroed += range.end - range.start;
        }
        target.flush()?;
        summary.bytes_verified += verify::zeros(&target, &ranges)?;
        if let Err(e) = target.reread_partitions() {
            eprintln!("billet: the kernel keeps its old view of {}: {e}", disk.name);
        }
        feed.note(format!("wiped tables and signatures of {}", plan::describe(disk)));
    }
    Ok(summary)
}

/// Opens the disk and checks that it is still the one that was planned with.
///
/// # Errors
/// Where it is not, or is in use, or write protected.
pub fn open(disk: &Disk, path: &Path) -> Result<Target, Fault> {
    let target = Target::open(path)?;
    if target.size() != disk.size_bytes || target.sector() != disk.logical_sector {
        return Err(Fault::new(
            FaultCode::DiskRefused,
            format!("{} changed its size since the plan", plan::describe(disk)),
            "inspect the node again",
        ));
    }
    if target.is_read_only() {
        return Err(Fault::new(
            FaultCode::DiskRefused,
            format!("{} is write protected", plan::describe(disk)),
            "lift the write protection of the drive",
        ));
    }
    Ok(target)
}

fn say(plan: &WritePlan, spec: &DeploySpec, feed: &Feed) {
    let untouched = if plan.untouched.is_empty() { "none".to_owned() } else { plan.untouched.join(", ") };
    feed.note(format!("{} goes to {}", spec.image_name, plan::describe(&plan.disk)));
    feed.note(format!("disks that are not touched: {untouched}"));
    for warning in &plan.warnings {
        feed.note(warning.clone());
    }
}
