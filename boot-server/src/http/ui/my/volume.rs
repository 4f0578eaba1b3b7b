//! One volume of a project: who has it, what was kept of it, and what can be done with it.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::volume::{Status, Volume};
use serde_json::json;

use super::super::form::{self, Fields};
use super::super::format::{self as f, Look};
use super::super::recipe::Recipe;
use super::attached::takers;
use super::volumes::{rows, size};
use super::{Frame, Refusal, Ui, Within, go, refuse, render};
use crate::engine::EngineError;
use crate::engine::volumes::VolumeChange;
use crate::http::api::projects::InProject;
use crate::view::Problem;
use crate::view::counters::VolumeCountersView;
use crate::view::dpus::{SnapshotView, VolumeView};

#[derive(Template)]
#[template(path = "my/volume.html")]
struct VolumePage {
    frame: Frame,
    volume: VolumeView,
    look: Look,
    /// Name of the server that has it.
    server: Option<String>,
    /// Servers that could have it: id and name.
    takers: Vec<(String, String)>,
    snapshots: Vec<SnapshotView>,
    /// Name of the snapshot that it was made of, while there is that.
    made_of: Option<String>,
    problem: Option<Problem>,
    recipe: Recipe,
}

impl VolumePage {
    /// Nobody has it, and it is there.
    fn free(&self) -> bool {
        self.volume.status == Status::Available
    }

    /// It can be taken from its server.
    fn detaches(&self) -> bool {
        matches!(self.volume.status, Status::InUse | Status::Attaching) && !self.volume.boot
    }

    /// What it did, in words.
    fn did(&self, counters: &VolumeCountersView) -> Vec<(&'static str, String)> {
        let VolumeCountersView { read, write, flush, .. } = counters;
        let all = [("Reads", Some(read)), ("Writes", Some(write)), ("Flushes", flush.as_ref())];
        all.into_iter().filter_map(|(what, did)| Some((what, did?.words(f::size_words)))).collect()
    }

    /// It is as it was written at some moment.
    fn keeps(&self) -> bool {
        matches!(self.volume.status, Status::Available | Status::Attaching | Status::InUse)
    }

    /// It can be removed.
    fn goes(&self) -> bool {
        matches!(self.volume.status, Status::Available | Status::Error) && self.server.is_none()
    }
}

pub(super) async fn show(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, volume)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let volume = ui.engine.volume(within.project.id, &volume).await?;
    page(&ui, &within, volume, None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    volume: Volume,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let (engine, project) = (&ui.engine, within.project.id);
    let snapshots = engine.snapshots_of_volume(volume.id).await?;
    let free = volume.status() == Status::Available;
    let takers = if free && within.role.may_use() { takers(ui, project).await? } else { Vec::new() };
    let counters = engine.volume_counters(&volume).map(Into::into);
    let row = rows(engine, project, vec![volume]).await?.pop();
    let mut row = row.ok_or_else(|| Refusal(form::problem("volume-not-found", "no such volume", "")))?;
    row.volume.counters = counters;
    let made_of = match row.volume.snapshot {
        Some(id) => engine.snapshot(project, &id.to_string()).await.ok().map(|snapshot| snapshot.name),
        None => None,
    };
    let page = VolumePage {
        frame: Frame::of(ui, within, "volumes"),
        look: row.look,
        server: row.server,
        takers,
        snapshots: snapshots.into_iter().map(SnapshotView::from).collect(),
        made_of,
        problem,
        recipe: recipe(&within.project.name, &row.volume),
        volume: row.volume,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

fn recipe(project: &str, volume: &VolumeView) -> Recipe {
    let (name, path) = (f::shell(&volume.name), format!("projects/{project}/volumes/{}", volume.name));
    let of = format!("--project {}", f::shell(project));
    let recipe = Recipe::default().and(&format!("billet volume show {name} {of}"), "GET", &path, None);
    let recipe = match volume.server {
        Some(_) => {
            let path = format!("{path}/detach");
            recipe.and(&format!("billet volume detach {name} {of}"), "POST", &path, Some(&json!({})))
        }
        None => recipe
            .and(
                &format!("billet volume attach {name} web {of}"),
                "POST",
                &format!("{path}/attach"),
                Some(&json!({ "server": "web" })),
            )
            .and(
                &format!("billet volume set {name} --size 40G {of}"),
                "PATCH",
                &path,
                Some(&json!({ "size": 40_u64 << 30 })),
            ),
    };
    recipe
        .and(
            &format!("billet snapshot create before-upgrade {name} {of}"),
            "POST",
            &format!("projects/{project}/snapshots"),
            Some(&json!({ "name": "before-upgrade", "volume": volume.name })),
        )
        .and(&format!("billet volume delete {name} {of}"), "DELETE", &path, None)
}

/// Does what a form asks for, and shows the volume, or the server whose page the form was on; with the reason where it was refused.
pub(super) async fn act(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let at = super::address(&within.project.name);
    // On a server's page the volume is chosen in the form.
    let chosen = (reference == "chosen").then(|| fields.trimmed("volume")).flatten();
    let volume = ui.engine.volume(within.project.id, chosen.as_deref().unwrap_or(&reference)).await?;
    let server = volume.server().map(|server| server.to_string()).or_else(|| fields.trimmed("server"));
    match done(&ui, &within, &volume, &verb, &fields).await {
        Ok(()) if verb == "delete" => Ok(go(&format!("{at}/volumes"))),
        Ok(()) => Ok(match server.filter(|_| fields.get("back") == "server") {
            Some(server) => go(&format!("{at}/servers/{}", crate::http::encode(&server))),
            None => go(&format!("{at}/volumes/{}", volume.id)),
        }),
        Err(problem) => page(&ui, &within, volume, Some(problem)).await,
    }
}

async fn done(
    ui: &Ui,
    within: &InProject,
    volume: &Volume,
    verb: &str,
    fields: &Fields,
) -> Result<(), Problem> {
    let told = |error: EngineError| error.problem();
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let id = volume.id.to_string();
    let done = match verb {
        "attach" => engine.attach_volume(project, &id, actor, fields.get("server")).await,
        "detach" => engine.detach_volume(project, &id, actor).await,
        "resize" => {
            let size = size(fields, "size")?;
            let change = VolumeChange { size, ..VolumeChange::default() };
            engine.change_volume(project, &id, actor, change).await
        }
        "rename" => {
            let change = VolumeChange { name: fields.trimmed("name"), ..VolumeChange::default() };
            engine.change_volume(project, &id, actor, change).await
        }
        "limits" => {
            let iops = match fields.trimmed("iops").map(|text| text.parse::<u64>()) {
                None => 0,
                Some(Ok(iops)) => iops,
                Some(Err(_)) => {
                    let hint = "write a number of requests per second, or leave it empty";
                    return Err(form::problem("form", "the requests per second are no number", hint));
                }
            };
            let bytes = size(fields, "bandwidth")?.unwrap_or(0);
            let change =
                VolumeChange { iops: Some(iops), bytes_per_second: Some(bytes), ..VolumeChange::default() };
            engine.change_volume(project, &id, actor, change).await
        }
        "snapshot" => {
            let name = fields.trimmed("name").unwrap_or_default();
            engine.create_snapshot(project, actor, &id, name).await.map_err(told)?;
            return Ok(());
        }
        "delete" => {
            let typed = fields.get("confirm");
            if typed != volume.name {
                return Err(form::not_the_name("volume", typed, &volume.name));
            }
            engine.delete_volume(project, &id, actor).await
        }
        _ => return Err(form::problem("not-found", "there is no such action", "")),
    };
    done.map(drop).map_err(told)
}
