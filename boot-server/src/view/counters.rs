//! What ports and volumes carried, as the API shows it.

use protocol::Timestamp;
use protocol::counters::{DiskCounters, PortCounters, Requests, Traffic};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a port carried since the switch of its DPU was started, or the port plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortCountersView {
    /// When its DPU said so.
    pub at: Timestamp,
    /// What its machine sends.
    pub from_host: TrafficView,
    /// What its machine gets.
    pub to_host: TrafficView,
}

/// Traffic in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficView {
    /// Octets of frames.
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that were broken.
    pub errors: u64,
}

/// What a volume did since its exporter was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeCountersView {
    /// When its DPU said so.
    pub at: Timestamp,
    /// Reads.
    pub read: RequestsView,
    /// Writes.
    pub write: RequestsView,
    /// Discards and requests for zeros.
    pub zero: RequestsView,
    /// Flushes, where the exporter counts them.
    pub flush: Option<RequestsView>,
    /// Requests that were answered with an error.
    pub errors: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestsView {
    /// How many were answered.
    pub requests: u64,
    /// Bytes of the disk that they moved.
    pub bytes: u64,
    /// Microseconds that they took, added up; what waits for a limit counts.
    pub micros: u64,
}

impl From<(Timestamp, PortCounters)> for PortCountersView {
    fn from((at, counters): (Timestamp, PortCounters)) -> Self {
        Self { at, from_host: counters.from_host.into(), to_host: counters.to_host.into() }
    }
}

impl From<Traffic> for TrafficView {
    fn from(Traffic { bytes, packets, dropped, errors }: Traffic) -> Self {
        Self { bytes, packets, dropped, errors }
    }
}

impl From<(Timestamp, DiskCounters)> for VolumeCountersView {
    fn from((at, counters): (Timestamp, DiskCounters)) -> Self {
        let DiskCounters { read, write, zero, flush, errors } = counters;
        let (read, write, zero) = (read.into(), write.into(), zero.into());
        Self { at, read, write, zero, flush: flush.map(Into::into), errors }
    }
}

impl From<Requests> for RequestsView {
    fn from(Requests { requests, bytes, micros }: Requests) -> Self {
        Self { requests, bytes, micros }
    }
}

impl TrafficView {
    /// In words.
    pub fn words(&self, size: impl Fn(u64) -> String) -> String {
        let Self { bytes, packets, dropped, errors } = self;
        let mut words = format!("{} in {packets} packets", size(*bytes));
        for (count, what) in [(dropped, "dropped"), (errors, "broken")] {
            if *count > 0 {
                words = format!("{words}, {count} {what}");
            }
        }
        words
    }
}

impl RequestsView {
    /// In words.
    pub fn words(&self, size: impl Fn(u64) -> String) -> String {
        let Self { requests, bytes, micros } = self;
        let each = micros.checked_div(*requests).unwrap_or(0);
        let each = if each < 10_000 { format!("{each} µs") } else { format!("{} ms", each / 1000) };
        match requests {
            0 => "none".to_owned(),
            _ if *bytes == 0 => format!("{requests}, {each} each"),
            _ => format!("{} in {requests}, {each} each", size(*bytes)),
        }
    }
}
