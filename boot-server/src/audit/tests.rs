//! The chain in a real database: written from many sides, killed in the middle, forgotten, damaged.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use boot_server_core::audit::{Broken, Line};
use boot_server_core::node::Severity;
use protocol::Timestamp;
use uuid::Uuid;

use super::export::{check_database, check_file, check_store, lines};
use super::*;
use crate::store::queries::{self, NewEvent};
use crate::store::tests::Scratch;

fn fact(n: u64) -> Fact {
    Fact::new(Timestamp(n), Kind::Read, "alice", format!("GET /{n}"))
}

async fn filled(scratch: &Scratch, count: u64) -> Store {
    let store = Store::open(&scratch.database()).unwrap();
    for n in 1..=count {
        store.write(move |db| rows::append(db, &[fact(n)])).await.unwrap();
    }
    store
}

async fn verdict(store: &Store) -> Result<u64, Broken> {
    check_store(store).await.unwrap().chain.map(|intact| intact.entries)
}

async fn sql(store: &Store, text: &'static str) {
    store.write(move |db| db.execute(text, []).map_err(StoreError::sql("test"))).await.unwrap();
}

#[tokio::test]
async fn an_event_and_its_entry_are_one() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    let event = NewEvent::new(Timestamp(5), "alice", "power.asked", Severity::Info, "power off asked for");
    let kept = event.clone();
    store.write(move |db| queries::insert_event(db, &kept)).await.unwrap();
    let failed: Result<(), _> = store
        .write(move |db| {
            queries::insert_event(db, &event)?;
            Err(StoreError::Conflict)
        })
        .await;
    assert!(matches!(failed, Err(StoreError::Conflict)));
    let found = store.read(|db| rows::lying(db, 0, 10)).await.unwrap();
    let [(1, rows::Found::Link(link))] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((link.entry.fact.kind, link.entry.fact.outcome.as_str()), (Kind::Bmc, "power off asked for"));
    assert_eq!(verdict(&store).await, Ok(1), "what was rolled back left no hole");
}

#[tokio::test]
async fn what_is_done_to_the_table_is_named() {
    for (change, wrong) in [
        ("UPDATE audit SET actor = 'eve' WHERE number = 4", Broken::Altered { number: 4 }),
        ("UPDATE audit SET kind = 'nothing' WHERE number = 4", Broken::Altered { number: 4 }),
        ("UPDATE audit SET status = -1 WHERE number = 4", Broken::Altered { number: 4 }),
        ("UPDATE audit SET hash = 'zz' WHERE number = 5", Broken::Altered { number: 5 }),
        ("DELETE FROM audit WHERE number = 4", Broken::Removed { first: 4, found: 5 }),
        ("DELETE FROM audit WHERE number = 1", Broken::Removed { first: 1, found: 2 }),
        ("DELETE FROM audit WHERE number > 5", Broken::Truncated { first: 6, head: 6 }),
        ("UPDATE audit SET number = number + 1 WHERE number = 6", Broken::Appended { number: 7, head: 6 }),
        ("UPDATE audit SET number = -number WHERE number = 3", Broken::Twice { number: 0 }),
    ] {
        let scratch = Scratch::new();
        let store = filled(&scratch, 6).await;
        sql(&store, change).await;
        store.close();
        let verdict = Store::read_only(scratch.database().as_path(), |db| check_database(db, &[])).unwrap();
        assert_eq!(verdict.chain, Err(wrong.clone()), "{change}");
    }
    // Two that changed places: each says another number than it has.
    let scratch = Scratch::new();
    let store = filled(&scratch, 6).await;
    for step in
        ["number = 60 WHERE number = 3", "number = 3 WHERE number = 4", "number = 4 WHERE number = 60"]
    {
        let text = format!("UPDATE audit SET {step}");
        store.write(move |db| db.execute(&text, []).map_err(StoreError::sql("test"))).await.unwrap();
    }
    assert_eq!(verdict(&store).await, Err(Broken::Altered { number: 3 }));
}

#[tokio::test]
async fn a_chain_written_anew_is_told_by_a_head_that_was_kept() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 5).await;
    let kept = store.read(|db| rows::anchor(db, "head")).await.unwrap();
    // Somebody with the database takes the end away and writes a better one.
    sql(&store, "DELETE FROM audit WHERE number > 3").await;
    let rewind = "UPDATE audit_chain SET number = 3, hash = (SELECT hash FROM audit WHERE number = 3) WHERE name = 'head'";
    sql(&store, rewind).await;
    store.write(|db| rows::append(db, &[fact(40), fact(50), fact(60)])).await.unwrap();
    store.close();
    let check = |heads: &[Anchor]| {
        Store::read_only(scratch.database().as_path(), |db| check_database(db, heads)).unwrap().chain
    };
    assert!(check(&[]).is_ok(), "the chain alone cannot tell");
    assert_eq!(check(&[kept]), Err(Broken::Rewritten { number: 5 }));
    let further = Anchor { number: 9, ..kept };
    assert_eq!(check(&[further]), Err(Broken::Truncated { first: 7, head: 9 }));
}

#[tokio::test]
async fn what_is_left_after_forgetting_still_verifies() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 30).await;
    let forget = |before: u64, rows: u64| {
        let store = store.clone();
        async move { store.write(move |db| super::rows::forget(db, Timestamp(before), rows, 10)).await.unwrap() }
    };
    assert_eq!(forget(6, 0).await, 5, "by age");
    assert_eq!(verdict(&store).await, Ok(25));
    assert_eq!(forget(0, 12).await, 10, "by number, a batch at a time");
    assert_eq!(forget(0, 12).await, 3);
    assert_eq!(forget(0, 12).await, 0);
    assert_eq!(verdict(&store).await, Ok(12));
    assert_eq!(check_store(&store).await.unwrap().anchor.number, 18);
    while forget(u64::MAX, 1).await > 0 {}
    assert_eq!(verdict(&store).await, Ok(1), "the newest stays");
    store.write(|db| super::rows::append(db, &[fact(31)])).await.unwrap();
    sql(&store, "UPDATE audit_chain SET number = 0 WHERE name = 'anchor'").await;
    assert_eq!(verdict(&store).await, Err(Broken::Removed { first: 1, found: 30 }));
}

#[tokio::test]
async fn an_export_is_checked_far_from_the_server() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 4).await;
    let key = signing::SiteKey::open(&scratch.0.join("site.key")).unwrap();
    let head = store.read(|db| rows::anchor(db, "head")).await.unwrap();
    let signed = key.checkpoint(head, Timestamp(9));
    let mut all = vec![Line::Anchor(Anchor::START), Line::Head(head), Line::Checkpoint(signed)];
    all.extend(store.read(|db| lines(db, 0, 4)).await.unwrap().unwrap().0);
    let file = scratch.0.join("export.ndjson");
    let check = |lines: &[Line]| {
        let text: String = lines.iter().map(|l| serde_json::to_string(l).unwrap() + "\n").collect();
        std::fs::write(&file, text).unwrap();
        check_file(&file, &[])
    };
    let good = check(&all).unwrap();
    assert_eq!((good.chain.unwrap().entries, good.checkpoints, good.keys), (4, 1, vec![key.public()]));
    let without = |n: usize| {
        all.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| l.clone()).collect::<Vec<_>>()
    };
    assert_eq!(check(&without(4)).unwrap().chain, Err(Broken::Removed { first: 2, found: 3 }));
    assert_eq!(check(&without(6)).unwrap().chain, Err(Broken::Truncated { first: 4, head: 4 }), "cut off");
    assert!(check(&without(0)).is_err() && check(&without(1)).is_err() && check(&[]).is_err());
    let mut moved = all.clone();
    moved.swap(4, 5);
    assert_eq!(check(&moved).unwrap().chain, Err(Broken::Moved { number: 2, behind: 3 }));
    let Line::Checkpoint(it) = &mut all[2] else { panic!() };
    it.at.0 += 1;
    assert_eq!(check(&all).unwrap().forged, Some(4));
}

#[tokio::test]
async fn too_many_reads_are_counted_and_told() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    let audit = Audit::open(store.clone());
    // The writer has not run yet: this task does not wait.
    for n in 0..(QUEUE_MAX as u64 + 30) {
        audit.later(fact(n));
    }
    audit.flush().await;
    audit.flush().await;
    let found = store.read(|db| rows::lying(db, 0, usize::MAX >> 1)).await.unwrap();
    let lost = found.iter().filter_map(|(_, found)| match found {
        rows::Found::Link(link) if link.entry.fact.what == "audit.lost" => {
            Some(link.entry.fact.outcome.as_str())
        }
        _ => None,
    });
    assert_eq!(
        lost.collect::<Vec<_>>(),
        ["30 entries were not written: too many at once, or the database failed"]
    );
    assert_eq!(found.len(), QUEUE_MAX + 1);
    assert!(verdict(&store).await.is_ok());
}

/// Not a test by itself: the child of the next one. It writes until it is killed.
#[test]
fn child_writes_audit() {
    let Some(database) = std::env::var_os("BILLET_TEST_AUDIT") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(std::path::Path::new(&database)).unwrap();
        let audit = Audit::open(store.clone());
        for n in 0.. {
            audit.later(fact(n));
            let at = audit.now(fact(n)).await.unwrap();
            println!("written {}", at.number);
        }
    });
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_a_chain() {
    let scratch = Scratch::new();
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::tests::child_writes_audit", "--nocapture"])
            .env("BILLET_TEST_AUDIT", scratch.database())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let written = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("written ")?.1.trim().parse::<u64>().ok());
        acknowledged = written.take(20).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let verdict = Store::read_only(scratch.database().as_path(), |db| check_database(db, &[])).unwrap();
        assert!(verdict.chain.unwrap().entries >= acknowledged, "what was acknowledged is there");
    }
    assert!(acknowledged >= 60);
}

#[tokio::test]
async fn a_request_leaves_a_trace_of_what_it_changed() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.database()).unwrap();
    let request = Uuid::now_v7();
    let asked = Fact { request: Some(request), ..Fact::new(Timestamp(1), Kind::Asked, "a", "POST /x") };
    store.write(move |db| rows::append(db, &[asked])).await.unwrap();
    assert!(!store.read(move |db| rows::has_changed(db, request)).await.unwrap());
    let event = NewEvent {
        request: Some(request),
        ..NewEvent::new(Timestamp(1), "a", "deploy.asked", Severity::Info, "")
    };
    store.write(move |db| queries::insert_event(db, &event)).await.unwrap();
    assert!(store.read(move |db| rows::has_changed(db, request)).await.unwrap());
}
