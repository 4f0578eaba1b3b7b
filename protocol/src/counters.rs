//! What ports and disks of a DPU carried so far. All counters only grow, until what counts is started anew: then they begin at 0
//! again.

use serde::{Deserialize, Serialize};

use crate::dpu::Name;
use crate::ids::PortId;

/// Counters of a DPU, with a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Of its logical ports: [`PORTS_MAX`](crate::dpu::PORTS_MAX) at most.
    #[serde(default)]
    pub ports: Vec<PortCounters>,
    /// Of its volumes: [`VOLUMES_MAX`](crate::dpu::VOLUMES_MAX) at most.
    #[serde(default)]
    pub volumes: Vec<VolumeCounters>,
}

/// Counters of a port, as the switch has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortCounters {
    /// The logical port.
    pub port: PortId,
    /// What its host sends.
    pub from_host: Traffic,
    /// What its host gets.
    pub to_host: Traffic,
}

/// Traffic in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Octets of frames.
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that were broken.
    pub errors: u64,
}

/// Counters of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeCounters {
    /// The volume.
    pub name: Name,
    /// What its exporter counted.
    pub disk: DiskCounters,
}

/// What an exporter counted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskCounters {
    /// Reads.
    pub read: Requests,
    /// Writes.
    pub write: Requests,
    /// Discards and requests for zeros.
    pub zero: Requests,
    /// Flushes; `None` where the exporter does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<Requests>,
    /// Requests that were answered with an error.
    pub errors: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// How many were answered.
    pub requests: u64,
    /// Bytes of the disk that they moved, where they succeeded.
    pub bytes: u64,
    /// Microseconds from the moment that each was taken to its answer, added up. What waits for a limit counts.
    pub micros: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change the test: DPUs that say this are in racks.
    #[test]
    fn golden_version_1() {
        let text = r#"{"ports":[{"port":"5f6a4e3e-0000-4000-8000-000000000001","from_host":{"bytes":1,"packets":2,"dropped":3,"errors":4},"to_host":{"bytes":5,"packets":6,"dropped":7,"errors":8}}],"volumes":[{"name":"data","disk":{"read":{"requests":1,"bytes":2,"micros":3},"write":{"requests":4,"bytes":5,"micros":6},"zero":{"requests":7,"bytes":0,"micros":8},"flush":{"requests":9,"bytes":0,"micros":10},"errors":11}},{"name":"boot","disk":{"read":{"requests":0,"bytes":0,"micros":0},"write":{"requests":0,"bytes":0,"micros":0},"zero":{"requests":0,"bytes":0,"micros":0},"errors":0}}]}"#;
        let value: Counters = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
    }
}
