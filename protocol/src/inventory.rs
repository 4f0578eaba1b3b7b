//! What the agent finds out about a machine. Every string is as the machine reported it, cut to
//! [`limits::REPORTED_STRING_MAX`](crate::limits::REPORTED_STRING_MAX), and is text, never markup.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{DiskId, MacAddr};

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Inventory {
    /// Who made it and what it calls itself (SMBIOS types 1, 2, 3).
    pub system: System,
    /// How it boots.
    pub firmware: Firmware,
    /// One entry per socket.
    pub cpus: Vec<Cpu>,
    /// Usable memory as the kernel sees it, in bytes.
    pub memory_bytes: u64,
    /// One entry per populated slot (SMBIOS type 17).
    pub dimms: Vec<Dimm>,
    /// Block devices that hold data: no loop devices, RAM disks or partitions.
    pub disks: Vec<Disk>,
    /// Physical network ports.
    pub nics: Vec<Nic>,
    /// Every PCI function.
    pub pci: Vec<PciDevice>,
    /// The management controller, where its in-band interface answered.
    pub bmc: Option<Bmc>,
    /// The TPM, where there is one.
    pub tpm: Option<Tpm>,
    /// What could not be read, in words: collectors that failed do not stop the others.
    pub warnings: Vec<String>,
}

/// Chassis, board and system identity (SMBIOS 3.7, 7.2 to 7.4).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct System {
    /// System UUID (type 1), byte order already corrected for SMBIOS 2.6 and later.
    pub uuid: Option<Uuid>,
    /// Manufacturer of the system.
    pub manufacturer: Option<String>,
    /// Product name of the system.
    pub product: Option<String>,
    /// Serial number of the system.
    pub serial: Option<String>,
    /// SKU number.
    pub sku: Option<String>,
    /// Manufacturer of the base board.
    pub board_manufacturer: Option<String>,
    /// Product name of the base board.
    pub board_product: Option<String>,
    /// Serial number of the base board.
    pub board_serial: Option<String>,
    /// Serial number of the chassis.
    pub chassis_serial: Option<String>,
    /// Asset tag of the chassis.
    pub asset_tag: Option<String>,
}

/// Firmware facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Firmware {
    /// How this boot came about.
    pub mode: FirmwareMode,
    /// `SecureBoot` variable; `None` on BIOS.
    pub secure_boot: Option<bool>,
    /// Vendor of the BIOS or UEFI (SMBIOS type 0).
    pub vendor: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its release date as the vendor wrote it.
    pub date: Option<String>,
}

/// BIOS or UEFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FirmwareMode {
    /// Legacy BIOS, or a UEFI in compatibility mode.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}

/// One processor socket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Cpu {
    /// Physical package number.
    pub socket: u32,
    /// Model name.
    pub model: String,
    /// Vendor id.
    pub vendor: String,
    /// Cores of this socket.
    pub cores: u32,
    /// Hardware threads of this socket.
    pub threads: u32,
    /// Highest clock, in MHz, where the kernel knows it.
    pub max_mhz: Option<u32>,
    /// Machine architecture as `uname -m` says it.
    pub architecture: String,
}

/// One memory module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Dimm {
    /// Slot name as printed on the board, such as `DIMM_A1`.
    pub locator: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Configured speed in MT/s.
    pub speed_mts: Option<u32>,
    /// Type, such as `DDR5`.
    pub kind: Option<String>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Part number.
    pub part_number: Option<String>,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disk {
    /// Stable name; `None` where the disk reports nothing that could name it (then it is never a target).
    pub id: Option<DiskId>,
    /// Kernel name of this boot, such as `nvme0n1`. For people; never used to choose a disk.
    pub name: String,
    /// Where it is attached, such as `pci-0000:00:04.0`.
    pub bus_path: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name (NAA or EUI-64).
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub logical_sector: u32,
    /// Physical sector size in bytes.
    pub physical_sector: u32,
    /// True for spinning disks.
    pub rotational: bool,
    /// How it is attached.
    pub transport: Transport,
    /// Removable media or a hot-plug USB stick.
    pub removable: bool,
    /// Write protected.
    pub read_only: bool,
    /// What is on it.
    pub content: DiskContent,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// NVMe over PCIe.
    Nvme,
    /// SATA.
    Sata,
    /// SAS or a RAID controller's logical disk.
    Scsi,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// USB.
    Usb,
    /// SD or eMMC.
    Mmc,
    /// Anything else.
    #[default]
    Other,
}

/// What a disk holds, told from its first and last sectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DiskContent {
    /// First and last MiB are zero.
    Blank,
    /// A partition table with these partitions.
    Partitioned {
        /// `gpt` or `mbr`.
        table: String,
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// No table, but a known signature such as `ext4`, `LVM2_member`, `linux_raid_member`, `zfs_member`.
    Signature {
        /// Name of the signature.
        name: String,
    },
    /// Bytes that are neither zero nor known.
    Unknown,
    /// Could not be read.
    Unreadable {
        /// Why.
        error: String,
    },
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// First byte.
    pub start_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Name from the table, if any.
    pub name: Option<String>,
    /// What its first sectors look like (`ext4`, `vfat`, …).
    pub content: Option<String>,
}

/// One network port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Nic {
    /// Kernel name of this boot.
    pub name: String,
    /// Current address.
    pub mac: MacAddr,
    /// Permanent address burnt into the card, where the driver tells.
    pub permanent_mac: Option<MacAddr>,
    /// Kernel driver.
    pub driver: Option<String>,
    /// Firmware version as the driver tells.
    pub firmware: Option<String>,
    /// Link speed in Mbit/s; `None` without carrier or where the driver does not know.
    pub speed_mbps: Option<u32>,
    /// Link is up.
    pub carrier: bool,
    /// Where it is attached.
    pub bus_path: Option<String>,
    /// PCI vendor:device, such as `15b3:1021`.
    pub pci_id: Option<String>,
    /// IPv4 address of this boot, if any.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<std::net::Ipv4Addr>,
    /// IPv6 address of this boot beyond link-local, if any.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv6))]
    pub address6: Option<std::net::Ipv6Addr>,
    /// The switch port it is plugged into.
    pub lldp: Option<LldpNeighbour>,
}

/// What the neighbour on a link says of itself (IEEE 802.1AB).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LldpNeighbour {
    /// Chassis id, printed by its subtype.
    pub chassis_id: String,
    /// Port id, printed by its subtype.
    pub port_id: String,
    /// System name.
    pub system_name: Option<String>,
    /// Port description.
    pub port_description: Option<String>,
    /// Native VLAN (802.1Q organisational TLV).
    pub vlan: Option<u16>,
}

/// One PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PciDevice {
    /// Address, such as `0000:00:04.0`.
    pub address: String,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem device id.
    pub subsystem_device: u16,
    /// 24-bit class code.
    pub class: u32,
    /// Kernel driver bound to it.
    pub driver: Option<String>,
    /// Name from the PCI id database; filled by the server, empty on the wire.
    pub name: Option<String>,
}

/// The management controller as seen from inside (IPMI 2.0, Get LAN Configuration Parameters).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Bmc {
    /// IPv4 address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub address: Option<std::net::Ipv4Addr>,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// Firmware version, `major.minor`.
    pub firmware: Option<String>,
    /// IANA enterprise number of the manufacturer.
    pub manufacturer_id: Option<u32>,
}

/// The TPM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Tpm {
    /// 1 or 2.
    pub version_major: u8,
}
