//! Named tokens: who may come in beside the site's own token and users. Those of the site are made and revoked by its
//! administrators, those of a project by its members.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::{Role, Scope};

use super::extract::{Input, LastNamed, Named, Params, page_by_place};
use super::projects::InProject;
use super::requests::{PageQuery, TokenRequest};
use super::{Answer, Api, ProblemResponse};
use crate::http::auth::need;
use crate::tokens::{TokenError, note};
use crate::view::{Page, Problem, TokenCreated, TokenView};

impl From<TokenError> for ProblemResponse {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

/// All named tokens, newest first, with those that ended lately; never their text.
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "list_tokens", params(PageQuery),
    responses((status = 200, body = Page<TokenView>), (status = 403, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<TokenView>>> {
    need(Role::Admin)?;
    Ok(Json(page_by_place(&api.operators.named().list(Scope::Site), &query)?))
}

/// Makes a token. Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "create_token", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(request): Input<TokenRequest>,
) -> Answer<(StatusCode, Json<TokenCreated>)> {
    let by = need(Role::Admin)?;
    let lasts = request.expires_in_seconds.map(Duration::from_secs);
    let named = api.operators.named();
    let (token, secret) = named.create_by(&by, Scope::Site, &request.name, request.role, lasts).await?;
    note(&api.engine, by.actor(), "token.created", &token).await?;
    Ok((StatusCode::CREATED, Json(TokenCreated { token, secret })))
}

/// Ends a token: whoever uses it is cut off at once, consoles and pages included.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "tokens", operation_id = "revoke_token",
    params(("token" = String, Path, description = "Name or id")),
    responses((status = 200, body = TokenView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn revoke(State(api): State<Api>, Named(token): Named) -> Answer<Json<TokenView>> {
    let by = need(Role::Admin)?.actor();
    let token = api.operators.named().revoke(Scope::Site, &token).await?;
    note(&api.engine, by, "token.revoked", &token).await?;
    Ok(Json(token))
}

/// Tokens of a project, newest first: all of them for its administrators, the own for others.
#[utoipa::path(get, path = "/projects/{project}/tokens", tag = "projects", operation_id = "list_project_tokens",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<TokenView>), (status = 404, body = Problem)))]
pub(super) async fn list_of_project(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<TokenView>>> {
    let mut items = api.operators.named().list(within.scope());
    items.retain(|token| within.owns(token));
    Ok(Json(page_by_place(&items, &query)?))
}

/// Makes a token that is good in this project alone, with a role that the own one covers. Its text is in this answer and
/// nowhere else. It is good for no more than its maker is, for as long as it lasts.
#[utoipa::path(post, path = "/projects/{project}/tokens", tag = "projects", operation_id = "create_project_token",
    params(("project" = String, Path, description = "Name or id")), request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create_in_project(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<TokenRequest>,
) -> Answer<(StatusCode, Json<TokenCreated>)> {
    within.need(Role::Member)?;
    let lasts = request.expires_in_seconds.map(Duration::from_secs);
    let named = api.operators.named();
    let (token, secret) =
        named.create_by(&within.who, within.scope(), &request.name, request.role, lasts).await?;
    note(&api.engine, within.who.actor(), "token.created", &token).await?;
    Ok((StatusCode::CREATED, Json(TokenCreated { token, secret })))
}

/// Ends a token of this project: the own, or, for its administrators, anybody's.
#[utoipa::path(delete, path = "/projects/{project}/tokens/{token}", tag = "projects",
    operation_id = "revoke_project_token",
    params(("project" = String, Path, description = "Name or id"), ("token" = String, Path, description = "Name or id")),
    responses((status = 200, body = TokenView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn revoke_in_project(
    State(api): State<Api>,
    within: InProject,
    LastNamed(reference): LastNamed,
) -> Answer<Json<TokenView>> {
    let named = api.operators.named();
    let own = named.find_in(within.scope(), &reference).filter(|token| within.owns(token));
    let token = own.ok_or_else(|| TokenError::NotFound(reference.chars().take(80).collect()))?;
    let token = named.revoke(within.scope(), &token.id.to_string()).await?;
    note(&api.engine, within.who.actor(), "token.revoked", &token).await?;
    Ok(Json(token))
}
