//! `ETag`, `If-None-Match` and `If-Match` (RFC 9110 section 13) for everything that the API shows and changes.
//!
//! ```text
//! GET              ─▶ handler ─▶ tag = hash of what is shown; with the version of its row where it has one ─▶ 304 if known
//! change, If-Match ─▶ the same object is read as a GET would; another tag: 412; else handler, pinned to that version
//! ```
//!
//! What a change belongs to is the object of its path, or of the path above where a verb is the last part of it. Within this
//! server nothing comes between the look and the change; a node's row is compared once more when it is written.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::RwLock;
use utoipa::openapi::OpenApi;

use super::{PREFIX, ProblemResponse};
use crate::engine::{Engine, expecting};
use crate::http::Peer;
use crate::secret;
use crate::tenancy::Tenancy;

/// Locks; objects share them by the hash of their path.
const LOCKS: usize = 64;
/// Largest answer that gets a tag, in octets; all but the largest lists are below.
const TAGGED_MAX: u64 = 4 << 20;

/// The version of the row of what is shown; in the extensions of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version(pub i64);

/// What the layer works with.
pub(super) struct Versions {
    routes: Router,
    engine: Engine,
    /// Methods and paths that change something.
    changes: BTreeSet<String>,
    locks: Vec<RwLock<()>>,
    hasher: RandomState,
}

impl Versions {
    /// Over these routes.
    pub fn new(routes: Router, engine: Engine, document: &OpenApi) -> Arc<Self> {
        let locks = (0..LOCKS).map(|_| RwLock::default()).collect();
        let changes = changes(document);
        Arc::new(Self { routes, engine, changes, locks, hasher: RandomState::new() })
    }

    fn lock(&self, path: &str) -> &RwLock<()> {
        let place = self.hasher.hash_one(object(path)) % LOCKS as u64;
        &self.locks[usize::try_from(place).unwrap_or(0)]
    }

    /// The tag of what a change is about: its own path, or the one above.
    async fn tag(&self, path: &str, (headers, extensions): (HeaderMap, Extensions)) -> Option<HeaderValue> {
        for path in [Some(path), path.rsplit_once('/').map(|(above, _)| above)].into_iter().flatten() {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = path.parse::<Uri>().ok()?;
            *request.headers_mut() = headers.clone();
            *request.extensions_mut() = extensions.clone();
            // The router of the API answers every request.
            let Ok(answer) = TowerToHyperService::new(self.routes.clone()).call(request).await;
            match answer.status() {
                StatusCode::METHOD_NOT_ALLOWED => {}
                StatusCode::OK => return tagged(answer, None).await.headers().get(header::ETAG).cloned(),
                _ => return None,
            }
        }
        None
    }
}

fn changes(document: &OpenApi) -> BTreeSet<String> {
    let mut changes = BTreeSet::new();
    for (path, item) in &document.paths.paths {
        let all =
            [("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete), ("PATCH", &item.patch)];
        let there = all.into_iter().filter(|(_, operation)| operation.is_some());
        changes.extend(there.map(|(method, _)| format!("{method} {path}")));
    }
    changes
}

/// Headers of a change, as those of a look, and what the layers around the API said of it.
fn as_look(change: &Request) -> (HeaderMap, Extensions) {
    let mut headers = change.headers().clone();
    for name in [header::IF_MATCH, header::IF_NONE_MATCH, header::CONTENT_LENGTH, header::CONTENT_TYPE] {
        headers.remove(name);
    }
    let mut extensions = Extensions::new();
    if let Some(tenancy) = change.extensions().get::<Tenancy>() {
        extensions.insert(tenancy.clone());
    }
    if let Some(peer) = change.extensions().get::<Peer>() {
        extensions.insert(*peer);
    }
    (headers, extensions)
}

/// The object that a path is about, for its lock: `/api/v1/nodes/alpha` of `/api/v1/nodes/alpha/rename` too.
fn object(path: &str) -> &str {
    let rest = path.strip_prefix(PREFIX).unwrap_or(path);
    let end = rest.match_indices('/').nth(2).map_or(rest.len(), |(at, _)| at);
    &rest[..end]
}

/// The layer.
pub(super) async fn check(State(versions): State<Arc<Versions>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let known = request.headers().get(header::IF_NONE_MATCH).cloned();
        return tagged(next.run(request).await, known).await;
    }
    let path = request.uri().path().to_owned();
    let known = request.extensions().get::<MatchedPath>().is_some_and(|template| {
        versions.changes.contains(&format!("{} {}", request.method(), template.as_str()))
    });
    // Of a method that the path does not have the routes say so.
    let Some(wanted) = request.headers().get(header::IF_MATCH).filter(|_| known).cloned() else {
        // A change of one object that somebody looks at, to change it by what he saw, waits for him.
        let _shared = match *request.method() {
            Method::PUT | Method::PATCH | Method::DELETE => Some(versions.lock(&path).read().await),
            _ => None,
        };
        return next.run(request).await;
    };
    let _alone = versions.lock(&path).write().await;
    // Before the look: what changes after it makes another version.
    let pinned = node_of(&path).and_then(|node| versions.engine.node_version(node));
    let look = as_look(&request);
    match versions.tag(&path, look).await {
        Some(tag) if matches(&wanted, &tag) => expecting(pinned, next.run(request)).await,
        tag => refuse(tag),
    }
}

/// The node of a path below `/nodes/`.
fn node_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PREFIX)?.strip_prefix("/nodes/")?;
    rest.split('/').next()
}

/// True where the list of tags has this one, or one of the same version of its row: what is measured of an object changes by
/// itself, and is not what a change could overwrite.
fn matches(wanted: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(wanted), Ok(tag)) = (wanted.to_str(), tag.to_str()) else { return false };
    let version = |tag: &str| {
        let version = tag.trim_matches('"').split_once('.').map(|(version, _)| version.to_owned());
        version.filter(|version| version.starts_with('v'))
    };
    wanted
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one == tag || version(one).is_some_and(|one| Some(one) == version(tag)))
}

fn refuse(tag: Option<HeaderValue>) -> Response {
    let mut response = ProblemResponse::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition-failed",
        "it was changed meanwhile: `If-Match` names another version than the present one",
        "read it again, and decide anew",
    )
    .into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Gives an answer its tag, or leaves out what the client knows.
async fn tagged(response: Response, known: Option<HeaderValue>) -> Response {
    if response.status() != StatusCode::OK || !is_json(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let size = HttpBody::size_hint(&body).exact();
    let (tag, body) = match parts.headers.get(header::ETAG) {
        Some(tag) => (tag.clone(), body),
        None if size.is_none_or(|size| size > TAGGED_MAX) => return Response::from_parts(parts, body),
        // A body of known size is in memory already.
        None => match body.collect().await {
            Ok(bytes) => {
                let bytes = bytes.to_bytes();
                let hash = secret::hash(&String::from_utf8_lossy(&bytes)).to_string();
                let version = parts.extensions.get::<Version>().map(|v| format!("v{}.", v.0));
                let tag = format!("\"{}{}\"", version.unwrap_or_default(), &hash[..24]);
                // Hexadecimal digits, `v` and a dot can be in a header.
                let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
                (tag, Body::from(bytes))
            }
            Err(error) => {
                tracing::warn!(%error, "an answer broke off");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        },
    };
    parts.headers.insert(header::ETAG, tag.clone());
    let same = known.and_then(|known| known.to_str().map(str::to_owned).ok()).is_some_and(|known| {
        known.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == "*" || *one == tag)
    });
    if !same {
        return Response::from_parts(parts, body);
    }
    parts.status = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::empty())
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_by_version_where_there_is_one() {
        let tag = HeaderValue::from_static("\"v7.abc\"");
        for (wanted, is) in [
            ("\"v7.abc\"", true),
            ("\"v7.def\"", true),
            ("\"v6.abc\"", false),
            ("\"abc\"", false),
            ("\"x\", \"v7.abc\"", true),
            ("*", true),
        ] {
            assert_eq!(matches(&HeaderValue::from_static(wanted), &tag), is, "{wanted}");
        }
        let hash = HeaderValue::from_static("\"abc\"");
        assert!(matches(&hash, &hash) && !matches(&tag, &hash));
    }

    #[test]
    fn an_object_has_one_lock_with_its_verbs() {
        assert_eq!(object("/api/v1/nodes/alpha/rename"), object("/api/v1/nodes/alpha"));
        assert_ne!(object("/api/v1/nodes/alpha"), object("/api/v1/nodes/beta"));
        assert_eq!(node_of("/api/v1/nodes/alpha/bmc/reset"), Some("alpha"));
        assert_eq!(node_of("/api/v1/images/alpha"), None);
    }
}
