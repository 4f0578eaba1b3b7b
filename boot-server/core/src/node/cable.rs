//! Where the cable of a NIC ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of a switch or of a port, in characters: what LLDP carries (IEEE 802.1AB-2016, 8.5).
const NAME_MAX: usize = 255;

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Cable {
    /// The switch, as the server's configuration names it.
    pub switch: String,
    /// The port, as the switch names it.
    pub port: String,
}

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a switch and a port have names of 1 to {NAME_MAX} characters on one line")]
pub struct BadCable;

impl Cable {
    /// Whether both are names.
    ///
    /// # Errors
    /// [`BadCable`].
    pub fn check(&self) -> Result<(), BadCable> {
        let is_name = |text: &str| {
            (1..=NAME_MAX).contains(&text.chars().count())
                && text.trim() == text
                && !text.chars().any(char::is_control)
        };
        if is_name(&self.switch) && is_name(&self.port) { Ok(()) } else { Err(BadCable) }
    }
}

impl fmt::Display for Cable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} of switch {}", self.port, self.switch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        let cable = |switch: &str, port: &str| Cable { switch: switch.into(), port: port.into() };
        assert_eq!(cable("sw-1", "ge-0/0/1").check(), Ok(()));
        for bad in [cable("", "1"), cable("sw", ""), cable("a\nb", "1"), cable("sw", " 1")] {
            assert_eq!(bad.check(), Err(BadCable), "{bad}");
        }
        assert_eq!(cable("sw-1", "p1").to_string(), "port p1 of switch sw-1");
    }
}
