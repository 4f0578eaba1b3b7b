//! `billet check-network` finds real causes: another DHCP server, a port that is taken, a cable that is out, an address
//! that two have; before serving, and from the running server.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::rack::{Namespace, Process, Rack, artifact, binary};

/// A server's namespace with `v0` (10.77.0.1/24) and a neighbour's with `v1`.
struct Wire {
    here: Namespace,
    there: Namespace,
    // The lock on the name, and a directory for logs.
    rack: Rack,
}

impl Wire {
    fn new(name: &str) -> Result<Self> {
        let (rack, here, there) = (Rack::new(name)?, Namespace::new()?, Namespace::new()?);
        here.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", there.name()])?;
        here.ip(&["addr", "add", "10.77.0.1/24", "dev", "v0"])?;
        here.ip(&["link", "set", "v0", "up"])?;
        there.ip(&["addr", "add", "10.77.0.2/24", "dev", "v1"])?;
        there.ip(&["link", "set", "v1", "up"])?;
        Ok(Self { here, there, rack })
    }

    /// The findings before serving, by their codes, and whether the program said that machines can boot.
    fn check(&self, interface: &str) -> Result<(bool, Vec<Value>)> {
        let boot = artifact("ramdisk/initramfs.zst")?;
        let program = binary()?;
        let mut command = self.here.command(program.to_str().context("a path that is not UTF-8")?);
        command.args(["check-network", "--standalone", "--interface", interface, "-o", "json", "--boot-dir"]);
        command
            .arg(boot.parent().unwrap_or(Path::new("/")))
            .arg("--state-dir")
            .arg(self.rack.dir().join("state"));
        let out = command.output()?;
        let view: Value = serde_json::from_slice(&out.stdout)
            .with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
        ensure!(view["serving"] == false);
        Ok((out.status.success(), view["findings"].as_array().cloned().unwrap_or_default()))
    }

    fn finds(&self, code: &str, words: &str) -> Result<()> {
        let (clean, findings) = self.check("v0")?;
        one(&findings, code, words)?;
        ensure!(!clean || findings.iter().all(|f| f["severity"] != "error"), "the exit code hides an error");
        Ok(())
    }
}

fn one(findings: &[Value], code: &str, words: &str) -> Result<()> {
    let found =
        findings.iter().find(|f| f["code"] == code).with_context(|| format!("no {code}: {findings:#?}"))?;
    let what = found["what"].as_str().unwrap_or_default();
    ensure!(what.contains(words), "{code} does not say {words}: {what}");
    ensure!(found["todo"].as_str().is_some_and(|todo| !todo.is_empty()), "{code} does not say what to do");
    Ok(())
}

fn dnsmasq(namespace: &Namespace, interface: &str, range: &str, log: &Path) -> Result<Process> {
    let mut command = namespace.command("dnsmasq");
    command.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=0",
        "--bind-interfaces",
        "--user=root",
        "--no-ping",
    ]);
    command.args([
        "--dhcp-leasefile=/dev/null",
        &format!("--interface={interface}"),
        &format!("--dhcp-range={range}"),
    ]);
    let process = Process::start("dnsmasq", command, log)?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(process)
}

#[test]
fn nothing_is_wrong_then_one_thing_after_the_other() -> Result<()> {
    let mut wire = Wire::new("check-network")?;
    let (clean, findings) = wire.check("v0")?;
    ensure!(clean && findings.iter().all(|f| f["severity"] == "note"), "{findings:#?}");
    wire.here.ip(&["link", "set", "v0", "mtu", "1400"])?;
    wire.finds("link.small_mtu", "1400")?;
    wire.here.ip(&["link", "set", "v0", "mtu", "1500"])?;

    let mut tftpd = wire.here.command("in.tftpd");
    tftpd.args(["--foreground", "--address", "0.0.0.0:69", "--user", "root", "--secure", "/tmp"]);
    let tftpd = Process::start("in.tftpd", tftpd, &wire.rack.dir().join("tftpd.log"))?;
    std::thread::sleep(Duration::from_millis(300));
    wire.finds("port.taken", "in.tftpd (pid ")?;
    drop(tftpd);

    wire.there.ip(&["addr", "add", "10.77.0.1/24", "dev", "v1"])?;
    wire.finds("address.duplicate", "10.77.0.1")?;
    wire.there.ip(&["addr", "del", "10.77.0.1/24", "dev", "v1"])?;

    wire.there.ip(&["link", "set", "v1", "down"])?;
    wire.finds("link.no_carrier", "v0")?;
    let (clean, findings) = wire.check("v9")?;
    ensure!(!clean);
    one(&findings, "link.missing", "v9")?;
    wire.rack.passed();
    Ok(())
}

#[test]
fn other_dhcp_servers_are_named() -> Result<()> {
    let mut wire = Wire::new("check-dhcp")?;
    let log = wire.rack.dir().join("dnsmasq.log");
    let outside = dnsmasq(&wire.there, "v1", "10.77.0.3,10.77.0.9,255.255.255.0", &log)?;
    wire.finds("dhcp.other_server", "10.77.0.2 (")?;
    drop(outside);
    let inside = dnsmasq(&wire.there, "v1", "10.77.0.150,10.77.0.160,255.255.255.0", &log)?;
    wire.finds("dhcp.duplicate_pool", "offers 10.77.0.1")?;
    drop(inside);
    wire.rack.passed();
    Ok(())
}

/// The running server finds the same, and tells of a machine that took another server's address.
#[test]
fn a_running_server_tells() -> Result<()> {
    let mut rack = Rack::new("check-serving")?;
    rack.start_server()?;
    let api = rack.api()?;
    let there = Namespace::new()?;
    rack.namespace().ip(&[
        "link",
        "add",
        "p0",
        "type",
        "veth",
        "peer",
        "name",
        "p1",
        "netns",
        there.name(),
    ])?;
    rack.namespace().ip(&["link", "set", "p0", "master", "br0", "up"])?;
    there.ip(&["addr", "add", "10.77.0.2/24", "dev", "p1"])?;
    there.ip(&["link", "set", "p1", "up"])?;
    let before = api.get("/api/v1/network/findings")?;
    ensure!(before["serving"] == true, "{before:#}");
    let findings = before["findings"].as_array().context("no findings")?;
    ensure!(findings.iter().all(|f| f["severity"] != "error"), "{before:#}");

    let _dnsmasq =
        dnsmasq(&there, "p1", "10.77.0.3,10.77.0.9,255.255.255.0", &rack.dir().join("dnsmasq.log"))?;
    let after = api.get("/api/v1/network/findings")?;
    one(after["findings"].as_array().context("no findings")?, "dhcp.other_server", "10.77.0.2 (")?;

    // A network boot whose REQUEST names the other server, as a client's does that heard it first.
    let mac = "52:54:00:77:99:01";
    there.ip(&["link", "add", "m1", "link", "p1", "address", mac, "type", "macvlan", "mode", "bridge"])?;
    there.ip(&["link", "set", "m1", "up"])?;
    boot_elsewhere(&there, mac)?;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let view = api.get("/api/v1/network/findings")?;
        let machines = view["machines"].as_array().cloned().unwrap_or_default();
        if let Some(machine) = machines.iter().find(|m| m["mac"] == mac) {
            ensure!(machine["finding"]["code"] == "boot.other_server", "{machine:#}");
            break;
        }
        ensure!(Instant::now() < end, "the machine is not told of: {view:#}");
    }
    rack.passed();
    Ok(())
}

/// Sends DISCOVER and REQUEST of a PXE client by broadcast from the namespace; the REQUEST names 10.77.0.2.
fn boot_elsewhere(namespace: &Namespace, mac: &str) -> Result<()> {
    let octets: Vec<u8> = mac.split(':').filter_map(|o| u8::from_str_radix(o, 16).ok()).collect();
    let message = |kind: u8, more: &[u8]| {
        let mut packet = vec![0u8; 240];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[4..8].copy_from_slice(&[0x77, 0x99, 0, 1]);
        packet[10] = 0x80;
        packet[28..34].copy_from_slice(&octets);
        packet[236..].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend([53, 1, kind, 93, 2, 0, 7, 94, 3, 1, 3, 16]);
        packet.extend([60, 32]);
        packet.extend(b"PXEClient:Arch:00007:UNDI:003016");
        packet.extend(more);
        packet.push(255);
        packet
    };
    let handle = namespace.clone_handle()?;
    let packets = [message(1, &[]), message(3, &[54, 4, 10, 77, 0, 2, 50, 4, 10, 77, 0, 5])];
    std::thread::spawn(move || -> Result<()> {
        handle.enter()?;
        let socket = std::net::UdpSocket::bind("0.0.0.0:68")?;
        socket.set_broadcast(true)?;
        for packet in packets {
            socket.send_to(&packet, "10.77.0.255:67")?;
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the sender died"))?
}
