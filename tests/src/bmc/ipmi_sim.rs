//! OpenIPMI's `ipmi_sim`, an implementation of IPMI that is not ours (package openipmi): its files, and the program run.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::rack::Process;

/// The simulator's account.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "rackpass";
/// Time for it to answer a ping.
const START: Duration = Duration::from_secs(10);

/// What one simulator is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Directory of its files.
    pub dir: &'a Path,
    /// Address that it listens at.
    pub address: SocketAddr,
    /// Program that is its power button, with arguments; see ipmi_lan(5), `chassis_control`.
    pub chassis: &'a str,
    /// TCP address of the machine's serial line.
    pub serial: Option<SocketAddr>,
    /// TCP address at which it serves the machine's in-band interface (QEMU's `ipmi-bmc-extern`).
    pub in_band: Option<SocketAddr>,
    /// Further lines of its emulator's script, between `mc_add` and `mc_enable`.
    pub emulator: &'a str,
}

/// A simulator that runs; it ends when dropped.
#[derive(Debug)]
pub struct IpmiSim {
    _process: Process,
}

impl IpmiSim {
    /// Starts one by this command, which is `ipmi_sim` itself, or a program that runs it in a namespace.
    ///
    /// # Errors
    /// Where the program is missing or ends at once.
    pub fn start(plan: &Plan<'_>, mut command: Command) -> Result<Self> {
        let state = plan.dir.join("state");
        fs::create_dir_all(&state)?;
        let (lan, emulator) = (plan.dir.join("lan.conf"), plan.dir.join("bmc.emu"));
        fs::write(&lan, plan.lan(&plan.lan_script()?))?;
        fs::write(&emulator, plan.emulator_script())?;
        command.arg("-c").arg(&lan).arg("-f").arg(&emulator).arg("-s").arg(&state).args(["-n", "-d"]);
        let log = fs::File::create(plan.dir.join("ipmi_sim.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::spawn("ipmi_sim (package openipmi)", command)?;
        // It prints nothing when it is ready; what is wrong with its files it says at once.
        std::thread::sleep(Duration::from_millis(300));
        let said = || fs::read_to_string(plan.dir.join("ipmi_sim.log")).unwrap_or_default();
        ensure!(process.running(), "ipmi_sim ended: {}", said());
        Ok(Self { _process: process })
    }

    /// Starts one on this host.
    ///
    /// # Errors
    /// As [`IpmiSim::start`], and where it does not answer.
    pub fn here(plan: &Plan<'_>) -> Result<Self> {
        let sim = Self::start(plan, Command::new("ipmi_sim"))?;
        wait_ready(plan.address)?;
        Ok(sim)
    }
}

/// Waits until a controller answers a ping. To be called in its namespace.
///
/// # Errors
/// Where it does not.
pub fn wait_ready(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = Instant::now() + START;
    let mut answer = [0; 64];
    while Instant::now() < end {
        socket.send_to(&bmc::ipmi::packet::ping(1), address)?;
        if socket.recv(&mut answer).is_ok() {
            return Ok(());
        }
    }
    bail!("nobody answers a ping at {address}")
}

impl Plan<'_> {
    /// Writes the program that it asks for its own LAN parameters.
    fn lan_script(&self) -> Result<PathBuf> {
        let ip = self.address.ip();
        let script = format!(
            r#"#!/bin/bash
op=$1; shift
[ "$op" = get ] || exit 0
for p in "$@"; do
  case $p in
    ip_addr) echo "$p:{ip}" ;;
    ip_addr_src) echo "$p:static" ;;
    mac_addr) echo "$p:52:54:00:77:b0:01" ;;
    subnet_mask) echo "$p:255.255.255.0" ;;
    *_mac_addr) echo "$p:00:00:00:00:00:00" ;;
    *) echo "$p:0.0.0.0" ;;
  esac
done
"#
        );
        let path = self.dir.join("lan.sh");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    fn lan(&self, script: &Path) -> String {
        let (ip, port, chassis) = (self.address.ip(), self.address.port(), self.chassis);
        let in_band = self
            .in_band
            .map_or_else(String::new, |s| format!("serial 15 {} {} codec VM\n", s.ip(), s.port()));
        let script = script.display();
        let sol = self.serial.map_or_else(String::new, |s| format!("sol \"tcp:{s}\" 115200\n"));
        let auths: String = ["callback", "user", "operator", "admin"]
            .iter()
            .map(|level| format!("  allowed_auths_{level} none md2 md5 straight\n"))
            .collect();
        format!(
            "name \"bmc\"\nset_working_mc 0x20\nstartlan 1\n  addr {ip} {port}\n  priv_limit admin\n{auths}  \
             guid a123456789abcdefa123456789abcdef\nlan_config_program \"{script}\"\nendlan\nchassis_control \"{chassis}\"\n{sol}{in_band}\
             user 1 true \"\" \"\" user 10 none md2 md5 straight\n\
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n"
        )
    }

    fn emulator_script(&self) -> String {
        format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
             sel_enable 0x20 1000 0x0a\n{}mc_enable 0x20\n",
            self.emulator
        )
    }
}

/// Writes a power button that keeps its state in files beside it: `power` (0 or 1), `boot`, and every call in `calls`.
///
/// # Errors
/// Where the files cannot be written.
pub fn button_of_files(dir: &Path) -> Result<PathBuf> {
    let script = r#"#!/bin/bash
cd "$(dirname "$0")"
echo "$*" >> calls
shift  # the controller's address
op=$1; shift
while [ $# -gt 0 ]; do p=$1; shift
  case $op in
    get) echo "$p:$(cat $p)" ;;
    set) v=$1; shift
      case $p in
        power) [ "$v" = cycle ] && v=1; echo "$v" > power ;;
        shutdown) echo 0 > power ;;
        boot) echo "$v" > boot ;;
      esac ;;
    do) case $p in power) echo 1 > power ;; shutdown) echo 0 > power ;; esac ;;
  esac
done
exit 0
"#;
    let path = dir.join("chassis.sh");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("power"), "0\n")?;
    fs::write(dir.join("boot"), "none\n")?;
    fs::write(dir.join("calls"), "")?;
    Ok(path)
}
