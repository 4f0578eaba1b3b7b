//! What a project owns is nobody else's, whatever way it is asked for: by id inside of another project, through filters,
//! cursors and tags, in bulk, with fields that a request does not have. The routes come out of the document, so that a new
//! one cannot be forgotten; `projects.rs` walks the paths of other projects themselves.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::Method;
use uuid::Uuid;

use super::lab::{Got, Lab, raw_disk};

/// Roles in a project.
const ROLES: [&str; 5] = ["reader", "auditor", "member", "operator", "admin"];
/// Part of every name in the other project.
const THEIRS: &str = "blue-only";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh blue-only";
/// For so long a stream is listened to: some times as long as what changes close together is gathered.
const LISTEN: Duration = Duration::from_secs(3);

/// A server that answers as fast as it is asked.
async fn quick() -> Lab {
    Lab::with_config(|config| config.operators.requests_per_second = 0).await
}

/// Every operation below `/api/v1/projects/{project}/`: method, template.
fn below_projects() -> Vec<(Method, String)> {
    let document = serde_json::to_value(crate::http::api::document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/api/v1/projects/{project}/") {
            let methods = item.as_object().unwrap().keys();
            all.extend(methods.map(|m| (m.to_uppercase().parse().unwrap(), path.clone())));
        }
    }
    assert!(all.len() >= 10, "{all:?}");
    all
}

/// What can be told apart of an answer: all but the time and the name that was asked for.
fn seen(got: &Got, name: &str) -> (u16, String, Vec<(String, String)>) {
    let headers = got.headers.iter().filter(|(key, _)| *key != "date");
    let mut headers: Vec<_> = headers
        .map(|(key, value)| (key.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    headers.sort();
    (got.status, got.body.to_string().replace(name, "NAME"), headers)
}

/// Something of everything in the project `blue`; its lists by collection, as the site sees them.
async fn furnish(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    lab.project("red").await;
    lab.project("blue").await;
    lab.project_token("blue", &format!("{THEIRS}-t"), "reader").await;
    let group = json!({"name": format!("{THEIRS}-g"), "rule": "anti_affinity", "over": "rack", "policy": "anti_affinity"});
    // Whichever of its fields there are: the document says.
    let document = serde_json::to_value(crate::http::api::document()).unwrap();
    for (method, template) in below_projects() {
        if method != Method::POST || template.matches('{').count() != 1 || template.ends_with("/tokens") {
            continue;
        }
        let body = fitting(&document, &document["paths"][&template]["post"], &group);
        let _ = lab.post(&template.replace("{project}", "blue"), body).await;
    }
    furnish_networks(lab).await;
    assert_eq!(lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    for (list, body) in [
        ("servers", json!({"name": format!("{THEIRS}-s"), "node": "alpha", "image": "tiny"})),
        ("keys", json!({"name": format!("{THEIRS}-k"), "public_key": KEY})),
        ("faults", json!({"server": format!("{THEIRS}-s"), "words": THEIRS})),
    ] {
        let made = lab.post(&format!("/api/v1/projects/blue/{list}"), body).await;
        assert_eq!(made.status, 201, "{list}: {made:?}");
    }
    let mut owned: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (method, template) in below_projects() {
        if method != Method::GET || template.matches('{').count() != 1 || template.ends_with("/stream") {
            continue;
        }
        let got = lab.get(&template.replace("{project}", "blue")).await;
        for item in got.body["items"].as_array().into_iter().flatten() {
            // A network of the site that is shared is nobody's secret, and every project has a group of this name.
            let own = |name: &String| item["external"] != true && name != "default";
            let names =
                ["id", "name"].into_iter().filter_map(|f| item[f].as_str().map(str::to_owned)).filter(own);
            owned.entry(template.clone()).or_default().extend(names);
        }
    }
    assert!(owned.values().flatten().any(|name| name.contains(THEIRS)), "{owned:?}");
    owned
}

/// A network of the project with a port, a group, a router, a floating address and a mirror.
async fn furnish_networks(lab: &Lab) {
    let wan = json!({"name": "wan", "physical": "physnet", "shared": true});
    assert_eq!(lab.post("/api/v1/networks", wan).await.status, 201);
    let public = json!({"cidr": "203.0.113.0/24"});
    assert_eq!(lab.post("/api/v1/networks/wan/subnets", public).await.status, 201);
    let name = |part: &str| format!("{THEIRS}-{part}");
    for (list, body) in [
        ("networks", json!({"name": name("n")})),
        ("subnets", json!({"name": name("u"), "network": name("n"), "cidr": "10.0.0.0/24"})),
        ("security-groups", json!({"name": name("w"), "rules": [{"direction": "ingress"}]})),
        ("ports", json!({"name": name("p"), "network": name("n")})),
        ("routers", json!({"name": name("r")})),
        ("floating-addresses", json!({"name": name("f"), "network": "wan"})),
        (
            "mirrors",
            json!({"name": name("m"), "ports": [name("p")], "direction": "ingress", "kind": "gre",
                "to": "198.51.100.9", "key": 7}),
        ),
    ] {
        let made = lab.post(&format!("/api/v1/projects/blue/{list}"), body).await;
        assert!(matches!(made.code(), (201, _) | (409, "name-taken")), "{list}: {made:?}");
    }
}

/// What is not there: for an id, the one beside it; for a name, one as long.
fn nobody(name: &str) -> String {
    if name.parse::<Uuid>().is_err() {
        return "x".repeat(name.len());
    }
    let last = if name.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &name[..name.len() - 1])
}

/// A body with every required field of the schema, out of `known` where it has it.
fn fitting(document: &Value, operation: &Value, known: &Value) -> Value {
    let mut schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    while let Some(place) = schema["$ref"].as_str() {
        schema = document.pointer(place.trim_start_matches('#')).unwrap();
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let value = |field: &str| match known.get(field) {
        Some(value) => value.clone(),
        None => json!(THEIRS),
    };
    Value::Object(required.map(|field| (field.to_owned(), value(field))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_project_owns_does_not_exist_in_the_own_one() {
    let lab = quick().await;
    let owned = furnish(&lab).await;
    for role in ROLES {
        let red = lab.project_token("red", &format!("t-{role}"), role).await;
        let mut checked = 0;
        for (method, template) in below_projects() {
            let Some((collection, names)) = owned.iter().find(|(collection, _)| {
                template.strip_prefix(collection.as_str()).is_some_and(|rest| rest.starts_with("/{"))
            }) else {
                continue;
            };
            for name in names {
                let nobody = nobody(name);
                let rest = &template[collection.len()..];
                let (begin, end) = (rest.find('{').unwrap(), rest.find('}').unwrap());
                let path = |name: &str| {
                    let rest = format!("{}{name}{}", &rest[..begin], &rest[end + 1..]);
                    format!("{}{rest}", collection.replace("{project}", "red"))
                };
                for headers in [None, Some(("if-match", "*")), Some(("idempotency-key", "k"))] {
                    let ask = async |path: String| {
                        let bearer = format!("Bearer {red}");
                        let mut all =
                            vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
                        all.extend(headers);
                        let body = json!({"role": "reader"}).to_string().into_bytes();
                        let body = if method == Method::GET { Vec::new() } else { body };
                        lab.send_as(method.clone(), &path, &all, body).await
                    };
                    let (there, not) = (ask(path(name)).await, ask(path(&nobody)).await);
                    let what = format!("{role}: {method} {template} of {name}, {headers:?}");
                    assert_eq!(seen(&there, name), seen(&not, &nobody), "{what}");
                    assert!(!(200..300).contains(&there.status), "{what}: {there:?}");
                    checked += 1;
                }
            }
        }
        assert!(checked >= 6, "{role}: {checked}");
    }
    // They are all still there.
    let again = lab.get("/api/v1/projects/blue/tokens").await;
    assert!(again.body.to_string().contains(THEIRS));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_filter_or_cursor_leads_into_another_project() {
    let lab = quick().await;
    let owned = furnish(&lab).await;
    let red = lab.project_token("red", "t-admin", "admin").await;
    let names: Vec<&String> = owned.values().flatten().collect();
    let mut checked = 0;
    for (method, template) in below_projects() {
        if method != Method::GET || template.matches('{').count() != 1 || template.ends_with("/stream") {
            continue;
        }
        let path = template.replace("{project}", "red");
        let ask =
            async |query: &str| lab.with(&red, Method::GET, &format!("{path}{query}"), json!(null)).await;
        // Their things as filters and cursors answer as things that are not there.
        for name in &names {
            let nobody = nobody(name);
            for filter in ["cursor", "q", "name", "node", "server", "group", "project", "after", "phase"] {
                let (theirs, none) =
                    (ask(&format!("?{filter}={name}")).await, ask(&format!("?{filter}={nobody}")).await);
                // The audit grows by being looked at.
                if theirs.status != 200 || !path.ends_with("/audit") {
                    assert_eq!(seen(&theirs, name), seen(&none, &nobody), "{path}?{filter}={name}");
                }
                assert!(
                    theirs.status < 500
                        && (theirs.status != 200 || !theirs.body.to_string().contains(THEIRS))
                );
                checked += 1;
            }
        }
        // So do the cursors that their own pages end with.
        let page = lab.get(&format!("{}?limit=1", template.replace("{project}", "blue"))).await;
        let cursors = ["0", "before-999999", "after-0"].into_iter().chain(page.body["next"].as_str());
        let queries = cursors.map(|cursor| format!("?cursor={cursor}"));
        for query in
            queries.chain(["?limit=1", "?limit=1000", "?deleted=true", "?closed=true", ""].map(str::to_owned))
        {
            let got = ask(&query).await;
            assert!(got.status < 500, "{path}{query}: {got:?}");
            let text = if got.status == 200 { got.body.to_string() } else { String::new() };
            assert!(!text.contains(THEIRS), "{path}{query}: {text}");
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_request_does_not_have_are_refused_and_change_nothing() {
    let lab = quick().await;
    furnish(&lab).await;
    let red = lab.project_token("red", "t-admin", "admin").await;
    let document = serde_json::to_value(crate::http::api::document()).unwrap();
    let state = async || {
        let mut all = Vec::new();
        for path in ["projects", "projects/red", "projects/red/tokens", "projects/red/members", "me"] {
            let got = lab.with(&red, Method::GET, &format!("/api/v1/{path}"), json!(null)).await;
            all.push(got.body.to_string());
        }
        all
    };
    let before = state().await;
    let mut checked = 0;
    for (method, template) in below_projects() {
        let operation = &document["paths"][&template][method.as_str().to_lowercase()];
        if !operation["requestBody"].is_object() {
            continue;
        }
        let known = json!({"name": "mine", "role": "reader"});
        for (field, value) in [
            ("project", json!("blue")),
            ("project_id", json!(Uuid::now_v7())),
            ("site_role", json!("admin")),
            ("state", json!("active")),
            ("phase", json!("active")),
            ("sha256", json!("00")),
            ("secret", json!("mine")),
            ("id", json!(Uuid::now_v7())),
            ("created", json!(0)),
        ] {
            let mut body = fitting(&document, operation, &known);
            body[field] = value;
            let path = template.replace("{project}", "red").replace(['{', '}'], "");
            let got = lab.with(&red, method.clone(), &path, body.clone()).await;
            assert!((400..500).contains(&got.status), "{method} {path} {body}: {got:?}");
            checked += 1;
        }
    }
    assert!(checked >= 27, "{checked}");
    assert_eq!(state().await, before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_at_once_are_the_site_s_alone() {
    let lab = quick().await;
    lab.project("red").await;
    let red = lab.project_token("red", "t-admin", "admin").await;
    let body = json!({"verb": "maintenance", "reason": "mine", "filter": {}});
    let there = lab.with(&red, Method::POST, "/api/v1/nodes/actions", body.clone()).await;
    let not = lab.with(&red, Method::POST, "/api/v1/no-such-path", body).await;
    assert_eq!(seen(&there, ""), seen(&not, ""));
    let (stream, not) = (
        lab.with(&red, Method::GET, "/api/v1/events/stream?after=0", json!(null)).await,
        lab.with(&red, Method::GET, "/api/v1/no-such-path", json!(null)).await,
    );
    assert_eq!(seen(&stream, ""), seen(&not, ""));
    assert_eq!(lab.get("/api/v1/nodes?maintenance=true").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_verbs_and_references_in_bodies_reach_nothing_of_another_project() {
    let lab = quick().await;
    let owned = furnish(&lab).await;
    let red = lab.project_token("red", "t-admin", "admin").await;
    for (list, body) in
        [("networks", json!({"name": "mine"})), ("ports", json!({"name": "mine", "network": "mine"}))]
    {
        let made = lab.with(&red, Method::POST, &format!("/api/v1/projects/red/{list}"), body).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let mut checked = 0;
    for name in owned.values().flatten() {
        let nobody = nobody(name);
        for (path, body) in [
            ("servers/actions", json!({"verb": "delete", "servers": [name]})),
            ("servers/actions", json!({"verb": "reinstall", "servers": [name, "none"]})),
            ("servers/actions", json!({"verb": "stop_hard", "servers": [name]})),
            ("servers", json!({"name": "mine", "node": "beta", "image": "tiny", "keys": [name]})),
            ("servers", json!({"name": "mine", "node": "beta", "image": "tiny", "group": name})),
            ("servers", json!({"name": "mine", "node": name, "image": "tiny"})),
            ("servers", json!({"name": "mine", "node": "beta", "image": name})),
            ("faults", json!({"server": name, "words": "hot"})),
            ("subnets", json!({"network": name, "cidr": "10.9.0.0/24"})),
            ("ports", json!({"network": name})),
            ("ports", json!({"network": "mine", "security_groups": [name]})),
            ("ports", json!({"network": "mine", "subnets": [name]})),
            ("ports/mine/attach", json!({"server": name})),
            ("security-groups", json!({"name": "other", "rules": [{"direction": "ingress", "group": name}]})),
            ("floating-addresses", json!({"network": "wan", "port": name})),
            ("floating-addresses", json!({"network": name})),
            (
                "mirrors",
                json!({"ports": [name], "direction": "egress", "kind": "gre", "to": "198.51.100.8", "key": 8}),
            ),
        ] {
            let path = format!("/api/v1/projects/red/{path}");
            let other: Value =
                serde_json::from_str(&body.to_string().replace(name.as_str(), &nobody)).unwrap();
            let there = lab.with(&red, Method::POST, &path, body.clone()).await;
            let not = lab.with(&red, Method::POST, &path, other).await;
            assert_eq!(seen(&there, name), seen(&not, &nobody), "{path} {body}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
    let blue = lab.get("/api/v1/projects/blue/servers").await;
    assert_eq!(blue.body["items"][0]["phase"], "claimed", "{blue:?}");
}

/// What a stream of events says while it is listened to.
fn listen(lab: &Lab, path: &str, token: &str) -> tokio::task::JoinHandle<String> {
    let (address, request) = (
        lab.address,
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", lab.address),
    );
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (end, mut said, mut part) = (Instant::now() + LISTEN, Vec::new(), [0; 4096]);
        while Instant::now() < end {
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(some) => said.extend_from_slice(&part[..some]),
                Err(_) => {}
            }
        }
        String::from_utf8(said).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_project_carries_nothing_of_another() {
    let lab = quick().await;
    furnish(&lab).await;
    let red = lab.project_token("red", "t-red", "admin").await;
    let blue = lab.project_token("blue", "t-blue", "admin").await;
    let open = |token: &str, project: &str| {
        [
            listen(&lab, &format!("/api/v1/projects/{project}/events/stream"), token),
            listen(&lab, &format!("/api/v1/projects/{project}/events/stream?after=0"), token),
            listen(&lab, &format!("/my/{project}/stream"), token),
        ]
    };
    let (of_red, of_blue) = (open(&red, "red"), open(&blue, "blue"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Things happen in the other project, to its machine, and at the site; and one thing in the own one.
    let servers = "/api/v1/projects/blue/servers";
    let name = format!("{servers}/{THEIRS}-s");
    let renamed = lab.with(&blue, Method::PATCH, &name, json!({"name": format!("{THEIRS}-r")})).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": THEIRS})).await;
    let deleted = lab.with(&blue, Method::DELETE, &format!("{servers}/{THEIRS}-r"), json!(null)).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    let own = json!({"name": "red-own", "public_key": KEY.replace(THEIRS, "red")});
    assert_eq!(lab.with(&red, Method::POST, "/api/v1/projects/red/keys", own).await.status, 201);
    let id = deleted.body["id"].as_str().unwrap();
    let (node, project) =
        (lab.engine.node("alpha").await.unwrap().id, lab.known.tenancy().project("blue").unwrap().id);
    let hidden =
        [THEIRS.to_owned(), id.to_owned(), node.to_string(), project.to_string(), "alpha".to_owned()];
    for (number, stream) in of_red.into_iter().enumerate() {
        let said = stream.await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{number}: {said}");
        assert!(number == 2 || said.contains("red-own"), "{number} is deaf: {said}");
        let told: Vec<_> = hidden.iter().filter(|text| said.contains(text.as_str())).collect();
        assert!(told.is_empty(), "{number} tells {told:?}: {said}");
        assert!(number != 2 || !said.contains("event: server"), "{number}: {said}");
    }
    // Those whose project it is hear it, and not which machine it was.
    for (number, stream) in of_blue.into_iter().enumerate() {
        let said = stream.await.unwrap();
        assert!(said.contains(id), "{number} does not tell what happened: {said}");
        assert!(!said.contains(&node.to_string()) && !said.contains("alpha"), "{number}: {said}");
    }
}
