//! How well a machine is: from sensors and parts to one word with reasons, and to what has to be replaced and where.

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// Reasons that are kept; the worst come first.
const REASONS_MAX: usize = 20;
/// Faults that are kept.
const FAULTS_MAX: usize = 200;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs attention at once.
    Critical,
}

impl Level {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A sensor, read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value, where it gives one now.
    pub value: Option<f64>,
    /// What the controller itself says of it.
    pub told: Option<Level>,
    /// At or above this is a warning.
    pub upper_warning: Option<f64>,
    /// At or above this is critical.
    pub upper_critical: Option<f64>,
    /// At or below this is critical.
    pub lower_critical: Option<f64>,
}

/// Something that is not as it should be: what, where, and what to order for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Part {
    /// How bad.
    pub level: Level,
    /// What: a part, or a sensor with its value.
    pub what: String,
    /// It is a part that can be replaced; else a reading.
    pub replaceable: bool,
    /// Slot, bay or socket.
    pub place: Option<String>,
    /// Maker and model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Part number, for the order of a new one.
    pub part_number: Option<String>,
}

/// How well a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// In one word: the worst of all.
    pub level: Level,
    /// Why, the worst first; empty where all is well.
    pub reasons: Vec<String>,
    /// When it was looked at.
    pub at: Timestamp,
}

impl Sensor<'_> {
    /// How it is. What the controller says counts; where it says nothing its own limits do.
    pub fn level(&self) -> Level {
        if let Some(told) = self.told {
            return told;
        }
        let Some(value) = self.value.filter(|value| value.is_finite()) else { return Level::Ok };
        let above = |limit: Option<f64>| limit.is_some_and(|limit| value >= limit);
        if above(self.upper_critical) || self.lower_critical.is_some_and(|limit| value <= limit) {
            return Level::Critical;
        }
        if above(self.upper_warning) { Level::Warning } else { Level::Ok }
    }

    /// The fault that it shows, if it does.
    pub fn fault(&self) -> Option<Part> {
        let level = self.level();
        let value = self.value.map(|value| format!(" is at {value:.1}")).unwrap_or_default();
        (level > Level::Ok).then(|| Part {
            level,
            what: format!("sensor {}{value}", self.name),
            replaceable: false,
            place: None,
            model: None,
            serial: None,
            part_number: None,
        })
    }
}

/// Puts the worst first, and keeps as many as are of use.
pub fn sorted(mut faults: Vec<Part>) -> Vec<Part> {
    faults.retain(|fault| fault.level > Level::Ok);
    faults.sort_by(|a, b| (b.level, b.replaceable, &a.what).cmp(&(a.level, a.replaceable, &b.what)));
    faults.truncate(FAULTS_MAX);
    faults
}

/// The word and its reasons.
pub fn verdict(faults: &[Part], at: Timestamp) -> Verdict {
    let level = faults.iter().map(|fault| fault.level).max().unwrap_or(Level::Ok);
    let reason = |fault: &Part| {
        let place = fault.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}: {}", fault.what, fault.level.as_str())
    };
    Verdict { level, reasons: faults.iter().take(REASONS_MAX).map(reason).collect(), at }
}

/// Tells when the word changes. A sensor at its limit goes to and fro, so a change must be seen twice to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    told: Option<Level>,
    last: Option<Level>,
}

impl Change {
    /// Begins where another one ended: this word was told.
    pub fn known(level: Level) -> Self {
        Self { told: Some(level), last: Some(level) }
    }

    /// Takes a reading; the new word where it is to be told. A machine that is well at first is no news.
    pub fn handle(&mut self, level: Level) -> Option<Level> {
        let twice = self.last.replace(level) == Some(level);
        let before = self.told.unwrap_or(Level::Ok);
        if !twice || before == level {
            return None;
        }
        self.told = Some(level);
        Some(level)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sensor(value: f64) -> Sensor<'static> {
        Sensor {
            name: "CPU",
            value: Some(value),
            told: None,
            upper_warning: Some(80.0),
            upper_critical: Some(90.0),
            lower_critical: Some(5.0),
        }
    }

    #[test]
    fn limits_count_where_the_controller_says_nothing() {
        let of = |value| sensor(value).level();
        assert_eq!(
            [of(20.0), of(80.0), of(90.0), of(5.0)],
            [Level::Ok, Level::Warning, Level::Critical, Level::Critical]
        );
        assert_eq!(Sensor { told: Some(Level::Ok), ..sensor(95.0) }.level(), Level::Ok);
        assert_eq!(Sensor { value: None, ..sensor(0.0) }.level(), Level::Ok, "a machine that is off");
        assert_eq!(of(f64::NAN), Level::Ok);
    }

    #[test]
    fn the_worst_comes_first_and_parts_before_readings() {
        let part = |level, what: &str, replaceable| Part {
            level,
            what: what.into(),
            replaceable,
            place: replaceable.then(|| "bay 3".into()),
            model: None,
            serial: None,
            part_number: None,
        };
        let faults = sorted(vec![
            part(Level::Warning, "fan 1", true),
            part(Level::Ok, "fan 2", true),
            part(Level::Critical, "sensor CPU is at 95.0", false),
            part(Level::Critical, "disk 3", true),
        ]);
        let verdict = verdict(&faults, Timestamp(7));
        assert_eq!(verdict.level, Level::Critical);
        assert_eq!(
            verdict.reasons,
            ["disk 3 (bay 3): critical", "sensor CPU is at 95.0: critical", "fan 1 (bay 3): warning"]
        );
        assert_eq!(super::verdict(&[], Timestamp(7)).level, Level::Ok);
    }

    #[test]
    fn a_change_is_told_when_it_stays() {
        let mut change = Change::default();
        let told: Vec<_> = [
            Level::Ok,
            Level::Ok,
            Level::Critical,
            Level::Ok,
            Level::Critical,
            Level::Critical,
            Level::Critical,
            Level::Ok,
            Level::Ok,
        ]
        .into_iter()
        .filter_map(|level| change.handle(level))
        .collect();
        assert_eq!(told, [Level::Critical, Level::Ok]);
    }

    proptest! {
        #[test]
        fn never_told_twice_in_a_row(levels in prop::collection::vec(0_u8..3, 0..60)) {
            let of = |n| [Level::Ok, Level::Warning, Level::Critical][usize::from(n)];
            let mut change = Change::default();
            let mut last = Level::Ok;
            for n in levels {
                if let Some(told) = change.handle(of(n)) {
                    prop_assert!(told != last && told == of(n));
                    last = told;
                }
            }
        }
    }
}
