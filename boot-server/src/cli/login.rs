//! `billet login`: remembers a server and its token for this user, after trying them.

use std::io::{self, BufRead, IsTerminal};

use super::client::{Login, login_file};
use super::context::write_private;
use super::text::plain;
use super::{Client, Connection, Failure};
use crate::view::StatusView;

pub(super) fn run(connection: &Connection) -> Result<(), Failure> {
    let server = connection.address();
    let given = connection.token_file.is_some() || connection.token.is_some();
    let client = if given { connection.client()? } else { Client::new(server.clone(), ask(&server)?) };
    let status: StatusView = client.get("status")?;
    let file = login_file().ok_or_else(|| {
        Failure::Other("neither HOME nor XDG_CONFIG_HOME says where to remember it".to_owned())
    })?;
    let login = Login { server, token: client.token().to_owned() };
    let text = serde_json::to_string_pretty(&login).map_err(|e| Failure::Other(e.to_string()))?;
    write_private(&file, &text)
        .map_err(|e| Failure::Other(format!("cannot write {}: {e}", file.display())))?;
    super::deploy::line(&format!("logged in to {} (Billet {})", plain(&login.server), plain(&status.version)))
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
