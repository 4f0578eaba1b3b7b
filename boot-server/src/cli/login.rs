//! `billet login`: remembers a server and its token for this user, after trying them.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::client::{Login, login_file};
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
    let cannot = |e: io::Error| Failure::Other(format!("cannot write {}: {e}", file.display()));
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(cannot)?;
    }
    let login = Login { server, token: client.token().to_owned() };
    let text = serde_json::to_string_pretty(&login).map_err(|e| Failure::Other(e.to_string()))?;
    // A new file each time: the mode of an old one could let others read.
    let temporary = file.with_extension("new");
    let _ = fs::remove_file(&temporary); // usually there is none
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(cannot)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(cannot)?;
    fs::rename(&temporary, &file).map_err(cannot)?;
    super::deploy::line(&format!("logged in to {} (Billet {})", plain(&login.server), plain(&status.version)))
}

fn ask(server: &str) -> Result<String, Failure> {
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
