//! Servers: claimed in one transaction with their quota, their usage and the answer under an idempotency key; changed one version
//! at a time.
//!
//! Nothing here trusts what was read before the transaction. A machine is claimed where its row says `available` and no living
//! server has it (a unique index); the limits are held against sums made inside; a group's members must be those that the
//! placement saw. Claims of one project come one after the other: each takes the project's turn first, which PostgreSQL holds
//! by the row and SQLite by its one writer.

use std::collections::BTreeSet;

use boot_server_core::amounts::Amounts;
use boot_server_core::quota::{Exceeded, check};
use boot_server_core::server::{Phase, Server};
use boot_server_core::sla::{History, Mark};
use protocol::{GroupId, NodeId, ProjectId, ServerId, Timestamp};

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, Row, params};
use super::queries::{self, NewEvent, Remembered, all, from_word, json, moment, ms, parsed, word};
use super::usage;

/// Why a claim was not stored; nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotClaimed {
    /// Limits would be passed.
    #[error("the project's quota does not allow it")]
    Quota(Vec<Exceeded>),
    /// Another server has the machine, or it is not available any more.
    #[error("the machine was taken meanwhile")]
    NodeTaken(NodeId),
    /// The group has other members than the placement saw.
    #[error("the server group was changed meanwhile")]
    GroupChanged,
    /// The project was closed.
    #[error("the project was closed meanwhile")]
    Closed,
}

/// Servers to make together.
#[derive(Debug, Clone)]
pub struct Claim {
    /// All of one project.
    pub servers: Vec<Server>,
    /// The machines of the group's living servers, as the placement saw them.
    pub group: Option<(GroupId, BTreeSet<NodeId>)>,
    /// What the boot volume of each is going to take.
    pub volume: Amounts,
    /// The answer to remember.
    pub remember: Option<Remembered>,
}

/// Which servers of a project to list.
#[derive(Debug, Clone, Default)]
pub struct ServerFilter {
    /// In this phase; all that live if not given.
    pub phase: Option<Phase>,
    /// Also those that are deleted.
    pub deleted: bool,
    /// With this in the name.
    pub name: Option<String>,
    /// Of this group.
    pub group: Option<GroupId>,
    /// After this one.
    pub after: Option<ServerId>,
    /// At most so many.
    pub limit: usize,
}

const COLUMNS: &str = "id, project, name, flavor, node, server_group, phase, fault, note, actor, created, active, \
                       deleted, version, amounts, spec";

struct Raw {
    words: [String; 4],
    group: Option<String>,
    server: (String, Option<String>, i64, Option<String>, String),
    moments: (i64, Option<i64>, Option<i64>, i64),
    bodies: (String, String),
}

fn raw(row: &Row<'_>) -> super::db::Result<Raw> {
    Ok(Raw {
        words: [row.get(0)?, row.get(1)?, row.get(4)?, row.get(6)?],
        group: row.get(5)?,
        server: (row.get(2)?, row.get(3)?, row.get(7)?, row.get(8)?, row.get(9)?),
        moments: (row.get(10)?, row.get(11)?, row.get(12)?, row.get(13)?),
        bodies: (row.get(14)?, row.get(15)?),
    })
}

fn server(raw: Raw) -> Result<Server, StoreError> {
    const TABLE: &str = "servers";
    let [id, project, node, phase] = &raw.words;
    let (name, flavor, fault, note, by) = raw.server;
    let (created, active, deleted, version) = raw.moments;
    Ok(Server {
        id: from_word(TABLE, id)?,
        project: from_word(TABLE, project)?,
        name,
        flavor,
        node: from_word(TABLE, node)?,
        group: raw.group.map(|group| from_word(TABLE, &group)).transpose()?,
        spec: parsed(TABLE, &raw.bodies.1)?,
        amounts: parsed(TABLE, &raw.bodies.0)?,
        phase: from_word(TABLE, phase)?,
        fault: fault != 0,
        note,
        by,
        created: moment(created),
        active: active.map(moment),
        deleted: deleted.map(moment),
        version,
    })
}

/// Claims machines for servers, all or none, and begins their usage. Returns the numbers of the events.
///
/// # Errors
/// [`StoreError::Claim`], [`StoreError::NameTaken`], [`StoreError::Conflict`] where the idempotency key was used meanwhile, or
/// what the database says.
pub fn claim(
    db: &Connection,
    claim: &Claim,
    events: &[NewEvent],
    at: Timestamp,
    forget: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let Some(project) = claim.servers.first().map(|server| server.project) else { return Ok(Vec::new()) };
    usage::take_turn(db, project)?;
    if let Some(it) = &claim.remember {
        queries::remember(db, it, at, forget)?;
    }
    if !is_open(db, project)? {
        return Err(NotClaimed::Closed.into());
    }
    // A boot volume is taken when it is made; a project that has no room for it is not to get the server.
    let asked = claim.servers.iter().map(|server| server.amounts + claim.volume).sum();
    let exceeded = check(&usage::limits(db, project)?, &usage::used(db, project)?, &asked);
    if !exceeded.is_empty() {
        return Err(NotClaimed::Quota(exceeded).into());
    }
    if let Some((group, seen)) = &claim.group
        && (!has_group(db, project, *group)?
            || group_nodes(db, project, *group)?.into_iter().collect::<BTreeSet<_>>() != *seen)
    {
        return Err(NotClaimed::GroupChanged.into());
    }
    // In one order for everybody, so that no two claims wait for each other.
    let mut servers: Vec<&Server> = claim.servers.iter().collect();
    servers.sort_by_key(|server| server.node);
    for server in servers {
        insert(db, server)?;
        usage::begin_server(db, server)?;
        put_mark(db, server, at)?;
    }
    events.iter().map(|event| queries::insert_event(db, event)).collect()
}

pub(crate) fn is_open(db: &Connection, project: ProjectId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM projects WHERE id = ?1 AND closed IS NULL";
    let found: Option<String> = db
        .query_row(sql, params![project.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("look up a project"))?;
    Ok(found.is_some())
}

fn has_group(db: &Connection, project: ProjectId, group: GroupId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM server_groups WHERE project = ?1 AND id = ?2";
    let found: Option<String> = db
        .query_row(sql, params![project.to_string(), group.to_string()], |row| row.get(0))
        .optional()
        .map_err(StoreError::sql("look up a server group"))?;
    Ok(found.is_some())
}

fn insert(db: &Connection, server: &Server) -> Result<(), StoreError> {
    let node = server.node.to_string();
    // Changes nothing, and holds the row: nobody deploys it for somebody else at the same time.
    let free = db
        .execute("UPDATE nodes SET version = version WHERE id = ?1 AND state = 'available'", params![node])
        .map_err(StoreError::sql("look at a node"))?;
    if free != 1 {
        return Err(NotClaimed::NodeTaken(server.node).into());
    }
    // A conflict that does not fail the statement: in PostgreSQL a failed one would end the transaction.
    let sql = format!(
        "INSERT INTO servers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
         ON CONFLICT DO NOTHING"
    );
    let added = db
        .execute(
            &sql,
            params![
                server.id.to_string(),
                server.project.to_string(),
                server.name,
                server.flavor,
                node,
                server.group.map(|group| group.to_string()),
                word("servers", &server.phase)?,
                i64::from(server.fault),
                server.note,
                server.by,
                ms(server.created),
                server.active.map(ms),
                server.deleted.map(ms),
                server.version,
                json("servers", &server.amounts)?,
                json("servers", &server.spec)?
            ],
        )
        .map_err(StoreError::sql("store a server"))?;
    match added {
        1 => Ok(()),
        _ if of_node(db, server.node)?.is_some() => Err(NotClaimed::NodeTaken(server.node).into()),
        _ => Err(StoreError::NameTaken(server.name.clone())),
    }
}

fn put_mark(db: &Connection, server: &Server, at: Timestamp) -> Result<(), StoreError> {
    db.post(
        "INSERT INTO server_marks (server, version, at, phase, fault) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            server.id.to_string(),
            server.version,
            ms(at),
            word("servers", &server.phase)?,
            i64::from(server.fault)
        ],
    )
    .map_err(StoreError::sql("mark a server"))?;
    Ok(())
}

/// Replaces a server whose row has the version before this one's. Where it is deleted by that, its usage ends.
///
/// # Errors
/// [`StoreError::Conflict`], [`StoreError::NameTaken`], or what the database says.
pub fn update(db: &Connection, server: &Server, at: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT id FROM servers WHERE project = ?1 AND name = ?2 AND deleted IS NULL AND id <> ?3";
    let taken: Option<String> = db
        .query_row(sql, params![server.project.to_string(), server.name, server.id.to_string()], |r| r.get(0))
        .optional()
        .map_err(StoreError::sql("look up a server's name"))?;
    if taken.is_some() {
        return Err(StoreError::NameTaken(server.name.clone()));
    }
    let changed = db
        .execute(
            "UPDATE servers SET name = ?1, phase = ?2, fault = ?3, note = ?4, active = ?5, deleted = ?6, \
             version = version + 1, spec = ?7 WHERE id = ?8 AND version = ?9",
            params![
                server.name,
                word("servers", &server.phase)?,
                i64::from(server.fault),
                server.note,
                server.active.map(ms),
                server.deleted.map(ms),
                json("servers", &server.spec)?,
                server.id.to_string(),
                server.version - 1
            ],
        )
        .map_err(StoreError::sql("change a server"))?;
    if changed != 1 {
        return Err(StoreError::Conflict);
    }
    put_mark(db, server, at)?;
    if let Some(deleted) = server.deleted {
        usage::end_server(db, server.id, deleted)?;
    }
    usage::rename_server(db, server)
}

/// One server, whatever became of it.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn get(db: &Connection, id: ServerId) -> Result<Option<Server>, StoreError> {
    one(db, &format!("SELECT {COLUMNS} FROM servers WHERE id = ?1"), params![id.to_string()])
}

/// A server of this project: a living one by name, any by id.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn find(db: &Connection, project: ProjectId, reference: &str) -> Result<Option<Server>, StoreError> {
    match reference.parse::<ServerId>() {
        Ok(id) => one(
            db,
            &format!("SELECT {COLUMNS} FROM servers WHERE project = ?1 AND id = ?2"),
            params![project.to_string(), id.to_string()],
        ),
        Err(_) => one(
            db,
            &format!("SELECT {COLUMNS} FROM servers WHERE project = ?1 AND name = ?2 AND deleted IS NULL"),
            params![project.to_string(), reference],
        ),
    }
}

/// The living server that has this machine.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn of_node(db: &Connection, node: NodeId) -> Result<Option<Server>, StoreError> {
    one(
        db,
        &format!("SELECT {COLUMNS} FROM servers WHERE node = ?1 AND deleted IS NULL"),
        params![node.to_string()],
    )
}

fn one(db: &Connection, sql: &str, params: impl super::db::Params) -> Result<Option<Server>, StoreError> {
    let found = db.query_row(sql, params, raw).optional().map_err(StoreError::sql("read a server"))?;
    found.map(server).transpose()
}

/// All living servers of the site, by id.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn living(db: &Connection) -> Result<Vec<Server>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM servers WHERE deleted IS NULL ORDER BY id");
    all(db, "list servers", &sql, params![], raw)?.into_iter().map(server).collect()
}

/// The machines that living servers have.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn lent(db: &Connection) -> Result<BTreeSet<NodeId>, StoreError> {
    let nodes =
        all(db, "list lent nodes", "SELECT node FROM servers WHERE deleted IS NULL", params![], |row| {
            row.get::<_, String>(0)
        })?;
    nodes.iter().map(|node| from_word("servers", node)).collect()
}

/// The machines of a group's living servers.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn group_nodes(db: &Connection, project: ProjectId, group: GroupId) -> Result<Vec<NodeId>, StoreError> {
    let sql =
        "SELECT node FROM servers WHERE project = ?1 AND server_group = ?2 AND deleted IS NULL ORDER BY id";
    let values = params![project.to_string(), group.to_string()];
    let nodes = all(db, "list a group's nodes", sql, values, |row| row.get::<_, String>(0))?;
    nodes.iter().map(|node| from_word("servers", node)).collect()
}

/// How many living servers a project has.
///
/// # Errors
/// What the database says.
pub fn count(db: &Connection, project: ProjectId) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM servers WHERE project = ?1 AND deleted IS NULL";
    let count: i64 = db
        .query_row(sql, params![project.to_string()], |row| row.get(0))
        .map_err(StoreError::sql("count servers"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// How many living servers have a flavor.
///
/// # Errors
/// What the database says.
pub fn count_of_flavor(db: &Connection, flavor: &str) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM servers WHERE flavor = ?1 AND deleted IS NULL";
    let count: i64 = db
        .query_row(sql, params![flavor], |row| row.get(0))
        .map_err(StoreError::sql("count servers of a flavor"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Servers of a project, oldest first.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn list(db: &Connection, project: ProjectId, filter: &ServerFilter) -> Result<Vec<Server>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM servers WHERE project = ?1 AND id > ?2 AND (?3 = 1 OR deleted IS NULL) \
         AND (?4 = '' OR phase = ?4) AND (?5 = '' OR LOWER(name) LIKE ?5 ESCAPE '!') \
         AND (?6 = '' OR server_group = ?6) ORDER BY id LIMIT ?7"
    );
    let like = filter.name.as_ref().map(|name| format!("%{}%", escaped(&name.to_lowercase())));
    let phase = filter.phase.map(|phase| phase.as_str().to_owned()).unwrap_or_default();
    let values = params![
        project.to_string(),
        filter.after.map(|after| after.to_string()).unwrap_or_default(),
        i64::from(filter.deleted || filter.phase == Some(Phase::Deleted)),
        phase,
        like.unwrap_or_default(),
        filter.group.map(|group| group.to_string()).unwrap_or_default(),
        i64::try_from(filter.limit).unwrap_or(i64::MAX)
    ];
    all(db, "list servers", &sql, values, raw)?.into_iter().map(server).collect()
}

fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// The histories of servers that lived after `from` and before `to`: of one project, or of all.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn histories(
    db: &Connection,
    project: Option<ProjectId>,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<History>, StoreError> {
    let sql = "SELECT s.id, s.name, s.project, COALESCE(p.name, s.project), m.at, m.phase, m.fault FROM servers s \
               JOIN server_marks m ON m.server = s.id LEFT JOIN projects p ON p.id = s.project \
               WHERE s.created < ?1 AND (s.deleted IS NULL OR s.deleted > ?2) AND (?3 = '' OR s.project = ?3) \
               ORDER BY s.id, m.version";
    let of = project.map(|project| project.to_string()).unwrap_or_default();
    let rows = all(db, "read servers' histories", sql, params![ms(to), ms(from), of], |row| {
        let texts: [String; 5] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(5)?];
        Ok((texts, row.get::<_, i64>(4)?, row.get::<_, i64>(6)?))
    })?;
    let mut histories: Vec<History> = Vec::new();
    for ([id, name, project, project_name, phase], at, fault) in rows {
        let server: ServerId = from_word("servers", &id)?;
        let mark = Mark { at: moment(at), phase: from_word("server_marks", &phase)?, fault: fault != 0 };
        match histories.last_mut().filter(|history| history.server == server) {
            Some(history) => history.marks.push(mark),
            None => {
                let project = from_word("servers", &project)?;
                histories.push(History { server, name, project, project_name, marks: vec![mark] });
            }
        }
    }
    Ok(histories)
}

/// Gives the living server of a machine another machine, if it has one. What becomes of it is read from there on.
///
/// # Errors
/// [`StoreError::Lent`] where a server has that machine already, or what the database says.
pub fn move_to(db: &Connection, from: NodeId, to: NodeId) -> Result<(), StoreError> {
    if let Some(other) = of_node(db, to)? {
        return Err(StoreError::Lent { server: other.name, project: other.project });
    }
    db.execute(
        "UPDATE servers SET node = ?1, version = version + 1 WHERE node = ?2 AND deleted IS NULL",
        params![to.to_string(), from.to_string()],
    )
    .map_err(StoreError::sql("move a server"))?;
    Ok(())
}
