//! The one place that asks the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::Timestamp;

/// This moment.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.saturating_add_signed(failpoint::skew_ms()))
}
