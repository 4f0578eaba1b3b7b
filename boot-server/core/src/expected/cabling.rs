//! Names of switches and ports as a cabling plan writes them: `sw-{rack}-1`, `Ethernet{unit}`, `ge-0/0/{unit+1}`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Place;

/// Longest template, in characters.
const TEMPLATE_MAX: usize = 128;
/// What may be added to a unit.
const SHIFT_MAX: i32 = 1000;

/// Why something is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// It is empty, too long, or on several lines.
    #[error("a switch or port has a name of 1 to {TEMPLATE_MAX} characters on one line")]
    Text,
    /// Something else stands in braces.
    #[error("`{{{0}}}` is unknown: there are {{rack}}, {{unit}}, {{unit+1}} and {{unit-1}}")]
    Unknown(String),
    /// A brace has no other.
    #[error("a brace is opened and not closed, or closed and not opened")]
    Brace,
}

/// A name with the machine's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Template(String);

/// A piece of a template.
enum Piece<'a> {
    Text(&'a str),
    Rack,
    Unit(i32),
}

impl Template {
    /// The name for a machine that stands there; `None` where the template needs what is not known of the place.
    pub fn fill(&self, place: Option<&Place>) -> Option<String> {
        let mut out = String::new();
        for piece in pieces(&self.0).unwrap_or_default() {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Rack => out.push_str(place?.rack.as_str()),
                Piece::Unit(shift) => {
                    out.push_str(&(i32::from(place?.unit?.number()) + shift).to_string());
                }
            }
        }
        Some(out)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, BadTemplate> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        if !before.is_empty() {
            out.push(Piece::Text(before));
        }
        let inner = from.strip_prefix('{').ok_or(BadTemplate::Brace)?;
        let end = inner.find('}').ok_or(BadTemplate::Brace)?;
        out.push(variable(&inner[..end])?);
        rest = &inner[end + 1..];
    }
    if !rest.is_empty() {
        out.push(Piece::Text(rest));
    }
    Ok(out)
}

fn variable(text: &str) -> Result<Piece<'_>, BadTemplate> {
    let unknown = || BadTemplate::Unknown(text.chars().take(40).collect());
    match text {
        "rack" => Ok(Piece::Rack),
        "unit" => Ok(Piece::Unit(0)),
        _ => {
            let shift =
                text.strip_prefix("unit").filter(|t| t.starts_with(['+', '-'])).ok_or_else(unknown)?;
            let shift: i32 = shift.parse().map_err(|_| unknown())?;
            if shift.abs() > SHIFT_MAX { Err(unknown()) } else { Ok(Piece::Unit(shift)) }
        }
    }
}

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Self, BadTemplate> {
        let fits = (1..=TEMPLATE_MAX).contains(&text.chars().count());
        if !fits || text.chars().any(char::is_control) || text.trim() != text {
            return Err(BadTemplate::Text);
        }
        pieces(&text)?;
        Ok(Self(text))
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.0
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::place::Typed;

    #[test]
    fn the_place_is_filled_in() {
        let place = Place::typed(Typed { rack: "R4", unit: "12", ..Typed::default() }).unwrap();
        let of = |text: &str| Template::try_from(text.to_owned()).unwrap();
        let filled = |text: &str| of(text).fill(place.as_ref()).unwrap();
        assert_eq!(filled("sw-{rack}-1"), "sw-R4-1");
        assert_eq!(filled("Ethernet{unit}"), "Ethernet12");
        assert_eq!(filled("ge-0/0/{unit+24}"), "ge-0/0/36");
        assert_eq!(filled("{unit-1}"), "11");
        assert_eq!(filled("spine"), "spine");
        assert_eq!(of("sw-{rack}").fill(None), None);
        assert_eq!(of("spine").fill(None).as_deref(), Some("spine"));
        let rack = Place::typed(Typed { rack: "R4", unit: "", ..Typed::default() }).unwrap();
        assert_eq!(of("{unit}").fill(rack.as_ref()), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let of = |text: &str| Template::try_from(text.to_owned()).unwrap_err();
        assert_eq!(of(""), BadTemplate::Text);
        assert_eq!(of("a\nb"), BadTemplate::Text);
        assert_eq!(of("{row}"), BadTemplate::Unknown("row".into()));
        assert_eq!(of("{unit*2}"), BadTemplate::Unknown("unit*2".into()));
        assert_eq!(of("{unit+9999}"), BadTemplate::Unknown("unit+9999".into()));
        assert_eq!(of("{rack"), BadTemplate::Brace);
        assert_eq!(of("rack}"), BadTemplate::Brace);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,60}") {
            if let Ok(template) = Template::try_from(text) {
                drop(template.fill(Place::typed(Typed { rack: "R4", unit: "12", ..Typed::default() }).unwrap().as_ref()));
            }
        }
    }
}
