//! The names behind which the database stands. Statements are written against these, not against a driver: numbered
//! parameters (`?1`), text, 64-bit integers and octets, and nothing that only one database has.

pub use rusqlite::{Connection, Error, OptionalExtension, Params, Result, Row, params};

/// Whether `cause` says that a value is taken which must be unique; `columns` as in `nodes.name`, or, where several
/// are unique together, `servers.project, servers.name`.
pub fn taken(cause: &Error, columns: &str) -> bool {
    matches!(cause, Error::SqliteFailure(code, Some(text))
        if code.code == rusqlite::ErrorCode::ConstraintViolation
            && text.strip_prefix("UNIQUE constraint failed: ").is_some_and(|found| found == columns))
}
