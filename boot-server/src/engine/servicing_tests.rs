//! Servicing jobs over a controller in memory: what is asked of it, how often, and what a stop of the server leaves.

use boot_server_core::node::StateName;
use boot_server_core::servicing::{Baseline, RestartPolicy, ServiceStep};
use protocol::Sha256;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::power_tests::Site;
use super::*;

/// The SHA-256 of the image that [`site`] puts into the media directory.
fn sha256() -> Sha256 {
    Sha256(sha2::Sha256::digest(b"a new BIOS").into())
}

async fn site() -> Site {
    let site = Site::new().await;
    {
        let mut state = lock(&site.fake.state);
        state.bios.0 = serde_json::from_value(json!({"NumCores": 16, "BootMode": "Uefi"})).unwrap();
        state.version = "1".to_owned();
        state.next_version = "2".to_owned();
        state.on = true;
    }
    let dir = site.engine.media_dir();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("bios.exe"), "a new BIOS").unwrap();
    site
}

fn steps(steps: Value) -> Vec<ServiceStep> {
    serde_json::from_value(steps).unwrap()
}

fn firmware() -> Value {
    json!({"kind": "firmware", "component": "BIOS", "version": "2", "image": "bios.exe", "sha256": sha256()})
}

fn bios(cores: u32) -> Value {
    json!({"kind": "bios", "attributes": {"NumCores": cores}})
}

fn operator() -> Actor {
    Actor::Operator(String::new())
}

async fn service(site: &Site, what: Value) -> Result<Node, EngineError> {
    site.engine.service(&site.now().await, operator(), steps(what), RestartPolicy::Allowed).await
}

fn asked(site: &Site, what: &str) -> usize {
    lock(&site.fake.state).log.iter().filter(|l| *l == what).count()
}

#[tokio::test]
async fn settings_are_applied_and_read_back_after_a_restart() {
    let site = site().await;
    let before = site.now().await.state.name();
    service(&site, json!([bios(8)])).await.unwrap();
    site.until("service.finished").await;
    assert_eq!(site.now().await.state.name(), before);
    assert_eq!(lock(&site.fake.state).bios.0["NumCores"], json!(8));
    assert_eq!((asked(&site, "bios!"), asked(&site, "force_off"), asked(&site, "on")), (1, 1, 1));
    assert_eq!(asked(&site, "boot!"), 0, "what it boots is left alone");
    site.end().await;
}

#[tokio::test]
async fn a_firmware_is_followed_to_its_end() {
    let site = site().await;
    service(&site, json!([firmware()])).await.unwrap();
    site.until("service.finished").await;
    let (updates, version) = {
        let state = lock(&site.fake.state);
        (state.updates, state.version.clone())
    };
    assert_eq!((updates, version.as_str()), (1, "2"));
    assert_eq!(asked(&site, "force_off"), 0, "its version shows, so nothing has to be restarted");
    site.end().await;
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_found_by_its_task() {
    let site = site().await;
    lock(&site.fake.state).tasks.insert("/t/old".into(), 0);
    lock(&site.fake.state).loses_update = true;
    service(&site, json!([firmware()])).await.unwrap();
    site.until("service.finished").await;
    assert_eq!(lock(&site.fake.state).updates, 1, "it is not begun twice");
    assert!(site.kinds().await.iter().any(|k| k == "service.task_found"));
    site.end().await;
}

#[tokio::test]
async fn a_job_survives_a_restart_of_the_server() {
    let site = site().await;
    // The task does not end before the server is stopped.
    service(&site, json!([firmware()])).await.unwrap();
    for _ in 0..1000 {
        if lock(&site.fake.state).updates > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    lock(&site.fake.state).tasks.insert("/t/1".into(), u32::MAX);
    let site = site.server_restarts().await;
    assert_eq!(site.now().await.state.name(), StateName::Servicing);
    lock(&site.fake.state).tasks.insert("/t/1".into(), 1);
    site.until("service.finished").await;
    assert_eq!(lock(&site.fake.state).updates, 1);
    site.end().await;
}

#[tokio::test]
async fn a_task_that_fails_and_one_that_is_lost_are_told() {
    let site = site().await;
    lock(&site.fake.state).bad_image = true;
    service(&site, json!([firmware()])).await.unwrap();
    site.until("servicing.failed").await;
    let fault = site.engine.view(&site.now().await).await.fault.unwrap();
    assert!(fault.message.contains("the image is not for this machine"), "{}", fault.message);
    // Given up, it is as before; the next one loses its task, and the version does not show.
    let abort = Event::Verb(Verb::Abort);
    site.engine.apply(site.node.id, operator(), abort).await.unwrap();
    lock(&site.fake.state).bad_image = false;
    service(&site, json!([firmware()])).await.unwrap();
    for _ in 0..1000 {
        if lock(&site.fake.state).updates > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    lock(&site.fake.state).tasks.clear();
    site.until("service.task_gone").await;
    site.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_anything_is_done() {
    let site = site().await;
    let refusal = async |what: Value| service(&site, what).await.unwrap_err().problem();
    let mut other = firmware();
    other["sha256"] = json!("ab".repeat(32));
    assert!(refusal(json!([other])).await.message.contains("SHA-256"));
    let mut missing = firmware();
    missing["image"] = json!("nothing.exe");
    assert!(refusal(json!([missing])).await.message.contains("cannot be read"));
    let mut unknown = firmware();
    unknown["component"] = json!("BOIS");
    let problem = refusal(json!([unknown])).await;
    assert!(problem.message.contains("the nearest is `BIOS`"), "{}", problem.message);
    let slip = json!([{"kind": "bios", "attributes": {"NumCore": 8}}]);
    assert!(refusal(slip).await.message.contains("the nearest is `NumCores`"));
    let cannot = refusal(json!([{"kind": "secure_boot", "on": true}])).await;
    assert_eq!(cannot.code, "bmc-unsupported");
    assert_eq!(refusal(json!([])).await.code, "bad-service");
    assert_ne!(site.now().await.state.name(), StateName::Servicing);
    assert_eq!((asked(&site, "update"), asked(&site, "bios!")), (0, 0));
    site.end().await;
}

#[tokio::test]
async fn nobody_disturbs_a_machine_that_is_serviced() {
    let site = site().await;
    lock(&site.fake.state).tasks.insert("/t/1".into(), u32::MAX);
    service(&site, json!([firmware()])).await.unwrap();
    let second = service(&site, json!([bios(4)])).await.unwrap_err().problem();
    assert_eq!(second.code, "wrong-state");
    for refused in [
        site.engine.switch(site.node.id, operator(), bmc::PowerAction::Reset).await.map(drop),
        site.engine.rotate_bmc(site.node.id, operator()).await.map(drop),
        site.engine.remove_bmc(site.node.id, operator()).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().problem().code, "service");
    }
    site.end().await;
}

#[tokio::test]
async fn baselines_are_kept_compared_and_applied() {
    let site = site().await;
    let baseline = |value: Value| serde_json::from_value::<Baseline>(value).unwrap();
    let put =
        async |value: Value, replace| site.engine.put_baseline(operator(), baseline(value), replace).await;
    let wanted = json!({"name": "r650", "bios": {"NumCores": 8, "BootMode": "Uefi"}});
    put(wanted.clone(), false).await.unwrap();
    assert_eq!(put(wanted.clone(), false).await.unwrap_err().problem().code, "name-taken");
    put(json!({"name": "slip", "bios": {"NumCore": 8}}), false).await.unwrap();
    let node = site.now().await;
    let diff = site.engine.compare(&node, "r650").await.unwrap();
    let open: Vec<_> = diff.differences.iter().filter(|d| !d.same).map(|d| d.name.as_str()).collect();
    assert_eq!((open, diff.same), (vec!["NumCores"], false));
    let how = (true, RestartPolicy::Never);
    let refused = site.engine.apply_baseline(&node, operator(), "slip", how).await.unwrap_err().problem();
    assert!(refused.message.contains("the nearest is `NumCores`"), "{}", refused.message);
    site.engine.apply_baseline(&node, operator(), "r650", how).await.unwrap();
    site.until("service.finished").await;
    let node = site.now().await;
    assert!(site.engine.compare(&node, "r650").await.unwrap().same);
    let nothing = site.engine.apply_baseline(&node, operator(), "r650", how).await.unwrap_err().problem();
    assert!(nothing.message.contains("nothing to do"), "{}", nothing.message);
    site.engine.remove_baseline(operator(), "slip").await.unwrap();
    assert_eq!(site.engine.baseline("slip").await.unwrap_err().problem().code, "baseline-not-found");
    site.end().await;
}
