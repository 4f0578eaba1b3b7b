//! How much of something: at least, at most, both, or exactly.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of something. Neither end given: any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// At least so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// At most so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// A text that says no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount: give `16` (exactly), `16..` (at least), `..32` (at most) or `16..32`")]
pub struct BadBounds(String);

impl Bounds {
    /// At least so much.
    pub fn at_least(n: u64) -> Self {
        Self { min: Some(n), max: None }
    }

    /// So much, no more and no less.
    pub fn exactly(n: u64) -> Self {
        Self { min: Some(n), max: Some(n) }
    }

    /// True where it says nothing.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// True where `n` lies in it.
    pub fn holds(&self, n: u64) -> bool {
        self.min.is_none_or(|min| n >= min) && self.max.is_none_or(|max| n <= max)
    }

    /// True where no number lies in it.
    pub fn is_empty(&self) -> bool {
        matches!((self.min, self.max), (Some(min), Some(max)) if min > max)
    }

    /// In words: `at least 16`, `16`, `16 to 32`.
    pub fn words(&self) -> String {
        match (self.min, self.max) {
            (None, None) => "any".to_owned(),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (Some(min), Some(max)) if min == max => format!("exactly {min}"),
            (Some(min), Some(max)) => format!("{min} to {max}"),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => write!(f, "{min}"),
            (min, max) => {
                min.map_or(Ok(()), |min| write!(f, "{min}"))?;
                f.write_str("..")?;
                max.map_or(Ok(()), |max| write!(f, "{max}"))
            }
        }
    }
}

impl FromStr for Bounds {
    type Err = BadBounds;

    fn from_str(text: &str) -> Result<Self, BadBounds> {
        let wrong = || BadBounds(text.chars().take(40).collect());
        let number = |t: &str| t.trim().parse::<u64>().map_err(|_| wrong());
        let end = |t: &str| if t.trim().is_empty() { Ok(None) } else { number(t).map(Some) };
        let bounds = match text.split_once("..") {
            None => Self::exactly(number(text)?),
            Some((min, max)) => Self { min: end(min)?, max: end(max)? },
        };
        if bounds.is_empty() || bounds.is_any() { Err(wrong()) } else { Ok(bounds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for (text, words) in [
            ("16", "exactly 16"),
            ("16..", "at least 16"),
            ("..32", "at most 32"),
            ("16..32", "16 to 32"),
            ("0", "exactly 0"),
        ] {
            let bounds: Bounds = text.parse().unwrap();
            assert_eq!((bounds.to_string().as_str(), bounds.words().as_str()), (text, words));
        }
        for wrong in ["", "..", "x", "3..2", "-1", "1.5"] {
            assert!(wrong.parse::<Bounds>().is_err(), "{wrong}");
        }
        let range: Bounds = "2..3".parse().unwrap();
        assert_eq!([1, 2, 3, 4].map(|n| range.holds(n)), [false, true, true, false]);
        assert!(Bounds::default().holds(u64::MAX));
    }
}
