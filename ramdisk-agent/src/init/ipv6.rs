//! Getting an IPv6 address, where the server is reached by IPv6: the kernel makes the link-local address and, where a
//! router advertises a prefix for it, one of that prefix; DHCPv6 gives another. Routes come from the advertisements.

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use protocol::MacAddr;
use protocol_http::Backoff;
use ramdisk_agent_core::dhcp6::{Exchange, Lease};
use ramdisk_agent_core::inet6::{self, Readiness};

use crate::fetch::random;
use crate::sys;

const CLIENT_PORT: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers`, port 547 (RFC 8415 section 7).
const SERVERS: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 547);
/// A lent address is a host's: what is on the wire beside it, the router tells (RFC 5942 section 4).
const HOST: u8 = 128;
/// Longest wait for an advertisement after an address is there.
const ROUTE: Duration = Duration::from_secs(4);
/// Longest wait for duplicate address detection.
const DETECTION: Duration = Duration::from_secs(5);
/// Longest wait for an answer to each way of prolonging a lease.
const PROLONG: Duration = Duration::from_secs(16);
/// Pause between looks at the kernel's list.
const LOOK: Duration = Duration::from_millis(50);
/// Room for one message.
const MESSAGE_MAX: usize = 1500;

/// Prepares a port before it is switched on. A kernel that lacks one of the switches does without.
pub fn prepare(port: &str) {
    let switches = [
        ("conf", "disable_ipv6", "0"),
        ("conf", "accept_ra", "1"),
        // Ask for a router at once, and find out in a quarter of a second whether an address is a duplicate: somebody
        // waits here.
        ("conf", "router_solicitation_delay", "0"),
        ("neigh", "retrans_time_ms", "250"),
    ];
    for (kind, leaf, value) in switches {
        let path = format!("/proc/sys/net/ipv6/{kind}/{port}/{leaf}");
        if let Err(e) = std::fs::write(&path, value) {
            eprintln!("billet: {path}: {e}");
        }
    }
}

/// Tries a port for up to `wait`; true where the server answers through it. The lease is kept from then on.
pub fn try_port(port: &str, mac: MacAddr, wait: Duration, answers: &dyn Fn() -> bool) -> bool {
    let Some(link_local) = wait_link_local(port, wait) else {
        eprintln!("billet: {port}: no link-local IPv6 address");
        return false;
    };
    let line = match Line::open(port, link_local) {
        Ok(line) => line,
        Err(e) => {
            eprintln!("billet: {port}: DHCPv6: {e}");
            return false;
        }
    };
    let lease = match line.talk(Exchange::solicit(mac, random()), wait) {
        Ok(lease) => lease,
        Err(e) => {
            eprintln!("billet: {port}: DHCPv6: {e}");
            None
        }
    };
    if let Some(lease) = &lease
        && !take(&line, mac, lease)
    {
        return false;
    }
    if lease.is_none() && made_by_kernel(port).is_none() {
        eprintln!("billet: {port}: no DHCPv6 server answers, and no router gives a prefix");
        return false;
    }
    let end = Instant::now() + ROUTE;
    while !answers() {
        if Instant::now() >= end {
            eprintln!("billet: {port}: the server does not answer");
            if let Some(lease) = &lease {
                drop_address(port, lease.address);
            }
            return false;
        }
        std::thread::sleep(LOOK);
    }
    if let Some(lease) = lease {
        keep(line, mac, lease);
    }
    true
}

/// A port's DHCPv6 socket.
struct Line {
    port: String,
    index: u32,
    socket: UdpSocket,
}

impl Line {
    fn open(port: &str, link_local: Ipv6Addr) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(port)?;
        let socket = UdpSocket::bind(SocketAddrV6::new(link_local, CLIENT_PORT, 0, index))?;
        Ok(Self { port: port.to_owned(), index, socket })
    }

    /// One exchange; `None` where nobody answered in time. An address that the kernel made meanwhile ends the wait for a
    /// server that may not be there.
    fn talk(&self, mut exchange: Exchange, longest: Duration) -> io::Result<Option<Lease>> {
        let began = Instant::now();
        let mut message = [0; MESSAGE_MAX];
        let mut sent = 0;
        loop {
            let now = began.elapsed();
            if now >= longest || (sent > 1 && made_by_kernel(&self.port).is_some()) {
                return Ok(None);
            }
            if let Some(bytes) = exchange.poll_transmit(now) {
                sent += 1;
                // A message that cannot be sent is a message that was lost.
                let _ = self.socket.send_to(&bytes, SocketAddrV6::new(SERVERS.0, SERVERS.1, 0, self.index));
            }
            let left = exchange.poll_timeout().min(longest).saturating_sub(now);
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.socket.recv(&mut message) {
                Ok(len) => {
                    let lease = exchange.handle_message(began.elapsed(), &message[..len]);
                    if lease.is_some() {
                        return Ok(lease);
                    }
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Sets the address and waits until it is known to be ours; one that somebody else uses is declined.
fn take(line: &Line, mac: MacAddr, lease: &Lease) -> bool {
    let (port, address) = (&line.port, lease.address);
    if let Err(e) = sys::add_address6(port, address, HOST) {
        eprintln!("billet: {port}: set {address}: {e}");
        return false;
    }
    match wait_ready(port, DETECTION, |a| a == address) {
        Some(_) => {
            eprintln!("billet: {port}: {address} by DHCPv6");
            true
        }
        None => {
            eprintln!("billet: {port}: {address} is in use by another machine");
            let message = Exchange::decline(mac, random(), lease);
            // The server finds out by itself where this is lost: the next one declines too.
            let _ = line.socket.send_to(&message, SocketAddrV6::new(SERVERS.0, SERVERS.1, 0, line.index));
            drop_address(port, address);
            false
        }
    }
}

fn drop_address(port: &str, address: Ipv6Addr) {
    if let Err(e) = sys::remove_address6(port, address, HOST) {
        eprintln!("billet: {port}: remove {address}: {e}");
    }
}

/// Keeps the lease: its server is asked at the time that it named, then any server, then for a new lease.
fn keep(line: Line, mac: MacAddr, mut lease: Lease) {
    std::thread::spawn(move || {
        let mut backoff = Backoff::default();
        loop {
            std::thread::sleep(lease.renew);
            lease = loop {
                if let Some(new) = prolong(&line, mac, &lease) {
                    break new;
                }
                eprintln!("billet: {}: the lease of {} is not renewed yet", line.port, lease.address);
                std::thread::sleep(backoff.wait(random()));
            };
            backoff.reset();
        }
    });
}

fn prolong(line: &Line, mac: MacAddr, lease: &Lease) -> Option<Lease> {
    let ways = [
        Exchange::renew(mac, random(), lease),
        Exchange::rebind(mac, random(), lease),
        Exchange::solicit(mac, random()),
    ];
    let new = ways.into_iter().find_map(|way| line.talk(way, PROLONG).ok().flatten())?;
    if new.address != lease.address {
        if !take(line, mac, &new) {
            return None;
        }
        drop_address(&line.port, lease.address);
    }
    Some(new)
}

/// An address beyond link-local that the kernel made of an advertised prefix.
fn made_by_kernel(port: &str) -> Option<Ipv6Addr> {
    let ready = |(address, readiness): &(Ipv6Addr, _)| {
        !address.is_unicast_link_local() && *readiness == Readiness::Ready
    };
    list(port).into_iter().find(ready).map(|(address, _)| address)
}

fn wait_link_local(port: &str, longest: Duration) -> Option<Ipv6Addr> {
    wait_ready(port, longest, |address| address.is_unicast_link_local())
}

/// Waits for an address that can be used; `None` where there is none in time, or it is somebody else's.
fn wait_ready(port: &str, longest: Duration, wanted: impl Fn(Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
    let end = Instant::now() + longest;
    loop {
        match list(port).into_iter().find(|(address, _)| wanted(*address)) {
            Some((address, Readiness::Ready)) => return Some(address),
            Some((_, Readiness::Duplicate)) => return None,
            _ if Instant::now() >= end => return None,
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn list(port: &str) -> Vec<(Ipv6Addr, Readiness)> {
    inet6::addresses(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default(), port)
}
