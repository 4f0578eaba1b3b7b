//! DPUs of a rack and their hosts: each DPU is a network namespace with the real Open vSwitch (in user space), OVN's controller and
//! `billet-dpu`, which dials out to the rack's server.
//!
//! ```text
//!   rack: server 10.77.0.1 ─ br0 ═ dpuN ═ p1 ─ br-provision 10.77.0.(10+N)      DPU N
//!   central: OVN ─ ubr ═ uN ═ up0 ─ br-phy 192.168.99.(10+N) ─ br-int
//!                                             pf0hpf (in br-provision, or br-int) ═ the host's only NIC
//!                                             /run/billet-dpu/*.sock              ═ the host's disks
//! ```
//!
//! `/run/billet-dpu` is a directory of the DPU's own: who runs on a DPU, its host's QEMU included, has it mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::MacAddr;
use protocol::dpu::{Desired, Observed, PROVISIONING_BRIDGE};

use crate::exporter::built;
use crate::overlay::{Overlay, WIRE, checksums_off};
use crate::rack::{
    BRIDGE, Behind, Firmware, MachineSpec, Namespace, Nic, NicModel, Process, SocketDisk, target,
};

mod census;
mod owner;
mod pings;
mod site;
mod ssh;
mod stand_in;

pub use census::Census;
pub use owner::SOON;
pub use pings::{Pings, Told};
pub use site::{DpuSite, INSTANT, VOLUMES};
pub use ssh::Ssh;
pub use stand_in::StandIn;

/// The representor of the host's NIC, as on a BlueField.
pub const REPRESENTOR: &str = "pf0hpf";
/// The server's address on the underlay, which is the wire of provider networks as well ([`WIRE`]): the way from a tenant's network to
/// the server, for a router with a gateway there.
pub const SITE: &str = "192.168.99.2";
/// Where sockets are, as everybody on a DPU sees it.
const SOCKETS: &str = "/run/billet-dpu";
/// Whatever a machine under load needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// All DPUs of a rack, with their overlay.
pub struct Dpus {
    // Dropped in this order: what runs on the chassis before these.
    all: Vec<Dpu>,
    /// OVN, and the machines that the DPUs are.
    pub overlay: Overlay,
}

/// One DPU.
#[derive(Debug)]
pub struct Dpu {
    number: usize,
    dir: PathBuf,
    namespace: String,
    database: String,
    arguments: Vec<String>,
    program: PathBuf,
    agent: Option<Process>,
}

/// How a DPU comes in.
#[derive(Debug, Clone, Copy)]
pub enum Level<'a> {
    /// With a one-time token.
    Token(&'a str),
    /// As a stranger.
    Stranger,
}

impl Dpus {
    /// `count` DPUs on the rack's segment, whose agents do not run yet.
    ///
    /// # Errors
    /// Where a program does not come up (root, and the packages of [`Overlay::new`], are needed).
    pub fn new(name: &str, rack: &Namespace, count: usize) -> Result<Self> {
        fs::create_dir_all(SOCKETS)?;
        let overlay = Overlay::unset(name, count)?;
        overlay.join(rack, &format!("{SITE}/24"))?;
        let all = (0..count).map(|n| Dpu::new(&overlay, rack, n)).collect::<Result<_>>()?;
        Ok(Self { all, overlay })
    }

    /// One of them.
    pub fn get(&mut self, number: usize) -> &mut Dpu {
        &mut self.all[number]
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Dpu> {
        self.all.iter_mut()
    }

    /// A namespace in the place of a DPU's host: its `eth0` is the NIC.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn host_namespace(&self, number: usize) -> Result<Namespace> {
        let host = Namespace::new()?;
        let chassis = self.overlay.chassis(number);
        chassis.cable(REPRESENTOR, &host, "eth0")?;
        host.ip(&["link", "set", "eth0", "down"])?;
        let mac = self.all[number].host_mac().to_string();
        host.ip(&["link", "set", "eth0", "address", &mac, "mtu", "1442", "up"])?;
        checksums_off(&host, "eth0")?;
        Ok(host)
    }

    /// A machine in the place of a DPU's host, to be made in the chassis' namespace ([`Rack::machine_in`]).
    ///
    /// # Errors
    /// Where the system refuses.
    ///
    /// [`Rack::machine_in`]: crate::rack::Rack::machine_in
    pub fn host_machine(&self, number: usize, firmware: Firmware) -> Result<MachineSpec> {
        let chassis = self.overlay.chassis(number);
        chassis.ip(&["tuntap", "add", REPRESENTOR, "mode", "tap"])?;
        chassis.ip(&["link", "set", REPRESENTOR, "up"])?;
        let dpu = &self.all[number];
        let (mac, from) = (dpu.host_mac().to_string(), dpu.dir.clone());
        let behind = Behind {
            representors: vec![REPRESENTOR.to_owned()],
            prefix: dpu.prefix(),
            monitor: dpu.monitor(),
            disks: Arc::new(move || disks(&from)),
        };
        let nic = Nic { model: NicModel::Virtio, mac: Some(mac) };
        Ok(MachineSpec::new(&format!("host{number}"), firmware).nics(vec![nic]).behind(behind))
    }
}

impl Dpu {
    fn new(overlay: &Overlay, rack: &Namespace, number: usize) -> Result<Self> {
        let dir = overlay.as_ref().join(format!("dpu{number}"));
        fs::create_dir_all(dir.join("run"))?;
        let chassis = overlay.chassis(number);
        let near = format!("dpu{number}");
        rack.cable(&near, chassis, "p1")?;
        rack.plug(&near, BRIDGE)?;
        checksums_off(rack, &near)?;
        checksums_off(chassis, "p1")?;
        let bridge = PROVISIONING_BRIDGE;
        let words = ["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"];
        overlay.vsctl(number, &words)?;
        overlay.vsctl(number, &["add-port", bridge, "p1"])?;
        // So is the set-up of a DPU: what its wires are called.
        let mapping = format!("external_ids:ovn-bridge-mappings={WIRE}:br-phy");
        overlay.vsctl(number, &["set", "Open_vSwitch", ".", &mapping])?;
        chassis.ip(&["link", "set", bridge, "up"])?;
        chassis.ip(&["addr", "add", &format!("10.77.0.{}/24", 10 + number), "dev", bridge])?;
        checksums_off(chassis, bridge)?;
        Ok(Self {
            number,
            dir,
            namespace: chassis.name().to_owned(),
            database: overlay.chassis_address(number),
            arguments: Vec::new(),
            program: built("billet-dpu")?,
            agent: None,
        })
    }

    /// Its serial number.
    pub fn serial(&self) -> String {
        format!("RACK-DPU-{}", self.number)
    }

    /// Its own end of tunnels.
    pub fn tunnel_address(&self) -> String {
        format!("192.168.99.{}", 10 + self.number)
    }

    /// Address of its host's NIC.
    pub fn host_mac(&self) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0x77, 0xd0, u8::try_from(self.number).unwrap_or(u8::MAX)])
    }

    /// Its files: `agent.log`, `status.json`, `agent/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the agent, which dials out to `server`.
    ///
    /// # Errors
    /// Where it runs already or cannot be started.
    pub fn start(&mut self, server: &str, level: Level<'_>) -> Result<()> {
        let path = |path: PathBuf| path.display().to_string();
        let mut words: Vec<String> = vec!["run".into(), "--server".into(), server.into()];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--dir", path(self.dir.join("agent")));
        option("--status", path(self.dir.join("status.json")));
        option("--database", self.database.clone());
        option("--blk", path(built("billet-blk")?));
        option("--host-qmp", path(self.monitor()));
        option("--serial", self.serial());
        option("--function", format!("{REPRESENTOR}={}", self.host_mac()));
        if let Level::Token(token) = level {
            let file = self.dir.join("token");
            fs::write(&file, token)?;
            option("--token-file", path(file));
        }
        self.arguments = words;
        self.start_again()
    }

    /// Starts the agent after a kill.
    ///
    /// # Errors
    /// As [`Dpu::start`].
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.agent.is_none(), "billet-dpu of DPU {} runs already", self.number);
        let _ = fs::remove_file(self.dir.join("status.json"));
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(self.prefix());
        command.arg(&self.program).args(&self.arguments);
        self.agent = Some(Process::start("billet-dpu", command, &self.dir.join("agent.log"))?);
        Ok(())
    }

    /// Ends the agent at once, as `kill -9` does.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.agent.take().context("billet-dpu does not run")?.kill()
    }

    /// Puts another file in the place of the program, and starts that: an upgrade.
    ///
    /// # Errors
    /// Where the agent does not run, or the file cannot be written.
    pub fn upgrade(&mut self) -> Result<()> {
        let next = self.dir.join("billet-dpu.new");
        fs::copy(&self.program, &next)?;
        self.program = next;
        self.kill()?;
        self.start_again()
    }

    /// True while the agent runs.
    pub fn runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::running)
    }

    /// What it says that it is.
    ///
    /// # Errors
    /// Where it wrote what is no report.
    pub fn status(&self) -> Result<Option<Observed>> {
        match fs::read(self.dir.join("status.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(_) => Ok(None),
        }
    }

    /// Waits until all is as the state of this generation says.
    ///
    /// # Errors
    /// Where it is not so within a minute, with what it says instead.
    pub fn settles(&self, generation: u64) -> Result<Observed> {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            let is_so = |seen: &&Observed| seen.settled && seen.generation == Some(generation);
            if let Some(seen) = status.as_ref().filter(is_so) {
                return Ok(seen.clone());
            }
            ensure!(Instant::now() < end, "DPU {} does not settle: {status:?}", self.number);
            std::thread::sleep(LOOK);
        }
    }

    /// What a program that runs on the DPU is started by.
    fn prefix(&self) -> Vec<String> {
        // `ip netns exec` gives each program mounts of its own.
        let mount = format!("mount --bind '{}' {SOCKETS} && exec \"$@\"", self.dir.join("run").display());
        ["sh", "-c", &mount, "sh"].map(str::to_owned).into()
    }

    /// QEMU's control socket. Paths of sockets are short (`unix(7)`), those of test directories are not.
    fn monitor(&self) -> PathBuf {
        let short = target().join("rack").join(format!("{}.{}.qmp", std::process::id(), self.number));
        if short.as_os_str().len() < 100 { short } else { self.dir.join("qmp") }
    }
}

/// The disks of a host at its power-on: those of the state that its DPU follows.
fn disks(dpu: &Path) -> Result<Vec<SocketDisk>> {
    let Ok(text) = fs::read(dpu.join("agent/desired.json")) else { return Ok(Vec::new()) };
    let desired: Desired = serde_json::from_slice(&text)?;
    let disk = |volume: protocol::dpu::Volume| SocketDisk {
        id: dpu_agent_core::bus::id(&volume.name),
        socket: volume.socket.into(),
        boot: volume.boot,
    };
    Ok(desired.volumes.into_iter().map(disk).collect())
}
