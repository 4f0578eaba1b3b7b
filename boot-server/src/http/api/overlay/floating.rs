//! Floating addresses of a project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::Floating;

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{AssociateRequest, FloatingRequest};
use super::super::projects::InProject;
use super::super::requests::{EmptyRequest, PageQuery};
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::overlay::NewFloating;
use crate::view::networks::FloatingView;
use crate::view::{Page, Problem};

/// Floating addresses of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/floating-addresses", tag = "networks", operation_id = "list_floating_addresses",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<FloatingView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<FloatingView>>> {
    Ok(Json(page::<Floating, _>(&api, within.project.id, &query, |_| true)?))
}

/// One floating address.
#[utoipa::path(get, path = "/projects/{project}/floating-addresses/{floating}", tag = "networks", operation_id = "show_floating_address",
    params(("project" = String, Path, description = "Name or id"),
        ("floating" = String, Path, description = "Name or id")),
    responses((status = 200, body = FloatingView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(floating): LastNamed,
) -> Answer<(Extension<Version>, Json<FloatingView>)> {
    let found = api.engine.floating(within.project.id, &floating)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Takes a floating address.
#[utoipa::path(post, path = "/projects/{project}/floating-addresses", tag = "networks", operation_id = "create_floating_address",
    params(("project" = String, Path, description = "Name or id")),
    request_body = FloatingRequest,
    responses((status = 201, body = FloatingView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<FloatingRequest>,
) -> Answer<(StatusCode, Json<FloatingView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let FloatingRequest { name, network, address, port } = request;
    let wish = NewFloating { name, network, address, port };
    let made = api.engine.create_floating(project, actor, wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Gives a floating address back.
#[utoipa::path(delete, path = "/projects/{project}/floating-addresses/{floating}", tag = "networks", operation_id = "delete_floating_address",
    params(("project" = String, Path, description = "Name or id"),
        ("floating" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(floating): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_floating(within.project.id, within.who.actor(), &floating).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a floating address lead to a port.
#[utoipa::path(post, path = "/projects/{project}/floating-addresses/{floating}/associate", tag = "networks", operation_id = "associate_floating_address",
    params(("project" = String, Path, description = "Name or id"),
        ("floating" = String, Path, description = "Name or id")),
    request_body = AssociateRequest,
    responses((status = 200, body = FloatingView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn associate(
    State(api): State<Api>,
    within: InProject,
    LastNamed(floating): LastNamed,
    Input(AssociateRequest { port, inner }): Input<AssociateRequest>,
) -> Answer<Json<FloatingView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.associate_floating(project, actor, &floating, (&port, inner)).await?;
    Ok(Json(made.as_ref().into()))
}

/// Makes a floating address lead nowhere.
#[utoipa::path(post, path = "/projects/{project}/floating-addresses/{floating}/disassociate", tag = "networks", operation_id = "disassociate_floating_address",
    params(("project" = String, Path, description = "Name or id"),
        ("floating" = String, Path, description = "Name or id")),
    request_body = EmptyRequest,
    responses((status = 200, body = FloatingView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn disassociate(
    State(api): State<Api>,
    within: InProject,
    LastNamed(floating): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<FloatingView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.disassociate_floating(project, actor, &floating).await?;
    Ok(Json(made.as_ref().into()))
}
