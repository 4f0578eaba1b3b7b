//! The home page: every server, what it does, and what it waits for.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use boot_server_core::node::{Node, StateName};
use serde::Deserialize;

use super::format::{self as f, Look};
use super::recipe::Recipe;
use super::{Refusal, Ui, render, welcome};
use crate::engine::{Engine, NodePage};
use crate::http::encode;
use crate::view::NodeView;

/// Servers on one page; more are on the next.
const PAGE: usize = 200;

/// What the address asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    state: Option<String>,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "servers.html")]
struct ServersPage {
    nav: &'static str,
    filter: Filter,
    chips: Vec<Chip>,
    rows: Vec<Row>,
    total: usize,
    steps: Vec<welcome::Step>,
    next: Option<String>,
    page_size: usize,
    listen: Listen,
    recipe: Recipe,
}

struct Chip {
    label: &'static str,
    count: usize,
    href: String,
    current: bool,
}

struct Row {
    node: NodeView,
    look: Look,
}

impl Row {
    /// Progress can be drawn.
    fn measured(&self) -> bool {
        let progress = self.node.job.as_ref().and_then(|j| j.progress);
        progress.is_some_and(|p| p.bytes_total > 0)
    }

    /// It waits for a person.
    fn asks(&self) -> bool {
        self.node.state == StateName::Manageable && self.node.hardware.is_some()
    }

    /// Nothing goes on.
    fn idle(&self) -> bool {
        self.node.job.is_none() && self.node.fault.is_none() && !self.asks()
    }
}

/// What a machine finds on the wire.
struct Listen {
    interface: String,
    lines: Vec<String>,
}

pub(super) async fn list(State(ui): State<Ui>, Query(filter): Query<Filter>) -> Result<Response, Refusal> {
    let states: Vec<_> = ui.engine.nodes().await?.iter().map(|node| node.state.name()).collect();
    let (total, chips) = (states.len(), chips(&states, &filter));
    let wanted = filter.state.as_deref().filter(|s| !s.is_empty());
    let needle = filter.q.trim().to_lowercase();
    if !needle.is_empty() {
        ui.engine.know_all_hardware().await?;
    }
    let NodePage { nodes, more } = ui.engine.node_page(filter.after.as_deref(), PAGE, |node| {
        wanted.is_none_or(|state| node.state.name().as_str() == state) && matches(&ui.engine, node, &needle)
    });
    let mut rows = Vec::with_capacity(nodes.len());
    for node in &nodes {
        rows.push(Row { look: f::look(node.state.name()), node: ui.engine.view(node).await });
    }
    let next = rows.last().filter(|_| more).map(|last| {
        let query = [("q", filter.q.as_str()), ("state", wanted.unwrap_or("")), ("after", &last.node.name)];
        address("/", &query)
    });
    let page = ServersPage {
        nav: "servers",
        chips,
        rows,
        total,
        steps: welcome::steps(&ui, total).await?,
        next,
        page_size: PAGE,
        listen: listen(&ui),
        recipe: Recipe::default().and("billet node list", "GET", "nodes", None),
        filter: Filter { state: wanted.map(str::to_owned), ..filter.clone() },
    };
    Ok(render(200, &page))
}

/// True where the text occurs in anything that people know a server by.
fn matches(engine: &Engine, node: &Node, needle: &str) -> bool {
    if needle.is_empty() {
        return true;
    }
    let has = |text: &str| text.to_lowercase().contains(needle);
    has(&node.name)
        || has(node.state.name().as_str())
        || node.identity.serial.as_deref().is_some_and(has)
        || node.identity.uuid.is_some_and(|u| has(&u.to_string()))
        || node.identity.macs.iter().any(|m| has(&m.to_string()))
        || engine.known_hardware(node.id).is_some_and(|h| has(&h.product) || has(&h.cpu))
        || node.installed.as_ref().is_some_and(|i| has(&i.image_name) || has(&i.hostname))
}

fn chips(states: &[StateName], filter: &Filter) -> Vec<Chip> {
    let current = filter.state.as_deref().unwrap_or("");
    let mut chips = vec![Chip {
        label: "All",
        count: states.len(),
        href: address("/", &[("q", &filter.q)]),
        current: current.is_empty(),
    }];
    for state in f::STATES {
        let count = states.iter().filter(|one| **one == state).count();
        let is = state.as_str() == current;
        if count > 0 || is {
            let href = address("/", &[("q", &filter.q), ("state", state.as_str())]);
            chips.push(Chip { label: f::look(state).label, count, href, current: is });
        }
    }
    chips
}

/// An address of this server with a query; empty values are left out.
pub(super) fn address(path: &str, query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn listen(ui: &Ui) -> Listen {
    let settings = ui.engine.settings();
    let addresses: Vec<_> = settings.addresses().map(|address| address.to_string()).collect();
    let mut lines = vec![format!("on {} as {}", settings.interface, addresses.join(" and "))];
    if let Some(lending) = &settings.dhcp {
        lines.extend(lending.lines().into_iter().map(|line| format!("DHCP {line}")));
    }
    if let Some(pool) = settings.ipv6.as_ref().and_then(|ipv6| ipv6.dhcp.as_ref()) {
        lines.push(format!("DHCPv6 {} to {}", pool.start, pool.end));
    }
    if settings.tftp {
        lines.push("TFTP 69".to_owned());
    }
    lines.push(format!("HTTP {}", settings.port));
    Listen { interface: settings.interface.clone(), lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(address("/", &[("q", ""), ("state", "")]), "/");
        assert_eq!(
            address("/", &[("q", "a&b <i>"), ("state", "active")]),
            "/?q=a%26b%20%3Ci%3E&state=active"
        );
    }
}
