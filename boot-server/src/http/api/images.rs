//! Images that are there.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use images::store::VerifyReport;
use protocol::ImageId;

use super::extract::{Input, Named, Params, limit, page};
use super::requests::{EmptyRequest, PageQuery, SignatureRequest};
use super::verbs::operator;
use super::{Answer, Api, ProblemResponse};
use crate::engine::trust::Standing;
use crate::engine::{Engine, EngineError, ImageRow};
use crate::http::auth::need;
use crate::ingest::sentence;
use crate::view::{BadChunkView, ImageView, Page, Problem, SignatureView, VerifyView};
use boot_server_core::access::Role;

/// All images, newest first.
#[utoipa::path(get, path = "/images", tag = "images", operation_id = "list_images", params(PageQuery),
    responses((status = 200, body = Page<ImageView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<ImageView>>> {
    let limit = limit(query.limit)?;
    // Newest first: the key grows as the moment falls.
    let key = |row: &ImageRow| format!("{:016x}-{}", u64::MAX - row.added.0, row.id);
    let mut rows = api.engine.image_rows().await?;
    rows.sort_by_cached_key(key);
    let rows = page(rows.into_iter(), key, query.cursor.as_deref(), limit);
    let mut items = Vec::with_capacity(rows.items.len());
    for row in &rows.items {
        // One that cannot be read does not hide the others; the log says which.
        match image_view(&api.engine, row).await {
            Ok(view) => items.push(view),
            Err(error) => tracing::error!(image = %row.id, %error, "image cannot be shown"),
        }
    }
    Ok(Json(Page { items, next: rows.next }))
}

/// One image.
#[utoipa::path(get, path = "/images/{image}", tag = "images", operation_id = "show_image",
    params(("image" = String, Path, description = "Id, name (newest version), or name:version")),
    responses((status = 200, body = ImageView), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(image): Named) -> Answer<Json<ImageView>> {
    let row = api.engine.image_row(&image).await?;
    Ok(Json(image_view(&api.engine, &row).await?))
}

/// Removes an image; refused while a job needs it.
#[utoipa::path(delete, path = "/images/{image}", tag = "images", operation_id = "remove_image",
    params(("image" = String, Path, description = "Id, name (newest version), or name:version")),
    responses((status = 204, description = "Removed"), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn remove(State(api): State<Api>, Named(image): Named) -> Answer<StatusCode> {
    let row = api.engine.remove_image(&image).await?;
    let message = format!("image {}:{} was removed, {}", row.name, row.version, row.id);
    let severity = boot_server_core::node::Severity::Info;
    api.engine.note(operator(), None, "image.removed", severity, message).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads every chunk of an image back and compares all hashes. Takes as long as reading the image does.
#[utoipa::path(post, path = "/images/{image}/verify", tag = "images", operation_id = "verify_image",
    params(("image" = String, Path, description = "Id, name (newest version), or name:version")),
    request_body = EmptyRequest,
    responses((status = 200, body = VerifyView), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn verify(
    State(api): State<Api>,
    Named(image): Named,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<VerifyView>> {
    let row = api.engine.image_row(&image).await?;
    let permit = api.verifies.clone().try_acquire_owned().map_err(|_| {
        let message = "an image is being verified already";
        ProblemResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "verifies-full",
            message,
            "try again when it is done",
        )
    })?;
    let (store, stop) = (api.engine.images().clone(), api.stop.clone());
    let gone = Arc::new(AtomicBool::new(false));
    let _guard = SetOnDrop(gone.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        store.verify_with(row.id, &mut |_, _| {
            let end = gone.load(Ordering::Relaxed) || stop.is_cancelled();
            if end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    let report = reading.await.map_err(EngineError::from)?.map_err(EngineError::from)?;
    Ok(Json(report_view(&report)))
}

/// The manifest of an image: what is signed.
#[utoipa::path(get, path = "/images/{image}/manifest", tag = "images", operation_id = "image_manifest",
    params(("image" = String, Path, description = "Id, name (newest version), or name:version")),
    responses((status = 200, description = "Canonical JSON", body = serde_json::Value), (status = 404, body = Problem)))]
pub(super) async fn manifest(State(api): State<Api>, Named(image): Named) -> Answer<Response> {
    let row = api.engine.image_row(&image).await?;
    let octets = api.engine.manifest_octets(row.id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], octets).into_response())
}

/// Gives an image the signature that it waits for, or has the server sign it.
#[utoipa::path(post, path = "/images/{image}/signature", tag = "images", operation_id = "sign_image",
    params(("image" = String, Path, description = "Id, name (newest version), or name:version")),
    request_body = SignatureRequest,
    responses((status = 200, body = ImageView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn sign(
    State(api): State<Api>,
    Named(image): Named,
    Input(request): Input<SignatureRequest>,
) -> Answer<Json<ImageView>> {
    let row = match request.signature {
        Some(text) => api.engine.give_signature(operator(), &image, text).await?,
        None => {
            need(Role::Admin)?;
            api.engine.sign_image(operator(), &image).await?
        }
    };
    Ok(Json(image_view(&api.engine, &row).await?))
}

/// Says that the client went away: its request is dropped.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn report_view(report: &VerifyReport) -> VerifyView {
    let bad = report.bad.iter().map(|bad| BadChunkView {
        index: bad.index as u64,
        offset: bad.offset,
        id: bad.id,
        fault: sentence(&bad.fault),
    });
    VerifyView {
        image: report.image,
        good: report.is_good(),
        checked: report.checked,
        bad: bad.collect(),
        whole: report.whole,
    }
}

/// An image by its id.
pub(super) async fn view_of(api: &Api, id: ImageId) -> Result<ImageView, EngineError> {
    let row = api.engine.image_row(&id.to_string()).await?;
    image_view(&api.engine, &row).await
}

/// An image as the API shows it.
///
/// # Errors
/// Where its manifest cannot be read.
pub async fn image_view(engine: &Engine, row: &ImageRow) -> Result<ImageView, EngineError> {
    let manifest = engine.manifest(row.id).await?;
    let nodes = engine.nodes().await?;
    let users = nodes.iter().filter(|node| node.installed.as_ref().is_some_and(|i| i.image == row.id));
    let text = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let word = |value: serde_json::Result<serde_json::Value>| value.map(text).unwrap_or_default();
    let (signed, unsigned) = match engine.standing_of(row.id) {
        Standing::Signed { key, title, number } => {
            (Some(SignatureView { key: key.id().to_string(), title, number }), None)
        }
        Standing::Refused(why) => (None, Some(why)),
    };
    Ok(ImageView {
        id: row.id,
        name: row.name.clone(),
        version: row.version.clone(),
        architecture: word(serde_json::to_value(manifest.architecture)),
        firmware: manifest.firmware.iter().map(|f| word(serde_json::to_value(f))).collect(),
        raw_bytes: manifest.raw_size,
        data_bytes: manifest.data_bytes(),
        minimum_disk: manifest.minimum_disk,
        sha256: manifest.sha256,
        default_user: manifest.default_user.clone(),
        datasource: manifest.datasource.unwrap_or_default(),
        chunks: manifest.chunks.iter().flatten().count() as u64,
        added: row.added,
        origin: row.origin.clone(),
        used_by: users.map(|node| node.name.clone()).collect(),
        signed,
        unsigned,
    })
}
