//! Between the boot protocols' sockets and the engine: leases go to the store before their replies leave, sightings
//! wait in a bounded queue.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use boot_server_core::boot_files::{Architecture, BootFiles, NoLoader};
use boot_server_core::dhcp::{Lease, MessageType, Observed, Stage};
use boot_server_core::node::{Event, Severity};
use protocol::MacAddr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Actor, Engine};
use crate::loaders::Loaders;
use crate::net::dhcp::{DhcpSink, Stored};
use crate::store::queries;

/// Sightings that may wait; more are dropped, which costs a mark in a waterfall and nothing else.
pub(super) const SIGHTINGS_QUEUED_MAX: usize = 4096;

/// How often it is said that a kind of machine has no loader: such a machine asks for ever.
const NO_LOADER_EVERY: Duration = Duration::from_secs(3600);
/// Kinds of machines of which that is remembered; there are some twenty, and strangers may invent more.
const NO_LOADER_KINDS_MAX: usize = 64;

/// What was seen on the wire.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// A network boot asks for an address.
    Boot(MacAddr),
    /// A machine has an address.
    Address(MacAddr, IpAddr),
    /// The machine at this address fetched a boot file.
    File { address: IpAddr, event: Event },
    /// A machine wants to boot, and there is nothing for it.
    NoLoader(MacAddr, Architecture, NoLoader),
}

/// Keeps leases and hears about machines.
pub(super) struct Sink {
    engine: Engine,
    seen: mpsc::Sender<Seen>,
    boot: BootFiles,
}

impl Sink {
    pub fn new(engine: Engine, seen: mpsc::Sender<Seen>) -> Self {
        let settings = engine.settings();
        let boot = Loaders::new(settings).boot_files(settings.secure_boot);
        Self { engine, seen, boot }
    }

    /// Why firmware that wants to boot is told nothing.
    fn no_loader(&self, mac: MacAddr, observed: &Observed) -> Option<Seen> {
        if !matches!(observed.stage, Stage::Firmware | Stage::HttpClient) {
            return None;
        }
        let architecture = observed.architecture.unwrap_or(Architecture::BIOS);
        self.boot.loader(architecture).err().map(|why| Seen::NoLoader(mac, architecture, why))
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
        let nothing = boots.then(|| self.no_loader(mac, &observed)).flatten();
        for seen in boots.then_some(Seen::Boot(mac)).into_iter().chain(address).chain(nothing) {
            if self.seen.try_send(seen).is_err() {
                tracing::debug!(%mac, "sighting dropped");
            }
        }
    }
}

/// Takes sightings to the engine, until `stop`.
pub(super) async fn run(engine: Engine, mut sightings: mpsc::Receiver<Seen>, stop: CancellationToken) {
    let mut told: BTreeMap<Architecture, Instant> = BTreeMap::new();
    loop {
        let seen = tokio::select! {
            () = stop.cancelled() => return,
            seen = sightings.recv() => seen,
        };
        match seen {
            Some(Seen::Boot(mac)) => engine.dhcp_seen(mac).await,
            Some(Seen::Address(mac, address)) => engine.address_given(mac, address),
            Some(Seen::File { address, event }) => engine.file_served(address, event).await,
            Some(Seen::NoLoader(mac, architecture, why)) => {
                let again = told.get(&architecture).is_some_and(|at| at.elapsed() < NO_LOADER_EVERY);
                if !again && (told.len() < NO_LOADER_KINDS_MAX || told.contains_key(&architecture)) {
                    told.insert(architecture, Instant::now());
                    no_loader(&engine, mac, why).await;
                }
            }
            // Neither DHCP nor TFTP is on.
            None => return stop.cancelled().await,
        }
    }
}

async fn no_loader(engine: &Engine, mac: MacAddr, why: NoLoader) {
    let message = format!("{mac} wants to boot, but {why}");
    tracing::warn!("{message}");
    if let Err(error) = engine.note(Actor::Server, None, "boot.no_loader", Severity::Warning, message).await {
        tracing::warn!(%error, "event was not stored");
    }
}
