//! The audit as the API shows it.

use boot_server_core::approval::Approval;
use boot_server_core::audit::chain::Checkpoint;
use boot_server_core::audit::{Anchor, Fact, Kind, Link};
use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Grows by one; there are no holes.
    pub number: u64,
    /// What it says.
    #[serde(flatten)]
    pub fact: Fact,
    /// The node's name now.
    pub node_name: Option<String>,
    /// SHA-256 over the hash of the entry before it and the octets of this one.
    pub hash: Sha256,
}

impl AuditView {
    /// An entry, and its node's name.
    pub fn of(link: Link, node_name: Option<String>) -> Self {
        Self { number: link.entry.number, fact: link.entry.fact, node_name, hash: link.hash }
    }

    /// A row that this server did not write.
    pub fn unreadable(number: u64) -> Self {
        let fact = Fact::new(Timestamp(0), Kind::Audit, "unknown", "audit.damaged");
        let outcome = "this entry was altered: verify the audit".to_owned();
        Self { number, fact: Fact { outcome, ..fact }, node_name: None, hash: Sha256([0; 32]) }
    }
}

/// Where the audit begins and ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The newest entry. Keep it elsewhere: it proves what was there.
    pub head: Anchor,
    /// The last entry that was forgotten; the chain begins behind it.
    pub anchor: Anchor,
    /// How many there are.
    pub entries: u64,
    /// The site's public key (Ed25519, hexadecimal).
    pub key: String,
    /// The newest head that was signed with it.
    pub checkpoint: Option<Checkpoint>,
}

/// The answer to a request that waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalAsked {
    /// In words.
    pub message: String,
    /// Names what waits.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// What waits, for people of the site: it names a machine.
    pub approval: Option<Approval>,
}

/// What came of a check of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// It is as it was written.
    pub intact: bool,
    /// In words: `intact: 12 entries, head …`, or which entry is wrong and how.
    pub message: String,
    /// The first entry that is wrong.
    pub broken: Option<u64>,
    /// Entries that were checked.
    pub entries: u64,
    /// The last of them.
    pub head: Option<Anchor>,
    /// Behind what the chain begins.
    pub anchor: Anchor,
    /// Signed heads that it goes through.
    pub checkpoints: u64,
    /// Public keys that signed them.
    pub keys: Vec<String>,
}
