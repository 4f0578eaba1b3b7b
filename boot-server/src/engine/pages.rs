//! Pages of the list of nodes, out of memory: what is not on the page is neither copied nor looked up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use boot_server_core::node::Node;
use protocol::NodeId;

use super::{Engine, EngineError, lock};
use crate::store::queries;
use crate::view::{Hardware, NodeView};

/// What the list shows of each node's hardware: a line, where the whole inventory has tens of kilobytes.
#[derive(Debug, Default)]
pub(super) struct Summaries(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// `None`: it was never inspected.
    of: BTreeMap<NodeId, Option<Arc<Hardware>>>,
    /// Every node's was looked up once.
    all: bool,
}

impl Summaries {
    pub fn put(&self, node: NodeId, hardware: Option<Hardware>) {
        lock(&self.0).of.insert(node, hardware.map(Arc::new));
    }

    pub fn forget(&self, node: NodeId) {
        lock(&self.0).of.remove(&node);
    }

    fn of(&self, node: NodeId) -> Option<Option<Arc<Hardware>>> {
        let known = lock(&self.0);
        match known.of.get(&node) {
            Some(hardware) => Some(hardware.clone()),
            None => known.all.then_some(None),
        }
    }
}

/// Some nodes, by name, and whether more follow.
pub struct NodePage {
    /// The nodes.
    pub nodes: Vec<Arc<Node>>,
    /// There are more.
    pub more: bool,
}

impl Engine {
    /// The nodes that `wanted` is true of, by name, from the one after `after` on; at most `limit`.
    pub fn node_page(&self, after: Option<&str>, limit: usize, wanted: impl Fn(&Node) -> bool) -> NodePage {
        let mut nodes = self.0.nodes.page(after, limit.saturating_add(1), wanted);
        let more = nodes.len() > limit;
        nodes.truncate(limit);
        NodePage { nodes, more }
    }

    /// Grows with every change that the list of nodes shows.
    pub fn nodes_generation(&self) -> u64 {
        self.0.nodes_generation.load(std::sync::atomic::Ordering::Acquire)
    }

    /// A node's hardware in a line, if it was ever inspected.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn hardware(&self, id: NodeId) -> Result<Option<Arc<Hardware>>, EngineError> {
        if let Some(known) = self.0.summaries.of(id) {
            return Ok(known);
        }
        let found = self.0.store.read(move |db| queries::inventory(db, id)).await?;
        let found = found.as_ref().map(|inventory| Arc::new(Hardware::of(inventory)));
        // One that arrived meanwhile is newer than what was read.
        Ok(lock(&self.0.summaries.0).of.entry(id).or_insert(found).clone())
    }

    /// Looks up the hardware of every node, once: a search goes through all of them.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn know_all_hardware(&self) -> Result<(), EngineError> {
        if lock(&self.0.summaries.0).all {
            return Ok(());
        }
        let found = self.0.store.read(|db| queries::each_inventory(db, Hardware::of)).await?;
        let mut known = lock(&self.0.summaries.0);
        for (node, hardware) in found {
            known.of.entry(node).or_insert(Some(Arc::new(hardware)));
        }
        known.all = true;
        Ok(())
    }

    /// The hardware as far as it was looked up.
    pub fn known_hardware(&self, id: NodeId) -> Option<Arc<Hardware>> {
        self.0.summaries.of(id).flatten()
    }

    /// The node as the API shows it. An inventory that cannot be read is logged and left out.
    pub async fn view(&self, node: &Node) -> NodeView {
        let hardware = self.hardware(node.id).await.unwrap_or_else(|error| {
            tracing::error!(node = %node.id, %error, "inventory cannot be read");
            None
        });
        self.view_with(node, hardware.as_deref().cloned())
    }

    pub(super) fn view_with(&self, node: &Node, hardware: Option<Hardware>) -> NodeView {
        let (power, health) = (self.power_of(node.id), self.health(node.id));
        NodeView { power, health, hardware, ..NodeView::of(node, None) }
    }
}
