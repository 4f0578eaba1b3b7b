//! The store on a real PostgreSQL. The bodies of all tests that have a store run on both: [`the_same_tests_pass`] runs them
//! a second time, with a database in place of each file.

use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::hash::{Hash as _, Hasher as _};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use boot_server_core::node::Severity;
use postgres::{Client, NoTls};
use protocol::Timestamp;
use tests_postgres::Postgres;

use super::db::{Server, ServerError};
use super::queries::{self, EventFilter, NewEvent};
use super::*;

/// The address of a database, in the tests that run a second time.
const IN_PLACE: &str = "BILLET_TEST_POSTGRES";
/// What is run a second time: whatever has a store.
const BOTH: [&str; 7] = ["store::", "engine::", "tokens::", "http::", "webhooks::", "console::", "ingest::"];
/// Fewer would mean that the names above fit no more.
const BOTH_MIN: usize = 100;

pub(super) fn on_postgres() -> bool {
    std::env::var_os(IN_PLACE).is_some()
}

/// The place that stands for a file, where the tests run on PostgreSQL: a schema of its own in the one database there.
pub(super) fn in_place_of(path: &Path) -> Option<Location> {
    let url = std::env::var(IN_PLACE).ok()?;
    let mut hash = DefaultHasher::new();
    path.hash(&mut hash);
    let name = format!("t{:x}", hash.finish());
    let own = format!("{url}?options=-csearch_path%3D{name}");
    // The driver must not wait in an asynchronous task.
    let make = move || {
        let mut client = Client::connect(&url, NoTls).unwrap();
        client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {name}")).unwrap();
    };
    thread::spawn(make).join().unwrap();
    // As SQLite's would be.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Some(Location::Server(Server::new(&own, None, None).unwrap()))
}

/// A server for one test; nothing is tested where none is installed, and that is said.
fn server(settings: &[&str]) -> Option<Postgres> {
    assert!(std::env::var(IN_PLACE).is_err(), "these tests run once");
    Postgres::start(settings).unwrap()
}

fn location(url: &str) -> Location {
    Location::Server(Server::new(url, None, None).unwrap())
}

fn event(message: String) -> NewEvent {
    NewEvent::new(Timestamp(5), "server", "test", Severity::Warning, message)
}

async fn add(store: &Store, message: &str) -> Result<i64, StoreError> {
    let row = event(message.to_owned());
    store.write(move |db| queries::insert_event(db, &row)).await
}

/// How often each message is stored.
async fn stored(store: &Store) -> BTreeMap<String, u32> {
    let all = EventFilter { limit: 1_000_000, ..EventFilter::default() };
    let mut counts = BTreeMap::new();
    for event in store.read(move |db| queries::events(db, &all)).await.unwrap() {
        *counts.entry(event.message).or_default() += 1;
    }
    counts
}

#[test]
fn the_same_tests_pass() {
    let Some(server) = server(&[]) else { return };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(BOTH)
        .args(["--skip", "store::postgres_tests::", "--test-threads", "4"])
        .env(IN_PLACE, server.make("both").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let result = said.lines().find(|line| line.starts_with("test result:")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let passed: usize = result
        .split_whitespace()
        .zip(result.split_whitespace().skip(1))
        .find_map(|(count, word)| (word.starts_with("passed")).then(|| count.parse().unwrap()))
        .unwrap();
    assert!(passed >= BOTH_MIN, "{result}");
    println!("on PostgreSQL: {result}");
}

/// PostgreSQL is killed again and again while eight write. What was acknowledged is there; what failed is not, and may
/// then be done again; nothing is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn kill_of_postgresql_loses_nothing_and_doubles_nothing() {
    let Some(mut server) = server(&[]) else { return };
    let store = Store::open(location(&server.make("killed").unwrap())).unwrap();
    let done = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let (mut acked, mut unknown, mut failures) = (BTreeSet::new(), BTreeSet::new(), 0_u32);
                let mut n = 0;
                while !done.is_cancelled() {
                    let message = format!("{writer}-{n}");
                    match add(&store, &message).await {
                        Ok(_) => {
                            acked.insert(message);
                            n += 1;
                        }
                        // Nothing was stored: the same once more.
                        Err(StoreError::Unreachable { .. }) => {
                            failures += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(StoreError::Unknown(_)) => {
                            unknown.insert(message);
                            n += 1;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (acked, unknown, failures)
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.kill().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.run().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    done.cancel();
    let (mut acked, mut unknown, mut failures) = (BTreeSet::new(), BTreeSet::new(), 0);
    for writer in writers {
        let (a, u, f) = writer.await.unwrap();
        acked.extend(a);
        unknown.extend(u);
        failures += f;
    }
    let stored = stored(&store).await;
    println!("{} acknowledged, {failures} failed, {} unknown", acked.len(), unknown.len());
    assert!(acked.len() > 100 && failures > 0, "nothing was tried");
    let lost: Vec<_> = acked.iter().filter(|message| !stored.contains_key(*message)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let strange: Vec<_> = stored.keys().filter(|m| !acked.contains(*m) && !unknown.contains(*m)).collect();
    assert!(strange.is_empty(), "said to have failed, and stored: {strange:?}");
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_at_a_time() {
    let Some(server) = server(&[]) else { return };
    let url = server.make("shared").unwrap();
    let first = Store::open(location(&url)).unwrap();
    let Err(refused) = Store::open(location(&url)) else { panic!("two servers have one database") };
    let said = refused.to_string();
    assert!(matches!(refused, StoreError::Server(ServerError::Held { .. })), "{said}");
    assert!(
        said.contains(&format!("process {}", std::process::id())) && said.contains("stop it first"),
        "{said}"
    );
    add(&first, "still ours").await.unwrap();
    // Its session dies while nobody writes, and another server comes in.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shared'";
    server.run_sql("postgres", end).unwrap();
    let second = Store::open(location(&url)).unwrap();
    assert!(matches!(add(&first, "late").await, Err(StoreError::Displaced)));
    second.close();
    assert!(matches!(add(&first, "too late").await, Err(StoreError::Displaced)), "it does not come back");
    first.close();
    let third = Store::open(location(&url)).unwrap();
    assert_eq!(stored(&third).await.into_keys().collect::<Vec<_>>(), ["still ours"]);
}

/// Sessions that end while nobody asks are no error for whoever asks next.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_come_back() {
    let Some(server) = server(&[]) else { return };
    let store = Store::open(location(&server.make("idle").unwrap())).unwrap();
    for round in 1..4_i64 {
        assert_eq!(add(&store, &round.to_string()).await.unwrap(), round);
        assert_eq!(stored(&store).await.len(), usize::try_from(round).unwrap());
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'idle'";
        server.run_sql("postgres", end).unwrap();
    }
}

/// What the wire does with the next COMMIT.
const PASS: u8 = 0;
/// It is lost on its way.
const EAT: u8 = 1;
/// It arrives, and the answer is lost.
const MUTE: u8 = 2;
/// It arrives, the answer is lost, and nobody gets through any more.
const DEAD: u8 = 3;

static WIRE: AtomicU8 = AtomicU8::new(PASS);

/// A wire to a PostgreSQL: a port on this machine.
fn wire(socket: std::path::PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.unwrap();
            if WIRE.load(Ordering::SeqCst) == DEAD {
                continue;
            }
            let far = UnixStream::connect(&socket).unwrap();
            let (mut from_far, mut to_near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(n @ 1..) = from_far.read(&mut bytes) {
                    if to_near.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                }
                drop(to_near.shutdown(Shutdown::Both));
            });
            thread::spawn(move || to_far(near, far));
        }
    });
    port
}

fn to_far(mut near: TcpStream, mut far: UnixStream) {
    let mut bytes = [0; 65536];
    while let Ok(n @ 1..) = near.read(&mut bytes) {
        let sent = &bytes[..n];
        // A simple query: its type, its length, its text and a zero.
        let fault = WIRE.load(Ordering::SeqCst);
        if fault != PASS && sent.windows(7).any(|w| w == b"COMMIT\0") {
            if fault != DEAD {
                WIRE.store(PASS, Ordering::SeqCst);
            }
            drop(near.shutdown(Shutdown::Both));
            if fault != EAT {
                far.write_all(sent).unwrap();
                // Until the commit is done there.
                thread::sleep(Duration::from_millis(300));
            }
            drop(far.shutdown(Shutdown::Both));
            return;
        }
        if far.write_all(sent).is_err() {
            return;
        }
    }
    drop(far.shutdown(Shutdown::Both));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_commit_is_found_out() {
    let Some(server) = server(&[]) else { return };
    server.make("wire").unwrap();
    let port = wire(server.dir().join(".s.PGSQL.5432"));
    let url = format!("postgresql://billet@127.0.0.1:{port}/wire?sslmode=disable");
    let store = Store::open(location(&url)).unwrap();
    add(&store, "before").await.unwrap();
    WIRE.store(EAT, Ordering::SeqCst);
    let lost = add(&store, "lost").await;
    assert!(matches!(lost, Err(StoreError::Unreachable { .. })), "{lost:?}");
    WIRE.store(MUTE, Ordering::SeqCst);
    assert_eq!(add(&store, "done").await.unwrap(), 2, "it was done, and is said to be");
    WIRE.store(DEAD, Ordering::SeqCst);
    let begun = Instant::now();
    let unknown = add(&store, "unknown").await;
    assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{unknown:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let down = add(&store, "down").await;
    assert!(matches!(down, Err(StoreError::Unreachable { .. })), "{down:?}");
    WIRE.store(PASS, Ordering::SeqCst);
    let begun = Instant::now();
    while add(&store, "after").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stored: Vec<String> = stored(&store).await.into_keys().collect();
    assert_eq!(stored, ["after", "before", "done", "unknown"]);
}

#[test]
fn what_is_not_durable_is_refused() {
    let Some(server) = server(&["fsync=off"]) else { return };
    let url = server.make("lax").unwrap();
    let refused = Store::open(location(&url)).err().unwrap().to_string();
    assert!(refused.contains("fsync is off"), "{refused}");
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let Some(server) = server(&["synchronous_commit=off"]) else { return };
    let latin =
        "CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0";
    server.run_sql("postgres", latin).unwrap();
    let refused = Store::open(location(&server.url("latin"))).err().unwrap().to_string();
    assert!(refused.contains("ENCODING 'UTF8'"), "{refused}");
    let refused = Store::open(location(&server.url("nowhere"))).err().unwrap().to_string();
    assert!(refused.contains("cannot connect") && refused.contains("nowhere"), "{refused}");
    // Commits are durable whatever the server's own setting is.
    let url = server.make("late").unwrap();
    let store = Store::connect(&location(&url)).unwrap();
    let sql = "SELECT current_setting('synchronous_commit')";
    assert_eq!(store.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "on");
}

/// Durable commits per second, for the decision record:
/// `cargo nextest run -p boot-server commits_per_second --run-ignored only --no-capture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn commits_per_second() {
    let Some(server) = Postgres::start_below(&std::env::temp_dir(), &[]).unwrap() else { return };
    let scratch = tests::Scratch::new();
    let sqlite = Store::open(&scratch.database()).unwrap();
    let postgres = Store::open(location(&server.make("measured").unwrap())).unwrap();
    for (name, store) in [("SQLite", sqlite), ("PostgreSQL", postgres)] {
        for writers in [1, 16, 256] {
            let begun = Instant::now();
            let until = begun + Duration::from_secs(3);
            let tasks: Vec<_> = (0..writers)
                .map(|_| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let mut acked = 0_u32;
                        while Instant::now() < until {
                            add(&store, "measured").await.unwrap();
                            acked += 1;
                        }
                        acked
                    })
                })
                .collect();
            let mut acked = 0;
            for task in tasks {
                acked += task.await.unwrap();
            }
            let rate = f64::from(acked) / begun.elapsed().as_secs_f64();
            println!("{name}, {writers} writers: {rate:.0} acknowledged events a second");
        }
        store.close();
    }
}

/// A certificate for this name by an authority of its own: authority, certificate, key, all PEM.
fn certificate(name: &str) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    [authority, certificate.pem(), key.serialize_pem()]
}

#[test]
fn by_the_network_with_tls_and_a_password() {
    let Some(mut server) = server(&[]) else { return };
    server.run_sql("postgres", "ALTER ROLE billet PASSWORD 'hunter2'").unwrap();
    server.make("net").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let [authority, certificate, key] = certificate("localhost");
    let cert = server.write("server.crt", &certificate).unwrap();
    let key = server.write("server.key", &key).unwrap();
    let ca = server.write("ca.crt", &authority).unwrap();
    server.set("listen_addresses=127.0.0.1");
    server.set(&format!("port={port}"));
    server.kill().unwrap();
    server.run().unwrap();
    let open = |host: &str, password: &str, ca: Option<&Path>, rest: &str| {
        let url = format!("postgresql://billet@{host}:{port}/net{rest}");
        let secret = Some(bmc::Secret(password.to_owned()));
        let server = Server::new(&url, secret, ca.map(Path::to_owned)).unwrap();
        Store::connect(&Location::Server(server)).map_err(|error| {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter"), "{said}");
            error.to_string()
        })
    };
    let refused = open("localhost", "hunter2", Some(&ca), "").err().unwrap();
    assert!(refused.contains("does not support TLS") && refused.contains("sslmode=disable"), "{refused}");
    open("localhost", "hunter2", None, "?sslmode=disable").unwrap().close();
    let refused = open("localhost", "hunter3", None, "?sslmode=disable").err().unwrap();
    assert!(refused.contains("authentication failed"), "{refused}");

    server.set("ssl=on");
    server.set(&format!("ssl_cert_file={}", cert.display()));
    server.set(&format!("ssl_key_file={}", key.display()));
    server.kill().unwrap();
    server.run().unwrap();
    let db = open("localhost", "hunter2", Some(&ca), "").unwrap();
    let secret = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(db.query_row(secret, [], |row| row.get::<_, bool>(0)).unwrap());
    db.close();
    let refused = open("localhost", "hunter2", None, "").err().unwrap();
    assert!(refused.contains("store.ca"), "{refused}");
    let refused = open("127.0.0.1", "hunter2", Some(&ca), "").err().unwrap();
    assert!(refused.contains("not valid for name"), "{refused}");
    let [other, ..] = self::certificate("localhost");
    let other = server.write("other.crt", &other).unwrap();
    let refused = open("localhost", "hunter2", Some(&other), "").err().unwrap();
    assert!(refused.contains("store.ca"), "{refused}");
}
