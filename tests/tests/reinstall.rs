//! The reinstall form in a real browser, over a real machine: what a person types becomes the OS that runs, the page
//! follows it without being loaded again, and the other disk stays as it is.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tests::browser::Browser;
use tests::rack::{Disk, Firmware, Machine, MachineSpec, OPERATORS_PORT, Rack, artifact, target};
use tests::scenario::{DEPLOY, DISCOVERY, add_image_with, deploy, throttle, wait_discovered, wait_state};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ops@example";
const USER_DATA: &str = "#cloud-config\nwrite_files: [{path: /etc/motd, content: reinstalled}]\n";

#[test]
fn the_form_reinstalls_a_machine() -> Result<()> {
    let mut rack = Rack::new("reinstall")?;
    rack.start_server()?;
    let api = rack.api()?;
    for (variant, datasource) in [("a", "nocloud"), ("b", "config-drive")] {
        let file = artifact(&format!("images/tiny-{variant}.raw"))?;
        let more = format!("default_user=root&datasource={datasource}");
        add_image_with(&api, &file, &format!("tiny-{variant}"), "1", &more)?;
    }
    let spec = MachineSpec::new("m1", Firmware::Bios)
        .disk(Disk::virtio("OS1", GIB))
        .disk(Disk::virtio("DATA1", 64 * MIB));
    let mut machine = rack.machine(spec)?;

    // The other disk is full of data, so the machine is not offered before somebody says so; nothing is wiped.
    fill_with_noise(&mut machine, 1)?;
    let before = machine.disk_sha256(1)?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "manageable", DISCOVERY)?;
    api.post(&format!("/api/v1/nodes/{node}/provide"), &json!({ "wipe": [] }))?;
    deploy(&api, &node, "tiny-a", "OS1")?;
    wait_state(&api, &node, "active", DEPLOY)?;
    machine.serial().wait_for("image=tiny-a", DEPLOY)?;

    let browser = Browser::start(rack.dir(), Some(rack.namespace()))?;
    let ui = format!("http://127.0.0.1:{OPERATORS_PORT}");
    browser.goto(&ui)?;
    browser.find("#token")?.type_text(&rack.server()?.token()?)?;
    browser.find("#token-form button")?.click()?;
    browser.wait_text("h1", "Servers")?;
    browser.find(".servers .row-link")?.click()?;
    browser.wait_text("h1", &node)?;
    browser.wait_text("#installed", "tiny-a 1")?;
    picture(&browser, "reinstall-1-before")?;
    fill_in(&browser, &node)?;

    // The page says what it waits for; only then somebody presses the button.
    browser.wait_text("#job", "Deploy tiny-b")?;
    browser.wait_text("#job .waits", "network boot")?;
    browser.execute("window.untouched = true")?;
    picture(&browser, "reinstall-3-waits")?;
    machine.serial().skip_to_end();
    machine.reset()?;
    // Slow enough that a person, and this test, see the write move.
    throttle(&mut machine, 0, 8 * MIB)?;
    follow(&browser, &mut machine)?;
    let line = machine.serial().wait_for("TINY-OS READY", DEPLOY)?.text;
    ensure!(line.contains("image=tiny-b"), "{line}");
    ensure!(line.contains("hostname=web-1") && line.contains("told=config-2"), "{line}");
    ensure!(browser.execute("return window.untouched")? == true, "the page was loaded again");
    picture(&browser, "reinstall-5-after")?;

    machine.power_off()?;
    ensure!(machine.disk_sha256(1)? == before, "the data disk changed");
    rack.passed();
    Ok(())
}

/// Random bytes all over a disk.
fn fill_with_noise(machine: &mut Machine, disk: usize) -> Result<()> {
    let size = usize::try_from(fs::metadata(machine.disk_path(disk))?.len())?;
    let mut noise = vec![0; size];
    File::open("/dev/urandom")?.read_exact(&mut noise)?;
    machine.write_disk(disk, 0, &noise)
}

/// Goes to the form and sends it, filled in as a person would.
fn fill_in(browser: &Browser, node: &str) -> Result<()> {
    browser.find("a.btn[href$='/rebuild']")?.click()?;
    browser.wait_text("h1", "Reinstall")?;
    let choose = "const s = document.querySelector('#image'); \
        const o = [...s.options].find(o => o.text.includes('tiny-b')); if (!o) return false; \
        s.value = o.value; s.dispatchEvent(new Event('change', { bubbles: true })); return true";
    ensure!(browser.execute(choose)? == true, "tiny-b is not offered");
    browser.find("input[value='serial:OS1']")?.click()?;
    browser.wait_text("#preview .erased", "serial:OS1")?;
    browser.wait_text("#preview .kept", "serial:DATA1")?;
    browser.find("#hostname")?.fill("web-1")?;
    browser.find("#ssh_keys")?.fill(KEY)?;
    browser.execute("document.querySelector('#advanced').open = true")?;
    browser.find("#user_data")?.fill(USER_DATA)?;
    browser.find("#confirm")?.type_text(node)?;
    picture(browser, "reinstall-2-form")?;
    browser.find("#submit")?.click()
}

/// True when the page shows that some of the write is done.
const MOVED: &str = "return /[1-9][0-9]* %/.test(document.querySelector('#job')?.innerText)";

/// Watches the page until the machine is active; on the way it must have shown the write.
fn follow(browser: &Browser, machine: &mut Machine) -> Result<()> {
    let end = Instant::now() + DEPLOY;
    let mut stages: Vec<String> = Vec::new();
    let mut moved = false;
    loop {
        let badge = browser.text("h1 + .badge")?;
        if badge.contains("Active") {
            break;
        }
        ensure!(!badge.contains("Failed"), "{}", browser.text("#fault")?);
        let stage = browser.text("#job .stepper .now")?.trim().to_owned();
        if !moved && stage.contains("Write") && browser.execute(MOVED)? == true {
            moved = true;
            picture(browser, "reinstall-4-writing")?;
            throttle(machine, 0, 0)?;
        }
        if !stage.is_empty() && stages.last() != Some(&stage) {
            eprintln!("the page shows: {stage}");
            stages.push(stage);
        }
        if Instant::now() > end {
            bail!("the page does not show Active after {DEPLOY:?}, but {badge}; it showed {stages:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(moved, "the page showed no progress of the write");
    ensure!(stages.len() >= 3, "the page showed only {stages:?} on the way");
    browser.wait_text("#installed", "tiny-b 1")?;
    browser.wait_text("#installed", "web-1").context("the host name that was typed")
}

fn picture(browser: &Browser, name: &str) -> Result<()> {
    let dir: &Path = &target().join("ui-screenshots");
    browser.screenshot(&dir.join(format!("{name}.png")), true)
}
