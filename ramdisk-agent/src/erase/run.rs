//! Carries one method out, from its command to its end.

use std::io;
use std::time::{Duration, Instant};

use protocol::erase::EraseMethod;
use protocol::fault::Fault;
use ramdisk_agent_core::erase::sample::Plan;
use ramdisk_agent_core::erase::{Abilities, ata, nvme, scsi};

use super::ask::ANSWER;
use super::drive::{Drive, ata as send_ata};
use crate::device::DeviceError;
use crate::feed::Feed;
use crate::sys::{Buffer, ScsiData};

/// How often a drive is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// How long a drive may answer nothing that makes sense before it is given up: some reset themselves when they begin.
const SILENCE_MAX: Duration = Duration::from_mins(10);
/// Longest a drive may take; the largest disks need days to be overwritten.
const LONGEST: Duration = Duration::from_hours(14 * 24);
/// Longest a format may take, which answers when it is done.
const FORMAT_MAX: Duration = Duration::from_hours(12);
/// Bytes written at once.
const PIECE: usize = 4 << 20;
/// Bytes given back at once: an abort is noticed between two.
const GIVE_BACK: u64 = 1 << 30;

/// Why a method did not come to its end.
#[derive(Debug)]
pub enum Ended {
    /// The drive refused or failed it: the next one is tried.
    Refused(String),
    /// The job ends.
    Fault(Fault),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<DeviceError> for Ended {
    fn from(error: DeviceError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Erases by this method.
///
/// # Errors
/// [`Ended`].
pub fn run(
    drive: &dyn Drive,
    method: EraseMethod,
    abilities: &Abilities,
    plan: &Plan,
    feed: &Feed,
) -> Result<(), Ended> {
    match method {
        EraseMethod::Discard => discard(drive, feed),
        EraseMethod::Overwrite => overwrite(drive, plan, feed),
        EraseMethod::AtaSecurityErase | EraseMethod::AtaSecurityEnhanced => {
            security(drive, method, abilities.ata.as_ref())
        }
        EraseMethod::AtaSanitizeBlock
        | EraseMethod::AtaSanitizeCrypto
        | EraseMethod::AtaSanitizeOverwrite => ata_sanitize(drive, method, feed),
        EraseMethod::ScsiSanitizeBlock
        | EraseMethod::ScsiSanitizeCrypto
        | EraseMethod::ScsiSanitizeOverwrite => scsi_sanitize(drive, method, feed),
        _ => by_nvme(drive, method, abilities.nvme.as_ref(), feed),
    }
}

fn discard(drive: &dyn Drive, feed: &Feed) -> Result<(), Ended> {
    let mut at = 0;
    while at < drive.size() {
        feed.check_abort()?;
        let end = drive.size().min(at + GIVE_BACK);
        drive.give_back(&(at..end))?;
        at = end;
    }
    Ok(drive.flush()?)
}

fn overwrite(drive: &dyn Drive, plan: &Plan, feed: &Feed) -> Result<(), Ended> {
    let mut piece = Buffer::new(PIECE);
    feed.more(drive.size());
    let mut at = 0;
    while at < drive.size() {
        feed.check_abort()?;
        let len = usize::try_from((drive.size() - at).min(PIECE as u64)).unwrap_or(PIECE);
        plan.pattern(at, &mut piece[..len]);
        drive.write_at(at, &piece[..len])?;
        feed.did(0, len as u64);
        at += len as u64;
    }
    Ok(drive.flush()?)
}

fn by_nvme(
    drive: &dyn Drive,
    method: EraseMethod,
    abilities: Option<&nvme::Abilities>,
    feed: &Feed,
) -> Result<(), Ended> {
    let unknown = || Ended::Refused("this build does not know how".to_owned());
    let abilities = abilities.ok_or_else(unknown)?;
    let command = nvme::command(method, drive.namespace()?, abilities).ok_or_else(unknown)?;
    let goes_on = nvme::goes_on(method);
    if goes_on {
        // One that a cut interrupted goes on by itself, and a second one is refused until it has ended.
        if let Ok(nvme::Status::Running(_)) = nvme_status(drive) {
            wait_for(feed, || nvme_status(drive).map(|status| !matches!(status, nvme::Status::Running(_))))?;
        }
    }
    match drive.nvme(&command, &mut [], if goes_on { ANSWER } else { FORMAT_MAX })? {
        0 => {}
        status => return Err(Ended::Refused(format!("the drive answers status {status:#06x}"))),
    }
    if !goes_on {
        return Ok(());
    }
    let mut last = nvme::Status::Never;
    wait_for(feed, || {
        last = nvme_status(drive)?;
        Ok(!matches!(last, nvme::Status::Running(_)))
    })?;
    match last {
        nvme::Status::Done => Ok(()),
        _ => Err(Ended::Refused("the drive says that its sanitize failed".to_owned())),
    }
}

fn nvme_status(drive: &dyn Drive) -> io::Result<nvme::Status> {
    let mut log = [0; nvme::SANITIZE_LOG];
    match drive.nvme(&nvme::sanitize_status(), &mut log, ANSWER)? {
        0 => Ok(nvme::status(&log)),
        status => Err(io::Error::other(format!("the drive does not give its sanitize log: {status:#06x}"))),
    }
}

fn ata_sanitize(drive: &dyn Drive, method: EraseMethod, feed: &Feed) -> Result<(), Ended> {
    let Some(command) = ata::sanitize(method) else {
        return Err(Ended::Refused("this build does not know how".to_owned()));
    };
    let look = || send_ata(drive, &ata::sanitize_status(), &mut [], ANSWER).map(|r| ata::status(&r));
    if let Ok(ata::Status::Running(_)) = look() {
        wait_for(feed, || look().map(|status| !matches!(status, ata::Status::Running(_))))?;
    }
    send_ata(drive, &command, &mut [], ANSWER)?;
    let mut last = ata::Status::Idle(false);
    wait_for(feed, || {
        last = look()?;
        Ok(!matches!(last, ata::Status::Running(_)))
    })?;
    match last {
        ata::Status::Idle(true) => Ok(()),
        _ => Err(Ended::Refused("the drive says that its sanitize failed".to_owned())),
    }
}

fn scsi_sanitize(drive: &dyn Drive, method: EraseMethod, feed: &Feed) -> Result<(), Ended> {
    let Some(action) = scsi::service_action(method) else {
        return Err(Ended::Refused("this build does not know how".to_owned()));
    };
    let (command, mut parameters) = scsi::sanitize(action);
    let data = if parameters.is_empty() { ScsiData::None } else { ScsiData::Out(&mut parameters) };
    let answer = drive.scsi(&command, data, ANSWER)?;
    if !answer.good {
        let sense = scsi::sense(&answer.sense);
        return Err(Ended::Refused(format!("the drive refuses it (sense {sense:x?})")));
    }
    let mut last = scsi::Status::Running;
    wait_for(feed, || {
        let asked = drive.scsi(&scsi::TEST_UNIT_READY, ScsiData::None, ANSWER)?;
        last = scsi::status(scsi::sense(&asked.sense));
        match last {
            scsi::Status::Running => Ok(false),
            scsi::Status::Done | scsi::Status::Failed => Ok(true),
            scsi::Status::Other(..) => Err(io::Error::other(format!("the drive says {last:x?}"))),
        }
    })?;
    match last {
        scsi::Status::Done => Ok(()),
        _ => Err(Ended::Refused("the drive says that its sanitize failed".to_owned())),
    }
}

/// Password, then PREPARE and ERASE UNIT, which takes the password away when it is done (ACS-4, 7.42).
fn security(drive: &dyn Drive, method: EraseMethod, abilities: Option<&ata::Abilities>) -> Result<(), Ended> {
    let enhanced = method == EraseMethod::AtaSecurityEnhanced;
    let minutes = abilities.map_or(0, |a| if enhanced { a.enhanced_minutes } else { a.erase_minutes });
    // 508 minutes, the highest of the old form, says "longer"; nothing said is taken for that.
    let longest = match minutes {
        0 | 508.. => Duration::from_hours(48),
        minutes => Duration::from_mins(u64::from(minutes) * 2 + 60),
    };
    let send = |step, longest| {
        let (command, mut sector) = ata::security(step);
        send_ata(drive, &command, &mut sector, longest).map(drop)
    };
    send(ata::SecurityStep::SetPassword, ANSWER)?;
    let erased = send(ata::SecurityStep::Prepare, ANSWER)
        .and_then(|()| send(ata::SecurityStep::Erase(enhanced), longest));
    if let Err(error) = erased {
        // Else nobody could use the drive after its next start. What comes of it shows when it is written.
        let _ = send(ata::SecurityStep::Disable, ANSWER);
        return Err(error.into());
    }
    Ok(())
}

/// Waits until `over` says so. Errors are waited out for a while.
fn wait_for(feed: &Feed, mut over: impl FnMut() -> io::Result<bool>) -> Result<(), Ended> {
    let (begun, mut answered) = (Instant::now(), Instant::now());
    loop {
        match over() {
            Ok(true) => return Ok(()),
            Ok(false) => answered = Instant::now(),
            Err(error) if answered.elapsed() > SILENCE_MAX => return Err(error.into()),
            Err(_) => {}
        }
        if begun.elapsed() > LONGEST {
            return Err(Ended::Refused("it takes longer than a drive may".to_owned()));
        }
        feed.sleep(LOOK)?;
    }
}
