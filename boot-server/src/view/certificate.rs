//! Certificates of erased disks, as the API shows them.

use boot_server_core::certificate::Certificate;
use protocol::Timestamp;
use protocol::erase::{EraseMethod, EraseResult, Grade};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::certificates::CertificateRow;

/// A certificate, with the text that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateView {
    /// Names it.
    pub id: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// The machine's name then.
    pub node: String,
    /// The disk's name in the job, or the kernel's.
    pub disk: String,
    /// Model of the disk.
    pub model: Option<String>,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// `erased`, `failed` or `skipped`.
    pub result: String,
    /// By what it was erased.
    pub method: Option<EraseMethod>,
    /// What that withstands (NIST SP 800-88 Rev. 2).
    pub grade: Grade,
    /// The certificate: JSON, to the octet as it was signed.
    pub text: String,
    /// The signature's file in minisign's form; absent where no key could be had when it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl CertificateView {
    /// What the text says, where it can be read.
    pub fn certificate(&self) -> Option<Certificate> {
        serde_json::from_str(&self.text).ok()
    }
}

impl From<CertificateRow> for CertificateView {
    fn from(row: CertificateRow) -> Self {
        let read: Option<Certificate> = serde_json::from_str(&row.body).ok();
        let disk = read.as_ref().map(|read| &read.disk);
        let result = match disk.map(|disk| &disk.result) {
            Some(EraseResult::Erased) => "erased",
            Some(EraseResult::Failed { .. }) | None => "failed",
            Some(EraseResult::Skipped { .. }) => "skipped",
        };
        let name = |disk: &protocol::erase::EraseRecord| {
            disk.disk.as_ref().map_or_else(|| disk.name.clone(), ToString::to_string)
        };
        Self {
            id: row.id,
            issued: row.issued,
            node: row.node_name,
            disk: disk.map(name).unwrap_or_default(),
            model: disk.and_then(|disk| disk.model.clone()),
            size_bytes: disk.map_or(0, |disk| disk.size_bytes),
            result: result.to_owned(),
            method: disk.and_then(|disk| disk.method),
            grade: disk.map_or(Grade::None, |disk| disk.grade),
            text: row.body,
            signature: row.signature,
        }
    }
}
