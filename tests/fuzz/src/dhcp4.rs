//! A conversation of DHCPv4 clients with the server: any octets, in any order, on both ports, over hours.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use boot_server_core::dhcp::{
    Answer, BootFiles, ClientKey, Config, Destination, Lease, LeaseState, Machine, Mode, Port, Reservation,
    Server, Subnet, limits,
};
use dhcproto::{Decodable, Decoder, v4};
use protocol::{MacAddr, Timestamp};

use crate::input::packets;

const STARTED: Timestamp = Timestamp(1_700_000_000_000);
/// A UDP payload that fits an Ethernet frame.
const REPLY_MAX: usize = 1500 - 28;

/// The first octet of a packet says how much time passed (low six bits), whether it came to port 4011 (bit 6), and whether
/// the server was started anew on what it had stored (bit 7).
pub fn run(data: &[u8]) {
    let mut server = Server::new(config(), Vec::new()).expect("a configuration that can be");
    let mut stored: BTreeMap<Ipv4Addr, Lease> = BTreeMap::new();
    let mut now = STARTED;
    for packet in packets(data) {
        let Some((how, bytes)) = packet.split_first() else { continue };
        now = Timestamp(now.0 + 500 * (1 << ((how & 0x3f) % 24)));
        if how & 0x80 != 0 {
            server = Server::new(config(), stored.values().cloned().collect()).expect("as before");
        }
        let port = if how & 0x40 == 0 { Port::Server67 } else { Port::Boot4011 };
        let Ok(answer) = server.handle_packet(now, port, bytes) else { continue };
        check(&answer, &stored, now);
        stored.extend(answer.leases.into_iter().map(|lease| (lease.ip, lease)));
        if let Some(ip) = answer.probe {
            let found = (how & 1 == 0).then_some(MacAddr([2, 0, 0, 0, 0, 9]));
            stored.extend(server.handle_probe(now, ip, found).map(|lease| (lease.ip, lease)));
        }
    }
    nobody_shares(&server, now);
}

fn check(answer: &Answer, stored: &BTreeMap<Ipv4Addr, Lease>, now: Timestamp) {
    for lease in &answer.leases {
        if let Some(before) =
            stored.get(&lease.ip).filter(|l| l.state == LeaseState::Bound && l.expires > now)
        {
            assert_eq!(before.client, lease.client, "{} was lent to another", lease.ip);
        }
    }
    let Ok(reply) = &answer.reply else { return };
    assert!(
        reply.bytes.len() >= limits::REPLY_MIN && reply.bytes.len() <= REPLY_MAX,
        "{}",
        reply.bytes.len()
    );
    let message = v4::Message::decode(&mut Decoder::new(&reply.bytes)).expect("a reply can be read");
    assert_eq!(message.opcode(), v4::Opcode::BootReply);
    let kind = message.opts().msg_type().expect("a reply has a type");
    if kind == v4::MessageType::Ack && !message.yiaddr().is_unspecified() {
        let lent = answer.leases.iter().any(|l| l.ip == message.yiaddr() && l.state == LeaseState::Bound);
        assert!(lent, "{} is acknowledged and not stored", message.yiaddr());
    }
    match reply.destination {
        Destination::Relay(to) => assert!(!to.is_unspecified() && !to.is_broadcast(), "sent to {to}"),
        // The server must not send to others what they never asked for.
        Destination::Unicast(to) => {
            assert!((77..=80).contains(&to.octets()[1]) && to.octets()[0] == 10, "sent to {to}")
        }
        Destination::UnicastRaw { mac, .. } => assert!(mac.is_station()),
        Destination::Broadcast | Destination::Sender => {}
    }
}

/// One client for each address, one lent address for each client.
fn nobody_shares(server: &Server, now: Timestamp) {
    let mut clients: Vec<&ClientKey> = server
        .leases()
        .iter()
        .filter(|lease| lease.state == LeaseState::Bound && lease.expires > now)
        .map(|lease| &lease.client)
        .collect();
    let all = clients.len();
    clients.sort();
    clients.dedup();
    assert_eq!(clients.len(), all, "a client has two addresses");
}

fn config() -> Config {
    let subnet = |n: u8, mode| {
        let address = |host| Ipv4Addr::new(10, n, 0, host);
        let net = format!("10.{n}.0.0/24").parse().expect("a network");
        let pool = format!("10.{n}.0.100-10.{n}.0.103").parse().expect("a range");
        let reserved = |machine, host, name: Option<&str>| Reservation {
            machine,
            ip: address(host),
            hostname: name.map(str::to_owned),
        };
        Subnet {
            router: Some(address(1)),
            dns: vec![address(2)],
            mode,
            reservations: vec![
                reserved(Machine::Mac(MacAddr([0x52, 0x54, 0, 0x77, n, 1])), 50, Some("one")),
                reserved(Machine::ClientId(vec![0, n, 2]), 101, None),
            ],
            ..Subnet::new(net, vec![pool], Duration::from_secs(3600))
        }
    };
    Config {
        server_ip: Ipv4Addr::new(10, 77, 0, 1),
        next_server: Ipv4Addr::new(10, 77, 0, 1),
        http_base: "http://10.77.0.1:8080".into(),
        firmware_base: None,
        boot: BootFiles::default(),
        subnets: vec![
            subnet(77, Mode::Authoritative),
            subnet(78, Mode::Proxy),
            subnet(79, Mode::Reserved),
            subnet(80, Mode::Off),
        ],
        probe: true,
    }
}
