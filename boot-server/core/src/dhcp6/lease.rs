//! Who has which address. A pure table: every change is returned, for the caller to store.
//!
//! ```text
//!  free ──Request, Solicit with Rapid Commit──▶ bound ──time, Release──▶ free, remembered for its last client
//!    ▲                                            │ Decline
//!    └────────────◀─1 h── declined ◀──────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use protocol::ids::ParseIdError;
use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use super::config::{Config, Subnet};
use super::limits;
use crate::dhcp::lease::from_hex;

/// Who holds a lease. The Ethernet address of the port where it is known, whatever identifiers are sent: firmware, iPXE,
/// the agent and the OS of one machine send different ones, and one machine shall keep one address from POST to login.
/// Else the client's identifier with the association's (RFC 8415 section 12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKey {
    /// Ethernet address. As text: `mac:52:54:00:12:34:56`.
    Mac(MacAddr),
    /// Association id and DHCP unique identifier. As text: `ia:` and hexadecimal digits, the association's eight first.
    Ia([u8; 4], Vec<u8>),
}

/// One address and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv6Addr,
    /// Who has or had it.
    pub client: ClientKey,
    /// What is the case until [`expires`](Self::expires).
    pub state: LeaseState,
    /// From then on the address is free, and kept in mind for this client as long as no other needs it.
    pub expires: Timestamp,
}

/// What is the case with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Lent.
    Bound,
    /// The client found somebody else using it.
    Declined,
}

/// The table; it holds at most [`limits::LEASES_MAX`] rows.
#[derive(Debug, Default)]
pub struct Leases {
    by_ip: BTreeMap<Ipv6Addr, Lease>,
    by_client: BTreeMap<ClientKey, Ipv6Addr>,
    by_end: BTreeSet<(Timestamp, Ipv6Addr)>,
}

impl Leases {
    /// The table as it was stored. Rows outside the ranges are dropped: the configuration changed. Where a client has
    /// several, the one that lasts longest counts.
    pub fn restore(config: &Config, mut rows: Vec<Lease>) -> Self {
        let mut leases = Self::default();
        rows.retain(|row| config.subnet_of(row.ip).is_some_and(|s| config.lends(s, row.ip)));
        rows.sort_by_key(|l| (l.expires, l.ip));
        let surplus = rows.len().saturating_sub(limits::LEASES_MAX);
        rows.drain(..surplus);
        for row in rows {
            leases.insert(row);
        }
        leases
    }

    /// All rows, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_ip.values()
    }

    /// The client's row, expired or not.
    pub fn of(&self, client: &ClientKey) -> Option<&Lease> {
        self.by_ip.get(self.by_client.get(client)?)
    }

    /// The address that the client would be lent: the one it has or had, else one it wishes, else a fresh one, else the
    /// one that has been free longest. None of `not`, and none that the table has no room for. `None` where every address
    /// is in use.
    pub(crate) fn choose(
        &self,
        now: Timestamp,
        config: &Config,
        subnet: &Subnet,
        client: &ClientKey,
        wishes: &[Ipv6Addr],
        not: &[Ipv6Addr],
    ) -> Option<Ipv6Addr> {
        let usable = |ip: &Ipv6Addr| config.lends(subnet, *ip) && !not.contains(ip);
        let own = self.of(client).map(|l| l.ip);
        own.iter()
            .chain(wishes)
            .find(|ip| usable(ip) && self.has_room_for(**ip) && self.is_free_for(now, **ip, client))
            .copied()
            .or_else(|| self.fresh(subnet, client, usable))
            .or_else(|| self.longest_free(now, usable))
    }

    /// Lends the address to the client; `None` where somebody else has it, or the table is full. Returns the rows that
    /// changed: the new lease, and the one that the client had before where that was another address.
    pub(crate) fn bind(
        &mut self,
        now: Timestamp,
        subnet: &Subnet,
        client: &ClientKey,
        ip: Ipv6Addr,
    ) -> Option<Vec<Lease>> {
        if !self.has_room_for(ip) || !self.is_free_for(now, ip, client) {
            return None;
        }
        let former = self.by_client.get(client).copied().filter(|old| *old != ip);
        let expires = now.after(subnet.lease_time);
        let lease = Lease { ip, client: client.clone(), state: LeaseState::Bound, expires };
        self.insert(lease.clone());
        let former = former.and_then(|old| self.by_ip.get(&old).cloned()).map(|old| {
            let ended = Lease { expires: old.expires.min(now), ..old };
            self.by_end.remove(&(old.expires, old.ip));
            self.by_end.insert((ended.expires, ended.ip));
            self.by_ip.insert(ended.ip, ended.clone());
            ended
        });
        Some(std::iter::once(lease).chain(former).collect())
    }

    /// The client gives the address back. `None` where it is not its own.
    pub(crate) fn release(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv6Addr) -> Option<Lease> {
        let lease = self.own(client, ip)?;
        let released = Lease { expires: lease.expires.min(now), ..lease };
        self.insert(released.clone());
        Some(released)
    }

    /// The client found the address in use. `None` where it is not its own: a stranger cannot take addresses away.
    pub(crate) fn decline(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv6Addr) -> Option<Lease> {
        let lease = self.own(client, ip)?;
        let declined =
            Lease { state: LeaseState::Declined, expires: now.after(limits::DECLINE_REST), ..lease };
        self.insert(declined.clone());
        Some(declined)
    }

    /// True where the client may have the address: it is its own, or nobody's now.
    fn is_free_for(&self, now: Timestamp, ip: Ipv6Addr, client: &ClientKey) -> bool {
        self.by_ip
            .get(&ip)
            .is_none_or(|l| l.expires <= now || (l.client == *client && l.state == LeaseState::Bound))
    }

    /// True where the address has its row, or one more may be: clients that wish for ever other addresses shall not fill
    /// memory and disk.
    fn has_room_for(&self, ip: Ipv6Addr) -> bool {
        self.by_ip.len() < limits::LEASES_MAX || self.by_ip.contains_key(&ip)
    }

    fn own(&self, client: &ClientKey, ip: Ipv6Addr) -> Option<Lease> {
        self.by_ip.get(&ip).filter(|l| l.client == *client && l.state == LeaseState::Bound).cloned()
    }

    fn insert(&mut self, lease: Lease) {
        let ip = lease.ip;
        if let Some(old) = self.by_ip.remove(&ip) {
            self.by_end.remove(&(old.expires, ip));
            if self.by_client.get(&old.client) == Some(&ip) {
                self.by_client.remove(&old.client);
            }
        }
        // A client that declined an address starts again and must not get the same one.
        if lease.state == LeaseState::Bound {
            self.by_client.insert(lease.client.clone(), ip);
        }
        self.by_end.insert((lease.expires, ip));
        self.by_ip.insert(ip, lease);
    }

    /// An address that nobody ever had, starting at a place that depends on the client alone: so a machine gets the same
    /// one again even after the table was lost.
    fn fresh(
        &self,
        subnet: &Subnet,
        client: &ClientKey,
        usable: impl Fn(&Ipv6Addr) -> bool,
    ) -> Option<Ipv6Addr> {
        if self.by_ip.len() >= limits::LEASES_MAX {
            return None;
        }
        // The hash is halved so that the sum stays a number.
        let start = client.hash() >> 1;
        (0..limits::PROBES_MAX)
            .map(|i| subnet.range.nth(start + i))
            .find(|ip| !self.by_ip.contains_key(ip) && usable(ip))
    }

    fn longest_free(&self, now: Timestamp, usable: impl Fn(&Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
        self.by_end.iter().take_while(|(end, _)| *end <= now).map(|(_, ip)| *ip).find(usable)
    }
}

impl ClientKey {
    /// FNV-1a: spreads neighbouring addresses, and is the same on every machine and in every version.
    fn hash(&self) -> u64 {
        let (head, tail): (&[u8], &[u8]) = match self {
            Self::Mac(mac) => (&mac.0, &[]),
            Self::Ia(id, duid) => (id, duid),
        };
        let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        head.iter().chain(tail).fold(0xcbf2_9ce4_8422_2325, mix)
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "mac:{mac}"),
            Self::Ia(id, duid) => {
                f.write_str("ia:")?;
                id.iter().chain(duid).try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

impl FromStr for ClientKey {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        if let Some(mac) = s.strip_prefix("mac:") {
            return mac.parse().map(Self::Mac);
        }
        let association = |digits| {
            let octets = from_hex(digits)?;
            let (id, duid) = octets.split_first_chunk::<4>().filter(|(_, duid)| !duid.is_empty())?;
            Some(Self::Ia(*id, duid.to_vec()))
        };
        s.strip_prefix("ia:").and_then(association).ok_or_else(|| ParseIdError {
            text: s.chars().take(80).collect(),
            expected: "DHCPv6 client (mac:… or ia:…)",
        })
    }
}

impl Serialize for ClientKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
