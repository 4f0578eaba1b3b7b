//! UEFI firmware that boots by HTTP and by HTTPS, to the agent. Firmware, loader, kernel and ramdisk are real.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::rack::{Disk, Firmware, MachineSpec, Rack, SERVER_ADDRESS};
use tests::scenario::{DISCOVERY, wait_discovered};

/// From power-on to the firmware's first TLS handshake.
const FIRMWARE: Duration = Duration::from_secs(90);

fn spec(name: &str) -> MachineSpec {
    MachineSpec::new(name, Firmware::Uefi).disk(Disk::virtio("OS1", 64 << 20)).http_boot()
}

/// The lines of the server's log that name something.
fn logged(rack: &mut Rack, what: &str) -> Result<usize> {
    let log = std::fs::read_to_string(rack.server()?.log())?;
    Ok(log.lines().filter(|line| line.contains(what)).count())
}

fn wait_logged(rack: &mut Rack, what: &str, timeout: Duration) -> Result<()> {
    let end = Instant::now() + timeout;
    while logged(rack, what)? == 0 {
        ensure!(Instant::now() < end, "the server did not log `{what}` within {timeout:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn uefi_http() -> Result<()> {
    let mut rack = Rack::new("uefi-http")?;
    rack.start_server()?;
    let api = rack.api()?;
    let mut machine = rack.machine(spec("m1"))?;
    machine.power_on()?;
    wait_discovered(&api, &machine, "available", DISCOVERY)?;
    ensure!(machine.serial().said("HTTP Boot"), "the firmware did not boot by HTTP");
    ensure!(machine.serial().said(&format!("URI: http://{SERVER_ADDRESS}:8080/boot/files/snponly.efi")));
    rack.passed();
    Ok(())
}

/// Firmware that trusts the site's CA boots by HTTPS; firmware that does not, boots nothing, and the log says why.
#[test]
fn uefi_https() -> Result<()> {
    let mut rack = Rack::new("uefi-https")?;
    rack.start_server_with(|config| {
        config.replace("[provisioning]\n", "[provisioning]\ntls_port = 8443\nfirmware_by_https = true\n")
    })?;
    let api = rack.api()?;
    let ca = rack.server()?.state_dir().join("tls/site-ca.esl");
    ensure!(ca.exists(), "no CA was made");

    // With no CA at all firmware does not even connect; this one trusts somebody else.
    let other = rack.dir().join("other.esl");
    let mut list = std::fs::read(&ca)?;
    let middle = list.len() / 2; // within the CA's public key
    list[middle] ^= 1;
    std::fs::write(&other, list)?;
    let mut stranger = rack.machine(spec("stranger").extra(&["-fw_cfg", &trusting(&other)?]))?;
    stranger.power_on()?;
    wait_logged(&mut rack, "no TLS session", FIRMWARE)?;
    stranger.power_off()?;

    let mut machine = rack.machine(spec("m1").extra(&["-fw_cfg", &trusting(&ca)?]))?;
    machine.power_on()?;
    wait_discovered(&api, &machine, "available", DISCOVERY)?;
    let url = format!("URI: https://{SERVER_ADDRESS}:8443/boot/files/snponly.efi");
    ensure!(machine.serial().said(&url), "the firmware did not boot by HTTPS");
    rack.passed();
    Ok(())
}

/// How OVMF is given CAs that it trusts: an EFI signature list, as the variable `TlsCaCertificate` would hold it.
fn trusting(ca: &Path) -> Result<String> {
    Ok(format!("name=etc/edk2/https/cacerts,file={}", ca.to_str().context("a path that is not UTF-8")?))
}
