//! What people ask for.

use std::collections::BTreeSet;

use protocol::MacAddr;
use protocol::fault::{Fault, FaultCode};
use protocol::job::{DiskTarget, Job, Task};

use super::boot::{Repeat, Usual};
use super::event::{Cleaning, DeployOrder, Effect, Refused, Verb};
use super::service::Service;
use super::state::{Fallback, OnVolume, Run, RunStage, State, StateName};
use super::step::Step;
use super::timeline::Phase;
use super::{Cable, Node, StaticNetwork, care, erase, orders, service, trust};
use crate::names::{PoolName, Tag};
use crate::plural::count;

pub(super) fn verb(s: &mut Step<'_>, verb: Verb) -> Result<(), Refused> {
    let busy = !matches!(
        verb,
        Verb::Maintenance { .. }
            | Verb::Rename { .. }
            | Verb::Place { .. }
            | Verb::Pool { .. }
            | Verb::Tags { .. }
            | Verb::Cable { .. }
            | Verb::Network { .. }
            | Verb::Abort
            | Verb::Boot { .. }
            | Verb::ClearBoot
            | Verb::Service(_)
            | Verb::Accept { .. }
            | Verb::Model { .. }
            | Verb::Retire { .. }
            | Verb::Papers { .. }
            | Verb::ApproveBoot { .. }
            | Verb::PinTpm { .. }
    );
    // Firmware and settings are what maintenance is for.
    let busy = busy && !(matches!(verb, Verb::Retry) && failed_service(&s.node).is_some());
    if let (true, Some(maintenance)) = (busy, &s.node.maintenance) {
        return Err(Refused::Maintenance { reason: maintenance.reason.clone() });
    }
    match verb {
        Verb::Manage => manage(s),
        Verb::Inspect => inspect(s),
        Verb::Provide { wipe, how } => provide(s, wipe, how),
        Verb::Deploy(order) => deploy(s, *order),
        Verb::Rebuild(order) => rebuild(s, *order),
        Verb::Delete { wipe, how } => delete(s, wipe, how),
        Verb::Service(order) => service::order(s, *order),
        Verb::Abort => abort(s),
        Verb::Retry => retry(s),
        Verb::Boot { boot, repeat } => orders::order(s, *boot, repeat),
        Verb::ClearBoot => orders::clear(s),
        Verb::ApproveBoot { boot, by } => trust::approve(s, boot, by),
        Verb::PinTpm { ek, by } => trust::pin(s, ek, by),
        Verb::Maintenance { reason, until, by } => {
            care::maintenance(s, reason, until, by);
            Ok(())
        }
        Verb::Accept { reason, by } => care::accept(s, reason, by),
        Verb::Model { model } => {
            care::assign(s, model);
            Ok(())
        }
        Verb::Retire { reason, by } => care::retire(s, reason, by),
        Verb::Adopt => care::adopt(s),
        Verb::Papers { papers } => {
            care::papers(s, papers);
            Ok(())
        }
        Verb::Place { place } => {
            if place != s.node.place {
                let words = match &place {
                    Some(place) => format!("stands in {place}"),
                    None => "where it stands is not known any more".to_owned(),
                };
                s.info("node.placed", words);
                s.node.place = place;
            }
            Ok(())
        }
        Verb::Pool { pool } => {
            set_pool(s, pool);
            Ok(())
        }
        Verb::Tags { tags } => {
            set_tags(s, tags);
            Ok(())
        }
        Verb::Cable { nic, cable } => {
            set_cable(s, nic, cable);
            Ok(())
        }
        Verb::Network { network } => {
            set_network(s, network.map(|network| *network));
            Ok(())
        }
        Verb::Rename { name } => {
            s.info("node.renamed", format!("renamed from {} to {name}", s.node.name));
            s.node.name = name;
            Ok(())
        }
    }
}

/// Whether this node may be forgotten: not while an OS may run on it or be installed, nor while a job is on its way.
///
/// # Errors
/// [`Refused::WrongState`] or [`Refused::Order`], with what to do first.
pub fn check_forget(node: &Node) -> Result<(), Refused> {
    // It would come back as a machine that nobody ever had. One that leaves the site may be forgotten.
    if let (Some(dirty), None) = (&node.dirty, &node.retired) {
        return Err(Refused::Dirty { why: format!("{}; retire it before it is forgotten", dirty.why) });
    }
    let wrong = |hint| Err(Refused::WrongState { verb: "forget", state: node.state.name(), hint });
    match &node.state {
        State::Active => return wrong("somebody's OS runs on it: give it back (delete) first"),
        State::Failed(failure) if failure.boot == Usual::LocalDisk => {
            return wrong("an OS may run from its disk: give it back (delete) first");
        }
        state if state.is_busy() => {
            return wrong("a job is on its way: wait for its end, or abort it");
        }
        _ => {}
    }
    match &node.boot {
        Some(order) if order.installs() => Err(Refused::Order {
            why: "an installer was started on it and has not phoned home",
            hint: "wait until it is done; where it never will be, clear the order, then forget the node",
        }),
        Some(order) if order.repeat == Repeat::Always => Err(Refused::Order {
            why: "it is ordered to boot something every time, which may run on it",
            hint: "clear the order, then forget the node",
        }),
        _ => Ok(()),
    }
}

/// The servicing job that failed, if that is why the node stopped.
fn failed_service(node: &Node) -> Option<&Service> {
    match &node.state {
        State::Failed(failure) => failure.service.as_deref(),
        _ => None,
    }
}

fn manage(s: &mut Step<'_>) -> Result<(), Refused> {
    if !s.is(&[StateName::Enroll, StateName::Available, StateName::Failed]) {
        return Err(s.wrong_state("manage", "only a node in enroll, available or failed can be managed"));
    }
    s.info("node.manageable", "taken out of the offer");
    s.node.state = State::Manageable;
    Ok(())
}

fn inspect(s: &mut Step<'_>) -> Result<(), Refused> {
    let fallback = match s.node.state.name() {
        StateName::Enroll => Fallback::Enroll,
        StateName::Manageable => Fallback::Manageable,
        StateName::Available => Fallback::Available,
        _ => return Err(s.wrong_state("inspect", "manage it first; inspection needs the machine for itself")),
    };
    s.start_timeline("inspect".to_owned());
    let job = Job { id: s.context.fresh_job, task: Task::Inspect };
    let run = s.new_run(job, fallback);
    s.info("inspect.requested", "inspection requested");
    s.node.state = State::Inspecting(run);
    Ok(())
}

fn provide(s: &mut Step<'_>, wipe: Vec<DiskTarget>, how: Cleaning) -> Result<(), Refused> {
    if !s.is(&[StateName::Manageable, StateName::Failed]) {
        return Err(s.wrong_state("provide", "only a manageable or failed node can be made available"));
    }
    // A machine on its way out may be wiped; it is not offered after that.
    if wipe.is_empty() || s.node.quarantine.is_some() {
        care::check(s)?;
    }
    if wipe.is_empty() {
        erase::check(s)?;
    }
    clean(s, wipe, how, Fallback::Manageable);
    Ok(())
}

/// Starts cleaning, or, with nothing to wipe, offers the node at once.
fn clean(s: &mut Step<'_>, wipe: Vec<DiskTarget>, how: Cleaning, fallback: Fallback) {
    if wipe.is_empty() {
        s.info("node.available", "available; no disk was wiped");
        s.node.state = State::Available;
        return;
    }
    s.start_timeline(format!("clean {}", count(wipe.len(), "disk")));
    let erase = erase::order(s, how);
    let what = if erase.is_some() { "erase" } else { "wipe" };
    s.info("clean.requested", format!("{what} of {}", names(&wipe)));
    let job = Job { id: s.context.fresh_job, task: Task::Clean { disks: wipe, erase } };
    let run = s.new_run(job, fallback);
    s.node.state = State::Cleaning(run);
}

fn names(disks: &[DiskTarget]) -> String {
    disks.iter().map(|d| d.id.to_string()).collect::<Vec<_>>().join(", ")
}

fn deploy(s: &mut Step<'_>, order: DeployOrder) -> Result<(), Refused> {
    let fallback = match &s.node.state {
        State::Available => Fallback::Available,
        // A failed deploy may be followed by another one; the disk was named again by whoever asked.
        State::Failed(failure) if failure.during == StateName::Deploying => Fallback::Manageable,
        State::Active => {
            return Err(s.wrong_state("deploy", "it runs an OS: use rebuild, or delete it first"));
        }
        _ => return Err(s.wrong_state("deploy", "make it available first (provide)")),
    };
    care::check(s)?;
    put_os(s, order, fallback, "deploy");
    Ok(())
}

fn rebuild(s: &mut Step<'_>, order: DeployOrder) -> Result<(), Refused> {
    if !s.is(&[StateName::Active]) {
        return Err(s.wrong_state("rebuild", "only an active node can be rebuilt; use deploy"));
    }
    put_os(s, order, Fallback::Active, "rebuild");
    Ok(())
}

fn put_os(s: &mut Step<'_>, order: DeployOrder, fallback: Fallback, verb: &str) {
    s.start_timeline(format!("{verb} {}", order.spec.image_name));
    s.info(
        &format!("{verb}.requested"),
        format!("{verb} of {} to disk {} as {}", order.spec.image_name, order.spec.target.id, order.hostname),
    );
    let job = Job { id: s.context.fresh_job, task: Task::Deploy(Box::new(order.spec)) };
    let mut run = s.new_run(job, fallback);
    run.phone_home = order.phone_home;
    run.resumed = order.resumed;
    run.on_volume.imaging = order.imaging;
    // Networks of a machine that boots from a volume end on its DPU.
    run.crosses = order.crosses && !run.boots_volume();
    run.hostname = Some(order.hostname);
    s.node.state = State::Deploying(run);
}

fn delete(s: &mut Step<'_>, wipe: Vec<DiskTarget>, how: Cleaning) -> Result<(), Refused> {
    let active = s.is(&[StateName::Active]);
    let failed_deploy = matches!(&s.node.state, State::Failed(f) if matches!(f.during, StateName::Deploying | StateName::Deleting | StateName::Cleaning));
    let serviced = failed_service(&s.node).is_some_and(|service| service.back == Fallback::Active);
    if !active && !failed_deploy && !serviced {
        return Err(
            s.wrong_state("delete", "only an active node, or one whose deploy failed, can be given back")
        );
    }
    if wipe.is_empty() && boots_volume(&s.node) {
        // Its disk was never the machine's: whoever asks takes it away with the DPU, and nothing is left on the machine.
        s.info("node.available", "given back; its disks were volumes, and none of its own was wiped");
        s.node.installed = None;
        if how == Cleaning::Owed {
            erase::owe(s);
        }
        let kept = s.node.retired.is_some() || s.node.dirty.is_some();
        s.node.state = if kept { State::Manageable } else { State::Available };
        return Ok(());
    }
    if wipe.is_empty() {
        return Err(s.wrong_state("delete without a disk to wipe", "name the disk that holds the OS"));
    }
    let erase = erase::order(s, how);
    let what = if erase.is_some() { "erase" } else { "wipe" };
    s.start_timeline(format!("delete, {what} {}", count(wipe.len(), "disk")));
    s.info("delete.requested", format!("given back; {what} of {}", names(&wipe)));
    let job = Job { id: s.context.fresh_job, task: Task::Clean { disks: wipe, erase } };
    let fallback = if active || serviced { Fallback::Active } else { Fallback::Manageable };
    let run = s.new_run(job, fallback);
    s.node.state = if run.stage == RunStage::Boot { State::Deleting(run) } else { State::Cleaning(run) };
    Ok(())
}

/// True where the OS on it, or the one that was being put on it, is on a volume.
fn boots_volume(node: &Node) -> bool {
    !node.os_disks().is_empty() && node.os_disks().iter().all(|disk| disk.volume().is_some())
}

fn abort(s: &mut Step<'_>) -> Result<(), Refused> {
    if s.node.state.service().is_some() {
        service::abort(s);
        return Ok(());
    }
    if let Some(back) = failed_service(&s.node).map(|service| service.back) {
        s.info("job.aborted", "the servicing that failed is given up; what the BMC took stays as it is");
        s.node.state = back.state();
        return Ok(());
    }
    let Some(run) = s.node.state.run_mut() else {
        return Err(s.wrong_state("abort", "nothing is running on it"));
    };
    match run.stage {
        _ if run.is_untouched() && !run.swaps_disks() => {
            let back = run.fallback;
            s.info("job.aborted", "called off before anything was changed");
            s.mark(Phase::Done);
            s.node.state = back.state();
        }
        RunStage::Agent(_) => {
            run.abort = true;
            s.info("job.abort_requested", "stop at the next safe point requested");
            s.effects.push(Effect::WakeAgent);
        }
        _ => s.fail(Fault::new(
            FaultCode::Aborted,
            "stopped by an operator",
            "deploy again, retry, or make it available again; the disk may be incomplete and then does not boot",
        )),
    }
    Ok(())
}

fn retry(s: &mut Step<'_>) -> Result<(), Refused> {
    let State::Failed(failure) = &s.node.state else {
        return Err(s.wrong_state("retry", "only a failed node can be retried"));
    };
    if let Some(old) = failure.service.clone() {
        service::retry(s, &old);
        return Ok(());
    }
    let (during, Some(old)) = (failure.during, failure.run.clone()) else {
        return Err(s.wrong_state("retry", "no job is left to repeat: manage or deploy it"));
    };
    s.start_timeline(format!("retry of {}", old.job.task.verb()));
    s.info("job.retry", format!("{} again", old.job.task.verb()));
    let mut run: Run = s.new_run(Job { id: s.context.fresh_job, task: old.job.task.clone() }, old.fallback);
    if !old.is_untouched() {
        // It may have been half-way: calling it off is no longer "nothing was changed".
        run.restarts = 1;
    }
    run.phone_home = old.phone_home;
    run.resumed = old.resumed;
    run.on_volume = OnVolume { off: false, ..old.on_volume };
    run.crosses = old.crosses;
    run.hostname = old.hostname;
    s.node.state = match during {
        StateName::Inspecting => State::Inspecting(run),
        StateName::Cleaning | StateName::Deleting => State::Cleaning(run),
        _ => State::Deploying(run),
    };
    Ok(())
}

fn set_pool(s: &mut Step<'_>, pool: PoolName) {
    let before = s.node.pool();
    if before != pool {
        s.info("node.pool", format!("moved from pool {before} to pool {pool}"));
        s.node.pool = Some(pool).filter(|pool| *pool != PoolName::default_pool());
    }
}

fn set_tags(s: &mut Step<'_>, tags: BTreeSet<Tag>) {
    let words =
        |sign: char, tags: Vec<&Tag>| tags.iter().map(|tag| format!("{sign}{tag}")).collect::<Vec<_>>();
    let mut changes = words('+', tags.difference(&s.node.tags).collect());
    changes.extend(words('-', s.node.tags.difference(&tags).collect()));
    if !changes.is_empty() {
        s.info("node.tags", format!("tags: {}", changes.join(" ")));
        s.node.tags = tags;
    }
}

/// Where a NIC's cable ends; nothing changes where that was said before.
fn set_cable(s: &mut Step<'_>, nic: MacAddr, cable: Option<Cable>) {
    if s.node.cables.get(&nic) == cable.as_ref() {
        return;
    }
    match cable {
        Some(cable) => {
            s.info("cable.set", format!("{nic} is at {cable}"));
            s.node.cables.insert(nic, cable);
        }
        None => {
            s.info("cable.cleared", format!("where {nic} is is left to LLDP"));
            s.node.cables.remove(&nic);
        }
    }
}

fn set_network(s: &mut Step<'_>, network: Option<StaticNetwork>) {
    match &network {
        Some(network) => s.info("network.set", format!("gets {network}, and no address by DHCP")),
        None => s.info("network.cleared", "gets its address by DHCP"),
    }
    s.node.network = network;
}
