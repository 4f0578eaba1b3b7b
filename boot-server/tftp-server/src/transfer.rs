//! One transfer to one client, as a state machine without socket or clock.
//!
//! ```text
//!            with options                      ACK 0
//!   new ───────────────────▶ Offered (OACK) ───────────▶ Sending ──ACK of the last block──▶ Ended
//!    └───no options: block 1 alone, window 1 ──────────────▲ │
//!                                                          └─┘ ACK n: window moves on
//!   any ──ERROR from the client, silence, deadline, read error──▶ Ended
//! ```
//!
//! No data beyond one packet leaves before the client has answered from its address (ACK 0 or ACK 1), so a forged
//! source address gets no more than it was sent. A packet is sent again by the timer only, never because an ACK came
//! twice: that is the Sorcerer's Apprentice bug (RFC 1123 section 4.2.3.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::files::File;
use crate::limits;
use crate::netascii::{self, Cursor};
use crate::packet::{self, ErrorCode, Mode, Packet, Request, RequestOptions};

/// A read request being served. Feed it with [`handle_packet`](Self::handle_packet) and
/// [`handle_timeout`](Self::handle_timeout), and after each drain [`poll_transmit`](Self::poll_transmit).
#[derive(Debug)]
pub struct Transfer {
    file: File,
    mode: Mode,
    blksize: u16,
    window: u16,
    /// Fixed by the `timeout` option; else adaptive.
    fixed_rto: Option<Duration>,
    oack: RequestOptions,
    state: State,
    rto: Duration,
    retries: u32,
    retransmitted: u64,
    started: Instant,
    timer: Instant,
}

/// What a transfer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every block was acknowledged.
    Complete,
    /// It was not.
    Failed(Failure),
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The client sent ERROR. Code 8 or 0 right after the OACK is ordinary: firmware asked for the size only.
    #[error("client gave up with error {code}: {message}")]
    Client {
        /// Code.
        code: ErrorCode,
        /// Text, cut to [`limits::ERROR_TEXT_MAX`].
        message: String,
    },
    /// No acknowledgement to any of [`limits::RETRIES_MAX`] retransmissions.
    #[error("client fell silent")]
    Silent,
    /// Longer than [`limits::TRANSFER_MAX`].
    #[error("transfer took too long")]
    Deadline,
    /// The file could not be read; the client was told.
    #[error("file could not be read: {0}")]
    Read(std::io::ErrorKind),
    /// The client's system said that nobody listens there.
    #[error("client is gone")]
    Gone,
    /// The server stopped; the client was told.
    #[error("server stops")]
    Stopped,
}

/// The log line of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Octets acknowledged, at most the size of the file.
    pub bytes: u64,
    /// Packets sent more than once.
    pub retransmitted: u64,
    /// From request to end.
    pub elapsed: Duration,
}

#[derive(Debug)]
enum State {
    Offered { unsent: bool },
    Sending(Window),
    Ended { outcome: Outcome, blocks: u64, last_words: Option<(ErrorCode, &'static str)> },
}

/// The blocks between the last acknowledged one and the next one to send. Block numbers count from 1 without
/// wrapping; only the wire has 16 bits.
#[derive(Debug)]
struct Window {
    /// First block that is not acknowledged.
    base: u64,
    /// Where each block that was sent starts, from `base` on.
    starts: VecDeque<Cursor>,
    /// Where the next block to send starts.
    tail: Cursor,
    /// The last block of the file, once it was made.
    last: Option<u64>,
    /// Blocks below this one were sent before.
    highest: u64,
}

impl Window {
    fn new() -> Self {
        Self { base: 1, starts: VecDeque::new(), tail: Cursor::default(), last: None, highest: 1 }
    }

    fn next(&self) -> u64 {
        self.base + self.starts.len() as u64
    }

    /// Forgets that anything after `base` was sent.
    fn rewind(&mut self) {
        if let Some(start) = self.starts.front() {
            self.tail = *start;
            self.starts.clear();
        }
    }

    /// The block that a 16-bit ACK means: one that is in flight, or the one before them. `None` for any other.
    fn acked(&self, wire: u16) -> Option<u64> {
        let before = self.base - 1;
        // The low 16 bits are what the wire carries; RFC 1350 says nothing of more blocks, and all wrap to 0.
        let ahead = u64::from(wire.wrapping_sub(before as u16));
        (ahead <= self.starts.len() as u64).then_some(before + ahead)
    }
}

impl Transfer {
    /// Starts to serve `request` from `file`.
    pub fn new(now: Instant, request: &Request<'_>, file: File) -> Self {
        let oack = negotiate(&request.options, request.mode, file.len());
        let fixed_rto = oack.timeout.map(Duration::from_secs);
        let rto = fixed_rto.unwrap_or(limits::RTO_MIN);
        let state =
            if oack.is_empty() { State::Sending(Window::new()) } else { State::Offered { unsent: true } };
        Self {
            file,
            mode: request.mode,
            blksize: granted(oack.blksize, limits::BLOCK_DEFAULT),
            window: granted(oack.windowsize, 1),
            fixed_rto,
            oack,
            state,
            rto,
            retries: 0,
            retransmitted: 0,
            started: now,
            timer: now + rto,
        }
    }

    /// Takes one datagram from the client. What is no packet or does not belong here is ignored.
    pub fn handle_packet(&mut self, now: Instant, bytes: &[u8]) {
        match Packet::parse(bytes) {
            Ok(Packet::Ack { block }) => self.handle_ack(now, block),
            Ok(Packet::Error { code, message }) => {
                let message =
                    message.chars().filter(|c| !c.is_control()).take(limits::ERROR_TEXT_MAX).collect();
                self.end(Outcome::Failed(Failure::Client { code, message }), None);
            }
            _ => {}
        }
    }

    /// Call at or after the moment that [`poll_timeout`](Self::poll_timeout) named; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.started + limits::TRANSFER_MAX {
            return self.fail(Failure::Deadline, "transfer took too long");
        }
        if now < self.timer {
            return;
        }
        if self.retries >= limits::RETRIES_MAX {
            return self.end(Outcome::Failed(Failure::Silent), None);
        }
        self.retries += 1;
        if self.fixed_rto.is_none() {
            self.rto = (self.rto * 2).min(limits::RTO_MAX);
        }
        self.timer = now + self.rto;
        match &mut self.state {
            State::Offered { unsent } => {
                *unsent = true;
                self.retransmitted += 1;
            }
            State::Sending(window) => window.rewind(),
            State::Ended { .. } => {}
        }
    }

    /// The client's system answered that no one listens on its port (ICMP).
    pub fn handle_unreachable(&mut self) {
        self.end(Outcome::Failed(Failure::Gone), None);
    }

    /// The server stops: tells the client.
    pub fn stop(&mut self) {
        self.fail(Failure::Stopped, "server stops");
    }

    /// Puts the next packet to send into `out` and returns true, or returns false where there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        match &mut self.state {
            State::Offered { unsent } => {
                let send = std::mem::take(unsent);
                if send {
                    packet::emit_oack(out, &self.oack);
                }
                send
            }
            State::Sending(_) => self.poll_block(out),
            State::Ended { last_words, .. } => match last_words.take() {
                Some((code, words)) => {
                    packet::emit_error(out, code, words);
                    true
                }
                None => false,
            },
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` once it ended.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ended { .. } => None,
            _ => Some(self.timer.min(self.started + limits::TRANSFER_MAX)),
        }
    }

    /// How it ended, once it did.
    pub fn summary(&self, now: Instant) -> Option<Summary> {
        let State::Ended { outcome, blocks, .. } = &self.state else { return None };
        Some(Summary {
            outcome: outcome.clone(),
            bytes: (blocks * u64::from(self.blksize)).min(self.file.len()),
            retransmitted: self.retransmitted,
            elapsed: now.saturating_duration_since(self.started),
        })
    }

    fn handle_ack(&mut self, now: Instant, block: u16) {
        match &mut self.state {
            State::Offered { .. } if block == 0 => {
                self.state = State::Sending(Window::new());
                self.made_progress(now);
            }
            State::Sending(window) => {
                let Some(acked) = window.acked(block) else { return };
                if acked < window.base {
                    return;
                }
                if window.last == Some(acked) {
                    window.base = acked + 1;
                    return self.end(Outcome::Complete, None);
                }
                let done = acked + 1 - window.base;
                window.starts.drain(..usize::try_from(done).unwrap_or(usize::MAX).min(window.starts.len()));
                window.base = acked + 1;
                // The ACK of a block inside the window says that the ones after it are lost (RFC 7440 section 4).
                window.rewind();
                self.made_progress(now);
            }
            State::Offered { .. } | State::Ended { .. } => {}
        }
    }

    fn made_progress(&mut self, now: Instant) {
        if self.fixed_rto.is_none() && self.retries == 0 {
            self.rto = (self.rto / 2).max(limits::RTO_MIN);
        }
        self.retries = 0;
        self.timer = now + self.rto;
    }

    fn poll_block(&mut self, out: &mut Vec<u8>) -> bool {
        let State::Sending(window) = &mut self.state else { return false };
        let next = window.next();
        if window.starts.len() >= usize::from(self.window) || window.last.is_some_and(|last| next > last) {
            return false;
        }
        let start = window.tail;
        packet::emit_data_header(out, next as u16);
        let header = out.len();
        let read = match self.mode {
            Mode::Octet => read_octets(&self.file, &mut window.tail, usize::from(self.blksize), out),
            Mode::Netascii => netascii::read(&self.file, &mut window.tail, usize::from(self.blksize), out),
        };
        if let Err(error) = read {
            let failure = Failure::Read(error.kind());
            self.fail(failure, "file could not be read");
            return self.poll_transmit(out);
        }
        if out.len() - header < usize::from(self.blksize) {
            window.last = Some(next);
        }
        window.starts.push_back(start);
        if next < window.highest {
            self.retransmitted += 1;
        }
        window.highest = window.highest.max(next + 1);
        true
    }

    fn fail(&mut self, failure: Failure, words: &'static str) {
        self.end(Outcome::Failed(failure), Some((ErrorCode::UNDEFINED, words)));
    }

    fn end(&mut self, outcome: Outcome, last_words: Option<(ErrorCode, &'static str)>) {
        let blocks = match &self.state {
            State::Offered { .. } => 0,
            State::Sending(window) => window.base - 1,
            State::Ended { .. } => return,
        };
        self.state = State::Ended { outcome, blocks, last_words };
    }
}

/// What of the client's wishes is granted, in the form of the OACK. Absurd values are clamped where the RFC lets a
/// server answer with less, else the option is left out, which refuses it.
fn negotiate(asked: &RequestOptions, mode: Mode, len: u64) -> RequestOptions {
    let at_least = |value: Option<u64>, min: u16| value.filter(|v| *v >= u64::from(min));
    RequestOptions {
        blksize: at_least(asked.blksize, limits::BLOCK_MIN).map(|v| v.min(limits::BLOCK_MAX.into())),
        // RFC 2349: 1 to 255 seconds, and the server must answer with the same value or not at all.
        timeout: asked.timeout.filter(|v| (1..=255).contains(v)),
        // In netascii the size on the wire is another one than in the file.
        tsize: asked.tsize.filter(|_| mode == Mode::Octet).map(|_| len),
        windowsize: at_least(asked.windowsize, 1).map(|v| v.min(limits::WINDOW_MAX.into())),
    }
}

fn granted(value: Option<u64>, default: u16) -> u16 {
    value.and_then(|v| u16::try_from(v).ok()).unwrap_or(default)
}

fn read_octets(file: &File, cursor: &mut Cursor, len: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
    let start = out.len();
    out.resize(start + len, 0);
    let got = file.read_at(cursor.offset, &mut out[start..])?;
    out.truncate(start + got);
    cursor.offset += got as u64;
    Ok(())
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
