//! Cuts what a machine reports to the limits of `protocol::limits`.

use protocol::erase::{EraseRecord, EraseResult, MachineRecord};
use protocol::inventory::{Disk, DiskContent, Inventory};
use protocol::limits::{DIMMS_MAX, DISKS_MAX, NICS_MAX, PCI_MAX, REPORTED_STRING_MAX};

/// CPU sockets of one machine; the largest have 32.
const CPUS_MAX: usize = 64;
/// Partitions of one disk that are shown; GPT has room for 128.
const PARTITIONS_MAX: usize = 128;
/// Methods that were not used for one disk; there are fewer.
const NOT_USED_MAX: usize = 32;
/// Boot entries, and warnings, of a machine that is cleaned.
const LINES_MAX: usize = 128;
/// Warnings of one inspection.
const WARNINGS_MAX: usize = 256;

/// Cuts a string to [`REPORTED_STRING_MAX`] octets at a character, and control characters to spaces.
pub(super) fn cut(text: &mut String) {
    let end = (0..=REPORTED_STRING_MAX.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
    text.truncate(end.unwrap_or(0));
    if text.chars().any(char::is_control) {
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
}

fn cut_all<'a>(texts: impl IntoIterator<Item = &'a mut Option<String>>) {
    texts.into_iter().flatten().for_each(cut);
}

/// Cuts the record of an erase.
pub(super) fn limit_record(record: &mut EraseRecord) {
    cut(&mut record.name);
    let EraseRecord { model, serial, wwn, firmware, .. } = record;
    cut_all([model, serial, wwn, firmware]);
    record.not_used.truncate(NOT_USED_MAX);
    record.not_used.iter_mut().for_each(|not| cut(&mut not.why));
    match &mut record.result {
        EraseResult::Erased => {}
        EraseResult::Failed { why } | EraseResult::Skipped { why } => cut(why),
    }
}

/// Cuts what is said of the rest of a machine.
pub(super) fn limit_machine(record: &mut MachineRecord) {
    record.tpm.as_mut().map(cut);
    for list in [&mut record.boot_entries_removed, &mut record.boot_entries_kept, &mut record.warnings] {
        list.truncate(LINES_MAX);
        list.iter_mut().for_each(cut);
    }
}

/// Cuts lists and strings. Returns what was lost, in words.
pub(super) fn limit(inventory: &mut Inventory) -> Option<String> {
    let mut lost = Vec::new();
    shorten(&mut inventory.nics, NICS_MAX, "network ports", &mut lost);
    shorten(&mut inventory.disks, DISKS_MAX, "disks", &mut lost);
    shorten(&mut inventory.dimms, DIMMS_MAX, "memory modules", &mut lost);
    shorten(&mut inventory.pci, PCI_MAX, "PCI functions", &mut lost);
    shorten(&mut inventory.cpus, CPUS_MAX, "processors", &mut lost);
    shorten(&mut inventory.warnings, WARNINGS_MAX, "warnings", &mut lost);
    for disk in &mut inventory.disks {
        limit_disk(disk, &mut lost);
    }
    limit_strings(inventory);
    (!lost.is_empty()).then(|| format!("the inventory was too long and was cut: {}", lost.join(", ")))
}

fn shorten<T>(list: &mut Vec<T>, max: usize, what: &str, lost: &mut Vec<String>) {
    if list.len() > max {
        lost.push(format!("{} {what} instead of {max}", list.len()));
        list.truncate(max);
    }
}

fn limit_disk(disk: &mut Disk, lost: &mut Vec<String>) {
    cut(&mut disk.name);
    let Disk { bus_path, model, serial, wwn, firmware, .. } = disk;
    cut_all([bus_path, model, serial, wwn, firmware]);
    // A name that had to be cut or cleaned would no longer be the one that the agent knows.
    let unfit = |id: &str| id.len() > REPORTED_STRING_MAX || id.chars().any(char::is_control);
    if disk.id.as_ref().is_some_and(|id| unfit(id.as_str())) {
        lost.push(format!("the name of disk {}", disk.name));
        disk.id = None;
    }
    match &mut disk.content {
        DiskContent::Partitioned { table, partitions } => {
            cut(table);
            shorten(partitions, PARTITIONS_MAX, "partitions", lost);
            for partition in partitions {
                cut_all([&mut partition.name, &mut partition.content]);
            }
        }
        DiskContent::Signature { name } => cut(name),
        DiskContent::Unreadable { error } => cut(error),
        DiskContent::Blank | DiskContent::Unknown => {}
    }
}

fn limit_strings(inventory: &mut Inventory) {
    let s = &mut inventory.system;
    cut_all([&mut s.manufacturer, &mut s.product, &mut s.serial, &mut s.sku, &mut s.board_manufacturer]);
    cut_all([&mut s.board_product, &mut s.board_serial, &mut s.chassis_serial, &mut s.asset_tag]);
    let f = &mut inventory.firmware;
    cut_all([&mut f.vendor, &mut f.version, &mut f.date]);
    for cpu in &mut inventory.cpus {
        [&mut cpu.model, &mut cpu.vendor, &mut cpu.architecture].into_iter().for_each(cut);
    }
    for dimm in &mut inventory.dimms {
        cut(&mut dimm.locator);
        cut_all([&mut dimm.kind, &mut dimm.manufacturer, &mut dimm.serial, &mut dimm.part_number]);
    }
    for nic in &mut inventory.nics {
        cut(&mut nic.name);
        cut_all([&mut nic.driver, &mut nic.firmware, &mut nic.bus_path, &mut nic.pci_id]);
        if let Some(lldp) = &mut nic.lldp {
            cut(&mut lldp.chassis_id);
            cut(&mut lldp.port_id);
            cut_all([&mut lldp.system_name, &mut lldp.port_description]);
        }
    }
    for device in &mut inventory.pci {
        cut(&mut device.address);
        cut_all([&mut device.driver, &mut device.name]);
    }
    if let Some(bmc) = &mut inventory.bmc {
        cut_all([&mut bmc.firmware]);
    }
    inventory.warnings.iter_mut().for_each(cut);
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::inventory::PciDevice;

    #[test]
    fn strings_are_cut_at_a_character() {
        let mut text = "ä".repeat(400);
        cut(&mut text);
        assert_eq!(text.len(), 512);
        let mut text = format!("x{}", "ä".repeat(400));
        cut(&mut text);
        assert_eq!(text.len(), 511);
        let mut text = "a\u{1b}[31mb\n".to_owned();
        cut(&mut text);
        assert_eq!(text, "a [31mb ");
    }

    #[test]
    fn lists_are_cut_and_that_is_said() {
        let mut inventory =
            Inventory { pci: vec![PciDevice::default(); PCI_MAX + 1], ..Inventory::default() };
        let said = limit(&mut inventory).unwrap();
        assert_eq!(said, "the inventory was too long and was cut: 4097 PCI functions instead of 4096");
        assert_eq!(inventory.pci.len(), PCI_MAX);
        assert_eq!(limit(&mut inventory), None);
    }
}
