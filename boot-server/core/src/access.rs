//! Who may do what: projects, users, roles, and until when a named token holds. Who it is that asks, is the shell's
//! business.

use protocol::{ProjectId, Sha256, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name of a token.
const NAME_MAX: usize = 32;
/// Names under which the event list speaks of others than people.
const RESERVED: [&str; 5] = ["operator", "agent", "machine", "server", "admin"];

/// What somebody may do, at the site (whoever runs the racks) or in a project (whoever uses servers). The two scopes share
/// the words. Not an order: an auditor sees more than a member and changes less; ask [`Role::covers`] or a capability.
///
/// | role | at the site | in a project |
/// |---|---|---|
/// | `admin` | everything | everything of the project's, its members and tokens included |
/// | `operator` | machines, images, consoles; enters every project | servers, groups, keys |
/// | `member` | (none) | servers, groups, keys |
/// | `auditor` | looks at everything, the audit included | looks at everything of the project's, the audit included |
/// | `reader` | looks | looks |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look, consoles included; change and type nothing.
    Reader,
    /// Look, also at the audit; change nothing.
    Auditor,
    /// Have servers in a project. There is no such role at the site.
    Member,
    /// At the site: change machines and images, type into consoles, give accounts of controllers. In a project: as a member.
    Operator,
    /// Say who else may come in. At the site also: where the server connects to (consoles, controllers).
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Reader, Self::Auditor, Self::Member, Self::Operator, Self::Admin];
    /// Those that somebody can have at the site.
    pub const OF_SITE: [Self; 4] = [Self::Reader, Self::Auditor, Self::Operator, Self::Admin];

    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Auditor => "auditor",
            Self::Member => "member",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// True where it may do everything that `other` may: then it may also give `other` to somebody.
    pub fn covers(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => matches!(other, Self::Operator | Self::Member | Self::Reader),
            Self::Member => matches!(other, Self::Member | Self::Reader),
            Self::Auditor => matches!(other, Self::Auditor | Self::Reader),
            Self::Reader => other == Self::Reader,
        }
    }

    /// True where it may make the server connect to a place that somebody types (decision 25). A place that is known already,
    /// or that the agent found in the machine, is none. Of the site's roles alone.
    pub fn may_name_places(self) -> bool {
        self == Self::Admin
    }

    /// True where it may change machines, as a role of the site.
    pub fn may_change(self) -> bool {
        matches!(self, Self::Operator | Self::Admin)
    }

    /// True where it may make, change and delete servers, as a role of a project.
    pub fn may_use(self) -> bool {
        matches!(self, Self::Member | Self::Operator | Self::Admin)
    }

    /// True where it may say who else comes in: users, members, tokens of others.
    pub fn may_admit(self) -> bool {
        self == Self::Admin
    }

    /// True where it may read the audit.
    pub fn may_audit(self) -> bool {
        matches!(self, Self::Auditor | Self::Admin)
    }

    /// True for a role that somebody can have at the site.
    pub fn is_of_site(self) -> bool {
        self != Self::Member
    }

    /// The role in each project that comes with a role at the site.
    pub fn in_every_project(self) -> Option<Self> {
        self.may_change().then_some(self)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(NoRole)
    }
}

/// A word that is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of admin, operator, member, auditor, reader")]
pub struct NoRole;

/// Where a token or an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The machines, and what runs them.
    Site,
    /// What one project owns.
    Project(ProjectId),
}

impl Scope {
    /// The project, if it is one.
    pub fn project(self) -> Option<ProjectId> {
        match self {
            Self::Site => None,
            Self::Project(project) => Some(project),
        }
    }
}

/// Those who own servers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Names it for ever.
    pub id: ProjectId,
    /// Names it for people; among projects that are not closed, one has it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// It was closed then. What it did stays.
    pub closed: Option<Timestamp>,
    /// The rest.
    pub body: ProjectBody,
}

/// What is kept of a project beside its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectBody {
    /// What it is for, in its owners' words.
    pub description: String,
}

/// A person who may sign in, without anything that proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Names them for ever.
    pub id: UserId,
    /// The name to sign in with, and that the event list shows.
    pub name: String,
    /// What they may do at the site, if anything.
    pub site: Option<Role>,
    /// When they were added.
    pub created: Timestamp,
    /// They may not sign in since then.
    pub disabled: Option<Timestamp>,
    /// The rest.
    pub body: UserBody,
}

/// What is kept of a user beside name and role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserBody {
    /// The name that people call them by.
    pub full_name: String,
}

/// A named token, as it is kept: never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it for ever.
    pub id: Uuid,
    /// Whose it is; of those that hold, one has it.
    pub name: String,
    /// SHA-256 of its text.
    pub sha256: Sha256,
    /// Where it is good.
    pub scope: Scope,
    /// What it allows there.
    pub role: Role,
    /// The user who made it: it is good for no more than they are. The site's own token makes tokens of nobody.
    pub maker: Option<UserId>,
    /// When it was made.
    pub created: Timestamp,
    /// It ends by itself then.
    pub expires: Option<Timestamp>,
    /// It was ended then.
    pub revoked: Option<Timestamp>,
}

impl Token {
    /// True where it may still be used.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

/// Longest name of a project, pool or flavor.
const NOUN_MAX: usize = 63;
/// Longest description or full name, in characters.
pub const TEXT_MAX: usize = 500;

/// True for the name of a project, pool or flavor: `[a-z0-9][a-z0-9._-]{0,62}`, and no UUID, which would pass for an id.
pub fn is_noun(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=NOUN_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && Uuid::try_parse(name).is_err()
}

/// True for words that people write about something: bounded, and without control characters.
pub fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_MAX && !text.chars().any(char::is_control)
}

/// True for a name that a token or a user may have: 1 to 32 of `a-z`, `0-9`, `.`, `_`, `-`, `@`, beginning with a letter or digit,
/// and none that the event list uses for others.
pub fn is_token_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@".contains(&b);
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_role_may() {
        let table = |may: fn(Role) -> bool| Role::ALL.map(may);
        // reader, auditor, member, operator, admin
        assert_eq!(table(Role::may_change), [false, false, false, true, true]);
        assert_eq!(table(Role::may_use), [false, false, true, true, true]);
        assert_eq!(table(Role::may_audit), [false, true, false, false, true]);
        assert_eq!(table(Role::may_admit), [false, false, false, false, true]);
        assert_eq!(table(Role::may_name_places), [false, false, false, false, true]);
        assert_eq!(
            Role::OF_SITE,
            Role::ALL.map(Some).iter().flatten().copied().filter(|r| r.is_of_site()).collect::<Vec<_>>()[..]
        );
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert!(role.covers(role) && role.covers(Role::Reader) && Role::Admin.covers(role));
            for other in Role::ALL.into_iter().filter(|other| role.covers(*other)) {
                // Whoever covers a role has each of its capabilities.
                for may in [Role::may_change, Role::may_use, Role::may_audit, Role::may_admit] {
                    assert!(may(role) || !may(other), "{role} covers {other}");
                }
            }
        }
        assert!(!Role::Operator.covers(Role::Auditor) && !Role::Auditor.covers(Role::Member));
    }

    #[test]
    fn nouns_are_no_ids() {
        for good in ["a", "team-a", "0x", &"a".repeat(63)] {
            assert!(is_noun(good), "{good}");
        }
        for bad in
            ["", "A", "-a", ".a", "a b", "a/b", "00000000-0000-0000-0000-000000000001", &"a".repeat(64)]
        {
            assert!(!is_noun(bad), "{bad}");
        }
    }

    #[test]
    fn places_are_for_admins() {
        assert!(Role::Admin.may_name_places() && !Role::Operator.may_name_places());
        assert!(!Role::Reader.may_change() && Role::Operator.may_change() && Role::Admin.may_change());
    }

    #[test]
    fn a_token_ends_by_time_and_by_word() {
        let token = Token {
            id: Uuid::nil(),
            name: "alice".to_owned(),
            sha256: Sha256([0; 32]),
            scope: Scope::Site,
            role: Role::Operator,
            maker: None,
            created: Timestamp(1),
            expires: Some(Timestamp(10)),
            revoked: None,
        };
        assert!(token.holds(Timestamp(9)) && !token.holds(Timestamp(10)));
        assert!(Token { expires: None, ..token.clone() }.holds(Timestamp(u64::MAX)));
        assert!(!Token { revoked: Some(Timestamp(5)), ..token }.holds(Timestamp(4)));
    }

    #[test]
    fn nobody_is_called_as_the_server() {
        for good in ["alice", "a", "ci-1", "bob@site", "x.y_z"] {
            assert!(is_token_name(good), "{good}");
        }
        for bad in ["", "Alice", "-a", "a b", "server", "operator", "ü", &"a".repeat(33)] {
            assert!(!is_token_name(bad), "{bad}");
        }
    }
}
