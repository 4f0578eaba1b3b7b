//! Network settings of nodes that get none by DHCP.

use axum::Json;
use axum::extract::State;
use boot_server_core::node::StaticNetwork;

use super::extract::{Input, Named};
use super::verbs::operator;
use super::{Answer, Api};
use crate::view::{NodeView, Problem};

/// Gives a node network settings: its agent boots from virtual media and takes them, and so does the OS that is deployed. The
/// address must be nobody else's.
#[utoipa::path(put, path = "/nodes/{node}/network", tag = "nodes", operation_id = "set_network",
    params(("node" = String, Path, description = "Name or id")), request_body = StaticNetwork,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn set(
    State(api): State<Api>,
    Named(node): Named,
    Input(network): Input<StaticNetwork>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.set_network(&node, operator(), Some(network)).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Takes them away: the node boots from the network again, and gets its address by DHCP.
#[utoipa::path(delete, path = "/nodes/{node}/network", tag = "nodes", operation_id = "clear_network",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = NodeView), (status = 404, body = Problem)))]
pub(super) async fn clear(State(api): State<Api>, Named(node): Named) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.set_network(&node, operator(), None).await?;
    Ok(Json(api.engine.view(&node).await))
}
