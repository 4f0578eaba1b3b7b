//! `billet user …`: people who may sign in.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use boot_server_core::access::Role;
use clap::Subcommand;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::output::{Format, Show, facts, table};
use super::text::moment;
use crate::http::api::requests::{EmptyRequest, PasswordRequest, UserChange, UserRequest};
use crate::view::{Page, UserView};

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Users, by name
    #[command(visible_alias = "ls")]
    List(AgainArgs),
    /// One user
    Show {
        /// Name or id
        user: String,
    },
    /// Add a user; the password is asked for, or read from standard input
    Add {
        /// The name to sign in with: a-z, 0-9 and . _ - @
        name: String,
        /// The name that people call them by
        #[arg(long, default_value = "")]
        full_name: String,
        /// What they may do at the site: admin, operator, auditor or reader; nothing if not given
        #[arg(long)]
        role: Option<Role>,
        /// They sign in at the site's OpenID provider alone
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
        /// The password.
        #[command(flatten)]
        password: PasswordFile,
    },
    /// Change what a user may do at the site, or the name that people call them by
    Change {
        /// Name or id
        user: String,
        /// admin, operator, auditor, reader, or `none`
        #[arg(long, value_parser = site_role)]
        role: Option<SiteRole>,
        /// The name that people call them by
        #[arg(long)]
        full_name: Option<String>,
    },
    /// Let a user sign in no more, or again with --enable
    Disable {
        /// Name or id
        user: String,
        /// They may sign in again
        #[arg(long)]
        enable: bool,
    },
    /// Give a user a new password: it is asked for, or read from standard input
    Password {
        /// Name or id
        user: String,
        /// The new one.
        #[command(flatten)]
        password: PasswordFile,
    },
    /// Take away the second factor of a user, who lost it
    Totp {
        /// Name or id
        user: String,
        /// Take it away
        #[arg(long, required = true)]
        remove: bool,
    },
    /// Sign a user out everywhere
    SignOut {
        /// Name or id
        user: String,
    },
}

/// A role at the site, or none.
#[derive(Debug, Clone, Copy)]
pub struct SiteRole(Option<Role>);

fn site_role(text: &str) -> Result<SiteRole, String> {
    match text {
        "none" => Ok(SiteRole(None)),
        role => role.parse().map(|role| SiteRole(Some(role))).map_err(|error| format!("{error}, or none")),
    }
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: UserCommand) -> Result<(), Failure> {
    let path = |user: &str| format!("users/{}", encode(user));
    match command {
        UserCommand::List(again) => again.list(client, SITE, format, || client.all::<UserView>("users")),
        UserCommand::Show { user } => format.print(&client.get::<UserView>(&path(&user))?),
        UserCommand::Add { name, full_name, role, no_password, password } => {
            let file = password.password_file.as_deref();
            let password = if no_password { None } else { Some(new_password(file, NEW)?) };
            let request = UserRequest { name, full_name, site_role: role, password };
            format.print(&client.post::<_, UserView>("users", &request)?)
        }
        UserCommand::Change { user, role, full_name } => {
            let changed = client.change(&path(&user), |before: UserView| {
                Ok(UserChange {
                    full_name: full_name.unwrap_or(before.full_name),
                    site_role: role.map_or(before.site_role, |role| role.0),
                    disabled: before.disabled.is_some(),
                })
            });
            format.print::<UserView>(&changed?)
        }
        UserCommand::Disable { user, enable } => {
            let changed = client.change(&path(&user), |before: UserView| {
                let (full_name, site_role) = (before.full_name, before.site_role);
                Ok(UserChange { full_name, site_role, disabled: !enable })
            });
            format.print::<UserView>(&changed?)
        }
        UserCommand::Password { user, password } => {
            let request = PasswordRequest { password: new_password(password.password_file.as_deref(), NEW)? };
            format.print(&client.put::<_, UserView>(&format!("{}/password", path(&user)), &request)?)
        }
        UserCommand::Totp { user, remove: _ } => {
            format.print(&client.delete_with::<UserView>(&format!("{}/totp", path(&user)))?)
        }
        UserCommand::SignOut { user } => {
            let done: UserView = client.post(&format!("{}/sign-out", path(&user)), &EmptyRequest {})?;
            format.print(&done)
        }
    }
}

/// Where a password comes from.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordFile {
    /// File with the password on its first line, instead of asking
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordFile {
    /// The password: out of the file, typed at a terminal, or the first line of standard input.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn read(&self, prompt: &str) -> Result<String, Failure> {
        password(self.password_file.as_deref(), prompt)
    }
}

/// A password or passphrase: out of a file, typed at a terminal, or the first line of standard input.
///
/// # Errors
/// Where there is none.
pub(super) fn password(file: Option<&Path>, prompt: &str) -> Result<String, Failure> {
    file.map_or_else(|| secret(prompt), first_line)
}

fn first_line(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::Other(format!("cannot read {}: {e}", file.display())))?;
    let line = text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned);
    line.ok_or_else(|| Failure::Usage(format!("no password in {}", file.display())))
}

/// How a new password is asked for.
pub(super) const NEW: &str = "New password: ";

/// A new password or passphrase: out of a file, typed twice at a terminal, or the first line of standard input.
pub(super) fn new_password(file: Option<&Path>, prompt: &str) -> Result<String, Failure> {
    if let Some(file) = file {
        return first_line(file);
    }
    let first = secret(prompt)?;
    if io::stdin().is_terminal() && secret("Once more: ")? != first {
        return Err(Failure::Usage("the two are not the same".to_owned()));
    }
    Ok(first)
}

/// A line that is not shown while it is typed.
fn secret(prompt: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    let cannot = |e: io::Error| Failure::Other(format!("cannot read the password: {e}"));
    let mut line = String::new();
    if stdin.is_terminal() {
        eprint!("{prompt}");
        let before = tcgetattr(&stdin).map_err(|e| cannot(e.into()))?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|e| cannot(e.into()))?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(|e| cannot(e.into()))?;
        eprintln!();
        read.map_err(cannot)?;
    } else {
        stdin.lock().read_line(&mut line).map_err(cannot)?;
    }
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(Failure::Usage("no password given".to_owned())) } else { Ok(text.to_owned()) }
}

fn standing(user: &UserView) -> String {
    let mut words = Vec::new();
    if user.disabled.is_some() {
        words.push("disabled");
    }
    words.push(if user.password { "password" } else { "no password" });
    if user.second_factor {
        words.push("second factor");
    }
    words.join(", ")
}

fn projects(user: &UserView) -> String {
    user.projects.iter().map(|p| format!("{} ({})", p.name, p.role)).collect::<Vec<_>>().join(", ")
}

impl Show for Page<UserView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No users. Add the first administrator with `billet user add NAME --role admin`."
                .to_owned();
        }
        let rows = self.items.iter().map(|u| {
            let role = u.site_role.map_or("-", Role::as_str).to_owned();
            vec![u.name.clone(), u.full_name.clone(), role, projects(u), standing(u)]
        });
        table(&["name", "full name", "site", "projects", "signs in with"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|u| u.name.clone()).collect()
    }
}

impl Show for UserView {
    fn table(&self) -> String {
        facts(&[
            ("name", Some(self.name.clone())),
            ("id", Some(self.id.to_string())),
            ("full name", Some(self.full_name.clone()).filter(|n| !n.is_empty())),
            ("role at the site", self.site_role.map(|r| r.to_string())),
            ("projects", Some(projects(self)).filter(|p| !p.is_empty())),
            ("signs in with", Some(standing(self))),
            ("added", Some(moment(self.created))),
            ("disabled", self.disabled.map(moment)),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

/// The body of a request to sign in.
pub(super) fn login_body(user: &str, password: &str, code: &str) -> serde_json::Value {
    json!({ "user": user, "password": password, "code": code })
}
