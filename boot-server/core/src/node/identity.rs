//! Which node a machine is. UUIDs, MAC addresses and serial numbers can collide or lie, so a contradiction is its own
//! answer, never a silent merge.

use std::collections::BTreeSet;

use protocol::{MacAddr, NodeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a node answers to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// SMBIOS system UUID, where it is not one that vendors ship on every board.
    pub uuid: Option<Uuid>,
    /// System serial number, where it says anything.
    pub serial: Option<String>,
    /// Every station address seen.
    pub macs: BTreeSet<MacAddr>,
}

/// What a machine says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// SMBIOS system UUID.
    pub uuid: Option<Uuid>,
    /// System serial number.
    pub serial: Option<String>,
    /// Addresses.
    pub macs: Vec<MacAddr>,
}

/// Answer to "which node is this?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// None that is known.
    Unknown,
    /// This one.
    Node(NodeId),
    /// Two facts point to different nodes, or one node is claimed by another machine.
    Conflict {
        /// The nodes, the first being the one whose address it uses.
        nodes: Vec<NodeId>,
        /// In words.
        why: String,
    },
}

/// Finds the node that `claim` is, among `known`.
pub fn identify<'a>(claim: &Claim, known: impl IntoIterator<Item = (NodeId, &'a Identity)>) -> Match {
    let claim = claim.cleaned();
    let mut by_mac = BTreeSet::new();
    let mut by_uuid = BTreeSet::new();
    for (id, identity) in known {
        if claim.macs.iter().any(|mac| identity.macs.contains(mac)) {
            by_mac.insert(id);
        }
        // Boards that were never programmed share a UUID: a different serial number says it is another machine.
        let serials_differ = matches!((&identity.serial, &claim.serial), (Some(a), Some(b)) if a != b);
        if claim.uuid.is_some() && identity.uuid == claim.uuid && !serials_differ {
            by_uuid.insert(id);
        }
    }
    let all: Vec<NodeId> = by_mac.union(&by_uuid).copied().collect();
    match (by_mac.len(), by_uuid.len(), all.as_slice()) {
        (_, _, []) => Match::Unknown,
        (_, _, [one]) => Match::Node(*one),
        (0, _, _) => conflict(all, format!("UUID {} is used by several nodes", text(claim.uuid))),
        (1, _, _) => {
            let mut nodes: Vec<NodeId> = by_mac.iter().copied().collect();
            nodes.extend(all.into_iter().filter(|id| !by_mac.contains(id)));
            conflict(nodes, format!("its MAC address is one node's, its UUID {} another's", text(claim.uuid)))
        }
        _ => conflict(all, "its MAC addresses belong to several nodes".to_owned()),
    }
}

fn conflict(nodes: Vec<NodeId>, why: String) -> Match {
    Match::Conflict { nodes, why }
}

fn text(uuid: Option<Uuid>) -> String {
    uuid.map(|u| u.to_string()).unwrap_or_default()
}

impl Claim {
    /// Without what says nothing: placeholder UUIDs and serial numbers, addresses that name no station.
    pub fn cleaned(&self) -> Self {
        Self {
            uuid: self.uuid.filter(is_meaningful_uuid),
            serial: self
                .serial
                .as_deref()
                .map(str::trim)
                .filter(|s| is_meaningful_serial(s))
                .map(str::to_owned),
            macs: self.macs.iter().copied().filter(MacAddr::is_station).collect(),
        }
    }

    /// The identity of a machine that was not known before.
    pub fn into_identity(self) -> Identity {
        let clean = self.cleaned();
        Identity { uuid: clean.uuid, serial: clean.serial, macs: clean.macs.into_iter().collect() }
    }
}

impl Identity {
    /// Adds what a later sighting tells; what is known is not overwritten. Returns true if anything was new.
    pub fn learn(&mut self, claim: &Claim) -> bool {
        let claim = claim.cleaned();
        let before = self.clone();
        self.uuid = self.uuid.or(claim.uuid);
        self.serial = self.serial.take().or(claim.serial);
        for mac in claim.macs {
            if self.macs.len() < protocol::limits::NICS_MAX {
                self.macs.insert(mac);
            }
        }
        *self != before
    }
}

/// False for UUIDs that vendors ship unprogrammed.
fn is_meaningful_uuid(uuid: &Uuid) -> bool {
    let known_bad = [
        Uuid::nil(),
        Uuid::max(),
        // American Megatrends' default, found on many white-box boards, in both byte orders.
        Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009),
        Uuid::from_u128(0x0002_0003_0004_0005_0006_0007_0008_0009),
        Uuid::from_u128(0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc),
    ];
    !known_bad.contains(uuid)
}

fn is_meaningful_serial(serial: &str) -> bool {
    let known_bad = [
        "0",
        "none",
        "n/a",
        "not specified",
        "default string",
        "system serial number",
        "to be filled by o.e.m.",
        "0123456789",
        "123456789",
        "empty",
        "unknown",
    ];
    !serial.is_empty() && !known_bad.contains(&serial.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    fn identity(uuid: u128, serial: Option<&str>, mac: u8) -> Identity {
        Claim {
            uuid: Some(Uuid::from_u128(uuid)),
            serial: serial.map(str::to_owned),
            macs: vec![MacAddr([2, 0, 0, 0, 0, mac])],
        }
        .into_identity()
    }

    fn claim(uuid: Option<u128>, serial: Option<&str>, macs: &[u8]) -> Claim {
        Claim {
            uuid: uuid.map(Uuid::from_u128),
            serial: serial.map(str::to_owned),
            macs: macs.iter().map(|m| MacAddr([2, 0, 0, 0, 0, *m])).collect(),
        }
    }

    #[test]
    fn who_is_it() {
        let a = identity(0xa, Some("A"), 1);
        let b = identity(0xb, Some("B"), 2);
        let all = || [(node(1), &a), (node(2), &b)];
        let ask = |c| identify(&c, all());
        assert_eq!(ask(claim(Some(0xa), None, &[1])), Match::Node(node(1)));
        assert_eq!(ask(claim(Some(0xa), None, &[9])), Match::Node(node(1)), "a new NIC in a known machine");
        assert_eq!(
            ask(claim(Some(0xc), None, &[2])),
            Match::Node(node(2)),
            "a known NIC, its UUID changed by a new board"
        );
        assert_eq!(
            ask(claim(Some(0xa), Some("Z"), &[9])),
            Match::Unknown,
            "a UUID that collides, told by the serial"
        );
        assert_eq!(ask(claim(None, None, &[9])), Match::Unknown);
        assert!(
            matches!(ask(claim(Some(0xa), None, &[2])), Match::Conflict { nodes, .. } if nodes == [node(2), node(1)])
        );
        assert!(matches!(ask(claim(None, None, &[1, 2])), Match::Conflict { .. }));
    }

    #[test]
    fn placeholders_name_nobody() {
        let a = Claim {
            uuid: Some(Uuid::nil()),
            serial: Some("To Be Filled By O.E.M.".into()),
            macs: vec![MacAddr([0; 6])],
        }
        .into_identity();
        assert_eq!(a, Identity::default());
        assert_eq!(identify(&claim(Some(0), None, &[]), [(node(1), &a)]), Match::Unknown);
    }
}
