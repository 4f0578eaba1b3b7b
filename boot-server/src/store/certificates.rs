//! What is certified of disks that were to be erased. Rows are only added; nothing removes one.

use boot_server_core::certificate::Certificate;
use protocol::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, Row, params};
use super::queries::{all, moment, ms};

/// A certificate as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Names it.
    pub id: String,
    /// When it was issued.
    pub issued: Timestamp,
    /// The machine's name then.
    pub node_name: String,
    /// The text that was signed, to the octet.
    pub body: String,
    /// The signature's file in minisign's form; `None` where no key could be had.
    pub signature: Option<String>,
}

/// Which ones.
#[derive(Debug, Clone, Default)]
pub struct CertificateFilter {
    /// Of this machine, by id or by its name then.
    pub node: Option<String>,
    /// Of the disk with this serial number.
    pub serial: Option<String>,
    /// Older than this one.
    pub before: Option<Uuid>,
    /// How many, newest first.
    pub limit: usize,
}

/// Adds one.
///
/// # Errors
/// What the database says.
pub fn insert(
    db: &Connection,
    certificate: &Certificate,
    body: &str,
    signature: Option<&str>,
) -> Result<(), StoreError> {
    let disk = &certificate.disk;
    let name = disk.disk.as_ref().map_or_else(|| disk.name.clone(), ToString::to_string);
    db.execute(
        "INSERT INTO certificates (id, node, node_name, disk, serial, job, issued, body, signature) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            certificate.id.to_string(),
            certificate.machine.id.to_string(),
            certificate.machine.name,
            name,
            disk.serial.clone().unwrap_or_default(),
            certificate.job.to_string(),
            ms(certificate.issued),
            body,
            signature
        ],
    )
    .map_err(StoreError::sql("store a certificate"))?;
    Ok(())
}

const COLUMNS: &str = "SELECT id, issued, node_name, body, signature FROM certificates";

fn row(row: &Row<'_>) -> super::db::Result<CertificateRow> {
    Ok(CertificateRow {
        id: row.get(0)?,
        issued: moment(row.get(1)?),
        node_name: row.get(2)?,
        body: row.get(3)?,
        signature: row.get(4)?,
    })
}

/// The newest of a filter.
///
/// # Errors
/// What the database says.
pub fn list(db: &Connection, filter: &CertificateFilter) -> Result<Vec<CertificateRow>, StoreError> {
    let sql = format!(
        "{COLUMNS} WHERE (?1 = '' OR node = ?1 OR node_name = ?1) AND (?2 = '' OR serial = ?2) \
         AND (?3 = '' OR id < ?3) ORDER BY id DESC LIMIT ?4"
    );
    let values = params![
        filter.node.clone().unwrap_or_default(),
        filter.serial.clone().unwrap_or_default(),
        filter.before.map(|id| id.to_string()).unwrap_or_default(),
        i64::try_from(filter.limit).unwrap_or(i64::MAX)
    ];
    all(db, "list certificates", &sql, values, row)
}

/// One of them.
///
/// # Errors
/// What the database says.
pub fn get(db: &Connection, id: Uuid) -> Result<Option<CertificateRow>, StoreError> {
    db.query_row(&format!("{COLUMNS} WHERE id = ?1"), params![id.to_string()], row)
        .optional()
        .map_err(StoreError::sql("read a certificate"))
}
