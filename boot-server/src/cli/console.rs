//! `billet console …` and `billet node console`: serial consoles in this terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use boot_server_core::console::cast::{self, Kind};
use boot_server_core::console::escape::HELP;
use boot_server_core::console::{ConsoleSource, Escape, Source, Typed};
use clap::Subcommand;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use uuid::Uuid;

use super::Failure;
use super::again::{AgainArgs, SITE};
use super::client::{Client, encode};
use super::node::path;
use super::output::{Format, Show, facts, table};
use super::text::{moment, plain, span};
use crate::view::{
    ConsoleAsks, ConsoleSays, ConsoleSessionView, ConsoleState, ConsoleView, Page, Problem, RecordingView,
};

/// Largest recording that is read, in octets: twice what the server makes.
const RECORDING_MAX: u64 = 32 << 20;
/// Longest pause in a recording that is played.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest message of the server.
const MESSAGE_MAX: usize = 1 << 20;

/// What can be done with consoles.
#[derive(Debug, Subcommand)]
pub enum ConsoleCommand {
    /// Where a node's console is, how it stands and who looks
    Show {
        /// Name or id
        node: String,
    },
    /// Say where a node's console is (with the site's own token)
    Set {
        /// Name or id
        node: String,
        /// bmc, tcp:HOST:PORT or unix:/PATH on the server
        source: Source,
        /// Read a BMC's console also while nobody looks; sockets always are
        #[arg(long)]
        follow: bool,
    },
    /// Make a node's console that of its BMC again
    Reset {
        /// Name or id
        node: String,
    },
    /// Print what is kept of what a node printed
    Log {
        /// Name or id
        node: String,
    },
    /// Who looks at which console
    Sessions(AgainArgs),
    /// End a session
    End {
        /// Id of the session
        session: Uuid,
    },
    /// Recordings, newest first
    Recordings {
        /// Only of this node
        #[arg(long)]
        node: Option<String>,
    },
    /// Play a recording
    Play {
        /// Id of the session
        recording: Uuid,
        /// So many times as fast
        #[arg(long, default_value_t = 1.0, value_name = "TIMES")]
        speed: f64,
        /// All at once, exactly the octets that were printed
        #[arg(long)]
        raw: bool,
    },
}

/// Runs a command.
pub(super) fn run(client: &Client, format: Format, command: ConsoleCommand) -> Result<(), Failure> {
    match command {
        ConsoleCommand::Show { node } => format.print(&client.get::<ConsoleView>(&path(&node, "/console"))?),
        ConsoleCommand::Set { node, source, follow } => {
            let source = ConsoleSource { source, follow };
            format.print(&client.put::<_, ConsoleView>(&path(&node, "/console"), &source)?)
        }
        ConsoleCommand::Reset { node } => {
            format.print(&client.delete_with::<ConsoleView>(&path(&node, "/console"))?)
        }
        ConsoleCommand::Log { node } => out(&client.octets(&path(&node, "/console/log"), RECORDING_MAX)?),
        ConsoleCommand::Sessions(again) => {
            again.list(client, SITE, format, || client.all::<ConsoleSessionView>("console/sessions"))
        }
        ConsoleCommand::End { session } => {
            format.print(&client.delete_with::<ConsoleSessionView>(&format!("console/sessions/{session}"))?)
        }
        ConsoleCommand::Recordings { node } => {
            let of = node.map_or_else(String::new, |node| format!("&node={}", encode(&node)));
            format.print(&client.all::<RecordingView>(&format!("console/recordings?limit=500{of}"))?)
        }
        ConsoleCommand::Play { recording, speed, raw } => play(client, recording, speed, raw),
    }
}

/// Writes octets to standard output as they are.
fn out(octets: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(octets).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Other(format!("cannot write to standard output: {error}")),
    })
}

fn play(client: &Client, recording: Uuid, speed: f64, raw: bool) -> Result<(), Failure> {
    let octets = client.octets(&format!("console/recordings/{recording}"), RECORDING_MAX)?;
    let (_, events) = cast::parse(&String::from_utf8_lossy(&octets))
        .map_err(|error| Failure::Other(format!("the recording cannot be played: {error}")))?;
    let mut before = Duration::ZERO;
    for event in events.into_iter().filter(|event| event.kind == Kind::Output) {
        if !raw {
            let pause = event.at.saturating_sub(before).min(PAUSE_MAX);
            std::thread::sleep(pause.div_f64(speed.clamp(0.1, 1000.0)));
            before = event.at;
        }
        out(&event.octets)?;
    }
    Ok(())
}

/// Looks at a console in this terminal, until `~.`, the end of the input, or the end of the session.
pub(super) fn attach(client: &Client, node: &str, take: bool) -> Result<(), Failure> {
    attach_at(client, node, &path(node, "/console/attach"), take)
}

/// Attaches to the console at this path of the API.
pub(super) fn attach_at(client: &Client, name: &str, path: &str, take: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Other(format!("cannot start: {e}")))?;
    runtime.block_on(look(client, name, path, take))
}

async fn look(client: &Client, name: &str, path: &str, take: bool) -> Result<(), Failure> {
    let server = client.server().replacen("http", "ws", 1);
    let url = format!("{server}/api/v1/{path}");
    let address = || Failure::Usage(format!("`{}` is not the address of a server", client.server()));
    let mut request = url.into_client_request().map_err(|_| address())?;
    let bearer = format!("Bearer {}", client.token()).parse();
    request.headers_mut().insert(
        "authorization",
        bearer.map_err(|_| Failure::Usage("the token holds characters that no token has".to_owned()))?,
    );
    let limits = tungstenite::protocol::WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(limits), true);
    let (mut socket, _) = connecting.await.map_err(|error| refused(client, error))?;
    eprintln!("Console of {}; the session is recorded. ~. leaves, ~? helps.", plain(name));
    let raw = Raw::begin();
    if take {
        socket.send(asks(ConsoleAsks::Take)).await.map_err(lost)?;
    }
    let (mut input, mut escape) = (typing(), Escape::default());
    let end = loop {
        let typed = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(octets))) => {
                    out(&octets)?;
                    continue;
                }
                Some(Ok(Message::Text(text))) => match say(&text, &raw) {
                    Some(reason) => break Some(reason),
                    None => continue,
                },
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(lost(error)),
                None => break Some("the server closed it".to_owned()),
            },
            typed = input.recv() => match typed {
                None => break None,
                Some(octets) => escape.handle(&octets),
            },
        };
        let mut left = false;
        for typed in typed {
            match typed {
                Typed::Octets(octets) => socket.send(Message::binary(octets)).await.map_err(lost)?,
                Typed::Take => socket.send(asks(ConsoleAsks::Take)).await.map_err(lost)?,
                Typed::Help => eprint!("{HELP}"),
                Typed::Leave => left = true,
            }
        }
        if left {
            break None;
        }
    };
    let _ = socket.close(None).await; // it may be closed already
    drop(raw);
    match end {
        None => Ok(()),
        Some(reason) => Err(Failure::Other(format!("the session is over: {reason}"))),
    }
}

/// What is typed, read by a thread of its own: a read of a terminal cannot be waited for otherwise, nor taken back.
fn typing() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut octets = [0; 4096];
        while let Ok(n @ 1..) = io::stdin().read(&mut octets) {
            if sender.blocking_send(octets[..n].to_vec()).is_err() {
                return; // the session is over
            }
        }
    });
    receiver
}

fn asks(what: ConsoleAsks) -> Message {
    // Plain data, which JSON can always hold.
    Message::text(serde_json::to_string(&what).unwrap_or_default())
}

/// Shows what the server says; the reason where the session is over.
fn say(text: &str, raw: &Option<Raw>) -> Option<String> {
    let end = if raw.is_some() { "\r\n" } else { "\n" };
    match serde_json::from_str(text) {
        Ok(ConsoleSays::Notice { text }) => eprint!("{end}[billet: {}]{end}", plain(&text)),
        Ok(ConsoleSays::Skipped { octets }) => {
            eprint!("{end}[billet: {octets} octets came too fast and are not shown]{end}");
        }
        Ok(ConsoleSays::Presence { console, .. }) => {
            if let (ConsoleState::Failed, Some(problem)) = (console.state, console.problem) {
                eprint!("{end}[billet: {}]{end}", plain(&problem));
            }
        }
        Ok(ConsoleSays::Ended { reason }) => return Some(reason),
        Err(_) => {} // a newer server may say more
    }
    None
}

fn refused(client: &Client, error: tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            Failure::Problem(serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
                status,
                code: "http".to_owned(),
                message: format!("the server answered {status}"),
                hint: String::new(),
            }))
        }
        other => Failure::Unreachable { server: client.server().to_owned(), cause: other.to_string() },
    }
}

fn lost(error: tungstenite::Error) -> Failure {
    Failure::Other(format!("the connection was lost: {error}"))
}

/// The terminal in raw mode: each key is sent as it is pressed. It is as before when this is dropped.
struct Raw(rustix::termios::Termios);

impl Raw {
    /// Nothing where standard input is no terminal.
    fn begin() -> Option<Self> {
        let input = io::stdin();
        if !input.is_terminal() {
            return None;
        }
        let before = rustix::termios::tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let set = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
        if set.is_err() {
            eprintln!("the terminal stays in raw mode: `stty sane` mends it");
        }
    }
}

fn state(console: &ConsoleView) -> String {
    let word = match console.state {
        ConsoleState::Idle => "idle",
        ConsoleState::Connecting => "connecting",
        ConsoleState::Connected => "connected",
        ConsoleState::Failed => "failed",
    };
    console.problem.as_ref().map_or_else(|| word.to_owned(), |problem| format!("{word}: {problem}"))
}

fn who(session: &ConsoleSessionView) -> String {
    let about = &session.about;
    let types = if session.writes { ", types" } else { "" };
    format!("{} from {} ({}){types}", about.who, about.from, about.via)
}

impl Show for ConsoleView {
    fn table(&self) -> String {
        let mut text = facts(&[
            ("source", Some(self.source.source.to_string())),
            (
                "followed",
                Some(if self.source.follows() { "always" } else { "while somebody looks" }.to_owned()),
            ),
            ("state", Some(state(self))),
            ("since", Some(moment(self.since))),
            ("kept", Some(format!("{} octets", self.kept_bytes))),
        ]);
        for session in &self.sessions {
            text.push_str(&facts(&[("looks", Some(who(session)))]));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        vec![self.source.source.to_string()]
    }
}

impl Show for ConsoleSessionView {
    fn table(&self) -> String {
        facts(&[
            ("session", Some(self.about.session.to_string())),
            ("node", Some(self.about.node_name.clone())),
            ("who", Some(who(self))),
            ("since", Some(moment(self.about.began))),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.about.session.to_string()]
    }
}

impl Show for Page<ConsoleSessionView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "Nobody looks at a console.".to_owned();
        }
        let rows = self.items.iter().map(|s| {
            vec![s.about.session.to_string(), s.about.node_name.clone(), who(s), moment(s.about.began)]
        });
        table(&["session", "node", "who", "since"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|s| s.about.session.to_string()).collect()
    }
}

impl Show for Page<RecordingView> {
    fn table(&self) -> String {
        if self.items.is_empty() {
            return "No recordings.".to_owned();
        }
        let rows = self.items.iter().map(|r| {
            let length = r.ended.map_or_else(
                || "goes on".to_owned(),
                |ended| span(u64::try_from(ended.since(r.about.began).as_millis()).unwrap_or(u64::MAX)),
            );
            let from = format!("{} ({})", r.about.from, r.about.via);
            let began = moment(r.about.began);
            vec![
                r.about.session.to_string(),
                r.about.node_name.clone(),
                r.about.who.clone(),
                from,
                began,
                length,
            ]
        });
        table(&["recording", "node", "who", "from", "began", "length"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|r| r.about.session.to_string()).collect()
    }
}
