//! Networks of projects as the API shows them, and rules of security groups as it takes them, too.

use std::collections::BTreeSet;
use std::net::IpAddr;

use boot_server_core::network::{
    Cidr, Direction, Driver, Family, Floating, Mirror, NetworkKind, PortRange, Remote, Router, Rule,
    SecurityGroup, Sink, Subnet, Traffic,
};
use protocol::{
    FloatingId, MacAddr, MirrorId, NetworkId, PortId, RouterId, SecurityGroupId, ServerId, SubnetId,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::counters::PortCountersView;
use crate::engine::Engine;
use crate::engine::overlay::{OverlayError, Synced};
use crate::store::overlay::{Net, Plug, Row};

/// A network, as a project sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverlayNetworkView {
    /// Names it for ever.
    pub id: NetworkId,
    /// Names it for people.
    pub name: String,
    /// Largest packet, in octets.
    pub mtu: u16,
    /// It is the site's: routers lead there, floating addresses are of it.
    pub external: bool,
    /// Who makes it so. `ovn`: DPUs. `switch`: switches of the site, for machines without a DPU. `flat`: nobody; it is a network of the
    /// site as it is. Of the last two nobody answers DHCP, and they have no security groups, routers, floating addresses and mirrors.
    pub driver: Driver,
    /// Its VLAN, where switches make it so.
    pub vlan: Option<u16>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// A network of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderNetworkView {
    /// Names it for ever.
    pub id: NetworkId,
    /// Names it for people.
    pub name: String,
    /// Largest packet, in octets.
    pub mtu: u16,
    /// What the machines' Open vSwitch calls the wire (`ovn-bridge-mappings`); of driver `flat`, what the site calls it.
    pub physical: String,
    /// The VLAN; untagged if null.
    pub vlan: Option<u16>,
    /// Who makes it so: `ovn`, or nobody (`flat`).
    pub driver: Driver,
    /// Projects may use it.
    pub shared: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// Addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubnetView {
    /// Names it for ever.
    pub id: SubnetId,
    /// Names it for people; empty if it has no name.
    pub name: String,
    /// On which network.
    pub network: NetworkId,
    /// All of them, such as `10.0.0.0/24`.
    pub cidr: String,
    /// The router's address.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Of these ports get theirs, such as `10.0.0.10-10.0.0.99`; all if there are none.
    pub pools: Vec<String>,
    /// Never given to a port by itself.
    #[schema(value_type = Vec<String>)]
    pub reserved: BTreeSet<IpAddr>,
    /// DNS servers that ports are told.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// OVN answers DHCP.
    pub dhcp: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// A place on a network, for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverlayPortView {
    /// Names it for ever.
    pub id: PortId,
    /// Names it for people; empty if it has no name.
    pub name: String,
    /// On which network.
    pub network: NetworkId,
    /// The machine's address on Ethernet.
    pub mac: MacAddr,
    /// Its addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: BTreeSet<IpAddr>,
    /// What may reach it and what it may reach.
    pub security_groups: BTreeSet<SecurityGroupId>,
    /// It sends with its own addresses alone, and the security groups hold.
    pub guarded: bool,
    /// Thousands of bits per second that its machine may send; without limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbps: Option<u64>,
    /// Thousands of bits above that rate which it may send at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_burst_kb: Option<u64>,
    /// Thousands of bits per second that its machine may get; without limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbps: Option<u64>,
    /// The server that is plugged in.
    pub server: Option<ServerId>,
    /// What it carried, as its DPU says; left out while none has it, or where nothing was heard of it for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<PortCountersView>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// As the machine at the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrafficDirection {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

/// Which Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is allowed. Answers to it are, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityRule {
    /// To the port or from it.
    pub direction: TrafficDirection,
    /// By which Internet protocol: that of `cidr`, else both, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<AddressFamily>,
    /// `any`, `icmp`, `tcp`, `udp`, or the number of a protocol (RFC 5237); `any` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Of TCP or UDP: `22` or `8000-8099`; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// From or to whom: addresses such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// From or to whom: ports of this security group (name or id). Anybody if neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A security group with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityGroupView {
    /// Names it for ever.
    pub id: SecurityGroupId,
    /// Names it for people.
    pub name: String,
    /// What is allowed; all else is dropped.
    pub rules: Vec<SecurityRule>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterView {
    /// Names it for ever.
    pub id: RouterId,
    /// Names it for people.
    pub name: String,
    /// Subnets that it joins.
    pub interfaces: Vec<RouterInterfaceView>,
    /// Its way out.
    pub gateway: Option<RouterGatewayView>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// Where a router joins a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterInterfaceView {
    /// The subnet, whose gateway it is.
    pub subnet: SubnetId,
    /// Its address on Ethernet there.
    pub mac: MacAddr,
}

/// A router's way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterGatewayView {
    /// A provider network's subnet.
    pub subnet: SubnetId,
    /// Its own address there; machines without a floating address appear with it.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// A floating address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FloatingView {
    /// Names it for ever.
    pub id: FloatingId,
    /// Names it for people; empty if it has no name.
    pub name: String,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Of which provider network's subnet.
    pub subnet: SubnetId,
    /// The port that it leads to.
    pub port: Option<PortId>,
    /// To which of its addresses.
    #[schema(value_type = Option<String>)]
    pub inner: Option<IpAddr>,
    /// When it was taken.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// How copies travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MirrorKind {
    /// GRE (RFC 2890).
    Gre,
    /// ERSPAN.
    Erspan,
}

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorView {
    /// Names it for ever.
    pub id: MirrorId,
    /// Names it for people; empty if it has no name.
    pub name: String,
    /// What is copied.
    pub direction: TrafficDirection,
    /// Of which ports.
    pub ports: BTreeSet<PortId>,
    /// How the copies travel.
    pub kind: MirrorKind,
    /// Where they go.
    #[schema(value_type = String)]
    pub to: IpAddr,
    /// Key of GRE, or index of ERSPAN.
    pub key: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// How far OVN is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverlayStatusView {
    /// The site has networks of projects.
    pub enabled: bool,
    /// OVN's northbound database.
    pub northbound: Option<String>,
    /// It is as the networks are.
    pub synced: bool,
    /// Grows with each change of networks, from 0 at the server's start.
    pub wanted: u64,
    /// The change up to which OVN has them; null before the first time.
    pub done: Option<u64>,
    /// When it was last made so.
    pub at: Option<Timestamp>,
    /// Why it is not.
    pub error: Option<String>,
    /// Networks of all projects and of the site.
    pub networks: usize,
    /// Ports.
    pub ports: usize,
    /// Routers.
    pub routers: usize,
}

impl From<&Row<Net>> for OverlayNetworkView {
    fn from(row: &Row<Net>) -> Self {
        let Net { network, .. } = &row.value;
        let external = matches!(network.kind, NetworkKind::Provider { .. });
        Self {
            id: row.id,
            name: row.name.clone(),
            mtu: network.mtu,
            external,
            driver: network.kind.driver(),
            vlan: network.kind.vlan(),
            created: row.created,
            changed: row.changed,
        }
    }
}

impl From<&Row<Net>> for ProviderNetworkView {
    fn from(row: &Row<Net>) -> Self {
        let Net { network, shared } = &row.value;
        let (physical, vlan) = match &network.kind {
            NetworkKind::Provider { physical, vlan } => (physical.clone(), *vlan),
            NetworkKind::Flat { physical } => (physical.clone(), None),
            NetworkKind::Overlay | NetworkKind::Vlan { .. } => (String::new(), None),
        };
        Self {
            id: row.id,
            name: row.name.clone(),
            mtu: network.mtu,
            physical,
            vlan,
            driver: network.kind.driver(),
            shared: *shared,
            created: row.created,
            changed: row.changed,
        }
    }
}

impl From<&Row<Subnet>> for SubnetView {
    fn from(row: &Row<Subnet>) -> Self {
        let Subnet { network, cidr, gateway, pools, reserved, dns, dhcp } = row.value.clone();
        Self {
            id: row.id,
            name: row.name.clone(),
            network,
            cidr: cidr.to_string(),
            gateway,
            pools: pools.iter().map(ToString::to_string).collect(),
            reserved,
            dns,
            dhcp,
            created: row.created,
            changed: row.changed,
        }
    }
}

impl From<&Row<Plug>> for OverlayPortView {
    fn from(row: &Row<Plug>) -> Self {
        let Plug { port, server, .. } = row.value.clone();
        Self {
            id: row.id,
            name: row.name.clone(),
            network: port.network,
            mac: port.mac,
            addresses: port.addresses,
            security_groups: port.groups,
            guarded: port.guarded,
            egress_kbps: port.limits.egress.map(|rate| rate.kbps),
            egress_burst_kb: port.limits.egress.map(|rate| rate.burst_kb),
            ingress_kbps: port.limits.ingress_kbps,
            server,
            counters: None,
            created: row.created,
            changed: row.changed,
        }
    }
}

impl OverlayPortView {
    /// With what it carried.
    pub fn counted(engine: &Engine, row: &Row<Plug>) -> Self {
        Self { counters: engine.port_counters(row).map(Into::into), ..row.into() }
    }
}

impl From<&Row<SecurityGroup>> for SecurityGroupView {
    fn from(row: &Row<SecurityGroup>) -> Self {
        let rules = row.value.rules.iter().map(SecurityRule::from).collect();
        Self { id: row.id, name: row.name.clone(), rules, created: row.created, changed: row.changed }
    }
}

impl From<&Row<Router>> for RouterView {
    fn from(row: &Row<Router>) -> Self {
        let interfaces = row.value.interfaces.iter();
        let gateway = row.value.external.as_ref();
        Self {
            id: row.id,
            name: row.name.clone(),
            interfaces: interfaces
                .map(|(subnet, mac)| RouterInterfaceView { subnet: *subnet, mac: *mac })
                .collect(),
            gateway: gateway.map(|out| RouterGatewayView { subnet: out.subnet, address: out.address }),
            created: row.created,
            changed: row.changed,
        }
    }
}

impl From<&Row<Floating>> for FloatingView {
    fn from(row: &Row<Floating>) -> Self {
        let Floating { subnet, address, to, .. } = row.value;
        Self {
            id: row.id,
            name: row.name.clone(),
            address,
            subnet,
            port: to.map(|(port, _)| port),
            inner: to.map(|(_, inner)| inner),
            created: row.created,
            changed: row.changed,
        }
    }
}

impl From<&Row<Mirror>> for MirrorView {
    fn from(row: &Row<Mirror>) -> Self {
        let (kind, to, key) = match row.value.sink {
            Sink::Gre(to, key) => (MirrorKind::Gre, to, key),
            Sink::Erspan(to, key) => (MirrorKind::Erspan, to, key),
        };
        Self {
            id: row.id,
            name: row.name.clone(),
            direction: row.value.direction.into(),
            ports: row.value.ports.clone(),
            kind,
            to,
            key,
            created: row.created,
            changed: row.changed,
        }
    }
}

impl OverlayStatusView {
    /// Of a site whose northbound database is this.
    pub fn of(northbound: Option<String>, synced: Synced) -> Self {
        let [networks, ports, routers] = synced.counts;
        Self {
            enabled: northbound.is_some(),
            synced: northbound.is_some() && synced.is_synced(),
            northbound,
            wanted: synced.wanted,
            done: synced.done,
            at: synced.at,
            error: synced.error,
            networks,
            ports,
            routers,
        }
    }
}

impl From<Direction> for TrafficDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

impl From<TrafficDirection> for Direction {
    fn from(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Ingress => Self::Ingress,
            TrafficDirection::Egress => Self::Egress,
        }
    }
}

impl From<&Rule> for SecurityRule {
    fn from(rule: &Rule) -> Self {
        let ports = |range: PortRange| match (range.first, range.last) {
            (0 | 1, u16::MAX) => None,
            (first, last) if first == last => Some(first.to_string()),
            (first, last) => Some(format!("{first}-{last}")),
        };
        let (protocol, ports) = match rule.traffic {
            Traffic::Any => ("any".to_owned(), None),
            Traffic::Icmp => ("icmp".to_owned(), None),
            Traffic::Tcp(range) => ("tcp".to_owned(), ports(range)),
            Traffic::Udp(range) => ("udp".to_owned(), ports(range)),
            Traffic::Number(number) => (number.to_string(), None),
        };
        let (cidr, group) = match rule.remote {
            Remote::Any => (None, None),
            Remote::Net(cidr) => (Some(cidr.to_string()), None),
            Remote::Group(group) => (None, Some(group.to_string())),
        };
        let family = match rule.family {
            Family::V4 => AddressFamily::V4,
            Family::V6 => AddressFamily::V6,
        };
        let direction = rule.direction.into();
        Self { direction, family: Some(family), protocol: Some(protocol), ports, cidr, group }
    }
}

impl SecurityRule {
    /// What it says, one rule for each family; `group` finds security groups.
    ///
    /// # Errors
    /// [`OverlayError::Bad`], or what `group` says.
    pub fn rules<E: From<OverlayError>>(
        &self,
        group: impl Fn(&str) -> Result<SecurityGroupId, E>,
    ) -> Result<Vec<Rule>, E> {
        let bad = |what: String| OverlayError::bad(what, "see the guide on networks");
        let remote = match (&self.cidr, &self.group) {
            (None, None) => Remote::Any,
            (Some(cidr), None) => Remote::Net(cidr.parse::<Cidr>().map_err(|error| bad(error.to_string()))?),
            (None, Some(name)) => Remote::Group(group(name)?),
            (Some(_), Some(_)) => return Err(bad("a rule has `cidr` or `group`, not both".to_owned()).into()),
        };
        let families: &[Family] = match (self.family, remote) {
            (Some(AddressFamily::V4), _) => &[Family::V4],
            (Some(AddressFamily::V6), _) => &[Family::V6],
            (None, Remote::Net(cidr)) if cidr.family() == Family::V4 => &[Family::V4],
            (None, Remote::Net(_)) => &[Family::V6],
            (None, _) => &[Family::V4, Family::V6],
        };
        let traffic = self.traffic()?;
        let direction = self.direction.into();
        Ok(families.iter().map(|family| Rule { direction, family: *family, traffic, remote }).collect())
    }

    fn traffic(&self) -> Result<Traffic, OverlayError> {
        let bad = |what: String| OverlayError::bad(what, "see the guide on networks");
        let range = match &self.ports {
            None => PortRange { first: 1, last: u16::MAX },
            Some(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) => PortRange { first, last },
                    _ => {
                        let text: String = text.chars().take(40).collect();
                        return Err(bad(format!("`{text}` is no range of ports: 22, or 8000-8099")));
                    }
                }
            }
        };
        let traffic = match self.protocol.as_deref().unwrap_or("any") {
            "tcp" => return Ok(Traffic::Tcp(range)),
            "udp" => return Ok(Traffic::Udp(range)),
            "any" => Traffic::Any,
            "icmp" => Traffic::Icmp,
            number => Traffic::Number(number.parse().map_err(|_| {
                let number: String = number.chars().take(40).collect();
                bad(format!("`{number}` is no protocol: any, icmp, tcp, udp, or a number up to 255"))
            })?),
        };
        if self.ports.is_some() {
            return Err(bad("ports are of tcp and udp alone".to_owned()));
        }
        Ok(traffic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Vec<Rule>, OverlayError> {
        let rule: SecurityRule = serde_json::from_str(text).unwrap();
        rule.rules(|name| name.parse().map_err(|_| OverlayError::no_such::<SecurityGroup>(name)))
    }

    #[test]
    fn rules_are_read_as_they_are_shown() {
        for text in [
            r#"{"direction":"ingress","family":"v4","protocol":"tcp","ports":"22","cidr":"10.0.0.0/8"}"#,
            r#"{"direction":"egress","family":"v6","protocol":"udp","ports":"8000-8099"}"#,
            r#"{"direction":"ingress","family":"v4","protocol":"icmp"}"#,
            r#"{"direction":"ingress","family":"v6","protocol":"112","group":"00000000-0000-4000-8000-000000000000"}"#,
        ] {
            let [read] = rule(text).unwrap()[..] else { panic!("{text}") };
            assert_eq!(serde_json::to_string(&SecurityRule::from(&read)).unwrap(), text);
        }
        assert_eq!(rule(r#"{"direction":"ingress"}"#).unwrap().len(), 2, "of both families");
        assert_eq!(rule(r#"{"direction":"ingress","cidr":"fd00::/8"}"#).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_rule_is_said_in_words() {
        for (text, word) in [
            (r#"{"direction":"ingress","ports":"22"}"#, "alone"),
            (r#"{"direction":"ingress","protocol":"tcp","ports":"ssh"}"#, "range"),
            (r#"{"direction":"ingress","protocol":"300"}"#, "protocol"),
            (r#"{"direction":"ingress","cidr":"10.0.0.1/8"}"#, "network"),
            (r#"{"direction":"ingress","cidr":"10.0.0.0/8","group":"web"}"#, "not both"),
            (r#"{"direction":"ingress","group":"web"}"#, "web"),
        ] {
            let said = rule(text).unwrap_err().to_string();
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
