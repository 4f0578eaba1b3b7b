//! Open vSwitch's own database (`ovs-vswitchd.conf.db(5)`): what of it is ours, and the operations that change it.
//!
//! Ours are rows with [`OURS`] in `external_ids`, on a bridge. Of rows that are not, the agent sets what a chassis
//! is set up by, and nothing else: [`CHASSIS`]'s keys of the one row of `Open_vSwitch`, the MTU of [`BRIDGE`]'s own interface, and
//! our members among the ports of bridges and the mirrors of [`BRIDGE`].

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::{Atom, Datum, Mutation, Mutator, Replica, Row, Wanted};
use protocol::counters::{PortCounters, Traffic};
use protocol::dpu::{Access, Chassis, Datapath, Direction, EncapKind, Mirror, Port, PortSeen};
use uuid::Uuid;

use crate::check::BRIDGE;

mod change;

pub use change::{Change, Gone};

/// The name of the database.
pub const DATABASE: &str = "Open_vSwitch";
/// Under this key of `external_ids` our rows say what they are.
pub const OURS: &str = "billet";
/// Keys of the chassis that are ours.
pub const CHASSIS: [&str; 5] =
    ["system-id", "ovn-remote", "ovn-encap-type", "ovn-encap-ip", "ovn-bridge-datapath-type"];
/// Keys of an interface that are ours.
const INTERFACE: [&str; 3] = [OURS, "attached-mac", IFACE_ID];
/// By this key OVN knows the logical port.
const IFACE_ID: &str = "iface-id";

/// Tables and columns that are looked at.
pub fn wanted() -> Wanted {
    let tables: [(&str, &[&str]); 6] = [
        ("Open_vSwitch", &["bridges", "external_ids"]),
        ("Bridge", &["name", "ports", "mirrors"]),
        ("Port", &["name", "interfaces", "qos", "external_ids"]),
        (
            "Interface",
            &[
                "name",
                "type",
                "options",
                "mtu_request",
                "ingress_policing_rate",
                "ingress_policing_burst",
                "external_ids",
                "ofport",
                "link_state",
                "error",
                "statistics",
            ],
        ),
        ("QoS", &["type", "other_config", "external_ids"]),
        ("Mirror", &["name", "select_src_port", "select_dst_port", "output_port", "external_ids"]),
    ];
    tables
        .into_iter()
        .map(|(table, columns)| (table.to_owned(), columns.iter().map(|c| (*c).to_owned()).collect()))
        .collect()
}

/// A row with its id.
type Found<'a> = (Uuid, &'a Row);

/// The rows, as they hang together.
#[derive(Debug)]
pub struct View<'a> {
    replica: &'a Replica,
    /// The row of `Open_vSwitch`.
    pub root: Option<Found<'a>>,
    /// [`BRIDGE`].
    pub bridge: Option<Found<'a>>,
    bridges: BTreeMap<&'a str, Found<'a>>,
    ports: BTreeMap<&'a str, PortRow<'a>>,
    /// Names of all interfaces.
    interfaces: BTreeSet<&'a str>,
    /// Logical ports that others gave to interfaces, with those.
    others: BTreeMap<&'a str, &'a str>,
}

/// A port of the switch.
#[derive(Debug, Clone, Copy)]
struct PortRow<'a> {
    port: Found<'a>,
    /// Where it has exactly one.
    interface: Option<Found<'a>>,
    /// Name of the bridge that it is on.
    bridge: Option<&'a str>,
    /// It is on a bridge, and it and its interface carry our mark.
    ours: bool,
}

/// A port as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// Name of port and interface.
    pub interface: String,
    /// The bridge that it is on.
    pub bridge: String,
    kind: &'static str,
    options: BTreeMap<&'static str, String>,
    ids: BTreeMap<&'static str, String>,
    mtu: Option<i64>,
    policing: [i64; 2],
    max_rate: Option<u64>,
}

impl Plug {
    /// A host's port.
    pub fn host(port: &Port) -> Self {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            interface: port.interface.to_string(),
            bridge: BRIDGE.to_owned(),
            kind: "",
            options: BTreeMap::new(),
            ids: BTreeMap::from([
                (OURS, "port".to_owned()),
                ("attached-mac", port.mac.to_string()),
                (IFACE_ID, port.port.to_string()),
            ]),
            mtu: port.mtu.map(i64::from),
            policing: port.ingress.map_or([0, 0], |rate| [number(rate.kbps), number(rate.burst_kb)]),
            max_rate: port.egress_kbps.map(|kbps| kbps.saturating_mul(1000)),
        }
    }

    /// A host's port on another network than OVN's.
    pub fn access(access: &Access) -> Self {
        Self {
            interface: access.interface.to_string(),
            bridge: access.bridge.to_string(),
            kind: "",
            options: BTreeMap::new(),
            ids: BTreeMap::from([
                (OURS, "provisioning".to_owned()),
                ("attached-mac", access.mac.to_string()),
            ]),
            mtu: None,
            policing: [0, 0],
            max_rate: None,
        }
    }

    /// Where a mirror's copy leaves.
    pub fn output(mirror: &Mirror) -> Self {
        let options = mirror
            .gre
            .iter()
            .flat_map(|gre| [("remote_ip", gre.remote.to_string()), ("key", gre.key.to_string())]);
        Self {
            interface: mirror.output.to_string(),
            bridge: BRIDGE.to_owned(),
            kind: if mirror.gre.is_some() { "gre" } else { "" },
            options: options.collect(),
            ids: BTreeMap::from([(OURS, "mirror".to_owned())]),
            mtu: None,
            policing: [0, 0],
            max_rate: None,
        }
    }

    /// The logical port.
    pub fn iface_id(&self) -> Option<&str> {
        self.ids.get(IFACE_ID).map(String::as_str)
    }

    /// Columns of the interface that differ from `have`.
    fn columns(&self, have: &Row) -> Row {
        let options = Datum::map(self.options.iter().map(|(k, v)| (*k, v.as_str())));
        let mut row = Row::new();
        let mut put = |column: &str, want: Datum, none: Datum| {
            if have.get(column).unwrap_or(&none) != &want {
                row.insert(column.to_owned(), want);
            }
        };
        put("type", self.kind.into(), "".into());
        put("options", options, Datum::Map(BTreeMap::new()));
        put("ingress_policing_rate", self.policing[0].into(), 0.into());
        put("ingress_policing_burst", self.policing[1].into(), 0.into());
        if let Some(mtu) = self.mtu {
            put("mtu_request", mtu.into(), Datum::empty());
        }
        row
    }

    fn key_changes(&self, have: &Row) -> Vec<Mutation> {
        let want = INTERFACE.map(|key| (key, self.ids.get(key).map(String::as_str)));
        set_keys(have, &want)
    }
}

impl<'a> View<'a> {
    /// Looks at the rows.
    pub fn of(replica: &'a Replica) -> Self {
        let bridges: BTreeMap<&str, Found<'_>> =
            replica.rows("Bridge").map(|(uuid, row)| (text(row, "name"), (uuid, row))).collect();
        let bridge_of: BTreeMap<Uuid, &str> = bridges
            .iter()
            .flat_map(|(name, (_, row))| refs(row, "ports").map(|port| (port, *name)))
            .collect();
        let port = |(uuid, row): Found<'a>| {
            let interfaces: Vec<Uuid> = refs(row, "interfaces").collect();
            let interface = match interfaces[..] {
                [one] => replica.row("Interface", one).map(|row| (one, row)),
                _ => None,
            };
            let bridge = bridge_of.get(&uuid).copied();
            // A bridge's own port carries the mark where the bridge was made here, and is none that comes or goes.
            let ours = bridge.is_some_and(|bridge| bridge != text(row, "name"))
                && mark(row).is_some()
                && interface
                    .is_some_and(|(_, of)| mark(of).is_some() && text(of, "name") == text(row, "name"));
            (text(row, "name"), PortRow { port: (uuid, row), interface, bridge, ours })
        };
        let ports: BTreeMap<&str, PortRow<'_>> = replica.rows("Port").map(port).collect();
        let ours: BTreeSet<Uuid> =
            ports.values().filter(|row| row.ours).filter_map(|row| Some(row.interface?.0)).collect();
        let others = replica.rows("Interface").filter(|(uuid, _)| !ours.contains(uuid));
        let others = others.filter_map(|(_, row)| Some((iface_id(row)?, text(row, "name"))));
        Self {
            replica,
            root: replica.rows("Open_vSwitch").next(),
            bridge: bridges.get(BRIDGE).copied(),
            bridges,
            others: others.collect(),
            ports,
            interfaces: replica.rows("Interface").map(|(_, row)| text(row, "name")).collect(),
        }
    }

    fn ours(&self, interface: &str) -> Option<(Found<'a>, Found<'a>)> {
        let row = self.ports.get(interface).filter(|row| row.ours)?;
        Some((row.port, row.interface?))
    }

    /// Names of our ports.
    pub fn our_ports(&self) -> impl Iterator<Item = &'a str> {
        self.ports.iter().filter(|(_, row)| row.ours).map(|(name, _)| *name)
    }

    /// True where the port is there and ours.
    pub fn has(&self, interface: &str) -> bool {
        self.ours(interface).is_some()
    }

    /// True where somebody else has an interface or a port of this name.
    pub fn is_taken(&self, interface: &str) -> bool {
        !self.has(interface) && (self.ports.contains_key(interface) || self.interfaces.contains(interface))
    }

    /// The bridge that one of our ports is on.
    pub fn bridge_of(&self, interface: &str) -> Option<&'a str> {
        self.ports.get(interface).filter(|row| row.ours)?.bridge
    }

    /// True where there is a bridge of this name.
    pub fn has_bridge(&self, name: &str) -> bool {
        self.bridges.contains_key(name)
    }

    /// The logical port that one of our interfaces has.
    pub fn iface_id(&self, interface: &str) -> Option<&'a str> {
        self.ours(interface).and_then(|(_, (_, row))| iface_id(row))
    }

    /// The interface of somebody else that has this logical port.
    pub fn others_with(&self, port: &str) -> Option<&'a str> {
        self.others.get(port).copied()
    }

    /// True where the port is there as it is to be.
    pub fn is_set(&self, plug: &Plug) -> bool {
        let Some(((_, port), (_, interface))) = self.ours(&plug.interface) else { return false };
        let limits: Vec<Uuid> = refs(port, "qos").collect();
        let limited = match (plug.max_rate, &limits[..]) {
            (None, []) => true,
            (Some(rate), [one]) => self.replica.row("QoS", *one).is_some_and(|row| is_limit(row, rate)),
            _ => false,
        };
        limited
            && self.bridge_of(&plug.interface) == Some(&plug.bridge)
            && mark(port) == plug.ids.get(OURS).map(String::as_str)
            && plug.columns(interface).is_empty()
            && plug.key_changes(interface).is_empty()
    }

    /// True where the chassis is set, and the bridge's MTU.
    pub fn is_chassis_set(&self, chassis: &Chassis) -> bool {
        self.chassis_changes(chassis).is_empty() && self.mtu_change(chassis).is_none()
    }

    /// Our mirrors with their names.
    pub fn our_mirrors(&self) -> impl Iterator<Item = (Uuid, &'a str)> {
        let on_bridge: Vec<Uuid> =
            self.bridge.map(|(_, row)| refs(row, "mirrors").collect()).unwrap_or_default();
        let rows = self.replica.rows("Mirror");
        rows.filter(move |(uuid, row)| on_bridge.contains(uuid) && mark(row).is_some())
            .map(|(uuid, row)| (uuid, text(row, "name")))
    }

    /// Our ports and mirrors, for the report.
    pub fn seen(&self) -> (Vec<PortSeen>, Vec<String>) {
        let ports = self.our_ports().filter_map(|name| {
            let (_, (_, row)) = self.ours(name)?;
            let number = row.get("ofport").and_then(Datum::one).and_then(|atom| match atom {
                Atom::Integer(number) => Some(*number),
                _ => None,
            });
            Some(PortSeen {
                interface: name.to_owned(),
                port: self.iface_id(name).map(str::to_owned),
                bridge: self.bridge_of(name).filter(|bridge| *bridge != BRIDGE).map(str::to_owned),
                // -1 is what vswitchd writes where the interface cannot be opened.
                number: number.filter(|number| *number > 0),
                up: text(row, "link_state") == "up",
                error: Some(text(row, "error").to_owned()).filter(|error| !error.is_empty()),
            })
        });
        (ports.collect(), self.our_mirrors().map(|(_, name)| name.to_owned()).collect())
    }

    /// What our logical ports carried. The switch receives what a host sends.
    pub fn counters(&self) -> Vec<PortCounters> {
        let counted = |name: &str| {
            let (_, (_, row)) = self.ours(name)?;
            let port = self.iface_id(name)?.parse().ok()?;
            let [from_host, to_host] = ["rx", "tx"].map(|way| traffic(row.get("statistics"), way));
            Some(PortCounters { port, from_host, to_host })
        };
        self.our_ports().filter_map(counted).collect()
    }

    /// True where the row of a mirror is as the mirror is to be.
    pub fn is_mirror_set(&self, uuid: Uuid, mirror: &Mirror) -> bool {
        let Some(row) = self.replica.row("Mirror", uuid) else { return false };
        self.mirror_ports(mirror).is_ok_and(|want| {
            want.iter().all(|(column, want)| row.get(*column).unwrap_or(&Datum::empty()) == want)
        })
    }

    /// Our limits that no port has.
    pub fn loose_limits(&self) -> impl Iterator<Item = Uuid> {
        let used: BTreeSet<Uuid> = self.replica.rows("Port").flat_map(|(_, row)| refs(row, "qos")).collect();
        let ours = self.replica.rows("QoS").filter(|(_, row)| mark(row).is_some());
        ours.map(|(uuid, _)| uuid).filter(move |uuid| !used.contains(uuid))
    }

    fn chassis_changes(&self, chassis: &Chassis) -> Vec<Mutation> {
        let Some((_, root)) = self.root else { return Vec::new() };
        let encap = match chassis.encap.kind {
            EncapKind::Geneve => "geneve",
            EncapKind::Vxlan => "vxlan",
        };
        let address = chassis.encap.address.to_string();
        let values = [&chassis.system_id, &chassis.ovn_remote, encap, &address, datapath(chassis.datapath)];
        let want: Vec<_> = CHASSIS.into_iter().zip(values.map(Some)).collect();
        set_keys(root, &want)
    }

    fn mtu_change(&self, chassis: &Chassis) -> Option<(Uuid, Datum)> {
        let want = Datum::from(i64::from(chassis.mtu?));
        let on_bridge: Vec<Uuid> =
            self.bridge.map(|(_, row)| refs(row, "ports").collect()).unwrap_or_default();
        let own = self.ports.get(BRIDGE).filter(|row| on_bridge.contains(&row.port.0))?;
        let (uuid, row) = own.interface?;
        (row.get("mtu_request") != Some(&want)).then_some((uuid, want))
    }

    /// What the columns of a mirror refer to.
    fn mirror_ports(&self, mirror: &Mirror) -> Result<[(&'static str, Datum); 3], Gone> {
        let port = |name: &str| match self.ours(name) {
            Some(((uuid, _), _)) => Ok(Datum::from(uuid)),
            None => Err(Gone(format!("port {name}"))),
        };
        let (source, output) = (port(mirror.source.as_str())?, port(mirror.output.as_str())?);
        let chosen = |not: Direction| if mirror.direction == not { Datum::empty() } else { source.clone() };
        Ok([
            ("select_src_port", chosen(Direction::ToHost)),
            ("select_dst_port", chosen(Direction::FromHost)),
            ("output_port", output),
        ])
    }
}

/// What `statistics` of an interface say of one direction. What a kind of interface does not count is not in them
/// (`ovs-vswitchd.conf.db(5)`).
fn traffic(statistics: Option<&Datum>, way: &str) -> Traffic {
    let number = |what: &str| {
        let found = statistics.and_then(|all| all.integer_at(&format!("{way}_{what}"))).unwrap_or(0);
        u64::try_from(found).unwrap_or(0)
    };
    Traffic {
        bytes: number("bytes"),
        packets: number("packets"),
        dropped: number("dropped"),
        errors: number("errors"),
    }
}

fn is_limit(row: &Row, rate: u64) -> bool {
    let rate = rate.to_string();
    mark(row).is_some()
        && text(row, "type") == "linux-htb"
        && row.get("other_config") == Some(&Datum::map([("max-rate", rate)]))
}

/// What leads to these values under these keys of `external_ids`; `None` is no such key.
fn set_keys(have: &Row, want: &[(&str, Option<&str>)]) -> Vec<Mutation> {
    let ids = have.get("external_ids");
    let changed: Vec<_> =
        want.iter().filter(|(key, value)| ids.and_then(|ids| ids.text_at(key)) != *value).collect();
    let gone: Vec<&str> = changed
        .iter()
        .map(|(key, _)| *key)
        .filter(|key| ids.is_some_and(|ids| ids.text_at(key).is_some()))
        .collect();
    let come: Vec<_> = changed.iter().filter_map(|(key, value)| Some((*key, (*value)?))).collect();
    let mut mutations = Vec::new();
    if !gone.is_empty() {
        mutations.push(mutation("external_ids", Mutator::Delete, Datum::set(gone)));
    }
    if !come.is_empty() {
        mutations.push(mutation("external_ids", Mutator::Insert, Datum::map(come)));
    }
    mutations
}

fn mutation(column: &str, mutator: Mutator, value: Datum) -> Mutation {
    Mutation { column: column.to_owned(), mutator, value }
}

fn datapath(kind: Datapath) -> &'static str {
    match kind {
        Datapath::System => "system",
        Datapath::Netdev => "netdev",
    }
}

/// What a row of ours says that it is.
fn mark(row: &Row) -> Option<&str> {
    row.get("external_ids").and_then(|ids| ids.text_at(OURS))
}

fn iface_id(row: &Row) -> Option<&str> {
    row.get("external_ids").and_then(|ids| ids.text_at(IFACE_ID))
}

fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Datum::text).unwrap_or_default()
}

fn refs<'a>(row: &'a Row, column: &str) -> impl Iterator<Item = Uuid> + use<'a> {
    row.get(column).into_iter().flat_map(Datum::uuids)
}
