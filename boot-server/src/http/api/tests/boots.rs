//! What a node boots next, and nodes that are forgotten.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn boots_are_ordered_shown_and_cleared() {
    let lab = Lab::new().await;
    let order = |body: Value| lab.post("/api/v1/nodes/beta/boot", body);
    let url = "http://mirror.example/linux";
    let typo = json!({ "boot": { "kind": "kernel", "kernel": url, "initrd": "x" } });
    assert_eq!(order(typo).await.code(), (400, "body"));
    assert_eq!(order(json!({ "boot": { "kind": "kernel", "kernel": "../x" } })).await.code(), (400, "body"));
    let missing = order(json!({ "boot": { "kind": "iso", "file": "live.iso" } })).await;
    assert_eq!(missing.code(), (422, "media-not-found"));
    let chap = json!({ "user": "u", "password": "secretsecret" });
    let target = "iqn.2026-01.site:v";
    let iscsi = json!({ "kind": "iscsi", "server": "10.0.0.9", "target": target, "chap": chap });
    let got = order(json!({ "boot": iscsi, "repeat": "always" })).await;
    assert_eq!((got.status, got.body["boots"].as_str()), (200, Some("iscsi")), "{got:?}");
    assert_eq!(got.body["boot"]["boot"]["chap"], json!({ "user": "u" }), "secrets are not shown");
    assert_eq!((&got.body["boot"]["pending"], &got.body["boot"]["repeat"]), (&json!(true), &json!("always")));
    let preseed = json!({ "kind": "preseed", "disk": "serial:S1", "mirror": "http://deb.example/debian",
        "ssh_keys": ["not a key"] });
    let kernel = json!({ "kind": "kernel", "kernel": url, "profile": preseed });
    assert_eq!(order(json!({ "boot": kernel, "confirm": "beta" })).await.code(), (422, "ssh-key"));
    let text = json!({ "kind": "text", "text": "install" });
    let kernel = json!({ "kind": "kernel", "kernel": url, "profile": text });
    assert_eq!(order(json!({ "boot": kernel.clone() })).await.code(), (422, "confirm-missing"));
    let always = json!({ "boot": kernel, "repeat": "always", "confirm": "beta" });
    assert_eq!(order(always).await.code(), (422, "boot-order"), "it would install for ever");
    let clear = || lab.send(Method::DELETE, "/api/v1/nodes/beta/boot", &[], Vec::new());
    let cleared = clear().await;
    assert_eq!((cleared.status, cleared.body["boots"].as_str()), (200, Some("local_disk")));
    assert_eq!(clear().await.code(), (422, "boot-order"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_forgotten_unless_they_run() {
    let lab = Lab::new().await;
    let forget = |node: &'static str| {
        let lab = &lab;
        async move { lab.post(&format!("/api/v1/nodes/{node}/forget"), json!({})).await }
    };
    assert_eq!(forget("beta").await.code(), (409, "wrong-state"), "it runs an OS");
    let gone = forget("alpha").await;
    assert_eq!((gone.status, gone.body["name"].as_str()), (200, Some("alpha")));
    assert_eq!(lab.get("/api/v1/nodes/alpha").await.code(), (404, "node-not-found"));
    assert_eq!(forget("alpha").await.code(), (404, "node-not-found"));
}
