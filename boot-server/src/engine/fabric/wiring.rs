//! Where NICs of hosts are, and what follows for the ports of their servers.

use std::collections::BTreeMap;

use boot_server_core::cloud_config::SeedPort;
use boot_server_core::dpu::{Side, nics, side};
use boot_server_core::network::fabric::{
    HostNic, HostPort, Member, Misplaced, PortPlace, SwitchPort, members, places,
};
use boot_server_core::network::{Driver, NetworkKind, Subnet};
use boot_server_core::node::{Cable, Node, State};
use boot_server_core::server::{Phase, Server};
use protocol::inventory::LldpNeighbour;
use protocol::{MacAddr, NetworkId, NodeId, PortId, ServerId};
use uuid::Uuid;

use super::NicCable;
use crate::engine::servers::bad;
use crate::engine::{Actor, Engine, EngineError, lock};
use crate::store::overlay::{Net, Plug, Row};

/// What a host's switch ports are to be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Wiring {
    /// Where the machine is to be.
    pub side: Side,
    /// By switch port.
    pub members: BTreeMap<SwitchPort, Member>,
    /// Whose it is.
    pub server: Option<ServerId>,
}

/// What the OS of a server without a DPU is told of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Wired {
    /// Its ports.
    pub ports: Vec<SeedPort>,
    /// A switch puts the machine on its networks.
    pub crosses: bool,
}

impl Engine {
    /// NICs of a node, and where they are, in the order of its inventory.
    ///
    /// # Errors
    /// What the store says.
    pub async fn cables(&self, node: &Node) -> Result<Vec<NicCable>, EngineError> {
        let inventory = self.inventory(node.id).await?;
        let mut found: Vec<NicCable> = Vec::new();
        for nic in inventory.iter().flat_map(|inventory| &inventory.nics) {
            let said = node.cables.get(&nic.mac).cloned();
            let heard = nic.lldp.as_ref().map(|lldp| self.heard(lldp));
            let (said, cable) = (said.is_some(), said.or(heard));
            found.push(self.nic_cable(nic.mac, cable, said));
        }
        let others = node.cables.iter().filter(|(mac, _)| !found.iter().any(|nic| nic.mac == **mac));
        let others: Vec<NicCable> =
            others.map(|(mac, cable)| self.nic_cable(*mac, Some(cable.clone()), true)).collect();
        found.extend(others);
        Ok(found)
    }

    fn nic_cable(&self, mac: MacAddr, cable: Option<Cable>, said: bool) -> NicCable {
        let managed = cable.as_ref().is_some_and(|it| self.0.fabric.switches.contains_key(&it.switch));
        NicCable { mac, cable, said, managed }
    }

    /// What LLDP told, with the name that the configuration has for the switch.
    fn heard(&self, lldp: &LldpNeighbour) -> Cable {
        let configured = |name: &&String| self.0.fabric.switches.contains_key(*name);
        let names = lldp.system_name.iter().chain([&lldp.chassis_id]);
        let switch = names.clone().find(configured).or_else(|| names.clone().next());
        Cable { switch: switch.cloned().unwrap_or_default(), port: lldp.port_id.clone() }
    }

    async fn host_nics(&self, node: &Node) -> Result<Vec<HostNic>, EngineError> {
        let cables = self.cables(node).await?.into_iter();
        let nic = |nic: NicCable| {
            let at = nic.cable.and_then(|cable| self.0.fabric.port(&cable.switch, &cable.port));
            HostNic { mac: nic.mac, at }
        };
        Ok(cables.map(nic).collect())
    }

    /// Ports of a server that do not end on a DPU, in their order.
    fn host_ports_of(&self, server: ServerId) -> Vec<(HostPort, std::sync::Arc<Row<Plug>>)> {
        let port = |row: std::sync::Arc<Row<Plug>>| {
            let network = row.value.port.network;
            let kind = self.overlay_by_id::<Net>(network)?.value.network.kind.clone();
            (kind.driver() != Driver::Ovn).then(|| (HostPort { port: row.id, network, kind }, row))
        };
        self.ports_of(server).into_iter().filter_map(port).collect()
    }

    /// True where a switch puts this server's machine on its networks.
    pub(in crate::engine) fn is_switched(&self, server: ServerId) -> bool {
        self.host_ports_of(server).iter().any(|(port, _)| port.kind.driver() == Driver::Switch)
    }

    /// Whether a machine can be on these networks; if not, why.
    pub(in crate::engine) async fn takes_networks(
        &self,
        node: NodeId,
        networks: &[NetworkId],
    ) -> Result<Result<(), String>, EngineError> {
        let kind = |id: &NetworkId| Some(self.overlay_by_id::<Net>(*id)?.value.network.kind.clone());
        let kinds: Vec<NetworkKind> = networks.iter().filter_map(kind).collect();
        if let Some(known) = self.dpu_of(node) {
            if kinds.iter().any(|kind| kind.driver() != Driver::Ovn) {
                let why = "its networks end on its DPU, and one that is asked for is not OVN's";
                return Ok(Err(why.to_owned()));
            }
            let has = nics(&known.dpu).len();
            // One that has not come in has told of none.
            if known.dpu.secret.is_some() && kinds.len() > has {
                let why = format!("{} networks are asked for, and its DPU told of {has} NICs", kinds.len());
                return Ok(Err(why));
            }
            return Ok(Ok(()));
        }
        let Some(node) = self.0.nodes.get(node) else { return Ok(Err("it is gone".to_owned())) };
        let nics = self.host_nics(&node).await?;
        let port = |kind| HostPort { port: PortId(Uuid::nil()), network: NetworkId(Uuid::nil()), kind };
        let ports: Vec<HostPort> = kinds.into_iter().map(port).collect();
        Ok(places(&nics, &ports).map(drop).map_err(|why| why.to_string()))
    }

    /// Gives a server's ports the addresses of its machine's NICs, and says what its OS is told of them.
    ///
    /// # Errors
    /// Where the machine cannot be on its networks, or what the store says.
    pub(in crate::engine) async fn wire_server(
        &self,
        server: &Server,
        node: &Node,
    ) -> Result<Wired, EngineError> {
        let ports = self.host_ports_of(server.id);
        if ports.is_empty() || self.dpu_of(node.id).is_some() {
            return Ok(Wired::default());
        }
        let nics = self.host_nics(node).await?;
        let kinds: Vec<HostPort> = ports.iter().map(|(port, _)| port.clone()).collect();
        let placed = places(&nics, &kinds).map_err(|why| misplaced(&why))?;
        let macs: Vec<MacAddr> = placed.iter().map(|place| nics[place.nic].mac).collect();
        self.address_ports(server.id, &macs).await?;
        let seeds = ports.iter().zip(&placed).zip(macs);
        let seeds = seeds.map(|(((port, row), place), mac)| self.seed_port(port, row, *place, mac));
        let crosses = kinds.iter().any(|port| port.kind.driver() == Driver::Switch);
        Ok(Wired { ports: seeds.collect(), crosses })
    }

    fn seed_port(&self, port: &HostPort, row: &Row<Plug>, place: PortPlace, mac: MacAddr) -> SeedPort {
        let (subnets, mtu) = self.subnets_and_mtu(port.network);
        let addresses = row.value.port.addresses.iter().filter_map(|address| {
            let subnet = subnets.iter().find(|subnet| subnet.cidr.contains(*address))?;
            Some((*address, subnet))
        });
        let addresses: Vec<_> = addresses.collect();
        let used: Vec<&Subnet> =
            subnets.iter().filter(|subnet| addresses.iter().any(|(_, of)| of.cidr == subnet.cidr)).collect();
        SeedPort {
            mac,
            tag: place.tag,
            mtu,
            gateways: used.iter().filter_map(|subnet| subnet.gateway).collect(),
            dns: used.iter().flat_map(|subnet| subnet.dns.iter().copied()).collect(),
            addresses: addresses.iter().map(|(address, subnet)| (*address, subnet.cidr.prefix())).collect(),
        }
    }

    /// What a host's switch ports are to be in; `None` where that is nobody's business: it is on no networks of a switch, and never was.
    pub(in crate::engine) async fn wiring(&self, node: &Node) -> Result<Option<Wiring>, EngineError> {
        if self.dpu_of(node.id).is_some() {
            return Ok(None);
        }
        let server = self.server_of(node.id).await?;
        let living =
            server.as_ref().filter(|server| !matches!(server.phase, Phase::Deleting | Phase::Deleted));
        let ports: Vec<HostPort> = match &server {
            Some(server) => self.host_ports_of(server.id).into_iter().map(|(port, _)| port).collect(),
            None => Vec::new(),
        };
        let switched = ports.iter().any(|port| port.kind.driver() == Driver::Switch);
        if !switched && !self.is_marked(node.id) {
            return Ok(None);
        }
        let away = living.is_some() && switched && (side(node) == Side::Tenant || self.crosses_now(node));
        let side = if away { Side::Tenant } else { Side::Provisioning };
        let nics = self.host_nics(node).await?;
        let placed = match places(&nics, &ports) {
            // The way back is open also where a cable is not known any more.
            Err(_) if side == Side::Provisioning => Vec::new(),
            placed => placed.map_err(|why| misplaced(&why))?,
        };
        let placed: Vec<(HostPort, PortPlace)> = ports.into_iter().zip(placed).collect();
        let mut members = members(side, &nics, &placed, |switch| self.0.fabric.provisioning(switch));
        if side == Side::Provisioning {
            for at in self.marked_ports(node.id) {
                let home = Member::Access(self.0.fabric.provisioning(&at.switch));
                members.entry(at).or_insert(home);
            }
        }
        Ok(Some(Wiring { side, members, server: server.map(|server| server.id) }))
    }

    /// Ports of switches that carry the node's id.
    fn marked_ports(&self, node: NodeId) -> Vec<SwitchPort> {
        let of = |known: &super::Known| {
            let ours = known.driver.ours().unwrap_or_default().into_iter();
            let ports = ours.filter(|(_, it)| *it == node);
            ports.filter_map(|(port, _)| self.0.fabric.port(&known.settings.name, &port)).collect::<Vec<_>>()
        };
        self.0.fabric.switches.values().flat_map(of).collect()
    }

    /// It is off, and goes over for the job that it has.
    fn crosses_now(&self, node: &Node) -> bool {
        let job = match &node.state {
            State::Deploying(run) => Some(run.job.id),
            _ => None,
        };
        job.is_some() && lock(&self.0.fabric.crossing).get(&node.id).copied() == job
    }

    /// A port of some switch carries the node's id.
    fn is_marked(&self, node: NodeId) -> bool {
        lock(&self.0.fabric.standing).contains_key(&node) || !self.marked_ports(node).is_empty()
    }

    /// Says at which port of which switch a NIC is, or leaves that to LLDP again.
    ///
    /// # Errors
    /// [`EngineError::BadQuery`] where that cannot be, or what the store says.
    pub async fn set_cable(
        &self,
        node: &Node,
        actor: Actor,
        nic: MacAddr,
        cable: Option<Cable>,
    ) -> Result<Node, EngineError> {
        let refuse = |what: String, hint| Err(EngineError::BadQuery { what, hint });
        if let Some(cable) = &cable {
            if let Err(error) = cable.check() {
                return refuse(error.to_string(), "give both as the switch has them");
            }
            if !nic.is_station() || self.0.nodes.with_mac(nic).is_none_or(|owner| owner.id != node.id) {
                let hint = "see its NICs (`billet node show`), or inspect it again";
                return refuse(format!("node {} has no NIC {nic}", node.name), hint);
            }
            if let Some(other) =
                self.0.nodes.find(|other| other.cables.iter().any(|(mac, it)| it == cable && *mac != nic))
            {
                return refuse(format!("{cable} has a NIC of node {}", other.name), "correct that one first");
            }
        }
        let lent = self.server_of(node.id).await?.filter(|server| self.is_switched(server.id));
        let now = self.cables(node).await?.into_iter().find(|it| it.mac == nic && it.managed);
        if let Some(server) = lent
            && now.is_some_and(|now| now.cable != cable)
        {
            let hint = "give the server back first: its switch ports are those of the machine's NICs";
            return refuse(format!("server {} is on its networks by this NIC", server.name), hint);
        }
        let verb = boot_server_core::node::event::Verb::Cable { nic, cable };
        self.apply(node.id, actor, boot_server_core::node::Event::Verb(verb)).await
    }
}

fn misplaced(why: &Misplaced) -> EngineError {
    bad(
        format!("its machine cannot be on its networks: {why}"),
        "see the node's NICs (`billet node cable NODE`)",
    )
    .into()
}
