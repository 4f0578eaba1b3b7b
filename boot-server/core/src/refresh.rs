//! When machines grow old: which of them reach three, four or five years, or leave warranty, and in which quarter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dates::Date;

/// How long before a milestone somebody is told.
pub const AHEAD_DAYS: i64 = 90;
/// Quarters that a plan can look ahead: five years.
pub const QUARTERS_MAX: u32 = 20;

/// What the papers of a machine say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Papers {
    /// When it was bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purchased: Option<Date>,
    /// The last day of its warranty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warranty_end: Option<Date>,
}

/// A day in the life of a machine by which somebody may want another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// Its warranty ends.
    Warranty,
    /// It is three years old.
    ThreeYears,
    /// Four years.
    FourYears,
    /// Five years.
    FiveYears,
}

impl Milestone {
    /// All, in the order in which they usually come.
    pub const ALL: [Self; 4] = [Self::Warranty, Self::ThreeYears, Self::FourYears, Self::FiveYears];

    /// The day on which a machine with these papers reaches it.
    pub fn of(self, papers: &Papers) -> Option<Date> {
        match self {
            Self::Warranty => papers.warranty_end,
            Self::ThreeYears => Some(papers.purchased?.plus_years(3)),
            Self::FourYears => Some(papers.purchased?.plus_years(4)),
            Self::FiveYears => Some(papers.purchased?.plus_years(5)),
        }
    }

    /// As a table has it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Warranty => "warranty ends",
            Self::ThreeYears => "3 years old",
            Self::FourYears => "4 years old",
            Self::FiveYears => "5 years old",
        }
    }
}

/// A machine, as far as its age goes.
#[derive(Debug, Clone)]
pub struct Aged {
    /// Its name.
    pub name: String,
    /// Its model, or maker and product where it has none.
    pub model: String,
    /// Its pool.
    pub pool: Option<String>,
    /// Its papers.
    pub papers: Papers,
}

/// What grows old, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefreshPlan {
    /// The day it was made for.
    pub today: Date,
    /// What is past already: of the ages only the highest that a machine has reached.
    pub past: Vec<RefreshRow>,
    /// The quarters ahead, this one first; each with what is reached in it.
    pub quarters: Vec<RefreshQuarter>,
    /// Machines whose day of purchase is not known.
    pub undated: Vec<String>,
}

/// One quarter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefreshQuarter {
    /// Such as `2027-Q1`.
    pub quarter: String,
    /// What is reached in it.
    pub rows: Vec<RefreshRow>,
}

/// Machines of one model and pool that reach the same milestone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefreshRow {
    /// What.
    pub milestone: Milestone,
    /// Model.
    pub model: String,
    /// Pool.
    pub pool: Option<String>,
    /// Names of the machines.
    pub nodes: Vec<String>,
}

type Rows = BTreeMap<(Milestone, String, Option<String>), Vec<String>>;

/// The plan for the quarter of `today` and those after it, `quarters` in all.
pub fn plan(machines: &[Aged], today: Date, quarters: u32) -> RefreshPlan {
    let ahead = i64::from(quarters.clamp(1, QUARTERS_MAX));
    let (mut past, mut coming): (Rows, Vec<Rows>) =
        (Rows::new(), vec![Rows::new(); quarters.clamp(1, QUARTERS_MAX) as usize]);
    let mut undated = Vec::new();
    for machine in machines {
        if machine.papers.purchased.is_none() {
            undated.push(machine.name.clone());
        }
        let key = |milestone| (milestone, machine.model.clone(), machine.pool.clone());
        let mut age = None;
        for milestone in Milestone::ALL {
            let Some(day) = milestone.of(&machine.papers) else { continue };
            // Under warranty to the end of its last day.
            let over = if milestone == Milestone::Warranty { day < today } else { day <= today };
            if over {
                match milestone {
                    Milestone::Warranty => past.entry(key(milestone)).or_default().push(machine.name.clone()),
                    _ => age = Some(milestone),
                }
                continue;
            }
            let quarter = (0..ahead).find(|n| day < today.quarter_start(n + 1));
            if let Some(rows) = quarter.and_then(|n| coming.get_mut(usize::try_from(n).ok()?)) {
                rows.entry(key(milestone)).or_default().push(machine.name.clone());
            }
        }
        if let Some(milestone) = age {
            past.entry(key(milestone)).or_default().push(machine.name.clone());
        }
    }
    undated.sort();
    let quarters = (0_i64..)
        .zip(coming)
        .map(|(n, rows)| RefreshQuarter { quarter: today.quarter_start(n).quarter(), rows: listed(rows) });
    RefreshPlan { today, past: listed(past), quarters: quarters.collect(), undated }
}

fn listed(rows: Rows) -> Vec<RefreshRow> {
    rows.into_iter()
        .map(|((milestone, model, pool), mut nodes)| {
            nodes.sort();
            RefreshRow { milestone, model, pool, nodes }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, purchased: &str, warranty: &str) -> Aged {
        Aged {
            name: name.into(),
            model: "r640".into(),
            pool: Some("general".into()),
            papers: Papers { purchased: purchased.parse().ok(), warranty_end: warranty.parse().ok() },
        }
    }

    #[test]
    fn a_plan_by_quarter() {
        let machines = [
            machine("n2", "2022-01-15", "2027-01-14"),
            machine("n1", "2022-02-01", "2027-02-01"),
            machine("old", "2020-06-01", "2025-06-01"),
            machine("today", "2023-11-27", "2026-11-27"),
            machine("new", "2026-11-01", ""),
            machine("unknown", "", ""),
        ];
        let plan = plan(&machines, "2026-11-27".parse().unwrap(), 5);
        insta::assert_json_snapshot!(plan);
    }
}
