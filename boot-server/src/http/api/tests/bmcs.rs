//! Power and management controllers, with the driver that lives in memory.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn put(lab: &Lab, path: &str, body: Value) -> Got {
    lab.send(Method::PUT, &format!("/api/v1/nodes/{path}"), JSON, body.to_string().into_bytes()).await
}

async fn delete(lab: &Lab, path: &str) -> Got {
    lab.send(Method::DELETE, &format!("/api/v1/nodes/{path}"), &[], Vec::new()).await
}

async fn with_bmc(lab: &Lab) {
    let body =
        json!({ "driver": "fake", "address": "fake-1", "user": "root", "password": "calvin-and-hobbes" });
    let got = put(lab, "alpha/bmc", body).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!((&got.body["has_password"], &got.body["user"]), (&json!(true), &json!("root")));
    assert!(!got.body.to_string().contains("calvin"), "passwords go in and never come out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_key_goes_in_and_never_comes_out() {
    let lab = Lab::new().await;
    with_bmc(&lab).await;
    let set = |kg: &str| put(&lab, "alpha/bmc", json!({ "kg": kg }));
    for wrong in ["0x123", "longer than twenty octets"] {
        assert_eq!(set(wrong).await.code(), (422, "bad-bmc"), "{wrong}");
    }
    let got = set("0xc0ffee").await;
    assert_eq!(
        (got.status, &got.body["has_kg"], &got.body["has_password"]),
        (200, &json!(true), &json!(true))
    );
    assert!(!got.body.to_string().contains("c0ffee"));
    let kept = put(&lab, "alpha/bmc", json!({ "user": "admin" })).await;
    assert_eq!(kept.body["has_kg"], true, "what is left out stays");
    assert_eq!(set("").await.body["has_kg"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_switched_with_proof() {
    let lab = Lab::new().await;
    assert_eq!(lab.get("/api/v1/nodes/alpha/power").await.code(), (404, "no-bmc"));
    with_bmc(&lab).await;
    let power = || lab.get("/api/v1/nodes/alpha/power");
    assert_eq!(power().await.body, json!({ "state": "off", "confirmed": true }));
    let switch = |action: &str| lab.post("/api/v1/nodes/alpha/power", json!({ "action": action }));
    assert_eq!(switch("on").await.body, json!({ "state": "on", "confirmed": true }));
    assert_eq!(switch("explode").await.code(), (400, "body"));
    let node = lab.get("/api/v1/nodes/alpha").await;
    assert_eq!((&node.body["power"], &node.body["bmc"]["address"]), (&json!("on"), &json!("fake-1")));
    let page = lab.get("/nodes/alpha").await.body.to_string();
    assert!(
        page.contains("fake-1") && page.contains("id=\\\"power-state\\\"") && page.contains("Shut down"),
        "{page}"
    );
    let page = lab.get("/nodes/alpha/bmc").await;
    assert!(page.status == 200 && !page.body.to_string().contains("calvin"));
    assert_eq!(lab.get("/nodes/alpha/bmc/readings").await.status, 200);
    let metrics = lab.get("/metrics").await.body.to_string();
    assert!(metrics.contains("billet_power{power=\\\"on\\\"} 1"), "{metrics}");
    let report = lab.get("/api/v1/nodes/alpha/faults").await;
    assert_eq!((report.status, &report.body["node"]), (200, &json!("alpha")));
    assert_eq!(switch("force_off").await.body, json!({ "state": "off", "confirmed": true }));
    let events = lab.get("/api/v1/events?node=alpha&limit=100").await;
    let kinds: Vec<_> = events.body["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "power.asked").count(), 2, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_a_place() {
    let lab = Lab::new().await;
    let place = |body| put(&lab, "alpha/place", body);
    let got = place(json!({ "rack": " R4 ", "unit": 12 })).await;
    assert_eq!((got.status, &got.body["place"]), (200, &json!({ "rack": "R4", "unit": 12 })));
    let report = lab.get("/api/v1/nodes/alpha/faults").await;
    assert_eq!(report.body["place"], json!({ "rack": "R4", "unit": 12 }));
    let page = lab.get("/nodes/alpha").await.body.to_string();
    assert!(page.contains("Rack R4, unit 12"), "{page}");
    assert_eq!(place(json!({ "unit": 12 })).await.code(), (422, "bad-place"));
    assert_eq!(place(json!({ "rack": "R4", "unit": 0 })).await.code(), (400, "body"));
    assert_eq!(lab.get("/api/v1/nodes/alpha").await.body["place"]["unit"], 12);
    assert_eq!(place(json!({})).await.body.get("place"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_devices_media_and_readings() {
    let lab = Lab::new().await;
    with_bmc(&lab).await;
    let set = put(&lab, "alpha/boot-device", json!({ "device": "pxe", "mode": "uefi" })).await;
    assert_eq!((set.status, &set.body["repeat"]), (200, &json!("once")), "{set:?}");
    let shown = lab.get("/api/v1/nodes/alpha/boot-device").await;
    assert_eq!(shown.body["device"], "pxe");
    assert_eq!(put(&lab, "alpha/boot-device", json!({ "device": "floppy" })).await.code(), (400, "body"));
    let url = "http://10.77.0.1:8080/boot.iso";
    assert_eq!(
        put(&lab, "alpha/bmc/media", json!({ "url": "file:///etc/shadow" })).await.code(),
        (422, "bad-bmc")
    );
    assert_eq!(put(&lab, "alpha/bmc/media", json!({ "url": url })).await.status, 204);
    assert_eq!(lab.get("/api/v1/nodes/alpha/bmc/media").await.body["image"], url);
    assert_eq!(delete(&lab, "alpha/bmc/media").await.status, 204);
    for what in ["sensors", "components", "log"] {
        let got = lab.get(&format!("/api/v1/nodes/alpha/bmc/{what}")).await;
        assert!(got.status == 200 && got.body["items"].is_array(), "{what}: {got:?}");
    }
    assert_eq!(lab.post("/api/v1/nodes/alpha/bmc/reset", json!({})).await.status, 204);
    assert_eq!(lab.post("/api/v1/nodes/alpha/bmc/reset", json!({})).await.code(), (429, "bmc-reset-limit"));
    assert_eq!(delete(&lab, "alpha/bmc").await.status, 204);
    assert_eq!(lab.get("/api/v1/nodes/alpha/bmc").await.code(), (404, "no-bmc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_bmc_is_refused() {
    let lab = Lab::new().await;
    let of = |body: Value| put(&lab, "alpha/bmc", body);
    assert_eq!(of(json!({})).await.code(), (422, "bad-bmc"));
    assert_eq!(of(json!({ "driver": "redfish", "address": "10.0.0.5" })).await.code(), (422, "bad-bmc"));
    assert_eq!(of(json!({ "driver": "redfish", "adress": "10.0.0.5" })).await.code(), (400, "body"));
    let long = "x".repeat(21);
    let ipmi = json!({ "driver": "ipmi", "address": "10.0.0.5", "user": "root", "password": long });
    assert_eq!(of(ipmi).await.code(), (422, "bad-bmc"), "IPMI 2.0 takes 20 octets");
    let name = json!({ "driver": "ipmi", "address": "bmc.example", "user": "root", "password": "x" });
    assert_eq!(of(name).await.status, 504, "IPMI needs an address");
    let plain = json!({ "driver": "redfish", "address": "http://10.0.0.5", "user": "root", "password": "x" });
    assert_eq!(of(plain).await.status, 504, "the password would be sent in the clear");
    assert_eq!(lab.get("/api/v1/bmcs").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_imported_line_by_line() {
    let lab = Lab::new().await;
    let csv = "node,mac,driver,address,user,password,rack,unit\n\
               alpha,,redfish,10.0.0.5,root,one,,\n\
               nobody,,redfish,10.0.0.6,root,two,,\n\
               rack-9,52:54:00:00:09:09,ipmi,10.0.0.7,ADMIN,three,R9,U4\n\
               beta,,floppy,10.0.0.8,root,four,,\n";
    let import = |dry_run: bool| lab.post("/api/v1/bmcs/import", json!({ "csv": csv, "dry_run": dry_run }));
    for dry_run in [true, false] {
        let got = import(dry_run).await;
        assert_eq!(got.status, 200, "{got:?}");
        let lines = got.body["lines"].as_array().unwrap();
        let refused: Vec<_> = lines.iter().map(|l| l["refused"]["code"].as_str()).collect();
        assert_eq!(refused, [None, Some("bad-bmc"), None, Some("bad-bmc")], "{got:?}");
        assert_eq!((&lines[2]["line"], &lines[2]["new_node"]), (&json!(4), &json!(true)));
        assert!(!got.body.to_string().contains("three"));
        let known = lab.get("/api/v1/bmcs").await.body["items"].as_array().unwrap().len();
        assert_eq!(known, if dry_run { 0 } else { 2 });
    }
    let made = lab.get("/api/v1/nodes/rack-9").await;
    assert_eq!((&made.body["state"], &made.body["bmc"]["driver"]), (&json!("enroll"), &json!("ipmi")));
    assert_eq!(made.body["place"], json!({ "rack": "R9", "unit": 4 }));
    let json = json!({ "bmcs": [{ "node": "beta", "driver": "redfish", "address": "10.0.0.8", "port": 8443,
        "user": "root", "password": "p" }] });
    assert_eq!(lab.post("/api/v1/bmcs/import", json).await.body["lines"][0]["refused"], Value::Null);
    assert_eq!(lab.get("/api/v1/nodes/beta/bmc").await.body["port"], 8443);
    let typo = json!({ "bmcs": [{ "nod": "beta" }] });
    assert_eq!(lab.post("/api/v1/bmcs/import", typo).await.code(), (422, "bmc-list"));
    assert_eq!(lab.post("/api/v1/bmcs/import", json!({})).await.code(), (422, "bmc-list"));
    let wide = lab.post("/api/v1/bmcs/scan", json!({ "network": "10.0.0.0/16" })).await;
    assert_eq!(wide.code(), (422, "bmc-network"));
}
