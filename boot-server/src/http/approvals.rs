//! The gate of four eyes at the operators' listener: a request that may destroy something on a machine that needs two people is
//! kept instead of done; and done later, by the same routes, as whoever asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use boot_server_core::approval::{Approval, Person};
use boot_server_core::audit::weight::{is_mild_body, may_need_two};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use protocol::ProjectId;

use super::auth::{self, Operators};
use super::{Base, Peer, ProblemResponse};
use crate::asking::Asked;
use crate::engine::{Carried, Carry, Engine, Kept, Wanted};
use crate::view::{ApprovalAsked, Problem};

/// Why something is asked for, where no form has a field for it.
const REASON: HeaderName = HeaderName::from_static("billet-reason");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// An answer is read as far as a problem goes.
const ANSWER_MAX: usize = 64 << 10;

/// A request as the gate sees it.
pub(super) struct Seen<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub template: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: Option<&'a Bytes>,
    /// Reference of the node in the path.
    pub node: Option<&'a str>,
    /// The project in the path, where whoever asks has a role in it, and the reference of a server of it.
    pub project: Option<ProjectId>,
    pub server: Option<&'a str>,
}

/// The answer to a request that has to wait for a second person; `None` where it need not.
pub(super) async fn gate(engine: &Engine, seen: Seen<'_>) -> Result<Option<Response>, ProblemResponse> {
    let Some(template) = seen.template else { return Ok(None) };
    if crate::asking::asking().is_none_or(|asked| asked.approved)
        || !may_need_two(seen.method.as_str(), template)
        || seen.body.is_some_and(|body| is_mild_body(template, body))
    {
        return Ok(None);
    }
    // What is not there is refused as it always is.
    let node = match (seen.node, seen.project.zip(seen.server)) {
        (Some(node), _) => engine.node(node).await,
        (None, Some((project, server))) => match engine.server(project, server).await {
            Ok(server) => engine.node(&server.node.to_string()).await,
            Err(error) => Err(error),
        },
        (None, None) => return Ok(None),
    };
    let Ok(node) = node else { return Ok(None) };
    if !engine.needs_two(node.id) {
        return Ok(None);
    }
    let text = |name| seen.headers.get(name).and_then(|h: &HeaderValue| h.to_str().ok()).map(str::to_owned);
    let body = seen.body.map(|body| String::from_utf8(body.to_vec())).transpose();
    let body = body.map_err(|_| refuse("body", "the body is no text", "send JSON"))?;
    let Some(by) = auth::who().map(|who| auth::person(&who)) else { return Ok(None) };
    let request = Kept {
        method: seen.method.to_string(),
        path: seen.path.to_owned(),
        template: template.to_owned(),
        kind: text(CONTENT_TYPE),
        key: text(IDEMPOTENCY_KEY),
        body: body.unwrap_or_default(),
    };
    let wanted = Wanted { node, project: seen.project, by, reason: text(REASON), request };
    let approval = engine.ask_approval(wanted).await?;
    if !seen.path.starts_with("/api/") {
        let page = format!("/approvals/{}", approval.id);
        return Ok(Some((StatusCode::SEE_OTHER, [(LOCATION, page)]).into_response()));
    }
    let location = format!("/api/v1/approvals/{}", approval.id);
    let asked = ApprovalAsked {
        message: "nothing was done yet: this waits until somebody else approves it".to_owned(),
        approval,
    };
    Ok(Some((StatusCode::ACCEPTED, [(LOCATION, location)], Json(asked)).into_response()))
}

fn refuse(code: &str, message: &str, hint: &str) -> ProblemResponse {
    ProblemResponse::new(StatusCode::BAD_REQUEST, code, message, hint)
}

/// Does kept requests by these routes, as whoever asked.
pub(super) fn carry(routes: Router, known: Arc<Operators>) -> Carry {
    Arc::new(move |approval, kept| {
        let (routes, known) = (routes.clone(), known.clone());
        Box::pin(async move { carry_one(routes, &known, &approval, kept).await })
    })
}

async fn carry_one(routes: Router, known: &Operators, approval: &Approval, kept: Kept) -> Carried {
    let Some(who) = known.again(&approval.asked_by) else {
        return (403, Some(format!("{} may not do this any more", approval.asked_by.name)));
    };
    let source: Option<IpAddr> = approval.source.as_ref().and_then(|source| source.parse().ok());
    let source = source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = match request(approval, kept, source) {
        Ok(request) => request,
        Err(error) => return (500, Some(error.to_string())),
    };
    let mut request = request;
    request.extensions_mut().insert(known.tenancy().clone());
    let asked = Asked { source, request: approval.id, approved: true };
    let answer = asked.scope(auth::acting(who, TowerToHyperService::new(routes).call(request))).await;
    let response = match answer {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    let octets = to_bytes(response.into_body(), ANSWER_MAX).await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(&octets).ok().filter(|_| !status.is_success());
    let outcome = match problem {
        Some(problem) => Some(problem.message),
        None if status.is_client_error() || status.is_server_error() => {
            Some(format!("it was answered {status}"))
        }
        None => None,
    };
    (status.as_u16(), outcome)
}

fn request(approval: &Approval, kept: Kept, source: IpAddr) -> Result<Request, axum::http::Error> {
    // The same each time, so that what was done once before a crash is not done twice.
    let key = format!("approval-{}", approval.id);
    let mut request = axum::http::Request::builder()
        .method(kept.method.as_str())
        .uri(kept.path)
        .header(HOST, "localhost")
        .header(IDEMPOTENCY_KEY, key)
        .extension(Peer(SocketAddr::new(source, 0)))
        .extension(Base("http://localhost".to_owned()));
    if let Some(kind) = kept.kind {
        request = request.header(CONTENT_TYPE, kind);
    }
    request.body(Body::from(kept.body))
}

/// Whoever may decide on what others ask for.
pub(super) fn decider() -> Result<Person, Problem> {
    auth::need(boot_server_core::access::Role::Operator).map(|who| auth::person(&who))
}
