//! Getting an address, or taking the one that the command line gives: every port is switched on, the one that booted is tried first, then every other with a link,
//! for ever. A port counts when the server answers through it. Addresses are of the kind that the server has: IPv4 here,
//! IPv6 in `ipv6`.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::MacAddr;
use protocol_http::Backoff;
use ramdisk_agent_core::cmdline::Fixed;

use super::dhcp::{self, Lease};
use super::ipv6;
use crate::fetch::random;
use crate::inspect::lldp::Neighbours;
use crate::inspect::{nics, tree::Tree};
use crate::sys;

/// How long the port that booted is waited for (driver, link) before others are tried.
const BOOT_PORT_WAIT: Duration = Duration::from_secs(10);
/// First and longest wait for an address on one port. Switches with spanning tree forward after 30 s only.
const DHCP_FIRST: Duration = Duration::from_secs(4);
const DHCP_LONGEST: Duration = Duration::from_secs(32);
/// Longest wait for the server's answer on a port that has an address.
const CONNECT: Duration = Duration::from_secs(3);
/// Pause after all ports were tried with the machine's own settings.
const FIXED_PAUSE: Duration = Duration::from_secs(1);
/// Pause between looks at the ports.
const LOOK: Duration = Duration::from_millis(50);

/// Returns when the server can be reached. With settings of its own the machine asks nobody for an address, and tries no port
/// but `boot`, where that is given.
pub fn up(server: &str, boot: Option<MacAddr>, fixed: Option<Fixed>, neighbours: &Arc<Neighbours>) {
    let tree = Tree::new(Path::new("/"));
    let began = Instant::now();
    let mut wait = DHCP_FIRST;
    let mut on = Vec::new();
    let by_ipv6 = address_of(server).is_some_and(|address| address.is_ipv6());
    // IPv6 routes to our own addresses go over it.
    if by_ipv6 && let Err(e) = sys::interface_up("lo") {
        eprintln!("billet: lo: cannot be switched on: {e}");
    }
    loop {
        let ports = switch_on(&tree, &mut on, by_ipv6, neighbours);
        let mut linked: Vec<_> = ports.into_iter().filter(|p| p.carrier).collect();
        linked.sort_by_key(|p| Some(p.mac) != boot);
        let boot_is_there = linked.first().is_some_and(|p| boot.is_none() || Some(p.mac) == boot);
        if linked.is_empty() || (!boot_is_there && began.elapsed() < BOOT_PORT_WAIT) {
            std::thread::sleep(LOOK);
            continue;
        }
        let named = |port: &Port| fixed.is_none() || boot.is_none_or(|boot| boot == port.mac);
        let tried = |port: &Port| match fixed {
            Some(fixed) => try_fixed(port, server, fixed),
            None if by_ipv6 => ipv6::try_port(&port.name, port.mac, wait, &|| answers(server)),
            None => try_port(port, server, wait),
        };
        if linked.iter().filter(|port| named(port)).any(tried) {
            return;
        }
        if fixed.is_some() {
            // Nothing above waits for anybody.
            std::thread::sleep(FIXED_PAUSE);
        }
        wait = (wait * 2).min(DHCP_LONGEST);
    }
}

/// A port as this file needs it.
struct Port {
    name: String,
    mac: MacAddr,
    carrier: bool,
}

fn switch_on(tree: &Tree, on: &mut Vec<String>, by_ipv6: bool, neighbours: &Arc<Neighbours>) -> Vec<Port> {
    let names = nics::physical(tree);
    for name in &names {
        if on.contains(name) {
            continue;
        }
        if by_ipv6 {
            ipv6::prepare(name);
        }
        match sys::interface_up(name) {
            Ok(()) => neighbours.listen(name),
            Err(e) => eprintln!("billet: {name}: cannot be switched on: {e}"),
        }
        on.push(name.clone());
    }
    let port = |name: String| {
        let mac = nics::mac(tree, &name)?;
        Some(Port { carrier: nics::carrier(tree, &name), name, mac })
    };
    names.into_iter().filter_map(port).collect()
}

fn try_port(port: &Port, server: &str, wait: Duration) -> bool {
    let lease = match dhcp::acquire(&port.name, port.mac, wait) {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            eprintln!("billet: {}: no DHCP server answers", port.name);
            return false;
        }
        Err(e) => {
            eprintln!("billet: {}: DHCP: {e}", port.name);
            return false;
        }
    };
    if let Err(e) = apply(&port.name, lease.address, lease.prefix, lease.router) {
        eprintln!("billet: {}: set {}: {e}", port.name, lease.address);
        return false;
    }
    eprintln!("billet: {}: {}/{} from {}", port.name, lease.address, lease.prefix, lease.server);
    if reached(port, server) {
        keep(port, lease);
        return true;
    }
    false
}

fn try_fixed(port: &Port, server: &str, fixed: Fixed) -> bool {
    let Fixed { address, prefix, gateway } = fixed;
    if let Err(e) = apply(&port.name, address, prefix, gateway) {
        eprintln!("billet: {}: set {address}: {e}", port.name);
        return false;
    }
    eprintln!("billet: {}: {address}/{prefix} from the boot image", port.name);
    reached(port, server)
}

/// True where the server answers; else the port has its address no longer.
fn reached(port: &Port, server: &str) -> bool {
    if answers(server) {
        return true;
    }
    eprintln!("billet: {}: {server} does not answer", port.name);
    // Two ports with addresses of one network would send through whichever came first.
    if let Err(e) = sys::set_address(&port.name, Ipv4Addr::UNSPECIFIED, 0) {
        eprintln!("billet: {}: remove the address: {e}", port.name);
    }
    false
}

fn apply(port: &str, address: Ipv4Addr, prefix: u8, router: Option<Ipv4Addr>) -> std::io::Result<()> {
    sys::set_address(port, address, prefix)?;
    router.map_or(Ok(()), sys::set_default_route)
}

/// True where somebody is at the address, even if the server is just restarting (connection refused).
fn answers(server: &str) -> bool {
    let Some(address) = address_of(server) else { return false };
    match TcpStream::connect_timeout(&address, CONNECT) {
        Ok(_) => true,
        Err(e) => e.kind() == ErrorKind::ConnectionRefused,
    }
}

/// Address and port of `http://10.77.0.1:8080/…`; names are not looked up.
fn address_of(server: &str) -> Option<SocketAddr> {
    let host = server.strip_prefix("http://")?.split('/').next()?;
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.trim_matches(['[', ']']).parse().ok()?, 80)))
}

/// Keeps the lease by asking again at half its time (RFC 2131, 4.4.5), by broadcast.
fn keep(port: &Port, lease: Lease) {
    let (name, mac) = (port.name.clone(), port.mac);
    std::thread::spawn(move || {
        // Nobody listens on the client port of the kernel's stack, and it would tell the DHCP server so.
        let _quiet = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68));
        let mut lease = lease;
        let mut backoff = Backoff::default();
        loop {
            std::thread::sleep(lease.renew_after());
            while !renew(&name, mac, &mut lease) {
                std::thread::sleep(backoff.wait(random()));
            }
            backoff.reset();
        }
    });
}

fn renew(name: &str, mac: MacAddr, lease: &mut Lease) -> bool {
    let Ok(Some(new)) = dhcp::acquire(name, mac, DHCP_LONGEST) else {
        eprintln!("billet: {name}: the lease of {} is not renewed yet", lease.address);
        return false;
    };
    if (new.address, new.prefix) != (lease.address, lease.prefix) {
        eprintln!("billet: {name}: new address {}", new.address);
        if let Err(e) = apply(name, new.address, new.prefix, new.router) {
            eprintln!("billet: {name}: set {}: {e}", new.address);
            return false;
        }
    }
    *lease = new;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_only() {
        assert_eq!(address_of("http://10.77.0.1:8080"), "10.77.0.1:8080".parse().ok());
        assert_eq!(address_of("http://10.77.0.1/x"), "10.77.0.1:80".parse().ok());
        assert_eq!(address_of("http://[fd77::1]:8080"), "[fd77::1]:8080".parse().ok());
        assert_eq!(address_of("http://server:80"), None);
    }
}
