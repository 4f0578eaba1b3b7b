//! Exporters: what is run for them, what is known of those that were started, and when a dead one is started again.

mod command;
mod qsd;
pub mod rpc;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::Timestamp;
use protocol::dpu::{Backend, Exporter, Function, Name, Serves, Volume};
use serde::{Deserialize, Serialize};

pub use command::{FILLED, LIMITS, LINK, Launch, Private, counters, launch, link};

/// Longest pause before a dead exporter is started again: its host waits.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Who lived so long is not counted as failing.
const LIVED: Duration = Duration::from_secs(60);

/// What was started, as it stands on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The volume that it serves.
    pub volume: Volume,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// An exporter that was started here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The volume that it serves.
    pub volume: Volume,
    /// What became of it.
    pub life: Life,
}

/// What became of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Runs {
        /// Its process; `None` while it cannot be told, or where it has none of its own.
        pid: Option<u32>,
        /// Whether a host has it.
        held: Held,
    },
    /// It died.
    Dead {
        /// It may be started again now.
        due: bool,
        /// It had run well, as far as is known: a host may wait for it.
        lived: bool,
    },
}

/// Whether a host has a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The exporter cannot be connected to yet, or it cannot be told.
    Opening,
    /// An image is written into it: nobody can connect before that is done.
    Filling,
    /// A host is connected.
    Connected,
    /// One was a moment ago, and may be about to come back.
    Lately,
    /// None.
    Free,
}

impl Held {
    /// What cannot be told is as good as in use.
    pub fn in_use(self) -> bool {
        !matches!(self, Self::Filling | Self::Free)
    }
}

/// What becomes of a volume whose exporter is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nobody wants it any more: nothing of it is remembered.
    Forgotten,
    /// It is served anew, with other settings. That an image was written into it is remembered: a host may have worked with it since.
    Served,
}

/// All that were started, by volume.
pub type Exporters = BTreeMap<Name, Started>;

/// What only one exporter may have: the socket, and the bytes behind it.
pub fn claims(volume: &Volume) -> BTreeSet<String> {
    let mut claims = BTreeSet::from([volume.socket.clone()]);
    match &volume.exporter {
        Exporter::Blk { serves: Serves::File { path, .. } | Serves::Image { layer: path, .. } } => {
            claims.insert(path.clone());
        }
        Exporter::Qsd { backend } | Exporter::Spdk { backend } => claims.extend(places(backend)),
        Exporter::Snap { backend, function } => {
            claims.extend(places(backend));
            match function {
                Function::Hotplug => {}
                Function::Pf { pf } => drop(claims.insert(format!("function {pf}"))),
                Function::Vf { pf, vf } => drop(claims.insert(format!("function {pf}, virtual {vf}"))),
            }
        }
    }
    claims
}

/// Whether an exporter that runs for `started` does what one for `wanted` would. The config of an image is looked at before its host has
/// the volume for the first time, and a token in it may be another by now; limits are changed while it runs. One that wrote an image
/// serves what is on it as one would that had none to write.
pub fn serves_alike(wanted: &Volume, started: &Volume) -> bool {
    let plain = |volume: &Volume| {
        let mut volume = Volume { limits: None, ..volume.clone() };
        if let Exporter::Blk { serves: Serves::Image { config, .. } } = &mut volume.exporter {
            *config = None;
        }
        volume.fill = volume.fill.filter(|_| wanted.fill.is_some());
        if let Some(fill) = &mut volume.fill {
            fill.config = None;
        }
        volume
    };
    wanted == started || plain(wanted) == plain(started)
}

/// Whether `wanted` is what was started, as far as that is remembered: what an image tells its OS is forgotten once it is on the volume, and
/// who knows that it is does not ask for it any more.
pub fn is_as_started(wanted: &Volume, started: &Volume) -> bool {
    let mut wanted = wanted.clone();
    if let Some(had) = started.fill.as_ref().filter(|had| had.config.is_none()) {
        wanted.fill.get_or_insert_with(|| had.clone()).config = None;
    }
    wanted == *started
}

/// Whether an exporter that runs for `started` gets at its bytes as one for `wanted` would. Else whoever is to have them was let in anew,
/// and what runs is let in no more.
pub fn leads_alike(wanted: &Volume, started: &Volume) -> bool {
    match (backend(wanted), backend(started)) {
        (Some(wanted), Some(started)) => wanted == started,
        (None, None) => true,
        _ => false,
    }
}

fn backend(volume: &Volume) -> Option<&Backend> {
    match &volume.exporter {
        Exporter::Blk { .. } => None,
        Exporter::Qsd { backend } | Exporter::Spdk { backend } | Exporter::Snap { backend, .. } => {
            Some(backend)
        }
    }
}

/// Whether a process of its own serves a volume.
pub fn has_process(volume: &Volume) -> bool {
    matches!(volume.exporter, Exporter::Blk { .. } | Exporter::Qsd { .. })
}

/// The names of a backend's bytes: two backends that have one in common have the same bytes.
fn places(backend: &Backend) -> Vec<String> {
    match backend {
        Backend::File { path } => vec![path.clone()],
        // The name of a target is the same by whatever portal (RFC 7143, section 4.2.7).
        Backend::Iscsi { target, lun, .. } => vec![format!("iscsi {target} unit {lun}")],
        // Two lists that share a monitor are of one cluster.
        Backend::Rbd { monitors, pool, image, .. } => {
            monitors.iter().map(|monitor| format!("rbd {pool}/{image} at {monitor}")).collect()
        }
        Backend::NvmeTcp { subsystem, namespace, .. } => {
            vec![format!("nvme {subsystem} namespace {namespace}")]
        }
        Backend::Nbd { address, export } => vec![format!("nbd {export} at {address}")],
    }
}

/// When an exporter is started again: at once, then after 1 s, 2 s, 4 s, and so on up to 30 s, until one lived a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// Of the last start.
    started: Option<Timestamp>,
    /// What the pause is counted from: the last start, or the end of an exporter that did not get to serve.
    last: Option<Timestamp>,
    /// Starts in a row whose exporter did not live.
    failed: u32,
    /// Starts after the first.
    restarts: u32,
}

impl Attempts {
    /// It was started, or the start was tried in vain.
    pub fn handle_start(&mut self, now: Timestamp) {
        self.restarts += u32::from(self.started.is_some());
        (self.started, self.last) = (Some(now), Some(now));
    }

    /// It was seen dead after it had been started.
    pub fn handle_death(&mut self, now: Timestamp) {
        let lived = self.started.is_none_or(|started| now.since(started) >= LIVED);
        self.failed = if lived { 0 } else { self.failed.saturating_add(1) };
    }

    /// It was seen dead before its image was written: it failed, however long it had worked. No host waits for it.
    pub fn handle_unwritten(&mut self, now: Timestamp) {
        self.failed = self.failed.saturating_add(1);
        self.last = Some(now);
    }

    /// It was running when this agent began.
    pub fn handle_found(&mut self) {
        self.started.get_or_insert(Timestamp(0));
    }

    /// Whether it may be started now.
    pub fn due(&self, now: Timestamp) -> bool {
        self.last.is_none_or(|last| now.since(last) >= self.pause())
    }

    /// False where the last run ended soon after its start.
    pub fn lived(&self) -> bool {
        self.failed == 0
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    fn pause(&self) -> Duration {
        match self.failed {
            0 => Duration::ZERO,
            failed => Duration::from_secs(1 << (failed - 1).min(5)).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_at_once_is_started_ever_less_often() {
        let mut attempts = Attempts::default();
        let mut now = Timestamp(1_000_000);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(attempts.due(now));
            attempts.handle_start(now);
            attempts.handle_death(now);
            let before = now;
            while !attempts.due(now) {
                now = now.after(Duration::from_millis(500));
            }
            pauses.push(now.since(before).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(attempts.restarts(), 8);
        attempts.handle_start(now);
        now = now.after(LIVED);
        attempts.handle_death(now);
        assert!(attempts.due(now), "it had lived");
    }

    #[test]
    fn who_dies_while_it_writes_has_failed_however_long_it_worked() {
        let mut attempts = Attempts::default();
        let mut now = Timestamp(1_000_000);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            attempts.handle_start(now);
            now = now.after(LIVED * 60);
            attempts.handle_unwritten(now);
            assert!(!attempts.lived());
            let pause = Duration::from_secs(pause);
            assert!(!attempts.due(now.after(pause - Duration::from_millis(1))), "at once, and for ever");
            now = now.after(pause);
            assert!(attempts.due(now));
        }
        attempts.handle_start(now);
        now = now.after(LIVED);
        attempts.handle_death(now);
        assert!(attempts.lived() && attempts.due(now), "it had served");
    }
}
