//! Pages of a project's networks: a form does what the API does, who may only look sees no form, and nobody sees another project's.

use serde_json::{Value, json};
use ureq::http::Method;

use super::lab::{Got, Lab, raw_disk};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A project with somebody who changes things and somebody who looks, another project, and a network of the site.
struct Site {
    lab: Lab,
    member: String,
    reader: String,
    blue: String,
}

impl Site {
    async fn new() -> Self {
        let lab = Lab::new().await;
        lab.project("red").await;
        lab.project("blue").await;
        let public = json!({ "name": "public", "physical": "outside", "shared": true });
        assert_eq!(lab.post("/api/v1/networks", public).await.status, 201);
        let subnet = json!({ "cidr": "203.0.113.0/24" });
        assert_eq!(lab.post("/api/v1/networks/public/subnets", subnet).await.status, 201);
        let member = lab.project_token("red", "ada", "member").await;
        let reader = lab.project_token("red", "eve", "reader").await;
        let blue = lab.project_token("blue", "bob", "member").await;
        Self { lab, member, reader, blue }
    }

    async fn page(&self, token: &str, path: &str) -> Got {
        self.lab.with(token, Method::GET, path, Value::Null).await
    }

    async fn form(&self, token: &str, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), FORM];
        self.lab.send_as(Method::POST, path, &headers, body.as_bytes().to_vec()).await
    }

    /// A form that is taken, and where it leads.
    async fn sent(&self, path: &str, body: &str) -> String {
        let got = self.form(&self.member, path, body).await;
        assert_eq!(got.status, 303, "{path} {body}: {got:?}");
        got.headers["location"].to_str().unwrap().to_owned()
    }

    async fn items(&self, what: &str) -> Vec<Value> {
        let got = self.lab.get(&format!("/api/v1/projects/red/{what}")).await;
        got.body["items"].as_array().cloned().unwrap_or_default()
    }
}

fn text(got: &Got) -> &str {
    got.body.as_str().unwrap_or_default()
}

fn id(item: &Value) -> &str {
    item["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_made_joined_and_led_out_on_pages() {
    let it = Site::new().await;
    let page = it.sent("/my/red/networks", "name=blue&cidr=10.0.0.0/24&dns=10.0.0.53&mtu=").await;
    // Of a network whose subnet cannot be nothing is left.
    let wrong = it.form(&it.member, "/my/red/networks", "name=green&cidr=10.0.0.1/24").await;
    assert!(wrong.status == 422 && text(&wrong).contains("value=\"green\""), "{wrong:?}");
    let wide = it.form(&it.member, "/my/red/networks", "name=green&cidr=10.1.0.0/24&mtu=99999").await;
    assert_eq!(wide.status, 422, "{wide:?}");
    assert_eq!(it.items("networks").await.len(), 2, "the site's and blue");
    it.sent(&format!("{page}/subnet"), "cidr=fd00::/64").await;
    assert_eq!(it.items("subnets").await.len(), 2);

    // A server is plugged in from its own page.
    assert_eq!(it.lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    let body = json!({"name": "web", "node": "alpha", "image": "tiny"});
    let web = it.lab.post("/api/v1/projects/red/servers", body).await;
    let web = web.body["servers"][0]["id"].as_str().unwrap().to_owned();
    let server = format!("/my/red/servers/{web}");
    let network = page.rsplit('/').next().unwrap();
    let to =
        it.sent("/my/red/networks/chosen/port", &format!("back=server&server={web}&network={network}")).await;
    assert_eq!(to, server);
    let ports = it.items("ports").await;
    assert_eq!((ports.len(), &ports[0]["server"]), (1, &json!(web)));
    let port = id(&ports[0]);
    let shown = it.page(&it.reader, &server).await;
    assert!(text(&shown).contains("10.0.0.2") && !text(&shown).contains("/detach\""), "{shown:?}");

    // A router joins both subnets and leads out; a floating address leads in.
    it.sent("/my/red/routers", &format!("router=edge&provider={}", id(&it.items("networks").await[0]))).await;
    let router = id(&it.items("routers").await[0]).to_owned();
    for subnet in it.items("subnets").await {
        it.sent(&format!("/my/red/routers/{router}/join"), &format!("subnet={}", id(&subnet))).await;
    }
    it.sent("/my/red/floating", &format!("provider=public&port={port}")).await;
    let floating = it.items("floating-addresses").await;
    assert_eq!(floating[0]["port"], json!(port), "{floating:?}");
    let networks = it.page(&it.reader, "/my/red/networks").await;
    for says in [
        "Router edge leads to provider network public as 203.0.113.2 and joins blue",
        "Network blue has 10.0.0.0/24, fd00::/64 and 1 port: web.",
        "from outside 203.0.113.3",
        "<title id=\"topology-title\">Networks of red</title>",
    ] {
        assert!(text(&networks).contains(says), "{says}: {}", text(&networks));
    }
    let address = format!("/my/red/floating/{}", id(&floating[0]));
    it.sent(&format!("{address}/disassociate"), "").await;
    it.sent(&format!("{address}/associate"), &format!("port={port}")).await;
    // What is used stays, and the page says by what.
    let used = it.form(&it.member, &format!("{page}/delete"), "confirm=blue").await;
    assert!(used.status == 422 && text(&used).contains("is used"), "{used:?}");
    let kept = it.form(&it.member, &format!("/my/red/ports/{port}/remove"), "").await;
    assert!(kept.status == 422 && text(&kept).contains("detach it first"), "{kept:?}");

    // All of it is taken down again.
    it.sent(&format!("{address}/disassociate"), "").await;
    it.sent(&format!("{address}/remove"), "").await;
    it.sent(&format!("/my/red/routers/{router}/no-gateway"), "").await;
    for subnet in it.items("subnets").await {
        it.sent(&format!("/my/red/routers/{router}/leave"), &format!("subnet={}", id(&subnet))).await;
    }
    it.sent(&format!("/my/red/routers/{router}/remove"), "").await;
    assert_eq!(it.sent(&format!("/my/red/ports/{port}/detach"), "back=server").await, server);
    assert_eq!(
        it.sent("/my/red/ports/chosen/attach", &format!("back=server&server={web}&port={port}")).await,
        server
    );
    it.sent(&format!("/my/red/ports/{port}/detach"), "").await;
    it.sent(&format!("/my/red/ports/{port}/remove"), "").await;
    let wrong = it.form(&it.member, &format!("{page}/delete"), "confirm=blu").await;
    assert!(wrong.status == 422 && text(&wrong).contains("is not the name of this network"), "{wrong:?}");
    assert_eq!(it.sent(&format!("{page}/delete"), "confirm=blue").await, "/my/red/networks");
    assert_eq!(it.items("subnets").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_added_and_taken_away_one_by_one() {
    let it = Site::new().await;
    let group = async || {
        let all = it.items("security-groups").await;
        all.into_iter().find(|group| group["name"] == "ssh").unwrap()
    };
    let seen = async || {
        let page = it.page(&it.member, "/my/red/security-groups").await;
        let part =
            text(&page).split(&format!("id=\"group-{}\"", id(&group().await))).nth(1).unwrap().to_owned();
        part.split("name=\"seen\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    it.sent("/my/red/security-groups", "name=ssh").await;
    let path = format!("/my/red/security-groups/{}", id(&group().await));
    assert_eq!(group().await["rules"].as_array().unwrap().len(), 2, "it may send");
    let old = seen().await;
    let rule = "direction=ingress&protocol=tcp&ports=22&family=&cidr=10.0.0.0/8&group=";
    it.sent(&format!("{path}/rule"), &format!("seen={old}&{rule}")).await;
    assert_eq!(group().await["rules"].as_array().unwrap().len(), 3);
    // Whoever saw the group as it was before does not undo what somebody else did.
    let stale = it.form(&it.member, &format!("{path}/rule"), &format!("seen={old}&{rule}")).await;
    assert!(stale.status == 422 && text(&stale).contains("was changed meanwhile"), "{stale:?}");
    let wrong = it
        .form(&it.member, &format!("{path}/rule"), &format!("seen={}&protocol=tcp&ports=ssh", seen().await))
        .await;
    assert!(wrong.status == 422 && text(&wrong).contains("is no range of ports"), "{wrong:?}");
    let page = it.page(&it.reader, "/my/red/security-groups").await;
    assert!(text(&page).contains("TCP 22") && text(&page).contains("10.0.0.0/8"), "{page:?}");
    let of_api =
        group().await["rules"].as_array().unwrap().iter().find(|rule| rule["ports"] == "22").cloned();
    let key = crate::http::encode(
        &serde_json::to_string(
            &serde_json::from_value::<crate::view::networks::SecurityRule>(of_api.unwrap()).unwrap(),
        )
        .unwrap(),
    );
    it.sent(&format!("{path}/unrule"), &format!("seen={}&rule={key}", seen().await)).await;
    assert_eq!(group().await["rules"].as_array().unwrap().len(), 2);
    it.sent(&format!("{path}/remove"), &format!("seen={}", seen().await)).await;
    assert!(it.items("security-groups").await.iter().all(|group| group["name"] != "ssh"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_no_forms_and_other_projects_see_nothing() {
    let it = Site::new().await;
    let page = it.sent("/my/red/networks", "name=secret-net&cidr=10.0.0.0/24").await;
    it.sent(&format!("{page}/port"), "port_name=secret-port").await;
    it.sent("/my/red/routers", "router=secret-router&provider=").await;
    let (subnet, port, router, group) = (
        id(&it.items("subnets").await[0]).to_owned(),
        id(&it.items("ports").await[0]).to_owned(),
        id(&it.items("routers").await[0]).to_owned(),
        id(&it.items("security-groups").await[0]).to_owned(),
    );
    for path in ["/my/red/networks", page.as_str(), "/my/red/security-groups"] {
        let got = it.page(&it.reader, path).await;
        // The one that signs out is everywhere.
        assert_eq!((got.status, text(&got).matches("<form").count()), (200, 1), "{path}: {got:?}");
        assert!(text(&it.page(&it.member, path).await).matches("<form").count() > 1, "{path}");
        assert_eq!(it.page(&it.blue, path).await.status, 404, "{path}");
    }
    let own = it.page(&it.blue, "/my/blue/networks").await;
    assert!(own.status == 200 && !text(&own).contains("secret") && text(&own).contains("public"), "{own:?}");
    assert_eq!(it.page(&it.blue, &page.replace("/red/", "/blue/")).await.status, 404);
    let network = page.rsplit('/').next().unwrap();
    for (path, body) in [
        (format!("networks/{network}/subnet"), "cidr=10.1.0.0/24"),
        (format!("networks/{network}/port"), ""),
        (format!("networks/{network}/rename"), "name=mine"),
        (format!("networks/{network}/delete"), "confirm=secret-net"),
        (format!("subnets/{subnet}/remove"), ""),
        (format!("ports/{port}/remove"), ""),
        (format!("ports/{port}/groups"), "groups=default"),
        (format!("security-groups/{group}/remove"), "seen=1"),
    ] {
        assert_eq!(it.form(&it.reader, &format!("/my/red/{path}"), body).await.status, 403, "{path}");
        for project in ["red", "blue"] {
            let got = it.form(&it.blue, &format!("/my/{project}/{path}"), body).await;
            assert_eq!(got.status, 404, "{project} {path}: {got:?}");
        }
    }
    // The list says of a router of another project what it says of one that there is not.
    for path in [format!("routers/{router}/remove"), "routers/none/remove".to_owned()] {
        assert_eq!(it.form(&it.reader, &format!("/my/red/{path}"), "").await.status, 403, "{path}");
        assert_eq!(it.form(&it.blue, &format!("/my/red/{path}"), "").await.status, 404, "{path}");
        let got = it.form(&it.blue, &format!("/my/blue/{path}"), "").await;
        assert!(got.status == 422 && text(&got).contains("no router"), "{path}: {got:?}");
    }
    assert_eq!(it.form(&it.reader, "/my/red/networks", "name=mine").await.status, 403);
    assert_eq!((it.items("subnets").await.len(), it.items("ports").await.len()), (1, 1));
}
