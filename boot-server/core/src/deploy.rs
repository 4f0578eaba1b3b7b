//! From what somebody asked for to what the agent will do: the disk is chosen, everything is checked against the
//! inventory and the image, and what will be lost is said, before anything is touched.

use images::manifest::{Firmware, Manifest, PartitionTable};
use protocol::inventory::{Disk, DiskContent, FirmwareMode, Inventory, Nic, Transport};
use protocol::job::{CloudConfig, DeploySpec, DiskTarget, SeedFile};
use protocol::limits::USER_DATA_MAX;
use protocol::{DiskId, JobId, MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cloud_config::{self, Login, SeedPort, Urls};
use crate::metadata::{Datasource, Instance, ignition, openstack};
use crate::node::StaticNetwork;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Image: its id, its name (newest version), or `name:version`.
    pub image: String,
    /// The disk, by id or by rule.
    #[serde(default)]
    pub disk: DiskChoice,
    /// Host name; the node's own name if not given.
    #[serde(default)]
    pub hostname: Option<String>,
    /// User to make; the image's default user if not given.
    #[serde(default)]
    pub user: Option<String>,
    /// SSH public keys of that user, one per entry, as in `authorized_keys`.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Password of that user as a crypt(5) hash.
    #[serde(default)]
    pub password_hash: Option<String>,
    /// cloud-init user data, passed through unchanged.
    #[serde(default)]
    pub user_data: Option<String>,
    /// cloud-init network config, version 2; if not given the node's own network settings, else plain DHCP.
    #[serde(default)]
    pub network_config: Option<String>,
    /// How the OS is told who it is; `nocloud` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasource: Option<Datasource>,
    /// The node's name, typed by whoever asks: this erases a disk.
    #[serde(default)]
    pub confirm: Option<String>,
    /// Also where the node's health is critical, which is refused otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_critical: bool,
}

/// Which disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskChoice {
    /// This one.
    Id(DiskId),
    /// The one that a rule names; refused where the rule names none or several.
    Rule(DiskRule),
}

impl Default for DiskChoice {
    fn default() -> Self {
        Self::Rule(DiskRule::Only)
    }
}

/// A rule over the disks that could take the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskRule {
    /// The machine has exactly one.
    Only,
    /// The smallest.
    Smallest,
    /// The largest.
    Largest,
    /// The smallest that is not a spinning disk.
    SmallestSsd,
}

/// What the caller adds: chance and addresses.
#[derive(Debug, Clone)]
pub struct Given<'a> {
    /// The node's name.
    pub node_name: &'a str,
    /// Becomes the instance id of the OS.
    pub instance: JobId,
    /// Where the OS asks and reports, with its tokens.
    pub urls: Urls<'a>,
    /// The moment.
    pub now: Timestamp,
    /// The node's network settings, where it gets none by DHCP.
    pub network: Option<&'a StaticNetwork>,
    /// Its ports on networks where nobody answers DHCP; before its own settings.
    pub ports: &'a [SeedPort],
    /// The volume that the OS goes to; no disk of the machine is looked for then.
    pub volume: Option<&'a DiskTarget>,
}

/// Why a request is refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DeployRefused {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

fn refuse<T>(
    code: &'static str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, DeployRefused> {
    Err(DeployRefused { code, message: message.into(), hint: hint.into() })
}

/// Label of the EFI boot entry: one for all images, so that each deploy replaces the entry of the one before.
const BOOT_ENTRY: &str = "Billet OS";

/// What a request becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the agent will do.
    pub spec: DeploySpec,
    /// What the OS may know of itself.
    pub instance: Instance,
    /// The OS will say that it is up; else the deploy ends with the restart.
    pub phones_home: bool,
}

/// Checks a request and says what the agent will do, and what the OS will be told.
///
/// # Errors
/// Where the request, the machine and the image do not fit together; the message says what to change.
pub fn plan(
    request: &DeployRequest,
    inventory: &Inventory,
    manifest: &Manifest,
    given: &Given<'_>,
) -> Result<Plan, DeployRefused> {
    if request.confirm.as_deref() != Some(given.node_name) {
        return refuse(
            "confirm-missing",
            format!("deploying erases a disk: `confirm` must be the node's name, {}", given.node_name),
            "type the node's name to confirm",
        );
    }
    check_firmware(inventory, manifest)?;
    let disk = match given.volume {
        Some(volume) => check_volume(volume, manifest)?,
        None => choose_disk(&request.disk, inventory, manifest)?,
    };
    let hostname =
        request.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| given.node_name.to_owned());
    let datasource = datasource_of(request, manifest);
    let instance = instance(request, inventory, manifest, hostname, given)?;
    let spec = DeploySpec {
        image: manifest.id(),
        image_name: instance.image.clone(),
        target: disk,
        config: seed(datasource, manifest, &instance, given)?,
        grow_root: manifest.partition_table == PartitionTable::Gpt,
        boot_entry: (inventory.firmware.mode == FirmwareMode::Uefi).then(|| BOOT_ENTRY.to_owned()),
    };
    Ok(Plan { spec, instance, phones_home: datasource != Datasource::None })
}

fn check_volume(volume: &DiskTarget, manifest: &Manifest) -> Result<DiskTarget, DeployRefused> {
    let need = manifest.minimum_disk;
    if volume.size_bytes >= need {
        return Ok(volume.clone());
    }
    refuse(
        "disk-too-small",
        format!("the volume has {} bytes, image {} needs {need}", volume.size_bytes, manifest.name),
        "ask for a larger volume",
    )
}

/// What the request says, else the image.
fn datasource_of(request: &DeployRequest, manifest: &Manifest) -> Datasource {
    request.datasource.or(manifest.datasource).unwrap_or_default()
}

/// Whether the machine boots what the image is made for.
///
/// # Errors
/// Names both where they do not fit.
pub fn check_firmware(inventory: &Inventory, manifest: &Manifest) -> Result<(), DeployRefused> {
    let (needed, name) = match inventory.firmware.mode {
        FirmwareMode::Bios => (Firmware::Bios, "BIOS"),
        FirmwareMode::Uefi => (Firmware::Uefi, "UEFI"),
    };
    if !manifest.firmware.is_empty() && !manifest.firmware.contains(&needed) {
        return refuse(
            "firmware-mismatch",
            format!("the machine boots by {name}, image {} does not", manifest.name),
            "choose another image, or change the machine's boot mode and inspect it again",
        );
    }
    if let Some(cpu) = inventory.cpus.first() {
        let arch = match manifest.architecture {
            images::Architecture::X86_64 => "x86_64",
            images::Architecture::Aarch64 => "aarch64",
        };
        if !cpu.architecture.is_empty() && cpu.architecture != arch {
            return refuse(
                "architecture-mismatch",
                format!("the machine is {}, image {} is {arch}", cpu.architecture, manifest.name),
                "choose another image",
            );
        }
    }
    Ok(())
}

/// True for disks that may hold an OS at all: named, writable, fixed, not USB.
pub fn is_candidate(disk: &Disk) -> bool {
    disk.id.is_some()
        && !disk.read_only
        && !disk.removable
        && disk.transport != Transport::Usb
        && disk.size_bytes > 0
}

fn choose_disk(
    choice: &DiskChoice,
    inventory: &Inventory,
    manifest: &Manifest,
) -> Result<DiskTarget, DeployRefused> {
    let need = manifest.minimum_disk;
    let disk = match choice {
        DiskChoice::Id(id) => by_id(id, inventory)?,
        DiskChoice::Rule(rule) => by_rule(*rule, inventory, need)?,
    };
    let Some(id) = disk.id.clone().filter(|_| is_candidate(disk)) else {
        return refuse(
            "disk-refused",
            format!("disk {} is removable, on USB, or write protected", disk.name),
            "choose a fixed, writable disk",
        );
    };
    if disk.size_bytes < need {
        return refuse(
            "disk-too-small",
            format!("disk {id} has {} bytes, image {} needs {need}", disk.size_bytes, manifest.name),
            "choose a larger disk",
        );
    }
    if disk.logical_sector != 512 && manifest.partition_table == PartitionTable::Gpt {
        return refuse(
            "sector-size",
            format!(
                "disk {id} has sectors of {} bytes, the image's partition table is for 512",
                disk.logical_sector
            ),
            "choose a disk with 512-byte logical sectors, or reformat the namespace",
        );
    }
    Ok(DiskTarget { id, size_bytes: disk.size_bytes })
}

fn by_id<'a>(id: &DiskId, inventory: &'a Inventory) -> Result<&'a Disk, DeployRefused> {
    let mut found = inventory.disks.iter().filter(|d| d.id.as_ref() == Some(id));
    match (found.next(), found.next()) {
        (Some(disk), None) => Ok(disk),
        (None, _) => refuse(
            "disk-not-found",
            format!("no disk {id} in this machine; it has {}", list(inventory.disks.iter())),
            "inspect the node again if disks were changed",
        ),
        (Some(_), Some(_)) => refuse(
            "disk-ambiguous",
            format!("several disks answer to {id}"),
            "this drive's serial number is not unique: take one out, or have it corrected",
        ),
    }
}

fn by_rule(rule: DiskRule, inventory: &Inventory, need: u64) -> Result<&Disk, DeployRefused> {
    let fits = |d: &&Disk| {
        is_candidate(d) && d.size_bytes >= need && (rule != DiskRule::SmallestSsd || !d.rotational)
    };
    let fitting: Vec<&Disk> = inventory.disks.iter().filter(fits).collect();
    let size = match rule {
        DiskRule::Only => fitting.first().map(|d| d.size_bytes),
        DiskRule::Smallest | DiskRule::SmallestSsd => fitting.iter().map(|d| d.size_bytes).min(),
        DiskRule::Largest => fitting.iter().map(|d| d.size_bytes).max(),
    };
    let Some(size) = size else {
        return refuse(
            "disk-not-found",
            format!(
                "no disk fits: {need} bytes are needed; the machine has {}",
                list(inventory.disks.iter())
            ),
            "add a disk, or choose a smaller image",
        );
    };
    let chosen: Vec<&Disk> =
        fitting.into_iter().filter(|d| rule == DiskRule::Only || d.size_bytes == size).collect();
    match chosen.as_slice() {
        [disk] => Ok(disk),
        several => refuse(
            "disk-ambiguous",
            format!("the rule fits several disks: {}", list(several.iter().copied())),
            "name the disk by its serial",
        ),
    }
}

fn list<'a>(disks: impl Iterator<Item = &'a Disk>) -> String {
    let text = disks
        .map(|d| match &d.id {
            Some(id) => format!("{id} ({} GB)", d.size_bytes / 1_000_000_000),
            None => format!("{} (nameless)", d.name),
        })
        .collect::<Vec<_>>()
        .join(", ");
    if text.is_empty() { "none".to_owned() } else { text }
}

/// What the OS may know of itself, checked.
fn instance(
    request: &DeployRequest,
    inventory: &Inventory,
    manifest: &Manifest,
    hostname: String,
    given: &Given<'_>,
) -> Result<Instance, DeployRefused> {
    for (what, text) in [("user data", &request.user_data), ("network config", &request.network_config)] {
        if text.as_ref().is_some_and(|t| t.len() > USER_DATA_MAX) {
            return refuse(
                "too-large",
                format!("{what} is larger than {USER_DATA_MAX} bytes"),
                "make it smaller",
            );
        }
    }
    let user_data = request.user_data.clone().filter(|text| !text.trim().is_empty());
    let user = request.user.as_deref().filter(|u| !u.is_empty()).or(manifest.default_user.as_deref());
    let login = Login {
        hostname: &hostname,
        user: user.unwrap_or("root"),
        ssh_keys: &request.ssh_keys,
        password_hash: request.password_hash.as_deref().filter(|p| !p.is_empty()),
    };
    login.check()?;
    let datasource = datasource_of(request, manifest);
    let (user_data, vendor_data) = if datasource == Datasource::Ignition {
        user_data.as_deref().map_or(Ok(()), ignition::check)?;
        (Some(ignition::config(&login, given.urls.phone_home, user_data.as_deref())), String::new())
    } else {
        (user_data, cloud_config::vendor_data(&login, &given.urls))
    };
    let network_config = network_config(request, inventory, given)?;
    let asked = request.network_config.as_ref().is_some_and(|text| !text.trim().is_empty());
    if asked && !matches!(datasource, Datasource::Nocloud) {
        return refuse(
            "network-config",
            format!("a network config of one's own cannot be given by {}", datasource.as_str()),
            "use the datasource nocloud, or the node's network settings",
        );
    }
    let first = given.ports.first().and_then(SeedPort::first_v4);
    let network = first.as_ref().or(given.network.filter(|_| given.ports.is_empty()));
    let network = network.filter(|_| !asked).cloned();
    let addressed = |nic: &&Nic| match &network {
        Some(own) => nic.address == Some(own.address.address),
        None => nic.address.is_some(),
    };
    let own = network.as_ref().and_then(|own| own.mac);
    let only = match inventory.nics.as_slice() {
        [only] => Some(only.mac),
        _ => None,
    };
    let port = own.or_else(|| inventory.nics.iter().find(addressed).map(|nic| nic.mac)).or(only);
    Ok(Instance {
        id: given.instance,
        hostname,
        image: format!("{} {}", manifest.name, manifest.version),
        architecture: inventory.cpus.first().map(|cpu| cpu.architecture.clone()).unwrap_or_default(),
        created: given.now,
        ssh_keys: request.ssh_keys.clone(),
        macs: inventory.nics.iter().map(|nic| nic.mac).collect::<Vec<MacAddr>>(),
        port,
        network,
        network_config,
        user_data,
        vendor_data,
    })
}

/// The partition that tells the OS.
fn seed(
    datasource: Datasource,
    manifest: &Manifest,
    instance: &Instance,
    given: &Given<'_>,
) -> Result<Option<CloudConfig>, DeployRefused> {
    if datasource == Datasource::None {
        return Ok(None);
    }
    if manifest.partition_table != PartitionTable::Gpt {
        return refuse(
            "image-without-gpt",
            format!("image {} has no GPT, so no config partition can be added to it", manifest.name),
            "use an image with a GUID partition table, or the datasource none",
        );
    }
    let empty = || "#cloud-config\n{}\n".to_owned();
    Ok(Some(match datasource {
        Datasource::Nocloud => CloudConfig {
            meta_data: cloud_config::meta_data(instance.id, &instance.hostname),
            user_data: instance.user_data.clone().unwrap_or_else(empty),
            vendor_data: instance.vendor_data.clone(),
            network_config: instance.network_config.clone(),
            config_drive: Vec::new(),
        },
        // The network must be up before the rest can be fetched, so that much is on the disk.
        Datasource::NocloudNet => CloudConfig {
            meta_data: cloud_config::meta_data_elsewhere(
                instance.id,
                &instance.hostname,
                given.urls.metadata,
            ),
            user_data: empty(),
            vendor_data: String::new(),
            network_config: instance.network_config.clone(),
            config_drive: Vec::new(),
        },
        Datasource::ConfigDrive | Datasource::Ignition => {
            CloudConfig { config_drive: drive(instance), ..CloudConfig::default() }
        }
        Datasource::None => return Ok(None),
    }))
}

/// The files of a config drive: the newest version, and the one that Ignition and Cloudbase-Init ask for.
fn drive(instance: &Instance) -> Vec<SeedFile> {
    let files = openstack::files(instance, "latest");
    let placed = files
        .into_iter()
        .map(|file| SeedFile { path: format!("openstack/latest/{}", file.path), text: file.text });
    placed.collect()
}

/// What the request says, else the node's own settings for the port that they name, or that the agent has their address on.
fn network_config(
    request: &DeployRequest,
    inventory: &Inventory,
    given: &Given<'_>,
) -> Result<Option<String>, DeployRefused> {
    let asked = request.network_config.clone().filter(|n| !n.trim().is_empty());
    if asked.is_none() && !given.ports.is_empty() {
        return Ok(Some(cloud_config::ports_config(given.ports)));
    }
    let (None, Some(network)) = (&asked, given.network) else { return Ok(asked) };
    let has_address = |nic: &&Nic| nic.address == Some(network.address.address);
    let port = network.mac.or_else(|| inventory.nics.iter().find(has_address).map(|nic| nic.mac));
    match (port, inventory.nics.as_slice()) {
        (Some(mac), _) => Ok(Some(cloud_config::network_config(network, mac))),
        (None, [only]) => Ok(Some(cloud_config::network_config(network, only.mac))),
        (None, _) => refuse(
            "network-port",
            format!("which port gets {} is not known", network.address),
            "name the port in the node's network settings (`mac`), or inspect it again",
        ),
    }
}

/// One disk in the plain diff that is shown before a destructive act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskFate {
    /// Stable name, if it has one.
    pub id: Option<DiskId>,
    /// Kernel name, model and size for people.
    pub title: String,
    /// What is on it now.
    pub holds: String,
    /// It will be erased.
    pub erased: bool,
}

/// What will be erased and what stays, disk by disk.
pub fn fates(inventory: &Inventory, erased: &[DiskId]) -> Vec<DiskFate> {
    let fate = |disk: &Disk| DiskFate {
        id: disk.id.clone(),
        title: title(disk),
        holds: describe(&disk.content),
        erased: disk.id.as_ref().is_some_and(|id| erased.contains(id)),
    };
    inventory.disks.iter().map(fate).collect()
}

/// A disk in one line for people: kernel name of this boot, model, size.
pub fn title(disk: &Disk) -> String {
    format!(
        "{} · {} · {}",
        disk.name,
        disk.model.as_deref().unwrap_or("unknown model"),
        bytes(disk.size_bytes)
    )
}

/// A size for people, decimal as on the drive's label.
pub fn bytes(n: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in units {
        if n >= size {
            let tenths = n / (size / 10);
            return if tenths >= 1000 || tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{n} B")
}

/// What a disk holds, in words.
pub fn describe(content: &DiskContent) -> String {
    match content {
        DiskContent::Blank => "blank".to_owned(),
        DiskContent::Partitioned { table, partitions } => {
            let parts = partitions
                .iter()
                .map(|p| {
                    let what = p.content.as_deref().or(p.name.as_deref()).unwrap_or("unknown");
                    format!("{}: {what} {}", p.number, bytes(p.size_bytes))
                })
                .collect::<Vec<_>>()
                .join(", ");
            format!(
                "{} table, {}",
                table.to_uppercase(),
                if parts.is_empty() { "no partitions".to_owned() } else { parts }
            )
        }
        DiskContent::Signature { name } => name.clone(),
        DiskContent::Unknown => "unknown data".to_owned(),
        DiskContent::Unreadable { error } => format!("unreadable: {error}"),
    }
}

/// True where no disk holds anything that could be lost.
pub fn all_blank(inventory: &Inventory) -> bool {
    inventory.disks.iter().all(|d| d.content == DiskContent::Blank)
}

#[cfg(test)]
mod tests;
