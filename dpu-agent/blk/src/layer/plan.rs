//! Which chunk is fetched next: what the guest waits for before all else, then what follows the last such chunk, then the
//! rest from the front. The rest is limited in rate. Where the image store does not answer, everything waits a little and
//! longer each time; whoever waited for a chunk longer than the deadline is told that it cannot be had.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Chunks of the rest that are fetched at once; the other fetchers are free for what the guest waits for.
pub const BEHIND_AT_ONCE: usize = 2;
/// First wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait: a guest that stalls should not wait much longer than the outage.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Wait before a chunk whose bytes were wrong is fetched again: the store may have been repaired.
pub const WRONG_WAIT: Duration = Duration::from_secs(10);

/// What to do now. All times are since an arbitrary moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Fetch this chunk.
    Fetch(u32),
    /// Nothing before this moment, unless something is demanded.
    Wait(Duration),
    /// Nothing, unless something ends or is demanded.
    Idle,
    /// Nothing any more: every chunk is here.
    Done,
}

/// How fast, and how patient.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes per second of what nobody waits for; `None` without limit.
    pub rate: Option<u64>,
    /// How long a guest may wait for a chunk before it gets an I/O error.
    pub deadline: Duration,
}

/// The plan.
#[derive(Debug)]
pub struct Plan {
    pace: Pace,
    chunk_size: u64,
    missing: BTreeSet<u32>,
    /// Chunks somebody waits for, oldest first, with the moment since when.
    demanded: VecDeque<(u32, Duration)>,
    fetching: BTreeMap<u32, Behind>,
    /// Where the rest goes on.
    cursor: u32,
    /// When the rest may go on.
    behind_at: Duration,
    /// When the store is asked again, and how often it failed in a row.
    store_at: Duration,
    failures: u32,
    /// Chunks whose bytes were wrong, and when they are tried again.
    wrong: BTreeMap<u32, Duration>,
}

/// True for a fetch that nobody asked for.
type Behind = bool;

impl Plan {
    /// A plan for these chunks of `chunk_size` bytes.
    pub fn new(missing: impl IntoIterator<Item = u32>, chunk_size: u32, pace: Pace) -> Self {
        Self {
            pace,
            chunk_size: chunk_size.into(),
            missing: missing.into_iter().collect(),
            demanded: VecDeque::new(),
            fetching: BTreeMap::new(),
            cursor: 0,
            behind_at: Duration::ZERO,
            store_at: Duration::ZERO,
            failures: 0,
            wrong: BTreeMap::new(),
        }
    }

    /// Somebody waits for `chunk`.
    pub fn demand(&mut self, now: Duration, chunk: u32) {
        if self.missing.contains(&chunk) && self.demanded.iter().all(|(c, _)| *c != chunk) {
            self.demanded.push_back((chunk, now));
        }
        self.cursor = chunk.saturating_add(1);
    }

    /// What to do now; a chunk that is to be fetched counts as being fetched from here on.
    pub fn next(&mut self, now: Duration) -> Next {
        if self.missing.is_empty() {
            return Next::Done;
        }
        let mut wake = self.demanded.front().map(|(_, since)| *since + self.pace.deadline);
        let mut later = |at: Duration| wake = Some(wake.map_or(at, |w| w.min(at)));
        if now < self.store_at {
            later(self.store_at);
            return wake.map_or(Next::Idle, Next::Wait);
        }
        let free = |chunk: &u32| !self.fetching.contains_key(chunk);
        let wrong_at = |chunk: &u32| self.wrong.get(chunk).copied().filter(|at| *at > now);
        if let Some(chunk) = self.demanded.iter().map(|(c, _)| *c).find(|c| free(c)) {
            self.fetching.insert(chunk, false);
            return Next::Fetch(chunk);
        }
        if self.fetching.values().filter(|behind| **behind).count() < BEHIND_AT_ONCE {
            let (before, after) = (self.missing.range(..self.cursor), self.missing.range(self.cursor..));
            let candidates: Vec<u32> = after.chain(before).copied().filter(free).take(64).collect();
            let ready = candidates.iter().find(|c| wrong_at(c).is_none());
            match ready {
                Some(chunk) if now >= self.behind_at => {
                    let chunk = *chunk;
                    self.begin_behind(now, chunk);
                    return Next::Fetch(chunk);
                }
                Some(_) => later(self.behind_at),
                None => candidates.iter().filter_map(wrong_at).for_each(&mut later),
            }
        }
        wake.map_or(Next::Idle, Next::Wait)
    }

    /// All of `chunk` is here, fetched or written over.
    pub fn here(&mut self, chunk: u32) {
        self.missing.remove(&chunk);
        self.wrong.remove(&chunk);
        self.end(chunk);
    }

    /// `chunk` was fetched: the store answers. True where it did not before.
    pub fn fetched(&mut self, chunk: u32) -> bool {
        let was_away = self.failures > 0;
        self.failures = 0;
        self.store_at = Duration::ZERO;
        self.here(chunk);
        was_away
    }

    /// The store did not give `chunk`. True for the first failure in a row.
    pub fn away(&mut self, now: Duration, chunk: u32) -> bool {
        self.fetching.remove(&chunk);
        self.failures = self.failures.saturating_add(1);
        let wait = WAIT_MIN.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
        self.store_at = now + wait.min(WAIT_MAX);
        self.failures == 1
    }

    /// The store gave other bytes than `chunk`'s. Nobody waits for it any more.
    pub fn wrong(&mut self, now: Duration, chunk: u32) {
        self.wrong.insert(chunk, now + WRONG_WAIT);
        self.end(chunk);
    }

    /// Chunks that somebody waited for too long. Nobody does any more.
    pub fn expired(&mut self, now: Duration) -> Vec<u32> {
        let mut expired = Vec::new();
        while let Some((chunk, _)) =
            self.demanded.pop_front_if(|(_, since)| *since + self.pace.deadline <= now)
        {
            expired.push(chunk);
        }
        expired
    }

    fn begin_behind(&mut self, now: Duration, chunk: u32) {
        self.fetching.insert(chunk, true);
        self.cursor = chunk.saturating_add(1);
        if let Some(rate) = self.pace.rate {
            let nanos = u128::from(self.chunk_size) * 1_000_000_000 / u128::from(rate.max(1));
            self.behind_at = now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
    }

    fn end(&mut self, chunk: u32) {
        self.fetching.remove(&chunk);
        self.demanded.retain(|(c, _)| *c != chunk);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { rate: Some(1 << 20), deadline: Duration::from_secs(30) };
    const ZERO: Duration = Duration::ZERO;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_the_guest_waits_for_comes_first_and_what_follows_it_next() {
        let mut plan = Plan::new(0..10, 1 << 20, PACE);
        assert_eq!(plan.next(ZERO), Next::Fetch(0), "the rest, from the front");
        assert_eq!(plan.next(ZERO), Next::Wait(seconds(1)), "at the rate");
        plan.demand(ZERO, 7);
        plan.demand(ZERO, 3);
        plan.demand(ZERO, 7);
        assert_eq!([plan.next(ZERO), plan.next(ZERO)], [Next::Fetch(7), Next::Fetch(3)], "without one");
        for chunk in [0, 3, 7] {
            plan.fetched(chunk);
        }
        // The last that was demanded was 7 (again): the rest goes on behind it, then wraps around.
        let order: Vec<Next> = (1..8)
            .map(|n| {
                let next = plan.next(seconds(n));
                if let Next::Fetch(chunk) = next {
                    plan.fetched(chunk);
                }
                next
            })
            .collect();
        assert_eq!(order, [8, 9, 1, 2, 4, 5, 6].map(Next::Fetch));
        assert_eq!(plan.next(seconds(8)), Next::Done);
    }

    #[test]
    fn fetchers_are_left_for_the_guest() {
        let mut plan = Plan::new(0..10, 1 << 20, Pace { rate: None, ..PACE });
        assert_eq!([plan.next(ZERO), plan.next(ZERO)], [Next::Fetch(0), Next::Fetch(1)]);
        assert_eq!(plan.next(ZERO), Next::Idle);
        plan.demand(ZERO, 1);
        assert_eq!(plan.next(ZERO), Next::Wait(seconds(30)), "it is being fetched already");
        plan.demand(ZERO, 5);
        assert_eq!(plan.next(ZERO), Next::Fetch(5));
    }

    #[test]
    fn a_store_that_is_away_is_asked_less_and_less_often_until_the_deadline() {
        let mut plan = Plan::new(0..10, 1 << 20, Pace { rate: None, ..PACE });
        plan.demand(ZERO, 4);
        let (mut now, mut waits) = (ZERO, Vec::new());
        while plan.expired(now).is_empty() {
            match plan.next(now) {
                Next::Fetch(chunk) => assert_eq!(plan.away(now, chunk), waits.is_empty()),
                Next::Wait(until) => {
                    waits.push(until - now);
                    now = until;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(now, seconds(30));
        assert_eq!(
            waits[..7].iter().map(Duration::as_millis).collect::<Vec<_>>(),
            [100, 200, 400, 800, 1600, 3000, 3000]
        );
        // The store comes back: everything goes on, and the next outage begins anew.
        assert!(matches!(plan.next(now + WAIT_MAX), Next::Fetch(_)));
        plan.fetched(5);
        plan.demand(now, 4);
        assert_eq!(plan.next(now), Next::Fetch(4));
        assert!(plan.away(now, 4));
    }

    #[test]
    fn a_wrong_chunk_is_given_up_for_a_while_and_stops_nobody_else() {
        let mut plan = Plan::new([2, 6], 1 << 20, Pace { rate: None, ..PACE });
        plan.demand(ZERO, 2);
        assert_eq!(plan.next(ZERO), Next::Fetch(2));
        plan.wrong(ZERO, 2);
        assert_eq!(plan.next(ZERO), Next::Fetch(6));
        plan.fetched(6);
        assert_eq!(plan.next(ZERO), Next::Wait(WRONG_WAIT));
        // Whoever asks again is not refused because of what was: the store is asked.
        plan.demand(seconds(1), 2);
        assert_eq!(plan.next(seconds(1)), Next::Fetch(2));
        plan.here(2);
        assert_eq!(plan.next(seconds(1)), Next::Done);
    }

    proptest! {
        /// Whatever fails in whatever order: nothing is fetched twice at once, and in the end all is here.
        #[test]
        fn everything_arrives(steps in proptest::collection::vec((0_u8..6, 0_u32..20, 0_u64..5000), 0..200)) {
            let mut plan = Plan::new(0..20, 1 << 20, PACE);
            let (mut now, mut under_way, mut here) = (ZERO, BTreeSet::new(), BTreeSet::new());
            for (what, chunk, millis) in steps {
                now += Duration::from_millis(millis);
                let first = under_way.first().copied();
                match (what, first) {
                    (0, _) => plan.demand(now, chunk),
                    (1, Some(c)) => { plan.fetched(c); under_way.remove(&c); here.insert(c); }
                    (2, Some(c)) => { plan.away(now, c); under_way.remove(&c); }
                    (3, Some(c)) => { plan.wrong(now, c); under_way.remove(&c); }
                    (4, _) => drop(plan.expired(now)),
                    _ => if let Next::Fetch(c) = plan.next(now) {
                        prop_assert!(!here.contains(&c) && under_way.insert(c));
                    },
                }
            }
            for c in under_way {
                plan.fetched(c);
            }
            for _ in 0..200 {
                match plan.next(now) {
                    Next::Fetch(c) => { plan.fetched(c); }
                    Next::Wait(until) => { now = until; plan.expired(now); }
                    Next::Idle => prop_assert!(false, "idle with chunks missing"),
                    Next::Done => return Ok(()),
                }
            }
            prop_assert!(false, "not done");
        }
    }
}
