//! What is asked of networks, ports and what belongs to them. Unknown fields are refused.

use std::collections::BTreeSet;
use std::net::IpAddr;

use boot_server_core::network::{AddressRange, Cidr, Driver};
use protocol::MacAddr;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::view::networks::{MirrorKind, SecurityRule, TrafficDirection};

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Its name: 1 to 63 letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Largest packet, 1280 to 9216 octets; if not given, the site's, or 1500 where its driver is `switch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Who makes it so: `ovn`, for machines with a DPU, or `switch`, for machines without one; `ovn` if not given, where the site has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Of `switch`: on which fabric; the only one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<String>,
}

/// What to change of a network; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// A provider network to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderNetworkRequest {
    /// Its name.
    pub name: String,
    /// What the machines' Open vSwitch calls the wire (`ovn-bridge-mappings`); of driver `flat`, what the site calls it.
    pub physical: String,
    /// Who makes it so: `ovn`, or `flat` for a network that is there, on which machines without a DPU are as they are; `ovn` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// The VLAN, 1 to 4094; untagged if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest packet, 1280 to 9216 octets; 1500 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Projects may use it.
    #[serde(default)]
    pub shared: bool,
}

/// What to change of a provider network; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderNetworkChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Projects may use it, or may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

/// A subnet to make on a provider network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSubnetRequest {
    /// Its name, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its addresses, such as `203.0.113.0/24`.
    #[schema(value_type = String)]
    pub cidr: Cidr,
    /// The router of the wire; the first address if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Of these, routers and floating addresses get theirs, such as `203.0.113.10-203.0.113.99`; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub pools: Vec<AddressRange>,
    /// DNS servers that ports are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
}

/// A subnet to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetRequest {
    /// Its name, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On which network (name or id).
    pub network: String,
    /// Its addresses, such as `10.0.0.0/24` or `fd00::/64`.
    #[schema(value_type = String)]
    pub cidr: Cidr,
    /// The router's address; the first if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// There is no router.
    #[serde(default)]
    pub no_gateway: bool,
    /// Of these ports get theirs, such as `10.0.0.10-10.0.0.99`; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub pools: Vec<AddressRange>,
    /// Never given to a port by itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub reserved: BTreeSet<IpAddr>,
    /// DNS servers that ports are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// OVN does not answer DHCP.
    #[serde(default)]
    pub no_dhcp: bool,
}

/// What to change of a subnet; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Other pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub pools: Option<Vec<AddressRange>>,
    /// Other reserved addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub reserved: Option<BTreeSet<IpAddr>>,
    /// Other DNS servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
    /// OVN answers DHCP, or does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
}

/// A port to make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRequest {
    /// Its name, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On which network (name or id).
    pub network: String,
    /// This MAC address; one of Billet's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// These addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: BTreeSet<IpAddr>,
    /// One address of each of these subnets (name or id). With neither: one of each family that the network has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Security groups (name or id); `default` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// It sends with other addresses too, and has no security groups: for routers and firewalls.
    #[serde(default)]
    pub unguarded: bool,
    /// Thousands of bits per second that its machine may send, from 1 to 10^9; more is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbps: Option<u64>,
    /// Thousands of bits above that rate which it may send at once; four fifths of a second's worth if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_burst_kb: Option<u64>,
    /// Thousands of bits per second that its machine may get; more is queued, then dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbps: Option<u64>,
}

/// What to change of a port; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Other addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// Other security groups (name or id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Guarded, or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded: Option<bool>,
    /// Thousands of bits per second that its machine may send, from 1 to 10^9; more is dropped. 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbps: Option<u64>,
    /// Thousands of bits above that rate which it may send at once; four fifths of a second's worth if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_burst_kb: Option<u64>,
    /// Thousands of bits per second that its machine may get; more is queued, then dropped. 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbps: Option<u64>,
}

/// Whom to plug in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachPortRequest {
    /// A server of the project (name or id).
    pub server: String,
}

/// Which ports.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PortQuery {
    /// On this network (name or id).
    pub network: Option<String>,
    /// Of this server (name or id).
    pub server: Option<String>,
    /// How many, 1 to 1000; 100 if not given.
    pub limit: Option<usize>,
    /// From `next` of the page before.
    pub cursor: Option<String>,
}

/// A security group to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupRequest {
    /// Its name.
    pub name: String,
    /// What is allowed; all else is dropped.
    #[serde(default)]
    pub rules: Vec<SecurityRule>,
}

/// What to change of a security group; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All rules that are to be, in place of those that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<SecurityRule>>,
}

/// A router to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterRequest {
    /// Its name.
    pub name: String,
}

/// A way out for a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterGatewayRequest {
    /// A provider network (name or id).
    pub network: String,
    /// The router's own address there; the next free one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// A floating address to take.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingRequest {
    /// Its name, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of which provider network (name or id).
    pub network: String,
    /// This one; the next free one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// It leads to this port at once (name or id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// Where a floating address is to lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssociateRequest {
    /// A port of the project (name or id).
    pub port: String,
    /// Which of its addresses; its only one of the family if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub inner: Option<IpAddr>,
}

/// A mirror to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorRequest {
    /// Its name, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is copied.
    pub direction: TrafficDirection,
    /// Of which ports (name or id).
    pub ports: Vec<String>,
    /// How the copies travel.
    pub kind: MirrorKind,
    /// Where they go: an address that the site allows.
    #[schema(value_type = String)]
    pub to: IpAddr,
    /// Key of GRE, or index of ERSPAN, below 2^20.
    pub key: u32,
}

/// What to change of a mirror; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorChangeRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All ports that are to be copied, in place of those that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
}
