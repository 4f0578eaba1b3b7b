//! Limits of a disk: how many requests and bytes per second are begun. What is above waits, in the order in which it came.
//!
//! Each limit is a moment that every request moves on by its own worth (the generic cell rate algorithm, ITU-T I.371): while it lies in
//! the past a request begins at once, and after a pause [`BURST`]'s worth may begin together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::dpu::IoLimits;

/// So much of a limit may be used at once after a pause, as in QEMU's throttle groups.
pub const BURST: Duration = Duration::from_millis(100);

/// The limits of a disk, with what was used of them. Time is counted from any moment on.
#[derive(Debug, Default)]
pub struct Limiter {
    limits: Option<IoLimits>,
    requests: Rate,
    bytes: Rate,
}

#[derive(Debug, Default)]
struct Rate {
    /// Per second; without limit for `None`.
    limit: Option<u64>,
    /// When all that was begun would have been done at the limit.
    free: Duration,
}

impl Rate {
    fn wait(&self, now: Duration) -> Duration {
        if self.limit.is_some() { self.free.saturating_sub(now) } else { Duration::ZERO }
    }

    fn take(&mut self, now: Duration, amount: u64) {
        let Some(limit) = self.limit else { return };
        let nanos = (u128::from(amount) * 1_000_000_000).div_ceil(u128::from(limit.max(1)));
        let worth = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free = self.free.max(now.saturating_sub(BURST)).saturating_add(worth);
    }
}

impl Limiter {
    /// Sets the limits; what waits for old ones does so no longer. False where they are as they were.
    pub fn set(&mut self, now: Duration, limits: Option<IoLimits>) -> bool {
        if self.limits == limits {
            return false;
        }
        let rate = |limit| Rate { limit, free: now };
        self.requests = rate(limits.and_then(|limits| limits.iops));
        self.bytes = rate(limits.and_then(|limits| limits.bytes_per_second));
        self.limits = limits;
        true
    }

    /// Begins a request that moves so many bytes.
    ///
    /// # Errors
    /// How long it has to wait, at least.
    pub fn begin(&mut self, now: Duration, bytes: u64) -> Result<(), Duration> {
        let wait = self.requests.wait(now).max(self.bytes.wait(now));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.requests.take(now, 1);
        self.bytes.take(now, bytes);
        Ok(())
    }
}

/// A [`Limiter`] for all queues of a disk.
#[derive(Debug)]
pub struct Limits {
    /// There are any: without, no request takes the lock.
    set: AtomicBool,
    start: Instant,
    limiter: Mutex<Limiter>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { set: AtomicBool::new(false), start: Instant::now(), limiter: Mutex::default() }
    }
}

impl Limits {
    /// Whether there are any.
    pub fn are_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// See [`Limiter::set`].
    pub fn set(&self, limits: Option<IoLimits>) -> bool {
        let is_new = self.lock().set(self.start.elapsed(), limits);
        self.set.store(limits.is_some(), Ordering::Release);
        is_new
    }

    /// See [`Limiter::begin`].
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn begin(&self, bytes: u64) -> Result<(), Duration> {
        self.lock().begin(self.start.elapsed(), bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(iops: Option<u64>, bytes_per_second: Option<u64>) -> Option<IoLimits> {
        Some(IoLimits { iops, bytes_per_second })
    }

    #[test]
    fn the_slower_of_two_limits_counts() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.begin(Duration::ZERO, u64::MAX), Ok(()), "without limits nothing waits");
        assert!(limiter.set(Duration::from_secs(1), limits(Some(10), Some(1000))));
        let mut begin = |ms, bytes| limiter.begin(Duration::from_millis(ms), bytes);
        assert_eq!(begin(1000, 500), Ok(()));
        assert_eq!(begin(1100, 0), Err(Duration::from_millis(400)), "half a second's bytes");
        assert_eq!(begin(1500, 0), Ok(()));
        assert_eq!(begin(1500, 0), Ok(()), "a tenth of a second's requests at once");
        assert_eq!(begin(1500, 0), Err(Duration::from_millis(100)));
    }

    #[test]
    fn other_limits_hold_at_once() {
        let mut limiter = Limiter::default();
        limiter.set(Duration::ZERO, limits(None, Some(1)));
        limiter.begin(Duration::ZERO, 64 << 20).unwrap();
        assert!(limiter.begin(Duration::from_secs(1), 1).unwrap_err() > Duration::from_secs(3600));
        assert!(!limiter.set(Duration::from_secs(1), limits(None, Some(1))));
        assert!(limiter.set(Duration::from_secs(1), limits(None, Some(1 << 20))));
        assert_eq!(limiter.begin(Duration::from_secs(1), 1), Ok(()));
        limiter.set(Duration::from_secs(1), None);
        assert_eq!(limiter.begin(Duration::from_secs(1), u64::MAX), Ok(()));
        assert_eq!(limiter.begin(Duration::from_secs(1), u64::MAX), Ok(()));
    }

    proptest! {
        /// Whatever comes whenever: before each request no more was begun than the limits let through in that time and a burst. And
        /// who waits as long as it was told may begin.
        #[test]
        fn no_more_than_the_limit_and_nobody_waits_for_ever(
            iops in prop::option::of(1_u64..5000), rate in prop::option::of(1_u64..100_000_000),
            asked in prop::collection::vec((0_u64..3_000_000, 0_u64..2_000_000), 1..60)
        ) {
            let mut limiter = Limiter::default();
            let start = Duration::from_secs(5);
            limiter.set(start, limits(iops, rate));
            let (mut now, mut requests, mut bytes) = (start, 0_u128, 0_u128);
            for (pause, amount) in asked {
                now += Duration::from_micros(pause);
                if let Err(wait) = limiter.begin(now, amount) {
                    now += wait;
                    prop_assert_eq!(limiter.begin(now, amount), Ok(()));
                }
                let passed = (now - start + BURST).as_nanos();
                for (begun, limit) in [(requests, iops), (bytes, rate)] {
                    if let Some(limit) = limit {
                        prop_assert!(begun * 1_000_000_000 <= passed * u128::from(limit), "{} in {} ns", begun, passed);
                    }
                }
                requests += 1;
                bytes += u128::from(amount);
            }
        }
    }
}
