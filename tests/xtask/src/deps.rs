//! The Debian packages that the verbs need. Only what is missing is installed.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::tool;

/// What the verbs call, by package.
const PACKAGES: &[&str] = &[
    // the virtual rack
    "qemu-system-x86",
    "qemu-system-arm",
    "qemu-efi-aarch64",
    "qemu-utils",
    // backends of volumes for qemu-storage-daemon: iSCSI, Ceph
    "qemu-block-extra",
    "ovmf",
    "ipxe",
    "ipxe-qemu",
    "iproute2",
    "tcpdump",
    "ethtool",
    "openssh-client",
    // peers of the boot protocols
    "dnsmasq-base",
    "isc-dhcp-relay",
    "procps",
    // management controllers: a simulator and a client that are not ours
    "openipmi",
    "ipmitool",
    // TPMs of machines
    "swtpm",
    "swtpm-tools",
    // ramdisk and images
    "mmdebstrap",
    "dosfstools",
    "gdisk",
    "fdisk",
    "mtools",
    "e2fsprogs",
    "grub-common",
    "grub-pc-bin",
    "grub-efi-amd64-signed",
    "shim-signed",
    "sbsigntool",
    "systemd-boot-efi",
    "openssl",
    "cpio",
    "zstd",
    "xz-utils",
    "kmod",
    "busybox-static",
    "dropbear-bin",
    "udhcpc",
    "pciutils",
    "pci.ids",
    "debian-archive-keyring",
    // boots that are ordered: an iSCSI target, an ISO
    "tgt",
    "xorriso",
    "grub-efi-amd64-bin",
    // TFTP of others: clients of the suites, servers of the benchmark
    "tftp-hpa",
    "atftp",
    "tftpd-hpa",
    "dnsmasq-base",
    // DHCP: what ours is measured against, and real clients
    "kea-admin",
    "kea-dhcp4-server",
    "isc-dhcp-client",
    // an independent Redfish service, sushy-tools
    "python3-venv",
    // machines behind it: libvirt, without its services
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "python3-libvirt",
    // the UI and its tests
    "chromium",
    "chromium-driver",
    "curl",
    "nginx-light",
    "openssl",
    // DHCPv6 and router advertisement clients
    "isc-dhcp-client",
    "kea-admin",
    "ndisc6",
    // overlay networks: Open vSwitch and OVN, without their services
    "openvswitch-switch",
    "ovn-central",
    "ovn-host",
    "iputils-ping",
    // what measures a host's disk
    "ioping",
    // volumes of Ceph: one node, in memory
    "ceph-mon",
    "ceph-osd",
    "ceph-common",
    // the store that is not SQLite
    "postgresql",
];

/// What building needs beside Rust.
const BUILD_PACKAGES: &[&str] = &["gcc", "g++", "libc6-dev"];

/// Seconds to wait for another apt on the same machine.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=600";

/// Installs what is missing.
pub fn run() -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        eprintln!("all packages are installed");
        return Ok(());
    }
    if !is_root()? {
        bail!("these packages are missing, and only root can install them: {}", missing.join(" "));
    }
    eprintln!("installing {}", missing.join(" "));
    tool::quiet(&mut apt(&["update"]))?;
    let mut words: Vec<String> = ["install", "--yes", "--no-install-recommends"].map(str::to_owned).into();
    words.extend(missing.iter().cloned());
    // A qemu-utils from backports breaks bookworm's qemu-system-x86: both must be of one release.
    if let (Some(utils), Some(system)) = (installed("qemu-utils")?, candidate("qemu-system-x86")?)
        && missing.iter().any(|p| p == "qemu-system-x86")
        && utils != system
    {
        words.retain(|w| w != "qemu-utils");
        words.extend(["--allow-downgrades".to_owned(), format!("qemu-utils={system}")]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    tool::shown(&mut apt(&words))?;
    let left = self::missing()?;
    if !left.is_empty() {
        bail!("apt left these out: {}", left.join(" "));
    }
    Ok(())
}

/// Packages that are wanted and not installed, in order.
fn missing() -> Result<Vec<String>> {
    let mut wanted: Vec<_> = PACKAGES.iter().chain(BUILD_PACKAGES).copied().collect();
    if !tool::exists("node") || !tool::exists("npm") {
        wanted.extend(["nodejs", "npm"]);
    }
    let text =
        tool::output(&mut tool::command("dpkg-query", &["-W", "-f", "${Package} ${db:Status-Status}\n"]))?;
    let have: BTreeSet<_> = text.lines().filter_map(|l| l.strip_suffix(" installed")).collect();
    Ok(wanted.into_iter().filter(|p| !have.contains(p)).map(str::to_owned).collect())
}

fn installed(package: &str) -> Result<Option<String>> {
    policy(package, "Installed:")
}

fn candidate(package: &str) -> Result<Option<String>> {
    policy(package, "Candidate:")
}

fn policy(package: &str, field: &str) -> Result<Option<String>> {
    let text = tool::output(tool::command("apt-cache", &["policy", package]).env("LC_ALL", "C"))?;
    let value = text.lines().find_map(|l| l.trim().strip_prefix(field));
    Ok(value.map(str::trim).filter(|v| *v != "(none)").map(str::to_owned))
}

fn apt(args: &[&str]) -> std::process::Command {
    let mut command = tool::command("apt-get", &["-q", "-o", LOCK_WAIT]);
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> Result<bool> {
    let text = tool::output(&mut tool::command("id", &["-u"])).context("asking who we are")?;
    Ok(text.trim() == "0")
}
