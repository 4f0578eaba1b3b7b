//! `billet token …`: who may come in beside the site's own token.

use boot_server_core::access::Role;
use clap::{Subcommand, ValueEnum};

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::http::api::requests::TokenRequest;
use crate::view::{Page, TokenCreated, TokenView};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Named tokens, with those that ended lately
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Make a token and print it, this once
    Create {
        /// Whose it is: a-z, 0-9 and . _ - @
        name: String,
        /// What it allows
        #[arg(long, value_enum, default_value_t = Given::Operator)]
        role: Given,
        /// It ends by itself after so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: Option<u64>,
    },
    /// End a token: whoever uses it is cut off at once
    Revoke {
        /// Name or id
        token: String,
    },
}

/// Roles that a token can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Given {
    /// Change machines, type into consoles
    Operator,
    /// Look at everything, the audit included; change nothing
    Auditor,
    /// Look at everything, change nothing
    Reader,
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::List(again) => again.list(client, SITE, format, || client.all::<TokenView>("tokens")),
        TokenCommand::Create { name, role, days } => {
            let role = match role {
                Given::Operator => Role::Operator,
                Given::Auditor => Role::Auditor,
                Given::Reader => Role::Reader,
            };
            let request = TokenRequest { name, role, expires_in_seconds: days.map(|d| d * DAY) };
            format.print(&client.post::<_, TokenCreated>("tokens", &request)?)
        }
        TokenCommand::Revoke { token } => {
            format.print(&client.delete_with::<TokenView>(&format!("tokens/{}", encode(&token)))?)
        }
    }
}

fn standing(token: &TokenView) -> &'static str {
    match token {
        TokenView { revoked: Some(_), .. } => "revoked",
        TokenView { holds: false, .. } => "expired",
        _ => "holds",
    }
}

impl Show for Page<TokenView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No named tokens. Make one with `billet token create NAME`.".to_owned();
        }
        let rows = self.items.iter().map(|t| {
            let expires = t.expires.map_or_else(|| "never".to_owned(), moment);
            let role = t.role.as_str().to_owned();
            vec![t.name.clone(), role, standing(t).to_owned(), moment(t.created), expires]
        });
        table(&["name", "role", "state", "made", "expires"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|t| t.name.clone()).collect()
    }
}

impl Show for TokenView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("role", Some(self.role.as_str().to_owned())),
            ("state", Some(standing(self).to_owned())),
            ("made", Some(moment(self.created))),
            ("expires", self.expires.map(moment)),
            ("revoked", self.revoked.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for TokenCreated {
    fn table(&self) -> String {
        format!("{}{}", self.token.table(), facts(&[("token", Some(self.secret.clone()))]))
    }

    /// The token itself: what a script goes on with.
    fn names(&self) -> Vec<String> {
        vec![self.secret.clone()]
    }
}
