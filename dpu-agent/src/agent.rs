//! The loop: what is desired, what is there, what is done about it, what is reported.
//!
//! ```text
//!   state file, or server ─▶ checked ─▶ kept on the disk ─▶ followed ─┐
//!                                                                     ├─ plan ─▶ actions ─▶ plan again ─▶ report
//!   rows of the switch, exporters ────────────────────────────────────┘
//! ```
//!
//! Nothing is done at the end: what runs goes on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use dpu_agent_core::check::State;
use dpu_agent_core::discard;
use dpu_agent_core::exporter::{Exporters, Held, Life, Started};
use dpu_agent_core::plan::{Action, Plan, plan};
use dpu_agent_core::switch::{self, Change, View};
use jsonrpc::Address;
use ovsdb::{Follower, Operation, Settings, Version};
use protocol::Timestamp;
use protocol::counters::Counters;
use protocol::dpu::{Observed, PORTS_MAX, STATE_MAX, VERSION};

use crate::dial::{self, Line, Offer, Verdict};
use crate::disks::{Disks, Servers};
use crate::files;
use crate::firmware::{Firmware, Tool};
use crate::layers;

/// Between two looks at everything, where nothing is under way. A dead exporter is started again within this.
const LOOK: Duration = Duration::from_millis(500);
/// The first look after something was done: an exporter listens within some tens of milliseconds, and a machine waits to be switched
/// on until the server knows. Each further pause is half as long again.
const SOON: Duration = Duration::from_millis(10);
/// After a change that failed the switch is left alone for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// After so long without a word from the database a sign of life is asked for.
const PROBE: Duration = Duration::from_secs(5);
/// Between two looks at counters: Open vSwitch writes its own every 5 s, `billet-blk` too.
const COUNT: Duration = Duration::from_secs(10);
/// So long after the last connection a volume counts as in use: QEMU comes back after a second, and may be slow.
const QUIET: Duration = Duration::from_secs(10);

/// Where the desired state comes from.
#[derive(Debug)]
pub enum Source {
    /// A file, which is read again when it changes.
    File(PathBuf),
    /// The server.
    Server(Box<dial::Settings>),
}

/// Where things are.
#[derive(Debug)]
pub struct Files {
    /// The report, where it is wanted.
    pub status: Option<PathBuf>,
    /// Our own directory.
    pub dir: PathBuf,
}

/// Counts from a day before the start, so that what was before the start lies in the past. Never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

/// The program.
#[derive(Debug)]
pub struct Agent {
    files: Files,
    inlet: Inlet,
    /// Held as long as we live: two of us would start two exporters of one disk.
    _lock: File,
    clock: Clock,
    follower: Follower,
    disks: Disks,
    firmware: Firmware,
    state: Option<State>,
    /// What is wrong with the state that was offered last.
    refused: Option<String>,
    /// The switch is left alone until then, for this reason.
    pause: Option<(Timestamp, String)>,
    reported: Option<Observed>,
    /// When counters are looked at next.
    count_due: Timestamp,
    /// What was done since the last look, and how long the next one is waited for.
    done: Vec<Action>,
    look_next: Duration,
}

/// Where offers come in.
#[derive(Debug)]
enum Inlet {
    /// A file, with the text that was looked at last.
    File { path: PathBuf, text: Vec<u8> },
    /// The server.
    Line(Line),
}

impl Clock {
    /// Begins.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now(self) -> Timestamp {
        Timestamp(24 * 3_600_000).after(self.0.elapsed())
    }
}

/// Follows the rows of a switch.
pub fn follow(address: Address) -> Follower {
    let (database, wanted) = (switch::DATABASE.to_owned(), switch::wanted());
    Follower::start(Settings { address, database, wanted, version: Version::Since, lock: None, probe: PROBE })
}

/// How often the lock is tried, and the pause between.
const LOCK_TRIES: u32 = 40;
/// See [`LOCK_TRIES`].
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Takes our directory for ourselves, for as long as the file is open.
///
/// # Errors
/// Where it cannot be made, or another one runs.
pub fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join("agent.lock");
    let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    // One that was killed while it started an exporter leaves the lock to that process until it has become the exporter.
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            tried => {
                tried?;
                return Ok(lock);
            }
        }
    }
    anyhow::bail!("another billet-dpu runs on {}", dir.display());
}

impl Agent {
    /// Takes up what is on the disk. The lock is [`lock`]'s.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn start(
        files: Files,
        lock: File,
        source: Source,
        database: Address,
        servers: &Servers,
        tool: Tool,
    ) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let disks = Disks::load(&files.dir, servers, QUIET, clock.now())?;
        let kept = files.dir.join("desired.json");
        let state = if kept.exists() {
            let text = files::read(&kept, STATE_MAX)?;
            Some(State::parse(&text).with_context(|| format!("{}: remove it", kept.display()))?)
        } else {
            None
        };
        let inlet = match source {
            Source::File(path) => Inlet::File { path, text: Vec::new() },
            Source::Server(settings) => {
                let generation = state.as_ref().map(|state| state.desired().generation);
                Inlet::Line(dial::start(*settings, generation).context("starting to dial")?)
            }
        };
        let follower = follow(database);
        let firmware = Firmware::new(tool);
        let (refused, pause, reported, count_due) = (None, None, None, clock.now());
        Ok(Self {
            files,
            inlet,
            _lock: lock,
            clock,
            follower,
            disks,
            firmware,
            state,
            refused,
            pause,
            reported,
            count_due,
            done: Vec::new(),
            look_next: SOON,
        })
    }

    /// Follows for ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.read_state();
            let functions = self.state.as_ref().and_then(|state| state.desired().functions.as_ref());
            self.firmware.follow(functions, self.clock.now()).await;
            let exporters = self.disks.look(self.clock.now()).await;
            let plan = self.plan(&exporters);
            let mut problems = Vec::new();
            for action in &plan.actions {
                problems.extend(self.carry_out(action).await);
            }
            self.look_soon(plan.actions);
            // With what there was before: what was started since is desired.
            let desired = self.state.as_ref().map(State::desired);
            let forgotten = desired.map_or(Ok(()), |desired| self.disks.forget(desired, &exporters));
            problems.extend(forgotten.err().map(|e| words(&e)));
            problems.extend(self.discard().await);
            self.report(problems).await;
            self.count().await;
            self.pass_time().await;
        }
    }

    /// Looks at what ports and disks carried, for the server's next report.
    async fn count(&mut self) {
        let Inlet::Line(line) = &self.inlet else { return };
        let now = self.clock.now();
        if now < self.count_due {
            return;
        }
        self.count_due = now.after(COUNT);
        let mut ports = self.follower.read(|rows| View::of(rows).counters()).unwrap_or_default();
        ports.truncate(PORTS_MAX);
        let volumes = self.disks.counters().await;
        line.count(Counters { ports, volumes });
    }

    /// The next look comes soon after something was done, and ever later as long as nothing else is: what is tried again and again in vain
    /// is tried as often as ever.
    fn look_soon(&mut self, done: Vec<Action>) {
        self.look_next = if done.is_empty() || done == self.done {
            (self.look_next + self.look_next / 2).min(LOOK)
        } else {
            SOON
        };
        self.done = done;
    }

    /// Until the next look, which an offer of the server brings forward.
    async fn pass_time(&mut self) {
        let look = self.look_next;
        let Inlet::Line(line) = &mut self.inlet else { return tokio::time::sleep(look).await };
        let Ok(Some((offer, verdict))) = tokio::time::timeout(look, line.next()).await else { return };
        let taken = match offer {
            Offer::State(state) => match serde_json::to_vec(&state) {
                Ok(text) => self.take(&text),
                Err(e) => Err(words(&e)),
            },
            Offer::Unreadable(why) => Err(format!("it cannot be read: {why}: upgrade billet-dpu")),
        };
        // Where the other end is gone the next offer comes from a new one.
        let _ = verdict.send(match taken {
            Ok(true) => Verdict::Taken,
            Ok(false) => Verdict::Known,
            Err(_) => Verdict::Refused,
        });
        self.refused = taken.err().map(|why| format!("the server's state is not followed: {why}"));
    }

    /// Looks at the state file. One that cannot be followed is left; the last good one is followed on.
    fn read_state(&mut self) {
        let Inlet::File { path, text: known } = &mut self.inlet else { return };
        let text = match files::read(path, STATE_MAX) {
            Ok(text) if text == *known && self.refused.is_none() => return,
            Ok(text) => text,
            Err(e) => {
                self.refused = Some(words(&e));
                return;
            }
        };
        known.clone_from(&text);
        let file = path.display().to_string();
        self.refused = self.take(&text).err().map(|why| format!("{file}: {why}"));
    }

    /// Follows a state from now on; false where it is followed already, or why not.
    fn take(&mut self, text: &[u8]) -> Result<bool, String> {
        let state = State::parse(text).map_err(|e| words(&e))?;
        let is_new = state.follows(self.state.as_ref()).map_err(|e| words(&e))?;
        if is_new {
            // Before it is acted on: after a reboot without a server this is all there is. It may hold passwords of volumes.
            let kept = self.files.dir.join("desired.json");
            files::replace_private(&kept, text).map_err(|e| words(&e))?;
            let generation = state.desired().generation;
            tracing::info!(generation, "a new state is followed");
            if let Inlet::Line(line) = &self.inlet {
                line.follows(generation);
            }
            self.state = Some(state);
        }
        Ok(is_new)
    }

    fn plan(&self, exporters: &Exporters) -> Plan {
        let Some(state) = &self.state else { return Plan::default() };
        let (now, buses) = (self.clock.now(), self.disks.buses());
        if self.pause.as_ref().is_some_and(|(until, _)| now < *until) {
            return plan(state, None, exporters, buses);
        }
        self.follower
            .read(|rows| plan(state, Some(rows), exporters, buses))
            .unwrap_or_else(|_| plan(state, None, exporters, buses))
    }

    /// Does one thing; what went wrong. After a change of the switch that failed the others wait.
    async fn carry_out(&mut self, action: &Action) -> Option<String> {
        let now = self.clock.now();
        let done: Result<(), String> = match action {
            Action::Stop { name, pid, then } => {
                self.disks.stop(name, *pid, *then).await.map_err(|e| words(&e))
            }
            Action::Start(volume) => self.disks.start(volume, now).await.map_err(|e| words(&e)),
            Action::Limit(volume) => self.disks.limit(volume).await.map_err(|e| words(&e)),
            Action::Plug(volume) => self.disks.plug(volume, now).await.map_err(|e| words(&e)),
            Action::Unplug(name) => self.disks.unplug(name, now).await.map_err(|e| words(&e)),
            Action::Switch(_) if self.pause.as_ref().is_some_and(|(until, _)| now < *until) => return None,
            Action::Switch(change) => {
                let done = self.switch(change, action.to_string()).await;
                self.pause = done.as_ref().err().map(|why| (now.after(PAUSE), format!("{action}: {why}")));
                done
            }
        };
        match done {
            Ok(()) => tracing::info!(%action, "done"),
            Err(why) => {
                tracing::warn!(%action, %why, "not done");
                return Some(format!("{action}: {why}"));
            }
        }
        None
    }

    /// Removes layers that the state says are to go, as far as nobody has them. What was not removed.
    async fn discard(&mut self) -> Vec<String> {
        let Some(state) = self.state.as_ref().filter(|state| !state.desired().discard.is_empty()) else {
            return Vec::new();
        };
        let exporters = self.disks.look(self.clock.now()).await;
        let (due, _) = discard::due(state, &exporters);
        let removed = due.into_iter().filter(|one| layers::is_there(&one.layer)).map(|one| {
            let removed = layers::remove(&one.layer);
            match &removed {
                Ok(()) => tracing::info!(volume = %one.name, layer = %one.layer, "the layer was removed"),
                Err(e) => tracing::warn!(volume = %one.name, error = %words(e), "the layer was not removed"),
            }
            removed.map_err(|e| format!("volume {}: {}", one.name, words(&e)))
        });
        removed.filter_map(Result::err).collect()
    }

    async fn switch(&self, change: &Change, what: String) -> Result<(), String> {
        let operations = self.follower.read(|rows| change.operations(rows)).map_err(|e| words(&e))?;
        let mut operations = operations.map_err(|e| words(&e))?;
        operations.push(Operation::Comment(format!("billet-dpu: {what}")));
        self.follower.transact(operations).await.map(drop).map_err(|e| words(&e))
    }

    /// Says what the DPU is, where that changed.
    async fn report(&mut self, failed: Vec<String>) {
        let exporters = self.disks.look(self.clock.now()).await;
        let plan = self.plan(&exporters);
        let mut problems: Vec<String> =
            self.refused.iter().cloned().chain(failed).chain(plan.problems).collect();
        problems.extend(self.pause.as_ref().map(|(_, why)| why.clone()));
        problems.extend(self.disks.waits(&exporters));
        problems.extend(self.firmware.problems());
        let mut seen = (Vec::new(), Vec::new());
        match self.follower.read(|rows| View::of(rows).seen()) {
            Ok(there) => seen = there,
            Err(e) => problems.push(words(&e)),
        }
        let (ports, mirrors) = seen;
        problems.extend(ports.iter().filter_map(|port| match (&port.error, port.number) {
            (Some(error), _) => Some(format!("port {}: {error}", port.interface)),
            (None, None) => Some(format!("port {}: ovs-vswitchd has not opened it yet", port.interface)),
            (None, Some(_)) => None,
        }));
        let (mut discarded, mut there) = (Vec::new(), false);
        if let Some(state) = &self.state {
            problems.extend(discard::due(state, &exporters).1);
            for one in &state.desired().discard {
                if layers::is_there(&one.layer) {
                    there = true;
                } else {
                    discarded.push(one.name.clone());
                }
            }
        }
        let mut once = BTreeSet::new();
        problems.retain(|line| once.insert(line.clone()));
        let observed = Observed {
            version: VERSION,
            generation: self.state.as_ref().map(|state| state.desired().generation),
            settled: self.state.is_some()
                && plan.actions.is_empty()
                && problems.is_empty()
                && !there
                && !exporters.values().any(fills),
            problems,
            ports,
            mirrors,
            volumes: self.disks.seen(&exporters, self.state.as_ref().map(State::desired)),
            functions: self.firmware.seen(),
            discarded,
        };
        if self.reported.as_ref() == Some(&observed) {
            return;
        }
        if let Inlet::Line(line) = &self.inlet {
            line.observe(&observed);
        }
        let line = serde_json::to_string(&observed).expect("a report is texts and numbers");
        // Whoever read it may be gone; the switch and the disks go on.
        let _ = writeln!(std::io::stdout(), "{line}");
        let written = self.files.status.as_ref().map_or(Ok(()), |path| files::replace(path, line.as_bytes()));
        match written {
            Ok(()) => self.reported = Some(observed),
            Err(e) => tracing::warn!(error = %words(&e), "the report is not written"),
        }
    }
}

/// Whether an image is written into a volume still.
fn fills(started: &Started) -> bool {
    matches!(started.life, Life::Runs { held: Held::Filling, .. })
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
