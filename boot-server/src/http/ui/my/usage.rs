//! What a project may have, what it has, and what it used.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use boot_server_core::amounts::Resource;
use boot_server_core::usage::Report;
use protocol::Timestamp;
use serde::Deserialize;

use super::super::format as f;
use super::super::recipe::Recipe;
use super::{Frame, Refusal, Ui, Within, render};
use crate::engine::now;
use crate::http::api::server_requests::period;
use crate::view::Problem;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Periods that can be chosen, in days.
const SPANS: [u64; 3] = [7, 30, 365];

/// What the address asks for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    days: Option<u64>,
}

#[derive(Template)]
#[template(path = "my/usage.html")]
struct UsagePage {
    frame: Frame,
    rows: Vec<Row>,
    report: Report,
    days: u64,
    /// Where the same can be had as a file.
    export: String,
    recipe: Recipe,
}

/// One kind of thing that is counted.
struct Row {
    name: String,
    used: u64,
    limit: Option<u64>,
}

pub(super) async fn show(
    State(ui): State<Ui>,
    Within(within): Within,
    Query(Asked { days }): Query<Asked>,
) -> Result<Response, Refusal> {
    let days = days.filter(|days| SPANS.contains(days)).unwrap_or(30);
    let to: Timestamp = now();
    let from = to.0.saturating_sub(days * DAY);
    let asked = period(Some(from), Some(to.0), to).map_err(|message| {
        Refusal(Problem { status: 400, code: "query".to_owned(), message, hint: String::new() })
    })?;
    let quota = ui.engine.quota(within.project.id).await?;
    let report = ui.engine.usage(Some(within.project.id), asked).await?;
    // Volumes and networks stand here once there are any, or a limit for them.
    let shown =
        |row: &Row| row.used > 0 || row.limit.is_some() || ["servers", "cores"].contains(&row.name.as_str());
    let row = |resource: Resource| Row {
        name: resource.to_string(),
        used: quota.used.of(resource),
        limit: quota.limits.of(resource),
    };
    let rows = Resource::ALL.map(row).into_iter().filter(shown).collect();
    let name = &within.project.name;
    let export = format!("/api/v1/projects/{}/usage?from={from}&to={}", within.project.id, to.0);
    let recipe = Recipe::default()
        .and(
            &format!("billet quota show --project {}", f::shell(name)),
            "GET",
            &format!("projects/{name}/quota"),
            None,
        )
        .and(
            &format!("billet usage show --project {}", f::shell(name)),
            "GET",
            &format!("projects/{name}/usage?from={from}&to={}", to.0),
            None,
        );
    let frame = Frame::of(&ui, &within, "usage");
    Ok(render(200, &UsagePage { frame, rows, report, days, export, recipe }))
}
