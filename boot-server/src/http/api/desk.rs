//! Keys that a project keeps, and faults that its people report.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::Role;
use uuid::Uuid;

use super::extract::{Input, LastNamed, Named, Params, page_by_place};
use super::projects::InProject;
use super::requests::PageQuery;
use super::server_requests::{FaultAnswerRequest, FaultQuery, FaultRequest, KeyRequest};
use super::{Answer, Api, ProblemResponse};
use crate::engine::servers::FaultFilter;
use crate::http::auth;
use crate::store::desk::FaultRow;
use crate::view::servers::{FaultReportView, KeyView};
use crate::view::{Page, Problem};

/// SSH keys of a project, by name.
#[utoipa::path(get, path = "/projects/{project}/keys", tag = "servers", operation_id = "list_keys",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<KeyView>), (status = 404, body = Problem)))]
pub(super) async fn keys(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<KeyView>>> {
    let keys = api.engine.keys(within.project.id).await?;
    let keys: Vec<_> = keys.into_iter().map(KeyView::from).collect();
    Ok(Json(page_by_place(&keys, &query)?))
}

/// Keeps an SSH public key under a name.
#[utoipa::path(post, path = "/projects/{project}/keys", tag = "servers", operation_id = "create_key",
    params(("project" = String, Path, description = "Name or id")), request_body = KeyRequest,
    responses((status = 201, body = KeyView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn add_key(
    State(api): State<Api>,
    within: InProject,
    Input(KeyRequest { name, public_key }): Input<KeyRequest>,
) -> Answer<(StatusCode, Json<KeyView>)> {
    within.need(Role::Member)?;
    let key = api.engine.add_key(within.project.id, within.who.actor(), &name, &public_key).await?;
    Ok((StatusCode::CREATED, Json(key.into())))
}

/// Forgets a key. Servers that have it keep it until they are installed anew.
#[utoipa::path(delete, path = "/projects/{project}/keys/{key}", tag = "servers", operation_id = "delete_key",
    params(("project" = String, Path, description = "Name or id"), ("key" = String, Path, description = "Name")),
    responses((status = 204, description = "It is forgotten"), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn remove_key(
    State(api): State<Api>,
    within: InProject,
    LastNamed(name): LastNamed,
) -> Answer<StatusCode> {
    within.need(Role::Member)?;
    api.engine.remove_key(within.project.id, within.who.actor(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What people of a project reported, newest first: what is open unless told otherwise.
#[utoipa::path(get, path = "/projects/{project}/faults", tag = "servers", operation_id = "list_fault_reports",
    params(("project" = String, Path, description = "Name or id"), FaultQuery),
    responses((status = 200, body = Page<FaultReportView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn faults(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<FaultQuery>,
) -> Answer<Json<Page<FaultReportView>>> {
    let filter = FaultFilter { project: Some(within.project.id), open: !query.closed.unwrap_or(false) };
    listed(&api, filter, query).await
}

/// Says that something is wrong with a server. Those who run the site see it among the faults.
#[utoipa::path(post, path = "/projects/{project}/faults", tag = "servers", operation_id = "report_fault",
    params(("project" = String, Path, description = "Name or id")), request_body = FaultRequest,
    responses((status = 201, body = FaultReportView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn report(
    State(api): State<Api>,
    within: InProject,
    Input(FaultRequest { server, words }): Input<FaultRequest>,
) -> Answer<(StatusCode, Json<FaultReportView>)> {
    within.need(Role::Member)?;
    let actor = within.who.actor();
    let fault = api.engine.report_fault(within.project.id, &server, actor, &words).await?;
    Ok((StatusCode::CREATED, Json(named(&api, fault).await)))
}

/// What people of all projects reported, newest first: what is open unless told otherwise.
#[utoipa::path(get, path = "/fault-reports", tag = "nodes", operation_id = "list_all_fault_reports", params(FaultQuery),
    responses((status = 200, body = Page<FaultReportView>), (status = 400, body = Problem)))]
pub(super) async fn all_faults(
    State(api): State<Api>,
    Params(query): Params<FaultQuery>,
) -> Answer<Json<Page<FaultReportView>>> {
    let filter = FaultFilter { project: None, open: !query.closed.unwrap_or(false) };
    listed(&api, filter, query).await
}

/// Closes a report, with what came of it; whoever reported it sees that.
#[utoipa::path(post, path = "/fault-reports/{report}/close", tag = "nodes", operation_id = "close_fault_report",
    params(("report" = String, Path, description = "Id")), request_body = FaultAnswerRequest,
    responses((status = 200, body = FaultReportView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn close_fault(
    State(api): State<Api>,
    Named(id): Named,
    Input(FaultAnswerRequest { answer }): Input<FaultAnswerRequest>,
) -> Answer<Json<FaultReportView>> {
    let id: Uuid = id.parse().map_err(|_| {
        ProblemResponse::new(StatusCode::NOT_FOUND, "not-found", "no fault report has this id", "list them")
    })?;
    let fault = api.engine.close_fault(id, auth::actor(), &answer).await?;
    Ok(Json(named(&api, fault).await))
}

async fn listed(api: &Api, filter: FaultFilter, query: FaultQuery) -> Answer<Json<Page<FaultReportView>>> {
    let mut items = Vec::new();
    for fault in api.engine.fault_reports(filter).await? {
        items.push(named(api, fault).await);
    }
    let FaultQuery { limit, cursor, .. } = query;
    Ok(Json(page_by_place(&items, &PageQuery { limit, cursor })?))
}

async fn named(api: &Api, fault: FaultRow) -> FaultReportView {
    let node = api.engine.node(&fault.node.to_string()).await;
    let name = node.map_or_else(|_| fault.node.to_string(), |node| node.name);
    // People of a project are not told of machines.
    let name = Some(name).filter(|_| auth::who().is_some_and(|who| who.site.is_some()));
    FaultReportView::of(fault, name)
}
