//! The console's end against a small controller, in virtual time.

use proptest::prelude::*;

use super::super::suite::Algorithms;
use super::*;

const SEED: [u8; 32] = [7; 32];
const GUID: [u8; 16] = [0x6d; 16];

fn login(password: &str) -> Login {
    Login { user: b"admin".to_vec(), password: password.into(), kg: None, suite: None }
}

/// A controller with one user, and what is peculiar to it.
#[derive(Default)]
struct Bmc {
    suites: Vec<Suite>,
    /// Answers Get Channel Cipher Suites.
    lists: bool,
    kg: Option<Vec<u8>>,
    /// Chooses these instead of what was asked for.
    downgrade: Option<Algorithms>,
    /// Refuses RAKP 1 or 3 with this.
    refuse1: Option<u8>,
    refuse3: Option<u8>,
    privilege: u8,
    handshake: Option<Handshake>,
    keys: Option<Keys>,
    sent: u32,
    opened: Vec<Algorithms>,
    commands: Vec<Request>,
}

impl Bmc {
    fn new(suites: &[Suite]) -> Self {
        Self { suites: suites.to_vec(), lists: true, ..Self::default() }
    }

    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        match packet::parse(datagram).unwrap() {
            Datagram::Plain15(message) => self.plain(message),
            Datagram::Plain(Payload::OpenRequest, body) => {
                let open = OpenRequest::parse(body).unwrap();
                self.opened.push(open.algorithms);
                let suite = Suite::from_algorithms(open.algorithms).filter(|s| self.suites.contains(s));
                let outcome =
                    suite.map(|s| (77, self.downgrade.unwrap_or(s.algorithms()))).ok_or(status::NO_SUITE);
                if let Some(suite) = suite {
                    self.handshake = Some(Handshake {
                        suite,
                        console: open.console,
                        bmc: 77,
                        console_random: [0; 16],
                        bmc_random: [9; 16],
                        guid: GUID,
                        role: 0,
                        user: Vec::new(),
                    });
                }
                Some(packet::plain(
                    Payload::OpenResponse,
                    &OpenResponse { tag: open.tag, console: open.console, outcome }.emit(),
                ))
            }
            Datagram::Plain(Payload::Rakp1, body) => {
                let first = Rakp1::parse(body).unwrap();
                let handshake = self.handshake.as_mut().unwrap();
                (handshake.console_random, handshake.role, handshake.user) =
                    (first.random, first.role, first.user);
                let code = handshake.rakp2(b"secret").as_slice().to_vec();
                let outcome = self.refuse1.map_or(Ok(([9; 16], GUID, code)), Err);
                Some(packet::plain(
                    Payload::Rakp2,
                    &Rakp2 { tag: first.tag, console: handshake.console, outcome }.emit(),
                ))
            }
            Datagram::Plain(Payload::Rakp3, body) => {
                let third = Rakp34::parse(body).unwrap();
                let handshake = self.handshake.as_ref().unwrap();
                assert!(handshake.rakp3(b"secret").matches(&third.outcome.ok()?, handshake.suite.code_len()));
                let key = handshake.session_key(self.kg.as_deref().unwrap_or(b"secret"));
                self.keys = Some(Keys::new(handshake.suite, &key));
                let check = handshake.rakp4(&key).cut(handshake.suite.check_len()).to_vec();
                let fourth = Rakp34 {
                    tag: third.tag,
                    session: handshake.console,
                    outcome: self.refuse3.map_or(Ok(check), Err),
                };
                Some(packet::plain(Payload::Rakp4, &fourth.emit()))
            }
            Datagram::Sealed(sealed) => {
                let body = sealed.open(self.keys.as_ref().unwrap()).unwrap();
                let (request, sequence) = Request::parse(&body).unwrap();
                let completion = if request.command == SET_SESSION_PRIVILEGE { self.privilege } else { 0 };
                let answer = Response {
                    net_fn: request.net_fn,
                    command: request.command,
                    completion,
                    data: vec![1, 2],
                };
                self.commands.push(request);
                Some(self.seal(&answer.emit(sequence)))
            }
            other => panic!("{other:?}"),
        }
    }

    fn seal(&mut self, body: &[u8]) -> Vec<u8> {
        self.sent += 1;
        let console = self.handshake.as_ref().unwrap().console;
        packet::seal(self.keys.as_ref().unwrap(), Payload::Ipmi, console, self.sent, [1; 16], body)
    }

    fn plain(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (request, sequence) = Request::parse(message).unwrap();
        let data = match request.command {
            GET_CHANNEL_AUTH_CAPABILITIES => vec![1, 0x80, 0x04, 0x02, 0, 0, 0, 0],
            GET_CIPHER_SUITES if !self.lists => return None,
            GET_CIPHER_SUITES => {
                let all = self.suites.iter().flat_map(|s| {
                    let a = s.algorithms();
                    [0xc0, s.id(), a.authentication, 0x40 | a.integrity, 0x80 | a.confidentiality]
                });
                // Suite 0 is offered as well.
                let all: Vec<u8> = [0xc0, 0, 0, 0x40, 0x80].into_iter().chain(all).collect();
                let piece = all.chunks(16).nth(usize::from(request.data[2] & 0x3f)).unwrap_or_default();
                [&[1], piece].concat()
            }
            other => panic!("{other}"),
        };
        let answer = Response { net_fn: request.net_fn, command: request.command, completion: 0, data };
        Some(packet::plain15(&answer.emit(sequence)))
    }
}

/// Runs to the first event.
fn run(session: &mut Session, bmc: &mut Bmc, now: &mut Instant) -> Event {
    for _ in 0..200 {
        while let Some(datagram) = session.poll_transmit() {
            if let Some(answer) = bmc.answer(&datagram) {
                session.handle_datagram(*now, &answer);
                // Repeated by the network.
                session.handle_datagram(*now, &answer);
            }
        }
        if let Some(event) = session.poll_event() {
            return event;
        }
        *now = session.poll_timeout().expect("a session that waits for nothing");
        session.handle_timeout(*now);
    }
    panic!("it never ends")
}

fn first_event(login: Login, bmc: &mut Bmc) -> Event {
    let mut now = Instant::now();
    run(&mut Session::new(now, login, SEED), bmc, &mut now)
}

#[test]
fn the_best_common_suite_is_used_whether_it_is_listed_or_tried() {
    for lists in [true, false] {
        for (suites, wanted) in [(&Suite::ALL[..], Suite::Seventeen), (&[Suite::Three], Suite::Three)] {
            let mut bmc = Bmc { lists, ..Bmc::new(suites) };
            assert_eq!(first_event(login("secret"), &mut bmc), Event::Up(wanted), "{lists}");
        }
    }
}

#[test]
fn a_suite_without_protection_is_never_asked_for_nor_accepted() {
    let mut bmc = Bmc::new(&[]);
    assert_eq!(first_event(login("secret"), &mut bmc), Event::Failed(Failure::NoSuite));
    let ours = Suite::ALL.map(Suite::algorithms);
    assert_eq!(bmc.opened, ours);
    let nothing = Algorithms { authentication: 0, integrity: 0, confidentiality: 0 };
    for downgrade in [nothing, Algorithms { confidentiality: 0, ..Suite::Seventeen.algorithms() }] {
        let mut bmc = Bmc { downgrade: Some(downgrade), ..Bmc::new(&Suite::ALL) };
        assert_eq!(first_event(login("secret"), &mut bmc), Event::Failed(Failure::NoSuite));
        assert_eq!(bmc.opened, ours);
    }
}

#[test]
fn a_failed_login_has_its_name() {
    let refused = |refuse1, refuse3| {
        let mut bmc = Bmc { refuse1, refuse3, ..Bmc::new(&Suite::ALL) };
        first_event(login("secret"), &mut bmc)
    };
    for code in [status::UNAUTHORIZED_NAME, status::PARAMETER, status::CHECK, status::NAME_LENGTH] {
        assert_eq!(refused(Some(code), None), Event::Failed(Failure::Login));
        assert_eq!(refused(None, Some(code)), Event::Failed(Failure::Login));
    }
    assert_eq!(refused(Some(status::UNAUTHORIZED_ROLE), None), Event::Failed(Failure::Forbidden));
    assert_eq!(refused(Some(status::RESOURCES), None), Event::Failed(Failure::Full));
    assert_eq!(refused(None, Some(0x77)), Event::Failed(Failure::Status("RAKP 3", 0x77)));
    let mut bmc = Bmc::new(&Suite::ALL);
    assert_eq!(first_event(login("wrong"), &mut bmc), Event::Failed(Failure::Login));
    let mut bmc = Bmc { privilege: 0x81, ..Bmc::new(&Suite::ALL) };
    assert_eq!(first_event(login("secret"), &mut bmc), Event::Failed(Failure::Forbidden));
}

#[test]
fn the_key_of_the_controller_is_used_where_there_is_one() {
    let kg = Some(b"0123456789".to_vec());
    let mut bmc = Bmc { kg: kg.clone(), ..Bmc::new(&Suite::ALL) };
    assert_eq!(first_event(Login { kg, ..login("secret") }, &mut bmc), Event::Up(Suite::Seventeen));
    let mut bmc = Bmc { kg: Some(b"other".to_vec()), ..Bmc::new(&Suite::ALL) };
    assert_eq!(first_event(login("secret"), &mut bmc), Event::Failed(Failure::Login));
}

#[test]
fn a_command_is_sent_again_until_it_is_answered_and_a_replay_is_no_answer() {
    let mut now = Instant::now();
    let mut bmc = Bmc::new(&Suite::ALL);
    let mut session = Session::new(now, login("secret"), SEED);
    assert_eq!(run(&mut session, &mut bmc, &mut now), Event::Up(Suite::Seventeen));
    let status = Request::new(net_fn::CHASSIS, 1, &[]);
    session.request(now, status.clone(), RETRANSMIT);
    let lost = session.poll_transmit().unwrap();
    let Event::Answered(answer) = run(&mut session, &mut bmc, &mut now) else { panic!("no answer") };
    assert_eq!(answer.data, [1, 2]);
    let again = bmc.answer(&lost).unwrap();
    session.handle_datagram(now, &again);
    assert_eq!(session.poll_event(), None, "an answer to an earlier command");
    // All numbers of a command come by again; what was sealed for the first is not taken for the second.
    for _ in 0..64 {
        session.request(now, status.clone(), RETRANSMIT);
        session.handle_datagram(now, &again);
        assert_eq!(session.poll_event(), None);
        assert!(matches!(run(&mut session, &mut bmc, &mut now), Event::Answered(_)));
    }
    session.request(now, status, RETRANSMIT);
    let start = now;
    while session.poll_event().is_none() {
        while session.poll_transmit().is_some() {}
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert_eq!(now - start, RETRANSMIT.iter().sum::<Duration>());
}

#[test]
fn closing_tells_the_controller() {
    let mut now = Instant::now();
    let mut bmc = Bmc::new(&Suite::ALL);
    let mut session = Session::new(now, login("secret"), SEED);
    run(&mut session, &mut bmc, &mut now);
    session.close();
    bmc.answer(&session.poll_transmit().unwrap());
    assert_eq!(bmc.commands.last(), Some(&Request::new(net_fn::APP, CLOSE_SESSION, &77_u32.to_le_bytes())));
    session.close();
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn a_list_of_suites_is_read_with_everything_in_it_that_is_not_ours() {
    let records = [
        0xc0, 0, 0, 0x40, 0x80, 0xc1, 17, 1, 2, 3, 1, 0x41, 0x81, 0xc0, 3, 1, 0x41, 0x81, 0xc0, 17, 3, 0x44,
        0x81,
    ];
    assert_eq!(parse_suites(&records), [Suite::Three, Suite::Seventeen]);
    assert_eq!(parse_suites(&[0xc0]), []);
}

proptest! {
    #[test]
    fn no_datagram_panics_in_any_state(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20),
        steps in 0..12_usize,
    ) {
        let mut now = Instant::now();
        let mut bmc = Bmc::new(&Suite::ALL);
        let mut session = Session::new(now, login("secret"), SEED);
        for _ in 0..steps {
            let Some(datagram) = session.poll_transmit() else { break };
            let answer = bmc.answer(&datagram).unwrap();
            session.handle_datagram(now, &answer);
        }
        for octets in noise {
            session.handle_datagram(now, &octets);
            for (payload, session_id) in [(Payload::OpenResponse, 0), (Payload::Rakp2, 0), (Payload::Rakp4, 0), (Payload::Ipmi, 1)] {
                let datagram = if session_id == 0 { packet::plain(payload, &octets) } else { packet::plain15(&octets) };
                session.handle_datagram(now, &datagram);
            }
            now += Duration::from_secs(3);
            session.handle_timeout(now);
        }
    }
}
