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
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    next: String,
    refused: String,
    token_file: String,
}

pub(super) async fn show(State(ui): State<Ui>, Query(asked): Query<Asked>) -> Response {
    let token_file = super::format::shell(ui.engine.settings().operator_token().display());
    render(200, &LoginPage { next: asked.next, refused: asked.refused, token_file })
}
