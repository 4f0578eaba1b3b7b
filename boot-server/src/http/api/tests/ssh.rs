//! The SSH gateway with the real client, `ssh`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::keys::PublicKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use ureq::http::Method;

use super::console::{Port, Viewer};
use super::lab::{Lab, TOKEN};
use crate::console::ssh::{Gateway, Parts, host_key};

const WAIT: Duration = Duration::from_secs(20);

/// A gateway of a lab.
struct Gate<'a> {
    lab: &'a Lab,
    port: u16,
    stop: CancellationToken,
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<'a> Gate<'a> {
    async fn open(lab: &'a Lab, keys: Vec<(String, PublicKey)>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let path = lab.dir.join("ssh_host_ed25519_key");
        let key = host_key(&path).unwrap();
        assert_eq!(host_key(&path).unwrap().public_key(), key.public_key(), "made once");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let parts = Parts {
            engine: lab.engine.clone(),
            consoles: lab.consoles.clone(),
            operators: Arc::clone(&lab.known),
        };
        let stop = CancellationToken::new();
        tokio::spawn(Gateway::new(socket, key, keys, parts).run(stop.clone()));
        Self { lab, port, stop }
    }

    /// `ssh` as `user`; `password` is what it answers when it is asked for one.
    fn ssh(&self, user: &str, password: &str, more: &[&str]) -> Client {
        self.ssh_for(user, password, more, &[])
    }

    /// The same, with what stands behind the host on its command line.
    fn ssh_for(&self, user: &str, password: &str, more: &[&str], behind: &[&str]) -> Client {
        let ask = self.lab.dir.join("askpass");
        fs::write(&ask, "#!/bin/sh\nprintf '%s\\n' \"$PASSWORD\"\n").unwrap();
        fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-p", &self.port.to_string(), "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"])
            .args(["-o", "IdentityAgent=none", "-o", "LogLevel=ERROR", "-e", "none"])
            .args(more)
            .env("SSH_ASKPASS", &ask)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("PASSWORD", password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.arg(format!("{user}@127.0.0.1")).args(behind);
        Client { process: command.spawn().expect("package openssh-client is needed"), shown: Vec::new() }
    }
}

struct Client {
    process: Child,
    shown: Vec<u8>,
}

impl Client {
    async fn until_shown(&mut self, text: &str) {
        let out = self.process.stdout.as_mut().unwrap();
        let reading = async {
            let mut octets = [0; 4096];
            while !self.shown.windows(text.len()).any(|w| w == text.as_bytes()) {
                match out.read(&mut octets).await.unwrap() {
                    0 => panic!("ssh ended; shown is {:?}", String::from_utf8_lossy(&self.shown)),
                    n => self.shown.extend(&octets[..n]),
                }
            }
        };
        let shown = tokio::time::timeout(WAIT, reading).await;
        assert!(shown.is_ok(), "{text} does not come; shown is {:?}", String::from_utf8_lossy(&self.shown));
    }

    async fn type_text(&mut self, text: &str) {
        let input = self.process.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        input.flush().await.unwrap();
    }

    /// Its exit code, and what it complained of.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut complaint = String::new();
        let mut errors = self.process.stderr.take().unwrap();
        let ending = async {
            errors.read_to_string(&mut complaint).await.unwrap();
            self.process.wait().await.unwrap().code()
        };
        let code = tokio::time::timeout(WAIT, ending).await.expect("ssh does not end");
        (code, complaint)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_looks_types_leaves_and_is_cut() {
    let lab = Lab::new().await;
    let (olga, otto) = (lab.token("olga", "operator").await, lab.token("otto", "operator").await);
    let gate = Gate::open(&lab, Vec::new()).await;
    let mut port = Port::of(&lab, "alpha").await;
    port.print(b"alpha login: ").await;
    let mut web = Viewer::open(&lab, "alpha", TOKEN).await;
    web.until_shown("alpha login: ").await;

    let mut client = gate.ssh("alpha", &olga, &["-tt"]);
    client.until_shown("alpha login: ").await;
    client.type_text("root\r").await;
    port.typed("root\r").await;
    web.until_told("olga types").await;
    port.print(b"# ").await;
    client.until_shown("# ").await;
    web.ask("take").await;
    client.until_shown("operator took over typing from olga").await;
    client.type_text("~t").await;
    web.until_told("olga took over typing from operator").await;
    client.type_text("~.").await;
    let (code, complaint) = client.end().await;
    assert_eq!(code, Some(0), "{complaint}");
    web.until_told("olga left; nobody types now").await;

    // A revoked token is cut within two seconds.
    let mut client = gate.ssh("alpha", &otto, &["-tt"]);
    client.until_shown("# ").await;
    let begun = Instant::now();
    assert_eq!(lab.send(Method::DELETE, "/api/v1/tokens/otto", &[], Vec::new()).await.status, 200);
    client.until_shown("the token was revoked").await;
    let (code, _) = client.end().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(code, Some(1));
    let list = lab.get("/api/v1/console/recordings?node=alpha").await;
    let ways: Vec<&str> =
        list.body["items"].as_array().unwrap().iter().map(|r| r["via"].as_str().unwrap()).collect();
    assert_eq!(ways.iter().filter(|w| **w == "ssh").count(), 2, "{ways:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_is_a_console_and_nothing_else() {
    let lab = Lab::new().await;
    let olga = lab.token("olga", "operator").await;
    let gate = Gate::open(&lab, Vec::new()).await;
    let _port = Port::of(&lab, "alpha").await;
    for (user, password) in [("alpha", "wrong"), ("nobody", olga.as_str()), ("root", "")] {
        let (code, complaint) = gate.ssh(user, password, &[]).end().await;
        assert_eq!(code, Some(255), "{user}: {complaint}");
        assert!(complaint.contains("Permission denied"), "{user}: {complaint}");
    }
    // A command, a subsystem (sftp), and forwarding without a shell.
    let (code, complaint) = gate.ssh_for("alpha", &olga, &[], &["id"]).end().await;
    assert_eq!(code, Some(255), "{complaint}");
    assert!(complaint.contains("exec request failed"), "{complaint}");
    let (code, complaint) = gate.ssh_for("alpha", &olga, &["-s"], &["sftp"]).end().await;
    assert_eq!(code, Some(255), "{complaint}");
    assert!(complaint.contains("subsystem request failed"), "{complaint}");
    let target = lab.address.port();
    let forward = format!("127.0.0.1:0:127.0.0.1:{target}");
    let (code, complaint) =
        gate.ssh("alpha", &olga, &["-N", "-R", &forward, "-o", "ExitOnForwardFailure=yes"]).end().await;
    assert_eq!(code, Some(255), "{complaint}");
    let (code, complaint) = gate.ssh("alpha", &olga, &["-W", &format!("127.0.0.1:{target}")]).end().await;
    assert_ne!(code, Some(0), "{complaint}");
    assert!(complaint.contains("forwarding failed"), "{complaint}");
    let events = lab.get("/api/v1/events?node=alpha&limit=50").await;
    assert!(!events.body.to_string().contains("console.opened"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_stands_for_a_token_as_long_as_that_holds() {
    let lab = Lab::new().await;
    lab.token("olga", "operator").await;
    let file = lab.dir.join("id");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&file)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let text = fs::read_to_string(file.with_extension("pub")).unwrap();
    let key = PublicKey::from_openssh(text.trim()).unwrap();
    let gate = Gate::open(&lab, vec![("olga".to_owned(), key)]).await;
    let mut port = Port::of(&lab, "alpha").await;
    port.print(b"ready").await;
    let identity = ["-tt", "-o", "IdentitiesOnly=yes", "-i", file.to_str().unwrap()];
    let mut client = gate.ssh("alpha", "", &identity);
    client.until_shown("ready").await;
    lab.send(Method::DELETE, "/api/v1/tokens/olga", &[], Vec::new()).await;
    client.until_shown("the token was revoked").await;
    client.end().await;
    let (code, complaint) = gate.ssh("alpha", "", &identity).end().await;
    assert_eq!(code, Some(255), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_counted() {
    let lab = Lab::new().await;
    let gate = Gate::open(&lab, Vec::new()).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
        let mut hello = [0; 4];
        tokio::time::timeout(WAIT, stream.read_exact(&mut hello)).await.unwrap().unwrap();
        assert_eq!(&hello, b"SSH-");
        open.push(stream);
    }
    let mut more = TcpStream::connect(("127.0.0.1", gate.port)).await.unwrap();
    let mut hello = [0; 4];
    let read = tokio::time::timeout(WAIT, more.read(&mut hello)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the ninth connection is closed at once");
    drop(open);
}
