//! Hosts without a DPU over a real store, with machines whose agent is played here. The switch does not answer; those that do are in the suites.

use std::time::Duration;

use boot_server_core::network::fabric::VlanRange;
use boot_server_core::network::{Driver, NetworkKind};
use boot_server_core::node::{Cable, RunStage};
use boot_server_core::server::Phase;
use protocol::agent::Work;

use super::*;
use crate::config::SwitchSettings;
use crate::engine::overlay::{NewNetwork, NewPort, NewSubnet};
use crate::engine::servers::NewServers;
use crate::engine::servers::tests::{any_flavor, report, someone, wish, with_project};
use crate::engine::tests::{self as lab, discovered, finished, image, kinds};
use crate::engine::{Actor, EngineError};
use crate::store::Store;
use crate::store::overlay::SITE;
use crate::store::tests::Scratch;

/// Of the fabric.
const VLANS: VlanRange = VlanRange { first: 100, last: 101 };

async fn open(scratch: &Scratch) -> Engine {
    let mut settings = lab::settings(scratch);
    lab::with_overlay(&mut settings);
    settings.overlay.as_mut().unwrap().northbound = None;
    settings.switches = vec![SwitchSettings {
        name: "sw-a1".into(),
        address: "unix:/nowhere/switch.sock".parse().unwrap(),
        bridge: "br0".into(),
        fabric: "main".into(),
        provisioning: 10,
        vlans: VLANS,
    }];
    let images = ::images::Store::open(settings.images_dir()).unwrap();
    let store = Store::open(&scratch.database()).unwrap();
    Engine::open(settings, store, images).await.unwrap()
}

fn code<T>(outcome: Result<T, EngineError>) -> String {
    outcome.err().map(|error| error.problem().code).unwrap_or_default()
}

fn subnet(network: &str, cidr: &str) -> NewSubnet {
    NewSubnet {
        name: None,
        network: network.into(),
        cidr: cidr.parse().unwrap(),
        gateway: None,
        pools: Vec::new(),
        reserved: Default::default(),
        dns: Vec::new(),
        dhcp: true,
    }
}

fn flat(name: &str) -> NewNetwork {
    let kind = NetworkKind::Flat { physical: "office".into() };
    NewNetwork { name: name.into(), mtu: None, kind, shared: true }
}

fn on(network: &str) -> NewPort {
    NewPort { network: network.into(), ..NewPort::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_network_has_a_vlan_until_it_is_gone() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let (red, blue) = (with_project(&engine, 1).await, with_project(&engine, 2).await);
    let make =
        |project, name: &str| engine.create_switch_network(project, someone(), name.to_owned(), None, None);
    assert_eq!(engine.usual_driver(), Driver::Switch);
    let first = make(red, "web").await.unwrap();
    let second = make(blue, "web").await.unwrap();
    assert_eq!((first.value.network.kind.vlan(), second.value.network.kind.vlan()), (Some(100), Some(101)));
    assert_eq!(code(make(red, "more").await), "no-vlan");
    let elsewhere = engine.create_switch_network(red, someone(), "more".into(), None, Some("other")).await;
    assert_eq!(code(elsewhere), "no-fabric");
    for (project, n) in [(red, 0), (blue, 1)] {
        let made = engine.create_subnet(project, someone(), subnet("web", "10.0.0.0/24")).await.unwrap();
        assert!(!made.value.dhcp, "nobody answers");
        let port = engine.create_port(project, someone(), on("web")).await.unwrap();
        assert_eq!(port.value.port.addresses.first().unwrap().to_string(), "10.0.0.2", "project {n}");
        assert!(!port.value.port.guarded && port.value.port.groups.is_empty());
    }
    let grouped = NewPort { groups: Some(vec!["default".into()]), ..on("web") };
    assert_eq!(code(engine.create_port(red, someone(), grouped).await), "bad-overlay");
    engine.create_router(red, someone(), "edge").await.unwrap_or_else(|error| panic!("{error}"));
    let inside = engine.overlay_things::<boot_server_core::network::Subnet>(red, None, 9, |_| true);
    let joined = engine.join_subnet(red, someone(), "edge", &inside.rows[0].id.to_string()).await;
    assert_eq!(code(joined), "bad-overlay", "no router of OVN is there");
    let port = engine.overlay_things::<crate::store::overlay::Plug>(red, None, 9, |_| true).rows[0].id;
    engine.delete_port(red, someone(), &port.to_string()).await.unwrap();
    engine.remove_network(red, someone(), "web").await.unwrap();
    assert_eq!(make(blue, "next").await.unwrap().value.network.kind.vlan(), Some(100), "its VLAN is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_as_it_is_is_the_sites_and_addresses_are_one_machines() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let (red, blue) = (with_project(&engine, 1).await, with_project(&engine, 2).await);
    engine.create_network(SITE, someone(), flat("office")).await.unwrap();
    engine.create_subnet(SITE, someone(), subnet("office", "192.0.2.0/24")).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for project in [red, blue, red] {
        let port = engine.create_port(project, someone(), on("office")).await.unwrap();
        assert!(seen.insert(port.value.port.addresses.clone()), "two have {seen:?}");
    }
    let private = NewNetwork { shared: false, ..flat("cellar") };
    engine.create_network(SITE, someone(), private).await.unwrap();
    assert_eq!(code(engine.create_port(red, someone(), on("cellar")).await), "network-not-found");
    let unshared = crate::engine::overlay::NetworkChange { shared: Some(false), ..Default::default() };
    assert_eq!(code(engine.change_network(SITE, someone(), "office", unshared).await), "in-use");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_os_waits_for_a_switch_that_does_not_answer() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    image(&engine).await;
    any_flavor(&engine).await;
    let session = discovered(&engine, 1).await;
    let project = with_project(&engine, 1).await;
    engine.create_switch_network(project, someone(), "web".into(), None, None).await.unwrap();
    engine.create_subnet(project, someone(), subnet("web", "10.0.0.0/24")).await.unwrap();
    let on_web = || NewServers { networks: vec!["web".into()], ..wish("shop", 1) };
    assert_eq!(
        code(engine.create_servers(project, someone(), on_web(), None).await),
        "no-capacity",
        "no cable"
    );

    let node = engine.node("node-000001").await.unwrap();
    let nic = *node.identity.macs.first().unwrap();
    let cable = Cable { switch: "sw-a1".into(), port: "p1".into() };
    engine.set_cable(&node, someone(), nic, Some(cable.clone())).await.unwrap();
    let node = engine.node("node-000001").await.unwrap();
    assert_eq!(engine.cables(&node).await.unwrap()[0].cable.as_ref(), Some(&cable));
    let stranger =
        engine.set_cable(&node, someone(), protocol::MacAddr([2, 9, 9, 9, 9, 9]), Some(cable)).await;
    assert!(stranger.is_err(), "no NIC of it");

    let made = engine.create_servers(project, someone(), on_web(), None).await.unwrap();
    engine.drive_all().await.unwrap();
    let port = engine.ports_of(made[0].id)[0].clone();
    assert_eq!(port.value.port.mac, nic, "of the NIC");
    let busy = engine.set_cable(&node, someone(), nic, None).await;
    assert!(busy.is_err(), "its server is there by it");
    assert_eq!(code(engine.detach_port(project, someone(), &port.id.to_string()).await), "bad-overlay");
    let Work::Job { job } = engine.next_work(&session, Duration::ZERO).await.unwrap() else {
        panic!("no job")
    };
    let protocol::job::Task::Deploy(spec) = &job.task else { panic!("no deploy") };
    let told = spec.config.as_ref().unwrap().network_config.clone().unwrap();
    assert!(
        told.contains("10.0.0.2/24") && told.contains(&nic.to_string()) && told.contains("10.0.0.1"),
        "{told}"
    );

    report(&engine, node.id, &session, finished()).await;
    assert_eq!(engine.next_work(&session, Duration::ZERO).await.unwrap(), Work::Wait, "it stays");
    for _ in 0..2 {
        engine.wire(node.id).await.unwrap();
    }
    let stage = engine.node("node-000001").await.unwrap().state.run().map(|run| run.stage);
    assert_eq!(stage, Some(RunStage::Cross));
    let troubles = kinds(&engine).await.iter().filter(|kind| *kind == "switch.trouble").count();
    assert_eq!(troubles, 1, "told once");
    let server = engine.server(project, "shop").await.unwrap();
    assert_eq!(server.phase, Phase::Deploying);
    assert!(server.note.unwrap().contains("the site's network"));
    assert!(!engine.is_back_home(node.id).await.unwrap(), "nothing is known of its port");
    assert_eq!(engine.switches()[0].used, 1);
    let ready = boot_server_core::node::Event::Prepared {
        job: job.id,
        news: boot_server_core::node::PrepareNews::Clear,
    };
    engine.apply(node.id, Actor::Server, ready).await.unwrap();
    assert_eq!(engine.next_work(&session, Duration::ZERO).await.unwrap(), Work::Reboot);
}
