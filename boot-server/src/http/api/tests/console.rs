//! Consoles over a socket that a test plays the machine behind: what is kept, who types, who is cut, what is recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot_server_core::console::cast::{self, Kind};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use ureq::http::Method;

use super::lab::{Lab, TOKEN};
use crate::console::{Consoles, OpenBmc, Said, Via};
use crate::tokens::Principal;
use crate::view::ConsoleState;

/// How long a test waits for what must come.
const WAIT: Duration = Duration::from_secs(10);

/// A machine's serial port.
pub(super) struct Port {
    listener: UnixListener,
    line: Option<UnixStream>,
    path: PathBuf,
}

impl Port {
    pub fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.dir.join(format!("{name}.sock"));
        Self { listener: UnixListener::bind(&path).unwrap(), line: None, path }
    }

    /// Is the console of this node from now on, and is connected to.
    pub async fn of(lab: &Lab, node: &str) -> Self {
        let mut port = Self::new(lab, node);
        let body = json!({"source": format!("unix:{}", port.path.display())}).to_string().into_bytes();
        let path = format!("/api/v1/nodes/{node}/console");
        let set = lab.send(Method::PUT, &path, &[("content-type", "application/json")], body).await;
        assert_eq!(set.status, 200, "{set:?}");
        port.accept().await;
        port
    }

    pub async fn accept(&mut self) {
        let (line, _) = tokio::time::timeout(WAIT, self.listener.accept()).await.unwrap().unwrap();
        self.line = Some(line);
    }

    pub async fn print(&mut self, octets: &[u8]) {
        self.line.as_mut().unwrap().write_all(octets).await.unwrap();
    }

    /// Reads what was typed until it is this.
    pub async fn typed(&mut self, wanted: &str) {
        let mut octets = vec![0; wanted.len()];
        let reading = self.line.as_mut().unwrap().read_exact(&mut octets);
        tokio::time::timeout(WAIT, reading).await.expect("nothing is typed").unwrap();
        assert_eq!(String::from_utf8_lossy(&octets), wanted);
    }
}

/// A client of the WebSocket.
pub(super) struct Viewer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub octets: Vec<u8>,
    pub says: Vec<Value>,
}

impl Viewer {
    pub async fn open(lab: &Lab, node: &str, token: &str) -> Self {
        let headers = [("authorization", format!("Bearer {token}"))];
        Self { socket: dial(lab, node, &headers).await.unwrap(), octets: Vec::new(), says: Vec::new() }
    }

    /// Takes in messages until `is` holds.
    pub async fn until(&mut self, is: impl Fn(&Self) -> bool) {
        let reading = async {
            while !is(self) {
                match self.socket.next().await.expect("closed").expect("broken") {
                    Message::Binary(octets) => self.octets.extend(octets),
                    Message::Text(text) => self.says.push(serde_json::from_str(&text).unwrap()),
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(WAIT, reading).await.is_err() {
            let end = &self.octets[self.octets.len().saturating_sub(500)..];
            panic!("it does not come; there is {:?} and {:?}", String::from_utf8_lossy(end), self.says);
        }
    }

    pub async fn until_shown(&mut self, text: &str) {
        self.until(|v| v.octets.windows(text.len()).any(|w| w == text.as_bytes())).await;
    }

    pub async fn until_told(&mut self, text: &str) {
        self.until(|v| v.says.iter().any(|s| s.to_string().contains(text))).await;
    }

    pub async fn type_text(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.unwrap();
    }

    pub async fn ask(&mut self, what: &str) {
        self.socket.send(Message::text(json!({ "type": what }).to_string())).await.unwrap();
    }

    pub fn id(&self) -> String {
        let presence = self.says.iter().find(|s| s["type"] == "presence").unwrap();
        presence["you"].as_str().unwrap().to_owned()
    }
}

async fn dial(
    lab: &Lab,
    node: &str,
    headers: &[(&'static str, String)],
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, tungstenite::Error> {
    let mut request =
        format!("ws://{}/api/v1/nodes/{node}/console/attach", lab.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

async fn status(lab: &Lab, headers: &[(&'static str, String)]) -> u16 {
    match dial(lab, "alpha", headers).await {
        Ok(_) => 101,
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

/// Octets of one kind in a recording, once it has ended.
async fn replay(lab: &Lab, id: &str, token: &str, kind: Kind) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        let list = lab.get("/api/v1/console/recordings?node=alpha").await;
        let items = list.body["items"].as_array().unwrap().clone();
        let found = items.into_iter().find(|r| r["session"] == id).expect("no recording");
        if !found["ended"].is_null() {
            break;
        }
        assert!(begun.elapsed() < WAIT, "the recording does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let got = lab.with(token, Method::GET, &format!("/api/v1/console/recordings/{id}"), Value::Null).await;
    assert_eq!((got.status, got.kind.as_str()), (200, "application/x-asciicast"));
    let (header, events) = cast::parse(got.body.as_str().unwrap()).unwrap();
    assert_eq!((header.billet.node_name.as_str(), header.billet.from.as_str()), ("alpha", "127.0.0.1"));
    events.into_iter().filter(|e| e.kind == kind).flat_map(|e| e.octets).collect()
}

async fn kinds(lab: &Lab) -> Vec<String> {
    let page = lab.get("/api/v1/events?node=alpha&limit=50").await;
    let items = page.body["items"].as_array().unwrap().clone();
    items
        .iter()
        .rev()
        .map(|e| format!("{} {}", e["kind"].as_str().unwrap(), e["actor"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_look_one_types_and_all_is_recorded() {
    let lab = Lab::new().await;
    let (olga, otto, rita) = (
        lab.token("olga", "operator").await,
        lab.token("otto", "operator").await,
        lab.token("rita", "reader").await,
    );
    let mut port = Port::of(&lab, "alpha").await;
    port.print(b"[    0.000000] Linux version 6.1\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await; // nobody looks yet

    let mut first = Viewer::open(&lab, "alpha", &olga).await;
    first.until_shown("Linux version").await;
    first.until_told("\"state\":\"connected\"").await;
    let mut reader = Viewer::open(&lab, "alpha", &rita).await;
    reader.until_shown("Linux version").await;
    first.until_told("rita looks, from 127.0.0.1 (api)").await;
    port.print(b"alpha login: \xff").await;
    first.until_shown("login: ").await;
    reader.until_shown("login: ").await;

    // Typing asks for the place; a reader does not get it, nor does another one, unless it is taken.
    first.type_text("root\r").await;
    port.typed("root\r").await;
    reader.type_text("reboot\r").await;
    reader.until_told("may look at consoles, not type").await;
    reader.ask("take").await;
    let mut second = Viewer::open(&lab, "alpha", &otto).await;
    second.until_shown("login: ").await;
    second.type_text("halt\r").await;
    second.until_told("olga types; take over, or wait").await;
    second.ask("take").await;
    first.until_told("otto took over typing from olga").await;
    second.type_text("ls\r").await;
    port.typed("ls\r").await;
    first.type_text("x").await;
    first.until_told("otto types; take over, or wait").await;
    port.print("fïle €\r\n".as_bytes()).await;
    for viewer in [&mut first, &mut second, &mut reader] {
        viewer.until_shown("€\r\n").await;
    }

    // An operator ends a session; a reader ends none.
    let (one, two) = (first.id(), second.id());
    let path = format!("/api/v1/console/sessions/{two}");
    assert_eq!(lab.with(&rita, Method::DELETE, &path, json!({})).await.status, 403);
    assert_eq!(lab.with(&olga, Method::DELETE, &path, json!({})).await.status, 200);
    second.until_told("olga ended this session").await;
    assert_eq!(lab.with(&olga, Method::DELETE, &path, json!({})).await.code(), (404, "session-not-found"));

    // A revoked token is cut, whatever it does.
    let begun = Instant::now();
    let revoked = lab.send(Method::DELETE, "/api/v1/tokens/olga", &[], Vec::new()).await;
    assert_eq!(revoked.status, 200);
    first.until_told("the token was revoked").await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(status(&lab, &[("authorization", format!("Bearer {olga}"))]).await, 401);

    // What was recorded is what was shown and typed; readers do not learn what was typed.
    assert_eq!(replay(&lab, &one, TOKEN, Kind::Output).await, first.octets);
    assert_eq!(replay(&lab, &two, TOKEN, Kind::Output).await, second.octets);
    assert_eq!(replay(&lab, &one, TOKEN, Kind::Input).await, b"root\r");
    assert_eq!(replay(&lab, &one, &rita, Kind::Output).await, first.octets);
    assert_eq!(replay(&lab, &one, &rita, Kind::Input).await, b"");
    let log = lab.get("/api/v1/nodes/alpha/console/log").await;
    assert_eq!(log.status, 200);
    let kinds = kinds(&lab).await;
    for wanted in [
        "console.configured operator",
        "console.opened olga",
        "console.opened rita",
        "console.taken otto",
        "console.ended olga",
        "console.closed olga",
    ] {
        assert!(kinds.contains(&wanted.to_owned()), "{wanted} is not in {kinds:?}");
    }
    let left = lab.get("/api/v1/console/sessions").await;
    assert_eq!(left.body["items"].as_array().unwrap().len(), 1, "the reader still looks: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_viewer_skips_and_stops_nobody() {
    let lab = Lab::new().await;
    let mut port = Port::of(&lab, "alpha").await;
    let mut slow = Viewer::open(&lab, "alpha", TOKEN).await; // which reads nothing for now
    let mut fast = Viewer::open(&lab, "alpha", TOKEN).await;
    let line = [[b'x'; 1022].as_slice(), b"\r\n"].concat();
    let printing = async {
        for _ in 0..12 << 10 {
            port.print(&line).await; // 12 MiB: more than the kernel's buffers hold
        }
        port.print(b"the end").await;
    };
    let skipped = |v: &Viewer| v.says.iter().filter_map(|s| s["octets"].as_u64()).sum::<u64>();
    let end = |v: &Viewer| v.octets.ends_with(b"the end");
    tokio::join!(printing, fast.until(end));
    slow.until(end).await;
    assert!(skipped(&slow) > 0, "a viewer that reads nothing was waited for");
    assert_eq!(slow.octets.len() as u64 + skipped(&slow), (12 << 20) + 7);
    assert_eq!(fast.octets.len() as u64 + skipped(&fast), (12 << 20) + 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_goes_comes_back_and_a_new_place_is_followed() {
    let lab = Lab::new().await;
    let mut port = Port::of(&lab, "alpha").await;
    let mut viewer = Viewer::open(&lab, "alpha", TOKEN).await;
    port.print(b"one").await;
    viewer.until_shown("one").await;
    port.line = None;
    viewer.until_told("the console was lost: the other side closed it").await;
    viewer.type_text("lost").await;
    viewer.until_told("the console is not connected").await;
    port.accept().await;
    port.print(b"two").await;
    viewer.until_shown("onetwo").await;
    // Elsewhere from now on, with what was printed before.
    let mut other = Port::new(&lab, "other");
    let body = json!({"source": format!("unix:{}", other.path.display())});
    let set = lab.with(TOKEN, Method::PUT, "/api/v1/nodes/alpha/console", body).await;
    assert_eq!(set.status, 200);
    other.accept().await;
    other.print(b"three").await;
    viewer.until_shown("onetwothree").await;
    viewer.type_text("here").await;
    other.typed("here").await;
    let reset = lab.send(Method::DELETE, "/api/v1/nodes/alpha/console", &[], Vec::new()).await;
    assert_eq!((reset.status, &reset.body["configured"]), (200, &json!(false)));
    viewer.until_told("say where it is with `billet console set`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_site_says_where_consoles_are() {
    let lab = Lab::new().await;
    let olga = lab.token("olga", "operator").await;
    let path = "/api/v1/nodes/alpha/console";
    let body = json!({"source": "tcp:169.254.169.254:80"});
    assert_eq!(lab.with(&olga, Method::PUT, path, body).await.code(), (403, "not-admin"));
    assert_eq!(lab.with(&olga, Method::DELETE, path, Value::Null).await.code(), (403, "not-admin"));
    for bad in ["http://x/", "tcp:x", "unix:etc", "tcp:x:0"] {
        let got = lab.with(TOKEN, Method::PUT, path, json!({ "source": bad })).await;
        assert_eq!(got.code(), (400, "body"), "{bad}");
    }
    let shown = lab.get(path).await;
    assert_eq!((&shown.body["source"], &shown.body["configured"]), (&json!("bmc"), &json!(false)));
    assert_eq!(lab.get("/api/v1/nodes/nobody/console").await.code(), (404, "node-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_opens_no_socket() {
    let lab = Lab::new().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = lab.send_as(Method::POST, "/login", &form, format!("token={TOKEN}").into_bytes()).await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let own = format!("http://{}", lab.address);
    let session = ("cookie", cookie);
    assert_eq!(status(&lab, &[]).await, 401);
    assert_eq!(status(&lab, std::slice::from_ref(&session)).await, 403, "no origin");
    for evil in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(status(&lab, &[session.clone(), ("origin", evil.to_owned())]).await, 403, "{evil}");
        let bearer = ("authorization", format!("Bearer {TOKEN}"));
        assert_eq!(status(&lab, &[bearer, ("origin", evil.to_owned())]).await, 403, "{evil}");
    }
    let crossing = [session.clone(), ("origin", own.clone()), ("sec-fetch-site", "cross-site".to_owned())];
    assert_eq!(status(&lab, &crossing).await, 403);
    assert_eq!(status(&lab, &[session, ("origin", own)]).await, 101);
    let plain = lab.get("/api/v1/nodes/alpha/console/attach").await;
    assert_eq!(plain.code(), (426, "upgrade-required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_nodes_console_is_over() {
    let lab = Lab::new().await;
    let mut port = Port::of(&lab, "gamma").await;
    let mut viewer = Viewer::open(&lab, "gamma", TOKEN).await;
    viewer.until_told("\"state\":\"connected\"").await;
    let forgotten = lab.post("/api/v1/nodes/gamma/forget", json!({})).await;
    assert_eq!(forgotten.status, 200, "{forgotten:?}");
    viewer.until_told("the node was forgotten").await;
    let mut octets = [0; 8];
    let read = tokio::time::timeout(WAIT, port.line.as_mut().unwrap().read(&mut octets)).await.unwrap();
    assert_eq!(read.unwrap(), 0, "the source is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_asked_only_while_somebody_looks() {
    let lab = Lab::new().await;
    let (sender, mut lines) = mpsc::channel(4);
    let open: OpenBmc = Arc::new(move |_| {
        let sender = sender.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(4096);
            sender.send(ours).await.map_err(|e| e.to_string())?;
            Ok(Box::new(theirs) as Box<dyn bmc::Console>)
        })
    });
    let consoles = Consoles::open(lab.engine.clone(), Some(open), CancellationToken::new()).await.unwrap();
    let node = lab.engine.node("alpha").await.unwrap();
    assert_eq!(consoles.view(&node).state, ConsoleState::Idle);
    let quiet = tokio::time::timeout(Duration::from_millis(300), lines.recv()).await;
    assert!(quiet.is_err(), "it was opened for nobody");
    for round in 0..2 {
        let from = "10.0.0.7".parse().unwrap();
        let mut session = consoles.attach(&node, Principal::site(), from, Via::Api).await.unwrap();
        let mut line = tokio::time::timeout(WAIT, lines.recv()).await.unwrap().unwrap();
        line.write_all(format!("round {round}\r\n").as_bytes()).await.unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(format!("round {round}\r\n").as_bytes()) {
            if let Said::Output(octets) = tokio::time::timeout(WAIT, session.next()).await.unwrap() {
                shown.extend(octets);
            }
        }
        assert!(shown.starts_with(b"round 0"), "what came before is kept");
        session.typed(b"ok").await;
        let mut typed = [0; 2];
        tokio::time::timeout(WAIT, line.read_exact(&mut typed)).await.unwrap().unwrap();
        drop(session);
        let end = tokio::time::timeout(WAIT, line.read(&mut typed)).await.expect("it stays open for nobody");
        assert_eq!(end.unwrap(), 0);
    }
}
