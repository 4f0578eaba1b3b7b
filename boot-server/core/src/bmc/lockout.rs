//! Wrong passwords lock accounts: many controllers lock one after three to five of them within minutes. So at most three
//! are tried in five minutes, whoever asks, and new credentials begin anew.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::Timestamp;

/// Failed logins within [`WINDOW`].
pub const LOGINS_MAX: usize = 3;
/// The time in which they are counted.
pub const WINDOW: Duration = Duration::from_mins(5);

/// The failed logins at one BMC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lockout {
    failed: VecDeque<Timestamp>,
}

impl Lockout {
    /// When the next login may be tried, if not now.
    pub fn allowed(&self, now: Timestamp) -> Result<(), Timestamp> {
        let recent = || self.failed.iter().filter(|at| now.since(**at) < WINDOW);
        if recent().count() < LOGINS_MAX {
            return Ok(());
        }
        Err(recent().next().map_or(now, |oldest| oldest.after(WINDOW)))
    }

    /// True where the last login failed.
    pub fn refused(&self) -> bool {
        !self.failed.is_empty()
    }

    /// A login failed.
    pub fn handle_failure(&mut self, now: Timestamp) {
        if self.failed.len() >= LOGINS_MAX {
            self.failed.pop_front();
        }
        self.failed.push_back(now);
    }

    /// A login went well, or there are new credentials.
    pub fn reset(&mut self) {
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_in_five_minutes() {
        let at = |s: u64| Timestamp(s * 1000);
        let mut lockout = Lockout::default();
        for s in [0, 10, 20] {
            assert_eq!(lockout.allowed(at(s)), Ok(()));
            lockout.handle_failure(at(s));
        }
        assert_eq!(lockout.allowed(at(20)), Err(at(300)));
        assert_eq!(lockout.allowed(at(299)), Err(at(300)));
        assert_eq!(lockout.allowed(at(300)), Ok(()));
        lockout.handle_failure(at(300));
        assert_eq!(lockout.allowed(at(301)), Err(at(310)));
        lockout.reset();
        assert_eq!(lockout.allowed(at(301)), Ok(()));
    }

    proptest! {
        /// However often somebody tries, no window of five minutes holds more than three failures.
        #[test]
        fn never_more(steps in prop::collection::vec(0_u64..200_000, 0..200)) {
            let (mut lockout, mut now, mut failed) = (Lockout::default(), 0_u64, Vec::new());
            for ms in steps {
                now += ms;
                if lockout.allowed(Timestamp(now)).is_ok() {
                    lockout.handle_failure(Timestamp(now));
                    failed.push(now);
                }
            }
            for window in failed.windows(LOGINS_MAX + 1) {
                prop_assert!(window[LOGINS_MAX] - window[0] >= 300_000);
            }
        }
    }
}
