//! Named tokens: who may come in beside the site's own token, which alone sees this page.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::{Role, Scope};
use serde_json::json;

use super::form::{self, Fields};
use super::format as f;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, render};
use crate::http::auth::need;
use crate::tokens::note;
use crate::view::{Problem, TokenView};

/// Days that can be chosen, and how they are called; empty for a token that does not end by itself.
const DAYS: [(&str, &str); 5] =
    [("1", "1 day"), ("7", "1 week"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year")];
/// What a form begins with.
const DAYS_USUAL: &str = "90";

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    nav: &'static str,
    tokens: Vec<TokenView>,
    form: Typed,
    problem: Option<Problem>,
    /// Name and text of a token that was just made: shown this once.
    made: Option<(String, String)>,
    recipe: Recipe,
}

struct Typed {
    name: String,
    role: String,
    days: String,
}

impl Default for Typed {
    fn default() -> Self {
        Self { name: String::new(), role: "operator".to_owned(), days: DAYS_USUAL.to_owned() }
    }
}

pub(super) async fn list(State(ui): State<Ui>) -> Result<Response, Refusal> {
    need(Role::Admin).map_err(Refusal)?;
    Ok(page(&ui, Typed::default(), None, None))
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?;
    let fields = Fields(fields);
    let text = |name| fields.trimmed(name).unwrap_or_default();
    let typed = Typed { name: text("name"), role: text("role"), days: text("days") };
    let role: Option<Role> = serde_json::from_value(json!(typed.role)).ok();
    let lasts = match typed.days.as_str() {
        "" => Some(None),
        days => days
            .parse::<u64>()
            .ok()
            .map(|days| Some(Duration::from_hours(days.saturating_mul(24).min(1 << 20)))),
    };
    let (Some(role), Some(lasts)) = (role, lasts) else {
        let problem = form::problem("token", "role or length is none", "correct it, and send the form again");
        return Ok(page(&ui, typed, Some(problem), None));
    };
    match ui.known.named().create_by(&by, Scope::Site, &typed.name, role, lasts).await {
        Ok((token, secret)) => {
            note(&ui.engine, by.actor(), "token.created", &token).await?;
            Ok(page(&ui, Typed::default(), None, Some((token.name, secret))))
        }
        Err(error) => Ok(page(&ui, typed, Some(error.problem()), None)),
    }
}

pub(super) async fn revoke(State(ui): State<Ui>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let by = need(Role::Admin).map_err(Refusal)?.actor();
    match ui.known.named().revoke(Scope::Site, &id).await {
        Ok(token) => {
            note(&ui.engine, by, "token.revoked", &token).await?;
            Ok(go("/tokens"))
        }
        Err(error) => Ok(page(&ui, Typed::default(), Some(error.problem()), None)),
    }
}

fn page(ui: &Ui, form: Typed, problem: Option<Problem>, made: Option<(String, String)>) -> Response {
    let status = problem.as_ref().map_or(200, |p| p.status);
    let body = json!({ "name": "alice", "role": "operator", "expires_in_seconds": 7_776_000 });
    let recipe = Recipe::default()
        .and("billet token create alice --role operator --days 90", "POST", "tokens", Some(&body))
        .and("billet token revoke alice", "DELETE", "tokens/alice", None);
    let tokens = ui.known.named().list(Scope::Site);
    render(status, &TokensPage { nav: "tokens", tokens, form, problem, made, recipe })
}

/// How a token stands.
fn standing(token: &TokenView) -> &'static str {
    match token {
        TokenView { holds: true, .. } => "holds",
        TokenView { revoked: Some(_), .. } => "revoked",
        _ => "ended",
    }
}
