//! Accounts that agents are to make on management controllers, until the controller is registered with them.

use protocol::{NodeId, Timestamp};

use super::StoreError;
use super::db::{Connection, params};
use super::queries::{all, from_word, moment, ms};

/// An account on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Whose controller.
    pub node: NodeId,
    /// User name.
    pub user: String,
    /// Sealed password.
    pub password: String,
    /// Where the controller is, once the agent made the account.
    pub address: Option<String>,
    /// When the password was made.
    pub ordered: Timestamp,
}

/// All of them.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn accounts(db: &Connection) -> Result<Vec<AccountRow>, StoreError> {
    let sql = "SELECT node, account, password, address, ordered FROM bmc_accounts ORDER BY node";
    let rows = all(db, "list accounts of BMCs", sql, [], |row| {
        let rest: (String, String, Option<String>, i64) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok((row.get::<_, String>(0)?, rest))
    })?;
    rows.into_iter()
        .map(|(node, (user, password, address, ordered))| {
            let node = from_word("bmc_accounts", &node)?;
            Ok(AccountRow { node, user, password, address, ordered: moment(ordered) })
        })
        .collect()
}

/// The one of this node.
///
/// # Errors
/// As [`accounts`].
pub fn account(db: &Connection, node: NodeId) -> Result<Option<AccountRow>, StoreError> {
    Ok(accounts(db)?.into_iter().find(|row| row.node == node))
}

/// Stores one, in place of the one that the node had.
///
/// # Errors
/// What the database says, such as where the node is gone.
pub fn put(db: &Connection, row: &AccountRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO bmc_accounts (node, account, password, address, ordered) \
         VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (node) DO UPDATE SET account = excluded.account, password = excluded.password, \
         address = excluded.address, ordered = excluded.ordered",
        params![row.node.to_string(), row.user, row.password, row.address, ms(row.ordered)],
    )
    .map_err(StoreError::sql("store an account of a BMC"))?;
    Ok(())
}

/// Forgets one. One that is gone is no error.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, node: NodeId) -> Result<(), StoreError> {
    db.execute("DELETE FROM bmc_accounts WHERE node = ?1", params![node.to_string()])
        .map_err(StoreError::sql("forget an account of a BMC"))?;
    Ok(())
}
