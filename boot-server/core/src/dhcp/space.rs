//! The addresses of one subnet, sorted by what is the case with them, so that finding one to lend, and counting what is
//! left, costs O(log n) however many machines ask.
//!
//! ```text
//!  fresh ──offer──▶ offered ──bind──▶ busy ──time, release──▶ idle ──offer──▶ offered
//!    ▲                 │ time           │ decline
//!    └──never lent─────┴──lent before───┴▶ resting ──time──▶ idle
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use protocol::Timestamp;

use super::config::{Config, Subnet};
use super::lease::ClientKey;
use super::lease::{Lease, LeaseState};
use super::limits;
use super::net::{Ipv4Net, Range};
use super::runs::Runs;

/// An address held for a client that was offered it and has not asked for it yet. Never stored.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub client: ClientKey,
    pub expires: Timestamp,
    /// The client is known: its offer is not taken back for another.
    pub known: bool,
}

/// What is the case with one address that is not fresh.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    /// The stored row.
    pub lease: Option<Lease>,
    /// The row's time is over.
    pub ended: bool,
    /// The row's client is known.
    pub known: bool,
    pub offer: Option<Offer>,
}

/// In which order an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Offered to a stranger.
    Soft,
    /// Offered to a known machine.
    Firm,
    /// Lent.
    Busy,
    /// Declined, or found in use by a probe.
    Resting,
    /// Free, and kept in mind for its last client.
    Idle,
    /// As idle, but not of the pool: a reserved address.
    Apart,
}

/// One subnet's addresses.
#[derive(Debug)]
pub(crate) struct Space {
    pub net: Ipv4Net,
    /// What may be lent to anybody.
    lendable: Runs,
    /// What was never lent and is not offered.
    pub fresh: Runs,
    /// By class: addresses in the order in which their time ends.
    orders: [BTreeSet<(Timestamp, Ipv4Addr)>; 6],
}

impl Slot {
    fn class(&self, lendable: bool) -> Option<(Class, Timestamp)> {
        if let Some(offer) = &self.offer {
            return Some((if offer.known { Class::Firm } else { Class::Soft }, offer.expires));
        }
        let lease = self.lease.as_ref()?;
        let class = match (self.ended, lease.state) {
            (true, _) if lendable => Class::Idle,
            (true, _) => Class::Apart,
            (false, LeaseState::Declined) => Class::Resting,
            (false, LeaseState::Bound) => Class::Busy,
        };
        Some((class, lease.expires))
    }
}

impl Space {
    /// The pools without what is taken or reserved; nothing is lent yet.
    pub fn new(config: &Config, subnet: &Subnet) -> Self {
        let mut lendable = Runs::default();
        subnet.pools.iter().for_each(|pool: &Range| lendable.insert_range(*pool));
        let reserved = subnet.reservations.iter().map(|r| r.ip);
        for ip in config.taken(subnet).chain(reserved) {
            lendable.remove(ip);
        }
        Self { net: subnet.net, fresh: lendable.clone(), lendable, orders: Default::default() }
    }

    /// True where the address may be lent to anybody.
    pub fn lends(&self, ip: Ipv4Addr) -> bool {
        self.lendable.contains(ip)
    }

    /// Enters an address under its class. True where it counts as lent to a known machine.
    pub fn file(&mut self, ip: Ipv4Addr, slot: &Slot) -> bool {
        let Some((class, time)) = slot.class(self.lends(ip)) else {
            if self.lends(ip) {
                self.fresh.insert(ip);
            }
            return false;
        };
        self.orders[class as usize].insert((time, ip));
        class == Class::Busy && slot.known
    }

    /// The reverse of [`file`](Self::file).
    pub fn unfile(&mut self, ip: Ipv4Addr, slot: &Slot) -> bool {
        let Some((class, time)) = slot.class(self.lends(ip)) else {
            self.fresh.remove(ip);
            return false;
        };
        self.orders[class as usize].remove(&(time, ip));
        class == Class::Busy && slot.known
    }

    /// The address of a class whose time ends first.
    pub fn first(&self, class: Class) -> Option<(Timestamp, Ipv4Addr)> {
        self.orders[class as usize].first().copied()
    }

    /// An address of which the time is over by now, with its class.
    pub fn due(&self, now: Timestamp) -> Option<Ipv4Addr> {
        [Class::Soft, Class::Firm, Class::Busy, Class::Resting]
            .into_iter()
            .find_map(|class| self.first(class).filter(|(time, _)| *time <= now))
            .map(|(_, ip)| ip)
    }

    /// How many addresses nobody has.
    pub fn room(&self) -> u64 {
        self.fresh.len() + self.count(Class::Idle)
    }

    /// True where so few are left that strangers' offers are held for a short time only.
    pub fn is_short(&self) -> bool {
        self.room() < self.lendable.len() / limits::SHORT_SHARE
    }

    /// How many addresses strangers must leave, where this many known machines have none now.
    pub fn kept(&self, known_absent: u64) -> u64 {
        known_absent.min(self.lendable.len() / limits::KEPT_SHARE).min(limits::KEPT_MAX)
    }

    /// True where more addresses rest than a pool can bear: somebody declines them on purpose.
    pub fn rests_too_much(&self) -> bool {
        self.count(Class::Resting) > (self.lendable.len() / limits::RESTING_SHARE).max(1)
    }

    fn count(&self, class: Class) -> u64 {
        u64::try_from(self.orders[class as usize].len()).unwrap_or(u64::MAX)
    }
}
