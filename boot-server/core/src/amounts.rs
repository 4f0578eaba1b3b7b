//! How much of everything: what a quota limits, what a server takes, what is metered.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// A kind of thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Servers.
    Servers,
    /// Cores of their processors.
    Cores,
    /// Their memory, in MiB.
    MemoryMib,
    /// Their disks.
    Disks,
    /// Volumes.
    Volumes,
    /// Size of volumes, in GiB.
    VolumeGib,
    /// Networks.
    Networks,
    /// Addresses.
    Addresses,
    /// Snapshots.
    Snapshots,
}

impl Resource {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Servers,
        Self::Cores,
        Self::MemoryMib,
        Self::Disks,
        Self::Volumes,
        Self::VolumeGib,
        Self::Networks,
        Self::Addresses,
        Self::Snapshots,
    ];

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Cores => "cores",
            Self::MemoryMib => "memory_mib",
            Self::Disks => "disks",
            Self::Volumes => "volumes",
            Self::VolumeGib => "volume_gib",
            Self::Networks => "networks",
            Self::Addresses => "addresses",
            Self::Snapshots => "snapshots",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryMib => "MiB of memory",
            Self::VolumeGib => "GiB of volumes",
            other => other.as_str(),
        })
    }
}

/// So much of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Amounts {
    /// Servers.
    pub servers: u64,
    /// Cores.
    pub cores: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// Disks.
    pub disks: u64,
    /// Volumes.
    pub volumes: u64,
    /// GiB of volumes.
    pub volume_gib: u64,
    /// Networks.
    pub networks: u64,
    /// Addresses.
    pub addresses: u64,
    /// Snapshots.
    pub snapshots: u64,
}

impl Amounts {
    /// So much of one kind.
    pub fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Servers => self.servers,
            Resource::Cores => self.cores,
            Resource::MemoryMib => self.memory_mib,
            Resource::Disks => self.disks,
            Resource::Volumes => self.volumes,
            Resource::VolumeGib => self.volume_gib,
            Resource::Networks => self.networks,
            Resource::Addresses => self.addresses,
            Resource::Snapshots => self.snapshots,
        }
    }

    /// Sets how much of one kind.
    pub fn set(&mut self, resource: Resource, amount: u64) {
        *match resource {
            Resource::Servers => &mut self.servers,
            Resource::Cores => &mut self.cores,
            Resource::MemoryMib => &mut self.memory_mib,
            Resource::Disks => &mut self.disks,
            Resource::Volumes => &mut self.volumes,
            Resource::VolumeGib => &mut self.volume_gib,
            Resource::Networks => &mut self.networks,
            Resource::Addresses => &mut self.addresses,
            Resource::Snapshots => &mut self.snapshots,
        } = amount;
    }
}

impl Add for Amounts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Amounts {
    /// Saturates: a sum that is too large for 64 bits is above every limit.
    fn add_assign(&mut self, other: Self) {
        for resource in Resource::ALL {
            self.set(resource, self.of(resource).saturating_add(other.of(resource)));
        }
    }
}

impl std::iter::Sum for Amounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
