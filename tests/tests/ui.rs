//! The web UI in a real browser, on a real server, with machines that are simulated: pages, forms, live updates, hostile
//! strings, narrow windows. Pictures of every page go to `target/ui-screenshots/`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::rack::{Api, Forward, Namespace, Server};
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::{self, disk_with_gpt, target};

/// What a machine may report to break out of a page.
const HOSTILE: &str =
    r#""><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"#;
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ops@example";

/// A server in a namespace of its own, a browser beside it.
struct Site {
    browser: Browser,
    server: Server,
    api: Api,
    provisioning: Forward,
    dir: PathBuf,
    _namespace: Namespace,
}

impl Site {
    fn new(name: &str) -> Result<Self> {
        let site::Site { server, api, provisioning, dir, namespace } =
            site::Site::new(&format!("ui/{name}"))?;
        let browser = Browser::start(&dir, None)?;
        Ok(Self { browser, server, api, provisioning, dir, _namespace: namespace })
    }

    fn go(&self, path: &str) -> Result<()> {
        self.browser.goto(&format!("{}{path}", self.server.url()))
    }

    fn sign_in(&self) -> Result<()> {
        self.go("/")?;
        self.browser.find("#token")?.type_text(&self.server.token()?)?;
        self.browser.find("#token-form button")?.click()?;
        self.browser.wait_text("h1", "Servers")
    }

    fn machine(&self, number: u8, serial: &str) -> SimulatedMachine {
        SimulatedMachine::new(&self.provisioning.url(), number, serial)
    }

    fn picture(&self, name: &str) -> Result<()> {
        self.browser.picture(name)
    }

    /// Adds a small image with a GPT.
    fn add_image(&self, name: &str) -> Result<()> {
        let file = self.dir.join("disk.raw");
        fs::write(&file, disk_with_gpt())?;
        let path =
            format!("/api/v1/images/upload?name={name}&version=1.0&size={}&default_user=debian", 8 << 20);
        self.api.upload(&path, &file).map(drop)
    }

    fn console_is_clean(&self) -> Result<()> {
        self.browser.console_is_clean()
    }
}

fn progress(done: u64) -> Value {
    let total = 2_147_483_648_u64;
    json!({ "kind": "progress", "chunks_done": done / 4_194_304, "chunks_total": 512, "bytes_done": done,
        "bytes_total": total, "bytes_per_second": 412_000_000_u64 })
}

/// The name of the only node there is.
fn node_name(api: &Api) -> Result<String> {
    let page = api.get("/api/v1/nodes")?;
    page["items"][0]["name"].as_str().map(str::to_owned).context("no node")
}

#[test]
fn a_machine_from_first_boot_to_a_running_os() -> Result<()> {
    let site = Site::new("life")?;
    let browser = &site.browser;

    // Nobody is let in without the token, and a wrong one is told.
    site.go("/images")?;
    ensure!(browser.url()?.contains("/login"), "not sent to the login page");
    site.picture("login")?;
    browser.find("#token")?.type_text("wrong-token-wrong-token-wrong-token")?;
    browser.find("#token-form button")?.click()?;
    browser.wait_text(".error", "not the token")?;
    site.sign_in()?;
    browser.wait_text(".empty", "No server yet")?;
    browser.wait_text(".listen", "10.77.0.128 to 10.77.0.254")?;
    site.picture("servers-empty")?;
    site.go("/images")?;
    browser.wait_text(".empty", "No image yet")?;
    site.picture("images-empty")?;

    // The list shows a machine by itself.
    site.go("/")?;
    browser.execute("window.untouched = true")?;
    let mut machine = site.machine(1, "7XKQ2N3");
    machine.boot_agent()?;
    browser.wait_text("#live", "Inspecting")?;
    let found = inventory(&machine, "PowerEdge R7615", "leaf-4a", true);
    machine.send_inventory(&found)?;
    browser.wait_text("#live", "Available")?;
    browser.wait_text("#live", "PowerEdge R7615")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");

    // A deploy: what is wrong is told at its field, and nothing typed is lost.
    site.add_image("debian-12")?;
    let name = node_name(&site.api)?;
    site.go(&format!("/nodes/{name}/deploy"))?;
    browser.find("input[value='serial:7XKQ2N3']")?.click()?;
    browser.wait_text("#preview .erased", "Will be erased")?;
    browser.wait_text("#preview .kept", "Stays as it is")?;
    browser.find("#hostname")?.fill("web-1")?;
    browser.find("#ssh_keys")?.type_text(KEY)?;
    browser.find("#advanced summary")?.click()?;
    browser.find("#user_data")?.type_text("#cloud-config\npackages: [htop]\n")?;
    browser.find("#confirm")?.type_text("something-else")?;
    site.picture("deploy")?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#confirm-error", "something-else")?;
    for (field, typed) in
        [("#hostname", "web-1"), ("#ssh_keys", KEY), ("#user_data", "#cloud-config\npackages: [htop]\n")]
    {
        let kept = browser.find(field)?.property("value")?;
        ensure!(kept == typed, "{field} holds {kept} instead of {typed}");
    }
    site.picture("deploy-refused")?;
    browser.find("#confirm")?.fill(&name)?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#job", "Deploy debian-12")?;

    // Progress moves without a reload, through a restart of the server, up to phone-home.
    browser.execute("window.untouched = true")?;
    let work = machine.work(10)?;
    let job = work["job"]["id"].as_str().context("no job")?.to_owned();
    machine.report(
        &job,
        &[json!({ "kind": "stage", "stage": "plan" }), json!({ "kind": "stage", "stage": "write" })],
    )?;
    machine.report(&job, &[progress(268_435_456)])?;
    browser.wait_text("#job", "12 %")?;
    machine.report(&job, &[progress(1_610_612_736)])?;
    browser.wait_text("#job", "75 %")?;
    browser.wait_text("#job", "412 MB/s")?;
    site.picture("node-writing")?;
    site.go("/")?;
    browser.wait_text("#live", "75 %")?;
    site.picture("servers-writing")?;
    site.go(&format!("/nodes/{name}"))?;
    browser.execute("window.untouched = true")?;
    finish(&mut machine, &job, &work)?;
    browser.wait_text("h1 + .badge", "Active")?;
    browser.wait_text("#installed", "web-1")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    site.picture("node-active")?;
    site.go(&format!("/nodes/{name}/delete"))?;
    browser.wait_text("#wipe", "serial:7XKQ2N3")?;
    site.picture("delete")?;
    site.console_is_clean()
}

/// The rest of a deploy on the machine.
fn finish(machine: &mut SimulatedMachine, job: &str, work: &Value) -> Result<()> {
    let stage = |s: &str| json!({ "kind": "stage", "stage": s });
    let summary = json!({ "chunks_fetched": 480, "chunks_kept": 0, "bytes_fetched": 700_000_000, "bytes_written": 2_000_000_000,
        "bytes_zeroed": 147_000_000, "bytes_verified": 2_147_483_648_u64 });
    machine.report(job, &[progress(2_147_483_648), stage("verify")])?;
    machine.report(job, &[progress(2_147_483_648), stage("customise")])?;
    machine.report(job, &[json!({ "kind": "finished", "summary": summary })])?;
    let script = machine.boot()?;
    ensure!(!script.contains("billet.nonce"), "the machine is sent to the agent instead of its disk");
    machine.phone_home(work)
}

#[test]
fn the_stream_comes_back_after_a_restart_of_the_server() -> Result<()> {
    let mut site = Site::new("restart")?;
    site.sign_in()?;
    site.browser.wait_text(".empty", "No server yet")?;
    site.browser.execute("window.untouched = true")?;
    site.server.stop()?;
    site.browser.wait_for("return document.body.classList.contains('offline')")?;
    site.server.start_again()?;
    // Seen while the page was offline: it asks anew when it is back.
    let mut machine = site.machine(1, "WHILE-AWAY");
    machine.boot_agent()?;
    site.browser.wait_text("#live", "Inspecting")?;
    site.browser.wait_for("return !document.body.classList.contains('offline')")?;
    ensure!(site.browser.execute("return window.untouched")? == true, "the page was loaded again");
    Ok(())
}

#[test]
fn what_a_machine_reports_is_text() -> Result<()> {
    let site = Site::new("hostile")?;
    site.sign_in()?;
    let mut machine = site.machine(1, HOSTILE);
    machine.boot_agent()?;
    machine.send_inventory(&inventory(&machine, HOSTILE, HOSTILE, false))?;
    site.browser.wait_text("#live", "Manageable")?;
    let name = node_name(&site.api)?;
    let pages = [
        "/".to_owned(),
        "/events".to_owned(),
        "/status".to_owned(),
        format!("/nodes/{name}"),
        format!("/nodes/{name}/provide"),
    ];
    for path in pages {
        site.go(&path)?;
        site.browser.wait_for("return document.readyState === 'complete'")?;
        std::thread::sleep(Duration::from_millis(300));
        if path.contains("/nodes/") || path == "/" {
            let text = site.browser.text("body")?;
            ensure!(
                text.contains("<script>document.title"),
                "{path} does not show the serial number as text"
            );
        }
        let title = site.browser.execute("return document.title")?;
        ensure!(title != "owned", "a script of the machine ran on {path}");
        let images = site.browser.execute("return document.querySelectorAll('img').length")?;
        ensure!(images == 0, "{path} holds an element of the machine");
        let file = format!("hostile{}", path.replace(['/', '%'], "-").replace(&name, "node"));
        site.picture(&file)?;
    }
    // The wipe form: the hostile serial is a choice as any other, and wrong confirmation changes nothing.
    site.browser.find("input[name=wipe]")?.click()?;
    site.browser.find("#confirm")?.type_text("nope")?;
    site.browser.find("#submit")?.click()?;
    site.browser.wait_text("#confirm-error", "nope")?;
    let state = site.api.get(&format!("/api/v1/nodes/{name}"))?["state"].clone();
    ensure!(state == "manageable", "the node is {state}");
    site.browser.find("#confirm")?.fill(&name)?;
    site.browser.find("#submit")?.click()?;
    site.browser.wait_text("h1 + .badge", "Cleaning")?;
    site.console_is_clean()
}

#[test]
fn images_are_uploaded_with_progress_and_removed_with_their_name() -> Result<()> {
    let site = Site::new("images")?;
    site.sign_in()?;
    let browser = &site.browser;
    site.go("/images")?;
    let file = site.dir.join("upload.raw");
    fs::write(&file, disk_with_gpt())?;
    browser.find("#up-name")?.type_text("tiny")?;
    browser.find("#up-version")?.type_text("1")?;
    browser.find("#file")?.type_text(file.to_str().context("a path that is no text")?)?;
    browser.find("#upload button[type=submit]")?.click()?;
    browser.wait_text("#live table", "tiny")?;
    // The same file, cut short, is refused with the reason.
    fs::write(&file, b"not an image")?;
    browser.find("#up-name")?.type_text("bad")?;
    browser.find("#up-version")?.type_text("1")?;
    browser.find("#file")?.type_text(file.to_str().context("a path that is no text")?)?;
    browser.find("#upload button[type=submit]")?.click()?;
    browser.wait_for("return !document.querySelector('.upload-problem').hidden")?;
    ensure!(!browser.text(".upload-problem")?.trim().is_empty(), "a refusal without a reason");
    site.picture("images")?;
    browser.find("#fetch #source")?.type_text("ftp://example.com/x")?;
    browser.find("#fetch #name")?.type_text("other")?;
    browser.find("#fetch #version")?.type_text("1")?;
    browser.find("#fetch button")?.click()?;
    browser.wait_text("#fetch .callout", "http and https")?;
    browser.find("#live .row-link")?.click()?;
    browser.wait_text("h1", "tiny")?;
    browser.find(".actions button")?.click()?;
    browser.wait_text(".callout", "Verified")?;
    site.picture("image")?;
    browser.find("#confirm")?.type_text("wrong")?;
    browser.find(".btn.danger")?.click()?;
    browser.wait_text("#confirm-error", "not the name")?;
    browser.find("#confirm")?.fill("tiny")?;
    browser.find(".btn.danger")?.click()?;
    browser.wait_text(".empty", "No image yet")?;
    site.console_is_clean()
}

#[test]
fn lists_are_filtered_in_the_address() -> Result<()> {
    let site = Site::new("lists")?;
    site.sign_in()?;
    let browser = &site.browser;
    for (number, serial) in [(1, "7XKQ2N3"), (2, "8YLR3P4"), (3, "9ZMS4Q5"), (4, "A0NT5R6"), (5, "B1OU6S7")] {
        let mut machine = site.machine(number, serial);
        machine.boot_agent()?;
        if number < 5 {
            machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", number != 2))?;
        }
    }
    browser.wait_text(".chip[aria-current] .count", "5")?;
    browser.wait_text("#live", "B1OU6S7")?;
    site.picture("servers")?;
    browser.find("#q")?.type_text("8ylr")?;
    browser.wait_for("return document.querySelectorAll('.servers tbody tr').length === 1")?;
    browser.wait_for("return location.search.includes('q=8ylr')")?;
    browser.goto(&browser.url()?)?;
    browser.wait_text(".servers", "8YLR3P4")?;
    site.go("/?state=available")?;
    browser.wait_for("return document.querySelectorAll('.servers tbody tr').length === 3")?;
    site.go("/?q=nothing-has-this")?;
    browser.wait_text(".empty", "Nothing fits")?;
    site.go("/events?severity=error")?;
    browser.wait_text(".empty", "No events")?;
    site.go("/nodes/no-such-node")?;
    browser.wait_text("h1", "Not found")?;
    if browser.text("body")?.trim().is_empty() {
        bail!("an empty page");
    }
    site.console_is_clean()
}

/// Stops the server, puts a month of measurements into its database, and starts it again.
fn measure(site: &mut Site, node: &str, health: &Value) -> Result<()> {
    site.server.stop()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let now = protocol::Timestamp(u64::try_from(now.as_millis())?);
    let mut health = health.clone();
    health["verdict"]["at"] = now.0.into();
    tests::measured::write(&site.server.state_dir().join("billet.db"), node, now, &health)?;
    site.server.start_again()
}

#[test]
fn what_sensors_measured_is_drawn() -> Result<()> {
    let mut site = Site::new("sensors")?;
    let mut machine = site.machine(1, "7XKQ2N3");
    machine.boot_agent()?;
    machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
    let name = node_name(&site.api)?;
    measure(&mut site, &name, &json!({ "verdict": { "level": "ok", "reasons": [] }, "faults": [] }))?;
    site.sign_in()?;
    let page = format!("/nodes/{name}");
    site.go(&page)?;
    let count = |selector: &str| -> Result<u64> {
        let script = format!("return document.querySelectorAll({selector:?}).length");
        site.browser.execute(&script)?.as_u64().context("no number")
    };
    site.browser.wait_text("#history", "CPU1 Temp")?;
    ensure!(count("#history figure")? == 6, "{} graphs", count("#history figure")?);
    let script = "return document.querySelector(\"[data-sensor='CPU1 Temp'] desc\").textContent";
    let words = site.browser.execute(script)?.to_string();
    ensure!(words.contains("Limit: critical 95 °C") && words.contains("Not read 1 time."), "{words}");
    ensure!(count("#history [data-sensor='CPU1 Temp'] .limit")? == 2, "the limits are no lines");
    site.picture("sensors-24h")?;
    for (range, last) in [("1h", "12V Rail"), ("7d", "12V Rail"), ("30d", "12V Rail")] {
        site.go(&format!("{page}?range={range}"))?;
        site.browser.wait_text("#history [aria-current]", range)?;
        site.picture(&format!("sensors-{range}"))?;
        site.browser.find("#history .graphs-foot a")?.click()?;
        site.browser.wait_text("#history", last)?;
        ensure!(count("#history figure")? == 14, "{} graphs", count("#history figure")?);
    }
    site.picture("sensors-all")?;
    // A page that keeps itself up to date stays at what was picked.
    site.api.post(&format!("/api/v1/nodes/{name}/maintenance"), &json!({ "reason": "a fan" }))?;
    site.browser.wait_text("#live", "Under maintenance")?;
    site.browser.wait_text("#history [aria-current]", "30d")?;
    ensure!(count("#history figure")? == 14, "the choice is gone");
    site.console_is_clean()
}

#[test]
fn a_critical_server_is_deployed_only_where_somebody_says_so() -> Result<()> {
    let mut site = Site::new("critical")?;
    let mut machine = site.machine(1, "7XKQ2N3");
    machine.boot_agent()?;
    machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
    site.add_image("debian-12")?;
    let name = node_name(&site.api)?;
    site.api.put(&format!("/api/v1/nodes/{name}/place"), &json!({ "rack": "R4", "unit": 12 }))?;
    let fault = json!({ "level": "critical", "what": "drive Disk 3", "replaceable": true, "place": "bay 3", "model": "ACME 4T",
        "serial": "S3", "part_number": "P-4T" });
    let verdict = json!({ "level": "critical", "reasons": ["drive Disk 3 (bay 3): critical"] });
    measure(&mut site, &name, &json!({ "verdict": verdict, "faults": [fault] }))?;
    site.sign_in()?;
    site.go(&format!("/nodes/{name}"))?;
    site.browser.wait_text("#health", "rack R4, unit 12 · bay 3 · ACME 4T · serial S3 · part P-4T")?;
    site.browser.wait_text("#place-line", "Rack R4, unit 12")?;
    site.picture("node-critical")?;
    site.browser.find("nav a[href='/faults']")?.click()?;
    site.browser.wait_text("#faults", "rack R4, unit 12 · bay 3 · ACME 4T · serial S3 · part P-4T")?;
    site.picture("faults")?;
    let all = site.api.get("/api/v1/faults")?;
    ensure!(all["items"][0]["faults"][0]["serial"] == "S3", "{all}");
    let printed = site.server.command_line()?.args(["node", "faults"]).output()?.stdout;
    let printed = String::from_utf8_lossy(&printed);
    ensure!(printed.contains("rack R4, unit 12") && printed.contains("drive Disk 3"), "{printed}");
    site.go(&format!("/nodes/{name}/deploy"))?;
    site.browser.wait_text("#critical", "drive Disk 3 (bay 3): critical")?;
    site.browser.find("input[value='serial:7XKQ2N3']")?.click()?;
    site.browser.find("#confirm")?.type_text(&name)?;
    site.browser.find("#submit")?.click()?;
    site.browser.wait_text(".callout[role=alert]", "is critical")?;
    site.picture("deploy-critical")?;
    site.browser.find("#allow_critical")?.click()?;
    site.browser.find("#submit")?.click()?;
    site.browser.wait_text("#job", "Deploy debian-12")?;
    site.console_is_clean()
}

#[test]
fn tokens_are_made_shown_once_and_revoked() -> Result<()> {
    let site = Site::new("tokens")?;
    site.sign_in()?;
    let browser = &site.browser;
    browser.find("nav a[href='/tokens']")?.click()?;
    browser.wait_text(".empty", "No named token")?;
    browser.find("#name")?.type_text("Alice")?;
    browser.find("#submit")?.click()?;
    browser.wait_text(".callout", "is no name for a token")?;
    browser.find("#name")?.fill("alice")?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#made", "it is shown this once")?;
    let secret = browser.text("#secret")?.trim().to_owned();
    site.picture("tokens-made")?;
    let alice = site.api.with_token(&secret);
    ensure!(alice.get("/api/v1/nodes").is_ok(), "the token opens nothing");
    ensure!(alice.get("/api/v1/tokens").is_err(), "an operator sees the tokens");
    site.go("/tokens")?;
    browser.wait_text("#tokens", "alice")?;
    ensure!(!browser.text("body")?.contains(&secret), "it is shown again");
    site.picture("tokens")?;
    browser.find("#revoke-alice summary")?.click()?;
    browser.find("#revoke-alice button")?.click()?;
    browser.wait_text("#tokens", "revoked")?;
    ensure!(alice.get("/api/v1/nodes").is_err(), "a revoked token opens");
    let kinds = site.api.get("/api/v1/events?limit=20")?.to_string();
    ensure!(kinds.contains("token.created") && kinds.contains("token.revoked") && !kinds.contains(&secret));
    site.console_is_clean()
}

/// `docs/screenshot.png`: the list with a server in each of the states that people see most.
#[test]
#[ignore = "makes the picture of the README; run it by hand when the look changes"]
fn the_picture_of_the_readme() -> Result<()> {
    let site = Site::new("readme")?;
    site.sign_in()?;
    site.add_image("debian-12")?;
    let products = [
        "PowerEdge R7615",
        "ProLiant DL380 Gen12",
        "PowerEdge R7615",
        "ThinkSystem SR650 V4",
        "PowerEdge R7615",
        "Super Server",
    ];
    let names = ["r4-u12", "r4-u13", "r4-u14", "r4-u15", "r4-u16", "r4-u17"];
    let serials = ["7XKQ2N3", "CZJ4120K9P", "8YLR3P4", "J30AK4WM", "A0NT5R6", "S454857X"];
    for (i, name) in names.iter().enumerate() {
        let mut machine = site.machine(u8::try_from(i)?, serials[i]);
        machine.boot_agent()?;
        if i < 5 {
            machine.send_inventory(&inventory(&machine, products[i], "leaf-4a", i != 3))?;
        }
        let nodes = site.api.get("/api/v1/nodes?limit=200")?;
        let id = nodes["items"].as_array().into_iter().flatten().find(|n| n["serial"] == serials[i]);
        let id = id.and_then(|n| n["id"].as_str()).context("no such node")?.to_owned();
        site.api.post(&format!("/api/v1/nodes/{id}/rename"), &json!({ "name": name }))?;
        if i < 3 {
            let body = json!({ "image": "debian-12", "disk": { "id": format!("serial:{}", serials[i]) }, "confirm": name, "ssh_keys": [KEY] });
            site.api.post(&format!("/api/v1/nodes/{id}/deploy"), &body)?;
            let work = machine.work(10)?;
            let job = work["job"]["id"].as_str().context("no job")?.to_owned();
            machine.report(&job, &[json!({ "kind": "stage", "stage": "write" }), progress(1_335_000_000)])?;
            if i == 0 {
                finish(&mut machine, &job, &work)?;
            } else if i == 2 {
                let fault = json!({ "code": "disk-io", "message": "disk serial:8YLR3P4: write error at byte 1,335,000,000", "hint": "replace the drive, inspect the server again, then deploy" });
                machine.report(&job, &[json!({ "kind": "failed", "fault": fault })])?;
            }
        }
    }
    site.browser.resize(1280, 660)?;
    site.browser.wait_text("#live", "Failed")?;
    std::thread::sleep(Duration::from_secs(2));
    site.browser.screenshot(&target().with_file_name("docs/screenshot.png"), false)
}
