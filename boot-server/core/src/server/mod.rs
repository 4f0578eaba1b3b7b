//! A server: what a user has. A machine lent to a project, with an image, keys and user data.
//!
//! ```text
//!            deploy          the OS phoned home        delete           wiped, or nothing to wipe
//!  claimed ────────▶ deploying ────────────▶ active ─────────▶ deleting ─────────────────────────▶ deleted
//!     │                │   ▲                   │ │                ▲
//!     │                │   └──── reinstall ────┘ │                │
//!     └────────────────┴──────▶ error ◀──────────┘────────────────┘
//! ```
//!
//! A server's life follows its node's: [`follow`] is the one place where a phase changes. That no machine is lent twice is the
//! store's business.

mod follow;

use std::fmt;

use protocol::inventory::{Disk, Inventory};
use protocol::job::DiskTarget;
use protocol::{DiskId, GroupId, ImageId, NetworkId, NodeId, ProjectId, ServerId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::amounts::Amounts;
use crate::cloud_config::is_hostname;
use crate::deploy::is_candidate;
use crate::hardware::installed_memory;
use crate::volume::Imaging;

pub use follow::{Act, Next, Seen, follow};

/// Servers made by one request: all or none are made, in one transaction.
pub const BATCH_MAX: usize = 100;

/// Where a server stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ServerPhase))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A machine is its own; the OS is about to be put on it.
    Claimed,
    /// The OS is being put on it.
    Deploying,
    /// Runs the OS that was asked for.
    Active,
    /// Stopped with a cause: reinstall or delete it.
    Error,
    /// Given back; its disks are being wiped.
    Deleting,
    /// It is no more.
    Deleted,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Claimed, Self::Deploying, Self::Active, Self::Error, Self::Deleting, Self::Deleted];

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Deploying => "deploying",
            Self::Active => "active",
            Self::Error => "error",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the OS is made of. Kept as it was asked for, so that a reinstall does the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The image.
    pub image: ImageId,
    /// Its name and version, for people.
    pub image_name: String,
    /// Host name of the OS.
    pub hostname: String,
    /// User to make; the image's default user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// SSH public keys of that user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// cloud-init user data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The OS is put on a volume of this kind and not on a disk of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_volume: Option<BootVolume>,
    /// Networks on which it has a port each, in the order of its NICs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkId>,
}

/// The volume that a server boots from, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BootVolume {
    /// Its type; the site's first if not given.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Bytes, a multiple of 1 MiB; the image's smallest disk if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// It stays when the server is deleted.
    #[serde(default)]
    pub keep: bool,
    /// Its backend holds its bytes encrypted; so it does anyway where the type says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Who writes the image on it; the server if not given.
    #[serde(default, skip_serializing_if = "Imaging::is_default")]
    pub imaging: Imaging,
}

/// A machine lent to a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Names it for ever.
    pub id: ServerId,
    /// Whose.
    pub project: ProjectId,
    /// Names it for people; one living server of a project has it.
    pub name: String,
    /// The flavor it was asked as; none where a node was asked for by name.
    pub flavor: Option<String>,
    /// Its machine; one living server has it.
    pub node: NodeId,
    /// The group it belongs to.
    pub group: Option<GroupId>,
    /// What is on it.
    pub spec: Spec,
    /// What it counts for.
    pub amounts: Amounts,
    /// Where it stands.
    pub phase: Phase,
    /// Its machine is in fault, as far as its controller says.
    pub fault: bool,
    /// Why it does not go on, or what it waits for, in words for its project.
    pub note: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub created: Timestamp,
    /// When its OS first came up.
    pub active: Option<Timestamp>,
    /// When its machine was given back.
    pub deleted: Option<Timestamp>,
    /// Grows by one with every change.
    pub version: i64,
}

impl Server {
    /// It lets its machine go, or never came up on it: what was made for it alone, and is taken from it, is of no use to anybody.
    pub fn gave_up(&self) -> bool {
        match self.phase {
            Phase::Deleting | Phase::Deleted => true,
            Phase::Error => self.active.is_none() && self.spec.boot_volume.is_some(),
            Phase::Claimed | Phase::Deploying | Phase::Active => false,
        }
    }
}

/// The names of `count` servers: with `{n}` in the pattern the number stands there, else it is put behind where there are
/// several.
///
/// # Errors
/// A sentence, where one of them is no host name.
pub fn names(pattern: &str, count: usize) -> Result<Vec<String>, String> {
    let name = |n: usize| match (pattern.contains("{n}"), count) {
        (true, _) => pattern.replace("{n}", &n.to_string()),
        (false, 1) => pattern.to_owned(),
        (false, _) => format!("{pattern}-{n}"),
    };
    let names: Vec<String> = (1..=count).map(name).collect();
    match names.iter().find(|name| !is_hostname(name) || name.contains('.')) {
        Some(bad) => {
            Err(format!("`{}` is not a name for a server", bad.chars().take(80).collect::<String>()))
        }
        None => Ok(names),
    }
}

/// The disk for the OS where its owner names none: solid-state before spinning, then the smallest that is large enough, then
/// the first by name, so that the same machine gives the same disk each time.
pub fn os_disk(inventory: &Inventory, minimum: u64) -> Option<DiskId> {
    let fits = |disk: &&Disk| is_candidate(disk) && disk.size_bytes >= minimum;
    let order = |disk: &&Disk| (disk.rotational, disk.size_bytes, disk.id.clone());
    inventory.disks.iter().filter(fits).min_by_key(order).and_then(|disk| disk.id.clone())
}

/// The disks to wipe when a machine comes back: whoever had it could write to all of them.
pub fn wiped(inventory: &Inventory) -> Vec<DiskTarget> {
    let target = |disk: &Disk| Some(DiskTarget { id: disk.id.clone()?, size_bytes: disk.size_bytes });
    inventory.disks.iter().filter(|disk| is_candidate(disk)).filter_map(target).collect()
}

/// What a machine counts for.
pub fn amounts(inventory: &Inventory) -> Amounts {
    let disks = inventory.disks.iter().filter(|disk| is_candidate(disk)).count();
    Amounts {
        servers: 1,
        cores: inventory.cpus.iter().map(|cpu| u64::from(cpu.cores)).sum(),
        memory_mib: installed_memory(inventory) >> 20,
        disks: u64::try_from(disks).unwrap_or(u64::MAX),
        ..Amounts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_batch() {
        assert_eq!(names("web", 1), Ok(vec!["web".into()]));
        assert_eq!(names("web", 2), Ok(vec!["web-1".into(), "web-2".into()]));
        assert_eq!(names("n{n}-db", 2), Ok(vec!["n1-db".into(), "n2-db".into()]));
        assert_eq!(names("n{n}", 1), Ok(vec!["n1".into()]));
        for bad in ["", "a b", "a.b", "-a", "<script>", "{n}.x"] {
            assert!(names(bad, 1).is_err(), "{bad}");
        }
        assert!(names(&"x".repeat(62), 100).is_err(), "64 characters with its number");
    }

    fn disk(name: &str, size: u64, rotational: bool) -> Disk {
        Disk {
            id: Some(format!("serial:{name}").parse().unwrap()),
            name: name.into(),
            bus_path: None,
            model: None,
            serial: None,
            wwn: None,
            firmware: None,
            size_bytes: size,
            logical_sector: 512,
            physical_sector: 512,
            rotational,
            transport: protocol::inventory::Transport::Nvme,
            removable: false,
            read_only: false,
            content: protocol::inventory::DiskContent::Unknown,
        }
    }

    #[test]
    fn the_same_machine_gives_the_same_disk() {
        let mut disks =
            vec![disk("c", 10, true), disk("b", 50, false), disk("a", 50, false), disk("d", 90, false)];
        for _ in 0..4 {
            disks.rotate_left(1);
            let inventory = Inventory { disks: disks.clone(), ..Inventory::default() };
            assert_eq!(os_disk(&inventory, 5).unwrap().to_string(), "serial:a");
            assert_eq!(os_disk(&inventory, 60).unwrap().to_string(), "serial:d");
            assert_eq!(os_disk(&inventory, 100), None);
            assert_eq!(wiped(&inventory).len(), 4);
        }
    }
}
