//! What a request for machines would get, and racks as they stand.

use axum::Json;
use axum::extract::State;
use boot_server_core::placement::By;
use protocol::ProjectId;

use super::extract::{Input, Params, page_by_place};
use super::place_requests::{PlacementRequest, RackQuery};
use super::requests::PageQuery;
use super::{Answer, Api, ProblemResponse};
use crate::tenancy::TenancyError;
use crate::view::place::{PlacementView, RackView, RoomView};
use crate::view::{Page, Problem};

/// Would this request be placed, and if not, why is each machine rejected? Nothing is claimed.
#[utoipa::path(post, path = "/placements", tag = "pools", operation_id = "try_placement", request_body = PlacementRequest,
    responses((status = 200, body = PlacementView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn attempt(
    State(api): State<Api>,
    Input(request): Input<PlacementRequest>,
) -> Answer<Json<PlacementView>> {
    let by = match &request.project {
        Some(project) => By::Project(project_id(&api, project)?),
        None => By::Site,
    };
    Ok(Json(api.engine.try_placement(by, &request).await?))
}

/// The project that somebody names.
fn project_id(api: &Api, reference: &str) -> Result<ProjectId, ProblemResponse> {
    let found = api.operators.tenancy().project(reference).map(|project| project.id);
    found.ok_or_else(|| TenancyError::ProjectNotFound(reference.chars().take(80).collect()).into())
}

/// Rooms with racks, in numbers.
#[utoipa::path(get, path = "/rooms", tag = "nodes", operation_id = "list_rooms",
    params(PageQuery), responses((status = 200, body = Page<RoomView>)))]
pub(super) async fn rooms(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<RoomView>>> {
    Ok(Json(page_by_place(&api.engine.rooms(), &query)?))
}

/// The racks of a room, each from above to below.
#[utoipa::path(get, path = "/racks", tag = "nodes", operation_id = "list_racks", params(RackQuery),
    responses((status = 200, body = Page<RackView>), (status = 400, body = Problem)))]
pub(super) async fn racks(
    State(api): State<Api>,
    Params(query): Params<RackQuery>,
) -> Answer<Json<Page<RackView>>> {
    let room = query.room.as_deref().filter(|room| !room.is_empty());
    let of_list = PageQuery { limit: query.limit, cursor: query.cursor.clone() };
    Ok(Json(page_by_place(&api.engine.racks(room).await?, &of_list)?))
}
