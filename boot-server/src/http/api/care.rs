//! What is said of a machine beside its state: adoption, retirement, papers, and when machines grow old.

use axum::Json;
use axum::extract::State;
use boot_server_core::node::Event;
use boot_server_core::node::event::Verb;
use boot_server_core::refresh::{Papers, RefreshPlan};

use super::extract::{Input, Named, Params};
use super::requests::{EmptyRequest, EvacuateRequest, RefreshQuery, RetireRequest};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::EngineError;
use crate::view::servers::ServerView;
use crate::view::{NodeView, Problem};

/// Longest reason, in bytes.
const REASON_MAX: usize = 1024;
/// Quarters that are planned unless told otherwise.
const QUARTERS: u32 = 8;

async fn apply(api: &Api, node: &str, verb: Verb) -> Answer<Json<NodeView>> {
    let node = api.engine.node(node).await?;
    let node = api.engine.apply(node.id, operator(), Event::Verb(verb)).await?;
    Ok(Json(api.engine.view(&node).await))
}

/// Takes over a machine that runs an OS already: manageable becomes active, and nothing is written.
#[utoipa::path(post, path = "/nodes/{node}/adopt", tag = "nodes", operation_id = "adopt_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn adopt(
    State(api): State<Api>,
    Named(node): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<NodeView>> {
    apply(&api, &node, Verb::Adopt).await
}

/// Takes a node out of use for good: nothing new is put on it, and once it is given back and wiped it stays out.
#[utoipa::path(post, path = "/nodes/{node}/retire", tag = "nodes", operation_id = "retire_node",
    params(("node" = String, Path, description = "Name or id")), request_body = RetireRequest,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn retire(
    State(api): State<Api>,
    Named(node): Named,
    Input(RetireRequest { reason }): Input<RetireRequest>,
) -> Answer<Json<NodeView>> {
    let reason = reason.map(|reason| reason.trim().to_owned());
    if reason.as_ref().is_some_and(|r| r.is_empty() || r.len() > REASON_MAX) {
        return Err(EngineError::BadModel {
            what: format!("the reason must have 1 to {REASON_MAX} bytes"),
            hint: "say why, or send null to take the machine back",
        }
        .into());
    }
    apply(&api, &node, Verb::Retire { reason, by: operator().name().to_owned() }).await
}

/// Moves the server of a machine that died to another machine: its volumes, ports and addresses follow, and nothing is copied. The old
/// machine has neither disk nor network from then on, also when it is switched on again; it is under maintenance.
#[utoipa::path(post, path = "/nodes/{node}/evacuate", tag = "nodes", operation_id = "evacuate_node",
    params(("node" = String, Path, description = "Name or id")), request_body = EvacuateRequest,
    responses((status = 200, body = ServerView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn evacuate(
    State(api): State<Api>,
    Named(node): Named,
    Input(EvacuateRequest { to }): Input<EvacuateRequest>,
) -> Answer<Json<ServerView>> {
    let node = api.engine.node(&node).await?;
    let server = api.engine.evacuate(&node, operator(), to.as_deref()).await?;
    Ok(Json(api.engine.server_view(server).await))
}

/// Keeps what the papers of a node say.
#[utoipa::path(put, path = "/nodes/{node}/papers", tag = "nodes", operation_id = "put_papers",
    params(("node" = String, Path, description = "Name or id")), request_body = Papers,
    responses((status = 200, body = NodeView), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn papers(
    State(api): State<Api>,
    Named(node): Named,
    Input(papers): Input<Papers>,
) -> Answer<Json<NodeView>> {
    apply(&api, &node, Verb::Papers { papers }).await
}

/// Which machines reach three, four or five years or leave warranty, by quarter, model and pool.
#[utoipa::path(get, path = "/refresh-plan", tag = "nodes", operation_id = "refresh_plan", params(RefreshQuery),
    responses((status = 200, body = RefreshPlan), (status = 400, body = Problem)))]
pub(super) async fn refresh_plan(
    State(api): State<Api>,
    Params(RefreshQuery { quarters }): Params<RefreshQuery>,
) -> Answer<Json<RefreshPlan>> {
    Ok(Json(api.engine.refresh_plan(quarters.unwrap_or(QUARTERS)).await?))
}
