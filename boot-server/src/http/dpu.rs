//! The DPUs' side of the provisioning listener (see `protocol::dial` for the table of requests).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use protocol::dial::{HELLO_MAX, Hello, Orders, Report, Welcome};
use protocol::dpu::STATE_MAX;

use super::agent::{Patience, bearer};
use super::limits::body;
use super::send::{self, Asked};
use super::{Peer, ProblemResponse, boot_image, problem};
use crate::boot_image::{Image, Piece};
use crate::engine::{DPU_IMAGE_PATH, Engine};

type Answer<T> = Result<T, ProblemResponse>;

pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/dpu/v1/hello", post(hello))
        .route("/dpu/v1/state", post(state))
        .route(&format!("{DPU_IMAGE_PATH}/{{ticket}}/{{name}}"), get(image))
        .with_state(engine)
}

/// An image for a DPU's controller, with what the DPU is handed behind it.
async fn image(
    State(engine): State<Engine>,
    Path((ticket, _)): Path<(String, String)>,
    asked: Asked,
) -> Response {
    let found = match engine.dpu_image(&ticket) {
        Ok(Some(found)) => found,
        Ok(None) => return problem::not_found().await.into_response(),
        Err(error) => return ProblemResponse::from(error).into_response(),
    };
    let opened = tokio::task::spawn_blocking(move || {
        let file = crate::media::open(&found.dir, &found.path)?;
        let size = file.metadata()?.len();
        let config = Bytes::from(found.config);
        let whole = size + config.len() as u64;
        let pieces = vec![Piece::File(Arc::new(file), size), Piece::Octets(config)];
        std::io::Result::Ok(Image { pieces, size: whole, tag: format!("{whole:x}") })
    });
    match opened.await {
        Ok(Ok(image)) => boot_image::respond(&asked, &image),
        Ok(Err(error)) => {
            tracing::error!(%error, "an image for a DPU cannot be read");
            send::unreadable()
        }
        Err(error) => {
            tracing::error!(%error, "an image for a DPU cannot be read");
            send::unreadable()
        }
    }
}

async fn hello(
    State(engine): State<Engine>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Body,
) -> Answer<Json<Welcome>> {
    let hello: Hello = read(request, HELLO_MAX).await?;
    Ok(Json(engine.dpu_hello(hello, peer.ip()).await?))
}

async fn state(
    State(engine): State<Engine>,
    headers: HeaderMap,
    Query(patience): Query<Patience>,
    request: Body,
) -> Answer<Json<Orders>> {
    let secret = bearer(&headers)?;
    // Before the body, which may be large.
    engine.check_dpu(secret)?;
    let report: Report = read(request, STATE_MAX).await?;
    Ok(Json(engine.dpu_state(secret, report, patience.bounded()).await?))
}

async fn read<T: serde::de::DeserializeOwned>(request: Body, max: usize) -> Answer<T> {
    serde_json::from_slice(&body(request, max).await?).map_err(|error| {
        let hint = "use billet-dpu of the server's version";
        ProblemResponse::new(StatusCode::UNPROCESSABLE_ENTITY, "json", error.to_string(), hint)
    })
}
