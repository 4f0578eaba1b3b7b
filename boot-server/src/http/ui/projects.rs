//! Projects: the list for those who run the site, what somebody is in which, and who else is there with which tokens.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::node::Severity;
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, render};
use crate::engine::now;
use crate::http::api::projects::{InProject, entered};
use crate::http::auth::need;
use crate::store::queries::NewEvent;
use crate::tokens::note as note_token;
use crate::view::{MemberView, Problem, ProjectView, TokenView};

/// [`InProject`] for pages: who may not enter gets a page that says so.
pub(super) struct Inside(pub InProject);

impl<S: Send + Sync> FromRequestParts<S> for Inside {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let entered = InProject::from_request_parts(parts, state).await;
        entered.map(Self).map_err(|refused| Refusal(refused.0))
    }
}

#[derive(Template)]
#[template(path = "projects.html")]
struct ProjectsPage {
    nav: &'static str,
    projects: Vec<ProjectView>,
    /// They run the site, and may make more.
    admin: bool,
    name: String,
    description: String,
    problem: Option<Problem>,
    recipe: Recipe,
}

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage {
    nav: &'static str,
    project: ProjectView,
    members: Vec<MemberView>,
    tokens: Vec<TokenView>,
    /// They say who else comes in.
    admin: bool,
    /// They make tokens.
    may_use: bool,
    /// Roles that they may give.
    roles: Vec<Role>,
    problem: Option<Problem>,
    made: Option<(String, String)>,
    recipe: Recipe,
}

/// Projects that whoever asks may enter; for those who run the site, that is all of them.
pub(super) async fn list(State(ui): State<Ui>) -> Response {
    all(&ui, String::new(), String::new(), None)
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let fields = Fields(fields);
    let (name, description) =
        (fields.trimmed("name").unwrap_or_default(), fields.trimmed("description").unwrap_or_default());
    match ui.known.tenancy().create_project(&name, &description).await {
        Ok(project) => {
            let message = format!("project {} was made", project.name);
            let event = NewEvent::new(now(), by.actor().name(), "project.created", Severity::Info, message);
            ui.engine.record(event.of(project.id)).await?;
            Ok(go(&format!("/my/{}/members", project.name)))
        }
        Err(error) => Ok(all(&ui, name, description, Some(error.problem()))),
    }
}

fn all(ui: &Ui, name: String, description: String, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let body = json!({ "name": "web", "description": "The web shop" });
    let recipe = Recipe::default().and("billet project list", "GET", "projects", None).and(
        "billet project create web --description 'The web shop'",
        "POST",
        "projects",
        Some(&body),
    );
    let admin = need(Role::Admin).is_ok();
    let projects = entered(ui.known.tenancy());
    let page = ProjectsPage { nav: "projects", projects, admin, name, description, problem, recipe };
    render(status, &page)
}

pub(super) async fn members(State(ui): State<Ui>, Inside(within): Inside) -> Response {
    page(&ui, &within, None, None)
}

pub(super) async fn set_member(
    State(ui): State<Ui>,
    Inside(within): Inside,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    within.need(Role::Admin).map_err(Refusal)?;
    let Ok(role) = fields.get("role").parse::<Role>() else {
        let problem = form::problem("role", "that is no role", "choose one");
        return Ok(page(&ui, &within, Some(problem), None));
    };
    within.need(role).map_err(Refusal)?;
    let tenancy = ui.known.tenancy();
    let done = match tenancy.user(fields.get("user").trim()) {
        Ok(user) => tenancy.set_member(within.project.id, user.id, role).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(member) => {
            let message = format!("{} is {role} in project {}", member.name, within.project.name);
            note(&ui, &within, "member.set", message).await?;
            Ok(go(&format!("/my/{}/members", within.project.name)))
        }
        Err(error) => Ok(page(&ui, &within, Some(error.problem()), None)),
    }
}

pub(super) async fn remove_member(
    State(ui): State<Ui>,
    Inside(within): Inside,
    Path((_, user)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    within.need(Role::Admin).map_err(Refusal)?;
    let tenancy = ui.known.tenancy();
    let user = tenancy.user(&user)?;
    tenancy.remove_member(within.project.id, user.id).await?;
    let message = format!("{} is no more in project {}", user.name, within.project.name);
    note(&ui, &within, "member.removed", message).await?;
    Ok(go(&format!("/my/{}/members", within.project.name)))
}

pub(super) async fn create_token(
    State(ui): State<Ui>,
    Inside(within): Inside,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    within.need(Role::Member).map_err(Refusal)?;
    let fields = Fields(fields);
    let role: Option<Role> = fields.get("role").parse().ok();
    let days: Option<u64> = fields.get("days").parse().ok();
    let (Some(role), Some(days)) = (role, days) else {
        let problem = form::problem("token", "role or length is none", "choose both");
        return Ok(page(&ui, &within, Some(problem), None));
    };
    let lasts = Some(Duration::from_hours(days.saturating_mul(24).min(1 << 20)));
    let name = fields.trimmed("name").unwrap_or_default();
    let named = ui.known.named();
    match named.create_by(&within.who, within.scope(), &name, role, lasts).await {
        Ok((token, secret)) => {
            note_token(&ui.engine, within.who.actor(), "token.created", &token).await?;
            Ok(page(&ui, &within, None, Some((token.name, secret))))
        }
        Err(error) => Ok(page(&ui, &within, Some(error.problem()), None)),
    }
}

pub(super) async fn revoke_token(
    State(ui): State<Ui>,
    Inside(within): Inside,
    Path((_, token)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let named = ui.known.named();
    let own = named.find_in(within.scope(), &token).filter(|token| within.owns(token));
    let Some(token) = own else {
        let problem = form::problem("token", "there is no such token", "look at the list");
        return Ok(page(&ui, &within, Some(problem), None));
    };
    let ended =
        named.revoke(within.scope(), &token.id.to_string()).await.map_err(|e| Refusal(e.problem()))?;
    note_token(&ui.engine, within.who.actor(), "token.revoked", &ended).await?;
    Ok(go(&format!("/my/{}/members", within.project.name)))
}

fn page(ui: &Ui, within: &InProject, problem: Option<Problem>, made: Option<(String, String)>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let project = ProjectView::of(&within.project, Some(within.role));
    let mut tokens = ui.known.named().list(within.scope());
    tokens.retain(|token| token.holds && within.owns(token));
    let (name, path) = (&project.name, format!("projects/{}", project.name));
    let recipe = Recipe::default()
        .and(
            &format!("billet project member add {name} alice --role member"),
            "PUT",
            &format!("{path}/members/alice"),
            Some(&json!({ "role": "member" })),
        )
        .and(
            &format!("billet project token create {name} ci --role member --days 90"),
            "POST",
            &format!("{path}/tokens"),
            Some(&json!({ "name": "ci", "role": "member", "expires_in_seconds": 7_776_000 })),
        );
    let page = MembersPage {
        nav: "projects",
        members: ui.known.tenancy().members(project.id),
        tokens,
        admin: within.role.may_admit(),
        may_use: within.role.may_use(),
        roles: Role::ALL.into_iter().filter(|role| within.role.covers(*role)).collect(),
        project,
        problem,
        made,
        recipe,
    };
    render(status, &page)
}

async fn note(ui: &Ui, within: &InProject, kind: &str, message: String) -> Result<(), Refusal> {
    let event = NewEvent::new(now(), within.who.actor().name(), kind, Severity::Info, message);
    Ok(ui.engine.record(event.of(within.project.id)).await?)
}
