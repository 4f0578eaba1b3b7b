//! Names that people give to pools, flavors and kinds of machines: short, plain, and safe in every path, page, script and
//! file name that they come to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in octets.
pub const NAME_MAX: usize = 63;
/// Most tags of one machine.
pub const TAGS_MAX: usize = 32;

/// A text that cannot be such a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct NameError {
    /// The offending text, cut to 80 characters.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

/// A letter or digit, then letters, digits and the octets of `also`; at most [`NAME_MAX`].
fn is_plain(text: &str, also: &[u8]) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(b);
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    begins && text.len() <= NAME_MAX && text.as_bytes().iter().all(inner)
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $also:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_plain(text, $also) {
                    return Ok(Self(text.to_owned()));
                }
                Err(NameError { text: text.chars().take(80).collect(), expected: $expected })
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

plain_name!(
    /// Name of a pool, such as `default`, `gold`, `hall-2`.
    PoolName, b"._-", "a name of a pool: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
);
plain_name!(
    /// Name of a flavor, such as `c16-m64`.
    FlavorName, b"._-", "a name of a flavor: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
);
plain_name!(
    /// Name of a server group, such as `db`.
    GroupName, b"._-", "a name of a group: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
);
plain_name!(
    /// What somebody says of a machine that its inventory does not: `ssd-new`, `owner=payments`, `rack:hot`.
    Tag, b"._-=:/", "a tag: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, `=`, `:`, `/`, beginning with a letter or digit"
);

impl PoolName {
    /// The pool of a machine that was put into none.
    pub fn default_pool() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["default", "0", "c16-m64_x.2", &"a".repeat(63)] {
            assert_eq!(good.parse::<PoolName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", "a\n", "<b>", &"a".repeat(64)] {
            assert!(bad.parse::<PoolName>().is_err() && bad.parse::<FlavorName>().is_err(), "{bad}");
        }
        assert!("owner=pay:eu/1".parse::<Tag>().is_ok() && "a b".parse::<Tag>().is_err());
        assert!(serde_json::from_str::<PoolName>(r#""A""#).is_err());
    }
}
