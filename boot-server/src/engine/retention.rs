//! Old events and measurements go, in small batches, so that no lease waits for them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, now};
use crate::store::{db, queries};

/// How often is looked.
const EVERY: Duration = Duration::from_hours(1);
/// Events forgotten in one transaction: a few milliseconds.
const BATCH: usize = 500;
/// Between two batches other writers have their turn.
const PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Forgets events that are older or more than the configuration says, and old measurements, until `stop`.
    pub async fn run_retention(&self, stop: CancellationToken) {
        loop {
            let wait = match self.forget_events().await {
                Ok(BATCH) => PAUSE,
                Ok(_) => {
                    if let Err(error) = self.age_samples().await {
                        tracing::error!(%error, "old measurements were not forgotten");
                    }
                    EVERY
                }
                Err(error) => {
                    tracing::error!(%error, "old events were not forgotten");
                    EVERY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One batch; returns how many went.
    pub(super) async fn forget_events(&self) -> Result<usize, EngineError> {
        let kept = self.settings().events;
        let before = kept.before(now());
        let forget = move |db: &db::Connection| {
            queries::forget_events(db, before.unwrap_or_default(), kept.rows, BATCH)
        };
        Ok(self.store().write(forget).await?)
    }
}
