//! A flavor: what kind of machine a user asks for, as rules over what machines are, and what of it counts against a quota.

mod bounds;
mod rules;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use bounds::{BadBounds, Bounds};
pub use rules::{BadRule, DiskRule, GpuRule, Mismatch, NicRule, RuleError, Rules};

use crate::hardware::Hardware;
use crate::names::{FlavorName, PoolName};

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 500;
/// Pools that are named in one flavor.
const POOLS_MAX: usize = 64;

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Flavor {
    /// Names it.
    pub name: FlavorName,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What a machine must be.
    #[serde(default)]
    pub rules: Rules,
    /// Only machines of these pools; of all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
    /// What counts against a project's quota, whatever machine it gets. If not given: what the rules ask for at least.
    #[serde(default)]
    pub billed: Option<Billed>,
    /// It cannot be asked for any more; servers that have it keep it.
    #[serde(default)]
    pub withdrawn: bool,
}

/// What counts against a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Billed {
    /// Cores.
    #[serde(default)]
    pub cores: u64,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Disks.
    #[serde(default)]
    pub disks: u64,
    /// GiB of all disks.
    #[serde(default)]
    pub disk_gib: u64,
}

impl Billed {
    /// What a whole machine counts, for one that is asked for by name.
    pub fn of(hardware: &Hardware) -> Self {
        Self {
            cores: u64::from(hardware.cores),
            memory_mib: hardware.memory_bytes >> 20,
            disks: hardware.disks.len() as u64,
            disk_gib: hardware.disk_bytes() >> 30,
        }
    }
}

impl FromStr for Billed {
    type Err = BadBilled;

    fn from_str(text: &str) -> Result<Self, BadBilled> {
        let mut numbers = text.split(',').map(|part| match part.trim() {
            "" => Ok(0),
            digits => digits.parse::<u64>().map_err(|_| BadBilled),
        });
        let mut next = || numbers.next().unwrap_or(Ok(0));
        let billed = Self { cores: next()?, memory_mib: next()?, disks: next()?, disk_gib: next()? };
        if numbers.next().is_some() { Err(BadBilled) } else { Ok(billed) }
    }
}

impl fmt::Display for Billed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.cores, self.memory_mib, self.disks, self.disk_gib)
    }
}

/// A text that says nothing that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what counts is CORES,MIB,DISKS,GIB such as 16,65536,2,1600")]
pub struct BadBilled;

/// A flavor that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlavorError {
    /// The description.
    #[error("a description has at most {DESCRIPTION_MAX} characters")]
    Description,
    /// The pools.
    #[error("a flavor names at most {POOLS_MAX} pools")]
    Pools,
    /// A number that no store takes.
    #[error("what is billed is too much")]
    Billed,
    /// A rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl Flavor {
    /// A flavor that every machine matches.
    pub fn new(name: FlavorName) -> Self {
        Self {
            name,
            description: String::new(),
            rules: Rules::default(),
            pools: Vec::new(),
            billed: None,
            withdrawn: false,
        }
    }

    /// Why a machine is not of this kind; nothing where it is.
    pub fn matches(&self, hardware: &Hardware) -> Vec<Mismatch> {
        self.rules.matches(hardware)
    }

    /// What counts against a quota.
    pub fn billed(&self) -> Billed {
        self.billed.unwrap_or_else(|| self.rules.at_least())
    }

    /// True where machines of the pool can be of this kind.
    pub fn takes_pool(&self, pool: &PoolName) -> bool {
        self.pools.is_empty() || self.pools.contains(pool)
    }

    /// What can be wrong with it.
    ///
    /// # Errors
    /// [`FlavorError`].
    pub fn check(&self) -> Result<(), FlavorError> {
        if self.description.chars().count() > DESCRIPTION_MAX {
            return Err(FlavorError::Description);
        }
        if self.pools.len() > POOLS_MAX {
            return Err(FlavorError::Pools);
        }
        let Billed { cores, memory_mib, disks, disk_gib } = self.billed();
        if [cores, memory_mib, disks, disk_gib].into_iter().any(|n| n > rules::NUMBER_MAX) {
            return Err(FlavorError::Billed);
        }
        Ok(self.rules.check()?)
    }
}
