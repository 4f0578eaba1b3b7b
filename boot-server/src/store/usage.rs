//! Limits of projects, and the records of what they used. What is open counts against the limits.

use boot_server_core::amounts::{Amounts, Resource};
use boot_server_core::quota::{self, Limits};
use boot_server_core::server::Server;
use boot_server_core::usage::{Kind, Period, Record};
use boot_server_core::volume::{Phase, Volume};
use protocol::{ProjectId, ServerId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, from_word, json, moment, ms, parsed};
use super::servers::{self, NotClaimed};

/// Takes the project for this transaction: no other claim of it comes in between.
///
/// # Errors
/// What the database says.
pub fn take_turn(db: &Connection, project: ProjectId) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO quotas (project, limits, turn) VALUES (?1, '{}', 1) \
         ON CONFLICT (project) DO UPDATE SET turn = quotas.turn + 1",
        params![project.to_string()],
    )
    .map_err(StoreError::sql("take a project's turn"))?;
    Ok(())
}

/// What a project may have at most.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn limits(db: &Connection, project: ProjectId) -> Result<Limits, StoreError> {
    let sql = "SELECT limits FROM quotas WHERE project = ?1";
    let found: Option<String> = db
        .query_row(sql, params![project.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read a quota"))?;
    Ok(found.map(|text| parsed("quotas", &text)).transpose()?.unwrap_or_default())
}

/// Sets what a project may have at most. What it has stays, also above that.
///
/// # Errors
/// What the database says.
pub fn set_limits(db: &Connection, project: ProjectId, limits: &Limits) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO quotas (project, limits, turn) VALUES (?1, ?2, 1) \
         ON CONFLICT (project) DO UPDATE SET limits = excluded.limits, turn = quotas.turn + 1",
        params![project.to_string(), json("quotas", limits)?],
    )
    .map_err(StoreError::sql("store a quota"))?;
    Ok(())
}

fn count(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// What a project has now.
///
/// # Errors
/// What the database says.
pub fn used(db: &Connection, project: ProjectId) -> Result<Amounts, StoreError> {
    // The sum of 64-bit numbers is no 64-bit number in PostgreSQL.
    let sums =
        Resource::ALL.map(|of| format!("CAST(COALESCE(SUM({}), 0) AS BIGINT)", of.as_str())).join(", ");
    let sql = format!("SELECT {sums} FROM usage_records WHERE project = ?1 AND ended IS NULL");
    db.query_row(&sql, params![project.to_string()], |row| {
        let mut used = Amounts::default();
        for (at, of) in Resource::ALL.into_iter().enumerate() {
            used.set(of, u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
        }
        Ok(used)
    })
    .map_err(StoreError::sql("add up what a project has"))
}

/// Begins the record of a server, at its creation.
///
/// # Errors
/// What the database says.
pub(super) fn begin_server(db: &Connection, server: &Server) -> Result<(), StoreError> {
    begin(
        db,
        Kind::Server,
        server.id.0,
        server.project,
        &server.name,
        server.flavor.as_deref(),
        server.created,
        &server.amounts,
    )
}

/// Begins a record.
///
/// # Errors
/// What the database says.
#[expect(clippy::too_many_arguments, reason = "one per column")]
pub fn begin(
    db: &Connection,
    kind: Kind,
    resource: Uuid,
    project: ProjectId,
    name: &str,
    flavor: Option<&str>,
    started: Timestamp,
    amounts: &Amounts,
) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO usage_records (kind, resource, project, name, flavor, started, ended, servers, cores, memory_mib, \
         disks, volumes, volume_gib, networks, addresses, snapshots) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            kind.as_str(),
            resource.to_string(),
            project.to_string(),
            name,
            flavor,
            ms(started),
            count(amounts.servers),
            count(amounts.cores),
            count(amounts.memory_mib),
            count(amounts.disks),
            count(amounts.volumes),
            count(amounts.volume_gib),
            count(amounts.networks),
            count(amounts.addresses),
            count(amounts.snapshots)
        ],
    )
    .map_err(StoreError::sql("begin a usage record"))?;
    Ok(())
}

/// Ends the record of a server; one that has ended stays as it is.
///
/// # Errors
/// What the database says.
pub(super) fn end_server(db: &Connection, server: ServerId, at: Timestamp) -> Result<(), StoreError> {
    end(db, Kind::Server, server.0, at)
}

/// Ends a record; one that has ended stays as it is.
///
/// # Errors
/// What the database says.
pub fn end(db: &Connection, kind: Kind, resource: Uuid, at: Timestamp) -> Result<(), StoreError> {
    db.post(
        "UPDATE usage_records SET ended = ?1 WHERE kind = ?2 AND resource = ?3 AND ended IS NULL",
        params![ms(at), kind.as_str(), resource.to_string()],
    )
    .map_err(StoreError::sql("end a usage record"))?;
    Ok(())
}

/// Takes from a project: its limits are held against sums made inside the transaction, of which each project has one at a time.
///
/// # Errors
/// [`NotClaimed::Quota`], [`NotClaimed::Closed`], or what the database says.
pub fn take(db: &Connection, project: ProjectId, asked: &Amounts) -> Result<(), StoreError> {
    take_turn(db, project)?;
    if !servers::is_open(db, project)? {
        return Err(NotClaimed::Closed.into());
    }
    let limits = limits(db, project)?;
    // What a project has is added up only where that matters: it may be ten thousand rows.
    if Resource::ALL.into_iter().all(|of| limits.of(of).is_none() || asked.of(of) == 0) {
        return Ok(());
    }
    let exceeded = quota::check(&limits, &used(db, project)?, asked);
    if exceeded.is_empty() { Ok(()) } else { Err(NotClaimed::Quota(exceeded).into()) }
}

/// Begins the record of a volume, at its creation.
///
/// # Errors
/// What the database says.
pub(super) fn begin_volume(db: &Connection, volume: &Volume, at: Timestamp) -> Result<(), StoreError> {
    let Volume { id, project, name, kind, .. } = volume;
    begin(db, Kind::Volume, id.0, *project, name, Some(kind), at, &volume.amounts())
}

/// From a moment on a volume takes what it takes now: another record, where that is more than before; none where it is gone.
///
/// # Errors
/// What the database says.
pub(super) fn change_volume(db: &Connection, volume: &Volume, at: Timestamp) -> Result<(), StoreError> {
    if volume.phase == Phase::Deleted {
        return end(db, Kind::Volume, volume.id.0, volume.deleted.unwrap_or(at));
    }
    rename(db, Kind::Volume, volume.id.0, &volume.name)?;
    let sql = "SELECT started, volume_gib FROM usage_records WHERE kind = 'volume' AND resource = ?1 AND ended IS NULL";
    let open: Option<(i64, i64)> = db
        .query_row(sql, params![volume.id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(StoreError::sql("read a usage record"))?;
    match open {
        Some((_, had)) if had == count(volume.amounts().volume_gib) => Ok(()),
        Some((started, _)) => {
            // No two records begin at one moment.
            let at = moment(ms(at).max(started + 1));
            end(db, Kind::Volume, volume.id.0, at)?;
            begin_volume(db, volume, at)
        }
        // It was made before volumes were metered.
        None => begin_volume(db, volume, at),
    }
}

/// The record goes by the server's newest name.
pub(super) fn rename_server(db: &Connection, server: &Server) -> Result<(), StoreError> {
    rename(db, Kind::Server, server.id.0, &server.name)
}

fn rename(db: &Connection, kind: Kind, resource: Uuid, name: &str) -> Result<(), StoreError> {
    db.post(
        "UPDATE usage_records SET name = ?1 WHERE kind = ?2 AND resource = ?3 AND name <> ?1",
        params![name, kind.as_str(), resource.to_string()],
    )
    .map_err(StoreError::sql("rename a usage record"))?;
    Ok(())
}

/// The records that have a part in `period`: of one project, or of all.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn records(
    db: &Connection,
    project: Option<ProjectId>,
    period: Period,
) -> Result<Vec<Record>, StoreError> {
    const TABLE: &str = "usage_records";
    let amounts = Resource::ALL.map(|of| format!("u.{}", of.as_str())).join(", ");
    let sql = format!(
        "SELECT u.kind, u.resource, u.project, COALESCE(p.name, u.project), u.name, u.flavor, u.started, u.ended, {amounts} \
         FROM usage_records u LEFT JOIN projects p ON p.id = u.project \
         WHERE u.started < ?1 AND (u.ended IS NULL OR u.ended > ?2) AND (?3 = '' OR u.project = ?3) \
         ORDER BY u.started, u.resource"
    );
    let of = project.map(|project| project.to_string()).unwrap_or_default();
    let rows = all(db, "read usage", &sql, params![ms(period.to), ms(period.from), of], |row| {
        let texts: [String; 5] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        let mut amounts = Amounts::default();
        for (at, of) in Resource::ALL.into_iter().enumerate() {
            amounts.set(of, u64::try_from(row.get::<_, i64>(8 + at)?).unwrap_or(0));
        }
        Ok((
            texts,
            row.get::<_, Option<String>>(5)?,
            row.get::<_, i64>(6)?,
            row.get::<_, Option<i64>>(7)?,
            amounts,
        ))
    })?;
    let record = |(texts, flavor, started, ended, amounts): ([String; 5], _, _, Option<i64>, _)| {
        let [kind, resource, project, project_name, name] = texts;
        Ok(Record {
            project: from_word(TABLE, &project)?,
            project_name,
            kind: from_word(TABLE, &kind)?,
            resource: from_word(TABLE, &resource)?,
            name,
            flavor,
            started: moment(started),
            ended: ended.map(moment),
            amounts,
        })
    };
    rows.into_iter().map(record).collect()
}
