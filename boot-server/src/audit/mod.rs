//! Writes the audit: at once and durably for what must not happen unseen, in batches behind the answer for all else.
//!
//! ```text
//! event, state change ─▶ queries::insert_event ─▶ audit::append          the same transaction
//! a change is asked for ─▶ now()  ─▶ store                               before the handler runs
//! its answer, reads ─▶ after(), later() ─▶ queue ─▶ batches ─▶ store      what finds no room is counted and told
//! ```

pub mod export;
pub mod signing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boot_server_core::audit::{Anchor, Fact, Kind};
use protocol::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::engine::{lock, now};
use crate::store::{Store, StoreError, audit as rows};

/// Entries that wait to be written: some seconds of the busiest site. Beyond that reads are counted, not kept.
const QUEUE_MAX: usize = 8192;
/// Entries in one transaction.
const BATCH: usize = 512;
/// How long an entry waits for others to share its commit.
const GATHER: Duration = Duration::from_millis(100);

/// A page that is open and looked at again is told of once in so long.
const AGAIN: Duration = Duration::from_mins(10);
/// Looks that are remembered: those of some hundred people with some pages each. What is not remembered is told of each time.
const LOOKS_MAX: usize = 4096;

/// Who looks at what, and from where.
type Look = (Option<Uuid>, String, Option<String>, Option<String>);

/// The writing end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    store: Store,
    queue: mpsc::Sender<Job>,
    lost: Arc<AtomicU64>,
    looks: Arc<Mutex<BTreeMap<Look, Timestamp>>>,
}

#[derive(Debug)]
enum Job {
    Write(Box<Fact>),
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Begins to write into `store`, until the last of its clones is gone.
    pub fn open(store: Store) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        tokio::spawn(write(store.clone(), jobs, lost.clone()));
        Self { store, queue, lost, looks: Arc::default() }
    }

    /// Writes an entry; when this returns, it is durable.
    ///
    /// # Errors
    /// Where it cannot be written; then what it tells of must not be done.
    pub async fn now(&self, fact: Fact) -> Result<Anchor, StoreError> {
        self.store.write(move |db| rows::append(db, &[fact])).await
    }

    /// Writes an entry soon; waits for room.
    pub async fn after(&self, fact: Fact) {
        if self.queue.send(Job::Write(Box::new(fact))).await.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes an entry soon, unless too many wait already: then there will be one that counts those which are missing.
    pub fn later(&self, fact: Fact) {
        if self.queue.try_send(Job::Write(Box::new(fact))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True where the same person looked at the same from the same address within the last ten minutes; from then on they did.
    pub fn looked_lately(&self, fact: &Fact) -> bool {
        let look = (fact.who, fact.actor.clone(), fact.source.clone(), fact.object.clone());
        let mut looks = lock(&self.looks);
        let lately = |at: &Timestamp| fact.at.since(*at) < AGAIN;
        if looks.get(&look).is_some_and(lately) {
            return true;
        }
        if looks.len() >= LOOKS_MAX {
            looks.retain(|_, at| lately(at));
        }
        if looks.len() < LOOKS_MAX {
            looks.insert(look, fact.at);
        }
        false
    }

    /// Resolves once all that was handed over before is written.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.queue.send(Job::Flush(done)).await.is_ok() {
            // Where the writer is gone, nothing is written any more.
            let _ = waiting.await;
        }
    }
}

async fn write(store: Store, mut jobs: mpsc::Receiver<Job>, lost: Arc<AtomicU64>) {
    while let Some(first) = jobs.recv().await {
        let (mut facts, mut flushed) = (Vec::new(), Vec::new());
        sort(first, &mut facts, &mut flushed);
        if flushed.is_empty() {
            tokio::time::sleep(GATHER).await;
        }
        while facts.len() < BATCH {
            match jobs.try_recv() {
                Ok(job) => sort(job, &mut facts, &mut flushed),
                Err(_) => break,
            }
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let told = Fact::new(now(), Kind::Audit, "server", "audit.lost");
            facts.push(Fact {
                outcome: format!(
                    "{missing} entries were not written: too many at once, or the \
                                                 database failed"
                ),
                ..told
            });
        }
        let count = facts.len() as u64;
        if count > 0
            && let Err(error) = store.write(move |db| rows::append(db, &facts)).await
        {
            tracing::error!(%error, count, "audit entries were not written");
            lost.fetch_add(count + missing.saturating_sub(u64::from(missing > 0)), Ordering::Relaxed);
            if matches!(error, StoreError::Closed) {
                return;
            }
        }
        for done in flushed {
            let _ = done.send(()); // nobody waits any more
        }
    }
}

fn sort(job: Job, facts: &mut Vec<Fact>, flushed: &mut Vec<oneshot::Sender<()>>) {
    match job {
        Job::Write(fact) => facts.push(*fact),
        Job::Flush(done) => flushed.push(done),
    }
}

#[cfg(test)]
mod tests;
