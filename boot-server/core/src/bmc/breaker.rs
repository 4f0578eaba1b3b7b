//! The circuit breaker of one BMC: one that does not answer is left alone for a while, so that nobody waits for it.
//!
//! ```text
//!            silence x 3                      pause is over
//!   closed ──────────────▶ open{until} ──────────────────────▶ probe ──answer──▶ closed
//!                             ▲                                  │
//!                             └────────silence: longer pause─────┘
//! ```

use std::time::Duration;

use protocol::Timestamp;

use super::Chance;

/// Silences in a row after which nobody asks any more: one may be a lost packet, two a controller that is busy.
pub const OPENS_AFTER: u32 = 3;
/// The first pause.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
/// The longest pause: a controller that comes back is noticed within this time.
pub const PAUSE_MAX: Duration = Duration::from_mins(5);

/// The breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    silences: u32,
    until: Option<Timestamp>,
}

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Ask.
    Go,
    /// Ask something harmless first, to see whether it is back.
    Probe,
    /// Ask nothing before this moment.
    Wait(Timestamp),
}

impl Breaker {
    /// What may be done now.
    pub fn gate(&self, now: Timestamp) -> Gate {
        match self.until {
            None => Gate::Go,
            Some(until) if now < until => Gate::Wait(until),
            Some(_) => Gate::Probe,
        }
    }

    /// When the next probe is due, if the breaker is open.
    pub fn open_until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Silences since the last answer.
    pub fn silences(&self) -> u32 {
        self.silences
    }

    /// It answered, whatever the answer; true where it had been given up before.
    pub fn handle_answer(&mut self) -> bool {
        let was_open = self.until.is_some();
        *self = Self::default();
        was_open
    }

    /// It did not answer; true where it is given up by this.
    pub fn handle_silence(&mut self, now: Timestamp, chance: Chance) -> bool {
        let was_open = self.until.is_some();
        self.silences = self.silences.saturating_add(1);
        if self.silences < OPENS_AFTER {
            return false;
        }
        self.until = Some(now.after(chance.jitter(pause(self.silences - OPENS_AFTER))));
        !was_open
    }
}

fn pause(times: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << times.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Chance = Chance(u16::MAX);

    #[test]
    fn opens_after_three_silences_and_closes_with_an_answer() {
        let mut breaker = Breaker::default();
        let now = Timestamp(1_000_000);
        assert!(!breaker.handle_silence(now, FULL) && !breaker.handle_silence(now, FULL));
        assert_eq!(breaker.gate(now), Gate::Go);
        assert!(breaker.handle_silence(now, FULL), "told once");
        assert_eq!(breaker.gate(now), Gate::Wait(now.after(Duration::from_secs(10))));
        let later = now.after(Duration::from_secs(10));
        assert_eq!(breaker.gate(later), Gate::Probe);
        assert!(!breaker.handle_silence(later, FULL), "it was given up before");
        assert_eq!(breaker.gate(later), Gate::Wait(later.after(Duration::from_secs(20))));
        assert!(breaker.handle_answer());
        assert_eq!(breaker, Breaker::default());
        assert!(!breaker.handle_answer());
    }

    proptest! {
        /// Whatever happens, a probe comes within the longest pause, and an answer makes it as new.
        #[test]
        fn never_given_up_for_long(steps in prop::collection::vec((any::<bool>(), any::<u16>(), 0_u64..400_000), 0..60)) {
            let (mut breaker, mut now) = (Breaker::default(), Timestamp(0));
            let mut silences = 0_u32;
            for (answers, chance, ms) in steps {
                now = Timestamp(now.0 + ms);
                if answers {
                    breaker.handle_answer();
                    silences = 0;
                } else {
                    breaker.handle_silence(now, Chance(chance));
                    silences += 1;
                }
                prop_assert_eq!(breaker.gate(now) == Gate::Go, silences < OPENS_AFTER);
                if let Gate::Wait(until) = breaker.gate(now) {
                    prop_assert!(until.since(now) <= PAUSE_MAX);
                    prop_assert_eq!(breaker.gate(until), Gate::Probe);
                }
            }
        }
    }
}
