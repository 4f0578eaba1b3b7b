//! Addresses for ports: which is the next, and which may be asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::MacAddr;
use uuid::Uuid;

use super::{Cidr, Subnet};

/// First three octets of the MAC addresses that Billet gives out: locally administered, unicast (IEEE 802-2014, 8.2).
pub const MAC_PREFIX: [u8; 3] = [0x0a, 0xb1, 0x1e];
/// Addresses under that prefix.
const MACS: u32 = 1 << 24;

/// Why an address is not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// All of them are somebody's.
    #[error("no address is left in {cidr}: {taken} are given out; add a pool or another subnet")]
    Exhausted {
        /// Of the subnet.
        cidr: Cidr,
        /// So many of the subnet are somebody's.
        taken: usize,
    },
    /// Not of this subnet.
    #[error("{address} is no address for a machine in {cidr}")]
    Outside {
        /// That was asked for.
        address: IpAddr,
        /// Of the subnet.
        cidr: Cidr,
    },
    /// The router's.
    #[error("{0} is the subnet's gateway, or answers its DHCP")]
    Service(IpAddr),
    /// Somebody has it.
    #[error("{0} is taken")]
    Taken(IpAddr),
    /// Not one MAC address is left.
    #[error("all {MACS} MAC addresses are given out")]
    Macs,
}

/// The lowest free address of a subnet's pools. `taken` are the addresses of its network that somebody has.
///
/// # Errors
/// [`IpamError::Exhausted`].
pub fn next(subnet: &Subnet, taken: &BTreeSet<IpAddr>) -> Result<IpAddr, IpamError> {
    let hosts = subnet.cidr.hosts();
    let pools = if subnet.pools.is_empty() { std::slice::from_ref(&hosts) } else { &subnet.pools };
    // Each step passes an address that somebody has: no more steps than those and one.
    let free = |address: &IpAddr| {
        !taken.contains(address) && !subnet.reserved.contains(address) && *address != subnet.service_address()
    };
    let found = pools.iter().find_map(|pool| pool.addresses().find(free));
    found.ok_or_else(|| {
        let cidr = subnet.cidr;
        IpamError::Exhausted { cidr, taken: taken.iter().filter(|address| cidr.contains(**address)).count() }
    })
}

/// Whether a port may have this very address, also a reserved one and one beyond the pools.
///
/// # Errors
/// [`IpamError`].
pub fn exactly(subnet: &Subnet, taken: &BTreeSet<IpAddr>, address: IpAddr) -> Result<(), IpamError> {
    if !subnet.cidr.hosts().contains(address) {
        return Err(IpamError::Outside { address, cidr: subnet.cidr });
    }
    if address == subnet.service_address() {
        return Err(IpamError::Service(address));
    }
    if taken.contains(&address) { Err(IpamError::Taken(address)) } else { Ok(()) }
}

/// A MAC address for what has this id, which is chance: the next free one from there.
///
/// # Errors
/// [`IpamError::Macs`].
pub fn mac(id: Uuid, taken: &BTreeSet<MacAddr>) -> Result<MacAddr, IpamError> {
    let [.., a, b, c] = *id.as_bytes();
    let begin = u32::from_be_bytes([0, a, b, c]);
    let mut all = (0..MACS).map(|n| {
        let [_, a, b, c] = ((begin + n) % MACS).to_be_bytes();
        let [x, y, z] = MAC_PREFIX;
        MacAddr([x, y, z, a, b, c])
    });
    all.find(|mac| !taken.contains(mac)).ok_or(IpamError::Macs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::NetworkId;

    use super::*;

    fn subnet(cidr: &str, gateway: &str, pools: &[&str]) -> Subnet {
        Subnet {
            network: NetworkId(Uuid::nil()),
            cidr: cidr.parse().unwrap(),
            gateway: gateway.parse().ok(),
            pools: pools.iter().map(|p| p.parse().unwrap()).collect(),
            reserved: BTreeSet::new(),
            dns: Vec::new(),
            dhcp: true,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_order_and_end() {
        let mut subnet = subnet("10.0.0.0/29", "10.0.0.1", &[]);
        subnet.reserved.insert(address("10.0.0.3"));
        let mut taken = BTreeSet::new();
        for expected in ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"] {
            let given = next(&subnet, &taken).unwrap();
            assert_eq!(given, address(expected));
            taken.insert(given);
        }
        let exhausted = next(&subnet, &taken).unwrap_err();
        assert_eq!(
            exhausted.to_string(),
            "no address is left in 10.0.0.0/29: 4 are given out; add a pool or another subnet"
        );
        assert_eq!(exactly(&subnet, &taken, address("10.0.0.3")), Ok(()), "a reserved one by name");
        assert_eq!(exactly(&subnet, &taken, address("10.0.0.2")), Err(IpamError::Taken(address("10.0.0.2"))));
        assert_eq!(
            exactly(&subnet, &taken, address("10.0.0.1")),
            Err(IpamError::Service(address("10.0.0.1")))
        );
        for outside in ["10.0.0.0", "10.0.0.7", "10.0.1.2", "fd00::2"] {
            assert!(
                matches!(exactly(&subnet, &taken, address(outside)), Err(IpamError::Outside { .. })),
                "{outside}"
            );
        }
    }

    #[test]
    fn of_both_families_and_of_pools_alone() {
        let wide = subnet("fd00::/64", "fd00::1", &[]);
        assert_eq!(next(&wide, &BTreeSet::new()), Ok(address("fd00::2")));
        let pools = subnet("10.0.0.0/24", "", &["10.0.0.9-10.0.0.9", "10.0.0.20-10.0.0.21"]);
        assert_eq!(next(&pools, &BTreeSet::from([address("10.0.0.9")])), Ok(address("10.0.0.20")));
        let none = subnet("10.0.0.0/24", "", &[]);
        assert_eq!(next(&none, &BTreeSet::new()), Ok(address("10.0.0.2")), "the first answers DHCP");
    }

    #[test]
    fn macs_are_local_and_go_round() {
        let id = Uuid::from_u128(0xff_ffff);
        let first = mac(id, &BTreeSet::new()).unwrap();
        assert_eq!(first.to_string(), "0a:b1:1e:ff:ff:ff");
        assert_eq!(mac(id, &BTreeSet::from([first])).unwrap().to_string(), "0a:b1:1e:00:00:00");
        assert!(first.is_station() && first.0[0] & 2 != 0, "locally administered");
    }

    proptest! {
        /// Whatever is taken: what is given is free and of the subnet, and there is none only where all are taken.
        #[test]
        fn nothing_is_given_twice(taken in prop::collection::btree_set(0_u8..16, 0..16)) {
            let subnet = subnet("10.0.0.0/28", "10.0.0.1", &[]);
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(|n| IpAddr::from([10, 0, 0, n])).collect();
            match next(&subnet, &taken) {
                Ok(given) => prop_assert_eq!(exactly(&subnet, &taken, given), Ok(())),
                Err(_) => prop_assert!((2..15).all(|n| taken.contains(&IpAddr::from([10, 0, 0, n])))),
            }
        }
    }
}
