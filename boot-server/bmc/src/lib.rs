//! Management controllers (BMCs): what one can do is the trait [`Bmc`]; each protocol is one driver behind it.
//!
//! ```text
//! boot-server (one worker per BMC: order, retries, breaker, lock-out) ─▶ dyn Bmc ─▶ redfish | ipmi | wol | manual | fake
//! ```
//!
//! A driver speaks to one controller and holds its session. It carries out one request at a time and tells the truth
//! about that request; it never retries a change, decides nothing about the machine and remembers nothing of it.
//! Who may ask, how often and what follows is the server's business.

mod error;
pub mod fake;
pub mod ipmi;
pub mod manual;
pub mod redfish;
mod types;
pub mod wol;

use async_trait::async_trait;

pub use error::{BmcError, ErrorKind};
pub use types::{
    BiosAttributes, BootDevice, BootMode, BootOverride, Card, CardChange, CardMode, Component, ComponentKind,
    Credentials, DriverKind, FirmwareItem, Health, HostPrivilege, Identity, LogCursor, LogEntry, Media,
    PowerAction, PowerState, Reading, Repeat, ResetKeys, Secret, SecureBoot, Severity, Task, TaskState, Unit,
    Update,
};

/// A byte stream of a console: what the machine prints comes out, what a person types goes in.
pub trait Console: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Console for T {}

/// One management controller.
///
/// Every call ends within 30 s ([`CALL_MAX`]), with the answer or a named error; a driver that has more to wait for
/// (an update) returns a [`Task`]. What a controller cannot do is [`BmcError::Unsupported`], which is the default of
/// all that not every protocol has. Calls take `&self`, but the caller makes one at a time.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// Which driver this is.
    fn kind(&self) -> DriverKind;

    /// Whether the machine runs, as the controller sees it now.
    async fn power_state(&self) -> Result<PowerState, BmcError>;

    /// Asks for a change of power. Success means that the controller took the request, not that it was carried out:
    /// evidence is [`Bmc::power_state`] and what the machine does on the network.
    async fn power(&self, action: PowerAction) -> Result<(), BmcError>;

    /// What the firmware is told to boot next.
    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        Err(self.unsupported("the boot device"))
    }

    /// Tells the firmware what to boot. The caller reads it back.
    async fn set_boot_override(&self, _wanted: &BootOverride) -> Result<(), BmcError> {
        Err(self.unsupported("setting the boot device"))
    }

    /// Who the machine is: the facts by which a controller and a node are matched.
    async fn identity(&self) -> Result<Identity, BmcError> {
        Err(self.unsupported("the machine's identity"))
    }

    /// All sensors: temperatures, fans, voltages, power.
    async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        Err(self.unsupported("sensors"))
    }

    /// Parts with a state of their own: drives, memory, processors, power supplies, fans.
    async fn components(&self) -> Result<Vec<Component>, BmcError> {
        Err(self.unsupported("the health of parts"))
    }

    /// Lines of the event log after `since`, oldest first; all that it holds (at most [`LOG_MAX`]) where `None`.
    async fn log(&self, _since: Option<&LogCursor>) -> Result<Vec<LogEntry>, BmcError> {
        Err(self.unsupported("the event log"))
    }

    /// Empties the event log.
    async fn clear_log(&self) -> Result<(), BmcError> {
        Err(self.unsupported("clearing the event log"))
    }

    /// Switches the identify light.
    async fn identify(&self, _on: bool) -> Result<(), BmcError> {
        Err(self.unsupported("the identify light"))
    }

    /// Restarts the controller itself; it is not reachable for some minutes.
    async fn reset_bmc(&self) -> Result<(), BmcError> {
        Err(self.unsupported("restarting the controller"))
    }

    /// What is in the virtual drive.
    async fn media(&self) -> Result<Media, BmcError> {
        Err(self.unsupported("virtual media"))
    }

    /// Puts the image at `url` into the virtual CD drive, in place of what is there.
    async fn insert_media(&self, _url: &str) -> Result<(), BmcError> {
        Err(self.unsupported("virtual media"))
    }

    /// Empties the virtual CD drive; no error where it is empty.
    async fn eject_media(&self) -> Result<(), BmcError> {
        Err(self.unsupported("virtual media"))
    }

    /// Opens the serial console. Dropping it ends it. A console that somebody else holds is [`BmcError::Busy`].
    async fn console(&self) -> Result<Box<dyn Console>, BmcError> {
        Err(self.unsupported("a serial console"))
    }

    /// Firmware versions: controller, BIOS, adapters, disks.
    async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        Err(self.unsupported("a list of firmware"))
    }

    /// Starts a firmware update.
    async fn update(&self, _update: &Update) -> Result<Task, BmcError> {
        Err(self.unsupported("firmware updates"))
    }

    /// How far a task is.
    async fn task(&self, _id: &str) -> Result<Task, BmcError> {
        Err(self.unsupported("tasks"))
    }

    /// Ids of all tasks that the controller knows, old ones included.
    async fn tasks(&self) -> Result<Vec<String>, BmcError> {
        Err(self.unsupported("a list of tasks"))
    }

    /// BIOS attributes as they are.
    async fn bios(&self) -> Result<BiosAttributes, BmcError> {
        Err(self.unsupported("BIOS attributes"))
    }

    /// Sets BIOS attributes, in force after the next restart. Names and values as [`Bmc::bios`] gives them.
    async fn set_bios(&self, _changes: &BiosAttributes) -> Result<(), BmcError> {
        Err(self.unsupported("BIOS attributes"))
    }

    /// Whether Secure Boot is on, now and after the next restart.
    async fn secure_boot(&self) -> Result<SecureBoot, BmcError> {
        Err(self.unsupported("Secure Boot"))
    }

    /// Switches Secure Boot, in force after the next restart.
    async fn set_secure_boot(&self, _on: bool) -> Result<(), BmcError> {
        Err(self.unsupported("Secure Boot"))
    }

    /// Resets the Secure Boot key databases.
    async fn reset_secure_boot_keys(&self, _to: ResetKeys) -> Result<(), BmcError> {
        Err(self.unsupported("Secure Boot keys"))
    }

    /// The DPU that the controller is one of.
    async fn card(&self) -> Result<Card, BmcError> {
        Err(self.unsupported("the set-up of a DPU"))
    }

    /// Changes something of the DPU that the controller is one of.
    async fn change_card(&self, _change: CardChange) -> Result<(), BmcError> {
        Err(self.unsupported("the set-up of a DPU"))
    }

    /// Gives the account that this driver logs in with another password.
    async fn change_password(&self, _new: &Secret) -> Result<(), BmcError> {
        Err(self.unsupported("changing the password"))
    }

    /// Asks the controller to send its events to `destination`, with `context` in each (Redfish `EventService`). One that
    /// is there already is used again; one of the same context to another place is ended. Returns what it is ended by.
    async fn subscribe(&self, _destination: &str, _context: &str) -> Result<String, BmcError> {
        Err(self.unsupported("subscriptions to events"))
    }

    /// Ends a subscription. One that is gone is no error.
    async fn unsubscribe(&self, _subscription: &str) -> Result<(), BmcError> {
        Err(self.unsupported("subscriptions to events"))
    }

    /// Ends the session, if there is one. Called before the driver is dropped; errors are of no use to anybody.
    async fn close(&self) {}

    /// The error of what this driver cannot do.
    fn unsupported(&self, what: &'static str) -> BmcError {
        BmcError::Unsupported { driver: self.kind(), what }
    }
}

/// Longest that one call takes.
pub const CALL_MAX: std::time::Duration = std::time::Duration::from_secs(30);
/// Most lines that are read of an event log: what the largest controllers hold.
pub const LOG_MAX: usize = 4096;
