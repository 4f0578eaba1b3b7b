//! The rows of pools, flavors and of what machines are in facts.

use boot_server_core::flavor::Flavor;
use boot_server_core::hardware::Hardware;
use boot_server_core::pool::Pool;
use protocol::inventory::Inventory;
use protocol::{NodeId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::db::{self, Connection, params};
use super::queries::{self, all, from_word, json, moment, ms, parsed};

/// In which way facts are drawn from an inventory; one more wherever [`Hardware::of`] says more than before.
const FORM: i64 = 1;

/// A row with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<T> {
    /// What is kept.
    pub value: T,
    /// Grows by one with every change.
    pub version: i64,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// Something that is kept by its name.
pub trait Named: Serialize + DeserializeOwned {
    /// Its table.
    const TABLE: &'static str;
    /// The same as a key.
    const KEY: &'static str;
    /// Its name.
    fn name(&self) -> &str;
}

impl Named for Pool {
    const TABLE: &'static str = "pools";
    const KEY: &'static str = "pools.name";

    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Flavor {
    const TABLE: &'static str = "flavors";
    const KEY: &'static str = "flavors.name";

    fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// Adds a pool or flavor with version 1.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert<T: Named>(db: &Connection, value: &T, at: Timestamp) -> Result<(), StoreError> {
    let sql = format!("INSERT INTO {} (name, version, changed, body) VALUES (?1, 1, ?2, ?3)", T::TABLE);
    db.execute(&sql, params![value.name(), ms(at), json(T::TABLE, value)?]).map_err(|cause| {
        if db::taken(&cause, T::KEY) {
            StoreError::NameTaken(value.name().to_owned())
        } else {
            StoreError::Database { action: "store a pool or flavor", cause }
        }
    })?;
    Ok(())
}

/// Replaces a pool or flavor whose row still has `version`.
///
/// # Errors
/// [`StoreError::Conflict`], or what the database says.
pub fn update<T: Named>(db: &Connection, value: &T, version: i64, at: Timestamp) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE {} SET version = version + 1, changed = ?1, body = ?2 WHERE name = ?3 AND version = ?4",
        T::TABLE
    );
    let changed = db
        .execute(&sql, params![ms(at), json(T::TABLE, value)?, value.name(), version])
        .map_err(StoreError::sql("change a pool or flavor"))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Removes a pool or flavor.
///
/// # Errors
/// [`StoreError::Conflict`] where it is gone already, or what the database says.
pub fn remove<T: Named>(db: &Connection, name: &str) -> Result<(), StoreError> {
    let gone = db
        .execute(&format!("DELETE FROM {} WHERE name = ?1", T::TABLE), params![name])
        .map_err(StoreError::sql("remove a pool or flavor"))?;
    if gone == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// All pools or flavors, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn kept<T: Named>(db: &Connection) -> Result<Vec<Kept<T>>, StoreError> {
    let sql = format!("SELECT body, version, changed FROM {} ORDER BY name", T::TABLE);
    let rows = all(db, "list pools or flavors", &sql, params![], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    rows.into_iter()
        .map(|(body, version, changed)| {
            Ok(Kept { value: parsed(T::TABLE, &body)?, version, changed: moment(changed) })
        })
        .collect()
}

/// Stores what a machine is in facts, beside its inventory.
///
/// # Errors
/// What the database says.
pub fn put_hardware(db: &Connection, node: NodeId, hardware: &Hardware) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO hardware (node, form, body) VALUES (?1, ?2, ?3) \
         ON CONFLICT (node) DO UPDATE SET form = excluded.form, body = excluded.body",
        params![node.to_string(), FORM, json("hardware", hardware)?],
    )
    .map_err(StoreError::sql("store what a machine is"))?;
    Ok(())
}

/// What each machine is.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn hardware(db: &Connection) -> Result<Vec<(NodeId, Hardware)>, StoreError> {
    let sql = "SELECT node, body FROM hardware WHERE form = ?1";
    let rows = all(db, "list what machines are", sql, params![FORM], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.into_iter()
        .map(|(node, body)| Ok((from_word("hardware", &node)?, parsed("hardware", &body)?)))
        .collect()
}

/// Machines with an inventory from which no facts were drawn, or in an older way.
///
/// # Errors
/// What the database says.
pub fn undrawn(db: &Connection) -> Result<Vec<NodeId>, StoreError> {
    let sql = "SELECT i.node FROM inventories i LEFT JOIN hardware h ON h.node = i.node AND h.form = ?1 \
               WHERE h.node IS NULL";
    let rows = all(db, "list machines without facts", sql, params![FORM], |row| row.get::<_, String>(0))?;
    rows.iter().map(|node| from_word("inventories", node)).collect()
}

/// Draws the facts of a machine from its stored inventory. An inventory that cannot be read has none.
///
/// # Errors
/// What the database says.
pub fn draw(db: &Connection, node: NodeId) -> Result<(), StoreError> {
    let inventory: Option<Inventory> = queries::inventory(db, node).unwrap_or_default();
    put_hardware(db, node, &inventory.as_ref().map(Hardware::of).unwrap_or_default())
}
