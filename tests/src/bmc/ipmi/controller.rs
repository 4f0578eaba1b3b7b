//! The controller without its socket: sessions, and what goes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bmc::ipmi::message::{Request, Response};
use bmc::ipmi::packet::{self, Datagram, Payload, Sealed};
use bmc::ipmi::sol::Sol;
use bmc::ipmi::suite::{Algorithms, Handshake, Keys};
use bmc::ipmi::window::Window;

use super::Plan;
use super::records::{Event, Sensors};
use crate::bmc::machine::Machine;

/// Sessions at once.
pub(super) const SESSIONS_MAX: usize = 8;
/// A session that is not used for so long ends (section 6.12.15).
const IDLE: Duration = Duration::from_secs(60);
/// Octets of a console packet, header included, both ways.
pub(super) const SOL_PACKET: u16 = 204;

pub(super) struct Controller {
    /// UDP port that it listens at.
    pub port: u16,
    pub plan: Plan,
    pub machine: Arc<dyn Machine>,
    pub sensors: Sensors,
    pub log: Vec<Event>,
    pub reservation: u16,
    pub boot_options: BTreeMap<u8, Vec<u8>>,
    pub identified: bool,
    pub sessions: BTreeMap<u32, Session>,
    pub console: Option<Terminal>,
    pub asked_for: Vec<Algorithms>,
    pub commands: Vec<(u8, u8)>,
    pub next_session: u32,
    out: Vec<(SocketAddr, Vec<u8>)>,
    vectors: u64,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// A session, from Open Session Request on.
pub(super) struct Session {
    pub handshake: Handshake,
    pub keys: Option<Keys>,
    pub peer: SocketAddr,
    pub heard: Instant,
    sent: u32,
    window: Window,
    /// The last request and its answer: a repetition is not carried out again.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl Session {
    pub fn new(handshake: Handshake, peer: SocketAddr, now: Instant) -> Self {
        Self { handshake, keys: None, peer, heard: now, sent: 0, window: Window::default(), last: None }
    }
}

/// The serial line, held by one session.
pub(super) struct Terminal {
    pub session: u32,
    pub sol: Sol,
    pub printed: Receiver<Vec<u8>>,
    /// Printed, but not yet taken by `sol`.
    pub rest: Vec<u8>,
}

impl Controller {
    pub fn new(plan: Plan, machine: Arc<dyn Machine>, port: u16) -> Self {
        Self {
            port,
            plan,
            machine,
            sensors: Sensors::new(),
            log: Vec::new(),
            reservation: 0,
            boot_options: BTreeMap::new(),
            identified: false,
            sessions: BTreeMap::new(),
            console: None,
            asked_for: Vec::new(),
            commands: Vec::new(),
            next_session: 0x1000,
            out: Vec::new(),
            vectors: 0,
        }
    }

    pub fn set_reading(&mut self, number: u8, raw: u8, passed: u8) {
        self.sensors.set(number, raw, passed);
    }

    pub fn add_event(&mut self, seconds: u32, event: [u8; 6]) {
        self.log.push(Event { seconds, event });
        self.reservation += 1;
    }

    pub fn sessions(&self) -> usize {
        self.sessions.values().filter(|s| s.keys.is_some()).count()
    }

    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
        self.console = None;
    }

    pub fn take_out(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    pub fn send(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.out.push((to, datagram));
    }

    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Ok(datagram) = packet::parse(datagram) else { return };
        match datagram {
            Datagram::Ping(tag) => self.send(from, packet::pong(tag)),
            Datagram::Plain15(message) => {
                if let Some(answer) = self.plain(message) {
                    self.send(from, packet::plain15(&answer));
                }
            }
            Datagram::Plain(Payload::Ipmi, message) => {
                if let Some(answer) = self.plain(message) {
                    self.send(from, packet::plain(Payload::Ipmi, &answer));
                }
            }
            Datagram::Plain(payload, body) => self.handle_handshake(now, from, payload, body),
            Datagram::Sealed(sealed) => self.handle_sealed(now, &sealed),
            Datagram::Pong(..) => {}
        }
    }

    fn handle_sealed(&mut self, now: Instant, sealed: &Sealed<'_>) {
        let id = sealed.session;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(body) = session.keys.as_ref().and_then(|k| sealed.open(k).ok()) else { return };
        if !session.window.take(sealed.sequence) {
            return;
        }
        session.heard = now;
        match sealed.payload {
            Payload::Ipmi => self.handle_request(id, &body),
            Payload::Sol => self.handle_sol(now, id, &body),
            _ => {}
        }
    }

    fn handle_request(&mut self, id: u32, body: &[u8]) {
        let Ok((request, sequence)) = Request::parse(body) else { return };
        let Some(session) = self.sessions.get(&id) else { return };
        if let Some((_, answer)) = session.last.as_ref().filter(|(last, _)| last == body) {
            let answer = answer.clone();
            return self.send_sealed(id, Payload::Ipmi, &answer);
        }
        self.commands.push((request.net_fn, request.command));
        let (completion, data) = match self.command(id, &request) {
            Ok(data) => (0, data),
            Err(code) => (code, Vec::new()),
        };
        let answer =
            Response { net_fn: request.net_fn, command: request.command, completion, data }.emit(sequence);
        self.send_sealed(id, Payload::Ipmi, &answer);
        if self.closes(&request) {
            self.sessions.remove(&id);
            self.console.take_if(|c| c.session == id);
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.last = Some((body.to_vec(), answer));
        }
    }

    fn handle_sol(&mut self, now: Instant, id: u32, body: &[u8]) {
        let Some(console) = self.console.as_mut().filter(|c| c.session == id) else { return };
        let typed = console.sol.handle_packet(now, body);
        if !typed.is_empty() {
            self.machine.type_console(&typed);
        }
        self.send_sol(id);
    }

    /// What the machine printed goes out, what was not acknowledged again; quiet sessions end.
    pub fn handle_time(&mut self, now: Instant) {
        self.sessions.retain(|_, s| now.duration_since(s.heard) < IDLE);
        if let Some(console) = &mut self.console {
            let id = console.session;
            console.rest.extend(console.printed.try_iter().flatten());
            let taken = console.sol.write(now, &console.rest);
            console.rest.drain(..taken);
            console.sol.handle_timeout(now);
            self.send_sol(id);
        }
        let gone = |c: &mut Terminal| c.sol.is_ended() || !self.sessions.contains_key(&c.session);
        self.console.take_if(gone);
    }

    fn send_sol(&mut self, id: u32) {
        while let Some(packet) = self.console.as_mut().and_then(|c| c.sol.poll_transmit()) {
            self.send_sealed(id, Payload::Sol, &packet);
        }
    }

    fn send_sealed(&mut self, id: u32, payload: Payload, body: &[u8]) {
        self.vectors += 1;
        let vector = u128::from(self.vectors).to_le_bytes();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(keys) = &session.keys else { return };
        session.sent += 1;
        let datagram = packet::seal(keys, payload, session.handshake.console, session.sent, vector, body);
        let peer = session.peer;
        self.send(peer, datagram);
    }
}
