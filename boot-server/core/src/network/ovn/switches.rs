//! Networks, subnets, ports and mirrors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ovsdb::Datum;
use protocol::{NetworkId, PortId, SubnetId};

use super::{Desired, Table, Want};
use crate::network::ipam::MAC_PREFIX;
use crate::network::{Direction, Family, Network, NetworkKind, Port, Sink, Site, Subnet};

/// Who answers DHCP on Ethernet. OVN makes the frames on the machine that asks, so it can be one for all networks; no port
/// gets it, for their prefix differs in the last bit.
const SERVICE_MAC: [u8; 6] = [MAC_PREFIX[0], MAC_PREFIX[1], MAC_PREFIX[2] ^ 1, 0, 0, 1];
/// Seconds of a lease: addresses are fixed to ports, so it says only how soon a change is heard of.
const LEASE_SECONDS: u32 = 12 * 3600;

pub(super) fn rows(site: &Site, rows: &mut Desired) {
    for (id, network) in &site.networks {
        rows.put(Table::Switch, id.to_string(), Want::default().with("name", id.to_string()));
        if let NetworkKind::Provider { physical, vlan } = &network.kind {
            localnet(*id, physical, *vlan, rows);
        }
    }
    for (id, subnet) in &site.subnets {
        let network = site.networks.get(&subnet.network);
        if let Some(network) = network.filter(|_| subnet.dhcp) {
            rows.put(Table::DhcpOptions, id.to_string(), dhcp(subnet, network));
        }
    }
    let mut lent: BTreeMap<NetworkId, Vec<(SubnetId, &Subnet)>> = BTreeMap::new();
    for (id, subnet) in site.subnets.iter().filter(|(_, subnet)| subnet.dhcp) {
        lent.entry(subnet.network).or_default().push((*id, subnet));
    }
    for (id, port) in site.ports.iter().filter(|(_, port)| site.networks.contains_key(&port.network)) {
        let mut row = row_of_port(*id, port);
        // Ports with an address of such a subnet get it by DHCP; the first subnet of each family, for OVN has one place.
        for (column, family) in [("dhcpv4_options", Family::V4), ("dhcpv6_options", Family::V6)] {
            let holds = |subnet: &Subnet| port.addresses.iter().any(|address| subnet.cidr.contains(*address));
            let mut subnets = lent.get(&port.network).into_iter().flatten();
            if let Some((subnet, _)) = subnets.find(|(_, s)| s.cidr.family() == family && holds(s)) {
                row.refer(column, Table::DhcpOptions, subnet.to_string());
            }
        }
        rows.put(Table::SwitchPort, id.to_string(), row);
        rows.refer((Table::Switch, &port.network.to_string()), "ports", (Table::SwitchPort, &id.to_string()));
    }
    mirrors(site, rows);
}

/// The way of a provider network to the wire.
fn localnet(id: NetworkId, physical: &str, vlan: Option<u16>, rows: &mut Desired) {
    let key = format!("{id}/wire");
    rows.put(
        Table::SwitchPort,
        &*key,
        Want::default()
            .with("name", &*key)
            .with("type", "localnet")
            .with("addresses", "unknown")
            .with("options", Datum::map([("network_name", physical)]))
            .with("tag", Datum::set(vlan.map(i64::from))),
    );
    rows.refer((Table::Switch, &id.to_string()), "ports", (Table::SwitchPort, &key));
}

fn row_of_port(id: PortId, port: &Port) -> Want {
    let mut words = vec![port.mac.to_string()];
    words.extend(port.addresses.iter().map(IpAddr::to_string));
    let whole = words.join(" ");
    // An unguarded port may have any address behind it.
    let addresses =
        Datum::set([Some(whole.as_str()), (!port.guarded).then_some("unknown")].into_iter().flatten());
    Want::default()
        .with("name", id.to_string())
        .with("type", "")
        .with("addresses", addresses)
        .with("port_security", Datum::set(port.guarded.then_some(whole)))
        .with("options", Datum::map(port.chassis.iter().map(|name| ("requested-chassis", name.clone()))))
}

/// What OVN answers to DHCP (`ovn-nb(5)`, "DHCPv4 Options").
fn dhcp(subnet: &Subnet, network: &Network) -> Want {
    let mac = protocol::MacAddr(SERVICE_MAC).to_string();
    let list = |servers: &[IpAddr]| {
        let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
        (!servers.is_empty()).then(|| format!("{{{}}}", servers.join(", ")))
    };
    let dns = list(&subnet.dns).map(|servers| ("dns_server", servers));
    let options: Vec<(&str, String)> = match subnet.cidr.family() {
        Family::V4 => {
            let fixed = [
                ("server_id", subnet.service_address().to_string()),
                ("server_mac", mac),
                ("lease_time", LEASE_SECONDS.to_string()),
                ("mtu", network.mtu.to_string()),
            ];
            let router = subnet.gateway.map(|gateway| ("router", gateway.to_string()));
            fixed.into_iter().chain(router).chain(dns).collect()
        }
        Family::V6 => [("server_id", mac)].into_iter().chain(dns).collect(),
    };
    Want::default().with("cidr", subnet.cidr.to_string()).with("options", Datum::map(options))
}

fn mirrors(site: &Site, rows: &mut Desired) {
    for (id, mirror) in &site.mirrors {
        let (kind, sink, index) = match mirror.sink {
            Sink::Gre(to, key) => ("gre", to, key),
            Sink::Erspan(to, index) => ("erspan", to, index),
        };
        // OVN names directions as the switch sees them.
        let filter = match mirror.direction {
            Direction::Ingress => "to-lport",
            Direction::Egress => "from-lport",
        };
        rows.put(
            Table::Mirror,
            id.to_string(),
            Want::default()
                .with("name", id.to_string())
                .with("filter", filter)
                .with("sink", sink.to_string())
                .with("type", kind)
                .with("index", i64::from(index)),
        );
        for port in mirror.ports.iter().filter(|port| site.ports.contains_key(port)) {
            rows.refer(
                (Table::SwitchPort, &port.to_string()),
                "mirror_rules",
                (Table::Mirror, &id.to_string()),
            );
        }
    }
}
