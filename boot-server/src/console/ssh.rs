//! The SSH gateway: `ssh -p 2222 NODE@server` looks at a node's console, by the same rules as the web terminal. The
//! user name is the node, the password a token. A shell channel is all there is: no command, no file, no forwarding.
//!
//! ```text
//! accept ─▶ room for one more, of all and of this peer ─▶ key exchange and login, in time ─▶ one shell ─▶ Session
//! ```

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boot_server_core::audit::{Fact, Kind};
use boot_server_core::console::escape::HELP;
use boot_server_core::console::{Escape, Typed};
use boot_server_core::node::Node;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session as Connection, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelMsg, ChannelWriteHalf, Disconnect, MethodKind, MethodSet, Pty};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Consoles, Said, Session, Via};
use crate::asking::Asked;
use crate::engine::{Engine, now};
use crate::http::Peers;
use crate::http::auth::Operators;
use crate::secret;
use crate::tokens::Principal;

/// Connections at once; each costs a task and some hundred KiB.
const CONNECTIONS_MAX: usize = 64;
/// Connections that one address may have.
const PER_ADDRESS: usize = 8;
/// How long key exchange and login may take; a person types a password.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// Wrong passwords and keys in one connection; an agent offers several keys.
const ATTEMPTS_MAX: usize = 6;
/// A client that is silent is asked so often whether it is there; three times without an answer it is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a client may take to go once it was told to.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file.
    #[error("cannot {action} the SSH host key {path}")]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It is none.
    #[error("{path} is no SSH private key; remove it, and a new one is made")]
    Damaged {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        cause: russh::keys::ssh_key::Error,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] secret::NoRandomness),
}

/// Reads the host key at `path`; makes one, readable by the owner alone, where there is none.
///
/// # Errors
/// [`HostKeyError`].
pub fn host_key(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let shown = path.display().to_string();
    let file = |action| {
        let path = shown.clone();
        move |cause| HostKeyError::File { action, path, cause }
    };
    let damaged = |cause| HostKeyError::Damaged { path: shown.clone(), cause };
    match fs::read_to_string(path) {
        Ok(text) => return PrivateKey::from_openssh(&text).map_err(damaged),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(file("read")(cause)),
    }
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&secret::random()?));
    let text = key.to_openssh(LineEnding::LF).map_err(damaged)?;
    secret::write_private(path, &text).map_err(file("make"))?;
    Ok(key)
}

/// As `ssh` shows it when it first connects.
pub fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

/// What the gateway is over.
pub struct Parts {
    /// Finds nodes.
    pub engine: Engine,
    /// Their consoles.
    pub consoles: Consoles,
    /// Who may come in.
    pub operators: Arc<Operators>,
}

/// A bound gateway.
pub struct Gateway {
    socket: TcpListener,
    config: Arc<Config>,
    rules: Arc<Rules>,
}

struct Rules {
    parts: Parts,
    keys: Vec<(String, PublicKey)>,
}

impl Gateway {
    /// A gateway at a bound socket. `keys` stand for tokens, by their names.
    pub fn new(socket: TcpListener, key: PrivateKey, keys: Vec<(String, PublicKey)>, parts: Parts) -> Self {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::Password);
        methods.push(MethodKind::PublicKey);
        let config = Config {
            server_id: russh::SshId::Standard("SSH-2.0-Billet".into()),
            methods,
            auth_rejection_time: Duration::from_secs(1),
            auth_rejection_time_initial: Some(Duration::ZERO), // "none", by which clients ask for the methods
            keys: vec![key],
            max_auth_attempts: ATTEMPTS_MAX,
            window_size: 64 << 10,
            inactivity_timeout: None,
            keepalive_interval: Some(KEEP_ALIVE),
            nodelay: true,
            ..Config::default()
        };
        Self { socket, config: Arc::new(config), rules: Arc::new(Rules { parts, keys }) }
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (room, peers) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Peers::new(PER_ADDRESS));
        let open = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an SSH connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Beyond the limits a connection is closed at once, as sshd does.
            let (Ok(permit), Some(place)) = (room.clone().try_acquire_owned(), peers.admit(peer.ip())) else {
                continue;
            };
            let (config, rules, stop) = (self.config.clone(), self.rules.clone(), stop.clone());
            open.spawn(async move {
                let _held = (permit, place);
                if let Err(error) = connection(stream, peer, config, rules, stop).await {
                    tracing::debug!(%peer, %error, "SSH connection ended");
                }
            });
        }
        open.close();
        open.wait().await;
    }
}

/// One connection, to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<Config>,
    rules: Arc<Rules>,
    stop: CancellationToken,
) -> Result<(), russh::Error> {
    let stream = stream.into_std()?;
    let cutter = stream.try_clone()?;
    let (known, over) = (CancellationToken::new(), CancellationToken::new());
    let client = Client { rules, peer, who: None, shell: None, known: known.clone(), over: over.clone() };
    let late = tokio::time::sleep(LOGIN_MAX);
    let mut late = std::pin::pin!(late);
    let beginning = russh::server::run_stream(config, TcpStream::from_std(stream)?, client);
    let mut running = tokio::select! {
        running = beginning => running?,
        () = &mut late => return Ok(()),
    };
    let handle = running.handle();
    let why = tokio::select! {
        ended = &mut running => return ended,
        () = &mut late, if !known.is_cancelled() => {
            // It may have come in at this very moment.
            if known.is_cancelled() {
                tokio::select! {
                    ended = &mut running => return ended,
                    () = over.cancelled() => "bye",
                    () = stop.cancelled() => "the server stops",
                }
            } else {
                "no login in time"
            }
        },
        () = over.cancelled() => "bye",
        () = stop.cancelled() => "the server stops",
    };
    // A client whose shell ended goes by itself.
    if over.is_cancelled()
        && let Ok(ended) = tokio::time::timeout(GOODBYE, &mut running).await
    {
        return ended;
    }
    let _ = handle.disconnect(Disconnect::ByApplication, why.to_owned(), String::new()).await; // it may be gone
    if tokio::time::timeout(GOODBYE, &mut running).await.is_err() {
        cutter.shutdown(std::net::Shutdown::Both)?;
    }
    Ok(())
}

/// What a client may do.
struct Client {
    rules: Arc<Rules>,
    peer: SocketAddr,
    who: Option<(Principal, Node)>,
    /// A channel that waits for its shell.
    shell: Option<Channel<Msg>>,
    /// Cancelled once it is known who this is.
    known: CancellationToken,
    /// Cancelled once the session is over.
    over: CancellationToken,
}

impl Client {
    /// Lets somebody in; a node that does not exist looks like a wrong password.
    async fn admit(&mut self, user: &str, who: Option<Principal>) -> Auth {
        let node = self.rules.parts.engine.node(user).await;
        match (who, node) {
            (Some(who), Ok(node)) => {
                self.rules.parts.engine.audit().later(Fact {
                    source: Some(self.peer.ip().to_canonical().to_string()),
                    node: Some(node.id),
                    ..Fact::new(now(), Kind::Login, who.name(), "ssh console")
                });
                self.who = Some((who, node));
                self.known.cancel();
                Auth::Accept
            }
            (who, node) => {
                let name = who.as_ref().map_or_else(|| "nobody".to_owned(), Principal::name);
                self.rules.parts.engine.audit().later(Fact {
                    source: Some(self.peer.ip().to_canonical().to_string()),
                    outcome: "refused".to_owned(),
                    ..Fact::new(now(), Kind::Login, name, "ssh console")
                });
                let (known, node) = (who.is_some(), node.is_ok());
                tracing::info!(peer = %self.peer, user, known, node, "SSH login refused");
                Auth::reject()
            }
        }
    }

    fn owner(&self, key: &PublicKey) -> Option<Principal> {
        let (token, _) = self.rules.keys.iter().find(|(_, k)| k.key_data() == key.key_data())?;
        self.rules.parts.operators.named().with_name(token, now())
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let who = self.rules.parts.operators.try_token(password.trim(), self.peer.ip());
        Ok(self.admit(user, who).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if self.owner(offer.public_key).is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let who = self.owner(key.public_key);
        Ok(self.admit(user, who).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), russh::Error> {
        // One per connection: dropping the handle refuses.
        if self.shell.is_none() && self.who.is_some() && !self.over.is_cancelled() {
            self.shell = Some(channel);
            reply.accept().await;
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        // With a terminal the client sends each key as it is pressed; its size is nothing that a serial line knows.
        connection.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        let (Some(shell), Some((who, node))) = (self.shell.take_if(|c| c.id() == channel), self.who.take())
        else {
            return connection.channel_failure(channel);
        };
        connection.channel_success(channel)?;
        let (rules, peer, over) = (self.rules.clone(), self.peer, self.over.clone());
        tokio::spawn(Asked::from(peer.ip()).scope(async move {
            let _over = over.drop_guard();
            let attached = rules.parts.consoles.attach(&node, who, peer.ip(), Via::Ssh).await;
            let shown = match attached {
                Ok(session) => show(shell, session, &node.name).await,
                Err(error) => {
                    let text = format!("{error}: {}\r\n", error.problem().hint);
                    shell.data_bytes(text.into_bytes()).await
                }
            };
            if let Err(error) = shown {
                tracing::debug!(%peer, %error, "an SSH client went away");
            }
        }));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        connection.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        connection.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        connection.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        connection: &mut Connection,
    ) -> Result<(), russh::Error> {
        connection.channel_failure(channel)
    }
}

/// A session in a terminal, to its end.
async fn show(channel: Channel<Msg>, mut session: Session, node: &str) -> Result<(), russh::Error> {
    let (mut from, to) = channel.split();
    let cut = session.cut();
    let mut escape = Escape::default();
    let mut status = 0;
    let greeting = format!("console of {node}; recorded. ~. leaves, ~? helps");
    say(&to, &greeting).await?;
    loop {
        let typed = tokio::select! {
            said = session.next() => {
                if let Said::Ended(reason) = said {
                    // A client that takes nothing does not hold the end up.
                    let _ = tokio::time::timeout(GOODBYE, say(&to, &reason)).await;
                    status = 1;
                    break;
                }
                let written = tokio::select! {
                    written = write(&to, said) => written,
                    () = cut.cancelled() => Ok(()),
                };
                written?;
                continue;
            }
            message = from.wait() => match message {
                Some(ChannelMsg::Data { data }) => escape.handle(&data),
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => break,
                Some(_) => continue,
            },
        };
        let mut left = false;
        for typed in typed {
            match typed {
                Typed::Octets(octets) => session.typed(&octets).await,
                Typed::Take => drop(session.ask(true).await),
                Typed::Help => to.data_bytes(HELP.as_bytes()).await?,
                Typed::Leave => left = true,
            }
        }
        if left {
            break;
        }
    }
    drop(session);
    let end = async {
        to.exit_status(status).await?;
        to.eof().await?;
        to.close().await
    };
    tokio::time::timeout(GOODBYE, end).await.unwrap_or(Ok(()))
}

async fn write(to: &ChannelWriteHalf<Msg>, said: Said) -> Result<(), russh::Error> {
    match said {
        Said::Output(octets) => to.data_bytes(octets).await,
        Said::Skipped(octets) => say(to, &format!("{octets} octets came too fast and are not shown")).await,
        Said::Notice(text) => say(to, &text).await,
        Said::Presence(_) | Said::Ended(_) => Ok(()),
    }
}

async fn say(to: &ChannelWriteHalf<Msg>, text: &str) -> Result<(), russh::Error> {
    to.data_bytes(format!("\r\n[billet: {text}]\r\n").into_bytes()).await
}
