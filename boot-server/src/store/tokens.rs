//! The rows of named tokens.

use boot_server_core::access::{Scope, Token};
use protocol::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, from_word, moment, ms, word};

/// Adds a token.
///
/// # Errors
/// [`StoreError::NameTaken`] where one that holds has the name, or what the database says.
pub fn insert(db: &Connection, token: &Token) -> Result<(), StoreError> {
    if tokens(db)?.iter().any(|t| t.name == token.name && t.scope == token.scope && t.holds(token.created)) {
        return Err(StoreError::NameTaken(token.name.clone()));
    }
    db.execute(
        "INSERT INTO tokens (id, name, sha256, role, created, expires, revoked, project, maker) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            token.id.to_string(),
            token.name,
            token.sha256.to_string(),
            word("tokens", &token.role)?,
            ms(token.created),
            token.expires.map(ms),
            token.revoked.map(ms),
            token.scope.project().map(|id| id.to_string()),
            token.maker.map(|id| id.to_string())
        ],
    )
    .map_err(StoreError::sql("store a token"))?;
    Ok(())
}

/// Ends a token; one that was ended keeps its moment.
///
/// # Errors
/// What the database says.
pub fn revoke(db: &Connection, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
    db.execute(
        "UPDATE tokens SET revoked = ?1 WHERE id = ?2 AND revoked IS NULL",
        params![ms(at), id.to_string()],
    )
    .map_err(StoreError::sql("revoke a token"))?;
    Ok(())
}

/// Forgets tokens that ended before `before`; their names stay in the event list.
///
/// # Errors
/// What the database says.
pub fn forget(db: &Connection, before: Timestamp) -> Result<(), StoreError> {
    db.execute("DELETE FROM tokens WHERE revoked < ?1 OR expires < ?1", params![ms(before)])
        .map_err(StoreError::sql("forget tokens"))?;
    Ok(())
}

/// All tokens, newest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn tokens(db: &Connection) -> Result<Vec<Token>, StoreError> {
    let sql = "SELECT id, name, sha256, role, created, expires, revoked, project, maker FROM tokens \
               ORDER BY created DESC, id";
    let rows = all(db, "list tokens", sql, [], |row| {
        let texts: (String, String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let moments: (i64, Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?, row.get(6)?);
        let whose: (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
        Ok((texts, moments, whose))
    })?;
    rows.into_iter()
        .map(|((id, name, sha256, role), (created, expires, revoked), (project, maker))| {
            let project = project.map(|id| from_word("tokens", &id)).transpose()?;
            Ok(Token {
                scope: project.map_or(Scope::Site, Scope::Project),
                maker: maker.map(|id| from_word("tokens", &id)).transpose()?,
                id: from_word("tokens", &id)?,
                name,
                sha256: from_word("tokens", &sha256)?,
                role: from_word("tokens", &role)?,
                created: moment(created),
                expires: expires.map(moment),
                revoked: revoked.map(moment),
            })
        })
        .collect()
}
