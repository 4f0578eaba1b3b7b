//! Mirrors of a project: copies of what ports send or get, to where the site allows.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::network::{Direction, Mirror, Sink};
use serde_json::json;

use super::super::super::form::{self, Fields};
use super::super::super::format as f;
use super::super::super::recipe::Recipe;
use super::super::{Frame, Refusal, Ui, Within, address, go, refuse, render};
use super::gather;
use crate::engine::EngineError;
use crate::engine::overlay::NewMirror;
use crate::http::api::projects::InProject;
use crate::store::overlay::{Plug, Row};
use crate::view::Problem;

/// Mirrors, and ports to choose from, on the page.
const SHOWN: usize = 500;

#[derive(Template)]
#[template(path = "my/mirrors.html")]
struct MirrorsPage {
    frame: Frame,
    rows: Vec<MirrorRow>,
    /// Ports that can be copied: id and words.
    ports: Vec<(String, String)>,
    /// Where copies may go, in words.
    allowed: String,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A mirror in the list.
struct MirrorRow {
    id: String,
    name: String,
    /// Which traffic, in words.
    direction: &'static str,
    ports: Vec<String>,
    /// Where the copies go, in words.
    sink: String,
}

pub(in super::super) async fn list(
    State(ui): State<Ui>,
    Within(within): Within,
) -> Result<Response, Refusal> {
    page(&ui, &within, Fields::default(), None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    form: Fields,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let (engine, project) = (&ui.engine, within.project.id);
    let servers = gather::servers(ui, project).await?;
    let words = |port: &Row<Plug>| {
        let row = gather::port_row(engine, port, &servers);
        let name = if row.name.is_empty() { row.addresses.clone() } else { row.name.clone() };
        let server = row.server.map(|(_, server)| format!(" of {server}")).unwrap_or_default();
        format!("{name}{server} on {}", row.network.1)
    };
    let mirrors = engine.overlay_things::<Mirror>(project, None, SHOWN, |_| true).rows;
    let rows = mirrors.iter().map(|row| MirrorRow {
        id: row.id.to_string(),
        name: if row.name.is_empty() { row.id.to_string() } else { row.name.clone() },
        direction: match row.value.direction {
            Direction::Egress => "what it sends",
            Direction::Ingress => "what it gets",
        },
        ports: row
            .value
            .ports
            .iter()
            .filter_map(|id| engine.overlay_by_id::<Plug>(*id))
            .map(|port| words(&port))
            .collect(),
        sink: match row.value.sink {
            Sink::Gre(to, key) => format!("GRE to {to}, key {key}"),
            Sink::Erspan(to, index) => format!("ERSPAN to {to}, index {index}"),
        },
    });
    let ports = engine.overlay_things::<Plug>(project, None, SHOWN, |_| true).rows;
    let allowed =
        engine.overlay_settings().map(|it| it.mirror_to.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (name, of) = (&within.project.name, f::shell(&within.project.name));
    let body = json!({ "direction": "egress", "ports": ["web"], "kind": "gre", "to": "192.0.2.9", "key": 7 });
    let path = format!("projects/{name}/mirrors");
    let recipe =
        Recipe::default().and(&format!("billet mirror list --project {of}"), "GET", &path, None).and(
            &format!("billet mirror create --project {of} 192.0.2.9 --port web --direction egress --key 7"),
            "POST",
            &path,
            Some(&body),
        );
    let page = MirrorsPage {
        frame: Frame::of(ui, within, "mirrors"),
        rows: rows.collect(),
        ports: ports.iter().map(|port| (port.id.to_string(), words(port))).collect(),
        allowed: allowed.unwrap_or_default().join(", "),
        form,
        problem,
        recipe,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

pub(in super::super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let done = match wish(&fields) {
        Ok(wish) => {
            let made = ui.engine.create_mirror(within.project.id, within.who.actor(), wish).await;
            made.map(drop).map_err(|error: EngineError| error.problem())
        }
        Err(problem) => Err(problem),
    };
    match done {
        Ok(()) => Ok(go(&format!("{}/mirrors", address(&within.project.name)))),
        Err(problem) => page(&ui, &within, fields, Some(problem)).await,
    }
}

fn wish(fields: &Fields) -> Result<NewMirror, Problem> {
    let to = fields.get("to").trim();
    let to =
        to.parse().map_err(|_| form::problem("form", format!("“{to}” is no address"), "write 192.0.2.9"))?;
    let key = fields.get("key").trim();
    let key =
        key.parse().map_err(|_| form::problem("form", format!("“{key}” is no key"), "write a number"))?;
    Ok(NewMirror {
        name: fields.trimmed("name"),
        direction: if fields.get("direction") == "ingress" { Direction::Ingress } else { Direction::Egress },
        ports: fields.all("ports").map(str::to_owned).collect(),
        sink: if fields.get("kind") == "erspan" { Sink::Erspan(to, key) } else { Sink::Gre(to, key) },
    })
}

pub(in super::super) async fn remove(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, mirror)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    match ui.engine.remove_mirror(within.project.id, within.who.actor(), &mirror).await {
        Ok(()) => Ok(go(&format!("{}/mirrors", address(&within.project.name)))),
        Err(error) => page(&ui, &within, Fields::default(), Some(error.problem())).await,
    }
}
