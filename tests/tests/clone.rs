//! Replace by clone in the virtual rack: a new machine takes the part of another one, the server is killed half-way, and the new
//! machine boots with the old one's identity; the old one is retired and wiped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::rack::{ApiError, Disk, Firmware, Machine, MachineSpec, Rack, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, is_unbootable, wait_discovered, wait_state};

const GIB: u64 = 1 << 30;
const ADDRESS: &str = "10.77.0.200/24";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ops@example";

fn network(machine: &Machine) -> String {
    format!(
        "version: 2\nethernets:\n  port0:\n    match: {{macaddress: \"{}\"}}\n    addresses: [{ADDRESS}]\n",
        machine.mac(0)
    )
}

#[test]
fn a_new_machine_takes_the_part_of_an_old_one() -> Result<()> {
    let mut rack = Rack::new("clone")?;
    rack.start_server()?;
    let api = rack.api()?;
    add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let mut old = rack.machine(MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("OLD1", GIB)))?;
    let mut new = rack.machine(MachineSpec::new("m2", Firmware::Bios).disk(Disk::virtio("NEW1", GIB)))?;
    old.power_on()?;
    let was = wait_discovered(&api, &old, "available", DISCOVERY)?;
    let at = |node: &str, verb: &str| format!("/api/v1/nodes/{node}/{verb}");
    api.post(&at(&was, "rename"), &json!({ "name": "web-1" }))?;
    api.put(&at("web-1", "place"), &json!({ "rack": "R4", "unit": 8 }))?;
    new.power_on()?;
    api.post(
        &at("web-1", "deploy"),
        &json!({
            "image": "tiny-a", "hostname": "shop", "ssh_keys": [KEY], "confirm": "web-1",
            "network_config": network(&old), "disk": { "id": "serial:OLD1" },
        }),
    )?;
    old.serial().wait_for("TINY-OS READY hostname=shop", DEPLOY)?;
    let before = wait_state(&api, "web-1", "active", DEPLOY)?;
    let spare = wait_discovered(&api, &new, "available", DISCOVERY)?;

    // A machine that does not fit is refused with the reason, and nothing has changed.
    let own = api.post(&at("web-1", "replace"), &json!({ "with": "web-1", "confirm": "web-1" }));
    let error = own.err().context("a machine took its own part")?;
    let body = &error.downcast_ref::<ApiError>().context("another error")?.body;
    ensure!(
        body["code"] == "misfit" && body["message"].as_str().is_some_and(|m| m.contains("own part")),
        "{body:#}"
    );

    let ask =
        |dry_run: bool| json!({ "with": spare, "take_place": true, "confirm": "web-1", "dry_run": dry_run });
    let plan = api.post(&at("web-1", "replace"), &ask(true))?;
    ensure!(plan["old_name"] == "web-1-replaced" && plan["disk"] == "serial:NEW1", "{plan:#}");
    ensure!(plan["wiped"] == json!(["serial:OLD1"]), "{plan:#}");
    let done = api.post(&at("web-1", "replace"), &ask(false))?;
    ensure!(done["hostname"] == "shop", "{done:#}");

    // What was answered is durable: the server is killed, and goes on where it was.
    rack.server()?.kill()?;
    rack.server()?.start_again()?;
    let line = new.serial().wait_for("TINY-OS READY", DEPLOY)?.text;
    ensure!(line.contains("hostname=shop") && line.contains("address=10.77.0.200"), "{line}");
    let after = wait_state(&api, "web-1", "active", DEPLOY)?;
    ensure!(after["macs"] == json!([new.mac(0)]), "{:#}", after["macs"]);
    ensure!(after["place"] == json!({ "rack": "R4", "unit": 8 }), "{:#}", after["place"]);
    ensure!(after["installed"]["image"] == before["installed"]["image"], "{:#}", after["installed"]);

    // The old one boots from the network, is wiped, and stays out.
    let retired = |n: &Value| n["retired"]["reason"].as_str().is_some_and(|r| r.contains("replaced by"));
    ensure!(retired(&api.get("/api/v1/nodes/web-1-replaced")?));
    old.reset()?;
    api.wait("/api/v1/nodes/web-1-replaced", Duration::from_secs(120), |n| {
        (n["state"] == "manageable" && n["installed"].is_null()).then_some(())
    })?;
    old.power_off()?;
    ensure!(is_unbootable(&old, 0)?, "the old machine's OS is still there");
    rack.passed();
    Ok(())
}
