//! `billet login`: remembers a server and its token for this user, after trying them.

use std::io::{self, BufRead, IsTerminal};

use super::client::{Login, login_file};
use super::text::plain;
use super::user::PasswordFile;
use super::{Client, Connection, Failure};
use crate::secret::write_private;
use crate::view::{MeView, SessionCreated};

/// As whom.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// Sign in by name; the password is asked for, or read from standard input
    #[arg(long)]
    pub user: Option<String>,
    /// The code of the authenticator, or a recovery code
    #[arg(long, requires = "user", default_value = "")]
    pub code: String,
    /// The password.
    #[command(flatten)]
    pub password: PasswordFile,
}

pub(super) fn run(connection: &Connection, args: &LoginArgs) -> Result<(), Failure> {
    let server = connection.address();
    let given = connection.token_file.is_some() || connection.token.is_some();
    let client = match &args.user {
        Some(user) => Client::new(server.clone(), sign_in(&server, user, &args.password, &args.code)?),
        None if given => connection.client()?,
        None => Client::new(server.clone(), ask(&server)?),
    };
    let me: MeView = client.get("me")?;
    let file = login_file().ok_or_else(|| {
        Failure::Other("neither HOME nor XDG_CONFIG_HOME says where to remember it".to_owned())
    })?;
    let login = Login { server, token: client.token().to_owned() };
    let text = serde_json::to_string_pretty(&login).map_err(|e| Failure::Other(e.to_string()))?;
    write_private(&file, &text)
        .map_err(|e| Failure::Other(format!("cannot write {}: {e}", file.display())))?;
    super::deploy::line(&format!("logged in to {} as {}", plain(&login.server), plain(&me.name)))
}

/// Signs in by name and password: the secret of the session.
fn sign_in(server: &str, user: &str, password: &PasswordFile, code: &str) -> Result<String, Failure> {
    let password = password.read(&format!("Password of {} at {}: ", plain(user), plain(server)))?;
    let body = super::user::login_body(user, &password, code);
    let session: SessionCreated = Client::new(server.to_owned(), String::new()).post("login", &body)?;
    Ok(session.secret)
}

pub(super) fn ask(server: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        eprint!("Operator's token of {} (in operator.token of its state directory): ", plain(server));
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Failure::Other(format!("cannot read the token: {e}")))?;
    let token = line.trim();
    if token.is_empty() { Err(Failure::Usage("no token given".to_owned())) } else { Ok(token.to_owned()) }
}
