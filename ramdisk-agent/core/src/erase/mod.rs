//! Which way a disk is erased, from what it says that it can: the strongest first. Nothing here talks to a disk.
//!
//! ```text
//! abilities ─ methods() ─▶ strongest, next, … , overwrite     each one that is refused is kept with its reason
//! ```

pub mod ata;
pub mod nvme;
pub mod sample;
pub mod scsi;

use protocol::erase::{EraseMethod, Grade, NotUsed};
use protocol::inventory::{Disk, Transport};

/// What a disk says that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Where it speaks NVMe.
    pub nvme: Option<nvme::Abilities>,
    /// Where it speaks ATA.
    pub ata: Option<ata::Abilities>,
    /// Where it speaks SCSI, and no ATA behind that.
    pub scsi: Option<scsi::Abilities>,
    /// Blocks that are given back are guaranteed to read as zeros.
    pub discard_zeroes: bool,
}

/// What is tried, in order, and what is not and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ways {
    /// Strongest first. The last is an overwrite, which every disk can.
    pub methods: Vec<EraseMethod>,
    /// Those that the disk does not have, or refuses as it stands.
    pub not_used: Vec<NotUsed>,
}

impl Ways {
    fn take(&mut self, method: EraseMethod, offered: bool, hindrance: Option<&str>) {
        match (offered, hindrance) {
            (true, None) => self.methods.push(method),
            (true, Some(why)) => self.not_used.push(NotUsed { method, why: why.to_owned() }),
            (false, _) => {
                self.not_used.push(NotUsed { method, why: "the drive does not have it".to_owned() })
            }
        }
    }
}

/// How to erase a disk, strongest first. A block erase stands before a crypto erase: it does not rest on how the drive made and kept
/// its key.
pub fn methods(abilities: &Abilities) -> Ways {
    let mut ways = Ways::default();
    if let Some(nvme) = &abilities.nvme {
        nvme_ways(nvme, &mut ways);
    }
    if let Some(ata) = &abilities.ata {
        ata_ways(ata, &mut ways);
    }
    if let Some(scsi) = &abilities.scsi {
        ways.take(EraseMethod::ScsiSanitizeBlock, scsi.block, None);
        ways.take(EraseMethod::ScsiSanitizeCrypto, scsi.crypto, None);
        ways.take(EraseMethod::ScsiSanitizeOverwrite, scsi.overwrite, None);
    }
    ways.take(EraseMethod::Discard, abilities.discard_zeroes, None);
    ways.take(EraseMethod::Overwrite, true, None);
    ways
}

fn nvme_ways(nvme: &nvme::Abilities, ways: &mut Ways) {
    // A sanitize is of the whole subsystem (NVM Express Base 2.0, 5.24): nothing may go that was not named.
    let shared =
        (nvme.namespaces > 1).then_some("the controller has other namespaces, and it would erase them too");
    ways.take(EraseMethod::NvmeSanitizeBlock, nvme.sanitize_block, shared);
    ways.take(EraseMethod::NvmeSanitizeCrypto, nvme.sanitize_crypto, shared);
    ways.take(EraseMethod::NvmeSanitizeOverwrite, nvme.sanitize_overwrite, shared);
    let formats_all = shared.filter(|_| nvme.format_is_for_all);
    ways.take(EraseMethod::NvmeFormatCrypto, nvme.format && nvme.format_crypto, formats_all);
    ways.take(EraseMethod::NvmeFormatErase, nvme.format, formats_all);
}

fn ata_ways(ata: &ata::Abilities, ways: &mut Ways) {
    let frozen = ata.sanitize_frozen.then_some("SANITIZE is frozen until the drive loses its power");
    ways.take(EraseMethod::AtaSanitizeBlock, ata.sanitize_block, frozen);
    ways.take(EraseMethod::AtaSanitizeCrypto, ata.sanitize_crypto, frozen);
    ways.take(EraseMethod::AtaSanitizeOverwrite, ata.sanitize_overwrite, frozen);
    let security = match ata.security {
        s if s.locked => Some("the drive is locked by a password that is not known"),
        s if s.frozen => Some("security is frozen by the firmware until the drive loses its power"),
        s if s.enabled => Some("security is on, by a password that is not known"),
        s if s.exhausted => Some("the drive takes no more passwords until it loses its power"),
        _ => None,
    };
    ways.take(EraseMethod::AtaSecurityEnhanced, ata.security.supported && ata.security.enhanced, security);
    ways.take(EraseMethod::AtaSecurityErase, ata.security.supported, security);
}

/// Why a disk is not touched, by rule.
pub fn skipped(disk: &Disk) -> Option<&'static str> {
    match disk {
        Disk { transport: Transport::Usb, .. } => Some("it is on USB"),
        Disk { removable: true, .. } => Some("it is removable"),
        Disk { read_only: true, .. } => Some("it is write protected"),
        Disk { size_bytes: 0, .. } => Some("it has no medium"),
        _ => None,
    }
}

/// What an erase of this disk withstands. A disk of a hypervisor is a file or a volume somewhere: what becomes of the medium below
/// nobody can say here.
pub fn grade(method: EraseMethod, disk: &Disk) -> Grade {
    match disk.transport {
        Transport::Virtio => method.highest_grade().min(Grade::Clear),
        _ => method.highest_grade(),
    }
}

#[cfg(test)]
mod tests;
