//! When a read that was not answered is asked again. Changes never are: they may have been carried out.

use std::time::Duration;

use super::Chance;

/// How often a read is asked in all.
const TRIES_MAX: u32 = 3;
/// A read that has taken this long is not asked again: whoever asked waits.
const BUDGET: Duration = Duration::from_secs(10);
/// The first pause.
const PAUSE: Duration = Duration::from_millis(500);

/// The pause before the next try, or `None` where it is given up. `tries` were made, the first of them `elapsed` ago.
pub fn retry_after(tries: u32, elapsed: Duration, chance: Chance) -> Option<Duration> {
    let pause = chance.jitter(PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8)));
    (tries < TRIES_MAX && elapsed + pause < BUDGET).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tries_within_ten_seconds() {
        let pauses: Vec<_> =
            (1..=3).map(|tries| retry_after(tries, Duration::ZERO, Chance(u16::MAX))).collect();
        assert_eq!(pauses, [Some(Duration::from_millis(500)), Some(Duration::from_secs(1)), None]);
        assert_eq!(retry_after(1, Duration::from_secs(30), Chance(0)), None, "a read that timed out");
    }
}
