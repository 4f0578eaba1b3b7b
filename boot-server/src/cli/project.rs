//! `billet project …`: those who own servers together, and who is what among them.

use boot_server_core::access::Role;
use clap::Subcommand;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::http::api::requests::{MemberRequest, ProjectRequest, TokenRequest};
use crate::view::{MemberView, Page, ProjectView, TokenCreated, TokenView};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Projects that you may enter
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// Make a project
    Create {
        /// a-z, 0-9 and . _ -
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// One project
    Show {
        /// Name or id
        project: String,
    },
    /// Give a project another name or description
    Change {
        /// Name or id
        project: String,
        /// The new name
        #[arg(long)]
        name: Option<String>,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// Close a project that has nothing left
    Close {
        /// Name or id
        project: String,
    },
    /// Who is what in a project
    #[command(subcommand, visible_alias = "members")]
    Member(MemberCommand),
    /// Tokens that are good in one project
    #[command(subcommand, visible_alias = "tokens")]
    Token(ProjectTokenCommand),
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Members, by name
    #[command(visible_alias = "ls")]
    List {
        /// Name or id of the project
        project: String,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Take a user in, or give them another role
    Add {
        /// Name or id of the project
        project: String,
        /// Name or id of the user
        user: String,
        /// admin, operator, member, auditor or reader
        #[arg(long, default_value = "member")]
        role: Role,
    },
    /// Take a user out
    Remove {
        /// Name or id of the project
        project: String,
        /// Name or id of the user
        user: String,
    },
}

/// What can be done with tokens of a project.
#[derive(Debug, Subcommand)]
pub enum ProjectTokenCommand {
    /// Tokens of the project that you may see
    #[command(visible_alias = "ls")]
    List {
        /// Name or id of the project
        project: String,
        #[command(flatten)]
        again: AgainArgs,
    },
    /// Make a token and print it, this once
    Create {
        /// Name or id of the project
        project: String,
        /// Whose it is
        name: String,
        /// admin, operator, member, auditor or reader; no more than your own
        #[arg(long, default_value = "member")]
        role: Role,
        /// It ends by itself after so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: Option<u64>,
    },
    /// End a token
    Revoke {
        /// Name or id of the project
        project: String,
        /// Name or id of the token
        token: String,
    },
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: ProjectCommand) -> Result<(), Failure> {
    let path = |project: &str| format!("projects/{}", encode(project));
    match command {
        ProjectCommand::List(again) => {
            again.list(client, SITE, format, || client.all::<ProjectView>("projects"))
        }
        ProjectCommand::Create { name, description } => {
            format.print(&client.post::<_, ProjectView>("projects", &ProjectRequest { name, description })?)
        }
        ProjectCommand::Show { project } => format.print(&client.get::<ProjectView>(&path(&project))?),
        ProjectCommand::Change { project, name, description } => {
            let changed = client.change(&path(&project), |before: ProjectView| {
                Ok(ProjectRequest {
                    name: name.unwrap_or(before.name),
                    description: description.unwrap_or(before.description),
                })
            });
            format.print::<ProjectView>(&changed?)
        }
        ProjectCommand::Close { project } => {
            format.print(&client.delete_with::<ProjectView>(&path(&project))?)
        }
        ProjectCommand::Member(command) => member(client, format, command),
        ProjectCommand::Token(command) => token(client, format, command),
    }
}

fn member(client: &Client, format: Format, command: MemberCommand) -> Result<(), Failure> {
    let of = |project: &str| format!("projects/{}/members", encode(project));
    match command {
        MemberCommand::List { project, again } => {
            let stream = format!("projects/{}/{SITE}", encode(&project));
            again.list(client, &stream, format, || client.all::<MemberView>(&of(&project)))
        }
        MemberCommand::Add { project, user, role } => {
            let path = format!("{}/{}", of(&project), encode(&user));
            format.print(&client.put::<_, MemberView>(&path, &MemberRequest { role })?)
        }
        MemberCommand::Remove { project, user } => {
            let path = format!("{}/{}", of(&project), encode(&user));
            format.print(&client.delete_with::<MemberView>(&path)?)
        }
    }
}

fn token(client: &Client, format: Format, command: ProjectTokenCommand) -> Result<(), Failure> {
    let of = |project: &str| format!("projects/{}/tokens", encode(project));
    match command {
        ProjectTokenCommand::List { project, again } => {
            let stream = format!("projects/{}/{SITE}", encode(&project));
            again.list(client, &stream, format, || client.all::<TokenView>(&of(&project)))
        }
        ProjectTokenCommand::Create { project, name, role, days } => {
            let request = TokenRequest { name, role, expires_in_seconds: days.map(|d| d * DAY) };
            format.print(&client.post::<_, TokenCreated>(&of(&project), &request)?)
        }
        ProjectTokenCommand::Revoke { project, token } => {
            let path = format!("{}/{}", of(&project), encode(&token));
            format.print(&client.delete_with::<TokenView>(&path)?)
        }
    }
}

impl Show for Page<ProjectView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No projects. An administrator of the site makes one with `billet project create NAME`."
                .to_owned();
        }
        let rows = self.items.iter().map(|p| {
            let role = p.role.map_or("-", Role::as_str).to_owned();
            vec![p.name.clone(), role, p.description.clone(), moment(p.created)]
        });
        table(&["name", "your role", "for", "made"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|p| p.name.clone()).collect()
    }
}

impl Show for ProjectView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("for", Some(self.description.clone()).filter(|d| !d.is_empty())),
            ("your role", self.role.map(|r| r.to_string())),
            ("made", Some(moment(self.created))),
            ("closed", self.closed.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Show for Page<MemberView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No members. Take somebody in with `billet project member add PROJECT USER`.".to_owned();
        }
        let rows = self.items.iter().map(|m| {
            let state = if m.disabled.is_some() { "disabled" } else { "" };
            vec![m.name.clone(), m.full_name.clone(), m.role.to_string(), moment(m.since), state.to_owned()]
        });
        table(&["name", "full name", "role", "since", ""], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|m| m.name.clone()).collect()
    }
}

impl Show for MemberView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.user.to_string())),
            ("role", Some(self.role.to_string())),
            ("since", Some(moment(self.since))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
