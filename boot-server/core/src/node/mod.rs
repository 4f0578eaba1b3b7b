//! A node: one physical machine and its life.
//!
//! ```text
//!             manage            inspect                 provide
//!   enroll ──────────▶ manageable ◀──▶ inspecting   ──────────────▶ cleaning ──▶ available
//!     ▲  first packet of an unknown machine                             ▲             │ deploy
//!     │                                                        deleted  │             ▼
//!   discovery                                             deleting ◀────┴── active ◀── deploying
//!                                                                           │  ▲
//!                                                                           ├──┼── rebuild -> deploying
//!                                                                           └──┴── service -> servicing (also from
//!                                                                                  manageable and available)
//!   any ──▶ failed{during, fault}: retry, deploy, provide or manage
//! ```
//!
//! [`step`](step::step) is the one place where a node changes. What carries effects out, and where nodes are kept, is
//! the shell's business.

pub mod boot;
pub mod cable;
pub mod care;
pub mod event;
pub mod identity;
pub mod medium;
pub mod network;
pub mod place;
pub mod service;
pub mod state;
pub mod step;
pub mod timeline;
pub mod trust;

mod agent;
mod deadline;
mod erase;
mod machine;
mod orders;
mod people;
mod power;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use protocol::job::Task;
use protocol::{ImageId, MacAddr, NodeId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use crate::names::{PoolName, Tag};
use crate::refresh::{Milestone, Papers};

pub use boot::{Boot, BootKind, BootOrder, Repeat, Usual, pending_order, required_boot};
pub use cable::Cable;
pub use care::{Accepted, Quarantine, Retired};
pub use event::{
    Cleaning, Context, Effect, Erased, Event, Note, Outcome, Policy, PowerNews, PrepareNews, Refused,
    Severity,
};
pub use identity::{Claim, Identity, Match};
pub use medium::Medium;
pub use network::{HostAddress, NetworkError, StaticNetwork};
pub use people::check_forget;
pub use place::Place;
pub use service::{ItemStatus, Service, ServiceNews, ServiceOrder, ServiceStage};
pub use state::{Failure, OnVolume, PowerStage, PowerStory, Run, RunStage, State, StateName};
pub use step::step;
pub use timeline::{Phase, Timeline};
pub use trust::{Approved, Delivery, EventLog, Lack, Level, Measured, Needs, PinnedTpm, Quoted, Trust};

use crate::metadata::hostkey::HostKey;

/// A physical machine as the server remembers it. The inventory is kept beside it, not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Names it for ever.
    pub id: NodeId,
    /// Names it for people; unique; a host name (RFC 1123).
    pub name: String,
    /// What it answers to.
    pub identity: Identity,
    /// When it was first seen.
    pub created: Timestamp,
    /// Rack and unit, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The pool that somebody put it into; `None`: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What people say of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// Where it stands in its life.
    pub state: State,
    /// Set while somebody works on it: it is not offered for deployment.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
    /// The model of which somebody said that it is; else maker and product tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Set while it is not as its model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// Differences that somebody accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// Set once it is on its way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retired>,
    /// Day of purchase, end of warranty.
    #[serde(default)]
    pub papers: Papers,
    /// Milestones of its age of which somebody was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Milestone>,
    /// Set from the moment at which a machine is to be erased between tenants until that was done: it is not offered meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Dirty>,
    /// The agent's credentials of this boot.
    #[serde(default)]
    pub link: AgentLink,
    /// Counts boots of the agent; a nonce is bound to the epoch it was made in.
    #[serde(default)]
    pub epoch: u64,
    /// What somebody ordered it to boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootOrder>,
    /// The OS on it, as far as Billet put it there.
    #[serde(default)]
    pub installed: Option<Installed>,
    /// How its firmware last booted from the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netboot: Option<Netboot>,
    /// Its network settings, where it gets none by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<StaticNetwork>,
    /// Where the cables of its NICs end, as somebody said; else LLDP tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cables: BTreeMap<MacAddr, Cable>,
    /// The boot image in its virtual drive, until it is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// Its TPM, by somebody's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<PinnedTpm>,
    /// What its model says of what it measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// What its job waits for, because the agent has not proven enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lack>,
    /// Phases of the newest piece of work.
    #[serde(default)]
    pub timeline: Timeline,
}

/// How firmware comes to what it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Netboot {
    /// PXE: the boot loader comes by TFTP.
    Pxe,
    /// UEFI HTTP boot.
    Http,
    /// Not at all: from an image in the virtual drive of its management controller.
    Media,
}

/// Why a node is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// In somebody's words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// It ends by itself then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a machine owes before somebody else gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dirty {
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub why: String,
}

/// What proves that a request comes from the agent that this server booted on this node. Only hashes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentLink {
    /// The nonce of the newest boot script, until it is used.
    #[serde(default)]
    pub nonce: Option<Nonce>,
    /// The session that a used nonce became.
    #[serde(default)]
    pub session: Option<Session>,
}

/// A one-time nonce (DESIGN section 6, level T1): single use, ten minutes, one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    /// SHA-256 of its text.
    pub sha256: Sha256,
    /// When it was made.
    pub issued: Timestamp,
    /// The epoch it is bound to.
    pub epoch: u64,
    /// How it came to the machine.
    #[serde(default)]
    pub by: Delivery,
    /// The machine that it was made for, as it told of itself or as it is known.
    #[serde(default)]
    pub made_for: Claim,
}

/// A session of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of its token.
    pub sha256: Sha256,
    /// Since when.
    pub since: Timestamp,
    /// Version of the agent program.
    pub agent_version: String,
    /// The nonce it came from.
    #[serde(default)]
    pub nonce: Option<Sha256>,
    /// The agent did something with it.
    #[serde(default)]
    pub used: bool,
    /// How the nonce came to the machine.
    #[serde(default)]
    pub delivered: Delivery,
    /// The machine that the nonce was made for.
    #[serde(default)]
    pub made_for: Claim,
    /// An operator vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// What its TPM signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<Quoted>,
}

/// The OS that Billet put on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The image.
    pub image: ImageId,
    /// Its name and version.
    pub image_name: String,
    /// Host name it was given.
    pub hostname: String,
    /// The disk it is on.
    pub disk: protocol::DiskId,
    /// When it phoned home.
    pub since: Timestamp,
    /// SHA-256 of the token it phoned home with, so that a second call is known as such.
    #[serde(default)]
    pub phone_home: Option<Sha256>,
    /// Its SSH host keys, as it told them when it phoned home.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
}

impl Node {
    /// A machine that nobody announced: its first boot request makes it.
    pub fn discovered(id: NodeId, name: String, identity: Identity, now: Timestamp) -> Self {
        Self {
            id,
            name,
            identity,
            created: now,
            place: None,
            pool: None,
            tags: BTreeSet::new(),
            state: State::Enroll,
            maintenance: None,
            model: None,
            quarantine: None,
            accepted: Vec::new(),
            retired: None,
            papers: Papers::default(),
            told: Vec::new(),
            dirty: None,
            link: AgentLink::default(),
            epoch: 0,
            boot: None,
            installed: None,
            netboot: None,
            network: None,
            cables: BTreeMap::new(),
            medium: None,
            tpm: None,
            measured: None,
            lacks: None,
            timeline: Timeline::default(),
        }
    }

    /// The pool that it is in.
    pub fn pool(&self) -> PoolName {
        self.pool.clone().unwrap_or_else(PoolName::default_pool)
    }

    /// Hashes of the phone-home tokens of the OSes that may run on it: they name whose metadata is still good.
    pub fn living(&self) -> Vec<Sha256> {
        let run = match &self.state {
            State::Deploying(run) => Some(run),
            State::Failed(failure) => failure.run.as_deref(),
            State::Active | State::Servicing(_) => None,
            State::Enroll
            | State::Inspecting(_)
            | State::Manageable
            | State::Cleaning(_)
            | State::Available
            | State::Deleting(_) => return Vec::new(),
        };
        let installed = self.installed.as_ref().and_then(|os| os.phone_home);
        run.and_then(|run| run.phone_home).into_iter().chain(installed).collect()
    }

    /// The volume that this machine runs from: the one that it was switched on with for its first boot, else that of the OS on it.
    pub fn runs_from(&self) -> Option<protocol::VolumeId> {
        let run = match &self.state {
            State::Failed(failure) => failure.run.as_deref(),
            state => state.run(),
        };
        match run.filter(|run| run.stage == RunStage::FirstBoot).map(|run| &run.job.task) {
            Some(Task::Deploy(spec)) => spec.target.id.volume(),
            _ => self.installed.as_ref().and_then(|os| os.disk.volume()),
        }
    }

    /// The disks with the OS that Billet put there, or was putting there: a rebuild may have gone to another disk than
    /// the OS before it, and a machine that is given back must keep neither.
    pub fn os_disks(&self) -> Vec<protocol::DiskId> {
        let target = match &self.state {
            State::Failed(Failure { run: Some(run), .. }) => match &run.job.task {
                Task::Deploy(spec) => Some(&spec.target.id),
                Task::Inspect | Task::Clean { .. } => None,
            },
            _ => None,
        };
        let installed = self.installed.as_ref().map(|os| &os.disk).filter(|disk| target != Some(*disk));
        target.into_iter().chain(installed).cloned().collect()
    }
}
