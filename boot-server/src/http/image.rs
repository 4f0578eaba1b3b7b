//! Manifests and chunks. Both are named by their hash, so they never change and anything may cache them.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use images::StoreError;
use protocol::{ChunkId, ImageId};

use super::{ProblemResponse, files};
use crate::engine::{Engine, EngineError};

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/images/{image}/manifest", get(manifest))
        .route("/chunks/{chunk}", get(chunk))
        .with_state(engine)
}

async fn manifest(State(engine): State<Engine>, Path(image): Path<String>, headers: HeaderMap) -> Response {
    let Ok(id) = image.parse::<ImageId>() else { return unknown("image") };
    if is_known(&headers, &image) {
        return not_modified(&image);
    }
    let store = engine.images().clone();
    let bytes = tokio::task::spawn_blocking(move || store.manifest_bytes(id)).await;
    match bytes.map_err(EngineError::from).and_then(|read| read.map_err(EngineError::from)) {
        Ok(bytes) => {
            let kind = HeaderValue::from_static("application/json");
            named(([(header::CONTENT_TYPE, kind)], bytes).into_response(), &image)
        }
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

async fn chunk(
    State(engine): State<Engine>,
    Path(chunk): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Ok(id) = chunk.parse::<ChunkId>() else { return unknown("chunk") };
    if is_known(&headers, &chunk) {
        return not_modified(&chunk);
    }
    let path = engine.images().chunk_path(id);
    if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
        return ProblemResponse::from(EngineError::from(StoreError::NoChunk(id))).into_response();
    }
    let mut response = files::serve(&path, &method, &headers).await;
    if response.status().is_success() {
        let kind = HeaderValue::from_static("application/zstd");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response = named(response, &chunk);
    }
    response
}

/// The client has these very bytes already.
fn is_known(headers: &HeaderMap, id: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
    known.split(',').any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == id)
}

fn not_modified(id: &str) -> Response {
    named(StatusCode::NOT_MODIFIED.into_response(), id)
}

fn named(mut response: Response, id: &str) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
    // Hexadecimal digits only: it was parsed as an id before.
    if let Ok(tag) = HeaderValue::try_from(format!("\"{id}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn unknown(what: &str) -> Response {
    let message = format!("that is not the id of a {what}");
    ProblemResponse::new(StatusCode::NOT_FOUND, "not-found", message, "an id has 64 hexadecimal digits")
        .into_response()
}
