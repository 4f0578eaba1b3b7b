//! A stand-in for SPDK and for NVIDIA's SNAP-4, which cannot run here: it speaks their JSON-RPC 2.0 and keeps their rules, as far
//! as exporters use them.
//!
//! Sources: SPDK, `doc/jsonrpc.md` and its Python client (package `spdk` 26.9) for `bdev_*` and `vhost_*`; NVIDIA, "SNAP-4 Service RPC
//! Commands" (DOCA 3.2) and the SNAP driver of NVIDIA's DOCA Platform Framework for `virtio_blk_*` and `emulation_function_list`.
//! A name that is taken is `EEXIST` (-17), one that is not there `ENODEV` (-19), a parameter that is missing or not known is -32602.
//!
//! A restart forgets all but functions that were plugged in, which stay with the host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// `EEXIST`, `ENODEV`, and what JSON-RPC 2.0 calls "Invalid params" and "Method not found".
const EXISTS: i64 = -17;
const ABSENT: i64 = -19;
const PARAMS: i64 = -32602;
const METHOD: i64 = -32601;

/// Parameters of a method: those that must be there, and those that may.
type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);
const RULES: &[Rule] = &[
    ("bdev_aio_create", &["name", "filename"], &["block_size", "readonly", "fallocate", "uuid"]),
    ("bdev_aio_delete", &["name"], &[]),
    ("bdev_iscsi_create", &["name", "url", "initiator_iqn"], &[]),
    ("bdev_iscsi_delete", &["name"], &[]),
    (
        "bdev_nvme_attach_controller",
        &["name", "trtype", "traddr"],
        &[
            "adrfam",
            "trsvcid",
            "subnqn",
            "hostnqn",
            "ctrlr_loss_timeout_sec",
            "reconnect_delay_sec",
            "fast_io_fail_timeout_sec",
        ],
    ),
    ("bdev_nvme_detach_controller", &["name"], &[]),
    ("bdev_rbd_register_cluster", &["name"], &["user_id", "config_param", "config_file", "key_file"]),
    ("bdev_rbd_unregister_cluster", &["name"], &[]),
    ("bdev_rbd_create", &["pool_name", "rbd_name", "block_size"], &["name", "cluster_name", "user_id"]),
    ("bdev_rbd_delete", &["name"], &[]),
    ("bdev_get_iostat", &[], &["name", "per_channel"]),
    ("bdev_set_qos_limit", &["name"], &["rw_ios_per_sec", "rw_mbytes_per_sec"]),
    (
        "vhost_create_blk_controller",
        &["ctrlr", "dev_name"],
        &["cpumask", "readonly", "packed_ring", "transport"],
    ),
    ("vhost_delete_controller", &["ctrlr"], &[]),
    ("vhost_get_controllers", &[], &["name"]),
    ("virtio_blk_function_create", &[], &[]),
    ("virtio_blk_function_destroy", &["vuid"], &[]),
    (
        "virtio_blk_controller_create",
        &["bdev"],
        &["ctrl_id", "vuid", "pf_id", "vf_id", "vblk_id", "num_queues", "queue_size"],
    ),
    ("virtio_blk_controller_destroy", &["ctrl_id"], &["force"]),
    ("virtio_blk_controller_hotplug", &["ctrl_id"], &["wait_for_done"]),
    ("virtio_blk_controller_hotunplug", &["ctrl_id"], &["wait_for_done"]),
    ("virtio_blk_controller_list", &[], &["ctrl_id"]),
    ("emulation_function_list", &[], &["all"]),
];

/// The program.
#[derive(Debug)]
pub struct Service {
    state: Arc<Mutex<State>>,
}

/// What it has.
#[derive(Debug, Default)]
pub struct State {
    /// Where sockets of controllers lie (`-S`).
    dir: PathBuf,
    /// Block devices, with the limits that were set.
    pub devices: BTreeMap<String, Value>,
    clusters: BTreeSet<String>,
    /// Controllers by vhost-user, with their devices and sockets.
    vhost: BTreeMap<String, (String, UnixListener)>,
    /// Controllers of functions, with what they were made with.
    pub controllers: BTreeMap<String, Value>,
    /// Functions that were made, and whether the host sees them.
    pub functions: BTreeMap<String, bool>,
    made: u32,
    /// Methods that changed something, in order.
    pub changes: Vec<String>,
}

type Answer = Result<Value, (i64, String)>;

impl Service {
    /// Listens at `socket`; sockets of controllers lie beside it.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn start(socket: &Path) -> Result<Self> {
        let dir = socket.parent().context("a socket in no directory")?.to_owned();
        let state = Arc::new(Mutex::new(State { dir, ..State::default() }));
        let listener = UnixListener::bind(socket)?;
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Ok(Self { state })
    }

    /// What it has now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what a process forgets when it dies.
    pub fn restart(&self) {
        let mut state = self.state();
        state.devices.clear();
        state.clusters.clear();
        let sockets: Vec<PathBuf> = state.vhost.keys().map(|name| state.dir.join(name)).collect();
        state.vhost.clear();
        state.controllers.clear();
        sockets.iter().for_each(|socket| drop(std::fs::remove_file(socket)));
    }
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>) {
    let requests = serde_json::Deserializer::from_reader(stream).into_iter::<Value>();
    for request in requests.map_while(std::result::Result::ok) {
        let method = request["method"].as_str().unwrap_or_default();
        let answer = state.lock().unwrap_or_else(PoisonError::into_inner).handle(method, &request["params"]);
        let answer = match answer {
            Ok(result) => json!({"jsonrpc": "2.0", "id": request["id"], "result": result}),
            Err((code, message)) => {
                json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}})
            }
        };
        if stream.write_all(answer.to_string().as_bytes()).is_err() {
            return;
        }
    }
}

fn error<T>(code: i64, words: &str) -> std::result::Result<T, (i64, String)> {
    Err((code, words.to_owned()))
}

impl State {
    fn handle(&mut self, method: &str, params: &Value) -> Answer {
        let Some((_, must, may)) = RULES.iter().find(|(name, ..)| *name == method) else {
            return error(METHOD, "Method not found");
        };
        let given: BTreeSet<&str> =
            params.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let known = |key: &&str| must.contains(key) || may.contains(key);
        if !must.iter().all(|key| given.contains(key)) || !given.iter().all(known) {
            return error(PARAMS, "Invalid parameters");
        }
        let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        let answer = match method {
            "bdev_rbd_register_cluster" if self.clusters.insert(text("name")) => Ok(json!(text("name"))),
            "bdev_rbd_unregister_cluster" if self.clusters.remove(&text("name")) => Ok(json!(true)),
            "bdev_rbd_register_cluster" => error(EXISTS, "File exists"),
            "bdev_rbd_unregister_cluster" => error(ABSENT, "No such device"),
            // Of a controller's namespaces there is the first.
            "bdev_nvme_attach_controller" => self.add_device(format!("{}n1", text("name"))),
            "bdev_nvme_detach_controller" => self.remove_device(&format!("{}n1", text("name"))),
            "bdev_aio_create" | "bdev_iscsi_create" | "bdev_rbd_create" => self.add_device(text("name")),
            "bdev_aio_delete" | "bdev_iscsi_delete" | "bdev_rbd_delete" => self.remove_device(&text("name")),
            "bdev_set_qos_limit" => self.limit(&text("name"), params),
            "bdev_get_iostat" => return self.iostat(&text("name")),
            "vhost_create_blk_controller" => self.add_vhost(text("ctrlr"), text("dev_name")),
            "vhost_delete_controller" => self.remove_vhost(&text("ctrlr")),
            "vhost_get_controllers" => return Ok(self.vhost_list()),
            "virtio_blk_controller_list" => return Ok(self.controllers.values().cloned().collect()),
            "emulation_function_list" => return Ok(self.function_list()),
            "virtio_blk_function_create" => {
                self.made += 1;
                let vuid = format!("MT2323XZ09G2VBLKS1D0F{}", self.made);
                self.functions.insert(vuid.clone(), false);
                Ok(json!({"vhca_id": self.made, "vuid": vuid}))
            }
            "virtio_blk_function_destroy" => self.remove_function(&text("vuid")),
            "virtio_blk_controller_create" => self.add_controller(params),
            "virtio_blk_controller_destroy" => self
                .controllers
                .remove(&text("ctrl_id"))
                .map(|_| json!(true))
                .ok_or((ABSENT, "No such device".into())),
            "virtio_blk_controller_hotplug" => self.show(&text("ctrl_id"), true),
            _ => self.show(&text("ctrl_id"), false),
        };
        if answer.is_ok() {
            self.changes.push(method.to_owned());
        }
        answer
    }

    fn add_device(&mut self, name: String) -> Answer {
        if self.devices.contains_key(&name) {
            return error(EXISTS, "File exists");
        }
        self.devices.insert(name.clone(), json!({}));
        Ok(json!(name))
    }

    fn remove_device(&mut self, name: &str) -> Answer {
        self.devices.remove(name).map(|_| json!(true)).ok_or((ABSENT, "No such device".to_owned()))
    }

    /// A second of work at 1,000 ticks.
    fn iostat(&self, name: &str) -> Answer {
        if !self.devices.contains_key(name) {
            return error(ABSENT, "No such device");
        }
        Ok(json!({"tick_rate": 1000, "ticks": 1000, "bdevs": [{
            "name": name, "bytes_read": 8192, "num_read_ops": 2, "bytes_written": 4096, "num_write_ops": 1,
            "bytes_unmapped": 0, "num_unmap_ops": 0, "read_latency_ticks": 6, "write_latency_ticks": 1,
            "unmap_latency_ticks": 0}]}))
    }

    fn limit(&mut self, name: &str, params: &Value) -> Answer {
        let device = self.devices.get_mut(name).ok_or((ABSENT, "No such device".to_owned()))?;
        *device = params.clone();
        Ok(json!(true))
    }

    fn add_vhost(&mut self, name: String, device: String) -> Answer {
        if self.vhost.contains_key(&name) {
            return error(EXISTS, "File exists");
        }
        if !self.devices.contains_key(&device) {
            return error(ABSENT, "No such device");
        }
        let listener = UnixListener::bind(self.dir.join(&name)).map_err(|e| (EXISTS, e.to_string()))?;
        self.vhost.insert(name, (device, listener));
        Ok(json!(true))
    }

    fn remove_vhost(&mut self, name: &str) -> Answer {
        if self.vhost.remove(name).is_none() {
            return error(ABSENT, "No such device");
        }
        // Where it is gone already, all the better.
        let _ = std::fs::remove_file(self.dir.join(name));
        Ok(json!(true))
    }

    fn vhost_list(&self) -> Value {
        let one = |(name, (device, _)): (&String, &(String, UnixListener))| {
            json!({"ctrlr": name, "cpumask": "0x1", "delay_base_us": 0, "iops_threshold": 60000,
                   "socket": self.dir.join(name), "sessions": [],
                   "backend_specific": {"block": {"readonly": false, "bdev": device}}})
        };
        self.vhost.iter().map(one).collect()
    }

    fn function_list(&self) -> Value {
        let one = |(vuid, plugged): (&String, &bool)| {
            let ctrl = self.controllers.iter().find(|(_, ctrl)| ctrl["vuid"] == vuid.as_str());
            let mut function = json!({"hotplugged": plugged, "emulation_type": "VBLK", "pf_index": 1,
                                      "pci_bdf": "88:00.4", "vhca_id": 9, "vuid": vuid, "vfs": []});
            if let Some((id, _)) = ctrl {
                function["ctrl_id"] = json!(id);
            }
            function
        };
        self.functions.iter().map(one).collect()
    }

    fn remove_function(&mut self, vuid: &str) -> Answer {
        match self.functions.get(vuid) {
            None => error(ABSENT, "No such device"),
            Some(true) => error(-16, "Device or resource busy"),
            Some(false) => {
                self.functions.remove(vuid);
                Ok(json!(true))
            }
        }
    }

    fn add_controller(&mut self, params: &Value) -> Answer {
        let id = params["ctrl_id"].as_str().unwrap_or("VblkCtrl1").to_owned();
        let is_there = params["vuid"].as_str().is_some_and(|vuid| self.functions.contains_key(vuid));
        if self.controllers.contains_key(&id) {
            return error(EXISTS, "File exists");
        }
        if !self.devices.contains_key(params["bdev"].as_str().unwrap_or_default())
            || !(is_there || params["pf_id"].is_u64())
        {
            return error(ABSENT, "No such device");
        }
        let mut controller = params.clone();
        controller["ctrl_id"] = json!(id);
        self.controllers.insert(id.clone(), controller);
        Ok(json!({"ctrl_id": id}))
    }

    fn show(&mut self, id: &str, shown: bool) -> Answer {
        let controller = self.controllers.get(id).ok_or((ABSENT, "No such device".to_owned()))?;
        let vuid = controller["vuid"].as_str().unwrap_or_default();
        let function = self.functions.get_mut(vuid).ok_or((ABSENT, "No such device".to_owned()))?;
        *function = shown;
        Ok(json!(true))
    }
}
