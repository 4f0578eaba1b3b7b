//! The rows of consoles that were configured.

use boot_server_core::console::ConsoleSource;
use protocol::NodeId;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, from_word, json, parsed};
use crate::view::Configured;

/// All of them.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn consoles(db: &Connection) -> Result<Vec<Configured>, StoreError> {
    let rows = all(db, "list consoles", "SELECT node, body FROM consoles ORDER BY node", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.into_iter()
        .map(|(node, body)| Ok((from_word("consoles", &node)?, parsed("consoles", &body)?)))
        .collect()
}

/// Says where a node's console is; `None` makes it what every node has.
///
/// # Errors
/// What the database says.
pub fn set(db: &Connection, node: NodeId, source: Option<&ConsoleSource>) -> Result<(), StoreError> {
    match source {
        Some(source) => db.execute(
            "INSERT INTO consoles (node, body) VALUES (?1, ?2) \
             ON CONFLICT (node) DO UPDATE SET body = excluded.body",
            params![node.to_string(), json("consoles", source)?],
        ),
        None => db.execute("DELETE FROM consoles WHERE node = ?1", params![node.to_string()]),
    }
    .map_err(StoreError::sql("store a console"))?;
    Ok(())
}
