//! Management controllers (BMCs): one worker for each, so that nothing of one ever waits for another.
//!
//! ```text
//! engine ──ask──▶ mailbox of the node's worker ──one call at a time──▶ dyn Bmc ─▶ controller
//!        ◀─answer─                │
//!        ◀──────────news──────────┘  lost, back, login refused, other certificate, power that drifted
//! ```
//!
//! A worker keeps the order of requests, asks a read again but never a change that may have been done, leaves alone what
//! does not answer, and stops before an account is locked. What it decides by is `boot_server_core::bmc`. What follows from
//! an answer, who may ask, and what is stored, is the engine's business.

mod ask;
mod clock;
mod driver;
mod error;
pub mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmc::{
    BmcError, Component, Console, Credentials, DriverKind, ErrorKind, LogEntry, PowerState, Reading, Secret,
};
use boot_server_core::node::Netboot;
use protocol::{MacAddr, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

pub use ask::{Change, Read, Reply};
pub(crate) use clock::Clock;
pub use driver::{Drivers, Made, drivers, kg};
pub use error::PowerError;
pub(crate) use worker::{chance, power_of};

use crate::engine::lock;
use ask::{Ask, What};
use worker::{Signals, Worker};

/// Requests that may wait for one controller; more are refused, because they would be answered too late.
const MAILBOX_MAX: usize = 32;
/// News that may wait for the engine; workers wait for room.
pub const NEWS_MAX: usize = 1024;
/// Longest that somebody waits for an answer: a call of 30 s that another one is before.
const ASK_MAX: Duration = Duration::from_secs(65);
/// Longest that the end of a session may take.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What the driver of one controller is told beside address and account. All can be left open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How the machine's firmware is told to boot from the network; as it did last if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netboot: Option<Netboot>,
    /// Redfish: `http://` addresses are allowed, and the password is sent in the clear. For emulators.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
    /// Redfish: id of the system, where a controller has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// A controller and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub node: NodeId,
    /// By which driver.
    pub driver: DriverKind,
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// The account.
    pub credentials: Option<Credentials>,
    /// SHA-256 of the pinned certificate, in hexadecimal.
    pub certificate: Option<String>,
    /// Fingerprint of the pinned SSH key.
    pub host_key: Option<String>,
    /// K_g of IPMI: a text, or octets in hexadecimal behind `0x`.
    pub kg: Option<Secret>,
    /// What else the driver is told.
    pub options: Options,
    /// Ports of the machine, for wake-on-LAN.
    pub macs: Vec<MacAddr>,
    /// Power as it was stored.
    pub power: Option<PowerState>,
    /// When the controller was last restarted.
    pub reset_at: Option<Timestamp>,
    /// Where it is asked to send its events.
    pub events: Option<String>,
    /// Somebody just named it and wants to see something: it is looked at now, and not when its turn comes.
    pub now: bool,
}

impl Target {
    /// A controller of which nothing else is known.
    pub fn new(node: NodeId, driver: DriverKind, address: impl Into<String>) -> Self {
        Self {
            node,
            driver,
            address: address.into(),
            port: None,
            credentials: None,
            certificate: None,
            host_key: None,
            kg: None,
            options: Options::default(),
            macs: Vec::new(),
            power: None,
            reset_at: None,
            events: None,
            now: false,
        }
    }
}

/// How a controller is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Power as it was last read.
    pub power: Option<PowerState>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Calls in a row that failed.
    pub failures: u32,
    /// Why the last call failed, if it did.
    pub error: Option<Trouble>,
    /// It is left alone until then.
    pub wait_until: Option<Timestamp>,
    /// Whether it sends its events; `None` where it was not asked to.
    pub events: Option<Result<(), String>>,
}

/// A failure as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: ErrorKind,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl Trouble {
    fn of(error: &BmcError) -> Self {
        Self { kind: error.kind(), message: error.to_string(), hint: error.hint() }
    }
}

/// Something that a worker found out by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Whose controller.
    pub node: NodeId,
    /// Where it is.
    pub address: String,
    /// What.
    pub news: News,
}

/// What a worker found out.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// What is known of it changed.
    Status(Status),
    /// It does not answer and is left alone for a while.
    Lost(Trouble),
    /// It answers again.
    Back,
    /// It refuses the account.
    Login(Trouble),
    /// It shows another certificate; nothing is sent to it any more.
    Certificate(Trouble),
    /// The certificate that it showed at first.
    Pinned(String),
    /// The SSH key that it showed at first.
    HostKey(String),
    /// Power changed, and nobody asked Billet for it; true: on.
    Drift(bool),
    /// The controller itself is being restarted.
    Reset(Timestamp),
    /// What it measured.
    Health(HealthRead),
}

/// What a controller measured. What it cannot tell is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthRead {
    /// Sensors.
    pub readings: Arc<Vec<Reading>>,
    /// Parts.
    pub components: Arc<Vec<Component>>,
    /// Lines of its event log since the last look.
    pub lines: Arc<Vec<LogEntry>>,
}

/// How often workers look by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two readings of the power state, jittered.
    pub poll: Duration,
    /// The same while the account is refused: far below what locks one.
    pub poll_refused: Duration,
    /// Between two looks at sensors, parts and event log, jittered.
    pub health: Duration,
    /// Between two looks at whether it still sends its events, at least.
    pub subscription: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_mins(1),
            poll_refused: Duration::from_mins(5),
            health: Duration::from_mins(5),
            subscription: Duration::from_mins(30),
        }
    }
}

/// All workers. Cheap to clone.
#[derive(Clone)]
pub struct Power(Arc<Inner>);

struct Inner {
    workers: Mutex<BTreeMap<NodeId, Handle>>,
    drivers: Drivers,
    timing: Timing,
    news: mpsc::Sender<Told>,
    stop: CancellationToken,
}

struct Handle {
    mailbox: mpsc::Sender<Ask>,
    status: Arc<Mutex<Status>>,
    /// Where its controller is: one that is spoken to elsewhere is another one.
    address: String,
    /// An event came in.
    event: Arc<Notify>,
    /// The controller is left for good.
    leave: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Power {
    /// No workers yet; what they find out goes to `news`.
    pub fn new(drivers: Drivers, timing: Timing, news: mpsc::Sender<Told>) -> Self {
        let stop = CancellationToken::new();
        Self(Arc::new(Inner { workers: Mutex::default(), drivers, timing, news, stop }))
    }

    /// Whether a driver can be made of this.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn check(&self, target: &Target) -> Result<(), BmcError> {
        if target.driver == DriverKind::Manual {
            return Ok(());
        }
        (self.0.drivers)(target).map(drop)
    }

    /// Logs in to a controller that has no worker, reads its power, and logs out.
    ///
    /// # Errors
    /// What the controller says.
    pub async fn log_in(&self, target: &Target) -> Result<PowerState, BmcError> {
        let made = (self.0.drivers)(target)?;
        let after = bmc::CALL_MAX + Duration::from_secs(1);
        let read = tokio::time::timeout(after, made.bmc.power_state()).await;
        // A session that cannot be closed ends by itself.
        let _ = tokio::time::timeout(CLOSE_MAX, made.bmc.close()).await;
        read.unwrap_or(Err(BmcError::TimedOut { what: "the first login".to_owned(), after }))
    }

    /// Starts the worker of a controller, in place of the one that the node had: that one ends its session first.
    ///
    /// # Errors
    /// Where the driver cannot be made of this.
    pub fn set(&self, target: Target) -> Result<(), BmcError> {
        let made = (self.0.drivers)(&target)?;
        let mut workers = lock(&self.0.workers);
        let before = workers.remove(&target.node).map(|handle| {
            handle.leave.store(handle.address != target.address, Ordering::Relaxed);
            handle.stop.cancel();
            handle.task
        });
        let (mailbox, asked) = mpsc::channel(MAILBOX_MAX);
        let stop = self.0.stop.child_token();
        let status = Status { power: target.power, ..Status::default() };
        let status = Arc::new(Mutex::new(status));
        let (node, address) = (target.node, target.address.clone());
        let (event, leave) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
        let signals = Signals { event: event.clone(), leave: leave.clone() };
        let told = (status.clone(), self.0.news.clone());
        let worker = Worker::new(target, made, asked, told, self.0.timing, signals);
        let token = stop.clone();
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // Bounded by itself; a worker that broke holds no session that could be ended.
                drop(before.await);
            }
            worker.run(token).await;
        });
        workers.insert(node, Handle { mailbox, status, address, event, leave, stop, task });
        Ok(())
    }

    /// An event of the node's controller came in: it is looked at soon. What the event says counts for nothing.
    pub fn event(&self, node: NodeId) {
        if let Some(handle) = lock(&self.0.workers).get(&node) {
            handle.event.notify_one();
        }
    }

    /// Ends the worker of a node; its subscription and its session are closed behind this call.
    pub fn remove(&self, node: NodeId) {
        if let Some(handle) = lock(&self.0.workers).remove(&node) {
            handle.leave.store(true, Ordering::Relaxed);
            handle.stop.cancel();
        }
    }

    /// How the node's controller is; `None` where it has none.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        lock(&self.0.workers).get(&node).map(|handle| lock(&handle.status).clone())
    }

    /// Reads something. Equal reads that wait are answered together.
    ///
    /// # Errors
    /// [`PowerError`].
    pub async fn read(&self, node: NodeId, read: Read) -> Result<Reply, PowerError> {
        let (answer, answered) = oneshot::channel();
        self.send(node, Ask { what: What::Read(read, answer) })?;
        wait(answered).await
    }

    /// Power as it is now.
    ///
    /// # Errors
    /// [`PowerError`].
    pub async fn power_state(&self, node: NodeId) -> Result<PowerState, PowerError> {
        match self.read(node, Read::Power).await? {
            Reply::Power(power) => Ok(power),
            other => Err(PowerError::wrong_reply(&other)),
        }
    }

    /// Changes something; success means that the controller took it, and for a boot device that it shows it.
    ///
    /// # Errors
    /// [`PowerError`].
    pub async fn change(&self, node: NodeId, change: Change) -> Result<Reply, PowerError> {
        let (answer, answered) = oneshot::channel();
        self.send(node, Ask { what: What::Change(Box::new(change), answer) })?;
        wait(answered).await
    }

    /// Opens the serial console of a node. Dropping it ends it; the worker goes on meanwhile.
    ///
    /// # Errors
    /// [`PowerError`]; a console that somebody else holds is a [`BmcError::Busy`] in it.
    pub async fn open_console(&self, node: NodeId) -> Result<Box<dyn Console>, PowerError> {
        let (answer, answered) = oneshot::channel();
        self.send(node, Ask { what: What::Console(answer) })?;
        wait(answered).await
    }

    /// Ends all workers and waits until their sessions are closed.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        let workers = std::mem::take(&mut *lock(&self.0.workers));
        for (node, handle) in workers {
            if let Err(error) = handle.task.await {
                tracing::error!(%node, %error, "a BMC's worker broke");
            }
        }
    }

    fn send(&self, node: NodeId, ask: Ask) -> Result<(), PowerError> {
        let workers = lock(&self.0.workers);
        let handle = workers.get(&node).ok_or(PowerError::NoBmc)?;
        handle.mailbox.try_send(ask).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => PowerError::Full,
            mpsc::error::TrySendError::Closed(_) => PowerError::Gone,
        })
    }
}

async fn wait<T>(answered: oneshot::Receiver<Result<T, PowerError>>) -> Result<T, PowerError> {
    match tokio::time::timeout(ASK_MAX, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(PowerError::Gone),
        Err(_) => Err(PowerError::Late),
    }
}
