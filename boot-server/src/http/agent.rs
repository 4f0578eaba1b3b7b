//! The agent's side of the provisioning listener (see `protocol::agent` for the table of requests).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use protocol::agent::{Hello, ReportReply, Welcome, Work};
use protocol::inventory::Inventory;
use protocol::limits::{INVENTORY_BODY_MAX, JSON_BODY_MAX, NICS_MAX, REPORTED_STRING_MAX, REPORTS_MAX};
use protocol::report::{ReportBatch, ReportBody};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ProblemResponse;
use super::limits::{WAIT_MAX, body};
use crate::engine::{Engine, EngineError};
use crate::view::Problem;

mod bounds;

/// Largest hello, in octets; it comes before any proof, so it is kept small: 64 addresses and three short texts.
const HELLO_BODY_MAX: usize = 32 << 10;

type Answer<T> = Result<T, ProblemResponse>;

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/inventory", put(inventory))
        .route("/agent/v1/work", get(work))
        .route("/agent/v1/report", post(report))
        .with_state(engine)
}

async fn hello(State(engine): State<Engine>, request: Body) -> Answer<Json<Welcome>> {
    let mut hello: Hello = json(request, HELLO_BODY_MAX).await?;
    hello.macs.truncate(NICS_MAX);
    bounds::cut(&mut hello.agent_version);
    bounds::cut(&mut hello.kernel);
    hello.serial.as_mut().map(bounds::cut);
    Ok(Json(engine.hello(hello).await?))
}

async fn inventory(State(engine): State<Engine>, headers: HeaderMap, request: Body) -> Answer<StatusCode> {
    let token = bearer(&headers)?;
    // Before the body, which may be large.
    let node = engine.session(token)?.id;
    let mut inventory: Inventory = json(request, INVENTORY_BODY_MAX).await?;
    if let Some(what) = bounds::limit(&mut inventory) {
        engine.note_cut(node, &what).await;
    }
    engine.put_inventory(token, inventory).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct Patience {
    #[serde(default)]
    wait: u64,
}

async fn work(
    State(engine): State<Engine>,
    headers: HeaderMap,
    Query(patience): Query<Patience>,
) -> Answer<Json<Work>> {
    let wait = Duration::from_secs(patience.wait).min(WAIT_MAX);
    Ok(Json(engine.next_work(bearer(&headers)?, wait).await?))
}

async fn report(
    State(engine): State<Engine>,
    headers: HeaderMap,
    request: Body,
) -> Answer<Json<ReportReply>> {
    let token = bearer(&headers)?;
    engine.session(token)?;
    let mut batch: ReportBatch = json(request, JSON_BODY_MAX).await?;
    if batch.reports.len() > REPORTS_MAX {
        let message = format!("more than {REPORTS_MAX} reports in one batch");
        return Err(unprocessable("too-many-reports", message, "send several batches"));
    }
    if !batch.reports.windows(2).all(|pair| pair[0].seq < pair[1].seq) {
        let message = "the reports are not in order of their sequence numbers";
        return Err(unprocessable("report-order", message, "send them in order"));
    }
    for report in &mut batch.reports {
        match &mut report.body {
            ReportBody::Note { message } => bounds::cut(message),
            ReportBody::Failed { fault } => {
                bounds::cut(&mut fault.message);
                bounds::cut(&mut fault.hint);
            }
            ReportBody::Stage { .. } | ReportBody::Progress(_) | ReportBody::Finished { .. } => {}
        }
    }
    Ok(Json(engine.report(token, batch).await?))
}

fn unprocessable(code: &str, message: impl Into<String>, hint: &str) -> ProblemResponse {
    ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, hint)
}

/// The session token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, EngineError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(EngineError::NoSession) }
}

/// A JSON body. Unknown fields are let through: the agent may be newer.
async fn json<T: DeserializeOwned>(request: Body, max: usize) -> Result<T, Problem> {
    let bytes = body(request, max).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem {
        status: StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
        code: "json".to_owned(),
        message: format!("the body is not what it should be: {error}")
            .chars()
            .take(REPORTED_STRING_MAX)
            .collect(),
        hint: "use an agent of the server's version".to_owned(),
    })
}
