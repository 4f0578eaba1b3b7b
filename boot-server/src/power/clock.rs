//! The clock that decisions about controllers go by.

use protocol::Timestamp;
use tokio::time::Instant;

use crate::engine::now;

/// Moments that follow tokio's clock, so that a step of the system's clock neither opens nor closes anything.
pub(crate) struct Clock {
    begun: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { begun: now(), at: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.begun.after(self.at.elapsed())
    }

    /// When that is, on tokio's clock.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.at + at.since(self.begun)
    }
}
