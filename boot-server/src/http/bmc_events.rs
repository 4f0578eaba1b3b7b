//! Where management controllers send their events (Redfish, DSP0266, section "Eventing mechanism").

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use protocol::{NodeId, Sha256};

use super::{Peer, ProblemResponse, body, problem};
use crate::engine::{BMC_EVENTS, Engine};

/// Octets of one event; real ones have a few kilobytes.
const EVENT_MAX: usize = 64 << 10;

pub(super) fn router(engine: Engine) -> Router {
    Router::new().route(&format!("{BMC_EVENTS}/{{node}}/{{name}}"), post(event)).with_state(engine)
}

/// The body is read, because a sender that is cut off sends again, and not looked at.
async fn event(
    State(engine): State<Engine>,
    Extension(Peer(peer)): Extension<Peer>,
    Path((node, name)): Path<(String, String)>,
    sent: Body,
) -> Response {
    let known = match (node.parse::<NodeId>(), name.parse::<Sha256>()) {
        (Ok(node), Ok(name)) => engine.bmc_event(node, &name, peer.ip()).await,
        _ => false,
    };
    // Whoever is not known learns nothing, and nothing of what it sends is read.
    if !known {
        return problem::not_found().await.into_response();
    }
    match body(sent, EVENT_MAX).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => ProblemResponse::from(problem).into_response(),
    }
}
