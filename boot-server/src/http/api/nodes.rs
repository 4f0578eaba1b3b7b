//! Reading nodes.

use axum::Json;
use axum::extract::State;
use boot_server_core::node::{Node, StateName};

use super::extract::{Named, Params, bad_query, limit, page};
use super::requests::NodeQuery;
use super::{Answer, Api};
use crate::view::{NodeDetail, NodeView, Page, Problem};

/// All nodes, by name.
#[utoipa::path(get, path = "/nodes", tag = "nodes", operation_id = "list_nodes", params(NodeQuery),
    responses((status = 200, body = Page<NodeView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<NodeQuery>,
) -> Answer<Json<Page<NodeView>>> {
    let limit = limit(query.limit)?;
    let state = query.state.as_deref().map(state_name).transpose()?;
    let wanted = query.q.as_deref().map(str::to_lowercase).unwrap_or_default();
    let mut views = Vec::new();
    for node in api.engine.nodes().await? {
        if state.is_none_or(|state| node.state.name() == state) {
            let view = api.engine.view(&node).await;
            if matches(&view, &wanted) {
                views.push(view);
            }
        }
    }
    Ok(Json(page(views.into_iter(), |n| n.name.clone(), query.cursor.as_deref(), limit)))
}

fn state_name(text: &str) -> Result<StateName, Problem> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|_| {
        bad_query(format!("`{}` is no state of a node", text.chars().take(40).collect::<String>()))
    })
}

/// True where the node has this (in lower case) in something that people search for.
fn matches(node: &NodeView, wanted: &str) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let texts = [
        Some(node.name.clone()),
        node.serial.clone(),
        node.uuid.map(|u| u.to_string()),
        Some(node.id.to_string()),
        node.hardware.as_ref().map(|h| h.product.clone()),
        node.installed.as_ref().map(|i| format!("{} {}", i.hostname, i.image_name)),
    ];
    let macs = node.macs.iter().map(|m| Some(m.to_string()));
    texts.into_iter().chain(macs).flatten().any(|text| text.to_lowercase().contains(wanted))
}

/// One node with its inventory.
#[utoipa::path(get, path = "/nodes/{node}", tag = "nodes", operation_id = "show_node",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = NodeDetail), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(reference): Named) -> Answer<Json<NodeDetail>> {
    let node: Node = api.engine.node(&reference).await?;
    Ok(Json(api.engine.detail(&node).await))
}
