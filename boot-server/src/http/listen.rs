//! One listener: who gets a connection, for how long, and what its requests are told about where they came in.
//!
//! ```text
//! accept ─▶ room for one more, of all and of this peer ─▶ [TLS handshake, in time] ─▶ hyper: heads in time
//!                                                                        writes in time: `wire`; bodies: their readers
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handoff::Handoff;
use super::limits::{self, GRACE, Times};
use super::wire::Wire;
use super::{Base, Peer};
use crate::tls::Tls;

/// A bound socket and the rules for who comes in.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
    per_peer: usize,
    times: Times,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, tls: None, per_peer: usize::MAX, times: Times::default() }
    }
}

impl Listener {
    /// Connections that one address may have at a time.
    #[must_use]
    pub fn per_peer(self, per_peer: usize) -> Self {
        Self { per_peer, ..self }
    }

    #[cfg(test)]
    pub(super) fn times(self, times: Times) -> Self {
        Self { times, ..self }
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }
}

/// Serves `router` until `stop`, then lets open requests end.
pub async fn run(listener: impl Into<Listener>, router: Router, stop: CancellationToken) {
    let Listener { socket, tls, per_peer, times } = listener.into();
    let open = TaskTracker::new();
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let peers = Peers::new(per_peer);
    loop {
        // Room first: beyond the cap clients wait in the kernel's queue, which sheds load by itself.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        let Ok(permit) = permit else { break }; // nobody closes the semaphore
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: it passes, and must not become a busy loop.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = peers.admit(peer.ip()) else { continue };
        let client = Client { stream, peer, times, _room: permit, _place: place };
        open.spawn(client.serve(tls.clone(), router.clone(), stop.clone()));
    }
    drop(socket);
    open.close();
    if tokio::time::timeout(GRACE, open.wait()).await.is_err() {
        tracing::info!("some requests were still open and were cut");
    }
}

/// A connection that was let in.
struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    times: Times,
    _room: OwnedSemaphorePermit,
    _place: Place,
}

impl Client {
    async fn serve(self, tls: Option<Tls>, router: Router, stop: CancellationToken) {
        let Self { stream, peer, times, _room, _place } = self;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let local = match stream.local_addr() {
            Ok(local) => local,
            Err(error) => {
                tracing::debug!(%peer, %error, "a connection that is gone already");
                return;
            }
        };
        let handoff = Handoff::default();
        let wire = Wire::new(stream, handoff.clone(), times.write);
        let Some(tls) = tls else {
            let base = Base(format!("http://{local}"));
            let origin = Origin { peer: Peer(peer), base, handoff: Some(handoff) };
            return speak(wire, origin, times, router, stop).await;
        };
        let origin = Origin { peer: Peer(peer), base: Base(format!("https://{local}")), handoff: None };
        match tokio::time::timeout(times.handshake, tls.accept(wire)).await {
            Ok(Ok(stream)) => speak(stream, origin, times, router, stop).await,
            // Firmware does not show why it refused: the site's CA was not enrolled there, most often.
            Ok(Err(error)) => tracing::info!(%peer, %error, "no TLS session"),
            Err(_) => tracing::info!(%peer, "no TLS session: the client did not go on"),
        }
    }
}

/// What each request of a connection is told.
#[derive(Clone)]
struct Origin {
    peer: Peer,
    base: Base,
    handoff: Option<Handoff>,
}

/// HTTP on a connection, to its end; from `stop` on it takes no more requests. A connection that was upgraded (WebSocket)
/// goes on in a task of its own.
async fn speak<I>(io: I, origin: Origin, times: Times, router: Router, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let peer = origin.peer;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let Origin { peer, base, handoff } = origin.clone();
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(base);
        if let Some(handoff) = handoff {
            request.extensions_mut().insert(handoff);
        }
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.header)
        .max_buf_size(limits::HEAD_MAX)
        // GRUB compares the name of Content-Length octet by octet (2.12, net/efi/http.c); without it files are empty.
        .title_case_headers(true)
        // `handoff` needs its stand-in octets to arrive at the wire as they are.
        .writev(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = %peer.0, error = &error as &dyn std::error::Error, "connection ended");
    }
}

/// Open connections by peer.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    open: Arc<Mutex<HashMap<IpAddr, Open>>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    told: bool,
}

impl Peers {
    /// None yet; each may have `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Arc::default(), max }
    }

    /// A place for one more, unless this peer has all that it may have; then the connection is closed at once.
    pub(crate) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = open.entry(peer).or_default();
        if entry.count < self.max {
            entry.count += 1;
            return Some(Place { peers: self.clone(), peer });
        }
        // Once, until it has none left: a flood of connections must not become a flood of lines.
        if !std::mem::replace(&mut entry.told, true) {
            let max = self.max;
            tracing::warn!(%peer, max, "one address has as many connections as it may have: more are closed");
        }
        None
    }
}

/// A peer's claim to one connection.
#[derive(Debug)]
pub(crate) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.peer) {
            entry.get_mut().count -= 1;
            if entry.get().count == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let peers = Peers::new(2);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let first = peers.admit(one).unwrap();
        let second = peers.admit(mapped).unwrap();
        assert!(peers.admit(one).is_none() && peers.admit(mapped).is_none());
        let third = peers.admit(other).unwrap();
        drop(first);
        let fourth = peers.admit(one).unwrap();
        assert!(peers.admit(one).is_none());
        drop((second, third, fourth));
        assert!(peers.open.lock().unwrap().is_empty());
    }
}
