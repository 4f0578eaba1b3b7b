//! What a project owns is nobody else's, whatever way it is asked for: by id inside of another project, through filters,
//! cursors and tags, in bulk, with fields that a request does not have. The routes come out of the document, so that a new
//! one cannot be forgotten; `projects.rs` walks the paths of other projects themselves.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use ureq::http::Method;
use uuid::Uuid;

use super::lab::{Got, Lab};

/// Roles in a project.
const ROLES: [&str; 5] = ["reader", "auditor", "member", "operator", "admin"];
/// Part of every name in the other project.
const THEIRS: &str = "blue-only";

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
    let mut owned: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (method, template) in below_projects() {
        if method != Method::GET || template.matches('{').count() != 1 || template.ends_with("/stream") {
            continue;
        }
        let got = lab.get(&template.replace("{project}", "blue")).await;
        for item in got.body["items"].as_array().into_iter().flatten() {
            let names = ["id", "name"].into_iter().filter_map(|f| item[f].as_str().map(str::to_owned));
            owned.entry(template.clone()).or_default().extend(names);
        }
    }
    assert!(owned.values().flatten().any(|name| name.contains(THEIRS)), "{owned:?}");
    owned
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
    let lab = Lab::new().await;
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
                let nobody = if name.parse::<Uuid>().is_ok() {
                    Uuid::now_v7().to_string()
                } else {
                    "x".repeat(name.len())
                };
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
    let lab = Lab::new().await;
    let owned = furnish(&lab).await;
    let red = lab.project_token("red", "t-admin", "admin").await;
    let names: Vec<&String> = owned.values().flatten().collect();
    let mut checked = 0;
    for (method, template) in below_projects() {
        if method != Method::GET || template.matches('{').count() != 1 || template.ends_with("/stream") {
            continue;
        }
        let path = template.replace("{project}", "red");
        let mut queries = vec!["?limit=1".to_owned(), "?limit=1000".to_owned(), String::new()];
        for name in &names {
            let filters = ["cursor", "q", "name", "node", "server", "group", "project", "after"];
            queries.extend(filters.map(|filter| format!("?{filter}={name}")));
        }
        queries.extend(["0", "before-999999", "after-0"].map(|cursor| format!("?cursor={cursor}")));
        for query in queries {
            let got = lab.with(&red, Method::GET, &format!("{path}{query}"), json!(null)).await;
            assert!(got.status < 500, "{path}{query}: {got:?}");
            let text = if got.status == 200 { got.body.to_string() } else { String::new() };
            assert!(!text.contains(THEIRS), "{path}{query}: {text}");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_request_does_not_have_are_refused_and_change_nothing() {
    let lab = Lab::new().await;
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
    let lab = Lab::new().await;
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
