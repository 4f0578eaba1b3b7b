//! What the machine itself shows: packets, boot requests, an OS that phones home.

use protocol::job::Task;
use protocol::{JobId, Sha256, Timestamp};

use super::boot::{Boot, Usual};
use super::event::{Effect, PrepareNews, Refused};
use super::state::{Fallback, Run, RunStage, State};
use super::step::Step;
use super::timeline::{Phase, Timeline};
use super::{Claim, Delivery, Installed, Netboot, Nonce, orders};
use crate::metadata::hostkey::{HostKey, KEYS_MAX};
use protocol::fault::{Fault, FaultCode};
use protocol::job::Job;

/// How often a machine may fall back to the start of one job before it is left to a person.
pub(super) const RESTARTS_MAX: u32 = 5;

/// Its firmware asks for an address: it was switched on or restarted.
pub(super) fn dhcp_seen(s: &mut Step<'_>, first_seen: Timestamp) {
    if matches!(s.node.state, State::Enroll) {
        if s.node.timeline.at(Phase::Dhcp) != Some(first_seen) {
            s.node.timeline = Timeline::start("discovery");
            s.node.timeline.mark(Phase::Dhcp, first_seen);
        }
        return;
    }
    let restarting = matches!(s.node.state.run().map(|r| r.stage), Some(RunStage::Restart));
    if restarting {
        s.mark(Phase::Restart);
        return;
    }
    // A machine that was restarted on its way starts its waterfall again from here.
    if s.node.state.run().is_some_and(|run| matches!(run.stage, RunStage::Boot | RunStage::Kernel))
        && s.node.timeline.at(Phase::Dhcp) != Some(first_seen)
    {
        s.node.timeline.rewind(Phase::Dhcp);
        s.node.timeline.mark(Phase::Dhcp, first_seen);
    }
}

/// It fetched a boot loader: that is how its firmware boots.
pub(super) fn loader_served(s: &mut Step<'_>, by: Netboot) {
    s.node.netboot = Some(by);
    mark_boot(s, Phase::Loader);
}

/// A step of the boot, if the node has work for which it boots.
pub(super) fn mark_boot(s: &mut Step<'_>, phase: Phase) {
    let discovery = matches!(s.node.state, State::Enroll);
    let loading = matches!(s.node.state.run().map(|r| r.stage), Some(RunStage::Boot | RunStage::Kernel));
    if discovery || loading {
        s.mark(phase);
    }
}

/// iPXE asked for its script: whatever ran on the machine before does not run any more.
pub(super) fn boot_requested(s: &mut Step<'_>, boot: &Boot, nonce: Sha256, claim: Claim) {
    s.drop_agent();
    orders::served(s, boot, nonce);
    match boot {
        Boot::LocalDisk => boot_local(s),
        Boot::Agent => boot_agent(s, nonce, claim),
        // No agent comes from this boot, whatever script was given out before.
        Boot::Kernel(_) | Boot::Iso(_) | Boot::Iscsi(_) => s.node.link.nonce = None,
    }
}

fn boot_agent(s: &mut Step<'_>, nonce: Sha256, made_for: Claim) {
    s.node.epoch = s.node.epoch.saturating_add(1);
    let (issued, epoch) = (s.now(), s.node.epoch);
    s.node.link.nonce = Some(Nonce { sha256: nonce, issued, epoch, by: Delivery::Network, made_for });
    if matches!(s.node.state, State::Enroll) {
        "discovery".clone_into(&mut s.node.timeline.title);
        s.node.timeline.rewind(Phase::Script);
        s.info("node.discovered", "an unknown machine booted from the network");
        let job = Job { id: s.context.fresh_job, task: Task::Inspect };
        let run = s.new_run(job, Fallback::Enroll);
        s.effects.clear();
        s.node.state = State::Inspecting(run);
    }
    let now = s.now();
    let waits = |stage| matches!(stage, RunStage::Volume | RunStage::Cross);
    let Some(run) = s.node.state.run_mut().filter(|run| !waits(run.stage)) else { return };
    if matches!(run.stage, RunStage::Agent(_)) {
        run.restarts = run.restarts.saturating_add(1);
        let (restarts, verb) = (run.restarts, run.job.task.verb());
        if restarts > RESTARTS_MAX {
            return s.fail(Fault::new(
                FaultCode::Agent,
                format!("the machine restarted {restarts} times during {verb}"),
                "look at its console and power supply, then retry",
            ));
        }
        s.warn(
            "machine.restarted",
            format!("the machine restarted during {verb}: the job goes on from what is on the disk"),
        );
        s.node.timeline.rewind(Phase::Script);
    }
    if let Some(run) = s.node.state.run_mut() {
        // The agent that numbered the reports is gone; the next one starts again from 1.
        run.acked = 0;
        run.progress = None;
        run.enter(RunStage::Kernel, now);
    }
    s.mark(Phase::Script);
}

/// The disk of a machine that boots from a volume is ready, or its switch is; or that cannot be.
pub(super) fn prepared(s: &mut Step<'_>, job: JobId, news: PrepareNews) -> Result<(), Refused> {
    let now = s.now();
    let awaits = |run: &Run| match run.stage {
        // What is not written is not started.
        RunStage::Volume if news == PrepareNews::Ready => run.fills().is_none(),
        RunStage::Volume => news != PrepareNews::Clear,
        RunStage::Cross => {
            matches!(news, PrepareNews::Ready | PrepareNews::Clear | PrepareNews::Failed { .. })
        }
        RunStage::Restart => run.boots_volume() && news == PrepareNews::Off,
        _ => false,
    };
    let run = s.node.state.run_mut().filter(|run| run.job.id == job && awaits(run));
    let Some(run) = run else { return Err(Refused::StaleJob { job }) };
    match news {
        PrepareNews::Ready if run.stage == RunStage::Cross => {
            run.enter(RunStage::FirstBoot, now);
            s.info("network.crossed", "it is on its own networks: it is switched on");
            s.mark(Phase::LocalBoot);
            s.drop_agent();
            s.effects.push(Effect::PowerCycle);
        }
        PrepareNews::Clear => {
            run.enter(RunStage::Restart, now);
            s.info("network.clear", "its switch is ready: it restarts, and goes over to its networks then");
            s.effects.push(Effect::WakeAgent);
        }
        PrepareNews::Off => {
            run.on_volume.off = true;
            if run.stage == RunStage::Restart {
                run.enter(RunStage::Volume, now);
                s.info("machine.off", "the machine is off: it goes over to its own networks");
                s.mark(Phase::Restart);
                s.drop_agent();
            }
        }
        PrepareNews::Written => {
            run.on_volume.written = true;
            run.deadline = now.after(run.stage.patience());
            s.info("volume.written", "the image is on its volume and was read back");
            s.mark(Phase::Written);
        }
        PrepareNews::Ready if run.wants_agent() => {
            run.on_volume.off = false;
            run.enter(RunStage::Boot, now);
            s.info("volume.ready", "its DPU has its empty disk ready: it is switched on for the agent");
            s.drop_agent();
            s.effects.push(Effect::PowerCycle);
        }
        PrepareNews::Ready => {
            run.on_volume.off = false;
            run.enter(RunStage::FirstBoot, now);
            s.info("volume.ready", "its DPU has its disk and its networks ready: it is switched on");
            s.mark(Phase::LocalBoot);
            // What ran on the machine until now does not run any more.
            s.drop_agent();
            s.effects.push(Effect::PowerCycle);
        }
        PrepareNews::Failed { fault } => s.fail(fault),
    }
    Ok(())
}

fn boot_local(s: &mut Step<'_>) {
    let now = s.now();
    if let Some(run) = s.node.state.run_mut()
        && run.stage == RunStage::Restart
    {
        if run.boots_volume() {
            // It was not switched off; its own networks come first all the same.
            run.enter(RunStage::Volume, now);
            return s.mark(Phase::Restart);
        }
        run.enter(RunStage::FirstBoot, now);
        let silent = run.phone_home.is_none();
        s.mark(Phase::Restart);
        s.mark(Phase::LocalBoot);
        if silent {
            runs(s, Vec::new(), "was started; it does not phone home");
        }
    }
}

/// The new OS runs and has its network.
pub(super) fn phone_home(
    s: &mut Step<'_>,
    token: Sha256,
    mut host_keys: Vec<HostKey>,
) -> Result<(), Refused> {
    host_keys.truncate(KEYS_MAX);
    if orders::is_installer(s, token) {
        orders::installed(s);
        return Ok(());
    }
    let State::Deploying(run) = &s.node.state else {
        return late_phone_home(s, token, host_keys);
    };
    if run.phone_home != Some(token) || !matches!(run.stage, RunStage::Restart | RunStage::FirstBoot) {
        return Err(Refused::StalePhoneHome);
    }
    if !runs(s, host_keys, "runs and phoned home") {
        return Err(Refused::StalePhoneHome);
    }
    Ok(())
}

/// The deploy is done: its OS runs. False where there is none.
pub(super) fn runs(s: &mut Step<'_>, host_keys: Vec<HostKey>, how: &str) -> bool {
    let State::Deploying(run) = &s.node.state else { return false };
    let Task::Deploy(spec) = &run.job.task else { return false };
    let installed = Installed {
        image: spec.image,
        image_name: spec.image_name.clone(),
        hostname: run.hostname.clone().unwrap_or_default(),
        disk: spec.target.id.clone(),
        since: s.now(),
        phone_home: run.phone_home,
        host_keys,
    };
    s.info("deploy.finished", format!("{} {how}", installed.image_name));
    s.node.installed = Some(installed);
    s.drop_agent();
    s.mark(Phase::Done);
    s.node.state = State::Active;
    true
}

/// A deploy that was given up only because the OS was slow is not lost: it becomes active when it does come up.
fn late_phone_home(s: &mut Step<'_>, token: Sha256, host_keys: Vec<HostKey>) -> Result<(), Refused> {
    let State::Failed(failure) = &s.node.state else { return Err(Refused::StalePhoneHome) };
    let Some(run) =
        failure.run.as_deref().filter(|r| failure.boot == Usual::LocalDisk && r.phone_home == Some(token))
    else {
        return Err(Refused::StalePhoneHome);
    };
    s.node.state = State::Deploying(run.clone());
    phone_home(s, token, host_keys)
}
