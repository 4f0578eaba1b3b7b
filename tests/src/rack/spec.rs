//! What a machine is made of, in the words of a test.

use std::path::{Path, PathBuf};

use super::behind::Behind;

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, with iPXE as the NIC's option ROM.
    Bios,
    /// OVMF with its own PXE and HTTP boot.
    Uefi,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: `/dev/vda`.
    Virtio,
    /// NVMe: `/dev/nvme0n1`.
    Nvme,
    /// AHCI: `/dev/sda`.
    Sata,
}

/// A disk; blank and sparse unless the machine's directory has one from before.
#[derive(Debug, Clone)]
pub struct Disk {
    /// How it is attached.
    pub bus: Bus,
    /// Serial number, at most 20 characters.
    pub serial: String,
    /// Size in bytes, a multiple of 512.
    pub size: u64,
    /// Everything that it is told is logged ([`super::Machine::disk_log_path`]), anew at each power-on.
    pub logged: bool,
}

impl Disk {
    /// A disk on virtio-blk.
    pub fn virtio(serial: &str, size: u64) -> Self {
        Self { bus: Bus::Virtio, serial: serial.to_owned(), size, logged: false }
    }

    /// An NVMe disk.
    pub fn nvme(serial: &str, size: u64) -> Self {
        Self { bus: Bus::Nvme, serial: serial.to_owned(), size, logged: false }
    }

    /// A SATA disk.
    pub fn sata(serial: &str, size: u64) -> Self {
        Self { bus: Bus::Sata, serial: serial.to_owned(), size, logged: false }
    }

    /// Logs everything that it is told.
    #[must_use]
    pub fn logged(mut self) -> Self {
        self.logged = true;
        self
    }
}

/// What firmware tries before all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFirst {
    /// The first NIC.
    Network,
    /// The first disk.
    Disk,
    /// The CD drive ([`MachineSpec::cdrom`]).
    Cdrom,
}

/// Model of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicModel {
    /// virtio-net.
    Virtio,
    /// Intel 82574L.
    E1000e,
}

/// A NIC on the rack's bridge.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Model.
    pub model: NicModel,
    /// Station address, such as `52:54:00:77:00:01`; one of the machine's number where it is `None`.
    pub mac: Option<String>,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    pub(super) name: String,
    pub(super) firmware: Firmware,
    pub(super) disks: Vec<Disk>,
    pub(super) nics: Vec<Nic>,
    pub(super) memory_mib: u32,
    pub(super) cpus: u32,
    pub(super) serial: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) bmc: bool,
    pub(super) http_boot: bool,
    pub(super) ipv6: bool,
    pub(super) disk_first: bool,
    pub(super) cdrom: bool,
    pub(super) tpm: bool,
    pub(super) secure_boot: Option<PathBuf>,
    pub(super) behind: Option<Behind>,
    pub(super) extra: Vec<String>,
}

impl MachineSpec {
    /// One virtio NIC, no disk, 1 GiB of memory, one CPU. Disk after disk is added by [`MachineSpec::disk`].
    pub fn new(name: &str, firmware: Firmware) -> Self {
        Self {
            name: name.to_owned(),
            firmware,
            disks: Vec::new(),
            nics: vec![Nic { model: NicModel::Virtio, mac: None }],
            memory_mib: 1024,
            cpus: 1,
            serial: None,
            uuid: None,
            bmc: false,
            http_boot: false,
            ipv6: false,
            disk_first: false,
            cdrom: false,
            tpm: false,
            secure_boot: None,
            behind: None,
            extra: Vec::new(),
        }
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Its NICs instead of the one it has by itself; the first is the one that boots.
    #[must_use]
    pub fn nics(mut self, nics: Vec<Nic>) -> Self {
        self.nics = nics;
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// SMBIOS serial number of the system.
    #[must_use]
    pub fn serial(mut self, serial: &str) -> Self {
        self.serial = Some(serial.to_owned());
        self
    }

    /// SMBIOS UUID of the system.
    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Self {
        self.uuid = Some(uuid.to_owned());
        self
    }

    /// Gives it a simulated BMC with an in-band IPMI interface (KCS).
    #[must_use]
    pub fn bmc(mut self) -> Self {
        self.bmc = true;
        self
    }

    /// UEFI boots by HTTP instead of TFTP.
    #[must_use]
    pub fn http_boot(mut self) -> Self {
        self.http_boot = true;
        self
    }

    /// UEFI boots by IPv6 instead of IPv4.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// Firmware tries the disks before the network; otherwise the network is first.
    #[must_use]
    pub fn disk_first(mut self) -> Self {
        self.disk_first = true;
        self
    }

    /// Gives it an empty CD drive, for virtual media.
    #[must_use]
    pub fn cdrom(mut self) -> Self {
        self.cdrom = true;
        self
    }

    /// It has a TPM 2.0 (`swtpm`).
    #[must_use]
    pub fn tpm(mut self) -> Self {
        self.tpm = true;
        self
    }

    /// UEFI checks signatures (Secure Boot) by Microsoft's keys.
    #[must_use]
    pub fn secure_boot(self) -> Self {
        self.secure_boot_by(Path::new("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"))
    }

    /// UEFI checks signatures (Secure Boot) by the keys in these firmware variables, of which it gets a copy.
    #[must_use]
    pub fn secure_boot_by(mut self, variables: &Path) -> Self {
        self.secure_boot = Some(variables.to_owned());
        self
    }

    /// Puts it behind a DPU.
    #[must_use]
    pub fn behind(mut self, dpu: Behind) -> Self {
        self.behind = Some(dpu);
        self
    }

    /// Further arguments of QEMU.
    #[must_use]
    pub fn extra(mut self, arguments: &[&str]) -> Self {
        self.extra.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }
}
