//! Plans of functions by the API and by the page: what is checked, what is said of it, and that nobody overwrites what he did not see.

use std::time::Duration;

use protocol::dial::Report;
use protocol::dpu::Observed;
use protocol::functions::{FunctionsSeen, SettingSeen};
use serde_json::{Value, json};
use ureq::http::Method;

use super::disks::{SECRET, dial_in, observed};
use super::lab::{Got, Lab, TOKEN};

const PATH: &str = "/api/v1/dpus/dpu-1/functions";

async fn put(lab: &Lab, path: &str, tag: &str, body: Value) -> Got {
    let headers = [("if-match", tag), ("content-type", "application/json")];
    lab.send(Method::PUT, path, &headers, body.to_string().into_bytes()).await
}

/// The DPU says that this many virtual functions are in force, of 8 that are written.
async fn says(lab: &Lab, current: u64) {
    let generation = lab.engine.dpu("dpu-1").unwrap().desired.unwrap().generation;
    let one = SettingSeen { key: "NUM_OF_VFS".into(), wanted: 8, current: Some(current), next: Some(8) };
    let functions = FunctionsSeen { settings: vec![one], needs_reset: current != 8 };
    let seen = Observed { generation: Some(generation), functions: Some(functions), ..observed("pf0hpf") };
    let report = Report { generation: Some(generation), observed: Some(Box::new(seen)), counters: None };
    lab.engine.dpu_state(SECRET, report, Duration::ZERO).await.unwrap();
}

async fn lab() -> Lab {
    let southbound = Some("tcp:192.0.2.1:6642".to_owned());
    let lab = Lab::with_config(|config| config.overlay.as_mut().unwrap().southbound = southbound).await;
    let made = lab.post("/api/v1/dpus", json!({ "name": "dpu-1", "tunnel_address": "192.0.2.7" })).await;
    dial_in(&lab, made.body["token"].as_str().map(str::to_owned), "BlueField-3").await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_checked_written_and_in_force() {
    let lab = lab().await;
    let none = lab.get(PATH).await;
    assert_eq!((&none.body["plan"], &none.body["model"]), (&Value::Null, &json!("bluefield3")));
    assert_eq!(none.body["limits"]["vfs"], 127);
    let tag = none.headers["etag"].to_str().unwrap().to_owned();

    for (body, code, says) in [
        (json!({"model": "bluefield3", "vfs": 128}), "dpu-plan", "more than the 127 of a bluefield3"),
        (json!({"model": "bluefield3", "blk": {"vfs": 1}}), "dpu-plan", "need a physical one"),
        (json!({"model": "bluefield2", "vfs": 8}), "dpu-model", "the DPU is a bluefield3"),
    ] {
        let refused = put(&lab, PATH, &tag, body).await;
        assert_eq!(refused.code(), (422, code), "{refused:?}");
        assert!(refused.body["message"].as_str().unwrap().contains(says), "{refused:?}");
    }
    assert_eq!(put(&lab, PATH, "*", json!({"model": "bluefield9"})).await.status, 400);

    let set = put(&lab, PATH, &tag, json!({"model": "bluefield3", "vfs": 8})).await;
    assert_eq!(
        (set.status, &set.body["pending"], &set.body["needs_power_cycle"]),
        (200, &json!(true), &json!(true))
    );
    assert!(set.body["waits"].as_str().unwrap().contains("has not written it yet"), "{set:?}");
    assert_eq!(put(&lab, PATH, &tag, json!({"model": "bluefield3", "vfs": 9})).await.status, 412);
    let told = lab.engine.dpu("dpu-1").unwrap().desired.unwrap();
    assert_eq!(told.functions.unwrap().vfs, 8);

    says(&lab, 0).await;
    let written = lab.get(PATH).await.body;
    assert_eq!((&written["pending"], &written["written"]), (&json!(true), &json!(true)));
    assert!(written["waits"].as_str().unwrap().contains("after a power cycle of the host"), "{written:#}");
    says(&lab, 8).await;
    let there = lab.get(PATH).await.body;
    assert_eq!(
        (&there["pending"], &there["waits"], &there["in_force"]["vfs"]),
        (&json!(false), &Value::Null, &json!(8))
    );
    let events = lab.get("/api/v1/events").await.body.to_string();
    assert!(
        events.contains("8 virtual functions of each NIC function") && events.contains("is in force"),
        "{events}"
    );
    assert_eq!(lab.send(Method::DELETE, PATH, &[], Vec::new()).await.status, 204);
    assert_eq!(lab.get(PATH).await.body["plan"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_dpus_get_the_plan_of_their_model() {
    let lab = Lab::new().await;
    let models = lab.get("/api/v1/dpu-models").await.body;
    assert_eq!(models["items"].as_array().unwrap().len(), 3);
    let path = "/api/v1/dpu-models/bluefield3";
    let tag = lab.get(path).await.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(put(&lab, path, &tag, json!({"model": "bluefield2"})).await.code(), (422, "dpu-model"));
    assert_eq!(put(&lab, path, &tag, json!({"model": "bluefield3", "vfs": 8})).await.status, 200);
    assert_eq!(put(&lab, path, &tag, json!({"model": "bluefield3", "vfs": 9})).await.status, 412);
    assert_eq!(lab.get("/api/v1/dpu-models/bluefield9").await.code(), (404, "dpu-model-not-found"));

    let made = lab.post("/api/v1/dpus", json!({"name": "dpu-1"})).await;
    assert_eq!(lab.get(PATH).await.body["plan"], Value::Null, "it has not come in");
    dial_in(&lab, made.body["token"].as_str().map(str::to_owned), "BlueField-3").await;
    assert_eq!(lab.get(PATH).await.body["plan"]["vfs"], 8);
    // One that somebody took its plan from stays without.
    lab.send(Method::DELETE, PATH, &[], Vec::new()).await;
    dial_in(&lab, None, "BlueField-3").await;
    assert_eq!(lab.get(PATH).await.body["plan"], Value::Null);
    assert_eq!(lab.send(Method::DELETE, path, &[], Vec::new()).await.status, 204);
    assert_eq!(lab.get(path).await.body["plan"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_plan_and_changes_it() {
    let lab = lab().await;
    let page = async |token: &str| {
        let got = lab.with(token, Method::GET, "/dpus/dpu-1", Value::Null).await;
        got.body.as_str().unwrap_or_default().to_owned()
    };
    let form = async |token: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [("authorization", bearer.as_str()), kind];
        lab.send_as(Method::POST, path, &headers, body.as_bytes().to_vec()).await
    };
    assert!(page(TOKEN).await.contains("It has no plan: its firmware is left as it is."));
    let path = "/dpus/dpu-1/functions";
    for (body, says) in [
        ("model=bluefield3&vfs=many", "is no number of functions"),
        ("model=bluefield3&vfs=128", "more than the 127"),
        ("vfs=1", "no model is chosen"),
    ] {
        let refused = form(TOKEN, path, body).await;
        let text = refused.body.as_str().unwrap_or_default();
        assert!(refused.status == 422 && text.contains(says), "{body}: {refused:?}");
        assert!(text.contains("id=\"change-plan\" open"), "{body}: {refused:?}");
    }
    let set = form(TOKEN, path, "model=bluefield3&vfs=8&blk_pfs=1&hotplug=4&disks=snap").await;
    assert_eq!(set.status, 303, "{set:?}");
    let shown = page(TOKEN).await;
    for says in [
        "pending",
        "has not written it yet",
        "Virtual functions of each NIC function",
        "SNAP, as virtio-blk functions",
    ] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    says(&lab, 8).await;
    let shown = page(TOKEN).await;
    assert!(shown.contains("in force") && shown.contains("NUM_OF_VFS"), "{shown}");
    let looker = lab.token("rita", "reader").await;
    let shown = page(&looker).await;
    assert!(shown.contains("NUM_OF_VFS") && !shown.contains("change-plan"), "{shown}");
    assert_eq!(form(&looker, path, "model=bluefield3").await.status, 403);
    assert_eq!(form(TOKEN, "/dpus/dpu-1/functions/clear", "").await.status, 303);
    assert!(page(TOKEN).await.contains("It has no plan"));
}
