//! How long the client takes to answer, and so how long to wait for it (RFC 6298, with bounds for a LAN).

use std::time::{Duration, Instant};

use crate::limits;

/// The estimate, and the packet whose answer is awaited. Packets that were sent more than once are never measured
/// (RFC 6298 section 3).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoundTrip {
    /// Smoothed round trip and its variation.
    smooth: Option<(Duration, Duration)>,
    /// Block, and when it was sent for the first time. The OACK counts as block 0.
    timed: Option<(u64, Instant)>,
}

impl RoundTrip {
    /// A block was sent for the first time.
    pub fn start(&mut self, block: u64, now: Instant) {
        self.timed.get_or_insert((block, now));
    }

    /// What is measured may be sent again: an answer would say nothing.
    pub fn forget(&mut self) {
        self.timed = None;
    }

    /// A block was acknowledged; returns how long to wait for the next, `None` where nothing was measured so far.
    pub fn acked(&mut self, block: u64, now: Instant) -> Option<Duration> {
        if let Some((_, sent)) = self.timed.take_if(|(timed, _)| *timed <= block) {
            self.measured(now.saturating_duration_since(sent));
        }
        self.smooth.map(|(mean, variation)| (mean + 4 * variation).clamp(limits::RTO_MIN, limits::RTO_MAX))
    }

    fn measured(&mut self, took: Duration) {
        self.smooth = Some(match self.smooth {
            None => (took, took / 2),
            Some((mean, variation)) => ((7 * mean + took) / 8, (3 * variation + mean.abs_diff(took)) / 4),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_for_slow_clients_and_never_measures_what_was_sent_twice() {
        let (mut rtt, start) = (RoundTrip::default(), Instant::now());
        assert_eq!(rtt.acked(0, start), None);
        rtt.start(1, start);
        let quick = rtt.acked(1, start + Duration::from_millis(1));
        assert_eq!(quick, Some(limits::RTO_MIN));
        rtt.start(2, start);
        rtt.forget();
        assert_eq!(rtt.acked(2, start + Duration::from_secs(3)), quick);
        rtt.start(3, start);
        rtt.start(4, start + Duration::from_secs(1));
        let slow = rtt.acked(3, start + Duration::from_millis(900)).unwrap();
        assert!(slow > Duration::from_millis(900) && slow < limits::RTO_MAX, "{slow:?}");
    }
}
