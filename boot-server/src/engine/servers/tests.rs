//! Servers over a real store, with machines whose agent is played here.

use std::collections::BTreeSet;
use std::time::Duration;

use boot_server_core::amounts::Amounts;
use boot_server_core::node::{Event, StateName, event::Verb};
use boot_server_core::quota::Limits;
use boot_server_core::server::{Phase, Server};
use boot_server_core::usage::Period;
use protocol::agent::Work;
use protocol::job::Task;
use protocol::report::{Report, ReportBatch, ReportBody};
use protocol::{NodeId, ProjectId, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::engine::BootAnswer;
use crate::engine::tests::{address, claim, discovered, engine, erased, finished, image, kinds};
use crate::minisign::{self, Signer};
use crate::store::certificates::CertificateFilter;
use crate::store::servers::ServerFilter;
use crate::store::tests::Scratch;

fn project(n: u128) -> ProjectId {
    ProjectId(Uuid::from_u128(n))
}

pub(in crate::engine) async fn with_project(engine: &Engine, n: u128) -> ProjectId {
    let id = project(n);
    let add = move |db: &crate::store::db::Connection| {
        let sql = "INSERT INTO projects (id, name, created, closed, body) VALUES (?1, ?2, 1, NULL, '{}')";
        let values = crate::store::db::params![id.to_string(), format!("p{n}")];
        db.execute(sql, values).map(drop).map_err(StoreError::sql("add a project"))
    };
    engine.store().write(add).await.unwrap();
    id
}

pub(in crate::engine) fn someone() -> Actor {
    Actor::Operator("ada".into())
}

pub(in crate::engine) fn wish(name: &str, count: usize) -> NewServers {
    NewServers {
        name: name.into(),
        count,
        flavor: Some("any".into()),
        node: None,
        pool: None,
        image: "tiny".into(),
        user: None,
        keys: vec![],
        ssh_keys: vec![],
        user_data: None,
        group: None,
        boot_volume: None,
        networks: Vec::new(),
    }
}

/// An engine with a project and `nodes` available machines of one flavor; the sessions of their agents.
async fn site(scratch: &Scratch, nodes: u8) -> (Engine, ProjectId, Vec<String>) {
    let engine = engine(scratch).await;
    image(&engine).await;
    any_flavor(&engine).await;
    let mut sessions = Vec::new();
    for n in 1..=nodes {
        sessions.push(discovered(&engine, n).await);
    }
    let project = with_project(&engine, 1).await;
    (engine, project, sessions)
}

/// The same, with volumes in files and an overlay that nobody answers.
pub(in crate::engine) async fn site_over(scratch: &Scratch, nodes: u8) -> (Engine, ProjectId, Vec<String>) {
    let mut settings = crate::engine::tests::settings(scratch);
    let files = ::volume::FileSettings { directory: scratch.0.join("volumes") };
    let place = ::volume::Settings::File(files);
    settings.volumes = vec![crate::config::VolumeSettings { name: "files".into(), encrypted: false, place }];
    crate::engine::tests::with_overlay(&mut settings);
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = crate::store::Store::open(&scratch.database()).unwrap();
    let engine = Engine::open(settings, store, images).await.unwrap();
    image(&engine).await;
    any_flavor(&engine).await;
    let mut sessions = Vec::new();
    for n in 1..=nodes {
        sessions.push(discovered(&engine, n).await);
    }
    let project = with_project(&engine, 1).await;
    (engine, project, sessions)
}

/// A site without machines, over volumes in files behind whatever is put around them.
pub(in crate::engine) async fn site_with(
    scratch: &Scratch,
    wrap: impl FnOnce(std::sync::Arc<dyn ::volume::Backend>) -> std::sync::Arc<dyn ::volume::Backend>,
) -> (Engine, ProjectId) {
    let engine = engine_with(scratch, wrap).await;
    any_flavor(&engine).await;
    let project = with_project(&engine, 1).await;
    (engine, project)
}

/// A server over what is there, as at its start.
pub(in crate::engine) async fn engine_with(
    scratch: &Scratch,
    wrap: impl FnOnce(std::sync::Arc<dyn ::volume::Backend>) -> std::sync::Arc<dyn ::volume::Backend>,
) -> Engine {
    let mut settings = crate::engine::tests::settings(scratch);
    crate::engine::tests::with_overlay(&mut settings);
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = crate::store::Store::open(&scratch.database()).unwrap();
    let files = ::volume::FileBackend::open(&scratch.0.join("volumes")).unwrap();
    let backends = [("files".to_owned(), wrap(std::sync::Arc::new(files)))].into();
    Engine::open_over(settings, store, images, backends).await.unwrap()
}

pub(in crate::engine) async fn any_flavor(engine: &Engine) {
    let mut flavor = boot_server_core::flavor::Flavor::new("any".parse().unwrap());
    flavor.billed =
        Some(boot_server_core::flavor::Billed { cores: 4, memory_mib: 1024, disks: 1, disk_gib: 4 });
    engine.create_flavor(someone(), flavor).await.unwrap();
}

pub(in crate::engine) async fn living(engine: &Engine, project: ProjectId) -> Vec<Server> {
    engine.servers(project, ServerFilter { limit: 1000, ..ServerFilter::default() }).await.unwrap()
}

pub(in crate::engine) async fn report(engine: &Engine, node: NodeId, session: &str, body: ReportBody) {
    let node = engine.node(&node.to_string()).await.unwrap();
    let run = node.state.run().unwrap();
    let reports = vec![Report { seq: run.acked + 1, at: Timestamp(0), body }];
    engine.report(session, ReportBatch { job: run.job.id, reports }).await.unwrap();
}

/// Plays the agent: takes the job, finishes it, and for a deploy boots the OS, which phones home.
pub(in crate::engine) async fn play(engine: &Engine, n: u8, session: &str) {
    let Work::Job { job } = engine.next_work(session, Duration::ZERO).await.unwrap() else {
        panic!("no job")
    };
    let node = engine.node(&format!("node-{n:06x}")).await.unwrap().id;
    if let Task::Clean { disks, erase: Some(order) } = &job.task {
        assert!(order.whole, "between tenants");
        for disk in disks {
            report(engine, node, session, erased(disk)).await;
        }
    }
    report(engine, node, session, finished()).await;
    let Task::Deploy(spec) = &job.task else { return };
    let vendor = &spec.config.as_ref().unwrap().vendor_data;
    let token = vendor.split("/phone-home/").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(engine.next_work(session, Duration::ZERO).await.unwrap(), Work::Reboot);
    let answer = engine.boot(claim(n), address(n)).await.unwrap();
    assert!(matches!(answer, BootAnswer::LocalDisk { .. }), "{answer:?}");
    let token = crate::secret::hash(token);
    engine.apply(node, Actor::Machine, Event::PhoneHome { token, host_keys: Vec::new() }).await.unwrap();
}

/// The machine's agent comes up again, for the job that waits.
async fn again(engine: &Engine, n: u8) -> String {
    crate::engine::tests::agent(engine, n).await
}

async fn phase(engine: &Engine, server: &Server) -> Phase {
    engine.server(server.project, &server.id.to_string()).await.unwrap().phase
}

#[tokio::test]
async fn a_server_is_made_used_and_given_back() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site(&scratch, 1).await;
    let made = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap();
    let web = made[0].clone();
    assert_eq!((web.phase, web.name.as_str(), web.amounts.cores), (Phase::Claimed, "web", 4));
    engine.drive_all().await.unwrap();
    assert_eq!(phase(&engine, &web).await, Phase::Deploying);
    play(&engine, 1, &sessions[0]).await;
    engine.drive_all().await.unwrap();
    let active = engine.server(project, "web").await.unwrap();
    assert_eq!(active.phase, Phase::Active);
    assert!(active.active.is_some());
    assert_eq!(engine.quota(project).await.unwrap().used.servers, 1);

    engine.delete_server(project, "web", someone()).await.unwrap();
    engine.drive_all().await.unwrap();
    let node = engine.node(&web.node.to_string()).await.unwrap();
    assert_eq!((phase(&engine, &web).await, node.state.name()), (Phase::Deleting, StateName::Deleting));
    let session = again(&engine, 1).await;
    play(&engine, 1, &session).await;
    engine.drive_all().await.unwrap();
    let node = engine.node(&web.node.to_string()).await.unwrap();
    assert_eq!((phase(&engine, &web).await, node.state.name()), (Phase::Deleted, StateName::Available));
    certified(&engine, &node).await;
    let gone = engine.server(project, &web.id.to_string()).await.unwrap();
    assert!(engine.server(project, "web").await.is_err(), "its name is free");
    assert_eq!(engine.quota(project).await.unwrap().used, Amounts::default());
    let period = Period { from: Timestamp(0), to: now().after(Duration::from_secs(9)) };
    let records = engine.store().read(move |db| usage::records(db, None, period)).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].started, records[0].ended), (gone.created, gone.deleted));
    let sla = engine.sla(Some(project), period).await.unwrap();
    assert_eq!(sla.provisioning.count, 1);

    // Another one gets the machine.
    let second = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap();
    assert_eq!(second[0].node, web.node);
    let all = kinds(&engine).await;
    for kind in ["server.created", "server.deploying", "server.active", "server.deleting", "server.deleted"] {
        let wanted = if kind == "server.created" { 2 } else { 1 };
        assert_eq!(all.iter().filter(|k| *k == kind).count(), wanted, "{kind} in {all:?}");
    }
}

/// What another program finds: a certificate per disk, signed by the site's key, of this machine.
async fn certified(engine: &Engine, node: &boot_server_core::node::Node) {
    let filter =
        CertificateFilter { node: Some(node.name.clone()), limit: 10, ..CertificateFilter::default() };
    let rows = engine.certificates(filter).await.unwrap();
    assert!(!rows.is_empty());
    let key = Signer::open(&engine.settings().state_dir.join("signing.key")).unwrap().public();
    for row in rows {
        let signature = row.signature.unwrap();
        let comment = minisign::verify(row.body.as_bytes(), &signature, &key).unwrap();
        assert!(comment.contains(&row.id) && comment.contains("result clear"), "{comment}");
        let certificate: boot_server_core::certificate::Certificate =
            serde_json::from_str(&row.body).unwrap();
        assert_eq!((certificate.machine.id, certificate.disk.size_bytes > 0), (node.id, true));
        let changed = row.body.replace("\"clear\"", "\"purge\"");
        assert!(minisign::verify(changed.as_bytes(), &signature, &key).is_err());
        assert_eq!(engine.certificate(certificate.id).await.unwrap().unwrap().node_name, node.name);
    }
}

/// A ramdisk from before erases: it wipes lightly, and says that it is done.
#[tokio::test]
async fn a_machine_that_was_not_erased_is_nobodys() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site(&scratch, 1).await;
    let web = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap().remove(0);
    engine.drive_all().await.unwrap();
    play(&engine, 1, &sessions[0]).await;
    engine.drive_all().await.unwrap();
    engine.delete_server(project, "web", someone()).await.unwrap();
    engine.drive_all().await.unwrap();
    let session = again(&engine, 1).await;
    engine.next_work(&session, Duration::ZERO).await.unwrap();
    report(&engine, web.node, &session, finished()).await;
    engine.drive_all().await.unwrap();
    let node = engine.node(&web.node.to_string()).await.unwrap();
    assert_eq!((node.state.name(), node.dirty.is_some()), (StateName::Failed, true));
    assert_eq!(phase(&engine, &web).await, Phase::Deleted, "its project has done with it");
    assert!(engine.create_servers(project, someone(), wish("web", 1), None).await.is_err(), "nobody gets it");
    let how = boot_server_core::node::Cleaning::Light;
    let refused = engine.apply(node.id, someone(), Event::Verb(Verb::Provide { wipe: vec![], how })).await;
    assert_eq!(refused.unwrap_err().problem().code, "dirty");
}

#[tokio::test]
async fn two_hundred_at_once_on_ten_machines_get_ten() {
    let scratch = Scratch::new();
    let (engine, _, _) = site(&scratch, 10).await;
    for n in 2..=4 {
        with_project(&engine, n).await;
    }
    let asks = (0..200_u128).map(|n| {
        let engine = engine.clone();
        async move {
            let wish = wish(&format!("s{n}"), 1);
            engine.create_servers(project(n % 4 + 1), someone(), wish, Some(format!("key-{n}"))).await
        }
    });
    let answers = futures_util::future::join_all(asks).await;
    let made: Vec<&Server> = answers.iter().flatten().flatten().collect();
    let nodes: BTreeSet<NodeId> = made.iter().map(|server| server.node).collect();
    assert_eq!((made.len(), nodes.len()), (10, 10));
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        let problem = refused.problem();
        assert_eq!((problem.status, problem.code.as_str()), (409, "no-capacity"));
        assert!(problem.message.ends_with("10 in use"), "{}", problem.message);
        assert!(!problem.message.contains("node-"), "no name of a machine: {}", problem.message);
    }
    assert_eq!(engine.all_servers().await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_quota_is_never_passed() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 10).await;
    let limits = Limits { servers: Some(7), cores: Some(20), ..Limits::default() };
    engine.set_quota(project, someone(), limits).await.unwrap();
    let asks = (0..40).map(|n| {
        let engine = engine.clone();
        async move { engine.create_servers(project, someone(), wish(&format!("s{n}"), 1 + n % 3), None).await }
    });
    let answers = futures_util::future::join_all(asks).await;
    let quota = engine.quota(project).await.unwrap();
    assert_eq!((quota.used.servers, quota.used.cores), (5, 20), "five of four cores each");
    assert_eq!(living(&engine, project).await.len(), 5);
    let codes: BTreeSet<String> =
        answers.into_iter().filter_map(|answer| answer.err()).map(|error| error.problem().code).collect();
    assert_eq!(codes, BTreeSet::from(["quota".to_owned()]));
}

#[tokio::test]
async fn a_batch_is_made_as_a_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 3).await;
    let refused = engine.create_servers(project, someone(), wish("n{n}", 4), None).await.unwrap_err();
    assert_eq!(refused.problem().code, "no-capacity");
    assert!(living(&engine, project).await.is_empty());
    engine.create_servers(project, someone(), wish("n2", 1), None).await.unwrap();
    // One of its names is taken: nothing of it is made, and nothing of its quota is used.
    let refused = engine.create_servers(project, someone(), wish("n{n}", 2), None).await;
    assert!(matches!(refused, Err(EngineError::NameTaken(name)) if name == "n2"));
    assert_eq!(engine.quota(project).await.unwrap().used.servers, 1);
    // In another project the name is free.
    let other = with_project(&engine, 2).await;
    let made = engine.create_servers(other, someone(), wish("n{n}", 2), None).await.unwrap();
    assert_eq!(made.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert!(engine.server(project, &made[0].id.to_string()).await.is_err(), "what is not ours is not there");
}

#[tokio::test]
async fn the_same_key_makes_servers_once() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 3).await;
    let ask = || {
        let engine = engine.clone();
        async move { engine.create_servers(project, someone(), wish("web", 1), Some("k".into())).await }
    };
    let (first, second) = tokio::join!(ask(), ask());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.len(), &first), (1, &second));
    assert_eq!(ask().await.unwrap(), first);
    let other = engine.create_servers(project, someone(), wish("db", 1), Some("k".into())).await;
    assert!(matches!(other, Err(EngineError::KeyReused(_))));
    assert_eq!(living(&engine, project).await.len(), 1);
}

/// The process dies after each step; the next one goes on from the rows alone.
#[tokio::test]
async fn every_step_survives_a_crash() {
    let scratch = Scratch::new();
    let session = {
        let (engine, project, sessions) = site(&scratch, 1).await;
        engine.create_servers(project, someone(), wish("web", 1), Some("k".into())).await.unwrap();
        engine.store().close();
        sessions[0].clone()
    };
    async fn next(scratch: &Scratch) -> (Engine, Server) {
        let engine = engine(scratch).await;
        engine.started().await;
        engine.drive_all().await.unwrap();
        let server = living(&engine, project(1)).await.remove(0);
        (engine, server)
    }
    let (first, server) = next(&scratch).await;
    assert_eq!(server.phase, Phase::Deploying);
    let same = first.create_servers(project(1), someone(), wish("web", 1), Some("k".into())).await.unwrap();
    assert_eq!(same[0].id, server.id, "the key is remembered");
    play(&first, 1, &session).await;
    first.store().close();
    let (second, server) = next(&scratch).await;
    assert_eq!(server.phase, Phase::Active);
    second.delete_server(project(1), "web", someone()).await.unwrap();
    second.store().close();
    let (third, server) = next(&scratch).await;
    assert_eq!(server.phase, Phase::Deleting);
    let session = again(&third, 1).await;
    play(&third, 1, &session).await;
    // The machine is free, and the server does not know it yet: nobody else may have it.
    assert_eq!(third.node(&server.node.to_string()).await.unwrap().state.name(), StateName::Available);
    let early = third.create_servers(project(1), someone(), wish("db", 1), None).await;
    assert_eq!(early.unwrap_err().problem().code, "no-capacity");
    third.store().close();
    let last = engine(&scratch).await;
    last.drive_all().await.unwrap();
    assert!(living(&last, project(1)).await.is_empty());
    assert_eq!(last.quota(project(1)).await.unwrap().used, Amounts::default());
}

#[tokio::test]
async fn the_worker_drives_what_changes() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site(&scratch, 1).await;
    let stop = CancellationToken::new();
    let worker = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run_servers(stop).await }
    });
    let web = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap().remove(0);
    let until = |wanted| {
        let (engine, web) = (engine.clone(), web.clone());
        async move {
            for _ in 0..500 {
                if phase(&engine, &web).await == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not {wanted} in five seconds");
        }
    };
    until(Phase::Deploying).await;
    play(&engine, 1, &sessions[0]).await;
    until(Phase::Active).await;
    engine.delete_server(project, "web", someone()).await.unwrap();
    until(Phase::Deleting).await;
    // The worker has the wipe ordered before the agent asks.
    for _ in 0..200 {
        if engine.node(&web.node.to_string()).await.unwrap().state.name() == StateName::Deleting {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let session = again(&engine, 1).await;
    play(&engine, 1, &session).await;
    until(Phase::Deleted).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_lent_machine_is_not_taken_away() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 1).await;
    let web = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap().remove(0);
    let node = engine.node(&web.node.to_string()).await.unwrap();
    for verb in [Verb::Manage, Verb::Inspect] {
        let refused = engine.apply(node.id, someone(), Event::Verb(verb)).await.unwrap_err().problem();
        assert_eq!((refused.status, refused.code.as_str()), (409, "node-lent"));
        assert!(refused.message.contains("web") && refused.hint.contains("billet server delete"));
    }
    let refused = engine.forget(&node, someone()).await.unwrap_err().problem();
    assert_eq!(refused.code, "node-lent");
    // What takes nothing away goes on: a person may put it under maintenance, and the server waits and says why.
    let maintenance = Verb::Maintenance { reason: Some("fan of PSU 2".into()), until: None, by: None };
    engine.apply(node.id, someone(), Event::Verb(maintenance)).await.unwrap();
    engine.drive_all().await.unwrap();
    let waits = engine.server(project, "web").await.unwrap();
    assert_eq!(
        (waits.phase, waits.note.as_deref()),
        (Phase::Claimed, Some("its machine is under maintenance"))
    );
    engine
        .apply(node.id, someone(), Event::Verb(Verb::Maintenance { reason: None, until: None, by: None }))
        .await
        .unwrap();
    engine.drive_all().await.unwrap();
    let goes_on = engine.server(project, "web").await.unwrap();
    assert_eq!((goes_on.phase, goes_on.note), (Phase::Deploying, None));
}

#[tokio::test]
async fn a_deploy_that_is_called_off_stops_and_can_be_done_again() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 1).await;
    let web = engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap().remove(0);
    engine.drive_all().await.unwrap();
    engine.apply(web.node, someone(), Event::Verb(Verb::Abort)).await.unwrap();
    engine.drive_all().await.unwrap();
    let stopped = engine.server(project, "web").await.unwrap();
    assert_eq!(
        (stopped.phase, stopped.note.as_deref()),
        (Phase::Error, Some("the installation was called off"))
    );
    assert_eq!(engine.quota(project).await.unwrap().used.servers, 1, "it is still theirs");
    engine.reinstall_server(project, "web", someone(), Reinstall::default()).await.unwrap();
    assert_eq!(phase(&engine, &web).await, Phase::Deploying);
    // Deleted while it is being installed: the installation stops, and nothing was written.
    engine.delete_server(project, "web", someone()).await.unwrap();
    engine.drive_all().await.unwrap();
    assert_eq!(phase(&engine, &web).await, Phase::Deleted);
    assert_eq!(engine.node(&web.node.to_string()).await.unwrap().state.name(), StateName::Available);
}

#[tokio::test]
async fn keys_and_faults_are_a_projects_own() {
    let scratch = Scratch::new();
    let (engine, project, _) = site(&scratch, 1).await;
    let other = with_project(&engine, 2).await;
    let text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBWkHJS04rlVWZMnPgjLuuGMpVrXSKAgNQ0lP4oP0Kvr ada@home";
    let key = engine.add_key(project, someone(), "ada", text).await.unwrap();
    assert!(key.fingerprint.starts_with("SHA256:") && !key.fingerprint.ends_with('='));
    assert!(matches!(engine.add_key(project, someone(), "ada", text).await, Err(EngineError::NameTaken(_))));
    for (name, key) in [("", text), ("A b", text), ("x", "no key"), ("x", "ssh-ed25519 ???")] {
        assert_eq!(engine.add_key(project, someone(), name, key).await.unwrap_err().problem().status, 422);
    }
    let with_key = |project, name: &str| {
        let wish = NewServers { keys: vec!["ada".into()], ..wish(name, 1) };
        engine.create_servers(project, someone(), wish, None)
    };
    assert_eq!(with_key(other, "web").await.unwrap_err().problem().code, "key-not-found");
    let web = with_key(project, "web").await.unwrap().remove(0);
    assert_eq!(web.spec.ssh_keys, [text]);
    engine.remove_key(project, someone(), "ada").await.unwrap();
    assert!(engine.remove_key(project, someone(), "ada").await.is_err());

    assert_eq!(
        engine.report_fault(other, "web", someone(), "hot").await.unwrap_err().problem().code,
        "server-not-found"
    );
    let fault = engine.report_fault(project, "web", someone(), "the fan\nis loud").await.unwrap();
    let open = |project| engine.fault_reports(FaultFilter { project, open: true });
    assert_eq!(open(Some(project)).await.unwrap(), std::slice::from_ref(&fault));
    assert_eq!((open(None).await.unwrap().len(), open(Some(other)).await.unwrap().len()), (1, 0));
    engine.close_fault(fault.id, someone(), "fan replaced").await.unwrap();
    assert!(engine.close_fault(fault.id, someone(), "again").await.is_err());
    assert!(open(None).await.unwrap().is_empty());
    assert!(kinds(&engine).await.contains(&"fault.reported".to_owned()));
}
