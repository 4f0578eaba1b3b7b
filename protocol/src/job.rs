//! Work that the server gives to the agent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::erase::EraseOrder;
use crate::ids::{DiskId, ImageId, JobId};

/// One piece of work on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Names the job in every report.
    pub id: JobId,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Task {
    /// Look at the hardware again and send the inventory.
    Inspect,
    /// Wipe partition tables and signatures of these disks and read back, or erase them.
    Clean {
        /// The disks, by name; every other disk is not touched.
        disks: Vec<DiskTarget>,
        /// All that is on them goes, and each gets a record. An agent from before this was thought of wipes lightly and sends no
        /// record: the server takes nothing for erased without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        erase: Option<EraseOrder>,
    },
    /// Write an OS.
    Deploy(Box<DeploySpec>),
}

impl Task {
    /// The verb as people know it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Clean { .. } => "clean",
            Self::Deploy(_) => "deploy",
        }
    }
}

/// A disk named so that no other can be meant: it is refused where id *and* size do not match exactly one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTarget {
    /// Stable name.
    pub id: DiskId,
    /// Size in bytes as inventoried.
    pub size_bytes: u64,
}

/// Everything the agent needs to put an OS on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploySpec {
    /// The image; its manifest is fetched by this id and must hash to it.
    pub image: ImageId,
    /// Name and version for messages, such as `debian-12 20261122`.
    pub image_name: String,
    /// The disk to write.
    pub target: DiskTarget,
    /// NoCloud files for the `cidata` partition; `None` leaves the image as it is.
    pub config: Option<CloudConfig>,
    /// Grow the last partition of the image (the root) to the end of the disk.
    pub grow_root: bool,
    /// Make an EFI boot entry and put the disk first in the boot order (UEFI only).
    pub boot_entry: Option<String>,
}

/// Files of a NoCloud data source (cloud-init, `cidata`). They hold tokens and perhaps passwords, so `Debug` shows sizes only.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CloudConfig {
    /// `meta-data` (YAML).
    pub meta_data: String,
    /// `user-data` as the user gave it.
    pub user_data: String,
    /// `vendor-data`: what Billet adds beneath the user's own (user, keys, phone-home).
    pub vendor_data: String,
    /// `network-config` (version 2), where the network is not plain DHCP.
    pub network_config: Option<String>,
    /// Files of an OpenStack config drive (volume label `config-2`). Where there are any, they take the place of all above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config_drive: Vec<SeedFile>,
}

impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudConfig")
            .field("meta_data", &self.meta_data.len())
            .field("user_data", &self.user_data.len())
            .field("vendor_data", &self.vendor_data.len())
            .field("network_config", &self.network_config.as_ref().map(String::len))
            .field("config_drive", &self.config_drive)
            .finish()
    }
}

/// One file of a config drive.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedFile {
    /// Path from the root of the volume, such as `openstack/latest/meta_data.json`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedFile").field("path", &self.path).field("text", &self.text.len()).finish()
    }
}
