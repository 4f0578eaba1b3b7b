//! The rows of machines that are expected, and by what each is known when it boots.

use boot_server_core::arrivals::Arrival;

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, json, ms, parsed};

/// Adds machines that are expected.
///
/// # Errors
/// [`StoreError::NameTaken`] with what one of them has in common with one that is there, or what the database says.
pub fn insert(db: &Connection, arrivals: &[Arrival]) -> Result<(), StoreError> {
    for arrival in arrivals {
        let added = db
            .execute(
                "INSERT INTO expected_nodes (name, announced, body) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING",
                params![arrival.name, ms(arrival.announced), json("expected_nodes", arrival)?],
            )
            .map_err(StoreError::sql("store an expected machine"))?;
        if added == 0 {
            return Err(StoreError::NameTaken(arrival.name.clone()));
        }
        for key in arrival.keys() {
            let added = db
                .execute(
                    "INSERT INTO expected_keys (key, name) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING",
                    params![key, arrival.name],
                )
                .map_err(StoreError::sql("store an expected machine"))?;
            if added == 0 {
                return Err(StoreError::NameTaken(key));
            }
        }
    }
    Ok(())
}

/// Forgets an expected machine; false where there is none of this name.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, name: &str) -> Result<bool, StoreError> {
    db.execute("DELETE FROM expected_keys WHERE name = ?1", params![name])
        .map_err(StoreError::sql("forget an expected machine"))?;
    let gone = db
        .execute("DELETE FROM expected_nodes WHERE name = ?1", params![name])
        .map_err(StoreError::sql("forget an expected machine"))?;
    Ok(gone > 0)
}

/// All machines that are expected, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn arrivals(db: &Connection) -> Result<Vec<Arrival>, StoreError> {
    let sql = "SELECT body FROM expected_nodes ORDER BY name";
    let rows = all(db, "list expected machines", sql, [], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("expected_nodes", body)).collect()
}

/// The expected machines that are known by one of these keys, each once.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn known_by(db: &Connection, keys: &[String]) -> Result<Vec<Arrival>, StoreError> {
    let mut found: Vec<Arrival> = Vec::new();
    for key in keys {
        let body: Option<String> = db
            .query_row(
                "SELECT n.body FROM expected_keys k JOIN expected_nodes n ON n.name = k.name WHERE k.key = ?1",
                params![key],
                |row| row.get(0),
            )
            .optional()
            .map_err(StoreError::sql("look up an expected machine"))?;
        if let Some(body) = body {
            let arrival: Arrival = parsed("expected_nodes", &body)?;
            if found.iter().all(|known| known.name != arrival.name) {
                found.push(arrival);
            }
        }
    }
    Ok(found)
}
