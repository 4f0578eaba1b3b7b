//! Ports of a switch that is managed by OVSDB (`ovs-vswitchd.conf.db(5)`, table `Port`): what they are to be in, and the operations of
//! one transaction that bring it about.
//!
//! A port's row is its owner's, who made it. Ours is what a row says of VLANs, once it carries the id of a machine of ours under
//! [`OURS`] in `external_ids`; rows that no machine of ours needs are never named in an operation.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::{Atom, Condition, Datum, Mutation, Mutator, Operation, Replica, Row, Wanted};
use protocol::NodeId;
use uuid::Uuid;

use super::fabric::Member;

/// The name of the database.
pub const DATABASE: &str = "Open_vSwitch";
/// Under this key of `external_ids` a port has the id of the machine at its other end.
pub const OURS: &str = "billet";
/// No frame has this VLAN (IEEE 802.1Q-2022, table 9-2).
const NOBODY: i64 = 4095;

/// Tables and columns that are looked at.
pub fn wanted() -> Wanted {
    let tables: [(&str, &[&str]); 3] = [
        ("Open_vSwitch", &["next_cfg", "cur_cfg"]),
        ("Bridge", &["name", "ports"]),
        ("Port", &["name", "tag", "trunks", "vlan_mode", "external_ids"]),
    ];
    let columns = |columns: &[&str]| columns.iter().map(|column| (*column).to_owned()).collect();
    tables.into_iter().map(|(table, names)| (table.to_owned(), columns(names))).collect()
}

/// A port as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The machine at its other end.
    pub node: NodeId,
    /// What it is in.
    pub member: Member,
}

/// What is to be done, and of which ports it is known that it cannot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// One transaction; nothing where all is as it is to be.
    pub operations: Vec<Operation>,
    /// Names of ports that change.
    pub changed: BTreeSet<String>,
    /// Names of ports that the bridge does not have.
    pub missing: BTreeSet<String>,
}

/// What leads from a switch as it is to these of its ports.
pub fn difference(replica: &Replica, bridge: &str, wants: &BTreeMap<String, Want>) -> Difference {
    let rows = ports(replica, bridge);
    let mut difference = Difference::default();
    for (name, want) in wants {
        let Some((uuid, row)) = rows.get(name.as_str()) else {
            difference.missing.insert(name.clone());
            continue;
        };
        let operations = change(*uuid, row, want);
        if !operations.is_empty() {
            difference.changed.insert(name.clone());
            difference.operations.extend(operations);
        }
    }
    difference
}

/// Ports that carry a machine's id, with that.
pub fn ours(replica: &Replica, bridge: &str) -> BTreeMap<String, NodeId> {
    let rows = ports(replica, bridge);
    rows.iter().filter_map(|(name, (_, row))| Some(((*name).to_owned(), mark(row)?.parse().ok()?))).collect()
}

/// True where a port is as it is to be.
pub fn is_so(replica: &Replica, bridge: &str, name: &str, want: &Want) -> bool {
    ports(replica, bridge).get(name).is_some_and(|(uuid, row)| change(*uuid, row, want).is_empty())
}

/// Has the switch say when it has done what stands in its database: it copies `next_cfg` to `cur_cfg` then.
pub fn ask(replica: &Replica) -> Option<Operation> {
    let (uuid, _) = replica.rows("Open_vSwitch").next()?;
    let mutation = Mutation { column: "next_cfg".to_owned(), mutator: Mutator::Add, value: 1.into() };
    Some(Operation::Mutate {
        table: "Open_vSwitch".to_owned(),
        which: Condition::is_row(uuid),
        mutations: vec![mutation],
    })
}

/// True where the switch has done what stands in its database.
pub fn is_done(replica: &Replica) -> bool {
    let number = |row: &Row, column: &str| match row.get(column).and_then(Datum::one) {
        Some(Atom::Integer(number)) => Some(*number),
        _ => None,
    };
    replica
        .rows("Open_vSwitch")
        .next()
        .is_some_and(|(_, row)| number(row, "cur_cfg") >= number(row, "next_cfg"))
}

/// True where the switch has the bridge.
pub fn has_bridge(replica: &Replica, bridge: &str) -> bool {
    replica.rows("Bridge").any(|(_, row)| text(row, "name") == bridge)
}

fn ports<'a>(replica: &'a Replica, bridge: &str) -> BTreeMap<&'a str, (Uuid, &'a Row)> {
    let named = |(_, row): &(Uuid, &Row)| text(row, "name") == bridge;
    let of: BTreeSet<Uuid> = replica
        .rows("Bridge")
        .filter(named)
        .flat_map(|(_, row)| row.get("ports").into_iter().flat_map(Datum::uuids))
        .collect();
    let rows = replica.rows("Port").filter(|(uuid, _)| of.contains(uuid));
    rows.map(|(uuid, row)| (text(row, "name"), (uuid, row))).collect()
}

/// Columns `tag`, `trunks` and `vlan_mode`. A port that says nothing would carry every VLAN; so untagged is access to VLAN 0.
fn columns(member: &Member) -> [(&'static str, Datum); 3] {
    let (tag, trunks, mode) = match member {
        Member::Access(vlan) => (Some(*vlan), BTreeSet::new(), "access"),
        Member::Trunk { native, tagged } => (Some(*native), tagged.clone(), "native-untagged"),
        Member::Parked => (None, BTreeSet::new(), "trunk"),
    };
    let mut carried: Vec<i64> = trunks.into_iter().map(i64::from).collect();
    if *member == Member::Parked {
        carried.push(NOBODY);
    }
    [
        ("tag", Datum::set(tag.map(i64::from))),
        ("trunks", Datum::set(carried)),
        ("vlan_mode", Datum::from(mode)),
    ]
}

fn change(uuid: Uuid, row: &Row, want: &Want) -> Vec<Operation> {
    let differs = |(column, value): &(&str, Datum)| row.get(*column).unwrap_or(&Datum::empty()) != value;
    let update: Row = columns(&want.member)
        .into_iter()
        .filter(differs)
        .map(|(column, value)| (column.to_owned(), value))
        .collect();
    let which = || Condition::is_row(uuid);
    let mut operations = Vec::new();
    if !update.is_empty() {
        operations.push(Operation::Update { table: "Port".to_owned(), which: which(), row: update });
    }
    let own = want.node.to_string();
    if mark(row) != Some(&own) {
        let mutation = |mutator, value| Mutation { column: "external_ids".to_owned(), mutator, value };
        let gone = mark(row).map(|_| mutation(Mutator::Delete, Datum::Set([Atom::from(OURS)].into())));
        let come = mutation(Mutator::Insert, Datum::map([(OURS, own)]));
        let mutations = gone.into_iter().chain([come]).collect();
        operations.push(Operation::Mutate { table: "Port".to_owned(), which: which(), mutations });
    }
    operations
}

fn mark(row: &Row) -> Option<&str> {
    row.get("external_ids").and_then(|ids| ids.text_at(OURS))
}

fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Datum::text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch() -> Replica {
        let mut replica = Replica::default();
        let uuid = Uuid::from_u128;
        let bridge = |name: &str, ports: &[u128]| {
            Row::from([
                ("name".to_owned(), Datum::from(name)),
                ("ports".to_owned(), Datum::set(ports.iter().map(|n| uuid(*n)))),
            ])
        };
        replica.put("Bridge", uuid(1), bridge("br0", &[11, 12]));
        replica.put("Bridge", uuid(2), bridge("br1", &[13]));
        for (id, name) in [(11, "p1"), (12, "up"), (13, "p1x")] {
            let ids = Datum::map([("owner", "site")]);
            let row = [("name", Datum::from(name)), ("external_ids", ids)];
            replica.put("Port", uuid(id), row.map(|(column, value)| (column.to_owned(), value)).into());
        }
        replica
    }

    fn want(member: Member) -> Want {
        Want { node: NodeId(Uuid::from_u128(5)), member }
    }

    fn wants(name: &str, member: Member) -> BTreeMap<String, Want> {
        BTreeMap::from([(name.to_owned(), want(member))])
    }

    type Change = Box<dyn Fn(&mut Row)>;

    /// Does what an `ovsdb-server` does with updates and mutations of keys.
    fn carry_out(replica: &mut Replica, operations: &[Operation]) {
        for operation in operations {
            let (which, change): (_, Change) = match operation.clone() {
                Operation::Update { which, row: update, .. } => {
                    (which, Box::new(move |row| row.extend(update.clone())))
                }
                Operation::Mutate { which, mutations, .. } => (
                    which,
                    Box::new(move |row| {
                        for mutation in &mutations {
                            let Some(Datum::Map(pairs)) = row.get_mut(&mutation.column) else { panic!() };
                            match (&mutation.value, mutation.mutator) {
                                (Datum::Set(keys), Mutator::Delete) => {
                                    pairs.retain(|key, _| !keys.contains(key))
                                }
                                (Datum::Map(more), Mutator::Insert) => pairs.extend(more.clone()),
                                other => panic!("{other:?}"),
                            }
                        }
                    }),
                ),
                other => panic!("{other:?}"),
            };
            let rows: Vec<(Uuid, Row)> =
                replica.rows("Port").map(|(uuid, row)| (uuid, row.clone())).collect();
            for (uuid, mut row) in rows.into_iter().filter(|(uuid, _)| which == Condition::is_row(*uuid)) {
                change(&mut row);
                replica.put("Port", uuid, row);
            }
        }
    }

    #[test]
    fn what_is_as_it_is_to_be_is_left_alone() {
        let trunk = Member::Trunk { native: 100, tagged: [101, 102].into() };
        let mut replica = switch();
        for member in [Member::Access(10), Member::Access(0), trunk, Member::Parked, Member::Access(100)] {
            let wants = wants("p1", member.clone());
            let first = difference(&replica, "br0", &wants);
            assert_eq!(first.changed, ["p1".to_owned()].into(), "{member:?}");
            carry_out(&mut replica, &first.operations);
            assert_eq!(difference(&replica, "br0", &wants), Difference::default(), "{member:?}");
            assert!(is_so(&replica, "br0", "p1", &wants["p1"]));
        }
        assert_eq!(ours(&replica, "br0"), [("p1".to_owned(), NodeId(Uuid::from_u128(5)))].into());
        let (_, row) = ports(&replica, "br0")["p1"];
        assert_eq!(row["external_ids"].text_at("owner"), Some("site"), "what others wrote stays");
    }

    #[test]
    fn others_ports_and_bridges_are_never_named() {
        let replica = switch();
        let found = difference(&replica, "br0", &wants("p1x", Member::Access(10)));
        assert_eq!((found.operations, found.missing), (Vec::new(), ["p1x".to_owned()].into()));
        let found = difference(&replica, "br0", &wants("p1", Member::Access(10)));
        let p1 = Condition::is_row(Uuid::from_u128(11));
        for operation in &found.operations {
            match operation {
                Operation::Update { which, .. } | Operation::Mutate { which, .. } => assert_eq!(*which, p1),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_port_goes_from_one_machine_to_another() {
        let mut replica = switch();
        let found = difference(&replica, "br0", &wants("p1", Member::Access(10)));
        carry_out(&mut replica, &found.operations);
        let other = Want { node: NodeId(Uuid::from_u128(6)), member: Member::Access(10) };
        let wants = BTreeMap::from([("p1".to_owned(), other)]);
        let found = difference(&replica, "br0", &wants);
        carry_out(&mut replica, &found.operations);
        assert_eq!(ours(&replica, "br0"), [("p1".to_owned(), NodeId(Uuid::from_u128(6)))].into());
    }

    #[test]
    fn it_is_done_when_the_switch_says_so() {
        let mut replica = switch();
        assert!(!is_done(&replica) && ask(&replica).is_none() && has_bridge(&replica, "br1"));
        for (next, current, done) in [(4, 4, true), (5, 4, false), (5, 6, true)] {
            let row =
                [("next_cfg".to_owned(), Datum::from(next)), ("cur_cfg".to_owned(), Datum::from(current))];
            replica.put("Open_vSwitch", Uuid::from_u128(9), row.into());
            assert_eq!(is_done(&replica), done);
        }
        assert!(ask(&replica).is_some() && !has_bridge(&replica, "br9"));
    }

    #[test]
    fn untagged_is_never_every_vlan() {
        for member in [Member::Access(0), Member::Parked] {
            let columns: BTreeMap<_, _> = columns(&member).into_iter().collect();
            assert!(columns["tag"] != Datum::empty() || columns["trunks"] != Datum::empty(), "{member:?}");
        }
    }
}
