//! Nodes and their verbs.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Lab, TOKEN, raw_disk};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_searched_and_paged() {
    let lab = Lab::new().await;
    let names = |body: &Value| {
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = lab.get("/api/v1/nodes").await;
    assert_eq!(names(&all.body), ["alpha", "beta", "gamma"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?state=active").await.body), ["beta"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?q=sn-GAM").await.body), ["gamma"]);
    assert_eq!(names(&lab.get("/api/v1/nodes?q=52:54:00:00:00:01").await.body), ["alpha"]);
    let first = lab.get("/api/v1/nodes?limit=2").await;
    assert_eq!((names(&first.body).len(), first.body["next"].as_str()), (2, Some("beta")));
    assert_eq!(names(&lab.get("/api/v1/nodes?limit=2&cursor=beta").await.body), ["gamma"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "state=flying", "colour=blue"] {
        assert_eq!(lab.get(&format!("/api/v1/nodes?{bad}")).await.code(), (400, "query"), "{bad}");
    }
    let shown = lab.get("/api/v1/nodes/alpha").await;
    assert_eq!(shown.body["inventory"]["disks"].as_array().unwrap().len(), 3);
    for missing in ["delta", "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "00000000-0000-0000-0000-0000000000ff"] {
        assert_eq!(
            lab.get(&format!("/api/v1/nodes/{missing}")).await.code(),
            (404, "node-not-found"),
            "{missing}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_strictly() {
    let lab = Lab::new().await;
    let typo = lab.post("/api/v1/nodes/alpha/deploy", json!({"image": "x", "confrim": "alpha"})).await;
    assert_eq!(typo.code(), (400, "body"));
    assert!(typo.body["message"].as_str().unwrap().contains("unknown field `confrim`"), "{typo:?}");
    assert_eq!(lab.post("/api/v1/nodes/alpha/manage", json!({"force": true})).await.code(), (400, "body"));
    assert_eq!(lab.post("/api/v1/nodes/alpha/deploy", json!({})).await.code(), (400, "body"), "no image");
    let text = lab.send(
        Method::POST,
        "/api/v1/nodes/alpha/manage",
        &[("content-type", "text/plain")],
        b"{}".to_vec(),
    );
    assert_eq!(text.await.code(), (415, "content-type"));
    let big = json!({"reason": "x".repeat(1 << 20)});
    assert_eq!(lab.post("/api/v1/nodes/alpha/maintenance", big).await.status, 413);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes();
    let got = lab
        .send(Method::POST, "/api/v1/nodes/alpha/rename", &[("content-type", "application/json")], deep)
        .await;
    assert_eq!(got.code(), (400, "body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_does_not_fit_says_what_does() {
    let lab = Lab::new().await;
    let got = lab.post("/api/v1/nodes/beta/manage", json!({})).await;
    assert_eq!(got.code(), (409, "wrong-state"));
    assert_eq!(got.body["message"], "cannot manage a node that is active");
    assert!(!got.body["hint"].as_str().unwrap().is_empty());
    assert_eq!(lab.post("/api/v1/nodes/alpha/abort", json!({})).await.status, 409);
    let managed = lab.send(Method::POST, "/api/v1/nodes/alpha/manage", &[], Vec::new()).await;
    assert_eq!(
        (managed.status, managed.body["state"].as_str()),
        (200, Some("manageable")),
        "no body is {{}}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wiping_needs_the_name_and_disks_that_are_there() {
    let lab = Lab::new().await;
    lab.post("/api/v1/nodes/alpha/manage", json!({})).await;
    let provide = |body: Value| lab.post("/api/v1/nodes/alpha/provide", body);
    assert_eq!(provide(json!({"wipe": ["serial:S1"]})).await.code(), (422, "confirm-missing"));
    assert_eq!(
        provide(json!({"wipe": ["serial:S1"], "confirm": "beta"})).await.code(),
        (422, "confirm-missing")
    );
    let missing = provide(json!({"wipe": ["serial:S9"], "confirm": "alpha"})).await;
    assert_eq!(missing.code(), (422, "disk-not-found"));
    let stick = provide(json!({"wipe": ["serial:STICK"], "confirm": "alpha"})).await;
    assert_eq!(stick.code(), (422, "disk-refused"));
    assert_eq!(provide(json!({"wipe": ["/dev/sda"], "confirm": "alpha"})).await.code(), (400, "body"));
    let done = provide(json!({"wipe": ["serial:S1", "serial:S1"], "confirm": "alpha"})).await;
    assert_eq!((done.status, done.body["state"].as_str()), (200, Some("cleaning")), "{done:?}");
    let delete = |body: Value| lab.post("/api/v1/nodes/beta/delete", body);
    assert_eq!(delete(json!({})).await.code(), (422, "confirm-missing"), "by default the disk with its OS");
    let done = delete(json!({"confirm": "beta"})).await;
    assert_eq!((done.status, done.body["state"].as_str()), (200, Some("deleting")), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_maintenance() {
    let lab = Lab::new().await;
    let rename = |name: &str| lab.post("/api/v1/nodes/gamma/rename", json!({ "name": name }));
    assert_eq!(rename("alpha").await.code(), (409, "name-taken"));
    assert_eq!(rename("../x").await.code(), (422, "bad-name"));
    assert_eq!(rename("rack-1").await.body["name"], "rack-1");
    let maintain = |body: Value| lab.post("/api/v1/nodes/alpha/maintenance", body);
    assert_eq!(maintain(json!({"reason": " "})).await.code(), (422, "reason"));
    assert_eq!(maintain(json!({"reason": "new fan"})).await.body["maintenance"], "new fan");
    assert_eq!(lab.post("/api/v1/nodes/alpha/manage", json!({})).await.code(), (409, "maintenance"));
    assert_eq!(maintain(json!({"reason": null})).await.body["maintenance"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_is_previewed_confirmed_and_done_once() {
    let lab = Lab::new().await;
    let added = lab.upload("name=debian-12&version=1&default_user=debian", raw_disk(1)).await;
    assert_eq!(added.status, 201, "{added:?}");
    let mut request = json!({
        "image": "debian-12",
        "disk": {"id": "serial:S1"},
        "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh5cG90aGV0aWNhbGtleWZvcmF0ZXN0b25seTEyMzQ1 me"],
    });
    let preview = lab.post("/api/v1/nodes/alpha/deploy/preview", request.clone()).await;
    assert_eq!(preview.body["target"], "serial:S1", "{preview:?}");
    assert_eq!(preview.body["refused"], Value::Null);
    let erased: Vec<bool> =
        preview.body["disks"].as_array().unwrap().iter().map(|d| d["erased"].as_bool().unwrap()).collect();
    assert_eq!(erased, [true, false, false]);
    let only = json!({"image": "debian-12"});
    let refused = lab.post("/api/v1/nodes/alpha/deploy/preview", only).await;
    assert_eq!(refused.body["refused"]["code"], "disk-ambiguous");
    let unconfirmed = lab.post("/api/v1/nodes/alpha/deploy", request.clone()).await;
    assert_eq!(unconfirmed.code(), (422, "confirm-missing"));
    assert_eq!(lab.get("/api/v1/nodes/alpha").await.body["state"], "available", "nothing has changed");
    request["confirm"] = json!("alpha");
    let deploy = |request: &Value, key: &'static str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = request.to_string().into_bytes();
        let lab = &lab;
        async move { lab.send(Method::POST, "/api/v1/nodes/alpha/deploy", &headers, body).await }
    };
    let first = deploy(&request, "k1").await;
    assert_eq!((first.status, first.body["state"].as_str()), (200, Some("deploying")), "{first:?}");
    let again = deploy(&request, "k1").await;
    assert_eq!((again.status, &again.body["job"]["id"]), (200, &first.body["job"]["id"]));
    request["hostname"] = json!("other");
    assert_eq!(deploy(&request, "k1").await.code(), (422, "idempotency-key-reused"));
    assert_eq!(deploy(&request, "k2").await.code(), (409, "wrong-state"));
    let removed = lab.send(Method::DELETE, "/api/v1/images/debian-12", &[], Vec::new()).await;
    assert_eq!(removed.code(), (409, "image-in-use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_paged_and_streamed_without_gaps() {
    let lab = Lab::new().await;
    for n in 0..5 {
        lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": format!("r{n}")})).await;
    }
    let page = lab.get("/api/v1/events?node=alpha&limit=2").await;
    let items = page.body["items"].as_array().unwrap();
    assert!(items[0]["id"].as_i64() > items[1]["id"].as_i64(), "newest first");
    let next = page.body["next"].as_str().unwrap();
    let second = lab.get(&format!("/api/v1/events?node=alpha&limit=2&cursor={next}")).await;
    assert_eq!(second.body["items"][0]["id"].as_i64(), items[1]["id"].as_i64().map(|id| id - 1));
    assert_eq!(lab.get("/api/v1/events?cursor=bogus").await.code(), (400, "query"));

    let first = lab.get("/api/v1/events?after=0&limit=1").await.body["items"][0]["id"].as_i64().unwrap();
    let url = lab.url("/api/v1/events/stream");
    let reading = tokio::task::spawn_blocking(move || {
        let response = ureq::get(url)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("last-event-id", first.to_string())
            .call()
            .unwrap();
        let mut ids = Vec::new();
        for line in BufReader::new(response.into_body().into_reader().take(1 << 20)).lines() {
            let Ok(line) = line else { break };
            if let Some(id) = line.strip_prefix("id:") {
                ids.push(id.trim().parse::<i64>().unwrap());
            }
            if ids.len() == 6 {
                break;
            }
        }
        ids
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for n in 5..7 {
        lab.post("/api/v1/nodes/alpha/maintenance", json!({"reason": format!("r{n}")})).await;
    }
    assert_eq!(reading.await.unwrap(), (first + 1..first + 7).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_announced_before_it_boots() {
    let lab = Lab::new().await;
    let body = json!({"name": "rack-7", "macs": ["52:54:00:77:00:01"], "uuid": "4c4c4544-0042-3510-8052-b4c04f477777",
        "serial": "S-7", "place": {"rack": "R7", "unit": 3}});
    let made = lab.post("/api/v1/nodes", body.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((&made.body["state"], &made.body["place"]["rack"]), (&json!("enroll"), &json!("R7")));
    let location = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(lab.get(&location).await.body["name"], "rack-7");
    // The same machine again, by its address alone; the name again for another one.
    assert_eq!(lab.post("/api/v1/nodes", body).await.code(), (409, "node-known"));
    let other = json!({"name": "rack-7", "macs": ["52:54:00:77:00:02"]});
    assert_eq!(lab.post("/api/v1/nodes", other).await.code(), (409, "name-taken"));
    for (body, code) in [
        (json!({"name": "x"}), (422, "no-identity")),
        (json!({"name": "a.b", "macs": ["52:54:00:77:00:03"]}), (422, "bad-name")),
        (json!({"macs": ["52:54:00:77:00:03"], "state": "active"}), (400, "body")),
        (json!({"macs": ["52:54:00:77:00:03"], "place": {"unit": 4}}), (422, "bad-place")),
        (json!({"macs": ["52:54:00:77:00:03"], "serial": "a\nb"}), (400, "query")),
    ] {
        assert_eq!(lab.post("/api/v1/nodes", body.clone()).await.code(), code, "{body}");
    }
    let events = lab.get("/api/v1/events?node=rack-7").await;
    assert_eq!(events.body["items"][0]["kind"], "node.enrolled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_filters_fields_and_a_tag() {
    let lab = Lab::new().await;
    let whole = lab.get("/api/v1/nodes").await;
    let tag = whole.headers["etag"].to_str().unwrap().to_owned();
    let same = lab.send(Method::GET, "/api/v1/nodes", &[("if-none-match", &tag)], Vec::new()).await;
    assert_eq!(same.status, 304);
    let made = lab
        .post(
            "/api/v1/nodes",
            json!({"name": "zulu", "macs": ["52:54:00:77:00:01"], "place": {"rack": "R7"}}),
        )
        .await;
    assert_eq!(made.status, 201);
    let other = lab.send(Method::GET, "/api/v1/nodes", &[("if-none-match", &tag)], Vec::new()).await;
    assert_eq!(other.status, 200, "the list is another one");
    let some = lab.get("/api/v1/nodes?rack=R7&fields=name,state").await;
    assert_eq!(some.body["items"], json!([{"name": "zulu", "state": "enroll"}]));
    assert_eq!(lab.get("/api/v1/nodes?fields=name,colour").await.code(), (400, "query"));
    assert_eq!(lab.get("/api/v1/nodes?maintenance=true").await.body["items"], json!([]));
    // Pages join, also through a filter.
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = lab.get(&format!("/api/v1/nodes?limit=1&fields=name{cursor}")).await;
        names.extend(
            page.body["items"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()),
        );
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let all: Vec<_> =
        other.body["items"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, all);
    assert!(names.is_sorted() && names.len() > 2, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_meant_for_what_was_seen() {
    let lab = Lab::new().await;
    let seen = lab.get("/api/v1/nodes/alpha").await;
    let tag = seen.headers["etag"].to_str().unwrap().to_owned();
    let same = lab.send(Method::GET, "/api/v1/nodes/alpha", &[("if-none-match", &tag)], Vec::new()).await;
    assert_eq!(same.status, 304);
    let json = ("content-type", "application/json");
    let put = |path: &'static str, tag: String, body: Value| {
        let (lab, body) = (&lab, body.to_string().into_bytes());
        async move {
            let method = if path.ends_with("place") { Method::PUT } else { Method::POST };
            lab.send(method, path, &[json, ("if-match", &tag)], body).await
        }
    };
    let place = "/api/v1/nodes/alpha/place";
    assert_eq!(put(place, tag.clone(), json!({"rack": "R1"})).await.status, 200);
    let stale = put(place, tag.clone(), json!({"rack": "R2"})).await;
    assert_eq!(stale.code(), (412, "precondition-failed"));
    let newer = stale.headers["etag"].to_str().unwrap().to_owned();
    assert_ne!(newer, tag);
    let rename = "/api/v1/nodes/alpha/rename";
    assert_eq!(put(rename, tag, json!({"name": "other"})).await.status, 412, "a verb is about its node");
    assert_eq!(lab.get("/api/v1/nodes/alpha").await.body["place"]["rack"], "R1");
    // Of many that saw the same, one changes it.
    let all = (0..8).map(|n| put(place, newer.clone(), json!({"rack": format!("R1{n}")})));
    let all = futures_util::future::join_all(all).await;
    let done = all.iter().filter(|got| got.status == 200).count();
    assert_eq!(done, 1, "{:?}", all.iter().map(|got| got.status).collect::<Vec<_>>());
    assert!(all.iter().all(|got| [200, 412].contains(&got.status)));
    assert_eq!(put(rename, "*".to_owned(), json!({"name": "other"})).await.status, 200);
    assert_eq!(put("/api/v1/nodes/nobody/rename", "*".to_owned(), json!({"name": "x"})).await.status, 412);
    // Objects without a row of their own have tags by what is shown.
    let baseline = json!({"name": "b1", "bios": {"BootMode": "Uefi"}});
    let made = lab.post("/api/v1/baselines", baseline).await;
    if made.status == 201 {
        let seen = lab.get("/api/v1/baselines/b1").await;
        let tag = seen.headers["etag"].to_str().unwrap().to_owned();
        let gone = |tag: String| {
            let lab = &lab;
            async move {
                lab.send(Method::DELETE, "/api/v1/baselines/b1", &[("if-match", &tag)], Vec::new())
                    .await
                    .status
            }
        };
        assert_eq!(gone("\"0\"".to_owned()).await, 412);
        assert_eq!(gone(tag).await, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_something_makes_it_once() {
    let lab = Lab::new().await;
    let json = ("content-type", "application/json");
    let post = |path: &'static str, key: &'static str, body: Value| {
        let (lab, body) = (&lab, body.to_string().into_bytes());
        async move { lab.send(Method::POST, path, &[json, ("idempotency-key", key)], body).await }
    };
    let body = json!({"macs": ["52:54:00:77:00:01"]});
    let first = post("/api/v1/nodes", "k1", body.clone()).await;
    let again = post("/api/v1/nodes", "k1", body.clone()).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!((&first.body, &first.headers["location"]), (&again.body, &again.headers["location"]));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(post("/api/v1/nodes", "k2", body.clone()).await.code(), (409, "node-known"));
    let other = json!({"macs": ["52:54:00:77:00:09"]});
    assert_eq!(post("/api/v1/nodes", "k1", other.clone()).await.code(), (422, "idempotency-key-reused"));
    // A refusal is not kept: the same key can be tried again.
    assert_eq!(post("/api/v1/nodes", "k3", json!({"name": "x"})).await.status, 422);
    assert_eq!(post("/api/v1/nodes", "k3", other).await.status, 201);
    assert_eq!(post("/api/v1/nodes", "", body).await.code(), (400, "idempotency-key"));
    // A token's text is shown again under its key, and is not in the database as it is.
    let token = json!({"name": "robot", "role": "reader"});
    let first = post("/api/v1/tokens", "k4", token.clone()).await;
    let again = post("/api/v1/tokens", "k4", token).await;
    assert_eq!((first.status, &first.body["secret"]), (201, &again.body["secret"]));
    let secret = first.body["secret"].as_str().unwrap().to_owned();
    for file in ["billet.db", "billet.db-wal"] {
        let bytes = std::fs::read(lab.dir.join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{file} holds a token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_verb_for_many_nodes() {
    let lab = Lab::new().await;
    let names = json!(["alpha", "beta", "nobody"]);
    let done = lab
        .post("/api/v1/nodes/actions", json!({"verb": "maintenance", "reason": "disks", "nodes": names}))
        .await;
    assert_eq!(
        (done.status, &done.body["done"], &done.body["refused"]),
        (200, &json!(2), &json!(1)),
        "{done:?}"
    );
    let results = done.body["results"].as_array().unwrap();
    assert_eq!(
        results.iter().map(|r| r["node"].as_str().unwrap()).collect::<Vec<_>>(),
        ["alpha", "beta", "nobody"]
    );
    assert_eq!(results[2]["refused"]["code"], "node-not-found");
    assert_eq!(
        lab.get("/api/v1/nodes?maintenance=true&fields=name").await.body["items"].as_array().unwrap().len(),
        2
    );
    let found = lab
        .post(
            "/api/v1/nodes/actions",
            json!({"verb": "maintenance", "filter": {"maintenance": true}, "dry_run": true}),
        )
        .await;
    assert_eq!(found.body["done"], 2);
    assert_eq!(
        lab.get("/api/v1/nodes?maintenance=true").await.body["items"].as_array().unwrap().len(),
        2,
        "a dry run"
    );
    let ended = lab
        .post("/api/v1/nodes/actions", json!({"verb": "maintenance", "filter": {"maintenance": true}}))
        .await;
    assert_eq!(ended.body["done"], 2);
    for (body, code) in [
        (json!({"verb": "maintenance"}), (422, "actions")),
        (json!({"verb": "power", "nodes": ["alpha"]}), (422, "actions")),
        (json!({"verb": "delete", "nodes": ["alpha"]}), (400, "body")),
        (json!({"verb": "manage", "nodes": vec!["alpha"; 1001]}), (400, "query")),
        (json!({"verb": "manage", "filter": {"state": "flying"}}), (400, "query")),
    ] {
        assert_eq!(lab.post("/api/v1/nodes/actions", body.clone()).await.code(), code, "{body}");
    }
}
