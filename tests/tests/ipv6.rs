//! A segment without IPv4: router advertisements, DHCPv6, TFTP, HTTP, iPXE, the agent, the deploy and the OS speak IPv6.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::rack::{Disk, Firmware, MachineSpec, Rack, SERVER_ADDRESS6, artifact};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, deploy, wait_discovered, wait_state};

const GIB: u64 = 1 << 30;
/// From the request to the OS, which waits for DHCPv4 first.
const BOOT: Duration = Duration::from_secs(180);

/// The small OS has no DHCPv6 client: it takes an address of the advertised prefix. Everything before it has DHCPv6.
const AUTONOMOUS: &str = "[ipv6]\nautonomous = true\n";

/// UEFI PXE by IPv6, iPXE by IPv6, hello, inventory, image chunks and phone-home by IPv6.
#[test]
fn uefi_boots_and_is_deployed() -> Result<()> {
    let mut rack = Rack::new_ipv6("ipv6")?;
    rack.start_server_with(|config| format!("{config}\n{AUTONOMOUS}"))?;
    let api = rack.api()?;
    add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let spec = MachineSpec::new("m1", Firmware::Uefi).ipv6().disk(Disk::virtio("OS1", GIB));
    let mut machine = rack.machine(spec)?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    ensure!(machine.serial().said("by DHCPv6"), "the agent has its address from elsewhere");
    let detail = api.get(&format!("/api/v1/nodes/{node}"))?;
    let nic = &detail["inventory"]["nics"][0];
    ensure!(nic["address"].is_null(), "{nic:#}");
    let address = nic["address6"].as_str().context("the inventory tells the address")?;
    ensure!(address.starts_with("fd77::"), "{address}");
    let lent = detail["addresses"].as_array().context("addresses")?;
    ensure!(lent.len() == 1, "one machine has one lease, whichever of its programs asks: {lent:#?}");
    // Everything that a person may want to look at is there by IPv6 too.
    let script = curl(&rack, &format!("http://[{SERVER_ADDRESS6}]:8080/boot/start.ipxe"))?;
    ensure!(script.contains(&format!("http://[{SERVER_ADDRESS6}]:8080/boot/ipxe?")), "{script}");

    deploy(&api, &node, "tiny-a", "OS1")?;
    wait_state(&api, &node, "active", DEPLOY)?;
    machine.serial().wait_for(&format!("TINY-OS PHONED http://[{SERVER_ADDRESS6}]"), BOOT)?;
    let status = api.get("/api/v1/status")?;
    ensure!(status["address"].is_null() && status["address6"] == SERVER_ADDRESS6, "{status:#}");
    rack.passed();
    Ok(())
}

/// What curl gets inside the rack.
fn curl(rack: &Rack, url: &str) -> Result<String> {
    let mut command: Command = rack.namespace().command("curl");
    let out = command.args(["--silent", "--show-error", "--fail", "--globoff", url]).output()?;
    ensure!(out.status.success(), "curl {url}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}
