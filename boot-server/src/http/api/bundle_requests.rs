//! Bundles: what a site without a network takes in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use boot_server_core::access::Role;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Input, Params, page_by_place};
use super::requests::PageQuery;
use super::verbs::operator;
use super::{Answer, Api};
use crate::asking::carried;
use crate::bundle::Release;
use crate::engine::EngineError;
use crate::http::auth::need;
use crate::ingest;
use crate::view::{BundleCheckView, BundleView, Page, Problem};

/// A bundle in a file of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundlePathRequest {
    /// The file, below one of the server's import directories.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Take it in though a newer one was there.
    #[serde(default)]
    pub allow_older: bool,
}

/// Which bundle's boot files are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleSwitchRequest {
    /// Its number; without one, those of the configuration alone.
    pub number: Option<u64>,
}

/// How a bundle is taken in.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BundleUploadQuery {
    /// Take it in though a newer one was there.
    pub allow_older: bool,
}

/// Bundles that were taken in and are kept, newest first.
#[utoipa::path(get, path = "/bundles", tag = "images", operation_id = "list_bundles",
    params(PageQuery), responses((status = 200, body = Page<BundleView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<BundleView>>> {
    let all: Vec<BundleView> = api.engine.bundles().await?.iter().map(BundleView::of).collect();
    Ok(Json(page_by_place(&all, &query)?))
}

/// Takes a bundle in from a file of the server. Answers when it is done; who goes away does not end it.
#[utoipa::path(post, path = "/bundles/import", tag = "images", operation_id = "import_bundle",
    request_body = BundlePathRequest,
    responses((status = 200, body = BundleView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn import(
    State(api): State<Api>,
    Input(request): Input<BundlePathRequest>,
) -> Answer<Json<BundleView>> {
    need(Role::Admin)?;
    let file = opened(&api, request.path).await?;
    let (engine, actor, stop) = (api.engine.clone(), operator(), stops(&api));
    let taken =
        tokio::spawn(carried(
            async move { engine.import_bundle(file, actor, request.allow_older, stop).await },
        ));
    answer(taken.await.map_err(EngineError::from)?)
}

/// Takes a bundle in from the body.
#[utoipa::path(post, path = "/bundles/upload", tag = "images", operation_id = "upload_bundle",
    params(BundleUploadQuery), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = BundleView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn upload(
    State(api): State<Api>,
    query: Answer<Params<BundleUploadQuery>>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<BundleView>> {
    let allowed = need(Role::Admin).map_err(Into::into).and(query);
    let query = match allowed {
        Ok(Params(query)) => query,
        Err(refused) => {
            if !headers.contains_key(header::EXPECT) {
                ingest::drain(body).await;
            }
            return Err(refused);
        }
    };
    let (reader, feeding) = ingest::reader(body);
    let (engine, actor, stop) = (api.engine.clone(), operator(), stops(&api));
    let taken =
        tokio::spawn(carried(
            async move { engine.import_bundle(reader, actor, query.allow_older, stop).await },
        ));
    feeding.await;
    answer(taken.await.map_err(EngineError::from)?)
}

/// Reads a bundle in a file of the server from end to end and changes nothing.
#[utoipa::path(post, path = "/bundles/verify", tag = "images", operation_id = "verify_bundle",
    request_body = BundlePathRequest,
    responses((status = 200, body = BundleCheckView), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn verify(
    State(api): State<Api>,
    Input(request): Input<BundlePathRequest>,
) -> Answer<Json<BundleCheckView>> {
    need(Role::Admin)?;
    let file = opened(&api, request.path).await?;
    let checked = api.engine.verify_bundle(file, stops(&api)).await?;
    Ok(Json(BundleCheckView::of(&checked)))
}

/// Serves the boot files of another bundle that is kept. Images stay.
#[utoipa::path(post, path = "/bundles/switch", tag = "images", operation_id = "switch_bundle",
    request_body = BundleSwitchRequest,
    responses((status = 200, body = Page<BundleView>), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn switch(
    State(api): State<Api>,
    Input(request): Input<BundleSwitchRequest>,
) -> Answer<Json<Page<BundleView>>> {
    need(Role::Admin)?;
    api.engine.switch_bundle(request.number, operator()).await?;
    list(State(api), Params(PageQuery::default())).await
}

fn answer(taken: Result<Release, EngineError>) -> Answer<Json<BundleView>> {
    Ok(Json(BundleView::of(&taken?)))
}

async fn opened(api: &Api, path: PathBuf) -> Answer<std::io::BufReader<std::fs::File>> {
    let dirs = api.engine.settings().import_dirs.clone();
    let resolved = tokio::task::spawn_blocking(move || ingest::resolve(&path, &dirs)).await;
    let file = resolved.map_err(EngineError::from)??;
    Ok(std::io::BufReader::with_capacity(1 << 20, file))
}

/// Set when the server is to stop.
fn stops(api: &Api) -> Arc<AtomicBool> {
    let (flag, stop) = (Arc::new(AtomicBool::new(false)), api.stop.clone());
    let set = Arc::downgrade(&flag);
    tokio::spawn(async move {
        stop.cancelled().await;
        if let Some(flag) = set.upgrade() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    flag
}
