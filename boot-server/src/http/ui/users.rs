//! Users, for administrators of the site.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::node::Severity;
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, render};
use crate::accounts::AccountError;
use crate::http::api::requests::{UserChange, UserRequest};
use crate::http::api::users::{add_user, change_user};
use crate::http::auth::need;
use crate::tenancy::TenancyError;
use crate::view::{Problem, UserView};

impl From<TenancyError> for Refusal {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

impl From<AccountError> for Refusal {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    nav: &'static str,
    users: Vec<UserView>,
    form: Typed,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Default)]
struct Typed {
    name: String,
    full_name: String,
    role: String,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    nav: &'static str,
    user: UserView,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    need(Role::Admin).map_err(Refusal)?;
    // The first is an administrator: there is nobody else who could make one.
    let role = if ui.known.tenancy().has_no_users() { "admin" } else { "" };
    Ok(all(&ui, Typed { role: role.to_owned(), ..Typed::default() }, None))
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let fields = Fields(fields);
    let text = |name| fields.trimmed(name).unwrap_or_default();
    let typed = Typed { name: text("name"), full_name: text("full_name"), role: text("role") };
    let password = Some(fields.get("password").to_owned()).filter(|p| !p.is_empty());
    if fields.get("password") != fields.get("again") {
        let problem = form::problem("password", "the two passwords are not the same", "type it again");
        return Ok(all(&ui, typed, Some(problem)));
    }
    let request = UserRequest {
        name: typed.name.clone(),
        full_name: typed.full_name.clone(),
        site_role: typed.role.parse().ok(),
        password,
    };
    match add_user(&ui.engine, &ui.known, &by, &request).await {
        Ok(_) => Ok(go("/users")),
        Err(problem) => Ok(all(&ui, typed, Some(problem))),
    }
}

pub(super) async fn show(State(ui): State<Ui>, Path(reference): Path<String>) -> Result<Response, Refusal> {
    need(Role::Admin).map_err(Refusal)?;
    one(&ui, &reference, None)
}

pub(super) async fn change(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let fields = Fields(fields);
    let request = UserChange {
        full_name: fields.trimmed("full_name").unwrap_or_default(),
        site_role: fields.get("role").parse().ok(),
        disabled: fields.get("disabled") == "yes",
    };
    match change_user(&ui.engine, &ui.known, &by, &reference, &request).await {
        Ok(user) => Ok(go(&format!("/users/{}", user.name))),
        Err(problem) => one(&ui, &reference, Some(problem)),
    }
}

pub(super) async fn password(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let fields = Fields(fields);
    let user = ui.known.tenancy().user(&reference)?;
    if fields.get("password") != fields.get("again") {
        let problem = form::problem("password", "the two passwords are not the same", "type it again");
        return one(&ui, &reference, Some(problem));
    }
    if let Err(error) = ui.known.accounts().set_password(user.id, fields.get("password"), None).await {
        return one(&ui, &reference, Some(error.problem()));
    }
    let message = format!("user {} was given a new password", user.name);
    ui.engine.note(by.actor(), None, "user.password", Severity::Info, message).await?;
    Ok(go(&format!("/users/{}", user.name)))
}

pub(super) async fn remove_second(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let user = ui.known.tenancy().user(&reference)?;
    ui.known.accounts().remove_second(user.id).await?;
    let message = format!("the second factor of {} was taken away", user.name);
    ui.engine.note(by.actor(), None, "user.totp", Severity::Warning, message).await?;
    Ok(go(&format!("/users/{}", user.name)))
}

fn all(ui: &Ui, form: Typed, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let users = ui.known.tenancy().users().into_iter();
    let users = users.map(|u| {
        let proofs = ui.known.accounts().has(u.id);
        u.with(proofs)
    });
    let body = json!({ "name": "alice", "full_name": "Alice", "site_role": "operator", "password": "…" });
    let recipe = Recipe::default()
        .and("billet user add alice --full-name Alice --role operator", "POST", "users", Some(&body))
        .and("billet user list", "GET", "users", None);
    render(status, &UsersPage { nav: "users", users: users.collect(), form, problem, recipe })
}

fn one(ui: &Ui, reference: &str, problem: Option<Problem>) -> Result<Response, Refusal> {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let tenancy = ui.known.tenancy();
    let user = tenancy.user(reference)?;
    let user = tenancy.user_view(&user).with(ui.known.accounts().has(user.id));
    let path = format!("users/{}", user.name);
    let body = json!({ "full_name": user.full_name, "site_role": user.site_role, "disabled": true });
    let recipe = Recipe::default()
        .and(&format!("billet user disable {}", user.name), "PUT", &path, Some(&body))
        .and(
            &format!("billet user password {}", user.name),
            "PUT",
            &format!("{path}/password"),
            Some(&json!({ "password": "…" })),
        )
        .and(&format!("billet user totp {} --remove", user.name), "DELETE", &format!("{path}/totp"), None);
    Ok(render(status, &UserPage { nav: "users", user, problem, recipe }))
}

/// Whether the form's choice of a role at the site is this one.
fn is_role(user: &UserView, role: &str) -> bool {
    user.site_role.map_or("", Role::as_str) == role
}

/// Roles at the site, and what they are for.
pub(super) const SITE_ROLES: [(&str, &str, &str); 5] = [
    ("", "None", "Uses servers of the projects that they are in"),
    ("reader", "Reader", "Looks at machines and images, changes nothing"),
    ("auditor", "Auditor", "Looks at everything, the audit included"),
    ("operator", "Operator", "Changes machines and images, types into consoles, enters every project"),
    ("admin", "Administrator", "Everything: users, projects, tokens, where the server connects to"),
];
