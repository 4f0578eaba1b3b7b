//! The tokio driver: one socket that takes requests, and one connected socket and task per transfer.
//!
//! Every transfer answers from the local address that its request was sent to (`IP_PKTINFO`), so a server with several
//! addresses is understood by clients that check the sender; and from a port of its own, as RFC 1350 section 4 wants.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::files::Files;
use crate::limits;
use crate::name::normalise;
use crate::packet::{self, ErrorCode, Packet};
use crate::session::{Asked, Session};
use crate::socket::{self, Buffers, Received};

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
    buffers: Arc<Buffers>,
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
    running: HashMap<Key, (u64, mpsc::Sender<Asked>)>,
    per_address: HashMap<IpAddr, usize>,
    tasks: JoinSet<(Key, u64)>,
    generation: u64,
}

impl Server {
    /// Binds the socket; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] where the address is taken, or is not ours, or the right to a port below 1024 is missing.
    pub fn bind(config: &ServerConfig, files: Arc<dyn Files>) -> Result<Self, BindError> {
        let socket = socket::listen(config).map_err(|source| BindError { listen: config.listen, source })?;
        Ok(Self { socket, interface: config.interface.clone(), files, buffers: Arc::default() })
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
                received = socket::receive(&self.socket, &mut buf) => match received {
                    // RFC 1123 section 4.2.3.4: a request to everybody is nobody's.
                    Ok(Received { to_many: true, .. }) => {}
                    Ok(Received { len, peer, local, .. }) => {
                        self.handle_datagram(&buf[..len], (peer, local), &mut sessions, &cancel);
                    }
                    Err(error) => {
                        // Errors of a UDP socket pass (an interface that went down); a loop without pause would not.
                        warn!(%error, "TFTP receive failed");
                        tokio::time::sleep(limits::ERROR_PAUSE).await;
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
        let name = match normalise(&request.name) {
            Ok(name) => name,
            Err(error) => {
                info!(%peer, name = ?request.name, %error, "TFTP request refused");
                return self.refuse(key, ErrorCode::ACCESS, &error.to_string());
            }
        };
        let Some(asked) = sessions.again(key, Asked { name, request: request.into_owned() }) else { return };
        if !sessions.has_room(peer.ip()) {
            // No answer: the client asks again, and an ERROR would make firmware give up.
            warn!(%peer, running = sessions.running.len(), "TFTP request dropped: too many transfers");
            return;
        }
        match socket::session(peer, key.1, self.interface.as_deref()) {
            Ok(socket) => {
                let (files, buffers) = (self.files.clone(), self.buffers.clone());
                let session = Session { peer, socket, files, buffers, cancel: cancel.clone() };
                sessions.spawn(key, session, asked);
            }
            Err(error) => warn!(%peer, %error, "no socket for a TFTP transfer"),
        }
    }

    /// Sends an ERROR from a port of its own, once; a lost one is asked for again.
    fn refuse(&self, key: Key, code: ErrorCode, words: &str) {
        let mut out = Vec::new();
        packet::emit_error(&mut out, code, words);
        let socket = socket::session(key.0, key.1, self.interface.as_deref());
        if let Err(error) = socket.and_then(|socket| socket::send_one(&socket, &out)) {
            debug!(peer = %key.0, %error, "TFTP error could not be sent");
        }
    }
}

impl Sessions {
    /// Gives the request to the running session of the same client, which answers from the same port; gives it back
    /// where there is none. The port stays the same because the client may already have heard from it.
    fn again(&mut self, key: Key, asked: Asked) -> Option<Asked> {
        let Some((_, requests)) = self.running.get(&key) else { return Some(asked) };
        match requests.try_send(asked) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => None,
            Err(mpsc::error::TrySendError::Closed(asked)) => Some(asked),
        }
    }

    fn has_room(&self, address: IpAddr) -> bool {
        self.running.len() < limits::SESSIONS_MAX
            && self.per_address.get(&address).copied().unwrap_or(0) < limits::SESSIONS_PER_ADDRESS_MAX
    }

    fn spawn(&mut self, key: Key, session: Session, first: Asked) {
        self.generation += 1;
        let generation = self.generation;
        // One place: of a client that asks more often than its task runs, any one request will do.
        let (requests, asked) = mpsc::channel(1);
        if self.running.insert(key, (generation, requests)).is_none() {
            *self.per_address.entry(key.0.ip()).or_default() += 1;
        }
        self.tasks.spawn(async move {
            session.run(first, asked).await;
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
