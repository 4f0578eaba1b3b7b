//! `billet dpu functions …`: which functions hosts of DPUs get.

use clap::{Args, Subcommand, ValueEnum};
use protocol::functions::{DisksBy, FunctionPlan, Limits, Model, SettingSeen};

use super::Failure;
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::plain;
use crate::view::Page;
use crate::view::dpu_functions::{DpuFunctionsView, DpuModelView};

/// What can be done with plans of functions.
#[derive(Debug, Subcommand)]
pub enum FunctionsCommand {
    /// Which functions the host of a DPU gets, how far that is, and who takes what
    Show {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Say which functions its host gets; what is not named stays as it is. In force after a power cycle of the host
    Set {
        /// Name or id of the DPU
        dpu: String,
        /// Model of the DPU, where neither its plan nor the DPU itself says it
        #[arg(long, value_enum)]
        model: Option<ModelArg>,
        /// The functions.
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Leave its firmware as it is
    Clear {
        /// Name or id of the DPU
        dpu: String,
    },
    /// Models of DPUs: what each has at most, and what hosts of new ones get
    Models,
    /// One model
    Model {
        /// The model
        #[arg(value_enum)]
        model: ModelArg,
    },
    /// Say which functions hosts of new DPUs of a model get; what is not named stays as it is
    SetModel {
        /// The model
        #[arg(value_enum)]
        model: ModelArg,
        /// The functions.
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// New DPUs of a model get no plan
    ClearModel {
        /// The model
        #[arg(value_enum)]
        model: ModelArg,
    },
}

/// Functions of a host.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Virtual functions of each physical NIC function
    #[arg(long, value_name = "COUNT")]
    vfs: Option<u16>,
    /// Virtio disks that are always there: physical functions
    #[arg(long, value_name = "COUNT")]
    blk_pfs: Option<u16>,
    /// Virtual functions of each of them
    #[arg(long, value_name = "COUNT")]
    blk_vfs: Option<u16>,
    /// Virtio NICs that are always there: physical functions
    #[arg(long, value_name = "COUNT")]
    net_pfs: Option<u16>,
    /// Virtual functions of each of them
    #[arg(long, value_name = "COUNT")]
    net_vfs: Option<u16>,
    /// Functions that are plugged in while the host runs
    #[arg(long, value_name = "COUNT")]
    hotplug: Option<u16>,
    /// Who serves the host's volumes
    #[arg(long, value_enum)]
    disks: Option<DisksArg>,
}

/// A model of DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelArg {
    /// NVIDIA BlueField-2
    Bluefield2,
    /// NVIDIA BlueField-3
    Bluefield3,
    /// Open vSwitch on a plain Linux
    Generic,
}

impl From<ModelArg> for Model {
    fn from(arg: ModelArg) -> Self {
        match arg {
            ModelArg::Bluefield2 => Self::BlueField2,
            ModelArg::Bluefield3 => Self::BlueField3,
            ModelArg::Generic => Self::Generic,
        }
    }
}

/// Who serves volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DisksArg {
    /// `billet-blk` with qemu-storage-daemon
    Qsd,
    /// NVIDIA's SNAP, as virtio-blk functions
    Snap,
}

impl PlanArgs {
    fn after(&self, before: FunctionPlan) -> FunctionPlan {
        let mut plan = before;
        for (wanted, count) in [
            (self.vfs, &mut plan.vfs),
            (self.blk_pfs, &mut plan.blk.pfs),
            (self.blk_vfs, &mut plan.blk.vfs),
            (self.net_pfs, &mut plan.net.pfs),
            (self.net_vfs, &mut plan.net.vfs),
            (self.hotplug, &mut plan.hotplug),
        ] {
            *count = wanted.unwrap_or(*count);
        }
        plan.disks = match self.disks {
            Some(DisksArg::Qsd) => DisksBy::Qsd,
            Some(DisksArg::Snap) => DisksBy::Snap,
            None => plan.disks,
        };
        plan
    }
}

/// Runs it.
pub(super) fn run(client: &Client, format: Format, command: FunctionsCommand) -> Result<(), Failure> {
    let of = |dpu: &str| format!("dpus/{}/functions", encode(dpu));
    let of_model = |model: ModelArg| format!("dpu-models/{}", Model::from(model).as_str());
    match command {
        FunctionsCommand::Show { dpu } => format.print(&client.get::<DpuFunctionsView>(&of(&dpu))?),
        FunctionsCommand::Set { dpu, model, plan } => {
            let edit = |view: DpuFunctionsView| {
                let model = model.map(Model::from).or(view.model).ok_or_else(|| {
                    Failure::Other(format!("the model of DPU {dpu} is not known: say it (`--model`)"))
                })?;
                let before = view.plan.unwrap_or_else(|| FunctionPlan::new(model));
                Ok(plan.after(FunctionPlan { model, ..before }))
            };
            format.print(&client.change::<_, _, DpuFunctionsView>(&of(&dpu), edit)?)
        }
        FunctionsCommand::Clear { dpu } => client.delete(&of(&dpu)),
        FunctionsCommand::Models => format.print(&client.all::<DpuModelView>("dpu-models")?),
        FunctionsCommand::Model { model } => format.print(&client.get::<DpuModelView>(&of_model(model))?),
        FunctionsCommand::SetModel { model, plan } => {
            let edit = |view: DpuModelView| {
                Ok(plan.after(view.plan.unwrap_or_else(|| FunctionPlan::new(model.into()))))
            };
            format.print(&client.change::<_, _, DpuModelView>(&of_model(model), edit)?)
        }
        FunctionsCommand::ClearModel { model } => client.delete(&of_model(model)),
    }
}

fn words(plan: &FunctionPlan) -> String {
    let disks = match plan.disks {
        DisksBy::Qsd => "qemu-storage-daemon",
        DisksBy::Snap => "SNAP",
    };
    format!(
        "{} virtual functions of each NIC\n{} virtio-blk functions, {} virtual ones of each\n\
         {} virtio-net functions, {} virtual ones of each\n{} plugged in\nvolumes by {disks}",
        plan.vfs, plan.blk.pfs, plan.blk.vfs, plan.net.pfs, plan.net.vfs, plan.hotplug
    )
}

fn most(limits: &Limits) -> String {
    let Limits { vfs, virtio_pfs, virtio_vfs, hotplug, vfs_with_hotplug } = limits;
    format!(
        "{vfs} virtual functions of each NIC\n{virtio_pfs} virtio functions of a kind\n\
         {virtio_vfs} virtual virtio functions ({vfs_with_hotplug} beside plugged-in ones)\n{hotplug} plugged in"
    )
}

fn setting(setting: &SettingSeen) -> String {
    let value = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let SettingSeen { key, wanted, current, next } = setting;
    format!("{}: {wanted} planned, {} now, {} next", plain(key), value(*current), value(*next))
}

impl Show for DpuFunctionsView {
    fn table(&self) -> String {
        let list = |all: Vec<String>| (!all.is_empty()).then(|| all.join("\n"));
        let used = self.used.iter().map(|used| {
            let what = if used.volume.is_some() { "volume" } else { "port" };
            format!("{}: {what} {}", plain(&used.function), plain(&used.name))
        });
        let state = match (&self.plan, &self.waits) {
            (None, _) => "no plan: its firmware is left as it is".to_owned(),
            (Some(_), None) => "in force".to_owned(),
            (Some(_), Some(waits)) => format!("pending: {waits}"),
        };
        facts(&[
            ("dpu", Some(self.name.clone())),
            ("model", self.model.map(|model| model.as_str().to_owned())),
            ("state", Some(state)),
            ("plan", self.plan.as_ref().map(words)),
            ("in force", self.in_force.as_ref().filter(|_| self.pending).map(words)),
            ("at most", self.limits.as_ref().map(most)),
            ("firmware", list(self.settings.iter().map(setting).collect())),
            ("in use", list(used.collect())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for DpuModelView {
    fn table(&self) -> String {
        facts(&[
            ("model", Some(self.model.as_str().to_owned())),
            ("at most", Some(most(&self.limits))),
            ("hosts of new ones get", Some(self.plan.as_ref().map_or_else(|| "no plan".to_owned(), words))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.model.as_str().to_owned()]
    }
}

impl Show for Page<DpuModelView> {
    fn table(&self) -> String {
        let rows = self.items.iter().map(|one| {
            let limits = &one.limits;
            let plan =
                one.plan.as_ref().map_or_else(|| "-".to_owned(), |plan| words(plan).replace('\n', ", "));
            let counts = [limits.vfs, limits.virtio_pfs, limits.virtio_vfs, limits.hotplug];
            let counts = counts.map(|count| count.to_string());
            [vec![one.model.as_str().to_owned()], counts.to_vec(), vec![plan]].concat()
        });
        let heads = ["model", "vfs", "virtio pfs", "virtio vfs", "hotplug", "hosts of new ones get"];
        table(&heads, rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|one| one.model.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::functions::Virtio;

    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let before = FunctionPlan {
            vfs: 16,
            blk: Virtio { pfs: 1, vfs: 2 },
            disks: DisksBy::Snap,
            ..FunctionPlan::new(Model::BlueField3)
        };
        let args = PlanArgs {
            vfs: Some(0),
            blk_pfs: None,
            blk_vfs: None,
            net_pfs: Some(1),
            net_vfs: None,
            hotplug: None,
            disks: None,
        };
        let wanted = FunctionPlan { vfs: 0, net: Virtio { pfs: 1, vfs: 0 }, ..before };
        assert_eq!(args.after(before), wanted);
    }
}
