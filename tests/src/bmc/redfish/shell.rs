//! The stand-in's serial console by SSH: a shell that is the machine's line, or leads to it by a command, as many makers have it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{PASSWORD, USER};
use crate::bmc::Machine;

/// Between two looks at what the machine printed.
const TICK: Duration = Duration::from_millis(10);
/// What the controller's own shell says.
const PROMPT: &[u8] = b"->";

/// Starts one within the caller's runtime, with a key made of `seed`; `command` is what leads from its shell to the console.
pub(super) async fn start(
    machine: Arc<dyn Machine>,
    command: Option<&str>,
    seed: u8,
    at: SocketAddr,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(at).await.with_context(|| format!("listening on {at}"))?;
    let address = listener.local_addr()?;
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::Password);
    let config = Arc::new(Config {
        methods,
        auth_rejection_time: Duration::from_millis(100),
        keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))],
        ..Config::default()
    });
    let command = command.map(str::to_owned);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shell = Shell { machine: machine.clone(), command: command.clone(), channel: None };
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(running) = russh::server::run_stream(config, stream, shell).await {
                    // A client that goes away is no error.
                    let _ = running.await;
                }
            });
        }
    });
    Ok((address, serving))
}

struct Shell {
    machine: Arc<dyn Machine>,
    command: Option<String>,
    channel: Option<Channel<Msg>>,
}

impl Handler for Shell {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if (user, password) == (USER, PASSWORD) { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
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
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        if let Some(channel) = self.channel.take() {
            tokio::spawn(carry(channel, self.machine.clone(), self.command.clone()));
        }
        Ok(())
    }
}

async fn carry(
    channel: Channel<Msg>,
    machine: Arc<dyn Machine>,
    command: Option<String>,
) -> std::io::Result<()> {
    let mut stream = channel.into_stream();
    if let Some(command) = command {
        stream.write_all(PROMPT).await?;
        let mut typed = Vec::new();
        while typed.last() != Some(&b'\r') {
            typed.push(stream.read_u8().await?);
        }
        if typed.strip_suffix(b"\r") != Some(command.as_bytes()) {
            return stream.write_all(b"\r\nno such command\r\n").await;
        }
    }
    let printed = machine.console();
    let mut typed = [0; 512];
    loop {
        tokio::select! {
            count = stream.read(&mut typed) => match count? {
                0 => return Ok(()),
                count => machine.type_console(&typed[..count]),
            },
            () = tokio::time::sleep(TICK) => {
                let pieces: Vec<u8> = printed.try_iter().flatten().collect();
                stream.write_all(&pieces).await?;
            }
        }
    }
}
