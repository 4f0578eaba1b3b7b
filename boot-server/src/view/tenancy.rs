//! Projects, users and members as the API shows them.

use boot_server_core::access::{Project, Role, User};
use protocol::{ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectView {
    /// Names it for ever.
    pub id: ProjectId,
    /// Names it for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// It was closed then.
    pub closed: Option<Timestamp>,
    /// What whoever asks may do in it.
    pub role: Option<Role>,
}

impl ProjectView {
    /// The project, for somebody with this role in it.
    pub fn of(project: &Project, role: Option<Role>) -> Self {
        Self {
            id: project.id,
            name: project.name.clone(),
            description: project.body.description.clone(),
            created: project.created,
            closed: project.closed,
            role,
        }
    }
}

/// Somebody in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// The user.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// The name that people call them by.
    pub full_name: String,
    /// What they may do here.
    pub role: Role,
    /// Since when they have been in it.
    pub since: Timestamp,
    /// They may not sign in since then.
    pub disabled: Option<Timestamp>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Names them for ever.
    pub id: UserId,
    /// The name to sign in with.
    pub name: String,
    /// The name that people call them by.
    pub full_name: String,
    /// What they may do at the site, if anything.
    pub site_role: Option<Role>,
    /// When they were added.
    pub created: Timestamp,
    /// They may not sign in since then.
    pub disabled: Option<Timestamp>,
    /// What they are in projects.
    pub projects: Vec<ProjectRoleView>,
}

impl UserView {
    /// The user with what they are in projects.
    pub fn of(user: &User, projects: Vec<ProjectRoleView>) -> Self {
        Self {
            id: user.id,
            name: user.name.clone(),
            full_name: user.body.full_name.clone(),
            site_role: user.site,
            created: user.created,
            disabled: user.disabled,
            projects,
        }
    }
}

/// What somebody is in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectRoleView {
    /// The project.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// The role.
    pub role: Role,
}

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeView {
    /// As the event list calls them.
    pub name: String,
    /// The user, where it is one or a token of one.
    pub user: Option<UserId>,
    /// What they may do at the site, if anything.
    pub site_role: Option<Role>,
    /// What they were made in projects.
    pub projects: Vec<ProjectRoleView>,
}
