//! Servers of a project: what its people have.

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use boot_server_core::access::Role;
use boot_server_core::server::{Phase, Server};
use protocol::ServerId;

use super::extract::{IdempotencyKey, Input, LastNamed, Params, bad_query, limit};
use super::projects::InProject;
use super::requests::EmptyRequest;
use super::server_requests::{
    NewServerRequest, ReinstallRequest, ServerActionsRequest, ServerChangeRequest, ServerQuery, ServerVerb,
    StopRequest,
};
use super::{Answer, Api, PREFIX, ProblemResponse, console};
use crate::engine::EngineError;
use crate::engine::servers::{NewServers, Reinstall, ServerPower};
use crate::http::Peer;
use crate::principal::Principal;
use crate::store::servers::ServerFilter;
use crate::view::servers::{ServerDetail, ServerOutcome, ServerOutcomes, ServerView, ServersCreated};
use crate::view::{ConsoleSays, Page, PowerView, Problem};

/// Servers that one request acts on.
const ACTIONS_MAX: usize = 200;

impl Api {
    /// A server as whoever asks sees it: people of a project are not told which machine it is.
    pub(in crate::http) async fn server_view(&self, server: Server, who: &Principal) -> ServerView {
        shown(self.engine.server_view(server).await, who)
    }
}

fn shown(server: ServerView, who: &Principal) -> ServerView {
    if who.site.is_some() { server } else { server.without_machine() }
}

/// Servers of a project, oldest first; those that live unless told otherwise.
#[utoipa::path(get, path = "/projects/{project}/servers", tag = "servers", operation_id = "list_servers",
    params(("project" = String, Path, description = "Name or id"), ServerQuery),
    responses((status = 200, body = Page<ServerView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<ServerQuery>,
) -> Answer<Json<Page<ServerView>>> {
    let limit = limit(query.limit)?;
    let project = within.project.id;
    let after = match &query.cursor {
        Some(cursor) => Some(
            cursor
                .parse::<ServerId>()
                .map_err(|_| bad_query("the cursor is not one of this list".to_owned()))?,
        ),
        None => None,
    };
    let group = match &query.group {
        Some(group) => Some(api.engine.server_group(project, group).await?.id),
        None => None,
    };
    let filter = ServerFilter {
        phase: query.phase,
        deleted: query.deleted.unwrap_or(false),
        name: query.q.clone().filter(|q| !q.is_empty()),
        group,
        after,
        // One more than asked for tells whether there is a next page.
        limit: limit + 1,
    };
    let mut servers = api.engine.servers(project, filter).await?;
    let more = servers.len() > limit;
    servers.truncate(limit);
    let next = servers.last().filter(|_| more).map(|last| last.id.to_string());
    let mut items = Vec::with_capacity(servers.len());
    for server in servers {
        items.push(api.server_view(server, &within.who).await);
    }
    Ok(Json(Page { items, next }))
}

/// Makes servers: a machine for each is claimed at once, all or none; their OS is put on them behind this call.
///
/// With an `Idempotency-Key` the same request is done once and answered again.
#[utoipa::path(post, path = "/projects/{project}/servers", tag = "servers", operation_id = "create_servers",
    params(("project" = String, Path, description = "Name or id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Does the same request once")),
    request_body = NewServerRequest,
    responses((status = 201, body = ServersCreated), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    within: InProject,
    IdempotencyKey(key): IdempotencyKey,
    Input(request): Input<NewServerRequest>,
) -> Answer<Response> {
    within.need(Role::Member)?;
    let wish = NewServers {
        name: request.name,
        count: request.count.unwrap_or(1),
        flavor: request.flavor,
        node: request.node,
        pool: request.pool,
        image: request.image,
        user: request.user,
        keys: request.keys,
        ssh_keys: request.ssh_keys,
        user_data: request.user_data,
        group: request.group,
        boot_volume: request.boot_volume,
        networks: request.networks,
    };
    let project = within.project.id;
    let made = api.engine.create_servers(project, within.who.actor(), wish, key).await?;
    let location = made.first().map(|server| format!("{PREFIX}/projects/{project}/servers/{}", server.id));
    let mut servers = Vec::with_capacity(made.len());
    for server in made {
        servers.push(api.server_view(server, &within.who).await);
    }
    let mut response = (StatusCode::CREATED, Json(ServersCreated { servers })).into_response();
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A server with its installation and its addresses.
#[utoipa::path(get, path = "/projects/{project}/servers/{server}", tag = "servers", operation_id = "show_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    responses((status = 200, body = ServerDetail), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
) -> Answer<Json<ServerDetail>> {
    let server = api.engine.server(within.project.id, &server).await?;
    let detail = api.engine.server_detail(server).await?;
    Ok(Json(ServerDetail { server: shown(detail.server, &within.who), ..detail }))
}

/// Gives a server another name.
#[utoipa::path(patch, path = "/projects/{project}/servers/{server}", tag = "servers", operation_id = "change_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = ServerChangeRequest,
    responses((status = 200, body = ServerView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(request): Input<ServerChangeRequest>,
) -> Answer<Json<ServerView>> {
    within.need(Role::Member)?;
    let actor = within.who.actor();
    let server = api.engine.rename_server(within.project.id, &server, actor, &request.name).await?;
    Ok(Json(api.server_view(server, &within.who).await))
}

/// Gives a server back: its disks are wiped, then its machine is free and its usage ends. It cannot be undone.
#[utoipa::path(delete, path = "/projects/{project}/servers/{server}", tag = "servers", operation_id = "delete_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    responses((status = 202, body = ServerView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
) -> Answer<(StatusCode, Json<ServerView>)> {
    within.need(Role::Member)?;
    let server = api.engine.delete_server(within.project.id, &server, within.who.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(api.server_view(server, &within.who).await)))
}

/// Switches a server on.
#[utoipa::path(post, path = "/projects/{project}/servers/{server}/start", tag = "servers", operation_id = "start_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 200, body = PowerView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn start(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<PowerView>> {
    switch(&api, &within, &server, ServerPower::Start).await
}

/// Asks a server's OS to shut down; with `hard`, switches it off at once.
#[utoipa::path(post, path = "/projects/{project}/servers/{server}/stop", tag = "servers", operation_id = "stop_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = StopRequest,
    responses((status = 200, body = PowerView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn stop(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(StopRequest { hard }): Input<StopRequest>,
) -> Answer<Json<PowerView>> {
    let power = if hard { ServerPower::StopHard } else { ServerPower::Stop };
    switch(&api, &within, &server, power).await
}

/// Restarts a server at once.
#[utoipa::path(post, path = "/projects/{project}/servers/{server}/reboot", tag = "servers", operation_id = "reboot_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 200, body = PowerView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn reboot(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<PowerView>> {
    switch(&api, &within, &server, ServerPower::Reboot).await
}

async fn switch(api: &Api, within: &InProject, server: &str, power: ServerPower) -> Answer<Json<PowerView>> {
    within.need(Role::Member)?;
    let actor = within.who.actor();
    Ok(Json(api.engine.switch_server(within.project.id, server, actor, power).await?))
}

/// Puts the OS on a server anew, from the same image or another one. Its disk is erased.
#[utoipa::path(post, path = "/projects/{project}/servers/{server}/reinstall", tag = "servers",
    operation_id = "reinstall_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = ReinstallRequest,
    responses((status = 202, body = ServerView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn reinstall(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(request): Input<ReinstallRequest>,
) -> Answer<(StatusCode, Json<ServerView>)> {
    within.need(Role::Member)?;
    let ReinstallRequest { image, keys, ssh_keys, user_data } = request;
    let change = Reinstall { image, keys, ssh_keys, user_data };
    let server = api.engine.reinstall_server(within.project.id, &server, within.who.actor(), change).await?;
    Ok((StatusCode::ACCEPTED, Json(api.server_view(server, &within.who).await)))
}

/// Boots a server, whose new OS did not come up, from the volume that it had before it was installed anew.
#[utoipa::path(post, path = "/projects/{project}/servers/{server}/rollback", tag = "servers",
    operation_id = "rollback_server",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 202, body = ServerView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn rollback(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<(StatusCode, Json<ServerView>)> {
    within.need(Role::Member)?;
    let server = api.engine.rollback_server(within.project.id, &server, within.who.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(api.server_view(server, &within.who).await)))
}

/// Does the same with several servers. Each has an answer of its own, in their order; what one is refused stops no other.
#[utoipa::path(post, path = "/projects/{project}/servers/actions", tag = "servers", operation_id = "act_on_servers",
    params(("project" = String, Path, description = "Name or id")), request_body = ServerActionsRequest,
    responses((status = 200, body = ServerOutcomes), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn actions(
    State(api): State<Api>,
    within: InProject,
    Input(ServerActionsRequest { verb, servers }): Input<ServerActionsRequest>,
) -> Answer<Json<ServerOutcomes>> {
    within.need(Role::Member)?;
    if servers.is_empty() || servers.len() > ACTIONS_MAX {
        let message = format!("{} servers in one request are not from 1 to {ACTIONS_MAX}", servers.len());
        let hint = "ask several times";
        return Err(ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, "bulk", message, hint));
    }
    let mut outcomes = Vec::with_capacity(servers.len());
    for server in servers {
        let (done, problem) = match act(&api, &within, &server, verb).await {
            Ok(done) => (Some(api.server_view(done, &within.who).await), None),
            Err(error) => (None, Some(error.problem())),
        };
        outcomes.push(ServerOutcome { server, done, problem });
    }
    Ok(Json(ServerOutcomes { outcomes }))
}

async fn act(api: &Api, within: &InProject, server: &str, verb: ServerVerb) -> Result<Server, EngineError> {
    let (engine, project, actor) = (&api.engine, within.project.id, within.who.actor());
    let power = match verb {
        ServerVerb::Delete => return engine.delete_server(project, server, actor).await,
        ServerVerb::Reinstall => {
            return engine.reinstall_server(project, server, actor, Reinstall::default()).await;
        }
        ServerVerb::Start => ServerPower::Start,
        ServerVerb::Stop => ServerPower::Stop,
        ServerVerb::StopHard => ServerPower::StopHard,
        ServerVerb::Reboot => ServerPower::Reboot,
    };
    engine.switch_server(project, server, actor, power).await?;
    engine.server(project, server).await
}

/// Looks at a server's console: a WebSocket, as that of a node. Members type, readers look.
#[utoipa::path(get, path = "/projects/{project}/servers/{server}/console/attach", tag = "servers",
    operation_id = "attach_server_console",
    params(("project" = String, Path, description = "Name or id"), ("server" = String, Path, description = "Name or id")),
    responses((status = 101, description = "The WebSocket", body = ConsoleSays), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 426, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn attach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(server): LastNamed,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let server = api.engine.server(within.project.id, &server).await?;
    if matches!(server.phase, Phase::Deleting | Phase::Deleted) {
        let hint = "it is being given back";
        return Err(ProblemResponse::new(
            StatusCode::CONFLICT,
            "wrong-phase",
            "the server has no console any more",
            hint,
        ));
    }
    let node = api.engine.node(&server.node.to_string()).await?;
    let who = within.who.at_machine_of(within.project.id);
    console::look(&api, &node, who, peer, &headers, socket).await
}
