//! `billet check-network`: gathers what [`boot_server_core::check`] judges. It looks and asks; it changes nothing, but
//! that another DHCP server may hold the address that it offered for a while.

mod ports;
mod probe;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use boot_server_core::boot_files::Architecture;
use boot_server_core::check::{Facts, Finding, Link, Port, findings};
use boot_server_core::dhcp::{Ipv4Net, Mode};
use protocol::Timestamp;

use crate::config::{Config, Settings};
use crate::http::BootFiles;
use crate::http::files::Processor;
use crate::loaders::Loaders;
use crate::net;

/// Addresses of the pools that are asked for by ARP. A larger pool is looked at up to here.
const ADDRESSES_MAX: usize = 256;

/// What a running server knows beside.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Addresses that are lent now.
    pub lent: BTreeSet<Ipv4Addr>,
    /// Relays that packets came from, and when last.
    pub relays: Vec<(Ipv4Addr, Timestamp)>,
}

/// Looks at the network of a configuration that may not even be usable. Takes some seconds; blocks.
pub fn before_serving(config: &Config) -> Vec<Finding> {
    let settings = crate::config::interfaces().and_then(|found| Settings::new(config, &found));
    match settings {
        Ok(settings) => look(&settings, None),
        Err(error) => {
            let mut facts = Facts::default();
            if let Some(name) = &config.provisioning.interface {
                facts.interface.clone_from(name);
                facts.link = link(name);
            } else {
                facts.interface = "(none named)".to_owned();
            }
            let mut all = findings(&facts);
            // Where the link explains it, the link is what to mend.
            if all.iter().all(|f| f.severity != boot_server_core::check::Severity::Error) {
                all.insert(0, Finding::of_configuration(&error.to_string()));
            }
            all
        }
    }
}

/// Looks at the network of a server that can run or, with `known`, does. Takes some seconds; blocks.
pub fn look(settings: &Settings, known: Option<&Known>) -> Vec<Finding> {
    findings(&gather(settings, known))
}

fn gather(settings: &Settings, known: Option<&Known>) -> Facts {
    let own = settings.dhcp.as_ref().and_then(|lending| lending.subnets.first());
    let lends = own.is_some_and(|subnet| matches!(subnet.mode, Mode::Authoritative | Mode::Reserved));
    let ports = ports_of(settings);
    let address = settings.ipv4.map(|network| network.address);
    let mut facts = Facts {
        interface: settings.interface.clone(),
        link: link(&settings.interface),
        address,
        lends,
        proxy: own.is_some_and(|subnet| subnet.mode == Mode::Proxy),
        pools: own.filter(|_| lends).map(|subnet| subnet.pools.clone()).unwrap_or_default(),
        missing: missing(settings),
        ports,
        ..Facts::default()
    };
    match known {
        // What serves has its ports.
        Some(known) => relays(settings, known, &mut facts),
        None => facts.taken = ports::taken(&facts.ports, address),
    }
    facts.filter = filter(&mut facts.unseen);
    if facts.link.is_some_and(|link| link.up && link.carrier) {
        let lent = known.map(|known| &known.lent);
        let pool = facts.pools.iter().flat_map(|pool| u32::from(pool.first)..=u32::from(pool.last));
        let free = pool.map(Ipv4Addr::from).filter(|a| !lent.is_some_and(|lent| lent.contains(a)));
        let addresses: Vec<_> = address.into_iter().chain(free.take(ADDRESSES_MAX)).collect();
        match probe::run(&settings.interface, &addresses) {
            Ok(heard) => {
                // Before serving nobody knows who has which lease of an earlier run, so only our own address counts.
                let counts = |a: &Ipv4Addr| known.is_some() || Some(*a) == address;
                facts.occupied = heard.occupied.into_iter().filter(|(a, _)| counts(a)).collect();
                facts.offers = heard.offers.into_values().filter(|o| Some(o.server) != address).collect();
            }
            Err(error) => facts.unseen.push(format!("other DHCP servers were not looked for: {error}")),
        }
    }
    facts
}

fn ports_of(settings: &Settings) -> Vec<Port> {
    let port = |protocol, number, what| Port { protocol, number, what };
    let mut ports = Vec::new();
    if let Some(lending) = &settings.dhcp {
        ports.push(port("udp", 67, "DHCP"));
        if lending.subnets.iter().any(|subnet| subnet.mode == Mode::Proxy) {
            ports.push(port("udp", 4011, "PXE boot server"));
        }
    }
    if settings.tftp {
        ports.push(port("udp", 69, "TFTP"));
    }
    ports.push(port("tcp", settings.port, "boot scripts, ramdisk and images"));
    ports
}

fn relays(settings: &Settings, known: &Known, facts: &mut Facts) {
    let Some(lending) = &settings.dhcp else { return };
    let serves = |net: &Ipv4Net, further: &[Ipv4Addr], relay: &Ipv4Addr| {
        net.contains(*relay) || further.contains(relay)
    };
    for subnet in lending
        .subnets
        .iter()
        .filter(|s| !s.on_link && !settings.ipv4.is_some_and(|own| s.net.contains(own.address)))
    {
        let seen = known.relays.iter().filter(|(relay, _)| serves(&subnet.net, &subnet.relays, relay));
        facts.relayed.push((subnet.net, seen.map(|(_, at)| *at).max()));
    }
    let unknown = known.relays.iter().map(|(relay, _)| *relay);
    facts.unknown_relays =
        unknown.filter(|r| !lending.subnets.iter().any(|s| serves(&s.net, &s.relays, r))).collect();
}

fn missing(settings: &Settings) -> Vec<String> {
    let loaders = Loaders::new(settings).boot_files(settings.secure_boot);
    let loaders = [Architecture::BIOS, Architecture::EFI_X64]
        .into_iter()
        .filter_map(|architecture| loaders.loader(architecture).err().map(|missing| missing.to_string()));
    let ramdisk = BootFiles::new(settings).missing(Processor::X64);
    loaders.chain(ramdisk.map(|missing| format!("machines cannot boot the agent: {missing}"))).collect()
}

/// The interface as the kernel shows it below `/sys/class/net`.
fn link(name: &str) -> Option<Link> {
    let read = |what: &str| fs::read_to_string(format!("/sys/class/net/{name}/{what}"));
    let number = |text: String| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
    /// IFF_UP of netdevice(7).
    const UP: u32 = 1;
    let up = read("flags").ok().and_then(number)? & UP != 0;
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    let (mut ipv4, mut ipv6) = (false, false);
    for address in addresses.filter(|a| a.interface_name == name).filter_map(|a| a.address) {
        ipv4 |= address.as_sockaddr_in().is_some();
        ipv6 |= address.as_sockaddr_in6().is_some();
    }
    Some(Link {
        up,
        // Reading it of an interface that is down is an error.
        carrier: read("carrier").is_ok_and(|text| text.trim() == "1"),
        mtu: read("mtu").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        ipv4,
        ipv6,
    })
}

/// The rules of the packet filter. A kernel without rules has no table; without the program nothing can be said.
fn filter(unseen: &mut Vec<String>) -> Option<String> {
    match Command::new("nft").args(["list", "ruleset"]).output() {
        Ok(out) if out.status.success() => Some(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(out) => {
            let why = String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or_default().to_owned();
            unseen.push(format!("the packet filter was not looked at: nft says {why}"));
            None
        }
        Err(_) => {
            unseen.push(
                "the packet filter was not looked at: `nft` (package nftables) is not installed".to_owned(),
            );
            None
        }
    }
}

/// The interface's own hardware address.
fn interface(name: &str) -> std::io::Result<net::Interface> {
    net::Interface::find(name).map_err(std::io::Error::other)
}
