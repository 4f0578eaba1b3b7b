//! A libvirt daemon inside the rack's namespace, with directories of its own, and one machine that it runs under
//! software emulation. No service manager is needed, and a daemon of the host is not disturbed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::rack::{BRIDGE, Disk, Process, Rack, Serial};

/// Directories that the daemon has at fixed places.
const PLACES: [&str; 5] =
    ["/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"];
/// The account that Debian's build of it looks for before it reads its settings; a package makes it that brings services,
/// so the daemon sees files of accounts of its own.
const ACCOUNTS: [(&str, &str); 2] = [
    ("/etc/passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"),
    ("/etc/group", "libvirt-qemu:x:64055:\n"),
];
/// What it needs: package by program.
const PROGRAMS: [(&str, &str); 2] =
    [("/usr/sbin/libvirtd", "libvirt-daemon"), ("/usr/bin/virsh", "libvirt-clients")];
/// Time for it to look at the emulators that are installed, and to answer.
const START: Duration = Duration::from_secs(90);
/// Between two looks at a file that grows.
const LOOK: Duration = Duration::from_millis(50);
/// UEFI firmware, and the variables that a new machine has.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];

/// The daemon; it ends when dropped, and its machines with the namespace.
#[derive(Debug)]
pub struct Libvirt {
    process: Process,
    directory: PathBuf,
    namespace: String,
}

/// A machine that the daemon runs.
#[derive(Debug)]
pub struct Domain {
    /// Name and SMBIOS serial number.
    pub name: &'static str,
    /// UUID.
    pub uuid: &'static str,
    /// Station address.
    pub mac: &'static str,
    /// Its one disk, on virtio-blk.
    pub disk: Disk,
}

impl Libvirt {
    /// Why there can be none here, if so.
    pub fn missing() -> Option<String> {
        let gone = |path: &str| !Path::new(path).exists();
        let program = PROGRAMS.iter().find(|(program, _)| gone(program));
        program.map(|(program, package)| format!("no {program} (package {package})"))
    }

    /// Starts one in the rack's namespace.
    ///
    /// # Errors
    /// Where its files cannot be written, or it does not answer, with what it said.
    pub fn start(rack: &Rack) -> Result<Self> {
        let directory = rack.dir().join("libvirt");
        let mut script = String::from("set -e\n");
        for place in PLACES {
            let own = directory.join(place.trim_start_matches('/'));
            fs::create_dir_all(&own)?;
            script.push_str(&format!("mkdir -p {place}\nmount --bind {} {place}\n", own.display()));
        }
        for (place, line) in ACCOUNTS {
            let own = directory.join(place.trim_start_matches('/'));
            fs::write(&own, fs::read_to_string(place)? + line)?;
            script.push_str(&format!("mount --bind {} {place}\n", own.display()));
        }
        fs::write(
            directory.join("etc/libvirt/qemu.conf"),
            "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\n\
             remember_owner = 0\ncgroup_controllers = []\nstdio_handler = \"file\"\n",
        )?;
        let config = directory.join("libvirtd.conf");
        fs::write(
            &config,
            format!("auth_unix_rw = \"none\"\nlog_level = 3\nunix_sock_dir = \"{}\"\n", directory.display()),
        )?;
        script.push_str(&format!(
            "exec /usr/sbin/libvirtd --config {} --pid-file {}\n",
            config.display(),
            directory.join("libvirtd.pid").display()
        ));
        let mut command = rack.namespace().command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let process = Process::start("libvirtd", command, &directory.join("libvirtd.log"))?;
        let mut libvirt = Self { process, directory, namespace: rack.namespace().name().to_owned() };
        libvirt.wait_ready()?;
        Ok(libvirt)
    }

    /// How a client names it.
    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.directory.join("libvirt-sock").display())
    }

    /// Makes the machine known. It is off; its firmware tries the disk, then the network.
    ///
    /// # Errors
    /// Where its files cannot be made, or libvirt refuses.
    pub fn define(&self, domain: &Domain) -> Result<()> {
        File::create(self.disk(domain))?.set_len(domain.disk.size)?;
        File::create(self.console(domain))?;
        let file = self.directory.join(format!("{}.xml", domain.name));
        fs::write(&file, self.xml(domain))?;
        self.virsh(&["define", file.to_str().context("a path that is no UTF-8")?]).map(drop)
    }

    /// Switches the machine on, as a person does who presses the button.
    ///
    /// # Errors
    /// Where libvirt refuses.
    pub fn power_on(&self, domain: &Domain) -> Result<()> {
        self.virsh(&["start", domain.name]).map(drop)
    }

    /// True while the machine runs.
    ///
    /// # Errors
    /// Where libvirt does not answer.
    pub fn is_on(&self, domain: &Domain) -> Result<bool> {
        Ok(self.virsh(&["domstate", domain.name])?.trim() == "running")
    }

    /// The machine's console, from now on and across all power cycles.
    ///
    /// # Errors
    /// Where its file cannot be opened.
    pub fn serial(&self, domain: &Domain) -> Result<Serial> {
        let serial = Serial::new(&self.directory.join(format!("{}.serial.log", domain.name)))?;
        serial.follow(Tail(File::open(self.console(domain))?));
        Ok(serial)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let out = self.ask(&["capabilities"])?;
            if out.status.success() {
                return Ok(());
            }
            let said = || fs::read_to_string(self.directory.join("libvirtd.log")).unwrap_or_default();
            if !self.process.running() || begin.elapsed() > START {
                bail!("libvirtd does not answer: {}{}", String::from_utf8_lossy(&out.stderr), said());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn virsh(&self, args: &[&str]) -> Result<String> {
        let out = self.ask(args)?;
        ensure!(out.status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn ask(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "virsh", "--quiet", "--connect", &self.uri()]);
        command.args(args).output().context("running virsh")
    }

    fn disk(&self, domain: &Domain) -> PathBuf {
        self.directory.join(format!("{}.raw", domain.name))
    }

    fn console(&self, domain: &Domain) -> PathBuf {
        self.directory.join(format!("{}.console", domain.name))
    }

    fn xml(&self, domain: &Domain) -> String {
        let Domain { name, uuid, mac, disk } = domain;
        let [code, vars] = OVMF;
        let (file, console) = (self.disk(domain).display().to_string(), self.console(domain));
        let nvram = self.directory.join(format!("{name}.vars.fd"));
        let (nvram, console, serial) = (nvram.display(), console.display(), &disk.serial);
        format!(
            "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>\
             <memory unit='MiB'>1024</memory><vcpu>1</vcpu>\
             <sysinfo type='smbios'><system><entry name='manufacturer'>Billet</entry>\
             <entry name='product'>Rack Machine</entry><entry name='serial'>{name}</entry>\
             <entry name='uuid'>{uuid}</entry></system></sysinfo>\
             <sysinfo type='fwcfg'><entry name='opt/org.tianocore/IPv6PXESupport'>n</entry></sysinfo>\
             <os><type arch='x86_64' machine='q35'>hvm</type>\
             <loader readonly='yes' type='pflash'>{code}</loader><nvram template='{vars}'>{nvram}</nvram>\
             <boot dev='hd'/><boot dev='network'/><smbios mode='sysinfo'/></os>\
             <features><acpi/></features><cpu mode='maximum'/>\
             <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/>\
             <source file='{file}'/><target dev='vda' bus='virtio'/><serial>{serial}</serial></disk>\
             <interface type='bridge'><mac address='{mac}'/><source bridge='{BRIDGE}'/>\
             <model type='virtio'/><rom enabled='no'/></interface>\
             <serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             </devices></domain>"
        )
    }
}

/// A file that grows: its end is waited at.
struct Tail(File);

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer)? {
                0 => std::thread::sleep(LOOK),
                n => return Ok(n),
            }
        }
    }
}
