//! Prepares machines that boot from volumes: in this order, so that nobody ever has two systems' disks at once.
//!
//! ```text
//!  image written ─▶ machine off ─▶ the volume before revoked ─▶ new one granted ─▶ DPU presents it, ports plugged ─▶ switched on
//! ```
//!
//! Where the agent writes the image, on the machine itself:
//!
//! ```text
//!  machine off ─▶ the volume before revoked ─▶ empty one granted ─▶ DPU presents it, NIC on the provisioning network ─▶ switched on
//!    ─▶ agent writes ─▶ machine off ─▶ ports plugged ─▶ switched on
//! ```
//!
//! Where the DPU writes it, the machine is off from before that on:
//!
//! ```text
//!  machine off ─▶ the volume before revoked ─▶ empty one granted ─▶ DPU writes, ports plugged ─▶ DPU presents it ─▶ switched on
//! ```
//!
//! Each look does what can be done then, and is done again when something changes.

use std::time::Duration;

use bmc::{DriverKind, PowerAction, PowerState};
use boot_server_core::dpu;
use boot_server_core::node::state::Fallback;
use boot_server_core::node::{Event, Node, Phase as Mark, PrepareNews, Run, RunStage, Severity};
use boot_server_core::server::{Phase as ServerPhase, Server};
use boot_server_core::volume::{Phase, Stage, Volume};
use protocol::fault::{Fault, FaultCode};
use protocol::{JobId, NodeId, VolumeId};
use tokio_util::sync::CancellationToken;

use super::drive::{again, take};
use super::{detaching, line};
use crate::engine::{Actor, Engine, EngineError, lock};
use crate::power::Change as PowerChange;
use crate::store::volumes as rows;

/// How long a machine may take to be off.
const OFF: Duration = Duration::from_secs(60);
/// Between two looks whether it is: the first, and the longest. Each is twice as long as the one before.
const OFF_LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(800)];

impl Engine {
    /// Prepares a node's machine, in a task of its own: it waits for the machine to be off.
    pub(super) fn drive_prepare(&self, node: NodeId, stop: &CancellationToken) {
        if !take(&self.0.volume_turns.nodes, node) {
            return;
        }
        let (engine, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = engine.prepare(node) => done,
                };
                if let Err(error) = done {
                    tracing::warn!(%node, error = &error as &dyn std::error::Error, "a machine is not prepared yet; it is looked at again");
                }
                if !again(&engine.0.volume_turns.nodes, &node) {
                    return;
                }
            }
        });
    }

    /// True where the machine is off and nobody else's disk is on it: it may have this volume.
    pub(super) fn takes_disk(&self, node: &Node, volume: VolumeId) -> bool {
        match waiting(node) {
            Some((run, target)) => {
                target == volume && lock(&self.0.takes_disk).get(&node.id) == Some(&run.job.id)
            }
            // What runs from it already, or writes it, keeps it, also where a DPU was changed; one of a deploy that was called off is
            // never given.
            None => match node.state.run() {
                Some(run) if run.volume() == Some(volume) => true,
                Some(run) => run.stage == RunStage::FirstBoot && node.runs_from() == Some(volume),
                None => node.runs_from() == Some(volume),
            },
        }
    }

    async fn prepare(&self, id: NodeId) -> Result<(), EngineError> {
        let Some(node) = self.0.nodes.get(id) else { return Ok(()) };
        let Some((run, target)) = waiting(&node) else {
            lock(&self.0.takes_disk).remove(&id);
            if let Some(run) = node.state.run().filter(|run| leaves_agent(run)) {
                return self.leave_agent(id, run.job.id).await;
            }
            return self.forget_previous(&node).await;
        };
        let job = run.job.id;
        let Some(server) = self.server_of(id).await? else { return Ok(()) };
        let volumes = self.volumes_of(server.id).await?;
        let Some(volume) = volumes.iter().find(|volume| volume.id == target) else {
            return self.fail_prepare(id, job, "its volume is gone", "reinstall the server").await;
        };
        match volume.phase {
            Phase::Creating => return Ok(()),
            Phase::Available => {}
            Phase::Error => {
                let why = volume.note.clone().unwrap_or_else(|| "its volume could not be made".to_owned());
                return self.fail_prepare(id, job, &why, "see the volume, then reinstall the server").await;
            }
            Phase::Deleting | Phase::Deleted => {
                return self.fail_prepare(id, job, "its volume was removed", "reinstall the server").await;
            }
        }
        let fills = run.fills().is_some();
        if !run.wants_agent() && !fills && node.timeline.at(Mark::Written).is_none() {
            // Until that is noted the deploy may be called off with nothing changed: the machine is touched with the next look.
            return self.tell_prepared(id, job, PrepareNews::Written).await;
        }
        let Some(known) = self.dpu_of(id) else {
            let hint = "register or accept the DPU (`billet dpu list`), and reinstall the server";
            return self.fail_prepare(id, job, "its machine has no DPU", hint).await;
        };
        if lock(&self.0.takes_disk).get(&id) != Some(&job) {
            if let Some(why) = self.cannot_present(&known.dpu, volume).await? {
                let hint = "see the plan of functions of its DPU (`billet dpu functions show`), then reinstall the server";
                return self.fail_prepare(id, job, &why, hint).await;
            }
            if !self.switch_off(id).await? {
                return Ok(());
            }
            if !run.on_volume.off {
                // Nothing is taken from it before that is noted: from then on, calling off does not mean that nothing was changed.
                return self.note_off(id, run).await;
            }
            if !self.take_boot_volumes(&volumes, Some(target)).await? {
                return Ok(());
            }
            lock(&self.0.takes_disk).insert(id, job);
            self.announce_volume(volume);
            return Ok(());
        }
        // What it is to be follows from how the node stands now.
        self.compose(known.dpu.id).await?;
        let Some(known) = self.dpu_of(id) else { return Ok(()) };
        if let Some(why) = self.cannot_serve(volume) {
            return self
                .fail_prepare(id, job, &why, "see the volume's events, then reinstall the server")
                .await;
        }
        if fills {
            // What it is told next has no image to write, and the machine is switched on when it says that it follows that.
            return if self.is_filled(volume) {
                self.tell_prepared(id, job, PrepareNews::Written).await
            } else {
                Ok(())
            };
        }
        let all = volumes.iter().filter(|volume| volume.attachment.is_some());
        let have_all = all
            .clone()
            .all(|volume| volume.attachment.as_ref().is_some_and(|at| at.stage == Stage::Attached));
        let has_nics = known.desired.as_ref().is_some_and(|state| match run.wants_agent() {
            true => dpu::provisions(known.observed.as_ref(), state),
            false => dpu::plugged(known.observed.as_ref(), state),
        });
        if have_all && has_nics && known.problem.is_none() {
            self.tell_prepared(id, job, PrepareNews::Ready).await?;
            lock(&self.0.takes_disk).remove(&id);
        }
        Ok(())
    }

    /// Notes that a machine is off. Where the deploy was called off meanwhile, it is switched on again: what ran on it is still its own.
    async fn note_off(&self, id: NodeId, run: &Run) -> Result<(), EngineError> {
        let event = Event::Prepared { job: run.job.id, news: PrepareNews::Off };
        match self.apply(id, Actor::Server, event).await {
            Err(EngineError::Refused(_))
                if run.fallback == Fallback::Active && !self.switched_by_hand(id) =>
            {
                tracing::warn!(node = %id, "a deploy was called off while its machine was switched off: it is switched on again");
                self.0.power.change(id, PowerChange::Power(PowerAction::On)).await?;
                Ok(())
            }
            Ok(_) | Err(EngineError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The agent has written the volume: its machine is switched off, so that nothing of the agent is on the networks of a project. Where
    /// only a person can do that, the agent does it by itself, and its next boot is waited for.
    async fn leave_agent(&self, id: NodeId, job: JobId) -> Result<(), EngineError> {
        if !self.switched_by_hand(id) && self.switch_off(id).await? {
            self.tell_prepared(id, job, PrepareNews::Off).await?;
        }
        Ok(())
    }

    fn switched_by_hand(&self, id: NodeId) -> bool {
        lock(&self.0.bmcs).get(&id).is_none_or(|row| row.driver == DriverKind::Manual)
    }

    async fn tell_prepared(&self, id: NodeId, job: JobId, news: PrepareNews) -> Result<(), EngineError> {
        match self.apply(id, Actor::Server, Event::Prepared { job, news }).await {
            // It was called off meanwhile.
            Ok(_) | Err(EngineError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fail_prepare(&self, id: NodeId, job: JobId, why: &str, hint: &str) -> Result<(), EngineError> {
        let fault = Fault::new(FaultCode::Volume, why.to_owned(), hint.to_owned());
        self.tell_prepared(id, job, PrepareNews::Failed { fault }).await
    }

    /// Switches a machine off and waits until it is; true where it is, or where nobody but a person can do that.
    pub(in crate::engine) async fn switch_off(&self, id: NodeId) -> Result<bool, EngineError> {
        if self.switched_by_hand(id) {
            return Ok(true);
        }
        let power = &self.0.power;
        if power.power_state(id).await? == PowerState::Off {
            return Ok(true);
        }
        power.change(id, PowerChange::Power(PowerAction::ForceOff)).await?;
        let until = tokio::time::Instant::now() + OFF;
        let [mut pause, longest] = OFF_LOOK;
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
            if power.power_state(id).await? == PowerState::Off {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes boot volumes but this one from their machine; true once nobody has them.
    async fn take_boot_volumes(
        &self,
        volumes: &[Volume],
        but: Option<VolumeId>,
    ) -> Result<bool, EngineError> {
        let mut gone = true;
        for volume in volumes {
            let Some(attachment) = &volume.attachment else { continue };
            if !attachment.boot || Some(volume.id) == but {
                continue;
            }
            gone = false;
            self.edit_volume(volume.id, |volume| {
                let event = line(
                    volume,
                    &Actor::Server,
                    "volume.detaching",
                    Severity::Info,
                    "another takes its place",
                );
                Ok(detaching(volume).map(|next| (next, Some(event))))
            })
            .await?;
        }
        Ok(gone)
    }

    /// The new system runs: the volume of the one before is not needed any more.
    async fn forget_previous(&self, node: &Node) -> Result<(), EngineError> {
        if !matches!(node.state, boot_server_core::node::State::Active) {
            return Ok(());
        }
        let runs_from = node.runs_from();
        let Some(server) =
            self.server_of(node.id).await?.filter(|server| server.phase == ServerPhase::Active)
        else {
            return Ok(());
        };
        self.remove_previous(&server, runs_from).await
    }

    /// Removes what a server booted from before, unless it is to be kept, or is what it `runs_from`.
    async fn remove_previous(&self, server: &Server, runs_from: Option<VolumeId>) -> Result<(), EngineError> {
        let all = self.store().read(rows::living).await?;
        for volume in all.iter().filter(|volume| volume.previous_of == Some(server.id)) {
            self.edit_volume(volume.id, |volume| {
                let had = volume.previous_of == Some(server.id) && volume.attachment.is_none();
                if !had || Some(volume.id) == runs_from || volume.phase == Phase::Deleting {
                    return Ok(None);
                }
                if volume.keep {
                    return Ok(Some((Volume { previous_of: None, ..volume.clone() }, None)));
                }
                let what = "its server runs from another";
                let event = line(volume, &Actor::Server, "volume.deleting", Severity::Info, what);
                let next = Volume { phase: Phase::Deleting, previous_of: None, ..volume.clone() };
                Ok(Some((next, Some(event))))
            })
            .await?;
        }
        Ok(())
    }

    /// Takes all disks from a server that is given back, its machine off before: whoever had it keeps nothing that writes. True once
    /// nobody has any.
    ///
    /// # Errors
    /// Where the machine cannot be switched off, or the store fails.
    pub(in crate::engine) async fn take_disks(&self, server: &Server) -> Result<bool, EngineError> {
        self.remove_previous(server, None).await?;
        let volumes = self.volumes_of(server.id).await?;
        if volumes.is_empty() {
            return Ok(true);
        }
        if self.0.nodes.get(server.node).is_some() && !self.switch_off(server.node).await? {
            return Ok(false);
        }
        for volume in &volumes {
            self.edit_volume(volume.id, |volume| {
                let event = line(
                    volume,
                    &Actor::Server,
                    "volume.detaching",
                    Severity::Info,
                    "its server is given back",
                );
                Ok(detaching(volume).map(|next| (next, Some(event))))
            })
            .await?;
        }
        Ok(false)
    }
}

/// The job that waits for its volume, and which.
fn waiting(node: &Node) -> Option<(&Run, VolumeId)> {
    let run = node.state.run().filter(|run| run.stage == RunStage::Volume)?;
    Some((run, run.volume()?))
}

/// True where the agent has written the volume.
fn leaves_agent(run: &Run) -> bool {
    run.stage == RunStage::Restart && run.boots_volume()
}
