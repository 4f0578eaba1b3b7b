//! What is asked about pools, placement and groups.

use std::collections::BTreeSet;

use boot_server_core::names::{FlavorName, GroupName, PoolName, Tag};
use boot_server_core::placement::{Domain, Policy};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The pool of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePoolRequest {
    /// Which; null: the default one.
    pub pool: Option<PoolName>,
}

/// Tags of a node, in place of those that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeTagsRequest {
    /// All of them.
    pub tags: BTreeSet<Tag>,
}

/// Would this be placed?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementRequest {
    /// For this project, by name or id; if not given, pools that are offered to nobody are looked at as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Machines of this flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<FlavorName>,
    /// This machine, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: usize,
    /// Only from this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Together or apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// In what; in a rack if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Machines that the group has already, by name or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

fn one() -> usize {
    1
}

/// A server group to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// Its name.
    pub name: GroupName,
    /// Together or apart.
    pub policy: Policy,
    /// In what; in a rack if not given.
    #[serde(default)]
    pub domain: Domain,
}

/// Which racks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RackQuery {
    /// Of this room; those without a room if it is empty or not given.
    pub room: Option<String>,
    /// How many, 1 to 1,000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}
