//! The whole: servers of a project on hosts behind DPUs, whose disks are volumes and whose networks are the project's. From the API to
//! the OS that runs: nobody touches a machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::dpu::DpuSite;
use tests::rack::{Firmware, artifact};
use tests::scenario::{DEPLOY, add_image};

/// Bytes of a boot volume: the image's smallest disk has no room for the configuration beside it.
const BOOT: u64 = 256 << 20;

#[test]
fn servers_run_on_volumes_and_networks_of_their_project() -> Result<()> {
    let mut site = DpuSite::new("dpu-site", 2, Firmware::Bios)?;
    add_image(&site.api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let nodes = site.discover()?;
    let of = site.project("shop")?;

    let began = Instant::now();
    for (number, node) in nodes.iter().enumerate() {
        let body = json!({
            "name": format!("web-{number}"), "node": node, "image": "tiny-a", "boot_volume": { "size": BOOT }, "networks": ["web"],
        });
        site.api.post(&format!("{of}/servers"), &body)?;
    }
    for number in 0..nodes.len() {
        let active = |server: &Value| match server["phase"].as_str() {
            Some("active") => Some(Ok(())),
            Some("error") => Some(Err(anyhow::anyhow!("{server:#}"))),
            _ => None,
        };
        site.api.wait(&format!("{of}/servers/web-{number}"), DEPLOY, active)??;
        println!("create_to_active {:.1} s", began.elapsed().as_secs_f64());
    }
    for (number, host) in site.hosts.iter().enumerate() {
        let serial = host.lock().serial().clone();
        ensure!(serial.said("disk=vda"), "the OS is on a volume");
        ensure!(serial.said(&format!("address=10.0.0.{}", 2 + number)), "its address is the project's");
        let dpu = site.api.get(&format!("/api/v1/dpus/{}", DpuSite::dpu_name(number)))?;
        ensure!(dpu["ports"][0]["port"].is_string() && dpu["ports"][0]["bridge"].is_null(), "{dpu:#}");
        ensure!(dpu["volumes"].as_array().context("volumes")?.len() == 1, "{dpu:#}");
    }
    for number in 0..nodes.len() {
        site.api.delete(&format!("{of}/servers/web-{number}"))?;
    }
    for number in 0..nodes.len() {
        let path = format!("/api/v1/dpus/{}", DpuSite::dpu_name(number));
        let is_bare = |dpu: &Value| {
            let on_provisioning = dpu["ports"][0]["bridge"].is_string();
            (on_provisioning && dpu["volumes"].as_array()?.is_empty()).then_some(())
        };
        site.api.wait(&path, Duration::from_secs(120), is_bare)?;
    }
    site.passed();
    Ok(())
}
