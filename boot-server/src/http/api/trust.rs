//! Identity of nodes: an operator vouches for a boot, pins a TPM, and says what machines of a model measure.

use axum::Json;
use axum::extract::State;
use boot_server_core::expected::Model;
use boot_server_core::node::Event;
use boot_server_core::node::event::Verb;

use super::extract::{Input, Named};
use super::requests::{ApproveBootRequest, LearnMeasuredRequest, PinTpmRequest};
use super::verbs::operator;
use super::{Answer, Api};
use crate::view::{NodeView, Problem};

async fn apply(api: &Api, node: &str, verb: Verb) -> Answer<Json<NodeView>> {
    let node = api.engine.node(node).await?;
    let node = api.engine.apply(node.id, operator(), Event::Verb(verb)).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Vouches for the agent that runs on a node now, until it boots again: level T2.
#[utoipa::path(post, path = "/nodes/{node}/approve-boot", tag = "nodes", operation_id = "approve_boot",
    params(("node" = String, Path, description = "Name or id")), request_body = ApproveBootRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn approve(
    State(api): State<Api>,
    Named(node): Named,
    Input(ApproveBootRequest { boot }): Input<ApproveBootRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &node, Verb::ApproveBoot { boot, by: operator().name().to_owned() }).await
}

/// Says that the TPM that a node's agent shows is its own. Another one is an alarm from then on, and gets nothing.
#[utoipa::path(put, path = "/nodes/{node}/tpm", tag = "nodes", operation_id = "pin_tpm",
    params(("node" = String, Path, description = "Name or id")), request_body = PinTpmRequest,
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn pin(
    State(api): State<Api>,
    Named(node): Named,
    Input(PinTpmRequest { ek }): Input<PinTpmRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &node, Verb::PinTpm { ek: Some(ek), by: operator().name().to_owned() }).await
}

/// Forgets the TPM of a node: it is below T3 from then on.
#[utoipa::path(delete, path = "/nodes/{node}/tpm", tag = "nodes", operation_id = "unpin_tpm",
    params(("node" = String, Path, description = "Name or id")),
    responses((status = 200, body = NodeView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn unpin(State(api): State<Api>, Named(node): Named) -> Answer<Json<NodeView>> {
    apply(&api, &node, Verb::PinTpm { ek: None, by: operator().name().to_owned() }).await
}

/// Takes into a model what a machine measured that booted as it should.
#[utoipa::path(post, path = "/models/{name}/measured", tag = "models", operation_id = "learn_measured",
    params(("name" = String, Path, description = "Name")), request_body = LearnMeasuredRequest,
    responses((status = 200, body = Model), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn learn(
    State(api): State<Api>,
    Named(name): Named,
    Input(LearnMeasuredRequest { node, pcrs, add, trust_first_tpm }): Input<LearnMeasuredRequest>,
) -> Answer<Json<Model>> {
    let node = api.engine.node(&node).await?;
    let model = api.engine.learn_measured(operator(), &name, &node, &pcrs, add, trust_first_tpm).await?;
    Ok(Json(model))
}
