//! Puts ports of a switch into VLANs, by its OVSDB, and says when the switch has done so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use boot_server_core::network::switch::{
    DATABASE, Difference, Want, ask, difference, has_bridge, is_done, ours, wanted,
};
use jsonrpc::Address;
use ovsdb::{Follower, Settings, Version};
use protocol::NodeId;

/// A switch that is silent for so long is asked for a sign of life, and has as long again.
const PROBE: Duration = Duration::from_secs(3);
/// For the database to answer, and for the switch to do what stands there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A switch; a replica of its ports is kept.
#[derive(Debug)]
pub struct Switch {
    follower: Follower,
    bridge: String,
}

/// Why ports are not as they are to be.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Its database is out of reach, or refused.
    #[error("asking the switch")]
    Database(#[from] ovsdb::Error),
    /// It has no such bridge.
    #[error("the switch has no bridge {0}")]
    NoBridge(String),
    /// It has no such ports.
    #[error("the switch has no port {0} on its bridge")]
    NoPort(String),
    /// The database has it, and the switch does not do it.
    #[error("the switch did not answer, or did not do what stands in its database, within {PATIENCE:?}")]
    Idle,
}

impl Switch {
    /// Begins to follow the switch, in a task of its own (so within a tokio runtime).
    pub fn start(address: Address, bridge: String) -> Self {
        let settings = Settings {
            address,
            database: DATABASE.to_owned(),
            wanted: wanted(),
            version: Version::Since,
            lock: None,
            probe: PROBE,
        };
        Self { follower: Follower::start(settings), bridge }
    }

    /// Waits until its ports were read.
    pub async fn ready(&self) {
        self.follower.wait_for(|_| true).await;
    }

    /// What is still to be done for these ports; an error where that is not known.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn look(&self, wants: &BTreeMap<String, Want>) -> Result<Difference, SwitchError> {
        let found = self.follower.read(|replica| {
            has_bridge(replica, &self.bridge).then(|| difference(replica, &self.bridge, wants))
        })?;
        let found = found.ok_or_else(|| SwitchError::NoBridge(self.bridge.clone()))?;
        match found.missing.first() {
            Some(port) => Err(SwitchError::NoPort(port.clone())),
            None => Ok(found),
        }
    }

    /// Ports that carry a machine's id, with that.
    ///
    /// # Errors
    /// [`SwitchError::Database`].
    pub fn ours(&self) -> Result<BTreeMap<String, NodeId>, SwitchError> {
        Ok(self.follower.read(|replica| ours(replica, &self.bridge))?)
    }

    /// Makes these ports so, and returns once the switch does it; names of those that changed. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn apply(&self, wants: &BTreeMap<String, Want>) -> Result<BTreeSet<String>, SwitchError> {
        let found = self.look(wants)?;
        let made = async {
            if !found.operations.is_empty() {
                let asked = self.follower.read(ask)?;
                self.follower.transact(found.operations.into_iter().chain(asked).collect()).await?;
            }
            self.follower.wait_for(is_done).await;
            Ok::<_, SwitchError>(())
        };
        tokio::time::timeout(PATIENCE, made).await.map_err(|_| SwitchError::Idle)??;
        Ok(found.changed)
    }
}
