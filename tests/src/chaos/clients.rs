//! DHCP clients: each wants an address, and keeps it. No address is lent to two.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use crate::dhcp_load::{self, Load};
use crate::fleet::rng::Rng;
use crate::rack::{Handle, SERVER_ADDRESS, within};

/// The clients' end; it stands as their relay.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);
/// Clients of a round.
const EACH: u32 = 10;
/// Leases of former rounds that are asked for again after each.
const ASKED: usize = 4;
/// Time for all of a round.
const TIME: Duration = Duration::from_secs(40);
/// Tries to hear of one lease.
const TRIES: usize = 20;

/// Who has which address.
#[derive(Debug, Default)]
pub struct Leases {
    by_address: BTreeMap<Ipv4Addr, u32>,
    by_client: BTreeMap<u32, Ipv4Addr>,
}

/// What is asked of the server.
fn load(first: u32) -> Result<Load> {
    let (window, clients) = (4, EACH);
    Ok(Load { relay: RELAY, server: SERVER_ADDRESS.parse()?, window, clients, first, time: TIME, pxe: false })
}

/// Clients of this round get their addresses, from within the namespace of `handle`.
///
/// # Errors
/// Where the relay's port cannot be had.
pub fn ask(handle: &Handle, round: u32) -> Result<Vec<(u32, Ipv4Addr)>> {
    let load = load(round * EACH)?;
    Ok(within(handle, || dhcp_load::run(&load))?.lent)
}

impl Leases {
    /// How many.
    pub fn count(&self) -> usize {
        self.by_client.len()
    }

    /// Takes in what was lent; says what was lent twice, and how many clients of the round got nothing.
    pub fn take(&mut self, lent: Vec<(u32, Ipv4Addr)>) -> (Vec<String>, usize) {
        let missing = (EACH as usize).saturating_sub(lent.len());
        let mut twice = Vec::new();
        for (client, address) in lent {
            match self.by_address.insert(address, client) {
                Some(other) if other != client => {
                    twice.push(format!("{address} is lent to client {other} and to client {client}"));
                }
                _ => {}
            }
            self.by_client.insert(client, address);
        }
        (twice, missing)
    }

    /// Asks the server for some of them: what is not known any more, in words.
    ///
    /// # Errors
    /// Where the relay's port cannot be had.
    pub fn forgotten(&self, handle: &Handle, rng: &mut Rng) -> Result<Vec<String>> {
        let all: Vec<_> = self.by_client.iter().collect();
        let mut forgotten = Vec::new();
        for _ in 0..ASKED.min(all.len()) {
            let (client, address) = all[rng.below(all.len() as u64) as usize];
            let load = load(*client)?;
            let mut known = None;
            for _ in 0..TRIES {
                known = within(handle, || dhcp_load::may_have(&load, *client, *address))?;
                if known.is_some() {
                    break;
                }
            }
            if known != Some(true) {
                forgotten.push(format!("the lease of client {client}, {address}: the server says {known:?}"));
            }
        }
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_two_is_seen() {
        let ip = |n| Ipv4Addr::new(10, 77, 1, n);
        let mut leases = Leases::default();
        let (twice, missing) = leases.take((1..=10).map(|n| (u32::from(n), ip(n))).collect());
        assert!(twice.is_empty() && missing == 0);
        let (twice, missing) = leases.take(vec![(1, ip(1)), (11, ip(2))]);
        assert_eq!((twice.len(), missing), (1, 8));
    }
}
