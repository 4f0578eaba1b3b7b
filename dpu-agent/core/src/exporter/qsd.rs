//! `qemu-storage-daemon(1)`: a backend as a chain of block nodes, the last of them exported to `billet-blk`.
//!
//! ```text
//!   backend (iscsi, rbd, nbd, file) ◀─ plain (luks, where it is encrypted) ◀─ disk (raw) ◀─ NBD ◀─ billet-blk (limits)
//! ```
//!
//! Nodes are given as JSON, in which no name can be taken for an option. The names of options are those of QEMU's
//! `qapi/block-core.json` and `qapi/block-export.json`, version 7.2. Nothing here has a deadline: that is `billet-blk`'s, which
//! ends the daemon with all that it still holds.

use protocol::dpu::{Backend, Chap, DEADLINE, DEADLINE_MAX, Encryption, Volume};
use serde_json::{Value, json};

use super::command::{Launch, Private, disk, link};

/// Of the file with the CHAP password or the key of Ceph.
const SECRET: &str = ".secret";
/// Of the file with the key of an encrypted volume.
const KEY: &str = ".key";
/// Of the file with settings of the client of Ceph.
const CONF: &str = ".conf";
/// Not the machine's own settings, and no files of the client's. Its cache is off (`cache.direct`, which QEMU makes `rbd_cache`
/// of): what was answered would die with the daemon.
const CEPH_CONF: &str = "[client]\nlog_to_stderr = false\nlog_file =\nadmin_socket =\n";

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
        private.push(Private { extension: CONF, text: CEPH_CONF.to_owned() });
    }
    put("blockdev", node(backend, files));
    let mut below = "backend";
    if let Some(Encryption::Luks { key }) = &volume.encryption {
        let file = format!("{files}{KEY}");
        put("object", json!({"qom-type": "secret", "id": "key", "file": file, "format": "raw"}));
        private.push(Private { extension: KEY, text: key.0.clone() });
        put("blockdev", json!({"driver": "luks", "node-name": "plain", "key-secret": "key", "file": below}));
        below = "plain";
    }
    put("blockdev", json!({"driver": "raw", "node-name": "disk", "file": below, "discard": "unmap"}));
    let meets = link(volume);
    put("nbd-server", json!({"addr": {"type": "unix", "path": meets}, "max-connections": 1}));
    put(
        "export",
        json!({"type": "nbd", "id": "disk", "node-name": "disk", "name": "disk", "writable": true}),
    );
    let mut words = disk(volume, files);
    let seconds = volume.deadline.unwrap_or(DEADLINE).to_string();
    words.extend(["--deadline".to_owned(), seconds, "--link".to_owned(), meets]);
    Launch { arguments: words, daemon: Some(arguments), files: private }
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
fn node(backend: &Backend, files: &str) -> Value {
    let mut node = match backend {
        Backend::File { path } => {
            let driver = if is_device(path) { "host_device" } else { "file" };
            json!({"driver": driver, "filename": path})
        }
        Backend::Iscsi { portal, target, lun, initiator, chap } => {
            iscsi([portal, target], *lun, initiator.as_deref(), chap.as_ref())
        }
        Backend::Rbd { monitors, pool, image, user, .. } => {
            let server: Vec<Value> = monitors.iter().map(|monitor| inet(monitor)).collect();
            json!({"driver": "rbd", "pool": pool, "image": image, "user": user, "key-secret": "secret",
                   "auth-client-required": ["cephx"], "server": server, "conf": format!("{files}{CONF}"),
                   "cache": {"direct": true}})
        }
        // A check refuses these; the program would say that it has no such driver.
        Backend::NvmeTcp { subsystem, .. } => json!({"driver": "nvme-tcp", "subsystem": subsystem}),
        Backend::Nbd { address, export } => {
            let mut server = inet(address);
            server["type"] = "inet".into();
            // Requests wait so long for the connection to come back.
            json!({"driver": "nbd", "server": server, "export": export, "reconnect-delay": DEADLINE_MAX})
        }
    };
    node["node-name"] = "backend".into();
    node["discard"] = "unmap".into();
    node
}

fn iscsi([portal, target]: [&str; 2], lun: u32, initiator: Option<&str>, chap: Option<&Chap>) -> Value {
    let mut node =
        json!({"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": lun});
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

/// Whether a path is a block device's, of which QEMU wants to be told.
fn is_device(path: &str) -> bool {
    path.starts_with("/dev/") && !path.starts_with("/dev/shm/")
}
