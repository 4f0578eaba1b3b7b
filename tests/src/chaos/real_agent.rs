//! The real agent writes a file as if it were a disk, over a link that breaks, and dies on the way; whatever it leaves does not boot
//! or is complete, and done again it is complete.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failpoint::Point;

use super::{History, Ledger};
use crate::fleet::rng::Rng;
use crate::powercut::{Complete, Disk, Judge, Verdict};
use crate::rack::{Process, binary};

const MIB: u64 = 1 << 20;
/// Octets of the file.
const DISK: u64 = 16 * MIB;
/// A whole write takes no longer, on a busy host and over a link that is cut now and then.
const WRITE: Duration = Duration::from_secs(60);

/// An agent and its disk.
#[derive(Debug, Clone)]
pub struct RealAgent {
    program: PathBuf,
    dir: PathBuf,
    manifest: String,
    server: String,
    complete: Vec<u8>,
}

/// An image of 12 MiB with a sound table, made by `sgdisk`.
///
/// # Errors
/// Where it cannot be made.
pub fn image(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("real.raw");
    let file = File::create(&path)?;
    file.set_len(12 * MIB)?;
    let mut rng = Rng::new(12);
    for at in (2..11).filter(|mib| mib % 3 != 1) {
        let bytes: Vec<u8> = (0..MIB / 16).flat_map(|_| rng.next().to_le_bytes()).collect();
        file.write_all_at(&bytes, at * MIB)?;
    }
    let made = Command::new("sgdisk")
        .args(["-n1:1M:+9M", "-t1:8300"])
        .arg(&path)
        .stdout(Stdio::null())
        .status()
        .context("running sgdisk")?;
    ensure!(made.success(), "sgdisk made no table");
    Ok(path)
}

impl RealAgent {
    /// One whose disk is in `dir`; `image` is the id of the image at the server `url`. Writes it once, undisturbed.
    ///
    /// # Errors
    /// Where the agent was not built, or cannot write.
    pub fn new(dir: &Path, url: &str, image: &str) -> Result<Self> {
        let program = binary()?.with_file_name("billet-agent");
        ensure!(program.exists(), "{} is missing: build the workspace", program.display());
        let mut agent = Self {
            program,
            dir: dir.to_owned(),
            manifest: format!("{url}/images/{image}/manifest"),
            server: url.to_owned(),
            complete: Vec::new(),
        };
        File::create(agent.disk())?.set_len(DISK)?;
        ensure!(agent.start("")?.wait(WRITE)?.success(), "the agent cannot write:\n{}", agent.log());
        agent.complete = fs::read(agent.disk())?;
        let verdict = agent.judge()?;
        ensure!(verdict == Verdict::Complete("new"), "an undisturbed write leaves {verdict:?}");
        Ok(agent)
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("agent.disk")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// One round: the disk is blank, or has an older OS of which some chunks are other; the agent writes, dies, and writes again.
    ///
    /// # Errors
    /// Where a file cannot be handled.
    pub fn round(&self, mut rng: Rng, ledger: &Ledger, history: &History) -> Result<()> {
        self.prepare(&mut rng)?;
        let points: Vec<_> = Point::ALL.iter().filter(|p| p.name().starts_with("agent.")).collect();
        let point = points[rng.below(points.len() as u64) as usize].name();
        let how = match rng.below(4) {
            0 => String::new(),
            1 => format!("{point}=eio@1"),
            _ => format!("{point}=kill@{}", 1 + rng.below(3)),
        };
        history.say(&format!("agent starts, failpoints `{how}`"));
        let mut process = self.start(&how)?;
        if how.is_empty() && rng.chance(0.7) {
            std::thread::sleep(rng.time(Duration::from_millis(600)));
            process.kill()?;
        } else if process.wait(WRITE).is_err() {
            ledger.wrong(format!("the agent with `{how}` does not end"));
            process.kill()?;
        }
        let verdict = self.judge()?;
        history.say(&format!("agent ended; its disk: {verdict:?}"));
        if let Verdict::Incomplete(why) = &verdict {
            ledger.wrong(format!("a disk boots that is not whole, after `{how}`: {why}"));
        }
        ledger.wrote(false);
        Ok(())
    }

    /// After all faults are healed it writes the whole.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn finish(&self, ledger: &Ledger) -> Result<()> {
        let begun = Instant::now();
        let ended = self.start("")?.wait(WRITE);
        if !ended.is_ok_and(|status| status.success()) {
            ledger.wrong(format!("the agent does not write after {:?}:\n{}", begun.elapsed(), self.log()));
            return Ok(());
        }
        match self.judge()? {
            Verdict::Complete(_) => ledger.wrote(true),
            other => ledger.wrong(format!("the agent says that it is done, and the disk is {other:?}")),
        }
        Ok(())
    }

    fn prepare(&self, rng: &mut Rng) -> Result<()> {
        if rng.chance(0.5) {
            File::create(self.disk())?.set_len(DISK)?;
            return Ok(());
        }
        fs::write(self.disk(), &self.complete)?;
        if rng.chance(0.7) {
            // Another OS: it does not count as a complete one, so it must not look like one.
            let file = File::options().write(true).open(self.disk())?;
            file.write_all_at(&[0; 512], 0)?;
            file.write_all_at(&[0; MIB as usize], DISK - MIB)?;
            file.write_all_at(&[0; 512], 512)?;
            file.write_all_at(&rng.next().to_le_bytes(), (2 + rng.below(8)) * MIB)?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<Verdict> {
        let judge = Judge::new(vec![Complete { name: "new", bytes: self.complete.clone() }]);
        Ok(judge.judge(&Disk::read(&self.disk())?))
    }

    fn start(&self, failpoints: &str) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(["write", "--server", &self.server, "--image", &self.manifest, "--target"]);
        command.arg(self.disk()).arg("--yes-erase").arg(self.disk());
        command.arg("--trust").arg(self.dir.join("state/trust/trust.json"));
        command.env(failpoint::VARIABLE, failpoints);
        Process::start("billet-agent", command, &self.dir.join("agent.log"))
    }
}
