//! Networks of hosts without a DPU: each has a VLAN of its fabric, and a host's NICs are put into those of its server's ports.
//!
//! ```text
//!   network ── free_vlan ──▶ VLAN of a fabric, until the network is gone
//!   ports of a server, in their order ── places ──▶ NIC, as it is or tagged ── members ──▶ what each switch port is in
//! ```
//!
//! A fabric is all switches whose trunks carry the same VLANs. While the machine is the site's, each of its ports is in the
//! provisioning network; while it is a tenant's, none is.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{MacAddr, NetworkId, PortId};

use super::{Network, NetworkKind};
use crate::dpu::Side;

/// The last VLAN that can be used (IEEE 802.1Q-2022, table 9-2: 4095 is reserved).
pub const VLAN_MAX: u16 = 4094;

/// VLANs of a fabric that networks may have, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl VlanRange {
    /// As it is written: `100-199`, or one alone. `None` for what is no range of VLANs.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (1 <= first && first <= last && last <= VLAN_MAX).then_some(Self { first, last })
    }

    /// True for a VLAN of the range.
    pub fn contains(self, vlan: u16) -> bool {
        (self.first..=self.last).contains(&vlan)
    }

    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

/// VLANs of a fabric that networks have.
pub fn used_vlans<'a>(networks: impl Iterator<Item = &'a Network>, fabric: &str) -> BTreeSet<u16> {
    networks.filter_map(|network| network.kind.vlan_of(fabric)).collect()
}

/// The lowest VLAN that no network has; `None` where all are taken.
pub fn free_vlan(range: VlanRange, used: &BTreeSet<u16>) -> Option<u16> {
    (range.first..=range.last).find(|vlan| !used.contains(vlan))
}

/// A NIC of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNic {
    /// Its address.
    pub mac: MacAddr,
    /// The switch port at its other end, where that is one of the site's switches.
    pub at: Option<SwitchPort>,
}

/// A port of a switch of the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchPort {
    /// Name of the switch.
    pub switch: String,
    /// Name of the port there.
    pub port: String,
    /// Fabric of the switch.
    pub fabric: String,
}

/// A port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Which.
    pub port: PortId,
    /// On which network.
    pub network: NetworkId,
    /// What that is.
    pub kind: NetworkKind,
}

/// Where a port of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPlace {
    /// Index of the NIC.
    pub nic: usize,
    /// Its frames are tagged with this VLAN; as they are for `None`.
    pub tag: Option<u16>,
}

/// Why a machine cannot be on the networks of its server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// Its networks end on DPUs.
    #[error("it has no DPU")]
    NoDpu,
    /// No NIC is known to be at a switch of the fabric.
    #[error("no NIC of it is known to be at a switch of fabric {0}")]
    NoCable(String),
    /// A network as it is takes a NIC of its own.
    #[error("it has no NIC left for a network that is not tagged")]
    NoNic,
}

/// Gives each port its NIC, in their order: one of its own, else, on a fabric, a tag on the last that was given there.
///
/// # Errors
/// [`Misplaced`].
pub fn places(nics: &[HostNic], ports: &[HostPort]) -> Result<Vec<PortPlace>, Misplaced> {
    let mut given = BTreeSet::new();
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = Vec::with_capacity(ports.len());
    for port in ports {
        let place = match &port.kind {
            NetworkKind::Overlay | NetworkKind::Provider { .. } => return Err(Misplaced::NoDpu),
            NetworkKind::Flat { .. } => {
                // A NIC at a switch of the site may be needed for a VLAN.
                let free = || (0..nics.len()).filter(|nic| !given.contains(nic));
                let nic = free().find(|nic| nics[*nic].at.is_none()).or_else(|| free().next());
                PortPlace { nic: nic.ok_or(Misplaced::NoNic)?, tag: None }
            }
            NetworkKind::Vlan { fabric, vlan } => {
                let there = |nic: &usize| nics[*nic].at.as_ref().is_some_and(|at| at.fabric == *fabric);
                match (0..nics.len()).filter(|nic| !given.contains(nic)).find(there) {
                    Some(nic) => {
                        last.insert(fabric, nic);
                        PortPlace { nic, tag: None }
                    }
                    None => {
                        let nic = last.get(fabric.as_str()).copied();
                        let nic = nic.ok_or_else(|| Misplaced::NoCable(fabric.clone()))?;
                        PortPlace { nic, tag: Some(*vlan) }
                    }
                }
            }
        };
        given.insert(place.nic);
        places.push(place);
    }
    Ok(places)
}

/// What a switch port is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// Frames as they are belong to this VLAN, 0 for the switch's untagged network; tagged ones are dropped.
    Access(u16),
    /// Frames as they are belong to `native`, tagged ones to one of `tagged`; others are dropped.
    Trunk {
        /// Of frames as they are.
        native: u16,
        /// Of tagged ones.
        tagged: BTreeSet<u16>,
    },
    /// Nothing.
    Parked,
}

/// What the switch ports of a host are to be in. `provisioning` says of a switch which VLAN that network has there, 0 for untagged.
/// Switch ports that a tenant's ports do not use are in nothing while the machine is the tenant's, for the provisioning network is not its
/// business; those of networks as they are stay as they are.
pub fn members(
    side: Side,
    nics: &[HostNic],
    ports: &[(HostPort, PortPlace)],
    provisioning: impl Fn(&str) -> u16,
) -> BTreeMap<SwitchPort, Member> {
    let mut members = BTreeMap::new();
    for (n, nic) in nics.iter().enumerate() {
        let Some(at) = &nic.at else { continue };
        let here = || ports.iter().filter(|(_, place)| place.nic == n);
        if here().any(|(port, _)| matches!(port.kind, NetworkKind::Flat { .. })) {
            continue;
        }
        let native = here().find(|(_, place)| place.tag.is_none()).and_then(|(port, _)| port.kind.vlan());
        let tagged: BTreeSet<u16> = here().filter_map(|(_, place)| place.tag).collect();
        let member = match (side, native) {
            (Side::Provisioning, _) => Member::Access(provisioning(&at.switch)),
            (Side::Tenant, None) => Member::Parked,
            (Side::Tenant, Some(vlan)) if tagged.is_empty() => Member::Access(vlan),
            (Side::Tenant, Some(native)) => Member::Trunk { native, tagged },
        };
        members.insert(at.clone(), member);
    }
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn nic(n: u8, port: Option<&str>) -> HostNic {
        let at = port.map(|port| SwitchPort {
            switch: "sw1".to_owned(),
            port: port.to_owned(),
            fabric: "main".to_owned(),
        });
        HostNic { mac: MacAddr([2, 0, 0, 0, 0, n]), at }
    }

    fn port(kind: NetworkKind) -> HostPort {
        HostPort { port: PortId(Uuid::nil()), network: NetworkId(Uuid::nil()), kind }
    }

    fn vlan(vlan: u16) -> HostPort {
        port(NetworkKind::Vlan { fabric: "main".to_owned(), vlan })
    }

    fn flat() -> HostPort {
        port(NetworkKind::Flat { physical: "office".to_owned() })
    }

    fn at(nic: usize, tag: Option<u16>) -> PortPlace {
        PortPlace { nic, tag }
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(VlanRange::parse("100-199"), Some(VlanRange { first: 100, last: 199 }));
        assert_eq!(VlanRange::parse("7").map(VlanRange::count), Some(1));
        for bad in ["", "0-5", "9-3", "1-4095", "a-b", "-"] {
            assert_eq!(VlanRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_port_has_a_nic_and_what_is_left_is_tagged() {
        let (one, two) = (vec![nic(1, Some("p1"))], vec![nic(1, Some("p1")), nic(2, Some("p2"))]);
        assert_eq!(places(&two, &[vlan(100), vlan(101)]), Ok(vec![at(0, None), at(1, None)]));
        assert_eq!(places(&one, &[vlan(100), vlan(101)]), Ok(vec![at(0, None), at(0, Some(101))]));
        let mixed = vec![nic(1, Some("p1")), nic(2, None)];
        assert_eq!(places(&mixed, &[flat(), vlan(100)]), Ok(vec![at(1, None), at(0, None)]));
        assert_eq!(places(&one, &[flat(), flat()]), Err(Misplaced::NoNic));
        assert_eq!(places(&[nic(1, None)], &[vlan(1)]), Err(Misplaced::NoCable("main".to_owned())));
        assert_eq!(places(&one, &[flat(), vlan(1)]), Err(Misplaced::NoCable("main".to_owned())));
        assert_eq!(places(&one, &[port(NetworkKind::Overlay)]), Err(Misplaced::NoDpu));
    }

    fn of(side: Side, nics: &[HostNic], ports: &[HostPort]) -> Vec<(String, Member)> {
        let places = places(nics, ports).unwrap();
        let ports: Vec<_> = ports.iter().cloned().zip(places).collect();
        members(side, nics, &ports, |_| 10).into_iter().map(|(at, member)| (at.port, member)).collect()
    }

    #[test]
    fn a_host_is_on_one_side_alone() {
        let two = vec![nic(1, Some("p1")), nic(2, Some("p2")), nic(3, None)];
        let name = |name: &str, member| (name.to_owned(), member);
        assert_eq!(
            of(Side::Tenant, &two, &[vlan(100)]),
            [name("p1", Member::Access(100)), name("p2", Member::Parked)]
        );
        let trunk = Member::Trunk { native: 101, tagged: [102].into() };
        assert_eq!(
            of(Side::Tenant, &two, &[vlan(100), vlan(101), vlan(102)]),
            [name("p1", Member::Access(100)), name("p2", trunk)]
        );
        let home = [name("p1", Member::Access(10)), name("p2", Member::Access(10))];
        assert_eq!(of(Side::Provisioning, &two, &[vlan(100)]), home);
        assert_eq!(of(Side::Provisioning, &two, &[]), home);
    }

    #[test]
    fn a_network_as_it_is_is_not_touched() {
        let one = vec![nic(1, Some("p1"))];
        assert_eq!(of(Side::Tenant, &one, &[flat()]), []);
        assert_eq!(of(Side::Provisioning, &one, &[flat()]), []);
    }

    proptest! {
        #[test]
        fn no_two_networks_share_a_vlan(first in 1..100u16, count in 1..50u16, taken in prop::collection::btree_set(1..150u16, 0..80)) {
            let range = VlanRange { first, last: first + count - 1 };
            let mut used = taken;
            let free = (range.first..=range.last).filter(|vlan| !used.contains(vlan)).count();
            for _ in 0..free {
                let vlan = free_vlan(range, &used).unwrap();
                prop_assert!(range.contains(vlan) && used.insert(vlan));
            }
            prop_assert_eq!(free_vlan(range, &used), None);
        }
    }
}
