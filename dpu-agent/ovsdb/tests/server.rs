//! The client against Open vSwitch's own `ovsdb-server` with OVN's northbound schema.

#![cfg(feature = "client")]
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jsonrpc::{Address, Tls};
use ovsdb::{
    Atom, Client, Condition, Datum, Error, Follower, Mutation, Mutator, Operation, Outcome, OutcomeError,
    Replica, Row, Settings, Until, Version, Wanted,
};

const NB: &str = "OVN_Northbound";
const SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
/// Whatever a machine under load needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a database of its own.
struct Server {
    dir: PathBuf,
    child: Child,
}

impl Server {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ovsdb-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let made = Command::new("ovsdb-tool").arg("create").arg(dir.join("nb.db")).arg(SCHEMA).status();
        assert!(made.expect("ovsdb-tool (package openvswitch-common)").success());
        let child = Self::spawn(&dir, &[]);
        Self { dir, child }
    }

    fn spawn(dir: &Path, more: &[String]) -> Child {
        let socket = dir.join("nb.sock");
        let _ = fs::remove_file(&socket);
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", dir.join("ctl").display()))
            .args(["-vconsole:off"])
            .args(more)
            .arg(dir.join("nb.db"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < end, "ovsdb-server does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    /// Starts it anew, with an address for TLS.
    fn secure(&mut self, pki: &Pki) -> Address {
        self.stop();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Tls { ca, certificate, key } = pki.tls("switch", "server");
        let more = [
            format!("--remote=pssl:{port}:127.0.0.1"),
            format!("--private-key={}", key.display()),
            format!("--certificate={}", certificate.display()),
            format!("--ca-cert={}", ca.display()),
        ];
        self.child = Self::spawn(&self.dir, &more);
        format!("ssl:127.0.0.1:{port}").parse().unwrap()
    }

    fn address(&self) -> Address {
        Address::Unix(self.dir.join("nb.sock"))
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    fn settings(&self, version: Version) -> Settings {
        let columns = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let wanted = Wanted::from([
            ("Logical_Switch".to_owned(), columns(&["name", "ports", "external_ids"])),
            ("Logical_Switch_Port".to_owned(), columns(&["name", "tag"])),
        ]);
        let (address, database) = (self.address(), NB.to_owned());
        Settings { address, database, wanted, version, lock: None, probe: Duration::from_secs(5) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Certificates of two authorities, `switch` and `controller`, made by `ovs-pki`.
struct Pki(PathBuf);

impl Pki {
    fn make(dir: &Path) -> Self {
        let pki = Self(dir.join("pki"));
        fs::create_dir_all(&pki.0).unwrap();
        pki.run(&["init"]);
        for (name, authority) in [("server", "switch"), ("own", "switch"), ("stranger", "controller")] {
            pki.run(&["-u", "req+sign", name, authority]);
        }
        pki
    }

    fn run(&self, words: &[&str]) {
        let (dir, log) = (self.0.join("ca"), self.0.join("log"));
        let mut command = Command::new("ovs-pki");
        command.arg(format!("--dir={}", dir.display())).arg(format!("--log={}", log.display())).args(words);
        let done = command.current_dir(&self.0).output().expect("ovs-pki (package openvswitch-pki)");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn tls(&self, authority: &str, name: &str) -> Tls {
        Tls {
            ca: self.0.join(format!("ca/{authority}ca/cacert.pem")),
            certificate: self.0.join(format!("{name}-cert.pem")),
            key: self.0.join(format!("{name}-privkey.pem")),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", chain(cause)))
}

fn insert_switch(name: &str) -> Operation {
    let row = Row::from([("name".to_owned(), name.into())]);
    Operation::Insert { table: "Logical_Switch".into(), row, name: None }
}

/// Looks again and again.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

fn switch<'a>(replica: &'a Replica, name: &str) -> Option<&'a Row> {
    replica.rows("Logical_Switch").map(|(_, row)| row).find(|row| row["name"].text() == Some(name))
}

#[tokio::test]
async fn asks_and_changes() {
    let server = Server::start("ask");
    let client = Client::connect(&server.address()).await.unwrap();
    assert!(client.list_dbs().await.unwrap().contains(&NB.to_owned()));
    let schema = client.get_schema(NB).await.unwrap();
    assert!(!schema.column("Logical_Switch", "ports").unwrap().single);
    assert!(schema.column("Logical_Switch_Port", "tag").unwrap().single);
    client.echo(PATIENCE).await.unwrap();

    let port = Operation::Insert {
        table: "Logical_Switch_Port".into(),
        row: Row::from([("name".to_owned(), "p1".into()), ("tag".to_owned(), 7.into())]),
        name: Some("port".into()),
    };
    let row = Row::from([
        ("name".to_owned(), "net".into()),
        ("ports".to_owned(), Datum::set([Atom::Named("port".into())])),
        ("external_ids".to_owned(), Datum::map([("a", "1"), ("b", "2")])),
    ]);
    let switch = Operation::Insert { table: "Logical_Switch".into(), row, name: None };
    let made = client.transact(NB, &[port, switch, Operation::Comment("a network".into())]).await.unwrap();
    let [Outcome::Inserted(port), Outcome::Inserted(switch), Outcome::Done] = made[..] else {
        panic!("{made:?}")
    };

    let table = || "Logical_Switch".to_owned();
    let mutations = vec![
        Mutation { column: "external_ids".into(), mutator: Mutator::Delete, value: Datum::set(["a"]) },
        Mutation { column: "external_ids".into(), mutator: Mutator::Insert, value: Datum::map([("c", "3")]) },
    ];
    let changes = [
        Operation::Wait {
            timeout: Some(0),
            table: table(),
            which: Condition::is_row(switch),
            columns: vec!["name".into()],
            until: Until::Equal,
            rows: vec![Row::from([("name".to_owned(), "net".into())])],
        },
        Operation::Mutate { table: table(), which: Condition::is_row(switch), mutations },
        Operation::Update {
            table: table(),
            which: Condition::is_row(switch),
            row: Row::from([("name".to_owned(), "renamed".into())]),
        },
        Operation::Select {
            table: table(),
            which: vec![Condition::equals("name", "renamed")],
            columns: None,
        },
        Operation::Commit { durable: true },
    ];
    let done = client.transact(NB, &changes).await.unwrap();
    assert_eq!(done[1..3], [Outcome::Count(1), Outcome::Count(1)]);
    let Outcome::Rows(rows) = &done[3] else { panic!("{done:?}") };
    assert_eq!(rows[0]["external_ids"], Datum::map([("b", "2"), ("c", "3")]));
    assert_eq!(rows[0]["ports"], Datum::from(port));

    let delete = Operation::Delete { table: table(), which: Condition::is_row(switch) };
    let aborted = client.transact(NB, &[delete.clone(), Operation::Abort]).await.unwrap_err();
    assert!(matches!(aborted, Error::Outcome(OutcomeError::Failed { operation: 1, .. })), "{aborted}");
    assert_eq!(client.transact(NB, &[delete]).await.unwrap(), [Outcome::Count(1)], "it was still there");
    // Two ports of one name: the constraint is checked after the last operation.
    let twice = |n: &str| Operation::Insert {
        table: "Logical_Switch_Port".into(),
        row: Row::from([("name".to_owned(), "same".into())]),
        name: Some(n.to_owned()),
    };
    let row = Row::from([("ports".to_owned(), Datum::set(["x", "y"].map(|n| Atom::Named(n.into()))))]);
    let both = Operation::Insert { table: table(), row, name: None };
    let refused = client.transact(NB, &[twice("x"), twice("y"), both]).await.unwrap_err();
    assert!(refused.to_string().contains("constraint violation"), "{refused}");
    assert!(client.transact("Nowhere", &[]).await.unwrap_err().to_string().contains("unknown database"));
}

#[tokio::test]
async fn locks_pass_from_one_to_the_next() {
    let server = Server::start("lock");
    let mut settings = server.settings(Version::Since);
    settings.lock = Some("turn".into());
    let first = Follower::start(settings.clone());
    within(first.wait_for(|_| true)).await;
    let second = Follower::start(settings);
    within(second.wait_for(|_| true)).await;
    assert!(first.holds_lock() && !second.holds_lock());
    first.transact(vec![insert_switch("by-first")]).await.unwrap();
    let refused = second.transact(vec![insert_switch("by-second")]).await.unwrap_err();
    assert!(refused.to_string().contains("not owner"), "{refused}");

    let thief = Client::connect(&server.address()).await.unwrap();
    assert!(thief.steal("turn").await.unwrap());
    let stolen = first.transact(vec![insert_switch("by-first")]).await.unwrap_err();
    assert!(stolen.to_string().contains("not owner"), "{stolen}");
    assert!(!first.holds_lock());
    // Who was robbed is the first in line again.
    thief.unlock("turn").await.unwrap();
    until("the lock comes back", || first.holds_lock()).await;
    drop(first);
    until("the lock passes on", || second.holds_lock()).await;
    assert_eq!(second.transact(vec![insert_switch("by-second")]).await.unwrap().len(), 2);
}

async fn follows(name: &str, version: Version) {
    let mut server = Server::start(name);
    let other = Client::connect(&server.address()).await.unwrap();
    other.transact(NB, &[insert_switch("before")]).await.unwrap();
    let follower = Follower::start(server.settings(version));
    within(follower.wait_for(|r| switch(r, "before").is_some())).await;

    // What we change is in the replica when the answer is there, without a wait.
    for n in 0..50 {
        follower.transact(vec![insert_switch(&format!("own-{n}"))]).await.unwrap();
        assert!(follower.read(|r| switch(r, &format!("own-{n}")).is_some()).unwrap());
    }
    // What others change comes by itself, members of sets included.
    let port = |n: &str| Operation::Insert {
        table: "Logical_Switch_Port".into(),
        row: Row::from([("name".to_owned(), n.into())]),
        name: Some(n.to_owned()),
    };
    let with_port = |n: &str| Operation::Mutate {
        table: "Logical_Switch".into(),
        which: vec![Condition::equals("name", "before")],
        mutations: vec![Mutation {
            column: "ports".into(),
            mutator: Mutator::Insert,
            value: Datum::set([Atom::Named(n.into())]),
        }],
    };
    for n in ["a", "b", "c"] {
        other.transact(NB, &[port(n), with_port(n)]).await.unwrap();
    }
    within(follower.wait_for(|r| switch(r, "before").unwrap()["ports"].uuids().count() == 3)).await;
    let remove =
        Operation::Delete { table: "Logical_Switch".into(), which: vec![Condition::equals("name", "own-0")] };
    other.transact(NB, &[remove]).await.unwrap();
    within(follower.wait_for(|r| r.len("Logical_Switch") == 50)).await;

    // The server goes, and says so; it comes back with another content.
    server.stop();
    until("the loss is seen", || follower.read(|_| ()).is_err()).await;
    let offline = follower.transact(vec![insert_switch("lost")]).await.unwrap_err();
    assert!(offline.to_string().contains("is out of reach"), "{offline}");
    server.child = Server::spawn(&server.dir, &[]);
    let other = Client::connect(&server.address()).await.unwrap();
    let remove =
        Operation::Delete { table: "Logical_Switch".into(), which: vec![Condition::equals("name", "own-1")] };
    other.transact(NB, &[remove, insert_switch("after")]).await.unwrap();
    within(follower.wait_for(|r| switch(r, "after").is_some() && switch(r, "own-1").is_none())).await;
    assert_eq!(follower.read(|r| r.len("Logical_Switch")).unwrap(), 50);
    assert_eq!(follower.read(|r| switch(r, "before").unwrap()["ports"].uuids().count()).unwrap(), 3);
}

#[tokio::test]
async fn follows_by_differences() {
    follows("since", Version::Since).await;
}

#[tokio::test]
async fn follows_by_whole_rows() {
    follows("plain", Version::Plain).await;
}

#[tokio::test]
async fn a_schema_without_what_is_wanted_is_named() {
    let server = Server::start("schema");
    let mut settings = server.settings(Version::Since);
    settings.wanted.insert("Logical_Flow_From_Tomorrow".into(), BTreeSet::new());
    let follower = Follower::start(settings);
    let words = || follower.read(|_| ()).unwrap_err().to_string();
    until("it is named", || words().contains("has no table `Logical_Flow_From_Tomorrow`")).await;
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let dir = std::env::temp_dir().join(format!("ovsdb-silent-{}", std::process::id()));
    let _ = fs::remove_file(&dir);
    let listener = tokio::net::UnixListener::bind(&dir).unwrap();
    let server = Server::start("talks");
    // Hands everything on until it is told to be silent.
    let (silent, mut told) = tokio::sync::watch::channel(false);
    let upstream = server.dir.join("nb.sock");
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = told.changed() => {
                    // Kept open, and read by nobody, until the client has left.
                    let mut rest = Vec::new();
                    let _ = tokio::io::AsyncReadExt::read_to_end(&mut near, &mut rest).await;
                }
            }
        }
    });
    let mut settings = server.settings(Version::Since);
    settings.address = Address::Unix(dir.clone());
    settings.probe = Duration::from_millis(200);
    let follower = Follower::start(settings);
    within(follower.wait_for(|_| true)).await;
    silent.send(true).unwrap();
    until("silence is seen", || follower.read(|_| ()).is_err()).await;
    within(follower.wait_for(|_| true)).await;
    fs::remove_file(&dir).unwrap();
}

#[tokio::test]
async fn by_tls_both_ends_believe_who_their_authority_signed() {
    let mut server = Server::start("tls");
    let pki = Pki::make(&server.dir);
    let address = server.secure(&pki);
    let with = |authority, name| address.clone().with_tls(pki.tls(authority, name));
    let own = with("switch", "own");
    until("it listens", || std::net::TcpStream::connect(own.to_string().trim_start_matches("ssl:")).is_ok())
        .await;
    let client = within(Client::connect(&own)).await.unwrap();
    assert!(within(client.list_dbs()).await.unwrap().iter().any(|name| name == NB));
    within(client.transact(NB, &[insert_switch("secret")])).await.unwrap();
    let follower = Follower::start(Settings { address: own, ..server.settings(Version::Since) });
    within(follower.wait_for(|rows| switch(rows, "secret").is_some())).await;

    // The server is signed by another authority than the one that is believed here.
    let error = chain(&within(Client::connect(&with("controller", "own"))).await.unwrap_err());
    assert!(error.contains("controllerca/cacert.pem vouches for (UnknownIssuer)"), "{error}");
    // And what we show is signed by another one than the server's: it hangs up, at once or when it is asked.
    let stranger = Tls { ca: pki.tls("switch", "own").ca, ..pki.tls("controller", "stranger") };
    let error = match within(Client::connect(&address.clone().with_tls(stranger))).await {
        Ok(client) => chain(&within(client.list_dbs()).await.unwrap_err()),
        Err(error) => chain(&error),
    };
    assert!(error.to_lowercase().contains("alert"), "{error}");

    let error = chain(&within(Client::connect(&address)).await.unwrap_err());
    assert!(error.ends_with("wants a certificate of ours, and none is known here"), "{error}");
    let missing = Tls { key: "/nowhere/key.pem".into(), ..pki.tls("switch", "own") };
    let error = chain(&within(Client::connect(&address.clone().with_tls(missing))).await.unwrap_err());
    assert!(error.contains("/nowhere/key.pem"), "{error}");
    follower_hears_why(&with("controller", "own"), &server).await;
}

/// Whoever waits for the database is told why it is out of reach.
async fn follower_hears_why(address: &Address, server: &Server) {
    let follower = Follower::start(Settings { address: address.clone(), ..server.settings(Version::Since) });
    let why = || follower.read(|_| ()).err().map(|e| e.to_string()).unwrap_or_default();
    until("it says why", || why().contains("UnknownIssuer")).await;
}
