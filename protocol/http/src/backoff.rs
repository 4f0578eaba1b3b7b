//! How long to wait before trying again: doubling, capped, jittered, for ever. A thousand agents that lose the server
//! in one moment must not come back in one moment.

use std::time::Duration;

/// First wait.
pub const BASE: Duration = Duration::from_millis(250);
/// Longest wait: a restarted server is found within this.
pub const CAP: Duration = Duration::from_secs(10);

/// The waits of one thing that is being tried.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: between half and all of `min(CAP, BASE * 2^tries)`, chosen by `random`.
    pub fn wait(&mut self, random: u32) -> Duration {
        let ceiling = BASE.saturating_mul(1 << self.tries.min(16)).min(CAP);
        self.tries = self.tries.saturating_add(1);
        ceiling / 2 + (ceiling / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Failures since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grows_to_the_cap_and_stays(random: u32) {
            let mut backoff = Backoff::default();
            prop_assert!(backoff.wait(random) <= BASE);
            for _ in 0..40 {
                prop_assert!(backoff.wait(random) <= CAP);
            }
            prop_assert!(backoff.wait(random) >= CAP / 2);
            backoff.reset();
            prop_assert!(backoff.wait(random) <= BASE);
        }
    }
}
