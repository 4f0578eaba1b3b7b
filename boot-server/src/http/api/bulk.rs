//! One verb for many nodes. Each node stands for itself: one that refuses says why, the others are done.

use axum::Json;
use axum::extract::State;
use boot_server_core::node::event::{Cleaning, Verb};
use boot_server_core::node::{Event, Node};
use futures_util::{StreamExt as _, stream};

use super::extract::{Input, bad_query};
use super::nodes::Wanted;
use super::requests::{BulkRequest, BulkVerb, NodeQuery};
use super::verbs::{checked_reason, operator};
use super::{Answer, Api, ProblemResponse};
use crate::engine::NodePage;
use crate::view::{BulkResult, BulkView, Problem};

/// Nodes of one request.
const NODES_MAX: usize = 1000;
/// Nodes that are being done at once; a controller may take seconds to answer.
const AT_ONCE: usize = 32;

/// Does one thing to many nodes: to those that are named, or to those that a filter finds. One answer for each. Nothing that
/// erases a disk can be done so.
#[utoipa::path(post, path = "/nodes/actions", tag = "nodes", operation_id = "act_on_nodes", request_body = BulkRequest,
    responses((status = 200, body = BulkView), (status = 422, body = Problem)))]
pub(super) async fn act(
    State(api): State<Api>,
    Input(request): Input<BulkRequest>,
) -> Answer<Json<BulkView>> {
    let BulkRequest { verb, nodes, filter, reason, power, dry_run } = request;
    let reason = checked_reason(reason)?;
    if (verb == BulkVerb::Power) != power.is_some() {
        return Err(refuse("`power` says what to switch, for the verb `power` alone"));
    }
    let nodes = match (nodes, filter) {
        (Some(nodes), None) => named(&api, &nodes).await?,
        (None, Some(filter)) => found(&api, filter.into()).await?,
        _ => return Err(refuse("give either `nodes` or `filter`")),
    };
    let event = |verb| Event::Verb(verb);
    let one = |(reference, node): (String, Result<Node, Problem>)| {
        let (api, reason) = (api.clone(), reason.clone());
        async move {
            let node = match node {
                Ok(node) => node,
                Err(refused) => {
                    return BulkResult { node: reference, id: None, state: None, refused: Some(refused) };
                }
            };
            if dry_run {
                let (id, state) = (Some(node.id), Some(node.state.name()));
                return BulkResult { node: node.name, id, state, refused: None };
            }
            let done = match (verb, power) {
                (BulkVerb::Power, Some(action)) => {
                    api.engine.switch(node.id, operator(), action).await.map(|_| node.clone())
                }
                (BulkVerb::Manage | BulkVerb::Power, _) => {
                    api.engine.apply(node.id, operator(), event(Verb::Manage)).await
                }
                (BulkVerb::Inspect, _) => api.engine.apply(node.id, operator(), event(Verb::Inspect)).await,
                (BulkVerb::Abort, _) => api.engine.apply(node.id, operator(), event(Verb::Abort)).await,
                (BulkVerb::Retry, _) => api.engine.apply(node.id, operator(), event(Verb::Retry)).await,
                (BulkVerb::Provide, _) => {
                    api.engine
                        .apply(
                            node.id,
                            operator(),
                            event(Verb::Provide { wipe: Vec::new(), how: Cleaning::Light }),
                        )
                        .await
                }
                (BulkVerb::Maintenance, _) => {
                    api.engine
                        .apply(
                            node.id,
                            operator(),
                            event(Verb::Maintenance {
                                reason,
                                until: None,
                                by: Some(operator().name().to_owned()),
                            }),
                        )
                        .await
                }
            };
            match done {
                Ok(after) => {
                    let (id, state) = (Some(after.id), Some(after.state.name()));
                    BulkResult { node: after.name, id, state, refused: None }
                }
                Err(error) => {
                    let (id, refused) = (Some(node.id), Some(error.problem()));
                    BulkResult { node: node.name, id, state: None, refused }
                }
            }
        }
    };
    let results = stream::iter(nodes).map(one).buffered(AT_ONCE).collect::<Vec<_>>().await;
    let refused = results.iter().filter(|result| result.refused.is_some()).count() as u64;
    Ok(Json(BulkView { done: results.len() as u64 - refused, refused, results }))
}

fn refuse(message: &str) -> ProblemResponse {
    let hint = "see /api/v1/openapi.json for the fields of this request".to_owned();
    Problem { status: 422, code: "actions".to_owned(), message: message.to_owned(), hint }.into()
}

type Named = Vec<(String, Result<Node, Problem>)>;

async fn named(api: &Api, references: &[String]) -> Answer<Named> {
    if references.len() > NODES_MAX {
        return Err(bad_query(format!("these are more than {NODES_MAX} nodes: split them")).into());
    }
    let mut nodes = Vec::with_capacity(references.len());
    for reference in references {
        let node = api.engine.node(reference).await.map_err(|error| error.problem());
        nodes.push((reference.chars().take(80).collect(), node));
    }
    Ok(nodes)
}

async fn found(api: &Api, query: NodeQuery) -> Answer<Named> {
    let wanted = Wanted::of(&query)?;
    api.engine.know_all_hardware().await?;
    let NodePage { nodes, more } = api.engine.node_page(None, NODES_MAX, |node| wanted.is(node, &api.engine));
    if more {
        return Err(bad_query(format!("the filter finds more than {NODES_MAX} nodes: narrow it")).into());
    }
    Ok(nodes.iter().map(|node| (node.name.clone(), Ok(Node::clone(node)))).collect())
}
