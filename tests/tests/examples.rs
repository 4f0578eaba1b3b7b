//! The examples that people copy: the Python client and Ansible's inventory, before a real server.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::python::environment;
use tests::simulated::{SimulatedMachine, inventory};
use tests::site::Site;

/// Ansible, pinned.
const PACKAGES: [&str; 1] = ["ansible-core==2.18.1"];

fn example(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/examples").join(path)
}

fn said(output: &Output) -> Result<String> {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{error}");
    Ok(out.into_owned())
}

fn with_site(site: &Site, program: &mut Command) -> Result<String> {
    program.env("BILLET_SERVER", site.server.url()).env("BILLET_TOKEN", site.server.token()?);
    said(&program.output().context("starting an example")?)
}

/// What a program that uses the client does: pages, once, tags, many at once, events.
const PROGRAM: &str = r#"
import billet
site = billet.from_environment()
assert [n["name"] for n in site.nodes(fields=["name"])] == ["web-1"], "one machine at first"
made = [site.enroll([f"52:54:00:99:00:{n:02x}"], name=f"node-{n:02}", key=f"key-{n}") for n in range(5)]
again = site.enroll(["52:54:00:99:00:03"], name="node-03", key="key-3")
assert again["id"] == made[3]["id"], "the same key makes the same machine"
try:
    site.enroll(["52:54:00:99:00:03"], name="other")
    raise SystemExit("a machine was made twice")
except billet.Problem as problem:
    assert (problem.status, problem.code) == (409, "node-known"), problem
names = [n["name"] for n in site.pages("/nodes", {"limit": 2})]
assert names == sorted(names) and len(names) == 6, names
seen = site.node("node-01")
site.place("node-01", "R1", 3, if_match=seen.etag)
try:
    site.place("node-01", "R2", if_match=seen.etag)
    raise SystemExit("a stale tag was taken")
except billet.Problem as problem:
    assert problem.status == 412, problem
done = site.act("maintenance", nodes=["node-01", "node-02", "nobody"], reason="disks")
assert (done["done"], done["refused"]) == (2, 1), done
assert len(list(site.nodes(maintenance=True))) == 2
first = next(event for event in site.follow(after=0) if event.kind == "event")
assert first.id == 1, first
print("all good")
"#;

#[test]
fn python_client_and_ansible_inventory() -> Result<()> {
    let site = Site::new("examples")?;
    let mut machine = SimulatedMachine::new(&site.provisioning.url(), 1, "SN-1");
    machine.boot_agent()?;
    machine.send_inventory(&inventory(&machine, "PowerEdge", "leaf-3", false))?;
    let node = site.api.get("/api/v1/nodes")?["items"][0]["name"].as_str().context("no node")?.to_owned();
    site.api.post(&format!("/api/v1/nodes/{node}/rename"), &json!({ "name": "web-1" }))?;
    let place = json!({ "rack": "R 4/b", "unit": 12, "room": "hall-2" });
    site.api.put("/api/v1/nodes/web-1/place", &place)?;
    let network = json!({ "address": "10.77.0.50/24" });
    site.api.put("/api/v1/nodes/web-1/network", &network)?;

    let mut client = Command::new("python3");
    client.args(["-c", PROGRAM]).env("PYTHONPATH", example("python"));
    ensure!(with_site(&site, &mut client)?.contains("all good"));
    let listed = with_site(&site, Command::new(example("python/billet.py")).arg("nodes"))?;
    ensure!(listed.lines().count() == 6 && listed.contains("SN-1"), "{listed}");
    let followed = with_site(
        &site,
        Command::new(example("python/billet.py")).args(["follow", "--after", "0", "--count", "1"]),
    )?;
    ensure!(followed.starts_with("1 node.discovered"), "{followed}");

    let script = example("ansible/billet_inventory.py");
    let own: Value = serde_json::from_str(&with_site(
        &site,
        Command::new(&script).arg("--list").env("BILLET_STATES", "all"),
    )?)?;
    ensure!(own["_meta"]["hostvars"]["web-1"]["ansible_host"] == "10.77.0.50", "{own}");
    let host: Value =
        serde_json::from_str(&with_site(&site, Command::new(&script).args(["--host", "web-1"]))?)?;
    ensure!(host["billet_serial"] == "SN-1", "{host}");
    let Some(environment) = environment("ansible", &PACKAGES)? else {
        println!("skipped: no ansible-core (python3-venv and the Python package index are needed)");
        return Ok(());
    };
    let mut ansible = Command::new(environment.join("bin/ansible-inventory"));
    ansible
        .arg("-i")
        .arg(&script)
        .arg("--list")
        .env("BILLET_STATES", "all")
        .env("ANSIBLE_HOME", site.dir.join("ansible"));
    let read: Value = serde_json::from_str(&with_site(&site, &mut ansible)?)?;
    ensure!(read["rack_R_4_b"]["hosts"] == json!(["web-1"]), "{read}");
    ensure!(read["room_hall_2"]["hosts"] == json!(["web-1"]), "{read}");
    let announced = read["state_enroll"]["hosts"].as_array().map_or(0, Vec::len);
    ensure!(announced == 5, "{read}");
    ensure!(read["_meta"]["hostvars"]["web-1"]["ansible_host"] == "10.77.0.50", "{read}");
    Ok(())
}
