//! Buttons: which fit a node as it stands, and what they do.

use std::time::Duration;

use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::names::{PoolName, Tag};
use boot_server_core::node::event::Verb;
use boot_server_core::node::place::Typed;
use boot_server_core::node::{Event, Node, Place, State as NodeState, StateName, StaticNetwork};
use protocol::job::Task;

use super::form::{Fields, problem};
use super::format::shell;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator};
use crate::engine::{EngineError, now};
use crate::view::Problem;

/// How a button works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// It opens a form.
    Page,
    /// It acts at once: nothing can be lost by it.
    Post,
}

/// A button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Last part of its address.
    pub verb: &'static str,
    /// What is written on it.
    pub label: &'static str,
    /// How it works.
    pub kind: ActionKind,
    /// CSS class.
    pub class: &'static str,
}

const fn page(verb: &'static str, label: &'static str, class: &'static str) -> Action {
    Action { verb, label, kind: ActionKind::Page, class }
}

const fn post(verb: &'static str, label: &'static str) -> Action {
    Action { verb, label, kind: ActionKind::Post, class: "" }
}

const INSPECT: Action = post("inspect", "Inspect again");
const MANAGE: Action = post("manage", "Keep out of use");
const RETRY: Action = Action { class: "primary", ..post("retry", "Try again") };
const GIVE_UP: Action = post("abort", "Give up");
const PROVIDE: Action = page("provide", "Make available", "");
const DELETE: Action = page("delete", "Give back", "danger-quiet");
const DEPLOY: Action = page("deploy", "Deploy", "primary");

/// What a person can do with this node now, the likeliest first.
pub fn fitting(node: &Node) -> Vec<Action> {
    match &node.state {
        NodeState::Enroll => vec![INSPECT, MANAGE],
        // What would be refused is not offered.
        NodeState::Manageable if node.quarantine.is_some() => vec![Action { class: "primary", ..INSPECT }],
        NodeState::Available if node.quarantine.is_some() => vec![INSPECT, MANAGE],
        NodeState::Manageable => vec![Action { class: "primary", ..PROVIDE }, INSPECT],
        NodeState::Available => vec![DEPLOY, INSPECT, MANAGE],
        NodeState::Active => vec![Action { verb: "rebuild", label: "Reinstall", ..DEPLOY }, DELETE],
        NodeState::Inspecting(_)
        | NodeState::Cleaning(_)
        | NodeState::Deploying(_)
        | NodeState::Deleting(_)
        | NodeState::Servicing(_) => Vec::new(),
        NodeState::Failed(failure) if failure.service.is_some() => vec![RETRY, GIVE_UP],
        NodeState::Failed(failure) => {
            let deploying = failure.during == StateName::Deploying;
            let mut actions = Vec::new();
            if failure.run.is_some() {
                actions.push(RETRY);
            }
            if deploying {
                actions.push(Action { label: "Deploy anew", class: "", ..DEPLOY });
            }
            actions.extend([PROVIDE, MANAGE]);
            if matches!(failure.during, StateName::Deploying | StateName::Deleting | StateName::Cleaning) {
                actions.push(DELETE);
            }
            actions
        }
    }
}

/// The same buttons as commands and requests.
pub fn recipe(node: &Node, actions: &[Action]) -> Recipe {
    let name = shell(&node.name);
    let at = |verb: &str| format!("nodes/{}{verb}", node.name);
    let empty = serde_json::json!({});
    let mut recipe = Recipe::default().and(&format!("billet node show {name}"), "GET", &at(""), None);
    for action in actions.iter().filter(|a| a.kind == ActionKind::Post) {
        let verb = action.verb;
        recipe =
            recipe.and(&format!("billet node {verb} {name}"), "POST", &at(&format!("/{verb}")), Some(&empty));
    }
    if node.state.is_busy() {
        recipe = recipe.and(&format!("billet node abort {name}"), "POST", &at("/abort"), Some(&empty));
    }
    let pool = node.pool.as_ref().map_or("default", PoolName::as_str);
    let (in_pool, tags) = (serde_json::json!({ "pool": pool }), serde_json::json!({ "tags": ["fast"] }));
    let recipe = recipe
        .and(&format!("billet pool put {pool} {name}"), "PUT", &at("/pool"), Some(&in_pool))
        .and(&format!("billet pool tag {name} fast"), "PUT", &at("/tags"), Some(&tags));
    recipe.and(
        &format!("billet node maintenance {name} --reason 'swapping a fan'"),
        "POST",
        &at("/maintenance"),
        Some(&serde_json::json!({ "reason": "swapping a fan" })),
    )
}

/// What stopping the job means, in words.
pub fn stop_text(node: &Node) -> &'static str {
    if node.state.service().is_some() {
        return "What the BMC works on is waited for; nothing is begun after it, and what it took stays as it is.";
    }
    match node.state.run().map(|run| &run.job.task) {
        Some(Task::Deploy(_)) => {
            "Once the disk is being written it may be left incomplete; an incomplete disk does not boot."
        }
        Some(Task::Clean { .. }) => "Disks that were wiped already stay wiped.",
        Some(Task::Inspect) | None => "Nothing is changed on the machine by it.",
    }
}

pub(super) async fn inspect(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    act(ui, id, Verb::Inspect).await
}

pub(super) async fn manage(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    act(ui, id, Verb::Manage).await
}

pub(super) async fn abort(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    act(ui, id, Verb::Abort).await
}

pub(super) async fn retry(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    act(ui, id, Verb::Retry).await
}

pub(super) async fn rename(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let name = Fields(fields).trimmed("name").unwrap_or_default();
    act(ui, id, Verb::Rename { name }).await
}

pub(super) async fn place(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let [rack, unit, height, room, power_feed] =
        ["rack", "unit", "height", "room", "power_feed"].map(|name| fields.get(name));
    match Place::typed(Typed { rack, unit, height, room, power_feed }) {
        Ok(place) => {
            let node = ui.engine.node(&reference).await?;
            ui.engine.apply(node.id, operator(), Event::Verb(Verb::Place { place })).await?;
            // The cabling plan of its model may go by its place.
            let node = ui.engine.compare_again(node.id).await?;
            Ok(go(&node::address(&node)))
        }
        Err(error) => {
            let node = ui.engine.node(&reference).await?;
            node::page(&ui, &node, Some(Refusal::from(EngineError::from(error)).0)).await
        }
    }
}

pub(super) async fn network(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (node, fields) = (ui.engine.node(&reference).await?, Fields(fields));
    let [address, gateway, port, dns] = ["address", "gateway", "port", "dns"].map(|name| fields.get(name));
    let done = match StaticNetwork::typed(address, gateway, port, dns) {
        Ok(network) => ui.engine.set_network(&node, operator(), network).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => node::page(&ui, &node, Some(Refusal::from(error).0)).await,
    }
}

pub(super) async fn pool(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (node, fields) = (ui.engine.node(&reference).await?, Fields(fields));
    match set_pool(&ui, &node, &fields).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(problem) => node::page(&ui, &node, Some(problem)).await,
    }
}

/// Pool and tags: neither is changed where one of them cannot be.
async fn set_pool(ui: &Ui, node: &Node, fields: &Fields) -> Result<Node, Problem> {
    let told = |error: EngineError| Refusal::from(error).0;
    let wrong =
        |error: &dyn std::fmt::Display| problem("form", error.to_string(), "correct it, and send it again");
    let pool: PoolName = fields.get("pool").parse().map_err(|error| wrong(&error))?;
    let words = fields.get("tags").split([' ', ',', '\n', '\r']).filter(|word| !word.is_empty());
    let tags = words.map(str::parse::<Tag>).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    ui.engine.pool(pool.as_str()).map_err(told)?;
    let node = ui.engine.set_node_tags(node, operator(), tags).await.map_err(told)?;
    ui.engine.set_node_pool(&node, operator(), Some(pool)).await.map_err(told)
}

pub(super) async fn maintenance(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let hours = fields.get("hours").parse::<u64>().ok().filter(|hours| (1..=8760).contains(hours));
    let until = hours.map(|hours| now().after(Duration::from_hours(hours)));
    let (reason, by) = (fields.trimmed("reason"), Some(operator().name().to_owned()));
    act(ui, id, Verb::Maintenance { until: reason.as_ref().and(until), reason, by }).await
}

/// Does it and shows the node; where it is refused, the node with the reason.
async fn act(State(ui): State<Ui>, Path(reference): Path<String>, verb: Verb) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    match ui.engine.apply(node.id, operator(), Event::Verb(verb)).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => {
            let problem = Refusal::from(error).0;
            let node = ui.engine.node(&reference).await?;
            node::page(&ui, &node, Some(problem)).await
        }
    }
}
