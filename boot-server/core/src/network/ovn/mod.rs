//! What OVN's northbound database is to hold for a site (`ovn-nb(5)`), and by which changes it comes to do so.
//!
//! ```text
//!   Site ── desired ──▶ rows by table and key ┐
//!                                             ├─ diff ──▶ operations of one transaction
//!   database ── follower ──▶ replica ─────────┘
//! ```
//!
//! Each of our rows carries its key under [`OURS`] in `external_ids`. Rows without it are others', and are left alone, also
//! where they hang on ours: of a column that refers to rows, our members alone come and go.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::Datum;

use super::Site;

mod diff;
mod groups;
mod routers;
mod switches;

pub use diff::diff;

/// The name of the database.
pub const DATABASE: &str = "OVN_Northbound";
/// Under this key of `external_ids` our rows have theirs.
pub const OURS: &str = "billet";

/// Tables that we write, in the order in which rows are inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `DHCP_Options`: one per subnet.
    DhcpOptions,
    /// `Mirror`.
    Mirror,
    /// `Logical_Switch_Port`: one per port, per router's interface, per provider network.
    SwitchPort,
    /// `Logical_Switch`: one per network.
    Switch,
    /// `ACL`: one per rule.
    Acl,
    /// `Port_Group`: one per security group, and one for all guarded ports.
    PortGroup,
    /// `Gateway_Chassis`: one per machine that may carry a router's way out.
    GatewayChassis,
    /// `Logical_Router_Port`.
    RouterPort,
    /// `Logical_Router_Static_Route`: the default route of a router with a way out.
    Route,
    /// `NAT`.
    Nat,
    /// `Logical_Router`.
    Router,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::DhcpOptions,
        Self::Mirror,
        Self::SwitchPort,
        Self::Switch,
        Self::Acl,
        Self::PortGroup,
        Self::GatewayChassis,
        Self::RouterPort,
        Self::Route,
        Self::Nat,
        Self::Router,
    ];

    /// In the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::DhcpOptions => "DHCP_Options",
            Self::Mirror => "Mirror",
            Self::SwitchPort => "Logical_Switch_Port",
            Self::Switch => "Logical_Switch",
            Self::Acl => "ACL",
            Self::PortGroup => "Port_Group",
            Self::GatewayChassis => "Gateway_Chassis",
            Self::RouterPort => "Logical_Router_Port",
            Self::Route => "Logical_Router_Static_Route",
            Self::Nat => "NAT",
            Self::Router => "Logical_Router",
        }
    }

    /// False where a row is gone once nothing refers to it, and cannot be removed before (`isRoot` of the schema).
    fn is_root(self) -> bool {
        matches!(self, Self::DhcpOptions | Self::Mirror | Self::Switch | Self::PortGroup | Self::Router)
    }

    /// Columns that we write, beside `external_ids`. Others keep what they have: `dynamic_addresses` and `up` are OVN's.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::DhcpOptions => &["cidr", "options"],
            Self::Mirror => &["name", "filter", "sink", "type", "index"],
            Self::SwitchPort => &[
                "name",
                "type",
                "options",
                "tag",
                "addresses",
                "port_security",
                "dhcpv4_options",
                "dhcpv6_options",
                "mirror_rules",
            ],
            Self::Switch => &["name", "ports"],
            Self::Acl => &["direction", "priority", "match", "action"],
            Self::PortGroup => &["name", "ports", "acls"],
            Self::GatewayChassis => &["name", "chassis_name", "priority"],
            Self::RouterPort => &["name", "mac", "networks", "ipv6_ra_configs", "options", "gateway_chassis"],
            Self::Route => &["ip_prefix", "nexthop"],
            Self::Nat => &["type", "external_ip", "logical_ip"],
            Self::Router => &["name", "ports", "static_routes", "nat"],
        }
    }

    /// Of a map that we share with others, the keys that are ours; `None` where the whole column is. Of a router's port, operators and
    /// OVN's interconnection set options of their own (`redirect-type`, `requested-tnl-key`, `gateway_mtu_bypass`).
    fn keys(self, column: &str) -> Option<&'static [&'static str]> {
        match (self, column) {
            (Self::RouterPort, "options") => Some(&[routers::LARGEST]),
            _ => None,
        }
    }
}

/// A row as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Want {
    /// Columns with values; what is not named of [`Table::columns`] is empty.
    values: BTreeMap<&'static str, Datum>,
    /// Columns that refer to rows of ours, by their keys.
    refs: BTreeMap<&'static str, (Table, BTreeSet<String>)>,
}

impl Want {
    fn with(mut self, column: &'static str, value: impl Into<Datum>) -> Self {
        self.values.insert(column, value.into());
        self
    }

    fn refer(&mut self, column: &'static str, table: Table, key: impl Into<String>) {
        self.refs.entry(column).or_insert((table, BTreeSet::new())).1.insert(key.into());
    }
}

/// Rows by key, by table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    tables: BTreeMap<Table, BTreeMap<String, Want>>,
}

impl Desired {
    fn put(&mut self, table: Table, key: impl Into<String>, row: Want) {
        self.tables.entry(table).or_default().insert(key.into(), row);
    }

    /// A column of a row refers to another row; where the first is not, neither is the reference.
    fn refer(&mut self, (table, key): (Table, &str), column: &'static str, (target, other): (Table, &str)) {
        if let Some(row) = self.tables.get_mut(&table).and_then(|rows| rows.get_mut(key)) {
            row.refer(column, target, other);
        }
    }

    fn rows(&self, table: Table) -> impl Iterator<Item = (&String, &Want)> {
        self.tables.get(&table).into_iter().flatten()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }

    /// True for a site without anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tables and columns that [`diff`] looks at.
pub fn wanted() -> ovsdb::Wanted {
    let columns =
        |table: Table| table.columns().iter().chain(&["external_ids"]).map(|c| (*c).to_owned()).collect();
    Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect()
}

/// The rows of a site in which [`Site::check`] found nothing; what refers to nothing is left out.
pub fn desired(site: &Site) -> Desired {
    let mut rows = Desired::default();
    switches::rows(site, &mut rows);
    groups::rows(site, &mut rows);
    routers::rows(site, &mut rows);
    rows
}
