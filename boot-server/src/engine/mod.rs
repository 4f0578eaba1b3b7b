//! The engine: takes events to nodes, one at a time per node, and keeps what follows.
//!
//! ```text
//! event ─▶ node's lock ─▶ core step() ─▶ one transaction: node (version), events, effects ─▶ memory, wakes, broadcast
//!                                                       effects worker ◀── open effects
//! ```
//!
//! What a node does is decided in the core; how it is stored is the store's business; who may ask is the listeners'.

mod accounts;
#[cfg(test)]
mod accounts_tests;
mod addresses;
mod agents;
mod alarms;
mod approvals;
mod arrivals;
mod attest;
mod audits;
mod baselines;
mod bmc_events;
mod bmcs;
mod boots;
#[cfg(test)]
mod boots_tests;
mod bundles;
#[cfg(test)]
mod care_tests;
mod certificates;
mod clock;
mod counters;
mod deploys;
mod dhcp_servers;
mod discoveries;
mod dpu_networks;
mod dpus;
mod effects;
mod enrolments;
mod error;
mod evacuate;
mod expected;
mod exports;
pub mod fabric;
mod groups;
mod health;
#[cfg(test)]
mod identity_tests;
mod idle;
mod images;
mod imports;
mod index;
mod instances;
mod media;
#[cfg(test)]
mod media_tests;
mod members;
mod models;
mod networks;
mod orders;
pub mod overlay;
mod pages;
mod pci;
mod placements;
mod pools;
#[cfg(test)]
mod power_tests;
mod racks;
mod refresh;
mod registry;
mod replace;
mod restarts;
mod restored;
mod retention;
mod sensors;
pub mod servers;
mod servicing;
#[cfg(test)]
mod servicing_tests;
mod strangers;
mod switches;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod together;
pub mod trust;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use boot_server_core::cloud_config::is_hostname;
use boot_server_core::dhcp::{ClientKey, LeaseState};
use boot_server_core::dhcp6;
use boot_server_core::node::{Context, Event, Node, Note, Outcome, Severity, StateName, event::Verb, step};
use boot_server_core::server::Server;
use protocol::inventory::Inventory;
use protocol::{DpuId, JobId, MacAddr, NodeId, ProjectId, ServerId, VolumeId};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

pub use agents::Handed;
pub use alarms::Alarm;
pub use approvals::{Carried, Carry, Kept, Subject, Wanted};
pub use bmc_events::PATH as BMC_EVENTS;
pub use bmcs::BmcChange;
pub use boots::BootAnswer;
pub use clock::now;
pub use deploys::PlannedDeploy;
pub use dpus::{
    ControllerChange, DPU_IMAGE_PATH, DpuChange, DpuError, DpuImage, Functions as DpuFunctions,
    Known as KnownDpu, Use as DpuUse, User as DpuUser,
};
pub use enrolments::Enrolment;
pub use error::EngineError;
pub use expected::expecting;
pub use instances::Asker;
pub use media::{IMAGE_NAME, IMAGE_PATH, without_ticket};
pub use pages::NodePage;
pub use pools::PlacingError;
pub use registry::lock;
pub use replace::Replacing;
pub use sensors::HistoryQuery;
pub(crate) use servicing::view as service_view;

use crate::asking::carried;
use crate::audit::Audit;
use crate::audit::signing::SiteKey;
use crate::config::Settings;
use crate::power::{self, Power};
use crate::store::bmcs::{BmcRow, bmcs as stored_bmcs};
use crate::store::db::Connection;
use crate::store::dpu_setup;
use crate::store::dpus::dpus as stored_dpus;
use crate::store::instances::{self as stored_instances, InstanceRow};
use crate::store::queries::{self, EventFilter as StoredFilter, NewEvent, Remembered};
use crate::store::sensors::SensorRow;
use crate::store::{Store, StoreError, last_deploys, leases6, servers as stored_servers};
use crate::vault::Vault;
use crate::view::servers::LentView;
use crate::view::{AddressView, BmcFound, EventView, Hardware, NodeDetail};
use boots::Sightings;
use discoveries::Discoveries;
use registry::{Registry, Slot};

pub use crate::store::queries::{EventFilter, ImageRow};

/// Changes that a slow listener may be behind; it then reads everything anew.
const CHANGES_MAX: usize = 1024;
/// How often a step is done again because the row was changed by another server.
const CONFLICTS_MAX: usize = 8;
/// Inventories kept parsed in memory, some ten kilobytes each; others are read when they are asked for.
const INVENTORIES_MAX: usize = 256;
/// Events given at once.
pub const EVENTS_MAX: usize = 1000;

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    settings: Settings,
    store: Store,
    image_store: ::images::Store,
    nodes: Registry,
    inventories: Mutex<BTreeMap<NodeId, Option<Arc<Inventory>>>>,
    summaries: pages::Summaries,
    nodes_generation: AtomicU64,
    /// The site was restored, and nothing is driven.
    held: AtomicBool,
    manifests: Mutex<BTreeMap<protocol::ImageId, Arc<::images::Manifest>>>,
    sightings: Mutex<Sightings>,
    dhcp_servers: Mutex<dhcp_servers::DhcpServers>,
    discoveries: Discoveries,
    strangers: Mutex<strangers::Strangers>,
    alarms: Mutex<alarms::Alarms>,
    /// What TPMs were asked, until they answer.
    challenges: Mutex<BTreeMap<NodeId, attest::Challenge>>,
    changes: broadcast::Sender<Change>,
    /// Some effect waits to be carried out.
    effects: Notify,
    /// Some deadline changed.
    deadlines: Notify,
    /// Something was approved.
    approved: Notify,
    pci: pci::Names,
    opened: protocol::Timestamp,
    power: Power,
    vault: Vault,
    audit: Audit,
    site_key: SiteKey,
    /// Whose images are written.
    trust: trust::Trust,
    /// What workers find out, until somebody takes it in.
    news: Mutex<Option<tokio::sync::mpsc::Receiver<power::Told>>>,
    bmcs: Mutex<BTreeMap<NodeId, BmcRow>>,
    health: Mutex<BTreeMap<NodeId, health::Known>>,
    /// Nodes whose controllers are being registered with an account that an agent made.
    accounts: Mutex<BTreeSet<NodeId>>,
    /// Sensors of nodes as they are stored, for those that were looked at.
    sensors: Mutex<BTreeMap<NodeId, Arc<Vec<SensorRow>>>>,
    /// Held while the row of a controller is changed.
    bmc_turn: tokio::sync::Mutex<()>,
    /// Held while machines are placed and claimed.
    claims: tokio::sync::Mutex<()>,
    /// Held while network settings are checked and set.
    network_turn: tokio::sync::Mutex<()>,
    /// Pools, flavors, and what machines are in facts.
    shelf: pools::Shelf,
    /// Held while pools and flavors are checked and changed.
    shelf_turn: tokio::sync::Mutex<()>,
    dpus: dpus::Dpus,
    /// Held while what a DPU is to be is made, so that its numbers are in order.
    composing: tokio::sync::Mutex<()>,
    backends: volumes::Backends,
    volume_turns: volumes::Turns,
    /// What DPUs are to have of networks may be another.
    networks_changed: Notify,
    /// Machines that are off and have nobody's disk: they may have the boot volume of this job.
    takes_disk: Mutex<BTreeMap<NodeId, JobId>>,
    /// Servers whose disks are being taken from their machines.
    giving_back: Mutex<BTreeSet<ServerId>>,
    /// Networks of projects.
    overlay: overlay::Overlay,
    /// Switches, and hosts at them.
    fabric: fabric::Fabric,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person or program, by name.
    Operator(String),
    /// The agent in the ramdisk.
    Agent,
    /// The machine's firmware, boot loader or OS.
    Machine,
    /// Billet itself.
    Server,
}

impl Actor {
    /// As it stands in the event list.
    pub fn name(&self) -> &str {
        match self {
            Self::Operator(name) if !name.is_empty() => name,
            Self::Operator(_) => "operator",
            Self::Agent => "agent",
            Self::Machine => "machine",
            Self::Server => "server",
        }
    }
}

/// Something changed; for pages that keep themselves up to date.
#[derive(Debug, Clone)]
pub enum Change {
    /// This node.
    Node(NodeId),
    /// A new line in the event list.
    Event(EventView),
    /// A server of a project.
    Server {
        /// Whose.
        project: ProjectId,
        /// Which.
        server: ServerId,
    },
    /// A volume of a project.
    Volume {
        /// Whose.
        project: ProjectId,
        /// Which.
        volume: VolumeId,
    },
    /// This DPU, what it is to be, or what it says that it is.
    Dpu(DpuId),
    /// The list of images.
    Images,
    /// This ingest went on.
    Ingest(Uuid),
}

/// What is stored together with a step.
#[derive(Default)]
struct Along {
    inventory: Option<Arc<Inventory>>,
    remember: Option<Remembered>,
    instance: Option<InstanceRow>,
    /// The deploy as it was asked for, sealed.
    deploy: Option<String>,
    /// The server on whose behalf it is done, as it is from then on.
    server: Option<Server>,
    /// Further lines.
    lines: Vec<NewEvent>,
}

impl Engine {
    /// An engine over an open store. Nodes are read into memory, and images that the image store has but the list
    /// does not (a crash came between) are listed.
    ///
    /// # Errors
    /// Where a store cannot be read.
    pub async fn open(
        settings: Settings,
        store: Store,
        image_store: ::images::Store,
    ) -> Result<Self, EngineError> {
        let own = settings.ipv4.map(|own| own.address);
        Self::open_with(settings, store, image_store, power::drivers(own)).await
    }

    /// As [`Engine::open`], with other drivers for management controllers.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub async fn open_with(
        settings: Settings,
        store: Store,
        image_store: ::images::Store,
        drivers: power::Drivers,
    ) -> Result<Self, EngineError> {
        let backends = volumes::open(&settings)?;
        Self::open_all(settings, store, image_store, drivers, backends).await
    }

    /// As [`Engine::open`], over other places of volumes than those of the settings.
    #[cfg(test)]
    pub(crate) async fn open_over(
        settings: Settings,
        store: Store,
        image_store: ::images::Store,
        backends: volumes::Backends,
    ) -> Result<Self, EngineError> {
        let own = settings.ipv4.map(|own| own.address);
        Self::open_all(settings, store, image_store, power::drivers(own), backends).await
    }

    async fn open_all(
        settings: Settings,
        store: Store,
        image_store: ::images::Store,
        drivers: power::Drivers,
        backends: volumes::Backends,
    ) -> Result<Self, EngineError> {
        let rows = store.read(queries::nodes).await?;
        let key = settings.secrets_key();
        let vault = tokio::task::spawn_blocking(move || Vault::open(&key)).await??;
        let key = settings.site_key();
        let site_key = tokio::task::spawn_blocking(move || SiteKey::open(&key)).await??;
        let trust = trust::Trust::open(&settings, &store).await?;
        let bmcs = store.read(stored_bmcs).await?.into_iter().map(|row| (row.node, row)).collect();
        let health = health::seed(&store).await?;
        let shelf = pools::Shelf::read(&store).await?;
        let set_up = store.read(|db| Ok((dpu_setup::controllers(db)?, dpu_setup::jobs(db)?))).await?;
        let dpus = dpus::Dpus::read(store.read(stored_dpus).await?, set_up, &vault);
        let overlay = overlay::Overlay::read(&store, settings.overlay.as_ref()).await?;
        let fabric = fabric::Fabric::start(&settings.switches);
        let (tell, news) = bmcs::channel();
        let strangers = strangers::Strangers::new(settings.new_machines);
        let timing = power::Timing {
            poll: settings.bmc.poll,
            health: settings.bmc.health,
            ..power::Timing::default()
        };
        let audited = store.clone();
        let engine = Self(Arc::new(Inner {
            settings,
            store,
            image_store,
            nodes: Registry::new(rows),
            inventories: Mutex::default(),
            summaries: pages::Summaries::default(),
            nodes_generation: AtomicU64::new(1),
            held: AtomicBool::new(false),
            manifests: Mutex::default(),
            sightings: Mutex::default(),
            dhcp_servers: Mutex::default(),
            discoveries: Discoveries::default(),
            strangers: Mutex::new(strangers),
            alarms: Mutex::default(),
            challenges: Mutex::default(),
            changes: broadcast::channel(CHANGES_MAX).0,
            effects: Notify::new(),
            deadlines: Notify::new(),
            approved: Notify::new(),
            pci: pci::Names::default(),
            opened: now(),
            power: Power::new(drivers, timing, tell),
            vault,
            audit: Audit::open(audited),
            site_key,
            trust,
            news: Mutex::new(Some(news)),
            bmcs: Mutex::new(bmcs),
            accounts: Mutex::default(),
            health: Mutex::new(health),
            sensors: Mutex::default(),
            bmc_turn: tokio::sync::Mutex::default(),
            claims: tokio::sync::Mutex::default(),
            network_turn: tokio::sync::Mutex::default(),
            shelf,
            shelf_turn: tokio::sync::Mutex::default(),
            dpus,
            composing: tokio::sync::Mutex::default(),
            backends,
            volume_turns: volumes::Turns::default(),
            networks_changed: Notify::new(),
            takes_disk: Mutex::default(),
            giving_back: Mutex::default(),
            overlay,
            fabric,
        }));
        engine.finish_bundles().await?;
        engine.reconcile_images().await?;
        Ok(engine)
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// None at present; a later store may fail.
    pub async fn nodes(&self) -> Result<Vec<Arc<Node>>, EngineError> {
        Ok(self.0.nodes.page(None, usize::MAX, |_| true))
    }

    /// The node with this id or name.
    ///
    /// # Errors
    /// [`EngineError::NodeNotFound`].
    pub async fn node(&self, reference: &str) -> Result<Node, EngineError> {
        let found = match reference.parse::<NodeId>() {
            Ok(id) => self.0.nodes.get(id),
            Err(_) => self.0.nodes.with_name(reference),
        };
        let short = || reference.chars().take(80).collect();
        found.map(|n| Node::clone(&n)).ok_or_else(|| EngineError::NodeNotFound(short()))
    }

    /// Which node this is, and the version of its row.
    pub fn node_version(&self, reference: &str) -> Option<(NodeId, i64)> {
        let id = match reference.parse::<NodeId>() {
            Ok(id) => id,
            Err(_) => self.0.nodes.with_name(reference)?.id,
        };
        Some((id, self.0.nodes.slot(id)?.row().version))
    }

    /// The name of this node, if there is one.
    pub(crate) fn node_name(&self, id: NodeId) -> Option<String> {
        self.0.nodes.get(id).map(|node| node.name.clone())
    }

    /// Id of the node with this id or name, if there is one.
    pub(crate) fn node_id(&self, reference: &str) -> Option<NodeId> {
        let found = match reference.parse::<NodeId>() {
            Ok(id) => self.0.nodes.get(id),
            Err(_) => self.0.nodes.with_name(reference),
        };
        found.map(|node| node.id)
    }

    /// A digest of a body, for the audit.
    pub(crate) fn digest(&self, octets: &[u8]) -> protocol::Sha256 {
        self.0.vault.digest(octets)
    }

    /// A node's inventory, if it was ever inspected.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn inventory(&self, id: NodeId) -> Result<Option<Arc<Inventory>>, EngineError> {
        if let Some(known) = lock(&self.0.inventories).get(&id) {
            return Ok(known.clone());
        }
        // Most nodes that have none are known for that, and there may be more of them than are kept here.
        if self.hardware(id).await?.is_none() {
            return Ok(None);
        }
        let found = self.0.store.read(move |db| queries::inventory(db, id)).await?.map(Arc::new);
        // An inventory that arrived meanwhile is newer than what was read.
        let mut cache = lock(&self.0.inventories);
        make_room(&mut cache, id);
        Ok(cache.entry(id).or_insert(found).clone())
    }

    fn keep_inventory(&self, id: NodeId, inventory: Option<Arc<Inventory>>) {
        let mut cache = lock(&self.0.inventories);
        make_room(&mut cache, id);
        cache.insert(id, inventory);
    }

    /// The node with all that is known of it. What cannot be read is logged and left out.
    pub async fn detail(&self, node: &Node) -> NodeDetail {
        let inventory = self.readable_inventory(node.id).await;
        let view = self.view_with(node, inventory.as_deref().map(Hardware::of));
        let (id, macs) = (node.id, node.identity.macs.clone());
        let both = move |db: &_| {
            let server = stored_servers::of_node(db, id);
            Ok((lent_addresses(db, &macs), server))
        };
        let (addresses, server) = match self.0.store.read(both).await {
            Ok((addresses, server)) => (logged(id, addresses), logged(id, server)),
            Err(error) => (logged(id, Err(error)), None),
        };
        NodeDetail {
            server: server.flatten().map(LentView::from),
            node: view,
            inventory: inventory.as_deref().cloned(),
            addresses: addresses.unwrap_or_default(),
            findings: self.boot_findings(node),
            bmc: self.bmc(node.id),
            service: servicing::view(node),
            bmc_found: inventory.as_deref().and_then(BmcFound::of),
        }
    }

    /// Addresses lent to the node's ports now, by address.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn addresses(&self, node: &Node) -> Result<Vec<AddressView>, EngineError> {
        let macs = node.identity.macs.clone();
        Ok(self.0.store.read(move |db| lent_addresses(db, &macs)).await?)
    }

    async fn readable_inventory(&self, id: NodeId) -> Option<Arc<Inventory>> {
        self.inventory(id).await.unwrap_or_else(|error| {
            tracing::error!(node = %id, %error, "inventory cannot be read");
            None
        })
    }

    /// Takes an event to a node. When this returns, the outcome is durable.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where it does not fit the node, or what the store says; then nothing has changed.
    pub async fn apply(&self, id: NodeId, actor: Actor, event: Event) -> Result<Node, EngineError> {
        self.apply_along(id, actor, event, Along::default()).await
    }

    async fn apply_along(
        &self,
        id: NodeId,
        actor: Actor,
        event: Event,
        along: Along,
    ) -> Result<Node, EngineError> {
        if let Event::Verb(Verb::Rename { name }) = &event
            && (!is_hostname(name) || name.contains('.'))
        {
            return Err(EngineError::BadName(name.chars().take(80).collect()));
        }
        self.apply_with(id, actor, move |_| event.clone(), along).await
    }

    /// As [`Engine::apply`], for an event that depends on the node as it stands when its turn has come. A step that was
    /// begun is ended also where whoever asked goes away meanwhile: else memory would be behind the database.
    async fn apply_with(
        &self,
        id: NodeId,
        actor: Actor,
        event: impl Fn(&Node) -> Event + Send + 'static,
        along: Along,
    ) -> Result<Node, EngineError> {
        let (engine, expected) = (self.clone(), expected::take(id));
        let turn = async move { engine.take_turn(id, actor, event, (along, expected)).await };
        tokio::spawn(carried(turn)).await?
    }

    async fn take_turn(
        &self,
        id: NodeId,
        actor: Actor,
        event: impl Fn(&Node) -> Event + Send,
        (along, expected): (Along, Option<i64>),
    ) -> Result<Node, EngineError> {
        let slot = self.0.nodes.slot(id).ok_or_else(|| EngineError::NodeNotFound(id.to_string()))?;
        let _turn = slot.turn.lock().await;
        for _ in 0..CONFLICTS_MAX {
            let before = slot.row();
            if expected.is_some_and(|expected| expected != before.version) {
                return Err(EngineError::Precondition);
            }
            let event = event(&before.node);
            if let Event::Verb(verb) = &event
                && approvals::destroys(verb)
            {
                // What the machine refuses is refused before anybody is asked.
                step(&before.node, event.clone(), &self.context(&before.node))?;
                self.check_approved(id)?;
            }
            match self.step(&slot, &actor, event, &along).await {
                Err(EngineError::Store(StoreError::Conflict)) => self.reload(id, &slot).await?,
                other => return other,
            }
        }
        Err(EngineError::Store(StoreError::Conflict))
    }

    /// Reads a node again that somebody else changed.
    async fn reload(&self, id: NodeId, slot: &Slot) -> Result<(), EngineError> {
        let row = self.0.store.read(move |db| queries::node(db, id)).await?;
        self.0.nodes.put(slot, row.ok_or_else(|| EngineError::NodeNotFound(id.to_string()))?);
        Ok(())
    }

    /// What a step of this node may not find out by itself.
    fn context(&self, node: &Node) -> Context {
        let policy = self.0.settings.policy_of(node);
        Context { now: now(), fresh_job: JobId(Uuid::now_v7()), policy }
    }

    /// One step of one node; the caller holds its turn.
    async fn step(
        &self,
        slot: &Slot,
        actor: &Actor,
        event: Event,
        along: &Along,
    ) -> Result<Node, EngineError> {
        let before = slot.row();
        let context = self.context(&before.node);
        let takes_away = along.server.is_none() && servers::takes_away(&event);
        let outcome = step(&before.node, event, &context)?;
        let nothing = outcome.node == *before.node
            && outcome.notes.is_empty()
            && outcome.effects.is_empty()
            && outcome.records.is_empty()
            && along.inventory.is_none()
            && along.remember.is_none()
            && along.server.is_none();
        if nothing {
            return Ok(outcome.node);
        }
        let Outcome { node, effects, notes, records } = outcome;
        let (signed, unsigned) = self.certify(&node, records, context.now).await?;
        let events: Vec<NewEvent> = notes
            .into_iter()
            .map(|note| {
                let Note { kind, severity, message } = note;
                NewEvent::new(context.now, actor.name(), kind, severity, message).on(node.id)
            })
            .chain(along.lines.iter().cloned())
            .chain(unsigned)
            .collect();
        let has_effects = !effects.is_empty();
        let (stored, inventory) = (node.clone(), along.inventory.clone());
        let instance = along.instance.clone();
        let living = Some(node.living()).filter(|living| *living != before.node.living());
        let deploy = along.deploy.clone();
        let (remember, rows, server) = (along.remember.clone(), events.clone(), along.server.clone());
        let ids = self
            .0
            .store
            .write(move |db| {
                queries::update_node(db, &stored, before.version)?;
                // After the node's row is ours: a claim of it is seen, or waits for us and then sees this.
                if takes_away {
                    servers::check_not_lent(db, stored.id)?;
                }
                if let Some(server) = &server {
                    stored_servers::update(db, server, context.now)?;
                }
                if let Some(inventory) = &inventory {
                    queries::put_inventory(db, stored.id, context.now, inventory)?;
                }
                if let Some(it) = &remember {
                    queries::remember(db, it, context.now, deploys::forgotten(context.now))?;
                }
                if let Some(living) = &living {
                    stored_instances::keep(db, stored.id, living)?;
                }
                if let Some(instance) = &instance {
                    stored_instances::insert(db, instance)?;
                }
                if let Some(sealed) = &deploy {
                    last_deploys::put(db, stored.id, context.now, sealed)?;
                }
                for certificate in &signed {
                    certificate.store(db)?;
                }
                for effect in effects {
                    queries::insert_effect(db, stored.id, effect, context.now)?;
                }
                rows.iter().map(|event| queries::insert_event(db, event)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        failpoint::pass(failpoint::Point::StepStored);
        if let Some(inventory) = &along.inventory {
            self.0.summaries.put(node.id, Some(Hardware::of(inventory)));
            self.keep_inventory(node.id, Some(inventory.clone()));
            self.0.shelf.inspected(node.id, inventory);
        }
        self.0.nodes.put(slot, queries::NodeRow { node: node.clone(), version: before.version + 1 });
        if before.node.deadline() != node.deadline() {
            self.0.deadlines.notify_one();
        }
        if has_effects {
            self.0.effects.notify_one();
        }
        self.log_step(&before.node, &node);
        self.announce(Change::Node(node.id));
        for (id, event) in ids.into_iter().zip(events) {
            self.announce_event(id, event);
        }
        Ok(node)
    }

    /// The log line of a change of state, with the numbers that people ask for first.
    fn log_step(&self, before: &Node, after: &Node) {
        use boot_server_core::node::Phase;
        let (from, to) = (before.state.name(), after.state.name());
        if from == to {
            return;
        }
        let at = |phase| after.timeline.at(phase);
        let seconds = |a, b| match (at(a), at(b)) {
            (Some(a), Some(b)) => Some(protocol::Timestamp::since(b, a).as_millis() as f64 / 1000.0),
            _ => None,
        };
        match (from, to) {
            (StateName::Deploying | StateName::Failed, StateName::Active) => tracing::info!(
                node = %after.name,
                seconds = seconds(Phase::Requested, Phase::Done),
                "deploy finished: seconds from the request to phone-home"
            ),
            _ => tracing::info!(node = %after.name, %from, %to, "node changed state"),
        }
    }

    /// Events, newest first (oldest first after a given one).
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, EngineError> {
        let filter = StoredFilter { limit: filter.limit.min(EVENTS_MAX), ..filter };
        Ok(self.0.store.read(move |db| queries::events(db, &filter)).await?)
    }

    /// Adds a line to the event list that changes no node.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn note(
        &self,
        actor: Actor,
        node: Option<NodeId>,
        kind: &str,
        severity: Severity,
        message: impl Into<String>,
    ) -> Result<(), EngineError> {
        self.record(NewEvent { node, ..NewEvent::new(now(), actor.name(), kind, severity, message) }).await
    }

    /// What seals secrets for the database.
    pub(crate) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Adds a line to the event list.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn record(&self, event: NewEvent) -> Result<(), EngineError> {
        let row = event.clone();
        let id = self.0.store.write(move |db| queries::insert_event(db, &row)).await?;
        self.announce_event(id, event);
        Ok(())
    }

    /// Changes from now on. A receiver that lags gets `Lagged` and reads everything anew.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// Tells everybody who listens.
    pub fn announce(&self, change: Change) {
        if matches!(change, Change::Node(_)) {
            self.0.nodes_generation.fetch_add(1, Ordering::AcqRel);
        }
        // No receiver is no error.
        drop(self.0.changes.send(change));
    }

    fn announce_event(&self, id: i64, event: NewEvent) {
        match event.severity {
            Severity::Error | Severity::Warning => {
                tracing::warn!(kind = event.kind, node = ?event.node, "{}", event.message);
            }
            Severity::Info => tracing::info!(kind = event.kind, node = ?event.node, "{}", event.message),
        }
        self.announce(Change::Event(EventView {
            id,
            at: event.at,
            node: event.node,
            node_name: event.node.and_then(|n| self.0.nodes.get(n)).map(|n| n.name.clone()),
            project: event.project,
            actor: event.actor,
            source: event.source,
            kind: event.kind,
            severity: event.severity,
            message: event.message,
        }));
    }

    /// When this server was started.
    pub fn opened(&self) -> protocol::Timestamp {
        self.0.opened
    }

    /// Leases that are lent now.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn lease_count(&self) -> Result<u64, EngineError> {
        let at = now();
        let both = move |db: &_| Ok(queries::lease_count(db, at)? + leases6::count(db, at)?);
        Ok(self.0.store.read(both).await?)
    }

    /// What the server runs with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Resolves when the node changes after this call; for requests that are held open.
    pub(crate) fn watch(&self, id: NodeId) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.0.nodes.slot(id).map(|slot| slot.watch())
    }
}

/// Addresses lent to these ports now, by address.
fn lent_addresses(db: &Connection, macs: &BTreeSet<MacAddr>) -> Result<Vec<AddressView>, StoreError> {
    let at = now();
    let clients: Vec<_> = macs.iter().map(|mac| ClientKey::Mac(*mac)).collect();
    let lent = queries::leases_of(db, &clients)?.into_iter();
    let mut addresses: Vec<_> = lent
        .filter(|lease| lease.state == LeaseState::Bound && lease.expires > at)
        .filter_map(|lease| match lease.client {
            ClientKey::Mac(mac) if macs.contains(&mac) => {
                let (switch, switch_port) = lease.placement.map_or((None, None), |p| (p.remote, p.circuit));
                Some(AddressView {
                    mac,
                    address: lease.ip.into(),
                    expires: lease.expires,
                    switch,
                    switch_port,
                })
            }
            _ => None,
        })
        .collect();
    let clients: Vec<_> = macs.iter().map(|mac| dhcp6::ClientKey::Mac(*mac)).collect();
    let lent = leases6::of(db, &clients)?.into_iter();
    let lent = lent.filter(|lease| lease.state == dhcp6::LeaseState::Bound && lease.expires > at);
    addresses.extend(lent.filter_map(|lease| match lease.client {
        dhcp6::ClientKey::Mac(mac) if macs.contains(&mac) => {
            let (address, expires) = (lease.ip.into(), lease.expires);
            Some(AddressView { mac, address, expires, switch: None, switch_port: None })
        }
        _ => None,
    }));
    addresses.sort_by_key(|a| a.address);
    Ok(addresses)
}

/// What was read; where it cannot be read, that is logged.
fn logged<T>(node: NodeId, read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| tracing::error!(%node, %error, "what is known of a node cannot be read")).ok()
}

/// Where too many inventories are kept, one of another node goes: the next one by id, so that every node's turn comes.
fn make_room(cache: &mut BTreeMap<NodeId, Option<Arc<Inventory>>>, id: NodeId) {
    if cache.len() >= INVENTORIES_MAX && !cache.contains_key(&id) {
        let other = cache.range(id..).next().or_else(|| cache.first_key_value()).map(|(other, _)| *other);
        other.map(|other| cache.remove(&other));
    }
}
