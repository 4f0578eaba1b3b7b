//! Expected hardware in the virtual rack: a machine that lacks a memory module and is plugged into the wrong port is kept out,
//! with exactly that said of it, until it is as it should be.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::rack::{Api, ApiError, Disk, Firmware, MachineSpec, Rack};
use tests::scenario::{DISCOVERY, events, wait_state};

const GIB: u64 = 1 << 30;
/// For what follows from an inspection.
const SOON: Duration = Duration::from_secs(60);

/// Machines of this rack have one module of 1 GiB; the model has another one beside it.
fn model() -> Value {
    json!({
        "name": "rack-machine", "manufacturer": "Billet", "product": "Rack Machine",
        "expected": {
            "cpus": { "sockets": 1, "cores": 1 },
            "dimms": [
                { "slot": "DIMM 0", "size_bytes": GIB },
                { "slot": "DIMM 1", "size_bytes": 16 * GIB, "part_number": "M321R2GA3BB6" },
            ],
            "disks": [{ "kind": "virtual", "size_bytes": GIB }],
            "nics": [{ "driver": "virtio_net", "neighbour": { "switch": "sw-{rack}-1", "port": "Ethernet{unit}" } }],
        },
    })
}

fn refused(done: Result<Value>) -> Result<(u16, String)> {
    let error = done.err().context("it was not refused")?;
    let error = error.downcast_ref::<ApiError>().context("another error")?;
    Ok((error.status, error.body["code"].as_str().unwrap_or_default().to_owned()))
}

fn differences(api: &Api, node: &str) -> Result<Vec<String>> {
    let expected = api.get(&format!("/api/v1/nodes/{node}/expected"))?;
    let what = |d: &Value| d["what"].as_str().map(str::to_owned);
    Ok(expected["differences"].as_array().context("no differences")?.iter().filter_map(what).collect())
}

#[test]
fn a_machine_that_is_not_as_expected_is_kept_out() -> Result<()> {
    let mut rack = Rack::new("expected")?;
    rack.start_server()?;
    let api = rack.api()?;
    let mut machine =
        rack.machine(MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("OS1", GIB)).serial("5CG123"))?;
    api.post("/api/v1/models", &model())?;
    let mac = machine.mac(0);
    let list = format!(
        "name,mac,serial,model,rack,unit,purchased,warranty_end\nweb-1,{mac},5CG123,rack-machine,R4,8,2026-01-15,2029-01-14\n"
    );
    api.post("/api/v1/expected-machines", &json!({ "csv": list }))?;

    let wrong = rack.switch_port(&machine, 0, "sw-R4-1", "Ethernet7")?;
    machine.power_on()?;
    // It comes, takes its name and place, and is looked at.
    let node = api.wait("/api/v1/nodes/web-1", DISCOVERY, |n| {
        let quarantine = &n["quarantine"];
        (n["state"] == "manageable" && quarantine["differences"][1]["found"].is_string()).then(|| n.clone())
    })?;
    ensure!(node["place"] == json!({ "rack": "R4", "unit": 8 }), "{:#}", node["place"]);
    ensure!(node["papers"]["warranty_end"] == "2029-01-14", "{:#}", node["papers"]);
    let cable = format!("port eth0 ({mac}) is on switch sw-R4-1 port Ethernet7; expected port Ethernet8");
    let dimm = "memory module in slot DIMM 1 is missing; expected 16 GiB, part M321R2GA3BB6";
    ensure!(differences(&api, "web-1")? == [dimm, &cable], "{:#}", node["quarantine"]);
    ensure!(api.get("/api/v1/expected-machines")?["items"] == json!([]), "it has come");

    // It is neither provided nor deployed, though its disk is blank; and somebody is told what to take there.
    let verb = |verb: &str, body: Value| refused(api.post(&format!("/api/v1/nodes/web-1/{verb}"), &body));
    ensure!(verb("provide", json!({ "wipe": [] }))? == (409, "quarantine".to_owned()));
    let told = events(&api, "web-1", "quarantine.set")?;
    ensure!(
        told.iter().any(|line| line.contains(dimm) && line.ends_with("(rack R4, unit 8), serial 5CG123")),
        "{told:#?}"
    );
    let faults = api.get("/api/v1/nodes/web-1/faults")?;
    ensure!(faults["faults"][0]["part_number"] == "M321R2GA3BB6", "{faults:#}");

    // The cable is put right: the memory is still missing.
    drop(wrong);
    let _right = rack.switch_port(&machine, 0, "sw-R4-1", "Ethernet8")?;
    std::thread::sleep(Duration::from_millis(2500));
    api.post("/api/v1/nodes/web-1/inspect", &json!({}))?;
    api.wait("/api/v1/nodes/web-1/expected", SOON, |e| {
        let left = e["differences"].as_array()?;
        (left.len() == 1 && left[0]["what"] == dimm).then_some(())
    })?;

    // Somebody decides that such machines are right as this one is: it is offered, and what was learned is its cabling.
    wait_state(&api, "web-1", "manageable", SOON)?;
    let learned =
        api.post("/api/v1/nodes/web-1/learn", &json!({ "name": "rack-machine", "replace": true }))?;
    let neighbour = &learned["expected"]["nics"][0]["neighbour"];
    ensure!(*neighbour == json!({ "switch": "sw-{rack}-1", "port": "Ethernet{unit}" }), "{learned:#}");
    let node = wait_state(&api, "web-1", "available", SOON)?;
    ensure!(node["quarantine"].is_null(), "{:#}", node["quarantine"]);
    ensure!(!events(&api, "web-1", "quarantine.cleared")?.is_empty(), "nobody was told that it is well");
    rack.passed();
    Ok(())
}
