//! Named baselines of BIOS attributes, Secure Boot and firmware.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use boot_server_core::servicing::Baseline;

use super::extract::{Input, Named, Params, limit, page};
use super::requests::{ApplyRequest, PageQuery};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::EngineError;
use crate::view::{BaselineDiff, NodeView, Page, Problem};

/// All baselines, by name.
#[utoipa::path(get, path = "/baselines", tag = "baselines", operation_id = "list_baselines",
    params(PageQuery), responses((status = 200, body = Page<Baseline>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<Baseline>>> {
    let limit = limit(query.limit)?;
    let all = api.engine.baselines().await?.into_iter();
    Ok(Json(page(all, |baseline| baseline.name.clone(), query.cursor.as_deref(), limit)))
}

/// Makes a baseline.
#[utoipa::path(post, path = "/baselines", tag = "baselines", operation_id = "create_baseline", request_body = Baseline,
    responses((status = 201, body = Baseline), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(baseline): Input<Baseline>,
) -> Answer<(StatusCode, Json<Baseline>)> {
    let made = api.engine.put_baseline(operator(), baseline, false).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// One baseline.
#[utoipa::path(get, path = "/baselines/{name}", tag = "baselines", operation_id = "show_baseline",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = Baseline), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(name): Named) -> Answer<Json<Baseline>> {
    Ok(Json(api.engine.baseline(&name).await?))
}

/// Makes a baseline, in place of one of this name if there is one.
#[utoipa::path(put, path = "/baselines/{name}", tag = "baselines", operation_id = "put_baseline",
    params(("name" = String, Path, description = "Name")), request_body = Baseline,
    responses((status = 200, body = Baseline), (status = 422, body = Problem)))]
pub(super) async fn put(
    State(api): State<Api>,
    Named(name): Named,
    Input(baseline): Input<Baseline>,
) -> Answer<Json<Baseline>> {
    if baseline.name != name {
        return Err(EngineError::BadService {
            what: format!(
                "the baseline calls itself `{}`",
                baseline.name.chars().take(80).collect::<String>()
            ),
            hint: "give it the name of its address".to_owned(),
        }
        .into());
    }
    Ok(Json(api.engine.put_baseline(operator(), baseline, true).await?))
}

/// Removes a baseline. Machines stay as they are.
#[utoipa::path(delete, path = "/baselines/{name}", tag = "baselines", operation_id = "delete_baseline",
    params(("name" = String, Path, description = "Name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(name): Named) -> Answer<StatusCode> {
    api.engine.remove_baseline(operator(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a node stands against a baseline, read now: each attribute as it is and as it is to be.
#[utoipa::path(get, path = "/nodes/{node}/baselines/{name}", tag = "baselines", operation_id = "compare_with_baseline",
    params(("node" = String, Path, description = "Name or id"), ("name" = String, Path, description = "Name")),
    responses((status = 200, body = BaselineDiff), (status = 404, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn compare(
    State(api): State<Api>,
    Path((node, name)): Path<(String, String)>,
) -> Answer<Json<BaselineDiff>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.compare(&node, &name).await?))
}

/// Makes a node as a baseline says, by a servicing job.
#[utoipa::path(post, path = "/nodes/{node}/baselines/{name}/apply", tag = "baselines", operation_id = "apply_baseline",
    params(("node" = String, Path, description = "Name or id"), ("name" = String, Path, description = "Name")),
    request_body = ApplyRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn apply(
    State(api): State<Api>,
    Path((node, name)): Path<(String, String)>,
    Input(ApplyRequest { firmware, restart }): Input<ApplyRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.apply_baseline(&node, operator(), &name, (firmware, restart)).await?;
    Ok(Json(api.engine.view(&node).await))
}
