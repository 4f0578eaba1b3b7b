//! What a running job says: its stages, progress and notes, for the console and (through the outbox) for the server;
//! and what it is told: to stop. Shared by the threads of one job.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::erase::{EraseRecord, MachineRecord};
use protocol::fault::{Fault, FaultCode};
use protocol::report::{Progress, ReportBatch, ReportBody, Stage, Summary};
use protocol::{JobId, Timestamp};
use ramdisk_agent_core::progress::Outbox;

/// How finely a waiting thread looks at the abort flag.
const ABORT_LOOK: Duration = Duration::from_millis(200);

/// Counters of the stage that runs; any thread adds to them.
#[derive(Debug, Default)]
pub struct Meter {
    /// Chunks that hold data and are done.
    pub chunks_done: AtomicU64,
    /// Chunks that hold data.
    pub chunks_total: AtomicU64,
    /// Raw bytes done.
    pub bytes_done: AtomicU64,
    /// Raw bytes in all.
    pub bytes_total: AtomicU64,
}

/// The feed of one job.
pub struct Feed {
    outbox: Mutex<Outbox>,
    changed: Condvar,
    abort: AtomicBool,
    /// Counters of the stage.
    pub meter: Meter,
    rate: Mutex<Rate>,
}

#[derive(Debug, Default)]
struct Rate {
    last: Option<(SystemTime, u64)>,
    bytes_per_second: u64,
}

/// The clock, as the reports carry it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while holding it leaves plain data behind: still the truth.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// The feed of a job that begins.
    pub fn new(job: JobId) -> Self {
        Self {
            outbox: Mutex::new(Outbox::new(job)),
            changed: Condvar::new(),
            abort: AtomicBool::new(false),
            meter: Meter::default(),
            rate: Mutex::default(),
        }
    }

    /// A stage begins; `chunks` and `bytes` are what it has to do.
    pub fn stage(&self, stage: Stage, chunks: u64, bytes: u64) {
        self.meter.chunks_total.store(chunks, Ordering::Relaxed);
        self.meter.bytes_total.store(bytes, Ordering::Relaxed);
        self.meter.chunks_done.store(0, Ordering::Relaxed);
        self.meter.bytes_done.store(0, Ordering::Relaxed);
        *lock(&self.rate) = Rate::default();
        eprintln!("billet: stage {}", stage_name(stage));
        self.report(ReportBody::Stage { stage });
    }

    /// A line for the event list and the console.
    pub fn note(&self, message: impl Into<String>) {
        let message = message.into();
        eprintln!("billet: {message}");
        self.report(ReportBody::Note { message });
    }

    /// What became of one disk that was to be erased.
    pub fn disk(&self, record: EraseRecord) {
        eprintln!("billet: {}: {:?} by {:?}", record.name, record.result, record.method);
        self.report(ReportBody::Disk { record: Box::new(record) });
    }

    /// What became of the rest of the machine.
    pub fn machine(&self, record: MachineRecord) {
        eprintln!("billet: {record:?}");
        self.report(ReportBody::Machine { record: Box::new(record) });
    }

    /// The job is done.
    pub fn finished(&self, summary: Summary) {
        eprintln!("billet: finished: {summary:?}");
        self.report(ReportBody::Finished { summary });
    }

    /// The job failed.
    pub fn failed(&self, fault: Fault) {
        eprintln!("billet: FAILED: {}\nbillet: {}", fault.message, fault.hint);
        self.report(ReportBody::Failed { fault });
    }

    fn report(&self, body: ReportBody) {
        lock(&self.outbox).handle_report(now(), body);
        self.changed.notify_all();
    }

    /// So many more bytes are to be done.
    pub fn more(&self, bytes: u64) {
        self.meter.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much more was done.
    pub fn did(&self, chunks: u64, bytes: u64) {
        self.meter.chunks_done.fetch_add(chunks, Ordering::Relaxed);
        self.meter.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Samples the counters into the outbox; called about once a second by one thread.
    pub fn tick(&self) -> Progress {
        let at = SystemTime::now();
        let load = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let bytes_done = load(&self.meter.bytes_done);
        let bytes_per_second = {
            let mut rate = lock(&self.rate);
            if let Some((before, bytes)) = rate.last
                && let Ok(passed) = at.duration_since(before)
            {
                let fresh = bytes_done.saturating_sub(bytes) as f64 / passed.as_secs_f64().max(0.001);
                // Half new, half old: steady enough to read, quick enough to see a stall.
                rate.bytes_per_second = (rate.bytes_per_second as f64).mul_add(0.5, fresh * 0.5) as u64;
            }
            rate.last = Some((at, bytes_done));
            rate.bytes_per_second
        };
        let progress = Progress {
            chunks_done: load(&self.meter.chunks_done),
            chunks_total: load(&self.meter.chunks_total),
            bytes_done,
            bytes_total: load(&self.meter.bytes_total),
            bytes_per_second,
        };
        // Also in a stage that counts nothing (wiping): the server must hear that somebody works.
        lock(&self.outbox).handle_progress(now(), progress);
        progress
    }

    /// Waits for something to report, at most `timeout`; what is to be sent.
    pub fn wait_batch(&self, timeout: Duration) -> Option<ReportBatch> {
        let mut outbox = lock(&self.outbox);
        if outbox.is_empty() {
            outbox = self.changed.wait_timeout(outbox, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        outbox.poll_batch()
    }

    /// The server has everything up to `seq`.
    pub fn acked(&self, seq: u64) {
        lock(&self.outbox).handle_acked(seq);
    }

    /// True where the server has everything.
    pub fn is_drained(&self) -> bool {
        lock(&self.outbox).is_empty()
    }

    /// Stop at the next safe point.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    /// Fails where the job was told to stop.
    ///
    /// # Errors
    /// [`FaultCode::Aborted`].
    pub fn check_abort(&self) -> Result<(), Fault> {
        if !self.abort.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Fault::new(
            FaultCode::Aborted,
            "stopped before it was done; a disk that was being written does not boot",
            "deploy again when ready",
        ))
    }

    /// Sleeps, unless told to stop.
    ///
    /// # Errors
    /// [`FaultCode::Aborted`].
    pub fn sleep(&self, mut time: Duration) -> Result<(), Fault> {
        while !time.is_zero() {
            self.check_abort()?;
            let piece = time.min(ABORT_LOOK);
            std::thread::sleep(piece);
            time -= piece;
        }
        self.check_abort()
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Inspect => "inspect: looking at the hardware",
        Stage::Plan => "plan: checking image and disk",
        Stage::Clean => "clean: wiping tables and signatures",
        Stage::Erase => "erase: removing all that is on the disks",
        Stage::Write => "write: fetching, checking and writing",
        Stage::Verify => "verify: reading back",
        Stage::Customise => "customise: partition table and config",
        Stage::Reboot => "reboot",
    }
}
