//! Machines that are expected and never came; and the form by which one machine takes the part of another.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::arrivals::{self, Arrival};
use boot_server_core::node::{Node, StateName};
use serde_json::json;

use super::form::Fields;
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, operator, render};
use crate::engine::{EngineError, Replacing};
use crate::view::{Problem, ReplaceView};

#[derive(Template)]
#[template(path = "machines.html")]
struct MachinesPage {
    nav: &'static str,
    machines: Vec<Arrival>,
    text: String,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// What a list begins with.
const EXAMPLE: &str = "name,mac,serial,model,pool,rack,unit,purchased,warranty_end\n";

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    page(&ui, EXAMPLE.to_owned(), None).await
}

async fn page(ui: &Ui, text: String, problem: Option<Problem>) -> Result<Response, Refusal> {
    let machines = ui.engine.expected_machines().await?;
    let example = json!({ "machines": [{ "name": "web-1", "serial": "5CG123" }] });
    let recipe = Recipe::default().and("billet machine list", "GET", "expected-machines", None).and(
        "billet machine import machines.csv",
        "POST",
        "expected-machines",
        Some(&example),
    );
    let status = problem.as_ref().map_or(200, |p| p.status);
    Ok(render(status, &MachinesPage { nav: "machines", machines, text, problem, recipe }))
}

pub(super) async fn import(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let text = Fields(fields).text("list");
    let done = match arrivals::read_csv(&text) {
        Ok(list) => ui.engine.import_machines(&operator(), list, false).await.map(drop),
        Err(wrong) => Err(EngineError::BadList(wrong)),
    };
    match done {
        Ok(()) => Ok(go("/machines")),
        Err(error) => page(&ui, text, Some(Refusal::from(error).0)).await,
    }
}

pub(super) async fn remove(State(ui): State<Ui>, Path(name): Path<String>) -> Result<Response, Refusal> {
    ui.engine.forget_expected(operator(), &name).await?;
    Ok(go("/machines"))
}

#[derive(Template)]
#[template(path = "replace.html")]
struct ReplacePage {
    nav: &'static str,
    node: Node,
    /// Machines that could take its part.
    candidates: Vec<String>,
    with: String,
    take_place: bool,
    plan: Option<ReplaceView>,
    problem: Option<Problem>,
    recipe: Recipe,
}

struct Asked {
    with: String,
    take_place: bool,
    plan: Option<ReplaceView>,
}

async fn replace_page(
    ui: &Ui,
    node: Node,
    asked: Asked,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let all = ui.engine.nodes().await?;
    let free = |other: &&Arc<Node>| {
        other.id != node.id && other.state.name() == StateName::Available && other.kept_out().is_none()
    };
    let candidates = all.iter().filter(free).map(|other| other.name.clone()).collect();
    let Asked { with, take_place, plan } = asked;
    let other = if with.is_empty() { "spare-1" } else { &with };
    let body = json!({ "with": other, "take_place": take_place, "confirm": node.name });
    let flag = if take_place { " --take-place" } else { "" };
    let recipe = Recipe::default().and(
        &format!("billet node replace {} --with {}{flag}", f::shell(&node.name), f::shell(other)),
        "POST",
        &format!("nodes/{}/replace", node.name),
        Some(&body),
    );
    let status = problem.as_ref().map_or(200, |p| p.status);
    Ok(render(
        status,
        &ReplacePage { nav: "servers", node, candidates, with, take_place, plan, problem, recipe },
    ))
}

pub(super) async fn replace_form(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let take_place = node.place.is_some();
    replace_page(&ui, node, Asked { with: String::new(), take_place, plan: None }, None).await
}

/// First a plan is shown; with the name typed it is carried out.
pub(super) async fn replace(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (old, fields) = (ui.engine.node(&reference).await?, Fields(fields));
    let (with, take_place) = (fields.get("with").to_owned(), fields.get("take_place") == "yes");
    let confirmed = fields.trimmed("confirm");
    let dry_run = confirmed.as_deref() != Some(old.name.as_str());
    let how = Replacing { take_place, allow_smaller: false, dry_run };
    let done = match ui.engine.node(&with).await {
        Ok(new) => ui.engine.replace(&old, &new, operator(), how).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(_) if !dry_run => Ok(go(&format!("/nodes/{}", crate::http::encode(&old.name)))),
        Ok(plan) => {
            let problem = confirmed.map(|typed| super::form::not_confirmed(&typed, &old.name));
            replace_page(&ui, old, Asked { with, take_place, plan: Some(plan) }, problem).await
        }
        Err(error) => {
            replace_page(&ui, old, Asked { with, take_place, plan: None }, Some(Refusal::from(error).0)).await
        }
    }
}
