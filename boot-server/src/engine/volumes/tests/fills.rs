//! The DPU writes the image on the volume: one that is played here, and says how far it is.

use std::sync::{Arc, Mutex};

use boot_server_core::node::RunStage;
use boot_server_core::volume::Imaging;
use protocol::dpu::{Backend as Told, Fill, InstantSeen, WrongChunk};

use super::*;
use crate::engine::servers::tests::engine_with;

/// What the DPUs say of images that they are to write.
type Said = Arc<Mutex<InstantSeen>>;

fn by_dpu(name: &str) -> crate::engine::servers::NewServers {
    let boot = BootVolume { size: Some(64 << 20), imaging: Imaging::Dpu, ..BootVolume::default() };
    crate::engine::servers::NewServers { boot_volume: Some(boot), ..booting(name) }
}

/// A DPU that is known already.
fn play_writer(engine: &Engine, secret: &str, said: &Said) -> Played {
    let (on, own, said) = (engine.clone(), secret.to_owned(), said.clone());
    let task = tokio::spawn(async move {
        let mut report = Report { generation: None, observed: None, counters: None };
        loop {
            let orders = on.dpu_state(&own, report.clone(), Duration::ZERO).await.unwrap();
            let told =
                on.dpus().into_iter().find(|known| known.dpu.secret == Some(crate::secret::hash(&own)));
            let state = match orders {
                Orders::State { state } => Some(*state),
                _ => told.and_then(|known| known.desired),
            };
            if let Some(state) = state {
                let mut seen = as_told(&state);
                for (one, volume) in seen.volumes.iter_mut().zip(&state.volumes) {
                    one.instant = volume.fill.as_ref().map(|_| Box::new(lock(&said).clone()));
                }
                let generation = Some(state.generation);
                report = Report { generation, observed: Some(Box::new(seen)), counters: None };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    Played { secret: secret.to_owned(), task }
}

/// A site with diskless machines whose DPUs write.
async fn site(scratch: &Scratch) -> (Engine, ProjectId, Vec<Played>, Said) {
    let (engine, project, dpus) = failing_site(scratch, 0, false).await;
    let said = Said::default();
    let writers = dpus.iter().map(|dpu| {
        dpu.task.abort();
        play_writer(&engine, &dpu.secret, &said)
    });
    let writers = writers.collect();
    (engine, project, writers, said)
}

/// What the DPU of a machine is told to write, and where.
fn told(engine: &Engine, node: protocol::NodeId) -> Option<(Fill, Exporter)> {
    let state = engine.dpu_of(node)?.desired?;
    let disk = state.volumes.first()?;
    Some((disk.fill.clone()?, disk.exporter.clone()))
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn nothing_is_left(engine: &Engine, server: protocol::ServerId) {
    eventually("something is left", async || counted(engine, server).await == (0, 0, 0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_writes_the_volume_of_a_server() {
    let scratch = Scratch::new();
    let (engine, project, _dpus, said) = site(&scratch).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), by_dpu("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    eventually("the DPU is told", async || told(&engine, made.node).is_some()).await;
    let (fill, exporter) = told(&engine, made.node).unwrap();
    assert!(fill.store.starts_with("http://") && fill.grow_root);
    assert!(fill.config.unwrap().vendor_data.contains("/phone-home/"), "as after a plain deploy");
    let Exporter::Qsd { backend: Told::File { path } } = exporter else { panic!("{exporter:?}") };
    assert!(std::fs::read(path).unwrap().iter().all(|byte| *byte == 0), "the server wrote none of it");

    // As long as it is written the machine waits, and everybody sees how far it is.
    {
        let mut says = lock(&said);
        (says.percent, says.bytes, says.away) = (37, 4096, Some("refused".into()));
        says.wrong = vec![WrongChunk { chunk: 3, id: "ab".into(), reason: "another hash".into() }];
    }
    let [volume] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    eventually("it is told", async || engine.hydration(&volume).is_some_and(|of| of.percent == 37)).await;
    let volume = engine.volume(project, &volume.id.to_string()).await.unwrap();
    assert_eq!(volume.status(), Status::Attaching);
    let part = engine.hydration(&volume).unwrap();
    assert_eq!((part.bytes, part.wrong_chunks, part.store_away.as_deref()), (Some(4096), 1, Some("refused")));
    let kinds = crate::engine::tests::kinds(&engine).await;
    for kind in ["volume.chunk_wrong", "volume.store_away"] {
        assert_eq!(kinds.iter().filter(|one| *one == kind).count(), 1, "{kind} once");
    }
    let node = engine.node(&made.node.to_string()).await.unwrap();
    assert!(node.state.run().is_some_and(|run| run.stage == RunStage::Volume && !run.on_volume.written));
    let id = volume.id.to_string();
    let half = engine.create_snapshot(project, someone(), &id, "half".into()).await.unwrap_err();
    assert!(format!("{half:?}").contains("wait until its DPU has written its image"), "{half:?}");

    *lock(&said) = InstantSeen { adapted: true, percent: 100, hydrated: true, ..InstantSeen::default() };
    let node = first_boot(&engine, made.node).await;
    assert_eq!(told(&engine, made.node), None, "it is never written again");
    // Now it is up to the file system, which must copy a file that is written to.
    match engine.create_snapshot(project, someone(), &id, "whole".into()).await {
        Ok(_) => engine.delete_snapshot(project, someone(), "whole").await.unwrap(),
        Err(error) => {
            assert!(format!("{error:?}").contains("cannot copy a file that is written"), "{error:?}");
        }
    }
    let [volume] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    assert_eq!((volume.status(), engine.hydration(&volume)), (Status::InUse, None));
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    engine.delete_server(project, "web", someone()).await.unwrap();
    nothing_is_left(&engine, made.id).await;
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_that_cannot_write_leaves_nothing() {
    let scratch = Scratch::new();
    let (engine, project, _dpus, said) = site(&scratch).await;
    let _driven = driven(&engine).await;
    let why = "cannot write the image: chunk 3 (ab) came with other bytes 3 times";
    lock(&said).failure = Some(why.into());
    engine.create_servers(project, someone(), by_dpu("web"), None).await.unwrap();
    let failed = server(&engine, project, "web", ServerPhase::Error).await;
    assert!(failed.note.as_deref().unwrap_or_default().contains("3 times"), "{:?}", failed.note);
    nothing_is_left(&engine, failed.id).await;
    // The same again, with another volume.
    *lock(&said) = InstantSeen { adapted: true, ..InstantSeen::default() };
    let change = crate::engine::servers::Reinstall::default();
    engine.reinstall_server(project, "web", someone(), change).await.unwrap();
    let node = first_boot(&engine, failed.node).await;
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    engine.store().close();
}

/// SNAP came to the DPU after the server: what it cannot do is said before anything of the machine is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_served_by_snap_since_is_not_installed_anew_by_its_dpu() {
    let scratch = Scratch::new();
    let (engine, project, _dpus, said) = site(&scratch).await;
    let _driven = driven(&engine).await;
    *lock(&said) = InstantSeen { adapted: true, ..InstantSeen::default() };
    engine.create_servers(project, someone(), by_dpu("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let node = first_boot(&engine, made.node).await;
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    let dpu = engine.dpu_of(made.node).unwrap().dpu;
    super::functions::planned_on(&engine, &dpu.name, super::functions::plan(2, 2)).await;
    let change = crate::engine::servers::Reinstall::default();
    engine.reinstall_server(project, "web", someone(), change).await.unwrap();
    let failed = server(&engine, project, "web", ServerPhase::Error).await;
    assert!(
        failed.note.as_deref().unwrap_or_default().contains("not written through SNAP"),
        "{:?}",
        failed.note
    );
    assert_eq!(told(&engine, made.node), None);
    engine.store().close();
}

/// The server is killed, and started again over what it left.
async fn next(
    scratch: &Scratch,
    before: Engine,
    dpus: Vec<Played>,
    driven_before: tokio_util::sync::DropGuard,
    said: &Said,
) -> (Engine, Vec<Played>, tokio_util::sync::DropGuard) {
    drop(driven_before);
    let secrets: Vec<String> = dpus.iter().map(|dpu| dpu.secret.clone()).collect();
    drop(dpus);
    before.store().close();
    let engine = engine_with(scratch, |within| within).await;
    engine.started().await;
    let dpus = secrets.iter().map(|secret| play_writer(&engine, secret, said)).collect();
    let driven = driven(&engine).await;
    (engine, dpus, driven)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_a_dpu_writes_goes_on() {
    let scratch = Scratch::new();
    let (engine, project, dpus, said) = site(&scratch).await;
    let guard = driven(&engine).await;
    engine.create_servers(project, someone(), by_dpu("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard, &said).await;
    eventually("the DPU is told", async || told(&engine, made.node).is_some()).await;
    let first = told(&engine, made.node);
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard, &said).await;
    assert_eq!(told(&engine, made.node), first, "it is told the same: what was written goes on");
    *lock(&said) = InstantSeen { adapted: true, ..InstantSeen::default() };
    eventually("it is noted", async || told(&engine, made.node).is_none()).await;
    let (engine, _dpus, _guard) = next(&scratch, engine, dpus, guard, &said).await;
    let node = first_boot(&engine, made.node).await;
    assert_eq!(counted(&engine, made.id).await, (1, 1, 2, 1));
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_is_called_off_while_a_dpu_writes_leaves_nothing() {
    let scratch = Scratch::new();
    let (engine, project, _dpus, said) = site(&scratch).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), by_dpu("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    eventually("the DPU is told", async || told(&engine, made.node).is_some()).await;
    engine.delete_server(project, "web", someone()).await.unwrap();
    nothing_is_left(&engine, made.id).await;
    assert!(!lock(&said).adapted);
    let node = engine.node(&made.node.to_string()).await.unwrap();
    assert_eq!(node.state.name(), StateName::Available);
    engine.store().close();
}
