//! The words that all drivers share; nouns and values are Redfish's (DSP0268) where it has them.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

/// A driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Redfish (DSP0266) over HTTPS.
    Redfish,
    /// IPMI 2.0 over RMCP+.
    Ipmi,
    /// Wake-on-LAN: can only switch on.
    Wol,
    /// A person at the machine.
    Manual,
    /// In memory, with faults; for tests and demonstrations.
    Fake,
}

impl DriverKind {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Ipmi => "ipmi",
            Self::Wol => "wol",
            Self::Manual => "manual",
            Self::Fake => "fake",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// An account of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password; at most 20 octets for IPMI 2.0 (section 13.31).
    pub password: Secret,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It runs.
    On,
    /// It does not.
    Off,
    /// On its way to on.
    PoweringOn,
    /// On its way to off.
    PoweringOff,
    /// The driver cannot know (wake-on-LAN, a person).
    Unknown,
}

/// A change of power (Redfish's `ResetType`, IPMI 2.0 section 28.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Switch on; nothing where it runs.
    On,
    /// Ask the OS to shut down (ACPI power button).
    SoftOff,
    /// Switch off at once.
    ForceOff,
    /// Restart at once, without losing power.
    Reset,
    /// Off at once, then on.
    Cycle,
    /// Non-maskable interrupt, for a crash dump.
    Nmi,
}

impl PowerAction {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::SoftOff => "soft_off",
            Self::ForceOff => "force_off",
            Self::Reset => "reset",
            Self::Cycle => "cycle",
            Self::Nmi => "nmi",
        }
    }
}

/// What the firmware boots next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootOverride {
    /// From what.
    pub device: BootDevice,
    /// How often.
    pub repeat: Repeat,
    /// How the firmware starts; `None` leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BootMode>,
    /// For [`BootDevice::Http`]: what to boot; `None` where DHCP tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_uri: Option<String>,
}

/// A boot device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// No override: the firmware's own order.
    None,
    /// The network, by PXE.
    Pxe,
    /// UEFI HTTP boot.
    Http,
    /// The first disk.
    Disk,
    /// The (virtual) CD drive.
    Cdrom,
    /// The firmware's set-up pages.
    Bios,
}

/// How often an override holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = BootDeviceRepeat))]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// For the next start only.
    Once,
    /// Until it is changed.
    Always,
}

/// How firmware starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// BIOS.
    Legacy,
    /// UEFI.
    Uefi,
}

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Identity {
    /// Maker of the machine.
    pub manufacturer: Option<String>,
    /// Model of the machine.
    pub model: Option<String>,
    /// Serial number of the machine.
    pub serial: Option<String>,
    /// Its SMBIOS UUID.
    pub uuid: Option<String>,
    /// Addresses of its network ports, as far as the controller knows them.
    pub macs: Vec<MacAddr>,
    /// Firmware version of the controller.
    pub bmc_version: Option<String>,
    /// Version of the BIOS.
    pub bios_version: Option<String>,
    /// Version of the protocol (`RedfishVersion`, or `2.0`).
    pub protocol_version: Option<String>,
    /// Redfish: which profile of vendor quirks is used.
    pub profile: Option<String>,
}

/// How well a thing is (Redfish's `Health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs attention at once.
    Critical,
}

/// What a reading counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SensorUnit))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Degrees Celsius.
    Celsius,
    /// Revolutions per minute.
    Rpm,
    /// Percent.
    Percent,
    /// Volts.
    Volt,
    /// Amperes.
    Ampere,
    /// Watts.
    Watt,
    /// Anything else.
    Other,
}

/// A sensor, read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reading {
    /// Its name, as the controller has it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// The value; `None` where the sensor gives none now (a machine that is off).
    pub value: Option<f64>,
    /// What the controller says of it.
    pub health: Option<Health>,
    /// At or above this is a warning.
    pub upper_warning: Option<f64>,
    /// At or above this is critical.
    pub upper_critical: Option<f64>,
    /// At or below this is critical.
    pub lower_critical: Option<f64>,
}

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// The machine as a whole.
    System,
    /// A processor.
    Processor,
    /// A memory module.
    Memory,
    /// A drive.
    Drive,
    /// A power supply.
    PowerSupply,
    /// A fan.
    Fan,
    /// A network adapter.
    Network,
    /// The controller itself.
    Bmc,
    /// Anything else.
    Other,
}

/// A part with a state of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Component {
    /// What it is.
    pub kind: ComponentKind,
    /// Its name, as the controller has it.
    pub name: String,
    /// How well it is.
    pub health: Health,
    /// Where it sits: slot, bay, socket.
    pub location: Option<String>,
    /// Maker and model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Part number, for the order of a new one.
    pub part_number: Option<String>,
}

/// How bad a line of the event log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LogSeverity))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As expected.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs attention at once.
    Critical,
}

/// A place in an event log: after the line with this id and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// Id of the last line that was read, as the controller has it.
    pub id: String,
    /// Its time, where it had one.
    pub at: Option<Timestamp>,
}

/// A line of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// Its id, as the controller has it.
    pub id: String,
    /// When, by the controller's clock; `None` where it had none yet.
    pub at: Option<Timestamp>,
    /// How bad.
    pub severity: Severity,
    /// In words.
    pub message: String,
    /// The sensor or part.
    pub sensor: Option<String>,
}

/// The virtual CD drive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Media {
    /// URL of the image in it; `None` where it is empty.
    pub image: Option<String>,
}

/// A piece of firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FirmwareItem {
    /// The controller's id of it, which an update can name.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Whether it can be updated.
    pub updateable: bool,
}

/// A firmware update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The controller fetches it (`SimpleUpdate`).
    Pull {
        /// From here.
        url: String,
        /// For these items ([`FirmwareItem::id`]); empty where the image tells.
        targets: Vec<String>,
    },
    /// It is sent to the controller (multipart HTTP push).
    Push {
        /// File name, which some controllers look at.
        name: String,
        /// The image, on this machine.
        path: std::path::PathBuf,
        /// For these items ([`FirmwareItem::id`]); empty where the image tells.
        targets: Vec<String>,
    },
}

/// Work that a controller does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// Its id for [`crate::Bmc::task`].
    pub id: String,
    /// How far it is.
    pub state: TaskState,
    /// Percent done, where it tells.
    pub percent: Option<u8>,
    /// Its words.
    pub message: Option<String>,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not begun, or on its way.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
}

/// BIOS attributes by name; values are text, numbers or booleans as the controller has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BiosAttributes(pub BTreeMap<String, serde_json::Value>);

/// Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecureBoot {
    /// On in the boot that runs now.
    pub current: bool,
    /// On in the next one.
    pub enabled: bool,
    /// No platform key is enrolled; `None` where the controller does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_mode: Option<bool>,
}

/// What the Secure Boot key databases are reset to (Redfish's `ResetKeysType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetKeys {
    /// The maker's keys.
    Default,
    /// None at all (set-up mode).
    DeleteAll,
    /// None but the platform key's.
    DeletePk,
}

/// A DPU as its controller shows it. What a controller does not tell is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Card {
    /// Model, such as `BlueField-3 DPU`.
    pub model: Option<String>,
    /// Serial number of the card.
    pub serial: Option<String>,
    /// Part number of the card.
    pub part_number: Option<String>,
    /// First of the card's addresses, from which the others are counted.
    pub base_mac: Option<MacAddr>,
    /// Address of its management port.
    pub oob_mac: Option<MacAddr>,
    /// Addresses of the functions that its host sees as NICs.
    pub functions: Vec<MacAddr>,
    /// What it is to its host.
    pub mode: Option<CardMode>,
    /// What its host may do with it.
    pub privilege: Option<HostPrivilege>,
    /// How far the start of its own system is, in the controller's words.
    pub boot: Option<String>,
    /// Its firmware, and the image that was installed.
    pub firmware: Vec<FirmwareItem>,
}

/// What a DPU is to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardMode {
    /// A computer of its own between host and network.
    Dpu,
    /// A plain NIC.
    Nic,
}

/// What a host may do with its DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPrivilege {
    /// Anything.
    Privileged,
    /// Use it.
    Restricted,
}

/// A change of a DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardChange {
    /// Another mode, in force after the host's next power cycle.
    Mode(CardMode),
    /// Another privilege of the host, in force after the next start of the DPU.
    Privilege(HostPrivilege),
    /// The controller, and not the host, reaches the DPU's boot stream.
    TakeBootStream,
    /// A restart of the DPU's own system; true: it is asked to shut down first.
    Restart(bool),
}
