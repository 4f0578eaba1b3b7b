//! `--watch` of a list: printed anew whenever it has become another one.
//!
//! ```text
//! stream of events ──wakes──▶ look ─▶ another text? print it
//! nothing for --every ──────▶ look
//! ```
//!
//! The stream says only *that* something happened; what is printed is always what the list's own address answers. Some
//! things change without an event (measurements, what other projects take), so there is a look now and then without one.

use std::io::{self, BufRead, BufReader, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::client::Client;
use super::output::{Format, Show, print};

/// The stream of the whole site; a project has its own below its address.
pub(super) const SITE: &str = "events/stream";
/// What comes within this time after a change is looked at together with it.
const SETTLE: Duration = Duration::from_millis(400);
/// Pause before a broken stream is opened again.
const REOPEN: Duration = Duration::from_secs(2);
/// A server that restarts is back within this time.
const SERVER_GONE_MAX: Duration = Duration::from_mins(5);

/// Whether to stay with a list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct AgainArgs {
    /// Print it again whenever it changes, until Ctrl-C ends that
    #[arg(long)]
    watch: bool,
    /// With --watch: look so often, in seconds, also where nothing was announced
    #[arg(long, value_name = "SECONDS", default_value_t = 15, requires = "watch",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
}

impl AgainArgs {
    /// Prints what `get` answers once, or whenever it has become something else; `stream` is the stream of events that
    /// announces it.
    ///
    /// # Errors
    /// Where it cannot be had, the server is gone for minutes, or the output is closed.
    pub(super) fn list<T: Show>(
        self,
        client: &Client,
        stream: &str,
        format: Format,
        get: impl Fn() -> Result<T, Failure>,
    ) -> Result<(), Failure> {
        if !self.watch {
            return format.print(&get()?);
        }
        let woken = listen(client.clone(), stream.to_owned());
        let (mut shown, mut answered) = (None, Instant::now());
        loop {
            match get() {
                Ok(list) => {
                    answered = Instant::now();
                    let text = format.render(&list)?;
                    if shown.as_ref() != Some(&text) {
                        // Over what was there (ECMA-48: cursor home, erase the page); for a file one after the other.
                        let clear = if io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
                        print(&format!("{clear}{text}"))?;
                        shown = Some(text);
                    }
                }
                // It was there once, so it comes back.
                Err(Failure::Unreachable { .. } | Failure::Timeout(_))
                    if shown.is_some() && answered.elapsed() < SERVER_GONE_MAX => {}
                Err(other) => return Err(other),
            }
            wait(&woken, Duration::from_secs(self.every.into()));
        }
    }
}

/// Waits until something happened, or for so long.
fn wait(woken: &Receiver<()>, longest: Duration) {
    match woken.recv_timeout(longest) {
        Ok(()) => {
            thread::sleep(SETTLE);
            while woken.try_recv().is_ok() {}
        }
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => thread::sleep(longest),
    }
}

/// Follows a stream in the background and says that something happened. A server that refuses the stream is asked no more:
/// then the list is looked at now and then alone.
fn listen(client: Client, stream: String) -> Receiver<()> {
    let (wake, woken) = sync_channel(1);
    thread::spawn(move || {
        loop {
            match client.stream(&stream, None) {
                // What happened before it was open is looked at, too.
                Ok(reader) => {
                    if !(announce(&wake) && messages(BufReader::new(reader), &wake)) {
                        return;
                    }
                }
                Err(Failure::Unreachable { .. } | Failure::Timeout(_)) => {}
                Err(_) => return,
            }
            thread::sleep(REOPEN);
        }
    });
    woken
}

/// Announces every message of a stream of server-sent events (HTML standard, section 9.2.6); comments are none. False where
/// nobody listens any more.
fn messages(reader: impl BufRead, wake: &SyncSender<()>) -> bool {
    let lines = reader.split(b'\n').map_while(Result::ok);
    lines.filter(|line| line.starts_with(b"data:")).all(|_| announce(wake))
}

/// Says that something happened, where that was not said yet. False where nobody listens any more.
fn announce(wake: &SyncSender<()>) -> bool {
    !matches!(wake.try_send(()), Err(TrySendError::Disconnected(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_wakes_and_a_comment_does_not() {
        let (wake, woken) = sync_channel(1);
        assert!(messages(": hello\n\n: still here\n\n".as_bytes(), &wake));
        assert!(woken.try_recv().is_err(), "comments are no news");
        assert!(messages("event: node\ndata: {}\n\nevent: node\ndata: {}\n\n".as_bytes(), &wake));
        assert_eq!(woken.try_recv(), Ok(()));
        assert!(woken.try_recv().is_err(), "two changes at once are one look");
        drop(woken);
        assert!(!messages("data: {}\n".as_bytes(), &wake), "nobody listens");
    }
}
