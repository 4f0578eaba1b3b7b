//! Whether a machine that asks for its boot script asks from the address that Billet lent to it. That is no proof of who
//! it is, but whoever only knows a node's MAC address and has an address of its own does not get that node's job.

use std::net::{IpAddr, Ipv4Addr};

use boot_server_core::dhcp::{ClientKey, Lease, LeaseState};
use boot_server_core::node::Claim;
use protocol::MacAddr;

use super::{Engine, EngineError, lock, now};
use crate::store::queries;

impl Engine {
    /// Why this machine does not get a script, if the leases speak against it. Where Billet lent nothing (another DHCP
    /// server does, or the address is of IPv6), they say nothing.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) async fn wrong_address(
        &self,
        claim: &Claim,
        address: IpAddr,
    ) -> Result<Option<String>, EngineError> {
        let (IpAddr::V4(ip), Some(mac)) = (address, claim.macs.first().copied()) else { return Ok(None) };
        if !self.settings().match_leases {
            return Ok(None);
        }
        if let Some(holder) = self.holder(ip).await? {
            // Another port of the same machine may be the one that asks.
            let same_node =
                self.0.nodes.with_mac(mac).is_some_and(|node| node.identity.macs.contains(&holder));
            let why = format!("it asks from {ip}, which was lent to another machine");
            return Ok((holder != mac && !same_node).then_some(why));
        }
        let lent = lock(&self.0.sightings).lent_to(mac);
        match lent {
            Some(other) if other != ip && self.holder(other).await? == Some(mac) => {
                Ok(Some(format!("it asks from {ip}, but {other} was lent to it")))
            }
            _ => Ok(None),
        }
    }

    /// Who has this address now, by our own leases.
    async fn holder(&self, ip: Ipv4Addr) -> Result<Option<MacAddr>, EngineError> {
        let at = now();
        let lease = self.0.store.read(move |db| queries::lease(db, ip)).await?;
        Ok(lease.and_then(|Lease { client, state, expires, .. }| match client {
            ClientKey::Mac(mac) if state == LeaseState::Bound && expires > at => Some(mac),
            _ => None,
        }))
    }
}
