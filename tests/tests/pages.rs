//! Every page of a site that is in use, looked at in one browser, wide and narrow. Pictures go to `target/ui-screenshots/`; what
//! each page must say is asked of it. Pages of which other suites take pictures are only asked.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::rack::Api;
use tests::simulated::{SimulatedMachine, inventory};
use tests::simulated_dpu::SimulatedDpu;
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

/// A site that keeps volumes in files and has networks of projects; nobody is at the database of OVN.
const CONFIG: &str = r#"
[[volumes]]
name = "standard"
kind = "file"

[overlay]
northbound = "unix:/nowhere/ovnnb_db.sock"
southbound = "tcp:192.0.2.1:6642"
gateways = ["gw1"]
mirror_to = ["192.0.2.0/24"]
"#;

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

/// A DPU beside the machine of `web-1`, volumes, snapshots, and networks with a router and a floating address.
fn equip(site: &Site) -> Result<SimulatedDpu> {
    let api = &site.api;
    let web = api.get("/api/v1/projects/shop/servers/web-1")?;
    let node = web["node_name"].as_str().context("web-1 has no machine")?;
    let made =
        api.post("/api/v1/dpus", &json!({ "name": "dpu-1", "node": node, "tunnel_address": "192.0.2.7" }))?;
    let dpu = SimulatedDpu::new(&site.provisioning.url());
    dpu.hello(made["token"].as_str(), "MT2306XZ00A1", &["52:54:00:bf:00:01", "52:54:00:bf:00:02"])?;
    let plan = json!({ "model": "bluefield3", "vfs": 16, "hotplug": 8 });
    api.put("/api/v1/dpus/dpu-1/functions", &plan)?;
    // It says that the plan is in force.
    dpu.follow(None)?;
    let shop = "/api/v1/projects/shop";
    for (name, size) in [("orders", 64_u64 << 20), ("archive", 1 << 30)] {
        api.post(&format!("{shop}/volumes"), &json!({ "name": name, "size": size, "iops": 5000 }))?;
        until(api, &format!("{shop}/volumes/{name}"), "available")?;
    }
    api.post(&format!("{shop}/snapshots"), &json!({ "name": "before-upgrade", "volume": "archive" }))?;
    api.post(&format!("{shop}/volumes/orders/attach"), &json!({ "server": "web-1" }))?;
    networks(api)?;
    follow(&dpu, api, "orders", "in_use")?;
    Ok(dpu)
}

fn networks(api: &Api) -> Result<()> {
    let public = json!({ "name": "internet", "physical": "physnet", "vlan": 7, "shared": true });
    api.post("/api/v1/networks", &public)?;
    api.post("/api/v1/networks/internet/subnets", &json!({ "cidr": "203.0.113.0/24" }))?;
    let shop = "/api/v1/projects/shop";
    for (name, subnets) in [
        ("front", &["10.0.0.0/24", "fd00:1::/64"][..]),
        ("back", &["10.0.1.0/24"]),
        ("lab", &["10.0.9.0/24"]),
    ] {
        api.post(&format!("{shop}/networks"), &json!({ "name": name }))?;
        for cidr in subnets {
            api.post(&format!("{shop}/subnets"), &json!({ "network": name, "cidr": cidr }))?;
        }
    }
    for (name, network, server) in [
        ("web-1-front", "front", "web-1"),
        ("web-2-front", "front", "web-2"),
        ("spare", "front", ""),
        ("web-1-back", "back", "web-1"),
        ("web-2-back", "back", "web-2"),
    ] {
        api.post(&format!("{shop}/ports"), &json!({ "name": name, "network": network }))?;
        if !server.is_empty() {
            api.post(&format!("{shop}/ports/{name}/attach"), &json!({ "server": server }))?;
        }
    }
    api.post(&format!("{shop}/routers"), &json!({ "name": "edge" }))?;
    api.put(&format!("{shop}/routers/edge/gateway"), &json!({ "network": "internet" }))?;
    for network in ["front", "back"] {
        let all = api.get(&format!("{shop}/subnets"))?;
        let networks = api.get(&format!("{shop}/networks"))?;
        let id = |name: &str| {
            networks["items"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|it| it["name"] == name)
                .map(|it| it["id"].clone())
        };
        for subnet in all["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| Some(&it["network"]) == id(network).as_ref())
        {
            let subnet = subnet["id"].as_str().context("a subnet without an id")?;
            api.put(&format!("{shop}/routers/edge/interfaces/{subnet}"), &json!({}))?;
        }
    }
    api.post(
        &format!("{shop}/floating-addresses"),
        &json!({ "network": "internet", "port": "web-1-front" }),
    )?;
    api.patch(
        &format!("{shop}/ports/web-1-front"),
        &json!({ "egress_kbps": 100_000, "ingress_kbps": 250_000 }),
    )?;
    let watch = json!({ "name": "watch", "direction": "egress", "ports": ["web-1-front"], "kind": "gre", "to": "192.0.2.9", "key": 7 });
    api.post(&format!("{shop}/mirrors"), &watch)?;
    let ssh = json!({ "direction": "ingress", "protocol": "tcp", "ports": "22", "cidr": "192.0.2.0/24" });
    let web = json!({ "direction": "ingress", "protocol": "tcp", "ports": "443" });
    api.post(&format!("{shop}/security-groups"), &json!({ "name": "web", "rules": [ssh, web] }))?;
    Ok(())
}

/// Waits until a volume has this status.
fn until(api: &Api, path: &str, status: &str) -> Result<()> {
    let mut last = Value::Null;
    for _ in 0..300 {
        last = api.get(path)?;
        if last["status"] == status {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{path} is not {status}: {last:#}")
}

/// The DPU follows until the volume has this status.
fn follow(dpu: &SimulatedDpu, api: &Api, volume: &str, status: &str) -> Result<()> {
    let path = format!("/api/v1/projects/shop/volumes/{volume}");
    for _ in 0..100 {
        dpu.follow(None)?;
        if api.get(&path)?["status"] == status {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("{volume} is not {status}: {:#}", api.get(&path)?)
}

/// A page, something that it must say, and the name of its picture; empty where other suites take it.
type Page = (&'static str, &'static str, &'static str);

const OPERATORS: [Page; 27] = [
    ("/dashboard", "write error at byte", "dashboard"),
    ("/", "r4-u12", ""),
    ("/?state=available&q=R7615", "PowerEdge R7615", "nodes-filtered"),
    ("/nodes/r4-u13", "gold", "node-pool"),
    ("/nodes/r4-u13/bmc", "r4-u13", "bmc"),
    ("/nodes/r5-u02/boot", "r5-u02", "boot"),
    ("/racks", "hall 2", "racks"),
    ("/dpus", "BlueField-3 P-Series", "dpus"),
    ("/dpus?q=nobody", "Nothing fits this filter", ""),
    ("/dpus/dpu-1", "its exporter runs, the host has it", "dpu"),
    ("/dpus/dpu-1", "network front of shop", ""),
    ("/dpus/dpu-1", "Virtual functions of each NIC function", ""),
    ("/dpus/dpu-1", "A plugged-in function", ""),
    ("/providers", "physnet", "providers"),
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

const MEMBERS: [Page; 18] = [
    ("/my/", "The web shop", "my"),
    ("/my/shop/catalogue", "c64", ""),
    ("/my/shop/create?boot=volume&boot_type=standard&boot_size=20G", "Where the OS is", "create-on-volume"),
    ("/my/shop/servers", "web-1", ""),
    ("/my/shop/servers/web-1", "web-1-front", "server-attached"),
    ("/my/shop/servers/web-1", "How to reach it", ""),
    ("/my/shop/volumes", "archive", "volumes"),
    ("/my/shop/volumes?snapshot=before-upgrade", "before-upgrade", ""),
    ("/my/shop/volumes/archive", "before-upgrade", "volume"),
    ("/my/shop/volumes/orders", "has it", "volume-in-use"),
    ("/my/shop/volumes/orders", "52310", ""),
    ("/my/shop/snapshots", "before-upgrade", "snapshots"),
    ("/my/shop/networks/front", "web-2-front", "network"),
    ("/my/shop/networks/front", "sends 100000 kbit/s at most", ""),
    ("/my/shop/security-groups", "TCP 443", "security-groups"),
    ("/my/shop/mirrors", "GRE to 192.0.2.9, key 7", "mirrors"),
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
    let site = Site::with_config("ui/pages", CONFIG)?;
    furnish(&site)?;
    let dpu = equip(&site)?;
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
    limits_are_set(&site, &browser)?;
    the_topology_is_drawn(&site, &browser)?;
    a_volume_comes_and_goes(&site, &browser, &dpu)?;
    browser.console_is_clean()
}

/// Limits of a volume that is in use, and of a port, by their forms; an empty field takes one away.
fn limits_are_set(site: &Site, browser: &Browser) -> Result<()> {
    browser.goto(&format!("{}/my/shop/volumes/orders", site.server.url()))?;
    browser.find("#limits summary")?.click()?;
    browser.find("#iops")?.fill("")?;
    browser.find("#bandwidth")?.fill("200M")?;
    browser.find("#set-limits")?.click()?;
    browser.wait_text("dl.facts", "200 MiB")?;
    let volume = site.api.get("/api/v1/projects/shop/volumes/orders")?;
    ensure!(volume["iops"].is_null() && volume["bytes_per_second"] == 200 << 20, "{volume:#}");
    let port = site.api.get("/api/v1/projects/shop/ports/web-1-front")?;
    let id = port["id"].as_str().context("a port without an id")?;
    browser.goto(&format!("{}/my/shop/networks/front", site.server.url()))?;
    browser.find(&format!("#port-change-{id} summary"))?.click()?;
    browser.find(&format!("#egress-{id}"))?.fill("5000")?;
    browser.find(&format!("#ingress-{id}"))?.fill("")?;
    browser.find(&format!("form[action$='ports/{id}/limits'] button"))?.click()?;
    browser.wait_text("#ports", "sends 5000 kbit/s at most")?;
    let port = site.api.get("/api/v1/projects/shop/ports/web-1-front")?;
    ensure!(port["egress_kbps"] == 5000 && port.get("ingress_kbps").is_none(), "{port:#}");
    Ok(())
}

/// The picture of networks: all that there is, each server a link, and the same in words. It is wider than a narrow window, the page is not.
fn the_topology_is_drawn(site: &Site, browser: &Browser) -> Result<()> {
    browser.goto(&format!("{}/my/shop/networks", site.server.url()))?;
    browser.wait_text("#networks", "front")?;
    let count = |selector: &str| {
        browser.execute(&format!("return document.querySelectorAll('#topology {selector}').length"))
    };
    for (selector, wanted) in
        [(".provider", 1), (".router", 1), ("a.network", 3), ("a.server", 4), (".free", 1), ("path", 9)]
    {
        let found = count(selector)?;
        ensure!(found == wanted, "{selector}: {found}");
    }
    let words = browser.execute("return document.getElementById('topology-words').textContent")?.to_string();
    ensure!(
        words.contains("Router edge leads to provider network internet")
            && words.contains("3 ports: web-1, web-2"),
        "{words}"
    );
    browser.picture("networks")?;
    browser.find("#topology a.server")?.click()?;
    browser.wait_text("h1", "web-")?;
    Ok(())
}

/// Somebody makes a volume, gives it to a server and takes it away again; the pages follow by themselves.
fn a_volume_comes_and_goes(site: &Site, browser: &Browser, dpu: &SimulatedDpu) -> Result<()> {
    browser.goto(&format!("{}/my/shop/volumes", site.server.url()))?;
    browser.find("#name")?.type_text("scratch")?;
    browser.find("#size")?.type_text("32M")?;
    browser.find("#submit")?.click()?;
    browser.wait_text("h1", "scratch")?;
    browser.execute("window.untouched = true")?;
    browser.wait_text("h1 + .badge", "Available")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    browser.goto(&format!("{}/my/shop/servers/web-1", site.server.url()))?;
    let id =
        site.api.get("/api/v1/projects/shop/volumes/scratch")?["id"].as_str().context("no id")?.to_owned();
    browser.execute(&format!("document.getElementById('volume').value = '{id}'"))?;
    browser.find("#attach-volume")?.click()?;
    let row = format!("tr[data-volume='{id}']");
    browser.wait_text(&row, "Attaching")?;
    browser.execute("window.untouched = true")?;
    follow(dpu, &site.api, "scratch", "in_use")?;
    browser.wait_text(&row, "In use")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    browser.find(&format!("{row} button"))?.click()?;
    browser.wait_text("#volumes", "orders")?;
    follow(dpu, &site.api, "scratch", "available")?;
    browser.wait_for(&format!("return !document.querySelector(\"{row}\")"))?;
    Ok(())
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
