//! `/init`: makes a bare kernel into a place where the agent can work, and never returns: when PID 1 ends, the
//! kernel panics.

pub mod dhcp;
pub mod ipv6;
pub mod modules;
pub mod network;
pub mod panic;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use ramdisk_agent_core::cmdline;

use crate::agent::{self, Leave, Settings};
use crate::customise::boot_entry;
use crate::inspect::{self, lldp::Neighbours, tree::Tree};
use crate::trust::Trust;

/// How long a machine without boot arguments shows why, before it boots again.
const NO_ARGS_WAIT: Duration = Duration::from_secs(60);
/// Longest wait of the inventory for drivers that are still probing.
const DEVICES_WAIT: Duration = Duration::from_secs(20);

/// Runs the machine.
pub fn run() -> ! {
    mount_all();
    console();
    eprintln!("\nbillet: agent {} starts", env!("CARGO_PKG_VERSION"));
    let current = Arc::new(panic::Current::default());
    panic::install(current.clone());
    let args = cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let Some(server) = args.server else {
        eprintln!("billet: nobody gave billet.server; booting again in 60 s");
        std::thread::sleep(NO_ARGS_WAIT);
        leave(Leave::Reboot);
    };
    let drivers = modules::Loader::start();
    let neighbours = Arc::new(Neighbours::default());
    network::up(&server, args.mac, args.fixed, &neighbours);
    // A unified kernel image has the same command line for every machine.
    let Some(nonce) = args.nonce.or_else(|| agent::introduce(&server)) else { go_on_to_disk() };
    let dev = PathBuf::from("/dev");
    let trust = Trust::of_ramdisk();
    eprintln!("billet: {}", trust.describe());
    let settings =
        Settings { server, nonce, owns_machine: true, dev, trust, neighbours: neighbours.clone(), current };
    let left = agent::run(&settings, &|| {
        drivers.wait(DEVICES_WAIT);
        inspect::collect(Path::new("/"), &neighbours)
    });
    leave(left)
}

/// Leaves for what comes after the network in the firmware's boot order.
fn go_on_to_disk() -> ! {
    eprintln!("billet: this machine boots its disk");
    match boot_entry::go_on(&Tree::new(Path::new("/"))) {
        Ok(what) => eprintln!("billet: {what}"),
        Err(e) => {
            eprintln!("billet: it cannot be told to: {e}; booting again in 60 s");
            std::thread::sleep(NO_ARGS_WAIT);
        }
    }
    leave(Leave::Reboot)
}

/// Ends the machine's time in the ramdisk.
pub fn leave(how: Leave) -> ! {
    let mode = if how == Leave::PowerOff { RebootMode::RB_POWER_OFF } else { RebootMode::RB_AUTOBOOT };
    eprintln!("billet: {}", if how == Leave::PowerOff { "switching off" } else { "booting again" });
    nix::unistd::sync();
    loop {
        // It returns only where it failed.
        let Err(e) = reboot(mode);
        eprintln!("billet: reboot: {e}");
        std::thread::sleep(Duration::from_secs(10));
    }
}

fn mount_all() {
    let wanted = [
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("devtmpfs", "/dev", "devtmpfs"),
        ("securityfs", "/sys/kernel/security", "securityfs"),
        ("tmpfs", "/run", "tmpfs"),
    ];
    for (source, path, kind) in wanted {
        mount_one(source, path, kind);
    }
}

/// Mounts where the firmware keeps its variables; needs the module on most kernels.
pub fn mount_efivars() {
    if Path::new("/sys/firmware/efi").exists() {
        mount_one("efivarfs", "/sys/firmware/efi/efivars", "efivarfs");
    }
}

fn mount_one(source: &str, path: &str, kind: &str) {
    // Mount points that cannot be made show up as the failure of the mount, which is what matters.
    let _ = std::fs::create_dir_all(path);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    match mount(Some(source), path, Some(kind), flags, None::<&str>) {
        Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
        Err(e) => eprintln!("billet: mount {path}: {e}"),
    }
}

/// The kernel gives init a console only where the initramfs holds a node for it.
fn console() {
    let open = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/console");
    if let Ok(console) = open() {
        let _ = nix::unistd::dup2_stdin(&console);
        let _ = nix::unistd::dup2_stdout(&console);
        let _ = nix::unistd::dup2_stderr(&console);
    }
}
