//! A site that was restored from a backup is held until somebody releases it. What was going on at the backup is called off, and
//! nothing is driven: no power, no write to a volume, no state of a DPU, no network. Since the backup a machine may have got
//! another owner, and a write may have ended of which nobody here knows.

use std::sync::atomic::Ordering;

use boot_server_core::node::Event;
use boot_server_core::volume::{Phase, Volume};
use protocol::NodeId;

use super::{Actor, Engine, EngineError, now};
use crate::backup::{self, Restored};
use crate::store::volumes as rows;

/// Why work ended, for people.
const WHY: &str = "the site was restored from a backup";
/// What they do.
const HINT: &str = "it may have ended after the backup was made: look, then ask for it anew";

impl Engine {
    /// Whether nothing is to be driven.
    pub fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Holds a site that was restored from a backup and not released.
    ///
    /// # Errors
    /// Where that cannot be stored; nothing may be driven then.
    pub async fn hold_restored(&self) -> anyhow::Result<()> {
        let Some(Restored { of, .. }) = backup::restored(&self.0.settings.state_dir)? else { return Ok(()) };
        self.0.held.store(true, Ordering::Relaxed);
        tracing::warn!(
            "restored from a backup and held: no machine, volume, DPU or network is driven before `billet backup release` and \
             another start"
        );
        let nodes: Vec<NodeId> = self.0.nodes.all().into_iter().map(|node| node.id).collect();
        for id in nodes {
            self.apply(id, Actor::Server, Event::Restored { of }).await?;
        }
        for volume in self.store().read(rows::living).await? {
            if volume.phase == Phase::Creating {
                self.give_up_volume(volume).await?;
            }
        }
        Ok(self.give_up_setups(WHY, HINT).await?)
    }

    /// A volume that was being made may be whole, and in use.
    async fn give_up_volume(&self, volume: Volume) -> Result<(), EngineError> {
        let note = Some(format!("{WHY} while it was made; {HINT}"));
        let next = Volume { phase: Phase::Error, note, version: volume.version + 1, ..volume };
        Ok(self.store().write(move |db| rows::update(db, &next, now())).await?)
    }
}
