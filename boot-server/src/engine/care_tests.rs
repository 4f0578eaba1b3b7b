//! Expected hardware, expected machines and replacement over a real store.

use std::net::IpAddr;

use boot_server_core::arrivals;
use boot_server_core::deploy::DeployRequest;
use boot_server_core::expected::learn;
use boot_server_core::node::event::{Cleaning, Verb};
use boot_server_core::node::{Claim, Event, Node, Refused, StateName};
use protocol::MacAddr;
use protocol::inventory::{Dimm, Inventory, Nic};
use uuid::Uuid;

use super::tests::{engine, hello, image, inventory};
use super::{Actor, BootAnswer, Engine, EngineError, Replacing};
use crate::store::tests::Scratch;

const HOW: Replacing = Replacing { take_place: true, allow_smaller: false, dry_run: false };

fn who() -> Actor {
    Actor::Operator("ann".into())
}

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}

fn dimm(slot: &str) -> Dimm {
    Dimm { locator: slot.into(), size_bytes: 16 << 30, ..Dimm::default() }
}

fn machine(n: u8) -> Inventory {
    let mut found = inventory();
    found.system.manufacturer = Some("Acme".into());
    found.system.product = Some("Box".into());
    found.dimms = vec![dimm("A1"), dimm("A2")];
    found.nics = vec![Nic {
        name: "eth0".into(),
        mac: mac(n),
        permanent_mac: None,
        driver: None,
        firmware: None,
        speed_mbps: None,
        carrier: true,
        bus_path: Some("pci-0000:00:03.0".into()),
        pci_id: None,
        address: None,
        address6: None,
        lldp: None,
    }];
    found.disks[0].id = Some(format!("serial:D{n}").parse().unwrap());
    found
}

async fn boots(engine: &Engine, n: u8, inventory: Inventory) -> String {
    let claim = Claim { uuid: Some(Uuid::from_u128(u128::from(n))), serial: None, macs: vec![mac(n)] };
    let address = IpAddr::from([10, 77, 0, n]);
    let BootAnswer::Agent { nonce, .. } = engine.boot(claim, address).await.unwrap() else {
        panic!("no agent")
    };
    let session = engine.hello(hello(nonce, vec![mac(n)])).await.unwrap().session;
    engine.put_inventory(&session, inventory).await.unwrap();
    session
}

async fn named(engine: &Engine, n: u8) -> Node {
    let nodes = engine.nodes().await.unwrap();
    Node::clone(nodes.iter().find(|node| node.identity.macs.contains(&mac(n))).unwrap())
}

async fn import(engine: &Engine, csv: &str) -> Result<(), EngineError> {
    let list = arrivals::read_csv(csv).map_err(EngineError::BadList)?;
    engine.import_machines(&who(), list, false).await.map(drop)
}

#[tokio::test]
async fn a_model_keeps_out_what_differs_and_frees_it() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    engine.put_model(who(), learn("box", &machine(1), None), false).await.unwrap();
    let mut less = machine(1);
    less.dimms.remove(1);
    let session = boots(&engine, 1, less).await;
    let node = named(&engine, 1).await;
    assert_eq!(node.state.name(), StateName::Manageable, "its disk is blank, but it is not offered");
    let verb = Event::Verb(Verb::Provide { wipe: Vec::new(), how: Cleaning::Light });
    let refused = engine.apply(node.id, who(), verb).await;
    assert!(matches!(refused, Err(EngineError::Refused(Refused::Quarantined { .. }))));
    let faults = engine.all_faults().await;
    assert_eq!(faults[0].faults[0].what, "memory module in slot A2 is missing; expected 16 GiB");
    // What is in the store says the same after a restart.
    let expected = engine.expected(&node).await.unwrap();
    assert_eq!((expected.model.as_deref(), expected.differences.len()), (Some("box"), 1));

    engine.put_inventory(&session, machine(1)).await.unwrap();
    let node = named(&engine, 1).await;
    assert_eq!((node.state.name(), node.quarantine), (StateName::Available, None));

    // A model that asks for more puts it back, and goes without a trace.
    let mut more = engine.model("box").await.unwrap();
    more.expected.dimms[1].size_bytes *= 2;
    engine.put_model(who(), more, true).await.unwrap();
    assert!(named(&engine, 1).await.quarantine.is_some());
    let other = learn("other", &machine(1), None);
    assert!(matches!(engine.put_model(who(), other, false).await, Err(EngineError::BadModel { .. })));
    engine.remove_model(who(), "box").await.unwrap();
    assert!(named(&engine, 1).await.quarantine.is_none());
}

#[tokio::test]
async fn a_list_is_taken_in_as_a_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let engine = engine(&scratch).await;
    boots(&engine, 1, machine(1)).await;
    let here = named(&engine, 1).await;
    let (m1, m2) = (mac(1), mac(2));
    // One line is good, one takes the name of a machine that is here and is another one.
    let error = import(&engine, &format!("name,mac\nweb-9,52:54:00:00:00:09\n{},{m2}\n", here.name)).await;
    let Err(EngineError::BadList(wrong)) = error else { panic!("taken in") };
    assert_eq!((wrong.len(), wrong[0].line), (1, 3), "{wrong:?}");
    assert!(engine.expected_machines().await.unwrap().is_empty(), "half of it was taken in");
    let error = import(&engine, "name,serial,model,pool\na,1,nobody,nowhere\n").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was taken in: line 2: no model `nobody` is known; line 2: no pool `nowhere` is known"
    );

    // A machine that is here gets at once what is said of it; the other one when it comes.
    let list =
        format!("name,mac,rack,unit,tags,warranty_end\nweb-1,{m1},R4,8,gold,2029-01-01\nweb-2,{m2},R4,9,,\n");
    import(&engine, &list).await.unwrap();
    let node = named(&engine, 1).await;
    assert_eq!((node.name.as_str(), node.id), ("web-1", here.id));
    assert_eq!(node.place.as_ref().unwrap().to_string(), "rack R4, unit 8");
    assert!(node.tags.iter().any(|tag| tag.to_string() == "gold"));
    assert!(node.papers.warranty_end.is_some());
    let waiting = engine.expected_machines().await.unwrap();
    assert_eq!(waiting.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["web-2"]);
    let again = import(&engine, &format!("name,mac\nweb-3,{m2}\n")).await.unwrap_err();
    assert!(again.to_string().contains("web-2, which is expected already"), "{again}");
    boots(&engine, 2, machine(2)).await;
    assert_eq!(named(&engine, 2).await.name, "web-2");
    assert!(engine.expected_machines().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clone_takes_everything_or_nothing() {
    let scratch = Scratch::new();
    let (old_id, new_id) = {
        let engine = engine(&scratch).await;
        image(&engine).await;
        boots(&engine, 1, machine(1)).await;
        boots(&engine, 2, machine(2)).await;
        let old = named(&engine, 1).await;
        let request = DeployRequest {
            image: "tiny".into(),
            confirm: Some(old.name.clone()),
            hostname: Some("shop".into()),
            user_data: Some("#cloud-config\nsecret: sesame\n".into()),
            network_config: Some(format!("match: {{macaddress: {}}}", mac(1))),
            ..DeployRequest::default()
        };
        let old = engine.deploy(&old, who(), request, false, None).await.unwrap();
        let new = named(&engine, 2).await;
        // While the deploy runs it is refused, and nothing has changed.
        let Err(EngineError::Misfit(reasons)) = engine.replace(&old, &new, who(), HOW).await else {
            panic!("replaced")
        };
        assert!(reasons[0].contains("a job is on its way"), "{reasons:?}");
        assert_eq!(named(&engine, 2).await, new);
        // The deploy fails half-way; a person gives up on that machine.
        engine.apply(old.id, who(), Event::Verb(Verb::Abort)).await.unwrap();
        let old = named(&engine, 1).await;
        engine.replace(&old, &new, who(), Replacing { dry_run: true, ..HOW }).await.unwrap();
        assert_eq!(named(&engine, 1).await, old, "a dry run changed something");
        let done = engine.replace(&old, &new, who(), HOW).await.unwrap();
        assert_eq!(
            (done.hostname.as_deref(), done.old_name.as_str()),
            (Some("shop"), "node-000001-replaced")
        );
        engine.store().close();
        (old.id, new.id)
    };
    let engine = engine(&scratch).await;
    let (old, new) =
        (engine.node(&old_id.to_string()).await.unwrap(), engine.node(&new_id.to_string()).await.unwrap());
    assert_eq!((old.name.as_str(), new.name.as_str()), ("node-000001-replaced", "node-000001"));
    assert!(old.retired.is_some() && new.retired.is_none());
    assert_eq!(new.state.name(), StateName::Deploying);
    let run = new.state.run().unwrap();
    assert_eq!(run.hostname.as_deref(), Some("shop"));
    let protocol::job::Task::Deploy(spec) = &run.job.task else { panic!("no deploy") };
    assert_eq!(spec.target.id.to_string(), "serial:D2");
    let config = spec.config.as_ref().unwrap();
    assert!(config.user_data.contains("sesame"));
    assert_eq!(config.network_config.as_deref(), Some(format!("match: {{macaddress: {}}}", mac(2)).as_str()));
}
