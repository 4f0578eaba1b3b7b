//! What was answered: how many requests of which kind, their bytes, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::counters::{DiskCounters, Requests};

/// Kinds of requests that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Bytes of the disk to the guest.
    Read,
    /// Bytes of the guest to the disk.
    Write,
    /// Discards and zeros.
    Zero,
    /// Make durable what was written.
    Flush,
}

/// An answer, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// What was asked; `None` where that could not be told.
    pub sort: Option<Sort>,
    /// Bytes that were moved.
    pub bytes: u64,
    /// The guest got an error.
    pub failed: bool,
}

/// Counters of a disk. They begin at 0 with the process.
#[derive(Debug, Default)]
pub struct Counters {
    read: Count,
    write: Count,
    zero: Count,
    flush: Count,
    errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Count {
    requests: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
}

impl Counters {
    /// Counts an answer that took so long.
    pub fn count(&self, tally: Tally, took: Duration) {
        let count = match tally.sort {
            Some(Sort::Read) => Some(&self.read),
            Some(Sort::Write) => Some(&self.write),
            Some(Sort::Zero) => Some(&self.zero),
            Some(Sort::Flush) => Some(&self.flush),
            None => None,
        };
        if let Some(count) = count {
            count.requests.fetch_add(1, Ordering::Relaxed);
            count.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            count.micros.fetch_add(micros, Ordering::Relaxed);
        }
        self.errors.fetch_add(u64::from(tally.failed), Ordering::Relaxed);
    }

    /// As they are. Of a request that is counted just now some numbers may be in it and others not yet.
    pub fn now(&self) -> DiskCounters {
        DiskCounters {
            read: self.read.now(),
            write: self.write.now(),
            zero: self.zero.now(),
            flush: Some(self.flush.now()),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

impl Count {
    fn now(&self) -> Requests {
        Requests {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_apart_and_errors_together() {
        let counters = Counters::default();
        let tally = |sort, bytes, failed| Tally { sort, bytes, failed };
        counters.count(tally(Some(Sort::Read), 4096, false), Duration::from_micros(70));
        counters.count(tally(Some(Sort::Read), 512, false), Duration::from_micros(30));
        counters.count(tally(Some(Sort::Write), 0, true), Duration::from_millis(1));
        counters.count(tally(Some(Sort::Flush), 0, false), Duration::ZERO);
        counters.count(tally(None, 0, true), Duration::from_secs(9));
        let now = counters.now();
        assert_eq!(now.read, Requests { requests: 2, bytes: 4608, micros: 100 });
        assert_eq!(now.write, Requests { requests: 1, bytes: 0, micros: 1000 });
        assert_eq!((now.zero, now.flush.unwrap().requests, now.errors), (Requests::default(), 1, 2));
    }
}
