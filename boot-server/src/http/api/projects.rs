//! Projects and their members, and the way into what a project owns: [`InProject`].

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use boot_server_core::access::{Project, Role, Scope};
use boot_server_core::node::Severity;
use protocol::ProjectId;

use super::extract::{Input, LastNamed, Params, limit, page};
use super::requests::{MemberRequest, PageQuery, ProjectRequest};
use super::{Answer, Api, ProblemResponse};
use crate::engine::{EngineError, now};
use crate::http::auth::{need, who};
use crate::principal::Principal;
use crate::store::queries::NewEvent;
use crate::tenancy::{Tenancy, TenancyError};
use crate::view::{MeView, MemberView, Page, Problem, ProjectView, TokenView};

impl From<TenancyError> for ProblemResponse {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::Engine(error) => error.into(),
            other => Self(other.problem()),
        }
    }
}

/// Somebody in a project that they may enter: the `{project}` of the path, by name or id.
///
/// Who has no role in the project gets the very answer of a project that does not exist. Who has one, and asks for a change,
/// needs [`Role::may_use`]; a handler that needs more says so by [`InProject::need`].
#[derive(Debug, Clone)]
pub struct InProject {
    /// The project. It is not closed.
    pub project: Project,
    /// What they may do in it.
    pub role: Role,
    /// Who it is.
    pub who: Principal,
}

impl InProject {
    /// Refuses whoever has less than this role here.
    ///
    /// # Errors
    /// A [`Problem`] with 403 and the code `role`.
    pub fn need(&self, role: Role) -> Result<(), Problem> {
        if self.role.covers(role) { Ok(()) } else { Err(self.refusal(role)) }
    }

    /// Where tokens of this project are good.
    pub fn scope(&self) -> Scope {
        Scope::Project(self.project.id)
    }

    /// True for a token of theirs; all are, to whoever says who comes in.
    pub fn owns(&self, token: &TokenView) -> bool {
        self.role.may_admit() || (token.maker.is_some() && token.maker == self.who.user)
    }

    fn refusal(&self, role: Role) -> Problem {
        Problem {
            status: 403,
            code: "role".to_owned(),
            message: format!("this needs the role `{role}` in the project; yours is `{}`", self.role),
            hint: "ask an administrator of the project".to_owned(),
        }
    }

    /// Lets whoever asks into the project with this name or id.
    pub(in crate::http) fn enter(
        tenancy: &Tenancy,
        reference: &str,
        method: &Method,
    ) -> Result<Self, Problem> {
        let nothing = || TenancyError::ProjectNotFound(reference.chars().take(80).collect()).problem();
        let who = who().ok_or_else(nothing)?;
        let project = tenancy.project(reference).ok_or_else(nothing)?;
        let role = who.role_in(project.id).ok_or_else(nothing)?;
        let within = Self { project, role, who };
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        if changes && !role.may_use() {
            return Err(within.refusal(Role::Member));
        }
        Ok(within)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InProject {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemResponse> {
        let bad = |text: String| ProblemResponse::new(StatusCode::BAD_REQUEST, "path", text, "");
        let names = RawPathParams::from_request_parts(parts, state).await.map_err(|e| bad(e.body_text()))?;
        let reference = names.iter().find(|(key, _)| *key == "project").map(|(_, name)| name);
        let reference = reference.ok_or_else(|| bad("the path names no project".to_owned()))?;
        let tenancy = parts.extensions.get::<Tenancy>();
        let tenancy = tenancy.ok_or_else(|| bad("nobody was let in".to_owned()))?;
        Ok(Self::enter(tenancy, reference, &parts.method)?)
    }
}

/// Projects that whoever asks may enter, by name.
#[utoipa::path(get, path = "/projects", tag = "projects", operation_id = "list_projects", params(PageQuery),
    responses((status = 200, body = Page<ProjectView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<ProjectView>>> {
    let limit = limit(query.limit)?;
    let own = entered(api.operators.tenancy());
    Ok(Json(page(own.into_iter(), |p| p.name.clone(), query.cursor.as_deref(), limit)))
}

/// Projects that whoever asks may enter, by name.
pub(in crate::http) fn entered(tenancy: &Tenancy) -> Vec<ProjectView> {
    let Some(who) = who() else { return Vec::new() };
    let all = tenancy.projects().into_iter();
    all.filter_map(|p| who.role_in(p.id).map(|role| ProjectView::of(&p, Some(role)))).collect()
}

/// Makes a project. For administrators of the site.
#[utoipa::path(post, path = "/projects", tag = "projects", operation_id = "create_project",
    request_body = ProjectRequest,
    responses((status = 201, body = ProjectView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(api): State<Api>,
    Input(request): Input<ProjectRequest>,
) -> Answer<(StatusCode, Json<ProjectView>)> {
    let by = need(Role::Admin)?;
    let tenancy = api.operators.tenancy();
    let project = tenancy.create_project(&request.name, &request.description).await?;
    let message = format!("project {} was made", project.name);
    note(&api, &by, project.id, "project.created", message).await?;
    Ok((StatusCode::CREATED, Json(ProjectView::of(&project, by.role_in(project.id)))))
}

/// One project.
#[utoipa::path(get, path = "/projects/{project}", tag = "projects", operation_id = "show_project",
    params(("project" = String, Path, description = "Name or id")),
    responses((status = 200, body = ProjectView), (status = 404, body = Problem)))]
pub(super) async fn show(within: InProject) -> Json<ProjectView> {
    Json(ProjectView::of(&within.project, Some(within.role)))
}

/// Gives a project another name or description. For administrators of the site.
#[utoipa::path(put, path = "/projects/{project}", tag = "projects", operation_id = "change_project",
    params(("project" = String, Path, description = "Name or id")), request_body = ProjectRequest,
    responses((status = 200, body = ProjectView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(api): State<Api>,
    within: InProject,
    Input(request): Input<ProjectRequest>,
) -> Answer<Json<ProjectView>> {
    let by = need(Role::Admin)?;
    let tenancy = api.operators.tenancy();
    let project = tenancy.change_project(within.project.id, &request.name, &request.description).await?;
    let message = format!("project {} was changed; its name is {}", within.project.name, project.name);
    note(&api, &by, project.id, "project.changed", message).await?;
    Ok(Json(ProjectView::of(&project, Some(within.role))))
}

/// Closes a project that has nothing left: nobody enters it any more, and its tokens end. For administrators of the site.
#[utoipa::path(delete, path = "/projects/{project}", tag = "projects", operation_id = "close_project",
    params(("project" = String, Path, description = "Name or id")),
    responses((status = 200, body = ProjectView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn close(State(api): State<Api>, within: InProject) -> Answer<Json<ProjectView>> {
    let by = need(Role::Admin)?;
    let project = api.operators.tenancy().close_project(within.project.id).await?;
    let message = format!("project {} was closed", project.name);
    note(&api, &by, project.id, "project.closed", message).await?;
    Ok(Json(ProjectView::of(&project, Some(within.role))))
}

/// Who is what in a project, by name.
#[utoipa::path(get, path = "/projects/{project}/members", tag = "projects", operation_id = "list_members",
    params(("project" = String, Path, description = "Name or id"), PageQuery),
    responses((status = 200, body = Page<MemberView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn members(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<PageQuery>,
) -> Answer<Json<Page<MemberView>>> {
    let limit = limit(query.limit)?;
    let all = api.operators.tenancy().members(within.project.id);
    Ok(Json(page(all.into_iter(), |m| m.name.clone(), query.cursor.as_deref(), limit)))
}

/// Takes a user into the project, or gives them another role in it: none that the own does not cover. For administrators of
/// the project.
#[utoipa::path(put, path = "/projects/{project}/members/{user}", tag = "projects", operation_id = "set_member",
    params(("project" = String, Path, description = "Name or id"), ("user" = String, Path, description = "Name or id")),
    request_body = MemberRequest,
    responses((status = 200, body = MemberView), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn set_member(
    State(api): State<Api>,
    within: InProject,
    LastNamed(user): LastNamed,
    Input(request): Input<MemberRequest>,
) -> Answer<Json<MemberView>> {
    within.need(Role::Admin)?;
    within.need(request.role)?;
    let tenancy = api.operators.tenancy();
    let user = tenancy.user(&user)?;
    let member = tenancy.set_member(within.project.id, user.id, request.role).await?;
    let message = format!("{} is {} in project {}", user.name, request.role, within.project.name);
    note(&api, &within.who, within.project.id, "member.set", message).await?;
    Ok(Json(member))
}

/// Takes a user out of the project. For its administrators.
#[utoipa::path(delete, path = "/projects/{project}/members/{user}", tag = "projects", operation_id = "remove_member",
    params(("project" = String, Path, description = "Name or id"), ("user" = String, Path, description = "Name or id")),
    responses((status = 200, body = MemberView), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn remove_member(
    State(api): State<Api>,
    within: InProject,
    LastNamed(reference): LastNamed,
) -> Answer<Json<MemberView>> {
    within.need(Role::Admin)?;
    let tenancy = api.operators.tenancy();
    let missing = || TenancyError::MemberNotFound(reference.chars().take(80).collect());
    let user = tenancy.user(&reference).map_err(|_| missing())?;
    let member = tenancy.remove_member(within.project.id, user.id).await.map_err(|error| match error {
        TenancyError::MemberNotFound(_) => missing(),
        other => other,
    })?;
    let message = format!("{} is no more in project {}", user.name, within.project.name);
    note(&api, &within.who, within.project.id, "member.removed", message).await?;
    Ok(Json(member))
}

async fn note(
    api: &Api,
    by: &Principal,
    project: ProjectId,
    kind: &str,
    message: String,
) -> Result<(), EngineError> {
    let event = NewEvent::new(now(), by.actor().name(), kind, Severity::Info, message).of(project);
    api.engine.record(event).await
}

/// Whoever asks.
#[utoipa::path(get, path = "/me", tag = "server", operation_id = "me", responses((status = 200, body = MeView)))]
pub(super) async fn me(State(api): State<Api>) -> Answer<Json<MeView>> {
    let by = who().ok_or_else(|| TenancyError::UserNotFound(String::new()))?;
    let tenancy = api.operators.tenancy();
    let own = tenancy.projects().into_iter().filter_map(|project| {
        let role = *by.projects.get(&project.id)?;
        Some(crate::view::ProjectRoleView { project: project.id, name: project.name, role })
    });
    let projects = own.collect();
    Ok(Json(MeView { name: by.name(), user: by.user, site_role: by.site, projects }))
}
