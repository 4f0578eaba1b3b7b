//! Brings a database's schema up to date. Forward only: a database of a newer Billet is refused.

use std::borrow::Cow;

use super::StoreError;
use super::db::{self, Connection};

/// One file per schema version, from 1.
pub(super) const MIGRATIONS: &[&str] = &[
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
    include_str!("migrations/0015.sql"),
    include_str!("migrations/0016.sql"),
    include_str!("migrations/0017.sql"),
    include_str!("migrations/0018.sql"),
    include_str!("migrations/0019.sql"),
    include_str!("migrations/0022.sql"),
    include_str!("migrations/0023.sql"),
    include_str!("migrations/0024.sql"),
    include_str!("migrations/0025.sql"),
    include_str!("migrations/0026.sql"),
];

/// The number of the newest schema known here.
pub(super) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Applies what is missing, each in one transaction with its version number.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    migrate_to(connection, known())
}

fn migrate_to(connection: &Connection, wanted: i64) -> Result<(), StoreError> {
    let (found, known) = (version(connection)?, known());
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (version, sql) in (1_i64..=wanted).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        connection.begin().map_err(StoreError::sql("begin a migration"))?;
        let done = apply(connection, version, sql);
        connection.end_job(done.is_ok()).map_err(StoreError::sql("end a migration"))?;
        let committed = connection.commit().map_err(StoreError::sql("commit a migration"));
        done?;
        committed?;
        tracing::info!(version, "database schema migrated");
    }
    Ok(())
}

fn apply(connection: &Connection, version: i64, sql: &str) -> Result<(), StoreError> {
    let (sql, note) = if connection.is_postgres() {
        (Cow::Owned(db::schema(sql)), format!("UPDATE billet_schema SET version = {version}"))
    } else {
        // A pragma takes no parameters; the number is ours.
        (Cow::Borrowed(sql), format!("PRAGMA user_version = {version}"))
    };
    connection.execute_batch(&sql).map_err(StoreError::sql("migrate the schema"))?;
    connection.execute_batch(&note).map_err(StoreError::sql("note the schema version"))
}

/// The version of a database's schema; 0 where there is none yet.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    if connection.is_postgres() {
        connection.execute_batch(NUMBER).map_err(StoreError::sql("make a table"))?;
    }
    noted(connection)
}

/// As [`version`], of a database that has one and is only read.
pub(super) fn noted(connection: &Connection) -> Result<i64, StoreError> {
    let postgres = connection.is_postgres();
    let sql = if postgres { "SELECT version FROM billet_schema" } else { "PRAGMA user_version" };
    connection.query_row(sql, [], |row| row.get(0)).map_err(StoreError::sql("read the schema version"))
}

/// Where PostgreSQL keeps the number that SQLite has a pragma for.
const NUMBER: &str = "CREATE TABLE IF NOT EXISTS billet_schema (version BIGINT NOT NULL); \
    INSERT INTO billet_schema (version) SELECT 0 WHERE NOT EXISTS (SELECT * FROM billet_schema)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;
    use crate::store::{Location, Store};

    /// A database of every version that there ever was becomes one of today's, and what was in it is still there.
    #[test]
    fn every_schema_is_brought_up_to_date() {
        for version in 1..=known() {
            let scratch = Scratch::new();
            let location = Location::from(&scratch.database());
            let old = Store::connect(&location).unwrap();
            migrate_to(&old, version).unwrap();
            assert_eq!(super::version(&old).unwrap(), version);
            old.execute("INSERT INTO settings (name, value) VALUES ('kept', 'yes')", []).unwrap();
            old.close();
            Store::open(&location).unwrap().close();
            let new = Store::connect(&location).unwrap();
            assert_eq!(super::version(&new).unwrap(), known());
            let kept = "SELECT value FROM settings WHERE name = 'kept'";
            let kept: String = new.query_row(kept, [], |row| row.get(0)).unwrap();
            assert_eq!(kept, "yes", "from version {version}");
        }
    }
}
