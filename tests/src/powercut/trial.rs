//! A whole deploy, and a rebuild over its OS, by the real agent in a virtual machine whose disk is logged; then all states, and a
//! look at some of them by real firmware.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Complete, Depth, Disk, Entry, Judge, Log, Report, SECTOR, Sample, Verdict, search};
use crate::rack::{self, Api, Firmware, Machine, MachineSpec, Rack, artifact};
use crate::scenario::{
    DEPLOY, DISCOVERY, add_image, deploy, rebuild, wait_discovered, wait_stage, wait_state,
};

/// Octets of the disk: room for the small image and its config partition, and no more, since all of it is in memory several times.
const DISK: u64 = 96 << 20;
const MIB: usize = 1 << 20;
/// Its serial number.
const SERIAL: &str = "CUT1";
/// From power-on to an OS, or to a firmware that says that there is none.
const BOOT: Duration = Duration::from_secs(150);
/// What firmware says that finds nothing to start: SeaBIOS, and OVMF before its shell or menu.
const NOTHING: [&str; 4] =
    ["No bootable device", "No bootable option", "UEFI Interactive Shell", "not a bootable disk"];
/// What the OS says.
const READY: &str = "TINY-OS READY";

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// How many states are looked at.
    pub depth: Depth,
    /// Also a rebuild over the OS that the deploy left.
    pub rebuild: bool,
    /// Look at samples by both firmwares; else at two by one.
    pub firmwares: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Both writes.
    pub report: Report,
    /// Lines about the parts, to be shown.
    pub parts: Vec<String>,
    /// States that a real firmware looked at.
    pub booted: usize,
}

/// Where a write begins, and what it left.
struct Written {
    base: Disk,
    log: Log,
    complete: Vec<Complete>,
}

impl Trial {
    /// Runs it in a rack of this name.
    ///
    /// # Errors
    /// Where something is missing, a deploy fails, the judge does not find an order that is wrong on purpose, or a firmware
    /// contradicts it.
    pub fn run(&self, name: &str) -> Result<Outcome> {
        let mut rack = Rack::new(name)?;
        rack.start_server()?;
        let api = rack.api()?;
        for variant in ["a", "b"] {
            let file = artifact(&format!("images/tiny-{variant}.raw"))?;
            add_image(&api, &file, &format!("tiny-{variant}"), "1")?;
        }
        let spec = MachineSpec::new("m1", Firmware::Bios).disk(rack::Disk::virtio(SERIAL, DISK).logged());
        let mut machine = rack.machine(spec)?;
        let mut outcome = Outcome::default();

        machine.power_on()?;
        let node = wait_discovered(&api, &machine, "available", DISCOVERY)?;
        deploy(&api, &node, "tiny-a", SERIAL)?;
        let first = written(&api, &mut machine, &node, Disk::blank(DISK as usize), false)?;
        is_image(&first, "a")?;
        let mut samples = self.look(&first, "deploy", &mut outcome)?;
        found_when_wrong(&first)?;

        if self.rebuild {
            machine.power_on()?;
            wait_state(&api, &node, "active", DEPLOY)?;
            machine.power_off()?;
            let base = Disk::read(&machine.disk_path(0))?;
            rebuild(&api, &node, "tiny-b", SERIAL)?;
            machine.power_on()?;
            let second = written(&api, &mut machine, &node, base, true)?;
            is_image(&second, "b")?;
            samples.extend(self.look(&second, "rebuild", &mut outcome)?);
        }
        drop(machine);
        self.boot(&mut rack, &samples, &mut outcome)?;
        rack.passed();
        Ok(outcome)
    }

    /// Judges all states of one write, and keeps some for firmware.
    fn look(&self, written: &Written, what: &str, outcome: &mut Outcome) -> Result<Vec<Sample>> {
        let judge = Judge::new(written.complete.clone());
        let mut samples: Vec<Sample> = Vec::new();
        let mut keep = |name: &str, verdict: &Verdict, disk: &Disk| {
            let is_new = match verdict {
                Verdict::Dark => {
                    // Torn, with an OS's bytes on it already, and one of the first half.
                    let full = disk.bytes()[MIB..].iter().any(|b| *b != 0);
                    full && samples.iter().filter(|s| s.verdict == Verdict::Dark).count() < 1
                }
                other => !samples.iter().any(|s| s.verdict == *other),
            };
            if is_new && !matches!(verdict, Verdict::Incomplete(_)) {
                let name = format!("{what}, {name}");
                samples.push(Sample { name, verdict: verdict.clone(), bytes: disk.bytes().to_vec() });
            }
        };
        let mut disk = written.base.clone();
        let report = search(&mut disk, &written.log, &judge, self.depth, &mut keep);
        ensure!(report.flushed >= 6, "{what}: only {} flushes were logged", report.flushed);
        ensure!(report.dark > 0 && report.complete > 0, "{what}: nothing to judge: {report}");
        let writes = written.log.0.len() - written.log.flushes();
        outcome.parts.push(format!("{what}: {writes} writes, {} flushes: {report}", written.log.flushes()));
        outcome.report.add(&report);
        Ok(samples)
    }

    /// A firmware looks at samples: it agrees with the judge.
    fn boot(&self, rack: &mut Rack, samples: &[Sample], outcome: &mut Outcome) -> Result<()> {
        let firmwares: &[Firmware] =
            if self.firmwares { &[Firmware::Bios, Firmware::Uefi] } else { &[Firmware::Uefi] };
        for (number, sample) in samples.iter().enumerate() {
            for firmware in firmwares {
                let name = format!("sample{number}-{firmware:?}").to_lowercase();
                let expected = matches!(sample.verdict, Verdict::Complete(_));
                let started = boots(rack, &name, *firmware, &sample.bytes)
                    .with_context(|| format!("{firmware:?} with {}", sample.name))?;
                ensure!(
                    started == expected,
                    "{firmware:?} started an OS: {started}, of the state {:?}, which is {}",
                    sample.verdict,
                    sample.name
                );
                outcome.parts.push(format!("{firmware:?} agrees: {:?} is {}", sample.verdict, sample.name));
                outcome.booted += 1;
            }
        }
        Ok(())
    }
}

/// Waits until the disk is written, cuts the power before the OS starts, and reads the log.
fn written(api: &Api, machine: &mut Machine, node: &str, base: Disk, over: bool) -> Result<Written> {
    wait_stage(api, node, "restart", DEPLOY)
        .or_else(|_| wait_stage(api, node, "first_boot", Duration::from_secs(1)))?;
    machine.power_off()?;
    let mut base = base;
    let old = over.then(|| base.bytes().to_vec());
    let log = Log::read(&machine.disk_log_path(0))?;
    // The write begins with zeros over the first sector.
    let is_wipe = |offset: u64, data: &[u8]| offset == 0 && data.iter().all(|b| *b == 0);
    let log = log.since(is_wipe, &mut base);
    if let Some(old) = &old {
        ensure!(base.bytes() == old, "somebody wrote to the old OS before the agent did");
    }
    let new = fs::read(machine.disk_path(0))?;
    let mut complete = vec![Complete { name: "new", bytes: new.clone() }];
    complete.extend(old.map(|bytes| Complete { name: "old", bytes }));
    let mut end = base.clone();
    for entry in &log.0 {
        if let Entry::Write { offset, data } = entry {
            end.write(*offset, data);
        }
    }
    ensure!(end.bytes() == new, "the log does not lead to what is on the disk");
    Ok(Written { base, log, complete })
}

/// What is on the disk between the image's ends is the image's.
fn is_image(written: &Written, variant: &str) -> Result<()> {
    let image = fs::read(artifact(&format!("images/tiny-{variant}.raw"))?)?;
    let disk = &written.complete[0].bytes;
    let body = MIB..image.len() - MIB;
    ensure!(disk[body.clone()] == image[body], "tiny-{variant} is not on the disk");
    Ok(())
}

/// A judge that finds nothing says nothing: the same writes with the first MiB first are found.
fn found_when_wrong(written: &Written) -> Result<()> {
    let mut wrong = written.log.clone();
    let is_head = |entry: &Entry| matches!(entry, Entry::Write { offset, data } if *offset < MIB as u64 && data.iter().any(|b| *b != 0));
    let (mut head, rest): (Vec<_>, Vec<_>) = wrong.0.drain(..).partition(is_head);
    ensure!(!head.is_empty(), "the log holds no write to the first MiB");
    head.push(Entry::Flush);
    // After what wipes it.
    let wiped =
        rest.iter().position(|entry| matches!(entry, Entry::Write { offset, .. } if *offset >= MIB as u64));
    let (before, after) = rest.split_at(wiped.unwrap_or(0));
    wrong.0 = [before, head.as_slice(), after].concat();
    let judge = Judge::new(written.complete.clone());
    let mut disk = written.base.clone();
    let report = search(&mut disk, &wrong, &judge, Depth::short(1), &mut |_, _, _| ());
    ensure!(report.incomplete > 0, "a first MiB that is written first is not found: {report}");
    Ok(())
}

/// Switches a machine on that has this disk and no network: true where the OS comes up, false where firmware finds none.
fn boots(rack: &mut Rack, name: &str, firmware: Firmware, bytes: &[u8]) -> Result<bool> {
    let disk = rack::Disk::virtio(SERIAL, bytes.len() as u64);
    let spec = MachineSpec::new(name, firmware).nics(Vec::new()).disk(disk).disk_first();
    let mut machine = rack.machine(spec)?;
    for (number, sector) in bytes.chunks(MIB).enumerate().filter(|(_, part)| part.iter().any(|b| *b != 0)) {
        machine.write_disk(0, (number * MIB) as u64, sector)?;
    }
    machine.power_on()?;
    let mut texts = vec![READY];
    texts.extend(NOTHING);
    let (which, _) = machine.serial().wait_for_any(&texts, BOOT)?;
    machine.power_off()?;
    Ok(which == 0)
}

const _: () = assert!(MIB.is_multiple_of(SECTOR));
