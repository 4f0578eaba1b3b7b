//! A limit on log lines: what thousands of machines do in one second is a number, not thousands of lines.

use protocol::Timestamp;

/// Lines in one second; more nobody reads while they come.
const PER_SECOND: u32 = 50;

/// Counts lines by the second.
#[derive(Debug, Default)]
pub struct Lines {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Whether one more line may be written now.
    pub fn allow(&mut self, now: Timestamp) -> bool {
        let second = now.0 / 1000;
        if second != self.second {
            self.second = second;
            self.written = 0;
        }
        self.written += 1;
        let allowed = self.written <= PER_SECOND;
        self.left_out += u64::from(!allowed);
        allowed
    }

    /// How many lines were left out in seconds that are over, once.
    pub fn left_out(&mut self, now: Timestamp) -> Option<u64> {
        if self.left_out == 0 || now.0 / 1000 == self.second {
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_and_the_number_of_the_others() {
        let mut lines = Lines::default();
        let written = (0..1000).filter(|n| lines.allow(Timestamp(5_000 + n / 2))).count();
        assert_eq!(written, 50);
        assert_eq!(lines.left_out(Timestamp(5_900)), None, "the second is not over");
        assert_eq!(lines.left_out(Timestamp(6_000)), Some(950));
        assert_eq!(lines.left_out(Timestamp(6_001)), None);
        assert!(lines.allow(Timestamp(6_002)));
    }
}
