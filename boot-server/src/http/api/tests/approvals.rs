//! Four eyes over loopback: what waits, who decides, what is done, and that it is done once.

use std::time::Duration;

use boot_server_core::audit::weight::may_need_two;
use boot_server_core::server::{Phase, Server};
use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab, raw_disk};

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
        how: boot_server_core::node::Cleaning::Light,
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
    // Every operation on one node that destroys waits, or is refused: none is done.
    let (mut waited, mut refused) = (0, 0);
    for (method, path) in super::operations() {
        let template = path.replace("/nodes/alpha", "/nodes/{node}");
        if !may_need_two(method.as_str(), &template) || !path.contains("/nodes/alpha") {
            continue;
        }
        let got = lab.with(&olga, method.clone(), &path, json!({})).await;
        assert!(got.status == 202 || (400..500).contains(&got.status), "{method} {path}: {got:?}");
        assert!(got.code().1 != "rehearsal" && got.code().1 != "approval-needed", "{method} {path}: {got:?}");
        waited += usize::from(got.status == 202);
        refused += usize::from(got.status != 202);
    }
    assert!(waited >= 12 && waited + refused >= 20, "{waited} wait, {refused} are refused");
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
    let got = lab
        .send_as(Method::POST, "/nodes/beta/delete", &headers, b"wipe=serial:S1&confirm=beta".to_vec())
        .await;
    assert_eq!(got.status, 303);
    assert!(got.headers["location"].to_str().unwrap().starts_with("/approvals/"), "{got:?}");
    assert_eq!(lab.state("beta").await, "active");
    // The engine itself refuses what comes to it by another way.
    let asked = crate::asking::Asked::from("192.0.2.1".parse().unwrap());
    let node = lab.engine.node("beta").await.unwrap();
    let event = boot_server_core::node::Event::Verb(boot_server_core::node::event::Verb::Delete {
        wipe: vec![protocol::job::DiskTarget {
            id: "serial:S1".parse().unwrap(),
            size_bytes: 10_000_000_000,
        }],
        how: boot_server_core::node::Cleaning::Light,
    });
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

/// A pool with four eyes that `alpha` is in, and a project with a member who has a server on it.
async fn with_pool(lab: &Lab) -> String {
    let pool = lab.post("/api/v1/pools", json!({"name": "gold", "four_eyes": true})).await;
    assert_eq!(pool.status, 201, "{pool:?}");
    let put = lab.send(
        Method::PUT,
        "/api/v1/nodes/alpha/pool",
        &[("content-type", "application/json")],
        br#"{"pool":"gold"}"#.to_vec(),
    );
    assert_eq!(put.await.status, 200);
    lab.project("red").await;
    assert_eq!(lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    let ada = lab.project_token("red", "ada", "member").await;
    let body = json!({"name": "web", "node": "alpha", "image": "tiny"});
    let made = lab.with(&ada, Method::POST, "/api/v1/projects/red/servers", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    ada
}

impl Lab {
    async fn web(&self) -> Server {
        let project = self.known.tenancy().project("red").unwrap().id;
        self.engine.server(project, "web").await.unwrap()
    }

    async fn waiting(&self) -> usize {
        let got = self.get("/api/v1/approvals?status=waiting").await;
        got.body["items"].as_array().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_s_server_is_behind_the_four_eyes_of_its_pool() {
    let lab = Lab::new().await;
    let ada = with_pool(&lab).await;
    let omar = lab.token("omar", "operator").await;
    let servers = "/api/v1/projects/red/servers";
    // Not before it has an OS: that is told before anybody is asked.
    let early = lab.with(&ada, Method::POST, &format!("{servers}/web/reinstall"), json!({})).await;
    assert_eq!(early.code(), (409, "wrong-phase"), "{early:?}");
    let web = lab.web().await;
    let active = Server { phase: Phase::Active, version: web.version + 1, ..web };
    let at = crate::engine::now();
    lab.engine.store().write(move |db| crate::store::servers::update(db, &active, at)).await.unwrap();
    // What would be refused is refused, and what loses nothing is done.
    let none = json!({"image": "none"});
    let nonsense = lab.with(&ada, Method::POST, &format!("{servers}/web/reinstall"), none).await;
    assert_eq!(nonsense.status, 404, "{nonsense:?}");
    let renamed = lab.with(&ada, Method::PATCH, &format!("{servers}/web"), json!({"name": "web"})).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    assert_eq!(lab.waiting().await, 0);
    // Several at once are no way around, and tell nobody which machine it is.
    for verb in ["delete", "reinstall", "stop_hard", "reboot"] {
        let many = json!({"verb": verb, "servers": ["web"]});
        let many = lab.with(&ada, Method::POST, &format!("{servers}/actions"), many).await;
        let problem = &many.body["outcomes"][0]["problem"];
        assert_eq!(problem["code"], "approval-needed", "{verb}: {many:?}");
        assert!(!many.body.to_string().contains("alpha"), "{many:?}");
    }
    assert_eq!(lab.web().await.phase, Phase::Active);

    for (method, rest) in [(Method::POST, "/reinstall"), (Method::POST, "/reboot"), (Method::DELETE, "")] {
        let got = lab.with(&ada, method.clone(), &format!("{servers}/web{rest}"), json!({})).await;
        assert_eq!(got.status, 202, "{rest}: {got:?}");
        assert_eq!((&got.body["approval"], got.body["id"].is_string()), (&Value::Null, true), "{got:?}");
        assert!(!got.body.to_string().contains("alpha"), "{got:?}");
    }
    assert_eq!((lab.web().await.phase, lab.waiting().await), (Phase::Active, 3));
    let events =
        lab.with(&ada, Method::GET, "/api/v1/projects/red/events", Value::Null).await.body.to_string();
    assert!(events.contains("approval.asked") && events.contains("server web"), "{events}");
    assert!(!events.contains("alpha"), "{events}");
    // Whoever asked decides nothing, and whoever runs the site does.
    let all = lab.get("/api/v1/approvals?status=waiting").await.body;
    let delete =
        all["items"].as_array().unwrap().iter().find(|it| it["what"].as_str().unwrap().starts_with("DELETE"));
    let delete = delete.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(delete_by(&lab, &ada, &delete).await.status, 404);
    assert_eq!(lab.decide(&omar, &delete, "approve").await.status, 200);
    let over = lab.until_over(&delete).await;
    assert_eq!(over["status"], "done", "{over}");
    assert_eq!(lab.web().await.phase, Phase::Deleting);
}

async fn delete_by(lab: &Lab, token: &str, id: &str) -> Got {
    lab.decide(token, id, "approve").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_project_say_what_waits() {
    let lab = Lab::new().await;
    let ada = with_pool(&lab).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = lab.send_as(Method::POST, "/login", &form, format!("token={ada}").into_bytes()).await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin"), form[0]];
    let post = async |verb: &str, body: &str| {
        let path = format!("/my/red/servers/web/{verb}");
        lab.send_as(Method::POST, &path, &headers, body.as_bytes().to_vec()).await
    };
    let wrong = post("delete", "confirm=wab").await;
    assert_eq!((wrong.status, lab.waiting().await), (422, 0), "{wrong:?}");
    assert_eq!((post("fault", "words=hot").await.status, lab.waiting().await), (303, 0));
    let asked = post("delete", "confirm=web").await;
    assert_eq!((asked.status, asked.headers["location"].to_str().unwrap()), (303, "/my/red/servers/web"));
    let page = lab.send_as(Method::GET, "/my/red/servers/web", &headers, Vec::new()).await;
    let page = page.body.as_str().unwrap();
    assert!(
        page.contains("Waits until somebody of the site approves it: give back (wipes disks) server web"),
        "{page}"
    );
    assert!(!page.contains("alpha"), "{page}");
    assert_eq!(lab.web().await.phase, Phase::Claimed);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_eyes_are_closed_by_two() {
    let lab = Lab::new().await;
    with_pool(&lab).await;
    let (olga, omar) = (lab.token("olga", "operator").await, lab.token("omar", "operator").await);
    let put = async |body: Value| lab.with(&olga, Method::PUT, "/api/v1/pools/gold", body).await;
    let open = async || lab.get("/api/v1/pools/gold").await.body["four_eyes"] == true;
    let more = put(json!({"name": "gold", "four_eyes": true, "description": "for shops"})).await;
    assert_eq!(more.status, 200, "what keeps them is done: {more:?}");
    assert_eq!(put(json!({"name": "silver", "four_eyes": false})).await.code(), (422, "other-name"));
    let asked = put(json!({"name": "gold", "four_eyes": false})).await;
    let it = id(&asked);
    assert_eq!(
        (&asked.body["approval"]["pool"], &asked.body["approval"]["node"]),
        (&json!("gold"), &Value::Null)
    );
    assert!(open().await);
    assert_eq!(lab.decide(&olga, &it, "approve").await.code(), (403, "same-person"));
    let page = lab.get(&format!("/approvals/{it}")).await;
    assert!(page.body.as_str().unwrap().contains("switch four eyes off for pool gold"), "{page:?}");
    // Changed meanwhile: what was asked for would undo that.
    assert_eq!(put(json!({"name": "gold", "four_eyes": true})).await.status, 200);
    lab.decide(&omar, &it, "approve").await;
    assert_eq!(lab.until_over(&it).await["status"], "stale");
    let it = id(&put(json!({"name": "gold", "four_eyes": false})).await);
    assert_eq!(lab.decide(&omar, &it, "approve").await.status, 200);
    assert_eq!(lab.until_over(&it).await["status"], "done");
    assert!(!open().await);
    // Nor is the form of the page a way around, nor another pool.
    assert_eq!(put(json!({"name": "gold", "four_eyes": true})).await.status, 200);
    let moved = lab.with(&olga, Method::PUT, "/api/v1/nodes/alpha/pool", json!({"pool": "default"})).await;
    assert_eq!(moved.status, 202, "{moved:?}");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let bearer = format!("Bearer {olga}");
    let headers = [("authorization", bearer.as_str()), form[0]];
    let saved = lab.send_as(Method::POST, "/pools", &headers, b"edit=1&name=gold&offered=all".to_vec()).await;
    assert!(
        saved.status == 303 && saved.headers["location"].to_str().unwrap().starts_with("/approvals/"),
        "{saved:?}"
    );
    assert!(open().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_approve_what_would_be_refused() {
    let lab = Lab::with_config(|config| config.approvals.all_nodes = true).await;
    let olga = lab.token("olga", "operator").await;
    for (path, body, code) in [
        ("beta/delete", json!({"confirm": "bet"}), "confirm-missing"),
        ("beta/delete", json!({"wipe": [], "confirm": "beta", "more": 1}), "body"),
        ("alpha/deploy", json!({"image": "none", "confirm": "alpha"}), "image-not-found"),
        ("alpha/power", json!({"action": "explode"}), "body"),
        ("gamma/delete", json!({"wipe": [], "confirm": "gamma"}), "wrong-state"),
    ] {
        let got = lab.with(&olga, Method::POST, &format!("/api/v1/nodes/{path}"), body.clone()).await;
        assert_eq!(got.code().1, code, "{path} {body}: {got:?}");
    }
    assert_eq!(lab.waiting().await, 0);
    // A version that was not looked at is told as well; a key of one's own does not store what was not done.
    let bearer = format!("Bearer {olga}");
    let ask = async |name: &'static str, value: &'static str| {
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), (name, value)];
        let body = json!({"wipe": [], "confirm": "beta"}).to_string().into_bytes();
        lab.send_as(Method::POST, "/api/v1/nodes/beta/delete", &headers, body).await
    };
    assert_eq!(ask("if-match", "\"99\"").await.status, 412);
    let first = id(&ask("idempotency-key", "k1").await);
    assert_eq!(id(&ask("idempotency-key", "k1").await), first);
    assert_eq!((lab.waiting().await, lab.state("beta").await.as_str()), (1, "active"));
}
