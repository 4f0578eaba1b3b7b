//! Users, for administrators of the site.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boot_server_core::access::{Role, User};
use boot_server_core::node::Severity;

use super::extract::{Input, LastNamed, Named, Params, limit, page};
use super::requests::{EmptyRequest, PageQuery, PasswordRequest, UserChange, UserRequest};
use super::{Answer, Api, ProblemResponse};
use crate::accounts::{AccountError, password};
use crate::engine::now;
use crate::http::auth::need;
use crate::principal::Principal;
use crate::store::StoreError;
use crate::tenancy::TenancyError;
use crate::view::{Page, Problem, UserView};

impl From<AccountError> for ProblemResponse {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

/// All users, by name.
#[utoipa::path(get, path = "/users", tag = "users", operation_id = "list_users", params(PageQuery),
    responses((status = 200, body = Page<UserView>), (status = 400, body = Problem), (status = 403, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<UserView>>> {
    need(Role::Admin)?;
    let limit = limit(query.limit)?;
    let all = api.operators.tenancy().users().into_iter().map(|user| {
        let proofs = api.operators.accounts().has(user.id);
        user.with(proofs)
    });
    Ok(Json(page(all, |u| u.name.clone(), query.cursor.as_deref(), limit)))
}

/// Adds a user.
#[utoipa::path(post, path = "/users", tag = "users", operation_id = "create_user", request_body = UserRequest,
    responses((status = 201, body = UserView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(request): Input<UserRequest>,
) -> Answer<(StatusCode, Json<UserView>)> {
    let by = need(Role::Admin)?;
    let user = api.add_user(&by, &request).await?;
    Ok((StatusCode::CREATED, Json(view(&api, &user))))
}

impl Api {
    async fn add_user(&self, by: &Principal, request: &UserRequest) -> Answer<User> {
        Ok(add_user(&self.engine, &self.operators, by, request).await?)
    }
}

/// Adds a user, and says so in the event list; for the page too.
pub(in crate::http) async fn add_user(
    engine: &crate::engine::Engine,
    operators: &crate::http::auth::Operators,
    by: &Principal,
    request: &UserRequest,
) -> Result<User, Problem> {
    let of = |error: TenancyError| error.problem();
    // Before anything is made.
    if let Some(text) = &request.password {
        password::check(text, &request.name).map_err(|weak| AccountError::from(weak).problem())?;
    }
    if operators.named().with_name(&request.name, now()).is_some() {
        return Err(of(StoreError::NameTaken(request.name.clone()).into()));
    }
    let tenancy = operators.tenancy();
    let user = tenancy.create_user(&request.name, &request.full_name, request.site_role).await.map_err(of)?;
    if let Some(text) = &request.password {
        operators.accounts().set_password(user.id, text, None).await.map_err(|error| error.problem())?;
    }
    let role = user.site.map_or("none", Role::as_str);
    let message = format!("user {} was added; role at the site: {role}", user.name);
    let noted = engine.note(by.actor(), None, "user.created", Severity::Info, message).await;
    noted.map_err(|error| error.problem())?;
    Ok(user)
}

/// One user.
#[utoipa::path(get, path = "/users/{user}", tag = "users", operation_id = "show_user",
    params(("user" = String, Path, description = "Name or id")),
    responses((status = 200, body = UserView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn show(State(api): State<Api>, Named(reference): Named) -> Answer<Json<UserView>> {
    need(Role::Admin)?;
    let user = api.operators.tenancy().user(&reference)?;
    Ok(Json(view(&api, &user)))
}

/// Says what a user is from now on. With another role at the site, or disabled, whatever they hold open is cut; who is disabled is
/// signed out everywhere.
#[utoipa::path(put, path = "/users/{user}", tag = "users", operation_id = "change_user",
    params(("user" = String, Path, description = "Name or id")), request_body = UserChange,
    responses((status = 200, body = UserView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    Named(reference): Named,
    Input(request): Input<UserChange>,
) -> Answer<Json<UserView>> {
    let by = need(Role::Admin)?;
    let user = change_user(&api.engine, &api.operators, &by, &reference, &request).await?;
    Ok(Json(view(&api, &user)))
}

/// Changes a user, and says so in the event list; for the page too.
pub(in crate::http) async fn change_user(
    engine: &crate::engine::Engine,
    operators: &crate::http::auth::Operators,
    by: &Principal,
    reference: &str,
    request: &UserChange,
) -> Result<User, Problem> {
    let of = |error: TenancyError| error.problem();
    let tenancy = operators.tenancy();
    let before = tenancy.user(reference).map_err(of)?;
    tenancy.change_user(before.id, &request.full_name, request.site_role).await.map_err(of)?;
    let user = tenancy.set_disabled(before.id, request.disabled).await.map_err(of)?;
    if request.disabled {
        operators.accounts().end_sessions(user.id).await.map_err(|error| error.problem())?;
    }
    let mut lines = Vec::new();
    if before.site != user.site {
        let words = |role: Option<Role>| role.map_or("none", Role::as_str);
        let (old, new) = (words(before.site), words(user.site));
        lines.push(("user.role", format!("role of {} at the site: {new}, before {old}", user.name)));
    }
    match (before.disabled, user.disabled) {
        (None, Some(_)) => {
            lines.push(("user.disabled", format!("user {} may not sign in any more", user.name)))
        }
        (Some(_), None) => lines.push(("user.enabled", format!("user {} may sign in again", user.name))),
        _ => {}
    }
    for (kind, message) in lines {
        let noted = engine.note(by.actor(), None, kind, Severity::Info, message).await;
        noted.map_err(|error| error.problem())?;
    }
    Ok(user)
}

/// Gives a user a new password. They are signed out everywhere.
#[utoipa::path(put, path = "/users/{user}/password", tag = "users", operation_id = "set_user_password",
    params(("user" = String, Path, description = "Name or id")), request_body = PasswordRequest,
    responses((status = 200, body = UserView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn set_password(
    State(api): State<Api>,
    LastNamed(reference): LastNamed,
    Input(request): Input<PasswordRequest>,
) -> Answer<Json<UserView>> {
    let by = need(Role::Admin)?;
    let user = api.operators.tenancy().user(&reference)?;
    api.operators.accounts().set_password(user.id, &request.password, None).await?;
    let message = format!("user {} was given a new password", user.name);
    api.engine.note(by.actor(), None, "user.password", Severity::Info, message).await?;
    Ok(Json(view(&api, &user)))
}

/// Takes the second factor of a user away, who lost it.
#[utoipa::path(delete, path = "/users/{user}/totp", tag = "users", operation_id = "remove_user_totp",
    params(("user" = String, Path, description = "Name or id")),
    responses((status = 200, body = UserView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn remove_second(
    State(api): State<Api>,
    LastNamed(reference): LastNamed,
) -> Answer<Json<UserView>> {
    let by = need(Role::Admin)?;
    let user = api.operators.tenancy().user(&reference)?;
    api.operators.accounts().remove_second(user.id).await?;
    let message = format!("the second factor of {} was taken away", user.name);
    api.engine.note(by.actor(), None, "user.totp", Severity::Warning, message).await?;
    Ok(Json(view(&api, &user)))
}

/// Signs a user out everywhere.
#[utoipa::path(post, path = "/users/{user}/sign-out", tag = "users", operation_id = "sign_out_user",
    params(("user" = String, Path, description = "Name or id")), request_body = EmptyRequest,
    responses((status = 200, body = UserView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn end_sessions(
    State(api): State<Api>,
    LastNamed(reference): LastNamed,
    Input(EmptyRequest {}): Input<EmptyRequest>,
) -> Answer<Json<UserView>> {
    let by = need(Role::Admin)?;
    let user = api.operators.tenancy().user(&reference)?;
    api.operators.accounts().end_sessions(user.id).await?;
    let message = format!("user {} was signed out everywhere", user.name);
    api.engine.note(by.actor(), None, "user.signed-out", Severity::Info, message).await?;
    Ok(Json(view(&api, &user)))
}

fn view(api: &Api, user: &User) -> UserView {
    api.operators.tenancy().user_view(user).with(api.operators.accounts().has(user.id))
}
