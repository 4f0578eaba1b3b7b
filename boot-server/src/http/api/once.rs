//! Requests that are to be done once (draft-ietf-httpapi-idempotency-key-header): with an `Idempotency-Key` the same
//! request of the same client is answered again as it was the first time, within 24 hours.
//!
//! Deploys and images remember their keys in the transaction of what they do. This layer is for everything else that makes
//! something: it takes the key before the handler runs, and keeps the answer, sealed, after it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use failpoint::Point;
use http_body_util::BodyExt as _;
use protocol::limits::JSON_BODY_MAX;
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, OpenApi, RefOr};

use super::document::{header as parameter, operations};
use super::extract::idempotency_key;
use super::{Answer, ProblemResponse};
use crate::engine::Engine;
use crate::http::auth::who;
use crate::http::body;
use crate::secret;
use crate::store::queries::Remembered;

/// The header.
const KEY: &str = "Idempotency-Key";
/// Headers of an answer that are given again.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// What the layer works with.
pub(super) struct Once {
    engine: Engine,
    /// Paths whose `POST` makes something.
    paths: BTreeSet<String>,
}

impl Once {
    /// For these paths.
    pub fn new(engine: Engine, paths: BTreeSet<String>) -> Arc<Self> {
        Arc::new(Self { engine, paths })
    }
}

/// Operations that make nothing new and must not be done twice all the same: an OS that was put on a disk a second time, since
/// the answer was lost, would have lost what was done since.
const ONCE: [&str; 1] = ["reinstall_server"];

/// The paths whose `POST` is to be done once and does not mind the key itself; each is documented to take it.
pub(super) fn document(document: &mut OpenApi) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let named = operation.operation_id.as_deref().is_some_and(|id| ONCE.contains(&id));
            let makes = named || operation.responses.responses.contains_key("201");
            let minds = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(own) if own.name == KEY);
            let minded = operation.parameters.as_ref().is_some_and(|all| all.iter().any(minds));
            if matches!(method, HttpMethod::Post) && makes && !minded {
                let says = "The same key does the same thing once, within 24 hours";
                operation.parameters.get_or_insert_default().push(parameter(KEY, says).into());
                paths.insert(path.clone());
            }
        }
    }
    paths
}

/// An answer that is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The layer.
pub(super) async fn check(State(once): State<Arc<Once>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let makes = *request.method() == Method::POST && path.is_some_and(|path| once.paths.contains(&path));
    match idempotency_key(request.headers()) {
        Ok(Some(key)) if makes => match answer(&once, key, request, next).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        },
        Err(problem) if makes => problem.into_response(),
        _ => next.run(request).await,
    }
}

async fn answer(once: &Once, key: String, request: Request, next: Next) -> Answer<Response> {
    let (parts, sent) = request.into_parts();
    let sent = body(sent, JSON_BODY_MAX).await?;
    let wanted = Remembered {
        // By whom: a key of one client says nothing about that of another.
        scope: format!("{} POST {}", who().map(|who| who.key()).unwrap_or_default(), parts.uri.path()),
        key,
        request: secret::hash(&String::from_utf8_lossy(&sent)).to_string(),
        answer: String::new(),
    };
    if let Some(kept) = once.engine.answered(&wanted.scope, &wanted.key, &wanted.request).await? {
        return again(&once.engine, &kept);
    }
    // The key is taken before anything is done: where it is done twice at once, one of the two is told so.
    if once.engine.remember(wanted.clone()).await.is_err() {
        return Err(under_way());
    }
    failpoint::pass(Point::OnceTaken);
    let response = next.run(Request::from_parts(parts, Body::from(sent))).await;
    if !response.status().is_success() {
        once.engine.forget_answer(&wanted).await?;
        return Ok(response);
    }
    failpoint::pass(Point::OnceDone);
    keep(&once.engine, wanted, response).await
}

async fn keep(engine: &Engine, wanted: Remembered, response: Response) -> Answer<Response> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let kept = Kept {
        status: parts.status.as_u16(),
        headers: KEPT.iter().filter_map(text).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    // Plain data, which JSON can always hold. It may hold the text of a token that is shown once.
    let kept = serde_json::to_string(&kept).unwrap_or_default();
    engine.keep_answer(wanted, kept).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn again(engine: &Engine, kept: &str) -> Answer<Response> {
    if kept.is_empty() {
        return Err(under_way());
    }
    let kept: Kept = serde_json::from_str(&engine.open_answer(kept)?).map_err(|_| under_way())?;
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    for (name, value) in &kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok((status, headers, kept.body).into_response())
}

fn under_way() -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::CONFLICT,
        "idempotency-under-way",
        "the same request is under way, or was cut off before it was answered",
        "look whether it was done; then use a new key",
    )
}
