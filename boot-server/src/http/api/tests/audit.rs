//! The audit over loopback: what is in it, what is not, and what happens when it cannot be written.

use std::time::Instant;

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::Lab;

impl Lab {
    async fn entries(&self, query: &str) -> Vec<Value> {
        let got = self.get(&format!("/api/v1/audit?{query}")).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.body["items"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_before_in_between_and_afterwards() {
    let lab = Lab::new().await;
    let olga = lab.token("olga", "operator").await;
    let body = json!({"reason": "a fan"});
    let done = lab.with(&olga, Method::POST, "/api/v1/nodes/alpha/maintenance", body.clone()).await;
    assert_eq!(done.status, 200);
    let asked = lab.entries("kind=asked&actor=olga").await.remove(0);
    assert_eq!(asked["what"], "POST /api/v1/nodes/{node}/maintenance");
    assert_eq!(
        (&asked["object"], &asked["source"]),
        (&json!("/api/v1/nodes/alpha/maintenance"), &json!("127.0.0.1"))
    );
    assert_eq!((&asked["node_name"], &asked["role"]), (&json!("alpha"), &json!("operator")));
    assert!(asked["who"].is_string() && asked["digest"].as_str().unwrap().len() == 64);
    let of_request = lab.entries(&format!("request={}&after=0", asked["request"].as_str().unwrap())).await;
    let kinds: Vec<_> =
        of_request.iter().map(|e| (e["kind"].as_str().unwrap(), e["status"].as_u64())).collect();
    assert_eq!(kinds, [("asked", None), ("change", None), ("answered", Some(200))]);
    let refused = lab.with(&olga, Method::POST, "/api/v1/nodes/alpha/rename", json!({"name": "beta"})).await;
    assert_eq!(refused.code(), (409, "name-taken"));
    let answered = lab.entries("kind=answered&actor=olga").await.remove(0);
    assert_eq!((&answered["status"], &answered["outcome"]), (&json!(409), &json!("name-taken")));
    let (first, again) =
        (asked["digest"].clone(), lab.with(&olga, Method::POST, "/api/v1/nodes/alpha/maintenance", body));
    again.await;
    assert_eq!(
        lab.entries("kind=asked&actor=olga").await[0]["digest"],
        first,
        "the same body, the same digest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_logins_and_refusals_are_in_it_and_secrets_are_not() {
    let lab = Lab::new().await;
    let rita = lab.token("rita", "reader").await;
    assert_eq!(lab.with(&rita, Method::GET, "/api/v1/nodes/beta?secret=1", json!(null)).await.status, 200);
    let read = lab.entries("kind=read&actor=rita").await.remove(0);
    assert_eq!(
        (&read["what"], &read["object"]),
        (&json!("GET /api/v1/nodes/{node}"), &json!("/api/v1/nodes/beta"))
    );
    lab.with(&rita, Method::DELETE, "/api/v1/nodes/beta", json!(null)).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    lab.send_as(Method::POST, "/login", &form, b"token=wrong-wrong-wrong".to_vec()).await;
    lab.send_as(Method::POST, "/login", &form, format!("token={rita}").into_bytes()).await;
    lab.send_as(Method::GET, "/api/v1/nodes", &[("authorization", "Bearer nobody-knows-this")], Vec::new())
        .await;
    lab.get("/healthz").await;
    let fake = json!({ "driver": "fake", "address": "fake-1", "user": "root", "password": "the-password" });
    let set = lab
        .send(
            Method::PUT,
            "/api/v1/nodes/alpha/bmc",
            &[("content-type", "application/json")],
            fake.to_string().into_bytes(),
        )
        .await;
    assert_eq!(set.status, 200, "{set:?}");
    let logins = lab.entries("kind=login&after=0").await;
    let outcomes: Vec<_> =
        logins.iter().map(|e| (e["actor"].as_str().unwrap(), e["outcome"].as_str().unwrap())).collect();
    assert_eq!(
        outcomes,
        [("nobody", "read-only"), ("nobody", "wrong"), ("rita", ""), ("nobody", "wrong-token")]
    );
    let all = Value::from(lab.entries("after=0").await).to_string();
    assert!(all.contains("token.created") && all.contains("/api/v1/nodes/{node}/bmc"));
    for secret in [rita.as_str(), "wrong-wrong", "nobody-knows", "the-password", "secret=1", "healthz"] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_stays_open_is_told_of_once() {
    let lab = Lab::new().await;
    let rita = lab.token("rita", "reader").await;
    let bearer = format!("Bearer {rita}");
    let look = async |path: &str, more: &[(&'static str, &'static str)]| {
        let headers = [&[("authorization", bearer.as_str())], more].concat();
        lab.send_as(Method::GET, path, &headers, Vec::new()).await.status
    };
    let refresh = [("hx-request", "true")];
    assert_eq!(look("/nodes/alpha", &[]).await, 200);
    for _ in 0..20 {
        assert_eq!(look("/nodes/alpha", &refresh).await, 200);
    }
    // Another page is looked at for the first time, whatever is said of it; a page that is loaded again is told again.
    assert_eq!(look("/nodes/beta", &refresh).await, 200);
    assert_eq!(look("/nodes/alpha", &[]).await, 200);
    assert_eq!(look("/nodes/none", &refresh).await, 404);
    assert_eq!(look("/nodes/none", &refresh).await, 404);
    let rows = lab.entries("kind=read&actor=rita&after=0").await;
    let paths: Vec<_> = rows.iter().map(|e| e["object"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/nodes/alpha", "/nodes/beta", "/nodes/alpha", "/nodes/none", "/nodes/none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_a_login_with_who_and_what_came_of_it() {
    let lab = Lab::new().await;
    lab.user("uma", Some("reader"), None).await;
    let headers = [("content-type", "application/json")];
    let wrong = json!({"user": "uma", "password": "not the password"}).to_string().into_bytes();
    lab.send_as(Method::POST, "/api/v1/login", &headers, wrong).await;
    lab.sign_in("uma").await;
    let mut rows = lab.entries("kind=login&after=0").await;
    // The lines of the event list are beside them.
    rows.retain(|e| e["status"].is_u64());
    let told: Vec<_> =
        rows.iter().map(|e| (e["actor"].as_str().unwrap(), e["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("nobody", 401), ("uma", 201)], "{rows:?}");
    assert!(rows.iter().all(|e| e["what"] == "POST /api/v1/login"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_is_not_done_unseen() {
    let lab = Lab::new().await;
    let drop = |db: &crate::store::db::Connection| {
        db.execute("DROP TABLE audit", []).map_err(crate::store::StoreError::sql("test"))
    };
    lab.engine.store().write(drop).await.unwrap();
    for (method, path, body) in [
        (Method::POST, "/api/v1/nodes/beta/delete", json!({"wipe": [], "confirm": "beta"})),
        (Method::POST, "/api/v1/nodes/beta/power", json!({"action": "force_off"})),
        (Method::DELETE, "/api/v1/nodes/alpha/network", json!({})),
        (Method::POST, "/api/v1/tokens", json!({"name": "eve", "role": "operator"})),
        (Method::DELETE, "/api/v1/images/none", json!({})),
        (Method::POST, "/nodes/beta/delete", json!({})),
    ] {
        let headers = [("content-type", "application/json")];
        let got = lab.send(method.clone(), path, &headers, body.to_string().into_bytes()).await;
        assert_eq!(got.code(), (503, "audit-unavailable"), "{method} {path}");
    }
    assert_eq!(
        lab.get("/api/v1/nodes/beta").await.body["state"],
        "active",
        "looking works, and nothing was done"
    );
    let tokens = lab.get("/api/v1/tokens").await;
    assert_eq!(tokens.body["items"].as_array().unwrap().len(), 0);
    // What can be changed back is not stopped by the middleware; its own entry is in its transaction all the same.
    let mild = lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": "x"})).await;
    assert_eq!(mild.status, 503, "{mild:?}");
    assert!(mild.code().1 != "audit-unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_listed_exported_and_checked() {
    let lab = Lab::new().await;
    for n in 0..5 {
        lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": n.to_string()})).await;
    }
    let got = lab.get("/api/v1/audit/verify").await;
    assert_eq!(got.body["intact"], true, "{got:?}");
    let head = lab.get("/api/v1/audit/head").await.body;
    assert!(head["head"]["number"].as_u64().unwrap() >= 15, "{head}");
    // Pages join without gaps, both ways.
    for way in ["", "&after=0"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = lab.get(&format!("/api/v1/audit?limit=4&kind=asked{way}{cursor}")).await.body;
            seen.extend(page["items"].as_array().unwrap().iter().map(|e| e["number"].as_u64().unwrap()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert!(seen.is_sorted() || seen.iter().rev().is_sorted());
    }
    let export = lab.get("/api/v1/audit/export").await;
    assert_eq!((export.status, export.kind.as_str()), (200, "application/x-ndjson"));
    let file = lab.dir.join("export.ndjson");
    std::fs::write(&file, export.body.as_str().unwrap()).unwrap();
    assert!(crate::audit::export::check_file(&file, &[]).unwrap().chain.is_ok());
    let rest = lab.get("/api/v1/audit/export?after=3").await;
    std::fs::write(&file, rest.body.as_str().unwrap()).unwrap();
    assert_eq!(crate::audit::export::check_file(&file, &[]).unwrap().anchor.number, 3);
    assert_eq!(lab.get("/api/v1/audit/export?after=99999").await.code(), (400, "query"));
    let eve = |db: &crate::store::db::Connection| {
        db.execute("UPDATE audit SET outcome = 'nothing' WHERE number = 6", [])
            .map_err(crate::store::StoreError::sql("test"))
    };
    lab.engine.store().write(eve).await.unwrap();
    let got = lab.get("/api/v1/audit/verify").await.body;
    assert_eq!((&got["intact"], &got["broken"]), (&json!(false), &json!(6)));
    for (query, code) in
        [("kind=x", 400), ("cursor=x", 400), ("node=none", 404), ("limit=0", 400), ("x=1", 400)]
    {
        assert_eq!(lab.get(&format!("/api/v1/audit?{query}")).await.status, code, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_for_auditors() {
    let lab = Lab::new().await;
    for role in ["reader", "operator"] {
        let token = lab.token(&format!("only-{role}"), role).await;
        for path in ["/audit", "/audit/head", "/audit/verify", "/audit/export"] {
            let got = lab.with(&token, Method::GET, &format!("/api/v1{path}"), json!(null)).await;
            assert_eq!(got.status, 403, "{role} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_is_signed_once_and_told() {
    let lab = Lab::new().await;
    lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": "x"})).await;
    let signed = lab.engine.sign_head().await.unwrap().unwrap();
    assert!(crate::audit::signing::is_signed(&signed));
    assert!(lab.engine.sign_head().await.unwrap().is_none(), "nothing happened since");
    let told = lab.get("/api/v1/events?limit=1").await.body["items"][0].clone();
    assert_eq!(told["kind"], "audit.head");
    assert!(told["message"].as_str().unwrap().contains(&signed.head.hash.to_string()));
    let verdict = lab.get("/api/v1/audit/verify").await.body;
    assert_eq!((&verdict["intact"], &verdict["checkpoints"]), (&json!(true), &json!(1)));
}

/// A guard against a write on the way of a look: generous, because others build on this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_does_not_wait_for_the_disk() {
    let lab = Lab::new().await;
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(lab.get("/api/v1/nodes/alpha").await.status, 200);
    }
    let taken = begun.elapsed();
    assert!(taken.as_millis() < 4000, "{taken:?}");
    assert_eq!(
        lab.entries("kind=read").await.iter().filter(|e| e["object"] == "/api/v1/nodes/alpha").count(),
        50
    );
}
