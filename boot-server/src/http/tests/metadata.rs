//! An installed OS asks for its own data, and others ask for it too.

use boot_server_core::deploy::DeployRequest;
use boot_server_core::node::{Cleaning, Node, event::Verb};
use protocol::Timestamp;
use protocol::job::DiskTarget;
use protocol::report::{Report, ReportBatch, ReportBody, Summary};

use super::*;
use crate::engine::Actor;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh me@example";

/// A machine with an OS on its way, and the two tokens that the OS finds on its disk.
async fn deploying(server: &Server, change: impl FnOnce(&mut DeployRequest)) -> (Node, String, String) {
    image(&server.engine).await;
    let session = server.session().await;
    let body = serde_json::to_string(&inventory()).unwrap();
    assert_eq!(server.ask("PUT", "/agent/v1/inventory", &session, &body).await.status, 204);
    let node = server.engine.nodes().await.unwrap().remove(0);
    let mut request = DeployRequest {
        image: "tiny".into(),
        hostname: Some("web-1".into()),
        ssh_keys: vec![KEY.into()],
        user_data: Some("#cloud-config\nSECRET: 1\n".into()),
        confirm: Some(node.name.clone()),
        ..DeployRequest::default()
    };
    change(&mut request);
    let node = server.engine.deploy(&node, Actor::Operator("op".into()), request, false, None).await.unwrap();
    let protocol::job::Task::Deploy(spec) = &node.state.run().unwrap().job.task else { panic!("no deploy") };
    let files = spec.config.clone().unwrap_or_default();
    let all = format!("{}{}", files.meta_data, files.vendor_data);
    let token = |path: &str| {
        let rest = all.split(path).nth(1).unwrap_or_default();
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect::<String>()
    };
    (node.clone(), token("/metadata/"), token("/phone-home/"))
}

/// The agent did it, and the machine starts from its disk.
async fn written(server: &Server) {
    let session = server.session().await;
    let work = server.ask("GET", "/agent/v1/work?wait=0", &session, "").await;
    let Work::Job { job } = serde_json::from_slice(&work.body).unwrap() else { panic!("no job") };
    let body = ReportBody::Finished { summary: Summary::default() };
    let batch = ReportBatch { job: job.id, reports: vec![Report { seq: 1, at: Timestamp(0), body }] };
    let batch = serde_json::to_string(&batch).unwrap();
    assert_eq!(server.ask("POST", "/agent/v1/report", &session, &batch).await.status, 200);
    server.ask("GET", "/agent/v1/work?wait=0", &session, "").await;
    server.get("/boot/ipxe?mac=52-54-00-00-00-01&uuid=00000000-0000-0000-0000-00000000abcd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_gives_a_server_its_own_data_in_every_form() {
    let server = Server::start().await;
    let (node, token, _) = deploying(&server, |_| ()).await;
    assert_eq!(token.len(), 43);
    let of = |path: &str| format!("/metadata/{token}/{path}");
    for (path, part) in [
        ("meta-data", "web-1"),
        ("user-data", "SECRET: 1"),
        ("vendor-data", "/phone-home/"),
        ("latest/meta-data/instance-id", "-"),
        ("latest/meta-data/public-keys/0/openssh-key", KEY),
        ("latest/user-data", "SECRET: 1"),
        ("latest/dynamic/instance-identity/document", "\"instanceId\""),
        ("2009-04-04/meta-data/local-hostname", "web-1"),
        ("openstack/latest/meta_data.json", "\"uuid\""),
        ("openstack/2018-08-27/user_data", "SECRET: 1"),
        ("openstack/latest/vendor_data.json", "phone-home"),
        ("openstack/latest/vendor_data2.json", "{}"),
        ("openstack", "2018-08-27\n"),
        ("", "user-data"),
    ] {
        let reply = server.get(&of(path)).await;
        assert!(
            reply.status == 200 && reply.text().contains(part),
            "{path}: {} {}",
            reply.status,
            reply.text()
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    let session = server.ask("PUT", &of("latest/api/token"), ttl, "").await;
    assert_eq!((session.status, session.header("x-aws-ec2-metadata-token-ttl-seconds")), (200, Some("60")));
    for (path, headers, status) in [
        ("latest/api/token", "", 400),
        ("latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21601\r\n", 400),
        (
            "latest/api/token",
            "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: 10.0.0.1\r\n",
            403,
        ),
        ("latest/api", ttl, 404),
    ] {
        assert_eq!(server.ask("PUT", &of(path), headers, "").await.status, status, "{path} {headers}");
    }
    // What is stored holds neither the token nor what it protects.
    let rows =
        server.engine.store().read(move |db| crate::store::instances::of_node(db, node.id)).await.unwrap();
    assert_eq!(rows.len(), 1);
    let stored = format!("{rows:?}");
    assert!(!stored.contains(&token) && !stored.contains("SECRET") && !stored.contains("web-1"), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anothers_data_by_what_a_request_says() {
    let server = Server::start().await;
    let (node, token, phone_home) = deploying(&server, |_| ()).await;
    written(&server).await;
    assert_eq!(server.ask("POST", &format!("/phone-home/{phone_home}"), "", "").await.status, 200);
    for headers in [
        "",
        "X-Forwarded-For: 10.77.0.50\r\n",
        "Forwarded: for=10.77.0.50\r\nX-Real-IP: 10.77.0.50\r\n",
        "Metadata: true\r\nMetadata-Flavor: Google\r\n",
        "X-Instance-ID: 00000000-0000-0000-0000-000000000001\r\nX-Tenant-ID: a\r\n",
        "X-aws-ec2-metadata-token: x\r\n",
    ] {
        for path in
            ["/latest/meta-data/", "/latest/user-data", "/openstack/latest/meta_data.json", "/2009-04-04/"]
        {
            let reply = server.ask("GET", path, headers, "").await;
            assert_eq!(reply.status, 404, "{path} {headers}: {}", reply.text());
        }
        let ttl = format!("X-aws-ec2-metadata-token-ttl-seconds: 60\r\n{headers}");
        assert_eq!(server.ask("PUT", "/latest/api/token", &ttl, "").await.status, 404, "{headers}");
    }
    let almost = format!("{}A", &token[..42]);
    for wrong in [phone_home.as_str(), node.name.as_str(), &node.id.to_string(), "x", &almost, "..%2f"] {
        if wrong != token {
            let reply = server.get(&format!("/metadata/{wrong}/meta-data")).await;
            assert_eq!(reply.status, 404, "{wrong}");
        }
    }
    let forged = "GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
    let host = server.raw(forged.to_owned());
    assert_eq!(host.await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_ends_with_the_server_and_with_the_next_os() {
    let server = Server::start().await;
    let (node, token, phone_home) = deploying(&server, |_| ()).await;
    let meta_data = |token: &str| format!("/metadata/{token}/meta-data");
    written(&server).await;
    assert_eq!(server.ask("POST", &format!("/phone-home/{phone_home}"), "", "").await.status, 200);
    assert_eq!(server.get(&meta_data(&token)).await.status, 200);
    // While it is installed anew the old OS may still run; once the new one does, it is gone.
    let again = DeployRequest {
        image: "tiny".into(),
        confirm: Some(node.name.clone()),
        datasource: Some(boot_server_core::metadata::Datasource::NocloudNet),
        ..DeployRequest::default()
    };
    let who = || Actor::Operator("op".into());
    let node = server.engine.node(&node.name).await.unwrap();
    let node = server.engine.deploy(&node, who(), again, true, None).await.unwrap();
    let protocol::job::Task::Deploy(spec) = &node.state.run().unwrap().job.task else { panic!("no deploy") };
    let files = spec.config.clone().unwrap();
    assert!(!files.vendor_data.contains("phone") && files.meta_data.contains("seedfrom"));
    let seed = files.meta_data.split("/metadata/").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(server.get(&meta_data(&token)).await.status, 200, "it may still run");
    let vendor = server.get(&format!("/metadata/{seed}/vendor-data")).await.text();
    let home = vendor.split("/phone-home/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    written(&server).await;
    assert_eq!(server.ask("POST", &format!("/phone-home/{home}"), "", "").await.status, 200);
    assert_eq!(server.get(&meta_data(&token)).await.status, 404, "another OS runs");
    assert_eq!(server.get(&meta_data(&seed)).await.status, 200);
    let wipe = vec![DiskTarget { id: "serial:D1".parse().unwrap(), size_bytes: 4 << 30 }];
    server
        .engine
        .apply(
            node.id,
            who(),
            boot_server_core::node::Event::Verb(Verb::Delete { wipe, how: Cleaning::Light }),
        )
        .await
        .unwrap();
    assert_eq!(server.get(&meta_data(&seed)).await.status, 404, "it was given back");
    let rows =
        server.engine.store().read(move |db| crate::store::instances::of_node(db, node.id)).await.unwrap();
    assert_eq!(rows, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_os_tells_its_host_keys_when_it_is_up() {
    let server = Server::start().await;
    let (node, _, phone_home) = deploying(&server, |_| ()).await;
    written(&server).await;
    let key = KEY.replace(' ', "+").replace('@', "%40");
    let mut form =
        format!("pub_key_ed25519={key}%0A&pub_key_rsa=N%2FA&pub_key_x=%3Cscript%3E+AAAA&hostname=web-1");
    form.push_str(&"&pub_key_ecdsa=ssh-rsa+AAAA".repeat(100));
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let path = format!("/phone-home/{phone_home}");
    assert_eq!(server.ask("POST", &path, kind, &form).await.status, 200);
    let installed = server.engine.node(&node.name).await.unwrap().installed.unwrap();
    let keys: Vec<_> =
        installed.host_keys.iter().map(|k| (k.kind.as_str(), k.fingerprint.as_str())).collect();
    // As `ssh-keygen -l` says.
    assert_eq!(keys, [("ssh-ed25519", "SHA256:HVNr3OgYL/gprlVPVrVKAmXsUWCF0qsZjqCtu1X/p/s")]);
    let second = kind.to_owned() + "X: y\r\n";
    assert_eq!(server.ask("POST", &path, &second, "pub_key_rsa=").await.status, 200, "said again");
    assert_eq!(server.engine.node(&node.name).await.unwrap().installed.unwrap().host_keys.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_knows_all_itself_is_done_when_it_starts() {
    let server = Server::start().await;
    let none = boot_server_core::metadata::Datasource::None;
    let (node, token, _) = deploying(&server, |r| r.datasource = Some(none)).await;
    assert_eq!(token, "", "nothing is on its disk");
    written(&server).await;
    let node = server.engine.node(&node.name).await.unwrap();
    assert_eq!(node.state.name(), boot_server_core::node::StateName::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits() {
    let server = Server::start().await;
    let mut statuses = Vec::new();
    for _ in 0..230 {
        statuses.push(server.get("/metadata/x/meta-data").await.status);
    }
    assert_eq!(statuses[0], 404);
    assert!(statuses.contains(&429), "{statuses:?}");
}
