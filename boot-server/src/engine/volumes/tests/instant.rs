//! Instant volumes with a DPU that is played here: what it is told, what is kept, and that a layer goes before its row.

use std::sync::{Arc, Mutex};

use boot_server_core::volume::{Imaging, Layer};
use protocol::dpu::{InstantSeen, Serves, WrongChunk};
use volume::{InstantBackend, InstantSettings};

use super::*;
use crate::engine::servers::Reinstall;
use crate::engine::servers::tests::site_with;
use crate::engine::tests::{agent, inventory, kinds};

/// Bytes of instant volumes on the DPU: two of the test's, and not three.
const CAPACITY: u64 = 160 << 20;

/// What the DPU says of its volumes, and whether it removes what it is told to.
#[derive(Clone, Default)]
struct Says {
    seen: InstantSeen,
    discards: bool,
}

type Said = Arc<Mutex<Says>>;

fn observed(state: &Desired, says: &Says) -> Observed {
    let mut observed = as_told(state);
    for one in &mut observed.volumes {
        one.instant = Some(Box::new(says.seen.clone()));
    }
    if says.discards {
        observed.discarded = state.discard.iter().map(|one| one.name.clone()).collect();
    }
    observed
}

/// A site with a diskless machine whose DPU says what stands in the last.
async fn site(scratch: &Scratch) -> (Engine, ProjectId, Played, Said) {
    let settings =
        InstantSettings { directory: "/layers".into(), rate: Some(7), capacity: Some(CAPACITY), store: None };
    let (engine, project) = site_with(scratch, |_| Arc::new(InstantBackend::open(settings).unwrap())).await;
    disk_image(&engine, scratch).await;
    let session = agent(&engine, 1).await;
    let diskless = protocol::inventory::Inventory { disks: Vec::new(), ..inventory() };
    engine.put_inventory(&session, diskless).await.unwrap();
    let mut dpu = play(&engine, SECRET, 1).await;
    dpu.task.abort();
    let said = Said::default();
    let (on, says) = (engine.clone(), said.clone());
    dpu.task = tokio::spawn(async move {
        let mut report = Report { generation: None, observed: None, counters: None };
        loop {
            on.dpu_state(SECRET, report.clone(), Duration::ZERO).await.unwrap();
            if let Some(state) = on.dpu("dpu-1").unwrap().desired {
                let now = observed(&state, &lock(&says));
                report = Report {
                    generation: Some(state.generation),
                    observed: Some(Box::new(now)),
                    counters: None,
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    (engine, project, dpu, said)
}

fn serves(engine: &Engine) -> Serves {
    let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
    let [volume] = state.volumes.as_slice() else { panic!("{} volumes", state.volumes.len()) };
    let Exporter::Blk { serves } = &volume.exporter else { panic!() };
    assert!(volume.boot);
    serves.clone()
}

fn has_config(engine: &Engine) -> bool {
    matches!(serves(engine), Serves::Image { config: Some(_), .. })
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn boot_of(engine: &Engine, server: &Server) -> Volume {
    let [volume] = engine.volumes_of(server.id).await.unwrap().try_into().unwrap();
    volume
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instant_volume_lives_from_its_layer_to_its_end() {
    let scratch = Scratch::new();
    let (engine, project, _dpu, said) = site(&scratch).await;
    let _driven = driven(&engine).await;
    let wanted = crate::engine::servers::NewServers { networks: Vec::new(), ..booting("web") };
    engine.create_servers(project, someone(), wanted, None).await.unwrap();
    let made = server(&engine, project, "web", ServerPhase::Deploying).await;

    // Served, but not yet what it is to be: the machine waits.
    eventually("the DPU is told", async || {
        engine.dpu("dpu-1").unwrap().desired.is_some_and(|state| !state.volumes.is_empty())
    })
    .await;
    let Serves::Image { store, layer, size, rate, config, grow_root, .. } = serves(&engine) else { panic!() };
    let config = config.expect("a config");
    assert!(config.vendor_data.contains("/phone-home/"), "the same identity as of a plain deploy");
    assert!(store.starts_with("http://") && grow_root);
    assert_eq!((size, rate), (Some(64 << 20), Some(7)));
    let volume = boot_of(&engine, &made).await;
    assert_eq!(layer, format!("/layers/{}", volume.id));
    assert_eq!(volume.status(), Status::Attaching);
    lock(&said).seen.adapted = true;
    let node = first_boot(&engine, made.node).await;
    eventually("the config is forgotten", async || !has_config(&engine)).await;
    assert!(matches!(serves(&engine), Serves::Image { grow_root: true, .. }), "nothing else changes");
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;

    let node = engine.node(&node.id.to_string()).await.unwrap();
    refusals(&engine, project, &node, &volume).await;
    let by_agent = BootVolume { imaging: Imaging::Agent, ..BootVolume::default() };
    let refused = engine.ensure_boot_volume(&made, &someone(), &by_agent, 1 << 20).await.unwrap_err();
    assert!(refused.to_string().contains("nothing writes the image to a volume of type"), "{refused}");
    let by_dpu = BootVolume { imaging: Imaging::Dpu, ..BootVolume::default() };
    let refused = engine.ensure_boot_volume(&made, &someone(), &by_dpu, 1 << 20).await.unwrap_err();
    assert!(refused.to_string().contains("nothing writes the image to a volume of type"), "{refused}");
    news(&engine, project, &said, volume.id).await;
    let second = reinstall(&engine, project, &said, &made, &volume).await;

    // Deleted: the row stays until the DPU has removed the layer.
    lock(&said).discards = false;
    engine.delete_server(project, "web", someone()).await.unwrap();
    let named = |state: &Desired| state.discard.iter().any(|one| one.name.as_str() == second.to_string());
    eventually("the DPU is told to remove it", async || {
        engine.dpu("dpu-1").unwrap().desired.is_some_and(|state| named(&state))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(engine.volume(project, &second.to_string()).await.unwrap().status(), Status::Deleting);
    lock(&said).discards = true;
    until(&engine, project, &second.to_string(), Status::Deleted).await;
    eventually("nothing is left", async || {
        engine.dpu("dpu-1").unwrap().desired.is_some_and(|state| state.discard.is_empty())
    })
    .await;
    engine.store().close();
}

/// What cannot be done with it.
async fn refusals(engine: &Engine, project: ProjectId, node: &boot_server_core::node::Node, volume: &Volume) {
    let name = volume.name.as_str();
    let larger = VolumeChange { size: Some(128 << 20), ..VolumeChange::default() };
    let plain = NewVolume { name: "data".into(), size: Some(64 << 20), ..NewVolume::default() };
    let words = [
        engine.create_snapshot(project, someone(), name, "s".into()).await.unwrap_err().to_string(),
        engine.change_volume(project, name, someone(), larger).await.unwrap_err().to_string(),
        engine.evacuate(node, someone(), None).await.unwrap_err().to_string(),
        engine.create_volume(project, someone(), plain).await.unwrap_err().to_string(),
        engine.remove_image("disk").await.unwrap_err().to_string(),
        engine.remove_dpu(someone(), "dpu-1").await.unwrap_err().to_string(),
    ];
    let why = [
        "a backend of kind `instant` cannot make a snapshot",
        "cannot resize a volume that is in_use",
        "lies on the DPU of that machine and nowhere else",
        "are made with the server that boots from them",
        "image disk:1 is not all on the DPU of volume",
        "it has 1 disks of a server",
    ];
    for (words, why) in words.iter().zip(why) {
        assert!(words.contains(why), "{words}");
    }
}

/// What its DPU says of it is an event, once, and the view's.
async fn news(engine: &Engine, project: ProjectId, said: &Said, id: VolumeId) {
    let count = async |kind: &str| kinds(engine).await.iter().filter(|one| *one == kind).count();
    let wrong = WrongChunk { chunk: 3, id: "ab".into(), reason: "another hash".into() };
    {
        let mut says = lock(said);
        (says.seen.percent, says.seen.bytes) = (37, 4096);
        (says.seen.wrong, says.seen.away) = (vec![wrong], Some("refused".into()));
    }
    eventually("it is told", async || count("volume.store_away").await == 1).await;
    let volume = engine.volume(project, &id.to_string()).await.unwrap();
    let part = Hydration {
        percent: 37,
        bytes: Some(4096),
        hydrated: false,
        store_away: Some("refused".into()),
        wrong_chunks: 1,
    };
    // The event is written before the report is.
    eventually("it is shown", async || engine.hydration(&volume).as_ref() == Some(&part)).await;
    {
        let mut says = lock(said);
        (says.seen.percent, says.seen.hydrated) = (100, true);
        (says.seen.wrong, says.seen.away) = (Vec::new(), None);
    }
    eventually("it is whole", async || count("volume.hydrated").await == 1).await;
    assert_eq!((count("volume.chunk_wrong").await, count("volume.store_back").await), (1, 1));
    let volume = engine.volume(project, &id.to_string()).await.unwrap();
    assert!(volume.layer.is_some_and(|Layer { hydrated, .. }| hydrated));
}

/// Another volume; the one before stays until the new OS has phoned home, and its row until its layer is gone. The new one.
async fn reinstall(
    engine: &Engine,
    project: ProjectId,
    said: &Said,
    made: &Server,
    first: &Volume,
) -> VolumeId {
    lock(said).seen = InstantSeen { adapted: true, ..InstantSeen::default() };
    engine.reinstall_server(project, "web", someone(), Reinstall::default()).await.unwrap();
    let node = first_boot(engine, made.node).await;
    let second = boot_of(engine, made).await;
    assert_ne!(second.id, first.id);
    let kept = engine.volume(project, &first.id.to_string()).await.unwrap();
    assert_eq!((kept.status(), kept.previous_of), (Status::Available, Some(made.id)));
    assert!(engine.dpu("dpu-1").unwrap().desired.unwrap().discard.is_empty(), "it may be gone back to");
    let both = engine.remove_dpu(someone(), "dpu-1").await.unwrap_err().to_string();
    assert!(both.contains("it has 2 disks of a server"), "{both}");
    let full = engine.check_room(made, &second).await.unwrap_err().to_string();
    assert!(full.contains("134217728 of the 167772160 bytes"), "{full}");
    phones_home(engine, &node).await;
    server(engine, project, "web", ServerPhase::Active).await;
    until(engine, project, &first.id.to_string(), Status::Deleting).await;
    lock(said).discards = true;
    until(engine, project, &first.id.to_string(), Status::Deleted).await;
    second.id
}
