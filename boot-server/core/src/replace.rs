//! Replace by clone: whether one machine can take the part of another, on which disk, and by which ports.

use protocol::MacAddr;
use protocol::inventory::{Disk, Inventory};

use crate::deploy::{DiskChoice, DiskRule, bytes, is_candidate};
use crate::expected::disk_kind;
use crate::node::StaticNetwork;

/// Memory that may be missing without being less: firmware keeps some of it, and not the same everywhere.
const MEMORY_SLACK_PERCENT: u64 = 3;

/// What the new machine has less of than the old one, each in words.
pub fn less(old: &Inventory, new: &Inventory) -> Vec<String> {
    let cores = |inventory: &Inventory| inventory.cpus.iter().map(|cpu| cpu.cores).sum::<u32>();
    let mut out = Vec::new();
    if cores(new) < cores(old) {
        out.push(format!("it has {} cores, the old one has {}", cores(new), cores(old)));
    }
    if new.memory_bytes < old.memory_bytes / 100 * (100 - MEMORY_SLACK_PERCENT) {
        out.push(format!(
            "it has {} of memory, the old one has {}",
            bytes(new.memory_bytes),
            bytes(old.memory_bytes)
        ));
    }
    if new.nics.len() < old.nics.len() {
        out.push(format!("it has {} network ports, the old one has {}", new.nics.len(), old.nics.len()));
    }
    let room = |inventory: &Inventory| -> u64 {
        inventory.disks.iter().filter(|disk| is_candidate(disk)).map(|disk| disk.size_bytes).sum()
    };
    // As in a bill of materials: 2 % are the same.
    if room(new) < room(old) / 50 * 49 {
        out.push(format!("its disks hold {}, those of the old one {}", bytes(room(new)), bytes(room(old))));
    }
    out
}

/// The disk of the new machine that plays the part of the one that was chosen in the old. A rule stays a rule; a disk
/// becomes one of its kind that is not smaller: the one in the same slot, else the smallest.
///
/// # Errors
/// In words, where there is none or several are alike.
pub fn disk(choice: &DiskChoice, old: Option<&Inventory>, new: &Inventory) -> Result<DiskChoice, String> {
    let DiskChoice::Id(id) = choice else { return Ok(choice.clone()) };
    let was = old.and_then(|old| old.disks.iter().find(|disk| disk.id.as_ref() == Some(id)));
    let Some(was) = was else { return Ok(DiskChoice::Rule(DiskRule::Only)) };
    let fits = |disk: &&Disk| {
        is_candidate(disk)
            && disk_kind(disk) == disk_kind(was)
            && disk.size_bytes >= was.size_bytes / 50 * 49
            && disk.logical_sector == was.logical_sector
    };
    let mut fitting: Vec<&Disk> = new.disks.iter().filter(fits).collect();
    fitting.sort_by_key(|disk| disk.size_bytes);
    let in_slot = fitting.iter().find(|disk| disk.bus_path.is_some() && disk.bus_path == was.bus_path);
    let chosen = match (in_slot, fitting.as_slice()) {
        (Some(disk), _) => disk,
        (None, [only]) => only,
        (None, [first, second, ..]) if first.size_bytes < second.size_bytes => first,
        (None, []) => {
            let size = bytes(was.size_bytes);
            return Err(format!("it has no disk like {id} ({size}) that the OS was on"));
        }
        (None, [..]) => {
            return Err(format!("several of its disks are like {id} that the OS was on: deploy it by hand"));
        }
    };
    chosen.id.clone().map(DiskChoice::Id).ok_or_else(|| "its disk has no stable name".to_owned())
}

/// Ports of the old machine with those of the new one that play their part: by slot, else by order.
pub fn ports(old: &Inventory, new: &Inventory) -> Vec<(MacAddr, MacAddr)> {
    let mut free: Vec<_> = new.nics.iter().collect();
    let mut pairs = Vec::new();
    let mut rest = Vec::new();
    for nic in &old.nics {
        let same = free.iter().position(|n| n.bus_path.is_some() && n.bus_path == nic.bus_path);
        match same {
            Some(at) => pairs.push((nic.mac, free.remove(at).mac)),
            None => rest.push(nic.mac),
        }
    }
    pairs.extend(rest.into_iter().zip(free).map(|(mac, nic)| (mac, nic.mac)));
    pairs
}

/// A text with the addresses of the old ports replaced by those of the new ones, in whichever way they are written. Each
/// place is replaced once, so ports that change places do so.
pub fn rewrite(text: &str, ports: &[(MacAddr, MacAddr)]) -> String {
    let forms: Vec<(String, String)> = ports
        .iter()
        .flat_map(|(old, new)| {
            let (old, new) = (old.to_string(), new.to_string());
            [(old.replace(':', "-"), new.replace(':', "-")), (old, new)]
        })
        .collect();
    let lower = text.to_ascii_lowercase();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while at < text.len() {
        match forms.iter().find(|(old, _)| lower[at..].starts_with(&old.to_ascii_lowercase())) {
            Some((old, new)) => {
                out.push_str(new);
                at += old.len();
            }
            None => {
                let width = text[at..].chars().next().map_or(1, char::len_utf8);
                out.push_str(&text[at..at + width]);
                at += width;
            }
        }
    }
    out
}

/// Network settings of the old machine, for the port of the new one.
pub fn network(settings: &StaticNetwork, ports: &[(MacAddr, MacAddr)]) -> StaticNetwork {
    let moved = |mac: MacAddr| ports.iter().find(|(old, _)| *old == mac).map(|(_, new)| *new);
    StaticNetwork { mac: settings.mac.and_then(moved), ..settings.clone() }
}

/// The name that the old machine gets: `NAME-replaced`, with a number where that is taken. At most 63 characters (RFC 1123).
pub fn old_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let stem: String = name.chars().take(48).collect();
    let stem = stem.trim_end_matches('-');
    let first = format!("{stem}-replaced");
    if !taken(&first) {
        return first;
    }
    (2_u32..=u32::MAX).map(|n| format!("{stem}-replaced-{n}")).find(|name| !taken(name)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::inventory::{Cpu, DiskContent, Nic, Transport};

    use super::*;

    fn disk_of(serial: &str, size: u64, slot: &str) -> Disk {
        Disk {
            id: Some(format!("serial:{serial}").parse().unwrap()),
            name: "sda".into(),
            bus_path: Some(slot.into()),
            model: None,
            serial: Some(serial.into()),
            wwn: None,
            firmware: None,
            size_bytes: size,
            logical_sector: 512,
            physical_sector: 512,
            rotational: false,
            transport: Transport::Nvme,
            removable: false,
            read_only: false,
            content: DiskContent::Blank,
        }
    }

    fn nic(number: u8, slot: &str) -> Nic {
        Nic {
            name: format!("eth{number}"),
            mac: MacAddr([2, 0, 0, 0, 0, number]),
            permanent_mac: None,
            driver: None,
            firmware: None,
            speed_mbps: None,
            carrier: true,
            bus_path: Some(slot.into()),
            pci_id: None,
            address: None,
            address6: None,
            lldp: None,
        }
    }

    fn machine(disks: Vec<Disk>, nics: Vec<Nic>) -> Inventory {
        let cpus = vec![Cpu { cores: 8, ..Cpu::default() }];
        Inventory { cpus, memory_bytes: 64 << 30, disks, nics, ..Inventory::default() }
    }

    #[test]
    fn what_is_less_is_named() {
        let old = machine(vec![disk_of("A", 960_000_000_000, "s1")], vec![nic(1, "p1"), nic(2, "p2")]);
        assert_eq!(less(&old, &old), [""; 0]);
        let mut new = machine(vec![disk_of("B", 480_000_000_000, "s1")], vec![nic(3, "p1")]);
        new.memory_bytes = 32 << 30;
        new.cpus[0].cores = 4;
        assert_eq!(less(&old, &new).len(), 4, "{:?}", less(&old, &new));
    }

    #[test]
    fn the_disk_that_plays_its_part() {
        let tb = 960_000_000_000;
        let old = machine(vec![disk_of("OLD", tb, "s1")], vec![]);
        let choice = DiskChoice::Id("serial:OLD".parse().unwrap());
        let of = |disks: Vec<Disk>| disk(&choice, Some(&old), &machine(disks, vec![]));
        let id = |serial: &str| Ok(DiskChoice::Id(format!("serial:{serial}").parse().unwrap()));
        assert_eq!(of(vec![disk_of("A", 2 * tb, "s2"), disk_of("B", tb, "s3")]), id("B"));
        assert_eq!(of(vec![disk_of("A", tb, "s1"), disk_of("B", tb, "s3")]), id("A"), "the same slot");
        assert!(of(vec![disk_of("A", tb, "s2"), disk_of("B", tb, "s3")]).is_err(), "two are alike");
        assert!(of(vec![disk_of("A", tb / 2, "s1")]).is_err(), "too small");
        let rule = DiskChoice::Rule(DiskRule::Smallest);
        assert_eq!(disk(&rule, Some(&old), &old), Ok(rule.clone()));
        assert_eq!(disk(&choice, None, &old), Ok(DiskChoice::Rule(DiskRule::Only)));
    }

    #[test]
    fn ports_change_places_in_a_text_once() {
        let old = machine(vec![], vec![nic(1, "p1"), nic(2, "p2")]);
        let new = machine(vec![], vec![nic(2, "p1"), nic(1, "p9")]);
        let ports = ports(&old, &new);
        assert_eq!(ports.len(), 2);
        let text = "a: {macaddress: \"02:00:00:00:00:01\"}, b: 02-00-00-00-00-02, c: 02:00:00:00:00:02é";
        assert_eq!(
            rewrite(text, &ports),
            "a: {macaddress: \"02:00:00:00:00:02\"}, b: 02-00-00-00-00-01, c: 02:00:00:00:00:01é"
        );
    }

    #[test]
    fn the_old_one_gets_a_name_that_is_free() {
        assert_eq!(old_name("web-1", |_| false), "web-1-replaced");
        assert_eq!(old_name("web-1", |name| name == "web-1-replaced"), "web-1-replaced-2");
        assert!(old_name(&"a".repeat(63), |_| false).len() <= 63);
    }

    proptest! {
        #[test]
        fn a_text_without_addresses_stays(text in "[^0-9]{0,60}") {
            let pairs = [(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))];
            prop_assert_eq!(rewrite(&text, &pairs), text);
        }
    }
}
