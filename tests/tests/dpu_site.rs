//! The whole: servers of a project on hosts behind DPUs, whose disks are volumes and whose networks are the project's. From the API to
//! the OS that runs: nobody touches a machine, until one dies. One story of one site, which takes most of its time to come up.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::{MacAddr, PortId};
use serde_json::{Value, json};
use tests::dpu::{Census, DpuSite, SITE, SOON, Ssh, VOLUMES};
use tests::overlay::Host;
use tests::rack::{Firmware, Serial, artifact};
use tests::scenario::{DEPLOY, add_image, text, wait_state};

/// Bytes of a boot volume: the image's smallest disk has no room for the configuration beside it.
const BOOT: u64 = 256 << 20;
/// Bytes of the data volume.
const DATA: u64 = 16 << 20;
/// How often it is given to the running server and taken again.
const ROUNDS: usize = 3;
/// Limit of what a server gets, in kbit/s.
const LIMIT: u32 = 1000;
/// Octets that it is sent to see that it holds.
const FED: usize = 192 << 10;
/// Octets of a command that fills several segments; the guest's SSH server takes no longer one than 9,000 (`MAX_CMD_LEN` of Dropbear).
const LONG: usize = 8_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Who writes the first server's image, and the second's.
const IMAGING: [&str; 2] = ["dpu", "agent"];
/// The first server's address, and the second's.
const ADDRESSES: [&str; 2] = ["10.0.0.2", "10.0.0.3"];
/// The guest waits for its data disk, whose checksum it prints.
const SUM: &str = "n=0; until [ -b /dev/vdb ]; do n=$((n+1)); [ $n -gt 200 ] && exit 1; sleep 0.05; done; sha256sum < /dev/vdb";
/// The guest fills its data disk with noise.
const FILL: &str = "dd if=/dev/urandom of=/dev/vdb bs=1M count=16 2>/dev/null && sync";

/// A site, a project, and its owner.
struct Story {
    site: DpuSite,
    of: String,
    ssh: Ssh,
    nodes: Vec<String>,
    before: Census,
}

#[test]
fn servers_run_on_volumes_and_networks_of_their_project() -> Result<()> {
    let mut story = Story::begin()?;
    story.create()?;
    let front = story.reach()?;
    story.carries_whole_segments(&front)?;
    story.others_cannot()?;
    story.change_rules(&front)?;
    let sum = story.change_disks(&front)?;
    story.limit_the_port(&front)?;
    story.limits_and_counters(&front)?;
    story.free_second()?;
    story.evacuate(&front, &sum)?;
    story.come_back(&front)?;
    story.delete(&front)?;
    story.site.passed();
    Ok(())
}

impl Story {
    fn begin() -> Result<Self> {
        let began = Instant::now();
        let mut site = DpuSite::new("dpu-site", 2, Firmware::Bios)?;
        add_image(&site.api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let nodes = site.discover()?;
        let of = site.project("shop")?;
        site.project("rival")?;
        let ssh = Ssh::new(site.rack.namespace(), site.rack.dir())?;
        println!("site_s {:.1}", began.elapsed().as_secs_f64());
        let mut story = Self { site, of, ssh, nodes, before: Census::new() };
        let shell =
            json!({ "direction": "ingress", "protocol": "tcp", "ports": "22", "cidr": format!("{SITE}/32") });
        story.site.allow(&story.of, &[json!({ "direction": "ingress", "group": "default" }), shell])?;
        story.before = story.site.census()?;
        Ok(story)
    }

    /// Two servers: the image of the first is written by its DPU before its machine is switched on, that of the second by the agent on its
    /// machine. In the middle the DPU's program and the server are killed.
    fn create(&mut self) -> Result<()> {
        let (api, of) = (&self.site.api.clone(), &self.of.clone());
        let mut began = Instant::now();
        for (number, node) in self.nodes.clone().iter().enumerate() {
            // One of them encrypted.
            let body = json!({
                "name": format!("web-{number}"), "node": node, "image": "tiny-a",
                "boot_volume": { "size": BOOT, "encrypted": number == 0, "imaging": IMAGING[number] },
                "networks": ["web"], "ssh_keys": [self.ssh.public_key()],
            });
            if IMAGING[number] == "dpu" {
                self.written_through_kills(&body)?;
                began = Instant::now();
            } else {
                api.post(&format!("{of}/servers"), &body)?;
            }
        }
        for (number, host) in self.site.hosts.iter().enumerate() {
            self.site.wait_active(&self.of, &format!("web-{number}"))?;
            println!("create_to_active_s {:.1}, imaging {}", began.elapsed().as_secs_f64(), IMAGING[number]);
            self.is_written_by(number)?;
            let serial = host.lock().serial().clone();
            ensure!(serial.said("disk=vda"), "the OS is on a volume");
            ensure!(serial.said(&format!("address={}", ADDRESSES[number])), "its address is the project's");
            let dpu = api.get(&format!("/api/v1/dpus/{}", DpuSite::dpu_name(number)))?;
            ensure!(dpu["ports"][0]["port"].is_string() && dpu["ports"][0]["bridge"].is_null(), "{dpu:#}");
            ensure!(dpu["volumes"].as_array().context("volumes")?.len() == 1, "{dpu:#}");
        }
        Ok(())
    }

    /// Asks for the first server. A chunk of its image is missing until its DPU has written the others, and is there again when the DPU's
    /// program and the server were killed and came back.
    fn written_through_kills(&mut self, body: &Value) -> Result<()> {
        let chunks = self.site.rack.server()?.state_dir().join("images/chunks");
        let dir = fs::read_dir(&chunks)?.next().context("chunks")??.path();
        let chunk = fs::read_dir(dir)?.next().context("a chunk")??.path();
        let aside = self.site.rack.dir().join("chunk");
        fs::rename(&chunk, &aside)?;
        let api = self.site.api.clone();
        api.post(&format!("{}/servers", self.of), body)?;
        let path = format!("{}/volumes", self.of);
        let half = |volumes: &Value| {
            let part = &volumes["items"][0]["hydration"];
            let is_half = part["percent"].as_u64() > Some(10) && part["store_away"].is_string();
            is_half.then(|| part.clone())
        };
        println!("half written: {}", api.wait(&path, SOON, half)?);
        self.site.dpus.get(0).kill()?;
        self.site.rack.server()?.kill()?;
        self.site.dpus.get(0).start_again()?;
        self.site.rack.server()?.start_again()?;
        api.wait(&path, SOON, half).context("after the kills")?;
        let node = api.get(&format!("/api/v1/nodes/{}", self.nodes[0]))?;
        ensure!(!self.site.hosts[0].lock().is_on(), "its machine is on before it has a disk: {node:#}");
        Ok(fs::rename(&aside, &chunk)?)
    }

    /// The agent worked on the second machine, and not on the first; neither has a disk of its own.
    fn is_written_by(&self, number: usize) -> Result<()> {
        let node = self.site.api.get(&format!("/api/v1/nodes/{}", self.nodes[number]))?;
        let phases = node["timeline"]["phases"].as_array().context("phases")?;
        let passed = |name: &str| phases.iter().any(|phase| phase["phase"] == name);
        let agent = passed("write") && passed("verify") && passed("customise");
        ensure!(agent == (IMAGING[number] == "agent"), "{:#}", node["timeline"]);
        let disks = &node["inventory"]["disks"];
        ensure!(disks.as_array().is_some_and(Vec::is_empty), "{disks:#}");
        Ok(())
    }

    /// From the site to the first server, and from that to the second, which is behind the other DPU. The first one's address.
    fn reach(&self) -> Result<String> {
        let port = self.site.port_of(&self.of, "web-0")?;
        let front = self.site.expose(&self.of, "web-0")?;
        let began = Instant::now();
        ensure!(self.ssh.wait(&front, "hostname", SOON)? == "web-0");
        println!("ssh_to_first_s {:.1}", began.elapsed().as_secs_f64());
        let overlay = &self.site.dpus.overlay;
        let seen = overlay.on_underlay("udp port 6081", || self.reaches_second(&front))?;
        let key = overlay.tunnel_key(&text(&port, "network")?)?;
        let (vni, from) = (format!("vni {key:#x}"), format!("IP {}.", ADDRESSES[0]));
        let to = format!("> {}.22: Flags [S]", ADDRESSES[1]);
        let is_it = |line: &str| [&vni, &from, &to].iter().all(|part| line.contains(part.as_str()));
        ensure!(seen.lines().any(is_it), "no {from} {to} with {vni} on the underlay: {seen}");
        println!("vni {key:#x} seen on the underlay");
        Ok(front)
    }

    /// The site's segments are as large as Ethernet carries, and the guest takes as many octets: it did not ask what its network carries.
    fn carries_whole_segments(&self, front: &str) -> Result<()> {
        let long = "x".repeat(LONG);
        ensure!(
            self.ssh.run(front, &format!("echo {long}"))? == long,
            "the command arrives, and what it says"
        );
        Ok(())
    }

    /// A shell of the second server, by a connection that the first one opens.
    fn reaches_second(&self, front: &str) -> Result<()> {
        let name = self.ssh.run_through(front, ADDRESSES[1], "hostname")?;
        ensure!(name == "web-1", "{name} answers at {}", ADDRESSES[1]);
        Ok(())
    }

    /// Machines of another project have the same addresses, on the same DPUs.
    fn others_cannot(&mut self) -> Result<()> {
        let of = "/api/v1/projects/rival";
        let mut rivals: Vec<(Host, Value)> = Vec::new();
        for (chassis, address) in ADDRESSES.iter().enumerate() {
            let port = self.site.api.post(&format!("{of}/ports"), &json!({ "network": "web" }))?;
            ensure!(port["addresses"] == json!([address]), "the next free one: {port}");
            let (id, mac) = (text(&port, "id")?.parse::<PortId>()?, text(&port, "mac")?.parse::<MacAddr>()?);
            rivals.push((self.site.dpus.overlay.host(chassis, id, mac)?, port));
        }
        self.site.synced()?;
        let overlay = &self.site.dpus.overlay;
        for (host, _) in &rivals {
            host.dhcp(overlay.as_ref())?;
        }
        let (first, second) = (&rivals[0].0, &rivals[1]);
        ensure!(first.reaches(ADDRESSES[1])?, "its own project's");
        ensure!(first.neighbour(ADDRESSES[1])?.to_string() == text(&second.1, "mac")?);
        overlay.unplug(&second.0)?;
        ensure!(!first.reaches(ADDRESSES[1])?, "a server of another project answers");
        for (_, port) in &rivals {
            self.site.api.delete(&format!("{of}/ports/{}", text(port, "id")?))?;
        }
        overlay.unplug(first)
    }

    /// What a security group says holds on servers that run.
    fn change_rules(&self, front: &str) -> Result<()> {
        let shell =
            json!({ "direction": "ingress", "protocol": "tcp", "ports": "22", "cidr": format!("{SITE}/32") });
        let connect =
            format!("nc -w 3 {} 22 </dev/null >/dev/null 2>&1 && echo open || echo closed", ADDRESSES[1]);
        let began = Instant::now();
        self.site.allow(&self.of, std::slice::from_ref(&shell))?;
        println!("security_group_changed_s {:.2}", began.elapsed().as_secs_f64());
        ensure!(self.ssh.run(front, &connect)? == "closed", "nothing allows it any more");
        ensure!(self.reaches_second(front).is_err(), "nothing allows it any more");
        self.site.allow(&self.of, &[json!({ "direction": "ingress", "group": "default" }), shell])?;
        self.reaches_second(front)
    }

    /// A data volume comes and goes, and comes with what was written. It stays with the first server; what is on it.
    fn change_disks(&self, front: &str) -> Result<String> {
        let (api, volume) = (&self.site.api, format!("{}/volumes/data", self.of));
        api.post(
            &format!("{}/volumes", self.of),
            &json!({ "name": "data", "size": DATA, "encrypted": true }),
        )?;
        self.site.wait_volume(&self.of, "data", "available")?;
        let mut written: Option<String> = None;
        for round in 0..=ROUNDS {
            let began = Instant::now();
            api.post(&format!("{volume}/attach"), &json!({ "server": "web-0" }))?;
            self.site.wait_volume(&self.of, "data", "in_use")?;
            let attached = began.elapsed();
            let found = self.ssh.run(front, SUM)?;
            ensure!(
                written.as_ref().is_none_or(|sum| *sum == found),
                "round {round}: {written:?} became {found}"
            );
            if round == ROUNDS {
                break;
            }
            written = Some(self.ssh.run(front, &format!("{FILL} && {SUM}"))?);
            let began = Instant::now();
            api.post(&format!("{volume}/detach"), &json!({}))?;
            self.site.wait_volume(&self.of, "data", "available")?;
            let (attached, detached) = (attached.as_secs_f64(), began.elapsed().as_secs_f64());
            println!("volume_attached_s {attached:.2}, detached_s {detached:.2}");
            ensure!(
                self.ssh.run(front, "ls /sys/block")?.lines().all(|disk| disk != "vdb"),
                "the disk is still there"
            );
        }
        written.context("a checksum")
    }

    /// What the running server gets is held to its port's limit as soon as the API sets one, and is not once that is gone.
    fn limit_the_port(&self, front: &str) -> Result<()> {
        let (api, port) = (&self.site.api, self.port_path()?);
        let free = self.kbps(front)?;
        let limited = api.patch(&port, &json!({ "ingress_kbps": LIMIT, "egress_kbps": 100_000 }))?;
        ensure!(limited["egress_burst_kb"] == 80_000, "{limited:#}");
        self.settled()?;
        let held = self.kbps(front)?;
        api.patch(&port, &json!({ "ingress_kbps": 0, "egress_kbps": 0 }))?;
        self.settled()?;
        let again = self.kbps(front)?;
        println!(
            "port_gets_kbit_s {free:.0} without a limit, {held:.0} with one of {LIMIT}, {again:.0} after it"
        );
        // Less, for what is counted is within SSH within TCP; more, for what came before the command began is counted too.
        let limit = f64::from(LIMIT);
        ensure!((0.5 * limit..1.25 * limit).contains(&held), "{held} kbit/s where {LIMIT} are the limit");
        ensure!(free > 1.5 * limit && again > 1.5 * limit, "{free} and {again} kbit/s without one");
        Ok(())
    }

    /// How much a second the server gets by SSH, as it measures itself from the first octet to the last.
    fn kbps(&self, front: &str) -> Result<f64> {
        const CLOCK: &str = "cut -d' ' -f1 /proc/uptime";
        let input = self.site.rack.dir().join("input");
        fs::write(&input, vec![b'x'; FED])?;
        let command = format!("head -c 1 >/dev/null; {CLOCK}; cat >/dev/null; {CLOCK}");
        let said = self.ssh.feed(front, &command, File::open(&input)?)?;
        let times: Vec<f64> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        let [first, last] = times[..] else { anyhow::bail!("no two times: {said}") };
        Ok(FED as f64 * 8.0 / 1000.0 / (last - first).max(0.01))
    }

    /// The path of the first server's port.
    fn port_path(&self) -> Result<String> {
        Ok(format!("{}/ports/{}", self.of, text(&self.site.port_of(&self.of, "web-0")?, "id")?))
    }

    /// Waits until the first DPU is as it is to be.
    fn settled(&self) -> Result<()> {
        let is_so = |dpu: &Value| (dpu["status"] == "settled").then_some(());
        self.site.api.wait(&format!("/api/v1/dpus/{}", DpuSite::dpu_name(0)), SOON, is_so)
    }

    /// A disk of the running server gets a limit by the API, and loses it; what disk and port carried is told.
    fn limits_and_counters(&self, front: &str) -> Result<()> {
        const READ: &str = "dd if=/dev/vdb of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null";
        let (api, volume) = (&self.site.api, format!("{}/volumes/data", self.of));
        let port = self.port_path()?;
        let took = |command: &str| -> Result<f64> {
            let began = Instant::now();
            self.ssh.run(front, command)?;
            Ok(began.elapsed().as_secs_f64())
        };
        let free = took(READ)?;
        let limited = api.patch(&volume, &json!({ "bytes_per_second": 1 << 20 }))?;
        ensure!(limited["status"] == "in_use", "{limited:#}");
        self.settled()?;
        // An exporter looks twice a second.
        std::thread::sleep(Duration::from_secs(2));
        let slow = took(READ)?;
        println!("volume_read_mib_s {:.2} without a limit, {:.2} with one of 1", 4.0 / free, 4.0 / slow);
        ensure!(slow > 3.7, "4 MiB in {slow} s, at 1 MiB/s");
        api.patch(&volume, &json!({ "bytes_per_second": 0 }))?;

        let number = |of: &Value, path: &str| of.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let read =
            |volume: &Value| (number(volume, "/counters/read/bytes") >= 8 << 20).then(|| volume.clone());
        let volume = api.wait(&volume, SOON, read)?;
        let got = |port: &Value| {
            let all =
                ["/counters/to_host/bytes", "/counters/from_host/packets"].map(|path| number(port, path));
            (all[0] > 3 * FED as u64 && all[1] > 0).then(|| port.clone())
        };
        let port = api.wait(&port, SOON, got)?;
        println!("counters {} {}", volume["counters"], port["counters"]);
        Ok(())
    }

    /// The second server is given back: its machine is the spare.
    fn free_second(&self) -> Result<()> {
        self.site.api.delete(&format!("{}/servers/web-1", self.of))?;
        self.site.wait_bare(1)?;
        wait_state(&self.site.api, &self.nodes[1], "available", SOON).map(drop)
    }

    /// The first server's machine and its DPU's program die: the server goes on, on the spare.
    fn evacuate(&mut self, front: &str, sum: &str) -> Result<()> {
        self.ssh.run(front, "echo it was here > /root/marker && sync")?;
        self.site.hosts[0].lock().power_off()?;
        self.site.dpus.get(0).kill()?;
        self.site.hosts[1].lock().serial().skip_to_end();
        let began = Instant::now();
        let path = format!("/api/v1/nodes/{}/evacuate", self.nodes[0]);
        let moved = self.site.api.post(&path, &json!({ "to": self.nodes[1] }))?;
        println!("evacuate_answered_s {:.1}", began.elapsed().as_secs_f64());
        ensure!(moved["name"] == "web-0", "{moved:#}");
        // Its key is the one that is known: it is the same OS.
        let marker = self.ssh.wait(front, "cat /root/marker", DEPLOY)?;
        println!("evacuated_s {:.1}", began.elapsed().as_secs_f64());
        ensure!(marker == "it was here", "{marker}");
        self.site.wait_active(&self.of, "web-0")?;
        let said = self.ssh.run(front, "hostname; cat /var/boots; ip -4 -o addr show scope global")?;
        ensure!(
            said.starts_with("web-0\n2\n") && said.contains(&format!("inet {}/24", ADDRESSES[0])),
            "{said}"
        );
        self.site.wait_volume(&self.of, "data", "in_use")?;
        ensure!(self.ssh.run(front, SUM)? == sum, "the data volume followed with other content");
        self.is_hidden()
    }

    /// The store has nothing that the first server wrote: its volumes are encrypted on the DPU.
    fn is_hidden(&mut self) -> Result<()> {
        let store = self.site.rack.server()?.state_dir().join("volumes").join(VOLUMES).join("volumes");
        let volumes: Vec<_> = fs::read_dir(&store)?.collect::<Result<_, _>>()?;
        ensure!(volumes.len() == 2, "{volumes:?}");
        for volume in volumes {
            let mut start = [0; 4];
            File::open(volume.path())?.read_exact(&mut start)?;
            ensure!(&start == b"LUKS", "{volume:?} is not encrypted");
        }
        let found = Command::new("grep").args(["-rlaF", "it was here"]).arg(&store).output()?;
        ensure!(found.status.code() == Some(1), "found in {}", String::from_utf8_lossy(&found.stdout));
        Ok(())
    }

    /// The old machine is switched on again, and its DPU's program: neither is let in anywhere.
    fn come_back(&mut self, front: &str) -> Result<()> {
        let port = text(&self.site.port_of(&self.of, "web-0")?, "id")?;
        let overlay = &self.site.dpus.overlay;
        let wish = overlay.northbound(&["get", "Logical_Switch_Port", &port, "options:requested-chassis"])?;
        ensure!(wish.trim().trim_matches('"') == "dpu-1", "{wish}");
        self.is_bound(&port, "dpu-1")?;
        // Power is back, and the machine is faster than its DPU's program: the disk's socket and the port are where they were.
        self.switch_on_old()?.wait_for_prompt("Booting from Hard Disk", SOON)?;
        self.is_bound(&port, "dpu-1")?;
        ensure!(self.ssh.run(front, "cat /root/marker")? == "it was here");
        self.site.hosts[0].lock().power_off()?;
        // The program follows its last state until it hears of the new one.
        self.site.dpus.get(0).start_again()?;
        self.site.wait_bare(0)?;
        let serial = self.switch_on_old()?;
        let line = serial.wait_for("Billet: ", SOON)?;
        println!("the old machine, switched on again: {}", line.text);
        ensure!(
            serial.lines().iter().filter(|line| line.text.contains("TINY-OS READY")).count() == 1,
            "it has a disk"
        );
        self.is_bound(&port, "dpu-1")?;
        self.site.wait_bare(0)?;
        ensure!(self.ssh.run(front, "cat /root/marker")? == "it was here");
        self.site.hosts[0].lock().power_off()
    }

    /// The console of the old machine, from its start on.
    fn switch_on_old(&self) -> Result<Serial> {
        let mut host = self.site.hosts[0].lock();
        host.serial().skip_to_end();
        host.power_on()?;
        Ok(host.serial().clone())
    }

    /// OVN has this port on this chassis.
    fn is_bound(&self, port: &str, chassis: &str) -> Result<()> {
        let overlay = &self.site.dpus.overlay;
        let of = |table: &str, column: &str, find: String| {
            let columns = format!("--columns={column}");
            overlay.southbound(&["--bare", &columns, "find", table, &find]).map(|said| said.trim().to_owned())
        };
        let wanted = of("Chassis", "_uuid", format!("name={chassis}"))?;
        let found = of("Port_Binding", "chassis", format!("logical_port={port}"))?;
        ensure!(
            !wanted.is_empty() && found == wanted,
            "port {port} is on {found}, not on {wanted} ({chassis})"
        );
        Ok(())
    }

    /// All is given back: nothing is left of it anywhere.
    fn delete(&mut self, front: &str) -> Result<()> {
        let (api, of) = (self.site.api.clone(), self.of.clone());
        let began = Instant::now();
        api.delete(&format!("{of}/floating-addresses/{front}"))?;
        api.delete(&format!("{of}/servers/web-0"))?;
        self.site.wait_bare(1)?;
        self.site.wait_volume(&self.of, "data", "available")?;
        api.delete(&format!("{of}/volumes/data"))?;
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
