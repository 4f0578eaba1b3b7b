//! Who has which address. A pure table: every change is returned, for the caller to store. Each operation is O(log n).
//!
//! Two things are kept apart: *leases*, which are stored, and *offers*, which are not, end soon, and cost a stranger's
//! flood nothing but themselves.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use protocol::{MacAddr, Timestamp};
use uuid::Uuid;

use super::config::{Config, Machine, Mode, Subnet};
use super::lease::{ClientKey, Lease, LeaseState};
use super::limits;
use super::relay::Placement;
use super::space::{Class, Offer, Slot, Space};

/// The table. It holds no more rows than the pools and the reservations have addresses.
#[derive(Debug, Default)]
pub struct Leases {
    slots: BTreeMap<Ipv4Addr, Slot>,
    /// The lent address of a client, its time over or not.
    by_client: BTreeMap<ClientKey, Ipv4Addr>,
    offered_to: BTreeMap<ClientKey, Ipv4Addr>,
    /// By subnet, in the configuration's order.
    spaces: Vec<Space>,
    reserved: BTreeMap<Ipv4Addr, Machine>,
    /// How often an address was declined without having been used well since.
    strikes: BTreeMap<Ipv4Addr, u32>,
    /// When an address was probed and nobody used it.
    proven: BTreeMap<Ipv4Addr, Timestamp>,
    known: u64,
    known_busy: u64,
}

/// Who asks for an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub client: &'a ClientKey,
    pub uuid: Option<Uuid>,
    pub known: bool,
    /// The address of this subnet that is reserved for it.
    pub reserved: Option<Ipv4Addr>,
    /// Where it is plugged in.
    pub placement: Option<&'a Placement>,
}

/// Where it asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub index: usize,
    pub subnet: &'a Subnet,
}

/// Why an address is not lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is of no pool, or is somebody's by reservation.
    NotLent,
    /// Somebody has it.
    InUse,
    /// What is left is kept for known machines.
    Short,
}

impl Leases {
    /// The table as it was stored. Rows that the configuration does not lend any more are dropped.
    /// Where a client has several, as after a move to another pool, the one that lasts longest counts.
    pub fn restore(config: &Config, mut rows: Vec<Lease>) -> Self {
        let mut leases = Self {
            spaces: config.subnets.iter().map(|s| Space::new(config, s)).collect(),
            ..Self::default()
        };
        let reservations = config.subnets.iter().flat_map(|s| &s.reservations);
        leases.reserved = reservations.map(|r| (r.ip, r.machine.clone())).collect();
        rows.sort_by_key(|l| (l.expires, l.ip));
        for row in rows {
            if let Some(space) = leases.restorable(config, &row) {
                leases.enter(space, row, false);
            }
        }
        leases
    }

    /// The subnet of a stored row, where the row may stay.
    fn restorable(&self, config: &Config, row: &Lease) -> Option<usize> {
        let index = config.subnets.iter().position(|s| s.net.contains(row.ip))?;
        let lends = matches!(config.subnets[index].mode, Mode::Authoritative | Mode::Reserved);
        let open = match self.reserved.get(&row.ip) {
            None => self.spaces[index].lends(row.ip),
            Some(Machine::Mac(mac)) => row.client == ClientKey::Mac(*mac),
            // Whose it is, is not in the row.
            Some(Machine::Uuid(_) | Machine::ClientId(_)) => true,
        };
        (lends && open).then_some(index)
    }

    /// All rows, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.slots.values().filter_map(|s| s.lease.as_ref())
    }

    /// The client's row, its time over or not.
    pub fn of(&self, client: &ClientKey) -> Option<&Lease> {
        self.slots.get(self.by_client.get(client)?)?.lease.as_ref()
    }

    /// How many addresses are offered and not asked for yet; for tests and figures.
    pub fn offers(&self) -> usize {
        self.offered_to.len()
    }

    /// How many machines are known, and which of them changed.
    pub(crate) fn set_known(&mut self, known: u64, changed: impl Iterator<Item = (MacAddr, bool)>) {
        self.known = known;
        for (mac, is) in changed {
            if let Some(ip) = self.by_client.get(&ClientKey::Mac(mac)).copied() {
                self.change(ip, |slot| slot.known = is);
            }
        }
    }

    /// Holds an address of the subnet for the client: its reserved one, else the one it has or had, else the one it
    /// wishes, else a fresh one, else the one that has been free longest. Strangers leave some for known machines, and a
    /// known machine takes a stranger's offer where nothing else is left. `None` where every address is in use.
    pub(crate) fn offer(
        &mut self,
        now: Timestamp,
        place: Place<'_>,
        who: Who<'_>,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        self.advance(now, place.index);
        let own =
            [who.reserved, self.by_client.get(who.client).copied(), self.offered_to.get(who.client).copied()]
                .into_iter()
                .flatten()
                .find(|ip| self.may_have(place, who, *ip) && self.is_free_for(now, *ip, who.client));
        let ip = own.or_else(|| self.another(now, place, who, wish))?;
        self.hold(now, place.index, ip, who);
        Some(ip)
    }

    /// Lends the address to the client. Returns the rows that changed: the new lease, and the one that the client had
    /// before where that was another address.
    pub(crate) fn bind(
        &mut self,
        now: Timestamp,
        place: Place<'_>,
        who: Who<'_>,
        ip: Ipv4Addr,
    ) -> Result<Vec<Lease>, Refusal> {
        self.advance(now, place.index);
        if !self.may_have(place, who, ip) {
            return Err(Refusal::NotLent);
        }
        if !self.is_free_for(now, ip, who.client) {
            return Err(Refusal::InUse);
        }
        // Its own row counts even where it has another one that lasts longer: a crash may have come between the two.
        let own = self.slots.get(&ip).and_then(|s| s.lease.as_ref()).is_some_and(|l| l.client == *who.client);
        let expected = own || self.offered_to.get(who.client) == Some(&ip);
        if !expected && !who.known && !self.has_room_for_strangers(place.index) {
            return Err(Refusal::Short);
        }
        let expires = now.after(place.subnet.lease_time);
        let lease = Lease {
            ip,
            client: who.client.clone(),
            state: LeaseState::Bound,
            expires,
            placement: who.placement.cloned(),
        };
        if let Some(offered) = self.offered_to.get(who.client).copied() {
            self.drop_offer(offered);
        }
        let former = self.by_client.get(who.client).copied();
        if former == Some(ip) {
            // A lease that is renewed was used well.
            self.strikes.remove(&ip);
        }
        let former = former.filter(|old| *old != ip);
        self.enter(place.index, lease.clone(), who.known);
        let former = former.and_then(|old| self.end(now, old));
        Ok(std::iter::once(lease).chain(former).collect())
    }

    /// The client took another server's offer: the address is free at once.
    pub(crate) fn withdraw(&mut self, client: &ClientKey) {
        if let Some(ip) = self.offered_to.get(client).copied() {
            self.drop_offer(ip);
        }
    }

    /// The client gives its address back. `None` where it is not its own.
    pub(crate) fn release(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv4Addr) -> Option<Lease> {
        if self.by_client.get(client) == Some(&ip) { self.end(now, ip) } else { None }
    }

    /// The client found its address in use. Nothing where it is not its own: a stranger cannot take addresses away.
    pub(crate) fn decline(&mut self, now: Timestamp, client: &ClientKey, ip: Ipv4Addr) -> Vec<Lease> {
        if self.by_client.get(client) == Some(&ip) { self.rest(now, ip, client.clone()) } else { Vec::new() }
    }

    /// True where the address has to be probed before it is offered: it was never lent, or was declined, and no probe
    /// has found it free since.
    pub(crate) fn is_unproven(&self, now: Timestamp, ip: Ipv4Addr) -> bool {
        let used =
            self.slots.get(&ip).and_then(|s| s.lease.as_ref()).is_some_and(|l| l.state == LeaseState::Bound);
        !used && self.proven.get(&ip).is_none_or(|at| now.since(*at) >= limits::PROOF_LASTS)
    }

    /// What a probe found. The client itself may still have the address from before.
    pub(crate) fn probed(&mut self, now: Timestamp, ip: Ipv4Addr, user: Option<MacAddr>) -> Vec<Lease> {
        let slot = self.slots.get(&ip);
        let offered = slot.and_then(|s| s.offer.as_ref()).map(|o| &o.client);
        let Some(user) = user.map(ClientKey::Mac).filter(|user| Some(user) != offered) else {
            self.proven.insert(ip, now);
            return Vec::new();
        };
        let lent = slot.and_then(|s| s.lease.as_ref()).is_some_and(|l| l.expires > now);
        if lent { Vec::new() } else { self.rest(now, ip, user) }
    }

    /// True where the client may have the address: it is its own, or nobody's now.
    pub(crate) fn is_free_for(&self, now: Timestamp, ip: Ipv4Addr, client: &ClientKey) -> bool {
        let Some(slot) = self.slots.get(&ip) else { return true };
        let offered = slot.offer.as_ref().is_none_or(|o| o.expires <= now || o.client == *client);
        let own = |l: &Lease| l.client == *client && l.state != LeaseState::Declined;
        offered && slot.lease.as_ref().is_none_or(|l| l.expires <= now || own(l))
    }

    /// True where the address is the pool's or this client's.
    fn may_have(&self, place: Place<'_>, who: Who<'_>, ip: Ipv4Addr) -> bool {
        if who.reserved == Some(ip) {
            return true;
        }
        match self.reserved.get(&ip) {
            None => self.spaces[place.index].lends(ip),
            Some(Machine::Mac(_)) => false,
            // An operating system sends no UUID, and other identifiers than firmware: the machine keeps what it has.
            Some(Machine::Uuid(uuid)) => {
                who.uuid.is_none_or(|u| u == *uuid) && self.by_client.get(who.client) == Some(&ip)
            }
            Some(Machine::ClientId(_)) => self.by_client.get(who.client) == Some(&ip),
        }
    }

    /// An address that the client did not have before.
    fn another(
        &mut self,
        now: Timestamp,
        place: Place<'_>,
        who: Who<'_>,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        if !who.known && !self.has_room_for_strangers(place.index) {
            return None;
        }
        let space = &self.spaces[place.index];
        let found = wish
            .filter(|ip| space.lends(*ip) && self.is_free_for(now, *ip, who.client))
            // From a place that depends on the client alone: so a machine gets the same one again even after the table
            // was lost.
            .or_else(|| {
                space.fresh.from(place.subnet.nth(who.client.hash().checked_rem(place.subnet.pool_len())?)?)
            })
            // A clock that was set back makes an ended lease last again.
            .or_else(|| space.first(Class::Idle).filter(|(time, _)| *time <= now).map(|(_, ip)| ip));
        if found.is_some() || !who.known {
            return found;
        }
        let (_, ip) = space.first(Class::Soft)?;
        self.drop_offer(ip);
        Some(ip)
    }

    fn has_room_for_strangers(&self, space: usize) -> bool {
        let absent = self.known.saturating_sub(self.known_busy);
        let space = &self.spaces[space];
        space.room() > space.kept(absent)
    }

    /// Offers the address, unless the client has it already.
    fn hold(&mut self, now: Timestamp, space: usize, ip: Ipv4Addr, who: Who<'_>) {
        if let Some(old) = self.offered_to.get(who.client).copied().filter(|old| *old != ip) {
            self.drop_offer(old);
        }
        // A bound lease stays bound while its client boots again.
        if self.slots.get(&ip).and_then(|s| s.lease.as_ref()).is_some_and(|l| l.expires > now) {
            return;
        }
        self.drop_offer(ip);
        let short = !who.known && self.spaces[space].is_short();
        let expires = now.after(if short { limits::OFFER_HOLD_SHORT } else { limits::OFFER_HOLD });
        let offer = Offer { client: who.client.clone(), expires, known: who.known };
        self.offered_to.insert(who.client.clone(), ip);
        self.change(ip, |slot| slot.offer = Some(offer));
    }

    fn drop_offer(&mut self, ip: Ipv4Addr) {
        let Some(offer) = self.slots.get(&ip).and_then(|s| s.offer.as_ref()) else { return };
        self.offered_to.remove(&offer.client);
        self.change(ip, |slot| slot.offer = None);
    }

    /// Ends a lease, and returns its row.
    fn end(&mut self, now: Timestamp, ip: Ipv4Addr) -> Option<Lease> {
        self.change(ip, |slot| {
            slot.ended = true;
            let lease = slot.lease.as_mut()?;
            lease.expires = lease.expires.min(now);
            Some(lease.clone())
        })?
    }

    /// Nobody gets the address for a while, each time for longer. Returns its row, and that of another one whose rest
    /// ends for it.
    fn rest(&mut self, now: Timestamp, ip: Ipv4Addr, client: ClientKey) -> Vec<Lease> {
        let Some(index) = self.spaces.iter().position(|s| s.net.contains(ip)) else { return Vec::new() };
        let strikes = self.strikes.entry(ip).or_default();
        let rest = limits::DECLINE_REST.saturating_mul(1 << (*strikes).min(8)).min(limits::DECLINE_REST_MAX);
        *strikes = strikes.saturating_add(1);
        self.proven.remove(&ip);
        self.drop_offer(ip);
        let lease =
            Lease { ip, client, state: LeaseState::Declined, expires: now.after(rest), placement: None };
        self.enter(index, lease.clone(), false);
        let too_many = self.spaces[index].rests_too_much();
        let first = self.spaces[index].first(Class::Resting).filter(|_| too_many);
        let other = first.and_then(|(_, first)| self.end(now, first));
        std::iter::once(lease).chain(other).collect()
    }

    /// Enters a row in place of the one of the same address.
    fn enter(&mut self, space: usize, lease: Lease, known: bool) {
        let ip = lease.ip;
        if !self.spaces[space].net.contains(ip) {
            return;
        }
        self.drop_offer(ip);
        if let Some(old) = self.slots.get(&ip).and_then(|s| s.lease.as_ref())
            && self.by_client.get(&old.client) == Some(&ip)
        {
            self.by_client.remove(&old.client);
        }
        if lease.state == LeaseState::Bound {
            self.by_client.insert(lease.client.clone(), ip);
            self.proven.remove(&ip);
        }
        self.change(ip, |slot| *slot = Slot { lease: Some(lease), ended: false, known, offer: None });
    }

    /// Everything whose time is over moves to where it is free.
    fn advance(&mut self, now: Timestamp, space: usize) {
        while let Some(ip) = self.spaces[space].due(now) {
            if self.slots.get(&ip).is_some_and(|s| s.offer.is_some()) {
                self.drop_offer(ip);
            } else {
                self.change(ip, |slot| slot.ended = true);
            }
        }
    }

    /// Changes one address and keeps the orders in step.
    fn change<T>(&mut self, ip: Ipv4Addr, with: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let space = self.spaces.iter_mut().find(|s| s.net.contains(ip))?;
        let mut slot = self.slots.remove(&ip).unwrap_or_default();
        self.known_busy -= u64::from(space.unfile(ip, &slot));
        let result = with(&mut slot);
        self.known_busy += u64::from(space.file(ip, &slot));
        if slot.lease.is_some() || slot.offer.is_some() {
            self.slots.insert(ip, slot);
        }
        Some(result)
    }
}
