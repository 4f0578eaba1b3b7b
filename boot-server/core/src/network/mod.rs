//! Networks of projects, as in Neutron: networks, subnets, ports, security groups, routers, floating addresses, mirrors.
//!
//! ```text
//!   project ─┬─ network ─── subnet ───────────── router ─── provider network ─── the site's wires
//!            │     └── port (MAC, addresses) ◀── floating address ──┘
//!            └─ security group ──▶ port
//! ```
//!
//! [`Site`] is all of it at one moment, [`Site::check`] says what of it cannot be, [`ipam`] gives out addresses, [`ovn`] says
//! what OVN is to be told. Two projects may use the same addresses: nothing here compares addresses of two networks, unless a
//! router joins them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::dpu::Rate;
use protocol::{
    FloatingId, MacAddr, MirrorId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId,
};
use serde::{Deserialize, Serialize};

mod check;
mod cidr;
mod draft;
pub mod fabric;
pub mod ipam;
mod nics;
pub mod ovn;
pub mod switch;
#[cfg(test)]
mod tests;

pub use check::{ETHERNET_MTU, Fault, MTU_MAX, MTU_MIN};
pub use cidr::{AddressRange, Cidr, CidrError, Family};
pub use draft::{Change, Draft};
pub use nics::{Seat, seats};

/// Everything of one site at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// How frames travel between machines.
    pub encap: Encap,
    /// Networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Subnets.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// Ports.
    pub ports: BTreeMap<PortId, Port>,
    /// Security groups.
    pub groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    /// Routers.
    pub routers: BTreeMap<RouterId, Router>,
    /// Floating addresses.
    pub floating: BTreeMap<FloatingId, Floating>,
    /// Mirrors.
    pub mirrors: BTreeMap<MirrorId, Mirror>,
}

impl Site {
    /// What of it is OVN's.
    #[must_use]
    pub fn of_ovn(mut self) -> Self {
        self.networks.retain(|_, network| network.kind.driver() == Driver::Ovn);
        self.subnets.retain(|_, subnet| self.networks.contains_key(&subnet.network));
        self.ports.retain(|_, port| self.networks.contains_key(&port.network));
        self
    }

    /// True where OVN carries the network.
    pub fn is_ovns(&self, network: NetworkId) -> bool {
        self.networks.get(&network).is_some_and(|network| network.kind.driver() == Driver::Ovn)
    }

    /// A subnet with its network.
    fn subnet(&self, id: SubnetId) -> Option<(&Subnet, &Network)> {
        let subnet = self.subnets.get(&id)?;
        Some((subnet, self.networks.get(&subnet.network)?))
    }

    /// The router that leads from an address of a port to a subnet of a provider network.
    fn way_out(&self, port: &Port, inner: IpAddr, outside: SubnetId) -> Option<RouterId> {
        let holds = |id: &SubnetId| {
            self.subnets.get(id).is_some_and(|s| s.network == port.network && s.cidr.contains(inner))
        };
        let leads = |router: &Router| {
            router.external.as_ref().is_some_and(|out| out.subnet == outside)
                && router.interfaces.keys().any(holds)
        };
        self.routers.iter().find(|(_, router)| leads(router)).map(|(id, _)| *id)
    }
}

/// How frames of overlay networks travel. It is one for the whole site: OVN numbers its networks by the poorest that any of
/// its machines uses (`ovn-architecture(7)`, "Tunnel Encapsulations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encap {
    /// Geneve (RFC 8926): 24 bits of network, 15 of port.
    #[default]
    Geneve,
    /// VXLAN (RFC 7348), whose 24 bits OVN shares out: 12 of network, 12 of port, half of which are multicast groups.
    Vxlan,
}

impl Encap {
    /// Most networks and routers together: OVN numbers both.
    pub fn networks_max(self) -> usize {
        match self {
            // OVN_MAX_DP_KEY, less the keys above 16,711,680 that it keeps for networks between regions.
            Self::Geneve => (1 << 24) - (1 << 16) - 1,
            Self::Vxlan => (1 << 12) - 1,
        }
    }

    /// Most ports of one network, those of routers included.
    pub fn ports_max(self) -> usize {
        match self {
            Self::Geneve => (1 << 15) - 1,
            Self::Vxlan => (1 << 11) - 1,
        }
    }

    /// Octets that it adds to a frame, over IPv4: the underlay's MTU is at least the network's and this.
    pub fn overhead(self) -> u16 {
        match self {
            // Ethernet 14, IPv4 20, UDP 8, Geneve 8 and OVN's option 8.
            Self::Geneve => 58,
            Self::Vxlan => 50,
        }
    }
}

/// A segment of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whose it is.
    pub project: ProjectId,
    /// For people.
    pub name: String,
    /// Largest IP packet, in octets, [`check::MTU_MIN`] to [`check::MTU_MAX`].
    pub mtu: u16,
    /// Where its frames go.
    pub kind: NetworkKind,
}

/// Where frames of a network go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Through tunnels between machines.
    Overlay,
    /// To the site's own wires. Floating addresses are of such a network.
    Provider {
        /// What the machines' Open vSwitch calls the wire (`ovn-bridge-mappings`).
        physical: String,
        /// The VLAN, 1 to 4,094; untagged for `None`.
        vlan: Option<u16>,
    },
    /// To hosts without a DPU, through a VLAN of the site's switches.
    Vlan {
        /// The switches whose trunks carry it.
        fabric: String,
        /// The VLAN, 1 to 4,094, which no other network of the fabric has.
        vlan: u16,
    },
    /// To hosts without a DPU, through a network of the site that is there, as it is.
    Flat {
        /// What the site calls it.
        physical: String,
    },
}

/// Who makes a network so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = NetworkDriver))]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// OVN, on DPUs.
    Ovn,
    /// Switches of the site, by a VLAN for each network.
    Switch,
    /// Nobody: the wire is as it is.
    Flat,
}

impl NetworkKind {
    /// Who makes it so.
    pub fn driver(&self) -> Driver {
        match self {
            Self::Overlay | Self::Provider { .. } => Driver::Ovn,
            Self::Vlan { .. } => Driver::Switch,
            Self::Flat { .. } => Driver::Flat,
        }
    }

    /// The MTU of a network that says none: `overlay` in tunnels, Ethernet's on wires of the site.
    pub fn usual_mtu(&self, overlay: u16) -> u16 {
        match self {
            Self::Overlay => overlay,
            Self::Provider { .. } | Self::Vlan { .. } | Self::Flat { .. } => ETHERNET_MTU,
        }
    }

    /// Its VLAN on switches of the site.
    pub fn vlan(&self) -> Option<u16> {
        match self {
            Self::Vlan { vlan, .. } => Some(*vlan),
            _ => None,
        }
    }

    /// The same where it is of this fabric.
    pub fn vlan_of(&self, of: &str) -> Option<u16> {
        match self {
            Self::Vlan { fabric, vlan } if fabric == of => Some(*vlan),
            _ => None,
        }
    }
}

/// Addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Whose addresses.
    pub network: NetworkId,
    /// All of them.
    pub cidr: Cidr,
    /// The address of the router; a subnet without one cannot be joined to others.
    pub gateway: Option<IpAddr>,
    /// Of these, ports get theirs; the whole subnet where there are none.
    pub pools: Vec<AddressRange>,
    /// Never given to a port by itself.
    pub reserved: BTreeSet<IpAddr>,
    /// DNS servers that ports are told.
    pub dns: Vec<IpAddr>,
    /// OVN answers DHCP. Off where ports are configured by other means.
    pub dhcp: bool,
}

impl Subnet {
    /// The address that DHCP answers come from: the gateway's, else the first. It is nobody else's.
    pub fn service_address(&self) -> IpAddr {
        self.gateway.unwrap_or(self.cidr.hosts().first())
    }
}

/// A place on a network, for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Whose it is.
    pub project: ProjectId,
    /// Where.
    pub network: NetworkId,
    /// The machine's address on Ethernet.
    pub mac: MacAddr,
    /// Its addresses, each of a subnet of the network.
    pub addresses: BTreeSet<IpAddr>,
    /// What may reach it and what it may reach; without any group, a guarded port hears nothing but DHCP.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Frames with another source than `mac` and `addresses` are dropped, and the security groups hold. Off for routers
    /// and firewalls of tenants.
    pub guarded: bool,
    /// The one machine (OVN's name of its chassis) that may carry it: whoever else plugs it in gets nothing. Any, where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chassis: Option<String>,
    /// How much it may carry. Its DPU holds to it; OVN is not told.
    #[serde(default, skip_serializing_if = "PortLimits::are_none")]
    pub limits: PortLimits,
}

/// How much a port may carry, as its machine sees it: egress is what it sends, as in the rules of security groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortLimits {
    /// What the machine sends; more is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
    /// What the machine gets, in thousands of bits per second; more is queued, then dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbps: Option<u64>,
}

impl PortLimits {
    /// Thousands of bits per second, and of a burst, are at most so many: 1 Tbit/s.
    pub const MOST: u64 = 1_000_000_000;

    /// It may carry whatever comes.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules for ports; what no rule allows is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Whose it is.
    pub project: ProjectId,
    /// For people.
    pub name: String,
    /// What is allowed. Answers to what is allowed are, too.
    pub rules: BTreeSet<Rule>,
}

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// To the port or from it.
    pub direction: Direction,
    /// By which Internet protocol.
    pub family: Family,
    /// What it carries.
    pub traffic: Traffic,
    /// From or to whom.
    pub remote: Remote,
}

/// As the machine at the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Anything.
    Any,
    /// ICMP of the rule's family.
    Icmp,
    /// TCP to these ports.
    Tcp(PortRange),
    /// UDP to these ports.
    Udp(PortRange),
    /// A protocol by its number (RFC 5237).
    Number(u8),
}

/// Ports of TCP or UDP, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    Any,
    /// Whoever has an address of these.
    Net(Cidr),
    /// Ports of this group.
    Group(SecurityGroupId),
}

/// Joins subnets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Whose it is.
    pub project: ProjectId,
    /// For people.
    pub name: String,
    /// The subnets, whose gateway it is, with its address on Ethernet there.
    pub interfaces: BTreeMap<SubnetId, MacAddr>,
    /// The way out.
    pub external: Option<External>,
}

/// A router's way to a provider network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// A provider network's subnet, with a gateway.
    pub subnet: SubnetId,
    /// The router's own address there; machines without a floating address appear with it.
    pub address: IpAddr,
    /// On Ethernet there.
    pub mac: MacAddr,
    /// Machines that may carry it (OVN's names of chassis), the best first.
    pub chassis: Vec<String>,
}

/// An address of a provider network that leads to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floating {
    /// Whose it is.
    pub project: ProjectId,
    /// The provider network's subnet.
    pub subnet: SubnetId,
    /// The address.
    pub address: IpAddr,
    /// The port and which of its addresses; `None` while it leads nowhere.
    pub to: Option<(PortId, IpAddr)>,
}

/// A copy of what a port sends or receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Whose it is.
    pub project: ProjectId,
    /// What is copied: OVN's own limit is that a mirror has one direction.
    pub direction: Direction,
    /// Of which ports.
    pub ports: BTreeSet<PortId>,
    /// Where the copies go.
    pub sink: Sink,
}

/// Where copies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sink {
    /// By GRE to this address of the underlay, with this key.
    Gre(IpAddr, u32),
    /// By ERSPAN to this address of the underlay, with this index, below 2^20.
    Erspan(IpAddr, u32),
}
