//! The rows of projects, users and memberships.

use super::StoreError;
use super::db::{Connection, OptionalExtension as _, params};
use super::queries::{all, from_word, json, moment, ms, parsed, word};
use boot_server_core::access::{Project, Role, User};
use protocol::{ProjectId, Timestamp, UserId};

/// Who is what in which project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Where.
    pub project: ProjectId,
    /// Who.
    pub user: UserId,
    /// What.
    pub role: Role,
    /// Since when they have been in it.
    pub since: Timestamp,
}

/// All projects, closed ones included.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn projects(db: &Connection) -> Result<Vec<Project>, StoreError> {
    let sql = "SELECT id, name, created, closed, body FROM projects ORDER BY created, id";
    let rows = all(db, "list projects", sql, [], |row| {
        let texts: (String, String, String) = (row.get(0)?, row.get(1)?, row.get(4)?);
        let moments: (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
        Ok((texts, moments))
    })?;
    rows.into_iter()
        .map(|((id, name, body), (created, closed))| {
            Ok(Project {
                id: from_word("projects", &id)?,
                name,
                created: moment(created),
                closed: closed.map(moment),
                body: parsed("projects", &body)?,
            })
        })
        .collect()
}

/// Adds a project, or replaces what may change of it: name, end, body.
///
/// # Errors
/// [`StoreError::NameTaken`] where another one that is not closed has the name, or what the database says.
pub fn put_project(db: &Connection, project: &Project) -> Result<(), StoreError> {
    let other: Option<String> = db
        .query_row(
            "SELECT id FROM projects WHERE name = ?1 AND closed IS NULL AND id <> ?2",
            params![project.name, project.id.to_string()],
            |row| row.get(0),
        )
        .optional()
        .map_err(StoreError::sql("look for a project"))?;
    if other.is_some() && project.closed.is_none() {
        return Err(StoreError::NameTaken(project.name.clone()));
    }
    db.execute(
        "INSERT INTO projects (id, name, created, closed, body) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, closed = excluded.closed, body = excluded.body",
        params![
            project.id.to_string(),
            project.name,
            ms(project.created),
            project.closed.map(ms),
            json("projects", &project.body)?
        ],
    )
    .map_err(StoreError::sql("store a project"))?;
    Ok(())
}

/// All users, disabled ones included.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn users(db: &Connection) -> Result<Vec<User>, StoreError> {
    let sql = "SELECT id, name, site_role, created, disabled, body FROM users ORDER BY name";
    let rows = all(db, "list users", sql, [], |row| {
        let texts: (String, String, Option<String>, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(5)?);
        let moments: (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
        Ok((texts, moments))
    })?;
    rows.into_iter()
        .map(|((id, name, site, body), (created, disabled))| {
            Ok(User {
                id: from_word("users", &id)?,
                name,
                site: site.map(|role| from_word("users", &role)).transpose()?,
                created: moment(created),
                disabled: disabled.map(moment),
                body: parsed("users", &body)?,
            })
        })
        .collect()
}

/// Adds a user, or replaces what may change of them: role at the site, end, body.
///
/// # Errors
/// [`StoreError::NameTaken`] where somebody has, or had, the name; or what the database says.
pub fn put_user(db: &Connection, user: &User) -> Result<(), StoreError> {
    let other: Option<String> = db
        .query_row(
            "SELECT id FROM users WHERE name = ?1 AND id <> ?2",
            params![user.name, user.id.to_string()],
            |row| row.get(0),
        )
        .optional()
        .map_err(StoreError::sql("look for a user"))?;
    if other.is_some() {
        return Err(StoreError::NameTaken(user.name.clone()));
    }
    db.execute(
        "INSERT INTO users (id, name, site_role, created, disabled, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET site_role = excluded.site_role, disabled = excluded.disabled, \
         body = excluded.body",
        params![
            user.id.to_string(),
            user.name,
            user.site.map(|role| word("users", &role)).transpose()?,
            ms(user.created),
            user.disabled.map(ms),
            json("users", &user.body)?
        ],
    )
    .map_err(StoreError::sql("store a user"))?;
    Ok(())
}

/// All memberships.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn memberships(db: &Connection) -> Result<Vec<Membership>, StoreError> {
    let sql = "SELECT project, user_id, role, since FROM memberships";
    let rows = all(db, "list memberships", sql, [], |row| {
        let texts: (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((texts, row.get::<_, i64>(3)?))
    })?;
    rows.into_iter()
        .map(|((project, user, role), since)| {
            Ok(Membership {
                project: from_word("memberships", &project)?,
                user: from_word("memberships", &user)?,
                role: from_word("memberships", &role)?,
                since: moment(since),
            })
        })
        .collect()
}

/// Takes somebody into a project, or gives them another role in it.
///
/// # Errors
/// What the database says.
pub fn put_membership(db: &Connection, it: &Membership) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO memberships (project, user_id, role, since) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (project, user_id) DO UPDATE SET role = excluded.role",
        params![it.project.to_string(), it.user.to_string(), word("memberships", &it.role)?, ms(it.since)],
    )
    .map_err(StoreError::sql("store a membership"))?;
    Ok(())
}

/// Takes somebody out of a project.
///
/// # Errors
/// What the database says.
pub fn delete_membership(db: &Connection, project: ProjectId, user: UserId) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM memberships WHERE project = ?1 AND user_id = ?2",
        params![project.to_string(), user.to_string()],
    )
    .map_err(StoreError::sql("end a membership"))?;
    Ok(())
}
