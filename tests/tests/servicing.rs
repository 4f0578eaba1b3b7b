//! Firmware and settings through a real server, its command line and controllers of each family over HTTPS: what is asked
//! for is read back, and what goes wrong is told in words. Machines are a few fields; nothing is emulated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmc::{Identity, PowerAction};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::bmc::redfish::{PASSWORD, Profile, RedfishBmc, USER, Way};
use tests::bmc::{Machine, MemoryMachine};
use tests::browser::Browser;
use tests::rack::SERVER_ADDRESS;
use tests::scenario::{events, wait_state};
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::{Site, target};
use tokio::runtime::Runtime;

const IMAGE: &[u8] = b"a new BIOS for this machine";
/// A job with a restart and some slow looks, on a host with no time to spare.
const JOB: Duration = Duration::from_secs(240);

/// A server in a namespace, and a runtime whose controllers live in the same one.
struct Floor {
    site: Site,
    runtime: Runtime,
    machines: u8,
}

/// A node with its controller.
struct Served {
    node: String,
    bmc: RedfishBmc,
    _machine: MemoryMachine,
}

impl Floor {
    fn new(name: &str) -> Result<Self> {
        let site = Site::new(name)?;
        let handle = site.namespace.clone_handle()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || handle.enter().expect("a namespace that is there"))
            .build()?;
        let media = site.server.state_dir().join("media");
        std::fs::create_dir_all(&media)?;
        std::fs::write(media.join("bios.bin"), IMAGE)?;
        Ok(Self { site, runtime, machines: 0 })
    }

    /// A machine that runs, discovered and available, whose controller is of this profile.
    fn machine(&mut self, profile: Profile) -> Result<Served> {
        self.machines += 1;
        let serial = format!("SV{}", self.machines);
        let mut simulated = SimulatedMachine::new(&self.site.provisioning.url(), self.machines, &serial);
        simulated.boot_agent()?;
        simulated.send_inventory(&inventory(&simulated, "PowerEdge R650", "leaf-1", true))?;
        let found = self.site.api.get(&format!("/api/v1/nodes?q={serial}"))?;
        let node = found["items"][0]["name"].as_str().context("no node")?.to_owned();
        let machine = MemoryMachine::new(Identity { serial: Some(serial), ..Identity::default() });
        machine.power(PowerAction::On)?;
        let at: SocketAddr = format!("{SERVER_ADDRESS}:{}", 8500 + u16::from(self.machines)).parse()?;
        let shared: Arc<dyn Machine> = Arc::new(machine.clone());
        // The service listens where its thread is.
        let start = self.runtime.spawn(async move { RedfishBmc::start(profile, shared, at, true).await });
        let bmc = self.runtime.block_on(start)??;
        let body = json!({
            "driver": "redfish", "address": SERVER_ADDRESS, "port": at.port(), "user": USER, "password": PASSWORD,
        });
        self.site.api.put(&format!("/api/v1/nodes/{node}/bmc"), &body)?;
        Ok(Served { node, bmc, _machine: machine })
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

    fn node(&self, node: &str) -> Result<Value> {
        self.site.api.get(&format!("/api/v1/nodes/{node}"))
    }
}

fn sha256() -> String {
    Sha256::digest(IMAGE).iter().map(|b| format!("{b:02x}")).collect()
}

/// How images come to controllers of this profile.
fn by(profile: &Profile) -> &'static str {
    if profile.update.multipart { "push" } else { "pull" }
}

/// Profiles whose BIOS can be set and whose account can be used as it is.
fn profiles() -> Result<Vec<Profile>> {
    let all = Profile::all()?;
    Ok(all.into_iter().filter(|p| p.bios.is_some() && !p.password_change).collect())
}

#[test]
fn a_baseline_is_applied_to_machines_of_each_family() -> Result<()> {
    let mut floor = Floor::new("servicing-baseline")?;
    let all = profiles()?;
    ensure!(all.len() >= 4, "there are {} profiles", all.len());
    for mut profile in all {
        println!("profile {}", profile.name);
        let (name, by) = (profile.name.clone(), by(&profile));
        if let Some(bios) = &mut profile.bios {
            bios.post_looks = 2;
        }
        let served = floor.machine(profile)?;
        let node = served.node.as_str();
        let firmware = json!([{
            "component": "BIOS", "version": "2.20.0", "image": "bios.bin", "sha256": sha256(), "by": by,
        }]);
        let baseline =
            json!({ "name": name, "bios": { "NumCores": 8 }, "secure_boot": true, "firmware": firmware });
        floor.site.api.post("/api/v1/baselines", &baseline)?;
        let differs = floor.ok(&["baseline", "diff", &name, node])?;
        for word in ["NumCores", "16", "8", "differs", "2.19.1", "2.20.0", "Secure Boot"] {
            ensure!(differs.contains(word), "{word}:\n{differs}");
        }
        served.bmc.offer("BIOS", "2.20.0", Way::AtOnce);
        let said = floor.ok(&["baseline", "apply", &name, node, "--watch", "--timeout", "240"])?;
        ensure!(said.contains("available"), "{said}");
        let same = floor.ok(&["baseline", "diff", &name, node])?;
        ensure!(same.contains("is as baseline") && !same.contains("differs"), "{same}");
        ensure!(floor.ok(&["node", "firmware", node])?.contains("2.20.0"));
        ensure!(floor.ok(&["node", "secure-boot", node, "-o", "name"])?.trim() == "on");
        let restarts = events(&floor.site.api, node, "service.restart")?;
        ensure!(
            restarts.len() == 1,
            "settings share one restart, and a firmware that shows needs none: {restarts:?}"
        );
        ensure!(served.bmc.pushed().len() + served.bmc.pulled().len() == 1, "it was sent once");
        floor.wrong(&["baseline", "apply", &name, node], "nothing to do")?;
    }
    Ok(())
}

#[test]
fn what_goes_wrong_is_told_and_nothing_is_done_twice() -> Result<()> {
    let mut floor = Floor::new("servicing-faults")?;
    let served = floor.machine(Profile::named("standard")?)?;
    let node = served.node.as_str();
    let by_pull = by(&Profile::named("standard")?) == "pull";
    let sha256 = sha256();
    let firmware = |version: &str| {
        let wanted = format!("BIOS={version}");
        let mut line =
            vec!["node", "service", node, "--image", "bios.bin", "--sha256", &sha256, "--firmware"]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>();
        line.push(wanted);
        line.extend(by_pull.then(|| "--pull".to_owned()));
        line.extend(["--watch".to_owned(), "--timeout".to_owned(), "240".to_owned()]);
        line
    };
    let run =
        |floor: &Floor, line: &[String]| floor.billet(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let pieces = |served: &Served| served.bmc.pushed().len() + served.bmc.pulled().len();

    // Refused before anything is asked of the controller.
    floor.wrong(&["node", "service", node, "--bios", "NumCore=8"], "NumCores")?;
    let wrong = "00".repeat(32);
    floor.wrong(
        &["node", "service", node, "--firmware", "BIOS=3", "--image", "bios.bin", "--sha256", &wrong],
        "SHA-256",
    )?;
    floor.wrong(
        &["node", "service", node, "--firmware", "BOIS=3", "--image", "bios.bin", "--sha256", &sha256],
        "BIOS",
    )?;
    ensure!(pieces(&served) == 0);

    // A task that fails: its words; given up, the node is as before.
    served.bmc.offer("BIOS", "3.0", Way::Fails("The image is not for this board."));
    let (well, text) = run(&floor, &firmware("3.0"))?;
    ensure!(!well && text.contains("The image is not for this board."), "{text}");
    let failed = floor.node(node)?;
    ensure!(
        failed["state"] == "failed" && failed["service"]["steps"][0]["status"] == "waiting",
        "{failed:#}"
    );
    floor.ok(&["node", "abort", node])?;
    wait_state(&floor.site.api, node, "available", JOB)?;

    // The controller restarts itself at the end: task and session are gone, the version tells.
    served.bmc.offer("BIOS", "3.1", Way::RestartsBmc);
    let (well, text) = run(&floor, &firmware("3.1"))?;
    ensure!(well, "{text}");
    ensure!(!events(&floor.site.api, node, "service.task_gone")?.is_empty(), "the task was gone");

    // In force after a restart of the machine only.
    served.bmc.offer("BIOS", "3.2", Way::AfterRestart);
    let (well, text) = run(&floor, &firmware("3.2"))?;
    ensure!(well, "{text}");
    ensure!(events(&floor.site.api, node, "service.restart")?.len() == 1, "it was restarted for it");
    ensure!(pieces(&served) == 3, "each image was sent once");
    ensure!(served.bmc.sessions() <= 1, "sessions are left");
    Ok(())
}

#[test]
fn a_job_outlives_a_server_that_is_killed() -> Result<()> {
    let mut floor = Floor::new("servicing-killed")?;
    let mut profile = Profile::named("dell-idrac9")?;
    profile.update.task_looks = 12;
    let by = by(&profile);
    let served = floor.machine(profile)?;
    let node = served.node.as_str();
    served.bmc.offer("BIOS", "4.0", Way::AtOnce);
    let step = json!({
        "kind": "firmware", "component": "BIOS", "version": "4.0", "image": "bios.bin", "sha256": sha256(), "by": by,
    });
    floor.site.api.post(&format!("/api/v1/nodes/{node}/service"), &json!({ "steps": [step] }))?;
    let path = format!("/api/v1/nodes/{node}");
    floor.site.api.wait(&path, JOB, |node| {
        let words = node["waits_for"].as_str().unwrap_or_default();
        words.contains("50 %").then_some(())
    })?;
    // Nobody switches a machine whose firmware is being written.
    let refused = floor.site.api.post(&format!("{path}/power"), &json!({ "action": "force_off" }));
    ensure!(refused.is_err_and(|e| format!("{e:#}").contains("being changed")), "it was switched");
    floor.site.server.kill()?;
    floor.site.server.start_again()?;
    wait_state(&floor.site.api, node, "available", JOB)?;
    ensure!(served.bmc.pushed().len() + served.bmc.pulled().len() == 1, "the update was begun twice");
    ensure!(floor.ok(&["node", "firmware", node])?.contains("4.0"));
    Ok(())
}

#[test]
fn the_page_shows_firmware_settings_and_progress() -> Result<()> {
    let mut floor = Floor::new("servicing-page")?;
    let served = floor.machine(Profile::named("dell-idrac9")?)?;
    let node = served.node.as_str();
    let baseline = json!({ "name": "r650", "bios": { "NumCores": 8, "QuietBoot": true } });
    floor.site.api.post("/api/v1/baselines", &baseline)?;
    let browser = Browser::start(&floor.site.dir, None)?;
    let url = floor.site.server.url();
    browser.goto(&format!("{url}/"))?;
    browser.find("#token")?.type_text(&floor.site.server.token()?)?;
    browser.find("#token-form button")?.click()?;
    browser.wait_text("h1", "Servers")?;
    browser.goto(&format!("{url}/nodes/{node}/firmware"))?;
    browser.wait_text("#firmware", "2.19.1")?;
    browser.find("#compare")?.click()?;
    browser.wait_text("#differences", "NumCores")?;
    browser.screenshot(&target().join("ui-screenshots/firmware-1280.png"), true)?;
    browser.find("#apply")?.click()?;
    browser.wait_text("#service", "1 BIOS attribute")?;
    browser.screenshot(&target().join("ui-screenshots/servicing-1280.png"), true)?;
    wait_state(&floor.site.api, node, "available", JOB)?;
    let clean: Vec<_> = browser.console()?.into_iter().filter(|l| !l.contains("401")).collect();
    ensure!(clean.is_empty(), "the console says {clean:#?}");
    Ok(())
}
