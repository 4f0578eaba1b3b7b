//! Whole machines: firmware, loader, ramdisk, disk and OS are real, under QEMU's software emulation. Each test has a rack
//! of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::rack::{Api, Disk, Firmware, Machine, MachineSpec, Rack, artifact};
use tests::scenario::{
    DEPLOY, DISCOVERY, add_image, add_image_with, deploy, events, is_unbootable, number_before, padded_image,
    rebuild, throttle, wait_discovered, wait_stage, wait_state,
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// From power-on of a deployed machine to its OS.
const LOCAL_BOOT: Duration = Duration::from_secs(180);

/// A rack with a running server, the first small image, and one machine with an OS disk and a data disk.
struct Lab {
    rack: Rack,
    api: Api,
    machine: Machine,
}

impl Lab {
    fn new(name: &str, firmware: Firmware, os: Disk, data: Disk) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        rack.start_server()?;
        let api = rack.api()?;
        let machine = rack.machine(MachineSpec::new("m1", firmware).disk(os).disk(data))?;
        Ok(Self { rack, api, machine })
    }

    fn add_tiny(&self, variant: &str) -> Result<()> {
        let file = artifact(&format!("images/tiny-{variant}.raw"))?;
        add_image(&self.api, &file, &format!("tiny-{variant}"), "1").map(drop)
    }

    /// Switches the machine on and waits until it is offered.
    fn discover(&mut self) -> Result<String> {
        self.machine.power_on()?;
        wait_discovered(&self.api, &self.machine, "available", DISCOVERY)
    }
}

/// Discovery, deploy, first boot, and a cold start that boots the disk and no agent; the other disk is not touched.
fn whole_life(name: &str, firmware: Firmware, os: Disk, data: Disk) -> Result<()> {
    let serial = os.serial.clone();
    let mut lab = Lab::new(name, firmware, os, data)?;
    lab.add_tiny("a")?;
    let before = lab.machine.disk_sha256(1)?;
    let node = lab.discover()?;
    deploy(&lab.api, &node, "tiny-a", &serial)?;
    let active = wait_state(&lab.api, &node, "active", DEPLOY)?;
    ensure!(active["installed"]["image_name"] == "tiny-a 1", "{active:#}");
    lab.machine.serial().wait_for("TINY-OS READY", LOCAL_BOOT)?;
    ensure!(lab.machine.serial().said(&format!("hostname={node}")), "the OS did not take its host name");
    lab.machine.power_off()?;
    ensure!(lab.machine.disk_sha256(1)? == before, "the data disk changed");

    lab.machine.serial().skip_to_end();
    let hellos = events(&lab.api, &node, "agent.hello")?.len();
    lab.machine.power_on()?;
    lab.machine.serial().wait_for("TINY-OS READY", LOCAL_BOOT)?;
    ensure!(
        events(&lab.api, &node, "agent.hello")?.len() == hellos,
        "an agent was booted on a deployed machine"
    );
    ensure!(lab.api.get(&format!("/api/v1/nodes/{node}"))?["state"] == "active");
    lab.rack.passed();
    Ok(())
}

#[test]
fn bios_virtio() -> Result<()> {
    whole_life("bios-virtio", Firmware::Bios, Disk::virtio("OSVIRTIO1", GIB), Disk::virtio("DATA1", 64 * MIB))
}

#[test]
fn uefi_nvme() -> Result<()> {
    whole_life("uefi-nvme", Firmware::Uefi, Disk::nvme("OSNVME1", GIB), Disk::virtio("DATA1", 64 * MIB))
}

#[test]
fn uefi_sata() -> Result<()> {
    whole_life("uefi-sata", Firmware::Uefi, Disk::sata("OSSATA1", GIB), Disk::nvme("DATA1", 64 * MIB))
}

/// A reinstall with another image, which is told who it is by Ignition, and then the machine is given back: its OS disk is
/// wiped, the data disk stays.
#[test]
fn rebuild_and_delete() -> Result<()> {
    let mut lab =
        Lab::new("rebuild", Firmware::Bios, Disk::virtio("OS1", GIB), Disk::virtio("DATA1", 64 * MIB))?;
    lab.add_tiny("a")?;
    let told = "default_user=root&datasource=ignition";
    add_image_with(&lab.api, &artifact("images/tiny-b.raw")?, "tiny-b", "1", told)?;
    lab.machine.write_disk(1, 32 * MIB, b"somebody's data in the middle of a disk")?;
    let before = lab.machine.disk_sha256(1)?;
    let node = lab.discover()?;
    deploy(&lab.api, &node, "tiny-a", "OS1")?;
    wait_state(&lab.api, &node, "active", DEPLOY)?;

    rebuild(&lab.api, &node, "tiny-b", "OS1")?;
    let waiting = wait_stage(&lab.api, &node, "boot", Duration::from_secs(10))?;
    ensure!(waiting["waits_for"].as_str().is_some_and(|w| w.contains("network boot")), "{waiting:#}");
    lab.machine.serial().skip_to_end();
    lab.machine.reset()?;
    let ready = lab.machine.serial().wait_for("image=tiny-b", DEPLOY)?.text;
    ensure!(ready.contains(&format!("hostname={node}")) && ready.contains("told=config-2"), "{ready}");
    wait_state(&lab.api, &node, "active", DEPLOY)?;

    lab.api.post(
        &format!("/api/v1/nodes/{node}/delete"),
        &serde_json::json!({ "wipe": ["serial:OS1"], "confirm": node }),
    )?;
    lab.machine.reset()?;
    wait_state(&lab.api, &node, "available", DEPLOY)?;
    lab.machine.power_off()?;
    ensure!(is_unbootable(&lab.machine, 0)?, "tables are left on the wiped disk");
    ensure!(lab.machine.disk_sha256(1)? == before, "the data disk changed");
    lab.rack.passed();
    Ok(())
}

/// The power goes at about 10, 50 and 90 % of the write. Each time the disk does not boot, and the job goes on from what is
/// on it, fetching less.
#[test]
fn power_cut() -> Result<()> {
    let mut lab =
        Lab::new("power-cut", Firmware::Bios, Disk::virtio("OS1", 2 * GIB), Disk::virtio("DATA1", 64 * MIB))?;
    let padded = padded_image(&artifact("images/tiny-a.raw")?, &lab.rack.dir().join("padded.raw"), 192)?;
    add_image(&lab.api, &padded, "padded", "1")?;
    let node = lab.discover()?;
    throttle(&mut lab.machine, 0, 12 * MIB)?;
    deploy(&lab.api, &node, "padded", "OS1")?;
    for percent in [10, 50, 90] {
        let done = wait_percent(&lab.api, &node, percent)?;
        lab.machine.power_off()?;
        eprintln!("power cut at {done} %");
        ensure!(is_unbootable(&lab.machine, 0)?, "a disk cut at {done} % could boot");
        lab.machine.power_on()?;
        wait_stage(&lab.api, &node, "kernel", DISCOVERY)?;
        throttle(&mut lab.machine, 0, if percent == 90 { 0 } else { 12 * MIB })?;
    }
    wait_state(&lab.api, &node, "active", DEPLOY)?;
    lab.machine.serial().wait_for("TINY-OS READY", LOCAL_BOOT)?;
    let written = events(&lab.api, &node, "deploy.written")?;
    let message = written.last().context("the write was reported")?;
    let (fetched, kept) = (number_before(message, " chunks fetched")?, number_before(message, " kept")?);
    eprintln!("after the last cut: {message}");
    ensure!(fetched * 2 < kept, "{fetched} chunks were fetched again, {kept} kept");
    lab.rack.passed();
    Ok(())
}

/// Waits until at least `percent` of the write are done; returns how much it was then.
fn wait_percent(api: &Api, node: &str, percent: u64) -> Result<u64> {
    api.wait(&format!("/api/v1/nodes/{node}"), DEPLOY, |n| {
        let progress = &n["job"]["progress"];
        let (done, total) = (progress["bytes_done"].as_u64()?, progress["bytes_total"].as_u64()?);
        let now = (done * 100).checked_div(total)?;
        (n["job"]["stage"] == "write" && now >= percent).then_some(now)
    })
}

/// `kill -9` of the server in each state that waits: nothing that was accepted is lost, and the deploy goes on.
#[test]
fn server_killed() -> Result<()> {
    let mut lab =
        Lab::new("server-killed", Firmware::Bios, Disk::virtio("OS1", GIB), Disk::virtio("DATA1", 64 * MIB))?;
    lab.add_tiny("a")?;
    lab.machine.power_on()?;
    let listed =
        |page: &serde_json::Value| Some(page["items"].as_array()?.first()?["name"].as_str()?.to_owned());
    let node = lab.api.wait("/api/v1/nodes", DISCOVERY, listed)?;
    kill_and_start(&mut lab, "waiting for the agent's hello")?;
    wait_state(&lab.api, &node, "available", DISCOVERY)?;
    kill_and_start(&mut lab, "available, agent idle")?;
    throttle(&mut lab.machine, 0, 8 * MIB)?;
    deploy(&lab.api, &node, "tiny-a", "OS1")?;
    // The request was acknowledged: from here on nothing may lose it.
    kill_and_start(&mut lab, "right after the request")?;
    wait_stage(&lab.api, &node, "write", DEPLOY)?;
    kill_and_start(&mut lab, "writing")?;
    wait_stage(&lab.api, &node, "restart", DEPLOY)?;
    kill_and_start(&mut lab, "waiting for the restart")?;
    wait_stage(&lab.api, &node, "first_boot", DEPLOY)?;
    kill_and_start(&mut lab, "waiting for phone-home")?;
    wait_state(&lab.api, &node, "active", DEPLOY)?;
    kill_and_start(&mut lab, "active")?;
    let end = lab.api.get(&format!("/api/v1/nodes/{node}"))?;
    ensure!(end["state"] == "active" && end["installed"]["image_name"] == "tiny-a 1", "{end:#}");
    lab.rack.passed();
    Ok(())
}

fn kill_and_start(lab: &mut Lab, when: &str) -> Result<()> {
    eprintln!("kill -9 of the server: {when}");
    let server = lab.rack.server()?;
    server.kill()?;
    std::thread::sleep(Duration::from_millis(500));
    server.start_again()
}

/// One flipped bit in the store: the job fails, names the chunk, and the disk does not boot.
#[test]
fn flipped_bit() -> Result<()> {
    let mut lab =
        Lab::new("flipped-bit", Firmware::Bios, Disk::virtio("OS1", GIB), Disk::virtio("DATA1", 64 * MIB))?;
    lab.add_tiny("a")?;
    let node = lab.discover()?;
    let chunk = flip_a_bit(&lab.rack.server()?.state_dir())?;
    deploy(&lab.api, &node, "tiny-a", "OS1")?;
    let failed = lab
        .api
        .wait(&format!("/api/v1/nodes/{node}"), DEPLOY, |n| (n["state"] == "failed").then(|| n.clone()))?;
    ensure!(failed["fault"]["code"] == "chunk-corrupt", "{failed:#}");
    ensure!(
        failed["fault"]["message"].as_str().is_some_and(|m| m.contains(&chunk)),
        "{chunk} is not named: {failed:#}"
    );
    let report = lab.api.post("/api/v1/images/tiny-a/verify", &serde_json::json!({}))?;
    ensure!(report.to_string().contains(&chunk), "verify does not name {chunk}: {report:#}");
    lab.machine.power_off()?;
    ensure!(is_unbootable(&lab.machine, 0)?, "a disk with a missing chunk could boot");
    lab.rack.passed();
    Ok(())
}

/// What nobody vouches for is refused by the ramdisk, whatever lies in the store: an altered manifest, another key's signature, and none. Nothing is written, and with the store as it was, the same job goes on.
#[test]
fn nobody_vouches() -> Result<()> {
    let mut lab =
        Lab::new("vouched", Firmware::Uefi, Disk::virtio("OS1", GIB), Disk::virtio("DATA1", 64 * MIB))?;
    lab.add_tiny("a")?;
    let node = lab.discover()?;
    lab.machine.serial().wait_for("images are taken by key", Duration::from_secs(10))?;
    let image = lab.api.get("/api/v1/images/tiny-a")?;
    let id = image["id"].as_str().context("an image without an id")?;
    let manifests = lab.rack.server()?.state_dir().join("images/manifests");
    let (manifest, signature) =
        (manifests.join(format!("{id}.json")), manifests.join(format!("{id}.minisig")));
    let (whole, signed) = (fs::read(&manifest)?, fs::read(&signature)?);
    let parsed = images::Manifest::parse(&whole)?;
    let url = format!("/api/v1/nodes/{node}");

    let altered = images::Manifest { minimum_disk: parsed.minimum_disk + 512, ..parsed.clone() };
    fs::write(&manifest, altered.canonical())?;
    deploy(&lab.api, &node, "tiny-a", "OS1")?;
    let failed = |why: &str| -> Result<()> {
        let seen = lab.api.wait(&url, DEPLOY, |n| (n["state"] == "failed").then(|| n.clone()))?;
        ensure!(seen["fault"]["code"] == "untrusted", "{seen:#}");
        ensure!(seen["fault"]["message"].as_str().is_some_and(|m| m.contains(why)), "{why}: {seen:#}");
        Ok(())
    };
    let again = || lab.api.post(&format!("{url}/retry"), &serde_json::json!({}));
    failed("does not hold")?;
    fs::write(&manifest, &whole)?;

    let by = |key: u8| images::trust::sign(&tests::trust::key(key), &parsed, u64::MAX / 8);
    fs::write(&signature, by(9))?;
    again()?;
    failed("which is not trusted here")?;
    fs::remove_file(&signature)?;
    again()?;
    failed("is not signed")?;
    ensure!(is_unbootable(&lab.machine, 0)?, "something was written");

    fs::write(&signature, &signed)?;
    again()?;
    wait_state(&lab.api, &node, "active", DEPLOY)?;
    lab.machine.serial().wait_for("TINY-OS READY", LOCAL_BOOT)?;
    lab.rack.passed();
    Ok(())
}

/// Flips one bit in the middle of the largest stored chunk; returns the chunk's name.
fn flip_a_bit(state: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(state, &mut files)?;
    let largest =
        files.into_iter().max_by_key(|p| fs::metadata(p).map_or(0, |m| m.len())).context("no chunk")?;
    let mut bytes = fs::read(&largest)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes)?;
    Ok(largest.file_stem().and_then(|n| n.to_str()).context("chunks are named by their hash")?.to_owned())
}

fn collect(dir: &Path, into: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "zst") {
            into.push(path);
        }
    }
    Ok(())
}

/// A machine whose disk holds something is not wiped by itself, and a disk that is too small is refused before a write.
#[test]
fn data_is_kept() -> Result<()> {
    let mut lab = Lab::new(
        "data-kept",
        Firmware::Bios,
        Disk::virtio("OS1", 32 * MIB),
        Disk::virtio("DATA1", 64 * MIB),
    )?;
    lab.add_tiny("a")?;
    lab.machine.write_disk(1, 4096, b"somebody's data")?;
    let before = lab.machine.disk_sha256(1)?;
    lab.machine.power_on()?;
    let node = wait_discovered(&lab.api, &lab.machine, "manageable", DISCOVERY)?;
    let refused =
        deploy(&lab.api, &node, "tiny-a", "DATA1").err().context("a manageable node was deployed")?;
    ensure!(format!("{refused:#}").contains("409"), "{refused:#}");
    lab.api.post(&format!("/api/v1/nodes/{node}/provide"), &serde_json::json!({ "wipe": [] }))?;
    let refused = deploy(&lab.api, &node, "tiny-a", "OS1").err().context("a disk too small was accepted")?;
    ensure!(format!("{refused:#}").contains("disk-too-small"), "{refused:#}");
    lab.machine.power_off()?;
    ensure!(lab.machine.disk_sha256(1)? == before, "the data disk changed");
    lab.rack.passed();
    Ok(())
}
