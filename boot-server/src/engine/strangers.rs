//! How many unknown machines become nodes. Whoever sits on the provisioning network can invent machines; a hall that is
//! switched on is a crowd as well, and must come in within minutes.

use std::time::Duration;

use boot_server_core::bucket::Bucket;
use boot_server_core::node::Severity;
use protocol::{MacAddr, Timestamp};

use super::{Actor, Engine, lock, now};
use crate::config::NewMachines;

/// That machines had to wait is said once in this time.
const SAID: Duration = Duration::from_mins(10);

/// Who may become a node now.
#[derive(Debug)]
pub(super) struct Strangers {
    bucket: Bucket,
    said: Timestamp,
}

impl Strangers {
    pub fn new(limit: NewMachines) -> Self {
        Self { bucket: Bucket::new(limit.burst, limit.per_second), said: Timestamp(0) }
    }
}

impl Engine {
    /// True where one more unknown machine may become a node now.
    pub(super) fn admits_stranger(&self) -> bool {
        lock(&self.0.strangers).bucket.take(now())
    }

    /// A machine has to ask again.
    pub(super) async fn stranger_waits(&self, mac: Option<&MacAddr>) {
        tracing::debug!(?mac, "an unknown machine has to wait");
        let at = now();
        {
            let mut strangers = lock(&self.0.strangers);
            if at.since(strangers.said) < SAID {
                return;
            }
            strangers.said = at;
        }
        let message = "too many new machines at once: they are taken in as they ask again (discovery.burst, \
                       discovery.new_per_second); unless a hall was switched on, look for who invents machines";
        let noted = self.note(Actor::Server, None, "discovery.limited", Severity::Warning, message).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "event was not stored");
        }
    }
}
