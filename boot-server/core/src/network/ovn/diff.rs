//! The changes that lead from what a database holds to what it is to hold.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::{Atom, Condition, Datum, Mutation, Mutator, Operation, Replica, Row};
use uuid::Uuid;

use super::{Desired, OURS, Table, Want};

/// Our rows in a replica.
struct Have<'a> {
    rows: BTreeMap<Table, BTreeMap<&'a str, (Uuid, &'a Row)>>,
    /// A second row of one key; nobody should have made it.
    surplus: Vec<(Table, Uuid)>,
    ours: BTreeMap<Table, BTreeSet<Uuid>>,
}

impl<'a> Have<'a> {
    fn of(replica: &'a Replica) -> Self {
        let mut have = Self { rows: BTreeMap::new(), surplus: Vec::new(), ours: BTreeMap::new() };
        for table in Table::ALL {
            for (uuid, row) in replica.rows(table.name()) {
                let Some(key) = row.get("external_ids").and_then(|ids| ids.text_at(OURS)) else { continue };
                have.ours.entry(table).or_default().insert(uuid);
                match have.rows.entry(table).or_default().entry(key) {
                    std::collections::btree_map::Entry::Vacant(place) => drop(place.insert((uuid, row))),
                    std::collections::btree_map::Entry::Occupied(_) => have.surplus.push((table, uuid)),
                }
            }
        }
        have
    }

    fn row(&self, table: Table, key: &str) -> Option<(Uuid, &'a Row)> {
        self.rows.get(&table)?.get(key).copied()
    }

    fn is_ours(&self, table: Table, uuid: Uuid) -> bool {
        self.ours.get(&table).is_some_and(|ours| ours.contains(&uuid))
    }
}

/// Names of the rows that the transaction inserts.
type Names<'a> = BTreeMap<(Table, &'a str), String>;

/// The operations of one transaction; none where all is as it is to be.
pub fn diff(desired: &Desired, replica: &Replica) -> Vec<Operation> {
    let have = Have::of(replica);
    let names: Names<'_> = Table::ALL
        .into_iter()
        .flat_map(|table| desired.rows(table).map(move |(key, _)| (table, key.as_str())))
        .filter(|(table, key)| have.row(*table, key).is_none())
        .enumerate()
        .map(|(n, place)| (place, format!("row{n}")))
        .collect();
    let mut operations = Vec::new();
    for table in Table::ALL {
        for (key, want) in desired.rows(table) {
            match have.row(table, key) {
                None => operations.push(insert(table, key, want, &have, &names)),
                Some((uuid, row)) => change(table, uuid, row, want, &have, &names, &mut operations),
            }
        }
    }
    let gone =
        have.rows.iter().flat_map(|(table, rows)| rows.iter().map(|(key, (uuid, _))| (*table, *key, *uuid)));
    let unwanted =
        gone.filter(|(table, key, _)| desired.tables.get(table).is_none_or(|rows| !rows.contains_key(*key)));
    let unwanted = unwanted.map(|(table, _, uuid)| (table, uuid)).chain(have.surplus.iter().copied());
    // What is no root is gone once our rows do not refer to it any more.
    operations.extend(unwanted.filter(|(table, _)| table.is_root()).map(|(table, uuid)| Operation::Delete {
        table: table.name().to_owned(),
        which: Condition::is_row(uuid),
    }));
    operations
}

/// Members of a column that refer to rows that are there or will be.
fn members(refs: &(Table, BTreeSet<String>), have: &Have<'_>, names: &Names<'_>) -> BTreeSet<Atom> {
    let (table, keys) = refs;
    let member = |key: &String| match have.row(*table, key) {
        Some((uuid, _)) => Some(Atom::Uuid(uuid)),
        None => names.get(&(*table, key.as_str())).cloned().map(Atom::Named),
    };
    keys.iter().filter_map(member).collect()
}

fn insert(table: Table, key: &str, want: &Want, have: &Have<'_>, names: &Names<'_>) -> Operation {
    let mut row: Row =
        want.values.iter().map(|(column, value)| ((*column).to_owned(), value.clone())).collect();
    for (column, refs) in &want.refs {
        row.insert((*column).to_owned(), Datum::Set(members(refs, have, names)));
    }
    row.insert("external_ids".to_owned(), Datum::map([(OURS, key)]));
    Operation::Insert { table: table.name().to_owned(), row, name: names.get(&(table, key)).cloned() }
}

fn change(
    table: Table,
    uuid: Uuid,
    row: &Row,
    want: &Want,
    have: &Have<'_>,
    names: &Names<'_>,
    operations: &mut Vec<Operation>,
) {
    let mut update = Row::new();
    let mut mutations = Vec::new();
    for column in table.columns() {
        let now = row.get(*column);
        if let Some(target) = target(table, column) {
            let none = (target, BTreeSet::new());
            let wanted = members(want.refs.get(column).unwrap_or(&none), have, names);
            mutations.extend(mutate(column, target, now, &wanted, have));
            continue;
        }
        let value = want.values.get(column);
        if let Some(keys) = table.keys(column) {
            mutations.extend(share(column, keys, now, value));
            continue;
        }
        if !same(now, value) {
            let empty = || match now {
                Some(Datum::Map(_)) => Datum::Map(BTreeMap::new()),
                _ => Datum::empty(),
            };
            update.insert((*column).to_owned(), value.cloned().unwrap_or_else(empty));
        }
    }
    let (table, which) = (table.name().to_owned(), || Condition::is_row(uuid));
    if !update.is_empty() {
        operations.push(Operation::Update { table: table.clone(), which: which(), row: update });
    }
    if !mutations.is_empty() {
        operations.push(Operation::Mutate { table, which: which(), mutations });
    }
}

/// A column that is not wanted is to be empty: none, no pair, or the text "".
fn same(now: Option<&Datum>, want: Option<&Datum>) -> bool {
    let is_empty = |datum: &Datum| match datum {
        Datum::Set(set) => set.is_empty() || datum.text() == Some(""),
        Datum::Map(map) => map.is_empty(),
    };
    match (now, want) {
        (Some(now), Some(want)) => now == want || (is_empty(now) && is_empty(want)),
        (Some(one), None) | (None, Some(one)) => is_empty(one),
        (None, None) => true,
    }
}

/// Our members come and go; those of others stay, but for a column that holds one alone.
fn mutate(
    column: &str,
    target: Table,
    now: Option<&Datum>,
    want: &BTreeSet<Atom>,
    have: &Have<'_>,
) -> Vec<Mutation> {
    let mutation = |mutator, members: BTreeSet<Atom>| {
        let value = Datum::Set(members);
        (value != Datum::empty()).then(|| Mutation { column: column.to_owned(), mutator, value })
    };
    let now: BTreeSet<Uuid> = now.into_iter().flat_map(Datum::uuids).collect();
    let single = matches!(target, Table::DhcpOptions);
    let to_go = |uuid: &Uuid| {
        let atom = Atom::Uuid(*uuid);
        !want.contains(&atom) && (have.is_ours(target, *uuid) || (single && !want.is_empty()))
    };
    let gone = now.iter().filter(|uuid| to_go(uuid)).map(|uuid| Atom::Uuid(*uuid)).collect();
    let come =
        want.iter().filter(|atom| !matches!(atom, Atom::Uuid(uuid) if now.contains(uuid))).cloned().collect();
    [mutation(Mutator::Delete, gone), mutation(Mutator::Insert, come)].into_iter().flatten().collect()
}

/// Our pairs of a map come, change and go; those of others stay.
fn share(column: &str, keys: &[&str], now: Option<&Datum>, want: Option<&Datum>) -> Vec<Mutation> {
    let now = |key: &str| now.and_then(|map| map.text_at(key));
    let want = |key: &str| want.and_then(|map| map.text_at(key));
    let other: Vec<&str> = keys.iter().copied().filter(|key| now(key) != want(key)).collect();
    let gone: Vec<&str> = other.iter().copied().filter(|key| now(key).is_some()).collect();
    let come: Vec<(&str, &str)> = other.iter().filter_map(|key| Some((*key, want(key)?))).collect();
    let mutation = |mutator, value| Mutation { column: column.to_owned(), mutator, value };
    // First what was there: an insertion leaves the value of a key that is there (RFC 7047, section 5.1).
    let gone = (!gone.is_empty()).then(|| mutation(Mutator::Delete, Datum::set(gone)));
    let come = (!come.is_empty()).then(|| mutation(Mutator::Insert, Datum::map(come)));
    gone.into_iter().chain(come).collect()
}

/// The table that a column refers to.
fn target(table: Table, column: &str) -> Option<Table> {
    Some(match (table, column) {
        (Table::Switch | Table::PortGroup, "ports") => Table::SwitchPort,
        (Table::SwitchPort, "dhcpv4_options" | "dhcpv6_options") => Table::DhcpOptions,
        (Table::SwitchPort, "mirror_rules") => Table::Mirror,
        (Table::PortGroup, "acls") => Table::Acl,
        (Table::RouterPort, "gateway_chassis") => Table::GatewayChassis,
        (Table::Router, "ports") => Table::RouterPort,
        (Table::Router, "static_routes") => Table::Route,
        (Table::Router, "nat") => Table::Nat,
        _ => return None,
    })
}
