//! The DPUs' side of the provisioning listener (see `protocol::dial` for the table of requests).

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Extension, Json, Router};
use protocol::dial::{HELLO_MAX, Hello, Orders, Report, Welcome};
use protocol::dpu::STATE_MAX;

use super::agent::{Patience, bearer};
use super::limits::body;
use super::{Peer, ProblemResponse};
use crate::engine::Engine;

type Answer<T> = Result<T, ProblemResponse>;

pub(super) fn router(engine: Engine) -> Router {
    Router::new().route("/dpu/v1/hello", post(hello)).route("/dpu/v1/state", post(state)).with_state(engine)
}

async fn hello(
    State(engine): State<Engine>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Body,
) -> Answer<Json<Welcome>> {
    let hello: Hello = read(request, HELLO_MAX).await?;
    Ok(Json(engine.dpu_hello(hello, peer.ip()).await?))
}

async fn state(
    State(engine): State<Engine>,
    headers: HeaderMap,
    Query(patience): Query<Patience>,
    request: Body,
) -> Answer<Json<Orders>> {
    let secret = bearer(&headers)?;
    // Before the body, which may be large.
    engine.check_dpu(secret)?;
    let report: Report = read(request, STATE_MAX).await?;
    Ok(Json(engine.dpu_state(secret, report, patience.bounded()).await?))
}

async fn read<T: serde::de::DeserializeOwned>(request: Body, max: usize) -> Answer<T> {
    serde_json::from_slice(&body(request, max).await?).map_err(|error| {
        let hint = "use billet-dpu of the server's version";
        ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, "json", error.to_string(), hint)
    })
}
