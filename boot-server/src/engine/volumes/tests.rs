//! Volumes over a real store and real files, with a DPU that is played here.

mod agent;
mod fills;
mod functions;
mod hosts;
mod instant;

use std::time::{Duration, Instant};

use boot_server_core::node::StateName;
use boot_server_core::quota::Limits;
use boot_server_core::server::{BootVolume, Phase as ServerPhase, Server};
use boot_server_core::usage::{Kind, Period};
use boot_server_core::volume::Status;
use protocol::Timestamp;
use protocol::agent::Password;
use protocol::counters::{Counters, DiskCounters, VolumeCounters};
use protocol::dial::{Facts, Hello, HostFunction, Orders, Report, Welcome};
use protocol::dpu::{Desired, Exporter, Name, Observed, PortSeen, VERSION, VolumeSeen};
use protocol::functions::{FunctionPlan, FunctionsSeen, SettingSeen};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::engine::servers::tests::{living, site_over, someone, wish};
use crate::engine::tests::mac;
use crate::engine::{DpuChange, DpuError, lock};
use crate::store::queries::EventFilter;
use crate::store::tests::Scratch;

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const PATIENCE: Duration = Duration::from_secs(60);

fn facts(n: u8) -> Facts {
    Facts {
        hostname: format!("dpu-{n}"),
        kernel: "6.1".into(),
        functions: vec![HostFunction { interface: "pf0hpf".into(), mac: mac(n) }],
        ..Facts::default()
    }
}

fn hello(secret: &str, token: Option<String>, n: u8) -> Hello {
    let token = token.map(Password);
    Hello {
        version: VERSION,
        agent_version: "1".into(),
        secret: Password(secret.into()),
        token,
        facts: facts(n),
    }
}

/// A DPU that is what it is told, until the test ends.
struct Played {
    secret: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn as_told(state: &Desired) -> Observed {
    let name = |text: &str| text.parse::<Name>().unwrap();
    Observed {
        version: VERSION,
        generation: Some(state.generation),
        settled: true,
        problems: Vec::new(),
        ports: state
            .ports
            .iter()
            .map(|port| (port.interface.to_string(), Some(port.port.to_string()), None))
            .chain(
                state
                    .provisioning
                    .iter()
                    .map(|access| (access.interface.to_string(), None, Some(access.bridge.to_string()))),
            )
            .map(|(interface, port, bridge)| PortSeen {
                interface,
                port,
                bridge,
                number: Some(1),
                up: true,
                error: None,
            })
            .collect(),
        mirrors: Vec::new(),
        functions: state.functions.as_ref().map(firmware),
        volumes: state
            .volumes
            .iter()
            .map(|volume| VolumeSeen {
                name: name(volume.name.as_str()),
                pid: Some(1),
                in_use: true,
                restarts: 0,
                plugged: None,
                instant: None,
            })
            .collect(),
        discarded: Vec::new(),
    }
}

/// Firmware that has what is planned.
fn firmware(plan: &FunctionPlan) -> FunctionsSeen {
    let pfs = u64::from(plan.blk.pfs);
    let key = "VIRTIO_BLK_EMULATION_NUM_PF".to_owned();
    let one = SettingSeen { key, wanted: pfs, current: Some(pfs), next: Some(pfs) };
    FunctionsSeen { settings: vec![one], needs_reset: false }
}

async fn play(engine: &Engine, secret: &str, n: u8) -> Played {
    play_as(engine, &format!("dpu-{n}"), secret, n).await
}

/// DPU `name`, beside the n-th machine.
async fn play_as(engine: &Engine, name: &str, secret: &str, n: u8) -> Played {
    let (known, token) = engine.create_dpu(someone(), name.to_owned(), DpuChange::default()).await.unwrap();
    let peer = std::net::IpAddr::from([10, 77, 0, 100 + n]);
    let welcome = engine.dpu_hello(hello(secret, Some(token), n), peer).await.unwrap();
    assert_eq!(welcome, Welcome::Accepted { dpu: known.dpu.id, name: known.dpu.name });
    play_on(engine, secret)
}

/// One that is known already.
fn play_on(engine: &Engine, secret: &str) -> Played {
    let (engine, own) = (engine.clone(), secret.to_owned());
    let task = tokio::spawn(async move {
        let mut report = Report { generation: None, observed: None, counters: None };
        loop {
            let orders = engine.dpu_state(&own, report.clone(), Duration::from_secs(5)).await.unwrap();
            if let Orders::State { state } = orders {
                report = Report {
                    generation: Some(state.generation),
                    observed: Some(Box::new(as_told(&state))),
                    counters: None,
                };
            }
        }
    });
    Played { secret: secret.to_owned(), task }
}

async fn until(engine: &Engine, project: ProjectId, volume: &str, status: Status) -> Volume {
    let begun = Instant::now();
    loop {
        let found = engine.volume(project, volume).await.unwrap();
        if found.status() == status {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{volume} is {} and not {status}: {:?}",
            found.status(),
            found.note
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn blank(name: &str) -> NewVolume {
    NewVolume { name: name.into(), size: Some(4 << 20), ..NewVolume::default() }
}

async fn driven(engine: &Engine) -> tokio_util::sync::DropGuard {
    let stop = CancellationToken::new();
    let (volumes, servers) = (engine.clone(), engine.clone());
    let (first, second) = (stop.clone(), stop.clone());
    tokio::spawn(async move { volumes.run_volumes(first).await });
    tokio::spawn(async move { servers.run_servers(second).await });
    stop.drop_guard()
}

async fn server(engine: &Engine, project: ProjectId, name: &str, phase: ServerPhase) -> Server {
    let begun = Instant::now();
    loop {
        let found = engine.server(project, name).await.unwrap();
        if found.phase == phase {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is {} and not {phase}: {:?}", found.phase, found.note);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A disk of 4 MiB with a GUID partition table (UEFI 2.10 section 5.3) and one partition.
fn disk() -> Vec<u8> {
    const SECTORS: u64 = (4 << 20) / 512;
    let mut disk = vec![0; 4 << 20];
    disk[450] = 0xee;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let linux = uuid::uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4").to_bytes_le();
    disk[1024..1040].copy_from_slice(&linux);
    disk[1040..1056].fill(7);
    disk[1056..1064].copy_from_slice(&2048_u64.to_le_bytes());
    disk[1064..1072].copy_from_slice(&(SECTORS - 34).to_le_bytes());
    let entries = crc32fast::hash(&disk[1024..1024 + 128 * 128]);
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    for (at, value) in [(24, 1), (32, SECTORS - 1), (40, 34), (48, SECTORS - 34), (72, 2)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[56..72].fill(9);
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[512..604].copy_from_slice(&header);
    disk
}

/// An image by the name `disk`.
async fn disk_image(engine: &Engine, scratch: &Scratch) {
    let path = scratch.0.join("disk.raw");
    std::fs::write(&path, disk()).unwrap();
    let store = engine.images().clone();
    let options = ::images::IngestOptions::new("disk", "1", ::images::Architecture::X86_64);
    let source = ::images::Source::path(&path).unwrap();
    let ingested = tokio::task::spawn_blocking(move || {
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        ::images::ingest(&store, source, options, go_on).unwrap()
    });
    let manifest = ingested.await.unwrap();
    engine.add_image_row(manifest.id(), now(), "test").await.unwrap();
    engine.sign_image(Actor::Server, &manifest.id().to_string()).await.unwrap();
}

/// Server `web`, which runs from its own machine's disk.
async fn active(engine: &Engine, project: ProjectId, session: &str) {
    engine.create_servers(project, someone(), wish("web", 1), None).await.unwrap();
    server(engine, project, "web", ServerPhase::Deploying).await;
    crate::engine::servers::tests::play(engine, 1, session).await;
    server(engine, project, "web", ServerPhase::Active).await;
}

async fn stored(engine: &Engine) -> usize {
    engine.0.backends["files"].list().await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_lives_from_its_making_to_its_end() {
    let scratch = Scratch::new();
    let (engine, project, _) = site_over(&scratch, 0).await;
    let _driven = driven(&engine).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    let volume = until(&engine, project, "data", Status::Available).await;
    assert_eq!((volume.size, stored(&engine).await), (4 << 20, 1));
    let again = engine.create_volume(project, someone(), blank("data")).await.unwrap_err();
    assert!(matches!(again, EngineError::NameTaken(_)), "{again}");

    let change = VolumeChange { name: Some("more".into()), size: Some(8 << 20), ..VolumeChange::default() };
    let grown = engine.change_volume(project, "data", someone(), change).await.unwrap();
    assert_eq!((grown.name.as_str(), grown.size), ("more", 8 << 20));
    let shrink = VolumeChange { size: Some(1 << 20), ..VolumeChange::default() };
    assert!(engine.change_volume(project, "more", someone(), shrink).await.is_err(), "never smaller");

    let snapshot = engine.create_snapshot(project, someone(), "more", "before".into()).await.unwrap();
    let of = NewVolume { name: "copy".into(), from: From::Snapshot("before".into()), ..NewVolume::default() };
    engine.create_volume(project, someone(), of).await.unwrap();
    let copy = until(&engine, project, "copy", Status::Available).await;
    assert_eq!((copy.size, copy.kind.as_str()), (snapshot.size, "files"));
    assert!(engine.delete_volume(project, "more", someone()).await.is_err(), "it has a snapshot");
    engine.delete_snapshot(project, someone(), "before").await.unwrap();
    for name in ["more", "copy"] {
        let id = engine.delete_volume(project, name, someone()).await.unwrap().id.to_string();
        until(&engine, project, &id, Status::Deleted).await;
    }
    assert_eq!(stored(&engine).await, 0, "nothing is left");
    engine.store().close();
}

/// Many at once take what the quota lets them, and no more; what was taken is in the report, for as long as it was theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_and_snapshots_are_counted_as_they_come_and_go() {
    let scratch = Scratch::new();
    let (engine, project, _) = site_over(&scratch, 0).await;
    let _driven = driven(&engine).await;
    let limits = |volumes, gib| Limits {
        volumes: Some(volumes),
        volume_gib: Some(gib),
        snapshots: Some(1),
        ..Limits::default()
    };
    engine.set_quota(project, someone(), limits(3, 100)).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..12 {
        let engine = engine.clone();
        asked.spawn(async move { engine.create_volume(project, someone(), blank(&format!("v{n}"))).await });
    }
    let made: Vec<_> = asked.join_all().await.into_iter().collect::<Vec<_>>();
    let codes: Vec<String> =
        made.iter().filter_map(|made| made.as_ref().err().map(|error| error.problem().code)).collect();
    assert_eq!((made.len(), codes.len()), (12, 9), "three of twelve");
    assert!(codes.iter().all(|code| code == "quota"), "{codes:?}");
    let used = engine.quota(project).await.unwrap().used;
    assert_eq!((used.volumes, used.volume_gib), (3, 3), "a GiB that is begun counts whole");

    let mut living = made.into_iter().flatten().map(|volume| volume.name);
    let (first, second) = (living.next().unwrap(), living.next().unwrap());
    until(&engine, project, &first, Status::Available).await;
    let to = |size| VolumeChange { size: Some(size), ..VolumeChange::default() };
    engine.set_quota(project, someone(), limits(3, 4)).await.unwrap();
    let larger = engine.change_volume(project, &first, someone(), to(3 << 30)).await.unwrap_err();
    assert_eq!(larger.problem().code, "quota");
    engine.change_volume(project, &first, someone(), to(2 << 30)).await.unwrap();
    assert_eq!(engine.quota(project).await.unwrap().used.volume_gib, 4);

    engine.create_snapshot(project, someone(), &first, "one".into()).await.unwrap();
    let two = engine.create_snapshot(project, someone(), &first, "two".into()).await.unwrap_err();
    assert_eq!(two.problem().code, "quota");
    engine.delete_snapshot(project, someone(), "one").await.unwrap();
    until(&engine, project, &second, Status::Available).await;
    let gone = engine.delete_volume(project, &second, someone()).await.unwrap().id;
    until(&engine, project, &gone.to_string(), Status::Deleted).await;
    let used = engine.quota(project).await.unwrap().used;
    assert_eq!((used.volumes, used.volume_gib, used.snapshots), (2, 3, 0));

    let period = Period { from: Timestamp(0), to: Timestamp(u64::MAX >> 2) };
    let rows = engine.store().read(move |db| usage::records(db, Some(project), period)).await.unwrap();
    let of = |kind, name: &str| -> Vec<(u64, bool)> {
        let own = rows.iter().filter(|row| row.kind == kind && row.name == name);
        own.map(|row| (row.amounts.volume_gib, row.ended.is_some())).collect()
    };
    assert_eq!(of(Kind::Volume, &first), [(1, true), (2, false)], "one record per size");
    assert_eq!(of(Kind::Volume, &second), [(1, true)]);
    assert_eq!(of(Kind::Snapshot, "one"), [(0, true)]);
    assert!(rows.iter().all(|row| row.flavor.as_deref() == Some("files")), "each with its type: {rows:?}");
    engine.store().close();
}

/// A limit reaches the DPU that presents the volume, while its host uses it, and goes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_a_volume_is_used() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let played = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    until(&engine, project, "data", Status::Available).await;
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    let told = || {
        let known = engine.dpu("dpu-1").unwrap();
        known.desired.unwrap().volumes[0].limits
    };
    assert_eq!(told(), None);
    for (iops, bytes_per_second, expected) in [
        (Some(50), None, Some(IoLimits { iops: Some(50), bytes_per_second: None })),
        (None, Some(1 << 20), Some(IoLimits { iops: Some(50), bytes_per_second: Some(1 << 20) })),
        (Some(0), Some(0), None),
    ] {
        let change = VolumeChange { iops, bytes_per_second, ..VolumeChange::default() };
        let made = engine.change_volume(project, "data", someone(), change).await.unwrap();
        assert_eq!((made.limits, made.status()), (expected, Status::InUse));
        let begun = Instant::now();
        while told() != expected {
            assert!(begun.elapsed() < PATIENCE, "the DPU is not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let above = VolumeChange { iops: Some(u64::MAX), ..VolumeChange::default() };
    assert_eq!(
        engine.change_volume(project, "data", someone(), above).await.unwrap_err().problem().code,
        "bad-volume"
    );

    // What it counts is shown with the volume, and nothing of a volume that is not its own.
    let volume = engine.volume(project, "data").await.unwrap();
    let disk = DiskCounters { errors: 4, ..DiskCounters::default() };
    let counters = Counters {
        ports: Vec::new(),
        volumes: vec![VolumeCounters { name: volume.id.to_string().parse().unwrap(), disk }],
    };
    let generation = engine.dpu("dpu-1").unwrap().desired.map(|state| state.generation);
    let report = Report { generation, observed: None, counters: Some(Box::new(counters)) };
    engine.dpu_state(&played.secret, report, Duration::ZERO).await.unwrap();
    assert_eq!(engine.volume_counters(&volume).unwrap().1, disk);
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_in_words() {
    let scratch = Scratch::new();
    let (engine, project, _) = site_over(&scratch, 0).await;
    for (wish, why) in [
        (NewVolume { name: "a b".into(), ..blank("x") }, "not a name"),
        (NewVolume { size: Some(1000), ..blank("x") }, "no multiple"),
        (NewVolume { size: None, ..blank("x") }, "no multiple"),
        (NewVolume { kind: Some("gold".into()), ..blank("x") }, "no volume type `gold`"),
        (NewVolume { from: From::Image("none".into()), ..blank("x") }, "no image"),
        (NewVolume { from: From::Snapshot("none".into()), ..blank("x") }, "no snapshot"),
        (NewVolume { from: From::Image("tiny".into()), size: Some(1 << 20), ..blank("x") }, "fewer than"),
    ] {
        let error = engine.create_volume(project, someone(), wish).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(
        engine
            .volumes(project, VolumeFilter { limit: 9, ..VolumeFilter::default() })
            .await
            .unwrap()
            .is_empty()
    );
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_comes_in_with_its_token_or_waits() {
    let scratch = Scratch::new();
    let (engine, _, _) = site_over(&scratch, 1).await;
    let peer = std::net::IpAddr::from([10, 77, 0, 101]);
    let (known, token) = engine.create_dpu(someone(), "front".into(), DpuChange::default()).await.unwrap();
    let wrong = engine.dpu_hello(hello(SECRET, Some("wrong".into()), 1), peer).await.unwrap_err();
    assert!(matches!(wrong, EngineError::Dpu(DpuError::Token)));
    let stranger = "11".repeat(32);
    let waits = engine.dpu_hello(hello(&stranger, None, 2), peer).await.unwrap();
    assert!(matches!(waits, Welcome::Waiting { .. }));
    let report = Report { generation: None, observed: None, counters: None };
    let refused = engine.dpu_state(&stranger, report.clone(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(refused, EngineError::Dpu(DpuError::Stranger)));

    engine.dpu_hello(hello(SECRET, Some(token.clone()), 1), peer).await.unwrap();
    let used = engine.dpu_hello(hello(&"22".repeat(32), Some(token), 1), peer).await.unwrap_err();
    assert!(matches!(used, EngineError::Dpu(DpuError::Token)), "a token is good once");
    let host = engine.dpu("front").unwrap().dpu.node.unwrap();
    assert_eq!(engine.node(&host.to_string()).await.unwrap().identity.macs.iter().next(), Some(&mac(1)));
    let Orders::State { state } = engine.dpu_state(SECRET, report, Duration::ZERO).await.unwrap() else {
        panic!("it is told nothing")
    };
    assert_eq!((state.generation, state.provisioning.len(), state.ports.len()), (1, 1, 0));

    let name = engine.dpus().into_iter().find(|known| !known.dpu.accepted).unwrap().dpu.name;
    assert_eq!(name, "dpu-2");
    engine.change_dpu(someone(), &name, DpuChange { accept: true, ..DpuChange::default() }).await.unwrap();
    let accepted = engine.dpu_hello(hello(&stranger, None, 2), peer).await.unwrap();
    assert!(matches!(accepted, Welcome::Accepted { .. }));
    engine.remove_dpu(someone(), &known.dpu.id.to_string()).await.unwrap();
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_that_is_ahead_of_a_restored_server_is_caught_up_with() {
    let scratch = Scratch::new();
    let (engine, _, _) = site_over(&scratch, 1).await;
    let (_, token) = engine.create_dpu(someone(), "front".into(), DpuChange::default()).await.unwrap();
    engine.dpu_hello(hello(SECRET, Some(token), 1), [10, 77, 0, 101].into()).await.unwrap();
    let ahead = Report { generation: Some(41), observed: None, counters: None };
    let Orders::State { state } = engine.dpu_state(SECRET, ahead, Duration::ZERO).await.unwrap() else {
        panic!("it is told nothing")
    };
    assert_eq!(state.generation, 42);
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_volume_is_given_and_taken_three_times() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let _dpu = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    let id = until(&engine, project, "data", Status::Available).await.id;
    for _ in 0..3 {
        engine.attach_volume(project, "data", someone(), "web").await.unwrap();
        until(&engine, project, "data", Status::InUse).await;
        let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
        let [disk] = state.volumes.as_slice() else { panic!("{:?}", state.volumes) };
        assert_eq!(disk.name.as_str(), id.to_string());
        assert!(matches!(disk.exporter, Exporter::Qsd { backend: protocol::dpu::Backend::File { .. } }));
        assert!(engine.delete_volume(project, "data", someone()).await.is_err(), "a server has it");
        assert!(engine.remove_dpu(someone(), "dpu-1").await.is_err(), "it has a disk");
        engine.detach_volume(project, "data", someone()).await.unwrap();
        let volume = until(&engine, project, "data", Status::Available).await;
        assert_eq!(engine.store().read(move |db| rows::access(db, volume.id)).await.unwrap(), None);
        assert!(engine.dpu("dpu-1").unwrap().desired.unwrap().volumes.is_empty());
    }
    engine.store().close();
}

/// What a DPU is told to encrypt its only volume with.
fn told_key(engine: &Engine) -> String {
    let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
    let [disk] = state.volumes.as_slice() else { panic!("{:?}", state.volumes) };
    let Some(protocol::dpu::Encryption::Luks { key }) = &disk.encryption else { panic!("{disk:?}") };
    assert!(!format!("{state:?}").contains(&key.0), "it is shown");
    key.0.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_that_of_all_copies_and_goes_with_the_last() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let _dpu = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    let wish = NewVolume { encrypted: true, ..blank("vault") };
    engine.create_volume(project, someone(), wish).await.unwrap();
    let vault = until(&engine, project, "vault", Status::Available).await;
    let header = protocol::dpu::LUKS_HEADER;
    let kept = engine.0.backends["files"].list().await.unwrap();
    assert_eq!(kept.iter().map(|one| one.size).collect::<Vec<_>>(), [(4 << 20) + header]);
    let file = scratch.0.join(format!("volumes/volumes/{}.raw", vault.id));
    assert!(std::fs::read(&file).unwrap().starts_with(b"LUKS\xba\xbe"));
    engine.attach_volume(project, "vault", someone(), "web").await.unwrap();
    until(&engine, project, "vault", Status::InUse).await;
    let key = told_key(&engine);
    assert_eq!(key.len(), 43, "256 bits");
    engine.detach_volume(project, "vault", someone()).await.unwrap();
    until(&engine, project, "vault", Status::Available).await;
    let grown = VolumeChange { size: Some(8 << 20), ..VolumeChange::default() };
    engine.change_volume(project, "vault", someone(), grown).await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), (8 << 20) + header);

    engine.create_snapshot(project, someone(), "vault", "before".into()).await.unwrap();
    let of = NewVolume { name: "copy".into(), from: From::Snapshot("before".into()), ..NewVolume::default() };
    engine.create_volume(project, someone(), of).await.unwrap();
    until(&engine, project, "copy", Status::Available).await;
    engine.attach_volume(project, "copy", someone(), "web").await.unwrap();
    until(&engine, project, "copy", Status::InUse).await;
    assert_eq!(told_key(&engine), key);
    engine.detach_volume(project, "copy", someone()).await.unwrap();
    until(&engine, project, "copy", Status::Available).await;

    engine.delete_snapshot(project, someone(), "before").await.unwrap();
    for (name, kind) in [("vault", "volume.key_kept"), ("copy", "volume.key_destroyed")] {
        let id = engine.delete_volume(project, name, someone()).await.unwrap().id.to_string();
        let gone = until(&engine, project, &id, Status::Deleted).await;
        assert!(gone.key.unwrap().sealed.is_none());
        let events = engine.events(EventFilter { limit: 100, ..EventFilter::default() }).await.unwrap();
        assert!(events.iter().any(|event| event.kind == kind), "{name}: {events:?}");
    }
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_a_dpu_that_is_gone_is_taken_by_force() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let dpu = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    until(&engine, project, "data", Status::Available).await;
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    drop(dpu);
    engine.detach_volume(project, "data", someone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    until(&engine, project, "data", Status::Detaching).await;
    // As though it had said nothing for the time of three heartbeats.
    for known in lock(&engine.0.dpus.all).values_mut() {
        known.seen = Some(protocol::Timestamp(1));
    }
    engine.announce(Change::Dpu(engine.dpu("dpu-1").unwrap().dpu.id));
    until(&engine, project, "data", Status::Available).await;
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_boots_from_a_volume_and_leaves_nothing() {
    let scratch = Scratch::new();
    let (engine, project, _) = site_over(&scratch, 0).await;
    disk_image(&engine, &scratch).await;
    // A machine without a disk of its own.
    let session = crate::engine::tests::agent(&engine, 1).await;
    let diskless = protocol::inventory::Inventory { disks: Vec::new(), ..crate::engine::tests::inventory() };
    engine.put_inventory(&session, diskless).await.unwrap();
    let dpu = play(&engine, SECRET, 1).await;
    assert_eq!(dpu.secret, SECRET);
    let _driven = driven(&engine).await;
    let boot = BootVolume { size: Some(64 << 20), ..BootVolume::default() };
    let wanted = crate::engine::servers::NewServers {
        boot_volume: Some(boot),
        image: "disk".into(),
        ..wish("web", 1)
    };
    engine.create_servers(project, someone(), wanted, None).await.unwrap();
    let made = server(&engine, project, "web", ServerPhase::Deploying).await;
    let node = first_boot(&engine, made.node).await;
    let [volume] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert_eq!((volume.status(), volume.size), (Status::InUse, 64 << 20));
    let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
    assert!(state.volumes[0].boot, "its host boots from it");
    let boot_server_core::node::State::Deploying(run) = &node.state else { panic!() };
    let protocol::job::Task::Deploy(spec) = &run.job.task else { panic!() };
    assert_eq!(spec.target.id.volume(), Some(volume.id));
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;

    engine.delete_server(project, "web", someone()).await.unwrap();
    let begun = Instant::now();
    while !living(&engine, project).await.is_empty() || stored(&engine).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "something is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let node = engine.node(&node.id.to_string()).await.unwrap();
    assert_eq!(node.state.name(), StateName::Available, "its own disk was never written");
    assert!(engine.dpu("dpu-1").unwrap().desired.unwrap().volumes.is_empty());
    engine.store().close();
}

/// A backend that refuses its n-th call of those that change something; the others are those of real files.
struct Failing {
    within: std::sync::Arc<dyn Backend>,
    left: std::sync::atomic::AtomicUsize,
    /// Whether the same call would succeed later.
    passing: bool,
    fencing: ::volume::Fencing,
}

impl Failing {
    fn call(&self) -> Result<(), BackendError> {
        use std::sync::atomic::Ordering::SeqCst;
        let tick = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(SeqCst, SeqCst, tick) {
            Ok(1) if self.passing => {
                let (what, said) = ("be asked".to_owned(), "no".to_owned());
                Err(BackendError::Program { program: "tgtadm", what, said })
            }
            Ok(1) => Err(BackendError::Refused("it was made to fail".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Backend for Failing {
    fn kind(&self) -> ::volume::Kind {
        self.within.kind()
    }

    fn fencing(&self) -> ::volume::Fencing {
        self.fencing
    }

    async fn create(&self, volume: VolumeId, size: u64, from: ::volume::Origin) -> Result<(), BackendError> {
        self.call()?;
        self.within.create(volume, size, from).await
    }

    async fn encrypt(&self, volume: VolumeId, key: &protocol::agent::Password) -> Result<(), BackendError> {
        self.call()?;
        self.within.encrypt(volume, key).await
    }

    async fn resize(&self, volume: VolumeId, size: u64) -> Result<(), BackendError> {
        self.within.resize(volume, size).await
    }

    async fn delete(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.within.delete(volume).await
    }

    async fn snapshot(&self, volume: VolumeId, snapshot: protocol::SnapshotId) -> Result<(), BackendError> {
        self.within.snapshot(volume, snapshot).await
    }

    async fn delete_snapshot(
        &self,
        volume: VolumeId,
        snapshot: protocol::SnapshotId,
    ) -> Result<(), BackendError> {
        self.within.delete_snapshot(volume, snapshot).await
    }

    async fn grant(
        &self,
        volume: VolumeId,
        to: &::volume::Grantee,
    ) -> Result<protocol::dpu::Backend, BackendError> {
        self.call()?;
        self.within.grant(volume, to).await
    }

    async fn revoke(&self, volume: VolumeId) -> Result<(), BackendError> {
        self.within.revoke(volume).await
    }

    async fn write_image(
        &self,
        volume: VolumeId,
        image: ::volume::ImageSource,
        progress: tokio::sync::watch::Sender<::volume::Progress>,
        cancel: CancellationToken,
    ) -> Result<::volume::ImageWritten, BackendError> {
        self.call()?;
        self.within.write_image(volume, image, progress, cancel).await
    }

    async fn capacity(&self) -> Result<::volume::Capacity, BackendError> {
        self.within.capacity().await
    }

    async fn list(&self) -> Result<Vec<::volume::Stored>, BackendError> {
        self.within.list().await
    }

    async fn leftovers(&self) -> Result<Vec<::volume::Leftover>, BackendError> {
        self.within.leftovers().await
    }

    async fn sweep(&self) -> Result<(), BackendError> {
        self.within.sweep().await
    }

    async fn stats(&self, volume: VolumeId) -> Result<::volume::Stats, BackendError> {
        self.within.stats(volume).await
    }
}

/// A site with diskless machines, DPUs that are played, a network, and a backend that refuses its `n`-th call.
async fn failing_site(scratch: &Scratch, n: usize, passing: bool) -> (Engine, ProjectId, Vec<Played>) {
    let left = std::sync::atomic::AtomicUsize::new(n);
    let wrap = |within: std::sync::Arc<dyn Backend>| -> std::sync::Arc<dyn Backend> {
        let fencing = within.fencing();
        std::sync::Arc::new(Failing { within, left, passing, fencing })
    };
    let (engine, project) = crate::engine::servers::tests::site_with(scratch, wrap).await;
    disk_image(&engine, scratch).await;
    let mut dpus = Vec::new();
    for n in 1..=2 {
        let session = crate::engine::tests::agent(&engine, n).await;
        let diskless =
            protocol::inventory::Inventory { disks: Vec::new(), ..crate::engine::tests::inventory() };
        engine.put_inventory(&session, diskless).await.unwrap();
        dpus.push(play(&engine, &format!("{n:02x}").repeat(32), n).await);
    }
    let kind = boot_server_core::network::NetworkKind::Overlay;
    let net = crate::engine::overlay::NewNetwork { name: "net".into(), mtu: None, kind, shared: false };
    engine.create_network(project, someone(), net).await.unwrap();
    (engine, project, dpus)
}

fn booting(name: &str) -> crate::engine::servers::NewServers {
    let boot = BootVolume { size: Some(64 << 20), ..BootVolume::default() };
    crate::engine::servers::NewServers {
        boot_volume: Some(boot),
        networks: vec!["net".into()],
        image: "disk".into(),
        ..wish(name, 1)
    }
}

/// Everything that a server with a boot volume on a network leaves somewhere.
async fn counted(engine: &Engine, server: protocol::ServerId) -> (usize, usize, usize, usize) {
    let volumes = engine.store().read(rows::living).await.unwrap().len();
    let states: Vec<_> = engine.dpus().into_iter().filter_map(|known| known.desired).collect();
    let presented = states.iter().map(|state| state.volumes.len() + state.ports.len());
    (stored(engine).await, volumes, presented.sum(), engine.ports_of(server).len())
}

async fn first_boot(engine: &Engine, node: protocol::NodeId) -> boot_server_core::node::Node {
    let begun = Instant::now();
    loop {
        let node = engine.node(&node.to_string()).await.unwrap();
        match node.state.run() {
            Some(run) if run.stage == boot_server_core::node::RunStage::FirstBoot => return node,
            _ => assert!(begun.elapsed() < PATIENCE, "{:?}", node.state),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn phones_home(engine: &Engine, node: &boot_server_core::node::Node) {
    let Some(protocol::job::Task::Deploy(spec)) = node.state.run().map(|run| &run.job.task) else { panic!() };
    let vendor = &spec.config.as_ref().unwrap().vendor_data;
    let token = vendor.split("/phone-home/").nth(1).unwrap().split('"').next().unwrap();
    let token = crate::secret::hash(token);
    let home = boot_server_core::node::Event::PhoneHome { token, host_keys: Vec::new() };
    engine.apply(node.id, Actor::Machine, home).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_at_any_step_leaves_nothing() {
    // Make, write, grant: whichever is refused.
    for step in 1..=3 {
        let scratch = Scratch::new();
        let (engine, project, _dpus) = failing_site(&scratch, step, false).await;
        let _driven = driven(&engine).await;
        engine.create_servers(project, someone(), booting("web"), None).await.unwrap();
        if step == 3 {
            // A grant that is refused is tried again with the next look: nothing was lost by it.
            let made = engine.server(project, "web").await.unwrap();
            first_boot(&engine, made.node).await;
            engine.store().close();
            continue;
        }
        let made = server(&engine, project, "web", ServerPhase::Error).await;
        assert!(made.note.as_deref().unwrap_or_default().contains("made to fail"), "{:?}", made.note);
        let begun = Instant::now();
        while counted(&engine, made.id).await != (0, 0, 0, 0) {
            assert!(begun.elapsed() < PATIENCE, "step {step} leaves {:?}", counted(&engine, made.id).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The same again, and this time nothing fails.
        let change = crate::engine::servers::Reinstall::default();
        engine.reinstall_server(project, "web", someone(), change).await.unwrap();
        let node = first_boot(&engine, made.node).await;
        assert_eq!(counted(&engine, made.id).await, (1, 1, 2, 1));
        phones_home(&engine, &node).await;
        server(&engine, project, "web", ServerPhase::Active).await;
        engine.store().close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_a_volume_goes_on_on_another_machine() {
    let scratch = Scratch::new();
    let (engine, project, dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), booting("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let node = first_boot(&engine, made.node).await;
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    let addresses = engine.ports_of(made.id)[0].value.port.addresses.clone();

    let moved =
        engine.evacuate(&engine.node(&node.id.to_string()).await.unwrap(), someone(), None).await.unwrap();
    assert_ne!(moved.node, made.node);
    let there = first_boot(&engine, moved.node).await;
    assert!(there.state.run().unwrap().resumed, "it does not phone home again");
    let own = engine.dpu_of(moved.node).unwrap();
    let [disk] = own.desired.as_ref().unwrap().volumes.as_slice() else { panic!("no disk") };
    assert!(disk.boot);
    let port = &engine.ports_of(made.id)[0].value.port;
    assert_eq!((port.chassis.as_deref(), &port.addresses), (Some(own.dpu.name.as_str()), &addresses));
    let old = engine.dpu_of(made.node).unwrap().desired.unwrap();
    assert!(old.volumes.is_empty() && old.ports.is_empty(), "the old machine has nothing");
    let left = engine.node(&made.node.to_string()).await.unwrap();
    assert!(left.maintenance.is_some() && left.installed.is_none());
    let again = engine.evacuate(&left, someone(), None).await.unwrap_err();
    assert!(again.to_string().contains("no server"), "{again}");
    drop(dpus);
    engine.store().close();
}

/// Boots from its first volume, and runs.
async fn running(engine: &Engine, project: ProjectId) -> (Server, Volume) {
    engine.create_servers(project, someone(), booting("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let node = first_boot(engine, made.node).await;
    phones_home(engine, &node).await;
    let made = server(engine, project, "web", ServerPhase::Active).await;
    let [volume] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    (made, volume)
}

fn aborted() -> boot_server_core::node::Event {
    boot_server_core::node::Event::Verb(boot_server_core::node::event::Verb::Abort)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reinstall_that_is_called_off_half_way_keeps_the_volume_before() {
    let scratch = Scratch::new();
    let (engine, project, dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    let (made, first) = running(&engine, project).await;
    let secret = dpus[usize::from(engine.dpu_of(made.node).unwrap().dpu.name == "dpu-2")].secret.clone();
    // Its DPU falls silent, so that the old volume is on its way off the machine, and the new one not yet on it.
    drop(dpus);
    let change = crate::engine::servers::Reinstall::default();
    engine.reinstall_server(project, "web", someone(), change).await.unwrap();
    until(&engine, project, &first.id.to_string(), Status::Detaching).await;
    engine.apply(made.node, someone(), aborted()).await.unwrap();
    let node = engine.node(&made.node.to_string()).await.unwrap();
    assert_eq!(node.state.name(), StateName::Failed, "its machine was touched");
    server(&engine, project, "web", ServerPhase::Error).await;

    let _back = play_on(&engine, &secret);
    let kept = until(&engine, project, &first.id.to_string(), Status::Available).await;
    assert_eq!(kept.previous_of, Some(made.id));
    engine.rollback_server(project, "web", someone()).await.unwrap();
    let node = first_boot(&engine, made.node).await;
    switched_on(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    let begun = Instant::now();
    while stored(&engine).await != 1 {
        assert!(begun.elapsed() < PATIENCE, "the volume that was never booted is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [now] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert_eq!((now.id, now.status()), (first.id, Status::InUse));
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_kept_can_be_gone_back_to() {
    let scratch = Scratch::new();
    let (engine, project, _dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    let (made, first) = running(&engine, project).await;
    let keep = |volume: &Volume| Ok(Some((Volume { keep: true, ..volume.clone() }, None)));
    engine.edit_volume(first.id, keep).await.unwrap();
    for back in [true, false] {
        let change = crate::engine::servers::Reinstall::default();
        engine.reinstall_server(project, "web", someone(), change).await.unwrap();
        let node = first_boot(&engine, made.node).await;
        if back {
            engine.apply(node.id, someone(), aborted()).await.unwrap();
            server(&engine, project, "web", ServerPhase::Error).await;
            engine.rollback_server(project, "web", someone()).await.unwrap();
            let node = first_boot(&engine, made.node).await;
            switched_on(&engine, &node).await;
        } else {
            phones_home(&engine, &node).await;
        }
        server(&engine, project, "web", ServerPhase::Active).await;
    }
    let begun = Instant::now();
    let kept = loop {
        let kept = engine.volume(project, &first.id.to_string()).await.unwrap();
        if kept.previous_of.is_none() {
            break kept;
        }
        assert!(begun.elapsed() < PATIENCE, "{kept:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (kept.status(), kept.keep),
        (Status::Available, true),
        "the new OS runs, and it stays all the same"
    );
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_noted_keeps_nothing_from_being_removed() {
    let scratch = Scratch::new();
    let (engine, project, _dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    let volume = until(&engine, project, "data", Status::Available).await;
    // Where the server was killed between the backend and the store.
    let backend = engine.backend(&volume.kind).unwrap();
    backend.snapshot(volume.id, protocol::SnapshotId(Uuid::now_v7())).await.unwrap();
    let (made, _) = running(&engine, project).await;
    let own = engine.dpu_of(made.node).unwrap().dpu.id;
    let other = engine.dpus().into_iter().find(|known| known.dpu.id != own).unwrap().dpu;
    let forgotten = ::volume::Grantee { dpu: other.id, initiator: other.initiator() };
    backend.grant(volume.id, &forgotten).await.unwrap();
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    engine.detach_volume(project, "data", someone()).await.unwrap();
    until(&engine, project, "data", Status::Available).await;
    engine.delete_volume(project, "data", someone()).await.unwrap();
    until(&engine, project, &volume.id.to_string(), Status::Deleted).await;
    assert_eq!(stored(&engine).await, 1, "the boot volume alone");
    engine.store().close();
}

/// As the machine's controller would say it.
async fn switched_on(engine: &Engine, node: &boot_server_core::node::Node) {
    let job = node.state.run().unwrap().job.id;
    let news = boot_server_core::node::PowerNews::On;
    let event = boot_server_core::node::Event::Power { job, bmc: "10.0.0.9".into(), news };
    engine.apply(node.id, Actor::Server, event).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_back_to_the_volume_before() {
    let scratch = Scratch::new();
    let (engine, project, _dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), booting("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let node = first_boot(&engine, made.node).await;
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    let [first] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert!(engine.rollback_server(project, "web", someone()).await.is_err(), "it runs");

    let change = crate::engine::servers::Reinstall::default();
    engine.reinstall_server(project, "web", someone(), change).await.unwrap();
    let node = first_boot(&engine, made.node).await;
    let [second] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert_ne!(second.id, first.id);
    let kept = engine.volume(project, &first.id.to_string()).await.unwrap();
    assert_eq!((kept.status(), kept.previous_of), (Status::Available, Some(made.id)));
    let abort = boot_server_core::node::Event::Verb(boot_server_core::node::event::Verb::Abort);
    engine.apply(node.id, someone(), abort).await.unwrap();
    let stopped = server(&engine, project, "web", ServerPhase::Error).await;
    assert_eq!(engine.volumes_of(made.id).await.unwrap().len(), 1, "it was on: nothing is undone");
    assert_eq!(engine.rolls_back_to(&made).await, None);
    assert_eq!(engine.rolls_back_to(&stopped).await, Some(made.spec.image_name.clone()));

    engine.rollback_server(project, "web", someone()).await.unwrap();
    let node = first_boot(&engine, made.node).await;
    switched_on(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    let [now] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert_eq!(now.id, first.id, "the system before, on its own volume");
    until(&engine, project, &second.id.to_string(), Status::Deleted).await;
    assert_eq!(stored(&engine).await, 1);
    engine.store().close();
}
