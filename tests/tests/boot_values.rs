//! What a machine can be ordered to boot instead of the usual: a kernel with arguments, an ISO, an iSCSI disk, an
//! installer. Firmware, loaders and targets are real; only the discovery of the machines is simulated, as it has tests of
//! its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::rack::{Api, Firmware, Machine, MachineSpec, Process, Rack, SERVER_ADDRESS, artifact};
use tests::scenario::events;
use tests::simulated::{SimulatedMachine, inventory};

/// From power-on to what was ordered: POST, loader, files, kernel under software emulation.
const BOOT: Duration = Duration::from_secs(150);
/// The iSCSI target of the rack.
const TARGET: &str = "iqn.2026-01.rack:tiny";
const SECRET: &str = "se$cret || with 'syntax'";

/// A rack with a server and one machine, which stands in the list as available.
struct Lab {
    rack: Rack,
    api: Api,
    machine: Machine,
    node: String,
}

impl Lab {
    fn new(name: &str, firmware: Firmware) -> Result<Self> {
        let mut rack = Rack::new(name)?;
        rack.start_server()?;
        let api = rack.api()?;
        let machine = rack.machine(MachineSpec::new("m1", firmware))?;
        let provisioning = rack.forward(format!("{SERVER_ADDRESS}:8080").parse()?)?;
        let mut simulated = SimulatedMachine::new(&provisioning.url(), 1, "SN1");
        simulated.mac = machine.mac(0);
        simulated.uuid = machine.uuid();
        simulated.serial = machine.system_serial();
        let node = discover(&api, &mut simulated)?;
        Ok(Self { rack, api, machine, node })
    }

    fn media(&mut self) -> Result<PathBuf> {
        let dir = self.rack.server()?.state_dir().join("media");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn order(&self, boot: Value) -> Result<Value> {
        let path = format!("/api/v1/nodes/{}/boot", self.node);
        self.api.post(&path, &json!({ "boot": boot, "repeat": "once" }))
    }

    fn boots(&self) -> Result<String> {
        let node = self.api.get(&format!("/api/v1/nodes/{}", self.node))?;
        Ok(node["boots"].as_str().context("a node says what it boots")?.to_owned())
    }
}

/// Makes an available node of a simulated machine; returns its name.
fn discover(api: &Api, machine: &mut SimulatedMachine) -> Result<String> {
    machine.boot_agent()?;
    machine.send_inventory(&inventory(machine, "Rack Machine", "switch", true))?;
    let page = api.get("/api/v1/nodes")?;
    let node = page["items"].as_array().and_then(|items| items.first()).context("no node")?;
    ensure!(node["state"] == "available", "{node:#}");
    Ok(node["name"].as_str().context("a node has a name")?.to_owned())
}

/// A kernel with a RAM disk whose init prints its command line and restarts the machine.
#[test]
fn a_kernel_is_booted_once() -> Result<()> {
    let mut lab = Lab::new("boot-kernel", Firmware::Bios)?;
    let media = lab.media()?;
    fs::create_dir(media.join("rescue"))?;
    fs::copy(artifact("ramdisk/vmlinuz")?, media.join("rescue/linux"))?;
    initrd(&media.join("rescue/initrd"))?;
    let missing = lab.order(json!({ "kind": "kernel", "kernel": "rescue/none" })).unwrap_err();
    ensure!(format!("{missing:#}").contains("media-not-found"), "{missing:#}");
    let ordered = lab.order(json!({
        "kind": "kernel", "kernel": "rescue/linux", "initrds": [{ "file": "rescue/initrd" }],
        "arguments": "console=ttyS0,115200 a/b=c,d;e url={server}/x --- quiet",
    }))?;
    ensure!(ordered["boots"] == "kernel", "{ordered:#}");
    lab.machine.power_on()?;
    let line = lab.machine.serial().wait_for("ORDERED", BOOT)?.text;
    let wanted = format!("a/b=c,d;e url=http://{SERVER_ADDRESS}:8080/x --- quiet");
    ensure!(line.ends_with(&wanted), "the kernel was told: {line}");
    ensure!(lab.boots()? == "agent", "the order is used up");
    // The machine restarts by itself, and gets the usual.
    lab.machine.serial().wait_for("starts the agent", BOOT)?;
    ensure!(events(&lab.api, &lab.node, "boot.begun")?.len() == 1);
    lab.rack.passed();
    Ok(())
}

/// A RAM disk with busybox alone.
fn initrd(file: &Path) -> Result<()> {
    let dir = file.with_extension("d");
    for sub in ["bin", "dev", "proc"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))?;
    let init = "#!/bin/busybox sh\nb=/bin/busybox\n$b mount -t devtmpfs dev /dev\n$b mount -t proc proc /proc\n\
        $b sleep 1\necho \"ORDERED $($b cat /proc/cmdline)\" >/dev/ttyS0\n$b sleep 1\n$b reboot -f\n";
    fs::write(dir.join("init"), init)?;
    fs::set_permissions(dir.join("init"), fs::Permissions::from_mode(0o755))?;
    let pack = "cd \"$1\" && find . | cpio --quiet -o -H newc | gzip -1 >\"$2\"";
    run(Command::new("sh").args(["-c", pack, "pack"]).arg(&dir).arg(file))?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}{complaint}");
    Ok(said)
}

/// An ISO with GRUB on it, for BIOS and UEFI.
fn iso(name: &str, firmware: Firmware, platform: &str) -> Result<()> {
    let mut lab = Lab::new(name, firmware)?;
    let root = lab.rack.dir().join("iso");
    fs::create_dir_all(root.join("boot/grub"))?;
    let config = "serial --unit=0 --speed=115200\nterminal_output serial\n\
        echo \"ORDERED-ISO $grub_platform $(echo)\"\nsleep 2\nreboot\n";
    fs::write(root.join("boot/grub/grub.cfg"), config.replace(" $(echo)", " read from the ISO"))?;
    let file = lab.media()?.join("live.iso");
    run(Command::new("grub-mkrescue").arg("-o").arg(&file).arg(&root))?;
    lab.order(json!({ "kind": "iso", "file": "live.iso" }))?;
    lab.machine.power_on()?;
    lab.machine.serial().wait_for(&format!("ORDERED-ISO {platform}"), BOOT)?;
    ensure!(lab.boots()? == "agent", "the order is used up");
    lab.machine.serial().wait_for("starts the agent", BOOT)?;
    lab.rack.passed();
    Ok(())
}

#[test]
fn an_iso_is_booted_by_bios() -> Result<()> {
    iso("boot-iso-bios", Firmware::Bios, "pc")
}

#[test]
fn an_iso_is_booted_by_uefi() -> Result<()> {
    iso("boot-iso-uefi", Firmware::Uefi, "efi")
}

/// A target with one disk and CHAP, in the rack's namespace.
struct Target {
    _daemon: Process,
    port: String,
}

impl Target {
    fn start(rack: &Rack, disk: &Path) -> Result<Self> {
        // The daemon's control socket is a file, which the namespace does not part: a number of our own.
        let port = (1000 + std::process::id() % 30_000).to_string();
        let mut command = rack.namespace().command("tgtd");
        command.args(["-f", "-C", &port, "--iscsi", &format!("portal={SERVER_ADDRESS}:3260")]);
        let daemon = Process::start("tgtd", command, &rack.dir().join("tgtd.log"))?;
        let target = Self { _daemon: daemon, port };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while target.admin(rack, &["--op", "show", "--mode", "sys"]).is_err() {
            ensure!(std::time::Instant::now() < end, "tgtd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        let disk = disk.to_str().context("a path that is not UTF-8")?;
        target.admin(rack, &["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET])?;
        target
            .admin(rack, &["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", disk])?;
        target.admin(rack, &["--op", "new", "--mode", "account", "--user", "m1", "--password", SECRET])?;
        target.admin(rack, &["--op", "bind", "--mode", "account", "--tid", "1", "--user", "m1"])?;
        target.admin(rack, &["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"])?;
        Ok(target)
    }

    fn admin(&self, rack: &Rack, words: &[&str]) -> Result<String> {
        run(rack.namespace().command("tgtadm").args(["-C", &self.port, "--lld", "iscsi"]).args(words))
    }
}

/// A machine without a disk boots from an iSCSI target, which wants CHAP. With a wrong secret nothing is booted and the
/// order is not used up.
#[test]
fn an_iscsi_disk_is_booted_with_chap() -> Result<()> {
    let mut lab = Lab::new("boot-iscsi", Firmware::Bios)?;
    let disk = lab.rack.dir().join("tiny.raw");
    fs::copy(artifact("images/tiny-a.raw")?, &disk)?;
    let target = Target::start(&lab.rack, &disk)?;
    let order = |secret: &str| {
        json!({ "kind": "iscsi", "server": SERVER_ADDRESS, "lun": 1, "target": TARGET,
            "initiator": "iqn.2026-01.rack:m1", "chap": { "user": "m1", "password": secret } })
    };
    lab.order(order("wrongwrongwrong"))?;
    lab.machine.power_on()?;
    lab.machine.serial().wait_for("could not boot from the network disk", BOOT)?;
    ensure!(lab.boots()? == "iscsi", "nothing was booted");
    let shown = lab.order(order(SECRET))?;
    ensure!(!shown.to_string().contains("syntax"), "the secret is shown: {shown:#}");
    // The machine asks again by itself.
    lab.machine.serial().wait_for("Registered SAN device", BOOT)?;
    lab.machine.serial().wait_for_any(&["Linux version", "GRUB"], BOOT)?;
    drop(target);
    ensure!(lab.boots()? == "agent", "the order is used up");
    lab.rack.passed();
    Ok(())
}

/// What a preseed says is read by debconf itself, its search for the disk is run, and an installer that phones home makes
/// a server of its machine.
#[test]
fn a_preseed_is_what_debconf_reads() -> Result<()> {
    let mut rack = Rack::new("boot-preseed")?;
    rack.start_server()?;
    let api = rack.api()?;
    let provisioning = rack.forward(format!("{SERVER_ADDRESS}:8080").parse()?)?;
    let mut machine = SimulatedMachine::new(&provisioning.url(), 1, "SN1");
    let node = discover(&api, &mut machine)?;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh o'ps@example";
    let preseed = json!({ "kind": "preseed", "disk": "serial:S 1'2", "mirror": "http://deb.example/debian",
        "ssh_keys": [key], "packages": ["tmux"] });
    let boot = json!({ "kind": "kernel", "kernel": "http://deb.example/linux",
        "initrds": [{ "file": "http://deb.example/initrd.gz" }], "arguments": "--- quiet", "profile": preseed });
    api.post(&format!("/api/v1/nodes/{node}/boot"), &json!({ "boot": boot, "confirm": node }))?;
    let script = machine.boot()?;
    ensure!(script.contains("auto=true priority=critical") && script.contains(" --- quiet"), "{script}");
    let ticket = script.split("/boot/begun/").nth(1).context("no ticket")?;
    let ticket: String = ticket.chars().take_while(char::is_ascii_hexdigit).collect();
    let get = |path: &str| run(Command::new("curl").args(["-fsS", &format!("{}{path}", provisioning.url())]));
    ensure!(get(&format!("/boot/profile/{ticket}")).is_err(), "it has not begun");
    get(&format!("/boot/begun/{ticket}"))?;
    let text = get(&format!("/boot/profile/{ticket}"))?;
    let file = rack.dir().join("preseed.cfg");
    fs::write(&file, &text)?;
    run(Command::new("debconf-set-selections").arg("-c").arg(&file))?;
    finds_its_disk(&rack, answer(&text, "partman/early_command")?)?;
    late_command(&rack, answer(&text, "preseed/late_command")?, key)?;

    get(&format!("/phone-home/{ticket}"))?;
    let end = api.get(&format!("/api/v1/nodes/{node}"))?;
    ensure!(end["state"] == "active" && end["boots"] == "local_disk", "{end:#}");
    ensure!(get(&format!("/boot/profile/{ticket}")).is_err(), "the job is over");
    rack.passed();
    Ok(())
}

/// The value of an answer of type string.
fn answer<'a>(preseed: &'a str, question: &str) -> Result<&'a str> {
    let start = format!("d-i {question} string ");
    preseed.lines().find_map(|line| line.strip_prefix(&start)).with_context(|| format!("no {question}"))
}

/// A program of the installer that is not here.
fn fake(dir: &Path, name: &str, script: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join(name), format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?)
}

/// The command finds the one disk of the name, and goes no further where none or two have it.
fn finds_its_disk(rack: &Rack, command: &str) -> Result<()> {
    let bin = rack.dir().join("bin");
    fake(&bin, "list-devices", "echo /dev/zza\necho /dev/zzb")?;
    fake(&bin, "debconf-set", "echo \"$1=$2\" >>\"$ANSWERS\"")?;
    fake(&bin, "sleep", "exit 0")?;
    let try_with = |udev: &str| -> Result<String> {
        fake(&bin, "udevadm", udev)?;
        let answers = rack.dir().join("answers");
        let _ = fs::remove_file(&answers);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
        let mut shell = Command::new("timeout");
        shell.args(["2", "busybox", "sh", "-c", command]).env("PATH", path).env("ANSWERS", &answers);
        shell.env("BILLET_CONSOLE", rack.dir().join("console")).output()?;
        Ok(fs::read_to_string(answers).unwrap_or_default())
    };
    let one = try_with("case $3 in *zzb) echo \"ID_SERIAL_SHORT=S 1'2\";; *) echo ID_SERIAL=other;; esac")?;
    ensure!(one == "partman-auto/disk=/dev/zzb\ngrub-installer/bootdev=/dev/zzb\n", "{one}");
    ensure!(try_with("echo ID_SERIAL=other")?.is_empty(), "no disk has the name");
    ensure!(try_with("echo \"ID_SERIAL=S 1'2\"")?.is_empty(), "two disks have the name");
    let said = fs::read_to_string(rack.dir().join("console"))?;
    ensure!(said.contains("disks answer to S 1'2, nothing is erased"), "{said}");
    Ok(())
}

/// The command leaves the key as it was given, and says that it is done.
fn late_command(rack: &Rack, command: &str, key: &str) -> Result<()> {
    let (bin, target) = (rack.dir().join("late-bin"), rack.dir().join("target"));
    fs::create_dir_all(target.join("etc/sudoers.d"))?;
    fs::create_dir_all(target.join("home/debian"))?;
    fake(&bin, "in-target", "echo \"$@\" >>\"$CALLS\"")?;
    fake(&bin, "wget", "echo \"wget $4\" >>\"$CALLS\"")?;
    let calls = rack.dir().join("calls");
    let command = command.replace("/target", target.to_str().context("a path that is not UTF-8")?);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    run(Command::new("dash").args(["-c", &command]).env("PATH", path).env("CALLS", &calls))?;
    let keys = fs::read_to_string(target.join("home/debian/.ssh/authorized_keys"))?;
    ensure!(keys == format!("{key}\n"), "{keys}");
    let calls = fs::read_to_string(calls)?;
    ensure!(calls.contains(&format!("wget http://{SERVER_ADDRESS}:8080/phone-home/")), "{calls}");
    Ok(())
}
