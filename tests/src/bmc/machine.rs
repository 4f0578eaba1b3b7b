//! What a controller has its hands on: the power button, the boot order, the CD drive and the serial line of one machine.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use anyhow::Result;
use bmc::{BootOverride, Identity, PowerAction, PowerState};

/// One machine, as the endpoints of the stand-in see it. Calls may take as long as the real thing does; they are made
/// from threads of their own, or from `spawn_blocking`.
pub trait Machine: Send + Sync {
    /// Who it is.
    fn identity(&self) -> Identity;

    /// Whether it runs.
    fn power_state(&self) -> PowerState;

    /// Presses the button. What changes nothing (on where it is on) is no error.
    ///
    /// # Errors
    /// Where it cannot be done in this state (reset where it is off), or the machine breaks.
    fn power(&self, action: PowerAction) -> Result<()>;

    /// What it boots next. An override for one start is gone once that start began.
    fn boot_override(&self) -> BootOverride;

    /// Orders what it boots next; [`bmc::BootDevice::None`] takes an order back.
    ///
    /// # Errors
    /// Where it has no such device.
    fn set_boot_override(&self, wanted: &BootOverride) -> Result<()>;

    /// The file that is in the CD drive.
    fn media(&self) -> Option<PathBuf>;

    /// Puts the image in this file into the CD drive, or empties it.
    ///
    /// # Errors
    /// Where it has no drive.
    fn set_media(&self, image: Option<&Path>) -> Result<()>;

    /// What it prints on its serial line from now on, across power cycles.
    fn console(&self) -> Receiver<Vec<u8>>;

    /// Types on its serial line; lost while it is off.
    fn type_console(&self, bytes: &[u8]);
}
