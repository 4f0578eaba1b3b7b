//! Looking at the machine. A collector that fails adds a warning and never stops the others; each reads below a root,
//! so that recorded trees are tests.

pub mod bmc;
pub mod disks;
pub mod lldp;
pub mod machine;
pub mod nics;
pub mod pci;
pub mod tree;

use std::fmt::Write;
use std::path::Path;

use protocol::inventory::Inventory;
use ramdisk_agent_core::plan;

use lldp::Neighbours;
use tree::Tree;

/// The whole machine below `root`.
pub fn collect(root: &Path, neighbours: &Neighbours) -> Inventory {
    let tree = Tree::new(root);
    let mut warnings = Vec::new();
    let smbios = machine::smbios(&tree, &mut warnings);
    Inventory {
        system: smbios.system,
        firmware: machine::firmware(&tree, smbios.firmware),
        cpus: machine::cpus(&tree, &mut warnings),
        memory_bytes: machine::memory(&tree, &mut warnings),
        dimms: smbios.dimms,
        disks: disks::disks(&tree, &mut warnings),
        nics: nics::nics(&tree, neighbours, &mut warnings),
        pci: pci::functions(&tree, &mut warnings),
        bmc: bmc::bmc(&tree, &mut warnings),
        tpm: machine::tpm(&tree),
        warnings,
    }
}

/// A few lines for people.
pub fn text(inventory: &Inventory) -> String {
    let mut out = String::new();
    let s = &inventory.system;
    let or = |t: &Option<String>| t.clone().unwrap_or_else(|| "?".to_owned());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} {}, serial {}", or(&s.manufacturer), or(&s.product), or(&s.serial));
    let _ = writeln!(out, "{:?}, memory {} MiB", inventory.firmware.mode, inventory.memory_bytes >> 20);
    for c in &inventory.cpus {
        let _ = writeln!(out, "cpu {}: {}, {} cores, {} threads", c.socket, c.model, c.cores, c.threads);
    }
    for d in &inventory.disks {
        let _ = writeln!(out, "disk {}", plan::describe(d));
    }
    for n in &inventory.nics {
        let link = if n.carrier { "link" } else { "no link" };
        let peer =
            n.lldp.as_ref().map_or(String::new(), |l| format!(", {} {}", or(&l.system_name), l.port_id));
        let _ = writeln!(out, "port {} {} {link}{peer}", n.name, n.mac);
    }
    for w in &inventory.warnings {
        let _ = writeln!(out, "warning: {w}");
    }
    out
}
