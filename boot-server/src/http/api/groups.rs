//! Server groups of a project, and what it can ask for.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::Role;

use super::extract::{Input, LastNamed, Params, page_by_place};
use super::place_requests::GroupRequest;
use super::projects::InProject;
use super::requests::PageQuery;
use super::{Answer, Api};
use crate::view::place::{CatalogueView, GroupView, OfferedImage};
use crate::view::{Page, Problem};

/// Server groups of a project, by name.
#[utoipa::path(get, path = "/projects/{project}/server-groups", tag = "projects", operation_id = "list_server_groups",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<GroupView>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<GroupView>>> {
    let groups = api.engine.server_groups(within.project.id).await?;
    let groups: Vec<_> = groups.into_iter().map(GroupView::from).collect();
    Ok(Json(page_by_place(&groups, &query)?))
}

/// Makes a server group.
#[utoipa::path(post, path = "/projects/{project}/server-groups", tag = "projects", operation_id = "create_server_group",
    params(("project" = String, Path, description = "Name or id")), request_body = GroupRequest,
    responses((status = 201, body = GroupView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(GroupRequest { name, policy, domain }): Input<GroupRequest>,
) -> Answer<(StatusCode, Json<GroupView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let group = api.engine.create_server_group(project, actor, (name, policy, domain)).await?;
    Ok((StatusCode::CREATED, Json(group.into())))
}

/// One server group.
#[utoipa::path(get, path = "/projects/{project}/server-groups/{group}", tag = "projects", operation_id = "show_server_group",
    params(("project" = String, Path, description = "Name or id"), ("group" = String, Path, description = "Name or id")),
    responses((status = 200, body = GroupView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(group): LastNamed,
) -> Answer<Json<GroupView>> {
    Ok(Json(api.engine.server_group(within.project.id, &group).await?.into()))
}

/// Removes a server group. Refused while servers are in it.
#[utoipa::path(delete, path = "/projects/{project}/server-groups/{group}", tag = "projects", operation_id = "delete_server_group",
    params(("project" = String, Path, description = "Name or id"), ("group" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(group): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_server_group(within.project.id, within.who.actor(), &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a project can ask for: flavors with how many machines are free, used and there at all in the pools that are offered
/// to it, and images.
#[utoipa::path(get, path = "/projects/{project}/catalogue", tag = "projects", operation_id = "show_catalogue",
    params(("project" = String, Path, description = "Name or id")),
    responses((status = 200, body = CatalogueView), (status = 404, body = Problem)))]
pub(super) async fn catalogue(State(api): State<Api>, within: InProject) -> Answer<Json<CatalogueView>> {
    let flavors = api.engine.catalogue(within.project.id).await?;
    let mut images = Vec::new();
    for row in api.engine.image_rows().await? {
        // One that cannot be read does not hide the others; the log says which.
        match super::image_view(&api.engine, &row).await {
            Ok(view) => images.push(OfferedImage::from(view)),
            Err(error) => tracing::error!(image = %row.id, %error, "image cannot be shown"),
        }
    }
    Ok(Json(CatalogueView { flavors, images }))
}
