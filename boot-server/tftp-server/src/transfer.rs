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
use crate::round_trip::RoundTrip;

/// A read request being served. Feed it with [`handle_packet`](Self::handle_packet) and
/// [`handle_timeout`](Self::handle_timeout), and after each drain [`poll_burst`](Self::poll_burst), or
/// [`poll_transmit`](Self::poll_transmit) for one packet at a time.
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
    round_trip: RoundTrip,
    rto: Duration,
    retries: u32,
    retransmitted: u64,
    started: Instant,
    /// When the client last acknowledged something new.
    progress: Instant,
    timer: Instant,
    /// The latest moment that was told.
    now: Instant,
}

/// Packets that may leave now, made by [`Transfer::poll_burst`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Octets of each packet but the last one, which may be shorter.
    pub segment: usize,
    /// Octets of all packets.
    pub len: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Oack,
    LastWords,
    /// `tail` is where the block after them starts; `ends` where the last of them is the file's last.
    Blocks {
        count: u16,
        tail: Cursor,
        ends: bool,
    },
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
    /// No acknowledgement for [`limits::SILENCE_MAX`].
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
        Self::over(now, request, file, limits::BLOCK_MAX)
    }

    /// The same over a path that carries blocks of at most `block_max` octets, at least [`limits::BLOCK_MIN`].
    pub fn over(now: Instant, request: &Request<'_>, file: File, block_max: u16) -> Self {
        let block_max = block_max.clamp(limits::BLOCK_MIN, limits::BLOCK_MAX);
        let oack = negotiate(&request.options, request.mode, file.len(), block_max);
        let fixed_rto = oack.timeout.map(Duration::from_secs);
        let rto = fixed_rto.unwrap_or(limits::RTO_FIRST);
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
            round_trip: RoundTrip::default(),
            rto,
            retries: 0,
            retransmitted: 0,
            started: now,
            progress: now,
            timer: now + rto,
            now,
        }
    }

    /// Takes one datagram from the client. What is no packet or does not belong here is ignored.
    pub fn handle_packet(&mut self, now: Instant, bytes: &[u8]) {
        self.now = now;
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
        self.now = now;
        if now >= self.started + limits::TRANSFER_MAX {
            return self.fail(Failure::Deadline, "transfer took too long");
        }
        if now < self.timer {
            return;
        }
        if self.retries >= limits::RETRIES_MIN && now >= self.progress + limits::SILENCE_MAX {
            return self.end(Outcome::Failed(Failure::Silent), None);
        }
        self.retries += 1;
        self.round_trip.forget();
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
        out.resize(usize::from(limits::BLOCK_MAX) + limits::HEADER, 0);
        let burst = self.poll_packets(1, out);
        out.truncate(burst.map_or(0, |b| b.len));
        if let Some(burst) = burst {
            self.burst_sent(burst);
        }
        burst.is_some()
    }

    /// Puts the next packets to send, one behind the other, into `out`, which has [`limits::BURST_OCTETS`]. They count as
    /// sent only after [`burst_sent`](Self::burst_sent); until then the same ones are offered again, so nobody has to
    /// keep what the kernel would not take.
    pub fn poll_burst(&mut self, out: &mut [u8]) -> Option<Burst> {
        self.poll_packets(limits::BURST_PACKETS, out)
    }

    /// The next packet alone, for where the kernel cuts no bursts apart; else as [`poll_burst`](Self::poll_burst).
    pub fn poll_packet(&mut self, out: &mut [u8]) -> Option<Burst> {
        self.poll_packets(1, out)
    }

    /// The burst that was offered last is on its way.
    pub fn burst_sent(&mut self, burst: Burst) {
        match (&mut self.state, burst.what) {
            (State::Offered { unsent }, What::Oack) => {
                *unsent = false;
                if self.retries == 0 {
                    self.round_trip.start(0, self.now);
                }
            }
            (State::Ended { last_words, .. }, What::LastWords) => *last_words = None,
            (State::Sending(window), What::Blocks { count, tail, ends }) => {
                let first = window.next();
                let after = first + u64::from(count);
                for n in 0..u64::from(count) {
                    // Only octet mode sends more than one block at a time, and there all blocks before the last are full.
                    let offset = window.tail.offset + n * u64::from(self.blksize);
                    window.starts.push_back(if n == 0 {
                        window.tail
                    } else {
                        Cursor { offset, pending: None }
                    });
                }
                window.tail = tail;
                if ends {
                    window.last = Some(after - 1);
                }
                let again = after.min(window.highest).saturating_sub(first);
                self.retransmitted += again;
                window.highest = window.highest.max(after);
                if again == 0 {
                    self.round_trip.start(after - 1, self.now);
                }
            }
            _ => return,
        }
        self.timer = self.now + self.rto;
    }

    /// True once the client has answered from its address.
    pub fn is_answered(&self) -> bool {
        self.progress > self.started || matches!(&self.state, State::Sending(window) if window.base > 1)
    }

    /// From the request to `now`.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Blocks between two acknowledgements (RFC 7440), from 1.
    pub fn window(&self) -> u16 {
        self.window
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
                self.made_progress(now, 0);
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
                if !window.starts.is_empty() {
                    window.rewind();
                    self.round_trip.forget();
                }
                self.made_progress(now, acked);
            }
            State::Offered { .. } | State::Ended { .. } => {}
        }
    }

    fn made_progress(&mut self, now: Instant, acked: u64) {
        let estimate = self.round_trip.acked(acked, now);
        self.rto = self.fixed_rto.or(estimate).unwrap_or(limits::RTO_FIRST);
        self.retries = 0;
        self.progress = now;
        self.timer = now + self.rto;
    }

    fn poll_packets(&mut self, most: usize, out: &mut [u8]) -> Option<Burst> {
        let whole = |packet: Vec<u8>, what, out: &mut [u8]| {
            out.get_mut(..packet.len())?.copy_from_slice(&packet);
            Some(Burst { segment: packet.len(), len: packet.len(), what })
        };
        let mut packet = Vec::new();
        match &self.state {
            State::Offered { unsent: false } | State::Ended { last_words: None, .. } => None,
            State::Offered { unsent: true } => {
                packet::emit_oack(&mut packet, &self.oack);
                whole(packet, What::Oack, out)
            }
            State::Ended { last_words: Some((code, words)), .. } => {
                packet::emit_error(&mut packet, *code, words);
                whole(packet, What::LastWords, out)
            }
            State::Sending(_) => match self.poll_blocks(most, out) {
                Ok(burst) => burst,
                Err(error) => {
                    self.fail(Failure::Read(error.kind()), "file could not be read");
                    self.poll_packets(most, out)
                }
            },
        }
    }

    fn poll_blocks(&self, most: usize, out: &mut [u8]) -> std::io::Result<Option<Burst>> {
        let State::Sending(window) = &self.state else { return Ok(None) };
        let size = usize::from(self.blksize);
        let segment = limits::HEADER + size;
        let next = window.next();
        let room = usize::from(self.window).saturating_sub(window.starts.len());
        let left = match self.mode {
            // The block that is not full ends the file, so there is one more than full ones.
            Mode::Octet => (self.file.len().saturating_sub(window.tail.offset) / u64::from(self.blksize))
                .saturating_add(1)
                .try_into()
                .unwrap_or(usize::MAX),
            Mode::Netascii => 1,
        };
        let count = most.min(room).min(left).min(out.len() / segment);
        if count == 0 || window.last.is_some_and(|last| next > last) {
            return Ok(None);
        }
        let mut tail = window.tail;
        let got = match self.mode {
            Mode::Octet => {
                let got = self.file.read_blocks(
                    tail.offset,
                    (limits::HEADER, size),
                    &mut out[..count * segment],
                )?;
                tail.offset += got as u64;
                got
            }
            Mode::Netascii => netascii::read(&self.file, &mut tail, &mut out[limits::HEADER..segment])?,
        };
        for n in 0..count {
            // The low 16 bits are what the wire carries.
            packet::put_data_header(&mut out[n * segment..], (next + n as u64) as u16);
        }
        let what = What::Blocks { count: count as u16, tail, ends: got < count * size };
        Ok(Some(Burst { segment, len: got + count * limits::HEADER, what }))
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
fn negotiate(asked: &RequestOptions, mode: Mode, len: u64, block_max: u16) -> RequestOptions {
    let at_least = |value: Option<u64>, min: u16| value.filter(|v| *v >= u64::from(min));
    RequestOptions {
        blksize: at_least(asked.blksize, limits::BLOCK_MIN).map(|v| v.min(block_max.into())),
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

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
