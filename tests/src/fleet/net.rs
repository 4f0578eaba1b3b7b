//! The network stack of one machine: smoltcp with at most one UDP and a few TCP sockets, which exist only while they are
//! used. Frames in, frames out; the wire is the caller's.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::MacAddr;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, State};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// Longest frame, without its checksum.
const FRAME_MAX: usize = 1514;
/// Receive buffer of a connection: what iPXE announces at most is 256 KiB; this is enough on a LAN.
const TCP_RECEIVE: usize = 32 << 10;
/// Send buffer of a connection: an inventory is sent in pieces.
const TCP_SEND: usize = 8 << 10;
/// Datagrams that wait to be read: a TFTP window of the largest blocks.
const UDP_QUEUE: usize = 16;

/// A stack.
pub struct Net {
    interface: Interface,
    port: Port,
    sockets: SocketSet<'static>,
    udp: Option<SocketHandle>,
    tcp: Option<SocketHandle>,
    /// Connections that are being closed.
    closing: Vec<SocketHandle>,
    address: Ipv4Addr,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Net {
    /// A stack with its address.
    pub fn new(
        now: Duration,
        mac: MacAddr,
        seed: u64,
        lease: (Ipv4Addr, u8),
        router: Option<Ipv4Addr>,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = seed;
        let mut port = Port::default();
        let mut interface = Interface::new(config, &mut port, instant(now));
        interface.update_ip_addrs(|addresses| {
            // There is room for two, and this is the first.
            let _ = addresses.push(IpCidr::new(lease.0.into(), lease.1));
        });
        if let Some(router) = router {
            // Room again, as above.
            let _ = interface.routes_mut().add_default_ipv4_route(router);
        }
        Self {
            interface,
            port,
            sockets: SocketSet::new(Vec::new()),
            udp: None,
            tcp: None,
            closing: Vec::new(),
            address: lease.0,
        }
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Takes a frame in; [`poll`](Self::poll) looks at it.
    pub fn handle_frame(&mut self, frame: Vec<u8>) {
        self.port.received.push_back(frame);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        self.interface.poll(instant(now), &mut self.port, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.closing.retain(|handle| {
            let open =
                !matches!(sockets.get::<tcp::Socket<'_>>(*handle).state(), State::Closed | State::TimeWait);
            if !open {
                sockets.remove(*handle);
            }
            open
        });
    }

    /// A frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.port.sent.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do next.
    pub fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)))
    }

    /// Opens a UDP port in place of the one before.
    pub fn open_udp(&mut self, port: u16) {
        self.close_udp();
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; UDP_QUEUE],
                vec![0; UDP_QUEUE * FRAME_MAX],
            )
        };
        let small = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4 * 600]);
        let mut socket = udp::Socket::new(buffer(), small());
        // Fails only for port 0 and for a socket that is open.
        let _ = socket.bind(port);
        self.udp = Some(self.sockets.add(socket));
    }

    /// Closes the UDP port.
    pub fn close_udp(&mut self) {
        if let Some(handle) = self.udp.take() {
            self.sockets.remove(handle);
        }
    }

    /// Sends a datagram; what finds no room is lost, as on a wire.
    pub fn send_udp(&mut self, to: (Ipv4Addr, u16), bytes: &[u8]) {
        if let Some(handle) = self.udp {
            let _ = self.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(bytes, to);
        }
    }

    /// Reads a datagram into `out`; who sent it.
    pub fn receive_udp(&mut self, out: &mut Vec<u8>) -> Option<(Ipv4Addr, u16)> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp?);
        let (bytes, meta) = socket.recv().ok()?;
        out.clear();
        out.extend(bytes);
        let smoltcp::wire::IpAddress::Ipv4(from) = meta.endpoint.addr;
        Some((from, meta.endpoint.port))
    }

    /// Connects in place of the connection before, which is closed.
    pub fn connect(&mut self, to: (Ipv4Addr, u16), port: u16) {
        self.close();
        let receive = tcp::SocketBuffer::new(vec![0; TCP_RECEIVE]);
        let send = tcp::SocketBuffer::new(vec![0; TCP_SEND]);
        let mut socket = tcp::Socket::new(receive, send);
        socket.set_nagle_enabled(false);
        // Fails only for port 0 and for a socket that is in use.
        let _ = socket.connect(self.interface.context(), to, port);
        self.tcp = Some(self.sockets.add(socket));
    }

    /// Sends as much as there is room for; how much that was.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(handle) = self.tcp else { return 0 };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if socket.may_send() { socket.send_slice(bytes).unwrap_or(0) } else { 0 }
    }

    /// Adds what came to `out`; false where nothing did.
    pub fn receive(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(handle) = self.tcp else { return false };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let before = out.len();
        while socket.can_recv() {
            let read = socket.recv(|bytes| {
                out.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            if read.is_err() {
                break;
            }
        }
        out.len() > before
    }

    /// True while the connection can still bring something.
    pub fn is_connected(&self) -> bool {
        let Some(handle) = self.tcp else { return false };
        let socket = self.sockets.get::<tcp::Socket<'_>>(handle);
        matches!(socket.state(), State::SynSent | State::SynReceived) || socket.may_recv()
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        if let Some(handle) = self.tcp.take() {
            self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
            self.closing.push(handle);
        }
    }

    /// Ends all connections at once: the program that has them ends.
    pub fn abort(&mut self, now: Duration) {
        for handle in self.closing.drain(..).chain(self.tcp.take()) {
            self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
        }
        self.interface.poll(instant(now), &mut self.port, &mut self.sockets);
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The end of the cable in the machine.
#[derive(Default)]
struct Port {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}
