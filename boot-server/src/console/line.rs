//! One node's console: a task that holds its source open while it is wanted, and what those who look share.
//!
//! ```text
//!  idle ─wanted─▶ connecting ─▶ connected ─lost─▶ failed ─back-off─▶ connecting …
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmc::Console;
use boot_server_core::console::cast::About;
use boot_server_core::console::{ConsoleSource, Floor, Piece, RING_BYTES, Ring};
use protocol::{NodeId, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::source::{self, OpenBmc};
use crate::engine::{lock, now};
use crate::view::{ConsoleSessionView, ConsoleState, ConsoleView};

/// First pause after a source was lost.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause: a machine that was switched on is followed again within this time.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);
/// Octets read at once.
const READ: usize = 16 << 10;
/// Pieces of input that wait for the source: with the largest, a quarter of a MiB.
const INPUTS_MAX: usize = 64;
/// Notices that a session may be behind; older ones it does not see.
const NOTICES_MAX: usize = 32;

/// One console.
pub(super) struct Line {
    pub node: NodeId,
    shared: Mutex<Shared>,
    /// Grows with everything that a session or the task may wait for.
    wake: watch::Sender<u64>,
    input: mpsc::Sender<Vec<u8>>,
    /// Cancelled when the node is forgotten.
    gone: CancellationToken,
}

struct Shared {
    ring: Ring,
    floor: Floor<Uuid>,
    seats: BTreeMap<Uuid, Seat>,
    source: ConsoleSource,
    configured: bool,
    /// Grows with each change of the source; a connection of an older one is dropped.
    epoch: u64,
    state: ConsoleState,
    problem: Option<String>,
    since: Timestamp,
    /// Grows with everything that [`ConsoleView`] shows but the octets.
    presence: u64,
    notices: VecDeque<String>,
    /// Number of the notice that comes next.
    next_notice: u64,
}

/// A place of somebody who looks.
struct Seat {
    about: About,
    may_write: bool,
    ended: Option<String>,
    cut: CancellationToken,
}

/// What a session has not seen yet.
#[derive(Debug, Default)]
pub(super) struct News {
    pub piece: Piece,
    pub notices: Vec<String>,
    pub view: Option<ConsoleView>,
    pub ended: Option<String>,
}

/// How far a session has seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub at: u64,
    pub presence: u64,
    pub notice: u64,
}

impl Line {
    pub fn new(node: NodeId, configured: Option<ConsoleSource>) -> (Arc<Self>, mpsc::Receiver<Vec<u8>>) {
        let (input, inputs) = mpsc::channel(INPUTS_MAX);
        let shared = Shared {
            ring: Ring::new(RING_BYTES),
            floor: Floor::default(),
            seats: BTreeMap::new(),
            configured: configured.is_some(),
            source: configured.unwrap_or(ConsoleSource::DEFAULT),
            epoch: 0,
            state: ConsoleState::Idle,
            problem: None,
            since: now(),
            presence: 1,
            notices: VecDeque::new(),
            next_notice: 0,
        };
        let line = Self {
            node,
            shared: Mutex::new(shared),
            wake: watch::Sender::new(0),
            input,
            gone: CancellationToken::new(),
        };
        (Arc::new(line), inputs)
    }

    /// Changes what is shared, then wakes whoever waits for it.
    fn change<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        let result = change(&mut lock(&self.shared));
        self.wake.send_modify(|n| *n = n.wrapping_add(1));
        result
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    pub fn view(&self) -> ConsoleView {
        lock(&self.shared).view()
    }

    /// What is kept of what the machine printed.
    pub fn kept(&self) -> Vec<u8> {
        lock(&self.shared).ring.since(0, RING_BYTES).octets
    }

    pub fn configure(&self, source: Option<ConsoleSource>) {
        self.change(|s| {
            s.configured = source.is_some();
            s.source = source.unwrap_or(ConsoleSource::DEFAULT);
            s.epoch += 1;
            s.presence += 1;
        });
    }

    /// Somebody comes to look, unless `max` do already. It sees what is kept, and notices from now on.
    /// `cut` is cancelled when its place ends.
    pub fn join(&self, about: About, may_write: bool, cut: CancellationToken, max: usize) -> Option<Seen> {
        self.change(|s| {
            if s.seats.len() >= max {
                return None;
            }
            let id = about.session;
            let notice = format!("{} looks, from {} ({})", about.who, about.from, about.via);
            s.floor.join(id, may_write);
            s.seats.insert(id, Seat { about, may_write, ended: None, cut });
            s.say(notice);
            Some(Seen { at: s.ring.start(), presence: 0, notice: s.next_notice })
        })
    }

    pub fn leave(&self, id: Uuid) {
        self.change(|s| {
            if let Some(seat) = s.seats.remove(&id) {
                seat.cut.cancel();
                let freed = if s.floor.leave(id) { "; nobody types now" } else { "" };
                s.say(format!("{} left{freed}", seat.about.who));
            }
        });
    }

    /// Ends a session, which then leaves by itself; false where there is none, or it was ended before.
    pub fn end(&self, id: Uuid, reason: &str) -> bool {
        self.change(|s| match s.seats.get_mut(&id) {
            Some(seat) if seat.ended.is_none() => {
                seat.ended = Some(reason.to_owned());
                seat.cut.cancel();
                s.floor.release(id);
                s.presence += 1;
                true
            }
            _ => false,
        })
    }

    /// The node is forgotten: nobody looks any more, and nothing is read.
    pub fn close(&self) {
        self.end_all("the node was forgotten");
        self.gone.cancel();
    }

    /// Ends all of them.
    pub fn end_all(&self, reason: &str) {
        let all: Vec<Uuid> = lock(&self.shared).seats.keys().copied().collect();
        for id in all {
            self.end(id, reason);
        }
    }

    pub fn session(&self, id: Uuid) -> Option<ConsoleSessionView> {
        lock(&self.shared).view().sessions.into_iter().find(|s| s.about.session == id)
    }

    /// Asks to type (`take`: whoever does now). Says in words why not, where that is so, else whether it began, and whose
    /// place it took.
    pub fn ask(&self, id: Uuid, take: bool) -> Result<(bool, Option<String>), String> {
        self.change(|s| {
            let before = s.floor.writer();
            let done = if take { s.floor.take(id).map(|_| ()) } else { s.floor.ask(id).map(|_| ()) };
            done.map_err(|refused| s.refusal(&refused))?;
            let name = |id| s.seats.get(&id).map_or_else(String::new, |seat| seat.about.who.clone());
            let (who, from) = (name(id), before.filter(|b| *b != id).map(name));
            let began = before != Some(id);
            match &from {
                Some(from) => s.say(format!("{who} took over typing from {from}")),
                None if began => s.say(format!("{who} types")),
                None => {}
            }
            Ok((began, from))
        })
    }

    /// No longer types.
    pub fn release(&self, id: Uuid) {
        self.change(|s| {
            if s.floor.release(id)
                && let Some(who) = s.seats.get(&id).map(|seat| seat.about.who.clone())
            {
                s.say(format!("{who} no longer types"));
            }
        });
    }

    /// Where input goes, if this session types and the machine is there to read it.
    pub fn input(&self, id: Uuid) -> Result<mpsc::Sender<Vec<u8>>, String> {
        let s = lock(&self.shared);
        if s.floor.writer() != Some(id) {
            return Err("not typed: somebody else types, or nobody was asked".to_owned());
        }
        if s.state != ConsoleState::Connected {
            return Err("not typed: the console is not connected".to_owned());
        }
        Ok(self.input.clone())
    }

    /// What a session has not seen yet, at most `max` octets of it; moves `seen` on.
    pub fn news(&self, id: Uuid, seen: &mut Seen, max: usize) -> News {
        let s = lock(&self.shared);
        let ended =
            s.seats.get(&id).map_or(Some("the session was ended".to_owned()), |seat| seat.ended.clone());
        let piece = s.ring.since(seen.at, max);
        seen.at += piece.skipped + piece.octets.len() as u64;
        let first = s.next_notice - s.notices.len() as u64;
        let skip = usize::try_from(seen.notice.saturating_sub(first)).unwrap_or(usize::MAX);
        let notices = s.notices.iter().skip(skip).cloned().collect();
        seen.notice = s.next_notice;
        let view = (seen.presence != s.presence).then(|| s.view());
        seen.presence = s.presence;
        News { piece, notices, view, ended }
    }

    fn printed(&self, octets: &[u8]) {
        self.change(|s| s.ring.push(octets));
    }

    fn stands(&self, state: ConsoleState, problem: Option<String>) {
        self.change(|s| {
            if s.state == state && s.problem == problem {
                return;
            }
            if let (ConsoleState::Connected, ConsoleState::Failed, Some(why)) = (s.state, state, &problem) {
                s.say(format!("the console was lost: {why}"));
            }
            (s.state, s.problem, s.since) = (state, problem, now());
            s.presence += 1;
        });
    }

    /// The source and its epoch, where it is wanted: it is followed, or somebody looks.
    fn wanted(&self) -> Option<(ConsoleSource, u64)> {
        let s = lock(&self.shared);
        (s.source.follows() || !s.seats.is_empty()).then(|| (s.source.clone(), s.epoch))
    }

    /// Waits until `is` holds for what is wanted.
    async fn until(
        &self,
        is: impl Fn(&Option<(ConsoleSource, u64)>) -> bool,
    ) -> Option<(ConsoleSource, u64)> {
        let mut wake = self.watch();
        loop {
            let wanted = self.wanted();
            if is(&wanted) {
                return wanted;
            }
            if wake.changed().await.is_err() {
                return None; // this line has the sender: it does not end before us
            }
        }
    }

    /// Holds the source open while it is wanted, until `stop` or [`Line::close`].
    pub async fn run(
        &self,
        bmc: Option<OpenBmc>,
        mut inputs: mpsc::Receiver<Vec<u8>>,
        stop: CancellationToken,
    ) {
        let work = async {
            let mut pause = PAUSE_MIN;
            loop {
                let Some((source, epoch)) = self.until(Option::is_some).await else { return };
                let began = tokio::time::Instant::now();
                self.follow(&source, epoch, bmc.as_ref(), &mut inputs).await;
                pause = if began.elapsed() >= GOOD { PAUSE_MIN } else { pause };
                let other = |w: &Option<(ConsoleSource, u64)>| w.as_ref().is_none_or(|(_, e)| *e != epoch);
                // Another source, or nobody who wants this one, needs no pause.
                let changed = tokio::time::timeout(jittered(pause), self.until(other)).await;
                pause = if changed.is_ok() { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                // What was typed meanwhile was for a machine that was not there.
                while inputs.try_recv().is_ok() {}
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
            () = self.gone.cancelled() => {}
        }
    }

    /// One connection, from its opening to its end.
    async fn follow(
        &self,
        source: &ConsoleSource,
        epoch: u64,
        bmc: Option<&OpenBmc>,
        inputs: &mut mpsc::Receiver<Vec<u8>>,
    ) {
        self.stands(ConsoleState::Connecting, None);
        let unwanted = self.until(|w| w.as_ref().is_none_or(|(_, e)| *e != epoch));
        let connection = async {
            let stream = source::open(self.node, &source.source, bmc).await.map_err(|e| e.to_string())?;
            self.stands(ConsoleState::Connected, None);
            self.pump(stream, inputs).await.map_err(|e| e.to_string())
        };
        let outcome = tokio::select! {
            _ = unwanted => Ok(()),
            outcome = connection => outcome,
        };
        match outcome {
            Ok(()) => self.stands(ConsoleState::Idle, None),
            Err(why) => {
                tracing::debug!(node = %self.node, source = %source.source, why, "console lost");
                self.stands(ConsoleState::Failed, Some(why));
            }
        }
    }

    /// Octets in both directions; reading does not wait for writing. Ends with the reason.
    async fn pump(&self, stream: Box<dyn Console>, inputs: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(stream);
        let reading = async {
            let mut octets = vec![0; READ];
            loop {
                match from.read(&mut octets).await? {
                    0 => return Err(io::Error::other("the other side closed it")),
                    n => self.printed(&octets[..n]),
                }
            }
        };
        let writing = async {
            while let Some(octets) = inputs.recv().await {
                to.write_all(&octets).await?;
                to.flush().await?;
            }
            Ok(())
        };
        tokio::select! {
            read = reading => read,
            written = writing => written,
        }
    }
}

/// Many consoles are lost at once, with their terminal server: they come back at different moments.
fn jittered(pause: Duration) -> Duration {
    let chance = crate::secret::random().map_or(128, |octets| u32::from(octets[0]));
    pause * (192 + chance / 2) / 256
}

impl Shared {
    fn say(&mut self, notice: String) {
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
        self.next_notice += 1;
        self.presence += 1;
    }

    fn refusal(&self, refused: &boot_server_core::console::Refused<Uuid>) -> String {
        use boot_server_core::console::Refused;
        match refused {
            Refused::Taken(by) => {
                let who = self.seats.get(by).map_or("somebody else", |seat| seat.about.who.as_str());
                format!("{who} types; take over, or wait")
            }
            other => other.to_string(),
        }
    }

    fn view(&self) -> ConsoleView {
        let writer = self.floor.writer();
        let sessions = self.seats.values().map(|seat| ConsoleSessionView {
            about: seat.about.clone(),
            may_write: seat.may_write,
            writes: writer == Some(seat.about.session),
        });
        ConsoleView {
            source: self.source.clone(),
            configured: self.configured,
            state: self.state,
            problem: self.problem.clone(),
            since: self.since,
            kept_bytes: self.ring.end() - self.ring.start(),
            sessions: sessions.collect(),
        }
    }
}
