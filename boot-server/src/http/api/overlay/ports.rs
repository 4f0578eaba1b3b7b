//! Ports of a project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::PortLimits;

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{AttachPortRequest, PortChangeRequest, PortQuery, PortRequest};
use super::super::projects::InProject;
use super::super::requests::{EmptyRequest, PageQuery};
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::EngineError;
use crate::engine::overlay::{LimitsChange, NewPort, PortChange};
use crate::store::overlay::Plug;
use crate::view::networks::OverlayPortView;
use crate::view::{Page, Problem};

/// Ports of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/ports", tag = "networks", operation_id = "list_ports",
    params(("project" = String, Path, description = "Name or id"), PortQuery),
    responses((status = 200, body = Page<OverlayPortView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PortQuery>,
) -> Answer<Json<Page<OverlayPortView>>> {
    let project = within.project.id;
    let network = match &query.network {
        Some(network) => Some(api.engine.overlay_network(project, network)?.id),
        None => None,
    };
    let server = match &query.server {
        Some(server) => Some(api.engine.server(project, server).await?.id),
        None => None,
    };
    let wanted = |plug: &Plug| {
        network.is_none_or(|network| plug.port.network == network)
            && server.is_none_or(|server| plug.server == Some(server))
    };
    let query = PageQuery { limit: query.limit, cursor: query.cursor };
    let mut found = page::<Plug, OverlayPortView>(&api, project, &query, wanted)?;
    for port in &mut found.items {
        let row = api.engine.overlay_by_id::<Plug>(port.id);
        port.counters = row.and_then(|row| api.engine.port_counters(&row)).map(Into::into);
    }
    Ok(Json(found))
}

/// One port.
#[utoipa::path(get, path = "/projects/{project}/ports/{port}", tag = "networks", operation_id = "show_port",
    params(("project" = String, Path, description = "Name or id"),
        ("port" = String, Path, description = "Name or id")),
    responses((status = 200, body = OverlayPortView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(port): LastNamed,
) -> Answer<(Extension<Version>, Json<OverlayPortView>)> {
    let found = api.engine.port(within.project.id, &port)?;
    Ok((Extension(Version(found.version)), Json(OverlayPortView::counted(&api.engine, &found))))
}

/// Makes a port.
#[utoipa::path(post, path = "/projects/{project}/ports", tag = "networks", operation_id = "create_port",
    params(("project" = String, Path, description = "Name or id")),
    request_body = PortRequest,
    responses((status = 201, body = OverlayPortView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<PortRequest>,
) -> Answer<(StatusCode, Json<OverlayPortView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let limits = LimitsChange {
        egress_kbps: request.egress_kbps,
        egress_burst_kb: request.egress_burst_kb,
        ingress_kbps: request.ingress_kbps,
    };
    let limits = limits.after(PortLimits::default()).map_err(EngineError::from)?;
    let wish = NewPort {
        name: request.name,
        network: request.network,
        mac: request.mac,
        addresses: request.addresses,
        subnets: request.subnets,
        groups: request.security_groups,
        unguarded: request.unguarded,
        limits,
        server: None,
        follows: false,
    };
    let made = api.engine.create_port(project, actor, wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Changes a port. What is not given stays.
#[utoipa::path(patch, path = "/projects/{project}/ports/{port}", tag = "networks", operation_id = "change_port",
    params(("project" = String, Path, description = "Name or id"),
        ("port" = String, Path, description = "Name or id")),
    request_body = PortChangeRequest,
    responses((status = 200, body = OverlayPortView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(port): LastNamed,
    Input(request): Input<PortChangeRequest>,
) -> Answer<Json<OverlayPortView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let PortChangeRequest { name, addresses, security_groups, guarded, .. } = request;
    let PortChangeRequest { egress_kbps, egress_burst_kb, ingress_kbps, .. } = request;
    let limits = LimitsChange { egress_kbps, egress_burst_kb, ingress_kbps };
    let change = PortChange { name, addresses, groups: security_groups, guarded, limits };
    let made = api.engine.change_port(project, actor, &port, change).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a port. Refused while a server is plugged in.
#[utoipa::path(delete, path = "/projects/{project}/ports/{port}", tag = "networks", operation_id = "delete_port",
    params(("project" = String, Path, description = "Name or id"),
        ("port" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(port): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.delete_port(within.project.id, within.who.actor(), &port).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Plugs a server's machine into a port, while it runs.
#[utoipa::path(post, path = "/projects/{project}/ports/{port}/attach", tag = "networks", operation_id = "attach_port",
    params(("project" = String, Path, description = "Name or id"),
        ("port" = String, Path, description = "Name or id")),
    request_body = AttachPortRequest,
    responses((status = 200, body = OverlayPortView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn attach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(port): LastNamed,
    Input(AttachPortRequest { server }): Input<AttachPortRequest>,
) -> Answer<Json<OverlayPortView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.attach_port(project, actor, &port, &server).await?;
    Ok(Json(made.as_ref().into()))
}

/// Unplugs what is in a port, while it runs.
#[utoipa::path(post, path = "/projects/{project}/ports/{port}/detach", tag = "networks", operation_id = "detach_port",
    params(("project" = String, Path, description = "Name or id"),
        ("port" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 200, body = OverlayPortView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn detach(
    State(api): State<Api>,
    within: InProject,
    LastNamed(port): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<OverlayPortView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.detach_port(project, actor, &port).await?;
    Ok(Json(made.as_ref().into()))
}
