//! The statements of DHCPv6 leases, as those of DHCPv4 in [`queries`](super::queries).

use boot_server_core::dhcp6::Lease;
use protocol::Timestamp;

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all as rows, json, ms, parsed};

/// Stores leases, each in place of the one of the same address.
///
/// # Errors
/// What the database says.
pub fn put(db: &Connection, leases: &[Lease]) -> Result<(), StoreError> {
    let mut statement = db
        .prepare_cached(
            "INSERT INTO leases6 (address, expires, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT (address) DO UPDATE SET expires = excluded.expires, body = excluded.body",
        )
        .map_err(StoreError::sql("store a DHCPv6 lease"))?;
    for lease in leases {
        statement
            .execute(params![lease.ip.to_string(), ms(lease.expires), json("leases6", lease)?])
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
