//! Routers of a project.

use axum::extract::RawPathParams;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::Router;

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{RouterGatewayRequest, RouterRequest};
use super::super::projects::InProject;
use super::super::requests::PageQuery;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::overlay::NewGateway;
use crate::view::networks::RouterView;
use crate::view::{Page, Problem};

/// Routers of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/routers", tag = "networks", operation_id = "list_routers",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<RouterView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<RouterView>>> {
    Ok(Json(page::<Router, _>(&api, within.project.id, &query, |_| true)?))
}

/// One router.
#[utoipa::path(get, path = "/projects/{project}/routers/{router}", tag = "networks", operation_id = "show_router",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id")),
    responses((status = 200, body = RouterView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(router): LastNamed,
) -> Answer<(Extension<Version>, Json<RouterView>)> {
    let found = api.engine.overlay_thing::<Router>(within.project.id, &router)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Makes a router that joins nothing yet.
#[utoipa::path(post, path = "/projects/{project}/routers", tag = "networks", operation_id = "create_router",
    params(("project" = String, Path, description = "Name or id")),
    request_body = RouterRequest,
    responses((status = 201, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(RouterRequest { name }): Input<RouterRequest>,
) -> Answer<(StatusCode, Json<RouterView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.create_router(project, actor, &name).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Gives a router another name.
#[utoipa::path(patch, path = "/projects/{project}/routers/{router}", tag = "networks", operation_id = "change_router",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id")),
    request_body = RouterRequest,
    responses((status = 200, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(router): LastNamed,
    Input(RouterRequest { name }): Input<RouterRequest>,
) -> Answer<Json<RouterView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.rename_router(project, actor, &router, &name).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a router. Refused while it joins subnets.
#[utoipa::path(delete, path = "/projects/{project}/routers/{router}", tag = "networks", operation_id = "delete_router",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(router): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_router(within.project.id, within.who.actor(), &router).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a router a way out, in place of the one that it had.
#[utoipa::path(put, path = "/projects/{project}/routers/{router}/gateway", tag = "networks", operation_id = "set_router_gateway",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id")),
    request_body = RouterGatewayRequest,
    responses((status = 200, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn set_gateway(
    State(api): State<Api>,
    within: InProject,
    LastNamed(router): LastNamed,
    Input(RouterGatewayRequest { network, address }): Input<RouterGatewayRequest>,
) -> Answer<Json<RouterView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let wish = NewGateway { network, address };
    let made = api.engine.set_gateway(project, actor, &router, wish).await?;
    Ok(Json(made.as_ref().into()))
}

/// Takes a router's way out away. Refused while floating addresses lead through it.
#[utoipa::path(delete, path = "/projects/{project}/routers/{router}/gateway", tag = "networks", operation_id = "clear_router_gateway",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id")),
    responses((status = 200, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn clear_gateway(
    State(api): State<Api>,
    within: InProject,
    LastNamed(router): LastNamed,
) -> Answer<Json<RouterView>> {
    within.need(Role::Member)?;
    let made = api.engine.clear_gateway(within.project.id, within.who.actor(), &router).await?;
    Ok(Json(made.as_ref().into()))
}

/// Joins a subnet of the project: the router is its gateway from then on.
#[utoipa::path(put, path = "/projects/{project}/routers/{router}/interfaces/{subnet}", tag = "networks", operation_id = "join_subnet",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id"),
        ("subnet" = String, Path, description = "Name or id")),
    responses((status = 200, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn join(
    State(api): State<Api>,
    within: InProject,
    names: RawPathParams,
    LastNamed(subnet): LastNamed,
) -> Answer<Json<RouterView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.join_subnet(project, actor, &router_of(&names), &subnet).await?;
    Ok(Json(made.as_ref().into()))
}

/// Lets go of a subnet.
#[utoipa::path(delete, path = "/projects/{project}/routers/{router}/interfaces/{subnet}", tag = "networks", operation_id = "leave_subnet",
    params(("project" = String, Path, description = "Name or id"),
        ("router" = String, Path, description = "Name or id"),
        ("subnet" = String, Path, description = "Name or id")),
    responses((status = 200, body = RouterView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn leave(
    State(api): State<Api>,
    within: InProject,
    names: RawPathParams,
    LastNamed(subnet): LastNamed,
) -> Answer<Json<RouterView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.leave_subnet(project, actor, &router_of(&names), &subnet).await?;
    Ok(Json(made.as_ref().into()))
}

fn router_of(names: &RawPathParams) -> String {
    names.iter().find(|(key, _)| *key == "router").map(|(_, name)| name.to_owned()).unwrap_or_default()
}
