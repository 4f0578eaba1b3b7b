//! What projects used and how well their servers were there; keys that they keep; faults that their people report.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use boot_server_core::cloud_config::is_ssh_key;
use boot_server_core::node::Severity;
use boot_server_core::usage::Period;
use boot_server_core::{sla, usage};
use protocol::ProjectId;
use sha2::Digest as _;
use uuid::Uuid;

use super::create::{bad, no_such};
use super::{Actor, Engine, EngineError, ServerError, line, now};
use crate::store::desk::{self, FaultRow, KeyRow};
use crate::store::queries::{self, NewEvent};
use crate::store::{servers as rows, usage as usage_rows};

/// Keys of one project.
const KEYS_MAX: usize = 200;
/// Longest name of a key.
const KEY_NAME_MAX: usize = 63;
/// Longest key: an RSA key of 16,384 bits has 2,800 characters.
const KEY_MAX: usize = 8192;
/// Longest report, in bytes.
const WORDS_MAX: usize = 4096;
/// Open reports of one project; more are not read by anybody.
const OPEN_MAX: usize = 200;
/// Reports in a list.
const LIST_MAX: usize = 1000;

/// Which fault reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultFilter {
    /// Of this project only.
    pub project: Option<ProjectId>,
    /// Those that are not closed.
    pub open: bool,
}

impl Engine {
    /// What a project, or all, used in a period.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn usage(
        &self,
        project: Option<ProjectId>,
        period: Period,
    ) -> Result<usage::Report, EngineError> {
        let records = self.store().read(move |db| usage_rows::records(db, project, period)).await?;
        Ok(usage::report(&records, period, now()))
    }

    /// How well servers of a project, or of all, were there in a period.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn sla(&self, project: Option<ProjectId>, period: Period) -> Result<sla::Report, EngineError> {
        let read = move |db: &_| rows::histories(db, project, period.from, period.to);
        Ok(sla::report(&self.store().read(read).await?, period, now()))
    }

    /// The keys of a project, by name.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn keys(&self, project: ProjectId) -> Result<Vec<KeyRow>, EngineError> {
        Ok(self.store().read(move |db| desk::keys(db, project)).await?)
    }

    /// One key of a project.
    ///
    /// # Errors
    /// [`ServerError::NoSuch`], or where the store fails.
    pub async fn key(&self, project: ProjectId, name: &str) -> Result<KeyRow, EngineError> {
        let found = self.keys(project).await?.into_iter().find(|key| key.name == name);
        found.ok_or_else(|| no_such("key", name).into())
    }

    /// Keeps a key for a project.
    ///
    /// # Errors
    /// [`ServerError::Bad`], [`ServerError::Full`], [`EngineError::NameTaken`], or where the store fails.
    pub async fn add_key(
        &self,
        project: ProjectId,
        actor: Actor,
        name: &str,
        public_key: &str,
    ) -> Result<KeyRow, EngineError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !first || name.len() > KEY_NAME_MAX || !name.bytes().all(plain) {
            let what = format!("`{}` is not a name for a key", name.chars().take(80).collect::<String>());
            return Err(bad(what, "use 1 to 63 of a-z, 0-9 and . _ -").into());
        }
        let public_key = public_key.trim();
        let Some(fingerprint) =
            Some(public_key).filter(|key| key.len() <= KEY_MAX && is_ssh_key(key)).and_then(fingerprint)
        else {
            let hint = "paste one line of a .pub file, such as `ssh-ed25519 AAAA… name`";
            return Err(bad("this is not an SSH public key".to_owned(), hint).into());
        };
        if self.keys(project).await?.len() >= KEYS_MAX {
            return Err(ServerError::Full("keys").into());
        }
        let key = KeyRow {
            project,
            name: name.to_owned(),
            public_key: public_key.to_owned(),
            fingerprint,
            by: actor.name().to_owned(),
            created: now(),
        };
        let message = format!("key {name} ({}) added", key.fingerprint);
        let event =
            NewEvent::new(key.created, actor.name(), "key.added", Severity::Info, message).of(project);
        let row = key.clone();
        self.write_with(event, move |db| desk::insert_key(db, &row)).await?;
        Ok(key)
    }

    /// Forgets a key. Servers that have it keep it.
    ///
    /// # Errors
    /// [`ServerError::NoSuch`], or where the store fails.
    pub async fn remove_key(&self, project: ProjectId, actor: Actor, name: &str) -> Result<(), EngineError> {
        let key = self.key(project, name).await?;
        let message = format!("key {} ({}) removed", key.name, key.fingerprint);
        let event = NewEvent::new(now(), actor.name(), "key.removed", Severity::Info, message).of(project);
        self.write_with(event, move |db| desk::delete_key(db, project, &key.name).map(drop)).await
    }

    /// Somebody says that something is wrong with a server. Those who run the site see it among the faults.
    ///
    /// # Errors
    /// [`ServerError::NotFound`], [`ServerError::Bad`], [`ServerError::Full`], or where the store fails.
    pub async fn report_fault(
        &self,
        project: ProjectId,
        reference: &str,
        actor: Actor,
        words: &str,
    ) -> Result<FaultRow, EngineError> {
        let server = self.server(project, reference).await?;
        let words = words.trim();
        if words.is_empty() || words.len() > WORDS_MAX {
            return Err(bad(
                format!("a report has 1 to {WORDS_MAX} bytes"),
                "say what is wrong, in a few sentences",
            )
            .into());
        }
        let filter = FaultFilter { project: Some(project), open: true };
        if self.fault_reports(filter).await?.len() >= OPEN_MAX {
            return Err(ServerError::Full("open fault reports").into());
        }
        let fault = FaultRow {
            id: Uuid::now_v7(),
            project,
            server: server.id,
            node: server.node,
            at: now(),
            by: actor.name().to_owned(),
            words: words.to_owned(),
            closed: None,
            answer: None,
        };
        let one_line: String =
            words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        let event = line(&server, &actor, "fault.reported", Severity::Warning, &one_line, fault.at);
        let row = fault.clone();
        self.write_with(event, move |db| desk::insert_fault(db, &row)).await?;
        Ok(fault)
    }

    /// Fault reports, newest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn fault_reports(&self, filter: FaultFilter) -> Result<Vec<FaultRow>, EngineError> {
        let FaultFilter { project, open } = filter;
        Ok(self.store().read(move |db| desk::faults(db, project, open, LIST_MAX)).await?)
    }

    /// Closes a fault report, with what came of it.
    ///
    /// # Errors
    /// [`ServerError::NoSuch`], [`ServerError::Bad`], or where the store fails.
    pub async fn close_fault(&self, id: Uuid, actor: Actor, answer: &str) -> Result<FaultRow, EngineError> {
        let answer = answer.trim().to_owned();
        if answer.is_empty() || answer.len() > WORDS_MAX {
            return Err(bad(format!("an answer has 1 to {WORDS_MAX} bytes"), "say what was done").into());
        }
        let all = self.fault_reports(FaultFilter::default()).await?;
        let missing = || no_such("fault report", &id.to_string());
        let fault =
            all.into_iter().find(|fault| fault.id == id && fault.closed.is_none()).ok_or_else(missing)?;
        let at = now();
        let one_line: String =
            answer.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        let event = NewEvent::new(at, actor.name(), "fault.closed", Severity::Info, one_line)
            .on(fault.node)
            .of(fault.project);
        let text = answer.clone();
        self.write_with(event, move |db| desk::close_fault(db, id, &text, at).map(drop)).await?;
        Ok(FaultRow { closed: Some(at), answer: Some(answer), ..fault })
    }

    /// Does `work` and adds `event`, in one transaction.
    async fn write_with(
        &self,
        event: NewEvent,
        work: impl FnOnce(&crate::store::db::Connection) -> Result<(), crate::store::StoreError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let row = event.clone();
        let write = move |db: &_| {
            work(db)?;
            queries::insert_event(db, &row)
        };
        let id = self.store().write(write).await?;
        self.announce_event(id, event);
        Ok(())
    }
}

/// SHA-256 of a key as `ssh-keygen -l` prints it (RFC 4716 section 4 gives the octets; OpenSSH the form).
fn fingerprint(key: &str) -> Option<String> {
    let octets = STANDARD.decode(key.split_whitespace().nth(1)?).ok()?;
    Some(format!("SHA256:{}", STANDARD_NO_PAD.encode(sha2::Sha256::digest(octets))))
}
