//! What the DHCP server is told: subnets with their pools, and what to boot. Checked once, here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::MacAddr;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::boot::BootFiles;
use super::lease::ClientKey;
use super::limits;
pub use super::net::{Ipv4Net, Range};

/// One network whose machines are served, be it on the server's own wire or behind a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network.
    pub net: Ipv4Net,
    /// Addresses to lend.
    pub pools: Vec<Range>,
    /// Default router.
    pub router: Option<Ipv4Addr>,
    /// DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// Length of a lease, [`limits::LEASE_MIN`] to [`limits::LEASE_MAX`].
    pub lease_time: Duration,
    /// Who is answered, and with what.
    pub mode: Mode,
    /// The machines are on the server's own wire, though the server's address is of another subnet.
    pub on_link: bool,
    /// Addresses of relays outside the network whose machines are of this subnet.
    pub relays: Vec<Ipv4Addr>,
    /// Addresses that are one machine's alone.
    pub reservations: Vec<Reservation>,
}

/// Who is answered in a subnet, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The one DHCP server: everybody gets an address, wrong addresses are refused.
    #[default]
    Authoritative,
    /// Beside the site's own DHCP server: network boots get a boot file and no address, others nothing (PXE 2.1
    /// section 2.2.3, ProxyDHCP).
    Proxy,
    /// Addresses for machines with a reservation and for known ones; others get nothing.
    Reserved,
    /// Nobody is answered.
    Off,
}

/// An address that one machine gets and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Whose.
    pub machine: Machine,
    /// The address: a host of the subnet, in a pool or not.
    pub ip: Ipv4Addr,
    /// The name told to the machine (option 12).
    pub hostname: Option<String>,
}

/// How a machine is told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// By its Ethernet address.
    Mac(MacAddr),
    /// By its SMBIOS UUID (option 97), which firmware sends and operating systems do not.
    Uuid(Uuid),
    /// By its client identifier (option 61).
    ClientId(Vec<u8>),
}

/// The whole server: authoritative for every subnet listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This server's address: the server identifier (option 54), and the subnet that holds it is the local one.
    pub server_ip: Ipv4Addr,
    /// Where boot files are fetched by TFTP; usually the same.
    pub next_server: Ipv4Addr,
    /// Base of all boot URLs without a trailing slash, such as `http://10.77.0.1:8080`.
    pub http_base: String,
    /// The same for firmware that boots by HTTP, where it is another: `https://...` once the site's CA is enrolled in it.
    /// iPXE is never sent there: as packaged it trusts public CAs alone.
    pub firmware_base: Option<String>,
    /// File names by architecture.
    pub boot: BootFiles,
    /// Subnets, at least one.
    pub subnets: Vec<Subnet>,
    /// Addresses of the local wire that were never used are probed by ARP before they are offered (RFC 2131 section
    /// 3.1, item 2).
    pub probe: bool,
}

/// Why a configuration cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A text that is no network.
    #[error("`{0}` is not a network (such as 10.77.0.0/24)")]
    Net(String),
    /// A text that is no range.
    #[error("`{0}` is not a range (such as 10.77.0.100-10.77.0.200)")]
    Range(String),
    /// No subnet.
    #[error("no subnet to serve")]
    NoSubnet,
    /// A pool reaches beyond its subnet's host addresses.
    #[error("pool {pool} is not within the hosts of {net}")]
    PoolOutside {
        /// The pool.
        pool: Range,
        /// The subnet.
        net: Ipv4Net,
    },
    /// Two subnets, or two pools, share addresses.
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
    /// Too many addresses.
    #[error("the pools of {0} hold more than {max} addresses", max = limits::POOL_MAX)]
    PoolSize(Ipv4Net),
    /// The lease time is absurd.
    #[error("a lease of {} s is not within {} s to {} s", .0.as_secs(), limits::LEASE_MIN.as_secs(), limits::LEASE_MAX.as_secs())]
    LeaseTime(Duration),
    /// Too many subnets or reservations.
    #[error("more than {0}")]
    TooMany(&'static str),
    /// A reserved address, or a relay's, that cannot be.
    #[error("{what} {ip} {why}")]
    Address {
        /// What it is meant for.
        what: &'static str,
        /// Which.
        ip: Ipv4Addr,
        /// Why it cannot be.
        why: String,
    },
    /// Two reservations for one machine in one subnet.
    #[error("{0} has two reservations in {1}")]
    ReservedTwice(Machine, Ipv4Net),
    /// A host name that no machine can have.
    #[error("`{0}` is not a host name (letters, digits and hyphens, at most 63)")]
    Hostname(String),
    /// The base URL cannot be used in a boot answer.
    #[error("`{0}` is not a base URL for boot files (such as http://10.77.0.1:8080)")]
    HttpBase(String),
}

impl Subnet {
    /// A subnet of the server's own wire that lends to everybody.
    pub fn new(net: Ipv4Net, pools: Vec<Range>, lease_time: Duration) -> Self {
        Self {
            net,
            pools,
            router: None,
            dns: Vec::new(),
            lease_time,
            mode: Mode::Authoritative,
            on_link: false,
            relays: Vec::new(),
            reservations: Vec::new(),
        }
    }

    /// Addresses in all pools.
    pub fn pool_len(&self) -> u64 {
        self.pools.iter().map(Range::len).sum()
    }

    /// True where the address is one that is lent here, to whoever it be.
    pub fn lends(&self, ip: Ipv4Addr) -> bool {
        matches!(self.mode, Mode::Authoritative | Mode::Reserved)
            && (self.pools.iter().any(|pool| pool.contains(ip))
                || self.reservations.iter().any(|r| r.ip == ip))
    }

    /// The n-th address of the pools taken together, counting from 0.
    pub fn nth(&self, mut n: u64) -> Option<Ipv4Addr> {
        for pool in &self.pools {
            if n < pool.len() {
                let n = u32::try_from(n).ok()?;
                return Some((u32::from(pool.first).checked_add(n)?).into());
            }
            n -= pool.len();
        }
        None
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (i, pool) in self.pools.iter().enumerate() {
            if !self.net.is_host(pool.first) || !self.net.is_host(pool.last) {
                return Err(ConfigError::PoolOutside { pool: *pool, net: self.net });
            }
            if let Some(other) =
                self.pools[..i].iter().find(|o| o.contains(pool.first) || pool.contains(o.first))
            {
                return Err(ConfigError::Overlap(other.to_string(), pool.to_string()));
            }
        }
        if self.pool_len() > limits::POOL_MAX {
            return Err(ConfigError::PoolSize(self.net));
        }
        if !(limits::LEASE_MIN..=limits::LEASE_MAX).contains(&self.lease_time) {
            return Err(ConfigError::LeaseTime(self.lease_time));
        }
        if let Some(ip) = self.router.filter(|ip| !self.net.is_host(*ip)) {
            let why = format!("is not a host of {}", self.net);
            return Err(ConfigError::Address { what: "router", ip, why });
        }
        self.check_reservations()
    }

    fn check_reservations(&self) -> Result<(), ConfigError> {
        let (mut addresses, mut machines) = (BTreeSet::new(), BTreeSet::new());
        for Reservation { machine, ip, hostname } in &self.reservations {
            let why = if !self.net.is_host(*ip) {
                Some(format!("is not a host of {}", self.net))
            } else if self.router == Some(*ip) {
                Some("is the router's".to_owned())
            } else if !addresses.insert(*ip) {
                Some("is reserved twice".to_owned())
            } else {
                None
            };
            if let Some(why) = why {
                return Err(ConfigError::Address { what: "reserved address", ip: *ip, why });
            }
            if !machines.insert(machine) {
                return Err(ConfigError::ReservedTwice(machine.clone(), self.net));
            }
            if let Some(name) = hostname.as_ref().filter(|name| !is_hostname(name)) {
                return Err(ConfigError::Hostname(name.clone()));
            }
        }
        Ok(())
    }
}

/// One label of RFC 1123 section 2.1.
fn is_hostname(name: &str) -> bool {
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (1..=63).contains(&name.len()) && inner && !name.starts_with('-') && !name.ends_with('-')
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::ClientId(id) => write!(f, "client id {}", ClientKey::Id(id.clone())),
        }
    }
}

impl Config {
    /// Checks everything that the types do not.
    ///
    /// # Errors
    /// [`ConfigError`], the first fault found.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.subnets.is_empty() {
            return Err(ConfigError::NoSubnet);
        }
        if self.subnets.len() > limits::SUBNETS_MAX {
            return Err(ConfigError::TooMany("1024 subnets"));
        }
        if self.subnets.iter().map(|s| s.reservations.len()).sum::<usize>() > limits::RESERVATIONS_MAX {
            return Err(ConfigError::TooMany("100000 reservations"));
        }
        for (i, subnet) in self.subnets.iter().enumerate() {
            subnet.check()?;
            if let Some(other) = self.subnets[..i].iter().find(|o| o.net.overlaps(&subnet.net)) {
                return Err(ConfigError::Overlap(other.net.to_string(), subnet.net.to_string()));
            }
            let taken = |ip: &Ipv4Addr| *ip == self.server_ip || *ip == self.next_server;
            if let Some(ip) = subnet.reservations.iter().map(|r| r.ip).find(taken) {
                let why = "is this server's own".to_owned();
                return Err(ConfigError::Address { what: "reserved address", ip, why });
            }
            if let Some(ip) = subnet.relays.iter().copied().find(|ip| self.subnet_of(*ip).is_some()) {
                let why = "is of a subnet already, which it selects by itself".to_owned();
                return Err(ConfigError::Address { what: "relay", ip, why });
            }
        }
        for base in [Some(&self.http_base), self.firmware_base.as_ref()].into_iter().flatten() {
            let printable = base.bytes().all(|b| b.is_ascii_graphic());
            let scheme = base.starts_with("http://") || base.starts_with("https://");
            if !scheme || !printable || base.ends_with('/') || base.len() > 80 {
                return Err(ConfigError::HttpBase(base.clone()));
            }
        }
        Ok(())
    }

    /// The subnet that holds the address.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.net.contains(address))
    }

    /// Addresses that are in use by other means and so are never lent.
    pub(crate) fn taken(&self, subnet: &Subnet) -> impl Iterator<Item = Ipv4Addr> {
        [Some(self.server_ip), Some(self.next_server), subnet.router].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::server::tests::config;

    #[test]
    fn faults_are_named() {
        assert_eq!(config().check(), Ok(()));
        let with = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        let outside = with(|c| c.subnets[0].pools = vec!["10.77.0.100-10.77.1.5".parse().unwrap()]);
        assert_eq!(outside, "pool 10.77.0.100-10.77.1.5 is not within the hosts of 10.77.0.0/24");
        let twice = with(|c| c.subnets[0].pools.push("10.77.0.102-10.77.0.110".parse().unwrap()));
        assert_eq!(twice, "10.77.0.100-10.77.0.103 and 10.77.0.102-10.77.0.110 overlap");
        let base = with(|c| c.http_base = "http://10.77.0.1:8080/".into());
        assert_eq!(
            base,
            "`http://10.77.0.1:8080/` is not a base URL for boot files (such as http://10.77.0.1:8080)"
        );
        let mut subnet = config().subnets.remove(0);
        let lends = |subnet: &Subnet| [99, 100, 103, 104].map(|n| subnet.lends(Ipv4Addr::new(10, 77, 0, n)));
        assert_eq!(lends(&subnet), [false, true, true, false]);
        let machine = Machine::Mac(MacAddr([2, 0, 0, 0, 0, 1]));
        subnet.reservations.push(Reservation { machine, ip: [10, 77, 0, 104].into(), hostname: None });
        assert_eq!(lends(&subnet), [false, true, true, true], "a reserved address");
        subnet.mode = Mode::Proxy;
        assert_eq!(lends(&subnet), [false; 4]);
        assert_eq!(with(|c| c.subnets.clear()), "no subnet to serve");
        assert_eq!(
            with(|c| c.subnets[0].lease_time = Duration::from_secs(1)),
            "a lease of 1 s is not within 120 s to 2592000 s"
        );
    }
}
