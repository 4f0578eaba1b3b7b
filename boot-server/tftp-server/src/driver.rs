//! The tokio driver: one socket that takes requests, and one connected socket and task per transfer.
//!
//! Every transfer answers from the local address that its request was sent to (`IP_PKTINFO`), so a server with several
//! addresses is understood by clients that check the sender; and from a port of its own, as RFC 1350 section 4 wants.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::files::{Files, OpenError};
use crate::limits;
use crate::name::normalise;
use crate::packet::{self, ErrorCode, Packet, Request};
use crate::transfer::{Failure, Outcome, Transfer};

/// Where the server listens.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address and port to listen on; `0.0.0.0:69` for all. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Takes requests from, and sends to, this interface only (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
}

/// A listening server; [`run`](Self::run) serves.
pub struct Server {
    socket: UdpSocket,
    interface: Option<String>,
    files: Arc<dyn Files>,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for TFTP on {listen}")]
pub struct BindError {
    /// Where it should have.
    pub listen: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A transfer is known by who asked and which address was asked.
type Key = (SocketAddr, IpAddr);

struct Sessions {
    /// The generation tells a session from an earlier one of the same client.
    running: HashMap<Key, (u64, mpsc::Sender<Start>)>,
    per_address: HashMap<IpAddr, usize>,
    tasks: JoinSet<(Key, u64)>,
    generation: u64,
}

struct Start {
    name: String,
    transfer: Transfer,
}

impl Server {
    /// Binds the socket; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] where the address is taken, or is not ours, or the right to a port below 1024 is missing.
    pub fn bind(config: &ServerConfig, files: Arc<dyn Files>) -> Result<Self, BindError> {
        let socket = listen(config).map_err(|source| BindError { listen: config.listen, source })?;
        Ok(Self { socket, interface: config.interface.clone(), files })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `cancel`; then tells every client and waits for the transfers to end.
    pub async fn run(self, cancel: CancellationToken) {
        let mut sessions = Sessions {
            running: HashMap::new(),
            per_address: HashMap::new(),
            tasks: JoinSet::new(),
            generation: 0,
        };
        let mut buf = vec![0; limits::REQUEST_MAX];
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(ended) = sessions.tasks.join_next() => match ended {
                    Ok((key, generation)) => sessions.forget(key, generation),
                    Err(error) => warn!(%error, "TFTP transfer task failed"),
                },
                received = receive(&self.socket, &mut buf) => match received {
                    Ok((len, peer, local)) => self.handle_datagram(&buf[..len], (peer, local), &mut sessions, &cancel),
                    Err(error) => {
                        // Errors of a UDP socket pass (an interface that went down); a loop without pause would not.
                        warn!(%error, "TFTP receive failed");
                        tokio::time::sleep(limits::RTO_MIN).await;
                    }
                },
            }
        }
        while sessions.tasks.join_next().await.is_some() {}
    }

    fn handle_datagram(&self, bytes: &[u8], key: Key, sessions: &mut Sessions, cancel: &CancellationToken) {
        let (peer, _) = key;
        let request = match Packet::parse(bytes) {
            Ok(Packet::Rrq(request)) => request,
            Ok(Packet::Wrq(request)) => {
                info!(%peer, name = %request.name, "TFTP write refused");
                return self.refuse(key, ErrorCode::ACCESS, "this server is read-only");
            }
            // An ERROR must not be answered (RFC 1350 section 7), nor the stray packet of an ended transfer.
            Ok(_) => return,
            Err(error) => {
                debug!(%peer, %error, "not a TFTP request");
                return self.refuse(key, ErrorCode::ILLEGAL, "malformed request");
            }
        };
        let (name, file) = match self.open(peer, &request) {
            Ok(found) => found,
            Err((code, words)) => return self.refuse(key, code, &words),
        };
        let start = Start { name, transfer: Transfer::new(Instant::now(), &request, file) };
        let Some(start) = sessions.restart(key, start) else { return };
        if !sessions.has_room(peer.ip()) {
            // No answer: the client asks again, and an ERROR would make firmware give up.
            warn!(%peer, running = sessions.running.len(), "TFTP request dropped: too many transfers");
            return;
        }
        match self.session_socket(key).and_then(UdpSocket::from_std) {
            Ok(socket) => sessions.spawn(key, start, socket, self.files.clone(), cancel.clone()),
            Err(error) => warn!(%peer, %error, "no socket for a TFTP transfer"),
        }
    }

    fn open(
        &self,
        peer: SocketAddr,
        request: &Request<'_>,
    ) -> Result<(String, crate::File), (ErrorCode, String)> {
        let name = normalise(&request.name).map_err(|error| {
            info!(%peer, name = ?request.name, %error, "TFTP request refused");
            (ErrorCode::ACCESS, error.to_string())
        })?;
        match self.files.open(peer, &name) {
            Ok(file) => Ok((name, file)),
            Err(error) => {
                info!(%peer, name, %error, "TFTP request refused");
                let code = match error {
                    OpenError::NotFound => ErrorCode::NOT_FOUND,
                    OpenError::Denied => ErrorCode::ACCESS,
                    OpenError::Io(ref source) => {
                        warn!(name, error = %source, "TFTP file could not be opened");
                        ErrorCode::UNDEFINED
                    }
                };
                Err((code, error.to_string()))
            }
        }
    }

    /// Sends an ERROR from a port of its own, once; a lost one is asked for again.
    fn refuse(&self, key: Key, code: ErrorCode, words: &str) {
        let mut out = Vec::new();
        packet::emit_error(&mut out, code, words);
        if let Err(error) = self.session_socket(key).and_then(|socket| socket.send(&out)) {
            debug!(peer = %key.0, %error, "TFTP error could not be sent");
        }
    }

    fn session_socket(&self, (peer, local): Key) -> io::Result<std::net::UdpSocket> {
        let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect(&peer.into())?;
        Ok(socket.into())
    }
}

impl Sessions {
    /// Gives the request to the running transfer of the same client, which starts anew from the same port; gives it
    /// back where there is none. The port stays the same because the client may already have heard from it.
    fn restart(&mut self, key: Key, start: Start) -> Option<Start> {
        let Some((_, restarts)) = self.running.get(&key) else { return Some(start) };
        match restarts.try_send(start) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => None,
            Err(mpsc::error::TrySendError::Closed(start)) => Some(start),
        }
    }

    fn has_room(&self, address: IpAddr) -> bool {
        self.running.len() < limits::SESSIONS_MAX
            && self.per_address.get(&address).copied().unwrap_or(0) < limits::SESSIONS_PER_ADDRESS_MAX
    }

    fn spawn(
        &mut self,
        key: Key,
        start: Start,
        socket: UdpSocket,
        files: Arc<dyn Files>,
        cancel: CancellationToken,
    ) {
        self.generation += 1;
        let generation = self.generation;
        // One place: a client that restarts more often than its task runs needs only the latest or the one before.
        let (restarts, restart_rx) = mpsc::channel(1);
        if self.running.insert(key, (generation, restarts)).is_none() {
            *self.per_address.entry(key.0.ip()).or_default() += 1;
        }
        self.tasks.spawn(async move {
            serve(socket, start, restart_rx, key.0, files, cancel).await;
            (key, generation)
        });
    }

    fn forget(&mut self, key: Key, generation: u64) {
        if self.running.get(&key).is_none_or(|(running, _)| *running != generation) {
            return;
        }
        self.running.remove(&key);
        let address = key.0.ip();
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

/// Serves one client until its transfer, and each that it restarted meanwhile, has ended.
async fn serve(
    socket: UdpSocket,
    start: Start,
    mut restarts: mpsc::Receiver<Start>,
    peer: SocketAddr,
    files: Arc<dyn Files>,
    cancel: CancellationToken,
) {
    let mut start = Some(start);
    let (mut out, mut buf) =
        (Vec::with_capacity(usize::from(limits::BLOCK_MAX) + 4), vec![0; limits::REQUEST_MAX]);
    while let Some(Start { mut name, mut transfer }) = start.take() {
        let summary = loop {
            send_all(&socket, &mut transfer, &mut out).await;
            if let Some(summary) = transfer.summary(Instant::now()) {
                break summary;
            }
            let deadline = transfer.poll_timeout().unwrap_or_else(Instant::now);
            tokio::select! {
                () = cancel.cancelled() => transfer.stop(),
                Some(again) = restarts.recv() => {
                    debug!(%peer, name = again.name, "TFTP transfer restarted by its client");
                    (name, transfer) = (again.name, again.transfer);
                }
                received = socket.recv(&mut buf) => match received {
                    Ok(len) => transfer.handle_packet(Instant::now(), &buf[..len]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => transfer.handle_unreachable(),
                    Err(error) => {
                        debug!(%peer, %error, "TFTP receive failed");
                        tokio::time::sleep(limits::RTO_MIN).await;
                    }
                },
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            transfer.handle_timeout(Instant::now());
        };
        log(peer, &name, &summary);
        files.finished(peer, &name, &summary);
        restarts.close();
        start = restarts.try_recv().ok();
    }
}

async fn send_all(socket: &UdpSocket, transfer: &mut Transfer, out: &mut Vec<u8>) {
    while transfer.poll_transmit(out) {
        match socket.send(out).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => transfer.handle_unreachable(),
            // As good as lost on the way: the timer sends it again.
            Err(error) => debug!(%error, "TFTP send failed"),
        }
    }
}

fn log(peer: SocketAddr, name: &str, summary: &crate::Summary) {
    let (bytes, retransmitted, ms) = (summary.bytes, summary.retransmitted, summary.elapsed.as_millis());
    match &summary.outcome {
        Outcome::Complete => info!(%peer, name, bytes, retransmitted, ms, "TFTP file sent"),
        // How firmware asks for the size of a file.
        Outcome::Failed(Failure::Client { .. }) if bytes == 0 => debug!(%peer, name, "TFTP size asked"),
        Outcome::Failed(failure) => {
            warn!(%peer, name, bytes, retransmitted, ms, %failure, "TFTP transfer failed")
        }
    }
}

fn listen(config: &ServerConfig) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(config.listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if config.listen.is_ipv6() {
        socket.set_only_v6(true)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4PacketInfo, &true)?;
    }
    if let Some(interface) = &config.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&config.listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// One datagram with its sender and the local address it was sent to.
async fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, SocketAddr, IpAddr)> {
    socket.async_io(Interest::READABLE, || receive_now(socket, buf)).await
}

fn receive_now(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, SocketAddr, IpAddr)> {
    use std::os::fd::AsRawFd;

    let mut control = nix::cmsg_space!([u8; 64]);
    let mut iov = [io::IoSliceMut::new(buf)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let peer = message.address.and_then(|a| to_std(&a)).ok_or_else(|| invalid("datagram without sender"))?;
    let mut local = None;
    for control in message.cmsgs()? {
        match control {
            // spec_dst, unlike addr, is an address of ours even for a datagram to the broadcast address.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local = Some(IpAddr::V4(u32::from_be(info.ipi_spec_dst.s_addr).into()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                local = Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()))
            }
            _ => {}
        }
    }
    Ok((message.bytes, peer, local.ok_or_else(|| invalid("datagram without destination"))?))
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(std::net::SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
}
