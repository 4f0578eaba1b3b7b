//! Approvals: rows that are decided once. The request of each is sealed.

use boot_server_core::approval::{Approval, Status};
use protocol::{NodeId, ProjectId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, json, ms, parsed};

/// Which approvals, newest first.
#[derive(Debug, Clone, Default)]
pub struct ApprovalFilter {
    /// That stand so.
    pub status: Option<Status>,
    /// On this node.
    pub node: Option<NodeId>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Asked for before this.
    pub before: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

/// Keeps what somebody asked for.
///
/// # Errors
/// What the database says.
pub fn insert(db: &Connection, it: &Approval, sealed: &str) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO approvals (id, node, project, status, asked, expires, request, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            it.id.to_string(),
            it.node.map(|id| id.to_string()).unwrap_or_default(),
            it.project.map(|id| id.to_string()),
            it.status.as_str(),
            ms(it.asked),
            ms(it.expires),
            sealed,
            json("approvals", it)?
        ],
    )
    .map_err(StoreError::sql("keep a request for approval"))?;
    Ok(())
}

/// Replaces one that still stands as `before`.
///
/// # Errors
/// [`StoreError::Conflict`] where somebody decided meanwhile, or what the database says.
pub fn update(db: &Connection, it: &Approval, before: Status) -> Result<(), StoreError> {
    let changed = db
        .execute(
            "UPDATE approvals SET status = ?1, body = ?2 WHERE id = ?3 AND status = ?4",
            params![it.status.as_str(), json("approvals", it)?, it.id.to_string(), before.as_str()],
        )
        .map_err(StoreError::sql("change an approval"))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// One of them.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn one(db: &Connection, id: Uuid) -> Result<Option<Approval>, StoreError> {
    let body: Option<String> = db
        .query_row("SELECT body FROM approvals WHERE id = ?1", params![id.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read an approval"))?;
    body.map(|body| parsed("approvals", &body)).transpose()
}

/// The sealed request of one.
///
/// # Errors
/// What the database says.
pub fn request(db: &Connection, id: Uuid) -> Result<Option<String>, StoreError> {
    db.query_row("SELECT request FROM approvals WHERE id = ?1", params![id.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read the request of an approval"))
}

/// Approvals by filter.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn list(db: &Connection, filter: &ApprovalFilter) -> Result<Vec<Approval>, StoreError> {
    let sql = "SELECT body FROM approvals WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR node = ?2) \
               AND (?3 IS NULL OR project = ?3) AND asked < ?4 ORDER BY asked DESC, id DESC LIMIT ?5";
    let values = params![
        filter.status.map(Status::as_str),
        filter.node.map(|id| id.to_string()),
        filter.project.map(|id| id.to_string()),
        filter.before.map_or(i64::MAX, ms),
        i64::try_from(filter.limit).unwrap_or(i64::MAX)
    ];
    let rows = all(db, "list approvals", sql, values, |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("approvals", body)).collect()
}

/// Forgets those that were asked for before `before` and are over.
///
/// # Errors
/// What the database says.
pub fn forget(db: &Connection, before: Timestamp) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM approvals WHERE asked < ?1 AND status NOT IN ('waiting', 'approved', 'carrying')",
        params![ms(before)],
    )
    .map_err(StoreError::sql("forget approvals"))?;
    Ok(())
}
