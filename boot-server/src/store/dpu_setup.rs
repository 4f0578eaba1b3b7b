//! The rows of DPUs' controllers, and of the jobs that set DPUs up.

use boot_server_core::setup::{By, Card, Job};
use protocol::{DpuId, JobId, Timestamp};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::db::{self, Connection, Row, params};
use super::queries::{all, json, parsed};

/// The controller of a DPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRow {
    /// Whose.
    pub dpu: DpuId,
    /// Name or address.
    pub address: String,
    /// Port, where it is not the protocol's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User name.
    pub user: String,
    /// Sealed password.
    pub password: String,
    /// SHA-256 of the certificate that is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// When a person last changed it.
    pub changed: Timestamp,
    /// The DPU as it showed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<Card>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// Why the host is the host.
    #[serde(default)]
    pub paired: Vec<By>,
    /// Why nobody can say which machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// A job with what its DPU is handed, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The job.
    pub job: Job,
    /// Token and ticket.
    pub secret: Option<String>,
}

fn body(row: &Row<'_>) -> db::Result<String> {
    row.get(0)
}

/// All controllers of DPUs.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn controllers(db: &Connection) -> Result<Vec<ControllerRow>, StoreError> {
    let rows = all(db, "list controllers of DPUs", "SELECT body FROM dpu_controllers", params![], body)?;
    rows.iter().map(|text| parsed("dpu_controllers", text)).collect()
}

/// Stores a controller in place of the one that the DPU had.
///
/// # Errors
/// What the database says, such as where the DPU is gone.
pub fn put_controller(db: &Connection, row: &ControllerRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO dpu_controllers (dpu, body) VALUES (?1, ?2) \
               ON CONFLICT (dpu) DO UPDATE SET body = excluded.body";
    db.execute(sql, params![row.dpu.to_string(), json("dpu_controllers", row)?])
        .map_err(StoreError::sql("store the controller of a DPU"))
        .map(drop)
}

/// Forgets a controller.
///
/// # Errors
/// What the database says.
pub fn remove_controller(db: &Connection, dpu: DpuId) -> Result<(), StoreError> {
    db.execute("DELETE FROM dpu_controllers WHERE dpu = ?1", params![dpu.to_string()])
        .map_err(StoreError::sql("forget the controller of a DPU"))
        .map(drop)
}

/// All jobs, in the order in which they were begun.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn jobs(db: &Connection) -> Result<Vec<JobRow>, StoreError> {
    let row = |row: &Row<'_>| -> db::Result<(String, Option<String>)> { Ok((row.get(0)?, row.get(1)?)) };
    let rows = all(db, "list jobs of DPUs", "SELECT body, secret FROM dpu_jobs ORDER BY id", params![], row)?;
    rows.into_iter().map(|(text, secret)| Ok(JobRow { job: parsed("dpu_jobs", &text)?, secret })).collect()
}

/// Adds a job; `false` where another one of its DPU is not over.
///
/// # Errors
/// What the database says.
pub fn add_job(db: &Connection, row: &JobRow) -> Result<bool, StoreError> {
    let job = &row.job;
    let open = "SELECT COUNT(*) FROM dpu_jobs WHERE dpu = ?1 AND ended = 0";
    let open: i64 = db
        .query_row(open, params![job.dpu.to_string()], |row| row.get(0))
        .map_err(StoreError::sql("count jobs of a DPU"))?;
    if open > 0 {
        return Ok(false);
    }
    let sql = "INSERT INTO dpu_jobs (id, dpu, ended, secret, body) VALUES (?1, ?2, 0, ?3, ?4)";
    db.execute(sql, params![job.id.to_string(), job.dpu.to_string(), row.secret, json("dpu_jobs", job)?])
        .map_err(StoreError::sql("store a job of a DPU"))?;
    Ok(true)
}

/// Keeps how far a job is. What its DPU was handed is forgotten with its end.
///
/// # Errors
/// What the database says.
pub fn put_job(db: &Connection, job: &Job) -> Result<(), StoreError> {
    let (over, body) = (i64::from(job.stage.is_over()), json("dpu_jobs", job)?);
    let sql = "UPDATE dpu_jobs SET ended = ?1, body = ?2, secret = CASE WHEN ?1 = 1 THEN NULL ELSE secret END WHERE id = ?3";
    db.execute(sql, params![over, body, job.id.to_string()])
        .map_err(StoreError::sql("keep a job of a DPU"))
        .map(drop)
}

/// Forgets jobs.
///
/// # Errors
/// What the database says.
pub fn forget_jobs(db: &Connection, ids: &[JobId]) -> Result<(), StoreError> {
    for id in ids {
        db.execute("DELETE FROM dpu_jobs WHERE id = ?1", params![id.to_string()])
            .map_err(StoreError::sql("forget a job of a DPU"))?;
    }
    Ok(())
}
