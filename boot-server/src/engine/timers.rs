//! Deadlines: wakes when the next one passes and tells its node.

use std::time::Duration;

use boot_server_core::node::Event;
use futures_util::{StreamExt as _, stream};
use protocol::NodeId;
use tokio_util::sync::CancellationToken;

use super::{Actor, Engine, now};

/// Looked at this often even if nobody says that a deadline changed: the clock may have been set.
const LOOK_MAX: Duration = Duration::from_mins(1);
/// After a failure of the store the nodes are told again this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Nodes that are told at the same time: the store commits so many together.
const TOLD_AT_ONCE: usize = 256;

impl Engine {
    /// Starts the workers of management controllers, and tells every node that the server has started: what waits, waits
    /// anew.
    pub async fn started(&self) {
        self.start_workers();
        self.start_dpu_workers();
        let nodes = self.0.nodes.all().into_iter().map(|node| node.id).collect();
        self.tell(nodes, &Event::ServerStarted, "the start").await;
    }

    /// Sends [`Event::Tick`] to every node whose deadline passes, until `stop`.
    pub async fn run_deadlines(&self, stop: CancellationToken) {
        loop {
            let next = self.0.nodes.next_deadline();
            // One millisecond later, so that the deadline has passed and not only come.
            let wait = next.map_or(LOOK_MAX, |at| at.since(now()) + Duration::from_millis(1)).min(LOOK_MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.deadlines.notified() => continue,
                () = tokio::time::sleep(wait) => {}
            }
            if !self.tick().await {
                // The deadline stays passed: without a pause a full disk would be filled with log lines.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// False where a node could not be told.
    async fn tick(&self) -> bool {
        self.tell(self.0.nodes.late(now()), &Event::Tick, "a passed deadline").await
    }

    /// False where a node could not be told.
    async fn tell(&self, nodes: Vec<NodeId>, event: &Event, what: &str) -> bool {
        let told = stream::iter(nodes).map(|id| async move {
            let told = self.apply(id, Actor::Server, event.clone()).await;
            if let Err(error) = &told {
                tracing::error!(node = %id, %error, "{what} was not noted");
            }
            told.is_ok()
        });
        told.buffer_unordered(TOLD_AT_ONCE).fold(true, |all, one| std::future::ready(all && one)).await
    }
}
