//! Brings a database's schema up to date. Forward only: a database of a newer Billet is refused.

use rusqlite::Connection;

use super::StoreError;

/// One file per schema version, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
    include_str!("migrations/0009.sql"),
    include_str!("migrations/0010.sql"),
    include_str!("migrations/0011.sql"),
    include_str!("migrations/0012.sql"),
    include_str!("migrations/0013.sql"),
    include_str!("migrations/0014.sql"),
];

/// Applies what is missing, each in one transaction with its version number.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(StoreError::sql("read the schema version"))?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let tx = connection.transaction().map_err(StoreError::sql("begin a migration"))?;
        tx.execute_batch(sql).map_err(StoreError::sql("migrate the schema"))?;
        // A pragma takes no parameters; the number is ours.
        tx.execute_batch(&format!("PRAGMA user_version = {version}"))
            .map_err(StoreError::sql("note the schema version"))?;
        tx.commit().map_err(StoreError::sql("commit a migration"))?;
        tracing::info!(version, "database schema migrated");
    }
    Ok(())
}
