//! Machines that check signatures: firmware with Secure Boot on, and what it starts, up to the agent's hello.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::rack::{Disk, Firmware, MachineSpec, Rack, artifact, binary, ovmf};
use tests::scenario::{DEPLOY, DISCOVERY, add_image, deploy, wait_discovered, wait_state};

const GIB: u64 = 1 << 30;
/// From power-on to a refusal.
const REFUSAL: Duration = Duration::from_secs(120);
/// Firmware variables with Microsoft's keys.
const MICROSOFT: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

fn secure(rack: &mut Rack, how: &str) -> Result<()> {
    rack.start_server_with(|config| config.replace("[boot]\n", &format!("[boot]\nsecure_boot = \"{how}\"\n")))
        .map(drop)
}

fn machine() -> MachineSpec {
    MachineSpec::new("m1", Firmware::Uefi).disk(Disk::virtio("OS1", GIB))
}

/// Microsoft's keys in the firmware: shim, GRUB and kernel, all signed, by TFTP. The agent does its whole work under the
/// kernel's lockdown: the disk is written, the boot entry is made, and the machine goes on to the disk, whose own shim
/// the firmware checks again.
#[test]
fn shim_by_tftp() -> Result<()> {
    let mut rack = Rack::new("sb-shim")?;
    secure(&mut rack, "shim")?;
    let api = rack.api()?;
    add_image(&api, &artifact("images/tiny-a.raw")?, "tiny-a", "1")?;
    let mut machine = rack.machine(machine().secure_boot())?;
    machine.power_on()?;
    let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
    ensure!(machine.serial().said("Billet:") && machine.serial().said("starts the agent"), "GRUB was silent");
    deploy(&api, &node, "tiny-a", "OS1")?;
    wait_state(&api, &node, "active", DEPLOY)?;
    machine.serial().wait_for("TINY-OS READY", DEPLOY)?;
    rack.passed();
    Ok(())
}

/// The same by HTTP boot, with a GRUB that knows HTTP, up to the agent and an inventory.
#[test]
fn shim_by_http() -> Result<()> {
    let mut rack = Rack::new("sb-http")?;
    let loaders = rack.dir().join("state/loaders");
    std::fs::create_dir_all(&loaders)?;
    let grub = "grubnetx64.efi.signed";
    std::fs::copy(artifact(&format!("loaders/{grub}"))?, loaders.join(grub))?;
    secure(&mut rack, "shim")?;
    let api = rack.api()?;
    let mut machine = rack.machine(machine().secure_boot().http_boot())?;
    machine.power_on()?;
    wait_discovered(&api, &machine, "available", DISCOVERY)?;
    ensure!(machine.serial().said("starts the agent"), "GRUB was silent");
    rack.passed();
    Ok(())
}

/// The site's own key in the firmware beside Microsoft's: an image that is not signed by it is refused, one that is boots
/// to the agent, which asks for its nonce itself.
#[test]
fn own_key() -> Result<()> {
    let mut rack = Rack::new("sb-uki")?;
    let dir = rack.dir().to_owned();
    let (key, cert) = site_key(&dir)?;
    let loaders = dir.join("state/loaders");
    std::fs::create_dir_all(&loaders)?;
    let image = loaders.join("uki-x64.efi");
    let boot = artifact("ramdisk/initramfs.zst")?.parent().context("a ramdisk in no directory")?.to_owned();
    let trust = dir.join("state/trust/trust.json");
    let make = |signature: &[&str]| -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(["boot", "uki", "--server-url", "http://10.77.0.1:8080", "--boot-dir"]).arg(&boot);
        command.arg("--to").arg(&image).args(signature);
        // The server makes its key when it is started.
        if trust.exists() {
            command.arg("--trust").arg(&trust);
        } else {
            command.arg("--no-trust");
        }
        run(&mut command)
    };
    make(&["--unsigned"])?;
    secure(&mut rack, "uki")?;
    let api = rack.api()?;
    let vars = dir.join("site.fd");
    ovmf::with_key(Path::new(MICROSOFT), &std::fs::read(dir.join("site.der"))?, &vars)?;
    let mut machine = rack.machine(machine().secure_boot_by(&vars))?;
    machine.power_on()?;
    machine.serial().wait_for("Access Denied", REFUSAL)?;
    machine.power_off()?;
    ensure!(!machine.serial().said("billet: agent"), "an unsigned image was started");

    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    make(&["--key", &text(&key)?, "--cert", &text(&cert)?])?;
    machine.power_on()?;
    wait_discovered(&api, &machine, "available", DISCOVERY)?;
    rack.passed();
    Ok(())
}

/// A key of the site: PEM, PEM, and the certificate as DER in `site.der`.
fn site_key(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let (key, cert) = (dir.join("site.key"), dir.join("site.crt"));
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]);
    command.args(["-subj", "/CN=rack/", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    run(&mut command)?;
    let mut command = Command::new("openssl");
    command.args(["x509", "-outform", "DER", "-in"]).arg(&cert).arg("-out").arg(dir.join("site.der"));
    run(&mut command)?;
    Ok((key, cert))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?} failed: {said}", command.get_program());
    Ok(())
}
