//! The agent's side of the provisioning listener (see `protocol::agent` for the table of requests).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use boot_server_core::agent_body::{self, BodyError};
use boot_server_core::node::Claim;
use protocol::agent::{AccountOrder, Introduction, ReportReply, Welcome, Work};
use protocol::limits::{INVENTORY_BODY_MAX, JSON_BODY_MAX};
use protocol::tpm::TpmChallenge;
use serde::Deserialize;

use super::limits::{WAIT_MAX, body};
use super::{Peer, ProblemResponse};
use crate::engine::{BootAnswer, Engine, EngineError};

/// Largest hello, in octets; it comes before any proof, so it is kept small: 64 addresses and three short texts.
const HELLO_BODY_MAX: usize = 32 << 10;

type Answer<T> = Result<T, ProblemResponse>;

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/agent/v1/introduction", post(introduction))
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/inventory", put(inventory))
        .route("/agent/v1/bmc-account", post(account_order).put(account_report))
        .route("/agent/v1/tpm", post(tpm_keys).put(tpm_proof))
        .route("/agent/v1/work", get(work))
        .route("/agent/v1/report", post(report))
        .with_state(engine)
}

async fn introduction(
    State(engine): State<Engine>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Body,
) -> Answer<Json<Introduction>> {
    let hello = read(agent_body::hello, request, HELLO_BODY_MAX).await?;
    let claim = Claim { uuid: hello.uuid, serial: hello.serial, macs: hello.macs };
    Ok(Json(match engine.boot(claim, peer.ip()).await? {
        BootAnswer::Agent { nonce, .. } => Introduction::Nonce { nonce },
        BootAnswer::LocalDisk { .. } => Introduction::Disk,
        // An order is for iPXE; the machine asks again until it is cleared.
        BootAnswer::Ordered { name, .. } => {
            let why = format!("what was ordered for {name} can be booted by iPXE only, not with Secure Boot");
            Introduction::Refused { why }
        }
        BootAnswer::Refuse { why } => Introduction::Refused { why },
    }))
}

async fn hello(State(engine): State<Engine>, request: Body) -> Answer<Json<Welcome>> {
    let hello = read(agent_body::hello, request, HELLO_BODY_MAX).await?;
    Ok(Json(engine.hello(hello).await?))
}

async fn inventory(State(engine): State<Engine>, headers: HeaderMap, request: Body) -> Answer<StatusCode> {
    let token = bearer(&headers)?;
    // Before the body, which may be large.
    let node = engine.session(token)?.id;
    let (inventory, lost) = read(agent_body::inventory, request, INVENTORY_BODY_MAX).await?;
    if let Some(what) = lost {
        engine.note_cut(node, &what).await;
    }
    engine.put_inventory(token, inventory).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn account_order(State(engine): State<Engine>, headers: HeaderMap) -> Answer<Json<AccountOrder>> {
    Ok(Json(engine.account_order(bearer(&headers)?).await?))
}

async fn account_report(
    State(engine): State<Engine>,
    headers: HeaderMap,
    request: Body,
) -> Answer<StatusCode> {
    let token = bearer(&headers)?;
    engine.session(token)?;
    let report = read(agent_body::account, request, JSON_BODY_MAX).await?;
    engine.account_report(token, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tpm_keys(
    State(engine): State<Engine>,
    headers: HeaderMap,
    request: Body,
) -> Answer<Json<TpmChallenge>> {
    let token = bearer(&headers)?;
    engine.session(token)?;
    let keys = read(agent_body::tpm_keys, request, HELLO_BODY_MAX).await?;
    Ok(Json(engine.challenge(token, keys).await?))
}

async fn tpm_proof(State(engine): State<Engine>, headers: HeaderMap, request: Body) -> Answer<StatusCode> {
    let token = bearer(&headers)?;
    engine.session(token)?;
    let proof = read(agent_body::tpm_proof, request, JSON_BODY_MAX).await?;
    engine.prove(token, proof).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How long whoever asks would wait, in seconds.
#[derive(Debug, Deserialize)]
pub(super) struct Patience {
    #[serde(default)]
    wait: u64,
}

impl Patience {
    /// No longer than we do.
    pub(super) fn bounded(&self) -> Duration {
        Duration::from_secs(self.wait).min(WAIT_MAX)
    }
}

async fn work(
    State(engine): State<Engine>,
    headers: HeaderMap,
    Query(patience): Query<Patience>,
) -> Answer<Json<Work>> {
    Ok(Json(engine.next_work(bearer(&headers)?, patience.bounded()).await?))
}

async fn report(
    State(engine): State<Engine>,
    headers: HeaderMap,
    request: Body,
) -> Answer<Json<ReportReply>> {
    let token = bearer(&headers)?;
    engine.session(token)?;
    let batch = read(agent_body::reports, request, JSON_BODY_MAX).await?;
    let reply = engine.report(token, batch).await?;
    failpoint::pass(failpoint::Point::ReportStored);
    Ok(Json(reply))
}

/// The session token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, EngineError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(EngineError::NoSession) }
}

/// A body of at most `max` octets, read by one of [`agent_body`]'s functions.
async fn read<T>(
    parse: impl FnOnce(&[u8]) -> Result<T, BodyError>,
    request: Body,
    max: usize,
) -> Result<T, ProblemResponse> {
    parse(&body(request, max).await?).map_err(|error| {
        let (code, hint) = match error {
            BodyError::Json(_) => ("json", "use an agent of the server's version"),
            BodyError::TooManyReports => ("too-many-reports", "send several batches"),
            BodyError::ReportOrder => ("report-order", "send them in order"),
            BodyError::TooLong => ("too-long", "use an agent of the server's version"),
        };
        ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string(), hint)
    })
}
