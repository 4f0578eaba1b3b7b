//! Who has which address. A pure table: every change is returned, for the caller to store.
//!
//! ```text
//!  free ──DISCOVER──▶ offered ──REQUEST──▶ bound ──time, RELEASE──▶ free, remembered for its last client
//!    ▲                   │ 60 s              │ DECLINE
//!    └───────────────────┴───────◀─1 h── declined
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use protocol::ids::ParseIdError;
use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use super::config::{Config, Subnet};
use super::limits;

/// Who holds a lease. The Ethernet address where there is one, whatever the client identifier says: firmware, iPXE, the
/// agent and the OS of one machine send different identifiers (RFC 2131 section 4.2 would make them four clients), and
/// one machine shall keep one address from POST to login. Else, as for InfiniBand (RFC 4390), the identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKey {
    /// Ethernet address. As text: `mac:52:54:00:12:34:56`.
    Mac(MacAddr),
    /// Client identifier (option 61). As text: `id:` and hexadecimal digits.
    Id(Vec<u8>),
}

/// One address and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
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
    /// Held for a client that has not asked for it yet. Never stored.
    Offered,
    /// Lent.
    Bound,
    /// The client found somebody else using it.
    Declined,
}

/// The table. It holds no more rows than the pools have addresses.
#[derive(Debug, Default)]
pub struct Leases {
    by_ip: BTreeMap<Ipv4Addr, Lease>,
    by_client: BTreeMap<ClientKey, Ipv4Addr>,
    /// Offered addresses that were probed.
    proven: BTreeSet<Ipv4Addr>,
}

impl Leases {
    /// The table as it was stored. Rows outside the pools are dropped: the configuration changed.
    /// Where a client has several, as after a move to another pool, the one that lasts longest counts.
    pub fn restore(config: &Config, mut rows: Vec<Lease>) -> Self {
        let mut leases = Self::default();
        rows.sort_by_key(|l| (l.expires, l.ip));
        for row in rows {
            if config.subnet_of(row.ip).is_some_and(|s| s.lends(row.ip) && !config.is_taken(s, row.ip)) {
                leases.insert(row);
            }
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

    /// Holds an address of the subnet for the client: the one it has or had, else the one it wishes, else a fresh one,
    /// else the one that has been free longest. `None` where every address is in use.
    pub(crate) fn offer(
        &mut self,
        now: Timestamp,
        config: &Config,
        subnet: &Subnet,
        client: &ClientKey,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        let usable = |ip: &Ipv4Addr| subnet.lends(*ip) && !config.is_taken(subnet, *ip);
        if let Some(own) = self.of(client).filter(|l| usable(&l.ip) && self.is_free_for(now, l.ip, client)) {
            let ip = own.ip;
            // A bound lease stays bound while its client boots again.
            if own.state != LeaseState::Bound || own.expires <= now {
                self.hold(now, ip, client);
            }
            return Some(ip);
        }
        let ip = wish
            .filter(|ip| usable(ip) && self.is_free_for(now, *ip, client))
            .or_else(|| self.fresh(subnet, client, usable))
            .or_else(|| self.longest_free(now, subnet, usable))?;
        self.hold(now, ip, client);
        Some(ip)
    }

    /// Lends the address to the client; `None` where somebody else has it. Returns the rows that changed: the new lease,
    /// and the one that the client had before where that was another address.
    pub(crate) fn bind(
        &mut self,
        now: Timestamp,
        subnet: &Subnet,
        client: &ClientKey,
        ip: Ipv4Addr,
    ) -> Option<Vec<Lease>> {
        if !self.is_free_for(now, ip, client) {
            return None;
        }
        let expires = now.after(subnet.lease_time);
        let lease = Lease { ip, client: client.clone(), state: LeaseState::Bound, expires };
        let former = self.put(now, lease.clone());
        Some(std::iter::once(lease).chain(former).collect())
    }

    /// The client took another server's offer: the address is free at once.
    pub(crate) fn withdraw(&mut self, client: &ClientKey) {
        if self.of(client).is_some_and(|l| l.state == LeaseState::Offered)
            && let Some(ip) = self.by_client.remove(client)
        {
            self.by_ip.remove(&ip);
        }
    }

    /// The client gives its address back. `None` where it is not its own.
    pub(crate) fn release(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv4Addr) -> Option<Lease> {
        self.amend(client, ip, LeaseState::Bound, now)
    }

    /// The client found its address in use. `None` where it is not its own: a stranger cannot take addresses away.
    pub(crate) fn decline(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv4Addr) -> Option<Lease> {
        let lease = self.amend(client, ip, LeaseState::Declined, now.after(limits::DECLINE_REST))?;
        // The client starts again and must not get the same one.
        self.by_client.remove(client);
        Some(lease)
    }

    /// True where the address was never lent and never probed.
    pub(crate) fn is_unproven(&self, ip: Ipv4Addr) -> bool {
        self.by_ip.get(&ip).is_none_or(|l| l.state != LeaseState::Bound) && !self.proven.contains(&ip)
    }

    /// What a probe found. The client itself may still have the address from before.
    pub(crate) fn probed(&mut self, now: Timestamp, ip: Ipv4Addr, user: Option<MacAddr>) -> Option<Lease> {
        let lease = self.by_ip.get(&ip).filter(|l| l.state == LeaseState::Offered)?;
        let Some(user) = user.map(ClientKey::Mac).filter(|user| *user != lease.client) else {
            self.proven.insert(ip);
            return None;
        };
        let expires = now.after(limits::DECLINE_REST);
        let lease = Lease { ip, client: user, state: LeaseState::Declined, expires };
        self.insert(lease.clone());
        Some(lease)
    }

    /// True where the client may have the address: it is its own, or nobody's now.
    pub(crate) fn is_free_for(&self, now: Timestamp, ip: Ipv4Addr, client: &ClientKey) -> bool {
        self.by_ip
            .get(&ip)
            .is_none_or(|l| l.expires <= now || (l.client == *client && l.state != LeaseState::Declined))
    }

    fn amend(
        &mut self,
        client: &ClientKey,
        ip: Ipv4Addr,
        state: LeaseState,
        expires: Timestamp,
    ) -> Option<Lease> {
        let lease =
            self.by_ip.get_mut(&ip).filter(|l| l.client == *client && l.state != LeaseState::Declined)?;
        lease.state = state;
        lease.expires = expires;
        Some(lease.clone())
    }

    fn hold(&mut self, now: Timestamp, ip: Ipv4Addr, client: &ClientKey) {
        let expires = now.after(limits::OFFER_HOLD);
        self.insert(Lease { ip, client: client.clone(), state: LeaseState::Offered, expires });
    }

    /// Enters a row, and returns the client's former one, which ends by it and has to be stored too.
    fn put(&mut self, now: Timestamp, lease: Lease) -> Option<Lease> {
        let former = self.by_client.get(&lease.client).copied().filter(|old| *old != lease.ip);
        self.insert(lease);
        let former = self.by_ip.get_mut(&former?)?;
        if former.state == LeaseState::Offered {
            let ip = former.ip;
            self.by_ip.remove(&ip);
            return None;
        }
        former.expires = former.expires.min(now);
        Some(former.clone())
    }

    fn insert(&mut self, lease: Lease) {
        self.by_client.insert(lease.client.clone(), lease.ip);
        if lease.state == LeaseState::Declined {
            self.by_client.remove(&lease.client);
        }
        if let Some(old) = self.by_ip.insert(lease.ip, lease.clone()).filter(|old| old.client != lease.client)
            && self.by_client.get(&old.client) == Some(&lease.ip)
        {
            self.by_client.remove(&old.client);
        }
    }

    /// An address that nobody ever had, starting at a place that depends on the client alone: so a machine gets the
    /// same one again even after the table was lost.
    fn fresh(
        &self,
        subnet: &Subnet,
        client: &ClientKey,
        usable: impl Fn(&Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let len = subnet.pool_len();
        let start = client.hash().checked_rem(len)?;
        (0..len)
            .filter_map(|i| subnet.nth((start + i) % len))
            .find(|ip| !self.by_ip.contains_key(ip) && usable(ip))
    }

    fn longest_free(
        &self,
        now: Timestamp,
        subnet: &Subnet,
        usable: impl Fn(&Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let free =
            self.by_ip.values().filter(|l| l.expires <= now && subnet.net.contains(l.ip) && usable(&l.ip));
        free.min_by_key(|l| (l.expires, l.ip)).map(|l| l.ip)
    }
}

impl ClientKey {
    /// `None` for a client that tells neither.
    pub(crate) fn of(mac: Option<MacAddr>, id: Option<&[u8]>) -> Option<Self> {
        let id = || {
            id.filter(|id| !id.is_empty())
                .map(|id| Self::Id(id[..id.len().min(limits::CLIENT_ID_MAX)].to_vec()))
        };
        mac.map(Self::Mac).or_else(id)
    }

    /// FNV-1a: spreads neighbouring addresses, and is the same on every machine and in every version.
    fn hash(&self) -> u64 {
        let bytes = match self {
            Self::Mac(mac) => mac.0.as_slice(),
            Self::Id(id) => id,
        };
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "mac:{mac}"),
            Self::Id(id) => {
                f.write_str("id:")?;
                id.iter().try_for_each(|b| write!(f, "{b:02x}"))
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
        let hex = |s: &str| -> Option<Vec<u8>> {
            let digits = s.strip_prefix("id:")?.as_bytes();
            let nibble = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let (pairs, rest) = digits.as_chunks::<2>();
            if pairs.is_empty() || !rest.is_empty() {
                return None;
            }
            pairs.iter().map(|[a, b]| Some(nibble(a)? << 4 | nibble(b)?)).collect()
        };
        hex(s).map(Self::Id).ok_or_else(|| ParseIdError {
            text: s.chars().take(80).collect(),
            expected: "DHCP client (mac:… or id:…)",
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
