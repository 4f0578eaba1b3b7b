//! The store: what is visible when, and what a crash leaves.

use std::collections::BTreeSet;

use super::*;
use crate::chunk;
use crate::manifest::{Architecture, ChunkRef, FORMAT, PartitionTable};
use crate::scratch::{Scratch, noise};

const CHUNK: usize = 65536;

fn chunk_of(raw: &[u8]) -> (ChunkRef, Vec<u8>) {
    let id = ChunkId(chunk::sha256(raw));
    (ChunkRef { id, probe: chunk::probe(raw).unwrap() }, zstd::bulk::compress(raw, 1).unwrap())
}

/// An image of one data chunk per seed and a hole at the end.
fn manifest_of(name: &str, seeds: &[u64]) -> (Manifest, Vec<(ChunkRef, Vec<u8>)>) {
    let mut disk: Vec<u8> = seeds.iter().flat_map(|s| noise(*s, CHUNK)).collect();
    let chunks: Vec<_> = disk.chunks(CHUNK).map(chunk_of).collect();
    disk.resize(disk.len() + CHUNK, 0);
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        name: name.to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::X86_64,
        firmware: BTreeSet::new(),
        partition_table: PartitionTable::None,
        raw_size: disk.len() as u64,
        sha256: chunk::sha256(&disk),
        minimum_disk: disk.len() as u64,
        default_user: None,
        datasource: None,
        chunk_size: CHUNK as u32,
        chunks: chunks.iter().map(|(c, _)| Some(*c)).chain([None]).collect(),
    };
    (manifest, chunks)
}

fn put(store: &Store, name: &str, seeds: &[u64]) -> ImageId {
    let (manifest, chunks) = manifest_of(name, seeds);
    let writer = store.writer();
    for (chunk, frame) in &chunks {
        writer.put_chunk(chunk.id, frame).unwrap();
    }
    writer.put_manifest(&manifest).unwrap()
}

fn chunk_files(store: &Store) -> usize {
    names(&store.root().join("chunks"))
        .unwrap()
        .iter()
        .map(|d| names(&store.root().join("chunks").join(d)).unwrap().len())
        .sum()
}

#[test]
fn an_image_comes_back_after_reopening() {
    let dir = Scratch::new();
    let id = put(&Store::open(dir.path()).unwrap(), "one", &[1, 2]);
    let store = Store::open(dir.path()).unwrap();
    let listing = store.manifests().unwrap();
    assert_eq!(listing.images.len(), 1);
    assert_eq!(listing.images[0].0, id);
    assert_eq!(store.manifest(id).unwrap().name, "one");
    assert!(store.verify(id).unwrap().is_good());
    let (_, chunks) = manifest_of("one", &[1, 2]);
    assert_eq!(store.chunk_frame(chunks[0].0.id).unwrap(), chunks[0].1);
    let path = store.chunk_path(chunks[0].0.id);
    let hex = chunks[0].0.id.to_string();
    assert!(path.ends_with(format!("chunks/{}/{hex}.zst", &hex[..2])));
}

#[test]
fn what_is_not_there_is_named() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let nothing = chunk::sha256(b"nothing");
    assert!(matches!(store.open_chunk(ChunkId(nothing)), Err(StoreError::NoChunk(_))));
    assert!(matches!(store.manifest(ImageId(nothing)), Err(StoreError::NoImage(_))));
    assert!(matches!(store.remove(ImageId(nothing)), Err(StoreError::NoImage(_))));
    assert_eq!(store.collect_garbage().unwrap(), Collected::default());
}

#[test]
fn removing_keeps_shared_chunks() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (a, b) = (put(&store, "a", &[1, 2, 3]), put(&store, "b", &[3, 4]));
    assert_eq!(chunk_files(&store), 4);
    store.remove(a).unwrap();
    let collected = store.collect_garbage().unwrap();
    assert_eq!(collected.chunks, 2);
    assert!(collected.bytes > 2 * CHUNK as u64);
    assert!(store.verify(b).unwrap().is_good());
    assert_eq!(chunk_files(&store), 2);
}

#[test]
fn a_writer_keeps_its_chunks_from_garbage_collection() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (manifest, chunks) = manifest_of("new", &[1, 2]);
    let old = put(&store, "old", &[2]);
    let writer = store.writer();
    writer.put_chunk(chunks[0].0.id, &chunks[0].1).unwrap();
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    assert!(writer.reuse_chunk(chunks[1].0.id, CHUNK, &mut decompressor).unwrap());
    store.remove(old).unwrap();
    assert_eq!(store.collect_garbage().unwrap(), Collected::default());
    let id = writer.put_manifest(&manifest).unwrap();
    assert!(store.verify(id).unwrap().is_good());
    store.remove(id).unwrap();
    assert_eq!(store.collect_garbage().unwrap().chunks, 2);
}

#[test]
fn a_writer_that_gives_up_takes_back_what_it_brought() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let kept = put(&store, "kept", &[2]);
    let (_, chunks) = manifest_of("lost", &[1, 2, 3]);
    let other = store.writer();
    other.put_chunk(chunks[2].0.id, &chunks[2].1).unwrap();
    let writer = store.writer();
    for (chunk, frame) in &chunks {
        writer.put_chunk(chunk.id, frame).unwrap();
    }
    drop(writer);
    assert!(store.open_chunk(chunks[0].0.id).is_err());
    assert!(store.verify(kept).unwrap().is_good());
    assert!(store.open_chunk(chunks[2].0.id).is_ok());
    drop(other);
    assert_eq!(chunk_files(&store), 1);
}

#[test]
fn a_manifest_needs_its_chunks() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (manifest, _) = manifest_of("a", &[1]);
    let error = store.writer().put_manifest(&manifest).unwrap_err();
    assert!(matches!(error, StoreError::ChunkNotHeld { .. }), "{error}");
    let error = store.writer().put_manifest(&Manifest { name: "A B".to_owned(), ..manifest }).unwrap_err();
    assert!(matches!(error, StoreError::Manifest { .. }), "{error}");
    assert!(store.image_ids().unwrap().is_empty());
}

#[test]
fn verify_names_each_bad_chunk() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let id = put(&store, "a", &[1, 2, 3, 4]);
    let (manifest, chunks) = manifest_of("a", &[1, 2, 3, 4]);
    fs::remove_file(store.chunk_path(chunks[0].0.id)).unwrap();
    let mut flipped = chunks[1].1.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 1;
    fs::write(store.chunk_path(chunks[1].0.id), flipped).unwrap();
    fs::write(store.chunk_path(chunks[3].0.id), &chunks[2].1).unwrap();
    let report = store.verify(id).unwrap();
    assert!(!report.is_good());
    assert_eq!(report.checked, 4);
    let bad: Vec<_> = report.bad.iter().map(|b| (b.index, b.offset, b.id)).collect();
    let expected = [0, 1, 3].map(|i| (i, (i * CHUNK) as u64, manifest.chunks[i].unwrap().id));
    assert_eq!(bad, expected);
    assert!(matches!(report.bad[0].fault, ChunkFault::Missing));
    assert!(matches!(report.bad[2].fault, ChunkFault::Damaged(_)));
    // Putting the image again repairs it.
    put(&store, "a", &[1, 2, 3, 4]);
    assert!(store.verify(id).unwrap().is_good());
}

#[test]
fn verify_sees_a_wrong_whole_and_a_wrong_probe() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (mut manifest, chunks) = manifest_of("a", &[1]);
    let write = |manifest: &Manifest| {
        let writer = store.writer();
        writer.put_chunk(chunks[0].0.id, &chunks[0].1).unwrap();
        writer.put_manifest(manifest).unwrap()
    };
    let right = manifest.sha256;
    manifest.sha256 = chunk::sha256(b"other");
    let id = write(&manifest);
    assert_eq!(store.verify(id).unwrap().whole, Some(right));
    manifest.sha256 = right;
    manifest.chunks[0].as_mut().unwrap().probe.1 ^= 1;
    let id = write(&manifest);
    let report = store.verify(id).unwrap();
    assert!(matches!(report.bad[0].fault, ChunkFault::Probe));
}

#[test]
fn leftovers_of_a_crash_are_cleaned_only_when_alone() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (path, _file) = store.tmp_file().unwrap();
    let second = Store::open(dir.path()).unwrap();
    assert!(path.exists(), "the first store is still at work");
    assert!(matches!(store.collect_garbage(), Err(StoreError::InUse)));
    drop(second);
    assert!(store.collect_garbage().is_ok());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(!path.exists());
    assert!(store.collect_garbage().is_ok());
}

#[test]
fn a_crash_between_chunks_and_manifest_leaves_garbage_only() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (_, chunks) = manifest_of("a", &[1, 2]);
    let writer = store.writer();
    writer.put_chunk(chunks[0].0.id, &chunks[0].1).unwrap();
    writer.put_chunk(chunks[1].0.id, &chunks[1].1).unwrap();
    std::mem::forget(writer); // as if the process had ended
    fs::write(store.root().join("tmp/1-1"), b"half").unwrap();
    let root = store.root().to_owned();
    // The forgotten writer keeps the store open: close its lock as the kernel would.
    lock::unlock_for_test(&store.0.lock);
    let store = Store::open(&root).unwrap();
    assert!(store.manifests().unwrap().images.is_empty());
    assert!(names(&root.join("tmp")).unwrap().is_empty());
    assert_eq!(store.collect_garbage().unwrap().chunks, 2);
}

#[test]
fn a_broken_manifest_hides_nothing_and_stops_garbage_collection() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let (good, bad) = (put(&store, "good", &[1]), put(&store, "bad", &[2]));
    fs::write(store.manifest_path(bad), b"{}").unwrap();
    fs::write(store.root().join("manifests/README"), b"not ours").unwrap();
    let listing = store.manifests().unwrap();
    assert_eq!(listing.images.len(), 1);
    assert_eq!(listing.images[0].0, good);
    assert_eq!(listing.broken[0].0, bad);
    assert!(matches!(store.collect_garbage(), Err(StoreError::Manifest { .. })));
    store.remove(bad).unwrap();
    assert_eq!(store.collect_garbage().unwrap().chunks, 1);
}

#[test]
fn writers_and_garbage_collection_at_once() {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let store = store.clone();
            scope.spawn(move || {
                for round in 0..8 {
                    let id = put(&store, name, &[round, round + 1, 100]);
                    assert!(store.verify(id).unwrap().is_good(), "{name} {round}");
                    store.remove(id).unwrap();
                }
            });
        }
        for _ in 0..40 {
            store.collect_garbage().unwrap();
        }
    });
    store.collect_garbage().unwrap();
    assert_eq!(chunk_files(&store), 0);
}
