//! No lease that was answered is lost, wherever the journal is cut.

use boot_server_core::dhcp::{ClientKey, LeaseState};
use proptest::prelude::*;
use protocol::{MacAddr, Timestamp};

use super::*;

fn lease(n: u32, expires: u64) -> Lease {
    let [_, b, c, d] = n.to_be_bytes();
    Lease {
        ip: Ipv4Addr::new(10, b, c, d),
        client: ClientKey::Mac(MacAddr([2, 0, 0, b, c, d])),
        state: LeaseState::Bound,
        expires: Timestamp(expires),
        placement: None,
    }
}

fn batches() -> impl Strategy<Value = Vec<Vec<Lease>>> {
    let row = (0..40_u32, any::<u32>()).prop_map(|(n, at)| lease(n, u64::from(at)));
    prop::collection::vec(prop::collection::vec(row, 1..8), 0..12)
}

fn written(turn: u64, batches: &[Vec<Lease>]) -> Vec<u8> {
    let each = batches.iter().map(|b| encode(turn, &b.iter().collect::<Vec<_>>()).unwrap());
    each.flatten().collect()
}

proptest! {
    /// The last write was cut short anywhere, over what a former turn left there. It may be read all the same, where what
    /// was left completes it: to a lease nobody was told of no harm is done.
    #[test]
    fn what_was_answered_is_read_again(old in batches(), new in batches(), cut in any::<prop::sample::Index>()) {
        let mut bytes = written(7, &old);
        let (answered, torn) = new.split_at(new.len().saturating_sub(1));
        let done = written(8, answered);
        let last = written(8, torn);
        let part = &last[..if last.is_empty() { 0 } else { cut.index(last.len()) }];
        let end = done.len() + part.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[..done.len()].copy_from_slice(&done);
        bytes[done.len()..end].copy_from_slice(part);
        let (turn, rows) = decode(&bytes);
        if !answered.is_empty() {
            prop_assert_eq!(turn, 8);
            prop_assert!(rows == answered.concat() || (rows == new.concat() && bytes.starts_with(&written(8, &new))));
        }
    }

    #[test]
    fn damage_is_not_taken_for_leases(batches in batches(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = written(1, &batches);
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (_, rows) = decode(&bytes);
        let all = batches.concat();
        prop_assert!(all.starts_with(&rows) && rows.len() < all.len());
    }

    #[test]
    fn anything_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(decode(&bytes).1, []);
    }
}

/// A directory of its own that goes with the value.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("billet-journal-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0.join("billet.db")).unwrap()
    }

    /// As a crash leaves it: the files as they are now, beside an empty database.
    fn crashed(&self) -> Self {
        let crashed = Self::new();
        for name in NAMES {
            std::fs::copy(self.0.join(name), crashed.0.join(name)).unwrap();
        }
        crashed
    }

    /// A segment that holds one turn.
    fn segment(&self, name: &str, bytes: &[u8]) -> Segment {
        let segment = Segment::open(&self.0.join(name)).unwrap();
        segment.0.write_all_at(bytes, 0).unwrap();
        segment
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn stored(store: &Store) -> Rows {
    store.read(queries::leases).await.unwrap().into_iter().map(|l| (l.ip, l)).collect()
}

#[tokio::test]
async fn leases_come_to_the_database_and_the_newest_counts() {
    let dir = Dir::new();
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    for round in 0..3 {
        journal.put((0..3000).map(|n| lease(n, round)).collect()).await.unwrap();
    }
    journal.close();
    let rows = stored(&store).await;
    assert_eq!(rows.len(), 3000);
    assert!(rows.values().all(|l| l.expires == Timestamp(2)));
    assert!(matches!(journal.put(vec![lease(1, 9)]).await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_crash_before_the_fold_loses_nothing() {
    let dir = Dir::new();
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    journal.put(vec![lease(1, 10), lease(2, 10)]).await.unwrap();
    journal.put(vec![lease(2, 20)]).await.unwrap();
    let crashed = dir.crashed();
    journal.close();
    let store = crashed.store();
    let again = Journal::open(&crashed.0, store.clone()).await.unwrap();
    let rows = stored(&store).await;
    let found: Vec<_> = rows.values().map(|l| l.expires.0).collect();
    assert_eq!(found, [10, 20]);
    again.close();
}

#[tokio::test]
async fn a_segment_that_is_full_is_folded_at_once() {
    let dir = Dir::new();
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    // Some 13 MiB in three segments' worth of turns.
    for n in 0..60 {
        journal.put((n * 2000..(n + 1) * 2000).map(|n| lease(n, 1)).collect()).await.unwrap();
    }
    journal.close();
    assert_eq!(stored(&store).await.len(), 120_000);
}

#[tokio::test]
async fn nothing_of_an_earlier_run_comes_back() {
    let dir = Dir::new();
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    for n in 1..=3 {
        journal.put(vec![lease(n, 10)]).await.unwrap();
    }
    journal.close();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    journal.put(vec![lease(4, 20)]).await.unwrap();
    let crashed = dir.crashed();
    journal.close();
    let store = crashed.store();
    let again = Journal::open(&crashed.0, store.clone()).await.unwrap();
    let rows = stored(&store).await;
    assert_eq!(rows.into_values().collect::<Vec<_>>(), [lease(4, 20)]);
    again.close();
    for name in NAMES {
        assert!(std::fs::read(crashed.0.join(name)).unwrap().iter().all(|b| *b == 0), "wiped");
    }
}

#[tokio::test]
async fn a_crash_while_segments_are_emptied_leaves_the_newer_turn() {
    let dir = Dir::new();
    let store = dir.store();
    let [newer, older] = NAMES;
    drop(dir.segment(newer, &written(8, &[vec![lease(1, 20)], vec![lease(1, 30)]])));
    let older_segment = dir.segment(older, &written(7, &[vec![lease(1, 10)]]));
    // The crash: the newer segment takes no write.
    let newer_segment = Segment(File::open(dir.0.join(newer)).unwrap());
    let taken_up = take_up(&dir.0, &store, vec![newer_segment, older_segment]).await;
    assert!(matches!(taken_up, Err(JournalError::File { action: "clear", .. })));
    let left = |name| decode(&std::fs::read(dir.0.join(name)).unwrap());
    assert_eq!(left(older), (0, vec![]));
    assert_eq!(left(newer), (8, vec![lease(1, 20), lease(1, 30)]));
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    assert_eq!(stored(&store).await.into_values().collect::<Vec<_>>(), [lease(1, 30)]);
    journal.close();
}

#[tokio::test]
async fn what_a_closed_database_did_not_take_is_not_written_over() {
    let dir = Dir::new();
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    store.close();
    // Each more than half a segment.
    let batch = |n: u32| (n * 30_000..(n + 1) * 30_000).map(|n| lease(n, 1)).collect::<Vec<_>>();
    journal.put(batch(0)).await.unwrap();
    journal.put(batch(1)).await.unwrap();
    assert!(matches!(journal.put(batch(2)).await, Err(StoreError::Closed)), "there is no room for it");
    journal.close();
    drop((journal, store));
    let store = dir.store();
    let journal = Journal::open(&dir.0, store.clone()).await.unwrap();
    assert_eq!(stored(&store).await.len(), 60_000);
    journal.close();
}
