//! Switches that put hosts without a DPU on their networks, and where the NICs of nodes are.

use axum::Json;
use axum::extract::{RawPathParams, State};
use boot_server_core::node::Cable;
use protocol::MacAddr;

use super::extract::{Input, LastNamed, Named, Params, bad_query, page_by_place};
use super::requests::PageQuery;
use super::verbs::operator;
use super::{Answer, Api};
use crate::view::switches::{CableView, SwitchView};
use crate::view::{NodeView, Page, Problem};

/// All switches that Billet manages, by name.
#[utoipa::path(get, path = "/switches", tag = "networks", operation_id = "list_switches",
    params(PageQuery), responses((status = 200, body = Page<SwitchView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SwitchView>>> {
    let name = |node| api.engine.node_name(node);
    let all: Vec<_> = api.engine.switches().into_iter().map(|switch| SwitchView::of(switch, name)).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// NICs of a node, and at which port of which switch each is: as somebody said, else as LLDP told.
#[utoipa::path(get, path = "/nodes/{node}/cables", tag = "nodes", operation_id = "list_cables",
    params(("node" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<CableView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn cables(
    State(api): State<Api>,
    Named(node): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<CableView>>> {
    let node = api.engine.node(&node).await?;
    let all: Vec<CableView> = api.engine.cables(&node).await?.into_iter().map(CableView::from).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// Says at which port of which switch a NIC is. It counts before what LLDP tells.
#[utoipa::path(put, path = "/nodes/{node}/cables/{mac}", tag = "nodes", operation_id = "set_cable",
    params(("node" = String, Path, description = "Name or id"), ("mac" = String, Path, description = "Address of the NIC")),
    request_body = Cable,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn set(
    State(api): State<Api>,
    names: RawPathParams,
    LastNamed(mac): LastNamed,
    Input(cable): Input<Cable>,
) -> Answer<Json<NodeView>> {
    change(&api, &names, &mac, Some(cable)).await
}

/// Leaves it to LLDP again.
#[utoipa::path(delete, path = "/nodes/{node}/cables/{mac}", tag = "nodes", operation_id = "clear_cable",
    params(("node" = String, Path, description = "Name or id"), ("mac" = String, Path, description = "Address of the NIC")),
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn clear(
    State(api): State<Api>,
    names: RawPathParams,
    LastNamed(mac): LastNamed,
) -> Answer<Json<NodeView>> {
    change(&api, &names, &mac, None).await
}

async fn change(api: &Api, names: &RawPathParams, mac: &str, cable: Option<Cable>) -> Answer<Json<NodeView>> {
    let node = names.iter().find(|(key, _)| *key == "node").map(|(_, value)| value).unwrap_or_default();
    let short: String = mac.chars().take(40).collect();
    let mac: MacAddr = mac.parse().map_err(|_| bad_query(format!("`{short}` is no MAC address")))?;
    let node = api.engine.node(node).await?;
    let node = api.engine.set_cable(&node, operator(), mac, cable).await?;
    Ok(Json(api.engine.view(&node).await))
}
