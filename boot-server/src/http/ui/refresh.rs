//! When machines grow old; and what is said of one machine's way out: retirement, adoption, papers.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::node::Event;
use boot_server_core::node::event::Verb;
use boot_server_core::refresh::{Papers, RefreshPlan, RefreshRow};

use super::form::{self, Fields};
use super::recipe::Recipe;
use super::{Refusal, Ui, models, node, operator, render};

/// Quarters on the page: two years.
const QUARTERS: u32 = 8;

#[derive(Template)]
#[template(path = "refresh.html")]
struct RefreshPage {
    nav: &'static str,
    plan: RefreshPlan,
    recipe: Recipe,
}

impl RefreshPage {
    /// All lines with their quarter; what is past is due now.
    fn lines(&self) -> Vec<(String, &RefreshRow)> {
        let past = self.plan.past.iter().map(|row| ("now".to_owned(), row));
        let ahead = self.plan.quarters.iter().flat_map(|q| q.rows.iter().map(|row| (q.quarter.clone(), row)));
        past.chain(ahead).collect()
    }
}

pub(super) async fn show(State(ui): State<Ui>) -> Result<Response, Refusal> {
    let plan = ui.engine.refresh_plan(QUARTERS).await?;
    let recipe = Recipe::default().and("billet node refresh-plan", "GET", "refresh-plan", None).and(
        "billet node papers node-1 --purchased 2026-11-27 --warranty-end 2029-11-26",
        "PUT",
        "nodes/node-1/papers",
        Some(&serde_json::json!({ "purchased": "2026-11-27", "warranty_end": "2029-11-26" })),
    );
    Ok(render(200, &RefreshPage { nav: "refresh", plan, recipe }))
}

async fn act(ui: &Ui, reference: &str, verb: Verb) -> Result<Response, Refusal> {
    let found = ui.engine.node(reference).await?;
    let done = ui.engine.apply(found.id, operator(), Event::Verb(verb)).await;
    models::back(ui, reference, done).await
}

pub(super) async fn adopt(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    act(&ui, &reference, Verb::Adopt).await
}

pub(super) async fn retire(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let reason = Fields(fields).trimmed("reason").map(|reason| reason.chars().take(200).collect());
    act(&ui, &reference, Verb::Retire { reason, by: operator().name().to_owned() }).await
}

/// Vouches for the boot whose number the page showed.
pub(super) async fn approve_boot(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    // A number that is none names no boot, and is refused.
    let boot = Fields(fields).get("boot").parse().unwrap_or(u64::MAX);
    act(&ui, &reference, Verb::ApproveBoot { boot, by: operator().name().to_owned() }).await
}

/// Pins the TPM whose fingerprint the page showed.
pub(super) async fn pin_tpm(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let Ok(ek) = Fields(fields).get("ek").parse() else {
        let node = ui.engine.node(&reference).await?;
        let problem =
            form::problem("tpm", "this is no fingerprint of a TPM".to_owned(), "load the page again");
        return node::page(&ui, &node, Some(problem)).await;
    };
    act(&ui, &reference, Verb::PinTpm { ek: Some(ek), by: operator().name().to_owned() }).await
}

pub(super) async fn papers(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let day = |name| fields.trimmed(name).map(|text| text.parse()).transpose();
    match (day("purchased"), day("warranty_end")) {
        (Ok(purchased), Ok(warranty_end)) => {
            act(&ui, &reference, Verb::Papers { papers: Papers { purchased, warranty_end } }).await
        }
        (Err(error), _) | (_, Err(error)) => {
            let node = ui.engine.node(&reference).await?;
            let problem = form::problem("date", error.to_string(), "correct the day");
            node::page(&ui, &node, Some(problem)).await
        }
    }
}
