//! The rows of server groups. Every statement names the project.

use boot_server_core::names::GroupName;
use boot_server_core::placement::{Domain, Policy};
use protocol::{GroupId, ProjectId, Timestamp};

use super::StoreError;
use super::db::{self, Connection, params};
use super::queries::{all, from_word, moment, ms};

/// Servers of a project that are to be together or apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Names it for ever.
    pub id: GroupId,
    /// Whose.
    pub project: ProjectId,
    /// Names it for people; unique in the project.
    pub name: GroupName,
    /// Together or apart.
    pub policy: Policy,
    /// In what.
    pub domain: Domain,
    /// Who made it.
    pub actor: String,
    /// When.
    pub created: Timestamp,
}

/// Adds a group.
///
/// # Errors
/// [`StoreError::NameTaken`], or what the database says.
pub fn insert(db: &Connection, group: &GroupRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO server_groups (id, project, name, policy, domain, actor, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            group.id.to_string(),
            group.project.to_string(),
            group.name.as_str(),
            group.policy.as_str(),
            group.domain.as_str(),
            group.actor,
            ms(group.created)
        ],
    )
    .map_err(|cause| {
        if db::taken(&cause, "server_groups.project, server_groups.name") {
            StoreError::NameTaken(group.name.to_string())
        } else {
            StoreError::Database { action: "store a server group", cause }
        }
    })?;
    Ok(())
}

/// Removes a group of a project; false where the project has none of this id.
///
/// # Errors
/// What the database says.
pub fn remove(db: &Connection, project: ProjectId, id: GroupId) -> Result<bool, StoreError> {
    let gone = db
        .execute(
            "DELETE FROM server_groups WHERE project = ?1 AND id = ?2",
            params![project.to_string(), id.to_string()],
        )
        .map_err(StoreError::sql("remove a server group"))?;
    Ok(gone == 1)
}

/// The groups of a project, by name.
///
/// # Errors
/// What the database says, or a damaged row.
pub fn groups(db: &Connection, project: ProjectId) -> Result<Vec<GroupRow>, StoreError> {
    let sql =
        "SELECT id, name, policy, domain, actor, created FROM server_groups WHERE project = ?1 ORDER BY name";
    let rows = all(db, "list server groups", sql, params![project.to_string()], |row| {
        let texts: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
        Ok((texts, row.get::<_, String>(4)?, row.get::<_, i64>(5)?))
    })?;
    rows.into_iter()
        .map(|([id, name, policy, domain], actor, created)| {
            Ok(GroupRow {
                id: from_word("server_groups", &id)?,
                project,
                name: from_word("server_groups", &name)?,
                policy: from_word("server_groups", &policy)?,
                domain: from_word("server_groups", &domain)?,
                actor,
                created: moment(created),
            })
        })
        .collect()
}

// What is stored is what serde reads.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queries::word;

    #[test]
    fn words_are_those_of_the_api() {
        for policy in [Policy::AntiAffinity, Policy::Affinity, Policy::SoftAntiAffinity, Policy::SoftAffinity]
        {
            assert_eq!(word("server_groups", &policy).unwrap(), policy.as_str());
        }
        for domain in [Domain::Node, Domain::Rack, Domain::PowerFeed, Domain::Room] {
            assert_eq!(word("server_groups", &domain).unwrap(), domain.as_str());
        }
    }
}
