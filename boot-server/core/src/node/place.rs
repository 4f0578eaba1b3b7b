//! Where a machine stands: the rack, the units that it takes there, the room, and what feeds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a rack, in characters.
const RACK_MAX: usize = 64;
/// Highest unit: racks have 42 to 58, and frames of two storeys up to 100.
pub const UNIT_MAX: u8 = 100;

/// Why something is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// The name of the rack.
    #[error("a rack has a name of 1 to {RACK_MAX} characters on one line")]
    Rack,
    /// The unit.
    #[error("a unit is a number from 1 (the lowest) to {UNIT_MAX}")]
    Unit,
    /// A room or a power feed.
    #[error("a room or a power feed has a name of 1 to {RACK_MAX} characters on one line")]
    Label,
    /// A unit, a room or a power feed of no rack.
    #[error("a unit, a room or a power feed needs a rack")]
    NoRack,
}

/// Name of a room or of a power feed, as the site has it: `hall 2`, `A`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

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
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The rack.
    pub rack: Rack,
    /// The lowest unit that it takes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// How many units it takes, from there up; one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Unit>,
    /// The room that the rack stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Label>,
    /// The power feed that it fails with: of a machine with two, the one that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_feed: Option<Label>,
}

/// What somebody typed of a place; nothing is the empty text.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the fields of `Place`, documented there")]
pub struct Typed<'a> {
    pub rack: &'a str,
    pub unit: &'a str,
    pub height: &'a str,
    pub room: &'a str,
    pub power_feed: &'a str,
}

impl Place {
    /// In this rack; nothing else is known.
    pub fn in_rack(rack: Rack) -> Self {
        Self { rack, unit: None, height: None, room: None, power_feed: None }
    }

    /// A place of what somebody typed; `None` where nothing was.
    ///
    /// # Errors
    /// [`BadPlace`].
    pub fn typed(typed: Typed<'_>) -> Result<Option<Self>, BadPlace> {
        let Typed { rack, unit, height, room, power_feed } = typed;
        if rack.trim().is_empty() {
            let nothing = [unit, height, room, power_feed].iter().all(|text| text.trim().is_empty());
            return if nothing { Ok(None) } else { Err(BadPlace::NoRack) };
        }
        fn given<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
            if text.trim().is_empty() { Ok(None) } else { text.parse().map(Some) }
        }
        let place = Self {
            rack: rack.parse()?,
            unit: given(unit)?,
            height: given(height)?,
            room: given(room)?,
            power_feed: given(power_feed)?,
        };
        Ok(Some(place))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rack {}", self.rack.0)?;
        match (self.unit, self.height) {
            (None, _) => {}
            (Some(unit), Some(height)) if height.0 > 1 => {
                let top = unit.0.saturating_add(height.0 - 1);
                write!(f, ", units {} to {top}", unit.0)?;
            }
            (Some(unit), _) => write!(f, ", unit {}", unit.0)?,
        }
        self.room.as_ref().map_or(Ok(()), |room| write!(f, ", {}", room.0))?;
        self.power_feed.as_ref().map_or(Ok(()), |feed| write!(f, ", power feed {}", feed.0))
    }
}

/// True for a name of 1 to [`RACK_MAX`] characters on one line.
fn is_line(text: &str) -> bool {
    (1..=RACK_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl Label {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let text = text.trim();
        if is_line(text) { Ok(Self(text.to_owned())) } else { Err(BadPlace::Label) }
    }
}

impl TryFrom<String> for Label {
    type Error = BadPlace;

    fn try_from(text: String) -> Result<Self, BadPlace> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
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
        if is_line(text) { Ok(Self(text.to_owned())) } else { Err(BadPlace::Rack) }
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
        let of = |rack, unit| {
            let place = Place::typed(Typed { rack, unit, ..Typed::default() });
            place.map(|place| place.map(|place| place.to_string()))
        };
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
        let full = Typed { rack: "R4", unit: "12", height: "2", room: "hall 2", power_feed: "A" };
        let words = Place::typed(full).unwrap().unwrap().to_string();
        assert_eq!(words, "rack R4, units 12 to 13, hall 2, power feed A");
        assert_eq!(Place::typed(Typed { rack: "", ..full }), Err(BadPlace::NoRack));
        assert_eq!(Place::typed(Typed { room: "\n\u{7}", ..full }), Err(BadPlace::Label));
    }

    #[test]
    fn what_is_stored_is_a_place() {
        let typed = Typed { rack: "R4", unit: "12", ..Typed::default() };
        let place = Place::typed(typed).unwrap().unwrap();
        let text = serde_json::to_string(&place).unwrap();
        assert_eq!(text, r#"{"rack":"R4","unit":12}"#);
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
        assert!(serde_json::from_str::<Place>(r#"{"rack":"","unit":12}"#).is_err());
        assert!(serde_json::from_str::<Place>(r#"{"rack":"R4","unit":0}"#).is_err());
    }
}
