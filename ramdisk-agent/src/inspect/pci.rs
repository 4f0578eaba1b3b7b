//! PCI functions, as numbers; the server knows their names.

use protocol::inventory::PciDevice;
use protocol::limits::PCI_MAX;

use super::tree::Tree;

/// Every function.
pub fn functions(tree: &Tree, warnings: &mut Vec<String>) -> Vec<PciDevice> {
    let base = "sys/bus/pci/devices";
    let mut found: Vec<_> = tree
        .list(base)
        .into_iter()
        .filter_map(|address| {
            let hex = |leaf: &str| tree.hex(format!("{base}/{address}/{leaf}"));
            let short = |leaf: &str| hex(leaf).and_then(|v| u16::try_from(v).ok());
            Some(PciDevice {
                vendor: short("vendor")?,
                device: short("device")?,
                subsystem_vendor: short("subsystem_vendor").unwrap_or(0),
                subsystem_device: short("subsystem_device").unwrap_or(0),
                class: hex("class").unwrap_or(0) & 0xff_ffff,
                driver: tree.link_name(format!("{base}/{address}/driver")),
                name: None,
                address,
            })
        })
        .collect();
    found.sort_by(|a, b| a.address.cmp(&b.address));
    if found.len() > PCI_MAX {
        warnings.push(format!("{} PCI functions, only the first {PCI_MAX} are listed", found.len()));
        found.truncate(PCI_MAX);
    }
    found
}
