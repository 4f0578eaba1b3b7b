//! `/oidc/login` and `/oidc/callback`: to the site's OpenID provider and back.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use boot_server_core::node::Severity;
use serde::Deserialize;

use super::audit::Entered;
use super::auth::{self, Operators};
use super::encode;
use crate::accounts::At;
use crate::engine::{Actor, Engine, now};
use crate::http::api::me::source;
use crate::oidc::{Oidc, OidcError};

/// Ties whoever comes back to the browser that went. `Lax`: it must be sent along from the provider's page.
const BROWSER: &str = "billet_oidc";
/// As long as somebody may be away.
const AWAY: Duration = Duration::from_mins(10);

#[derive(Clone)]
struct Desk {
    oidc: Oidc,
    operators: Arc<Operators>,
    engine: Engine,
}

/// The two routes, where there is a provider.
pub(super) fn routes(operators: Arc<Operators>, engine: Engine) -> Router {
    let Some(settings) = engine.settings().oidc.clone() else { return Router::new() };
    let oidc = Oidc::new(settings, engine.store().clone(), operators.tenancy().clone());
    Router::new().route("/oidc/login", get(depart)).route("/oidc/callback", get(arrive)).with_state(Desk {
        oidc,
        operators,
        engine,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Going {
    next: String,
}

async fn depart(State(desk): State<Desk>, Query(going): Query<Going>) -> Response {
    let next = if auth::is_local(&going.next) { going.next.as_str() } else { "/" };
    match desk.oidc.depart(next).await {
        Ok(away) => {
            (StatusCode::SEE_OTHER, [(LOCATION, away.url), (SET_COOKIE, cookie(&away.browser, AWAY))])
                .into_response()
        }
        Err(error) => desk.refuse(&error).await,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Coming {
    state: String,
    code: String,
    error: Option<String>,
}

async fn arrive(State(desk): State<Desk>, headers: HeaderMap, Query(coming): Query<Coming>) -> Response {
    let browser = auth::cookie(&headers, BROWSER).unwrap_or_default();
    let result = coming.error.as_deref().map_or(Ok(coming.code.as_str()), Err);
    let (user, next) = match desk.oidc.arrive(&coming.state, browser, result).await {
        Ok(found) => found,
        Err(error) => return desk.refuse(&error).await,
    };
    let at = At { source: source(), agent: auth::agent(&headers) };
    let begun = match desk.operators.accounts().begin_session(user, at).await {
        Ok(begun) => begun,
        Err(error) => return super::ProblemResponse(error.problem()).into_response(),
    };
    let (who, text) = begun;
    let message = format!("{} signed in at the OpenID provider", who.name());
    if let Err(error) = desk.engine.note(who.actor(), None, "login.ok", Severity::Info, message).await {
        return super::ProblemResponse::from(error).into_response();
    }
    // A page of ours that goes on by itself: the session's cookie is not sent along where the provider's page sends the browser
    // (`SameSite=Strict`), and is from here.
    let to = next.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Signed in · Billet</title>\
         <meta http-equiv=\"refresh\" content=\"0;url={to}\"></head><body><p><a href=\"{to}\">Go on</a></p></body></html>"
    );
    let entered = Extension(Entered(who.name()));
    let mut response = (entered, [(CACHE_CONTROL, "no-store")], Html(page)).into_response();
    for value in [auth::session_cookie(&text), cookie("", Duration::ZERO)] {
        if let Ok(value) = value.parse() {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
    response
}

impl Desk {
    /// Back to the page for signing in. Whoever is there is told little, the event list the cause.
    async fn refuse(&self, error: &OidcError) -> Response {
        let refused = if matches!(error, OidcError::Nobody(_)) { "nobody" } else { "provider" };
        let mut message = format!("signing in at the OpenID provider failed: {error}");
        if let Some(cause) = std::error::Error::source(error) {
            message.push_str(&format!(": {cause}"));
        }
        let message: String = message.chars().filter(|c| !c.is_control()).take(500).collect();
        tracing::warn!(%message);
        // Whoever knocks again and again costs no line in the event list each time.
        if !matches!(error, OidcError::Unknown) && !self.operators.failed(source(), now()) {
            let noted =
                self.engine.note(Actor::Server, None, "login.failed", Severity::Warning, message).await;
            if let Err(error) = noted {
                return super::ProblemResponse::from(error).into_response();
            }
        }
        let to = format!("/login?refused={}", encode(refused));
        (StatusCode::SEE_OTHER, auth::refused_for(error.code()), [(LOCATION, to)]).into_response()
    }
}

fn cookie(value: &str, age: Duration) -> String {
    format!("{BROWSER}={value}; Path=/oidc/; HttpOnly; SameSite=Lax; Max-Age={}", age.as_secs())
}
