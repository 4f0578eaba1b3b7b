//! Expected hardware: what a machine of a model is made of and how it is cabled, and what of it is not so.
//!
//! A kind of part that a model does not list is not looked at. Of a kind that it lists, all parts are meant: what is
//! missing, what is different and what is too much are differences, each in one sentence with its slot. Parts without a
//! slot are matched to what was found in whichever way leaves the fewest differences, so order says nothing.

mod assign;
mod cabling;
mod compare;
mod learn;
#[cfg(test)]
mod tests;
mod version;

use protocol::Timestamp;
use protocol::inventory::{Disk, Inventory, PciDevice, Transport};
use protocol::limits::{DIMMS_MAX, DISKS_MAX, NICS_MAX};
use serde::{Deserialize, Serialize};

use crate::node::{Measured, Place};

pub use cabling::{BadTemplate, Template};
pub use compare::compare;
pub use learn::learn;

/// Longest name of a model.
pub const NAME_MAX: usize = 63;
/// Longest text in a model.
const TEXT_MAX: usize = 128;
/// Kinds of GPU in one machine.
const GPUS_MAX: usize = 16;

/// A model: which machines are of it, and what they are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Unique: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`, the first a letter or digit.
    pub name: String,
    /// Machines of this maker (SMBIOS type 1, case aside) are of it. Without maker and product a model is only for
    /// machines that it is assigned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Machines of this product are of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// What they are made of.
    #[serde(default)]
    pub expected: Expected,
    /// What their TPMs say when they booted what they should; `None` leaves them below T3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// When it was last changed; the server sets it.
    #[serde(default)]
    pub changed: Timestamp,
}

/// A bill of materials with its cabling plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Expected {
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<ExpectedCpus>,
    /// Least versions of firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<ExpectedFirmware>,
    /// Memory modules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dimms: Vec<ExpectedDimm>,
    /// Disks; removable and USB ones are not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<ExpectedDisk>,
    /// Network ports, and where each is plugged in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<ExpectedNic>,
    /// GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<ExpectedGpu>,
}

/// Processors of a machine: all alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExpectedCpus {
    /// How many.
    pub sockets: u32,
    /// Model name, or a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Cores of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
}

/// Least versions of firmware; numbers in them are compared as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedFirmware {
    /// Of the BIOS or UEFI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bios: Option<String>,
    /// Of the management controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<String>,
}

/// A memory module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExpectedDimm {
    /// Slot name as printed on the board, such as `DIMM_A1`; any slot if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Configured speed in MT/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mts: Option<u32>,
    /// Part number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_number: Option<String>,
    /// How many such modules; one if not given. More than one only without a slot.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExpectedDisk {
    /// Where it is attached, such as `pci-0000:00:04.0`; anywhere if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DiskKind>,
    /// Size in bytes; 2 % more or less are the same, as makers count differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Model, or a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Least version of its firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// How many such disks; one if not given. More than one only without a slot.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// Kind of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ExpectedDiskKind))]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// NVMe.
    Nvme,
    /// Solid state on SATA or SAS.
    Ssd,
    /// Spinning.
    Hdd,
    /// A virtual machine's.
    Virtual,
}

/// A network port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedNic {
    /// How people call it, such as `port 1 of slot 3`; as the machine calls it if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is attached, such as `pci-0000:3b:00.0`, or its kernel name; anywhere if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Kernel driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Link speed in Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
    /// Least version of its firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The neighbour that introduces itself on it by LLDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<ExpectedNeighbour>,
}

/// Where a port is plugged in. `{rack}` and `{unit}` stand for the machine's place, `{unit+1}` for the unit above.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedNeighbour {
    /// The switch: its system name (or the first label of it), or its chassis id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<Template>,
    /// The port of it: its port id, or its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Template>,
}

/// GPUs of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExpectedGpu {
    /// PCI vendor and device, such as `10de:2330`.
    pub pci_id: String,
    /// How people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many; one if not given.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// Something that is not as the model says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ExpectedDifference))]
pub struct Difference {
    /// Of which kind of part.
    pub part: PartKind,
    /// Slot, bay, socket or port; absent where it is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// What is expected there; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is there; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The whole in one sentence.
    pub what: String,
    /// Serial number of the part that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Part number of the part that should be there, for the order of a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_number: Option<String>,
    /// The neighbour has not introduced itself yet; switches do so every 30 seconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheard: bool,
}

impl Difference {
    /// True where both are about the same part.
    pub fn is_about(&self, other: &Self) -> bool {
        self.part == other.part && self.slot == other.slot
    }
}

/// Kinds of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// A processor.
    Cpu,
    /// A memory module.
    Dimm,
    /// A disk.
    Disk,
    /// A network port.
    Nic,
    /// Where a port is plugged in.
    Cable,
    /// A GPU.
    Gpu,
    /// Firmware.
    Firmware,
    /// The place of the machine, which the cabling plan needs.
    Place,
}

impl PartKind {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Dimm => "dimm",
            Self::Disk => "disk",
            Self::Nic => "nic",
            Self::Cable => "cable",
            Self::Gpu => "gpu",
            Self::Firmware => "firmware",
            Self::Place => "place",
        }
    }

    /// True where a part can be ordered and put in.
    pub fn is_replaceable(self) -> bool {
        matches!(self, Self::Cpu | Self::Dimm | Self::Disk | Self::Nic | Self::Cable | Self::Gpu)
    }
}

/// How a machine stands against the model that is for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Name of the model.
    pub model: String,
    /// What is not as it says.
    pub differences: Vec<Difference>,
    /// What it says of TPMs.
    pub measured: Option<Measured>,
}

/// The model that is for a machine: the one that it was assigned, else the one for its maker and product.
pub fn model_of<'a>(models: &'a [Model], assigned: Option<&str>, inventory: &Inventory) -> Option<&'a Model> {
    match assigned {
        Some(name) => models.iter().find(|model| model.name == name),
        None => models.iter().find(|model| model.is_for(inventory)),
    }
}

/// Compares a machine with the model that is for it, if one is.
pub fn judge(
    models: &[Model],
    assigned: Option<&str>,
    inventory: &Inventory,
    place: Option<&Place>,
) -> Option<Compared> {
    let model = model_of(models, assigned, inventory)?;
    let differences = compare(&model.expected, inventory, place);
    Some(Compared { model: model.name.clone(), differences, measured: model.measured.clone() })
}

/// Why something is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadModel {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

impl Model {
    /// True where a machine with this inventory is of this model by maker and product.
    pub fn is_for(&self, inventory: &Inventory) -> bool {
        let fits = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_deref().is_none_or(|w| found.as_deref().is_some_and(|f| same_text(w, f)))
        };
        (self.manufacturer.is_some() || self.product.is_some())
            && fits(&self.manufacturer, &inventory.system.manufacturer)
            && fits(&self.product, &inventory.system.product)
    }

    /// True where both could be for the same machine by maker and product.
    pub fn overlaps(&self, other: &Self) -> bool {
        let apart =
            |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if !same_text(a, b));
        let matches = |model: &Self| model.manufacturer.is_some() || model.product.is_some();
        matches(self)
            && matches(other)
            && !apart(&self.manufacturer, &other.manufacturer)
            && !apart(&self.product, &other.product)
    }

    /// Whether it can be one.
    ///
    /// # Errors
    /// A name that is none, texts that are too long or hold control characters, more parts than a machine has.
    pub fn check(&self) -> Result<(), BadModel> {
        if !is_name(&self.name) {
            return bad("a model has a name of 1 to 63 of a-z, 0-9, `.`, `_` and `-`", "such as `r640-2024`");
        }
        let e = &self.expected;
        let texts = [&self.manufacturer, &self.product].into_iter().flatten();
        let texts = texts
            .chain(e.cpus.iter().flat_map(|c| &c.model))
            .chain(e.firmware.iter().flat_map(|f| [&f.bios, &f.bmc].into_iter().flatten()))
            .chain(e.dimms.iter().flat_map(|d| [&d.slot, &d.part_number].into_iter().flatten()))
            .chain(e.disks.iter().flat_map(|d| [&d.slot, &d.model, &d.firmware].into_iter().flatten()))
            .chain(
                e.nics.iter().flat_map(|n| [&n.name, &n.slot, &n.driver, &n.firmware].into_iter().flatten()),
            )
            .chain(e.gpus.iter().flat_map(|g| g.name.iter().chain([&g.pci_id])));
        for text in texts {
            let long = text.trim().is_empty() || text.chars().count() > TEXT_MAX;
            if long || text.chars().any(char::is_control) {
                let what = format!("a text in it is empty, long, or not on one line: {:?}", short(text));
                return bad(what, "correct it; 1 to 128 characters on one line");
            }
        }
        if let Some(gpu) = e.gpus.iter().find(|g| pci_id(&g.pci_id).is_none()) {
            let what = format!("`{}` is no PCI vendor and device", short(&gpu.pci_id));
            return bad(what, "give it as `lspci -n` does, such as 10de:2330");
        }
        check_slots(e)?;
        if let Some(what) = self.measured.as_ref().and_then(Measured::mistake) {
            return bad(
                what,
                "learn them from a machine that booted as it should (`billet model learn-pcrs`)",
            );
        }
        let total = |counts: Vec<u32>| counts.into_iter().map(u64::from).sum::<u64>();
        let counted = [
            ("memory modules", total(e.dimms.iter().map(|d| d.count).collect()), DIMMS_MAX),
            ("disks", total(e.disks.iter().map(|d| d.count).collect()), DISKS_MAX),
            ("network ports", e.nics.len() as u64, NICS_MAX),
            ("kinds of GPU", e.gpus.len() as u64, GPUS_MAX),
        ];
        match counted.into_iter().find(|(_, count, most)| *count > *most as u64) {
            Some((what, _, most)) => bad(format!("it has more than {most} {what}"), "no machine has so many"),
            None => Ok(()),
        }
    }
}

/// A slot holds one part, and a count says of something.
fn check_slots(e: &Expected) -> Result<(), BadModel> {
    let dimms = e.dimms.iter().map(|d| (&d.slot, d.count));
    let disks = e.disks.iter().map(|d| (&d.slot, d.count));
    for (slot, count) in dimms.chain(disks) {
        if count == 0 || (count > 1 && slot.is_some()) {
            let what = match slot {
                Some(slot) => format!("slot {} holds one part, and not {count}", short(slot)),
                None => "a count of 0 says nothing".to_owned(),
            };
            return bad(what, "leave the line, the slot or the count out");
        }
    }
    let twice = |slots: Vec<&String>| {
        let mut slots: Vec<_> = slots.into_iter().map(|s| s.to_lowercase()).collect();
        slots.sort();
        slots.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
    };
    let dimms = twice(e.dimms.iter().filter_map(|d| d.slot.as_ref()).collect());
    match dimms.or(twice(e.disks.iter().filter_map(|d| d.slot.as_ref()).collect())) {
        Some(slot) => bad(format!("slot {} is there twice", short(&slot)), "a slot holds one part"),
        None => Ok(()),
    }
}

fn bad<T>(what: impl Into<String>, hint: &'static str) -> Result<T, BadModel> {
    Err(BadModel { what: what.into(), hint })
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// True for a name of a model: `[a-z0-9][a-z0-9._-]{0,62}`.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=NAME_MAX).contains(&name.len())
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}

/// The kind of a disk.
pub fn disk_kind(disk: &Disk) -> DiskKind {
    match disk.transport {
        Transport::Nvme => DiskKind::Nvme,
        Transport::Virtio => DiskKind::Virtual,
        _ if disk.rotational => DiskKind::Hdd,
        _ => DiskKind::Ssd,
    }
}

/// True for a disk that belongs to the machine: not a stick or a virtual drive of a controller.
fn is_built_in(disk: &Disk) -> bool {
    !disk.removable && disk.transport != Transport::Usb
}

fn pci_id(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    let hex = |t: &str| (t.len() == 4).then(|| u16::from_str_radix(t, 16).ok()).flatten();
    Some((hex(vendor)?, hex(device)?))
}

fn pci_text(device: &PciDevice) -> String {
    format!("{:04x}:{:04x}", device.vendor, device.device)
}

fn same_text(a: &str, b: &str) -> bool {
    a.trim().eq_ignore_ascii_case(b.trim())
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(count: &u32) -> bool {
    *count == 1
}
