//! Machines that are expected: ordered, announced, and not seen yet. When one of them boots, it takes its name, its place and
//! what else was said of it.
//!
//! ```text
//! name,mac,serial,model,pool,rack,unit,tags,warranty_end
//! web-1,52:54:00:12:34:56,5CG123,r760,general,R4,12,"gold ssd",2029-11-30
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use protocol::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud_config::is_hostname;
use crate::csv::{self, ListError};
use crate::dates::Date;
use crate::expected::is_name;
use crate::names::{NameError, PoolName, TAGS_MAX, Tag};
use crate::node::Place;
use crate::node::place::Typed;

/// Most machines in one list.
pub const LINES_MAX: usize = 5000;
/// What a heading can be.
pub const COLUMNS: [&str; 15] = [
    "name",
    "mac",
    "uuid",
    "serial",
    "model",
    "pool",
    "rack",
    "unit",
    "height",
    "room",
    "power_feed",
    "bmc_address",
    "tags",
    "purchased",
    "warranty_end",
];
/// Mistakes that are named at once; whoever mends those sees the next ones.
const ERRORS_MAX: usize = 100;
/// Longest text of a field that is not a name, in characters.
const TEXT_MAX: usize = 128;

/// A machine that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The name that it gets: a host name without dots.
    pub name: String,
    /// Addresses of its ports; one that is known is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<MacAddr>,
    /// SMBIOS UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Serial number of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model of its hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Pool that it comes into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Rack, unit, room, power feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Address that its management controller is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_address: Option<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
    /// Day of purchase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchased: Option<Date>,
    /// Last day of its warranty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warranty_end: Option<Date>,
    /// When it was announced; the server sets it.
    #[serde(default)]
    pub announced: Timestamp,
}

impl Arrival {
    /// By what it is known when it boots: one of these is enough.
    pub fn keys(&self) -> Vec<String> {
        keys(&self.macs, self.uuid, self.serial.as_deref())
    }

    /// What is wrong with it, if something is.
    fn check(&self) -> Result<(), String> {
        if !is_hostname(&self.name) || self.name.contains('.') {
            return Err(format!(
                "`{}` is no name for a machine: a host name without dots",
                short(&self.name)
            ));
        }
        if self.keys().is_empty() {
            return Err(
                "it says neither `mac` nor `uuid` nor `serial`, by which it would be known".to_owned()
            );
        }
        if let Some(model) = self.model.as_ref().filter(|model| !is_name(model)) {
            return Err(format!("`{}` is no name of a model", short(model)));
        }
        for (what, text) in [("serial", &self.serial), ("bmc_address", &self.bmc_address)] {
            let wrong = |t: &String| {
                t.trim().is_empty() || t.chars().count() > TEXT_MAX || t.chars().any(char::is_control)
            };
            if text.as_ref().is_some_and(wrong) {
                return Err(format!("`{what}` must have 1 to {TEXT_MAX} characters on one line"));
            }
        }
        if self.tags.len() > TAGS_MAX {
            return Err(format!("it has more than {TAGS_MAX} tags"));
        }
        if let (Some(purchased), Some(end)) = (self.purchased, self.warranty_end)
            && end < purchased
        {
            return Err(format!("its warranty ended on {end}, before it was bought on {purchased}"));
        }
        Ok(())
    }
}

/// The same of a machine that boots. Serial numbers and UUIDs are compared case aside.
pub fn keys(macs: &[MacAddr], uuid: Option<Uuid>, serial: Option<&str>) -> Vec<String> {
    let macs = macs.iter().map(|mac| format!("mac {mac}"));
    let serial =
        serial.map(str::trim).filter(|s| !s.is_empty()).map(|s| format!("serial {}", s.to_lowercase()));
    macs.chain(uuid.map(|uuid| format!("uuid {uuid}"))).chain(serial).collect()
}

/// Machines of a list, with the line of each, or everything that is wrong with it. One mistake refuses the whole list.
///
/// # Errors
/// Each mistake with its line.
pub fn read_csv(text: &str) -> Result<Vec<(usize, Arrival)>, Vec<ListError>> {
    let rows = csv::read(text, &COLUMNS, LINES_MAX).map_err(|error| vec![error])?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (line, fields) in rows {
        match arrival(&fields) {
            Ok(arrival) => good.push((line, arrival)),
            Err(what) => bad.push(ListError { line, what }),
        }
    }
    checked(good, bad)
}

/// The same of machines that came as JSON: their line is their number in the list, from 1.
///
/// # Errors
/// Each mistake with its number.
pub fn check(list: Vec<Arrival>) -> Result<Vec<(usize, Arrival)>, Vec<ListError>> {
    if list.len() > LINES_MAX {
        let what = format!("a list has at most {LINES_MAX} machines: split it");
        return Err(vec![ListError { line: LINES_MAX + 1, what }]);
    }
    checked((1..).zip(list).collect(), Vec::new())
}

fn checked(
    list: Vec<(usize, Arrival)>,
    mut bad: Vec<ListError>,
) -> Result<Vec<(usize, Arrival)>, Vec<ListError>> {
    let (mut names, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for (line, arrival) in &list {
        let line = *line;
        if let Err(what) = arrival.check() {
            bad.push(ListError { line, what });
        }
        if let Some(before) = names.insert(arrival.name.to_lowercase(), line) {
            bad.push(ListError {
                line,
                what: format!("the name {} is in line {before} too", short(&arrival.name)),
            });
        }
        for key in arrival.keys() {
            if let Some(before) = seen.insert(key.clone(), line).filter(|before| *before != line) {
                bad.push(ListError { line, what: format!("{} is in line {before} too", short(&key)) });
            }
        }
    }
    if bad.is_empty() {
        return Ok(list);
    }
    bad.sort_by_key(|error| error.line);
    bad.truncate(ERRORS_MAX);
    Err(bad)
}

fn arrival(fields: &[String]) -> Result<Arrival, String> {
    let text = |column: &str| {
        let at = COLUMNS.iter().position(|c| *c == column)?;
        fields.get(at).map(|field| field.trim().to_owned()).filter(|field| !field.is_empty())
    };
    let column = |column: &str| text(column).unwrap_or_default();
    let macs = column("mac");
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| c.is_whitespace() || c == ';')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let day = |column: &str| {
        let read =
            |text: String| text.parse::<Date>().map_err(|error| format!("`{}`: {error}", short(&text)));
        text(column).map(read).transpose()
    };
    Ok(Arrival {
        name: text("name").ok_or("it has no name")?,
        macs: words(&macs)
            .iter()
            .map(|mac| mac.parse().map_err(|_| format!("`{}` is no address of a port", short(mac))))
            .collect::<Result<_, _>>()?,
        uuid: text("uuid")
            .map(|uuid| uuid.parse().map_err(|_| format!("`{}` is no UUID", short(&uuid))))
            .transpose()?,
        serial: text("serial"),
        model: text("model"),
        pool: named(text("pool"))?,
        place: Place::typed(Typed {
            rack: &column("rack"),
            unit: &column("unit"),
            height: &column("height"),
            room: &column("room"),
            power_feed: &column("power_feed"),
        })
        .map_err(|error| error.to_string())?,
        bmc_address: text("bmc_address"),
        tags: words(&column("tags"))
            .into_iter()
            .map(|tag| named(Some(tag)))
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?,
        purchased: day("purchased")?,
        warranty_end: day("warranty_end")?,
        announced: Timestamp::default(),
    })
}

/// A name, where one is given.
fn named<T: FromStr<Err = NameError>>(text: Option<String>) -> Result<Option<T>, String> {
    text.map(|text| text.parse()).transpose().map_err(|error: NameError| error.to_string())
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usage::cell;

    fn wrong(text: &str) -> Vec<String> {
        read_csv(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_is_read_as_people_write_it() {
        let text = "name,mac,serial,model,pool,rack,unit,tags,purchased,warranty_end,room,bmc_address\r\n\
                    # first rack\r\n\
                    web-1,52:54:00:12:34:56 52:54:00:12:34:57,5CG1,r760,general,R4,U12,\"gold ssd\",2026-11-01,2029-10-31,hall 2,10.0.0.5\r\n\
                    web-2,,=1+1,,,,,,,,,\r\n";
        let list = read_csv(text).unwrap();
        assert_eq!(list.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4]);
        let first = &list[0].1;
        assert_eq!(first.keys().len(), 3);
        assert_eq!(first.place.as_ref().unwrap().to_string(), "rack R4, unit 12, hall 2");
        assert_eq!(first.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["gold", "ssd"]);
        assert_eq!(list[1].1.serial.as_deref(), Some("=1+1"), "a formula is a text like any other");
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        assert_eq!(
            wrong(
                "name,mac,warranty_end,rack,unit\nweb_1,x,,,\nweb-1,,,,\nweb-2,52:54:00:00:00:01,31.12.2029,,\nweb-3,52:54:00:00:00:01,,,4\n"
            ),
            [
                "line 2: `x` is no address of a port",
                "line 3: it says neither `mac` nor `uuid` nor `serial`, by which it would be known",
                "line 4: `31.12.2029`: a day is written as 2027-03-31",
                "line 5: a unit, a room or a power feed needs a rack",
            ]
        );
        assert_eq!(
            wrong("name,mac\na,52:54:00:00:00:01\nA,525400000001\n"),
            ["line 3: the name A is in line 2 too", "line 3: mac 52:54:00:00:00:01 is in line 2 too"]
        );
        assert_eq!(wrong("name,sreial\n").len(), 1);
        let names = wrong("name,serial,tags,pool\na,1,\"<script>\",general\nb,2,,=cmd|x\n");
        assert!(names.len() == 2 && names[0].starts_with("line 2: `<script>` is not a tag"), "{names:?}");
        assert!(names[1].starts_with("line 3: `=cmd|x` is not a name of a pool"), "{names:?}");
        assert_eq!(
            wrong("name,serial,purchased,warranty_end\na,1,2027-01-01,2026-01-01\n"),
            ["line 2: its warranty ended on 2026-01-01, before it was bought on 2027-01-01"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", cells in prop::collection::vec("[ -~]{0,12}", 15)) {
            drop(read_csv(&text));
            let line: Vec<String> = cells.iter().map(|text| cell(text)).collect();
            drop(read_csv(&format!("{}\n{}\n", COLUMNS.join(","), line.join(","))));
        }
    }
}
