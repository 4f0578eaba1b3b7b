//! Restarting machines for jobs, through their controllers: what [`Restart`] says is done, step by step, and told to the node.
//!
//! ```text
//! Effect::PowerCycle ─▶ [boot image into the drive, read back] ─▶ boot device once ─▶ off, read back ─▶ on, read back ─▶ the node's first packet
//! ```
//!
//! One task for each node. A stop of the server leaves the effect open; at the next start the state of the machine says
//! what is still missing.

use std::time::Duration;

use bmc::{BootDevice, BootMode, BootOverride, DriverKind, ErrorKind, PowerAction, Repeat};
use boot_server_core::bmc::Restart;
use boot_server_core::bmc::restart::{Answer, End, Step, Wanted};
use boot_server_core::node::{
    BootKind, Event, Netboot, Node, Phase, PowerNews, RunStage, Severity, required_boot,
};
use protocol::inventory::{FirmwareMode, Inventory};
use protocol::{JobId, NodeId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::media::{Inserted, NoMedia};
use super::{Actor, Engine, EngineError, lock, now};
use crate::power::{Change, Clock, PowerError, Reply, chance, power_of};

/// Between two looks whether a machine has booted, where nothing tells of a change before.
const HELD_LOOK: Duration = Duration::from_secs(30);

/// Whether the job still wants its machine to boot.
enum Wish {
    /// It waits.
    Waits,
    /// The machine is on its way.
    Booting,
    /// The job is over, or another one.
    Over,
}

impl Engine {
    /// True where Billet itself restarts this node's machine, or says why it cannot; else a person is asked.
    pub(super) fn restarts(&self, node: NodeId) -> bool {
        let by_media = self.0.nodes.get(node).is_some_and(|node| self.by_media(&node));
        by_media || lock(&self.0.bmcs).get(&node).is_some_and(|row| row.driver != DriverKind::Manual)
    }

    /// Restarts the machine of a node for the job that waits for it. Returns once that is over, whichever way; `false`
    /// where the server stops before.
    ///
    /// # Errors
    /// Where the store fails; then it is to be tried again.
    pub(super) async fn restart(&self, id: NodeId, stop: &CancellationToken) -> Result<bool, EngineError> {
        let Some(node) = self.0.nodes.get(id) else { return Ok(true) };
        let Some(job) = waiting(&node) else { return Ok(true) };
        let address = lock(&self.0.bmcs).get(&id).map(|row| row.address.clone()).unwrap_or_default();
        let tell = |news| Event::Power { job, bmc: address.clone(), news };
        let by_media = self.by_media(&node) && !boots_disk(&node);
        let inventory = self.inventory(id).await?;
        if by_media && let Some(NoMedia { what, hint }) = self.no_media(&node, inventory.as_deref()) {
            self.apply(id, Actor::Server, tell(PowerNews::NoWay { what, hint })).await?;
            return Ok(true);
        }
        let wanted = self.boot_for(&node, inventory.as_deref());
        let what = words(&wanted);
        self.apply(id, Actor::Server, tell(PowerNews::Begun { what })).await?;
        let restart = if by_media { Restart::by_media() } else { Restart::new() };
        let (mut restart, clock, begun) = (restart, Clock::new(), now());
        let (mut stuck, mut last, mut held) = (None, None, false);
        loop {
            match self.wish(id, job, begun) {
                Wish::Waits => {}
                Wish::Booting if restart.switched_on() => restart.handle_evidence(),
                Wish::Booting | Wish::Over => restart.call_off(),
            }
            let answer = match restart.step() {
                Step::End(end) => {
                    let news = ended(end, last.as_ref());
                    self.apply(id, Actor::Server, tell(news)).await?;
                    return if held { self.put_back(id, job, stop).await } else { Ok(true) };
                }
                Step::Pause(pause) => {
                    if !self.pause(id, pause, stop).await {
                        return Ok(false);
                    }
                    Answer::Done
                }
                step => match self.insert_or_step(id, job, step, &wanted).await? {
                    Ok(answer) => {
                        if step == Step::Insert {
                            self.apply(id, Actor::Server, tell(PowerNews::Inserted)).await?;
                        }
                        answer
                    }
                    // It boots what it is to boot; that it would do so for ever is put right once it has.
                    Err(PowerError::NotOnce { .. }) => {
                        held = wanted.device != BootDevice::Disk;
                        Answer::Done
                    }
                    // Workers end with the server: that they are gone is no news of the controller.
                    Err(_) if stop.is_cancelled() => return Ok(false),
                    Err(error) => {
                        let answer = self.trouble(id, step, by_media, &error).await?;
                        if answer == Answer::Silence {
                            let what = error.to_string();
                            self.apply(id, Actor::Server, tell(PowerNews::Trouble { what })).await?;
                        }
                        last = Some(error);
                        answer
                    }
                },
            };
            restart.handle_answer(clock.now(), answer, chance());
            if restart.stuck() != stuck
                && let Some(wanted) = restart.stuck()
            {
                let news = PowerNews::NoEffect { wanted: wanted.as_str() };
                self.apply(id, Actor::Server, tell(news)).await?;
            }
            stuck = restart.stuck();
        }
    }

    /// The controller holds what was for one start. Once the machine fetched its boot script, or the job is over,
    /// the firmware's own order is put back; where the controller cannot do that, the disk becomes what it boots. False where the server
    /// stops before.
    async fn put_back(&self, id: NodeId, job: JobId, stop: &CancellationToken) -> Result<bool, EngineError> {
        // Nothing tells when the firmware has begun with an image in the drive: its agent does.
        let boots =
            |node: &Node| waiting(node) == Some(job) || node.medium.is_some_and(|medium| medium.job == job);
        while self.0.nodes.get(id).is_some_and(|node| boots(&node)) {
            if !self.pause(id, HELD_LOOK, stop).await {
                return Ok(false);
            }
        }
        let own =
            BootOverride { device: BootDevice::None, repeat: Repeat::Always, mode: None, http_uri: None };
        let disk = BootOverride { device: BootDevice::Disk, ..own.clone() };
        let mut done = self.0.power.change(id, Change::Boot(own)).await.map(|_| "its own order");
        if done.is_err() {
            done = self.0.power.change(id, Change::Boot(disk)).await.map(|_| "its disk");
        }
        let (kind, severity, message) = match done {
            Ok(what) => {
                let message =
                    format!("the BMC boots {what} again: it holds a boot device that was for one start");
                ("boot_device.put_back", Severity::Info, message)
            }
            Err(error) => {
                let message = format!("the BMC goes on booting the machine from the network: {error}");
                ("boot_device.held", Severity::Warning, message)
            }
        };
        self.note(Actor::Server, Some(id), kind, severity, message).await?;
        Ok(true)
    }

    /// Waits, but not longer than until the node changes; false where the server stops.
    async fn pause(&self, id: NodeId, pause: Duration, stop: &CancellationToken) -> bool {
        let changed = async {
            match self.watch(id) {
                Some(mut watch) => drop(watch.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
            () = changed => {
                // A packet of the machine or an end of the job; looks stay apart all the same.
                tokio::time::sleep(pause.min(Duration::from_millis(200))).await;
                true
            }
        }
    }

    fn wish(&self, id: NodeId, job: JobId, begun: Timestamp) -> Wish {
        let Some(node) = self.0.nodes.get(id) else { return Wish::Over };
        match node.state.run() {
            // Its own networks are none on which a packet of its firmware would be heard.
            Some(run) if run.job.id == job && run.stage == RunStage::FirstBoot && run.starts_from_off() => {
                Wish::Waits
            }
            Some(run) if run.job.id == job && run.stage == RunStage::Boot => {
                let packet = node.timeline.at(Phase::Dhcp).is_some_and(|at| at > begun);
                if packet { Wish::Booting } else { Wish::Waits }
            }
            Some(run) if run.job.id == job => Wish::Booting,
            _ => Wish::Over,
        }
    }

    /// The outer error is ours, the inner one the controller's.
    async fn insert_or_step(
        &self,
        id: NodeId,
        job: JobId,
        step: Step,
        boot: &BootOverride,
    ) -> Result<Result<Answer, PowerError>, EngineError> {
        if step != Step::Insert {
            return Ok(self.do_step(id, step, Some(boot)).await);
        }
        match self.insert(id, job).await {
            Ok(Inserted(inserted)) => Ok(inserted.map(|()| Answer::Done)),
            // The job is over: what follows is called off.
            Err(EngineError::Refused(_)) => Ok(Ok(Answer::Done)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn do_step(
        &self,
        id: NodeId,
        step: Step,
        boot: Option<&BootOverride>,
    ) -> Result<Answer, PowerError> {
        let power = &self.0.power;
        let change = match step {
            Step::Look => return power.power_state(id).await.map(|state| Answer::Power(power_of(state))),
            Step::SetBoot => match boot {
                Some(boot) => Change::Boot(boot.clone()),
                None => return Ok(Answer::Done),
            },
            Step::Ask => Change::Power(PowerAction::SoftOff),
            Step::Off => Change::Power(PowerAction::ForceOff),
            Step::On => Change::Power(PowerAction::On),
            Step::Cycle => Change::Power(PowerAction::Cycle),
            Step::Insert | Step::Pause(_) | Step::End(_) => return Ok(Answer::Done),
        };
        let reply: Reply = match power.change(id, change).await {
            // Wake-on-LAN can switch on and nothing else.
            Err(error) if step == Step::Cycle && error.kind() == Some(ErrorKind::Unsupported) => {
                power.change(id, Change::Power(PowerAction::On)).await?
            }
            other => other?,
        };
        tracing::debug!(node = %id, ?step, ?reply, "a BMC took a step");
        Ok(Answer::Done)
    }

    /// What an error means for the restart.
    pub(super) async fn trouble(
        &self,
        id: NodeId,
        step: Step,
        by_media: bool,
        error: &PowerError,
    ) -> Result<Answer, EngineError> {
        // What else the firmware would boot is not what is in the drive.
        if by_media && step == Step::SetBoot && !error.is_transient() {
            return Ok(Answer::Refused);
        }
        if error.kind() == Some(ErrorKind::Unsupported) {
            return Ok(Answer::Unable);
        }
        if error.is_transient() {
            return Ok(Answer::Silence);
        }
        let setting = matches!(error, PowerError::NotTaken { .. })
            || matches!(error.kind(), Some(ErrorKind::Refused | ErrorKind::Malformed));
        if step == Step::SetBoot && setting {
            let message = format!("{error}: the firmware boots by its own order");
            self.note(Actor::Server, Some(id), "boot_device.not_taken", Severity::Warning, message).await?;
            return Ok(Answer::Unable);
        }
        Ok(Answer::Refused)
    }

    /// What the firmware is told to boot, once.
    fn boot_for(&self, node: &Node, inventory: Option<&Inventory>) -> BootOverride {
        if self.by_media(node) && !boots_disk(node) {
            let mode = Some(BootMode::Uefi);
            return BootOverride { device: BootDevice::Cdrom, repeat: Repeat::Once, mode, http_uri: None };
        }
        let option = lock(&self.0.bmcs).get(&node.id).and_then(|row| row.options.netboot);
        let device = match (required_boot(node, now()).kind(), option.or(node.netboot)) {
            (BootKind::LocalDisk, _) => BootDevice::Disk,
            (_, Some(Netboot::Http)) => BootDevice::Http,
            (_, Some(Netboot::Pxe | Netboot::Media) | None) => BootDevice::Pxe,
        };
        let mode = inventory.map(|inventory| match inventory.firmware.mode {
            FirmwareMode::Uefi => BootMode::Uefi,
            FirmwareMode::Bios => BootMode::Legacy,
        });
        BootOverride { device, repeat: Repeat::Once, mode, http_uri: None }
    }
}

/// The job that waits for its machine to boot.
fn waiting(node: &Node) -> Option<JobId> {
    node.state.run().filter(|run| run.waits_for_restart()).map(|run| run.job.id)
}

fn boots_disk(node: &Node) -> bool {
    required_boot(node, now()).kind() == BootKind::LocalDisk
}

fn words(boot: &BootOverride) -> String {
    let device = match boot.device {
        BootDevice::Http => "HTTP",
        BootDevice::Disk => "its disk",
        BootDevice::Cdrom => "the image in its virtual drive",
        _ => "PXE",
    };
    format!("boots {device} once")
}

pub(super) fn ended(end: End, last: Option<&PowerError>) -> PowerNews {
    match end {
        End::On => PowerNews::On,
        End::Unproven => PowerNews::Taken,
        End::NoEffect(wanted) => PowerNews::Failed {
            what: format!(
                "it accepted three times to switch the machine {}, and nothing happened",
                wanted.as_str()
            ),
            hint: match wanted {
                Wanted::On => "look at the machine's power supply and at the BMC's own log; restart the BMC (`billet bmc reset`)".to_owned(),
                Wanted::Off => "restart the BMC (`billet bmc reset`), or pull the power cord".to_owned(),
            },
        },
        End::Failed => PowerNews::Failed {
            what: last.map_or_else(|| "it did not do it".to_owned(), ToString::to_string),
            hint: last.map_or("look at the BMC's own pages", PowerError::hint).to_owned(),
        },
    }
}
