//! Events that a controller sends by itself: the server looks at once, and nobody else can make it do more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bmc::Identity;
use serde_json::json;
use tests::bmc::MemoryMachine;
use tests::bmc::redfish::{PASSWORD, Profile, RedfishBmc, USER};
use tests::rack::{Api, Handle, SERVER_ADDRESS, Server};
use tests::scenario::events;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;

/// A second address of the rack, which is no controller's.
const STRANGER: &str = "10.77.0.2";
/// Of a busy host; the look itself takes some milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// Runs `inside` in a thread of its own that is in the rack's namespace.
fn within<T: Send>(handle: &Handle, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || {
        handle.enter()?;
        inside()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("a thread that does not panic"))
}

/// A server that polls once a day, one node, and its controller in the same network.
struct Lab {
    site: Site,
    handle: Handle,
    bmc: RedfishBmc,
    node: String,
    _runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn new(name: &str) -> Result<Self> {
        let mut site = Site::new(&format!("bmc-events/{name}"))?;
        site.server.stop()?;
        let config = Server::default_config(&site.dir, &site.dir.join("boot"));
        let bmc = format!(
            "\n[bmc]\nhealth_seconds = 86400\npoll_seconds = 3600\nevents_url = \"http://{SERVER_ADDRESS}:8080\"\n"
        );
        std::fs::write(site.dir.join("billet.toml"), config + &bmc)?;
        site.server.start_again()?;
        let mut machine = SimulatedMachine::new(&site.provisioning.url(), 1, "7XKQ2N3");
        machine.boot_agent()?;
        machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
        let runtime = tokio::runtime::Runtime::new()?;
        let handle = site.namespace.clone_handle()?;
        let at: SocketAddr = format!("{SERVER_ADDRESS}:8443").parse()?;
        let bmc = within(&handle, || {
            let _inside = runtime.enter();
            let machine = Arc::new(MemoryMachine::new(Identity::default()));
            runtime.block_on(RedfishBmc::start(Profile::named("dell-idrac9")?, machine, at, true))
        })?;
        let page = site.api.get("/api/v1/nodes")?;
        let node = page["items"][0]["name"].as_str().context("no node")?.to_owned();
        let lab = Self { site, handle, bmc, node, _runtime: runtime };
        let request = json!({ "driver": "redfish", "address": SERVER_ADDRESS, "port": 8443, "user": USER, "password": PASSWORD });
        lab.api().put(&lab.path("bmc"), &request)?;
        lab.wait("a subscription", || Ok(lab.api().get(&lab.path("bmc"))?["events"] == "subscribed"))?;
        Ok(lab)
    }

    fn api(&self) -> &Api {
        &self.site.api
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/nodes/{}/{what}", self.node)
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
        let begun = Instant::now();
        while !done()? {
            if begun.elapsed() > SOON {
                bail!("no {what} after {SOON:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(begun.elapsed())
    }

    fn lines(&self) -> Result<Vec<String>> {
        events(self.api(), &self.node, "bmc.log")
    }

    /// How often the sensors were read.
    fn looks(&self) -> usize {
        self.bmc.seen().iter().filter(|seen| seen.line.contains("Thermal")).count()
    }

    /// The status that a POST to `url` is answered with, sent from this address.
    fn post(&self, from: &str, url: &str, octets: usize) -> Result<String> {
        let body = self.site.dir.join("body");
        std::fs::write(&body, vec![b'x'; octets])?;
        let mut curl = self.site.namespace.command("curl");
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
            "--interface",
            from,
            "-H",
            "Expect:",
        ]);
        curl.args(["-H", "Content-Type: application/json", "--data-binary"]);
        let output = curl.arg(format!("@{}", body.display())).arg(url).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[test]
fn an_event_is_seen_at_once_and_a_removed_controller_is_left() -> Result<()> {
    let lab = Lab::new("seen")?;
    ensure!(lab.bmc.subscriptions().len() == 1, "{:?}", lab.bmc.subscriptions());
    ensure!(lab.lines()?.is_empty(), "what stood in the log before is no news");
    let write = || {
        lab.bmc.write_log("2026-11-27T03:04:05Z", "Critical", "Uncorrectable error in DIMM A1");
        Ok(())
    };
    within(&lab.handle, write)?;
    let took = lab.wait("fault", || Ok(!lab.lines()?.is_empty()))?;
    println!("seen {took:?} after the event; the server polls once a day");
    let message = lab.lines()?.remove(0);
    ensure!(message.contains("Uncorrectable error in DIMM A1"), "{message}");
    // Another server start: the same subscription, not a second one.
    let mut lab = lab;
    lab.site.server.stop()?;
    ensure!(lab.bmc.subscriptions().len() == 1, "it stays while the server is away");
    lab.site.server.start_again()?;
    lab.api().delete(&lab.path("bmc"))?;
    let request = json!({ "driver": "redfish", "address": SERVER_ADDRESS, "port": 8443, "user": USER, "password": PASSWORD });
    lab.api().put(&lab.path("bmc"), &request)?;
    lab.wait("a subscription", || Ok(lab.api().get(&lab.path("bmc"))?["events"] == "subscribed"))?;
    ensure!(lab.bmc.subscriptions().len() == 1, "{:?}", lab.bmc.subscriptions());
    lab.api().delete(&lab.path("bmc"))?;
    lab.wait("end of the subscription", || Ok(lab.bmc.subscriptions().is_empty()))?;
    Ok(())
}

#[test]
fn hostile_posts_are_harmless() -> Result<()> {
    let lab = Lab::new("hostile")?;
    let added = lab
        .site
        .namespace
        .command("ip")
        .args(["address", "add", &format!("{STRANGER}/24"), "dev", "br0"])
        .status()?;
    ensure!(added.success(), "no second address");
    let url = lab.bmc.subscriptions().remove(0);
    let (base, name) = url.rsplit_once('/').context("no path")?;
    ensure!(name.len() == 64, "a name that can be guessed: {name}");
    let before = lab.looks();
    let elsewhere = format!("{base}/{}", "0".repeat(64));
    let node =
        format!("http://{SERVER_ADDRESS}:8080/bmc-events/{}/{name}", "00000000-0000-0000-0000-000000000001");
    for (what, from, url, octets, expected) in [
        ("a guessed name", SERVER_ADDRESS, elsewhere.as_str(), 10, "404"),
        ("another node", SERVER_ADDRESS, node.as_str(), 10, "404"),
        ("no name", SERVER_ADDRESS, base, 10, "404"),
        ("another address", STRANGER, url.as_str(), 10, "404"),
    ] {
        let status = lab.post(from, url, octets)?;
        ensure!(status == expected, "{what}: {status}");
    }
    ensure!(lab.looks() == before, "somebody else made the server look");
    // A giant is cut off; what it says is not even read as JSON.
    ensure!(lab.post(SERVER_ADDRESS, &url, 32 << 20)? != "204", "a giant was taken");
    ensure!(lab.post(SERVER_ADDRESS, &url, 100)? == "204", "no JSON is no reason");
    let begun = Instant::now();
    let flood = || {
        for _ in 0..500 {
            ureq::post(&url).send("{}")?;
        }
        Ok(())
    };
    within(&lab.handle, flood)?;
    let looks = lab.looks() - before;
    // One at once, one for each five seconds, and one that confirms.
    let allowed = 3 + usize::try_from(begun.elapsed().as_secs() / 5)?;
    println!("{looks} looks for 500 events in {:?}", begun.elapsed());
    ensure!((1..=allowed).contains(&looks), "{looks} looks");
    ensure!(lab.lines()?.is_empty(), "nothing was believed");
    Ok(())
}
