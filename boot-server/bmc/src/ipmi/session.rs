//! The remote console's end of a session (sections 13.14 to 13.24), without socket, clock or chance: datagrams and time
//! come in, datagrams and events go out. One command is under way at a time; console data passes through beside it.
//!
//! ```text
//! Capabilities ─▶ Suites ─▶ Open ─▶ Rakp1 ─▶ Rakp3 ─▶ Privilege ─▶ Active
//!    (1.5)        (1.5)      │ ▲ refused: next suite                  │
//!                            └─┘                        any ─▶ Ended ◀┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::limits::{RETRANSMIT, RETRANSMIT_OPTIONAL, SUITE_PIECES_MAX};
use super::message::{Request, Response, completion, net_fn};
use super::packet::{self, Datagram, Payload, Sealed};
use super::rakp::{self, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp34, status};
use super::suite::{Code, Handshake, Keys, Suite};
use super::window::Window;

/// The channel that a request came by (section 6.3).
const THIS_CHANNEL: u8 = 0x0e;
const GET_CHANNEL_AUTH_CAPABILITIES: u8 = 0x38;
const SET_SESSION_PRIVILEGE: u8 = 0x3b;
const CLOSE_SESSION: u8 = 0x3c;
const GET_CIPHER_SUITES: u8 = 0x54;

/// What logs in.
#[derive(Clone)]
pub struct Login {
    /// User name, at most 16 octets.
    pub user: Vec<u8>,
    /// Password, at most 20 octets.
    pub password: Vec<u8>,
    /// K_g, the key of the controller itself; most have none.
    pub kg: Option<Vec<u8>>,
    /// The suite, where it is known from an earlier session; spares asking.
    pub suite: Option<Suite>,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is active, by this suite.
    Up(Suite),
    /// The answer to the command.
    Answered(Response),
    /// A packet of the console.
    Sol(Vec<u8>),
    /// The session could not be made, or a command got no answer. Nothing follows.
    Failed(Failure),
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer at this step.
    #[error("no answer to {0}")]
    Silent(&'static str),
    /// User name or password, or K_g.
    #[error("user name, password or K_g are wrong")]
    Login,
    /// The user may not be administrator.
    #[error("the user may not be administrator")]
    Forbidden,
    /// No room for another session.
    #[error("the controller has no room for another session")]
    Full,
    /// It speaks IPMI 1.5 only.
    #[error("the controller does not speak IPMI 2.0")]
    Old,
    /// It has none of our suites.
    #[error("the controller has neither cipher suite 17 nor 3")]
    NoSuite,
    /// It refused otherwise.
    #[error("the controller refuses {0} with status {1:#04x}")]
    Status(&'static str, u8),
}

/// A session, or what will be one.
pub struct Session {
    login: Login,
    chance: Chance,
    console: u32,
    state: State,
    /// Suites that were not tried yet.
    suites: VecDeque<Suite>,
    pending: Option<Pending>,
    channel: Option<Channel>,
    sequence: u8,
    tag: u8,
    out: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

enum State {
    Capabilities,
    Suites { index: u8, gathered: Vec<u8> },
    Open(Suite),
    Rakp1(Handshake),
    Rakp3 { handshake: Handshake, session_key: Code },
    Privilege,
    Active,
    Ended,
}

/// What is sent until it is answered.
struct Pending {
    outgoing: Outgoing,
    schedule: &'static [Duration],
    sent: usize,
    next: Instant,
}

enum Outgoing {
    Datagram(Vec<u8>),
    /// Sealed anew each time: a session sequence number is used once.
    Command {
        request: Request,
        sequence: u8,
    },
}

/// Keys and numbers of an open session.
struct Channel {
    keys: Keys,
    bmc: u32,
    sent: u32,
    window: Window,
}

impl Session {
    /// Begins. `seed` must be random and new: session id, random number and initialisation vectors come from it.
    pub fn new(now: Instant, login: Login, seed: [u8; 32]) -> Self {
        let mut chance = Chance { key: seed, count: 0 };
        let [a, b, c, d, ..] = chance.next();
        let mut session = Self {
            suites: login.suite.map_or_else(VecDeque::new, |s| [s].into()),
            login,
            console: u32::from_le_bytes([a, b, c, d]).max(1),
            chance,
            state: State::Capabilities,
            pending: None,
            channel: None,
            sequence: 0,
            tag: 0,
            out: VecDeque::new(),
            events: VecDeque::new(),
        };
        if session.suites.is_empty() {
            let ask = Request::new(
                net_fn::APP,
                GET_CHANNEL_AUTH_CAPABILITIES,
                &[0x80 | THIS_CHANNEL, rakp::ADMINISTRATOR],
            );
            session.send_plain15(now, &ask, RETRANSMIT);
        } else {
            session.open_next(now);
        }
        session
    }

    /// Next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.as_ref().map(|p| p.next)
    }

    /// True where a command may be given.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Active) && self.pending.is_none()
    }

    /// Gives a command, which is sent by this schedule until it is answered. Ignored unless [`Session::is_ready`].
    pub fn request(&mut self, now: Instant, request: Request, schedule: &'static [Duration]) {
        if self.is_ready() {
            self.send_command(now, request, schedule);
        }
    }

    /// Sends a packet of the console. Ignored where there is no session.
    pub fn send_sol(&mut self, body: &[u8]) {
        if matches!(self.state, State::Active) {
            self.send_sealed(Payload::Sol, body);
        }
    }

    /// Ends the session; the answer is of no interest.
    pub fn close(&mut self) {
        if let Some(bmc) = self.channel.as_ref().map(|c| c.bmc)
            && !matches!(self.state, State::Ended)
        {
            let close = Request::new(net_fn::APP, CLOSE_SESSION, &bmc.to_le_bytes());
            let sequence = self.next_sequence();
            self.send_sealed(Payload::Ipmi, &close.emit(sequence));
        }
        self.state = State::Ended;
        self.pending = None;
    }

    /// Takes time into account: sends again, tries another suite, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(pending) = &mut self.pending else { return };
        if now < pending.next {
            return;
        }
        if let Some(wait) = pending.schedule.get(pending.sent) {
            pending.sent += 1;
            pending.next = now + *wait;
            self.transmit();
            return;
        }
        self.pending = None;
        match &self.state {
            State::Suites { .. } => self.choose(now, &Suite::ALL),
            State::Open(_) if !self.suites.is_empty() => self.open_next(now),
            State::Capabilities => self.fail(Failure::Silent("Get Channel Authentication Capabilities")),
            State::Open(_) => self.fail(Failure::Silent("Open Session Request")),
            State::Rakp1(_) => {
                self.fail(Failure::Silent("RAKP 1 (some controllers do so where the user is unknown)"))
            }
            State::Rakp3 { .. } => {
                self.fail(Failure::Silent("RAKP 3 (some controllers do so where the password is wrong)"))
            }
            State::Privilege => self.fail(Failure::Silent("Set Session Privilege Level")),
            State::Active | State::Ended => self.fail(Failure::Silent("a command")),
        }
    }

    /// Takes a datagram. What is not understood, not expected or not authentic changes nothing.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(datagram) = packet::parse(datagram) else { return };
        match datagram {
            Datagram::Plain15(message) | Datagram::Plain(Payload::Ipmi, message) => {
                self.handle_plain(now, message)
            }
            Datagram::Plain(Payload::OpenResponse, body) => self.handle_open(now, body),
            Datagram::Plain(Payload::Rakp2, body) => self.handle_rakp2(now, body),
            Datagram::Plain(Payload::Rakp4, body) => self.handle_rakp4(now, body),
            Datagram::Sealed(sealed) => self.handle_sealed(&sealed),
            Datagram::Plain(..) | Datagram::Ping(_) | Datagram::Pong(..) => {}
        }
    }

    fn handle_plain(&mut self, now: Instant, message: &[u8]) {
        let Ok((response, sequence)) = Response::parse(message) else { return };
        if sequence != self.sequence || response.net_fn != net_fn::APP {
            return;
        }
        match (&mut self.state, response.command) {
            (State::Capabilities, GET_CHANNEL_AUTH_CAPABILITIES) => {
                // Section 22.13: bit 7 of the second octet says that the extended capabilities in the fourth hold.
                let speaks = match response.data[..] {
                    [_, types, _, extended, ..] => types & 0x80 != 0 && extended & 0x02 != 0,
                    _ => false,
                };
                if response.completion != completion::OK || !speaks {
                    return self.fail(Failure::Old);
                }
                self.state = State::Suites { index: 0, gathered: Vec::new() };
                self.ask_suites(now, 0);
            }
            (State::Suites { index, gathered }, GET_CIPHER_SUITES) => {
                let piece = response.data.get(1..).unwrap_or_default();
                gathered.extend_from_slice(piece);
                if response.completion == completion::OK && piece.len() == 16 && *index + 1 < SUITE_PIECES_MAX
                {
                    *index += 1;
                    let index = *index;
                    return self.ask_suites(now, index);
                }
                let listed = parse_suites(gathered);
                match (response.completion, listed.is_empty()) {
                    (completion::OK, false) => self.choose(now, &listed),
                    // It does not know the command, or lists nothing of ours: it may have it still.
                    _ => self.choose(now, &Suite::ALL),
                }
            }
            _ => {}
        }
    }

    fn ask_suites(&mut self, now: Instant, index: u8) {
        let ask = Request::new(net_fn::APP, GET_CIPHER_SUITES, &[THIS_CHANNEL, 0, 0x80 | index]);
        self.send_plain15(now, &ask, RETRANSMIT_OPTIONAL);
    }

    fn choose(&mut self, now: Instant, listed: &[Suite]) {
        self.suites = Suite::ALL.into_iter().filter(|s| listed.contains(s)).collect();
        self.open_next(now);
    }

    fn open_next(&mut self, now: Instant) {
        let Some(suite) = self.suites.pop_front() else { return self.fail(Failure::NoSuite) };
        self.state = State::Open(suite);
        let tag = self.next_tag();
        let open = OpenRequest { tag, console: self.console, algorithms: suite.algorithms() };
        let schedule = if self.suites.is_empty() { RETRANSMIT } else { RETRANSMIT_OPTIONAL };
        self.send(now, Outgoing::Datagram(packet::plain(Payload::OpenRequest, &open.emit())), schedule);
    }

    fn handle_open(&mut self, now: Instant, body: &[u8]) {
        let (State::Open(suite), Ok(answer)) = (&self.state, OpenResponse::parse(body)) else { return };
        let suite = *suite;
        if answer.tag != self.tag {
            return;
        }
        let (bmc, algorithms) = match answer.outcome {
            Ok(outcome) => outcome,
            Err(status::AUTHENTICATION | status::INTEGRITY | status::CONFIDENTIALITY | status::NO_SUITE) => {
                return self.open_next(now);
            }
            // What a controller says that does not know the numbers of suite 17.
            Err(_) if !self.suites.is_empty() => return self.open_next(now),
            Err(code) => return self.refuse("Open Session Request", code),
        };
        // A controller that chose less than what was asked for is not followed.
        if answer.console != self.console || algorithms != suite.algorithms() || bmc == 0 {
            return self.open_next(now);
        }
        let handshake = Handshake {
            suite,
            console: self.console,
            bmc,
            console_random: self.chance.next(),
            bmc_random: [0; 16],
            guid: [0; 16],
            role: rakp::NAME_ONLY | rakp::ADMINISTRATOR,
            user: self.login.user.clone(),
        };
        let first = Rakp1 {
            tag: self.next_tag(),
            bmc,
            random: handshake.console_random,
            role: handshake.role,
            user: handshake.user.clone(),
        };
        self.state = State::Rakp1(handshake);
        self.send(now, Outgoing::Datagram(packet::plain(Payload::Rakp1, &first.emit())), RETRANSMIT);
    }

    fn handle_rakp2(&mut self, now: Instant, body: &[u8]) {
        let (State::Rakp1(handshake), Ok(second)) = (&mut self.state, Rakp2::parse(body)) else { return };
        if second.tag != self.tag {
            return;
        }
        let (random, guid, code) = match second.outcome {
            Ok(outcome) if second.console == self.console => outcome,
            Ok(_) => return,
            Err(code) => return self.refuse("RAKP 1", code),
        };
        (handshake.bmc_random, handshake.guid) = (random, guid);
        let (handshake, tag) = (handshake.clone(), self.next_tag());
        let right = handshake.rakp2(&self.login.password).matches(&code, handshake.suite.code_len());
        let outcome = if right {
            Ok(handshake.rakp3(&self.login.password).cut(handshake.suite.code_len()).to_vec())
        } else {
            Err(status::CHECK)
        };
        let third = packet::plain(Payload::Rakp3, &Rakp34 { tag, session: handshake.bmc, outcome }.emit());
        if !right {
            // The controller learns that it can forget the session (section 13.22).
            self.out.push_back(third);
            return self.fail(Failure::Login);
        }
        let key = self.login.kg.as_deref().unwrap_or(&self.login.password);
        let session_key = handshake.session_key(key);
        self.state = State::Rakp3 { handshake, session_key };
        self.send(now, Outgoing::Datagram(third), RETRANSMIT);
    }

    fn handle_rakp4(&mut self, now: Instant, body: &[u8]) {
        let (State::Rakp3 { handshake, session_key }, Ok(fourth)) = (&self.state, Rakp34::parse(body)) else {
            return;
        };
        if fourth.tag != self.tag {
            return;
        }
        let check = match fourth.outcome {
            Ok(check) if fourth.session == self.console => check,
            Ok(_) => return,
            Err(code) => return self.refuse("RAKP 3", code),
        };
        if !handshake.rakp4(session_key).matches(&check, handshake.suite.check_len()) {
            // It knows the password, by RAKP 2; so K_g is another.
            return self.fail(Failure::Login);
        }
        let keys = Keys::new(handshake.suite, session_key);
        self.channel = Some(Channel { keys, bmc: handshake.bmc, sent: 0, window: Window::default() });
        self.state = State::Privilege;
        let raise = Request::new(net_fn::APP, SET_SESSION_PRIVILEGE, &[rakp::ADMINISTRATOR]);
        self.send_command(now, raise, RETRANSMIT);
    }

    fn handle_sealed(&mut self, sealed: &Sealed<'_>) {
        let Some(channel) = &mut self.channel else { return };
        if sealed.session != self.console {
            return;
        }
        let Ok(body) = sealed.open(&channel.keys) else { return };
        if !channel.window.take(sealed.sequence) {
            return;
        }
        match sealed.payload {
            Payload::Ipmi => self.handle_response(&body),
            Payload::Sol if matches!(self.state, State::Active) => self.events.push_back(Event::Sol(body)),
            _ => {}
        }
    }

    fn handle_response(&mut self, body: &[u8]) {
        let Ok((response, sequence)) = Response::parse(body) else { return };
        let asked = self.pending.as_ref().is_some_and(|p| match &p.outgoing {
            Outgoing::Command { request, sequence: ours } => {
                *ours == sequence && request.net_fn == response.net_fn && request.command == response.command
            }
            Outgoing::Datagram(_) => false,
        });
        if !asked {
            return;
        }
        self.pending = None;
        match (&self.state, response.completion) {
            (State::Privilege, completion::OK) => {
                self.state = State::Active;
                if let Some(suite) = self.channel.as_ref().map(|c| c.keys.suite()) {
                    self.events.push_back(Event::Up(suite));
                }
            }
            (State::Privilege, _) => {
                self.close();
                self.fail(Failure::Forbidden);
            }
            _ => self.events.push_back(Event::Answered(response)),
        }
    }

    fn refuse(&mut self, what: &'static str, code: u8) {
        self.fail(match code {
            status::NAME_LENGTH | status::UNAUTHORIZED_NAME | status::CHECK => Failure::Login,
            // What some controllers say to an unknown or disabled user. Counted as a failed login, to be on the safe side
            // of their lock-out.
            status::PARAMETER if what.starts_with("RAKP") => Failure::Login,
            status::ROLE | status::UNAUTHORIZED_ROLE => Failure::Forbidden,
            status::RESOURCES | status::RESOURCES_ROLE => Failure::Full,
            code => Failure::Status(what, code),
        });
    }

    fn fail(&mut self, why: Failure) {
        self.state = State::Ended;
        self.pending = None;
        self.events.push_back(Event::Failed(why));
    }

    fn send_plain15(&mut self, now: Instant, request: &Request, schedule: &'static [Duration]) {
        let sequence = self.next_sequence();
        self.send(now, Outgoing::Datagram(packet::plain15(&request.emit(sequence))), schedule);
    }

    fn send_command(&mut self, now: Instant, request: Request, schedule: &'static [Duration]) {
        let sequence = self.next_sequence();
        self.send(now, Outgoing::Command { request, sequence }, schedule);
    }

    fn send(&mut self, now: Instant, outgoing: Outgoing, schedule: &'static [Duration]) {
        let next = now + schedule.first().copied().unwrap_or_default();
        self.pending = Some(Pending { outgoing, schedule, sent: 1, next });
        self.transmit();
    }

    fn transmit(&mut self) {
        match self.pending.as_ref().map(|p| &p.outgoing) {
            Some(Outgoing::Datagram(datagram)) => self.out.push_back(datagram.clone()),
            Some(Outgoing::Command { request, sequence }) => {
                let message = request.emit(*sequence);
                self.send_sealed(Payload::Ipmi, &message);
            }
            None => {}
        }
    }

    fn send_sealed(&mut self, payload: Payload, body: &[u8]) {
        let Some(channel) = &mut self.channel else { return };
        // 2^32 packets are more than any session sends; 0 is not a number.
        channel.sent = channel.sent.wrapping_add(1).max(1);
        let vector = self.chance.next();
        self.out.push_back(packet::seal(&channel.keys, payload, channel.bmc, channel.sent, vector, body));
    }

    fn next_sequence(&mut self) -> u8 {
        self.sequence = (self.sequence + 1) & 0x3f;
        self.sequence
    }

    fn next_tag(&mut self) -> u8 {
        self.tag = self.tag.wrapping_add(1);
        self.tag
    }
}

/// Reads a list of cipher suite records (section 22.15.1); those that are not ours are passed over.
pub fn parse_suites(records: &[u8]) -> Vec<Suite> {
    let mut found = Vec::new();
    let mut rest = records;
    while let Some((start, after)) = rest.split_first() {
        // C0h: standard, one octet of id. C1h: a maker's, with its number of three octets, never ours.
        if *start == 0xc0
            && let Some(suite) = after.first().and_then(|id| Suite::from_id(*id))
        {
            found.push(suite);
        }
        rest = after;
    }
    found
}

/// Random octets made of a seed: HMAC-SHA256 of a counter.
struct Chance {
    key: [u8; 32],
    count: u64,
}

impl Chance {
    fn next(&mut self) -> [u8; 16] {
        self.count += 1;
        let code = Suite::Seventeen.mac(&self.key, &[&self.count.to_le_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(code.cut(16));
        out
    }
}

#[cfg(test)]
mod tests;
