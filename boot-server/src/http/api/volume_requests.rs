//! What is asked of DPUs, volumes and snapshots.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A DPU that is to come in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDpuRequest {
    /// Its name, a host name; OVN knows it by that.
    pub name: String,
    /// Its host, by name or id; if not given, the machine that has one of its functions as its NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Own end of tunnels; if not given, the address that it dials out from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tunnel_address: Option<IpAddr>,
    /// Who forwards packets: `system` (the kernel and the hardware) or `netdev` (Open vSwitch itself).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<DatapathName>,
    /// The bridge with the provisioning network's wire; `br-provision` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_bridge: Option<String>,
}

/// What to change of a DPU; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DpuChangeRequest {
    /// Its host, by name or id; an empty text takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Own end of tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tunnel_address: Option<IpAddr>,
    /// Who forwards packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<DatapathName>,
    /// The bridge with the provisioning network's wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_bridge: Option<String>,
}

/// Who forwards packets of a DPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatapathName {
    /// The kernel, or the DPU's hardware by way of it.
    System,
    /// Open vSwitch itself.
    Netdev,
}

impl From<DatapathName> for protocol::dpu::Datapath {
    fn from(name: DatapathName) -> Self {
        match name {
            DatapathName::System => Self::System,
            DatapathName::Netdev => Self::Netdev,
        }
    }
}

/// A volume to make. Of `image` and `snapshot` at most one is given; without, it reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolumeRequest {
    /// Its name: letters, digits and `.`, `_`, `-`, at most 64.
    pub name: String,
    /// Its type; the site's first if not given.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Bytes, a multiple of 1 MiB; if not given, as large as what it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// This image is written on it: its id, its name (newest version), or `name:version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// It holds what this snapshot holds, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Requests per second, of reads and writes together, from 1; what is above waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub iops: Option<u64>,
    /// Bytes per second, of reads and writes together, from 1; what is above waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub bytes_per_second: Option<u64>,
    /// Its backend holds its bytes encrypted. So it does anyway where the type says so; what is made of a snapshot is encrypted
    /// where that is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

/// What to change of a volume; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeChangeRequest {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More bytes, a multiple of 1 MiB; only while nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Requests per second, of reads and writes together; what is above waits. 0 takes the limit away. It holds at once, while a host
    /// uses the volume too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes per second, as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// Who is to have a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The server, by name or id.
    pub server: String,
}

/// A snapshot to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// Its name: letters, digits and `.`, `_`, `-`, at most 64.
    pub name: String,
    /// Of this volume, by name or id.
    pub volume: String,
}

/// Which volumes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VolumeQuery {
    /// Of this server, by name or id.
    pub server: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most so many, 1 to 1000; 100 if not given.
    pub limit: Option<usize>,
}
