//! A machine's serial console: every line stamped and kept, to wait for and to read afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Lines shown when one that was waited for did not come.
const TAIL: usize = 25;

/// A line and when it was complete, since the machine was made.
#[derive(Debug, Clone)]
pub struct Line {
    /// Since the console was opened.
    pub at: Duration,
    /// The text, without control sequences.
    pub text: String,
}

/// What a machine has said; clones see the same.
#[derive(Debug, Clone)]
pub struct Serial {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
    since: Instant,
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    /// The line that is not complete yet (a prompt never is).
    partial: String,
    /// Lines before this were waited for already.
    mark: usize,
    log: File,
    /// Who gets the octets as they are.
    listeners: Vec<Sender<Vec<u8>>>,
}

impl Serial {
    /// A console that also writes to the file `log`.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn new(log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        let state = State { lines: Vec::new(), partial: String::new(), mark: 0, log, listeners: Vec::new() };
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                grown: Condvar::new(),
                since: Instant::now(),
            }),
        })
    }

    /// Reads until `from` ends, in a thread of its own.
    pub fn follow(&self, mut from: impl Read + Send + 'static) {
        let serial = self.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut filter = Filter::default();
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                serial.lock().listeners.retain(|l| l.send(bytes[..n].to_vec()).is_ok());
                serial.take(&filter.text(&bytes[..n]));
            }
        });
    }

    /// What is said from now on, octet by octet, across all power cycles. All of it waits for a listener, however far behind it
    /// is: a busy machine must not look like one that fell silent.
    pub fn listen(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = channel();
        self.lock().listeners.push(sender);
        receiver
    }

    /// Waits for a line that contains `text`, not looking at lines that an earlier wait has passed.
    ///
    /// # Errors
    /// Where none comes within `timeout`; the error shows the last lines.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<Line> {
        self.wait_for_any(&[text], timeout).map(|(_, line)| line)
    }

    /// Waits for a line that contains one of `texts`; returns which.
    ///
    /// # Errors
    /// As [`Serial::wait_for`].
    pub fn wait_for_any(&self, texts: &[&str], timeout: Duration) -> Result<(usize, Line)> {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let found = state.lines.iter().enumerate().skip(state.mark).find_map(|(index, line)| {
                let which = texts.iter().position(|t| line.text.contains(t))?;
                Some((index, which, line.clone()))
            });
            if let Some((index, which, line)) = found {
                state.mark = index + 1;
                return Ok((which, line));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let from = state.lines.len().saturating_sub(TAIL);
                let tail: Vec<_> = state.lines[from..].iter().map(|l| l.text.as_str()).collect();
                bail!("no {texts:?} on the console within {timeout:?}; its last lines:\n{}", tail.join("\n"));
            }
            state = self.shared.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for `text` in the line that is not complete, as a prompt is.
    ///
    /// # Errors
    /// Where it does not come within `timeout`.
    pub fn wait_for_prompt(&self, text: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.partial.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no prompt {text:?} within {timeout:?}, but {:?}", state.partial);
            }
            state = self.shared.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.mark = state.lines.len();
        Ok(())
    }

    /// Everything said so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// True where a line that contains `text` was said, ever.
    pub fn said(&self, text: &str) -> bool {
        self.lock().lines.iter().any(|l| l.text.contains(text))
    }

    /// Makes the waits begin here: what was said before is passed over.
    pub fn skip_to_end(&self) {
        let mut state = self.lock();
        state.mark = state.lines.len();
        state.partial.clear();
    }

    /// Writes a line of our own among the machine's, such as "power on".
    pub fn note(&self, text: &str) {
        let mut state = self.lock();
        let at = self.shared.since.elapsed();
        let _ = writeln!(state.log, "{:9.3} ---- {text}", at.as_secs_f64());
    }

    fn take(&self, text: &str) {
        let at = self.shared.since.elapsed();
        let mut state = self.lock();
        for c in text.chars() {
            if c != '\n' {
                state.partial.push(c);
                continue;
            }
            let line = std::mem::take(&mut state.partial);
            if !line.trim().is_empty() {
                let _ = writeln!(state.log, "{:9.3} {line}", at.as_secs_f64());
                state.lines.push(Line { at, text: line });
            }
        }
        self.shared.grown.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes terminal control sequences (ECMA-48) and carriage returns out of a stream that arrives in pieces.
#[derive(Debug, Default)]
struct Filter {
    escape: Escape,
}

#[derive(Debug, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    Started,
    Control,
    Charset,
}

impl Filter {
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.escape = match (&self.escape, byte) {
                (_, 0x1b) => Escape::Started,
                (Escape::Started, b'[') => Escape::Control,
                (Escape::Started, b'(' | b')' | b'#') => Escape::Charset,
                (Escape::Started | Escape::Charset, _) => Escape::None,
                (Escape::Control, 0x40..=0x7e) => Escape::None,
                (Escape::Control, _) => Escape::Control,
                (Escape::None, byte) => {
                    if byte == b'\n' || byte == b'\t' || byte >= b' ' {
                        out.push(byte);
                    }
                    Escape::None
                }
            };
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_taken_out_wherever_the_stream_is_cut() {
        let input = b"\x1b[2J\x1b[01;31mHello\x1b[0m\r\n\x1b(Bworld\x1b=\n";
        for cut in 0..input.len() {
            let mut filter = Filter::default();
            let text = filter.text(&input[..cut]) + &filter.text(&input[cut..]);
            assert_eq!(text, "Hello\nworld\n", "cut at {cut}");
        }
    }

    #[test]
    fn waiting_passes_lines_once_and_sees_prompts() {
        let dir = std::env::temp_dir().join(format!("serial-{}", std::process::id()));
        let serial = Serial::new(&dir).unwrap();
        let short = Duration::from_millis(10);
        serial.take("one\ntwo\nthree: ");
        assert_eq!(serial.wait_for("o", short).unwrap().text, "one");
        assert_eq!(serial.wait_for("o", short).unwrap().text, "two");
        assert!(serial.wait_for("three", short).is_err(), "the line is not complete");
        serial.wait_for_prompt("three: ", short).unwrap();
        let error = serial.wait_for("one", short).unwrap_err().to_string();
        assert!(error.contains("two"), "{error}");
        assert!(serial.said("one"));
        std::fs::remove_file(dir).unwrap();
    }
}
