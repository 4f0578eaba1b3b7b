//! The page of a server's firmware and settings: versions, BIOS against a baseline, Secure Boot, and the form that applies
//! one. What the controller shows is asked for behind the page, so that one that hangs holds up no page.

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use bmc::FirmwareItem;
use boot_server_core::node::{ItemStatus, Node};
use boot_server_core::servicing::{Baseline, Difference, RestartPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::Fields;
use super::format::{self as f, shell};
use super::power::note_refusal;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::power::{Read, Reply};
use crate::view::{BaselineDiff, NodeView, Problem, ServiceView};

#[derive(Template)]
#[template(path = "firmware.html")]
struct FirmwarePage {
    nav: &'static str,
    node: NodeView,
    baselines: Vec<Baseline>,
    chosen: String,
    diff: Option<BaselineDiff>,
    lines: Vec<Line>,
    runs_os: bool,
    busy: bool,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A line of the comparison.
struct Line {
    name: String,
    now: String,
    wanted: String,
    same: bool,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "versions.html")]
struct VersionsPage {
    refusals: Vec<String>,
    firmware: Vec<FirmwareItem>,
    secure_boot: Option<&'static str>,
    attributes: Vec<(String, String)>,
}

/// Which baseline the page compares with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chosen {
    #[serde(default)]
    baseline: String,
}

/// The steps of a job, each with how far it is.
pub(super) fn steps(service: &ServiceView) -> Vec<(String, &'static str)> {
    service.steps.iter().map(|step| (step.words.clone(), word(step.status, step.now))).collect()
}

fn word(status: ItemStatus, now: bool) -> &'static str {
    match status {
        ItemStatus::Waiting if now => "now",
        ItemStatus::Waiting => "waits",
        ItemStatus::Staged => "after a restart",
        ItemStatus::Done => "done",
        ItemStatus::Same => "was so",
        ItemStatus::Untold => "taken",
    }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) async fn show(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Query(Chosen { baseline }): Query<Chosen>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    page(&ui, &node, baseline, None).await
}

pub(super) async fn apply(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let fields = Fields(fields);
    let name = fields.trimmed("baseline").unwrap_or_default();
    let restart = if fields.get("restart") == "yes" { RestartPolicy::Allowed } else { RestartPolicy::Never };
    let how = (fields.get("firmware") == "yes", restart);
    match ui.engine.apply_baseline(&node, operator(), &name, how).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => page(&ui, &node, name, Some(Refusal::from(error).0)).await,
    }
}

/// What the controller shows now, as a part of the page.
pub(super) async fn versions(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let node = ui.engine.node(&id).await?;
    let read = |read| ui.engine.bmc_read(node.id, read);
    let answers = [read(Read::Firmware).await, read(Read::SecureBoot).await, read(Read::Bios).await];
    let mut page = VersionsPage {
        refusals: Vec::new(),
        firmware: Vec::new(),
        secure_boot: None,
        attributes: Vec::new(),
    };
    for answer in answers {
        match answer {
            Ok(Reply::Firmware(items)) => page.firmware = items.to_vec(),
            Ok(Reply::SecureBoot(found)) => {
                page.secure_boot = Some(match (found.current, found.enabled) {
                    (true, true) => "on",
                    (false, false) => "off",
                    (false, true) => "off, on after the next restart",
                    (true, false) => "on, off after the next restart",
                });
            }
            Ok(Reply::Bios(attributes)) => {
                page.attributes =
                    attributes.0.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
            }
            Ok(_) => {}
            Err(error) => note_refusal(&mut page.refusals, &error),
        }
    }
    Ok(render(200, &page))
}

async fn page(ui: &Ui, node: &Node, chosen: String, problem: Option<Problem>) -> Result<Response, Refusal> {
    let (mut problem, mut diff) = (problem, None);
    if !chosen.is_empty() {
        match ui.engine.compare(node, &chosen).await {
            Ok(found) => diff = Some(found),
            Err(error) => problem = problem.or(Some(Refusal::from(error).0)),
        }
    }
    let line = |line: &Difference| Line {
        name: line.name.clone(),
        now: line.now.as_ref().map_or_else(|| "–".to_owned(), plain),
        wanted: plain(&line.wanted),
        same: line.same,
        problem: line.problem.clone(),
    };
    let lines = diff.iter().flat_map(|diff| &diff.differences).map(line).collect();
    let status = problem.as_ref().map_or(200, |p| p.status);
    let page = FirmwarePage {
        nav: "servers",
        baselines: ui.engine.baselines().await?,
        recipe: recipe(node, &chosen),
        chosen,
        diff,
        lines,
        runs_os: matches!(node.state, boot_server_core::node::State::Active),
        busy: node.state.is_busy(),
        node: ui.engine.view(node).await,
        problem,
    };
    Ok(render(status, &page))
}

fn recipe(node: &Node, chosen: &str) -> Recipe {
    let (name, baseline) = (shell(&node.name), if chosen.is_empty() { "NAME" } else { chosen });
    let at = |what: &str| format!("nodes/{}/{what}", node.name);
    let body = json!({ "firmware": true, "restart": "allowed" });
    Recipe::default()
        .and(&format!("billet node firmware {name}"), "GET", &at("bmc/firmware"), None)
        .and(&format!("billet node bios {name}"), "GET", &at("bios"), None)
        .and(
            &format!("billet baseline diff {} {name}", shell(baseline)),
            "GET",
            &at(&format!("baselines/{baseline}")),
            None,
        )
        .and(
            &format!("billet baseline apply {} {name} --restart", shell(baseline)),
            "POST",
            &at(&format!("baselines/{baseline}/apply")),
            Some(&body),
        )
}
