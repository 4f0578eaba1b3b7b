//! Events that management controllers send by themselves. What they say is not looked at: whoever knows the address may
//! send anything. That one came, from where the controller is, only makes its worker look earlier.

use std::net::IpAddr;
use std::time::Duration;

use bmc::DriverKind;
use protocol::{NodeId, Sha256};

use super::{Engine, lock};
use crate::secret;
use crate::store::bmcs::BmcRow;

/// Where events come in, below the base URL.
pub const PATH: &str = "/bmc-events";
/// Longest that a controller's name is looked up.
const LOOK_UP_MAX: Duration = Duration::from_secs(5);

impl Engine {
    /// Where the controller of this row is asked to send its events. The path is its own, and nobody can guess it.
    pub(super) fn event_destination(&self, row: &BmcRow) -> Option<String> {
        let base = self.settings().bmc.events.as_ref()?;
        let own = (row.driver == DriverKind::Redfish).then(|| self.event_name(row))?;
        Some(format!("{base}{PATH}/{}/{own}", row.node))
    }

    /// Another address gives another name: what one controller was told is of no use to the next.
    fn event_name(&self, row: &BmcRow) -> Sha256 {
        self.0.vault.name(&format!("events of the BMC {} of {}", row.address, row.node))
    }

    /// An event came in from `peer`. False, and nothing is done, where it is not of the controller that was asked for it.
    pub async fn bmc_event(&self, node: NodeId, name: &Sha256, peer: IpAddr) -> bool {
        let row = lock(&self.0.bmcs).get(&node).cloned();
        let Some(row) = row.filter(|row| self.event_destination(row).is_some()) else { return false };
        if !secret::same(name, &self.event_name(&row)) {
            return false;
        }
        if !is_at(&row.address, peer.to_canonical()).await {
            tracing::info!(%node, %peer, bmc = row.address, "an event of a BMC came from elsewhere: it is not taken");
            return false;
        }
        self.0.power.event(node);
        true
    }
}

/// True where the controller at this address, as it was given, has that one.
async fn is_at(address: &str, peer: IpAddr) -> bool {
    let host = host(address);
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical() == peer;
    }
    let looked_up = tokio::time::timeout(LOOK_UP_MAX, tokio::net::lookup_host((host, 0))).await;
    match looked_up {
        Ok(Ok(mut found)) => found.any(|found| found.ip().to_canonical() == peer),
        _ => false,
    }
}

/// The name or address in `10.0.0.5`, `bmc.example:8443`, `https://[2001:db8::5]:8443/`.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    if let Some(inside) = rest.strip_prefix('[') {
        return inside.split(']').next().unwrap_or(inside);
    }
    match rest.split_once(':') {
        // More than one colon: an IPv6 address as it is.
        Some((host, port)) if !port.contains(':') => host,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_addresses() {
        for (address, expected) in [
            ("10.0.0.5", "10.0.0.5"),
            ("http://127.0.0.1:8000", "127.0.0.1"),
            ("bmc.example:8443", "bmc.example"),
            ("2001:db8::5", "2001:db8::5"),
            ("https://[2001:db8::5]:8443/", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
        ] {
            assert_eq!(host(address), expected);
        }
    }

    #[tokio::test]
    async fn only_the_controller_itself_counts() {
        let peer = |text: &str| text.parse().unwrap();
        assert!(is_at("https://10.0.0.5:443", peer("10.0.0.5")).await);
        assert!(!is_at("10.0.0.5", peer("10.0.0.6")).await);
        assert!(is_at("localhost", peer("127.0.0.1")).await);
    }
}
