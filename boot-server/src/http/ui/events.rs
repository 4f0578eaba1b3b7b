//! The event list of the whole site.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use boot_server_core::node::Severity;
use serde::Deserialize;

use super::format as f;
use super::recipe::Recipe;
use super::servers::address;
use super::{Refusal, Ui, render};
use crate::engine::EventFilter;
use crate::view::{EventView, Problem};

/// Events on one page.
const PAGE: usize = 100;
/// Events looked at for one page, where a filter leaves few of them.
const LOOKED_AT: usize = 1000;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    node: String,
    severity: String,
    before: Option<i64>,
}

impl Filter {
    fn active(&self) -> bool {
        !self.node.is_empty() || !self.severity.is_empty() || self.before.is_some()
    }

    fn wants(&self, severity: Severity) -> bool {
        match self.severity.as_str() {
            "error" => severity == Severity::Error,
            "warning" => severity != Severity::Info,
            _ => true,
        }
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    nav: &'static str,
    filter: Filter,
    nodes: Vec<String>,
    events: Vec<EventView>,
    older: Option<String>,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    let nodes = ui.engine.nodes().await?.into_iter().map(|n| n.name.clone()).collect();
    let (node, problem) = match filter.node.as_str() {
        "" => (None, None),
        name => match ui.engine.node(name).await {
            Ok(node) => (Some(node.id), None),
            Err(error) => (None, Some(Refusal::from(error).0)),
        },
    };
    let (mut events, mut older) = (Vec::new(), None);
    if problem.is_none() {
        let limit = if filter.severity.is_empty() { PAGE } else { LOOKED_AT };
        let found = ui
            .engine
            .events(EventFilter { node, after: None, before: filter.before, limit, ..EventFilter::default() })
            .await?;
        let full = found.len() == limit;
        let oldest = found.last().map(|e| e.id);
        events = found.into_iter().filter(|e| filter.wants(e.severity)).collect();
        if events.len() > PAGE {
            events.truncate(PAGE);
            older = events.last().map(|e| e.id);
        } else if full {
            older = oldest;
        }
    }
    let page = EventsPage {
        nav: "events",
        older: older.map(|id| {
            let before = id.to_string();
            address("/events", &[("node", &filter.node), ("severity", &filter.severity), ("before", &before)])
        }),
        filter,
        nodes,
        events,
        problem,
        recipe: Recipe::default().and("billet event list", "GET", "events", None),
    };
    Ok(render(page.problem.as_ref().map_or(200, |p| p.status), &page))
}
