//! The rows of volumes and snapshots. Every statement that people cause names the project.

use boot_server_core::amounts::Amounts;
use boot_server_core::usage::Kind;
use boot_server_core::volume::{Phase, Snapshot, Volume, gib};
use protocol::{DpuId, ProjectId, ServerId, SnapshotId, Timestamp, VolumeId};

use super::StoreError;
use super::db::{self, Connection, OptionalExtension as _, Row, params};
use super::queries::{all, json, parsed, word};
use super::usage;

/// Which volumes to list.
#[derive(Debug, Clone, Default)]
pub struct VolumeFilter {
    /// Of this server.
    pub server: Option<ServerId>,
    /// After this one.
    pub after: Option<VolumeId>,
    /// At most so many.
    pub limit: usize,
}

fn raw(row: &Row<'_>) -> db::Result<(String, i64)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn volume((body, version): (String, i64)) -> Result<Volume, StoreError> {
    let volume: Volume = parsed("volumes", &body)?;
    Ok(Volume { version, ..volume })
}

fn listed(db: &Connection, sql: &str, values: impl db::Params) -> Result<Vec<Volume>, StoreError> {
    all(db, "list volumes", sql, values, raw)?.into_iter().map(volume).collect()
}

/// The DPU that may write to it, or has its layer.
fn let_in(volume: &Volume) -> Option<String> {
    let granted = volume.attachment.as_ref().and_then(|at| at.dpu);
    Some(granted.or(volume.layer.as_ref().map(|layer| layer.dpu))?.to_string())
}

/// Adds a volume, takes it from the project's quota and begins its usage. One that a server is installed anew on, while it still has the one
/// before it, is beyond the quota for that time.
///
/// # Errors
/// [`StoreError::NameTaken`], [`StoreError::Claim`], or what the database says.
pub fn insert(db: &Connection, volume: &Volume) -> Result<(), StoreError> {
    let sql = "INSERT INTO volumes (id, project, name, phase, server, version, body, dpu) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let values = params![
        volume.id.to_string(),
        volume.project.to_string(),
        volume.name,
        word("volumes", &volume.phase)?,
        volume.server().map(|server| server.to_string()),
        volume.version,
        json("volumes", volume)?,
        let_in(volume)
    ];
    if !replaces(db, volume)? {
        usage::take(db, volume.project, &volume.amounts())?;
    }
    let added = db.execute(sql, values).map_err(StoreError::sql("store a volume"))?;
    if added != 1 {
        return Err(StoreError::NameTaken(volume.name.clone()));
    }
    usage::begin_volume(db, volume, volume.created)
}

fn replaces(db: &Connection, volume: &Volume) -> Result<bool, StoreError> {
    let Some(boots) = volume.attachment.as_ref().filter(|at| at.boot) else { return Ok(false) };
    let others = of_server(db, boots.server)?;
    Ok(others.iter().any(|other| other.attachment.as_ref().is_some_and(|at| at.boot)))
}

/// Replaces a volume whose row has the version before this one's. Its usage follows: where it grew, with its new size from `at` on.
///
/// # Errors
/// [`StoreError::Conflict`], [`StoreError::NameTaken`], or what the database says.
pub fn update(db: &Connection, volume: &Volume, at: Timestamp) -> Result<(), StoreError> {
    let taken = "SELECT id FROM volumes WHERE project = ?1 AND name = ?2 AND phase <> 'deleted' AND id <> ?3";
    let values = params![volume.project.to_string(), volume.name, volume.id.to_string()];
    let other: Option<String> = db
        .query_row(taken, values, |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("look up a volume's name"))?;
    if other.is_some() && volume.phase != Phase::Deleted {
        return Err(StoreError::NameTaken(volume.name.clone()));
    }
    let changed = db
        .execute(
            "UPDATE volumes SET name = ?1, phase = ?2, server = ?3, body = ?4, dpu = ?5, version = version + 1 \
             WHERE id = ?6 AND version = ?7",
            params![
                volume.name,
                word("volumes", &volume.phase)?,
                volume.server().map(|server| server.to_string()),
                json("volumes", volume)?,
                let_in(volume),
                volume.id.to_string(),
                volume.version - 1
            ],
        )
        .map_err(StoreError::sql("change a volume"))?;
    if changed != 1 {
        return Err(StoreError::Conflict);
    }
    usage::change_volume(db, volume, at)
}

/// Takes what a volume is to grow by from the project's quota, before it grows. Where it does not, [`shrink`] gives that back.
///
/// # Errors
/// [`StoreError::Claim`], or what the database says.
pub fn grow(db: &Connection, volume: &Volume, size: u64, at: Timestamp) -> Result<(), StoreError> {
    let more = gib(size).saturating_sub(gib(volume.size));
    usage::take(db, volume.project, &Amounts { volume_gib: more, ..Amounts::default() })?;
    usage::change_volume(db, &Volume { size, ..volume.clone() }, at)
}

/// A volume takes what it takes as it is.
///
/// # Errors
/// What the database says.
pub fn shrink(db: &Connection, volume: &Volume, at: Timestamp) -> Result<(), StoreError> {
    usage::change_volume(db, volume, at)
}

/// One volume, whatever became of it.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn get(db: &Connection, id: VolumeId) -> Result<Option<Volume>, StoreError> {
    one(db, "SELECT body, version FROM volumes WHERE id = ?1", params![id.to_string()])
}

/// A volume of this project: a living one by name, any by id.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn find(db: &Connection, project: ProjectId, reference: &str) -> Result<Option<Volume>, StoreError> {
    let (sql, value) = match reference.parse::<VolumeId>() {
        Ok(id) => ("SELECT body, version FROM volumes WHERE project = ?1 AND id = ?2", id.to_string()),
        Err(_) => (
            "SELECT body, version FROM volumes WHERE project = ?1 AND name = ?2 AND phase <> 'deleted'",
            reference.to_owned(),
        ),
    };
    one(db, sql, params![project.to_string(), value])
}

fn one(db: &Connection, sql: &str, values: impl db::Params) -> Result<Option<Volume>, StoreError> {
    let found = db.query_row(sql, values, raw).optional().map_err(StoreError::sql("read a volume"))?;
    found.map(volume).transpose()
}

/// Living volumes of a project, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn list(db: &Connection, project: ProjectId, filter: &VolumeFilter) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE project = ?1 AND id > ?2 AND phase <> 'deleted' \
               AND (?3 = '' OR server = ?3) ORDER BY id LIMIT ?4";
    let values = params![
        project.to_string(),
        filter.after.map(|after| after.to_string()).unwrap_or_default(),
        filter.server.map(|server| server.to_string()).unwrap_or_default(),
        i64::try_from(filter.limit).unwrap_or(i64::MAX)
    ];
    listed(db, sql, values)
}

/// All volumes that live.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn living(db: &Connection) -> Result<Vec<Volume>, StoreError> {
    listed(db, "SELECT body, version FROM volumes WHERE phase <> 'deleted' ORDER BY id", params![])
}

/// Volumes that a server has, or is to have, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn of_server(db: &Connection, server: ServerId) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE server = ?1 AND phase <> 'deleted' ORDER BY id";
    listed(db, sql, params![server.to_string()])
}

/// How many living volumes a project has, and their bytes.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn count(db: &Connection, project: ProjectId) -> Result<(u64, u64), StoreError> {
    let filter = VolumeFilter { limit: usize::MAX, ..VolumeFilter::default() };
    let volumes = list(db, project, &filter)?;
    Ok((volumes.len() as u64, volumes.iter().map(|volume| volume.size).sum()))
}

/// What a DPU connects to, sealed; `None` once nobody may.
///
/// # Errors
/// What the database says.
pub fn access(db: &Connection, id: VolumeId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT access FROM volumes WHERE id = ?1";
    let found = db.query_row(sql, params![id.to_string()], |row| row.get::<_, Option<String>>(0)).optional();
    Ok(found.map_err(StoreError::sql("read a grant"))?.flatten())
}

/// Keeps what a DPU connects to, sealed.
///
/// # Errors
/// What the database says.
pub fn set_access(db: &Connection, id: VolumeId, sealed: Option<&str>) -> Result<(), StoreError> {
    let sql = "UPDATE volumes SET access = ?1 WHERE id = ?2";
    db.execute(sql, params![sealed, id.to_string()]).map_err(StoreError::sql("keep a grant")).map(drop)
}

/// How many volumes a DPU may write to, also those that it is to let go of; not layers on it that no host has.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn held(db: &Connection, dpu: DpuId) -> Result<usize, StoreError> {
    Ok(holding(db, dpu)?.len())
}

/// Those volumes, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn holding(db: &Connection, dpu: DpuId) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE dpu = ?1 AND phase <> 'deleted' ORDER BY id";
    let mut found = listed(db, sql, params![dpu.to_string()])?;
    found.retain(|volume| volume.holder() == Some(dpu));
    Ok(found)
}

/// Volumes that take functions of a DPU, or will: those that it may write to, and those of the server of its host; oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn beside(db: &Connection, dpu: DpuId, server: Option<ServerId>) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE (dpu = ?1 OR server = ?2) AND phase <> 'deleted' ORDER BY id";
    let server = server.map(|server| server.to_string()).unwrap_or_default();
    listed(db, sql, params![dpu.to_string(), server])
}

/// Puts this in the place of what a DPU connects to, where that is still what it was.
///
/// # Errors
/// What the database says.
pub fn replace_access(db: &Connection, id: VolumeId, was: &str, sealed: &str) -> Result<(), StoreError> {
    let sql = "UPDATE volumes SET access = ?1 WHERE id = ?2 AND access = ?3";
    let values = params![sealed, id.to_string(), was];
    db.execute(sql, values).map_err(StoreError::sql("keep a grant")).map(drop)
}

/// Volumes that a DPU was granted, with what it connects to, sealed.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn granted(db: &Connection, dpu: DpuId) -> Result<Vec<(Volume, String)>, StoreError> {
    let sql = "SELECT body, version, access FROM volumes WHERE dpu = ?1 AND access IS NOT NULL ORDER BY id";
    let row = |row: &Row<'_>| Ok((raw(row)?, row.get::<_, String>(2)?));
    let rows = all(db, "list grants", sql, params![dpu.to_string()], row)?;
    let mut found = Vec::new();
    for (body, access) in rows {
        let volume = volume(body)?;
        if volume.presenter() == Some(dpu) {
            found.push((volume, access));
        }
    }
    Ok(found)
}

/// Volumes whose layer is on this DPU, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn on_dpu(db: &Connection, dpu: DpuId) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE dpu = ?1 AND phase <> 'deleted' ORDER BY id";
    let mut found = listed(db, sql, params![dpu.to_string()])?;
    found.retain(|volume| volume.layer.as_ref().is_some_and(|layer| layer.dpu == dpu));
    Ok(found)
}

/// Those of them whose layer the DPU is to remove.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn leaving(db: &Connection, dpu: DpuId) -> Result<Vec<Volume>, StoreError> {
    let sql = "SELECT body, version FROM volumes WHERE dpu = ?1 AND phase = 'deleting' ORDER BY id";
    let mut found = listed(db, sql, params![dpu.to_string()])?;
    found.retain(|volume| volume.discarder() == Some(dpu));
    Ok(found)
}

/// Adds a snapshot, takes it from the project's quota and begins its usage.
///
/// # Errors
/// [`StoreError::NameTaken`], [`StoreError::Claim`], or what the database says.
pub fn insert_snapshot(db: &Connection, snapshot: &Snapshot) -> Result<(), StoreError> {
    let sql = "INSERT INTO snapshots (id, project, volume, name, body) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let values = params![
        snapshot.id.to_string(),
        snapshot.project.to_string(),
        snapshot.volume.to_string(),
        snapshot.name,
        json("snapshots", snapshot)?
    ];
    let one = Amounts { snapshots: 1, ..Amounts::default() };
    usage::take(db, snapshot.project, &one)?;
    let added = db.execute(sql, values).map_err(StoreError::sql("store a snapshot"))?;
    if added != 1 {
        return Err(StoreError::NameTaken(snapshot.name.clone()));
    }
    let Snapshot { id, project, name, kind, created, .. } = snapshot;
    usage::begin(db, Kind::Snapshot, id.0, *project, name, Some(kind), *created, &one)
}

/// Snapshots of a project, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn snapshots(db: &Connection, project: ProjectId) -> Result<Vec<Snapshot>, StoreError> {
    let sql = "SELECT body FROM snapshots WHERE project = ?1 ORDER BY id";
    let rows = all(db, "list snapshots", sql, params![project.to_string()], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("snapshots", body)).collect()
}

/// Snapshots of a volume.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn snapshots_of(db: &Connection, volume: VolumeId) -> Result<Vec<Snapshot>, StoreError> {
    let sql = "SELECT body FROM snapshots WHERE volume = ?1 ORDER BY id";
    let rows = all(db, "list snapshots", sql, params![volume.to_string()], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("snapshots", body)).collect()
}

/// Removes a snapshot, whose usage ends; false where there is none of this id.
///
/// # Errors
/// What the database says.
pub fn remove_snapshot(db: &Connection, id: SnapshotId, at: Timestamp) -> Result<bool, StoreError> {
    let gone = db
        .execute("DELETE FROM snapshots WHERE id = ?1", params![id.to_string()])
        .map_err(StoreError::sql("remove a snapshot"))?;
    usage::end(db, Kind::Snapshot, id.0, at)?;
    Ok(gone == 1)
}
