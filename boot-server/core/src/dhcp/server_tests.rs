//! Conversations with the clients of the virtual rack, the refusals of RFC 2131, and random ones.

use super::*;
use crate::dhcp::lease::{ClientKey, LeaseState};
use crate::dhcp::{Architecture, BootFiles, Stage, limits};
use dhcproto::v4::{self, OptionCode, borrowed};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

#[path = "mode_tests.rs"]
mod modes;
#[path = "pool_tests.rs"]
mod pools;

pub(crate) fn config() -> Config {
    let subnet = |net: &str, pool: &str, router: [u8; 4]| Subnet {
        router: Some(router.into()),
        dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
        ..Subnet::new(net.parse().unwrap(), vec![pool.parse().unwrap()], Duration::from_secs(3600))
    };
    Config {
        server_ip: Ipv4Addr::new(10, 77, 0, 1),
        next_server: Ipv4Addr::new(10, 77, 0, 1),
        http_base: "http://10.77.0.1:8080".into(),
        firmware_base: None,
        boot: BootFiles::default(),
        subnets: vec![
            subnet("10.77.0.0/24", "10.77.0.100-10.77.0.103", [10, 77, 0, 1]),
            subnet("10.88.0.0/24", "10.88.0.10-10.88.0.20", [10, 88, 0, 1]),
        ],
        probe: true,
    }
}

const T0: Timestamp = Timestamp(1_700_000_000_000);

fn server() -> Server {
    Server::new(config(), Vec::new()).unwrap()
}

/// A request under construction.
#[derive(Clone)]
struct Ask {
    mac: [u8; 6],
    kind: u8,
    broadcast: bool,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
}

fn ask(kind: u8, last: u8) -> Ask {
    let none = Ipv4Addr::UNSPECIFIED;
    Ask {
        mac: [0x52, 0x54, 0, 0x77, 0, last],
        kind,
        broadcast: false,
        ciaddr: none,
        giaddr: none,
        options: vec![],
    }
}

impl Ask {
    fn option(mut self, code: u8, data: &[u8]) -> Self {
        self.options.push((code, data.to_vec()));
        self
    }
    fn wants(self, ip: Ipv4Addr) -> Self {
        self.option(50, &ip.octets())
    }
    fn of_server(self, last: u8) -> Self {
        self.option(54, &[10, 77, 0, last])
    }
    fn bytes(&self) -> Vec<u8> {
        let mut b = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, if self.broadcast { 0x80 } else { 0 }, 0];
        b.extend(self.ciaddr.octets());
        b.extend([0; 8]);
        b.extend(self.giaddr.octets());
        b.extend(self.mac);
        b.resize(236, 0);
        b.extend(v4::MAGIC);
        b.extend([53, 1, self.kind]);
        for (code, data) in &self.options {
            b.extend([*code, data.len() as u8]);
            b.extend(data);
        }
        b.push(255);
        b
    }
    fn to(&self, server: &mut Server) -> Answer {
        self.to_at(server, T0)
    }
    fn to_at(&self, server: &mut Server, now: Timestamp) -> Answer {
        server.handle_packet(now, Port::Server67, &self.bytes()).unwrap()
    }
    fn from(self, last: u8) -> Self {
        Self { mac: [0x52, 0x54, 0, 0x77, 0, last], ..self }
    }
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

fn pxe(arch: u8) -> Ask {
    let uuid = [0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 8, 9, 10, 11, 12, 13, 14, 15];
    ask(DISCOVER, 1)
        .option(60, format!("PXEClient:Arch:{arch:05}:UNDI:003000").as_bytes())
        .option(93, &[0, arch])
        .option(94, &[1, 3, 0])
        .option(97, &uuid)
}

/// The reply as text, options in the order of the wire.
fn show(answer: &Answer) -> String {
    let reply = match &answer.reply {
        Ok(reply) => reply,
        Err(silence) => return format!("silence: {silence}\n"),
    };
    let m = borrowed::Message::new(&reply.bytes).unwrap();
    let mut out = format!("to {:?}, {} octets\n", reply.destination, reply.bytes.len());
    let flags = u16::from(m.flags());
    writeln!(
        out,
        "yiaddr {} siaddr {} ciaddr {} giaddr {} flags {flags:#06x} file {:?}",
        m.yiaddr(),
        m.siaddr(),
        m.ciaddr(),
        m.giaddr(),
        String::from_utf8_lossy(m.fname())
    )
    .unwrap();
    for option in m.opts() {
        writeln!(out, "{:>3} {}", u8::from(option.code()), option.data().escape_ascii()).unwrap();
    }
    out
}

fn option(answer: &Answer, code: u8) -> Option<Vec<u8>> {
    let reply = answer.reply.as_ref().ok()?;
    let m = borrowed::Message::new(&reply.bytes).unwrap();
    m.opts().find(|o| o.code() == OptionCode::from(code)).map(|o| o.data().to_vec())
}

fn given(answer: &Answer) -> Ipv4Addr {
    answer.observed.ip.unwrap_or_else(|| panic!("no address: {}", show(answer)))
}

#[test]
fn what_each_client_is_told() {
    let ipxe = pxe(7).option(77, b"iPXE").option(175, &[235, 3, 1, 20, 1]);
    let http = ask(DISCOVER, 1).option(60, b"HTTPClient:Arch:00016:UNDI:003000").option(93, &[0, 16]);
    let cases = [
        ("bios", pxe(0)),
        ("uefi x64", pxe(7)),
        ("uefi http", http),
        ("ipxe", ipxe),
        ("uefi arm64 without a loader", pxe(11)),
        (
            "operating system",
            ask(DISCOVER, 1).option(61, &[1, 0x52, 0x54, 0, 0x77, 0, 1]).option(12, b"web-1"),
        ),
    ];
    let mut text = String::new();
    for (name, ask) in cases {
        writeln!(text, "== {name}\n{}", show(&ask.to(&mut server()))).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn whole_conversation_and_renewal() {
    let mut server = server();
    let offer = pxe(7).to(&mut server);
    let ip = given(&offer);
    assert_eq!(offer.leases, [], "an offer is not stored");
    assert_eq!(offer.observed.uuid, Some("00112233-4455-6677-0809-0a0b0c0d0e0f".parse().unwrap()));
    assert_eq!(offer.observed.stage, Stage::Firmware);
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);
    let ack = ask(REQUEST, 1).of_server(1).wants(ip).to(&mut server);
    assert_eq!(ack.reply.as_ref().unwrap().destination, Destination::UnicastRaw { mac, ip });
    let lease = &ack.leases[0];
    assert_eq!(
        (lease.ip, lease.state, lease.expires),
        (ip, LeaseState::Bound, T0.after(Duration::from_secs(3600)))
    );
    // The next stage of the same machine, with another client identifier, keeps the address.
    let again = ask(DISCOVER, 1).option(61, b"\xffsomething-else").to(&mut server);
    assert_eq!(given(&again), ip);
    // RENEWING is unicast, REBINDING broadcast; both have ciaddr and neither option.
    let renew = Ask { ciaddr: ip, ..ask(REQUEST, 1) }.to(&mut server);
    assert_eq!(renew.reply.as_ref().unwrap().destination, Destination::Unicast(ip));
    assert_eq!(option(&renew, 53), Some(vec![5]));
}

#[test]
fn requests_that_are_refused() {
    let mut server = server();
    let taken = given(&ask(DISCOVER, 1).to(&mut server));
    ask(REQUEST, 1).of_server(1).wants(taken).to(&mut server);
    let mut text = String::new();
    for (name, ask) in [
        ("of another", ask(REQUEST, 2).of_server(1).wants(taken)),
        ("init-reboot in the wrong network", ask(REQUEST, 2).wants(Ipv4Addr::new(192, 168, 1, 5))),
        ("init-reboot outside the pool", ask(REQUEST, 2).wants(Ipv4Addr::new(10, 77, 0, 50))),
        ("renewing what another has", Ask { ciaddr: taken, ..ask(REQUEST, 2) }),
        ("the server's own", ask(REQUEST, 2).wants(Ipv4Addr::new(10, 77, 0, 1))),
        ("without any address", ask(REQUEST, 2)),
        ("another server's offer", ask(REQUEST, 2).of_server(9).wants(taken)),
        ("through a relay", Ask { giaddr: Ipv4Addr::new(10, 88, 0, 1), ..ask(REQUEST, 2).wants(taken) }),
        ("an unknown relay", Ask { giaddr: Ipv4Addr::new(10, 99, 0, 1), ..ask(DISCOVER, 2) }),
    ] {
        let answer = ask.to(&mut server);
        assert_eq!(answer.leases, [], "{name}");
        writeln!(text, "== {name}\n{}", show(&answer)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn init_reboot_with_a_lease_is_confirmed_also_after_a_restart() {
    let mut first = server();
    let ip = given(&ask(DISCOVER, 1).to(&mut first));
    let lease = ask(REQUEST, 1).of_server(1).wants(ip).to(&mut first).leases;
    let mut second = Server::new(config(), lease).unwrap();
    assert_eq!(given(&ask(REQUEST, 1).wants(ip).to(&mut second)), ip);
    assert!(ask(REQUEST, 2).wants(ip).to(&mut second).reply.unwrap().nak);
}

#[test]
fn relayed_clients_get_their_own_subnet_and_option_82_back_last() {
    let giaddr = Ipv4Addr::new(10, 88, 0, 1);
    let answer = Ask { giaddr, ..pxe(7).option(82, b"\x01\x03br0\x02\x02ab") }.to(&mut server());
    assert_eq!(answer.reply.as_ref().unwrap().destination, Destination::Relay(giaddr));
    assert!(given(&answer).octets().starts_with(&[10, 88, 0]));
    assert_eq!(option(&answer, 3), Some(vec![10, 88, 0, 1]));
    let m = answer.reply.unwrap();
    let last = borrowed::Message::new(&m.bytes).unwrap().opts().last().unwrap();
    assert_eq!((u8::from(last.code()), last.data()), (82, &b"\x01\x03br0\x02\x02ab"[..]));
}

#[test]
fn broadcast_flag_and_other_hardware_are_broadcast_to() {
    let flagged = Ask { broadcast: true, ..ask(DISCOVER, 1) }.to(&mut server());
    assert_eq!(flagged.reply.unwrap().destination, Destination::Broadcast);
    // IP over InfiniBand: htype 32, no hardware address, a client identifier (RFC 4390).
    let mut bytes = Ask { mac: [0; 6], ..ask(DISCOVER, 1).option(61, b"\xff\x01\x02") }.bytes();
    (bytes[1], bytes[2]) = (32, 0);
    let answer = server().handle_packet(T0, Port::Server67, &bytes).unwrap();
    assert_eq!(answer.reply.unwrap().destination, Destination::Broadcast);
}

#[test]
fn declined_addresses_rest_and_released_ones_return() {
    let mut server = server();
    let ip = given(&ask(DISCOVER, 1).to(&mut server));
    ask(REQUEST, 1).of_server(1).wants(ip).to(&mut server);
    assert_eq!(ask(DECLINE, 2).of_server(1).wants(ip).to(&mut server).leases, [], "not by a stranger");
    let declined = ask(DECLINE, 1).of_server(1).wants(ip).to(&mut server);
    assert_eq!(declined.reply, Err(Silence::NoReplyDue));
    assert_eq!(declined.leases[0].state, LeaseState::Declined);
    let other = given(&ask(DISCOVER, 1).wants(ip).to(&mut server));
    assert_ne!(other, ip);
    ask(REQUEST, 1).of_server(1).wants(other).to(&mut server);
    let released = Ask { ciaddr: other, ..ask(RELEASE, 1).of_server(1) }.to(&mut server);
    assert_eq!(released.leases[0].expires, T0);
    assert_eq!(given(&ask(DISCOVER, 2).wants(other).to(&mut server)), other);
}

#[test]
fn a_full_pool_takes_back_the_longest_free_then_is_silent() {
    let mut server = server();
    let later = T0.after(Duration::from_secs(4000));
    let mut first = None;
    for n in 1..=4 {
        let ip = given(&ask(DISCOVER, n).to(&mut server));
        let now = T0.after(Duration::from_secs(n.into()));
        server.handle_packet(now, Port::Server67, &ask(REQUEST, n).of_server(1).wants(ip).bytes()).unwrap();
        first = first.or(Some(ip));
    }
    assert_eq!(ask(DISCOVER, 5).to(&mut server).reply, Err(Silence::PoolExhausted));
    let reused = server.handle_packet(later, Port::Server67, &ask(DISCOVER, 5).bytes()).unwrap();
    assert_eq!(Some(given(&reused)), first);
}

#[test]
fn inform_gets_options_but_no_lease() {
    let ciaddr = Ipv4Addr::new(10, 77, 0, 9);
    let answer = Ask { ciaddr, ..ask(INFORM, 1) }.to(&mut server());
    assert_eq!(answer.reply.as_ref().unwrap().destination, Destination::Unicast(ciaddr));
    assert_eq!((option(&answer, 51), option(&answer, 53)), (None, Some(vec![5])));
    assert_eq!(answer.leases, []);
}

#[test]
fn an_option_that_cannot_be_read_hides_none_after_it() {
    // Each of these stops dhcproto's owned decoder: Latin-1 host name, two addresses in 150, odd lengths of 93, 94.
    let bad =
        ask(DISCOVER, 1).option(12, b"r\xe4ck").option(150, &[1; 8]).option(94, &[1, 3]).option(50, &[1]);
    let answer = bad.option(60, b"PXEClient").option(93, &[0, 7]).to(&mut server());
    assert_eq!(answer.observed.architecture, Some(Architecture::EFI_X64));
    assert_eq!(option(&answer, 67).as_deref(), Some(&b"snponly.efi"[..]));
    assert_eq!(answer.observed.hostname.as_deref(), Some("r\u{fffd}ck"));
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let good = ask(DISCOVER, 1).bytes();
    let with = |i: usize, v: u8| {
        let mut bytes = good.clone();
        bytes[i] = v;
        server().handle_packet(T0, Port::Server67, &bytes).unwrap_err()
    };
    assert_eq!(with(0, 2), RequestError::Opcode);
    assert_eq!(with(2, 255), RequestError::HardwareAddress(255));
    assert_eq!(with(236, 0), RequestError::Cookie);
    assert_eq!(with(242, 2), RequestError::MessageType);
    assert_eq!(with(28, 1), RequestError::Anonymous, "a multicast address is nobody's");
    assert_eq!(
        server().handle_packet(T0, Port::Server67, &good[..239]).unwrap_err(),
        RequestError::Short(239)
    );
}

#[test]
fn client_keys_come_back_from_text() {
    for key in [ClientKey::Mac(MacAddr([1; 6])), ClientKey::Id(vec![0xff, 0, 0x1a])] {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    for bad in ["", "id:", "id:1", "id:+1", "mac:", "52:54:00:00:00:01"] {
        assert!(bad.parse::<ClientKey>().is_err(), "{bad}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Discover(u8, Option<u8>),
    Select(u8),
    Reboot(u8, u8),
    Renew(u8, u8),
    Release(u8),
    Decline(u8),
    Wait(u32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 1u8..8;
    let ip = || 98u8..106;
    let step = prop_oneof![
        (client(), proptest::option::of(ip())).prop_map(|(c, w)| Step::Discover(c, w)),
        client().prop_map(Step::Select),
        (client(), ip()).prop_map(|(c, i)| Step::Reboot(c, i)),
        (client(), ip()).prop_map(|(c, i)| Step::Renew(c, i)),
        client().prop_map(Step::Release),
        client().prop_map(Step::Decline),
        (0u32..3_000).prop_map(Step::Wait),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn no_address_is_lent_twice(steps in steps()) {
        let (mut server, mut now) = (server(), T0);
        // The model: who holds what until when, by the ACKs alone; and the rows as a store would have them.
        let mut held: BTreeMap<Ipv4Addr, (u8, Timestamp)> = BTreeMap::new();
        let mut stored: BTreeMap<Ipv4Addr, Lease> = BTreeMap::new();
        let mut offered: BTreeMap<u8, Ipv4Addr> = BTreeMap::new();
        for step in steps {
            let own = |c: u8| held.iter().find(|(_, (o, until))| *o == c && *until > now).map(|(ip, _)| *ip);
            let (client, ask) = match step {
                Step::Wait(s) => { now = now.after(Duration::from_secs(s.into())); continue }
                Step::Restart => { server = Server::new(config(), stored.values().cloned().collect()).unwrap(); continue }
                Step::Discover(c, wish) => {
                    let a = ask(DISCOVER, c);
                    (c, match wish { Some(w) => a.wants(Ipv4Addr::new(10, 77, 0, w)), None => a })
                }
                Step::Select(c) => { let Some(ip) = offered.get(&c) else { continue }; (c, ask(REQUEST, c).of_server(1).wants(*ip)) }
                Step::Reboot(c, ip) => (c, ask(REQUEST, c).wants(Ipv4Addr::new(10, 77, 0, ip))),
                Step::Renew(c, ip) => (c, Ask { ciaddr: Ipv4Addr::new(10, 77, 0, ip), ..ask(REQUEST, c) }),
                Step::Release(c) => { let Some(ip) = own(c) else { continue }; (c, Ask { ciaddr: ip, ..ask(RELEASE, c).of_server(1) }) }
                Step::Decline(c) => { let Some(ip) = own(c) else { continue }; (c, ask(DECLINE, c).of_server(1).wants(ip)) }
            };
            let answer = server.handle_packet(now, Port::Server67, &ask.bytes()).unwrap();
            for lease in &answer.leases {
                stored.insert(lease.ip, lease.clone());
                if lease.state == LeaseState::Declined || lease.expires <= now {
                    held.remove(&lease.ip);
                }
            }
            let Some(ip) = answer.observed.ip else { continue };
            prop_assert!((100..=103).contains(&ip.octets()[3]), "{ip} is not of the pool");
            if let Some((owner, until)) = held.get(&ip) {
                prop_assert!(*owner == client || *until <= now, "{ip} is {owner}'s until {until:?}, given to {client}");
            }
            let resting = stored.get(&ip).is_some_and(|l| l.state == LeaseState::Declined && l.expires > now);
            prop_assert!(!resting, "{ip} was declined");
            match answer.leases.first() {
                Some(lease) => {
                    held.retain(|_, (owner, _)| *owner != client);
                    held.insert(ip, (client, lease.expires));
                }
                None => { offered.insert(client, ip); }
            }
            prop_assert!(server.leases().iter().count() <= 4);
        }
    }

    #[test]
    fn no_octets_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), hlen: u8, htype: u8, header in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut server = server();
        let _ = server.handle_packet(T0, Port::Server67, &header);
        for kind in [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] {
            let mut bytes = ask(kind, 1).option(60, b"PXEClient").bytes();
            (bytes[1], bytes[2]) = (htype, hlen);
            bytes.pop();
            bytes.extend(&tail);
            if let Ok(Answer { reply: Ok(reply), .. }) = server.handle_packet(T0, Port::Server67, &bytes) {
                prop_assert!(reply.bytes.len() >= limits::REPLY_MIN);
            }
        }
    }
}
