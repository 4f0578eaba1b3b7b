//! A token bucket: how many things may happen, some at once and the others over time.

use protocol::Timestamp;

/// A bucket of `burst` tokens that is filled again at `per_second`. It begins full.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: u32,
    per_second: u32,
    /// Thousandths of tokens, so that a slow rate is exact.
    filled: u64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, filled: u64::from(burst) * 1000, at: Timestamp(0) }
    }

    /// Takes a token; false where none is left.
    pub fn take(&mut self, now: Timestamp) -> bool {
        // One token in a thousand milliseconds is one thousandth in each.
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let fresh = passed.saturating_mul(u64::from(self.per_second));
        self.filled = self.filled.saturating_add(fresh).min(u64::from(self.burst) * 1000);
        // A clock that was set back must not give the same time twice.
        self.at = self.at.max(now);
        let left = self.filled.checked_sub(1000);
        self.filled = left.unwrap_or(self.filled);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(3, 2);
        let mut take = |ms: u64| bucket.take(Timestamp(1_000_000 + ms));
        assert_eq!([take(0), take(0), take(0), take(0)], [true, true, true, false]);
        assert_eq!([take(400), take(500), take(600)], [false, true, false]);
        assert_eq!([take(100_000), take(100_000), take(100_000), take(100_000)], [true, true, true, false]);
        assert!(!take(0), "a clock that was set back");
        assert!(!Bucket::new(0, 0).take(Timestamp(5)));
    }

    proptest! {
        /// Never more than the burst and what has flown in since.
        #[test]
        fn no_more_than_allowed(burst in 0_u32..20, rate in 0_u32..20, waits in prop::collection::vec(0_u64..2000, 0..60)) {
            let mut bucket = Bucket::new(burst, rate);
            let mut now = 1_000_000;
            bucket.take(Timestamp(now));
            let (mut taken, start) = (1, now);
            for wait in waits {
                now += wait;
                taken += u64::from(bucket.take(Timestamp(now)));
            }
            prop_assert!(taken <= 1 + u64::from(burst) + (now - start) * u64::from(rate) / 1000);
        }
    }
}
