//! Disks between tenants, on real (virtual) machines: a project gives a server back, every disk of it is erased and certified by the
//! site's key, and nothing of what was on them is found in their files. A disk that does not do what it says keeps its machine back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minisign_verify::{PublicKey, Signature};
use serde_json::{Value, json};
use tests::rack::{Api, ApiError, Disk, Firmware, Machine, MachineSpec, Rack, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, throttle, wait_discovered, wait_state};

const MIB: u64 = 1 << 20;
/// What a tenant leaves behind, in every block.
const SECRET: &[u8; 32] = b"THE TENANT'S LEDGER, PAGE 0001; ";
/// Of a machine under software emulation on a busy host.
const ERASE: Duration = Duration::from_secs(400);

/// Fills a disk of a machine that is off with what a tenant wrote.
fn fill(machine: &mut Machine, disk: usize, from: u64, to: u64) -> Result<()> {
    let piece = SECRET.repeat(MIB as usize / SECRET.len());
    for at in (from..to).step_by(MIB as usize) {
        machine.write_disk(disk, at, &piece)?;
    }
    Ok(())
}

/// Whether what the tenant wrote is anywhere in a file.
fn is_there(file: &Path) -> Result<bool> {
    let text = std::str::from_utf8(SECRET)?;
    let status = Command::new("grep").args(["-q", "-a", "-F", text]).arg(file).status()?;
    ensure!(status.code().is_some_and(|code| code < 2), "grep cannot read {}", file.display());
    Ok(status.success())
}

/// Certificates of a node, each with its text; their signatures hold for another implementation than ours.
fn certificates(api: &Api, key: &str, node: &str) -> Result<Vec<Value>> {
    let line = key.lines().nth(1).context("a key of two lines")?;
    let key = PublicKey::from_base64(line).map_err(|error| anyhow::anyhow!("{error}"))?;
    let page = api.get(&format!("/api/v1/certificates?node={node}"))?;
    let mut found = Vec::new();
    for item in page["items"].as_array().context("no list")? {
        let text = item["text"].as_str().context("a certificate without its text")?;
        let signature = item["signature"].as_str().context("a certificate that is not signed")?;
        let signature = Signature::decode(signature).map_err(|error| anyhow::anyhow!("{error}"))?;
        key.verify(text.as_bytes(), &signature, false).map_err(|error| anyhow::anyhow!("{error}"))?;
        let other = text.replace("\"result\": \"", "\"result\": \"x");
        ensure!(key.verify(other.as_bytes(), &signature, false).is_err(), "a changed one holds too");
        let one = api.get(&format!("/api/v1/certificates/{}", item["id"].as_str().unwrap_or_default()))?;
        ensure!(one == *item, "{one} is not {item}");
        found.push(serde_json::from_str(text)?);
    }
    Ok(found)
}

fn disk_of<'a>(certificates: &'a [Value], serial: &str) -> Result<&'a Value> {
    let of = |it: &&Value| it["disk"]["serial"] == serial;
    certificates.iter().find(of).map(|it| &it["disk"]).with_context(|| format!("no certificate of {serial}"))
}

/// The public key, as an operator gets it.
fn key(rack: &mut Rack) -> Result<String> {
    let mut command = rack.server()?.command_line()?;
    let output = command.args(["usage", "key"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_disk_of_a_server_that_is_given_back_is_erased_and_certified() -> Result<()> {
    let mut rack = Rack::new("erase")?;
    rack.start_server()?;
    let (api, key) = (rack.api()?, key(&mut rack)?);
    add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let spec = MachineSpec::new("m1", Firmware::Uefi)
        .disk(Disk::virtio("VIRT1", 256 * MIB))
        .disk(Disk::nvme("NVME1", 96 * MIB))
        .disk(Disk::sata("SATA1", 96 * MIB))
        .memory(768);
    let mut machine = rack.machine(spec)?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    api.post("/api/v1/flavors", &json!({ "name": "any", "billed": { "cores": 1, "memory_mib": 512 } }))?;
    api.post("/api/v1/projects", &json!({ "name": "shop" }))?;
    api.post("/api/v1/projects/shop/servers", &json!({ "name": "web", "flavor": "any", "image": "tiny-a" }))?;
    let active = wait_state(&api, &node, "active", DEPLOY)?;
    let on = active["installed"]["disk"].as_str().unwrap_or_default().to_owned();

    // What the tenant leaves: in all of the disks, but for the head of the one that it boots from.
    machine.power_off()?;
    for (disk, size) in [(0, 256), (1, 96), (2, 96)] {
        let serial = ["VIRT1", "NVME1", "SATA1"][disk];
        let from = if on.ends_with(serial) { size / 2 } else { 0 };
        fill(&mut machine, disk, from * MIB, size * MIB)?;
        ensure!(is_there(&machine.disk_path(disk))?, "nothing to be erased on {serial}");
    }
    api.delete("/api/v1/projects/shop/servers/web")?;
    wait_state(&api, &node, "deleting", DEPLOY)?;
    machine.power_on()?;
    // The power is cut while a disk is being overwritten.
    throttle(&mut machine, 2, 2 * MIB)?;
    let erasing = |node: &Value| (node["job"]["stage"] == "erase").then(|| node.clone());
    api.wait(&format!("/api/v1/nodes/{node}"), ERASE, erasing)?;
    std::thread::sleep(Duration::from_secs(6));
    machine.power_off()?;
    let cut = api.get(&format!("/api/v1/nodes/{node}"))?;
    ensure!(cut["state"] == "cleaning" && cut["dirty"].is_object(), "{cut:#}");
    ensure!(is_there(&machine.disk_path(2))?, "the cut came too late to show anything");
    let early = certificates(&api, &key, &node)?;
    ensure!(disk_of(&early, "SATA1").is_err(), "a certificate of a disk that was not erased");
    println!("certificates_before_cut {}", early.len());
    machine.power_on()?;
    let clean = wait_state(&api, &node, "available", ERASE)?;
    ensure!(clean["dirty"].is_null(), "{clean:#}");

    machine.power_off()?;
    let found = certificates(&api, &key, &node)?;
    ensure!(found.len() == 3, "{} certificates", found.len());
    for (disk, serial) in ["VIRT1", "NVME1", "SATA1"].iter().enumerate() {
        let it = disk_of(&found, serial)?;
        println!("erased {serial} by {} graded {}; not used {}", it["method"], it["grade"], it["not_used"]);
        ensure!(it["result"] == "erased" && it["grade"] == "clear", "{it:#}");
        ensure!(!is_there(&machine.disk_path(disk))?, "{serial} has what the tenant wrote");
    }
    ensure!(disk_of(&found, "SATA1")?["method"] == "overwrite");
    ensure!(disk_of(&found, "VIRT1")?["method"] == "discard");
    // They outlive the node, and the command line checks them alone.
    api.post(&format!("/api/v1/nodes/{node}/manage"), &json!({}))?;
    api.post(&format!("/api/v1/nodes/{node}/forget"), &json!({}))?;
    ensure!(certificates(&api, &key, &node)?.len() == 3, "they went with the node");
    let id = api.get("/api/v1/certificates")?["items"][0]["id"].as_str().context("an id")?.to_owned();
    let dir = rack.dir().to_owned();
    let run = |args: &[&str], rack: &mut Rack| -> Result<bool> {
        let output = rack.server()?.command_line()?.args(args).output()?;
        Ok(output.status.success())
    };
    let place = dir.display().to_string();
    ensure!(run(&["certificate", "save", &id, "--dir", &place], &mut rack)?, "it is not saved");
    let file = dir.join(format!("{id}.json"));
    let named = file.display().to_string();
    ensure!(run(&["certificate", "verify", &named, "--key", &key], &mut rack)?, "it does not hold");
    let changed = std::fs::read_to_string(&file)?.replace("clear", "purge");
    std::fs::write(&file, changed)?;
    ensure!(!run(&["certificate", "verify", &named, "--key", &key], &mut rack)?, "a better grade holds");
    rack.passed();
    Ok(())
}

#[test]
fn a_disk_that_lies_keeps_its_machine_back() -> Result<()> {
    let mut rack = Rack::new("erase-liar")?;
    rack.start_server()?;
    let (api, key) = (rack.api()?, key(&mut rack)?);
    // It takes every write, and drops it.
    let spec = MachineSpec::new("m1", Firmware::Bios)
        .disk(Disk::virtio("HONEST", 64 * MIB))
        .extra(&["-blockdev", "driver=null-co,node-name=liar,size=67108864,read-zeroes=on"])
        .extra(&["-device", "virtio-blk-pci,drive=liar,serial=LIAR"])
        .memory(512);
    let mut machine = rack.machine(spec)?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    api.post(&format!("/api/v1/nodes/{node}/manage"), &json!({}))?;
    let whole = json!({ "erase": true, "confirm": node });
    api.post(&format!("/api/v1/nodes/{node}/provide"), &whole)?;
    let failed = api
        .wait(&format!("/api/v1/nodes/{node}"), ERASE, |it| (it["state"] == "failed").then(|| it.clone()))?;
    let message = failed["fault"]["message"].as_str().unwrap_or_default();
    println!("liar: {message}");
    ensure!(failed["fault"]["code"] == "erase" && message.contains("LIAR"), "{:#}", failed["fault"]);
    ensure!(failed["dirty"].is_object(), "{failed:#}");
    let found = certificates(&api, &key, &node)?;
    ensure!(disk_of(&found, "HONEST")?["result"] == "erased", "{found:#?}");
    ensure!(disk_of(&found, "LIAR")?["result"] == "failed", "{found:#?}");
    let offered = api.post(&format!("/api/v1/nodes/{node}/provide"), &json!({})).err();
    let refused = offered.as_ref().and_then(|error| error.downcast_ref::<ApiError>()).context("offered")?;
    ensure!(refused.status == 409 && refused.body["code"] == "dirty", "{refused}");
    rack.passed();
    Ok(())
}
