//! The Billet server of a rack: `billet serve` inside the namespace, with its state in the rack's directory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests_postgres::Postgres;

use super::api::Api;
use super::forward::Forward;
use super::namespace::Namespace;
use super::process::Process;
use super::{BRIDGE, artifact, target};

/// Port of the operators' listener, on the loopback inside the namespace.
pub const OPERATORS_PORT: u16 = 8090;
/// Time for the server to be there: it opens its store and its listeners.
const START: Duration = Duration::from_secs(30);
/// Time for a clean stop.
const STOP: Duration = Duration::from_secs(20);

/// Set to `postgres`, every server that a suite starts keeps its data in a PostgreSQL of its own.
const STORE: &str = "BILLET_TEST_STORE";

/// A server that belongs to a rack.
#[derive(Debug)]
pub struct Server {
    process: Option<Process>,
    /// Ends with it, and not before.
    database: Option<Postgres>,
    operators: Forward,
    namespace_name: String,
    dir: PathBuf,
    /// What breaks on purpose from the next start on.
    failpoints: String,
}

impl Server {
    /// Starts it with [`Server::default_config`].
    ///
    /// # Errors
    /// Where the program or the ramdisk was not built, or it does not come up.
    pub fn start(namespace: &Namespace, dir: &Path) -> Result<Self> {
        let boot = artifact("ramdisk/initramfs.zst")?;
        let boot = boot.parent().context("a ramdisk in no directory")?;
        Self::start_with(namespace, dir, &Self::default_config(dir, boot))
    }

    /// Starts it with this configuration (TOML).
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(namespace: &Namespace, dir: &Path, config: &str) -> Result<Self> {
        let database = match std::env::var(STORE).as_deref() {
            Ok("postgres") => Some(Postgres::start(&[])?.context("PostgreSQL is not installed")?),
            _ => None,
        };
        Self::start_on(namespace, dir, config, database)
    }

    /// As [`Server::start_with`], with its data in this PostgreSQL.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_on(
        namespace: &Namespace,
        dir: &Path,
        config: &str,
        database: Option<Postgres>,
    ) -> Result<Self> {
        let store = match &database {
            // Its socket is a file, which is seen from every namespace.
            Some(database) => format!("\n[store]\nurl = {:?}\n", database.make("billet")?),
            None => String::new(),
        };
        fs::write(dir.join("billet.toml"), format!("{config}{store}"))?;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, OPERATORS_PORT));
        let operators = Forward::start(namespace.clone_handle()?, target)?;
        let mut server = Self {
            process: None,
            database,
            operators,
            namespace_name: namespace.name().to_owned(),
            dir: dir.to_owned(),
            failpoints: String::new(),
        };
        server.start_again()?;
        Ok(server)
    }

    /// The configuration that a rack's server has unless told otherwise.
    pub fn default_config(dir: &Path, boot: &Path) -> String {
        let state = dir.join("state");
        format!(
            "state_dir = {state:?}\n\n[provisioning]\ninterface = \"{BRIDGE}\"\n\n[boot]\ndirectory = {boot:?}\n\n\
             [operators]\nlisten = \"127.0.0.1:{OPERATORS_PORT}\"\n\n[log]\nlevel = \"info,boot_server=debug\"\n"
        )
    }

    /// From the next start on these failpoints are set (crate `failpoint`); none where it is empty.
    pub fn set_failpoints(&mut self, failpoints: &str) {
        failpoints.clone_into(&mut self.failpoints);
    }

    /// True while its process runs.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    /// Its process is gone, by itself: it may be started again.
    pub fn forget(&mut self) {
        self.process = None;
    }

    /// Its PostgreSQL, where it has one.
    pub fn database(&mut self) -> Option<&mut Postgres> {
        self.database.as_mut()
    }

    /// Starts it after a stop or a kill, on the same state.
    ///
    /// # Errors
    /// Where it runs already, or does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the server runs already");
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace_name]).arg(binary()?);
        command.args(["serve", "--config"]).arg(self.dir.join("billet.toml"));
        command.env(failpoint::VARIABLE, &self.failpoints);
        let mut process = Process::start("billet", command, &self.log())?;
        let end = Instant::now() + START;
        while !self.ready() {
            if !process.running() {
                bail!("the server ended at its start:\n{}", self.log_tail());
            }
            if Instant::now() > end {
                bail!("the server is not ready after {START:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops it cleanly (SIGTERM).
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the server does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(STOP)
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the server does not run")?.kill()
    }

    /// Base URL of UI and API on the host's loopback; stays the same over restarts.
    pub fn url(&self) -> String {
        self.operators.url()
    }

    /// `billet` as its operator, still without a verb.
    ///
    /// # Errors
    /// Where it was not built.
    pub fn command_line(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(["--server", &self.url(), "--token-file"]).arg(self.state_dir().join("operator.token"));
        Ok(command)
    }

    /// The operator's token.
    ///
    /// # Errors
    /// Where the server wrote none.
    pub fn token(&self) -> Result<String> {
        let path = self.state_dir().join("operator.token");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// A client of its API.
    ///
    /// # Errors
    /// Where there is no token.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.url(), self.token()?))
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("billet.log")
    }

    /// The running process.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server does not run")
    }

    /// True when it answers operators by HTTP and its token is there.
    fn ready(&self) -> bool {
        self.token().is_ok() && answers(self.operators.address())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// The forwarder accepts before it knows whether anybody listens inside, so only an answer counts.
fn answers(address: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/")
    };
    ask().unwrap_or(false)
}

/// The server program: `BILLET_BIN`, or what `cargo build --release` made.
///
/// # Errors
/// Where it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BILLET_BIN") {
        return Ok(path.into());
    }
    let path = target().join("release/billet");
    ensure!(path.exists(), "{} is missing: run `cargo xtask build`", path.display());
    Ok(path)
}
