//! Hosts whose ports cannot all be, and hosts whose DPU is another one.

use boot_server_core::network::NetworkKind;
use protocol::{MacAddr, Timestamp};

use super::*;
use crate::engine::overlay::{NewNetwork, NewPort};

const SPARE: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// Server `web`, which runs on the first of `nodes` machines and its DPU, with volume `data` that nobody has, and network `net`.
async fn site(
    scratch: &Scratch,
    nodes: u8,
) -> (Engine, ProjectId, Played, tokio_util::sync::DropGuard, protocol::NodeId) {
    site_whose(scratch, nodes, ::volume::Fencing::Cuts).await
}

/// The same, with volumes in a backend that does this to whoever had one.
async fn site_whose(
    scratch: &Scratch,
    nodes: u8,
    fencing: ::volume::Fencing,
) -> (Engine, ProjectId, Played, tokio_util::sync::DropGuard, protocol::NodeId) {
    let wrap = |within: std::sync::Arc<dyn Backend>| -> std::sync::Arc<dyn Backend> {
        std::sync::Arc::new(Failing { within, left: 0.into(), passing: false, fencing })
    };
    let (engine, project) = crate::engine::servers::tests::site_with(scratch, wrap).await;
    crate::engine::tests::image(&engine).await;
    let mut sessions = Vec::new();
    for n in 1..=nodes {
        sessions.push(crate::engine::tests::discovered(&engine, n).await);
    }
    let dpu = play(&engine, SECRET, 1).await;
    let driven = driven(&engine).await;
    let node = engine.dpu("dpu-1").unwrap().dpu.node.unwrap();
    let on =
        crate::engine::servers::NewServers { node: Some(node.to_string()), flavor: None, ..wish("web", 1) };
    engine.create_servers(project, someone(), on, None).await.unwrap();
    server(&engine, project, "web", ServerPhase::Deploying).await;
    crate::engine::servers::tests::play(&engine, 1, &sessions[0]).await;
    server(&engine, project, "web", ServerPhase::Active).await;
    engine.create_volume(project, someone(), blank("data")).await.unwrap();
    until(&engine, project, "data", Status::Available).await;
    let net = NewNetwork { name: "net".into(), mtu: None, kind: NetworkKind::Overlay, shared: false };
    engine.create_network(project, someone(), net).await.unwrap();
    (engine, project, dpu, driven, node)
}

async fn port(engine: &Engine, project: ProjectId, name: &str, mac: Option<MacAddr>) {
    let wish = NewPort { name: Some(name.into()), network: "net".into(), mac, ..NewPort::default() };
    engine.create_port(project, someone(), wish).await.unwrap();
}

/// Waits until this is so of a DPU.
async fn dpu_until(engine: &Engine, name: &str, what: &str, so: impl Fn(&crate::engine::KnownDpu) -> bool) {
    let begun = Instant::now();
    loop {
        let known = engine.dpu(name).unwrap();
        if so(&known) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {:?}, {:?}", known.problem, known.desired);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn carries(engine: &Engine, project: ProjectId, name: &str) {
    let id = engine.port(project, name).unwrap().id;
    let carried = |known: &crate::engine::KnownDpu| {
        let ports = known.desired.iter().flat_map(|state| &state.ports);
        ports.map(|port| (port.port, port.mac)).eq([(id, mac(1))])
    };
    dpu_until(engine, "dpu-1", "with the port", carried).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_port_gets_the_nic_of_one_that_was_detached() {
    let scratch = Scratch::new();
    let (engine, project, _dpu, _driven, _) = site(&scratch, 1).await;
    let own = MacAddr([0x52, 0x54, 0, 0, 7, 7]);
    port(&engine, project, "one", Some(own)).await;
    port(&engine, project, "two", None).await;
    let first = engine.port(project, "two").unwrap().value.port.mac;
    for _ in 0..2 {
        engine.attach_port(project, someone(), "one", "web").await.unwrap();
        carries(&engine, project, "one").await;
        let refused = engine.attach_port(project, someone(), "two", "web").await.unwrap_err().to_string();
        assert!(refused.contains("1 NIC"), "{refused}");
        engine.detach_port(project, someone(), "one").await.unwrap();
        assert_eq!(engine.port(project, "one").unwrap().value.port.mac, own, "as it was asked for");
        engine.attach_port(project, someone(), "two", "web").await.unwrap();
        carries(&engine, project, "two").await;
        engine.detach_port(project, someone(), "two").await.unwrap();
        assert_eq!(engine.port(project, "two").unwrap().value.port.mac, first);
    }
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_cannot_be_keeps_no_disk_from_its_host() {
    let scratch = Scratch::new();
    let (engine, project, _dpu, _driven, _) = site(&scratch, 1).await;
    port(&engine, project, "squatter", Some(mac(1))).await;
    port(&engine, project, "one", None).await;
    engine.attach_port(project, someone(), "one", "web").await.unwrap();
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    let known = engine.dpu("dpu-1").unwrap();
    let said = known.problem.unwrap().to_string();
    assert!(said.contains("is on network") && said.contains(&mac(1).to_string()), "{said}");
    let state = known.desired.unwrap();
    assert_eq!(
        (state.ports.len(), state.provisioning.len()),
        (0, 0),
        "nor is it on the provisioning network"
    );
    engine.detach_volume(project, "data", someone()).await.unwrap();
    until(&engine, project, "data", Status::Available).await;
    engine.delete_port(project, someone(), "squatter").await.unwrap();
    carries(&engine, project, "one").await;
    dpu_until(&engine, "dpu-1", "without a problem", |known| known.problem.is_none()).await;
    engine.store().close();
}

/// As though a DPU had said nothing for the time of three heartbeats.
fn fell_silent(engine: &Engine, name: &str) {
    let id = engine.dpu(name).unwrap().dpu.id;
    lock(&engine.0.dpus.all).get_mut(&id).unwrap().seen = Some(Timestamp(1));
}

fn beside(node: &str) -> DpuChange {
    DpuChange { node: Some(node.to_owned()), ..DpuChange::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_with_disks_stays_with_its_host_until_it_is_gone() {
    let scratch = Scratch::new();
    let (engine, project, dpu, _driven, node) = site(&scratch, 2).await;
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    let all = engine.nodes().await.unwrap();
    let other = all.iter().find(|one| one.id != node).unwrap().id.to_string();
    for elsewhere in [other.as_str(), ""] {
        let refused = engine.change_dpu(someone(), "dpu-1", beside(elsewhere)).await.unwrap_err();
        assert!(matches!(refused, EngineError::Dpu(DpuError::Used(1))), "{refused}");
    }
    // It broke, and another one takes its place.
    drop(dpu);
    fell_silent(&engine, "dpu-1");
    let refused = engine.change_dpu(someone(), "dpu-1", beside(&other)).await.unwrap_err();
    assert!(matches!(refused, EngineError::Dpu(DpuError::Used(1))), "{refused}");
    engine.change_dpu(someone(), "dpu-1", beside("")).await.unwrap();
    engine.pair_dpus().await.unwrap();
    let old = engine.dpu("dpu-1").unwrap();
    assert_eq!(old.dpu.node, None, "nobody gives it back by itself");
    assert!(old.desired.unwrap().volumes.is_empty(), "should it come back");
    let _spare = play_as(&engine, "spare", SPARE, 1).await;
    assert_eq!(engine.dpu("spare").unwrap().dpu.node, Some(node));
    dpu_until(&engine, "spare", "with the disk", |known| {
        known.desired.as_ref().is_some_and(|state| state.volumes.len() == 1)
    })
    .await;
    let volume = until(&engine, project, "data", Status::InUse).await;
    assert_eq!(volume.presenter(), Some(engine.dpu("spare").unwrap().dpu.id));
    engine.dpu_hello(hello(SECRET, None, 1), [10, 77, 0, 101].into()).await.unwrap();
    assert_eq!(engine.dpu("dpu-1").unwrap().dpu.node, None, "not when it comes back either");
    engine.remove_dpu(someone(), "dpu-1").await.unwrap();
    engine.store().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dpu_that_lets_go_of_nothing_is_removed_after_an_operator_took_it() {
    let scratch = Scratch::new();
    let (engine, project, dpu, _driven, _) = site_whose(&scratch, 1, ::volume::Fencing::Trusts).await;
    engine.attach_volume(project, "data", someone(), "web").await.unwrap();
    until(&engine, project, "data", Status::InUse).await;
    let early = engine.force_detach_volume(project, "data", someone()).await.unwrap_err().to_string();
    assert!(early.contains("in_use"), "{early}");
    drop(dpu);
    fell_silent(&engine, "dpu-1");
    engine.detach_volume(project, "data", someone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    until(&engine, project, "data", Status::Detaching).await;
    let refused = engine.remove_dpu(someone(), "dpu-1").await.unwrap_err();
    assert!(matches!(refused, EngineError::Dpu(DpuError::Used(1))), "{refused}");
    let freed = engine.force_detach_volume(project, "data", someone()).await.unwrap();
    assert_eq!((freed.status(), freed.attachment.is_none()), (Status::Available, true));
    let id = freed.id;
    assert_eq!(engine.store().read(move |db| rows::access(db, id)).await.unwrap(), None);
    let said = engine.events(crate::engine::EventFilter { limit: 50, ..Default::default() }).await.unwrap();
    assert!(said.iter().any(|event| event.kind == "volume.detach_forced"));
    engine.remove_dpu(someone(), "dpu-1").await.unwrap();
    engine.store().close();
}
