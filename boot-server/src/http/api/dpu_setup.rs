//! The set-up of DPUs by their controllers.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use boot_server_core::setup::Order;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dpu_requests::{DpuBmcRequest, DpuJobRequest};
use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{EmptyRequest, PageQuery};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::{Engine, EngineError};
use crate::http::auth::need_places;
use crate::view::dpu_setup::{DpuBmcView, DpuJobView};
use crate::view::dpus::DpuView;
use crate::view::{Page, Problem};

/// The operations of this file.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(set_bmc, forget_bmc))
        .routes(routes!(trust_bmc))
        .routes(routes!(enrol))
        .routes(routes!(begin, jobs))
        .routes(routes!(job))
        .routes(routes!(cancel))
}

/// The controller of a DPU as it is shown.
pub(in crate::http) fn bmc_view(engine: &Engine, dpu: protocol::DpuId) -> Option<DpuBmcView> {
    let row = engine.dpu_controller(dpu)?;
    let (trouble, health) = (engine.dpu_controller_trouble(dpu), engine.dpu_health(dpu));
    Some(DpuBmcView { health, ..DpuBmcView::of(row, trouble) })
}

/// What a request asks for, with the digest of its file.
///
/// # Errors
/// Where there is no such file, or nothing to go back to.
pub(in crate::http) async fn order(
    engine: &Engine,
    dpu: &str,
    request: DpuJobRequest,
) -> Result<Order, EngineError> {
    Ok(match request {
        DpuJobRequest::Mode { mode, power_cycle } => Order::Mode { mode, cycle: power_cycle },
        DpuJobRequest::HostPrivilege { privilege } => Order::Privilege { privilege },
        DpuJobRequest::Install { image, sha256, agent } => {
            let sha256 = engine.dpu_image_digest(&image, sha256).await?;
            Order::Install { image, sha256, agent, rollback: false }
        }
        DpuJobRequest::Rollback {} => {
            let order = engine.dpu_rollback(dpu)?;
            if let Some((image, sha256)) = order.image() {
                engine.dpu_image_digest(image, Some(sha256)).await?;
            }
            order
        }
        DpuJobRequest::Firmware { part, image, sha256 } => {
            let sha256 = engine.dpu_image_digest(&image, sha256).await?;
            Order::Firmware { part, image, sha256 }
        }
        DpuJobRequest::Reset { force } => Order::Reset { graceful: !force },
    })
}

/// Gives a DPU its own BMC, or changes what is known of it. For the site's own token where it names a place.
#[utoipa::path(put, path = "/dpus/{dpu}/bmc", tag = "dpus", operation_id = "set_dpu_bmc",
    params(("dpu" = String, Path, description = "Name or id")), request_body = DpuBmcRequest,
    responses((status = 200, body = DpuView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn set_bmc(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(request): Input<DpuBmcRequest>,
) -> Answer<Json<DpuView>> {
    let known = api.engine.dpu_controller(api.engine.dpu(&dpu)?.dpu.id);
    let other = |address: &String| known.as_ref().is_none_or(|known| known.address != *address);
    if request.address.as_ref().is_some_and(other) || request.port.is_some() {
        need_places()?;
    }
    Ok(Json(api.dpu_view(api.engine.set_dpu_controller(operator(), &dpu, request.into()).await?)))
}

/// Forgets the BMC of a DPU with its account.
#[utoipa::path(delete, path = "/dpus/{dpu}/bmc", tag = "dpus", operation_id = "forget_dpu_bmc",
    params(("dpu" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is forgotten"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn forget_bmc(State(api): State<Api>, Named(dpu): Named) -> Answer<StatusCode> {
    api.engine.remove_dpu_controller(operator(), &dpu).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts the certificate that the BMC of a DPU shows now.
#[utoipa::path(post, path = "/dpus/{dpu}/bmc/trust", tag = "dpus", operation_id = "trust_dpu_bmc",
    params(("dpu" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = DpuView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn trust_bmc(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<DpuView>> {
    Ok(Json(api.dpu_view(api.engine.trust_dpu_controller(operator(), &dpu).await?)))
}

/// Reads by its BMC what a DPU is, and finds its host. Where that is not certain nobody is, and the answer says why.
#[utoipa::path(post, path = "/dpus/{dpu}/enroll", tag = "dpus", operation_id = "enroll_dpu",
    params(("dpu" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = DpuView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn enrol(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<DpuView>> {
    Ok(Json(api.dpu_view(api.engine.enrol_dpu(operator(), &dpu).await?)))
}

/// Begins a job that sets a DPU up. Refused while the host runs a server, unless the host is under maintenance or off.
#[utoipa::path(post, path = "/dpus/{dpu}/jobs", tag = "dpus", operation_id = "create_dpu_job",
    params(("dpu" = String, Path, description = "Name or id")), request_body = DpuJobRequest,
    responses((status = 202, body = DpuJobView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn begin(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(request): Input<DpuJobRequest>,
) -> Answer<(StatusCode, Json<DpuJobView>)> {
    let order = order(&api.engine, &dpu, request).await?;
    let job = api.engine.begin_dpu_job(operator(), &dpu, order).await?;
    Ok((StatusCode::ACCEPTED, Json(job.into())))
}

/// Jobs that set a DPU up, the newest first. What was installed stays in the list, of the rest the last 50.
#[utoipa::path(get, path = "/dpus/{dpu}/jobs", tag = "dpus", operation_id = "list_dpu_jobs",
    params(("dpu" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<DpuJobView>), (status = 404, body = Problem)))]
pub(super) async fn jobs(
    State(api): State<Api>,
    Named(dpu): Named,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<DpuJobView>>> {
    let all: Vec<DpuJobView> = api.engine.dpu_jobs(&dpu)?.into_iter().map(Into::into).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// A job that sets a DPU up.
#[utoipa::path(get, path = "/dpus/{dpu}/jobs/{job}", tag = "dpus", operation_id = "show_dpu_job",
    params(("dpu" = String, Path, description = "Name or id"), ("job" = String, Path, description = "Id")),
    responses((status = 200, body = DpuJobView), (status = 404, body = Problem)))]
pub(super) async fn job(
    State(api): State<Api>,
    Path((dpu, job)): Path<(String, String)>,
) -> Answer<Json<DpuJobView>> {
    Ok(Json(api.engine.dpu_job(&dpu, &job)?.into()))
}

/// Calls a job off. A mode or a privilege that does not show yet is taken back.
#[utoipa::path(post, path = "/dpus/{dpu}/jobs/{job}/cancel", tag = "dpus", operation_id = "cancel_dpu_job",
    params(("dpu" = String, Path, description = "Name or id"), ("job" = String, Path, description = "Id")),
    request_body = EmptyRequest,
    responses((status = 200, body = DpuJobView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Path((dpu, job)): Path<(String, String)>,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<DpuJobView>> {
    Ok(Json(api.engine.call_off_dpu_job(operator(), &dpu, &job).await?.into()))
}
