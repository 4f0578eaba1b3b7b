//! Volumes of a project as they were at some moment.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use protocol::VolumeId;

use super::super::form::{self, Fields};
use super::super::format as f;
use super::super::recipe::Recipe;
use super::{Frame, Refusal, Ui, Within, go, refuse, render};
use crate::http::api::projects::InProject;
use crate::view::Problem;
use crate::view::dpus::SnapshotView;

#[derive(Template)]
#[template(path = "my/snapshots.html")]
struct SnapshotsPage {
    frame: Frame,
    /// Each with the name of its volume.
    rows: Vec<(SnapshotView, String)>,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>, Within(within): Within) -> Result<Response, Refusal> {
    page(&ui, &within, None).await
}

async fn page(ui: &Ui, within: &InProject, problem: Option<Problem>) -> Result<Response, Refusal> {
    let project = within.project.id;
    let mut names: BTreeMap<VolumeId, String> = BTreeMap::new();
    let mut rows = Vec::new();
    for snapshot in ui.engine.snapshots(project).await? {
        let name = match names.get(&snapshot.volume) {
            Some(name) => name.clone(),
            None => {
                let name = ui.engine.volume(project, &snapshot.volume.to_string()).await?.name;
                names.insert(snapshot.volume, name.clone());
                name
            }
        };
        rows.push((SnapshotView::from(snapshot), name));
    }
    let (own, of) = (&within.project.name, f::shell(&within.project.name));
    let path = format!("projects/{own}/snapshots");
    let recipe =
        Recipe::default().and(&format!("billet snapshot list --project {of}"), "GET", &path, None).and(
            &format!("billet snapshot delete before-upgrade --project {of}"),
            "DELETE",
            &format!("{path}/before-upgrade"),
            None,
        );
    let page = SnapshotsPage { frame: Frame::of(ui, within, "snapshots"), rows, problem, recipe };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

pub(super) async fn remove(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference)): Path<(String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let (project, fields) = (within.project.id, Fields(fields));
    let snapshot = ui.engine.snapshot(project, &reference).await?;
    let typed = fields.get("confirm");
    if typed != snapshot.name {
        return page(&ui, &within, Some(form::not_the_name("snapshot", typed, &snapshot.name))).await;
    }
    match ui.engine.delete_snapshot(project, within.who.actor(), &snapshot.id.to_string()).await {
        Ok(()) => Ok(go(&format!("{}/snapshots", super::address(&within.project.name)))),
        Err(error) => page(&ui, &within, Some(error.problem())).await,
    }
}
