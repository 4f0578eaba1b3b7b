//! The site's own networks, and how far OVN is.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::network::{Driver, NetworkKind, Subnet};

use super::super::extract::{Input, LastNamed, Named, Params};
use super::super::network_requests::{
    ProviderNetworkChangeRequest, ProviderNetworkRequest, ProviderSubnetRequest, SubnetChangeRequest,
};
use super::super::requests::PageQuery;
use super::super::verbs::operator;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::EngineError;
use crate::engine::overlay::{NetworkChange, NewNetwork, NewSubnet, OverlayError, SubnetChange};
use crate::store::overlay::{Net, SITE};
use crate::view::networks::{OverlayStatusView, ProviderNetworkView, SubnetView};
use crate::view::{Page, Problem};

/// Whether OVN is as the networks are, and if not, why.
#[utoipa::path(get, path = "/overlay/status", tag = "networks", operation_id = "overlay_status",
    responses((status = 200, body = OverlayStatusView)))]
pub async fn status(State(api): State<Api>) -> Json<OverlayStatusView> {
    let settings = api.engine.overlay_settings().ok();
    let northbound = settings.and_then(|settings| settings.northbound.as_ref()).map(ToString::to_string);
    Json(OverlayStatusView::of(northbound, api.engine.overlay_synced()))
}

/// Provider networks of the site, oldest first.
#[utoipa::path(get, path = "/networks", tag = "networks", operation_id = "list_provider_networks",
    params(PageQuery), responses((status = 200, body = Page<ProviderNetworkView>), (status = 400, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<ProviderNetworkView>>> {
    Ok(Json(page::<Net, _>(&api, SITE, &query, |_| true)?))
}

/// Makes a provider network: a wire of the site, which projects may use where it is shared.
#[utoipa::path(post, path = "/networks", tag = "networks", operation_id = "create_provider_network",
    request_body = ProviderNetworkRequest,
    responses((status = 201, body = ProviderNetworkView), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    Input(request): Input<ProviderNetworkRequest>,
) -> Answer<(StatusCode, Json<ProviderNetworkView>)> {
    let ProviderNetworkRequest { name, physical, driver, vlan, mtu, shared } = request;
    let kind = match (driver.unwrap_or(Driver::Ovn), vlan) {
        (Driver::Ovn, vlan) => NetworkKind::Provider { physical, vlan },
        (Driver::Flat, None) => NetworkKind::Flat { physical },
        (Driver::Flat, Some(_)) => {
            let what = "a network as it is has no VLAN here: machines are on it untagged";
            return Err(EngineError::from(OverlayError::bad(what, "leave the VLAN out")).into());
        }
        (Driver::Switch, _) => {
            let what = "networks that switches make are of projects";
            return Err(EngineError::from(OverlayError::bad(what, "make it in a project")).into());
        }
    };
    let wish = NewNetwork { name, mtu, kind, shared };
    let made = api.engine.create_network(SITE, operator(), wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// One provider network.
#[utoipa::path(get, path = "/networks/{network}", tag = "networks", operation_id = "show_provider_network",
    params(("network" = String, Path, description = "Name or id")),
    responses((status = 200, body = ProviderNetworkView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    Named(network): Named,
) -> Answer<(Extension<Version>, Json<ProviderNetworkView>)> {
    let found = api.engine.overlay_thing::<Net>(SITE, &network)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Changes a provider network. What is not given stays.
#[utoipa::path(patch, path = "/networks/{network}", tag = "networks", operation_id = "change_provider_network",
    params(("network" = String, Path, description = "Name or id")), request_body = ProviderNetworkChangeRequest,
    responses((status = 200, body = ProviderNetworkView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    Named(network): Named,
    Input(request): Input<ProviderNetworkChangeRequest>,
) -> Answer<Json<ProviderNetworkView>> {
    let ProviderNetworkChangeRequest { name, mtu, shared } = request;
    let change = NetworkChange { name, mtu, shared };
    let made = api.engine.change_network(SITE, operator(), &network, change).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a provider network with its subnets. Refused while routers or floating addresses are on it.
#[utoipa::path(delete, path = "/networks/{network}", tag = "networks", operation_id = "delete_provider_network",
    params(("network" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn remove(State(api): State<Api>, Named(network): Named) -> Answer<StatusCode> {
    api.engine.remove_network(SITE, operator(), &network).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Subnets of a provider network, oldest first.
#[utoipa::path(get, path = "/networks/{network}/subnets", tag = "networks", operation_id = "list_provider_subnets",
    params(("network" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<SubnetView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list_subnets(
    State(api): State<Api>,
    Named(network): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SubnetView>>> {
    let network = api.engine.overlay_thing::<Net>(SITE, &network)?.id;
    Ok(Json(page::<Subnet, _>(&api, SITE, &query, |subnet| subnet.network == network)?))
}

/// Makes a subnet of a provider network. Nobody answers DHCP there.
#[utoipa::path(post, path = "/networks/{network}/subnets", tag = "networks", operation_id = "create_provider_subnet",
    params(("network" = String, Path, description = "Name or id")), request_body = ProviderSubnetRequest,
    responses((status = 201, body = SubnetView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create_subnet(
    State(api): State<Api>,
    Named(network): Named,
    Input(request): Input<ProviderSubnetRequest>,
) -> Answer<(StatusCode, Json<SubnetView>)> {
    let ProviderSubnetRequest { name, cidr, gateway, pools, dns } = request;
    let wish = NewSubnet {
        name,
        network,
        cidr,
        gateway: gateway.map(Some),
        pools,
        reserved: Default::default(),
        dns,
        dhcp: false,
    };
    let made = api.engine.create_subnet(SITE, operator(), wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// One subnet of a provider network.
#[utoipa::path(get, path = "/networks/{network}/subnets/{subnet}", tag = "networks", operation_id = "show_provider_subnet",
    params(("network" = String, Path, description = "Name or id"), ("subnet" = String, Path, description = "Name or id")),
    responses((status = 200, body = SubnetView), (status = 404, body = Problem)))]
pub async fn show_subnet(
    State(api): State<Api>,
    names: RawPathParams,
    LastNamed(subnet): LastNamed,
) -> Answer<(Extension<Version>, Json<SubnetView>)> {
    let found = subnet_of(&api, &names, &subnet)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Changes a subnet of a provider network. What is not given stays.
#[utoipa::path(patch, path = "/networks/{network}/subnets/{subnet}", tag = "networks", operation_id = "change_provider_subnet",
    params(("network" = String, Path, description = "Name or id"), ("subnet" = String, Path, description = "Name or id")),
    request_body = SubnetChangeRequest,
    responses((status = 200, body = SubnetView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change_subnet(
    State(api): State<Api>,
    names: RawPathParams,
    LastNamed(subnet): LastNamed,
    Input(request): Input<SubnetChangeRequest>,
) -> Answer<Json<SubnetView>> {
    subnet_of(&api, &names, &subnet)?;
    let SubnetChangeRequest { name, pools, reserved, dns, dhcp } = request;
    let change = SubnetChange { name, pools, reserved, dns, dhcp };
    let made = api.engine.change_subnet(SITE, operator(), &subnet, change).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a subnet of a provider network. Refused while routers or floating addresses are on it.
#[utoipa::path(delete, path = "/networks/{network}/subnets/{subnet}", tag = "networks", operation_id = "delete_provider_subnet",
    params(("network" = String, Path, description = "Name or id"), ("subnet" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn remove_subnet(
    State(api): State<Api>,
    names: RawPathParams,
    LastNamed(subnet): LastNamed,
) -> Answer<StatusCode> {
    subnet_of(&api, &names, &subnet)?;
    api.engine.remove_subnet(SITE, operator(), &subnet).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A subnet of the network that the path names.
fn subnet_of(
    api: &Api,
    names: &RawPathParams,
    subnet: &str,
) -> Result<std::sync::Arc<crate::store::overlay::Row<Subnet>>, EngineError> {
    let network = names.iter().find(|(key, _)| *key == "network").map(|(_, name)| name).unwrap_or_default();
    let network = api.engine.overlay_thing::<Net>(SITE, network)?.id;
    let found = api.engine.overlay_thing::<Subnet>(SITE, subnet)?;
    if found.value.network == network {
        Ok(found)
    } else {
        Err(OverlayError::no_such::<Subnet>(subnet).into())
    }
}
