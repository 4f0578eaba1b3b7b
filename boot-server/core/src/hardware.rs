//! What a machine is, in the facts that rules speak of: taken from the agent's inventory, and from what people say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use protocol::inventory::{FirmwareMode, Inventory, PciDevice, Transport};
use serde::{Deserialize, Serialize};

use crate::names::Tag;

/// Display adapters of management controllers and of virtual machines: no GPU that somebody would ask for. ASPEED, Matrox,
/// Cirrus, Bochs, virtio, QXL, VMware.
const NO_GPU: [u16; 7] = [0x1a03, 0x102b, 0x1013, 0x1234, 0x1af4, 0x1b36, 0x15ad];
/// Base class of display controllers (PCI Code and ID Assignment 1.11).
const DISPLAY: u32 = 0x03;
/// Base class of processing accelerators; AMD's Instinct cards have it.
const ACCELERATOR: u32 = 0x12;
/// AMD.
const AMD: u16 = 0x1002;
/// DPUs by vendor and device: NVIDIA BlueField to BlueField-4, AMD Pensando, Intel E2000.
const DPUS: [(u16, u16); 7] = [
    (0x15b3, 0xa2d2),
    (0x15b3, 0xa2d6),
    (0x15b3, 0xa2dc),
    (0x15b3, 0xa2df),
    (0x1dd8, 0x1002),
    (0x1dd8, 0x1003),
    (0x8086, 0x1453),
];

/// A machine in facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = HardwareFacts))]
#[serde(default)]
pub struct Hardware {
    /// Who made it.
    pub vendor: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// As `uname -m` says it.
    pub architecture: Option<String>,
    /// How it boots.
    pub firmware: FirmwareMode,
    /// Populated sockets.
    pub sockets: u32,
    /// Cores of all sockets.
    pub cores: u32,
    /// Hardware threads of all sockets.
    pub threads: u32,
    /// Memory in bytes: the sum of its modules, which is what people buy; where they are not known, what the kernel sees.
    pub memory_bytes: u64,
    /// Disks that an OS can be on: no removable media.
    pub disks: Vec<DiskFact>,
    /// Network ports.
    pub nics: Vec<NicFact>,
    /// GPUs, without the display adapters of management controllers.
    pub gpus: Vec<CardFact>,
    /// DPUs.
    pub dpus: Vec<CardFact>,
    /// What people say of it.
    pub tags: BTreeSet<Tag>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskFact {
    /// What kind.
    pub kind: DiskKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// What kind of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// NVMe.
    Nvme,
    /// Flash behind SATA, SAS or a virtual controller.
    Ssd,
    /// Spinning.
    Hdd,
}

impl DiskKind {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
        }
    }
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A network port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NicFact {
    /// Speed of the link in Mbit/s, when it was last inspected; `None` without carrier.
    pub speed_mbps: Option<u32>,
    /// Kernel driver.
    pub driver: Option<String>,
    /// PCI vendor:device, such as `15b3:1021`.
    pub device: Option<String>,
}

/// A card in a slot, however many PCI functions it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CardFact {
    /// PCI vendor:device, such as `10de:2330`.
    pub device: String,
    /// Name, where the PCI id database has one.
    pub name: Option<String>,
}

/// Bytes of memory that a machine has, as people count them: its modules, of which a kernel never has all for itself.
pub fn installed_memory(inventory: &Inventory) -> u64 {
    let modules = inventory.dimms.iter().fold(0_u64, |sum, dimm| sum.saturating_add(dimm.size_bytes));
    modules.max(inventory.memory_bytes)
}

impl Hardware {
    /// What the inventory says. Tags come from people: [`Hardware::tagged`].
    pub fn of(inventory: &Inventory) -> Self {
        let sum = |of: fn(&protocol::inventory::Cpu) -> u32| {
            inventory.cpus.iter().fold(0_u32, |sum, cpu| sum.saturating_add(of(cpu)))
        };
        Self {
            vendor: inventory.system.manufacturer.clone(),
            model: inventory.system.product.clone(),
            serial: inventory.system.serial.clone(),
            architecture: inventory.cpus.first().map(|cpu| cpu.architecture.clone()),
            firmware: inventory.firmware.mode,
            sockets: u32::try_from(inventory.cpus.len()).unwrap_or(u32::MAX),
            cores: sum(|cpu| cpu.cores),
            threads: sum(|cpu| cpu.threads),
            memory_bytes: installed_memory(inventory),
            disks: disks(inventory),
            nics: inventory
                .nics
                .iter()
                .map(|nic| NicFact {
                    speed_mbps: nic.speed_mbps.filter(|_| nic.carrier),
                    driver: nic.driver.clone(),
                    device: nic.pci_id.clone(),
                })
                .collect(),
            gpus: cards(&inventory.pci, is_gpu),
            dpus: cards(&inventory.pci, |card| DPUS.contains(&(card.vendor, card.device))),
            tags: BTreeSet::new(),
        }
    }

    /// The same machine with these tags.
    pub fn tagged(self, tags: BTreeSet<Tag>) -> Self {
        Self { tags, ..self }
    }

    /// Bytes of all disks.
    pub fn disk_bytes(&self) -> u64 {
        self.disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.size_bytes))
    }
}

fn disks(inventory: &Inventory) -> Vec<DiskFact> {
    let fixed = inventory
        .disks
        .iter()
        .filter(|disk| !disk.removable && !disk.read_only && disk.transport != Transport::Usb);
    fixed
        .map(|disk| DiskFact {
            kind: match (disk.transport, disk.rotational) {
                (Transport::Nvme, _) => DiskKind::Nvme,
                (_, true) => DiskKind::Hdd,
                (_, false) => DiskKind::Ssd,
            },
            size_bytes: disk.size_bytes,
            model: disk.model.clone(),
            serial: disk.serial.clone(),
        })
        .collect()
}

fn is_gpu(card: &PciDevice) -> bool {
    match card.class >> 16 {
        DISPLAY => !NO_GPU.contains(&card.vendor),
        ACCELERATOR => card.vendor == AMD,
        _ => false,
    }
}

/// One card per slot, by address: functions and virtual functions of a card are not more cards.
fn cards(pci: &[PciDevice], wanted: impl Fn(&PciDevice) -> bool) -> Vec<CardFact> {
    let mut slots = BTreeMap::new();
    for device in pci.iter().filter(|device| wanted(device)) {
        let slot = device.address.rsplit_once('.').map_or(device.address.as_str(), |(slot, _)| slot);
        slots.entry(slot.to_owned()).or_insert_with(|| CardFact {
            device: format!("{:04x}:{:04x}", device.vendor, device.device),
            name: device.name.clone(),
        });
    }
    slots.into_values().collect()
}

#[cfg(test)]
mod tests {
    use protocol::inventory::{Cpu, Dimm, Disk, DiskContent};

    use super::*;

    fn pci(address: &str, vendor: u16, device: u16, class: u32) -> PciDevice {
        PciDevice { address: address.to_owned(), vendor, device, class, ..PciDevice::default() }
    }

    fn disk(name: &str, transport: Transport, rotational: bool, removable: bool) -> Disk {
        Disk {
            id: None,
            name: name.to_owned(),
            bus_path: None,
            model: None,
            serial: None,
            wwn: None,
            firmware: None,
            size_bytes: 1 << 40,
            logical_sector: 512,
            physical_sector: 4096,
            rotational,
            transport,
            removable,
            read_only: false,
            content: DiskContent::Blank,
        }
    }

    #[test]
    fn facts_are_what_people_buy() {
        let cpu = Cpu { cores: 32, threads: 64, architecture: "x86_64".to_owned(), ..Cpu::default() };
        let dimm = Dimm { size_bytes: 64 << 30, ..Dimm::default() };
        let inventory = Inventory {
            cpus: vec![cpu.clone(), cpu],
            dimms: vec![dimm.clone(), dimm],
            memory_bytes: 125 << 30,
            disks: vec![
                disk("nvme0n1", Transport::Nvme, false, false),
                disk("sda", Transport::Sata, true, false),
                disk("sdb", Transport::Scsi, false, false),
                disk("sdc", Transport::Usb, false, true),
            ],
            pci: vec![
                pci("0000:02:00.0", 0x1a03, 0x2000, 0x03_00_00),
                pci("0000:17:00.0", 0x10de, 0x2330, 0x03_02_00),
                pci("0000:17:00.1", 0x10de, 0x22ba, 0x04_03_00),
                pci("0000:65:00.0", 0x1002, 0x74a1, 0x12_00_00),
                pci("0000:3b:00.0", 0x15b3, 0xa2dc, 0x02_00_00),
                pci("0000:3b:00.1", 0x15b3, 0xa2dc, 0x02_00_00),
            ],
            ..Inventory::default()
        };
        let facts = Hardware::of(&inventory);
        assert_eq!((facts.sockets, facts.cores, facts.threads), (2, 64, 128));
        assert_eq!(facts.memory_bytes, 128 << 30, "modules, not what the kernel has left");
        let kinds: Vec<_> = facts.disks.iter().map(|d| d.kind).collect();
        assert_eq!(kinds, [DiskKind::Nvme, DiskKind::Hdd, DiskKind::Ssd], "no USB stick");
        let of = |cards: &[CardFact]| cards.iter().map(|c| c.device.clone()).collect::<Vec<_>>();
        assert_eq!(of(&facts.gpus), ["10de:2330", "1002:74a1"], "no adapter of a BMC, no sound function");
        assert_eq!(of(&facts.dpus), ["15b3:a2dc"], "two functions of one card");
        assert_eq!(facts.architecture.as_deref(), Some("x86_64"));
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Hardware>(&text).unwrap(), facts);
        assert_eq!(serde_json::from_str::<Hardware>("{}").unwrap(), Hardware::default());
    }
}
