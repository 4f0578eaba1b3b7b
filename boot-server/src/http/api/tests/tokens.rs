//! Named tokens: made by the site's own, good for what their role says, and gone at once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::{Duration, Instant};

use serde_json::json;
use ureq::http::Method;

use super::lab::{Got, Lab};

impl Lab {
    /// Makes a token and returns its text.
    pub async fn token(&self, name: &str, role: &str) -> String {
        let made = self.post("/api/v1/tokens", json!({"name": name, "role": role})).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["secret"].as_str().unwrap().to_owned()
    }

    pub async fn with(&self, token: &str, method: Method, path: &str, body: serde_json::Value) -> Got {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send_as(method, path, &headers, body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_kept_to() {
    let lab = Lab::new().await;
    let (reader, operator) = (lab.token("rita", "reader").await, lab.token("olga", "operator").await);
    let reason = json!({"reason": "x"});
    let path = "/api/v1/nodes/alpha/maintenance";
    for token in [&reader, &operator] {
        assert_eq!(lab.with(token, Method::GET, "/api/v1/nodes", json!(null)).await.status, 200);
        for (method, path) in [
            (Method::GET, "/api/v1/tokens"),
            (Method::POST, "/api/v1/tokens"),
            (Method::DELETE, "/api/v1/tokens/rita"),
        ] {
            let got = lab.with(token, method.clone(), path, json!({"name": "eve", "role": "operator"})).await;
            assert_eq!(got.status, 403, "{method} {path}");
        }
    }
    assert_eq!(lab.with(&reader, Method::POST, path, reason.clone()).await.code(), (403, "read-only"));
    for (method, path) in super::operations() {
        // What projects own is not theirs to change, nor to see.
        let wanted = if path.starts_with("/api/v1/projects/") { 404 } else { 403 };
        let open = path.starts_with("/api/v1/me") || path == "/api/v1/login";
        if !matches!(method, Method::GET) && !open {
            let body = match path.as_str() {
                "/api/v1/projects" => json!({ "name": "eve" }),
                _ => json!({ "name": "eve", "role": "admin" }),
            };
            let got = lab.with(&reader, method.clone(), &path, body).await;
            assert_eq!(got.status, wanted, "{method} {path}");
        }
    }
    assert_eq!(lab.with(&operator, Method::POST, path, reason).await.status, 200);
    let events = lab.get("/api/v1/events?node=alpha&limit=1").await;
    assert_eq!(events.body["items"][0]["actor"], "olga");
    assert_eq!(events.body["items"][0]["source"], "127.0.0.1", "which reaches the task that steps the node");
    let made = lab.get("/api/v1/events?limit=20").await.body["items"].to_string();
    assert!(made.contains("token.created") && !made.contains(&operator), "{made}");
    let list = lab.get("/api/v1/tokens").await;
    assert!(!list.body.to_string().contains("sha256"), "{list:?}");
    let again = lab.post("/api/v1/tokens", json!({"name": "olga", "role": "reader"})).await;
    assert_eq!(again.code(), (409, "name-taken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_session_and_its_streams() {
    let lab = Lab::new().await;
    let token = lab.token("olga", "operator").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("token={token}").into_bytes();
    let login = lab.send_as(Method::POST, "/login", &form, body).await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let session = [("cookie", cookie.as_str())];
    let page = || lab.send_as(Method::GET, "/api/v1/nodes", &session, Vec::new());
    assert_eq!(page().await.status, 200);
    let (url, bearer) = (lab.url("/api/v1/events/stream"), format!("Bearer {token}"));
    let reading = tokio::task::spawn_blocking(move || {
        let response = ureq::get(url).header("authorization", bearer).call().unwrap();
        let reader = BufReader::new(response.into_body().into_reader().take(1 << 20));
        let _lines = reader.lines().map_while(Result::ok).count();
        Instant::now()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let revoked = lab.send(Method::DELETE, "/api/v1/tokens/olga", &[], Vec::new()).await;
    assert_eq!((revoked.status, &revoked.body["holds"]), (200, &json!(false)));
    assert_eq!(page().await.status, 401);
    assert_eq!(
        lab.with(&token, Method::GET, "/api/v1/nodes", json!(null)).await.code(),
        (401, "wrong-token")
    );
    assert!(reading.await.unwrap().duration_since(begun) < Duration::from_secs(2));
    let gone = lab.send(Method::DELETE, "/api/v1/tokens/olga", &[], Vec::new()).await;
    assert_eq!(gone.code(), (404, "token-not-found"));
}

/// Decision 24: where the server connects to is for the site's own token to say, by whatever field it is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_names_no_place_that_the_server_connects_to() {
    let lab = Lab::new().await;
    let olga = lab.token("olga", "operator").await;
    let put = |token: String, body: serde_json::Value| {
        let lab = &lab;
        async move { lab.with(&token, Method::PUT, "/api/v1/nodes/alpha/bmc", body).await }
    };
    let fake = json!({ "driver": "fake", "address": "fake-1", "user": "root", "password": "one" });
    assert_eq!(put(olga.clone(), fake.clone()).await.code(), (403, "not-admin"));
    let console = lab.with(&olga, Method::DELETE, "/api/v1/nodes/alpha/console", json!(null)).await;
    assert_eq!(console.code(), (403, "not-admin"));
    for (path, body) in [
        ("bmcs/scan", json!({ "network": "10.0.0.0/30" })),
        ("bmcs/import", json!({ "csv": "node,driver,address\nalpha,redfish,10.0.0.5\n" })),
    ] {
        let got = lab.with(&olga, Method::POST, &format!("/api/v1/{path}"), body).await;
        assert_eq!(got.code(), (403, "not-admin"), "{path}");
    }
    let headers = [("content-type", "application/json")];
    let site = |body: serde_json::Value| {
        lab.send(Method::PUT, "/api/v1/nodes/alpha/bmc", &headers, body.to_string().into_bytes())
    };
    assert_eq!(site(fake.clone()).await.status, 200);
    // What is known may be said again, and accounts may be given.
    assert_eq!(put(olga.clone(), fake).await.status, 200);
    assert_eq!(put(olga.clone(), json!({ "user": "admin", "password": "two" })).await.status, 200);
    for elsewhere in [
        json!({ "address": "fake-2", "password": "two" }),
        json!({ "port": 8443 }),
        json!({ "options": { "plain_http": true } }),
    ] {
        assert_eq!(put(olga.clone(), elsewhere.clone()).await.code(), (403, "not-admin"), "{elsewhere}");
    }
    assert_eq!(put(olga, json!({ "driver": "manual" })).await.status, 200, "a person is no place");
}
