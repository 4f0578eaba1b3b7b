//! What SPDK and SNAP are asked for, by JSON-RPC. Methods and parameters are those of SPDK's `doc/jsonrpc.md` (v24.01 and
//! later) and of NVIDIA's "SNAP-4 Service RPC Commands" (DOCA 3.2); both programs have the first, SNAP has both.
//!
//! What is made carries the volume's name with a prefix, so that it is known again in their lists.

use std::fmt;

use protocol::counters::{DiskCounters, Requests};
use protocol::dpu::{Backend, DEADLINE, Exporter, Function, IoLimits, Name, Volume};
use serde_json::{Value, json};

/// Bytes of a block: what boot loaders expect of a disk.
const BLOCK: u32 = 512;
/// SPDK keeps limits in steps of so many requests and bytes per second, and rounds up (`SPDK_BDEV_QOS_MIN_IOS_PER_SEC`).
const IOS_STEP: u64 = 1000;
const MIB: u64 = 1 << 20;
/// Parameters of `bdev_set_qos_limit`.
const IOS: &str = "rw_ios_per_sec";
const BYTES: &str = "rw_mbytes_per_sec";
const NO_LIMITS: IoLimits = IoLimits { iops: None, bytes_per_second: None };
/// Seconds between two tries to reach an NVMe controller that is away.
const RECONNECT: u32 = 2;

/// A call.
#[derive(Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// Its parameters, which may hold secrets.
    pub params: Value,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.method).finish()
    }
}

fn call(method: &'static str, params: Value) -> Call {
    Call { method, params }
}

/// The name of what is made for a volume: its block device where that is not a part of something, its controller.
pub fn id(volume: &Name) -> String {
    format!("billet-{volume}")
}

/// The backend of a volume that SPDK or SNAP serves.
pub fn backend(volume: &Volume) -> Option<&Backend> {
    match &volume.exporter {
        Exporter::Spdk { backend } | Exporter::Snap { backend, .. } => Some(backend),
        Exporter::Blk { .. } | Exporter::Qsd { .. } => None,
    }
}

/// The name of the volume's block device.
pub fn device(volume: &Volume) -> String {
    let id = id(&volume.name);
    match backend(volume) {
        // Namespaces are devices of their controller.
        Some(Backend::NvmeTcp { namespace, .. }) => format!("{id}n{namespace}"),
        _ => id,
    }
}

/// Makes the volume's block device, with its limits.
pub fn attach(volume: &Volume) -> Vec<Call> {
    let name = id(&volume.name);
    let deadline = volume.deadline.unwrap_or(DEADLINE);
    let mut calls = match backend(volume) {
        Some(Backend::File { path }) => {
            vec![call("bdev_aio_create", json!({"name": name, "filename": path, "block_size": BLOCK}))]
        }
        Some(Backend::Iscsi { portal, target, lun, initiator, chap }) => {
            let who =
                chap.as_ref().map(|chap| format!("{}%{}@", chap.user, chap.password.0)).unwrap_or_default();
            let url = format!("iscsi://{who}{portal}/{target}/{lun}");
            // SPDK has no name of its own to give.
            let own = initiator.clone().unwrap_or_else(|| format!("iqn.2026-01.billet:{}", volume.name));
            vec![call("bdev_iscsi_create", json!({"name": name, "url": url, "initiator_iqn": own}))]
        }
        Some(Backend::Rbd { monitors, pool, image, user, key }) => {
            let settings = json!({"mon_host": monitors.join(","), "key": key.0, "rbd_cache": "false",
                "auth_client_required": "cephx",
                "rados_osd_op_timeout": deadline.to_string(), "rados_mon_op_timeout": deadline.to_string()});
            vec![
                call(
                    "bdev_rbd_register_cluster",
                    json!({"name": name, "user_id": user, "config_param": settings}),
                ),
                call(
                    "bdev_rbd_create",
                    json!({"name": name, "cluster_name": name, "pool_name": pool, "rbd_name": image,
                           "block_size": BLOCK}),
                ),
            ]
        }
        Some(Backend::NvmeTcp { address, subsystem, .. }) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let family = if bare.is_some() { "ipv6" } else { "ipv4" };
            // The controller is tried for ever; what waits for it is an error after the deadline.
            let params = json!({"name": name, "trtype": "TCP", "adrfam": family, "traddr": bare.unwrap_or(host),
                "trsvcid": port, "subnqn": subsystem, "ctrlr_loss_timeout_sec": -1,
                "reconnect_delay_sec": RECONNECT.min(deadline), "fast_io_fail_timeout_sec": deadline});
            vec![call("bdev_nvme_attach_controller", params)]
        }
        // A check refuses these.
        Some(Backend::Nbd { .. }) | None => Vec::new(),
    };
    calls.extend(volume.limits.map(|limits| limit(&device(volume), limits)));
    calls
}

/// Sets the limits of a volume that is served; none where it has none.
pub fn set_limits(volume: &Volume) -> Call {
    let mut call = limit(&device(volume), volume.limits.unwrap_or(NO_LIMITS));
    for name in [IOS, BYTES] {
        if call.params.get(name).is_none() {
            // "0 means unlimited".
            call.params[name] = 0.into();
        }
    }
    call
}

/// Asks for what a volume's block device did so far (`bdev_get_iostat`).
pub fn ask_counters(volume: &Volume) -> Call {
    call("bdev_get_iostat", json!({"name": device(volume)}))
}

/// What the answer to [`ask_counters`] says of the volume. Latencies are in ticks, of which there are `tick_rate` in a second. What the
/// program does not say is 0: flushes it does not count, and errors only newer ones tell of.
pub fn counters(volume: &Volume, answer: &Value) -> Option<DiskCounters> {
    let name = device(volume);
    let of = answer["bdevs"].as_array()?.iter().find(|one| one["name"] == name.as_str())?;
    let ticks = answer["tick_rate"].as_u64().filter(|rate| *rate > 0)?;
    let number = |key: &str| of[key].as_u64().unwrap_or(0);
    let requests = |requests: &str, bytes: &str, latency: &str| Requests {
        requests: number(requests),
        bytes: number(bytes),
        micros: u64::try_from(u128::from(number(latency)) * 1_000_000 / u128::from(ticks))
            .unwrap_or(u64::MAX),
    };
    let errors = of["io_error"].as_object().into_iter().flat_map(|all| all.values());
    Some(DiskCounters {
        read: requests("num_read_ops", "bytes_read", "read_latency_ticks"),
        write: requests("num_write_ops", "bytes_written", "write_latency_ticks"),
        zero: Requests { bytes: 0, ..requests("num_unmap_ops", "bytes_unmapped", "unmap_latency_ticks") },
        flush: None,
        errors: errors.filter_map(Value::as_u64).fold(0, u64::saturating_add),
    })
}

fn limit(device: &str, limits: IoLimits) -> Call {
    let IoLimits { iops, bytes_per_second } = limits;
    let mut params = json!({"name": device});
    if let Some(iops) = iops {
        params[IOS] = (iops.div_ceil(IOS_STEP) * IOS_STEP).into();
    }
    if let Some(bytes) = bytes_per_second {
        params[BYTES] = bytes.div_ceil(MIB).into();
    }
    call("bdev_set_qos_limit", params)
}

/// Takes the volume's block device away.
pub fn detach(volume: &Volume) -> Vec<Call> {
    let name = json!({"name": id(&volume.name)});
    let methods: &[&'static str] = match backend(volume) {
        Some(Backend::File { .. }) => &["bdev_aio_delete"],
        Some(Backend::Iscsi { .. }) => &["bdev_iscsi_delete"],
        Some(Backend::Rbd { .. }) => &["bdev_rbd_delete", "bdev_rbd_unregister_cluster"],
        Some(Backend::NvmeTcp { .. }) => &["bdev_nvme_detach_controller"],
        Some(Backend::Nbd { .. }) | None => &[],
    };
    methods.iter().map(|method| call(method, name.clone())).collect()
}

/// The name of the controller of SPDK: its socket is the file of this name in SPDK's directory (`-S`).
pub fn vhost(volume: &Volume) -> String {
    volume.socket.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Gives the block device to a host by vhost-user.
pub fn export_vhost(volume: &Volume) -> Call {
    let params = json!({"ctrlr": vhost(volume), "dev_name": device(volume)});
    call("vhost_create_blk_controller", params)
}

/// Takes it from the host again.
pub fn withdraw_vhost(volume: &Volume) -> Call {
    call("vhost_delete_controller", json!({"ctrlr": vhost(volume)}))
}

/// Makes the block device a disk of the host's function. `vuid` names a function that was made for it.
pub fn export_snap(volume: &Volume, vuid: Option<&str>) -> Call {
    let mut params = json!({"ctrl_id": id(&volume.name), "bdev": device(volume)});
    if !volume.serial.is_empty() {
        params["vblk_id"] = volume.serial.clone().into();
    }
    match function(volume) {
        Function::Hotplug => params["vuid"] = vuid.into(),
        Function::Pf { pf } => params["pf_id"] = pf.into(),
        Function::Vf { pf, vf } => {
            params["pf_id"] = pf.into();
            params["vf_id"] = vf.into();
        }
    }
    call("virtio_blk_controller_create", params)
}

/// Takes it from the function again.
pub fn withdraw_snap(volume: &Volume) -> Call {
    let mut params = json!({"ctrl_id": id(&volume.name)});
    if matches!(function(volume), Function::Vf { .. }) {
        // While the host has SR-IOV enabled it is refused otherwise.
        params["force"] = true.into();
    }
    call("virtio_blk_controller_destroy", params)
}

/// The host's function that a volume is given to.
pub fn function(volume: &Volume) -> Function {
    match volume.exporter {
        Exporter::Snap { function, .. } => function,
        _ => Function::Hotplug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer is that of SPDK's `doc/jsonrpc.md` (`bdev_get_iostat`), with numbers of ours.
    #[test]
    fn what_a_device_did() {
        let volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-backends.v1.json")).unwrap();
        let volume = volumes.iter().find(|volume| backend(volume).is_some()).unwrap();
        let answer = json!({"tick_rate": 2_200_000_000_u64, "ticks": 73_u64, "bdevs": [
            {"name": "Nvme0n1", "bytes_read": 1, "num_read_ops": 1},
            {"name": device(volume), "bytes_read": 8192, "num_read_ops": 2, "bytes_written": 512, "num_write_ops": 1,
             "bytes_unmapped": 4096, "num_unmap_ops": 1, "read_latency_ticks": 2_200_000, "max_read_latency_ticks": 1,
             "write_latency_ticks": 4400, "unmap_latency_ticks": 0, "io_error": {"failed": 2, "nvme_error": 1}}]});
        let found = counters(volume, &answer).unwrap();
        assert_eq!(found.read, Requests { requests: 2, bytes: 8192, micros: 1000 });
        assert_eq!(found.write, Requests { requests: 1, bytes: 512, micros: 2 });
        assert_eq!((found.zero.requests, found.flush, found.errors), (1, None, 3));
        assert_eq!(counters(&volumes[0], &json!({"tick_rate": 0})), None);
        let none = set_limits(&Volume { limits: None, ..volume.clone() });
        assert_eq!((&none.params[IOS], &none.params[BYTES]), (&json!(0), &json!(0)), "taken away again");
    }

    #[test]
    fn what_is_asked_for() {
        let mut volumes: Vec<Volume> =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-backends.v1.json")).unwrap();
        let mut text = String::new();
        volumes.retain(|volume| backend(volume).is_some());
        assert_eq!(volumes.len(), 5);
        for volume in volumes {
            let export = match volume.exporter {
                Exporter::Snap { .. } => [export_snap(&volume, Some("VUID")), withdraw_snap(&volume)],
                _ => [export_vhost(&volume), withdraw_vhost(&volume)],
            };
            let [export, withdraw] = export;
            text += &format!("{}:\n", volume.name);
            for call in attach(&volume).into_iter().chain([export, withdraw]).chain(detach(&volume)) {
                assert!(!format!("{call:?}").contains("secret"));
                text += &format!("  {} {}\n", call.method, call.params);
            }
        }
        insta::assert_snapshot!(text.trim_end());
    }
}
