//! Metering: a record per server, volume, snapshot, network and floating address, from the moment it was taken to the moment it was given back. Both are
//! written in the transaction that takes or gives back, so a restart makes no gap.
//!
//! A period is charged in whole seconds, and the seconds of adjacent periods add up to those of the whole: each moment is cut to
//! its second before the difference is taken.

use std::collections::BTreeMap;

use protocol::{ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::amounts::{Amounts, Resource};

/// What is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server.
    Server,
    /// A volume.
    Volume,
    /// A network, or a floating address.
    Network,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    /// As it is written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Snapshot => "snapshot",
        }
    }
}

/// One thing that a project had, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub project: ProjectId,
    /// Its name in words: the project's at the time of the report.
    pub project_name: String,
    /// What.
    pub kind: Kind,
    /// Which, for ever.
    pub resource: Uuid,
    /// Its name.
    pub name: String,
    /// Of this flavor; of a volume or snapshot, its type.
    pub flavor: Option<String>,
    /// When it was taken.
    pub started: Timestamp,
    /// When it was given back.
    pub ended: Option<Timestamp>,
    /// So much of each, all the time.
    pub amounts: Amounts,
}

/// From, inclusive, to, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Period {
    /// The first moment.
    pub from: Timestamp,
    /// The moment after the last.
    pub to: Timestamp,
}

/// What a record is worth in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Line {
    /// Whose.
    pub project: ProjectId,
    /// Name of the project.
    pub project_name: String,
    /// What.
    pub kind: Kind,
    /// Which.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub resource: Uuid,
    /// Its name.
    pub name: String,
    /// Of this flavor; of a volume or snapshot, its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// From, within the period.
    pub start: Timestamp,
    /// Until, within the period.
    pub end: Timestamp,
    /// It is still in use at the end of the period.
    pub open: bool,
    /// Whole seconds from `start` to `end`.
    pub seconds: u64,
    /// So much of each, all the time.
    pub amounts: Amounts,
}

/// What a project used in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Total {
    /// Whose.
    pub project: ProjectId,
    /// Name of the project.
    pub project_name: String,
    /// Amount times seconds of each kind: `cores` is core-seconds.
    pub seconds: Amounts,
}

/// A report over a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = UsageReport))]
pub struct Report {
    /// The period, cut to what has passed.
    pub period: Period,
    /// When it was made.
    pub made: Timestamp,
    /// A line per record, by project and beginning.
    pub lines: Vec<Line>,
    /// A sum per project.
    pub totals: Vec<Total>,
}

/// What `records` are worth in `period`. What has not passed yet is not charged.
pub fn report(records: &[Record], period: Period, now: Timestamp) -> Report {
    let period = Period { from: period.from, to: period.to.min(now).max(period.from) };
    let mut lines: Vec<Line> = records.iter().filter_map(|record| clip(record, period)).collect();
    lines.sort_by(|a, b| {
        let key = |l: &Line| (l.project_name.clone(), l.project, l.start, l.resource);
        key(a).cmp(&key(b))
    });
    let mut totals: BTreeMap<(String, ProjectId), Amounts> = BTreeMap::new();
    for line in &lines {
        *totals.entry((line.project_name.clone(), line.project)).or_default() +=
            times(&line.amounts, line.seconds);
    }
    let total = |((project_name, project), seconds)| Total { project, project_name, seconds };
    Report { period, made: now, lines, totals: totals.into_iter().map(total).collect() }
}

/// The part of a record that lies in the period, if any does.
pub fn clip(record: &Record, period: Period) -> Option<Line> {
    let start = record.started.max(period.from);
    let end = record.ended.unwrap_or(period.to).min(period.to);
    if start >= end {
        return None;
    }
    Some(Line {
        project: record.project,
        project_name: record.project_name.clone(),
        kind: record.kind,
        resource: record.resource,
        name: record.name.clone(),
        flavor: record.flavor.clone(),
        start,
        end,
        open: record.ended.is_none_or(|ended| ended > period.to),
        seconds: second(end) - second(start),
        amounts: record.amounts,
    })
}

fn second(at: Timestamp) -> u64 {
    at.0 / 1000
}

fn times(amounts: &Amounts, seconds: u64) -> Amounts {
    let mut product = Amounts::default();
    for resource in Resource::ALL {
        product.set(resource, amounts.of(resource).saturating_mul(seconds));
    }
    product
}

/// The lines as CSV (RFC 4180), with a heading. Moments are in seconds since 1970, UTC.
pub fn csv(report: &Report) -> String {
    let mut text = String::from("project,project_id,kind,resource,name,flavor,start,end,open,seconds");
    for resource in Resource::ALL {
        text.push(',');
        text.push_str(resource.as_str());
    }
    text.push_str("\r\n");
    for line in &report.lines {
        let mut cells = vec![
            cell(&line.project_name),
            line.project.to_string(),
            line.kind.as_str().to_owned(),
            line.resource.to_string(),
            cell(&line.name),
            cell(line.flavor.as_deref().unwrap_or_default()),
            second(line.start).to_string(),
            second(line.end).to_string(),
            line.open.to_string(),
            line.seconds.to_string(),
        ];
        cells.extend(Resource::ALL.map(|resource| line.amounts.of(resource).to_string()));
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A text as a cell of CSV that no spreadsheet takes for a formula: what begins like one gets an apostrophe (OWASP, "CSV
/// injection"), and control characters become spaces.
pub fn cell(text: &str) -> String {
    let calm: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let first = calm.trim_start().chars().next();
    let inert = match first {
        Some('=' | '+' | '-' | '@' | '|' | '%' | '＝' | '＋' | '－' | '＠') => format!("'{calm}"),
        _ => calm,
    };
    let quoted = inert.contains(['"', ',', ';']) || inert.trim() != inert;
    if quoted { format!("\"{}\"", inert.replace('"', "\"\"")) } else { inert }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(started: u64, ended: Option<u64>) -> Record {
        Record {
            project: ProjectId(Uuid::from_u128(1)),
            project_name: "alpha".into(),
            kind: Kind::Server,
            resource: Uuid::from_u128(7),
            name: "web-1".into(),
            flavor: Some("c8".into()),
            started: Timestamp(started),
            ended: ended.map(Timestamp),
            amounts: Amounts { servers: 1, cores: 8, memory_mib: 1024, disks: 2, ..Amounts::default() },
        }
    }

    fn period(from: u64, to: u64) -> Period {
        Period { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn a_record_is_cut_to_the_period_and_to_now() {
        let line = clip(&record(1_500, Some(9_400)), period(0, 100_000)).unwrap();
        assert_eq!((line.seconds, line.open), (8, false), "from second 1 to second 9");
        assert_eq!(clip(&record(1_500, Some(9_400)), period(9_400, 20_000)), None);
        assert_eq!(clip(&record(20_000, None), period(0, 20_000)), None);
        let made = report(&[record(1_000, None)], period(0, 100_000), Timestamp(61_000));
        assert_eq!(
            (made.period.to, made.lines[0].seconds, made.lines[0].open),
            (Timestamp(61_000), 60, true)
        );
        assert_eq!(made.totals[0].seconds.cores, 480);
        assert_eq!(report(&[record(1_000, None)], period(90_000, 100_000), Timestamp(61_000)).lines, []);
    }

    #[test]
    fn csv_of_a_report() {
        let hostile = Record { name: "=HYPERLINK(\"http://x\",\"y\")".into(), ..record(2_000, Some(5_000)) };
        let made = report(&[record(1_000, None), hostile], period(0, 100_000), Timestamp(61_000));
        insta::assert_snapshot!(csv(&made).replace("\r\n", "\n"));
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "|cmd", "＝1"] {
            let cell = cell(text);
            assert!(cell.trim_start_matches('"').starts_with('\''), "{text:?} -> {cell:?}");
        }
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("web-1"), "web-1");
        assert_eq!(cell("a\nb"), "a b");
    }

    proptest! {
        /// However time is cut into periods, their seconds add up to those of the whole: no gap, nothing twice.
        #[test]
        fn periods_add_up(
            started in 0_u64..100_000, length in 0_u64..100_000, mut cuts in prop::collection::vec(0_u64..250_000, 0..20)
        ) {
            let record = record(started, Some(started + length));
            cuts.extend([0, 250_000]);
            cuts.sort_unstable();
            let seconds = |period| clip(&record, period).map_or(0, |line| line.seconds);
            let parts: u64 = cuts.windows(2).map(|w| seconds(period(w[0], w[1]))).sum();
            prop_assert_eq!(parts, seconds(period(0, 250_000)));
        }

        #[test]
        fn a_cell_is_one_cell(text in ".{0,40}") {
            let cell = cell(&text);
            prop_assert!(!cell.contains(['\r', '\n']));
            let plain = !cell.contains(['"', ',']);
            let quoted = cell.starts_with('"') && cell.ends_with('"') && cell[1..cell.len() - 1].replace("\"\"", "").find('"').is_none();
            prop_assert!(plain || quoted, "{}", cell);
        }
    }
}
