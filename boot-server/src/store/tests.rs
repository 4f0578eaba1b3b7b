//! The store on a real file.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use boot_server_core::node::{Effect, Identity, Node, Severity};
use protocol::{NodeId, Timestamp};
use uuid::Uuid;

use super::queries::{self, EventFilter, NewEvent, Remembered};
use super::*;

/// A directory of its own for each test, removed at the end.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("billet-store-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("billet.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Whether the tests run on PostgreSQL now (see `postgres_tests`).
pub(crate) fn on_postgres() -> bool {
    postgres_tests::on_postgres()
}

fn node(n: u128, name: &str) -> Node {
    Node::discovered(NodeId(Uuid::from_u128(n)), name.into(), Identity::default(), Timestamp(1))
}

fn event(message: &str) -> NewEvent {
    NewEvent::new(Timestamp(5), "server", "test", Severity::Warning, message)
}

#[tokio::test]
async fn readers_survive_callers_that_go_away() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    for _ in 0..2 * READERS {
        let (end, held) = std::sync::mpsc::channel::<()>();
        let slow = store.read(move |_| {
            // Until the caller is gone.
            let _ = held.recv();
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), slow).await.is_err());
        drop(end);
    }
    assert!(store.read(queries::nodes).await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_come_back() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    store.write(|db| queries::insert_node(db, &node(1, "a"))).await.unwrap();
    let taken = store.write(|db| queries::insert_node(db, &node(2, "a"))).await;
    assert!(matches!(taken, Err(StoreError::NameTaken(name)) if name == "a"));
    store.write(|db| queries::update_node(db, &node(1, "b"), 1)).await.unwrap();
    let old = store.write(|db| queries::update_node(db, &node(1, "c"), 1)).await;
    assert!(matches!(old, Err(StoreError::Conflict)));
    let rows = store.read(queries::nodes).await.unwrap();
    assert_eq!(rows.iter().map(|r| (r.node.name.as_str(), r.version)).collect::<Vec<_>>(), [("b", 2)]);

    let id = node(1, "b").id;
    store.write(move |db| queries::insert_effect(db, id, Effect::PowerCycle, Timestamp(2))).await.unwrap();
    let open = store.read(queries::open_effects).await.unwrap();
    assert_eq!(open.iter().map(|e| (e.node, e.effect)).collect::<Vec<_>>(), [(id, Effect::PowerCycle)]);
    let row = open[0].id;
    assert!(store.write(move |db| queries::effect_done(db, row, Timestamp(3))).await.unwrap());
    assert!(!store.write(move |db| queries::effect_done(db, row, Timestamp(4))).await.unwrap());
    assert!(store.read(queries::open_effects).await.unwrap().is_empty());

    for n in 1..=5 {
        let of = NewEvent { node: (n % 2 == 0).then_some(id), ..event(&n.to_string()) };
        assert_eq!(store.write(move |db| queries::insert_event(db, &of)).await.unwrap(), n);
    }
    let list = |filter: EventFilter| {
        let store = store.clone();
        async move {
            let events = store.read(move |db| queries::events(db, &filter)).await.unwrap();
            events.into_iter().map(|e| e.id).collect::<Vec<_>>()
        }
    };
    let all = EventFilter { limit: 10, ..EventFilter::default() };
    assert_eq!(list(all).await, [5, 4, 3, 2, 1]);
    assert_eq!(list(EventFilter { limit: 2, ..all }).await, [5, 4]);
    assert_eq!(list(EventFilter { before: Some(4), ..all }).await, [3, 2, 1]);
    assert_eq!(list(EventFilter { after: Some(3), ..all }).await, [4, 5]);
    assert_eq!(list(EventFilter { node: Some(id), ..all }).await, [4, 2]);
}

#[tokio::test]
async fn a_key_is_remembered_once_and_forgotten_in_time() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    let it = |request: &str| Remembered {
        scope: "deploy x".into(),
        key: "k".into(),
        request: request.into(),
        answer: "yes".into(),
    };
    let (first, second) = (it("r1"), it("r2"));
    store.write(move |db| queries::remember(db, &first, Timestamp(100), Timestamp(0))).await.unwrap();
    let again = store.write(move |db| queries::remember(db, &second, Timestamp(101), Timestamp(0))).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let find = |since| store.read(move |db| queries::remembered(db, "deploy x", "k", Timestamp(since)));
    assert_eq!(find(50).await.unwrap(), Some(it("r1")));
    assert_eq!(find(101).await.unwrap(), None);
    let third = it("r3");
    store.write(move |db| queries::remember(db, &third, Timestamp(300), Timestamp(200))).await.unwrap();
    assert_eq!(find(200).await.unwrap(), Some(it("r3")));
}

#[tokio::test]
async fn a_job_that_fails_takes_no_other_with_it() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    let jobs = (0..200_u32).map(|n| {
        let store = store.clone();
        async move {
            store
                .write(move |db| {
                    queries::insert_event(db, &event(&n.to_string()))?;
                    if n % 3 == 0 { Err(StoreError::Conflict) } else { Ok(n) }
                })
                .await
        }
    });
    let results = futures_util::future::join_all(jobs).await;
    let written: BTreeSet<u32> = results.into_iter().filter_map(Result::ok).collect();
    let all = EventFilter { limit: 1000, ..EventFilter::default() };
    let events = store.read(move |db| queries::events(db, &all)).await.unwrap();
    let stored: BTreeSet<u32> = events.iter().map(|e| e.message.parse().unwrap()).collect();
    assert_eq!(written, stored);
    assert_eq!(stored.len(), 133);
}

#[tokio::test]
async fn a_closed_store_says_so_and_keeps_everything() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    store.write(|db| queries::insert_event(db, &event("x"))).await.unwrap();
    store.close();
    assert!(matches!(store.write(|_| Ok(())).await, Err(StoreError::Closed)));
    let store = Store::open(&scratch.database()).unwrap();
    let all = EventFilter { limit: 10, ..EventFilter::default() };
    assert_eq!(store.read(move |db| queries::events(db, &all)).await.unwrap().len(), 1);
}

#[test]
fn a_newer_schema_is_refused() {
    let scratch = Scratch::new();
    let location = Location::from(&scratch.database());
    Store::open(&location).unwrap().close();
    let db = Store::connect(&location).unwrap();
    let newer =
        if db.is_postgres() { "UPDATE billet_schema SET version = 999" } else { "PRAGMA user_version = 999" };
    db.execute_batch(newer).unwrap();
    db.close();
    assert!(matches!(Store::open(&location), Err(StoreError::NewerSchema { found: 999, .. })));
}

#[test]
fn the_database_is_durable_by_its_settings() {
    let scratch = Scratch::new();
    let db = Store::connect(&Location::from(&scratch.database())).unwrap();
    let text = |sql: &str| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    if db.is_postgres() {
        assert_eq!(text("SELECT current_setting('synchronous_commit')"), "on");
        assert_eq!(text("SELECT current_setting('fsync')"), "on");
        return;
    }
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(text("PRAGMA journal_mode"), "wal");
    assert_eq!(number("PRAGMA synchronous"), 2);
    assert_eq!(number("PRAGMA foreign_keys"), 1);
}

const CHILD: &str = "BILLET_STORE_CRASH_DATABASE";

/// What the child of the next test does: writes for ever and says each number that was acknowledged.
#[test]
fn crash_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(std::path::Path::new(&path)).unwrap();
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let message = format!("{writer}-{n}");
                    let row = event(&message);
                    store.write(move |db| queries::insert_event(db, &row)).await.unwrap();
                    println!("acked {message}");
                }
            })
        });
        futures_util::future::join_all(writers).await;
    });
}

#[test]
fn kill_loses_nothing_that_was_acknowledged() {
    for round in 0..3 {
        let scratch = Scratch::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash_child", "--nocapture"])
            .env(CHILD, scratch.database())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acked = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let wanted = 100 + 150 * round;
        while acked.len() < wanted {
            let line = lines.next().expect("the child writes for ever");
            acked.extend(line.strip_prefix("acked ").map(str::to_owned));
        }
        // SIGKILL, in the middle of whatever it does.
        child.kill().unwrap();
        acked.extend(lines.filter_map(|l| l.strip_prefix("acked ").map(str::to_owned)));
        child.wait().unwrap();

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stored: BTreeSet<String> = runtime.block_on(async {
            let store = Store::open(&scratch.database()).unwrap();
            let all = EventFilter { limit: 1_000_000, ..EventFilter::default() };
            let events = store.read(move |db| queries::events(db, &all)).await.unwrap();
            events.into_iter().map(|e| e.message).collect()
        });
        let lost: Vec<_> = acked.iter().filter(|message| !stored.contains(*message)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}
