//! Signing in by name and password, and what users change of themselves.

use std::net::{IpAddr, Ipv4Addr};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use boot_server_core::node::Severity;
use protocol::UserId;

use super::extract::{Input, Named, Params, page_by_place};
use super::requests::{CodeRequest, LoginRequest, OwnPasswordRequest, PageQuery, ProofRequest};
use super::{Answer, Api};
use crate::accounts::{AccountError, At, Typed};
use crate::engine::now;
use crate::http::audit::Entered;
use crate::http::auth::{agent, sign_in, who};
use crate::principal::Principal;
use crate::view::{EnrolmentView, Page, Problem, RecoveryView, SessionCreated, SessionView};

/// Signs in by name and password. What it answers with is sent as a bearer token from then on.
#[utoipa::path(post, path = "/login", tag = "users", operation_id = "login", request_body = LoginRequest, security(()),
    responses((status = 201, body = SessionCreated), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn login(
    State(api): State<Api>,
    headers: HeaderMap,
    Input(request): Input<LoginRequest>,
) -> Answer<(StatusCode, Extension<Entered>, Json<SessionCreated>)> {
    let typed = Typed { name: &request.user, password: &request.password, code: &request.code };
    let at = At { source: source(), agent: agent(&headers) };
    let (who, secret) = sign_in(&api.engine, &api.operators, typed, at).await?;
    let user = who.user.ok_or(AccountError::Wrong)?;
    let expires = who.expires.unwrap_or_else(now);
    let entered = Extension(Entered(who.name()));
    Ok((StatusCode::CREATED, entered, Json(SessionCreated { user, name: who.name(), expires, secret })))
}

/// Where whoever asks is signed in, newest first.
#[utoipa::path(get, path = "/me/sessions", tag = "users", operation_id = "list_own_sessions", params(PageQuery),
    responses((status = 200, body = Page<SessionView>), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn sessions(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<SessionView>>> {
    let (by, user) = user()?;
    Ok(Json(page_by_place(&own_sessions(api.operators.accounts(), &by, user), &query)?))
}

/// Sessions of whoever asks; the one that asks is marked.
pub(in crate::http) fn own_sessions(
    accounts: &crate::accounts::Accounts,
    by: &Principal,
    user: UserId,
) -> Vec<SessionView> {
    let mut items = accounts.sessions_of(user);
    items.iter_mut().for_each(|session| session.present = Some(session.id) == by.session);
    items
}

/// Ends an own session.
#[utoipa::path(delete, path = "/me/sessions/{session}", tag = "users", operation_id = "end_own_session",
    params(("session" = String, Path, description = "Id")),
    responses((status = 200, body = SessionView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn end_session(State(api): State<Api>, Named(session): Named) -> Answer<Json<SessionView>> {
    let (_, user) = user()?;
    Ok(Json(api.operators.accounts().end_session(user, &session).await?))
}

/// Changes the own password; all other sessions end.
#[utoipa::path(put, path = "/me/password", tag = "users", operation_id = "change_own_password",
    request_body = OwnPasswordRequest,
    responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn change_password(
    State(api): State<Api>,
    Input(request): Input<OwnPasswordRequest>,
) -> Answer<StatusCode> {
    let (by, _) = user()?;
    let accounts = api.operators.accounts();
    accounts.change_password(&by, &request.current, &request.password, source()).await?;
    let message = format!("user {} changed the own password", by.name());
    api.engine.note(by.actor(), None, "user.password", Severity::Info, message).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins to set up an authenticator as a second factor. Nothing changes before its first code was sent.
#[utoipa::path(post, path = "/me/totp", tag = "users", operation_id = "begin_totp", request_body = ProofRequest,
    responses((status = 200, body = EnrolmentView), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 409, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn begin_second(
    State(api): State<Api>,
    Input(request): Input<ProofRequest>,
) -> Answer<Json<EnrolmentView>> {
    let (by, _) = user()?;
    let begun = api.operators.accounts().begin_enrolment(&by, &request.current, source()).await?;
    Ok(Json(EnrolmentView { secret: begun.secret, uri: begun.uri }))
}

/// Sends the first code: from now on signing in needs one.
#[utoipa::path(put, path = "/me/totp", tag = "users", operation_id = "finish_totp", request_body = CodeRequest,
    responses((status = 200, body = RecoveryView), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn finish_second(
    State(api): State<Api>,
    Input(request): Input<CodeRequest>,
) -> Answer<Json<RecoveryView>> {
    let (by, _) = user()?;
    let codes = api.operators.accounts().finish_enrolment(api.engine.vault(), &by, &request.code).await?;
    let message = format!("user {} set up a second factor", by.name());
    api.engine.note(by.actor(), None, "user.totp", Severity::Info, message).await?;
    Ok(Json(RecoveryView { codes }))
}

/// Takes the own second factor away.
#[utoipa::path(post, path = "/me/totp/remove", tag = "users", operation_id = "remove_totp",
    request_body = ProofRequest,
    responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 409, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn remove_second(
    State(api): State<Api>,
    Input(request): Input<ProofRequest>,
) -> Answer<StatusCode> {
    let (by, _) = user()?;
    api.operators.accounts().remove_own_second(&by, &request.current, source()).await?;
    let message = format!("user {} took the own second factor away", by.name());
    api.engine.note(by.actor(), None, "user.totp", Severity::Warning, message).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever signed in by name: a token is nobody who has a password.
fn user() -> Result<(Principal, UserId), AccountError> {
    let by = who().filter(|by| by.session.is_some()).ok_or(AccountError::NoUser)?;
    let user = by.user.ok_or(AccountError::NoUser)?;
    Ok((by, user))
}

/// The address that asks.
pub(in crate::http) fn source() -> IpAddr {
    crate::asking::asking().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |asked| asked.source)
}
