//! OpenStack Ironic, standalone: API and conductor in one program, SQLite, fake hardware, nobody authenticated.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ::tests::rack::Process;
use anyhow::{Context, Result, bail, ensure};

use super::client::{Ask, Connection, rate};
use super::{Clock, Figures, IRONIC_NODES, LIST, Times, WARM, memory, times};
use crate::paths;

/// The package, pinned.
const PACKAGE: &str = "ironic==39.0.0";
/// The newest version of its API that it needs here.
const HEADER: &str = "X-OpenStack-Ironic-API-Version: 1.78\r\n";
/// Time for it to answer.
const START: Duration = Duration::from_secs(120);
/// Lists that are asked for; each takes most of a second.
const LISTS: u32 = 10;
/// Single nodes that are asked for.
const GETS: usize = 300;
/// Connections that ask at once: it answers no more of them than this at a time.
const CONNECTIONS: usize = 8;

/// The virtual environment with Ironic in it, made once.
///
/// # Errors
/// Where the Python package index does not give it: then there is nothing to compare with.
pub(super) fn environment() -> Result<PathBuf> {
    let directory = paths::target().join("ironic-venv");
    let marker = directory.join("ready-39.0.0");
    fs::create_dir_all(paths::target())?;
    let lock = File::create(paths::target().join(".ironic-venv.lock"))?;
    lock.lock().context("waiting for another run that makes the same environment")?;
    if marker.exists() {
        return Ok(directory);
    }
    eprintln!("making a virtual environment with {PACKAGE}");
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory).status();
    ensure!(made.is_ok_and(|s| s.success()), "no virtual environment can be made (package python3-venv)");
    let pip = Command::new(directory.join("bin/pip")).args(["install", "--quiet", PACKAGE]).status();
    ensure!(pip.is_ok_and(|s| s.success()), "pip cannot get {PACKAGE} from the Python package index");
    fs::write(marker, "")?;
    Ok(directory)
}

/// One that runs; it ends when dropped.
pub(super) struct Ironic {
    process: Process,
    at: SocketAddr,
}

impl Ironic {
    pub fn start(environment: &Path, dir: &Path) -> Result<Self> {
        for part in ["state", "lock", "http", "tftp"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("ironic.conf");
        fs::write(&config, configuration(dir, port))?;
        let program = |name: &str| {
            let mut command = Command::new(environment.join("bin").join(name));
            command.arg("--config-file").arg(&config);
            command
        };
        let made =
            program("ironic-dbsync").arg("create_schema").output().context("starting ironic-dbsync")?;
        ensure!(made.status.success(), "ironic-dbsync: {}", String::from_utf8_lossy(&made.stderr));
        let log = dir.join("ironic.log");
        let mut process = Process::start("ironic", program("ironic"), &log)?;
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + START;
        while TcpStream::connect(at).is_err() {
            if !process.running() || Instant::now() > end {
                bail!("Ironic does not start; see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // The API listens before the conductor has registered its drivers.
        while Connection::open(at)?.ask(&Ask::get("/v1/drivers/fake-hardware", HEADER), 200).is_err() {
            ensure!(Instant::now() < end, "Ironic has no drivers; see {}", log.display());
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(Self { process, at })
    }

    pub fn measure(self) -> Result<Figures> {
        let pids = family(self.process.pid())?;
        let mut figures = Figures { rest_mib: memory(&pids)?, ..Figures::default() };
        let enrol = |n: usize| {
            let body = format!(r#"{{"driver":"fake-hardware","name":"n{n:05}"}}"#);
            Ask::post("/v1/nodes", HEADER, &body)
        };
        // One after the other: SQLite refuses its several writers when they come at once.
        let mut clock = Clock::new(pids.clone())?;
        figures.enrol_per_s = rate(self.at, 1, IRONIC_NODES, enrol, 201)?;
        figures.spent.enrol = clock.per(IRONIC_NODES as f64)?;
        let list = Ask::get(&format!("/v1/nodes?limit={LIST}"), HEADER);
        let detail = Ask::get(&format!("/v1/nodes/detail?limit={LIST}"), HEADER);
        figures.list_ms = times(self.at, &list, LISTS)?;
        figures.spent.list = clock.per(f64::from(LISTS + WARM))?;
        figures.detail_ms = times(self.at, &detail, LISTS)?;
        figures.spent.detail = clock.per(f64::from(LISTS + WARM))?;
        let one = |n: usize| Ask::get(&format!("/v1/nodes/n{:05}", n * 7919 % IRONIC_NODES), HEADER);
        figures.get_per_s = rate(self.at, CONNECTIONS, GETS, one, 200)?;
        figures.spent.get = clock.per(GETS as f64)?;
        figures.full_mib = memory(&pids)?;
        let Times { p50, .. } = figures.list_ms;
        ensure!(p50 > 0.0, "nothing was measured");
        Ok(figures)
    }
}

/// A process and its children.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut pids = vec![pid];
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
        pids.extend(family(child)?);
    }
    Ok(pids)
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    let fake =
        ["boot", "deploy", "management", "power"].map(|kind| format!("enabled_{kind}_interfaces = fake\n"));
    let none = ["bios", "console", "firmware", "inspect", "raid", "rescue", "vendor"]
        .map(|kind| format!("enabled_{kind}_interfaces = no-{kind}\n"));
    format!(
        "[DEFAULT]\nauth_strategy = noauth\nrpc_transport = none\nenabled_hardware_types = fake-hardware\n{}{}\
         enabled_network_interfaces = noop\nenabled_storage_interfaces = noop\nstate_path = {dir}/state\n\
         host = bench\nmy_ip = 127.0.0.1\n\n[api]\nhost_ip = 127.0.0.1\nport = {port}\n\n\
         [conductor]\nautomated_clean = false\n\n[database]\nconnection = sqlite:///{dir}/ironic.db\n\n\
         [oslo_concurrency]\nlock_path = {dir}/lock\n\n[deploy]\nhttp_root = {dir}/http\n\n[pxe]\ntftp_root = {dir}/tftp\n",
        fake.concat(),
        none.concat()
    )
}
