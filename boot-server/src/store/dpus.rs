//! The rows of DPUs.

use boot_server_core::dpu::Dpu;
use protocol::dpu::Observed;
use protocol::functions::{FunctionPlan, Model};
use protocol::{DpuId, NodeId};

use super::StoreError;
use super::db::{self, Connection, OptionalExtension as _, Row, params};
use super::queries::{all, json, parsed};

const COLUMNS: &str = "body, node, version, desired, observed";

/// A DPU with what it is to be and what it said that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DpuRow {
    /// Who it is.
    pub dpu: Dpu,
    /// What it is to be, sealed.
    pub desired: Option<String>,
    /// What it said last.
    pub observed: Option<Observed>,
}

type Raw = (String, Option<String>, i64, Option<String>, Option<String>);

fn raw(row: &Row<'_>) -> db::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn dpu((body, node, version, desired, observed): Raw) -> Result<DpuRow, StoreError> {
    let mut dpu: Dpu = parsed("dpus", &body)?;
    // The column is emptied when the node is forgotten.
    dpu.node = node.map(|node| super::queries::from_word::<NodeId>("dpus", &node)).transpose()?;
    dpu.version = version;
    let observed = observed.map(|observed| parsed("dpus", &observed)).transpose()?;
    Ok(DpuRow { dpu, desired, observed })
}

/// All DPUs, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn dpus(db: &Connection) -> Result<Vec<DpuRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM dpus ORDER BY name");
    all(db, "list DPUs", &sql, params![], raw)?.into_iter().map(dpu).collect()
}

/// One DPU.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn get(db: &Connection, id: DpuId) -> Result<Option<DpuRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM dpus WHERE id = ?1");
    let found = db.query_row(&sql, params![id.to_string()], raw).optional();
    found.map_err(StoreError::sql("read a DPU"))?.map(dpu).transpose()
}

/// Adds a DPU.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert(db: &Connection, dpu: &Dpu) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO dpus (id, name, node, secret, token, version, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            dpu.id.to_string(),
            dpu.name,
            dpu.node.map(|node| node.to_string()),
            dpu.secret.map(|secret| secret.to_string()),
            dpu.token.map(|token| token.to_string()),
            dpu.version,
            json("dpus", dpu)?
        ],
    )
    .map_err(|cause| named(cause, dpu, "store a DPU"))?;
    Ok(())
}

/// Replaces a DPU whose row has the version before this one's.
///
/// # Errors
/// [`StoreError::Conflict`], [`StoreError::NameTaken`], or what the database says.
pub fn update(db: &Connection, dpu: &Dpu) -> Result<(), StoreError> {
    let changed = db
        .execute(
            "UPDATE dpus SET name = ?1, node = ?2, secret = ?3, token = ?4, body = ?5, version = version + 1 \
             WHERE id = ?6 AND version = ?7",
            params![
                dpu.name,
                dpu.node.map(|node| node.to_string()),
                dpu.secret.map(|secret| secret.to_string()),
                dpu.token.map(|token| token.to_string()),
                json("dpus", dpu)?,
                dpu.id.to_string(),
                dpu.version - 1
            ],
        )
        .map_err(|cause| named(cause, dpu, "change a DPU"))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

fn named(cause: db::Error, dpu: &Dpu, action: &'static str) -> StoreError {
    match () {
        () if db::taken(&cause, "dpus.name") => StoreError::NameTaken(dpu.name.clone()),
        () if db::taken(&cause, "dpus.node") => StoreError::NameTaken("of that node's DPU".to_owned()),
        () => StoreError::Database { action, cause },
    }
}

/// Keeps what a DPU is to be, sealed.
///
/// # Errors
/// What the database says.
pub fn set_desired(db: &Connection, id: DpuId, sealed: &str) -> Result<(), StoreError> {
    let sql = "UPDATE dpus SET desired = ?1 WHERE id = ?2";
    db.execute(sql, params![sealed, id.to_string()])
        .map_err(StoreError::sql("keep what a DPU is to be"))
        .map(drop)
}

/// Keeps what a DPU said.
///
/// # Errors
/// What the database says.
pub fn set_observed(db: &Connection, id: DpuId, observed: &Observed) -> Result<(), StoreError> {
    let sql = "UPDATE dpus SET observed = ?1 WHERE id = ?2";
    db.execute(sql, params![json("dpus", observed)?, id.to_string()])
        .map_err(StoreError::sql("keep what a DPU said"))
        .map(drop)
}

/// What hosts of new DPUs of a model get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRow {
    /// The model.
    pub model: Model,
    /// Grows by one with every change.
    pub version: i64,
    /// The plan; none: their firmware is left alone.
    pub plan: Option<FunctionPlan>,
}

/// The default plans that anybody ever made, by model.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn defaults(db: &Connection) -> Result<Vec<DefaultRow>, StoreError> {
    let sql = "SELECT model, version, plan FROM dpu_models ORDER BY model";
    let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?));
    let rows = all(db, "list default plans of DPUs", sql, params![], row)?;
    let parse = |(model, version, plan): (String, i64, Option<String>)| {
        let model = super::queries::from_word::<Model>("dpu_models", &model)?;
        let plan = plan.map(|plan| parsed("dpu_models", &plan)).transpose()?;
        Ok(DefaultRow { model, version, plan })
    };
    rows.into_iter().map(parse).collect()
}

/// Stores the default plan of a model in place of the one that it had.
///
/// # Errors
/// What the database says.
pub fn set_default(db: &Connection, model: Model, plan: Option<&FunctionPlan>) -> Result<(), StoreError> {
    let sql = "INSERT INTO dpu_models (model, version, plan) VALUES (?1, 1, ?2) ON CONFLICT (model) \
               DO UPDATE SET version = dpu_models.version + 1, plan = excluded.plan";
    let plan = plan.map(|plan| json("dpu_models", plan)).transpose()?;
    db.execute(sql, params![model.as_str(), plan])
        .map_err(StoreError::sql("store the default plan of a model of DPUs"))
        .map(drop)
}

/// Removes a DPU.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, id: DpuId) -> Result<(), StoreError> {
    db.execute("DELETE FROM dpus WHERE id = ?1", params![id.to_string()])
        .map_err(StoreError::sql("remove a DPU"))
        .map(drop)
}
