//! What is wrong with machines, for whoever goes there with a spare part: what controllers say, and what users report.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::bmc::health::Level;
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, render};
use crate::engine::servers::FaultFilter;
use crate::http::auth;
use crate::view::servers::FaultReportView;
use crate::view::{FaultReport, Problem};

#[derive(Template)]
#[template(path = "faults.html")]
struct FaultsPage {
    nav: &'static str,
    reports: Vec<FaultReport>,
    /// What users say, and nobody has answered.
    reported: Vec<FaultReportView>,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    page(&ui, None).await
}

/// Closes a user's report with what came of it.
pub(super) async fn close(
    State(ui): State<Ui>,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let answer = Fields(fields).trimmed("answer").unwrap_or_default();
    let closed = match id.parse() {
        Ok(id) => ui.engine.close_fault(id, auth::actor(), &answer).await.map_err(|error| error.problem()),
        Err(_) => Err(form::problem("fault", "no report has this id", "look at the list again")),
    };
    match closed {
        Ok(_) => Ok(go("/faults")),
        Err(problem) => page(&ui, Some(problem)).await,
    }
}

async fn page(ui: &Ui, problem: Option<Problem>) -> Result<Response, Refusal> {
    let mut reported = Vec::new();
    for fault in ui.engine.fault_reports(FaultFilter { project: None, open: true }).await? {
        let node = ui.engine.node(&fault.node.to_string()).await;
        let name = node.map_or_else(|_| fault.node.to_string(), |node| node.name);
        reported.push(FaultReportView::of(fault, Some(name)));
    }
    let mut recipe = Recipe::default().and("billet node faults", "GET", "faults", None).and(
        "billet fault list",
        "GET",
        "fault-reports",
        None,
    );
    if let Some(first) = reported.first() {
        let body = json!({ "answer": "disk replaced" });
        let path = format!("fault-reports/{}/close", first.id);
        recipe = recipe.and(
            &format!("billet fault close {} 'disk replaced'", first.id),
            "POST",
            &path,
            Some(&body),
        );
    }
    let status = problem.as_ref().map_or(200, |problem| problem.status);
    let reports = ui.engine.all_faults().await;
    Ok(render(status, &FaultsPage { nav: "faults", reports, reported, problem, recipe }))
}

/// Tone and icon of a level.
fn look(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Critical => ("bad", "bad"),
        Level::Warning => ("ask", "warning"),
        Level::Ok => ("good", "check"),
    }
}
