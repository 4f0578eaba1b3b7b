//! A TFTP client as ROMs and EDK2 are one (RFC 1350, 2347, 2348, 2349, 7440), with their habits. It keeps no content:
//! how many octets came, and whether that is what the server announced, is what is asked.

use std::time::Duration;

use super::personality::TftpHabit;

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;
/// Block size without options (RFC 1350 section 2).
const BLOCK_DEFAULT: usize = 512;
/// Wait for an answer (EDK2's `PXEBC_MTFTP_TIMEOUT`).
const WAIT: Duration = Duration::from_secs(4);
/// Times that a message is sent again (EDK2's `PXEBC_MTFTP_RETRIES`).
const RETRIES_MAX: u32 = 6;
/// Port of the server.
const SERVER_PORT: u16 = 69;

/// A download.
#[derive(Debug)]
pub struct Client {
    name: Vec<u8>,
    habit: TftpHabit,
    /// Asks only for the size.
    probing: bool,
    /// The server's port for this transfer, once it told.
    port: Option<u16>,
    /// What is to be sent, and what is sent again when time is up.
    last: Vec<u8>,
    unsent: bool,
    timer: Duration,
    retries: u32,
    sent_again: u32,
    blksize: usize,
    window: u16,
    /// Blocks since the last acknowledgement.
    since_ack: u16,
    /// Last block that came in order, counted without wrapping.
    block: u64,
    bytes: u64,
    announced: Option<u64>,
    outcome: Option<Outcome>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The size is known; the caller starts the download itself from another port.
    Size(Option<u64>),
    /// All octets came.
    Complete(u64),
    /// They did not.
    Failed(String),
}

impl Client {
    /// A download that begins now, with a question for the size where that is the habit.
    pub fn new(now: Duration, name: Vec<u8>, habit: TftpHabit) -> Self {
        Self::start(now, name, habit, habit.probes)
    }

    /// The download after the question for the size.
    pub fn download(now: Duration, name: Vec<u8>, habit: TftpHabit) -> Self {
        Self::start(now, name, habit, false)
    }

    fn start(now: Duration, name: Vec<u8>, habit: TftpHabit, probing: bool) -> Self {
        let mut client = Self {
            last: Vec::new(),
            probing,
            port: None,
            unsent: true,
            timer: now + WAIT,
            retries: 0,
            sent_again: 0,
            blksize: BLOCK_DEFAULT,
            window: 1,
            since_ack: 0,
            block: 0,
            bytes: 0,
            announced: None,
            outcome: None,
            name,
            habit,
        };
        client.last = client.request();
        client
    }

    fn request(&self) -> Vec<u8> {
        let mut out = RRQ.to_be_bytes().to_vec();
        let mut word = |word: &[u8]| {
            out.extend(word);
            out.push(0);
        };
        word(&self.name);
        word(b"octet");
        if self.probing || self.habit.blksize.is_some() {
            word(b"tsize");
            word(b"0");
        }
        if let Some(size) = self.habit.blksize {
            word(b"blksize");
            word(size.to_string().as_bytes());
        }
        if let Some(window) = self.habit.windowsize.filter(|_| !self.probing) {
            word(b"windowsize");
            word(window.to_string().as_bytes());
        }
        out
    }

    /// Takes a datagram that came from `port` of the server.
    pub fn handle_packet(&mut self, now: Duration, port: u16, bytes: &[u8]) {
        if self.outcome.is_some() || *self.port.get_or_insert(port) != port {
            return;
        }
        let Some((opcode, rest)) = split_u16(bytes) else { return };
        match opcode {
            OACK => self.handle_oack(now, rest),
            DATA => self.handle_data(now, rest),
            ERROR => {
                let text = rest.get(2..).unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default();
                let why = format!("server: {}", String::from_utf8_lossy(text));
                self.outcome = Some(Outcome::Failed(why));
            }
            _ => {}
        }
    }

    fn handle_oack(&mut self, now: Duration, options: &[u8]) {
        if self.block > 0 {
            return;
        }
        let mut words = options.split(|b| *b == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok());
            match (name.to_ascii_lowercase().as_slice(), value) {
                (b"tsize", value) => self.announced = value,
                (b"blksize", Some(size)) => self.blksize = usize::try_from(size).unwrap_or(BLOCK_DEFAULT),
                (b"windowsize", Some(n)) => self.window = u16::try_from(n).unwrap_or(1).max(1),
                _ => {}
            }
        }
        if self.probing {
            let mut out = ERROR.to_be_bytes().to_vec();
            out.extend([0, 8]);
            out.extend(b"User aborted the transfer\0");
            self.say(now, out);
            self.outcome = Some(Outcome::Size(self.announced));
        } else {
            self.say(now, ack(0));
        }
    }

    fn handle_data(&mut self, now: Duration, rest: &[u8]) {
        let Some((wire, data)) = split_u16(rest) else { return };
        if self.probing {
            // A server without options sends the file at once: that answers the question too.
            let mut out = ERROR.to_be_bytes().to_vec();
            out.extend([0, 8, 0]);
            self.say(now, out);
            self.outcome = Some(Outcome::Size(None));
            return;
        }
        if wire != (self.block + 1) as u16 {
            // The newest block again: our acknowledgement was lost (EDK2 sends it again too). Our server sends nothing
            // twice because of that, so it is no Sorcerer's Apprentice.
            let again = wire == self.block as u16 && self.block > 0;
            // Ahead: one is missing. Once for each window, so that the server goes back to it (RFC 7440 section 4).
            let ahead = !again && wire.wrapping_sub(self.block as u16) < 0x8000 && self.window > 1;
            if again || (ahead && self.since_ack != u16::MAX) {
                self.since_ack = if ahead { u16::MAX } else { 0 };
                self.say(now, ack(self.block as u16));
            }
            return;
        }
        if self.since_ack == u16::MAX {
            self.since_ack = 0;
        }
        self.block += 1;
        self.bytes += data.len() as u64;
        self.since_ack += 1;
        self.retries = 0;
        self.timer = now + WAIT;
        let last = data.len() < self.blksize;
        if last {
            self.outcome = Some(match self.announced {
                Some(size) if size != self.bytes => {
                    Outcome::Failed(format!("{} octets came, {size} were announced", self.bytes))
                }
                _ => Outcome::Complete(self.bytes),
            });
        }
        if last && !self.habit.acks_last {
            return;
        }
        if last || self.since_ack >= self.window {
            self.since_ack = 0;
            self.say(now, ack(self.block as u16));
        }
    }

    fn say(&mut self, now: Duration, message: Vec<u8>) {
        self.last = message;
        self.unsent = true;
        self.timer = now + WAIT;
    }

    /// Call at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.timer || self.outcome.is_some() {
            return;
        }
        self.retries += 1;
        self.sent_again += 1;
        if self.retries > RETRIES_MAX {
            self.outcome = Some(Outcome::Failed("the server is silent".to_owned()));
            return;
        }
        if self.block > 0 {
            self.last = ack(self.block as u16);
            self.since_ack = 0;
        }
        self.unsent = true;
        self.timer = now + WAIT;
    }

    /// The next datagram and the port that it goes to; also after the end (the last acknowledgement).
    pub fn poll_transmit(&mut self) -> Option<(u16, &[u8])> {
        std::mem::take(&mut self.unsent).then_some((self.port.unwrap_or(SERVER_PORT), self.last.as_slice()))
    }

    /// When it wants to be called again.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.outcome.is_none().then_some(self.timer)
    }

    /// How it ended, once it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The name that it asks for.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Messages sent again.
    pub fn sent_again(&self) -> u32 {
        self.sent_again
    }
}

fn ack(block: u16) -> Vec<u8> {
    let mut out = ACK.to_be_bytes().to_vec();
    out.extend(block.to_be_bytes());
    out
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tftp_server::packet::Packet;
    use tftp_server::{File, Transfer};

    use super::*;
    use crate::fleet::personality::Personality;

    /// Fetches from our server's state machine; every `drop`-th datagram is lost.
    fn fetch(habit: TftpHabit, size: usize, drop: u64) -> Outcome {
        let base = Instant::now();
        let mut now = Duration::ZERO;
        let mut client = Client::download(now, b"file".to_vec(), habit);
        let request = client.poll_transmit().unwrap().1.to_vec();
        let Ok(Packet::Rrq(request)) = Packet::parse(&request) else { panic!("no request") };
        let mut server = Transfer::new(base, &request, File::Memory(vec![7; size].into()));
        let (mut out, mut count) = (Vec::new(), 0u64);
        let mut lost = move || {
            count += 1;
            drop > 0 && count.is_multiple_of(drop)
        };
        while client.outcome().is_none() {
            let mut quiet = true;
            while server.poll_transmit(&mut out) {
                quiet = false;
                if !lost() {
                    client.handle_packet(now, 1069, &out);
                }
            }
            while let Some((_, bytes)) = client.poll_transmit() {
                quiet = false;
                if !lost() {
                    server.handle_packet(base + now, bytes);
                }
            }
            if quiet {
                let server_at = server.poll_timeout().map(|at| at - base);
                now = [server_at, client.poll_timeout()].into_iter().flatten().min().unwrap();
                server.handle_timeout(base + now);
                client.handle_timeout(now);
            }
        }
        client.outcome().unwrap().clone()
    }

    #[test]
    fn every_habit_fetches_from_our_server() {
        for personality in Personality::ALL {
            let habit = personality.firmware().tftp;
            for (size, drop) in [(0, 0), (512, 0), (70_000, 0), (70_000, 7), (1456 * 3, 5), (250_000, 50)] {
                let outcome = fetch(habit, size, drop);
                assert_eq!(outcome, Outcome::Complete(size as u64), "{personality} {size} {drop}");
            }
        }
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let mut client = Client::new(Duration::ZERO, b"x".to_vec(), Personality::OvmfPxe.firmware().tftp);
        while let Some(at) = client.poll_timeout() {
            client.handle_timeout(at);
        }
        assert_eq!(client.outcome(), Some(&Outcome::Failed("the server is silent".to_owned())));
        assert_eq!(client.sent_again(), 7);
    }
}
