//! Pools, flavors, placement, groups, catalogue and racks over the API.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab};

async fn send(lab: &Lab, method: Method, path: &str, body: Value) -> Got {
    let json = [("content-type", "application/json")];
    lab.send(method, &format!("/api/v1/{path}"), &json, body.to_string().into_bytes()).await
}

async fn put(lab: &Lab, path: &str, body: Value) -> Got {
    send(lab, Method::PUT, path, body).await
}

async fn post(lab: &Lab, path: &str, body: Value) -> Got {
    send(lab, Method::POST, path, body).await
}

async fn get(lab: &Lab, path: &str) -> Got {
    lab.get(&format!("/api/v1/{path}")).await
}

async fn delete(lab: &Lab, path: &str) -> Got {
    send(lab, Method::DELETE, path, json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_made_changed_and_removed() {
    let lab = Lab::new().await;
    let list = get(&lab, "pools").await;
    assert_eq!(list.body["items"][0]["name"], "default");
    assert_eq!(list.body["items"][0]["nodes"], 3);
    let made = post(&lab, "pools", json!({ "name": "gold", "four_eyes": true })).await;
    assert_eq!(
        (made.status, &made.body["offered"], &made.body["four_eyes"]),
        (201, &json!("all"), &json!(true))
    );
    assert_eq!(post(&lab, "pools", json!({ "name": "gold" })).await.code(), (409, "name-taken"));
    assert_eq!(post(&lab, "pools", json!({ "name": "Gold!" })).await.code(), (400, "body"));
    let sneaky = post(&lab, "pools", json!({ "name": "a", "changed": 1 })).await;
    assert_eq!(sneaky.code(), (400, "body"), "the server's own word");
    let closed = put(&lab, "pools/gold", json!({ "name": "gold" })).await;
    assert_eq!(closed.status, 202, "four eyes are closed by two: {closed:?}");
    assert_eq!(delete(&lab, "pools/gold").await.status, 204);
    assert_eq!(post(&lab, "pools", json!({ "name": "gold" })).await.status, 201);
    let idle = json!({ "off_after_minutes": 30 });
    let changed = put(&lab, "pools/gold", json!({ "name": "gold", "idle": idle })).await;
    assert_eq!(
        (changed.status, &changed.body["idle"], &changed.body["four_eyes"]),
        (200, &idle, &json!(false))
    );
    assert_eq!(put(&lab, "pools/gold", json!({ "name": "silver" })).await.code(), (422, "other-name"));
    let idle = json!({ "off_after_minutes": 0 });
    assert_eq!(
        put(&lab, "pools/gold", json!({ "name": "gold", "idle": idle })).await.code(),
        (422, "bad-pool")
    );
    assert_eq!(put(&lab, "pools/tin", json!({ "name": "tin" })).await.code(), (404, "pool-not-found"));

    let moved = put(&lab, "nodes/alpha/pool", json!({ "pool": "gold" })).await;
    assert_eq!((moved.status, &moved.body["pool"]), (200, &json!("gold")));
    assert_eq!(put(&lab, "nodes/alpha/pool", json!({ "pool": "tin" })).await.code(), (404, "pool-not-found"));
    assert_eq!(delete(&lab, "pools/gold").await.code(), (409, "in-use"));
    assert_eq!(get(&lab, "pools/gold").await.body["nodes"], 1);
    assert_eq!(put(&lab, "nodes/alpha/pool", json!({ "pool": null })).await.body["pool"], "default");
    assert_eq!(delete(&lab, "pools/gold").await.status, 204);
    assert_eq!(delete(&lab, "pools/default").await.code(), (409, "default-pool"));
    let events = get(&lab, "events?limit=100").await;
    let kinds: Vec<_> = events.body["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    for kind in ["pool.created", "pool.changed", "pool.removed", "node.pool"] {
        assert!(kinds.contains(&json!(kind)), "{kind} in {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flavors_count_machines_and_placement_says_why_not() {
    let lab = Lab::new().await;
    let flavor =
        json!({ "name": "c4", "rules": { "cores": { "min": 4 }, "disks": [{ "gib": { "min": 9 } }] } });
    let made = post(&lab, "flavors", flavor).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["counts"], json!({ "cores": 4, "memory_mib": 0, "disks": 1, "disk_gib": 9 }));
    let numbers = |it: &Value| ["free", "used", "total"].map(|key| it[key].as_u64().unwrap());
    assert_eq!(
        numbers(&made.body["capacity"]),
        [1, 0, 2],
        "alpha is free, beta runs an OS, gamma is not known"
    );
    assert_eq!(numbers(&made.body["capacity"]["pools"][0]), [1, 0, 2]);
    let wrong = json!({ "name": "c5", "rules": { "cores": { "min": 2, "max": 1 } } });
    assert_eq!(post(&lab, "flavors", wrong).await.code(), (422, "bad-flavor"));
    let wrong = json!({ "name": "c5", "pools": ["tin"] });
    assert_eq!(post(&lab, "flavors", wrong).await.code(), (404, "pool-not-found"));

    let one = post(&lab, "placements", json!({ "flavor": "c4" })).await;
    assert_eq!(
        (one.status, &one.body["placed"], &one.body["nodes"][0]["name"]),
        (200, &json!(true), &json!("alpha"))
    );
    let two = post(&lab, "placements", json!({ "flavor": "c4", "count": 2 })).await;
    assert_eq!((&two.body["placed"], &two.body["nodes"]), (&json!(false), &json!([])));
    let why: Vec<_> = two.body["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["name"].as_str().unwrap(), r["reasons"][0]["words"].as_str().unwrap()))
        .collect();
    assert_eq!(
        why,
        [
            ("alpha", "it fits, but 2 are wanted and 1 fit"),
            ("beta", "it is active, not available"),
            ("gamma", "it is enroll, not available")
        ]
    );
    assert_eq!(two.body["reasons"], json!({ "too_few": 1, "state": 2, "flavor": 1 }));
    let apart = json!({ "flavor": "c4", "policy": "anti-affinity" });
    let rejected = post(&lab, "placements", apart).await.body["rejected"].clone();
    assert_eq!(rejected[0]["reasons"][0]["code"], "group", "nobody said in which rack it stands");
    assert_eq!(post(&lab, "placements", json!({})).await.code(), (422, "bad-placement"));
    assert_eq!(post(&lab, "placements", json!({ "flavor": "x" })).await.code(), (404, "flavor-not-found"));
    assert_eq!(
        post(&lab, "placements", json!({ "flavor": "c4", "count": 0 })).await.code(),
        (422, "bad-placement")
    );
    let project = json!({ "flavor": "c4", "project": "pink" });
    assert_eq!(post(&lab, "placements", project).await.code(), (404, "project-not-found"));

    let tags = put(&lab, "nodes/alpha/tags", json!({ "tags": ["new", "owner=pay"] })).await;
    assert_eq!(tags.body["tags"], json!(["new", "owner=pay"]));
    assert_eq!(put(&lab, "nodes/alpha/tags", json!({ "tags": ["<b>"] })).await.code(), (400, "body"));
    let many: Vec<String> = (0..33).map(|n| format!("t{n}")).collect();
    assert_eq!(put(&lab, "nodes/alpha/tags", json!({ "tags": many })).await.code(), (422, "tags"));
    let tagged = json!({ "name": "c4", "rules": { "required_tags": ["new"] }, "withdrawn": true });
    assert_eq!(numbers(&put(&lab, "flavors/c4", tagged).await.body["capacity"]), [1, 0, 1]);
    assert_eq!(delete(&lab, "flavors/c4").await.status, 204);
    assert_eq!(get(&lab, "flavors/c4").await.code(), (404, "flavor-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_has_groups_and_a_catalogue_of_its_own() {
    let lab = Lab::new().await;
    lab.project("red").await;
    lab.project("blue").await;
    let red = lab.project_token("red", "t-red", "member").await;
    let reader = lab.project_token("red", "t-reader", "reader").await;
    let groups = "/api/v1/projects/red/server-groups";
    let group = json!({ "name": "db", "policy": "anti-affinity", "domain": "power_feed" });
    let made = lab.with(&red, Method::POST, groups, group.clone()).await;
    assert_eq!((made.status, &made.body["domain"]), (201, &json!("power_feed")), "{made:?}");
    assert_eq!(lab.with(&red, Method::POST, groups, group.clone()).await.code(), (409, "name-taken"));
    assert_eq!(lab.with(&reader, Method::POST, groups, group).await.code(), (403, "role"));
    let id = made.body["id"].as_str().unwrap();
    for reference in ["db", id] {
        let path = format!("{groups}/{reference}");
        assert_eq!(lab.with(&reader, Method::GET, &path, json!({})).await.body["name"], "db");
        let other = format!("/api/v1/projects/blue/server-groups/{reference}");
        assert_eq!(lab.get(&other).await.code(), (404, "group-not-found"), "another project's");
    }
    assert_eq!(lab.with(&red, Method::DELETE, &format!("{groups}/db"), json!({})).await.status, 204);
    assert_eq!(lab.get(groups).await.body["items"], json!([]));

    let blue = lab.get("/api/v1/projects/blue").await.body["id"].clone();
    let gold = json!({ "name": "gold", "offered": { "projects": [blue] } });
    assert_eq!(post(&lab, "pools", gold).await.status, 201);
    put(&lab, "nodes/alpha/pool", json!({ "pool": "gold" })).await;
    post(&lab, "flavors", json!({ "name": "any" })).await;
    post(&lab, "flavors", json!({ "name": "gold-only", "pools": ["gold"] })).await;
    post(&lab, "flavors", json!({ "name": "gone", "withdrawn": true })).await;
    let catalogue = async |project: &str| {
        let got = lab.get(&format!("/api/v1/projects/{project}/catalogue")).await;
        let flavors = got.body["flavors"].as_array().unwrap().clone();
        flavors
            .iter()
            .map(|f| {
                format!(
                    "{} {}/{}",
                    f["name"].as_str().unwrap(),
                    f["capacity"]["free"],
                    f["capacity"]["total"]
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(catalogue("red").await, ["any 0/1"], "no word of a pool that is not offered to it");
    assert_eq!(catalogue("blue").await, ["any 1/2", "gold-only 1/1"]);
    let asked = json!({ "flavor": "any", "project": "red" });
    let rejected = post(&lab, "placements", asked).await.body["rejected"][0]["reasons"][0].clone();
    assert_eq!(rejected["words"], "its pool gold is not offered to this project");
}

#[tokio::test(flavor = "multi_thread")]
async fn racks_are_seen_by_room() {
    let lab = Lab::new().await;
    let place = async |node: &str, body| put(&lab, &format!("nodes/{node}/place"), body).await;
    let full = json!({ "rack": "R1", "unit": 3, "height": 2, "room": "hall <1>", "power_feed": "A" });
    assert_eq!(place("alpha", full.clone()).await.body["place"], full);
    place("beta", json!({ "rack": "R1", "unit": 4, "room": "hall <1>" })).await;
    assert_eq!(place("gamma", json!({ "room": "hall" })).await.code(), (422, "bad-place"));
    let rooms = get(&lab, "rooms").await.body["items"].clone();
    assert_eq!(rooms, json!([{ "room": "hall <1>", "racks": 1, "nodes": 2, "trouble": 0 }]));
    let racks = get(&lab, "racks?room=hall%20%3C1%3E").await.body["items"].clone();
    let rack = &racks[0];
    assert_eq!((&rack["rack"], &rack["units"]), (&json!("R1"), &json!(42)));
    let seen: Vec<_> = rack["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["name"].clone(), n["overlaps"].clone()))
        .collect();
    assert_eq!(seen, [(json!("beta"), json!(true)), (json!("alpha"), json!(true))]);
    assert_eq!(get(&lab, "racks").await.body["items"], json!([]), "none without a room");
    assert_eq!(get(&lab, "racks?rooms=1").await.code(), (400, "query"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_pools_flavors_placement_and_racks() {
    let lab = Lab::new().await;
    let form = async |path: &str, body: &str| {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        lab.send(Method::POST, path, &kind, body.as_bytes().to_vec()).await
    };
    let page = async |path: &str| lab.get(path).await.body.to_string();
    assert_eq!(form("/pools", "name=gold&offered=some&projects=&idle=30&base=5").await.status, 303);
    let pools = page("/pools?edit=gold").await;
    assert!(pools.contains("off after 30 min") && pools.contains("nobody"), "{pools}");
    assert_eq!(form("/pools", "edit=1&name=gold&offered=all&idle=").await.status, 303);
    assert_eq!(get(&lab, "pools/gold").await.body["offered"], "all");
    assert_eq!(form("/pools", "name=gold&idle=x").await.status, 422);
    let made = form(
        "/flavors",
        "name=c4&cores=4..&disks=any%2C9..%2C1..%0D%0A&required_tags=&pools=&description=%3Cb%3Esmall",
    )
    .await;
    assert_eq!(made.status, 303, "{made:?}");
    let flavors = page("/flavors").await;
    assert!(flavors.contains("&#60;b&#62;small") && !flavors.contains("<b>small"), "inert: {flavors}");
    assert!(flavors.contains("at least 4 cores"), "{flavors}");
    assert!(page("/flavors?edit=c4").await.contains("any,9..,1.."));
    assert_eq!(form("/flavors", "edit=1&name=c4&cores=many").await.status, 422);
    let tried = page("/placement?flavor=c4&count=2&policy=anti-affinity&domain=rack").await;
    assert!(
        tried.contains("Would not be placed") && tried.contains("it is not known in which rack it is"),
        "{tried}"
    );
    assert!(page("/placement?flavor=c4&count=1").await.contains("Would be placed"));

    let full = json!({ "rack": "R<1>", "unit": 3, "height": 2, "room": "hall 1" });
    put(&lab, "nodes/alpha/place", full).await;
    put(&lab, "nodes/beta/place", json!({ "rack": "R2", "room": "hall 1" })).await;
    let racks = page("/racks").await;
    assert!(racks.contains("R&#60;1&#62;") && !racks.contains("R<1>"), "inert: {racks}");
    assert!(
        racks.contains("alpha, available, power not known") && racks.contains("Unit not known"),
        "{racks}"
    );
    let one = page("/racks?room=hall%201&q=beta").await;
    assert!(one.contains("1 of 1 rack") && !one.contains("alpha, available"), "{one}");
    assert!(page("/racks?room=hall%201&trouble=1").await.contains("No such rack"));
    assert_eq!(form("/flavors/c4/remove", "").await.status, 303);
    assert_eq!(form("/pools/gold/remove", "").await.status, 303);
    assert_eq!(form("/pools/default/remove", "").await.status, 409);
}
