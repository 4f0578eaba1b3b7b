//! `qemu-storage-daemon(1)`: a backend as a chain of block nodes, the last of them exported.
//!
//! ```text
//!   backend (iscsi, rbd, nbd, file) ◀─ limited (throttle, where there are limits) ◀─ disk (raw) ◀─ vhost-user-blk
//! ```
//!
//! Nodes are given as JSON, in which no name can be taken for an option. The names of options are those of QEMU's
//! `qapi/block-core.json` and `qapi/block-export.json`, version 7.2.

use protocol::dpu::{Backend, Chap, IoLimits, Volume};
use serde_json::{Value, json};

use super::command::{Launch, Private, Program, deadline};

/// Queues of a disk. A host that asks for more than there are does not start, so there are as many as `billet-blk` has.
const QUEUES: u16 = 64;
/// How often QEMU sends a command of iSCSI again that got no answer in time (`ISCSI_CMD_RETRIES` in `block/iscsi.c`): so the
/// last of one and seven ends at the deadline.
const ISCSI_TRIES: u32 = 8;
/// Of the file with the CHAP password or the key of Ceph.
const SECRET: &str = ".secret";
/// Of the file with settings of the client of Ceph.
const CONF: &str = ".conf";

/// What is run for a volume with this backend.
pub fn launch(volume: &Volume, backend: &Backend, files: &str) -> Launch {
    let mut arguments = Vec::new();
    let mut put = |option: &str, value: Value| arguments.extend([format!("--{option}"), value.to_string()]);
    let mut private = Vec::new();
    if let Some((format, text)) = secret(backend) {
        let file = format!("{files}{SECRET}");
        put("object", json!({"qom-type": "secret", "id": "secret", "file": file, "format": format}));
        private.push(Private { extension: SECRET, text: text.to_owned() });
    }
    if matches!(backend, Backend::Rbd { .. }) {
        private.push(Private { extension: CONF, text: ceph_conf(deadline(volume)) });
    }
    put("blockdev", node(backend, deadline(volume), files));
    let mut below = "backend";
    if let Some(limits) = &volume.limits {
        put("object", json!({"qom-type": "throttle-group", "id": "limits", "limits": group(limits)}));
        put(
            "blockdev",
            json!({"driver": "throttle", "node-name": "limited", "throttle-group": "limits", "file": below,
                   "discard": "unmap"}),
        );
        below = "limited";
    }
    put("blockdev", json!({"driver": "raw", "node-name": "disk", "file": below, "discard": "unmap"}));
    put(
        "export",
        json!({"type": "vhost-user-blk", "id": "disk", "node-name": "disk", "writable": true,
               "num-queues": QUEUES, "addr": {"type": "unix", "path": volume.socket}}),
    );
    Launch { program: Program::Qsd, arguments, files: private }
}

/// The secret of a backend, and how it is written.
fn secret(backend: &Backend) -> Option<(&'static str, &str)> {
    match backend {
        Backend::Iscsi { chap: Some(chap), .. } => Some(("raw", &chap.password.0)),
        Backend::Rbd { key, .. } => Some(("base64", &key.0)),
        Backend::Iscsi { chap: None, .. }
        | Backend::File { .. }
        | Backend::NvmeTcp { .. }
        | Backend::Nbd { .. } => None,
    }
}

/// The lowest node.
fn node(backend: &Backend, deadline: u32, files: &str) -> Value {
    let mut node = match backend {
        Backend::File { path } => {
            let driver = if is_device(path) { "host_device" } else { "file" };
            json!({"driver": driver, "filename": path})
        }
        Backend::Iscsi { portal, target, lun, initiator, chap } => {
            iscsi([portal, target], *lun, initiator.as_deref(), chap.as_ref(), deadline)
        }
        Backend::Rbd { monitors, pool, image, user, .. } => {
            let server: Vec<Value> = monitors.iter().map(|monitor| inet(monitor)).collect();
            json!({"driver": "rbd", "pool": pool, "image": image, "user": user, "key-secret": "secret",
                   "auth-client-required": ["cephx"], "server": server, "conf": format!("{files}{CONF}")})
        }
        // A check refuses these; the program would say that it has no such driver.
        Backend::NvmeTcp { subsystem, .. } => json!({"driver": "nvme-tcp", "subsystem": subsystem}),
        Backend::Nbd { address, export } => {
            let mut server = inet(address);
            server["type"] = "inet".into();
            // Requests wait so long for the connection to come back.
            json!({"driver": "nbd", "server": server, "export": export, "reconnect-delay": deadline})
        }
    };
    node["node-name"] = "backend".into();
    node["discard"] = "unmap".into();
    node
}

fn iscsi(
    [portal, target]: [&str; 2],
    lun: u32,
    initiator: Option<&str>,
    chap: Option<&Chap>,
    deadline: u32,
) -> Value {
    let mut node = json!({"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": lun,
                          "timeout": (deadline / ISCSI_TRIES).max(1)});
    if let Some(initiator) = initiator {
        node["initiator-name"] = initiator.into();
    }
    if let Some(chap) = chap {
        node["user"] = chap.user.clone().into();
        node["password-secret"] = "secret".into();
    }
    node
}

/// Address and port as QEMU takes them. What is neither is left whole, for the program to complain of.
fn inet(address: &str) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    json!({"host": host, "port": port})
}

fn group(limits: &IoLimits) -> Value {
    let mut group = json!({});
    for (name, limit) in [("iops-total", limits.iops), ("bps-total", limits.bytes_per_second)] {
        if let Some(limit) = limit {
            group[name] = limit.into();
        }
    }
    group
}

/// Whether a path is a block device's, of which QEMU wants to be told.
fn is_device(path: &str) -> bool {
    path.starts_with("/dev/") && !path.starts_with("/dev/shm/")
}

/// Ceph's client gives up after so many seconds; without these it never does (Ceph's documentation, "librados: options").
fn ceph_conf(deadline: u32) -> String {
    format!(
        "[client]\nclient_mount_timeout = {deadline}\nrados_mon_op_timeout = {deadline}\nrados_osd_op_timeout = {deadline}\n\
         log_to_stderr = false\nlog_file =\nadmin_socket =\n"
    )
}
