//! DPUs: who they are, and what they are told to be.
//!
//! ```text
//!  hello ─▶ accepted? ─▶ state(generation) ──waits──▶ told, as soon as there is a newer one
//!                                    ▲
//!  nodes, servers, volumes, ports ─▶ compose ─▶ another state than the stored one: next generation, stored, then told
//! ```
//!
//! A state is stored before anybody is told of it, with its generation: a server that starts again tells the same.

mod arrive;
mod controller;
mod functions;
mod setup;
mod told;

pub use controller::ControllerChange;
pub use functions::{Functions, Use, User};
pub(in crate::engine) use functions::{NewDisk, no_function};
pub use setup::{DPU_IMAGE_PATH, DpuImage};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::cloud_config::is_hostname;
use boot_server_core::dpu::{Dpu, NotDesired, SILENT_MS};
use boot_server_core::node::Severity;
use boot_server_core::setup::Doubt;
use boot_server_core::volume::{Phase, Volume};
use protocol::dpu::{Datapath, Desired, InterfaceName, Observed, VERSION};
use protocol::functions::{Model, PlanError};
use protocol::{DpuId, JobId, NodeId, Sha256, Timestamp};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::counters::Counted;
use super::{Actor, Change, Engine, EngineError, lock, now};
use crate::secret;
use crate::store::dpu_setup::{ControllerRow, JobRow};
use crate::store::dpus::{self as rows, DpuRow};
use crate::store::queries::{NewEvent, insert_event};
use crate::store::volumes;
use crate::vault::Place;

/// DPUs of one site.
const DPUS_MAX: usize = 20_000;

/// What is wrong with what somebody wants of a DPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DpuError {
    /// No DPU has this id or name.
    #[error("no DPU `{0}`")]
    NotFound(String),
    /// Not a host name.
    #[error("`{0}` is not a name for a DPU")]
    BadName(String),
    /// It speaks another version.
    #[error("the DPU speaks version {theirs}, this server {VERSION}")]
    Version {
        /// The DPU's.
        theirs: u32,
    },
    /// A token that is unknown or was used.
    #[error("the token is not one that waits for a DPU")]
    Token,
    /// A secret that is none.
    #[error("the secret is not 64 hexadecimal digits")]
    Secret,
    /// Nobody knows it.
    #[error("no DPU has this secret, or it is not accepted")]
    Stranger,
    /// Too many.
    #[error("{0}")]
    Many(&'static str),
    /// Another DPU has the node.
    #[error("node {0} has another DPU")]
    NodeTaken(String),
    /// It presents disks or ports.
    #[error("it has {0} disks of a server")]
    Used(usize),
    /// Nobody said which controller is its own.
    #[error("this DPU has no BMC that Billet knows")]
    NoController,
    /// Which machine is its host is not certain.
    #[error("which machine is its host is not certain: {0}")]
    Doubt(#[source] Doubt),
    /// The agent on it and its controller are of two cards.
    #[error("the agent of this DPU has the serial number {agent}, and its BMC {card}: they are of two cards")]
    Serial {
        /// The agent's.
        agent: String,
        /// The controller's.
        card: String,
    },
    /// Its host is in use.
    #[error("{0}: a change of the DPU would take its networks and disks away")]
    HostWorks(String),
    /// A job of it goes on.
    #[error("a job of this DPU goes on ({0})")]
    Busy(String),
    /// No job has this id.
    #[error("this DPU has no job {0}")]
    NoJob(String),
    /// The job is over.
    #[error("the job is over")]
    Over,
    /// No image to go back to.
    #[error("Billet installed no other image on this DPU before the present one")]
    NoImageBefore,
    /// A plan of functions that the model cannot have.
    #[error("the plan of functions: {0}")]
    Plan(#[source] PlanError),
    /// A plan of another model.
    #[error("the plan is of a {}, and the DPU is a {}", planned.as_str(), told.as_str())]
    OtherModel {
        /// As planned.
        planned: Model,
        /// As it is.
        told: Model,
    },
    /// No model has this name.
    #[error("no model of DPUs `{0}`")]
    NoModel(String),
    /// Functions that are in use and are not in the plan.
    #[error("functions would vanish that are in use: {}", .0.join("; "))]
    FunctionsUsed(Vec<String>),
    /// A file that cannot be used.
    #[error("the image `{image}`: {why}")]
    Image {
        /// As it was named.
        image: String,
        /// What is wrong with it.
        why: String,
    },
}

impl DpuError {
    /// Status, code and hint.
    pub(super) fn parts(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NotFound(_) => (404, "dpu-not-found", "list them with `billet dpu list`"),
            Self::BadName(_) => (422, "bad-name", "use letters, digits and -, at most 63 characters"),
            Self::Version { .. } => (422, "version", "use billet-dpu of the server's version"),
            Self::Token => (
                403,
                "dpu-token",
                "register it anew (`billet dpu create`), or leave the token out and accept it",
            ),
            Self::Secret => (422, "dpu-secret", "remove the file `identity` of the DPU's state directory"),
            Self::Stranger => (401, "dpu-stranger", "say hello again"),
            Self::Many(_) => (503, "dpus-full", "remove those that nobody needs (`billet dpu list`)"),
            Self::NodeTaken(_) => (409, "dpu-taken", "take the node from the other DPU first"),
            Self::Used(_) => (
                409,
                "dpu-used",
                "detach them, or delete the server; from a DPU that broke take its host (`billet dpu set NAME --node \"\"`) once it is silent",
            ),
            Self::NoController => (409, "dpu-no-bmc", "give its address and account (`billet dpu set-bmc`)"),
            Self::Doubt(_) => (
                409,
                "dpu-doubt",
                "say which is (`billet dpu set DPU --node NODE`), or inspect the machines anew",
            ),
            Self::Serial { .. } => (409, "dpu-serial", "give the address of this DPU's own BMC"),
            Self::HostWorks(_) => {
                (409, "dpu-host-works", "set the host under maintenance, or switch it off, first")
            }
            Self::Busy(_) => (409, "dpu-busy", "wait for its end, or call it off (`billet dpu cancel`)"),
            Self::NoJob(_) => (404, "dpu-job-not-found", "list them with `billet dpu jobs`"),
            Self::Over => (409, "dpu-job-over", "look at it with `billet dpu jobs`"),
            Self::NoImageBefore => (409, "dpu-no-rollback", "install the image that you want"),
            Self::Plan(_) => {
                (422, "dpu-plan", "plan what the model has (`billet dpu functions models` lists limits)")
            }
            Self::OtherModel { .. } => (422, "dpu-model", "make the plan for the model that the DPU is"),
            Self::NoModel(_) => (404, "dpu-model-not-found", "list them with `billet dpu functions models`"),
            Self::FunctionsUsed(_) => {
                (409, "dpu-functions-used", "detach them first, or keep their functions in the plan")
            }
            Self::Image { .. } => (
                422,
                "dpu-image",
                "put the file into the media directory (boot.media), and compare its digest with what its maker publishes",
            ),
        }
    }
}

/// All DPUs as they are known now.
pub(super) struct Dpus {
    pub(super) all: std::sync::Mutex<BTreeMap<DpuId, Known>>,
    /// Counts states that were made: whoever waits looks again.
    told: watch::Sender<u64>,
    /// Held while states are made and DPUs are changed.
    turn: tokio::sync::Mutex<()>,
    /// Held while a volume is given to a server.
    pub(super) attaching: tokio::sync::Mutex<()>,
    /// Controllers by their DPU.
    controllers: std::sync::Mutex<BTreeMap<DpuId, ControllerRow>>,
    /// Jobs in the order in which they were begun.
    jobs: std::sync::Mutex<BTreeMap<JobId, JobRow>>,
    /// A job was begun.
    begun: Notify,
}

/// A DPU as it is known now.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who it is.
    pub dpu: Dpu,
    /// What it is to be.
    pub desired: Option<Desired>,
    /// What it said that it is.
    pub observed: Option<Observed>,
    /// When it was last heard of, since this server runs.
    pub seen: Option<Timestamp>,
    /// What it said last of what it carried.
    pub counted: Option<Arc<Counted>>,
    /// Why it cannot be told what to be.
    pub problem: Option<NotDesired>,
    /// The next state has a higher number than this.
    floor: u64,
}

impl Known {
    fn new(dpu: Dpu) -> Self {
        Self { dpu, desired: None, observed: None, seen: None, counted: None, problem: None, floor: 0 }
    }

    /// Of what it said the newest state is what counts.
    pub fn generation(&self) -> u64 {
        self.desired.as_ref().map_or(0, |desired| desired.generation)
    }

    /// Nothing was heard of it for so long that it is taken to be gone.
    pub fn is_silent(&self, now: Timestamp, opened: Timestamp) -> bool {
        now.since(self.seen.unwrap_or(opened)) > Duration::from_millis(SILENT_MS)
    }
}

/// What somebody says of a DPU; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct DpuChange {
    /// Its host, by name or id; an empty text takes it away.
    pub node: Option<String>,
    /// Own end of tunnels.
    pub tunnel_address: Option<IpAddr>,
    /// Who forwards packets.
    pub datapath: Option<Datapath>,
    /// The bridge with the provisioning network's wire.
    pub provisioning_bridge: Option<InterfaceName>,
    /// It is the site's.
    pub accept: bool,
}

/// What a DPU may have while it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disks {
    /// Disks of servers, or none.
    Any,
    /// No disk: with another host it would be another server's.
    None,
}

fn place(id: DpuId) -> Place {
    Place { row: id.0, column: "dpus.desired" }
}

impl Dpus {
    /// As stored. A state that cannot be opened is made anew; its number is not lost, because it stands before the seal.
    pub(super) fn read(
        stored: Vec<DpuRow>,
        (controllers, jobs): (Vec<ControllerRow>, Vec<JobRow>),
        vault: &crate::vault::Vault,
    ) -> Self {
        let known = |row: DpuRow| {
            let (number, sealed) =
                row.desired.as_deref().and_then(|text| text.split_once(' ')).unwrap_or_default();
            let opened = vault.unseal(place(row.dpu.id), sealed).ok();
            let desired: Option<Desired> = opened.and_then(|text| serde_json::from_str(&text.0).ok());
            let floor = number.parse().unwrap_or(0);
            (row.dpu.id, Known { desired, observed: row.observed, floor, ..Known::new(row.dpu) })
        };
        let all = stored.into_iter().map(known).collect();
        Self {
            all: std::sync::Mutex::new(all),
            told: watch::channel(0).0,
            turn: tokio::sync::Mutex::default(),
            attaching: tokio::sync::Mutex::default(),
            controllers: std::sync::Mutex::new(controllers.into_iter().map(|row| (row.dpu, row)).collect()),
            jobs: std::sync::Mutex::new(setup::by_id(jobs)),
            begun: Notify::new(),
        }
    }
}

impl Engine {
    /// All DPUs, by name.
    pub fn dpus(&self) -> Vec<Known> {
        let mut all: Vec<Known> = lock(&self.0.dpus.all).values().cloned().collect();
        all.sort_by(|a, b| a.dpu.name.cmp(&b.dpu.name));
        all
    }

    /// Whether the site has any.
    pub(in crate::engine) fn has_dpus(&self) -> bool {
        !lock(&self.0.dpus.all).is_empty()
    }

    /// The DPU with this id or name.
    ///
    /// # Errors
    /// [`DpuError::NotFound`].
    pub fn dpu(&self, reference: &str) -> Result<Known, EngineError> {
        let id = reference.parse::<DpuId>().ok();
        let all = lock(&self.0.dpus.all);
        let found = all.values().find(|known| Some(known.dpu.id) == id || known.dpu.name == reference);
        let short = || DpuError::NotFound(reference.chars().take(80).collect());
        found.cloned().ok_or_else(|| short().into())
    }

    pub(super) fn known_dpu(&self, id: DpuId) -> Option<Known> {
        lock(&self.0.dpus.all).get(&id).cloned()
    }

    /// The accepted DPU of a node.
    pub fn dpu_of(&self, node: NodeId) -> Option<Known> {
        let all = lock(&self.0.dpus.all);
        all.values().find(|known| known.dpu.node == Some(node) && known.dpu.accepted).cloned()
    }

    /// The DPU beside a node, accepted or not.
    pub fn dpu_beside(&self, node: NodeId) -> Option<Known> {
        let all = lock(&self.0.dpus.all);
        all.values().find(|known| known.dpu.node == Some(node)).cloned()
    }

    /// Nothing was heard of it for so long that it is taken to be gone.
    pub fn dpu_is_silent(&self, known: &Known) -> bool {
        known.is_silent(now(), self.0.opened)
    }

    /// Registers a DPU that has not come in yet, and makes the token that it comes in with, once.
    ///
    /// # Errors
    /// [`DpuError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_dpu(
        &self,
        actor: Actor,
        name: String,
        change: DpuChange,
    ) -> Result<(Known, String), EngineError> {
        if !is_hostname(&name) || name.contains('.') {
            return Err(DpuError::BadName(name.chars().take(80).collect()).into());
        }
        let _turn = self.0.dpus.turn.lock().await;
        self.room_for_dpu()?;
        let token = secret::token()?;
        let mut dpu = Dpu::new(DpuId(Uuid::now_v7()), name, actor.name().to_owned(), now());
        dpu.token = Some(secret::hash(&token));
        let dpu = self.changed_dpu(dpu, change).await?;
        let event = line(&actor, &dpu, "dpu.registered", Severity::Info, "registered");
        let known = self.add_dpu(dpu, event).await?;
        Ok((known, token))
    }

    /// Changes what is said of a DPU.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn change_dpu(
        &self,
        actor: Actor,
        reference: &str,
        change: DpuChange,
    ) -> Result<Known, EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let known = self.dpu(reference)?;
        let silent = self.dpu_is_silent(&known);
        let before = known.dpu;
        let accepts = change.accept && !before.accepted;
        let mut next = self.changed_dpu(before.clone(), change).await?;
        if next == before {
            return self.dpu(reference);
        }
        if accepts {
            next = self.with_default_plan(next).await?;
            next.accepted = true;
            next.by = actor.name().to_owned();
        }
        let (kind, what) = if accepts { ("dpu.accepted", "accepted") } else { ("dpu.changed", "changed") };
        let event = line(&actor, &next, kind, Severity::Info, what);
        // Of one that is gone nothing is taken that it still gives.
        let disks = match next.node {
            node if node == before.node => Disks::Any,
            None if silent => Disks::Any,
            _ => Disks::None,
        };
        let next = self.put_dpu_with(next, Some(event), disks).await?;
        self.compose(before.id).await?;
        if next.node != before.node {
            for volume in self.volumes_of_dpu(before.id).await? {
                self.announce_volume(&volume);
            }
        }
        self.dpu(&before.id.to_string())
    }

    async fn changed_dpu(&self, mut dpu: Dpu, change: DpuChange) -> Result<Dpu, EngineError> {
        match change.node.as_deref() {
            None => {}
            Some("") => (dpu.node, dpu.unpaired) = (None, true),
            Some(reference) => {
                let node = self.node(reference).await?;
                let all = lock(&self.0.dpus.all);
                if all.values().any(|other| other.dpu.id != dpu.id && other.dpu.node == Some(node.id)) {
                    return Err(DpuError::NodeTaken(node.name).into());
                }
                (dpu.node, dpu.unpaired) = (Some(node.id), false);
            }
        }
        dpu.tunnel_address = change.tunnel_address.or(dpu.tunnel_address);
        dpu.datapath = change.datapath.unwrap_or(dpu.datapath);
        dpu.provisioning_bridge = change.provisioning_bridge.unwrap_or(dpu.provisioning_bridge);
        dpu.accepted |= change.accept;
        Ok(dpu)
    }

    /// Forgets a DPU that has no disk of a server, nor one that it is to let go of.
    ///
    /// # Errors
    /// [`DpuError::NotFound`], [`DpuError::Used`], or what the store says.
    pub async fn remove_dpu(&self, actor: Actor, reference: &str) -> Result<(), EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        self.check_no_job(dpu.id)?;
        let event = line(&actor, &dpu, "dpu.removed", Severity::Info, "forgotten");
        let (id, row) = (dpu.id, event.clone());
        let write = move |db: &_| {
            // A layer is lost with its DPU; one that is to go anyway is no loss.
            let keeps = |volume: &Volume| volume.phase != Phase::Deleting && volume.holder() != Some(id);
            let layers = volumes::on_dpu(db, id)?.into_iter().filter(keeps).count();
            let used = volumes::held(db, id)? + layers;
            if used > 0 {
                return Ok(Err(used));
            }
            rows::remove(db, id)?;
            insert_event(db, &row).map(Ok)
        };
        match self.store().write(write).await? {
            Ok(number) => {
                lock(&self.0.dpus.all).remove(&id);
                self.dpu_controller_gone(id);
                lock(&self.0.dpus.jobs).retain(|_, row| row.job.dpu != id);
                self.announce_event(number, event);
                self.announce(Change::Dpu(id));
                Ok(())
            }
            Err(used) => Err(DpuError::Used(used).into()),
        }
    }

    fn room_for_dpu(&self) -> Result<(), DpuError> {
        let full = lock(&self.0.dpus.all).len() >= DPUS_MAX;
        if full { Err(DpuError::Many("the site has as many DPUs as it may have")) } else { Ok(()) }
    }

    fn dpu_with_secret(&self, secret: Sha256) -> Option<Known> {
        let all = lock(&self.0.dpus.all);
        all.values().find(|known| known.dpu.secret.is_some_and(|have| secret::same(&have, &secret))).cloned()
    }

    fn saw_dpu(&self, id: DpuId) {
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&id) {
            known.seen = Some(now());
        }
    }

    async fn add_dpu(&self, dpu: Dpu, event: NewEvent) -> Result<Known, EngineError> {
        let (row, line) = (dpu.clone(), event.clone());
        let write = move |db: &_| {
            rows::insert(db, &row)?;
            insert_event(db, &line)
        };
        let number = self.store().write(write).await?;
        let known = Known::new(dpu);
        let id = known.dpu.id;
        lock(&self.0.dpus.all).insert(id, known.clone());
        self.announce_event(number, event);
        self.announce(Change::Dpu(id));
        Ok(known)
    }

    /// Stores a DPU's next version.
    async fn put_dpu(&self, dpu: Dpu, event: Option<NewEvent>) -> Result<Dpu, EngineError> {
        self.put_dpu_with(dpu, event, Disks::Any).await
    }

    async fn put_dpu_with(
        &self,
        mut dpu: Dpu,
        event: Option<NewEvent>,
        disks: Disks,
    ) -> Result<Dpu, EngineError> {
        dpu.version += 1;
        let (row, line) = (dpu.clone(), event.clone());
        let write = move |db: &_| {
            let used = if disks == Disks::None { volumes::held(db, row.id)? } else { 0 };
            if used > 0 {
                return Ok(Err(used));
            }
            rows::update(db, &row)?;
            line.map(|line| insert_event(db, &line)).transpose().map(Ok)
        };
        let number = self.store().write(write).await?.map_err(DpuError::Used)?;
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&dpu.id) {
            known.dpu = dpu.clone();
        }
        if let (Some(number), Some(event)) = (number, event) {
            self.announce_event(number, event);
        }
        self.announce(Change::Dpu(dpu.id));
        Ok(dpu)
    }
}

fn line(actor: &Actor, dpu: &Dpu, kind: &str, severity: Severity, what: &str) -> NewEvent {
    let event = NewEvent::new(now(), actor.name(), kind, severity, format!("DPU {}: {what}", dpu.name));
    match dpu.node {
        Some(node) => event.on(node),
        None => event,
    }
}
