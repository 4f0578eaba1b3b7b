//! A machine that is only a few fields: it starts at once, says what it boots and echoes what is typed.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use bmc::{BootDevice, BootOverride, Identity, PowerAction, PowerState, Repeat};

use super::machine::Machine;

/// A machine in memory; clones are the same machine.
#[derive(Debug, Clone)]
pub struct MemoryMachine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    on: bool,
    boot: BootOverride,
    media: Option<PathBuf>,
    lies: bool,
    actions: Vec<PowerAction>,
    started_from: Vec<BootDevice>,
    listeners: Vec<Sender<Vec<u8>>>,
}

impl MemoryMachine {
    /// A machine that is off.
    pub fn new(identity: Identity) -> Self {
        let state = State {
            identity,
            on: false,
            boot: no_override(),
            media: None,
            lies: false,
            actions: Vec::new(),
            started_from: Vec::new(),
            listeners: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on it takes every order about power and does nothing.
    pub fn lie(&self, lies: bool) {
        self.lock().lies = lies;
    }

    /// Every action that was asked for, in order.
    pub fn actions(&self) -> Vec<PowerAction> {
        self.lock().actions.clone()
    }

    /// What each start so far was from; [`BootDevice::None`] is the usual order.
    pub fn started_from(&self) -> Vec<BootDevice> {
        self.lock().started_from.clone()
    }

    /// Prints on its serial line.
    pub fn print(&self, bytes: &[u8]) {
        self.lock().print(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self) {
        self.on = true;
        let device = self.boot.device;
        self.started_from.push(device);
        if self.boot.repeat == Repeat::Once {
            self.boot = no_override();
        }
        self.print(format!("starting from {device:?}\r\n").as_bytes());
    }

    fn print(&mut self, bytes: &[u8]) {
        self.listeners.retain(|l| l.send(bytes.to_vec()).is_ok());
    }
}

impl Machine for MemoryMachine {
    fn identity(&self) -> Identity {
        self.lock().identity.clone()
    }

    fn power_state(&self) -> PowerState {
        if self.lock().on { PowerState::On } else { PowerState::Off }
    }

    fn power(&self, action: PowerAction) -> Result<()> {
        let mut state = self.lock();
        state.actions.push(action);
        if state.lies {
            return Ok(());
        }
        match action {
            PowerAction::On if !state.on => state.start(),
            PowerAction::On => {}
            PowerAction::SoftOff | PowerAction::ForceOff => state.on = false,
            PowerAction::Cycle => state.start(),
            PowerAction::Reset => {
                ensure!(state.on, "the machine is off");
                state.start();
            }
            PowerAction::Nmi => {
                ensure!(state.on, "the machine is off");
                state.print(b"NMI received\r\n");
            }
        }
        Ok(())
    }

    fn boot_override(&self) -> BootOverride {
        self.lock().boot.clone()
    }

    fn set_boot_override(&self, wanted: &BootOverride) -> Result<()> {
        self.lock().boot = wanted.clone();
        Ok(())
    }

    fn media(&self) -> Option<PathBuf> {
        self.lock().media.clone()
    }

    fn set_media(&self, image: Option<&Path>) -> Result<()> {
        self.lock().media = image.map(Path::to_owned);
        Ok(())
    }

    fn console(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = channel();
        self.lock().listeners.push(sender);
        receiver
    }

    fn type_console(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.on {
            state.print(bytes);
        }
    }
}

fn no_override() -> BootOverride {
    BootOverride { device: BootDevice::None, repeat: Repeat::Always, mode: None, http_uri: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_for_one_start_is_used_up_and_a_liar_does_nothing() {
        let machine = MemoryMachine::new(Identity::default());
        let console = machine.console();
        let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
        machine.set_boot_override(&pxe).unwrap();
        machine.power(PowerAction::On).unwrap();
        machine.power(PowerAction::Reset).unwrap();
        assert_eq!(machine.started_from(), [BootDevice::Pxe, BootDevice::None]);
        machine.type_console(b"x");
        assert_eq!(
            console.try_iter().flatten().collect::<Vec<_>>(),
            b"starting from Pxe\r\nstarting from None\r\nx"
        );
        machine.lie(true);
        machine.power(PowerAction::ForceOff).unwrap();
        assert_eq!(machine.power_state(), PowerState::On);
    }
}
