//! Asks a drive what it can. What it does not answer, it cannot.

use std::path::Path;
use std::time::Duration;

use protocol::inventory::{Disk, Transport};
use ramdisk_agent_core::erase::{Abilities, ata, nvme, scsi};

use super::drive::{Drive, ata as send_ata};
use crate::inspect::tree::Tree;
use crate::sys::ScsiData;

/// Longest wait for an answer.
pub const ANSWER: Duration = Duration::from_secs(30);

/// What the drive says.
pub fn abilities(drive: &dyn Drive, disk: &Disk) -> Abilities {
    let ata = matches!(disk.transport, Transport::Sata | Transport::Scsi).then(|| ask_ata(drive)).flatten();
    Abilities {
        nvme: (disk.transport == Transport::Nvme).then(|| ask_nvme(drive, &disk.name)).flatten(),
        ata,
        scsi: (disk.transport == Transport::Scsi && ata.is_none()).then(|| ask_scsi(drive)),
        discard_zeroes: discards(&disk.name),
    }
}

/// The kernel knows of both: that blocks can be given back, and that there is a command that leaves zeros.
fn discards(name: &str) -> bool {
    let tree = Tree::new(Path::new("/"));
    let limit = |leaf: &str| tree.number::<u64>(format!("sys/block/{name}/queue/{leaf}")).unwrap_or(0);
    limit("discard_max_bytes") > 0 && limit("write_zeroes_max_bytes") > 0
}

fn ask_nvme(drive: &dyn Drive, name: &str) -> Option<nvme::Abilities> {
    let ask = |command: &nvme::Command| {
        let mut answer = vec![0; nvme::IDENTIFY];
        let status = drive.nvme(command, &mut answer, ANSWER);
        matches!(status, Ok(0)).then_some(answer)
    };
    let controller = ask(&nvme::identify_controller())?;
    let namespace = ask(&nvme::identify_namespace(drive.namespace().ok()?))?;
    let list = ask(&nvme::active_namespaces()).unwrap_or_default();
    let mut found = nvme::abilities(&controller, &namespace, &list);
    found.namespaces = found.namespaces.max(siblings(name));
    Some(found)
}

/// Namespaces that the kernel has of the controller of `nvme0n1`.
fn siblings(name: &str) -> u32 {
    let controller = name.rsplit_once('n').map_or(name, |(controller, _)| controller);
    let same = |other: &&String| {
        other.strip_prefix(controller).is_some_and(|rest| {
            rest.strip_prefix('n').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    let count = Tree::new(Path::new("/")).list("sys/block").iter().filter(same).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// IDENTIFY DEVICE as it stands; a drive that our own password locks, because a cut came between, is unlocked.
fn ask_ata(drive: &dyn Drive) -> Option<ata::Abilities> {
    let mut found = identify(drive)?;
    if found.security.enabled && !found.security.frozen {
        let send = |step| {
            let (command, mut sector) = ata::security(step);
            send_ata(drive, &command, &mut sector, ANSWER).is_ok()
        };
        if (!found.security.locked || send(ata::SecurityStep::Unlock)) && send(ata::SecurityStep::Disable) {
            found = identify(drive)?;
        }
    }
    if (found.sanitize_block || found.sanitize_crypto || found.sanitize_overwrite)
        && let Ok(registers) = send_ata(drive, &ata::sanitize_status(), &mut [], ANSWER)
    {
        found.sanitize_frozen = ata::status(&registers) == ata::Status::Frozen;
    }
    Some(found)
}

fn identify(drive: &dyn Drive) -> Option<ata::Abilities> {
    let mut data = [0; ata::SECTOR];
    send_ata(drive, &ata::identify(), &mut data, ANSWER).ok()?;
    ata::abilities(&data)
}

fn ask_scsi(drive: &dyn Drive) -> scsi::Abilities {
    let has = |action| {
        let mut answer = [0; scsi::SUPPORTED];
        let asked = drive.scsi(&scsi::ask_supported(action), ScsiData::In(&mut answer), ANSWER);
        asked.is_ok_and(|asked| asked.good) && scsi::supported(&answer)
    };
    scsi::Abilities { overwrite: has(1), block: has(2), crypto: has(3) }
}
