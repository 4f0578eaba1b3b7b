//! The DHCPv6 socket of one interface: receive, let the core decide, store, send. As for DHCPv4 (`dhcp`), while one batch of
//! leases is being stored the next one gathers, and a reply that depends on a lease leaves after it.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::dhcp6::{
    self, Answer, Config, Lease, MessageType, Observed, Reply, Server, Silence, limits,
};
use protocol::Timestamp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{Level, debug, error, info, warn};

use super::dhcp::{StoreError, Stored};
use super::lines::Lines;
use super::{Interface, NetError};
use crate::engine::now;

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers` and `All_DHCP_Servers` (RFC 8415 section 7.1).
const GROUPS: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3)];
/// Replies that wait for their leases to be stored: a hall of machines switched on at once. More are dropped, and the
/// clients ask again.
const WAITING_MAX: usize = 4096;
/// Pause after a receive error, such as an interface that went down.
const RETRY: Duration = Duration::from_secs(1);
/// The kernel's receive queue asked for, in octets: some 2,000 requests.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Who keeps the leases and hears about machines.
pub trait Dhcp6Sink: Send + Sync + 'static {
    /// Stores rows, each replacing the one of the same address. No reply that depends on them leaves before this has
    /// succeeded; where it fails the replies are dropped and the clients ask again.
    fn persist(&self, leases: Vec<Lease>) -> Stored<'_>;

    /// A request came. Must not wait: hand it to a channel.
    fn observed(&self, interface: &str, observed: Observed);
}

/// The server of one interface; [`run`](Self::run) serves.
pub struct Dhcp6Server {
    socket: UdpSocket,
    interface: String,
    core: Server,
    lines: Lines,
}

/// A reply and where it goes.
type Letter = (Reply, SocketAddrV6);

/// Replies and the leases that they depend on.
#[derive(Default)]
struct Batch {
    leases: Vec<Lease>,
    replies: Vec<Letter>,
}

impl Dhcp6Server {
    /// Binds port 547 of the interface and takes up the stored leases; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn bind(interface: &str, config: Config, leases: Vec<Lease>) -> Result<Self, NetError> {
        let interface = Interface::find(interface)?.name;
        let core = Server::new(config, leases)?;
        let error = |source| NetError::Socket { what: "serve DHCPv6", interface: interface.clone(), source };
        let socket = listen(&interface).map_err(error)?;
        Ok(Self { socket, interface, core, lines: Lines::default() })
    }

    /// Serves until `cancel`. No packet and no passing error of the interface ends it.
    pub async fn run(mut self, sink: Arc<dyn Dhcp6Sink>, cancel: CancellationToken) {
        let mut buf = vec![0; limits::PACKET_MAX];
        let mut waiting = Batch::default();
        let mut storing: Option<(Stored<'_>, Vec<Letter>)> = None;
        loop {
            if storing.is_none() && !waiting.leases.is_empty() {
                let batch = std::mem::take(&mut waiting);
                storing = Some((sink.persist(batch.leases), batch.replies));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                result = stored(&mut storing) => {
                    let replies = storing.take().map(|(_, replies)| replies).unwrap_or_default();
                    match result {
                        Ok(()) => replies.iter().for_each(|letter| self.send(letter)),
                        Err(error) => error!(%error, replies = replies.len(), "DHCPv6 leases not stored, replies dropped"),
                    }
                }
                received = self.socket.recv_from(&mut buf) => match received {
                    Ok((len, SocketAddr::V6(from))) => self.handle_datagram(&buf[..len], from, sink.as_ref(), &mut waiting),
                    Ok(_) => {}
                    Err(error) => {
                        warn!(interface = self.interface, %error, "DHCPv6 receive failed");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
            if let Some(lines) = self.lines.left_out(now()) {
                warn!(
                    interface = self.interface,
                    lines, "so many log lines about DHCPv6 were left out in one second"
                );
            }
        }
    }

    fn handle_datagram(
        &mut self,
        bytes: &[u8],
        from: SocketAddrV6,
        sink: &dyn Dhcp6Sink,
        waiting: &mut Batch,
    ) {
        let now = now();
        if waiting.replies.len() >= WAITING_MAX {
            if self.lines.allow(now) {
                warn!(
                    interface = self.interface,
                    "DHCPv6 request dropped: too many leases wait to be stored"
                );
            }
            return;
        }
        let answer = match self.core.handle_packet(now, *from.ip(), bytes) {
            Ok(answer) => answer,
            Err(error) => {
                if tracing::enabled!(Level::DEBUG) && self.lines.allow(now) {
                    debug!(interface = self.interface, %from, %error, "not a DHCPv6 request");
                }
                return;
            }
        };
        log(&mut self.lines, now, &self.interface, &answer);
        sink.observed(&self.interface, answer.observed);
        let letter = answer.reply.ok().map(|reply| {
            let port = if reply.to_relay { SERVER_PORT } else { CLIENT_PORT };
            (reply, SocketAddrV6::new(*from.ip(), port, 0, from.scope_id()))
        });
        if answer.leases.is_empty() {
            letter.iter().for_each(|letter| self.send(letter));
        } else {
            waiting.leases.extend(answer.leases);
            waiting.replies.extend(letter);
        }
    }

    /// The kernel chooses the source: link-local to a client on the wire.
    fn send(&mut self, (reply, to): &Letter) {
        // A full queue drops the reply, as the wire might; the client asks again.
        if let Err(error) = self.socket.try_send_to(&reply.bytes, (*to).into())
            && self.lines.allow(now())
        {
            warn!(interface = self.interface, %to, %error, "DHCPv6 reply could not be sent");
        }
    }
}

/// Waits for the batch that is being stored; for ever where there is none.
async fn stored(storing: &mut Option<(Stored<'_>, Vec<Letter>)>) -> Result<(), StoreError> {
    match storing {
        Some((future, _)) => future.await,
        None => std::future::pending().await,
    }
}

/// The line about a request, where its level is on and the second has not had too many of them.
fn log(lines: &mut Lines, at: Timestamp, interface: &str, answer: &Answer) {
    let dhcp6::Observed { mac, ip, stage, message, .. } = &answer.observed;
    let (mac, ip) = (mac.map(tracing::field::display), ip.map(tracing::field::display));
    let lent = !answer.leases.is_empty() && ip.is_some();
    let declined = *message == MessageType::Decline;
    let refused = ip.is_none() && *message == MessageType::Request;
    let on = match &answer.reply {
        Ok(_) if lent => tracing::enabled!(Level::INFO),
        Ok(_) if declined || refused => tracing::enabled!(Level::WARN),
        Err(Silence::NoSubnet(_)) => tracing::enabled!(Level::WARN),
        _ => tracing::enabled!(Level::DEBUG),
    };
    if !on || !lines.allow(at) {
        return;
    }
    match &answer.reply {
        Ok(_) if lent => info!(interface, mac, ip, ?stage, "DHCPv6 lease given"),
        Ok(_) if declined => warn!(interface, mac, "DHCPv6 address declined"),
        Ok(_) if refused => warn!(interface, mac, ?stage, "DHCPv6 request refused"),
        Ok(_) => debug!(interface, mac, ip, ?stage, ?message, "DHCPv6 answered"),
        Err(silence @ Silence::NoSubnet(_)) => {
            warn!(interface, mac, ?message, "DHCPv6 not answered: {silence}")
        }
        Err(silence) => debug!(interface, mac, ?message, %silence, "DHCPv6 not answered"),
    }
}

fn listen(interface: &str) -> io::Result<UdpSocket> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    // The kernel caps this at net.core.rmem_max without an error.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, SERVER_PORT)).into())?;
    for group in GROUPS {
        socket.join_multicast_v6(&group, index)?;
    }
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts the lines of a log.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl io::Write for Count {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(text.iter().filter(|b| **b == b'\n').count(), Ordering::Relaxed);
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_from_a_network_not_served_writes_few_lines() {
        let count = Count::default();
        let writer = count.clone();
        let log_of = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let answer = Answer {
            observed: Observed {
                mac: None,
                architecture: None,
                vendor_class: None,
                stage: boot_server_core::dhcp::Stage::Os,
                message: MessageType::Solicit,
                ip: None,
                relay: None,
            },
            leases: Vec::new(),
            reply: Err(Silence::NoSubnet(Ipv6Addr::LOCALHOST)),
        };
        let mut lines = Lines::default();
        tracing::subscriber::with_default(log_of, || {
            (0..1000).for_each(|_| log(&mut lines, Timestamp(5_000), "v0", &answer));
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 50);
        assert_eq!(lines.left_out(Timestamp(6_000)), Some(950));
    }
}
