//! Networks of projects from the API to the packet: the real server, a real OVN, and machines plugged into the ports that the
//! API made. What the driver alone does is in `ovn.rs`.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::{MacAddr, PortId};
use serde_json::{Value, json};
use tests::overlay::{CENTRAL, Host, Overlay, WIRE, pings};
use tests::rack::{Api, ApiError, Rack};

/// Networks of the test of scale.
const MANY: usize = 10_000;
/// Clients of the API that make them.
const CLIENTS: usize = 8;
/// For OVN to have what the API was told.
const SYNC: Duration = Duration::from_secs(60);
/// The same for ten thousand networks, in a debug build on a busy machine.
const SYNC_MANY: Duration = Duration::from_secs(600);

/// A server whose networks this OVN carries.
fn site(name: &str, overlay: &Overlay) -> Result<(Rack, Api)> {
    let mut rack = Rack::new(name)?;
    let table = format!(
        "\n[overlay]\nnorthbound = {:?}\nmtu = 1442\ngateways = [\"chassis1\", \"chassis0\"]\n\
         mirror_to = [\"{CENTRAL}/32\"]\n",
        overlay.northbound_address()
    );
    rack.start_server_with(|config| format!("{config}{table}"))?;
    let api = rack.server()?.api()?;
    Ok((rack, api))
}

/// Waits until OVN has what the API was told, and every chassis does it.
fn synced(api: &Api, overlay: &Overlay, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        let status = api.get("/api/v1/overlay/status")?;
        if status["synced"] == true {
            return overlay.settle();
        }
        ensure!(Instant::now() < end, "OVN is not as the networks are: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A project with a network `web`, 10.0.0.0/24.
fn tenant(api: &Api, name: &str) -> Result<String> {
    api.post("/api/v1/projects", &json!({"name": name}))?;
    let of = format!("/api/v1/projects/{name}");
    api.post(&format!("{of}/networks"), &json!({"name": "web"}))?;
    let subnet = json!({"name": "web", "network": "web", "cidr": "10.0.0.0/24", "dns": ["10.0.0.53"]});
    api.post(&format!("{of}/subnets"), &subnet)?;
    Ok(of)
}

/// A machine that is plugged into a port that the API made.
fn machine(overlay: &mut Overlay, chassis: usize, port: &Value) -> Result<Host> {
    let id: PortId = port["id"].as_str().context("an id")?.parse()?;
    let mac: MacAddr = port["mac"].as_str().context("a MAC address")?.parse()?;
    overlay.host(chassis, id, mac)
}

fn status_of(outcome: Result<Value>) -> (u16, String) {
    let error = outcome.unwrap_err();
    let error = error.downcast_ref::<ApiError>().unwrap();
    (error.status, error.body.to_string())
}

#[test]
fn two_projects_with_the_same_addresses_are_apart() {
    let mut overlay = Overlay::new("api", 2, "geneve").unwrap();
    let (mut rack, api) = site("overlay-api", &overlay).unwrap();
    let mut machines = Vec::new();
    for project in ["red", "blue"] {
        let of = tenant(&api, project).unwrap();
        for chassis in 0..2 {
            let port = api.post(&format!("{of}/ports"), &json!({"network": "web"})).unwrap();
            let address = format!("10.0.0.{}", chassis + 2);
            assert_eq!(port["addresses"], json!([address]), "the next free one: {port}");
            machines.push((machine(&mut overlay, chassis, &port).unwrap(), port));
        }
    }
    synced(&api, &overlay, SYNC).unwrap();
    for (host, port) in &machines {
        let lease = host.dhcp(overlay.as_ref()).unwrap();
        let address = port["addresses"][0].as_str().unwrap();
        for line in
            [format!("ip={address}"), "router=10.0.0.1".into(), "dns=10.0.0.53".into(), "mtu=1442".into()]
        {
            assert!(lease.lines().any(|l| l.trim() == line), "{line} in {lease}");
        }
    }
    let mac = |n: usize| machines[n].1["mac"].as_str().unwrap().parse::<MacAddr>().unwrap();
    for (n, other) in [(0, 1), (2, 3)] {
        assert!(machines[n].0.reaches("10.0.0.3").unwrap(), "of one security group");
        assert_eq!(machines[n].0.neighbour("10.0.0.3").unwrap(), mac(other), "the own project's");
    }

    // What a group allows holds on ports that run, when it changes.
    let default = "/api/v1/projects/red/security-groups/default";
    let egress = json!({"direction": "egress"});
    api.patch(default, &json!({"rules": [egress]})).unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    assert!(!machines[0].0.reaches("10.0.0.3").unwrap());
    assert!(machines[2].0.reaches("10.0.0.3").unwrap(), "the other project's group is another");
    let icmp = json!({"direction": "ingress", "protocol": "icmp", "cidr": "10.0.0.0/24"});
    api.patch(default, &json!({"rules": [egress, icmp]})).unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    assert!(machines[0].0.reaches("10.0.0.3").unwrap());

    // The server's end is no end of what runs, and what was changed by others is put back at its start.
    rack.server().unwrap().kill().unwrap();
    assert!(machines[0].0.reaches("10.0.0.3").unwrap());
    let network = machines[0].1["network"].as_str().unwrap().to_owned();
    overlay.northbound(&["ls-del", &network]).unwrap();
    rack.server().unwrap().start_again().unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    assert!(machines[0].0.reaches("10.0.0.3").unwrap());

    let (status, said) = status_of(api.delete("/api/v1/projects/red/networks/web"));
    assert!(status == 409 && said.contains(machines[0].1["id"].as_str().unwrap()), "{status} {said}");
    for (_, port) in &machines[..2] {
        api.delete(&format!("/api/v1/projects/red/ports/{}", port["id"].as_str().unwrap())).unwrap();
    }
    api.delete("/api/v1/projects/red/networks/web").unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    let left = overlay.northbound(&["--bare", "--columns=name", "list", "Logical_Switch"]).unwrap();
    assert_eq!(left.split_whitespace().count(), 1, "the other project's: {left}");
    assert!(machines[2].0.reaches("10.0.0.3").unwrap());
    rack.passed();
    overlay.passed();
}

/// The provider network is the underlay itself: the central machine is a stranger on it.
#[test]
fn a_floating_address_leads_to_a_port_as_long_as_it_is_told() {
    let mut overlay = Overlay::new("api-out", 2, "geneve").unwrap();
    let (mut rack, api) = site("overlay-api-out", &overlay).unwrap();
    let wan = json!({"name": "internet", "physical": WIRE, "shared": true});
    api.post("/api/v1/networks", &wan).unwrap();
    let public =
        json!({"cidr": "192.168.99.0/24", "gateway": CENTRAL, "pools": ["192.168.99.40-192.168.99.59"]});
    api.post("/api/v1/networks/internet/subnets", &public).unwrap();
    let of = tenant(&api, "red").unwrap();
    let ping = json!([{"direction": "egress"}, {"direction": "ingress", "protocol": "icmp"}]);
    api.post(&format!("{of}/security-groups"), &json!({"name": "ping", "rules": ping})).unwrap();
    let port = json!({"name": "front", "network": "web", "security_groups": ["ping"]});
    let port = api.post(&format!("{of}/ports"), &port).unwrap();
    api.post(&format!("{of}/routers"), &json!({"name": "edge"})).unwrap();
    api.put(&format!("{of}/routers/edge/interfaces/web"), &json!({})).unwrap();
    let router = api.put(&format!("{of}/routers/edge/gateway"), &json!({"network": "internet"})).unwrap();
    assert_eq!(router["gateway"]["address"], "192.168.99.40", "{router}");
    let floating = json!({"network": "internet", "port": "front"});
    let floating = api.post(&format!("{of}/floating-addresses"), &floating).unwrap();
    let address = floating["address"].as_str().unwrap().to_owned();
    assert_eq!((address.as_str(), &floating["inner"]), ("192.168.99.41", &json!("10.0.0.2")));
    let host = machine(&mut overlay, 0, &port).unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    host.dhcp(overlay.as_ref()).unwrap();
    assert!(pings(overlay.central(), &[&address]).unwrap());
    assert!(host.reaches(CENTRAL).unwrap(), "and out");

    let of_it = format!("{of}/floating-addresses/{address}");
    api.post(&format!("{of_it}/disassociate"), &json!({})).unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    assert!(!pings(overlay.central(), &[&address]).unwrap());
    assert!(host.reaches(CENTRAL).unwrap(), "as the router's");
    api.post(&format!("{of_it}/associate"), &json!({"port": "front"})).unwrap();
    synced(&api, &overlay, SYNC).unwrap();
    assert!(pings(overlay.central(), &[&address]).unwrap());
    rack.passed();
    overlay.passed();
}

/// Ten thousand networks with a subnet each, by clients of the API; the one with the highest number carries packets under it.
#[test]
fn ten_thousand_networks_by_api() {
    let mut overlay = Overlay::new("api-many", 2, "geneve").unwrap();
    let (mut rack, api) = site("overlay-api-many", &overlay).unwrap();
    let of = tenant(&api, "red").unwrap();
    let next = AtomicUsize::new(1);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= MANY {
                        return;
                    }
                    api.post(&format!("{of}/networks"), &json!({"name": format!("n{n}")})).unwrap();
                }
            });
        }
    });
    let made = began.elapsed();
    println!("networks_created_by_api_per_second {:.0}", MANY as f64 / made.as_secs_f64());
    synced(&api, &overlay, SYNC_MANY).unwrap();
    println!("ten_thousand_networks_in_ovn_seconds {:.1}", began.elapsed().as_secs_f64());

    let keys = overlay.southbound(&["--bare", "--columns=tunnel_key", "list", "Datapath_Binding"]).unwrap();
    let keys: BTreeSet<u32> = keys.split_whitespace().map(|key| key.parse().unwrap()).collect();
    assert_eq!(keys.len(), MANY);
    let last = *keys.last().unwrap();
    assert!(last > 4094, "{last}");
    let find = format!("tunnel_key={last}");
    let row = overlay.southbound(&["--bare", "--columns=_uuid", "find", "Datapath_Binding", &find]).unwrap();
    let name = overlay.southbound(&["get", "Datapath_Binding", row.trim(), "external_ids:name"]).unwrap();
    let network = name.trim().trim_matches('"').to_owned();
    let one = Instant::now();
    let subnet = json!({"network": network, "cidr": "10.0.0.0/24"});
    let subnet = api.post(&format!("{of}/subnets"), &subnet);
    // The project's first network has one with this range; on another network it is no conflict.
    subnet.unwrap();
    let ports = [0, 1].map(|_| api.post(&format!("{of}/ports"), &json!({"network": network})).unwrap());
    println!("three_changes_among_ten_thousand_answered_seconds {:.3}", one.elapsed().as_secs_f64());
    synced(&api, &overlay, SYNC_MANY).unwrap();
    println!("three_changes_among_ten_thousand_in_ovn_seconds {:.1}", one.elapsed().as_secs_f64());
    let hosts: Vec<Host> = ports
        .iter()
        .enumerate()
        .map(|(chassis, port)| machine(&mut overlay, chassis, port).unwrap())
        .collect();
    overlay.settle().unwrap();
    for host in &hosts {
        host.dhcp(overlay.as_ref()).unwrap();
    }
    let seen = overlay
        .on_underlay("udp port 6081", || {
            ensure!(hosts[0].reaches("10.0.0.3")?, "no answer");
            Ok(())
        })
        .unwrap();
    assert!(seen.contains(&format!("vni {last:#x},")), "{last:#x} in {seen}");
    rack.passed();
    overlay.passed();
}
