//! Networks and runs of addresses, read from text.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::config::ConfigError;

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

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
