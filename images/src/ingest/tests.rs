//! Ingests of good and of lying sources.

use std::io::{Cursor, Read, Write};

use super::*;
use crate::chunk;
use crate::manifest::PartitionTable;
use crate::scratch::{Scratch, disk, noise};

fn options() -> IngestOptions {
    let limits = Limits { raw_size_max: 64 << 20, workers: 2 };
    IngestOptions { chunk_size: 65536, limits, ..IngestOptions::new("test", "1", Architecture::X86_64) }
}

fn stream(bytes: &[u8]) -> Source {
    Source::stream(Cursor::new(bytes.to_vec()))
}

fn quiet(_: IngestProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

type Codec = fn(&[u8]) -> Vec<u8>;
/// Each compression, with a checksum of the content.
const CODECS: [Codec; 3] = [zst, gz, xz];

/// The disk as a qcow2 of 64 KiB clusters; `None` without `qemu-img`.
fn qcow2(dir: &Scratch, disk: &[u8]) -> Option<std::path::PathBuf> {
    let (raw, out) = (dir.file("for-qcow2.raw", disk), dir.path().join("disk.qcow2"));
    let run = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &out])
        .status();
    match run {
        Ok(status) => {
            assert!(status.success());
            Some(out)
        }
        Err(e) => {
            println!("skipped: qemu-img does not run here: {e}");
            None
        }
    }
}

/// The disk as the store has it.
fn read_back(store: &Store, manifest: &Manifest) -> Vec<u8> {
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let mut disk = Vec::new();
    for (index, chunk) in manifest.chunks.iter().enumerate() {
        let mut raw = vec![0; manifest.chunk_len(index)];
        if let Some(chunk) = chunk {
            let frame = store.chunk_frame(chunk.id).unwrap();
            chunk::open(&mut decompressor, chunk.id, &frame, &mut raw).unwrap();
        }
        disk.extend(raw);
    }
    disk
}

/// Everything under the store that is a chunk, a manifest, or being written.
fn files(store: &Store) -> usize {
    fn count(dir: &std::path::Path) -> usize {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .map(|p| if p.is_dir() { count(&p) } else { 1 })
            .sum()
    }
    ["chunks", "manifests", "tmp"].into_iter().map(|d| count(&store.root().join(d))).sum()
}

/// Ingest fails, and leaves nothing.
fn refused(source: Source, options: IngestOptions) -> IngestError {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let error = ingest(&store, source, options, &mut quiet).unwrap_err();
    assert_eq!(files(&store), 0, "left behind after: {error}");
    error
}

#[test]
fn the_same_disk_from_every_source() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let disk = disk(1);
    let raw = dir.file("disk.raw", &disk);
    let packed = zst(&disk);
    let path = dir.file("disk.misnamed", &packed);
    let file = |path| Source::path(path).unwrap();
    let mut ids = Vec::new();
    let mut sources = vec![file(&raw), file(&path)];
    sources.extend([stream(&disk), stream(&packed), stream(&gz(&disk)), stream(&xz(&disk))]);
    if let Some(qcow2) = qcow2(&dir, &disk) {
        sources.extend([stream(&std::fs::read(&qcow2).unwrap()), file(&qcow2)]);
    }
    for source in sources {
        let manifest = ingest(&store, source, options(), &mut quiet).unwrap();
        assert_eq!(read_back(&store, &manifest), disk);
        assert_eq!(manifest.sha256, chunk::sha256(&disk));
        assert!(store.verify(manifest.id()).unwrap().is_good());
        ids.push(manifest.id());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let manifest = store.manifest(ids[0]).unwrap();
    assert_eq!(manifest.partition_table, PartitionTable::Mbr);
    assert_eq!(manifest.firmware, BTreeSet::from([Firmware::Bios]));
    assert_eq!(manifest.minimum_disk, disk.len() as u64);
    assert_eq!(manifest.chunks.iter().flatten().count(), 8);
    assert_eq!(manifest.chunks[1].unwrap().id, manifest.chunks[12].unwrap().id);
}

#[test]
fn a_sparse_file_is_not_read_where_it_has_holes() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let path = dir.path().join("sparse.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(48 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(1, 1000), 10 << 20).unwrap();
    let mut last = None;
    let manifest = ingest(&store, Source::path(&path).unwrap(), options(), &mut |p| {
        last = Some(p);
        quiet(p)
    })
    .unwrap();
    assert_eq!(manifest.chunks.iter().flatten().count(), 1);
    assert_eq!(manifest.sha256, chunk::sha256(&std::fs::read(&path).unwrap()));
    let last = last.unwrap();
    assert_eq!((last.done, last.total, last.chunks, last.holes), (48 << 20, Some(48 << 20), 1, 767));
}

#[test]
fn a_second_ingest_stores_nothing_new() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    ingest(&store, stream(&disk(1)), options(), &mut quiet).unwrap();
    let mut last = None;
    let renamed = IngestOptions { version: "2".to_owned(), ..options() };
    ingest(&store, stream(&disk(1)), renamed, &mut |p| {
        last = Some(p);
        quiet(p)
    })
    .unwrap();
    let last = last.unwrap();
    assert_eq!((last.stored_bytes, last.reused), (0, last.chunks));
    assert_eq!(store.image_ids().unwrap().len(), 2);
}

#[test]
fn a_damaged_chunk_is_replaced_by_the_next_ingest() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let manifest = ingest(&store, stream(&disk(1)), options(), &mut quiet).unwrap();
    let chunk = manifest.chunks[1].unwrap().id;
    std::fs::write(store.chunk_path(chunk), b"").unwrap();
    assert_eq!(store.verify(manifest.id()).unwrap().bad[0].id, chunk);
    ingest(&store, stream(&disk(1)), options(), &mut quiet).unwrap();
    assert!(store.verify(manifest.id()).unwrap().is_good());
}

#[test]
fn what_was_announced_and_is_true_passes() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let disk = disk(2);
    let mut given = vec![disk.clone(), zst(&disk), gz(&disk), xz(&disk)];
    given.extend(qcow2(&dir, &disk).map(|path| std::fs::read(path).unwrap()));
    for file in &given {
        let announced = IngestOptions {
            expected_size: Some(file.len() as u64),
            expected_sha256: Some(chunk::sha256(file)),
            expected_raw_size: Some(disk.len() as u64),
            expected_raw_sha256: Some(chunk::sha256(&disk)),
            firmware: Some(BTreeSet::from([Firmware::Uefi])),
            minimum_disk: Some(1 << 30),
            ..options()
        };
        let path = dir.file("given", file);
        for source in [stream(file), Source::path(&path).unwrap()] {
            let manifest = ingest(&store, source, announced.clone(), &mut quiet).unwrap();
            assert_eq!(manifest.minimum_disk, 1 << 30);
            assert_eq!(manifest.firmware, BTreeSet::from([Firmware::Uefi]));
        }
    }
}

#[test]
fn lies_about_size_are_refused() {
    let dir = Scratch::new();
    let disk = disk(1);
    let mut given = vec![disk.clone(), zst(&disk), gz(&disk), xz(&disk)];
    given.extend(qcow2(&dir, &disk).map(|path| std::fs::read(path).unwrap()));
    for file in given {
        let len = file.len() as u64;
        let say = |n| IngestOptions { expected_size: Some(n), ..options() };
        let path = dir.file("given", &file);
        let longer = refused(stream(&file), say(len - 1));
        assert!(matches!(longer, IngestError::Longer { .. }), "{longer}");
        let shorter = refused(stream(&file), say(len + 1));
        assert!(matches!(shorter, IngestError::WrongSize { .. }), "{shorter}");
        let wrong = refused(Source::path(&path).unwrap(), say(len + 1));
        assert_eq!(wrong.to_string(), format!("image file has {len} bytes, {} were announced", len + 1));
    }
    let raw = IngestOptions { expected_raw_size: Some(512), ..options() };
    assert!(matches!(refused(stream(&disk), raw), IngestError::WrongRawSize { .. }));
}

#[test]
fn wrong_hashes_are_refused() {
    let dir = Scratch::new();
    let disk = disk(1);
    let other = Some(chunk::sha256(b"other"));
    let mut given = vec![disk.clone(), zst(&disk), gz(&disk), xz(&disk)];
    given.extend(qcow2(&dir, &disk).map(|path| std::fs::read(path).unwrap()));
    for file in given {
        let file_hash = IngestOptions { expected_sha256: other, ..options() };
        let path = dir.file("given", &file);
        let error = refused(Source::path(&path).unwrap(), file_hash.clone());
        assert!(matches!(error, IngestError::WrongHash { .. }), "{error}");
        assert!(matches!(refused(stream(&file), file_hash), IngestError::WrongHash { .. }));
        let raw_hash = IngestOptions { expected_raw_sha256: other, ..options() };
        assert!(matches!(refused(stream(&file), raw_hash), IngestError::WrongRawHash { .. }));
    }
}

#[test]
fn a_cut_stream_is_refused() {
    for codec in CODECS {
        let packed = codec(&disk(1));
        for cut in [5, packed.len() / 2, packed.len() - 1] {
            let error = refused(
                stream(&packed[..cut]),
                IngestOptions { format: Some(sniff(&packed).unwrap()), ..options() },
            );
            assert!(matches!(error, IngestError::Read(ReadError::Truncated { .. })), "{cut}: {error}");
        }
        let say = IngestOptions { expected_size: Some(packed.len() as u64), ..options() };
        let error = refused(stream(&packed[..1000]), say);
        assert!(matches!(error, IngestError::WrongSize { found: 1000, .. }), "{error}");
    }
}

#[test]
fn trailing_data_is_refused_and_more_frames_are_not() {
    let disk = disk(1);
    let (a, b) = disk.split_at(100_000);
    for codec in CODECS {
        for rest in [&[0][..], b"PK", &[0x1f; 5000]] {
            let error = refused(stream(&[&codec(&disk), rest].concat()), options());
            assert!(matches!(error, IngestError::Read(ReadError::TrailingData { .. })), "{error}");
        }
        let dir = Scratch::new();
        let store = Store::open(dir.path().join("store")).unwrap();
        let two = [codec(a), codec(b)].concat();
        let manifest = ingest(&store, stream(&two), options(), &mut quiet).unwrap();
        assert_eq!(manifest.sha256, chunk::sha256(&disk));
    }
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let file = [&skippable[..], &zst(a), &skippable, &zst(b)].concat();
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let manifest = ingest(&store, stream(&file), options(), &mut quiet).unwrap();
    assert_eq!(manifest.sha256, chunk::sha256(&disk));
}

#[test]
fn a_flipped_bit_is_refused() {
    for codec in CODECS {
        let good = codec(&disk(1));
        for at in [20, good.len() / 3, good.len() / 2, good.len() - 2] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let error = refused(stream(&bad), options());
            assert!(matches!(error, IngestError::Read(_)), "{at}: {error}");
        }
    }
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    assert!(matches!(refused(stream(&[]), options()), IngestError::Empty));
    assert!(matches!(refused(stream(&zst(&[])), options()), IngestError::Empty));
    assert!(matches!(refused(stream(&[1; 1000]), options()), IngestError::NotSectors(1000)));
    let small = IngestOptions { minimum_disk: Some(512), ..options() };
    assert!(matches!(refused(stream(&[1; 1024]), small), IngestError::MinimumDisk { .. }));
    let dir = Scratch::new();
    let empty = dir.file("empty", &[]);
    assert!(matches!(refused(Source::path(&empty).unwrap(), options()), IngestError::Empty));
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    for codec in CODECS {
        let bomb = codec(&vec![0; 65 << 20]);
        assert!(bomb.len() < 1_000_000);
        let error = refused(stream(&bomb), options());
        assert!(matches!(error, IngestError::TooBig { limit: 67_108_864 }), "{error}");
    }
    let endless = Source::stream(std::io::repeat(7));
    assert!(matches!(refused(endless, options()), IngestError::TooBig { .. }));
    // Frames without content: no raw byte ever comes, so their number is bounded.
    struct Skippable(usize);
    impl Read for Skippable {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            const FRAME: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
            for byte in &mut *buf {
                *byte = FRAME[self.0 % 8];
                self.0 += 1;
            }
            Ok(buf.len())
        }
    }
    let error = refused(Source::stream(Skippable(0)), options());
    assert!(matches!(error, IngestError::Read(ReadError::Damaged { .. })), "{error}");
}

#[test]
fn an_image_file_inside_a_compressed_file_is_refused() {
    let error = refused(stream(&zst(&[b"QFI\xfb".as_slice(), &[0; 508]].concat())), options());
    assert_eq!(error.to_string(), "raw.zst file holds a qcow2 file, not a raw disk; decompress it first");
    let error = refused(stream(b"KDMV and more"), options());
    assert!(matches!(error, IngestError::Read(ReadError::Unsupported("VMDK"))), "{error}");
}

#[test]
fn a_broken_source_is_not_a_broken_file() {
    struct Broken(Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(std::io::Error::other("connection reset")),
                n => Ok(n),
            }
        }
    }
    for file in [disk(1), zst(&disk(1))] {
        let error = refused(Source::stream(Broken(Cursor::new(file))), options());
        assert!(matches!(error, IngestError::Read(ReadError::Source(_))), "{error}");
    }
}

#[test]
fn cancelling_leaves_nothing() {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("store")).unwrap();
    let mut calls = 0;
    let error = ingest(&store, stream(&disk(1)), options(), &mut |_| {
        calls += 1;
        if calls == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap_err();
    assert!(matches!(error, IngestError::Cancelled));
    assert_eq!(files(&store), 0);
}

#[test]
fn options_are_checked_before_anything_is_read() {
    for bad in [
        IngestOptions { name: "Debian 12".to_owned(), ..options() },
        IngestOptions { version: String::new(), ..options() },
        IngestOptions { compression_level: 0, ..options() },
        IngestOptions { chunk_size: 100_000, ..options() },
    ] {
        let error = refused(Source::stream(std::io::repeat(0)), bad);
        assert!(matches!(error, IngestError::Options(_)), "{error}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, ..Default::default() })]

    /// Whatever is written over a compressed file: an error, and no panic in any decoder.
    #[test]
    fn a_broken_stream_never_panics(
        which in 0_usize..3,
        edits in proptest::collection::vec(
            (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<[u8; 4]>()),
            1..5,
        ),
    ) {
        let small = [&noise(1, 3000)[..], &[0; 20_000], &b"billet ".repeat(500)].concat();
        let mut file = CODECS[which](&small);
        for (at, bytes) in edits {
            // Half of them where headers and indexes are.
            let at = match bytes[3] % 4 {
                0 => at.index(64),
                1 => file.len() - 64 + at.index(60),
                _ => at.index(file.len() - 4),
            };
            file[at..at + 4].copy_from_slice(&bytes);
        }
        let format = [Format::RawZst, Format::RawGz, Format::RawXz][which];
        let input = crate::reader::Input::new(Cursor::new(file));
        let mut disk = crate::reader::open_stream(input, format).unwrap();
        let mut buf = vec![0; 65536];
        for _ in 0..64 {
            match disk.read_chunk(&mut buf) {
                Ok(piece) if piece.len() == buf.len() => {}
                _ => break,
            }
        }
    }
}
