//! An arm64 machine: its firmware gets an arm64 loader, and that an arm64 kernel. There is no arm64 ramdisk here, so what
//! stands for the kernel is fetched and not started.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::rack::{Process, Rack, Serial, artifact};

/// Firmware of QEMU's machine `virt` (package qemu-efi-aarch64).
const FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
const QEMU: &str = "/usr/bin/qemu-system-aarch64";
/// From power-on to the kernel; 17 s on a quiet machine.
const BOOT: Duration = Duration::from_secs(150);

#[test]
fn arm64_by_tftp() -> Result<()> {
    if [QEMU, FIRMWARE].iter().any(|file| !Path::new(file).exists()) {
        eprintln!("skipped: {QEMU} or {FIRMWARE} is not installed");
        return Ok(());
    }
    let mut rack = Rack::new("arm64")?;
    let dir = rack.dir().to_owned();
    for sub in ["state/loaders", "boot/arm64"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy(artifact("loaders/ipxe-arm64.efi")?, dir.join("state/loaders/ipxe-arm64.efi"))?;
    for name in ["vmlinuz", "initramfs.zst", "arm64/vmlinuz", "arm64/initramfs.zst"] {
        fs::write(dir.join("boot").join(name), name)?;
    }
    let ours = format!("directory = {:?}", dir.join("boot"));
    rack.start_server_with(|config| {
        let other =
            |line: &str| if line.starts_with("directory = ") { ours.clone() } else { line.to_owned() };
        config.lines().map(|line| other(line) + "\n").collect()
    })?;
    rack.namespace().tap("tap0", "br0")?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", rack.namespace().name(), QEMU]);
    command.args([
        "-machine",
        "virt",
        "-cpu",
        "cortex-a57",
        "-accel",
        "tcg",
        "-m",
        "1024",
        "-display",
        "none",
    ]);
    command.args(["-nodefaults", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    command.args(["-bios", FIRMWARE, "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"]);
    command.args(["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:77:64:00,bootindex=1,romfile="]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut machine = Process::spawn("QEMU", command)?;
    let serial = Serial::new(&dir.join("serial.log"))?;
    serial.follow(machine.child().stdout.take().context("QEMU without a console")?);
    serial.wait_for("ipxe-arm64.efi", BOOT)?;
    serial.wait_for("/boot/files/vmlinuz-arm64", BOOT)?;
    let log = fs::read_to_string(rack.server()?.log())?;
    ensure!(
        log.contains("arm64") && log.contains("boot script asked for"),
        "the server saw no arm64 machine"
    );
    machine.kill()?;
    rack.passed();
    Ok(())
}
