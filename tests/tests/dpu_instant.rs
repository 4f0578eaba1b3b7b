//! A server that boots from an instant volume, from the API to the OS: its host is switched on before its image was copied. On the way
//! `billet-blk` and the server are killed, bytes of the image are wrong and are mended, and in the end nothing is left on the DPU.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::dpu::{Census, DpuSite, INSTANT, SITE, Ssh};
use tests::exporter::noise;
use tests::rack::{Firmware, artifact};
use tests::scenario::{DEPLOY, add_image, text};

/// What an OS has and does not read when it starts.
const REST: usize = 96 << 20;
/// Bytes of a chunk, unless an image asks for others.
const CHUNK: usize = 4 << 20;
/// For a DPU, or a machine, to do what it was told.
const SOON: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Percent of the image that may be on the DPU when the OS is up.
const FETCHED_MAX: u64 = 40;
/// The OS reads the whole of its disk; whether that went well.
const READ_ALL: &str = "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null && echo whole || echo broken";

/// A site with one host, a project, and what was there before.
struct Story {
    site: DpuSite,
    of: String,
    ssh: Ssh,
    node: String,
    image: String,
    before: Census,
}

#[test]
fn a_server_runs_before_its_image_was_copied() -> Result<()> {
    let mut story = Story::begin()?;
    let volume = story.boot()?;
    let front = story.reach()?;
    story.refuse(&volume)?;
    story.read_wrong_bytes(&front, &volume)?;
    story.hydrate(&front, &volume)?;
    story.delete(&front)?;
    story.site.passed();
    Ok(())
}

/// What there is once OVN has the project's router: nobody waits for OVN when a network is made.
fn settled(site: &mut DpuSite) -> Result<Census> {
    let end = Instant::now() + SOON;
    let mut last = site.census()?;
    loop {
        std::thread::sleep(LOOK);
        let census = site.census()?;
        if census == last && census.get("OVN Logical_Router").is_some_and(|count| *count > 0) {
            return Ok(census);
        }
        ensure!(Instant::now() < end, "the project's network is not in OVN: {census:#?}");
        last = census;
    }
}

impl Story {
    fn begin() -> Result<Self> {
        let mut site = DpuSite::new("dpu-instant", 1, Firmware::Bios)?;
        let mut image = fs::read(artifact("images/tiny-a.raw")?)?;
        image.extend(noise(REST, 11));
        let file = site.rack.dir().join("image.raw");
        fs::write(&file, image)?;
        let image = add_image(&site.api, &file, "large", "1")?;
        let node = site.discover()?.pop().context("a host")?;
        let of = site.project("shop")?;
        let shell =
            json!({ "direction": "ingress", "protocol": "tcp", "ports": "22", "cidr": format!("{SITE}/32") });
        let rules = json!({ "rules": [shell, { "direction": "egress" }] });
        site.api.patch(&format!("{of}/security-groups/default"), &rules)?;
        let ssh = Ssh::new(site.rack.namespace(), site.rack.dir())?;
        let before = settled(&mut site)?;
        Ok(Self { site, of, ssh, node, image, before })
    }

    /// From the request to the phone-home. The exporter and the server are killed while the OS starts. Path of the volume in the API.
    fn boot(&mut self) -> Result<String> {
        let (api, of) = (self.site.api.clone(), self.of.clone());
        let began = Instant::now();
        let body = json!({
            "name": "web", "node": self.node, "image": "large", "boot_volume": { "type": INSTANT },
            "networks": ["web"], "ssh_keys": [self.ssh.public_key()],
        });
        let serial = self.site.hosts[0].lock().serial().clone();
        serial.skip_to_end();
        api.post(&format!("{of}/servers"), &body)?;
        serial.wait_for("GRUB", SOON)?;
        println!("create_to_boot_loader_s {:.1}", began.elapsed().as_secs_f64());
        self.kill_exporter()?;
        self.site.rack.server()?.kill()?;
        std::thread::sleep(Duration::from_secs(1));
        self.site.rack.server()?.start_again()?;
        serial.wait_for("TINY-OS READY", DEPLOY)?;
        let volumes = api.get(&format!("{of}/volumes"))?;
        let volume = volumes["items"][0].clone();
        let percent = volume["hydration"]["percent"].as_u64().with_context(|| format!("{volume:#}"))?;
        println!("percent_at_prompt {percent}");
        let active = |server: &Value| match server["phase"].as_str() {
            Some("active") => Some(Ok(())),
            Some("error") => Some(Err(anyhow::anyhow!("{server:#}"))),
            _ => None,
        };
        api.wait(&format!("{of}/servers/web"), DEPLOY, active)??;
        println!("create_to_active_s {:.1}", began.elapsed().as_secs_f64());
        ensure!(percent < FETCHED_MAX, "{percent} % of the image were fetched before the OS was up");
        ensure!(volume["boot"] == true && volume["hydration"]["hydrated"] == false, "{volume:#}");
        ensure!(serial.said("disk=vda") && serial.said("hostname=web"), "it knows who it is, on its volume");
        Ok(format!("{of}/volumes/{}", text(&volume, "id")?))
    }

    /// Ends the DPU's exporter at once.
    fn kill_exporter(&self) -> Result<()> {
        let chassis = self.site.dpus.overlay.chassis(0).name();
        let pids = Command::new("ip").args(["netns", "pids", chassis]).output()?;
        let is_exporter = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "billet-blk")
        };
        let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
        let pid = pids.lines().find(is_exporter).context("no exporter runs")?;
        ensure!(Command::new("kill").args(["-9", pid]).status()?.success(), "it cannot be killed");
        Ok(())
    }

    fn reach(&self) -> Result<String> {
        let api = &self.site.api;
        let ports = api.get(&format!("{}/ports", self.of))?;
        let floating = json!({ "network": "internet", "port": ports["items"][0]["id"] });
        let front = text(&api.post(&format!("{}/floating-addresses", self.of), &floating)?, "address")?;
        ensure!(self.ssh.wait(&front, "hostname", SOON)? == "web");
        Ok(front)
    }

    /// What cannot be done with it, while its image is still needed.
    fn refuse(&self, volume: &str) -> Result<()> {
        let api = &self.site.api;
        let snapshot = json!({ "name": "s", "volume": volume.rsplit('/').next() });
        for refused in [
            api.post(&format!("{}/snapshots", self.of), &snapshot),
            api.patch(volume, &json!({ "size": 1_u64 << 30 })),
            api.delete(&format!("/api/v1/images/{}", self.image)),
            api.post(&format!("/api/v1/nodes/{}/evacuate", self.node), &json!({})),
        ] {
            let said = refused.err().context("it was done")?;
            println!("refused: {said:#}");
        }
        Ok(())
    }

    /// A bit of a chunk flips in the store: an I/O error and an event, never data. Mended, it is read.
    fn read_wrong_bytes(&mut self, front: &str, volume: &str) -> Result<()> {
        let images = self.site.rack.server()?.state_dir().join("images");
        let store = images::Store::open(&images)?;
        let manifest = store.manifest(self.image.parse()?)?;
        let last = manifest.chunks.iter().flatten().next_back().context("a chunk")?.id.to_string();
        let file: PathBuf = images.join("chunks").join(&last[..2]).join(format!("{last}.zst"));
        let whole = fs::read(&file)?;
        let mut spoilt = whole.clone();
        spoilt[whole.len() / 2] ^= 1;
        fs::write(&file, spoilt)?;
        ensure!(self.ssh.run(front, READ_ALL)? == "broken", "wrong bytes were given to the host");
        self.wait_event("volume.chunk_wrong")?;
        let shown = self.site.api.get(volume)?;
        ensure!(shown["hydration"]["wrong_chunks"] == 1, "{shown:#}");
        fs::write(&file, whole)?;
        Ok(())
    }

    /// The rest comes, and the exporter is killed once more on the way.
    fn hydrate(&self, front: &str, volume: &str) -> Result<()> {
        self.kill_exporter()?;
        let end = Instant::now() + SOON;
        while self.ssh.run(front, READ_ALL)? != "whole" {
            ensure!(Instant::now() < end, "the mended chunk is not read");
            std::thread::sleep(Duration::from_secs(1));
        }
        let is_whole = |volume: &Value| (volume["hydration"]["hydrated"] == true).then(|| volume.clone());
        let shown = self.site.api.wait(volume, SOON, is_whole)?;
        ensure!(shown["hydration"]["percent"] == 100, "{shown:#}");
        ensure!(shown["hydration"]["bytes"].as_u64() > Some((REST - CHUNK) as u64), "{shown:#}");
        self.wait_event("volume.hydrated")
    }

    fn wait_event(&self, kind: &str) -> Result<()> {
        let path = format!("{}/events?limit=200", self.of);
        let said = |events: &Value| {
            let all = events["items"].as_array()?;
            let event = all.iter().find(|event| event["kind"] == kind)?;
            println!("{kind}: {}", event["message"]);
            Some(())
        };
        self.site.api.wait(&path, SOON, said).with_context(|| format!("waiting for {kind}"))
    }

    /// All is given back: no row, no process, and no layer on the DPU.
    fn delete(&mut self, front: &str) -> Result<()> {
        let began = Instant::now();
        self.site.api.delete(&format!("{}/floating-addresses/{front}", self.of))?;
        self.site.api.delete(&format!("{}/servers/web", self.of))?;
        let end = Instant::now() + SOON;
        loop {
            let census = self.site.census()?;
            if census == self.before {
                println!("deleted_s {:.1}, nothing is left: {census:?}", began.elapsed().as_secs_f64());
                return Ok(());
            }
            ensure!(Instant::now() < end, "before {:#?}, left {census:#?}", self.before);
            std::thread::sleep(LOOK);
        }
    }
}
