//! Plans of functions: what hosts of DPUs get, when it is in force, and who takes what of it.
//!
//! ```text
//!  plan ─▶ checked by its model, and by what is in use ─▶ stored ─▶ in the DPU's state ─▶ written there ─▶ power cycle ─▶ in force
//! ```

use boot_server_core::dpu::functions::{Disk, allot, in_force, vanishing};
use boot_server_core::dpu::nics;
use boot_server_core::node::Severity;
use boot_server_core::volume::Volume;
use protocol::dpu::{Function, InterfaceName};
use protocol::functions::{DisksBy, FunctionPlan, Model, SettingSeen};
use protocol::{DpuId, PortId, ProjectId, ServerId, VolumeId};
use volume::Kind;

use super::{Dpu, DpuError, Known, line};
use crate::engine::volumes::{VolumeError, bad};
use crate::engine::{Actor, Change, Engine, EngineError, lock};
use crate::store::dpus::{self as rows, DefaultRow};
use crate::store::queries::insert_event;
use crate::store::volumes;

/// What a DPU's host gets, and who takes what of it.
#[derive(Debug, Clone)]
pub struct Functions {
    /// The DPU.
    pub known: Known,
    /// Its model, as far as its own BMC or its agent names a BlueField.
    pub model: Option<Model>,
    /// Settings of its firmware, as it said of the newest state.
    pub settings: Vec<SettingSeen>,
    /// All is written, and in force after a power cycle of its host.
    pub needs_reset: bool,
    /// What is taken.
    pub used: Vec<Use>,
}

/// A function that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Which, in words.
    pub function: String,
    /// By whom.
    pub by: User,
    /// The name of the volume or port; its id where it has none.
    pub name: String,
    /// Whose that is.
    pub project: ProjectId,
}

/// Who takes a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A volume.
    Volume(VolumeId),
    /// A port.
    Port(PortId),
}

/// A disk that a server is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct NewDisk<'a> {
    /// What for.
    pub disk: Disk,
    /// Type of the volume.
    pub kind: &'a str,
    /// Its bytes are encrypted on the DPU.
    pub encrypted: bool,
    /// The DPU is to write its image. Where it has it, whoever can serves it.
    pub fills: bool,
}

impl<'a> NewDisk<'a> {
    /// A volume that there is.
    pub fn of(volume: &'a Volume, disk: Disk) -> Self {
        Self { disk, kind: &volume.kind, encrypted: volume.key.is_some(), fills: false }
    }
}

impl Engine {
    /// What a DPU's host gets, and who takes what of it.
    ///
    /// # Errors
    /// [`DpuError::NotFound`], or what the store says.
    pub async fn dpu_functions(&self, reference: &str) -> Result<Functions, EngineError> {
        let known = self.dpu(reference)?;
        let id = known.dpu.id;
        let holding = self.store().read(move |db| volumes::holding(db, id)).await?;
        let disks = holding.into_iter().map(|volume| Use {
            function: volume.function().function.to_string(),
            by: User::Volume(volume.id),
            name: volume.name,
            project: volume.project,
        });
        let ports = self.ports_on(&known.dpu).await?;
        let used = disks.chain(ports.into_iter().map(|(used, _)| used)).collect();
        let current = known.observed.as_ref().filter(|seen| seen.generation == Some(known.generation()));
        let seen = current.and_then(|seen| seen.functions.clone()).unwrap_or_default();
        let model = self.told_model(&known.dpu);
        Ok(Functions { model, settings: seen.settings, needs_reset: seen.needs_reset, used, known })
    }

    /// Ports that are functions of a DPU's host, with the representor of each.
    async fn ports_on(&self, dpu: &Dpu) -> Result<Vec<(Use, InterfaceName)>, EngineError> {
        let server = match dpu.node {
            Some(node) => self.server_of(node).await?,
            None => None,
        };
        let Some(server) = server else { return Ok(Vec::new()) };
        let nics = nics(dpu);
        let on = self.ports_of(server.id).into_iter().filter_map(|row| {
            let port = &row.value.port;
            let here = port.chassis.as_deref() == Some(dpu.name.as_str());
            let (interface, _) = nics.iter().find(|(_, mac)| here && *mac == port.mac)?;
            let name = if row.name.is_empty() { row.id.to_string() } else { row.name.clone() };
            let by = User::Port(row.id);
            Some((Use { function: interface.to_string(), by, name, project: row.project }, interface.clone()))
        });
        Ok(on.collect())
    }

    /// The BlueField that a DPU is, as its own BMC or its agent says.
    fn told_model(&self, dpu: &Dpu) -> Option<Model> {
        let card = self.dpu_controller(dpu.id).and_then(|row| row.card?.model);
        card.as_deref().and_then(Model::of).or_else(|| dpu.facts.model.as_deref().and_then(Model::of))
    }

    /// Says which functions a DPU's host gets; `None`: its firmware is left as it is.
    ///
    /// # Errors
    /// [`DpuError::Plan`] and [`DpuError::OtherModel`] where it cannot have them, [`DpuError::FunctionsUsed`] where somebody takes one that
    /// would be gone, or what the store says.
    pub async fn set_dpu_functions(
        &self,
        actor: Actor,
        reference: &str,
        plan: Option<FunctionPlan>,
    ) -> Result<Functions, EngineError> {
        let turn = self.0.dpus.turn.lock().await;
        // Nobody is plugged in meanwhile.
        let composing = self.0.composing.lock().await;
        let dpu = self.dpu(reference)?.dpu;
        if dpu.plan == plan {
            return self.dpu_functions(reference).await;
        }
        let what = match &plan {
            Some(plan) => {
                self.check_plan(&dpu, plan)?;
                format!("its host is to get {}", words(plan))
            }
            None => "its firmware is left as it is: it has no plan of functions".to_owned(),
        };
        let ports = self.ports_on(&dpu).await?;
        let ports: Vec<_> = ports.into_iter().map(|(used, interface)| (used.name, interface)).collect();
        let (id, version) = (dpu.id, dpu.plan_version + 1);
        let in_force = dpu.in_force.filter(|_| plan.is_some());
        let next = Dpu { plan, plan_version: version, in_force, version: dpu.version + 1, ..dpu };
        let event = line(&actor, &next, "dpu.functions", Severity::Info, &what);
        let (row, row_event) = (next.clone(), event.clone());
        let write = move |db: &_| {
            let taken = taken(&volumes::holding(db, row.id)?);
            let lost = plan.map(|plan| vanishing(&plan, &taken, &ports)).unwrap_or_default();
            if !lost.is_empty() {
                return Ok(Err(lost));
            }
            rows::update(db, &row)?;
            insert_event(db, &row_event).map(Ok)
        };
        let number = self.store().write(write).await?.map_err(DpuError::FunctionsUsed)?;
        if let Some(known) = lock(&self.0.dpus.all).get_mut(&id) {
            known.dpu = next;
        }
        self.announce_event(number, event);
        self.announce(Change::Dpu(id));
        drop((composing, turn));
        self.compose(id).await?;
        self.dpu_functions(&id.to_string()).await
    }

    fn check_plan(&self, dpu: &Dpu, plan: &FunctionPlan) -> Result<(), DpuError> {
        plan.check().map_err(DpuError::Plan)?;
        match self.told_model(dpu).filter(|told| *told != plan.model) {
            Some(told) => Err(DpuError::OtherModel { planned: plan.model, told }),
            None => Ok(()),
        }
    }

    /// A DPU that comes in for the first time with the default plan of its model, where there is one and it has none.
    pub(super) async fn with_default_plan(&self, dpu: Dpu) -> Result<Dpu, EngineError> {
        if dpu.plan_version > 0 {
            return Ok(dpu);
        }
        let model = self.told_model(&dpu).unwrap_or(Model::Generic);
        let id = dpu.id;
        let read = move |db: &_| Ok((rows::defaults(db)?, volumes::holding(db, id)?));
        let (defaults, holding) = self.store().read(read).await?;
        let plan = defaults.into_iter().find(|row| row.model == model).and_then(|row| row.plan);
        // One that comes in again may have a host that runs.
        let ports = self.ports_on(&dpu).await?.into_iter();
        let ports: Vec<_> = ports.map(|(used, interface)| (used.name, interface)).collect();
        match plan.filter(|plan| vanishing(plan, &taken(&holding), &ports).is_empty()) {
            Some(plan) => Ok(Dpu { plan: Some(plan), plan_version: 1, ..dpu }),
            None => Ok(dpu),
        }
    }

    /// Notes that a plan is in force, or is no longer, as its DPU says.
    pub(super) async fn note_force(&self, id: DpuId) -> Result<(), EngineError> {
        if self.force_of(id).is_none() {
            return Ok(());
        }
        let _turn = self.0.dpus.turn.lock().await;
        let Some((dpu, in_force)) = self.force_of(id) else { return Ok(()) };
        let (severity, what) = match in_force {
            Some(_) => (Severity::Info, "its plan of functions is in force"),
            None => (Severity::Warning, "its firmware has other functions than were planned and in force"),
        };
        let next = Dpu { in_force, ..dpu };
        let event = line(&Actor::Server, &next, "dpu.functions", severity, what);
        self.put_dpu(next, Some(event)).await.map(drop)
    }

    /// A DPU that said something new of its plan, with the plan that is in force now.
    fn force_of(&self, id: DpuId) -> Option<(Dpu, Option<FunctionPlan>)> {
        let Known { dpu, desired, observed, .. } = self.known_dpu(id)?;
        let plan = dpu.plan?;
        let desired = desired.filter(|state| state.functions == Some(plan))?;
        let seen = observed.filter(|seen| seen.generation == Some(desired.generation))?;
        let in_force = match in_force(&plan, seen.functions.as_ref())? {
            true => Some(plan),
            // Of one that was never in force that is no news.
            false => dpu.in_force.filter(|before| *before != plan),
        };
        (in_force != dpu.in_force).then_some((dpu, in_force))
    }

    /// What hosts of new DPUs get, of every model.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn dpu_models(&self) -> Result<Vec<DefaultRow>, EngineError> {
        let stored = self.store().read(rows::defaults).await?;
        let of = |model| stored.iter().find(|row| row.model == model).copied();
        let all = Model::ALL.into_iter();
        Ok(all.map(|model| of(model).unwrap_or(DefaultRow { model, version: 0, plan: None })).collect())
    }

    /// The model of this name, with what hosts of new DPUs of it get.
    ///
    /// # Errors
    /// [`DpuError::NoModel`], or where the store fails.
    pub async fn dpu_model(&self, name: &str) -> Result<DefaultRow, EngineError> {
        let found = self.dpu_models().await?.into_iter().find(|row| row.model.as_str() == name);
        Ok(found.ok_or_else(|| DpuError::NoModel(name.chars().take(80).collect()))?)
    }

    /// Says what hosts of DPUs of this model get, of those that come in from now on and have no plan of their own.
    ///
    /// # Errors
    /// [`DpuError::NoModel`], [`DpuError::Plan`] or [`DpuError::OtherModel`] where it cannot be, or where the store fails.
    pub async fn set_dpu_model(
        &self,
        actor: Actor,
        name: &str,
        plan: Option<FunctionPlan>,
    ) -> Result<DefaultRow, EngineError> {
        let model = self.dpu_model(name).await?.model;
        let what = match &plan {
            Some(plan) if plan.model != model => {
                return Err(DpuError::OtherModel { planned: plan.model, told: model }.into());
            }
            Some(plan) => {
                plan.check().map_err(DpuError::Plan)?;
                format!("hosts of new DPUs of model {name} are to get {}", words(plan))
            }
            None => format!("new DPUs of model {name} get no plan of functions"),
        };
        self.store().write(move |db| rows::set_default(db, model, plan.as_ref())).await?;
        self.note(actor, None, "dpu.model", Severity::Info, what).await?;
        self.dpu_model(name).await
    }

    /// Whether a DPU can give its host these disks beside those that it has and waits for.
    ///
    /// # Errors
    /// [`VolumeError`] where it cannot serve one of them, or has no function for it; or what the store says.
    pub(in crate::engine) async fn check_disks(
        &self,
        known: &Known,
        server: Option<ServerId>,
        disks: &[NewDisk<'_>],
    ) -> Result<(), EngineError> {
        let plan = known.dpu.usable();
        for disk in disks {
            self.check_served(plan.map(|plan| plan.disks).unwrap_or_default(), disk)?;
        }
        let Some(plan) = plan else { return Ok(()) };
        let id = known.dpu.id;
        let volumes = self.store().read(move |db| volumes::beside(db, id, server)).await?;
        let to_come: Vec<Disk> = disks.iter().map(|disk| disk.disk).collect();
        if allot(&plan, id, &volumes, &to_come).fits { Ok(()) } else { Err(no_function(&known.dpu).into()) }
    }

    /// Why a volume that waits for a DPU cannot be served by it.
    ///
    /// # Errors
    /// Where the store fails.
    pub(in crate::engine) async fn cannot_present(
        &self,
        dpu: &Dpu,
        volume: &Volume,
    ) -> Result<Option<String>, EngineError> {
        let plan = dpu.usable();
        let by = plan.map(|plan| plan.disks).unwrap_or_default();
        let fills = self.is_unwritten(volume).await?;
        match self.check_served(by, &NewDisk { fills, ..NewDisk::of(volume, volume.disk()) }) {
            Ok(()) => {}
            Err(EngineError::Volume(error)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        }
        let Some(plan) = plan else { return Ok(None) };
        let (id, server) = (dpu.id, volume.server());
        let beside = self.store().read(move |db| volumes::beside(db, id, server)).await?;
        let waiting = allot(&plan, id, &beside, &[]).waiting;
        let lacks = waiting.iter().any(|(waits, function)| *waits == volume.id && function.is_none());
        Ok(lacks.then(|| no_function(dpu).to_string()))
    }

    /// Whether whoever serves the disks of a plan can serve this one.
    fn check_served(&self, by: DisksBy, disk: &NewDisk<'_>) -> Result<(), EngineError> {
        let kind = self.backend(disk.kind)?.kind();
        let what = match by {
            DisksBy::Snap if disk.encrypted => "volumes that are encrypted are not served by SNAP",
            DisksBy::Snap if disk.fills => "images are not written through SNAP (`imaging: dpu`)",
            DisksBy::Snap if kind == Kind::Instant => "instant volumes are not served by SNAP",
            DisksBy::Qsd if kind == Kind::NvmeTcp => {
                "volumes over NVMe/TCP are not served by qemu-storage-daemon"
            }
            DisksBy::Snap | DisksBy::Qsd => return Ok(()),
        };
        let hint =
            "use a volume of another type, or a machine whose DPU has another plan of functions (`disks`)";
        Err(bad(format!("{what}, which the DPU of that machine has"), hint).into())
    }
}

/// That a DPU has no function for one more disk.
pub(in crate::engine) fn no_function(dpu: &Dpu) -> VolumeError {
    let planned = dpu.plan.as_ref().map_or(0, boot_server_core::dpu::functions::disks);
    VolumeError::NoFunction { dpu: dpu.name.clone(), planned, pending: dpu.is_pending() }
}

/// Functions that volumes are, with their names.
fn taken(holding: &[Volume]) -> Vec<(String, Function)> {
    holding.iter().map(|volume| (volume.name.clone(), volume.function().function)).collect()
}

/// A plan in words.
fn words(plan: &FunctionPlan) -> String {
    let counts = [
        (plan.vfs, "virtual functions of each NIC function"),
        (plan.blk.pfs, "virtio-blk functions"),
        (plan.blk.vfs, "virtual ones of each virtio-blk function"),
        (plan.net.pfs, "virtio-net functions"),
        (plan.net.vfs, "virtual ones of each virtio-net function"),
        (plan.hotplug, "functions that are plugged in"),
    ];
    let planned = counts.iter().filter(|(count, _)| *count > 0);
    let planned: Vec<String> = planned.map(|(count, what)| format!("{count} {what}")).collect();
    match planned.is_empty() {
        true => "nothing but its NIC functions".to_owned(),
        false => planned.join(", "),
    }
}
