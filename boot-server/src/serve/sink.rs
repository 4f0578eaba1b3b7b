//! Between the boot protocols' sockets and the engine: leases go to the store before their replies leave, sightings
//! wait in a bounded queue.

use std::net::IpAddr;

use boot_server_core::dhcp::{Lease, MessageType, Observed, Stage};
use boot_server_core::node::Event;
use protocol::MacAddr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::net::dhcp::{DhcpSink, Stored};
use crate::store::queries;

/// Sightings that may wait; more are dropped, which costs a mark in a waterfall and nothing else.
pub(super) const SIGHTINGS_QUEUED_MAX: usize = 4096;

/// What was seen on the wire.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// A network boot asks for an address.
    Boot(MacAddr),
    /// A machine has an address.
    Address(MacAddr, IpAddr),
    /// The machine at this address fetched a boot file.
    File { address: IpAddr, event: Event },
}

/// Keeps leases and hears about machines.
pub(super) struct Sink {
    engine: Engine,
    seen: mpsc::Sender<Seen>,
}

impl Sink {
    pub fn new(engine: Engine, seen: mpsc::Sender<Seen>) -> Self {
        Self { engine, seen }
    }
}

impl DhcpSink for Sink {
    fn persist(&self, leases: Vec<Lease>) -> Stored<'_> {
        Box::pin(async move {
            self.engine.store().write(move |db| queries::put_leases(db, &leases)).await?;
            Ok(())
        })
    }

    fn observed(&self, _interface: &str, observed: Observed) {
        let Some(mac) = observed.mac else { return };
        let boots = observed.stage != Stage::Os && observed.message == MessageType::Discover;
        let address = observed.ip.map(|ip| Seen::Address(mac, IpAddr::V4(ip)));
        for seen in boots.then_some(Seen::Boot(mac)).into_iter().chain(address) {
            if self.seen.try_send(seen).is_err() {
                tracing::debug!(%mac, "sighting dropped");
            }
        }
    }
}

/// Takes sightings to the engine, until `stop`.
pub(super) async fn run(engine: Engine, mut sightings: mpsc::Receiver<Seen>, stop: CancellationToken) {
    loop {
        let seen = tokio::select! {
            () = stop.cancelled() => return,
            seen = sightings.recv() => seen,
        };
        match seen {
            Some(Seen::Boot(mac)) => engine.dhcp_seen(mac).await,
            Some(Seen::Address(mac, address)) => engine.address_given(mac, address),
            Some(Seen::File { address, event }) => engine.file_served(address, event).await,
            // Neither DHCP nor TFTP is on.
            None => return stop.cancelled().await,
        }
    }
}
