//! A QEMU machine of the rack behind a controller: the button is QMP, the boot order is `bootindex`, the serial line is
//! that of the machine.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use bmc::{BootDevice, BootOverride, Identity, PowerAction, PowerState, Repeat};
use serde_json::json;

use super::machine::Machine;
use crate::rack::{self, BootFirst};

/// A machine of the rack that a controller and the test share; clones are the same machine.
#[derive(Debug, Clone)]
pub struct QemuMachine {
    machine: Arc<Mutex<rack::Machine>>,
    identity: Identity,
    /// The override as it was ordered: device, mode and address are more than QEMU's order of devices tells.
    ordered: Arc<Mutex<Option<BootOverride>>>,
}

impl QemuMachine {
    /// Gives the machine to a controller.
    pub fn new(machine: rack::Machine) -> Self {
        let identity = Identity {
            manufacturer: Some("Billet".into()),
            model: Some("Rack Machine".into()),
            serial: Some(machine.system_serial()),
            uuid: Some(machine.uuid()),
            macs: machine.mac(0).parse().into_iter().collect(),
            ..Identity::default()
        };
        Self { machine: Arc::new(Mutex::new(machine)), identity, ordered: Arc::default() }
    }

    /// The machine itself, for the test; the controller waits meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, rack::Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ordered(&self) -> MutexGuard<'_, Option<BootOverride>> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for QemuMachine {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn power_state(&self) -> PowerState {
        if self.lock().is_on() { PowerState::On } else { PowerState::Off }
    }

    fn power(&self, action: PowerAction) -> Result<()> {
        let mut machine = self.lock();
        let on = machine.is_on();
        match action {
            PowerAction::On if on => Ok(()),
            PowerAction::On => machine.power_on(),
            PowerAction::SoftOff | PowerAction::ForceOff if !on => Ok(()),
            PowerAction::SoftOff => machine.press_power(),
            PowerAction::ForceOff => machine.power_off(),
            PowerAction::Reset => machine.reset(),
            PowerAction::Cycle => {
                if on {
                    machine.power_off()?;
                }
                machine.power_on()
            }
            PowerAction::Nmi => machine.qmp()?.command("inject-nmi", json!({})).map(drop),
        }
    }

    fn boot_override(&self) -> BootOverride {
        let none =
            BootOverride { device: BootDevice::None, repeat: Repeat::Always, mode: None, http_uri: None };
        // Once the machine used its order up, the override is gone too.
        if self.lock().boots_first().is_none() {
            return none;
        }
        self.ordered().clone().unwrap_or(none)
    }

    fn set_boot_override(&self, wanted: &BootOverride) -> Result<()> {
        let first = match wanted.device {
            BootDevice::None => None,
            BootDevice::Pxe | BootDevice::Http => Some(BootFirst::Network),
            BootDevice::Disk => Some(BootFirst::Disk),
            BootDevice::Cdrom => Some(BootFirst::Cdrom),
            BootDevice::Bios => bail!("a machine of the rack has no set-up pages"),
        };
        self.lock().boot_first(first, wanted.repeat == Repeat::Once);
        *self.ordered() = Some(wanted.clone());
        Ok(())
    }

    fn media(&self) -> Option<PathBuf> {
        self.lock().media().map(Path::to_owned)
    }

    fn set_media(&self, image: Option<&Path>) -> Result<()> {
        self.lock().set_media(image)
    }

    fn console(&self) -> Receiver<Vec<u8>> {
        self.lock().serial().listen()
    }

    fn type_console(&self, bytes: &[u8]) {
        // A machine that is off has nobody to read it.
        let _ = self.lock().type_bytes(bytes);
    }
}
