//! What DHCP is told of the site and tells of the wire: which machines are known, and which servers and squatters there
//! are beside us.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::dhcp::Known;
use boot_server_core::dhcp::foreign::Seen as ServerSeen;
use boot_server_core::node::Severity;
use protocol::MacAddr;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::engine::{Actor, Change, Engine, EngineError};

/// News that may wait; a server that is there shows itself again.
pub(super) const NEWS_QUEUED_MAX: usize = 256;
/// The list of known machines is made anew at most this often: with 20,000 nodes it takes some milliseconds.
const KNOWN_EVERY: Duration = Duration::from_secs(1);
/// How often servers that went away are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(5);
/// Addresses in use that get an event each; who claims more than that gets no more of our event list.
const IN_USE_MAX: usize = 64;

/// What the wire showed.
#[derive(Debug)]
pub(super) enum News {
    /// Another DHCP server.
    Server(ServerSeen),
    /// An address of our pools is used by a machine that never asked for it.
    AddressInUse { interface: String, address: Ipv4Addr, by: MacAddr },
}

/// Takes news to the engine, until `stop`.
pub(super) async fn run(engine: Engine, mut news: mpsc::Receiver<News>, stop: CancellationToken) {
    let mut forget = interval(FORGET_EVERY);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = BTreeSet::new();
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            _ = forget.tick() => engine.forget_dhcp_servers().await,
            Some(news) = news.recv() => take_in(&engine, news, &mut noted).await,
        };
        if let Err(error) = taken {
            tracing::error!(%error, "news of the wire was not stored");
        }
    }
}

async fn take_in(
    engine: &Engine,
    news: News,
    noted: &mut BTreeSet<(Ipv4Addr, MacAddr)>,
) -> Result<(), EngineError> {
    match news {
        News::Server(seen) => engine.dhcp_server_seen(seen).await,
        News::AddressInUse { interface, address, by } => {
            if noted.len() >= IN_USE_MAX || !noted.insert((address, by)) {
                return Ok(());
            }
            let message = format!(
                "{address} of the DHCP pool is used on {interface} by {by}, which never asked for it: give that machine \
                 an address outside the pool, or let it use DHCP"
            );
            engine.note(Actor::Server, None, "dhcp.address-in-use", Severity::Warning, message).await
        }
    }
}

/// Tells DHCP of new nodes, until `stop`.
pub(super) async fn follow_nodes(engine: Engine, tell: watch::Sender<Arc<Known>>, stop: CancellationToken) {
    let mut changes = engine.changes();
    let mut due = interval(KNOWN_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => match change {
                Ok(Change::Node(_)) | Err(RecvError::Lagged(_)) => changed = true,
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            },
            _ = due.tick(), if changed => {
                changed = false;
                let now = engine.known_machines();
                tell.send_if_modified(|before| {
                    let differs = **before != now;
                    if differs {
                        *before = Arc::new(now);
                    }
                    differs
                });
            }
        }
    }
}
