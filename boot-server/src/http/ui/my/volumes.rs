//! The volumes of a project, and the form that makes one.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::volume::{SIZE_MAX, Status, Volume, parse_size};
use protocol::dpu::IoLimits;
use protocol::{ProjectId, ServerId};
use serde_json::json;

use super::super::form::{self, Fields};
use super::super::format::{self as f, Look};
use super::super::recipe::Recipe;
use super::super::servers::address;
use super::{Frame, Refusal, Ui, Within, go, images, refuse, render};
use crate::engine::volumes::{From, NewVolume};
use crate::engine::{Engine, EngineError};
use crate::http::api::projects::InProject;
use crate::store::volumes::VolumeFilter;
use crate::view::Problem;
use crate::view::dpus::{SnapshotView, VolumeView};
use crate::view::place::OfferedImage;

/// Volumes on one page; more are on the next.
const PAGE: usize = 100;

#[derive(Template)]
#[template(path = "my/volumes.html")]
struct VolumesPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    /// Names and kinds of the site's types that a volume can be made of by itself.
    types: Vec<(String, &'static str)>,
    images: Vec<OfferedImage>,
    snapshots: Vec<SnapshotView>,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A volume with how it is shown.
pub(super) struct Row {
    pub(super) volume: VolumeView,
    pub(super) look: Look,
    /// Name of the server that has it.
    pub(super) server: Option<String>,
}

/// How a status is shown.
pub(super) fn look(status: Status) -> Look {
    let look = |label, tone, icon| Look { label, tone, icon };
    match status {
        Status::Creating => look("Being made", "tone-work", "work"),
        Status::Available => look("Available", "tone-ready", "ready"),
        Status::Attaching => look("Attaching", "tone-work", "work"),
        Status::InUse => look("In use", "tone-good", "good"),
        Status::Detaching => look("Detaching", "tone-work", "work"),
        Status::Deleting => look("Deleting", "tone-work", "erase"),
        Status::Deleted => look("Deleted", "", "dot"),
        Status::Error => look("Error", "tone-bad", "bad"),
    }
}

/// The volumes with the names of their servers; each server is looked up once.
pub(super) async fn rows(
    engine: &Engine,
    project: ProjectId,
    volumes: Vec<Volume>,
) -> Result<Vec<Row>, EngineError> {
    let mut names: BTreeMap<ServerId, String> = BTreeMap::new();
    let mut rows = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let server = match volume.server() {
            Some(id) if !names.contains_key(&id) => {
                let name = engine.server(project, &id.to_string()).await?.name;
                names.insert(id, name.clone());
                Some(name)
            }
            Some(id) => names.get(&id).cloned(),
            None => None,
        };
        let hydration = engine.hydration(&volume);
        let look = look(volume.status());
        rows.push(Row { look, volume: VolumeView::from(volume).with(hydration), server });
    }
    Ok(rows)
}

pub(super) async fn list(
    State(ui): State<Ui>,
    Within(within): Within,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    page(&ui, &within, Fields(query), None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    form: Fields,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let project = within.project.id;
    let frame = Frame::of(ui, within, "volumes");
    let after = form.get("after").parse().ok();
    let filter = VolumeFilter { server: None, after, limit: PAGE + 1 };
    let mut volumes = ui.engine.volumes(project, filter).await?;
    let more = volumes.len() > PAGE;
    volumes.truncate(PAGE);
    let path = format!("{}/volumes", frame.at);
    let next = volumes.last().filter(|_| more).map(|last| address(&path, &[("after", &last.id.to_string())]));
    let page = VolumesPage {
        rows: rows(&ui.engine, project, volumes).await?,
        next,
        types: ui
            .engine
            .volume_types()
            .into_iter()
            .filter(|(_, kind)| *kind != volume::Kind::Instant)
            .map(|(name, kind)| (name, kind.as_str()))
            .collect(),
        images: images(ui).await?,
        snapshots: ui.engine.snapshots(project).await?.into_iter().map(SnapshotView::from).collect(),
        recipe: recipe(&within.project.name, &form),
        frame,
        form,
        problem,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

/// The form as a command and as a request.
fn recipe(project: &str, form: &Fields) -> Recipe {
    let or = |name, other: &str| form.trimmed(name).unwrap_or_else(|| other.to_owned());
    let (name, size) = (or("name", "data"), or("size", "20G"));
    let mut cli = format!(
        "billet volume create {} --project {} --size {}",
        f::shell(&name),
        f::shell(project),
        f::shell(&size)
    );
    let mut body = json!({ "name": name, "size": parse_size(&size).unwrap_or(20 << 30) });
    for (field, option) in [("type", "--type"), ("image", "--image"), ("snapshot", "--snapshot")] {
        if let Some(value) = form.trimmed(field) {
            cli.push_str(&format!(" {option} {}", f::shell(&value)));
            body[field] = value.into();
        }
    }
    if form.get("encrypted") == "1" {
        cli.push_str(" --encrypted");
        body["encrypted"] = true.into();
    }
    let path = format!("projects/{project}/volumes");
    Recipe::default()
        .and(&format!("billet volume list --project {}", f::shell(project)), "GET", &path, None)
        .and(&cli, "POST", &path, Some(&body))
}

/// A size as it was typed; `None` where nothing was.
pub(super) fn size(fields: &Fields, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = fields.trimmed(name) else { return Ok(None) };
    let size = parse_size(&text).filter(|size| *size <= SIZE_MAX);
    size.map(Some)
        .ok_or_else(|| form::problem("size", format!("“{text}” is no size"), "write 512M, 20G or 1T"))
}

fn wish(fields: &Fields) -> Result<NewVolume, Problem> {
    let from = match (fields.trimmed("image"), fields.trimmed("snapshot")) {
        (None, None) => From::Blank,
        (Some(image), None) => From::Image(image),
        (None, Some(snapshot)) => From::Snapshot(snapshot),
        (Some(_), Some(_)) => {
            let what = "A volume is made of an image or of a snapshot, not of both";
            return Err(form::problem("source", what, "choose one of them"));
        }
    };
    let iops = match fields.trimmed("iops") {
        Some(text) => Some(text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
            form::problem("iops", format!("“{text}” is no number of requests"), "write 500, or nothing")
        })?),
        None => None,
    };
    let bytes_per_second = size(fields, "bandwidth")?.filter(|bytes| *bytes > 0);
    let limits =
        (iops.is_some() || bytes_per_second.is_some()).then_some(IoLimits { iops, bytes_per_second });
    Ok(NewVolume {
        name: fields.trimmed("name").unwrap_or_default(),
        // A snapshot knows its type.
        kind: fields.trimmed("type").filter(|_| !matches!(from, From::Snapshot(_))),
        size: size(fields, "size")?,
        from,
        limits,
        encrypted: fields.get("encrypted") == "1",
    })
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let made = match wish(&fields) {
        Ok(wish) => {
            let made = ui.engine.create_volume(within.project.id, within.who.actor(), wish).await;
            made.map_err(|error| error.problem())
        }
        Err(problem) => Err(problem),
    };
    match made {
        Ok(volume) => Ok(go(&format!("{}/volumes/{}", super::address(&within.project.name), volume.id))),
        Err(problem) => page(&ui, &within, fields, Some(problem)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_form_is_a_wish_or_says_what_is_wrong_with_it() {
        let made = wish(&fields(&[
            ("name", " data "),
            ("type", "fast"),
            ("size", "20G"),
            ("iops", "500"),
            ("bandwidth", "200M"),
            ("encrypted", "1"),
        ]))
        .unwrap();
        assert!(made.encrypted);
        assert_eq!(
            (made.name.as_str(), made.kind.as_deref(), made.size),
            ("data", Some("fast"), Some(20 << 30))
        );
        let limits = IoLimits { iops: Some(500), bytes_per_second: Some(200 << 20) };
        assert_eq!(made.limits, Some(limits));
        let of_snapshot = wish(&fields(&[("name", "x"), ("type", "fast"), ("snapshot", "s")])).unwrap();
        assert!(matches!(of_snapshot.from, From::Snapshot(_)) && of_snapshot.kind.is_none());
        for (bad, code) in [
            (&[("image", "a"), ("snapshot", "b")][..], "source"),
            (&[("size", "much")], "size"),
            (&[("size", "9999999T")], "size"),
            (&[("iops", "0")], "iops"),
            (&[("bandwidth", "fast")], "size"),
        ] {
            assert_eq!(wish(&fields(bad)).unwrap_err().code, code, "{bad:?}");
        }
    }
}
