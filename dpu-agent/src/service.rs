//! Volumes that a running program serves, which is asked by JSON-RPC: SPDK, and SNAP, which is SPDK with functions of the
//! host's PCI Express bus. What they serve is read from their lists; ours is what carries a volume's name.
//!
//! ```text
//! <dir>/spdk/<volume>.json, <dir>/snap/<volume>.json   the volume as it was asked for, written before that
//! ```
//!
//! A program that was started anew has forgotten everything. Then a volume counts as dead and is made again, at the function that
//! it had: functions that were plugged in outlive SNAP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dpu_agent_core::bus::{Bus, Found};
use dpu_agent_core::exporter::rpc::{self, Call};
use dpu_agent_core::exporter::{Attempts, Exporters, Held, Life, Started, Then};
use jsonrpc::{Address, CallError, Client, Dialect, Limits, Options};
use protocol::Timestamp;
use protocol::counters::DiskCounters;
use protocol::dpu::{Function, Name, VOLUMES_MAX, Volume};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bus::{BusError, HostBus};
use crate::exporters::{ExporterError, Serve};
use crate::files::{self, failed};
use crate::unix;

/// How long a call may take: a backend is connected to within it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a list may take: others wait for their turn.
const LOOK: Duration = Duration::from_secs(2);
/// Octets of a record.
const RECORD_MAX: usize = 64 << 10;
/// After so long a host that did not let go of a function is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SPDK's target, by vhost-user.
    Spdk,
    /// NVIDIA's SNAP-4.
    Snap,
}

/// A program that serves volumes.
#[derive(Debug)]
pub struct Service {
    kind: Kind,
    address: Option<Address>,
    client: Option<Client>,
    dir: PathBuf,
    /// So long after the last connection a volume counts as in use.
    quiet: Duration,
    all: BTreeMap<Name, Served>,
    /// Functions that the host was asked to let go of.
    asked: BTreeMap<Name, Timestamp>,
    /// Of the last look.
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Served {
    record: Record,
    attempts: Attempts,
    lived: bool,
    used: Timestamp,
}

/// What was asked for, as it stands on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    volume: Volume,
    /// The function that was made for it (VUID).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<String>,
}

/// What a program has, by the names of its controllers.
#[derive(Debug, Default)]
struct Seen {
    /// With the block devices that they serve.
    controllers: BTreeMap<String, String>,
    /// Those that the host sees.
    plugged: BTreeSet<String>,
}

impl Service {
    /// The program at `address`, with what the files know of. `None`: there is none.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn load(
        kind: Kind,
        address: Option<Address>,
        dir: &Path,
        quiet: Duration,
        now: Timestamp,
    ) -> Result<Self, ExporterError> {
        let dir = dir.join(kind.word());
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(failed("read", &dir))? {
            let path = entry.map_err(failed("read", &dir))?.path();
            if path.extension().is_none_or(|kind| kind != "json") {
                continue;
            }
            let read = serde_json::from_slice(&files::read(&path, RECORD_MAX)?);
            let record: Record = read.map_err(|cause| ExporterError::Record { path, cause })?;
            all.insert(record.volume.name.clone(), Served::of(record, now));
            if all.len() > VOLUMES_MAX {
                return Err(ExporterError::Many(dir));
            }
        }
        let (client, asked, seen) = (None, BTreeMap::new(), None);
        Ok(Self { kind, address, client, dir, quiet, all, asked, seen })
    }

    async fn call(&mut self, call: Call) -> Result<Value, ExporterError> {
        let Some(address) = &self.address else { return Err(ExporterError::NoService(self.kind.word())) };
        if self.client.is_none() {
            let stream = address.connect(PATIENCE).await.map_err(ExporterError::Connect)?;
            let options = Options { dialect: Dialect::V2, limits: Limits::SMALL, patience: PATIENCE };
            // It says nothing by itself.
            self.client = Some(Client::start(stream, options, |_| None));
        }
        let Some(client) = &self.client else { return Err(ExporterError::NoService(self.kind.word())) };
        let is_look = call.method.ends_with("_list") || call.method.contains("_get_");
        let patience = if is_look { LOOK } else { PATIENCE };
        let answer = client.call_within(call.method, call.params, patience).await;
        if matches!(answer, Err(CallError::Closed { .. } | CallError::TimeOut { .. })) {
            self.client = None;
        }
        answer.map_err(ExporterError::Call)
    }

    async fn observe(&mut self) -> Result<Seen, ExporterError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut seen = Seen::default();
        if self.kind == Kind::Spdk {
            let all = self.call(Call { method: "vhost_get_controllers", params: json!({}) }).await?;
            for one in all.as_array().into_iter().flatten() {
                let device = text(&one["backend_specific"]["block"]["bdev"]).unwrap_or_default();
                seen.controllers.extend(text(&one["ctrlr"]).map(|name| (name, device)));
            }
            return Ok(seen);
        }
        let all = self.call(Call { method: "virtio_blk_controller_list", params: json!({}) }).await?;
        for one in all.as_array().into_iter().flatten() {
            let device = text(&one["bdev"]).unwrap_or_default();
            seen.controllers.extend(text(&one["ctrl_id"]).map(|name| (name, device)));
        }
        let all = self.call(Call { method: "emulation_function_list", params: json!({"all": true}) }).await?;
        let plugged = all.as_array().into_iter().flatten().filter(|one| one["hotplugged"] == true);
        seen.plugged = plugged.filter_map(|one| text(&one["ctrl_id"])).collect();
        Ok(seen)
    }

    fn keep(&self, record: &Record) -> Result<(), ExporterError> {
        let text = serde_json::to_vec(record).expect("a record is texts and numbers");
        Ok(files::replace_private(&self.file(&record.volume.name), &text)?)
    }

    fn file(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    async fn make(&mut self, mut record: Record) -> Result<(), ExporterError> {
        let volume = record.volume.clone();
        // What an earlier try left. Most of it is not there, which is refused.
        self.clear(&volume).await?;
        for call in rpc::attach(&volume) {
            self.call(call).await?;
        }
        let export = match self.kind {
            Kind::Spdk => rpc::export_vhost(&volume),
            Kind::Snap => {
                if rpc::function(&volume) == Function::Hotplug && record.function.is_none() {
                    let made =
                        self.call(Call { method: "virtio_blk_function_create", params: json!({}) }).await?;
                    record.function = made["vuid"].as_str().map(str::to_owned);
                    self.keep(&record)?;
                    if let Some(served) = self.all.get_mut(&volume.name) {
                        served.record = record.clone();
                    }
                }
                rpc::export_snap(&volume, record.function.as_deref())
            }
        };
        self.call(export).await.map(drop)
    }

    /// Takes the volume's controller and device away, as far as they are there.
    async fn clear(&mut self, volume: &Volume) -> Result<(), ExporterError> {
        let withdraw = match self.kind {
            Kind::Spdk => rpc::withdraw_vhost(volume),
            Kind::Snap => rpc::withdraw_snap(volume),
        };
        for call in [withdraw].into_iter().chain(rpc::detach(volume)) {
            match self.call(call).await {
                Ok(_) | Err(ExporterError::Call(CallError::Refused { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the program has the volume, as it was asked for.
    fn has(&self, volume: &Volume) -> bool {
        let name = self.kind.controller(volume);
        let device = self.seen.as_ref().and_then(|seen| seen.controllers.get(&name));
        device.is_some_and(|device| *device == rpc::device(volume))
    }

    fn is_plugged(&self, volume: &Volume) -> bool {
        let name = self.kind.controller(volume);
        self.seen.as_ref().is_some_and(|seen| seen.plugged.contains(&name))
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Spdk => "spdk",
            Self::Snap => "snap",
        }
    }

    fn controller(self, volume: &Volume) -> String {
        match self {
            Self::Spdk => rpc::vhost(volume),
            Self::Snap => rpc::id(&volume.name),
        }
    }
}

impl Served {
    fn of(record: Record, now: Timestamp) -> Self {
        Self { record, attempts: Attempts::default(), lived: false, used: now }
    }

    fn look_dead(&mut self, reached: bool, now: Timestamp) -> Life {
        if self.lived && reached {
            tracing::warn!(volume = %self.record.volume.name, "the volume is not served any more");
            self.attempts.handle_death(now);
            self.lived = false;
        }
        Life::Dead { due: reached && self.attempts.due(now), lived: self.attempts.lived() }
    }
}

impl Serve for Service {
    async fn look(&mut self, now: Timestamp) -> Exporters {
        self.seen = if self.address.is_some() { self.observe().await.ok() } else { None };
        let table = fs::read_to_string(unix::TABLE).unwrap_or_default();
        let sockets = unix::sockets(&table);
        let names: Vec<Name> = self.all.keys().cloned().collect();
        let mut exporters = Exporters::new();
        for name in names {
            let Some(volume) = self.all.get(&name).map(|served| served.record.volume.clone()) else {
                continue;
            };
            let (reached, is_there) = (self.seen.is_some(), self.has(&volume));
            let uses = sockets.get(volume.socket.as_str()).copied().unwrap_or_default();
            let connected = match self.kind {
                Kind::Spdk => uses.connected,
                Kind::Snap => self.is_plugged(&volume),
            };
            let (quiet, kind) = (self.quiet, self.kind);
            let Some(served) = self.all.get_mut(&name) else { continue };
            let life = if is_there {
                served.attempts.handle_found();
                served.lived = true;
                if connected {
                    served.used = now;
                }
                let held = match kind {
                    Kind::Spdk if !uses.listens => Held::Opening,
                    _ if connected => Held::Connected,
                    Kind::Spdk if now.since(served.used) < quiet => Held::Lately,
                    _ => Held::Free,
                };
                Life::Runs { pid: None, held }
            } else {
                served.look_dead(reached, now)
            };
            exporters.insert(name, Started { volume, life });
        }
        exporters
    }

    fn restarts(&self, name: &Name) -> u32 {
        self.all.get(name).map_or(0, |served| served.attempts.restarts())
    }

    async fn start(&mut self, volume: &Volume, now: Timestamp) -> Result<(), ExporterError> {
        let before = self.all.get(&volume.name).map(|served| served.record.clone());
        let function = before.as_ref().and_then(|record| record.function.clone());
        let record = Record { volume: volume.clone(), function };
        if before.as_ref() != Some(&record) {
            self.keep(&record)?;
        }
        let served = self.all.entry(volume.name.clone()).or_insert_with(|| Served::of(record.clone(), now));
        served.record = record.clone();
        served.attempts.handle_start(now);
        (served.lived, served.used) = (true, now);
        self.make(record).await
    }

    async fn stop(&mut self, name: &Name, _pid: Option<u32>, _then: Then) -> Result<(), ExporterError> {
        let Some(record) = self.all.get(name).map(|served| served.record.clone()) else { return Ok(()) };
        self.clear(&record.volume).await?;
        if let Some(vuid) = &record.function {
            let call = Call { method: "virtio_blk_function_destroy", params: json!({"vuid": vuid}) };
            match self.call(call).await {
                // It is gone already, as after a cold start of the host.
                Ok(_) | Err(ExporterError::Call(CallError::Refused { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        files::remove(&self.file(name))?;
        self.all.remove(name);
        Ok(())
    }

    async fn limit(&mut self, volume: &Volume) -> Result<(), ExporterError> {
        let Some(function) = self.all.get(&volume.name).map(|served| served.record.function.clone()) else {
            return Ok(());
        };
        self.call(rpc::set_limits(volume)).await?;
        let record = Record { volume: volume.clone(), function };
        self.keep(&record)?;
        if let Some(served) = self.all.get_mut(&volume.name) {
            served.record = record;
        }
        Ok(())
    }

    async fn counters(&mut self) -> Vec<(Name, DiskCounters)> {
        let volumes: Vec<Volume> = self.all.values().map(|served| served.record.volume.clone()).collect();
        let mut found = Vec::new();
        for volume in volumes.into_iter().filter(|volume| self.has(volume)).collect::<Vec<_>>() {
            match self.call(rpc::ask_counters(&volume)).await {
                Ok(answer) => {
                    found.extend(rpc::counters(&volume, &answer).map(|counters| (volume.name, counters)));
                }
                // This one is gone meanwhile; the others are asked on.
                Err(ExporterError::Call(CallError::Refused { .. })) => {}
                Err(_) => break,
            }
        }
        found
    }
}

impl HostBus for Service {
    async fn look(&mut self, now: Timestamp) -> Option<Bus> {
        self.seen.as_ref()?;
        let mut found = BTreeMap::new();
        for (name, served) in &self.all {
            let volume = &served.record.volume;
            if !self.is_plugged(volume) {
                continue;
            }
            let leaves = self.asked.get(name).is_some_and(|asked| now.since(*asked) < ASK_AGAIN);
            found.insert(dpu_agent_core::bus::id(name), if leaves { Found::Leaves } else { Found::Plugged });
        }
        self.asked.retain(|name, _| found.contains_key(&dpu_agent_core::bus::id(name)));
        Some(Bus(found))
    }

    async fn plug(&mut self, volume: &Volume, _now: Timestamp) -> Result<(), BusError> {
        let params = json!({"ctrl_id": rpc::id(&volume.name), "wait_for_done": false});
        self.call(Call { method: "virtio_blk_controller_hotplug", params }).await?;
        Ok(())
    }

    async fn unplug(&mut self, volume: &Name, now: Timestamp) -> Result<(), BusError> {
        let params = json!({"ctrl_id": rpc::id(volume), "wait_for_done": false});
        self.call(Call { method: "virtio_blk_controller_hotunplug", params }).await?;
        self.asked.insert(volume.clone(), now);
        Ok(())
    }
}
