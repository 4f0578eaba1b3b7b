//! How wrong passwords are slowed down: by account and address together, by account, and by address.
//!
//! ```text
//! failures in a row      1 … free   free+1    free+2   …
//! wait before the next   none       30 s      60 s     … 15 min
//! ```
//!
//! A name that nobody has is counted like any other, so a wait says nothing about who exists. Somebody at one address cannot keep
//! the owner of an account, at another, from signing in by a handful of wrong passwords; for that the account alone has a count
//! that is higher.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use protocol::Timestamp;

/// Wrong passwords in a row for one account from one address before there is a wait.
const FREE_PAIR: u32 = 5;
/// Wrong passwords in a row for one account, wherever from.
const FREE_ACCOUNT: u32 = 20;
/// Wrong passwords from one address, whatever the account: a proxy in front brings all people by one address.
const FREE_ADDRESS: u32 = 50;
/// The first wait; each that follows is twice as long.
const WAIT: Duration = Duration::from_secs(30);
/// The longest.
const WAIT_MAX: Duration = Duration::from_mins(15);
/// Failures are forgotten after so long without one.
const FORGET: Duration = Duration::from_hours(1);
/// Counters at once; the one that failed longest ago makes room.
const COUNTERS_MAX: usize = 10_000;
/// Of a name, so much is kept.
const NAME_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Pair(String, IpAddr),
    Account(String),
    Address(IpAddr),
}

impl Key {
    fn free(&self) -> u32 {
        match self {
            Self::Pair(..) => FREE_PAIR,
            Self::Account(_) => FREE_ACCOUNT,
            Self::Address(_) => FREE_ADDRESS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    last: Timestamp,
}

impl Count {
    fn until(self, free: u32) -> Timestamp {
        let Some(over) = self.failures.checked_sub(free) else { return self.last };
        let wait = WAIT.saturating_mul(1 << over.min(10));
        self.last.after(wait.min(WAIT_MAX))
    }
}

/// Counts wrong passwords.
#[derive(Debug, Default)]
pub struct Lockout {
    counts: BTreeMap<Key, Count>,
}

impl Lockout {
    /// Whether somebody may try a password now.
    ///
    /// # Errors
    /// For how long they may not.
    pub fn check(&self, account: &str, address: IpAddr, now: Timestamp) -> Result<(), Duration> {
        let waits = keys(account, address).into_iter().filter_map(|key| {
            let count = self.counts.get(&key).filter(|c| now.since(c.last) < FORGET)?;
            let until = count.until(key.free());
            (count.failures >= key.free() && until > now).then(|| until.since(now))
        });
        waits.max().map_or(Ok(()), Err)
    }

    /// Counts a wrong password; true where this one begins a wait.
    pub fn failed(&mut self, account: &str, address: IpAddr, now: Timestamp) -> bool {
        let mut begins = false;
        for key in keys(account, address) {
            self.make_room(&key, now);
            let free = key.free();
            let count = self.counts.entry(key).or_insert(Count { failures: 0, last: now });
            if now.since(count.last) >= FORGET {
                count.failures = 0;
            }
            count.failures = count.failures.saturating_add(1);
            count.last = now;
            begins |= count.failures >= free;
        }
        begins
    }

    /// Forgets the failures of an account at an address, after the right password. Those of the address alone stay: whoever has
    /// one account does not get to try others for ever.
    pub fn succeeded(&mut self, account: &str, address: IpAddr) {
        let [pair, account, _] = keys(account, address);
        self.counts.remove(&pair);
        self.counts.remove(&account);
    }

    fn make_room(&mut self, key: &Key, now: Timestamp) {
        if self.counts.len() < COUNTERS_MAX || self.counts.contains_key(key) {
            return;
        }
        self.counts.retain(|_, count| now.since(count.last) < FORGET);
        if self.counts.len() >= COUNTERS_MAX {
            let oldest = self.counts.iter().min_by_key(|(_, c)| c.last).map(|(key, _)| key.clone());
            oldest.map(|key| self.counts.remove(&key));
        }
    }
}

fn keys(account: &str, address: IpAddr) -> [Key; 3] {
    let name: String = account.chars().take(NAME_MAX).collect();
    [Key::Pair(name.clone(), address), Key::Account(name), Key::Address(address)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn waits_grow_and_end() {
        let mut lockout = Lockout::default();
        let mut now = Timestamp(1_000_000);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(lockout.check("alice", A, now), Ok(()));
            lockout.failed("alice", A, now);
            let wait = lockout.check("alice", A, now).err().unwrap_or_default();
            waits.push(wait.as_secs());
            now = now.after(wait);
        }
        assert_eq!(waits, [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900]);
        lockout.failed("alice", A, now);
        assert!(lockout.check("alice", A, now.after(Duration::from_secs(899))).is_err());
        assert_eq!(lockout.check("alice", B, now), Ok(()), "the owner, elsewhere");
        assert_eq!(lockout.check("bob", A, now), Ok(()), "somebody else at that address");
        lockout.succeeded("alice", A);
        assert_eq!(lockout.check("alice", A, now), Ok(()));
    }

    #[test]
    fn many_addresses_do_not_help_against_one_account_nor_many_names_from_one_address() {
        let mut lockout = Lockout::default();
        let now = Timestamp(1_000_000);
        for n in 0..20_u32 {
            lockout.failed("alice", IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(lockout.check("alice", B, now).is_err());
        let begun: Vec<bool> = (0..50).map(|n| lockout.failed(&format!("name{n}"), A, now)).collect();
        assert_eq!(begun.iter().filter(|begins| **begins).count(), 1);
        assert!(lockout.check("carol", A, now).is_err());
        lockout.succeeded("carol", A);
        assert!(lockout.check("carol", A, now).is_err());
        assert_eq!(lockout.check("carol", A, now.after(FORGET)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut lockout = Lockout::default();
        for n in 0..3_400_u32 {
            lockout.failed(&format!("u{n}"), IpAddr::from(n.to_be_bytes()), Timestamp(u64::from(n) + 1));
        }
        assert!(lockout.counts.len() <= COUNTERS_MAX);
    }
}
