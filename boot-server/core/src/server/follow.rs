//! What a server becomes and what is done for it, from how its machine stands: one total function.

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::node::state::Fallback;
use crate::node::{Failure, Node, State, StateName};

/// A machine as its server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Ready to be deployed.
    Available,
    /// An OS is being put on it.
    Deploying,
    /// The same, and it is to stop at the next safe point.
    Stopping,
    /// Runs an OS.
    Active,
    /// Being wiped.
    Wiping,
    /// Its firmware or settings are being changed.
    Servicing,
    /// Stopped, with an OS or a part of one on its disks.
    Failed,
    /// Stopped while it was wiped, or in a way that has nothing to do with an OS: people see to it.
    Stuck,
    /// Taken out of the offer.
    Withdrawn,
    /// Not known any more.
    Gone,
}

impl Seen {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Available,
        Self::Deploying,
        Self::Stopping,
        Self::Active,
        Self::Wiping,
        Self::Servicing,
        Self::Failed,
        Self::Stuck,
        Self::Withdrawn,
        Self::Gone,
    ];

    /// How this machine stands.
    pub fn of(node: Option<&Node>) -> Self {
        let Some(node) = node else { return Self::Gone };
        match &node.state {
            State::Available => Self::Available,
            State::Deploying(run) if run.abort => Self::Stopping,
            State::Deploying(_) => Self::Deploying,
            State::Active => Self::Active,
            State::Deleting(_) | State::Cleaning(_) => Self::Wiping,
            State::Servicing(_) => Self::Servicing,
            State::Failed(failure) => Self::of_failure(failure),
            State::Enroll | State::Manageable | State::Inspecting(_) => Self::Withdrawn,
        }
    }

    fn of_failure(failure: &Failure) -> Self {
        let serviced = failure.service.as_ref().is_some_and(|service| service.back == Fallback::Active);
        match failure.during {
            StateName::Deploying | StateName::Active => Self::Failed,
            StateName::Servicing if serviced => Self::Failed,
            _ => Self::Stuck,
        }
    }
}

/// What is to be done for a server. Each does no harm when it is done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Put the OS on its machine.
    Deploy,
    /// Stop the deploy at the next safe point.
    Abort,
    /// Wipe its machine's disks.
    GiveBack,
    /// End its claim and its usage.
    Release,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The phase from now on.
    pub phase: Phase,
    /// To do now.
    pub act: Option<Act>,
}

/// What a server in this phase becomes, with its machine as it is seen.
pub fn follow(phase: Phase, seen: Seen) -> Next {
    let becomes = |phase| Next { phase, act: None };
    let does = |phase, act| Next { phase, act: Some(act) };
    match (phase, seen) {
        (Phase::Deleted, _) => becomes(Phase::Deleted),

        (Phase::Deleting, Seen::Deploying) => does(Phase::Deleting, Act::Abort),
        (Phase::Deleting, Seen::Active | Seen::Failed) => does(Phase::Deleting, Act::GiveBack),
        (Phase::Deleting, Seen::Stopping | Seen::Wiping | Seen::Servicing) => becomes(Phase::Deleting),
        // A machine that cannot be wiped stays out of the offer, and is the site's business: its project has done with it.
        (Phase::Deleting, Seen::Available | Seen::Stuck | Seen::Withdrawn | Seen::Gone) => {
            does(Phase::Deleted, Act::Release)
        }

        (Phase::Claimed, Seen::Available) => does(Phase::Claimed, Act::Deploy),
        (Phase::Claimed, Seen::Servicing | Seen::Wiping) => becomes(Phase::Claimed),

        (_, Seen::Deploying | Seen::Stopping) => becomes(Phase::Deploying),
        (_, Seen::Active) => becomes(Phase::Active),
        (Phase::Deploying | Phase::Active | Phase::Error, Seen::Servicing) => becomes(phase),
        // The deploy was called off before anything was changed, or somebody took the machine away.
        (Phase::Deploying | Phase::Active | Phase::Error, Seen::Available | Seen::Wiping)
        | (_, Seen::Failed | Seen::Stuck | Seen::Withdrawn | Seen::Gone) => becomes(Phase::Error),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        for phase in Phase::ALL {
            for seen in Seen::ALL {
                let next = follow(phase, seen);
                let act = next.act.map(|act| format!(", {act:?}")).unwrap_or_default();
                let stays =
                    if next.phase == phase { "stays".to_owned() } else { format!("-> {}", next.phase) };
                writeln!(table, "{phase:<9} {:<9} {stays}{act}", format!("{seen:?}").to_lowercase()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_server_that_is_deleted_ends_and_never_comes_back() {
        for seen in Seen::ALL {
            assert_eq!(follow(Phase::Deleted, seen), Next { phase: Phase::Deleted, act: None });
            let next = follow(Phase::Deleting, seen);
            assert!(matches!(next.phase, Phase::Deleting | Phase::Deleted), "{seen:?}");
            // Its claim ends in the moment in which it is deleted, never before.
            assert_eq!(next.act == Some(Act::Release), next.phase == Phase::Deleted, "{seen:?}");
        }
        for phase in Phase::ALL {
            for seen in Seen::ALL {
                let next = follow(phase, seen);
                assert!(phase == Phase::Deleted || next.phase != Phase::Deleted || phase == Phase::Deleting);
                assert!(next.act != Some(Act::Deploy) || (phase, seen) == (Phase::Claimed, Seen::Available));
            }
        }
    }
}
