//! Ports: their addresses, and whose machines are plugged in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::dpu::nics;
use boot_server_core::network::{
    Driver, Family, Floating, Mirror, Port, PortLimits, Seat, SecurityGroup, ipam, seats,
};
use boot_server_core::server::{Phase, Server};
use protocol::dpu::Rate;
use protocol::{MacAddr, NetworkId, PortId, ProjectId, SecurityGroupId, ServerId};
use uuid::Uuid;

use super::groups::DEFAULT;
use super::{
    Actor, Draft, Engine, EngineError, Held, OverlayError, Step, Turn, added, called, changed, line,
    optional_name, removed, row,
};
use crate::store::overlay::{Net, Plug, Row};
use crate::view::servers::ServerAddress;

/// Ports of a project.
const PORTS_MAX: usize = 50_000;
/// Addresses of a port.
const ADDRESSES_MAX: usize = 64;

/// A port to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewPort {
    /// Its name, if any.
    pub name: Option<String>,
    /// On which network.
    pub network: String,
    /// This MAC address; one of Billet's where left out.
    pub mac: Option<MacAddr>,
    /// These addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// One address of each of these subnets. Where neither is said: one of each family that the network has.
    pub subnets: Vec<String>,
    /// These security groups; `default` where left out.
    pub groups: Option<Vec<String>>,
    /// It sends with other addresses too, and has no security groups.
    pub unguarded: bool,
    /// How much it may carry.
    pub limits: PortLimits,
    /// This server's, from the beginning.
    pub server: Option<ServerId>,
    /// It goes with the server.
    pub follows: bool,
}

/// What to change of a port; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortChange {
    /// Another name.
    pub name: Option<String>,
    /// Other addresses.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// Other security groups.
    pub groups: Option<Vec<String>>,
    /// Guarded, or not.
    pub guarded: Option<bool>,
    /// How much it may carry.
    pub limits: LimitsChange,
}

/// What to change of what a port may carry; 0 takes a limit away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitsChange {
    /// Thousands of bits per second that the machine sends.
    pub egress_kbps: Option<u64>,
    /// Thousands of bits above that which it may send at once; four fifths of a second's worth where none are said (what
    /// `ovs-vswitchd.conf.db(5)` advises for TCP).
    pub egress_burst_kb: Option<u64>,
    /// Thousands of bits per second that it gets.
    pub ingress_kbps: Option<u64>,
}

impl LimitsChange {
    /// The limits after it.
    ///
    /// # Errors
    /// Where a number is above [`PortLimits::MOST`], or a burst has no rate.
    pub fn after(self, before: PortLimits) -> Result<PortLimits, OverlayError> {
        let Self { egress_kbps, egress_burst_kb, ingress_kbps } = self;
        let all = [egress_kbps, egress_burst_kb, ingress_kbps];
        if all.into_iter().flatten().any(|number| number > PortLimits::MOST) {
            return Err(OverlayError::bad(
                format!("a limit of a port is at most {} thousands of bits", PortLimits::MOST),
                "take the limit away (0) where it is not to hold",
            ));
        }
        let egress = match egress_kbps.or(before.egress.map(|rate| rate.kbps)) {
            None | Some(0) if egress_burst_kb.is_some_and(|burst| burst > 0) => {
                return Err(OverlayError::bad(
                    "a burst belongs to a rate".to_owned(),
                    "give the rate as well (egress_kbps)",
                ));
            }
            None | Some(0) => None,
            Some(kbps) => {
                let kept = before.egress.filter(|_| egress_kbps.is_none()).map(|rate| rate.burst_kb);
                let burst = egress_burst_kb.filter(|burst| *burst > 0).or(kept);
                Some(Rate { kbps, burst_kb: burst.unwrap_or((kbps.saturating_mul(4) / 5).max(BURST_MIN)) })
            }
        };
        let ingress_kbps = ingress_kbps.or(before.ingress_kbps).filter(|kbps| *kbps > 0);
        Ok(PortLimits { egress, ingress_kbps })
    }
}

/// A burst that a frame of 1,500 octets fits in twice, in thousands of bits.
const BURST_MIN: u64 = 24;

impl Engine {
    /// A port of a project, by name or id.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`].
    pub fn port(&self, project: ProjectId, reference: &str) -> Result<Arc<Row<Plug>>, EngineError> {
        self.overlay_thing(project, reference)
    }

    /// Ports that a server's machine is plugged into, oldest first.
    pub fn ports_of(&self, server: ServerId) -> Vec<Arc<Row<Plug>>> {
        self.0.overlay.known(|known| known.plugged(server))
    }

    /// Where a server is reached on its networks: each port's addresses, and behind them the floating ones that lead to it.
    pub fn addresses_on_networks(&self, server: ServerId) -> Vec<ServerAddress> {
        self.0.overlay.known(|known| {
            let mut found = Vec::new();
            for row in known.plugged(server) {
                let port = &row.value.port;
                let leads_here = |to: &(PortId, IpAddr)| to.0 == row.id;
                let floating = Floating::shelf(known).of(port.project, None).map(|row| &row.value);
                let floating = floating.filter(|value| value.to.as_ref().is_some_and(leads_here));
                let all = port.addresses.iter().copied().chain(floating.map(|value| value.address));
                found.extend(all.map(|address| ServerAddress { mac: port.mac, address }));
            }
            found
        })
    }

    /// The same as a DPU has to know them, each with its network's MTU in octets.
    pub fn overlay_ports_of_server(&self, server: ServerId) -> Vec<(PortId, Port, u16)> {
        self.0.overlay.known(|known| {
            let mtu = |network: NetworkId| Some(Net::shelf(known).get(network)?.value.network.mtu);
            let ports = known.plugged(server).into_iter();
            ports
                .filter_map(|row| Some((row.id, row.value.port.clone(), mtu(row.value.port.network)?)))
                .collect()
        })
    }

    /// Makes a port.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_port(
        &self,
        project: ProjectId,
        actor: Actor,
        wish: NewPort,
    ) -> Result<Arc<Row<Plug>>, EngineError> {
        let name = optional_name(wish.name.as_deref())?;
        let turn = self.overlay_turn().await?;
        let network = self.network_for_ports(project, &wish.network)?;
        if self.0.overlay.known(|known| Plug::shelf(known).count(project)) >= PORTS_MAX {
            return Err(OverlayError::Full { what: "ports", limit: PORTS_MAX }.into());
        }
        let id = PortId(Uuid::now_v7());
        let mac = match wish.mac {
            Some(mac) => mac,
            None => ipam::mac(id.0, &turn.macs(network.id)).map_err(OverlayError::from)?,
        };
        let addresses = self.port_addresses(&turn, project, &network, &wish)?;
        let of_ovn = network.value.network.kind.driver() == Driver::Ovn;
        let guarded = of_ovn && !wish.unguarded;
        let groups = match &wish.groups {
            Some(groups) => self.groups_named(project, groups)?,
            None if guarded => self.groups_named(project, &[DEFAULT.to_owned()])?,
            None => BTreeSet::new(),
        };
        let limits = wish.limits;
        let port =
            Port { project, network: network.id, mac, addresses, groups, guarded, chassis: None, limits };
        let plug = Plug { port, server: wish.server, follows: wish.follows, own: wish.mac, nic: None };
        let made = row(id, project, name, plug);
        let message = format!("port {} of network {} was made: {mac}", called(&made), called(&network));
        let event = line(project, &actor, "port.created", message);
        self.overlay_commit(turn, vec![added(made.clone())], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Changes a port.
    ///
    /// # Errors
    /// As for making one.
    pub async fn change_port(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        change: PortChange,
    ) -> Result<Arc<Row<Plug>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.port(project, reference)?;
        let name = match &change.name {
            Some(name) => optional_name(Some(name))?,
            None => before.name.clone(),
        };
        let mut value = before.value.clone();
        if let Some(addresses) = change.addresses {
            let mut taken = turn.taken(value.port.network);
            taken.retain(|address| !before.value.port.addresses.contains(address));
            for address in &addresses {
                exactly(&turn, value.port.network, &taken, *address)?;
            }
            value.port.addresses = addresses;
        }
        if let Some(groups) = &change.groups {
            value.port.groups = self.groups_named(project, groups)?;
        }
        value.port.guarded = change.guarded.unwrap_or(value.port.guarded);
        value.port.limits = change.limits.after(value.port.limits)?;
        if !value.port.guarded && change.groups.is_none() {
            value.port.groups.clear();
        }
        if value == before.value && name == before.name {
            return Ok(before);
        }
        let (made, step) = changed(&before, name, value);
        let event = line(project, &actor, "port.changed", format!("port {} was changed", called(&made)));
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Removes a port that no machine is plugged into. Floating addresses lead there no more, mirrors do not copy it.
    ///
    /// # Errors
    /// [`OverlayError::Used`] while a server has it.
    pub async fn delete_port(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.port(project, reference)?;
        if let Some(server) = before.value.server {
            let (what, by) =
                (format!("port {}", called(&before)), format!("server {server}; detach it first"));
            return Err(OverlayError::Used { what, by }.into());
        }
        let steps = self.port_gone(&turn, &before);
        let event = line(project, &actor, "port.removed", format!("port {} was removed", called(&before)));
        self.overlay_commit(turn, steps, Some(event)).await
    }

    /// Plugs a server's machine into a port.
    ///
    /// # Errors
    /// [`OverlayError::Used`] where another server has it, or what finding the two says.
    pub async fn attach_port(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        server: &str,
    ) -> Result<Arc<Row<Plug>>, EngineError> {
        // First the server: whether it lives must hold when the port is its own.
        let turn = self.overlay_turn().await?;
        let before = self.port(project, reference)?;
        let server = self.server(project, server).await?;
        if matches!(server.phase, Phase::Deleting | Phase::Deleted) {
            return Err(OverlayError::bad(
                format!("server {} is being given back", server.name),
                "attach the port to one that stays",
            )
            .into());
        }
        if before.value.server != Some(server.id) {
            self.check_pluggable(&before)?;
        }
        match before.value.server {
            Some(other) if other == server.id => return Ok(before),
            Some(other) => {
                let (what, by) =
                    (format!("port {}", called(&before)), format!("server {other}; detach it first"));
                return Err(OverlayError::Used { what, by }.into());
            }
            None => {}
        }
        self.check_nics(&server)?;
        let value = Plug { server: Some(server.id), ..before.value.clone() };
        let (made, step) = changed(&before, before.name.clone(), value);
        let message = format!("port {} was attached to {}", called(&made), server.name);
        let event = line(project, &actor, "port.attached", message).on(server.node);
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// A network on which the project may have ports: its own, or one of the site that is shared as it is.
    pub(in crate::engine) fn network_for_ports(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Arc<Row<Net>>, EngineError> {
        let network = self.overlay_network(project, reference)?;
        if network.project == project || network.value.network.kind.driver() == Driver::Flat {
            return Ok(network);
        }
        Err(OverlayError::bad(
            format!(
                "network {} is the site's: a project reaches it by a router, and has no ports on it",
                called(&network)
            ),
            "use a network of the project",
        )
        .into())
    }

    /// Only what ends on a DPU is plugged while a server runs: nobody would tell an OS without DHCP of another address.
    fn check_pluggable(&self, port: &Row<Plug>) -> Result<(), OverlayError> {
        let network = self.overlay_by_id::<Net>(port.value.port.network);
        match network.map(|network| network.value.network.kind.driver()) {
            Some(Driver::Switch | Driver::Flat) => Err(OverlayError::bad(
                format!(
                    "port {} is on a network without OVN: a server has such ports from its beginning to its end",
                    called(port)
                ),
                "name the network when the server is made",
            )),
            Some(Driver::Ovn) | None => Ok(()),
        }
    }

    /// Unplugs whatever is in a port.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`], or what the store says.
    pub async fn detach_port(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<Arc<Row<Plug>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.port(project, reference)?;
        if before.value.server.is_none() {
            return Ok(before);
        }
        self.check_pluggable(&before)?;
        let value = unplugged(&before, &mut turn.macs(before.value.port.network))?;
        let (made, step) = changed(&before, before.name.clone(), value);
        let event = line(project, &actor, "port.detached", format!("port {} was detached", called(&made)));
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Makes the ports of a server those of its machine: with the addresses on Ethernet that its NICs have, and on no other DPU than its
    /// own. Those that cannot be stay as they are; the last of why is said.
    ///
    /// # Errors
    /// What the store says.
    pub(in crate::engine) async fn dress_ports(
        &self,
        server: ServerId,
        chassis: &str,
        macs: &[MacAddr],
    ) -> Result<Option<OverlayError>, EngineError> {
        if dressed(&self.ports_of(server), chassis, macs).is_empty() {
            return Ok(None);
        }
        let turn = self.overlay_turn().await?;
        let values = dressed(&self.ports_of(server), chassis, macs);
        let refused = match self.dress(turn, values.clone()).await? {
            Some(refused) if values.len() == 1 => return Ok(Some(refused)),
            refused => refused,
        };
        if refused.is_none() {
            return Ok(None);
        }
        // One by one: the others are not to wait for it.
        let mut last = None;
        for (before, _) in values {
            let turn = self.overlay_turn().await?;
            let mut values = dressed(&self.ports_of(server), chassis, macs);
            values.retain(|(now, _)| now.id == before.id);
            last = self.dress(turn, values).await?.or(last);
        }
        Ok(last)
    }

    /// Gives the ports of a server without a DPU the addresses on Ethernet of its machine's NICs: one for each port, in their order. NICs
    /// may repeat, as one carries VLANs of several networks.
    ///
    /// # Errors
    /// Where they cannot be theirs, or the store fails.
    pub(in crate::engine) async fn address_ports(
        &self,
        server: ServerId,
        macs: &[MacAddr],
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let address = |(row, mac): (Arc<Row<Plug>>, &MacAddr)| {
            let port = Port { chassis: None, mac: *mac, ..row.value.port.clone() };
            let value = Plug { port, ..row.value.clone() };
            (value != row.value).then_some((row, value))
        };
        let values = self.ports_of(server).into_iter().zip(macs).filter_map(address).collect();
        match self.dress(turn, values).await? {
            Some(refused) => Err(refused.into()),
            None => Ok(()),
        }
    }

    async fn dress(
        &self,
        turn: Turn,
        values: Vec<(Arc<Row<Plug>>, Plug)>,
    ) -> Result<Option<OverlayError>, EngineError> {
        if values.is_empty() {
            return Ok(None);
        }
        let step = |(before, value): (Arc<Row<Plug>>, Plug)| changed(&before, before.name.clone(), value).1;
        match self.overlay_commit(turn, values.into_iter().map(step).collect(), None).await {
            Ok(()) => Ok(None),
            Err(EngineError::Overlay(refused)) => Ok(Some(refused)),
            Err(error) => Err(error),
        }
    }

    /// Whether a server's machine has a NIC for one more port. A DPU that has not come in has told of none.
    pub(in crate::engine) fn check_nics(&self, server: &Server) -> Result<(), OverlayError> {
        let arrived = self.dpu_of(server.node).filter(|known| known.dpu.secret.is_some());
        let Some(known) = arrived else { return Ok(()) };
        let (ports, nics) = (self.ports_of(server.id).len(), nics(&known.dpu).len());
        if ports < nics {
            return Ok(());
        }
        let what = format!("server {} has {ports} ports, and its DPU told of {nics} NICs", server.name);
        let hint =
            "detach another port first, or plan more virtual functions (`billet dpu functions set --vfs`)";
        Err(OverlayError::bad(what, hint))
    }

    /// Unplugs a server that was given back; ports that were made with it go.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release_ports(&self, server: ServerId) -> Result<(), EngineError> {
        if self.0.settings.overlay.is_none() {
            return Ok(());
        }
        // The turn first: somebody may be attaching one, who saw that it lives.
        let turn = self.overlay_turn().await?;
        let ports = self.ports_of(server);
        if ports.is_empty() {
            return Ok(());
        }
        let (mut steps, mut macs) = (Vec::new(), BTreeMap::new());
        for port in &ports {
            if port.value.follows {
                steps.extend(self.port_gone(&turn, port));
            } else {
                let network = port.value.port.network;
                let taken = macs.entry(network).or_insert_with(|| turn.macs(network));
                let value = unplugged(port, taken)?;
                steps.push(changed(port, port.name.clone(), value).1);
            }
        }
        let event = ports.first().map(|port| {
            let message = format!("ports of server {server} were detached");
            line(port.project, &Actor::Server, "port.detached", message)
        });
        self.overlay_commit(turn, steps, event).await
    }

    /// Everything that a port's end changes.
    fn port_gone(&self, draft: &Draft, port: &Row<Plug>) -> Vec<Step> {
        let mut steps = Vec::new();
        for id in draft.leading_to(port.id) {
            if let Some(floating) = self.overlay_by_id::<Floating>(id) {
                let value = Floating { to: None, ..floating.value.clone() };
                steps.push(changed(&floating, floating.name.clone(), value).1);
            }
        }
        let mirrors =
            self.overlay_things::<Mirror>(port.project, None, usize::MAX, |it| it.ports.contains(&port.id));
        for mirror in mirrors.rows {
            let mut value = mirror.value.clone();
            value.ports.remove(&port.id);
            steps.push(changed(&mirror, mirror.name.clone(), value).1);
        }
        steps.push(removed::<Plug>(port.id));
        steps
    }

    fn port_addresses(
        &self,
        draft: &Draft,
        project: ProjectId,
        network: &Row<Net>,
        wish: &NewPort,
    ) -> Result<BTreeSet<IpAddr>, EngineError> {
        if wish.addresses.len() + wish.subnets.len() > ADDRESSES_MAX {
            return Err(OverlayError::bad(
                format!("a port has at most {ADDRESSES_MAX} addresses"),
                "make another port",
            )
            .into());
        }
        let mut taken = draft.taken(network.id);
        let mut addresses = BTreeSet::new();
        for address in &wish.addresses {
            exactly(draft, network.id, &taken, *address)?;
            taken.insert(*address);
            addresses.insert(*address);
        }
        for subnet in &wish.subnets {
            let subnet = self.overlay_subnet(project, subnet)?;
            if subnet.value.network != network.id {
                let what = format!("subnet {} is not of network {}", subnet.value.cidr, called(network));
                return Err(OverlayError::bad(what, "name a subnet of the port's network").into());
            }
            let address = ipam::next(&subnet.value, &taken).map_err(OverlayError::from)?;
            taken.insert(address);
            addresses.insert(address);
        }
        if addresses.is_empty() {
            for family in [Family::V4, Family::V6] {
                addresses.extend(next_of(draft, network.id, family, &taken)?);
            }
        }
        Ok(addresses)
    }

    fn groups_named(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<BTreeSet<SecurityGroupId>, EngineError> {
        names.iter().map(|name| Ok(self.overlay_thing::<SecurityGroup>(project, name)?.id)).collect()
    }
}

/// A port that no machine is plugged into, and any may be. The address of the machine's NIC is the machine's: the next port may need it.
/// `taken` are the addresses on Ethernet of its network.
fn unplugged(port: &Row<Plug>, taken: &mut BTreeSet<MacAddr>) -> Result<Plug, OverlayError> {
    let Plug { port: before, own, .. } = &port.value;
    let mac = match own.filter(|own| *own == before.mac || !taken.contains(own)) {
        Some(own) => own,
        None if before.chassis.is_none() => before.mac,
        None => ipam::mac(port.id.0, taken)?,
    };
    taken.insert(mac);
    let unbound = Port { chassis: None, mac, ..before.clone() };
    Ok(Plug { port: unbound, server: None, follows: false, nic: None, own: *own })
}

/// Ports of a machine that are not yet as they are to be, with what they are to be. One for which there is no NIC stays as it is.
fn dressed(ports: &[Arc<Row<Plug>>], chassis: &str, macs: &[MacAddr]) -> Vec<(Arc<Row<Plug>>, Plug)> {
    let seat = |row: &Arc<Row<Plug>>| {
        let Plug { port, nic, .. } = &row.value;
        Seat { mac: port.mac, here: port.chassis.as_deref() == Some(chassis), nic: *nic }
    };
    let seated = seats(&ports.iter().map(seat).collect::<Vec<_>>(), macs);
    let dress = |(row, seat): (&Arc<Row<Plug>>, Option<usize>)| {
        let (mac, nic) = (*macs.get(seat?)?, u16::try_from(seat?).ok());
        let port = Port { chassis: Some(chassis.to_owned()), mac, ..row.value.port.clone() };
        let value = Plug { port, nic, ..row.value.clone() };
        (value != row.value).then(|| (row.clone(), value))
    };
    ports.iter().zip(seated).filter_map(dress).collect()
}

/// The next free address of a family: of the first subnet that has one; none where the network has no such subnet.
pub(super) fn next_of(
    draft: &Draft,
    network: NetworkId,
    family: Family,
    taken: &BTreeSet<IpAddr>,
) -> Result<Option<IpAddr>, OverlayError> {
    let subnets = draft.subnets_of(network).filter_map(|id| draft.site().subnets.get(&id));
    let mut full = None;
    for subnet in subnets.filter(|subnet| subnet.cidr.family() == family) {
        match ipam::next(subnet, taken) {
            Ok(address) => return Ok(Some(address)),
            Err(error) => full = full.or(Some(error)),
        }
    }
    full.map_or(Ok(None), |error| Err(error.into()))
}

/// Whether a port may have this very address.
fn exactly(
    draft: &Draft,
    network: NetworkId,
    taken: &BTreeSet<IpAddr>,
    address: IpAddr,
) -> Result<(), OverlayError> {
    let mut subnets = draft.subnets_of(network).filter_map(|id| draft.site().subnets.get(&id));
    match subnets.find(|subnet| subnet.cidr.contains(address)) {
        Some(subnet) => Ok(ipam::exactly(subnet, taken, address)?),
        None => Err(OverlayError::bad(
            format!("{address} is of no subnet of the network"),
            "ask for an address of one of its subnets",
        )),
    }
}
