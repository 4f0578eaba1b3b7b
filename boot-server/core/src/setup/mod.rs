//! Setting up a DPU by its own controller: mode, privilege of the host, installation, firmware, restart. One job at a time for each DPU;
//! what a job does next is [`Job::step`], which host a card is in [`pair`], what an installation is handed [`config`].

mod config;
mod life;
mod pair;

use std::time::Duration;

use protocol::{DpuId, JobId, MacAddr, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

pub use config::{Handed, config};
pub use life::{News, TRIES_MAX};
pub use pair::{By, Doubt, Host, Paired, pair};

/// What an installation is for at the controller: the last part of the item's id (NVIDIA, BlueField BMC, Deploying Software Using BFB).
pub const OS_ITEM: &str = "DPU_OS";
/// The controller's word for a DPU whose system runs (NVIDIA, BlueField BMC, BlueField Arm State).
const RUNS: &str = "OsIsRunning";
/// Jobs of one DPU that are kept; those that installed something are kept beside them.
pub const JOBS_MAX: usize = 50;

/// A DPU as its controller showed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuCard))]
#[serde(default)]
pub struct Card {
    /// Model.
    pub model: Option<String>,
    /// Serial number of the card.
    pub serial: Option<String>,
    /// Part number of the card.
    pub part_number: Option<String>,
    /// First of the card's addresses.
    pub base_mac: Option<MacAddr>,
    /// Address of its management port.
    pub oob_mac: Option<MacAddr>,
    /// Addresses of the functions that its host sees as NICs.
    pub functions: Vec<MacAddr>,
    /// What it is to its host.
    pub mode: Option<Mode>,
    /// What its host may do with it.
    pub privilege: Option<Privilege>,
    /// How far the start of its own system is, in the controller's words.
    pub boot: Option<String>,
    /// Its firmware, and the image that was installed.
    pub firmware: Vec<Version>,
}

impl Card {
    /// The version of an item of its firmware.
    pub fn version(&self, item: &str) -> Option<&str> {
        self.firmware.iter().find(|one| one.item == item)?.version.as_deref()
    }
}

/// A firmware's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuVersion))]
pub struct Version {
    /// The controller's name of it, such as `DPU_OS`, `BMC_Firmware`, `DPU_NIC`.
    pub item: String,
    /// The version.
    pub version: Option<String>,
}

/// What a DPU is to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuMode))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A computer of its own between host and network.
    Dpu,
    /// A plain NIC.
    Nic,
}

impl Mode {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpu => "dpu",
            Self::Nic => "nic",
        }
    }
}

/// What a host may do with its DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuPrivilege))]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Anything.
    Privileged,
    /// Use it.
    Restricted,
}

impl Privilege {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Restricted => "restricted",
        }
    }
}

/// A part whose firmware is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = DpuPart))]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The controller; it is restarted afterwards.
    Bmc,
    /// The root of trust beside it; in force after a power cycle of the host.
    Cec,
    /// The NIC, by an image with its firmware alone; in force after a power cycle of the host.
    Nic,
}

impl Part {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bmc => "bmc",
            Self::Cec => "cec",
            Self::Nic => "nic",
        }
    }

    /// Its item at the controller (NVIDIA, BlueField BMC, System Inventory).
    pub fn item(self) -> &'static str {
        match self {
            Self::Bmc => "BMC_Firmware",
            Self::Cec => "Bluefield_FW_ERoT",
            Self::Nic => "DPU_NIC",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Order {
    /// Another mode.
    Mode {
        /// Which.
        mode: Mode,
        /// The host is power-cycled for it, where it has a controller and runs.
        cycle: bool,
    },
    /// Another privilege of the host.
    Privilege {
        /// Which.
        privilege: Privilege,
    },
    /// An image is installed.
    Install {
        /// Path in the media directory.
        image: String,
        /// SHA-256 of the file.
        sha256: Sha256,
        /// The agent is to come in by itself afterwards.
        agent: bool,
        /// It puts back what was there before.
        rollback: bool,
    },
    /// The firmware of a part is written.
    Firmware {
        /// Which.
        part: Part,
        /// Path in the media directory.
        image: String,
        /// SHA-256 of the file.
        sha256: Sha256,
    },
    /// The DPU's own system is restarted.
    Reset {
        /// It is asked to shut down first.
        graceful: bool,
    },
}

impl Order {
    /// As it is written in the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mode { .. } => "mode",
            Self::Privilege { .. } => "host_privilege",
            Self::Install { rollback: true, .. } => "rollback",
            Self::Install { .. } => "install",
            Self::Firmware { .. } => "firmware",
            Self::Reset { .. } => "reset",
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Mode { mode, .. } => format!("mode {}", mode.as_str()),
            Self::Privilege { privilege } => format!("the host is {}", privilege.as_str()),
            Self::Install { image, rollback: true, .. } => format!("rollback to {image}"),
            Self::Install { image, .. } => format!("install {image}"),
            Self::Firmware { part, image, .. } => format!("firmware {image} of the {}", part.as_str()),
            Self::Reset { graceful: true } => "restart".to_owned(),
            Self::Reset { graceful: false } => "restart at once".to_owned(),
        }
    }

    /// The file that it needs.
    pub fn image(&self) -> Option<(&str, Sha256)> {
        match self {
            Self::Install { image, sha256, .. } | Self::Firmware { image, sha256, .. } => {
                Some((image, *sha256))
            }
            Self::Mode { .. } | Self::Privilege { .. } | Self::Reset { .. } => None,
        }
    }

    /// The controller fetches its file.
    pub fn is_fetched(&self) -> bool {
        matches!(self, Self::Install { .. } | Self::Firmware { part: Part::Nic, .. })
    }

    /// The item whose version it changes.
    pub fn item(&self) -> Option<&'static str> {
        match self {
            Self::Install { .. } => Some(OS_ITEM),
            Self::Firmware { part, .. } => Some(part.item()),
            Self::Mode { .. } | Self::Privilege { .. } | Self::Reset { .. } => None,
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    /// Looks how it is before anything is changed.
    Check,
    /// It is asked for. Stored before it is sent, with the tasks that the controller had then.
    Ask {
        /// Ids of tasks.
        known: Vec<String>,
    },
    /// Whether it was asked for is not known.
    Doubt {
        /// Ids of tasks that were there before.
        known: Vec<String>,
    },
    /// The controller works on it.
    Task {
        /// Its id.
        id: String,
        /// Ids of tasks that were there before.
        known: Vec<String>,
    },
    /// What brings it into force is restarted: the DPU's system, or its controller.
    Restart,
    /// The host is power-cycled.
    Cycle,
    /// It does not show yet.
    Settle,
    /// The DPU has not come in with its token yet.
    Arrive,
    /// What was asked for is taken back.
    Undo {
        /// Why it is.
        why: String,
    },
    /// Over.
    Done,
    /// Over, and not done.
    Failed {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
        /// It is as it was before.
        undone: bool,
    },
}

impl Stage {
    /// As it is written in the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Ask { .. } => "ask",
            Self::Doubt { .. } => "doubt",
            Self::Task { .. } => "task",
            Self::Restart => "restart",
            Self::Cycle => "cycle",
            Self::Settle => "settle",
            Self::Arrive => "arrive",
            Self::Undo { .. } => "undo",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
        }
    }

    /// It is over.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. })
    }

    /// How long it may take: an installation of 1.5 GB over the BMC takes up to half an hour (NVIDIA, BlueField BMC, Deploying Software
    /// Using BFB), and a person may have to power-cycle the host.
    fn patience(&self) -> Duration {
        let minutes = match self {
            Self::Check | Self::Ask { .. } | Self::Restart | Self::Cycle | Self::Undo { .. } => 10,
            Self::Doubt { .. } => 30,
            // Begins anew with each progress.
            Self::Task { .. } => 45,
            Self::Settle | Self::Arrive => 90,
            Self::Done | Self::Failed { .. } => 0,
        };
        Duration::from_mins(minutes)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Names it.
    pub id: JobId,
    /// Whose.
    pub dpu: DpuId,
    /// What is to be done.
    pub order: Order,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub begun: Timestamp,
    /// How far it is.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// When waiting ends.
    pub deadline: Timestamp,
    /// How often it was asked for.
    pub tries: u32,
    /// The mode that it had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_before: Option<Mode>,
    /// The privilege that its host had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege_before: Option<Privilege>,
    /// The version that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_before: Option<String>,
    /// The version that is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Percent of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What the controller says of it, or why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

impl Job {
    /// A job that has just been asked for.
    pub fn new(id: JobId, dpu: DpuId, order: Order, by: String, now: Timestamp) -> Self {
        let stage = Stage::Check;
        Self {
            id,
            dpu,
            order,
            by,
            begun: now,
            since: now,
            deadline: now.after(stage.patience()),
            stage,
            tries: 0,
            mode_before: None,
            privilege_before: None,
            version_before: None,
            version: None,
            percent: None,
            words: None,
        }
    }

    /// What it waits for, or how it ended, in words.
    pub fn words(&self) -> String {
        let what = self.order.words();
        let mut text = match &self.stage {
            Stage::Check => "the BMC to say how the DPU is".to_owned(),
            Stage::Ask { .. } => format!("the BMC to take {what}"),
            Stage::Doubt { .. } => format!("the BMC to say whether it began with {what}"),
            Stage::Task { .. } => match self.percent {
                Some(percent) => format!("the BMC's task, {percent} % done"),
                None => "the BMC's task".to_owned(),
            },
            Stage::Restart => "the BMC to restart what it takes to be in force".to_owned(),
            Stage::Cycle => "the host to be power-cycled".to_owned(),
            Stage::Settle => match self.order {
                Order::Mode { .. } => format!("{what} to show: power-cycle the host"),
                _ => format!("{what} to show"),
            },
            Stage::Arrive => "the DPU to come in with its token".to_owned(),
            Stage::Undo { why } => format!("the BMC to take {what} back: {why}"),
            Stage::Done => return format!("{what}: done"),
            Stage::Failed { why, .. } => return why.clone(),
        };
        if let Some(words) = &self.words {
            text.push_str(&format!(" ({words})"));
        }
        text
    }

    /// What somebody who wants it back as it was asks for; none where it cannot be taken back.
    pub fn way_back(&self) -> Option<Order> {
        match self.order {
            Order::Mode { .. } => Some(Order::Mode { mode: self.mode_before?, cycle: false }),
            Order::Privilege { .. } => Some(Order::Privilege { privilege: self.privilege_before? }),
            Order::Install { .. } | Order::Firmware { .. } | Order::Reset { .. } => None,
        }
    }

    /// What it installed, where it did.
    pub fn installed(&self) -> Option<(&str, Sha256)> {
        match (&self.order, &self.stage) {
            (Order::Install { image, sha256, .. }, Stage::Done) => Some((image, *sha256)),
            _ => None,
        }
    }
}

/// What a rollback installs: the image before the one that was installed last, of jobs in the order in which they were begun.
pub fn before_last<'a>(jobs: impl DoubleEndedIterator<Item = &'a Job>) -> Option<(&'a str, Sha256)> {
    let mut installed = jobs.rev().filter_map(Job::installed);
    let (_, last) = installed.next()?;
    installed.find(|(_, sha256)| *sha256 != last)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_rollback_is_to_the_image_before() {
        let job = |image: &str, digest: u8, stage: Stage| {
            let order = Order::Install {
                image: image.into(),
                sha256: Sha256([digest; 32]),
                agent: true,
                rollback: false,
            };
            let id = JobId(Uuid::from_u128(u128::from(digest)));
            let mut job = Job::new(id, DpuId(Uuid::from_u128(1)), order, "x".into(), Timestamp(0));
            job.stage = stage;
            job
        };
        let failed = || Stage::Failed { why: String::new(), hint: String::new(), undone: false };
        let (a, b) = (job("a", 1, Stage::Done), job("b", 2, Stage::Done));
        assert_eq!(before_last([&a].into_iter()), None);
        assert_eq!(before_last([&a, &b].into_iter()).unwrap().0, "a");
        assert_eq!(before_last([&a, &b, &b].into_iter()).unwrap().0, "a", "the same twice is one");
        assert_eq!(before_last([&a, &b, &job("c", 3, failed())].into_iter()).unwrap().0, "a");
        let back = job("a", 1, Stage::Done);
        assert_eq!(before_last([&a, &b, &back].into_iter()).unwrap().0, "b", "and forth");
    }
}
