//! Volumes and ports take functions of the plan of their DPU.

use protocol::dpu::Function;
use protocol::functions::{DisksBy, Model, Virtio};

use super::*;
use crate::engine::DpuUser;

pub(super) fn plan(pfs: u16, hotplug: u16) -> FunctionPlan {
    FunctionPlan {
        blk: Virtio { pfs, vfs: 0 },
        hotplug,
        disks: DisksBy::Snap,
        ..FunctionPlan::new(Model::BlueField3)
    }
}

async fn planned(engine: &Engine, plan: FunctionPlan) {
    planned_on(engine, "dpu-1", plan).await;
}

/// Sets the plan, and waits until the DPU says that it is in force.
pub(super) async fn planned_on(engine: &Engine, dpu: &str, plan: FunctionPlan) {
    engine.set_dpu_functions(someone(), dpu, Some(plan)).await.unwrap();
    let begun = Instant::now();
    while engine.dpu(dpu).unwrap().dpu.is_pending() {
        assert!(begun.elapsed() < PATIENCE, "the plan is not in force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The function that a volume is, as its DPU is told.
fn function(engine: &Engine, volume: &Volume) -> Option<Function> {
    let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
    let found = state.volumes.iter().find(|disk| disk.name.as_str() == volume.id.to_string())?;
    match found.exporter {
        Exporter::Snap { function, .. } => Some(function),
        _ => None,
    }
}

async fn attach(engine: &Engine, project: ProjectId, name: &str) -> Volume {
    engine.create_volume(project, someone(), blank(name)).await.unwrap();
    until(engine, project, name, Status::Available).await;
    engine.attach_volume(project, name, someone(), "web").await.unwrap();
    until(engine, project, name, Status::InUse).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_functions_of_the_plan_until_none_is_left() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let _played = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    planned(&engine, plan(1, 1)).await;

    let first = attach(&engine, project, "first").await;
    assert_eq!(function(&engine, &first), Some(Function::Hotplug));
    let second = attach(&engine, project, "second").await;
    assert_eq!(function(&engine, &second), Some(Function::Pf { pf: 0 }));
    engine.create_volume(project, someone(), blank("third")).await.unwrap();
    until(&engine, project, "third", Status::Available).await;
    let full = engine.attach_volume(project, "third", someone(), "web").await.unwrap_err();
    assert_eq!(full.problem().code, "no-function");
    assert_eq!(full.to_string(), "DPU dpu-1 has no function left for one more disk: its plan has 2");

    // What a volume is does not go, and what it is not does.
    let lost = engine.set_dpu_functions(someone(), "dpu-1", Some(plan(0, 1))).await.unwrap_err();
    assert_eq!(lost.problem().code, "dpu-functions-used");
    assert!(lost.to_string().contains("volume second is virtio-blk function 0"), "{lost}");
    let used = engine.dpu_functions("dpu-1").await.unwrap().used;
    let of = |volume: &Volume| used.iter().find(|used| used.by == DpuUser::Volume(volume.id)).unwrap();
    assert_eq!(of(&first).function, "a plugged-in function");
    planned(&engine, plan(2, 1)).await;
    engine.attach_volume(project, "third", someone(), "web").await.unwrap();
    let third = until(&engine, project, "third", Status::InUse).await;
    assert_eq!(function(&engine, &third), Some(Function::Pf { pf: 1 }));

    // The others stay what they are when one goes; its function is the next one's.
    engine.detach_volume(project, "first", someone()).await.unwrap();
    until(&engine, project, "first", Status::Available).await;
    assert_eq!(function(&engine, &second), Some(Function::Pf { pf: 0 }));
    assert_eq!(function(&engine, &third), Some(Function::Pf { pf: 1 }));
    engine.attach_volume(project, "first", someone(), "web").await.unwrap();
    until(&engine, project, "first", Status::InUse).await;
    assert_eq!(function(&engine, &first), Some(Function::Hotplug));

    // Without a plan they stay what they are, too; SNAP does not encrypt.
    engine.set_dpu_functions(someone(), "dpu-1", None).await.unwrap();
    assert_eq!(function(&engine, &third), Some(Function::Pf { pf: 1 }));
    planned(&engine, plan(4, 1)).await;
    let secret = NewVolume { encrypted: true, ..blank("secret") };
    engine.create_volume(project, someone(), secret).await.unwrap();
    until(&engine, project, "secret", Status::Available).await;
    let refused = engine.attach_volume(project, "secret", someone(), "web").await.unwrap_err();
    assert!(refused.to_string().contains("encrypted are not served by SNAP"), "{refused}");
    engine.store().close();
}

/// Of many that are asked for at once none gets a function that another has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_as_many_get_one_as_there_are() {
    let scratch = Scratch::new();
    let (engine, project, sessions) = site_over(&scratch, 1).await;
    let _played = play(&engine, SECRET, 1).await;
    let _driven = driven(&engine).await;
    active(&engine, project, &sessions[0]).await;
    planned(&engine, plan(3, 0)).await;
    for n in 0..6 {
        engine.create_volume(project, someone(), blank(&format!("v{n}"))).await.unwrap();
        until(&engine, project, &format!("v{n}"), Status::Available).await;
    }
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..6 {
        let engine = engine.clone();
        asked.spawn(async move { engine.attach_volume(project, &format!("v{n}"), someone(), "web").await });
    }
    let (good, bad): (Vec<_>, Vec<_>) = asked.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (3, 3));
    assert!(bad.iter().all(|error| error.as_ref().is_err_and(|e| e.problem().code == "no-function")));
    let mut have = Vec::new();
    for volume in good.into_iter().flatten() {
        let volume = until(&engine, project, &volume.name, Status::InUse).await;
        have.push(function(&engine, &volume).unwrap());
    }
    have.sort_by_key(|function| format!("{function:?}"));
    assert_eq!(have, [0, 1, 2].map(|pf| Function::Pf { pf }));
    engine.store().close();
}

/// Before a power cycle there is nothing of a first plan, and the machine is not chosen for a server that boots from a volume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_not_in_force_gives_nothing() {
    let scratch = Scratch::new();
    let (engine, project, _) = site_over(&scratch, 1).await;
    let (_, token) = engine.create_dpu(someone(), "dpu-1".into(), DpuChange::default()).await.unwrap();
    engine.dpu_hello(hello(SECRET, Some(token), 1), std::net::IpAddr::from([10, 77, 0, 101])).await.unwrap();
    let pending = engine.set_dpu_functions(someone(), "dpu-1", Some(plan(2, 0))).await.unwrap();
    assert!(pending.known.dpu.is_pending());
    let boot_volume = Some(BootVolume { size: Some(64 << 20), ..BootVolume::default() });
    let asked = crate::engine::servers::NewServers { boot_volume, ..wish("web", 1) };
    let refused = engine.create_servers(project, someone(), asked.clone(), None).await.unwrap_err();
    assert!(format!("{refused:?}").contains("is not in force yet"), "{refused:?}");

    // The DPU says what it has: first written, then in force, then changed by somebody else.
    let said = async |current: u64| {
        let state = engine.dpu("dpu-1").unwrap().desired.unwrap();
        let mut seen = as_told(&state);
        seen.functions.as_mut().unwrap().settings[0].current = Some(current);
        let report =
            Report { generation: Some(state.generation), observed: Some(Box::new(seen)), counters: None };
        engine.dpu_state(SECRET, report, Duration::ZERO).await.unwrap();
        !engine.dpu("dpu-1").unwrap().dpu.is_pending()
    };
    assert!(!said(0).await && said(2).await && !said(1).await && said(2).await);
    let filter = EventFilter { limit: 50, ..EventFilter::default() };
    let lines: Vec<String> = engine.events(filter).await.unwrap().into_iter().map(|e| e.message).collect();
    let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!((count("is in force"), count("other functions than were planned")), (2, 1), "{lines:?}");
    engine.create_servers(project, someone(), asked, None).await.unwrap();
    engine.store().close();
}
