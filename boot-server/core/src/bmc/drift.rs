//! Power that changed, and nobody asked Billet for it: a button that was pressed, an OS that shut down, a feed that failed.

use std::time::Duration;

use protocol::Timestamp;

use super::Power;

/// What Billet asked for may show this much later: an OS that shuts down takes its time.
const OURS: Duration = Duration::from_mins(3);

/// What is known of a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift {
    known: Option<bool>,
    /// When Billet asked for off, and for on; forgotten once that was seen.
    asked: [Option<Timestamp>; 2],
}

impl Drift {
    /// Known from before, as it was stored.
    pub fn new(on: Option<bool>) -> Self {
        Self { known: on, asked: [None; 2] }
    }

    /// Billet asks for a change: to on, to off, or, in a restart, through both.
    pub fn handle_change(&mut self, now: Timestamp, wanted: Option<bool>) {
        for on in [false, true] {
            if wanted.is_none_or(|wanted| wanted == on) {
                self.asked[usize::from(on)] = Some(now);
            }
        }
    }

    /// What was read. Returns the new state (true: on) where it changed without having been asked for.
    pub fn handle_reading(&mut self, now: Timestamp, power: Power) -> Option<bool> {
        let on = match power {
            Power::On => true,
            Power::Off => false,
            Power::Turning | Power::Unknown => return None,
        };
        let before = self.known.replace(on);
        let asked = self.asked[usize::from(on)].take();
        let ours = asked.is_some_and(|asked| now.since(asked) < OURS);
        (before.is_some_and(|before| before != on) && !ours).then_some(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_asked_for_is_drift() {
        let at = |s: u64| Timestamp(s * 1000);
        let mut drift = Drift::default();
        assert_eq!(drift.handle_reading(at(0), Power::On), None, "the first reading");
        assert_eq!(drift.handle_reading(at(1), Power::Unknown), None);
        assert_eq!(drift.handle_reading(at(2), Power::Off), Some(false), "somebody's hand");
        assert_eq!(drift.handle_reading(at(3), Power::Off), None, "told once");
        drift.handle_change(at(10), Some(true));
        assert_eq!(drift.handle_reading(at(20), Power::Turning), None);
        assert_eq!(drift.handle_reading(at(30), Power::On), None, "that was us");
        assert_eq!(drift.handle_reading(at(40), Power::Off), Some(false), "on was asked for, not off");
        drift.handle_change(at(50), None);
        assert_eq!(drift.handle_reading(at(60), Power::On), None);
        assert_eq!(drift.handle_reading(at(400), Power::Off), Some(false), "long after a restart");
        let mut stored = Drift::new(Some(true));
        assert_eq!(stored.handle_reading(at(0), Power::Off), Some(false), "while the server was down");
    }
}
