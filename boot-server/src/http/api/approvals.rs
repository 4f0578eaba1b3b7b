//! Approvals: what waits for a second person.

use axum::Json;
use axum::extract::State;
use boot_server_core::access::Role;
use boot_server_core::approval::{Answer as Word, Approval, Status};
use protocol::Timestamp;

use super::extract::{Input, Named, Params, bad_query, limit};
use super::requests::{ApprovalQuery, DecisionRequest};
use super::{Answer, Api};
use crate::http::{approvals, auth};
use crate::store::approvals::ApprovalFilter;
use crate::view::{Page, Problem};

/// Requests that wait for a second person, or did; newest first.
#[utoipa::path(get, path = "/approvals", tag = "approvals", operation_id = "list_approvals", params(ApprovalQuery),
    responses((status = 200, body = Page<Approval>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<ApprovalQuery>,
) -> Answer<Json<Page<Approval>>> {
    auth::need(Role::Reader)?;
    let limit = limit(query.limit)?;
    let node = match &query.node {
        Some(reference) => Some(api.engine.node(reference).await?.id),
        None => None,
    };
    let status = match &query.status {
        Some(word) => Some(Status::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| {
            let all = Status::ALL.map(Status::as_str).join(", ");
            bad_query(format!("status must be one of {all}"))
        })?),
        None => None,
    };
    let before = match &query.cursor {
        Some(cursor) => {
            let at = cursor.strip_prefix("before-").and_then(|at| at.parse().ok()).map(Timestamp);
            Some(at.ok_or_else(|| bad_query("the cursor is not one that this server gave".to_owned()))?)
        }
        None => None,
    };
    let filter = ApprovalFilter { status, node, project: None, before, limit: limit + 1 };
    let mut items = api.engine.approvals(filter).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| format!("before-{}", last.asked.0));
    Ok(Json(Page { items, next }))
}

/// One of them.
#[utoipa::path(get, path = "/approvals/{approval}", tag = "approvals", operation_id = "show_approval",
    params(("approval" = String, Path, description = "Id")),
    responses((status = 200, body = Approval), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(id): Named) -> Answer<Json<Approval>> {
    auth::need(Role::Reader)?;
    Ok(Json(api.engine.approval(&id).await?))
}

/// Approves what somebody else asked for; it is done at once, as whoever asked.
#[utoipa::path(post, path = "/approvals/{approval}/approve", tag = "approvals", operation_id = "approve",
    params(("approval" = String, Path, description = "Id")), request_body = DecisionRequest,
    responses((status = 200, body = Approval), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn approve(
    State(api): State<Api>,
    Named(id): Named,
    Input(DecisionRequest { reason }): Input<DecisionRequest>,
) -> Answer<Json<Approval>> {
    Ok(Json(api.engine.decide(&id, Word::Approve, approvals::decider()?, reason).await?))
}

/// Refuses what somebody asked for, or takes back what one asked for oneself.
#[utoipa::path(post, path = "/approvals/{approval}/refuse", tag = "approvals", operation_id = "refuse",
    params(("approval" = String, Path, description = "Id")), request_body = DecisionRequest,
    responses((status = 200, body = Approval), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn refuse(
    State(api): State<Api>,
    Named(id): Named,
    Input(DecisionRequest { reason }): Input<DecisionRequest>,
) -> Answer<Json<Approval>> {
    Ok(Json(api.engine.decide(&id, Word::Refuse, approvals::decider()?, reason).await?))
}
