//! The last part of `cargo xtask bench dpu`: from the request for a server to its phone-home, once on a boot volume behind a DPU, once
//! on an instant one there, once on the disk of a machine without one. In turns; the same image, the same kind of machine. The machine with a disk is idle in the
//! ramdisk: it need not start before it is written, which a volume's has to after.

use std::time::Instant;

use ::tests::dpu::{DpuSite, INSTANT};
use ::tests::rack::{Firmware, artifact};
use ::tests::scenario::{DEPLOY, add_image, wait_state};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::median;

/// Bytes of either disk.
const SIZE: u64 = 256 << 20;

/// Measures `rounds` servers of either kind.
pub fn run(rounds: u32) -> Result<()> {
    let mut site = DpuSite::new("bench-create", 1, Firmware::Bios)?;
    add_image(&site.api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let host = site.discover()?.pop().context("a host")?;
    let local = site.discover_local(Firmware::Bios, SIZE)?;
    let of = site.project("bench")?;
    let volume = json!({
        "name": "volume", "node": host, "image": "tiny-a", "boot_volume": { "size": SIZE }, "networks": ["web"],
    });
    let instant = json!({
        "name": "instant", "node": host, "image": "tiny-a", "boot_volume": { "size": SIZE, "type": INSTANT },
        "networks": ["web"],
    });
    let disk = json!({ "name": "disk", "node": local, "image": "tiny-a" });
    let (mut on_volume, mut on_instant, mut on_disk) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        for (server, taken) in [(&volume, &mut on_volume), (&instant, &mut on_instant), (&disk, &mut on_disk)]
        {
            let took = up(&site, &of, server)?;
            println!("round {round}: {} is up after {took:.1} s", server["name"]);
            taken.push(took);
        }
    }
    let on_disk = median(on_disk);
    println!("create_to_up_ratio {:.2}", median(on_volume) / on_disk);
    println!("instant_to_up_ratio {:.2}", median(on_instant) / on_disk);
    site.passed();
    Ok(())
}

/// Seconds until a server has phoned home. It is given back afterwards, and its machine is as it was before.
fn up(site: &DpuSite, of: &str, server: &Value) -> Result<f64> {
    let (name, node) =
        (server["name"].as_str().context("a name")?, server["node"].as_str().context("a node")?);
    let began = Instant::now();
    site.api.post(&format!("{of}/servers"), server)?;
    let phase = site.api.wait(&format!("{of}/servers/{name}"), DEPLOY, |server| {
        server["phase"].as_str().filter(|phase| matches!(*phase, "active" | "error")).map(str::to_owned)
    })?;
    let took = began.elapsed().as_secs_f64();
    if phase != "active" {
        bail!("{name} does not come up: {:#}", site.api.get(&format!("{of}/servers/{name}"))?);
    }
    site.api.delete(&format!("{of}/servers/{name}"))?;
    wait_state(&site.api, node, "available", DEPLOY)?;
    Ok(took)
}
