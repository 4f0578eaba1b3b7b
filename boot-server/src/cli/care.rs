//! `billet node maintenance, retire, adopt, papers, refresh-plan`: what is said of a machine beside its state.

use std::time::Duration;

use boot_server_core::dates::Date;
use boot_server_core::refresh::{Papers, RefreshPlan, RefreshRow};
use protocol::Timestamp;

use super::Failure;
use super::client::Client;
use super::node::path;
use super::output::{Format, Show, table};
use super::text::plain;
use crate::engine::now;
use crate::http::api::requests::{MaintenanceRequest, RetireRequest};
use crate::view::{NodeDetail, NodeView};

/// `billet node maintenance`.
#[derive(Debug, clap::Args)]
pub struct MaintenanceArgs {
    /// Name or id
    node: String,
    /// Why
    #[arg(long, required_unless_present = "off")]
    reason: Option<String>,
    /// It ends by itself after so long, such as 90m, 4h, 3d
    #[arg(long = "for", value_name = "TIME", value_parser = length, conflicts_with = "until")]
    lasts: Option<Duration>,
    /// It ends by itself when this day begins (UTC), such as 2027-03-31
    #[arg(long, value_name = "DAY")]
    until: Option<Date>,
    /// End the maintenance
    #[arg(long, conflicts_with_all = ["reason", "lasts", "until"])]
    off: bool,
}

/// `billet node retire`.
#[derive(Debug, clap::Args)]
pub struct RetireArgs {
    /// Name or id
    node: String,
    /// Why
    #[arg(long, required_unless_present = "off")]
    reason: Option<String>,
    /// Take it back
    #[arg(long, conflicts_with = "reason")]
    off: bool,
}

/// `billet node papers`.
#[derive(Debug, clap::Args)]
pub struct PapersArgs {
    /// Name or id
    node: String,
    /// Day of purchase; what is not given stays as it is
    #[arg(long, value_name = "DAY")]
    purchased: Option<Date>,
    /// Last day of its warranty
    #[arg(long, value_name = "DAY")]
    warranty_end: Option<Date>,
}

/// A length of time as people write it: `90m`, `4h`, `3d`.
fn length(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number and m, h or d, such as 90m, 4h, 3d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let minutes = match unit {
        "m" => Some(number),
        "h" => number.checked_mul(60),
        "d" => number.checked_mul(24 * 60),
        _ => None,
    };
    // A hundred years.
    let minutes = minutes.filter(|m| (1..=52_560_000).contains(m)).ok_or_else(wrong)?;
    Ok(Duration::from_mins(minutes))
}

pub(super) fn maintenance(client: &Client, format: Format, args: &MaintenanceArgs) -> Result<(), Failure> {
    let until: Option<Timestamp> = match (args.lasts, args.until) {
        (Some(lasts), _) => Some(now().after(lasts)),
        (None, Some(day)) => Some(day.start()),
        (None, None) => None,
    };
    let request = MaintenanceRequest { reason: args.reason.clone(), until };
    format.print(&client.post::<_, NodeView>(&path(&args.node, "/maintenance"), &request)?)
}

pub(super) fn retire(client: &Client, format: Format, args: &RetireArgs) -> Result<(), Failure> {
    let request = RetireRequest { reason: args.reason.clone() };
    format.print(&client.post::<_, NodeView>(&path(&args.node, "/retire"), &request)?)
}

pub(super) fn papers(client: &Client, format: Format, args: &PapersArgs) -> Result<(), Failure> {
    let known: NodeDetail = client.get(&path(&args.node, ""))?;
    let request = Papers {
        purchased: args.purchased.or(known.node.papers.purchased),
        warranty_end: args.warranty_end.or(known.node.papers.warranty_end),
    };
    format.print(&client.put::<_, NodeView>(&path(&args.node, "/papers"), &request)?)
}

pub(super) fn refresh_plan(client: &Client, format: Format, quarters: u32) -> Result<(), Failure> {
    format.print(&client.get::<RefreshPlan>(&format!("refresh-plan?quarters={quarters}"))?)
}

impl Show for RefreshPlan {
    fn table(&self) -> String {
        let row = |when: &str, row: &RefreshRow| {
            vec![
                when.to_owned(),
                row.milestone.words().to_owned(),
                row.model.clone(),
                row.pool.clone().unwrap_or_default(),
                row.nodes.len().to_string(),
                row.nodes.join(" "),
            ]
        };
        let past = self.past.iter().map(|r| row("now", r));
        let ahead = self.quarters.iter().flat_map(|q| q.rows.iter().map(|r| row(&q.quarter, r)));
        let rows: Vec<_> = past.chain(ahead).collect();
        let mut text = if rows.is_empty() {
            "No machine reaches 3, 4 or 5 years or leaves warranty in this time.\n".to_owned()
        } else {
            format!("{}\n", table(&["when", "what", "model", "pool", "machines", "names"], rows))
        };
        if !self.undated.is_empty() {
            let what = format!("no day of purchase is known of {}", self.undated.join(" "));
            text.push_str(&format!("{}\n", plain(&what)));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        let rows = self.past.iter().chain(self.quarters.iter().flat_map(|q| &q.rows));
        rows.flat_map(|row| row.nodes.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        assert_eq!(length("90m"), Ok(Duration::from_mins(90)));
        assert_eq!(length("4h"), Ok(Duration::from_hours(4)));
        assert_eq!(length("3d"), Ok(Duration::from_hours(72)));
        for text in ["", "h", "4", "-1h", "0m", "1.5h", "4ö", "999999999999999999d", "99999999d"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
