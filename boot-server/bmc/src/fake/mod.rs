//! A machine in memory with a controller that fails on demand, for tests and demonstrations. Nothing in it is left to
//! chance or to the clock: it does what it was asked when it was asked, unless a [`Fault`] says otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use protocol::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::broadcast;

use crate::{
    Bmc, BmcError, BootDevice, BootOverride, CALL_MAX, Component, Console, DriverKind, FirmwareItem,
    Identity, LogCursor, LogEntry, Media, PowerAction, PowerState, Reading, Repeat, Secret, Severity,
};

/// Pieces of output that a console may be behind.
const PIECES: usize = 256;
/// Octets between the machine and who reads its console.
const BUFFER: usize = 16 << 10;

/// What is wrong with the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Every call takes [`CALL_MAX`] and ends in [`BmcError::TimedOut`].
    Hang,
    /// Every call takes this much longer.
    Slow(Duration),
    /// Nobody is there: [`BmcError::Unreachable`] at once.
    Unreachable,
    /// [`BmcError::Login`].
    WrongLogin,
    /// [`BmcError::Refused`], with these words.
    Refuses(String),
    /// It accepts every change and makes none.
    Lies,
}

/// The machine behind the controller; clones are the same machine.
#[derive(Debug, Clone)]
pub struct Machine {
    state: Arc<Mutex<State>>,
    printed: broadcast::Sender<Vec<u8>>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    fault: Option<Fault>,
    power: PowerState,
    boot: BootOverride,
    media: Media,
    identify: bool,
    readings: Vec<Reading>,
    components: Vec<Component>,
    log: Vec<LogEntry>,
    entries: u64,
    actions: Vec<PowerAction>,
    calls: u64,
    console_held: bool,
    resets: u32,
}

impl Machine {
    /// A machine that is off, with a sound controller.
    pub fn new(identity: Identity) -> Self {
        let state = State {
            identity,
            fault: None,
            power: PowerState::Off,
            boot: no_override(),
            media: Media::default(),
            identify: false,
            readings: Vec::new(),
            components: Vec::new(),
            log: Vec::new(),
            entries: 0,
            actions: Vec::new(),
            calls: 0,
            console_held: false,
            resets: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), printed: broadcast::channel(PIECES).0 }
    }

    /// From now on this is wrong with its controller.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Somebody presses the button, of which no driver hears.
    pub fn set_power(&self, power: PowerState) {
        self.lock().power = power;
    }

    /// What its sensors say from now on.
    pub fn set_readings(&self, readings: Vec<Reading>) {
        self.lock().readings = readings;
    }

    /// How its parts are from now on.
    pub fn set_components(&self, components: Vec<Component>) {
        self.lock().components = components;
    }

    /// Adds a line to its event log.
    pub fn log_line(&self, at: Option<Timestamp>, severity: Severity, message: &str) {
        let mut state = self.lock();
        state.entries += 1;
        let id = state.entries.to_string();
        state.log.push(LogEntry { id, at, severity, message: message.to_owned(), sensor: None });
    }

    /// Prints on its serial line; lost where nobody looks.
    pub fn print(&self, octets: &[u8]) {
        // No console is no error.
        let _ = self.printed.send(octets.to_vec());
    }

    /// Every change of power that it was asked for, in order, lies included.
    pub fn actions(&self) -> Vec<PowerAction> {
        self.lock().actions.clone()
    }

    /// Calls that its controller got, failed ones included.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How often its controller was restarted.
    pub fn resets(&self) -> u32 {
        self.lock().resets
    }

    /// Whether its identify light is on.
    pub fn is_identified(&self) -> bool {
        self.lock().identify
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry_out(&mut self, action: PowerAction) -> Result<(), BmcError> {
        let on = self.power == PowerState::On;
        match action {
            PowerAction::On if on => {}
            PowerAction::On | PowerAction::Cycle => self.start(),
            PowerAction::SoftOff | PowerAction::ForceOff => self.power = PowerState::Off,
            PowerAction::Reset if on => self.start(),
            PowerAction::Nmi if on => {}
            PowerAction::Reset | PowerAction::Nmi => {
                return Err(BmcError::Refused {
                    what: action.as_str().into(),
                    why: "the machine is off".into(),
                });
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        self.power = PowerState::On;
        if self.boot.repeat == Repeat::Once {
            self.boot = no_override();
        }
    }
}

/// Its controller.
#[derive(Debug, Clone)]
pub struct Driver {
    machine: Machine,
}

impl Driver {
    /// The controller of this machine.
    pub fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// What a call meets before it is carried out. True where it is to be carried out, false for a liar.
    async fn begin(&self, what: &str) -> Result<bool, BmcError> {
        let fault = {
            let mut state = self.machine.lock();
            state.calls += 1;
            state.fault.clone()
        };
        match fault {
            None => Ok(true),
            Some(Fault::Lies) => Ok(false),
            Some(Fault::Slow(by)) => {
                tokio::time::sleep(by).await;
                Ok(true)
            }
            Some(Fault::Hang) => {
                tokio::time::sleep(CALL_MAX).await;
                Err(BmcError::TimedOut { what: what.to_owned(), after: CALL_MAX })
            }
            Some(Fault::Unreachable) => Err(BmcError::Unreachable { what: "nobody is there".into() }),
            Some(Fault::WrongLogin) => Err(BmcError::Login),
            Some(Fault::Refuses(why)) => Err(BmcError::Refused { what: what.to_owned(), why }),
        }
    }

    /// Changes the machine, unless its controller lies.
    async fn change(&self, what: &str, change: impl FnOnce(&mut State) + Send) -> Result<(), BmcError> {
        if self.begin(what).await? {
            change(&mut self.machine.lock());
        }
        Ok(())
    }
}

#[async_trait]
impl Bmc for Driver {
    fn kind(&self) -> DriverKind {
        DriverKind::Fake
    }

    async fn power_state(&self) -> Result<PowerState, BmcError> {
        self.begin("the power state").await?;
        Ok(self.machine.lock().power)
    }

    async fn power(&self, action: PowerAction) -> Result<(), BmcError> {
        let truly = self.begin("a change of power").await?;
        let mut state = self.machine.lock();
        state.actions.push(action);
        if truly { state.carry_out(action) } else { Ok(()) }
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        self.begin("the boot device").await?;
        Ok(self.machine.lock().boot.clone())
    }

    async fn set_boot_override(&self, wanted: &BootOverride) -> Result<(), BmcError> {
        let wanted = if wanted.device == BootDevice::None { no_override() } else { wanted.clone() };
        self.change("the boot device", |s| s.boot = wanted).await
    }

    async fn identity(&self) -> Result<Identity, BmcError> {
        self.begin("the identity").await?;
        Ok(self.machine.lock().identity.clone())
    }

    async fn readings(&self) -> Result<Vec<Reading>, BmcError> {
        self.begin("the sensors").await?;
        Ok(self.machine.lock().readings.clone())
    }

    async fn components(&self) -> Result<Vec<Component>, BmcError> {
        self.begin("the parts").await?;
        Ok(self.machine.lock().components.clone())
    }

    async fn log(&self, since: Option<&LogCursor>) -> Result<Vec<LogEntry>, BmcError> {
        self.begin("the event log").await?;
        let state = self.machine.lock();
        let seen = since.and_then(|c| state.log.iter().position(|e| e.id == c.id && e.at == c.at));
        Ok(state.log[seen.map_or(0, |at| at + 1)..].to_vec())
    }

    async fn clear_log(&self) -> Result<(), BmcError> {
        self.change("clearing the event log", |s| s.log.clear()).await
    }

    async fn identify(&self, on: bool) -> Result<(), BmcError> {
        self.change("the identify light", |s| s.identify = on).await
    }

    async fn reset_bmc(&self) -> Result<(), BmcError> {
        self.change("restarting the controller", |s| s.resets += 1).await
    }

    async fn media(&self) -> Result<Media, BmcError> {
        self.begin("virtual media").await?;
        Ok(self.machine.lock().media.clone())
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.change("virtual media", |s| s.media = Media { image: Some(url.to_owned()) }).await
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        self.change("virtual media", |s| s.media = Media::default()).await
    }

    async fn console(&self) -> Result<Box<dyn Console>, BmcError> {
        self.begin("the serial console").await?;
        if std::mem::replace(&mut self.machine.lock().console_held, true) {
            return Err(BmcError::Busy { what: "somebody else has its serial console".into() });
        }
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (machine, printed) = (self.machine.clone(), self.machine.printed.subscribe());
        tokio::spawn(async move {
            carry(&machine, printed, ours).await;
            machine.lock().console_held = false;
        });
        Ok(Box::new(theirs))
    }

    async fn firmware(&self) -> Result<Vec<FirmwareItem>, BmcError> {
        self.begin("the firmware").await?;
        let version = self.machine.lock().identity.bmc_version.clone();
        Ok(vec![FirmwareItem {
            id: "bmc".into(),
            name: "Management controller".into(),
            version,
            updateable: false,
        }])
    }

    async fn change_password(&self, _new: &Secret) -> Result<(), BmcError> {
        self.change("changing the password", |_| ()).await
    }
}

/// What the machine prints goes out; what is typed is echoed while it is on.
async fn carry(machine: &Machine, mut printed: broadcast::Receiver<Vec<u8>>, mut stream: DuplexStream) {
    let mut typed = [0; 256];
    loop {
        let octets = tokio::select! {
            piece = printed.recv() => match piece {
                Ok(piece) => piece,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            count = stream.read(&mut typed) => match count {
                Ok(count @ 1..) if machine.lock().power == PowerState::On => typed[..count].to_vec(),
                Ok(1..) => continue,
                _ => return,
            },
        };
        if stream.write_all(&octets).await.is_err() {
            return;
        }
    }
}

fn no_override() -> BootOverride {
    BootOverride { device: BootDevice::None, repeat: Repeat::Always, mode: None, http_uri: None }
}

#[cfg(test)]
mod tests;
