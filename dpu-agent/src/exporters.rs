//! Processes that serve volumes. They outlive us: each is the leader of a session of its own, and all that we know of it is
//! in files.
//!
//! ```text
//! <dir>/exporters/<volume>.json     the volume and the command line, written before the start
//!                 <volume>.lock     locked by the process for as long as it lives: it is its standard input
//!                 <volume>.log      what it says
//!                 <volume>.secret   for its eyes: what it proves itself with
//!                 <volume>.conf     for its eyes: settings of a client of Ceph
//!                 <volume>.config   for its eyes: what an instant volume tells its OS
//!                 <volume>.key      for its eyes: what its bytes are encrypted with
//!                 <volume>.fill     for its eyes: the image that it writes before it serves
//!                 <volume>.filled   it did, which image: stays for as long as anybody wants the volume
//!                 <volume>.limits   how fast it may be, which it looks at again and again
//! <socket>.counters                 what it counted
//! ```
//!
//! The lock says whether it lives, from before it runs its first instruction; a process id alone could be another's by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use dpu_agent_core::exporter::{
    Attempts, Exporters, FILLED, Held, LIMITS, Life, Record, Started, Then, counters, launch, link,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::Timestamp;
use protocol::counters::DiskCounters;
use protocol::dpu::{Desired, Exporter, InstantSeen, Name, STATE_MAX, Serves, VOLUMES_MAX, Volume};

use crate::files::{self, FileError, failed};
use crate::layers::{self, Hearing};
use crate::sys;
use crate::trust;
use crate::unix::{self, Uses};

/// Octets of a record: a volume as the state has it, and a command line of two paths and a URL of the longest kind.
const RECORD_MAX: usize = STATE_MAX + (64 << 10);
/// Octets of a file of counters.
const COUNTERS_MAX: usize = 4 << 10;
/// A log that is longer is begun anew with its process.
const LOG_MAX: u64 = 1 << 20;
/// Octets of a log's end that the last event is looked for in.
const TAIL: u64 = 8 << 10;
/// What is appended to a volume's name for its files, beside the mark that its image was written. What is half written is among them.
const FILES: [&str; 11] = [
    ".json",
    ".log",
    ".secret",
    ".conf",
    ".config",
    ".key",
    ".fill",
    ".filled.next",
    ".limits",
    ".next",
    LOCK,
];
/// Of the file that an exporter locks.
const LOCK: &str = ".lock";
/// How long a process may take to end.
const END: Duration = Duration::from_secs(5);
/// Between two looks at a process that ends.
const LOOK: Duration = Duration::from_millis(10);

/// Why an exporter was not started or ended.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// One of its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// A record of another program, or a damaged one.
    #[error("{} cannot be read: end the exporter of this volume, if one runs, and remove the file", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// More than there can be.
    #[error("{} has more than {VOLUMES_MAX} exporters", .0.display())]
    Many(PathBuf),
    /// Its lock is held.
    #[error("the exporter of volume {0} still runs")]
    Runs(Name),
    /// Another program's socket.
    #[error(
        "{0} is served by a program that was not started here: end it, or give the volume another socket"
    )]
    Taken(String),
    /// It cannot be run.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// There is no such program.
    #[error("no {0} is known that could serve volumes: start billet-dpu with --{0}")]
    NoService(&'static str),
    /// It is out of reach.
    #[error(transparent)]
    Connect(jsonrpc::ConnectError),
    /// It refused, or did not answer.
    #[error(transparent)]
    Call(jsonrpc::CallError),
    /// It does not end.
    #[error("the exporter of volume {0} does not end")]
    Ends(Name),
}

/// Serves volumes to the host. What is served is told by what is there, not by what was done.
pub trait Serve {
    /// Looks at each.
    async fn look(&mut self, now: Timestamp) -> Exporters;

    /// How often a volume was served again since this program runs.
    fn restarts(&self, name: &Name) -> u32;

    /// How far an instant volume is, or one that an image is written into, as of the last look.
    fn instant(&self, _name: &Name) -> Option<&InstantSeen> {
        None
    }

    /// Serves a volume.
    ///
    /// # Errors
    /// [`ExporterError`]; where it could not be served, it counts as dead.
    async fn start(&mut self, volume: &Volume, now: Timestamp) -> Result<(), ExporterError>;

    /// Ends what serves a volume, where it is served, and forgets it, but for what is remembered of one that is served anew.
    ///
    /// # Errors
    /// [`ExporterError`]; it is not forgotten then.
    async fn stop(&mut self, name: &Name, pid: Option<u32>, then: Then) -> Result<(), ExporterError>;

    /// Sets the limits of a volume that is served, and remembers them.
    ///
    /// # Errors
    /// [`ExporterError`]; it counts as served with its old ones then.
    async fn limit(&mut self, volume: &Volume) -> Result<(), ExporterError>;

    /// What each volume did so far, of those that can be asked.
    async fn counters(&mut self) -> Vec<(Name, DiskCounters)>;
}

/// Where the programs are that serve volumes.
#[derive(Debug, Clone, clap::Args)]
pub struct Programs {
    /// The program that serves volumes to the host.
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/billet-blk")]
    blk: PathBuf,
    /// The program behind it that reaches iSCSI, Ceph and NBD.
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/qemu-storage-daemon")]
    qsd: PathBuf,
}

impl Programs {
    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.blk, &self.qsd].into_iter().map(PathBuf::as_path)
    }
}

/// All that were started here.
#[derive(Debug)]
pub struct Processes {
    dir: PathBuf,
    /// File with the keys of those whose images are taken.
    trust: PathBuf,
    programs: Programs,
    /// So long after the last connection a volume counts as in use: QEMU comes back after a second.
    quiet: Duration,
    all: BTreeMap<Name, Process>,
    /// Marks of volumes that had no exporter when it was last looked for them.
    marks: BTreeSet<Name>,
}

#[derive(Debug)]
struct Process {
    record: Record,
    attempts: Attempts,
    /// It lived when it was last looked at.
    lived: bool,
    /// When it was last in use, or may have been.
    used: Timestamp,
    pid: Option<u32>,
    /// Where this very process of ours started it: to be waited for.
    child: Option<Child>,
    /// How far it is, where it serves an instant volume.
    hearing: Option<Hearing>,
}

impl Processes {
    /// Those that the files know of.
    ///
    /// # Errors
    /// [`ExporterError`], where a file cannot be read.
    pub fn load(
        dir: &Path,
        programs: &Programs,
        quiet: Duration,
        now: Timestamp,
    ) -> Result<Self, ExporterError> {
        let dir = dir.join("exporters");
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        // Exporters are told of their files, and begin in another directory.
        let dir = fs::canonicalize(&dir).map_err(failed("find", &dir))?;
        let trust = dir.parent().unwrap_or(&dir).join(trust::FILE);
        let (mut all, mut others) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&dir).map_err(failed("read", &dir))? {
            let path = entry.map_err(failed("read", &dir))?.path();
            if path.extension().is_none_or(|kind| kind != "json") {
                others.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
                continue;
            }
            let text = files::read(&path, RECORD_MAX)?;
            let read = serde_json::from_slice(&text);
            let record: Record = read.map_err(|cause| ExporterError::Record { path, cause })?;
            all.insert(record.volume.name.clone(), Process::of(record, &dir, now));
            if all.len() > VOLUMES_MAX {
                return Err(ExporterError::Many(dir));
            }
        }
        let mut processes =
            Self { dir, trust, programs: programs.clone(), quiet, all, marks: BTreeSet::new() };
        processes.take_up(&others)?;
        Ok(processes)
    }

    /// What a start or an end that was cut short left is removed: whoever runs has a record, which is written first and removed once it ended.
    /// A mark is not: its volume may be wanted.
    fn take_up(&mut self, files: &[String]) -> Result<(), FileError> {
        for file in files {
            let of = |kind: &str| file.strip_suffix(kind)?.parse::<Name>().ok();
            let known = |name: &Name| self.all.contains_key(name);
            if FILES.into_iter().chain([FILLED]).filter_map(of).any(|name| known(&name)) {
                continue;
            }
            if let Some(name) = of(FILLED) {
                self.marks.insert(name);
                continue;
            }
            let mut names = FILES.into_iter().filter_map(of).peekable();
            if names.peek().is_none() {
                continue;
            }
            if names.any(|name| is_locked(&lock_of(&self.dir, &name))) {
                tracing::warn!(%file, "a process without a record has this file: it stays");
                continue;
            }
            files::remove(&self.dir.join(file))?;
        }
        Ok(())
    }

    /// Forgets what was written into volumes that nobody wants and nobody serves.
    ///
    /// # Errors
    /// [`FileError`]; it is tried again the next time.
    pub fn forget(&mut self, desired: &Desired, exporters: &Exporters) -> Result<(), FileError> {
        let is_wanted = |name: &Name| desired.volumes.iter().any(|volume| volume.name == *name);
        let gone = |name: &&Name| !is_wanted(name) && !exporters.contains_key(*name);
        for name in self.marks.iter().filter(gone).cloned().collect::<Vec<_>>() {
            self.forget_mark(&name)?;
        }
        Ok(())
    }

    fn forget_mark(&mut self, name: &Name) -> Result<(), FileError> {
        files::remove(&self.mark_of(name))?;
        self.marks.remove(name);
        Ok(())
    }

    fn mark_of(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{name}{FILLED}"))
    }

    /// Writes the limits down for the process.
    fn put_limits(&self, volume: &Volume) -> Result<(), FileError> {
        let path = self.dir.join(format!("{}{LIMITS}", volume.name));
        match volume.limits {
            Some(limits) => files::replace(&path, &serde_json::to_vec(&limits).expect("limits are numbers")),
            None => files::remove(&path),
        }
    }
}

impl Processes {
    /// Why a volume is not served yet though its exporter runs, in its own words; `None` where it has not said so.
    pub fn why_not(&self, name: &Name) -> Option<String> {
        let mut log = File::open(self.dir.join(format!("{name}.log"))).ok()?;
        let end = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(end.saturating_sub(TAIL))).ok()?;
        let mut tail = Vec::new();
        log.read_to_end(&mut tail).ok()?;
        said_away(&String::from_utf8_lossy(&tail))
    }
}

/// What is fetched of an image is judged by the keys.
fn wants_image(volume: &Volume) -> bool {
    volume.fill.is_some() || matches!(&volume.exporter, Exporter::Blk { serves: Serves::Image { .. } })
}

/// The reason in the last event of `billet-blk`, where that is that the backend is away.
fn said_away(log: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Said {
        event: String,
        #[serde(default)]
        reason: String,
    }
    let last = log.lines().rev().find_map(|line| serde_json::from_str::<Said>(line).ok())?;
    (last.event == "backend-away").then_some(last.reason)
}

impl Serve for Processes {
    async fn look(&mut self, now: Timestamp) -> Exporters {
        let mut seen = Exporters::new();
        let table = fs::read_to_string(unix::TABLE).unwrap_or_default();
        let sockets = unix::sockets(&table);
        for (name, process) in &mut self.all {
            if let Some(child) = &mut process.child {
                // Whether it lives, the lock says; this takes the remains away.
                let _ = child.try_wait();
            }
            if let Some(hearing) = &mut process.hearing {
                hearing.listen();
            }
            if let Err(e) = process.forget_config(&self.dir) {
                tracing::warn!(volume = %name, error = %e, "the config stays for now");
            }
            let life = if is_locked(&lock_of(&self.dir, name)) {
                let uses = sockets.get(process.record.volume.socket.as_str()).copied();
                process.look_alive(uses.unwrap_or_default(), self.quiet, now)
            } else {
                process.look_dead(now)
            };
            seen.insert(name.clone(), Started { volume: process.record.volume.clone(), life });
        }
        seen
    }

    fn restarts(&self, name: &Name) -> u32 {
        self.all.get(name).map_or(0, |process| process.attempts.restarts())
    }

    fn instant(&self, name: &Name) -> Option<&InstantSeen> {
        Some(self.all.get(name)?.hearing.as_ref()?.seen())
    }

    async fn start(&mut self, volume: &Volume, now: Timestamp) -> Result<(), ExporterError> {
        let name = &volume.name;
        let table = fs::read_to_string(unix::TABLE).map_err(failed("read", Path::new(unix::TABLE)))?;
        if unix::sockets(&table).get(volume.socket.as_str()).is_some_and(|uses| uses.listens) {
            return Err(ExporterError::Taken(volume.socket.clone()));
        }
        let lock = locked(&lock_of(&self.dir, name))?.ok_or_else(|| ExporterError::Runs(name.clone()))?;
        let own = self.dir.join(name.as_str()).display().to_string();
        let launch = launch(volume, &own);
        let mut command = vec![self.programs.blk.display().to_string()];
        command.extend(launch.arguments);
        if wants_image(volume) {
            command.extend(["--trust".to_owned(), self.trust.display().to_string()]);
        }
        if let Some(arguments) = launch.daemon {
            command.extend(["--daemon".to_owned(), self.programs.qsd.display().to_string(), "--".to_owned()]);
            command.extend(arguments);
        }
        let record = Record { volume: volume.clone(), command };
        // Where it is there already, a disk that is full keeps nobody from coming back.
        if self.all.get(name).is_none_or(|process| process.record != record) {
            let text = serde_json::to_vec(&record).expect("a record is texts and numbers");
            for file in &launch.files {
                let path = PathBuf::from(format!("{own}{}", file.extension));
                files::replace_private(&path, file.text.as_bytes())?;
            }
            self.put_limits(volume)?;
            files::replace_private(&self.dir.join(format!("{name}.json")), &text)?;
        }
        let process =
            self.all.entry(name.clone()).or_insert_with(|| Process::of(record.clone(), &self.dir, now));
        process.record = record;
        process.attempts.handle_start(now);
        // Until it was looked at it counts as having lived, so that one that dies at once is seen to.
        (process.lived, process.used, process.pid) = (true, now, None);
        process.child = None;
        let log = self.dir.join(format!("{name}.log"));
        let child = spawn(&process.record, lock, &log)?;
        process.child = Some(child);
        Ok(())
    }

    async fn stop(&mut self, name: &Name, pid: Option<u32>, then: Then) -> Result<(), ExporterError> {
        let Some(process) = self.all.get(name) else {
            // Another service had it last.
            return if then == Then::Forgotten { Ok(self.forget_mark(name)?) } else { Ok(()) };
        };
        let lock = lock_of(&self.dir, name);
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            // Where it is gone by now, all the better.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let mut waited = Duration::ZERO;
        while is_locked(&lock) {
            if waited > END {
                return Err(ExporterError::Ends(name.clone()));
            }
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
        let volume = &process.record.volume;
        let counted = counters(volume);
        for path in [format!("{}.size", link(volume)), format!("{counted}.next"), counted] {
            files::remove(Path::new(&path))?;
        }
        for socket in [&volume.socket, &link(volume)].map(Path::new) {
            if fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket()) {
                files::remove(socket)?;
            }
        }
        // Before the record: without one nobody knows whether the mark is of a volume that is gone.
        match then {
            Then::Forgotten => self.forget_mark(name)?,
            Then::Served => drop(self.marks.insert(name.clone())),
        }
        for kind in FILES {
            files::remove(&self.dir.join(format!("{name}{kind}")))?;
        }
        if let Some(mut child) = self.all.remove(name).and_then(|process| process.child) {
            let _ = child.wait();
        }
        Ok(())
    }

    async fn limit(&mut self, volume: &Volume) -> Result<(), ExporterError> {
        let Some(process) = self.all.get(&volume.name) else { return Ok(()) };
        let record = Record { volume: volume.clone(), command: process.record.command.clone() };
        let text = serde_json::to_vec(&record).expect("a record is texts and numbers");
        self.put_limits(volume)?;
        files::replace_private(&self.dir.join(format!("{}.json", volume.name)), &text)?;
        if let Some(process) = self.all.get_mut(&volume.name) {
            process.record = record;
        }
        Ok(())
    }

    async fn counters(&mut self) -> Vec<(Name, DiskCounters)> {
        let read = |(name, process): (&Name, &Process)| {
            let path = counters(&process.record.volume);
            // One that has just begun has written none yet.
            let text = files::read(Path::new(&path), COUNTERS_MAX).ok()?;
            Some((name.clone(), serde_json::from_slice(&text).ok()?))
        };
        self.all.iter().filter_map(read).collect()
    }
}

impl Process {
    fn of(record: Record, dir: &Path, now: Timestamp) -> Self {
        let attempts = Attempts::default();
        let log = dir.join(format!("{}.log", record.volume.name));
        let hearing = match (layers::of(&record.volume), &record.volume.fill) {
            (Some(layer), _) => Some(Hearing::new(log, Path::new(layer))),
            (None, Some(fill)) => {
                let mark = dir.join(format!("{}{FILLED}", record.volume.name));
                Some(Hearing::until(log, mark, &fill.image))
            }
            (None, None) => None,
        };
        Self { record, attempts, lived: false, used: now, pid: None, child: None, hearing }
    }

    fn look_alive(&mut self, uses: Uses, quiet: Duration, now: Timestamp) -> Life {
        self.attempts.handle_found();
        self.lived = true;
        self.pid = self.pid.filter(|pid| self.is(*pid)).or_else(|| pids().find(|pid| self.is(*pid)));
        // Of one that is not seen to listen it cannot be told, and what cannot be told is as good as in use.
        let connected = uses.connected || !uses.listens;
        if connected {
            self.used = now;
        }
        let held = match uses {
            Uses { listens: false, .. } if self.fills() => Held::Filling,
            Uses { listens: false, .. } => Held::Opening,
            Uses { connected: true, .. } => Held::Connected,
            _ if now.since(self.used) < quiet => Held::Lately,
            _ => Held::Free,
        };
        Life::Runs { pid: self.pid, held }
    }

    fn look_dead(&mut self, now: Timestamp) -> Life {
        if self.lived {
            tracing::warn!(volume = %self.record.volume.name, "the exporter died");
            if self.fills() {
                self.attempts.handle_unwritten(now);
            } else {
                self.attempts.handle_death(now);
            }
        }
        (self.lived, self.pid) = (false, None);
        Life::Dead { due: self.attempts.due(now), lived: self.attempts.lived() }
    }

    fn is_adapted(&self) -> bool {
        self.hearing.as_ref().is_some_and(|hearing| hearing.seen().adapted)
    }

    /// Whether an image is written into it still.
    fn fills(&self) -> bool {
        self.record.volume.fill.is_some() && !self.is_adapted()
    }

    /// What an image tells its OS is on the volume: it holds tokens, and is never looked at again.
    fn forget_config(&mut self, dir: &Path) -> Result<(), FileError> {
        if !self.is_adapted() {
            return Ok(());
        }
        let mut record = self.record.clone();
        let (config, kind) = match (&mut record.volume.exporter, &mut record.volume.fill) {
            (Exporter::Blk { serves: Serves::Image { config, .. } }, _) => (config, "config"),
            (_, Some(fill)) => (&mut fill.config, "fill"),
            _ => return Ok(()),
        };
        if config.take().is_none() {
            return Ok(());
        }
        let name = &record.volume.name;
        files::remove(&dir.join(format!("{name}.{kind}")))?;
        let text = serde_json::to_vec(&record).expect("a record is texts and numbers");
        files::replace_private(&dir.join(format!("{name}.json")), &text)?;
        self.record = record;
        Ok(())
    }

    /// Whether this is our process: it has our very command line, the socket in it.
    fn is(&self, pid: u32) -> bool {
        let line: Vec<u8> =
            self.record.command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|have| have == line)
    }
}

fn spawn(record: &Record, lock: File, log: &Path) -> Result<Child, ExporterError> {
    let long = fs::metadata(log).is_ok_and(|log| log.len() > LOG_MAX);
    let opened = File::options().create(true).append(true).open(log);
    let said = opened.and_then(|file| if long { file.set_len(0).map(|()| file) } else { Ok(file) });
    let said = said.map_err(failed("open", log))?;
    let errors = said.try_clone().map_err(failed("open", log))?;
    if let Some(dir) = Path::new(&record.volume.socket).parent() {
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
    }
    let program = record.command.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(record.command.iter().skip(1)).stdin(lock).stdout(said).stderr(errors).current_dir("/");
    sys::own_session(&mut command);
    command.spawn().map_err(|cause| ExporterError::Spawn { program, cause })
}

fn lock_of(dir: &Path, name: &Name) -> PathBuf {
    dir.join(format!("{name}{LOCK}"))
}

/// The lock, or `None` where somebody has it.
fn locked(path: &Path) -> Result<Option<File>, FileError> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(failed("lock", path)(e)),
    }
}

/// Whether somebody has the lock. A file that is not there has none; of one that cannot be asked it is assumed.
fn is_locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    /// A directory, with a program that runs until it is ended.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("exporters-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("blk"), "#!/bin/sh\nexec sleep 600\n").unwrap();
            fs::set_permissions(dir.join("blk"), fs::Permissions::from_mode(0o755)).unwrap();
            Self(dir)
        }

        fn load(&self) -> Processes {
            let programs = Programs { blk: self.0.join("blk"), qsd: self.0.join("qsd") };
            Processes::load(&self.0, &programs, Duration::ZERO, NOW).unwrap()
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join("exporters").join(name)
        }

        fn files(&self) -> Vec<String> {
            let all = fs::read_dir(self.0.join("exporters")).unwrap();
            let mut all: Vec<_> =
                all.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect();
            all.sort();
            all
        }

        /// A volume of a file, with an image to write.
        fn volume(&self) -> Volume {
            let text = include_str!("../../protocol/src/dpu-fill.v1.json");
            let volumes: Vec<Volume> = serde_json::from_str(text).unwrap();
            let serves = Serves::File { path: self.0.join("disk").display().to_string(), read_only: false };
            Volume {
                socket: self.0.join("v.sock").display().to_string(),
                exporter: Exporter::Blk { serves },
                encryption: None,
                ..volumes[0].clone()
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn child(processes: &Processes, name: &Name) -> Option<u32> {
        processes.all[name].child.as_ref().map(Child::id)
    }

    async fn stop(processes: &mut Processes, name: &Name, then: Then) {
        let pid = child(processes, name);
        processes.stop(name, pid, then).await.unwrap();
    }

    fn state(volumes: Vec<Volume>) -> Desired {
        let text = include_str!("../../protocol/src/dpu.v1.json");
        Desired { volumes, ..serde_json::from_str(text).unwrap() }
    }

    #[tokio::test]
    async fn that_an_image_was_written_is_forgotten_with_the_volume_and_not_before() {
        let place = Place::new("mark");
        let (volume, mut processes) = (place.volume(), place.load());
        let (name, image) = (volume.name.clone(), volume.fill.as_ref().unwrap().image.to_string());
        let mark = format!("{name}{FILLED}");
        processes.start(&volume, NOW).await.unwrap();
        let seen = processes.look(NOW).await;
        assert!(matches!(seen[&name].life, Life::Runs { held: Held::Filling, .. }), "{seen:?}");
        fs::write(place.file(&mark), &image).unwrap();
        processes.look(NOW).await;
        let told = fs::read_to_string(place.file(&format!("{name}.json"))).unwrap();
        assert!(!told.contains("secretsecret") && !place.file(&format!("{name}.fill")).exists());
        // Other settings; the agent dies in between, twice.
        stop(&mut processes, &name, Then::Served).await;
        assert_eq!(place.files(), std::slice::from_ref(&mark));
        processes.forget(&state(vec![volume.clone()]), &Exporters::new()).unwrap();
        let mut processes = place.load();
        assert_eq!(place.files(), std::slice::from_ref(&mark));
        processes.forget(&state(vec![volume.clone()]), &Exporters::new()).unwrap();
        let other = Volume { deadline: Some(7), ..volume.clone() };
        processes.start(&other, NOW).await.unwrap();
        assert_eq!(fs::read_to_string(place.file(&mark)).unwrap(), image);
        processes.look(NOW).await;
        assert!(processes.instant(&name).unwrap().adapted);
        stop(&mut processes, &name, Then::Served).await;
        // Another image is not what is on it: its config is not forgotten as if it were.
        let mut another = volume.clone();
        another.fill.as_mut().unwrap().image = "ab".repeat(32).parse().unwrap();
        processes.start(&another, NOW).await.unwrap();
        processes.look(NOW).await;
        assert!(!processes.instant(&name).unwrap().adapted && place.file(&format!("{name}.fill")).exists());
        stop(&mut processes, &name, Then::Forgotten).await;
        assert!(place.files().is_empty(), "{:?}", place.files());
        // Nobody wants it any more after it was ended and before it was started.
        fs::write(place.file(&mark), &image).unwrap();
        let mut processes = place.load();
        let served = Started { volume: volume.clone(), life: Life::Dead { due: true, lived: true } };
        processes.forget(&state(Vec::new()), &Exporters::from([(name.clone(), served)])).unwrap();
        assert_eq!(place.files(), [mark], "another service has it still");
        processes.forget(&state(Vec::new()), &Exporters::new()).unwrap();
        assert!(place.files().is_empty());
    }

    #[tokio::test]
    async fn files_without_a_record_go_and_those_of_who_runs_stay() {
        let place = Place::new("orphans");
        let (volume, mut processes) = (place.volume(), place.load());
        let name = volume.name.clone();
        processes.start(&volume, NOW).await.unwrap();
        fs::write(place.file(&format!("{name}.filled.next")), "it writes it now").unwrap();
        let its = place.files();
        for kind in FILES.iter().filter(|kind| **kind != ".json") {
            fs::write(place.file(&format!("gone{kind}")), "").unwrap();
            fs::write(place.file(&format!("runs{kind}")), "").unwrap();
        }
        let runs = locked(&place.file("runs.lock")).unwrap().unwrap();
        fs::write(place.file("gone.filled"), "").unwrap();
        fs::write(place.file("readme"), "").unwrap();
        let loaded = place.load();
        let left: Vec<String> = place.files().into_iter().filter(|file| !file.starts_with("runs.")).collect();
        let mut expected = [its, vec!["gone.filled".to_owned(), "readme".to_owned()]].concat();
        expected.sort();
        assert_eq!(left, expected);
        assert_eq!(place.files().len() - left.len(), FILES.len() - 1, "a process has them");
        drop((runs, loaded));
        let pid = child(&processes, &name);
        processes.stop(&name, pid, Then::Forgotten).await.unwrap();
    }

    #[tokio::test]
    async fn who_dies_before_its_image_is_written_is_started_ever_less_often() {
        let place = Place::new("backoff");
        let (volume, mut processes) = (place.volume(), place.load());
        let name = volume.name.clone();
        processes.start(&volume, NOW).await.unwrap();
        let late = NOW.after(Duration::from_hours(1));
        let pid = child(&processes, &name).unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        while is_locked(&lock_of(&processes.dir, &name)) {
            tokio::time::sleep(LOOK).await;
        }
        let life = processes.look(late).await[&name].life;
        assert_eq!(life, Life::Dead { due: false, lived: false });
        let life = processes.look(late.after(Duration::from_secs(1))).await[&name].life;
        assert_eq!(life, Life::Dead { due: true, lived: false });
        processes.stop(&name, None, Then::Forgotten).await.unwrap();
    }

    #[test]
    fn why_a_volume_is_not_served_is_its_last_event() {
        let away = r#"{"at":1,"event":"backend-away","reason":"no key fits"}"#;
        let log = format!("qemu: no key fits\n{away}\nmore words\n");
        assert_eq!(said_away(&log).as_deref(), Some("no key fits"));
        let back = r#"{"at":2,"event":"backend-back"}"#;
        assert_eq!(said_away(&format!("{log}{back}\n")), None);
        assert_eq!(said_away("words\n"), None);
    }
}
