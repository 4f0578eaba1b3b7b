//! One network of a project: its subnets, its ports and who is plugged in, and the forms that change them.

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::access::Role;
use boot_server_core::network::{SecurityGroup, Subnet};
use protocol::NetworkId;
use serde_json::json;

use super::super::super::form::{self, Fields};
use super::super::super::format as f;
use super::super::super::recipe::Recipe;
use super::super::{Frame, Refusal, Ui, Within, address, go, refuse, render};
use super::gather::{self, PortRow};
use super::subnet_of;
use crate::engine::EngineError;
use crate::engine::overlay::{LimitsChange, NetworkChange, NewPort, PortChange};
use crate::http::api::projects::InProject;
use crate::store::overlay::{Net, Plug, Row};
use crate::view::Problem;
use crate::view::networks::{OverlayNetworkView, SubnetView};

/// Ports on the page; the API lists all.
const PORTS: usize = 500;

#[derive(Template)]
#[template(path = "my/network.html")]
struct NetworkPage {
    frame: Frame,
    network: OverlayNetworkView,
    subnets: Vec<SubnetView>,
    ports: Vec<PortRow>,
    more: bool,
    /// Servers of the project: id and name.
    servers: Vec<(String, String)>,
    groups: Vec<String>,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(in super::super) async fn show(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, network)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let network = ui.engine.overlay_network(within.project.id, &network)?;
    page(&ui, &within, &network, Fields::default(), None).await
}

async fn page(
    ui: &Ui,
    within: &InProject,
    network: &Arc<Row<Net>>,
    form: Fields,
    problem: Option<Problem>,
) -> Result<Response, Refusal> {
    let (engine, project, id) = (&ui.engine, within.project.id, network.id);
    let servers = gather::servers(ui, project).await?;
    // Of a network of the site a project sees the site's subnets, and its own ports alone.
    let subnets = engine.overlay_things::<Subnet>(network.project, None, usize::MAX, |it| it.network == id);
    let ports = engine.overlay_things::<Plug>(project, None, PORTS, |plug| plug.port.network == id);
    let groups = engine.overlay_things::<SecurityGroup>(project, None, usize::MAX, |_| true).rows;
    let page = NetworkPage {
        frame: Frame::of(ui, within, "networks"),
        network: network.as_ref().into(),
        subnets: subnets.rows.iter().map(|row| SubnetView::from(row.as_ref())).collect(),
        ports: ports.rows.iter().map(|port| gather::port_row(engine, port, &servers)).collect(),
        more: ports.more,
        groups: groups.iter().map(|group| group.name.clone()).collect(),
        servers: servers.into_iter().map(|(id, name)| (id.to_string(), name)).collect(),
        form,
        problem,
        recipe: recipe(&within.project.name, &network.name),
    };
    Ok(render(if page.problem.is_some() { 422 } else { 200 }, &page))
}

fn recipe(project: &str, network: &str) -> Recipe {
    let (of, path) = (format!("--project {}", f::shell(project)), format!("projects/{project}"));
    let name = f::shell(network);
    Recipe::default()
        .and(&format!("billet network show {of} {name}"), "GET", &format!("{path}/networks/{network}"), None)
        .and(
            &format!("billet subnet create {of} {name} fd00::/64"),
            "POST",
            &format!("{path}/subnets"),
            Some(&json!({ "network": network, "cidr": "fd00::/64" })),
        )
        .and(
            &format!("billet port create {of} {name}"),
            "POST",
            &format!("{path}/ports"),
            Some(&json!({ "network": network })),
        )
        .and(
            &format!("billet port attach {of} PORT web"),
            "POST",
            &format!("{path}/ports/PORT/attach"),
            Some(&json!({ "server": "web" })),
        )
        .and(
            &format!("billet network delete {of} {name}"),
            "DELETE",
            &format!("{path}/networks/{network}"),
            None,
        )
}

/// Does what a form on the network's page asks for, and shows the page.
pub(in super::super) async fn act(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let fields = Fields(fields);
    // On a server's page the network is chosen in the form.
    let chosen = (reference == "chosen").then(|| fields.trimmed("network")).flatten();
    let network = ui.engine.overlay_network(within.project.id, chosen.as_deref().unwrap_or(&reference))?;
    let at = format!("{}/networks", address(&within.project.name));
    match done(&ui, &within, &network, &verb, &fields).await {
        Ok(()) if verb == "delete" => Ok(go(&at)),
        Ok(()) => Ok(match fields.trimmed("server").filter(|_| fields.get("back") == "server") {
            Some(server) => go(&server_page(&within, &server)),
            None => go(&format!("{at}/{}", network.id)),
        }),
        Err(problem) => page(&ui, &within, &network, fields, Some(problem)).await,
    }
}

async fn done(
    ui: &Ui,
    within: &InProject,
    network: &Row<Net>,
    verb: &str,
    fields: &Fields,
) -> Result<(), Problem> {
    let told = |error: EngineError| error.problem();
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let id = network.id.to_string();
    match verb {
        "subnet" => {
            let wish = subnet_of(fields, &id)?
                .ok_or_else(|| form::problem("subnet", "No addresses were typed", "write 10.0.0.0/24"))?;
            engine.create_subnet(project, actor, wish).await.map(drop).map_err(told)
        }
        "port" => port(ui, within, &id, fields).await,
        "rename" => {
            let change = NetworkChange { name: fields.trimmed("name"), ..NetworkChange::default() };
            engine.change_network(project, actor, &id, change).await.map(drop).map_err(told)
        }
        "delete" => {
            let typed = fields.get("confirm");
            if typed != network.name {
                return Err(form::not_the_name("network", typed, &network.name));
            }
            engine.remove_network(project, actor, &id).await.map_err(told)
        }
        _ => Err(form::problem("not-found", "there is no such action", "")),
    }
}

/// Makes a port, and plugs a server in where one was chosen.
async fn port(ui: &Ui, within: &InProject, network: &str, fields: &Fields) -> Result<(), Problem> {
    let told = |error: EngineError| error.problem();
    let words = fields.get("addresses").split([' ', ',', ';']).filter(|word| !word.is_empty());
    let addresses = words.map(|word| {
        word.parse()
            .map_err(|_| form::problem("address", format!("“{word}” is no address"), "write 10.0.0.7"))
    });
    let groups: Vec<String> = fields.all("groups").map(str::to_owned).collect();
    let server = match fields.trimmed("server") {
        Some(server) => Some(ui.engine.server(within.project.id, &server).await.map_err(told)?),
        None => None,
    };
    let wish = NewPort {
        name: fields.trimmed("port_name"),
        network: network.to_owned(),
        addresses: addresses.collect::<Result<BTreeSet<_>, _>>()?,
        groups: Some(groups).filter(|groups| !groups.is_empty()),
        unguarded: fields.get("unguarded") == "1",
        ..NewPort::default()
    };
    let (engine, project, actor) = (&ui.engine, within.project.id, within.who.actor());
    let made = engine.create_port(project, actor.clone(), wish).await.map_err(told)?;
    if let Some(server) = server {
        let (port, server) = (made.id.to_string(), server.id.to_string());
        engine.attach_port(project, actor, &port, &server).await.map_err(told)?;
    }
    Ok(())
}

/// Removes a subnet that nobody is on.
pub(in super::super) async fn remove_subnet(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let project = within.project.id;
    let subnet = ui.engine.overlay_thing::<Subnet>(project, &reference)?;
    let done = ui.engine.remove_subnet(project, within.who.actor(), &subnet.id.to_string()).await;
    back(&ui, &within, subnet.value.network, done).await
}

/// Plugs a server into a port or out of it, gives it other security groups, or removes it.
pub(in super::super) async fn act_on_port(
    State(ui): State<Ui>,
    Within(within): Within,
    Path((_, reference, verb)): Path<(String, String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    refuse(&within, Role::Member)?;
    let (engine, project, actor, fields) =
        (&ui.engine, within.project.id, within.who.actor(), Fields(fields));
    // On a server's page the port is chosen in the form.
    let chosen = (reference == "chosen").then(|| fields.trimmed("port")).flatten();
    let port = engine.port(project, chosen.as_deref().unwrap_or(&reference))?;
    let id = port.id.to_string();
    let server = port.value.server.map(|server| server.to_string()).or_else(|| fields.trimmed("server"));
    let done = match verb.as_str() {
        "attach" => engine.attach_port(project, actor, &id, fields.get("server")).await.map(drop),
        "detach" => engine.detach_port(project, actor, &id).await.map(drop),
        "groups" => {
            let groups = Some(fields.all("groups").map(str::to_owned).collect());
            let change = PortChange { groups, ..PortChange::default() };
            engine.change_port(project, actor, &id, change).await.map(drop)
        }
        "limits" => match limits(&fields) {
            Ok(limits) => {
                let change = PortChange { limits, ..PortChange::default() };
                engine.change_port(project, actor, &id, change).await.map(drop)
            }
            Err(problem) => {
                let network = engine.overlay_network(project, &port.value.port.network.to_string())?;
                return page(&ui, &within, &network, Fields::default(), Some(problem)).await;
            }
        },
        "remove" => engine.delete_port(project, actor, &id).await,
        _ => return Err(Refusal(form::problem("not-found", "there is no such action", ""))),
    };
    match server.filter(|_| done.is_ok() && fields.get("back") == "server") {
        Some(server) => Ok(go(&server_page(&within, &server))),
        None => back(&ui, &within, port.value.port.network, done).await,
    }
}

/// What a form says of a port's limits; an empty field takes one away.
fn limits(fields: &Fields) -> Result<LimitsChange, Problem> {
    let number = |name: &str| match fields.trimmed(name).map(|text| text.parse::<u64>()) {
        None => Ok(Some(0)),
        Some(Ok(kbps)) => Ok(Some(kbps)),
        Some(Err(_)) => {
            let hint = "write a number of kbit/s, such as 100000 for 100 Mbit/s, or leave it empty";
            Err(form::problem("form", "a limit is no number", hint))
        }
    };
    Ok(LimitsChange {
        egress_kbps: number("egress")?,
        egress_burst_kb: None,
        ingress_kbps: number("ingress")?,
    })
}

fn server_page(within: &InProject, server: &str) -> String {
    format!("{}/servers/{}", address(&within.project.name), crate::http::encode(server))
}

/// The page of a network, with the reason where something was refused.
async fn back(
    ui: &Ui,
    within: &InProject,
    network: NetworkId,
    done: Result<(), EngineError>,
) -> Result<Response, Refusal> {
    match done {
        Ok(()) => Ok(go(&format!("{}/networks/{network}", address(&within.project.name)))),
        Err(error) => {
            let network = ui.engine.overlay_network(within.project.id, &network.to_string())?;
            page(ui, within, &network, Fields::default(), Some(error.problem())).await
        }
    }
}
