//! Router advertisements (RFC 4861 section 6.2).
//!
//! Where IPv6 is served they tell the prefix, and by the flags M and O that addresses and boot files come by DHCPv6:
//! firmware and iPXE ask no DHCPv6 server otherwise. They are sent now and then, and when a machine asks.
//!
//! Where it is not, a machine that asks is told that there is no router and nothing to configure. iPXE configures IPv4
//! and IPv6 side by side and waits for both; where nobody answers, every network boot waits some 16 s. Router lifetime 0
//! (not a default router, section 4.2), no prefix, neither flag: to a host it changes nothing.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use protocol::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Interface, NetError};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Options (section 4.6).
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
/// Flags of an advertisement: addresses by DHCPv6, other configuration by DHCPv6.
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// Flags of a prefix: on this link, and addresses may be made of it.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// Neighbour discovery demands it, so that no packet from beyond the wire counts (RFC 4861 section 6.1).
const HOP_LIMIT: u32 = 255;
/// Pause after each advertisement: it goes to all nodes, so one answers all who asked meanwhile.
const PAUSE: Duration = Duration::from_millis(200);
/// The first advertisements after the start follow one another faster: so many, so far apart at most (section 10).
const INITIAL: u32 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Longest time between advertisements that nobody asked for, and its bounds (section 6.2.1).
const INTERVAL_MIN: Duration = Duration::from_secs(4);
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// For how long the prefix may be used after the last advertisement, in seconds: a day for connections that are open,
/// four hours for new ones. Shorter than the RFC's month, so that a network that was renumbered comes clean by itself.
const PREFIX_VALID: u32 = 86_400;
const PREFIX_PREFERRED: u32 = 14_400;
/// Messages taken from the queue at once.
const QUEUED_MAX: usize = 256;
/// Largest message read; a solicitation has 8 octets and few options.
const MESSAGE_MAX: usize = 1500;

/// What is advertised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// An address of the prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix.
    pub prefix: u8,
    /// DHCPv6 is served.
    pub managed: bool,
    /// Machines may make themselves addresses of the prefix.
    pub autonomous: bool,
    /// For how long we are a default router; zero: we are none. At most 18 hours.
    pub router: Duration,
}

/// The advertiser of one interface.
#[derive(Debug)]
pub struct RouterAdvertiser {
    /// A raw ICMPv6 socket; only its reading and sending is used, which is the same for every datagram socket.
    socket: UdpSocket,
    interface: String,
    index: u32,
    mac: MacAddr,
    announcement: Option<Announcement>,
}

impl RouterAdvertiser {
    /// Listens on the interface; needs `CAP_NET_RAW`, and IPv6 on the interface. Must be called inside a tokio runtime.
    /// Without an announcement it says that there is nothing, to those who ask.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(interface: &str, announcement: Option<Announcement>) -> Result<Self, NetError> {
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
        Ok(Self { socket, interface: interface.name, index, mac: interface.mac, announcement })
    }

    /// Advertises until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        let mut sent = 0_u32;
        let mut next = Instant::now();
        loop {
            let due = tokio::time::sleep_until(next);
            let result = tokio::select! {
                () = cancel.cancelled() => break,
                received = self.solicitation() => received,
                () = due, if self.announcement.is_some() => Ok(()),
            };
            let advertised = match result {
                Ok(()) => self.advertise(self.announcement).await,
                Err(error) => Err(error),
            };
            if let Err(error) = advertised {
                // No link-local address yet, or the interface is down: both pass.
                warn!(interface = self.interface, %error, "router advertisement not sent");
            }
            if let Some(announcement) = &self.announcement {
                sent = sent.saturating_add(1);
                next = Instant::now() + announcement.wait(sent, chance());
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.cease().await;
    }

    /// A router that goes says so (section 6.2.5).
    async fn cease(&self) {
        let Some(announcement) = self.announcement.filter(|a| !a.router.is_zero()) else { return };
        let last = Announcement { router: Duration::ZERO, ..announcement };
        if let Err(error) = self.advertise(Some(last)).await {
            debug!(interface = self.interface, %error, "last router advertisement not sent");
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

    async fn advertise(&self, announcement: Option<Announcement>) -> io::Result<()> {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
        let message = advertisement(self.mac, announcement.as_ref());
        self.socket.send_to(&message, SocketAddr::from(to)).await.map(drop)
    }
}

impl Announcement {
    /// The wait after the n-th advertisement: between a third of the longest and the longest (section 6.2.1), by
    /// `chance` of 0 to 1.
    fn wait(&self, sent: u32, chance: f64) -> Duration {
        let longest = if self.router.is_zero() { INTERVAL_MAX } else { self.router / 3 };
        let longest = longest.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let longest = if sent < INITIAL { longest.min(INITIAL_INTERVAL) } else { longest };
        longest.mul_f64(0.34 + 0.66 * chance)
    }

    fn network(&self) -> Ipv6Addr {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
        (u128::from(self.address) & mask).into()
    }
}

/// RFC 4861 section 4.2, with the source link-layer address and the prefix. The kernel fills the checksum in.
fn advertisement(mac: MacAddr, announcement: Option<&Announcement>) -> Vec<u8> {
    let mut message = vec![0; 16];
    message[0] = ROUTER_ADVERTISEMENT;
    // 4: hop limit unspecified; 5: flags; 6..8: router lifetime; 8..16: timers unspecified.
    if let Some(announcement) = announcement {
        message[5] = if announcement.managed { MANAGED | OTHER } else { 0 };
        let router = u16::try_from(announcement.router.as_secs()).unwrap_or(u16::MAX);
        message[6..8].copy_from_slice(&router.to_be_bytes());
    }
    // Lengths are in units of eight octets.
    message.extend([SOURCE_LINK_LAYER, 1]);
    message.extend(mac.0);
    if let Some(announcement) = announcement {
        let flags = ON_LINK | if announcement.autonomous { AUTONOMOUS } else { 0 };
        message.extend([PREFIX_INFORMATION, 4, announcement.prefix, flags]);
        message.extend(PREFIX_VALID.to_be_bytes());
        message.extend(PREFIX_PREFERRED.to_be_bytes());
        message.extend([0; 4]);
        message.extend(announcement.network().octets());
    }
    message
}

/// A number of 0 to 1; the middle where the system gives no random bytes.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(router: u64) -> Announcement {
        let address = "fd77::1".parse().unwrap();
        Announcement {
            address,
            prefix: 64,
            managed: true,
            autonomous: false,
            router: Duration::from_secs(router),
        }
    }

    #[test]
    fn what_is_advertised() {
        let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);
        let nothing = advertisement(mac, None);
        assert_eq!(
            nothing.escape_ascii().to_string(),
            r"\x86\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01RT\x00w\x00\x01"
        );
        let ours = advertisement(mac, Some(&announcement(0)));
        assert_eq!((ours.len(), &ours[5..8]), (56, &[MANAGED | OTHER, 0, 0][..]));
        assert_eq!(ours[24..28], [PREFIX_INFORMATION, 4, 64, ON_LINK]);
        assert_eq!(ours[40..44], [0xfd, 0x77, 0, 0]);
        assert_eq!(ours[55], 0, "the prefix has no host part");
        let slaac = Announcement { managed: false, autonomous: true, ..announcement(1800) };
        let slaac = advertisement(mac, Some(&slaac));
        assert_eq!((&slaac[5..8], slaac[27]), (&[0, 7, 8][..], ON_LINK | AUTONOMOUS));
    }

    #[test]
    fn waits_are_within_the_bounds_of_the_rfc() {
        let seconds = |router, sent, chance| announcement(router).wait(sent, chance).as_secs();
        assert_eq!((seconds(0, 9, 0.0), seconds(0, 9, 1.0)), (204, 600));
        assert_eq!((seconds(0, 1, 0.0), seconds(0, 1, 1.0)), (5, 16));
        assert_eq!(seconds(1800, 9, 1.0), 600);
        assert_eq!(seconds(30, 9, 1.0), 10, "three advertisements within the lifetime");
        assert_eq!(seconds(1, 9, 1.0), 4);
    }
}
