//! Which machines are the site's: told by the caller, who knows the nodes.

use std::collections::BTreeSet;

use protocol::MacAddr;
use uuid::Uuid;

/// The machines that are enrolled. They are served first where addresses are short, and alone in a subnet of mode
/// [`Reserved`](super::Mode::Reserved).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Ethernet addresses of their ports.
    pub macs: BTreeSet<MacAddr>,
    /// Their SMBIOS UUIDs.
    pub uuids: BTreeSet<Uuid>,
}

impl Known {
    /// True where one of the two is known.
    pub fn has(&self, mac: Option<MacAddr>, uuid: Option<Uuid>) -> bool {
        mac.is_some_and(|mac| self.macs.contains(&mac)) || uuid.is_some_and(|uuid| self.uuids.contains(&uuid))
    }
}
