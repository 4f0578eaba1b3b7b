//! The boot order of a machine and what lies in its CD drive, on or off. QEMU tells firmware the order at each start
//! (`bootindex`), so an order for one start is taken back as soon as that start has begun.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::machine::{Machine, text};
use super::spec::{BootFirst, Firmware, MachineSpec};

/// Time for QEMU to carry out a reset.
const RESET: Duration = Duration::from_secs(5);
/// Between two looks whether it did.
const POLL: Duration = Duration::from_millis(10);
/// After the last of several resets.
const QUIET: Duration = Duration::from_millis(150);
/// AHCI port of the CD drive, behind all disks.
const CDROM_BUS: &str = "ide.5";

/// Boot order and CD drive.
#[derive(Debug)]
pub(super) struct Boot {
    nics: usize,
    disks: usize,
    /// Names of disks of a DPU that the machine boots from, before its own disks.
    volumes: Vec<String>,
    disk_first: bool,
    drive: bool,
    resets_again: bool,
    media: Option<PathBuf>,
    first: Option<BootFirst>,
    once: bool,
}

impl Boot {
    pub(super) fn new(spec: &MachineSpec) -> Self {
        Self {
            nics: spec.nics.len(),
            disks: spec.disks.len(),
            volumes: Vec::new(),
            disk_first: spec.disk_first,
            drive: spec.cdrom,
            resets_again: spec.firmware == Firmware::Bios,
            media: None,
            first: None,
            once: false,
        }
    }

    /// Disks of a DPU that the machine boots from at this start.
    pub(super) fn set_volumes(&mut self, volumes: Vec<String>) {
        self.volumes = volumes;
    }

    /// `bootindex` of a disk.
    pub(super) fn disk(&self, index: usize) -> usize {
        self.nth(self.volumes.len() + index)
    }

    /// `bootindex` of a disk of a DPU, where the machine boots from it.
    pub(super) fn volume(&self, id: &str) -> Option<usize> {
        self.volumes.iter().position(|volume| volume == id).map(|index| self.nth(index))
    }

    /// Of all disks.
    fn nth(&self, index: usize) -> usize {
        let usual = index + 2 + if self.disk_first { 0 } else { self.nics };
        if self.first == Some(BootFirst::Disk) && index == 0 { 1 } else { usual }
    }

    /// `bootindex` of a NIC.
    pub(super) fn nic(&self, index: usize) -> usize {
        let usual = index + 2 + if self.disk_first { self.disks + self.volumes.len() } else { 0 };
        if self.first == Some(BootFirst::Network) && index == 0 { 1 } else { usual }
    }

    fn cd(&self) -> usize {
        if self.first == Some(BootFirst::Cdrom) { 1 } else { 2 + self.nics + self.disks + self.volumes.len() }
    }

    pub(super) fn cdrom_arguments(&self, arguments: &mut Vec<String>) -> Result<()> {
        if !self.drive {
            return Ok(());
        }
        let mut drive = String::from("if=none,id=cd,media=cdrom,readonly=on");
        if let Some(media) = &self.media {
            drive.push_str(&format!(",format=raw,file={}", text(media)?));
        }
        let device = format!("ide-cd,id=cd0,drive=cd,bus={CDROM_BUS},bootindex={}", self.cd());
        arguments.extend(["-drive".into(), drive, "-device".into(), device]);
        Ok(())
    }
}

impl Machine {
    /// What firmware tries first at the coming starts, or at the next one only; `None` is the machine's usual order.
    /// A machine that runs learns of it at its next reset by [`Machine::reset`].
    pub fn boot_first(&mut self, first: Option<BootFirst>, once: bool) {
        self.boot.first = first;
        self.boot.once = once;
    }

    /// What [`Machine::boot_first`] said last, unless it was used up: what, and whether for one start only.
    pub fn boots_first(&self) -> Option<(BootFirst, bool)> {
        self.boot.first.map(|first| (first, self.boot.once))
    }

    /// Puts the image in this file into the CD drive, or takes out what is there.
    ///
    /// # Errors
    /// Where the machine has no drive ([`MachineSpec::cdrom`]) or QEMU cannot read the file.
    pub fn set_media(&mut self, image: Option<&Path>) -> Result<()> {
        ensure!(self.boot.drive, "{} has no CD drive", self.name());
        if self.is_on() {
            match image {
                Some(image) => {
                    let change =
                        json!({ "id": "cd0", "filename": text(image)?, "format": "raw", "force": true });
                    self.qmp()?.command("blockdev-change-medium", change)?;
                }
                None => {
                    self.qmp()?.command("eject", json!({ "id": "cd0", "force": true }))?;
                }
            }
        }
        self.boot.media = image.map(Path::to_owned);
        Ok(())
    }

    /// What is in the CD drive.
    pub fn media(&self) -> Option<&Path> {
        self.boot.media.as_deref()
    }

    /// Tells QEMU the order; firmware sees it at the next reset.
    pub(super) fn order_boot(&mut self) -> Result<()> {
        let boot = &self.boot;
        let mut order: Vec<(String, usize)> = Vec::new();
        order.extend((0..boot.nics).map(|i| (format!("nic{i}"), boot.nic(i))));
        order.extend(boot.volumes.iter().enumerate().map(|(i, id)| (id.clone(), boot.nth(i))));
        order.extend((0..boot.disks).map(|i| (format!("disk{i}"), boot.disk(i))));
        if boot.drive {
            order.push(("cd0".into(), boot.cd()));
        }
        let qmp = self.qmp()?;
        let mut set = |id: &str, value: i64| {
            let path = format!("/machine/peripheral/{id}");
            qmp.command("qom-set", json!({ "path": path, "property": "bootindex", "value": value })).map(drop)
        };
        // Two devices with one place are refused, also on the way.
        order.iter().try_for_each(|(id, _)| set(id, -1))?;
        order.iter().try_for_each(|(id, place)| set(id, i64::try_from(*place)?))
    }

    /// After a cold start: an order for one start only is used up. QEMU listens only when its machine is ready, so
    /// firmware has its copy of the order.
    pub(super) fn boot_began(&mut self) -> Result<()> {
        if self.boot.first.is_none() || !self.boot.once {
            return Ok(());
        }
        self.boot.first = None;
        self.order_boot()
    }

    /// Resets a machine that runs, in the order that is set.
    pub(super) fn boot_again(&mut self) -> Result<()> {
        self.order_boot()?;
        let qmp = self.qmp()?;
        qmp.take_events();
        qmp.command("system_reset", json!({}))?;
        if self.boot.first.is_some() && self.boot.once {
            self.wait_reset()?;
        }
        self.boot_began()
    }

    /// Firmware's copy of the order is made by the reset, which QEMU carries out after it answered. SeaBIOS, found running,
    /// then resets the machine by itself, up to four times within 20 ms.
    fn wait_reset(&mut self) -> Result<()> {
        let end = Instant::now() + RESET;
        let wanted = if self.boot.resets_again { 2 } else { 1 };
        let (mut seen, mut last) = (0, Instant::now());
        while Instant::now() < end {
            let qmp = self.qmp()?;
            qmp.command("query-status", json!({}))?;
            let resets = qmp.take_events().iter().filter(|e| e["event"] == "RESET").count();
            if resets > 0 {
                (seen, last) = (seen + resets, Instant::now());
            }
            if seen >= wanted && (wanted == 1 || last.elapsed() > QUIET) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("{} did not carry out its reset within {RESET:?}", self.name())
    }
}
