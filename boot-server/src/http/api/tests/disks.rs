//! Pages of volumes, snapshots and DPUs: who sees what, who may do what, and that a form does what the API does.

use std::time::Duration;

use protocol::agent::Password;
use protocol::dial::{Facts, Hello, HostFunction, Program, Report};
use protocol::dpu::{Observed, PortSeen, VERSION};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use ureq::http::Method;

use super::lab::{Got, Lab, TOKEN, raw_disk};
use crate::config::VolumeType;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// A DPU's secret.
pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A site that keeps volumes, with somebody who makes them.
struct Site {
    lab: Lab,
    member: String,
    reader: String,
    blue: String,
    stop: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    async fn new() -> Self {
        let lab = Lab::with_config(|config| {
            let kind = |name: &str| {
                let directory = config.state_dir.join("volumes").join(name);
                place_of_files(name, &directory)
            };
            config.volumes = vec![kind("fast"), kind("large")];
        })
        .await;
        lab.project("red").await;
        lab.project("blue").await;
        let member = lab.project_token("red", "ada", "member").await;
        let reader = lab.project_token("red", "eve", "reader").await;
        let blue = lab.project_token("blue", "bob", "member").await;
        let stop = CancellationToken::new();
        let (engine, token) = (lab.engine.clone(), stop.clone());
        tokio::spawn(async move { engine.run_volumes(token).await });
        Self { lab, member, reader, blue, stop }
    }

    async fn page(&self, token: &str, path: &str) -> Got {
        self.lab.with(token, Method::GET, path, Value::Null).await
    }

    async fn form(&self, token: &str, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), FORM];
        self.lab.send_as(Method::POST, path, &headers, body.as_bytes().to_vec()).await
    }

    /// Waits until a volume of `red` has this status.
    async fn until(&self, volume: &str, status: &str) -> Value {
        let path = format!("/api/v1/projects/red/volumes/{volume}");
        for _ in 0..200 {
            let got = self.lab.get(&path).await.body;
            if got["status"] == status {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{volume} is not {status}: {:?}", self.lab.get(&path).await)
    }
}

/// A type of volumes that are files in a directory.
pub(super) fn place_of_files(name: &str, directory: &std::path::Path) -> VolumeType {
    serde_json::from_value(json!({ "name": name, "kind": "file", "directory": directory })).unwrap()
}

fn place(got: &Got) -> &str {
    got.headers["location"].to_str().unwrap()
}

fn text(got: &Got) -> &str {
    got.body.as_str().unwrap_or_default()
}

/// What a DPU beside `alpha` says of itself, with this text wherever it may write one.
pub(super) fn facts(words: &str) -> Facts {
    let some = || Some(words.to_owned());
    let mac = protocol::MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    Facts {
        hostname: words.to_owned(),
        serial: some(),
        model: some(),
        kernel: words.to_owned(),
        programs: vec![Program { name: words.to_owned(), version: words.to_owned() }],
        macs: Vec::new(),
        functions: vec![HostFunction { interface: words.to_owned(), mac }],
    }
}

/// What it says that it is.
pub(super) fn observed(words: &str) -> Observed {
    let port = PortSeen {
        interface: words.to_owned(),
        port: Some(words.to_owned()),
        bridge: None,
        number: None,
        up: true,
        error: Some(words.to_owned()),
    };
    Observed {
        version: VERSION,
        generation: Some(1),
        settled: false,
        problems: vec![words.to_owned()],
        ports: vec![port.clone(), PortSeen { bridge: Some(words.to_owned()), ..port }],
        mirrors: Vec::new(),
        functions: None,
        volumes: Vec::new(),
        discarded: Vec::new(),
    }
}

/// A DPU dials in and says how it is.
pub(super) async fn dial_in(lab: &Lab, token: Option<String>, words: &str) {
    let hello = Hello {
        version: VERSION,
        agent_version: "1".to_owned(),
        secret: Password(SECRET.to_owned()),
        token: token.map(Password),
        facts: facts(words),
    };
    lab.engine.dpu_hello(hello, [10, 77, 0, 9].into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_attached_kept_and_deleted_on_pages() {
    let it = Site::new().await;
    let made = it.form(&it.member, "/my/red/volumes", "name=data&type=fast&size=8M&image=&snapshot=").await;
    assert_eq!(made.status, 303, "{made:?}");
    let page = place(&made).to_owned();
    let volume = it.until("data", "available").await;
    assert_eq!((&volume["size"], &volume["type"]), (&json!(8 << 20), &json!("fast")));
    let list = it.page(&it.member, "/my/red/volumes").await;
    assert!(text(&list).contains(">data</a>") && text(&list).contains("8 MiB"), "{list:?}");

    // What cannot be is said beside what was typed.
    let wrong = it.form(&it.member, "/my/red/volumes", "name=more&size=much").await;
    assert_eq!(wrong.status, 422);
    assert!(text(&wrong).contains("is no size") && text(&wrong).contains("value=\"much\""), "{wrong:?}");

    // Nobody can have it before there is a DPU; then the server's page gives it.
    assert_eq!(it.lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    let body = json!({"name": "web", "node": "alpha", "image": "tiny"});
    let web = it.lab.post("/api/v1/projects/red/servers", body).await;
    let web = web.body["servers"][0]["id"].as_str().unwrap().to_owned();
    let none = it.page(&it.member, &page).await;
    assert!(text(&none).contains("none is on a machine with a DPU"), "{none:?}");
    let server = format!("/my/red/servers/{web}");
    assert!(!text(&it.page(&it.member, &server).await).contains("Attach a volume"));
    dial_in(&it.lab, None, "dpu-1").await;
    assert_eq!(it.form(TOKEN, "/dpus/dpu-1/accept", "").await.status, 303);
    assert!(text(&it.page(&it.member, &server).await).contains("Attach a volume"));
    let id = volume["id"].as_str().unwrap();
    let attached = it
        .form(&it.member, "/my/red/volumes/chosen/attach", &format!("back=server&server={web}&volume={id}"))
        .await;
    assert_eq!((attached.status, place(&attached)), (303, server.as_str()), "{attached:?}");
    let shown = it.page(&it.reader, &server).await;
    assert!(text(&shown).contains("Attaching") && !text(&shown).contains("/detach\""), "{shown:?}");
    let detached = it.form(&it.member, &format!("{page}/detach"), "back=server").await;
    assert_eq!((detached.status, place(&detached)), (303, server.as_str()), "{detached:?}");
    it.until("data", "available").await;

    // A snapshot holds its volume; both go by name.
    let kept = it.form(&it.member, &format!("{page}/snapshot"), "name=before").await;
    assert_eq!((kept.status, place(&kept)), (303, page.as_str()), "{kept:?}");
    let resized = it.form(&it.member, &format!("{page}/resize"), "size=16M").await;
    assert_eq!(resized.status, 303, "{resized:?}");
    let snapshots = it.page(&it.member, "/my/red/snapshots").await;
    assert!(text(&snapshots).contains("before") && text(&snapshots).contains("8 MiB"), "{snapshots:?}");
    let form = it.page(&it.member, "/my/red/volumes?snapshot=before").await;
    assert!(text(&form).contains("<option value=\"before\" selected>"), "{form:?}");
    for (path, confirm, says) in [
        (format!("{page}/delete"), "dato", "is not the name of this volume"),
        (format!("{page}/delete"), "data", "has 1 snapshots"),
        ("/my/red/snapshots/before/remove".to_owned(), "", "The name was not typed"),
    ] {
        let refused = it.form(&it.member, &path, &format!("confirm={confirm}")).await;
        assert!(refused.status == 422 && text(&refused).contains(says), "{path}: {refused:?}");
    }
    let removed = it.form(&it.member, "/my/red/snapshots/before/remove", "confirm=before").await;
    assert_eq!((removed.status, place(&removed)), (303, "/my/red/snapshots"));
    let deleted = it.form(&it.member, &format!("{page}/delete"), "confirm=data").await;
    assert_eq!((deleted.status, place(&deleted)), (303, "/my/red/volumes"), "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_no_forms_and_other_projects_see_nothing() {
    let it = Site::new().await;
    let made = it.form(&it.member, "/my/red/volumes", "name=data&size=1M").await;
    let page = place(&made).to_owned();
    it.until("data", "available").await;
    for path in ["/my/red/volumes", page.as_str(), "/my/red/snapshots"] {
        let got = it.page(&it.reader, path).await;
        assert_eq!(got.status, 200, "{path}");
        // The one that signs out is everywhere.
        assert_eq!(text(&got).matches("<form").count(), 1, "{path}: {got:?}");
        assert!(text(&it.page(&it.member, path).await).contains("data") || path.ends_with("snapshots"));
        let there = it.page(&it.blue, path).await;
        let not = it.page(&it.blue, &path.replace("red", "rod")).await;
        assert_eq!(there.status, 404, "{path}");
        assert_eq!(text(&there), text(&not).replace("rod", "red"), "{path}");
    }
    let own = page.replace("/my/red/", "/my/blue/");
    assert_eq!(it.page(&it.blue, &own).await.status, 404);
    let verbs = ["attach", "detach", "resize", "rename", "snapshot", "delete"];
    for verb in verbs {
        let (theirs, not) = (format!("{page}/{verb}"), format!("{own}/{verb}"));
        let body = "confirm=data&name=mine&size=2M&server=x";
        assert_eq!(it.form(&it.reader, &theirs, body).await.status, 403, "{verb}");
        for path in [theirs, not] {
            assert_eq!(it.form(&it.blue, &path, body).await.status, 404, "{verb}");
        }
    }
    assert_eq!(it.form(&it.reader, "/my/red/volumes", "name=mine&size=1M").await.status, 403);
    // A form on another site's page does nothing, whoever looks at it.
    let login = it.lab.send_as(Method::POST, "/login", &[FORM], format!("token={}", it.member).into()).await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site"), FORM];
    let path = format!("{page}/delete");
    let forged = it.lab.send_as(Method::POST, &path, &headers, b"confirm=data".to_vec()).await;
    assert_eq!(forged.status, 403, "{forged:?}");
    let volume = it.lab.get("/api/v1/projects/red/volumes/data").await.body;
    assert_eq!((&volume["status"], &volume["size"]), (&json!("available"), &json!(1 << 20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dpu_is_registered_looked_at_changed_and_removed() {
    let it = Site::new().await;
    let made =
        it.form(TOKEN, "/dpus", "name=dpu-1&node=&tunnel_address=192.0.2.7&bridge=&datapath=netdev").await;
    assert_eq!(made.status, 200, "{made:?}");
    let token = text(&made).split("id=\"secret\" tabindex=\"0\">").nth(1).unwrap().split('<').next().unwrap();
    assert!(!text(&it.page(TOKEN, "/dpus").await).contains(token), "it is shown once");
    dial_in(&it.lab, Some(token.to_owned()), "BlueField-3").await;
    let report = Report { generation: Some(1), observed: Some(Box::new(observed("pf0hpf"))), counters: None };
    it.lab.engine.dpu_state(SECRET, report, Duration::ZERO).await.unwrap();
    let page = it.page(TOKEN, "/dpus/dpu-1").await;
    for says in ["BlueField-3", "192.0.2.7", "pf0hpf", "52:54:00:00:00:01", "/nodes/alpha", "Has a problem"] {
        assert!(text(&page).contains(says), "{says}: {page:?}");
    }
    assert!(text(&it.page(TOKEN, "/nodes/alpha").await).contains("href=\"/dpus/dpu-1\""));
    assert!(text(&it.page(TOKEN, "/dpus?q=bluefield").await).contains(">dpu-1</a>"));
    assert!(text(&it.page(TOKEN, "/dpus?q=nothing").await).contains("Nothing fits"));

    let wrong = it.form(TOKEN, "/dpus/dpu-1", "node=alpha&tunnel_address=somewhere&bridge=br-x").await;
    assert!(wrong.status == 422 && text(&wrong).contains("is no address"), "{wrong:?}");
    let body = "node=beta&tunnel_address=192.0.2.8&bridge=br-x&datapath=system";
    let changed = it.form(TOKEN, "/dpus/dpu-1", body).await;
    assert_eq!((changed.status, place(&changed)), (303, "/dpus/dpu-1"), "{changed:?}");
    let api = it.lab.get("/api/v1/dpus/dpu-1").await.body;
    assert_eq!(
        (&api["node_name"], &api["tunnel_address"], &api["datapath"], &api["provisioning_bridge"]),
        (&json!("beta"), &json!("192.0.2.8"), &json!("system"), &json!("br-x"))
    );

    // Whoever may only look has no forms, and sends none.
    let looker = it.lab.token("rita", "reader").await;
    for path in ["/dpus", "/dpus/dpu-1"] {
        let got = it.page(&looker, path).await;
        assert_eq!(got.status, 200);
        // Signing out, and in the list the search.
        assert!(!text(&got).contains("method=\"post\" action=\"/dpus"), "{path}: {got:?}");
    }
    for path in ["/dpus", "/dpus/dpu-1", "/dpus/dpu-1/accept", "/dpus/dpu-1/remove"] {
        assert_eq!(it.form(&looker, path, "confirm=dpu-1&name=x").await.status, 403, "{path}");
        assert_eq!(it.form(&it.member, path, "confirm=dpu-1&name=x").await.status, 404, "{path}");
    }
    assert_eq!(it.page(&it.member, "/dpus").await.status, 404);
    let kept = it.form(TOKEN, "/dpus/dpu-1/remove", "confirm=dpu").await;
    assert!(kept.status == 422 && text(&kept).contains("is not the name of this DPU"), "{kept:?}");
    let removed = it.form(TOKEN, "/dpus/dpu-1/remove", "confirm=dpu-1").await;
    assert_eq!((removed.status, place(&removed)), (303, "/dpus"), "{removed:?}");
    assert_eq!(it.page(TOKEN, "/dpus/dpu-1").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_for_on_volumes() {
    let it = Site::new().await;
    assert_eq!(it.lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    let body = "key=k1&name=web&count=1&node=alpha&image=tiny&boot=volume&boot_type=large&boot_size=64M&boot_keep=1&boot_imaging=agent";
    let page = it.form(TOKEN, "/my/red/create/check", body).await;
    assert!(text(&page).contains("No machine with a DPU is free"), "{page:?}");
    dial_in(&it.lab, None, "dpu-1").await;
    assert_eq!(it.form(TOKEN, "/dpus/dpu-1/accept", "").await.status, 303);
    let wrong = it.form(TOKEN, "/my/red/create", &body.replace("64M", "huge")).await;
    assert!(wrong.status == 422 && text(&wrong).contains("is no size for a volume"), "{wrong:?}");
    let made = it.form(TOKEN, "/my/red/create", body).await;
    assert_eq!((made.status, place(&made)), (303, "/my/red/servers/web"), "{made:?}");
    let project = it.lab.known.tenancy().project("red").unwrap().id;
    let spec = it.lab.engine.server(project, "web").await.unwrap().spec;
    let boot = spec.boot_volume.unwrap();
    assert_eq!((boot.kind.as_deref(), boot.size, boot.keep), (Some("large"), Some(64 << 20), true));
    assert_eq!(boot.imaging, boot_server_core::volume::Imaging::Agent);
    let wrong = it.form(TOKEN, "/my/red/create", &body.replace("=agent", "=nobody")).await;
    assert!(wrong.status == 422 && text(&wrong).contains("does not write images"), "{wrong:?}");
}
