//! Sites by chance against a database in memory, and what is refused, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovsdb::{Atom, Datum, Mutator, Operation, Replica, Row};
use proptest::prelude::*;
use protocol::{
    FloatingId, MacAddr, MirrorId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId,
};
use uuid::Uuid;

use super::*;
use crate::network::ovn::{OURS, Table, desired, diff};

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr([0x0a, 0xb1, 0x1e, 0, 0, n])
}

/// A project with a network, a subnet of each family, a group, two ports, a router with a way out, a floating address and a
/// mirror.
fn site() -> Site {
    let project = ProjectId(id(1));
    let (inner, outer) = (NetworkId(id(10)), NetworkId(id(11)));
    let (v4, v6, public) = (SubnetId(id(20)), SubnetId(id(21)), SubnetId(id(22)));
    let group = SecurityGroupId(id(40));
    let name = |text: &str| text.to_owned();
    let wire = NetworkKind::Provider { physical: name("wan"), vlan: Some(7) };
    let subnet = |network, cidr: &str, gateway: &str| Subnet {
        network,
        cidr: cidr.parse().unwrap(),
        gateway: Some(address(gateway)),
        pools: Vec::new(),
        reserved: BTreeSet::new(),
        dns: Vec::new(),
        dhcp: network == inner,
    };
    let port = |n: u8| Port {
        project,
        network: inner,
        mac: mac(n),
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, n]), address(&format!("fd00::{n}"))]),
        groups: BTreeSet::from([group]),
        guarded: true,
        chassis: None,
        limits: Default::default(),
    };
    let rule = |family, traffic, remote| Rule { direction: Direction::Ingress, family, traffic, remote };
    let ssh = Traffic::Tcp(PortRange { first: 22, last: 22 });
    let rules = BTreeSet::from([
        rule(Family::V4, ssh, Remote::Net("10.0.0.0/8".parse().unwrap())),
        rule(Family::V6, Traffic::Icmp, Remote::Any),
        Rule { direction: Direction::Egress, ..rule(Family::V4, Traffic::Any, Remote::Group(group)) },
    ]);
    let external = External {
        subnet: public,
        address: address("192.0.2.2"),
        mac: mac(201),
        chassis: vec![name("dpu1"), name("dpu2")],
    };
    let interfaces = BTreeMap::from([(v4, mac(202)), (v6, mac(203))]);
    let floating = Floating {
        project,
        subnet: public,
        address: address("192.0.2.9"),
        to: Some((PortId(id(30)), address("10.0.0.11"))),
    };
    let sink = Sink::Gre(address("198.51.100.1"), 5);
    Site {
        encap: Encap::Geneve,
        networks: BTreeMap::from([
            (inner, Network { project, name: name("inner"), mtu: 1442, kind: NetworkKind::Overlay }),
            (outer, Network { project, name: name("outer"), mtu: 1500, kind: wire }),
        ]),
        subnets: BTreeMap::from([
            (v4, subnet(inner, "10.0.0.0/24", "10.0.0.1")),
            (v6, subnet(inner, "fd00::/64", "fd00::1")),
            (public, subnet(outer, "192.0.2.0/24", "192.0.2.1")),
        ]),
        ports: BTreeMap::from([(PortId(id(30)), port(11)), (PortId(id(31)), port(12))]),
        groups: BTreeMap::from([(group, SecurityGroup { project, name: name("ssh"), rules })]),
        routers: BTreeMap::from([(
            RouterId(id(50)),
            Router { project, name: name("r"), interfaces, external: Some(external) },
        )]),
        floating: BTreeMap::from([(FloatingId(id(60)), floating)]),
        mirrors: BTreeMap::from([(
            MirrorId(id(70)),
            Mirror { project, direction: Direction::Egress, ports: BTreeSet::from([PortId(id(31))]), sink },
        )]),
    }
}

/// A database that does what `ovsdb-server` does with the operations of a difference.
#[derive(Debug, Clone, Default)]
struct Database {
    replica: Replica,
    last: u128,
}

impl Database {
    fn transact(&mut self, operations: &[Operation]) {
        let names: BTreeMap<&str, Uuid> = (self.last + 1..)
            .zip(operations.iter().filter_map(|operation| match operation {
                Operation::Insert { name, .. } => name.as_deref(),
                _ => None,
            }))
            .map(|(n, name)| (name, id(0xdb << 64 | n)))
            .collect();
        self.last += names.len() as u128;
        let real = |datum: &Datum| match datum {
            Datum::Set(set) => Datum::Set(
                set.iter()
                    .map(|atom| match atom {
                        Atom::Named(name) => Atom::Uuid(names[name.as_str()]),
                        atom => atom.clone(),
                    })
                    .collect(),
            ),
            map @ Datum::Map(_) => map.clone(),
        };
        for operation in operations {
            match operation {
                Operation::Insert { table, row, name } => {
                    let row: Row = row.iter().map(|(column, datum)| (column.clone(), real(datum))).collect();
                    self.replica.put(table, names[name.as_deref().unwrap()], row);
                }
                Operation::Update { table, which, row } => {
                    let uuid = which[0].value.uuids().next().unwrap();
                    let mut now = self.replica.take(table, uuid).expect("a row to update");
                    now.extend(row.clone());
                    self.replica.put(table, uuid, now);
                }
                Operation::Mutate { table, which, mutations } => {
                    let uuid = which[0].value.uuids().next().unwrap();
                    let mut now = self.replica.take(table, uuid).expect("a row to mutate");
                    for mutation in mutations {
                        let none = if mutation.column == "options" {
                            Datum::Map(BTreeMap::new())
                        } else {
                            Datum::empty()
                        };
                        let datum = now.entry(mutation.column.clone()).or_insert(none);
                        mutate(datum, mutation.mutator, real(&mutation.value));
                    }
                    self.replica.put(table, uuid, now);
                }
                Operation::Delete { table, which } => {
                    let uuid = which[0].value.uuids().next().unwrap();
                    self.replica.take(table, uuid).expect("a row to delete");
                }
                other => panic!("{other:?}"),
            }
        }
        self.collect();
    }

    /// Rows that are no roots go where nothing refers to them, and weak references go with the rows.
    fn collect(&mut self) {
        const CHILDREN: [&str; 6] = [
            "Logical_Switch_Port",
            "ACL",
            "Gateway_Chassis",
            "Logical_Router_Port",
            "Logical_Router_Static_Route",
            "NAT",
        ];
        // Ports of a port group refer weakly.
        let strong = |table: &str, column: &str| !(table == "Port_Group" && column == "ports");
        for _ in 0..3 {
            let mut held = BTreeSet::new();
            for table in Table::ALL.map(Table::name) {
                for (_, row) in self.replica.rows(table) {
                    held.extend(
                        row.iter().filter(|(column, _)| strong(table, column)).flat_map(|(_, d)| d.uuids()),
                    );
                }
            }
            for table in CHILDREN {
                let gone: Vec<Uuid> =
                    self.replica.rows(table).map(|(uuid, _)| uuid).filter(|u| !held.contains(u)).collect();
                for uuid in gone {
                    self.replica.take(table, uuid);
                }
            }
        }
        let all: BTreeSet<Uuid> =
            Table::ALL.iter().flat_map(|t| self.replica.rows(t.name()).map(|(uuid, _)| uuid)).collect();
        for table in Table::ALL.map(Table::name) {
            let rows: Vec<(Uuid, Row)> =
                self.replica.rows(table).map(|(uuid, row)| (uuid, row.clone())).collect();
            for (uuid, mut row) in rows {
                for datum in row.values_mut() {
                    if let Datum::Set(set) = datum {
                        set.retain(|atom| !matches!(atom, Atom::Uuid(uuid) if !all.contains(uuid)));
                    }
                }
                self.replica.put(table, uuid, row);
            }
        }
    }

    /// Rows that are not ours.
    fn foreign(&self) -> Vec<(&'static str, Uuid, Row)> {
        let is_ours = |row: &Row| row.get("external_ids").is_some_and(|ids| ids.text_at(OURS).is_some());
        let of =
            |table: Table| self.replica.rows(table.name()).map(move |(uuid, row)| (table.name(), uuid, row));
        let all = Table::ALL.into_iter().flat_map(of);
        all.filter(|(_, _, row)| !is_ours(row)).map(|(table, uuid, row)| (table, uuid, row.clone())).collect()
    }

    /// Another program's option of our routers' ports.
    fn put_option(&mut self, key: &str, value: &str) {
        let (key, value) = (Atom::from(key), Atom::from(value));
        let rows: Vec<(Uuid, Row)> =
            self.replica.rows("Logical_Router_Port").map(|(uuid, row)| (uuid, row.clone())).collect();
        for (uuid, mut row) in rows {
            let options = row.entry("options".to_owned()).or_insert_with(|| Datum::Map(BTreeMap::new()));
            let Datum::Map(options) = options else { panic!("{options:?}") };
            options.insert(key.clone(), value.clone());
            self.replica.put("Logical_Router_Port", uuid, row);
        }
    }

    /// A key of the options of a router's ports, by the ends of their names.
    fn options(&self, key: &str) -> BTreeMap<String, Option<String>> {
        let of = |row: &Row| {
            let name = row["name"].text().unwrap().rsplit('/').next().unwrap().to_owned();
            let value = row.get("options").and_then(|options| options.text_at(key));
            (name, value.map(str::to_owned))
        };
        self.replica.rows("Logical_Router_Port").map(|(_, row)| of(row)).collect()
    }

    /// Another program's network, with a port, and a port of its on one of our networks.
    fn put_foreign(&mut self) {
        let name = |n: &str| Row::from([("name".to_owned(), Datum::from(n))]);
        for (n, text) in [(1, "theirs"), (2, "guest")] {
            self.replica.put("Logical_Switch_Port", id(0xf0 << 64 | n), name(text));
        }
        let mut switch = name("their-switch");
        switch.insert("ports".to_owned(), Datum::from(id(0xf0 << 64 | 1)));
        switch.insert("external_ids".to_owned(), Datum::map([("neutron:revision_number", "1")]));
        self.replica.put("Logical_Switch", id(0xf0 << 64 | 3), switch);
        self.replica.put(
            "DHCP_Options",
            id(0xf0 << 64 | 4),
            Row::from([("cidr".to_owned(), "10.0.0.0/24".into())]),
        );
        let ours = self
            .replica
            .rows("Logical_Switch")
            .find(|(uuid, _)| uuid.as_u128() >> 64 == 0xdb)
            .map(|(u, r)| (u, r.clone()));
        if let Some((uuid, mut row)) = ours {
            let ports = row.entry("ports".to_owned()).or_insert_with(Datum::empty);
            let Datum::Set(set) = ports else { panic!("{ports:?}") };
            set.insert(Atom::Uuid(id(0xf0 << 64 | 2)));
            self.replica.put("Logical_Switch", uuid, row);
        }
    }
}

/// What `ovsdb-server` does (RFC 7047, section 5.1).
fn mutate(datum: &mut Datum, mutator: Mutator, value: Datum) {
    match (datum, mutator, value) {
        (Datum::Set(set), Mutator::Insert, Datum::Set(members)) => set.extend(members),
        (Datum::Set(set), Mutator::Delete, Datum::Set(members)) => {
            set.retain(|member| !members.contains(member))
        }
        (Datum::Map(map), Mutator::Insert, Datum::Map(pairs)) => {
            for (key, value) in pairs {
                map.entry(key).or_insert(value);
            }
        }
        (Datum::Map(map), Mutator::Delete, Datum::Set(keys)) => map.retain(|key, _| !keys.contains(key)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_becomes_rows_once() {
    let site = site();
    assert_eq!(site.check(), []);
    let rows = desired(&site);
    let mut database = Database::default();
    let first = diff(&rows, &database.replica);
    assert_eq!(first.len(), rows.len());
    assert!(first.iter().all(|operation| matches!(operation, Operation::Insert { .. })));
    database.transact(&first);
    assert_eq!(diff(&rows, &database.replica), []);
    let gone = diff(&desired(&Site::default()), &database.replica);
    database.transact(&gone);
    // What is left is the group of guarded ports.
    assert_eq!(diff(&desired(&Site::default()), &database.replica), []);
    let left: Vec<usize> = Table::ALL.iter().map(|table| database.replica.len(table.name())).collect();
    assert_eq!(left, [0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn rows_say_what_ovn_wants() {
    let text: String = diff(&desired(&site()), &Replica::default())
        .iter()
        .map(|operation| format!("{}\n", operation.to_json()))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn others_ports_on_our_networks_stay() {
    let site = site();
    let mut database = Database::default();
    database.transact(&diff(&desired(&site), &database.replica));
    database.put_foreign();
    assert_eq!(diff(&desired(&site), &database.replica), [], "they are no difference");
    let before = database.foreign();
    let mut fewer = site;
    fewer.ports.clear();
    fewer.floating.clear();
    fewer.mirrors.clear();
    database.transact(&diff(&desired(&fewer), &database.replica));
    assert_eq!(database.foreign(), before);
}

#[test]
fn a_routers_ports_say_how_large_a_packet_may_be() {
    let (inner, outer, wide) = (NetworkId(id(10)), NetworkId(id(11)), NetworkId(id(12)));
    let said = |mtus: [u16; 3], led_out: bool| {
        let mut site = site();
        let project = ProjectId(id(1));
        site.networks
            .insert(wide, Network { project, name: "wide".into(), mtu: 0, kind: NetworkKind::Overlay });
        let cidr = "10.1.0.0/24".parse().unwrap();
        let subnet = Subnet {
            network: wide,
            cidr,
            gateway: Some(address("10.1.0.1")),
            ..site.subnets[&SubnetId(id(20))].clone()
        };
        site.subnets.insert(SubnetId(id(23)), subnet);
        for (network, mtu) in [inner, wide, outer].into_iter().zip(mtus) {
            site.networks.get_mut(&network).unwrap().mtu = mtu;
        }
        for router in site.routers.values_mut() {
            router.interfaces.remove(&SubnetId(id(21)));
            router.interfaces.insert(SubnetId(id(23)), mac(204));
            router.external = router.external.take().filter(|_| led_out);
        }
        site.floating.retain(|_, _| led_out);
        assert_eq!(site.check(), []);
        let mut database = Database::default();
        database.transact(&diff(&desired(&site), &database.replica));
        let at = database.options("gateway_mtu");
        let number = |n: u128| id(n).to_string();
        [number(20), number(23), "out".to_owned()]
            .map(|name| at.get(&name).cloned().flatten().map(|mtu| mtu.parse().unwrap()))
    };
    // Those of two networks and of the provider's; of their ports.
    let cases: [([u16; 3], [Option<u16>; 3]); 6] = [
        ([1500, 1500, 1500], [None, None, None]),
        ([1442, 1442, 1500], [Some(1442), Some(1442), Some(1442)]),
        ([1442, 1500, 1500], [Some(1442), None, Some(1442)]),
        ([1442, 8942, 1500], [Some(1442), None, Some(1442)]),
        ([8942, 8942, 1500], [None, None, Some(1500)]),
        // A wire carries what its machines send.
        ([1442, 1442, 1442], [Some(1442), Some(1442), Some(1442)]),
    ];
    for (mtus, ports) in cases {
        assert_eq!(said(mtus, true), ports, "{mtus:?}");
    }
    assert_eq!(said([1442, 1500, 1500], false), [Some(1442), None, None], "without a way out");
    assert_eq!(said([1442, 1442, 1500], false), [None; 3], "without a way out");
}

#[test]
fn others_options_of_our_routers_ports_stay() {
    let mut site = site();
    let mut database = Database::default();
    database.transact(&diff(&desired(&site), &database.replica));
    database.put_option("redirect-type", "bridged");
    assert_eq!(diff(&desired(&site), &database.replica), [], "it is no difference");
    for (mtu, wanted) in [(1400, Some("1400")), (1500, None), (1450, Some("1450"))] {
        site.networks.get_mut(&NetworkId(id(10))).unwrap().mtu = mtu;
        database.transact(&diff(&desired(&site), &database.replica));
        assert_eq!(diff(&desired(&site), &database.replica), [], "{mtu}");
        let all =
            |key: &str, value: Option<&str>| database.options(key).values().all(|is| is.as_deref() == value);
        assert!(all("gateway_mtu", wanted), "{mtu}: {:?}", database.options("gateway_mtu"));
        assert!(all("redirect-type", Some("bridged")), "{:?}", database.options("redirect-type"));
    }
    database.put_option("gateway_mtu", "9000");
    database.transact(&diff(&desired(&site), &database.replica));
    assert!(database.options("gateway_mtu").values().all(|mtu| mtu.as_deref() == Some("1450")), "it is ours");
}

#[test]
fn what_cannot_be_is_said() {
    type Change = fn(&mut Site);
    let cases: [(Change, &str); 14] = [
        (|s| s.networks.values_mut().for_each(|n| n.mtu = 576), "an MTU is 1280 to 9216 octets, not 576"),
        (|s| s.ports.values_mut().for_each(|p| p.mac = mac(11)), "0a:b1:1e:00:00:0b is on network"),
        (
            |s| s.ports.values_mut().for_each(|p| p.addresses = BTreeSet::from([address("10.0.0.11")])),
            "10.0.0.11 is taken on network",
        ),
        (
            |s| s.ports.values_mut().for_each(|p| p.addresses = BTreeSet::from([address("10.0.0.1")])),
            "is the gateway of subnet",
        ),
        (
            |s| s.ports.values_mut().for_each(|p| p.addresses = BTreeSet::from([address("10.9.0.1")])),
            "is of no subnet of network",
        ),
        (
            |s| s.ports.values_mut().for_each(|p| p.guarded = false),
            "security groups hold on guarded ports alone",
        ),
        (
            |s| s.groups.values_mut().for_each(|g| g.project = ProjectId(id(2))),
            "the project has no security group",
        ),
        (|s| s.ports.values_mut().for_each(|p| p.project = ProjectId(id(2))), "the project has no network"),
        (|s| s.subnets.values_mut().for_each(|n| n.gateway = None), "has no gateway for the router to be"),
        (
            |s| s.subnets.values_mut().for_each(|n| n.cidr = "10.0.0.0/24".parse().unwrap()),
            "are of one network and overlap",
        ),
        (
            |s| s.subnets.values_mut().for_each(|n| n.pools = vec!["10.1.0.1-10.1.0.2".parse().unwrap()]),
            "is not within 10.0.0.1-10.0.0.254",
        ),
        (
            |s| s.routers.values_mut().for_each(|r| r.interfaces.clear()),
            "no router leads from 10.0.0.11 to the provider's 192.0.2.0/24",
        ),
        (
            |s| s.mirrors.values_mut().for_each(|m| m.ports = BTreeSet::from([PortId(id(99))])),
            "the project has no port",
        ),
        (
            |s| {
                let rule = Rule {
                    direction: Direction::Ingress,
                    family: Family::V6,
                    traffic: Traffic::Udp(PortRange { first: 9, last: 8 }),
                    remote: Remote::Net("10.0.0.0/8".parse().unwrap()),
                };
                s.groups.values_mut().for_each(|g| g.rules.extend([rule]));
            },
            "the ports 9 to 8: the first is above the last",
        ),
    ];
    for (change, words) in cases {
        let mut site = site();
        change(&mut site);
        let faults: Vec<String> = site.check().iter().map(ToString::to_string).collect();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:#?}");
    }
}

#[test]
fn vxlan_has_room_for_4095_networks_of_2047_ports() {
    let whole = |networks: u128, ports: u128, encap| {
        let network = |name: &str| Network {
            project: ProjectId(id(1)),
            name: name.to_owned(),
            mtu: 1450,
            kind: NetworkKind::Overlay,
        };
        let port = |n: u128| Port {
            project: ProjectId(id(1)),
            network: NetworkId(id(0)),
            mac: ipam::mac(id(n), &BTreeSet::new()).unwrap(),
            addresses: BTreeSet::new(),
            groups: BTreeSet::new(),
            guarded: true,
            chassis: None,
            limits: Default::default(),
        };
        let site = Site {
            encap,
            networks: (0..networks).map(|n| (NetworkId(id(n)), network("n"))).collect(),
            ports: (0..ports).map(|n| (PortId(id(n)), port(n))).collect(),
            ..Site::default()
        };
        site.check().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(whole(4095, 2047, Encap::Vxlan), [""; 0]);
    assert_eq!(whole(4096, 2048, Encap::Geneve), [""; 0]);
    assert_eq!(
        whole(4096, 0, Encap::Vxlan),
        [
            "the site: 4096 networks and routers are more than the 4095 that OVN can number with VXLAN; with Geneve there is room"
        ]
    );
    let ports = whole(1, 2048, Encap::Vxlan);
    assert!(
        ports[0].contains("2048 ports are more than the 2047 that OVN can number in a network with VXLAN"),
        "{ports:?}"
    );
}

#[test]
fn two_projects_have_the_same_addresses() {
    let mut site = site();
    let project = ProjectId(id(2));
    let (network, subnet) = (NetworkId(id(110)), SubnetId(id(120)));
    site.networks.insert(network, Network { project, ..site.networks[&NetworkId(id(10))].clone() });
    site.subnets.insert(subnet, Subnet { network, ..site.subnets[&SubnetId(id(20))].clone() });
    let port = site.ports[&PortId(id(30))].clone();
    let addresses = BTreeSet::from([address("10.0.0.11")]);
    site.ports.insert(PortId(id(130)), Port { project, network, groups: BTreeSet::new(), addresses, ..port });
    assert_eq!(site.check(), []);
}

/// Which of the things of [`site`] are there, and in which of two states.
fn sites() -> impl Strategy<Value = Site> {
    prop::collection::vec(any::<(bool, bool)>(), 12).prop_map(|chance| {
        let mut site = site();
        let mut chance = chance.into_iter();
        let mut next = || chance.next().unwrap_or_default();
        site.networks.retain(|_, network| {
            network.mtu -= u16::from(next().1);
            next().0 || next().1
        });
        site.subnets.retain(|_, subnet| {
            subnet.dhcp ^= next().1;
            true
        });
        site.ports.retain(|_, port| {
            let (stays, moves) = next();
            if moves {
                port.network = NetworkId(id(11));
            }
            stays
        });
        site.groups.retain(|_, group| {
            group.rules.pop_last();
            next().0
        });
        site.mirrors.retain(|_, mirror| {
            mirror.direction = if next().1 { Direction::Ingress } else { Direction::Egress };
            next().0
        });
        site
    })
}

fn put(site: &mut Site, change: Change) {
    fn swap<K: Ord, V>(all: &mut BTreeMap<K, V>, id: K, new: Option<V>) {
        match new {
            Some(new) => drop(all.insert(id, new)),
            None => drop(all.remove(&id)),
        }
    }
    match change {
        Change::Network(id, new) => swap(&mut site.networks, id, new),
        Change::Subnet(id, new) => swap(&mut site.subnets, id, new),
        Change::Port(id, new) => swap(&mut site.ports, id, new),
        Change::Group(id, new) => swap(&mut site.groups, id, new),
        Change::Router(id, new) => swap(&mut site.routers, id, new),
        Change::Floating(id, new) => swap(&mut site.floating, id, new),
        Change::Mirror(id, new) => swap(&mut site.mirrors, id, new),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// From whatever a database holds, one transaction leads to what it is to hold, and others' rows are as they were.
    #[test]
    fn one_transaction_is_enough_and_touches_nobody_else(from in sites(), to in sites()) {
        let mut database = Database::default();
        database.transact(&diff(&desired(&from), &database.replica));
        database.put_foreign();
        let before = database.foreign();
        database.transact(&diff(&desired(&to), &database.replica));
        prop_assert_eq!(diff(&desired(&to), &database.replica), []);
        let after = database.foreign();
        // A port of others on a network that is no more goes with it: OVN has it nowhere else.
        for row in before.iter().filter(|(_, uuid, _)| uuid.as_u128() != (0xf0 << 64 | 2)) {
            prop_assert!(after.contains(row), "{row:?}");
        }
    }

    /// A change is judged by what it touches as the whole site would be, and one that cannot be leaves nothing behind.
    #[test]
    fn a_part_is_judged_as_the_whole(to in sites(), picks in prop::collection::vec((0_usize..14, any::<bool>()), 1..6)) {
        let from = site();
        let pick = |n: usize, gone: bool| {
            let (from, to) = (from.clone(), to.clone());
            let nth = |n: usize, len: usize| n % len;
            match n {
                0 | 1 => from.networks.keys().nth(nth(n, from.networks.len()))
                    .map(|id| Change::Network(*id, to.networks.get(id).filter(|_| !gone).cloned())),
                2..=4 => from.subnets.keys().nth(nth(n, from.subnets.len()))
                    .map(|id| Change::Subnet(*id, to.subnets.get(id).filter(|_| !gone).cloned())),
                5..=7 => from.ports.keys().nth(nth(n, from.ports.len()))
                    .map(|id| Change::Port(*id, to.ports.get(id).filter(|_| !gone).cloned())),
                8 => from.groups.keys().next()
                    .map(|id| Change::Group(*id, to.groups.get(id).filter(|_| !gone).cloned())),
                9 => from.routers.keys().next().map(|id| Change::Router(*id, to.routers.get(id).filter(|_| !gone).cloned())),
                10 => from.floating.keys().next()
                    .map(|id| Change::Floating(*id, to.floating.get(id).filter(|_| !gone).cloned())),
                11 => from.mirrors.keys().next()
                    .map(|id| Change::Mirror(*id, to.mirrors.get(id).filter(|_| !gone).cloned())),
                // Somebody else with the address of one that is there.
                12 => from.ports.values().next().map(|port| Change::Port(PortId(id(777)), Some(port.clone()))),
                _ => from.subnets.values().next().map(|it| Change::Subnet(SubnetId(id(778)), Some(it.clone()))),
            }
        };
        let changes: Vec<Change> = picks.into_iter().filter_map(|(n, gone)| pick(n, gone)).collect();
        let mut draft = Draft::new(from.clone());
        prop_assert_eq!(draft.site(), &from);
        let mut wanted = from.clone();
        changes.iter().cloned().for_each(|change| put(&mut wanted, change));
        match draft.try_apply(changes) {
            Ok(undo) => {
                prop_assert_eq!(draft.site(), &wanted);
                prop_assert_eq!(wanted.check(), []);
                prop_assert_eq!(Draft::new(draft.site().clone()).taken(NetworkId(id(10))), draft.taken(NetworkId(id(10))));
                draft.undo(undo);
            }
            Err(faults) => {
                let all = wanted.check();
                prop_assert!(!faults.is_empty() && faults.iter().all(|fault| all.contains(fault)), "{faults:?} {all:?}");
            }
        }
        prop_assert_eq!(draft.site(), &from);
    }

    /// Nothing that can be thought up makes the check panic.
    #[test]
    fn any_site_is_judged(site in sites()) {
        let _ = site.check();
    }
}
