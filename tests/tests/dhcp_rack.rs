//! Machines that are not on the server's own wire, or not alone with it: behind a relay agent, and beside the site's own
//! DHCP server. The relay is ISC's, the site's server is dnsmasq.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::rack::{
    Api, BRIDGE, Disk, Firmware, Machine, MachineSpec, Namespace, Process, Rack, SERVER_ADDRESS, Server,
    artifact, dhcp_replies,
};
use tests::scenario::{DISCOVERY, wait_discovered};

const MIB: u64 = 1 << 20;
/// Between the relay and the server.
const RELAY_WIRE: &str = "10.99.0.1/30";
const FAR_SERVER: &str = "10.99.0.2";
/// The site's own DHCP server, and the addresses that it alone lends.
const SITE_SERVER: &str = "10.77.0.2";
const SITE_RANGE: (u8, u8) = (30, 60);

/// The default configuration with another interface and more lines.
fn config(rack: &Rack, interface: &str, more: &str) -> Result<String> {
    let boot = artifact("ramdisk/initramfs.zst")?;
    let text = Server::default_config(rack.dir(), boot.parent().context("a ramdisk in no directory")?);
    Ok(text.replace(&format!("\"{BRIDGE}\""), &format!("\"{interface}\"")) + more)
}

fn machine(rack: &mut Rack, name: &str, firmware: Firmware) -> Result<Machine> {
    rack.machine(MachineSpec::new(name, firmware).disk(Disk::virtio("DISK1", 64 * MIB)))
}

/// Switches the machine on and waits until the agent has told what is in it; the node as it is then.
fn discovered(api: &Api, machine: &mut Machine) -> Result<Value> {
    machine.power_on()?;
    let name = wait_discovered(api, machine, "available", DISCOVERY)?;
    api.get(&format!("/api/v1/nodes/{name}"))
}

/// The rack's bridge is one network with its relay; the server is in another, behind a router.
fn through_a_relay(name: &str, firmware: Firmware) -> Result<()> {
    let mut rack = Rack::new(name)?;
    let far = Namespace::new()?;
    rack.namespace().cable("up0", &far, "dn0")?;
    rack.namespace().ip(&["addr", "add", RELAY_WIRE, "dev", "up0"])?;
    rack.namespace().run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
    far.ip(&["addr", "add", &format!("{FAR_SERVER}/30"), "dev", "dn0"])?;
    far.ip(&["route", "add", "10.77.0.0/24", "via", "10.99.0.1"])?;
    let more = format!(
        "\n[dhcp]\nmode = \"off\"\n\n[[dhcp.subnets]]\nnetwork = \"10.77.0.0/24\"\n\
         ranges = [\"10.77.0.100-10.77.0.120\"]\nrouter = \"{SERVER_ADDRESS}\"\n"
    );
    let server = Server::start_with(&far, rack.dir(), &config(&rack, "dn0", &more)?)?;
    let api = server.api()?;
    let mut relay = rack.namespace().command("dhcrelay");
    relay.args(["-4", "-d", "-a", "-m", "replace", "-id", BRIDGE, "-iu", "up0", FAR_SERVER]);
    let mut relay = Process::start("dhcrelay", relay, &rack.dir().join("dhcrelay.log"))?;
    let mut machine = machine(&mut rack, "m1", firmware)?;
    let node = discovered(&api, &mut machine)?;
    let address = &node["addresses"][0];
    ensure!(address["address"].as_str().is_some_and(|a| a.starts_with("10.77.0.1")), "{node:#}");
    ensure!(address["switch_port"] == BRIDGE, "where it is plugged in: {address:#}");
    relay.kill()?;
    rack.passed();
    Ok(())
}

#[test]
fn bios_through_a_relay() -> Result<()> {
    through_a_relay("relay-bios", Firmware::Bios)
}

#[test]
fn uefi_through_a_relay() -> Result<()> {
    through_a_relay("relay-uefi", Firmware::Uefi)
}

/// The site's own server, in a namespace of its own on the rack's bridge.
fn site_server(rack: &Rack, site: &Namespace) -> Result<Process> {
    rack.namespace().cable("site0", site, "s0")?;
    rack.namespace().plug("site0", BRIDGE)?;
    site.ip(&["addr", "add", &format!("{SITE_SERVER}/24"), "dev", "s0"])?;
    let mut dnsmasq = site.command("dnsmasq");
    dnsmasq.args(["-k", "-C", "/dev/null", "--port=0", "--interface=s0", "--bind-interfaces", "--no-ping"]);
    dnsmasq.args(["--log-dhcp", "--log-facility=-", "--dhcp-authoritative", "--user=root", "-x", ""]);
    dnsmasq.arg(format!("--dhcp-range=10.77.0.{},10.77.0.{},255.255.255.0,1h", SITE_RANGE.0, SITE_RANGE.1));
    dnsmasq.arg(format!("--dhcp-leasefile={}", rack.dir().join("dnsmasq.leases").display()));
    Process::start("dnsmasq", dnsmasq, &rack.dir().join("dnsmasq.log"))
}

fn is_sites(address: &str) -> bool {
    let last = address.strip_prefix("10.77.0.").and_then(|last| last.parse::<u8>().ok());
    last.is_some_and(|last| (SITE_RANGE.0..=SITE_RANGE.1).contains(&last))
}

/// An operating system's client on the bridge: the address and the server it got.
fn plain_client(rack: &Rack, mac: &str) -> Result<String> {
    let client = Namespace::new()?;
    rack.namespace().cable("plain0", &client, "c0")?;
    rack.namespace().plug("plain0", BRIDGE)?;
    client.ip(&["link", "set", "c0", "address", mac])?;
    let script = rack.dir().join("udhcpc.sh");
    fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && echo \"bound $ip of $serverid\"\nexit 0\n")?;
    make_executable(&script)?;
    let script = script.display().to_string();
    client.run("udhcpc", &["-i", "c0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", &script])
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

/// The agent's address is the site's, and the machine was told what to boot by us.
fn beside_the_sites_server(name: &str, firmware: Firmware) -> Result<()> {
    let mut rack = Rack::new(name)?;
    let site = Namespace::new()?;
    let mut dnsmasq = site_server(&rack, &site)?;
    let mut server = Server::start_with(
        rack.namespace(),
        rack.dir(),
        &config(&rack, BRIDGE, "\n[dhcp]\nmode = \"proxy\"\n")?,
    )?;
    let api = server.api()?;

    let plain = "52:54:00:77:99:01";
    let got = plain_client(&rack, plain)?;
    let line = got.lines().find(|l| l.starts_with("bound ")).with_context(|| got.clone())?;
    ensure!(line.ends_with(&format!(" of {SITE_SERVER}")), "{line}");

    let mut machine = machine(&mut rack, "m1", firmware)?;
    discovered(&api, &mut machine)?;
    let leases = fs::read_to_string(rack.dir().join("dnsmasq.leases"))?;
    let mac = machine.mac(0);
    let lease =
        leases.lines().find(|l| l.contains(&mac)).with_context(|| format!("no lease of {mac}: {leases}"))?;
    ensure!(lease.split(' ').any(is_sites), "{lease}");
    ensure!(api.get("/api/v1/status")?["dhcp"]["leases"] == 0, "no address is lent by us");

    // Nothing that we sent to the plain client, or lent to anybody, is on the wire.
    let replies = dhcp_replies(&rack.dir().join("segment.pcap"))?;
    let ours: Vec<_> = replies.iter().filter(|r| r.from.to_string() == SERVER_ADDRESS).collect();
    ensure!(ours.iter().any(|r| r.client == mac), "the capture shows our replies: {replies:?}");
    ensure!(ours.iter().all(|r| r.client != plain && r.given.is_unspecified()), "{ours:?}");
    ensure!(replies.iter().any(|r| r.client == plain), "the capture shows the site's replies");
    server.stop()?;
    dnsmasq.kill()?;
    rack.passed();
    Ok(())
}

#[test]
fn bios_beside_the_sites_dhcp_server() -> Result<()> {
    beside_the_sites_server("proxy-bios", Firmware::Bios)
}

#[test]
fn uefi_beside_the_sites_dhcp_server() -> Result<()> {
    beside_the_sites_server("proxy-uefi", Firmware::Uefi)
}
