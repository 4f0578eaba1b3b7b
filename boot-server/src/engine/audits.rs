//! The audit as the rest of the server sees it: listed, checked, signed now and then, and forgotten in time.

use std::time::Duration;

use boot_server_core::audit::chain::Checkpoint;
use boot_server_core::audit::{Anchor, Fact, Kind};
use boot_server_core::node::Severity;
use protocol::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Actor, Engine, EngineError, now};
use crate::audit::Audit;
use crate::audit::export::{self, Verdict};
use crate::store::audit::{self as rows, AuditFilter, Found};
use crate::view::{AuditHead, AuditVerdict, AuditView};

/// How often the head is signed and told.
const EVERY: Duration = Duration::from_hours(1);
/// The first time after a start.
const FIRST: Duration = Duration::from_mins(5);
/// Entries forgotten in one transaction: a few milliseconds.
const BATCH: usize = 500;

impl Engine {
    /// The audit's writing end.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Entries by filter, with what was asked before this.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn audit_entries(&self, filter: AuditFilter) -> Result<Vec<AuditView>, EngineError> {
        self.audit().flush().await;
        let found = self.store().read(move |db| rows::entries(db, &filter)).await?;
        let view = |found| match found {
            Found::Link(link) => {
                let name = link.entry.fact.node.and_then(|id| self.0.nodes.get(id)).map(|n| n.name.clone());
                AuditView::of(*link, name)
            }
            Found::Unreadable(number) => AuditView::unreadable(number),
        };
        Ok(found.into_iter().map(view).collect())
    }

    /// The public key that signs heads of the audit, hexadecimal.
    pub(super) fn site_public_key(&self) -> String {
        self.0.site_key.public()
    }

    /// Signs a head of the audit for whoever gets it; nothing is stored.
    pub(super) fn site_checkpoint(&self, head: Anchor) -> Checkpoint {
        self.0.site_key.checkpoint(head, now())
    }

    /// Where the audit begins and ends, and the newest head that was signed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn audit_head(&self) -> Result<AuditHead, EngineError> {
        self.audit().flush().await;
        let key = self.0.site_key.public();
        let read = |db: &_| {
            let (anchor, head) = (rows::anchor(db, "anchor")?, rows::anchor(db, "head")?);
            Ok((anchor, head, rows::last_checkpoint(db)?))
        };
        let (anchor, head, checkpoint) = self.store().read(read).await?;
        Ok(AuditHead { head, anchor, entries: head.number.saturating_sub(anchor.number), key, checkpoint })
    }

    /// Checks the whole chain as it lies in the database.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, EngineError> {
        self.audit().flush().await;
        let verdict = export::check_store(self.store()).await?;
        if let Err(broken) = &verdict.chain {
            tracing::error!(number = broken.number(), %broken, "the audit is not as it was written");
        }
        Ok(AuditVerdict::of(&verdict))
    }

    /// Signs the head now, unless nothing was written since the last time; logs it and tells it as an event, so that it leaves
    /// this server by webhook.
    pub(crate) async fn sign_head(&self) -> Result<Option<Checkpoint>, EngineError> {
        let AuditHead { head, checkpoint, .. } = self.audit_head().await?;
        // The line about the last one is an entry itself.
        if head.number <= checkpoint.map_or(0, |it| it.head.number + 1) {
            return Ok(None);
        }
        let it = self.0.site_key.checkpoint(head, now());
        let row = it.clone();
        self.store().write(move |db| rows::put_checkpoint(db, &row)).await?;
        let Anchor { number, hash } = head;
        let message = format!("the audit's head is entry {number} with hash {hash}, signed {}", it.signature);
        self.note(Actor::Server, None, "audit.head", Severity::Info, message).await?;
        Ok(Some(it))
    }

    /// Forgets entries that are older or more than the configuration says; returns how many went.
    pub(super) async fn forget_audit(&self) -> Result<usize, EngineError> {
        let kept = self.settings().audit.kept;
        let before = kept.before(now());
        let mut all = 0;
        loop {
            let forget = move |db: &_| rows::forget(db, before.unwrap_or_default(), kept.rows, BATCH);
            let went = self.store().write(forget).await?;
            all += went;
            if went < BATCH {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if all > 0 {
            let fact = Fact::new(now(), Kind::Audit, "server", "audit.forgotten");
            self.audit().after(Fact { outcome: format!("{all} entries were too old"), ..fact }).await;
        }
        Ok(all)
    }

    /// Signs heads and forgets entries, until `stop`.
    pub async fn run_audit(&self, stop: CancellationToken) {
        let mut wait = FIRST;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = EVERY;
            if let Err(error) = self.forget_audit().await {
                tracing::error!(%error, "old audit entries were not forgotten");
            }
            if let Err(error) = self.sign_head().await {
                tracing::error!(%error, "the audit's head was not signed");
            }
        }
    }
}

impl AuditVerdict {
    /// As the API shows it.
    pub fn of(verdict: &Verdict) -> Self {
        let Verdict { chain, anchor, checkpoints, keys, forged } = verdict;
        let (broken, message) = match (chain, forged) {
            (Err(broken), _) => (Some(broken.number()), broken.to_string()),
            (Ok(_), Some(number)) => (
                Some(*number),
                format!("the checkpoint of entry {number} is not signed by the key that it names"),
            ),
            (Ok(intact), None) => {
                (None, format!("intact: {} entries, head {}", intact.entries, intact.head.hash))
            }
        };
        let intact = chain.as_ref().ok();
        Self {
            intact: broken.is_none(),
            message,
            broken,
            entries: intact.map_or(0, |i| i.entries),
            head: intact.map(|i| i.head),
            anchor: *anchor,
            checkpoints: *checkpoints as u64,
            keys: keys.clone(),
        }
    }
}

/// The moment before which nothing is kept.
impl crate::config::Kept {
    pub(super) fn before(&self, now: Timestamp) -> Option<Timestamp> {
        let age = u64::try_from(self.age?.as_millis()).unwrap_or(u64::MAX);
        Some(Timestamp(now.0.saturating_sub(age)))
    }
}
