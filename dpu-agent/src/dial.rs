//! The conversation with the server (`protocol::dial`), in two threads of its own, so that neither the switch nor a disk ever
//! waits for the server:
//!
//! ```text
//!   hello ─▶ Waiting: again in a while          ┌ 401 ◀┐
//!     └────▶ Accepted ─▶ state?wait=25, held ─▶ State ─▶ the agent's loop: taken, known, refused
//!                        state?wait=0 ◀─ what the DPU is, when that changes and every 30 s; with each what was counted since
//! ```
//!
//! A state that is refused is not asked for again at once, and why it was refused is in the report.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::agent::Password;
use protocol::counters::Counters;
use protocol::dial::{HELLO_MAX, Hello, Orders, Report, Welcome};
use protocol::dpu::{Desired, Observed, STATE_MAX, VERSION};
use protocol_http::{Backoff, HttpError, Waits};
use tokio::sync::mpsc;

use crate::exporters::Programs;
use crate::facts::{self, Given};
use crate::files;
use crate::trust;

/// Seconds that the server may hold a request for the state.
const WAIT: u32 = 25;
/// Longest waits of a request; the head of an answer may be held.
const WAITS: Waits =
    Waits { connect: Duration::from_secs(5), head: Duration::from_secs(60), body: Duration::from_secs(60) };
/// Without a change the report is sent again after so long: the server sees that we live.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Between two reports, so that many changes are one.
const TOGETHER: Duration = Duration::from_millis(500);
/// The same of the first [`BURST`] after quiet: a machine may wait for what the next one says.
const SOON: Duration = Duration::from_millis(20);
/// Reports that may follow one another so soon: a server on a new volume takes about eight.
const BURST: u32 = 16;
/// Between two requests for the state, where the server holds none.
const PACE: Duration = Duration::from_secs(1);
/// Before a state that was refused, or that is followed already, is asked for again.
const REFUSED: Duration = Duration::from_secs(5);
/// Octets of a token.
const TOKEN_MAX: usize = 512;
/// Octets of an answer beside the state in it.
const ENVELOPE: usize = 1 << 10;

/// How to reach the server, and as whom.
#[derive(Debug)]
pub struct Settings {
    /// Base URL of the provisioning listener.
    pub server: String,
    /// The secret.
    pub secret: Password,
    /// File with the keys of those whose images are taken.
    pub trust: PathBuf,
    /// File with a one-time token. It may be gone, once it was used.
    pub token: Option<PathBuf>,
    /// Facts that are given.
    pub given: Given,
    /// The programs that serve volumes.
    pub programs: Programs,
}

/// What came from the server.
#[derive(Debug)]
pub enum Offer {
    /// A state.
    State(Box<Desired>),
    /// What this program cannot read, and why.
    Unreadable(String),
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is followed from now on, and on the disk.
    Taken,
    /// It is what is followed already.
    Known,
    /// It is not followed.
    Refused,
}

/// The agent's end.
#[derive(Debug)]
pub struct Line {
    offers: mpsc::Receiver<(Offer, SyncSender<Verdict>)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Clone, Default)]
struct Now {
    /// The server knows us; counts how often it said so.
    accepted: Option<u64>,
    /// Counts hellos that were accepted.
    welcomes: u64,
    /// Of the state that is followed.
    generation: Option<u64>,
    observed: Option<Observed>,
    /// Counts what was observed that somebody may wait for.
    count: u64,
    /// How far instant volumes are was observed, for which nobody waits: it is told by then.
    told_by: Option<Instant>,
    /// What was counted and not sent yet. It wakes nobody.
    counters: Option<Box<Counters>>,
}

/// One of the threads' ends.
#[derive(Clone)]
struct Caller {
    http: ureq::Agent,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

/// Begins the conversation.
///
/// # Errors
/// Where no thread can be started.
pub fn start(settings: Settings, generation: Option<u64>) -> std::io::Result<Line> {
    let shared = Arc::new(Shared::default());
    shared.lock().generation = generation;
    let http = protocol_http::agent(concat!("billet-dpu/", env!("CARGO_PKG_VERSION")), WAITS);
    let caller = Caller { http, settings: Arc::new(settings), shared: shared.clone() };
    let (offer, offers) = mpsc::channel(1);
    let reporter = caller.clone();
    let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
    spawn("report").spawn(move || reporter.report_forever())?;
    spawn("dial").spawn(move || caller.converse(&offer))?;
    Ok(Line { offers, shared })
}

impl Line {
    /// Waits for an offer; each wants a verdict.
    pub async fn next(&mut self) -> Option<(Offer, SyncSender<Verdict>)> {
        self.offers.recv().await
    }

    /// From now on this is followed.
    pub fn follows(&self, generation: u64) {
        self.shared.lock().generation = Some(generation);
    }

    /// This goes with the next report, in the place of what was to go with it.
    pub fn count(&self, counters: Counters) {
        self.shared.lock().counters = Some(Box::new(counters));
    }

    /// From now on the DPU is this.
    pub fn observe(&self, observed: &Observed) {
        let mut now = self.shared.lock();
        let progress = now
            .observed
            .as_ref()
            .is_some_and(|before| without_progress(before) == without_progress(observed));
        now.observed = Some(observed.clone());
        if progress {
            now.told_by.get_or_insert(Instant::now() + TOGETHER);
        } else {
            now.count += 1;
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Now> {
        // What is in there is whole at every moment.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, is_accepted: bool) {
        let mut now = self.lock();
        now.welcomes += u64::from(is_accepted);
        now.accepted = is_accepted.then_some(now.welcomes);
        self.changed.notify_all();
    }

    /// Waits until there is something to report: other than what was `sent`, or the heartbeat is due.
    fn news(&self, sent: (Option<u64>, u64), due: Instant) -> Now {
        let mut now = self.lock();
        loop {
            let due = now.told_by.map_or(due, |told_by| told_by.min(due));
            let left = due.saturating_duration_since(Instant::now());
            let is_news = (now.accepted, now.count) != sent || left.is_zero();
            if now.accepted.is_some() && now.observed.is_some() && is_news {
                let counters = now.counters.take();
                now.told_by = None;
                return Now { counters, ..now.clone() };
            }
            // Where nobody may report the heartbeat does not matter.
            let wait = if left.is_zero() { HEARTBEAT } else { left };
            let woken = self.changed.wait_timeout(now, wait);
            now = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Caller {
    fn converse(&self, offer: &mpsc::Sender<(Offer, SyncSender<Verdict>)>) {
        loop {
            self.introduce();
            self.shared.accept(true);
            let is_open = self.follow(offer);
            self.shared.accept(false);
            if !is_open {
                return;
            }
        }
    }

    /// Says hello until it is accepted.
    fn introduce(&self) {
        let url = format!("{}/dpu/v1/hello", self.settings.server);
        let (mut backoff, mut said) = (Backoff::default(), String::new());
        loop {
            let token = self.token();
            let level = if token.is_some() { "with a one-time token" } else { "without a token" };
            let hello = Hello {
                version: VERSION,
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                secret: self.settings.secret.clone(),
                token,
                facts: facts::gather(Path::new("/"), &self.settings.given, self.settings.programs.paths()),
            };
            let news = match protocol_http::post(&self.http, &url, None, &hello, HELLO_MAX) {
                Ok(Welcome::Accepted { dpu, name }) => {
                    tracing::info!(server = %self.settings.server, %dpu, %name, %level, "the server knows this DPU");
                    self.learn_keys();
                    return;
                }
                Ok(Welcome::Waiting { why }) => {
                    format!("{why} (it said hello {level}: somebody has to accept it)")
                }
                Err(e) => e.to_string(),
            };
            // Once per reason, not once per try.
            if news != said {
                tracing::warn!(server = %self.settings.server, why = %news, "not accepted; what runs goes on");
                said = news;
            }
            std::thread::sleep(backoff.wait(random()));
        }
    }

    /// Without keys no image is taken, and all else goes on.
    fn learn_keys(&self) {
        if let Err(e) = trust::learn(&self.http, &self.settings.server, &self.settings.trust) {
            tracing::warn!(error = %e, "the keys of those whose images are taken are what they were");
        }
    }

    /// The token, where one is given and still there.
    fn token(&self) -> Option<Password> {
        let path = self.settings.token.as_ref()?;
        match files::read(path, TOKEN_MAX) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text).trim().to_owned();
                (!text.is_empty() && text.len() <= TOKEN_MAX).then_some(Password(text))
            }
            Err(e) => {
                tracing::debug!(error = %e, "there is no token");
                None
            }
        }
    }

    /// Asks for the state until the server does not know us any more; false where nobody wants offers any more.
    fn follow(&self, offer: &mpsc::Sender<(Offer, SyncSender<Verdict>)>) -> bool {
        let mut backoff = Backoff::default();
        loop {
            let generation = self.shared.lock().generation;
            let report = Report { generation, observed: None, counters: None };
            if !self.settings.trust.exists() {
                self.learn_keys();
            }
            let asked = Instant::now();
            let offered = match self.exchange(WAIT, &report) {
                Ok(Orders::Same) => {
                    self.answered(&mut backoff);
                    std::thread::sleep(PACE.saturating_sub(asked.elapsed()));
                    continue;
                }
                Ok(Orders::State { state }) => Offer::State(state),
                Err(HttpError::Answer { cause, .. }) => Offer::Unreadable(cause.to_string()),
                Err(e) if e.is_unknown_session() => {
                    tracing::warn!("the server does not know this DPU any more: it says hello again");
                    return true;
                }
                Err(e) => {
                    if backoff.tries() == 2 {
                        tracing::warn!(error = %e, "the server is away; what runs goes on");
                    }
                    std::thread::sleep(backoff.wait(random()));
                    continue;
                }
            };
            self.answered(&mut backoff);
            let (verdict, judged) = sync_channel(1);
            if offer.blocking_send((offered, verdict)).is_err() {
                return false;
            }
            match judged.recv() {
                Ok(Verdict::Taken) => {}
                Ok(Verdict::Known | Verdict::Refused) => std::thread::sleep(REFUSED),
                Err(_) => return false,
            }
        }
    }

    fn answered(&self, backoff: &mut Backoff) {
        if backoff.tries() > 2 {
            tracing::info!("the server is back");
        }
        backoff.reset();
    }

    /// Says what the DPU is, whenever that changes. What the server wants is asked for by the other thread.
    fn report_forever(&self) -> Infallible {
        let mut backoff = Backoff::default();
        let mut sent = (None, 0);
        let mut due = Instant::now();
        let mut in_a_row = 0;
        loop {
            let waits = Instant::now();
            let now = self.shared.news(sent, due);
            let follows = now.count != sent.1 && waits.elapsed() < TOGETHER;
            in_a_row = if follows { BURST.min(in_a_row + 1) } else { 0 };
            let Now { generation, observed, counters, .. } = now;
            let report = Report { generation, observed: observed.map(Box::new), counters };
            match self.exchange(0, &report) {
                // An order that this program cannot read does not mean that the report did not arrive.
                Ok(_) | Err(HttpError::Answer { .. }) => {
                    sent = (now.accepted, now.count);
                    due = Instant::now() + HEARTBEAT;
                    backoff.reset();
                    std::thread::sleep(if in_a_row < BURST { SOON } else { TOGETHER });
                }
                Err(e) => {
                    // Where the server is away the other thread says so.
                    if e.status().is_some() && backoff.tries() == 2 {
                        tracing::warn!(error = %e, "the report is not taken");
                    }
                    due = Instant::now();
                    std::thread::sleep(backoff.wait(random()));
                }
            }
        }
    }

    fn exchange(&self, wait: u32, report: &Report) -> Result<Orders, HttpError> {
        let url = format!("{}/dpu/v1/state?wait={wait}", self.settings.server);
        protocol_http::post(&self.http, &url, Some(&self.settings.secret.0), report, STATE_MAX + ENVELOPE)
    }
}

/// What a DPU is, but for how far its instant volumes are.
fn without_progress(observed: &Observed) -> Observed {
    let mut observed = observed.clone();
    for instant in observed.volumes.iter_mut().filter_map(|volume| volume.instant.as_mut()) {
        (instant.percent, instant.bytes) = (0, 0);
    }
    observed
}

/// For jitter, not for secrets: the keys of the standard library's maps.
fn random() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

#[cfg(test)]
mod tests;
