//! What the agent says.

use std::time::Duration;

use protocol::agent::{Hello, Work};
use protocol::fault::Fault;
use protocol::job::Task;
use protocol::report::{ReportBatch, ReportBody, Stage, Summary};
use protocol::{JobId, MacAddr, PROTOCOL_VERSION, Sha256, Timestamp};

use super::boot::{Boot, pending_order};
use super::event::{Effect, Refused};
use super::identity::Claim;
use super::state::{Fallback, Run, RunStage, State, StateName};
use super::step::Step;
use super::timeline::Phase;
use super::{Delivery, Node, Session, care, erase, trust};
use crate::expected::Compared;

/// How long a nonce is good for (DESIGN section 6).
pub const NONCE_LIFETIME: Duration = Duration::from_mins(10);
/// How long an agent that got no answer to its hello may say it again.
const HELLO_AGAIN: Duration = Duration::from_mins(2);

impl Node {
    /// What the agent is to do now.
    pub fn work(&self) -> Work {
        match &self.state {
            State::Inspecting(run) | State::Cleaning(run) | State::Deploying(run) => match run.stage {
                RunStage::Assign | RunStage::Agent(_) if self.lacks.is_some() => Work::Wait,
                RunStage::Assign | RunStage::Agent(_) => Work::Job { job: Box::new(run.agent_job()) },
                // Its own networks are plugged while it is off.
                RunStage::Restart if run.boots_volume() => Work::PowerOff,
                RunStage::Restart | RunStage::FirstBoot => Work::Reboot,
                RunStage::Volume | RunStage::Boot | RunStage::Kernel | RunStage::Cross => Work::Wait,
            },
            State::Manageable | State::Available if self.leaves_agent() => Work::Reboot,
            // An agent that still runs where the disk should: the machine is on its way there.
            State::Active => Work::Reboot,
            State::Enroll
            | State::Manageable
            | State::Available
            | State::Deleting(_)
            | State::Servicing(_)
            | State::Failed(_) => Work::Wait,
        }
    }

    /// True where the machine is to boot something else than the agent that waits on it.
    fn leaves_agent(&self) -> bool {
        pending_order(self).is_some_and(|order| order.boot != Boot::Agent)
    }

    /// True where `token` hashes to the session of this boot. Hashes are compared, so the time says nothing.
    pub fn has_session(&self, token: Sha256) -> bool {
        self.link.session.as_ref().is_some_and(|s| s.sha256 == token)
    }
}

pub(super) fn hello(s: &mut Step<'_>, hello: &Hello, nonce: Sha256, session: Sha256) -> Result<(), Refused> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(Refused::Protocol { theirs: hello.protocol, ours: PROTOCOL_VERSION });
    }
    let says = Claim { uuid: hello.uuid, serial: hello.serial.clone(), macs: hello.macs.clone() };
    let (since, delivered, made_for) = check_nonce(s, nonce, &says)?;
    s.node.link.nonce = None;
    s.node.link.session = Some(Session {
        sha256: session,
        since,
        agent_version: hello.agent_version.clone(),
        nonce: Some(nonce),
        used: false,
        delivered,
        made_for,
        approved: None,
        tpm: None,
    });
    s.node.identity.learn(&says);
    s.mark(Phase::Agent);
    s.info(
        "agent.hello",
        format!(
            "agent {} on kernel {}, {} s after kernel start",
            hello.agent_version,
            hello.kernel,
            hello.uptime_ms / 1000
        ),
    );
    let now = s.now();
    // An inspection that was given up changes nothing on the machine: it goes on when the agent comes up after all.
    if let State::Failed(failure) = &s.node.state
        && let Some(run) = failure.run.as_deref().filter(|_| failure.during == StateName::Inspecting)
    {
        let mut run = run.clone();
        run.acked = 0;
        run.enter(RunStage::Kernel, now);
        s.node.state = State::Inspecting(run);
        s.info("inspect.resumed", "the agent came up: the inspection goes on");
    }
    if let State::Deleting(run) = &s.node.state {
        s.node.state = State::Cleaning(run.clone());
    }
    if let Some(run) = s.node.state.run_mut()
        && matches!(run.stage, RunStage::Boot | RunStage::Kernel)
    {
        run.enter(RunStage::Assign, now);
    }
    Ok(())
}

/// Returns since when the session of this nonce runs, how the nonce came, and for which machine it was made. An agent whose welcome was lost (the server was restarted, a
/// packet did not arrive) says hello again: that is the same session as long as nothing was done with it.
fn check_nonce(s: &Step<'_>, nonce: Sha256, says: &Claim) -> Result<(Timestamp, Delivery, Claim), Refused> {
    let same = |made_for: &Claim| match trust::is_same_machine(made_for, says) {
        true => Ok(made_for.clone()),
        false => Err(Refused::Nonce { why: "another machine's" }),
    };
    if let Some(issued) = &s.node.link.nonce {
        if issued.sha256 != nonce {
            return Err(Refused::Nonce { why: "not the one of this node's newest boot" });
        }
        if issued.epoch != s.node.epoch || s.now().since(issued.issued) > NONCE_LIFETIME {
            return Err(Refused::Nonce { why: "too old: restart the machine" });
        }
        return Ok((s.now(), issued.by, same(&issued.made_for)?));
    }
    match &s.node.link.session {
        Some(session) if session.nonce == Some(nonce) && !session.used => {
            if s.now().since(session.since) > HELLO_AGAIN {
                return Err(Refused::Nonce { why: "too old: restart the machine" });
            }
            Ok((session.since, session.delivered, same(&session.made_for)?))
        }
        _ => Err(Refused::Nonce { why: "used already or never given" }),
    }
}

/// An agent whose machine was restarted since has nothing to say any more.
fn session(s: &mut Step<'_>) -> Result<(), Refused> {
    s.node.link.session.as_mut().ok_or(Refused::NoSession)?.used = true;
    Ok(())
}

/// A new inventory ends an inspection; whether the node is then offered by itself depends on what its disks hold.
pub(super) fn inventory(
    s: &mut Step<'_>,
    disks_blank: bool,
    macs: Vec<MacAddr>,
    compared: Option<Compared>,
) -> Result<(), Refused> {
    session(s)?;
    s.node.identity.learn(&Claim { uuid: None, serial: None, macs });
    care::compared(s, compared);
    inspected(s, disks_blank);
    Ok(())
}

fn inspected(s: &mut Step<'_>, disks_blank: bool) {
    let State::Inspecting(run) = &s.node.state else { return };
    let fallback = run.fallback;
    s.mark(Phase::Done);
    s.info("inspect.finished", "inspected");
    // Edges that are blank say nothing of what is between them.
    let blank = disks_blank && s.context.policy.provide_blank && s.node.dirty.is_none();
    if s.node.retired.is_some() {
        s.info("node.manageable", "it is retired, and is not offered");
        s.node.state = State::Manageable;
    } else if fallback == Fallback::Available {
        // It was offered as it is before; looking at it does not change that.
        s.node.state = State::Available;
    } else if let Some(quarantine) = s.node.quarantine.as_mut().filter(|_| blank) {
        quarantine.offer = true;
        s.info(
            "node.manageable",
            "all disks are blank, but it is not offered before it is as its model says",
        );
        s.node.state = State::Manageable;
    } else if blank && s.node.maintenance.is_none() {
        s.info("node.available", "available: all disks are blank, nothing had to be cleaned");
        s.node.state = State::Available;
    } else {
        s.info("node.manageable", "its disks hold data: make it available when that may be wiped");
        s.node.state = State::Manageable;
    }
}

pub(super) fn work_taken(s: &mut Step<'_>, job: JobId) -> Result<(), Refused> {
    let now = s.now();
    session(s)?;
    let task = current(s, job)?.job.task.clone();
    trust::check(s, &task)?;
    let run = current(s, job)?;
    if run.stage == RunStage::Assign {
        let first = first_stage(&run.job.task);
        run.enter(RunStage::Agent(first), now);
        s.mark(Phase::Plan);
    }
    Ok(())
}

fn first_stage(task: &Task) -> Stage {
    match task {
        Task::Inspect => Stage::Inspect,
        Task::Clean { erase: None, .. } => Stage::Clean,
        Task::Clean { erase: Some(_), .. } => Stage::Erase,
        Task::Deploy(_) => Stage::Plan,
    }
}

fn current<'a>(s: &'a mut Step<'_>, job: JobId) -> Result<&'a mut Run, Refused> {
    s.node.state.run_mut().filter(|run| run.job.id == job).ok_or(Refused::StaleJob { job })
}

/// Takes in the reports that follow the highest one known; repeated ones change nothing.
pub(super) fn report(s: &mut Step<'_>, batch: &ReportBatch) -> Result<(), Refused> {
    session(s)?;
    current(s, batch.job)?;
    for report in &batch.reports {
        let now = s.now();
        let Ok(run) = current(s, batch.job) else { break };
        if report.seq <= run.acked {
            continue;
        }
        run.acked = report.seq;
        if matches!(run.stage, RunStage::Agent(_)) {
            run.deadline = now.after(run.stage.patience());
        }
        match &report.body {
            ReportBody::Stage { stage } => stage_began(s, *stage),
            // A stage that counts nothing (wiping) only says that it goes on.
            ReportBody::Progress(progress) => run.progress = Some(*progress).filter(|p| p.bytes_total > 0),
            ReportBody::Note { message } => s.info("agent.note", message.clone()),
            ReportBody::Disk { record } => erase::disk(s, (**record).clone()),
            ReportBody::Machine { record } => erase::machine(s, record),
            ReportBody::Finished { summary } => finished(s, *summary),
            ReportBody::Failed { fault } => failed(s, fault.clone()),
        }
    }
    Ok(())
}

/// A job that failed while it was planned has changed nothing: reports arrive in order, so no write had begun.
fn failed(s: &mut Step<'_>, fault: Fault) {
    if let Some(run) = s.node.state.run_mut()
        && run.stage == RunStage::Agent(Stage::Plan)
        && run.restarts == 0
    {
        run.stage = RunStage::Assign;
    }
    s.fail(fault);
}

fn stage_began(s: &mut Step<'_>, stage: Stage) {
    let now = s.now();
    if let Some(run) = s.node.state.run_mut()
        && matches!(run.stage, RunStage::Assign | RunStage::Agent(_))
    {
        run.progress = None;
        run.enter(RunStage::Agent(stage), now);
    }
    let phase = match stage {
        Stage::Inspect | Stage::Plan => Phase::Plan,
        Stage::Clean | Stage::Erase => Phase::Clean,
        Stage::Write => Phase::Write,
        Stage::Verify => Phase::Verify,
        Stage::Customise => Phase::Customise,
        Stage::Reboot => return,
    };
    s.mark(phase);
}

fn finished(s: &mut Step<'_>, done: Summary) {
    let now = s.now();
    let state = s.node.state.clone();
    match state {
        // Said twice: it is being restarted already.
        State::Deploying(run) if matches!(run.stage, RunStage::Cross | RunStage::Restart) => {}
        State::Deploying(mut run) => {
            let mib = |bytes: u64| bytes >> 20;
            s.info(
                "deploy.written",
                format!(
                    "written and read back: {} chunks fetched ({} MiB), {} kept, {} MiB written, {} MiB zeroed, {} MiB verified",
                    done.chunks_fetched, mib(done.bytes_fetched), done.chunks_kept, mib(done.bytes_written),
                    mib(done.bytes_zeroed), mib(done.bytes_verified),
                ),
            );
            s.mark(Phase::Written);
            run.progress = None;
            run.on_volume.written = run.boots_volume();
            if run.crosses {
                run.enter(RunStage::Cross, now);
            } else {
                run.enter(RunStage::Restart, now);
                s.effects.push(Effect::WakeAgent);
            }
            s.node.state = State::Deploying(run);
        }
        State::Cleaning(run) | State::Deleting(run) => {
            if let Some(fault) = erase::missing(&run) {
                return s.fail(fault);
            }
            erase::finished(s, &run);
            s.node.installed = None;
            s.mark(Phase::Done);
            if s.node.retired.is_some() {
                s.info("node.manageable", "it is retired, and stays out of the offer");
                s.node.state = State::Manageable;
            } else {
                s.info("node.available", "available");
                s.node.state = State::Available;
            }
        }
        State::Inspecting(_) => inspected(s, false),
        // No run, no report: `current` refused it before.
        State::Enroll
        | State::Manageable
        | State::Available
        | State::Active
        | State::Servicing(_)
        | State::Failed(_) => {}
    }
}
