//! What an agent sends: a hello, an inventory or reports, and what they do to a node.

use boot_server_core::node::{
    Boot, Claim, Context, Event, Node, Outcome, Policy, StateName, required_boot, step,
};
use boot_server_core::{agent_body, expected};
use protocol::limits::{DISKS_MAX, NICS_MAX, PCI_MAX, REPORTED_STRING_MAX, REPORTS_MAX};
use protocol::{JobId, NodeId, Sha256, Timestamp};
use uuid::Uuid;

use crate::input::packets;

const NONCE: Sha256 = Sha256([1; 32]);
const SESSION: Sha256 = Sha256([2; 32]);
const STARTED: Timestamp = Timestamp(1_000_000);

/// Each packet is one body, behind an octet that says of what; the node begins as a machine that nobody knows.
pub fn run(data: &[u8]) {
    let mut node = discovered();
    for (n, packet) in packets(data).into_iter().enumerate() {
        let Some((kind, body)) = packet.split_first() else { continue };
        let now = Timestamp(STARTED.0 + 1_000 * n as u64);
        let event = match kind % 3 {
            0 => agent_body::hello(body).ok().map(|hello| {
                assert!(hello.macs.len() <= NICS_MAX && hello.agent_version.len() <= REPORTED_STRING_MAX);
                Event::Hello { hello: Box::new(hello), nonce: NONCE, session: SESSION }
            }),
            1 => agent_body::inventory(body).ok().map(|(inventory, _)| {
                assert!(inventory.disks.len() <= DISKS_MAX && inventory.pci.len() <= PCI_MAX);
                let (again, lost) = agent_body::inventory(&serde_json::to_vec(&inventory).expect("a value"))
                    .expect("what was taken is taken again");
                assert!(again == inventory && lost.is_none(), "what was cut needs no cut");
                let model = expected::learn("m", &inventory, None);
                Event::Inventory {
                    compared: expected::judge(&[model], Some("m"), &inventory, None),
                    disks_blank: body.len() % 2 == 0,
                    macs: inventory.nics.iter().map(|n| n.mac).collect(),
                }
            }),
            _ => agent_body::reports(body).ok().map(|mut batch| {
                assert!(batch.reports.len() <= REPORTS_MAX);
                // Half of them are about the job that really runs.
                if let Some(run) = node.state.run().filter(|_| kind & 4 == 0) {
                    batch.job = run.job.id;
                }
                Event::Report(batch)
            }),
        };
        if let Some(event) = event {
            take(&mut node, event, now);
        }
        if kind & 8 != 0 {
            let boot = required_boot(&node, now);
            take(&mut node, Event::BootRequested { boot, nonce: NONCE, claim: Claim::default() }, now);
        }
    }
}

fn take(node: &mut Node, event: Event, now: Timestamp) {
    let context = Context { now, fresh_job: JobId(Uuid::from_u128(now.0.into())), policy: Policy::default() };
    if let Ok(Outcome { node: after, .. }) = step(node, event, &context) {
        // Nobody asked for a deploy, and no agent can.
        assert!(!matches!(
            after.state.name(),
            StateName::Active | StateName::Deploying | StateName::Deleting
        ));
        assert_eq!(required_boot(&after, now), Boot::Agent);
        *node = after;
    }
}

fn discovered() -> Node {
    let identity = boot_server_core::node::Identity { uuid: None, serial: None, macs: Default::default() };
    let mut node = Node::discovered(NodeId(Uuid::from_u128(5)), "n1".into(), identity, Timestamp(0));
    take(
        &mut node,
        Event::BootRequested { boot: Boot::Agent, nonce: NONCE, claim: Claim::default() },
        STARTED,
    );
    node
}
