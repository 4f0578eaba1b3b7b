//! The control API, `/api/v1`: what people's programs, the command line and the UI's scripts use. Handlers parse,
//! ask the engine, and print; the document of the API is generated from them.

mod approvals;
pub(super) mod audit;
mod baselines;
pub mod bmc_requests;
mod bmcs;
mod boots;
mod bulk;
pub mod bundle_requests;
mod care;
mod certificates;
mod console;
mod desk;
mod document;
mod dpu_functions;
pub mod dpu_requests;
pub(in crate::http) mod dpu_setup;
mod dpus;
mod events;
mod exports;
mod extract;
mod groups;
mod images;
mod ingests;
mod keys;
mod machines;
pub(in crate::http) mod me;
mod models;
mod network;
pub mod network_requests;
mod networks;
mod nodes;
mod once;
mod overlay;
pub mod place_requests;
mod placements;
mod pools;
mod power;
pub(in crate::http) mod projects;
mod rates;
pub mod requests;
pub mod server_requests;
mod servers;
mod status;
mod stream;
mod switches;
mod tokens;
mod trust;
mod usage;
pub(in crate::http) mod users;
mod verbs;
mod versions;
pub mod volume_requests;
mod volumes;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::FromRef;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use protocol::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use images::image_view;
pub use usage::SIGNATURE;

use super::auth::Operators;
use super::{BootFiles, ProblemResponse};
use crate::console::Consoles;
use crate::engine::{Engine, now};
use crate::ingest::Ingests;

/// Where the API lives.
pub const PREFIX: &str = "/api/v1";
/// Streams of events at once; each costs a task and a place in the broadcast.
const STREAMS_MAX: usize = 256;
/// Images read back at once: each reads the disk as fast as it can.
const VERIFIES_MAX: usize = 1;

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    engine: Engine,
    ingests: Ingests,
    consoles: Consoles,
    files: Arc<BootFiles>,
    operators: Arc<Operators>,
    started: Timestamp,
    streams: Arc<Semaphore>,
    verifies: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What the API and the pages are over.
#[derive(Clone)]
pub struct Parts {
    /// Nodes, events, images.
    pub engine: Engine,
    /// Images on their way in.
    pub ingests: Ingests,
    /// Consoles.
    pub consoles: Consoles,
}

impl Api {
    /// An API over a running engine. `stop` ends streams and ingests.
    pub fn new(
        Parts { engine, ingests, consoles }: Parts,
        files: Arc<BootFiles>,
        operators: Arc<Operators>,
        stop: CancellationToken,
    ) -> Self {
        let (streams, verifies) = (Semaphore::new(STREAMS_MAX), Semaphore::new(VERIFIES_MAX));
        Self {
            engine,
            ingests,
            consoles,
            files,
            operators,
            started: now(),
            streams: Arc::new(streams),
            verifies: Arc::new(verifies),
            checks: Arc::new(Semaphore::new(1)),
            scans: Arc::new(Semaphore::new(1)),
            stop,
        }
    }
}

impl FromRef<Api> for Engine {
    fn from_ref(api: &Api) -> Self {
        api.engine.clone()
    }
}

type Answer<T> = Result<T, ProblemResponse>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Billet",
        description = "Control API of the Billet boot server. Errors are `application/problem+json` (RFC 9457) \
                       with a stable `code`, a sentence and a hint.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "http://127.0.0.1:8090")),
    security(("token" = [])),
    components(schemas(crate::view::Page<crate::view::NodeView>, nodes::NodeFields)),
    tags(
        (name = "nodes", description = "Machines and what can be done with them"),
        (name = "power", description = "Switching machines, and what their firmware boots"),
        (name = "machines", description = "Machines that are expected, and those that take the part of others"),
        (name = "models", description = "What machines of a model are made of and how they are cabled"),
        (name = "baselines", description = "How machines of a kind are to be set"),
        (name = "bmcs", description = "Management controllers of machines"),
        (name = "pools", description = "Sets and kinds of machines, and who would get which"),
        (name = "certificates", description = "What is certified of disks that were erased"),
        (name = "images", description = "Operating system images"),
        (name = "events", description = "What happened, and what happens"),
        (name = "approvals", description = "What two people must want"),
        (name = "audit", description = "Who did what, in a chain that shows what was done to it"),
        (name = "consoles", description = "Serial consoles, who looks at them, and recordings"),
        (name = "servers", description = "What projects have: servers, keys, what they report"),
        (name = "volumes", description = "Disks of projects that DPUs present to machines"),
        (name = "dpus", description = "The small computers between machines and their networks and disks"),
        (name = "networks", description = "Networks of projects: subnets, ports, security groups, routers, addresses"),
        (name = "usage", description = "What projects may have, what they used, how well it was there"),
        (name = "tokens", description = "Who may come in beside the site's own token"),
        (name = "server", description = "The server itself")
    )
)]
struct Document;

/// Routes, their document, and the paths where an idempotency key is minded for the handler.
fn parts() -> (Router<Api>, utoipa::openapi::OpenApi, BTreeSet<String>) {
    let v1 = OpenApiRouter::new()
        .routes(routes!(nodes::list, nodes::enroll))
        .routes(routes!(nodes::show))
        .routes(routes!(bulk::act))
        .routes(routes!(verbs::manage))
        .routes(routes!(verbs::inspect))
        .routes(routes!(verbs::abort))
        .routes(routes!(verbs::retry))
        .routes(routes!(verbs::provide))
        .routes(routes!(verbs::delete))
        .routes(routes!(verbs::deploy))
        .routes(routes!(verbs::preview))
        .routes(routes!(verbs::rebuild))
        .routes(routes!(verbs::maintenance))
        .routes(routes!(verbs::rename))
        .routes(routes!(verbs::place))
        .routes(routes!(verbs::service))
        .routes(routes!(boots::order, boots::clear))
        .routes(routes!(boots::forget))
        .routes(routes!(networks::set, networks::clear))
        .routes(routes!(power::power, power::switch))
        .routes(routes!(power::boot_device, power::set_boot_device))
        .routes(routes!(power::identify))
        .routes(routes!(power::bmc, power::set_bmc, power::forget_bmc))
        .routes(routes!(power::reset))
        .routes(routes!(power::trust))
        .routes(routes!(power::rotate))
        .routes(routes!(power::identity))
        .routes(routes!(power::sensors))
        .routes(routes!(power::history))
        .routes(routes!(power::components))
        .routes(routes!(power::log, power::clear_log))
        .routes(routes!(power::firmware))
        .routes(routes!(power::faults))
        .routes(routes!(power::all_faults))
        .routes(routes!(power::media, power::insert_media, power::eject_media))
        .routes(routes!(power::bios, power::set_bios))
        .routes(routes!(power::secure_boot, power::set_secure_boot))
        .routes(routes!(baselines::list, baselines::create))
        .routes(routes!(baselines::show, baselines::put, baselines::remove))
        .routes(routes!(baselines::compare))
        .routes(routes!(baselines::apply))
        .routes(routes!(models::list, models::create))
        .routes(routes!(models::show, models::put, models::remove))
        .routes(routes!(models::learn))
        .routes(routes!(models::assign))
        .routes(routes!(models::expected))
        .routes(routes!(models::accept))
        .routes(routes!(machines::list, machines::import))
        .routes(routes!(machines::remove))
        .routes(routes!(machines::replace))
        .routes(routes!(trust::approve))
        .routes(routes!(trust::pin, trust::unpin))
        .routes(routes!(trust::learn))
        .routes(routes!(care::adopt))
        .routes(routes!(care::retire))
        .routes(routes!(care::evacuate))
        .routes(routes!(care::papers))
        .routes(routes!(care::refresh_plan))
        .routes(routes!(bmcs::list))
        .routes(routes!(bmcs::import))
        .routes(routes!(bmcs::look))
        .routes(routes!(certificates::list))
        .routes(routes!(certificates::show))
        .routes(routes!(events::list))
        .routes(routes!(stream::stream))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::refuse))
        .routes(routes!(audit::list))
        .routes(routes!(audit::of_project))
        .routes(routes!(audit::head))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::export))
        .routes(routes!(images::list, ingests::add))
        .routes(routes!(images::show, images::remove))
        .routes(routes!(images::verify))
        .routes(routes!(images::manifest))
        .routes(routes!(images::sign))
        .routes(routes!(keys::list, keys::trust))
        .routes(routes!(keys::distrust))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::import))
        .routes(routes!(ingests::upload))
        .routes(routes!(ingests::list))
        .routes(routes!(ingests::show))
        .routes(routes!(bundle_requests::list))
        .routes(routes!(bundle_requests::import))
        .routes(routes!(bundle_requests::upload))
        .routes(routes!(bundle_requests::verify))
        .routes(routes!(bundle_requests::switch))
        .routes(routes!(exports::export))
        .routes(routes!(status::status))
        .routes(routes!(network::check))
        .routes(routes!(console::show, console::configure, console::reset))
        .routes(routes!(console::attach))
        .routes(routes!(console::log))
        .routes(routes!(console::sessions))
        .routes(routes!(console::end))
        .routes(routes!(console::recordings))
        .routes(routes!(console::recording))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::show, projects::change, projects::close))
        .routes(routes!(projects::members))
        .routes(routes!(projects::set_member, projects::remove_member))
        .routes(routes!(tokens::list_of_project, tokens::create_in_project))
        .routes(routes!(tokens::revoke_in_project))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::show, users::change))
        .routes(routes!(users::set_password))
        .routes(routes!(users::remove_second))
        .routes(routes!(users::end_sessions))
        .routes(routes!(projects::me))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::show, pools::change, pools::remove))
        .routes(routes!(pools::list_flavors, pools::create_flavor))
        .routes(routes!(pools::show_flavor, pools::change_flavor, pools::remove_flavor))
        .routes(routes!(pools::set_node_pool))
        .routes(routes!(pools::set_node_tags))
        .routes(routes!(placements::attempt))
        .routes(routes!(placements::rooms))
        .routes(routes!(placements::racks))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::show, groups::remove))
        .routes(routes!(groups::catalogue))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::actions))
        .routes(routes!(servers::show, servers::change, servers::delete))
        .routes(routes!(servers::start))
        .routes(routes!(servers::stop))
        .routes(routes!(servers::reboot))
        .routes(routes!(servers::reinstall))
        .routes(routes!(servers::rollback))
        .routes(routes!(servers::attach))
        .routes(routes!(volumes::types))
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::show, volumes::change, volumes::remove))
        .routes(routes!(volumes::attach))
        .routes(routes!(volumes::detach))
        .routes(routes!(volumes::force_detach))
        .routes(routes!(volumes::snapshots, volumes::create_snapshot))
        .routes(routes!(volumes::show_snapshot, volumes::remove_snapshot))
        .routes(routes!(dpus::list, dpus::create))
        .routes(routes!(dpus::show, dpus::change, dpus::remove))
        .routes(routes!(dpus::accept))
        .merge(dpu_functions::routes())
        .merge(dpu_setup::routes())
        .routes(routes!(switches::list))
        .routes(routes!(switches::cables))
        .routes(routes!(switches::set, switches::clear))
        .routes(routes!(events::list_of_project))
        .routes(routes!(stream::stream_of_project))
        .routes(routes!(desk::keys, desk::add_key))
        .routes(routes!(desk::remove_key))
        .routes(routes!(desk::faults, desk::report))
        .routes(routes!(desk::all_faults))
        .routes(routes!(desk::close_fault))
        .merge(overlay::routes())
        .routes(routes!(usage::quota, usage::set_quota))
        .routes(routes!(usage::of_project))
        .routes(routes!(usage::sla_of_project))
        .routes(routes!(usage::of_all))
        .routes(routes!(usage::export))
        .routes(routes!(usage::key))
        .routes(routes!(usage::sla_of_all))
        .routes(routes!(me::login))
        .routes(routes!(me::sessions))
        .routes(routes!(me::end_session))
        .routes(routes!(me::change_password))
        .routes(routes!(me::begin_second, me::finish_second))
        .routes(routes!(me::remove_second))
        .routes(routes!(openapi));
    let (router, mut document) =
        OpenApiRouter::with_openapi(Document::openapi()).nest(PREFIX, v1).split_for_parts();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token in operator.token of the server's state directory."))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document::complete(&mut document);
    let makes = once::document(&mut document);
    (router, document, makes)
}

/// The document of the API (OpenAPI 3.1).
pub fn document() -> utoipa::openapi::OpenApi {
    parts().1
}

/// All routes of the API, and `/healthz`.
pub fn router(api: Api) -> Router {
    let (routes, document, makes) = parts();
    let engine = api.engine.clone();
    let rates = rates::Counter::new(engine.settings().rates);
    let routes = routes.method_not_allowed_fallback(wrong_method).with_state(api);
    let versions = versions::Versions::new(routes.clone(), engine.clone(), &document);
    routes
        .layer(from_fn_with_state(once::Once::new(engine, makes), once::check))
        .layer(from_fn_with_state(versions, versions::check))
        .layer(from_fn_with_state(rates, rates::check))
        .route("/healthz", get(|| async { "ok\n" }))
}

async fn wrong_method() -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "this path does not take this method",
        "see /api/v1/openapi.json",
    )
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "server", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi() -> ([(HeaderName, &'static str); 1], Bytes) {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    // Plain data, which JSON can always hold.
    let text = TEXT.get_or_init(|| document().to_json().unwrap_or_default().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone())
}

#[cfg(test)]
mod tests;
