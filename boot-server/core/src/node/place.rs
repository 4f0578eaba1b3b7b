//! Where a machine stands: the rack, and the lowest unit that it takes there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a rack, in characters.
const RACK_MAX: usize = 64;
/// Highest unit: racks have 42 to 58, and frames of two storeys up to 100.
const UNIT_MAX: u8 = 100;

/// Why something is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// The name of the rack.
    #[error("a rack has a name of 1 to {RACK_MAX} characters on one line")]
    Rack,
    /// The unit.
    #[error("a unit is a number from 1 (the lowest) to {UNIT_MAX}")]
    Unit,
    /// A unit of no rack.
    #[error("a unit needs a rack")]
    NoRack,
}

/// Name of a rack, as the site has it: `R4`, `hall 2, row B, 07`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Rack(String);

/// A unit of a rack, counted from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "u8", into = "u8")]
pub struct Unit(u8);

/// Where a machine stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Place {
    /// The rack.
    pub rack: Rack,
    /// The lowest unit that it takes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

impl Place {
    /// A place of what somebody typed; `None` where nothing was.
    ///
    /// # Errors
    /// [`BadPlace`].
    pub fn typed(rack: &str, unit: &str) -> Result<Option<Self>, BadPlace> {
        match (rack.trim(), unit.trim()) {
            ("", "") => Ok(None),
            ("", _) => Err(BadPlace::NoRack),
            (rack, "") => Ok(Some(Self { rack: rack.parse()?, unit: None })),
            (rack, unit) => Ok(Some(Self { rack: rack.parse()?, unit: Some(unit.parse()?) })),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rack {}", self.rack.0)?;
        self.unit.map_or(Ok(()), |unit| write!(f, ", unit {}", unit.0))
    }
}

impl Rack {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Rack {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let text = text.trim();
        let fits = (1..=RACK_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(BadPlace::Rack) }
    }
}

impl TryFrom<String> for Rack {
    type Error = BadPlace;

    fn try_from(text: String) -> Result<Self, BadPlace> {
        text.parse()
    }
}

impl From<Rack> for String {
    fn from(rack: Rack) -> Self {
        rack.0
    }
}

impl Unit {
    /// Its number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Unit {
    type Error = BadPlace;

    fn try_from(number: u8) -> Result<Self, BadPlace> {
        if (1..=UNIT_MAX).contains(&number) { Ok(Self(number)) } else { Err(BadPlace::Unit) }
    }
}

impl FromStr for Unit {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        // As people write it: `12`, `U12`, `u12`.
        let digits = text.trim().trim_start_matches(['u', 'U']);
        digits.parse::<u8>().map_err(|_| BadPlace::Unit)?.try_into()
    }
}

impl From<Unit> for u8 {
    fn from(unit: Unit) -> Self {
        unit.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        let of = |rack, unit| Place::typed(rack, unit).map(|place| place.map(|place| place.to_string()));
        assert_eq!(of(" R4 ", "U12"), Ok(Some("rack R4, unit 12".to_owned())));
        assert_eq!(of("hall 2, row B", ""), Ok(Some("rack hall 2, row B".to_owned())));
        assert_eq!(of("", " "), Ok(None));
        assert_eq!(of("", "3"), Err(BadPlace::NoRack));
        for unit in ["0", "101", "-1", "x", "1.5"] {
            assert_eq!(of("R4", unit), Err(BadPlace::Unit), "{unit}");
        }
        let long = "x".repeat(65);
        assert_eq!(of(&long, ""), Err(BadPlace::Rack));
        assert_eq!(of("R\u{1b}4", ""), Err(BadPlace::Rack));
    }

    #[test]
    fn what_is_stored_is_a_place() {
        let place = Place::typed("R4", "12").unwrap().unwrap();
        let text = serde_json::to_string(&place).unwrap();
        assert_eq!(text, r#"{"rack":"R4","unit":12}"#);
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
        assert!(serde_json::from_str::<Place>(r#"{"rack":"","unit":12}"#).is_err());
        assert!(serde_json::from_str::<Place>(r#"{"rack":"R4","unit":0}"#).is_err());
    }
}
