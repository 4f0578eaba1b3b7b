//! Networks on a real OVN: what the driver writes into the northbound database is what packets meet. Chassis are network
//! namespaces with Open vSwitch in user space.
//!
//! The runtime has a thread of its own: the driver answers signs of life while a test waits for a program.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use boot_server_core::network::{
    Direction, Encap, External, Family, Floating, Mirror, Network, NetworkKind, Port, Remote, Router, Rule,
    SecurityGroup, Sink, Site, Subnet, Traffic, ipam,
};
use network::{Applied, Ovn};
use ovsdb::{Atom, Client, Condition, Datum, Mutation, Mutator, Operation, Row};
use protocol::{
    FloatingId, MacAddr, MirrorId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SubnetId,
};
use tests::overlay::{CENTRAL, Host, Overlay, WIRE, checksums_off, ping_whole, pings, send};
use tests::rack::Namespace;
use uuid::Uuid;

/// Networks of the test of scale.
const MANY: u32 = 10_000;
/// Octets of a transfer with many segments of full size.
const OCTETS: usize = 200_000;
/// For the driver to have read the database.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project with one network 10.0.0.0/24 and one security group.
struct Tenant {
    project: ProjectId,
    network: NetworkId,
    group: SecurityGroupId,
}

fn uuid() -> Uuid {
    Uuid::new_v4()
}

fn rule(direction: Direction, family: Family, traffic: Traffic) -> Rule {
    Rule { direction, family, traffic, remote: Remote::Any }
}

fn subnet(network: NetworkId, cidr: &str, gateway: &str) -> Subnet {
    Subnet {
        network,
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        pools: Vec::new(),
        reserved: BTreeSet::new(),
        dns: Vec::new(),
        dhcp: true,
    }
}

impl Tenant {
    fn new(site: &mut Site) -> Self {
        let tenant =
            Self { project: ProjectId(uuid()), network: NetworkId(uuid()), group: SecurityGroupId(uuid()) };
        tenant.put_network(site, tenant.network, "10.0.0.0/24", "10.0.0.1");
        let rules = BTreeSet::from([
            rule(Direction::Ingress, Family::V4, Traffic::Icmp),
            rule(Direction::Egress, Family::V4, Traffic::Any),
        ]);
        let group = SecurityGroup { project: tenant.project, name: "default".to_owned(), rules };
        site.groups.insert(tenant.group, group);
        tenant
    }

    fn put_network(&self, site: &mut Site, network: NetworkId, cidr: &str, gateway: &str) -> SubnetId {
        let project = self.project;
        let of = Network { project, name: cidr.to_owned(), mtu: 1442, kind: NetworkKind::Overlay };
        site.networks.insert(network, of);
        let id = SubnetId(uuid());
        site.subnets.insert(id, subnet(network, cidr, gateway));
        id
    }

    /// A port with an address on a network of the tenant.
    fn port(&self, site: &mut Site, network: NetworkId, address: [u8; 4]) -> (PortId, MacAddr) {
        let id = PortId(uuid());
        let mac = ipam::mac(id.0, &BTreeSet::new()).unwrap();
        let port = Port {
            project: self.project,
            network,
            mac,
            addresses: BTreeSet::from([IpAddr::from(address)]),
            groups: BTreeSet::from([self.group]),
            guarded: true,
            chassis: None,
            limits: Default::default(),
        };
        site.ports.insert(id, port);
        (id, mac)
    }
}

/// The machine at 10.0.0.12 answers.
fn answers(host: &Host) -> anyhow::Result<()> {
    anyhow::ensure!(host.reaches("10.0.0.12")?, "no answer");
    Ok(())
}

async fn driver(overlay: &Overlay) -> Ovn {
    let ovn = Ovn::start(overlay.northbound_address().parse().unwrap());
    tokio::time::timeout(PATIENCE, ovn.ready()).await.unwrap();
    ovn
}

async fn write(ovn: &Ovn, site: &Site, overlay: &Overlay) -> Applied {
    let applied = ovn.apply(site).await.unwrap();
    overlay.settle().unwrap();
    applied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn projects_share_wires_and_nothing_else() {
    let mut overlay = Overlay::new("projects", 2, "geneve").unwrap();
    let mut site = Site::default();
    let (a, b) = (Tenant::new(&mut site), Tenant::new(&mut site));
    let ports = [(&a, 0, 11), (&a, 1, 12), (&b, 0, 11), (&b, 1, 12)];
    let ports = ports
        .map(|(tenant, chassis, last)| (chassis, tenant.port(&mut site, tenant.network, [10, 0, 0, last])));
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    assert_eq!(write(&ovn, &site, &overlay).await, Applied::default(), "once is enough");
    let [a1, a2, b1, b2] = ports.map(|(chassis, (port, mac))| overlay.host(chassis, port, mac).unwrap());
    overlay.settle().unwrap();

    for (host, address) in [(&a1, "10.0.0.11"), (&a2, "10.0.0.12"), (&b1, "10.0.0.11"), (&b2, "10.0.0.12")] {
        let learned = host.dhcp(overlay.as_ref()).unwrap();
        for line in [format!("ip={address}"), "mask=24".into(), "router=10.0.0.1".into(), "mtu=1442".into()] {
            assert!(learned.lines().any(|l| l == line), "{line} in {learned}");
        }
    }
    let (key_a, key_b) =
        (overlay.tunnel_key(&a.network.to_string()), overlay.tunnel_key(&b.network.to_string()));
    let (vni_a, vni_b) = (format!("vni {:#x},", key_a.unwrap()), format!("vni {:#x},", key_b.unwrap()));
    let seen = |host: &Host| overlay.on_underlay("udp port 6081", || answers(host)).unwrap();
    let seen_of_a = seen(&a1);
    assert!(seen_of_a.contains("Geneve"), "{seen_of_a}");
    assert!(seen_of_a.contains(&vni_a) && !seen_of_a.contains(&vni_b), "{vni_a} in {seen_of_a}");
    let seen_of_b = seen(&b1);
    assert!(seen_of_b.contains(&vni_b) && !seen_of_b.contains(&vni_a), "{vni_b} in {seen_of_b}");
    // One address, two machines.
    let (of_a, of_b) = (a1.neighbour("10.0.0.12").unwrap(), b1.neighbour("10.0.0.12").unwrap());
    assert_eq!((of_a, of_b), (ports[1].1.1, ports[3].1.1));
    overlay.unplug(&b2).unwrap();
    assert!(
        !b1.reaches("10.0.0.12").unwrap() && a1.reaches("10.0.0.12").unwrap(),
        "only the machine of the other project has it now"
    );

    // Another source than its own.
    a1.add_address("10.0.0.99/24").unwrap();
    assert!(!a1.reaches_from("10.0.0.99", "10.0.0.12").unwrap() && a1.reaches("10.0.0.12").unwrap());
    overlay.passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_change_reaches_what_runs() {
    let mut overlay = Overlay::new("changes", 2, "vxlan").unwrap();
    let mut site = Site { encap: Encap::Vxlan, ..Site::default() };
    let tenant = Tenant::new(&mut site);
    let (first, first_mac) = tenant.port(&mut site, tenant.network, [10, 0, 0, 11]);
    let (second, second_mac) = tenant.port(&mut site, tenant.network, [10, 0, 0, 12]);
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    let (one, two) =
        (overlay.host(0, first, first_mac).unwrap(), overlay.host(1, second, second_mac).unwrap());
    overlay.settle().unwrap();
    one.add_address("10.0.0.11/24").unwrap();
    two.add_address("10.0.0.12/24").unwrap();
    assert!(one.reaches("10.0.0.12").unwrap());

    // The rule goes, and comes back.
    let icmp = rule(Direction::Ingress, Family::V4, Traffic::Icmp);
    site.groups.values_mut().for_each(|group| group.rules.retain(|rule| *rule != icmp));
    let applied = write(&ovn, &site, &overlay).await;
    assert_eq!(applied, Applied { changed: 1, ..Applied::default() }, "one port group");
    assert!(!one.reaches("10.0.0.12").unwrap(), "nothing allows it any more");
    site.groups.values_mut().for_each(|group| group.rules.extend([icmp]));
    write(&ovn, &site, &overlay).await;
    assert!(one.reaches("10.0.0.12").unwrap());

    // A second network of the project, on the other chassis, and a router between them.
    let other = NetworkId(uuid());
    let far = tenant.put_network(&mut site, other, "10.1.0.0/24", "10.1.0.1");
    let (third, third_mac) = tenant.port(&mut site, other, [10, 1, 0, 11]);
    let near = *site.subnets.iter().find(|(_, s)| s.network == tenant.network).unwrap().0;
    let macs = [near, far].map(|id| (id, ipam::mac(id.0, &BTreeSet::new()).unwrap()));
    let router =
        Router { project: tenant.project, name: "r".into(), interfaces: macs.into(), external: None };
    site.routers.insert(RouterId(uuid()), router);
    write(&ovn, &site, &overlay).await;
    let three = overlay.host(1, third, third_mac).unwrap();
    overlay.settle().unwrap();
    three.dhcp(overlay.as_ref()).unwrap();
    one.namespace.ip(&["route", "add", "default", "via", "10.0.0.1"]).unwrap();
    assert!(one.reaches("10.1.0.11").unwrap(), "by the router");

    // What the second sends is copied to a machine beside the underlay.
    let sink = Sink::Gre(CENTRAL.parse().unwrap(), 77);
    let (project, direction) = (tenant.project, Direction::Egress);
    let mirror = Mirror { project, direction, ports: BTreeSet::from([second]), sink };
    site.mirrors.insert(MirrorId(uuid()), mirror);
    write(&ovn, &site, &overlay).await;
    let seen = overlay.on_underlay("ip proto gre", || answers(&one)).unwrap();
    assert!(seen.contains("key=0x4d") && seen.contains("10.0.0.12 > 10.0.0.11: ICMP echo reply"), "{seen}");

    // Nothing is left of it.
    ovn.apply(&Site { encap: Encap::Vxlan, ..Site::default() }).await.unwrap();
    for table in ["Logical_Switch", "Logical_Switch_Port", "Logical_Router", "DHCP_Options", "Mirror"] {
        assert_eq!(
            overlay.northbound(&["--bare", "--columns=_uuid", "list", table]).unwrap().trim(),
            "",
            "{table}"
        );
    }
    overlay.passed();
}

/// The router advertises itself, and DHCPv6 gives the port's address.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ipv6_comes_by_advertisement_and_dhcp() {
    let mut overlay = Overlay::new("ipv6", 2, "geneve").unwrap();
    let mut site = Site::default();
    let tenant = Tenant::new(&mut site);
    let six = SubnetId(uuid());
    site.subnets.insert(six, subnet(tenant.network, "fd00:77::/64", "fd00:77::1"));
    let rules = [(Direction::Ingress, Traffic::Icmp), (Direction::Egress, Traffic::Any)];
    let rules = rules.map(|(direction, traffic)| rule(direction, Family::V6, traffic));
    site.groups.values_mut().for_each(|group| group.rules.extend(rules));
    let ports = [11, 12].map(|n| tenant.port(&mut site, tenant.network, [10, 0, 0, n]));
    for ((port, _), address) in ports.iter().zip(["fd00:77::11", "fd00:77::12"]) {
        site.ports.get_mut(port).unwrap().addresses.insert(address.parse().unwrap());
    }
    let interfaces = BTreeMap::from([(six, ipam::mac(six.0, &BTreeSet::new()).unwrap())]);
    let router = Router { project: tenant.project, name: "r".into(), interfaces, external: None };
    site.routers.insert(RouterId(uuid()), router);
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    let mut chassis = 0..;
    let hosts = ports.map(|(port, mac)| overlay.host(chassis.next().unwrap(), port, mac).unwrap());
    overlay.settle().unwrap();

    for (host, address) in hosts.iter().zip(["fd00:77::11", "fd00:77::12"]) {
        let lease = host.dhcp6(overlay.as_ref()).unwrap();
        assert!(lease.contains(&format!("iaaddr {address} ")), "{lease}");
        host.add_address(&format!("{address}/64")).unwrap();
    }
    let heard = hosts[0].namespace.run("rdisc6", &["-1", "-r", "5", "-w", "1000", "eth0"]).unwrap();
    let heard: Vec<String> =
        heard.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["Stateful address conf. : Yes", "MTU : 1442 bytes (valid)", "Prefix : fd00:77::/64"] {
        assert!(heard.iter().any(|l| l == line), "{line} in {heard:#?}");
    }
    assert!(hosts[0].reaches("fd00:77::12").unwrap());
    hosts[0].add_address("fd00:77::99/64").unwrap();
    assert!(!hosts[0].reaches_from("fd00:77::99", "fd00:77::12").unwrap(), "another source than its own");
    overlay.passed();
}

/// A router of the tenant leads to the underlay as the provider's network, as 192.168.99.40, by the second chassis if that lives.
fn lead_out(site: &mut Site, tenant: &Tenant) -> SubnetId {
    let operator = Tenant { project: ProjectId(uuid()), network: NetworkId(uuid()), group: tenant.group };
    let inside: Vec<SubnetId> = site.subnets.keys().copied().collect();
    let outside = operator.put_network(site, operator.network, "192.168.99.0/24", CENTRAL);
    site.subnets.get_mut(&outside).unwrap().dhcp = false;
    let network = site.networks.get_mut(&operator.network).unwrap();
    (network.mtu, network.kind) = (1500, NetworkKind::Provider { physical: WIRE.to_owned(), vlan: None });
    let mac = |id: SubnetId| ipam::mac(id.0, &BTreeSet::new()).unwrap();
    let external = External {
        subnet: outside,
        address: "192.168.99.40".parse().unwrap(),
        mac: mac(outside),
        chassis: vec!["chassis1".to_owned(), "chassis0".to_owned()],
    };
    let interfaces = inside.into_iter().map(|id| (id, mac(id))).collect();
    let (project, name) = (tenant.project, "r".to_owned());
    site.routers.insert(RouterId(uuid()), Router { project, name, interfaces, external: Some(external) });
    outside
}

/// The provider network is the underlay itself: the central machine is a stranger on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_floating_address_leads_in_and_the_router_out() {
    let mut overlay = Overlay::new("floating", 2, "geneve").unwrap();
    let mut site = Site::default();
    let tenant = Tenant::new(&mut site);
    let [(one, one_mac), (two, two_mac)] =
        [11, 12].map(|n| tenant.port(&mut site, tenant.network, [10, 0, 0, n]));
    let outside = lead_out(&mut site, &tenant);
    let to = Some((one, "10.0.0.11".parse().unwrap()));
    let project = tenant.project;
    let floating = Floating { project, subnet: outside, address: "192.168.99.50".parse().unwrap(), to };
    site.floating.insert(FloatingId(uuid()), floating);
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    let hosts = [overlay.host(0, one, one_mac).unwrap(), overlay.host(0, two, two_mac).unwrap()];
    overlay.settle().unwrap();
    for host in &hosts {
        host.dhcp(overlay.as_ref()).unwrap();
    }

    assert!(pings(overlay.central(), &["192.168.99.50"]).unwrap());
    let seen = overlay
        .on_underlay("icmp", || {
            anyhow::ensure!(hosts[1].reaches(CENTRAL)?, "no answer");
            Ok(())
        })
        .unwrap();
    assert!(seen.contains("192.168.99.40 > 192.168.99.1: ICMP echo request"), "as the router's: {seen}");
    // It leads nowhere any more.
    site.floating.values_mut().for_each(|floating| floating.to = None);
    write(&ovn, &site, &overlay).await;
    assert!(!pings(overlay.central(), &["192.168.99.50"]).unwrap());
    overlay.passed();
}

/// A tenant's network of 1442 octets and one of 1500, with a machine each, a router between them and to a wire of 1500, and a floating
/// address that leads to the first machine.
fn networks_of_two_sizes(site: &mut Site) -> [(PortId, MacAddr); 2] {
    let tenant = Tenant::new(site);
    let wide = NetworkId(uuid());
    tenant.put_network(site, wide, "10.1.0.0/24", "10.1.0.1");
    site.networks.get_mut(&wide).unwrap().mtu = 1500;
    let both = [(tenant.network, "fd00:77::", [10, 0, 0, 11]), (wide, "fd00:78::", [10, 1, 0, 11])];
    let ports = both.map(|(network, six, four)| {
        site.subnets.insert(SubnetId(uuid()), subnet(network, &format!("{six}/64"), &format!("{six}1")));
        let made = tenant.port(site, network, four);
        site.ports.get_mut(&made.0).unwrap().addresses.insert(format!("{six}11").parse().unwrap());
        made
    });
    let all = |direction| [Family::V4, Family::V6].map(|family| rule(direction, family, Traffic::Any));
    let rules: BTreeSet<Rule> = [Direction::Ingress, Direction::Egress].into_iter().flat_map(all).collect();
    site.groups.values_mut().for_each(|group| group.rules.clone_from(&rules));
    let subnet = lead_out(site, &tenant);
    let to = Some((ports[0].0, "10.0.0.11".parse().unwrap()));
    let address = "192.168.99.50".parse().unwrap();
    site.floating.insert(FloatingId(uuid()), Floating { project: tenant.project, subnet, address, to });
    ports
}

/// Who sends more than the other's network carries is told so by the router, in whatever direction and through whatever translation of
/// addresses, and sends less.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_router_says_how_large_a_packet_may_be() {
    let mut overlay = Overlay::new("sizes", 2, "geneve").unwrap();
    let mut site = Site::default();
    let [(one, one_mac), (two, two_mac)] = networks_of_two_sizes(&mut site);
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    // The second one's chassis carries the way out.
    let (one, two) = (overlay.host(0, one, one_mac).unwrap(), overlay.host(1, two, two_mac).unwrap());
    overlay.settle().unwrap();
    for (host, six, mtu) in [(&one, "fd00:77::", "1442"), (&two, "fd00:78::", "1500")] {
        host.namespace.ip(&["link", "set", "eth0", "mtu", mtu]).unwrap();
        host.dhcp(overlay.as_ref()).unwrap();
        host.add_address(&format!("{six}11/64")).unwrap();
        // Before the one that the router advertises.
        let by = format!("{six}1");
        host.namespace.ip(&["route", "add", "default", "via", &by, "metric", "512"]).unwrap();
        assert!(host.reaches(CENTRAL).unwrap());
    }
    assert!(two.reaches("10.0.0.11").unwrap() && two.reaches("fd00:77::11").unwrap());

    let (central, one_net, two_net) = (overlay.central(), &one.namespace, &two.namespace);
    let told = |from: &Namespace, to: &str, words: &str| {
        let heard = ping_whole(from, 1500, to).unwrap();
        assert!(heard.contains(words), "{to}: no `{words}` in {heard}");
    };
    told(central, "192.168.99.50", "From 192.168.99.40 icmp_seq=1 Frag needed and DF set (mtu = 1442)");
    told(two_net, "10.0.0.11", "From 10.1.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1442)");
    told(two_net, "fd00:77::11", "From fd00:78::1 icmp_seq=1 Packet too big: mtu=1442");
    let heard = ping_whole(central, 1442, "192.168.99.50").unwrap();
    assert!(heard.contains(" 0% packet loss"), "what is not too large arrives: {heard}");

    // A machine takes no more than its network carries, and offers its peers more.
    overlay.narrow(&one, 1442).unwrap();
    one_net.ip(&["route", "change", "default", "via", "10.0.0.1", "advmss", "1460"]).unwrap();
    one_net
        .ip(&["route", "change", "default", "via", "fd00:77::1", "metric", "512", "advmss", "1440"])
        .unwrap();
    for (from, to) in [(central, "192.168.99.50"), (two_net, "10.0.0.11"), (two_net, "fd00:77::11")] {
        assert_eq!(send(from, one_net, to, OCTETS).unwrap(), OCTETS, "to {to}");
    }
    // One that sends as much as it likes is told by its own gateway.
    overlay.narrow(&one, 1500).unwrap();
    one_net.ip(&["link", "set", "eth0", "mtu", "1500"]).unwrap();
    told(one_net, CENTRAL, "From 10.0.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1442)");

    behind_the_site(&overlay, two_net);
    overlay.passed();
}

/// A router of the site says that a wire behind it carries 1300 octets: the machine hears it, though it has another address there.
fn behind_the_site(overlay: &Overlay, machine: &Namespace) {
    let (central, far) = (overlay.central(), Namespace::new().unwrap());
    central.cable("far", &far, "eth0").unwrap();
    for (namespace, interface, last) in [(central, "far", 1), (&far, "eth0", 2)] {
        namespace.ip(&["link", "set", interface, "mtu", "1300"]).unwrap();
        namespace.ip(&["addr", "add", &format!("203.0.113.{last}/24"), "dev", interface]).unwrap();
        checksums_off(namespace, interface).unwrap();
    }
    far.ip(&["route", "add", "default", "via", "203.0.113.1"]).unwrap();
    central.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]).unwrap();
    let heard = ping_whole(machine, 1400, "203.0.113.2").unwrap();
    let words = format!("From {CENTRAL} icmp_seq=1 Frag needed and DF set (mtu = 1300)");
    assert!(heard.contains(&words), "no `{words}` in {heard}");
    assert_eq!(send(machine, &far, "203.0.113.2", OCTETS).unwrap(), OCTETS);
}

/// A chassis' own Open vSwitch copies what a port receives and sends to another of its ports, told by the same client.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_port_is_mirrored_to_a_port_of_its_chassis() {
    let mut overlay = Overlay::new("mirror", 1, "geneve").unwrap();
    let mut site = Site::default();
    let tenant = Tenant::new(&mut site);
    let ports = [11, 12].map(|last| tenant.port(&mut site, tenant.network, [10, 0, 0, last]));
    let ovn = driver(&overlay).await;
    write(&ovn, &site, &overlay).await;
    let [one, two] = ports.map(|(port, mac)| overlay.host(0, port, mac).unwrap());
    overlay.settle().unwrap();
    one.add_address("10.0.0.11/24").unwrap();
    two.add_address("10.0.0.12/24").unwrap();
    let tap = overlay.tap(0).unwrap();

    let client = Client::connect(&overlay.chassis_address(0).parse().unwrap()).await.unwrap();
    let named = |name: &str| Operation::Select {
        table: "Port".into(),
        which: vec![Condition::equals("name", name)],
        columns: Some(vec!["_uuid".into()]),
    };
    let found =
        client.transact("Open_vSwitch", &[named(overlay.interface_of(&two)), named("tap-in")]).await.unwrap();
    let uuids: Vec<Datum> = found
        .iter()
        .map(|outcome| match outcome {
            ovsdb::Outcome::Rows(rows) => rows[0]["_uuid"].clone(),
            other => unreachable!("{other:?}"),
        })
        .collect();
    let row = Row::from([
        ("name".to_owned(), "copy".into()),
        ("select_src_port".to_owned(), uuids[0].clone()),
        ("select_dst_port".to_owned(), uuids[0].clone()),
        ("output_port".to_owned(), uuids[1].clone()),
    ]);
    let mirror = Operation::Insert { table: "Mirror".into(), row, name: Some("copy".into()) };
    let value = Datum::set([Atom::Named("copy".into())]);
    let bridge = Operation::Mutate {
        table: "Bridge".into(),
        which: vec![Condition::equals("name", "br-int")],
        mutations: vec![Mutation { column: "mirrors".into(), mutator: Mutator::Insert, value }],
    };
    client.transact("Open_vSwitch", &[mirror, bridge]).await.unwrap();
    let seen = overlay.on_chassis(0, tap, "icmp", || answers(&one)).unwrap();
    for line in ["10.0.0.11 > 10.0.0.12: ICMP echo request", "10.0.0.12 > 10.0.0.11: ICMP echo reply"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    overlay.passed();
}

/// Ten thousand networks, each of another project with the same addresses, by one driver; the last of them carries packets
/// under a number that no VLAN has.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_networks() {
    let mut overlay = Overlay::new("many", 2, "geneve").unwrap();
    let mut site = Site::default();
    let project = ProjectId(uuid());
    for n in 0..MANY {
        let network = NetworkId(uuid());
        let of = Network { project, name: n.to_string(), mtu: 1442, kind: NetworkKind::Overlay };
        site.networks.insert(network, of);
        site.subnets.insert(SubnetId(uuid()), subnet(network, "10.0.0.0/24", "10.0.0.1"));
    }
    let ovn = driver(&overlay).await;
    let began = Instant::now();
    let applied = ovn.apply(&site).await.unwrap();
    let written = began.elapsed();
    assert!(applied.inserted >= 2 * MANY as usize, "{applied:?}");
    overlay.northbound(&["--wait=sb", "sync"]).unwrap();
    let numbered = began.elapsed();
    let rate = |time: Duration| f64::from(MANY) / time.as_secs_f64();
    println!("networks_written_per_second {:.0}", rate(written));
    println!("networks_numbered_per_second {:.0}", rate(numbered));

    let keys = overlay.southbound(&["--bare", "--columns=tunnel_key", "list", "Datapath_Binding"]).unwrap();
    let keys: BTreeSet<u32> = keys.split_whitespace().map(|key| key.parse().unwrap()).collect();
    assert_eq!(keys.len(), MANY as usize);
    let last = *keys.last().unwrap();
    assert!(last > 4094 && last < 1 << 24, "{last}");
    let find = format!("tunnel_key={last}");
    let ids = overlay
        .southbound(&["get", "Datapath_Binding", &uuid_of(&overlay, &find), "external_ids:name"])
        .unwrap();
    let network: NetworkId = ids.trim().trim_matches('"').parse().unwrap();

    let tenant = Tenant { project, network, group: SecurityGroupId(uuid()) };
    let rules = BTreeSet::from([
        rule(Direction::Ingress, Family::V4, Traffic::Any),
        rule(Direction::Egress, Family::V4, Traffic::Any),
    ]);
    site.groups.insert(tenant.group, SecurityGroup { project, name: "all".into(), rules });
    let ports = [11, 12].map(|last| tenant.port(&mut site, network, [10, 0, 0, last]));
    let began = Instant::now();
    ovn.apply(&site).await.unwrap();
    println!("one_change_among_ten_thousand_written_seconds {:.2}", began.elapsed().as_secs_f64());
    overlay.settle().unwrap();
    println!("one_change_among_ten_thousand_done_seconds {:.2}", began.elapsed().as_secs_f64());
    let [(a, a_mac), (b, b_mac)] = ports;
    let (one, two) = (overlay.host(0, a, a_mac).unwrap(), overlay.host(1, b, b_mac).unwrap());
    overlay.settle().unwrap();
    one.add_address("10.0.0.11/24").unwrap();
    two.add_address("10.0.0.12/24").unwrap();
    let seen = overlay.on_underlay("udp port 6081", || answers(&one)).unwrap();
    assert!(seen.contains(&format!("vni {last:#x},")), "{last:#x} in {seen}");
    overlay.passed();
}

fn uuid_of(overlay: &Overlay, find: &str) -> String {
    let text = overlay.southbound(&["--bare", "--columns=_uuid", "find", "Datapath_Binding", find]).unwrap();
    text.trim().to_owned()
}
