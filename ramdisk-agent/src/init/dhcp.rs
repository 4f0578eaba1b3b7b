//! A DHCPv4 client (RFC 2131) on smoltcp's socket over a packet socket, for one address on one port.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use protocol::MacAddr;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::dhcpv4::{Event, RetryConfig, Socket};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};
use smoltcp::wire::{DhcpRepr, EthernetAddress};

use crate::sys::{self, PacketSocket};

/// EtherType of IPv4: ARP is not needed, every message of ours is a broadcast.
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Room for one frame; a DHCP answer is at most 1,500 octets.
const FRAME_MAX: usize = 2048;
/// Time between discovers: short, for the first may leave before the link forwards.
const DISCOVER_EVERY: SmolDuration = SmolDuration::from_millis(1500);
/// Lease time where the server gives none that makes sense.
const LEASE_DEFAULT: Duration = Duration::from_secs(600);
/// Shortest wait before a lease is renewed.
const RENEW_MIN: Duration = Duration::from_secs(30);

/// What the DHCP server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default gateway.
    pub router: Option<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// For how long.
    pub time: Duration,
}

impl Lease {
    /// When to ask again: T1 of RFC 2131, 4.4.5.
    pub fn renew_after(&self) -> Duration {
        (self.time / 2).max(RENEW_MIN)
    }
}

/// Asks for an address; `None` where nobody gave one in time.
///
/// # Errors
/// Where the port cannot be used.
pub fn acquire(interface: &str, mac: MacAddr, longest: Duration) -> std::io::Result<Option<Lease>> {
    if !mac.is_station() {
        return Err(std::io::Error::other("the port has no station address"));
    }
    let mut device = Wire { socket: PacketSocket::open(interface, ETHERTYPE_IPV4, None)?, mtu: 1514 };
    let fd = device.socket.as_raw_fd();
    let began = Instant::now();
    let now = || SmolInstant::from_micros(i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX));
    let mut config = Config::new(EthernetAddress(mac.0).into());
    config.random_seed = u64::from(crate::fetch::random()) << 32 | u64::from(crate::fetch::random());
    let mut iface = Interface::new(config, &mut device, now());
    let mut packet = [0; FRAME_MAX];
    let mut socket = Socket::new();
    socket.set_receive_packet_buffer(&mut packet);
    let mut retry = RetryConfig::default();
    retry.discover_timeout = DISCOVER_EVERY;
    retry.initial_request_timeout = DISCOVER_EVERY;
    socket.set_retry_config(retry);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);
    while began.elapsed() < longest {
        iface.poll(now(), &mut device, &mut sockets);
        if let Some(Event::Configured(found)) = sockets.get_mut::<Socket<'_>>(handle).poll() {
            return Ok(Some(Lease {
                address: found.address.address(),
                prefix: found.address.prefix_len(),
                router: found.router,
                server: found.server.identifier,
                time: found.packet.and_then(|p| lease_time(&p)).unwrap_or(LEASE_DEFAULT),
            }));
        }
        let next = iface.poll_delay(now(), &sockets).map_or(longest, Duration::from);
        let left = longest.saturating_sub(began.elapsed());
        sys::wait_readable(&[fd], next.min(left).max(Duration::from_millis(1)))?;
    }
    Ok(None)
}

fn lease_time(packet: &smoltcp::wire::DhcpPacket<&[u8]>) -> Option<Duration> {
    let seconds = DhcpRepr::parse(packet).ok()?.lease_duration?;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// smoltcp's view of a packet socket.
struct Wire {
    socket: PacketSocket,
    mtu: usize,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a PacketSocket);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // A frame that cannot be sent is a frame that was lost: the protocol sends it again.
        let _ = self.0.send(&frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received, Sending<'_>)> {
        let mut frame = vec![0; FRAME_MAX];
        let len = self.socket.receive(&mut frame).ok()?;
        frame.truncate(len);
        Some((Received(frame), Sending(&self.socket)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Sending<'_>> {
        Some(Sending(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut found = DeviceCapabilities::default();
        found.medium = Medium::Ethernet;
        found.max_transmission_unit = self.mtu;
        found
    }
}
