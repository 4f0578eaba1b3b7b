//! Pools, flavors, and in which pool a node is.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::flavor::Flavor;
use boot_server_core::pool::Pool;

use super::extract::{Input, Named, Params, page_by_place};
use super::place_requests::{NodePoolRequest, NodeTagsRequest};
use super::requests::PageQuery;
use super::verbs::operator;
use super::versions::Version;
use super::{Answer, Api};
use crate::view::place::{FlavorView, PoolView};
use crate::view::{NodeView, Page, Problem};

/// All pools, by name.
#[utoipa::path(get, path = "/pools", tag = "pools", operation_id = "list_pools",
    params(PageQuery), responses((status = 200, body = Page<PoolView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<PoolView>>> {
    Ok(Json(page_by_place(&api.engine.pool_views(), &query)?))
}

/// Makes a pool.
#[utoipa::path(post, path = "/pools", tag = "pools", operation_id = "create_pool", request_body = Pool,
    responses((status = 201, body = PoolView), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(pool): Input<Pool>,
) -> Answer<(StatusCode, Json<PoolView>)> {
    let made = api.engine.create_pool(operator(), pool).await?;
    Ok((StatusCode::CREATED, Json(PoolView::of(made, 0))))
}

/// One pool.
#[utoipa::path(get, path = "/pools/{pool}", tag = "pools", operation_id = "show_pool",
    params(("pool" = String, Path, description = "Name")),
    responses((status = 200, body = PoolView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(name): Named,
) -> Answer<(Extension<Version>, Json<PoolView>)> {
    // How many machines are in it is none of what a change could overwrite.
    let version = api.engine.pool(&name)?.version;
    Ok((Extension(Version(version)), Json(api.engine.pool_view(&name)?)))
}

/// Changes a pool: all of it is replaced by what is sent.
#[utoipa::path(put, path = "/pools/{pool}", tag = "pools", operation_id = "change_pool",
    params(("pool" = String, Path, description = "Name")), request_body = Pool,
    responses((status = 200, body = PoolView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    Named(name): Named,
    Input(pool): Input<Pool>,
) -> Answer<Json<PoolView>> {
    api.engine.change_pool(operator(), &name, pool, None).await?;
    Ok(Json(api.engine.pool_view(&name)?))
}

/// Removes a pool. Refused while machines are in it or a flavor names it.
#[utoipa::path(delete, path = "/pools/{pool}", tag = "pools", operation_id = "delete_pool",
    params(("pool" = String, Path, description = "Name")),
    responses((status = 204, description = "It is removed"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(name): Named) -> Answer<StatusCode> {
    api.engine.remove_pool(operator(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All flavors, by name, with how many machines there are of each.
#[utoipa::path(get, path = "/flavors", tag = "pools", operation_id = "list_flavors",
    params(PageQuery), responses((status = 200, body = Page<FlavorView>)))]
pub(super) async fn list_flavors(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<FlavorView>>> {
    Ok(Json(page_by_place(&api.engine.flavor_views().await?, &query)?))
}

/// Makes a flavor.
#[utoipa::path(post, path = "/flavors", tag = "pools", operation_id = "create_flavor", request_body = Flavor,
    responses((status = 201, body = FlavorView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create_flavor(
    State(api): State<Api>,
    Input(flavor): Input<Flavor>,
) -> Answer<(StatusCode, Json<FlavorView>)> {
    let made = api.engine.create_flavor(operator(), flavor).await?;
    Ok((StatusCode::CREATED, Json(api.engine.flavor_view(made.value.name.as_str()).await?)))
}

/// One flavor, with how many machines there are of it.
#[utoipa::path(get, path = "/flavors/{flavor}", tag = "pools", operation_id = "show_flavor",
    params(("flavor" = String, Path, description = "Name")),
    responses((status = 200, body = FlavorView), (status = 404, body = Problem)))]
pub(super) async fn show_flavor(
    State(api): State<Api>,
    Named(name): Named,
) -> Answer<(Extension<Version>, Json<FlavorView>)> {
    // How many machines are free is none of what a change could overwrite.
    let version = api.engine.kept_flavor(&name)?.version;
    Ok((Extension(Version(version)), Json(api.engine.flavor_view(&name).await?)))
}

/// Changes a flavor: all of it is replaced by what is sent. Servers that have it keep what they count.
#[utoipa::path(put, path = "/flavors/{flavor}", tag = "pools", operation_id = "change_flavor",
    params(("flavor" = String, Path, description = "Name")), request_body = Flavor,
    responses((status = 200, body = FlavorView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn change_flavor(
    State(api): State<Api>,
    Named(name): Named,
    Input(flavor): Input<Flavor>,
) -> Answer<Json<FlavorView>> {
    api.engine.change_flavor(operator(), &name, flavor, None).await?;
    Ok(Json(api.engine.flavor_view(&name).await?))
}

/// Removes a flavor. Refused while servers have it; withdraw it instead.
#[utoipa::path(delete, path = "/flavors/{flavor}", tag = "pools", operation_id = "delete_flavor",
    params(("flavor" = String, Path, description = "Name")),
    responses((status = 204, description = "It is removed"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn remove_flavor(State(api): State<Api>, Named(name): Named) -> Answer<StatusCode> {
    api.engine.remove_flavor(operator(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a node into a pool.
#[utoipa::path(put, path = "/nodes/{node}/pool", tag = "nodes", operation_id = "set_node_pool",
    params(("node" = String, Path, description = "Name or id")), request_body = NodePoolRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn set_node_pool(
    State(api): State<Api>,
    Named(node): Named,
    Input(NodePoolRequest { pool }): Input<NodePoolRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.set_node_pool(&node, operator(), pool).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Says of a node what its inventory does not; in place of the tags that it had.
#[utoipa::path(put, path = "/nodes/{node}/tags", tag = "nodes", operation_id = "set_node_tags",
    params(("node" = String, Path, description = "Name or id")), request_body = NodeTagsRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn set_node_tags(
    State(api): State<Api>,
    Named(node): Named,
    Input(NodeTagsRequest { tags }): Input<NodeTagsRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.set_node_tags(&node, operator(), tags).await?;
    Ok(Json(api.engine.view(&node).await))
}
