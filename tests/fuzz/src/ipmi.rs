//! What a controller may send: datagrams, handshakes, answers, console packets, records. The session is tried twice, as a
//! stranger meets it and as a controller does that knows the password.

use std::time::{Duration, Instant};

use bmc::ipmi::message::{Request, Response};
use bmc::ipmi::packet::{self, Datagram, Payload};
use bmc::ipmi::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp34};
use bmc::ipmi::session::{Event, Login, Session};
use bmc::ipmi::sol::Sol;
use bmc::ipmi::suite::{Handshake, Keys, Suite};
use bmc::ipmi::{fru, identity, limits, sdr, sel};

use crate::input::packets;

const PASSWORD: &[u8] = b"secret";
/// Payloads that a packet can be delivered as.
const PAYLOADS: [Payload; 6] = [
    Payload::Ipmi,
    Payload::Sol,
    Payload::OpenResponse,
    Payload::Rakp2,
    Payload::Rakp4,
    Payload::OpenRequest,
];

/// The first octet of a packet says how it comes: as it is, in IPMI 1.5, in one of the payloads, or that time passes.
pub fn run(data: &[u8]) {
    let all = packets(data);
    all.iter().for_each(|packet| records(packet));
    stranger(&all);
    friend(&all);
}

/// Parsers without a state.
fn records(octets: &[u8]) {
    let sensor = sdr::parse(octets);
    if let Some(analog) = sensor.as_ref().and_then(|s| s.analog) {
        for raw in 0..=255 {
            assert!(analog.value(raw).is_none_or(f64::is_finite));
        }
    }
    let known: Vec<_> = sensor.into_iter().collect();
    if let Some(entry) = sel::describe(octets, &known) {
        assert!(entry.id.parse::<u16>().is_ok() && !entry.message.is_empty());
    }
    let _ = (fru::parse(octets), sdr::parse_factors(octets));
    if let Some(guid) = octets.first_chunk() {
        assert!(identity::uuid_text(guid).is_none_or(|text| text.len() == 36));
    }
    let now = Instant::now();
    let mut sol = Sol::new(64);
    sol.write(now, octets);
    for piece in octets.chunks(9) {
        assert!(sol.handle_packet(now, piece).len() <= piece.len());
        while sol.poll_transmit().is_some() {}
    }
}

fn login() -> Login {
    Login { user: b"admin".to_vec(), password: PASSWORD.to_vec(), kg: None, suite: None }
}

/// Nobody who lacks the password gets a session, whatever is sent.
fn stranger(all: &[&[u8]]) {
    let mut now = Instant::now();
    let mut session = Session::new(now, login(), [1; 32]);
    for packet in all {
        deliver(&mut session, &mut now, packet, None);
        while let Some(event) = session.poll_event() {
            assert!(matches!(event, Event::Failed(_)), "a stranger was believed: {event:?}");
        }
        check_sent(&mut session);
    }
}

/// Who has the keys may send what it likes in the session.
fn friend(all: &[&[u8]]) {
    let mut now = Instant::now();
    let mut session = Session::new(now, login(), [2; 32]);
    let mut bmc = Bmc::default();
    while let Some(datagram) = session.poll_transmit() {
        if let Some(answer) = bmc.answer(&datagram) {
            session.handle_datagram(now, &answer);
        }
    }
    assert!(matches!(session.poll_event(), Some(Event::Up(Suite::Seventeen))), "no session");
    for packet in all {
        session.request(now, Request::new(0, 1, &[]), limits::RETRANSMIT);
        deliver(&mut session, &mut now, packet, Some(&mut bmc));
        let mut events = 0;
        while session.poll_event().is_some() {
            events += 1;
        }
        assert!(events <= 2, "{events} events of one packet");
        check_sent(&mut session);
    }
    session.close();
}

fn deliver(session: &mut Session, now: &mut Instant, packet: &[u8], bmc: Option<&mut Bmc>) {
    let Some((how, body)) = packet.split_first() else { return };
    let datagram = match how {
        0xff => {
            *now += Duration::from_millis(u64::from(body.first().copied().unwrap_or(0)) * 40);
            return session.handle_timeout(*now);
        }
        0 => body.to_vec(),
        1 => packet::plain15(body),
        how => {
            let payload = PAYLOADS[usize::from(*how) % PAYLOADS.len()];
            match bmc {
                Some(bmc) => bmc.seal(payload, body),
                None => packet::plain(payload, body),
            }
        }
    };
    session.handle_datagram(*now, &datagram);
}

/// What is sent is bounded, can be read, and never asks for less than full protection.
fn check_sent(session: &mut Session) {
    for _ in 0..4 {
        let Some(datagram) = session.poll_transmit() else { return };
        match packet::parse(&datagram) {
            Ok(Datagram::Plain(Payload::OpenRequest, body)) => {
                let open = OpenRequest::parse(body).expect("an open request of ours");
                assert!(Suite::from_algorithms(open.algorithms).is_some(), "{open:?}");
            }
            Ok(_) => {}
            Err(e) => panic!("a session sent what is no datagram: {e}"),
        }
    }
    panic!("more than four datagrams at once");
}

/// As much of a controller as makes a session.
#[derive(Default)]
struct Bmc {
    handshake: Option<Handshake>,
    keys: Option<Keys>,
    sent: u32,
}

impl Bmc {
    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        match packet::parse(datagram).ok()? {
            Datagram::Plain15(message) => {
                let (Request { net_fn, command, .. }, sequence) = Request::parse(message).ok()?;
                let data = if command == 0x38 {
                    vec![1, 0x80, 4, 2, 0, 0, 0, 0]
                } else {
                    vec![1, 0xc0, 17, 3, 0x44, 0x81]
                };
                Some(packet::plain15(&Response { net_fn, command, completion: 0, data }.emit(sequence)))
            }
            Datagram::Plain(Payload::OpenRequest, body) => {
                let OpenRequest { tag, console, algorithms } = OpenRequest::parse(body).ok()?;
                self.handshake = Some(Handshake {
                    suite: Suite::from_algorithms(algorithms)?,
                    console,
                    bmc: 5,
                    console_random: [0; 16],
                    bmc_random: [3; 16],
                    guid: [4; 16],
                    role: 0,
                    user: Vec::new(),
                });
                let answer = OpenResponse { tag, console, outcome: Ok((5, algorithms)) };
                Some(packet::plain(Payload::OpenResponse, &answer.emit()))
            }
            Datagram::Plain(Payload::Rakp1, body) => {
                let first = Rakp1::parse(body).ok()?;
                let handshake = self.handshake.as_mut()?;
                (handshake.console_random, handshake.role, handshake.user) =
                    (first.random, first.role, first.user);
                let code = handshake.rakp2(PASSWORD).as_slice().to_vec();
                let answer = Rakp2 {
                    tag: first.tag,
                    console: handshake.console,
                    outcome: Ok(([3; 16], [4; 16], code)),
                };
                Some(packet::plain(Payload::Rakp2, &answer.emit()))
            }
            Datagram::Plain(Payload::Rakp3, body) => {
                let (handshake, tag) = (self.handshake.as_ref()?, Rakp34::parse(body).ok()?.tag);
                let key = handshake.session_key(PASSWORD);
                self.keys = Some(Keys::new(handshake.suite, &key));
                let check = handshake.rakp4(&key).cut(handshake.suite.check_len()).to_vec();
                let answer = Rakp34 { tag, session: handshake.console, outcome: Ok(check) };
                Some(packet::plain(Payload::Rakp4, &answer.emit()))
            }
            Datagram::Sealed(sealed) => {
                let body = sealed.open(self.keys.as_ref()?).ok()?;
                let (Request { net_fn, command, .. }, sequence) = Request::parse(&body).ok()?;
                let answer = Response { net_fn, command, completion: 0, data: vec![4] }.emit(sequence);
                Some(self.seal(Payload::Ipmi, &answer))
            }
            _ => None,
        }
    }

    fn seal(&mut self, payload: Payload, body: &[u8]) -> Vec<u8> {
        self.sent += 1;
        let (Some(keys), Some(handshake)) = (&self.keys, &self.handshake) else { return Vec::new() };
        packet::seal(keys, payload, handshake.console, self.sent, [6; 16], body)
    }
}
