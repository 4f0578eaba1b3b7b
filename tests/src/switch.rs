//! A switch that is managed by OVSDB: a network namespace with the real Open vSwitch, in user space. Machines of a rack are at its ports,
//! and the rack's segment is its provisioning VLAN.
//!
//! ```text
//!   rack: server 10.77.0.1 ─ br0 ═ uplink (access 10) ┐
//!   machines ═ host0, host1 … (access 10 at first) ├─ br-sw ─ trunk ═ trunk-end, to listen on
//!   routers of tenants ═ r0, r1 … (access)         ┘
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use crate::overlay::{checksums_off, run, wait, watch};
use crate::rack::{
    BRIDGE, Behind, Disk, Firmware, Forward, MachineSpec, Namespace, Nic, NicModel, Process, Rack,
    SERVER_ADDRESS, within,
};

/// Its bridge.
pub const SWITCH_BRIDGE: &str = "br-sw";
/// The provisioning network's VLAN on it.
pub const PROVISIONING_VLAN: u16 = 10;
/// The provisioning listener.
const PROVISIONING: u16 = 8080;

/// The switch; it ends when it is dropped.
pub struct ManagedSwitch {
    // Processes before their namespace.
    forwarding: Option<Process>,
    database: Option<Process>,
    namespace: Namespace,
    dir: PathBuf,
}

/// A router of a tenant that is nobody's but the site's: it answers at a subnet's gateway, and what is sent to the server's address is
/// brought there.
pub struct TenantRouter {
    /// Where its programs run.
    pub namespace: Namespace,
    _forward: Forward,
}

impl ManagedSwitch {
    /// A switch whose provisioning VLAN is the segment of the rack.
    ///
    /// # Errors
    /// Where a program does not come up (root, and the package openvswitch-switch, are needed).
    pub fn new(rack: &Rack) -> Result<Self> {
        let dir = rack.dir().join("switch");
        fs::create_dir_all(&dir)?;
        let namespace = Namespace::new()?;
        let mut switch = Self { forwarding: None, database: None, namespace, dir };
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(switch.dir.join("conf.db"))
            .arg("/usr/share/openvswitch/vswitch.ovsschema"))?;
        switch.start_database()?;
        switch.vsctl(&["--no-wait", "init"])?;
        let mut command = switch.namespace.command("ovs-vswitchd");
        command
            .arg(switch.address())
            .arg(format!("--unixctl={}", switch.dir.join("vswitchd.ctl").display()))
            .env("OVS_RUNDIR", &switch.dir);
        switch.forwarding = Some(Process::start("ovs-vswitchd", command, &switch.dir.join("vswitchd.log"))?);
        let bridge = SWITCH_BRIDGE;
        switch.vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"])?;
        rack.namespace().cable("switch", &switch.namespace, "uplink")?;
        rack.namespace().plug("switch", BRIDGE)?;
        checksums_off(rack.namespace(), "switch")?;
        checksums_off(&switch.namespace, "uplink")?;
        switch.plug("uplink", Some(PROVISIONING_VLAN))?;
        let trunk = ["link", "add", "trunk", "type", "veth", "peer", "name", "trunk-end"];
        switch.namespace.ip(&trunk)?;
        switch.namespace.ip(&["link", "set", "trunk", "up"])?;
        switch.namespace.ip(&["link", "set", "trunk-end", "up"])?;
        switch.plug("trunk", None)?;
        Ok(switch)
    }

    fn start_database(&mut self) -> Result<()> {
        let socket = self.dir.join("db.sock");
        let mut command = self.namespace.command("ovsdb-server");
        command
            .arg(format!("--unixctl={}", self.control().display()))
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(self.dir.join("conf.db"));
        self.database = Some(Process::start("ovsdb-server", command, &self.dir.join("ovsdb.log"))?);
        wait("the switch's database listens", || Ok(UnixStream::connect(&socket).is_ok()))?;
        self.open_to_managers()
    }

    fn control(&self) -> PathBuf {
        self.dir.join("ovsdb.ctl")
    }

    /// Whoever manages it is let in.
    ///
    /// # Errors
    /// Where its database refuses.
    pub fn open_to_managers(&self) -> Result<()> {
        self.managers("ovsdb-server/add-remote")
    }

    /// Nobody who manages it is let in, and who was is cut off: it goes on forwarding.
    ///
    /// # Errors
    /// Where its database refuses.
    pub fn close_to_managers(&self) -> Result<()> {
        self.managers("ovsdb-server/remove-remote")
    }

    fn managers(&self, verb: &str) -> Result<()> {
        let remote = format!("p{}", self.manager_address());
        run(Command::new("ovs-appctl").arg("-t").arg(self.control()).args([verb, &remote])).map(drop)
    }

    /// Where it is managed, as `unix:…`.
    pub fn manager_address(&self) -> String {
        format!("unix:{}", self.dir.join("managers.sock").display())
    }

    /// Where its own programs ask its database, as `unix:…`.
    fn address(&self) -> String {
        format!("unix:{}", self.dir.join("db.sock").display())
    }

    /// Where its interfaces are.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `ovs-vsctl`; what it said.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub fn vsctl(&self, words: &[&str]) -> Result<String> {
        let database = format!("--db={}", self.address());
        run(Command::new("ovs-vsctl").arg(database).arg("--timeout=30").args(words))
    }

    /// A column of a port's row, without quotes and brackets.
    ///
    /// # Errors
    /// Where there is no such port.
    pub fn column(&self, port: &str, column: &str) -> Result<String> {
        let text = self.vsctl(&["--bare", "--columns", column, "list", "port", port])?;
        Ok(text.trim().to_owned())
    }

    /// Puts an interface into the bridge, as its owner: access to a VLAN, or a trunk of all.
    fn plug(&self, interface: &str, vlan: Option<u16>) -> Result<()> {
        let tag = vlan.map(|vlan| format!("tag={vlan}"));
        let words = ["add-port", SWITCH_BRIDGE, interface].into_iter().chain(tag.as_deref());
        self.vsctl(&words.collect::<Vec<_>>()).map(drop)
    }

    /// A machine with a disk at the port `host<number>`, in the provisioning VLAN; to be made in the switch's namespace
    /// ([`Rack::machine_in`]).
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn host(&self, number: usize, firmware: Firmware) -> Result<MachineSpec> {
        let port = Self::port(number);
        self.namespace.ip(&["tuntap", "add", &port, "mode", "tap"])?;
        self.namespace.ip(&["link", "set", &port, "up"])?;
        self.plug(&port, Some(PROVISIONING_VLAN))?;
        let behind = Behind {
            representors: vec![port],
            prefix: Vec::new(),
            monitor: self.dir.join(format!("{number}.qmp")),
            disks: Arc::new(|| Ok(Vec::new())),
        };
        let nic = Nic { model: NicModel::Virtio, mac: Some(format!("52:54:00:77:5a:{number:02x}")) };
        let disk = Disk::virtio(&format!("OS{number}"), 1 << 30);
        Ok(MachineSpec::new(&format!("host{number}"), firmware).nics(vec![nic]).disk(disk).behind(behind))
    }

    /// The port of a machine.
    pub fn port(number: usize) -> String {
        format!("host{number}")
    }

    /// A router of a tenant's VLAN, at this address of a network of 24 bits.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn router(&self, number: usize, vlan: u16, address: &str, rack: &Rack) -> Result<TenantRouter> {
        let near = format!("r{number}");
        let namespace = Namespace::new()?;
        self.namespace.cable(&near, &namespace, "eth0")?;
        checksums_off(&self.namespace, &near)?;
        checksums_off(&namespace, "eth0")?;
        self.plug(&near, Some(vlan))?;
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        namespace.ip(&["addr", "add", &format!("{SERVER_ADDRESS}/32"), "dev", "lo"])?;
        let server = SocketAddr::new(IpAddr::V4(SERVER_ADDRESS.parse::<Ipv4Addr>()?), PROVISIONING);
        let outside = rack.namespace().clone_handle()?;
        let forward = within(&namespace.clone_handle()?, || Forward::start_at(outside, server, server))?;
        Ok(TenantRouter { namespace, _forward: forward })
    }

    /// What `tcpdump` prints, with Ethernet headers, of frames on the trunk that match `filter`, while `meanwhile` runs.
    ///
    /// # Errors
    /// What `meanwhile` says, and where tcpdump does not run.
    pub fn on_trunk(&self, filter: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<String> {
        watch(&self.namespace, "trunk-end", &["-e", filter], &self.dir, meanwhile)
    }

    /// Its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
