//! The files that machines boot: a fixed map from name to path, looked up in the configured directories at each
//! request, so that a new ramdisk needs no restart. No part of a request ever becomes part of a path. A ramdisk is served with what this site
//! adds to it ([`Ramdisks`]), on whatever way it goes.

use std::path::PathBuf;

use boot_server_core::node::{Event, Netboot};

use crate::config::Settings;
use crate::loaders::Loaders;
use crate::ramdisks::Ramdisks;

/// What the agent is booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Kernel.
    Kernel,
    /// Ramdisk with the agent.
    Initramfs,
    /// Ramdisk with firmware blobs for more hardware; optional.
    Firmware,
}

/// For which kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// 64-bit x86.
    X64,
    /// 64-bit ARM.
    Arm64,
}

impl Processor {
    /// From iPXE's setting `buildarch`. A BIOS machine's iPXE is a 32-bit program, whatever its processor.
    pub fn of_ipxe(buildarch: &str) -> Self {
        if buildarch == "arm64" { Self::Arm64 } else { Self::X64 }
    }
}

impl Part {
    /// Name by which it is served.
    pub fn name(self, processor: Processor) -> &'static str {
        SERVED.iter().find(|s| (s.part, s.processor) == (self, processor)).map_or("", |s| s.name)
    }
}

/// One file and where it lies in a boot directory.
struct Served {
    name: &'static str,
    part: Part,
    processor: Processor,
    paths: &'static [&'static str],
}

const SERVED: &[Served] = &[
    Served { name: "vmlinuz", part: Part::Kernel, processor: Processor::X64, paths: &["vmlinuz"] },
    Served {
        name: "initramfs",
        part: Part::Initramfs,
        processor: Processor::X64,
        paths: &["initramfs", "initramfs.zst"],
    },
    Served {
        name: "firmware",
        part: Part::Firmware,
        processor: Processor::X64,
        paths: &["firmware", "firmware.zst"],
    },
    Served {
        name: "vmlinuz-arm64",
        part: Part::Kernel,
        processor: Processor::Arm64,
        paths: &["arm64/vmlinuz"],
    },
    Served {
        name: "initramfs-arm64",
        part: Part::Initramfs,
        processor: Processor::Arm64,
        paths: &["arm64/initramfs", "arm64/initramfs.zst"],
    },
    Served {
        name: "firmware-arm64",
        part: Part::Firmware,
        processor: Processor::Arm64,
        paths: &["arm64/firmware", "arm64/firmware.zst"],
    },
];

fn served_by(name: &str) -> Option<&'static Served> {
    SERVED.iter().find(|s| s.name == name)
}

/// What it tells about a machine that it fetched the file of this name.
pub(crate) fn served(name: &str, by: Netboot) -> Option<Event> {
    match served_by(name).map(|s| s.part) {
        Some(Part::Kernel) => Some(Event::KernelServed),
        Some(Part::Initramfs | Part::Firmware) => None,
        None => Some(Event::LoaderServed { by }),
    }
}

/// What is served, and where it lies.
#[derive(Debug, Clone)]
pub struct BootFiles {
    boot: Vec<PathBuf>,
    loaders: Loaders,
    /// None where files are packed, not served.
    ramdisks: Option<Ramdisks>,
}

impl BootFiles {
    /// The files of this configuration.
    pub fn new(settings: &Settings) -> Self {
        let (loaders, ramdisks) = (Loaders::new(settings), Ramdisks::new(settings));
        Self { boot: settings.boot.clone(), loaders, ramdisks: Some(ramdisks) }
    }

    /// Those of these directories, which are searched in order, as they were installed: nothing of this site is added to them.
    pub fn in_directories(boot: Vec<PathBuf>, loaders: Loaders) -> Self {
        Self { boot, loaders, ramdisks: None }
    }

    /// What such machines boot the agent from, as it was installed, as far as it is there: by the name that it has in its directory.
    pub fn of(&self, processor: Processor) -> Vec<(&'static str, PathBuf)> {
        let served = SERVED.iter().filter(|served| served.processor == processor);
        served.filter_map(|served| self.find(served)).collect()
    }

    fn find(&self, served: &Served) -> Option<(&'static str, PathBuf)> {
        let candidates =
            self.boot.iter().flat_map(|dir| served.paths.iter().map(move |path| (*path, dir.join(path))));
        candidates.into_iter().find(|(_, path)| path.is_file())
    }

    /// Where the file of this name lies as it is served, if it is one that is served and it is there. A ramdisk is made where it, or what
    /// is added to it, changed.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let Some(served) = served_by(name) else { return self.loaders.path(name) };
        let (_, found) = self.find(served)?;
        match &self.ramdisks {
            Some(ramdisks) if served.part == Part::Initramfs => ramdisks.with_site(served.name, &found),
            _ => Some(found),
        }
    }

    /// What is missing for a machine to boot the agent, in words.
    pub fn missing(&self, processor: Processor) -> Option<String> {
        let names = [Part::Kernel, Part::Initramfs].map(|part| part.name(processor));
        let there = |name: &str| served_by(name).is_some_and(|served| self.find(served).is_some());
        let missing: Vec<&str> = names.into_iter().filter(|name| !there(name)).collect();
        let dirs = self.boot.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" or ");
        (!missing.is_empty()).then(|| format!("{} not found in {dirs}", missing.join(" and ")))
    }

    /// Octets of kernel and ramdisk for x64 together; `None` where one is missing.
    pub fn bytes(&self) -> Option<u64> {
        let size = |part: Part| Some(std::fs::metadata(self.path(part.name(Processor::X64))?).ok()?.len());
        Some(size(Part::Kernel)? + size(Part::Initramfs)?)
    }
}
