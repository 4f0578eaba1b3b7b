//! What a project may have at most. The shell reads what it has and asks in the transaction that takes more.

use serde::{Deserialize, Serialize};

use crate::amounts::{Amounts, Resource};

/// Limits of a project; what is not given has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<u64>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// MiB of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<u64>,
    /// Volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// GiB of volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_gib: Option<u64>,
    /// Networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<u64>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u64>,
    /// Snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
}

impl Limits {
    /// The limit of one kind.
    pub fn of(&self, resource: Resource) -> Option<u64> {
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
}

/// A limit that would be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exceeded {
    /// Of what.
    pub resource: Resource,
    /// At most so many.
    pub limit: u64,
    /// So many are there.
    pub used: u64,
    /// So many more were asked for.
    pub asked: u64,
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, limit, used, asked } = self;
        write!(f, "{resource}: {used} used and {asked} asked for, the limit is {limit}")
    }
}

/// Every limit that `asked` on top of `used` would pass. What is not asked for passes none, also where a limit was set below
/// what is there.
pub fn check(limits: &Limits, used: &Amounts, asked: &Amounts) -> Vec<Exceeded> {
    let passed = |resource| {
        let (limit, used, asked) = (limits.of(resource)?, used.of(resource), asked.of(resource));
        (asked > 0 && used.saturating_add(asked) > limit).then_some(Exceeded { resource, limit, used, asked })
    };
    Resource::ALL.into_iter().filter_map(passed).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amounts(servers: u64, cores: u64) -> Amounts {
        Amounts { servers, cores, ..Amounts::default() }
    }

    #[test]
    fn each_limit_is_named_that_would_be_passed() {
        let limits = Limits { servers: Some(4), cores: Some(64), ..Limits::default() };
        assert_eq!(check(&limits, &amounts(3, 48), &amounts(1, 16)), []);
        let both = check(&limits, &amounts(4, 60), &amounts(1, 16));
        let words: Vec<String> = both.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "servers: 4 used and 1 asked for, the limit is 4",
                "cores: 60 used and 16 asked for, the limit is 64"
            ]
        );
        // A limit that was lowered below what is there takes nothing away, and lets nothing more in.
        assert_eq!(check(&limits, &amounts(9, 0), &amounts(0, 1)), []);
        assert_eq!(check(&Limits::default(), &amounts(u64::MAX, 0), &amounts(u64::MAX, 0)), []);
        assert_eq!(check(&limits, &amounts(1, 0), &amounts(u64::MAX, 0)).len(), 1, "no overflow");
    }

    proptest! {
        /// Whatever is taken in whatever order, no limit is ever passed by it.
        #[test]
        fn what_is_taken_never_passes_a_limit(
            limit in 0_u64..50, asked in prop::collection::vec((0_u64..9, 0_u64..9), 0..40)
        ) {
            let limits = Limits { servers: Some(limit), cores: Some(limit), ..Limits::default() };
            let mut used = Amounts::default();
            for (servers, cores) in asked {
                if check(&limits, &used, &amounts(servers, cores)).is_empty() {
                    used += amounts(servers, cores);
                }
                prop_assert!(used.servers <= limit && used.cores <= limit);
            }
        }
    }
}
