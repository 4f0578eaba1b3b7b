//! Other DHCP servers on the wire: reading what they send, and keeping account of who is there.
//!
//! A second server takes machines away from a boot server one by one, at random, so it is named as soon as it is seen.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{self, OptionCode, borrowed};
use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

/// Servers kept account of; a wire with more has other troubles.
pub const SERVERS_MAX: usize = 64;
/// Hardware addresses kept of one server: two relays or two machines that share its address send in turn, and each is
/// told of once. More are not told of: whoever sends from ever other addresses shall not fill the events.
pub const MACS_MAX: usize = 4;
/// A server that was not seen for this long is gone: it missed ten searches.
pub const GONE_AFTER: Duration = Duration::from_secs(30);
/// The same where a server is expected, and so is searched for less often.
pub const GONE_AFTER_EXPECTED: Duration = Duration::from_secs(150);

/// What a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerMessage {
    /// Transaction number of the request it answers.
    pub xid: u32,
    /// Hardware address of the client that it answers; `None` where that is not Ethernet.
    pub client: Option<MacAddr>,
    /// Who it says it is (option 54).
    pub server: Ipv4Addr,
    /// It names a boot file or a boot server: machines that boot from the network may follow it.
    pub boots: bool,
    /// It gives an address; a ProxyDHCP server gives none.
    pub lends: bool,
}

impl ServerMessage {
    /// Reads a datagram to port 68; `None` where it is no OFFER, ACK or NAK of a server that names itself.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = borrowed::Message::new(bytes).ok()?;
        if packet.opcode() != v4::Opcode::BootReply || bytes.get(236..240) != Some(&v4::MAGIC) {
            return None;
        }
        let (mut server, mut replies, mut boots) = (None, false, false);
        for option in packet.opts() {
            let data = option.data();
            match option.code() {
                OptionCode::ServerIdentifier => server = <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from),
                // OFFER, ACK, NAK
                OptionCode::MessageType => replies = matches!(data, [2 | 5 | 6]),
                OptionCode::TFTPServerName | OptionCode::BootfileName => boots = true,
                OptionCode::ClassIdentifier => {
                    boots |= data.starts_with(b"PXEClient") || data.starts_with(b"HTTPClient");
                }
                _ => {}
            }
        }
        let file = bytes.get(108..236)?;
        let yiaddr = packet.yiaddr();
        Some(Self {
            xid: packet.xid(),
            client: ethernet(bytes),
            server: server.filter(|ip| replies && !ip.is_unspecified())?,
            boots: boots || file[0] != 0,
            lends: !yiaddr.is_unspecified(),
        })
    }
}

/// `chaddr`, read by position: the crate slices by a length that it does not check.
fn ethernet(bytes: &[u8]) -> Option<MacAddr> {
    let [_, 1, 6, ..] = bytes else { return None };
    Some(MacAddr(bytes.get(28..34)?.try_into().ok()?))
}

/// A server that is not this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignServer {
    /// Its address, as it names itself.
    pub address: Ipv4Addr,
    /// Its hardware address, of several the last seen; where it is behind a relay, the relay's. `None` where only its clients told of it.
    pub mac: Option<MacAddr>,
    /// The interface that it was seen on.
    pub interface: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// It tells machines what to boot.
    pub boots: bool,
    /// It lends addresses.
    pub lends: bool,
}

/// One look at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its address, as it names itself.
    pub address: Ipv4Addr,
    /// The hardware address that the packet came from; `None` where only a client told of it.
    pub mac: Option<MacAddr>,
    /// Where.
    pub interface: String,
    /// It tells machines what to boot.
    pub boots: bool,
    /// It lends addresses.
    pub lends: bool,
}

/// The servers that are there, by interface and address.
#[derive(Debug, Default)]
pub struct ForeignServers(BTreeMap<(String, Ipv4Addr), Account>);

/// A server and the hardware addresses that were told of.
#[derive(Debug)]
struct Account {
    server: ForeignServer,
    macs: Vec<MacAddr>,
}

impl ForeignServers {
    /// Notes a look. Returns the server where it is new or something of it has changed: a hardware address that it never
    /// had means another machine behind the same address.
    pub fn handle_seen(&mut self, now: Timestamp, seen: Seen) -> Option<ForeignServer> {
        let Seen { address, mac, interface, boots, lends } = seen;
        let key = (interface, address);
        let full = self.0.len() >= SERVERS_MAX;
        let Some(known) = self.0.get_mut(&key) else {
            if full {
                return None;
            }
            let interface = key.0.clone();
            let (first_seen, last_seen) = (now, now);
            let new = ForeignServer { address, mac, interface, first_seen, last_seen, boots, lends };
            self.0.insert(key, Account { server: new.clone(), macs: Vec::from_iter(mac) });
            return Some(new);
        };
        let Account { server, macs } = known;
        let another = mac.filter(|mac| macs.len() < MACS_MAX && !macs.contains(mac));
        macs.extend(another);
        let changed = another.is_some() || (boots && !server.boots);
        server.last_seen = now;
        server.mac = mac.or(server.mac);
        server.boots |= boots;
        server.lends |= lends;
        changed.then(|| server.clone())
    }

    /// Takes out those that were not seen for `after`.
    pub fn handle_timeout(&mut self, now: Timestamp, after: Duration) -> Vec<ForeignServer> {
        let gone = self.0.extract_if(.., |_, known| now.since(known.server.last_seen) > after);
        gone.map(|(_, known)| known.server).collect()
    }

    /// Those that are there, by interface and address.
    pub fn iter(&self) -> impl Iterator<Item = &ForeignServer> {
        self.0.values().map(|known| &known.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&[0, 0, 0, 9]);
        bytes[16..20].copy_from_slice(&[10, 0, 0, 50]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[236..240].copy_from_slice(&v4::MAGIC);
        bytes.extend(options);
        bytes
    }

    fn seen(address: [u8; 4], mac: Option<u8>, boots: bool) -> Seen {
        let mac = mac.map(|last| MacAddr([2, 0, 0, 0, 0, last]));
        Seen { address: address.into(), mac, interface: "v0".into(), boots, lends: true }
    }

    #[test]
    fn a_servers_message_is_read() {
        let message = ServerMessage::parse(&offer(&[53, 1, 2, 54, 4, 10, 0, 0, 1, 255])).unwrap();
        assert_eq!((message.xid, message.server), (9, Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(message.client, Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert!(message.lends && !message.boots);
        let mut proxy =
            offer(&[53, 1, 2, 54, 4, 10, 0, 0, 1, 60, 9, b'P', b'X', b'E', b'C', b'l', b'i', b'e', b'n']);
        proxy[16..20].fill(0);
        assert_eq!(ServerMessage::parse(&proxy).map(|m| (m.boots, m.lends)), Some((false, false)));
        let boots = offer(&[53, 1, 5, 67, 1, b'x', 54, 4, 10, 0, 0, 1]);
        assert!(ServerMessage::parse(&boots).unwrap().boots);
    }

    #[test]
    fn others_are_not_taken_for_servers() {
        assert_eq!(ServerMessage::parse(&[]), None);
        assert_eq!(ServerMessage::parse(&offer(&[53, 1, 2, 255])), None, "names no server");
        assert_eq!(ServerMessage::parse(&offer(&[53, 1, 1, 54, 4, 10, 0, 0, 1])), None, "a DISCOVER");
        assert_eq!(ServerMessage::parse(&offer(&[53, 1, 2, 54, 9, 10])), None, "cut short");
        let mut request = offer(&[53, 1, 2, 54, 4, 10, 0, 0, 1]);
        request[0] = 1;
        assert_eq!(ServerMessage::parse(&request), None);
    }

    #[test]
    fn a_server_is_told_once_and_again_when_it_changed() {
        let mut servers = ForeignServers::default();
        let at = |seconds: u64| Timestamp(seconds * 1000);
        let first = servers.handle_seen(at(1), seen([10, 0, 0, 9], None, false)).unwrap();
        assert_eq!((first.first_seen, first.mac), (at(1), None));
        assert_eq!(servers.handle_seen(at(2), seen([10, 0, 0, 9], None, false)), None);
        assert!(servers.handle_seen(at(3), seen([10, 0, 0, 9], Some(1), false)).is_some(), "its address");
        assert_eq!(servers.handle_seen(at(4), seen([10, 0, 0, 9], None, false)), None, "no news");
        assert!(
            servers.handle_seen(at(5), seen([10, 0, 0, 9], Some(1), true)).is_some(),
            "it boots machines"
        );
        assert!(servers.handle_seen(at(6), seen([10, 0, 0, 9], Some(2), true)).is_some(), "another machine");
        assert_eq!(servers.handle_timeout(at(36), GONE_AFTER), []);
        assert_eq!(servers.handle_timeout(at(37), GONE_AFTER).len(), 1);
        assert_eq!(servers.iter().count(), 0);
    }

    /// Two relays, or two machines that share an address; and one that makes addresses up.
    #[test]
    fn hardware_addresses_that_take_turns_are_told_once_each() {
        let mut servers = ForeignServers::default();
        let mut told =
            |address, last| servers.handle_seen(Timestamp(0), seen(address, Some(last), false)).is_some();
        let shared = [1, 2, 1, 2, 1, 2].map(|last| told([10, 0, 0, 1], last));
        assert_eq!(shared, [true, true, false, false, false, false]);
        let made_up = (0..=255).filter(|last| told([10, 0, 0, 2], *last)).count();
        assert_eq!(made_up, MACS_MAX);
    }

    #[test]
    fn account_is_kept_of_so_many() {
        let mut servers = ForeignServers::default();
        for n in 0..=255 {
            servers.handle_seen(Timestamp(0), seen([10, 0, 0, n], None, false));
        }
        assert_eq!(servers.iter().count(), SERVERS_MAX);
    }
}
