//! The audit's table. Entries go in by [`append`] alone, in the transaction of what they tell of; its chain stands in
//! `core::audit`.

use boot_server_core::audit::chain::Checkpoint;
use boot_server_core::audit::{Anchor, Entry, Fact, Kind, Link};
use protocol::{NodeId, ProjectId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use super::db::{self, Connection, OptionalExtension as _, Row, params};
use super::queries::{NewEvent, all, moment, ms};

/// Columns of an entry, in the order in which [`link`] reads them.
const COLUMNS: &str = "number, at, kind, actor, who, role, source, what, object, node, project, request, digest, status, \
                       outcome, hash";

/// Which entries; newest last where `after` is given, else newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// By this actor.
    pub actor: Option<String>,
    /// About this node.
    pub node: Option<NodeId>,
    /// About this project.
    pub project: Option<ProjectId>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Of this request.
    pub request: Option<Uuid>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// With higher numbers than this.
    pub after: Option<u64>,
    /// With lower numbers than this.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// An entry as it lies in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// As somebody wrote it.
    Link(Box<Link>),
    /// No entry that Billet writes.
    Unreadable(u64),
}

/// The end of the chain, with room behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Where the chain ended.
    pub last: Anchor,
    /// The number of the next event: whoever writes one has the row of the head, so nobody else takes the number.
    pub next_event: i64,
}

/// Puts facts behind the chain's end.
///
/// # Errors
/// What the database says; then the caller's change must not be made either.
pub fn append(db: &Connection, facts: &[Fact]) -> Result<Anchor, StoreError> {
    let Taken { last, .. } = take(db, facts.len())?;
    put(db, last, facts)
}

/// Takes the row of the head for `count` entries that are [`put`] then: of two servers one waits for the other.
///
/// # Errors
/// What the database says.
pub(super) fn take(db: &Connection, count: usize) -> Result<Taken, StoreError> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let sql = "UPDATE audit_chain SET number = number + ?1 WHERE name = 'head' \
               RETURNING number, hash, (SELECT COALESCE(MAX(id), 0) + 1 FROM events)";
    let (number, hash, next_event) = db
        .query_row(sql, params![count], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })
        .optional()
        .map_err(StoreError::sql("lengthen the audit"))?
        .ok_or(StoreError::Conflict)?;
    let number = number.saturating_sub(count).unsigned_abs();
    Ok(Taken { last: Anchor { number, hash: super::queries::from_word("audit_chain", &hash)? }, next_event })
}

/// Puts as many facts behind `last` as it was [taken](take) for.
///
/// # Errors
/// What the database says; then the caller's change must not be made either.
pub(super) fn put(db: &Connection, mut last: Anchor, facts: &[Fact]) -> Result<Anchor, StoreError> {
    for fact in facts {
        let link = Link::after(&last, fact.clone().bounded());
        insert(db, &link)?;
        last = link.anchor();
    }
    db.post("UPDATE audit_chain SET hash = ?1 WHERE name = 'head'", params![last.hash.to_string()])
        .map_err(StoreError::sql("lengthen the audit"))?;
    Ok(last)
}

fn insert(db: &Connection, link: &Link) -> Result<(), StoreError> {
    let Entry { number, fact } = &link.entry;
    db.post(
        "INSERT INTO audit (number, at, kind, actor, who, role, source, what, object, node, project, request, digest, \
         status, outcome, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            i64::try_from(*number).unwrap_or(i64::MAX),
            ms(fact.at),
            fact.kind.as_str(),
            fact.actor,
            fact.who.map(|id| id.to_string()),
            fact.role,
            fact.source,
            fact.what,
            fact.object,
            fact.node.map(|id| id.to_string()),
            fact.project.map(|id| id.to_string()),
            fact.request.map(|id| id.to_string()),
            fact.digest.map(|digest| digest.to_string()),
            fact.status.map(i64::from),
            fact.outcome,
            link.hash.to_string()
        ],
    )
    .map_err(StoreError::sql("write an audit entry"))?;
    Ok(())
}

/// What a line of the event list says in the audit.
pub fn of_event(event: &NewEvent) -> Fact {
    Fact {
        source: event.source.clone(),
        node: event.node,
        project: event.project,
        request: event.request,
        outcome: event.message.clone(),
        ..Fact::new(event.at, Kind::of_event(&event.kind), event.actor.clone(), event.kind.clone())
    }
}

/// A place in the chain that is kept by name: `head`, its end, or `anchor`, the last entry that was forgotten.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn anchor(db: &Connection, name: &str) -> Result<Anchor, StoreError> {
    let (number, hash): (i64, String) = db
        .query_row("SELECT number, hash FROM audit_chain WHERE name = ?1", params![name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(StoreError::sql("read the audit's head"))?;
    Ok(Anchor { number: number.unsigned_abs(), hash: super::queries::from_word("audit_chain", &hash)? })
}

/// Entries by filter.
///
/// # Errors
/// What the database says.
pub fn entries(db: &Connection, filter: &AuditFilter) -> Result<Vec<Found>, StoreError> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM audit WHERE number > ?1 AND number < ?2 AND (?3 IS NULL OR actor = ?3) \
         AND (?4 IS NULL OR node = ?4) AND (?5 IS NULL OR project = ?5) AND (?6 IS NULL OR kind = ?6) \
         AND (?7 IS NULL OR request = ?7) AND at >= ?8 AND at < ?9 ORDER BY number {order} LIMIT ?10"
    );
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let values = params![
        filter.after.map_or(0, number),
        filter.before.map_or(i64::MAX, number),
        filter.actor,
        filter.node.map(|id| id.to_string()),
        filter.project.map(|id| id.to_string()),
        filter.kind.map(Kind::as_str),
        filter.request.map(|id| id.to_string()),
        filter.since.map_or(0, ms),
        filter.until.map_or(i64::MAX, ms),
        number(filter.limit as u64)
    ];
    all(db, "list the audit", &sql, values, found)
}

/// Entries as they lie in the table, from behind `after` up to `limit` of them; also those that nobody could have written.
///
/// # Errors
/// What the database says.
pub fn lying(db: &Connection, after: i64, limit: usize) -> Result<Vec<(i64, Found)>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(db, "read the audit", &sql, params![after, limit], |row| Ok((row.get(0)?, found(row)?)))
}

fn found(row: &Row<'_>) -> db::Result<Found> {
    let number: i64 = row.get(0)?;
    Ok(link(row)
        .map_or(Found::Unreadable(u64::try_from(number).unwrap_or(0)), |link| Found::Link(Box::new(link))))
}

/// The entry of a row, unless something in it is not what is written there.
fn link(row: &Row<'_>) -> Option<Link> {
    fn text(row: &Row<'_>, at: usize) -> Option<Option<String>> {
        row.get(at).ok()
    }
    fn parsed<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> Option<Option<T>> {
        match text(row, at)? {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        }
    }
    let at: i64 = row.get(1).ok()?;
    let status: Option<i64> = row.get(13).ok()?;
    let fact = Fact {
        at: Timestamp(u64::try_from(at).ok()?),
        kind: Kind::of(&text(row, 2)??)?,
        actor: text(row, 3)??,
        who: parsed(row, 4)?,
        role: text(row, 5)?,
        source: text(row, 6)?,
        what: text(row, 7)??,
        object: text(row, 8)?,
        node: parsed(row, 9)?,
        project: parsed(row, 10)?,
        request: parsed(row, 11)?,
        digest: parsed(row, 12)?,
        status: match status {
            Some(status) => Some(u16::try_from(status).ok()?),
            None => None,
        },
        outcome: text(row, 14)??,
    };
    let number: i64 = row.get(0).ok()?;
    Some(Link { entry: Entry { number: u64::try_from(number).ok()?, fact }, hash: parsed(row, 15)?? })
}

/// True where something was changed by the request with this number.
///
/// # Errors
/// What the database says.
pub fn has_changed(db: &Connection, request: Uuid) -> Result<bool, StoreError> {
    let sql = "SELECT COUNT(*) FROM audit WHERE request = ?1 AND kind IN ('bmc', 'change', 'access')";
    let count: i64 = db
        .query_row(sql, params![request.to_string()], |row| row.get(0))
        .map_err(StoreError::sql("look for what a request changed"))?;
    Ok(count > 0)
}

/// Forgets the oldest entries, at most `batch`: those from before `before`, and those that are more than `rows` (0: any
/// number is kept). The last one that went stays as the anchor. Returns how many went. The newest is always kept.
///
/// # Errors
/// What the database says.
pub fn forget(db: &Connection, before: Timestamp, rows: u64, batch: usize) -> Result<usize, StoreError> {
    let head = anchor(db, "head")?;
    let first_kept = if rows == 0 { 0 } else { (head.number + 1).saturating_sub(rows) };
    let limit = i64::try_from(batch).unwrap_or(i64::MAX);
    let sql = "SELECT number, at, hash FROM audit ORDER BY number LIMIT ?1";
    let oldest: Vec<(i64, i64, String)> = all(db, "find old audit entries", sql, params![limit], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let old = |(number, at, _): &&(i64, i64, String)| {
        let number = u64::try_from(*number).unwrap_or(0);
        number < head.number && (*at < ms(before) || number < first_kept)
    };
    let Some((last, _, hash)) = oldest.iter().take_while(old).last() else { return Ok(0) };
    let action = "forget audit entries";
    db.execute("UPDATE audit_chain SET number = ?1, hash = ?2 WHERE name = 'anchor'", params![last, hash])
        .map_err(StoreError::sql(action))?;
    db.execute("DELETE FROM audit_checkpoints WHERE number < ?1", params![last])
        .map_err(StoreError::sql(action))?;
    db.execute("DELETE FROM audit WHERE number <= ?1", params![last]).map_err(StoreError::sql(action))
}

/// Keeps a head that was signed.
///
/// # Errors
/// What the database says.
pub fn put_checkpoint(db: &Connection, it: &Checkpoint) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO audit_checkpoints (number, hash, at, public_key, signature) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (number) DO NOTHING",
        params![
            i64::try_from(it.head.number).unwrap_or(i64::MAX),
            it.head.hash.to_string(),
            ms(it.at),
            it.key,
            it.signature
        ],
    )
    .map_err(StoreError::sql("keep a checkpoint of the audit"))?;
    Ok(())
}

/// All checkpoints, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn checkpoints(db: &Connection) -> Result<Vec<Checkpoint>, StoreError> {
    let sql = "SELECT number, hash, at, public_key, signature FROM audit_checkpoints ORDER BY number";
    let rows = all(db, "list the audit's checkpoints", sql, params![], checkpoint)?;
    rows.into_iter().map(readable).collect()
}

/// The newest checkpoint.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn last_checkpoint(db: &Connection) -> Result<Option<Checkpoint>, StoreError> {
    let sql =
        "SELECT number, hash, at, public_key, signature FROM audit_checkpoints ORDER BY number DESC LIMIT 1";
    let row = db.query_row(sql, params![], checkpoint).optional();
    row.map_err(StoreError::sql("read the audit's checkpoint"))?.map(readable).transpose()
}

type CheckpointRow = (i64, String, i64, String, String);

fn checkpoint(row: &Row<'_>) -> db::Result<CheckpointRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn readable((number, hash, at, key, signature): CheckpointRow) -> Result<Checkpoint, StoreError> {
    let hash = super::queries::from_word("audit_checkpoints", &hash)?;
    let head = Anchor { number: number.unsigned_abs(), hash };
    Ok(Checkpoint { head, at: moment(at), key, signature })
}
