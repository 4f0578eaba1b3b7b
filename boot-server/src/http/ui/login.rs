//! The page for signing in. What it sends is checked in `http::auth`.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::{Ui, render};

/// What the address asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    next: String,
    refused: String,
    user: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    next: String,
    refused: String,
    user: String,
    token_file: String,
    /// There are users: their form goes first.
    users: bool,
    /// What the site's OpenID provider is called.
    provider: Option<String>,
}

impl LoginPage {
    fn by_name(&self) -> bool {
        self.users && !matches!(self.refused.as_str(), "wrong" | "wait")
    }
}

/// Why somebody is here again.
fn words(refused: &str) -> Option<&'static str> {
    Some(match refused {
        "" => return None,
        "wait" => "Too many wrong tokens from this address. Wait a minute, then try again.",
        "password" => "Name, password or code is wrong.",
        "code" => "This account has a second factor: type the code of your authenticator too.",
        "locked" => "Too many wrong passwords. Wait a while, then try again.",
        "busy" => "Too many sign in at this moment. Try again in some seconds.",
        "provider" => "The OpenID provider did not let you in, or could not be asked. The events say why.",
        "nobody" => "The OpenID provider knows you, and this site does not let you in.",
        _ => "This is not the token of this server.",
    })
}

pub(super) async fn show(State(ui): State<Ui>, Query(asked): Query<Asked>) -> Response {
    let token_file = super::format::shell(ui.engine.settings().operator_token().display());
    let page = LoginPage {
        next: asked.next,
        refused: asked.refused,
        user: asked.user,
        token_file,
        users: !ui.known.tenancy().has_no_users(),
        provider: ui.engine.settings().oidc.as_ref().map(|oidc| oidc.name.clone()),
    };
    render(200, &page)
}
