//! A server whose boot volume is an image of Ceph: one node of Ceph, the real server with a type of volumes on it, a DPU that reaches it
//! by librbd, and a host that knows nothing of all that. At the end Ceph holds what it held before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::dpu::{Census, DpuSite, SITE, SOON, Ssh};
use tests::rack::{Firmware, Rack, artifact};
use tests::scenario::{add_image, text, wait_state};
use tests::volumes::ADDRESS;
use tests::volumes::ceph::{self, Ceph, POOL};

/// The type of volumes that are kept in Ceph.
const TYPE: &str = "ceph";
/// Bytes of the boot volume.
const BOOT: u64 = 256 << 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The guest writes 4 MiB of noise (its file system has not been grown), gets rid of what it has in memory, and says the checksum of what it reads.
const NOISE: &str = "dd if=/dev/urandom of=/root/noise bs=1M count=4 2>/dev/null && sync";
const SUM: &str = "echo 3 > /proc/sys/vm/drop_caches; sha256sum < /root/noise";
/// The guest mounts the root of another disk, and reads there.
const OF_COPY: &str = "n=0; until [ -b /dev/vdb3 ]; do n=$((n+1)); [ $n -gt 200 ] && exit 1; sleep 0.05; done; \
     mkdir -p /tmp/copy && mount -t ext4 /dev/vdb3 /tmp/copy && sha256sum < /tmp/copy/root/noise; umount /tmp/copy";

struct Story {
    // Dropped in this order: who has images open, then the cluster.
    site: DpuSite,
    ceph: Ceph,
    of: String,
    ssh: Ssh,
    node: String,
    before: (Census, ceph::Census),
}

#[test]
fn a_server_boots_from_ceph() -> Result<()> {
    let mut story = Story::begin()?;
    story.create()?;
    let front = story.site.expose(&story.of, "web")?;
    let sum = story.write(&front)?;
    story.exporter_dies(&front, &sum)?;
    story.copy(&front, &sum)?;
    story.delete(&front)?;
    story.site.passed();
    Ok(())
}

impl Story {
    fn begin() -> Result<Self> {
        let began = Instant::now();
        let rack = Rack::new("dpu-rbd")?;
        let ceph = Ceph::start(rack.namespace(), rack.dir())?;
        println!("ceph_s {:.1}", began.elapsed().as_secs_f64());
        let types = format!(
            "\n[[volumes]]\nname = {TYPE:?}\nkind = \"rbd\"\npool = {POOL:?}\nconfiguration = {:?}\nkeyring = {:?}\n\
             monitors = [\"{ADDRESS}:6789\"]\n",
            ceph.configuration(),
            ceph.billet()?
        );
        let mut site = DpuSite::on(rack, "dpu-rbd", 1, Firmware::Bios, &types)?;
        add_image(&site.api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let node = site.discover()?.pop().context("a node")?;
        let of = site.project("shop")?;
        let ssh = Ssh::new(site.rack.namespace(), site.rack.dir())?;
        let shell =
            json!({ "direction": "ingress", "protocol": "tcp", "ports": "22", "cidr": format!("{SITE}/32") });
        site.allow(&of, &[shell])?;
        println!("site_s {:.1}", began.elapsed().as_secs_f64());
        let before = (site.census()?, ceph.census()?);
        Ok(Self { site, ceph, of, ssh, node, before })
    }

    /// The image is in Ceph before the machine is switched on; its OS is up and phones home.
    fn create(&self) -> Result<()> {
        let began = Instant::now();
        let body = json!({
            "name": "web", "node": self.node, "image": "tiny-a", "boot_volume": { "type": TYPE, "size": BOOT },
            "networks": ["web"], "ssh_keys": [self.ssh.public_key()],
        });
        self.site.api.post(&format!("{}/servers", self.of), &body)?;
        self.site.wait_active(&self.of, "web")?;
        println!("create_to_active_s {:.1}", began.elapsed().as_secs_f64());
        ensure!(self.site.hosts[0].lock().serial().said("disk=vda"), "the OS is on a volume");
        let volume = self.boot_volume()?;
        ensure!(volume["type"] == TYPE && volume["status"] == "in_use", "{volume:#}");
        let image = format!("billet-{}", text(&volume, "id")?);
        let status = self.ceph.run("rbd", &["status", &format!("{POOL}/{image}")])?;
        // The DPU's own address: nobody else has it open.
        ensure!(
            status.matches("watcher=").count() == 1 && status.contains("watcher=10.77.0.10:"),
            "{status}"
        );
        let user = self.ceph.run("ceph", &["auth", "get", &format!("client.{image}")])?;
        ensure!(user.contains("object_prefix rbd_data.") && !user.contains("allow *"), "{user}");
        Ok(())
    }

    fn boot_volume(&self) -> Result<Value> {
        let volumes = self.site.api.get(&format!("{}/volumes", self.of))?;
        let all = volumes["items"].as_array().context("volumes")?;
        let boots = |volume: &&Value| text(volume, "name").is_ok_and(|name| name.starts_with("web-boot-"));
        all.iter().find(boots).cloned().with_context(|| format!("a boot volume in {volumes:#}"))
    }

    fn write(&self, front: &str) -> Result<String> {
        ensure!(self.ssh.wait(front, "hostname", SOON)? == "web");
        self.ssh.run(front, &format!("{NOISE} && {SUM}"))
    }

    /// What reaches Ceph dies while the guest writes: the guest waits, and nothing is lost.
    fn exporter_dies(&self, front: &str, sum: &str) -> Result<()> {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let more = NOISE.replace("noise", "more");
            let load = format!("for n in $(seq 12); do {more} || exit 1; done; echo written");
            let load = scope.spawn(move || self.ssh.run(front, &load));
            std::thread::sleep(Duration::from_millis(1500));
            let daemon = self.site.process(0, "qemu-storage-da")?;
            kill(Pid::from_raw(daemon), Signal::SIGKILL)?;
            let said = load.join().map_err(|_| anyhow::anyhow!("the load broke down"))??;
            ensure!(said == "written", "{said}");
            self.another_serves(daemon)
        })?;
        println!("written_with_exporter_killed_s {:.1}", began.elapsed().as_secs_f64());
        ensure!(self.ssh.run(front, SUM)? == sum, "what was written is not what is read");
        let log = self.ssh.run(front, "dmesg | grep -ci 'i/o error'; true")?;
        ensure!(log == "0", "the guest saw {log} errors of its disk");
        Ok(())
    }

    /// Waits until another process than that which was killed serves the disk.
    fn another_serves(&self, killed: i32) -> Result<()> {
        let end = Instant::now() + SOON;
        while !self.site.process(0, "qemu-storage-da").is_ok_and(|pid| pid != killed) {
            ensure!(Instant::now() < end, "nobody serves the disk");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// A snapshot of the running server's volume, and a clone of that which the server has as its second disk.
    fn copy(&self, front: &str, sum: &str) -> Result<()> {
        let (api, of) = (&self.site.api, &self.of);
        let volume = text(&self.boot_volume()?, "id")?;
        api.post(&format!("{of}/snapshots"), &json!({ "name": "before", "volume": volume }))?;
        self.ssh.run(front, "echo gone > /root/noise && sync")?;
        api.post(&format!("{of}/volumes"), &json!({ "name": "copy", "snapshot": "before" }))?;
        self.site.wait_volume(of, "copy", "available")?;
        let began = Instant::now();
        api.post(&format!("{of}/volumes/copy/attach"), &json!({ "server": "web" }))?;
        self.site.wait_volume(of, "copy", "in_use")?;
        println!("clone_attached_s {:.2}", began.elapsed().as_secs_f64());
        ensure!(self.ssh.run(front, OF_COPY)? == sum, "the clone holds something else");
        api.post(&format!("{of}/volumes/copy/detach"), &json!({}))?;
        self.site.wait_volume(of, "copy", "available")?;
        api.delete(&format!("{of}/snapshots/before"))?;
        Ok(())
    }

    /// The clone lives on when what it was made of is gone; then that goes as well.
    fn delete(&mut self, front: &str) -> Result<()> {
        let (api, of) = (self.site.api.clone(), self.of.clone());
        let began = Instant::now();
        api.delete(&format!("{of}/floating-addresses/{front}"))?;
        api.delete(&format!("{of}/servers/web"))?;
        self.site.wait_bare(0)?;
        wait_state(&api, &self.node, "available", SOON)?;
        api.delete(&format!("{of}/volumes/copy"))?;
        let end = Instant::now() + SOON;
        loop {
            let left = (self.site.census()?, self.ceph.census()?);
            if left == self.before {
                println!("deleted_s {:.1}, nothing is left: {:?}", began.elapsed().as_secs_f64(), left.1);
                return Ok(());
            }
            ensure!(Instant::now() < end, "before {:#?}, left {left:#?}", self.before);
            std::thread::sleep(LOOK);
        }
    }
}
