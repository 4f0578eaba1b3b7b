//! Serial consoles: read from where they are, kept, shown to several people of whom one types, and recorded.
//!
//! ```text
//!  BMC (SOL) ┐           ┌─▶ Ring ─▶ Session ─▶ recording ─▶ web terminal, API, SSH
//!  TCP, UNIX ┘── Line ◀──┴── Floor ◀── Session
//! ```
//!
//! What is decided (ring, who types, how a recording looks) lies in `boot_server_core::console`; the ways in are
//! `http::api::console` and `ssh`. *Nothing is shown that was not recorded.*

mod line;
pub mod record;
mod session;
mod source;
pub mod ssh;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::console::ConsoleSource;
use boot_server_core::console::cast::About;
use boot_server_core::node::{Node, Severity};
use protocol::NodeId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use session::{Said, Session};
pub use source::OpenBmc;

use crate::engine::{Actor, Change, Engine, EngineError, lock, now};
use crate::store::consoles as rows;
use crate::tokens::Principal;
use crate::view::{ConsoleSessionView, ConsoleView, Problem};
use line::Line;
use record::Recordings;
use session::Joined;

/// Sessions at once on all consoles; each costs a connection and a file that is written.
const SESSIONS_MAX: usize = 256;
/// Sessions at once on one console: a team that looks at one machine.
const SESSIONS_PER_NODE: usize = 16;
/// Pieces that wait to be written to a recording: a disk that is slow for a moment stops nobody.
const ENTRIES_MAX: usize = 16;
/// How often old recordings are looked for, beside each new one.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// By which way somebody looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The web terminal.
    Web,
    /// The API: the command line, programs.
    Api,
    /// The SSH gateway.
    Ssh,
}

impl Via {
    fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Api => "api",
            Self::Ssh => "ssh",
        }
    }
}

/// Why a console is not opened, or a session not found.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// As many as there may be.
    #[error("there are as many sessions on {0} as there may be")]
    Full(&'static str),
    /// Nothing is shown that is not recorded.
    #[error("the session cannot be recorded: {0}")]
    NotRecorded(std::io::Error),
    /// A recording that cannot be read.
    #[error("the recording cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// No such session.
    #[error("no console session `{0}`")]
    NoSession(String),
    /// No such recording.
    #[error("no recording `{0}`")]
    NoRecording(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ConsoleError {
    /// As the client gets it.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::Full(_) => (503, "consoles-full", "end some of them (`billet console sessions`)"),
            Self::NotRecorded(_) => (503, "not-recorded", "look at the disk of the server's state directory"),
            Self::Unreadable(_) => (503, "recording-unreadable", "look at the server's disk"),
            Self::NoSession(_) => (404, "session-not-found", "list them with `billet console sessions`"),
            Self::NoRecording(_) => {
                (404, "recording-not-found", "list them with `billet console recordings`")
            }
            Self::Engine(error) => return error.problem(),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// All consoles. Cheap to clone.
#[derive(Clone)]
pub struct Consoles(Arc<Inner>);

struct Inner {
    engine: Engine,
    bmc: Option<OpenBmc>,
    recordings: Recordings,
    lines: Mutex<BTreeMap<NodeId, Arc<Line>>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Consoles {
    /// Opens the recordings, and follows the consoles that are to be followed. `bmc` opens the console of a node's BMC.
    ///
    /// # Errors
    /// Where recordings or database cannot be read.
    pub async fn open(engine: Engine, bmc: Option<OpenBmc>, stop: CancellationToken) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let dir = engine.settings().state_dir.join("console");
        let keep = engine.settings().console.keep;
        let shown = dir.display().to_string();
        let recordings = tokio::task::spawn_blocking(move || Recordings::open(dir, keep)).await?;
        let recordings = recordings.with_context(|| format!("cannot open recordings in {shown}"))?;
        let configured = engine.store().read(rows::consoles).await?;
        let consoles = Self(Arc::new(Inner {
            engine,
            bmc,
            recordings,
            lines: Mutex::default(),
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            stop,
            tasks: TaskTracker::new(),
        }));
        for (node, source) in configured {
            consoles.line(node, Some(source));
        }
        Ok(consoles)
    }

    /// Looks after nodes that are forgotten and recordings that are old, until the server stops; then ends all sessions.
    pub async fn run(self) {
        let mut changes = self.0.engine.changes();
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => break,
                _ = prune.tick() => self.0.recordings.prune().await,
                change = changes.recv() => match change {
                    Ok(Change::Node(id)) => self.drop_if_gone(id).await,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => {
                        let all: Vec<NodeId> = lock(&self.0.lines).keys().copied().collect();
                        for id in all {
                            self.drop_if_gone(id).await;
                        }
                    }
                    Err(RecvError::Closed) => break,
                },
            }
        }
        for line in lock(&self.0.lines).values() {
            line.end_all("the server stops");
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn drop_if_gone(&self, id: NodeId) {
        if self.0.engine.node(&id.to_string()).await.is_err()
            && let Some(line) = lock(&self.0.lines).remove(&id)
        {
            line.close();
        }
    }

    /// The line of a node; it is made where there is none yet.
    fn line(&self, node: NodeId, configured: Option<ConsoleSource>) -> Arc<Line> {
        let mut lines = lock(&self.0.lines);
        if let Some(line) = lines.get(&node) {
            return line.clone();
        }
        let (line, inputs) = Line::new(node, configured);
        lines.insert(node, line.clone());
        let (running, bmc, stop) = (line.clone(), self.0.bmc.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move { running.run(bmc, inputs, stop).await });
        line
    }

    /// How a node's console stands.
    pub fn view(&self, node: &Node) -> ConsoleView {
        self.line(node.id, None).view()
    }

    /// What is kept of what a node printed, oldest first.
    pub fn kept(&self, node: &Node) -> Vec<u8> {
        self.line(node.id, None).kept()
    }

    /// Says where a node's console is; `None` makes it what every node has.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn configure(
        &self,
        by: Actor,
        node: &Node,
        source: Option<ConsoleSource>,
    ) -> Result<ConsoleView, ConsoleError> {
        let (id, row) = (node.id, source.clone());
        let stored = self.0.engine.store().write(move |db| rows::set(db, id, row.as_ref())).await;
        stored.map_err(EngineError::from)?;
        let place = source.as_ref().map_or_else(|| "back to its BMC".to_owned(), |s| s.source.to_string());
        let message = format!("the console was set to {place}");
        self.0.engine.note(by, Some(id), "console.configured", Severity::Info, message).await?;
        let line = self.line(id, source.clone());
        line.configure(source);
        Ok(line.view())
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`ConsoleError`]; then nobody looks.
    pub async fn attach(
        &self,
        node: &Node,
        who: Principal,
        from: IpAddr,
        via: Via,
    ) -> Result<Session, ConsoleError> {
        let place = self.0.places.clone().try_acquire_owned();
        let place = place.map_err(|_| ConsoleError::Full("this server"))?;
        let about = About {
            session: Uuid::now_v7(),
            node: node.id,
            node_name: node.name.clone(),
            who: who.name(),
            from: from.to_canonical().to_string(),
            via: via.as_str().to_owned(),
            began: now(),
        };
        let mut recorder = self.0.recordings.begin(about.clone()).await.map_err(ConsoleError::NotRecorded)?;
        let message = format!("{} looks at the console, from {} ({})", about.who, about.from, about.via);
        let noted = self.0.engine.note(who.actor(), Some(node.id), "console.opened", Severity::Info, message);
        noted.await?;
        let line = self.line(node.id, None);
        let cut = CancellationToken::new();
        let Some(seen) = line.join(about.clone(), who.may_change(), cut.clone(), SESSIONS_PER_NODE) else {
            recorder.end().await;
            return Err(ConsoleError::Full("this console"));
        };
        let (recording, entries) = mpsc::channel(ENTRIES_MAX);
        let (recorded, id) = (line.clone(), about.session);
        self.spawn(async move {
            if let Err(error) = recorder.run(entries).await {
                tracing::warn!(%error, session = %id, "a console session ends: it cannot be recorded");
                recorded.end(id, &error.to_string());
            }
            recorder.end().await;
        });
        let (held, until, owner) = (line.clone(), cut.clone(), who.clone());
        self.spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                reason = owner.ended() => { held.end(id, reason); }
            }
        });
        Ok(Session::new(self.clone(), about, who, Joined { line, seen, recording, cut, place }))
    }

    /// Who looks at which console now.
    pub fn sessions(&self) -> Vec<ConsoleSessionView> {
        let lines: Vec<Arc<Line>> = lock(&self.0.lines).values().cloned().collect();
        let mut all: Vec<_> = lines.iter().flat_map(|line| line.view().sessions).collect();
        all.sort_by_key(|s| s.about.session);
        all
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`ConsoleError::NoSession`].
    pub async fn end(&self, by: &Principal, id: Uuid) -> Result<ConsoleSessionView, ConsoleError> {
        let lines: Vec<Arc<Line>> = lock(&self.0.lines).values().cloned().collect();
        let missing = || ConsoleError::NoSession(id.to_string());
        let (line, session) =
            lines.into_iter().find_map(|line| line.session(id).map(|s| (line, s))).ok_or_else(missing)?;
        if !line.end(id, &format!("{} ended this session", by.name())) {
            return Err(missing());
        }
        let about = &session.about;
        let message =
            format!("{} ended the session of {}, from {} ({})", by.name(), about.who, about.from, about.via);
        self.note(by, about.node, "console.ended", Severity::Info, message).await;
        Ok(session)
    }

    /// The recordings.
    pub fn recordings(&self) -> &Recordings {
        &self.0.recordings
    }

    /// Work that is ended before the server is.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // A session may be dropped where no runtime is left; then nothing can be written any more.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.tasks.spawn(work);
        }
    }

    /// A line of the event list about something that has happened all the same.
    async fn note(&self, by: &Principal, node: NodeId, kind: &str, severity: Severity, message: String) {
        if let Err(error) = self.0.engine.note(by.actor(), Some(node), kind, severity, message).await {
            tracing::error!(%error, %node, kind, "an event of a console was not stored");
        }
    }
}
