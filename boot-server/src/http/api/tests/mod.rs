//! The API over loopback, with the real router, engine and stores.

mod approvals;
mod audit;
mod bmcs;
mod boots;
mod client;
mod commands;
mod console;
mod disks;
mod dpu_functions;
mod images;
mod inert;
mod isolation;
mod lab;
mod networks;
mod nodes;
mod overlay_pages;
mod pools;
mod projects;
mod servers;
mod ssh;
mod tokens;
mod users;

use std::path::Path;

use serde_json::json;
use ureq::http::Method;

use lab::{Lab, TOKEN};

/// Regenerate with `UPDATE_OPENAPI=1 cargo test -p boot-server openapi`.
#[test]
fn openapi_json_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = super::document().to_pretty_json().unwrap();
    text.push('\n');
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == checked_in, "docs/openapi.json is old: run the tests once with UPDATE_OPENAPI=1");
}

/// Routes come from `routes!`, which puts them into the document as well; only `/healthz` is beside it.
#[test]
fn no_route_is_beside_the_document() {
    let source = include_str!("../mod.rs");
    assert_eq!(source.matches(".route(").count(), 1);
    assert!(source.contains(".route(\"/healthz\""));
}

fn operations() -> Vec<(Method, String)> {
    let document = serde_json::to_value(super::document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            all.push((method, named(path, "none")));
        }
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

/// The path of an operation with names in it: the node `alpha`, this project, and `none` for all else.
fn named(path: &str, project: &str) -> String {
    let part = |part| match part {
        "{node}" => "alpha",
        "{project}" => project,
        other if other.starts_with('{') => "none",
        other => other,
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_needs_the_token() {
    let lab = Lab::new().await;
    // Signing in is the one thing that is done without.
    for (method, path) in operations().into_iter().filter(|(_, path)| path != "/api/v1/login") {
        let got = lab.send_as(method.clone(), &path, &[], Vec::new()).await;
        assert_eq!(got.code(), (401, "unauthenticated"), "{method} {path}");
        assert_eq!(got.kind, "application/problem+json");
        assert_eq!(got.headers["www-authenticate"], "Bearer");
    }
    let wrong = [("authorization", "Bearer wrong-wrong-wrong-wrong-wrong-wrong")];
    let got = lab.send_as(Method::GET, "/api/v1/nodes", &wrong, Vec::new()).await;
    assert_eq!(got.code(), (401, "wrong-token"));
    let nothing = lab.send_as(Method::GET, "/api/v1/no-such-thing", &[], Vec::new()).await;
    assert_eq!(nothing.status, 401, "what does not exist is nobody's business either");
    let health = lab.send_as(Method::GET, "/healthz", &[], Vec::new()).await;
    assert_eq!(health.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_served() {
    let lab = Lab::new().await;
    for (method, path) in operations() {
        if path.ends_with("/stream") {
            continue; // it does not end
        }
        let got = lab.send(method.clone(), &path, &[], Vec::new()).await;
        let code = got.code().1.to_owned();
        assert!(code != "not-found" && code != "method-not-allowed", "{method} {path}: {got:?}");
    }
    assert_eq!(lab.get("/api/v1/no-such-thing").await.code(), (404, "not-found"));
    let got = lab.send(Method::DELETE, "/api/v1/nodes", &[], Vec::new()).await;
    assert_eq!(got.code(), (405, "method-not-allowed"));
    let document = lab.get("/api/v1/openapi.json").await;
    assert_eq!(document.body, serde_json::to_value(super::document()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_down() {
    let lab = Lab::new().await;
    let wrong = [("authorization", "Bearer wrong-wrong-wrong-wrong-wrong-wrong")];
    let mut last = 0;
    for _ in 0..12 {
        last = lab.send_as(Method::GET, "/api/v1/nodes", &wrong, Vec::new()).await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(lab.get("/api/v1/nodes").await.status, 200, "the right one still works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_logs_in_and_other_sites_do_not_ride_along() {
    let lab = Lab::new().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let wrong = lab.send_as(Method::POST, "/login", &form, b"token=no&next=/".to_vec()).await;
    assert_eq!(
        (wrong.status, wrong.headers["location"].to_str().unwrap()),
        (303, "/login?refused=wrong&next=%2F")
    );
    let body = format!("token={TOKEN}&next=//evil.example/");
    let right = lab.send_as(Method::POST, "/login", &form, body.into_bytes()).await;
    assert_eq!((right.status, right.headers["location"].to_str().unwrap()), (303, "/"), "{right:?}");
    let set = right.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let with = |more: &[(&'static str, &'static str)]| {
        let mut headers = vec![("cookie", cookie), ("content-type", "application/json")];
        headers.extend_from_slice(more);
        headers
    };
    let get = lab.send_as(Method::GET, "/api/v1/nodes", &with(&[]), Vec::new()).await;
    assert_eq!(get.status, 200);
    let post = |headers: Vec<(&'static str, &'static str)>| {
        let headers = with(&headers);
        let lab = &lab;
        async move {
            let body = json!({"reason": "x"}).to_string().into_bytes();
            lab.send_as(Method::POST, "/api/v1/nodes/alpha/maintenance", &headers, body).await
        }
    };
    assert_eq!(post(vec![]).await.code(), (403, "other-site"));
    assert_eq!(post(vec![("sec-fetch-site", "cross-site")]).await.code(), (403, "other-site"));
    assert_eq!(post(vec![("origin", "http://evil.example")]).await.code(), (403, "other-site"));
    assert_eq!(post(vec![("sec-fetch-site", "same-origin")]).await.status, 200);
    let forged = [(
        "cookie",
        "billet_session=99999999999999.0000000000000000000000000000000000000000000000000000000000000000",
    )];
    assert_eq!(lab.send_as(Method::GET, "/api/v1/nodes", &forged, Vec::new()).await.status, 401);
    let page = lab.send_as(Method::GET, "/nodes/alpha?x=1", &[], Vec::new()).await;
    assert_eq!(
        (page.status, page.headers["location"].to_str().unwrap()),
        (303, "/login?next=%2Fnodes%2Falpha%3Fx%3D1")
    );
}
