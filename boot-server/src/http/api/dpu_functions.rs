//! Which functions hosts of DPUs get.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use protocol::functions::FunctionPlan;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Input, Named, Params, page_by_place};
use super::requests::PageQuery;
use super::verbs::operator;
use super::versions::Version;
use super::{Answer, Api};
use crate::view::dpu_functions::{DpuFunctionsView, DpuModelView};
use crate::view::{Page, Problem};

/// The operations of this file.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show, set, clear)).routes(routes!(models)).routes(routes!(
        model,
        set_model,
        clear_model
    ))
}

/// Which functions the host of a DPU gets, how far that is, and who takes what.
#[utoipa::path(get, path = "/dpus/{dpu}/functions", tag = "dpus", operation_id = "show_dpu_functions",
    params(("dpu" = String, Path, description = "Name or id")),
    responses((status = 200, body = DpuFunctionsView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(dpu): Named,
) -> Answer<(Extension<Version>, Json<DpuFunctionsView>)> {
    let view = DpuFunctionsView::from(api.engine.dpu_functions(&dpu).await?);
    Ok((Extension(Version(view.version)), Json(view)))
}

/// Says which functions the host of a DPU gets. The DPU writes that into its firmware; `pending` says that it is not in force yet, and on
/// a BlueField it is after a power cycle of the host. Refused where the model has not as many, or where a function would be gone that a
/// volume or port is.
#[utoipa::path(put, path = "/dpus/{dpu}/functions", tag = "dpus", operation_id = "set_dpu_functions",
    params(("dpu" = String, Path, description = "Name or id")), request_body = FunctionPlan,
    responses((status = 200, body = DpuFunctionsView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn set(
    State(api): State<Api>,
    Named(dpu): Named,
    Input(plan): Input<FunctionPlan>,
) -> Answer<Json<DpuFunctionsView>> {
    Ok(Json(api.engine.set_dpu_functions(operator(), &dpu, Some(plan)).await?.into()))
}

/// Leaves the firmware of a DPU as it is: nothing is taken from its host.
#[utoipa::path(delete, path = "/dpus/{dpu}/functions", tag = "dpus", operation_id = "clear_dpu_functions",
    params(("dpu" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It has no plan"), (status = 404, body = Problem)))]
pub(super) async fn clear(State(api): State<Api>, Named(dpu): Named) -> Answer<StatusCode> {
    api.engine.set_dpu_functions(operator(), &dpu, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Models of DPUs, with what each has at most, and what hosts of new ones get.
#[utoipa::path(get, path = "/dpu-models", tag = "dpus", operation_id = "list_dpu_models",
    params(PageQuery), responses((status = 200, body = Page<DpuModelView>)))]
pub(super) async fn models(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<DpuModelView>>> {
    let all: Vec<DpuModelView> = api.engine.dpu_models().await?.into_iter().map(Into::into).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// A model of DPUs.
#[utoipa::path(get, path = "/dpu-models/{model}", tag = "dpus", operation_id = "show_dpu_model",
    params(("model" = String, Path, description = "`bluefield2`, `bluefield3` or `generic`")),
    responses((status = 200, body = DpuModelView), (status = 404, body = Problem)))]
pub(super) async fn model(
    State(api): State<Api>,
    Named(model): Named,
) -> Answer<(Extension<Version>, Json<DpuModelView>)> {
    let view = DpuModelView::from(api.engine.dpu_model(&model).await?);
    Ok((Extension(Version(view.version)), Json(view)))
}

/// Says which functions hosts of DPUs of this model get, of those that come in for the first time from now on and have no plan.
#[utoipa::path(put, path = "/dpu-models/{model}", tag = "dpus", operation_id = "set_dpu_model",
    params(("model" = String, Path, description = "`bluefield2`, `bluefield3` or `generic`")), request_body = FunctionPlan,
    responses((status = 200, body = DpuModelView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn set_model(
    State(api): State<Api>,
    Named(model): Named,
    Input(plan): Input<FunctionPlan>,
) -> Answer<Json<DpuModelView>> {
    Ok(Json(api.engine.set_dpu_model(operator(), &model, Some(plan)).await?.into()))
}

/// New DPUs of this model get no plan.
#[utoipa::path(delete, path = "/dpu-models/{model}", tag = "dpus", operation_id = "clear_dpu_model",
    params(("model" = String, Path, description = "`bluefield2`, `bluefield3` or `generic`")),
    responses((status = 204, description = "It has no plan"), (status = 404, body = Problem)))]
pub(super) async fn clear_model(State(api): State<Api>, Named(model): Named) -> Answer<StatusCode> {
    api.engine.set_dpu_model(operator(), &model, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
