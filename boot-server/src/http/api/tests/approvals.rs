//! Four eyes over loopback: what waits, who decides, what is done, and that it is done once.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab};

impl Lab {
    /// Asks as olga to give beta back, which wipes its disk.
    async fn asked(&self, token: &str) -> Got {
        let body = json!({"wipe": [], "confirm": "beta"});
        self.with(token, Method::POST, "/api/v1/nodes/beta/delete", body).await
    }

    async fn decide(&self, token: &str, id: &str, verb: &str) -> Got {
        self.with(token, Method::POST, &format!("/api/v1/approvals/{id}/{verb}"), json!({"reason": "looked"}))
            .await
    }

    async fn until_over(&self, id: &str) -> Value {
        for _ in 0..200 {
            let got = self.get(&format!("/api/v1/approvals/{id}")).await.body;
            if !["waiting", "approved", "carrying"].contains(&got["status"].as_str().unwrap()) {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} is not over");
    }

    async fn state(&self, node: &str) -> String {
        self.get(&format!("/api/v1/nodes/{node}")).await.body["state"].as_str().unwrap().to_owned()
    }
}

fn id(got: &Got) -> String {
    assert_eq!(got.status, 202, "{got:?}");
    got.body["approval"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_person_makes_it_happen() {
    let lab = Lab::with_config(|config| config.approvals.all_nodes = true).await;
    let (olga, omar) = (lab.token("olga", "operator").await, lab.token("omar", "operator").await);
    let rita = lab.token("rita", "reader").await;
    let asked = lab.asked(&olga).await;
    let it = id(&asked);
    assert_eq!(asked.headers["location"], format!("/api/v1/approvals/{it}"));
    assert_eq!(id(&lab.asked(&olga).await), it, "asked twice, waits once");
    assert_eq!(lab.state("beta").await, "active", "nothing is done yet");
    assert_eq!(lab.decide(&olga, &it, "approve").await.code(), (403, "same-person"));
    assert_eq!(lab.decide(&rita, &it, "approve").await.status, 403);
    assert_eq!(lab.decide(&omar, &it, "approve").await.status, 200);
    let over = lab.until_over(&it).await;
    assert_eq!((&over["status"], &over["answer"]), (&json!("done"), &json!(200)), "{over}");
    assert_eq!(over["decision"]["by"]["name"], "omar");
    assert_eq!(lab.state("beta").await, "deleting");
    assert_eq!(lab.decide(&omar, &it, "approve").await.code(), (409, "decided"));
    // It was done as olga, under the approval's number, and every step is in the audit.
    let entries = lab.get(&format!("/api/v1/audit?request={it}&after=0")).await.body["items"].clone();
    let steps: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["kind"].as_str().unwrap(), e["actor"].as_str().unwrap()))
        .collect();
    assert_eq!(steps.first(), Some(&("asked", "olga")));
    assert!(steps.contains(&("change", "olga")) && steps.last() == Some(&("answered", "olga")), "{steps:?}");
    let kinds = lab.get("/api/v1/audit?kind=approval&after=0").await.body["items"].clone();
    let what: Vec<_> = kinds.as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["approval.asked", "approval.approved", "approval.done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_taken_back_or_out_of_date_is_not_done() {
    let lab = Lab::with_config(|config| config.approvals.all_nodes = true).await;
    let (olga, omar) = (lab.token("olga", "operator").await, lab.token("omar", "operator").await);
    let refused = id(&lab.asked(&olga).await);
    assert_eq!(lab.decide(&omar, &refused, "refuse").await.body["status"], "refused");
    assert_eq!(lab.decide(&omar, &refused, "approve").await.code(), (409, "decided"));
    let back = id(&lab.asked(&olga).await);
    assert_ne!(back, refused, "what is over is not asked for again by itself");
    assert_eq!(
        lab.decide(&olga, &back, "refuse").await.body["status"],
        "refused",
        "one's own can be taken back"
    );
    let stale = id(&lab.asked(&olga).await);
    // Meanwhile the server itself brings the machine elsewhere.
    let node = lab.engine.node("beta").await.unwrap();
    let wipe = boot_server_core::node::event::Verb::Delete {
        wipe: vec![protocol::job::DiskTarget {
            id: "serial:S1".parse().unwrap(),
            size_bytes: 10_000_000_000,
        }],
    };
    let event = boot_server_core::node::Event::Verb(wipe);
    lab.engine.apply(node.id, crate::engine::Actor::Server, event).await.unwrap();
    lab.decide(&omar, &stale, "approve").await;
    let over = lab.until_over(&stale).await;
    assert_eq!(over["status"], "stale");
    assert!(over["outcome"].as_str().unwrap().contains("not as it was"), "{over}");
    let gone =
        id(&lab.with(&olga, Method::POST, "/api/v1/nodes/alpha/power", json!({"action": "force_off"})).await);
    lab.send(Method::DELETE, "/api/v1/tokens/olga", &[], Vec::new()).await;
    lab.decide(&omar, &gone, "approve").await;
    let over = lab.until_over(&gone).await;
    assert_eq!(
        (&over["status"], &over["answer"]),
        (&json!("failed"), &json!(403)),
        "who asked may not any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loses_nothing_waits_for_nobody_and_no_way_leads_around() {
    let lab = Lab::with_config(|config| config.approvals.all_nodes = true).await;
    let olga = lab.token("olga", "operator").await;
    for (path, body) in [
        ("/api/v1/nodes/alpha/maintenance", json!({"reason": "x"})),
        ("/api/v1/nodes/alpha/deploy/preview", json!({"image": "none"})),
        ("/api/v1/nodes/alpha/power", json!({"action": "on"})),
        ("/api/v1/nodes/none/delete", json!({})),
    ] {
        let got = lab.with(&olga, Method::POST, path, body).await;
        assert_ne!(got.status, 202, "{path}: {got:?}");
    }
    // Every operation on one node that destroys waits.
    let mut waited = 0;
    for (method, path) in super::operations() {
        let on_node = path.contains("/nodes/alpha") && !path.contains("console");
        if !matches!(method, Method::GET) && on_node {
            let got = lab.with(&olga, method.clone(), &path, json!({})).await;
            waited += usize::from(got.status == 202);
        }
    }
    assert!(waited >= 20, "{waited}");
    // A form goes to the page of what waits.
    let login = lab
        .send_as(
            Method::POST,
            "/login",
            &[("content-type", "application/x-www-form-urlencoded")],
            format!("token={olga}").into_bytes(),
        )
        .await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let headers = [
        ("cookie", cookie.as_str()),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let got = lab.send_as(Method::POST, "/nodes/beta/delete", &headers, b"confirm=beta".to_vec()).await;
    assert_eq!(got.status, 303);
    assert!(got.headers["location"].to_str().unwrap().starts_with("/approvals/"), "{got:?}");
    assert_eq!(lab.state("beta").await, "active");
    // The engine itself refuses what comes to it by another way.
    let asked = crate::asking::Asked::from("192.0.2.1".parse().unwrap());
    let node = lab.engine.node("beta").await.unwrap();
    let event =
        boot_server_core::node::Event::Verb(boot_server_core::node::event::Verb::Delete { wipe: Vec::new() });
    let refused =
        asked.scope(lab.engine.apply(node.id, crate::engine::Actor::Server, event)).await.unwrap_err();
    assert_eq!(refused.problem().code, "approval-needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_where_no_pool_says_so() {
    let lab = Lab::new().await;
    let olga = lab.token("olga", "operator").await;
    assert_eq!(lab.asked(&olga).await.status, 200);
    assert_eq!(lab.state("beta").await, "deleting");
}
