//! Plans against a model of a switch and of exporters: where they lead, and what they never touch.

use ovsdb::{Atom, Datum, Mutator, Operation, Row};
use proptest::prelude::*;
use protocol::PortId;
use protocol::dpu::{
    Access, Chassis, Datapath, Direction, Encap, EncapKind, Exporter, Gre, Mirror, Port, Rate, Serves,
    VERSION,
};
use uuid::Uuid;

use super::*;
use crate::exporter::Started;
use crate::switch::{CHASSIS, OURS};

const TABLES: [&str; 6] = ["Open_vSwitch", "Bridge", "Port", "Interface", "QoS", "Mirror"];

/// A database that does what `ovsdb-server` does with our operations.
#[derive(Debug, Clone, Default)]
struct Database {
    replica: Replica,
    last: u128,
}

impl Database {
    /// Others' rows: a chassis with a bridge of its own, and, where asked for, `br-int` with a tunnel and a mirror of OVN's.
    fn with_others(bridge: bool, taken: bool) -> Self {
        let mut all = Self::default();
        let text = |name: &str| Datum::from(name);
        let row = |columns: Vec<(&str, Datum)>| -> Row {
            columns.into_iter().map(|(column, value)| (column.to_owned(), value)).collect()
        };
        let port = |all: &mut Self, name: &str| {
            let interface = all.put("Interface", row(vec![("name", text(name))]));
            all.put("Port", row(vec![("name", text(name)), ("interfaces", interface.into())]))
        };
        let mut bridges = Vec::new();
        let up = port(&mut all, "up0");
        let limit = all.put("QoS", row(vec![("type", text("linux-sfq"))]));
        let mut theirs = all.replica.take("Port", up).unwrap();
        theirs.insert("qos".into(), limit.into());
        all.replica.put("Port", up, theirs);
        bridges.push(all.put("Bridge", row(vec![("name", text("br-phy")), ("ports", up.into())])));
        if bridge {
            let mut ports = vec![port(&mut all, "br-int"), port(&mut all, "ovn-1")];
            if taken {
                ports.push(port(&mut all, "i0"));
                let (uuid, row) = all.replica.rows("Interface").last().unwrap();
                let mut row = row.clone();
                row.insert("external_ids".into(), Datum::map([("iface-id", Uuid::from_u128(1).to_string())]));
                all.replica.put("Interface", uuid, row);
            }
            let mirror = all.put("Mirror", row(vec![("name", text("m0")), ("output_port", ports[1].into())]));
            let columns =
                vec![("name", text("br-int")), ("ports", Datum::set(ports)), ("mirrors", mirror.into())];
            bridges.push(all.put("Bridge", row(columns)));
        }
        let ids = Datum::map([("hostname", "h"), ("system-id", "as-installed")]);
        all.put("Open_vSwitch", row(vec![("bridges", Datum::set(bridges)), ("external_ids", ids)]));
        all
    }

    fn put(&mut self, table: &str, row: Row) -> Uuid {
        self.last += 1;
        let uuid = Uuid::from_u128(self.last);
        self.replica.put(table, uuid, row);
        uuid
    }

    fn transact(&mut self, operations: &[Operation]) {
        let names: BTreeMap<String, Uuid> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Insert { name, .. } => name.clone(),
                _ => None,
            })
            .enumerate()
            .map(|(n, name)| (name, Uuid::from_u128(self.last + 1 + n as u128)))
            .collect();
        let real = |datum: &Datum| match datum {
            Datum::Set(set) => Datum::Set(
                set.iter()
                    .map(|atom| match atom {
                        Atom::Named(name) => Atom::Uuid(names[name]),
                        atom => atom.clone(),
                    })
                    .collect(),
            ),
            map @ Datum::Map(_) => map.clone(),
        };
        for operation in operations {
            match operation {
                Operation::Insert { table, row, .. } => {
                    self.put(
                        table,
                        row.iter().map(|(column, datum)| (column.clone(), real(datum))).collect(),
                    );
                }
                Operation::Update { table, which, row } => self.change(table, which, |now| {
                    now.extend(row.iter().map(|(column, datum)| (column.clone(), real(datum))));
                }),
                Operation::Mutate { table, which, mutations } => self.change(table, which, |now| {
                    for mutation in mutations {
                        mutate(now.entry(mutation.column.clone()), mutation.mutator, real(&mutation.value));
                    }
                }),
                Operation::Delete { table, which } => {
                    self.replica
                        .take(table, which[0].value.uuids().next().unwrap())
                        .expect("a row to delete");
                }
                other => panic!("{other:?}"),
            }
        }
        // As the real one does, before rows that nothing refers to are taken away.
        let limits: BTreeSet<Uuid> = self.replica.rows("QoS").map(|(uuid, _)| uuid).collect();
        let dangling = |(_, row): &(Uuid, &Row)| {
            row.get("qos").is_some_and(|qos| qos.uuids().any(|limit| !limits.contains(&limit)))
        };
        assert_eq!(self.replica.rows("Port").find(dangling), None, "a port whose limits are gone");
        self.collect();
        for table in ["Port", "Interface", "Bridge"] {
            let names: Vec<_> = self.replica.rows(table).map(|(_, row)| row["name"].clone()).collect();
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "the index of {table}: {names:?}");
        }
    }

    fn change(&mut self, table: &str, which: &[ovsdb::Condition], change: impl FnOnce(&mut Row)) {
        let uuid = which[0].value.uuids().next().unwrap();
        let mut row = self.replica.take(table, uuid).expect("a row to change");
        change(&mut row);
        self.replica.put(table, uuid, row);
    }

    /// Rows that are no roots go where nothing refers to them, and a mirror's weak references go with the ports.
    fn collect(&mut self) {
        for table in ["Bridge", "Mirror", "Port", "Interface"] {
            let held: BTreeSet<Uuid> = TABLES
                .iter()
                .filter(|table| **table != "Mirror")
                .flat_map(|table| self.replica.rows(table))
                .flat_map(|(_, row)| row.values().flat_map(Datum::uuids))
                .collect();
            let all: Vec<Uuid> = self.replica.rows(table).map(|(uuid, _)| uuid).collect();
            for uuid in all.into_iter().filter(|uuid| !held.contains(uuid)) {
                self.replica.take(table, uuid);
            }
        }
        let ports: BTreeSet<Uuid> = self.replica.rows("Port").map(|(uuid, _)| uuid).collect();
        let mirrors: Vec<_> = self.replica.rows("Mirror").map(|(uuid, row)| (uuid, row.clone())).collect();
        for (uuid, mut row) in mirrors {
            for column in row.values_mut() {
                if let Datum::Set(set) = column {
                    set.retain(|atom| !matches!(atom, Atom::Uuid(port) if !ports.contains(port)));
                }
            }
            self.replica.put("Mirror", uuid, row);
        }
    }

    /// What is not ours, without what we may change of it.
    fn foreign(&self) -> Vec<(&'static str, Uuid, Row)> {
        let ours = |row: &Row| row.get("external_ids").is_some_and(|ids| ids.text_at(OURS).is_some());
        let mine: BTreeSet<Uuid> = TABLES
            .iter()
            .flat_map(|table| self.replica.rows(table))
            .filter(|(_, row)| ours(row))
            .map(|(uuid, _)| uuid)
            .collect();
        let clean = |row: &Row| {
            let mut row = row.clone();
            if row.get("name").is_some_and(|name| name.text() == Some("br-int")) {
                row.remove("mtu_request");
            }
            for datum in row.values_mut() {
                match datum {
                    Datum::Set(set) => {
                        set.retain(|atom| !matches!(atom, Atom::Uuid(uuid) if mine.contains(uuid)));
                    }
                    Datum::Map(map) => {
                        map.retain(|key, _| !CHASSIS.iter().any(|ours| *key == Atom::from(*ours)))
                    }
                }
            }
            row
        };
        TABLES
            .iter()
            .flat_map(|table| self.replica.rows(table).map(move |(uuid, row)| (*table, uuid, row)))
            .filter(|(_, uuid, _)| !mine.contains(uuid))
            .map(|(table, uuid, row)| (table, uuid, clean(row)))
            .collect()
    }

    /// No logical port is on two interfaces, and no mirror leaves by a host's port.
    fn is_safe(&self) {
        let mut ids = BTreeSet::new();
        for (_, row) in self.replica.rows("Interface") {
            if let Some(id) = row.get("external_ids").and_then(|ids| ids.text_at("iface-id")) {
                assert!(ids.insert(id), "{id} is on two interfaces");
            }
        }
        for (_, mirror) in self.replica.rows("Mirror") {
            for port in mirror.get("output_port").into_iter().flat_map(Datum::uuids) {
                let interface = self.replica.row("Port", port).unwrap()["interfaces"].uuids().next().unwrap();
                let ids = self.replica.row("Interface", interface).unwrap().get("external_ids");
                assert!(ids.is_none_or(|ids| ids.text_at("iface-id").is_none()), "{mirror:?}");
            }
        }
    }
}

fn on(bus: Option<&Bus>) -> Buses {
    Buses { host: bus.cloned(), snap: None }
}

fn mutate(entry: std::collections::btree_map::Entry<'_, String, Datum>, mutator: Mutator, value: Datum) {
    match (value, mutator) {
        (Datum::Map(pairs), Mutator::Insert) => {
            let Datum::Map(map) = entry.or_insert_with(|| Datum::Map(BTreeMap::new())) else {
                panic!("no map")
            };
            for (key, value) in pairs {
                map.entry(key).or_insert(value);
            }
        }
        (Datum::Set(members), mutator) => match (entry.or_insert_with(Datum::empty), mutator) {
            (Datum::Set(set), Mutator::Insert) => set.extend(members),
            (Datum::Set(set), Mutator::Delete) => set.retain(|member| !members.contains(member)),
            (Datum::Map(map), Mutator::Delete) => map.retain(|key, _| !members.contains(key)),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Does all actions, and checks after each that nothing is what must never be. Returns the words of the actions.
fn carry_out(
    state: &State,
    database: &mut Database,
    exporters: &mut Exporters,
    bus: &mut Option<Bus>,
) -> (Vec<String>, Vec<String>) {
    let foreign = database.foreign();
    let plan = plan(state, Some(&database.replica), exporters, &on(bus.as_ref()));
    for action in &plan.actions {
        match action {
            Action::Stop { name, .. } => {
                let gone = exporters.remove(name).expect("only what was started is stopped");
                let used = matches!(gone.life, Life::Runs { held: Held::Opening | Held::Connected, .. });
                assert!(!used, "{name} was in use");
                assert_eq!(bus.as_ref().and_then(|bus| bus.of(name)), None, "{name} was plugged in");
            }
            Action::Start(volume) => {
                let clash = exporters.values().find(|other| {
                    other.volume.name != volume.name
                        && shares(&other.volume, volume)
                        && matches!(other.life, Life::Runs { .. })
                });
                assert_eq!(clash, None, "two exporters of one disk");
                let life = Life::Runs { pid: Some(9), held: Held::Opening };
                let before = exporters.insert(volume.name.clone(), Started { volume: volume.clone(), life });
                assert!(
                    before.is_none_or(|before| matches!(before.life, Life::Dead { .. })),
                    "it ran already"
                );
            }
            Action::Plug(volume) => {
                let started = exporters.get_mut(&volume.name).expect("only what is served is plugged in");
                assert_eq!(started.volume, *volume);
                let Life::Runs { held, .. } = &mut started.life else { panic!("{action}: nobody serves it") };
                assert_ne!(
                    std::mem::replace(held, Held::Connected),
                    Held::Opening,
                    "{action}: not served yet"
                );
                let bus = bus.as_mut().expect("a bus");
                let before = bus.0.insert(crate::bus::id(&volume.name), Found::Plugged);
                assert!(matches!(before, None | Some(Found::Remnant)), "{action}: it was plugged in");
            }
            Action::Limit(volume) => {
                exporters.get_mut(&volume.name).expect("only what is served is limited").volume =
                    volume.clone();
            }
            Action::Unplug(name) => {
                let wanted = state.desired().volumes.iter().any(|volume| {
                    let leads = |started: &Started| leads_alike(volume, &started.volume);
                    volume.name == *name && exporters.get(name).is_none_or(leads)
                });
                let bus = bus.as_mut().expect("a bus");
                assert!(!wanted || bus.of(name) == Some(Found::Remnant), "{action}: it is wanted");
                match bus.of(name) {
                    Some(Found::Plugged) => drop(bus.0.insert(crate::bus::id(name), Found::Leaves)),
                    Some(Found::Remnant) => drop(bus.0.remove(&crate::bus::id(name))),
                    other => panic!("{action}: {other:?}"),
                }
            }
            Action::Switch(change) => {
                let operations = change.operations(&database.replica).unwrap();
                assert!(!operations.is_empty(), "{change} does nothing");
                database.transact(&operations);
                database.is_safe();
            }
        }
        assert_eq!(database.foreign(), foreign, "after {action}");
    }
    (plan.actions.iter().map(ToString::to_string).collect(), plan.problems)
}

/// What hosts and exporters do by themselves: exporters open, hosts let go of what they were asked for and of what nobody
/// plugs in.
fn time_passes(exporters: &mut Exporters, bus: &mut Bus) {
    for found in bus.0.values_mut().filter(|found| **found == Found::Leaves) {
        *found = Found::Remnant;
    }
    for (name, started) in exporters {
        if let Life::Runs { held, .. } = &mut started.life {
            *held = if bus.of(name).is_some() { Held::Connected } else { Held::Lately };
        }
    }
}

fn volume(n: usize, disk: usize) -> Volume {
    Volume {
        name: format!("v{n}").parse().unwrap(),
        serial: String::new(),
        socket: format!("/run/s{disk}"),
        exporter: Exporter::Blk { serves: Serves::File { path: format!("/disk{disk}"), read_only: false } },
        limits: None,
        deadline: None,
        boot: false,
        encryption: None,
        fill: None,
    }
}

/// A volume whose image is written before its host has it.
fn filled(n: usize) -> Volume {
    let fill = protocol::dpu::Fill {
        image: "de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65".parse().unwrap(),
        store: "/store".into(),
        config: Some(protocol::job::CloudConfig::default()),
        grow_root: true,
    };
    Volume { fill: Some(fill), ..volume(n, n) }
}

#[test]
fn who_writes_an_image_goes_on_until_nobody_wants_the_volume() {
    let of = |volumes: Vec<Volume>, started: &Volume, held| {
        let exporters = Exporters::from([(
            started.name.clone(),
            Started { volume: started.clone(), life: Life::Runs { pid: Some(7), held } },
        )]);
        let desired = Desired { volumes, ..golden().desired().clone() };
        let bus = Bus(BTreeMap::new());
        let planned = plan(&State::check(desired).unwrap(), None, &exporters, &on(Some(&bus)));
        (planned.actions.iter().map(ToString::to_string).collect::<Vec<_>>(), planned.problems)
    };
    let wanted = filled(1);
    let nothing = (Vec::new(), Vec::new());
    assert_eq!(of(vec![wanted.clone()], &wanted, Held::Filling), nothing, "no host is given it yet");
    let mut told = wanted.clone();
    told.fill.as_mut().unwrap().config = None;
    assert_eq!(of(vec![wanted.clone()], &told, Held::Filling), nothing, "its config is on it");
    // The server knows that it was written: the same exporter serves it.
    let written = Volume { fill: None, ..wanted.clone() };
    assert_eq!(of(vec![written.clone()], &told, Held::Connected).0, ["plug volume v1 into the host"]);
    // It died soon after: what comes in its place finds that the image is there.
    for (state, is_same) in
        [(&wanted, true), (&written, true), (&Volume { boot: true, ..written.clone() }, false)]
    {
        let life = Life::Dead { due: true, lived: false };
        let exporters = Exporters::from([(told.name.clone(), Started { volume: told.clone(), life })]);
        let desired = Desired { volumes: vec![state.clone()], ..golden().desired().clone() };
        let planned = plan(&State::check(desired).unwrap(), None, &exporters, &on(None));
        let same = [Action::Start(told.clone())];
        assert_eq!(planned.actions == same, is_same, "{:?}", planned.actions);
    }
    let stop = "stop the exporter of volume v1 (process 7)".to_owned();
    assert_eq!(of(Vec::new(), &wanted, Held::Filling), (vec![stop.clone()], Vec::new()), "called off");
    let mut other = wanted.clone();
    other.fill.as_mut().unwrap().store = "/elsewhere".into();
    let anew = of(vec![other], &wanted, Held::Filling);
    assert_eq!(anew.0, [stop, "start the exporter of volume v1 at /run/s1".to_owned()]);
    // What a host has had is never written over.
    let (actions, problems) = of(vec![wanted], &written, Held::Connected);
    assert!(
        actions.is_empty() && problems[0].contains("in use with other settings"),
        "{actions:?} {problems:?}"
    );
}

/// Whatever changes of a volume that is served to nobody at the moment: that its image was written is forgotten only with the volume.
#[test]
fn what_was_written_is_remembered_as_long_as_anybody_wants_the_volume() {
    let mut started = filled(1);
    started.fill.as_mut().unwrap().config = None;
    let fill = |change: fn(&mut protocol::dpu::Fill)| {
        let mut volume = filled(1);
        change(volume.fill.as_mut().unwrap());
        volume
    };
    let others = [
        Volume { deadline: Some(7), ..filled(1) },
        Volume { serial: "S".into(), ..filled(1) },
        Volume { fill: None, boot: true, ..filled(1) },
        fill(|fill| fill.store = "/elsewhere".into()),
        fill(|fill| fill.image = "ab".repeat(32).parse().unwrap()),
    ];
    let (free, failed) =
        (Life::Runs { pid: Some(7), held: Held::Free }, Life::Dead { due: true, lived: false });
    for life in [free, failed] {
        let exporters = Exporters::from([(started.name.clone(), Started { volume: started.clone(), life })]);
        let planned = |volumes: Vec<Volume>| {
            let desired = Desired { volumes, ..golden().desired().clone() };
            plan(&State::check(desired).unwrap(), None, &exporters, &on(None)).actions
        };
        let pid = if life == free { Some(7) } else { None };
        let stop = |then| Action::Stop { name: started.name.clone(), pid, then };
        for wanted in &others {
            let actions = planned(vec![wanted.clone()]);
            assert_eq!(actions, [stop(Then::Served), Action::Start(wanted.clone())], "{life:?}");
        }
        assert_eq!(planned(Vec::new()), [stop(Then::Forgotten)], "{life:?}");
    }
}

fn chassis() -> impl Strategy<Value = Chassis> {
    (0..2_u8, prop::bool::ANY, prop::option::of(1400..1402_u16)).prop_map(|(n, vxlan, mtu)| Chassis {
        system_id: format!("dpu-{n}"),
        ovn_remote: "tcp:192.0.2.1:6642".into(),
        encap: Encap {
            kind: if vxlan { EncapKind::Vxlan } else { EncapKind::Geneve },
            address: [192, 0, 2, 10 + n].into(),
        },
        datapath: Datapath::Netdev,
        mtu,
    })
}

prop_compose! {
    /// Four interfaces, each a host's port, one on the provisioning network, a mirror's output, or nothing; any logical port on
    /// any of them.
    fn states()(
        generation in 1..9_u64,
        chassis in chassis(),
        ids in Just([1_u128, 2, 3, 4]).prop_shuffle(),
        roles in prop::array::uniform4(0..4_u8),
        knobs in prop::array::uniform4((prop::option::of(1500..1502_u16), prop::option::of(1..3_u64),
            prop::option::of(1..3_u64), 0..3_u8, prop::option::of(1..3_u32))),
        sources in prop::array::uniform4(any::<prop::sample::Index>()),
        disks in Just([0_usize, 1, 2]).prop_shuffle(),
        volumes in prop::array::uniform3(prop::bool::ANY),
    ) -> State {
        let name = |n: usize| format!("i{n}").parse().unwrap();
        let of = |role| (0..4).filter(move |n: &usize| roles[*n] == role);
        let ports: Vec<Port> = of(1).map(|n| Port {
            interface: name(n),
            port: PortId(Uuid::from_u128(ids[n])),
            mac: protocol::MacAddr([2, 0, 0, 0, 0, ids[n] as u8]),
            mtu: knobs[n].0,
            ingress: knobs[n].1.map(|kbps| Rate { kbps, burst_kb: 1 }),
            egress_kbps: knobs[n].2,
        }).collect();
        let mirrors = of(2).filter(|_| !ports.is_empty()).map(|n| Mirror {
            name: format!("m{}", n % 4).parse().unwrap(),
            source: sources[n].get(&ports).interface.clone(),
            direction: [Direction::Both, Direction::FromHost, Direction::ToHost][usize::from(knobs[n].3)],
            output: name(n),
            gre: knobs[n].4.map(|key| Gre { remote: [192, 0, 2, 9].into(), key }),
        }).collect();
        let provisioning = of(3).map(|n| Access {
            interface: name(n),
            mac: protocol::MacAddr([2, 0, 0, 0, 0, ids[n] as u8]),
            bridge: "br-phy".parse().unwrap(),
        }).collect();
        let volumes = (0..3).filter(|n| volumes[*n]).map(|n| volume(n, disks[n])).collect();
        State::check(Desired { version: VERSION, generation, chassis, ports, provisioning, mirrors, volumes, discard: Vec::new(), functions: None }).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// From any state to any other, whatever others have in the database.
    #[test]
    fn one_plan_is_enough_and_touches_nobody_else(
        from in states(), to in states(), bridge in prop::bool::ANY, taken in prop::bool::ANY,
    ) {
        let mut database = Database::with_others(bridge, taken);
        let mut exporters = Exporters::new();
        for state in [&from, &to] {
            let (_, problems) = carry_out(state, &mut database, &mut exporters, &mut None);
            let is_clash = |line: &String| line.contains("somebody else") && taken;
            let volumes_keep_running = |line: &String| line.contains("in use") || line.contains(" waits: ");
            prop_assert!(problems.iter().all(|line| is_clash(line) || volumes_keep_running(line)), "{problems:?}");
            // OVN writes beside us; that is no difference.
            let ours: Vec<Uuid> = database.replica.rows("Interface")
                .filter(|(_, row)| row.get("external_ids").is_some_and(|ids| ids.text_at("iface-id").is_some()))
                .map(|(uuid, _)| uuid).collect();
            for uuid in ours {
                let mut row = database.replica.take("Interface", uuid).unwrap();
                mutate(row.entry("external_ids".into()), Mutator::Insert, Datum::map([("ovn-installed", "true")]));
                database.replica.put("Interface", uuid, row);
            }
            let again = plan(state, Some(&database.replica), &exporters, &on(None));
            prop_assert_eq!(again.actions, vec![], "a second plan");
            let view = View::of(&database.replica);
            prop_assert!(view.is_chassis_set(&state.desired().chassis));
            for port in &state.desired().ports {
                let clashes = port.interface.as_str() == "i0" || port.port.0.as_u128() == 1;
                prop_assert_eq!(in_the_way(&Plug::host(port), &view).is_some(), bridge && taken && clashes);
                prop_assert!(bridge && taken && clashes || view.is_set(&Plug::host(port)));
            }
            for access in &state.desired().provisioning {
                let clashes = bridge && taken && access.interface.as_str() == "i0";
                prop_assert!(clashes || view.is_set(&Plug::access(access)), "{access:?}");
            }
            let mirrors: BTreeSet<&str> = view.our_mirrors().map(|(_, name)| name).collect();
            for mirror in &state.desired().mirrors {
                let port = state.desired().ports.iter().find(|port| port.interface == mirror.source).unwrap();
                let plugs = [Plug::host(port), Plug::output(mirror)];
                let clashes = plugs.iter().any(|plug| in_the_way(plug, &view).is_some());
                prop_assert!(clashes || mirrors.contains(mirror.name.as_str()), "{mirror:?}");
            }
            let wanted = |name: &&str| state.desired().mirrors.iter().any(|mirror| mirror.name.as_str() == *name);
            prop_assert!(mirrors.iter().all(wanted), "{mirrors:?}");
            // Hosts let go of what runs: then the exporters are as desired, too.
            for started in exporters.values_mut() {
                started.life = Life::Runs { pid: Some(9), held: Held::Free };
            }
            carry_out(state, &mut database, &mut exporters, &mut None);
            let running: Vec<&Volume> = exporters.values().map(|started| &started.volume).collect();
            prop_assert_eq!(running, state.desired().volumes.iter().collect::<Vec<_>>());
        }
        // Nothing of ours is left where nothing is desired.
        let mut nothing = to.desired().clone();
        (nothing.ports, nothing.mirrors, nothing.volumes) = (vec![], vec![], vec![]);
        nothing.provisioning.clear();
        let nothing = State::check(nothing).unwrap();
        exporters.values_mut().for_each(|started| started.life = Life::Dead { due: true, lived: true });
        carry_out(&nothing, &mut database, &mut exporters, &mut None);
        prop_assert_eq!(View::of(&database.replica).our_ports().count(), 0);
        prop_assert_eq!(database.replica.len("QoS"), 1);
        prop_assert!(exporters.is_empty());
    }
}

proptest! {
    /// With a bus nobody has to unplug anything by hand: what is desired is plugged in, what is not is gone, and no exporter
    /// is ended that a host has. A volume with other settings is the exception.
    #[test]
    fn volumes_come_and_go_with_the_host_running(states in prop::collection::vec(states(), 1..4), dies in 0..12_usize) {
        let mut database = Database::with_others(false, false);
        let (mut exporters, mut bus) = (Exporters::new(), Some(Bus::default()));
        for state in &states {
            for round in 0..8 {
                let (actions, _) = carry_out(state, &mut database, &mut exporters, &mut bus);
                if round > 0 && actions.is_empty() {
                    break;
                }
                time_passes(&mut exporters, bus.as_mut().unwrap());
                if round == dies / 3 && let Some(started) = exporters.values_mut().nth(dies % 3) {
                    started.life = Life::Dead { due: true, lived: true };
                }
            }
            let again = plan(state, Some(&database.replica), &exporters, &on(bus.as_ref()));
            prop_assert_eq!(&again.actions, &vec![]);
            for volume in &state.desired().volumes {
                let is_there = exporters.get(&volume.name).is_some_and(|started| started.volume == *volume);
                let waits = again.problems.iter().any(|line| line.contains(volume.name.as_str()));
                let found = bus.as_ref().unwrap().of(&volume.name);
                prop_assert!(is_there && found == Some(Found::Plugged) || waits, "{volume:?} {found:?} {again:?}");
            }
            let wanted = |name: &Name| state.desired().volumes.iter().any(|volume| volume.name == *name);
            prop_assert!(exporters.keys().all(wanted), "{exporters:?}");
        }
    }
}

fn golden() -> State {
    State::parse(include_bytes!("../../../../protocol/src/dpu.v1.json")).unwrap()
}

#[test]
fn the_order_of_a_first_plan() {
    let (actions, problems) =
        carry_out(&golden(), &mut Database::with_others(false, false), &mut Exporters::new(), &mut None);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        actions,
        [
            "start the exporter of volume boot at /run/billet-dpu/boot.sock",
            "start the exporter of volume data at /run/billet-dpu/data.sock",
            "add bridge br-int",
            "set chassis dpu-17",
            "add port pf0hpf (logical port 5f6a4e3e-0000-4000-8000-000000000001)",
            "add port gre-watch (output of a mirror)",
            "add mirror watch of pf0hpf to gre-watch",
        ]
    );
}

/// A host that is deployed is on the provisioning network alone, and afterwards on its tenant's alone.
#[test]
fn a_host_goes_to_the_provisioning_network_and_back() {
    let mut database = Database::with_others(true, false);
    let mut exporters = Exporters::new();
    carry_out(&golden(), &mut database, &mut exporters, &mut None);
    let mut deploy = golden().desired().clone();
    let port = deploy.ports.remove(0);
    deploy.mirrors.clear();
    let bridge = "br-phy".parse().unwrap();
    deploy.provisioning = vec![Access { interface: port.interface, mac: port.mac, bridge }];
    let deploy = State::check(deploy).unwrap();
    let (actions, problems) = carry_out(&deploy, &mut database, &mut exporters, &mut None);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        actions[1..],
        ["remove port gre-watch", "remove port pf0hpf", "add port pf0hpf (on br-phy)"],
        "{actions:?}"
    );
    let (ports, _) = View::of(&database.replica).seen();
    assert_eq!((ports[0].bridge.as_deref(), ports[0].port.as_deref()), (Some("br-phy"), None));
    let (actions, _) = carry_out(&golden(), &mut database, &mut exporters, &mut None);
    assert_eq!(actions[0], "remove port pf0hpf");
    assert!(actions[1].starts_with("add port pf0hpf (logical port "), "{actions:?}");
    let mut nowhere = deploy.desired().clone();
    nowhere.provisioning[0].bridge = "br-none".parse().unwrap();
    let (actions, problems) =
        carry_out(&State::check(nowhere).unwrap(), &mut database, &mut exporters, &mut None);
    assert!(problems[0].contains("bridge br-none, which is not there"), "{problems:?}");
    assert!(!actions.iter().any(|action| action.contains("add port")), "{actions:?}");
}

#[test]
fn without_the_switch_disks_go_on() {
    let plan = plan(&golden(), None, &Exporters::new(), &on(None));
    assert!(plan.actions.iter().all(|action| matches!(action, Action::Start(_))) && plan.actions.len() == 2);
    let empty = super::plan(&golden(), Some(&Replica::default()), &Exporters::new(), &on(None));
    assert_eq!(empty.problems, ["Open vSwitch's database is empty: start ovs-vswitchd"]);
}

/// Each (life, wish, what the bus has) of one volume, and what is done.
#[test]
fn exporters_by_life_and_wish() {
    let runs = |pid, held| Life::Runs { pid, held };
    let lives = [
        ("runs, used", runs(Some(7), Held::Connected)),
        ("runs, lately used", runs(Some(7), Held::Lately)),
        ("runs, idle", runs(Some(7), Held::Free)),
        ("begins", runs(None, Held::Opening)),
        ("died", Life::Dead { due: true, lived: true }),
        ("dies at once", Life::Dead { due: true, lived: false }),
        ("dies at once, soon again", Life::Dead { due: false, lived: false }),
    ];
    let wishes = [("same", Some(volume(0, 0))), ("changed", Some(volume(0, 1))), ("none", None)];
    let on_bus =
        |found: Option<Found>| Bus(found.map(|found| ("v0".to_owned(), found)).into_iter().collect());
    let buses = [
        ("", None),
        (", not plugged", Some(on_bus(None))),
        (", plugged", Some(on_bus(Some(Found::Plugged)))),
        (", leaves", Some(on_bus(Some(Found::Leaves)))),
        (", remnant", Some(on_bus(Some(Found::Remnant)))),
    ];
    let mut table = String::new();
    for ((name, life), (where_it_is, bus)) in
        buses.iter().flat_map(|bus| lives.iter().map(move |life| (life, bus)))
    {
        for (wish, wanted) in &wishes {
            let mut desired = golden().desired().clone();
            desired.volumes = wanted.iter().cloned().collect();
            let have = volume(0, 0);
            let exporters = Exporters::from([(have.name.clone(), Started { volume: have, life: *life })]);
            let plan = plan(&State::check(desired).unwrap(), None, &exporters, &on(bus.as_ref()));
            let words = plan
                .actions
                .iter()
                .map(ToString::to_string)
                .chain(plan.problems.iter().map(|p| format!("! {p}")));
            let words = words.collect::<Vec<_>>().join("; ");
            table +=
                &format!("{name}{where_it_is} / {wish}: {}\n", if words.is_empty() { "-" } else { &words });
        }
    }
    insta::assert_snapshot!(table.trim_end());
}

/// A limit is changed under a host that uses the disk; everything else about it waits for the host.
#[test]
fn other_limits_of_a_volume_that_runs_are_set() {
    let limits = |iops| Some(protocol::dpu::IoLimits { iops: Some(iops), bytes_per_second: None });
    let have = Volume { limits: limits(5), ..volume(0, 0) };
    let life = Life::Runs { pid: Some(7), held: Held::Connected };
    let exporters = Exporters::from([(have.name.clone(), Started { volume: have.clone(), life })]);
    for wanted in [None, limits(5), limits(6)] {
        let want = Volume { limits: wanted, ..have.clone() };
        let mut desired = golden().desired().clone();
        desired.volumes = vec![want.clone()];
        let plan = plan(&State::check(desired).unwrap(), None, &exporters, &on(None));
        let expected = if wanted == have.limits { vec![] } else { vec![Action::Limit(want)] };
        assert_eq!(plan, Plan { actions: expected, problems: vec![] });
    }
}

/// The config was looked at before the host had the disk; one that never lived is begun anew with the right one.
#[test]
fn another_config_of_a_volume_that_runs_is_no_other_volume() {
    let text = include_str!("../../../../protocol/src/dpu-instant.v1.json");
    let mut volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
    volumes.truncate(1);
    let have = volumes[0].clone();
    let Exporter::Blk { serves: Serves::Image { config: Some(config), .. } } = &mut volumes[0].exporter
    else {
        panic!("no config")
    };
    config.vendor_data = "another token".to_owned();
    let mut desired = golden().desired().clone();
    desired.volumes = volumes;
    let state = State::check(desired).unwrap();
    for held in [Held::Connected, Held::Lately, Held::Free] {
        let life = Life::Runs { pid: Some(7), held };
        let exporters = Exporters::from([(have.name.clone(), Started { volume: have.clone(), life })]);
        assert_eq!(plan(&state, None, &exporters, &on(None)), Plan::default());
    }
    let life = Life::Dead { due: true, lived: false };
    let exporters = Exporters::from([(have.name.clone(), Started { volume: have, life })]);
    let [Action::Stop { .. }, Action::Start(volume)] = &plan(&state, None, &exporters, &on(None)).actions[..]
    else {
        panic!("not begun anew")
    };
    assert_eq!(volume, &state.desired().volumes[0]);
}

#[test]
fn a_disk_whose_access_ended_is_taken_from_its_host_and_given_anew() {
    let with = |secret: &str| {
        let mut volume = golden().desired().volumes[0].clone();
        volume.name = "v0".parse().unwrap();
        volume.exporter = Exporter::Qsd {
            backend: serde_json::from_value(serde_json::json!({
                "kind": "iscsi", "portal": "10.77.0.1:3260", "target": "iqn.2026-11.billet:v0", "lun": 1,
                "initiator": "iqn.2026-11.billet:dpu", "chap": {"user": "u", "password": secret},
            }))
            .unwrap(),
        };
        volume
    };
    let mut desired = golden().desired().clone();
    desired.volumes = vec![with("new-secret-0001")];
    let life = Life::Runs { pid: Some(7), held: Held::Connected };
    let exporters =
        Exporters::from([("v0".parse().unwrap(), Started { volume: with("old-secret-0001"), life })]);
    let planned = |found: Option<Found>| {
        let mut plan = Plan::default();
        let bus = Bus(found.map(|found| ("v0".to_owned(), found)).into_iter().collect());
        plan_exporters(&desired, &exporters, &on(Some(&bus)), &mut plan);
        plan
    };
    assert_eq!(planned(Some(Found::Plugged)).actions, [Action::Unplug("v0".parse().unwrap())]);
    assert_eq!(planned(Some(Found::Leaves)).actions, []);
    let waits = planned(None);
    assert!(waits.actions.is_empty() && waits.problems[0].contains("an access that ended"), "{waits:?}");
}
