//! Volumes that can be served, or what is wrong with them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use protocol::dpu::{
    Backend, Chap, DEADLINE_MAX, Desired, Discard, Encryption, Exporter, IoLimits, Name, Serves, Volume,
};
use protocol::job::CloudConfig;

use super::{PATH_MAX, absolute, once};
use crate::exporter::{LINK, claims};

/// Octets of a path that a socket can have (`sun_path` of `unix(7)`, without the NUL).
const SOCKET_PATH_MAX: usize = 107;
/// Smallest and largest volume of `billet-blk`, in bytes: a sector, and what a signed offset reaches.
const SECTOR: u64 = 512;
/// Octets of a name of iSCSI and NVMe (RFC 7143 section 4.2.7.1; NVM Express base specification 2.0, section 4.5).
const QUALIFIED_NAME_MAX: usize = 223;
/// Octets of names of pools, images, users and exports: NBD's limit is 4096, file systems' is 255, and nobody's names are longer.
const NAME_MAX: usize = 255;
/// Monitors of a cluster: Ceph advises seven at most.
const MONITORS_MAX: usize = 16;
/// Largest number of an iSCSI logical unit that is addressed flatly (SAM-5, 4.7.7.1).
const LUN_MAX: u32 = 16_383;
/// Octets of a CHAP password.
const CHAP_PASSWORD: std::ops::RangeInclusive<usize> = 12..=16;
/// Octets of the key of an encrypted volume: shorter ones can be guessed, longer ones (`DEFAULT_PASSPHRASE_SIZE_MAX` of cryptsetup) no tool takes.
const KEY: std::ops::RangeInclusive<usize> = 16..=512;
/// Largest limit of requests or bytes (`THROTTLE_VALUE_MAX` of QEMU: 10^15).
const LIMIT_MAX: u64 = 1_000_000_000_000_000;

/// What is wrong with the volumes.
pub fn volumes(desired: &Desired, wrong: &mut Vec<String>) {
    once("volume", desired.volumes.iter().map(|volume| &volume.name), wrong);
    once("place", desired.volumes.iter().flat_map(claims), wrong);
    discards(desired, wrong);
    for volume in &desired.volumes {
        let name = &volume.name;
        let serial = &volume.serial;
        if serial.len() > 20 || !serial.bytes().all(|b| b.is_ascii_graphic()) {
            wrong.push(format!(
                "serial `{serial}` of volume {name} is not up to 20 printable ASCII characters"
            ));
        }
        // Beside it is the socket of the daemon behind it.
        let most = SOCKET_PATH_MAX - LINK.len();
        if !absolute(&volume.socket, most) {
            wrong.push(path(name, "socket", most));
        }
        if volume.deadline.is_some_and(|deadline| !(1..=DEADLINE_MAX).contains(&deadline)) {
            wrong.push(format!("deadline of volume {name} is not from 1 to {DEADLINE_MAX} seconds"));
        }
        limits(volume, wrong);
        encryption(volume, wrong);
        fill(volume, wrong);
        match &volume.exporter {
            Exporter::Blk { serves } => blk(name, serves, wrong),
            Exporter::Qsd { backend } => {
                self::backend(name, backend, wrong);
                if matches!(backend, Backend::NvmeTcp { .. }) {
                    wrong.push(format!(
                        "volume {name} is reached by NVMe/TCP, which qemu-storage-daemon does not speak: another exporter does"
                    ));
                }
            }
            Exporter::Spdk { backend } | Exporter::Snap { backend, .. } => {
                self::backend(name, backend, wrong);
                // They are given in a URL, without a way to write these characters otherwise.
                if let Backend::Iscsi { chap: Some(Chap { user, password }), .. } = backend
                    && [user, &password.0].iter().any(|text| text.contains(['%', '@', '/', ':', '?', '#']))
                {
                    wrong.push(format!(
                        "user or password of volume {name} has characters that SPDK cannot be given"
                    ));
                }
                if matches!(backend, Backend::Nbd { .. }) {
                    wrong.push(format!(
                        "volume {name} is reached by NBD, which SPDK does not speak: another exporter does"
                    ));
                }
            }
        }
    }
}

/// What is to go is nobody's, and lies where a layer can lie.
fn discards(desired: &Desired, wrong: &mut Vec<String>) {
    once("layer that is to go", desired.discard.iter().map(|one| &one.layer), wrong);
    for one in &desired.discard {
        let Discard { name, layer } = one;
        if !absolute(layer, PATH_MAX) {
            wrong.push(path(name, "layer", PATH_MAX));
        }
        if desired.volumes.iter().any(|volume| volume.name == *name || claims(volume).contains(layer)) {
            wrong.push(format!("the layer of volume {name} is to go, and a volume of the state has it"));
        }
    }
}

fn limits(volume: &Volume, wrong: &mut Vec<String>) {
    let Some(IoLimits { iops, bytes_per_second }) = volume.limits else { return };
    let name = &volume.name;
    let mut all = iops.into_iter().chain(bytes_per_second);
    if iops.is_none() && bytes_per_second.is_none() {
        wrong.push(format!("limits of volume {name} limit nothing: leave them out"));
    }
    if all.any(|limit| !(1..=LIMIT_MAX).contains(&limit)) {
        wrong.push(format!("limits of volume {name} are not from 1 to {LIMIT_MAX}"));
    }
}

fn encryption(volume: &Volume, wrong: &mut Vec<String>) {
    let Some(Encryption::Luks { key }) = &volume.encryption else { return };
    let name = &volume.name;
    let other = match &volume.exporter {
        Exporter::Qsd { .. } => None,
        Exporter::Blk { .. } => Some("blk"),
        Exporter::Spdk { .. } => Some("spdk"),
        Exporter::Snap { .. } => Some("snap"),
    };
    if let Some(other) = other {
        wrong.push(format!("volume {name} is encrypted, which exporter {other} does not do: take qsd"));
    }
    if !is_word(&key.0, *KEY.end()) || key.0.len() < *KEY.start() {
        wrong.push(format!(
            "key of volume {name} is not {} to {} printable ASCII characters without spaces",
            KEY.start(),
            KEY.end()
        ));
    }
}

fn blk(name: &Name, serves: &Serves, wrong: &mut Vec<String>) {
    match serves {
        Serves::File { path: file, .. } if !absolute(file, PATH_MAX) => {
            wrong.push(path(name, "path", PATH_MAX));
        }
        Serves::File { .. } => {}
        Serves::Image { store, layer, size, config, .. } => {
            if !absolute(layer, PATH_MAX) {
                wrong.push(path(name, "layer", PATH_MAX));
            }
            self::store(name, store, wrong);
            if size.is_some_and(|size| size == 0 || size % SECTOR != 0 || i64::try_from(size).is_err()) {
                wrong.push(format!("size of volume {name} is no multiple of {SECTOR} up to 2^63"));
            }
            self::config(name, config.as_ref(), wrong);
        }
    }
}

fn store(name: &Name, store: &str, wrong: &mut Vec<String>) {
    // Names are not looked up there.
    let has_address = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        host.parse::<SocketAddr>().is_ok()
            || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    };
    let url = store.strip_prefix("http://").is_some_and(|rest| is_word(rest, PATH_MAX) && has_address(rest));
    let fits = store.len() <= PATH_MAX && (url || absolute(store, PATH_MAX));
    if !fits {
        wrong.push(format!(
            "store `{store}` of volume {name} is no http:// URL with an address and no absolute path"
        ));
    }
}

fn config(name: &Name, config: Option<&CloudConfig>, wrong: &mut Vec<String>) {
    let files = config.iter().flat_map(|config| &config.config_drive);
    for file in files.filter(|file| !is_seed_path(&file.path)) {
        wrong.push(format!(
            "file `{}` of the config of volume {name} is no path without `.`, `..`, `//` and control characters",
            file.path
        ));
    }
}

/// An image is written by who has the bytes before a host does.
fn fill(volume: &Volume, wrong: &mut Vec<String>) {
    let Some(fill) = &volume.fill else { return };
    let name = &volume.name;
    let why = match &volume.exporter {
        Exporter::Qsd { .. } | Exporter::Blk { serves: Serves::File { read_only: false, .. } } => None,
        Exporter::Blk { serves: Serves::File { read_only: true, .. } } => Some("is read-only: write to it"),
        Exporter::Blk { serves: Serves::Image { .. } } => {
            Some("is an instant volume, which has its image already")
        }
        // Their bytes are in a process of somebody else's, which shows them on the DPU only by a module of the kernel
        // (`nbd_start_disk`, `ublk_start_disk`), where there is one.
        Exporter::Spdk { .. } => Some("has exporter spdk, through which no image is written: take qsd"),
        Exporter::Snap { .. } => Some("has exporter snap, through which no image is written: take qsd"),
    };
    if let Some(why) = why {
        wrong.push(format!("an image is to be written into volume {name}, which {why}"));
    }
    store(name, &fill.store, wrong);
    config(name, fill.config.as_ref(), wrong);
}

/// Whether a path from the root of a config drive names a file of it.
fn is_seed_path(path: &str) -> bool {
    absolute(&format!("/{path}"), NAME_MAX)
}

fn backend(name: &Name, backend: &Backend, wrong: &mut Vec<String>) {
    let mut address = |what: &str, text: &str| {
        if !text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0) {
            wrong.push(format!("{what} `{text}` of volume {name} is not ADDRESS:PORT"));
        }
    };
    match backend {
        Backend::File { path: file } => {
            if !absolute(file, PATH_MAX) {
                wrong.push(path(name, "path", PATH_MAX));
            }
        }
        Backend::Iscsi { portal, target, lun, initiator, chap } => {
            address("portal", portal);
            words(name, [("target", target.as_str())], QUALIFIED_NAME_MAX, wrong);
            words(name, initiator.iter().map(|i| ("initiator", i.as_str())), QUALIFIED_NAME_MAX, wrong);
            if *lun > LUN_MAX {
                wrong.push(format!("logical unit {lun} of volume {name} is above {LUN_MAX}"));
            }
            if let Some(Chap { user, password }) = chap {
                words(name, [("user", user.as_str())], NAME_MAX, wrong);
                if !is_word(&password.0, *CHAP_PASSWORD.end()) || password.0.len() < *CHAP_PASSWORD.start() {
                    wrong.push(format!(
                        "password of volume {name} is not {} to {} printable ASCII characters without spaces",
                        CHAP_PASSWORD.start(),
                        CHAP_PASSWORD.end()
                    ));
                }
            }
        }
        Backend::Rbd { monitors, pool, image, user, key } => {
            monitors.iter().for_each(|monitor| address("monitor", monitor));
            if monitors.is_empty() || monitors.len() > MONITORS_MAX {
                wrong.push(format!("volume {name} has {} monitors, not 1 to {MONITORS_MAX}", monitors.len()));
            }
            let names = [("pool", pool), ("image", image), ("user", user)];
            words(name, names.map(|(what, text)| (what, text.as_str())), NAME_MAX, wrong);
            let is_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
            if !is_word(&key.0, NAME_MAX) || !key.0.bytes().all(is_digit) || key.0.len() % 4 != 0 {
                wrong.push(format!("key of volume {name} is no base64"));
            }
        }
        Backend::NvmeTcp { address: to, subsystem, namespace } => {
            address("address", to);
            words(name, [("subsystem", subsystem.as_str())], QUALIFIED_NAME_MAX, wrong);
            if matches!(*namespace, 0 | u32::MAX) {
                wrong.push(format!("namespace {namespace} of volume {name} is none"));
            }
        }
        Backend::Nbd { address: to, export } => {
            address("address", to);
            if !export.is_empty() {
                words(name, [("export", export.as_str())], NAME_MAX, wrong);
            }
        }
    }
}

/// Names what is not printable, empty or too long.
fn words<'a>(
    volume: &Name,
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    most: usize,
    wrong: &mut Vec<String>,
) {
    for (what, _) in texts.into_iter().filter(|(_, text)| !is_word(text, most)) {
        wrong.push(format!(
            "{what} of volume {volume} is not 1 to {most} printable ASCII characters without spaces"
        ));
    }
}

fn is_word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn path(volume: impl fmt::Display, what: &str, most: usize) -> String {
    format!(
        "{what} of volume {volume} is no absolute path of up to {most} octets without `.`, `..`, `//` and control characters"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::check::State;

    fn golden() -> Value {
        let mut state: Value =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu.v1.json")).unwrap();
        state["volumes"] =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-backends.v1.json")).unwrap();
        state
    }

    #[test]
    fn good_backends_are_taken() {
        let state = State::check(serde_json::from_value(golden()).unwrap()).unwrap();
        assert_eq!(state.desired().volumes.len(), 9);
    }

    #[test]
    fn the_config_of_an_instant_volume_is_looked_at() {
        let mut state = golden();
        state["volumes"] =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-instant.v1.json")).unwrap();
        State::check(serde_json::from_value(state.clone()).unwrap()).unwrap();
        let file = "/1/exporter/serves/config/config_drive/0/path";
        for bad in ["../secret", "/absolute", "", "a//b"] {
            *state["volumes"].pointer_mut(file).unwrap() = bad.into();
            let error = State::check(serde_json::from_value(state.clone()).unwrap()).unwrap_err().to_string();
            assert!(error.contains("of the config of volume drive"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_who_can_encrypt_is_told_to() {
        let mut state = golden();
        state["volumes"] =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-encrypted.v1.json")).unwrap();
        State::check(serde_json::from_value(state.clone()).unwrap()).unwrap();
        for (exporter, words) in [
            (
                serde_json::json!({"kind": "blk", "serves": {"kind": "file", "path": "/a"}}),
                "exporter blk does not",
            ),
            (
                serde_json::json!({"kind": "spdk", "backend": {"kind": "file", "path": "/a"}}),
                "exporter spdk does not",
            ),
            (
                serde_json::json!({"kind": "snap", "backend": {"kind": "file", "path": "/a"}}),
                "exporter snap does not",
            ),
        ] {
            let mut bad = state.clone();
            bad["volumes"][0]["exporter"] = exporter;
            let error = State::check(serde_json::from_value(bad).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for key in ["passpass", "pass pass pass pass"] {
            state["volumes"][0]["encryption"]["key"] = key.into();
            let error = State::check(serde_json::from_value(state.clone()).unwrap()).unwrap_err().to_string();
            assert!(error.contains("key of volume vault") && !error.contains("passpass"), "{error}");
        }
    }

    #[test]
    fn only_who_can_write_an_image_is_told_to() {
        let mut state = golden();
        state["volumes"] =
            serde_json::from_str(include_str!("../../../../protocol/src/dpu-fill.v1.json")).unwrap();
        State::check(serde_json::from_value(state.clone()).unwrap()).unwrap();
        let image = &state["volumes"][0]["fill"]["image"].clone();
        for (place, value, words) in [
            (
                "exporter",
                serde_json::json!({"kind": "spdk", "backend": {"kind": "file", "path": "/a"}}),
                "exporter spdk, through which no image is written",
            ),
            (
                "exporter",
                serde_json::json!({"kind": "snap", "backend": {"kind": "file", "path": "/a"}}),
                "exporter snap, through which no image is written",
            ),
            (
                "exporter",
                serde_json::json!({"kind": "blk", "serves": {"kind": "file", "path": "/a", "read_only": true}}),
                "is read-only",
            ),
            (
                "exporter",
                serde_json::json!({"kind": "blk", "serves": {"kind": "image", "image": image, "store": "/s", "layer": "/l"}}),
                "is an instant volume",
            ),
            (
                "fill",
                serde_json::json!({"image": image, "store": "http://server:8080"}),
                "store `http://server",
            ),
            (
                "fill",
                serde_json::json!({"image": image, "store": "/s", "config": {"config_drive": [{"path": "../x", "text": ""}]}}),
                "file `../x` of the config of volume boot",
            ),
        ] {
            let mut bad = state.clone();
            bad["volumes"][0][place] = value;
            let error = State::check(serde_json::from_value(bad).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_to_go_is_no_volume_and_nothing_but_a_layer() {
        let discard = |name: &str, layer: &str| {
            let mut state = golden();
            state["volumes"] =
                serde_json::from_str(include_str!("../../../../protocol/src/dpu-instant.v1.json")).unwrap();
            state["discard"] = serde_json::json!([{"name": name, "layer": layer}]);
            State::check(serde_json::from_value(state).unwrap()).map_err(|error| error.to_string())
        };
        assert!(discard("old", "/var/lib/billet-dpu/layers/old").is_ok());
        for (name, layer) in [("boot", "/elsewhere"), ("old", "/var/lib/billet-dpu/layers/boot")] {
            let error = discard(name, layer).unwrap_err();
            assert!(error.contains("is to go, and a volume of the state has it"), "{error}");
        }
        assert!(discard("old", "layers/../old").unwrap_err().contains("layer of volume old"));
    }

    #[test]
    fn what_is_wrong_with_a_backend_is_said() {
        let cases: [(&str, Value, &str); 18] = [
            (
                "/4/exporter/backend",
                serde_json::json!({"kind": "nbd", "address": "10.0.0.1:10809", "export": "x"}),
                "which SPDK does not speak",
            ),
            ("/8/exporter/function", serde_json::json!({"kind": "pf", "pf": 0}), "function 0 is named twice"),
            ("/0/exporter/backend/path", "disk".into(), "path of volume file"),
            ("/0/limits/iops", 0.into(), "limits of volume file are not"),
            ("/0/limits", serde_json::json!({}), "limit nothing"),
            ("/0/deadline", 0.into(), "deadline of volume file"),
            ("/1/exporter/backend/portal", "10.77.0.1".into(), "portal `10.77.0.1`"),
            ("/1/exporter/backend/target", "iqn a".into(), "target of volume iscsi"),
            ("/1/exporter/backend/initiator", "".into(), "initiator of volume iscsi"),
            ("/1/exporter/backend/lun", 16384.into(), "logical unit 16384"),
            ("/1/exporter/backend/chap/password", "short".into(), "password of volume iscsi"),
            ("/2/exporter/backend/monitors", serde_json::json!([]), "0 monitors"),
            ("/2/exporter/backend/monitors/0", "mon:6789".into(), "monitor `mon:6789`"),
            ("/2/exporter/backend/key", "a b=".into(), "key of volume rbd"),
            ("/2/exporter/backend/pool", "".into(), "pool of volume rbd"),
            ("/3/exporter/backend/address", "10.0.0.1:0".into(), "address `10.0.0.1:0`"),
            (
                "/3/exporter/backend",
                serde_json::json!({"kind": "nvme_tcp", "address": "10.0.0.1:4420", "subsystem": "nqn.x", "namespace": 1}),
                "does not speak",
            ),
            (
                "/3/exporter/backend",
                serde_json::json!({"kind": "iscsi", "portal": "10.9.9.9:3260", "target": "iqn.2026-01.org.example:vol1", "lun": 1}),
                "iscsi iqn.2026-01.org.example:vol1 unit 1 is named twice",
            ),
        ];
        for (place, value, words) in cases {
            let mut state = golden();
            *state["volumes"].pointer_mut(place).unwrap() = value;
            let error = State::check(serde_json::from_value(state).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words), "{place}: {error}");
            assert!(!error.contains("short"), "a secret is told: {error}");
        }
    }
}
