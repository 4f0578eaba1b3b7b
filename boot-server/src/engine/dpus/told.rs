//! What DPUs are told to be, and what they say that they are.

use std::time::Duration;

use bmc::Secret;
use boot_server_core::dpu::{self, HostDisk, NotDesired, Wanted};
use boot_server_core::node::Node;
use boot_server_core::volume::Volume;
use protocol::DpuId;
use protocol::dial::{Orders, Report};
use protocol::dpu::{Discard, Observed, STATE_MAX};

use super::{DpuError, Known, place};
use crate::engine::{Change, Engine, EngineError, lock};
use crate::secret;
use crate::store::dpus as rows;
use crate::store::{StoreError, volumes};

impl Engine {
    /// Whether an accepted DPU has this secret.
    ///
    /// # Errors
    /// [`DpuError::Stranger`].
    pub fn check_dpu(&self, secret: &str) -> Result<(), EngineError> {
        let known = self.dpu_with_secret(secret::hash(secret)).filter(|known| known.dpu.accepted);
        known.map(drop).ok_or_else(|| DpuError::Stranger.into())
    }

    /// Takes a report in, and answers with the state as soon as there is another than the one that the DPU has.
    ///
    /// # Errors
    /// [`DpuError::Stranger`], or what the store says.
    pub async fn dpu_state(
        &self,
        secret: &str,
        report: Report,
        wait: Duration,
    ) -> Result<Orders, EngineError> {
        let mut told = self.0.dpus.told.subscribe();
        let known = self.dpu_with_secret(secret::hash(secret)).filter(|known| known.dpu.accepted);
        let id = known.ok_or(DpuError::Stranger)?.dpu.id;
        self.saw_dpu(id);
        self.catch_up(id, report.generation).await?;
        if let Some(observed) = report.observed {
            self.observe_dpu(id, *observed).await?;
        }
        if let Some(counters) = report.counters {
            self.count_dpu(id, *counters);
        }
        let until = tokio::time::Instant::now() + wait;
        loop {
            // Marked as seen before it is looked at: what comes in between wakes.
            told.borrow_and_update();
            let known = self.known_dpu(id).filter(|known| known.dpu.accepted).ok_or(DpuError::Stranger)?;
            if let Some(state) = known.desired
                && report.generation != Some(state.generation)
            {
                return Ok(Orders::State { state: Box::new(state) });
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return Ok(Orders::Same) },
                () = tokio::time::sleep_until(until) => return Ok(Orders::Same),
            }
        }
    }

    /// A DPU that has a newer state than there is was told it by this server before its database was put back: its next state gets a
    /// number that it takes.
    async fn catch_up(&self, id: DpuId, generation: Option<u64>) -> Result<(), EngineError> {
        let generation = generation.unwrap_or(0);
        let behind = match lock(&self.0.dpus.all).get_mut(&id) {
            Some(known) if generation > known.generation() && known.desired.is_some() => {
                known.floor = generation;
                true
            }
            _ => false,
        };
        if behind { self.compose(id).await } else { Ok(()) }
    }

    async fn observe_dpu(&self, id: DpuId, observed: Observed) -> Result<(), EngineError> {
        let before = self.known_dpu(id).and_then(|known| known.observed);
        if before.as_ref() == Some(&observed) {
            return Ok(());
        }
        self.hear_of_volumes(id, before.as_ref(), &observed).await?;
        let row = observed.clone();
        self.store().write(move |db| rows::set_observed(db, id, &row)).await?;
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&id) {
            known.observed = Some(observed);
        }
        self.note_force(id).await?;
        self.announce(Change::Dpu(id));
        Ok(())
    }

    /// Makes the states of all accepted DPUs, and tells those that are to change.
    ///
    /// # Errors
    /// The last of what kept some from it; the others were made.
    pub(in crate::engine) async fn compose_all(&self) -> Result<(), EngineError> {
        let mut kept = Ok(());
        for known in self.dpus() {
            if let Err(error) = self.compose(known.dpu.id).await {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(dpu = %known.dpu.name, error = cause, "what a DPU is to be cannot be made");
                kept = Err(error);
            }
        }
        kept
    }

    /// Makes the state of one DPU, and tells it where that is another one.
    ///
    /// # Errors
    /// What the store says.
    pub(in crate::engine) async fn compose(&self, id: DpuId) -> Result<(), EngineError> {
        if self.is_held() {
            return Ok(());
        }
        let _turn = self.0.composing.lock().await;
        let Some(known) = self.known_dpu(id).filter(|known| known.dpu.accepted) else { return Ok(()) };
        let node = known.dpu.node.and_then(|node| self.0.nodes.get(node));
        let wanted = self.wanted_of(&known, node.as_deref()).await?;
        let overlay = self.overlay_of_dpus();
        let made = dpu::desired(&known.dpu, overlay.as_ref(), node.as_deref(), &wanted);
        let (mut state, problem) = match made {
            Ok(state) => (state, wanted.kept),
            Err(problem) => {
                self.note_problem(id, Some(problem));
                return Ok(());
            }
        };
        state.generation = known.generation();
        if known.desired.as_ref() == Some(&state) && known.floor <= known.generation() {
            self.note_problem(id, problem);
            return Ok(());
        }
        state.generation = known.generation().max(known.floor) + 1;
        let text = serde_json::to_string(&state).map_err(|cause| StoreError::Row { table: "dpus", cause })?;
        if text.len() > STATE_MAX {
            self.note_problem(id, Some(NotDesired::Long(text.len())));
            return Ok(());
        }
        let sealed = format!("{} {}", state.generation, self.0.vault.seal(place(id), &Secret(text))?);
        self.store().write(move |db| rows::set_desired(db, id, &sealed)).await?;
        tracing::info!(dpu = %known.dpu.name, generation = state.generation, "a DPU gets another state");
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&id) {
            known.desired = Some(state);
        }
        self.note_problem(id, problem);
        self.0.dpus.told.send_modify(|count| *count += 1);
        self.announce(Change::Dpu(id));
        Ok(())
    }

    /// Keeps what is wrong with what a DPU is to be, for people.
    fn note_problem(&self, id: DpuId, problem: Option<NotDesired>) {
        let changed = match lock(&self.0.dpus.all).get_mut(&id) {
            Some(known) if known.problem != problem => {
                known.problem.clone_from(&problem);
                true
            }
            _ => false,
        };
        if changed {
            if let Some(problem) = &problem {
                tracing::warn!(dpu = %id, error = problem as &dyn std::error::Error, "a DPU is not all that it is to be");
            }
            self.announce(Change::Dpu(id));
        }
    }

    async fn wanted_of(&self, known: &Known, node: Option<&Node>) -> Result<Wanted, EngineError> {
        let id = known.dpu.id;
        let mut granted = self.store().read(move |db| volumes::granted(db, id)).await?;
        let server = match node {
            Some(node) => self.server_of(node.id).await?,
            None => None,
        };
        // What was granted for a server on another machine is nothing for this host.
        let own = server.as_ref().map(|server| server.id);
        granted.retain(|(volume, _)| own.is_some() && volume.server() == own);
        let mut disks = Vec::with_capacity(granted.len());
        for (volume, sealed) in granted {
            let reach = self.open_access(volume.id, &sealed)?;
            let encryption = self.encryption(&volume)?;
            let fill = node.and_then(|node| self.fill(node, &volume, known));
            disks.push(HostDisk { volume, reach, encryption, fill });
        }
        let leaving = self.store().read(move |db| volumes::leaving(db, id)).await?;
        let discard = leaving.iter().filter_map(discard).collect();
        let (ports, kept) = match server {
            Some(server) => self.host_ports(server.id, &known.dpu).await?,
            None => (Vec::new(), None),
        };
        Ok(Wanted { ports, kept, disks, discard })
    }
}

/// The layer of a volume that is removed.
fn discard(volume: &Volume) -> Option<Discard> {
    let layer = volume.layer.as_ref().filter(|_| volume.discarder().is_some())?;
    Some(Discard { name: volume.id.to_string().parse().ok()?, layer: layer.path.clone() })
}
