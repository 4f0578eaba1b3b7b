//! Management controllers: what is stored of them.

use bmc::{DriverKind, PowerState};
use protocol::{NodeId, Timestamp};

use super::StoreError;
use super::db::{self, Connection, Row, params};
use super::queries::{all, from_word, json, moment, ms, parsed, word};
use crate::power::Options;

/// The controller of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct BmcRow {
    /// Whose.
    pub node: NodeId,
    /// How it is spoken to.
    pub driver: DriverKind,
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// User name.
    pub user: Option<String>,
    /// Sealed password.
    pub password: Option<String>,
    /// Sealed password that is being set: after a crash either may be in force.
    pub next_password: Option<String>,
    /// SHA-256 of the certificate that is pinned.
    pub certificate: Option<String>,
    /// Fingerprint of the SSH key that is pinned.
    pub host_key: Option<String>,
    /// Sealed K_g of IPMI.
    pub kg: Option<String>,
    /// What the driver is told.
    pub options: Options,
    /// When a person last changed it.
    pub changed: Timestamp,
    /// What was last known of it.
    pub seen: Seen,
    /// When the controller itself was last restarted.
    pub reset_at: Option<Timestamp>,
}

/// What was last known of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Power as it was last read.
    pub power: Option<PowerState>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Calls in a row that failed.
    pub failures: u32,
    /// The last failure in words.
    pub error: Option<String>,
}

/// Longest text of an error that is kept, in characters.
const ERROR_MAX: usize = 500;

struct Texts {
    node: String,
    driver: String,
    options: String,
    power: Option<String>,
}

fn row(row: &Row<'_>) -> db::Result<(Texts, BmcRow)> {
    let texts = Texts { node: row.get(0)?, driver: row.get(1)?, options: row.get(8)?, power: row.get(10)? };
    let bmc = BmcRow {
        node: NodeId(uuid::Uuid::nil()),
        driver: DriverKind::Manual,
        address: row.get(2)?,
        port: row.get(3)?,
        user: row.get(4)?,
        password: row.get(5)?,
        next_password: row.get(6)?,
        certificate: row.get(7)?,
        host_key: row.get(15)?,
        kg: row.get(16)?,
        options: Options::default(),
        changed: moment(row.get(9)?),
        seen: Seen {
            power: None,
            last_seen: row.get::<_, Option<i64>>(11)?.map(moment),
            failures: row.get(12)?,
            error: row.get(13)?,
        },
        reset_at: row.get::<_, Option<i64>>(14)?.map(moment),
    };
    Ok((texts, bmc))
}

/// All controllers, by node.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn bmcs(db: &Connection) -> Result<Vec<BmcRow>, StoreError> {
    let sql = "SELECT node, driver, address, port, account, password, next_password, certificate, options, changed, \
               power, last_seen, failures, error, reset_at, host_key, kg FROM bmcs ORDER BY node";
    let rows = all(db, "list BMCs", sql, [], row)?;
    let whole = |(texts, bmc): (Texts, BmcRow)| {
        let power = texts.power.map(|power| from_word("bmcs", &power)).transpose()?;
        Ok(BmcRow {
            node: from_word("bmcs", &texts.node)?,
            driver: from_word("bmcs", &texts.driver)?,
            options: parsed("bmcs", &texts.options)?,
            seen: Seen { power, ..bmc.seen },
            ..bmc
        })
    };
    rows.into_iter().map(whole).collect()
}

/// Stores a controller in place of the one that the node had.
///
/// # Errors
/// What the database says, such as where the node is gone.
pub fn put(db: &Connection, bmc: &BmcRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO bmcs (node, driver, address, port, account, password, next_password, certificate, options, \
         changed, power, last_seen, failures, error, reset_at, host_key, kg) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         ON CONFLICT (node) DO UPDATE SET driver = excluded.driver, address = excluded.address, \
         port = excluded.port, account = excluded.account, password = excluded.password, \
         next_password = excluded.next_password, certificate = excluded.certificate, options = excluded.options, \
         changed = excluded.changed, power = excluded.power, last_seen = excluded.last_seen, \
         failures = excluded.failures, error = excluded.error, reset_at = excluded.reset_at, \
         host_key = excluded.host_key, kg = excluded.kg",
        params![
            bmc.node.to_string(),
            bmc.driver.as_str(),
            bmc.address,
            bmc.port,
            bmc.user,
            bmc.password,
            bmc.next_password,
            bmc.certificate,
            json("bmcs", &bmc.options)?,
            ms(bmc.changed),
            bmc.seen.power.map(|power| word("bmcs", &power)).transpose()?,
            bmc.seen.last_seen.map(ms),
            bmc.seen.failures,
            bmc.seen.error.as_deref().map(cut),
            bmc.reset_at.map(ms),
            bmc.host_key,
            bmc.kg,
        ],
    )
    .map_err(StoreError::sql("store a BMC"))?;
    Ok(())
}

/// Notes what is known of a controller now. One that is gone is no error.
///
/// # Errors
/// What the database says.
pub fn note_seen(db: &Connection, node: NodeId, seen: &Seen) -> Result<(), StoreError> {
    db.execute(
        "UPDATE bmcs SET power = ?2, last_seen = ?3, failures = ?4, error = ?5 WHERE node = ?1",
        params![
            node.to_string(),
            seen.power.map(|power| word("bmcs", &power)).transpose()?,
            seen.last_seen.map(ms),
            seen.failures,
            seen.error.as_deref().map(cut),
        ],
    )
    .map_err(StoreError::sql("note the state of a BMC"))?;
    Ok(())
}

/// Notes that a controller is being restarted.
///
/// # Errors
/// What the database says.
pub fn note_reset(db: &Connection, node: NodeId, at: Timestamp) -> Result<(), StoreError> {
    db.execute("UPDATE bmcs SET reset_at = ?2 WHERE node = ?1", params![node.to_string(), ms(at)])
        .map_err(StoreError::sql("note the restart of a BMC"))?;
    Ok(())
}

/// Pins a certificate, where none is pinned yet.
///
/// # Errors
/// What the database says.
pub fn pin(db: &Connection, node: NodeId, certificate: &str) -> Result<(), StoreError> {
    db.execute(
        "UPDATE bmcs SET certificate = ?2 WHERE node = ?1 AND certificate IS NULL",
        params![node.to_string(), certificate],
    )
    .map_err(StoreError::sql("pin a certificate"))?;
    Ok(())
}

/// Pins an SSH key, where none is pinned yet.
///
/// # Errors
/// What the database says.
pub fn pin_host_key(db: &Connection, node: NodeId, key: &str) -> Result<(), StoreError> {
    db.execute(
        "UPDATE bmcs SET host_key = ?2 WHERE node = ?1 AND host_key IS NULL",
        params![node.to_string(), key],
    )
    .map_err(StoreError::sql("pin an SSH key"))?;
    Ok(())
}

/// Forgets a controller; false where there was none.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, node: NodeId) -> Result<bool, StoreError> {
    let gone = db
        .execute("DELETE FROM bmcs WHERE node = ?1", params![node.to_string()])
        .map_err(StoreError::sql("forget a BMC"))?;
    Ok(gone == 1)
}

fn cut(text: &str) -> String {
    text.chars().take(ERROR_MAX).collect()
}
