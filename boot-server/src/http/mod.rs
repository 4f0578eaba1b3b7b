//! The two HTTP listeners, which share nothing: machines come in at the provisioning listener, people and programs at
//! the operators'. What both need (limits, time-outs, a clean stop) is here; the routes are in the modules.

mod agent;
pub mod api;
pub mod auth;
mod boot;
mod encode;
mod files;
mod image;
mod limits;
mod phone_home;
mod problem;
pub mod ui;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use boot::check_kernel_arguments;
pub use encode::encode;
pub use files::BootFiles;
pub use limits::{HEADER_TIMEOUT, body};
pub use problem::ProblemResponse;

use crate::engine::Engine;
use crate::ingest::Ingests;

/// Who asks; in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Where the request came in, as a base URL without a trailing slash, such as `http://10.77.0.1:8080`; in the extensions
/// of every request. A machine that reached us there reaches us there again, whatever other addresses we have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(pub String);

/// How long open requests may go on after a stop was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// Everything that machines can reach.
pub fn provisioning(engine: Engine, files: Arc<BootFiles>) -> Router {
    Router::new()
        .merge(boot::router(engine.clone(), files))
        .merge(agent::router(engine.clone()))
        .merge(image::router(engine.clone()))
        .merge(phone_home::router(engine))
        .fallback(problem::not_found)
        .layer(middleware::from_fn(common_headers))
}

/// Everything that people and programs can reach.
pub fn operators(
    engine: Engine,
    files: Arc<BootFiles>,
    ingests: Ingests,
    known: Arc<auth::Operators>,
    stop: CancellationToken,
) -> Router {
    let api = api::Api::new(engine.clone(), ingests.clone(), files, stop.clone());
    Router::new()
        .merge(api::router(api))
        .merge(ui::router(engine, ingests, stop))
        .merge(auth::routes(known.clone()))
        .fallback(problem::not_found)
        // Over everything: a route that nobody thought of needs the token too.
        .layer(middleware::from_fn_with_state(known, auth::require))
        .layer(middleware::from_fn(common_headers))
}

async fn common_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Serves `router` until `stop`, then lets open requests end.
pub async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    loop {
        // Room first: beyond the cap clients wait in the kernel's queue, which sheds load by itself.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: it passes, and must not become a busy loop.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let base = match stream.local_addr() {
            Ok(local) => Base(format!("http://{local}")),
            Err(error) => {
                tracing::debug!(%peer, %error, "a connection that is gone already");
                continue;
            }
        };
        let router = router.clone().layer(axum::Extension(Peer(peer))).layer(axum::Extension(base));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(limits::HEAD_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::info!("some requests were still open and were cut");
    }
}

#[cfg(test)]
mod tests;
