//! Power buttons, and the page of a server's management controller. What the controller measures is asked for behind the
//! page, so that one that hangs holds up no page.

use std::str::FromStr as _;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use bmc::{Component, DriverKind, LogEntry, PowerAction, PowerState, Reading, Secret};
use boot_server_core::node::Node;
use serde_json::json;

use super::form::{self, Fields};
use super::format::{self as f, shell};
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::engine::{BmcChange, EngineError};
use crate::http::auth::need_places;
use crate::power::{Change, Read, Reply};
use crate::view::{BmcFound, BmcView, NodeView, Problem};

/// Newest lines of the event log that are shown.
const LINES: usize = 100;

/// The card on a server's page.
pub(super) struct Card {
    pub bmc: Option<BmcView>,
    pub found: Option<BmcFound>,
    pub state: Option<&'static str>,
    pub tone: &'static str,
    pub can_switch_on: bool,
    pub can_switch_off: bool,
}

impl Card {
    pub fn of(bmc: Option<BmcView>, found: Option<BmcFound>) -> Self {
        let power = bmc.as_ref().and_then(|bmc| bmc.power);
        let manual = bmc.as_ref().is_none_or(|bmc| bmc.driver == DriverKind::Manual);
        let wol = bmc.as_ref().is_some_and(|bmc| bmc.driver == DriverKind::Wol);
        Self {
            state: power.map(word),
            tone: match power {
                Some(PowerState::On) => "tone-good",
                Some(PowerState::PoweringOn | PowerState::PoweringOff) => "tone-work",
                _ => "plain",
            },
            can_switch_on: !manual && power != Some(PowerState::On),
            can_switch_off: !manual && !wol && power != Some(PowerState::Off),
            bmc,
            found,
        }
    }

    /// It has a controller that measures.
    pub fn watched(&self) -> bool {
        self.bmc.as_ref().is_some_and(|bmc| matches!(bmc.driver, DriverKind::Redfish | DriverKind::Ipmi))
    }
}

fn word(state: PowerState) -> &'static str {
    match state {
        PowerState::On => "On",
        PowerState::Off => "Off",
        PowerState::PoweringOn => "Powering on",
        PowerState::PoweringOff => "Powering off",
        PowerState::Unknown => "Unknown",
    }
}

/// What was typed; never the password.
#[derive(Default)]
struct Typed {
    driver: String,
    address: String,
    port: String,
    user: String,
    has_password: bool,
}

#[derive(Template)]
#[template(path = "bmc.html")]
struct BmcPage {
    nav: &'static str,
    node: NodeView,
    bmc: Option<BmcView>,
    form: Typed,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "readings.html")]
struct ReadingsPage {
    refusals: Vec<String>,
    parts: Vec<Component>,
    readings: Vec<Reading>,
    lines: Vec<LogEntry>,
}

pub(super) async fn switch(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let fields = Fields(fields);
    let action: Result<PowerAction, _> = serde_json::from_value(json!(fields.get("action")));
    let Ok(action) = action else {
        let problem = form::problem("action", "this is no change of power", "use the buttons");
        return node::page(&ui, &node, Some(problem)).await;
    };
    match ui.engine.switch(node.id, operator(), action).await {
        Ok(_) => Ok(go(&node::address(&node))),
        Err(error) => node::page(&ui, &node, Some(Refusal::from(error).0)).await,
    }
}

pub(super) async fn form(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let detail = ui.engine.detail(&node).await;
    let typed = match (&detail.bmc, &detail.bmc_found) {
        (Some(bmc), _) => Typed {
            driver: bmc.driver.to_string(),
            address: bmc.address.clone(),
            port: bmc.port.map(|port| port.to_string()).unwrap_or_default(),
            user: bmc.user.clone().unwrap_or_default(),
            has_password: bmc.has_password,
        },
        (None, found) => Typed {
            driver: "redfish".to_owned(),
            address: found.as_ref().and_then(|f| f.address).map(|a| a.to_string()).unwrap_or_default(),
            ..Typed::default()
        },
    };
    Ok(page(&ui, &node, typed, None).await)
}

pub(super) async fn set(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let fields = Fields(fields);
    let text = |name: &str| fields.trimmed(name).unwrap_or_default();
    let typed = Typed {
        driver: text("driver"),
        address: text("address"),
        port: text("port"),
        user: text("user"),
        has_password: ui.engine.bmc(node.id).is_some_and(|bmc| bmc.has_password),
    };
    let port = match typed.port.as_str() {
        "" => Ok(None),
        port => u16::from_str(port).map(Some),
    };
    let driver = serde_json::from_value(json!(typed.driver));
    let (Ok(port), Ok(driver)) = (port, driver) else {
        let problem =
            form::problem("bad-bmc", "driver or port is none", "correct it, and send the form again");
        return Ok(page(&ui, &node, typed, Some(problem)).await);
    };
    let change = BmcChange {
        driver: Some(driver),
        address: Some(typed.address.clone()),
        port: Some(port),
        user: Some(typed.user.clone()),
        password: Some(fields.get("password")).filter(|p| !p.is_empty()).map(|p| Secret(p.to_owned())),
        ..BmcChange::default()
    };
    if ui.engine.names_a_place(node.id, &change).await
        && let Err(problem) = need_places()
    {
        return Ok(page(&ui, &node, typed, Some(problem)).await);
    }
    match ui.engine.set_bmc(node.id, operator(), change).await {
        Ok(_) => Ok(go(&node::address(&node))),
        Err(error) => Ok(page(&ui, &node, typed, Some(Refusal::from(error).0)).await),
    }
}

pub(super) async fn remove(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let done = ui.engine.remove_bmc(node.id, operator()).await;
    back(&ui, &node, done).await
}

pub(super) async fn trust(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let done = ui.engine.trust_bmc(node.id, operator()).await;
    back(&ui, &node, done).await
}

pub(super) async fn rotate(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let done = ui.engine.rotate_bmc(node.id, operator()).await;
    back(&ui, &node, done).await
}

pub(super) async fn reset(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let note = ("bmc.reset", "the BMC itself is being restarted".to_owned());
    let done = ui.engine.bmc_change(node.id, operator(), Change::ResetBmc, note).await;
    back(&ui, &node, done).await
}

pub(super) async fn identify(
    State(ui): State<Ui>,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let on = Fields(fields).get("on") == "yes";
    let note = ("bmc.identify", format!("identify light {}", if on { "on" } else { "off" }));
    let done = ui.engine.bmc_change(node.id, operator(), Change::Identify(on), note).await;
    back(&ui, &node, done).await
}

/// The controller's page again, with the reason where something was refused.
async fn back<T>(ui: &Ui, node: &Node, done: Result<T, EngineError>) -> Result<Response, Refusal> {
    match done {
        Ok(_) => Ok(go(&format!("{}/bmc", node::address(node)))),
        Err(error) => node::page(ui, node, Some(Refusal::from(error).0)).await,
    }
}

/// What the controller measures now, as a part of its page.
pub(super) async fn readings(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let read = |read| ui.engine.bmc_read(node.id, read);
    let (parts, readings, log) =
        tokio::join!(read(Read::Components), read(Read::Readings), read(Read::Log(None)));
    let mut page =
        ReadingsPage { refusals: Vec::new(), parts: Vec::new(), readings: Vec::new(), lines: Vec::new() };
    for answer in [parts, readings, log] {
        match answer {
            Ok(Reply::Components(parts)) => page.parts = parts.to_vec(),
            Ok(Reply::Readings(readings)) => page.readings = readings.to_vec(),
            Ok(Reply::Log(lines)) => page.lines = lines.iter().rev().take(LINES).cloned().collect(),
            Ok(_) => {}
            Err(error) => note_refusal(&mut page.refusals, &error),
        }
    }
    // The worst first: that is what somebody looks for.
    page.parts.sort_by_key(|part| std::cmp::Reverse(part.health));
    page.readings.sort_by_key(|reading| std::cmp::Reverse(reading.health));
    Ok(render(200, &page))
}

/// A controller that refuses everything for one reason says it once.
pub(super) fn note_refusal(refusals: &mut Vec<String>, error: &EngineError) {
    let problem = error.problem();
    let text = format!("{}. {}", problem.message, problem.hint);
    if !refusals.contains(&text) {
        refusals.push(text);
    }
}

async fn page(ui: &Ui, node: &Node, form: Typed, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let bmc = ui.engine.bmc(node.id);
    let recipe = recipe(node);
    let node = ui.engine.view(node).await;
    render(status, &BmcPage { nav: "servers", node, bmc, form, problem, recipe })
}

fn recipe(node: &Node) -> Recipe {
    let name = shell(&node.name);
    let at = |what: &str| format!("nodes/{}/{what}", node.name);
    let body = json!({ "driver": "redfish", "address": "10.0.0.5", "user": "root", "password": "…" });
    Recipe::default()
        .and(
            &format!(
                "billet bmc set {name} --driver redfish --address 10.0.0.5 --user root --password-file pw"
            ),
            "PUT",
            &at("bmc"),
            Some(&body),
        )
        .and(&format!("billet bmc sensors {name}"), "GET", &at("bmc/sensors"), None)
        .and(&format!("billet node power {name} on"), "POST", &at("power"), Some(&json!({ "action": "on" })))
}
