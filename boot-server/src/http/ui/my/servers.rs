//! The servers of a project.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use boot_server_core::server::Phase;
use serde::Deserialize;

use super::super::format::{self as f, Look};
use super::super::recipe::Recipe;
use super::super::servers::address;
use super::{Frame, Refusal, Ui, Within, render};
use crate::store::servers::ServerFilter;
use crate::view::servers::ServerView;

/// Servers on one page; more are on the next.
const PAGE: usize = 100;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    phase: Option<String>,
    group: Option<String>,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "my/servers.html")]
struct ServersPage {
    frame: Frame,
    filter: Filter,
    chips: Vec<(String, String, bool)>,
    rows: Vec<Row>,
    groups: Vec<(String, String)>,
    filtered: bool,
    next: Option<String>,
    recipe: Recipe,
}

struct Row {
    server: ServerView,
    look: Look,
    group: Option<String>,
}

/// How a phase is shown.
pub(super) fn look(phase: Phase) -> Look {
    let look = |label, tone, icon| Look { label, tone, icon };
    match phase {
        Phase::Claimed => look("Waiting", "", "wait"),
        Phase::Deploying => look("Installing", "tone-work", "work"),
        Phase::Active => look("Active", "tone-good", "good"),
        Phase::Error => look("Error", "tone-bad", "bad"),
        Phase::Deleting => look("Deleting", "tone-work", "erase"),
        Phase::Deleted => look("Deleted", "", "dot"),
    }
}

pub(super) async fn list(
    State(ui): State<Ui>,
    Within(within): Within,
    Query(filter): Query<Filter>,
) -> Result<Response, Refusal> {
    let project = within.project.id;
    let frame = Frame::of(&ui, &within, "servers");
    let path = format!("{}/servers", frame.at);
    let wanted = Phase::ALL.into_iter().find(|phase| Some(phase.as_str()) == filter.phase.as_deref());
    let groups = ui.engine.server_groups(project).await?;
    let group = filter.group.as_deref().and_then(|name| groups.iter().find(|g| g.name.as_str() == name));
    let stored = ServerFilter {
        phase: wanted,
        deleted: wanted == Some(Phase::Deleted),
        name: Some(filter.q.trim().to_owned()).filter(|q| !q.is_empty()),
        group: group.map(|group| group.id),
        after: filter.after.as_deref().and_then(|after| after.parse().ok()),
        limit: PAGE + 1,
    };
    let mut servers = ui.engine.servers(project, stored).await?;
    let more = servers.len() > PAGE;
    servers.truncate(PAGE);
    let query = |after: &str| {
        let phase = wanted.map_or("", Phase::as_str);
        let group = group.map_or("", |group| group.name.as_str());
        address(&path, &[("q", &filter.q), ("phase", phase), ("group", group), ("after", after)])
    };
    let next = servers.last().filter(|_| more).map(|last| query(&last.id.to_string()));
    let chip = |phase: Option<Phase>| {
        let label = phase.map_or("All", |phase| look(phase).label);
        let pairs = [("q", filter.q.as_str()), ("phase", phase.map_or("", Phase::as_str))];
        (label.to_owned(), address(&path, &pairs), phase == wanted)
    };
    let chips = std::iter::once(None).chain(Phase::ALL.map(Some)).map(chip).collect();
    let mut rows = Vec::with_capacity(servers.len());
    for server in servers {
        let server = ui.engine.server_view(server).await;
        let group = groups.iter().find(|g| Some(g.id) == server.group).map(|g| g.name.to_string());
        rows.push(Row { look: look(server.phase), server, group });
    }
    let name = &within.project.name;
    let recipe = Recipe::default().and(
        &format!("billet server list --project {}", f::shell(name)),
        "GET",
        &format!("projects/{name}/servers"),
        None,
    );
    let groups = groups.iter().map(|g| (g.name.to_string(), address(&path, &[("group", g.name.as_str())])));
    let page = ServersPage {
        groups: groups.collect(),
        filtered: wanted.is_some() || group.is_some() || !filter.q.is_empty(),
        frame,
        filter,
        chips,
        rows,
        next,
        recipe,
    };
    Ok(render(200, &page))
}
