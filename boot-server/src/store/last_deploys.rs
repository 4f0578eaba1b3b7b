//! The newest deploy of each node as it was asked for, sealed: keys, user data and password hashes are in it. A machine that
//! takes the part of another one is deployed by it.

use protocol::{NodeId, Timestamp};

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::ms;

/// Keeps a node's newest deploy in place of the one before.
///
/// # Errors
/// What the database says.
pub fn put(db: &Connection, node: NodeId, at: Timestamp, sealed: &str) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO last_deploys (node, at, body) VALUES (?1, ?2, ?3) \
         ON CONFLICT (node) DO UPDATE SET at = excluded.at, body = excluded.body",
        params![node.to_string(), ms(at), sealed],
    )
    .map_err(StoreError::sql("store a deploy"))?;
    Ok(())
}

/// A node's newest deploy, sealed.
///
/// # Errors
/// What the database says.
pub fn of(db: &Connection, node: NodeId) -> Result<Option<String>, StoreError> {
    db.query_row("SELECT body FROM last_deploys WHERE node = ?1", params![node.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read a deploy"))
}

/// Forgets a node's newest deploy.
///
/// # Errors
/// What the database says.
pub fn forget(db: &Connection, node: NodeId) -> Result<(), StoreError> {
    db.execute("DELETE FROM last_deploys WHERE node = ?1", params![node.to_string()])
        .map_err(StoreError::sql("forget a deploy"))?;
    Ok(())
}
