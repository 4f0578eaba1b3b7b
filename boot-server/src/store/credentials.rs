//! The rows of what proves who a user is, and of their sessions.

use protocol::{Sha256, Timestamp, UserId};
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, from_word, json, moment, ms, parsed};

/// What proves who a user is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Argon2id, as a PHC string.
    pub password: Option<String>,
    /// Key of the second factor, sealed.
    pub totp: Option<String>,
    /// The last step whose code was used.
    pub totp_step: Option<u64>,
    /// Recovery codes that were not used.
    pub recovery: Vec<Sha256>,
}

/// A session that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Names it.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// SHA-256 of its secret.
    pub sha256: Sha256,
    /// When it began.
    pub created: Timestamp,
    /// It ends by itself then.
    pub expires: Timestamp,
    /// The address it began at.
    pub source: String,
    /// What the browser or program calls itself.
    pub agent: String,
}

/// All credentials, by user.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn credentials(db: &Connection) -> Result<Vec<(UserId, Credentials)>, StoreError> {
    let sql = "SELECT user_id, password, totp, totp_step, recovery FROM credentials";
    let rows = all(db, "list credentials", sql, [], |row| {
        let texts: (String, Option<String>, Option<String>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(4)?);
        Ok((texts, row.get::<_, Option<i64>>(3)?))
    })?;
    rows.into_iter()
        .map(|((user, password, totp, recovery), step)| {
            let totp_step = step.and_then(|step| u64::try_from(step).ok());
            let recovery = parsed("credentials", &recovery)?;
            Ok((from_word("credentials", &user)?, Credentials { password, totp, totp_step, recovery }))
        })
        .collect()
}

/// Stores the credentials of a user in place of those before.
///
/// # Errors
/// What the database says.
pub fn put_credentials(db: &Connection, user: UserId, it: &Credentials) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO credentials (user_id, password, totp, totp_step, recovery) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (user_id) DO UPDATE SET password = excluded.password, totp = excluded.totp, \
         totp_step = excluded.totp_step, recovery = excluded.recovery",
        params![
            user.to_string(),
            it.password,
            it.totp,
            it.totp_step.and_then(|step| i64::try_from(step).ok()),
            json("credentials", &it.recovery)?
        ],
    )
    .map_err(StoreError::sql("store credentials"))?;
    Ok(())
}

/// All sessions that have not ended by themselves.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn sessions(db: &Connection, now: Timestamp) -> Result<Vec<Session>, StoreError> {
    let sql = "SELECT id, user_id, sha256, created, expires, source, agent FROM sessions WHERE expires > ?1";
    let rows = all(db, "list sessions", sql, params![ms(now)], |row| {
        let texts: (String, String, String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(5)?, row.get(6)?);
        let moments: (i64, i64) = (row.get(3)?, row.get(4)?);
        Ok((texts, moments))
    })?;
    rows.into_iter()
        .map(|((id, user, sha256, source, agent), (created, expires))| {
            Ok(Session {
                id: from_word("sessions", &id)?,
                user: from_word("sessions", &user)?,
                sha256: from_word("sessions", &sha256)?,
                created: moment(created),
                expires: moment(expires),
                source,
                agent,
            })
        })
        .collect()
}

/// Adds a session, and forgets those that ended by themselves.
///
/// # Errors
/// What the database says.
pub fn insert_session(db: &Connection, it: &Session) -> Result<(), StoreError> {
    db.execute("DELETE FROM sessions WHERE expires <= ?1", params![ms(it.created)])
        .map_err(StoreError::sql("forget sessions"))?;
    db.execute(
        "INSERT INTO sessions (id, user_id, sha256, created, expires, source, agent) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            it.id.to_string(),
            it.user.to_string(),
            it.sha256.to_string(),
            ms(it.created),
            ms(it.expires),
            it.source,
            it.agent
        ],
    )
    .map_err(StoreError::sql("store a session"))?;
    Ok(())
}

/// Ends a session.
///
/// # Errors
/// What the database says.
pub fn delete_session(db: &Connection, id: Uuid) -> Result<(), StoreError> {
    db.execute("DELETE FROM sessions WHERE id = ?1", params![id.to_string()])
        .map_err(StoreError::sql("end a session"))?;
    Ok(())
}

/// Who is bound to this subject of an OpenID provider.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn identity(db: &Connection, issuer: &str, subject: &str) -> Result<Option<UserId>, StoreError> {
    let sql = "SELECT user_id FROM identities WHERE issuer = ?1 AND subject = ?2";
    let row: Option<String> = db
        .query_row(sql, params![issuer, subject], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("look for an identity"))?;
    row.map(|id| from_word("identities", &id)).transpose()
}

/// Binds a user to a subject of an OpenID provider. A subject that is bound stays with its user.
///
/// # Errors
/// What the database says.
pub fn insert_identity(db: &Connection, issuer: &str, subject: &str, user: UserId) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO identities (issuer, subject, user_id) VALUES (?1, ?2, ?3)",
        params![issuer, subject, user.to_string()],
    )
    .map_err(StoreError::sql("store an identity"))?;
    Ok(())
}
