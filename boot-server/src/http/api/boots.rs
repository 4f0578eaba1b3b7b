//! What a node boots next, and nodes that are forgotten.

use axum::Json;
use axum::extract::State;
use boot_server_core::node::Event;
use boot_server_core::node::event::Verb;

use super::extract::{Input, Named};
use super::requests::{BootRequest, EmptyRequest};
use super::verbs::operator;
use super::{Answer, Api};
use crate::view::{NodeView, Problem};

/// Orders what a node boots from the network instead of the usual: once, or always.
#[utoipa::path(post, path = "/nodes/{node}/boot", tag = "nodes", operation_id = "order_boot",
    params(("node" = String, Path, description = "Name or id")), request_body = BootRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn order(
    State(api): State<Api>,
    Named(node): Named,
    Input(request): Input<BootRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let BootRequest { boot, repeat, confirm } = request;
    let node = api.engine.order_boot(&node, operator(), boot, repeat, confirm.as_deref()).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Takes such an order back: the next network boot is the usual one.
#[utoipa::path(delete, path = "/nodes/{node}/boot", tag = "nodes", operation_id = "clear_boot",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn clear(State(api): State<Api>, Named(node): Named) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.apply(node.id, operator(), Event::Verb(Verb::ClearBoot)).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Forgets a node that runs neither an OS nor a job; answers with what it was. Its events stay, and a machine that is
/// still there comes back as a new node at its next network boot.
#[utoipa::path(post, path = "/nodes/{node}/forget", tag = "nodes", operation_id = "forget_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn forget(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let was = api.engine.view(&node).await;
    api.engine.forget(&node, operator()).await?;
    Ok(Json(was))
}
