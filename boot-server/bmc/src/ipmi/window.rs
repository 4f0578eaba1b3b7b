//! Which sequence numbers of a session were seen (section 6.12.13): each is taken once, and old ones not at all.

/// How far behind the highest a number may be.
const BEHIND: u32 = 16;

/// Sequence numbers seen.
///
/// The specification also limits how far ahead a number may be. That is left out on purpose: numbers are checked only
/// behind the integrity check, so a high one is the controller's own, and after a gap a limit would end a sound session.
#[derive(Debug, Clone, Default)]
pub struct Window {
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u32,
}

impl Window {
    /// True where the number is new; it is taken by that.
    pub fn take(&mut self, number: u32) -> bool {
        if number == 0 {
            // Only packets outside of a session have it.
            return false;
        }
        if number > self.highest {
            self.seen = self.seen.checked_shl(number - self.highest).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        let bit = 1_u32.checked_shl(behind).unwrap_or(0);
        if behind > BEHIND || self.seen & bit != 0 {
            return false;
        }
        self.seen |= bit;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_taken_once_and_old_ones_not_at_all() {
        let mut window = Window::default();
        assert!(!window.take(0));
        assert!(window.take(1) && !window.take(1));
        assert!(window.take(3) && window.take(2) && !window.take(2) && !window.take(3));
        assert!(window.take(100) && window.take(84) && !window.take(83) && !window.take(84));
        assert!(window.take(u32::MAX) && !window.take(u32::MAX) && !window.take(100));
    }
}
