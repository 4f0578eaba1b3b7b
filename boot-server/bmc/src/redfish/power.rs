//! Power: `PowerState` and the action `ComputerSystem.Reset` (DSP0268, ComputerSystem; `Resource.ResetType`).

use super::call::Call;
use super::json::View;
use crate::{BmcError, PowerAction, PowerState};

impl Call<'_> {
    pub(super) async fn power_state(&self) -> Result<PowerState, BmcError> {
        let (_, system) = self.system().await?;
        state(&system.view(self.origin()))
    }

    /// Nothing is sent where the machine already is what is asked for: many controllers call that an error.
    pub(super) async fn power(&self, wanted: PowerAction) -> Result<(), BmcError> {
        let (_, system) = self.system().await?;
        let view = system.view(self.origin());
        let now = state(&view)?;
        let there = match wanted {
            PowerAction::On => now == PowerState::On,
            PowerAction::SoftOff | PowerAction::ForceOff => now == PowerState::Off,
            PowerAction::Reset | PowerAction::Cycle | PowerAction::Nmi => false,
        };
        if there {
            return Ok(());
        }
        let (types, what) = reset_types(wanted);
        let action = self.action(&view, "#ComputerSystem.Reset", "ResetType").await?;
        let action = action.ok_or_else(|| self.unsupported("changing the power"))?;
        self.act(&action, "ResetType", types, what).await.map(|_| ())
    }

    pub(super) async fn reset_bmc(&self) -> Result<(), BmcError> {
        let (_, manager) = self.manager().await?;
        let action = self.action(&manager.view(self.origin()), "#Manager.Reset", "ResetType").await?;
        let what = "restarting the controller";
        let action = action.ok_or_else(|| self.unsupported(what))?;
        self.act(&action, "ResetType", &["GracefulRestart", "ForceRestart"], what).await.map(|_| ())
    }
}

fn state(system: &View<'_>) -> Result<PowerState, BmcError> {
    Ok(match system.text("PowerState")? {
        // A paused machine holds its state and draws power (DSP0268).
        Some("On" | "Paused") => PowerState::On,
        Some("Off") => PowerState::Off,
        Some("PoweringOn") => PowerState::PoweringOn,
        Some("PoweringOff") => PowerState::PoweringOff,
        _ => PowerState::Unknown,
    })
}

/// Names of the schema that do what is asked, the best one first. The power button switches on a machine that is off,
/// and asks the OS of one that runs to shut down; [`Call::power`] looks which of both it is.
fn reset_types(action: PowerAction) -> (&'static [&'static str], &'static str) {
    match action {
        PowerAction::On => (&["On", "ForceOn", "PushPowerButton"], "switching on"),
        PowerAction::SoftOff => (&["GracefulShutdown", "PushPowerButton"], "a shutdown of the OS"),
        PowerAction::ForceOff => (&["ForceOff"], "switching off"),
        PowerAction::Reset => (&["ForceRestart"], "a restart"),
        PowerAction::Cycle => (&["PowerCycle", "FullPowerCycle"], "a power cycle"),
        PowerAction::Nmi => (&["Nmi"], "a non-maskable interrupt"),
    }
}
