//! A model from a machine that is as it should be.

use protocol::Timestamp;
use protocol::inventory::{Dimm, Disk, Inventory, LldpNeighbour, PciDevice};

use super::{
    Expected, ExpectedCpus, ExpectedDimm, ExpectedDisk, ExpectedGpu, ExpectedNeighbour, ExpectedNic, Model,
    Template, disk_kind, is_built_in, pci_text, same_text,
};
use crate::node::Place;

/// Makers of what only draws a console: controllers' chips and virtual machines.
const NO_GPU: [u16; 5] = [0x1a03, 0x102b, 0x1234, 0x1b36, 0x1af4];

/// What this machine is made of, as a model of this name. Where it is plugged in is taken over where that follows from its
/// place: names of a switch or port with the rack or the unit in them.
pub fn learn(name: &str, inventory: &Inventory, place: Option<&Place>) -> Model {
    Model {
        name: name.to_owned(),
        manufacturer: inventory.system.manufacturer.clone(),
        product: inventory.system.product.clone(),
        expected: Expected {
            cpus: inventory.cpus.first().map(|cpu| ExpectedCpus {
                sockets: u32::try_from(inventory.cpus.len()).unwrap_or(u32::MAX),
                model: Some(cpu.model.clone()).filter(|model| !model.trim().is_empty()),
                cores: Some(cpu.cores),
            }),
            firmware: None,
            dimms: dimms(&inventory.dimms),
            disks: disks(&inventory.disks),
            nics: inventory
                .nics
                .iter()
                .map(|nic| ExpectedNic {
                    name: None,
                    slot: nic.bus_path.clone(),
                    driver: nic.driver.clone(),
                    speed_mbps: nic.speed_mbps.filter(|_| nic.carrier),
                    firmware: None,
                    neighbour: nic
                        .lldp
                        .as_ref()
                        .zip(place)
                        .and_then(|(heard, place)| neighbour(heard, place)),
                })
                .collect(),
            gpus: gpus(&inventory.pci),
        },
        measured: None,
        changed: Timestamp::default(),
    }
}

/// A slot that several parts say they are in tells them apart no better than none.
fn alone<'a>(slot: Option<&'a str>, all: &[Option<&'a str>]) -> Option<String> {
    let slot = slot.filter(|slot| !slot.trim().is_empty())?;
    let same = all.iter().flatten().filter(|other| same_text(other, slot)).count();
    (same == 1).then(|| slot.to_owned())
}

fn dimms(found: &[Dimm]) -> Vec<ExpectedDimm> {
    let slots: Vec<_> = found.iter().map(|dimm| Some(dimm.locator.as_str())).collect();
    let dimm = |found: &Dimm| ExpectedDimm {
        slot: alone(Some(&found.locator), &slots),
        size_bytes: found.size_bytes,
        speed_mts: found.speed_mts,
        part_number: found.part_number.clone().filter(|part| !part.trim().is_empty()),
        count: 1,
    };
    found.iter().map(dimm).collect()
}

fn disks(found: &[Disk]) -> Vec<ExpectedDisk> {
    let found: Vec<&Disk> = found.iter().filter(|disk| is_built_in(disk)).collect();
    let slots: Vec<_> = found.iter().map(|disk| disk.bus_path.as_deref()).collect();
    let disk = |found: &&Disk| ExpectedDisk {
        slot: alone(found.bus_path.as_deref(), &slots),
        kind: Some(disk_kind(found)),
        size_bytes: Some(found.size_bytes),
        model: None,
        firmware: None,
        count: 1,
    };
    found.iter().map(disk).collect()
}

fn gpus(pci: &[PciDevice]) -> Vec<ExpectedGpu> {
    let mut out: Vec<ExpectedGpu> = Vec::new();
    // PCI class 03: display controllers.
    for device in pci.iter().filter(|d| d.class >> 16 == 3 && !NO_GPU.contains(&d.vendor)) {
        let id = pci_text(device);
        match out.iter_mut().find(|gpu| gpu.pci_id == id) {
            Some(gpu) => gpu.count += 1,
            None => out.push(ExpectedGpu { pci_id: id, name: device.name.clone(), count: 1 }),
        }
    }
    out
}

fn neighbour(heard: &LldpNeighbour, place: &Place) -> Option<ExpectedNeighbour> {
    let name = heard.system_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&heard.chassis_id);
    let (switch, port) = (templated(name, place), templated(&heard.port_id, place));
    (switch.is_some() || port.is_some()).then_some(ExpectedNeighbour { switch, port })
}

/// The text with the place's rack and unit as variables; `None` where neither is in it.
fn templated(text: &str, place: &Place) -> Option<Template> {
    let rack = place.rack.as_str();
    let unit = place.unit.map(|unit| unit.number().to_string());
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let before = out.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        if let Some(after) = rest.strip_prefix(rack)
            && !before
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            out.push_str("{rack}");
            (rest, found) = (after, true);
        } else if digits > 0 {
            let (number, after) = rest.split_at(digits);
            let is_unit = unit.as_deref() == Some(number);
            out.push_str(if is_unit { "{unit}" } else { number });
            (rest, found) = (after, found || is_unit);
        } else if let Some(c) = rest.chars().next() {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    if found { Template::try_from(out).ok() } else { None }
}
