//! Server groups of projects.

use boot_server_core::names::GroupName;
use boot_server_core::node::Severity;
use boot_server_core::placement::{Domain, Group, Policy};
use boot_server_core::plural::count;
use protocol::{GroupId, NodeId, ProjectId};
use uuid::Uuid;

use super::pools::PlacingError;
use super::{Actor, Engine, EngineError, now};
use crate::store::groups::{self as rows, GroupRow};
use crate::store::queries::{NewEvent, insert_event};
use crate::store::{StoreError, servers, usage};

/// Groups of one project.
const GROUPS_MAX: usize = 200;

impl Engine {
    /// The server groups of a project, by name.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn server_groups(&self, project: ProjectId) -> Result<Vec<GroupRow>, EngineError> {
        Ok(self.0.store.read(move |db| rows::groups(db, project)).await?)
    }

    /// A server group of a project, by name or id.
    ///
    /// # Errors
    /// [`PlacingError::NoGroup`], or what the store says.
    pub async fn server_group(&self, project: ProjectId, reference: &str) -> Result<GroupRow, EngineError> {
        let id = reference.parse::<GroupId>().ok();
        let wanted = |group: &GroupRow| Some(group.id) == id || group.name.as_str() == reference;
        let found = self.server_groups(project).await?.into_iter().find(wanted);
        Ok(found.ok_or_else(|| PlacingError::NoGroup(reference.chars().take(80).collect()))?)
    }

    /// Makes a server group.
    ///
    /// # Errors
    /// [`EngineError::NameTaken`], or what the store says.
    pub async fn create_server_group(
        &self,
        project: ProjectId,
        actor: Actor,
        (name, policy, domain): (GroupName, Policy, Domain),
    ) -> Result<GroupRow, EngineError> {
        let group = GroupRow {
            id: GroupId(Uuid::now_v7()),
            project,
            name,
            policy,
            domain,
            actor: actor.name().to_owned(),
            created: now(),
        };
        let message = format!("server group {} was made: {policy} in each {}", group.name, domain.words());
        let event = NewEvent::new(now(), actor.name(), "group.created", Severity::Info, message).of(project);
        let (row, line) = (group.clone(), event.clone());
        let stored = self
            .0
            .store
            .write(move |db| {
                if rows::groups(db, project)?.len() >= GROUPS_MAX {
                    return Ok(None);
                }
                rows::insert(db, &row)?;
                insert_event(db, &line).map(Some)
            })
            .await?;
        let Some(number) = stored else { return Err(EngineError::Full("the project has 200 server groups")) };
        self.announce_event(number, event);
        Ok(group)
    }

    /// Removes a server group that no living server is in.
    ///
    /// # Errors
    /// [`PlacingError::NoGroup`], [`PlacingError::Used`], or what the store says.
    pub async fn remove_server_group(
        &self,
        project: ProjectId,
        actor: Actor,
        reference: &str,
    ) -> Result<(), EngineError> {
        let group = self.server_group(project, reference).await?;
        let message = format!("server group {} was removed", group.name);
        let event = NewEvent::new(now(), actor.name(), "group.removed", Severity::Info, message).of(project);
        let (id, line) = (group.id, event.clone());
        let done = self
            .0
            .store
            .write(move |db| {
                // No server is made in it between the look and the end.
                usage::take_turn(db, project)?;
                let living = servers::group_nodes(db, project, id)?.len();
                if living > 0 {
                    return Ok(Err(living));
                }
                if !rows::remove(db, project, id)? {
                    return Err(StoreError::Conflict);
                }
                insert_event(db, &line).map(Ok)
            })
            .await?;
        match done {
            Ok(number) => {
                self.announce_event(number, event);
                Ok(())
            }
            Err(living) => {
                let by = format!("{} in it", count(living, "server"));
                Err(PlacingError::Used { what: format!("server group {}", group.name), by }.into())
            }
        }
    }

    /// A server group as placement wants it, with the machines that its servers have now.
    ///
    /// # Errors
    /// [`PlacingError::NoGroup`], or what the store says.
    pub async fn placement_group(
        &self,
        project: ProjectId,
        group: GroupId,
        nodes: &[NodeId],
    ) -> Result<Group, EngineError> {
        let row = self.server_group(project, &group.to_string()).await?;
        Ok(Group { policy: row.policy, domain: row.domain, members: self.members(nodes) })
    }
}
