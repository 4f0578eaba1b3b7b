//! Routers: which subnets they join, and their way out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use boot_server_core::network::{External, Family, NetworkKind, Router, Subnet, ipam};
use protocol::{MacAddr, ProjectId, RouterId, SubnetId};
use uuid::Uuid;

use super::networks::unused;
use super::{
    Actor, Draft, Engine, EngineError, Held, OverlayError, Turn, added, called, changed, checked_name, line,
    removed, row,
};
use crate::store::overlay::{Net, Row};

/// Routers of a project.
const ROUTERS_MAX: usize = 1000;

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGateway {
    /// A provider network of the site.
    pub network: String,
    /// The router's own address there; the next free one where left out.
    pub address: Option<IpAddr>,
}

impl Engine {
    /// Makes a router that joins nothing yet.
    ///
    /// # Errors
    /// [`OverlayError`], [`EngineError::NameTaken`], or what the store says.
    pub async fn create_router(
        &self,
        project: ProjectId,
        actor: Actor,
        name: &str,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let name = checked_name(name)?;
        let turn = self.overlay_turn().await?;
        if self.0.overlay.known(|known| Router::shelf(known).count(project)) >= ROUTERS_MAX {
            return Err(OverlayError::Full { what: "routers", limit: ROUTERS_MAX }.into());
        }
        let router = Router { project, name: name.clone(), interfaces: BTreeMap::new(), external: None };
        let made = row(RouterId(Uuid::now_v7()), project, name.clone(), router);
        let event = line(project, &actor, "router.created", format!("router {name} was made"));
        self.overlay_commit(turn, vec![added(made.clone())], Some(event)).await?;
        Ok(Arc::new(made))
    }

    /// Gives a router another name.
    ///
    /// # Errors
    /// As for making one.
    pub async fn rename_router(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        name: &str,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let name = checked_name(name)?;
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let value = Router { name: name.clone(), ..before.value.clone() };
        self.put_router(turn, &actor, &before, value, format!("router {name} was renamed")).await
    }

    /// Removes a router that joins nothing.
    ///
    /// # Errors
    /// [`OverlayError::Used`] while it joins subnets, or floating addresses lead through it.
    pub async fn remove_router(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let users = before.value.interfaces.keys().map(|id| format!("subnet {id}")).collect();
        unused(|| format!("router {}", called(&before)), users)?;
        let event = line(project, &actor, "router.removed", format!("router {} was removed", before.name));
        self.overlay_commit(turn, vec![removed::<Router>(before.id)], Some(event)).await
    }

    /// Joins a subnet of the project: the router is its gateway from then on. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`OverlayError`], or what the store says.
    pub async fn join_subnet(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        subnet: &str,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let subnet = self.overlay_thing::<Subnet>(project, subnet)?;
        if before.value.interfaces.contains_key(&subnet.id) {
            return Ok(before);
        }
        let mut value = before.value.clone();
        value.interfaces.insert(subnet.id, fresh_mac(&turn, subnet.value.network)?);
        let message = format!("router {} joins subnet {}", before.name, subnet.value.cidr);
        self.put_router(turn, &actor, &before, value, message).await
    }

    /// Lets go of a subnet.
    ///
    /// # Errors
    /// Where the router does not join it, or floating addresses lead through it.
    pub async fn leave_subnet(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        subnet: &str,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let subnet = self.overlay_thing::<Subnet>(project, subnet)?;
        let mut value = before.value.clone();
        if value.interfaces.remove(&subnet.id).is_none() {
            return Err(OverlayError::no_such::<Subnet>(&called(&subnet)).into());
        }
        let message = format!("router {} leaves subnet {}", before.name, subnet.value.cidr);
        self.put_router(turn, &actor, &before, value, message).await
    }

    /// Gives a router a way out, in place of the one it had.
    ///
    /// # Errors
    /// [`OverlayError`], or what the store says.
    pub async fn set_gateway(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
        wish: NewGateway,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let chassis = self.overlay_settings()?.gateways.clone();
        if chassis.is_empty() {
            return Err(OverlayError::bad(
                "this site has no machine that carries ways out",
                "the site sets [overlay] gateways to names of chassis",
            )
            .into());
        }
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let network = self.overlay_network(project, &wish.network)?;
        let own = before.value.external.as_ref();
        let (subnet, address) = outside(&turn, &network, wish.address, own.map(|out| out.address))?;
        let mac = match own {
            Some(out) if out.subnet == subnet => out.mac,
            _ => fresh_mac(&turn, network.id)?,
        };
        let external = Some(External { subnet, address, mac, chassis });
        let value = Router { external, ..before.value.clone() };
        let message = format!("router {} leads to network {} as {address}", before.name, called(&network));
        self.put_router(turn, &actor, &before, value, message).await
    }

    /// Takes a router's way out away.
    ///
    /// # Errors
    /// Where floating addresses lead through it, or what the store says.
    pub async fn clear_gateway(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        let turn = self.overlay_turn().await?;
        let before = self.overlay_thing::<Router>(project, reference)?;
        let value = Router { external: None, ..before.value.clone() };
        let message = format!("router {} has no way out any more", before.name);
        self.put_router(turn, &actor, &before, value, message).await
    }

    async fn put_router(
        &self,
        turn: Turn,
        actor: &Actor,
        before: &Arc<Row<Router>>,
        value: Router,
        message: String,
    ) -> Result<Arc<Row<Router>>, EngineError> {
        if value == before.value {
            return Ok(before.clone());
        }
        let (made, step) = changed(before, value.name.clone(), value);
        let event = line(before.project, actor, "router.changed", message);
        self.overlay_commit(turn, vec![step], Some(event)).await?;
        Ok(Arc::new(made))
    }
}

/// A MAC address that nobody has on a network.
fn fresh_mac(draft: &Draft, network: protocol::NetworkId) -> Result<MacAddr, OverlayError> {
    // Chance: the end of a UUID of version 4.
    Ok(ipam::mac(Uuid::new_v4(), &draft.macs(network))?)
}

/// A subnet of a provider network with an address of it: this one, or the next.
pub(super) fn outside(
    draft: &Draft,
    network: &Row<Net>,
    wanted: Option<IpAddr>,
    own: Option<IpAddr>,
) -> Result<(SubnetId, IpAddr), OverlayError> {
    if !matches!(network.value.network.kind, NetworkKind::Provider { .. }) {
        let what = format!("network {} leads nowhere: it is no provider network", called(network));
        return Err(OverlayError::bad(what, "choose a network of the site (`billet network list`)"));
    }
    let mut taken = draft.taken(network.id);
    own.map(|own| taken.remove(&own));
    let subnets: Vec<(SubnetId, &Subnet)> =
        draft.subnets_of(network.id).filter_map(|id| Some((id, draft.site().subnets.get(&id)?))).collect();
    let wanted = wanted.or(own.filter(|own| subnets.iter().any(|(_, subnet)| subnet.cidr.contains(*own))));
    if let Some(address) = wanted {
        let found = subnets.iter().find(|(_, subnet)| subnet.cidr.contains(address));
        let (id, subnet) = found.ok_or_else(|| {
            OverlayError::bad(
                format!("{address} is of no subnet of network {}", called(network)),
                "ask for an address of one of its subnets",
            )
        })?;
        ipam::exactly(subnet, &taken, address)?;
        return Ok((*id, address));
    }
    let mut full = None;
    // IPv4 first: NAT and floating addresses are of it.
    for family in [Family::V4, Family::V6] {
        for (id, subnet) in subnets.iter().filter(|(_, subnet)| subnet.cidr.family() == family) {
            match ipam::next(subnet, &taken) {
                Ok(address) => return Ok((*id, address)),
                Err(error) => full = full.or(Some(error)),
            }
        }
    }
    Err(full.map_or_else(
        || {
            OverlayError::bad(
                format!("network {} has no subnet", called(network)),
                "the site makes one (`billet network subnet create`)",
            )
        },
        OverlayError::from,
    ))
}
