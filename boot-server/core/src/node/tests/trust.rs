//! Levels of proof: what each is given, what takes a level away, and what is an alarm.

use std::time::Duration;

use protocol::job::CloudConfig;

use super::*;

const HOURS: Duration = Duration::from_hours(1);

fn with_config() -> Box<DeployOrder> {
    let mut order = order();
    order.spec.config = Some(CloudConfig::default());
    order
}

fn policy(user_data: Level) -> Policy {
    Policy { identity: Needs { user_data, ..Needs::default() }, ..Policy::default() }
}

fn approve(boot: u64) -> Event {
    Event::Verb(Verb::ApproveBoot { boot, by: "ann".into() })
}

fn pin(ek: u8) -> Event {
    Event::Verb(Verb::PinTpm { ek: Some(Sha256([ek; 32])), by: "ann".into() })
}

fn quote(ek: u8) -> Event {
    Event::Quoted(Box::new(quoted(ek)))
}

fn model(trust_first_tpm: bool) -> Event {
    let pcrs = [(4, vec![Sha256([0x40; 32]), Sha256([0x44; 32])]), (7, vec![Sha256([0x77; 32])])].into();
    let measured = Some(Measured { pcrs, trust_first_tpm });
    Event::Compared(Some(Compared { model: "r640".into(), differences: Vec::new(), measured }))
}

impl Story {
    fn level(&self) -> Level {
        self.node.trust().level
    }

    fn waits(&self) -> String {
        self.node.waits_for("").unwrap_or_default()
    }

    /// A deploy with user data, of which the site wants this level.
    fn deploys(level: Level) -> Self {
        let mut story = Self::available();
        story.policy = policy(level);
        story.is(Event::Verb(Verb::Deploy(with_config())));
        story
    }
}

#[test]
fn user_data_waits_for_an_operator_where_the_site_wants_that() {
    let story = Story::deploys(Level::T1);
    assert_eq!((story.level(), told(&story.node)), (Level::T1, "the job"), "as ever");

    let mut story = Story::deploys(Level::T2);
    let job = story.job();
    assert_eq!((story.level(), told(&story.node)), (Level::T1, "to wait"));
    assert!(story.waits().contains("user data needs T2") && story.waits().contains("approve-boot n1"));
    assert!(matches!(story.try_event(Event::WorkTaken { job }), Err(Refused::Trust { .. })));
    assert!(
        matches!(story.try_event(approve(story.node.epoch + 1)), Err(Refused::Trust { .. })),
        "another boot"
    );
    story.now = story.now.after(HOURS * 23);
    story.is(Event::Tick);
    assert_eq!(story.place(), "deploying/assign", "people sleep");
    story.is(approve(story.node.epoch));
    assert_eq!((story.level(), told(&story.node)), (Level::T2, "the job"));
    assert_eq!(story.effects.last(), Some(&Effect::WakeAgent));
    assert!(
        story.notes.ends_with(&["identity.approved".into(), "identity.enough".into()]),
        "{:?}",
        story.notes
    );
    story.takes_work();

    // An approval is for one boot.
    story.boots();
    assert_eq!(story.level(), Level::T0);
    assert!(
        matches!(story.try_event(approve(story.node.epoch)), Err(Refused::Trust { .. })),
        "nobody is there"
    );
    story.is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION });
    assert_eq!((story.level(), told(&story.node)), (Level::T1, "to wait"));
    story.now = story.now.after(HOURS * 25);
    story.is(Event::Tick);
    assert_eq!(story.place(), "failed during deploying");
}

#[test]
fn a_job_without_a_secret_needs_no_more_than_the_nonce() {
    let mut story = Story::available();
    story.policy = policy(Level::T3);
    story.is(Event::Verb(Verb::Deploy(order())));
    assert_eq!(told(&story.node), "the job");
}

#[test]
fn what_the_site_wants_may_change_while_a_job_waits() {
    let mut story = Story::deploys(Level::T2);
    story.policy = policy(Level::T1);
    story.is(Event::ServerStarted);
    assert_eq!(told(&story.node), "the job");
    story.policy = policy(Level::T2);
    story.is(Event::ServerStarted);
    assert_eq!(told(&story.node), "to wait");
}

#[test]
fn a_nonce_by_the_machines_own_controller_is_t2() {
    let mut story = Story::available();
    story.is(Event::Verb(Verb::Manage)).is(Event::PoweredOff);
    story.node.link.session = None;
    story.policy = policy(Level::T2);
    story.is(Event::Verb(Verb::Provide { wipe: vec![disk()], how: Cleaning::Light }));
    let job = story.job();
    story.is(Event::MediumMade { job, nonce: NONCE });
    story.is(Event::Power { job, bmc: "10.0.0.9".into(), news: PowerNews::On });
    story.is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION });
    assert_eq!(story.level(), Level::T2, "{}", story.node.trust().why);
}

#[test]
fn a_nonce_is_good_for_the_machine_that_it_was_made_for() {
    let uuid = |n| Some(Uuid::from_u128(n));
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
    let swapped = Uuid::from_bytes(Uuid::from_u128(0xa << 96).to_bytes_le());
    let cases = [
        (uuid(10), vec![mac(1)], uuid(10), vec![mac(1)], true),
        (uuid(10), vec![mac(1)], None, vec![mac(2), mac(1)], true),
        (uuid(10), vec![mac(1)], uuid(10), vec![mac(3)], true),
        (None, vec![mac(1)], uuid(10), vec![mac(1)], true),
        (uuid(0xa << 96), vec![mac(1)], Some(swapped), vec![mac(1)], true),
        (uuid(10), vec![mac(1)], uuid(11), vec![mac(1)], false),
        (uuid(10), vec![mac(1)], None, vec![mac(2)], false),
        (uuid(10), vec![mac(1)], None, vec![], false),
        (None, vec![mac(1)], uuid(10), vec![mac(2)], false),
        (uuid(10), vec![], None, vec![mac(1)], false),
    ];
    for (n, (uuid, macs, says_uuid, says_macs, good)) in cases.into_iter().enumerate() {
        let mut story = Story::new();
        let claim = Claim { uuid, serial: None, macs };
        story.is(Event::BootRequested { boot: Boot::Agent, nonce: NONCE, claim });
        let mut hello = hello();
        (hello.uuid, hello.macs) = (says_uuid, says_macs);
        let before = story.node.clone();
        let said = story.try_event(Event::Hello { hello, nonce: NONCE, session: SESSION });
        assert_eq!(said.is_ok(), good, "case {n}: {said:?}");
        assert_eq!(story.node == before, !good, "case {n}: who is refused changes nothing");
    }
}

#[test]
fn a_pinned_tpm_and_the_right_registers_are_t3() {
    let mut story = Story::deploys(Level::T3);
    assert!(story.waits().contains("no quote of a TPM came"), "{}", story.waits());
    story.is(quote(1));
    assert!(story.waits().contains("no TPM is pinned"), "{}", story.waits());
    assert!(matches!(story.try_event(pin(2)), Err(Refused::Trust { .. })), "not the one that it shows");
    story.is(pin(1));
    assert!(story.waits().contains("says nothing of PCRs"), "{}", story.waits());
    story.is(model(false));
    assert_eq!((story.level(), told(&story.node)), (Level::T3, "the job"));
    story.takes_work();

    // The next boot proves nothing by itself.
    story.boots().is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION });
    assert_eq!((story.level(), told(&story.node)), (Level::T1, "to wait"));
    // Something else was booted.
    let mut other = quoted(1);
    other.pcrs.insert(4, Sha256([0x45; 32]));
    story.is(Event::Quoted(Box::new(other)));
    assert_eq!((story.level(), told(&story.node)), (Level::T1, "to wait"));
    assert!(story.waits().contains("PCR 4 not as its model says"), "{}", story.waits());
    assert_eq!(story.notes.last().map(String::as_str), Some("identity.measured"));
    // A register that is not told is not right.
    let mut silent = quoted(1);
    silent.pcrs.remove(&7);
    story.is(Event::Quoted(Box::new(silent)));
    assert!(story.waits().contains("PCR 7"), "{}", story.waits());
    // Nor is a log that leads elsewhere.
    for log in [EventLog::Differs { pcrs: vec![4] }, EventLog::Broken] {
        story.is(Event::Quoted(Box::new(Quoted { log, ..quoted(1) })));
        assert_eq!(story.level(), Level::T1);
    }
    story.is(Event::Quoted(Box::new(Quoted { log: EventLog::Matches { events: 9 }, ..quoted(1) })));
    assert_eq!(story.level(), Level::T3);
    // The model is changed, or taken away.
    story.is(Event::Compared(None));
    assert_eq!(story.level(), Level::T1);
}

#[test]
fn another_tpm_gets_nothing_and_is_an_alarm() {
    let mut story = Story::deploys(Level::T1);
    story.is(quote(1)).is(pin(1)).is(model(true));
    assert_eq!(story.level(), Level::T3);
    story.boots().is(Event::Hello { hello: hello(), nonce: NONCE, session: SESSION });
    story.is(approve(story.node.epoch)).is(quote(2));
    assert_eq!((story.level(), told(&story.node)), (Level::T0, "to wait"), "not even what T1 is given");
    assert!(story.notes.iter().any(|kind| kind == "identity.other_tpm"));
    assert!(story.waits().contains("another TPM"), "{}", story.waits());
    assert!(matches!(story.try_event(approve(story.node.epoch)), Err(Refused::Trust { .. })));
    // A new board: somebody says so.
    story.is(pin(2));
    assert_eq!(story.level(), Level::T3);
    assert_eq!(story.node.tpm.as_ref().unwrap().by, "ann");
}

#[test]
fn a_model_that_somebody_assigned_may_trust_the_first_tpm() {
    let mut story = Story::available();
    story.is(quote(1)).is(model(true));
    assert!(story.node.tpm.is_none(), "of which model it is only the machine itself told");
    story.is(Event::Verb(Verb::Model { model: Some("r640".into()) })).is(model(true));
    assert_eq!(story.level(), Level::T3);
    assert_eq!(story.node.tpm.as_ref().unwrap().by, "its model");
    story.is(Event::Quoted(Box::new(quoted(2))));
    assert_eq!((story.level(), story.node.tpm.as_ref().unwrap().ek), (Level::T0, Sha256([1; 32])));
}

#[test]
fn a_model_says_of_registers_what_means_something() {
    let one = |pcr, values: Vec<[u8; 32]>| Measured {
        pcrs: [(pcr, values.into_iter().map(Sha256).collect())].into(),
        trust_first_tpm: false,
    };
    assert_eq!(one(4, vec![[1; 32]]).mistake(), None);
    for wrong in [one(16, vec![[1; 32]]), one(4, vec![]), one(4, vec![[0; 32]]), one(4, vec![[1; 32]; 17])] {
        assert!(wrong.mistake().is_some(), "{wrong:?}");
    }
}
