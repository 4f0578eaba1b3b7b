//! Webhooks: which events go out, what is signed, and when a delivery is tried again. The shell sends.

use std::time::Duration;

use protocol::Timestamp;

use crate::bmc::Chance;
use crate::node::Severity;

/// Patterns that one webhook may have.
pub const PATTERNS_MAX: usize = 64;
/// The first pause after a delivery that failed.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause: a receiver that comes back is served within this time.
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// An event that could not be delivered for so long is left out: what is told a day late helps nobody, and the newer ones
/// behind it do.
pub const KEPT: Duration = Duration::from_hours(24);
/// Events of webhooks themselves, which are never sent: each failure would make the next one.
const OWN: &str = "webhook.";

/// Which events a webhook takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    patterns: Vec<Pattern>,
    least: Severity,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Kind(String),
    /// All kinds that begin so; with the dot.
    Family(String),
}

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of event: write one such as `power.drift`, or `power.*` for all of a family")]
pub struct BadPattern(String);

impl Filter {
    /// Events of these kinds (all, where none is given) that are at least so bad.
    ///
    /// # Errors
    /// [`BadPattern`].
    pub fn new(kinds: &[String], least: Severity) -> Result<Self, BadPattern> {
        let patterns = kinds.iter().map(|kind| parse(kind)).collect::<Result<Vec<_>, _>>()?;
        match kinds.get(PATTERNS_MAX) {
            Some(one_too_many) => Err(BadPattern(one_too_many.clone())),
            None => Ok(Self { patterns, least }),
        }
    }

    /// True where the event goes out.
    pub fn takes(&self, kind: &str, severity: Severity) -> bool {
        let fits = |pattern: &Pattern| match pattern {
            Pattern::Kind(wanted) => kind == wanted,
            Pattern::Family(start) => kind.starts_with(start.as_str()),
        };
        rank(severity) >= rank(self.least)
            && !kind.starts_with(OWN)
            && (self.patterns.is_empty() || self.patterns.iter().any(fits))
    }
}

fn parse(text: &str) -> Result<Pattern, BadPattern> {
    let bad = || BadPattern(text.chars().take(80).collect());
    let (name, family) = match text.strip_suffix('*') {
        Some(start) => (start.strip_suffix('.').ok_or_else(bad)?, true),
        None => (text, false),
    };
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !name.split('.').all(word) {
        return Err(bad());
    }
    Ok(if family { Pattern::Family(format!("{name}.")) } else { Pattern::Kind(name.to_owned()) })
}

fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Error => 2,
    }
}

/// What is signed: the moment of sending, in seconds, a dot, and the body. A receiver that compares the moment with its own
/// clock cannot be shown an old delivery again.
pub fn signed_text(sent: Timestamp, body: &str) -> String {
    format!("{}.{body}", sent.0 / 1000)
}

/// How long to wait before the next try of an event of `at`, after `failures` in a row; `None` where it is left out.
pub fn retry_after(now: Timestamp, at: Timestamp, failures: u32, chance: Chance) -> Option<Duration> {
    if now.since(at) >= KEPT {
        return None;
    }
    let pause = PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    Some(chance.jitter(pause))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(kinds: &[&str], least: Severity) -> Filter {
        Filter::new(&kinds.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>(), least).unwrap()
    }

    #[test]
    fn kinds_and_families_are_taken_from_a_severity_on() {
        let some = filter(&["health.critical", "power.*"], Severity::Warning);
        assert!(some.takes("health.critical", Severity::Error));
        assert!(some.takes("power.drift", Severity::Warning));
        assert!(!some.takes("power.drift", Severity::Info));
        assert!(!some.takes("powers.drift", Severity::Error), "a family ends at its dot");
        assert!(!some.takes("health.criticals", Severity::Error));
        let all = filter(&[], Severity::Info);
        assert!(all.takes("deploy.finished", Severity::Info));
        assert!(!all.takes("webhook.failing", Severity::Error), "no echo");
    }

    #[test]
    fn what_is_no_kind_is_refused() {
        for bad in ["", "*", "power*", "power..x", "Power.on", "power.", ".*", "a b"] {
            let refused = Filter::new(&[bad.to_owned()], Severity::Info);
            assert_eq!(refused, Err(BadPattern(bad.to_owned())), "{bad}");
        }
        assert!(Filter::new(&vec!["a.b".to_owned(); PATTERNS_MAX + 1], Severity::Info).is_err());
    }

    #[test]
    fn the_moment_is_signed_with_the_body() {
        assert_eq!(signed_text(Timestamp(1_700_000_000_999), "{}"), "1700000000.{}");
    }

    proptest! {
        #[test]
        fn pauses_grow_and_end(failures in 1_u32..100, chance: u16, age in 0_u64..200_000_000) {
            let pause = retry_after(Timestamp(age), Timestamp(0), failures, Chance(chance));
            prop_assert_eq!(pause.is_none(), Duration::from_millis(age) >= KEPT);
            prop_assert!(pause.unwrap_or(PAUSE_FIRST / 2) >= PAUSE_FIRST / 2);
            prop_assert!(pause.unwrap_or_default() <= PAUSE_MAX);
        }
    }
}
