//! What tests and the demo do again and again: wait until a machine is discovered, deploy, wait for a state. All over the
//! public API; the operator's hand on the power button is the rack's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::rack::{Api, Machine};

/// From power-on to an inspected node: POST, loader, kernel and agent under software emulation on a busy machine.
pub const DISCOVERY: Duration = Duration::from_secs(180);
/// From the request to phone-home of a small image.
pub const DEPLOY: Duration = Duration::from_secs(300);

/// Adds the file of a small test image and returns its id.
///
/// # Errors
/// Where the server refuses it.
pub fn add_image(api: &Api, file: &Path, name: &str, version: &str) -> Result<String> {
    add_image_with(api, file, name, version, "default_user=root")
}

/// Adds an image file, raw or packed, and says more of it, as in the query of an upload; returns its id.
///
/// # Errors
/// Where the server refuses it.
pub fn add_image_with(api: &Api, file: &Path, name: &str, version: &str, more: &str) -> Result<String> {
    let size = file.metadata().with_context(|| format!("looking at {}", file.display()))?.len();
    let path = format!("/api/v1/images/upload?name={name}&version={version}&size={size}&{more}");
    let image = api.upload(&path, file)?;
    text(&image, "id")
}

/// Asks, as whoever this is, that the first disk of a machine is wiped; returns the id of the approval that it waits for.
///
/// # Errors
/// Where it is refused, or done without one.
pub fn ask_to_wipe(api: &Api, node: &str) -> Result<String> {
    let detail = api.get(&format!("/api/v1/nodes/{node}"))?;
    let disk = &detail["inventory"]["disks"][0]["id"];
    let body = json!({ "wipe": [disk], "confirm": node });
    let asked = api.post(&format!("/api/v1/nodes/{node}/provide"), &body)?;
    ensure!(asked["approval"].is_object(), "no approval: {asked}");
    text(&asked, "id")
}

/// Waits until the machine stands in the list in `state`; returns its name.
///
/// # Errors
/// Where it does not within `timeout`, or fails on the way.
pub fn wait_discovered(api: &Api, machine: &Machine, state: &str, timeout: Duration) -> Result<String> {
    wait_discovered_mac(api, &machine.mac(0), state, timeout)
        .with_context(|| format!("waiting for {}", machine.name()))
}

/// Waits until a machine with this station address stands in the list in `state`; returns its name.
///
/// # Errors
/// As [`wait_discovered`].
pub fn wait_discovered_mac(api: &Api, mac: &str, state: &str, timeout: Duration) -> Result<String> {
    api.wait("/api/v1/nodes", timeout, |page| {
        let node = page["items"].as_array()?.iter().find(|n| has_mac(n, mac))?;
        (node["state"] == state).then(|| node["name"].as_str().map(str::to_owned))?
    })
    .with_context(|| format!("waiting for {mac} to be {state}"))
}

fn has_mac(node: &Value, mac: &str) -> bool {
    node["macs"].as_array().is_some_and(|macs| macs.iter().any(|m| m == mac))
}

/// Waits for a state; a node that fails instead ends the wait at once, with its fault.
///
/// # Errors
/// Where it is not reached within `timeout`, or the node failed.
pub fn wait_state(api: &Api, node: &str, state: &str, timeout: Duration) -> Result<Value> {
    let seen = api.wait(&format!("/api/v1/nodes/{node}"), timeout, |n| {
        (n["state"] == state || n["state"] == "failed").then(|| n.clone())
    })?;
    if seen["state"] == state {
        return Ok(seen);
    }
    bail!("{node} failed instead of becoming {state}: {:#}", seen["fault"])
}

/// Waits until the node's job is at `stage`.
///
/// # Errors
/// Where it is not within `timeout`, or the node failed.
pub fn wait_stage(api: &Api, node: &str, stage: &str, timeout: Duration) -> Result<Value> {
    let seen = api.wait(&format!("/api/v1/nodes/{node}"), timeout, |n| {
        (n["job"]["stage"] == stage || n["state"] == "failed").then(|| n.clone())
    })?;
    ensure!(seen["state"] != "failed", "{node} failed before stage {stage}: {:#}", seen["fault"]);
    Ok(seen)
}

/// Asks for a deploy to the disk with this serial number.
///
/// # Errors
/// Where it is refused.
pub fn deploy(api: &Api, node: &str, image: &str, serial: &str) -> Result<Value> {
    order(api, node, "deploy", image, serial)
}

/// Asks for a rebuild of an active node.
///
/// # Errors
/// Where it is refused.
pub fn rebuild(api: &Api, node: &str, image: &str, serial: &str) -> Result<Value> {
    order(api, node, "rebuild", image, serial)
}

fn order(api: &Api, node: &str, verb: &str, image: &str, serial: &str) -> Result<Value> {
    let body = json!({ "image": image, "disk": { "id": format!("serial:{serial}") }, "confirm": node });
    api.post(&format!("/api/v1/nodes/{node}/{verb}"), &body)
}

/// Messages of the node's events of this kind, oldest first.
///
/// # Errors
/// Where the server does not answer.
pub fn events(api: &Api, node: &str, kind: &str) -> Result<Vec<String>> {
    let page = api.get(&format!("/api/v1/events?node={node}&limit=500"))?;
    let items = page["items"].as_array().context("a page of events has items")?;
    let mut found: Vec<(i64, String)> = items
        .iter()
        .filter(|e| e["kind"] == kind)
        .filter_map(|e| Some((e["id"].as_i64()?, e["message"].as_str()?.to_owned())))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, message)| message).collect())
}

/// The number before `what` in a message such as "12 chunks fetched".
///
/// # Errors
/// Where there is none.
pub fn number_before(message: &str, what: &str) -> Result<u64> {
    let before = message.split(what).next().filter(|b| b.len() < message.len());
    let word = before.and_then(|b| b.split_whitespace().next_back()).context("no number")?;
    word.parse().with_context(|| format!("no number before `{what}` in `{message}`"))
}

/// True where neither the primary nor the backup partition table nor boot code is on the disk: firmware finds nothing to
/// start, and nothing to repair.
///
/// # Errors
/// Where the disk's file cannot be read.
pub fn is_unbootable(machine: &Machine, disk: usize) -> Result<bool> {
    let size = std::fs::metadata(machine.disk_path(disk))?.len();
    let first = machine.read_disk(disk, 0, 1 << 20)?;
    let last = machine.read_disk(disk, size - (1 << 20), 1 << 20)?;
    Ok(first.iter().chain(&last).all(|b| *b == 0))
}

/// Bytes per second that a disk of a running machine may move; 0 lifts the limit.
///
/// # Errors
/// Where QEMU refuses.
pub fn throttle(machine: &mut Machine, disk: usize, bytes_per_second: u64) -> Result<()> {
    let arguments = json!({
        "device": format!("drive{disk}"), "bps": bytes_per_second, "bps_rd": 0, "bps_wr": 0,
        "iops": 0, "iops_rd": 0, "iops_wr": 0,
    });
    machine.qmp()?.command("block_set_io_throttle", arguments)?;
    Ok(())
}

/// A copy of a disk image with a last partition of `mib` MiB of random bytes, for tests that need a write to last.
///
/// # Errors
/// Where the copy cannot be written or `sgdisk` is not installed.
pub fn padded_image(image: &Path, to: &Path, mib: u64) -> Result<PathBuf> {
    std::fs::copy(image, to)?;
    let start = std::fs::metadata(to)?.len().next_multiple_of(1 << 20);
    let file = File::options().write(true).open(to)?;
    file.set_len(start + (mib << 20) + (1 << 20))?;
    let end = (start + (mib << 20)) / 512 - 1;
    let partition = format!("0:{}:{end}", start / 512);
    let status = Command::new("sgdisk")
        .args(["-e", "-n", &partition, "-c", "0:padding"])
        .arg(to)
        .stdout(std::process::Stdio::null())
        .status()
        .context("running sgdisk")?;
    ensure!(status.success(), "sgdisk could not add the padding");
    let mut random = File::open("/dev/urandom")?;
    let mut piece = vec![0; 1 << 20];
    for n in 0..mib {
        random.read_exact(&mut piece)?;
        file.write_all_at(&piece, start + (n << 20))?;
    }
    let mut file = file;
    file.flush()?;
    Ok(to.to_owned())
}

/// A member of an answer that must be text.
///
/// # Errors
/// Where it is missing or not text.
pub fn text(value: &Value, member: &str) -> Result<String> {
    value[member].as_str().map(str::to_owned).with_context(|| format!("`{member}` is not in {value:#}"))
}
