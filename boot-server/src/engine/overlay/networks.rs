//! Networks and their subnets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::amounts::Amounts;
use boot_server_core::network::fabric::{free_vlan, used_vlans};
use boot_server_core::network::{
    AddressRange, Cidr, Direction, Driver, Family, MTU_MIN, Network, NetworkKind, Remote, Rule,
    SecurityGroup, Subnet, Traffic,
};
use protocol::{NetworkId, ProjectId, SecurityGroupId, SubnetId};
use uuid::Uuid;

use super::groups::DEFAULT;
use super::{
    Actor, Draft, Engine, EngineError, Held, OverlayError, Step, Turn, added, called, changed, checked_name,
    line, metered, optional_name, removed, row, unmetered,
};
use crate::engine::now;
use crate::store::overlay::{Net, Row, SITE};

/// Networks of a project.
const NETWORKS_MAX: usize = 20_000;
/// Subnets of a project.
const SUBNETS_MAX: usize = 40_000;
/// Of many that use something, so many are named.
pub(super) const NAMED_MAX: usize = 10;

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Largest packet; the site's where left out.
    pub mtu: Option<u16>,
    /// Where its frames go.
    pub kind: NetworkKind,
    /// Projects may use it; of the site alone.
    pub shared: bool,
}

/// What to change of a network; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkChange {
    /// Another name.
    pub name: Option<String>,
    /// Another MTU.
    pub mtu: Option<u16>,
    /// Projects may use it, or may not.
    pub shared: Option<bool>,
}

/// A subnet to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubnet {
    /// Its name, if any.
    pub name: Option<String>,
    /// On which network.
    pub network: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// The router's address: the first where it is not said, none where it is said that there is none.
    pub gateway: Option<Option<IpAddr>>,
    /// Of these ports get theirs.
    pub pools: Vec<AddressRange>,
    /// Never given to a port by itself.
    pub reserved: BTreeSet<IpAddr>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// OVN answers DHCP.
    pub dhcp: bool,
}

/// What to change of a subnet; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubnetChange {
    /// Another name.
    pub name: Option<String>,
    /// Other pools.
    pub pools: Option<Vec<AddressRange>>,
    /// Other reserved addresses.
    pub reserved: Option<BTreeSet<IpAddr>>,
    /// Other DNS servers.
    pub dns: Option<Vec<IpAddr>>,
    /// OVN answers DHCP, or does not.
    pub dhcp: Option<bool>,
}

impl Engine {
    /// A network that a project may see: its own, or one of the site that is shared.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`].
    pub fn overlay_network(&self, project: ProjectId, reference: &str) -> Result<Arc<Row<Net>>, EngineError> {
        let found = self.0.overlay.known(|known| {
            let shelf = Net::shelf(known);
            let of_site = || shelf.find(SITE, reference).filter(|row| row.value.shared);
            shelf.find(project, reference).or_else(of_site)
        });
        Ok(found.ok_or_else(|| OverlayError::no_such::<Net>(reference))?)
    }

    /// The site's networks that projects may use.
    pub fn shared_networks(&self) -> Vec<Arc<Row<Net>>> {
        self.overlay_things::<Net>(SITE, None, usize::MAX, |net| net.shared).rows
    }

    /// A subnet that a project may see.
    ///
    /// # Errors
    /// [`OverlayError::NoSuch`].
    pub fn overlay_subnet(
        &self,
        project: ProjectId,
        reference: &str,
    ) -> Result<Arc<Row<Subnet>>, EngineError> {
        let found = self.0.overlay.known(|known| {
            let shelf = Subnet::shelf(known);
            let shared = |row: &Arc<Row<Subnet>>| {
                Net::shelf(known).get(row.value.network).is_some_and(|network| network.value.shared)
            };
            shelf.find(project, reference).or_else(|| shelf.find(SITE, reference).filter(shared))
        });
        Ok(found.ok_or_else(|| OverlayError::no_such::<Subnet>(reference))?)
    }

    /// Makes a network. With a project's first one comes its security group `default`.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], the quota, or what the store says.
    pub async fn create_network(
        &self,
        project: ProjectId,
        actor: Actor,
        wish: NewNetwork,
    ) -> Result<Arc<Row<Net>>, EngineError> {
        let turn = self.overlay_turn().await?;
        if wish.kind.driver() == Driver::Ovn && self.overlay_settings()?.northbound.is_none() {
            return Err(OverlayError::NoOvn.into());
        }
        self.make_network(turn, project, actor, wish).await
    }

    /// Makes a network of hosts without a DPU, on the fabric of this name, or on the only one: it gets the lowest VLAN that is free there.
    ///
    /// # Errors
    /// As [`Engine::create_network`], and [`OverlayError::NoVlan`] where none is free.
    pub async fn create_switch_network(
        &self,
        project: ProjectId,
        actor: Actor,
        name: String,
        mtu: Option<u16>,
        fabric: Option<&str>,
    ) -> Result<Arc<Row<Net>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let found = self.fabric_vlans(fabric);
        let (fabric, range) = found.ok_or_else(|| OverlayError::no_fabric(fabric, self.has_switches()))?;
        let vlan = free_vlan(range, &self.vlans_used(&fabric));
        let vlan =
            vlan.ok_or_else(|| OverlayError::NoVlan { fabric: fabric.clone(), count: range.count() })?;
        let wish = NewNetwork { name, mtu, kind: NetworkKind::Vlan { fabric, vlan }, shared: false };
        self.make_network(turn, project, actor, wish).await
    }

    /// Who makes a project's network so where that is not said.
    pub fn usual_driver(&self) -> Driver {
        let has_ovn = self.0.settings.overlay.as_ref().is_some_and(|overlay| overlay.northbound.is_some());
        if has_ovn || !self.has_switches() { Driver::Ovn } else { Driver::Switch }
    }

    /// VLANs of a fabric that networks have.
    pub(in crate::engine) fn vlans_used(&self, fabric: &str) -> BTreeSet<u16> {
        self.0
            .overlay
            .known(|known| used_vlans(Net::shelf(known).all().map(|row| &row.value.network), fabric))
    }

    async fn make_network(
        &self,
        turn: Turn,
        project: ProjectId,
        actor: Actor,
        wish: NewNetwork,
    ) -> Result<Arc<Row<Net>>, EngineError> {
        let (name, at) = (checked_name(&wish.name)?, now());
        let usual = wish.kind.usual_mtu(self.overlay_settings()?.mtu);
        let mtu = wish.mtu.unwrap_or(usual);
        let (have, has_default) = self.0.overlay.known(|known| {
            (Net::shelf(known).count(project), SecurityGroup::shelf(known).find(project, DEFAULT).is_some())
        });
        if have >= NETWORKS_MAX {
            return Err(OverlayError::Full { what: "networks", limit: NETWORKS_MAX }.into());
        }
        let network = Network { project, name: name.clone(), mtu, kind: wish.kind };
        let made =
            row(NetworkId(Uuid::now_v7()), project, name.clone(), Net { network, shared: wish.shared });
        let mut steps = vec![added(made.clone())];
        if project != SITE {
            let one = Amounts { networks: 1, ..Amounts::default() };
            steps.push(metered(project, made.id.0, name.clone(), one, at));
            if !has_default {
                steps.push(default_group(project));
            }
        }
        let event = line(project, &actor, "network.created", format!("network {name} was made"));
        self.overlay_commit(turn, steps, Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Changes a network.
    ///
    /// # Errors
    /// As for making one.
    pub async fn change_network(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        change: NetworkChange,
    ) -> Result<Arc<Row<Net>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Net>(project, reference)?;
        let name = change.name.as_deref().map_or(Ok(before.name.clone()), checked_name)?;
        let mut value = before.value.clone();
        value.network.name.clone_from(&name);
        value.network.mtu = change.mtu.unwrap_or(value.network.mtu);
        value.shared = change.shared.unwrap_or(value.shared);
        if !value.shared && before.value.shared {
            self.check_unshared(&turn, &before)?;
        }
        if value == before.value && name == before.name {
            return Ok(before);
        }
        let (made, step) = changed(&before, name.clone(), value);
        let event = line(project, &actor, "network.changed", format!("network {name} was changed"));
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Removes a network with its subnets.
    ///
    /// # Errors
    /// [`OverlayError::Used`] while a port, a router or a floating address is on it.
    pub async fn remove_network(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Net>(project, reference)?;
        let what = || format!("network {}", called(&before));
        let ports: Vec<String> = turn.ports_of(before.id).map(|id| format!("port {id}")).collect();
        unused(what, ports)?;
        let subnets: Vec<SubnetId> = turn.subnets_of(before.id).collect();
        unused(what, subnets.iter().flat_map(|subnet| users_of(&turn, *subnet)).collect())?;
        let mut steps: Vec<Step> = subnets.into_iter().map(removed::<Subnet>).collect();
        steps.push(removed::<Net>(before.id));
        if project != SITE {
            steps.push(unmetered(before.id.0));
        }
        let message = format!("network {} was removed", called(&before));
        let event = line(project, &actor, "network.removed", message);
        self.overlay_commit(turn, steps, Some(event)).await
    }

    /// Makes a subnet.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_subnet(
        &self,
        project: ProjectId,
        actor: Actor,
        wish: NewSubnet,
    ) -> Result<Arc<Row<Subnet>>, EngineError> {
        let name = optional_name(wish.name.as_deref())?;
        let turn = self.overlay_turn().await?;
        let network = self.overlay_thing::<Net>(project, &wish.network)?;
        if self.0.overlay.known(|known| Subnet::shelf(known).count(project)) >= SUBNETS_MAX {
            return Err(OverlayError::Full { what: "subnets", limit: SUBNETS_MAX }.into());
        }
        let first = wish.cidr.hosts().first();
        let subnet = Subnet {
            network: network.id,
            cidr: wish.cidr,
            gateway: wish.gateway.unwrap_or(Some(first)),
            pools: wish.pools,
            reserved: wish.reserved,
            dns: wish.dns,
            // Of others than OVN's nobody answers.
            dhcp: wish.dhcp && network.value.network.kind.driver() == Driver::Ovn,
        };
        let made = row(SubnetId(Uuid::now_v7()), project, name, subnet);
        let message = format!("subnet {} of network {} was made", made.value.cidr, called(&network));
        let event = line(project, &actor, "subnet.created", message);
        self.overlay_commit(turn, vec![added(made.clone())], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Changes a subnet.
    ///
    /// # Errors
    /// As for making one.
    pub async fn change_subnet(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        change: SubnetChange,
    ) -> Result<Arc<Row<Subnet>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Subnet>(project, reference)?;
        let name = match &change.name {
            Some(name) => optional_name(Some(name))?,
            None => before.name.clone(),
        };
        let old = before.value.clone();
        let value = Subnet {
            pools: change.pools.unwrap_or(old.pools),
            reserved: change.reserved.unwrap_or(old.reserved),
            dns: change.dns.unwrap_or(old.dns),
            dhcp: change.dhcp.unwrap_or(old.dhcp) && turn.site().is_ovns(old.network),
            ..old
        };
        if value == before.value && name == before.name {
            return Ok(before);
        }
        let (made, step) = changed(&before, name, value);
        let event =
            line(project, &actor, "subnet.changed", format!("subnet {} was changed", made.value.cidr));
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Removes a subnet.
    ///
    /// # Errors
    /// [`OverlayError::Used`] while a port has an address of it, or a router or a floating address is on it.
    pub async fn remove_subnet(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Subnet>(project, reference)?;
        let what = || format!("subnet {}", before.value.cidr);
        let has = |id: &protocol::PortId| {
            let port = turn.site().ports.get(id);
            port.is_some_and(|port| port.addresses.iter().any(|it| before.value.cidr.contains(*it)))
        };
        let ports: Vec<String> =
            turn.ports_of(before.value.network).filter(has).map(|id| format!("port {id}")).collect();
        unused(what, ports)?;
        unused(what, users_of(&turn, before.id))?;
        let event =
            line(project, &actor, "subnet.removed", format!("subnet {} was removed", before.value.cidr));
        self.overlay_commit(turn, vec![removed::<Subnet>(before.id)], Some(event)).await
    }

    /// A network that projects use stays shared.
    fn check_unshared(&self, draft: &Draft, network: &Row<Net>) -> Result<(), OverlayError> {
        let users = draft.subnets_of(network.id).flat_map(|subnet| users_of(draft, subnet));
        let ports = draft.ports_of(network.id).map(|id| format!("port {id}"));
        let users = users.chain(ports).collect();
        unused(|| format!("network {}", called(network)), users)
    }
}

impl Engine {
    /// Subnets of a network, and its MTU in octets.
    pub(in crate::engine) fn subnets_and_mtu(&self, network: NetworkId) -> (Vec<Subnet>, u16) {
        self.0.overlay.known(|known| {
            let of = Subnet::shelf(known).all().filter(|row| row.value.network == network);
            let mtu = Net::shelf(known).get(network).map_or(MTU_MIN, |row| row.value.network.mtu);
            (of.map(|row| row.value.clone()).collect(), mtu)
        })
    }
}

/// Routers and floating addresses of a subnet, in words.
fn users_of(draft: &Draft, subnet: SubnetId) -> Vec<String> {
    let routers = draft.routers_of(subnet).map(|id| format!("router {id}"));
    routers.chain(draft.floating_of(subnet).map(|id| format!("floating address {id}"))).collect()
}

/// Refuses where somebody uses it.
pub(super) fn unused(what: impl Fn() -> String, users: Vec<String>) -> Result<(), OverlayError> {
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(NAMED_MAX);
    let mut by = users.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        by.push_str(&format!(" and {more} more"));
    }
    Err(OverlayError::Used { what: what(), by })
}

/// What ports get that name no group: they may send, and hear each other.
fn default_group(project: ProjectId) -> Step {
    let id = SecurityGroupId(Uuid::now_v7());
    let rules = [Family::V4, Family::V6].into_iter().flat_map(|family| {
        let rule = |direction, remote| Rule { direction, family, traffic: Traffic::Any, remote };
        [rule(Direction::Egress, Remote::Any), rule(Direction::Ingress, Remote::Group(id))]
    });
    let group = SecurityGroup { project, name: DEFAULT.to_owned(), rules: rules.collect() };
    added(row(id, project, DEFAULT.to_owned(), group))
}
