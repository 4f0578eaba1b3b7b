//! What firmware and iPXE fetch: the start script, the script of this machine, loaders, kernel, ramdisk.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use boot_server_core::dhcp::boot::START_PATH;
use boot_server_core::ipxe::{BiosDisk, CommandLine, KernelArg, Script, ScriptError, Url};
use boot_server_core::node::{Claim, Event};
use protocol::MacAddr;
use protocol::agent::{ARG_BOOT_MAC, ARG_NONCE, ARG_SERVER};
use serde::Deserialize;

use super::files::{self, BootFiles};
use super::send::{self, Asked, Opened};
use super::{Base, Peer, ProblemResponse};
use crate::config::Settings;
use crate::engine::{BootAnswer, Engine};

#[derive(Clone)]
struct Boot {
    engine: Engine,
    files: Arc<BootFiles>,
}

pub(super) fn router(engine: Engine, files: Arc<BootFiles>) -> Router {
    Router::new()
        .route(START_PATH, get(start))
        .route("/boot/ipxe", get(script))
        .route("/boot/files/{name}", get(file))
        .route("/boot/{name}", get(file))
        .with_state(Boot { engine, files })
}

/// What iPXE tells about its machine. Texts may be anything: the machine's maker wrote them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asking {
    mac: String,
    uuid: String,
    serial: String,
    manufacturer: String,
    product: String,
    platform: String,
    buildarch: String,
}

impl Asking {
    fn claim(&self) -> Claim {
        Claim {
            uuid: self.uuid.parse().ok(),
            serial: Some(cut(&self.serial)).filter(|s| !s.is_empty()),
            macs: self.mac.parse().into_iter().collect(),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
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
    Query(asking): Query<Asking>,
) -> Response {
    tracing::debug!(
        mac = cut(&asking.mac),
        manufacturer = cut(&asking.manufacturer),
        product = cut(&asking.product),
        platform = cut(&asking.platform),
        buildarch = cut(&asking.buildarch),
        "boot script asked for"
    );
    let claim = asking.claim();
    let mac = claim.macs.first().copied();
    let answer = match boot.engine.boot(claim, peer.ip()).await {
        Ok(answer) => answer,
        Err(error) => {
            // The machine asks again; what is wrong stands in the log.
            tracing::error!(error = &error as &dyn std::error::Error, "no boot script");
            BootAnswer::Refuse { why: error.to_string() }
        }
    };
    let script = match answer {
        BootAnswer::Agent { name, nonce } => match boot.files.missing() {
            None => agent(&base, boot.engine.settings(), &boot.files, &name, &nonce, mac),
            Some(missing) => {
                tracing::error!(missing, node = name, "the agent cannot be booted");
                Ok(Script::Refuse { message: format!("kernel or ramdisk is missing on the server ({name})") })
            }
        },
        BootAnswer::LocalDisk { name } => {
            Ok(Script::LocalDisk { message: format!("{name} boots its disk"), bios: BiosDisk::NextDevice })
        }
        BootAnswer::Refuse { why } => Ok(Script::Refuse { message: why }),
    };
    script.map_or_else(|error| internal(&error), |script| text(script.render()))
}

fn agent(
    Base(base): &Base,
    settings: &Settings,
    files: &BootFiles,
    name: &str,
    nonce: &str,
    mac: Option<MacAddr>,
) -> Result<Script, ScriptError> {
    let url = |name: &str| Url::new(format!("{base}/boot/files/{name}"));
    let mut args = kernel_arguments(&settings.kernel_arguments)?;
    args.push(KernelArg::new(ARG_SERVER, base)?);
    args.push(KernelArg::new(ARG_NONCE, nonce)?);
    if let Some(mac) = mac {
        args.push(KernelArg::new(ARG_BOOT_MAC, &mac.to_string())?);
    }
    let mut initrds = vec![url(files::INITRAMFS)?];
    if files.path(files::FIRMWARE).is_some() {
        initrds.push(url(files::FIRMWARE)?);
    }
    Ok(Script::Agent {
        message: format!("{name} starts the agent"),
        kernel: url(files::KERNEL)?,
        initrds,
        args: CommandLine::new(args)?,
    })
}

/// Checks the site's own kernel arguments.
///
/// # Errors
/// Where one of them cannot stand in a script.
pub fn check_kernel_arguments(text: &str) -> Result<(), ScriptError> {
    CommandLine::new(kernel_arguments(text)?).map(drop)
}

fn kernel_arguments(text: &str) -> Result<Vec<KernelArg>, ScriptError> {
    let one = |word: &str| match word.split_once('=') {
        Some((key, value)) => KernelArg::new(key, value),
        None => KernelArg::flag(word),
    };
    text.split_whitespace().map(one).collect()
}

async fn file(
    State(boot): State<Boot>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let Some(path) = boot.files.path(&name) else {
        let message = format!("no boot file `{}`", cut(&name));
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
    let event = match name {
        files::KERNEL => Event::KernelServed,
        files::INITRAMFS | files::FIRMWARE => return,
        _ => Event::LoaderServed,
    };
    engine.file_served(peer.ip(), event).await;
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
