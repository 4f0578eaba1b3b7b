//! The rows of baselines.

use boot_server_core::servicing::Baseline;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, json, ms, parsed};

/// Adds a baseline; `replace`: in place of the one of its name.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn put(db: &Connection, baseline: &Baseline, replace: bool) -> Result<(), StoreError> {
    if !replace && baselines(db)?.iter().any(|b| b.name == baseline.name) {
        return Err(StoreError::NameTaken(baseline.name.clone()));
    }
    db.execute(
        "INSERT INTO baselines (name, changed, body) VALUES (?1, ?2, ?3) \
         ON CONFLICT (name) DO UPDATE SET changed = excluded.changed, body = excluded.body",
        params![baseline.name, ms(baseline.changed), json("baselines", baseline)?],
    )
    .map_err(StoreError::sql("store a baseline"))?;
    Ok(())
}

/// Removes a baseline; false where there is none of this name.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, name: &str) -> Result<bool, StoreError> {
    let gone = db
        .execute("DELETE FROM baselines WHERE name = ?1", params![name])
        .map_err(StoreError::sql("remove a baseline"))?;
    Ok(gone > 0)
}

/// All baselines, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn baselines(db: &Connection) -> Result<Vec<Baseline>, StoreError> {
    let sql = "SELECT body FROM baselines ORDER BY name";
    let rows = all(db, "list baselines", sql, [], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("baselines", body)).collect()
}
