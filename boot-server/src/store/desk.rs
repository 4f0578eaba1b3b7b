//! What projects keep beside their servers: SSH keys by name, and the faults that their people report.

use protocol::{NodeId, ProjectId, ServerId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, from_word, moment, ms};

/// A public key that a project's servers can be given by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Whose.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// As in `authorized_keys`.
    pub public_key: String,
    /// SHA-256 of it, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Who put it there.
    pub by: String,
    /// When.
    pub created: Timestamp,
}

/// What somebody says is wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRow {
    /// Names it.
    pub id: Uuid,
    /// Whose server.
    pub project: ProjectId,
    /// The server.
    pub server: ServerId,
    /// Its machine then.
    pub node: NodeId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// In their words.
    pub words: String,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// What came of it.
    pub answer: Option<String>,
}

/// Adds a key.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert_key(db: &Connection, key: &KeyRow) -> Result<(), StoreError> {
    let added = db
        .execute(
            "INSERT INTO project_keys (project, name, public_key, fingerprint, actor, created) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            params![
                key.project.to_string(),
                key.name,
                key.public_key,
                key.fingerprint,
                key.by,
                ms(key.created)
            ],
        )
        .map_err(StoreError::sql("store a key"))?;
    if added == 1 { Ok(()) } else { Err(StoreError::NameTaken(key.name.clone())) }
}

/// Forgets a key; false where there is none of this name.
///
/// # Errors
/// What the database says.
pub fn delete_key(db: &Connection, project: ProjectId, name: &str) -> Result<bool, StoreError> {
    let gone = db
        .execute(
            "DELETE FROM project_keys WHERE project = ?1 AND name = ?2",
            params![project.to_string(), name],
        )
        .map_err(StoreError::sql("forget a key"))?;
    Ok(gone == 1)
}

/// The keys of a project, by name.
///
/// # Errors
/// What the database says.
pub fn keys(db: &Connection, project: ProjectId) -> Result<Vec<KeyRow>, StoreError> {
    let sql = "SELECT name, public_key, fingerprint, actor, created FROM project_keys WHERE project = ?1 ORDER BY name";
    all(db, "list keys", sql, params![project.to_string()], |row| {
        Ok(KeyRow {
            project,
            name: row.get(0)?,
            public_key: row.get(1)?,
            fingerprint: row.get(2)?,
            by: row.get(3)?,
            created: moment(row.get(4)?),
        })
    })
}

/// Adds a report.
///
/// # Errors
/// What the database says.
pub fn insert_fault(db: &Connection, fault: &FaultRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO fault_reports (id, project, server, node, at, actor, words, closed, answer) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, NULL)",
        params![
            fault.id.to_string(),
            fault.project.to_string(),
            fault.server.to_string(),
            fault.node.to_string(),
            ms(fault.at),
            fault.by,
            fault.words
        ],
    )
    .map_err(StoreError::sql("store a fault report"))?;
    Ok(())
}

/// Closes a report; false where there is none that is open.
///
/// # Errors
/// What the database says.
pub fn close_fault(db: &Connection, id: Uuid, answer: &str, at: Timestamp) -> Result<bool, StoreError> {
    let closed = db
        .execute(
            "UPDATE fault_reports SET closed = ?1, answer = ?2 WHERE id = ?3 AND closed IS NULL",
            params![ms(at), answer, id.to_string()],
        )
        .map_err(StoreError::sql("close a fault report"))?;
    Ok(closed == 1)
}

/// Reports, newest first: of one project or of all, the open ones or all.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn faults(
    db: &Connection,
    project: Option<ProjectId>,
    open: bool,
    limit: usize,
) -> Result<Vec<FaultRow>, StoreError> {
    const TABLE: &str = "fault_reports";
    let sql = "SELECT id, project, server, node, actor, words, at, closed, answer FROM fault_reports \
               WHERE (?1 = '' OR project = ?1) AND (?2 = 0 OR closed IS NULL) ORDER BY at DESC, id DESC LIMIT ?3";
    let of = project.map(|project| project.to_string()).unwrap_or_default();
    let values = params![of, i64::from(open), i64::try_from(limit).unwrap_or(i64::MAX)];
    let rows = all(db, "list fault reports", sql, values, |row| {
        let texts: [String; 6] =
            [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
        Ok((texts, row.get::<_, i64>(6)?, row.get::<_, Option<i64>>(7)?, row.get::<_, Option<String>>(8)?))
    })?;
    rows.into_iter()
        .map(|([id, project, server, node, by, words], at, closed, answer)| {
            Ok(FaultRow {
                id: from_word(TABLE, &id)?,
                project: from_word(TABLE, &project)?,
                server: from_word(TABLE, &server)?,
                node: from_word(TABLE, &node)?,
                at: moment(at),
                by,
                words,
                closed: closed.map(moment),
                answer,
            })
        })
        .collect()
}
