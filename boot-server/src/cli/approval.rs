//! `billet approval …`: what waits for a second person.

use boot_server_core::approval::Approval;
use clap::Subcommand;
use serde_json::json;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::view::Page;

/// What can be done with approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// Requests that wait for a second person, or did; newest first
    #[command(visible_alias = "ls")]
    List {
        /// waiting, approved, carrying, done, failed, refused, expired or stale
        #[arg(long)]
        status: Option<String>,
        /// On this node (name or id)
        #[arg(long)]
        node: Option<String>,
        /// How many
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// One of them
    Show {
        /// Its id
        id: String,
    },
    /// Approve what somebody else asked for; it is done at once, as whoever asked
    Approve(DecisionArgs),
    /// Refuse what somebody asked for, or take back what you asked for yourself
    Refuse(DecisionArgs),
}

/// A decision.
#[derive(Debug, clap::Args)]
pub struct DecisionArgs {
    /// Its id
    id: String,
    /// Why
    #[arg(long)]
    reason: Option<String>,
}

pub(super) fn run(client: &Client, format: Format, command: ApprovalCommand) -> Result<(), Failure> {
    match command {
        ApprovalCommand::List { status, node, limit, again } => {
            let mut path = format!("approvals?limit={limit}");
            for (name, value) in [("status", status), ("node", node)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", encode(&value)));
                }
            }
            again.list(client, SITE, format, || client.get::<Page<Approval>>(&path))
        }
        ApprovalCommand::Show { id } => {
            format.print(&client.get::<Approval>(&format!("approvals/{}", encode(&id)))?)
        }
        ApprovalCommand::Approve(args) => decide(client, format, &args, "approve"),
        ApprovalCommand::Refuse(args) => decide(client, format, &args, "refuse"),
    }
}

fn decide(client: &Client, format: Format, args: &DecisionArgs, verb: &str) -> Result<(), Failure> {
    let path = format!("approvals/{}/{verb}", encode(&args.id));
    format.print(&client.post::<_, Approval>(&path, &json!({ "reason": args.reason }))?)
}

impl Show for Page<Approval> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nothing waits for a second person.".to_owned();
        }
        let rows = self.items.iter().map(|it| {
            vec![
                it.id.to_string(),
                it.status.as_str().to_owned(),
                it.summary.clone(),
                it.asked_by.name.clone(),
                moment(it.asked),
                it.decision.as_ref().map_or_else(|| "-".to_owned(), |d| d.by.name.clone()),
            ]
        });
        table(&["id", "status", "what", "asked by", "asked", "decided by"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|it| it.id.to_string()).collect()
    }
}

impl Show for Approval {
    fn table(&self) -> String {
        let decided = self.decision.as_ref();
        facts(&[
            ("id", Some(self.id.to_string())),
            ("status", Some(self.status.as_str().to_owned())),
            ("what", Some(self.summary.clone())),
            ("request", Some(self.what.clone())),
            ("node", Some(self.node_name.clone()).filter(|name| !name.is_empty())),
            ("pool", self.pool.as_ref().map(ToString::to_string)),
            ("as it stood", Some(self.standing.clone())),
            ("asked by", Some(format!("{} ({})", self.asked_by.name, self.asked_by.role))),
            ("from", self.source.clone()),
            ("asked", Some(moment(self.asked))),
            ("reason", self.reason.clone()),
            ("expires", Some(moment(self.expires))),
            ("decided by", decided.map(|d| d.by.name.clone())),
            ("decided", decided.map(|d| moment(d.at))),
            ("their reason", decided.and_then(|d| d.reason.clone())),
            ("answer", self.answer.map(|status| status.to_string())),
            ("outcome", self.outcome.clone()),
            ("over", self.over.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}
