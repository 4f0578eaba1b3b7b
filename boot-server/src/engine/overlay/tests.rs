//! Networks over a real store. OVN is in the suites.

use std::net::IpAddr;

use boot_server_core::network::{
    Cidr, Direction, Encap, Family, Floating, NetworkKind, Router, Rule, SecurityGroup, Sink, Subnet, Traffic,
};
use boot_server_core::quota::Limits;
use boot_server_core::usage::Period;
use protocol::{ProjectId, Timestamp};
use uuid::Uuid;

use super::*;
use crate::config::{OverlaySettings, Settings};
use crate::engine::tests as lab;
use crate::store::tests::Scratch;

async fn project(engine: &Engine, n: u128) -> ProjectId {
    let id = ProjectId(Uuid::from_u128(n));
    let add = move |db: &Connection| {
        let sql = "INSERT INTO projects (id, name, created, closed, body) VALUES (?1, ?2, 1, NULL, '{}')";
        let values = crate::store::db::params![id.to_string(), format!("p{n}")];
        db.execute(sql, values).map(drop).map_err(StoreError::sql("add a project"))
    };
    engine.store().write(add).await.unwrap();
    id
}

fn ada() -> Actor {
    Actor::Operator("ada".into())
}

fn with_overlay(scratch: &Scratch) -> Settings {
    let overlay = OverlaySettings {
        northbound: "unix:/nowhere/ovnnb_db.sock".parse().ok(),
        southbound: None,
        encap: Encap::Geneve,
        mtu: 1442,
        gateways: vec!["gw".into()],
        mirror_to: vec!["198.51.100.0/24".parse().unwrap()],
    };
    Settings { overlay: Some(overlay), ..lab::settings(scratch) }
}

async fn open(scratch: &Scratch) -> Engine {
    let store = Store::open(&scratch.database()).unwrap();
    let images = ::images::Store::open(scratch.0.join("images")).unwrap();
    Engine::open(with_overlay(scratch), store, images).await.unwrap()
}

fn network(name: &str) -> NewNetwork {
    NewNetwork { name: name.into(), mtu: None, kind: NetworkKind::Overlay, shared: false }
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

fn port(network: &str) -> NewPort {
    NewPort { network: network.into(), ..NewPort::default() }
}

fn code<T>(outcome: Result<T, EngineError>) -> String {
    outcome.err().map(|error| error.problem().code).unwrap_or_default()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The site's own network, by which projects reach the world.
async fn wan(engine: &Engine) {
    let kind = NetworkKind::Provider { physical: "physnet".into(), vlan: None };
    let wan = NewNetwork { shared: true, kind, ..network("wan") };
    engine.create_network(SITE, ada(), wan).await.unwrap();
    let public = NewSubnet { dhcp: false, ..subnet("wan", "203.0.113.0/29") };
    engine.create_subnet(SITE, ada(), public).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_there_after_a_restart() {
    let scratch = Scratch::new();
    let (red, blue) = {
        let engine = open(&scratch).await;
        let (red, blue) = (project(&engine, 1).await, project(&engine, 2).await);
        wan(&engine).await;
        for of in [red, blue] {
            engine.create_network(of, ada(), network("web")).await.unwrap();
            engine.create_subnet(of, ada(), subnet("web", "10.0.0.0/24")).await.unwrap();
            let made = engine.create_port(of, ada(), port("web")).await.unwrap();
            assert_eq!(made.value.port.addresses, [ip("10.0.0.2")].into(), "the first one after the gateway");
        }
        let edge = engine.create_router(red, ada(), "edge").await.unwrap();
        let inside = engine.overlay_things::<Subnet>(red, None, 9, |_| true).rows[0].id.to_string();
        engine.join_subnet(red, ada(), "edge", &inside).await.unwrap();
        let out = NewGateway { network: "wan".into(), address: None };
        let edge = engine.set_gateway(red, ada(), &edge.id.to_string(), out).await.unwrap();
        assert_eq!(edge.value.external.as_ref().unwrap().address, ip("203.0.113.2"));
        let port = engine.overlay_things::<Plug>(red, None, 9, |_| true).rows[0].id.to_string();
        let wish = NewFloating { network: "wan".into(), port: Some(port), ..NewFloating::default() };
        let floating = engine.create_floating(red, ada(), wish).await.unwrap();
        assert_eq!(floating.value.address, ip("203.0.113.3"));
        engine.store().close();
        (red, blue)
    };
    let engine = open(&scratch).await;
    let site = engine.0.overlay.known(|known| known.site(Encap::Geneve));
    assert_eq!(site.check(), []);
    assert_eq!(engine.0.overlay.turn.lock().await.site(), &site, "the draft is what is shown");
    let counts = (site.networks.len(), site.subnets.len(), site.ports.len(), site.groups.len());
    assert_eq!(counts, (3, 3, 2, 2), "a group `default` for each project, and none for the site");
    let floating = engine.floating(red, "203.0.113.3").unwrap();
    assert!(floating.value.to.is_some());
    assert_eq!(code(engine.floating(blue, "203.0.113.3")), "floating-address-not-found");
    assert!(!engine.overlay_synced().is_synced(), "nobody told OVN");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let (red, blue) = (project(&engine, 1).await, project(&engine, 2).await);
    engine.create_network(red, ada(), network("web")).await.unwrap();
    engine.create_subnet(red, ada(), subnet("web", "10.0.0.0/29")).await.unwrap();
    let made = engine.create_port(red, ada(), port("web")).await.unwrap();
    let before = engine.0.overlay.known(|known| known.site(Encap::Geneve));
    assert_eq!(code(engine.create_network(red, ada(), network("web")).await), "name-taken");
    assert_eq!(code(engine.create_network(red, ada(), network("a b")).await), "bad-name");
    assert_eq!(code(engine.create_subnet(red, ada(), subnet("web", "10.0.0.0/24")).await), "bad-overlay");
    assert_eq!(code(engine.create_port(blue, ada(), port("web")).await), "network-not-found");
    let taken = NewPort { addresses: [ip("10.0.0.2")].into(), ..port("web") };
    assert_eq!(code(engine.create_port(red, ada(), taken).await), "no-address");
    let gateway = NewPort { addresses: [ip("10.0.0.1")].into(), ..port("web") };
    assert_eq!(code(engine.create_port(red, ada(), gateway).await), "bad-address");
    let mac = NewPort { mac: Some(made.value.port.mac), ..port("web") };
    assert_eq!(code(engine.create_port(red, ada(), mac).await), "bad-overlay");
    let refused = engine.remove_network(red, ada(), "web").await.unwrap_err().to_string();
    assert!(refused.contains(&made.id.to_string()), "{refused}");
    let group = engine.overlay_thing::<SecurityGroup>(red, "default").unwrap();
    assert_eq!(code(engine.remove_security_group(red, ada(), "default").await), "default-group");
    assert_eq!(made.value.port.groups, [group.id].into());
    assert_eq!(engine.0.overlay.known(|known| known.site(Encap::Geneve)), before);
    assert_eq!(engine.0.overlay.turn.lock().await.site(), &before);
    // All addresses of the subnet, and one more.
    for _ in 0..4 {
        engine.create_port(red, ada(), port("web")).await.unwrap();
    }
    assert_eq!(code(engine.create_port(red, ada(), port("web")).await), "no-address");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_count_networks_and_floating_addresses() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let red = project(&engine, 1).await;
    wan(&engine).await;
    let limits = Limits { networks: Some(1), addresses: Some(1), ..Limits::default() };
    engine.set_quota(red, ada(), limits).await.unwrap();
    engine.create_network(red, ada(), network("one")).await.unwrap();
    assert_eq!(code(engine.create_network(red, ada(), network("two")).await), "quota");
    assert_eq!(code(engine.overlay_thing::<Net>(red, "two")), "network-not-found");
    let take = || NewFloating { network: "wan".into(), ..NewFloating::default() };
    engine.create_floating(red, ada(), take()).await.unwrap();
    assert_eq!(code(engine.create_floating(red, ada(), take()).await), "quota");
    let used = engine.quota(red).await.unwrap().used;
    assert_eq!((used.networks, used.addresses), (1, 1));
    engine.remove_network(red, ada(), "one").await.unwrap();
    engine.remove_floating(red, ada(), "203.0.113.2").await.unwrap();
    assert_eq!(engine.quota(red).await.unwrap().used, Amounts::default());
    let period = Period { from: Timestamp(0), to: Timestamp(u64::MAX >> 1) };
    let records = engine.store().read(move |db| usage::records(db, Some(red), period)).await.unwrap();
    assert!(records.len() == 2 && records.iter().all(|record| record.ended.is_some()), "{records:?}");
    engine.create_network(red, ada(), network("two")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_go_with_what_hangs_on_them() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let red = project(&engine, 1).await;
    wan(&engine).await;
    engine.create_network(red, ada(), network("web")).await.unwrap();
    let inside = engine.create_subnet(red, ada(), subnet("web", "10.0.0.0/24")).await.unwrap();
    engine.create_router(red, ada(), "edge").await.unwrap();
    engine.join_subnet(red, ada(), "edge", &inside.id.to_string()).await.unwrap();
    let wan = NewGateway { network: "wan".into(), address: Some(ip("203.0.113.5")) };
    engine.set_gateway(red, ada(), "edge", wan).await.unwrap();
    let server = protocol::ServerId(Uuid::now_v7());
    let wish = |follows| NewPort { server: Some(server), follows, ..port("web") };
    let own = engine.create_port(red, ada(), wish(true)).await.unwrap();
    let other = engine.create_port(red, ada(), wish(false)).await.unwrap();
    assert_eq!(engine.ports_of(server).len(), 2);
    assert_eq!(engine.overlay_ports_of_server(server)[0].2, 1442);
    let wish =
        NewFloating { network: "wan".into(), port: Some(own.id.to_string()), ..NewFloating::default() };
    let floating = engine.create_floating(red, ada(), wish).await.unwrap();
    let reached: Vec<IpAddr> =
        engine.addresses_on_networks(server).into_iter().map(|at| at.address).collect();
    assert_eq!(reached, [ip("10.0.0.2"), floating.value.address, ip("10.0.0.3")]);
    let of_site = engine.networks_of(red, &["wan".to_owned()]).unwrap_err().to_string();
    assert!(of_site.contains("network wan is the site's"), "{of_site}");
    assert_eq!(engine.create_port(red, ada(), port("wan")).await.unwrap_err().to_string(), of_site);
    assert_eq!(code(engine.clear_gateway(red, ada(), "edge").await), "bad-overlay", "an address leads there");
    let mirror = NewMirror {
        name: Some("copy".into()),
        direction: Direction::Ingress,
        ports: vec![own.id.to_string(), other.id.to_string()],
        sink: Sink::Gre(ip("198.51.100.9"), 7),
    };
    let astray = NewMirror { sink: Sink::Gre(ip("192.0.2.1"), 7), ..mirror.clone() };
    assert_eq!(code(engine.create_mirror(red, ada(), astray).await), "bad-overlay");
    engine.create_mirror(red, ada(), mirror).await.unwrap();
    assert_eq!(code(engine.delete_port(red, ada(), &own.id.to_string()).await), "in-use");
    engine.release_ports(server).await.unwrap();
    assert_eq!(code(engine.port(red, &own.id.to_string())), "port-not-found");
    assert_eq!(engine.port(red, &other.id.to_string()).unwrap().value.server, None);
    assert_eq!(engine.overlay_by_id::<Floating>(floating.id).unwrap().value.to, None);
    let copy = engine.overlay_thing::<boot_server_core::network::Mirror>(red, "copy").unwrap();
    assert_eq!(copy.value.ports, [other.id].into());
    assert!(engine.ports_of(server).is_empty());
    engine.clear_gateway(red, ada(), "edge").await.unwrap();
    assert_eq!(code(engine.remove_router(red, ada(), "edge").await), "in-use");
    engine.leave_subnet(red, ada(), "edge", &inside.id.to_string()).await.unwrap();
    engine.remove_router(red, ada(), "edge").await.unwrap();
    assert_eq!(engine.overlay_things::<Router>(red, None, 9, |_| true).rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_stay_the_nics_that_they_are() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let red = project(&engine, 1).await;
    engine.create_network(red, ada(), network("web")).await.unwrap();
    let server = protocol::ServerId(Uuid::now_v7());
    let wish = |name: &str| NewPort { name: Some(name.into()), server: Some(server), ..port("web") };
    for name in ["one", "two"] {
        engine.create_port(red, ada(), wish(name)).await.unwrap();
    }
    let mac = |n: u8| protocol::MacAddr([2, 0, 0, 0, 0, n]);
    let of = |name: &str| engine.port(red, name).unwrap().value.port.mac;
    let here = [mac(1), mac(2)];
    assert_eq!(engine.dress_ports(server, "dpu-1", &here).await.unwrap(), None);
    assert_eq!((of("one"), of("two")), (mac(1), mac(2)));
    engine.detach_port(red, ada(), "one").await.unwrap();
    assert_eq!(engine.dress_ports(server, "dpu-1", &here).await.unwrap(), None);
    assert_eq!(of("two"), mac(2), "the other one is where it was");
    let there = [mac(3), mac(4)];
    assert_eq!(engine.dress_ports(server, "dpu-2", &there).await.unwrap(), None);
    assert_eq!(of("two"), mac(4), "the NIC of the same number");
    engine.create_port(red, ada(), NewPort { mac: Some(mac(3)), ..port("web") }).await.unwrap();
    engine.create_port(red, ada(), wish("three")).await.unwrap();
    let refused = engine.dress_ports(server, "dpu-2", &there).await.unwrap().unwrap().to_string();
    assert!(refused.contains("is on network"), "{refused}");
    let back = engine.dress_ports(server, "dpu-1", &here).await.unwrap();
    assert_eq!((back, of("two"), of("three")), (None, mac(2), mac(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_groups_name_each_other() {
    let scratch = Scratch::new();
    let engine = open(&scratch).await;
    let red = project(&engine, 1).await;
    let rule =
        |remote| Rule { direction: Direction::Ingress, family: Family::V4, traffic: Traffic::Any, remote };
    use boot_server_core::network::Remote;
    let web = engine
        .create_security_group(red, ada(), "web", |own| Ok([rule(Remote::Group(own))].into()))
        .await
        .unwrap();
    let rules = [rule(Remote::Group(web.id))].into();
    engine.create_security_group(red, ada(), "db", |_| Ok(rules)).await.unwrap();
    assert_eq!(code(engine.remove_security_group(red, ada(), "web").await), "in-use");
    let cidr: Cidr = "10.0.0.0/8".parse().unwrap();
    let rules = Some([rule(Remote::Net(cidr))].into());
    let changed = engine.change_security_group(red, ada(), "db", (Some("data".into()), rules)).await.unwrap();
    assert_eq!((changed.version, changed.name.as_str()), (2, "data"));
    engine.remove_security_group(red, ada(), "web").await.unwrap();
    assert_eq!(code(engine.overlay_thing::<SecurityGroup>(red, "web")), "security-group-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_overlay_nothing_is_made() {
    let scratch = Scratch::new();
    let engine = lab::engine(&scratch).await;
    let red = project(&engine, 1).await;
    assert_eq!(code(engine.create_network(red, ada(), network("web")).await), "no-overlay");
    assert!(!engine.overlay_synced().is_synced());
}
