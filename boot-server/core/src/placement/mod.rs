//! Which machines a request gets: one pure function from what is asked and what there is to the machines, or to the reasons
//! why each machine is not one of them.
//!
//! ```text
//! candidates ─▶ fit at all? (pool, state, health, flavor, group's members) ─▶ by cost, then name ─▶ the group's policy ─▶ nodes
//!                        └──────────────────────── reasons, in words ◀─────────────────────────┘
//! ```
//!
//! A batch is placed as a whole or not at all. A group has one policy over one kind of domain, so that taking the cheapest
//! machine that the policy still allows, again and again, is exact: what it takes costs least (a partition matroid), and
//! where it finds none there is none. No search, no bound on it, no luck. Whoever stores a claim does so in the transaction
//! in which it looked: nothing here holds a machine.

mod choose;
mod fit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use protocol::{NodeId, ProjectId};
use serde::{Deserialize, Serialize};

use crate::bmc::health::Level;
use crate::flavor::Flavor;
use crate::hardware::Hardware;
use crate::names::PoolName;
use crate::node::{Place, StateName};
use crate::pool::Pool;

/// Machines that one request may ask for.
pub const COUNT_MAX: usize = 1000;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// For whom.
    pub by: By,
    /// What kind of machine, or which.
    pub wanted: Wanted,
    /// How many.
    pub count: usize,
    /// Of this pool only; of all that are offered if not given.
    pub pool: Option<PoolName>,
    /// With whom they are to be together or apart.
    pub group: Option<Group>,
}

/// For whom machines are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// For this project: only from pools that are offered to it.
    Project(ProjectId),
    /// For those who run the site: from every pool.
    Site,
}

/// What kind of machine, or which.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// One of this kind.
    Flavor(Arc<Flavor>),
    /// This one.
    Node(NodeId),
}

/// Servers that are to be together or apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub policy: Policy,
    /// In what.
    pub domain: Domain,
    /// Where its servers are now.
    pub members: Vec<Member>,
}

/// A machine of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The machine.
    pub node: NodeId,
    /// Where it stands.
    pub place: Option<Place>,
}

/// Together or apart; the soft ones as far as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// No two in one domain.
    AntiAffinity,
    /// All in one domain.
    Affinity,
    /// Spread as evenly as it goes.
    SoftAntiAffinity,
    /// In as few domains as it goes.
    SoftAffinity,
}

/// In what machines are together or apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// A machine of its own; every server has that.
    Node,
    /// A rack. Racks of one name in two rooms are two.
    #[default]
    Rack,
    /// A power feed. Feeds of one name in two rooms are two.
    PowerFeed,
    /// A room.
    Room,
}

/// A machine that might be given.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: Arc<Pool>,
    /// Where it stands in its life.
    pub state: StateName,
    /// Why it is under maintenance.
    pub maintenance: Option<String>,
    /// Why it is quarantined.
    pub quarantined: Option<String>,
    /// Why it is to be given to nobody any more.
    pub retired: Option<String>,
    /// How well it is, where that is known.
    pub health: Option<Level>,
    /// A server has it.
    pub claimed: bool,
    /// Where it stands.
    pub place: Option<Place>,
    /// What it is, once it was inspected.
    pub hardware: Option<Arc<Hardware>>,
}

/// A machine that is not given, and all the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejected {
    /// The machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Why a machine is not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Its kind.
    pub code: ReasonCode,
    /// In words.
    pub words: String,
}

/// Kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Another machine was asked for by name.
    NotAsked,
    /// Its pool is not offered to the project, or not the one that was asked for.
    Pool,
    /// A server has it.
    Claimed,
    /// It is not available.
    State,
    /// It is under maintenance.
    Maintenance,
    /// It is not as it was expected.
    Quarantine,
    /// It is given to nobody any more.
    Retired,
    /// Its health is critical.
    Health,
    /// It is not of the flavor.
    Flavor,
    /// It is not where the group wants its servers.
    Group,
    /// It fits, and there are too few like it.
    TooFew,
}

impl ReasonCode {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Pool => "pool",
            Self::Claimed => "claimed",
            Self::State => "state",
            Self::Maintenance => "maintenance",
            Self::Quarantine => "quarantine",
            Self::Retired => "retired",
            Self::Health => "health",
            Self::Flavor => "flavor",
            Self::Group => "group",
            Self::TooFew => "too_few",
        }
    }
}

impl Policy {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AntiAffinity => "anti-affinity",
            Self::Affinity => "affinity",
            Self::SoftAntiAffinity => "soft-anti-affinity",
            Self::SoftAffinity => "soft-affinity",
        }
    }

    /// True where no machine is better than one against it.
    pub fn is_hard(self) -> bool {
        matches!(self, Self::AntiAffinity | Self::Affinity)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Domain {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Rack => "rack",
            Self::PowerFeed => "power_feed",
            Self::Room => "room",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Node => "machine",
            Self::Rack => "rack",
            Self::PowerFeed => "power feed",
            Self::Room => "room",
        }
    }

    /// The domain that a machine is in, where that is known.
    fn of(self, node: NodeId, place: Option<&Place>) -> Option<Key<'_>> {
        let room = place.and_then(|place| place.room.as_ref()).map(|room| room.as_str());
        match self {
            Self::Node => Some(Key::Node(node)),
            Self::Rack => place.map(|place| Key::Named(room, place.rack.as_str())),
            Self::PowerFeed => place?.power_feed.as_ref().map(|feed| Key::Named(room, feed.as_str())),
            Self::Room => room.map(|room| Key::Named(None, room)),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one domain: by room, where there is one, and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Node(NodeId),
    Named(Option<&'a str>, &'a str),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{node}"),
            Self::Named(None, name) => f.write_str(name),
            Self::Named(Some(room), name) => write!(f, "{name} in {room}"),
        }
    }
}

/// The machines that a request gets, in the order in which they were chosen: `count` of them, or none, and then why each
/// candidate is not given. The same question has the same answer, in whatever order candidates come.
///
/// # Errors
/// Every candidate with its reasons, by name.
pub fn place(request: &Request, candidates: &[Candidate]) -> Result<Vec<NodeId>, Vec<Rejected>> {
    let fits = fit::fits(request, candidates);
    match choose::choose(request, &fits) {
        Some(chosen) => Ok(chosen),
        None => Err(fit::rejected(request, candidates, &fits)),
    }
}

/// Why a candidate does not fit, looked at alone; nothing where it does.
pub fn reasons(request: &Request, candidate: &Candidate) -> Vec<Reason> {
    fit::reasons(request, candidate)
}

/// Whether a candidate fits, looked at alone: the same as that it has no [`reasons`].
pub fn fits(request: &Request, candidate: &Candidate) -> bool {
    fit::is_fit(request, candidate)
}

/// Every candidate that is not among `chosen`, with its reasons; for those who want to know also where a request is placed.
/// One that would have done as well has none.
pub fn others(request: &Request, candidates: &[Candidate], chosen: &[NodeId]) -> Vec<Rejected> {
    fit::others(request, candidates, chosen)
}
