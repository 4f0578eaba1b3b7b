//! The web UI: pages rendered on the server, kept live by htmx and server-sent events. It decides nothing: pages show
//! what the engine says, forms call the same functions as the API. Who may come in is `http::auth`'s business.

mod actions;
mod approvals;
pub mod assets;
mod audit;
mod boot;
mod certificates;
mod console;
mod dashboard;
mod deploy;
mod dpu_functions;
mod dpus;
mod evacuate;
mod events;
mod faults;
mod form;
pub mod format;
mod graph;
mod images;
mod login;
mod machines;
mod me;
mod models;
pub mod my;
mod node;
mod pools;
mod power;
mod projects;
mod providers;
mod racks;
mod recipe;
mod refresh;
mod servers;
mod service;
mod status;
mod stream;
mod timeline;
mod tokens;
mod users;
mod welcome;
mod wipe;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use boot_server_core::access::Role;
use protocol::limits::JSON_BODY_MAX;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::api::Parts;
use super::auth::Operators;
use crate::console::Consoles;
use crate::engine::{Actor, Engine, EngineError};
use crate::ingest::Ingests;
use crate::view::Problem;

/// Entries of the navigation: key, label, address, icon.
pub const NAVIGATION: &[(&str, &str, &str, &str)] = &[
    ("dashboard", "Dashboard", "/dashboard", "status"),
    ("servers", "Servers", "/", "server"),
    ("racks", "Racks", "/racks", "rack"),
    ("dpus", "DPUs", "/dpus", "dpu"),
    ("providers", "Provider networks", "/providers", "network"),
    ("pools", "Pools", "/pools", "pool"),
    ("flavors", "Flavors", "/flavors", "flavor"),
    ("placement", "Placement", "/placement", "ask"),
    ("images", "Images", "/images", "image"),
    ("machines", "Expected", "/machines", "wait"),
    ("models", "Models", "/models", "check"),
    ("faults", "Faults", "/faults", "warning"),
    ("refresh", "Refresh plan", "/refresh", "wait"),
    ("events", "Events", "/events", "events"),
    ("approvals", "Approvals", "/approvals", "check"),
    ("audit", "Audit", "/audit", "keep"),
    ("status", "Status", "/status", "status"),
    ("projects", "Projects", "/projects", "keep"),
    ("my", "Projects", "/my/", "keep"),
    ("users", "Users", "/users", "key"),
    ("tokens", "Tokens", "/tokens", "key"),
    ("me", "Me", "/me", "info"),
];

/// Whether an entry is for whoever asks: machines are the business of those with a role at the site, users and tokens that of its
/// administrators.
pub fn shows(entry: &str) -> bool {
    match entry {
        "me" => true,
        "my" => !runs_the_site(),
        "audit" => runs_the_site() && super::api::audit::need_auditor().is_ok(),
        "users" | "tokens" => super::auth::need(Role::Admin).is_ok(),
        _ => runs_the_site(),
    }
}

/// True for whoever has a role at the site.
pub fn runs_the_site() -> bool {
    super::auth::who().is_some_and(|who| who.site.is_some())
}

/// Scripts, styles and pictures come from this server only, nothing inline runs, nobody frames these pages.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
                                       frame-ancestors 'none'";

/// What the pages need.
#[derive(Clone)]
struct Ui {
    /// Nodes, events, images.
    engine: Engine,
    /// Images on their way in.
    ingests: Ingests,
    /// Consoles.
    consoles: Consoles,
    /// Tokens.
    known: Arc<Operators>,
    /// Pages that are open; each holds one stream.
    streams: Arc<Semaphore>,
    /// The server stops.
    stop: CancellationToken,
}

/// Streams to open pages at once; each costs a task and a place in the broadcast.
const STREAMS_MAX: usize = 256;

/// All pages. Those for signing in and the static files are to be reachable by everybody. `stop` ends the streams.
pub fn router(parts: Parts, known: Arc<Operators>, stop: CancellationToken) -> Router {
    let Parts { engine, ingests, consoles } = parts;
    let ui = Ui { engine, ingests, consoles, known, streams: Arc::new(Semaphore::new(STREAMS_MAX)), stop };
    Router::new()
        .route("/login", get(login::show))
        .route("/static/{tag}/{name}", get(assets::serve))
        .route("/", get(servers::list))
        .route("/nodes/{node}", get(node::show))
        .route("/nodes/{node}/inspect", post(actions::inspect))
        .route("/nodes/{node}/manage", post(actions::manage))
        .route("/nodes/{node}/abort", post(actions::abort))
        .route("/nodes/{node}/retry", post(actions::retry))
        .route("/nodes/{node}/rename", post(actions::rename))
        .route("/nodes/{node}/place", post(actions::place))
        .route("/nodes/{node}/network", post(actions::network))
        .route("/nodes/{node}/pool", post(actions::pool))
        .route("/nodes/{node}/maintenance", post(actions::maintenance))
        .route("/nodes/{node}/accept", post(models::accept))
        .route("/nodes/{node}/model", post(models::assign))
        .route("/nodes/{node}/learn", post(models::learn))
        .route("/nodes/{node}/replace", get(machines::replace_form).post(machines::replace))
        .route("/machines", get(machines::list).post(machines::import))
        .route("/machines/{name}/remove", post(machines::remove))
        .route("/nodes/{node}/adopt", post(refresh::adopt))
        .route("/nodes/{node}/retire", post(refresh::retire))
        .route("/nodes/{node}/approve-boot", post(refresh::approve_boot))
        .route("/nodes/{node}/tpm", post(refresh::pin_tpm))
        .route("/nodes/{node}/papers", post(refresh::papers))
        .route("/models", get(models::list).post(models::create))
        .route("/models/{name}", get(models::show).post(models::change))
        .route("/models/{name}/remove", post(models::remove))
        .route("/refresh", get(refresh::show))
        .route("/nodes/{node}/deploy", get(deploy::deploy_form).post(deploy::deploy))
        .route("/nodes/{node}/rebuild", get(deploy::rebuild_form).post(deploy::rebuild))
        .route("/nodes/{node}/console", get(console::show))
        .route("/console/recordings/{id}", get(console::play))
        .route("/nodes/{node}/boot", get(boot::form).post(boot::order))
        .route("/nodes/{node}/boot/clear", post(boot::clear))
        .route("/nodes/{node}/forget", post(boot::forget))
        .route("/nodes/{node}/firmware", get(service::show).post(service::apply))
        .route("/nodes/{node}/firmware/versions", get(service::versions))
        .route("/nodes/{node}/power", post(power::switch))
        .route("/nodes/{node}/bmc", get(power::form).post(power::set))
        .route("/nodes/{node}/bmc/readings", get(power::readings))
        .route("/nodes/{node}/bmc/remove", post(power::remove))
        .route("/nodes/{node}/bmc/trust", post(power::trust))
        .route("/nodes/{node}/bmc/rotate", post(power::rotate))
        .route("/nodes/{node}/bmc/reset", post(power::reset))
        .route("/nodes/{node}/bmc/identify", post(power::identify))
        .route("/nodes/{node}/preview", post(deploy::preview))
        .route("/nodes/{node}/provide", get(wipe::provide_form).post(wipe::provide))
        .route("/certificates/{certificate}", get(certificates::show))
        .route("/nodes/{node}/delete", get(wipe::delete_form).post(wipe::delete))
        .route("/images", get(images::list).post(images::add))
        .route("/images/{image}", get(images::show))
        .route("/images/{image}/verify", post(images::verify))
        .route("/images/{image}/remove", post(images::remove))
        .route("/dpus", get(dpus::list).post(dpus::create))
        .route("/dpus/{dpu}", get(dpus::show).post(dpus::change))
        .route("/dpus/{dpu}/accept", post(dpus::accept))
        .route("/dpus/{dpu}/remove", post(dpus::remove))
        .route("/dpus/{dpu}/enroll", post(dpus::enrol))
        .route("/dpus/{dpu}/functions", post(dpu_functions::set))
        .route("/dpus/{dpu}/functions/clear", post(dpu_functions::clear))
        .route("/dpus/{dpu}/jobs", post(dpus::begin))
        .route("/dpus/{dpu}/jobs/{job}/cancel", post(dpus::call_off))
        .route("/providers", get(providers::list).post(providers::create))
        .route("/providers/{network}/{verb}", post(providers::act))
        .route("/nodes/{node}/evacuate", post(evacuate::act))
        .route("/dashboard", get(dashboard::show))
        .route("/racks", get(racks::show))
        .route("/pools", get(pools::pools).post(pools::save_pool))
        .route("/pools/{pool}/remove", post(pools::remove_pool))
        .route("/flavors", get(pools::flavors).post(pools::save_flavor))
        .route("/flavors/{flavor}/remove", post(pools::remove_flavor))
        .route("/placement", get(pools::placement))
        .route("/faults", get(faults::list))
        .route("/faults/{report}/close", post(faults::close))
        .route("/events", get(events::list))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{approval}", get(approvals::show))
        .route("/approvals/{approval}/approve", post(approvals::approve))
        .route("/approvals/{approval}/refuse", post(approvals::refuse))
        .route("/audit", get(audit::list))
        .route("/status", get(status::show))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}/revoke", post(tokens::revoke))
        .route("/welcome/dismiss", post(welcome::dismiss))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{user}", get(users::show).post(users::change))
        .route("/users/{user}/password", post(users::password))
        .route("/users/{user}/totp/remove", post(users::remove_second))
        .route("/projects", get(projects::list).post(projects::create))
        .route("/my", get(|| async { go("/my/") }))
        .route("/my/", get(projects::list))
        .route("/my/{project}/members", get(projects::members).post(projects::set_member))
        .route("/my/{project}/members/{user}/remove", post(projects::remove_member))
        .route("/my/{project}/tokens", post(projects::create_token))
        .route("/my/{project}/tokens/{token}/revoke", post(projects::revoke_token))
        .route("/me", get(me::show))
        .route("/me/password", post(me::password))
        .route("/me/totp", post(me::begin_second))
        .route("/me/totp/finish", post(me::finish_second))
        .route("/me/totp/remove", post(me::remove_second))
        .route("/me/sessions/{session}/end", post(me::end_session))
        .route("/ui/stream", get(stream::serve))
        .merge(my::routes())
        .layer(DefaultBodyLimit::max(JSON_BODY_MAX))
        .layer(map_response(secure))
        .with_state(ui)
}

/// Headers that every answer of the UI carries.
async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whoever signed in.
fn operator() -> Actor {
    super::auth::actor()
}

fn render(status: u16, template: &impl Template) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be rendered; the server's log says why")
                .into_response()
        }
    }
}

fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// A page instead of the one that was asked for.
#[derive(Debug)]
struct Refusal(Problem);

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let problem = error.problem();
        if problem.status >= 500 {
            tracing::error!(error = &error as &dyn std::error::Error, "a page cannot be made");
        }
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        render(self.0.status, &ErrorPage { nav: "", problem: self.0 })
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    nav: &'static str,
    problem: Problem,
}
