//! DHCPv6 and router advertisements against real clients over a veth pair: ISC's dhclient, perfdhcp of Kea, rdisc6.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::dhcp::BootFiles;
use boot_server_core::dhcp6::{Config, Ipv6Net, Lease, LeaseState, MessageType, Observed, Range, Subnet};
use protocol::MacAddr;
use tokio_util::sync::CancellationToken;

use super::dhcp::Stored;
use super::dhcp6::{Dhcp6Server, Dhcp6Sink};
use super::lab::{Lab, run};
use super::ra::{Announcement, RouterAdvertiser};

#[derive(Default)]
struct Sink {
    leases: Mutex<Vec<Lease>>,
    observed: Mutex<Vec<Observed>>,
    failing: Mutex<u32>,
}

impl Dhcp6Sink for Sink {
    fn persist(&self, leases: Vec<Lease>) -> Stored<'_> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut failing = self.failing.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err("disk full".into());
            }
            self.leases.lock().unwrap().extend(leases);
            Ok(())
        })
    }

    fn observed(&self, interface: &str, observed: Observed) {
        assert_eq!(interface, "v0");
        self.observed.lock().unwrap().push(observed);
    }
}

fn config() -> Config {
    Config {
        address: "fd77::1".parse().unwrap(),
        duid: b"\0\x04billet-test-duid".to_vec(),
        preference: 255,
        http_base: "http://[fd77::1]:8080".into(),
        boot: BootFiles::default(),
        subnets: vec![Subnet {
            net: Ipv6Net::new("fd77::".parse().unwrap(), 64),
            range: Range { first: "fd77::1:0".parse().unwrap(), last: "fd77::1:ffff".parse().unwrap() },
            dns: vec!["fd77::53".parse().unwrap()],
            lease_time: Duration::from_secs(3600),
        }],
    }
}

/// A wire that speaks IPv6 at once: no duplicate address detection.
fn lab() -> Option<Lab> {
    let lab = Lab::new()?;
    run("echo 0 > /proc/sys/net/ipv6/conf/v0/accept_dad; ip link set v0 down; ip link set v0 up");
    run("ip -6 addr add fd77::1/64 dev v0 nodad");
    // The kernel makes no link-local address without duplicate address detection while the loopback is down, and looks
    // at carriers once a second.
    lab.client("ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/v1/accept_dad");
    lab.client("ip link set v1 down; ip link set v1 up");
    lab.client(
        "for i in $(seq 50); do ip -6 addr show dev v1 | grep -q fe80 && exit; sleep 0.1; done; exit 1",
    );
    Some(lab)
}

fn have(program: &str) -> bool {
    let found = std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Serves in this thread, whose namespace the sockets belong to, while `client` runs in another.
fn while_serving<T: Send>(sink: &Arc<Sink>, client: impl FnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    std::thread::scope(|scope| {
        runtime.block_on(async {
            let dhcp = Dhcp6Server::bind("v0", config(), vec![]).unwrap();
            let announcement = Announcement {
                address: "fd77::1".parse().unwrap(),
                prefix: 64,
                managed: true,
                autonomous: false,
                router: Duration::from_secs(90),
            };
            let advertiser = RouterAdvertiser::bind("v0", Some(announcement)).unwrap();
            let stop = cancel.clone();
            let client = scope.spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(client));
                stop.cancel();
                result
            });
            tokio::join!(dhcp.run(sink.clone(), cancel.clone()), advertiser.run(cancel.clone()));
            client.join().unwrap()
        })
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Prints what it is told, and sets addresses, as a distribution's script does.
const SCRIPT: &str = r#"#!/bin/sh
echo "$reason new=$new_ip6_address old=$old_ip6_address dns=$new_dhcp6_name_servers"
case $reason in
  BOUND6|RENEW6|REBIND6) ip -6 addr replace $new_ip6_address/128 dev $interface nodad;;
  EXPIRE6|RELEASE6|STOP6) ip -6 addr flush dev $interface scope global;;
esac
exit 0
"#;

/// dhclient with files of its own, which go with this value.
struct Dhclient(std::path::PathBuf);

impl Dhclient {
    fn new(test: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("billet-dhclient-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let script = dir.join("script");
        std::fs::write(&script, SCRIPT).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self(dir)
    }

    /// Once, with these options; what it and its script said.
    fn run(&self, lab: &Lab, options: &str) -> String {
        let dir = self.0.display();
        lab.client(&format!(
            "timeout 30 dhclient -6 -1 -v {options} -cf /dev/null -sf {dir}/script -lf {dir}/leases -pf {dir}/pid v1 2>&1; \
             kill $(cat {dir}/pid 2>/dev/null) 2>/dev/null; sleep 0.2; true"
        ))
    }
}

impl Drop for Dhclient {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn dhclient_gets_confirms_and_returns_an_address() {
    if !have("dhclient") {
        return;
    }
    let Some(lab) = lab() else { return };
    let (sink, dhclient) = (Arc::new(Sink::default()), Dhclient::new("whole"));
    // The first two commits fail: no Reply leaves for them, and the client asks again.
    *sink.failing.lock().unwrap() = 2;
    let (first, again, gone) = while_serving(&sink, || {
        let first = dhclient.run(&lab, "");
        (first, dhclient.run(&lab, ""), dhclient.run(&lab, "-r"))
    });
    let leases = sink.leases.lock().unwrap();
    let lease = leases.first().unwrap_or_else(|| panic!("no lease: {first}"));
    assert!(first.contains(&format!("BOUND6 new={} old= dns=fd77::53", lease.ip)), "{first}");
    assert_eq!(lease.state, LeaseState::Bound);
    assert!(again.contains(&format!("REBIND6 new={}", lease.ip)) || again.contains("Confirm"), "{again}");
    assert!(gone.contains("Release"), "{gone}");
    let observed = sink.observed.lock().unwrap();
    assert!(observed.iter().all(|o| o.mac == Some(MacAddr([0x52, 0x54, 0, 0x77, 0, 1]))), "{observed:?}");
    assert!(observed.iter().any(|o| o.message == MessageType::Release), "{observed:?}");
    let released = leases.last().unwrap();
    assert_eq!((released.ip, released.expires < lease.expires), (lease.ip, true));
}

#[test]
fn perfdhcp_loses_no_exchange() {
    if !have("perfdhcp") {
        return;
    }
    let Some(lab) = lab() else { return };
    let sink = Arc::new(Sink::default());
    let out = while_serving(&sink, || {
        lab.client("sleep 0.5; timeout 60 perfdhcp -6 -l v1 -r 100 -R 50 -n 200 -W 1000000 all; true")
    });
    let drops: Vec<_> = out.lines().filter(|l| l.starts_with("drops: ")).collect();
    assert_eq!(drops, ["drops: 0", "drops: 0"], "{out}");
}

#[test]
fn rdisc6_reads_the_advertisement() {
    if !have("rdisc6") {
        return;
    }
    let Some(lab) = lab() else { return };
    let (seen, routes) = while_serving(&Arc::new(Sink::default()), || {
        let seen = lab.client("sleep 0.5; rdisc6 -1 -w 5000 v1");
        // The kernel's own opinion: the prefix is on the wire, the router is the default.
        (seen, lab.client("sleep 0.5; ip -6 route show dev v1"))
    });
    let has = |name: &str, value: &str| {
        seen.lines()
            .any(|l| l.split_once(':').is_some_and(|(n, v)| n.trim() == name && v.trim().starts_with(value)))
    };
    assert!(has("Stateful address conf.", "Yes") && has("Stateful other conf.", "Yes"), "{seen}");
    assert!(has("Prefix", "fd77::/64"), "{seen}");
    assert!(has("On-link", "Yes") && has("Autonomous address conf.", "No"), "{seen}");
    assert!(routes.contains("fd77::/64") && routes.contains("default via fe80::"), "{routes}");
}
