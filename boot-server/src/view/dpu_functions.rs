//! Plans of functions, as the API shows them.

use protocol::functions::{FunctionPlan, Limits, Model, SettingSeen};
use protocol::{DpuId, PortId, ProjectId, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::{DpuFunctions, DpuUse, DpuUser};
use crate::store::dpus::DefaultRow;

/// Which functions the host of a DPU gets, and who takes what of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DpuFunctionsView {
    /// The DPU.
    pub dpu: DpuId,
    /// Its name.
    pub name: String,
    /// Its model: of its plan, or the BlueField that its own BMC or its agent names.
    pub model: Option<Model>,
    /// What that has at most.
    pub limits: Option<Limits>,
    /// What its host is to get; without, its firmware is left as it is.
    pub plan: Option<FunctionPlan>,
    /// The DPU does not say yet that the plan is in force. New volumes get functions that it and the one before have.
    pub pending: bool,
    /// The plan is in force after a power cycle of the host.
    pub needs_power_cycle: bool,
    /// The DPU says that all of it is written.
    pub written: bool,
    /// What is waited for, in words.
    pub waits: Option<String>,
    /// The last plan that the DPU said is in force.
    pub in_force: Option<FunctionPlan>,
    /// Settings of its firmware that the plan asks for, as the DPU says.
    pub settings: Vec<SettingSeen>,
    /// Functions for disks that the plan has.
    pub disks: u32,
    /// Who takes what.
    pub used: Vec<DpuFunctionUse>,
    /// Grows with every change of the plan.
    pub version: i64,
}

/// A function that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DpuFunctionUse {
    /// In words, or the representor of a NIC.
    pub function: String,
    /// By this volume.
    pub volume: Option<VolumeId>,
    /// By this port.
    pub port: Option<PortId>,
    /// Name of the volume or port; its id where it has none.
    pub name: String,
    /// Whose that is.
    pub project: ProjectId,
}

impl From<DpuUse> for DpuFunctionUse {
    fn from(used: DpuUse) -> Self {
        let DpuUse { function, by, name, project } = used;
        let (volume, port) = match by {
            DpuUser::Volume(volume) => (Some(volume), None),
            DpuUser::Port(port) => (None, Some(port)),
        };
        Self { function, volume, port, name, project }
    }
}

impl From<DpuFunctions> for DpuFunctionsView {
    fn from(functions: DpuFunctions) -> Self {
        let DpuFunctions { known, model, settings, needs_reset, used } = functions;
        let dpu = known.dpu;
        let model = dpu.plan.map(|plan| plan.model).or(model);
        let pending = dpu.is_pending();
        let needs_power_cycle = pending && model != Some(Model::Generic);
        let waits = match (pending, needs_power_cycle, needs_reset) {
            (false, ..) => None,
            (true, false, _) => Some("the DPU has not taken it yet"),
            (true, true, true) => Some("it is written, and in force after a power cycle of the host"),
            (true, true, false) => {
                Some("the DPU has not written it yet; then it is in force after a power cycle of the host")
            }
        };
        Self {
            dpu: dpu.id,
            model,
            limits: model.map(Model::limits),
            pending,
            needs_power_cycle,
            written: needs_reset || (dpu.plan.is_some() && !pending),
            waits: waits.map(str::to_owned),
            in_force: dpu.in_force,
            settings,
            disks: dpu.plan.as_ref().map_or(0, boot_server_core::dpu::functions::disks),
            used: used.into_iter().map(Into::into).collect(),
            version: dpu.plan_version,
            plan: dpu.plan,
            name: dpu.name,
        }
    }
}

/// A model of DPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DpuModelView {
    /// Its name.
    pub model: Model,
    /// What it has at most.
    pub limits: Limits,
    /// What hosts of DPUs of this model get that come in for the first time.
    pub plan: Option<FunctionPlan>,
    /// Grows with every change of the plan.
    pub version: i64,
}

impl From<DefaultRow> for DpuModelView {
    fn from(row: DefaultRow) -> Self {
        let DefaultRow { model, version, plan } = row;
        Self { model, limits: model.limits(), plan, version }
    }
}
