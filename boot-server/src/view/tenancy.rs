//! Projects, users and members as the API shows them.

use boot_server_core::access::{Project, Role, User};
use protocol::{ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

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
    /// They have a password here.
    pub password: bool,
    /// Signing in by it needs a code too.
    pub second_factor: bool,
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
            password: false,
            second_factor: false,
            projects,
        }
    }

    /// With what proves who they are.
    #[must_use]
    pub fn with(self, (password, second_factor): (bool, bool)) -> Self {
        Self { password, second_factor, ..self }
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

/// Where a user is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Names it.
    pub id: Uuid,
    /// When it began.
    pub created: Timestamp,
    /// It ends by itself then.
    pub expires: Timestamp,
    /// The address it began at.
    pub source: String,
    /// What the browser or program calls itself.
    pub agent: String,
    /// It is the one that asks.
    pub present: bool,
}

/// A session that was just begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionCreated {
    /// Who it is.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// It ends by itself then.
    pub expires: Timestamp,
    /// To be sent as a bearer token; shown this once.
    pub secret: String,
}

/// A second factor on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentView {
    /// The key in base32 (RFC 4648), for an authenticator that is typed into.
    pub secret: String,
    /// The same as a URI (`otpauth:`).
    pub uri: String,
}

/// Recovery codes, shown this once. Each is good once, instead of a code of the authenticator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryView {
    /// The codes.
    pub codes: Vec<String>,
}
