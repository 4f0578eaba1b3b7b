//! Set-up of a DPU through a real server, its command line, its API and the real `billet-dpu`. The controller is a stand-in that speaks what NVIDIA
//! publishes of a BlueField-3's (`tests/src/bmc/redfish/card.rs`); the installer is the shell, which runs what came behind the image.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bmc::{Identity, PowerAction};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::bmc::redfish::{CardFacts, PASSWORD, Profile, RedfishBmc, USER, Way};
use tests::bmc::{Machine, MemoryMachine};
use tests::rack::{Process, SERVER_ADDRESS};
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;
use tokio::runtime::Runtime;

/// Nobody is there: DPUs are told their state all the same.
const OVERLAY: &str =
    "\n[overlay]\nnorthbound = \"unix:/nowhere/ovnnb_db.sock\"\nsouthbound = \"tcp:10.77.0.1:6642\"\n";
/// The DPU's own tool, which keeps what it is told.
const MLXCONFIG: &str = include_str!("../../dpu-agent/tests/mlxconfig.sh");
/// A job with some slow looks, on a host with no time to spare.
const JOB: Duration = Duration::from_secs(240);
const SERIAL: &str = "MT2333XZ0ABC";

/// A server in a namespace, with machines and a card's controller in it.
struct Floor {
    site: Site,
    runtime: Runtime,
    machines: Vec<SimulatedMachine>,
    nodes: Vec<String>,
    bmc: RedfishBmc,
    password: PathBuf,
}

impl Floor {
    /// Two machines; the card has a function of the first as its own. The port of its controller names its files.
    fn new(name: &str, port: u16) -> Result<Self> {
        Self::with_config(name, port, "")
    }

    fn with_config(name: &str, port: u16, more: &str) -> Result<Self> {
        let site = Site::with_config(name, more)?;
        let handle = site.namespace.clone_handle()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || handle.enter().expect("a namespace that is there"))
            .build()?;
        fs::create_dir_all(site.server.state_dir().join("media"))?;
        let mut machines = Vec::new();
        let mut nodes = Vec::new();
        for number in 1..=2 {
            let serial = format!("HOST{number}");
            let mut machine = SimulatedMachine::new(&site.provisioning.url(), number, &serial);
            machine.boot_agent()?;
            machine.send_inventory(&inventory(&machine, "PowerEdge R760", "leaf-1", true))?;
            let found = site.api.get(&format!("/api/v1/nodes?q={serial}"))?;
            nodes.push(found["items"][0]["name"].as_str().context("no node")?.to_owned());
            machines.push(machine);
        }
        let mut profile = Profile::named("bluefield")?;
        profile.password_change = false;
        profile.update.task_looks = 3;
        let machine = MemoryMachine::new(Identity::default());
        machine.power(PowerAction::On)?;
        let at: SocketAddr = format!("{SERVER_ADDRESS}:{port}").parse()?;
        let shared: Arc<dyn Machine> = Arc::new(machine);
        let start = runtime.spawn(async move { RedfishBmc::start(profile, shared, at, true).await });
        let bmc = runtime.block_on(start)??;
        bmc.be_card(&CardFacts {
            serial: SERIAL.to_owned(),
            base_mac: "38:25:f3:3a:ab:c4".to_owned(),
            functions: vec![machines[0].mac.clone()],
            os: "DOCA_2.9.0_BSP_4.9.0_Ubuntu_22.04-1.factory".to_owned(),
        });
        let password = site.dir.join("bmc-password");
        fs::write(&password, PASSWORD)?;
        Ok(Self { site, runtime, machines, nodes, bmc, password })
    }

    /// What `billet` prints, and whether it went well.
    fn billet(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let done = self.site.server.command_line()?.args(arguments).output()?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        Ok((done.status.success(), text))
    }

    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let (well, text) = self.billet(arguments)?;
        ensure!(well, "billet {arguments:?} failed:\n{text}");
        Ok(text)
    }

    fn wrong(&self, arguments: &[&str], word: &str) -> Result<()> {
        let (well, text) = self.billet(arguments)?;
        ensure!(!well && text.contains(word), "billet {arguments:?} must fail with `{word}`:\n{text}");
        Ok(())
    }

    fn dpu(&self, name: &str) -> Result<Value> {
        self.site.api.get(&format!("/api/v1/dpus/{name}"))
    }

    /// A DPU with this controller, read.
    fn enrol(&self, name: &str) -> Result<String> {
        self.ok(&["dpu", "create", name])?;
        let (port, password) = (self.bmc.address().port().to_string(), self.password.display().to_string());
        self.ok(&[
            "dpu",
            "set-bmc",
            name,
            "--address",
            SERVER_ADDRESS,
            "--port",
            &port,
            "--user",
            USER,
            "--password-file",
            &password,
        ])?;
        self.ok(&["dpu", "enroll", name])
    }

    /// Begins a job by the command line; its id.
    fn begin(&self, arguments: &[&str]) -> Result<String> {
        let line = [arguments, &["-o", "name"]].concat();
        Ok(self.ok(&line)?.trim().to_owned())
    }

    /// The job once `is` says so.
    fn wait(&self, job: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = |job: &Value| is(job).then(|| job.clone());
        self.site.api.wait(&format!("/api/v1/dpus/dpu-1/jobs/{job}"), JOB, found)
    }

    fn done(&self, job: &str) -> Result<Value> {
        let over = self.wait(job, |job| ["done", "failed"].iter().any(|stage| job["stage"] == *stage))?;
        ensure!(over["stage"] == "done", "{over:#}");
        Ok(over)
    }

    fn failed(&self, job: &str, word: &str) -> Result<Value> {
        let over = self.wait(job, |job| ["done", "failed"].iter().any(|stage| job["stage"] == *stage))?;
        ensure!(
            over["stage"] == "failed" && over["words"].as_str().unwrap_or_default().contains(word),
            "{over:#}"
        );
        Ok(over)
    }

    /// An image in the media directory: its octets and its digest.
    fn image(&self, name: &str) -> Result<(Vec<u8>, String)> {
        let octets: Vec<u8> = format!("Bf\x02\x13{name}").into_bytes().repeat(5_000);
        fs::write(self.site.server.state_dir().join("media").join(name), &octets)?;
        let digest = Sha256::digest(&octets).iter().map(|b| format!("{b:02x}")).collect();
        Ok((octets, digest))
    }

    /// What an installer does with what came behind the image: it runs it, with the new system under `/mnt`. Gives that directory.
    fn install(&self, file: &Path, image: &[u8]) -> Result<PathBuf> {
        let whole = fs::read(file)?;
        ensure!(whole.starts_with(image), "the image came as it is");
        let config = String::from_utf8(whole[image.len()..].to_vec())?;
        let root = self.site.dir.join(format!("root-{}", fs::read_dir(&self.site.dir)?.count()));
        for dir in ["etc", "var/lib/billet-dpu"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::write(root.join("var/lib/billet-dpu/identity"), "of before")?;
        let script = root.with_extension("bf.cfg");
        fs::write(&script, config.replace("/mnt", &root.display().to_string()))?;
        let run = format!(
            "set -e; chroot() {{ shift; echo \"$@\" >> {}; }}; . {}; bfb_modify_os",
            root.join("enabled").display(),
            script.display()
        );
        let done = Command::new("bash").args(["-c", &run]).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        ensure!(!root.join("var/lib/billet-dpu/identity").exists(), "it is a new system");
        ensure!(fs::read_to_string(root.join("enabled"))?.contains("enable billet-dpu.service"));
        Ok(root)
    }

    /// The DPU starts its new system, with the real agent in it.
    fn start_dpu(&self, root: &Path) -> Result<Process> {
        let env = fs::read_to_string(root.join("etc/billet-dpu.env"))?;
        let options = env.trim().strip_prefix("BILLET_DPU_OPTIONS=").context("options")?;
        let token = root.join("etc/billet-dpu.token");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&token)?.permissions());
        ensure!(mode & 0o077 == 0, "nobody else reads the token: {mode:o}");
        let mut command = self
            .site
            .namespace
            .command(&tests::rack::binary()?.with_file_name("billet-dpu").display().to_string());
        command.arg("run").args(options.replace("/etc", &root.join("etc").display().to_string()).split(' '));
        command.arg("--dir").arg(root.join("var/lib/billet-dpu")).args(["--serial", SERIAL]);
        command.arg("--database").arg(format!("unix:{}/no-switch.sock", root.display()));
        Process::start("billet-dpu", command, &root.join("agent.log"))
    }
}

#[test]
fn a_card_is_paired_with_the_machine_that_it_is_in_or_with_none() -> Result<()> {
    let floor = Floor::new("dpu-pair", 8601)?;
    let said = floor.enrol("dpu-1")?;
    for word in [
        "BlueField-3 DPU",
        SERIAL,
        "900-9D3B6-00CV-AA0",
        "38:25:f3:3a:ab:c4",
        "38:25:f3:3a:ab:d0",
        "BF-25.04-7",
        "a NIC of the machine",
    ] {
        ensure!(said.contains(word), "{word}:\n{said}");
    }
    let dpu = floor.dpu("dpu-1")?;
    ensure!(dpu["node_name"] == floor.nodes[0].as_str() && dpu["bmc"]["paired"] == json!(["mac"]), "{dpu:#}");
    ensure!(dpu["bmc"]["card"]["mode"] == "dpu" && dpu["bmc"]["certificate"].is_string(), "{dpu:#}");
    ensure!(!dpu.to_string().contains(PASSWORD), "the password comes out");
    ensure!(floor.bmc.seen().iter().any(|seen| seen.line.ends_with("/Oem/Nvidia")), "it was asked");

    // Another certificate is refused until somebody accepts it.
    floor.bmc.change_certificate()?;
    floor.ok(&["dpu", "set-bmc", "dpu-1", "--user", USER])?;
    floor.wrong(&["dpu", "enroll", "dpu-1"], "another certificate")?;
    floor.ok(&["dpu", "trust-bmc", "dpu-1"])?;
    floor.ok(&["dpu", "enroll", "dpu-1"])?;

    // The host of one DPU is not that of another, and of two that fit neither is.
    floor.wrong(&["dpu", "set-bmc", "dpu-1", "--address", "192.0.2.9"], "password")?;
    ensure!(floor.enrol("dpu-2").is_err_and(|e| format!("{e:#}").contains("has another DPU")));
    floor.ok(&["dpu", "delete", "dpu-1"])?;
    let both = floor.machines.iter().map(|machine| machine.mac.clone()).collect();
    floor.bmc.be_card(&CardFacts {
        serial: SERIAL.into(),
        base_mac: "38:25:f3:3a:ab:c4".into(),
        functions: both,
        os: "x".into(),
    });
    floor.wrong(&["dpu", "enroll", "dpu-2"], "may be its host")?;
    let dpu = floor.dpu("dpu-2")?;
    ensure!(
        dpu["node"].is_null()
            && dpu["bmc"]["doubt"]
                .as_str()
                .is_some_and(|why| floor.nodes.iter().all(|node| why.contains(node))),
        "{dpu:#}"
    );
    Ok(())
}

#[test]
fn mode_and_privilege_are_set_shown_and_taken_back() -> Result<()> {
    let floor = Floor::new("dpu-mode", 8602)?;
    floor.wrong(&["dpu", "mode", "nobody", "nic"], "no DPU")?;
    floor.ok(&["dpu", "create", "dpu-0"])?;
    floor.wrong(&["dpu", "mode", "dpu-0", "nic"], "no BMC")?;
    floor.enrol("dpu-1")?;

    // A busy controller is asked again; the mode shows once the host was power-cycled.
    floor.bmc.busy(2);
    let nic = floor.begin(&["dpu", "mode", "dpu-1", "nic"])?;
    floor.wrong(&["dpu", "reset", "dpu-1"], "goes on")?;
    let waits = floor.wait(&nic, |job| job["stage"] == "settle")?;
    ensure!(waits["words"].as_str().is_some_and(|words| words.contains("power-cycle the host")), "{waits:#}");
    floor.bmc.host_cycled();
    floor.done(&nic)?;
    ensure!(floor.dpu("dpu-1")?["bmc"]["card"]["mode"] == "nic");

    // Called off: what was staged is taken back.
    let dpu = floor.begin(&["dpu", "mode", "dpu-1", "dpu"])?;
    floor.wait(&dpu, |job| job["stage"] == "settle")?;
    floor.ok(&["dpu", "cancel", "dpu-1", &dpu])?;
    let over = floor.failed(&dpu, "called off")?;
    ensure!(over["undone"] == true, "{over:#}");
    floor.bmc.host_cycled();
    floor.ok(&["dpu", "enroll", "dpu-1"])?;
    ensure!(floor.dpu("dpu-1")?["bmc"]["card"]["mode"] == "nic", "it is what it was");
    let back = floor.begin(&["dpu", "mode", "dpu-1", "dpu"])?;
    floor.wait(&back, |job| job["stage"] == "settle")?;
    floor.bmc.host_cycled();
    floor.done(&back)?;

    // A privilege is in force after the DPU's restart, which is part of the job. A restricted host has no plain NIC.
    let restricted = floor.begin(&["dpu", "host-privilege", "dpu-1", "restricted"])?;
    floor.done(&restricted)?;
    ensure!(
        floor.bmc.property("/redfish/v1/Systems/Bluefield/Bios", "/Attributes/HostPrivilegeLevel")
            == Some(json!("Restricted"))
    );
    let nic = floor.begin(&["dpu", "mode", "dpu-1", "nic"])?;
    floor.failed(&nic, "restricted")?;

    // A host that works is not disturbed, but for one under maintenance.
    let node = &floor.nodes[0];
    floor.ok(&["node", "manage", node])?;
    floor.site.api.post(&format!("/api/v1/nodes/{node}/inspect"), &json!({}))?;
    floor.wrong(&["dpu", "reset", "dpu-1"], "inspecting")?;
    floor.ok(&["node", "maintenance", node, "--reason", "card"])?;
    let reset = floor.begin(&["dpu", "reset", "dpu-1"])?;
    floor.done(&reset)?;
    Ok(())
}

#[test]
fn an_image_is_installed_by_a_server_that_is_killed_and_put_back() -> Result<()> {
    let mut floor = Floor::new("dpu-install", 8603)?;
    floor.enrol("dpu-1")?;
    let ((first, digest), (second, _)) = (floor.image("bf-1.bfb")?, floor.image("bf-2.bfb")?);
    floor.wrong(&["dpu", "install", "dpu-1", "bf-1.bfb", "--sha256", &"0".repeat(64)], "SHA-256")?;
    floor.wrong(&["dpu", "install", "dpu-1", "../billet.db"], "media directory")?;
    floor.wrong(&["dpu", "rollback", "dpu-1"], "no other image")?;
    ensure!(floor.bmc.pulled().is_empty());
    let id = floor.dpu("dpu-1")?["id"].clone();

    // The server is killed while the controller works: its task is found again.
    floor.bmc.offer("DPU_OS", "DOCA_3.1.0-1", Way::AtOnce);
    let began = Instant::now();
    let job = floor.begin(&["dpu", "install", "dpu-1", "bf-1.bfb", "--sha256", &digest])?;
    floor.wait(&job, |job| job["percent"] == 50)?;
    floor.site.server.kill()?;
    floor.site.server.start_again()?;
    floor.wait(&job, |job| job["stage"] == "arrive")?;
    ensure!(floor.bmc.received().len() == 1, "it was sent once: {:?}", floor.bmc.pulled());
    let url = floor.bmc.pulled().swap_remove(0);
    ensure!(url.contains(&digest) && !url.contains("token"), "{url}");
    let again = Command::new("ip")
        .args([
            "netns",
            "exec",
            floor.site.namespace.name(),
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ])
        .output()?;
    ensure!(
        String::from_utf8_lossy(&again.stdout) == "404",
        "what is handed over is not there for others: {again:?}"
    );

    // The installer runs what came behind it, and the new system comes in as the same DPU.
    let root = floor.install(&floor.bmc.received()[0], &first)?;
    let mut agent = floor.start_dpu(&root)?;
    let done = floor.done(&job)?;
    println!("install_s {:.1}", began.elapsed().as_secs_f64());
    ensure!(
        done["version"] == "DOCA_3.1.0-1"
            && done["version_before"] == "DOCA_2.9.0_BSP_4.9.0_Ubuntu_22.04-1.factory",
        "{done:#}"
    );
    let dpu = floor.dpu("dpu-1")?;
    ensure!(dpu["id"] == id && dpu["accepted"] == true && dpu["facts"]["serial"] == SERIAL, "{dpu:#}");
    agent.kill()?;

    // A task that fails, in the controller's words; the token is worth nothing then.
    floor.bmc.offer("DPU_OS", "never", Way::Fails("The signature of the image is wrong."));
    let job = floor.begin(&["dpu", "install", "dpu-1", "bf-2.bfb"])?;
    floor.failed(&job, "The signature of the image is wrong.")?;
    let root = floor.install(&floor.bmc.received()[1], &second)?;
    let mut stranger = floor.start_dpu(&root)?;
    let refused = || Ok::<_, anyhow::Error>(fs::read_to_string(root.join("agent.log"))?.contains("token"));
    let until = Instant::now() + JOB;
    while !refused()? {
        ensure!(Instant::now() < until, "the agent was not refused");
        std::thread::sleep(Duration::from_millis(200));
    }
    stranger.kill()?;

    // The controller starts anew in the midst of it: the task is gone, and what was half sent is sent again.
    floor.bmc.offer("DPU_OS", "lost", Way::RestartsBmc);
    floor.bmc.offer("DPU_OS", "DOCA_3.2.0-2", Way::AtOnce);
    let job = floor.begin(&["dpu", "install", "dpu-1", "bf-2.bfb"])?;
    floor.wait(&job, |job| job["stage"] == "arrive")?;
    let received = floor.bmc.received();
    ensure!(received.len() == 4, "{received:?}");
    let root = floor.install(&received[3], &second)?;
    let mut agent = floor.start_dpu(&root)?;
    floor.done(&job)?;
    agent.kill()?;

    // Back to the image before.
    floor.bmc.offer("DPU_OS", "DOCA_3.1.0-1", Way::AtOnce);
    let job = floor.begin(&["dpu", "rollback", "dpu-1"])?;
    let waits = floor.wait(&job, |job| job["stage"] == "arrive")?;
    ensure!(waits["image"] == "bf-1.bfb" && waits["sha256"] == digest.as_str(), "{waits:#}");
    let root = floor.install(&floor.bmc.received()[4], &first)?;
    let mut agent = floor.start_dpu(&root)?;
    floor.done(&job)?;
    agent.kill()?;
    let list = floor.ok(&["dpu", "jobs", "dpu-1"])?;
    for word in ["rollback to bf-1.bfb", "install bf-2.bfb", "DOCA_3.2.0-2", "failed"] {
        ensure!(list.contains(word), "{word}:\n{list}");
    }

    // The controller's own firmware is sent to it, and it is restarted.
    fs::write(floor.site.server.state_dir().join("media/bmc.fwpkg"), b"firmware of a BMC")?;
    floor.bmc.offer("BMC_Firmware", "BF-25.10-9", Way::AtOnce);
    let job = floor.begin(&["dpu", "firmware", "dpu-1", "bmc", "bmc.fwpkg"])?;
    let done = floor.done(&job)?;
    ensure!(
        done["version"] == "BF-25.10-9" && floor.bmc.pushed().len() == 1 && floor.bmc.restarts() == 2,
        "{done:#} {}",
        floor.bmc.restarts()
    );
    drop(floor.runtime);
    Ok(())
}

/// A DPU whose tool is a script, beside a host with a controller of its own.
struct Card {
    dir: PathBuf,
    host: MemoryMachine,
    _bmc: RedfishBmc,
    agent: Process,
}

impl Card {
    fn start(floor: &Floor, token: &str) -> Result<Self> {
        let dir = floor.site.dir.join("card");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("token"), token)?;
        fs::write(dir.join("mlxconfig"), MLXCONFIG)?;
        fs::set_permissions(dir.join("mlxconfig"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let keys = ["BLK", "NET"].map(|kind| {
            ["ENABLE", "NUM_PF", "NUM_VF"].map(|what| format!("VIRTIO_{kind}_EMULATION_{what} 0\n")).concat()
        });
        let first =
            "SRIOV_EN 0\nNUM_OF_VFS 0\nPCI_SWITCH_EMULATION_ENABLE 0\nPCI_SWITCH_EMULATION_NUM_PORT 0\n";
        for name in ["current", "next"] {
            fs::write(dir.join(name), format!("{first}{}", keys.concat()))?;
        }
        let host = MemoryMachine::new(Identity::default());
        host.power(PowerAction::On)?;
        let at: SocketAddr = format!("{SERVER_ADDRESS}:8643").parse()?;
        let shared: Arc<dyn Machine> = Arc::new(host.clone());
        let start = floor
            .runtime
            .spawn(async move { RedfishBmc::start(Profile::named("dell-idrac9")?, shared, at, true).await });
        let bmc = floor.runtime.block_on(start)??;
        let body = json!({ "driver": "redfish", "address": SERVER_ADDRESS, "port": 8643, "user": USER, "password": PASSWORD });
        floor.site.api.put(&format!("/api/v1/nodes/{}/bmc", floor.nodes[0]), &body)?;
        let agent = Self::agent(floor, &dir)?;
        Ok(Self { dir, host, _bmc: bmc, agent })
    }

    fn agent(floor: &Floor, dir: &Path) -> Result<Process> {
        let program = tests::rack::binary()?.with_file_name("billet-dpu").display().to_string();
        let mut command = Command::new(program);
        command.args(["run", "--server", &floor.site.provisioning.url(), "--serial", SERIAL, "--token-file"]);
        command.arg(dir.join("token")).arg("--dir").arg(dir.join("agent"));
        command.arg("--database").arg(format!("unix:{}/no-switch.sock", dir.display()));
        command.args(["--mlx-device", "/dev/mst/mt41692_pciconf0", "--mlxconfig"]).arg(dir.join("mlxconfig"));
        Process::start("billet-dpu", command, &dir.join("agent.log"))
    }

    /// Waits until the host was power-cycled: its DPU starts anew with it, on what is written.
    fn cycled(&mut self, floor: &Floor, before: usize) -> Result<()> {
        let until = Instant::now() + JOB;
        while self.host.actions().len() == before {
            ensure!(Instant::now() < until, "the host was not power-cycled");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.agent.kill()?;
        fs::copy(self.dir.join("next"), self.dir.join("current"))?;
        self.agent = Self::agent(floor, &self.dir)?;
        Ok(())
    }

    fn setting(&self, key: &str) -> Result<String> {
        let text = fs::read_to_string(self.dir.join("next"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} ")));
        Ok(line.context("no such setting")?.to_owned())
    }
}

#[test]
fn a_plan_of_functions_is_written_by_the_dpus_tool_and_in_force_after_a_power_cycle() -> Result<()> {
    let mut floor = Floor::with_config("dpu-plan", 8604, OVERLAY)?;
    let made = floor.site.api.post("/api/v1/dpus", &json!({ "name": "dpu-1", "node": floor.nodes[0] }))?;
    let mut card = Card::start(&floor, made["token"].as_str().context("no token")?)?;
    floor.wrong(&["dpu", "functions", "set", "dpu-1", "--vfs", "16"], "--model")?;
    let model = ["dpu", "functions", "set", "dpu-1", "--model", "bluefield3"];
    floor.wrong(&[&model[..], &["--vfs", "128"]].concat(), "more than the 127 of a bluefield3")?;
    let plan = ["--vfs", "16", "--blk-pfs", "1", "--hotplug", "8", "--disks", "snap"];
    let said = floor.ok(&[&model[..], &plan].concat())?;
    ensure!(said.contains("pending") && said.contains("power cycle of the host"), "{said}");

    let path = "/api/v1/dpus/dpu-1/functions";
    let when = |what: &'static str, is: bool| {
        move |view: &Value| (view[what] == is && view["plan"]["vfs"] == 16).then(|| view.clone())
    };
    let written = floor.site.api.wait(path, JOB, when("written", true))?;
    ensure!(written["pending"] == true && written["in_force"].is_null(), "{written:#}");
    let vfs =
        written["settings"].as_array().and_then(|all| all.iter().find(|one| one["key"] == "NUM_OF_VFS"));
    ensure!(
        vfs.is_some_and(
            |one| (&one["wanted"], &one["current"], &one["next"]) == (&json!(16), &json!(0), &json!(16))
        ),
        "{written:#}"
    );
    ensure!(card.setting("NUM_OF_VFS")? == "16" && card.setting("PCI_SWITCH_EMULATION_NUM_PORT")? == "9");
    ensure!(floor.dpu("dpu-1")?["problems"].to_string().contains("power cycle"), "{:#}", floor.dpu("dpu-1")?);

    let before = card.host.actions().len();
    floor.ok(&["node", "power", &floor.nodes[0], "cycle"])?;
    card.cycled(&floor, before)?;
    let there = floor.site.api.wait(path, JOB, when("pending", false))?;
    ensure!(there["in_force"]["vfs"] == 16 && there["waits"].is_null(), "{there:#}");
    let problems = floor.dpu("dpu-1")?["problems"].to_string();
    ensure!(!problems.contains("power cycle") && !problems.contains("firmware"), "{problems}");
    let said = floor.ok(&["dpu", "functions", "show", "dpu-1"])?;
    ensure!(said.contains("in force") && said.contains("NUM_OF_VFS: 16 planned, 16 now, 16 next"), "{said}");

    // A server that is killed knows it all; another plan is pending anew, and what is not named of it stays.
    floor.site.server.kill()?;
    floor.site.server.start_again()?;
    floor.ok(&["dpu", "functions", "set", "dpu-1", "--hotplug", "4"])?;
    let next = floor.site.api.wait(path, JOB, when("written", true))?;
    ensure!(next["pending"] == true && next["in_force"]["hotplug"] == 8, "{next:#}");
    ensure!(next["plan"]["hotplug"] == 4 && next["plan"]["disks"] == "snap", "{next:#}");
    // What the tool refuses is said in its words, and nothing of it is in force.
    floor.ok(&["dpu", "functions", "set", "dpu-1", "--vfs", "120"])?;
    let refused = |dpu: &Value| dpu["problems"].to_string().contains("value is out of range").then_some(());
    floor.site.api.wait("/api/v1/dpus/dpu-1", JOB, refused)?;
    ensure!(floor.site.api.get(path)?["pending"] == true);
    floor.ok(&["dpu", "functions", "clear", "dpu-1"])?;
    ensure!(floor.site.api.get(path)?["plan"].is_null() && card.setting("NUM_OF_VFS")? == "16");
    card.agent.kill()?;
    drop(card);
    drop(floor.runtime);
    Ok(())
}
