//! The plan of functions on a DPU's page: what is planned, what is in force, who takes what, and the form that changes it.

use axum::extract::{Form, Path, State};
use axum::response::Response;
use protocol::functions::{DisksBy, FunctionPlan, Model, Virtio};

use super::dpus::{address, page};
use super::form::{self, Fields};
use super::{Refusal, Ui, go, operator};
use crate::view::Problem;
use crate::view::dpu_functions::DpuFunctionsView;

/// Fields of the form with a number, as they are called there and shown.
pub(super) const COUNTS: [(&str, &str); 6] = [
    ("vfs", "Virtual functions of each NIC function"),
    ("blk_pfs", "Virtio-blk functions"),
    ("blk_vfs", "Virtual ones of each virtio-blk function"),
    ("net_pfs", "Virtio-net functions"),
    ("net_vfs", "Virtual ones of each virtio-net function"),
    ("hotplug", "Plugged in while the host runs"),
];

/// What the page shows of it.
pub(super) struct Planned {
    pub view: DpuFunctionsView,
    /// Function, kind of its user, its name, its project, and its page.
    pub used: Vec<(String, &'static str, String, String, Option<String>)>,
    pub form: Fields,
    /// Somebody sent the form, and it was refused.
    pub refused: bool,
}

impl Planned {
    /// The counts of the plan, planned and in force.
    pub fn rows(&self) -> Vec<((&'static str, &'static str), u16, String)> {
        let planned = self.view.plan.as_ref().map(counts).unwrap_or_default();
        let now = self.view.in_force.as_ref().map(counts);
        let now = (0..COUNTS.len()).map(|n| now.map_or_else(|| "—".to_owned(), |now| now[n].to_string()));
        COUNTS.into_iter().zip(planned).zip(now).map(|((name, planned), now)| (name, planned, now)).collect()
    }

    /// Whether SNAP serves the volumes.
    pub fn snap(&self) -> bool {
        self.view.plan.is_some_and(|plan| plan.disks == DisksBy::Snap)
    }

    /// The most that the model has of a count.
    pub fn most(&self, name: &str) -> Option<u16> {
        let limits = self.view.limits?;
        match name {
            "vfs" => Some(limits.vfs),
            "blk_pfs" | "net_pfs" => Some(limits.virtio_pfs),
            "hotplug" => Some(limits.hotplug),
            _ => None,
        }
    }
}

/// What is to be shown, with the form as it was typed.
///
/// # Errors
/// Where the DPU is gone, or the store fails.
pub(super) async fn planned(ui: &Ui, reference: &str, typed: Option<&Fields>) -> Result<Planned, Refusal> {
    let view = DpuFunctionsView::from(ui.engine.dpu_functions(reference).await?);
    let typed = typed.filter(|fields| fields.get("form") == "functions").cloned();
    let used = view.used.iter().map(|used| {
        let project = ui.known.tenancy().project_name(used.project);
        let of = |volume| format!("/my/{}/volumes/{volume}", crate::http::encode(&project));
        let (what, place) = match used.volume {
            Some(volume) => ("volume", Some(of(volume))),
            // Ports have no page of their own.
            None => ("port", None),
        };
        (used.function.clone(), what, used.name.clone(), project, place)
    });
    let used = used.collect();
    let refused = typed.is_some();
    let form = typed.unwrap_or_else(|| as_it_is(&view));
    Ok(Planned { view, used, form, refused })
}

/// The counts of a plan, in the order of [`COUNTS`].
fn counts(plan: &FunctionPlan) -> [u16; 6] {
    [plan.vfs, plan.blk.pfs, plan.blk.vfs, plan.net.pfs, plan.net.vfs, plan.hotplug]
}

/// The form that changes nothing.
fn as_it_is(view: &DpuFunctionsView) -> Fields {
    let model = view.model.unwrap_or(Model::Generic);
    let plan = view.plan.unwrap_or_else(|| FunctionPlan::new(model));
    let disks = if plan.disks == DisksBy::Snap { "snap" } else { "qsd" };
    let numbers = COUNTS.iter().zip(counts(&plan)).map(|((name, _), count)| (*name, count.to_string()));
    let words = [("model", model.as_str().to_owned()), ("disks", disks.to_owned())];
    Fields(numbers.chain(words).map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The plan that a form asks for.
fn plan_of(fields: &Fields) -> Result<FunctionPlan, Problem> {
    let wrong = |what: String, hint: &str| form::problem("form", what, hint);
    let model = Model::named(fields.get("model"))
        .ok_or_else(|| wrong("no model is chosen".to_owned(), "choose the model of the DPU"))?;
    let mut numbers = [0_u16; 6];
    for ((name, label), number) in COUNTS.iter().zip(&mut numbers) {
        let text = fields.trimmed(name).unwrap_or_else(|| "0".to_owned());
        *number = text.parse().map_err(|_| {
            wrong(format!("{label}: “{text}” is no number of functions"), "give a whole number, 0 for none")
        })?;
    }
    let [vfs, blk_pfs, blk_vfs, net_pfs, net_vfs, hotplug] = numbers;
    Ok(FunctionPlan {
        model,
        vfs,
        blk: Virtio { pfs: blk_pfs, vfs: blk_vfs },
        net: Virtio { pfs: net_pfs, vfs: net_vfs },
        hotplug,
        disks: if fields.get("disks") == "snap" { DisksBy::Snap } else { DisksBy::Qsd },
    })
}

pub(super) async fn set(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let mut fields = Fields(fields);
    let set = match plan_of(&fields) {
        Ok(plan) => {
            let set = ui.engine.set_dpu_functions(operator(), &reference, Some(plan)).await;
            set.map_err(|error| Refusal::from(error).0)
        }
        Err(problem) => Err(problem),
    };
    match set {
        Ok(functions) => Ok(go(&address(&functions.known.dpu.name))),
        Err(problem) => {
            fields.0.push(("form".to_owned(), "functions".to_owned()));
            page(&ui, &reference, Some(fields), Some(problem)).await
        }
    }
}

pub(super) async fn clear(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let functions = ui.engine.set_dpu_functions(operator(), &reference, None).await?;
    Ok(go(&address(&functions.known.dpu.name)))
}
