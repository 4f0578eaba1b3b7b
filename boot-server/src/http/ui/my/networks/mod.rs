//! Networks of a project: how they hang together as a picture, the list, and the form that makes one with its first subnet.

mod gather;
pub(super) mod groups;
pub(super) mod mirrors;
pub(super) mod network;
pub(super) mod routers;
mod topology;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::network::{Cidr, NetworkKind};
use serde_json::json;

use super::super::form::{self, Fields};
use super::super::format as f;
use super::super::recipe::Recipe;
use super::super::servers::address;
use super::{Frame, Refusal, Ui, Within, go, refuse, render};
use crate::engine::EngineError;
use crate::engine::overlay::{NewNetwork, NewSubnet};
use crate::http::api::projects::InProject;
use crate::view::Problem;
use gather::{FloatingRow, Gathered, RouterRow};
use topology::Picture;

pub(super) use gather::{PortRow, ports_of_server};

#[derive(Template)]
#[template(path = "my/networks.html")]
struct NetworksPage {
    frame: Frame,
    picture: Picture,
    rows: Vec<NetworkRow>,
    next: Option<String>,
    routers: Vec<RouterRow>,
    /// Subnets that a router could join: id and words.
    joinable: Vec<(String, String)>,
    floating: Vec<FloatingRow>,
    /// Networks of the site: id and name.
    provided: Vec<(String, String)>,
    /// Ports that a floating address can lead to: id and words.
    targets: Vec<(String, String)>,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

/// A network in the list.
struct NetworkRow {
    id: String,
    name: String,
    mtu: u16,
    subnets: Vec<String>,
    ports: usize,
    servers: usize,
}

pub(super) async fn list(
    State(ui): State<Ui>,
    Within(within): Within,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    page(&ui, &within, Fields(query), None).await
}

/// The page; with the reason where something was refused.
async fn page(
    ui: &Ui,
    within: &InProject,
    form: Fields,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let frame = Frame::of(ui, within, "networks");
    let all = Gathered::of(ui, within.project.id, form.get("after")).await?;
    let next = all
        .networks
        .last()
        .filter(|_| all.more)
        .map(|last| address(&format!("{}/networks", frame.at), &[("after", &last.id.to_string())]));
    let rows = all.networks.iter().map(|network| {
        let ports = all.ports_on(network.id);
        NetworkRow {
            id: network.id.to_string(),
            name: network.name.clone(),
            mtu: network.value.network.mtu,
            subnets: all.subnets_on(network.id).map(|subnet| subnet.value.cidr.to_string()).collect(),
            ports: ports.len(),
            servers: ports.iter().filter(|port| port.value.server.is_some()).count(),
        }
    });
    let page = NetworksPage {
        rows: rows.collect(),
        picture: topology::draw(all.map(&frame.at)),
        next,
        routers: all.router_rows(),
        joinable: all.joinable(),
        floating: all.floating_rows(),
        provided: all.provided.iter().map(|row| (row.id.to_string(), row.name.clone())).collect(),
        targets: all.targets(),
        recipe: recipe(&within.project.name),
        frame,
        form,
        problem,
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

fn recipe(project: &str) -> Recipe {
    let (of, path) = (format!("--project {}", f::shell(project)), format!("projects/{project}"));
    Recipe::default()
        .and(&format!("billet network list {of}"), "GET", &format!("{path}/networks"), None)
        .and(
            &format!("billet network create {of} blue"),
            "POST",
            &format!("{path}/networks"),
            Some(&json!({ "name": "blue" })),
        )
        .and(
            &format!("billet subnet create {of} blue 10.0.0.0/24"),
            "POST",
            &format!("{path}/subnets"),
            Some(&json!({ "network": "blue", "cidr": "10.0.0.0/24" })),
        )
        .and(
            &format!("billet router create {of} edge"),
            "POST",
            &format!("{path}/routers"),
            Some(&json!({ "name": "edge" })),
        )
        .and(
            &format!("billet router gateway {of} edge public"),
            "PUT",
            &format!("{path}/routers/edge/gateway"),
            Some(&json!({ "network": "public" })),
        )
        .and(
            &format!("billet floating create {of} public"),
            "POST",
            &format!("{path}/floating-addresses"),
            Some(&json!({ "network": "public" })),
        )
}

/// What of a form makes a subnet of `network`; `None` where no addresses were typed.
fn subnet_of(fields: &Fields, network: &str) -> Result<Option<NewSubnet>, Problem> {
    let Some(text) = fields.trimmed("cidr") else { return Ok(None) };
    let wrong = |what: String, hint: &str| form::problem("subnet", what, hint);
    let cidr: Cidr = text.parse().map_err(|error| {
        wrong(format!("the addresses: {error}"), "write them as 10.0.0.0/24 or fd00::/64")
    })?;
    let servers = fields.get("dns").split([' ', ',', ';']).filter(|word| !word.is_empty());
    let dns = servers.map(|word| {
        word.parse().map_err(|_| wrong(format!("“{word}” is no address of a DNS server"), "write 10.0.0.53"))
    });
    let gateway = match fields.trimmed("gateway") {
        Some(text) => Some(Some(text.parse().map_err(|_| {
            wrong(format!("“{text}” is no address of a router"), "write 10.0.0.1, or leave it empty")
        })?)),
        None => None,
    };
    Ok(Some(NewSubnet {
        name: fields.trimmed("subnet_name"),
        network: network.to_owned(),
        cidr,
        gateway,
        pools: Vec::new(),
        reserved: std::collections::BTreeSet::new(),
        dns: dns.collect::<Result<_, _>>()?,
        dhcp: fields.get("no_dhcp") != "1",
    }))
}

pub(super) async fn create(
    State(ui): State<Ui>,
    Within(within): Within,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    match make(&ui, &within, &fields).await {
        Ok(id) => Ok(go(&format!("{}/networks/{id}", super::address(&within.project.name)))),
        Err(problem) => page(&ui, &within, fields, Some(problem)).await,
    }
}

/// Makes a network with its first subnet, or neither.
async fn make(ui: &Ui, within: &InProject, fields: &Fields) -> Result<String, Problem> {
    let told = |error: EngineError| error.problem();
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    // What was typed is read before anything is made.
    subnet_of(fields, "")?;
    let mtu = match fields.trimmed("mtu") {
        Some(text) => Some(text.parse().map_err(|_| {
            form::problem("mtu", format!("“{text}” is no MTU"), "write a number such as 1500, or nothing")
        })?),
        None => None,
    };
    let name = fields.trimmed("name").unwrap_or_default();
    let wish = NewNetwork { name, mtu, kind: NetworkKind::Overlay, shared: false };
    let made = engine.create_network(project, actor.clone(), wish).await.map_err(told)?;
    let id = made.id.to_string();
    if let Some(subnet) = subnet_of(fields, &id)?
        && let Err(error) = engine.create_subnet(project, actor.clone(), subnet).await
    {
        // Whoever corrects the form sends the name again.
        if let Err(left) = engine.remove_network(project, actor, &id).await {
            tracing::warn!(network = id, error = &left as &dyn std::error::Error, "a network is left over");
        }
        return Err(told(error));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_makes_a_subnet_or_says_what_is_wrong_with_it() {
        let fields = |pairs: &[(&str, &str)]| {
            Fields(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(subnet_of(&fields(&[("cidr", " ")]), "n").unwrap(), None);
        let typed = fields(&[("cidr", "10.0.0.0/24"), ("dns", "10.0.0.53, 10.0.0.54"), ("no_dhcp", "1")]);
        let made = subnet_of(&typed, "n").unwrap().unwrap();
        assert_eq!((made.dns.len(), made.dhcp, made.gateway, made.name), (2, false, None, None));
        for (name, value, says) in [
            ("cidr", "10.0.0.1/24", "the addresses"),
            ("dns", "one", "DNS server"),
            ("gateway", "x", "address of a router"),
        ] {
            let mut typed = fields(&[(name, value), ("cidr", "10.0.0.0/24")]);
            typed.0.push(("cidr".to_owned(), "10.0.0.0/24".to_owned()));
            let problem = subnet_of(&typed, "n").unwrap_err();
            assert!(problem.message.contains(says), "{problem:?}");
        }
    }
}
