//! A conversation of DHCPv6 clients and relays with the server: any octets, in any order, over hours.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use boot_server_core::dhcp::BootFiles;
use boot_server_core::dhcp6::{Config, Ipv6Net, Lease, LeaseState, Range, Server, Subnet};
use dhcproto::{Decodable, Decoder, v6};
use protocol::Timestamp;

use crate::input::packets;

const STARTED: Timestamp = Timestamp(1_700_000_000_000);
const RELAY_REPLY: u8 = 13;
/// A UDP payload that fits an Ethernet frame, and what 32 relays put around it.
const REPLY_MAX: usize = 1500 - 48 + 32 * 300;

/// The first octet of a packet says how much time passed (low five bits), whether it came from a link-local address or
/// from a relay's (bit 6), and whether the server was started anew on what it had stored (bit 7).
pub fn run(data: &[u8]) {
    let mut server = Server::new(config(), Vec::new()).expect("a configuration that can be");
    let mut stored: BTreeMap<Ipv6Addr, Lease> = BTreeMap::new();
    let mut now = STARTED;
    for packet in packets(data) {
        let Some((how, bytes)) = packet.split_first() else { continue };
        now = Timestamp(now.0 + 500 * (1 << ((how & 0x1f) % 24)));
        if how & 0x80 != 0 {
            server = Server::new(config(), stored.values().cloned().collect()).expect("as before");
        }
        let from = if how & 0x40 == 0 { "fe80::5054:ff:fe77:5" } else { "fd88::1" };
        let Ok(answer) = server.handle_packet(now, from.parse().expect("an address"), bytes) else {
            continue;
        };
        for lease in answer.leases {
            if let Some(before) =
                stored.get(&lease.ip).filter(|l| l.state == LeaseState::Bound && l.expires > now)
            {
                assert_eq!(before.client, lease.client, "{} was lent to another", lease.ip);
            }
            stored.insert(lease.ip, lease);
        }
        let Ok(reply) = answer.reply else { continue };
        assert!(reply.bytes.len() <= REPLY_MAX, "{} octets", reply.bytes.len());
        assert_eq!(reply.to_relay, reply.bytes.first() == Some(&RELAY_REPLY));
        if !reply.to_relay {
            v6::Message::decode(&mut Decoder::new(&reply.bytes)).expect("a reply can be read");
        }
    }
}

fn config() -> Config {
    let ip = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let subnet = |net: &str| Subnet {
        net: Ipv6Net::new(ip(net), 64),
        range: Range { first: ip(&format!("{net}100")), last: ip(&format!("{net}103")) },
        dns: vec![ip("fd77::53")],
        lease_time: Duration::from_secs(3600),
    };
    Config {
        address: ip("fd77::1"),
        duid: vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 1],
        preference: 255,
        http_base: "http://[fd77::1]:8080".into(),
        boot: BootFiles::default(),
        subnets: vec![subnet("fd77::"), subnet("fd88::")],
    }
}
