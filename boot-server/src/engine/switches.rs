//! Power by hand: what a person asks for, and whether it happened.

use std::time::Duration;

use bmc::{PowerAction, PowerState};
use boot_server_core::node::Severity;
use protocol::NodeId;

use super::{Actor, Change, Engine, EngineError, lock};
use crate::asking::carried;
use crate::power::{self, chance};
use crate::view::PowerView;

/// How long whoever asked waits for the proof.
const SOON: Duration = Duration::from_secs(8);
/// How long the effect of a command may take before it is said to have none.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same for an OS that is asked to shut down.
const PATIENCE_SOFT: Duration = Duration::from_mins(5);
/// The first pause between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(8);

/// What a command must bring about; `None` where no reading can tell (a restart looks like nothing).
fn wanted(action: PowerAction) -> Option<PowerState> {
    match action {
        PowerAction::On => Some(PowerState::On),
        PowerAction::SoftOff | PowerAction::ForceOff => Some(PowerState::Off),
        PowerAction::Reset | PowerAction::Cycle | PowerAction::Nmi => None,
    }
}

impl Engine {
    /// Switches a machine, and waits a little for the proof that it happened. Where that does not come in time, somebody
    /// goes on looking, and a command without effect becomes an event.
    ///
    /// # Errors
    /// What the controller says.
    pub async fn switch(
        &self,
        node: NodeId,
        actor: Actor,
        action: PowerAction,
    ) -> Result<PowerView, EngineError> {
        let what = format!("power {} asked for", action.as_str().replace('_', " "));
        self.bmc_change(node, actor, power::Change::Power(action), ("power.asked", what)).await?;
        let Some(wanted) = wanted(action) else {
            // It was taken; the machine's next packet is the proof.
            let state = self.0.power.power_state(node).await?;
            return Ok(PowerView { state, confirmed: false });
        };
        let state = self.await_power(node, wanted, SOON).await?;
        let confirmed = state == wanted;
        self.note_power(node, Some(state)).await?;
        // A driver that cannot know says so, and nobody looks on.
        if !confirmed && state != PowerState::Unknown {
            let engine = self.clone();
            tokio::spawn(carried(async move { engine.look_on(node, action, wanted).await }));
        }
        self.announce(Change::Node(node));
        Ok(PowerView { state, confirmed })
    }

    /// Reads the power state until it is as wanted, at most for `patience`.
    async fn await_power(
        &self,
        node: NodeId,
        wanted: PowerState,
        patience: Duration,
    ) -> Result<PowerState, EngineError> {
        let end = tokio::time::Instant::now() + patience;
        let mut pause = LOOK;
        loop {
            let state = self.0.power.power_state(node).await?;
            let over = tokio::time::Instant::now() + pause >= end;
            if state == wanted || state == PowerState::Unknown || over {
                return Ok(state);
            }
            tokio::time::sleep(chance().jitter(pause)).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    async fn look_on(&self, node: NodeId, action: PowerAction, wanted: PowerState) {
        let soft = action == PowerAction::SoftOff;
        let patience = if soft { PATIENCE_SOFT } else { PATIENCE };
        let noted = match self.await_power(node, wanted, patience).await {
            Ok(state) if state == wanted => Ok(()),
            Ok(_) => {
                let address =
                    lock(&self.0.bmcs).get(&node).map(|row| row.address.clone()).unwrap_or_default();
                let word = action.as_str().replace('_', " ");
                let hint = if soft { "the OS may not listen to the power button" } else { "restart the BMC" };
                let message =
                    format!("the BMC {address} accepted power {word}, and nothing happened ({hint})");
                self.note(Actor::Server, Some(node), "power.no_effect", Severity::Warning, message).await
            }
            // That it does not answer is told by its worker.
            Err(error) => {
                tracing::debug!(%node, %error, "whether a machine was switched is not known");
                Ok(())
            }
        };
        if let Err(error) = noted {
            tracing::error!(%node, %error, "an event was not stored");
        }
    }
}
