//! Machines that boot from the network: who they are, since when they try, and what they get.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use boot_server_core::check::{Finding, Story, story};
use boot_server_core::node::identity::identify;
use boot_server_core::node::{Boot, Claim, Event, Match, Node, Phase, Severity, required_boot};
use protocol::{MacAddr, NodeId, Timestamp};
use uuid::Uuid;

use super::discoveries::Attempt;
use super::{Actor, Along, Engine, EngineError, lock, now};
use crate::secret;
use crate::store::queries::{self, NodeRow};

/// Machines seen at once by DHCP: every node and as many strangers. The oldest sighting goes first.
const SIGHTINGS_MAX: usize = 2 * NODES_MAX;
/// Addresses that are remembered with the node they belong to.
const ADDRESSES_MAX: usize = 2 * NODES_MAX;
/// Nodes in all: a stranger that invents addresses must not fill the disk.
pub(super) const NODES_MAX: usize = 20_000;
/// Relays that are remembered.
const RELAYS_MAX: usize = 256;
/// Machines that went no further and are no nodes, as many as are shown.
const STRANGERS_SHOWN_MAX: usize = 200;
/// Firmware asks again within this time as long as it gets no answer (RFC 2131 section 4.1: up to 64 s); a longer
/// silence means another boot.
const SILENCE: Duration = Duration::from_secs(90);

/// What a machine that asks for its boot script gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootAnswer {
    /// The agent, with this nonce.
    Agent {
        /// Name of the node.
        name: String,
        /// 64 hexadecimal digits.
        nonce: String,
    },
    /// Its disk.
    LocalDisk {
        /// Name of the node.
        name: String,
    },
    /// What somebody ordered: a kernel, an image or an iSCSI disk.
    Ordered {
        /// Name of the node.
        name: String,
        /// What.
        boot: Boot,
        /// Names this boot: 64 hexadecimal digits.
        ticket: String,
    },
    /// Nothing: it cannot be told apart.
    Refuse {
        /// Why.
        why: String,
    },
}

/// Who was seen when.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    by_mac: BTreeMap<MacAddr, Sighting>,
    /// The same by their newest packet, so that the oldest is found in a flood of them.
    by_last: BTreeSet<(Timestamp, MacAddr)>,
    by_address: BTreeMap<IpAddr, MacAddr>,
    /// What our DHCP lent last.
    lent: BTreeMap<MacAddr, Ipv4Addr>,
    relays: BTreeMap<Ipv4Addr, Timestamp>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    first: Timestamp,
    last: Timestamp,
    loader: Option<Timestamp>,
    /// It was given an address.
    address: Option<Timestamp>,
    /// It took the address of this other server.
    elsewhere: Option<Ipv4Addr>,
    /// The script was served: the next packet belongs to another boot.
    over: bool,
}

impl Sighting {
    fn story(&self) -> Story {
        Story {
            first: Some(self.first),
            last: Some(self.last),
            elsewhere: self.elsewhere,
            address: self.address,
            loader: self.loader,
            script: self.over,
        }
    }
}

impl Sightings {
    /// Notes a packet and returns when this boot began.
    pub(super) fn note(&mut self, mac: MacAddr, now: Timestamp) -> Timestamp {
        if self.by_mac.len() >= SIGHTINGS_MAX && !self.by_mac.contains_key(&mac) {
            self.by_last.pop_first().map(|(_, oldest)| self.by_mac.remove(&oldest));
        }
        let fresh =
            Sighting { first: now, last: now, loader: None, address: None, elsewhere: None, over: false };
        let sighting = self.by_mac.entry(mac).or_insert(fresh);
        self.by_last.remove(&(sighting.last, mac));
        if sighting.over || now.since(sighting.last) > SILENCE {
            *sighting = fresh;
        }
        self.by_last.insert((now, mac));
        sighting.last = now;
        sighting.first
    }

    /// The boot of the machine with this address, which is then over.
    pub(super) fn finish(&mut self, mac: MacAddr) -> Option<Sighting> {
        let sighting = self.by_mac.get_mut(&mac)?;
        sighting.over = true;
        Some(*sighting)
    }

    /// Forgets machines with these addresses.
    pub(super) fn forget(&mut self, macs: &BTreeSet<MacAddr>) {
        for mac in macs {
            if let Some(sighting) = self.by_mac.remove(mac) {
                self.by_last.remove(&(sighting.last, *mac));
            }
            self.lent.remove(mac);
        }
        self.by_address.retain(|_, mac| !macs.contains(mac));
    }

    /// The address that our DHCP lent last to this machine, as far as it is remembered.
    pub(super) fn lent_to(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.lent.get(&mac).copied()
    }

    fn lend(&mut self, mac: MacAddr, ip: Ipv4Addr) {
        if self.lent.len() >= ADDRESSES_MAX && !self.lent.contains_key(&mac) {
            self.lent.pop_first();
        }
        self.lent.insert(mac, ip);
    }

    fn belongs(&mut self, address: IpAddr, mac: MacAddr) {
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            self.by_address.pop_first();
        }
        self.by_address.insert(address, mac);
    }
}

impl Engine {
    /// A machine's firmware or boot loader asked for an address. Unknown machines become nodes only when they ask for
    /// their boot script.
    pub async fn dhcp_seen(&self, mac: MacAddr) {
        let first_seen = lock(&self.0.sightings).note(mac, now());
        let Some(node) = self.0.nodes.with_mac(mac) else {
            tracing::debug!(%mac, "DHCP from an unknown machine");
            return;
        };
        if let Err(error) = self.apply(node.id, Actor::Machine, Event::DhcpSeen { first_seen }).await {
            tracing::warn!(node = %node.name, %error, "DHCP was not noted");
        }
    }

    /// The machine at this address fetched a boot loader or the kernel.
    pub async fn file_served(&self, address: IpAddr, event: Event) {
        let Some(mac) = lock(&self.0.sightings).by_address.get(&address).copied() else { return };
        if let Some(sighting) = lock(&self.0.sightings).by_mac.get_mut(&mac)
            && matches!(event, Event::LoaderServed { .. })
        {
            sighting.loader.get_or_insert(now());
        }
        let Some(node) = self.0.nodes.with_mac(mac) else { return };
        if let Err(error) = self.apply(node.id, Actor::Machine, event).await {
            tracing::warn!(node = %node.name, %error, "a boot file was not noted");
        }
    }

    /// The machine that has this address, if it is known which.
    pub fn machine_at(&self, address: IpAddr) -> Option<MacAddr> {
        lock(&self.0.sightings).by_address.get(&address).copied()
    }

    /// Remembers which machine has this address, so that what it fetches can be told to be its.
    pub fn address_given(&self, mac: MacAddr, address: IpAddr) {
        if let IpAddr::V4(ip) = address {
            lock(&self.0.sightings).lend(mac, ip);
        }
        self.address_taken(mac, address);
    }

    /// The same of an address that the site's own DHCP server gave.
    pub fn address_taken(&self, mac: MacAddr, address: IpAddr) {
        let mut sightings = lock(&self.0.sightings);
        sightings.belongs(address, mac);
        if let Some(sighting) = sightings.by_mac.get_mut(&mac) {
            sighting.address.get_or_insert(now());
        }
    }

    /// The machine took the address that another server offered.
    pub fn went_elsewhere(&self, mac: MacAddr, server: Ipv4Addr) {
        if let Some(sighting) = lock(&self.0.sightings).by_mac.get_mut(&mac) {
            sighting.elsewhere = Some(server);
        }
    }

    /// A packet came from a relay.
    pub fn relay_seen(&self, relay: Ipv4Addr) {
        let relays = &mut lock(&self.0.sightings).relays;
        if relays.len() < RELAYS_MAX || relays.contains_key(&relay) {
            relays.insert(relay, now());
        }
    }

    /// Relays that packets came from, and when last.
    pub fn relays(&self) -> Vec<(Ipv4Addr, Timestamp)> {
        lock(&self.0.sightings).relays.iter().map(|(relay, at)| (*relay, *at)).collect()
    }

    /// What keeps the node from going on with its newest boot, as far as it can be told.
    pub fn boot_findings(&self, node: &Node) -> Vec<Finding> {
        let (sightings, now) = (lock(&self.0.sightings), now());
        let stories =
            node.identity.macs.iter().filter_map(|mac| sightings.by_mac.get(mac)).map(Sighting::story);
        stories.filter_map(|s| story(&s, &self.0.settings.interface, now)).collect()
    }

    /// Machines that are no nodes, because they began to boot and went no further; the newest first.
    pub fn stuck_strangers(&self) -> Vec<(MacAddr, Timestamp, Finding)> {
        let (sightings, now) = (lock(&self.0.sightings), now());
        let strangers =
            sightings.by_last.iter().rev().filter(|(_, mac)| self.0.nodes.with_mac(*mac).is_none());
        let stuck = strangers.filter_map(|(last, mac)| {
            let finding = story(&sightings.by_mac.get(mac)?.story(), &self.0.settings.interface, now)?;
            Some((*mac, *last, finding))
        });
        stuck.take(STRANGERS_SHOWN_MAX).collect()
    }

    /// A machine asks what to boot. Makes it a node where it is unknown.
    ///
    /// # Errors
    /// Where the store fails or the server is full.
    pub async fn boot(&self, claim: Claim, address: IpAddr) -> Result<BootAnswer, EngineError> {
        let claim = claim.cleaned();
        let (id, sighting) = match self.admit(&claim, address).await? {
            Ok(admitted) => admitted,
            Err(why) => {
                tracing::warn!(mac = ?claim.macs.first(), %address, why, "a boot script was refused");
                return Ok(BootAnswer::Refuse { why });
            }
        };
        let nonce = secret::hex()?;
        let hash = secret::hash(&nonce);
        let event = move |node: &Node| Event::BootRequested {
            boot: required_boot(node, now()),
            nonce: hash,
            claim: claim.clone(),
        };
        let node = self.apply_with(id, Actor::Machine, event, Along::default()).await?;
        let seconds = sighting.map(|seen| now().since(seen.first).as_millis() as f64 / 1000.0);
        let name = node.name.clone();
        let agent = node.link.nonce.as_ref().is_some_and(|n| n.sha256 == hash);
        tracing::info!(node = %name, agent, seconds, "boot script: seconds since the first DHCPDISCOVER");
        if agent {
            return Ok(BootAnswer::Agent { name, nonce });
        }
        let ordered = node.boot.filter(|order| order.ticket == Some(hash));
        Ok(match ordered {
            Some(order) => BootAnswer::Ordered { name, boot: order.boot, ticket: nonce },
            None => BootAnswer::LocalDisk { name },
        })
    }

    /// Which node the machine is that asks from this address, and its boot as it was seen. Makes it a node where it is
    /// unknown. The inner error says why it gets nothing.
    async fn admit(
        &self,
        claim: &Claim,
        address: IpAddr,
    ) -> Result<Result<(NodeId, Option<Sighting>), String>, EngineError> {
        let known = match self.identify(claim) {
            Match::Node(id) => Some(id),
            Match::Unknown if claim.macs.is_empty() && claim.uuid.is_none() => {
                return Ok(Err("it tells neither a MAC address nor a UUID".to_owned()));
            }
            Match::Unknown => None,
            Match::Conflict { nodes, why } => match self.settle(claim, &nodes, &why).await? {
                Some(id) => Some(id),
                None => return Ok(Err(why)),
            },
        };
        let holder = self.holder(address).await?;
        if let Some(why) = self.wrong_address(known, claim, address, holder).await? {
            return Ok(Err(why));
        }
        // The port that was lent the address is the one that boots; a machine may tell others before it.
        let port = holder.filter(|mac| claim.macs.contains(mac)).or(claim.macs.first().copied());
        let sighting = port.and_then(|mac| {
            let mut sightings = lock(&self.0.sightings);
            sightings.belongs(address, mac);
            sightings.finish(mac)
        });
        if let Some(id) = known {
            return Ok(Ok((id, sighting)));
        }
        // Ended also where the machine hangs up meanwhile: else the node would be stored, but not known here.
        let (engine, stranger) = (self.clone(), claim.clone());
        let id = match tokio::spawn(async move { engine.discover(stranger, sighting).await }).await? {
            Err(EngineError::Crowd) => {
                self.stranger_waits(port.as_ref()).await;
                return Ok(Err("too many new machines at once, it has to ask again".to_owned()));
            }
            other => other?,
        };
        // It may have become a node meanwhile by what somebody else told of it.
        Ok(match self.wrong_address(Some(id), claim, address, holder).await? {
            Some(why) => Err(why),
            None => Ok((id, sighting)),
        })
    }

    /// When the newest boot of this node began, if it was seen.
    pub(super) fn first_seen(&self, node: &Node) -> Option<Timestamp> {
        let sightings = lock(&self.0.sightings);
        node.identity.macs.iter().filter_map(|mac| sightings.by_mac.get(mac)).map(|s| s.first).max()
    }

    pub(super) fn identify(&self, claim: &Claim) -> Match {
        let nodes = self.0.nodes.like(claim);
        identify(claim, nodes.iter().map(|node| (node.id, &node.identity)))
    }

    /// Two facts point to different nodes: the address decides where it is one node's alone, else nobody does.
    async fn settle(
        &self,
        claim: &Claim,
        nodes: &[NodeId],
        why: &str,
    ) -> Result<Option<NodeId>, EngineError> {
        let by_mac: Vec<NodeId> = nodes
            .iter()
            .copied()
            .filter(|id| {
                self.0.nodes.get(*id).is_some_and(|n| claim.macs.iter().any(|m| n.identity.macs.contains(m)))
            })
            .collect();
        let first = nodes.first().copied();
        self.note(Actor::Server, first, "identity.conflict", Severity::Warning, why).await?;
        Ok(match by_mac.as_slice() {
            [one] => Some(*one),
            _ => None,
        })
    }

    /// A machine that nobody announced.
    pub(super) async fn discover(&self, claim: Claim, seen: Option<Sighting>) -> Result<NodeId, EngineError> {
        // It may have asked twice at once.
        let known = || match self.identify(&claim) {
            Match::Node(id) => Some(id),
            Match::Unknown | Match::Conflict { .. } => None,
        };
        let name = |coming: usize, names: &BTreeSet<String>| {
            if self.0.nodes.len() + coming >= NODES_MAX {
                return Err(EngineError::Full("it has 20,000 nodes"));
            }
            if !self.admits_stranger() {
                return Err(EngineError::Crowd);
            }
            Ok(fresh_name(&claim, |name| names.contains(name) || self.0.nodes.with_name(name).is_some()))
        };
        let reservation = match self.0.discoveries.reserve(&claim, known, name).await? {
            Attempt::Known(id) => return Ok(id),
            Attempt::Reserved(reservation) => reservation,
        };
        let (id, at) = (NodeId(Uuid::now_v7()), now());
        let mut node = Node::discovered(id, reservation.name.clone(), claim.clone().into_identity(), at);
        if let Some(seen) = seen {
            node.timeline.mark(Phase::Dhcp, seen.first);
            seen.loader.into_iter().for_each(|at| node.timeline.mark(Phase::Loader, at));
        }
        let stored = node.clone();
        self.0.store.write(move |db| queries::insert_node(db, &stored)).await?;
        self.0.nodes.add(NodeRow { node, version: 1 });
        // It may be one that is expected. Where that cannot be looked up, it is once it was inspected.
        if let Err(error) = self.welcome(id).await {
            tracing::error!(node = %id, %error, "whether a new machine is expected cannot be told");
        }
        Ok(id)
    }

    /// Leaves out addresses that belong to other nodes, and says so.
    pub(super) async fn own_addresses(
        &self,
        id: NodeId,
        macs: Vec<MacAddr>,
    ) -> Result<Vec<MacAddr>, EngineError> {
        let mut own = Vec::new();
        for mac in macs {
            let other = self.0.nodes.other_with_mac(id, mac);
            match other {
                None => own.push(mac),
                Some(other) => {
                    let message = format!("its address {mac} is known as one of {}", other.name);
                    self.note(Actor::Server, Some(id), "identity.conflict", Severity::Warning, message)
                        .await?;
                }
            }
        }
        Ok(own)
    }
}

/// `node-` and the last three octets of the first address (or of the UUID), with a number where that is taken.
pub(super) fn fresh_name(claim: &Claim, taken: impl Fn(&str) -> bool) -> String {
    let tail = match (claim.macs.first(), claim.uuid) {
        (Some(MacAddr([.., a, b, c])), _) => format!("{a:02x}{b:02x}{c:02x}"),
        (None, Some(uuid)) => {
            uuid.simple().to_string().chars().rev().take(6).collect::<Vec<_>>().iter().rev().collect()
        }
        (None, None) => "unknown".to_owned(),
    };
    let first = format!("node-{tail}");
    if !taken(&first) {
        return first;
    }
    (2_u32..).map(|n| format!("node-{tail}-{n}")).find(|name| !taken(name)).unwrap_or(first)
}
