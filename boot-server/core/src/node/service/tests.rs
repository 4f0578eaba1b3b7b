//! Stories of servicing jobs.

use proptest::prelude::*;
use protocol::{JobId, MacAddr, NodeId};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::node::event::{Cleaning, Context, Event, Outcome, Policy, Verb};
use crate::node::{Boot, Identity, Node, StateName, required_boot, step};
use crate::servicing::FirmwareFact;

const START: Timestamp = Timestamp(1_000_000);

fn context(now: Timestamp) -> Context {
    Context { now, fresh_job: JobId(Uuid::from_u128(7)), policy: Policy::default() }
}

fn at(state: State) -> Node {
    let identity = Identity { uuid: None, serial: None, macs: [MacAddr([2, 0, 0, 0, 0, 1])].into() };
    let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, Timestamp(0));
    node.state = state;
    node
}

fn steps(steps: serde_json::Value) -> Vec<ServiceStep> {
    serde_json::from_value(steps).unwrap()
}

fn bios() -> serde_json::Value {
    json!({"kind": "bios", "attributes": {"NumCores": 8}})
}

fn secure_boot() -> serde_json::Value {
    json!({"kind": "secure_boot", "on": true})
}

fn firmware() -> serde_json::Value {
    json!({"kind": "firmware", "component": "BIOS", "version": "2", "image": "b", "sha256": "ab".repeat(32)})
}

fn cores(cores: u32) -> Facts {
    Facts::Bios([("NumCores".to_owned(), cores.into())].into())
}

fn secure(current: bool) -> Facts {
    Facts::SecureBoot { current, enabled: true, setup_mode: None }
}

fn version(version: &str) -> Facts {
    let item = FirmwareFact { id: "/f/BIOS".into(), name: "BIOS".into(), version: Some(version.into()) };
    Facts::Firmware(vec![item])
}

struct Story {
    node: Node,
    now: Timestamp,
    notes: Vec<String>,
}

impl Story {
    fn new(state: State, what: serde_json::Value, restart: RestartPolicy) -> Self {
        let mut story = Self { node: at(state), now: START, notes: Vec::new() };
        story.event(order(what, restart)).unwrap();
        story.news(ServiceNews::Resumed);
        story
    }

    fn event(&mut self, event: Event) -> Result<(), Refused> {
        self.now = self.now.after(Duration::from_secs(1));
        let Outcome { node, notes, .. } = step(&self.node, event, &context(self.now))?;
        self.node = node;
        self.notes.extend(notes.into_iter().map(|n| n.kind));
        Ok(())
    }

    fn news(&mut self, news: ServiceNews) -> &mut Self {
        self.event(Event::Service { job: JobId(Uuid::from_u128(7)), news }).unwrap();
        self
    }

    fn looked(&mut self, at: usize, facts: Facts) -> &mut Self {
        self.news(ServiceNews::Looked { at, facts, tasks: vec!["/t/old".into()] })
    }

    fn stage(&self) -> &'static str {
        self.node.state.service().map_or("none", |service| service.stage.as_str())
    }

    fn failed(&self) -> String {
        match &self.node.state {
            State::Failed(failure) => failure.fault.message.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn has(&self, kind: &str) -> bool {
        self.notes.iter().any(|n| n == kind)
    }
}

fn order(what: serde_json::Value, restart: RestartPolicy) -> Event {
    Event::Verb(Verb::Service(Box::new(ServiceOrder { steps: steps(what), restart })))
}

#[test]
fn settings_share_one_restart_and_are_read_back() {
    let mut story = Story::new(State::Active, json!([bios(), secure_boot()]), RestartPolicy::Allowed);
    assert!(matches!(required_boot(&story.node, story.now), Boot::LocalDisk));
    story.looked(0, cores(16));
    assert_eq!(story.stage(), "apply");
    story.news(ServiceNews::Taken { task: None }).looked(1, secure(false));
    story.news(ServiceNews::Taken { task: None });
    assert_eq!(story.stage(), "restart");
    story.news(ServiceNews::Restarted).looked(0, cores(16)).looked(1, secure(true));
    assert_eq!(story.stage(), "verify", "one is missing");
    story.looked(0, cores(8));
    assert_eq!(story.node.state.name(), StateName::Active);
    assert!(story.has("service.finished") && !story.has("service.pending"));
    assert_eq!(story.notes.iter().filter(|n| *n == "service.restart").count(), 1);
}

#[test]
fn without_leave_to_restart_settings_stay_pending_and_firmware_is_refused() {
    let mut story = Story::new(State::Active, json!([bios()]), RestartPolicy::Never);
    story.looked(0, cores(16)).news(ServiceNews::Taken { task: None });
    assert_eq!(story.node.state.name(), StateName::Active);
    assert!(story.has("service.pending") && !story.has("service.restart"));
    let mut node = Story { node: at(State::Active), now: START, notes: Vec::new() };
    let refused = node.event(order(json!([firmware()]), RestartPolicy::Never)).unwrap_err();
    assert!(refused.to_string().contains("an OS runs"), "{refused}");
    // No OS runs on it: the machine is nobody's.
    let mut free = Story::new(State::Available, json!([bios()]), RestartPolicy::Never);
    free.looked(0, cores(16)).news(ServiceNews::Taken { task: None });
    assert_eq!(free.stage(), "restart");
}

#[test]
fn what_is_so_already_is_not_done() {
    let mut story = Story::new(State::Manageable, json!([firmware(), bios()]), RestartPolicy::Never);
    story.looked(0, version("2")).looked(1, cores(8));
    assert_eq!(story.node.state.name(), StateName::Manageable);
    assert!(!story.has("service.asked") && story.has("service.same"));
}

#[test]
fn a_firmware_stands_alone() {
    let mut story =
        Story::new(State::Available, json!([bios(), firmware(), secure_boot()]), RestartPolicy::Never);
    story.looked(0, cores(16)).news(ServiceNews::Taken { task: None });
    assert_eq!(story.stage(), "restart", "before the firmware");
    story.news(ServiceNews::Restarted).looked(0, cores(8)).looked(1, version("1"));
    story.news(ServiceNews::Taken { task: Some("/t/1".into()) });
    story.news(ServiceNews::Progress { id: "/t/1".into(), percent: Some(50), words: Some("writing".into()) });
    assert!(story.node.state.service().unwrap().waits_for().ends_with("50 % done (writing)"));
    story.news(ServiceNews::TaskDone).looked(1, version("1"));
    assert_eq!(story.stage(), "settle", "a controller may need a moment");
    story.now = story.now.after(SETTLE);
    story.looked(1, version("1"));
    assert_eq!(story.stage(), "restart", "in force after a restart");
    story.news(ServiceNews::Restarted).looked(1, version("2"));
    assert_eq!(story.stage(), "check");
    story.looked(2, secure(true));
    assert_eq!(story.node.state.name(), StateName::Available);
}

#[test]
fn an_update_is_not_begun_twice() {
    let begun = || {
        let mut story = Story::new(State::Available, json!([firmware()]), RestartPolicy::Never);
        story.looked(0, version("1"));
        // The server stops before the answer.
        story.event(Event::ServerStarted).unwrap();
        story.news(ServiceNews::Resumed);
        assert_eq!(story.stage(), "doubt");
        story
    };
    let mut found = begun();
    found.looked(0, version("1"));
    assert_eq!(found.stage(), "doubt", "the tasks tell");
    found.news(ServiceNews::Tasks(Some(vec!["/t/old".into(), "/t/new".into()])));
    assert!(
        matches!(&found.node.state.service().unwrap().stage, ServiceStage::Task { id, .. } if id == "/t/new")
    );
    // A stop in a task changes nothing: it is found by its id.
    found.news(ServiceNews::Resumed);
    assert_eq!(found.stage(), "task");
    let mut done = begun();
    done.looked(0, version("2"));
    assert_eq!(done.node.state.name(), StateName::Available);
    let mut not = begun();
    not.looked(0, version("1")).news(ServiceNews::Tasks(Some(vec!["/t/old".into()])));
    assert_eq!(not.stage(), "apply");
    let mut unknown = begun();
    unknown.looked(0, version("1")).news(ServiceNews::Tasks(None));
    assert!(unknown.failed().contains("not known"), "{}", unknown.failed());
}

#[test]
fn a_task_that_vanishes_is_judged_by_the_version() {
    let gone = || {
        let mut story = Story::new(State::Available, json!([firmware()]), RestartPolicy::Never);
        story.looked(0, version("1")).news(ServiceNews::Taken { task: Some("/t/1".into()) });
        story.news(ServiceNews::TaskGone);
        story
    };
    let mut well = gone();
    well.looked(0, version("2"));
    assert_eq!(well.node.state.name(), StateName::Available);
    let mut badly = gone();
    badly.now = badly.now.after(SETTLE);
    badly.looked(0, version("1"));
    assert!(badly.failed().contains("firmware BIOS is 1, wanted is 2"), "{}", badly.failed());
    assert!(!badly.has("service.restart"), "a machine is not restarted on a guess");
}

/// The upload is the driver's own task: where it is cut, the controller's tasks tell whether it had begun.
#[test]
fn an_upload_that_is_cut_is_sent_again_a_few_times() {
    let mut story = Story::new(State::Available, json!([firmware()]), RestartPolicy::Never);
    story.looked(0, version("1"));
    for _ in 1..TRIES_MAX {
        story.news(ServiceNews::Taken { task: Some("push:/u".into()) }).news(ServiceNews::TaskGone);
        assert_eq!(story.stage(), "doubt");
        story.news(ServiceNews::Tasks(Some(vec!["/t/old".into()])));
        assert_eq!(story.stage(), "apply");
    }
    story.news(ServiceNews::Taken { task: Some("push:/u".into()) }).news(ServiceNews::TaskGone);
    story.news(ServiceNews::Tasks(Some(vec!["/t/old".into()])));
    assert!(story.failed().contains("3 times"), "{}", story.failed());
    // Once it is taken, its task is the controller's.
    let mut taken = Story::new(State::Available, json!([firmware()]), RestartPolicy::Never);
    taken.looked(0, version("1")).news(ServiceNews::Taken { task: Some("push:/u".into()) });
    taken.news(ServiceNews::Progress { id: "/t/9".into(), percent: None, words: None });
    taken.news(ServiceNews::TaskGone);
    assert_eq!(taken.stage(), "settle");
}

#[test]
fn a_restart_that_was_interrupted_is_done_only_where_it_is_needed() {
    let restarting = || {
        let mut story = Story::new(State::Available, json!([bios()]), RestartPolicy::Never);
        story.looked(0, cores(16)).news(ServiceNews::Taken { task: None }).news(ServiceNews::Resumed);
        assert_eq!(story.stage(), "recheck");
        story
    };
    let mut done = restarting();
    done.looked(0, cores(8));
    assert_eq!(done.node.state.name(), StateName::Available);
    let mut again = restarting();
    again.looked(0, cores(16));
    assert_eq!(again.stage(), "restart");
}

#[test]
fn deadlines_name_the_difference() {
    let mut story = Story::new(State::Active, json!([bios()]), RestartPolicy::Allowed);
    story.looked(0, cores(16)).news(ServiceNews::Taken { task: None }).news(ServiceNews::Restarted);
    story.looked(0, cores(16));
    story.now = story.now.after(Duration::from_hours(1));
    story.event(Event::Tick).unwrap();
    assert!(story.failed().contains("NumCores is 16, wanted is 8"), "{}", story.failed());
    assert!(matches!(required_boot(&story.node, story.now), Boot::LocalDisk), "its OS is whole");
    // Given up, the OS runs on; tried again, all is looked at anew.
    let mut again = Story { node: story.node.clone(), now: story.now, notes: Vec::new() };
    again.event(Event::Verb(Verb::Retry)).unwrap();
    assert_eq!(again.stage(), "check");
    story.event(Event::Verb(Verb::Abort)).unwrap();
    assert_eq!(story.node.state.name(), StateName::Active);
}

#[test]
fn one_job_at_a_time_also_in_maintenance() {
    let mut story = Story { node: at(State::Available), now: START, notes: Vec::new() };
    story
        .event(Event::Verb(Verb::Maintenance { reason: Some("new BIOS".into()), until: None, by: None }))
        .unwrap();
    story.event(order(json!([bios()]), RestartPolicy::Never)).unwrap();
    let second = story.event(order(json!([bios()]), RestartPolicy::Never)).unwrap_err();
    assert!(matches!(second, Refused::WrongState { verb: "service", .. }), "{second}");
    let wipe = Event::Verb(Verb::Provide { wipe: Vec::new(), how: Cleaning::Light });
    assert!(story.event(wipe).is_err());
    story.event(Event::Verb(Verb::Abort)).unwrap();
    assert_eq!(story.node.state.name(), StateName::Available);
}

#[test]
fn an_abort_waits_for_what_the_controller_works_on() {
    let mut story = Story::new(State::Available, json!([firmware(), bios()]), RestartPolicy::Never);
    story.looked(0, version("1")).news(ServiceNews::Taken { task: Some("/t/1".into()) });
    story.event(Event::Verb(Verb::Abort)).unwrap();
    assert_eq!(story.stage(), "task");
    story.news(ServiceNews::TaskDone).looked(0, version("2"));
    assert_eq!(story.node.state.name(), StateName::Available);
    assert!(story.has("job.aborted") && !story.has("service.finished"));
}

#[test]
fn a_boot_that_is_ordered_once_is_not_used_up() {
    let mut story = Story { node: at(State::Available), now: START, notes: Vec::new() };
    let rescue: Boot = serde_json::from_value(json!({"kind": "kernel", "kernel": "rescue/linux"})).unwrap();
    let boot = |repeat| Event::Verb(Verb::Boot { boot: Box::new(rescue.clone()), repeat });
    story.event(boot(Repeat::Once)).unwrap();
    assert!(story.event(order(json!([bios()]), RestartPolicy::Never)).is_err());
    // What it always boots it boots also while it is serviced.
    story.event(boot(Repeat::Always)).unwrap();
    story.event(order(json!([bios()]), RestartPolicy::Never)).unwrap();
    assert_eq!(required_boot(&story.node, story.now), rescue);
}

fn any_news() -> impl Strategy<Value = ServiceNews> {
    let facts = prop_oneof![
        (0_u32..20).prop_map(cores),
        any::<bool>().prop_map(secure),
        (1_u8..4).prop_map(|v| version(&v.to_string())),
    ];
    let id = || prop_oneof![Just("/t/1".to_owned()), Just("/t/old".to_owned())];
    prop_oneof![
        Just(ServiceNews::Resumed),
        (0_usize..4, facts).prop_map(|(at, facts)| ServiceNews::Looked { at, facts, tasks: vec![] }),
        prop::option::of(id()).prop_map(|task| ServiceNews::Taken { task }),
        prop::option::of(prop::collection::vec(id(), 0..3)).prop_map(ServiceNews::Tasks),
        any::<u8>().prop_map(|p| ServiceNews::Progress { id: "/t/1".into(), percent: Some(p), words: None }),
        Just(ServiceNews::TaskDone),
        Just(ServiceNews::TaskGone),
        Just(ServiceNews::Restarted),
        Just(ServiceNews::Lost { what: "x".into() }),
        Just(ServiceNews::Trouble { what: "x".into() }),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a machine with an OS is never restarted without leave, and "finished" is said
    /// only of what was read back or is said to be pending.
    #[test]
    fn nothing_is_claimed_and_nothing_is_restarted_without_leave(
        news in prop::collection::vec(any_news(), 0..60), allowed in any::<bool>(),
    ) {
        let restart = if allowed { RestartPolicy::Allowed } else { RestartPolicy::Never };
        let mut story = Story::new(State::Active, json!([bios(), secure_boot()]), restart);
        for news in news {
            let before = story.node.state.service().cloned();
            story.news(news);
            let Some(before) = before else { break };
            if !allowed {
                prop_assert!(!matches!(story.stage(), "restart" | "verify" | "recheck"));
            }
            if story.has("service.finished") {
                let open = before.items.iter().filter(|i| i.status == ItemStatus::Waiting).count();
                prop_assert!(open <= 1, "only the last one can have ended it: {before:?}");
                let staged = before.staged().count();
                prop_assert!(staged <= 1 || story.has("service.pending"), "{before:?}");
            }
        }
    }
}
