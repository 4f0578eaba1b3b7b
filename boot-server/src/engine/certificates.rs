//! Certificates of erased disks: made and signed in the step that takes the agent's record in, and stored with it.

use boot_server_core::certificate::Certificate;
use boot_server_core::node::{Cleaning, Erased, Node, Severity};
use boot_server_core::pool::EraseWhen;
use boot_server_core::server::wiped;
use protocol::Timestamp;
use protocol::job::DiskTarget;
use uuid::Uuid;

use super::{Engine, EngineError};
use crate::minisign::Signer;
use crate::store::certificates::{self as rows, CertificateFilter, CertificateRow};
use crate::store::db::Connection;
use crate::store::{StoreError, queries::NewEvent};

/// A certificate ready to be stored.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    certificate: Certificate,
    body: String,
    signature: Option<String>,
}

impl Signed {
    pub(super) fn store(&self, db: &Connection) -> Result<(), StoreError> {
        rows::insert(db, &self.certificate, &self.body, self.signature.as_deref())
    }
}

impl Engine {
    /// Certificates of what the agent of `node` reported. That one cannot be signed is told, and does not undo the erase.
    pub(super) async fn certify(
        &self,
        node: &Node,
        records: Vec<Erased>,
        at: Timestamp,
    ) -> Result<(Vec<Signed>, Option<NewEvent>), EngineError> {
        if records.is_empty() {
            return Ok((Vec::new(), None));
        }
        let path = self.0.settings.state_dir.join("signing.key");
        let signer = tokio::task::spawn_blocking(move || Signer::open(&path)).await?;
        let mut trouble = None;
        if let Err(error) = &signer {
            tracing::error!(node = %node.name, error = error as &dyn std::error::Error, "certificates are not signed");
            let message = format!("certificates of its disks are not signed: {error}");
            trouble = Some(
                NewEvent::new(at, "server", "certificate.unsigned", Severity::Error, message).on(node.id),
            );
        }
        let signer = signer.ok();
        let sign = |erased: Erased| {
            let version = env!("CARGO_PKG_VERSION");
            let certificate = Certificate::of(node, erased, Uuid::now_v7(), at, version);
            let body = serde_json::to_string_pretty(&certificate)
                .map_err(|cause| StoreError::Row { table: "certificates", cause })?;
            let signature =
                signer.as_ref().map(|signer| signer.sign(body.as_bytes(), &certificate.comment()));
            Ok(Signed { certificate, body, signature })
        };
        let signed = records.into_iter().map(sign).collect::<Result<Vec<_>, StoreError>>()?;
        Ok((signed, trouble))
    }

    /// Certificates, newest first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn certificates(&self, filter: CertificateFilter) -> Result<Vec<CertificateRow>, EngineError> {
        Ok(self.0.store.read(move |db| rows::list(db, &filter)).await?)
    }

    /// One certificate.
    ///
    /// # Errors
    /// What the store says.
    pub async fn certificate(&self, id: Uuid) -> Result<Option<CertificateRow>, EngineError> {
        Ok(self.0.store.read(move |db| rows::get(db, id)).await?)
    }

    /// How a machine is cleaned that a project gives back.
    pub(super) fn between_tenants(&self, node: &Node) -> Cleaning {
        match self.erases(node) {
            EraseWhen::BetweenTenants | EraseWhen::Always => Cleaning::Between,
            EraseWhen::WhenAsked => Cleaning::Light,
        }
    }

    /// How disks of a machine are cleaned that somebody has named, or all of it.
    pub fn cleaning(&self, node: &Node, whole: bool) -> Cleaning {
        match (whole, self.erases(node)) {
            (true, _) => Cleaning::Between,
            (false, EraseWhen::Always) => Cleaning::Erase,
            (false, EraseWhen::BetweenTenants | EraseWhen::WhenAsked) => Cleaning::Light,
        }
    }

    fn erases(&self, node: &Node) -> EraseWhen {
        // A pool that is not known any more takes nothing back from what holds without one.
        self.pool(node.pool().as_str()).map(|pool| pool.value.erase).unwrap_or_default()
    }

    /// The disks of a machine that is erased as a whole.
    ///
    /// # Errors
    /// Where it was never inspected.
    pub async fn whole_machine(&self, node: &Node) -> Result<Vec<DiskTarget>, EngineError> {
        let inventory = self.inventory(node.id).await?;
        let inventory = inventory.ok_or_else(|| EngineError::NoInventory(node.name.clone()))?;
        Ok(wiped(&inventory))
    }
}
