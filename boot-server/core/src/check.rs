//! What would keep machines from booting, out of facts that others gathered: findings about the network, and about a
//! machine that began to boot and went no further.

use std::fmt;
use std::net::Ipv4Addr;

use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use crate::dhcp::{Ipv4Net, Range};

mod firewall;
mod machine;
mod offer;

pub use firewall::blocked;
pub use machine::{Story, story};
pub use offer::{Offer, discover, offer};

/// What every Ethernet carries, in octets; firmware expects it.
const MTU: u32 = 1500;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = FindingSeverity))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Machines do not boot.
    Error,
    /// Some machines do not boot, or not always.
    Warning,
    /// It could not be looked at, or is good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Something that was found, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// Names the kind of finding for programs; never changes its meaning.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is.
    pub what: String,
    /// What to do.
    pub todo: String,
}

impl Finding {
    /// The configuration itself cannot be used.
    pub fn of_configuration(why: &str) -> Self {
        Self::new(
            Severity::Error,
            "config.unusable",
            why,
            "correct the configuration; every key is explained in the example file",
        )
    }

    fn new(severity: Severity, code: &str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { code: code.to_owned(), severity, what: what.into(), todo: todo.into() }
    }
}

/// What was gathered.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Name of the provisioning interface.
    pub interface: String,
    /// The interface as it is; `None` where there is none of that name.
    pub link: Option<Link>,
    /// Our address there.
    pub address: Option<Ipv4Addr>,
    /// DHCP gives out addresses here.
    pub lends: bool,
    /// Another server is meant to lend the addresses ([`Mode::Proxy`](crate::dhcp::Mode::Proxy)).
    pub proxy: bool,
    /// The pools of the interface's own subnet.
    pub pools: Vec<Range>,
    /// Subnets behind relays, with when a packet last came from each.
    pub relayed: Vec<(Ipv4Net, Option<Timestamp>)>,
    /// Relays whose network no subnet is configured for.
    pub unknown_relays: Vec<Ipv4Addr>,
    /// Ports that we need and somebody else has.
    pub taken: Vec<Taken>,
    /// Answers of other DHCP servers to a DISCOVER of ours.
    pub offers: Vec<Offer>,
    /// Who answered ARP for an address that should be free, or ours.
    pub occupied: Vec<(Ipv4Addr, MacAddr)>,
    /// Boot files that are missing, in words.
    pub missing: Vec<String>,
    /// The packet filter, as `nft list ruleset` prints it; `None` where it could not be read.
    pub filter: Option<String>,
    /// UDP and TCP ports that machines come to.
    pub ports: Vec<Port>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// A port that machines come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Number.
    pub number: u16,
    /// What for.
    pub what: &'static str,
}

/// A port that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub port: Port,
    /// Who, such as `dnsmasq (pid 812)`.
    pub by: String,
}

/// An interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// It is switched on.
    pub up: bool,
    /// A cable with something at its other end.
    pub carrier: bool,
    /// Octets in a packet.
    pub mtu: u32,
    /// It has an IPv4 address.
    pub ipv4: bool,
    /// It has an IPv6 address.
    pub ipv6: bool,
}

/// What follows from the facts; what matters most comes first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = link(facts);
    all.extend(facts.taken.iter().map(taken));
    all.extend(
        facts.offers.iter().filter(|o| !facts.proxy || o.address.is_none()).map(|o| other_server(facts, o)),
    );
    all.extend(facts.occupied.iter().map(|(address, mac)| occupied(facts, *address, *mac)));
    all.extend(relays(facts));
    all.extend(filter(facts));
    all.extend(facts.missing.iter().map(|what| {
        Finding::new(
            Severity::Error,
            "files.missing",
            what,
            "install the package that is named, or build the ramdisk, and start billet again",
        )
    }));
    all.extend(facts.unseen.iter().map(|what| {
        Finding::new(
            Severity::Note,
            "check.incomplete",
            what,
            "run as root on the server, with what is named installed",
        )
    }));
    all.sort_by_key(|finding| finding.severity);
    all
}

fn link(facts: &Facts) -> Vec<Finding> {
    let name = &facts.interface;
    let error = |code, what: String, todo: String| Finding::new(Severity::Error, code, what, todo);
    let Some(link) = facts.link else {
        let todo = "set provisioning.interface to one of this machine's interfaces (`ip link` lists them)";
        return vec![error("link.missing", format!("there is no interface {name}"), todo.to_owned())];
    };
    let mut all = Vec::new();
    if !link.up {
        all.push(error("link.down", format!("{name} is switched off"), format!("ip link set {name} up")));
    } else if !link.carrier {
        let todo = "check cable, switch port and transceiver; a bridge has carrier once one of its ports has"
            .to_owned();
        all.push(error(
            "link.no_carrier",
            format!("{name} has no carrier: nothing is at its other end"),
            todo,
        ));
    }
    // Where it speaks IPv6 alone, none is missed.
    if !link.ipv4 && (facts.address.is_some() || !link.ipv6) {
        let todo = format!("give it a fixed one, such as `ip addr add 10.0.0.1/24 dev {name}`");
        all.push(error("link.no_address", format!("{name} has no IPv4 address"), todo));
    }
    if !link.ipv6 {
        let what =
            format!("{name} has no IPv6 address, not even a link-local one: no machine boots over IPv6");
        let todo = format!(
            "nothing, where all machines boot over IPv4; else sysctl net.ipv6.conf.{name}.disable_ipv6=0"
        );
        all.push(Finding::new(Severity::Note, "link.no_ipv6", what, todo));
    }
    if link.mtu < MTU {
        let what = format!(
            "the MTU of {name} is {}: machines send {MTU} octets, and what is longer is lost",
            link.mtu
        );
        all.push(Finding::new(
            Severity::Warning,
            "link.small_mtu",
            what,
            format!("ip link set {name} mtu {MTU}; a tunnel below it must carry its own headers beside that"),
        ));
    }
    all
}

fn taken(taken: &Taken) -> Finding {
    let Port { protocol, number, what } = taken.port;
    Finding::new(
        Severity::Error,
        "port.taken",
        format!("{protocol} port {number} ({what}) is in use by {}", taken.by),
        "stop that program, bind it to another interface, or switch the part of billet off that needs the port",
    )
}

fn other_server(facts: &Facts, offer: &Offer) -> Finding {
    let who = format!("{} ({})", offer.server, offer.mac);
    let inside = offer.address.filter(|a| facts.pools.iter().any(|p| (p.first..=p.last).contains(a)));
    match (inside, offer.address) {
        (Some(address), _) => Finding::new(
            Severity::Error,
            "dhcp.duplicate_pool",
            format!(
                "DHCP server {who} on {} offers {address}, which lies in the pool of this one",
                facts.interface
            ),
            "give the two servers pools that do not overlap, or let only one lend addresses (dhcp.mode = \"proxy\")",
        ),
        (None, Some(address)) => Finding::new(
            if facts.lends { Severity::Error } else { Severity::Warning },
            "dhcp.other_server",
            format!("another DHCP server answers on {}: {who} offers {address}", facts.interface),
            "switch it off, or set dhcp.mode = \"proxy\" so that it lends the addresses and billet only boots machines",
        ),
        (None, None) => Finding::new(
            Severity::Error,
            "dhcp.other_boot_server",
            format!("another boot server (ProxyDHCP) answers on {}: {who}", facts.interface),
            "switch it off: a machine takes the first boot server that answers",
        ),
    }
}

fn occupied(facts: &Facts, address: Ipv4Addr, mac: MacAddr) -> Finding {
    if facts.address == Some(address) {
        return Finding::new(
            Severity::Error,
            "address.duplicate",
            format!("this server's address {address} is also that of {mac}"),
            "give one of the two another address; until then machines reach now the one, now the other",
        );
    }
    Finding::new(
        Severity::Warning,
        "address.in_pool",
        format!("{mac} uses {address}, which lies in the pool and is not lent to it"),
        "reserve the address for that machine, or make the pool smaller",
    )
}

fn relays(facts: &Facts) -> Vec<Finding> {
    let silent = facts.relayed.iter().filter(|(_, seen)| seen.is_none()).map(|(net, _)| {
        Finding::new(
            Severity::Warning,
            "relay.silent",
            format!("no packet ever came from the relay of {net}"),
            "where machines are on there already: point that network's relay (ip helper-address) at this server, and \
             check the route back to it",
        )
    });
    let unknown = facts.unknown_relays.iter().map(|relay| {
        Finding::new(
            Severity::Error,
            "relay.no_subnet",
            format!("relay {relay} forwards requests, but no subnet is configured for its network"),
            "add a [[dhcp.subnet]] for it, or stop the relay",
        )
    });
    silent.chain(unknown).collect()
}

fn filter(facts: &Facts) -> Vec<Finding> {
    let Some(rules) = &facts.filter else { return Vec::new() };
    let blocked = blocked(rules, &facts.interface, &facts.ports);
    blocked
        .into_iter()
        .map(|Port { protocol, number, what }| {
            Finding::new(
                Severity::Warning,
                "firewall.blocked",
                format!("the packet filter of this machine drops {protocol} port {number} ({what})"),
                format!(
                    "accept it: nft add rule inet filter input iifname {} {protocol} dport {number} accept",
                    facts.interface
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
