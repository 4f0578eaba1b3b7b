//! The audit: listed, exported, checked.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use boot_server_core::access::Role;
use boot_server_core::audit::{Kind, Line};
use protocol::Timestamp;

use super::extract::{Params, bad_query, limit};
use super::projects::InProject;
use super::requests::{AuditExportQuery, AuditQuery};
use super::{Answer, Api};
use crate::audit::export;
use crate::engine::{Engine, EngineError};
use crate::http::ProblemResponse;
use crate::http::auth;
use crate::store::audit::AuditFilter;
use crate::view::{AuditHead, AuditVerdict, AuditView, Page, Problem};

/// Whoever may see what everybody did.
pub(in crate::http) fn need_auditor() -> Result<(), Problem> {
    auth::need(Role::Auditor).map(drop)
}

/// Entries, newest first; oldest first where `after` is given.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "list_audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<AuditQuery>,
) -> Answer<Json<Page<AuditView>>> {
    need_auditor()?;
    Ok(Json(page(&api.engine, query, None).await?))
}

/// The page that a query asks for; of one project alone where that is given.
pub(in crate::http) async fn page(
    engine: &Engine,
    query: AuditQuery,
    project: Option<protocol::ProjectId>,
) -> Result<Page<AuditView>, ProblemResponse> {
    let limit = limit(query.limit)?;
    let mut filter = filter(engine, &query).await?;
    filter.project = project.or(filter.project);
    filter.limit = limit + 1;
    let rising = filter.after.is_some();
    // One more than asked for tells whether there is a next page.
    let mut items = engine.audit_entries(filter).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| match rising {
        true => format!("after-{}", last.number),
        false => format!("before-{}", last.number),
    });
    Ok(Page { items, next })
}

/// Entries about a project, newest first; oldest first where `after` is given.
#[utoipa::path(get, path = "/projects/{project}/audit", tag = "projects", operation_id = "list_project_audit",
    params(("project" = String, Path, description = "Name or id"), AuditQuery),
    responses((status = 200, body = Page<AuditView>), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn of_project(
    within: InProject,
    State(api): State<Api>,
    Params(mut query): Params<AuditQuery>,
) -> Answer<Json<Page<AuditView>>> {
    within.need(Role::Auditor)?;
    // A node's name or another project is nothing to ask about here.
    query.node = None;
    Ok(Json(page(&api.engine, query, Some(within.project.id)).await?))
}

async fn filter(engine: &Engine, query: &AuditQuery) -> Result<AuditFilter, ProblemResponse> {
    let node = match &query.node {
        // A node that is gone has its entries all the same.
        Some(reference) => match reference.parse() {
            Ok(id) => Some(id),
            Err(_) => Some(engine.node(reference).await?.id),
        },
        None => None,
    };
    let kind = match &query.kind {
        Some(word) => Some(Kind::of(word).ok_or_else(|| {
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            bad_query(format!("kind must be one of {kinds}"))
        })?),
        None => None,
    };
    let (mut after, mut before) = (query.after, query.before);
    if let Some(cursor) = &query.cursor {
        let parsed = cursor.split_once('-').and_then(|(way, number)| Some((way, number.parse().ok()?)));
        match parsed {
            Some(("after", number)) => after = Some(number),
            Some(("before", number)) => before = Some(number),
            _ => return Err(bad_query("the cursor is not one that this server gave".to_owned()).into()),
        }
    }
    Ok(AuditFilter {
        actor: query.actor.clone(),
        node,
        project: query.project,
        kind,
        request: query.request,
        since: query.since.map(Timestamp),
        until: query.until.map(Timestamp),
        after,
        before,
        limit: 0,
    })
}

/// Where the audit begins and ends, and the newest head that was signed.
#[utoipa::path(get, path = "/audit/head", tag = "audit", operation_id = "audit_head",
    responses((status = 200, body = AuditHead), (status = 403, body = Problem)))]
pub(super) async fn head(State(api): State<Api>) -> Answer<Json<AuditHead>> {
    need_auditor()?;
    Ok(Json(api.engine.audit_head().await?))
}

/// Checks the whole chain.
#[utoipa::path(get, path = "/audit/verify", tag = "audit", operation_id = "verify_audit",
    responses((status = 200, description = "The verdict, whatever it is", body = AuditVerdict),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn verify(State(api): State<Api>) -> Answer<Json<AuditVerdict>> {
    need_auditor()?;
    let _turn = api.checks.clone().try_acquire_owned().map_err(|_| {
        ProblemResponse::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "something is being checked already",
            "try again in a minute",
        )
    })?;
    Ok(Json(api.engine.verify_audit().await?))
}

/// The chain as lines of JSON, to be kept elsewhere and checked with `billet audit verify --file`.
#[utoipa::path(get, path = "/audit/export", tag = "audit", operation_id = "export_audit", params(AuditExportQuery),
    responses((status = 200, description = "One object per line: `anchor`, `head`, `checkpoint` and `link`",
        body = String, content_type = "application/x-ndjson"), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
pub(super) async fn export(
    State(api): State<Api>,
    Params(query): Params<AuditExportQuery>,
) -> Answer<Response> {
    need_auditor()?;
    api.engine.audit().flush().await;
    let after = query.after;
    let (first, head) =
        api.engine.store().read(move |db| export::beginning(db, after)).await.map_err(EngineError::from)?;
    let Some(first) = first else {
        return Err(bad_query("no entry has this number: see `billet audit head`".to_owned()).into());
    };
    let end = i64::try_from(head.number).unwrap_or(i64::MAX);
    let state = (api.engine.clone(), Some(first), 0_i64);
    let body = futures_util::stream::unfold(state, move |(engine, first, after)| async move {
        if let Some((lines, after)) = first {
            return Some((Ok(text(&lines)), (engine, None, after)));
        }
        match engine.store().read(move |db| export::lines(db, after, end)).await {
            Ok(Some((lines, last))) => Some((Ok(text(&lines)), (engine, None, last))),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(%error, "an export of the audit broke off");
                Some((Err(error), (engine, None, end)))
            }
        }
    });
    let kind = (header::CONTENT_TYPE, "application/x-ndjson");
    let name = (header::CONTENT_DISPOSITION, "attachment; filename=\"billet-audit.ndjson\"");
    Ok(([kind, name], Body::from_stream(body)).into_response())
}

fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        // Plain data: it has a JSON form.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    text
}
