//! Keys that sign images: the site's own, and others that are trusted beside it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use images::minisign::{PublicKey, SecretKey};

use super::extract::{Input, Named, Params, limit, page};
use super::requests::{EmptyRequest, ImportKeyRequest, PageQuery, TrustKeyRequest};
use super::verbs::operator;
use super::{Answer, Api};
use crate::engine::EngineError;
use crate::engine::trust::{KeyError, Successor};
use crate::http::auth::need;
use crate::store::trust::{KeyRow, Role as KeyRole};
use crate::view::{KeyOfSiteView, Page, Problem};
use boot_server_core::access::Role;

/// All keys that are known, oldest first: with those that were the site's once.
#[utoipa::path(get, path = "/site/keys", tag = "images", operation_id = "list_site_keys", params(PageQuery),
    responses((status = 200, body = Page<KeyOfSiteView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<KeyOfSiteView>>> {
    let limit = limit(query.limit)?;
    let views: Vec<_> = api.engine.site_keys().iter().map(|row| view(&api, row)).collect();
    let key = |view: &KeyOfSiteView| format!("{:016x}-{}", view.added.0, view.key);
    Ok(Json(page(views.into_iter(), key, query.cursor.as_deref(), limit)))
}

/// Trusts somebody else's key: images that it signed are taken too.
#[utoipa::path(post, path = "/site/keys", tag = "images", operation_id = "trust_site_key", request_body = TrustKeyRequest,
    responses((status = 201, body = KeyOfSiteView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn trust(
    State(api): State<Api>,
    Input(request): Input<TrustKeyRequest>,
) -> Answer<(StatusCode, Json<KeyOfSiteView>)> {
    need(Role::Admin)?;
    let key: PublicKey = request.public.parse().map_err(refuse)?;
    let row = api.engine.trust_key(operator(), key, &request.title).await?;
    Ok((StatusCode::CREATED, Json(view(&api, &row))))
}

/// Trusts somebody else's key no more.
#[utoipa::path(delete, path = "/site/keys/{key}", tag = "images", operation_id = "distrust_site_key",
    params(("key" = String, Path, description = "Number of the key, 16 hexadecimal digits")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn distrust(State(api): State<Api>, Named(key): Named) -> Answer<StatusCode> {
    need(Role::Admin)?;
    api.engine.distrust_key(operator(), &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new key for the site, which the old one names. All images are signed anew.
#[utoipa::path(post, path = "/site/keys/rotate", tag = "images", operation_id = "rotate_site_key",
    request_body = EmptyRequest,
    responses((status = 200, body = KeyOfSiteView), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<KeyOfSiteView>> {
    need(Role::Admin)?;
    let row = api.engine.rotate_key(operator()).await?;
    Ok(Json(view(&api, &row)))
}

/// Makes a key that was made elsewhere the site's, by a word of the old one, or without (`forget`).
#[utoipa::path(post, path = "/site/keys/import", tag = "images", operation_id = "import_site_key",
    request_body = ImportKeyRequest,
    responses((status = 200, body = KeyOfSiteView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn import(
    State(api): State<Api>,
    Input(request): Input<ImportKeyRequest>,
) -> Answer<Json<KeyOfSiteView>> {
    need(Role::Admin)?;
    let secret = request.private.as_deref().map(SecretKey::parse).transpose().map_err(refuse)?;
    let public = request.public.as_deref().map(str::parse::<PublicKey>).transpose().map_err(refuse)?;
    let of_secret = secret.as_ref().map(SecretKey::public);
    let key = match (public, of_secret) {
        (Some(public), Some(of_secret)) if public != of_secret => {
            return Err(EngineError::from(KeyError::Pair).into());
        }
        (public, of_secret) => public.or(of_secret).ok_or_else(|| EngineError::from(KeyError::Pair))?,
    };
    let next = Successor { key, secret, statement: request.statement };
    let row = api.engine.import_key(operator(), next, request.forget).await?;
    Ok(Json(view(&api, &row)))
}

fn refuse(error: images::minisign::MinisignError) -> EngineError {
    KeyError::from(error).into()
}

fn view(api: &Api, row: &KeyRow) -> KeyOfSiteView {
    KeyOfSiteView {
        id: row.key.id().to_string(),
        key: row.key.to_string(),
        role: row.role.as_str().to_owned(),
        title: row.title.clone(),
        added: row.added,
        ended: row.ended,
        private_here: row.role == KeyRole::Site && api.engine.has_image_key(),
        statement: row.statement.clone(),
    }
}
