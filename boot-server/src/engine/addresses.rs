//! Whether a machine that asks for its boot script asks from the address that Billet lent to it. That is no proof of who
//! it is, but whoever only knows a node's MAC address or UUID and has an address of its own does not get that node's job.
//!
//! IPv6 says nothing here: a machine may have made its address by itself, and a DHCPv6 lease names the machine by a DUID,
//! in which the address of another of its ports may stand.

use std::net::{IpAddr, Ipv4Addr};

use boot_server_core::dhcp::{ClientKey, Lease, LeaseState, Subnet};
use boot_server_core::node::Claim;
use protocol::{MacAddr, NodeId};

use super::{Engine, EngineError, lock, now};
use crate::store::queries;

impl Engine {
    /// Why a machine does not get a script, if the leases speak against it being this node; `None` for a node: one that is
    /// not known. `holder` has the address by our leases. Where Billet lent nothing (another DHCP server does, or the
    /// address is of IPv6), they say nothing.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) async fn wrong_address(
        &self,
        node: Option<NodeId>,
        claim: &Claim,
        address: IpAddr,
        holder: Option<MacAddr>,
    ) -> Result<Option<String>, EngineError> {
        let IpAddr::V4(ip) = address else { return Ok(None) };
        if !self.settings().match_leases {
            return Ok(None);
        }
        let node = node.and_then(|id| self.0.nodes.get(id));
        let macs: Vec<MacAddr> = match &node {
            Some(node) => node.identity.macs.iter().copied().collect(),
            None => claim.macs.clone(),
        };
        if let Some(holder) = holder {
            let whose = match &node {
                Some(node) => format!("which is no port of {}", node.name),
                None => "which it does not name as its own".to_owned(),
            };
            let why = format!("it asks from {ip}, which was lent to {holder}, {whose}");
            return Ok((!macs.contains(&holder)).then_some(why));
        }
        for mac in macs {
            let lent = lock(&self.0.sightings).lent_to(mac);
            if let Some(other) = lent.filter(|other| *other != ip)
                && self.holder(other.into()).await? == Some(mac)
            {
                return Ok(Some(format!("it asks from {ip}, but {other} was lent to it")));
            }
        }
        Ok(None)
    }

    /// Who has this address now, by our own leases. Nobody where we do not lend it any more: then a lease of former days
    /// says nothing.
    pub(super) async fn holder(&self, address: IpAddr) -> Result<Option<MacAddr>, EngineError> {
        let IpAddr::V4(ip) = address else { return Ok(None) };
        if !self.lends(ip) {
            return Ok(None);
        }
        let at = now();
        let lease = self.0.store.read(move |db| queries::lease(db, ip)).await?;
        Ok(lease.and_then(|Lease { client, state, expires, .. }| match client {
            ClientKey::Mac(mac) if state == LeaseState::Bound && expires > at => Some(mac),
            _ => None,
        }))
    }

    fn lends(&self, ip: Ipv4Addr) -> bool {
        let lending = self.settings().dhcp.as_ref();
        lending.is_some_and(|lending| lending.subnets.iter().any(|subnet: &Subnet| subnet.lends(ip)))
    }
}
