//! Jobs that need no hand: restarts through a controller in memory, and what becomes of those that lie or are dead.

use std::collections::BTreeMap;
use std::sync::Arc;

use bmc::{BootDevice, DriverKind, PowerState, Secret};
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Claim, RunStage};
use tokio_util::sync::CancellationToken;

use super::tests::{hello, inventory, settings};
use super::*;
use crate::power::tests::{Fake, fake_drivers};
use crate::store::tests::Scratch;

pub(super) const MAC: protocol::MacAddr = protocol::MacAddr([0x52, 0x54, 0, 0, 9, 1]);

/// A server that runs, with one node that an agent inspected, and a controller in memory.
pub(super) struct Site {
    pub engine: Engine,
    pub fake: Arc<Fake>,
    pub node: Node,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _scratch: Arc<Scratch>,
}

impl Site {
    pub async fn new() -> Self {
        let scratch = Arc::new(Scratch::new());
        let fakes = Arc::<Mutex<BTreeMap<String, Arc<Fake>>>>::default();
        let engine = open(&scratch, &fakes).await;
        let claim = Claim { uuid: None, serial: None, macs: vec![MAC] };
        engine.dhcp_seen(MAC).await;
        let asked = engine.boot(claim, [10, 77, 0, 9].into()).await.unwrap();
        let BootAnswer::Agent { nonce, .. } = asked else { panic!("no agent") };
        let session = engine.hello(hello(nonce, vec![MAC])).await.unwrap().session;
        engine.put_inventory(&session, inventory()).await.unwrap();
        let node = Arc::unwrap_or_clone(engine.nodes().await.unwrap().remove(0));
        let change = BmcChange {
            driver: Some(DriverKind::Fake),
            address: Some("10.9.9.9".into()),
            user: Some("root".into()),
            password: Some(Secret("calvin".into())),
            ..BmcChange::default()
        };
        engine.set_bmc(node.id, Actor::Operator(String::new()), change).await.unwrap();
        let fake = lock(&fakes)["10.9.9.9"].clone();
        let mut site =
            Self { engine, fake, node, stop: CancellationToken::new(), tasks: Vec::new(), _scratch: scratch };
        site.run();
        site
    }

    pub fn run(&mut self) {
        let (a, b) = (self.engine.clone(), self.engine.clone());
        let (stop_a, stop_b) = (self.stop.clone(), self.stop.clone());
        self.tasks.push(tokio::spawn(async move { a.run_effects(stop_a).await }));
        self.tasks.push(tokio::spawn(async move { b.run_power(stop_b).await }));
    }

    /// The node with its agent gone, so that work on it needs a restart.
    async fn without_agent(&self) {
        let engine = &self.engine;
        let event = |node: &Node| Event::BootRequested {
            boot: boot_server_core::node::required_boot(node, now()),
            nonce: protocol::Sha256([5; 32]),
            claim: Claim::default(),
        };
        engine.apply_with(self.node.id, Actor::Machine, event, Along::default()).await.unwrap();
    }

    pub async fn now(&self) -> Node {
        self.engine.node(&self.node.id.to_string()).await.unwrap()
    }

    pub async fn waits_for(&self) -> String {
        self.engine.view(&self.now().await).await.waits_for.unwrap_or_default()
    }

    async fn events(&self) -> Vec<EventView> {
        let filter = EventFilter { after: Some(0), limit: 1000, ..EventFilter::default() };
        self.engine.events(filter).await.unwrap()
    }

    pub async fn kinds(&self) -> Vec<String> {
        self.events().await.into_iter().map(|e| e.kind).collect()
    }

    /// Waits until an event of this kind is there; tokio's clock may be paused.
    pub async fn until(&self, kind: &str) {
        for _ in 0..4000 {
            if self.kinds().await.iter().any(|k| k == kind) {
                return;
            }
            // Where tokio's clock is paused it stands still for this, so that the store's threads keep up with it.
            let real = std::time::Duration::from_millis(3);
            tokio::task::spawn_blocking(move || std::thread::sleep(real)).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("no {kind} in {:?}, {}", self.kinds().await, self.waits_for().await)
    }

    /// The server is stopped, its controllers and its database stay, and it starts again.
    pub async fn server_restarts(mut self) -> Self {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        let fakes = Arc::new(Mutex::new(BTreeMap::from([("10.9.9.9".to_owned(), self.fake.clone())])));
        self.stop = CancellationToken::new();
        // The database is closed with the last engine of it.
        let settings = self.engine.settings().clone();
        let store = self.engine.store().clone();
        let images = ::images::Store::open(settings.images_dir()).unwrap();
        self.engine = Engine::open_with(settings, store, images, fake_drivers(fakes)).await.unwrap();
        self.engine.started().await;
        self.run();
        self
    }

    pub async fn inspect(&self) {
        self.without_agent().await;
        let verb = Event::Verb(Verb::Inspect);
        self.engine.apply(self.node.id, Actor::Operator(String::new()), verb).await.unwrap();
    }

    pub async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn open(scratch: &Scratch, fakes: &Arc<Mutex<BTreeMap<String, Arc<Fake>>>>) -> Engine {
    let settings = settings(scratch);
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = Store::open(&scratch.database()).unwrap();
    Engine::open_with(settings, store, images, fake_drivers(fakes.clone())).await.unwrap()
}

#[tokio::test]
async fn a_job_restarts_its_machine_by_itself() {
    let site = Site::new().await;
    lock(&site.fake.state).on = true;
    site.inspect().await;
    site.until("power.on").await;
    let (boot, log) = {
        let state = lock(&site.fake.state);
        (state.boot.clone(), state.log.clone())
    };
    assert_eq!(boot.as_ref().unwrap().device, BootDevice::Pxe);
    let commands: Vec<_> = log.iter().filter(|l| !l.ends_with('?')).cloned().collect();
    assert_eq!(commands, ["boot!", "force_off", "on"]);
    assert!(
        site.waits_for().await.ends_with("the BMC 10.9.9.9 has switched it on"),
        "{}",
        site.waits_for().await
    );
    assert_eq!(site.engine.power_of(site.node.id), Some(PowerState::On));
    let kinds = site.kinds().await;
    assert!(!kinds.iter().any(|k| k == "power.wanted" || k == "power.drift"), "{kinds:?}");
    assert!(site.engine.store().read(queries::open_effects).await.unwrap().is_empty());
    let fake = site.fake.clone();
    site.end().await;
    assert_eq!(fake.closed.load(std::sync::atomic::Ordering::Relaxed), 1, "the session was ended");
}

/// Real time would be a minute and a half; the store's threads are real, so the clock runs on only while they rest.
#[tokio::test]
async fn a_controller_that_does_nothing_fails_the_job_by_name() {
    let site = Site::new().await;
    lock(&site.fake.state).lies = true;
    site.inspect().await;
    site.until("power.restart").await;
    tokio::time::pause();
    site.until("inspecting.failed").await;
    let told = site.events().await.into_iter().find(|e| e.kind == "power.no_effect").unwrap();
    assert!(told.message.contains("accepted to switch the machine on, and nothing happened"), "{told:?}");
    let node = site.now().await;
    let fault = site.engine.view(&node).await.fault.unwrap();
    assert_eq!(fault.code, protocol::fault::FaultCode::Power);
    assert!(fault.message.contains("10.9.9.9") && fault.hint.contains("billet bmc reset"), "{fault:?}");
    let commands = lock(&site.fake.state).log.iter().filter(|l| *l == "on").count();
    assert_eq!(commands, 3);
    site.end().await;
}

#[tokio::test]
async fn a_wrong_password_fails_the_job_at_once() {
    let site = Site::new().await;
    lock(&site.fake.state).wrong_login = true;
    site.inspect().await;
    site.until("inspecting.failed").await;
    let fault = site.engine.view(&site.now().await).await.fault.unwrap();
    assert!(fault.message.contains("user name or password"), "{fault:?}");
    site.end().await;
}

#[tokio::test]
async fn a_job_that_is_called_off_restarts_nothing() {
    let site = Site::new().await;
    lock(&site.fake.state).on = true;
    lock(&site.fake.state).slow = std::time::Duration::from_millis(300);
    site.inspect().await;
    site.until("power.restart").await;
    site.engine.apply(site.node.id, Actor::Operator(String::new()), Event::Verb(Verb::Abort)).await.unwrap();
    for _ in 0..100 {
        if site.engine.store().read(queries::open_effects).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(site.engine.store().read(queries::open_effects).await.unwrap().is_empty());
    let log = lock(&site.fake.state).log.clone();
    assert!(!log.iter().any(|l| l == "force_off"), "{log:?}");
    assert!(lock(&site.fake.state).on);
    site.end().await;
}

#[tokio::test]
async fn a_packet_of_the_machine_is_proof_enough() {
    let site = Site::new().await;
    // The command works, but the controller goes on saying that the machine is off.
    lock(&site.fake.state).lies = true;
    site.inspect().await;
    for _ in 0..200 {
        if lock(&site.fake.state).log.iter().any(|l| l == "on") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let claim = Claim { uuid: None, serial: None, macs: vec![MAC] };
    site.engine.boot(claim, [10, 77, 0, 9].into()).await.unwrap();
    for _ in 0..100 {
        if site.engine.store().read(queries::open_effects).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(site.engine.store().read(queries::open_effects).await.unwrap().is_empty(), "it is over");
    assert_eq!(site.now().await.state.run().unwrap().stage, RunStage::Kernel);
    site.end().await;
}

#[tokio::test]
async fn a_boot_device_that_is_held_is_put_back_once_the_agent_is_there() {
    let site = Site::new().await;
    lock(&site.fake.state).holds = true;
    site.inspect().await;
    site.until("power.on").await;
    assert_eq!(lock(&site.fake.state).boot.as_ref().unwrap().device, BootDevice::Pxe);
    let claim = Claim { uuid: None, serial: None, macs: vec![MAC] };
    let asked = site.engine.boot(claim, [10, 77, 0, 9].into()).await.unwrap();
    let BootAnswer::Agent { nonce, .. } = asked else { panic!("no agent") };
    site.engine.hello(hello(nonce, vec![MAC])).await.unwrap();
    site.until("boot_device.put_back").await;
    assert_eq!(lock(&site.fake.state).boot.as_ref().unwrap().device, BootDevice::None);
    assert!(!site.kinds().await.iter().any(|k| k == "boot_device.not_taken"));
    site.end().await;
}

#[tokio::test]
async fn passwords_are_sealed_rotated_and_survive() {
    let site = Site::new().await;
    let (node, operator) = (site.node.id, Actor::Operator(String::new()));
    let row = || async { site.engine.store().read(stored_bmcs).await.unwrap().remove(0) };
    let before = row().await;
    assert!(!format!("{before:?}").contains("calvin"), "{before:?}");
    let view = site.engine.rotate_bmc(node, operator.clone()).await.unwrap();
    assert!(view.has_password);
    // The worker with the new password ends the session of the one before it.
    site.engine.power().power_state(node).await.unwrap();
    assert_eq!(site.fake.closed.load(std::sync::atomic::Ordering::Relaxed), 1);
    let after = row().await;
    assert!(after.password != before.password && after.next_password.is_none());
    // The answer is lost: the old password still works here, so it stays.
    lock(&site.fake.state).loses_answer = true;
    drop(site.engine.rotate_bmc(node, operator.clone()).await);
    let settled = row().await;
    assert_eq!((settled.password, settled.next_password), (after.password.clone(), None));
    // Another address must not be sent the password.
    let moved = BmcChange {
        address: Some("10.9.9.10".into()),
        driver: Some(DriverKind::Ipmi),
        ..BmcChange::default()
    };
    let refused = site.engine.set_bmc(node, operator.clone(), moved).await.unwrap_err();
    assert_eq!(refused.problem().code, "bad-bmc");
    let forgotten = site.engine.remove_bmc(node, operator.clone()).await;
    assert!(forgotten.is_ok() && site.engine.bmc(node).is_none());
    assert_eq!(site.engine.remove_bmc(node, operator).await.unwrap_err().problem().code, "no-bmc");
    site.end().await;
}

#[tokio::test]
async fn a_critical_machine_is_not_deployed_unless_allowed() {
    use bmc::{Component, ComponentKind, Health};
    let site = Site::new().await;
    let image = super::tests::image(&site.engine).await;
    let disk = |health| Component {
        kind: ComponentKind::Drive,
        name: "Disk 3".into(),
        health,
        location: Some("bay 3".into()),
        model: Some("ACME 4T".into()),
        serial: Some("S3".into()),
        part_number: Some("P-4T".into()),
    };
    let measured = |health| crate::power::HealthRead {
        components: Arc::new(vec![disk(health)]),
        ..crate::power::HealthRead::default()
    };
    for _ in 0..2 {
        site.engine.note_health(site.node.id, "10.9.9.9", measured(Health::Critical)).await.unwrap();
    }
    let request = boot_server_core::deploy::DeployRequest {
        image: image.to_string(),
        confirm: Some(site.node.name.clone()),
        ..boot_server_core::deploy::DeployRequest::default()
    };
    let node = site.now().await;
    let deploy = |request| site.engine.deploy(&node, Actor::Operator(String::new()), request, false, None);
    let refused = deploy(request.clone()).await.unwrap_err().problem();
    assert_eq!(refused.code, "node-critical");
    assert!(refused.message.contains("drive Disk 3 (bay 3): critical"), "{}", refused.message);
    let preview = site.engine.preview(&node, &request).await.unwrap();
    assert_eq!(preview.refused.unwrap().code, "node-critical");
    let report = site.engine.faults(&node).await;
    let fault = &report.faults[0];
    assert_eq!((fault.place.as_deref(), fault.part_number.as_deref()), (Some("bay 3"), Some("P-4T")));
    let allowed = boot_server_core::deploy::DeployRequest { allow_critical: true, ..request };
    deploy(allowed).await.unwrap();
    for _ in 0..2 {
        site.engine.note_health(site.node.id, "10.9.9.9", measured(Health::Ok)).await.unwrap();
    }
    let kinds = site.kinds().await;
    let told: Vec<_> = kinds.iter().filter(|k| k.starts_with("health.")).collect();
    assert_eq!(told, ["health.critical", "health.ok"]);
    assert!(site.engine.faults(&node).await.faults.is_empty());
    site.end().await;
}

#[tokio::test]
async fn what_was_measured_and_how_it_was_outlive_a_restart() {
    use bmc::{Health, Reading, Unit};
    let site = Site::new().await;
    let reading = |name: &str, value, health| Reading {
        name: name.into(),
        unit: Unit::Celsius,
        value,
        health,
        upper_warning: Some(80.0),
        upper_critical: Some(90.0),
        lower_critical: None,
    };
    for value in [40.0, 91.0, 95.5] {
        let readings = vec![
            reading("Temp", Some(value), (value > 90.0).then_some(Health::Critical)),
            reading("Temp", Some(20.0), None),
            reading("off", None, None),
        ];
        let read = crate::power::HealthRead { readings: Arc::new(readings), ..Default::default() };
        site.engine.note_health(site.node.id, "10.9.9.9", read).await.unwrap();
        // Two looks are never in one millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let node = site.node.id;
    let images = ::images::Store::open(site.engine.settings().images_dir()).unwrap();
    let store = site.engine.store().clone();
    let again = Engine::open_with(settings(&site._scratch), store, images, fake_drivers(Arc::default()))
        .await
        .unwrap();
    let health = again.health(node).unwrap();
    assert_eq!(health.level, boot_server_core::bmc::health::Level::Critical);
    assert!(health.reasons[0].contains("Temp is at 95.5"), "{health:?}");
    // It is known, so it is not told once more.
    let told = || async { site.kinds().await.iter().filter(|k| k.starts_with("health.")).count() };
    assert_eq!(told().await, 1);
    let read = crate::power::HealthRead {
        readings: Arc::new(vec![reading("Temp", Some(96.0), Some(Health::Critical))]),
        ..Default::default()
    };
    again.note_health(node, "10.9.9.9", read).await.unwrap();
    assert_eq!(told().await, 1);
    let found = again.history(node, HistoryQuery::default()).await.unwrap();
    let names: Vec<_> = found.sensors.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Temp", "Temp (2)"], "a sensor that gives no value has no history");
    let points = &found.sensors[0].points;
    assert_eq!((points[0].min, points.last().unwrap().max), (40.0, 96.0));
    let ask = |sensor: Option<&str>, from, step: u64| {
        let query = HistoryQuery {
            sensor: sensor.map(str::to_owned),
            from: Some(protocol::Timestamp(from)),
            to: None,
            step: Some(std::time::Duration::from_secs(step)),
        };
        again.history(node, query)
    };
    assert_eq!(ask(None, 0, 60).await.unwrap_err().problem().code, "query");
    assert_eq!(ask(None, u64::MAX, 60).await.unwrap_err().problem().code, "query");
    assert_eq!(ask(Some("Fan"), now().0 - 1000, 60).await.unwrap_err().problem().code, "sensor-not-found");
    again.age_samples().await.unwrap();
    again.remove_bmc(node, Actor::Operator(String::new())).await.unwrap();
    assert!(again.store().read(crate::store::sensors::healths).await.unwrap().is_empty());
    site.end().await;
}
