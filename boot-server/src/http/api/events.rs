//! What happened.

use axum::Json;
use axum::extract::State;
use protocol::ProjectId;

use super::extract::{Params, bad_query, limit};
use super::projects::InProject;
use super::requests::EventQuery;

use super::{Answer, Api};
use crate::engine::EventFilter;
use crate::view::{EventView, Page, Problem};

/// Events, newest first; oldest first where `after` is given.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "list_events", params(EventQuery),
    responses((status = 200, body = Page<EventView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<EventQuery>,
) -> Answer<Json<Page<EventView>>> {
    listed(&api, None, query).await
}

/// Events of a project, newest first; oldest first where `after` is given.
#[utoipa::path(get, path = "/projects/{project}/events", tag = "servers", operation_id = "list_project_events",
    params(("project" = String, Path, description = "Name or id"), EventQuery),
    responses((status = 200, body = Page<EventView>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list_of_project(
    State(api): State<Api>,
    within: InProject,
    Params(query): Params<EventQuery>,
) -> Answer<Json<Page<EventView>>> {
    // Which machines there are is nothing for a project: a name that is not there must not answer otherwise.
    if query.node.is_some() {
        return Err(bad_query("a project's events are not asked for by node".to_owned()).into());
    }
    let Json(Page { items, next }) = listed(&api, Some(within.project.id), query).await?;
    let of_site = within.who.site.is_some();
    Ok(Json(Page { items: items.into_iter().map(|event| event.in_project(of_site)).collect(), next }))
}

async fn listed(api: &Api, project: Option<ProjectId>, query: EventQuery) -> Answer<Json<Page<EventView>>> {
    let limit = limit(query.limit)?;
    let node = match &query.node {
        Some(reference) => Some(api.engine.node(reference).await?.id),
        None => None,
    };
    let (mut after, mut before) = (query.after, query.before);
    if let Some(cursor) = &query.cursor {
        match parse_cursor(cursor)? {
            Cursor::After(id) => after = Some(id),
            Cursor::Before(id) => before = Some(id),
        }
    }
    // One more than asked for tells whether there is a next page.
    let mut items = api.engine.events(EventFilter { node, after, before, limit: limit + 1, project }).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| match after {
        Some(_) => format!("after-{}", last.id),
        None => format!("before-{}", last.id),
    });
    Ok(Json(Page { items, next }))
}

enum Cursor {
    After(i64),
    Before(i64),
}

fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    let parsed = text.split_once('-').and_then(|(way, id)| {
        let id = id.parse().ok()?;
        match way {
            "after" => Some(Cursor::After(id)),
            "before" => Some(Cursor::Before(id)),
            _ => None,
        }
    });
    parsed.ok_or_else(|| bad_query("the cursor is not one that this server gave".to_owned()))
}
