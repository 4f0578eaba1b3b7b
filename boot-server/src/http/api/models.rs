//! Expected hardware: models, and how machines stand against them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::expected::Model;

use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{AcceptRequest, LearnRequest, ModelRequest, PageQuery};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::EngineError;
use crate::view::{ExpectedView, NodeView, Page, Problem};

/// All models, by name.
#[utoipa::path(get, path = "/models", tag = "models", operation_id = "list_models",
    params(PageQuery), responses((status = 200, body = Page<Model>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<Model>>> {
    Ok(Json(page_by_place(&api.engine.models().await?, &query)?))
}

/// Makes a model. Every machine that it is for is compared with it.
#[utoipa::path(post, path = "/models", tag = "models", operation_id = "create_model", request_body = Model,
    responses((status = 201, body = Model), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(model): Input<Model>,
) -> Answer<(StatusCode, Json<Model>)> {
    Ok((StatusCode::CREATED, Json(api.engine.put_model(operator(), model, false).await?)))
}

/// One model.
#[utoipa::path(get, path = "/models/{name}", tag = "models", operation_id = "show_model",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = Model), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(name): Named) -> Answer<Json<Model>> {
    Ok(Json(api.engine.model(&name).await?))
}

/// Makes a model, in place of one of this name if there is one.
#[utoipa::path(put, path = "/models/{name}", tag = "models", operation_id = "put_model",
    params(("name" = String, Path, description = "Name")), request_body = Model,
    responses((status = 200, body = Model), (status = 400, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn put(
    State(api): State<Api>,
    Named(name): Named,
    Input(model): Input<Model>,
) -> Answer<Json<Model>> {
    if model.name != name {
        let called: String = model.name.chars().take(80).collect();
        return Err(EngineError::BadModel {
            what: format!("the model calls itself `{called}`"),
            hint: "give it the name of its address",
        }
        .into());
    }
    Ok(Json(api.engine.put_model(operator(), model, true).await?))
}

/// Removes a model. Machines that were in quarantine because of it are free.
#[utoipa::path(delete, path = "/models/{name}", tag = "models", operation_id = "delete_model",
    params(("name" = String, Path, description = "Name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(name): Named) -> Answer<StatusCode> {
    api.engine.remove_model(operator(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a model from a machine that is as it should be.
#[utoipa::path(post, path = "/nodes/{node}/learn", tag = "models", operation_id = "learn_model",
    params(("node" = String, Path, description = "Name or id")), request_body = LearnRequest,
    responses((status = 200, body = Model), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn learn(
    State(api): State<Api>,
    Named(node): Named,
    Input(LearnRequest { name, replace }): Input<LearnRequest>,
) -> Answer<Json<Model>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.learn_model(operator(), &node, &name, replace).await?))
}

/// Says of which model a node is.
#[utoipa::path(put, path = "/nodes/{node}/model", tag = "models", operation_id = "assign_model",
    params(("node" = String, Path, description = "Name or id")), request_body = ModelRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn assign(
    State(api): State<Api>,
    Named(node): Named,
    Input(ModelRequest { model }): Input<ModelRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.assign_model(&node, operator(), model).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// How a node stands against the model that is for it, part by part.
#[utoipa::path(get, path = "/nodes/{node}/expected", tag = "models", operation_id = "node_expected",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = ExpectedView), (status = 404, body = Problem)))]
pub(super) async fn expected(State(api): State<Api>, Named(node): Named) -> Answer<Json<ExpectedView>> {
    let node = api.engine.node(&node).await?;
    Ok(Json(api.engine.expected(&node).await?))
}

/// Takes a node as it is, although it is not as its model says: out of quarantine until something else differs.
#[utoipa::path(post, path = "/nodes/{node}/expected/accept", tag = "models", operation_id = "accept_differences",
    params(("node" = String, Path, description = "Name or id")), request_body = AcceptRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn accept(
    State(api): State<Api>,
    Named(node): Named,
    Input(AcceptRequest { reason }): Input<AcceptRequest>,
) -> Answer<Json<NodeView>> {
    let node = api.engine.node(&node).await?;
    let node = api.engine.accept(&node, operator(), &reason).await?;
    Ok(Json(api.engine.view(&node).await))
}
