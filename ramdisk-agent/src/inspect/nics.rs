//! Physical network ports.

use std::net::IpAddr;

use protocol::MacAddr;
use protocol::inventory::Nic;
use protocol::limits::NICS_MAX;
use ramdisk_agent_core::content::cut;

use super::lldp::Neighbours;
use super::tree::{Tree, pci_address};
use crate::sys;

/// `ARPHRD_ETHER` of linux/if_arp.h.
const ETHERNET: u32 = 1;

/// Kernel names of the Ethernet ports that a device stands behind; bridges, bonds, tunnels and virtual functions are
/// none.
pub fn physical(tree: &Tree) -> Vec<String> {
    let is_port = |name: &String| {
        let at = |leaf: &str| format!("sys/class/net/{name}/{leaf}");
        tree.number(at("type")) == Some(ETHERNET)
            && tree.path(at("device")).exists()
            && !tree.path(at("device/physfn")).exists()
    };
    tree.list("sys/class/net").into_iter().filter(is_port).collect()
}

/// Current address of a port.
pub fn mac(tree: &Tree, name: &str) -> Option<MacAddr> {
    tree.text(format!("sys/class/net/{name}/address"))?.parse().ok()
}

/// True where the port has a link. Only a port that is switched on can say so.
pub fn carrier(tree: &Tree, name: &str) -> bool {
    tree.number::<u8>(format!("sys/class/net/{name}/carrier")) == Some(1)
}

/// Addresses of all ports, for the hello.
pub fn macs(tree: &Tree) -> Vec<MacAddr> {
    physical(tree).iter().filter_map(|n| mac(tree, n)).filter(MacAddr::is_station).take(NICS_MAX).collect()
}

/// All ports.
pub fn nics(tree: &Tree, neighbours: &Neighbours, warnings: &mut Vec<String>) -> Vec<Nic> {
    let mut names = physical(tree);
    if names.len() > NICS_MAX {
        warnings.push(format!("{} network ports, only the first {NICS_MAX} are listed", names.len()));
        names.truncate(NICS_MAX);
    }
    let addresses = if tree.is_live() { addresses(warnings) } else { Vec::new() };
    names
        .iter()
        .filter_map(|name| {
            let own = || addresses.iter().filter(|(n, _)| n == name).map(|(_, a)| *a);
            let address = own().find_map(|a| if let IpAddr::V4(a) = a { Some(a) } else { None });
            let address6 = own().find_map(|a| if let IpAddr::V6(a) = a { Some(a) } else { None });
            Some(Nic { address, address6, lldp: neighbours.of(name), ..nic(tree, name)? })
        })
        .collect()
}

fn nic(tree: &Tree, name: &str) -> Option<Nic> {
    let at = |leaf: &str| format!("sys/class/net/{name}/{leaf}");
    let path = tree.link(at("device")).unwrap_or_default();
    let pci = pci_address(&path);
    let id = |leaf: &str| tree.hex(format!("sys/bus/pci/devices/{}/{leaf}", pci?));
    let (asked, firmware) = match tree.is_live().then(|| sys::driver_info(name)) {
        Some(Ok((driver, firmware))) => (Some(driver), Some(cut(firmware.trim()))),
        _ => (None, None),
    };
    // Ports of one function are told apart by their number on it.
    let port = tree.number::<u32>(at("dev_port")).filter(|p| *p > 0);
    let carrier = carrier(tree, name);
    Some(Nic {
        name: name.to_owned(),
        mac: mac(tree, name)?,
        permanent_mac: tree
            .is_live()
            .then(|| sys::permanent_mac(name).ok())
            .flatten()
            .filter(MacAddr::is_station),
        driver: tree.link_name(at("device/driver")).or(asked),
        firmware: firmware.filter(|f| !f.is_empty() && f != "N/A"),
        // -1 and 4294967295 mean unknown, by kernel version.
        speed_mbps: tree
            .number::<i64>(at("speed"))
            .filter(|s| carrier && (1..10_000_000).contains(s))
            .map(|s| s as u32),
        carrier,
        bus_path: pci.map(|p| format!("pci-{p}{}", port.map_or(String::new(), |n| format!("-port-{n}")))),
        pci_id: id("vendor").zip(id("device")).map(|(v, d)| format!("{v:04x}:{d:04x}")),
        address: None,
        address6: None,
        lldp: None,
    })
}

/// Addresses of all interfaces, without link-local ones.
fn addresses(warnings: &mut Vec<String>) -> Vec<(String, IpAddr)> {
    let one = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let ipv4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let ipv6 = || address.as_sockaddr_in6().map(|a| a.ip()).filter(|a| !a.is_unicast_link_local());
        Some((entry.interface_name, ipv4.or_else(|| ipv6().map(IpAddr::V6))?))
    };
    match nix::ifaddrs::getifaddrs() {
        Ok(all) => all.filter_map(one).collect(),
        Err(e) => {
            warnings.push(format!("list addresses: {e}"));
            Vec::new()
        }
    }
}
