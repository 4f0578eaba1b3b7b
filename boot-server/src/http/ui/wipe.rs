//! Make available and Give back: both may wipe disks, each named by serial number and confirmed.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::deploy::is_candidate;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Event, Node};
use boot_server_core::server::wiped;
use protocol::inventory::Inventory;
use protocol::job::DiskTarget;
use serde_json::json;

use super::deploy::{DiskOption, options};
use super::form::{self, Errors, Fields};
use super::format::shell;
use super::recipe::Recipe;
use super::{Refusal, Ui, go, node, operator, render};
use crate::view::{NodeView, Problem};

#[derive(Template)]
#[template(path = "wipe.html")]
struct WipePage {
    nav: &'static str,
    title: &'static str,
    lead: &'static str,
    verb: &'static str,
    button: &'static str,
    node: NodeView,
    disks: Vec<DiskOption>,
    confirm: String,
    errors: Errors,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// The two acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Provide,
    Delete,
}

pub(super) async fn provide_form(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    empty_form(ui, id, Act::Provide).await
}

pub(super) async fn delete_form(ui: State<Ui>, id: Path<String>) -> Result<Response, Refusal> {
    empty_form(ui, id, Act::Delete).await
}

pub(super) async fn provide(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    submit(ui, id, Fields(fields), Act::Provide).await
}

pub(super) async fn delete(
    ui: State<Ui>,
    id: Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    submit(ui, id, Fields(fields), Act::Delete).await
}

async fn empty_form(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    act: Act,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let chosen = match act {
        Act::Provide => BTreeSet::new(),
        Act::Delete => node.os_disks().iter().map(ToString::to_string).collect(),
    };
    page(&ui, &node, act, &chosen, String::new(), Errors::default(), None).await
}

async fn submit(
    State(ui): State<Ui>,
    Path(reference): Path<String>,
    fields: Fields,
    act: Act,
) -> Result<Response, Refusal> {
    let node = ui.engine.node(&reference).await?;
    let inventory = ui.engine.inventory(node.id).await?;
    let chosen: BTreeSet<String> = fields.all("wipe").map(str::to_owned).collect();
    let confirm = fields.trimmed("confirm").unwrap_or_default();
    let mut errors = Errors::default();
    let whole = fields.trimmed("erase").is_some() || (node.dirty.is_some() && !chosen.is_empty());
    let found = if whole {
        // Named or not: between tenants none stays as it is.
        Ok(inventory.as_deref().map(wiped).unwrap_or_default())
    } else {
        targets(inventory.as_deref(), &chosen)
    };
    let wipe = match found {
        Ok(wipe) => wipe,
        Err(problem) => {
            errors.disk = Some(problem);
            Vec::new()
        }
    };
    if act == Act::Delete && chosen.is_empty() && !whole {
        errors.disk = Some(form::problem("disk-missing", "Mark the disk that holds the OS", ""));
    }
    if (whole || !chosen.is_empty()) && confirm != node.name {
        errors.confirm = Some(form::not_confirmed(&confirm, &node.name));
    }
    if !errors.is_empty() {
        return page(&ui, &node, act, &chosen, confirm, errors, None).await;
    }
    let how = ui.engine.cleaning(&node, whole);
    let verb = match act {
        Act::Provide => Verb::Provide { wipe, how },
        Act::Delete => Verb::Delete { wipe, how },
    };
    match ui.engine.apply(node.id, operator(), Event::Verb(verb)).await {
        Ok(node) => Ok(go(&node::address(&node))),
        Err(error) => {
            let problem = Refusal::from(error).0;
            page(&ui, &node, act, &chosen, confirm, errors, Some(problem)).await
        }
    }
}

/// The marked disks, each of which must be one that may be written and the only one of its name.
fn targets(inventory: Option<&Inventory>, chosen: &BTreeSet<String>) -> Result<Vec<DiskTarget>, Problem> {
    let disks = inventory.map(|i| i.disks.as_slice()).unwrap_or_default();
    let target = |name: &String| {
        let mut found = disks.iter().filter(|d| d.id.as_ref().is_some_and(|id| id.as_str() == name));
        match (found.next(), found.next()) {
            (Some(disk), None) if is_candidate(disk) => {
                let id = disk.id.clone();
                id.map(|id| DiskTarget { id, size_bytes: disk.size_bytes })
            }
            _ => None,
        }
        .ok_or_else(|| {
            let message = format!("disk {name} is not in this server, or may not be wiped");
            form::problem("disk-refused", message, "inspect the server again if disks were changed")
        })
    };
    chosen.iter().map(target).collect()
}

async fn page(
    ui: &Ui,
    node: &Node,
    act: Act,
    chosen: &BTreeSet<String>,
    confirm: String,
    errors: Errors,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let inventory = ui.engine.inventory(node.id).await?;
    let marked: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let (title, lead, verb, button) = match act {
        Act::Provide => (
            "Make available",
            "Offers the server for deployment. Mark the disks whose contents may be lost; they are wiped first.",
            "provide",
            "Make available",
        ),
        Act::Delete => (
            "Give back",
            "Takes the OS off the server: the marked disks are wiped, then it is offered again.",
            "delete",
            "Wipe the marked disks and give back",
        ),
    };
    let page = WipePage {
        nav: "servers",
        title,
        lead,
        verb,
        button,
        disks: inventory.as_deref().map(|i| options(i, &marked)).unwrap_or_default(),
        recipe: recipe(node, verb, &marked),
        node: NodeView::of(node, inventory.as_deref()),
        confirm,
        errors,
        problem,
    };
    let status = match &page.problem {
        Some(problem) => problem.status,
        None if page.errors.is_empty() => 200,
        None => 422,
    };
    Ok(render(status, &page))
}

fn recipe(node: &Node, verb: &str, marked: &[&str]) -> Recipe {
    let wipe = if marked.is_empty() { vec!["serial:…"] } else { marked.to_vec() };
    let flags: String = wipe.iter().map(|disk| format!(" --wipe {}", shell(disk))).collect();
    let name = shell(&node.name);
    let body = json!({ "wipe": wipe, "confirm": node.name });
    Recipe::default().and(
        &format!("billet node {verb} {name}{flags} --confirm {name}"),
        "POST",
        &format!("nodes/{}/{verb}", node.name),
        Some(&body),
    )
}
