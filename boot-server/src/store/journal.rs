//! The lease journal: where leases are durable first, so that an ACK waits for one small write and not for a database.
//!
//! ```text
//! leases ─▶ journal thread: one record for all that wait, one fdatasync ─▶ answered: durable
//!               └─ every half second ─▶ folding thread: rows into the database, then the segment is empty again
//! ```
//!
//! Two segments take turns: one is written while the other is folded. Both are allocated in full once, so that a write
//! changes no file size and fdatasync has nothing but the data to write. Why not the database alone: ADR 0011.
//!
//! A record is its length, a checksum, the number of the segment's turn, and leases as JSON. What follows the last record
//! of a turn is left from former turns and has a lower number, or fails the checksum: a write that a crash cut short was
//! never answered. Nothing is left from former runs, whose numbers may come again: at open both segments are wiped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use boot_server_core::dhcp::Lease;
use failpoint::{Point, hit};
use tokio::sync::oneshot;

use super::{Store, StoreError, lock, queries};

/// The two files, beside the database.
const NAMES: [&str; 2] = ["leases.journal.0", "leases.journal.1"];
/// Octets of a segment: some 40,000 leases, more than one second brings.
const SEGMENT: u64 = 4 << 20;
/// Octets before a record's leases: length, checksum, turn.
const HEAD: usize = 16;
/// How long rows may be in the journal alone; pages and lists read the database and are that much behind.
const FOLD_AFTER: Duration = Duration::from_millis(500);
/// Between two looks whether the other segment is empty again.
const FOLD_POLL: Duration = Duration::from_millis(20);
/// Rows of one transaction, so that other writers wait a few milliseconds at most.
const FOLD_ROWS: usize = 2048;
/// Pause before a fold that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Batches that may wait for the journal thread; the DHCP server has one on its way at a time.
const QUEUE_MAX: usize = 64;

/// Why a batch is not durable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The files.
    #[error("cannot {action} the lease journal in {}", dir.display())]
    File {
        /// What was done.
        action: &'static str,
        /// The directory.
        dir: std::path::PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// What it held could not be put into the database.
    #[error("cannot take up the lease journal")]
    Store(#[from] StoreError),
}

/// The journal. While it is open nobody else writes leases.
pub struct Journal {
    store: Store,
    batches: Mutex<Option<SyncSender<Batch>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Batch {
    leases: Vec<Lease>,
    /// False: the journal failed, and the database is up to date with what it held.
    durable: oneshot::Sender<bool>,
}

impl Journal {
    /// Opens the journal of a directory. What a crash left in it is in the database when this returns.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(dir: &Path, store: Store) -> Result<Self, JournalError> {
        let error = |action| move |cause| JournalError::File { action, dir: dir.to_owned(), cause };
        let mut segments = Vec::new();
        for name in NAMES {
            segments.push(Segment::open(&dir.join(name)).map_err(error("open"))?);
        }
        let (last, segments) = take_up(dir, &store, segments).await?;
        let (batches, queue) = sync_channel(QUEUE_MAX);
        let folding = store.clone();
        let thread = std::thread::Builder::new()
            .name("lease-journal".to_owned())
            .spawn(move || Writer::run(segments, last + 1, queue, folding))
            .map_err(error("write"))?;
        Ok(Self { store, batches: Mutex::new(Some(batches)), thread: Mutex::new(Some(thread)) })
    }

    /// Stores leases, each in place of the one of the same address. When this returns they are durable.
    ///
    /// # Errors
    /// What the database says, where the journal failed.
    pub async fn put(&self, leases: Vec<Lease>) -> Result<(), StoreError> {
        let batches = lock(&self.batches).clone().ok_or(StoreError::Closed)?;
        let (durable, answered) = oneshot::channel();
        let batch = Batch { leases: leases.clone(), durable };
        let taken = batches.try_send(batch).is_ok();
        drop(batches);
        if taken && answered.await.unwrap_or(false) {
            return Ok(());
        }
        self.store.write(move |db| queries::put_leases(db, &leases)).await
    }

    /// Takes no more leases and puts all that it holds into the database.
    pub fn close(&self) {
        lock(&self.batches).take();
        if let Some(thread) = lock(&self.thread).take() {
            drop(thread.join());
        }
    }
}

/// What the journal of a directory holds by turn, oldest first; it may be written meanwhile, and nothing of it is changed.
///
/// # Errors
/// Where a segment cannot be read.
pub fn peek(dir: &Path) -> io::Result<BTreeMap<u64, Vec<Lease>>> {
    let mut turns = BTreeMap::new();
    for name in NAMES {
        match std::fs::read(dir.join(name)) {
            Ok(bytes) => {
                let (turn, rows) = decode(&bytes);
                if !rows.is_empty() {
                    turns.insert(turn, rows);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(turns)
}

/// Puts what the segments hold into the database and wipes them. Returns the highest turn, and the segments.
async fn take_up(
    dir: &Path,
    store: &Store,
    segments: Vec<Segment>,
) -> Result<(u64, Vec<Segment>), JournalError> {
    let error = |action| move |cause| JournalError::File { action, dir: dir.to_owned(), cause };
    let mut turns = Vec::new();
    for mut segment in segments {
        let (turn, rows) = segment.read().map_err(error("read"))?;
        turns.push((turn, rows, segment));
    }
    turns.sort_by_key(|(turn, ..)| *turn);
    for (_, rows, _) in &turns {
        if !rows.is_empty() {
            tracing::info!(leases = rows.len(), "leases taken up from the journal");
        }
        for part in rows.chunks(FOLD_ROWS) {
            let part = part.to_vec();
            store.write(move |db| queries::put_leases(db, &part)).await?;
        }
    }
    let last = turns.last().map_or(0, |(turn, ..)| *turn);
    let segments: Vec<Segment> = turns.into_iter().map(|(.., segment)| segment).collect();
    // The oldest turn first: taken up alone after a crash between the two, it would come over newer rows. And all heads
    // before any rest: a turn without its end is as old.
    segments.iter().try_for_each(Segment::clear).map_err(error("clear"))?;
    segments.iter().try_for_each(Segment::wipe).map_err(error("wipe"))?;
    Ok((last, segments))
}

/// Rows by address: the newest of each counts.
type Rows = BTreeMap<Ipv4Addr, Lease>;

/// The journal thread.
struct Writer {
    active: Segment,
    /// The number of the segment's turn.
    turn: u64,
    at: u64,
    rows: Rows,
    oldest: Instant,
    /// Batches whose write failed.
    failed: Vec<Batch>,
    /// Segments to fold, and those that are empty again.
    full: Option<Sender<(Segment, Rows)>>,
    empty: Receiver<Segment>,
}

impl Writer {
    fn run(mut segments: Vec<Segment>, turn: u64, queue: Receiver<Batch>, store: Store) {
        let (full, to_fold) = channel();
        let (folded, empty) = channel();
        let Some(active) = segments.pop() else { return };
        segments.into_iter().for_each(|s| drop(folded.send(s)));
        let folder = std::thread::spawn(move || {
            for (segment, rows) in to_fold {
                if !fold(&store, &segment, rows) || folded.send(segment).is_err() {
                    return;
                }
            }
        });
        let rows = Rows::new();
        let oldest = Instant::now();
        let mut writer =
            Self { active, turn, at: 0, rows, oldest, failed: Vec::new(), full: Some(full), empty };
        if let Err(cause) = writer.serve(&queue) {
            tracing::error!(%cause, "the lease journal failed; leases go to the database from now on");
        }
        writer.turn_over();
        // The folder ends when it has done what it was given.
        drop(folder.join());
        // After a failure: whoever waits, or comes, is told so, and only now: older rows must not come after theirs.
        drop(writer);
        while let Ok(batch) = queue.recv() {
            let _ = batch.durable.send(false);
        }
    }

    /// Writes until the queue is closed, or a write fails. A batch is answered only where it is durable.
    fn serve(&mut self, queue: &Receiver<Batch>) -> io::Result<()> {
        loop {
            let first = if self.rows.is_empty() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(FOLD_AFTER.saturating_sub(self.oldest.elapsed()).max(FOLD_POLL))
            };
            match first {
                Ok(first) => self.write(first, queue)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if !self.rows.is_empty()
                && self.oldest.elapsed() >= FOLD_AFTER
                && let Ok(next) = self.empty.try_recv()
            {
                self.swap(next);
            }
        }
    }

    /// Everything that waits becomes durable by one write.
    fn write(&mut self, first: Batch, queue: &Receiver<Batch>) -> io::Result<()> {
        let mut batches = vec![first];
        batches.extend(queue.try_iter().take(QUEUE_MAX));
        if let Err(cause) = self.append(&batches) {
            self.failed = batches;
            return Err(cause);
        }
        if self.rows.is_empty() {
            self.oldest = Instant::now();
        }
        for Batch { leases, durable } in batches {
            // Whoever asked may be gone.
            let _ = durable.send(true);
            self.rows.extend(leases.into_iter().map(|lease| (lease.ip, lease)));
        }
        Ok(())
    }

    fn append(&mut self, batches: &[Batch]) -> io::Result<()> {
        let leases: Vec<&Lease> = batches.iter().flat_map(|b| &b.leases).collect();
        let mut record = encode(self.turn, &leases)?;
        if self.at + record.len() as u64 > SEGMENT {
            let next = self.empty.recv().map_err(|_| io::Error::other("the folding thread ended"))?;
            self.swap(next);
            record = encode(self.turn, &leases)?;
        }
        hit(Point::JournalAppend)?;
        self.active.0.write_all_at(&record, self.at)?;
        hit(Point::JournalWritten)?;
        self.active.0.sync_data()?;
        hit(Point::JournalDurable)?;
        self.at += record.len() as u64;
        Ok(())
    }

    fn swap(&mut self, next: Segment) {
        let full = std::mem::replace(&mut self.active, next);
        let rows = std::mem::take(&mut self.rows);
        if let Some(to_fold) = &self.full {
            drop(to_fold.send((full, rows)));
        }
        self.turn += 1;
        self.at = 0;
    }

    /// Hands the last rows over, for the end.
    fn turn_over(&mut self) {
        if let Ok(next) = self.empty.recv() {
            self.swap(next);
        }
        self.full = None;
    }
}

/// Puts rows into the database and empties their segment; tries for ever, as there is nowhere else to put them. False
/// where the database is closed: the segment must not be written over, the next start takes it up.
fn fold(store: &Store, segment: &Segment, rows: Rows) -> bool {
    let rows: Vec<Lease> = rows.into_values().collect();
    failpoint::pass(Point::JournalFold);
    for part in rows.chunks(FOLD_ROWS) {
        loop {
            let part = part.to_vec();
            match store.write_blocking(move |db| queries::put_leases(db, &part)) {
                Ok(()) => break,
                // The server ends; the journal keeps them.
                Err(StoreError::Closed) => return false,
                Err(error) => tracing::error!(%error, "leases of the journal not put into the database"),
            }
            std::thread::sleep(RETRY);
        }
    }
    failpoint::pass(Point::JournalFolded);
    if let Err(error) = segment.clear() {
        tracing::error!(%error, "the lease journal could not be cleared");
    }
    true
}

/// One file.
struct Segment(File);

impl Segment {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        if len < SEGMENT {
            // Written, not only set: blocks that were never written would be converted by the first fdatasync of each.
            let zeros = vec![0; usize::try_from(SEGMENT - len).unwrap_or_default()];
            file.write_all_at(&zeros, len)?;
            file.sync_all()?;
            // The name is durable too.
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(Self(file))
    }

    fn read(&mut self) -> io::Result<(u64, Vec<Lease>)> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(decode(&bytes))
    }

    /// Its first record is none any more, and so nothing of it is read.
    fn clear(&self) -> io::Result<()> {
        self.0.write_all_at(&[0; HEAD], 0)?;
        self.0.sync_data()
    }

    /// Nothing of it is left.
    fn wipe(&self) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(self.0.metadata()?.len()).unwrap_or_default()];
        self.0.write_all_at(&zeros, 0)?;
        self.0.sync_data()
    }
}

fn encode(turn: u64, leases: &[&Lease]) -> io::Result<Vec<u8>> {
    let mut record = vec![0; HEAD];
    record[8..].copy_from_slice(&turn.to_le_bytes());
    serde_json::to_writer(&mut record, leases)?;
    let len = u32::try_from(record.len() - HEAD).map_err(|_| io::ErrorKind::InvalidInput)?;
    let sum = crc32fast::hash(&record[8..]);
    record[..4].copy_from_slice(&len.to_le_bytes());
    record[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(record)
}

/// The number of the turn and the leases of it, in the order in which they were written.
fn decode(mut bytes: &[u8]) -> (u64, Vec<Lease>) {
    let (mut first, mut rows) = (None, Vec::new());
    while let Some((turn, leases, rest)) = record(bytes)
        && first.is_none_or(|first| first == turn)
    {
        first = Some(turn);
        rows.extend(leases);
        bytes = rest;
    }
    (first.unwrap_or(0), rows)
}

/// The record at the start: its turn, its leases and what follows.
fn record(bytes: &[u8]) -> Option<(u64, Vec<Lease>, &[u8])> {
    let len = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let sum = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let body = bytes.get(8..HEAD.checked_add(len)?)?;
    if len == 0 || crc32fast::hash(body) != sum {
        return None;
    }
    let (turn, json) = body.split_first_chunk()?;
    let leases = serde_json::from_slice(json).ok()?;
    Some((u64::from_le_bytes(*turn), leases, &bytes[HEAD + len..]))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
