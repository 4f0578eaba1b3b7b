//! Projects: who may enter which, and that nobody learns of the others.

use serde_json::json;
use ureq::http::Method;

use super::lab::{Got, Lab};
use super::named;

impl Lab {
    pub async fn project(&self, name: &str) {
        let made = self.post("/api/v1/projects", json!({"name": name, "description": "for tests"})).await;
        assert_eq!(made.status, 201, "{made:?}");
    }

    /// Makes a token of a project, as the site does, and returns its text.
    pub async fn project_token(&self, project: &str, name: &str, role: &str) -> String {
        let path = format!("/api/v1/projects/{project}/tokens");
        let made = self.post(&path, json!({"name": name, "role": role})).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["secret"].as_str().unwrap().to_owned()
    }
}

/// What can be told apart of an answer: all but the time and the name that was asked for.
fn seen(got: &Got, name: &str) -> (u16, String, Vec<(String, String)>) {
    let mut headers: Vec<(String, String)> = got
        .headers
        .iter()
        .filter(|(key, _)| *key != "date")
        .map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (got.status, got.body.to_string().replace(name, "PROJECT"), headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_project_all_others_do_not_exist() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.project("blue").await;
    for role in ["reader", "auditor", "member", "operator", "admin"] {
        let red = lab.project_token("red", &format!("t-{role}"), role).await;
        let mut checked = (0, 0);
        let document = serde_json::to_value(crate::http::api::document()).unwrap();
        for (template, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                let ask = async |path: String| {
                    lab.with(&red, method.clone(), &path, json!({"name": "x", "role": "reader"})).await
                };
                let what = format!("{role}: {method} {template}");
                if template.contains("{project}") {
                    let (there, not) =
                        (ask(named(template, "blue")).await, ask(named(template, "pink")).await);
                    assert_eq!(seen(&there, "blue"), seen(&not, "pink"), "{what}");
                    assert_eq!(there.code(), (404, "project-not-found"), "{what}");
                    checked.0 += 1;
                } else if !["/api/v1/projects", "/api/v1/me", "/api/v1/login"]
                    .iter()
                    .any(|p| template.starts_with(p))
                {
                    let (there, not) = (ask(named(template, "")).await, ask("/api/v1/pink".to_owned()).await);
                    assert_eq!(seen(&there, ""), seen(&not, ""), "{what}");
                    checked.1 += 1;
                }
            }
        }
        assert!(checked.0 >= 9 && checked.1 > 20, "{checked:?}");
        for page in ["/status", "/tokens", "/events", "/images", "/nodes/alpha", "/metrics", "/ui/stream"] {
            let got = lab.with(&red, Method::GET, page, json!(null)).await;
            assert_eq!(got.code(), (404, "not-found"), "{page}");
        }
        let home = lab.with(&red, Method::GET, "/", json!(null)).await;
        assert_eq!((home.status, home.headers["location"].to_str().unwrap()), (303, "/my/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_entered_by_its_own_and_by_those_who_run_the_site() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.project("blue").await;
    let (reader, member, admin) = (
        lab.project_token("red", "t-reader", "reader").await,
        lab.project_token("red", "t-member", "member").await,
        lab.project_token("red", "t-admin", "admin").await,
    );
    let (operator, looker) = (lab.token("olga", "operator").await, lab.token("rita", "reader").await);
    let names = |got: &Got| -> Vec<String> {
        let items = got.body["items"].as_array().unwrap();
        items
            .iter()
            .map(|p| format!("{} {}", p["name"].as_str().unwrap(), p["role"].as_str().unwrap()))
            .collect()
    };
    for (token, wanted) in [
        (&reader, vec!["red reader"]),
        (&admin, vec!["red admin"]),
        (&operator, vec!["blue operator", "red operator"]),
        (&looker, vec![]),
    ] {
        let list = lab.with(token, Method::GET, "/api/v1/projects", json!(null)).await;
        assert_eq!(names(&list), wanted);
    }
    let tokens = "/api/v1/projects/red/tokens";
    let ask = async |token: &str, method: Method, path: &str, body: serde_json::Value| {
        lab.with(token, method, path, body).await
    };
    let make = |role: &str| json!({"name": "ci", "role": role});
    assert_eq!(ask(&reader, Method::POST, tokens, make("reader")).await.code(), (403, "role"));
    assert_eq!(ask(&member, Method::POST, tokens, make("operator")).await.code(), (403, "token-role"));
    assert_eq!(ask(&member, Method::POST, tokens, make("reader")).await.status, 201);
    assert_eq!(ask(&looker, Method::GET, tokens, json!(null)).await.code(), (404, "project-not-found"));
    assert_eq!(ask(&admin, Method::DELETE, &format!("{tokens}/ci"), json!(null)).await.status, 200);
    let close = "/api/v1/projects/red";
    assert_eq!(ask(&admin, Method::DELETE, close, json!(null)).await.code(), (403, "not-admin"));
    assert_eq!(
        ask(&admin, Method::POST, "/api/v1/projects", json!({"name": "x"})).await.code(),
        (403, "not-admin")
    );
    for body in [
        json!({"name": "x", "id": "y"}),
        json!({"name": "x", "role": "admin"}),
        json!({"name": "x", "closed": 1}),
    ] {
        assert_eq!(lab.post("/api/v1/projects", body.clone()).await.code(), (400, "body"), "{body}");
    }
    let me = ask(&member, Method::GET, "/api/v1/me", json!(null)).await;
    assert_eq!(me.body["name"], "red/t-member");
    assert_eq!((&me.body["site_role"], &me.body["projects"][0]["role"]), (&json!(null), &json!("member")));
    assert_eq!(lab.send(Method::DELETE, close, &[], Vec::new()).await.status, 200);
    assert_eq!(ask(&admin, Method::GET, close, json!(null)).await.code(), (401, "wrong-token"));
    let events = lab.get("/api/v1/events?limit=50").await.body["items"].to_string();
    for kind in ["project.created", "token.created", "token.revoked", "project.closed"] {
        assert!(events.contains(kind), "{kind}");
    }
}
