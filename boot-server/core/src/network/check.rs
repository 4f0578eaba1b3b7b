//! What of a site cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use protocol::{MacAddr, NetworkId, SubnetId};

use super::draft::Scope;
use super::fabric::VLAN_MAX;
use super::{
    Cidr, Direction, Driver, Encap, Family, Floating, Mirror, Network, NetworkKind, Port, PortLimits,
    PortRange, Remote, Router, Rule, SecurityGroup, Sink, Site, Subnet, Traffic,
};

/// Smallest MTU: IPv6 needs it (RFC 8200 section 5).
pub const MTU_MIN: u16 = 1280;
/// Largest MTU: what wires carry.
pub const MTU_MAX: u16 = 9216;
/// MTU of Ethernet (IEEE 802.3, RFC 894): of a wire that nobody says more of.
pub const ETHERNET_MTU: u16 = 1500;
/// Pools, reserved addresses and DNS servers of a subnet.
const LIST_MAX: usize = 256;
/// Rules of a security group, and groups of a port: OVN makes flows of each with each.
const RULES_MAX: usize = 256;
/// Machines that may carry a router's way out: OVN's own practice is a handful.
const CHASSIS_MAX: usize = 16;

/// What is wrong, and with what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {why}")]
pub struct Fault {
    /// Such as `port 0190…`.
    pub subject: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

/// What is asked of each thing beside itself.
struct Surroundings<'a> {
    site: &'a Site,
    subnets: BTreeMap<NetworkId, Vec<(SubnetId, &'a Subnet)>>,
    macs: BTreeMap<NetworkId, BTreeSet<MacAddr>>,
    addresses: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
    ports: BTreeMap<NetworkId, usize>,
    joined: BTreeSet<SubnetId>,
    faults: Vec<Fault>,
}

impl Site {
    /// Everything that cannot be, in words for whoever asked for it; empty where all is well.
    pub fn check(&self) -> Vec<Fault> {
        self.check_of(&Scope::all(self))
    }

    /// The same of a part, with everybody who is on its networks.
    pub(super) fn check_of(&self, scope: &Scope) -> Vec<Fault> {
        let mut around = Surroundings {
            site: self,
            subnets: BTreeMap::new(),
            macs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            joined: BTreeSet::new(),
            faults: Vec::new(),
        };
        for (id, subnet) in of(&scope.subnets, &self.subnets) {
            around.subnets.entry(subnet.network).or_default().push((*id, subnet));
        }
        if scope.grows {
            around.encap();
        }
        for (id, network) in of(&scope.networks, &self.networks) {
            around.judge("network", id, |around, say| around.network(*id, network, say));
        }
        for (id, subnet) in of(&scope.subnets, &self.subnets) {
            around.judge("subnet", id, |around, say| around.subnet(*id, subnet, say));
        }
        for (id, group) in of(&scope.groups, &self.groups) {
            around.judge("security group", id, |around, say| around.group(group, say));
        }
        for (id, router) in of(&scope.routers, &self.routers) {
            around.judge("router", id, |around, say| around.router(router, say));
        }
        for (id, port) in of(&scope.ports, &self.ports) {
            around.judge("port", id, |around, say| around.port(port, say));
        }
        for (id, floating) in of(&scope.floating, &self.floating) {
            around.judge("floating address", id, |around, say| around.floating(floating, say));
        }
        for (id, mirror) in of(&scope.mirrors, &self.mirrors) {
            around.judge("mirror", id, |around, say| around.mirror(mirror, say));
        }
        around.full();
        around.faults
    }
}

/// Those that are there.
fn of<'a, K: Ord, V>(ids: &'a BTreeSet<K>, all: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    ids.iter().filter_map(|id| all.get_key_value(id))
}

/// Takes down what is wrong.
type Say<'a> = &'a mut dyn FnMut(String);

impl<'a> Surroundings<'a> {
    fn judge(&mut self, kind: &str, id: impl fmt::Display, judge: impl FnOnce(&mut Self, Say<'_>)) {
        let mut faults = Vec::new();
        judge(self, &mut |why| faults.push(Fault { subject: format!("{kind} {id}"), why }));
        self.faults.append(&mut faults);
    }

    /// OVN has numbers for so many networks and routers.
    fn encap(&mut self) {
        let Site { encap, networks, routers, .. } = self.site;
        let of_ovn = networks.values().filter(|network| network.kind.driver() == Driver::Ovn).count();
        let (have, max) = (of_ovn + routers.len(), encap.networks_max());
        if have > max {
            let why = format!(
                "{have} networks and routers are more than the {max} that OVN can number{}",
                vxlan(*encap)
            );
            self.faults.push(Fault { subject: "the site".to_owned(), why });
        }
    }

    /// OVN has numbers for so many ports of a network.
    fn full(&mut self) {
        let (encap, max) = (self.site.encap, self.site.encap.ports_max());
        let counted = std::mem::take(&mut self.ports).into_iter();
        for (network, have) in counted.filter(|(network, _)| self.site.is_ovns(*network)) {
            self.judge("network", network, |_, say| {
                if have > max {
                    say(format!(
                        "{have} ports are more than the {max} that OVN can number in a network{}",
                        vxlan(encap)
                    ));
                }
            });
        }
    }

    fn network(&mut self, id: NetworkId, network: &Network, say: Say<'_>) {
        if !(MTU_MIN..=MTU_MAX).contains(&network.mtu) {
            say(format!("an MTU is {MTU_MIN} to {MTU_MAX} octets, not {}", network.mtu));
        }
        let (wire, vlan) = match &network.kind {
            NetworkKind::Overlay => (None, None),
            NetworkKind::Provider { physical, vlan } => (Some(physical), *vlan),
            NetworkKind::Vlan { fabric, vlan } => (Some(fabric), Some(*vlan)),
            NetworkKind::Flat { physical } => (Some(physical), None),
        };
        if let Some(wire) = wire.filter(|wire| wire.is_empty() || wire.contains([',', ':'])) {
            say(format!("`{wire}` is no name of a wire: it is not empty and has no `,` and no `:`"));
        }
        if vlan.is_some_and(|vlan| !(1..=VLAN_MAX).contains(&vlan)) {
            say(format!("a VLAN is 1 to {VLAN_MAX}"));
        }
        if let NetworkKind::Vlan { fabric, vlan } = &network.kind {
            let others = self.site.networks.iter().filter(|(other, _)| **other < id);
            if let Some((other, _)) =
                others.into_iter().find(|(_, other)| other.kind.vlan_of(fabric) == Some(*vlan))
            {
                say(format!("network {other} has VLAN {vlan} of fabric {fabric}"));
            }
        }
    }

    fn subnet(&mut self, id: SubnetId, subnet: &Subnet, say: Say<'_>) {
        let Subnet { network, cidr, gateway, pools, reserved, dns, .. } = subnet;
        if !self.site.networks.contains_key(network) {
            say(format!("there is no network {network}"));
        }
        if cidr.hosts().count() < 2 {
            say(format!("{cidr} has no room for a gateway and a machine"));
        }
        if gateway.is_some_and(|gateway| !cidr.hosts().contains(gateway)) {
            say(format!("the gateway is no address for a machine in {cidr}"));
        }
        if [pools.len(), reserved.len(), dns.len()].into_iter().any(|n| n > LIST_MAX) {
            say(format!("at most {LIST_MAX} pools, reserved addresses and DNS servers"));
        }
        let hosts = cidr.hosts();
        for (n, pool) in pools.iter().enumerate() {
            if !hosts.contains(pool.first()) || !hosts.contains(pool.last()) {
                say(format!("the pool {pool} is not within {hosts}"));
            }
            if let Some(other) = pools.iter().take(n).find(|other| other.overlaps(pool)) {
                say(format!("the pools {other} and {pool} overlap"));
            }
        }
        if dns.iter().any(|server| Family::of(*server) != cidr.family()) {
            say(format!("DNS servers of {cidr} have addresses of its family"));
        }
        // Each pair once.
        let others = self.subnets.get(network).into_iter().flatten();
        if let Some((_, other)) = others.filter(|(other, _)| *other < id).find(|(_, o)| o.cidr.overlaps(cidr))
        {
            say(format!("{cidr} and {} are of one network and overlap", other.cidr));
        }
    }

    fn group(&mut self, group: &SecurityGroup, say: Say<'_>) {
        if group.rules.len() > RULES_MAX {
            say(format!("at most {RULES_MAX} rules"));
        }
        for Rule { family, traffic, remote, .. } in &group.rules {
            if let Traffic::Tcp(PortRange { first, last }) | Traffic::Udp(PortRange { first, last }) = traffic
                && first > last
            {
                say(format!("the ports {first} to {last}: the first is above the last"));
            }
            match remote {
                Remote::Net(cidr) if cidr.family() != *family => {
                    say(format!("{cidr} is not of the rule's family"));
                }
                Remote::Group(other)
                    if self.site.groups.get(other).is_none_or(|o| o.project != group.project) =>
                {
                    say(format!("the project has no security group {other}"));
                }
                _ => {}
            }
        }
    }

    fn router(&mut self, router: &Router, say: Say<'_>) {
        let mut nets: Vec<Cidr> = Vec::new();
        for (id, mac) in &router.interfaces {
            let Some((subnet, _)) =
                self.site.subnet(*id).filter(|(_, network)| network.project == router.project)
            else {
                say(format!("the project has no subnet {id}"));
                continue;
            };
            if !self.site.is_ovns(subnet.network) {
                say(format!(
                    "subnet {id} is of a network that OVN does not carry: the site's own router is its gateway"
                ));
                continue;
            }
            match subnet.gateway {
                Some(gateway) => self.place(subnet.network, *mac, [gateway], say),
                None => say(format!("subnet {id} has no gateway for the router to be")),
            }
            if !self.joined.insert(*id) {
                say(format!("subnet {id} is joined to a router already"));
            }
            if let Some(other) = nets.iter().find(|other| other.overlaps(&subnet.cidr)) {
                say(format!("{other} and {} overlap: a router cannot tell them apart", subnet.cidr));
            }
            nets.push(subnet.cidr);
        }
        let Some(external) = &router.external else { return };
        if external.chassis.is_empty() || external.chassis.len() > CHASSIS_MAX {
            say(format!("a way out needs 1 to {CHASSIS_MAX} machines that may carry it"));
        }
        let Some(subnet) = self.provider(external.subnet, external.address, say) else { return };
        if subnet.gateway.is_none() {
            say(format!("subnet {} has no gateway to send to", external.subnet));
        }
        if let Some(inner) = nets.iter().find(|inner| inner.overlaps(&subnet.cidr)) {
            say(format!("{inner} and the provider's {} overlap", subnet.cidr));
        }
        self.place(subnet.network, external.mac, [external.address], say);
    }

    /// The subnet of a provider network, where this is an address of it.
    fn provider(&self, id: SubnetId, address: IpAddr, say: Say<'_>) -> Option<&'a Subnet> {
        let provider =
            self.site.subnet(id).filter(|(_, network)| matches!(network.kind, NetworkKind::Provider { .. }));
        let Some((subnet, _)) = provider else {
            say(format!("there is no subnet {id} of a provider network"));
            return None;
        };
        if !subnet.cidr.hosts().contains(address) || subnet.gateway == Some(address) {
            say(format!("{address} is no address for a router in {}", subnet.cidr));
        }
        Some(subnet)
    }

    fn port(&mut self, port: &Port, say: Say<'_>) {
        let Some(network) = self.site.networks.get(&port.network) else {
            return say(format!("there is no network {}", port.network));
        };
        let driver = network.kind.driver();
        if network.project != port.project && driver != Driver::Flat {
            say(format!("the project has no network {}", port.network));
        }
        if driver != Driver::Ovn && (port.guarded || !port.groups.is_empty()) {
            say("no security group holds on a network without OVN, and nobody guards its ports".to_owned());
        }
        if driver != Driver::Ovn && port.limits != PortLimits::default() {
            say("nobody limits what a port on a network without OVN carries".to_owned());
        }
        for address in &port.addresses {
            let mut subnets = self.subnets.get(&port.network).into_iter().flatten();
            match subnets.find(|(_, subnet)| subnet.cidr.hosts().contains(*address)) {
                None => say(format!("{address} is of no subnet of network {}", port.network)),
                Some((id, subnet)) if subnet.service_address() == *address => {
                    say(format!("{address} is the gateway of subnet {id}, or answers its DHCP"));
                }
                Some(_) => {}
            }
        }
        if port.groups.len() > RULES_MAX {
            say(format!("at most {RULES_MAX} security groups"));
        }
        if !port.guarded && !port.groups.is_empty() {
            say("security groups hold on guarded ports alone: guard it, or take the groups away".to_owned());
        }
        for group in &port.groups {
            if self.site.groups.get(group).is_none_or(|group| group.project != port.project) {
                say(format!("the project has no security group {group}"));
            }
        }
        self.place(port.network, port.mac, port.addresses.iter().copied(), say);
    }

    /// Puts somebody on a network: nobody else there has the MAC address or the addresses.
    fn place(
        &mut self,
        network: NetworkId,
        mac: MacAddr,
        addresses: impl IntoIterator<Item = IpAddr>,
        say: Say<'_>,
    ) {
        *self.ports.entry(network).or_default() += 1;
        if !mac.is_station() {
            say(format!("{mac} is no address of a station"));
        } else if !self.macs.entry(network).or_default().insert(mac) {
            say(format!("{mac} is on network {network} already"));
        }
        let taken = self.addresses.entry(network).or_default();
        for address in addresses {
            if !taken.insert(address) {
                say(format!("{address} is taken on network {network}"));
            }
        }
    }

    fn floating(&mut self, floating: &Floating, say: Say<'_>) {
        let Some(outside) = self.provider(floating.subnet, floating.address, say) else { return };
        if !self.addresses.entry(outside.network).or_default().insert(floating.address) {
            say(format!("{} is taken on network {}", floating.address, outside.network));
        }
        let Some((port, inner)) = floating.to else { return };
        let Some(port) = self.site.ports.get(&port).filter(|port| port.project == floating.project) else {
            return say(format!("the project has no port {port}"));
        };
        if !port.addresses.contains(&inner) {
            say(format!("the port does not have {inner}"));
        } else if Family::of(inner) != Family::of(floating.address) {
            say(format!("{inner} and {} are of two families", floating.address));
        } else if self.site.way_out(port, inner, floating.subnet).is_none() {
            say(format!("no router leads from {inner} to the provider's {}", outside.cidr));
        }
    }

    fn mirror(&mut self, mirror: &Mirror, say: Say<'_>) {
        for id in &mirror.ports {
            match self.site.ports.get(id).filter(|port| port.project == mirror.project) {
                None => say(format!("the project has no port {id}")),
                Some(port) if !self.site.is_ovns(port.network) => {
                    say(format!("port {id} is on a network without OVN: nobody can copy what it sends"));
                }
                Some(_) => {}
            }
        }
        if matches!(mirror.sink, Sink::Erspan(_, index) if index >= 1 << 20) {
            say("an index of ERSPAN is below 1048576".to_owned());
        }
        let many = |direction: Direction| {
            let mirrors = self.site.mirrors.values().filter(|other| other.direction == direction);
            mirrors.filter(|other| other.sink == mirror.sink).count() > 1
        };
        if many(mirror.direction) {
            say("another mirror of this direction has the same sink: one mirror has many ports".to_owned());
        }
    }
}

fn vxlan(encap: Encap) -> &'static str {
    match encap {
        Encap::Geneve => "",
        Encap::Vxlan => " with VXLAN; with Geneve there is room",
    }
}
