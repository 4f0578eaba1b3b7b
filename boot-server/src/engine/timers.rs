//! Deadlines: wakes when the next one passes and tells its node.

use std::time::Duration;

use boot_server_core::node::Event;
use tokio_util::sync::CancellationToken;

use super::{Actor, Engine, now};

/// Looked at this often even if nobody says that a deadline changed: the clock may have been set.
const LOOK_MAX: Duration = Duration::from_mins(1);
/// After a failure of the store the nodes are told again this much later.
const RETRY: Duration = Duration::from_secs(5);

impl Engine {
    /// Tells every node that the server has started: what waits, waits anew.
    pub async fn started(&self) {
        for node in self.0.nodes.all() {
            if let Err(error) = self.apply(node.id, Actor::Server, Event::ServerStarted).await {
                tracing::error!(node = %node.name, %error, "start was not noted");
            }
        }
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
        let mut all = true;
        for id in self.0.nodes.late(now()) {
            if let Err(error) = self.apply(id, Actor::Server, Event::Tick).await {
                tracing::error!(node = %id, %error, "a passed deadline was not noted");
                all = false;
            }
        }
        all
    }
}
