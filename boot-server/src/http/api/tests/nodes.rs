//! Nodes and their verbs.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Lab, TOKEN, raw_disk};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_searched_and_paged() {
    let lab = Lab::new().await;
    let names = |body: &Value| {
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = lab.get("/api/v1/nodes").await;
    assert_eq!(names(&all.body), ["alpha", "beta", "gamma"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?state=active").await.body), ["beta"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?q=sn-GAM").await.body), ["gamma"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?q=52:54:00:00:00:01").await.body), ["alpha"]);
    let first = lab.get("/api/v1/nodes?limit=2").await;
    assert_eq!((names(&first.body).len(), first.body["next"].as_str()), (2, Some("beta")));
    assert_eq!(names(&lab.get("/api/v1/nodes?limit=2&cursor=beta").await.body), ["gamma"]);
    for bad in ["limit=0", "limit=501", "limit=x", "state=flying", "colour=blue"] {
        assert_eq!(lab.get(&format!("/api/v1/nodes?{bad}")).await.code(), (400, "query"), "{bad}");
    }
    let shown = lab.get("/api/v1/nodes/alpha").await;
    assert_eq!(shown.body["inventory"]["disks"].as_array().unwrap().len(), 3);
    for missing in ["delta", "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "00000000-0000-0000-0000-0000000000ff"] {
        assert_eq!(
            lab.get(&format!("/api/v1/nodes/{missing}")).await.code(),
            (404, "node-not-found"),
            "{missing}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_strictly() {
    let lab = Lab::new().await;
    let typo = lab.post("/api/v1/nodes/alpha/deploy", json!({"image": "x", "confrim": "alpha"})).await;
    assert_eq!(typo.code(), (400, "body"));
    assert!(typo.body["message"].as_str().unwrap().contains("unknown field `confrim`"), "{typo:?}");
    assert_eq!(lab.post("/api/v1/nodes/alpha/manage", json!({"force": true})).await.code(), (400, "body"));
    assert_eq!(lab.post("/api/v1/nodes/alpha/deploy", json!({})).await.code(), (400, "body"), "no image");
    let text = lab.send(
        Method::POST,
        "/api/v1/nodes/alpha/manage",
        &[("content-type", "text/plain")],
        b"{}".to_vec(),
    );
    assert_eq!(text.await.code(), (415, "content-type"));
    let big = json!({"reason": "x".repeat(1 << 20)});
    assert_eq!(lab.post("/api/v1/nodes/alpha/maintenance", big).await.status, 413);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes();
    let got = lab
        .send(Method::POST, "/api/v1/nodes/alpha/rename", &[("content-type", "application/json")], deep)
        .await;
    assert_eq!(got.code(), (400, "body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_does_not_fit_says_what_does() {
    let lab = Lab::new().await;
    let got = lab.post("/api/v1/nodes/beta/manage", json!({})).await;
    assert_eq!(got.code(), (409, "wrong-state"));
    assert_eq!(got.body["message"], "cannot manage a node that is active");
    assert!(!got.body["hint"].as_str().unwrap().is_empty());
    assert_eq!(lab.post("/api/v1/nodes/alpha/abort", json!({})).await.status, 409);
    let managed = lab.send(Method::POST, "/api/v1/nodes/alpha/manage", &[], Vec::new()).await;
    assert_eq!(
        (managed.status, managed.body["state"].as_str()),
        (200, Some("manageable")),
        "no body is {{}}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wiping_needs_the_name_and_disks_that_are_there() {
    let lab = Lab::new().await;
    lab.post("/api/v1/nodes/alpha/manage", json!({})).await;
    let provide = |body: Value| lab.post("/api/v1/nodes/alpha/provide", body);
    assert_eq!(provide(json!({"wipe": ["serial:S1"]})).await.code(), (422, "confirm-missing"));
    assert_eq!(
        provide(json!({"wipe": ["serial:S1"], "confirm": "beta"})).await.code(),
        (422, "confirm-missing")
    );
    let missing = provide(json!({"wipe": ["serial:S9"], "confirm": "alpha"})).await;
    assert_eq!(missing.code(), (422, "disk-not-found"));
    let stick = provide(json!({"wipe": ["serial:STICK"], "confirm": "alpha"})).await;
    assert_eq!(stick.code(), (422, "disk-refused"));
    assert_eq!(provide(json!({"wipe": ["/dev/sda"], "confirm": "alpha"})).await.code(), (400, "body"));
    let done = provide(json!({"wipe": ["serial:S1", "serial:S1"], "confirm": "alpha"})).await;
    assert_eq!((done.status, done.body["state"].as_str()), (200, Some("cleaning")), "{done:?}");
    let delete = |body: Value| lab.post("/api/v1/nodes/beta/delete", body);
    assert_eq!(delete(json!({})).await.code(), (422, "confirm-missing"), "by default the disk with its OS");
    let done = delete(json!({"confirm": "beta"})).await;
    assert_eq!((done.status, done.body["state"].as_str()), (200, Some("deleting")), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_maintenance() {
    let lab = Lab::new().await;
    let rename = |name: &str| lab.post("/api/v1/nodes/gamma/rename", json!({ "name": name }));
    assert_eq!(rename("alpha").await.code(), (409, "name-taken"));
    assert_eq!(rename("../x").await.code(), (422, "bad-name"));
    assert_eq!(rename("rack-1").await.body["name"], "rack-1");
    let maintain = |body: Value| lab.post("/api/v1/nodes/alpha/maintenance", body);
    assert_eq!(maintain(json!({"reason": " "})).await.code(), (422, "reason"));
    assert_eq!(maintain(json!({"reason": "new fan"})).await.body["maintenance"], "new fan");
    assert_eq!(lab.post("/api/v1/nodes/alpha/manage", json!({})).await.code(), (409, "maintenance"));
    assert_eq!(maintain(json!({"reason": null})).await.body["maintenance"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_is_previewed_confirmed_and_done_once() {
    let lab = Lab::new().await;
    let added = lab.upload("name=debian-12&version=1&default_user=debian", raw_disk(1)).await;
    assert_eq!(added.status, 201, "{added:?}");
    let mut request = json!({
        "image": "debian-12",
        "disk": {"id": "serial:S1"},
        "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh5cG90aGV0aWNhbGtleWZvcmF0ZXN0b25seTEyMzQ1 me"],
    });
    let preview = lab.post("/api/v1/nodes/alpha/deploy/preview", request.clone()).await;
    assert_eq!(preview.body["target"], "serial:S1", "{preview:?}");
    assert_eq!(preview.body["refused"], Value::Null);
    let erased: Vec<bool> =
        preview.body["disks"].as_array().unwrap().iter().map(|d| d["erased"].as_bool().unwrap()).collect();
    assert_eq!(erased, [true, false, false]);
    let only = json!({"image": "debian-12"});
    let refused = lab.post("/api/v1/nodes/alpha/deploy/preview", only).await;
    assert_eq!(refused.body["refused"]["code"], "disk-ambiguous");
    let unconfirmed = lab.post("/api/v1/nodes/alpha/deploy", request.clone()).await;
    assert_eq!(unconfirmed.code(), (422, "confirm-missing"));
    assert_eq!(lab.get("/api/v1/nodes/alpha").await.body["state"], "available", "nothing has changed");
    request["confirm"] = json!("alpha");
    let deploy = |request: &Value, key: &'static str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = request.to_string().into_bytes();
        let lab = &lab;
        async move { lab.send(Method::POST, "/api/v1/nodes/alpha/deploy", &headers, body).await }
    };
    let first = deploy(&request, "k1").await;
    assert_eq!((first.status, first.body["state"].as_str()), (200, Some("deploying")), "{first:?}");
    let again = deploy(&request, "k1").await;
    assert_eq!((again.status, &again.body["job"]["id"]), (200, &first.body["job"]["id"]));
    request["hostname"] = json!("other");
    assert_eq!(deploy(&request, "k1").await.code(), (422, "idempotency-key-reused"));
    assert_eq!(deploy(&request, "k2").await.code(), (409, "wrong-state"));
    let removed = lab.send(Method::DELETE, "/api/v1/images/debian-12", &[], Vec::new()).await;
    assert_eq!(removed.code(), (409, "image-in-use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_paged_and_streamed_without_gaps() {
    let lab = Lab::new().await;
    for n in 0..5 {
        lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": format!("r{n}")})).await;
    }
    let page = lab.get("/api/v1/events?node=alpha&limit=2").await;
    let items = page.body["items"].as_array().unwrap();
    assert!(items[0]["id"].as_i64() > items[1]["id"].as_i64(), "newest first");
    let next = page.body["next"].as_str().unwrap();
    let second = lab.get(&format!("/api/v1/events?node=alpha&limit=2&cursor={next}")).await;
    assert_eq!(second.body["items"][0]["id"].as_i64(), items[1]["id"].as_i64().map(|id| id - 1));
    assert_eq!(lab.get("/api/v1/events?cursor=bogus").await.code(), (400, "query"));

    let first = lab.get("/api/v1/events?after=0&limit=1").await.body["items"][0]["id"].as_i64().unwrap();
    let url = lab.url("/api/v1/events/stream");
    let reading = tokio::task::spawn_blocking(move || {
        let response = ureq::get(url)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("last-event-id", first.to_string())
            .call()
            .unwrap();
        let mut ids = Vec::new();
        for line in BufReader::new(response.into_body().into_reader().take(1 << 20)).lines() {
            let Ok(line) = line else { break };
            if let Some(id) = line.strip_prefix("id:") {
                ids.push(id.trim().parse::<i64>().unwrap());
            }
            if ids.len() == 6 {
                break;
            }
        }
        ids
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for n in 5..7 {
        lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": format!("r{n}")})).await;
    }
    assert_eq!(reading.await.unwrap(), (first + 1..first + 7).collect::<Vec<_>>());
}
