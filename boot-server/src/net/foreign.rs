//! Other DHCP servers on the wire: heard by what they send to clients, and made to show themselves by a DISCOVER of
//! our own every few seconds.
//!
//! The frames are read by a packet socket, because no other socket hears what is sent to port 68 of others.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::dhcp::foreign::{SERVERS_MAX, Seen, ServerMessage};
use protocol::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv4Packet, Ipv4Repr, UdpPacket};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::packet::{IPV4, PacketSocket, ethernet, udp_to};
use super::raw::{Path, RawSender};
use super::{Interface, NetError};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Between two searches: a server that was just started is named within 5 s.
pub const SEARCH: Duration = Duration::from_secs(3);
/// The same where the site's own server is expected: its log shall not fill with ours.
pub const SEARCH_EXPECTED: Duration = Duration::from_secs(30);
/// Pause after an error, such as an interface that went down.
const RETRY: Duration = Duration::from_secs(1);

/// Hears of servers. Must not wait.
pub trait ForeignSink: Send + Sync + 'static {
    /// A server that is not this one showed itself.
    fn seen(&self, seen: Seen);
}

/// Looks for other servers on one interface.
pub struct Watcher {
    socket: PacketSocket,
    raw: RawSender,
    interface: Interface,
}

impl Watcher {
    /// Opens its sockets; must be called inside a tokio runtime and needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn open(interface: &str) -> Result<Self, NetError> {
        let interface = Interface::find(interface)?;
        let raw = RawSender::open(&interface)?;
        let socket = PacketSocket::open(&interface.name, IPV4, &udp_to(CLIENT_PORT)).map_err(|source| {
            NetError::Socket {
                what: "look for other DHCP servers",
                interface: interface.name.clone(),
                source,
            }
        })?;
        Ok(Self { socket, raw, interface })
    }

    /// Tells of every server seen, until `cancel`; searches every `every`.
    pub async fn run(self, every: Duration, sink: Arc<dyn ForeignSink>, cancel: CancellationToken) {
        let mut search = interval(every);
        search.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = search.tick() => {
                    if let Err(error) = self.search() {
                        tracing::debug!(interface = self.interface.name, %error, "search for DHCP servers not sent");
                    }
                }
                frame = self.socket.recv() => match frame {
                    Ok(frame) => self.read(&frame).into_iter().for_each(|seen| sink.seen(seen)),
                    Err(error) => {
                        tracing::debug!(interface = self.interface.name, %error, "packet socket");
                        sleep(RETRY).await;
                    }
                },
            }
        }
    }

    /// One DISCOVER of a client that boots from the network, so that ProxyDHCP servers show themselves too.
    fn search(&self) -> io::Result<()> {
        let path = Path {
            from: (Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
            to: (Ipv4Addr::BROADCAST, SERVER_PORT),
            mac: MacAddr([0xff; 6]),
        };
        self.raw.send(path, &discover(client(self.raw.mac())))
    }

    /// The server that sent a frame, unless it is this machine.
    fn read(&self, frame: &[u8]) -> Option<Seen> {
        let (source, packet) = ethernet(frame)?;
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        // Checksums are left to the network card, so a frame between two interfaces of one machine may lack them.
        Ipv4Repr::parse(&ip, &ChecksumCapabilities::ignored()).ok()?;
        let udp = UdpPacket::new_checked(ip.payload()).ok()?;
        let message = ServerMessage::parse(udp.payload())?;
        let own =
            source == self.interface.mac || self.interface.ipv4.iter().any(|(ip, _)| *ip == message.server);
        (!own).then(|| Seen {
            address: message.server,
            mac: Some(source),
            interface: self.interface.name.clone(),
            boots: message.boots,
            lends: message.lends,
        })
    }
}

/// The servers other than this machine that show themselves on an interface within a time; must be called inside a tokio
/// runtime. Two searches are sent, one at once and one at half of the time.
///
/// # Errors
/// [`NetError`] where the sockets cannot be had.
pub async fn find_servers(interface: &str, within: Duration) -> Result<Vec<Seen>, NetError> {
    let watcher = Watcher::open(interface)?;
    let error = |source| NetError::Socket {
        what: "look for other DHCP servers",
        interface: watcher.interface.name.clone(),
        source,
    };
    let start = Instant::now();
    let mut found: Vec<Seen> = Vec::new();
    for part in [within / 2, within] {
        watcher.search().map_err(error)?;
        while let Ok(frame) = timeout_at(start + part, watcher.socket.recv()).await {
            let Some(seen) = watcher.read(&frame.map_err(error)?) else { continue };
            if let Some(known) = found.iter_mut().find(|s| (s.address, s.mac) == (seen.address, seen.mac)) {
                known.boots |= seen.boots;
                known.lends |= seen.lends;
            } else if found.len() < SERVERS_MAX {
                found.push(seen);
            }
        }
    }
    Ok(found)
}

/// The hardware address of the client that searches: made of the interface's, and locally administered, so that it is no
/// machine's. The server ignores it.
pub fn client(own: MacAddr) -> MacAddr {
    let [_, b, c, d, e, f] = own.0;
    MacAddr([0xb2, b, c, d, e, f])
}

fn discover(client: MacAddr) -> Vec<u8> {
    /// Op, hardware type and length; the broadcast flag stands at octet 10 (RFC 2131 figure 1).
    const HEAD: [u8; 12] = [1, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0x80, 0];
    /// DISCOVER; PXE ROM of x64 UEFI; asks for the usual and for what to boot.
    const OPTIONS: &[u8] =
        b"\x35\x01\x01\x3c\x20PXEClient:Arch:00007:UNDI:003016\x5d\x02\x00\x07\x5e\x03\x01\x03\x10\
        \x37\x06\x01\x03\x06\x36\x42\x43";
    let mut bytes = vec![0; 240];
    bytes[..12].copy_from_slice(&HEAD);
    bytes[4..8].copy_from_slice(&client.0[2..]);
    bytes[28..34].copy_from_slice(&client.0);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend(OPTIONS);
    // Machine identifier (option 97): without one some servers take it for no PXE client.
    bytes.extend([97, 17, 0]);
    bytes.extend([client.0, client.0].as_flattened());
    bytes.extend([0; 4]);
    bytes.push(255);
    bytes.resize(300, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use boot_server_core::dhcp::{MessageType, Request, Stage};

    use super::*;

    #[test]
    fn the_search_is_a_request_that_servers_read() {
        let mac = client(MacAddr([0x52, 0x54, 0, 1, 2, 3]));
        let bytes = discover(mac);
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(
            (request.message, request.mac, request.stage),
            (MessageType::Discover, Some(mac), Stage::Firmware)
        );
        assert!(request.broadcast);
        assert_eq!(mac.0[0] & 3, 2, "locally administered, not a group");
    }
}
