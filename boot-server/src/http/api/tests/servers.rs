//! Servers over the API: what a member may, what nobody may, and that a project sees its own alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab, raw_disk};

/// Two projects with a member each, an image, and one machine that is free: `alpha`.
struct Tenants {
    lab: Lab,
    red: String,
    blue: String,
}

impl Tenants {
    async fn new() -> Self {
        let lab = Lab::new().await;
        lab.project("red").await;
        lab.project("blue").await;
        assert_eq!(lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
        let red = lab.project_token("red", "ada", "member").await;
        let blue = lab.project_token("blue", "bob", "member").await;
        Self { lab, red, blue }
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: Value) -> Got {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.lab.send_as(method, &format!("/api/v1/projects/{path}"), &headers, body).await
    }

    async fn web(&self) -> Got {
        let body = json!({"name": "web", "node": "alpha", "image": "tiny"});
        self.ask(&self.red, Method::POST, "red/servers", body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_makes_looks_renames_and_deletes() {
    let it = Tenants::new().await;
    let made = it.web().await;
    assert_eq!(made.status, 201, "{made:?}");
    let web = &made.body["servers"][0];
    assert_eq!(
        (web["name"].as_str(), web["phase"].as_str(), web["node_name"].as_str()),
        (Some("web"), Some("claimed"), None)
    );
    assert!(made.headers["location"].to_str().unwrap().ends_with(web["id"].as_str().unwrap()));
    let list = it.ask(&it.red, Method::GET, "red/servers?q=WE&phase=claimed", Value::Null).await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1, "{list:?}");
    let show = it.ask(&it.red, Method::GET, "red/servers/web", Value::Null).await;
    assert_eq!((show.status, &show.body["id"]), (200, &web["id"]));
    let renamed = it.ask(&it.red, Method::PATCH, "red/servers/web", json!({"name": "shop"})).await;
    assert_eq!(renamed.body["name"], "shop", "{renamed:?}");
    let start = it.ask(&it.red, Method::POST, "red/servers/shop/start", json!({})).await;
    assert_eq!(start.code(), (409, "wrong-phase"));
    let events = it.ask(&it.red, Method::GET, "red/events", Value::Null).await;
    let kinds: Vec<&str> =
        events.body["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"server.created") && kinds.contains(&"server.renamed"), "{kinds:?}");
    assert!(events.body["items"].as_array().unwrap().iter().all(|e| e["source"].is_null()));
    let bulk = json!({"verb": "delete", "servers": ["shop", "none"]});
    let outcomes = it.ask(&it.red, Method::POST, "red/servers/actions", bulk).await.body;
    assert_eq!(outcomes["outcomes"][0]["done"]["phase"], "deleting", "{outcomes}");
    assert_eq!(outcomes["outcomes"][1]["problem"]["code"], "server-not-found");
    // The machine is still its own until it is given back.
    let refused = it.lab.post("/api/v1/nodes/alpha/manage", json!({})).await;
    assert_eq!(refused.code(), (409, "node-lent"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_projects_is_not_there() {
    let it = Tenants::new().await;
    let made = it.web().await;
    let id = made.body["servers"][0]["id"].as_str().unwrap().to_owned();
    let none = "00000000-0000-7000-8000-000000000000".to_owned();
    let cases = [
        (Method::GET, "", Value::Null),
        (Method::PATCH, "", json!({"name": "mine"})),
        (Method::DELETE, "", Value::Null),
        (Method::POST, "/start", json!({})),
        (Method::POST, "/stop", json!({"hard": true})),
        (Method::POST, "/reboot", json!({})),
        (Method::POST, "/reinstall", json!({})),
        (Method::GET, "/console/attach", Value::Null),
    ];
    for (method, rest, body) in cases {
        for reference in [&id, "web"] {
            let missing = if reference == "web" { "wab" } else { none.as_str() };
            let theirs = it
                .ask(&it.blue, method.clone(), &format!("blue/servers/{reference}{rest}"), body.clone())
                .await;
            let not = it
                .ask(&it.blue, method.clone(), &format!("blue/servers/{missing}{rest}"), body.clone())
                .await;
            let text = |got: &Got, name: &str| got.body.to_string().replace(name, "NAME");
            assert_eq!(
                (theirs.status, text(&theirs, reference)),
                (not.status, text(&not, missing)),
                "{method} {rest}"
            );
            assert_eq!(theirs.code(), (404, "server-not-found"), "{method} {rest}");
        }
    }
    let refused = it.ask(&it.blue, Method::POST, "blue/faults", json!({"server": id, "words": "hot"})).await;
    assert_eq!(refused.code(), (404, "server-not-found"));
    for list in ["servers?deleted=true", "keys", "faults?closed=true", "events", "usage"] {
        let got = it.ask(&it.blue, Method::GET, &format!("blue/{list}"), Value::Null).await;
        assert_eq!(got.status, 200, "{list}");
        assert!(
            !got.body.to_string().contains("web") && !got.body.to_string().contains(&id),
            "{list}: {got:?}"
        );
    }
    // A machine that another has answers as one that nobody knows.
    let node = |name: &str| json!({"name": "x", "node": name, "image": "tiny"});
    let taken = it.ask(&it.blue, Method::POST, "blue/servers", node("alpha")).await;
    assert_eq!(taken.code(), (409, "no-capacity"), "{taken:?}");
    let unknown = it.ask(&it.blue, Method::POST, "blue/servers", node("omega")).await;
    assert_eq!(unknown.code(), (409, "no-capacity"), "{unknown:?}");
    // Nor is anything of the site's to be had by a name that is not asked for.
    for (field, value) in [
        ("project", json!("blue")),
        ("phase", json!("active")),
        ("id", json!(none)),
        ("amounts", json!({"cores": 0})),
        ("version", json!(1)),
        ("by", json!("root")),
        ("node_id", json!(none)),
    ] {
        let mut body = json!({"name": "x", "node": "alpha", "image": "tiny"});
        body[field] = value;
        let refused = it.ask(&it.red, Method::POST, "red/servers", body).await;
        assert_eq!(refused.code(), (400, "body"), "{field}");
        let refused =
            it.ask(&it.red, Method::PATCH, "red/servers/web", json!({"name": "web", field: 1})).await;
        assert_eq!(refused.code(), (400, "body"), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_quotas_and_reports() {
    let it = Tenants::new().await;
    let reader = it.lab.project_token("red", "eve", "reader").await;
    let body = json!({"name": "web", "node": "alpha", "image": "tiny"});
    assert_eq!(it.ask(&reader, Method::POST, "red/servers", body.clone()).await.code(), (403, "role"));
    for token in [&it.red, &it.lab.project_token("red", "ann", "admin").await] {
        let own = it.ask(token, Method::PUT, "red/quota", json!({"servers": 99})).await;
        assert_eq!(own.code(), (403, "role"), "nobody gives it to themselves");
    }
    let put = |limits: Value| {
        it.lab.send(
            Method::PUT,
            "/api/v1/projects/red/quota",
            &[("content-type", "application/json")],
            limits.to_string().into_bytes(),
        )
    };
    assert_eq!(put(json!({"cores": 3})).await.status, 200);
    let refused = it.web().await;
    assert_eq!(refused.code(), (409, "quota"), "{refused:?}");
    assert!(
        refused.body["message"].as_str().unwrap().contains("cores: 0 used and 4 asked for, the limit is 3")
    );
    assert_eq!(
        put(json!({"cores": 4, "servers": 1})).await.body["limits"],
        json!({"servers": 1, "cores": 4})
    );
    assert_eq!(put(json!({"cores": 4, "role": "admin"})).await.code(), (400, "body"));
    assert_eq!(it.web().await.status, 201);
    let quota = it.ask(&reader, Method::GET, "red/quota", Value::Null).await.body;
    assert_eq!((&quota["used"]["servers"], &quota["used"]["cores"]), (&json!(1), &json!(4)));

    let csv = it.ask(&reader, Method::GET, "red/usage?format=csv", Value::Null).await;
    assert!(csv.kind.starts_with("text/csv"), "{csv:?}");
    assert!(csv.body.as_str().is_none_or(|text| text.starts_with("project,")));
    let wrong = it.ask(&reader, Method::GET, "red/usage?from=5&to=4", Value::Null).await;
    assert_eq!(wrong.code(), (400, "query"));
    let export = it.lab.get("/api/v1/usage/export?format=csv").await;
    let signature = STANDARD.decode(export.headers["billet-signature"].to_str().unwrap()).unwrap();
    let key = it.lab.get("/api/v1/usage/key").await;
    let (text, key) = (export.body.as_str().unwrap(), key.body.as_str().unwrap().to_owned());
    let comment = crate::minisign::verify(text.as_bytes(), std::str::from_utf8(&signature).unwrap(), &key);
    assert!(comment.unwrap().ends_with(".csv"));
    let changed = text.replace("web", "wob");
    assert!(
        crate::minisign::verify(changed.as_bytes(), std::str::from_utf8(&signature).unwrap(), &key).is_err()
    );
    assert_eq!(it.lab.get("/api/v1/sla").await.body["projects"][0]["project"], "red");

    let reported =
        it.ask(&it.red, Method::POST, "red/faults", json!({"server": "web", "words": "it is slow"})).await;
    assert_eq!(reported.status, 201, "{reported:?}");
    let all = it.lab.get("/api/v1/fault-reports").await.body;
    assert_eq!(
        (&all["items"][0]["words"], &all["items"][0]["node"]),
        (&json!("it is slow"), &json!("alpha"))
    );
    let close = format!("/api/v1/fault-reports/{}/close", reported.body["id"].as_str().unwrap());
    assert_eq!(it.lab.post(&close, json!({"answer": "disk replaced"})).await.status, 200);
    let seen = it.ask(&reader, Method::GET, "red/faults?closed=true", Value::Null).await.body;
    assert_eq!(seen["items"][0]["answer"], "disk replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn which_machine_it_is_is_for_people_of_the_site() {
    let it = Tenants::new().await;
    assert_eq!(it.web().await.status, 201);
    let node = it.lab.engine.node("alpha").await.unwrap().id.to_string();
    let reported =
        it.ask(&it.red, Method::POST, "red/faults", json!({"server": "web", "words": "hot"})).await;
    assert_eq!(reported.status, 201);
    let many = json!({"verb": "start", "servers": ["web"]});
    let told = |got: &Got| got.body.to_string().contains("alpha") || got.body.to_string().contains(&node);
    assert!(!told(&reported), "{reported:?}");
    for (method, path, body) in [
        (Method::GET, "red/servers", Value::Null),
        (Method::GET, "red/servers/web", Value::Null),
        (Method::PATCH, "red/servers/web", json!({"name": "web"})),
        (Method::POST, "red/servers/actions", many),
        (Method::GET, "red/events", Value::Null),
        (Method::GET, "red/faults", Value::Null),
        (Method::GET, "red/usage", Value::Null),
        (Method::DELETE, "red/servers/web", Value::Null),
    ] {
        let got = it.ask(&it.red, method.clone(), path, body).await;
        assert!((200..300).contains(&got.status) && !told(&got), "{method} {path}: {got:?}");
    }
    for path in ["red/servers", "red/servers/web", "red/events", "red/faults"] {
        let got = it.lab.get(&format!("/api/v1/projects/{path}")).await;
        assert!(told(&got), "an operator does not see the machine: {path}: {got:?}");
    }
}
