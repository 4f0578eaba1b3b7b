//! Answers IPv6 router solicitations with "there is no router and nothing to configure".
//!
//! iPXE configures IPv4 and IPv6 side by side and waits for both; where no router advertises itself every network boot
//! waits some 16 s. This answer ends the wait: router lifetime 0 (not a default router, RFC 4861 section 4.2), no
//! prefix, neither the M nor the O flag. To a host it changes nothing.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use protocol::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Interface, NetError};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbour discovery demands it, so that no packet from beyond the wire counts (RFC 4861 section 6.1).
const HOP_LIMIT: u32 = 255;
/// Pause after each advertisement: it goes to all nodes, so one answers all who asked meanwhile.
const PAUSE: Duration = Duration::from_millis(200);
/// Messages taken from the queue at once.
const QUEUED_MAX: usize = 256;
/// Largest message read; a solicitation has 8 octets and few options.
const MESSAGE_MAX: usize = 1500;

/// The responder of one interface.
#[derive(Debug)]
pub struct RouterAdvertiser {
    /// A raw ICMPv6 socket; only its reading and sending is used, which is the same for every datagram socket.
    socket: UdpSocket,
    interface: String,
    index: u32,
    mac: MacAddr,
}

impl RouterAdvertiser {
    /// Listens on the interface; needs `CAP_NET_RAW`, and IPv6 on the interface. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(interface: &str) -> Result<Self, NetError> {
        let interface = Interface::find(interface)?;
        let open = || {
            let index = nix::net::if_::if_nametoindex(interface.name.as_str())?;
            Ok((listen(&interface.name, index)?, index))
        };
        let error = |source| NetError::Socket {
            what: "answer router solicitations",
            interface: interface.name.clone(),
            source,
        };
        let (socket, index) = open().map_err(error)?;
        Ok(Self { socket, interface: interface.name, index, mac: interface.mac })
    }

    /// Answers until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return,
                received = self.solicitation() => received,
            };
            let answered = match received {
                Ok(()) => self.advertise().await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                // No link-local address yet, or the interface is down: both pass.
                warn!(interface = self.interface, %error, "router solicitation not answered");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for one or more solicitations; one answer serves all that are in the queue.
    async fn solicitation(&self) -> io::Result<()> {
        // A raw ICMPv6 socket hands over messages without their IPv6 header (RFC 3542 section 3).
        let mut message = vec![0; MESSAGE_MAX];
        loop {
            let len = self.socket.recv(&mut message).await?;
            if len >= 8 && message[0] == ROUTER_SOLICITATION {
                break;
            }
        }
        for _ in 0..QUEUED_MAX {
            if self.socket.try_recv(&mut message).is_err() {
                break;
            }
        }
        debug!(interface = self.interface, "router solicitation");
        Ok(())
    }

    async fn advertise(&self) -> io::Result<()> {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
        self.socket.send_to(&advertisement(self.mac), SocketAddr::from(to)).await.map(drop)
    }
}

/// RFC 4861 section 4.2, with the source link-layer address. The kernel fills the checksum in.
fn advertisement(mac: MacAddr) -> [u8; 24] {
    let mut message = [0; 24];
    message[0] = ROUTER_ADVERTISEMENT;
    // 4: hop limit unspecified; 5: flags M and O clear; 6..8: router lifetime 0; 8..16: timers unspecified.
    message[16] = 1;
    message[17] = 1;
    message[18..].copy_from_slice(&mac.0);
    message
}

fn listen(interface: &str, index: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_loop_v6(false)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    UdpSocket::from_std(socket.into())
}
