//! Projects.

use boot_server_core::access::{Project, ProjectBody, is_noun, is_text};
use boot_server_core::plural::count;
use protocol::ProjectId;
use uuid::Uuid;

use super::error::cut;
use super::{PROJECTS_MAX, Tenancy, TenancyError};
use crate::engine::{lock, now};
use crate::store::{overlay, servers, tenancy as rows, usage};

impl Tenancy {
    /// All projects that are not closed, by name.
    pub fn projects(&self) -> Vec<Project> {
        let known = lock(&self.0.known);
        let mut all: Vec<Project> = known.projects.values().filter(|p| p.closed.is_none()).cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A project that is not closed, by name or id.
    pub fn project(&self, reference: &str) -> Option<Project> {
        let known = lock(&self.0.known);
        let open = |p: &&Project| p.closed.is_none();
        let id = reference.parse::<ProjectId>().ok();
        let found = match id {
            Some(id) => known.projects.get(&id).filter(open),
            None => known.projects.values().find(|p| open(p) && p.name == reference),
        };
        found.cloned()
    }

    /// A project by id, closed ones included.
    pub fn project_with_id(&self, id: ProjectId) -> Option<Project> {
        lock(&self.0.known).projects.get(&id).cloned()
    }

    /// What people call it; its id where it is not known.
    pub fn project_name(&self, id: ProjectId) -> String {
        self.project_with_id(id).map_or_else(|| id.to_string(), |project| project.name)
    }

    /// Makes a project.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn create_project(&self, name: &str, description: &str) -> Result<Project, TenancyError> {
        let _one = self.0.changes.lock().await;
        if self.projects().len() >= PROJECTS_MAX {
            return Err(TenancyError::Full(format!("{PROJECTS_MAX} projects")));
        }
        let body = ProjectBody { description: checked(name, description)? };
        let id = ProjectId(Uuid::now_v7());
        self.put(Project { id, name: name.to_owned(), created: now(), closed: None, body }).await
    }

    /// Gives a project another name or description.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn change_project(
        &self,
        id: ProjectId,
        name: &str,
        description: &str,
    ) -> Result<Project, TenancyError> {
        let _one = self.0.changes.lock().await;
        let before = self.open_project(id)?;
        let body = ProjectBody { description: checked(name, description)? };
        self.put(Project { name: name.to_owned(), body, ..before }).await
    }

    /// Closes a project: nobody enters it any more, its tokens end, and its name is free.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn close_project(&self, id: ProjectId) -> Result<Project, TenancyError> {
        let _one = self.0.changes.lock().await;
        let before = self.open_project(id)?;
        let closed = Project { closed: Some(now()), ..before };
        let row = closed.clone();
        let close = move |db: &_| {
            // No server is made between the look and the end.
            usage::take_turn(db, id)?;
            let (living, networks) = (servers::count(db, id)?, overlay::count(db, id)?);
            if living == 0 && networks == 0 {
                rows::put_project(db, &row)?;
            }
            Ok((living, networks))
        };
        match self.0.store.write(close).await? {
            (0, 0) => {}
            (0, networks) => {
                let words = format!("{} of its networks", count(networks, "part"));
                return Err(TenancyError::ProjectInUse(words));
            }
            (living, _) => return Err(TenancyError::ProjectInUse(count(living, "server"))),
        }
        lock(&self.0.known).projects.insert(id, closed.clone());
        let mut known = lock(&self.0.known);
        let members: Vec<_> = known.members.keys().filter(|(p, _)| *p == id).map(|(_, user)| *user).collect();
        members.into_iter().for_each(|user| known.cut(user));
        if let Some(end) = known.ends.remove(&id) {
            end.cancel();
        }
        Ok(closed)
    }

    fn open_project(&self, id: ProjectId) -> Result<Project, TenancyError> {
        let found = self.project_with_id(id).filter(|p| p.closed.is_none());
        found.ok_or_else(|| TenancyError::ProjectNotFound(id.to_string()))
    }

    async fn put(&self, project: Project) -> Result<Project, TenancyError> {
        let row = project.clone();
        self.0.store.write(move |db| rows::put_project(db, &row)).await?;
        lock(&self.0.known).projects.insert(project.id, project.clone());
        Ok(project)
    }
}

fn checked(name: &str, description: &str) -> Result<String, TenancyError> {
    if !is_noun(name) {
        return Err(TenancyError::ProjectName(cut(name)));
    }
    let description = description.trim();
    if is_text(description) { Ok(description.to_owned()) } else { Err(TenancyError::Text("description")) }
}
