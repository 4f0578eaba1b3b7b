//! The boot image in the virtual CD drive of a machine: made for one job, good for one boot, ejected when that is over.
//!
//! ```text
//! restart ─▶ made (nonce) ─▶ inserted, read back ─▶ switched on: ten minutes ─▶ hello ─┐
//!                 job over, failed or called off ──────────────────────────────────────┴─▶ Effect::EjectMedia
//! ```

use protocol::{JobId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use super::agent::NONCE_LIFETIME;
use super::event::{Effect, Refused};
use super::state::{RunStage, State};
use super::step::Step;
use super::{Claim, Delivery, Identity, Netboot, Node, Nonce};

/// A boot image that is in the drive, or on its way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// For which job.
    pub job: JobId,
}

impl Node {
    /// True where the agent of this machine is booted from virtual media. What somebody set for its controller (`option`)
    /// counts before its network settings.
    pub fn boots_by_media(&self, option: Option<Netboot>) -> bool {
        match option {
            Some(Netboot::Media) => true,
            Some(Netboot::Pxe | Netboot::Http) => false,
            None => self.network.is_some(),
        }
    }

    /// What its job waits for, in words; `macs` are its ports.
    pub fn waits_for(&self, macs: &str) -> Option<String> {
        let run = self.state.run()?;
        if let (Some(lack), RunStage::Assign | RunStage::Agent(_)) = (&self.lacks, run.stage) {
            return Some(lack.words.clone());
        }
        Some(match (run.stage, self.medium) {
            (RunStage::Kernel, Some(_)) => {
                "the agent's hello: the machine was switched on with the boot image in its drive".to_owned()
            }
            _ => run.waits_for(macs),
        })
    }

    /// True while the image with this nonce is good: it is this node's newest, was not booted yet, and is not old.
    pub fn awaits_medium(&self, nonce: Sha256, now: Timestamp) -> bool {
        let good = |n: &Nonce| n.sha256 == nonce && now.since(n.issued) <= NONCE_LIFETIME;
        self.medium.is_some() && self.link.nonce.as_ref().is_some_and(good)
    }
}

/// An image was made, and its nonce is in it: whatever was given out before counts no more.
pub(super) fn made(s: &mut Step<'_>, job: JobId, nonce: Sha256) -> Result<(), Refused> {
    if s.node.state.run().is_none_or(|run| run.job.id != job || run.stage != RunStage::Boot) {
        return Err(Refused::StaleJob { job });
    }
    s.drop_agent();
    s.node.epoch = s.node.epoch.saturating_add(1);
    let Identity { uuid, macs, .. } = &s.node.identity;
    let made_for = Claim { uuid: *uuid, serial: None, macs: macs.iter().copied().collect() };
    let (issued, epoch) = (s.now(), s.node.epoch);
    s.node.link.nonce = Some(Nonce { sha256: nonce, issued, epoch, by: Delivery::Bmc, made_for });
    s.node.medium = Some(Medium { job });
    Ok(())
}

/// The machine was switched on with its image: from now on it has the time of a nonce, however long that took.
pub(super) fn started(s: &mut Step<'_>) {
    let now = s.now();
    let (Some(_), Some(nonce)) = (s.node.medium, &mut s.node.link.nonce) else { return };
    nonce.issued = now;
    if let Some(run) = s.node.state.run_mut() {
        run.enter(RunStage::Kernel, now);
    }
}

/// After every event: an image that nothing waits for any more is ejected, and what is in it counts no more.
pub(super) fn settle(s: &mut Step<'_>) {
    let Some(medium) = s.node.medium else { return };
    if waits(&s.node.state, medium) {
        return;
    }
    s.node.medium = None;
    s.node.link.nonce = None;
    s.effects.push(Effect::EjectMedia);
}

fn waits(state: &State, medium: Medium) -> bool {
    state
        .run()
        .is_some_and(|run| run.job.id == medium.job && matches!(run.stage, RunStage::Boot | RunStage::Kernel))
}
