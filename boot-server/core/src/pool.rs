//! A pool: machines that are offered to some projects, and how they are treated while nobody has them.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::ProjectId;
use serde::{Deserialize, Serialize};

use crate::names::PoolName;

/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 500;
/// Projects that are named in one pool.
const PROJECTS_MAX: usize = 1000;
/// Shortest idle time: a machine needs some minutes for its POST, and is not to be switched to and fro.
const IDLE_MIN: u32 = 1;
/// Longest idle time: a year.
const IDLE_MAX: u32 = 366 * 24 * 60;
/// Highest weight.
const WEIGHT_MAX: u32 = 1_000_000;

/// A set of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Names it.
    pub name: PoolName,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// To whom its machines are offered.
    #[serde(default)]
    pub offered: Offer,
    /// What destroys something on its machines needs a second person.
    #[serde(default)]
    pub four_eyes: bool,
    /// When disks of its machines are erased, and not only wiped.
    #[serde(default)]
    pub erase: EraseWhen,
    /// What becomes of a machine that nobody has.
    #[serde(default)]
    pub idle: Idle,
    /// What makes a machine too good for a request.
    #[serde(default)]
    pub weights: Weights,
}

/// To whom machines are offered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// To every project.
    #[default]
    All,
    /// To these; to none where the list is empty.
    Projects(BTreeSet<ProjectId>),
}

/// When disks are erased, and not only wiped of tables and signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EraseWhen {
    /// When a project gives a server back, and where somebody asks for it.
    #[default]
    BetweenTenants,
    /// The same, and whenever disks of a machine are wiped.
    Always,
    /// Where somebody asks for it only: for machines that one tenant has alone.
    WhenAsked,
}

/// Power of a machine that is available and that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is switched off after so many minutes.
    OffAfterMinutes(u32),
}

impl Idle {
    /// How long a machine may be idle before it is switched off.
    pub fn patience(self) -> Option<Duration> {
        match self {
            Self::Keep => None,
            Self::OffAfterMinutes(minutes) => Some(Duration::from_mins(u64::from(minutes))),
        }
    }
}

/// By how much a machine is too good, per thing that it has and the request did not ask for. The machine with the least is
/// taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Of each machine of this pool, whatever it has: others are taken before it.
    pub base: u32,
    /// Per core.
    pub core: u32,
    /// Per GiB of memory.
    pub memory_gib: u32,
    /// Per disk.
    pub disk: u32,
    /// Per GPU: far above cores, for they are few.
    pub gpu: u32,
    /// Per DPU.
    pub dpu: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { base: 0, core: 8, memory_gib: 1, disk: 16, gpu: 4096, dpu: 512 }
    }
}

/// A pool that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The description.
    #[error("a description has at most {DESCRIPTION_MAX} characters")]
    Description,
    /// The projects.
    #[error("a pool names at most {PROJECTS_MAX} projects")]
    Projects,
    /// The idle time.
    #[error("an idle machine is switched off after {IDLE_MIN} to {IDLE_MAX} minutes")]
    Idle,
    /// A weight.
    #[error("a weight is at most {WEIGHT_MAX}")]
    Weight,
}

impl Pool {
    /// A pool offered to everybody, that changes nothing.
    pub fn new(name: PoolName) -> Self {
        Self {
            name,
            description: String::new(),
            offered: Offer::All,
            four_eyes: false,
            erase: EraseWhen::BetweenTenants,
            idle: Idle::Keep,
            weights: Weights::default(),
        }
    }

    /// True where its machines are offered to the project.
    pub fn offers(&self, project: ProjectId) -> bool {
        match &self.offered {
            Offer::All => true,
            Offer::Projects(projects) => projects.contains(&project),
        }
    }

    /// What can be wrong with it.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn check(&self) -> Result<(), PoolError> {
        if self.description.chars().count() > DESCRIPTION_MAX {
            return Err(PoolError::Description);
        }
        if matches!(&self.offered, Offer::Projects(projects) if projects.len() > PROJECTS_MAX) {
            return Err(PoolError::Projects);
        }
        if matches!(self.idle, Idle::OffAfterMinutes(n) if !(IDLE_MIN..=IDLE_MAX).contains(&n)) {
            return Err(PoolError::Idle);
        }
        let Weights { base, core, memory_gib, disk, gpu, dpu } = self.weights;
        if [base, core, memory_gib, disk, gpu, dpu].into_iter().any(|weight| weight > WEIGHT_MAX) {
            return Err(PoolError::Weight);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_its_json() {
        let text = r#"{"name":"gold","offered":{"projects":[]},"idle":{"off_after_minutes":30},"weights":{"base":9}}"#;
        let pool: Pool = serde_json::from_str(text).unwrap();
        assert_eq!(pool.idle.patience(), Some(Duration::from_mins(30)));
        assert_eq!((pool.weights.base, pool.weights.core), (9, Weights::default().core));
        assert!(!pool.offers(ProjectId(uuid::Uuid::nil())), "to nobody");
        assert_eq!(pool.check(), Ok(()));
        assert!(serde_json::from_str::<Pool>(r#"{"name":"gold","hashes":1}"#).is_err(), "an unknown field");
        let mut pool = Pool::new("a".parse().unwrap());
        assert!(pool.offers(ProjectId(uuid::Uuid::nil())) && pool.idle.patience().is_none());
        pool.idle = Idle::OffAfterMinutes(0);
        assert_eq!(pool.check(), Err(PoolError::Idle));
        pool.idle = Idle::Keep;
        pool.weights.gpu = WEIGHT_MAX + 1;
        assert_eq!(pool.check(), Err(PoolError::Weight));
        pool.weights.gpu = 0;
        pool.description = "ä".repeat(501);
        assert_eq!(pool.check(), Err(PoolError::Description));
    }
}
