//! Subnets of a project's networks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use boot_server_core::access::Role;
use boot_server_core::network::Subnet;

use super::super::extract::{Input, LastNamed, Params};
use super::super::network_requests::{SubnetChangeRequest, SubnetRequest};
use super::super::projects::InProject;
use super::super::requests::PageQuery;
use super::super::versions::Version;
use super::super::{Answer, Api};
use super::page;
use crate::engine::overlay::{NewSubnet, SubnetChange};
use crate::view::networks::SubnetView;
use crate::view::{Page, Problem};

/// Subnets of a project, oldest first.
#[utoipa::path(get, path = "/projects/{project}/subnets", tag = "networks", operation_id = "list_subnets",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<SubnetView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SubnetView>>> {
    Ok(Json(page::<Subnet, _>(&api, within.project.id, &query, |_| true)?))
}

/// One subnet: of the project, or of a network of the site that is shared.
#[utoipa::path(get, path = "/projects/{project}/subnets/{subnet}", tag = "networks", operation_id = "show_subnet",
    params(("project" = String, Path, description = "Name or id"),
        ("subnet" = String, Path, description = "Name or id")),
    responses((status = 200, body = SubnetView), (status = 404, body = Problem)))]
pub async fn show(
    State(api): State<Api>,
    within: InProject,
    LastNamed(subnet): LastNamed,
) -> Answer<(Extension<Version>, Json<SubnetView>)> {
    let found = api.engine.overlay_subnet(within.project.id, &subnet)?;
    Ok((Extension(Version(found.version)), Json(found.as_ref().into())))
}

/// Makes a subnet.
#[utoipa::path(post, path = "/projects/{project}/subnets", tag = "networks", operation_id = "create_subnet",
    params(("project" = String, Path, description = "Name or id")),
    request_body = SubnetRequest,
    responses((status = 201, body = SubnetView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<SubnetRequest>,
) -> Answer<(StatusCode, Json<SubnetView>)> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let gateway = if request.no_gateway { Some(None) } else { request.gateway.map(Some) };
    let wish = NewSubnet {
        name: request.name,
        network: request.network,
        cidr: request.cidr,
        gateway,
        pools: request.pools,
        reserved: request.reserved,
        dns: request.dns,
        dhcp: !request.no_dhcp,
    };
    let made = api.engine.create_subnet(project, actor, wish).await?;
    Ok((StatusCode::CREATED, Json(made.as_ref().into())))
}

/// Changes a subnet. What is not given stays.
#[utoipa::path(patch, path = "/projects/{project}/subnets/{subnet}", tag = "networks", operation_id = "change_subnet",
    params(("project" = String, Path, description = "Name or id"),
        ("subnet" = String, Path, description = "Name or id")),
    request_body = SubnetChangeRequest,
    responses((status = 200, body = SubnetView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(api): State<Api>,
    within: InProject,
    LastNamed(subnet): LastNamed,
    Input(request): Input<SubnetChangeRequest>,
) -> Answer<Json<SubnetView>> {
    within.need(Role::Member)?;
    let (project, actor) = (within.project.id, within.who.actor());
    let SubnetChangeRequest { name, pools, reserved, dns, dhcp } = request;
    let change = SubnetChange { name, pools, reserved, dns, dhcp };
    let made = api.engine.change_subnet(project, actor, &subnet, change).await?;
    Ok(Json(made.as_ref().into()))
}

/// Removes a subnet. Refused while ports have addresses of it, or a router or a floating address is on it.
#[utoipa::path(delete, path = "/projects/{project}/subnets/{subnet}", tag = "networks", operation_id = "delete_subnet",
    params(("project" = String, Path, description = "Name or id"),
        ("subnet" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub async fn remove(
    State(api): State<Api>,
    within: InProject,
    LastNamed(subnet): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_subnet(within.project.id, within.who.actor(), &subnet).await?;
    Ok(StatusCode::NO_CONTENT)
}
