//! Named tokens: who may come in beside the site's own token. Only that one makes and revokes them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::Role;

use super::extract::{Input, Named};
use super::requests::TokenRequest;
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
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "list_tokens",
    responses((status = 200, body = Page<TokenView>), (status = 403, body = Problem)))]
pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Page<TokenView>>> {
    need(Role::Admin)?;
    Ok(Json(Page { items: api.operators.named().list(), next: None }))
}

/// Makes a token. Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "create_token", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(request): Input<TokenRequest>,
) -> Answer<(StatusCode, Json<TokenCreated>)> {
    let by = need(Role::Admin)?.actor();
    let lasts = request.expires_in_seconds.map(Duration::from_secs);
    let (token, secret) = api.operators.named().create(&request.name, request.role, lasts).await?;
    note(&api.engine, by, "token.created", &token).await?;
    Ok((StatusCode::CREATED, Json(TokenCreated { token, secret })))
}

/// Ends a token: whoever uses it is cut off at once, consoles and pages included.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "tokens", operation_id = "revoke_token",
    params(("token" = String, Path, description = "Name or id")),
    responses((status = 200, body = TokenView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn revoke(State(api): State<Api>, Named(token): Named) -> Answer<Json<TokenView>> {
    let by = need(Role::Admin)?.actor();
    let token = api.operators.named().revoke(&token).await?;
    note(&api.engine, by, "token.revoked", &token).await?;
    Ok(Json(token))
}
