//! Mirrors of a project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::{Mirror, Sink};

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{MirrorChangeRequest, MirrorRequest};
use super::super::projects::InProject;
use super::super::requests::PageQuery;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::overlay::NewMirror;
use crate::view::networks::{MirrorKind, MirrorView};
use crate::view::{Page, Problem};

/// Mirrors of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/mirrors", tag = "networks", operation_id = "list_mirrors",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<MirrorView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<MirrorView>>> {
    Ok(Json(page::<Mirror, _>(&api, within.project.id, &query, |_| true)?))
}

/// One mirror.
#[utoipa::path(get, path = "/projects/{project}/mirrors/{mirror}", tag = "networks", operation_id = "show_mirror",
    params(("project" = String, Path, description = "Name or id"),
        ("mirror" = String, Path, description = "Name or id")),
    responses((status = 200, body = MirrorView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(mirror): LastNamed,
) -> Answer<(Extension<Version>, Json<MirrorView>)> {
    let found = api.engine.overlay_thing::<Mirror>(within.project.id, &mirror)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Makes a mirror: copies of what ports send or receive, to an address that the site allows.
#[utoipa::path(post, path = "/projects/{project}/mirrors", tag = "networks", operation_id = "create_mirror",
    params(("project" = String, Path, description = "Name or id")),
    request_body = MirrorRequest,
    responses((status = 201, body = MirrorView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<MirrorRequest>,
) -> Answer<(StatusCode, Json<MirrorView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let sink = match request.kind {
        MirrorKind::Gre => Sink::Gre(request.to, request.key),
        MirrorKind::Erspan => Sink::Erspan(request.to, request.key),
    };
    let (direction, ports) = (request.direction.into(), request.ports);
    let wish = NewMirror { name: request.name, direction, ports, sink };
    let made = api.engine.create_mirror(project, actor, wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Changes a mirror. What is not given stays.
#[utoipa::path(patch, path = "/projects/{project}/mirrors/{mirror}", tag = "networks", operation_id = "change_mirror",
    params(("project" = String, Path, description = "Name or id"),
        ("mirror" = String, Path, description = "Name or id")),
    request_body = MirrorChangeRequest,
    responses((status = 200, body = MirrorView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(mirror): LastNamed,
    Input(MirrorChangeRequest { name, ports }): Input<MirrorChangeRequest>,
) -> Answer<Json<MirrorView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = api.engine.change_mirror(project, actor, &mirror, (name, ports)).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a mirror.
#[utoipa::path(delete, path = "/projects/{project}/mirrors/{mirror}", tag = "networks", operation_id = "delete_mirror",
    params(("project" = String, Path, description = "Name or id"),
        ("mirror" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(mirror): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_mirror(within.project.id, within.who.actor(), &mirror).await?;
    Ok(StatusCode::NO_CONTENT)
}
