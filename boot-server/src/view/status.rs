//! How the server is, as the API shows it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Version of the program.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// The provisioning interface.
    pub interface: Option<String>,
    /// Our address on it.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Our IPv6 address on it.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// DHCP.
    pub dhcp: DhcpView,
    /// Nodes by state.
    pub nodes: BTreeMap<String, u64>,
    /// What machines boot.
    pub ramdisk: RamdiskView,
    /// DHCP servers on the wire other than this one, as seen lately.
    #[serde(default)]
    pub dhcp_servers: Vec<DhcpServerView>,
}

/// A DHCP server that is not this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhcpServerView {
    /// Its address, as it names itself.
    #[schema(value_type = String, format = Ipv4)]
    pub address: Ipv4Addr,
    /// Its hardware address (behind a relay: the relay's); null where only its clients told of it.
    pub mac: Option<MacAddr>,
    /// The interface that it was seen on.
    pub interface: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// It lends addresses.
    pub lends: bool,
    /// It tells machines what to boot.
    pub boots: bool,
    /// It may be there: this server works beside the site's own DHCP.
    pub expected: bool,
}

/// DHCP in numbers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DhcpView {
    /// It is on.
    pub enabled: bool,
    /// Leases that have not ended.
    pub leases: u64,
}

/// Kernel and ramdisk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RamdiskView {
    /// Both are there.
    pub present: bool,
    /// Version of the kernel, where the file tells.
    pub kernel: Option<String>,
    /// Size of both in bytes.
    pub bytes: u64,
}
