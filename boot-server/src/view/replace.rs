//! What a replacement did, or would do; and machines that are expected.

use boot_server_core::arrivals::Arrival;
use boot_server_core::node::Place;
use protocol::DiskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A machine that took the part of another one, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplaceView {
    /// The name that both are about: the old machine's before, the new one's after.
    pub node: String,
    /// The new machine, by the name that it had before.
    pub with: String,
    /// The name of the old machine after.
    pub old_name: String,
    /// Image that is put on the new one; null where none was on the old one.
    pub image: Option<String>,
    /// Disk that it is written to.
    pub disk: Option<DiskId>,
    /// Host name of the OS.
    pub hostname: Option<String>,
    /// Rack and unit that it takes over.
    pub place: Option<Place>,
    /// Disks of the old machine that are wiped once it boots from the network.
    pub wiped: Vec<DiskId>,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// What an import of expected machines did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedImport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The machines, in the order of the list.
    pub machines: Vec<Arrival>,
}
