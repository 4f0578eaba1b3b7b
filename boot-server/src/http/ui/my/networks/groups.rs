//! Security groups of a project, and their rules.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::network::{Rule, SecurityGroup};
use protocol::SecurityGroupId;
use serde_json::json;

use super::super::super::form::{self, Fields};
use super::super::super::format as f;
use super::super::super::recipe::Recipe;
use super::super::{Frame, Refusal, Ui, Within, address, go, refuse, render};
use crate::engine::EngineError;
use crate::engine::overlay::OverlayError;
use crate::http::api::projects::InProject;
use crate::store::overlay::Row;
use crate::view::Problem;
use crate::view::networks::{AddressFamily, SecurityRule, TrafficDirection};

#[derive(Template)]
#[template(path = "my/groups.html")]
struct GroupsPage {
    frame: Frame,
    groups: Vec<GroupRow>,
    /// Names of all groups.
    names: Vec<String>,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A security group as the page shows it.
struct GroupRow {
    id: String,
    name: String,
    /// Which version of it the page shows: a rule is added to no other.
    version: i64,
    rules: Vec<RuleRow>,
}

/// A rule in words.
struct RuleRow {
    /// The rule as the API has it: the form sends it back to remove it.
    key: String,
    direction: &'static str,
    family: &'static str,
    traffic: String,
    remote: String,
}

pub(in super::super) async fn list(State(ui): State<Ui>, Within(within): Within) -> Response {
    page(&ui, &within, Fields::default(), None)
}

fn page(ui: &Ui, within: &InProject, form: Fields, problem: Option<Problem>) -> Response {
    let all = ui.engine.overlay_things::<SecurityGroup>(within.project.id, None, usize::MAX, |_| true).rows;
    let name = |id: &str| all.iter().find(|group| group.id.to_string() == id).map(|group| group.name.clone());
    let groups = all.iter().map(|group| GroupRow {
        id: group.id.to_string(),
        name: group.name.clone(),
        version: group.version,
        rules: group.value.rules.iter().map(|rule| rule_row(rule, name)).collect(),
    });
    let page = GroupsPage {
        frame: Frame::of(ui, within, "groups"),
        groups: groups.collect(),
        names: all.iter().map(|group| group.name.clone()).collect(),
        form,
        problem,
        recipe: recipe(&within.project.name),
    };
    render(page.problem.as_ref().map_or(200, |_| 422), &page)
}

fn recipe(project: &str) -> Recipe {
    let (of, path) =
        (format!("--project {}", f::shell(project)), format!("projects/{project}/security-groups"));
    let rule = json!({ "direction": "ingress", "protocol": "tcp", "ports": "22" });
    Recipe::default()
        .and(&format!("billet security-group list {of}"), "GET", &path, None)
        .and(
            &format!("billet security-group create {of} ssh --rule ingress,tcp,22"),
            "POST",
            &path,
            Some(&json!({ "name": "ssh", "rules": [rule] })),
        )
        .and(&format!("billet security-group delete {of} ssh"), "DELETE", &format!("{path}/ssh"), None)
}

fn rule_row(rule: &Rule, name: impl Fn(&str) -> Option<String>) -> RuleRow {
    let view = SecurityRule::from(rule);
    let protocol = match view.protocol.as_deref().unwrap_or("any") {
        "any" => "anything".to_owned(),
        word @ ("tcp" | "udp" | "icmp") => word.to_uppercase(),
        number => format!("protocol {number}"),
    };
    RuleRow {
        key: key(&view),
        direction: match view.direction {
            TrafficDirection::Ingress => "in",
            TrafficDirection::Egress => "out",
        },
        family: match view.family {
            Some(AddressFamily::V4) => "IPv4",
            Some(AddressFamily::V6) => "IPv6",
            None => "both",
        },
        traffic: match &view.ports {
            Some(ports) => format!("{protocol} {ports}"),
            None => protocol,
        },
        remote: match (&view.cidr, &view.group) {
            (Some(cidr), _) => cidr.clone(),
            (None, Some(group)) => format!("group {}", name(group).unwrap_or_else(|| group.clone())),
            (None, None) => "anybody".to_owned(),
        },
    }
}

/// A rule as text.
fn key(rule: &SecurityRule) -> String {
    serde_json::to_string(rule).unwrap_or_default()
}

pub(in super::super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let name = fields.trimmed("name").unwrap_or_default();
    // It may send; what may reach it is said by rules.
    let outward = SecurityRule { direction: TrafficDirection::Egress, ..typed(&Fields::default()) };
    let none = |name: &str| -> Result<SecurityGroupId, EngineError> { Err(no_group(name)) };
    let rules = |_| outward.rules::<EngineError>(none).map(|rules| rules.into_iter().collect());
    let made = ui.engine.create_security_group(within.project.id, within.who.actor(), &name, rules).await;
    Ok(back(&ui, &within, fields, made.map(drop).map_err(|error| error.problem())))
}

fn back(ui: &Ui, within: &InProject, fields: Fields, done: Result<(), Problem>) -> Response {
    match done {
        Ok(()) => go(&format!("{}/security-groups", address(&within.project.name))),
        Err(problem) => page(ui, within, fields, Some(problem)),
    }
}

fn no_group(name: &str) -> EngineError {
    OverlayError::no_such::<SecurityGroup>(name).into()
}

/// A rule as the form says it.
fn typed(fields: &Fields) -> SecurityRule {
    let family = match fields.get("family") {
        "v4" => Some(AddressFamily::V4),
        "v6" => Some(AddressFamily::V6),
        _ => None,
    };
    SecurityRule {
        direction: match fields.get("direction") {
            "egress" => TrafficDirection::Egress,
            _ => TrafficDirection::Ingress,
        },
        family,
        protocol: fields.trimmed("protocol"),
        ports: fields.trimmed("ports"),
        cidr: fields.trimmed("cidr"),
        group: fields.trimmed("group"),
    }
}

/// Adds a rule to a group, takes one away, or removes the group.
pub(in super::super) async fn act(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    let group = ui.engine.overlay_thing::<SecurityGroup>(within.project.id, &reference)?;
    // All rules are stored together: what somebody else changed meanwhile is not undone.
    let done = if fields.get("seen") == group.version.to_string() {
        done(&ui, &within, &group, &verb, &fields).await.map_err(|error| error.problem())
    } else {
        let what = format!("security group {} was changed meanwhile", group.name);
        Err(form::problem("version", what, "look at it as it is now, and send the form again"))
    };
    Ok(back(&ui, &within, fields, done))
}

async fn done(
    ui: &Ui,
    within: &InProject,
    group: &Row<SecurityGroup>,
    verb: &str,
    fields: &Fields,
) -> Result<(), EngineError> {
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let id = group.id.to_string();
    let rules: BTreeSet<Rule> = match verb {
        "remove" => return engine.remove_security_group(project, actor, &id).await,
        "rule" => {
            let find = |name: &str| engine.overlay_thing::<SecurityGroup>(project, name).map(|row| row.id);
            let added = typed(fields).rules::<EngineError>(find)?;
            group.value.rules.iter().copied().chain(added).collect()
        }
        "unrule" => {
            let gone = fields.get("rule");
            group.value.rules.iter().copied().filter(|rule| key(&SecurityRule::from(rule)) != gone).collect()
        }
        _ => return Err(no_group(verb)),
    };
    engine.change_security_group(project, actor, &id, (None, Some(rules))).await.map(drop)
}
