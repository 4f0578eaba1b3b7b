//! All nodes in memory, as they were last stored, each with a lock that lets one event at a time through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use boot_server_core::node::Node;
use protocol::NodeId;
use tokio::sync::watch;

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

    /// Replaces what is known and wakes whoever waits for this node.
    pub fn put(&self, row: NodeRow) {
        *lock(&self.row) = Stored { node: Arc::new(row.node), version: row.version };
        self.wake();
    }

    pub fn wake(&self) {
        self.generation.send_modify(|g| *g = g.wrapping_add(1));
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// The nodes.
pub(super) struct Registry(RwLock<BTreeMap<NodeId, Arc<Slot>>>);

impl Registry {
    pub fn new(rows: Vec<NodeRow>) -> Self {
        Self(RwLock::new(rows.into_iter().map(|row| (row.node.id, Arc::new(Slot::new(row)))).collect()))
    }

    pub fn slot(&self, id: NodeId) -> Option<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.slot(id).map(|slot| slot.row().node)
    }

    pub fn add(&self, row: NodeRow) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(row.node.id, Arc::new(Slot::new(row)));
    }

    pub fn all(&self) -> Vec<Arc<Node>> {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        nodes.values().map(|slot| slot.row().node).collect()
    }

    pub fn find(&self, wanted: impl Fn(&Node) -> bool) -> Option<Arc<Node>> {
        self.all().into_iter().find(|node| wanted(node))
    }
}
