//! What projects may have, what they used, and how well their servers were there.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boot_server_core::quota::Limits;
use boot_server_core::{sla, usage};

use super::extract::{Input, Params, bad_query};
use super::projects::InProject;
use super::server_requests::{PeriodQuery, ReportFormat, ReportQuery, period};
use super::{Answer, Api, ProblemResponse};
use crate::engine::now;
use crate::minisign::{SignError, Signer};
use crate::view::Problem;
use crate::view::servers::QuotaView;

/// The header that carries the signature of an export: its file in minisign's form, as base64.
pub const SIGNATURE: &str = "billet-signature";

impl From<SignError> for ProblemResponse {
    fn from(error: SignError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a report was not signed");
        let hint = "look at the server's log and at signing.key in its state directory";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "signing", error.to_string(), hint)
    }
}

/// What a project may have, and what it has.
#[utoipa::path(get, path = "/projects/{project}/quota", tag = "usage", operation_id = "show_quota",
    params(("project" = String, Path, description = "Name or id")),
    responses((status = 200, body = QuotaView), (status = 404, body = Problem)))]
pub(super) async fn quota(State(api): State<Api>, within: InProject) -> Answer<Json<QuotaView>> {
    Ok(Json(api.engine.quota(within.project.id).await?.into()))
}

/// Sets what a project may have, as a whole. What it has stays, also above that. For those who run the site.
#[utoipa::path(put, path = "/projects/{project}/quota", tag = "usage", operation_id = "set_quota",
    params(("project" = String, Path, description = "Name or id")), request_body = Limits,
    responses((status = 200, body = QuotaView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn set_quota(
    State(api): State<Api>,
    within: InProject,
    Input(limits): Input<Limits>,
) -> Answer<Json<QuotaView>> {
    // Nobody gives it to themselves.
    if !within.who.may_change() {
        let (message, hint) = ("a quota is set by those who run the site", "ask them");
        return Err(ProblemResponse::new(StatusCode::FORBIDDEN, "role", message, hint));
    }
    Ok(Json(api.engine.set_quota(within.project.id, within.who.actor(), limits).await?.into()))
}

/// What a project used: a line per server, volume and network.
#[utoipa::path(get, path = "/projects/{project}/usage", tag = "usage", operation_id = "show_usage",
    params(("project" = String, Path, description = "Name or id"), ReportQuery),
    responses((status = 200, description = "Also as `text/csv`", body = usage::Report), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn of_project(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<ReportQuery>,
) -> Answer<Response> {
    let period = period(query.from, query.to, now()).map_err(bad_query)?;
    let report = api.engine.usage(Some(within.project.id), period).await?;
    Ok(printed(&report, query.format.unwrap_or_default())?.into_response())
}

/// How well a project's servers were there, and how long they took to come.
#[utoipa::path(get, path = "/projects/{project}/sla", tag = "usage", operation_id = "show_project_sla",
    params(("project" = String, Path, description = "Name or id"), PeriodQuery),
    responses((status = 200, body = sla::Report), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn sla_of_project(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PeriodQuery>,
) -> Answer<Json<sla::Report>> {
    let period = period(query.from, query.to, now()).map_err(bad_query)?;
    Ok(Json(api.engine.sla(Some(within.project.id), period).await?))
}

/// What all projects used: a line per server, volume and network, and a sum per project.
#[utoipa::path(get, path = "/usage", tag = "usage", operation_id = "show_all_usage", params(ReportQuery),
    responses((status = 200, description = "Also as `text/csv`", body = usage::Report), (status = 400, body = Problem)))]
pub(super) async fn of_all(State(api): State<Api>, Params(query): Params<ReportQuery>) -> Answer<Response> {
    let period = period(query.from, query.to, now()).map_err(bad_query)?;
    let report = api.engine.usage(None, period).await?;
    Ok(printed(&report, query.format.unwrap_or_default())?.into_response())
}

/// The same as a file with a signature: the header `Billet-Signature` has the file that `minisign -V` takes, as base64.
#[utoipa::path(get, path = "/usage/export", tag = "usage", operation_id = "export_usage", params(ReportQuery),
    responses((status = 200, description = "The file: JSON or `text/csv`", body = usage::Report,
        headers(("Billet-Signature" = String, description = "Signature in minisign's form, as base64"))),
        (status = 400, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn export(State(api): State<Api>, Params(query): Params<ReportQuery>) -> Answer<Response> {
    let period = period(query.from, query.to, now()).map_err(bad_query)?;
    let report = api.engine.usage(None, period).await?;
    let format = query.format.unwrap_or_default();
    let ending = match format {
        ReportFormat::Json => "json",
        ReportFormat::Csv => "csv",
    };
    let name = format!("usage-{}-{}.{ending}", report.period.from.0 / 1000, report.period.to.0 / 1000);
    let file = printed(&report, format)?;
    let signature = signer(&api).await?.sign(file.octets.as_bytes(), &name);
    let mut response = file.into_response();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(STANDARD.encode(signature)) {
        headers.insert(SIGNATURE, value);
    }
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The public key that signs exports, in minisign's form.
#[utoipa::path(get, path = "/usage/key", tag = "usage", operation_id = "usage_key",
    responses((status = 200, description = "The key", body = String, content_type = "text/plain"),
        (status = 503, body = Problem)))]
pub(super) async fn key(State(api): State<Api>) -> Answer<String> {
    Ok(signer(&api).await?.public())
}

/// How well servers of all projects were there, and how long they took to come.
#[utoipa::path(get, path = "/sla", tag = "usage", operation_id = "show_sla", params(PeriodQuery),
    responses((status = 200, body = sla::Report), (status = 400, body = Problem)))]
pub(super) async fn sla_of_all(
    State(api): State<Api>,
    Params(query): Params<PeriodQuery>,
) -> Answer<Json<sla::Report>> {
    let period = period(query.from, query.to, now()).map_err(bad_query)?;
    Ok(Json(api.engine.sla(None, period).await?))
}

async fn signer(api: &Api) -> Answer<Signer> {
    let path = api.engine.settings().state_dir.join("signing.key");
    let opened = tokio::task::spawn_blocking(move || Signer::open(&path)).await;
    Ok(opened.map_err(crate::engine::EngineError::from)??)
}

/// A report as it is sent.
struct File {
    kind: &'static str,
    octets: String,
}

fn printed(report: &usage::Report, format: ReportFormat) -> Answer<File> {
    let broken = |error: serde_json::Error| {
        ProblemResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
            "look at the server's log",
        )
    };
    Ok(match format {
        ReportFormat::Json => {
            File { kind: "application/json", octets: serde_json::to_string(report).map_err(broken)? }
        }
        ReportFormat::Csv => File { kind: "text/csv; charset=utf-8", octets: usage::csv(report) },
    })
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.kind)], self.octets).into_response()
    }
}
