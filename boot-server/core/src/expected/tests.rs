//! Differences in words, and what must hold for every machine: equal is empty, and one change is one difference.

use proptest::prelude::*;
use protocol::MacAddr;
use protocol::inventory::{
    Bmc, Cpu, Dimm, Disk, DiskContent, Inventory, LldpNeighbour, Nic, PciDevice, System, Transport,
};

use super::*;
use crate::node::place::Typed;

const GIB: u64 = 1 << 30;

fn place() -> Option<Place> {
    Place::typed(Typed { rack: "R4", unit: "12", ..Typed::default() }).unwrap()
}

fn dimm(slot: &str, gib: u64) -> Dimm {
    Dimm {
        locator: slot.into(),
        size_bytes: gib * GIB,
        speed_mts: Some(4800),
        serial: Some(format!("S{slot}")),
        part_number: Some("M321R2GA3BB6".into()),
        ..Dimm::default()
    }
}

fn disk(bay: u32, size: u64) -> Disk {
    Disk {
        id: None,
        name: format!("nvme{bay}n1"),
        bus_path: Some(format!("pci-0000:0{bay}:00.0")),
        model: Some("PM9A3".into()),
        serial: Some(format!("D{bay}")),
        wwn: None,
        firmware: Some("GDC5602Q".into()),
        size_bytes: size,
        logical_sector: 512,
        physical_sector: 4096,
        rotational: false,
        transport: Transport::Nvme,
        removable: false,
        read_only: false,
        content: DiskContent::Blank,
    }
}

fn nic(number: u8) -> Nic {
    Nic {
        name: format!("eth{number}"),
        mac: MacAddr([2, 0, 0, 0, 0, number]),
        permanent_mac: None,
        driver: Some("mlx5_core".into()),
        firmware: Some("22.31.1014".into()),
        speed_mbps: Some(25_000),
        carrier: true,
        bus_path: Some(format!("pci-0000:3b:00.{number}")),
        pci_id: None,
        address: None,
        address6: None,
        lldp: Some(LldpNeighbour {
            chassis_id: "aa:bb".into(),
            port_id: "Ethernet12".into(),
            system_name: Some(format!("sw-R4-{number}")),
            port_description: None,
            vlan: None,
        }),
    }
}

fn machine() -> Inventory {
    let cpu = |socket| Cpu {
        socket,
        model: "Intel(R) Xeon(R) Gold 6430".into(),
        cores: 32,
        threads: 64,
        ..Cpu::default()
    };
    let gpu = |n: u32| PciDevice {
        address: format!("0000:4{n}:00.0"),
        vendor: 0x10de,
        device: 0x2330,
        class: 0x03_0200,
        name: Some("H100".into()),
        ..PciDevice::default()
    };
    Inventory {
        system: System {
            manufacturer: Some("Dell Inc.".into()),
            product: Some("PowerEdge R760".into()),
            ..System::default()
        },
        cpus: vec![cpu(0), cpu(1)],
        dimms: vec![dimm("A1", 16), dimm("A2", 16), dimm("B1", 16), dimm("B2", 16)],
        disks: vec![disk(1, 960_197_124_096), disk(2, 960_197_124_096), disk(3, 3_840_755_982_336)],
        nics: vec![nic(1), nic(2)],
        pci: vec![gpu(1), gpu(2)],
        bmc: Some(Bmc { firmware: Some("7.10".into()), ..Bmc::default() }),
        ..Inventory::default()
    }
}

fn model() -> Model {
    learn("r760", &machine(), place().as_ref())
}

fn words(change: impl FnOnce(&mut Inventory)) -> Vec<String> {
    let mut machine = machine();
    change(&mut machine);
    compare(&model().expected, &machine, place().as_ref()).into_iter().map(|d| d.what).collect()
}

#[test]
fn differences_say_what_and_where() {
    let changes: Vec<(&str, Vec<String>)> = vec![
        ("missing DIMM", words(|m| drop(m.dimms.remove(1)))),
        ("small DIMM", words(|m| m.dimms[1].size_bytes = 8 * GIB)),
        ("slow DIMM", words(|m| m.dimms[1].speed_mts = Some(4400))),
        ("one DIMM more", words(|m| m.dimms.push(dimm("C1", 16)))),
        ("missing disk", words(|m| drop(m.disks.remove(2)))),
        ("other disk", words(|m| m.disks[0] = disk(1, 480_103_981_056))),
        ("missing port", words(|m| drop(m.nics.remove(1)))),
        ("slow port", words(|m| m.nics[0].speed_mbps = Some(10_000))),
        ("wrong switch port", words(|m| m.nics[0].lldp.as_mut().unwrap().port_id = "Ethernet7".into())),
        ("wrong switch", words(|m| m.nics[0].lldp.as_mut().unwrap().system_name = Some("sw-R5-1".into()))),
        (
            "no link",
            words(|m| (m.nics[0].carrier, m.nics[0].speed_mbps, m.nics[0].lldp) = (false, None, None)),
        ),
        ("silence", words(|m| m.nics[0].lldp = None)),
        ("missing CPU", words(|m| drop(m.cpus.pop()))),
        ("other CPU", words(|m| m.cpus[1].model = "Intel(R) Xeon(R) Silver 4416".into())),
        ("missing GPU", words(|m| drop(m.pci.pop()))),
    ];
    insta::assert_debug_snapshot!(changes);
}

#[test]
fn crossed_cables_are_two_differences() {
    let crossed = words(|m| {
        let (a, b) = (m.nics[0].lldp.clone(), m.nics[1].lldp.clone());
        (m.nics[0].lldp, m.nics[1].lldp) = (b, a);
    });
    assert_eq!(crossed.len(), 2, "{crossed:?}");
}

#[test]
fn without_a_place_the_plan_cannot_be_followed() {
    let found = compare(&model().expected, &machine(), None);
    let parts: Vec<_> = found.iter().map(|d| (d.part, d.what.as_str())).collect();
    assert_eq!(
        parts,
        [(
            PartKind::Place,
            "the cabling of 2 ports is planned by rack and unit, and where the machine stands is not known"
        )]
    );
    let elsewhere = Place::typed(Typed { rack: "R5", unit: "3", ..Typed::default() }).unwrap();
    assert_eq!(compare(&model().expected, &machine(), elsewhere.as_ref()).len(), 2);
}

#[test]
fn a_model_learns_its_cabling_from_the_place() {
    let neighbour = model().expected.nics[0].neighbour.clone().unwrap();
    assert_eq!(neighbour.switch.unwrap().as_str(), "sw-{rack}-1");
    assert_eq!(neighbour.port.unwrap().as_str(), "Ethernet{unit}");
    assert!(learn("x", &machine(), None).expected.nics.iter().all(|n| n.neighbour.is_none()));
}

#[test]
fn a_slot_that_two_parts_name_is_not_learned() {
    let mut machine = machine();
    machine.disks[1].bus_path = machine.disks[0].bus_path.clone();
    machine.nics[1].bus_path = machine.nics[0].bus_path.clone();
    let model = learn("m", &machine, place().as_ref());
    let slots: Vec<_> = model.expected.disks.iter().map(|d| d.slot.is_some()).collect();
    assert_eq!(slots, [false, false, true]);
    assert_eq!((model.check(), compare(&model.expected, &machine, place().as_ref())), (Ok(()), vec![]));
}

#[test]
fn parts_without_slots_are_counted() {
    let expected = Expected {
        dimms: vec![ExpectedDimm {
            slot: None,
            size_bytes: 16 * GIB,
            speed_mts: None,
            part_number: None,
            count: 4,
        }],
        disks: vec![
            ExpectedDisk {
                slot: None,
                kind: Some(DiskKind::Nvme),
                size_bytes: Some(960_000_000_000),
                model: None,
                firmware: None,
                count: 2,
            },
            ExpectedDisk { slot: None, kind: None, size_bytes: None, model: None, firmware: None, count: 1 },
        ],
        ..Expected::default()
    };
    assert_eq!(compare(&expected, &machine(), None), []);
    let mut less = machine();
    less.dimms.remove(0);
    less.disks.remove(0);
    let what: Vec<_> = compare(&expected, &less, None).into_iter().map(|d| d.what).collect();
    let missing = ["a memory module is missing; expected 16 GiB", "a disk is missing; expected disk"];
    assert_eq!(what[0], missing[0]);
    // Either of the two kinds may be the one that is missing: the other one took the disk that is left.
    assert_eq!(what.len(), 2, "{what:?}");
}

#[test]
fn a_model_is_for_its_machines() {
    let (model, machine) = (model(), machine());
    assert!(model.is_for(&machine));
    let other = Model { name: "other".into(), manufacturer: None, product: None, ..model.clone() };
    assert!(
        !other.is_for(&machine),
        "a model without maker and product is only for machines it is assigned to"
    );
    let all = [other.clone(), model.clone()];
    assert_eq!(model_of(&all, None, &machine).map(|m| m.name.as_str()), Some("r760"));
    assert_eq!(model_of(&all, Some("other"), &machine).map(|m| m.name.as_str()), Some("other"));
    assert_eq!(model_of(&all, Some("gone"), &machine), None);
    assert!(!model.overlaps(&other));
    let wider = Model { name: "dell".into(), product: None, ..model.clone() };
    assert!(model.overlaps(&wider) && wider.overlaps(&model));
}

#[test]
fn what_is_no_model_is_refused() {
    let of = |change: &dyn Fn(&mut Model)| {
        let mut model = model();
        change(&mut model);
        model.check().map_err(|e| e.what)
    };
    assert_eq!(of(&|_| ()), Ok(()));
    assert!(of(&|m| m.name = "R 760".into()).is_err());
    assert!(of(&|m| m.product = Some("a\u{1b}[31m".into())).is_err());
    assert_eq!(of(&|m| m.expected.dimms[0].count = 2).unwrap_err(), "slot A1 holds one part, and not 2");
    assert_eq!(of(&|m| m.expected.dimms[1].slot = Some("a1".into())).unwrap_err(), "slot a1 is there twice");
    assert_eq!(
        of(&|m| (m.expected.dimms[0].slot, m.expected.dimms[0].count) = (None, 1000)).unwrap_err(),
        "it has more than 512 memory modules"
    );
    assert!(of(&|m| m.expected.gpus[0].pci_id = "nvidia".into()).is_err());
    assert!(
        serde_json::from_str::<Model>(r#"{"name":"a","expected":{"dimm":[]}}"#).is_err(),
        "a misspelt kind"
    );
    assert!(
        serde_json::from_str::<Model>(r#"{"name":"a","expected":{"nics":[{"neighbour":{"port":"{x}"}}]}}"#)
            .is_err()
    );
}

/// A machine with so many parts, in an order that says nothing.
fn any_machine() -> impl Strategy<Value = Inventory> {
    let parts = (1_u64..8, 1_u32..8, 1_u8..6);
    (parts, any::<u64>()).prop_map(|((dimms, disks, nics), seed)| {
        let mut machine = machine();
        machine.dimms = (0..dimms).map(|n| dimm(&format!("A{n}"), 8 << (n % 3))).collect();
        machine.disks = (1..=disks).map(|n| disk(n, u64::from(n.min(3)) * 960_197_124_096)).collect();
        machine.nics = (0..nics).map(nic).collect();
        shuffle(&mut machine.dimms, seed);
        shuffle(&mut machine.disks, seed / 3);
        shuffle(&mut machine.nics, seed / 7);
        machine
    })
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for at in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(at, usize::try_from(seed >> 33).unwrap() % (at + 1));
    }
}

/// Changes one thing.
fn mutate(machine: &mut Inventory, kind: u8, which: usize) {
    let (dimms, disks, nics) = (machine.dimms.len(), machine.disks.len(), machine.nics.len());
    match kind {
        0 => drop(machine.dimms.remove(which % dimms)),
        1 => machine.dimms[which % dimms].size_bytes *= 4,
        2 => machine.dimms[which % dimms].speed_mts = Some(3200),
        3 => machine.dimms[which % dimms].part_number = None,
        4 => machine.dimms.push(dimm("Z9", 8)),
        5 => drop(machine.disks.remove(which % disks)),
        6 => machine.disks[which % disks].size_bytes *= 16,
        7 => machine.disks[which % disks].transport = Transport::Sata,
        8 => machine.disks.push(disk(9, 960_197_124_096)),
        9 => drop(machine.nics.remove(which % nics)),
        10 => machine.nics[which % nics].driver = Some("ixgbe".into()),
        11 => machine.nics[which % nics].speed_mbps = Some(1000),
        12 => machine.nics[which % nics].lldp.as_mut().unwrap().port_id = "Ethernet99".into(),
        13 => machine.nics[which % nics].lldp.as_mut().unwrap().system_name = Some("sw-R9-9".into()),
        14 => machine.nics[which % nics].lldp = None,
        15 => {
            let nic = &mut machine.nics[which % nics];
            (nic.carrier, nic.speed_mbps, nic.lldp) = (false, None, None);
        }
        16 => machine.nics.push(nic(9)),
        17 => drop(machine.cpus.pop()),
        18 => machine.cpus[0].cores = 16,
        19 => machine.cpus[1].model = "Other".into(),
        _ => drop(machine.pci.pop()),
    }
}

/// A model whose parts have no slots, so that they are found by what they are.
fn without_slots(mut model: Model) -> Model {
    model.expected.dimms.iter_mut().for_each(|d| d.slot = None);
    model.expected.disks.iter_mut().for_each(|d| d.slot = None);
    model.expected.nics.iter_mut().for_each(|n| n.slot = None);
    model
}

proptest! {
    #[test]
    fn equal_is_empty(machine in any_machine(), seed in any::<u64>()) {
        let model = learn("m", &machine, place().as_ref());
        prop_assert_eq!(model.check(), Ok(()));
        let mut again = machine;
        shuffle(&mut again.dimms, seed);
        shuffle(&mut again.disks, seed);
        shuffle(&mut again.nics, seed);
        prop_assert_eq!(compare(&model.expected, &again, place().as_ref()), vec![]);
        prop_assert_eq!(compare(&without_slots(model).expected, &again, place().as_ref()), vec![]);
    }

    #[test]
    fn one_change_is_one_difference(mut machine in any_machine(), kind in 0_u8..=20, which in 0_usize..64) {
        let model = learn("m", &machine, place().as_ref());
        mutate(&mut machine, kind, which);
        // The last part of a kind that is gone leaves nothing to compare with, and is missing all the same.
        let found = compare(&model.expected, &machine, place().as_ref());
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        let found = compare(&without_slots(model).expected, &machine, place().as_ref());
        prop_assert_eq!(found.len(), 1, "{:?}", found);
    }

    #[test]
    fn a_model_is_the_same_after_it_was_written(machine in any_machine()) {
        let model = learn("m", &machine, place().as_ref());
        let text = serde_json::to_string(&model).unwrap();
        prop_assert_eq!(serde_json::from_str::<Model>(&text).unwrap(), model);
    }
}
