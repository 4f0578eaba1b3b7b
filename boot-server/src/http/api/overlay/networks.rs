//! Networks of a project.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::{Driver, NetworkKind};

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{NetworkChangeRequest, NetworkRequest};
use super::super::projects::InProject;
use super::super::requests::PageQuery;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::EngineError;
use crate::engine::overlay::{NetworkChange, NewNetwork, OverlayError};
use crate::store::overlay::Net;
use crate::view::networks::OverlayNetworkView;
use crate::view::{Page, Problem};

/// Networks of a project, oldest first; before them, on the first page, those of the site that it may use.
#[utoipa::path(get, path = "/projects/{project}/networks", tag = "networks", operation_id = "list_networks",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<OverlayNetworkView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<OverlayNetworkView>>> {
    let mut own: Page<OverlayNetworkView> = page::<Net, _>(&api, within.project.id, &query, |_| true)?;
    if query.cursor.is_none() {
        let shared = api.engine.shared_networks();
        let shared = shared.iter().map(|row| OverlayNetworkView::from(row.as_ref()));
        own.items = shared.chain(own.items).collect();
    }
    Ok(Json(own))
}

/// One network: of the project, or of the site where it is shared.
#[utoipa::path(get, path = "/projects/{project}/networks/{network}", tag = "networks", operation_id = "show_network",
    params(("project" = String, Path, description = "Name or id"),
        ("network" = String, Path, description = "Name or id")),
    responses((status = 200, body = OverlayNetworkView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(network): LastNamed,
) -> Answer<(Extension<Version>, Json<OverlayNetworkView>)> {
    let found = api.engine.overlay_network(within.project.id, &network)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Makes a network.
#[utoipa::path(post, path = "/projects/{project}/networks", tag = "networks", operation_id = "create_network",
    params(("project" = String, Path, description = "Name or id")),
    request_body = NetworkRequest,
    responses((status = 201, body = OverlayNetworkView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(NetworkRequest { name, mtu, driver, fabric }): Input<NetworkRequest>,
) -> Answer<(StatusCode, Json<OverlayNetworkView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let made = match driver.unwrap_or_else(|| api.engine.usual_driver()) {
        Driver::Ovn if fabric.is_none() => {
            let wish = NewNetwork { name, mtu, kind: NetworkKind::Overlay, shared: false };
            api.engine.create_network(project, actor, wish).await?
        }
        Driver::Switch => {
            api.engine.create_switch_network(project, actor, name, mtu, fabric.as_deref()).await?
        }
        Driver::Ovn => {
            let what = "a fabric is of networks that switches make";
            return Err(
                EngineError::from(OverlayError::bad(what, "say `driver`: `switch`, or no fabric")).into()
            );
        }
        Driver::Flat => {
            let what = "a network as it is belongs to the site";
            let hint = "those who run the site make it and share it (`billet provider create --driver flat`)";
            return Err(EngineError::from(OverlayError::bad(what, hint)).into());
        }
    };
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Changes a network. What is not given stays.
#[utoipa::path(patch, path = "/projects/{project}/networks/{network}", tag = "networks", operation_id = "change_network",
    params(("project" = String, Path, description = "Name or id"),
        ("network" = String, Path, description = "Name or id")),
    request_body = NetworkChangeRequest,
    responses((status = 200, body = OverlayNetworkView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(network): LastNamed,
    Input(NetworkChangeRequest { name, mtu }): Input<NetworkChangeRequest>,
) -> Answer<Json<OverlayNetworkView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let change = NetworkChange { name, mtu, shared: None };
    let made = api.engine.change_network(project, actor, &network, change).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a network with its subnets. Refused while ports, routers or floating addresses are on it.
#[utoipa::path(delete, path = "/projects/{project}/networks/{network}", tag = "networks", operation_id = "delete_network",
    params(("project" = String, Path, description = "Name or id"),
        ("network" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(network): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_network(within.project.id, within.who.actor(), &network).await?;
    Ok(StatusCode::NO_CONTENT)
}
