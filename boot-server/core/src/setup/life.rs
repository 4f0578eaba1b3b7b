//! How a job goes on.
//!
//! ```text
//! check ──as wanted──▶ done
//!   │ differs: stored, then asked for
//!  ask ──taken──▶ task (image) ──ended──▶ arrive (with the agent) ──came in──▶ done
//!   │ answer lost, or the server stopped  │ or: restart, cycle ──▶ settle ──shows──▶ done
//! doubt: tasks are read                   │ gone: asked again (an image that is fetched), else settle
//!   └──not begun──▶ ask                   └ failed ──▶ failed
//!
//! settle, too long or called off ──▶ undo (mode, privilege) ──▶ failed, undone
//! ```

use protocol::Timestamp;

use super::{Card, Job, Order, Part, Privilege, RUNS, Stage};
use crate::setup::Mode;

/// How often a change is asked for whose answer, or whose task, is lost each time.
pub const TRIES_MAX: u32 = 3;
/// A task that is the driver's own, until the controller has one: its connection is all there is of it.
const OWN_TASK: &str = "push:";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Somebody takes it up: at its start, or after a stop of the server.
    Resumed,
    /// What the controller shows, and the tasks that it has.
    Looked {
        /// The DPU.
        card: Box<Card>,
        /// Ids of tasks; empty where it does not tell.
        tasks: Vec<String>,
    },
    /// The controller took what was asked for, and works on this task.
    Taken {
        /// The task; none where it was done at once.
        task: Option<String>,
    },
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
    TaskFailed(String),
    /// The controller does not know the task any more.
    TaskGone,
    /// The DPU came in.
    Arrived,
    /// The answer to a change was lost: it may have been done.
    Lost(String),
    /// The controller does not answer now.
    Trouble(String),
    /// It cannot be done.
    Failed {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// Somebody calls it off.
    CalledOff(String),
    /// Time passed.
    Clock,
}

impl Job {
    /// The job after the news.
    #[must_use]
    pub fn step(mut self, news: News, now: Timestamp) -> Self {
        if self.stage.is_over() {
            return self;
        }
        match news {
            News::CalledOff(by) => {
                self.give_up(format!("called off by {by}"), "ask for it anew".to_owned(), now)
            }
            News::Failed { why, hint } => self.fail(why, hint, false, now),
            News::Trouble(words) => {
                self.words = Some(words);
                self.watch(now);
            }
            News::Clock => self.watch(now),
            news => self.go_on(news, now),
        }
        self
    }

    fn go_on(&mut self, news: News, now: Timestamp) {
        match (self.stage.clone(), news) {
            (Stage::Ask { known }, News::Resumed) => self.enter(Stage::Doubt { known }, now),
            (Stage::Check, News::Looked { card, tasks }) => self.checked(&card, tasks, now),
            (Stage::Doubt { known }, News::Looked { tasks, .. }) => self.doubted(known, &tasks, now),
            (Stage::Settle, News::Looked { card, .. }) => self.settled(&card, now),
            (Stage::Arrive, News::Looked { card, .. }) => self.note(&card),
            (Stage::Ask { known }, News::Taken { task: Some(id) }) => {
                self.enter(Stage::Task { id, known }, now);
            }
            (Stage::Ask { .. }, News::Taken { task: None }) => self.taken(now),
            (Stage::Ask { known }, News::Lost(words)) => {
                self.enter(Stage::Doubt { known }, now);
                self.words = Some(words);
            }
            (Stage::Restart, News::Taken { .. } | News::Lost(_)) => self.restarted(now),
            (Stage::Cycle, News::Taken { .. } | News::Lost(_)) => self.enter(Stage::Settle, now),
            (Stage::Undo { why }, News::Taken { .. }) => self.fail(why, "ask for it anew".into(), true, now),
            (Stage::Task { id, known }, news) => self.worked(id, known, news, now),
            (Stage::Arrive, News::Arrived) => self.enter(Stage::Done, now),
            _ => self.watch(now),
        }
    }

    fn checked(&mut self, card: &Card, known: Vec<String>, now: Timestamp) {
        (self.mode_before, self.privilege_before) = (card.mode, card.privilege);
        self.version_before = self.order.item().and_then(|item| card.version(item)).map(str::to_owned);
        if let Some((why, hint)) = refused(&self.order, card) {
            self.fail(why.to_owned(), hint.to_owned(), true, now);
        } else if shows(&self.order, card) == Some(true) {
            self.enter(Stage::Done, now);
        } else {
            self.ask(known, now);
        }
    }

    fn ask(&mut self, known: Vec<String>, now: Timestamp) {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            let why = format!("{} was begun {TRIES_MAX} times, and lost each time", self.order.words());
            return self.fail(why, "look at the log of the DPU's BMC".to_owned(), false, now);
        }
        self.enter(Stage::Ask { known }, now);
    }

    /// A task that was not there before is the job's: there is one job at a time.
    fn doubted(&mut self, known: Vec<String>, tasks: &[String], now: Timestamp) {
        match tasks.iter().rev().find(|task| !known.contains(task)) {
            Some(task) => self.enter(Stage::Task { id: task.clone(), known }, now),
            None => self.ask(known, now),
        }
    }

    fn worked(&mut self, id: String, known: Vec<String>, news: News, now: Timestamp) {
        match news {
            News::Progress { id: now_id, percent, words } => {
                let moved = percent != self.percent || now_id != id;
                (self.percent, self.words) = (percent, words);
                self.stage = Stage::Task { id: now_id, known };
                if moved {
                    self.deadline = now.after(self.stage.patience());
                }
                self.watch(now);
            }
            News::TaskDone => self.taken(now),
            News::TaskFailed(why) => {
                let why = format!("the BMC could not {}: {why}", self.order.words());
                self.fail(why, "see the BMC's own words".to_owned(), false, now);
            }
            News::TaskGone if id.starts_with(OWN_TASK) => self.enter(Stage::Doubt { known }, now),
            // What the controller fetched went into the DPU as it came: half of it is nothing.
            News::TaskGone if self.order.is_fetched() => self.ask(known, now),
            News::TaskGone => self.enter(Stage::Settle, now),
            _ => self.watch(now),
        }
    }

    /// The controller has it.
    fn taken(&mut self, now: Timestamp) {
        let next = match &self.order {
            Order::Install { agent: true, .. } => Stage::Arrive,
            Order::Install { .. } => Stage::Settle,
            Order::Mode { .. } | Order::Privilege { .. } | Order::Firmware { part: Part::Bmc, .. } => {
                Stage::Restart
            }
            Order::Firmware { .. } | Order::Reset { .. } => Stage::Done,
        };
        self.enter(next, now);
    }

    fn restarted(&mut self, now: Timestamp) {
        match self.order {
            Order::Mode { cycle: true, .. } => self.enter(Stage::Cycle, now),
            _ => self.enter(Stage::Settle, now),
        }
    }

    fn settled(&mut self, card: &Card, now: Timestamp) {
        self.note(card);
        let there = match &self.order {
            Order::Firmware { .. } => self.version.is_some() && self.version != self.version_before,
            // A controller that does not tell how far the DPU is has said all that it will.
            Order::Install { .. } => card.boot.as_deref().is_none_or(|boot| boot == RUNS),
            order => shows(order, card).unwrap_or_default(),
        };
        if there { self.enter(Stage::Done, now) } else { self.watch(now) }
    }

    fn note(&mut self, card: &Card) {
        if let Some(version) = self.order.item().and_then(|item| card.version(item)) {
            self.version = Some(version.to_owned());
        }
    }

    /// Ends what took too long.
    fn watch(&mut self, now: Timestamp) {
        if now < self.deadline {
            return;
        }
        let why = format!("too long it was waited for {}", self.words());
        self.give_up(
            why,
            "look at the DPU's console and the log of its BMC, then ask for it anew".to_owned(),
            now,
        );
    }

    fn give_up(&mut self, why: String, hint: String, now: Timestamp) {
        match &self.stage {
            Stage::Check => self.fail(why, hint, true, now),
            Stage::Undo { why: first } => {
                let why = format!("{first}; and it was not taken back: {why}");
                self.fail(why, hint, false, now);
            }
            _ if self.way_back().is_some() => self.enter(Stage::Undo { why }, now),
            _ => self.fail(why, hint, false, now),
        }
    }

    fn fail(&mut self, why: String, hint: String, undone: bool, now: Timestamp) {
        self.enter(Stage::Failed { why, hint, undone }, now);
    }

    fn enter(&mut self, stage: Stage, now: Timestamp) {
        self.since = now;
        self.deadline = now.after(stage.patience());
        self.stage = stage;
        (self.percent, self.words) = (None, None);
    }
}

/// What is known to be refused: a host that may not change anything cannot have a plain NIC (NVIDIA infra-controller, BlueField drivers).
fn refused(order: &Order, card: &Card) -> Option<(&'static str, &'static str)> {
    match order {
        Order::Mode { mode: Mode::Nic, .. } if card.privilege == Some(Privilege::Restricted) => Some((
            "a DPU whose host is restricted cannot become a plain NIC",
            "make the host privileged first (`billet dpu host-privilege DPU privileged`)",
        )),
        Order::Mode { .. } if card.mode.is_none() => {
            Some(("the BMC does not tell the mode of this DPU", "update the firmware of the BMC"))
        }
        Order::Privilege { .. } if card.privilege.is_none() => Some((
            "the BMC does not tell the privilege of the host",
            "start the DPU once: its UEFI tells the BMC; else update the firmware",
        )),
        _ => None,
    }
}

/// Whether what was ordered is so; `None` where that cannot be seen.
fn shows(order: &Order, card: &Card) -> Option<bool> {
    match order {
        Order::Mode { mode, .. } => card.mode.map(|have| have == *mode),
        Order::Privilege { privilege } => card.privilege.map(|have| have == *privilege),
        Order::Install { .. } | Order::Firmware { .. } | Order::Reset { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use protocol::{DpuId, JobId, Sha256};
    use uuid::Uuid;

    use super::*;
    use crate::setup::Version;

    const NOW: Timestamp = Timestamp(1_000);

    fn card() -> Card {
        let version = |item: &str| Version { item: item.into(), version: Some(format!("{item}-1")) };
        Card {
            mode: Some(Mode::Dpu),
            privilege: Some(Privilege::Privileged),
            boot: Some(RUNS.into()),
            firmware: ["DPU_OS", "BMC_Firmware", "DPU_NIC", "Bluefield_FW_ERoT"].map(version).into(),
            ..Card::default()
        }
    }

    fn orders() -> Vec<Order> {
        let file = || ("bf.bfb".to_owned(), Sha256([1; 32]));
        let install = |agent| {
            let (image, sha256) = file();
            Order::Install { image, sha256, agent, rollback: false }
        };
        let firmware = |part| {
            let (image, sha256) = file();
            Order::Firmware { part, image, sha256 }
        };
        vec![
            Order::Mode { mode: Mode::Nic, cycle: true },
            Order::Privilege { privilege: Privilege::Restricted },
            install(true),
            install(false),
            firmware(Part::Bmc),
            firmware(Part::Nic),
            Order::Reset { graceful: true },
        ]
    }

    fn job(order: Order) -> Job {
        Job::new(JobId(Uuid::from_u128(7)), DpuId(Uuid::from_u128(8)), order, "x".into(), NOW)
    }

    fn looked(card: Card, tasks: &[&str]) -> News {
        News::Looked { card: Box::new(card), tasks: tasks.iter().map(|&task| task.to_owned()).collect() }
    }

    fn stages() -> Vec<Stage> {
        let known = || vec!["t1".to_owned()];
        vec![
            Stage::Check,
            Stage::Ask { known: known() },
            Stage::Doubt { known: known() },
            Stage::Task { id: "t2".into(), known: known() },
            Stage::Task { id: "push:u".into(), known: known() },
            Stage::Restart,
            Stage::Cycle,
            Stage::Settle,
            Stage::Arrive,
            Stage::Undo { why: "w".into() },
            Stage::Done,
            Stage::Failed { why: "w".into(), hint: "h".into(), undone: false },
        ]
    }

    fn news() -> Vec<(&'static str, News)> {
        let words = || "words".to_owned();
        vec![
            ("resumed", News::Resumed),
            ("looked, as before", looked(card(), &["t1"])),
            ("looked, a new task", looked(card(), &["t1", "t9"])),
            ("taken", News::Taken { task: None }),
            ("taken, task", News::Taken { task: Some("t2".into()) }),
            ("progress", News::Progress { id: "t2".into(), percent: Some(50), words: None }),
            ("task done", News::TaskDone),
            ("task failed", News::TaskFailed(words())),
            ("task gone", News::TaskGone),
            ("arrived", News::Arrived),
            ("lost", News::Lost(words())),
            ("trouble", News::Trouble(words())),
            ("failed", News::Failed { why: words(), hint: words() }),
            ("called off", News::CalledOff("ann".into())),
            ("clock", News::Clock),
        ]
    }

    fn shown(stage: &Stage) -> String {
        match stage {
            Stage::Task { id, .. } => format!("task {id}"),
            Stage::Failed { undone: true, .. } => "failed, undone".into(),
            other => other.as_str().into(),
        }
    }

    /// The whole behaviour on one screen: what each stage makes of each news, for each order where they differ.
    #[test]
    fn table() {
        let mut text = String::new();
        for stage in stages() {
            writeln!(text, "{}", shown(&stage)).unwrap();
            for (name, news) in news() {
                let mut next: Vec<(String, Vec<&str>)> = Vec::new();
                for order in orders() {
                    let kind = match &order {
                        Order::Install { agent: false, .. } => "install without agent",
                        Order::Firmware { part, .. } => part.as_str(),
                        order => order.kind(),
                    };
                    let mut before = job(order);
                    (before.mode_before, before.privilege_before) =
                        (Some(Mode::Dpu), Some(Privilege::Privileged));
                    before.version_before = before.order.item().map(|item| format!("{item}-1"));
                    before.stage = stage.clone();
                    let after = shown(&before.step(news.clone(), NOW).stage);
                    match next.iter_mut().find(|(to, _)| *to == after) {
                        Some((_, kinds)) => kinds.push(kind),
                        None => next.push((after, vec![kind])),
                    }
                }
                if let [(only, _)] = next.as_slice() {
                    if *only != shown(&stage) {
                        writeln!(text, "  {name:20} {only}").unwrap();
                    }
                    continue;
                }
                let each: Vec<_> =
                    next.iter().map(|(to, kinds)| format!("{to} ({})", kinds.join(", "))).collect();
                writeln!(text, "  {name:20} {}", each.join("; ")).unwrap();
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_mode_that_does_not_show_is_taken_back() {
        let mode = job(Order::Mode { mode: Mode::Nic, cycle: false });
        let mode = mode.step(looked(card(), &[]), NOW);
        assert_eq!(mode.stage, Stage::Ask { known: vec![] });
        let mode = mode.step(News::Taken { task: None }, NOW).step(News::Taken { task: None }, NOW);
        assert_eq!(mode.stage, Stage::Settle);
        let late = mode.deadline;
        let mode = mode.step(looked(card(), &[]), late);
        assert!(matches!(mode.stage, Stage::Undo { .. }));
        assert_eq!(mode.way_back(), Some(Order::Mode { mode: Mode::Dpu, cycle: false }));
        let mode = mode.step(News::Taken { task: None }, late);
        assert!(matches!(mode.stage, Stage::Failed { undone: true, .. }), "{mode:?}");
    }

    #[test]
    fn an_image_is_sent_thrice_at_most() {
        let mut it = job(orders().swap_remove(2)).step(looked(card(), &[]), NOW);
        for _ in 0..TRIES_MAX {
            assert!(matches!(it.stage, Stage::Ask { .. }), "{it:?}");
            it = it.step(News::Taken { task: Some("t".into()) }, NOW).step(News::TaskGone, NOW);
        }
        assert!(matches!(it.stage, Stage::Failed { .. }), "{it:?}");
    }

    #[test]
    fn what_is_so_is_not_asked_for_and_what_is_refused_neither() {
        let same = job(Order::Mode { mode: Mode::Dpu, cycle: false }).step(looked(card(), &[]), NOW);
        assert_eq!(same.stage, Stage::Done);
        let restricted = Card { privilege: Some(Privilege::Restricted), ..card() };
        let nic = job(Order::Mode { mode: Mode::Nic, cycle: false }).step(looked(restricted, &[]), NOW);
        assert!(matches!(&nic.stage, Stage::Failed { why, undone: true, .. } if why.contains("restricted")));
        let dumb = Card { mode: None, ..card() };
        let nic = job(Order::Mode { mode: Mode::Nic, cycle: false }).step(looked(dumb, &[]), NOW);
        assert!(matches!(nic.stage, Stage::Failed { .. }));
    }
}
