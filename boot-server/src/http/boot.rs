//! What firmware and iPXE fetch: the start script, the script of this machine, loaders, kernel, ramdisk.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use boot_server_core::boot_request::{BootRequest, printable};
use boot_server_core::dhcp::boot::START_PATH;
use boot_server_core::ipxe::{Script, ScriptError, Url};
use boot_server_core::node::Netboot;

use super::files::{self, BootFiles, Processor};
use super::send::{self, Asked, Opened};
use super::{Base, Peer, ProblemResponse, problem};
use crate::engine::Engine;
use crate::grub::Grub;
use crate::scripts::{self, Scripts};

#[derive(Clone)]
struct Boot {
    engine: Engine,
    files: Arc<BootFiles>,
    scripts: Scripts,
    grub: Grub,
}

pub(super) fn router(engine: Engine, files: Arc<BootFiles>) -> Router {
    Router::new()
        .route(START_PATH, get(start))
        .route("/boot/ipxe", get(script))
        .route("/boot/files/{name}", get(file))
        // Shim joins its directory and the name of its second stage so.
        .route("/boot/files//{name}", get(file))
        .route("/grub/{*path}", get(grub))
        .route("/boot/{name}", get(file))
        .with_state({
            let scripts = Scripts::new(engine.clone(), files.clone());
            Boot { grub: Grub::new(scripts.clone(), files.clone()), scripts, engine, files }
        })
}

async fn start(Extension(Base(base)): Extension<Base>) -> Response {
    match Url::new(base) {
        Ok(base) => text(Script::Start { base }.render()),
        Err(error) => internal(&error),
    }
}

async fn script(
    State(boot): State<Boot>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(base): Extension<Base>,
    Query(asking): Query<BootRequest>,
) -> Response {
    tracing::debug!(
        mac = printable(&asking.mac),
        manufacturer = printable(&asking.manufacturer),
        product = printable(&asking.product),
        platform = printable(&asking.platform),
        buildarch = printable(&asking.buildarch),
        "boot script asked for"
    );
    let asking = scripts::Asking {
        claim: asking.claim(),
        processor: Processor::of_ipxe(&asking.buildarch),
        address: peer.ip(),
        base: base.0,
    };
    let script = boot.scripts.of(asking).await;
    script.map_or_else(|error| internal(&error), |script| text(script.render()))
}

/// The configuration that GRUB asks for. Its HTTP asks for the length first (HEAD) and must then get as much, so that is
/// answered like the request itself: the nonce of the second answer counts, and is as long.
async fn grub(
    State(boot): State<Boot>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(Base(base)): Extension<Base>,
    Path(path): Path<String>,
) -> Response {
    match boot.grub.config(&format!("grub/{path}"), peer.ip(), base).await {
        Some(config) => config.map_or_else(|error| internal(&error), text),
        None => problem::not_found().await.into_response(),
    }
}

async fn file(
    State(boot): State<Boot>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let Some(path) = boot.files.path(&name) else {
        let message = format!("no boot file `{}`", printable(&name));
        return ProblemResponse::new(StatusCode::NOT_FOUND, "boot-file-not-found", message, "")
            .into_response();
    };
    let opened = match Opened::at(path).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(name, %error, "a boot file cannot be served");
            return send::unreadable();
        }
    };
    if asked.method == Method::GET {
        seen(&boot.engine, peer, &name).await;
    }
    opened.respond(&asked, "application/octet-stream")
}

async fn seen(engine: &Engine, peer: SocketAddr, name: &str) {
    if let Some(event) = files::served(name, Netboot::Http) {
        engine.file_served(peer.ip(), event).await;
    }
}

fn text(script: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    // Each script is for one boot: nothing on the way may keep it.
    let fresh = HeaderValue::from_static("no-store");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, fresh)], script).into_response()
}

fn internal(error: &ScriptError) -> Response {
    tracing::error!(%error, "boot script cannot be made");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ProblemResponse::new(status, "script", "the boot script cannot be made", "look at the server's log")
        .into_response()
}
