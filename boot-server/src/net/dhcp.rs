//! The DHCP socket of one interface: receive, let the core decide, store, send.
//!
//! ```text
//!  port 67 ──▶ core ──reply without a lease (offer, NAK)───────────────▶ send
//!                └──reply with a lease──▶ waiting ──▶ storing ──stored──▶ send
//! ```
//!
//! While one batch of leases is being stored the next one gathers, so that one commit to disk serves all the ACKs of a
//! rack that is switched on, and rows reach the store in the order of the decisions.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boot_server_core::dhcp::{
    self, Answer, Config, Destination, Lease, MessageType, Observed, Port, Reply, Silence, limits,
};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use protocol::{MacAddr, Timestamp};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::raw::{Path, RawSender};
use super::{Interface, NetError};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Replies and leases that wait to be stored: a hall of machines switched on at once. More are dropped, and the clients
/// ask again.
const WAITING_MAX: usize = 4096;
/// Pause after a receive error, such as an interface that went down.
const RETRY: Duration = Duration::from_secs(1);
/// The kernel's receive queue asked for, in octets: some 2,000 requests.
const RECEIVE_BUFFER: usize = 2 << 20;

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
}

/// The server of one interface; [`run`](Self::run) serves.
pub struct DhcpServer {
    socket: UdpSocket,
    raw: RawSender,
    interface: String,
    core: dhcp::Server,
}

/// Replies and the leases that they depend on.
#[derive(Default)]
struct Batch {
    leases: Vec<Lease>,
    replies: Vec<Reply>,
}

impl DhcpServer {
    /// Binds port 67 of the interface and takes up the stored leases; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(interface: &str, config: Config, leases: Vec<Lease>) -> Result<Self, NetError> {
        let interface = Interface::find(interface)?;
        let raw = RawSender::open(&interface)?;
        let core = dhcp::Server::new(config, leases)?;
        let error =
            |source| NetError::Socket { what: "serve DHCP", interface: interface.name.clone(), source };
        let socket = listen(&interface.name).map_err(error)?;
        Ok(Self { socket, raw, interface: interface.name, core })
    }

    /// Serves until `cancel`. No packet and no passing error of the interface ends it.
    pub async fn run(mut self, sink: Arc<dyn DhcpSink>, cancel: CancellationToken) {
        let mut buf = vec![0; limits::PACKET_MAX];
        let mut waiting = Batch::default();
        let mut storing: Option<(Stored<'_>, Vec<Reply>)> = None;
        loop {
            // A RELEASE or DECLINE has a row to store and no reply.
            if storing.is_none() && !waiting.leases.is_empty() {
                let batch = std::mem::take(&mut waiting);
                storing = Some((sink.persist(batch.leases), batch.replies));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                result = stored(&mut storing) => {
                    let replies = storing.take().map(|(_, replies)| replies).unwrap_or_default();
                    match result {
                        Ok(()) => replies.iter().for_each(|reply| self.send(reply)),
                        Err(error) => error!(%error, replies = replies.len(), "DHCP leases not stored, replies dropped"),
                    }
                }
                received = self.socket.recv_from(&mut buf) => match received {
                    Ok((len, from)) => self.handle_datagram(&buf[..len], from, sink.as_ref(), &mut waiting),
                    Err(error) => {
                        warn!(interface = self.interface, %error, "DHCP receive failed");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
    }

    fn handle_datagram(&mut self, bytes: &[u8], from: SocketAddr, sink: &dyn DhcpSink, waiting: &mut Batch) {
        if waiting.leases.len() >= WAITING_MAX {
            warn!(interface = self.interface, "DHCP request dropped: too many leases wait to be stored");
            return;
        }
        let answer = match self.core.handle_packet(now(), Port::Server67, bytes) {
            Ok(answer) => answer,
            Err(error) => {
                debug!(interface = self.interface, %from, %error, "not a DHCP request");
                return;
            }
        };
        log(&self.interface, &answer);
        sink.observed(&self.interface, answer.observed);
        waiting.leases.extend(answer.leases.iter().cloned());
        match answer.reply {
            Ok(reply) if answer.leases.is_empty() => self.send(&reply),
            Ok(reply) => waiting.replies.push(reply),
            Err(_) => {}
        }
    }

    fn send(&self, reply: &Reply) {
        let from = (self.core.config().server_ip, SERVER_PORT);
        let raw = |ip, mac| self.raw.send(Path { from, to: (ip, CLIENT_PORT), mac }, &reply.bytes);
        let sent = match reply.destination {
            // As a frame too: through the UDP socket the kernel would choose the source address.
            Destination::Broadcast => raw(Ipv4Addr::BROADCAST, MacAddr([0xff; 6])),
            Destination::UnicastRaw { mac, ip } => raw(ip, mac),
            // Port 4011 is not open yet.
            Destination::Sender => Ok(()),
            Destination::Unicast(ip) => self.send_routed(SocketAddrV4::new(ip, CLIENT_PORT), &reply.bytes),
            Destination::Relay(ip) => self.send_routed(SocketAddrV4::new(ip, SERVER_PORT), &reply.bytes),
        };
        if let Err(error) = sent {
            warn!(interface = self.interface, to = ?reply.destination, %error, "DHCP reply could not be sent");
        }
    }

    /// Sends by the kernel's routes, from the address that is our server identifier.
    fn send_routed(&self, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        let source = nix::libc::in_addr { s_addr: u32::from(self.core.config().server_ip).to_be() };
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: source,
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let iov = [io::IoSlice::new(bytes)];
        sendmsg(
            self.socket.as_raw_fd(),
            &iov,
            &control,
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrIn::from(to)),
        )?;
        Ok(())
    }
}

/// Waits for the batch that is being stored; for ever where there is none.
async fn stored(storing: &mut Option<(Stored<'_>, Vec<Reply>)>) -> Result<(), StoreError> {
    match storing {
        Some((future, _)) => future.await,
        None => std::future::pending().await,
    }
}

fn log(interface: &str, answer: &Answer) {
    let seen = &answer.observed;
    let (mac, ip) = (seen.mac.map(tracing::field::display), seen.ip.map(tracing::field::display));
    let (message, stage) = (seen.message, seen.stage);
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

fn listen(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    // The kernel caps this at net.core.rmem_max without an error.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // Not the server's own address: a socket bound to that hears no broadcast.
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
