//! What the worker of one management controller (BMC) decides: when to ask, when to stop asking, and whether what was
//! asked for has happened. The worker itself, and all that speaks to a controller, is the shell's.
//!
//! ```text
//! answer, silence, refusal ─▶ breaker, lockout, retry ─▶ ask now, or when
//! power read back          ─▶ restart, drift          ─▶ next command, evidence, or "it did nothing"
//! ```

mod breaker;
mod drift;
pub mod health;
pub mod history;
pub mod import;
mod lockout;
pub mod restart;
mod retry;

use std::time::Duration;

use protocol::Timestamp;

pub use breaker::{Breaker, Gate, OPENS_AFTER, PAUSE_MAX};
pub use drift::Drift;
pub use lockout::{LOGINS_MAX, Lockout, WINDOW};
pub use restart::Restart;
pub use retry::retry_after;

/// A controller is restarted at most this often: it is away for minutes, and what watches it is blind meanwhile.
pub const RESET_EVERY: Duration = Duration::from_hours(1);

/// One drawing of chance, given by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(pub u16);

impl Chance {
    /// Between half of `base` and all of it, so that what failed together does not come back together.
    pub fn jitter(self, base: Duration) -> Duration {
        let half = base / 2;
        half + half * u32::from(self.0) / u32::from(u16::MAX)
    }
}

/// Whether a machine runs, as far as decisions need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It does not.
    Off,
    /// On its way to one of the two.
    Turning,
    /// The driver cannot know.
    Unknown,
}

/// When the controller may be restarted again, if not now.
pub fn reset_allowed(last: Option<Timestamp>, now: Timestamp) -> Result<(), Timestamp> {
    match last.map(|last| last.after(RESET_EVERY)) {
        Some(next) if now < next => Err(next),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn jitter_is_between_half_and_all(chance: u16, ms in 0_u64..10_000_000) {
            let base = Duration::from_millis(ms);
            let got = Chance(chance).jitter(base);
            prop_assert!(got >= base / 2 && got <= base, "{got:?} of {base:?}");
        }
    }

    #[test]
    fn a_controller_is_reset_once_an_hour() {
        let at = |minutes: u64| Timestamp(minutes * 60_000);
        assert_eq!(reset_allowed(None, at(0)), Ok(()));
        assert_eq!(reset_allowed(Some(at(0)), at(59)), Err(at(60)));
        assert_eq!(reset_allowed(Some(at(0)), at(60)), Ok(()));
    }
}
