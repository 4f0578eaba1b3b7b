//! Routers, their ways out, and floating addresses.

use std::net::IpAddr;

use ovsdb::Datum;
use protocol::{MacAddr, RouterId};

use super::{Desired, Table, Want};
use crate::network::{ETHERNET_MTU, External, Family, Network, NetworkKind, Router, Site, Subnet};

/// The option of a router's port (`ovn-nb(5)`): a packet that is larger than this, and comes by the port or is to leave by it, is
/// answered with "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201).
pub(super) const LARGEST: &str = "gateway_mtu";

pub(super) fn rows(site: &Site, rows: &mut Desired) {
    for (id, router) in &site.routers {
        let sizes = Sizes::of(site, router);
        rows.put(Table::Router, id.to_string(), Want::default().with("name", id.to_string()));
        for (subnet, mac) in &router.interfaces {
            let Some((within, network)) = site.subnet(*subnet) else { continue };
            let Some(gateway) = within.gateway else { continue };
            let end = End {
                key: format!("{id}/{subnet}"),
                router: *id,
                subnet: within,
                address: gateway,
                mac: *mac,
            };
            let port = match within.cidr.family() {
                Family::V4 => Want::default(),
                // Machines get their addresses by DHCPv6, and the route by advertisements.
                Family::V6 => Want::default().with(
                    "ipv6_ra_configs",
                    Datum::map([
                        ("address_mode", "dhcpv6_stateful"),
                        ("send_periodic", "true"),
                        ("mtu", &network.mtu.to_string()),
                    ]),
                ),
            };
            join(&end, limited(port, sizes.of_interface(network)), rows);
        }
        if let Some(external) = &router.external
            && let Some((outside, _)) = site.subnet(external.subnet)
        {
            let port = limited(Want::default(), sizes.of_way_out());
            way_out(site, *id, router, (external, outside), port, rows);
        }
    }
    for floating in site.floating.values() {
        let Some((port, inner)) = floating.to else { continue };
        let Some(port) = site.ports.get(&port) else { continue };
        let Some(router) = site.way_out(port, inner, floating.subnet) else { continue };
        nat(router, "dnat_and_snat", &floating.address.to_string(), &inner.to_string(), rows);
    }
}

/// Sizes of packets on a router's networks.
struct Sizes {
    /// What all of them carry.
    smallest: u16,
    /// The largest that may come.
    largest: u16,
}

impl Sizes {
    fn of(site: &Site, router: &Router) -> Self {
        let subnets = router.interfaces.keys().chain(router.external.as_ref().map(|out| &out.subnet));
        let networks: Vec<&Network> =
            subnets.filter_map(|subnet| site.subnet(*subnet)).map(|(_, network)| network).collect();
        // Machines on a wire are others', which nobody tells what we call its MTU.
        let may_come = |network: &&Network| match network.kind {
            NetworkKind::Provider { .. } => network.mtu.max(ETHERNET_MTU),
            _ => network.mtu,
        };
        Self {
            smallest: networks.iter().map(|network| network.mtu).min().unwrap_or(ETHERNET_MTU),
            largest: networks.iter().map(may_come).max().unwrap_or(ETHERNET_MTU),
        }
    }

    /// What a port says on a network of a project: nothing where no packet can be larger than the network carries, for the check is
    /// work that not all network cards do by themselves.
    fn of_interface(&self, network: &Network) -> Option<u16> {
        (network.mtu < self.largest).then_some(network.mtu)
    }

    /// What the port says on the provider's network: the smallest of all. It looks at a packet before the address is
    /// translated, the port that the packet is to leave by looks after it, and its answer has an address that the sender never
    /// wrote to.
    fn of_way_out(&self) -> Option<u16> {
        (self.smallest < self.largest).then_some(self.smallest)
    }
}

/// A router's port that says how large a packet may be.
fn limited(port: Want, largest: Option<u16>) -> Want {
    match largest {
        Some(mtu) => port.with("options", Datum::map([(LARGEST, mtu.to_string())])),
        None => port,
    }
}

/// Where a router is on a network.
struct End<'a> {
    key: String,
    router: RouterId,
    subnet: &'a Subnet,
    address: IpAddr,
    mac: MacAddr,
}

/// A router's port and the switch's at its other end.
fn join(end: &End<'_>, port: Want, rows: &mut Desired) {
    let End { key, router, subnet, address, mac } = end;
    let port = port
        .with("name", &**key)
        .with("mac", mac.to_string())
        .with("networks", format!("{address}/{}", subnet.cidr.prefix()));
    rows.put(Table::RouterPort, &**key, port);
    rows.refer((Table::Router, &router.to_string()), "ports", (Table::RouterPort, key));
    let other = format!("{key}/switch");
    let port = Want::default()
        .with("name", &*other)
        .with("type", "router")
        .with("addresses", "router")
        .with("options", Datum::map([("router-port", &**key)]));
    rows.put(Table::SwitchPort, &*other, port);
    rows.refer((Table::Switch, &subnet.network.to_string()), "ports", (Table::SwitchPort, &other));
}

fn way_out(
    site: &Site,
    id: RouterId,
    router: &Router,
    (external, outside): (&External, &Subnet),
    row: Want,
    rows: &mut Desired,
) {
    let port = format!("{id}/out");
    let (address, mac) = (external.address, external.mac);
    join(&End { key: port.clone(), router: id, subnet: outside, address, mac }, row, rows);
    // The highest carries it.
    for (priority, chassis) in (1_i64..).zip(external.chassis.iter().rev()) {
        let key = format!("{port}/{chassis}");
        let carrier =
            Want::default().with("name", &*key).with("chassis_name", &**chassis).with("priority", priority);
        rows.put(Table::GatewayChassis, &*key, carrier);
        rows.refer((Table::RouterPort, &port), "gateway_chassis", (Table::GatewayChassis, &key));
    }
    if let Some(gateway) = outside.gateway {
        let prefix = match outside.cidr.family() {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        let route = Want::default().with("ip_prefix", prefix).with("nexthop", gateway.to_string());
        rows.put(Table::Route, &*port, route);
        rows.refer((Table::Router, &id.to_string()), "static_routes", (Table::Route, &port));
    }
    let inner =
        router.interfaces.keys().filter_map(|subnet| site.subnets.get(subnet)).map(|subnet| subnet.cidr);
    for cidr in inner.filter(|cidr| cidr.family() == outside.cidr.family()) {
        nat(id, "snat", &address.to_string(), &cidr.to_string(), rows);
    }
}

fn nat(router: RouterId, kind: &str, external: &str, logical: &str, rows: &mut Desired) {
    let key = format!("{router}/{kind}/{external}/{logical}");
    rows.put(
        Table::Nat,
        &*key,
        Want::default().with("type", kind).with("external_ip", external).with("logical_ip", logical),
    );
    rows.refer((Table::Router, &router.to_string()), "nat", (Table::Nat, &key));
}
