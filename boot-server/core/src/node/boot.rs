//! What a machine that boots from the network gets, from its state alone. One pure function, so that no node can
//! reinstall itself in a loop: the agent is booted only where a state needs it.

use serde::{Deserialize, Serialize};

use super::Node;
use super::state::{RunStage, State};

/// The answer to a network boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Kernel and ramdisk with the agent.
    Agent,
    /// Go on to the disk.
    LocalDisk,
}

/// What this node must boot now.
pub fn required_boot(node: &Node) -> Boot {
    match &node.state {
        State::Enroll
        | State::Inspecting(_)
        | State::Manageable
        | State::Cleaning(_)
        | State::Available
        | State::Deleting(_) => Boot::Agent,
        State::Deploying(run) => match run.stage {
            RunStage::Boot | RunStage::Kernel | RunStage::Assign | RunStage::Agent(_) => Boot::Agent,
            RunStage::Restart | RunStage::FirstBoot => Boot::LocalDisk,
        },
        State::Active => Boot::LocalDisk,
        State::Failed(failure) => failure.boot,
    }
}
