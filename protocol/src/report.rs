//! What the agent says while it works. Every report names its job; a stale or repeated one changes nothing.

use serde::{Deserialize, Serialize};

use crate::erase::{EraseRecord, MachineRecord};
use crate::fault::Fault;
use crate::ids::{JobId, Timestamp};

/// A batch of reports on one job, numbered without gaps from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBatch {
    /// The job.
    pub job: JobId,
    /// The reports, in order of `seq`.
    pub reports: Vec<Report>,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number within the job, from 1.
    pub seq: u64,
    /// The agent's clock, which may be wrong; the server keeps its own.
    pub at: Timestamp,
    /// What happened.
    pub body: ReportBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ReportBody {
    /// A stage began.
    Stage {
        /// The stage.
        stage: Stage,
    },
    /// How far the stage is. Sent at most once a second; only the newest matters.
    Progress(Progress),
    /// A line for the event list.
    Note {
        /// The line.
        message: String,
    },
    /// What became of one disk that was to be erased.
    Disk {
        /// The record.
        record: Box<EraseRecord>,
    },
    /// What became of the rest of a machine that is cleaned between tenants.
    Machine {
        /// The record.
        record: Box<MachineRecord>,
    },
    /// The job is done, read back and flushed; the machine reboots next (deploy) or waits (others).
    Finished {
        /// What was done, in numbers.
        summary: Summary,
    },
    /// The job failed.
    Failed {
        /// Why.
        fault: Fault,
    },
}

/// Stages of a job on the agent, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Looking at the hardware.
    Inspect,
    /// Choosing the disk and checking that all is in place.
    Plan,
    /// Wiping tables and signatures.
    Clean,
    /// Erasing all that is on the disks.
    Erase,
    /// Fetching, checking and writing chunks.
    Write,
    /// Reading back.
    Verify,
    /// Partition table, config partition, boot entry.
    Customise,
    /// Leaving the ramdisk.
    Reboot,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Progress {
    /// Chunks done, holes not counted.
    pub chunks_done: u64,
    /// Chunks in all.
    pub chunks_total: u64,
    /// Raw bytes done.
    pub bytes_done: u64,
    /// Raw bytes in all.
    pub bytes_total: u64,
    /// Rate over the last seconds, in raw bytes per second.
    pub bytes_per_second: u64,
}

/// What a finished job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Chunks fetched over the network.
    pub chunks_fetched: u64,
    /// Chunks that were on the disk already.
    pub chunks_kept: u64,
    /// Bytes fetched over the network (compressed).
    pub bytes_fetched: u64,
    /// Raw bytes written to the disk.
    pub bytes_written: u64,
    /// Bytes zeroed as holes.
    pub bytes_zeroed: u64,
    /// Bytes read back and compared.
    pub bytes_verified: u64,
}
