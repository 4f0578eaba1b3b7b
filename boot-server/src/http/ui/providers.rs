//! Networks of the site: wires that projects reach the outside by. Which there are, and the forms that make and remove them.

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::Response;
use boot_server_core::network::{Cidr, NetworkKind, Subnet};
use serde_json::json;

use super::form::{self, Fields};
use super::recipe::Recipe;
use super::{Refusal, Ui, go, operator, render};
use crate::engine::EngineError;
use crate::engine::overlay::{NetworkChange, NewNetwork, NewSubnet};
use crate::http::auth;
use crate::store::overlay::{Net, SITE};
use crate::view::Problem;
use crate::view::networks::{ProviderNetworkView, SubnetView};

/// Networks on the page; the API lists all.
const SHOWN: usize = 500;

#[derive(Template)]
#[template(path = "providers.html")]
struct ProvidersPage {
    nav: &'static str,
    /// The site has networks of projects.
    enabled: bool,
    rows: Vec<(ProviderNetworkView, Vec<SubnetView>)>,
    may_change: bool,
    form: Fields,
    problem: Option<Problem>,
    recipe: Recipe,
}

pub(super) async fn list(State(ui): State<Ui>) -> Response {
    page(&ui, Fields::default(), None)
}

fn page(ui: &Ui, form: Fields, problem: Option<Problem>) -> Response {
    let networks = ui.engine.overlay_things::<Net>(SITE, None, SHOWN, |_| true).rows;
    let rows = networks.iter().map(|network| {
        let of = |subnet: &Subnet| subnet.network == network.id;
        let subnets = ui.engine.overlay_things::<Subnet>(SITE, None, SHOWN, of).rows;
        (network.as_ref().into(), subnets.iter().map(|subnet| subnet.as_ref().into()).collect())
    });
    let body = json!({ "name": "public", "physical": "public", "shared": true });
    let recipe = Recipe::default().and("billet provider list", "GET", "networks", None).and(
        "billet provider create public public --shared",
        "POST",
        "networks",
        Some(&body),
    );
    let page = ProvidersPage {
        nav: "providers",
        enabled: ui.engine.overlay_settings().is_ok(),
        rows: rows.collect(),
        may_change: auth::who().is_some_and(|who| who.may_change()),
        form,
        problem,
        recipe,
    };
    render(page.problem.as_ref().map_or(200, |problem| problem.status), &page)
}

/// Makes a network, with a subnet where addresses are given.
pub(super) async fn create(State(ui): State<Ui>, Form(fields): Form<Vec<(String, String)>>) -> Response {
    let fields = Fields(fields);
    match make(&ui, &fields).await {
        Ok(()) => go("/providers"),
        Err(problem) => page(&ui, fields, Some(problem)),
    }
}

async fn make(ui: &Ui, fields: &Fields) -> Result<(), Problem> {
    let number = |name: &str, what: &str| match fields.trimmed(name).map(|text| text.parse::<u16>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => {
            Err(form::problem("form", format!("the {what} is no number"), "correct it, or leave it empty"))
        }
    };
    let (vlan, mtu, subnet) = (number("vlan", "VLAN")?, number("mtu", "MTU")?, new_subnet(fields)?);
    let physical = fields.trimmed("physical").unwrap_or_default();
    let wish = NewNetwork {
        name: fields.trimmed("name").unwrap_or_default(),
        mtu,
        kind: NetworkKind::Provider { physical, vlan },
        shared: fields.get("shared") == "1",
    };
    let made = ui.engine.create_network(SITE, operator(), wish).await.map_err(told)?;
    let Some(subnet) = subnet else { return Ok(()) };
    let id = made.id.to_string();
    let done = ui.engine.create_subnet(SITE, operator(), NewSubnet { network: id.clone(), ..subnet }).await;
    if let Err(error) = done {
        // Whoever corrects the form sends the name again.
        if let Err(left) = ui.engine.remove_network(SITE, operator(), &id).await {
            tracing::warn!(network = id, error = &left as &dyn std::error::Error, "a network is left over");
        }
        return Err(told(error));
    }
    Ok(())
}

/// What a form says of a subnet; none where it gives no addresses.
fn new_subnet(fields: &Fields) -> Result<Option<NewSubnet>, Problem> {
    let wrong = |what: String, hint: &str| form::problem("form", what, hint);
    let Some(text) = fields.trimmed("cidr") else { return Ok(None) };
    let cidr: Cidr = text
        .parse()
        .map_err(|_| wrong(format!("“{text}” is no range of addresses"), "write 203.0.113.0/24"))?;
    let gateway = match fields.trimmed("gateway") {
        None => None,
        Some(text) => Some(Some(
            text.parse().map_err(|_| wrong(format!("“{text}” is no address"), "write 203.0.113.1"))?,
        )),
    };
    let pools = match fields.trimmed("pool") {
        None => Vec::new(),
        Some(text) => vec![text.parse().map_err(|_| {
            wrong(format!("“{text}” is no range of addresses"), "write 203.0.113.10-203.0.113.99")
        })?],
    };
    Ok(Some(NewSubnet {
        name: None,
        network: String::new(),
        cidr,
        gateway,
        pools,
        reserved: Default::default(),
        dns: Vec::new(),
        dhcp: false,
    }))
}

/// Adds a subnet, offers a network to projects or to none, or removes one.
pub(super) async fn act(
    State(ui): State<Ui>,
    Path((reference, verb)): Path<(String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let fields = Fields(fields);
    let network = ui.engine.overlay_thing::<Net>(SITE, &reference)?;
    let id = network.id.to_string();
    let done = match verb.as_str() {
        "subnet" => match new_subnet(&fields) {
            Ok(Some(subnet)) => {
                let subnet = NewSubnet { network: id, ..subnet };
                ui.engine.create_subnet(SITE, operator(), subnet).await.map(drop).map_err(told)
            }
            Ok(None) => Err(form::problem("form", "no addresses were given", "write 203.0.113.0/24")),
            Err(problem) => Err(problem),
        },
        "share" => {
            let change =
                NetworkChange { shared: Some(fields.get("shared") == "1"), ..NetworkChange::default() };
            ui.engine.change_network(SITE, operator(), &id, change).await.map(drop).map_err(told)
        }
        "remove-subnet" => {
            let subnet = fields.get("subnet");
            ui.engine.remove_subnet(SITE, operator(), subnet).await.map_err(told)
        }
        "remove" if fields.get("confirm") != network.name => {
            Err(form::not_the_name("network", fields.get("confirm"), &network.name))
        }
        "remove" => ui.engine.remove_network(SITE, operator(), &id).await.map_err(told),
        _ => return Err(Refusal(form::problem("not-found", "there is no such action", ""))),
    };
    Ok(match done {
        Ok(()) => go("/providers"),
        Err(problem) => page(&ui, Fields::default(), Some(problem)),
    })
}

fn told(error: EngineError) -> Problem {
    error.problem()
}
