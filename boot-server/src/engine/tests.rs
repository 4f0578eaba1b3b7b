//! The engine over a real store: what machines and people do, and what survives.

use std::net::IpAddr;
use std::time::Duration;

use boot_server_core::deploy::DeployRequest;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Claim, Effect, Event, Node, Phase, RunStage, State, StateName};
use proptest::prelude::*;
use protocol::agent::{Hello, Work};
use protocol::inventory::{Disk, DiskContent, Inventory, Transport};
use protocol::report::{Report, ReportBatch, ReportBody, Stage, Summary};
use protocol::{MacAddr, PROTOCOL_VERSION, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::config::{Config, Interface, Network};
use crate::store::db;
use crate::store::tests::Scratch;

/// Settings of a server on loopback with its state in `scratch`.
pub(crate) fn settings(scratch: &Scratch) -> Settings {
    let mut config = Config { state_dir: scratch.0.clone(), ..Config::default() };
    config.provisioning.interface = Some("lo".into());
    let ipv4 = Some(Network { address: [127, 0, 0, 1].into(), prefix: 24 });
    let lo = Interface { name: "lo".into(), ipv4, ipv6: Vec::new() };
    Settings::new(&config, &[lo]).unwrap()
}

/// An overlay whose databases nobody answers for.
pub(crate) fn with_overlay(settings: &mut Settings) {
    settings.overlay = Some(crate::config::OverlaySettings {
        northbound: "tcp:127.0.0.1:1".parse().ok(),
        southbound: Some("tcp:127.0.0.1:1".to_owned()),
        encap: boot_server_core::network::Encap::Geneve,
        mtu: 1442,
        gateways: Vec::new(),
        mirror_to: Vec::new(),
    });
}

pub(crate) async fn engine(scratch: &Scratch) -> Engine {
    let settings = settings(scratch);
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    Engine::open(settings, Store::open(&scratch.database()).unwrap(), images).await.unwrap()
}

pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}

pub(crate) fn claim(n: u8) -> Claim {
    Claim { uuid: Some(Uuid::from_u128(0xabcd_0000 + u128::from(n))), serial: None, macs: vec![mac(n)] }
}

pub(crate) fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, n])
}

pub(crate) fn hello(nonce: String, macs: Vec<MacAddr>) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        agent_version: "1".into(),
        kernel: "6.1".into(),
        nonce,
        uuid: None,
        serial: None,
        macs,
        uptime_ms: 3000,
    }
}

pub(crate) fn inventory() -> Inventory {
    let disk = Disk {
        id: Some("serial:D1".parse().unwrap()),
        name: "vda".into(),
        bus_path: None,
        model: None,
        serial: Some("D1".into()),
        wwn: None,
        firmware: None,
        size_bytes: 4 << 30,
        logical_sector: 512,
        physical_sector: 512,
        rotational: false,
        transport: Transport::Virtio,
        removable: false,
        read_only: false,
        content: DiskContent::Blank,
    };
    Inventory { disks: vec![disk], memory_bytes: 1 << 30, ..Inventory::default() }
}

/// Boots machine `n` until its agent has a session, which is returned.
pub(crate) async fn agent(engine: &Engine, n: u8) -> String {
    engine.dhcp_seen(mac(n)).await;
    let BootAnswer::Agent { nonce, .. } = engine.boot(claim(n), address(n)).await.unwrap() else {
        panic!("no agent")
    };
    engine.hello(hello(nonce, vec![mac(n)])).await.unwrap().session
}

pub(crate) async fn discovered(engine: &Engine, n: u8) -> String {
    let session = agent(engine, n).await;
    engine.put_inventory(&session, inventory()).await.unwrap();
    session
}

/// An image of one hole, by the name `tiny`.
pub(crate) fn tiny() -> ::images::Manifest {
    ::images::Manifest {
        format: ::images::manifest::FORMAT.into(),
        name: "tiny".into(),
        version: "1".into(),
        architecture: ::images::Architecture::X86_64,
        firmware: [::images::Firmware::Bios, ::images::Firmware::Uefi].into(),
        partition_table: ::images::PartitionTable::Gpt,
        raw_size: 4 << 20,
        sha256: protocol::Sha256([1; 32]),
        minimum_disk: 4 << 20,
        default_user: Some("admin".into()),
        datasource: None,
        chunk_size: 4 << 20,
        chunks: vec![None],
    }
}

/// The same in the store, signed.
pub(crate) async fn image(engine: &Engine) -> protocol::ImageId {
    let id = engine.images().writer().put_manifest(&tiny()).unwrap();
    engine.add_image_row(id, now(), "test").await.unwrap();
    engine.sign_image(Actor::Server, &id.to_string()).await.unwrap();
    id
}

fn request(node: &Node) -> DeployRequest {
    DeployRequest { image: "tiny".into(), confirm: Some(node.name.clone()), ..DeployRequest::default() }
}

async fn only_node(engine: &Engine) -> Node {
    let mut nodes = engine.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1);
    Arc::unwrap_or_clone(nodes.remove(0))
}

pub(crate) async fn kinds(engine: &Engine) -> Vec<String> {
    let filter = EventFilter { after: Some(0), limit: 1000, ..EventFilter::default() };
    engine.events(filter).await.unwrap().into_iter().map(|e| e.kind).collect()
}

pub(crate) fn finished() -> ReportBody {
    ReportBody::Finished { summary: Summary::default() }
}

/// What an agent says of a disk that it erased.
pub(crate) fn erased(disk: &protocol::job::DiskTarget) -> ReportBody {
    use protocol::erase::{EraseMethod, EraseRecord, EraseResult, Grade, Sampled};
    let sampled = Sampled { random: 1024, start: 512, end: 512, sentinels: 64, ..Sampled::default() };
    ReportBody::Disk {
        record: Box::new(EraseRecord {
            disk: Some(disk.id.clone()),
            name: "sda".into(),
            model: None,
            serial: None,
            wwn: None,
            firmware: None,
            size_bytes: disk.size_bytes,
            transport: protocol::inventory::Transport::Sata,
            result: EraseResult::Erased,
            method: Some(EraseMethod::Overwrite),
            grade: Grade::Clear,
            not_used: Vec::new(),
            began: Timestamp(1),
            ended: Timestamp(2),
            sampled: Some(sampled),
        }),
    }
}

async fn report(engine: &Engine, session: &str, seq: u64, body: ReportBody) -> protocol::agent::ReportReply {
    let job = only_node(engine).await.state.run().unwrap().job.id;
    let reports = vec![Report { seq, at: Timestamp(0), body }];
    engine.report(session, ReportBatch { job, reports }).await.unwrap()
}

#[tokio::test]
async fn a_machine_is_discovered_deployed_and_stays_active() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    image(&engine).await;
    let session = discovered(&engine, 1).await;
    let node = only_node(&engine).await;
    assert_eq!((node.name.as_str(), node.state.name()), ("node-000001", StateName::Available));
    assert!(node.timeline.at(Phase::Dhcp).is_some(), "the sighting of before it was a node");

    let waiting = tokio::spawn({
        let (engine, session) = (engine.clone(), session.clone());
        async move { engine.next_work(&session, Duration::from_secs(20)).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let who = Actor::Operator("op".into());
    let node = engine.deploy(&node, who, request(&node), false, None).await.unwrap();
    let Work::Job { job } = waiting.await.unwrap() else { panic!("no job") };
    assert_eq!(Some(&*job), node.state.run().map(|r| &r.job));
    assert_eq!(report(&engine, &session, 1, ReportBody::Stage { stage: Stage::Write }).await.acked, 1);

    // The token is in what the OS gets, and nowhere in what is stored of the node but as a hash.
    let protocol::job::Task::Deploy(spec) = &job.task else { panic!("no deploy") };
    let vendor = spec.config.as_ref().unwrap().vendor_data.clone();
    let token = vendor.split("/phone-home/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(node.state.run().unwrap().phone_home, Some(crate::secret::hash(&token)));

    assert_eq!(report(&engine, &session, 2, finished()).await.acked, 2);
    assert_eq!(engine.next_work(&session, Duration::ZERO).await.unwrap(), Work::Reboot);
    let answer = engine.boot(claim(1), address(1)).await.unwrap();
    assert_eq!(answer, BootAnswer::LocalDisk { name: "node-000001".into() });
    assert!(matches!(engine.session(&session), Err(EngineError::NoSession)), "the agent is gone");
    let token = crate::secret::hash(&token);
    let id = engine.node_of_phone_home(token).unwrap();
    engine.apply(id, Actor::Machine, Event::PhoneHome { token, host_keys: Vec::new() }).await.unwrap();
    assert_eq!(only_node(&engine).await.state.name(), StateName::Active);
    assert!(engine.is_home(id, token), "a second call is known as such");
    assert!(matches!(engine.boot(claim(1), address(1)).await.unwrap(), BootAnswer::LocalDisk { .. }));
    let all = kinds(&engine).await;
    for kind in ["node.discovered", "agent.hello", "deploy.requested", "deploy.written", "deploy.finished"] {
        assert_eq!(all.iter().filter(|k| *k == kind).count(), 1, "{kind} in {all:?}");
    }
}

#[tokio::test]
async fn a_restart_keeps_nodes_sessions_and_jobs() {
    let scratch = Scratch::new();
    let session = {
        let engine = engine(&scratch).await;
        image(&engine).await;
        let session = discovered(&engine, 1).await;
        let node = only_node(&engine).await;
        engine.deploy(&node, Actor::Agent, request(&node), false, None).await.unwrap();
        engine.next_work(&session, Duration::ZERO).await.unwrap();
        report(&engine, &session, 1, ReportBody::Stage { stage: Stage::Write }).await;
        engine.store().close();
        session
    };
    let engine = engine(&scratch).await;
    engine.started().await;
    let node = only_node(&engine).await;
    assert_eq!(node.state.run().unwrap().stage, RunStage::Agent(Stage::Write));
    assert_eq!(engine.inventory(node.id).await.unwrap().as_deref(), Some(&inventory()));
    let again = report(&engine, &session, 1, ReportBody::Stage { stage: Stage::Plan }).await;
    assert_eq!((again.acked, again.abort), (1, false));
    assert_eq!(only_node(&engine).await.state.run().unwrap().stage, RunStage::Agent(Stage::Write));
}

/// Whoever asks may hang up at any moment; what was begun is then done, and known.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_step() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    // Polled once: far enough to begin, not far enough to end.
    async fn begin_only<F: Future>(asked: F) {
        assert!(futures_util::FutureExt::now_or_never(asked).is_none());
    }
    begin_only(engine.boot(claim(1), address(1))).await;
    let answer = engine.boot(claim(1), address(1)).await.unwrap();
    assert!(matches!(answer, BootAnswer::Agent { .. }));
    let node = only_node(&engine).await;
    let rename = Event::Verb(Verb::Rename { name: "web".into() });
    begin_only(engine.apply(node.id, Actor::Agent, rename)).await;
    for _ in 0..200 {
        if engine.node("web").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the step that was begun is not known");
}

#[tokio::test]
async fn an_idempotency_key_does_a_deploy_once() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    image(&engine).await;
    discovered(&engine, 1).await;
    let node = only_node(&engine).await;
    let deploy = |request: DeployRequest| {
        let (engine, node) = (engine.clone(), node.clone());
        async move { engine.deploy(&node, Actor::Agent, request, false, Some("key-1".into())).await }
    };
    let (first, second) = tokio::join!(deploy(request(&node)), deploy(request(&node)));
    let job = |node: Node| node.state.run().unwrap().job.id;
    assert_eq!(job(first.unwrap()), job(second.unwrap()));
    deploy(request(&node)).await.unwrap();
    let other = DeployRequest { hostname: Some("other".into()), ..request(&node) };
    assert!(matches!(deploy(other).await, Err(EngineError::KeyReused(_))));
    let requested = kinds(&engine).await.into_iter().filter(|k| k == "deploy.requested").count();
    assert_eq!(requested, 1);
}

#[tokio::test]
async fn a_preview_changes_nothing() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    image(&engine).await;
    discovered(&engine, 1).await;
    let node = only_node(&engine).await;
    let unconfirmed = DeployRequest { confirm: None, ..request(&node) };
    let preview = engine.preview(&node, &unconfirmed).await.unwrap();
    assert_eq!(preview.refused, None);
    assert_eq!(preview.target.unwrap().as_str(), "serial:D1");
    assert!(preview.disks[0].erased);
    let missing = DeployRequest { image: "nope".into(), ..request(&node) };
    let refused = engine.preview(&node, &missing).await.unwrap().refused.unwrap();
    assert_eq!((refused.status, refused.code.as_str()), (404, "image-not-found"));
    assert_eq!(only_node(&engine).await, node);
}

#[tokio::test]
async fn an_image_that_a_job_needs_is_kept() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let id = image(&engine).await;
    discovered(&engine, 1).await;
    let node = only_node(&engine).await;
    engine.deploy(&node, Actor::Agent, request(&node), false, None).await.unwrap();
    assert!(matches!(engine.remove_image("tiny").await, Err(EngineError::ImageInUse { .. })));
    engine.apply(node.id, Actor::Agent, Event::Verb(Verb::Abort)).await.unwrap();
    engine.remove_image("tiny:1").await.unwrap();
    assert!(engine.image_rows().await.unwrap().is_empty());
    assert!(engine.images().manifest(id).is_err());
}

#[tokio::test]
async fn images_and_their_list_agree_after_a_crash() {
    let scratch = Scratch::new();
    {
        let engine = engine(&scratch).await;
        let id = image(&engine).await;
        // As if the power had gone between the two.
        engine.store().write(move |db| queries::delete_image(db, id)).await.unwrap();
        engine.store().close();
    }
    let engine = engine(&scratch).await;
    assert_eq!(engine.resolve_image("tiny").await.unwrap().1.version, "1");
}

#[tokio::test]
async fn power_is_asked_for_once() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    discovered(&engine, 1).await;
    let node = only_node(&engine).await;
    let id = node.id;
    let effect = move |db: &db::Connection| queries::insert_effect(db, id, Effect::PowerCycle, now());
    engine.store().write(effect).await.unwrap();
    let stop = CancellationToken::new();
    let workers =
        [tokio::spawn(run(engine.clone(), stop.clone())), tokio::spawn(run(engine.clone(), stop.clone()))];
    async fn run(engine: Engine, stop: CancellationToken) {
        engine.run_effects(stop).await;
    }
    let asked = || async { kinds(&engine).await.into_iter().filter(|k| k == "power.wanted").count() };
    for _ in 0..100 {
        if asked().await > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(asked().await, 1);
}

#[tokio::test]
async fn machines_that_cannot_be_told_apart_are_refused() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    agent(&engine, 1).await;
    agent(&engine, 2).await;
    let both = Claim { macs: vec![mac(1), mac(2)], ..claim(9) };
    assert!(matches!(engine.boot(both, address(9)).await.unwrap(), BootAnswer::Refuse { .. }));
    let nobody = Claim::default();
    assert!(matches!(engine.boot(nobody, address(9)).await.unwrap(), BootAnswer::Refuse { .. }));
    // The address of one and the UUID of another: the address decides.
    let mixed = Claim { macs: vec![mac(1)], ..claim(2) };
    assert!(
        matches!(engine.boot(mixed, address(9)).await.unwrap(), BootAnswer::Agent { name, .. } if name == "node-000001")
    );
    let conflicts = kinds(&engine).await.into_iter().filter(|k| k == "identity.conflict").count();
    assert_eq!(conflicts, 2);
    assert_eq!(engine.nodes().await.unwrap().len(), 2);
    // An agent cannot take another node's address.
    let session = agent(&engine, 3).await;
    let mut stolen = inventory();
    stolen.nics = vec![];
    engine.put_inventory(&session, stolen).await.unwrap();
    let own = engine.own_addresses(engine.node("node-000003").await.unwrap().id, vec![mac(1), mac(7)]).await;
    assert_eq!(own.unwrap(), [mac(7)]);
}

#[tokio::test]
async fn names_are_unique_and_host_names() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    agent(&engine, 1).await;
    let same_tail = Claim { macs: vec![MacAddr([2, 9, 9, 0, 0, 1])], ..Claim::default() };
    engine.boot(same_tail, address(2)).await.unwrap();
    let names: Vec<String> = engine.nodes().await.unwrap().into_iter().map(|n| n.name.clone()).collect();
    assert_eq!(names, ["node-000001", "node-000001-2"]);
    let rename = |name: &str| Event::Verb(Verb::Rename { name: name.into() });
    let id = engine.node("node-000001").await.unwrap().id;
    let taken = engine.apply(id, Actor::Agent, rename("node-000001-2")).await;
    assert!(matches!(taken, Err(EngineError::NameTaken(_))));
    for bad in ["", "a b", "-x", "a.b", "<script>"] {
        assert!(
            matches!(engine.apply(id, Actor::Agent, rename(bad)).await, Err(EngineError::BadName(_))),
            "{bad}"
        );
    }
    engine.apply(id, Actor::Agent, rename("web-1")).await.unwrap();
    assert_eq!(engine.node("web-1").await.unwrap().id, id);
}

#[tokio::test]
async fn a_machine_that_asks_twice_at_once_is_one_node() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    let asks = (0..8).map(|_| engine.boot(claim(1), address(1)));
    for answer in futures_util::future::join_all(asks).await {
        assert!(matches!(answer.unwrap(), BootAnswer::Agent { .. }));
    }
    only_node(&engine).await;
}

#[test]
fn a_boot_begins_with_its_first_discover() {
    let mut sightings = Sightings::default();
    let at = |s: u64| Timestamp(s * 1000);
    assert_eq!(sightings.note(mac(1), at(10)), at(10));
    assert_eq!(sightings.note(mac(1), at(14)), at(10), "the firmware asks again, then iPXE");
    assert_eq!(sightings.note(mac(1), at(200)), at(200), "a long silence: another boot");
    sightings.finish(mac(1)).unwrap();
    assert_eq!(sightings.note(mac(1), at(220)), at(220), "the script was served: another boot");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Whatever was acknowledged stands in the database as it stood in memory.
    #[test]
    fn what_was_acknowledged_is_stored(steps in prop::collection::vec((1_u8..4, 0_u8..10), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let scratch = Scratch::new();
            let first = engine(&scratch).await;
            image(&first).await;
            let mut sessions = std::collections::BTreeMap::new();
            for (n, what) in steps {
                let node = first.node(&format!("node-00000{n}")).await.ok();
                match (what, node) {
                    (0..=2, _) => match first.boot(claim(n), address(n)).await.unwrap() {
                        BootAnswer::Agent { nonce, .. } => {
                            let welcome = first.hello(hello(nonce, vec![mac(n)])).await.unwrap();
                            sessions.insert(n, welcome.session);
                        }
                        BootAnswer::LocalDisk { .. } | BootAnswer::Ordered { .. } => {}
                        BootAnswer::Refuse { why } => panic!("{why}"),
                    },
                    (3, _) => {
                        if let Some(session) = sessions.get(&n) {
                            drop(first.put_inventory(session, inventory()).await);
                        }
                    }
                    (4..=5, Some(node)) => drop(first.deploy(&node, Actor::Agent, request(&node), false, None).await),
                    (6..=7, _) => {
                        if let Some(session) = sessions.get(&n) {
                            drop(first.next_work(session, Duration::ZERO).await);
                        }
                    }
                    (8, Some(node)) => {
                        let verb = if n == 1 { Verb::Abort } else { Verb::Retry };
                        drop(first.apply(node.id, Actor::Agent, Event::Verb(verb)).await);
                    }
                    (9, Some(node)) => {
                        if let (Some(session), Some(run)) = (sessions.get(&n), node.state.run()) {
                            let reports = vec![Report { seq: run.acked + 1, at: now(), body: finished() }];
                            drop(first.report(session, ReportBatch { job: run.job.id, reports }).await);
                        }
                    }
                    _ => {}
                }
            }
            let in_memory = first.nodes().await.unwrap();
            // No clean stop: a second engine opens the same files, as after a crash. (A database of PostgreSQL's is had by
            // one at a time.)
            if crate::store::tests::on_postgres() {
                first.store().close();
            }
            let second = engine(&scratch).await;
            assert_eq!(second.nodes().await.unwrap(), in_memory);
            for node in &in_memory {
                assert_eq!(matches!(node.state, State::Failed(_)), node.state.name() == StateName::Failed);
            }
            first.store().close();
            second.store().close();
        });
    }
}
