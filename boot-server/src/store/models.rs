//! The rows of models: expected hardware.

use boot_server_core::expected::Model;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, json, ms, parsed};

/// Adds a model; `replace`: in place of the one of its name.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn put(db: &Connection, model: &Model, replace: bool) -> Result<(), StoreError> {
    let sql = if replace {
        "INSERT INTO models (name, changed, body) VALUES (?1, ?2, ?3) \
         ON CONFLICT (name) DO UPDATE SET changed = excluded.changed, body = excluded.body"
    } else {
        "INSERT INTO models (name, changed, body) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING"
    };
    let added = db
        .execute(sql, params![model.name, ms(model.changed), json("models", model)?])
        .map_err(StoreError::sql("store a model"))?;
    if added == 1 { Ok(()) } else { Err(StoreError::NameTaken(model.name.clone())) }
}

/// Removes a model; false where there is none of this name.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, name: &str) -> Result<bool, StoreError> {
    let gone = db
        .execute("DELETE FROM models WHERE name = ?1", params![name])
        .map_err(StoreError::sql("remove a model"))?;
    Ok(gone > 0)
}

/// All models, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn models(db: &Connection) -> Result<Vec<Model>, StoreError> {
    let sql = "SELECT body FROM models ORDER BY name";
    let rows = all(db, "list models", sql, [], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("models", body)).collect()
}
