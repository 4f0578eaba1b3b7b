//! Brings the chunks of an instant volume: threads that do what `layer::plan` says, and the requests that wait for them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use images::Manifest;

use crate::event::{Event, say};
use crate::instant::Layer;
use crate::layer::plan::{Next, Pace, Plan};
use crate::source::{Source, SourceError};
use crate::volume::{Storage, Then, Volume};

/// Threads that fetch: half for what the guest waits for.
const FETCHERS: usize = 4;
/// What was fetched is made durable this often, so that a power cut does not begin all over again.
const COMMIT: Duration = Duration::from_secs(5);

/// An image under a copy-on-write layer.
pub struct InstantVolume<S>(Arc<Inner<S>>);

struct Inner<S> {
    layer: Layer<S>,
    manifest: Manifest,
    source: Source,
    size: u64,
    data_chunks: usize,
    data_bytes: u64,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    began: Instant,
    transferred: AtomicU64,
    percent: AtomicUsize,
}

struct Waiting {
    plan: Plan,
    requests: BTreeMap<u32, Vec<Then>>,
    /// Requests whose chunk was written over. A fetcher carries them out: who wrote is in the middle of a request itself,
    /// perhaps of the same queue.
    ready: Vec<Then>,
    committed: Duration,
}

impl<S: Storage + 'static> InstantVolume<S> {
    /// A volume of `size` bytes whose chunks come from `source`, beginning at once.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(
        layer: Layer<S>,
        missing: Vec<u32>,
        manifest: Manifest,
        size: u64,
        source: Source,
        pace: Pace,
    ) -> io::Result<Self> {
        let complete = missing.is_empty();
        let plan = Plan::new(missing, manifest.chunk_size, pace);
        let inner = Arc::new(Inner {
            data_chunks: manifest.chunks.iter().flatten().count(),
            data_bytes: manifest.data_bytes(),
            waiting: Mutex::new(Waiting {
                plan,
                requests: BTreeMap::new(),
                ready: Vec::new(),
                committed: Duration::ZERO,
            }),
            changed: Condvar::new(),
            began: Instant::now(),
            transferred: AtomicU64::new(0),
            percent: AtomicUsize::new(0),
            layer,
            manifest,
            source,
            size,
        });
        if complete {
            say(&Event::Hydrated { bytes: inner.data_bytes, transferred: 0 });
            return Ok(Self(inner));
        }
        for number in 0..FETCHERS {
            let inner = inner.clone();
            let fetcher = Fetcher { decompressor: zstd::bulk::Decompressor::new()?, raw: Vec::new(), inner };
            std::thread::Builder::new().name(format!("fetch-{number}")).spawn(move || fetcher.run())?;
        }
        Ok(Self(inner))
    }
}

impl<S: Storage> Volume for InstantVolume<S> {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.layer.read(into, offset)
    }

    fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.0.layer.write(from, offset).map(|here| self.0.written_over(&here))
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.0.layer.zero(range).map(|here| self.0.written_over(&here))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.layer.flush()
    }

    fn missing(&self, range: &Range<u64>) -> Option<u32> {
        self.0.layer.missing(range)
    }

    fn when_here(&self, chunk: u32, then: Then) {
        let mut waiting = self.0.lock();
        if self.0.layer.is_here(chunk) {
            drop(waiting);
            return then(true);
        }
        waiting.requests.entry(chunk).or_default().push(then);
        waiting.plan.demand(self.0.began.elapsed(), chunk);
        self.0.changed.notify_all();
    }
}

impl<S: Storage> Inner<S> {
    fn written_over(&self, chunks: &[u32]) {
        if chunks.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        for chunk in chunks {
            waiting.plan.here(*chunk);
            let requests = waiting.requests.remove(chunk).unwrap_or_default();
            waiting.ready.extend(requests);
        }
        drop(waiting);
        self.changed.notify_all();
        self.report();
    }

    /// Tells the plan, then whoever waited for `chunk`. What `tell` returns.
    fn settle<R>(&self, chunk: u32, here: bool, tell: impl FnOnce(&mut Plan, Duration) -> R) -> R {
        let mut waiting = self.lock();
        let told = tell(&mut waiting.plan, self.began.elapsed());
        let requests = waiting.requests.remove(&chunk).unwrap_or_default();
        drop(waiting);
        self.changed.notify_all();
        requests.into_iter().for_each(|then| then(here));
        told
    }

    fn report(&self) {
        let missing = self.layer.missing_count();
        let percent = (self.data_chunks - missing) * 100 / self.data_chunks.max(1);
        if self.percent.fetch_max(percent, Ordering::AcqRel) < percent {
            // A chunk that is missing counts as a whole one.
            let bytes = self.data_bytes.saturating_sub(missing as u64 * u64::from(self.manifest.chunk_size));
            say(&Event::Progress { percent, bytes, transferred: self.transferred.load(Ordering::Acquire) });
        }
        // Whoever brings the last one says so, once.
        if missing == 0 && self.percent.swap(usize::MAX, Ordering::AcqRel) != usize::MAX {
            self.commit();
            let transferred = self.transferred.load(Ordering::Acquire);
            say(&Event::Hydrated { bytes: self.data_bytes, transferred });
        }
    }

    fn commit(&self) {
        if let Err(cause) = self.layer.flush() {
            say(&Event::Failed { action: "make durable what was fetched", reason: cause.to_string() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Fetcher<S> {
    inner: Arc<Inner<S>>,
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
}

impl<S: Storage> Fetcher<S> {
    fn run(mut self) {
        while let Some(chunk) = self.inner.next() {
            self.fetch(chunk);
            self.inner.commit_now_and_then();
        }
    }

    fn fetch(&mut self, chunk: u32) {
        let Some(Some(wanted)) = self.inner.manifest.chunks.get(chunk as usize) else { return };
        let id = wanted.id;
        self.raw.resize(self.inner.manifest.chunk_len(chunk as usize), 0);
        let mut fetched = self.inner.source.chunk(id, &mut self.decompressor, &mut self.raw);
        if matches!(fetched, Err(SourceError::Wrong(_))) {
            // Once more: what was damaged on the way comes whole the second time.
            fetched = self.inner.source.chunk(id, &mut self.decompressor, &mut self.raw);
        }
        let inner = &self.inner;
        match fetched.map(|bytes| (bytes, inner.layer.fill(chunk, &self.raw))) {
            Ok((bytes, Ok(()))) => {
                inner.transferred.fetch_add(bytes, Ordering::AcqRel);
                if inner.settle(chunk, true, |plan, _| plan.fetched(chunk)) {
                    say(&Event::StoreBack);
                }
                inner.report();
            }
            Ok((_, Err(cause))) => {
                say(&Event::Failed { action: "keep a chunk", reason: cause.to_string() });
                inner.lock().plan.away(inner.began.elapsed(), chunk);
                inner.changed.notify_all();
            }
            Err(SourceError::Wrong(cause)) => {
                say(&Event::ChunkWrong { chunk, id: id.to_string(), reason: cause.to_string() });
                inner.settle(chunk, false, |plan, now| plan.wrong(now, chunk));
            }
            Err(away) => {
                let first = inner.lock().plan.away(inner.began.elapsed(), chunk);
                inner.changed.notify_all();
                if first {
                    say(&Event::StoreAway { reason: away.to_string() });
                }
            }
        }
    }
}

impl<S: Storage> Inner<S> {
    /// The next chunk to fetch, once there is one; `None` where all are here.
    fn next(&self) -> Option<u32> {
        let mut waiting = self.lock();
        loop {
            if let Some(then) = waiting.ready.pop() {
                drop(waiting);
                then(true);
                waiting = self.lock();
                continue;
            }
            let now = self.began.elapsed();
            let late = waiting.plan.expired(now);
            if !late.is_empty() {
                drop(waiting);
                for chunk in late {
                    say(&Event::ChunkLate { chunk });
                    self.settle(chunk, false, |_, _| ());
                }
                waiting = self.lock();
                continue;
            }
            waiting = match waiting.plan.next(now) {
                Next::Fetch(chunk) => return Some(chunk),
                Next::Done => return None,
                Next::Idle => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Next::Wait(until) => {
                    let timeout = until.saturating_sub(now);
                    self.changed.wait_timeout(waiting, timeout).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn commit_now_and_then(&self) {
        let now = self.began.elapsed();
        let mut waiting = self.lock();
        if waiting.committed + COMMIT <= now {
            waiting.committed = now;
            drop(waiting);
            self.commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::instant::tests::{CHUNK_BYTES, new_layer};
    use crate::source::Whose;

    #[test]
    fn who_waits_for_a_chunk_that_is_written_over_goes_on_without_the_store() {
        let (layer, manifest, size) = new_layer();
        let pace = Pace { rate: None, deadline: Duration::from_secs(60) };
        let nowhere = Source::new("/nonexistent/store", Whose::Nobody);
        let volume = InstantVolume::start(layer, vec![0, 2, 3], manifest, size, nowhere, pace).unwrap();
        let range = 2 * CHUNK_BYTES..3 * CHUNK_BYTES;
        assert_eq!(volume.missing(&range), Some(2));
        let (sender, receiver) = mpsc::channel();
        volume.when_here(2, Box::new(move |here| sender.send(here).unwrap()));
        volume.write(&vec![9; CHUNK_BYTES as usize], range.start).unwrap();
        assert!(receiver.recv_timeout(Duration::from_secs(30)).unwrap());
        assert_eq!((volume.missing(&range), volume.missing(&(0..1024))), (None, Some(0)));
    }

    #[test]
    fn a_store_that_is_away_for_too_long_is_an_error() {
        let (layer, manifest, size) = new_layer();
        let pace = Pace { rate: None, deadline: Duration::from_millis(50) };
        let nowhere = Source::new("/nonexistent/store", Whose::Nobody);
        let volume = InstantVolume::start(layer, vec![0, 2, 3], manifest, size, nowhere, pace).unwrap();
        let (sender, receiver) = mpsc::channel();
        volume.when_here(0, Box::new(move |here| sender.send(here).unwrap()));
        assert!(!receiver.recv_timeout(Duration::from_secs(30)).unwrap());
    }
}
