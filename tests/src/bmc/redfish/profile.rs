//! How the controllers of one family behave, as data; each profile names where that is published.

use anyhow::{Context, Result};
use serde::Deserialize;

/// One family of controllers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are Redfish's own names; the others have a line each")]
pub struct Profile {
    pub name: String,
    /// Name of the driver's profile that must be chosen for it.
    pub driver_profile: String,
    pub sources: Vec<String>,
    pub vendor: Option<String>,
    pub product: Option<String>,
    /// Key of `Oem` in the service root.
    pub oem: Option<String>,
    /// Key of `Oem` in the manager.
    pub manager_oem: Option<String>,
    pub version: String,
    /// Whether `$expand` works.
    pub expand: bool,
    pub system: String,
    #[serde(default)]
    pub other_systems: Vec<String>,
    pub manager: String,
    pub chassis: String,
    /// Property of the machine's serial number, where `SerialNumber` is the board's.
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    /// All links end with `/`.
    #[serde(default)]
    pub trailing_slash: bool,
    pub manager_reset: Vec<String>,
    /// Name of the property; none where it has no light.
    pub led: Option<String>,
    #[serde(default)]
    pub led_values: Vec<String>,
    pub sensors: SensorForm,
    /// Links that answer 404 until the machine first ran.
    #[serde(default)]
    pub late: Vec<String>,
    /// `absolute` where `Location` is a whole URL.
    pub location: Option<String>,
    /// The first login must change the password.
    #[serde(default)]
    pub password_change: bool,
    #[serde(default)]
    pub etag: Etag,
    pub reset: Reset,
    pub boot: Boot,
    pub log: Log,
    pub media: Option<Media>,
    pub bios: Option<Bios>,
    pub update: Update,
}

/// Which form sensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorForm {
    /// `Thermal` and `Power`.
    Old,
    /// `Sensors`.
    Sensors,
    /// `ThermalSubsystem` and `PowerSubsystem`.
    Subsystem,
}

/// ETags.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Etag {
    /// Given as weak ones.
    pub weak: bool,
    /// A PATCH without one is refused (428).
    pub required: bool,
    /// A weak one is refused (412).
    pub strong_wanted: bool,
}

/// `ComputerSystem.Reset`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// Allowable values.
    pub values: Vec<String>,
    /// They stand in an `ActionInfo`.
    #[serde(default)]
    pub info: bool,
}

/// `Boot` of the system.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Allowable targets.
    pub targets: Vec<String>,
    /// Targets that are taken though they are not listed.
    #[serde(default)]
    pub unlisted: Vec<String>,
    /// It has `HttpBootUri`.
    #[serde(default)]
    pub http_uri: bool,
    /// An override without a mode is one for Legacy.
    #[serde(default)]
    pub legacy_without_mode: bool,
    /// A mode other than UEFI is refused.
    #[serde(default)]
    pub uefi_only: bool,
    /// The settings resource, which has no more than the boot order.
    pub pending: Option<String>,
    /// Message of a refusal while the machine is in POST.
    pub closed_in_post: Option<String>,
}

/// The event log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `system` or `manager`.
    pub owner: String,
    /// Id of the service.
    pub id: String,
    /// Ids of others beside it.
    #[serde(default)]
    pub others: Vec<String>,
    /// Entries come whole with their collection.
    pub inline: bool,
    /// The order.
    pub newest_first: bool,
    /// Members of a page; all where none.
    pub page: Option<usize>,
}

/// Virtual media.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// `system` or `manager`.
    pub owner: String,
    /// Id of the CD drive.
    pub id: String,
    /// Drives that take no image by URL.
    #[serde(default)]
    pub others: Vec<OtherDrive>,
    /// By PATCH, without actions.
    #[serde(default)]
    pub patch: bool,
    /// Parameters that are refused.
    #[serde(default)]
    pub refuse: Vec<String>,
    /// Parameters that must be there.
    #[serde(default)]
    pub require: Vec<String>,
    /// Inserting is a task.
    #[serde(default)]
    pub task: bool,
}

/// A drive beside the CD drive.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherDrive {
    /// Its id.
    pub id: String,
    /// `MediaTypes`.
    pub types: Vec<String>,
}

/// BIOS attributes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bios {
    /// Last part of the settings resource's link.
    pub settings: String,
    /// A change without `@Redfish.SettingsApplyTime` is refused.
    #[serde(default)]
    pub apply_time: bool,
    /// A second change before a restart is refused.
    #[serde(default)]
    pub one_pending: bool,
    /// After a start so many looks show the BIOS as it was before.
    #[serde(default)]
    pub post_looks: u32,
    /// The action that throws the first one away.
    pub clear_pending: Option<String>,
}

/// Firmware updates.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Images are taken by `MultipartHttpPushUri`.
    pub multipart: bool,
    /// After so many looks a task is complete.
    pub task_looks: u32,
}

const FILES: [&str; 7] = [
    include_str!("profiles/dell-idrac9.toml"),
    include_str!("profiles/hpe-ilo5.toml"),
    include_str!("profiles/supermicro-x12.toml"),
    include_str!("profiles/lenovo-xcc.toml"),
    include_str!("profiles/openbmc.toml"),
    include_str!("profiles/bluefield.toml"),
    include_str!("profiles/standard.toml"),
];

impl Profile {
    /// All profiles.
    ///
    /// # Errors
    /// A file that is wrong.
    pub fn all() -> Result<Vec<Self>> {
        FILES.iter().map(|text| toml::from_str(text).context("reading a profile of the stand-in")).collect()
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn named(name: &str) -> Result<Self> {
        Self::all()?.into_iter().find(|p| p.name == name).with_context(|| format!("no profile {name}"))
    }
}
