//! A site on which changes are tried: what each of them touches is judged, and nothing else, so that one among ten thousand networks
//! costs no more than one among ten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::{FloatingId, MacAddr, MirrorId, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId};

use super::{Fault, Floating, Mirror, Network, Port, Router, SecurityGroup, Site, Subnet};

/// What one thing is to be; `None` where it is to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A network.
    Network(NetworkId, Option<Network>),
    /// A subnet.
    Subnet(SubnetId, Option<Subnet>),
    /// A port.
    Port(PortId, Option<Port>),
    /// A security group.
    Group(SecurityGroupId, Option<SecurityGroup>),
    /// A router.
    Router(RouterId, Option<Router>),
    /// A floating address.
    Floating(FloatingId, Option<Floating>),
    /// A mirror.
    Mirror(MirrorId, Option<Mirror>),
}

/// A site, and who in it names whom.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    site: Site,
    subnets: Links<NetworkId, SubnetId>,
    ports: Links<NetworkId, PortId>,
    routers: Links<SubnetId, RouterId>,
    floating: Links<SubnetId, FloatingId>,
    leads: Links<PortId, FloatingId>,
    members: Links<SecurityGroupId, PortId>,
}

impl Draft {
    /// Of what is there.
    pub fn new(site: Site) -> Self {
        let mut draft = Self { site: Site { encap: site.encap, ..Site::default() }, ..Self::default() };
        let Site { encap: _, networks, subnets, ports, groups, routers, floating, mirrors } = site;
        for change in networks.into_iter().map(|(id, it)| Change::Network(id, Some(it))) {
            draft.put(change);
        }
        for change in subnets.into_iter().map(|(id, it)| Change::Subnet(id, Some(it))) {
            draft.put(change);
        }
        for change in ports.into_iter().map(|(id, it)| Change::Port(id, Some(it))) {
            draft.put(change);
        }
        for change in groups.into_iter().map(|(id, it)| Change::Group(id, Some(it))) {
            draft.put(change);
        }
        for change in routers.into_iter().map(|(id, it)| Change::Router(id, Some(it))) {
            draft.put(change);
        }
        for change in floating.into_iter().map(|(id, it)| Change::Floating(id, Some(it))) {
            draft.put(change);
        }
        for change in mirrors.into_iter().map(|(id, it)| Change::Mirror(id, Some(it))) {
            draft.put(change);
        }
        draft
    }

    /// As it is now.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Makes changes, together. What comes back undoes them, in its order.
    ///
    /// # Errors
    /// What cannot be; nothing is changed then.
    pub fn try_apply(&mut self, changes: Vec<Change>) -> Result<Vec<Change>, Vec<Fault>> {
        let mut scope = Scope::default();
        let mut undo = Vec::with_capacity(changes.len());
        for change in changes {
            scope.grows |= matches!(change, Change::Network(_, Some(_)) | Change::Router(_, Some(_)));
            scope.touch(self, &change);
            let before = self.put(change);
            scope.touch(self, &before);
            undo.push(before);
        }
        undo.reverse();
        // What hangs on things that were touched may have come with a later change.
        let networks = scope.networks.clone();
        networks.iter().for_each(|network| scope.network(self, *network));
        let faults = self.site.check_of(&scope);
        if faults.is_empty() {
            return Ok(undo);
        }
        self.undo(undo);
        Err(faults)
    }

    /// Takes changes back.
    pub fn undo(&mut self, undo: Vec<Change>) {
        for change in undo {
            self.put(change);
        }
    }

    /// Subnets of a network.
    pub fn subnets_of(&self, network: NetworkId) -> impl Iterator<Item = SubnetId> {
        self.subnets.of(network)
    }

    /// Ports of a network.
    pub fn ports_of(&self, network: NetworkId) -> impl Iterator<Item = PortId> {
        self.ports.of(network)
    }

    /// Routers that a subnet is joined to, or whose way out leads there.
    pub fn routers_of(&self, subnet: SubnetId) -> impl Iterator<Item = RouterId> {
        self.routers.of(subnet)
    }

    /// Floating addresses of a provider network's subnet.
    pub fn floating_of(&self, subnet: SubnetId) -> impl Iterator<Item = FloatingId> {
        self.floating.of(subnet)
    }

    /// Floating addresses that lead to a port.
    pub fn leading_to(&self, port: PortId) -> impl Iterator<Item = FloatingId> {
        self.leads.of(port)
    }

    /// Ports with a security group.
    pub fn members_of(&self, group: SecurityGroupId) -> impl Iterator<Item = PortId> {
        self.members.of(group)
    }

    /// Addresses of a network that somebody has.
    pub fn taken(&self, network: NetworkId) -> BTreeSet<IpAddr> {
        let ports = self.ports.of(network).filter_map(|id| self.site.ports.get(&id));
        let mut taken: BTreeSet<IpAddr> = ports.flat_map(|port| port.addresses.iter().copied()).collect();
        for subnet in self.subnets.of(network) {
            let routers = self.routers.of(subnet).filter_map(|id| self.site.routers.get(&id));
            let outside = routers.filter_map(|router| router.external.as_ref());
            taken.extend(outside.filter(|out| out.subnet == subnet).map(|out| out.address));
            let floating = self.floating.of(subnet).filter_map(|id| self.site.floating.get(&id));
            taken.extend(floating.map(|floating| floating.address));
        }
        taken
    }

    /// MAC addresses on a network.
    pub fn macs(&self, network: NetworkId) -> BTreeSet<MacAddr> {
        let ports = self.ports.of(network).filter_map(|id| self.site.ports.get(&id));
        let mut macs: BTreeSet<MacAddr> = ports.map(|port| port.mac).collect();
        for subnet in self.subnets.of(network) {
            for router in self.routers.of(subnet).filter_map(|id| self.site.routers.get(&id)) {
                macs.extend(router.interfaces.get(&subnet));
                macs.extend(router.external.iter().filter(|out| out.subnet == subnet).map(|out| out.mac));
            }
        }
        macs
    }

    /// Makes one change; what comes back undoes it.
    fn put(&mut self, change: Change) -> Change {
        match change {
            Change::Network(id, new) => Change::Network(id, swap(&mut self.site.networks, id, new)),
            Change::Group(id, new) => Change::Group(id, swap(&mut self.site.groups, id, new)),
            Change::Mirror(id, new) => Change::Mirror(id, swap(&mut self.site.mirrors, id, new)),
            Change::Subnet(id, new) => {
                let now = new.as_ref().map(|subnet| subnet.network);
                let old = swap(&mut self.site.subnets, id, new);
                self.subnets.moved(id, old.as_ref().map(|subnet| subnet.network), now);
                Change::Subnet(id, old)
            }
            Change::Port(id, new) => {
                let now = new.as_ref().map(|port| port.network);
                let groups = new.as_ref().map(|port| port.groups.clone()).unwrap_or_default();
                let old = swap(&mut self.site.ports, id, new);
                self.ports.moved(id, old.as_ref().map(|port| port.network), now);
                self.members.moved(id, old.iter().flat_map(|port| port.groups.iter().copied()), groups);
                Change::Port(id, old)
            }
            Change::Router(id, new) => {
                let now = subnets_of(new.as_ref());
                let old = swap(&mut self.site.routers, id, new);
                self.routers.moved(id, subnets_of(old.as_ref()), now);
                Change::Router(id, old)
            }
            Change::Floating(id, new) => {
                let now = new.as_ref().map(|floating| (floating.subnet, floating.to));
                let old = swap(&mut self.site.floating, id, new);
                let was = old.as_ref().map(|floating| (floating.subnet, floating.to));
                self.floating.moved(id, was.map(|(subnet, _)| subnet), now.map(|(subnet, _)| subnet));
                let port = |it: Option<(SubnetId, Option<(PortId, IpAddr)>)>| Some(it?.1?.0);
                self.leads.moved(id, port(was), port(now));
                Change::Floating(id, old)
            }
        }
    }
}

fn subnets_of(router: Option<&Router>) -> BTreeSet<SubnetId> {
    let interfaces = router.into_iter().flat_map(|router| router.interfaces.keys().copied());
    let outside = router.and_then(|router| router.external.as_ref()).map(|out| out.subnet);
    interfaces.chain(outside).collect()
}

fn swap<K: Ord, V>(all: &mut BTreeMap<K, V>, id: K, new: Option<V>) -> Option<V> {
    match new {
        Some(new) => all.insert(id, new),
        None => all.remove(&id),
    }
}

/// Who hangs on whom.
#[derive(Debug, Clone)]
struct Links<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Links<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy, V: Ord + Copy> Links<K, V> {
    fn of(&self, key: K) -> impl Iterator<Item = V> {
        self.0.get(&key).into_iter().flatten().copied()
    }

    fn moved(&mut self, it: V, from: impl IntoIterator<Item = K>, to: impl IntoIterator<Item = K>) {
        for key in from {
            if let Some(links) = self.0.get_mut(&key) {
                links.remove(&it);
                if links.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
        for key in to {
            self.0.entry(key).or_default().insert(it);
        }
    }
}

/// What is judged.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Networks or routers may have come.
    pub grows: bool,
    pub networks: BTreeSet<NetworkId>,
    pub subnets: BTreeSet<SubnetId>,
    pub ports: BTreeSet<PortId>,
    pub groups: BTreeSet<SecurityGroupId>,
    pub routers: BTreeSet<RouterId>,
    pub floating: BTreeSet<FloatingId>,
    pub mirrors: BTreeSet<MirrorId>,
}

impl Scope {
    /// Everything.
    pub fn all(site: &Site) -> Self {
        Self {
            grows: true,
            networks: site.networks.keys().copied().collect(),
            subnets: site.subnets.keys().copied().collect(),
            ports: site.ports.keys().copied().collect(),
            groups: site.groups.keys().copied().collect(),
            routers: site.routers.keys().copied().collect(),
            floating: site.floating.keys().copied().collect(),
            mirrors: site.mirrors.keys().copied().collect(),
        }
    }

    /// A network with everybody who is on it.
    fn network(&mut self, draft: &Draft, network: NetworkId) {
        self.networks.insert(network);
        self.ports.extend(draft.ports.of(network));
        for subnet in draft.subnets.of(network) {
            self.subnets.insert(subnet);
            self.routers.extend(draft.routers.of(subnet));
            self.floating.extend(draft.floating.of(subnet));
        }
    }

    fn of_subnet(&mut self, draft: &Draft, subnet: SubnetId) {
        self.routers.extend(draft.routers.of(subnet));
        self.floating.extend(draft.floating.of(subnet));
        if let Some(subnet) = draft.site.subnets.get(&subnet) {
            self.network(draft, subnet.network);
        }
    }

    /// What a change may be wrong with, or make wrong.
    fn touch(&mut self, draft: &Draft, change: &Change) {
        match change {
            Change::Network(id, _) => self.network(draft, *id),
            Change::Subnet(id, subnet) => {
                self.subnets.insert(*id);
                self.of_subnet(draft, *id);
                if let Some(subnet) = subnet {
                    self.network(draft, subnet.network);
                }
            }
            Change::Port(id, port) => {
                self.ports.insert(*id);
                self.floating.extend(draft.leads.of(*id));
                if let Some(port) = port {
                    self.network(draft, port.network);
                } else {
                    let mirrors = draft.site.mirrors.iter().filter(|(_, mirror)| mirror.ports.contains(id));
                    self.mirrors.extend(mirrors.map(|(id, _)| *id));
                }
            }
            Change::Group(id, group) => {
                self.groups.insert(*id);
                if group.is_none() {
                    let ports = draft.members.of(*id).filter_map(|port| draft.site.ports.get(&port));
                    ports.for_each(|port| self.network(draft, port.network));
                    self.groups.extend(draft.site.groups.keys());
                }
            }
            Change::Router(id, router) => {
                self.routers.insert(*id);
                subnets_of(router.as_ref()).into_iter().for_each(|subnet| self.of_subnet(draft, subnet));
            }
            Change::Floating(id, floating) => {
                self.floating.insert(*id);
                if let Some(floating) = floating {
                    self.of_subnet(draft, floating.subnet);
                }
            }
            Change::Mirror(id, _) => {
                self.mirrors.insert(*id);
            }
        }
    }
}
