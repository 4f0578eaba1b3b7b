//! Images on their way in.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use images::manifest::is_name;
use images::{Architecture, IngestOptions};
use protocol::ImageId;
use uuid::Uuid;

use super::extract::{IdempotencyKey, Input, Named, Params, page_by_place};
use super::images::view_of;
use super::requests::{IngestRequest, PageQuery, UploadQuery};
use super::verbs::operator;
use super::{Answer, Api, PREFIX, ProblemResponse};
use crate::ingest::{Begun, From, Order};
use crate::secret;
use crate::store::queries::Remembered;
use crate::view::{ImageView, IngestView, Page, Problem};

/// Adds an image that the server gets by itself, from a file of its own or from a URL. Answers at once; the ingest
/// says how far it is.
#[utoipa::path(post, path = "/images", tag = "images", operation_id = "add_image",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key does the same thing once, within 24 hours")),
    request_body = IngestRequest,
    responses((status = 202, body = IngestView), (status = 400, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn add(
    State(api): State<Api>,
    IdempotencyKey(key): IdempotencyKey,
    Input(request): Input<IngestRequest>,
) -> Answer<Response> {
    check_names(&request.name, &request.version)?;
    let (from, origin) = match (&request.path, &request.url) {
        (Some(path), None) => (From::Path(path.clone()), path.display().to_string()),
        (None, Some(url)) => (From::Url(url.clone()), url.clone()),
        _ => return Err(refuse("image-source", "give either `path` or `url`", "")),
    };
    let remember = remembered("image", key, &request);
    if let Some(wanted) = &remember
        && let Some(image) = answered(&api, wanted).await?
    {
        return Ok((StatusCode::ACCEPTED, Json(done(&request, image))).into_response());
    }
    let options = IngestOptions {
        minimum_disk: request.minimum_disk,
        default_user: request.default_user,
        datasource: request.datasource,
        expected_size: request.size,
        expected_sha256: request.sha256,
        ..IngestOptions::new(
            request.name,
            request.version,
            request.architecture.unwrap_or(Architecture::X86_64),
        )
    };
    let order = Order { options, origin, actor: operator(), remember };
    // Opening a file may block for as long as its disk needs.
    let ingests = api.ingests.clone();
    let view = tokio::task::spawn_blocking(move || ingests.start(order, from))
        .await
        .map_err(crate::engine::EngineError::from)??;
    let location = format!("{PREFIX}/ingests/{}", view.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// The ingest of an image that is there already.
fn done(request: &IngestRequest, image: ImageId) -> IngestView {
    IngestView {
        id: Uuid::now_v7(),
        image: format!("{}:{}", request.name, request.version),
        bytes_read: 0,
        bytes_total: request.size,
        raw_bytes: 0,
        finished: Some(image),
        failed: None,
    }
}

/// Adds an image from the body: the file as it is, in any format that is read (raw, raw.zst, raw.gz, raw.xz, qcow2).
#[utoipa::path(post, path = "/images/upload", tag = "images", operation_id = "upload_image",
    params(UploadQuery, ("Idempotency-Key" = Option<String>, Header, description = "The same key does the same thing once, within 24 hours")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = ImageView), (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn upload(
    State(api): State<Api>,
    query: Answer<Params<UploadQuery>>,
    key: Answer<IdempotencyKey>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    match prepare(&api, query, key, &headers).await {
        Ok(Prepared::Begun(begun, order)) => {
            let image = api.ingests.upload(begun, *order, body).await?;
            created(&api, image).await
        }
        Ok(Prepared::There(image)) => {
            discard(&headers, body).await;
            created(&api, image).await
        }
        Err(refused) => {
            discard(&headers, body).await;
            Err(refused)
        }
    }
}

/// A client that waits to be told whether to send its body (RFC 9110 section 10.1.1) is told not to by the answer.
async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        crate::ingest::drain(body).await;
    }
}

enum Prepared {
    Begun(Begun, Box<Order>),
    There(ImageId),
}

/// Everything that can be said before the first byte is taken.
async fn prepare(
    api: &Api,
    query: Answer<Params<UploadQuery>>,
    key: Answer<IdempotencyKey>,
    headers: &HeaderMap,
) -> Answer<Prepared> {
    let (Params(query), IdempotencyKey(key)) = (query?, key?);
    check_names(&query.name, &query.version)?;
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|h| h.to_str().ok()).and_then(|h| h.parse().ok());
    if let (Some(announced), Some(length)) = (query.size, length)
        && announced != length
    {
        let message = format!("size is {announced}, but the body has {length} bytes");
        return Err(refuse("image-refused", &message, "send the size of the file as it is"));
    }
    let remember = remembered("upload", key, &query);
    if let Some(wanted) = &remember
        && let Some(image) = answered(api, wanted).await?
    {
        return Ok(Prepared::There(image));
    }
    let architecture = query.architecture.unwrap_or(Architecture::X86_64);
    let options = IngestOptions {
        minimum_disk: query.minimum_disk,
        default_user: query.default_user,
        datasource: query.datasource,
        expected_size: query.size.or(length),
        expected_sha256: query.sha256,
        ..IngestOptions::new(query.name, query.version, architecture)
    };
    let order = Order { options, origin: "upload".to_owned(), actor: operator(), remember };
    Ok(Prepared::Begun(api.ingests.begin(&order)?, Box::new(order)))
}

async fn created(api: &Api, image: ImageId) -> Answer<Response> {
    let location = format!("{PREFIX}/images/{image}");
    let view = view_of(api, image).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Ingests that run and the newest that have ended, newest first. A restart of the server forgets them.
#[utoipa::path(get, path = "/ingests", tag = "images", operation_id = "list_ingests",
    params(PageQuery), responses((status = 200, body = Page<IngestView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<IngestView>>> {
    Ok(Json(page_by_place(&api.ingests.list(), &query)?))
}

/// One ingest.
#[utoipa::path(get, path = "/ingests/{ingest}", tag = "images", operation_id = "show_ingest",
    params(("ingest" = Uuid, Path, description = "Id")),
    responses((status = 200, body = IngestView), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(id): Named) -> Answer<Json<IngestView>> {
    let found = id.parse().ok().and_then(|id| api.ingests.get(id));
    let missing = || {
        let hint = "the server was restarted meanwhile, or it ended long ago; look at `billet image list`";
        ProblemResponse::new(StatusCode::NOT_FOUND, "ingest-not-found", "no ingest has this id", hint)
    };
    found.map(Json).ok_or_else(missing)
}

/// Names are checked before the first byte is taken.
fn check_names(name: &str, version: &str) -> Result<(), ProblemResponse> {
    for (what, text) in [("name", name), ("version", version)] {
        if !is_name(text) {
            let short: String = text.chars().take(64).collect();
            let message = format!("{what} `{short}` must be 1 to 64 of a-z, 0-9, `.`, `-`, `_`");
            return Err(refuse("image-options", &message, "choose another"));
        }
    }
    Ok(())
}

fn remembered<T: serde::Serialize>(scope: &str, key: Option<String>, request: &T) -> Option<Remembered> {
    let request = serde_json::to_string(request).unwrap_or_default();
    Some(Remembered {
        scope: scope.to_owned(),
        key: key?,
        request: secret::hash(&request).to_string(),
        answer: String::new(),
    })
}

/// The image that the same request under the same key led to, if it is still there.
async fn answered(api: &Api, wanted: &Remembered) -> Result<Option<ImageId>, ProblemResponse> {
    let answer = api.engine.answered(&wanted.scope, &wanted.key, &wanted.request).await?;
    let Some(image) = answer.and_then(|a| a.parse::<ImageId>().ok()) else { return Ok(None) };
    Ok(api.engine.image_row(&image.to_string()).await.is_ok().then_some(image))
}

fn refuse(code: &str, message: &str, hint: &str) -> ProblemResponse {
    ProblemResponse(Problem {
        status: 422,
        code: code.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    })
}
