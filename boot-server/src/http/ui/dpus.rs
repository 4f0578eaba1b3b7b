//! DPUs of the site: which there are, and of one what it is, what it is to be, and what keeps it from that.

use std::fmt::Write as _;

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use boot_server_core::setup::{Mode, Privilege};
use protocol::dpu::Datapath;
use serde::Deserialize;
use serde_json::json;

use super::dpu_functions::{COUNTS, Planned, planned};
use super::form::{self, Fields};
use super::format::{self as f, Look};
use super::recipe::Recipe;
use super::servers::address as query;
use super::{Refusal, Ui, go, operator, render};
use crate::engine::{DpuChange, KnownDpu};
use crate::http::api::dpu_requests::DpuJobRequest;
use crate::http::api::dpu_setup::{bmc_view, order};
use crate::http::auth;
use crate::store::overlay::{Net, Plug};
use crate::view::Problem;
use crate::view::dpu_setup::DpuJobView;
use crate::view::dpus::{DpuPort, DpuStatus, DpuView};

/// DPUs on one page; more are on the next.
const PAGE: usize = 200;

/// Jobs of one DPU on its page.
const JOBS: usize = 10;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "dpus.html")]
struct DpusPage {
    nav: &'static str,
    rows: Vec<(DpuView, Look)>,
    filter: Filter,
    next: Option<String>,
    may_change: bool,
    form: Fields,
    /// Name and token of a DPU that was just registered: shown this once.
    made: Option<(String, String)>,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "dpu.html")]
struct DpuPage {
    nav: &'static str,
    dpu: DpuView,
    look: Look,
    disks: Vec<Disk>,
    ports: Vec<Plugged>,
    jobs: Vec<DpuJobView>,
    planned: Planned,
    may_change: bool,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A volume that it may write to, or serves.
struct Disk {
    id: String,
    /// Name, project, bytes and status, where the volume is known.
    known: Option<(String, String, u64, &'static str)>,
    /// What the DPU says of it.
    served: String,
    runs: bool,
}

/// A port of its host as its switch has it.
struct Plugged {
    seen: DpuPort,
    /// What the logical port is called, its network and its project, where it is known.
    known: Option<(String, String, String)>,
}

/// How a status is shown.
pub(super) fn look(dpu: &DpuView) -> Look {
    let look = |label, tone, icon| Look { label, tone, icon };
    match dpu.status {
        DpuStatus::Registered => look("Registered", "", "wait"),
        DpuStatus::Waiting => look("Waits to be accepted", "tone-ask", "ask"),
        DpuStatus::Settled => look("Settled", "tone-good", "good"),
        DpuStatus::Unsettled if !dpu.problems.is_empty() => look("Has a problem", "tone-bad", "bad"),
        DpuStatus::Unsettled => look("Changing", "tone-work", "work"),
        DpuStatus::Silent => look("Silent", "tone-bad", "warning"),
    }
}

/// A DPU as it is shown.
pub(super) fn view(ui: &Ui, known: KnownDpu) -> DpuView {
    let silent = ui.engine.dpu_is_silent(&known);
    let node = known.dpu.node.and_then(|node| ui.engine.node_name(node));
    let bmc = bmc_view(&ui.engine, known.dpu.id);
    DpuView { bmc, ..DpuView::of(known, node, silent) }
}

/// Where a DPU's page is.
pub(super) fn address(name: &str) -> String {
    format!("/dpus/{}", crate::http::encode(name))
}

fn may_change() -> bool {
    auth::who().is_some_and(|who| who.may_change())
}

pub(super) async fn list(State(ui): State<Ui>, Query(filter): Query<Filter>) -> Response {
    list_page(&ui, filter, Fields::default(), None, None)
}

fn list_page(
    ui: &Ui,
    filter: Filter,
    form: Fields,
    made: Option<(String, String)>,
    problem: Option<Problem>,
) -> Response {
    let (wanted, after) = (filter.q.trim().to_lowercase(), filter.after.as_deref().unwrap_or_default());
    let known = ui.engine.dpus().into_iter().filter(|known| known.dpu.name.as_str() > after);
    let fits = |dpu: &DpuView| {
        let facts = &dpu.facts;
        let texts = [Some(&dpu.name), dpu.node_name.as_ref(), facts.serial.as_ref(), facts.model.as_ref()];
        wanted.is_empty() || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&wanted))
    };
    let mut found: Vec<DpuView> = known.map(|known| view(ui, known)).filter(fits).take(PAGE + 1).collect();
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| query("/dpus", &[("q", filter.q.as_str()), ("after", last.name.as_str())]));
    let body = json!({ "name": "dpu-1", "node": "node-1" });
    let recipe = Recipe::default().and("billet dpu list", "GET", "dpus", None).and(
        "billet dpu create dpu-1 --node node-1",
        "POST",
        "dpus",
        Some(&body),
    );
    let page = DpusPage {
        nav: "dpus",
        rows: found.into_iter().map(|dpu| (dpu.clone(), look(&dpu))).collect(),
        filter,
        next,
        may_change: may_change(),
        form,
        made,
        problem,
        recipe,
    };
    render(page.problem.as_ref().map_or(200, |problem| problem.status), &page)
}

/// What a form says of a DPU; what is empty stays as it is, but for the host, which an empty field takes away where `clears`.
fn change_of(fields: &Fields, clears: bool) -> Result<DpuChange, Problem> {
    let wrong = |what: String, hint: &str| form::problem("form", what, hint);
    let tunnel_address = match fields.trimmed("tunnel_address") {
        Some(text) => Some(text.parse().map_err(|_| {
            wrong(format!("“{text}” is no address"), "write it as 192.0.2.7, or leave it empty")
        })?),
        None => None,
    };
    let provisioning_bridge = match fields.trimmed("bridge") {
        Some(text) => Some(text.parse().map_err(|error| {
            wrong(
                format!("the bridge: {error}"),
                "give the name of a bridge of the DPU, such as br-provision",
            )
        })?),
        None => None,
    };
    let datapath = match fields.get("datapath") {
        "netdev" => Some(Datapath::Netdev),
        "system" => Some(Datapath::System),
        _ => None,
    };
    let node = fields.trimmed("node").or_else(|| clears.then(String::new));
    Ok(DpuChange { node, tunnel_address, datapath, provisioning_bridge, accept: false })
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let name = fields.trimmed("name").unwrap_or_default();
    let made = match change_of(&fields, false) {
        Ok(change) => ui.engine.create_dpu(operator(), name, change).await.map_err(|e| Refusal::from(e).0),
        Err(problem) => Err(problem),
    };
    Ok(match made {
        Ok((known, token)) => {
            list_page(&ui, Filter::default(), Fields::default(), Some((known.dpu.name, token)), None)
        }
        Err(problem) => list_page(&ui, Filter::default(), fields, None, Some(problem)),
    })
}

pub(super) async fn show(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    page(&ui, &reference, None, None).await
}

pub(super) async fn page(
    ui: &Ui,
    reference: &str,
    typed: Option<Fields>,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let dpu = view(ui, ui.engine.dpu(reference)?);
    let disks = disks(ui, &dpu).await?;
    let planned = planned(ui, reference, typed.as_ref()).await?;
    let form = typed.filter(|_| !planned.refused).unwrap_or_else(|| as_it_is(&dpu));
    let page = DpuPage {
        planned,
        nav: "dpus",
        look: look(&dpu),
        disks,
        ports: dpu.ports.iter().map(|port| plugged(ui, port)).collect(),
        jobs: ui.engine.jobs_of_dpu(dpu.id).into_iter().take(JOBS).map(Into::into).collect(),
        may_change: may_change(),
        form,
        problem,
        recipe: recipe(&dpu),
        dpu,
    };
    Ok(render(page.problem.as_ref().map_or(200, |problem| problem.status), &page))
}

/// The form that changes nothing.
fn as_it_is(dpu: &DpuView) -> Fields {
    let pairs = [
        ("node", dpu.node_name.clone().unwrap_or_default()),
        ("tunnel_address", dpu.tunnel_address.map(|address| address.to_string()).unwrap_or_default()),
        ("bridge", dpu.provisioning_bridge.clone()),
        ("datapath", dpu.datapath.clone()),
    ];
    Fields(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn recipe(dpu: &DpuView) -> Recipe {
    let (name, path) = (f::shell(&dpu.name), format!("dpus/{}", dpu.name));
    let recipe = Recipe::default().and(&format!("billet dpu show {name}"), "GET", &path, None);
    let recipe = match dpu.accepted {
        true => recipe,
        false => {
            let nothing = json!({});
            recipe.and(
                &format!("billet dpu accept {name}"),
                "POST",
                &format!("{path}/accept"),
                Some(&nothing),
            )
        }
    };
    recipe
        .and(
            &format!("billet dpu set {name} --node node-1"),
            "PATCH",
            &path,
            Some(&json!({ "node": "node-1" })),
        )
        .and(
            &format!("billet dpu functions set {name} --vfs 16 --hotplug 8"),
            "PUT",
            &format!("{path}/functions"),
            Some(&json!({ "model": "bluefield3", "vfs": 16, "hotplug": 8 })),
        )
        .and(&format!("billet dpu delete {name}"), "DELETE", &path, None)
}

/// Volumes that it may write to with what it says of them, then those that it serves and that nobody granted it any more.
async fn disks(ui: &Ui, dpu: &DpuView) -> Result<Vec<Disk>, Refusal> {
    let said = |id: &str| match dpu.volumes.iter().find(|disk| disk.volume == id) {
        None => ("not served".to_owned(), false),
        Some(disk) => {
            let mut words =
                if disk.running { "its exporter runs" } else { "its exporter does not run" }.to_owned();
            words.push_str(if disk.in_use { ", the host has it" } else { ", no host has it" });
            if disk.restarts > 0 {
                let _ = write!(words, ", started again {} time{}", disk.restarts, f::s(disk.restarts));
            }
            (words, disk.running)
        }
    };
    let granted = ui.engine.volumes_of_dpu(dpu.id).await?;
    let mut disks = Vec::with_capacity(granted.len());
    for volume in granted {
        let id = volume.id.to_string();
        let (served, runs) = said(&id);
        let project = ui.known.tenancy().project_name(volume.project);
        let known = Some((volume.name.clone(), project, volume.size, volume.status().as_str()));
        disks.push(Disk { id, known, served, runs });
    }
    for disk in &dpu.volumes {
        if !disks.iter().any(|known| known.id == disk.volume) {
            let (served, runs) = said(&disk.volume);
            disks.push(Disk { id: disk.volume.clone(), known: None, served, runs });
        }
    }
    Ok(disks)
}

/// A port with the names of what it is plugged into.
fn plugged(ui: &Ui, seen: &DpuPort) -> Plugged {
    let id = seen.port.as_ref().and_then(|id| id.parse().ok());
    let row = id.and_then(|id| ui.engine.overlay_by_id::<Plug>(id));
    let known = row.and_then(|row| {
        let network = ui.engine.overlay_by_id::<Net>(row.value.port.network)?;
        let addresses: Vec<String> = row.value.port.addresses.iter().map(ToString::to_string).collect();
        let name = if row.name.is_empty() { addresses.join(", ") } else { row.name.clone() };
        Some((name, network.name.clone(), ui.known.tenancy().project_name(row.project)))
    });
    Plugged { seen: seen.clone(), known }
}

pub(super) async fn change(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let changed = match change_of(&fields, true) {
        Ok(change) => {
            ui.engine.change_dpu(operator(), &reference, change).await.map_err(|e| Refusal::from(e).0)
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(known) => Ok(go(&address(&known.dpu.name))),
        Err(problem) => page(&ui, &reference, Some(fields), Some(problem)).await,
    }
}

pub(super) async fn accept(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let change = DpuChange { accept: true, ..DpuChange::default() };
    let known = ui.engine.change_dpu(operator(), &reference, change).await?;
    Ok(go(&address(&known.dpu.name)))
}

pub(super) async fn remove(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (fields, name) = (Fields(fields), ui.engine.dpu(&reference)?.dpu.name);
    let typed = fields.get("confirm");
    if typed != name {
        return page(&ui, &reference, None, Some(form::not_the_name("DPU", typed, &name))).await;
    }
    match ui.engine.remove_dpu(operator(), &reference).await {
        Ok(()) => Ok(go("/dpus")),
        Err(error) => page(&ui, &reference, None, Some(Refusal::from(error).0)).await,
    }
}

pub(super) async fn enrol(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    match ui.engine.enrol_dpu(operator(), &reference).await {
        Ok(known) => Ok(go(&address(&known.dpu.name))),
        Err(error) => page(&ui, &reference, None, Some(Refusal::from(error).0)).await,
    }
}

/// What a form of the page asks for.
fn job_of(fields: &Fields) -> Result<DpuJobRequest, Problem> {
    let wrong = |what: &str, hint| form::problem("form", what.to_owned(), hint);
    let sha256 = fields.trimmed("sha256").map(|text| text.parse()).transpose();
    Ok(match fields.get("what") {
        "mode dpu" => DpuJobRequest::Mode { mode: Mode::Dpu, power_cycle: false },
        "mode nic" => DpuJobRequest::Mode { mode: Mode::Nic, power_cycle: false },
        "privilege privileged" => DpuJobRequest::HostPrivilege { privilege: Privilege::Privileged },
        "privilege restricted" => DpuJobRequest::HostPrivilege { privilege: Privilege::Restricted },
        "install" => DpuJobRequest::Install {
            image: fields.trimmed("image").unwrap_or_default(),
            sha256: sha256.map_err(|_| wrong("this is no SHA-256", "give 64 hexadecimal digits, or none"))?,
            agent: true,
        },
        "reset" => DpuJobRequest::Reset { force: false },
        "rollback" => DpuJobRequest::Rollback {},
        _ => return Err(wrong("nothing is asked for", "choose what to do")),
    })
}

pub(super) async fn begin(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let begun = match job_of(&Fields(fields)) {
        Ok(request) => match order(&ui.engine, &reference, request).await {
            Ok(order) => ui.engine.begin_dpu_job(operator(), &reference, order).await,
            Err(error) => Err(error),
        }
        .map_err(|error| Refusal::from(error).0),
        Err(problem) => Err(problem),
    };
    match begun {
        Ok(job) => Ok(go(&format!("/dpus/{}", job.dpu))),
        Err(problem) => page(&ui, &reference, None, Some(problem)).await,
    }
}

pub(super) async fn call_off(
    State(ui): State<Ui>,
    Path((reference, job)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let job = ui.engine.call_off_dpu_job(operator(), &reference, &job).await?;
    Ok(go(&format!("/dpus/{}", job.dpu)))
}
