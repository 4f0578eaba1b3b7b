//! A virtual rack: one Ethernet segment in a network namespace of its own, a Billet server on it, and machines.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tests::rack::{Disk, Firmware, MachineSpec, Rack};
//! let mut rack = Rack::new("example")?;
//! rack.start_server()?;
//! let mut machine = rack.machine(MachineSpec::new("m1", Firmware::Bios).disk(Disk::virtio("DISK1", 8 << 30)))?;
//! machine.power_on()?;
//! machine.serial().wait_for("TINY-OS READY", std::time::Duration::from_secs(60))?;
//! rack.passed();
//! # Ok(()) }
//! ```

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

mod api;
mod behind;
mod boot;
mod capture;
mod forward;
mod interrupt;
mod lldp;
mod machine;
mod namespace;
pub mod ovmf;
mod process;
mod qmp;
mod serial;
mod server;
mod spec;

pub use api::{Api, ApiError};
pub use behind::{Behind, Disks, SocketDisk};
pub use capture::{DhcpReply, dhcp_replies};
pub use forward::Forward;
pub use interrupt::Interrupt;
pub use lldp::SwitchPort;
pub use machine::Machine;
pub use namespace::{Handle, Namespace, within};
pub use process::Process;
pub use qmp::Qmp;
pub use serial::{Line, Serial};
pub use server::{OPERATORS_PORT, Server, binary};
pub use spec::{BootFirst, Bus, Disk, Firmware, MachineSpec, Nic, NicModel};

/// Address of the server on the rack's segment.
pub const SERVER_ADDRESS: &str = "10.77.0.1";
/// Address of the server on a segment that speaks IPv6 alone.
pub const SERVER_ADDRESS6: &str = "fd77::1";
/// The segment's network.
pub const NETWORK: &str = "10.77.0.0/24";
/// Name of the bridge inside the namespace.
pub const BRIDGE: &str = "br0";

/// One virtual rack.
pub struct Rack {
    // Fields are dropped in this order: what runs in the namespace goes before it.
    server: Option<Server>,
    capture: Option<Process>,
    namespace: Namespace,
    dir: PathBuf,
    machines: u32,
    passed: bool,
    // Held to the end: nobody else works in the directory.
    _lock: File,
}

impl Rack {
    /// A rack with a name of its own; its files are in `target/rack/<name>/`, which is emptied. Where another process
    /// has a rack of that name, this waits for its end.
    ///
    /// # Errors
    /// Where the namespace or the bridge cannot be made (root is needed).
    pub fn new(name: &str) -> Result<Self> {
        Self::with_address(name, &format!("{SERVER_ADDRESS}/24"))
    }

    /// As [`Rack::new`], on a segment without IPv4.
    ///
    /// # Errors
    /// As [`Rack::new`].
    pub fn new_ipv6(name: &str) -> Result<Self> {
        Self::with_address(name, &format!("{SERVER_ADDRESS6}/64"))
    }

    fn with_address(name: &str, address: &str) -> Result<Self> {
        namespace::sweep()?;
        let dir = target().join("rack").join(name);
        let lock = lock(name)?;
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let namespace = Namespace::new()?;
        namespace.bridge(BRIDGE, address)?;
        let mut rack =
            Self { server: None, capture: None, namespace, dir, machines: 0, passed: false, _lock: lock };
        rack.capture = Some(rack.capture()?);
        Ok(rack)
    }

    /// Starts Billet with the rack's default settings.
    ///
    /// # Errors
    /// Where it cannot be started or does not come up.
    pub fn start_server(&mut self) -> Result<&mut Server> {
        let server = Server::start(&self.namespace, &self.dir)?;
        Ok(self.server.insert(server))
    }

    /// Starts Billet with the rack's default settings as changed by `change`, which gets and gives TOML.
    ///
    /// # Errors
    /// As [`Rack::start_server`].
    pub fn start_server_with(&mut self, change: impl FnOnce(String) -> String) -> Result<&mut Server> {
        let boot = artifact("ramdisk/initramfs.zst")?;
        let boot = boot.parent().context("a ramdisk in no directory")?;
        let config = change(Server::default_config(&self.dir, boot));
        let server = Server::start_with(&self.namespace, &self.dir, &config)?;
        Ok(self.server.insert(server))
    }

    /// The server.
    ///
    /// # Errors
    /// Where none was started.
    pub fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("the rack has no server yet")
    }

    /// A client of the server's API, as operator.
    ///
    /// # Errors
    /// Where no server was started or it wrote no token.
    pub fn api(&mut self) -> Result<Api> {
        self.server()?.api()
    }

    /// A machine with its disks and its ports on the bridge; it is switched off.
    ///
    /// # Errors
    /// Where its disks or taps cannot be made.
    pub fn machine(&mut self, spec: MachineSpec) -> Result<Machine> {
        self.machines += 1;
        Machine::new(spec, self.machines, &self.namespace, &self.dir)
    }

    /// A machine in another namespace than the rack's, whose NICs are taps that are there ([`MachineSpec::behind`]).
    ///
    /// # Errors
    /// As [`Rack::machine`].
    pub fn machine_in(&mut self, namespace: &Namespace, spec: MachineSpec) -> Result<Machine> {
        self.machines += 1;
        Machine::new(spec, self.machines, namespace, &self.dir)
    }

    /// A switch that introduces itself on a machine's port, until it is dropped.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn switch_port(&self, machine: &Machine, nic: usize, switch: &str, port: &str) -> Result<SwitchPort> {
        Ok(SwitchPort::start(self.namespace.clone_handle()?, machine.tap(nic), switch, port))
    }

    /// The same on an interface of another namespace than the rack's.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn switch_port_in(
        namespace: &Namespace,
        interface: &str,
        switch: &str,
        port: &str,
    ) -> Result<SwitchPort> {
        Ok(SwitchPort::start(namespace.clone_handle()?, interface.to_owned(), switch, port))
    }

    /// Makes `port` of the rack's `address` reachable at an address of the host's loopback.
    ///
    /// # Errors
    /// Where the host's port cannot be bound.
    pub fn forward(&self, target: SocketAddr) -> Result<Forward> {
        Forward::start(self.namespace.clone_handle()?, target)
    }

    /// The namespace, to run other programs in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Directory of the rack's files: logs, disks, capture.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The test passed: its files are not needed. Without this call they are kept, whatever ended the test.
    pub fn passed(&mut self) {
        self.passed = true;
    }

    /// Every frame on the segment, in `segment.pcap`; image data is cut to its headers.
    fn capture(&self) -> Result<Process> {
        let file = self.dir.join("segment.pcap");
        let mut command = self.namespace.command("tcpdump");
        // 400 octets hold DHCP's fixed part and its first options, and every header.
        command.args(["-i", BRIDGE, "-U", "-s", "400", "-Z", "root", "-w"]).arg(file);
        Process::start("tcpdump", command, &self.dir.join("tcpdump.log"))
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.server = None;
        self.capture = None;
        if self.passed && !std::thread::panicking() && std::env::var_os("BILLET_RACK_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("the rack's files are in {}", self.dir.display());
        }
    }
}

fn lock(name: &str) -> Result<File> {
    let home = target().join("rack");
    fs::create_dir_all(&home)?;
    let file = File::create(home.join(format!(".{name}.lock")))?;
    file.lock().with_context(|| format!("waiting for another rack named {name}"))?;
    Ok(file)
}

/// Root of the source tree.
pub fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).unwrap_or(Path::new("/")).to_owned()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source_root().join("target"), PathBuf::from)
}

/// What `cargo xtask` made, such as `images/tiny-a.raw`.
///
/// # Errors
/// Where it was not made yet; the message says by which verb it is.
pub fn artifact(name: &str) -> Result<PathBuf> {
    let path = source_root().join("artifacts").join(name);
    anyhow::ensure!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, or the verb that makes it",
        path.display()
    );
    Ok(path)
}
