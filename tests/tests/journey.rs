//! Two days at a site, in a real browser: a member of a project who asks for two servers and sees them come up on real
//! (virtual) machines, and an operator of the racks. Pictures go to `target/ui-screenshots/journey-*`.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::browser::Browser;
use tests::pages::{approve, sign_in_by_name, sign_in_with_token, verify_audit};
use tests::rack::{Api, Disk, Firmware, Machine, MachineSpec, Rack, Serial, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, ask_to_wipe, events, wait_discovered, wait_state};

const GIB: u64 = 1 << 30;
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ada@example";

/// A member of the project, who has a password here.
const ADA: &str = "ada";
const PASSWORD: &str = "a horse, a battery, a staple";

/// A rack with a server, two machines in two racks that are offered, one flavor, one image, one project.
struct Site {
    api: Api,
    url: String,
    token: String,
    machines: Vec<(Machine, String)>,
    rack: Rack,
}

impl Site {
    fn new(name: &str) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        rack.start_server()?;
        let (url, token) = (rack.server()?.url(), rack.server()?.token()?);
        let api = rack.api()?;
        add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
        let spec = |n: u8| {
            let disk = Disk::virtio(&format!("OS{n}"), GIB);
            MachineSpec::new(&format!("m{n}"), Firmware::Bios).disk(disk).memory(512)
        };
        let mut machines = vec![rack.machine(spec(1))?, rack.machine(spec(2))?];
        for machine in &mut machines {
            machine.power_on()?;
        }
        let mut named = Vec::new();
        for (n, machine) in (1..).zip(machines) {
            let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
            api.put(
                &format!("/api/v1/nodes/{node}/place"),
                &json!({ "rack": format!("R{n}"), "unit": 10 * n }),
            )?;
            let socket = rack.dir().join(format!("m{n}.sock"));
            share(machine.serial(), &socket)?;
            let source = json!({ "source": format!("unix:{}", socket.display()) });
            api.put(&format!("/api/v1/nodes/{node}/console"), &source)?;
            named.push((machine, node));
        }
        api.post(
            "/api/v1/flavors",
            &json!({ "name": "small", "description": "for tests", "rules": {},
            "billed": { "cores": 1, "memory_mib": 512, "disks": 1, "disk_gib": 1 } }),
        )?;
        api.post("/api/v1/projects", &json!({ "name": "shop", "description": "The web shop" }))?;
        api.put("/api/v1/projects/shop/quota", &json!({ "servers": 2, "cores": 8 }))?;
        api.post("/api/v1/users", &json!({ "name": ADA, "full_name": "Ada", "password": PASSWORD }))?;
        api.put(&format!("/api/v1/projects/shop/members/{ADA}"), &json!({ "role": "member" }))?;
        Ok(Self { api, url, token, machines: named, rack })
    }

    fn browser(&self, name: &str) -> Result<Browser> {
        let dir = self.rack.dir().join(name);
        std::fs::create_dir_all(&dir)?;
        Browser::start(&dir, None)
    }

    fn go(&self, browser: &Browser, path: &str) -> Result<()> {
        browser.goto(&format!("{}{path}", self.url))
    }
}

/// Lets a machine's serial line be read at a socket, from its begin.
fn share(serial: &Serial, socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket).context("a socket for a console")?;
    let serial = serial.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let octets = serial.listen();
            let before: Vec<String> =
                serial.lines().iter().map(|line| format!("{}\r\n", line.text)).collect();
            std::thread::spawn(move || {
                let past = client.write_all(before.concat().as_bytes());
                while past.is_ok() {
                    let Ok(more) = octets.recv() else { return };
                    if client.write_all(&more).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

#[test]
fn a_member_asks_for_servers_and_gives_them_back() -> Result<()> {
    let mut site = Site::new("journey-member")?;
    let browser = &site.browser("ada")?;
    site.go(browser, "/my/shop/catalogue")?;
    sign_in_by_name(browser, ADA, PASSWORD)?;

    // What there is, and what it would cost.
    browser.wait_text("#flavor-small", "2")?;
    browser.picture("journey-catalogue")?;
    site.go(browser, "/my/shop/keys")?;
    browser.find("#name")?.type_text("laptop")?;
    browser.find("#public_key")?.type_text(KEY)?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#keys", "SHA256:")?;
    browser.picture("journey-keys")?;
    site.go(browser, "/my/shop/servers")?;
    browser.wait_text(".empty", "No server yet")?;
    site.go(browser, "/my/shop/catalogue")?;
    browser.find("#flavor-small a.btn")?.click()?;
    browser.wait_text("h1", "New servers")?;
    browser.find("#name")?.type_text("web")?;
    browser.find("#count")?.fill("3")?;
    browser.wait_text("#check", "Quota")?;
    browser.find("#count")?.fill("2")?;
    browser.find("input[name=keys]")?.click()?;
    browser.find("#group")?.type_text("a new group")?;
    browser.find("#new_group")?.type_text("spread")?;
    browser.wait_for("return document.querySelector('#check').dataset.fits === 'true'")?;
    browser.picture("journey-create")?;
    browser.find("#submit")?.click()?;
    browser.wait_text("#servers", "web-2")?;
    browser.picture("journey-servers-new")?;

    // They come up, and the page shows it without being loaded again. Each stands in a rack of its own.
    browser.execute("window.untouched = true")?;
    for (_, node) in &site.machines {
        wait_state(&site.api, node, "active", DEPLOY)?;
    }
    browser.wait_for("return document.querySelectorAll('tr[data-phase=active]').length === 2")?;
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    let body = browser.text("body")?;
    for (_, node) in &site.machines {
        ensure!(!body.contains(node.as_str()), "a member sees the site's name of a machine: {body}");
    }
    browser.picture("journey-servers")?;
    browser.find("#servers .row-link")?.click()?;
    browser.wait_text("h1", "web-1")?;
    browser.wait_text("#access", "10.77.0.")?;
    browser.wait_text("#timeline", "Write")?;
    browser.picture("journey-server")?;
    browser.find("a[href$='/console']")?.click()?;
    browser.wait_text("h1", "Console of web-1")?;
    if browser.execute("return typeof Terminal")? == "undefined" {
        eprintln!("skipped: the terminal of the console page is not among the vendored scripts (npm ci)");
    } else {
        browser.wait_text("#console-state", "connected")?;
        browser.wait_for("return document.querySelector('.xterm-rows').textContent.includes('TINY-OS')")?;
    }
    browser.picture("journey-console")?;

    // What was used, and what is not theirs.
    site.go(browser, "/my/shop/usage")?;
    browser.wait_text("#quota", "2")?;
    browser.wait_text("#lines", "still in use")?;
    browser.picture("journey-usage")?;
    for path in ["/", "/status", "/nodes/x", "/my/other/servers", "/tokens", "/ui/stream"] {
        site.go(browser, path)?;
        let text = browser.text("body")?;
        ensure!(!text.contains("R1") && !text.contains("Rack Machine"), "{path} shows the site: {text}");
    }

    // Given back: not without its name.
    site.go(browser, "/my/shop/servers/web-1")?;
    browser.find("#delete summary")?.click()?;
    browser.find("#confirm-delete")?.type_text("web-2")?;
    browser.find("#delete button")?.click()?;
    browser.wait_text(".callout.bad", "web-2")?;
    for name in ["web-1", "web-2"] {
        site.go(browser, &format!("/my/shop/servers/{name}"))?;
        browser.find("#delete summary")?.click()?;
        browser.find("#confirm-delete")?.type_text(name)?;
        browser.find("#delete button")?.click()?;
        browser.wait_text("h1", "Servers")?;
    }
    browser.picture("journey-servers-deleting")?;
    for (machine, _) in &mut site.machines {
        machine.reset()?;
    }
    for (_, node) in &site.machines {
        wait_state(&site.api, node, "available", DEPLOY)?;
    }
    browser.wait_text(".empty", "No server yet")?;
    browser.console_is_clean()?;
    site.rack.passed();
    Ok(())
}

#[test]
fn an_operator_looks_after_the_racks() -> Result<()> {
    let mut site = Site::new("journey-operator")?;
    let browser = &site.browser("operator")?;
    site.go(browser, "/")?;
    sign_in_with_token(browser, &site.token)?;
    browser.wait_text("h1", "Servers")?;
    let node = site.machines[0].1.clone();

    // Under maintenance, and then why nothing is given out of its rack.
    site.go(browser, &format!("/nodes/{node}"))?;
    browser.find("#maintenance summary")?.click()?;
    browser.find("#maintenance [name=reason]")?.type_text("fan 3 is loud")?;
    browser.find("#maintenance button")?.click()?;
    browser.wait_text(".callout.ask", "fan 3 is loud")?;
    browser.picture("journey-maintenance")?;

    // Another operator wants the disk of the other machine wiped; its pool wants two for that.
    let other = site.machines[1].1.clone();
    site.api.post("/api/v1/pools", &json!({ "name": "gold", "four_eyes": true }))?;
    site.api.put(&format!("/api/v1/nodes/{other}/pool"), &json!({ "pool": "gold" }))?;
    let olga = site.api.post("/api/v1/tokens", &json!({ "name": "olga", "role": "operator" }))?;
    let olga = site.api.with_token(olga["secret"].as_str().context("a token without its text")?);
    site.go(browser, "/approvals")?;
    browser.wait_text(".empty", "Nothing waits")?;
    olga.post(&format!("/api/v1/nodes/{other}/manage"), &json!({}))?;
    let id = ask_to_wipe(&olga, &other)?;
    ensure!(site.api.get(&format!("/api/v1/nodes/{other}"))?["state"] == "manageable", "it was done by one");
    approve(browser, "olga", "the rack is drained")?;
    browser.picture("journey-approved")?;
    // Its agent still waits for work.
    wait_state(&site.api, &other, "available", DEPLOY)?;
    let wiped = events(&site.api, &other, "clean.requested")?;
    ensure!(wiped.iter().any(|message| message == "wipe of serial:OS2"), "{wiped:?}");

    // All of it is in the audit, and the chain is whole.
    site.go(browser, &format!("/audit?request={id}"))?;
    browser.wait_text("#audit", "olga")?;
    site.go(browser, "/audit")?;
    verify_audit(browser)?;
    browser.picture("journey-audit")?;
    browser.console_is_clean()?;
    site.rack.passed();
    Ok(())
}
