//! What of a project's networks a page shows: read once, and looked up by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use boot_server_core::network::{Floating, PortLimits, Router, SecurityGroup, Subnet};
use protocol::{NetworkId, PortId, ProjectId, ServerId, SubnetId};

use super::super::super::format as f;
use super::super::{Refusal, Ui};
use super::topology::{Map, Named, NetworkAt, PORTS, PortAt, RouterAt};
use crate::engine::Engine;
use crate::store::overlay::{Net, Plug, Row, SITE};
use crate::store::servers::ServerFilter;
use crate::view::counters::TrafficView;

/// Networks on one page, and in its picture.
const PAGE: usize = 40;
/// Routers and floating addresses that are shown, and choices in forms.
const SHOWN: usize = 200;
/// Servers whose names are looked up.
const SERVERS_MAX: usize = 10_000;

/// Networks of one page, with what is on them.
pub(super) struct Gathered {
    pub networks: Vec<Arc<Row<Net>>>,
    /// More networks follow.
    pub more: bool,
    subnets: Vec<Arc<Row<Subnet>>>,
    ports: BTreeMap<NetworkId, Vec<Arc<Row<Plug>>>>,
    routers: Vec<Arc<Row<Router>>>,
    floating: Vec<Arc<Row<Floating>>>,
    /// Networks of the site that projects may use, and their subnets.
    pub provided: Vec<Arc<Row<Net>>>,
    outer: Vec<Arc<Row<Subnet>>>,
    servers: BTreeMap<ServerId, String>,
}

/// A router in the list.
pub(super) struct RouterRow {
    pub id: String,
    pub name: String,
    /// Network that it leads to, and its address there.
    pub out: Option<(String, String)>,
    /// Subnets that it joins: id and words.
    pub joins: Vec<(String, String)>,
}

/// A floating address in the list.
pub(super) struct FloatingRow {
    pub id: String,
    pub address: String,
    pub network: String,
    /// Where it leads, in words.
    pub to: Option<String>,
}

/// A port in a list.
pub(in super::super) struct PortRow {
    pub id: String,
    pub name: String,
    /// Id and name of its network.
    pub network: (String, String),
    pub mac: String,
    pub addresses: String,
    pub groups: String,
    pub guarded: bool,
    /// How much it may carry.
    pub limits: PortLimits,
    /// What it carried, in words: sent and got.
    pub carried: Option<(String, String)>,
    /// Id and name of the server that is plugged in.
    pub server: Option<(String, String)>,
    /// Floating addresses that lead there.
    pub floating: String,
}

impl PortRow {
    /// Its limits in words, where it has any.
    pub(in super::super) fn limited(&self) -> Option<String> {
        let sends = self.limits.egress.map(|rate| format!("sends {} kbit/s at most", rate.kbps));
        let gets = self.limits.ingress_kbps.map(|kbps| format!("gets {kbps} kbit/s at most"));
        let words: Vec<String> = sends.into_iter().chain(gets).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// It has the security group of this name.
    pub(super) fn in_group(&self, name: &str) -> bool {
        self.groups.split(", ").any(|group| group == name)
    }
}

/// Names of the servers of a project.
pub(super) async fn servers(ui: &Ui, project: ProjectId) -> Result<BTreeMap<ServerId, String>, Refusal> {
    let filter = ServerFilter { limit: SERVERS_MAX, ..ServerFilter::default() };
    let servers = ui.engine.servers(project, filter).await?;
    Ok(servers.into_iter().map(|server| (server.id, server.name)).collect())
}

/// What something is called: its name, or the beginning of its id.
fn called(name: &str, id: impl std::fmt::Display) -> String {
    if name.is_empty() { id.to_string() } else { name.to_owned() }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

/// A port as lists show it.
pub(super) fn port_row(engine: &Engine, port: &Row<Plug>, servers: &BTreeMap<ServerId, String>) -> PortRow {
    let Plug { port: own, server, .. } = &port.value;
    let network = engine.overlay_by_id::<Net>(own.network).map(|row| row.name.clone()).unwrap_or_default();
    let groups = own.groups.iter().filter_map(|id| engine.overlay_by_id::<SecurityGroup>(*id));
    let leads = |it: &Floating| it.to.is_some_and(|(to, _)| to == port.id);
    let floating = engine.overlay_things::<Floating>(port.project, None, SHOWN, leads).rows;
    PortRow {
        id: port.id.to_string(),
        name: port.name.clone(),
        network: (own.network.to_string(), network),
        mac: own.mac.to_string(),
        addresses: joined(own.addresses.iter().map(ToString::to_string)),
        groups: joined(groups.map(|group| group.name.clone())),
        guarded: own.guarded,
        limits: own.limits,
        carried: engine.port_counters(port).map(|(_, of)| {
            let words = |of| TrafficView::from(of).words(f::size_words);
            (words(of.from_host), words(of.to_host))
        }),
        server: server
            .map(|id| (id.to_string(), servers.get(&id).cloned().unwrap_or_else(|| id.to_string()))),
        floating: joined(floating.iter().map(|row| row.value.address.to_string())),
    }
}

/// The ports of a server as its page shows them, and those that nobody is plugged into: id and words.
pub(in super::super) fn ports_of_server(
    engine: &Engine,
    project: ProjectId,
    server: ServerId,
) -> (Vec<PortRow>, Vec<(String, String)>) {
    let nobody = BTreeMap::new();
    let own = engine.ports_of(server);
    let own = own.iter().map(|port| port_row(engine, port, &nobody)).collect();
    let free = engine.overlay_things::<Plug>(project, None, SHOWN, |plug| plug.server.is_none()).rows;
    let free = free.iter().map(|port| {
        let row = port_row(engine, port, &nobody);
        (row.id.clone(), words(&row))
    });
    (own, free.collect())
}

/// A port in words.
pub(super) fn words(port: &PortRow) -> String {
    let name = if port.name.is_empty() { &port.mac } else { &port.name };
    format!("{name} on {} ({})", port.network.1, port.addresses)
}

impl Gathered {
    /// The networks after the one with this id.
    pub(super) async fn of(ui: &Ui, project: ProjectId, after: &str) -> Result<Self, Refusal> {
        let engine = &ui.engine;
        let page = engine.overlay_things::<Net>(project, after.parse().ok(), PAGE, |_| true);
        let provided = engine.shared_networks();
        let all = |_: &Subnet| true;
        let subnets = engine.overlay_things::<Subnet>(project, None, usize::MAX, all).rows;
        let outside = |subnet: &Subnet| provided.iter().any(|network| network.id == subnet.network);
        let outer = engine.overlay_things::<Subnet>(SITE, None, usize::MAX, outside).rows;
        let mut ports: BTreeMap<NetworkId, Vec<Arc<Row<Plug>>>> = BTreeMap::new();
        for port in engine.overlay_things::<Plug>(project, None, usize::MAX, |_| true).rows {
            ports.entry(port.value.port.network).or_default().push(port);
        }
        Ok(Self {
            networks: page.rows,
            more: page.more,
            subnets,
            ports,
            routers: engine.overlay_things::<Router>(project, None, SHOWN, |_| true).rows,
            floating: engine.overlay_things::<Floating>(project, None, SHOWN, |_| true).rows,
            provided,
            outer,
            servers: servers(ui, project).await?,
        })
    }

    /// Subnets of a network.
    pub(super) fn subnets_on(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Row<Subnet>>> {
        self.subnets.iter().filter(move |subnet| subnet.value.network == network)
    }

    /// Ports of a network.
    pub(super) fn ports_on(&self, network: NetworkId) -> &[Arc<Row<Plug>>] {
        self.ports.get(&network).map_or(&[], Vec::as_slice)
    }

    fn network_name(&self, id: NetworkId) -> &str {
        let known = self.networks.iter().chain(&self.provided).find(|network| network.id == id);
        known.map_or("", |network| &network.name)
    }

    /// A provider network's name by one of its subnets.
    fn outside(&self, id: SubnetId) -> &str {
        let subnet = self.outer.iter().find(|subnet| subnet.id == id);
        subnet.map_or("", |subnet| self.network_name(subnet.value.network))
    }

    fn subnet_words(&self, subnet: &Row<Subnet>) -> String {
        match self.network_name(subnet.value.network) {
            "" => subnet.value.cidr.to_string(),
            network => format!("{} of {network}", subnet.value.cidr),
        }
    }

    fn floating_of(&self, port: PortId) -> impl Iterator<Item = &Arc<Row<Floating>>> {
        self.floating.iter().filter(move |row| row.value.to.is_some_and(|(to, _)| to == port))
    }

    /// Routers as the list shows them.
    pub(super) fn router_rows(&self) -> Vec<RouterRow> {
        let row = |router: &Arc<Row<Router>>| {
            let joins = router.value.interfaces.keys();
            let joins = joins.filter_map(|id| self.subnets.iter().find(|subnet| subnet.id == *id));
            RouterRow {
                id: router.id.to_string(),
                name: router.name.clone(),
                out: router
                    .value
                    .external
                    .as_ref()
                    .map(|out| (self.outside(out.subnet).to_owned(), out.address.to_string())),
                joins: joins.map(|subnet| (subnet.id.to_string(), self.subnet_words(subnet))).collect(),
            }
        };
        self.routers.iter().map(row).collect()
    }

    /// Subnets with a router's address that no router joins.
    pub(super) fn joinable(&self) -> Vec<(String, String)> {
        let taken =
            |id: SubnetId| self.routers.iter().any(|router| router.value.interfaces.contains_key(&id));
        let free = self.subnets.iter().filter(|subnet| subnet.value.gateway.is_some() && !taken(subnet.id));
        free.take(SHOWN).map(|subnet| (subnet.id.to_string(), self.subnet_words(subnet))).collect()
    }

    /// Floating addresses as the list shows them.
    pub(super) fn floating_rows(&self) -> Vec<FloatingRow> {
        let row = |floating: &Arc<Row<Floating>>| FloatingRow {
            id: floating.id.to_string(),
            address: floating.value.address.to_string(),
            network: self.outside(floating.value.subnet).to_owned(),
            to: floating.value.to.map(|(port, inner)| {
                let found = self.ports.values().flatten().find(|row| row.id == port);
                match found {
                    Some(port) => format!("{} ({inner})", self.plugged(port)),
                    None => inner.to_string(),
                }
            }),
        };
        self.floating.iter().map(row).collect()
    }

    /// Ports that a floating address can lead to: those with an address.
    pub(super) fn targets(&self) -> Vec<(String, String)> {
        let ports = self.ports.values().flatten().filter(|port| !port.value.port.addresses.is_empty());
        let words = ports.map(|port| {
            let addresses = joined(port.value.port.addresses.iter().map(ToString::to_string));
            let network = self.network_name(port.value.port.network);
            (port.id.to_string(), format!("{} on {network} ({addresses})", self.plugged(port)))
        });
        words.take(SHOWN).collect()
    }

    /// Who is plugged in; a free port by its name or MAC address.
    fn plugged(&self, port: &Row<Plug>) -> String {
        match port.value.server.and_then(|server| self.servers.get(&server)) {
            Some(server) => server.clone(),
            None => called(&port.name, port.value.port.mac),
        }
    }

    /// What is drawn. `at` is where the project's pages are.
    pub(super) fn map(&self, at: &str) -> Map {
        let networks = self.networks.iter().map(|network| {
            let href = Some(format!("{at}/networks/{}", network.id));
            let ports = self.ports_on(network.id);
            NetworkAt {
                it: Named { name: network.name.clone(), href },
                subnets: self.subnets_on(network.id).map(|subnet| subnet.value.cidr.to_string()).collect(),
                more: ports.len().saturating_sub(PORTS),
                ports: ports.iter().take(PORTS).map(|port| self.port_at(port, at)).collect(),
            }
        });
        let networks = networks.collect();
        let routers: Vec<RouterAt> = self.routers.iter().map(|router| self.router_at(router)).collect();
        let providers = self.provided.iter().map(|row| Named { name: row.name.clone(), href: None });
        Map { providers: providers.collect(), routers, networks }
    }

    fn router_at(&self, router: &Row<Router>) -> RouterAt {
        let place = |id: &SubnetId| {
            let subnet = self.subnets.iter().find(|subnet| subnet.id == *id)?;
            let network = self.networks.iter().position(|network| network.id == subnet.value.network)?;
            let row = self.subnets_on(subnet.value.network).position(|other| other.id == *id)?;
            Some((network, row))
        };
        let out = router.value.external.as_ref().and_then(|out| {
            let subnet = self.outer.iter().find(|subnet| subnet.id == out.subnet)?;
            let provider = self.provided.iter().position(|network| network.id == subnet.value.network)?;
            Some((provider, out.address.to_string()))
        });
        RouterAt {
            it: Named { name: router.name.clone(), href: None },
            out,
            joins: router.value.interfaces.keys().filter_map(place).collect(),
        }
    }

    fn port_at(&self, port: &Row<Plug>, at: &str) -> PortAt {
        let server = port.value.server;
        PortAt {
            it: Named {
                name: self.plugged(port),
                href: server.map(|server| format!("{at}/servers/{server}")),
            },
            server: server.is_some(),
            addresses: joined(port.value.port.addresses.iter().map(ToString::to_string)),
            floating: self.floating_of(port.id).next().map(|row| row.value.address.to_string()),
        }
    }
}
