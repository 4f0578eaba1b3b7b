//! The statements of DHCPv6 leases, as those of DHCPv4 in [`queries`](super::queries).

use boot_server_core::dhcp6::{ClientKey, Lease};
use protocol::Timestamp;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all as rows, bodies_of, json, ms, parsed, word};

/// Stores leases, each in place of the one of the same address.
///
/// # Errors
/// What the database says.
pub fn put(db: &Connection, leases: &[Lease]) -> Result<(), StoreError> {
    let mut statement = db
        .prepare_cached(
            "INSERT INTO leases6 (address, expires, body, client) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (address) DO UPDATE \
             SET expires = excluded.expires, body = excluded.body, client = excluded.client",
        )
        .map_err(StoreError::sql("store a DHCPv6 lease"))?;
    for lease in leases {
        statement
            .post(params![
                lease.ip.to_string(),
                ms(lease.expires),
                json("leases6", lease)?,
                word("leases6", &lease.client)?
            ])
            .map_err(StoreError::sql("store a DHCPv6 lease"))?;
    }
    Ok(())
}

/// All leases, also those that ended: an address is given to the same machine again.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn all(db: &Connection) -> Result<Vec<Lease>, StoreError> {
    let found =
        rows(db, "list DHCPv6 leases", "SELECT body FROM leases6", [], |row| row.get::<_, String>(0))?;
    found.iter().map(|body| parsed("leases6", body)).collect()
}

/// Leases of these clients, also those that ended, and any whose client is not in its column yet.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn of(db: &Connection, clients: &[ClientKey]) -> Result<Vec<Lease>, StoreError> {
    bodies_of(db, "leases6", clients)
}

/// How many leases last beyond `now`.
///
/// # Errors
/// What the database says.
pub fn count(db: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let count: i64 = db
        .query_row("SELECT COUNT(*) FROM leases6 WHERE expires > ?1", params![ms(now)], |row| row.get(0))
        .map_err(StoreError::sql("count DHCPv6 leases"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
