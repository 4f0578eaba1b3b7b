//! All nodes in memory, as they were last stored, each with a lock that lets one event at a time through; and an index,
//! so that neither a packet nor a request looks at every node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use boot_server_core::node::{Claim, Node};
use protocol::{MacAddr, NodeId, Sha256, Timestamp};
use tokio::sync::watch;

use super::index::Index;
use crate::store::queries::NodeRow;

/// A poisoned lock is taken all the same: what it guards is replaced as a whole, never half.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One node.
pub(super) struct Slot {
    /// Held while an event is taken in.
    pub turn: tokio::sync::Mutex<()>,
    row: Mutex<Stored>,
    generation: watch::Sender<u64>,
}

struct Stored {
    node: Arc<Node>,
    version: i64,
}

/// A node and the version of its row.
pub(super) struct Before {
    pub node: Arc<Node>,
    pub version: i64,
}

impl Slot {
    fn new(row: NodeRow) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            row: Mutex::new(Stored { node: Arc::new(row.node), version: row.version }),
            generation: watch::Sender::new(0),
        }
    }

    pub fn row(&self) -> Before {
        let stored = lock(&self.row);
        Before { node: stored.node.clone(), version: stored.version }
    }

    fn put(&self, row: NodeRow) -> Arc<Node> {
        let new = Stored { node: Arc::new(row.node), version: row.version };
        std::mem::replace(&mut *lock(&self.row), new).node
    }

    pub fn wake(&self) {
        self.generation.send_modify(|g| *g = g.wrapping_add(1));
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// The nodes.
pub(super) struct Registry(RwLock<Nodes>);

struct Nodes {
    slots: BTreeMap<NodeId, Arc<Slot>>,
    index: Index,
}

impl Registry {
    pub fn new(rows: Vec<NodeRow>) -> Self {
        let registry = Self(RwLock::new(Nodes { slots: BTreeMap::new(), index: Index::default() }));
        rows.into_iter().for_each(|row| registry.add(row));
        registry
    }

    pub fn slot(&self, id: NodeId) -> Option<Arc<Slot>> {
        self.read().slots.get(&id).cloned()
    }

    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.slot(id).map(|slot| slot.row().node)
    }

    pub fn len(&self) -> usize {
        self.read().slots.len()
    }

    pub fn add(&self, row: NodeRow) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.index.add(&row.node);
        nodes.slots.insert(row.node.id, Arc::new(Slot::new(row)));
    }

    /// Replaces what is known of a node and wakes whoever waits for it. The caller holds its turn.
    pub fn put(&self, slot: &Slot, row: NodeRow) {
        let new = row.node.clone();
        let old = slot.put(row);
        if Index::differs(&old, &new) {
            let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
            nodes.index.remove(&old);
            nodes.index.add(&new);
        }
        slot.wake();
    }

    /// Forgets a node and wakes whoever waits for it. The caller holds its turn.
    pub fn remove(&self, slot: &Slot) {
        let node = slot.row().node;
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.index.remove(&node);
        nodes.slots.remove(&node.id);
        drop(nodes);
        slot.wake();
    }

    pub fn all(&self) -> Vec<Arc<Node>> {
        self.read().slots.values().map(|slot| slot.row().node).collect()
    }

    /// Nodes by name, after `after`, of which `wanted` is true.
    pub fn page(&self, after: Option<&str>, limit: usize, wanted: impl Fn(&Node) -> bool) -> Vec<Arc<Node>> {
        let nodes = self.read();
        let ids = nodes.index.by_name(after);
        let found = ids.filter_map(|id| Some(nodes.slots.get(&id)?.row().node));
        found.filter(|node| wanted(node)).take(limit).collect()
    }

    /// The node that `wanted` is true of: a look at every node, so not for what machines ask.
    pub fn find(&self, wanted: impl Fn(&Node) -> bool) -> Option<Arc<Node>> {
        self.all().into_iter().find(|node| wanted(node))
    }

    pub fn with_name(&self, name: &str) -> Option<Arc<Node>> {
        let id = self.read().index.named(name)?;
        self.get(id)
    }

    pub fn with_mac(&self, mac: MacAddr) -> Option<Arc<Node>> {
        let id = self.read().index.with_mac(mac).next()?;
        self.get(id)
    }

    /// Another node than `id` that has this address.
    pub fn other_with_mac(&self, id: NodeId, mac: MacAddr) -> Option<Arc<Node>> {
        let other = self.read().index.with_mac(mac).find(|other| *other != id)?;
        self.get(other)
    }

    /// Every node that has something of the claim.
    pub fn like(&self, claim: &Claim) -> Vec<Arc<Node>> {
        let ids = self.read().index.like(claim);
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// The node of whose agent this is the hash of the session's token, of the nonce that it came from, or of a nonce
    /// that was not used yet; or the node whose newest script has a ticket of this hash.
    pub fn with_secret(&self, hash: Sha256) -> Option<Arc<Node>> {
        let id = self.read().index.with_secret(hash)?;
        self.get(id)
    }

    /// When the first deadline passes.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.read().index.next_deadline()
    }

    /// Nodes whose deadline is at or before `now`.
    pub fn late(&self, now: Timestamp) -> Vec<NodeId> {
        self.read().index.late(now)
    }

    fn read(&self) -> RwLockReadGuard<'_, Nodes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
