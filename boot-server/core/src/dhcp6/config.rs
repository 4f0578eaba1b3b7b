//! What the DHCPv6 server is told: subnets with their ranges, and what to boot. Checked once, here.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::limits;
use crate::dhcp::BootFiles;

/// An IPv6 network such as `fd77::/64`. Host bits are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Net {
    network: u128,
    prefix: u8,
}

/// A run of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub first: Ipv6Addr,
    /// Last address, not below the first.
    pub last: Ipv6Addr,
}

/// One network whose machines are served, be it on the server's own wire or behind a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network.
    pub net: Ipv6Net,
    /// Addresses to lend.
    pub range: Range,
    /// DNS servers.
    pub dns: Vec<Ipv6Addr>,
    /// Valid lifetime of a lease, [`limits::LEASE_MIN`] to [`limits::LEASE_MAX`].
    pub lease_time: Duration,
}

/// The whole server: authoritative for every subnet listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This server's address; the subnet that holds it is the local one.
    pub address: Ipv6Addr,
    /// This server's DHCP unique identifier (RFC 8415 section 11); the same for ever.
    pub duid: Vec<u8>,
    /// Preference (option 7). At 255 clients wait for no other server.
    pub preference: u8,
    /// Base of all boot URLs without a trailing slash, such as `http://[fd77::1]:8080`.
    pub http_base: String,
    /// File names by architecture.
    pub boot: BootFiles,
    /// Subnets, at least one.
    pub subnets: Vec<Subnet>,
}

/// Why a configuration cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No subnet.
    #[error("no IPv6 subnet to serve")]
    NoSubnet,
    /// A range reaches beyond its subnet, or ends before it begins.
    #[error("the range {range} is not within {net}")]
    Range {
        /// The range.
        range: Range,
        /// The subnet.
        net: Ipv6Net,
    },
    /// Two subnets share addresses.
    #[error("{0} and {1} overlap")]
    Overlap(Ipv6Net, Ipv6Net),
    /// The lease time is absurd.
    #[error("a lease of {} s is not within {} s to {} s", .0.as_secs(), limits::LEASE_MIN.as_secs(), limits::LEASE_MAX.as_secs())]
    LeaseTime(Duration),
    /// The server identifier is empty or too long.
    #[error("a DHCP unique identifier has 3 to {max} octets", max = limits::DUID_MAX)]
    Duid,
    /// The base URL cannot be used in a boot answer.
    #[error("`{0}` is not a base URL for boot files (such as http://[fd77::1]:8080)")]
    HttpBase(String),
}

impl Ipv6Net {
    /// The network of `address` with a prefix of at most 128 bits; a longer one counts as 128.
    pub fn new(address: Ipv6Addr, prefix: u8) -> Self {
        let prefix = prefix.min(128);
        Self { network: u128::from(address) & mask(prefix), prefix }
    }

    /// True where the address lies in the network.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        u128::from(address) & mask(self.prefix) == self.network
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network.into()) || other.contains(self.network.into())
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.network), self.prefix)
    }
}

impl Range {
    /// True where the address is one of it.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The address `n` places after the first, going round at the end.
    pub fn nth(&self, n: u64) -> Ipv6Addr {
        let (first, last) = (u128::from(self.first), u128::from(self.last));
        let len = last.saturating_sub(first).saturating_add(1);
        (first + u128::from(n) % len).into()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
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
            let Subnet { net, range, lease_time, .. } = subnet;
            if range.first > range.last || !net.contains(range.first) || !net.contains(range.last) {
                return Err(ConfigError::Range { range: *range, net: *net });
            }
            if !(limits::LEASE_MIN..=limits::LEASE_MAX).contains(lease_time) {
                return Err(ConfigError::LeaseTime(*lease_time));
            }
            if let Some(other) = self.subnets[..i].iter().find(|o| o.net.overlaps(net)) {
                return Err(ConfigError::Overlap(other.net, *net));
            }
        }
        if !(3..=limits::DUID_MAX).contains(&self.duid.len()) {
            return Err(ConfigError::Duid);
        }
        let printable = self.http_base.bytes().all(|b| b.is_ascii_graphic());
        let scheme = self.http_base.starts_with("http://") || self.http_base.starts_with("https://");
        if !scheme || !printable || self.http_base.ends_with('/') || self.http_base.len() > 80 {
            return Err(ConfigError::HttpBase(self.http_base.clone()));
        }
        Ok(())
    }

    /// The subnet that holds the address.
    pub fn subnet_of(&self, address: Ipv6Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|s| s.net.contains(address))
    }

    /// True where the address may be lent in the subnet: of its range, and not our own.
    pub(crate) fn lends(&self, subnet: &Subnet, address: Ipv6Addr) -> bool {
        // The address with a host part of zero belongs to the routers (RFC 4291 section 2.6.1).
        let anycast = u128::from(address) == subnet.net.network;
        subnet.range.contains(address) && address != self.address && !anycast
    }
}
