//! The DHCP server of one interface: receive, let the core decide, probe, store, send.
//!
//! ```text
//!  67, 4011 ──▶ core ──reply without a lease (offer, NAK)────────────────▶ send
//!                 ├──offer of an address that was never used─▶ ARP probe ─▶ send, or decide again
//!                 └──reply with a lease──▶ waiting ──▶ storing ──stored──▶ send
//! ```
//!
//! While one batch of leases is being stored the next one gathers, so that one commit to disk serves all the ACKs of a
//! rack that is switched on, and rows reach the store in the order of the decisions.

mod probe;
mod socket;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::dhcp::{
    self, Answer, Config, Destination, Known, Lease, MessageType, Observed, Port, Reply, Silence, limits,
};
use protocol::{MacAddr, Timestamp};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Level, debug, error, info, warn};

use super::lines::Lines;
use super::raw::{Path, RawSender};
use super::{Interface, NetError, foreign};
use crate::engine::now;
use probe::{Held, Listener, Waiting};

const CLIENT_PORT: u16 = 68;
/// Replies and leases that wait to be stored: a hall of machines switched on at once. More are dropped, and the clients
/// ask again.
const WAITING_MAX: usize = 4096;
/// Requests taken from a socket before something else has its turn.
const BATCH_MAX: usize = 64;
/// Pause after a receive error, such as an interface that went down.
const RETRY: Duration = Duration::from_secs(1);
/// The place of the client's hardware address in a request (RFC 2131 figure 1).
const CHADDR: std::ops::Range<usize> = 28..34;

/// Boxed, so that the trait can be a trait object.
pub type Stored<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;
/// Why leases could not be stored.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Who keeps the leases and hears about machines.
pub trait DhcpSink: Send + Sync + 'static {
    /// Stores rows, each replacing the one of the same address. No reply that depends on them leaves before this has
    /// succeeded; where it fails the replies are dropped and the clients ask again.
    fn persist(&self, leases: Vec<Lease>) -> Stored<'_>;

    /// A request came. Must not wait: hand it to a channel.
    fn observed(&self, interface: &str, observed: Observed);

    /// A client said that it chose another server, with this address. Must not wait.
    fn chose_other(&self, interface: &str, server: Ipv4Addr) {
        let _ = (interface, server);
    }

    /// An address of the pools that was to be offered is used by this machine, which never asked for it. Must not wait.
    fn in_use(&self, interface: &str, address: Ipv4Addr, by: MacAddr) {
        let _ = (interface, address, by);
    }
}

/// The server of one interface; [`run`](Self::run) serves.
pub struct DhcpServer {
    main: UdpSocket,
    /// Port 4011; `None` where another program has it.
    boot: Option<UdpSocket>,
    raw: RawSender,
    /// `None` where probing is off.
    listener: Option<Listener>,
    interface: String,
    core: dhcp::Server,
    probes: Waiting,
    known: watch::Receiver<Arc<Known>>,
    lines: Lines,
    waiting: Batch,
    buf: Vec<u8>,
}

/// Replies and the leases that they depend on.
#[derive(Default)]
struct Batch {
    leases: Vec<Lease>,
    replies: Vec<(Reply, SocketAddr)>,
}

/// A request and where it came in.
#[derive(Clone, Copy)]
struct Packet<'a> {
    bytes: &'a [u8],
    port: Port,
    from: SocketAddr,
    /// How many addresses were found in use for it.
    round: u8,
}

impl DhcpServer {
    /// Binds ports 67 and 4011 of the interface and takes up the stored leases; must be called inside a tokio runtime.
    /// `known` tells which machines are enrolled.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(
        interface: &str,
        config: Config,
        leases: Vec<Lease>,
        known: watch::Receiver<Arc<Known>>,
    ) -> Result<Self, NetError> {
        let interface = Interface::find(interface)?;
        let raw = RawSender::open(&interface)?;
        let probing = config.probe;
        let mut core = dhcp::Server::new(config, leases)?;
        core.set_known(Known::clone(&known.borrow()));
        let error =
            |source| NetError::Socket { what: "serve DHCP", interface: interface.name.clone(), source };
        let main = socket::listen(&interface.name, Port::Server67).map_err(error)?;
        let boot = socket::listen(&interface.name, Port::Boot4011);
        let boot = boot.inspect_err(
            |error| warn!(%error, "port 4011 is not served: boot menus of PXE ROMs may not work"),
        );
        let listener = probing.then(|| Listener::open(&interface)).transpose().map_err(error)?;
        Ok(Self {
            main,
            boot: boot.ok(),
            raw,
            listener,
            interface: interface.name,
            core,
            probes: Waiting::default(),
            known,
            lines: Lines::default(),
            waiting: Batch::default(),
            buf: vec![0; limits::PACKET_MAX],
        })
    }

    /// Serves until `cancel`. No packet and no passing error of the interface ends it.
    pub async fn run(mut self, sink: Arc<dyn DhcpSink>, cancel: CancellationToken) {
        let mut storing: Option<(Stored<'_>, Vec<(Reply, SocketAddr)>)> = None;
        loop {
            // A RELEASE or DECLINE has a row to store and no reply.
            if storing.is_none() && !self.waiting.leases.is_empty() {
                let batch = std::mem::take(&mut self.waiting);
                storing = Some((sink.persist(batch.leases), batch.replies));
            }
            let due = self.probes.next();
            tokio::select! {
                () = cancel.cancelled() => return,
                result = stored(&mut storing) => {
                    let replies = storing.take().map(|(_, replies)| replies).unwrap_or_default();
                    match result {
                        Ok(()) => replies.iter().for_each(|(reply, to)| self.send(reply, *to)),
                        Err(error) => error!(%error, replies = replies.len(), "DHCP leases not stored, replies dropped"),
                    }
                }
                ready = self.main.readable() => self.received(ready, Port::Server67, sink.as_ref()).await,
                ready = readable(self.boot.as_ref()) => self.received(ready, Port::Boot4011, sink.as_ref()).await,
                (ip, by) = heard(self.listener.as_ref()) => self.handle_heard(ip, by, sink.as_ref()),
                () = until(due) => self.handle_due(),
                Ok(()) = self.known.changed() => {
                    let known = Known::clone(&self.known.borrow_and_update());
                    self.core.set_known(known);
                }
            }
        }
    }

    /// Takes what waits in a socket, up to a limit.
    async fn received(&mut self, ready: io::Result<()>, port: Port, sink: &dyn DhcpSink) {
        if let Err(error) = ready.and_then(|()| self.drain(port, sink)) {
            warn!(interface = self.interface, %error, "DHCP receive failed");
            tokio::time::sleep(RETRY).await;
        }
        if let Some(lines) = self.lines.left_out(now()) {
            warn!(
                interface = self.interface,
                lines, "so many log lines about DHCP were left out in one second"
            );
        }
    }

    fn drain(&mut self, port: Port, sink: &dyn DhcpSink) -> io::Result<()> {
        let mut buf = std::mem::take(&mut self.buf);
        let mut outcome = Ok(());
        for _ in 0..BATCH_MAX {
            let socket = match port {
                Port::Server67 => &self.main,
                Port::Boot4011 => self.boot.as_ref().unwrap_or(&self.main),
            };
            match socket.try_recv_from(&mut buf) {
                Ok((len, from)) => {
                    self.handle_datagram(Packet { bytes: &buf[..len], port, from, round: 0 }, sink);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.buf = buf;
        outcome
    }

    fn handle_datagram(&mut self, packet: Packet<'_>, sink: &dyn DhcpSink) {
        let now = now();
        if self.waiting.leases.len() >= WAITING_MAX {
            if self.lines.allow(now) {
                warn!(interface = self.interface, "DHCP request dropped: too many leases wait to be stored");
            }
            return;
        }
        // Our own search for other servers, brought here by a relay.
        if packet.bytes.get(CHADDR) == Some(&foreign::client(self.raw.mac()).0) {
            return;
        }
        let answer = match self.core.handle_packet(now, packet.port, packet.bytes) {
            Ok(answer) => answer,
            Err(error) => {
                debug!(interface = self.interface, from = %packet.from, %error, "not a DHCP request");
                return;
            }
        };
        log(&mut self.lines, now, &self.interface, &answer);
        sink.observed(&self.interface, answer.observed);
        if let Err(Silence::OtherServer(server)) = answer.reply {
            sink.chose_other(&self.interface, server);
        }
        let stores = !answer.leases.is_empty();
        self.waiting.leases.extend(answer.leases);
        match answer.reply {
            Ok(reply) if stores => self.waiting.replies.push((reply, packet.from)),
            Ok(reply) => match answer.probe {
                Some(ip) => self.probe(ip, packet, reply),
                None => self.send(&reply, packet.from),
            },
            Err(_) => {}
        }
    }

    /// Holds a reply until it is known whether somebody has the address.
    fn probe(&mut self, ip: Ipv4Addr, packet: Packet<'_>, reply: Reply) {
        let Packet { bytes, port, from, round } = packet;
        if self.listener.is_none() {
            return self.send(&reply, from);
        }
        match self.probes.hold(Instant::now(), ip, Held { request: bytes.to_vec(), port, from, reply, round })
        {
            Ok(false) => {}
            Ok(true) => self.ask(ip),
            Err(held) => self.send(&held.reply, from),
        }
    }

    fn ask(&self, ip: Ipv4Addr) {
        if let Err(error) = probe::ask(&self.raw, ip) {
            debug!(interface = self.interface, %ip, %error, "ARP probe not sent");
        }
    }

    /// Somebody says that an address is its own.
    fn handle_heard(&mut self, ip: Ipv4Addr, by: MacAddr, sink: &dyn DhcpSink) {
        let Some(held) = self.probes.answered(ip) else { return };
        let row = self.core.handle_probe(now(), ip, Some(by));
        let Held { request, port, from, reply, round } = held;
        let Some(row) = row else {
            // The client itself still has the address, from before.
            return self.send(&reply, from);
        };
        if self.lines.allow(now()) {
            warn!(interface = self.interface, %ip, %by, "an address of the DHCP pool is used by a machine that never asked for it");
        }
        sink.in_use(&self.interface, ip, by);
        self.waiting.leases.push(row);
        if round + 1 < probe::ROUNDS_MAX {
            self.handle_datagram(Packet { bytes: &request, port, from, round: round + 1 }, sink);
        }
    }

    /// Asks again, and lets go what waited long enough.
    fn handle_due(&mut self) {
        let at = Instant::now();
        for ip in self.probes.ask_again(at) {
            self.ask(ip);
        }
        for (ip, held) in self.probes.unanswered(at) {
            self.waiting.leases.extend(self.core.handle_probe(now(), ip, None));
            self.send(&held.reply, held.from);
        }
    }

    fn send(&self, reply: &Reply, from: SocketAddr) {
        let raw = |ip, mac| {
            let from = (self.core.config().server_ip, reply.port.number());
            self.raw.send(Path { from, to: (ip, CLIENT_PORT), mac }, &reply.bytes)
        };
        let sent = match reply.destination {
            // As a frame too: through the UDP socket the kernel would choose the source address.
            Destination::Broadcast => raw(Ipv4Addr::BROADCAST, MacAddr([0xff; 6])),
            Destination::UnicastRaw { mac, ip } => raw(ip, mac),
            Destination::Unicast(ip) => self.send_routed(reply, SocketAddrV4::new(ip, CLIENT_PORT)),
            Destination::Relay(ip) => self.send_routed(reply, SocketAddrV4::new(ip, Port::Server67.number())),
            Destination::Sender => match from {
                SocketAddr::V4(from) => self.send_routed(reply, from),
                SocketAddr::V6(_) => Ok(()),
            },
        };
        if let Err(error) = sent {
            debug!(interface = self.interface, to = ?reply.destination, %error, "DHCP reply could not be sent");
        }
    }

    /// Sends by the kernel's routes, from the address that is our server identifier.
    fn send_routed(&self, reply: &Reply, to: SocketAddrV4) -> io::Result<()> {
        let socket = match reply.port {
            Port::Server67 => &self.main,
            Port::Boot4011 => self.boot.as_ref().unwrap_or(&self.main),
        };
        socket::send(socket, self.core.config().server_ip, to, &reply.bytes)
    }
}

/// Waits for the batch that is being stored; for ever where there is none.
async fn stored<T>(storing: &mut Option<(Stored<'_>, T)>) -> Result<(), StoreError> {
    match storing {
        Some((future, _)) => future.await,
        None => std::future::pending().await,
    }
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

async fn heard(listener: Option<&Listener>) -> (Ipv4Addr, MacAddr) {
    match listener {
        Some(listener) => listener.heard().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The line about a request, where its level is on and the second has not had too many of them.
fn log(lines: &mut Lines, at: Timestamp, interface: &str, answer: &Answer) {
    let seen = &answer.observed;
    let message = seen.message;
    let level = match &answer.reply {
        Ok(reply) if reply.nak => Level::WARN,
        Ok(_) if message == MessageType::Request => Level::INFO,
        Err(Silence::PoolExhausted) => Level::WARN,
        Err(_) if message == MessageType::Decline => Level::WARN,
        _ => Level::DEBUG,
    };
    let on = match level {
        Level::WARN => tracing::enabled!(Level::WARN),
        Level::INFO => tracing::enabled!(Level::INFO),
        _ => tracing::enabled!(Level::DEBUG),
    };
    if !on || !lines.allow(at) {
        return;
    }
    let (mac, ip) = (seen.mac.map(tracing::field::display), seen.ip.map(tracing::field::display));
    let stage = seen.stage;
    match &answer.reply {
        Ok(reply) if reply.nak => warn!(interface, mac, ?stage, "DHCP request refused"),
        Ok(_) if message == MessageType::Request => info!(interface, mac, ip, ?stage, "DHCP lease given"),
        Ok(_) => debug!(interface, mac, ip, ?stage, ?message, "DHCP answered"),
        Err(silence @ Silence::PoolExhausted) => {
            warn!(interface, mac, "DHCP request not answered: {silence}")
        }
        Err(silence) if message == MessageType::Decline => {
            warn!(interface, mac, "DHCP address declined: {silence}")
        }
        Err(silence) => debug!(interface, mac, ?message, %silence, "DHCP not answered"),
    }
}
