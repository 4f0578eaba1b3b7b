//! Between the boot protocols' sockets and the engine: leases go to the store before their replies leave, sightings
//! wait in bounded queues, those of known machines apart from strangers', so that a flood of strangers hides no machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot_server_core::boot_files::{Architecture, BootFiles, NoLoader};
use boot_server_core::dhcp::foreign::Seen as ServerSeen;
use boot_server_core::dhcp::{Lease, MessageType, Observed, Stage};
use boot_server_core::node::{Event, Severity};
use protocol::MacAddr;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::wire::News;
use crate::engine::{Actor, Engine};
use crate::loaders::Loaders;
use crate::net::dhcp::{DhcpSink, Stored};
use crate::net::foreign::ForeignSink;
use crate::store::journal::Journal;

/// Sightings that may wait; more are dropped, which costs a mark in a waterfall and nothing else.
pub(super) const SIGHTINGS_QUEUED_MAX: usize = 4096;
/// Known machines whose sightings are taken in side by side: each waits for a commit to disk.
const LANES: usize = 16;
/// Sightings that may wait in one of them.
const LANE_QUEUED_MAX: usize = 256;

/// How often it is said that a kind of machine has no loader: such a machine asks for ever.
const NO_LOADER_EVERY: Duration = Duration::from_secs(3600);
/// Kinds of machines of which that is remembered; there are some twenty, and strangers may invent more.
const NO_LOADER_KINDS_MAX: usize = 64;

/// What was seen on the wire.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// A network boot asks for an address.
    Boot(MacAddr),
    /// The machine at this address fetched a boot file.
    File { address: IpAddr, event: Event },
    /// A machine wants to boot, and there is nothing for it.
    NoLoader(MacAddr, Architecture, NoLoader),
}

/// Keeps leases and hears about machines and servers.
pub(super) struct Sink {
    engine: Engine,
    journal: Arc<Journal>,
    /// Of known machines.
    seen: mpsc::Sender<Seen>,
    strangers: mpsc::Sender<Seen>,
    news: mpsc::Sender<News>,
    boot: BootFiles,
}

impl Sink {
    pub fn new(
        engine: Engine,
        journal: Journal,
        seen: mpsc::Sender<Seen>,
        strangers: mpsc::Sender<Seen>,
        news: mpsc::Sender<News>,
    ) -> Arc<Self> {
        let settings = engine.settings();
        let boot = Loaders::new(settings).boot_files(settings.secure_boot);
        Arc::new(Self { engine, journal: Arc::new(journal), seen, strangers, news, boot })
    }

    /// Puts the last leases into the database; the journal takes no more.
    pub async fn close(&self) {
        let journal = self.journal.clone();
        let closed = tokio::task::spawn_blocking(move || journal.close()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the lease journal was not closed; the next start takes it up");
        }
    }

    /// Why firmware that wants to boot is told nothing.
    fn no_loader(&self, mac: MacAddr, observed: &Observed) -> Option<Seen> {
        if !matches!(observed.stage, Stage::Firmware | Stage::HttpClient) {
            return None;
        }
        let architecture = observed.architecture.unwrap_or(Architecture::BIOS);
        self.boot.loader(architecture).err().map(|why| Seen::NoLoader(mac, architecture, why))
    }

    /// A queue that is full has enough of the same.
    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() {
            tracing::debug!("news of the wire dropped");
        }
    }
}

impl DhcpSink for Sink {
    fn persist(&self, leases: Vec<Lease>) -> Stored<'_> {
        Box::pin(async move {
            self.journal.put(leases).await?;
            Ok(())
        })
    }

    fn observed(&self, _interface: &str, observed: Observed) {
        if let Some(relay) = observed.relay {
            self.engine.relay_seen(relay);
        }
        let Some(mac) = observed.mac else { return };
        if let Some(server) = observed.elsewhere {
            self.engine.went_elsewhere(mac, server);
        }
        if let Some(ip) = observed.takes {
            self.engine.address_taken(mac, IpAddr::V4(ip));
        }
        let boots = observed.stage != Stage::Os && observed.message == MessageType::Discover;
        let queue = if observed.known { &self.seen } else { &self.strangers };
        let nothing = boots.then(|| self.no_loader(mac, &observed)).flatten();
        for seen in boots.then_some(Seen::Boot(mac)).into_iter().chain(nothing) {
            if queue.try_send(seen).is_err() {
                tracing::debug!(%mac, "sighting dropped");
            }
        }
        // At once, not by the queue: it takes less than waking another task.
        if let Some(ip) = observed.ip.filter(|_| observed.message == MessageType::Request) {
            self.engine.address_given(mac, IpAddr::V4(ip));
        }
    }

    fn chose_other(&self, interface: &str, server: Ipv4Addr) {
        let interface = interface.to_owned();
        let seen = ServerSeen { address: server, mac: None, interface, boots: false, lends: true };
        self.tell(News::Server(seen));
    }

    fn in_use(&self, interface: &str, address: Ipv4Addr, by: MacAddr) {
        self.tell(News::AddressInUse { interface: interface.to_owned(), address, by });
    }
}

impl ForeignSink for Sink {
    fn seen(&self, seen: ServerSeen) {
        self.tell(News::Server(seen));
    }
}

/// Takes sightings to the engine, until `stop`. Those of one machine keep their order.
pub(super) async fn run(
    engine: Engine,
    mut sightings: mpsc::Receiver<Seen>,
    mut strangers: mpsc::Receiver<Seen>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let (lane, queue) = mpsc::channel(LANE_QUEUED_MAX);
            tasks.spawn(take_in(engine.clone(), queue));
            lane
        })
        .collect();
    let mut told: BTreeMap<Architecture, Instant> = BTreeMap::new();
    loop {
        let seen = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(seen) = sightings.recv() => seen,
            Some(seen) = strangers.recv() => seen,
            // Neither DHCP nor TFTP is on.
            else => return stop.cancelled().await,
        };
        let mac = match &seen {
            Seen::Boot(mac) => Some(*mac),
            Seen::NoLoader(mac, architecture, _) => {
                let again = told.get(architecture).is_some_and(|at| at.elapsed() < NO_LOADER_EVERY);
                if again || (told.len() >= NO_LOADER_KINDS_MAX && !told.contains_key(architecture)) {
                    continue;
                }
                told.insert(*architecture, Instant::now());
                Some(*mac)
            }
            Seen::File { address, .. } => engine.machine_at(*address),
        };
        let Some(mac) = mac else { continue };
        let lane = usize::from(mac.0[5] ^ mac.0[4]) % LANES;
        if lanes[lane].send(seen).await.is_err() {
            return;
        }
    }
}

async fn take_in(engine: Engine, mut queue: mpsc::Receiver<Seen>) {
    while let Some(seen) = queue.recv().await {
        match seen {
            Seen::Boot(mac) => engine.dhcp_seen(mac).await,
            Seen::File { address, event } => engine.file_served(address, event).await,
            Seen::NoLoader(mac, _, why) => no_loader(&engine, mac, why).await,
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
