//! The life of a node as a whole: every state meets every event once, and whole stories are told.

mod trust;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use protocol::agent::{Hello, Work};
use protocol::fault::{Fault, FaultCode};
use protocol::job::{DeploySpec, DiskTarget, Job, Task};
use protocol::report::{Progress, Report, ReportBatch, ReportBody, Stage, Summary};
use protocol::{DiskId, ImageId, JobId, MacAddr, NodeId, PROTOCOL_VERSION, Sha256, Timestamp, VolumeId};
use uuid::Uuid;

use super::boot::{AGENT_AGAIN, DISK_AGAIN};
use super::event::{Cleaning, DeployOrder, Verb};
use super::service::Item;
use super::state::Fallback;
use super::*;
use crate::dpu::{Side, side};
use crate::expected::{Compared, Difference, PartKind};
use crate::servicing::{BiosStep, Facts, FirmwareFact, RestartPolicy, SecureBootStep, ServiceStep};
use crate::volume::Imaging;

const NONCE: Sha256 = Sha256([1; 32]);
const SESSION: Sha256 = Sha256([2; 32]);
const TOKEN: Sha256 = Sha256([3; 32]);
const WRONG: Sha256 = Sha256([9; 32]);
const NOW: Timestamp = Timestamp(1_000_000);

fn context(now: Timestamp, job: u128) -> Context {
    Context { now, fresh_job: JobId(Uuid::from_u128(job)), policy: Policy::default() }
}

fn disk() -> DiskTarget {
    DiskTarget { id: "serial:D1".parse().unwrap(), size_bytes: 1 << 34 }
}

fn spec() -> DeploySpec {
    DeploySpec {
        image: ImageId(Sha256([7; 32])),
        image_name: "debian-12 1".into(),
        target: disk(),
        config: None,
        grow_root: true,
        boot_entry: None,
    }
}

fn order() -> Box<DeployOrder> {
    Box::new(DeployOrder {
        spec: spec(),
        hostname: "web-1".into(),
        phone_home: Some(TOKEN),
        resumed: false,
        imaging: Imaging::Server,
        crosses: false,
    })
}

fn network() -> Box<StaticNetwork> {
    let address = "10.77.0.50/24".parse().unwrap();
    Box::new(StaticNetwork { address, gateway: None, mac: None, dns: Vec::new() })
}

fn task(state: StateName) -> Task {
    match state {
        StateName::Inspecting => Task::Inspect,
        StateName::Cleaning | StateName::Deleting => Task::Clean { disks: vec![disk()], erase: None },
        _ => Task::Deploy(Box::new(spec())),
    }
}

fn run(state: StateName, stage: RunStage, fallback: Fallback) -> Run {
    let deploys = state == StateName::Deploying;
    Run {
        job: Job { id: JobId(Uuid::from_u128(1)), task: task(state) },
        stage,
        since: NOW,
        deadline: NOW.after(stage.patience()),
        restarts: 0,
        acked: 0,
        progress: None,
        abort: false,
        fallback,
        phone_home: deploys.then_some(TOKEN),
        resumed: false,
        crosses: false,
        hostname: deploys.then(|| "web-1".into()),
        on_volume: OnVolume::default(),
        erased: Vec::new(),
        power: None,
    }
}

fn node(state: State) -> Node {
    let identity = Identity { uuid: None, serial: None, macs: [MacAddr([2, 0, 0, 0, 0, 1])].into() };
    let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, Timestamp(0));
    let session = Session {
        sha256: SESSION,
        since: NOW,
        agent_version: "1".into(),
        nonce: None,
        used: true,
        delivered: Delivery::Network,
        made_for: Claim::default(),
        approved: None,
        tpm: None,
    };
    let stage = state.run().map(|r| r.stage);
    let volume = state
        .run()
        .is_some_and(|run| run.boots_volume() && matches!(run.stage, RunStage::Volume | RunStage::FirstBoot));
    match (&state, stage) {
        _ if volume => {}
        (_, Some(RunStage::Kernel)) => {
            node.link.nonce = Some(Nonce {
                sha256: NONCE,
                issued: NOW,
                epoch: 0,
                by: Delivery::Network,
                made_for: claim(),
            });
        }
        (_, Some(RunStage::Assign | RunStage::Agent(_) | RunStage::Cross | RunStage::Restart))
        | (State::Manageable | State::Available | State::Failed(_), _) => node.link.session = Some(session),
        _ => {}
    }
    node.state = state;
    node
}

fn failed(during: StateName, stage: RunStage, fallback: Fallback) -> State {
    let run = run(during, stage, fallback);
    let after = matches!(stage, RunStage::Restart | RunStage::FirstBoot);
    State::Failed(Failure {
        during,
        fault: Fault::new(FaultCode::DiskIo, "it broke", "mend it"),
        at: NOW,
        boot: if after { Usual::LocalDisk } else { Usual::Agent },
        run: Some(Box::new(run)),
        service: None,
    })
}

/// A job that is at this stage of its first step, of two: settings, or a firmware.
fn serviced(first: ServiceStep, stage: ServiceStage, back: Fallback) -> Box<Service> {
    let staged = matches!(stage, ServiceStage::Restart | ServiceStage::Recheck | ServiceStage::Verify);
    let status = if staged { ItemStatus::Staged } else { ItemStatus::Waiting };
    let second = ServiceStep::SecureBoot(SecureBootStep { on: true });
    let items = vec![Item { step: first, status }, Item { step: second, status }];
    Box::new(Service {
        id: JobId(Uuid::from_u128(1)),
        items,
        at: 0,
        stage,
        since: NOW,
        deadline: NOW.after(std::time::Duration::from_hours(1)),
        restart: RestartPolicy::Allowed,
        back,
        tries: 0,
        percent: None,
        words: None,
        abort: false,
    })
}

fn bios_step() -> ServiceStep {
    ServiceStep::Bios(BiosStep { attributes: [("NumCores".to_owned(), 8.into())].into() })
}

fn firmware_step() -> ServiceStep {
    serde_json::from_value(serde_json::json!({
        "kind": "firmware", "component": "BIOS", "version": "2", "image": "b.exe", "sha256": "ab".repeat(32),
    }))
    .unwrap()
}

fn cores(cores: u32) -> Facts {
    Facts::Bios([("NumCores".to_owned(), cores.into())].into())
}

fn version(version: &str) -> Facts {
    let item = FirmwareFact { id: "/f/BIOS".into(), name: "BIOS".into(), version: Some(version.into()) };
    Facts::Firmware(vec![item])
}

fn service_news(news: ServiceNews) -> Event {
    Event::Service { job: JobId(Uuid::from_u128(1)), news }
}

/// A deploy whose disk is a volume.
fn on_volume(stage: RunStage, fallback: Fallback) -> State {
    let mut run = run(StateName::Deploying, stage, fallback);
    let target =
        DiskTarget { id: DiskId::of_volume(VolumeId(Uuid::from_u128(9))), size_bytes: disk().size_bytes };
    run.job.task = Task::Deploy(Box::new(DeploySpec { target, ..spec() }));
    State::Deploying(run)
}

/// The same, and the agent writes the image.
fn by_agent(stage: RunStage, written: bool, off: bool) -> State {
    let mut state = on_volume(stage, Fallback::Available);
    if let Some(run) = state.run_mut() {
        run.on_volume = OnVolume { imaging: Imaging::Agent, written, off };
    }
    state
}

/// A deploy whose OS is written, and whose switch is not ready.
fn crossing() -> State {
    let run = run(StateName::Deploying, RunStage::Cross, Fallback::Available);
    State::Deploying(Run { crosses: true, ..run })
}

/// Every state with every stage it can be in.
fn states() -> Vec<(&'static str, State)> {
    use RunStage as S;
    use StateName as N;
    let inspecting = |s| State::Inspecting(run(N::Inspecting, s, Fallback::Enroll));
    let cleaning = |s| State::Cleaning(run(N::Cleaning, s, Fallback::Manageable));
    let deploying = |s| State::Deploying(run(N::Deploying, s, Fallback::Available));
    let settings = |s| State::Servicing(serviced(bios_step(), s, Fallback::Active));
    let firmware = |s| State::Servicing(serviced(firmware_step(), s, Fallback::Available));
    vec![
        ("enroll", State::Enroll),
        ("inspecting/boot", inspecting(S::Boot)),
        ("inspecting/kernel", inspecting(S::Kernel)),
        ("inspecting/assign", inspecting(S::Assign)),
        ("inspecting/agent", inspecting(S::Agent(Stage::Inspect))),
        ("manageable", State::Manageable),
        ("cleaning/boot", cleaning(S::Boot)),
        ("cleaning/kernel", cleaning(S::Kernel)),
        ("cleaning/assign", cleaning(S::Assign)),
        ("cleaning/agent", cleaning(S::Agent(Stage::Clean))),
        ("available", State::Available),
        ("deploying/boot", deploying(S::Boot)),
        ("deploying/kernel", deploying(S::Kernel)),
        ("deploying/assign", deploying(S::Assign)),
        ("deploying/agent", deploying(S::Agent(Stage::Write))),
        ("deploying/restart", deploying(S::Restart)),
        ("deploying/cross", crossing()),
        ("deploying/first_boot", deploying(S::FirstBoot)),
        ("deploying volume/volume", on_volume(S::Volume, Fallback::Available)),
        ("deploying volume/first_boot", on_volume(S::FirstBoot, Fallback::Available)),
        ("rebuilding volume/volume", on_volume(S::Volume, Fallback::Active)),
        ("agent on volume/volume, empty", by_agent(S::Volume, false, true)),
        ("agent on volume/boot", by_agent(S::Boot, false, false)),
        ("agent on volume/agent", by_agent(S::Agent(Stage::Write), false, false)),
        ("agent on volume/restart", by_agent(S::Restart, true, false)),
        ("agent on volume/volume, written", by_agent(S::Volume, true, true)),
        ("rebuilding/boot", State::Deploying(run(N::Deploying, S::Boot, Fallback::Active))),
        ("active", State::Active),
        ("deleting/boot", State::Deleting(run(N::Deleting, S::Boot, Fallback::Active))),
        ("deleting/kernel", State::Deleting(run(N::Deleting, S::Kernel, Fallback::Active))),
        ("failed inspecting", failed(N::Inspecting, S::Kernel, Fallback::Enroll)),
        ("failed cleaning", failed(N::Cleaning, S::Agent(Stage::Clean), Fallback::Manageable)),
        ("failed deploying", failed(N::Deploying, S::Agent(Stage::Write), Fallback::Available)),
        ("failed first boot", failed(N::Deploying, S::FirstBoot, Fallback::Available)),
        ("servicing/check", settings(ServiceStage::Check)),
        ("servicing/apply", settings(ServiceStage::Apply { known: vec![] })),
        ("servicing/doubt", firmware(ServiceStage::Doubt { known: vec!["/t/1".into()] })),
        ("servicing/task", firmware(ServiceStage::Task { id: "/t/2".into(), known: vec![] })),
        ("servicing/task, sending", firmware(ServiceStage::Task { id: "push:/u".into(), known: vec![] })),
        ("servicing/settle", firmware(ServiceStage::Settle { gone: false })),
        ("servicing/settle, gone", firmware(ServiceStage::Settle { gone: true })),
        ("servicing/restart", settings(ServiceStage::Restart)),
        ("servicing/recheck", settings(ServiceStage::Recheck)),
        ("servicing/verify", settings(ServiceStage::Verify)),
        (
            "failed servicing",
            State::Failed(Failure {
                during: N::Servicing,
                fault: Fault::new(FaultCode::Service, "it broke", "mend it"),
                at: NOW,
                boot: Usual::LocalDisk,
                run: None,
                service: Some(serviced(bios_step(), ServiceStage::Verify, Fallback::Active)),
            }),
        ),
    ]
}

/// A rescue system.
fn kernel() -> Boot {
    serde_json::from_value(serde_json::json!({ "kind": "kernel", "kernel": "rescue/linux" })).unwrap()
}

/// An installer with a profile.
fn installer() -> Boot {
    let profile = serde_json::json!({ "kind": "text", "text": "install" });
    let boot = serde_json::json!({ "kind": "kernel", "kernel": "debian/linux", "profile": profile });
    serde_json::from_value(boot).unwrap()
}

fn iscsi() -> Boot {
    let chap = serde_json::json!({ "user": "u", "password": "secretsecret" });
    let boot = serde_json::json!({ "kind": "iscsi", "server": "10.0.0.9", "target": "iqn.2026-01.rack:v", "chap": chap });
    serde_json::from_value(boot).unwrap()
}

fn hello() -> Box<Hello> {
    Box::new(Hello {
        protocol: PROTOCOL_VERSION,
        agent_version: "1".into(),
        kernel: "6.1".into(),
        nonce: String::new(),
        uuid: None,
        serial: None,
        macs: claim().macs,
        uptime_ms: 2000,
    })
}

/// A quote of the TPM with this key, of a machine that booted what it should.
fn quoted(ek: u8) -> Quoted {
    let pcrs = [(4, Sha256([0x44; 32])), (7, Sha256([0x77; 32]))].into();
    let area = protocol::tpm::Octets(vec![ek]);
    Quoted {
        ek: Sha256([ek; 32]),
        certificate: None,
        ek_public: area.clone(),
        ak: area,
        at: NOW,
        pcrs,
        log: EventLog::None,
    }
}

/// What the machine tells its boot loader.
fn claim() -> Claim {
    Claim { uuid: None, serial: None, macs: vec![MacAddr([2, 0, 0, 0, 0, 1])] }
}

fn batch(job: u128, seq: u64, body: ReportBody) -> Event {
    let reports = vec![Report { seq, at: Timestamp(0), body }];
    Event::Report(ReportBatch { job: JobId(Uuid::from_u128(job)), reports })
}

fn fault() -> ReportBody {
    ReportBody::Failed { fault: Fault::new(FaultCode::DiskIo, "the disk broke", "replace it") }
}

fn power_news(news: PowerNews) -> Event {
    Event::Power { job: JobId(Uuid::from_u128(1)), bmc: "10.0.0.9".into(), news }
}

fn looked(facts: Facts) -> Event {
    service_news(ServiceNews::Looked { at: 0, facts, tasks: vec![] })
}

fn service(step: ServiceStep, restart: RestartPolicy) -> Verb {
    Verb::Service(Box::new(ServiceOrder { steps: vec![step], restart }))
}

#[test]
fn pools_and_tags_are_said_once() {
    let node =
        Node::discovered(NodeId(Uuid::from_u128(5)), "n".into(), Claim::default().into_identity(), NOW);
    let apply = |node: &Node, verb| {
        let outcome = step(node, Event::Verb(verb), &context(NOW, 1)).unwrap();
        (outcome.node, outcome.notes.into_iter().map(|note| note.message).collect::<Vec<_>>())
    };
    let pool = |name: &str| Verb::Pool { pool: name.parse().unwrap() };
    let tags = |tags: &[&str]| Verb::Tags { tags: tags.iter().map(|tag| tag.parse().unwrap()).collect() };
    assert_eq!(apply(&node, pool("default")), (node.clone(), vec![]), "it is there already");
    let (gold, words) = apply(&node, pool("gold"));
    assert_eq!(
        (gold.pool().as_str(), words.as_slice()),
        ("gold", &["moved from pool default to pool gold".to_owned()][..])
    );
    assert_eq!(apply(&gold, pool("default")).0, node);
    let (tagged, _) = apply(&gold, tags(&["a", "b"]));
    let (tagged, words) = apply(&tagged, tags(&["b", "c"]));
    assert_eq!(words, ["tags: +c -a"]);
    assert_eq!(apply(&tagged, tags(&["b", "c"])).1, [""; 0]);
    let stored = serde_json::to_string(&tagged).unwrap();
    assert_eq!(serde_json::from_str::<Node>(&stored).unwrap(), tagged);
}

/// Every event, as it would come to this node.
fn events(node: &Node) -> Vec<(&'static str, Event)> {
    let verb = Event::Verb;
    let finished = || ReportBody::Finished { summary: Summary::default() };
    let job = JobId(Uuid::from_u128(1));
    vec![
        ("dhcp", Event::DhcpSeen { first_seen: NOW }),
        ("powered off", Event::PoweredOff),
        ("loader", Event::LoaderServed { by: Netboot::Pxe }),
        (
            "boot",
            Event::BootRequested { boot: required_boot(node, NOW), nonce: Sha256([8; 32]), claim: claim() },
        ),
        ("kernel", Event::KernelServed),
        ("begun, wrong ticket", Event::BootBegun { ticket: WRONG }),
        ("hello", Event::Hello { hello: hello(), nonce: NONCE, session: SESSION }),
        ("hello, wrong nonce", Event::Hello { hello: hello(), nonce: WRONG, session: SESSION }),
        ("inventory, blank", Event::Inventory { disks_blank: true, macs: vec![], compared: None }),
        ("inventory, data", Event::Inventory { disks_blank: false, macs: vec![], compared: None }),
        ("quoted", Event::Quoted(Box::new(quoted(1)))),
        ("work taken", Event::WorkTaken { job }),
        ("report stage", batch(1, 1, ReportBody::Stage { stage: Stage::Verify })),
        ("report progress", batch(1, 1, ReportBody::Progress(Progress::default()))),
        ("report finished", batch(1, 1, finished())),
        ("report failed", batch(1, 1, fault())),
        ("report of another job", batch(99, 1, finished())),
        ("boot image made", Event::MediumMade { job, nonce: NONCE }),
        ("phone-home", Event::PhoneHome { token: TOKEN, host_keys: Vec::new() }),
        ("phone-home, wrong", Event::PhoneHome { token: WRONG, host_keys: Vec::new() }),
        ("power on", power_news(PowerNews::On)),
        ("image inserted", power_news(PowerNews::Inserted)),
        ("no way", power_news(PowerNews::NoWay { what: "no drive".into(), hint: "get one".into() })),
        ("power without effect", power_news(PowerNews::NoEffect { wanted: "on" })),
        ("power failed", power_news(PowerNews::Failed { what: "it is dead".into(), hint: "mend it".into() })),
        ("machine off", Event::Prepared { job, news: PrepareNews::Off }),
        ("disk written", Event::Prepared { job, news: PrepareNews::Written }),
        ("disk ready", Event::Prepared { job, news: PrepareNews::Ready }),
        ("switch ready", Event::Prepared { job, news: PrepareNews::Clear }),
        (
            "disk not to be had",
            Event::Prepared {
                job,
                news: PrepareNews::Failed { fault: Fault::new(FaultCode::Volume, "no DPU", "get one") },
            },
        ),
        ("resumed", service_news(ServiceNews::Resumed)),
        ("BIOS as wanted", looked(cores(8))),
        ("BIOS differs", looked(cores(16))),
        ("no such attribute", looked(Facts::Bios([("NumCore".to_owned(), 1.into())].into()))),
        ("firmware as wanted", looked(version("2"))),
        ("firmware differs", looked(version("1"))),
        ("taken", service_news(ServiceNews::Taken { task: None })),
        ("taken, task", service_news(ServiceNews::Taken { task: Some("/t/2".into()) })),
        ("no new task", service_news(ServiceNews::Tasks(Some(vec!["/t/1".into()])))),
        ("a new task", service_news(ServiceNews::Tasks(Some(vec!["/t/1".into(), "/t/2".into()])))),
        ("two new tasks", service_news(ServiceNews::Tasks(Some(vec!["/t/2".into(), "/t/3".into()])))),
        ("tasks not told", service_news(ServiceNews::Tasks(None))),
        (
            "task goes on",
            service_news(ServiceNews::Progress { id: "/t/2".into(), percent: Some(40), words: None }),
        ),
        ("task done", service_news(ServiceNews::TaskDone)),
        ("task failed", service_news(ServiceNews::TaskFailed { why: "bad image".into() })),
        ("task gone", service_news(ServiceNews::TaskGone)),
        ("restarted", service_news(ServiceNews::Restarted)),
        ("answer lost", service_news(ServiceNews::Lost { what: "timeout".into() })),
        ("trouble", service_news(ServiceNews::Trouble { what: "timeout".into() })),
        (
            "controller refuses",
            service_news(ServiceNews::Failed { what: "no".into(), hint: "mend it".into() }),
        ),
        (
            "news of another job",
            Event::Service { job: JobId(Uuid::from_u128(99)), news: ServiceNews::TaskDone },
        ),
        ("tick", Event::Tick),
        ("server started", Event::ServerStarted),
        ("restored", Event::Restored { of: NOW }),
        ("manage", verb(Verb::Manage)),
        ("inspect", verb(Verb::Inspect)),
        ("provide", verb(Verb::Provide { wipe: vec![], how: Cleaning::Light })),
        ("provide, wipe", verb(Verb::Provide { wipe: vec![disk()], how: Cleaning::Light })),
        ("deploy", verb(Verb::Deploy(order()))),
        ("rebuild", verb(Verb::Rebuild(order()))),
        ("delete", verb(Verb::Delete { wipe: vec![disk()], how: Cleaning::Light })),
        ("service", verb(service(bios_step(), RestartPolicy::Never))),
        ("service, firmware", verb(service(firmware_step(), RestartPolicy::Never))),
        ("abort", verb(Verb::Abort)),
        ("retry", verb(Verb::Retry)),
        ("maintenance", verb(Verb::Maintenance { reason: Some("fan".into()), until: None, by: None })),
        ("retire", verb(Verb::Retire { reason: Some("old".into()), by: "ann".into() })),
        ("take back", verb(Verb::Retire { reason: None, by: "ann".into() })),
        ("adopt", verb(Verb::Adopt)),
        ("accept", verb(Verb::Accept { reason: "known".into(), by: "ann".into() })),
        ("model", verb(Verb::Model { model: Some("r640".into()) })),
        ("differs", Event::Compared(Some(lacks_memory()))),
        ("inventory, blank, differs", inventory_with(Some(lacks_memory()))),
        ("order a boot", verb(Verb::Boot { boot: Box::new(kernel()), repeat: Repeat::Once })),
        ("clear boot", verb(Verb::ClearBoot)),
        ("approve boot", verb(Verb::ApproveBoot { boot: node.epoch, by: "ann".into() })),
        ("pin TPM", verb(Verb::PinTpm { ek: Some(Sha256([1; 32])), by: "ann".into() })),
        ("network", verb(Verb::Network { network: Some(network()) })),
        ("no network", verb(Verb::Network { network: None })),
    ]
}

fn inventory_with(compared: Option<Compared>) -> Event {
    Event::Inventory { disks_blank: true, macs: vec![], compared }
}

fn difference(part: PartKind, unheard: bool) -> Difference {
    Difference {
        part,
        slot: Some("A1".into()),
        expected: Some("16 GiB".into()),
        found: None,
        what: format!("{} in slot A1 is missing; expected 16 GiB", part.as_str()),
        serial: None,
        part_number: None,
        unheard,
    }
}

fn lacks_memory() -> Compared {
    Compared { model: "r640".into(), differences: vec![difference(PartKind::Dimm, false)], measured: None }
}

fn place(node: &Node) -> String {
    let mut text = node.state.name().to_string();
    if let Some(run) = node.state.run() {
        let stage = serde_json::to_value(run.stage).unwrap();
        write!(text, "/{}", stage["stage"].as_str().unwrap()).unwrap();
        if run.restarts > 0 {
            write!(text, " restarts={}", run.restarts).unwrap();
        }
        if run.abort {
            text.push_str(" abort");
        }
    }
    if let Some(service) = node.state.service() {
        write!(text, "/{} {}", service.stage.as_str(), service.at).unwrap();
        if service.abort {
            text.push_str(" abort");
        }
    }
    if let State::Failed(failure) = &node.state {
        write!(text, " during {}", failure.during).unwrap();
    }
    text
}

/// One line: where it goes, what a netboot gets then, what follows.
fn outcome(node: &Node, event: Event, now: Timestamp) -> String {
    match step(node, event, &context(now, 2)) {
        Err(refused) => format!("refused: {refused}"),
        Ok(done) => {
            let boots = match required_boot(&done.node, now) {
                Boot::Agent => "agent",
                Boot::LocalDisk => "disk",
                Boot::Kernel(_) => "kernel",
                Boot::Iso(_) | Boot::Iscsi(_) => "network disk",
            };
            let mut line = format!("{} (boots {boots})", place(&done.node));
            for effect in &done.effects {
                write!(line, " !{}", serde_json::to_value(effect).unwrap().as_str().unwrap()).unwrap();
            }
            for note in &done.notes {
                write!(line, " +{}", note.kind).unwrap();
            }
            let still = done.node.state == node.state && done.notes.is_empty() && done.effects.is_empty();
            if still { "stays".into() } else { line }
        }
    }
}

#[test]
fn table() {
    let mut table = String::new();
    let late = NOW.after(std::time::Duration::from_hours(2));
    for (name, state) in states() {
        let node = node(state);
        writeln!(table, "{name} (boots {:?}, agent is told {})", required_boot(&node, NOW), told(&node))
            .unwrap();
        // What comes to the same is one line, so that the table fits a screen.
        let mut lines: Vec<(Vec<&str>, String)> = Vec::new();
        let all = events(&node).into_iter().map(|(name, event)| (name, event, NOW));
        for (name, event, now) in all.chain([("tick, late", Event::Tick, late)]) {
            let text = outcome(&node, event, now);
            match lines.iter_mut().find(|(_, t)| *t == text) {
                Some((names, _)) => names.push(name),
                None => lines.push((vec![name], text)),
            }
        }
        for (names, text) in lines {
            writeln!(table, "    {}: {text}", names.join(", ")).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

fn told(node: &Node) -> &'static str {
    match node.work() {
        Work::Wait => "to wait",
        Work::Job { .. } => "the job",
        Work::Reboot => "to reboot",
        Work::PowerOff => "to switch off",
    }
}

/// A node in a story: events go in, what follows is kept.
#[derive(Clone)]
struct Story {
    node: Node,
    now: Timestamp,
    jobs: u128,
    policy: Policy,
    notes: Vec<String>,
    effects: Vec<Effect>,
}

impl Story {
    fn new() -> Self {
        let identity = Identity::default();
        let node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, NOW);
        Self { node, now: NOW, jobs: 100, policy: Policy::default(), notes: vec![], effects: vec![] }
    }

    fn is(&mut self, event: Event) -> &mut Self {
        self.try_event(event).unwrap();
        self
    }

    fn try_event(&mut self, event: Event) -> Result<(), Refused> {
        self.now = self.now.after(std::time::Duration::from_secs(1));
        self.jobs += 1;
        let context = Context { policy: self.policy, ..context(self.now, self.jobs) };
        let done = step(&self.node, event, &context)?;
        self.node = done.node;
        self.notes.extend(done.notes.into_iter().map(|n| n.kind));
        self.effects.extend(done.effects);
        Ok(())
    }

    fn boots(&mut self) -> &mut Self {
        let boot = required_boot(&self.node, self.now);
        self.is(Event::BootRequested { boot, nonce: NONCE, claim: claim() })
    }

    fn boots_agent(&mut self) -> &mut Self {
        self.boots();
        self.is(Event::KernelServed).is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION })
    }

    fn job(&self) -> JobId {
        self.node.state.run().unwrap().job.id
    }

    fn takes_work(&mut self) -> &mut Self {
        let job = self.job();
        self.is(Event::WorkTaken { job })
    }

    fn reports(&mut self, seq: u64, body: ReportBody) -> &mut Self {
        let job = self.job();
        self.is(Event::Report(ReportBatch { job, reports: vec![Report { seq, at: self.now, body }] }))
    }

    fn prepared(&mut self, news: PrepareNews) -> &mut Self {
        let job = self.job();
        self.is(Event::Prepared { job, news })
    }

    /// Its stage, and on which side of its DPU it is.
    fn stands(&self) -> (String, Side) {
        (place(&self.node), side(&self.node))
    }

    fn place(&self) -> String {
        place(&self.node)
    }

    /// Discovered, inspected and available.
    fn available() -> Self {
        let mut story = Self::new();
        story.boots_agent().is(Event::Inventory { disks_blank: true, macs: vec![], compared: None });
        assert_eq!(story.place(), "available");
        story
    }

    /// A deploy in the middle of its write.
    fn writing() -> Self {
        let mut story = Self::available();
        story.is(Event::Verb(Verb::Deploy(order()))).takes_work();
        story.reports(1, ReportBody::Stage { stage: Stage::Write });
        assert_eq!(story.place(), "deploying/agent");
        story
    }
}

fn done() -> ReportBody {
    ReportBody::Finished { summary: Summary::default() }
}

#[test]
fn a_blank_machine_becomes_a_server_and_is_given_back() {
    let mut story = Story::writing();
    assert_eq!(story.effects, [Effect::WakeAgent], "an agent is at hand: no restart is needed");
    story.reports(2, done());
    assert_eq!(story.place(), "deploying/restart");
    assert_eq!(story.node.work(), Work::Reboot);
    story.boots();
    assert_eq!(story.place(), "deploying/first_boot");
    story.is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");
    assert_eq!(story.node.installed.as_ref().unwrap().hostname, "web-1");
    let at = |phase| story.node.timeline.at(phase).unwrap();
    assert!(at(Phase::Requested) < at(Phase::Write) && at(Phase::Written) < at(Phase::LocalBoot));
    assert!(at(Phase::LocalBoot) < at(Phase::Done));

    story.boots().boots();
    assert_eq!(story.place(), "active", "switched off and on it boots its disk");
    story.is(Event::Verb(Verb::Rebuild(order())));
    assert_eq!((story.place().as_str(), story.effects.last()), ("deploying/boot", Some(&Effect::PowerCycle)));
    story
        .boots_agent()
        .takes_work()
        .reports(1, done())
        .boots()
        .is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");
    story.is(Event::Verb(Verb::Delete { wipe: vec![disk()], how: Cleaning::Light }));
    assert_eq!(story.place(), "deleting/boot");
    story.boots_agent();
    assert_eq!(story.place(), "cleaning/assign");
    story.takes_work().reports(1, done());
    assert_eq!((story.place().as_str(), &story.node.installed), ("available", &None));
    insta::assert_snapshot!(story.notes.join("\n"));
}

/// An order onto a volume, which the agent writes.
fn volume_order() -> Box<DeployOrder> {
    let target = DiskTarget { id: DiskId::of_volume(VolumeId(Uuid::from_u128(9))), ..disk() };
    Box::new(DeployOrder { spec: DeploySpec { target, ..spec() }, imaging: Imaging::Agent, ..*order() })
}

#[test]
fn a_written_os_waits_for_its_switch_and_starts_from_off() {
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Deploy(Box::new(DeployOrder { crosses: true, ..*order() }))));
    story.takes_work().reports(1, done());
    assert_eq!(story.stands(), ("deploying/cross".to_owned(), Side::Provisioning));
    assert_eq!(story.node.work(), Work::Wait, "the agent stays until the switch is ready");
    let job = story.job();
    for news in [PrepareNews::Off, PrepareNews::Written] {
        let news = Event::Prepared { job, news };
        assert!(step(&story.node, news, &context(story.now, 9)).is_err(), "that is of a volume");
    }
    let mut by_hand = story.clone();
    let mut late = story.clone();
    story.prepared(PrepareNews::Ready);
    assert_eq!(story.stands(), ("deploying/first_boot".to_owned(), Side::Tenant));
    assert_eq!(story.effects.last(), Some(&Effect::PowerCycle));
    story.is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");

    by_hand.prepared(PrepareNews::Clear);
    assert_eq!(by_hand.stands(), ("deploying/restart".to_owned(), Side::Provisioning));
    assert_eq!(by_hand.node.work(), Work::Reboot);
    by_hand.boots();
    assert_eq!(by_hand.stands(), ("deploying/first_boot".to_owned(), Side::Tenant));

    late.now = late.node.state.deadline().unwrap();
    late.is(Event::Tick);
    assert_eq!(late.stands(), ("failed during deploying".to_owned(), Side::Provisioning));
    late.is(Event::Verb(Verb::Retry)).takes_work().reports(1, done());
    assert_eq!(late.place(), "deploying/cross restarts=1", "it goes over this time as well");
}

#[test]
fn networks_of_a_machine_with_a_volume_are_no_switchs() {
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Deploy(Box::new(DeployOrder { crosses: true, ..*volume_order() }))));
    story.prepared(PrepareNews::Off).prepared(PrepareNews::Ready).boots_agent().takes_work();
    story.reports(1, done());
    assert_eq!((story.place().as_str(), story.node.work()), ("deploying/restart", Work::PowerOff));
}

#[test]
fn an_agent_writes_a_volume_and_never_meets_a_network_of_a_project() {
    let is = |place: &str, side| (place.to_owned(), side);
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Deploy(volume_order())));
    assert_eq!(story.stands(), is("deploying/volume", Side::Provisioning), "an agent may run on it");
    story.prepared(PrepareNews::Off);
    assert_eq!((story.stands(), story.node.work()), (is("deploying/volume", Side::Provisioning), Work::Wait));
    story.prepared(PrepareNews::Ready);
    assert_eq!(story.stands(), is("deploying/boot", Side::Provisioning));
    assert_eq!(story.effects, [Effect::PowerCycle]);
    assert_eq!(required_boot(&story.node, story.now), Boot::Agent);
    story.boots_agent();
    let Work::Job { job } = story.node.work() else { panic!() };
    let Task::Deploy(spec) = job.task else { panic!() };
    assert_eq!(spec.target.id.to_string(), "serial:00000000000000000009", "as its host reads it");
    // A power cut in the middle: the same job, on the same side.
    story.takes_work().reports(1, ReportBody::Stage { stage: Stage::Write }).boots_agent().takes_work();
    assert_eq!(story.stands(), is("deploying/agent restarts=1", Side::Provisioning));
    story.reports(1, done());
    assert_eq!(story.stands(), is("deploying/restart restarts=1", Side::Provisioning));
    assert_eq!(story.node.work(), Work::PowerOff);
    let mut by_hand = story.clone();
    story.prepared(PrepareNews::Off);
    assert_eq!(story.stands(), is("deploying/volume restarts=1", Side::Tenant));
    story.prepared(PrepareNews::Ready);
    assert_eq!(story.stands(), is("deploying/first_boot restarts=1", Side::Tenant));
    assert_eq!(story.effects.last(), Some(&Effect::PowerCycle));
    story.is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.stands(), is("active", Side::Tenant));

    by_hand.boots();
    assert_eq!(by_hand.place(), "deploying/volume restarts=1", "its networks come first");
    by_hand.prepared(PrepareNews::Off).prepared(PrepareNews::Ready);
    assert_eq!(by_hand.stands(), is("deploying/first_boot restarts=1", Side::Tenant));
}

#[test]
fn a_dpu_writes_a_volume_while_the_machine_is_off() {
    let by_dpu = || Box::new(DeployOrder { imaging: Imaging::Dpu, ..*volume_order() });
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Deploy(by_dpu())));
    assert_eq!(story.node.state.run().unwrap().fills(), Some(VolumeId(Uuid::from_u128(9))));
    story.prepared(PrepareNews::Off);
    assert_eq!(story.stands(), ("deploying/volume".to_owned(), Side::Tenant), "no agent comes");
    let early = Event::Prepared { job: story.job(), news: PrepareNews::Ready };
    assert!(step(&story.node, early, &context(story.now, 9)).is_err(), "it is not written yet");
    story.prepared(PrepareNews::Written);
    assert_eq!(story.node.state.run().unwrap().fills(), None);
    story.prepared(PrepareNews::Ready);
    assert_eq!(story.stands(), ("deploying/first_boot".to_owned(), Side::Tenant));
    assert_eq!(story.effects, [Effect::PowerCycle], "once");
    story.is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");

    // Its disk is gone from when on the machine is off.
    story.is(Event::Verb(Verb::Rebuild(by_dpu())));
    let mut early = story.clone();
    early.is(Event::Verb(Verb::Abort));
    assert_eq!(early.place(), "active");
    story.prepared(PrepareNews::Off).is(Event::Verb(Verb::Abort));
    assert_eq!(story.place(), "failed during deploying");
    story.is(Event::Verb(Verb::Retry));
    assert!(story.node.state.run().unwrap().fills().is_some(), "it was not written");
}

#[test]
fn a_running_os_stays_where_it_is_until_the_machine_is_off() {
    let mut story = Story::writing();
    story.reports(2, done()).boots().is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    story.is(Event::Verb(Verb::Rebuild(volume_order())));
    assert_eq!(story.stands(), ("deploying/volume".to_owned(), Side::Tenant));
    let mut early = story.clone();
    early.is(Event::Verb(Verb::Abort));
    assert_eq!(early.place(), "active");

    story.prepared(PrepareNews::Off);
    assert_eq!(story.stands(), ("deploying/volume".to_owned(), Side::Provisioning));
    story.prepared(PrepareNews::Ready).is(Event::Verb(Verb::Abort));
    assert_eq!(
        story.stands(),
        ("failed during deploying".to_owned(), Side::Provisioning),
        "its disk is gone"
    );
    story.is(Event::Verb(Verb::Retry)).prepared(PrepareNews::Off).prepared(PrepareNews::Ready);
    assert_eq!(story.place(), "deploying/boot restarts=1", "nothing was written yet");
    story.boots_agent().takes_work().reports(1, done()).prepared(PrepareNews::Off);
    story.is(Event::Verb(Verb::Abort)).is(Event::Verb(Verb::Retry));
    story.prepared(PrepareNews::Off).prepared(PrepareNews::Ready);
    assert_eq!(story.place(), "deploying/first_boot restarts=1", "what was written is not written again");
}

#[test]
fn a_power_cut_in_the_write_goes_on_where_it_was() {
    let mut story = Story::writing();
    let job = story.job();
    story.reports(2, ReportBody::Progress(Progress { chunks_done: 5, ..Progress::default() }));
    story.boots();
    assert_eq!(story.place(), "deploying/kernel restarts=1");
    assert_eq!(story.job(), job, "it is the same job");
    assert!(!story.node.has_session(SESSION), "the agent of before is gone");
    story.is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION }).takes_work();
    // The new agent numbers its reports from 1 again.
    story.reports(1, ReportBody::Stage { stage: Stage::Write }).reports(2, done());
    assert_eq!(story.place(), "deploying/restart restarts=1");
}

#[test]
fn a_machine_that_keeps_restarting_is_left_to_a_person() {
    let mut story = Story::writing();
    for _ in 0..5 {
        story.boots_agent().takes_work();
    }
    assert_eq!(story.place(), "deploying/agent restarts=5");
    story.boots();
    assert_eq!(story.place(), "failed during deploying");
}

#[test]
fn an_agent_that_keeps_hanging_is_left_to_a_person() {
    let mut story = Story::writing();
    for _ in 0..5 {
        story.now = story.now.after(std::time::Duration::from_hours(1));
        story.is(Event::Tick).boots_agent().takes_work();
    }
    story.now = story.now.after(std::time::Duration::from_hours(1));
    story.is(Event::Tick);
    assert_eq!(story.place(), "failed during deploying");
}

#[test]
fn abort_before_anything_changed_leads_back() {
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Deploy(order()))).is(Event::Verb(Verb::Abort));
    assert_eq!(story.place(), "available");

    let mut story = Story::writing();
    story.is(Event::Verb(Verb::Abort));
    assert_eq!(story.place(), "deploying/agent abort");
    let aborted = Fault::new(FaultCode::Aborted, "stopped", "retry");
    story.reports(2, ReportBody::Failed { fault: aborted });
    assert_eq!(story.place(), "failed during deploying");
}

#[test]
fn a_failed_deploy_is_retried_as_a_new_job() {
    let mut story = Story::writing();
    let first = story.job();
    story.reports(2, fault());
    assert_eq!(story.place(), "failed during deploying");
    story.is(Event::Verb(Verb::Retry));
    assert_ne!(story.job(), first);
    assert_eq!(story.place(), "deploying/assign restarts=1", "it may be half-way: abort cannot lead back");
    let job = first;
    let late = ReportBatch { job, reports: vec![Report { seq: 3, at: story.now, body: done() }] };
    assert_eq!(story.try_event(Event::Report(late)), Err(Refused::StaleJob { job }));
    story
        .takes_work()
        .reports(1, done())
        .boots()
        .is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");
}

#[test]
fn repeated_reports_change_nothing() {
    let mut story = Story::writing();
    story.reports(2, ReportBody::Note { message: "hello".into() });
    let before = story.notes.len();
    story.reports(2, ReportBody::Note { message: "hello".into() });
    story.reports(1, ReportBody::Stage { stage: Stage::Plan });
    assert_eq!(story.notes.len(), before);
    assert_eq!(story.place(), "deploying/agent");
    assert_eq!(story.node.state.run().unwrap().stage, RunStage::Agent(Stage::Write));
}

#[test]
fn an_os_that_is_slow_still_counts() {
    let mut story = Story::writing();
    story.reports(2, done()).boots();
    story.now = story.now.after(std::time::Duration::from_hours(1));
    story.is(Event::Tick);
    assert_eq!(story.place(), "failed during deploying");
    assert_eq!(required_boot(&story.node, story.now), Boot::LocalDisk);
    story.is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.place(), "active");
}

#[test]
fn a_rebuild_that_never_began_leaves_the_os_bootable() {
    let mut story = Story::writing();
    story.reports(2, done()).boots().is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    story.is(Event::Verb(Verb::Rebuild(order())));
    story.now = story.now.after(std::time::Duration::from_hours(1));
    story.is(Event::Tick);
    assert_eq!(story.place(), "failed during deploying");
    assert_eq!(
        required_boot(&story.node, story.now),
        Boot::LocalDisk,
        "nothing was written: its OS is whole"
    );
    story.is(Event::Verb(Verb::Retry));
    assert_eq!(required_boot(&story.node, story.now), Boot::Agent);
    story.now = story.now.after(std::time::Duration::from_hours(1));
    story.is(Event::Tick);
    assert_eq!(required_boot(&story.node, story.now), Boot::LocalDisk, "still nothing was written");
    story.is(Event::Verb(Verb::Retry)).is(Event::Verb(Verb::Abort));
    assert_eq!(story.place(), "active", "the way back to the OS that runs");
}

#[test]
fn a_rebuild_that_fails_while_it_is_planned_leaves_the_os_bootable() {
    let mut story = Story::writing();
    story.reports(2, done()).boots().is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    story.is(Event::Verb(Verb::Rebuild(order()))).boots_agent().takes_work().reports(1, fault());
    assert_eq!(story.place(), "failed during deploying");
    assert_eq!(required_boot(&story.node, story.now), Boot::LocalDisk, "no write had begun");
    story.is(Event::Verb(Verb::Retry)).is(Event::Verb(Verb::Abort));
    assert_eq!(story.place(), "active");
}

#[test]
fn a_rebuild_to_another_disk_leaves_two_to_wipe() {
    let mut story = Story::writing();
    story.reports(2, done()).boots().is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(story.node.os_disks(), [disk().id]);
    let mut order = order();
    order.spec.target.id = protocol::DiskId::of(None, Some("B"), None).unwrap();
    let second = order.spec.target.id.clone();
    story.is(Event::Verb(Verb::Rebuild(order))).boots_agent().takes_work().reports(1, fault());
    assert_eq!(story.node.os_disks(), [second, disk().id]);
}

#[test]
fn a_stage_that_counts_nothing_keeps_the_agent_from_being_given_up() {
    let mut story = Story::writing();
    for seq in 2..20 {
        story.now = story.now.after(std::time::Duration::from_mins(4));
        story.reports(seq, ReportBody::Progress(Progress::default())).is(Event::Tick);
    }
    assert_eq!(story.place(), "deploying/agent");
    assert_eq!(story.node.state.run().unwrap().progress, None);
}

#[test]
fn an_inspection_that_was_given_up_goes_on_with_the_agent() {
    let mut story = Story::new();
    story.boots();
    story.now = story.now.after(std::time::Duration::from_hours(1));
    story.is(Event::Tick);
    assert_eq!(story.place(), "failed during inspecting");
    story.boots_agent();
    assert_eq!(story.place(), "inspecting/assign");
    story.is(Event::Inventory { disks_blank: true, macs: vec![], compared: None });
    assert_eq!(story.place(), "available");
}

#[test]
fn looking_at_an_offered_machine_keeps_the_offer() {
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Inspect)).is(Event::Inventory {
        disks_blank: false,
        macs: vec![],
        compared: None,
    });
    assert_eq!(story.place(), "available");
}

#[test]
fn a_hello_whose_answer_was_lost_may_be_said_again() {
    let mut story = Story::new();
    story.boots_agent();
    let again = || Event::Hello { hello: hello(), nonce: NONCE, session: Sha256([4; 32]) };
    story.is(again());
    assert!(story.node.has_session(Sha256([4; 32])) && !story.node.has_session(SESSION));
    story.is(Event::Inventory { disks_blank: true, macs: vec![], compared: None });
    assert!(matches!(story.try_event(again()), Err(Refused::Nonce { .. })), "the session is in use");

    let mut story = Story::new();
    story.boots_agent();
    story.now = story.now.after(std::time::Duration::from_mins(5));
    assert!(matches!(story.try_event(again()), Err(Refused::Nonce { .. })), "too late");
}

#[test]
fn a_nonce_is_for_one_boot_and_ten_minutes() {
    let hello_now = || Event::Hello { hello: hello(), nonce: NONCE, session: SESSION };
    let mut story = Story::new();
    story.boots();
    story.is(Event::BootRequested { boot: Boot::Agent, nonce: WRONG, claim: claim() });
    assert!(matches!(story.try_event(hello_now()), Err(Refused::Nonce { .. })), "a newer boot has another");
    let mut story = Story::new();
    story.boots();
    story.now = story.now.after(std::time::Duration::from_mins(11));
    assert!(matches!(story.try_event(hello_now()), Err(Refused::Nonce { .. })));
}

fn order_boot(boot: Boot, repeat: Repeat) -> Event {
    Event::Verb(Verb::Boot { boot: Box::new(boot), repeat })
}

#[test]
fn an_order_is_for_one_boot() {
    let mut story = Story::available();
    story.is(order_boot(kernel(), Repeat::Once));
    assert_eq!(story.node.work(), Work::Reboot, "the agent that waits makes way");
    assert_eq!(story.effects, [Effect::WakeAgent]);
    story.boots();
    assert!(!story.node.has_session(SESSION));
    assert_eq!(
        required_boot(&story.node, story.now),
        kernel(),
        "it has not begun: a loader that failed gets it again"
    );
    assert_eq!(story.try_event(Event::BootBegun { ticket: WRONG }), Err(Refused::StaleBoot));
    story.boots().is(Event::BootBegun { ticket: NONCE }).is(Event::BootBegun { ticket: NONCE });
    assert_eq!(required_boot(&story.node, story.now), Boot::Agent);
    assert_eq!(story.node.work(), Work::Wait);
    story.boots();
    assert_eq!(story.try_event(Event::BootBegun { ticket: NONCE }), Err(Refused::StaleBoot), "another boot");
    assert_eq!(story.notes[story.notes.len() - 3..], ["boot.ordered", "boot.served", "boot.begun"]);
}

#[test]
fn an_order_for_always_stays_until_it_is_cleared() {
    let mut story = Story::available();
    story.is(order_boot(Boot::LocalDisk, Repeat::Always));
    for _ in 0..3 {
        assert_eq!(required_boot(&story.node, story.now), Boot::LocalDisk);
        story.boots();
    }
    story.is(Event::Verb(Verb::ClearBoot));
    assert_eq!(required_boot(&story.node, story.now), Boot::Agent);
    assert!(matches!(story.try_event(Event::Verb(Verb::ClearBoot)), Err(Refused::Order { .. })));
}

#[test]
fn work_ends_an_order() {
    let mut story = Story::available();
    story.is(order_boot(kernel(), Repeat::Always)).is(Event::Verb(Verb::Deploy(order())));
    assert_eq!(required_boot(&story.node, story.now), Boot::Agent);
    assert!(story.try_event(order_boot(kernel(), Repeat::Once)).is_err(), "a job has the machine");
    story
        .takes_work()
        .reports(1, done())
        .boots()
        .is(Event::PhoneHome { token: TOKEN, host_keys: Vec::new() });
    assert_eq!(required_boot(&story.node, story.now), Boot::LocalDisk, "it does not come back");
}

#[test]
fn an_installer_that_phones_home_makes_a_server() {
    let mut story = Story::available();
    assert!(matches!(story.try_event(order_boot(installer(), Repeat::Always)), Err(Refused::Order { .. })));
    story.is(order_boot(installer(), Repeat::Once)).boots();
    assert!(
        story.try_event(Event::PhoneHome { token: NONCE, host_keys: Vec::new() }).is_err(),
        "nothing was started yet"
    );
    story.is(Event::BootBegun { ticket: NONCE }).is(Event::PhoneHome { token: NONCE, host_keys: Vec::new() });
    assert_eq!((story.place().as_str(), required_boot(&story.node, story.now)), ("active", Boot::LocalDisk));
    assert!(story.try_event(Event::PhoneHome { token: NONCE, host_keys: Vec::new() }).is_err(), "once");
}

#[test]
fn a_secret_is_forgotten_once_it_was_used() {
    let mut story = Story::available();
    story.is(order_boot(iscsi(), Repeat::Once)).boots();
    let text = |story: &Story| serde_json::to_string(&story.node).unwrap();
    assert!(text(&story).contains("secretsecret"));
    let Boot::Iscsi(shown) = iscsi().without_secrets() else { panic!("another kind") };
    assert_eq!(shown.chap.unwrap().password, None);
    story.is(Event::BootBegun { ticket: NONCE });
    assert!(!text(&story).contains("secretsecret"));
    let Boot::Iscsi(mut without) = iscsi() else { panic!("another kind") };
    without.chap.as_mut().unwrap().password = None;
    assert!(
        story.try_event(order_boot(Boot::Iscsi(without), Repeat::Once)).is_err(),
        "a name without a secret"
    );
}

#[test]
fn what_runs_or_works_is_not_forgotten() {
    for (name, state) in states() {
        let (active, busy) = (matches!(state, State::Active), state.is_busy());
        let may_run = matches!(&state, State::Failed(failure) if failure.boot == Usual::LocalDisk);
        assert_eq!(check_forget(&node(state)).is_err(), active || busy || may_run, "{name}");
    }
    assert!(states().iter().any(|(_, s)| matches!(s, State::Failed(f) if f.boot == Usual::LocalDisk)));

    let mut story = Story::available();
    story.is(order_boot(iscsi(), Repeat::Always));
    assert!(matches!(check_forget(&story.node), Err(Refused::Order { .. })), "it may run from there");
    story.is(Event::Verb(Verb::ClearBoot)).is(order_boot(installer(), Repeat::Once)).boots();
    assert_eq!(check_forget(&story.node), Ok(()), "nothing was started yet");
    story.is(Event::BootBegun { ticket: NONCE });
    let Err(Refused::Order { why, hint }) = check_forget(&story.node) else { panic!("an installer is lost") };
    assert!(why.contains("has not phoned home") && hint.contains("clear the order"), "{why}; {hint}");
    story.is(Event::Verb(Verb::ClearBoot));
    assert_eq!(check_forget(&story.node), Ok(()));
    assert!(
        story.try_event(Event::PhoneHome { token: NONCE, host_keys: Vec::new() }).is_err(),
        "nobody waits for it"
    );
}

/// GRUB asks by HEAD and GET, firmware at each of its network entries.
#[test]
fn an_order_for_disk_or_agent_answers_the_same_for_one_boot() {
    let cases = [(Boot::LocalDisk, DISK_AGAIN, false), (Boot::Agent, AGENT_AGAIN, true)];
    for (boot, window, active) in cases {
        let mut story = Story::available();
        if active {
            story.is(order_boot(installer(), Repeat::Once)).boots();
            story
                .is(Event::BootBegun { ticket: NONCE })
                .is(Event::PhoneHome { token: NONCE, host_keys: Vec::new() });
        }
        let usual = required_boot(&story.node, story.now);
        assert_ne!(usual, boot);
        story.is(order_boot(boot.clone(), Repeat::Once)).boots();
        let begun = story.now;
        story.boots().boots();
        let left = window - std::time::Duration::from_millis(1);
        assert_eq!(required_boot(&story.node, begun.after(left)), boot, "also where it asked again since");
        assert_eq!(required_boot(&story.node, begun.after(window)), usual);
        assert_eq!(story.notes.iter().filter(|note| *note == "boot.begun").count(), 1 + usize::from(active));
        assert!(pending_order(&story.node).is_none(), "used up all the same");
        story.is(Event::Verb(Verb::ClearBoot));
        assert_eq!(required_boot(&story.node, begun), usual, "cleared at once");
    }
}

/// An event as chance gives it: most of them make sense, so that stories go far.
fn any_event() -> impl Strategy<Value = u8> {
    0_u8..56
}

fn chance_event(story: &Story, n: u8) -> Event {
    let current = story.node.state.run().map_or(JobId(Uuid::nil()), |r| r.job.id);
    let seq = story.node.state.run().map_or(0, |r| r.acked) + 1;
    let report =
        |body| Event::Report(ReportBatch { job: current, reports: vec![Report { seq, at: NOW, body }] });
    match n {
        0..=3 => {
            Event::BootRequested { boot: required_boot(&story.node, story.now), nonce: NONCE, claim: claim() }
        }
        4..=6 => Event::Hello { hello: hello(), nonce: NONCE, session: SESSION },
        7..=9 => Event::WorkTaken { job: current },
        10 => report(ReportBody::Stage { stage: Stage::Write }),
        11..=12 => report(done()),
        13 => report(fault()),
        14..=15 => Event::PhoneHome { token: TOKEN, host_keys: Vec::new() },
        16 => Event::Inventory { disks_blank: true, macs: vec![], compared: None },
        17 => Event::Inventory { disks_blank: false, macs: vec![], compared: None },
        18 => Event::Tick,
        19 => Event::ServerStarted,
        20 => Event::DhcpSeen { first_seen: story.now },
        21 => Event::Verb(Verb::Manage),
        22 => Event::Verb(Verb::Inspect),
        23 => Event::Verb(Verb::Provide { wipe: vec![disk()], how: Cleaning::Light }),
        24 => Event::Verb(Verb::Provide { wipe: vec![], how: Cleaning::Light }),
        25..=26 => Event::Verb(Verb::Deploy(order())),
        27 => Event::Verb(Verb::Rebuild(order())),
        28 => Event::Verb(Verb::Delete { wipe: vec![disk()], how: Cleaning::Light }),
        29 => Event::Verb(Verb::Abort),
        30 => Event::Verb(Verb::Retry),
        31 => Event::KernelServed,
        32 => Event::Verb(Verb::Maintenance { reason: None, until: None, by: None }),
        34 => order_boot(kernel(), Repeat::Once),
        35 => order_boot(installer(), Repeat::Once),
        36 => order_boot(kernel(), Repeat::Always),
        37 => order_boot(Boot::Agent, Repeat::Once),
        38 => Event::BootBegun { ticket: NONCE },
        39 => Event::Verb(Verb::ClearBoot),
        40 => power_news(PowerNews::On),
        41 => power_news(PowerNews::NoEffect { wanted: "off" }),
        42 => power_news(PowerNews::Failed { what: "it is dead".into(), hint: "mend it".into() }),
        43 => Event::Compared(Some(lacks_memory())),
        44 => Event::Compared(None),
        45 => inventory_with(Some(Compared {
            model: "r640".into(),
            differences: vec![difference(PartKind::Cable, true)],
            measured: None,
        })),
        46 => Event::Verb(Verb::Accept { reason: "known".into(), by: "ann".into() }),
        47 => Event::Verb(Verb::Retire { reason: Some("old".into()), by: "ann".into() }),
        48 => Event::Verb(Verb::Retire { reason: None, by: "ann".into() }),
        49 => Event::Verb(Verb::Adopt),
        50 => Event::Verb(Verb::Maintenance {
            reason: Some("fan".into()),
            until: Some(story.now.after(std::time::Duration::from_mins(10))),
            by: None,
        }),
        51 => Event::Quoted(Box::new(quoted(1))),
        52 => Event::Quoted(Box::new(quoted(2))),
        53 => Event::Verb(Verb::ApproveBoot { boot: story.node.epoch, by: "ann".into() }),
        54 => Event::Verb(Verb::PinTpm { ek: Some(Sha256([1; 32])), by: "ann".into() }),
        _ => Event::LoaderServed { by: Netboot::Http },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: a running OS is sent elsewhere only by an order that is not used up, an order once used up
    /// does not come back by itself, and a job ends only by its end being told.
    #[test]
    fn no_loop_and_no_lost_job(steps in prop::collection::vec((any_event(), 0_u64..4000), 0..80)) {
        let mut story = Story::new();
        for (n, seconds) in steps {
            story.now = story.now.after(std::time::Duration::from_secs(seconds));
            let before = story.node.clone();
            let noted = story.notes.len();
            let event = chance_event(&story, n);
            let ordered = matches!(event, Event::Verb(Verb::Boot { .. }));
            if story.try_event(event).is_err() {
                prop_assert_eq!(&story.node, &before);
                continue;
            }
            let after = &story.node;
            if matches!(after.state, State::Active) {
                let later = story.now.after(DISK_AGAIN);
                prop_assert!(pending_order(after).is_some() || required_boot(after, later) == Boot::LocalDisk);
                let same = after.boot.as_ref().filter(|order| order.answers(story.now)).map(|order| order.boot.kind());
                prop_assert_eq!(same.unwrap_or(BootKind::LocalDisk), required_boot(after, story.now).kind());
                let has_job = matches!(after.work(), Work::Job { .. });
                prop_assert!(!has_job);
            }
            let kept = before.quarantine.is_some() || before.retired.is_some();
            let begins = |node: &Node| matches!(node.state, State::Deploying(_) | State::Available);
            let fresh = !begins(&before) && begins(after) && before.state.run().is_none();
            let again = matches!(before.state, State::Active | State::Failed(_));
            prop_assert!(!(kept && fresh && !again && after.kept_out().is_some()), "offered although it is kept out");
            let writes = |node: &Node| matches!(
                node.state.run().map(|r| (r.stage, &r.job.task)),
                Some((RunStage::Agent(_), Task::Deploy(_) | Task::Clean { .. }))
            );
            if writes(after) {
                prop_assert!(after.link.session.is_some(), "work without an agent that proved who it is");
            }
            let pends = |node: &Node| node.boot.as_ref().is_some_and(BootOrder::pending);
            prop_assert!(ordered || pends(&before) || !pends(after), "an order came back");
            prop_assert!(after.state.run().is_none() || after.boot.is_none(), "an order beside a job");
            prop_assert_eq!(after.state.run().is_some(), after.state.deadline().is_some());
            if let Some(run) = before.state.run() {
                let kept = after.state.run().is_some_and(|r| r.job.id == run.job.id);
                let failed = matches!(&after.state, State::Failed(f) if f.run.as_ref().is_some_and(|r| r.job.id == run.job.id));
                let told = story.notes[noted..].iter().any(|kind| {
                    ["inspect.finished", "clean.finished", "deploy.finished", "job.aborted"].contains(&kind.as_str())
                });
                prop_assert!(kept || failed || told, "job lost: {} -> {}", place(&before), place(after));
            }
            let text = serde_json::to_string(after).unwrap();
            let back: Node = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back, after);
        }
    }
}

#[test]
fn every_state_has_a_name_and_all_are_walked() {
    let mut seen = BTreeMap::new();
    for (_, state) in states() {
        *seen.entry(state.name()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 10);
}
