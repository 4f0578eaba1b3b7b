//! What a power cut leaves of a disk that is being written. QEMU logs every write and every flush (`blklogwrites`); from the log all
//! states are made that the disk could be in, and each is judged: it does not boot, or it is complete.
//!
//! ```text
//!  rack: real agent ──▶ disk + log ─┐
//!  crate imaging ──▶ recorder ──────┴▶ states: prefixes, torn ──▶ judge ──▶ report
//!                                                    └─ some ──▶ a real firmware boots them
//! ```
//!
//! A disk may keep any part of what was written since its last flush, in any order, in sectors of 512 octets. What was flushed it keeps.

mod disk;
mod judge;
mod log;
mod recorded;
mod states;
mod trial;

pub use disk::Disk;
pub use judge::{Complete, Judge, Verdict};
pub use log::{Entry, Log, LogError};
pub use recorded::Recorder;
pub use states::{Depth, Report, Sample, search};
pub use trial::{Outcome, Trial};

/// Octets of a sector: what a disk writes whole or not at all.
pub const SECTOR: usize = 512;
