//! Every page of a site that is in use, looked at in one browser, wide and narrow. Pictures go to `target/ui-screenshots/`; what
//! each page must say is asked of it. Pages of which other suites take pictures are only asked.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::rack::Api;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::{Site, disk_with_gpt};

const PASSWORD: &str = "correct horse battery";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ada@example";
/// Machines: serial number, name, rack, lowest unit.
const MACHINES: [(&str, &str, &str, u8); 6] = [
    ("7XKQ2N3", "r4-u12", "R4", 12),
    ("8YLR3P4", "r4-u13", "R4", 13),
    ("9ZMS4Q5", "r4-u14", "R4", 14),
    ("A0NT5R6", "r5-u02", "R5", 2),
    ("B1OU6S7", "r5-u03", "R5", 3),
    ("C2PV7T8", "r5-u04", "R5", 4),
];

/// People, a project, pools, flavors, an image, and six machines: one failed, one under maintenance, two lent.
fn furnish(site: &Site) -> Result<()> {
    let api = &site.api;
    let user = |name: &str, full: &str, role: Value| {
        let body = json!({ "name": name, "full_name": full, "site_role": role, "password": PASSWORD });
        api.post("/api/v1/users", &body)
    };
    user("ada", "Ada Lovelace", Value::Null)?;
    user("olga", "Olga Ladyzhenskaya", json!("operator"))?;
    api.post("/api/v1/projects", &json!({ "name": "shop", "description": "The web shop" }))?;
    api.post("/api/v1/projects", &json!({ "name": "risk", "description": "Risk figures, by night" }))?;
    api.put("/api/v1/projects/shop/members/ada", &json!({ "role": "admin" }))?;
    api.put("/api/v1/projects/shop/quota", &json!({ "servers": 4, "cores": 512 }))?;
    api.post("/api/v1/projects/shop/keys", &json!({ "name": "ada", "public_key": KEY }))?;
    api.post("/api/v1/projects/shop/tokens", &json!({ "name": "ci", "role": "member" }))?;
    let gold = json!({ "name": "gold", "description": "Machines that carry the shop", "four_eyes": true });
    api.post("/api/v1/pools", &gold)?;
    let rules = json!({ "cores": { "min": 64 }, "memory_gib": { "min": 128 } });
    api.post(
        "/api/v1/flavors",
        &json!({ "name": "c64", "description": "Two sockets, local NVMe", "rules": rules }),
    )?;
    let huge = json!({ "cores": { "min": 1024 } });
    api.post("/api/v1/flavors", &json!({ "name": "huge", "rules": huge }))?;
    let file = site.dir.join("disk.raw");
    fs::write(&file, disk_with_gpt())?;
    let image =
        format!("/api/v1/images/upload?name=debian-12&version=1.0&size={}&default_user=debian", 8 << 20);
    api.upload(&image, &file)?;
    let mut machines = Vec::new();
    for (number, (serial, name, rack, unit)) in (1..).zip(MACHINES) {
        machines.push(machine(site, number, serial, name, rack, unit)?);
    }
    api.put("/api/v1/nodes/r4-u13/pool", &json!({ "pool": "gold" }))?;
    api.post("/api/v1/nodes/r5-u04/maintenance", &json!({ "reason": "fan 3 is loud" }))?;
    let web =
        json!({ "name": "web-{n}", "count": 2, "flavor": "c64", "image": "debian-12", "keys": ["ada"] });
    api.post("/api/v1/projects/shop/servers", &web)?;
    lend(api, &mut machines)
}

fn machine(
    site: &Site,
    number: u8,
    serial: &str,
    name: &str,
    rack: &str,
    unit: u8,
) -> Result<SimulatedMachine> {
    let mut machine = SimulatedMachine::new(&site.provisioning.url(), number, serial);
    machine.boot_agent()?;
    machine.send_inventory(&inventory(&machine, "PowerEdge R7615", "leaf-4a", true))?;
    let found = site.api.get(&format!("/api/v1/nodes?q={serial}"))?;
    let id = found["items"][0]["id"].as_str().context("no such node")?.to_owned();
    site.api.post(&format!("/api/v1/nodes/{id}/rename"), &json!({ "name": name }))?;
    let place = json!({ "rack": rack, "unit": unit, "room": "hall 2", "power_feed": "A" });
    site.api.put(&format!("/api/v1/nodes/{name}/place"), &place)?;
    Ok(machine)
}

/// The machines that were lent are installed: the first comes up, the second is still being written; a third one fails.
fn lend(api: &Api, machines: &mut [SimulatedMachine]) -> Result<()> {
    let fail = json!({ "image": "debian-12", "disk": { "id": "serial:C2PV7T8" }, "confirm": "r5-u04", "ssh_keys": [KEY] });
    api.post("/api/v1/nodes/r5-u04/maintenance", &json!({}))?;
    api.post("/api/v1/nodes/r5-u04/deploy", &fail)?;
    let stage = |s: &str| json!({ "kind": "stage", "stage": s });
    let mut up = false;
    for ((_, name, ..), machine) in MACHINES.iter().zip(machines) {
        if api.get(&format!("/api/v1/nodes/{name}"))?["state"] != "deploying" {
            continue;
        }
        let work = machine.work(10)?;
        let job = work["job"]["id"].as_str().context("no job")?.to_owned();
        machine.report(&job, &[stage("plan"), stage("write")])?;
        if *name == "r5-u04" {
            let fault = json!({ "code": "disk-io", "message": "disk serial:C2PV7T8: write error at byte 1,335,000,000",
                "hint": "replace the drive, inspect the server again, then deploy" });
            machine.report(&job, &[json!({ "kind": "failed", "fault": fault })])?;
            continue;
        }
        let total = 2_147_483_648_u64;
        machine.report(
            &job,
            &[json!({ "kind": "progress", "chunks_done": 200, "chunks_total": 512,
            "bytes_done": 838_860_800, "bytes_total": total, "bytes_per_second": 412_000_000 })],
        )?;
        if !up {
            up = true;
            let summary = json!({ "chunks_fetched": 480, "chunks_kept": 0, "bytes_fetched": 700_000_000,
                "bytes_written": 2_000_000_000, "bytes_zeroed": 147_000_000, "bytes_verified": total });
            machine.report(
                &job,
                &[stage("verify"), stage("customise"), json!({ "kind": "finished", "summary": summary })],
            )?;
            machine.boot()?;
            machine.phone_home(&work)?;
        }
    }
    Ok(())
}

/// A page, something that it must say, and the name of its picture; empty where other suites take it.
type Page = (&'static str, &'static str, &'static str);

const OPERATORS: [Page; 20] = [
    ("/dashboard", "write error at byte", "dashboard"),
    ("/", "r4-u12", ""),
    ("/?state=available&q=R7615", "PowerEdge R7615", "nodes-filtered"),
    ("/nodes/r4-u13", "gold", "node-pool"),
    ("/nodes/r4-u13/bmc", "r4-u13", "bmc"),
    ("/nodes/r5-u02/boot", "r5-u02", "boot"),
    ("/racks", "hall 2", "racks"),
    ("/pools", "Machines that carry the shop", "pools"),
    ("/pools?edit=gold", "Change gold", "pools-edit"),
    ("/flavors", "Two sockets, local NVMe", "flavors"),
    ("/flavors?edit=c64", "Change c64", "flavors-edit"),
    ("/placement?flavor=c64&count=1", "Would be placed", "placement"),
    ("/placement?flavor=huge&count=3", "1024", "placement-refused"),
    ("/projects", "The web shop", "projects"),
    ("/my/shop/members", "Ada Lovelace", "members"),
    ("/users", "Olga Ladyzhenskaya", "users"),
    ("/users/olga", "Olga Ladyzhenskaya", "user"),
    ("/events", "r4-u12", "events"),
    ("/status", "Provisioning network", "status"),
    ("/audit", "Verify the chain", ""),
];

const MEMBERS: [Page; 7] = [
    ("/my/", "The web shop", "my"),
    ("/my/shop/catalogue", "c64", ""),
    ("/my/shop/create", "c64", ""),
    ("/my/shop/servers", "web-1", ""),
    ("/my/shop/servers/web-1", "How to reach it", ""),
    ("/my/shop/usage", "Cores", "usage"),
    ("/me", "ada", "me"),
];

fn look(site: &Site, browser: &Browser, pages: &[Page]) -> Result<()> {
    for (path, says, name) in pages {
        browser.goto(&format!("{}{path}", site.server.url()))?;
        browser.wait_text("body", says).with_context(|| format!("on {path}"))?;
        if !name.is_empty() {
            browser.picture_by_day(name)?;
        }
        // Each field says what it is, also to whoever does not see it.
        let bad = browser.execute(
            "const named = e => e.labels?.length || e.getAttribute('aria-label') || e.hidden || ['hidden', 'submit'].includes(e.type);
             const fields = [...document.querySelectorAll('input, select, textarea')].filter(e => !named(e));
             return fields.map(e => e.outerHTML.slice(0, 120))",
        )?;
        ensure!(bad.as_array().is_some_and(Vec::is_empty), "{path}: {bad:#}");
    }
    Ok(())
}

#[test]
fn every_page_of_a_site_in_use() -> Result<()> {
    let site = Site::new("ui/pages")?;
    furnish(&site)?;
    let browser = Browser::start(&site.dir, None)?;
    browser.goto(&site.server.url())?;
    browser.find("#token")?.type_text(&site.server.token()?)?;
    browser.find("#token-form button")?.click()?;
    browser.wait_text("h1", "Servers")?;
    look(&site, &browser, &OPERATORS)?;
    stale_forms_are_refused(&site, &browser)?;
    browser.console_is_clean()?;

    browser.execute("document.querySelector('form[action=\"/logout\"]').submit()")?;
    browser.find("#user")?.type_text("ada")?;
    browser.find("#password")?.type_text(PASSWORD)?;
    browser.find("#by-name")?.click()?;
    browser.wait_text("body", "shop")?;
    look(&site, &browser, &MEMBERS)?;
    browser.console_is_clean()
}

/// The first key press on a page leads past the navigation; a pool that somebody else changed is not overwritten.
fn stale_forms_are_refused(site: &Site, browser: &Browser) -> Result<()> {
    browser.goto(&format!("{}/pools?edit=gold", site.server.url()))?;
    let skips = browser.execute("return document.querySelector('body a').getAttribute('href')")?;
    ensure!(skips == "#main", "the first link of the page is {skips}");
    let quicker = json!({ "name": "gold", "description": "Somebody else was quicker", "four_eyes": true });
    site.api.put("/api/v1/pools/gold", &quicker)?;
    browser.find("#description")?.fill("mine")?;
    browser.find("#submit")?.click()?;
    browser.wait_text(".callout", "changed meanwhile")?;
    let kept = site.api.get("/api/v1/pools/gold")?;
    ensure!(kept["description"] == "Somebody else was quicker", "{kept:#}");

    browser.goto(&format!("{}/nodes/r5-u02", site.server.url()))?;
    browser.find("#pool summary")?.click()?;
    browser.find("#in-pool")?.type_text("gold")?;
    browser.find("#tags")?.type_text("fast rack-switch=25g")?;
    browser.find("#pool button")?.click()?;
    browser.wait_text("#in", "rack-switch=25g")?;
    let node = site.api.get("/api/v1/nodes/r5-u02")?;
    ensure!(node["pool"] == "gold", "{node:#}");
    Ok(())
}
