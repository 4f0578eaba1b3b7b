//! Who may do what: the roles, and until when a named token holds. Which token a request carries is the shell's business.

use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name of a token.
const NAME_MAX: usize = 32;
/// Names under which the event list speaks of others than people.
const RESERVED: [&str; 5] = ["operator", "agent", "machine", "server", "admin"];

/// What somebody may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything, consoles included; change and type nothing.
    Reader,
    /// Change machines and images, type into consoles, give accounts of controllers.
    Operator,
    /// Make and revoke tokens, and say where the server connects to: consoles, controllers. Only the site's token file has
    /// this role.
    Admin,
}

impl Role {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// True where it may make the server connect to a place that somebody types (decision 25). A place that is known already,
    /// or that the agent found in the machine, is none.
    pub fn may_name_places(self) -> bool {
        self >= Self::Admin
    }

    /// True where it may change things.
    pub fn may_change(self) -> bool {
        self >= Self::Operator
    }
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
    /// What it allows.
    pub role: Role,
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

/// True for a name that a token may have: 1 to 32 of `a-z`, `0-9`, `.`, `_`, `-`, `@`, beginning with a letter or digit,
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
    fn roles_grow() {
        assert!(Role::Reader < Role::Operator && Role::Operator < Role::Admin);
        assert!(Role::Admin.may_name_places() && !Role::Operator.may_name_places());
        assert!(!Role::Reader.may_change() && Role::Operator.may_change() && Role::Admin.may_change());
    }

    #[test]
    fn a_token_ends_by_time_and_by_word() {
        let token = Token {
            id: Uuid::nil(),
            name: "alice".to_owned(),
            sha256: Sha256([0; 32]),
            role: Role::Operator,
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
