//! How far it is proven which machine a node's agent runs on.

use std::collections::BTreeMap;

use boot_server_core::node::{EventLog, Lack, Level, Node, PinnedTpm};
use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A level of proof with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TrustView {
    /// Level.
    pub level: Level,
    /// Why it is that.
    pub why: String,
    /// Why it is not T3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_t3: Option<String>,
    /// Number of this boot of the agent; an approval names it.
    pub boot: u64,
    /// An agent is there, which can be vouched for.
    pub can_approve: bool,
    /// The level that its job waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Level>,
    /// The TPM that is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedTpm>,
    /// The TPM that it showed in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<ShownTpm>,
}

/// A TPM that signed what a machine booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShownTpm {
    /// SHA-256 of the public area of its endorsement key.
    #[schema(value_type = String)]
    pub ek: Sha256,
    /// SHA-256 of the certificate of that key, where it has one that is of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub certificate: Option<Sha256>,
    /// When it signed.
    pub at: Timestamp,
    /// Its registers (SHA-256 bank), by number.
    #[schema(value_type = BTreeMap<String, String>)]
    pub pcrs: BTreeMap<u8, Sha256>,
    /// What the event log says, in words.
    pub log: String,
}

impl TrustView {
    /// Of a node as it stands.
    pub fn of(node: &Node) -> Self {
        let trust = node.trust();
        let session = node.link.session.as_ref();
        let shown = session.and_then(|session| session.tpm.as_ref()).map(|tpm| ShownTpm {
            ek: tpm.ek,
            certificate: tpm.certificate,
            at: tpm.at,
            pcrs: tpm.pcrs.clone(),
            log: match &tpm.log {
                EventLog::None => "none".to_owned(),
                EventLog::Matches { events } => format!("{events} events, which lead to the registers"),
                EventLog::Differs { .. } => "does not lead to the registers".to_owned(),
                EventLog::Broken => "cannot be read".to_owned(),
            },
        });
        Self {
            level: trust.level,
            why: trust.why,
            below_t3: trust.below_t3,
            boot: node.epoch,
            can_approve: session.is_some_and(|s| s.approved.is_none()) && !node.shows_other_tpm(),
            needs: node.lacks.as_ref().map(|Lack { needs, .. }| *needs),
            pinned: node.tpm.clone(),
            shown,
        }
    }

    /// True where the TPM that it shows is not the pinned one, or none is.
    pub fn can_pin(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| self.pinned.as_ref().is_none_or(|pin| pin.ek != shown.ek))
    }
}
