//! Pools, flavors, placement and racks, as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bmc::PowerState;
use boot_server_core::bmc::health::Level;
use boot_server_core::flavor::{Billed, Flavor};
use boot_server_core::names::{FlavorName, GroupName, PoolName};
use boot_server_core::node::{Place, StateName};
use boot_server_core::placement::{Domain, Policy, Rejected};
use boot_server_core::pool::Pool;
use images::Datasource;
use protocol::{GroupId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::groups::GroupRow;
use crate::store::pools::Kept;

use super::ImageView;

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// As it was made.
    #[serde(flatten)]
    pub pool: Pool,
    /// Machines in it.
    pub nodes: u64,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// A flavor, with how many machines there are of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlavorView {
    /// As it was made.
    #[serde(flatten)]
    pub flavor: Flavor,
    /// What counts against a quota: what was given, or what the rules ask for at least.
    pub counts: Billed,
    /// Machines of this flavor.
    pub capacity: Capacity,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// Machines of a flavor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capacity {
    /// The flavor.
    pub flavor: FlavorName,
    /// Machines that could be given now.
    pub free: u64,
    /// Machines of this kind that servers have, of whatever flavor they were asked as.
    pub used: u64,
    /// All machines of this kind. What is neither free nor used is not available: under maintenance, not cleaned, unwell.
    pub total: u64,
    /// The same by pool.
    pub pools: Vec<PoolCapacity>,
}

/// Machines of a flavor in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolCapacity {
    /// The pool.
    pub pool: PoolName,
    /// Machines that could be given now.
    pub free: u64,
    /// Machines that servers have.
    pub used: u64,
    /// All.
    pub total: u64,
}

impl PoolCapacity {
    /// None at all.
    pub fn new(pool: &PoolName) -> Self {
        Self { pool: pool.clone(), free: 0, used: 0, total: 0 }
    }
}

/// Whether a request would be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementView {
    /// It would.
    pub placed: bool,
    /// The machines that it would get.
    pub nodes: Vec<PlacedView>,
    /// Machines that were looked at.
    pub candidates: u64,
    /// Machines that would have done as well.
    pub spare: u64,
    /// How many machines were rejected for each kind of reason; one can have several.
    pub reasons: BTreeMap<String, u64>,
    /// Machines that were rejected, by name, with all their reasons.
    pub rejected: Vec<Rejected>,
    /// Rejected machines that are not in the list, because it is long.
    pub omitted: u64,
}

/// A machine that a request would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacedView {
    /// The machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// Where it stands.
    pub place: Option<Place>,
}

/// What a project can ask for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CatalogueView {
    /// Kinds of machines.
    pub flavors: Vec<OfferView>,
    /// Operating systems.
    pub images: Vec<OfferedImage>,
}

/// A kind of machine that a project can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    /// Its name.
    pub name: FlavorName,
    /// For people.
    pub description: String,
    /// What counts against the quota.
    pub counts: Billed,
    /// Machines of it in pools that are offered to the project.
    pub capacity: Capacity,
}

/// An image that a project can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferedImage {
    /// Names it for ever.
    pub id: protocol::ImageId,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// `bios`, `uefi`.
    pub firmware: Vec<String>,
    /// Smallest disk in bytes.
    pub minimum_disk: u64,
    /// Default user.
    pub default_user: Option<String>,
    /// How the OS in it is told who it is.
    pub datasource: Datasource,
}

impl From<ImageView> for OfferedImage {
    fn from(image: ImageView) -> Self {
        Self {
            id: image.id,
            name: image.name,
            version: image.version,
            architecture: image.architecture,
            firmware: image.firmware,
            minimum_disk: image.minimum_disk,
            default_user: image.default_user,
            datasource: image.datasource,
        }
    }
}

/// Servers of a project that are to be together or apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Names it for ever.
    pub id: GroupId,
    /// Names it for people.
    pub name: GroupName,
    /// Together or apart.
    pub policy: Policy,
    /// In what.
    pub domain: Domain,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

impl From<GroupRow> for GroupView {
    fn from(row: GroupRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            policy: row.policy,
            domain: row.domain,
            created_by: row.actor,
            created: row.created,
        }
    }
}

/// Rooms with their racks, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomView {
    /// Its name; null: racks of which nobody said in which room they stand.
    pub room: Option<String>,
    /// Racks in it.
    pub racks: u64,
    /// Machines in it.
    pub nodes: u64,
    /// Machines in it that need somebody: failed, or not well.
    pub trouble: u64,
}

/// A rack, from above to below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RackView {
    /// The room that it stands in.
    pub room: Option<String>,
    /// Its name.
    pub rack: String,
    /// Units that it has at least: as high as its highest machine, and no less than 42.
    pub units: u8,
    /// Its machines, from above to below; those of which nobody said in which unit they are, last.
    pub nodes: Vec<RackedView>,
}

/// A machine in a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RackedView {
    /// The machine.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The lowest unit that it takes.
    pub unit: Option<u8>,
    /// How many units it takes.
    pub height: u8,
    /// The power feed that it fails with.
    pub power_feed: Option<String>,
    /// Its pool.
    pub pool: PoolName,
    /// Where it stands in its life.
    pub state: StateName,
    /// Power as it was last read.
    pub power: Option<PowerState>,
    /// How well it is.
    pub health: Option<Level>,
    /// It is under maintenance.
    pub maintenance: bool,
    /// A server has it.
    pub lent: bool,
    /// Another machine is said to be in a unit that it takes.
    pub overlaps: bool,
}

impl PoolView {
    /// The pool as it is kept.
    pub fn of(kept: Kept<Arc<Pool>>, nodes: u64) -> Self {
        Self { pool: Pool::clone(&kept.value), nodes, changed: kept.changed }
    }
}

impl FlavorView {
    /// The flavor as it is kept.
    pub fn of(kept: Kept<Arc<Flavor>>, capacity: Option<Capacity>) -> Self {
        let flavor = Flavor::clone(&kept.value);
        let none = || Capacity { flavor: flavor.name.clone(), free: 0, used: 0, total: 0, pools: Vec::new() };
        Self {
            counts: flavor.billed(),
            capacity: capacity.unwrap_or_else(none),
            changed: kept.changed,
            flavor,
        }
    }
}
