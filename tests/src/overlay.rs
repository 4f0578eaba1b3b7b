//! A small overlay: OVN's central databases and some machines ("chassis") with Open vSwitch in user space and OVN's
//! controller, each in a network namespace of its own, on one underlay.
//!
//! ```text
//!  central ─ NB, SB (ovsdb-server), ovn-northd        chassis 0                     chassis 1 …
//!     │ ubr 192.168.99.1                                ovs-vswitchd, ovn-controller
//!     └────────────── u0 ═ up0 ─ br-phy 192.168.99.10 ─ br-int ─ host0 ═ eth0
//! ```
//!
//! The kernel's Open vSwitch is not needed. Tunnels of the one in user space need the underlay's address on a bridge of its
//! own, and what holds an address must compute checksums itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use protocol::{MacAddr, PortId};

use crate::rack::{Namespace, Process, target, within};

/// The central's address on the underlay; chassis `n` has .10 + `n`.
pub const CENTRAL: &str = "192.168.99.1";
/// What the chassis call the underlay as the wire of a provider network.
pub const WIRE: &str = "wan";
/// The underlay's bridge in the central's namespace: all frames between chassis pass it.
const UNDERLAY: &str = "ubr";
/// Octets of a packet on the underlay, so that tenants have 1500 and the tunnel's header.
const UNDERLAY_MTU: &str = "1600";
/// For what was sent to arrive.
const ARRIVAL: Duration = Duration::from_secs(8);
/// For processes to come up and for OVN to do what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// The whole; everything ends when it is dropped.
pub struct Overlay {
    // Fields are dropped in this order: processes before their namespaces.
    processes: Vec<Process>,
    hosts: u32,
    chassis: Vec<Chassis>,
    central: Namespace,
    dir: PathBuf,
    passed: bool,
}

struct Chassis {
    namespace: Namespace,
    dir: PathBuf,
}

/// A tenant's machine: a namespace with one interface, `eth0`, on a chassis.
pub struct Host {
    /// Where its programs run.
    pub namespace: Namespace,
    chassis: usize,
    interface: String,
}

impl Overlay {
    /// Central and `chassis` machines whose tunnels are `encap` (`geneve` or `vxlan`).
    ///
    /// # Errors
    /// Where a program does not come up (root, and the packages openvswitch-switch, ovn-central and ovn-host, are needed).
    pub fn new(name: &str, chassis: usize, encap: &str) -> Result<Self> {
        let overlay = Self::start_all(name, chassis, Some(encap))?;
        overlay.wait_registered()?;
        Ok(overlay)
    }

    /// The same of machines that nobody told what they are: OVN's controllers wait.
    ///
    /// # Errors
    /// As [`Overlay::new`].
    pub fn unset(name: &str, chassis: usize) -> Result<Self> {
        Self::start_all(name, chassis, None)
    }

    fn start_all(name: &str, chassis: usize, encap: Option<&str>) -> Result<Self> {
        let dir = target().join("rack").join(format!("ovn-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let central = Namespace::new()?;
        central.bridge(UNDERLAY, &format!("{CENTRAL}/24"))?;
        let mut overlay =
            Self { processes: Vec::new(), hosts: 0, chassis: Vec::new(), central, dir, passed: false };
        overlay.start_central()?;
        for n in 0..chassis {
            overlay.start_chassis(n, encap)?;
        }
        Ok(overlay)
    }

    /// Waits until OVN knows all chassis.
    ///
    /// # Errors
    /// Where it does not within half a minute.
    pub fn wait_registered(&self) -> Result<()> {
        let all = |rows: &str| rows.lines().filter(|line| !line.is_empty()).count() == self.chassis.len();
        wait("the chassis are registered", || {
            Ok(all(&self.southbound(&["--bare", "--columns=name", "list", "Chassis"])?))
        })
    }

    fn start_central(&mut self) -> Result<()> {
        for (database, port) in [("nb", 6641), ("sb", 6642)] {
            let file = self.dir.join(format!("{database}.db"));
            run(Command::new("ovsdb-tool")
                .arg("create")
                .arg(&file)
                .arg(format!("/usr/share/ovn/ovn-{database}.ovsschema")))?;
            let mut command = self.central.command("ovsdb-server");
            command
                .arg(format!("--unixctl={}", self.dir.join(format!("{database}.ctl")).display()))
                .arg(format!("--remote=punix:{}", self.socket(database).display()))
                .arg(format!("--remote=ptcp:{port}:{CENTRAL}"))
                .arg(file);
            self.start(&format!("ovsdb-{database}"), command)?;
            let socket = self.socket(database);
            wait("a database listens", || Ok(UnixStream::connect(&socket).is_ok()))?;
        }
        self.northbound(&["init"])?;
        self.southbound(&["init"])?;
        let mut command = self.central.command("ovn-northd");
        command
            .arg(format!("--ovnnb-db=unix:{}", self.socket("nb").display()))
            .arg(format!("--ovnsb-db=unix:{}", self.socket("sb").display()))
            .arg(format!("--unixctl={}", self.dir.join("northd.ctl").display()));
        self.start("northd", command)
    }

    fn start_chassis(&mut self, n: usize, encap: Option<&str>) -> Result<()> {
        let dir = self.dir.join(format!("chassis{n}"));
        fs::create_dir_all(&dir)?;
        let namespace = Namespace::new()?;
        let (near, address) = (format!("u{n}"), format!("192.168.99.{}", 10 + n));
        self.central.cable(&near, &namespace, "up0")?;
        self.central.plug(&near, UNDERLAY)?;
        self.central.ip(&["link", "set", &near, "mtu", UNDERLAY_MTU])?;
        namespace.ip(&["link", "set", "up0", "mtu", UNDERLAY_MTU])?;
        checksums_off(&self.central, &near)?;
        checksums_off(&namespace, "up0")?;
        let database = dir.join("conf.db");
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(&database)
            .arg("/usr/share/openvswitch/vswitch.ovsschema"))?;
        let socket = dir.join("db.sock");
        let remote = format!("unix:{}", socket.display());
        let mut command = namespace.command("ovsdb-server");
        command
            .arg(format!("--unixctl={}", dir.join("ovsdb.ctl").display()))
            .arg(format!("--remote=p{remote}"))
            .arg(&database);
        self.start(&format!("ovsdb{n}"), command)?;
        wait("a chassis' database listens", || Ok(UnixStream::connect(&socket).is_ok()))?;
        self.chassis.push(Chassis { namespace, dir: dir.clone() });
        self.vsctl(n, &["--no-wait", "init"])?;
        if let Some(encap) = encap {
            self.set_chassis(n, encap, &address)?;
        }
        let mut command = self.chassis[n].namespace.command("ovs-vswitchd");
        command
            .arg(&remote)
            .arg(format!("--unixctl={}", dir.join("vswitchd.ctl").display()))
            .env("OVS_RUNDIR", &dir);
        self.start(&format!("vswitchd{n}"), command)?;
        let bridge = |name: &'static str, mode: &'static str| {
            ["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", mode]
        };
        self.vsctl(n, &bridge("br-phy", "fail-mode=standalone"))?;
        self.vsctl(n, &["add-port", "br-phy", "up0"])?;
        self.vsctl(n, &bridge("br-int", "fail-mode=secure"))?;
        let namespace = &self.chassis[n].namespace;
        namespace.ip(&["link", "set", "br-phy", "mtu", UNDERLAY_MTU, "up"])?;
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "br-phy"])?;
        checksums_off(namespace, "br-phy")?;
        let mut command = namespace.command("ovn-controller");
        command.arg(&remote).env("OVS_RUNDIR", &dir).env("OVN_RUNDIR", &dir);
        self.start(&format!("controller{n}"), command)
    }

    /// What OVN's controller reads.
    fn set_chassis(&self, n: usize, encap: &str, address: &str) -> Result<()> {
        let ids = [
            format!("system-id=chassis{n}"),
            format!("hostname=chassis{n}"),
            format!("ovn-remote=tcp:{CENTRAL}:6642"),
            format!("ovn-encap-type={encap}"),
            format!("ovn-encap-ip={address}"),
            "ovn-bridge-datapath-type=netdev".to_owned(),
            format!("ovn-bridge-mappings={WIRE}:br-phy"),
        ];
        let ids: Vec<String> = ids.into_iter().map(|id| format!("external_ids:{id}")).collect();
        let words: Vec<&str> = ["--no-wait", "set", "Open_vSwitch", "."]
            .into_iter()
            .chain(ids.iter().map(String::as_str))
            .collect();
        self.vsctl(n, &words).map(drop)
    }

    fn start(&mut self, name: &str, command: Command) -> Result<()> {
        let process = Process::start(name, command, &self.dir.join(format!("{name}.log")))?;
        self.processes.push(process);
        Ok(())
    }

    fn socket(&self, database: &str) -> PathBuf {
        self.dir.join(format!("{database}.sock"))
    }

    /// The central's namespace, with [`CENTRAL`] on the underlay.
    pub fn central(&self) -> &Namespace {
        &self.central
    }

    /// Gives another namespace a place on the underlay, with an address such as `192.168.99.2/24`.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn join(&self, other: &Namespace, address: &str) -> Result<()> {
        self.central.cable("site", other, "underlay")?;
        self.central.plug("site", UNDERLAY)?;
        checksums_off(&self.central, "site")?;
        checksums_off(other, "underlay")?;
        other.ip(&["addr", "add", address, "dev", "underlay"])
    }

    /// Where the northbound database listens, as `unix:…`.
    pub fn northbound_address(&self) -> String {
        format!("unix:{}", self.socket("nb").display())
    }

    /// Where a chassis' own database listens, as `unix:…`.
    pub fn chassis_address(&self, chassis: usize) -> String {
        format!("unix:{}", self.chassis[chassis].dir.join("db.sock").display())
    }

    /// Runs `ovn-nbctl`; what it said.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub fn northbound(&self, words: &[&str]) -> Result<String> {
        run(Command::new("ovn-nbctl")
            .arg(format!("--db={}", self.northbound_address()))
            .arg("--timeout=60")
            .args(words))
    }

    /// Runs `ovn-sbctl`; what it said.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub fn southbound(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket("sb");
        run(Command::new("ovn-sbctl")
            .arg(format!("--db=unix:{}", socket.display()))
            .arg("--timeout=60")
            .args(words))
    }

    /// Waits until every chassis has done what the northbound database says.
    ///
    /// # Errors
    /// Where they do not within a minute.
    pub fn settle(&self) -> Result<()> {
        self.northbound(&["--wait=hv", "sync"]).map(drop)
    }

    /// The number that the tunnels carry for a network.
    ///
    /// # Errors
    /// Where OVN does not know the network.
    pub fn tunnel_key(&self, network: &str) -> Result<u32> {
        let find = format!("external_ids:name={network}");
        let text = self.southbound(&["--bare", "--columns=tunnel_key", "find", "Datapath_Binding", &find])?;
        text.trim().parse().with_context(|| format!("`{text}` is the number of network {network}"))
    }

    /// A chassis' namespace.
    pub fn chassis(&self, chassis: usize) -> &Namespace {
        &self.chassis[chassis].namespace
    }

    /// Runs `ovs-vsctl` on a chassis; what it said.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub fn vsctl(&self, chassis: usize, words: &[&str]) -> Result<String> {
        let address = self.chassis_address(chassis);
        run(Command::new("ovs-vsctl").arg(format!("--db={address}")).arg("--timeout=30").args(words))
    }

    /// A machine on a chassis, plugged into a port: as it comes, without an address.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn host(&mut self, chassis: usize, port: PortId, mac: MacAddr) -> Result<Host> {
        // A DPU's own ports are called p0 and p1.
        let interface = format!("host{}", self.hosts);
        self.hosts += 1;
        let namespace = Namespace::new()?;
        self.chassis[chassis].namespace.cable(&interface, &namespace, "eth0")?;
        // Down meanwhile: the link-local address is made of the MAC address when it comes up.
        namespace.ip(&["link", "set", "eth0", "down"])?;
        namespace.ip(&["link", "set", "eth0", "address", &mac.to_string(), "mtu", "1442", "up"])?;
        checksums_off(&namespace, "eth0")?;
        let id = format!("external_ids:iface-id={port}");
        self.vsctl(chassis, &["add-port", "br-int", &interface, "--", "set", "interface", &interface, &id])?;
        Ok(Host { namespace, chassis, interface })
    }

    /// Unplugs a machine from its chassis.
    ///
    /// # Errors
    /// Where Open vSwitch refuses.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        self.vsctl(host.chassis, &["del-port", "br-int", &host.interface]).map(drop)
    }

    /// The MTU of the chassis' end of a machine's cable: what is larger gets through in neither direction.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn narrow(&self, host: &Host, mtu: u16) -> Result<()> {
        self.chassis(host.chassis).ip(&["link", "set", &host.interface, "mtu", &mtu.to_string()])
    }

    /// The name of a machine's interface on its chassis.
    pub fn interface_of<'a>(&self, host: &'a Host) -> &'a str {
        &host.interface
    }

    /// Adds an interface that is no machine's to a chassis: a veth whose other end stays in the chassis' namespace, to
    /// listen on. Returns the name of that end.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn tap(&self, chassis: usize) -> Result<&'static str> {
        let namespace = &self.chassis[chassis].namespace;
        namespace.ip(&["link", "add", "tap-in", "type", "veth", "peer", "name", "tap-out"])?;
        namespace.ip(&["link", "set", "tap-in", "up"])?;
        namespace.ip(&["link", "set", "tap-out", "up"])?;
        self.vsctl(chassis, &["add-port", "br-int", "tap-in"])?;
        Ok("tap-out")
    }

    /// What `tcpdump` prints of frames on the underlay that match `filter`, while `meanwhile` runs.
    ///
    /// # Errors
    /// What `meanwhile` says, and where tcpdump does not run.
    pub fn on_underlay(&self, filter: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<String> {
        watch(&self.central, UNDERLAY, &[filter], &self.dir, meanwhile)
    }

    /// The same for an interface of a chassis.
    ///
    /// # Errors
    /// As [`Overlay::on_underlay`].
    pub fn on_chassis(
        &self,
        chassis: usize,
        interface: &str,
        filter: &str,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<String> {
        watch(&self.chassis[chassis].namespace, interface, &[filter], &self.dir, meanwhile)
    }

    /// The test passed: its files are not needed.
    pub fn passed(&mut self) {
        self.passed = true;
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // The last first: a controller that loses its database would only complain.
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
        if self.passed && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        } else {
            eprintln!("the overlay's files are in {}", self.dir.display());
        }
    }
}

impl Host {
    /// Gives it an address by hand, such as `10.0.0.5/24`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_address(&self, address: &str) -> Result<()> {
        let nodad = address.contains(':').then_some("nodad");
        let words: Vec<_> = ["addr", "add", address, "dev", "eth0"].into_iter().chain(nodad).collect();
        self.namespace.ip(&words)
    }

    /// Asks for an address by DHCP and takes it, with its route; what `udhcpc` learned, as `name=value` lines.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn dhcp(&self, dir: &Path) -> Result<String> {
        let script = dir.join("udhcpc.sh");
        if !script.exists() {
            const SCRIPT: &str = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\n\
                [ -z \"$router\" ] || ip route add default via $router\nenv\n";
            fs::write(&script, SCRIPT)?;
            run(Command::new("chmod").arg("755").arg(&script))?;
        }
        let script = script.display().to_string();
        self.namespace.run("udhcpc", &["-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", &script])
    }

    /// Asks for an address by DHCPv6; the lease as `dhclient` writes it down. It is not put on the interface.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn dhcp6(&self, dir: &Path) -> Result<String> {
        let own = ["addr", "show", "dev", "eth0", "scope", "link", "-tentative"];
        wait("there is a link-local address", || Ok(!self.namespace.run("ip", &own)?.is_empty()))?;
        let file = |kind: &str| dir.join(format!("dhclient-{}.{kind}", self.interface)).display().to_string();
        let (lease, pid) = (file("lease"), file("pid"));
        self.namespace
            .run("dhclient", &["-6", "-1", "-sf", "/bin/true", "-lf", &lease, "-pf", &pid, "eth0"])?;
        Ok(fs::read_to_string(lease)?)
    }

    /// True where `address` answers pings.
    ///
    /// # Errors
    /// Where it cannot even be asked, such as without a route.
    pub fn reaches(&self, address: &str) -> Result<bool> {
        pings(&self.namespace, &[address])
    }

    /// The same, asked from an address of its own.
    ///
    /// # Errors
    /// As [`Host::reaches`].
    pub fn reaches_from(&self, from: &str, address: &str) -> Result<bool> {
        pings(&self.namespace, &["-I", from, address])
    }

    /// The Ethernet address under which it knows a neighbour.
    ///
    /// # Errors
    /// Where it knows none.
    pub fn neighbour(&self, address: &str) -> Result<MacAddr> {
        let text = self.namespace.run("ip", &["neigh", "show", address])?;
        let word = text.split(' ').skip_while(|word| *word != "lladdr").nth(1);
        let word = word.with_context(|| format!("no neighbour {address}: {text}"))?;
        Ok(word.parse()?)
    }
}

/// True where two answers came within three seconds; the first question may be lost to the search for the neighbour.
///
/// # Errors
/// Where nothing can be asked.
pub fn pings(namespace: &Namespace, words: &[&str]) -> Result<bool> {
    let mut command = namespace.command("ping");
    let out = command.args(["-n", "-c", "2", "-i", "0.2", "-w", "3"]).args(words).output()?;
    match out.status.code() {
        Some(0) => Ok(true),
        // iputils: no answer, or too few.
        Some(1) => Ok(false),
        _ => bail!("`ping {}` failed: {}", words.join(" "), String::from_utf8_lossy(&out.stderr)),
    }
}

/// What a machine hears to a ping of `size` octets, headers included, that nobody may fragment. What it knew of paths is forgotten.
///
/// # Errors
/// Where nothing can be asked.
pub fn ping_whole(namespace: &Namespace, size: u16, address: &str) -> Result<String> {
    forget_paths(namespace)?;
    let headers = if address.contains(':') { 48 } else { 28 };
    let size = (size - headers).to_string();
    let words = ["-n", "-M", "do", "-c", "3", "-i", "0.3", "-w", "3", "-s", &size, address];
    let out = namespace.command("ping").args(words).output()?;
    Ok(String::from_utf8(out.stdout)?)
}

fn forget_paths(namespace: &Namespace) -> Result<()> {
    namespace.ip(&["route", "flush", "cache"])?;
    namespace.ip(&["-6", "route", "flush", "cache"])
}

/// Sends `octets` by TCP to a machine that hears at `address`; how many arrived. What the sender knew of paths is forgotten.
///
/// # Errors
/// Where there is no connection.
pub fn send(from: &Namespace, to: &Namespace, address: &str, octets: usize) -> Result<usize> {
    forget_paths(from)?;
    let listener = within(&to.clone_handle()?, || Ok(TcpListener::bind("[::]:7777")?))?;
    let address = SocketAddr::new(address.parse::<IpAddr>()?, 7777);
    let mut sender =
        within(&from.clone_handle()?, move || Ok(TcpStream::connect_timeout(&address, ARRIVAL)?))?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(ARRIVAL))?;
    sender.set_write_timeout(Some(ARRIVAL))?;
    let writing = std::thread::spawn(move || sender.write_all(&vec![0; octets]));
    let (mut arrived, mut buffer) = (0, [0; 65_536]);
    while let Ok(count @ 1..) = receiver.read(&mut buffer) {
        arrived += count;
    }
    let _ = writing.join();
    Ok(arrived)
}

/// Directory for what the tests write beside the overlay's own files.
impl AsRef<Path> for Overlay {
    fn as_ref(&self) -> &Path {
        &self.dir
    }
}

pub(crate) fn watch(
    namespace: &Namespace,
    interface: &str,
    words: &[&str],
    dir: &Path,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let log = dir.join(format!("tcpdump-{interface}.log"));
    let _ = fs::remove_file(&log);
    let mut command = namespace.command("tcpdump");
    command.args(["-l", "-nn", "-i", interface]).args(words);
    let process = Process::start("tcpdump", command, &log)?;
    wait("tcpdump listens", || Ok(fs::read_to_string(&log)?.contains("listening on")))?;
    meanwhile()?;
    // What was received is printed at once (`-l`), but for what the kernel still holds.
    std::thread::sleep(Duration::from_millis(300));
    drop(process);
    Ok(fs::read_to_string(&log)?)
}

/// Open vSwitch in user space does not complete checksums that the kernel left to a network card.
///
/// # Errors
/// Where `ethtool` fails.
pub fn checksums_off(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.run("ethtool", &["-K", interface, "tx", "off"]).map(drop)
}

pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("`{program} {}` failed: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8(out.stdout)?)
}
