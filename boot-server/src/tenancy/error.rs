//! Why a project, user or membership was not made or changed.

use crate::engine::EngineError;
use crate::store::StoreError;
use crate::view::Problem;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// The name cannot be one.
    #[error("`{0}` is no name for a project")]
    ProjectName(String),
    /// The name cannot be one.
    #[error("`{0}` is no name for a user")]
    UserName(String),
    /// Too long, or with control characters.
    #[error("the {0} is longer than 500 characters, or has control characters in it")]
    Text(&'static str),
    /// Nobody can have it there.
    #[error("nobody is `member` at the site")]
    SiteRole,
    /// No such project, or none for whoever asks.
    #[error("no project `{0}`")]
    ProjectNotFound(String),
    /// No such user.
    #[error("no user `{0}`")]
    UserNotFound(String),
    /// Not in the project.
    #[error("`{0}` is not in this project")]
    MemberNotFound(String),
    /// It still has something.
    #[error("the project still has {0}")]
    ProjectInUse(String),
    /// As many as there may be.
    #[error("there are {0} already")]
    Full(String),
    /// The database.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for TenancyError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl TenancyError {
    /// As the client gets it.
    pub fn problem(&self) -> Problem {
        let (status, code, hint) = match self {
            Self::ProjectName(_) => (
                422,
                "project-name",
                "use 1 to 63 of a-z, 0-9 and . _ -, beginning with a letter or digit, and no UUID",
            ),
            Self::UserName(_) => (
                422,
                "user-name",
                "use 1 to 32 of a-z, 0-9 and . _ - @, and none of operator, admin, agent, machine, server",
            ),
            Self::Text(_) => (422, "text", "shorten it"),
            Self::SiteRole => (422, "site-role", "give admin, operator, auditor or reader; or none"),
            Self::ProjectNotFound(_) => (404, "project-not-found", "list them with `billet project list`"),
            Self::UserNotFound(_) => (404, "user-not-found", "list them with `billet user list`"),
            Self::MemberNotFound(_) => {
                (404, "member-not-found", "list them with `billet project member list`")
            }
            Self::ProjectInUse(_) => (409, "project-in-use", "delete them first"),
            Self::Full(_) => (409, "full", "remove those that nobody needs"),
            Self::Engine(error) => return error.problem(),
        };
        Problem { status, code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() }
    }
}

/// What somebody sent, cut so that it fits into a sentence.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
