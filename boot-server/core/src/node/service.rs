//! Servicing: firmware and settings of a machine, step by step, with what was asked for read back.
//!
//! ```text
//! check ──as wanted──▶ next step
//!   │ differs: stored, then asked for
//! apply ──taken──▶ (firmware) task ──ended──▶ settle ──version shows──▶ next step
//!   │ answer lost, or the server stopped        │ gone, and no version: failed
//! doubt: versions and tasks are read            │ it does not show yet
//!   └──not begun──▶ apply                       ▼
//!                            staged ──▶ restart ──▶ verify ──all as wanted──▶ next step, or the end
//! ```
//!
//! Settings are staged one after the other and share one restart; a firmware, and keys of Secure Boot, stand alone. A
//! machine that runs an OS is restarted only if whoever asked allowed it; else what is staged stays pending, and is said so.

use std::time::Duration;

use protocol::fault::{Fault, FaultCode};
use protocol::{JobId, Timestamp};
use serde::{Deserialize, Serialize};

use super::boot::Repeat;
use super::event::{Effect, Refused};
use super::state::{Fallback, State};
use super::step::Step;
use super::timeline::Phase;
use crate::servicing::{Facts, RestartPolicy, ServiceStep, Verdict, judge};

/// How long a controller may take to show a new version before the machine is restarted for it.
pub const SETTLE: Duration = Duration::from_secs(30);
/// How often a change is asked for whose answer is lost each time.
pub const TRIES_MAX: u32 = 3;
/// A task that is the driver's own, until the controller has one: its connection is all there is of it.
const OWN_TASK: &str = "push:";
/// Changes of progress that are kept apart by less than this many percent are no news.
const PERCENT_STEP: u8 = 5;

/// A servicing job on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Names it.
    pub id: JobId,
    /// What is to be done, in order, and how far each is.
    pub items: Vec<Item>,
    /// The step that it is at.
    pub at: usize,
    /// How far that is.
    pub stage: ServiceStage,
    /// Since when.
    pub since: Timestamp,
    /// When waiting ends.
    pub deadline: Timestamp,
    /// Whether a machine that runs an OS may be restarted.
    pub restart: RestartPolicy,
    /// Where the node goes afterwards.
    pub back: Fallback,
    /// How often the step was asked for.
    #[serde(default)]
    pub tries: u32,
    /// Percent of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What the controller says of it, or why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Somebody asked to stop it.
    #[serde(default)]
    pub abort: bool,
}

/// A step and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The step.
    pub step: ServiceStep,
    /// How far.
    pub status: ItemStatus,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// Not begun, or on its way.
    Waiting,
    /// The controller took it; in force after a restart.
    Staged,
    /// Read back, and as wanted.
    Done,
    /// It was as wanted before.
    Same,
    /// The controller took it, and does not tell whether it is in force.
    Untold,
}

/// How far the job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum ServiceStage {
    /// Looks how it is before anything is changed.
    Check,
    /// It is asked for. Stored before it is sent, with the tasks that the controller had then.
    Apply {
        /// Ids of tasks.
        known: Vec<String>,
    },
    /// Whether it was asked for is not known.
    Doubt {
        /// Ids of tasks that were there before.
        known: Vec<String>,
    },
    /// The controller works on it.
    Task {
        /// Its id.
        id: String,
        /// Ids of tasks that were there before.
        known: Vec<String>,
    },
    /// The task is over: does the version show?
    Settle {
        /// Nobody knows how it ended.
        gone: bool,
    },
    /// The machine is restarted.
    Restart,
    /// The server was stopped while the machine was restarted: is that still needed?
    Recheck,
    /// The machine was restarted: is it as wanted?
    Verify,
}

impl ServiceStage {
    /// How long it may take. Firmware of large servers takes up to half an hour for an update in POST.
    fn patience(&self) -> Duration {
        let minutes = match self {
            Self::Check | Self::Apply { .. } => 10,
            Self::Doubt { .. } | Self::Recheck => 15,
            // Begins anew with each progress.
            Self::Task { .. } => 45,
            Self::Settle { .. } => 15,
            Self::Restart => 30,
            Self::Verify => 40,
        };
        Duration::from_mins(minutes)
    }

    /// As it is written in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Apply { .. } => "apply",
            Self::Doubt { .. } => "doubt",
            Self::Task { .. } => "task",
            Self::Settle { .. } => "settle",
            Self::Restart => "restart",
            Self::Recheck => "recheck",
            Self::Verify => "verify",
        }
    }
}

/// A job that somebody asks for; its steps were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOrder {
    /// What, in order.
    pub steps: Vec<ServiceStep>,
    /// Whether a machine that runs an OS may be restarted for it.
    pub restart: RestartPolicy,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceNews {
    /// Somebody takes it up: at its start, or after a stop of the server.
    Resumed,
    /// What the controller shows of a step, and the tasks that it has.
    Looked {
        /// The step.
        at: usize,
        /// What it shows.
        facts: Facts,
        /// Ids of its tasks; empty where it does not tell.
        tasks: Vec<String>,
    },
    /// The controller took the change, and works on this task.
    Taken {
        /// The task; none where it was done at once.
        task: Option<String>,
    },
    /// Tasks of the controller; `None` where it does not tell.
    Tasks(Option<Vec<String>>),
    /// The task goes on.
    Progress {
        /// Its id: an upload that was taken becomes a task of the controller.
        id: String,
        /// Percent.
        percent: Option<u8>,
        /// Its words.
        words: Option<String>,
    },
    /// The task ended well.
    TaskDone,
    /// The task failed, in the controller's words.
    TaskFailed {
        /// Its words.
        why: String,
    },
    /// The controller does not know the task any more.
    TaskGone,
    /// The machine was restarted.
    Restarted,
    /// The answer to a change was lost: it may have been done.
    Lost {
        /// Why.
        what: String,
    },
    /// The controller does not answer now.
    Trouble {
        /// Why.
        what: String,
    },
    /// It cannot be done.
    Failed {
        /// Why.
        what: String,
        /// What to do.
        hint: String,
    },
}

impl Service {
    /// The step that it is at.
    pub fn step(&self) -> Option<&ServiceStep> {
        self.items.get(self.at).map(|item| &item.step)
    }

    /// Steps that wait for a restart.
    pub fn staged(&self) -> impl Iterator<Item = (usize, &ServiceStep)> {
        let staged = |item: &&Item| item.status == ItemStatus::Staged;
        self.items.iter().enumerate().filter(move |(_, item)| staged(item)).map(|(at, item)| (at, &item.step))
    }

    /// True where the machine may be restarted for it.
    pub fn may_restart(&self) -> bool {
        self.back != Fallback::Active || self.restart == RestartPolicy::Allowed
    }

    fn enter(&mut self, stage: ServiceStage, now: Timestamp) {
        self.since = now;
        self.deadline = now.after(stage.patience());
        self.stage = stage;
        (self.percent, self.words) = (None, None);
    }

    /// Its clock starts anew.
    pub(super) fn wait_anew(&mut self, now: Timestamp) {
        self.deadline = now.after(self.stage.patience());
    }

    /// What it waits for, in words.
    pub fn waits_for(&self) -> String {
        let step = self.step().map(ServiceStep::words).unwrap_or_default();
        let mut text = match &self.stage {
            ServiceStage::Check => format!("the BMC to say how it is ({step})"),
            ServiceStage::Apply { .. } => format!("the BMC to take {step}"),
            ServiceStage::Doubt { .. } => format!("the BMC to say whether it began with {step}"),
            ServiceStage::Task { .. } => match self.percent {
                Some(percent) => format!("the BMC's task for {step}, {percent} % done"),
                None => format!("the BMC's task for {step}"),
            },
            ServiceStage::Settle { .. } => format!("the BMC to show {step}"),
            ServiceStage::Restart => format!("the BMC to restart this machine for {}", self.staged_words()),
            ServiceStage::Recheck => format!("the BMC to say whether {} is in force", self.staged_words()),
            ServiceStage::Verify => format!("the machine to start with {}", self.staged_words()),
        };
        if let Some(words) = &self.words {
            text.push_str(&format!(" ({words})"));
        }
        text
    }

    fn staged_words(&self) -> String {
        self.staged().map(|(_, step)| step.words()).collect::<Vec<_>>().join(", ")
    }

    /// What is to be done, in one line.
    pub fn title(&self) -> String {
        let steps: Vec<_> = self.items.iter().map(|item| item.step.words()).collect();
        format!("service: {}", steps.join(", "))
    }
}

/// Somebody asks for a job.
pub(super) fn order(s: &mut Step<'_>, order: ServiceOrder) -> Result<(), Refused> {
    let back = match &s.node.state {
        State::Manageable => Fallback::Manageable,
        State::Available => Fallback::Available,
        State::Active => Fallback::Active,
        State::Failed(failure) if failure.service.is_some() => {
            failure.service.as_ref().map_or(Fallback::Manageable, |service| service.back)
        }
        State::Servicing(_) => {
            return Err(
                s.wrong_state("service", "one servicing job at a time: wait for its end, or abort it")
            );
        }
        _ => {
            return Err(
                s.wrong_state("service", "only a manageable, available or active node can be serviced")
            );
        }
    };
    let refuse = |why, hint| Err(Refused::Service { why, hint });
    if let Some(order) = &s.node.boot
        && (order.installs() || (order.pending() && order.repeat == Repeat::Once))
    {
        return refuse(
            "the machine is to boot something else at its next restart, or an installer runs on it",
            "clear the boot order, or let it be used up, first",
        );
    }
    let firmware = order.steps.iter().any(|step| matches!(step, ServiceStep::Firmware(_)));
    if firmware && back == Fallback::Active && order.restart == RestartPolicy::Never {
        return refuse(
            "an OS runs on the machine, and a firmware update may restart it",
            "allow that (`restart: allowed`, `--restart`), or give the node back first",
        );
    }
    let items = order.steps.into_iter().map(|step| Item { step, status: ItemStatus::Waiting }).collect();
    begin(s, items, order.restart, back);
    Ok(())
}

/// The failed job again; what was as wanted is found so, and not done twice.
pub(super) fn retry(s: &mut Step<'_>, old: &Service) {
    let items = old.items.iter().map(|item| Item { status: ItemStatus::Waiting, ..item.clone() }).collect();
    begin(s, items, old.restart, old.back);
}

fn begin(s: &mut Step<'_>, items: Vec<Item>, restart: RestartPolicy, back: Fallback) {
    let now = s.now();
    let mut service = Service {
        id: s.context.fresh_job,
        items,
        at: 0,
        stage: ServiceStage::Check,
        since: now,
        deadline: now,
        restart,
        back,
        tries: 0,
        percent: None,
        words: None,
        abort: false,
    };
    service.enter(ServiceStage::Check, now);
    s.start_timeline(service.title());
    s.info("service.requested", service.title());
    s.effects.push(Effect::Service);
    s.node.state = State::Servicing(Box::new(service));
}

/// Somebody wants it stopped. What the controller works on cannot be.
pub(super) fn abort(s: &mut Step<'_>) {
    let State::Servicing(service) = &mut s.node.state else { return };
    service.abort = true;
    match service.stage {
        ServiceStage::Check | ServiceStage::Verify | ServiceStage::Recheck => end(s),
        ServiceStage::Settle { gone: true } => end(s),
        _ => s.info(
            "job.abort_requested",
            "stop requested: what the BMC works on is waited for, and nothing is begun after it",
        ),
    }
}

/// What came of it. News of another job change nothing.
pub(super) fn news(s: &mut Step<'_>, job: JobId, news: ServiceNews) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    if service.id != job {
        return;
    }
    match (&service.stage, news) {
        (_, ServiceNews::Failed { what, hint }) => fail(s, what, hint),
        (_, ServiceNews::Trouble { what }) => service.words = Some(what),
        (ServiceStage::Apply { known }, ServiceNews::Resumed) => {
            let known = known.clone();
            service.enter(ServiceStage::Doubt { known }, now);
        }
        (ServiceStage::Restart, ServiceNews::Resumed) => service.enter(ServiceStage::Recheck, now),
        (ServiceStage::Apply { known }, ServiceNews::Lost { what }) => {
            let known = known.clone();
            service.enter(ServiceStage::Doubt { known }, now);
            service.words = Some(what);
        }
        (ServiceStage::Apply { known }, ServiceNews::Taken { task }) => {
            let known = known.clone();
            taken(s, task, known);
        }
        (ServiceStage::Doubt { known }, ServiceNews::Tasks(tasks)) => {
            let known = known.clone();
            doubt(s, known, tasks);
        }
        (ServiceStage::Task { .. }, ServiceNews::Progress { id, percent, words }) => {
            service.progress(now, id, percent, words);
        }
        (ServiceStage::Task { id, known }, ServiceNews::TaskGone) if id.starts_with(OWN_TASK) => {
            let known = known.clone();
            service.enter(ServiceStage::Doubt { known }, now);
            s.warn("service.upload_cut", "the image did not reach the BMC as a whole");
        }
        (ServiceStage::Task { .. }, ServiceNews::TaskDone) => {
            service.enter(ServiceStage::Settle { gone: false }, now);
        }
        (ServiceStage::Task { .. }, ServiceNews::TaskGone) => {
            service.enter(ServiceStage::Settle { gone: true }, now);
            let step = service.step().map(ServiceStep::words).unwrap_or_default();
            s.warn(
                "service.task_gone",
                format!("the BMC does not know its task for {step} any more: the version tells"),
            );
        }
        (ServiceStage::Task { .. }, ServiceNews::TaskFailed { why }) => {
            let step = service.step().map(ServiceStep::words).unwrap_or_default();
            fail(s, format!("the BMC's task for {step} failed: {why}"), "see the BMC's own log, then retry");
        }
        (ServiceStage::Restart, ServiceNews::Restarted) => {
            service.enter(ServiceStage::Verify, now);
            s.info("service.restarted", "the machine was restarted");
            s.drop_agent();
            s.mark(Phase::Restart);
        }
        (_, ServiceNews::Looked { at, facts, tasks }) => looked(s, at, &facts, tasks),
        // Too late, or of another stage.
        _ => {}
    }
}

impl Service {
    fn progress(&mut self, now: Timestamp, new: String, percent: Option<u8>, words: Option<String>) {
        if let ServiceStage::Task { id, .. } = &mut self.stage
            && *id != new
        {
            *id = new;
            self.deadline = now.after(self.stage.patience());
        }
        let far = match (self.percent, percent) {
            (Some(old), Some(new)) => new.abs_diff(old) >= PERCENT_STEP || (new == 100 && old < 100),
            (old, new) => old != new,
        };
        if far {
            self.deadline = now.after(self.stage.patience());
            self.percent = percent;
        }
        if words.is_some() {
            self.words = words;
        }
    }

    fn set(&mut self, at: usize, status: ItemStatus) {
        if let Some(item) = self.items.get_mut(at) {
            item.status = status;
        }
    }
}

fn looked(s: &mut Step<'_>, at: usize, facts: &Facts, tasks: Vec<String>) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    let Some(item) = service.items.get(at).filter(|item| facts.is_about(&item.step)) else { return };
    let (verdict, words) = (judge(&item.step, facts), item.step.words());
    // That there are keys says nothing of whose they are, so they are reset whenever somebody asks.
    let proven = verdict == Verdict::AsWanted && !matches!(item.step, ServiceStep::SecureBootKeys(_));
    let here = at == service.at;
    if let Verdict::Wrong { what, hint } = verdict {
        return match service.stage {
            ServiceStage::Check => fail(s, what, hint),
            // A BIOS or a controller that is starting shows parts of itself only.
            _ => service.words = Some(what),
        };
    }
    match service.stage.clone() {
        ServiceStage::Check if here => match verdict {
            _ if proven => {
                service.set(at, ItemStatus::Same);
                s.info("service.same", format!("{words}: it is so already"));
                advance(s);
            }
            _ => {
                service.tries = 1;
                service.enter(ServiceStage::Apply { known: tasks }, now);
                let difference = match verdict {
                    Verdict::Differs(what) => format!("{words}: {what}"),
                    _ => words,
                };
                s.info("service.asked", format!("the BMC is told: {difference}"));
            }
        },
        ServiceStage::Doubt { known } if here => match verdict {
            _ if proven => done(s, at, &words),
            // Settings can be asked for twice; of an update the tasks tell.
            _ if !matches!(item.step, ServiceStep::Firmware(_)) => apply_again(s, known),
            _ => {}
        },
        ServiceStage::Settle { gone } if here => settled(s, at, verdict, gone),
        ServiceStage::Recheck | ServiceStage::Verify if item.status == ItemStatus::Staged => {
            let verifies = service.stage == ServiceStage::Verify;
            match verdict {
                Verdict::AsWanted if verifies || proven => done(s, at, &words),
                Verdict::AsWanted => service.enter(ServiceStage::Restart, now),
                Verdict::Untold if verifies => {
                    service.set(at, ItemStatus::Untold);
                    s.warn(
                        "service.untold",
                        format!("{words}: taken, and the BMC does not tell whether it is in force"),
                    );
                    after_restart(s);
                }
                Verdict::Untold => service.enter(ServiceStage::Restart, now),
                Verdict::Differs(what) if verifies => service.words = Some(what),
                Verdict::Differs(_) => service.enter(ServiceStage::Restart, now),
                Verdict::Wrong { .. } => {}
            }
        }
        _ => {}
    }
}

fn done(s: &mut Step<'_>, at: usize, words: &str) {
    let State::Servicing(service) = &mut s.node.state else { return };
    service.set(at, ItemStatus::Done);
    let after = matches!(service.stage, ServiceStage::Recheck | ServiceStage::Verify);
    s.info("service.done", format!("{words}: done, and read back"));
    if after { after_restart(s) } else { advance(s) }
}

fn after_restart(s: &mut Step<'_>) {
    let State::Servicing(service) = &s.node.state else { return };
    if service.staged().next().is_none() {
        advance(s);
    }
}

/// The task is over and the list of firmware was read.
fn settled(s: &mut Step<'_>, at: usize, verdict: Verdict, gone: bool) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    let words = service.step().map(ServiceStep::words).unwrap_or_default();
    match verdict {
        Verdict::AsWanted => done(s, at, &words),
        Verdict::Differs(what) if now.since(service.since) < SETTLE => service.words = Some(what),
        Verdict::Differs(what) if gone => fail(
            s,
            format!("the BMC forgot its task, and {what}"),
            "see the BMC's own log; it may need the machine to be restarted; then retry",
        ),
        Verdict::Differs(_) => {
            service.set(at, ItemStatus::Staged);
            advance(s);
        }
        Verdict::Untold | Verdict::Wrong { .. } => {}
    }
}

/// Asks once more for what was not done.
fn apply_again(s: &mut Step<'_>, known: Vec<String>) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    if service.abort {
        return end(s);
    }
    if service.tries >= TRIES_MAX {
        let words = service.words.clone().unwrap_or_else(|| "its answer was lost".to_owned());
        return fail(
            s,
            format!("the BMC was told {TRIES_MAX} times, and did not do it: {words}"),
            "check the BMC, then retry",
        );
    }
    service.tries += 1;
    service.enter(ServiceStage::Apply { known }, now);
}

fn taken(s: &mut Step<'_>, task: Option<String>, known: Vec<String>) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    let at = service.at;
    match (service.step(), task) {
        (Some(ServiceStep::Firmware(_)), Some(id)) => {
            service.enter(ServiceStage::Task { id, known }, now);
        }
        (Some(ServiceStep::Firmware(_)), None) => service.enter(ServiceStage::Settle { gone: false }, now),
        _ => {
            service.set(at, ItemStatus::Staged);
            advance(s);
        }
    }
}

/// Whether an update was begun: a task that was not there before is it.
fn doubt(s: &mut Step<'_>, known: Vec<String>, tasks: Option<Vec<String>>) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    match tasks {
        None => fail(
            s,
            "it is not known whether the BMC began with the update, and it lists no tasks",
            "look at the BMC's own pages; when no update runs there, retry",
        ),
        Some(tasks) => {
            let mut new = tasks.into_iter().filter(|id| !known.contains(id));
            let found = (new.next(), new.next());
            drop(new);
            match found {
                (Some(id), None) => {
                    service.enter(ServiceStage::Task { id, known }, now);
                    s.info("service.task_found", "the BMC had begun with the update: its task was found");
                }
                (Some(_), Some(_)) => fail(
                    s,
                    "it is not known whether the BMC began with the update: it has several new tasks",
                    "look at the BMC's own pages; when no update runs there, retry",
                ),
                _ => apply_again(s, known),
            }
        }
    }
}

/// What comes next: the next step, a restart for what is staged, or the end.
fn advance(s: &mut Step<'_>) {
    let now = s.now();
    let State::Servicing(service) = &mut s.node.state else { return };
    let next = service.items.iter().position(|item| item.status == ItemStatus::Waiting);
    let staged: Vec<_> = service.staged().map(|(at, _)| at).collect();
    // What stands alone waits for the restart before it, and what follows for the one after it.
    let alone = |at: usize| service.items[at].step.stands_alone();
    let restart_first =
        !staged.is_empty() && next.is_none_or(|next| alone(next) || staged.iter().any(|at| alone(*at)));
    match next {
        _ if service.abort => end(s),
        _ if restart_first && service.may_restart() => {
            service.enter(ServiceStage::Restart, now);
            let text = format!("the machine is restarted for {}", service.staged_words());
            s.info("service.restart", text);
        }
        Some(next) => {
            service.at = next;
            service.enter(ServiceStage::Check, now);
        }
        None => end(s),
    }
}

/// The job is over, well or called off; what is staged stays so.
fn end(s: &mut Step<'_>) {
    let State::Servicing(service) = &s.node.state else { return };
    let (back, aborted, staged) = (service.back, service.abort, service.staged_words());
    if !staged.is_empty() {
        s.warn(
            "service.pending",
            format!("in force only after the machine's next restart, and not read back: {staged}"),
        );
    }
    if aborted {
        s.info("job.aborted", "servicing was called off");
    } else {
        s.info("service.finished", "servicing is done");
    }
    s.mark(Phase::Done);
    s.node.state = back.state();
}

fn fail(s: &mut Step<'_>, what: impl Into<String>, hint: impl Into<String>) {
    s.fail(Fault::new(FaultCode::Service, what, hint));
}

/// It waited for too long.
pub(super) fn tick(s: &mut Step<'_>) {
    let State::Servicing(service) = &s.node.state else { return };
    if s.now() < service.deadline {
        return;
    }
    let words = service.words.clone();
    let said = |text: String| match &words {
        Some(words) => format!("{text}: {words}"),
        None => text,
    };
    let step = service.step().map(ServiceStep::words).unwrap_or_default();
    let (what, hint) = match &service.stage {
        ServiceStage::Check | ServiceStage::Apply { .. } => {
            (said(format!("the BMC did not say how it is ({step})")), "check the BMC, then retry")
        }
        ServiceStage::Doubt { .. } | ServiceStage::Recheck => (
            said("the BMC did not answer, and whether it did what it was told is not known".to_owned()),
            "check the BMC, then retry: what is as wanted is not done twice",
        ),
        ServiceStage::Task { .. } => (
            said(format!("the BMC's task for {step} does not go on")),
            "look at the BMC's own pages: an update may still run there; then retry",
        ),
        ServiceStage::Settle { .. } => {
            (said(format!("the BMC does not show {step}")), "check the BMC, then retry")
        }
        ServiceStage::Restart => (
            said(format!("the machine was not restarted for {}", service.staged_words())),
            "look at the machine and its BMC, then retry",
        ),
        ServiceStage::Verify => (
            said(format!("the machine was restarted, and it is not as wanted ({})", service.staged_words())),
            "look at the machine's console and at the BMC's own log, then retry",
        ),
    };
    s.fail(Fault::new(FaultCode::Timeout, what, hint));
}

#[cfg(test)]
mod tests;
