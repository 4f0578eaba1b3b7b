//! What crosses a wire between Billet's own programs: ids, inventory, jobs, reports, faults.
//!
//! Types here are only added to. A field that older peers do not send has `#[serde(default)]`; golden bytes
//! per version live in `tests/`. No logic beyond parsing and printing: what to *do* is decided in the cores.

pub mod agent;
pub mod counters;
pub mod dial;
pub mod dpu;
pub mod erase;
pub mod fault;
pub mod functions;
pub mod ids;
pub mod inventory;
pub mod job;
pub mod limits;
pub mod report;
pub mod tpm;

pub use ids::{
    ChunkId, DiskId, DpuId, FloatingId, GroupId, ImageId, JobId, MacAddr, MirrorId, NetworkId, NodeId,
    PortId, ProjectId, RouterId, SecurityGroupId, ServerId, Sha256, SnapshotId, SubnetId, Timestamp, UserId,
    VolumeId,
};

/// Version of the agent protocol spoken by this build. The server refuses an agent whose major differs.
pub const PROTOCOL_VERSION: u32 = 1;
