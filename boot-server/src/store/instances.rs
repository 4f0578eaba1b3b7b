//! The rows of what installed OSes may ask for.

use protocol::{NodeId, Sha256, Timestamp};

use super::StoreError;
use super::db::{Connection, OptionalExtension, Row, params};
use super::queries::{all, from_word, moment, ms};

/// One OS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// SHA-256 of the token in its URL.
    pub token: Sha256,
    /// SHA-256 of the token that it phones home with.
    pub phone_home: Sha256,
    /// The node it is for.
    pub node: NodeId,
    /// When its deploy was asked for.
    pub created: Timestamp,
    /// What it may know, sealed.
    pub sealed: String,
}

const COLUMNS: &str = "token, phone_home, node, created, sealed";

/// Adds an OS.
///
/// # Errors
/// What the database says.
pub fn insert(db: &Connection, row: &InstanceRow) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO instances (token, phone_home, node, created, sealed) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            row.token.to_string(),
            row.phone_home.to_string(),
            row.node.to_string(),
            ms(row.created),
            row.sealed
        ],
    )
    .map_err(StoreError::sql("store an instance"))?;
    Ok(())
}

/// Ends all OSes of a node but those that phone home with one of these tokens.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn keep(db: &Connection, node: NodeId, living: &[Sha256]) -> Result<(), StoreError> {
    for row in of_node(db, node)?.iter().filter(|row| !living.contains(&row.phone_home)) {
        db.post("DELETE FROM instances WHERE token = ?1", params![row.token.to_string()])
            .map_err(StoreError::sql("end an instance"))?;
    }
    Ok(())
}

/// The OS with this token.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn by_token(db: &Connection, token: Sha256) -> Result<Option<InstanceRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE token = ?1");
    db.query_row(&sql, params![token.to_string()], columns)
        .optional()
        .map_err(StoreError::sql("read an instance"))?
        .map(row)
        .transpose()
}

/// The OSes of a node, newest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn of_node(db: &Connection, node: NodeId) -> Result<Vec<InstanceRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE node = ?1 ORDER BY created DESC, token");
    let rows = all(db, "list instances", &sql, params![node.to_string()], columns)?;
    rows.into_iter().map(row).collect()
}

type Columns = (String, String, String, i64, String);

fn columns(row: &Row<'_>) -> super::db::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn row((token, phone_home, node, created, sealed): Columns) -> Result<InstanceRow, StoreError> {
    Ok(InstanceRow {
        token: from_word("instances", &token)?,
        phone_home: from_word("instances", &phone_home)?,
        node: from_word("instances", &node)?,
        created: moment(created),
        sealed,
    })
}
