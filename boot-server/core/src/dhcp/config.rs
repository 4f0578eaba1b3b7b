//! What the DHCP server is told: subnets with their pools, and what to boot. Checked once, here.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use super::boot::BootFiles;
use super::limits;

/// An IPv4 network such as `10.77.0.0/24`. Host bits are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    network: u32,
    prefix: u8,
}

/// A run of addresses, both ends included, such as `10.77.0.100-10.77.0.200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below the first.
    pub last: Ipv4Addr,
}

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
    /// File names by architecture.
    pub boot: BootFiles,
    /// Subnets, at least one.
    pub subnets: Vec<Subnet>,
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
    /// The base URL cannot be used in a boot answer.
    #[error("`{0}` is not a base URL for boot files (such as http://10.77.0.1:8080)")]
    HttpBase(String),
}

impl Ipv4Net {
    /// The network of `address` with a prefix of 0 to 30 bits; `None` for a longer one, which has no hosts to serve.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 30).then(|| Self { network: u32::from(address) & mask(prefix), prefix })
    }

    /// True where the address lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// True where the address is one a host can have: not the network's own and not its broadcast address.
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        self.contains(address) && u32::from(address) != self.network && address != self.broadcast()
    }

    /// The subnet mask.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix).into()
    }

    /// The directed broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        (self.network | !mask(self.prefix)).into()
    }

    /// All host addresses.
    pub fn hosts(&self) -> Range {
        Range { first: (self.network + 1).into(), last: (u32::from(self.broadcast()) - 1).into() }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network.into()) || other.contains(self.network.into())
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = ConfigError;
    fn from_str(s: &str) -> Result<Self, ConfigError> {
        let parse = || {
            let (address, prefix) = s.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| ConfigError::Net(s.into()))
    }
}

impl Range {
    /// How many addresses it has.
    pub fn len(&self) -> u64 {
        u64::from(u32::from(self.last)).saturating_sub(u32::from(self.first).into()) + 1
    }

    /// Never: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// True where the address is one of it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for Range {
    type Err = ConfigError;
    fn from_str(s: &str) -> Result<Self, ConfigError> {
        let parse = || {
            let (first, last) = s.split_once('-')?;
            let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
            (range.first <= range.last).then_some(range)
        };
        parse().ok_or_else(|| ConfigError::Range(s.into()))
    }
}

impl Subnet {
    /// True where the address is in one of the pools.
    pub fn lends(&self, address: Ipv4Addr) -> bool {
        self.pools.iter().any(|p| p.contains(address))
    }

    /// Addresses in all pools.
    pub fn pool_len(&self) -> u64 {
        self.pools.iter().map(Range::len).sum()
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
        Ok(())
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
        for (i, subnet) in self.subnets.iter().enumerate() {
            subnet.check()?;
            if let Some(other) = self.subnets[..i].iter().find(|o| o.net.overlaps(&subnet.net)) {
                return Err(ConfigError::Overlap(other.net.to_string(), subnet.net.to_string()));
            }
        }
        let printable = self.http_base.bytes().all(|b| b.is_ascii_graphic());
        let scheme = self.http_base.starts_with("http://") || self.http_base.starts_with("https://");
        if !scheme || !printable || self.http_base.ends_with('/') || self.http_base.len() > 80 {
            return Err(ConfigError::HttpBase(self.http_base.clone()));
        }
        Ok(())
    }

    /// The subnet that holds the address.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.net.contains(address))
    }

    /// Addresses that are in use by other means and so are never lent.
    pub fn is_taken(&self, subnet: &Subnet, address: Ipv4Addr) -> bool {
        address == self.server_ip || address == self.next_server || Some(address) == subnet.router
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::server::tests::config;

    #[test]
    fn nets_and_ranges() {
        let net: Ipv4Net = "10.77.0.9/24".parse().unwrap();
        assert_eq!(net.to_string(), "10.77.0.0/24");
        assert_eq!(net.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(net.hosts().to_string(), "10.77.0.1-10.77.0.254");
        assert!(!net.is_host(Ipv4Addr::new(10, 77, 0, 0)) && !net.is_host(Ipv4Addr::new(10, 77, 0, 255)));
        assert_eq!("0.0.0.0/0".parse::<Ipv4Net>().unwrap().mask(), Ipv4Addr::UNSPECIFIED);
        for bad in ["10.77.0.0", "10.77.0.0/31", "10.77.0.0/-1", "x/24", ""] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
        for bad in ["10.0.0.1", "10.0.0.2-10.0.0.1", "-"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

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
        assert_eq!(with(|c| c.subnets.clear()), "no subnet to serve");
        assert_eq!(
            with(|c| c.subnets[0].lease_time = Duration::from_secs(1)),
            "a lease of 1 s is not within 120 s to 2592000 s"
        );
    }
}
