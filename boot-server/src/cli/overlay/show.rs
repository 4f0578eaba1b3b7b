//! Parts of networks as tables.

use boot_server_core::network::Driver;

use super::super::output::{Show, facts, table};
use super::super::text::{memory, moment};
use crate::view::Page;
use crate::view::networks::{
    AddressFamily, FloatingView, MirrorKind, MirrorView, OverlayNetworkView, OverlayPortView,
    OverlayStatusView, ProviderNetworkView, RouterView, SecurityGroupView, SecurityRule, SubnetView,
    TrafficDirection,
};

/// A row of a list, and the facts of one.
trait Tabled {
    const EMPTY: &'static str;
    const HEADINGS: &'static [&'static str];
    fn row(&self) -> Vec<String>;
    fn called(&self) -> String;
    fn facts(&self) -> Vec<(&'static str, Option<String>)>;
}

macro_rules! shown {
    ($($view:ty),*) => {$(
        impl Show for Page<$view> {
            fn table(&self) -> String {
                if self.items.is_empty() {
                    return <$view>::EMPTY.to_owned();
                }
                table(<$view>::HEADINGS, self.items.iter().map(Tabled::row))
            }

            fn names(&self) -> Vec<String> {
                self.items.iter().map(Tabled::called).collect()
            }
        }

        impl Show for $view {
            fn table(&self) -> String {
                let mut all = Tabled::facts(self);
                all.extend([("made", Some(moment(self.created))), ("changed", Some(moment(self.changed)))]);
                facts(&all)
            }

            fn names(&self) -> Vec<String> {
                vec![self.called()]
            }
        }
    )*};
}

shown!(
    OverlayNetworkView,
    ProviderNetworkView,
    SubnetView,
    OverlayPortView,
    SecurityGroupView,
    RouterView,
    FloatingView,
    MirrorView
);

fn name_or(name: &str, id: impl ToString) -> String {
    if name.is_empty() { id.to_string() } else { name.to_owned() }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Ovn => "ovn",
        Driver::Switch => "switch",
        Driver::Flat => "flat",
    }
}

impl Tabled for OverlayNetworkView {
    const EMPTY: &'static str = "No networks. Make one with `billet network create NAME`.";
    const HEADINGS: &'static [&'static str] = &["network", "of", "driver", "vlan", "mtu", "made"];

    fn row(&self) -> Vec<String> {
        let of_site = self.external || self.driver == Driver::Flat;
        let of = if of_site { "the site" } else { "the project" };
        let vlan = self.vlan.map(|vlan| vlan.to_string()).unwrap_or_default();
        let mtu = self.mtu.to_string();
        vec![
            self.name.clone(),
            of.to_owned(),
            driver(self.driver).to_owned(),
            vlan,
            mtu,
            moment(self.created),
        ]
    }

    fn called(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("mtu", Some(self.mtu.to_string())),
            ("of the site", Some(yes(self.external || self.driver == Driver::Flat))),
            ("driver", Some(driver(self.driver).to_owned())),
            ("vlan", self.vlan.map(|vlan| vlan.to_string())),
        ]
    }
}

impl Tabled for ProviderNetworkView {
    const EMPTY: &'static str = "No networks of the site. Make one with `billet provider create NAME WIRE`.";
    const HEADINGS: &'static [&'static str] = &["network", "wire", "driver", "vlan", "mtu", "shared"];

    fn row(&self) -> Vec<String> {
        let vlan = self.vlan.map(|vlan| vlan.to_string()).unwrap_or_default();
        let driver = driver(self.driver).to_owned();
        vec![self.name.clone(), self.physical.clone(), driver, vlan, self.mtu.to_string(), yes(self.shared)]
    }

    fn called(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("wire", some(self.physical.clone())),
            ("driver", Some(driver(self.driver).to_owned())),
            ("vlan", self.vlan.map(|vlan| vlan.to_string())),
            ("mtu", Some(self.mtu.to_string())),
            ("shared", Some(yes(self.shared))),
        ]
    }
}

impl Tabled for SubnetView {
    const EMPTY: &'static str = "No subnets. Make one with `billet subnet create NETWORK 10.0.0.0/24`.";
    const HEADINGS: &'static [&'static str] = &["subnet", "addresses", "gateway", "dhcp", "network"];

    fn row(&self) -> Vec<String> {
        let gateway = self.gateway.map(|it| it.to_string()).unwrap_or_default();
        vec![self.called(), self.cidr.clone(), gateway, yes(self.dhcp), self.network.to_string()]
    }

    fn called(&self) -> String {
        name_or(&self.name, self.id)
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("network", Some(self.network.to_string())),
            ("addresses", Some(self.cidr.clone())),
            ("gateway", self.gateway.map(|it| it.to_string())),
            ("pools", some(list(&self.pools))),
            ("reserved", some(list(&self.reserved))),
            ("dns", some(list(&self.dns))),
            ("dhcp", Some(yes(self.dhcp))),
        ]
    }
}

impl Tabled for OverlayPortView {
    const EMPTY: &'static str = "No ports. Make one with `billet port create NETWORK`.";
    const HEADINGS: &'static [&'static str] = &["port", "mac", "addresses", "server", "network"];

    fn row(&self) -> Vec<String> {
        let server = self.server.map(|server| server.to_string()).unwrap_or_default();
        let addresses = list(&self.addresses);
        vec![self.called(), self.mac.to_string(), addresses, server, self.network.to_string()]
    }

    fn called(&self) -> String {
        name_or(&self.name, self.id)
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("network", Some(self.network.to_string())),
            ("mac", Some(self.mac.to_string())),
            ("addresses", some(list(&self.addresses))),
            ("security groups", some(list(&self.security_groups))),
            ("guarded", Some(yes(self.guarded))),
            ("server", self.server.map(|server| server.to_string())),
            ("may send", self.egress_kbps.map(|kbps| format!("{kbps} kbit/s"))),
            ("may get", self.ingress_kbps.map(|kbps| format!("{kbps} kbit/s"))),
            ("sent", self.counters.as_ref().map(|of| of.from_host.words(memory))),
            ("got", self.counters.as_ref().map(|of| of.to_host.words(memory))),
            ("counted", self.counters.as_ref().map(|of| moment(of.at))),
        ]
    }
}

impl Tabled for SecurityGroupView {
    const EMPTY: &'static str = "No security groups. Make one with `billet security-group create NAME`.";
    const HEADINGS: &'static [&'static str] = &["security group", "rules", "made"];

    fn row(&self) -> Vec<String> {
        vec![self.name.clone(), self.rules.len().to_string(), moment(self.created)]
    }

    fn called(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        let rules: Vec<String> = self.rules.iter().map(words).collect();
        let rules = if rules.is_empty() { "nothing".to_owned() } else { rules.join("\n") };
        vec![("name", some(self.name.clone())), ("id", Some(self.id.to_string())), ("allows", Some(rules))]
    }
}

/// Such as `ingress v4 tcp 22 from 10.0.0.0/8`.
fn words(rule: &SecurityRule) -> String {
    let (direction, way) = match rule.direction {
        TrafficDirection::Ingress => ("ingress", "from"),
        TrafficDirection::Egress => ("egress", "to"),
    };
    let family = match rule.family {
        Some(AddressFamily::V4) => " v4",
        Some(AddressFamily::V6) => " v6",
        None => "",
    };
    let protocol = rule.protocol.as_deref().unwrap_or("any");
    let ports = rule.ports.as_ref().map(|ports| format!(" {ports}")).unwrap_or_default();
    let whom = rule.cidr.clone().or_else(|| rule.group.as_ref().map(|group| format!("group {group}")));
    let whom = whom.map(|whom| format!(" {way} {whom}")).unwrap_or_default();
    format!("{direction}{family} {protocol}{ports}{whom}")
}

impl Tabled for RouterView {
    const EMPTY: &'static str = "No routers. Make one with `billet router create NAME`.";
    const HEADINGS: &'static [&'static str] = &["router", "subnets", "way out", "made"];

    fn row(&self) -> Vec<String> {
        let out = self.gateway.as_ref().map(|out| out.address.to_string()).unwrap_or_default();
        vec![self.name.clone(), self.interfaces.len().to_string(), out, moment(self.created)]
    }

    fn called(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        let joins: Vec<String> =
            self.interfaces.iter().map(|it| format!("{} ({})", it.subnet, it.mac)).collect();
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("joins", some(joins.join("\n"))),
            ("way out", self.gateway.as_ref().map(|out| format!("{} of subnet {}", out.address, out.subnet))),
        ]
    }
}

impl Tabled for FloatingView {
    const EMPTY: &'static str = "No floating addresses. Take one with `billet floating create NETWORK`.";
    const HEADINGS: &'static [&'static str] = &["address", "name", "port", "inner"];

    fn row(&self) -> Vec<String> {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        let inner = self.inner.map(|inner| inner.to_string()).unwrap_or_default();
        vec![self.address.to_string(), self.name.clone(), port, inner]
    }

    fn called(&self) -> String {
        self.address.to_string()
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("address", Some(self.address.to_string())),
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("subnet", Some(self.subnet.to_string())),
            ("port", self.port.map(|port| port.to_string())),
            ("inner", self.inner.map(|inner| inner.to_string())),
        ]
    }
}

impl Tabled for MirrorView {
    const EMPTY: &'static str = "No mirrors.";
    const HEADINGS: &'static [&'static str] = &["mirror", "copies", "ports", "to"];

    fn row(&self) -> Vec<String> {
        vec![self.called(), copied(self.direction).to_owned(), self.ports.len().to_string(), sink(self)]
    }

    fn called(&self) -> String {
        name_or(&self.name, self.id)
    }

    fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("name", some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("copies", Some(copied(self.direction).to_owned())),
            ("ports", some(list(&self.ports))),
            ("to", Some(sink(self))),
        ]
    }
}

fn copied(direction: TrafficDirection) -> &'static str {
    match direction {
        TrafficDirection::Ingress => "what it receives",
        TrafficDirection::Egress => "what it sends",
    }
}

fn sink(mirror: &MirrorView) -> String {
    let kind = match mirror.kind {
        MirrorKind::Gre => "GRE",
        MirrorKind::Erspan => "ERSPAN",
    };
    format!("{} by {kind}, key {}", mirror.to, mirror.key)
}

impl Show for OverlayStatusView {
    fn table(&self) -> String {
        facts(&[
            ("database", Some(self.northbound.clone().unwrap_or_else(|| "none: set [overlay]".to_owned()))),
            ("as the networks are", Some(yes(self.synced))),
            ("why not", self.error.clone()),
            ("last made so", self.at.map(moment)),
            ("networks", Some(self.networks.to_string())),
            ("ports", Some(self.ports.to_string())),
            ("routers", Some(self.routers.to_string())),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.northbound.iter().cloned().collect()
    }
}
