//! The agent writes the image on the volume: machines without a controller, which are started by hand.

use boot_server_core::node::RunStage;
use boot_server_core::volume::Imaging;
use protocol::agent::Work;
use protocol::fault::{Fault, FaultCode};
use protocol::inventory::Inventory;
use protocol::job::Task;
use protocol::report::{ReportBody, Summary};

use super::*;
use crate::engine::BootAnswer;
use crate::engine::servers::tests::{engine_with, report};
use crate::engine::tests::{address, agent, claim, inventory};

fn by_agent(name: &str) -> crate::engine::servers::NewServers {
    let boot = BootVolume { size: Some(64 << 20), imaging: Imaging::Agent, ..BootVolume::default() };
    crate::engine::servers::NewServers { boot_volume: Some(boot), ..booting(name) }
}

/// Waits until the machine of a server is to boot the agent; its number.
async fn waits_for_agent(engine: &Engine, node: protocol::NodeId) -> u8 {
    let begun = Instant::now();
    loop {
        let node = engine.node(&node.to_string()).await.unwrap();
        if node.state.run().is_some_and(|run| run.stage == RunStage::Boot) {
            return node.identity.macs.iter().next().unwrap().0[5];
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", node.state);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the agent sees of the machine: a disk, which its DPU presents.
fn seen(volume: &Volume) -> Inventory {
    let mut seen = inventory();
    seen.disks[0].serial = Some(volume.serial());
    seen.disks[0].id = protocol::DiskId::of(None, Some(&volume.serial()), None);
    seen
}

async fn sides(engine: &Engine, node: protocol::NodeId) -> (usize, usize, usize) {
    let state = engine.dpu_of(node).unwrap().desired.unwrap();
    (state.provisioning.len(), state.ports.len(), state.volumes.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_writes_the_volume_of_a_server() {
    let scratch = Scratch::new();
    let (engine, project, _dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), by_agent("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let n = waits_for_agent(&engine, made.node).await;
    assert_eq!(sides(&engine, made.node).await, (1, 0, 1), "a disk, on the provisioning network");
    let [volume] = engine.volumes_of(made.id).await.unwrap().try_into().unwrap();
    let session = agent(&engine, n).await;
    engine.put_inventory(&session, seen(&volume)).await.unwrap();
    assert!(engine.inventory(made.node).await.unwrap().unwrap().disks.is_empty(), "it is not the machine's");

    let Work::Job { job } = engine.next_work(&session, Duration::ZERO).await.unwrap() else { panic!() };
    let Task::Deploy(spec) = &job.task else { panic!() };
    assert_eq!(spec.target.id.to_string(), format!("serial:{}", volume.serial()));
    assert!(spec.config.is_some() && spec.target.size_bytes == 64 << 20);
    report(&engine, made.node, &session, ReportBody::Finished { summary: Summary::default() }).await;
    assert_eq!(engine.next_work(&session, Duration::ZERO).await.unwrap(), Work::PowerOff);
    assert_eq!(sides(&engine, made.node).await, (1, 0, 1), "the agent is never on its networks");
    // Somebody switches it on again.
    let answer = engine.boot(claim(n), address(n)).await.unwrap();
    assert!(matches!(answer, BootAnswer::LocalDisk { .. }), "{answer:?}");
    let node = first_boot(&engine, made.node).await;
    assert_eq!(sides(&engine, made.node).await, (0, 1, 1));
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;

    engine.delete_server(project, "web", someone()).await.unwrap();
    let begun = Instant::now();
    while counted(&engine, made.id).await != (0, 0, 0, 0) {
        assert!(begun.elapsed() < PATIENCE, "{:?} is left", counted(&engine, made.id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let node = engine.node(&made.node.to_string()).await.unwrap();
    assert_eq!(node.state.name(), StateName::Available, "nothing of its own was to wipe");
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let (engine, project, _dpus) = failing_site(&scratch, 0, false).await;
    let _driven = driven(&engine).await;
    engine.create_servers(project, someone(), by_agent("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let n = waits_for_agent(&engine, made.node).await;
    let session = agent(&engine, n).await;
    engine.next_work(&session, Duration::ZERO).await.unwrap();
    let fault = Fault::new(FaultCode::DiskIo, "the disk broke", "replace it");
    report(&engine, made.node, &session, ReportBody::Failed { fault }).await;
    let failed = server(&engine, project, "web", ServerPhase::Error).await;
    assert!(failed.note.as_deref().unwrap_or_default().contains("the disk broke"), "{:?}", failed.note);
    let begun = Instant::now();
    while counted(&engine, made.id).await != (0, 0, 0, 0) {
        assert!(begun.elapsed() < PATIENCE, "{:?} is left", counted(&engine, made.id).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The same again, with another volume.
    let change = crate::engine::servers::Reinstall::default();
    engine.reinstall_server(project, "web", someone(), change).await.unwrap();
    waits_for_agent(&engine, made.node).await;
    assert_eq!(counted(&engine, made.id).await, (1, 1, 1, 1));
    engine.store().close();
}

/// The server is killed, and started again over what it left.
async fn next(
    scratch: &Scratch,
    before: Engine,
    dpus: Vec<Played>,
    driven_before: tokio_util::sync::DropGuard,
) -> (Engine, Vec<Played>, tokio_util::sync::DropGuard) {
    drop(driven_before);
    let secrets: Vec<String> = dpus.iter().map(|dpu| dpu.secret.clone()).collect();
    drop(dpus);
    before.store().close();
    let engine = engine_with(scratch, |within| within).await;
    engine.started().await;
    let dpus = secrets.iter().map(|secret| play_on(&engine, secret)).collect();
    let driven = driven(&engine).await;
    (engine, dpus, driven)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_between_goes_on() {
    let scratch = Scratch::new();
    let (engine, project, dpus) = failing_site(&scratch, 0, false).await;
    let guard = driven(&engine).await;
    engine.create_servers(project, someone(), by_agent("web"), None).await.unwrap();
    let made = engine.server(project, "web").await.unwrap();
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard).await;
    let n = waits_for_agent(&engine, made.node).await;
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard).await;
    let session = agent(&engine, n).await;
    let Work::Job { .. } = engine.next_work(&session, Duration::ZERO).await.unwrap() else { panic!() };
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard).await;
    report(&engine, made.node, &session, ReportBody::Finished { summary: Summary::default() }).await;
    let (engine, dpus, guard) = next(&scratch, engine, dpus, guard).await;
    assert_eq!(engine.next_work(&session, Duration::ZERO).await.unwrap(), Work::PowerOff);
    engine.boot(claim(n), address(n)).await.unwrap();
    let (engine, _dpus, _guard) = next(&scratch, engine, dpus, guard).await;
    let node = first_boot(&engine, made.node).await;
    assert_eq!(counted(&engine, made.id).await, (1, 1, 2, 1));
    phones_home(&engine, &node).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    engine.store().close();
}
