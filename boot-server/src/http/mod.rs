//! The HTTP listeners, which share nothing: machines come in at the provisioning listener (with and without TLS), people
//! and programs at the operators'. What each needs (limits, time-outs, a clean stop) is in `listen`; the routes are in
//! the modules.

mod agent;
pub mod api;
mod approvals;
pub(crate) mod audit;
pub mod auth;
mod bmc_events;
mod boot;
mod boot_image;
mod conditions;
mod dpu;
mod encode;
pub(crate) mod files;
mod handoff;
mod image;
mod limits;
mod listen;
mod metadata;
mod metrics;
mod oidc;
mod orders;
mod phone_home;
mod problem;
mod send;
pub mod ui;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio_util::sync::CancellationToken;

pub use encode::encode;
pub use files::BootFiles;
pub use limits::{HEADER_TIMEOUT, body};
pub(crate) use listen::Peers;
pub use listen::{Listener, run};
pub(crate) use metrics::metrics_text;
pub use problem::ProblemResponse;

use crate::console::Consoles;
use crate::engine::Engine;
use crate::ingest::Ingests;

/// Who asks; in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Where the request came in, as a base URL without a trailing slash, such as `http://10.77.0.1:8080`; in the extensions
/// of every request. A machine that reached us there reaches us there again, whatever other addresses we have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(pub String);

/// Everything that machines can reach.
pub fn provisioning(engine: Engine, files: Arc<BootFiles>) -> Router {
    let enabled = engine.settings().metadata.enabled;
    let metadata = if enabled { metadata::router(engine.clone()) } else { Router::new() };
    Router::new()
        .merge(metadata)
        .merge(boot::router(engine.clone(), files.clone()))
        .merge(boot_image::router(engine.clone(), files))
        .merge(agent::router(engine.clone()))
        .merge(dpu::router(engine.clone()))
        .merge(orders::router(engine.clone()))
        .merge(image::router(engine.clone()))
        .merge(bmc_events::router(engine.clone()))
        .merge(phone_home::router(engine))
        .fallback(problem::not_found)
        .layer(middleware::from_fn(common_headers))
}

/// What installed OSes ask for, alone: for the well-known address of clouds.
pub fn metadata(engine: Engine) -> Router {
    metadata::router(engine).fallback(problem::not_found).layer(middleware::from_fn(common_headers))
}

/// Everything that people and programs can reach.
pub fn operators(
    engine: Engine,
    files: Arc<BootFiles>,
    ingests: Ingests,
    consoles: Consoles,
    known: Arc<auth::Operators>,
    stop: CancellationToken,
) -> Router {
    let parts = api::Parts { engine: engine.clone(), ingests, consoles };
    let api = api::Api::new(parts.clone(), files, known.clone(), stop.clone());
    let routes = Router::new()
        .merge(api::router(api))
        .merge(metrics::router(engine.clone()))
        .merge(ui::router(parts, known.clone(), stop.clone()))
        .merge(auth::routes(known.clone(), engine.clone()))
        .merge(oidc::routes(known.clone(), engine.clone()))
        .fallback(problem::not_found)
        .layer(middleware::from_fn_with_state(engine.clone(), audit::record));
    let (carrying, carry) = (engine.clone(), approvals::carry(routes.clone(), known.clone()));
    tokio::spawn(async move { carrying.run_approvals(carry, stop).await });
    routes
        // Over everything: a route that nobody thought of needs the token too.
        .layer(middleware::from_fn_with_state(known, auth::require))
        .layer(middleware::from_fn_with_state(engine, audit::refusals))
        .layer(middleware::from_fn(common_headers))
}

async fn common_headers(request: Request, next: Next) -> Response {
    let changes = *request.method() != Method::GET;
    let mut response = next.run(request).await;
    if changes {
        failpoint::pass(failpoint::Point::AnswerBefore);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests;
