//! DPUs of the site.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::dpu::InterfaceName;

use super::dpu_setup::bmc_view;
use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{EmptyRequest, PageQuery};
use super::verbs::operator;
use super::volume_requests::{DpuChangeRequest, NewDpuRequest};
use super::{Answer, Api, ProblemResponse};
use crate::engine::{DpuChange, KnownDpu};
use crate::view::dpus::{DpuCreated, DpuView};
use crate::view::{Page, Problem};

impl Api {
    /// A DPU as it is shown.
    pub(in crate::http) fn dpu_view(&self, known: KnownDpu) -> DpuView {
        let silent = self.engine.dpu_is_silent(&known);
        let node = known.dpu.node.and_then(|node| self.engine.node_name(node));
        let id = known.dpu.id;
        let job = self.engine.jobs_of_dpu(id).into_iter().next();
        DpuView {
            bmc: bmc_view(&self.engine, id),
            job: job.map(Into::into),
            ..DpuView::of(known, node, silent)
        }
    }
}

/// All DPUs, by name.
#[utoipa::path(get, path = "/dpus", tag = "dpus", operation_id = "list_dpus",
    params(PageQuery), responses((status = 200, body = Page<DpuView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<DpuView>>> {
    let all: Vec<_> = api.engine.dpus().into_iter().map(|known| api.dpu_view(known)).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// Registers a DPU, and makes the token that it comes in with, once.
#[utoipa::path(post, path = "/dpus", tag = "dpus", operation_id = "create_dpu", request_body = NewDpuRequest,
    responses((status = 201, body = DpuCreated), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(request): Input<NewDpuRequest>,
) -> Answer<(StatusCode, Json<DpuCreated>)> {
    let NewDpuRequest { name, node, tunnel_address, datapath, provisioning_bridge } = request;
    let change = DpuChange {
        node,
        tunnel_address,
        datapath: datapath.map(Into::into),
        provisioning_bridge: bridge(provisioning_bridge)?,
        accept: false,
    };
    let (known, token) = api.engine.create_dpu(operator(), name, change).await?;
    Ok((StatusCode::CREATED, Json(DpuCreated { dpu: api.dpu_view(known), token })))
}

fn bridge(name: Option<String>) -> Answer<Option<InterfaceName>> {
    let parsed = name.map(|name| name.parse::<InterfaceName>()).transpose();
    parsed.map_err(|error| {
        let hint = "give the name of a bridge of the DPU, such as br-provision";
        ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-bridge", error.to_string(), hint)
    })
}

/// One DPU: what it is, what it is to be, and what it says that it is.
#[utoipa::path(get, path = "/dpus/{dpu}", tag = "dpus", operation_id = "show_dpu",
    params(("dpu" = String, Path, description = "Name or id")),
    responses((status = 200, body = DpuView), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(dpu): Named) -> Answer<Json<DpuView>> {
    Ok(Json(api.dpu_view(api.engine.dpu(&dpu)?)))
}

/// Changes what is said of a DPU.
#[utoipa::path(patch, path = "/dpus/{dpu}", tag = "dpus", operation_id = "change_dpu",
    params(("dpu" = String, Path, description = "Name or id")), request_body = DpuChangeRequest,
    responses((status = 200, body = DpuView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(request): Input<DpuChangeRequest>,
) -> Answer<Json<DpuView>> {
    let DpuChangeRequest { node, tunnel_address, datapath, provisioning_bridge } = request;
    let change = DpuChange {
        node,
        tunnel_address,
        datapath: datapath.map(Into::into),
        provisioning_bridge: bridge(provisioning_bridge)?,
        accept: false,
    };
    Ok(Json(api.dpu_view(api.engine.change_dpu(operator(), &dpu, change).await?)))
}

/// Accepts a DPU that introduced itself: from then on it gets networks and disks.
#[utoipa::path(post, path = "/dpus/{dpu}/accept", tag = "dpus", operation_id = "accept_dpu",
    params(("dpu" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = DpuView), (status = 404, body = Problem)))]
pub(super) async fn accept(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<DpuView>> {
    let change = DpuChange { accept: true, ..DpuChange::default() };
    Ok(Json(api.dpu_view(api.engine.change_dpu(operator(), &dpu, change).await?)))
}

/// Forgets a DPU that has no disk of a server.
#[utoipa::path(delete, path = "/dpus/{dpu}", tag = "dpus", operation_id = "delete_dpu",
    params(("dpu" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is forgotten"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(dpu): Named) -> Answer<StatusCode> {
    api.engine.remove_dpu(operator(), &dpu).await?;
    Ok(StatusCode::NO_CONTENT)
}
