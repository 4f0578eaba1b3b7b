//! Networks and runs of addresses of both families, read from text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A network such as `10.0.0.0/24` or `fd00::/64`; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

/// A run of addresses of one family, both ends included, such as `10.0.0.10-10.0.0.99`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No network.
    #[error(
        "`{0}` is not a network: it is written as 10.0.0.0/24 or fd00::/64, without bits after the prefix"
    )]
    Cidr(String),
    /// No range.
    #[error("`{0}` is not a range: it is written as 10.0.0.10-10.0.0.99, the first not above the last")]
    Range(String),
}

impl Family {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            // The number came from an address of this family, or one of its network.
            Self::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Cidr {
    /// `None` where the prefix is too long for the family, or bits follow it.
    pub fn new(first: IpAddr, prefix: u8) -> Option<Self> {
        let bits = Family::of(first).bits();
        let cidr = (prefix <= bits).then_some(Self { first, prefix })?;
        (number(first) & cidr.host_mask() == 0).then_some(cidr)
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Bits of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// True where the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.family() == Family::of(address) && number(address) & !self.host_mask() == number(self.first)
    }

    /// True where some address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses that machines may have: for IPv4 without the network's own and the broadcast address, for IPv6
    /// without the first (RFC 4291 section 2.6.1: the routers' anycast address).
    pub fn hosts(&self) -> AddressRange {
        let (first, last) = (number(self.first), number(self.first) | self.host_mask());
        let (first, last) = match (self.family(), self.family().bits() - self.prefix) {
            (_, 0 | 1) => (first, last),
            (Family::V4, _) => (first + 1, last - 1),
            (Family::V6, _) => (first + 1, last),
        };
        AddressRange { first: self.family().address(first), last: self.family().address(last) }
    }

    fn host_mask(&self) -> u128 {
        let host = self.family().bits() - self.prefix;
        1_u128.checked_shl(host.into()).map_or(u128::MAX, |bit| bit - 1)
    }
}

impl AddressRange {
    /// `None` where the ends are of two families, or the last is below the first.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (Family::of(first) == Family::of(last) && first <= last).then_some(Self { first, last })
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address, not below the first.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// True where the address is one of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(self.first) == Family::of(address) && (self.first..=self.last).contains(&address)
    }

    /// True where some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many addresses it has; `u128::MAX` for all of IPv6.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// All its addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let family = Family::of(self.first);
        (number(self.first)..=number(self.last)).map(move |n| family.address(n))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let read = || {
            let (first, prefix) = text.split_once('/')?;
            Self::new(first.parse().ok()?, prefix.parse().ok()?)
        };
        read().ok_or_else(|| CidrError::Cidr(text.to_owned()))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for AddressRange {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let read = || {
            let (first, last) = text.split_once('-')?;
            Self::new(first.trim().parse().ok()?, last.trim().parse().ok()?)
        };
        read().ok_or_else(|| CidrError::Range(text.to_owned()))
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for AddressRange {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_and_their_hosts() {
        for (text, hosts, count) in [
            ("10.0.0.0/24", "10.0.0.1-10.0.0.254", 254),
            ("10.0.0.0/30", "10.0.0.1-10.0.0.2", 2),
            ("10.0.0.0/31", "10.0.0.0-10.0.0.1", 2),
            ("10.0.0.7/32", "10.0.0.7-10.0.0.7", 1),
            ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", u128::from(u64::MAX)),
            ("::/0", "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
            ("0.0.0.0/0", "0.0.0.1-255.255.255.254", (1 << 32) - 2),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(
                (cidr.to_string(), cidr.hosts().to_string(), cidr.hosts().count()),
                (text.into(), hosts.into(), count)
            );
        }
        for bad in ["10.0.0.1/24", "10.0.0.0/33", "fd00::/129", "10.0.0.0", "x/1", "10.0.0.0/-1", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        for bad in ["10.0.0.2-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1", "-"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        let net: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(!net.contains("::a00:1".parse().unwrap()), "a number is not an address");
    }

    proptest! {
        /// Two networks overlap exactly where one holds the other.
        #[test]
        fn overlap(a in any::<u32>(), b in any::<u32>(), p in 0_u8..=32, q in 0_u8..=32) {
            let cidr = |n: u32, p: u8| {
                let mask = u32::MAX.checked_shl(32 - u32::from(p)).unwrap_or(0);
                Cidr::new(Ipv4Addr::from(n & mask).into(), p).unwrap()
            };
            let (a, b) = (cidr(a, p), cidr(b, q));
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            let (wide, narrow) = if p <= q { (a, b) } else { (b, a) };
            prop_assert_eq!(a.overlaps(&b), wide.contains(narrow.hosts().first()));
        }
    }
}
