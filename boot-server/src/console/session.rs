//! One who looks: what the web terminal, the API and the SSH gateway are all made of. What it sees is handed to its
//! recording before it is shown; it ends when its token does, when an operator ends it, or when it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::console::INPUT_MAX;
use boot_server_core::console::cast::{About, Kind};
use boot_server_core::node::Severity;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Consoles;
use super::line::{Line, Seen};
use super::record::Entry;
use crate::asking::{Asked, asking, within};
use crate::tokens::Principal;
use crate::view::ConsoleView;

/// Most octets that are shown at once.
const PIECE_MAX: usize = 32 << 10;
/// How long a machine may leave what was typed unread.
const INPUT_WAIT: Duration = Duration::from_secs(5);

/// Why a session ends whose recording did.
const NOT_RECORDED: &str = "the session cannot be recorded any more: the server's log says why";

/// What a session shows next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The machine printed this.
    Output(Vec<u8>),
    /// So many octets came faster than this session took them.
    Skipped(u64),
    /// In words.
    Notice(String),
    /// Who is there and how the console stands.
    Presence(Box<ConsoleView>),
    /// The session is over, and why.
    Ended(String),
}

/// A session.
pub struct Session {
    /// Names it.
    pub id: Uuid,
    consoles: Consoles,
    line: Arc<Line>,
    about: About,
    asked: Option<Asked>,
    who: Principal,
    seen: Seen,
    wake: watch::Receiver<u64>,
    ready: VecDeque<Said>,
    recording: mpsc::Sender<Entry>,
    over: Option<String>,
    cut: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// What a session got when it came.
pub(super) struct Joined {
    pub line: Arc<Line>,
    /// From where it looks.
    pub seen: Seen,
    /// Where what it sees and types is recorded.
    pub recording: mpsc::Sender<Entry>,
    /// Cancelled when it is over.
    pub cut: CancellationToken,
    /// Its place among all sessions.
    pub place: OwnedSemaphorePermit,
}

impl Session {
    pub(super) fn new(consoles: Consoles, about: About, who: Principal, joined: Joined) -> Self {
        let Joined { line, seen, recording, cut, place } = joined;
        Self {
            id: about.session,
            wake: line.watch(),
            consoles,
            line,
            about,
            asked: asking(),
            who,
            seen,
            ready: VecDeque::new(),
            recording,
            over: None,
            cut,
            _place: place,
        }
    }

    /// What to show next; waits for it. After [`Said::Ended`] there is only that. May be dropped and called again.
    pub async fn next(&mut self) -> Said {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return said;
            }
            if let Some(reason) = &self.over {
                return Said::Ended(reason.clone());
            }
            self.wake.borrow_and_update();
            self.collect().await;
            if !self.ready.is_empty() || self.over.is_some() {
                continue;
            }
            if self.wake.changed().await.is_err() {
                self.end("the console is gone"); // this session has the line: it does not end before us
            }
        }
    }

    /// Cancelled when the session is over: whoever waits for its client waits no longer than that.
    pub fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Records what is new and makes it ready to be shown. Dropped while it waits, it has done nothing.
    async fn collect(&mut self) {
        let recording = self.recording.clone();
        let Ok(mut places) = recording.reserve_many(2).await else {
            return self.end(NOT_RECORDED);
        };
        let mut record = |kind, octets: &[u8]| {
            if let Some(place) = places.next() {
                place.send(Entry::now(kind, octets));
            }
        };
        let news = self.line.news(self.id, &mut self.seen, PIECE_MAX);
        if let Some(reason) = news.ended {
            return self.end(&reason);
        }
        let skipped = news.piece.skipped;
        if skipped > 0 {
            record(Kind::Marker, format!("{skipped} octets came too fast and are not shown").as_bytes());
            self.ready.push_back(Said::Skipped(skipped));
        }
        if !news.piece.octets.is_empty() {
            record(Kind::Output, &news.piece.octets);
            self.ready.push_back(Said::Output(news.piece.octets));
        }
        self.ready.extend(news.notices.into_iter().map(Said::Notice));
        self.ready.extend(news.view.map(|view| Said::Presence(Box::new(view))));
    }

    fn end(&mut self, reason: &str) {
        self.line.end(self.id, reason);
        self.over.get_or_insert_with(|| reason.to_owned());
    }

    /// Sends what was typed. Where it cannot be, a notice says why.
    pub async fn send(&mut self, octets: &[u8]) {
        if self.over.is_some() || octets.is_empty() {
            return;
        }
        let input = match self.line.input(self.id) {
            Ok(input) => input,
            Err(why) => return self.ready.push_back(Said::Notice(why)),
        };
        if self.recording.send(Entry::now(Kind::Input, octets)).await.is_err() {
            return self.end(NOT_RECORDED);
        }
        for piece in octets.chunks(INPUT_MAX) {
            let sending = tokio::time::timeout(INPUT_WAIT, input.send(piece.to_vec()));
            tokio::select! {
                sent = sending => if !matches!(sent, Ok(Ok(()))) {
                    let why = "not typed: the machine does not take what is typed";
                    return self.ready.push_back(Said::Notice(why.to_owned()));
                },
                () = self.cut.cancelled() => return,
            }
        }
    }

    /// As a person types into a terminal: the first who does so while nobody types has the place. Escape sequences, with
    /// which terminals answer by themselves, do not ask for it.
    pub async fn typed(&mut self, octets: &[u8]) {
        if self.line.input(self.id).is_err() && (octets.starts_with(b"\x1b") || !self.ask(false).await) {
            return;
        }
        self.send(octets).await;
    }

    /// Asks to type; with `take`, whoever does now. True where it does from now on.
    pub async fn ask(&mut self, take: bool) -> bool {
        if self.over.is_some() {
            return false;
        }
        match self.line.ask(self.id, take) {
            Ok((_, Some(from))) => {
                let message = format!("{} took over typing from {from}", self.about.who);
                self.consoles
                    .note(&self.who, self.about.node, "console.taken", Severity::Info, message)
                    .await;
                true
            }
            Ok((_, None)) => true,
            Err(why) => {
                self.ready.push_back(Said::Notice(why));
                false
            }
        }
    }

    /// No longer types.
    pub fn release(&self) {
        self.line.release(self.id);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.line.leave(self.id);
        let (consoles, who, about) = (self.consoles.clone(), self.who.clone(), self.about.clone());
        let over = self.over.take();
        self.consoles.spawn(within(self.asked.clone(), async move {
            let why = over.map_or_else(String::new, |over| format!(": {over}"));
            let message = format!("{} left the console, from {} ({}){why}", about.who, about.from, about.via);
            consoles.note(&who, about.node, "console.closed", Severity::Info, message).await;
        }));
    }
}
