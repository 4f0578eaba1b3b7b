//! By what nodes are found: name, addresses, UUID, the agent's secrets, deadlines. Says only where to look; whoever asks
//! looks at the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use boot_server_core::node::{Claim, Node};
use protocol::{MacAddr, NodeId, Sha256, Timestamp};
use uuid::Uuid;

/// The index. Each set is of pairs, so that one key may have several nodes: addresses and UUIDs can collide.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: BTreeMap<String, NodeId>,
    macs: BTreeSet<(MacAddr, NodeId)>,
    uuids: BTreeSet<(Uuid, NodeId)>,
    secrets: BTreeMap<Sha256, NodeId>,
    deadlines: BTreeSet<(Timestamp, NodeId)>,
}

const FIRST: NodeId = NodeId(Uuid::nil());
const LAST: NodeId = NodeId(Uuid::max());

impl Index {
    /// True where the index must be told of the change.
    pub fn differs(old: &Node, new: &Node) -> bool {
        old.name != new.name
            || old.identity != new.identity
            || old.link != new.link
            || ticket(old) != ticket(new)
            || old.deadline() != new.deadline()
    }

    pub fn add(&mut self, node: &Node) {
        let id = node.id;
        self.names.insert(node.name.clone(), id);
        self.macs.extend(node.identity.macs.iter().map(|mac| (*mac, id)));
        self.uuids.extend(node.identity.uuid.map(|uuid| (uuid, id)));
        self.secrets.extend(secrets(node).map(|hash| (hash, id)));
        self.deadlines.extend(node.deadline().map(|at| (at, id)));
    }

    /// Takes out what [`add`](Self::add) put in for the node as it was then.
    pub fn remove(&mut self, node: &Node) {
        let id = node.id;
        if self.names.get(&node.name) == Some(&id) {
            self.names.remove(&node.name);
        }
        for mac in &node.identity.macs {
            self.macs.remove(&(*mac, id));
        }
        if let Some(uuid) = node.identity.uuid {
            self.uuids.remove(&(uuid, id));
        }
        for hash in secrets(node) {
            self.secrets.remove(&hash);
        }
        if let Some(at) = node.deadline() {
            self.deadlines.remove(&(at, id));
        }
    }

    pub fn named(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// All nodes by name, from the one after `after` on.
    pub fn by_name(&self, after: Option<&str>) -> impl Iterator<Item = NodeId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.names.range::<str, _>((from, Bound::Unbounded)).map(|(_, id)| *id)
    }

    pub fn with_mac(&self, mac: MacAddr) -> impl Iterator<Item = NodeId> {
        self.macs.range((mac, FIRST)..=(mac, LAST)).map(|(_, id)| *id)
    }

    pub fn like(&self, claim: &Claim) -> BTreeSet<NodeId> {
        let by_mac = claim.macs.iter().flat_map(|mac| self.with_mac(*mac));
        let by_uuid = claim.uuid.into_iter().flat_map(|uuid| self.uuids.range((uuid, FIRST)..=(uuid, LAST)));
        by_mac.chain(by_uuid.map(|(_, id)| *id)).collect()
    }

    pub fn with_secret(&self, hash: Sha256) -> Option<NodeId> {
        self.secrets.get(&hash).copied()
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub fn late(&self, now: Timestamp) -> Vec<NodeId> {
        self.deadlines.range(..=(now, LAST)).map(|(_, id)| *id).collect()
    }
}

fn secrets(node: &Node) -> impl Iterator<Item = Sha256> {
    let nonce = node.link.nonce.as_ref().map(|n| n.sha256);
    let session = node.link.session.as_ref();
    [nonce, session.map(|s| s.sha256), session.and_then(|s| s.nonce), ticket(node)].into_iter().flatten()
}

fn ticket(node: &Node) -> Option<Sha256> {
    node.boot.as_ref().and_then(|order| order.ticket)
}

#[cfg(test)]
mod tests {
    use boot_server_core::node::{Delivery, Nonce};

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn node(number: u128, mac: MacAddr, uuid: Uuid) -> Node {
        let claim = Claim { uuid: Some(uuid), serial: None, macs: vec![mac] };
        let id = NodeId(Uuid::from_u128(number));
        Node::discovered(id, format!("node-{number}"), claim.into_identity(), Timestamp(0))
    }

    #[test]
    fn finds_what_was_added_and_forgets_what_was_removed() {
        let uuid = Uuid::from_u128(7);
        let (a, mut b) = (node(1, MAC, uuid), node(2, MacAddr([2, 0, 0, 0, 0, 2]), uuid));
        let secret = Sha256([7; 32]);
        b.link.nonce = Some(Nonce {
            sha256: secret,
            issued: Timestamp(0),
            epoch: 1,
            by: Delivery::Network,
            made_for: Claim::default(),
        });
        let mut index = Index::default();
        index.add(&a);
        index.add(&b);
        assert_eq!(index.named("node-2"), Some(b.id));
        assert_eq!(index.with_mac(MAC).collect::<Vec<_>>(), [a.id]);
        assert_eq!(index.with_secret(secret), Some(b.id));
        let claim = Claim { uuid: Some(uuid), serial: None, macs: vec![MAC] };
        assert_eq!(index.like(&claim), BTreeSet::from([a.id, b.id]), "a UUID that two boards share");
        index.remove(&b);
        assert_eq!(index.with_secret(secret), None);
        assert_eq!(index.like(&claim), BTreeSet::from([a.id]));
        assert_eq!(index.named("node-2"), None);
    }
}
