//! What is certified of a disk that was to be erased: one JSON text, which is signed as it is and kept for ever.

use protocol::erase::{EraseRecord, EraseResult};
use protocol::{JobId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::node::{Erased, Node};

/// The version of the text.
const VERSION: u32 = 1;
/// What grades mean.
pub const STANDARD: &str = "NIST SP 800-88 Rev. 2 (September 2025)";

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Certificate {
    /// Version of this form: 1.
    pub version: u32,
    /// Names it.
    pub id: Uuid,
    /// When it was issued, by the server's clock; milliseconds since 1970.
    pub issued: Timestamp,
    /// By which standard it is graded.
    pub standard: String,
    /// The machine.
    pub machine: Machine,
    /// The job.
    pub job: JobId,
    /// Version of the agent.
    pub agent: String,
    /// Version of the server.
    pub server: String,
    /// How the machine stands against its model, where it has one: parts and firmware.
    pub baseline: Option<String>,
    /// What became of the disk.
    pub disk: EraseRecord,
}

/// The machine that a disk was in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Machine {
    /// Names it for ever.
    pub id: NodeId,
    /// Its name then.
    pub name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// SMBIOS UUID.
    pub uuid: Option<Uuid>,
}

impl Certificate {
    /// The certificate of a disk of `node`, which is as it was when its agent said so.
    pub fn of(node: &Node, erased: Erased, id: Uuid, issued: Timestamp, server: &str) -> Self {
        let agent = node.link.session.as_ref().map(|session| session.agent_version.clone());
        let baseline = match (&node.quarantine, &node.model) {
            (Some(quarantine), _) => {
                Some(format!("differs from {}: {}", quarantine.model, quarantine.words()))
            }
            (None, Some(model)) => Some(format!("as {model} says")),
            (None, None) => None,
        };
        Self {
            version: VERSION,
            id,
            issued,
            standard: STANDARD.to_owned(),
            machine: Machine {
                id: node.id,
                name: node.name.clone(),
                serial: node.identity.serial.clone(),
                uuid: node.identity.uuid,
            },
            job: erased.job,
            agent: agent.unwrap_or_default(),
            server: server.to_owned(),
            baseline,
            disk: erased.record,
        }
    }

    /// What is signed beside the text: it tells one certificate from another without opening it.
    pub fn comment(&self) -> String {
        let disk = self.disk.disk.as_ref().map_or(self.disk.name.as_str(), |id| id.as_str());
        let result = match self.disk.result {
            EraseResult::Erased => self.disk.grade.as_str(),
            EraseResult::Failed { .. } => "failed",
            EraseResult::Skipped { .. } => "skipped",
        };
        format!(
            "billet certificate {} node {} disk {disk} result {result} issued {}",
            self.id, self.machine.id, self.issued.0
        )
    }
}
