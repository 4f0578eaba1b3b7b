//! The site at a glance, for those who run it: what stands where, what goes on, what failed and why, what is free of each flavor,
//! and how long servers take to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use boot_server_core::approval::Status;
use boot_server_core::node::{Node, State as NodeState, StateName};
use boot_server_core::plural::count;
use boot_server_core::sla::Percentiles;
use boot_server_core::usage::Period;
use protocol::Timestamp;

use super::format::{self as f, Look};
use super::recipe::Recipe;
use super::servers::address;
use super::{Refusal, Ui, render};
use crate::engine::now;
use crate::engine::servers::FaultFilter;
use crate::store::approvals::ApprovalFilter;
use crate::view::place::{Capacity, RoomView};
use crate::view::{JobView, NodeView};

/// Lines of a list; the whole list is one click away.
const LINES: usize = 8;
/// Provisioning is measured over so many days.
const DAYS: u64 = 30;
/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Approvals that are counted one by one.
const APPROVALS: usize = 100;

#[derive(Template)]
#[template(path = "dashboard.html")]
struct DashboardPage {
    nav: &'static str,
    tiles: Vec<Tile>,
    asks: Vec<Ask>,
    failures: Vec<Failed>,
    failed: usize,
    jobs: Vec<Job>,
    running: usize,
    flavors: Vec<Capacity>,
    rooms: Vec<RoomView>,
    unplaced: u64,
    provisioning: Percentiles,
    recipe: Recipe,
}

impl DashboardPage {
    /// Seconds that so many of the servers took at most.
    fn shares(&self) -> [(&'static str, Option<u64>); 3] {
        let Percentiles { p50, p90, p99, .. } = self.provisioning;
        [("Half took at most", p50), ("Nine of ten", p90), ("99 of 100", p99)]
    }
}

/// Machines in a state.
struct Tile {
    look: Look,
    count: usize,
    href: String,
}

/// Something that waits for a person.
struct Ask {
    words: String,
    href: &'static str,
}

/// A machine that failed, with the cause.
struct Failed {
    name: String,
    during: &'static str,
    message: String,
    hint: String,
}

/// Work on a machine.
struct Job {
    node: NodeView,
    job: JobView,
}

impl Job {
    fn percent(&self) -> Option<u64> {
        let progress = self.job.progress.filter(|progress| progress.bytes_total > 0)?;
        Some(f::percent(progress.bytes_done, progress.bytes_total))
    }
}

pub(super) async fn show(State(ui): State<Ui>) -> Result<Response, Refusal> {
    let nodes = ui.engine.node_page(None, usize::MAX, |_| true).nodes;
    let busy: Vec<_> = nodes.iter().filter(|node| node.state.is_busy()).collect();
    let mut jobs = Vec::new();
    for node in busy.iter().take(LINES) {
        let view = ui.engine.view(node).await;
        jobs.extend(view.job.clone().map(|job| Job { node: view, job }));
    }
    let (to, failures) = (now(), failures(&nodes));
    let period = Period { from: Timestamp(to.0.saturating_sub(DAYS * DAY)), to };
    let page = DashboardPage {
        nav: "dashboard",
        tiles: tiles(&nodes),
        asks: asks(&ui, &nodes).await?,
        failed: failures.len(),
        failures: failures.into_iter().take(LINES).collect(),
        running: busy.len(),
        jobs,
        flavors: ui.engine.flavor_views().await?.into_iter().map(|view| view.capacity).collect(),
        rooms: ui.engine.rooms(),
        unplaced: ui.engine.unplaced(),
        provisioning: ui.engine.sla(None, period).await?.provisioning,
        recipe: recipe(),
    };
    Ok(render(200, &page))
}

fn recipe() -> Recipe {
    Recipe::default()
        .and("billet status", "GET", "status", None)
        .and("billet node list --state failed", "GET", "nodes?state=failed", None)
        .and("billet flavor list", "GET", "flavors", None)
        .and("billet rack rooms", "GET", "rooms", None)
        .and("billet sla", "GET", "sla", None)
}

fn tiles(nodes: &[Arc<Node>]) -> Vec<Tile> {
    let mut counts: BTreeMap<StateName, usize> = BTreeMap::new();
    for node in nodes {
        *counts.entry(node.state.name()).or_default() += 1;
    }
    let tile = |state: StateName| {
        let count = *counts.get(&state)?;
        Some(Tile { look: f::look(state), count, href: address("/", &[("state", state.as_str())]) })
    };
    f::STATES.into_iter().filter_map(tile).collect()
}

fn failures(nodes: &[Arc<Node>]) -> Vec<Failed> {
    let failed = nodes.iter().filter_map(|node| match &node.state {
        NodeState::Failed(failure) => Some(Failed {
            name: node.name.clone(),
            during: f::look(failure.during).label,
            message: failure.fault.message.clone(),
            hint: failure.fault.hint.clone(),
        }),
        _ => None,
    });
    failed.collect()
}

/// What waits for a person, with where they decide it; nothing that has no number.
async fn asks(ui: &Ui, nodes: &[Arc<Node>]) -> Result<Vec<Ask>, Refusal> {
    let kept_out = nodes.iter().filter(|node| node.quarantine.is_some()).count();
    let waiting = ApprovalFilter { status: Some(Status::Waiting), limit: APPROVALS, ..Default::default() };
    let approvals = ui.engine.approvals(waiting).await?.len();
    let reported = ui.engine.fault_reports(FaultFilter { project: None, open: true }).await?.len();
    let unwell = ui.engine.all_faults().await.len();
    let strangers = ui.engine.dhcp_servers().iter().filter(|server| !server.expected).count();
    let all = [
        (unwell, "machine", "with something to mend", "/faults"),
        (kept_out, "machine", "in quarantine", "/models"),
        (reported, "fault", "reported by users", "/faults"),
        (approvals, "request", "waiting for a second person", "/approvals"),
        (strangers, "foreign DHCP server", "on the wire", "/status"),
    ];
    let there = all.into_iter().filter(|(number, ..)| *number > 0);
    let ask = |(number, what, how, href)| Ask { words: format!("{} {how}", count(number, what)), href };
    Ok(there.map(ask).collect())
}
