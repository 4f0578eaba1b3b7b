//! `billet me …`: who one is, where one is signed in, the own password and second factor.

use clap::Subcommand;
use uuid::Uuid;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use super::user::{PasswordFile, new_password};
use crate::http::api::requests::{CodeRequest, OwnPasswordRequest, ProofRequest};
use crate::view::{EnrolmentView, MeView, Page, RecoveryView, SessionView};

/// What can be done with oneself.
#[derive(Debug, Subcommand)]
pub enum MeCommand {
    /// Who you are, and what you may do
    Show,
    /// Where you are signed in, newest first
    Sessions(AgainArgs),
    /// Sign one of your sessions out
    EndSession {
        /// Its id
        session: Uuid,
    },
    /// Change your password; all your other sessions end
    Password {
        /// The one of now.
        #[command(flatten)]
        current: PasswordFile,
        /// File with the new password on its first line, instead of asking
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<std::path::PathBuf>,
    },
    /// Your second factor: an authenticator that shows six digits
    #[command(subcommand)]
    Totp(TotpCommand),
}

/// What can be done with the own second factor.
#[derive(Debug, Subcommand)]
pub enum TotpCommand {
    /// Print a key for an authenticator; nothing changes before its first code was confirmed
    Begin {
        /// The password, once more.
        #[command(flatten)]
        current: PasswordFile,
    },
    /// Confirm with the first code, and print the recovery codes, this once
    Confirm {
        /// The six digits that the authenticator shows
        code: String,
    },
    /// Sign in without a second factor again
    Remove {
        /// The password, once more.
        #[command(flatten)]
        current: PasswordFile,
    },
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: MeCommand) -> Result<(), Failure> {
    match command {
        MeCommand::Show => format.print(&client.get::<MeView>("me")?),
        MeCommand::Sessions(again) => {
            again.list(client, SITE, format, || client.all::<SessionView>("me/sessions"))
        }
        MeCommand::EndSession { session } => {
            let path = format!("me/sessions/{}", encode(&session.to_string()));
            format.print(&client.delete_with::<SessionView>(&path)?)
        }
        MeCommand::Password { current, new_password_file } => {
            let current = current.read("Your password: ")?;
            let password = new_password(new_password_file.as_deref(), super::user::NEW)?;
            client.put::<_, ()>("me/password", &OwnPasswordRequest { current, password })?;
            super::deploy::line("changed; all other sessions ended")
        }
        MeCommand::Totp(TotpCommand::Begin { current }) => {
            let request = ProofRequest { current: current.read("Your password: ")? };
            format.print(&client.post::<_, EnrolmentView>("me/totp", &request)?)
        }
        MeCommand::Totp(TotpCommand::Confirm { code }) => {
            format.print(&client.put::<_, RecoveryView>("me/totp", &CodeRequest { code })?)
        }
        MeCommand::Totp(TotpCommand::Remove { current }) => {
            let request = ProofRequest { current: current.read("Your password: ")? };
            client.post::<_, ()>("me/totp/remove", &request)?;
            super::deploy::line("you sign in without a second factor from now on")
        }
    }
}

impl Show for MeView {
    fn table(&self) -> String {
        let projects: Vec<_> = self.projects.iter().map(|p| format!("{} ({})", p.name, p.role)).collect();
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", self.user.map(|user| user.to_string())),
            ("at the site", self.site_role.map(|role| role.to_string())),
            ("projects", Some(projects.join(", ")).filter(|text| !text.is_empty())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn session(session: &SessionView) -> Vec<String> {
    let present = if session.present { "this one" } else { "" };
    vec![
        session.id.to_string(),
        session.source.clone(),
        session.agent.clone(),
        moment(session.created),
        moment(session.expires),
        present.to_owned(),
    ]
}

const SESSION: [&str; 6] = ["session", "from", "with", "since", "ends", ""];

impl Show for Page<SessionView> {
    fn table(&self) -> String {
        table(&SESSION, self.items.iter().map(session))
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|session| session.id.to_string()).collect()
    }
}

impl Show for SessionView {
    fn table(&self) -> String {
        table(&SESSION, [session(self)])
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}

impl Show for EnrolmentView {
    fn table(&self) -> String {
        let next = "`billet me totp confirm CODE` with the first code that the authenticator shows";
        facts(&[
            ("key", Some(self.secret.clone())),
            ("address", Some(self.uri.clone())),
            ("then", Some(next.to_owned())),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.secret.clone()]
    }
}

impl Show for RecoveryView {
    fn table(&self) -> String {
        format!("Keep these; each is good once, instead of a code:\n{}", self.codes.join("\n"))
    }

    fn names(&self) -> Vec<String> {
        self.codes.clone()
    }
}
