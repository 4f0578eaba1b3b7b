//! Networks of projects by the API: who may what, pages, versions, keys of idempotency, and what is answered where it cannot be.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab};

const RED: &str = "/api/v1/projects/red";

async fn lab() -> Lab {
    let lab = Lab::with_config(|config| config.operators.requests_per_second = 0).await;
    lab.project("red").await;
    lab
}

async fn made(lab: &Lab, list: &str, body: Value) -> Value {
    let got = lab.post(&format!("{RED}/{list}"), body).await;
    assert_eq!(got.status, 201, "{list}: {got:?}");
    got.body
}

fn etag(got: &Got) -> String {
    got.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_pages_and_a_change_names_the_version_that_was_seen() {
    let lab = lab().await;
    for n in 0..5 {
        made(&lab, "networks", json!({"name": format!("n{n}")})).await;
    }
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = lab.get(&format!("{RED}/networks?limit=2{cursor}")).await.body;
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["n0", "n1", "n2", "n3", "n4"]);
    let tag = etag(&lab.get(&format!("{RED}/networks/n0")).await);
    let change = async |tag: &str, body: Value| {
        let headers = [("if-match", tag), ("content-type", "application/json")];
        let path = format!("{RED}/networks/n0");
        lab.send(Method::PATCH, &path, &headers, body.to_string().into_bytes()).await
    };
    let changed = change(&tag, json!({"mtu": 1400})).await;
    assert_eq!(
        (changed.status, &changed.body["mtu"], &changed.body["name"]),
        (200, &json!(1400), &json!("n0"))
    );
    assert_eq!(change(&tag, json!({"mtu": 1300})).await.status, 412);
    assert_eq!(change("*", json!({"mtu": 9000, "project": "blue"})).await.status, 400);
    let key = [("idempotency-key", "once"), ("content-type", "application/json")];
    let body = json!({"name": "only"}).to_string().into_bytes();
    let first = lab.send(Method::POST, &format!("{RED}/networks"), &key, body.clone()).await;
    let again = lab.send(Method::POST, &format!("{RED}/networks"), &key, body).await;
    assert_eq!((first.status, again.status, &first.body), (201, 201, &again.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_look_members_change_and_the_site_keeps_its_wires_to_itself() {
    let lab = lab().await;
    let wan = json!({"name": "wan", "physical": "secret-wire", "vlan": 7, "shared": true});
    assert_eq!(lab.post("/api/v1/networks", wan).await.status, 201);
    let hidden = json!({"name": "hidden", "physical": "secret-wire", "vlan": 8});
    assert_eq!(lab.post("/api/v1/networks", hidden).await.status, 201);
    assert_eq!(lab.post("/api/v1/networks/wan/subnets", json!({"cidr": "203.0.113.0/24"})).await.status, 201);
    let reader = lab.project_token("red", "t-reader", "reader").await;
    let member = lab.project_token("red", "t-member", "member").await;
    let networks = format!("{RED}/networks");
    let mine = json!({"name": "mine"});
    assert_eq!(lab.with(&reader, Method::POST, &networks, mine.clone()).await.code(), (403, "role"));
    assert_eq!(lab.with(&member, Method::POST, &networks, mine).await.status, 201);
    let list = lab.with(&reader, Method::GET, &networks, json!(null)).await;
    let names: Vec<_> =
        list.body["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["wan", "mine"], "of the site what is shared");
    assert!(!list.body.to_string().contains("secret-wire"), "{list:?}");
    let gone = lab.with(&member, Method::GET, &format!("{networks}/hidden"), json!(null)).await;
    assert_eq!(gone.code(), (404, "network-not-found"));
    // What is the site's is changed by the site.
    for (method, path) in [(Method::PATCH, "wan"), (Method::DELETE, "wan"), (Method::PATCH, "hidden")] {
        let got = lab.with(&member, method, &format!("{networks}/{path}"), json!({"mtu": 1400})).await;
        assert_eq!(got.code(), (404, "network-not-found"));
    }
    for path in ["/api/v1/networks", "/api/v1/networks/wan", "/api/v1/overlay/status"] {
        let there = lab.with(&member, Method::GET, path, json!(null)).await;
        let not = lab.with(&member, Method::GET, "/api/v1/no-such-path", json!(null)).await;
        assert_eq!((there.status, there.body), (not.status, not.body), "{path}");
    }
    let status = lab.get("/api/v1/overlay/status").await.body;
    assert_eq!(
        (&status["enabled"], &status["synced"]),
        (&json!(true), &json!(false)),
        "nobody is there: {status}"
    );
    let shut = lab.send(Method::DELETE, RED, &[], Vec::new()).await;
    assert_eq!(shut.code(), (409, "project-in-use"), "it has a network");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_from_a_port_to_the_world_and_back() {
    let lab = lab().await;
    let wan = json!({"name": "wan", "physical": "physnet", "shared": true});
    assert_eq!(lab.post("/api/v1/networks", wan).await.status, 201);
    let public = json!({"cidr": "203.0.113.0/24", "pools": ["203.0.113.10-203.0.113.19"]});
    assert_eq!(lab.post("/api/v1/networks/wan/subnets", public).await.status, 201);
    made(&lab, "networks", json!({"name": "web"})).await;
    made(&lab, "subnets", json!({"name": "web", "network": "web", "cidr": "10.0.0.0/24"})).await;
    let port = made(&lab, "ports", json!({"name": "shop", "network": "web"})).await;
    assert_eq!(port["addresses"], json!(["10.0.0.2"]));
    made(&lab, "routers", json!({"name": "edge"})).await;
    let ask = async |method: Method, path: &str, body: Value| {
        let json = [("content-type", "application/json")];
        lab.send(method, &format!("{RED}/{path}"), &json, body.to_string().into_bytes()).await
    };
    let floating = json!({"network": "wan", "port": "shop"});
    let early = lab.post(&format!("{RED}/floating-addresses"), floating.clone()).await;
    assert_eq!(early.code(), (422, "bad-overlay"), "no router leads there: {early:?}");
    let joined = ask(Method::PUT, "routers/edge/interfaces/web", json!({})).await;
    assert_eq!(joined.body["interfaces"].as_array().unwrap().len(), 1);
    let out = ask(Method::PUT, "routers/edge/gateway", json!({"network": "wan"})).await;
    assert_eq!(out.body["gateway"]["address"], "203.0.113.10", "{out:?}");
    let own = ask(Method::PUT, "routers/edge/gateway", json!({"network": "web"})).await;
    assert_eq!(own.code(), (422, "bad-overlay"), "it leads nowhere");
    let floating = made(&lab, "floating-addresses", floating).await;
    assert_eq!((&floating["address"], &floating["port"]), (&json!("203.0.113.11"), &port["id"]));
    assert_eq!(
        ask(Method::DELETE, "routers/edge/gateway", json!({})).await.status,
        422,
        "an address leads there"
    );
    assert_eq!(ask(Method::DELETE, "networks/web", json!({})).await.code(), (409, "in-use"));
    assert_eq!(ask(Method::DELETE, "ports/shop", json!({})).await.status, 204);
    let left = lab.get(&format!("{RED}/floating-addresses/203.0.113.11")).await.body;
    assert_eq!(left["port"], Value::Null, "it leads nowhere, and is kept");
    for path in ["floating-addresses/203.0.113.11", "routers/edge/gateway", "routers/edge/interfaces/web"] {
        let got = ask(Method::DELETE, path, json!({})).await;
        assert!(matches!(got.status, 200 | 204), "{path}: {got:?}");
    }
    assert_eq!(ask(Method::DELETE, "routers/edge", json!({})).await.status, 204);
    assert_eq!(ask(Method::DELETE, "networks/web", json!({})).await.status, 204);
    assert_eq!(lab.get(&format!("{RED}/subnets")).await.body["items"], json!([]), "they went with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_an_overlay_says_so() {
    let lab = Lab::with_config(|config| config.overlay = None).await;
    lab.project("red").await;
    let got = lab.post(&format!("{RED}/networks"), json!({"name": "web"})).await;
    assert_eq!(got.code(), (409, "no-overlay"), "{got:?}");
    assert!(got.body["message"].as_str().unwrap().contains("[overlay]"));
    assert_eq!(lab.get(&format!("{RED}/networks")).await.body["items"], json!([]));
    assert_eq!(lab.get("/api/v1/overlay/status").await.body["enabled"], json!(false));
}
