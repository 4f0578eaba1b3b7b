//! Exports for a one-way gateway.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Timestamp;
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;

use super::audit::need_auditor;
use super::extract::Params;
use super::usage::SIGNATURE;
use super::{Answer, Api, ProblemResponse};
use crate::view::Problem;

/// Where an export begins.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Everything since this moment, in milliseconds since 1970.
    pub since: u64,
}

/// Events, audit, metrics and usage as files in one archive (tar, zstd). The header `Billet-Signature` has the file that
/// `minisign -V` takes, as base64.
#[utoipa::path(get, path = "/export", tag = "server", operation_id = "export_site", params(ExportQuery),
    responses((status = 200, description = "The archive", body = Vec<u8>, content_type = "application/zstd",
        headers(("Billet-Signature" = String, description = "Signature in minisign's form, as base64"))),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn export(State(api): State<Api>, Params(query): Params<ExportQuery>) -> Answer<Response> {
    need_auditor()?;
    let _turn = api.checks.clone().try_acquire_owned().map_err(|_| {
        let message = "something is being exported or checked already";
        ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, "try again in a minute")
    })?;
    let from = api.engine.export_position(Timestamp(query.since)).await?;
    let name = uuid::Uuid::now_v7().to_string();
    let archive = api.engine.export(from, &name).await?;
    let signature = STANDARD.encode(&archive.signature);
    let disposition = format!("attachment; filename=\"{}\"", archive.name);
    let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(archive.archive)));
    let kind = (header::CONTENT_TYPE, "application/zstd");
    let mut response = ([kind], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, archive.size.into());
    if let Ok(value) = HeaderValue::try_from(signature) {
        headers.insert(SIGNATURE, value);
    }
    if let Ok(value) = HeaderValue::try_from(disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}
