//! Erasing between tenants, as far as a node knows of it: what it owes, and which disks were done.
//!
//! ```text
//! given back ─▶ owes it (dirty) ─▶ job ─ a record per disk ─▶ every disk erased ─▶ clean, available
//!                     ▲             │ cut: the job goes on with the disks that are left
//!                     └── failed ◀──┘ a disk was not erased, or there is no record of it
//! ```

use protocol::erase::{EraseOrder, EraseRecord, EraseResult, Grade, MachineRecord};
use protocol::fault::{Fault, FaultCode};
use protocol::inventory::Transport;
use protocol::job::Task;

use super::Dirty;
use super::event::{Cleaning, Erased, Refused};
use super::state::Run;
use super::step::Step;

/// What the agent is told of how to clean. A machine that owes an erase gets one, whatever was asked for.
pub(super) fn order(s: &mut Step<'_>, how: Cleaning) -> Option<EraseOrder> {
    if matches!(how, Cleaning::Between | Cleaning::Owed) {
        owe(s);
    }
    let whole = s.node.dirty.is_some();
    (whole || how == Cleaning::Erase).then(|| EraseOrder { whole, done: Vec::new() })
}

/// From now on it owes an erase.
pub(super) fn owe(s: &mut Step<'_>) {
    let since = s.now();
    s.node.dirty.get_or_insert_with(|| Dirty {
        since,
        why: "its disks are to be erased before somebody else gets it".to_owned(),
    });
}

/// Whether it may be offered as it is.
pub(super) fn check(s: &Step<'_>) -> Result<(), Refused> {
    match &s.node.dirty {
        Some(dirty) => Err(Refused::Dirty { why: dirty.why.clone() }),
        None => Ok(()),
    }
}

/// What became of one disk. What the agent claims counts as far as the record bears it out.
pub(super) fn disk(s: &mut Step<'_>, mut record: EraseRecord) {
    let Some(run) = s.node.state.run_mut() else { return };
    let Task::Clean { disks, erase: Some(_) } = &run.job.task else { return };
    let target = disks.iter().find(|target| Some(&target.id) == record.disk.as_ref());
    let method = record.method.map_or(Grade::None, |method| method.highest_grade());
    let medium = if record.transport == Transport::Virtio { Grade::Clear } else { Grade::Purge };
    record.grade = record.grade.min(method).min(medium);
    if record.result == EraseResult::Erased {
        let borne_out = target.is_some_and(|target| target.size_bytes == record.size_bytes)
            && record.grade > Grade::None
            && record.sampled.is_some_and(|s| s.random > 0 && s.start > 0 && s.end > 0 && s.sentinels > 0);
        if !borne_out {
            record.result =
                EraseResult::Failed { why: "its record does not bear out that it was erased".to_owned() };
        }
    }
    if record.result != EraseResult::Erased {
        record.grade = Grade::None;
    }
    let job = run.job.id;
    if record.result == EraseResult::Erased
        && let Some(id) = record.disk.clone()
        && !run.erased.contains(&id)
    {
        run.erased.push(id);
    }
    say(s, &record);
    s.records.push(Erased { job, record });
}

fn say(s: &mut Step<'_>, record: &EraseRecord) {
    let disk = record.disk.as_ref().map_or_else(|| record.name.clone(), ToString::to_string);
    match &record.result {
        EraseResult::Erased => {
            let method = record.method.map_or("", |method| method.as_str());
            let mut message = format!("{disk} erased by {method} and read back: {}", record.grade);
            for not in &record.not_used {
                message.push_str(&format!("; not by {}: {}", not.method, not.why));
            }
            s.info("disk.erased", message);
        }
        EraseResult::Failed { why } => s.warn("disk.not_erased", format!("{disk} was not erased: {why}")),
        EraseResult::Skipped { why } => s.warn("disk.skipped", format!("{disk} was not touched: {why}")),
    }
}

/// What became of the rest of the machine.
pub(super) fn machine(s: &mut Step<'_>, record: &MachineRecord) {
    if let Some(tpm) = &record.tpm {
        s.info("clean.tpm", tpm.clone());
    }
    if !record.boot_entries_removed.is_empty() {
        s.info("clean.boot_entries", format!("removed: {}", record.boot_entries_removed.join(", ")));
    }
    for warning in &record.warnings {
        s.warn("clean.warning", warning.clone());
    }
}

/// Why a job that says it is finished is not: an older agent wipes lightly and sends no records.
pub(super) fn missing(run: &Run) -> Option<Fault> {
    let Task::Clean { disks, erase: Some(_) } = &run.job.task else { return None };
    let missing: Vec<String> =
        disks.iter().filter(|disk| !run.erased.contains(&disk.id)).map(|disk| disk.id.to_string()).collect();
    (!missing.is_empty()).then(|| {
        Fault::new(
            FaultCode::Erase,
            format!("the agent finished without a record that it erased {}", missing.join(", ")),
            "serve the ramdisk that belongs to this server, then retry",
        )
    })
}

/// All was done.
pub(super) fn finished(s: &mut Step<'_>, run: &Run) {
    match &run.job.task {
        Task::Clean { erase: Some(order), .. } => {
            if order.whole {
                s.node.dirty = None;
            }
            s.info("clean.finished", "erased and read back");
        }
        _ => s.info("clean.finished", "wiped and read back"),
    }
}

#[cfg(test)]
#[path = "erase_tests.rs"]
mod tests;
