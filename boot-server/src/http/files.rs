//! The files that machines boot: a fixed map from name to path, looked up in the configured directories at each
//! request, so that a new ramdisk needs no restart. No part of a request ever becomes part of a path.

use std::path::PathBuf;

use crate::config::Settings;
use crate::loaders::Loaders;

/// Kernel.
pub const KERNEL: &str = "vmlinuz";
/// Ramdisk with the agent.
pub const INITRAMFS: &str = "initramfs";
/// Ramdisk with firmware blobs for more hardware; optional.
pub const FIRMWARE: &str = "firmware";

/// What is served, and where it lies.
#[derive(Debug, Clone)]
pub struct BootFiles {
    boot: Vec<PathBuf>,
    loaders: Loaders,
}

impl BootFiles {
    /// The files of this configuration.
    pub fn new(settings: &Settings) -> Self {
        Self { boot: settings.boot.clone(), loaders: Loaders::new(settings) }
    }

    /// Where the file of this name lies, if it is one that is served and it is there.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let names: &[&str] = match name {
            KERNEL => &["vmlinuz"],
            INITRAMFS => &["initramfs", "initramfs.zst"],
            FIRMWARE => &["firmware", "firmware.zst"],
            _ => return self.loaders.path(name),
        };
        let candidates = self.boot.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        candidates.into_iter().find(|p| p.is_file())
    }

    /// What is missing for a machine to boot the agent, in words.
    pub fn missing(&self) -> Option<String> {
        let missing: Vec<&str> = [KERNEL, INITRAMFS].into_iter().filter(|n| self.path(n).is_none()).collect();
        let dirs = self.boot.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" or ");
        (!missing.is_empty()).then(|| format!("{} not found in {dirs}", missing.join(" and ")))
    }

    /// Octets of kernel and ramdisk together; `None` where one is missing.
    pub fn bytes(&self) -> Option<u64> {
        [KERNEL, INITRAMFS].into_iter().map(|n| Some(std::fs::metadata(self.path(n)?).ok()?.len())).sum()
    }
}
