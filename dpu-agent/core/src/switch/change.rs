//! The changes of the switch, each as the operations of one transaction.

use std::collections::BTreeSet;

use ovsdb::{Atom, Condition, Datum, Mutation, Mutator, Operation, Replica, Row};
use protocol::dpu::{Chassis, Datapath, Mirror};
use uuid::Uuid;

use super::{IFACE_ID, OURS, Plug, View, datapath, is_limit, mark, mutation, refs, set_keys};
use crate::check::BRIDGE;

/// One change of the switch; each is one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes the integration bridge.
    AddBridge(Datapath),
    /// Sets the chassis' keys and the bridge's MTU.
    SetChassis(Chassis),
    /// Takes a mirror away.
    RemoveMirror(Uuid),
    /// Takes a port away, with its limits.
    RemovePort(String),
    /// Takes a logical port's id from an interface, because another interface gets it.
    Unbind(String),
    /// Takes limits away that nothing refers to.
    RemoveLimits(Uuid),
    /// Plugs an interface in.
    AddPort(Plug),
    /// Changes a port that is there.
    SetPort(Plug),
    /// Makes a mirror.
    AddMirror(Mirror),
}

/// The rows are not any more what the change was made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not there any more, or not Billet's")]
pub struct Gone(pub(super) String);

impl Change {
    /// The operations of its transaction, on the rows as they are.
    ///
    /// # Errors
    /// [`Gone`]: a new plan is needed.
    pub fn operations(&self, replica: &Replica) -> Result<Vec<Operation>, Gone> {
        let view = View::of(replica);
        match self {
            Self::AddBridge(kind) => add_bridge(&view, *kind),
            Self::SetChassis(chassis) => Ok(set_chassis(&view, chassis)),
            Self::RemoveMirror(uuid) => {
                Ok(vec![members(&view, BRIDGE, "mirrors", Mutator::Delete, Atom::Uuid(*uuid))?])
            }
            Self::RemovePort(name) => remove_port(&view, name),
            Self::Unbind(name) => {
                let (_, (uuid, _)) = view.ours(name).ok_or_else(|| Gone(format!("port {name}")))?;
                Ok(vec![mutate(
                    "Interface",
                    uuid,
                    vec![mutation("external_ids", Mutator::Delete, Datum::set([IFACE_ID]))],
                )])
            }
            Self::RemoveLimits(uuid) => Ok(vec![delete_limit(*uuid)]),
            Self::AddPort(plug) => add_port(&view, plug),
            Self::SetPort(plug) => set_port(&view, plug),
            Self::AddMirror(mirror) => add_mirror(&view, mirror),
        }
    }
}

fn add_bridge(view: &View<'_>, kind: Datapath) -> Result<Vec<Operation>, Gone> {
    let (root, _) = view.root.ok_or_else(|| Gone("the row of Open_vSwitch".to_owned()))?;
    let ids = || ("external_ids", Datum::map([(OURS, "bridge")]));
    let bridge = [
        ("name", BRIDGE.into()),
        ("ports", named("port")),
        ("datapath_type", datapath(kind).into()),
        // Without OVN's flows nothing passes; with another mode the bridge would be a switch for all tenants.
        ("fail_mode", "secure".into()),
        ids(),
    ];
    Ok(vec![
        insert("Interface", "interface", [("name", BRIDGE.into()), ("type", "internal".into()), ids()]),
        insert("Port", "port", [("name", BRIDGE.into()), ("interfaces", named("interface")), ids()]),
        insert("Bridge", "bridge", bridge),
        mutate("Open_vSwitch", root, vec![mutation("bridges", Mutator::Insert, named("bridge"))]),
    ])
}

fn set_chassis(view: &View<'_>, chassis: &Chassis) -> Vec<Operation> {
    let keys = view.chassis_changes(chassis);
    let root = view.root.filter(|_| !keys.is_empty()).map(|(uuid, _)| mutate("Open_vSwitch", uuid, keys));
    let mtu = view.mtu_change(chassis).map(|(uuid, mtu)| Operation::Update {
        table: "Interface".to_owned(),
        which: Condition::is_row(uuid),
        row: Row::from([("mtu_request".to_owned(), mtu)]),
    });
    root.into_iter().chain(mtu).collect()
}

fn remove_port(view: &View<'_>, name: &str) -> Result<Vec<Operation>, Gone> {
    let ((uuid, row), _) = view.ours(name).ok_or_else(|| Gone(format!("port {name}")))?;
    let bridge = view.bridge_of(name).unwrap_or(BRIDGE);
    let mut operations = vec![members(view, bridge, "ports", Mutator::Delete, Atom::Uuid(uuid))?];
    let limits: Vec<Uuid> = our_limits(view, row).collect();
    if !limits.is_empty() {
        // `ovsdb-server` looks for references before it takes away rows that nothing refers to, such as this port's.
        operations.push(set_limit(uuid, Datum::empty()));
        operations.extend(limits.into_iter().map(delete_limit));
    }
    Ok(operations)
}

fn add_port(view: &View<'_>, plug: &Plug) -> Result<Vec<Operation>, Gone> {
    let name = || ("name".to_owned(), Datum::from(plug.interface.as_str()));
    let role = plug.ids.get(OURS).map_or("port", String::as_str);
    let mut interface = plug.columns(&Row::new());
    let ids = Datum::map(plug.ids.iter().map(|(k, v)| (*k, v.as_str())));
    interface.extend([name(), ("external_ids".to_owned(), ids)]);
    let mut port = Row::from([
        name(),
        ("interfaces".to_owned(), named("interface")),
        ("external_ids".to_owned(), Datum::map([(OURS, role)])),
    ]);
    let limit = plug.max_rate.map(limit);
    port.extend(limit.as_ref().map(|_| ("qos".to_owned(), named("limit"))));
    let row = |table: &str, name: &str, row| Operation::Insert {
        table: table.to_owned(),
        row,
        name: Some(name.to_owned()),
    };
    let plugged = members(view, &plug.bridge, "ports", Mutator::Insert, Atom::Named("port".to_owned()))?;
    Ok(limit
        .into_iter()
        .chain([row("Interface", "interface", interface), row("Port", "port", port), plugged])
        .collect())
}

fn set_port(view: &View<'_>, plug: &Plug) -> Result<Vec<Operation>, Gone> {
    let name = &plug.interface;
    let ((port, port_row), (uuid, row)) = view.ours(name).ok_or_else(|| Gone(format!("port {name}")))?;
    let mut operations = Vec::new();
    let columns = plug.columns(row);
    if !columns.is_empty() {
        operations.push(Operation::Update {
            table: "Interface".to_owned(),
            which: Condition::is_row(uuid),
            row: columns,
        });
    }
    let keys = plug.key_changes(row);
    if !keys.is_empty() {
        operations.push(mutate("Interface", uuid, keys));
    }
    let keys = set_keys(port_row, &[(OURS, plug.ids.get(OURS).map(String::as_str))]);
    if !keys.is_empty() {
        operations.push(mutate("Port", port, keys));
    }
    let have: Vec<Uuid> = refs(port_row, "qos").collect();
    let fits =
        |rate| matches!(have[..], [one] if view.replica.row("QoS", one).is_some_and(|r| is_limit(r, rate)));
    let wanted = plug.max_rate.filter(|rate| !fits(*rate));
    if wanted.is_some() || (plug.max_rate.is_none() && !have.is_empty()) {
        operations.extend(wanted.map(limit));
        let value = if wanted.is_some() { named("limit") } else { Datum::empty() };
        operations.push(set_limit(port, value));
        operations.extend(our_limits(view, port_row).map(delete_limit));
    }
    Ok(operations)
}

fn add_mirror(view: &View<'_>, mirror: &Mirror) -> Result<Vec<Operation>, Gone> {
    let ports = view.mirror_ports(mirror)?;
    let columns =
        [("name", Datum::from(mirror.name.as_str())), ("external_ids", Datum::map([(OURS, "mirror")]))];
    Ok(vec![
        insert("Mirror", "mirror", columns.into_iter().chain(ports)),
        members(view, BRIDGE, "mirrors", Mutator::Insert, Atom::Named("mirror".to_owned()))?,
    ])
}

/// A limit of what leaves by a port: a class of HTB without classes below it.
fn limit(rate: u64) -> Operation {
    let columns = [
        ("type", "linux-htb".into()),
        ("other_config", Datum::map([("max-rate", rate.to_string())])),
        ("external_ids", Datum::map([(OURS, "limit")])),
    ];
    insert("QoS", "limit", columns)
}

/// Limits of a port that carry our mark and that no other port has.
fn our_limits<'a>(view: &View<'a>, port: &'a Row) -> impl Iterator<Item = Uuid> {
    let users = |limit| {
        view.replica.rows("Port").filter(move |(_, row)| refs(row, "qos").any(|u| u == limit)).count()
    };
    let ours = |limit: &Uuid| view.replica.row("QoS", *limit).is_some_and(|row| mark(row).is_some());
    refs(port, "qos").filter(move |limit| ours(limit) && users(*limit) == 1)
}

fn set_limit(port: Uuid, limit: Datum) -> Operation {
    let row = Row::from([("qos".to_owned(), limit)]);
    Operation::Update { table: "Port".to_owned(), which: Condition::is_row(port), row }
}

fn delete_limit(uuid: Uuid) -> Operation {
    Operation::Delete { table: "QoS".to_owned(), which: Condition::is_row(uuid) }
}

/// One member of a bridge's ports or mirrors comes or goes.
fn members(
    view: &View<'_>,
    bridge: &str,
    column: &str,
    mutator: Mutator,
    member: Atom,
) -> Result<Operation, Gone> {
    let (bridge, _) = *view.bridges.get(bridge).ok_or_else(|| Gone(format!("bridge {bridge}")))?;
    Ok(mutate("Bridge", bridge, vec![mutation(column, mutator, Datum::Set(BTreeSet::from([member])))]))
}

fn mutate(table: &str, uuid: Uuid, mutations: Vec<Mutation>) -> Operation {
    Operation::Mutate { table: table.to_owned(), which: Condition::is_row(uuid), mutations }
}

fn insert<'c>(table: &str, name: &str, columns: impl IntoIterator<Item = (&'c str, Datum)>) -> Operation {
    let row = columns.into_iter().map(|(column, value)| (column.to_owned(), value)).collect();
    Operation::Insert { table: table.to_owned(), row, name: Some(name.to_owned()) }
}

fn named(name: &str) -> Datum {
    Datum::Set(BTreeSet::from([Atom::Named(name.to_owned())]))
}
