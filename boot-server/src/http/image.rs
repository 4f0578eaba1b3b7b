//! Manifests and chunks. Both are named by their hash, so they never change and anything may cache them. And what is signed: whose key an
//! image is by, and which key followed which.

use std::io::ErrorKind;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use images::StoreError;
use protocol::{ChunkId, ImageId};

use super::ProblemResponse;
use super::send::{self, Asked, Opened};
use crate::engine::{Engine, EngineError};

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/images/{image}/manifest", get(manifest))
        .route("/images/{image}/signature", get(signature))
        .route("/trust/anchor", get(anchor))
        .route("/trust/succession", get(succession))
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

/// The signature may be another one tomorrow, by another key.
async fn signature(State(engine): State<Engine>, Path(image): Path<String>) -> Response {
    let Ok(id) = image.parse::<ImageId>() else { return unknown("image") };
    let store = engine.images().clone();
    let text = tokio::task::spawn_blocking(move || store.signature(id)).await;
    match text.map_err(EngineError::from).and_then(|read| read.map_err(EngineError::from)) {
        Ok(Some(text)) => {
            let kind = HeaderValue::from_static("text/plain");
            let none = HeaderValue::from_static("no-cache");
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, none)], text).into_response()
        }
        Ok(None) => {
            let message = "this image has no signature";
            ProblemResponse::new(StatusCode::NOT_FOUND, "image-unsigned", message, "give it one")
                .into_response()
        }
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

/// Whose images are taken here, for a DPU that is new. A ramdisk has it behind it, and asks nobody.
async fn anchor(State(engine): State<Engine>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    let none = HeaderValue::from_static("no-cache");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, none)], engine.anchor().to_json()).into_response()
}

/// By which keys of the site named those that followed them.
async fn succession(State(engine): State<Engine>) -> Response {
    let none = HeaderValue::from_static("no-cache");
    ([(header::CACHE_CONTROL, none)], axum::Json(engine.succession())).into_response()
}

async fn chunk(State(engine): State<Engine>, Path(chunk): Path<String>, asked: Asked) -> Response {
    let Ok(id) = chunk.parse::<ChunkId>() else { return unknown("chunk") };
    let opened = match Opened::at(engine.images().chunk_path(id)).await {
        Ok(opened) => opened.named(&chunk),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return ProblemResponse::from(EngineError::from(StoreError::NoChunk(id))).into_response();
        }
        Err(error) => {
            tracing::error!(chunk, %error, "a chunk cannot be served");
            return send::unreadable();
        }
    };
    let mut response = opened.respond(&asked, "application/zstd");
    response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
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
