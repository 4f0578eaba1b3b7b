//! Where a node stands, and what it waits for. Data lives in the variant.

use std::fmt;
use std::time::Duration;

use protocol::fault::Fault;
use protocol::job::{Job, Task};
use protocol::report::{Progress, Stage};
use protocol::{DiskId, Sha256, Timestamp, VolumeId};
use serde::{Deserialize, Serialize};

use super::boot::Usual;
use super::service::Service;
use crate::volume::{self, Imaging};

/// Ironic's provision states, as far as Billet has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name", content = "data")]
pub enum State {
    /// Seen, nothing known.
    Enroll,
    /// The agent looks at the hardware.
    Inspecting(Run),
    /// Known; not offered, because its disks may hold somebody's data.
    Manageable,
    /// The agent wipes the disks that were named.
    Cleaning(Run),
    /// Ready to be deployed.
    Available,
    /// An OS is being put on it.
    Deploying(Run),
    /// Runs the OS that was asked for.
    Active,
    /// Given back: waits until it has left its OS, then cleans.
    Deleting(Run),
    /// Its firmware or its settings are changed through its management controller.
    Servicing(Box<Service>),
    /// Stopped with a cause; a person decides.
    Failed(Failure),
}

/// A state's name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants of `State`, documented there")]
pub enum StateName {
    Enroll,
    Inspecting,
    Manageable,
    Cleaning,
    Available,
    Deploying,
    Active,
    Deleting,
    Servicing,
    Failed,
}

impl StateName {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Inspecting => "inspecting",
            Self::Manageable => "manageable",
            Self::Cleaning => "cleaning",
            Self::Available => "available",
            Self::Deploying => "deploying",
            Self::Active => "active",
            Self::Deleting => "deleting",
            Self::Servicing => "servicing",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One job on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The work.
    pub job: Job,
    /// How far it is.
    pub stage: RunStage,
    /// Since when it is in this stage.
    pub since: Timestamp,
    /// When waiting ends.
    pub deadline: Timestamp,
    /// How often the machine was sent back to the start of this job.
    #[serde(default)]
    pub restarts: u32,
    /// Highest report sequence number that was taken in.
    #[serde(default)]
    pub acked: u64,
    /// Newest progress of the agent.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Somebody asked to stop it.
    #[serde(default)]
    pub abort: bool,
    /// Where the node goes if the job is called off before it changed anything.
    pub fallback: Fallback,
    /// Deploys: SHA-256 of the token with which the OS phones home.
    #[serde(default)]
    pub phone_home: Option<Sha256>,
    /// Deploys: the OS phoned home from another machine, and runs as soon as this one is on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// Deploys: the OS runs on networks that a switch of the site puts its machine on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crosses: bool,
    /// Deploys: host name given to the OS.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Deploys onto a volume: how it stands with that.
    #[serde(default, skip_serializing_if = "OnVolume::is_default")]
    pub on_volume: OnVolume,
    /// Erases: the disks that were erased and read back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erased: Vec<DiskId>,
    /// What became of restarting the machine for this stage; `None` where a person does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerStory>,
}

/// What a deploy onto a volume knows beside its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OnVolume {
    /// Who writes the image.
    pub imaging: Imaging,
    /// The image is on it, and was read back: it is never written again.
    pub written: bool,
    /// The machine was switched off for it, and was not switched on since.
    pub off: bool,
}

impl OnVolume {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of restarting a machine through its management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerStory {
    /// Address of the controller.
    pub bmc: String,
    /// How far it is.
    pub stage: PowerStage,
}

/// How far a restart is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage", content = "what")]
pub enum PowerStage {
    /// It was begun.
    Begun,
    /// The controller says that the machine was switched on.
    On,
    /// The controller took the command and cannot tell what came of it.
    Taken,
    /// It does not go on, for this reason; it is tried again.
    Trouble(String),
}

/// Where a job that changed nothing leads back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named like the states they lead to")]
pub enum Fallback {
    Enroll,
    Manageable,
    Available,
    Active,
}

impl Fallback {
    /// The state itself.
    pub fn state(self) -> State {
        match self {
            Self::Enroll => State::Enroll,
            Self::Manageable => State::Manageable,
            Self::Available => State::Available,
            Self::Active => State::Active,
        }
    }
}

/// How far a job is. Each waits for one thing and has one deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage", content = "of")]
pub enum RunStage {
    /// The machine's disk is a volume: waits for what its DPU is to present. The machine is off, or what ran on it still runs. Where
    /// the agent writes the image it comes twice: before that, and between that and the first boot.
    Volume,
    /// Waits for the machine to boot from the network.
    Boot,
    /// The script was served: waits for the agent's hello.
    Kernel,
    /// The agent is there: waits for it to take the job.
    Assign,
    /// The agent works on this stage.
    Agent(Stage),
    /// The OS is written, and runs on other networks than the agent: waits for the switch to be ready. The agent stays.
    Cross,
    /// The agent is done: waits for the machine to leave the ramdisk.
    Restart,
    /// Told to boot its disk: waits for phone-home.
    FirstBoot,
}

impl RunStage {
    /// How long this stage may take before something is done about it. Firmware of large servers takes up to ten
    /// minutes to POST; a person may have to press the power button.
    pub fn patience(self) -> Duration {
        let minutes = match self {
            // An image is written through a network into a store; the shell gives up before, with a reason.
            Self::Volume => 60,
            Self::Boot => 30,
            Self::Kernel => 10,
            // The agent inspects before it asks for work, and a machine with many slow disks takes its time.
            Self::Assign => 5,
            // Refreshed by every report, of which there is at least one every few seconds.
            Self::Agent(_) => 5,
            // A switch that is away is told of meanwhile.
            Self::Cross => 60,
            Self::Restart => 15,
            Self::FirstBoot => 20,
        };
        Duration::from_mins(minutes)
    }
}

/// Why a node stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was doing.
    pub during: StateName,
    /// The cause, and what to do.
    pub fault: Fault,
    /// When.
    pub at: Timestamp,
    /// What a netboot of this machine gets meanwhile.
    pub boot: Usual,
    /// The work, for a retry.
    #[serde(default)]
    pub run: Option<Box<Run>>,
    /// The same of a servicing job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Box<Service>>,
}

impl State {
    /// The name alone.
    pub fn name(&self) -> StateName {
        match self {
            Self::Enroll => StateName::Enroll,
            Self::Inspecting(_) => StateName::Inspecting,
            Self::Manageable => StateName::Manageable,
            Self::Cleaning(_) => StateName::Cleaning,
            Self::Available => StateName::Available,
            Self::Deploying(_) => StateName::Deploying,
            Self::Active => StateName::Active,
            Self::Deleting(_) => StateName::Deleting,
            Self::Servicing(_) => StateName::Servicing,
            Self::Failed(_) => StateName::Failed,
        }
    }

    /// The job on its way, if any.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Inspecting(run) | Self::Cleaning(run) | Self::Deploying(run) | Self::Deleting(run) => {
                Some(run)
            }
            Self::Enroll
            | Self::Manageable
            | Self::Available
            | Self::Active
            | Self::Servicing(_)
            | Self::Failed(_) => None,
        }
    }

    /// The job on its way, if any.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match self {
            Self::Inspecting(run) | Self::Cleaning(run) | Self::Deploying(run) | Self::Deleting(run) => {
                Some(run)
            }
            Self::Enroll
            | Self::Manageable
            | Self::Available
            | Self::Active
            | Self::Servicing(_)
            | Self::Failed(_) => None,
        }
    }

    /// The servicing job on its way, if any.
    pub fn service(&self) -> Option<&Service> {
        match self {
            Self::Servicing(service) => Some(service),
            _ => None,
        }
    }

    /// True while a job of any kind is on its way.
    pub fn is_busy(&self) -> bool {
        self.run().is_some() || self.service().is_some()
    }

    /// When something must be done about waiting, if the state waits.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.run().map(|run| run.deadline).or(self.service().map(|service| service.deadline))
    }
}

impl Run {
    /// Enters `stage` and starts its clock.
    pub fn enter(&mut self, stage: RunStage, now: Timestamp) {
        self.stage = stage;
        self.since = now;
        self.deadline = now.after(stage.patience());
        self.power = None;
    }

    /// True where nothing can have been changed for this job yet. A restart in the middle of a write is not that, nor is what ran on
    /// the machine still there once its disk was changed for another.
    pub fn is_untouched(&self) -> bool {
        let early =
            matches!(self.stage, RunStage::Volume | RunStage::Boot | RunStage::Kernel | RunStage::Assign);
        early && self.restarts == 0 && !self.was_taken()
    }

    fn was_taken(&self) -> bool {
        let OnVolume { imaging, written, off } = self.on_volume;
        let is_off = off || self.stage != RunStage::Volume;
        self.boots_volume()
            && ((written && imaging == Imaging::Agent) || (is_off && self.fallback == Fallback::Active))
    }

    /// True where the machine may be on its way off already, because the volume that its OS is to start from is written.
    pub fn swaps_disks(&self) -> bool {
        self.stage == RunStage::Volume && self.fallback == Fallback::Active && self.on_volume.written
    }

    /// The volume that the OS is put on; the machine boots it and nothing else.
    pub fn volume(&self) -> Option<VolumeId> {
        match &self.job.task {
            Task::Deploy(spec) => spec.target.id.volume(),
            Task::Inspect | Task::Clean { .. } => None,
        }
    }

    /// True where the OS is put on a volume.
    pub fn boots_volume(&self) -> bool {
        self.volume().is_some()
    }

    /// True where the machine boots the agent to write the image on its volume.
    pub fn wants_agent(&self) -> bool {
        self.boots_volume() && self.on_volume.imaging == Imaging::Agent && !self.on_volume.written
    }

    /// The volume that the machine's DPU is to write the image on, until it has.
    pub fn fills(&self) -> Option<VolumeId> {
        let waits = self.stage == RunStage::Volume && self.on_volume.imaging == Imaging::Dpu;
        self.volume().filter(|_| waits && !self.on_volume.written)
    }

    /// The job as the agent gets it: it knows a volume by the serial number of the disk, and erases no disk twice.
    pub fn agent_job(&self) -> Job {
        let mut job = self.job.clone();
        if let Task::Deploy(spec) = &mut job.task
            && let Some(volume) = spec.target.id.volume()
            && let Some(disk) = DiskId::of(None, Some(&volume::serial(volume)), None)
        {
            spec.target.id = disk;
        }
        if let Task::Clean { disks, erase: Some(order) } = &mut job.task {
            disks.retain(|disk| !self.erased.contains(&disk.id));
            order.done.clone_from(&self.erased);
        }
        job
    }

    /// True where the machine is off before its OS starts, and is then started from its disk: on its way there no boot script could be
    /// asked for.
    pub fn starts_from_off(&self) -> bool {
        self.boots_volume() || self.crosses
    }

    /// True while the machine is to be restarted for this job.
    pub fn waits_for_restart(&self) -> bool {
        self.stage == RunStage::Boot || (self.stage == RunStage::FirstBoot && self.starts_from_off())
    }

    /// What it waits for, in words.
    pub fn waits_for(&self, macs: &str) -> String {
        match self.stage {
            RunStage::Volume => "the server and the DPU to have its disk and its networks ready".to_owned(),
            RunStage::Boot => self.waits_for_boot(macs),
            RunStage::Kernel => {
                "the agent's hello: the boot script was served, kernel and ramdisk are loading".to_owned()
            }
            RunStage::Assign => "the agent to take the job".to_owned(),
            RunStage::Agent(stage) => match self.progress {
                Some(p) if matches!(stage, Stage::Write | Stage::Verify) && p.chunks_total > 0 => {
                    format!(
                        "chunk {} of {} ({})",
                        p.chunks_done.saturating_add(1).min(p.chunks_total),
                        p.chunks_total,
                        stage_words(stage)
                    )
                }
                _ => format!("the agent: {}", stage_words(stage)),
            },
            RunStage::Cross => {
                "the switch that is to put it on its networks (`billet switch list`)".to_owned()
            }
            RunStage::Restart => "the machine to restart".to_owned(),
            RunStage::FirstBoot => "the OS to phone home".to_owned(),
        }
    }
}

impl Run {
    fn waits_for_boot(&self, macs: &str) -> String {
        let boot = format!("a network boot of this machine (DHCPDISCOVER from {macs})");
        let Some(PowerStory { bmc, stage }) = &self.power else {
            return format!("{boot}: switch it on or restart it");
        };
        match stage {
            PowerStage::Begun => format!("the BMC {bmc} to restart this machine"),
            PowerStage::On => format!("{boot}: the BMC {bmc} has switched it on"),
            PowerStage::Taken => format!("{boot}: the BMC {bmc} was told to restart it"),
            PowerStage::Trouble(what) => format!("the BMC {bmc}: {what}; tried again"),
        }
    }
}

fn stage_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Inspect => "looking at the hardware",
        Stage::Plan => "checking the disk and the image",
        Stage::Clean => "wiping",
        Stage::Erase => "erasing",
        Stage::Write => "writing",
        Stage::Verify => "reading back",
        Stage::Customise => "partition table and config",
        Stage::Reboot => "restarting",
    }
}
