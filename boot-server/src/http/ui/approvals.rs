//! Approvals: what waits for a second person, and the two buttons for it.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use boot_server_core::approval::{Answer, Approval, Status};
use serde::Deserialize;
use serde_json::json;

use super::form::Fields;
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, render};
use crate::http::approvals::decider;
use crate::http::auth;
use crate::store::approvals::ApprovalFilter;
use crate::view::Problem;

/// Those on one page that are over.
const PAGE: usize = 50;
/// Between two looks at what was approved, and how many; what takes longer is followed by the page itself.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: usize = 30;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    status: String,
}

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage {
    nav: &'static str,
    filter: Filter,
    items: Vec<Row>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "approval.html")]
struct ApprovalPage {
    nav: &'static str,
    row: Row,
    problem: Option<Problem>,
    recipe: Recipe,
}

struct Row {
    it: Approval,
    /// Whoever looks may approve it.
    approves: bool,
    /// Whoever looks may refuse it, or take it back.
    refuses: bool,
    /// Whoever looks asked for it.
    own: bool,
}

impl Row {
    fn of(it: Approval) -> Self {
        let by = decider().ok();
        let waits = it.status == Status::Waiting;
        let own = by.as_ref().is_some_and(|by| by.may_be(&it.asked_by));
        Self { approves: waits && by.is_some() && !own, refuses: waits && by.is_some(), own, it }
    }

    fn tone(&self) -> &'static str {
        match self.it.status {
            Status::Waiting => "tone-ask",
            Status::Approved | Status::Carrying => "tone-work",
            Status::Done => "tone-good",
            Status::Failed | Status::Stale => "tone-bad",
            Status::Refused | Status::Expired => "",
        }
    }

    fn words(&self) -> &'static str {
        words(&self.it.status)
    }

    fn icon(&self) -> &'static str {
        match self.it.status {
            Status::Waiting => "ask",
            Status::Approved | Status::Carrying => "work",
            Status::Done => "good",
            Status::Failed | Status::Stale => "bad",
            Status::Refused | Status::Expired => "info",
        }
    }
}

/// What has become of it, in words.
fn words(status: &Status) -> &'static str {
    match status {
        Status::Waiting => "Waits for a second person",
        Status::Approved => "Approved, about to be done",
        Status::Carrying => "Being done",
        Status::Done => "Done",
        Status::Failed => "Failed",
        Status::Refused => "Refused",
        Status::Expired => "Nobody decided in time",
        Status::Stale => "Not done: the machine changed",
    }
}

pub(super) async fn list(State(ui): State<Ui>, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    auth::need(boot_server_core::access::Role::Reader).map_err(Refusal)?;
    let status = Status::ALL.into_iter().find(|s| s.as_str() == filter.status);
    let wanted = ApprovalFilter { status, limit: PAGE, ..ApprovalFilter::default() };
    let items = ui.engine.approvals(wanted).await?.into_iter().map(Row::of).collect();
    let recipe = Recipe::default().and(
        "billet approval list --status waiting",
        "GET",
        "approvals?status=waiting",
        None,
    );
    Ok(render(200, &ApprovalsPage { nav: "approvals", filter, items, recipe }))
}

pub(super) async fn show(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    auth::need(boot_server_core::access::Role::Reader).map_err(Refusal)?;
    page(&ui, &id, None).await
}

async fn page(ui: &Ui, id: &str, problem: Option<Problem>) -> Result<Response, Refusal> {
    let row = Row::of(ui.engine.approval(id).await?);
    let (at, reason) = (format!("approvals/{id}"), json!({ "reason": "the rack is drained" }));
    let verb = |verb: &str| format!("billet approval {verb} {id} --reason 'the rack is drained'");
    let recipe = Recipe::default()
        .and(&verb("approve"), "POST", &format!("{at}/approve"), Some(&reason))
        .and(&verb("refuse"), "POST", &format!("{at}/refuse"), Some(&reason));
    let status = problem.as_ref().map_or(200, |p| p.status);
    Ok(render(status, &ApprovalPage { nav: "approvals", row, problem, recipe }))
}

pub(super) async fn approve(
    ui: State<Ui>,
    id: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    decide(ui, id, form, Answer::Approve).await
}

pub(super) async fn refuse(
    ui: State<Ui>,
    id: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    decide(ui, id, form, Answer::Refuse).await
}

/// Waits a little for what was approved to be done, so that the page which comes next says what came of it.
async fn settled(ui: &Ui, id: &str) {
    for _ in 0..LOOKS {
        if ui.engine.approval(id).await.is_ok_and(|it| it.status.is_over()) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn decide(
    State(ui): State<Ui>,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
    answer: Answer,
) -> Result<Response, Refusal> {
    let by = decider().map_err(Refusal)?;
    match ui.engine.decide(&id, answer, by, Fields(fields).trimmed("reason")).await {
        Ok(it) => {
            settled(&ui, &id).await;
            Ok(go(&format!("/approvals/{}", it.id)))
        }
        Err(error) => {
            let problem = Refusal::from(error).0;
            page(&ui, &id, Some(problem)).await
        }
    }
}
