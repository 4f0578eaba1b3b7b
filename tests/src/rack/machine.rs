//! A machine of the rack: QEMU with firmware, disks and NICs as described, switched on and off like a real one. Its boot
//! order and its CD drive are in `boot`.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::BRIDGE;
use super::behind::SocketDisk;
use super::boot::Boot;
use super::namespace::Namespace;
use super::process::Process;
use super::qmp::Qmp;
use super::serial::Serial;
use super::spec::{Bus, Disk, Firmware, MachineSpec, NicModel};

/// UEFI firmware, and the variables that a new machine has.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The same with Secure Boot, which needs System Management Mode to keep its variables from the OS.
const OVMF_CODE_SECURE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// Time for QEMU to end when it was told to.
const QUIT: Duration = Duration::from_secs(10);

/// Looks for the socket of a TPM that is being started, and the pause between.
const TPM_TRIES: u32 = 200;
const TPM_PAUSE: Duration = Duration::from_millis(50);

/// A machine, on or off.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    number: u32,
    dir: PathBuf,
    namespace_name: String,
    serial: Serial,
    pub(super) boot: Boot,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    qmp: Qmp,
    /// Ends with QEMU.
    _tpm: Option<Process>,
}

impl Machine {
    pub(super) fn new(spec: MachineSpec, number: u32, namespace: &Namespace, rack: &Path) -> Result<Self> {
        let dir = rack.join(&spec.name);
        fs::create_dir_all(&dir)?;
        for (index, disk) in spec.disks.iter().enumerate() {
            ensure!(disk.serial.len() <= 20, "disk serial {} is longer than virtio allows", disk.serial);
            File::create(dir.join(format!("disk{index}.raw")))?.set_len(disk.size)?;
        }
        if spec.firmware == Firmware::Uefi {
            let from = spec.secure_boot.as_deref().unwrap_or(Path::new(OVMF_VARS));
            fs::copy(from, dir.join("vars.fd")).context("copying UEFI variables (package ovmf)")?;
        }
        let serial = Serial::new(&dir.join("serial.log"))?;
        let namespace_name = namespace.name().to_owned();
        let boot = Boot::new(&spec);
        let machine = Self { spec, number, dir, namespace_name, serial, boot, running: None };
        // Those of a machine behind a DPU are the DPU's.
        let own = if machine.spec.behind.is_none() { machine.spec.nics.len() } else { 0 };
        for index in 0..own {
            namespace.tap(&machine.tap(index), BRIDGE)?;
        }
        Ok(machine)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its console.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Station address of a NIC, in lower case.
    pub fn mac(&self, nic: usize) -> String {
        let given = self.spec.nics.get(nic).and_then(|n| n.mac.clone());
        given.unwrap_or_else(|| format!("52:54:00:77:{:02x}:{nic:02x}", self.number)).to_lowercase()
    }

    /// SMBIOS UUID.
    pub fn uuid(&self) -> String {
        let made = || format!("b111e700-0000-4000-8000-{:012x}", self.number);
        self.spec.uuid.clone().unwrap_or_else(made)
    }

    /// SMBIOS serial number.
    pub fn system_serial(&self) -> String {
        self.spec.serial.clone().unwrap_or_else(|| format!("RACK-{:04}", self.number))
    }

    /// Switches it on, from cold.
    ///
    /// # Errors
    /// Where it is on, or QEMU refuses.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on already", self.spec.name);
        let socket = self.dir.join("qmp.sock");
        let _ = fs::remove_file(&socket);
        let tpm = self.spec.tpm.then(|| self.start_tpm()).transpose()?;
        let mut command = Command::new("ip");
        let behind = self.spec.behind.as_ref();
        let prefix = behind.map_or_else(Vec::new, |behind| behind.prefix.clone());
        let volumes = behind.map_or_else(|| Ok(Vec::new()), |behind| (behind.disks)())?;
        self.boot.set_volumes(volumes.iter().filter(|disk| disk.boot).map(|disk| disk.id.clone()).collect());
        command.args(["netns", "exec", &self.namespace_name]).args(prefix).arg("qemu-system-x86_64");
        command.args(self.arguments(&socket, volumes)?);
        let log = File::options().create(true).append(true).open(self.dir.join("qemu.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process::spawn(&format!("QEMU of {}", self.spec.name), command)?;
        self.serial.note("power on");
        self.serial.follow(process.child().stdout.take().context("QEMU without a console")?);
        let said = || fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        let qmp =
            Qmp::connect(&socket, || process.running()).with_context(|| format!("QEMU says: {}", said()))?;
        self.running = Some(Running { process, qmp, _tpm: tpm });
        self.boot_began()
    }

    /// Its TPM, whose keys and counters outlive it.
    fn start_tpm(&self) -> Result<Process> {
        let dir = self.tpm_dir();
        fs::create_dir_all(&dir)?;
        let socket = dir.join("socket");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init", "--tpmstate"]);
        command.arg(format!("dir={}", text(&dir)?));
        command.arg("--ctrl").arg(format!("type=unixio,path={}", text(&socket)?));
        let mut process =
            Process::start(&format!("TPM of {}", self.spec.name), command, &self.dir.join("tpm.log"))?;
        for _ in 0..TPM_TRIES {
            if socket.exists() {
                return Ok(process);
            }
            ensure!(process.running(), "swtpm ended: see tpm.log");
            std::thread::sleep(TPM_PAUSE);
        }
        anyhow::bail!("swtpm does not listen")
    }

    fn tpm_dir(&self) -> PathBuf {
        self.dir.join("tpm")
    }

    /// Puts another TPM on its board.
    ///
    /// # Errors
    /// Where it is on.
    pub fn swap_tpm(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on", self.spec.name);
        fs::remove_dir_all(self.tpm_dir()).context("taking its TPM out")
    }

    /// Cuts the power: whatever was under way ends here.
    ///
    /// # Errors
    /// Where it is off.
    pub fn power_off(&mut self) -> Result<()> {
        let mut running = self.running.take().with_context(|| format!("{} is off", self.spec.name))?;
        self.serial.note("power off");
        running.process.kill()
    }

    /// Presses reset: the processor starts anew, the power stays on.
    ///
    /// # Errors
    /// Where it is off.
    pub fn reset(&mut self) -> Result<()> {
        self.serial.note("reset");
        self.boot_again()
    }

    /// Presses the power button briefly (ACPI): the OS may shut down.
    ///
    /// # Errors
    /// Where it is off.
    pub fn press_power(&mut self) -> Result<()> {
        self.serial.note("power button");
        self.qmp()?.command("system_powerdown", json!({})).map(drop)
    }

    /// True while it is on; a machine that switched itself off is off.
    pub fn is_on(&mut self) -> bool {
        let on = self.running.as_mut().is_some_and(|r| r.process.running());
        if !on {
            self.running = None;
        }
        on
    }

    /// Waits until it switched itself off.
    ///
    /// # Errors
    /// Where it is still on after `timeout`.
    pub fn wait_off(&mut self, timeout: Duration) -> Result<()> {
        if let Some(running) = &mut self.running {
            running.process.wait(timeout)?;
        }
        self.running = None;
        Ok(())
    }

    /// QEMU's control socket.
    ///
    /// # Errors
    /// Where the machine is off.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        let name = &self.spec.name;
        Ok(&mut self.running.as_mut().with_context(|| format!("{name} is off"))?.qmp)
    }

    /// Types on the console.
    ///
    /// # Errors
    /// Where the machine is off.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        let running = self.running.as_mut().context("the machine is off")?;
        let input = running.process.child().stdin.as_mut().context("QEMU without a console")?;
        Ok(std::io::Write::write_all(input, text.as_bytes())?)
    }

    /// Types octets on the console, as [`Machine::type_text`].
    ///
    /// # Errors
    /// Where the machine is off.
    pub fn type_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let running = self.running.as_mut().context("the machine is off")?;
        let input = running.process.child().stdin.as_mut().context("QEMU without a console")?;
        std::io::Write::write_all(input, bytes)?;
        Ok(std::io::Write::flush(input)?)
    }

    /// A picture of the screen as PNG. The machine needs a display: `extra(&["-vga", "std"])`.
    ///
    /// # Errors
    /// Where it is off or has no display.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let file = file.to_str().context("a path that is not UTF-8")?;
        self.qmp()?.command("screendump", json!({ "filename": file, "format": "png" })).map(drop)
    }

    /// The file behind a disk.
    pub fn disk_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("disk{index}.raw"))
    }

    /// The log of a disk that has one: what it was told since the last power-on.
    pub fn disk_log_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("disk{index}.raw.log"))
    }

    /// SHA-256 of a whole disk, holes read as zeros, as lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn disk_sha256(&self, index: usize) -> Result<String> {
        let mut file = File::open(self.disk_path(index))?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect());
            }
            hash.update(&piece[..n]);
        }
    }

    /// Bytes of a disk.
    ///
    /// # Errors
    /// Where the disk ends before.
    pub fn read_disk(&self, index: usize, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.disk_path(index))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Overwrites bytes of a disk; only while the machine is off.
    ///
    /// # Errors
    /// Where the machine is on or the file cannot be written.
    pub fn write_disk(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        ensure!(!self.is_on(), "{} is on", self.spec.name);
        File::options().write(true).open(self.disk_path(index))?.write_all_at(bytes, offset)?;
        Ok(())
    }

    /// At most 15 characters, and unique within the namespace.
    pub(super) fn tap(&self, nic: usize) -> String {
        if let Some(name) = self.spec.behind.as_ref().and_then(|behind| behind.representors.get(nic)) {
            return name.clone();
        }
        format!("tap{}n{nic}", self.number)
    }

    fn arguments(&self, qmp: &Path, volumes: Vec<SocketDisk>) -> Result<Vec<String>> {
        let spec = &self.spec;
        let mut args = Arguments::default();
        args.add(&["-name", &spec.name, "-nodefaults", "-no-user-config", "-display", "none"]);
        // graphics=off makes SeaBIOS and the option ROMs talk on the serial line.
        let machine = if spec.secure_boot.is_some() { "q35,graphics=off,smm=on" } else { "q35,graphics=off" };
        args.add(&["-machine", machine, "-accel", "tcg,thread=multi", "-cpu", "max"]);
        args.add(&["-m", &spec.memory_mib.to_string(), "-smp", &spec.cpus.to_string()]);
        args.add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        args.add(&["-qmp", &format!("unix:{},server=on,wait=off", text(qmp)?)]);
        let (uuid, serial) = (self.uuid(), self.system_serial());
        args.add(&["-uuid", &uuid]);
        args.add(&[
            "-smbios",
            &format!("type=1,manufacturer=Billet,product=Rack Machine,serial={serial},uuid={uuid}"),
        ]);
        args.add(&["-smbios", &format!("type=3,manufacturer=Billet,serial=CH-{serial}")]);
        args.add(&["-device", "virtio-rng-pci"]);
        self.firmware_arguments(&mut args)?;
        for index in 0..spec.nics.len() {
            self.nic_arguments(index, &mut args);
        }
        for (index, disk) in spec.disks.iter().enumerate() {
            disk_arguments(index, disk, self.boot.disk(index), &self.disk_path(index), &mut args)?;
        }
        if let Some(behind) = &spec.behind {
            let place = |disk: SocketDisk| (disk.clone(), self.boot.volume(&disk.id));
            let volumes: Vec<_> = volumes.into_iter().map(place).collect();
            args.0.extend(behind.arguments(spec.memory_mib, &volumes)?);
        }
        self.boot.cdrom_arguments(&mut args.0)?;
        if spec.tpm {
            let socket = self.tpm_dir().join("socket");
            args.add(&["-chardev", &format!("socket,id=tpmchar,path={}", text(&socket)?)]);
            args.add(&["-tpmdev", "emulator,id=tpm0,chardev=tpmchar", "-device", "tpm-crb,tpmdev=tpm0"]);
        }
        if spec.bmc {
            args.add(&["-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0"]);
        }
        args.0.extend(spec.extra.iter().cloned());
        Ok(args.0)
    }

    fn firmware_arguments(&self, args: &mut Arguments) -> Result<()> {
        if self.spec.firmware == Firmware::Bios {
            return Ok(());
        }
        let code = if self.spec.secure_boot.is_some() {
            args.add(&["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            OVMF_CODE_SECURE
        } else {
            OVMF_CODE
        };
        args.add(&["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={code}")]);
        let vars = self.dir.join("vars.fd");
        args.add(&["-drive", &format!("if=pflash,format=raw,unit=1,file={}", text(&vars)?)]);
        // IPv6 PXE would be tried for more than a minute where IPv4 gets no answer, and the other way round.
        if !self.spec.ipv6 || self.spec.http_boot {
            args.add(&["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"]);
        }
        if self.spec.ipv6 || self.spec.http_boot {
            args.add(&["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"]);
        }
        Ok(())
    }

    fn nic_arguments(&self, index: usize, args: &mut Arguments) {
        let model = match self.spec.nics[index].model {
            NicModel::Virtio => "virtio-net-pci",
            NicModel::E1000e => "e1000e",
        };
        let tap = self.tap(index);
        // Open vSwitch in user space knows no header of virtio's before a frame.
        let header = if self.spec.behind.is_some() { ",vnet_hdr=off" } else { "" };
        args.add(&["-netdev", &format!("tap,id=net{index},ifname={tap},script=no,downscript=no{header}")]);
        let boot = self.boot.nic(index);
        let mac = self.mac(index);
        let mut device = format!("{model},id=nic{index},netdev=net{index},mac={mac},bootindex={boot}");
        if self.spec.firmware == Firmware::Uefi {
            // Without a ROM the firmware's own network stack is used.
            device.push_str(",romfile=");
        }
        args.add(&["-device", &device]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // QEMU closes its files in order; where it does not, it is killed.
            let _ = running.qmp.command("quit", json!({}));
            let _ = running.process.wait(QUIT);
        }
    }
}

fn disk_arguments(index: usize, disk: &Disk, boot: usize, file: &Path, args: &mut Arguments) -> Result<()> {
    let file = text(file)?;
    let drive = if disk.logged {
        File::create(format!("{file}.log"))?;
        format!(
            "if=none,id=drive{index},driver=blklogwrites,log-sector-size=512,discard=unmap,file.driver=raw,\
             file.file.driver=file,file.file.filename={file},log.driver=raw,log.file.driver=file,log.file.filename={file}.log"
        )
    } else {
        format!("if=none,id=drive{index},file={file},format=raw,discard=unmap,detect-zeroes=off")
    };
    args.add(&["-drive", &drive]);
    let serial = &disk.serial;
    let device = match disk.bus {
        Bus::Virtio => format!("virtio-blk-pci,drive=drive{index},serial={serial}"),
        Bus::Nvme => format!("nvme,drive=drive{index},serial={serial}"),
        Bus::Sata => format!("ide-hd,drive=drive{index},serial={serial},bus=ide.{index}"),
    };
    args.add(&["-device", &format!("{device},id=disk{index},bootindex={boot}")]);
    Ok(())
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|w| (*w).to_owned()));
    }
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("path {} is not UTF-8", path.display()))
}
