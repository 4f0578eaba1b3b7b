//! The Redfish emulator of OpenStack's sushy-tools, an implementation that is not ours (Python package index): its
//! environment, its files, and the program run.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::rack::{Process, target};

/// The emulator's account.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "rackpass";
/// The packages, pinned.
const PACKAGES: [&str; 3] = ["sushy-tools==2.2.0", "sushy==5.14.0", "bcrypt"];
/// Time for it to listen.
const START: Duration = Duration::from_secs(60);

/// The virtual environment, made once; `None` where it cannot be (no python3-venv, no package index). It sees the
/// system's packages too, for libvirt's bindings.
///
/// # Errors
/// Where the target directory cannot be written.
pub fn environment() -> Result<Option<PathBuf>> {
    let directory = target().join("sushy-venv");
    let marker = directory.join("ready-2.2.0-5.14.0-system");
    fs::create_dir_all(target())?;
    let lock = File::create(target().join(".sushy-venv.lock"))?;
    lock.lock().context("waiting for another test that makes the same environment")?;
    if marker.exists() {
        return Ok(Some(directory));
    }
    // The system's own Python: another one does not know the system's packages.
    let made = Command::new("/usr/bin/python3")
        .args(["-m", "venv", "--clear", "--system-site-packages"])
        .arg(&directory)
        .status();
    if !made.is_ok_and(|s| s.success()) {
        return Ok(None);
    }
    let pip = Command::new(directory.join("bin/pip")).args(["install", "--quiet"]).args(PACKAGES).status();
    if !pip.is_ok_and(|s| s.success()) {
        return Ok(None);
    }
    fs::write(marker, "")?;
    Ok(Some(directory))
}

/// What one emulator is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The virtual environment.
    pub environment: &'a Path,
    /// Directory of its files.
    pub directory: &'a Path,
    /// Address that it listens at, by TLS.
    pub address: SocketAddr,
    /// Further lines of its configuration: which driver, which systems.
    pub settings: &'a str,
}

/// An emulator that runs; it ends when dropped.
#[derive(Debug)]
pub struct Emulator {
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
}

impl Emulator {
    /// Starts one by `command`, which runs a program: `env` on this host, or one that enters a namespace before.
    ///
    /// # Errors
    /// Where its files cannot be written or it cannot be started.
    pub fn start(plan: &Plan<'_>, mut command: Command) -> Result<Self> {
        plan.write()?;
        command.arg(plan.environment.join("bin/sushy-emulator")).arg("--config").arg(plan.file("config"));
        let process = Process::start("sushy-emulator", command, &plan.file("log"))?;
        Ok(Self { process, address: plan.address, directory: plan.directory.to_owned() })
    }

    /// Waits until it listens. To be called in its namespace.
    ///
    /// # Errors
    /// Where it does not, with what it said.
    pub fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            ensure!(self.process.running(), "the emulator ended: {}", self.log());
            if begin.elapsed() > START {
                bail!("the emulator does not start: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Plan<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self) -> Result<()> {
        fs::create_dir_all(self.directory)?;
        let key =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), self.address.ip().to_string()])?;
        fs::write(self.file("cert.pem"), key.cert.pem())?;
        fs::write(self.file("key.pem"), key.signing_key.serialize_pem())?;
        fs::write(self.file("htpasswd"), self.account()?)?;
        let (ip, port, at) = (self.address.ip(), self.address.port(), self.directory.display());
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{ip}'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_SSL_CERT = '{at}/cert.pem'\nSUSHY_EMULATOR_SSL_KEY = '{at}/key.pem'\n\
             SUSHY_EMULATOR_AUTH_FILE = '{at}/htpasswd'\nSUSHY_EMULATOR_STATE_DIR = '{at}'\n{}",
            self.settings
        );
        Ok(fs::write(self.file("config"), config)?)
    }

    /// A line of its file of accounts.
    fn account(&self) -> Result<Vec<u8>> {
        let script = format!(
            "import bcrypt; print('{USER}:' + bcrypt.hashpw(b'{PASSWORD}', bcrypt.gensalt(4)).decode())"
        );
        let made = Command::new(self.environment.join("bin/python")).args(["-c", &script]).output()?;
        ensure!(made.status.success(), "bcrypt: {}", String::from_utf8_lossy(&made.stderr));
        Ok(made.stdout)
    }
}
