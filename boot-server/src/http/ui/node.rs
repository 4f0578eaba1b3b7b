//! The page of one server: what it is, what it does, what it waits for, and what can be done with it.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use boot_server_core::bmc::health::Level;
use boot_server_core::check::Finding;
use boot_server_core::node::{
    Accepted, Level as Trusted, Node, Repeat, Severity, State as NodeState, StateName, check_forget,
    required_boot,
};
use protocol::Timestamp;
use protocol::inventory::{Inventory, PciDevice};
use serde::Deserialize;

use super::actions::{self, Action, ActionKind};
use super::format::{self as f, Look};
use super::graph::{self, Graph, Span};
use super::power::Card;
use super::recipe::Recipe;
use super::timeline::{self, Bar, Step};
use super::{Refusal, Ui, render};
use crate::engine::{EventFilter, HistoryQuery, now};
use crate::view::dpus::DpuView;
use crate::view::servers::LentView;
use crate::view::{
    AddressView, BmcFound, CertificateView, EventView, FaultReport, NodeView, Problem, ServiceView,
};

/// Newest events on the page; all others are one click away.
const EVENTS: usize = 60;

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage<'a> {
    nav: &'static str,
    node: NodeView,
    /// The server that it is, and the name of its project.
    lent: Option<(LentView, String)>,
    /// The DPU beside it.
    dpu: Option<(DpuView, Look)>,
    look: Look,
    problem: Option<Problem>,
    failed_during: &'static str,
    asks: bool,
    boots: String,
    takes_orders: bool,
    can_forget: bool,
    actions: Vec<Action>,
    can_stop: bool,
    stop_verb: &'static str,
    stop_text: &'static str,
    steps: Vec<Step>,
    bars: Vec<Bar>,
    timeline_title: String,
    timeline_total: String,
    inventory: Option<&'a Inventory>,
    gpus: Vec<&'a PciDevice>,
    addresses: Vec<AddressView>,
    findings: Vec<Finding>,
    events: Vec<EventView>,
    power: Card,
    service: Option<ServiceView>,
    service_steps: Vec<(String, &'static str)>,
    history: History,
    faults: FaultReport,
    accepted: Vec<Accepted>,
    certificates: Vec<CertificateView>,
    models: Vec<String>,
    pools: Vec<String>,
    can_adopt: bool,
    /// Its server can go on, on another machine.
    can_evacuate: bool,
    recipe: Recipe,
}

/// What of the history is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Picked {
    range: String,
    sensors: String,
}

/// The pictures of what sensors measured.
struct History {
    span: Span,
    all: bool,
    graphs: Vec<Graph>,
    /// Sensors that were read in this time.
    sensors: usize,
    /// Between two looks at them, in words.
    every: String,
}

impl History {
    async fn of(ui: &Ui, node: &Node, picked: &Picked) -> Self {
        let (span, all) = (Span::of(&picked.range), picked.sensors == "all");
        let every = ui.engine.health_interval();
        let to = now();
        let from =
            Timestamp(to.0.saturating_sub(u64::try_from(span.length().as_millis()).unwrap_or(u64::MAX)));
        let query =
            HistoryQuery { sensor: None, from: Some(from), to: Some(to), step: Some(span.step(every)) };
        // The page shows what else is known of the machine.
        let found = ui.engine.history(node.id, query).await;
        let found =
            found.inspect_err(|error| tracing::error!(node = %node.id, %error, "no history is shown")).ok();
        let graphs = found.as_ref().map(|found| graph::graphs(found, span, every, all)).unwrap_or_default();
        let sensors = found.map_or(0, |found| found.sensors.len());
        let every = f::millis(u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        Self { span, all, graphs, sensors, every }
    }

    /// The page with another choice.
    fn query(&self, span: &Span, all: impl f::Of<bool>) -> String {
        format!("?range={}{}", span.key(), if all.of() { "&sensors=all" } else { "" })
    }
}

/// Where a node's page is.
pub(super) fn address(node: &Node) -> String {
    format!("/nodes/{}", crate::http::encode(&node.name))
}

pub(super) async fn show(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Query(picked): Query<Picked>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    page_with(&ui, &node, None, &picked).await
}

/// The page, with the reason why something was refused.
pub(super) async fn page(ui: &Ui, node: &Node, problem: Option<Problem>) -> Result<Response, Refusal> {
    page_with(ui, node, problem, &Picked::default()).await
}

async fn page_with(
    ui: &Ui,
    node: &Node,
    problem: Option<Problem>,
    picked: &Picked,
) -> Result<Response, Refusal> {
    let inventory = ui.engine.inventory(node.id).await?;
    let inventory = inventory.as_deref();
    let filter = EventFilter {
        node: Some(node.id),
        after: None,
        before: None,
        limit: EVENTS,
        ..EventFilter::default()
    };
    let events = ui.engine.events(filter).await?;
    let view = ui.engine.view(node).await;
    let running = view.job.is_some();
    let (bars, timeline_total) = timeline::bars(&view.timeline, now(), running);
    let actions = actions::fitting(node);
    let service = crate::engine::service_view(node);
    let page = NodePage {
        nav: "servers",
        look: f::look(view.state),
        failed_during: match &node.state {
            NodeState::Failed(failure) => f::look(failure.during).label,
            _ => "",
        },
        asks: view.state == StateName::Manageable
            && view.hardware.is_some()
            && node.quarantine.is_none()
            && node.retired.is_none(),
        boots: required_boot(node, now()).words(),
        takes_orders: matches!(view.state, StateName::Manageable | StateName::Available | StateName::Active),
        can_forget: check_forget(node).is_ok(),
        can_stop: running,
        stop_verb: node
            .state
            .run()
            .map_or(if node.state.service().is_some() { "service" } else { "" }, |run| run.job.task.verb()),
        stop_text: actions::stop_text(node),
        steps: view.job.as_ref().map(timeline::steps).unwrap_or_default(),
        bars,
        timeline_title: view.timeline.title.clone(),
        timeline_total,
        inventory,
        gpus: inventory.map(|i| i.pci.iter().filter(|d| f::is_gpu(d)).collect()).unwrap_or_default(),
        addresses: ui.engine.addresses(node).await?,
        findings: ui.engine.boot_findings(node),
        events,
        power: Card::of(ui.engine.bmc(node.id), inventory.and_then(BmcFound::of)),
        history: History::of(ui, node, picked).await,
        faults: ui.engine.faults(node).await,
        accepted: node.accepted.clone(),
        certificates: super::certificates::of_node(ui, node.id).await?,
        models: ui.engine.models().await?.into_iter().map(|model| model.name).collect(),
        pools: super::pools::names(ui),
        can_adopt: view.state == StateName::Manageable,
        can_evacuate: node.installed.as_ref().is_some_and(|os| os.disk.volume().is_some()),
        service_steps: service.as_ref().map(super::service::steps).unwrap_or_default(),
        service,
        recipe: actions::recipe(node, &actions),
        lent: ui.engine.lent_to(node.id).await.map(|lent| {
            let project = ui.known.tenancy().project_name(lent.project);
            (lent, project)
        }),
        dpu: ui.engine.dpu_beside(node.id).map(|known| {
            let dpu = super::dpus::view(ui, known);
            let look = super::dpus::look(&dpu);
            (dpu, look)
        }),
        actions,
        node: view,
        problem,
    };
    let status = page.problem.as_ref().map_or(200, |p| p.status);
    Ok(render(status, &page))
}
