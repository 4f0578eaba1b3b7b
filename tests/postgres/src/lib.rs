//! A real PostgreSQL for one test: made in a directory of its own, reached by a socket in it, ended and removed with the
//! test. It refuses to run as root, so there it runs as `postgres` or `nobody`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use postgres::{Client, NoTls};

/// To come up, also after a crash.
const START_MAX: Duration = Duration::from_secs(60);
/// Octets that a data directory may come to need.
const ROOM: u64 = 1 << 30;
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// The role that everything belongs to.
const ROLE: &str = "billet";

/// A server that runs.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    /// Further settings.
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts one with further settings, such as `fsync=off`; `None`, and a line that says so, where PostgreSQL is not
    /// installed.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(settings: &[&str]) -> Result<Option<Self>> {
        Self::start_below(&memory().unwrap_or_else(std::env::temp_dir), settings)
    }

    /// As [`Postgres::start`], with the data below this directory: on a disk, to measure.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_below(dir: &Path, settings: &[&str]) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(bin) = binaries() else {
            println!("skipped: PostgreSQL is not installed (`cargo xtask deps`)");
            return Ok(None);
        };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = dir.join(format!("billet-pg-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        let mut server = Self { bin, dir, settings, child: None };
        if let Some(owner) = owner()? {
            std::os::unix::fs::chown(&server.dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        fs::set_permissions(&server.dir, fs::Permissions::from_mode(0o700))?;
        // Sorted as in English, so that whoever relies on the order of octets is found out.
        let words = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"];
        let made = server
            .command("initdb")?
            .args(words)
            .args([
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--no-sync",
                "--no-instructions",
                "--username",
                ROLE,
                "--pgdata",
            ])
            .arg(server.data())
            .output()
            .context("running initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run()?;
        Ok(Some(server))
    }

    /// Its directory; the data is below.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A further setting; it holds from the next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Writes a file that it alone may read, and returns its path.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some(owner) = owner()? {
            std::os::unix::fs::chown(&path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        Ok(path)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        let host = self.dir.to_string_lossy().replace('/', "%2F");
        let port = self.settings.iter().find_map(|s| s.strip_prefix("port=")).unwrap_or("5432");
        format!("postgresql://{ROLE}@{host}:{port}/{database}")
    }

    /// Runs statements from outside.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn run_sql(&self, database: &str, sql: &str) -> Result<()> {
        let (url, sql) = (self.url(database), sql.to_owned());
        // In a thread of its own: the driver must not wait in an asynchronous task.
        let thread = std::thread::spawn(move || Client::connect(&url, NoTls)?.batch_execute(&sql));
        Ok(thread.join().map_err(|_| anyhow!("the driver panicked"))??)
    }

    /// Makes an empty database and returns its address.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn make(&self, database: &str) -> Result<String> {
        self.run_sql("postgres", &format!("CREATE DATABASE \"{database}\""))?;
        Ok(self.url(database))
    }

    /// Starts it, where it does not run.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn run(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let log = fs::File::options().append(true).create(true).open(self.dir.join("log"))?;
            let mut command = self.command("postgres")?;
            command.arg("-D").arg(self.data()).arg("-k").arg(&self.dir);
            for setting in
                ["listen_addresses=", "max_connections=300", "shared_buffers=32MB", "max_wal_size=128MB"]
            {
                command.args(["-c", setting]);
            }
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
            self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
            while self.runs()? {
                if self.run_sql("postgres", "").is_ok() {
                    return Ok(());
                }
                ensure!(begun.elapsed() < START_MAX, "PostgreSQL does not come up: {}", self.log());
                std::thread::sleep(POLL);
            }
            // Where it was killed, what it left must end first; until then it refuses to start.
            ensure!(begun.elapsed() < START_MAX, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        })
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// Where it did not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("PostgreSQL does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What it said last.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(&self.dir).env("LC_ALL", "C.UTF-8").env_remove("PGDATA");
        if let Some(owner) = owner()? {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // At once: nothing of it is needed any more.
            let pid = Pid::from_raw(child.id().cast_signed());
            let _ = kill(pid, Signal::SIGQUIT);
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A directory in memory with room for it: hundreds of databases of some hundred files each are made and removed.
fn memory() -> Option<PathBuf> {
    let dir = PathBuf::from("/dev/shm");
    let room = nix::sys::statvfs::statvfs(&dir).ok()?;
    (room.blocks_available() * room.fragment_size() >= ROOM).then_some(dir)
}

/// Who it runs as, where we are root.
fn owner() -> Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

/// Where Debian puts the programs: the newest release.
fn binaries() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let dir = entry.ok()?.path();
            let bin = dir.join("bin");
            bin.join("initdb").exists().then_some((dir.file_name()?.to_str()?.parse().ok()?, bin))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}
