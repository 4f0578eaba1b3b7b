//! Whoever signed in: password, second factor, sessions.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::node::Severity;

use super::form::{self, Fields};
use super::format as f;
use super::{Refusal, Ui, go, render};
use crate::accounts::{AccountError, totp};
use crate::http::api::me::{own_sessions, source};
use crate::http::auth::who;
use crate::principal::Principal;
use crate::view::{Problem, ProjectRoleView, SessionView};

#[derive(Template)]
#[template(path = "me.html")]
struct MePage {
    nav: &'static str,
    name: String,
    role: Option<String>,
    projects: Vec<ProjectRoleView>,
    /// They signed in by name, not by a token.
    user: bool,
    password: bool,
    second_factor: bool,
    sessions: Vec<SessionView>,
    /// A second factor on its way: its key in base32, and the square.
    enrolment: Option<(String, totp::Square)>,
    recovery: Vec<String>,
    problem: Option<Problem>,
    done: Option<&'static str>,
}

#[derive(Default)]
struct Shown {
    enrolment: Option<(String, totp::Square)>,
    recovery: Vec<String>,
    problem: Option<Problem>,
    done: Option<&'static str>,
}

pub(super) async fn show(State(ui): State<Ui>) -> Result<Response, Refusal> {
    page(&ui, Shown::default())
}

pub(super) async fn password(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (by, fields) = (me()?, Fields(fields));
    if fields.get("password") != fields.get("again") {
        let problem = form::problem("password", "the two new passwords are not the same", "type them again");
        return page(&ui, Shown { problem: Some(problem), ..Shown::default() });
    }
    let accounts = ui.known.accounts();
    if let Err(error) =
        accounts.change_password(&by, fields.get("current"), fields.get("password"), source()).await
    {
        return refused(&ui, &error);
    }
    let message = format!("user {} changed the own password", by.name());
    ui.engine.note(by.actor(), None, "user.password", Severity::Info, message).await?;
    page(
        &ui,
        Shown { done: Some("The password was changed; all other sessions were ended."), ..Shown::default() },
    )
}

pub(super) async fn begin_second(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (by, fields) = (me()?, Fields(fields));
    match ui.known.accounts().begin_enrolment(&by, fields.get("current"), source()).await {
        Ok(begun) => {
            let square = totp::qr(&begun.uri).map(|square| (begun.secret, square));
            page(&ui, Shown { enrolment: square, ..Shown::default() })
        }
        Err(error) => refused(&ui, &error),
    }
}

pub(super) async fn finish_second(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (by, fields) = (me()?, Fields(fields));
    match ui.known.accounts().finish_enrolment(ui.engine.vault(), &by, fields.get("code")).await {
        Ok(recovery) => {
            let message = format!("user {} set up a second factor", by.name());
            ui.engine.note(by.actor(), None, "user.totp", Severity::Info, message).await?;
            page(&ui, Shown { recovery, ..Shown::default() })
        }
        Err(error) => refused(&ui, &error),
    }
}

pub(super) async fn remove_second(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (by, fields) = (me()?, Fields(fields));
    if let Err(error) = ui.known.accounts().remove_own_second(&by, fields.get("current"), source()).await {
        return refused(&ui, &error);
    }
    let message = format!("user {} took the own second factor away", by.name());
    ui.engine.note(by.actor(), None, "user.totp", Severity::Warning, message).await?;
    Ok(go("/me"))
}

pub(super) async fn end_session(
    State(ui): State<Ui>,
    Path(session): Path<String>,
) -> Result<Response, Refusal> {
    let by = me()?;
    let user = by.user.ok_or(AccountError::NoUser)?;
    ui.known.accounts().end_session(user, &session).await?;
    Ok(go("/me"))
}

fn me() -> Result<Principal, AccountError> {
    who().ok_or(AccountError::NoUser)
}

fn refused(ui: &Ui, error: &AccountError) -> Result<Response, Refusal> {
    page(ui, Shown { problem: Some(error.problem()), ..Shown::default() })
}

fn page(ui: &Ui, shown: Shown) -> Result<Response, Refusal> {
    let by = me()?;
    let user = by.user.filter(|_| by.session.is_some());
    let accounts = ui.known.accounts();
    let (password, second_factor) = user.map_or((false, false), |user| accounts.has(user));
    let projects = by.user.map(|user| ui.known.tenancy().projects_of(user)).unwrap_or_default();
    let status = shown.problem.as_ref().map_or(200, |p| p.status);
    let page = MePage {
        nav: "me",
        name: by.name(),
        role: by.site.map(|role| role.to_string()),
        projects,
        user: user.is_some(),
        password,
        second_factor,
        sessions: user.map(|user| own_sessions(accounts, &by, user)).unwrap_or_default(),
        enrolment: shown.enrolment,
        recovery: shown.recovery,
        problem: shown.problem,
        done: shown.done,
    };
    Ok(render(status, &page))
}
