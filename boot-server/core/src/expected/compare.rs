//! The comparison itself: one difference per part that is missing, different or too much, and one per cable.

use protocol::inventory::{Cpu, Dimm, Disk, Inventory, LldpNeighbour, Nic};

use super::assign::assign;
use super::{
    Difference, DiskKind, Expected, ExpectedCpus, ExpectedDimm, ExpectedDisk, ExpectedFirmware, ExpectedGpu,
    ExpectedNeighbour, ExpectedNic, PartKind, disk_kind, is_built_in, pci_text, same_text, version,
};
use crate::deploy::bytes;
use crate::node::Place;
use crate::plural::count;

/// What of a machine is not as expected, kind after kind, in the order of the model.
pub fn compare(expected: &Expected, inventory: &Inventory, place: Option<&Place>) -> Vec<Difference> {
    let mut out = Vec::new();
    if let Some(wanted) = &expected.cpus {
        cpus(wanted, &inventory.cpus, &mut out);
    }
    dimms(&expected.dimms, &inventory.dimms, &mut out);
    let disks: Vec<&Disk> = inventory.disks.iter().filter(|disk| is_built_in(disk)).collect();
    self::disks(&expected.disks, &disks, &mut out);
    nics(&expected.nics, &inventory.nics, place, &mut out);
    for wanted in &expected.gpus {
        gpus(wanted, inventory, &mut out);
    }
    if let Some(wanted) = &expected.firmware {
        firmware(wanted, inventory, &mut out);
    }
    out
}

/// A difference, without serial and part number.
fn differs(
    part: PartKind,
    slot: Option<String>,
    expected: Option<String>,
    found: Option<String>,
    what: String,
) -> Difference {
    Difference { part, slot, expected, found, what, serial: None, part_number: None, unheard: false }
}

fn cpus(wanted: &ExpectedCpus, found: &[Cpu], out: &mut Vec<Difference>) {
    let here = u32::try_from(found.len()).unwrap_or(u32::MAX);
    if here != wanted.sockets {
        let what = format!("{} are expected, {here} found", count(wanted.sockets, "processor"));
        let (w, h) = (wanted.sockets.to_string(), here.to_string());
        out.push(differs(PartKind::Cpu, None, Some(w), Some(h), what));
    }
    for cpu in found {
        let right = wanted.model.as_ref().is_none_or(|m| contains(&cpu.model, m))
            && wanted.cores.is_none_or(|cores| cores == cpu.cores);
        if !right {
            let model = wanted.model.clone().unwrap_or_else(|| cpu.model.clone());
            let expected = format!("{model}, {}", count(wanted.cores.unwrap_or(cpu.cores), "core"));
            let found = format!("{}, {}", cpu.model, count(cpu.cores, "core"));
            let slot = format!("CPU {}", cpu.socket);
            let what = format!("processor {} is {found}; expected {expected}", cpu.socket);
            out.push(differs(PartKind::Cpu, Some(slot), Some(expected), Some(found), what));
        }
    }
}

/// Pairs of what is expected and found: first those with a slot, by it; then the others. What is left is missing or too
/// much.
fn pairs<W, F>(
    wanted: &[W],
    found: &[F],
    in_slot: impl Fn(&W, &F) -> Option<bool>,
    cost: impl Fn(&W, &F) -> u32,
) -> (Vec<(usize, Option<usize>)>, Vec<usize>) {
    let mut of: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut taken = vec![false; found.len()];
    let slotted = |w: &W| found.first().is_some_and(|f| in_slot(w, f).is_some());
    for (at, w) in wanted.iter().enumerate().filter(|(_, w)| slotted(w)) {
        let fitting = found.iter().enumerate().filter(|(f, it)| !taken[*f] && in_slot(w, it) == Some(true));
        // Two ports of one card may have the same slot: the one that fits.
        if let Some((f, _)) = fitting.min_by_key(|(_, it)| cost(w, it)) {
            of[at] = Some(f);
            taken[f] = true;
        }
    }
    let free_wanted: Vec<usize> = (0..wanted.len()).filter(|w| !slotted(&wanted[*w])).collect();
    let free_found: Vec<usize> = (0..found.len()).filter(|f| !taken[*f]).collect();
    let rest = assign(free_wanted.len(), free_found.len(), |w, f| {
        Some(cost(&wanted[free_wanted[w]], &found[free_found[f]]))
    });
    for (w, f) in rest.into_iter().enumerate() {
        of[free_wanted[w]] = f.map(|f| free_found[f]);
        if let Some(f) = f {
            taken[free_found[f]] = true;
        }
    }
    let extra = (0..found.len()).filter(|f| !taken[*f]).collect();
    (of.into_iter().enumerate().collect(), extra)
}

fn dimms(wanted: &[ExpectedDimm], found: &[Dimm], out: &mut Vec<Difference>) {
    if wanted.is_empty() {
        return;
    }
    let wanted: Vec<&ExpectedDimm> =
        wanted.iter().flat_map(|w| std::iter::repeat_n(w, w.count as usize)).collect();
    let cost =
        |w: &&ExpectedDimm, f: &Dimm| u32::from(!dimm_fits(w, f)) + u32::from(w.size_bytes != f.size_bytes);
    let in_slot = |w: &&ExpectedDimm, f: &Dimm| w.slot.as_ref().map(|slot| same_text(slot, &f.locator));
    let (matched, extra) = pairs(&wanted, found, in_slot, cost);
    for (w, f) in matched {
        let wanted = wanted[w];
        let expected = dimm_words(wanted.size_bytes, wanted.speed_mts, wanted.part_number.as_deref());
        let Some(found) = f.map(|f| &found[f]) else {
            let what = match &wanted.slot {
                Some(slot) => format!("memory module in slot {slot} is missing; expected {expected}"),
                None => format!("a memory module is missing; expected {expected}"),
            };
            let mut missing = differs(PartKind::Dimm, wanted.slot.clone(), Some(expected), None, what);
            missing.part_number.clone_from(&wanted.part_number);
            out.push(missing);
            continue;
        };
        if !dimm_fits(wanted, found) {
            let here = dimm_words(
                found.size_bytes,
                wanted.speed_mts.and(found.speed_mts),
                wanted.part_number.as_ref().and(found.part_number.as_deref()),
            );
            let what = format!("memory module in slot {} is {here}; expected {expected}", found.locator);
            let slot = Some(found.locator.clone());
            let mut other = differs(PartKind::Dimm, slot, Some(expected), Some(here), what);
            other.serial.clone_from(&found.serial);
            other.part_number.clone_from(&wanted.part_number);
            out.push(other);
        }
    }
    for found in extra.into_iter().map(|f| &found[f]) {
        let here = dimm_words(found.size_bytes, found.speed_mts, found.part_number.as_deref());
        let what = format!("memory module in slot {} is not expected: {here}", found.locator);
        let mut extra = differs(PartKind::Dimm, Some(found.locator.clone()), None, Some(here), what);
        extra.serial.clone_from(&found.serial);
        out.push(extra);
    }
}

fn dimm_fits(wanted: &ExpectedDimm, found: &Dimm) -> bool {
    wanted.size_bytes == found.size_bytes
        && (wanted.speed_mts.is_none() || wanted.speed_mts == found.speed_mts)
        && wanted
            .part_number
            .as_ref()
            .is_none_or(|part| found.part_number.as_deref().is_some_and(|f| same_text(part, f)))
}

fn dimm_words(size: u64, speed: Option<u32>, part: Option<&str>) -> String {
    // Memory is sold in powers of two.
    let mut words = match size {
        size if size >= 1 << 30 && size.is_multiple_of(1 << 30) => format!("{} GiB", size >> 30),
        size => format!("{} MiB", size >> 20),
    };
    if let Some(speed) = speed {
        words.push_str(&format!(" at {speed} MT/s"));
    }
    if let Some(part) = part {
        words.push_str(&format!(", part {}", part.trim()));
    }
    words
}

fn disks(wanted: &[ExpectedDisk], found: &[&Disk], out: &mut Vec<Difference>) {
    if wanted.is_empty() {
        return;
    }
    let wanted: Vec<&ExpectedDisk> =
        wanted.iter().flat_map(|w| std::iter::repeat_n(w, w.count as usize)).collect();
    let in_slot = |w: &&ExpectedDisk, f: &&Disk| {
        w.slot.as_ref().map(|slot| f.bus_path.as_deref().is_some_and(|at| same_text(slot, at)))
    };
    let cost = |w: &&ExpectedDisk, f: &&Disk| {
        let size = w.size_bytes.is_none_or(|size| same_size(size, f.size_bytes));
        let kind = w.kind.is_none_or(|kind| kind == disk_kind(f));
        u32::from(!disk_fits(w, f)) + u32::from(!size) + u32::from(!kind)
    };
    let (matched, extra) = pairs(&wanted, found, in_slot, cost);
    for (w, f) in matched {
        let wanted = wanted[w];
        let expected =
            disk_words(wanted.kind, wanted.size_bytes, wanted.model.as_deref(), wanted.firmware.as_deref());
        let Some(found) = f.map(|f| found[f]) else {
            let what = match &wanted.slot {
                Some(slot) => format!("disk at {slot} is missing; expected {expected}"),
                None => format!("a disk is missing; expected {expected}"),
            };
            let mut missing = differs(PartKind::Disk, wanted.slot.clone(), Some(expected), None, what);
            missing.part_number.clone_from(&wanted.model);
            out.push(missing);
            continue;
        };
        if !disk_fits(wanted, found) {
            let here = disk_words(
                wanted.kind.map(|_| disk_kind(found)),
                wanted.size_bytes.map(|_| found.size_bytes),
                wanted.model.as_ref().and(found.model.as_deref()),
                wanted.firmware.as_ref().map(|_| found.firmware.as_deref().unwrap_or("unknown")),
            );
            let what = format!("disk {} is {here}; expected {expected}", disk_name(found));
            let mut other = differs(PartKind::Disk, disk_slot(found), Some(expected), Some(here), what);
            other.serial.clone_from(&found.serial);
            other.part_number.clone_from(&wanted.model);
            out.push(other);
        }
    }
    for found in extra.into_iter().map(|f| found[f]) {
        let here = disk_words(Some(disk_kind(found)), Some(found.size_bytes), found.model.as_deref(), None);
        let what = format!("disk {} is not expected: {here}", disk_name(found));
        let mut extra = differs(PartKind::Disk, disk_slot(found), None, Some(here), what);
        extra.serial.clone_from(&found.serial);
        out.push(extra);
    }
}

fn disk_fits(wanted: &ExpectedDisk, found: &Disk) -> bool {
    wanted.kind.is_none_or(|kind| kind == disk_kind(found))
        && wanted.size_bytes.is_none_or(|size| same_size(size, found.size_bytes))
        && wanted.model.as_ref().is_none_or(|m| found.model.as_deref().is_some_and(|f| contains(f, m)))
        && wanted.firmware.as_ref().is_none_or(|least| is_new_enough(found.firmware.as_deref(), least))
}

/// Makers count a terabyte differently: 2 % more or less are the same.
fn same_size(a: u64, b: u64) -> bool {
    u128::from(a.abs_diff(b)) * 50 <= u128::from(a)
}

fn disk_slot(disk: &Disk) -> Option<String> {
    Some(disk.bus_path.clone().unwrap_or_else(|| disk.name.clone()))
}

fn disk_name(disk: &Disk) -> String {
    match (&disk.bus_path, &disk.serial) {
        (Some(path), Some(serial)) => format!("at {path} (serial {serial})"),
        (Some(path), None) => format!("at {path}"),
        (None, Some(serial)) => format!("with serial {serial}"),
        (None, None) => disk.name.clone(),
    }
}

fn disk_words(
    kind: Option<DiskKind>,
    size: Option<u64>,
    model: Option<&str>,
    firmware: Option<&str>,
) -> String {
    let kind = kind.map(|kind| match kind {
        DiskKind::Nvme => "NVMe disk",
        DiskKind::Ssd => "SSD",
        DiskKind::Hdd => "spinning disk",
        DiskKind::Virtual => "virtual disk",
    });
    let mut words = vec![kind.unwrap_or("disk").to_owned()];
    words.extend(size.map(|size| format!("of {}", bytes(size))));
    words.extend(model.map(|model| format!("model {}", model.trim())));
    words.extend(firmware.map(|firmware| format!("firmware {firmware}")));
    words.join(" ")
}

fn nics(wanted: &[ExpectedNic], found: &[Nic], place: Option<&Place>, out: &mut Vec<Difference>) {
    if wanted.is_empty() {
        return;
    }
    let in_slot = |w: &ExpectedNic, f: &Nic| {
        let at = |slot: &String| {
            f.bus_path.as_deref().is_some_and(|at| same_text(slot, at)) || same_text(slot, &f.name)
        };
        w.slot.as_ref().map(at)
    };
    let cost =
        |w: &ExpectedNic, f: &Nic| u32::from(!nic_fits(w, f)) * 2 + u32::from(cable(w, f, place).is_some());
    let (matched, extra) = pairs(wanted, found, in_slot, cost);
    let mut placeless = 0_u32;
    for (w, f) in matched {
        let wanted = &wanted[w];
        let Some(found) = f.map(|f| &found[f]) else {
            let expected = nic_words(wanted.driver.as_deref(), wanted.speed_mbps, wanted.firmware.as_deref());
            let name = wanted.name.as_ref().or(wanted.slot.as_ref());
            let what = match name {
                Some(name) => format!("network port {name} is missing; expected {expected}"),
                None => format!("a network port is missing; expected {expected}"),
            };
            out.push(differs(PartKind::Nic, wanted.slot.clone(), Some(expected), None, what));
            continue;
        };
        if !nic_fits(wanted, found) {
            let expected = nic_words(wanted.driver.as_deref(), wanted.speed_mbps, wanted.firmware.as_deref());
            let here = nic_words(
                wanted.driver.as_ref().map(|_| found.driver.as_deref().unwrap_or("unknown")),
                wanted.speed_mbps.and(found.speed_mbps),
                wanted.firmware.as_ref().map(|_| found.firmware.as_deref().unwrap_or("unknown")),
            );
            let what = format!("network port {} is {here}; expected {expected}", nic_name(wanted, found));
            let mut other = differs(PartKind::Nic, nic_slot(wanted, found), Some(expected), Some(here), what);
            other.serial = Some(found.mac.to_string());
            out.push(other);
        }
        match cable(wanted, found, place) {
            Some(Cable::Placeless) => placeless += 1,
            Some(Cable::Wrong(difference)) => out.push(*difference),
            None => {}
        }
    }
    for found in extra.into_iter().map(|f| &found[f]) {
        let here = nic_words(found.driver.as_deref(), found.speed_mbps, None);
        let what = format!("network port {} ({}) is not expected: {here}", found.name, found.mac);
        let slot = found.bus_path.clone().or_else(|| Some(found.name.clone()));
        let mut extra = differs(PartKind::Nic, slot, None, Some(here), what);
        extra.serial = Some(found.mac.to_string());
        out.push(extra);
    }
    if placeless > 0 {
        let what = format!(
            "the cabling of {} is planned by rack and unit, and where the machine stands is not known",
            count(placeless, "port")
        );
        out.push(differs(PartKind::Place, None, Some("rack and unit".to_owned()), None, what));
    }
}

/// A speed that is not known, because there is no link, is the cable's affair.
fn nic_fits(wanted: &ExpectedNic, found: &Nic) -> bool {
    wanted.driver.as_ref().is_none_or(|d| found.driver.as_deref().is_some_and(|f| same_text(d, f)))
        && wanted.speed_mbps.is_none_or(|w| found.speed_mbps.is_none_or(|f| w == f))
        && wanted.firmware.as_ref().is_none_or(|least| is_new_enough(found.firmware.as_deref(), least))
}

fn nic_name(wanted: &ExpectedNic, found: &Nic) -> String {
    format!("{} ({})", wanted.name.as_ref().unwrap_or(&found.name), found.mac)
}

fn nic_slot(wanted: &ExpectedNic, found: &Nic) -> Option<String> {
    Some(wanted.name.clone().or_else(|| found.bus_path.clone()).unwrap_or_else(|| found.name.clone()))
}

fn nic_words(driver: Option<&str>, speed: Option<u32>, firmware: Option<&str>) -> String {
    let speed = speed.map(|mbps| match mbps {
        mbps if mbps >= 1000 && mbps.is_multiple_of(1000) => format!("{} Gbit/s", mbps / 1000),
        mbps => format!("{mbps} Mbit/s"),
    });
    let driver = driver.map(|driver| format!("driver {driver}"));
    let firmware = firmware.map(|firmware| format!("firmware {firmware}"));
    let words: Vec<String> = [driver, speed, firmware].into_iter().flatten().collect();
    if words.is_empty() { "any port".to_owned() } else { words.join(", ") }
}

/// What is wrong with a port's cable.
enum Cable {
    /// It cannot be told: the plan needs the machine's place.
    Placeless,
    Wrong(Box<Difference>),
}

fn cable(wanted: &ExpectedNic, found: &Nic, place: Option<&Place>) -> Option<Cable> {
    let name = nic_name(wanted, found);
    let slot = nic_slot(wanted, found);
    let wrong = |expected: Option<String>, here: Option<String>, what: String, unheard: bool| {
        let serial = Some(found.mac.to_string());
        let base = differs(PartKind::Cable, slot.clone(), expected, here, what);
        Some(Cable::Wrong(Box::new(Difference { serial, unheard, ..base })))
    };
    let plan = match wanted.neighbour.as_ref().map(|n| Planned::of(n, place)) {
        None => None,
        Some(None) => return Some(Cable::Placeless),
        Some(Some(plan)) => Some(plan),
    };
    let expected = plan.as_ref().map(Planned::words);
    if !found.carrier && (plan.is_some() || wanted.speed_mbps.is_some()) {
        let to = expected.as_ref().map(|to| format!("; expected on {to}")).unwrap_or_default();
        return wrong(expected, None, format!("port {name} has no link{to}"), false);
    }
    let (plan, expected) = (plan?, expected?);
    let Some(heard) = &found.lldp else {
        let what = format!("no neighbour has introduced itself on port {name}; expected {expected}");
        return wrong(Some(expected), None, what, true);
    };
    let (switch, port) = (plan.is_switch(heard), plan.is_port(heard));
    if switch && port {
        return None;
    }
    let here = format!("switch {} port {}", switch_of(heard), heard.port_id);
    let wanted_words = if switch { plan.port_words() } else { expected.clone() };
    wrong(
        Some(expected),
        Some(here.clone()),
        format!("port {name} is on {here}; expected {wanted_words}"),
        false,
    )
}

/// The plan of one port, for one machine.
struct Planned {
    switch: Option<String>,
    port: Option<String>,
}

impl Planned {
    fn of(wanted: &ExpectedNeighbour, place: Option<&Place>) -> Option<Self> {
        let fill = |template: &Option<super::Template>| match template {
            Some(template) => template.fill(place).map(Some),
            None => Some(None),
        };
        Some(Self { switch: fill(&wanted.switch)?, port: fill(&wanted.port)? })
    }

    fn is_switch(&self, heard: &LldpNeighbour) -> bool {
        let Some(wanted) = &self.switch else { return true };
        let label = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let name = heard.system_name.as_deref();
        name.is_some_and(|name| same_text(wanted, name) || same_text(wanted, &label(name)))
            || same_text(wanted, &heard.chassis_id)
    }

    fn is_port(&self, heard: &LldpNeighbour) -> bool {
        let Some(wanted) = &self.port else { return true };
        same_text(wanted, &heard.port_id)
            || heard.port_description.as_deref().is_some_and(|text| same_text(wanted, text))
    }

    fn words(&self) -> String {
        match (&self.switch, &self.port) {
            (Some(switch), Some(port)) => format!("switch {switch} port {port}"),
            (Some(switch), None) => format!("switch {switch}"),
            (None, Some(port)) => format!("port {port}"),
            (None, None) => "any neighbour".to_owned(),
        }
    }

    fn port_words(&self) -> String {
        self.port.as_ref().map(|port| format!("port {port}")).unwrap_or_default()
    }
}

fn switch_of(heard: &LldpNeighbour) -> &str {
    heard.system_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&heard.chassis_id)
}

fn gpus(wanted: &ExpectedGpu, inventory: &Inventory, out: &mut Vec<Difference>) {
    let found = inventory.pci.iter().filter(|d| same_text(&pci_text(d), &wanted.pci_id)).count();
    let here = u32::try_from(found).unwrap_or(u32::MAX);
    if here != wanted.count {
        let name = wanted.name.as_ref().unwrap_or(&wanted.pci_id);
        let what = format!("{} {name} are expected, {here} found", count(wanted.count, "GPU"));
        let (slot, expected) = (Some(wanted.pci_id.clone()), Some(wanted.count.to_string()));
        let mut fewer = differs(PartKind::Gpu, slot, expected, Some(here.to_string()), what);
        fewer.part_number.clone_from(&wanted.name);
        out.push(fewer);
    }
}

fn firmware(wanted: &ExpectedFirmware, inventory: &Inventory, out: &mut Vec<Difference>) {
    let bmc = inventory.bmc.as_ref().and_then(|bmc| bmc.firmware.as_deref());
    for (what, least, found) in
        [("BIOS", &wanted.bios, inventory.firmware.version.as_deref()), ("BMC", &wanted.bmc, bmc)]
    {
        if let Some(least) = least
            && !is_new_enough(found, least)
        {
            let here = found.unwrap_or("not known");
            let words = format!("firmware of the {what} is {here}; expected {least} or newer");
            let (expected, found) = (Some(least.clone()), found.map(str::to_owned));
            out.push(differs(PartKind::Firmware, Some(what.to_owned()), expected, found, words));
        }
    }
}

fn is_new_enough(found: Option<&str>, least: &str) -> bool {
    found.is_some_and(|found| version::cmp(found, least) != std::cmp::Ordering::Less)
}

fn contains(text: &str, part: &str) -> bool {
    let squeeze = |t: &str| t.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    squeeze(text).contains(&squeeze(part))
}
