//! Stories of machines between tenants.

use protocol::erase::{EraseMethod, EraseRecord, EraseResult, Expected, Sampled};
use protocol::fault::FaultCode;
use protocol::job::{DiskTarget, Task};
use protocol::report::{Report, ReportBatch, ReportBody, Stage, Summary};
use protocol::{DiskId, JobId, MacAddr, NodeId, Sha256, Timestamp};
use uuid::Uuid;

use super::*;
use crate::node::event::{Context, Event, Policy, Verb};
use crate::node::identity::Claim;
use crate::node::{Delivery, Identity, Node, Outcome, Retired, Session, State, check_forget, step};

const NOW: Timestamp = Timestamp(1_000_000);

fn target(serial: &str) -> DiskTarget {
    DiskTarget { id: DiskId::of(None, Some(serial), None).unwrap(), size_bytes: 1 << 30 }
}

fn record(serial: &str) -> EraseRecord {
    EraseRecord {
        disk: DiskId::of(None, Some(serial), None),
        name: "sda".into(),
        model: None,
        serial: Some(serial.into()),
        wwn: None,
        firmware: None,
        size_bytes: 1 << 30,
        transport: Transport::Sata,
        result: EraseResult::Erased,
        method: Some(EraseMethod::AtaSanitizeBlock),
        grade: Grade::Purge,
        not_used: vec![],
        began: NOW,
        ended: NOW,
        sampled: Some(Sampled {
            expected: Expected::Changed,
            random: 1024,
            start: 512,
            end: 512,
            block_bytes: 4096,
            sentinels: 64,
            bound_ppm: 4488,
        }),
    }
}

/// A machine that a project gave back, with its agent at work.
struct Story {
    node: Node,
    seq: u64,
}

impl Story {
    fn new(how: Cleaning) -> Self {
        let identity = Identity { uuid: None, serial: None, macs: [MacAddr([2, 0, 0, 0, 0, 1])].into() };
        let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, NOW);
        node.state = State::Active;
        node.link.session = Some(Session {
            sha256: Sha256([1; 32]),
            since: NOW,
            agent_version: "1".into(),
            nonce: None,
            used: true,
            delivered: Delivery::default(),
            made_for: Claim::default(),
            approved: None,
            tpm: None,
        });
        let mut story = Self { node, seq: 0 };
        story.is(Event::Verb(Verb::Delete { wipe: vec![target("A"), target("B")], how }));
        story
    }

    fn try_event(&mut self, event: Event) -> Result<Outcome, Refused> {
        let context = Context { now: NOW, fresh_job: JobId(Uuid::from_u128(9)), policy: Policy::default() };
        let done = step(&self.node, event, &context)?;
        self.node = done.node.clone();
        Ok(done)
    }

    fn is(&mut self, event: Event) -> Outcome {
        self.try_event(event).unwrap()
    }

    fn task(&self) -> (Vec<String>, EraseOrder) {
        let Task::Clean { disks, erase: Some(order) } = self.node.state.run().unwrap().agent_job().task
        else {
            panic!("no erase")
        };
        (disks.iter().map(|disk| disk.id.to_string()).collect(), order)
    }

    fn report(&mut self, body: ReportBody) -> Outcome {
        self.seq += 1;
        let job = self.node.state.run().unwrap().job.id;
        self.is(Event::Report(ReportBatch { job, reports: vec![Report { seq: self.seq, at: NOW, body }] }))
    }

    fn disk(&mut self, record: EraseRecord) -> EraseRecord {
        let mut done = self.report(ReportBody::Disk { record: Box::new(record) });
        done.records.remove(0).record
    }

    fn finish(&mut self) {
        self.report(ReportBody::Finished { summary: Summary::default() });
    }

    fn fault(&self) -> FaultCode {
        let State::Failed(failure) = &self.node.state else { panic!("{:?}", self.node.state.name()) };
        failure.fault.code
    }
}

#[test]
fn every_disk_needs_a_record_before_the_machine_is_offered() {
    let mut story = Story::new(Cleaning::Between);
    assert!(story.node.dirty.is_some(), "from the moment at which it was given back");
    let (disks, order) = story.task();
    assert_eq!((disks.len(), order.whole, order.done.len()), (2, true, 0));
    assert_eq!(story.disk(record("A")).grade, Grade::Purge);
    story.finish();
    assert_eq!(story.fault(), FaultCode::Erase);
    assert!(story.node.dirty.is_some());

    let mut story = Story::new(Cleaning::Between);
    story.disk(record("A"));
    story.disk(record("B"));
    story.finish();
    assert_eq!((&story.node.state, &story.node.dirty), (&State::Available, &None));
}

#[test]
fn an_agent_that_knows_no_erase_makes_nothing_clean() {
    let mut story = Story::new(Cleaning::Between);
    story.report(ReportBody::Stage { stage: Stage::Clean });
    story.finish();
    assert_eq!(story.fault(), FaultCode::Erase);
    // Nor does it after a retry, nor is the machine offered as it is, by whatever way.
    story.is(Event::Verb(Verb::Retry));
    story.seq = 0;
    story.finish();
    assert_eq!(story.fault(), FaultCode::Erase);
    for how in [Cleaning::Light, Cleaning::Between] {
        let as_it_is = Event::Verb(Verb::Provide { wipe: vec![], how });
        assert!(matches!(story.try_event(as_it_is), Err(Refused::Dirty { .. })));
    }
    story.is(Event::Verb(Verb::Manage));
    assert!(matches!(story.try_event(Event::Verb(Verb::Adopt)), Err(Refused::Dirty { .. })));
    story.is(Event::Verb(Verb::Inspect));
    let inventory = Event::Inventory { disks_blank: true, macs: vec![], compared: None };
    story.is(inventory);
    assert_eq!(story.node.state, State::Manageable, "blank edges say nothing");
    assert!(matches!(check_forget(&story.node), Err(Refused::Dirty { .. })));
    // A light wipe becomes an erase of the whole machine.
    story.is(Event::Verb(Verb::Provide { wipe: vec![target("A"), target("B")], how: Cleaning::Light }));
    assert!(story.task().1.whole);
    story.node.retired = Some(Retired { reason: "old".into(), since: NOW, by: "x".into() });
    assert!(!matches!(check_forget(&story.node), Err(Refused::Dirty { .. })));
}

#[test]
fn a_cut_leaves_it_dirty_and_the_job_goes_on_with_what_is_left() {
    let mut story = Story::new(Cleaning::Between);
    story.disk(record("A"));
    // The agent is gone: nothing is offered, and the next one gets the rest.
    story.node.link.session = None;
    assert!(story.node.dirty.is_some() && matches!(story.node.state, State::Cleaning(_)));
    let (disks, order) = story.task();
    assert_eq!(disks, ["serial:B"]);
    assert_eq!(order.done, [target("A").id]);
    // A whole new job begins anew: between the two something may have run.
    let mut again = Story::new(Cleaning::Between);
    again.disk(record("A"));
    let failed = EraseResult::Failed { why: "it lies".into() };
    again.disk(EraseRecord { result: failed, ..record("B") });
    again.report(ReportBody::Failed { fault: Fault::new(FaultCode::Erase, "no", "") });
    again.is(Event::Verb(Verb::Retry));
    assert_eq!(again.task().0.len(), 2);
}

#[test]
fn what_a_record_does_not_bear_out_is_not_believed() {
    type Claim = (&'static str, fn(&mut EraseRecord));
    let claims: [Claim; 5] = [
        ("another size", |r| r.size_bytes = 5),
        ("no method", |r| r.method = None),
        ("nothing read back", |r| r.sampled = None),
        ("no sentinels", |r| r.sampled.as_mut().unwrap().sentinels = 0),
        ("another disk", |r| r.disk = DiskId::of(None, Some("C"), None)),
    ];
    for (what, change) in claims {
        let mut story = Story::new(Cleaning::Between);
        let mut claim = record("A");
        change(&mut claim);
        let kept = story.disk(claim);
        assert!(matches!(kept.result, EraseResult::Failed { .. }), "{what}");
        assert_eq!((kept.grade, story.task().0.len()), (Grade::None, 2), "{what}");
    }
    let mut story = Story::new(Cleaning::Between);
    let kept = story.disk(EraseRecord { method: Some(EraseMethod::Overwrite), ..record("A") });
    assert_eq!((kept.result, kept.grade), (EraseResult::Erased, Grade::Clear), "an overwrite is no purge");
    let kept = story.disk(EraseRecord { transport: Transport::Virtio, ..record("B") });
    assert_eq!(kept.grade, Grade::Clear, "whatever a disk of a hypervisor says");
    let skipped = EraseResult::Skipped { why: "on USB".into() };
    let mut story = Story::new(Cleaning::Between);
    story.disk(EraseRecord { result: skipped, ..record("A") });
    assert_eq!(story.task().0.len(), 2, "what was skipped was not erased");
}

#[test]
fn a_light_clean_is_as_it_ever_was() {
    let mut story = Story::new(Cleaning::Light);
    assert!(matches!(story.node.state.run().unwrap().agent_job().task, Task::Clean { erase: None, .. }));
    let done = story.report(ReportBody::Disk { record: Box::new(record("A")) });
    assert!(done.records.is_empty(), "nobody asked for it");
    story.finish();
    assert_eq!((&story.node.state, &story.node.dirty), (&State::Available, &None));
    let mut story = Story::new(Cleaning::Erase);
    assert_eq!((story.node.dirty.is_some(), story.task().1.whole), (false, false));
    story.finish();
    assert_eq!(story.fault(), FaultCode::Erase);
}
