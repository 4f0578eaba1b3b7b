//! Conversations with the clients of the virtual rack, the refusals of RFC 8415, and random ones.

use super::*;
use crate::dhcp::BootFiles;
use crate::dhcp6::config::{Ipv6Net, Range};
use crate::dhcp6::limits;
use crate::dhcp6::wire::{Options, code, put};
use dhcproto::{Decodable, Decoder, v6};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const T0: Timestamp = Timestamp(1_700_000_000_000);
const SERVER: &[u8] = b"\0\x04billet-test-duid";

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Ranges of four addresses, so that they run out.
fn config() -> Config {
    let subnet = |net: &str, first: &str, last: &str| Subnet {
        net: Ipv6Net::new(ip(net), 64),
        range: Range { first: ip(first), last: ip(last) },
        dns: vec![ip("fd77::53")],
        lease_time: Duration::from_secs(3600),
    };
    Config {
        address: ip("fd77::1"),
        duid: SERVER.to_vec(),
        preference: 255,
        http_base: "http://[fd77::1]:8080".into(),
        boot: BootFiles::default(),
        subnets: vec![subnet("fd77::", "fd77::100", "fd77::103"), subnet("fd88::", "fd88::100", "fd88::103")],
    }
}

fn server() -> Server {
    Server::new(config(), Vec::new()).unwrap()
}

/// The link-local address that a port of our machines has.
fn link_local(last: u8) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x77, 0, last])
}

/// A message under construction.
#[derive(Clone)]
struct Ask {
    kind: u8,
    from: Ipv6Addr,
    options: Vec<u8>,
}

const SOLICIT: u8 = 1;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORM: u8 = 11;

/// From the n-th machine, whose identifier says nothing of its port.
fn ask(kind: u8, n: u8) -> Ask {
    let ask = Ask { kind, from: link_local(n), options: Vec::new() };
    ask.option(code::CLIENT_ID, &[0, 4, 9, 9, 9, n])
}

impl Ask {
    fn option(mut self, code: u16, data: &[u8]) -> Self {
        put(&mut self.options, code, data);
        self
    }
    fn ia(self, id: u8, addresses: &[Ipv6Addr]) -> Self {
        let mut data = vec![0, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0];
        for address in addresses {
            put(&mut data, code::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        self.option(code::IA_NA, &data)
    }
    fn of_server(self) -> Self {
        self.option(code::SERVER_ID, SERVER)
    }
    fn bytes(&self) -> Vec<u8> {
        [&[self.kind, 0xa, 0xb, 0xc][..], &self.options].concat()
    }
    fn to(&self, server: &mut Server) -> Answer {
        self.at(T0, server)
    }
    fn at(&self, now: Timestamp, server: &mut Server) -> Answer {
        server.handle_packet(now, self.from, &self.bytes()).unwrap()
    }
}

/// What UEFI asks (as captured from OVMF): PXE for architecture 7, HTTP boot for 16.
fn uefi(kind: u8, class: &str, arch: u8) -> Ask {
    let mut data = vec![0, 0, 1, 0x57];
    data.extend(u16::try_from(class.len()).unwrap().to_be_bytes());
    data.extend(class.bytes());
    ask(kind, 1)
        .option(code::REQUESTED, &[0, 59, 0, 60, 0, 23, 0, 16])
        .option(code::ARCHITECTURE, &[0, arch])
        .option(62, &[1, 3, 0])
        .option(code::VENDOR_CLASS, &data)
}

fn ipxe(kind: u8) -> Ask {
    uefi(kind, "PXEClient:Arch:00007:UNDI:003010", 7).option(code::USER_CLASS, b"\0\x04iPXE")
}

/// The reply as text, nested options indented.
fn show(answer: &Answer) -> String {
    match &answer.reply {
        Ok(reply) => {
            let mut out = format!("to {}\n", if reply.to_relay { "a relay" } else { "the client" });
            show_message(&mut out, &reply.bytes, 0);
            out
        }
        Err(silence) => format!("silence: {silence}\n"),
    }
}

fn show_message(out: &mut String, bytes: &[u8], depth: usize) {
    let pad = "  ".repeat(depth);
    let relayed = bytes[0] == 13;
    let head = if relayed { 34 } else { 4 };
    writeln!(out, "{pad}type {} {}", bytes[0], bytes[1..head].escape_ascii()).unwrap();
    show_options(out, &bytes[head..], depth);
    if !relayed {
        // The other opinion: every octet is understood.
        let message = v6::Message::decode(&mut Decoder::new(bytes)).unwrap();
        assert_eq!(message.opts().iter().count(), Options::new(&bytes[head..]).count());
    }
}

fn show_options(out: &mut String, bytes: &[u8], depth: usize) {
    let pad = "  ".repeat(depth);
    for (option, data) in Options::new(bytes) {
        match option {
            code::RELAY_MESSAGE => {
                writeln!(out, "{pad}{option:>4} relayed").unwrap();
                show_message(out, data, depth + 1);
            }
            code::IA_NA | code::IA_PD => {
                writeln!(out, "{pad}{option:>4} {}", data[..12].escape_ascii()).unwrap();
                show_options(out, &data[12..], depth + 1);
            }
            code::IA_ADDRESS => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(&data[..16]).unwrap());
                writeln!(out, "{pad}{option:>4} {address} {}", data[16..].escape_ascii()).unwrap();
            }
            _ => writeln!(out, "{pad}{option:>4} {}", data.escape_ascii()).unwrap(),
        }
    }
}

fn given(answer: &Answer) -> Ipv6Addr {
    answer.observed.ip.unwrap_or_else(|| panic!("no address: {}", show(answer)))
}

/// Solicit and Request.
fn bind(server: &mut Server, now: Timestamp, n: u8) -> Ipv6Addr {
    let offered = given(&ask(SOLICIT, n).ia(1, &[]).at(now, server));
    given(&ask(REQUEST, n).of_server().ia(1, &[offered]).at(now, server))
}

#[test]
fn what_each_client_is_told() {
    let http = "HTTPClient:Arch:00016:UNDI:003001";
    let cases = [
        ("uefi pxe", uefi(SOLICIT, "PXEClient:Arch:00007:UNDI:003001", 7).ia(1, &[])),
        ("uefi http", uefi(SOLICIT, http, 16).ia(1, &[])),
        ("uefi http, request", uefi(REQUEST, http, 16).of_server().ia(1, &[ip("fd77::101")])),
        ("ipxe", ipxe(SOLICIT).ia(1, &[])),
        ("ipxe, rapid commit", ipxe(SOLICIT).ia(1, &[]).option(code::RAPID_COMMIT, &[])),
        ("ipxe, information", ipxe(INFORM)),
        ("uefi arm64 without a loader", uefi(SOLICIT, "PXEClient", 11).ia(1, &[])),
        ("operating system", ask(SOLICIT, 1).option(code::REQUESTED, &[0, 23]).ia(1, &[])),
        (
            "prefix and temporary address",
            ask(SOLICIT, 1).option(code::IA_PD, &[7; 12]).option(code::IA_TA, &[8; 4]),
        ),
    ];
    let mut text = String::new();
    for (name, ask) in cases {
        writeln!(text, "== {name}\n{}", show(&ask.to(&mut server()))).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_refused() {
    let mut server = server();
    let taken = bind(&mut server, T0, 1);
    let mut anonymous = ask(SOLICIT, 2);
    anonymous.options.clear();
    let mut text = String::new();
    for (name, ask) in [
        ("renewing what another has", ask(RENEW, 2).of_server().ia(1, &[taken])),
        ("an address of another network", ask(REQUEST, 2).of_server().ia(1, &[ip("fd99::5")])),
        ("rebinding an address of another network", ask(REBIND, 2).ia(1, &[ip("fd99::5")])),
        ("confirming it", ask(CONFIRM, 2).ia(1, &[ip("fd99::5")])),
        ("confirming one of this", ask(CONFIRM, 2).ia(1, &[ip("fd77::5")])),
        ("confirming nothing", ask(CONFIRM, 2).ia(1, &[])),
        ("releasing what another has", ask(RELEASE, 2).of_server().ia(1, &[taken])),
        ("declining what another has", ask(DECLINE, 2).of_server().ia(1, &[taken])),
        ("a solicit to one server", ask(SOLICIT, 2).of_server()),
        ("a request to another server", ask(REQUEST, 2).option(code::SERVER_ID, b"other").ia(1, &[])),
        ("an information request for an address", ask(INFORM, 2).ia(1, &[])),
        ("nobody", anonymous),
    ] {
        writeln!(text, "== {name}\n{}", show(&ask.to(&mut server))).unwrap();
    }
    insta::assert_snapshot!(text);
    assert_eq!(server.leases().of(&ClientKey::Mac(MacAddr([0x52, 0x54, 0, 0x77, 0, 1]))).unwrap().ip, taken);
}

#[test]
fn every_program_of_a_machine_gets_the_same_address() {
    let mut server = server();
    let first = bind(&mut server, T0, 1);
    // iPXE, the agent and the OS: other identifiers, other associations, the same port.
    for (duid, id) in [(&b"\0\x04another"[..], 7), (b"\0\x03\0\x01\x52\x54\0\x77\0\x01", 8)] {
        let mut other = ask(SOLICIT, 1);
        other.options.clear();
        let answer = other.option(code::CLIENT_ID, duid).ia(id, &[]).to(&mut server);
        assert_eq!(given(&answer), first);
    }
    assert_eq!(server.leases().iter().count(), 1);
    // After a restart it is the same, and it is the same where the table was lost.
    let mut restored = Server::new(config(), server.leases().iter().cloned().collect()).unwrap();
    assert_eq!(given(&ask(REBIND, 1).ia(1, &[first]).to(&mut restored)), first);
    assert_eq!(bind(&mut self::server(), T0, 1), first);
}

#[test]
fn the_machine_is_known_by_its_port() {
    let mut server = server();
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 9]);
    let direct = ask(SOLICIT, 9).to(&mut server);
    assert_eq!(direct.observed.mac, Some(mac));
    let private = |ask: Ask| Ask { from: ip("fe80::1234:5678"), ..ask };
    let by_duid = [&b"\0\x01\0\x01\0\0\0\x05"[..], &mac.0].concat();
    let mut anonymous = private(ask(SOLICIT, 9));
    anonymous.options.clear();
    let answer = anonymous.option(code::CLIENT_ID, &by_duid).ia(3, &[]).to(&mut server);
    assert_eq!(answer.observed.mac, Some(mac));
    assert_eq!(private(ask(SOLICIT, 9)).to(&mut server).observed.mac, None);
    // An identifier names the machine, not the port: two ports of it are lent two addresses.
    let both = |id| private(ask(SOLICIT, 9)).ia(id, &[]).option(code::RAPID_COMMIT, &[]);
    assert_ne!(given(&both(1).to(&mut server)), given(&both(2).to(&mut server)));
}

#[test]
fn several_associations_of_one_port_are_lent_several_addresses() {
    let mut server = server();
    let offer = ask(SOLICIT, 1).ia(1, &[]).ia(2, &[]).option(code::RAPID_COMMIT, &[]).to(&mut server);
    let lent: Vec<_> = offer.leases.iter().map(|l| l.ip).collect();
    assert_eq!(lent.len(), 2);
    assert_ne!(lent[0], lent[1]);
    // The second alone is prolonged as what it is.
    assert_eq!(given(&ask(RENEW, 1).of_server().ia(2, &[lent[1]]).to(&mut server)), lent[1]);
}

/// Puts a message into a relay's envelope.
fn relayed(hops: u8, link: &str, peer: Ipv6Addr, options: &[(u16, &[u8])], inner: &[u8]) -> Vec<u8> {
    let mut out = vec![12, hops];
    out.extend(ip(link).octets());
    out.extend(peer.octets());
    for (code, data) in options {
        put(&mut out, *code, data);
    }
    put(&mut out, code::RELAY_MESSAGE, inner);
    out
}

#[test]
fn relayed_clients_get_their_own_subnet_and_the_envelopes_back() {
    let mut server = server();
    let ask = uefi(SOLICIT, "PXEClient", 7).ia(1, &[]);
    let near: &[(u16, &[u8])] =
        &[(code::INTERFACE_ID, b"eth7"), (code::CLIENT_LINK_LAYER, b"\0\x01\x52\x54\0\x77\0\x05")];
    let inner = relayed(0, "fd88::1", ip("fe80::5"), near, &ask.bytes());
    let outer = relayed(1, "::", ip("fe80::1"), &[(code::INTERFACE_ID, b"up")], &inner);
    let answer = server.handle_packet(T0, ip("fd99::1"), &outer).unwrap();
    assert_eq!(answer.observed.mac, Some(MacAddr([0x52, 0x54, 0, 0x77, 0, 5])));
    assert_eq!(answer.observed.relay, Some(ip("fd99::1")));
    insta::assert_snapshot!(show(&answer));
    let unknown = relayed(0, "fd99::1", ip("fe80::5"), &[], &ask.bytes());
    let answer = server.handle_packet(T0, ip("fd99::1"), &unknown).unwrap();
    assert_eq!(answer.reply, Err(Silence::NoSubnet(ip("fd99::1"))));
    let mut deep = ask.bytes();
    for _ in 0..limits::RELAYS_MAX {
        deep = relayed(0, "fd88::1", ip("fe80::5"), &[], &deep);
    }
    assert!(server.handle_packet(T0, ip("fd99::1"), &deep).is_ok());
    let deeper = relayed(0, "fd88::1", ip("fe80::5"), &[], &deep);
    assert_eq!(server.handle_packet(T0, ip("fd99::1"), &deeper).unwrap_err(), RequestError::Relays);
}

#[test]
fn declined_addresses_rest_and_released_ones_return() {
    let mut server = server();
    let first = bind(&mut server, T0, 1);
    let declined = ask(DECLINE, 1).of_server().ia(1, &[first]).to(&mut server);
    assert_eq!(declined.leases[0].state, LeaseState::Declined);
    let second = given(&ask(SOLICIT, 1).ia(1, &[first]).to(&mut server));
    assert_ne!(second, first);
    let second = given(&ask(REQUEST, 1).of_server().ia(1, &[second]).to(&mut server));
    let released = ask(RELEASE, 1).of_server().ia(1, &[second]).to(&mut server);
    assert_eq!(released.leases[0].expires, T0);
    assert_eq!(given(&ask(SOLICIT, 2).ia(1, &[second]).to(&mut server)), second);
}

#[test]
fn a_full_range_takes_back_the_longest_free_and_then_refuses() {
    let mut server = server();
    let first = bind(&mut server, T0, 1);
    for n in 2..=4 {
        bind(&mut server, T0.after(Duration::from_secs(n.into())), n);
    }
    let full = ask(SOLICIT, 5).ia(1, &[]).to(&mut server);
    assert!(show(&full).contains("no address is free"), "{}", show(&full));
    let later = T0.after(Duration::from_secs(3601));
    assert_eq!(bind(&mut server, later, 5), first);
    // The one who had it gets another, and is told that its own ended.
    let renew =
        ask(RENEW, 1).of_server().ia(1, &[first]).at(later.after(Duration::from_secs(9)), &mut server);
    assert_ne!(given(&renew), first);
    assert!(show(&renew).contains(&format!("{first} \\x00\\x00")), "{}", show(&renew));
}

#[test]
fn a_flood_of_solicits_keeps_nothing() {
    let mut server = server();
    for n in 0..200 {
        ask(SOLICIT, n).ia(n, &[]).to(&mut server);
    }
    assert_eq!(server.leases().iter().count(), 0);
}

/// Random clients that wish random addresses of a large range.
#[test]
fn wishes_do_not_grow_a_full_table() {
    let mut config = config();
    config.subnets[0].range.last = ip("fd77::ffff:ffff");
    let end = T0.after(Duration::from_secs(3600));
    let row = |n: u64| Lease {
        ip: config.subnets[0].range.nth(n),
        client: ClientKey::Ia([0; 4], n.to_be_bytes().to_vec()),
        state: LeaseState::Bound,
        expires: end,
    };
    let rows = (1..u64::try_from(limits::LEASES_MAX).unwrap()).map(row).collect();
    let mut server = Server::new(config.clone(), rows).unwrap();
    let wish = |n: u8| Ipv6Addr::from(u128::from(ip("fd77::ff00:0")) + u128::from(n));
    let asked =
        |now, n: u8, server: &mut Server| ask(REQUEST, n).of_server().ia(1, &[wish(n)]).at(now, server);
    assert_eq!(given(&asked(T0, 1, &mut server)), wish(1), "the last row");
    for n in 2..20 {
        let answer = asked(T0, n, &mut server);
        assert_eq!((answer.observed.ip, answer.leases), (None, vec![]));
    }
    assert_eq!(given(&asked(T0.after(Duration::from_secs(9)), 1, &mut server)), wish(1), "it keeps its own");
    // A row that is over is taken in place of what is wished.
    let lent = given(&asked(end, 2, &mut server));
    assert_ne!(lent, wish(2));
    assert_eq!(server.leases().of(&ClientKey::Mac(MacAddr([0x52, 0x54, 0, 0x77, 0, 2]))).unwrap().ip, lent);
    assert_eq!(server.leases().iter().count(), limits::LEASES_MAX);
}

#[test]
fn client_keys_come_back_from_text() {
    for key in [ClientKey::Mac(MacAddr([1; 6])), ClientKey::Ia([0, 1, 2, 0xff], vec![0, 3, 0x1a])] {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    for bad in ["", "ia:", "ia:0001", "ia:00010203", "ia:000102030", "ia:+1+1+1+1+1", "mac:"] {
        assert!(bad.parse::<ClientKey>().is_err(), "{bad}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Solicit(u8, Option<u8>, bool),
    Request(u8, u8),
    Renew(u8, u8),
    Rebind(u8, u8),
    Release(u8),
    Decline(u8),
    Wait(u32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 1u8..8;
    let last = || 0xfe_u8..=0xff;
    let step = prop_oneof![
        (client(), proptest::option::of(0u8..6), any::<bool>()).prop_map(|(c, w, r)| Step::Solicit(c, w, r)),
        (client(), 0u8..6).prop_map(|(c, i)| Step::Request(c, i)),
        (client(), 0u8..6).prop_map(|(c, i)| Step::Renew(c, i)),
        (client(), last()).prop_map(|(c, i)| Step::Rebind(c, i)),
        client().prop_map(Step::Release),
        client().prop_map(Step::Decline),
        (0u32..3_000).prop_map(Step::Wait),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

fn at(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(last))
}

proptest! {
    #[test]
    fn no_address_is_lent_twice(steps in steps()) {
        let (mut server, mut now) = (server(), T0);
        // The model: who holds what until when, by the Replies alone; and the rows as a store would have them.
        let mut held: BTreeMap<Ipv6Addr, (u8, Timestamp)> = BTreeMap::new();
        let mut stored: BTreeMap<Ipv6Addr, Lease> = BTreeMap::new();
        for step in steps {
            let own = |c: u8| held.iter().find(|(_, (o, until))| *o == c && *until > now).map(|(ip, _)| *ip);
            let (client, ask) = match step {
                Step::Wait(s) => { now = now.after(Duration::from_secs(s.into())); continue }
                Step::Restart => { server = Server::new(config(), stored.values().cloned().collect()).unwrap(); continue }
                Step::Solicit(c, wish, rapid) => {
                    let a = ask(SOLICIT, c).ia(1, &wish.map(at).into_iter().collect::<Vec<_>>());
                    (c, if rapid { a.option(code::RAPID_COMMIT, &[]) } else { a })
                }
                Step::Request(c, i) => (c, ask(REQUEST, c).of_server().ia(1, &[at(i)])),
                Step::Renew(c, i) => (c, ask(RENEW, c).of_server().ia(1, &[at(i)])),
                Step::Rebind(c, i) => (c, ask(REBIND, c).ia(1, &[at(i)])),
                Step::Release(c) => { let Some(ip) = own(c) else { continue }; (c, ask(RELEASE, c).of_server().ia(1, &[ip])) }
                Step::Decline(c) => { let Some(ip) = own(c) else { continue }; (c, ask(DECLINE, c).of_server().ia(1, &[ip])) }
            };
            let answer = ask.at(now, &mut server);
            for lease in &answer.leases {
                stored.insert(lease.ip, lease.clone());
                if lease.state == LeaseState::Declined || lease.expires <= now {
                    held.remove(&lease.ip);
                }
            }
            prop_assert!(server.leases().iter().eq(stored.values()), "the rows that are stored are the table");
            let Some(ip) = answer.observed.ip else { continue };
            prop_assert!((0x100..=0x103).contains(&ip.segments()[7]), "{ip} is not of the range");
            if let Some((owner, until)) = held.get(&ip) {
                prop_assert!(*owner == client || *until <= now, "{ip} is {owner}'s until {until:?}, given to {client}");
            }
            let resting = stored.get(&ip).is_some_and(|l| l.state == LeaseState::Declined && l.expires > now);
            prop_assert!(!resting, "{ip} was declined");
            if let Some(lease) = answer.leases.iter().find(|l| l.ip == ip) {
                held.retain(|_, (owner, _)| *owner != client);
                held.insert(ip, (client, lease.expires));
            }
        }
    }

    #[test]
    fn no_octets_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), packet in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut server = server();
        let _ = server.handle_packet(T0, link_local(1), &packet);
        for kind in [SOLICIT, REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE, INFORM] {
            let bytes = [ask(kind, 1).bytes(), tail.clone()].concat();
            let _ = server.handle_packet(T0, link_local(1), &bytes);
            let _ = server.handle_packet(T0, link_local(1), &relayed(0, "::", link_local(2), &[], &bytes));
            let _ = server.handle_packet(T0, link_local(1), &[vec![12; 34], bytes].concat());
        }
    }
}
