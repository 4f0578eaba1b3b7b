//! SSH keys that a project keeps, so that new servers can be given them by name.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use serde_json::json;

use super::super::form::Fields;
use super::super::format as f;
use super::super::recipe::Recipe;
use super::{Frame, Refusal, Ui, Within, go, refuse, render};
use crate::http::api::projects::InProject;
use crate::store::desk::KeyRow;
use crate::view::Problem;

#[derive(Template)]
#[template(path = "my/keys.html")]
struct KeysPage {
    frame: Frame,
    keys: Vec<KeyRow>,
    name: String,
    public_key: String,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>, Within(within): Within) -> Result<Response, Refusal> {
    page(&ui, &within, &Fields::default(), None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    typed: &Fields,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let project = &within.project.name;
    let body = json!({ "name": "laptop", "public_key": "ssh-ed25519 AAAA…" });
    let recipe = Recipe::default().and(
        &format!("billet key add laptop ~/.ssh/id_ed25519.pub --project {}", f::shell(project)),
        "POST",
        &format!("projects/{project}/keys"),
        Some(&body),
    );
    let page = KeysPage {
        frame: Frame::of(ui, within, "keys"),
        keys: ui.engine.keys(within.project.id).await?,
        name: typed.trimmed("name").unwrap_or_default(),
        public_key: typed.text("public_key"),
        problem,
        recipe,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

pub(super) async fn add(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let (name, key) = (fields.trimmed("name").unwrap_or_default(), fields.text("public_key"));
    match ui.engine.add_key(within.project.id, within.who.actor(), &name, key.trim()).await {
        Ok(_) => Ok(go(&format!("{}/keys", super::address(&within.project.name)))),
        Err(error) => page(&ui, &within, &fields, Some(error.problem())).await,
    }
}

pub(super) async fn remove(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, key)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    ui.engine.remove_key(within.project.id, within.who.actor(), &key).await?;
    Ok(go(&format!("{}/keys", super::address(&within.project.name))))
}
