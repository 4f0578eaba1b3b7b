//! The rows of keys that sign images, and the floors of names.

use images::minisign::PublicKey;
use protocol::Timestamp;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, moment, ms};

/// What a key is to the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The site's own.
    Site,
    /// Somebody else's, whose images are taken too.
    Vendor,
    /// Was the site's, and named the one that followed it.
    Former,
    /// Was the site's, and nothing that it signed counts.
    Forgotten,
}

impl Role {
    /// As it is stored, and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Vendor => "vendor",
            Self::Former => "former",
            Self::Forgotten => "forgotten",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "site" => Self::Site,
            "vendor" => Self::Vendor,
            "former" => Self::Former,
            // A word of a later version is not trusted.
            _ => Self::Forgotten,
        }
    }
}

/// A key.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The key.
    pub key: PublicKey,
    /// What it is to the site.
    pub role: Role,
    /// For people.
    pub title: String,
    /// Since when it is known.
    pub added: Timestamp,
    /// When another took its place.
    pub ended: Option<Timestamp>,
    /// By which it named that one.
    pub statement: Option<String>,
}

/// The lowest number of a name that is taken from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// The key, as text.
    pub key: String,
    /// Name of images.
    pub name: String,
    /// The number.
    pub number: u64,
}

/// All keys, oldest first. What is no key is left out.
///
/// # Errors
/// What the database says.
pub fn keys(db: &Connection) -> Result<Vec<KeyRow>, StoreError> {
    let sql = "SELECT key, role, title, added, ended, statement FROM trusted_keys ORDER BY added, key";
    let rows = all(db, "list keys", sql, [], |row| {
        let (key, role): (String, String) = (row.get(0)?, row.get(1)?);
        let ended: Option<i64> = row.get(4)?;
        Ok((key, role, row.get(2)?, moment(row.get(3)?), ended.map(moment), row.get(5)?))
    })?;
    let rows = rows.into_iter().filter_map(|(key, role, title, added, ended, statement)| {
        let Ok(key) = key.parse() else {
            tracing::error!(key, "the database has a key that is none");
            return None;
        };
        Some(KeyRow { key, role: Role::of(&role), title, added, ended, statement })
    });
    Ok(rows.collect())
}

/// Stores a key, in the place of what was known of it.
///
/// # Errors
/// What the database says.
pub fn put_key(db: &Connection, row: &KeyRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO trusted_keys (key, role, title, added, ended, statement) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (key) DO UPDATE SET role = excluded.role, title = excluded.title, ended = excluded.ended, \
         statement = excluded.statement",
        params![
            row.key.to_string(),
            row.role.as_str(),
            row.title,
            ms(row.added),
            row.ended.map(ms),
            row.statement
        ],
    )
    .map_err(StoreError::sql("store a key"))?;
    Ok(())
}

/// Forgets a key; false where it was not known.
///
/// # Errors
/// What the database says.
pub fn delete_key(db: &Connection, key: &PublicKey) -> Result<bool, StoreError> {
    let gone = db
        .execute("DELETE FROM trusted_keys WHERE key = ?1", params![key.to_string()])
        .map_err(StoreError::sql("forget a key"))?;
    Ok(gone == 1)
}

/// All floors.
///
/// # Errors
/// What the database says.
pub fn floors(db: &Connection) -> Result<Vec<Floor>, StoreError> {
    let sql = "SELECT key, name, number FROM image_floors ORDER BY key, name";
    all(db, "list floors", sql, [], |row| {
        let number: i64 = row.get(2)?;
        Ok(Floor { key: row.get(0)?, name: row.get(1)?, number: u64::try_from(number).unwrap_or(0) })
    })
}

/// Raises a floor; none ever falls.
///
/// # Errors
/// What the database says.
pub fn raise(db: &Connection, floor: &Floor) -> Result<(), StoreError> {
    let number = i64::try_from(floor.number).unwrap_or(i64::MAX);
    db.execute(
        "INSERT INTO image_floors (key, name, number) VALUES (?1, ?2, ?3) ON CONFLICT (key, name) DO UPDATE SET \
         number = CASE WHEN excluded.number > image_floors.number THEN excluded.number ELSE image_floors.number END",
        params![floor.key, floor.name, number],
    )
    .map_err(StoreError::sql("store a floor"))?;
    Ok(())
}
