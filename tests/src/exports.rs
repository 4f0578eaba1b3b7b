//! A DPU that only serves volumes: the real `billet-dpu` without a switch, following a state that the test writes; an iSCSI
//! target behind it; and a host whose disks it plugs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::dpu::{Observed, VolumeSeen};
use serde_json::{Value, json};

use crate::exporter::built;
use crate::rack::{Firmware, MachineSpec, Namespace, Process};

const POLL: Duration = Duration::from_millis(50);
/// Time for a program to come up, or for a report to say what is to be so.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the target.
pub const TARGET: &str = "iqn.2026-01.rack:volume";
/// Of the target: user and password.
pub const CHAP: [&str; 2] = ["dpu1", "secretsecret12"];
/// Where the target listens, within its namespace.
pub const PORTAL: &str = "127.0.0.1:3260";

/// Targets of this process so far.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// `billet-dpu` with volumes.
#[derive(Debug)]
pub struct Dpu {
    /// Where it runs; `None` is our own.
    namespace: Option<String>,
    dir: PathBuf,
    options: Vec<String>,
    process: Option<Process>,
    generation: u64,
}

impl Dpu {
    /// Starts it in `namespace` with these options beside those for its files.
    ///
    /// # Errors
    /// Where it was not built.
    pub fn start(namespace: &Namespace, dir: &Path, options: &[&str]) -> Result<Self> {
        Self::start_in(Some(namespace.name().to_owned()), dir, options)
    }

    /// Starts it in our own namespace.
    ///
    /// # Errors
    /// As [`Dpu::start`].
    pub fn start_here(dir: &Path, options: &[&str]) -> Result<Self> {
        Self::start_in(None, dir, options)
    }

    fn start_in(namespace: Option<String>, dir: &Path, options: &[&str]) -> Result<Self> {
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        let mut dpu = Self { namespace, dir: dir.to_owned(), options, process: None, generation: 0 };
        dpu.wish(&[])?;
        dpu.start_again()?;
        Ok(dpu)
    }

    /// Starts it after a kill.
    ///
    /// # Errors
    /// Where it was not built, or runs.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "billet-dpu runs already");
        let program = built("billet-dpu")?;
        // No server tells this one whose images it takes.
        let trusted = self.dir.join("state/trust/trust.json");
        if trusted.exists() {
            fs::create_dir_all(self.dir.join("dpu"))?;
            fs::copy(trusted, self.dir.join("dpu/trust.json"))?;
        }
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("run");
        command.arg("--state").arg(self.dir.join("state.json"));
        command.arg("--status").arg(self.dir.join("status.json"));
        command.arg("--dir").arg(self.dir.join("dpu")).arg("--blk").arg(built("billet-blk")?);
        command.arg("--database").arg(format!("unix:{}", self.dir.join("no-switch").display()));
        command.args(&self.options);
        self.process = Some(Process::start("billet-dpu", command, &self.dir.join("dpu.log"))?);
        Ok(())
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("billet-dpu does not run")?.kill()
    }

    /// Desires these volumes from now on.
    ///
    /// # Errors
    /// Where the state cannot be written.
    pub fn wish(&mut self, volumes: &[Value]) -> Result<()> {
        self.generation += 1;
        let state = json!({
            "version": 1,
            "generation": self.generation,
            "chassis": {"system_id": "dpu", "ovn_remote": "tcp:192.0.2.1:6642",
                        "encap": {"kind": "geneve", "address": "192.0.2.17"}},
            "volumes": volumes,
        });
        let next = self.dir.join("state.next");
        fs::write(&next, state.to_string())?;
        Ok(fs::rename(next, self.dir.join("state.json"))?)
    }

    /// Where the socket of a volume is.
    pub fn socket(&self, volume: &str) -> PathBuf {
        self.dir.join(format!("{volume}.sock"))
    }

    /// A volume to be desired.
    pub fn volume(&self, name: &str, exporter: &Value) -> Value {
        json!({"name": name, "serial": "SERIAL", "socket": self.socket(name), "exporter": exporter})
    }

    /// Waits for a report of the newest state of which `is_so` says so.
    ///
    /// # Errors
    /// Where there is none in time.
    pub fn reports(&mut self, what: &str, is_so: impl Fn(&Observed) -> bool) -> Result<Observed> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = fs::read(self.dir.join("status.json")).unwrap_or_default();
            let seen: Option<Observed> = serde_json::from_slice(&text).ok();
            let newest = seen.as_ref().filter(|seen| seen.generation == Some(self.generation));
            if let Some(seen) = newest.filter(|seen| is_so(seen)) {
                return Ok(seen.clone());
            }
            ensure!(self.process.as_mut().is_none_or(Process::running), "billet-dpu ended");
            ensure!(Instant::now() < end, "not so: {what}: {seen:?}");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until this volume is served and, where the host's bus is known, plugged in.
    ///
    /// # Errors
    /// As [`Dpu::reports`].
    pub fn served(&mut self, name: &str) -> Result<VolumeSeen> {
        let find = |seen: &Observed| {
            let mut volumes = seen.volumes.iter();
            volumes.find(|volume| volume.name.as_str() == name && volume.pid.is_some()).cloned()
        };
        let socket = self.socket(name);
        let seen = self.reports(&format!("{name} is served"), |seen| {
            find(seen).is_some_and(|volume| volume.plugged != Some(false)) && socket.exists()
        })?;
        find(&seen).context("a volume that was there")
    }

    /// What an exporter said.
    ///
    /// # Errors
    /// Where it has no log.
    pub fn log(&self, volume: &str) -> Result<String> {
        let path = self.dir.join(format!("dpu/exporters/{volume}.log"));
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// Ends the process of an exporter at once.
///
/// # Errors
/// Where it has none.
pub fn kill_exporter(seen: &VolumeSeen) -> Result<()> {
    let pid = i32::try_from(seen.pid.context("an exporter without a process")?)?;
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// Ends the daemon behind an exporter at once.
///
/// # Errors
/// Where it has none.
pub fn kill_daemon(seen: &VolumeSeen) -> Result<()> {
    let parent = seen.pid.context("an exporter without a process")?.to_string();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc_pid_stat(5): after the name, in parentheses, come state and parent.
        let parent_of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent_of == Some(parent.as_str()) {
            return Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?);
        }
    }
    bail!("the exporter {parent} has no daemon")
}

/// Plugs a volume into a host from its start on.
pub fn with_volume(host: MachineSpec, volume: &str, socket: &Path) -> MachineSpec {
    host.extra(&[
        "-chardev",
        &format!("socket,id={volume}-chardev,path={},reconnect=1", socket.display()),
        "-device",
        &format!("vhost-user-blk-pci,id={volume},chardev={volume}-chardev,bus=rp1"),
    ])
}

/// An iSCSI target with one disk, which asks for [`CHAP`].
#[derive(Debug)]
pub struct Target {
    daemon: Option<Process>,
    /// The daemon's control socket is a file, which the namespace does not part: a number of our own.
    control: String,
    namespace: String,
    disk: PathBuf,
    log: PathBuf,
}

impl Target {
    /// Starts it in `namespace`.
    ///
    /// # Errors
    /// Where tgt is missing or does not come up.
    pub fn start(namespace: &Namespace, disk: &Path, log: &Path) -> Result<Self> {
        let namespace = namespace.name().to_owned();
        let number = std::process::id() % 3000 * 10 + NEXT.fetch_add(1, Ordering::Relaxed) % 10;
        let control = (1000 + number).to_string();
        let mut target =
            Self { daemon: None, control, namespace, disk: disk.to_owned(), log: log.to_owned() };
        target.start_again()?;
        Ok(target)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the target does not run")?.kill()
    }

    /// Starts it after a kill.
    ///
    /// # Errors
    /// As [`Target::start`].
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "tgtd", "-f", "-C", &self.control]);
        command.args(["--iscsi", &format!("portal={PORTAL}")]);
        self.daemon = Some(Process::start("tgtd", command, &self.log)?);
        let end = Instant::now() + PATIENCE;
        while self.admin("show", "sys", &[]).is_err() {
            ensure!(Instant::now() < end, "tgtd does not answer");
            std::thread::sleep(POLL);
        }
        let disk = self.disk.to_str().context("a path that is not UTF-8")?;
        let tid = ["--tid", "1"];
        self.admin("new", "account", &["--user", CHAP[0], "--password", CHAP[1]])?;
        self.admin("new", "target", &[&tid[..], &["-T", TARGET]].concat())?;
        self.admin("bind", "account", &[&tid[..], &["--user", CHAP[0]]].concat())?;
        self.admin("new", "logicalunit", &[&tid[..], &["--lun", "1", "-b", disk]].concat())?;
        self.admin("bind", "target", &[&tid[..], &["-I", "ALL"]].concat())
    }

    fn admin(&self, op: &str, mode: &str, words: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "tgtadm", "-C", &self.control, "--lld", "iscsi"]);
        let done = command.args(["--op", op, "--mode", mode]).args(words).output()?;
        ensure!(done.status.success(), "tgtadm {op} {mode}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// How a volume reaches it.
    pub fn backend() -> Value {
        json!({"kind": "iscsi", "portal": PORTAL, "target": TARGET, "lun": 1,
               "chap": {"user": CHAP[0], "password": CHAP[1]}})
    }
}

/// A host of 512 MiB whose bus has three free places for volumes, and a monitor at `qmp`.
pub fn host(name: &str, qmp: &Path) -> MachineSpec {
    let monitor = format!("unix:{},server=on,wait=off", qmp.display());
    let mut words = vec!["-qmp".to_owned(), monitor];
    words.extend(
        ["-object", "memory-backend-memfd,id=m0,size=512M,share=on", "-machine", "memory-backend=m0"]
            .map(str::to_owned),
    );
    for port in 1..4 {
        words
            .extend(["-device".to_owned(), format!("pcie-root-port,id=rp{port},chassis={port},slot={port}")]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    MachineSpec::new(name, Firmware::Bios).nics(Vec::new()).memory(512).cpus(2).extra(&words)
}
