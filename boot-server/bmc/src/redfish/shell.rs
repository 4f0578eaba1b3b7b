//! A controller's shell by SSH, for its serial console. Its key is pinned at first use, as its certificate is: before the
//! password is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{self, AuthResult, Config, Handle, Msg};
use russh::keys::{HashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, ChannelStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::limits;
use super::wire::Deadline;
use crate::{BmcError, Console, Credentials};

const WHAT: &str = "the serial console by SSH";
/// The terminal that is asked for; a serial line is as wide as whoever looks.
const TERMINAL: (&str, u32, u32) = ("vt100", 80, 24);
/// A console may be silent for days: the controller is asked so often whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Octets that may wait on their way here.
const WINDOW: u32 = 64 << 10;

/// The key that a controller is known by: the pinned one, else the first that was seen. Fingerprints as `ssh` shows them.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownKey(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    known: Option<String>,
    other: Option<String>,
}

impl KnownKey {
    pub(super) fn new(pinned: Option<String>) -> Self {
        Self(Arc::new(Mutex::new(Keys { known: pinned, other: None })))
    }

    pub(super) fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.clone()
    }

    /// True where this is the key; the first one is.
    fn check(&self, shown: &str) -> bool {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = keys.known.get_or_insert_with(|| shown.to_owned()) == shown;
        keys.other = (!same).then(|| shown.to_owned());
        same
    }

    /// The error of a connection that ended so, which is ours where the key is another one.
    fn explain(&self, error: &russh::Error) -> BmcError {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&keys.known, &keys.other) {
            (Some(pinned), Some(found)) => BmcError::HostKey { found: found.clone(), pinned: pinned.clone() },
            _ => BmcError::Unreachable { what: format!("{WHAT}: {error}") },
        }
    }
}

/// Where the shell is.
pub(super) struct Place<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) command: Option<&'a str>,
}

/// Opens it; the stream ends when the console does, and dropping it ends the connection.
pub(super) async fn open(
    place: &Place<'_>,
    account: &Credentials,
    key: &KnownKey,
    deadline: Deadline,
) -> Result<Box<dyn Console>, BmcError> {
    let opening = connect(place, account, key, deadline);
    let shell = tokio::time::timeout(deadline.left(), opening).await.map_err(|_| deadline.over(WHAT))??;
    Ok(Box::new(shell))
}

async fn connect(
    place: &Place<'_>,
    account: &Credentials,
    key: &KnownKey,
    deadline: Deadline,
) -> Result<Shell, BmcError> {
    let lost = |error: std::io::Error| BmcError::Unreachable { what: format!("{WHAT}: {error}") };
    let connecting = TcpStream::connect((place.host.trim_matches(['[', ']']), place.port));
    let part = deadline.at_most(limits::CONNECT);
    let stream =
        tokio::time::timeout(part.left(), connecting).await.map_err(|_| part.over(WHAT))?.map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let config = Config { window_size: WINDOW, keepalive_interval: Some(KEEP_ALIVE), ..Config::default() };
    let failed = |error: russh::Error| key.explain(&error);
    let mut handle =
        client::connect_stream(Arc::new(config), stream, Checker(key.clone())).await.map_err(failed)?;
    let login = handle.authenticate_password(&account.user, &account.password.0).await.map_err(failed)?;
    if !matches!(login, AuthResult::Success) {
        return Err(BmcError::Login);
    }
    let mut channel = handle.channel_open_session().await.map_err(failed)?;
    let (terminal, columns, rows) = TERMINAL;
    channel.request_pty(false, terminal, columns, rows, 0, 0, &[]).await.map_err(failed)?;
    channel.request_shell(true).await.map_err(failed)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) | None => {
                return Err(BmcError::Busy { what: "it gives no shell for its serial console".to_owned() });
            }
            Some(_) => {}
        }
    }
    let mut stream = channel.into_stream();
    if let Some(command) = place.command {
        stream.write_all(format!("{command}\r").as_bytes()).await.map_err(lost)?;
    }
    Ok(Shell { stream, _handle: handle })
}

/// Looks at the controller's key.
struct Checker(KnownKey);

impl client::Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        Ok(self.0.check(&key.fingerprint(HashAlg::Sha256).to_string()))
    }
}

/// An open shell.
struct Shell {
    stream: ChannelStream<Msg>,
    /// The connection lives as long as this.
    _handle: Handle<Checker>,
}

impl AsyncRead for Shell {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Shell {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
