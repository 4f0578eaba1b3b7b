//! Names of PCI devices, from the system's `pci.ids`.

use std::sync::OnceLock;

use protocol::inventory::Inventory;

/// Where distributions keep the list.
const FILES: &[&str] = &["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// The list, read when it is first needed. Without one, devices keep their numbers.
#[derive(Default)]
pub(super) struct Names(OnceLock<Option<pciid_parser::Database>>);

impl Names {
    /// Fills in the name of every device that is in the list. Reads a file the first time; call it where that may
    /// block.
    pub fn fill(&self, inventory: &mut Inventory) {
        let Some(list) = self.0.get_or_init(read) else { return };
        for device in &mut inventory.pci {
            let Some(vendor) = list.vendors.get(&device.vendor) else { continue };
            let name = vendor.devices.get(&device.device).map(|d| d.name.as_str());
            let text = match name {
                Some(name) => format!("{} {name}", vendor.name),
                None => format!("{} device {:04x}", vendor.name, device.device),
            };
            device.name = Some(text);
        }
    }
}

fn read() -> Option<pciid_parser::Database> {
    let Some(path) = FILES.iter().find(|path| std::path::Path::new(path).exists()) else {
        tracing::warn!(
            "no pci.ids on this machine: PCI devices are shown by number (install package pci.ids)"
        );
        return None;
    };
    pciid_parser::Database::read_from_file(path)
        .inspect_err(
            |error| tracing::warn!(%error, "pci.ids cannot be used: PCI devices are shown by number"),
        )
        .ok()
}
