//! Every statement, in the subset that SQLite and PostgreSQL share. Functions that write are for
//! [`Store::write`](super::Store::write), the others for [`Store::read`](super::Store::read).

use boot_server_core::dhcp::{ClientKey, Lease};
use boot_server_core::hardware::Hardware;
use boot_server_core::node::{Effect, Node, Severity};
use protocol::inventory::Inventory;
use protocol::{ImageId, NodeId, ProjectId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use super::audit::{self, Taken};
use super::db::{self, Connection, OptionalExtension as _, Row, params};
use crate::asking;
use crate::view::EventView;

/// A node with the version of its row.
#[derive(Debug, Clone)]
pub struct NodeRow {
    /// The node.
    pub node: Node,
    /// Grows by one with every change.
    pub version: i64,
}

/// A line of the event list before it has a number. [`NewEvent::new`] is how one is made.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// The node it happened to.
    pub node: Option<NodeId>,
    /// The project that it concerns; its people see it.
    pub project: Option<ProjectId>,
    /// Who.
    pub actor: String,
    /// The address that asked for it; none where the server or a machine did it by itself.
    pub source: Option<String>,
    /// Number of the request that asked for it.
    pub request: Option<Uuid>,
    /// Stable kind.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// In words.
    pub message: String,
}

impl NewEvent {
    /// A line about nothing in particular, with the address of the request that is being answered.
    pub fn new(
        at: Timestamp,
        actor: impl Into<String>,
        kind: impl Into<String>,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        Self {
            at,
            node: None,
            project: None,
            actor: actor.into(),
            source: asking::source(),
            request: asking::asking().map(|asked| asked.request),
            kind: kind.into(),
            severity,
            message: message.into(),
        }
    }

    /// It happened to this node.
    #[must_use]
    pub fn on(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// It concerns this project.
    #[must_use]
    pub fn of(self, project: ProjectId) -> Self {
        Self { project: Some(project), ..self }
    }
}

/// An effect that was not carried out yet.
#[derive(Debug, Clone, Copy)]
pub struct EffectRow {
    /// Its number.
    pub id: i64,
    /// The node.
    pub node: NodeId,
    /// What to do.
    pub effect: Effect,
}

/// An image that people can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Names it for ever.
    pub id: ImageId,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// When it was added.
    pub added: Timestamp,
    /// How it came here.
    pub origin: String,
}

/// Which events to list; newest last where `after` is given, else newest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventFilter {
    /// Of this node only.
    pub node: Option<NodeId>,
    /// Of this project only.
    pub project: Option<ProjectId>,
    /// With higher numbers than this.
    pub after: Option<i64>,
    /// With lower numbers than this.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// A request that was answered once under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Which request, such as `deploy <node id>`.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// SHA-256 of what was asked, as text.
    pub request: String,
    /// What was answered.
    pub answer: String,
}

pub(super) fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

pub(super) fn moment(ms: i64) -> Timestamp {
    Timestamp(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn json<T: serde::Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|cause| StoreError::Row { table, cause })
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(
    table: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|cause| StoreError::Row { table, cause })
}

/// A unit variant or id as the text that serde gives it, without quotes.
pub(super) fn word<T: serde::Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    Ok(json(table, value)?.trim_matches('"').to_owned())
}

pub(super) fn from_word<T: serde::de::DeserializeOwned>(
    table: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|cause| StoreError::Row { table, cause })
}

/// All rows of `sql`, each made by `row`.
pub(super) fn all<T>(
    db: &Connection,
    action: &'static str,
    sql: &str,
    params: impl db::Params,
    row: impl FnMut(&Row<'_>) -> db::Result<T>,
) -> Result<Vec<T>, StoreError> {
    db.query_all(sql, params, row).map_err(StoreError::sql(action))
}

/// All nodes, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn nodes(db: &Connection) -> Result<Vec<NodeRow>, StoreError> {
    let rows = all(db, "list nodes", "SELECT body, version FROM nodes ORDER BY name", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get(1)?))
    })?;
    rows.into_iter().map(|(body, version)| Ok(NodeRow { node: parsed("nodes", &body)?, version })).collect()
}

/// One node.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn node(db: &Connection, id: NodeId) -> Result<Option<NodeRow>, StoreError> {
    let row = db
        .query_row("SELECT body, version FROM nodes WHERE id = ?1", params![id.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })
        .optional()
        .map_err(StoreError::sql("read a node"))?;
    row.map(|(body, version)| Ok(NodeRow { node: parsed("nodes", &body)?, version })).transpose()
}

/// Adds a node with version 1.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert_node(db: &Connection, node: &Node) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO nodes (id, name, version, state, deadline, body) VALUES (?1, ?2, 1, ?3, ?4, ?5)",
        params![
            node.id.to_string(),
            node.name,
            node.state.name().as_str(),
            node.deadline().map(ms),
            json("nodes", node)?
        ],
    )
    .map_err(|cause| name_taken(cause, node))?;
    Ok(())
}

/// Replaces a node whose row still has `version`; the row then has the next one.
///
/// # Errors
/// [`StoreError::Conflict`], [`StoreError::NameTaken`], or what the database says.
pub fn update_node(db: &Connection, node: &Node, version: i64) -> Result<(), StoreError> {
    let changed = db
        .execute(
            "UPDATE nodes SET name = ?1, version = version + 1, state = ?2, deadline = ?3, body = ?4 \
             WHERE id = ?5 AND version = ?6",
            params![
                node.name,
                node.state.name().as_str(),
                node.deadline().map(ms),
                json("nodes", node)?,
                node.id.to_string(),
                version
            ],
        )
        .map_err(|cause| name_taken(cause, node))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Forgets a node with its inventory and effects. Its events stay.
///
/// # Errors
/// [`StoreError::Conflict`] where it is gone already, or what the database says.
pub fn delete_node(db: &Connection, id: NodeId) -> Result<(), StoreError> {
    let changed = db
        .execute("DELETE FROM nodes WHERE id = ?1", params![id.to_string()])
        .map_err(StoreError::sql("forget a node"))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

fn name_taken(cause: db::Error, node: &Node) -> StoreError {
    if db::taken(&cause, "nodes.name") {
        StoreError::NameTaken(node.name.clone())
    } else {
        StoreError::Database { action: "store a node", cause }
    }
}

/// Stores a node's inventory in place of the one before.
///
/// # Errors
/// What the database says.
pub fn put_inventory(
    db: &Connection,
    node: NodeId,
    at: Timestamp,
    inventory: &Inventory,
) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO inventories (node, at, body) VALUES (?1, ?2, ?3) \
         ON CONFLICT (node) DO UPDATE SET at = excluded.at, body = excluded.body",
        params![node.to_string(), ms(at), json("inventories", inventory)?],
    )
    .map_err(StoreError::sql("store an inventory"))?;
    super::pools::put_hardware(db, node, &Hardware::of(inventory))
}

/// A node's inventory.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn inventory(db: &Connection, node: NodeId) -> Result<Option<Inventory>, StoreError> {
    let body: Option<String> = db
        .query_row("SELECT body FROM inventories WHERE node = ?1", params![node.to_string()], |r| r.get(0))
        .optional()
        .map_err(StoreError::sql("read an inventory"))?;
    body.map(|body| parsed("inventories", &body)).transpose()
}

/// What `summary` makes of each inventory; they are read one after the other, so that memory holds one of them at a time.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn each_inventory<T>(
    db: &Connection,
    summary: impl Fn(&Inventory) -> T,
) -> Result<Vec<(NodeId, T)>, StoreError> {
    let rows = all(db, "read inventories", "SELECT node, body FROM inventories", [], |row| {
        let (node, body) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        Ok((node, parsed::<Inventory>("inventories", &body).map(|inventory| summary(&inventory))))
    })?;
    rows.into_iter().map(|(node, summary)| Ok((from_word("inventories", &node)?, summary?))).collect()
}

/// Adds an event, and the entry of the audit that tells of it; returns the event's number.
///
/// # Errors
/// What the database says.
pub fn insert_event(db: &Connection, event: &NewEvent) -> Result<i64, StoreError> {
    let Taken { last, next_event } = audit::take(db, 1)?;
    audit::put(db, last, &[audit::of_event(event)])?;
    db.post(
        "INSERT INTO events (id, at, node, actor, kind, severity, message, source, project) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            next_event,
            ms(event.at),
            event.node.map(|n| n.to_string()),
            event.actor,
            event.kind,
            severity_word(event.severity),
            event.message,
            event.source,
            event.project.map(|p| p.to_string())
        ],
    )
    .map_err(StoreError::sql("store an event"))?;
    Ok(next_event)
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Events by filter.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn events(db: &Connection, filter: &EventFilter) -> Result<Vec<EventView>, StoreError> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT e.id, e.at, e.node, n.name, e.actor, e.kind, e.severity, e.message, e.source, e.project \
         FROM events e LEFT JOIN nodes n ON n.id = e.node \
         WHERE e.id > ?1 AND e.id < ?2 AND (?3 IS NULL OR e.node = ?3) \
         AND (?4 IS NULL OR e.project = ?4) ORDER BY e.id {order} LIMIT ?5"
    );
    let values = params![
        filter.after.unwrap_or(0),
        filter.before.unwrap_or(i64::MAX),
        filter.node.map(|n| n.to_string()),
        filter.project.map(|project| project.to_string()),
        i64::try_from(filter.limit).unwrap_or(i64::MAX)
    ];
    let rows = all(db, "list events", &sql, values, |row| {
        let node: Option<String> = row.get(2)?;
        let severity: String = row.get(6)?;
        let project: Option<String> = row.get(9)?;
        let event = EventView {
            id: row.get(0)?,
            at: moment(row.get(1)?),
            node: node.and_then(|n| n.parse().ok()),
            node_name: row.get(3)?,
            project: project.and_then(|p| p.parse().ok()),
            actor: row.get(4)?,
            source: row.get(8)?,
            kind: row.get(5)?,
            severity: Severity::Info,
            message: row.get(7)?,
        };
        Ok((event, severity))
    })?;
    rows.into_iter()
        .map(|(event, severity)| Ok(EventView { severity: from_word("events", &severity)?, ..event }))
        .collect()
}

/// Forgets the oldest events, at most `batch`: those from before `before`, and those that are more than `rows` (0: any
/// number is kept). Returns how many went. The newest is always kept, so that numbers are not given twice.
///
/// # Errors
/// What the database says.
pub fn forget_events(
    db: &Connection,
    before: Timestamp,
    rows: u64,
    batch: usize,
) -> Result<usize, StoreError> {
    let newest: i64 = db
        .query_row("SELECT COALESCE(MAX(id), 0) FROM events", [], |row| row.get(0))
        .map_err(StoreError::sql("find the newest event"))?;
    // Numbers have no holes but at the beginning.
    let first_kept = match i64::try_from(rows) {
        Ok(0) | Err(_) => 0,
        Ok(rows) => newest - rows + 1,
    };
    let limit = i64::try_from(batch).unwrap_or(i64::MAX);
    let oldest: Vec<(i64, i64)> = all(
        db,
        "find old events",
        "SELECT id, at FROM events ORDER BY id LIMIT ?1",
        params![limit],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let old = |&&(id, at): &&(i64, i64)| id < newest && (at < ms(before) || id < first_kept);
    let Some((last, _)) = oldest.iter().take_while(old).last() else { return Ok(0) };
    db.execute("DELETE FROM events WHERE id <= ?1", params![last]).map_err(StoreError::sql("forget events"))
}

/// Adds an effect to carry out.
///
/// # Errors
/// What the database says.
pub fn insert_effect(db: &Connection, node: NodeId, effect: Effect, at: Timestamp) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO effects (id, node, kind, created) SELECT COALESCE(MAX(id), 0) + 1, ?1, ?2, ?3 FROM effects",
        params![node.to_string(), word("effects", &effect)?, ms(at)],
    )
    .map_err(StoreError::sql("store an effect"))?;
    Ok(())
}

/// Effects that were not carried out yet, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn open_effects(db: &Connection) -> Result<Vec<EffectRow>, StoreError> {
    let sql = "SELECT id, node, kind FROM effects WHERE done IS NULL ORDER BY id";
    let rows = all(db, "list effects", sql, [], |row| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    rows.into_iter()
        .map(|(id, node, kind)| {
            Ok(EffectRow { id, node: from_word("effects", &node)?, effect: from_word("effects", &kind)? })
        })
        .collect()
}

/// Notes that an effect was carried out; false where it was noted before.
///
/// # Errors
/// What the database says.
pub fn effect_done(db: &Connection, id: i64, at: Timestamp) -> Result<bool, StoreError> {
    let changed = db
        .execute("UPDATE effects SET done = ?1 WHERE id = ?2 AND done IS NULL", params![ms(at), id])
        .map_err(StoreError::sql("close an effect"))?;
    Ok(changed == 1)
}

/// Forgets effects carried out before `before`.
///
/// # Errors
/// What the database says.
pub fn forget_effects(db: &Connection, before: Timestamp) -> Result<(), StoreError> {
    // The newest is kept, so that numbers are not given twice.
    db.execute(
        "DELETE FROM effects WHERE done IS NOT NULL AND done < ?1 AND id < (SELECT MAX(id) FROM effects)",
        params![ms(before)],
    )
    .map_err(StoreError::sql("forget effects"))?;
    Ok(())
}

/// All images, newest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn images(db: &Connection) -> Result<Vec<ImageRow>, StoreError> {
    let sql = "SELECT id, name, version, added, origin FROM images ORDER BY added DESC, id";
    let rows = all(db, "list images", sql, [], |row| {
        let id: String = row.get(0)?;
        let image = (row.get(1)?, row.get(2)?, moment(row.get(3)?), row.get(4)?);
        Ok((id, image))
    })?;
    rows.into_iter()
        .map(|(id, (name, version, added, origin))| {
            Ok(ImageRow { id: from_word("images", &id)?, name, version, added, origin })
        })
        .collect()
}

/// Adds an image; one that is there already stays as it is, with the newer moment.
///
/// # Errors
/// What the database says.
pub fn put_image(db: &Connection, image: &ImageRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO images (id, name, version, added, origin) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET added = excluded.added, origin = excluded.origin",
        params![image.id.to_string(), image.name, image.version, ms(image.added), image.origin],
    )
    .map_err(StoreError::sql("store an image"))?;
    Ok(())
}

/// Forgets an image; false where it was not known.
///
/// # Errors
/// What the database says.
pub fn delete_image(db: &Connection, id: ImageId) -> Result<bool, StoreError> {
    let changed = db
        .execute("DELETE FROM images WHERE id = ?1", params![id.to_string()])
        .map_err(StoreError::sql("forget an image"))?;
    Ok(changed == 1)
}

/// What was answered to a request with this key after `since`.
///
/// # Errors
/// What the database says.
pub fn remembered(
    db: &Connection,
    scope: &str,
    key: &str,
    since: Timestamp,
) -> Result<Option<Remembered>, StoreError> {
    db.query_row(
        "SELECT request, answer FROM idempotency WHERE scope = ?1 AND key = ?2 AND at >= ?3",
        params![scope, key, ms(since)],
        |row| {
            Ok(Remembered {
                scope: scope.to_owned(),
                key: key.to_owned(),
                request: row.get(0)?,
                answer: row.get(1)?,
            })
        },
    )
    .optional()
    .map_err(StoreError::sql("look up an idempotency key"))
}

/// Remembers an answer, and forgets those older than `forget`.
///
/// # Errors
/// [`StoreError::Conflict`] where the key was used meanwhile, or what the database says.
pub fn remember(
    db: &Connection,
    it: &Remembered,
    at: Timestamp,
    forget: Timestamp,
) -> Result<(), StoreError> {
    db.execute("DELETE FROM idempotency WHERE at < ?1", params![ms(forget)])
        .map_err(StoreError::sql("forget idempotency keys"))?;
    let added = db
        .execute(
            "INSERT INTO idempotency (scope, key, request, answer, at) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (scope, key) DO NOTHING",
            params![it.scope, it.key, it.request, it.answer, ms(at)],
        )
        .map_err(StoreError::sql("remember an idempotency key"))?;
    if added == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Keeps the answer to a request whose key was remembered.
///
/// # Errors
/// What the database says.
pub fn keep_answer(db: &Connection, it: &Remembered) -> Result<(), StoreError> {
    db.execute(
        "UPDATE idempotency SET answer = ?1 WHERE scope = ?2 AND key = ?3",
        params![it.answer, it.scope, it.key],
    )
    .map_err(StoreError::sql("keep an answer"))?;
    Ok(())
}

/// Forgets a key.
///
/// # Errors
/// What the database says.
pub fn forget_answer(db: &Connection, it: &Remembered) -> Result<(), StoreError> {
    db.execute("DELETE FROM idempotency WHERE scope = ?1 AND key = ?2", params![it.scope, it.key])
        .map_err(StoreError::sql("forget an idempotency key"))?;
    Ok(())
}

/// A setting.
///
/// # Errors
/// What the database says.
pub fn setting(db: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    db.query_row("SELECT value FROM settings WHERE name = ?1", params![name], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("read a setting"))
}

/// Stores a setting.
///
/// # Errors
/// What the database says.
pub fn set_setting(db: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO settings (name, value) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )
    .map_err(StoreError::sql("store a setting"))?;
    Ok(())
}

/// Stores leases, each in place of the one of the same address.
///
/// # Errors
/// What the database says.
pub fn put_leases(db: &Connection, leases: &[Lease]) -> Result<(), StoreError> {
    let mut statement = db
        .prepare_cached(
            "INSERT INTO leases (address, expires, body, client) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (address) DO UPDATE \
             SET expires = excluded.expires, body = excluded.body, client = excluded.client",
        )
        .map_err(StoreError::sql("store a lease"))?;
    for lease in leases {
        statement
            .post(params![
                lease.ip.to_string(),
                ms(lease.expires),
                json("leases", lease)?,
                word("leases", &lease.client)?
            ])
            .map_err(StoreError::sql("store a lease"))?;
    }
    Ok(())
}

/// All leases, also those that ended: an address is given to the same machine again.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn leases(db: &Connection) -> Result<Vec<Lease>, StoreError> {
    let rows = all(db, "list leases", "SELECT body FROM leases", [], |row| row.get::<_, String>(0))?;
    rows.iter().map(|body| parsed("leases", body)).collect()
}

/// Leases of these clients, also those that ended, and any whose client is not in its column yet.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn leases_of(db: &Connection, clients: &[ClientKey]) -> Result<Vec<Lease>, StoreError> {
    bodies_of(db, "leases", clients)
}

/// Bodies of rows of this table, which is one of leases, as [`leases_of`].
pub(super) fn bodies_of<T: serde::de::DeserializeOwned>(
    db: &Connection,
    table: &'static str,
    clients: &[impl serde::Serialize],
) -> Result<Vec<T>, StoreError> {
    let (own, unknown) = (
        format!("SELECT body FROM {table} WHERE client = ?1"),
        format!("SELECT body FROM {table} WHERE client IS NULL"),
    );
    let body = |row: &Row<'_>| row.get::<_, String>(0);
    let mut rows = all(db, "list leases of a client", &unknown, [], body)?;
    for client in clients {
        let client = word(table, client)?;
        rows.extend(all(db, "list leases of a client", &own, params![client], body)?);
    }
    rows.iter().map(|body| parsed(table, body)).collect()
}

/// The lease of one address, also one that ended.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn lease(db: &Connection, ip: std::net::Ipv4Addr) -> Result<Option<Lease>, StoreError> {
    let body: Option<String> = db
        .query_row("SELECT body FROM leases WHERE address = ?1", params![ip.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("look up a lease"))?;
    body.map(|body| parsed("leases", &body)).transpose()
}

/// How many leases last beyond `now`.
///
/// # Errors
/// What the database says.
pub fn lease_count(db: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    let count: i64 = db
        .query_row("SELECT COUNT(*) FROM leases WHERE expires > ?1", params![ms(now)], |row| row.get(0))
        .map_err(StoreError::sql("count leases"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
