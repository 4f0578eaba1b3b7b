//! Projects, users, and who is what where. What proves who somebody is lies elsewhere.
//!
//! ```text
//! API, pages ─▶ Tenancy: database ─▶ memory ─▶ whoever is touched is cut off, and comes in again with the new rights
//! ```
//!
//! All of it is in memory (a site has thousands of users at most), so a request costs no query and a change is felt at once.

mod error;
mod members;
mod projects;
mod users;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use boot_server_core::access::{Project, Role, Scope, User};
use protocol::{ProjectId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;

pub use error::TenancyError;

use crate::engine::lock;
use crate::principal::Principal;
use crate::store::{Store, StoreError, tenancy as rows};

/// Projects that are not closed.
const PROJECTS_MAX: usize = 10_000;
/// Users, disabled ones included.
const USERS_MAX: usize = 50_000;
/// Members of one project.
const MEMBERS_MAX: usize = 1000;

/// Projects, users and memberships. Cheap to clone.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>);

struct Inner {
    store: Store,
    known: Mutex<Known>,
    /// One change at a time, so that memory and database agree on the order.
    changes: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    projects: BTreeMap<ProjectId, Project>,
    users: BTreeMap<UserId, KnownUser>,
    members: BTreeMap<(ProjectId, UserId), (Role, Timestamp)>,
    /// Cancelled when a project is closed; made when somebody first asks.
    ends: BTreeMap<ProjectId, CancellationToken>,
}

struct KnownUser {
    user: User,
    /// Cancelled, and made anew, with each change of what they may do.
    rights: CancellationToken,
}

impl Tenancy {
    /// Reads them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let read = |db: &_| Ok((rows::projects(db)?, rows::users(db)?, rows::memberships(db)?));
        let (projects, users, members) = store.read(read).await?;
        let user = |user: User| (user.id, KnownUser { user, rights: CancellationToken::new() });
        let known = Known {
            projects: projects.into_iter().map(|project| (project.id, project)).collect(),
            users: users.into_iter().map(user).collect(),
            members: members.into_iter().map(|m| ((m.project, m.user), (m.role, m.since))).collect(),
            ends: BTreeMap::new(),
        };
        let inner = Inner { store, known: Mutex::new(known), changes: tokio::sync::Mutex::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// What a user may do there now; nothing where they are disabled.
    pub fn role_of(&self, user: UserId, scope: Scope) -> Option<Role> {
        let known = lock(&self.0.known);
        let found = known.users.get(&user).filter(|k| k.user.disabled.is_none())?;
        match scope {
            Scope::Site => found.user.site,
            Scope::Project(project) if !known.is_open(project) => None,
            Scope::Project(project) => {
                let own = known.members.get(&(project, user)).map(|(role, _)| *role);
                let site = found.user.site.and_then(Role::in_every_project);
                match (own, site) {
                    (Some(own), Some(site)) if own.covers(site) => Some(own),
                    (own, site) => site.or(own),
                }
            }
        }
    }

    /// Cancelled with the next change of what this user may do.
    pub(crate) fn rights_of(&self, user: UserId) -> Option<CancellationToken> {
        lock(&self.0.known).users.get(&user).map(|k| k.rights.clone())
    }

    /// Cancelled when the project is closed; `None` where it is.
    pub(crate) fn end_of(&self, project: ProjectId) -> Option<CancellationToken> {
        let mut known = lock(&self.0.known);
        known.is_open(project).then(|| known.ends.entry(project).or_default().clone())
    }

    /// This user, with what they may do now. Who is disabled is nobody.
    pub fn principal(&self, user: UserId) -> Option<Principal> {
        let known = lock(&self.0.known);
        let found = known.users.get(&user).filter(|k| k.user.disabled.is_none())?;
        let projects = known.members.iter().filter(|((_, member), _)| *member == user);
        let projects = projects.filter(|((project, _), _)| known.is_open(*project));
        Some(Principal {
            name: found.user.name.clone(),
            site: found.user.site,
            projects: Arc::new(projects.map(|((project, _), (role, _))| (*project, *role)).collect()),
            token: None,
            user: Some(user),
            session: None,
            ended: vec![found.rights.clone()],
            expires: None,
        })
    }
}

impl Known {
    fn is_open(&self, project: ProjectId) -> bool {
        self.projects.get(&project).is_some_and(|p| p.closed.is_none())
    }

    /// Cuts off whatever the user holds open; what they open next has the new rights.
    fn cut(&mut self, user: UserId) {
        if let Some(known) = self.users.get_mut(&user) {
            std::mem::take(&mut known.rights).cancel();
        }
    }
}

impl std::fmt::Debug for Tenancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenancy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
