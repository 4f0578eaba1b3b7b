//! Routers, their ways out, and floating addresses.

use std::net::IpAddr;

use ovsdb::Datum;
use protocol::{MacAddr, RouterId};

use super::{Desired, Table, Want};
use crate::network::{External, Family, Router, Site, Subnet};

pub(super) fn rows(site: &Site, rows: &mut Desired) {
    for (id, router) in &site.routers {
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
            join(&end, port, rows);
        }
        if let Some(external) = &router.external
            && let Some((outside, _)) = site.subnet(external.subnet)
        {
            way_out(site, *id, router, external, outside, rows);
        }
    }
    for floating in site.floating.values() {
        let Some((port, inner)) = floating.to else { continue };
        let Some(port) = site.ports.get(&port) else { continue };
        let Some(router) = site.way_out(port, inner, floating.subnet) else { continue };
        nat(router, "dnat_and_snat", &floating.address.to_string(), &inner.to_string(), rows);
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
    external: &External,
    outside: &Subnet,
    rows: &mut Desired,
) {
    let port = format!("{id}/out");
    let (address, mac) = (external.address, external.mac);
    join(&End { key: port.clone(), router: id, subnet: outside, address, mac }, Want::default(), rows);
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
