//! The host's bus: where disks are plugged in and out while the host runs. Of a host that is a virtual machine that is QEMU's
//! monitor (QMP, `docs/interop/qmp-spec.txt` and `qapi/` of QEMU 7.2); a BlueField's SNAP has a bus of its own.
//!
//! Each look is a connection of its own: QEMU serves one at a time, and somebody else may want it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpu_agent_core::bus::{Bus, Found, id};
use jsonrpc::{Address, Limits, Splitter};
use protocol::Timestamp;
use protocol::dpu::{Name, Volume};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long QEMU may take for all that is asked in one connection. To plug a disk in it talks to the exporter.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long a host that did not let go of a disk is asked again: a second request within the five seconds of PCI
/// Express' attention button would take the first one back.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// After so long a disk that could not be plugged in is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);
/// Devices with names of somebody's making, and those without.
const PLACES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
/// What a disk can be plugged into while the host runs.
const ROOT_PORTS: [&str; 2] = ["child<pcie-root-port>", "child<ioh3420>"];
/// What is appended to a device's name for its connection to the exporter.
const CHARDEV: &str = "-chardev";
/// Type of a disk.
const DISK: &str = "vhost-user-blk-pci";

/// Why the bus did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens.
    #[error(transparent)]
    Connect(#[from] jsonrpc::ConnectError),
    /// The connection broke, or what came is no message.
    #[error("the host's monitor cannot be talked to")]
    Io(#[from] std::io::Error),
    /// What came is no message.
    #[error("the host's monitor sent what cannot be read")]
    Split(#[from] jsonrpc::SplitError),
    /// What came is no JSON.
    #[error("the host's monitor sent what cannot be read")]
    Json(#[from] serde_json::Error),
    /// QEMU's words.
    #[error("`{command}` was refused: {words}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// Why not.
        words: String,
    },
    /// No answer.
    #[error("the host's monitor did not answer within {PATIENCE:?}")]
    TimeOut,
    /// No place for another disk.
    #[error("the host has no free pcie-root-port: give it more of them")]
    Full,
    /// The program that has the bus.
    #[error(transparent)]
    Service(#[from] crate::exporters::ExporterError),
    /// It was tried a moment ago.
    #[error("{0}")]
    Lately(String),
}

/// A bus into which disks are plugged while the host runs.
pub trait HostBus {
    /// What is plugged in; `None` while the bus is out of reach, as that of a host that is switched off.
    async fn look(&mut self, now: Timestamp) -> Option<Bus>;

    /// Plugs a volume in, which is served already.
    ///
    /// # Errors
    /// [`BusError`].
    async fn plug(&mut self, volume: &Volume, now: Timestamp) -> Result<(), BusError>;

    /// Asks the host to let go of a volume. Where it has, removes what is left.
    ///
    /// # Errors
    /// [`BusError`].
    async fn unplug(&mut self, volume: &Name, now: Timestamp) -> Result<(), BusError>;
}

/// QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    path: PathBuf,
    /// Devices that the host was asked to let go of, when, and the connections that they have to their exporters.
    asked: BTreeMap<String, (Timestamp, String)>,
    /// What could not be plugged in, when, and why.
    failed: BTreeMap<String, (Timestamp, String)>,
}

impl Qmp {
    /// The monitor at this socket.
    pub fn new(path: PathBuf) -> Self {
        Self { path, asked: BTreeMap::new(), failed: BTreeMap::new() }
    }

    async fn found(&mut self, now: Timestamp) -> Result<Bus, BusError> {
        let mut monitor = Monitor::connect(&self.path).await?;
        let devices = monitor.list(PLACES[0]).await?;
        let chardevs = monitor.execute("query-chardev", json!({})).await?;
        let labels: BTreeSet<&str> = chardevs
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|chardev| chardev["label"].as_str())
            .collect();
        let mut found = BTreeMap::new();
        let disk = format!("child<{DISK}>");
        for (name, _) in devices.into_iter().filter(|(_, kind)| *kind == disk) {
            let leaves = self.asked.get(&name).is_some_and(|(asked, _)| now.since(*asked) < ASK_AGAIN);
            found.insert(name, if leaves { Found::Leaves } else { Found::Plugged });
        }
        self.asked.retain(|name, (_, chardev)| found.contains_key(name) || labels.contains(chardev.as_str()));
        let asked = self.asked.iter().map(|(name, (_, chardev))| (name.as_str(), chardev.as_str()));
        let own = labels.iter().filter_map(|label| Some((label.strip_suffix(CHARDEV)?, *label)));
        for (name, _) in asked.chain(own).filter(|(_, label)| labels.contains(label)) {
            found.entry(name.to_owned()).or_insert(Found::Remnant);
        }
        Ok(Bus(found))
    }

    async fn add(&self, volume: &Volume) -> Result<(), BusError> {
        let (device, mut monitor) = (id(&volume.name), Monitor::connect(&self.path).await?);
        let bus = monitor.free_port().await?;
        let chardev = format!("{device}{CHARDEV}");
        let address = json!({"type": "unix", "data": {"path": volume.socket}});
        // In seconds; from QEMU 9.2 on there is also `reconnect-ms`, and this one goes some day.
        let backend = json!({"type": "socket", "data": {"addr": address, "server": false, "reconnect": 1}});
        let chardevs = monitor.execute("query-chardev", json!({})).await?;
        if !chardevs.as_array().is_some_and(|all| all.iter().any(|one| one["label"] == chardev.as_str())) {
            monitor.execute("chardev-add", json!({"id": chardev, "backend": backend})).await?;
        }
        let device = json!({"driver": DISK, "id": device, "chardev": chardev, "bus": bus});
        let added = monitor.execute("device_add", device).await;
        if added.is_err() {
            // What is left keeps the exporter in use.
            let _ = monitor.execute("chardev-remove", json!({"id": chardev})).await;
        }
        added.map(drop)
    }

    async fn remove(&mut self, device: &str, now: Timestamp) -> Result<(), BusError> {
        let mut monitor = Monitor::connect(&self.path).await?;
        let is_there = monitor.list(PLACES[0]).await?.iter().any(|(name, _)| name == device);
        let own = format!("{device}{CHARDEV}");
        if !is_there {
            let chardev = self.asked.get(device).map_or(own, |(_, chardev)| chardev.clone());
            monitor.execute("chardev-remove", json!({"id": chardev})).await?;
            self.asked.remove(device);
            return Ok(());
        }
        let path = format!("{}/{device}", PLACES[0]);
        let has = monitor.execute("qom-get", json!({"path": path, "property": "chardev"})).await?;
        let chardev = has.as_str().filter(|name| !name.is_empty()).map_or(own, str::to_owned);
        match monitor.execute("device_del", json!({"id": device})).await {
            // It goes already.
            Err(BusError::Refused { words, .. }) if words.contains("in the process of unplug") => {}
            done => drop(done?),
        }
        self.asked.insert(device.to_owned(), (now, chardev));
        Ok(())
    }
}

impl HostBus for Qmp {
    async fn look(&mut self, now: Timestamp) -> Option<Bus> {
        match within(self.found(now)).await {
            Ok(bus) => Some(bus),
            // A host that is switched off has no monitor.
            Err(BusError::Connect(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "the host's bus");
                None
            }
        }
    }

    async fn plug(&mut self, volume: &Volume, now: Timestamp) -> Result<(), BusError> {
        let name = id(&volume.name);
        self.failed.retain(|_, (at, _)| now.since(*at) < TRY_AGAIN);
        if let Some((_, why)) = self.failed.get(&name) {
            return Err(BusError::Lately(why.clone()));
        }
        let added = within(self.add(volume)).await;
        if let Err(error) = &added {
            self.failed.insert(name, (now, error.to_string()));
        }
        added
    }

    async fn unplug(&mut self, volume: &Name, now: Timestamp) -> Result<(), BusError> {
        within(self.remove(&id(volume), now)).await
    }
}

/// A connection to QEMU's monitor.
struct Monitor {
    stream: Box<dyn jsonrpc::Io>,
    splitter: Splitter,
}

impl Monitor {
    async fn connect(path: &Path) -> Result<Self, BusError> {
        let stream = Address::Unix(path.to_owned()).connect(PATIENCE).await?;
        let mut monitor = Self { stream, splitter: Splitter::new(Limits::SMALL) };
        // The greeting.
        monitor.message().await?;
        monitor.execute("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    async fn execute(&mut self, command: &'static str, arguments: Value) -> Result<Value, BusError> {
        let mut text = json!({"execute": command, "arguments": arguments}).to_string();
        text.push('\n');
        self.stream.write_all(text.as_bytes()).await?;
        loop {
            let mut message = self.message().await?;
            if let Some(error) = message.get("error") {
                let words = error["desc"].as_str().unwrap_or("without a reason").to_owned();
                return Err(BusError::Refused { command, words });
            }
            // What else comes are events.
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    async fn message(&mut self) -> Result<Value, BusError> {
        loop {
            if let Some(octets) = self.splitter.poll_message()? {
                return Ok(serde_json::from_slice(&octets)?);
            }
            let mut octets = [0; 4096];
            let count = self.stream.read(&mut octets).await?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.splitter.handle_input(octets.get(..count).unwrap_or_default());
        }
    }

    /// Name and type of each device at this place of QEMU's object tree.
    async fn list(&mut self, place: &str) -> Result<Vec<(String, String)>, BusError> {
        let all = self.execute("qom-list", json!({"path": place})).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = all.as_array().into_iter().flatten().map(|one| (text(&one["name"]), text(&one["type"])));
        Ok(all.filter(|(_, kind)| kind.starts_with("child<")).collect())
    }

    /// A root port with nothing in it. What is plugged in says where; `query-pci` knows that only after the host's firmware
    /// numbered the busses.
    async fn free_port(&mut self) -> Result<String, BusError> {
        let (mut ports, mut taken) = (Vec::new(), BTreeSet::new());
        for place in PLACES {
            for (name, kind) in self.list(place).await? {
                let path = format!("{place}/{name}");
                if ROOT_PORTS.contains(&kind.as_str()) && place == PLACES[0] {
                    ports.push(name);
                }
                let on = self.execute("qom-get", json!({"path": path, "property": "parent_bus"})).await;
                if let Ok(Value::String(bus)) = on {
                    taken.insert(bus);
                }
            }
        }
        // A port's bus has the port's name.
        let is_free = |port: &String| !taken.contains(&format!("{}/{port}/{port}", PLACES[0]));
        ports.into_iter().find(is_free).ok_or(BusError::Full)
    }
}

async fn within<T>(done: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    tokio::time::timeout(PATIENCE, done).await.unwrap_or(Err(BusError::TimeOut))
}
