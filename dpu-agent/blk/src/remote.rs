//! Requests to a backend that may go away: they wait, are sent again in their order when it is back, and become errors after
//! a deadline.
//!
//! ```text
//! rings ── submit ─▶ pending, in order ── writer ─▶ link ─▶ daemon ─▶ backend
//!   ▲                  │  ▲                           │
//!   └──── done ────────┘  └──── again, when it broke ─┴─ reader
//!                      └─ late ─▶ error, and the daemon is ended: what it still holds must never reach the backend
//! ```
//!
//! A request goes in steps of bounded size, one at a time, and its bytes stay in the guest's memory until they are sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Link};
use crate::event::{Event, say};
use crate::nbd::{self, Command, Export};

/// Bytes of one step; one buffer of that size is needed for each direction.
pub const STEP: u32 = 1 << 20;
/// Between two looks at deadlines.
const TICK: Duration = Duration::from_millis(100);
/// How long a backend is waited for whose size is known from before.
const MOMENT: Duration = Duration::from_secs(5);
/// What QEMU says of a key that is not that of the backend (`qcrypto_block_luks_find_key`).
const WRONG_KEY: &str = "cannot unlock any keyslot";
/// Pauses before the daemon is started again, the last of them over and over.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub command: Command,
    /// Where in the volume.
    pub at: u64,
    /// Bytes, of reads and writes [`STEP`] at most.
    pub length: u32,
    /// Where in the request's data.
    pub skip: u64,
}

/// Whose request it is.
pub trait Request: Send + Sync {
    /// Bytes to be written, from `skip` on; false where the guest does not want it any more.
    fn gather(&self, skip: u64, into: &mut [u8]) -> bool;

    /// Bytes that were read, to `skip`.
    fn scatter(&self, skip: u64, from: &[u8]);

    /// It was done, or not.
    fn done(&self, is_done: bool);
}

/// A backend.
pub struct Remote {
    shared: Arc<Shared>,
    export: Export,
}

struct Shared {
    deadline: Duration,
    state: Mutex<State>,
    /// Something is to be sent.
    work: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    pending: BTreeMap<u64, Pending>,
    unsent: VecDeque<u64>,
    link: Option<UnixStream>,
}

struct Pending {
    request: Arc<dyn Request>,
    steps: VecDeque<Step>,
    since: Instant,
}

impl Remote {
    /// Starts the daemon, and waits until it serves its disk. Where the disk was known before, from `known`, it is not waited for
    /// much longer than a moment: a host may have requests under way that have a deadline.
    ///
    /// # Errors
    /// Where our own threads cannot be started, the file `known` cannot be written, or the backend is encrypted with another key:
    /// waiting mends none of these.
    pub fn start(daemon: Daemon, deadline: Duration, known: &Path) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { deadline, state, work: Condvar::new() });
        let (tell, told) = std::sync::mpsc::channel();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
        };
        let own = shared.clone();
        spawn("link", Box::new(move || own.keep(&daemon, &tell)))?;
        let own = shared.clone();
        spawn("writer", Box::new(move || own.write()))?;
        let own = shared.clone();
        spawn("deadline", Box::new(move || own.watch()))?;
        // A file that is missing or damaged is as good as none.
        let before = std::fs::read(known).ok().and_then(|text| serde_json::from_slice::<Export>(&text).ok());
        let export = match (told.recv_timeout(MOMENT), before) {
            (Ok(first), _) => first?,
            (Err(RecvTimeoutError::Timeout), Some(before)) => return Ok(Self { shared, export: before }),
            _ => told.recv().map_err(io::Error::other)??,
        };
        std::fs::write(known, serde_json::to_vec(&export)?)?;
        Ok(Self { shared, export })
    }

    /// What the backend has.
    pub fn export(&self) -> Export {
        self.export
    }

    /// Carries out a request. Requests are sent in the order in which they come here.
    pub fn submit(&self, steps: VecDeque<Step>, request: Arc<dyn Request>) {
        if steps.is_empty() {
            return request.done(true);
        }
        let mut state = self.shared.lock();
        state.last += 1;
        let handle = state.last;
        state.pending.insert(handle, Pending { request, steps, since: Instant::now() });
        state.unsent.push_back(handle);
        drop(state);
        self.shared.work.notify_one();
    }

    /// The number of the newest request.
    pub fn newest(&self) -> u64 {
        self.shared.lock().last
    }

    /// Whether all requests up to this number are done.
    pub fn is_settled(&self, up_to: u64) -> bool {
        self.shared.lock().pending.first_key_value().is_none_or(|(first, _)| *first > up_to)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the daemon run and connected, for ever.
    fn keep(&self, daemon: &Daemon, tell: &std::sync::mpsc::Sender<io::Result<Export>>) {
        let mut failed = 0;
        let mut size = None;
        loop {
            let lost = match daemon.start() {
                Ok(link) if size.is_some_and(|size| size > link.export.size) => {
                    io::Error::other(format!("the backend has {} bytes, fewer than before", link.export.size))
                }
                Ok(link) => {
                    if failed > 0 {
                        say(&Event::BackendBack);
                    }
                    failed = 0;
                    size.get_or_insert(link.export.size);
                    // Of the first only is waited for.
                    let _ = tell.send(Ok(link.export));
                    self.connected(link)
                }
                Err(error) => error,
            };
            if failed == 0 {
                say(&Event::BackendAway { reason: lost.to_string() });
            }
            if size.is_none() && lost.to_string().contains(WRONG_KEY) {
                // Where nobody waits for it any more, that is over.
                let _ = tell.send(Err(lost));
                return;
            }
            std::thread::sleep(*PAUSES.get(failed).unwrap_or(&Duration::from_secs(2)));
            failed = (failed + 1).min(PAUSES.len());
        }
    }

    /// Sends all again that was not answered, and takes answers until the connection breaks; why it did.
    fn connected(&self, link: Link) -> io::Error {
        let (mut reader, writer) = match (link.stream.try_clone(), link.stream.try_clone()) {
            (Ok(reader), Ok(writer)) => (reader, writer),
            (Err(error), _) | (_, Err(error)) => return error,
        };
        let mut state = self.lock();
        state.unsent = state.pending.keys().copied().collect();
        if !state.unsent.is_empty() {
            say(&Event::Resent { requests: state.unsent.len() });
        }
        state.link = Some(writer);
        drop(state);
        self.work.notify_one();
        let mut buffer = Vec::new();
        let lost = loop {
            if let Err(error) = self.take(&mut reader, &mut buffer) {
                break error;
            }
        };
        self.lock().link = None;
        // With the link ends the daemon, before another one is started.
        drop(link);
        lost
    }

    /// Takes one answer.
    fn take(&self, reader: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<()> {
        let reply = nbd::reply(reader)?;
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "an answer to what was not asked");
        let (request, step) = {
            let state = self.lock();
            let pending = state.pending.get(&reply.handle).ok_or_else(unknown)?;
            (pending.request.clone(), *pending.steps.front().ok_or_else(unknown)?)
        };
        if reply.error == 0 && step.command == Command::Read {
            buffer.resize(step.length as usize, 0);
            reader.read_exact(buffer)?;
            request.scatter(step.skip, buffer);
        }
        if reply.error != 0 {
            let reason = io::Error::from_raw_os_error(reply.error.cast_signed()).to_string();
            say(&Event::Failed { action: action(step.command), reason });
        }
        let mut state = self.lock();
        // Where it is late it was answered already.
        let Some(pending) = state.pending.get_mut(&reply.handle) else { return Ok(()) };
        pending.steps.pop_front();
        if reply.error == 0 && !pending.steps.is_empty() {
            state.unsent.push_back(reply.handle);
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        state.pending.remove(&reply.handle);
        drop(state);
        request.done(reply.error == 0);
        Ok(())
    }

    /// Sends what is to be sent, for ever.
    fn write(&self) {
        let mut buffer = Vec::new();
        loop {
            let mut state = self.lock();
            let (handle, link) = loop {
                let next = if state.link.is_some() { state.unsent.pop_front() } else { None };
                match (next, &state.link) {
                    (Some(handle), Some(link)) => break (handle, link.try_clone()),
                    _ => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            let Some(pending) = state.pending.get(&handle) else { continue };
            let (request, step) = (pending.request.clone(), pending.steps.front().copied());
            drop(state);
            let (Ok(link), Some(step)) = (link, step) else { continue };
            let length = if step.command == Command::Write { step.length as usize } else { 0 };
            buffer.resize(length, 0);
            if length > 0 && !request.gather(step.skip, &mut buffer) {
                self.lock().pending.remove(&handle);
                continue;
            }
            let head = nbd::request(step.command, handle, step.at, step.length);
            let sent = (&link).write_all(&head).and_then(|()| (&link).write_all(&buffer));
            if sent.is_err() {
                // The reader sees to it that all is sent again.
                let _ = link.shutdown(Shutdown::Both);
            }
        }
    }

    /// Makes errors of what waits too long, for ever.
    fn watch(&self) {
        loop {
            std::thread::sleep(TICK);
            let mut state = self.lock();
            let late: Vec<u64> = state
                .pending
                .iter()
                .filter(|(_, pending)| pending.since.elapsed() >= self.deadline)
                .map(|(handle, _)| *handle)
                .collect();
            if late.is_empty() {
                continue;
            }
            let gone: Vec<_> = late.iter().filter_map(|handle| state.pending.remove(handle)).collect();
            // What the daemon still holds of them must not reach the backend later, over what the guest writes then.
            if let Some(link) = state.link.take() {
                let _ = link.shutdown(Shutdown::Both);
            }
            drop(state);
            say(&Event::BackendLate { requests: gone.len() });
            gone.iter().for_each(|pending| pending.request.done(false));
        }
    }
}

fn action(command: Command) -> &'static str {
    match command {
        Command::Read => "read",
        Command::Write => "write",
        Command::Flush => "flush",
        Command::Zero => "zero",
    }
}
