//! The boot protocols against real clients over a veth pair: busybox udhcpc and curl.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::dhcp::{
    BootFiles as BootNames, Config, Lease, LeaseState, MessageType, Observed, Stage, Subnet,
};
use protocol::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};
use tftp_server::File;
use tokio_util::sync::CancellationToken;

use super::dhcp::{DhcpServer, DhcpSink, Stored};
use super::foreign::find_servers;
use super::lab::{Lab, run};
use super::raw::{Path, frame};
use super::tftp::BootFiles;
use super::{Interface, NetError};

const CLIENT: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

#[derive(Default)]
struct Sink {
    leases: Mutex<Vec<Lease>>,
    observed: Mutex<Vec<Observed>>,
    failing: Mutex<u32>,
}

impl DhcpSink for Sink {
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
        server_ip: Ipv4Addr::new(10, 77, 0, 1),
        next_server: Ipv4Addr::new(10, 77, 0, 1),
        http_base: "http://10.77.0.1:8080".into(),
        firmware_base: None,
        boot: BootNames::default(),
        subnets: vec![Subnet {
            router: Some(Ipv4Addr::new(10, 77, 0, 1)),
            ..Subnet::new(
                "10.77.0.0/24".parse().unwrap(),
                vec!["10.77.0.100-10.77.0.200".parse().unwrap()],
                Duration::from_secs(3600),
            )
        }],
        probe: true,
    }
}

/// Serves in this thread, whose namespace the sockets belong to, while `client` runs in another.
fn while_serving<T: Send>(sink: &Arc<Sink>, stored: Vec<Lease>, client: impl FnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    std::thread::scope(|scope| {
        runtime.block_on(async {
            let (_tell, known) = tokio::sync::watch::channel(Arc::default());
            let dhcp = DhcpServer::bind("v0", config(), stored, known).unwrap();
            let files = BootFiles::new().with_file("snponly.efi", File::Memory(vec![7; 300_000].into()));
            let tftp = super::tftp::bind("v0", Arc::new(files)).unwrap();
            let stop = cancel.clone();
            let client = scope.spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(client));
                stop.cancel();
                result
            });
            tokio::join!(dhcp.run(sink.clone(), cancel.clone()), tftp.run(cancel.clone()));
            client.join().unwrap()
        })
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Prints `bound IP SIADDR FILE SUBNET ROUTER LEASE` and sets the address, as a distribution's script does.
const SCRIPT: &str = r#"#!/bin/sh
case $1 in
  deconfig) ip addr flush dev $interface;;
  bound|renew) echo "$1 $ip $siaddr $boot_file $subnet $router $lease"; ip addr replace $ip/$mask dev $interface;;
  nak) echo "nak $message";;
esac
"#;

/// The script in a file of its own, which goes with this value.
struct Script(std::path::PathBuf);

impl Script {
    fn new(test: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("billet-udhcpc-{test}-{}", std::process::id()));
        std::fs::write(&path, SCRIPT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn udhcpc(&self, more: &str) -> String {
        format!("udhcpc -i v1 -n -q -f -t 9 -T 1 -s {} {more}", self.0.display())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn udhcpc_gets_keeps_and_returns_an_address_and_curl_a_file() {
    let Some(lab) = Lab::new() else { return };
    let (sink, script) = (Arc::new(Sink::default()), Script::new("whole"));
    run("ip addr add 10.78.0.1/24 dev v0");
    let (first, again, file, wrong) = while_serving(&sink, vec![], || {
        let first = lab.client(&script.udhcpc("-V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007"));
        let again = lab.client(&script.udhcpc("-B -r 10.77.0.150"));
        // A second address, later in the list, must answer as itself: curl's socket is connected to it.
        lab.client("ip addr add 10.78.0.2/24 dev v1");
        let file = lab.client("curl -sS -m 10 --tftp-blksize 1468 tftp://10.78.0.1/snponly.efi | wc -c; curl -sS -m 10 tftp://10.77.0.1//snponly.efi | wc -c");
        let wrong = lab.client_try("curl -sS -m 10 tftp://10.77.0.1/passwd").1;
        (first, again, file, wrong)
    });
    let bound: Vec<&str> = first.lines().find(|l| l.starts_with("bound")).unwrap().split(' ').collect();
    let ip: Ipv4Addr = bound[1].parse().unwrap();
    assert_eq!(bound[2..], ["10.77.0.1", "snponly.efi", "255.255.255.0", "10.77.0.1", "3600"], "{first}");
    assert!(
        again.contains(&format!("bound {ip} ")),
        "the same address by broadcast, whatever it wishes: {again}"
    );
    assert_eq!(file, "300000\n300000\n");
    assert!(wrong.starts_with("curl: (68)"), "{wrong}");
    let leases = sink.leases.lock().unwrap();
    assert!(leases.iter().all(|l| l.ip == ip && l.state == LeaseState::Bound), "{leases:?}");
    let observed = sink.observed.lock().unwrap();
    assert_eq!(
        (observed[0].mac, observed[0].stage, observed[0].message),
        (Some(CLIENT), Stage::Firmware, MessageType::Discover)
    );
    assert_eq!(observed.last().unwrap().stage, Stage::Os);
}

#[test]
fn no_ack_leaves_before_its_lease_is_stored_and_garbage_does_not_stop_it() {
    let Some(lab) = Lab::new() else { return };
    let (sink, script) = (Arc::new(Sink::default()), Script::new("stored"));
    *sink.failing.lock().unwrap() = 2;
    let out = while_serving(&sink, vec![], || {
        lab.client("ip addr add 10.77.0.77/24 dev v1");
        let socket = lab.enter(|| std::net::UdpSocket::bind("0.0.0.0:68").unwrap());
        for len in [0, 1, 239, 240, 300, 1472] {
            socket.send_to(&vec![0x35; len], "10.77.0.1:67").unwrap();
        }
        drop(socket);
        lab.client("ip addr flush dev v1");
        lab.client(&script.udhcpc(""))
    });
    assert!(out.contains("bound 10.77.0."), "{out}");
    assert_eq!(*sink.failing.lock().unwrap(), 0, "two requests went unanswered");
    let requests = sink.observed.lock().unwrap().iter().filter(|o| o.message == MessageType::Request).count();
    assert_eq!((requests, sink.leases.lock().unwrap().len()), (3, 1));
}

#[test]
fn an_address_that_somebody_uses_is_found_out_and_another_is_offered() {
    let Some(lab) = Lab::new() else { return };
    let (sink, script) = (Arc::new(Sink::default()), Script::new("in-use"));
    // The client is a machine of its own beside v1, which uses the address that the client wishes.
    lab.client(
        "ip link add link v1 name m1 address 52:54:00:77:00:02 type macvlan mode bridge; ip link set m1 up",
    );
    lab.client("ip addr add 10.77.0.150/24 dev v1");
    let (taken, free) = while_serving(&sink, vec![], || {
        let udhcpc = |more: &str| lab.client(&script.udhcpc(more).replace("-i v1", "-i m1"));
        (udhcpc("-r 10.77.0.150"), udhcpc("-r 10.77.0.150"))
    });
    assert!(taken.contains("bound 10.77.0.") && !taken.contains("bound 10.77.0.150 "), "{taken}");
    assert!(free.contains("bound 10.77.0."), "{free}");
    let leases = sink.leases.lock().unwrap();
    let rests: Vec<_> = leases.iter().filter(|l| l.state == LeaseState::Declined).map(|l| l.ip).collect();
    assert_eq!(rests, [Ipv4Addr::new(10, 77, 0, 150)], "{leases:?}");
}

#[test]
fn another_server_on_the_wire_is_found_and_this_one_is_not() {
    let Some(lab) = Lab::new() else { return };
    let sink = Arc::new(Sink::default());
    let found = while_serving(&sink, vec![], || {
        lab.client("ip addr add 10.77.0.9/24 dev v1");
        // Seen from the other end of the wire, the server under test is the other one.
        lab.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(find_servers("v1", Duration::from_millis(900))).unwrap()
        })
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].address, Ipv4Addr::new(10, 77, 0, 1));
    assert!(found[0].lends && found[0].boots && found[0].mac.is_some());
    assert!(sink.leases.lock().unwrap().is_empty());
}

#[test]
fn an_interface_that_goes_down_and_comes_back_is_served_again() {
    let Some(lab) = Lab::new() else { return };
    let (sink, script) = (Arc::new(Sink::default()), Script::new("down"));
    let out = while_serving(&sink, vec![], || {
        // The peer's carrier goes with it.
        lab.client("ip link set v1 down; sleep 0.3; ip link set v1 up");
        lab.client(&script.udhcpc(""))
    });
    assert!(out.contains("bound 10.77.0."), "{out}");
}

#[test]
fn a_router_solicitation_is_answered_that_there_is_no_router() {
    use socket2::{Domain, Protocol, Socket, Type};
    use std::io::Read as _;
    let Some(lab) = Lab::new() else { return };
    // Without duplicate address detection, so that the link-local addresses are there at once.
    run("echo 0 > /proc/sys/net/ipv6/conf/v0/accept_dad; ip link set v0 down; ip link set v0 up");
    lab.client("echo 0 > /proc/sys/net/ipv6/conf/v1/accept_dad; ip link set v1 down; ip link set v1 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    let message = std::thread::scope(|scope| {
        runtime.block_on(async {
            let server = super::ra::RouterAdvertiser::bind("v0", None).unwrap();
            let client = scope.spawn(|| {
                let answer = lab.enter(|| {
                    let mut socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    socket.set_multicast_hops_v6(255).unwrap();
                    let index = nix::net::if_::if_nametoindex("v1").unwrap();
                    let routers = std::net::SocketAddrV6::new("ff02::2".parse().unwrap(), 0, 0, index);
                    let mut buf = [0; 1500];
                    for _ in 0..50 {
                        let _ = socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], &routers.into());
                        if let Some(len) = socket.read(&mut buf).ok().filter(|_| buf[0] == 134) {
                            return buf[..len].to_vec();
                        }
                    }
                    Vec::new()
                });
                cancel.cancel();
                answer
            });
            server.run(cancel.clone()).await;
            client.join().unwrap()
        })
    });
    assert_eq!(message.len(), 24, "an advertisement");
    assert_eq!(message[4..16], [0; 12], "no router, no prefix to be had, no DHCPv6");
}

#[test]
fn a_frame_is_what_its_parser_reads() {
    let path =
        Path { from: (Ipv4Addr::new(10, 77, 0, 1), 67), to: (Ipv4Addr::new(10, 77, 0, 9), 68), mac: CLIENT };
    let bytes = frame(MacAddr([2; 6]), path, b"payload");
    let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
    assert_eq!((frame.src_addr().0, frame.dst_addr().0), ([2; 6], CLIENT.0));
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    let (from, to) = (repr.src_addr.into(), repr.dst_addr.into());
    let ports = UdpRepr::parse(&udp, &from, &to, &ChecksumCapabilities::default()).unwrap();
    assert_eq!((ports.src_port, ports.dst_port, udp.payload()), (67, 68, &b"payload"[..]));
}

#[test]
fn interfaces_are_found_or_named() {
    let Some(_lab) = Lab::new() else { return };
    run("ip addr add 10.78.0.1/16 dev v0");
    let found = Interface::find("v0").unwrap();
    assert_eq!(found.ipv4, [(Ipv4Addr::new(10, 77, 0, 1), 24), (Ipv4Addr::new(10, 78, 0, 1), 16)]);
    assert!(matches!(Interface::find("v9"), Err(NetError::NoInterface(name)) if name == "v9"));
}

#[test]
fn nothing_outside_the_boot_directory_is_found() {
    let root = std::env::temp_dir().join(format!("billet-boot-{}", std::process::id()));
    std::fs::create_dir_all(root.join("served/sub")).unwrap();
    std::fs::write(root.join("secret"), b"secret").unwrap();
    std::fs::write(root.join("served/sub/file"), b"file").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("served/link")).unwrap();
    std::os::unix::fs::symlink("/", root.join("served/slash")).unwrap();
    nix::unistd::mkfifo(&root.join("served/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let files = BootFiles::new().with_directory(&root.join("served")).unwrap();
    let find = |name: &str| files.find(name).map(|f| f.len()).map_err(|e| e.to_string());
    assert_eq!(find("sub/file"), Ok(4));
    for (name, why) in [
        ("link", "access denied"),
        ("slash/etc/passwd", "access denied"),
        ("../secret", "access denied"),
        ("/etc/passwd", "access denied"),
        ("fifo", "file not found"),
        ("sub", "file not found"),
        ("none", "file not found"),
        ("sub/file/x", "file not found"),
    ] {
        assert_eq!(find(name), Err(why.into()), "{name}");
    }
    std::fs::remove_dir_all(&root).unwrap();
}
