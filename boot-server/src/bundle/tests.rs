//! Bundles that are made, taken in, cut off and forged.

use std::fs;
use std::io::{self, Cursor, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;

use boot_server_core::bundle::{BLOCK, BundleFile, BundleImage, HEAD, Head, INDEX_MAX, Index, Piece};
use images::chunk::{probe, sha256};
use images::{Architecture, ChunkRef, Manifest, PartitionTable, Store};
use proptest::prelude::*;
use protocol::{ChunkId, Timestamp};

use super::*;
use crate::config::Config;
use crate::minisign::Signer;
use crate::store::tests::Scratch;

const CHUNK: usize = 65536;

/// A machine that makes bundles, and one that takes them in.
struct Lab {
    scratch: Scratch,
    signer: Signer,
    keys: Keys,
    maker: Store,
    place: Place,
}

impl Lab {
    fn new() -> Self {
        let scratch = Scratch::new();
        let dir = |name: &str| {
            let dir = scratch.0.join(name);
            fs::create_dir_all(&dir).unwrap();
            dir
        };
        let signer = Signer::open(&dir("maker").join("signing.key")).unwrap();
        let keys = Keys::new([signer.public().as_str()]).unwrap();
        let maker = Store::open(dir("maker").join("images")).unwrap();
        let state_dir = dir("site");
        let images = Store::open(state_dir.join("images")).unwrap();
        Self { signer, keys, maker, place: Place { state_dir, images }, scratch }
    }

    /// An image of three chunks, of which the middle one is a hole.
    fn image(&self, name: &str, octet: u8) -> (protocol::ImageId, Manifest) {
        let (manifest, raws) = image(name, octet);
        let writer = self.maker.writer();
        for (chunk, raw) in manifest.chunks.iter().flatten().zip(raws) {
            writer.put_chunk(chunk.id, &zstd::bulk::compress(&raw, 3).unwrap()).unwrap();
        }
        (writer.put_manifest(&manifest).unwrap(), manifest)
    }

    fn file(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.scratch.0.join(name);
        fs::write(&path, octets).unwrap();
        path
    }

    fn source(&self, number: u64, kernel: &[u8]) -> Source<'_> {
        let kernel = self.file("vmlinuz", kernel);
        let program = self.file("billet", b"#!/bin/true\n");
        Source {
            number,
            files: vec![("boot/vmlinuz".to_owned(), kernel), ("bin/x86_64/billet".to_owned(), program)],
            images: self.maker.image_ids().unwrap(),
            store: &self.maker,
            base: None,
        }
    }

    /// Makes a bundle and returns its octets.
    fn bundle(&self, source: Source<'_>) -> Vec<u8> {
        let path = self.scratch.0.join(format!("{}.bundle", source.number));
        let _ = fs::remove_file(&path);
        create(source, &self.signer, &path).unwrap();
        fs::read(path).unwrap()
    }

    /// A bundle as somebody writes it who has the key and does not keep to the rules.
    fn forge(&self, index: &Index, frames: &[Vec<u8>]) -> Vec<u8> {
        let octets = index.canonical();
        let signature = self.signer.sign(&octets, &index.comment());
        joined(&octets, &signature, frames)
    }

    fn take(&self, octets: &[u8]) -> Result<Release, BundleError> {
        self.take_from(Cursor::new(octets.to_vec()), false)
    }

    fn take_from(&self, from: impl Read, allow_older: bool) -> Result<Release, BundleError> {
        let wishes = Wishes { allow_older, by: "test".to_owned(), now: Timestamp(5) };
        import(from, &self.keys, &self.place, &wishes, &mut |_, _| ControlFlow::Continue(()))
    }

    fn look(&self, octets: &[u8]) -> Result<Checked, BundleError> {
        verify(octets, &self.keys, Some(&self.place), &mut |_, _| ControlFlow::Continue(()))
    }

    fn served(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(Releases::current_dir(&self.place.state_dir).join(name)).ok()
    }

    /// Nothing of any bundle can be seen.
    fn is_untouched(&self) -> bool {
        let releases = Releases::new(&self.place.state_dir);
        self.place.images.image_ids().unwrap().is_empty()
            && releases.list().unwrap().is_empty()
            && self.served("boot/vmlinuz").is_none()
            && releases.floor().unwrap().is_none()
    }
}

fn image(name: &str, octet: u8) -> (Manifest, Vec<Vec<u8>>) {
    let raws = vec![vec![octet; CHUNK], vec![octet ^ 0xff; 512]];
    let chunk = |raw: &Vec<u8>| Some(ChunkRef { id: ChunkId(sha256(raw)), probe: probe(raw).unwrap() });
    let manifest = Manifest {
        format: images::manifest::FORMAT.to_owned(),
        name: name.to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::X86_64,
        firmware: [images::Firmware::Uefi].into(),
        partition_table: PartitionTable::Gpt,
        raw_size: 2 * CHUNK as u64 + 512,
        sha256: sha256(b"not looked at"),
        minimum_disk: 1 << 20,
        default_user: None,
        datasource: None,
        chunk_size: CHUNK as u32,
        chunks: vec![chunk(&raws[0]), None, chunk(&raws[1])],
    };
    (manifest, raws)
}

fn joined(index: &[u8], signature: &str, frames: &[Vec<u8>]) -> Vec<u8> {
    let head = Head { index: index.len() as u32, signature: signature.len() as u32 };
    [&head.octets()[..], index, signature.as_bytes(), &frames.concat()].concat()
}

fn piece(raw: &[u8], frame: &[u8]) -> Piece {
    Piece { id: sha256(raw), size: raw.len() as u32, frame: sha256(frame), stored: frame.len() as u32 }
}

fn packed(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 3).unwrap()
}

/// The parts of a bundle of one image, before somebody changes them.
struct Forged {
    index: Index,
    frames: Vec<Vec<u8>>,
}

impl Forged {
    fn new(manifest: &Manifest, raws: &[Vec<u8>]) -> Self {
        let octets = manifest.canonical();
        let mut frames = vec![packed(&octets)];
        let mut index = Index::new(7, "0.1.0", None);
        let (name, version) = (manifest.name.clone(), manifest.version.clone());
        index.images.push(BundleImage {
            name,
            version,
            manifest: piece(&octets, &frames[0]),
            signature: None,
        });
        for raw in raws {
            let frame = packed(raw);
            index.chunks.push(piece(raw, &frame));
            frames.push(frame);
        }
        Self { index, frames }
    }
}

#[test]
fn a_bundle_is_carried_from_one_site_to_another() {
    let lab = Lab::new();
    let (id, manifest) = lab.image("tiny", 1);
    lab.image("other", 2);
    let large: Vec<u8> = (0..BLOCK as usize * 2 + 77).map(|n| (n / 1000) as u8).collect();
    let octets = lab.bundle(lab.source(7, &large));
    let checked = lab.look(&octets).unwrap();
    assert!(checked.refused.is_none());
    assert!(lab.is_untouched(), "looking changes nothing");
    let release = lab.take(&octets).unwrap();
    assert_eq!((release.index.number, release.current, release.finished), (7, true, true));
    assert_eq!(release.note.by, "test");
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), large);
    let program = Releases::current_dir(&lab.place.state_dir).join("bin/x86_64/billet");
    assert_eq!(fs::metadata(program).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(lab.place.images.image_ids().unwrap().len(), 2);
    assert_eq!(lab.place.images.manifest(id).unwrap(), manifest);
    let report = lab.place.images.verify(id).unwrap();
    assert!(report.bad.is_empty() && report.checked == 2, "{report:?}");
    let again = lab.take(&octets).unwrap();
    assert_eq!(again.digest, release.digest, "the same once more is no error");
}

#[test]
fn the_same_content_gives_the_same_octets() {
    let lab = Lab::new();
    lab.image("tiny", 1);
    let first = lab.bundle(lab.source(7, b"kernel"));
    let mut turned = lab.source(7, b"kernel");
    turned.files.reverse();
    turned.images.reverse();
    assert_eq!(lab.bundle(turned), first);
    assert_ne!(lab.bundle(lab.source(8, b"kernel")), first);
}

/// Each octet of the file: whatever is changed is noticed, and nothing of the bundle can be seen.
#[test]
fn no_octet_can_be_changed() {
    let lab = Lab::new();
    lab.image("tiny", 1);
    let octets = lab.bundle(lab.source(7, b"kernel"));
    assert!(octets.len() < 10_000, "{}", octets.len());
    for at in 0..octets.len() {
        let mut other = octets.clone();
        other[at] ^= 1 << (at % 8);
        assert!(lab.look(&other).is_err(), "octet {at}");
    }
    for at in (0..octets.len()).step_by(97) {
        let mut other = octets.clone();
        other[at] ^= 0x20;
        assert!(lab.take(&other).is_err(), "octet {at}");
        assert!(lab.is_untouched(), "octet {at}");
    }
    lab.take(&octets).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_octets_can_be_changed_cut_or_added(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
        more in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        let lab = Lab::new();
        lab.image("tiny", 1);
        let good = lab.bundle(lab.source(7, b"kernel"));
        let mut octets = good.clone();
        for (at, with) in edits {
            let at = at.index(octets.len());
            octets[at] ^= with;
        }
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len()));
        }
        octets.extend(more);
        prop_assert_eq!(lab.take(&octets).is_ok(), octets == good);
        prop_assert_eq!(lab.is_untouched(), octets != good);
    }
}

#[test]
fn a_bundle_that_is_cut_off_is_said_to_be() {
    let lab = Lab::new();
    lab.image("tiny", 1);
    let octets = lab.bundle(lab.source(7, b"kernel"));
    for length in (0..octets.len()).step_by(53).chain([HEAD - 1, octets.len() - 1]) {
        let error = lab.take(&octets[..length]).unwrap_err();
        assert!(matches!(error, BundleError::Truncated(_)), "{length}: {error}");
        assert!(lab.is_untouched());
    }
    let error = lab.take(&[&octets[..], b"x"].concat()).unwrap_err();
    assert!(matches!(error, BundleError::Trailing), "{error}");
    assert!(lab.is_untouched());
}

#[test]
fn whose_bundle_it_is_the_site_says() {
    let lab = Lab::new();
    let octets = lab.bundle(lab.source(7, b"kernel"));
    let look = |keys: &Keys| verify(&octets[..], keys, None, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(look(&Keys::default()), Err(BundleError::NoKeys)));
    let other = Signer::open(&lab.scratch.0.join("other.key")).unwrap();
    let others = Keys::new([other.public().as_str()]).unwrap();
    let Err(BundleError::Stranger(number)) = look(&others) else { panic!("taken") };
    assert_eq!(number.len(), 16, "{number}");
    let both = Keys::new([other.public().as_str(), lab.signer.public().as_str()]).unwrap();
    let key = look(&both).unwrap().opened.key;
    assert_eq!(Some(key.as_str()), lab.signer.public().lines().nth(1), "and which key it was");
    assert!(matches!(Keys::new(["nonsense"]), Err(BundleError::Key(_))));
    assert!(
        Keys::of_site(&[], &lab.place.state_dir).unwrap().signer(b"", "").is_err(),
        "no key of its own yet"
    );
}

/// The site signs other things too: none of them is a bundle, and the line that nobody signed is always the same.
#[test]
fn a_signature_over_something_else_is_none() {
    let lab = Lab::new();
    let index = Index::new(7, "0.1.0", None);
    let octets = index.canonical();
    assert!(lab.look(&lab.forge(&index, &[])).is_ok(), "an empty one is one");
    let usage = lab.signer.sign(&octets, "usage-1-2.json");
    assert!(matches!(lab.look(&joined(&octets, &usage, &[])), Err(BundleError::Purpose(_))));
    let good = lab.signer.sign(&octets, &index.comment());
    for changed in [
        good.replace("signature by Billet", "signature by Billed"),
        good.replace('\n', "\r\n"),
        format!("{good}\n"),
        good.trim_end().to_owned(),
        good.replacen("trusted comment: ", "trusted comment:", 1),
    ] {
        assert_ne!(changed, good);
        assert!(lab.look(&joined(&octets, &changed, &[])).is_err(), "{changed}");
    }
    let other = Signer::open(&lab.scratch.0.join("other.key")).unwrap();
    let theirs = other.sign(&octets, &index.comment());
    assert!(matches!(lab.look(&joined(&octets, &theirs, &[])), Err(BundleError::Stranger(_))));
    let altered = Index { number: 8, ..index }.canonical();
    assert!(matches!(lab.look(&joined(&altered, &good, &[])), Err(BundleError::Signature(_))));
}

#[test]
fn the_first_octets_are_bounded() {
    let lab = Lab::new();
    let good = lab.bundle(lab.source(7, b"kernel"));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        change(&mut octets);
        lab.look(&octets).unwrap_err()
    };
    assert!(matches!(with(&|o| o[14] = b'2'), BundleError::Head(HeadError::Version)));
    assert!(matches!(with(&|o| o[0] = b'x'), BundleError::Head(HeadError::NoBundle)));
    let huge = (INDEX_MAX + 1).to_le_bytes();
    assert!(matches!(with(&|o| o[16..20].copy_from_slice(&huge)), BundleError::Head(HeadError::Index(_))));
    let most = INDEX_MAX.to_le_bytes();
    assert!(matches!(with(&|o| o[16..20].copy_from_slice(&most)), BundleError::Truncated(_)));
}

/// Whoever has the key and lies in the index: what is in the file counts.
#[test]
fn a_signer_who_lies_is_refused() {
    let lab = Lab::new();
    let (manifest, raws) = image("tiny", 1);
    let forged = |change: &dyn Fn(&mut Forged)| {
        let mut forged = Forged::new(&manifest, &raws);
        change(&mut forged);
        let octets = lab.forge(&forged.index, &forged.frames);
        let (looked, taken) = (lab.look(&octets), lab.take(&octets));
        if taken.is_err() {
            assert!(looked.is_err() && lab.is_untouched());
        }
        taken.map(drop).map_err(|error| crate::ingest::sentence(&error))
    };
    type Lie = (&'static str, &'static str, fn(&mut Forged));
    let lies: [Lie; 9] = [
        ("another chunk under its name", "does not hold what the index says", |f| {
            f.frames[1] = packed(&[9; CHUNK]);
            f.index.chunks[0].frame = sha256(&f.frames[1]);
            f.index.chunks[0].stored = f.frames[1].len() as u32;
        }),
        ("a frame that grows beyond what was said", "does not hold what the index says", |f| {
            f.frames[2] = packed(&vec![0; 512 << 20]);
            f.index.chunks[1].frame = sha256(&f.frames[2]);
            f.index.chunks[1].stored = f.frames[2].len() as u32;
            // More than a frame of 512 octets can have is refused already.
            assert!(f.frames[2].len() > 2048);
        }),
        ("a frame that is none", "does not hold what the index says", |f| {
            f.frames[2] = vec![7; 20];
            f.index.chunks[1].frame = sha256(&f.frames[2]);
            f.index.chunks[1].stored = 20;
        }),
        ("frames in another order", "was changed", |f| f.frames.swap(1, 2)),
        ("a chunk that is not there", "is not in the bundle", |f| {
            f.index.chunks.truncate(1);
            f.frames.truncate(2);
        }),
        ("a chunk that nobody needs", "belongs to nothing", |f| {
            let raw = vec![3; 100];
            f.frames.push(packed(&raw));
            f.index.chunks.push(piece(&raw, &f.frames[3]));
        }),
        ("another name of the image", "has another name", |f| f.index.images[0].name = "debian".to_owned()),
        ("a manifest that is none", "image", |f| {
            f.frames[0] = packed(b"{}");
            f.index.images[0].manifest = piece(b"{}", &f.frames[0]);
        }),
        ("less than it says", "cut off", |f| f.frames.truncate(2)),
    ];
    for (what, says, lie) in lies {
        if what.starts_with("a frame that grows") {
            // Twice: by its size in the index, and by what it becomes.
            let error = forged(&lie).unwrap_err();
            assert!(error.contains("octets become") || error.contains(says), "{what}: {error}");
            continue;
        }
        let error = forged(&lie).unwrap_err();
        assert!(error.contains(says), "{what}: {error}");
    }
    assert_eq!(forged(&|_| {}), Ok(()), "without a lie it is taken");
}

/// 64 KiB that become as much as is said, and not one octet more: a bomb stops there.
#[test]
fn a_bomb_is_not_unpacked() {
    let lab = Lab::new();
    let (mut manifest, mut raws) = image("tiny", 1);
    raws[0] = vec![5; CHUNK];
    manifest.chunks[0] = Some(ChunkRef { id: ChunkId(sha256(&raws[0])), probe: probe(&raws[0]).unwrap() });
    let mut forged = Forged::new(&manifest, &raws);
    forged.frames[1] = packed(&vec![5; 1 << 30]);
    assert!(forged.frames[1].len() < 66_000, "{}", forged.frames[1].len());
    forged.index.chunks[0].frame = sha256(&forged.frames[1]);
    forged.index.chunks[0].stored = forged.frames[1].len() as u32;
    let error = lab.take(&lab.forge(&forged.index, &forged.frames)).unwrap_err();
    assert!(matches!(error, BundleError::Piece { .. }), "{error}");
    assert!(lab.is_untouched());
}

/// A probe lets an agent pass over a chunk: it must be that of the chunk.
#[test]
fn what_a_manifest_says_of_a_first_block_is_checked() {
    let lab = Lab::new();
    let (mut manifest, raws) = image("tiny", 1);
    manifest.chunks[0].as_mut().unwrap().probe.1 ^= 1;
    let forged = Forged::new(&manifest, &raws);
    let error = lab.take(&lab.forge(&forged.index, &forged.frames)).unwrap_err();
    assert!(matches!(error, BundleError::Probe(_)), "{error}");
    assert!(lab.is_untouched());
}

/// A few KiB that would become a TiB of files.
#[test]
fn room_is_looked_for_before_anything_is_written() {
    let lab = Lab::new();
    let raw = vec![0; BLOCK as usize];
    let frame = packed(&raw);
    let mut index = Index::new(7, "0.1.0", None);
    let blocks = vec![sha256(&raw); 4096];
    index.files = (0..256)
        .map(|n| BundleFile { path: format!("docs/{n:03}"), size: 16 << 30, blocks: blocks.clone() })
        .collect();
    index.files.truncate(200);
    index.blocks.push(piece(&raw, &frame));
    let error = lab.take(&lab.forge(&index, &[frame])).unwrap_err();
    assert!(matches!(error, BundleError::NoSpace { .. }), "{error}");
    assert!(lab.is_untouched());
    assert!(!lab.place.state_dir.join("bundles/staging").exists());
}

#[test]
fn an_older_bundle_is_refused_unless_it_is_allowed() {
    let lab = Lab::new();
    let [four, five] = [4, 5].map(|n| lab.bundle(lab.source(n, format!("kernel {n}").as_bytes())));
    lab.take(&five).unwrap();
    let error = lab.take(&four).unwrap_err();
    assert!(matches!(error, BundleError::Older { found: 4, floor: 5 }), "{error}");
    assert!(matches!(lab.look(&four).unwrap().refused, Some(BundleError::Older { .. })));
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"kernel 5");
    let other = lab.bundle(lab.source(5, b"another kernel"));
    assert!(matches!(lab.take(&other), Err(BundleError::Same(5))));
    let release = lab.take_from(&four[..], true).unwrap();
    assert_eq!(release.note.over, Some(5));
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"kernel 4");
    // What was allowed once lowers nothing.
    assert!(matches!(lab.take(&lab.bundle(lab.source(3, b"x"))), Err(BundleError::Older { floor: 5, .. })));
    fs::write(lab.place.state_dir.join("bundle.floor"), "nonsense").unwrap();
    assert!(lab.take(&lab.bundle(lab.source(9, b"x"))).is_err(), "nobody knows what is older");
}

#[test]
fn a_delta_has_what_its_base_lacks_and_needs_it() {
    let lab = Lab::new();
    lab.image("tiny", 1);
    let mut large: Vec<u8> = (0..BLOCK as usize * 2).map(|n| (n >> 13) as u8).collect();
    let base = lab.bundle(lab.source(5, &large));
    lab.image("other", 2);
    large[BLOCK as usize + 5] ^= 1;
    let known = Known::read(&lab.scratch.0.join("5.bundle"), &lab.keys).unwrap();
    let delta = lab.bundle(Source { base: Some(known), ..lab.source(6, &large) });
    let whole = lab.bundle(lab.source(6, &large));
    assert!(delta.len() < whole.len());
    let refused = lab.look(&delta).unwrap().refused;
    assert!(matches!(refused, Some(BundleError::NoBase { base: 5, .. })));
    let error = lab.take(&delta).unwrap_err();
    assert!(matches!(error, BundleError::NoBase { base: 5, .. }), "{error}");
    assert!(lab.is_untouched());
    lab.take(&base).unwrap();
    assert!(lab.look(&delta).unwrap().refused.is_none());
    lab.take(&delta).unwrap();
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), large);
    let images = lab.place.images.image_ids().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|id| lab.place.images.verify(*id).unwrap().bad.is_empty()));
    // Its base is here, but somebody changed it since.
    let next = Known::read(&lab.scratch.0.join("6.bundle"), &lab.keys).unwrap();
    let second = lab.bundle(Source { base: Some(next), ..lab.source(7, &large) });
    fs::write(Releases::current_dir(&lab.place.state_dir).join("boot/vmlinuz"), b"changed").unwrap();
    for kept in fs::read_dir(lab.place.state_dir.join("bundles/kept")).unwrap() {
        fs::write(kept.unwrap().path().join("boot/vmlinuz"), b"changed").unwrap();
    }
    assert!(matches!(lab.take(&second), Err(BundleError::NoBase { base: 6, .. })));
}

/// A stream that breaks off after so many octets.
struct Breaks<'a>(&'a [u8], usize);

impl Read for Breaks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::Error::other("the cable was pulled"));
        }
        let most = into.len().min(self.1);
        let read = self.0.read(&mut into[..most])?;
        self.1 -= read;
        Ok(read)
    }
}

#[test]
fn what_broke_off_left_nothing_and_is_repeated() {
    let lab = Lab::new();
    lab.image("tiny", 1);
    let old = lab.bundle(lab.source(5, b"old kernel"));
    lab.take(&old).unwrap();
    lab.image("other", 2);
    let new = lab.bundle(lab.source(6, b"new kernel"));
    for part in 0..20 {
        let error = lab.take_from(Breaks(&new, new.len() * part / 20), false).unwrap_err();
        assert!(matches!(error, BundleError::Read(_)), "{error}");
        assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"old kernel");
        assert_eq!(lab.place.images.image_ids().unwrap().len(), 1);
    }
    let mut calls = 0;
    let wishes = Wishes { allow_older: false, by: "test".to_owned(), now: Timestamp(5) };
    let stopped = import(&new[..], &lab.keys, &lab.place, &wishes, &mut |_, _| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(BundleError::Stopped)));
    let before = lab.place.images.collect_garbage().unwrap();
    assert_eq!(before.chunks, 0, "what was brought was taken back");
    lab.take(&new).unwrap();
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"new kernel");
    assert_eq!(lab.place.images.image_ids().unwrap().len(), 2);
}

/// A crash right behind the switch: the images are put where they belong by the next start.
#[test]
fn what_was_left_behind_the_switch_is_finished() {
    let lab = Lab::new();
    let (id, _) = lab.image("tiny", 1);
    let release = lab.take(&lab.bundle(lab.source(7, b"kernel"))).unwrap();
    fs::remove_file(release.dir.join("finished")).unwrap();
    fs::remove_file(lab.place.state_dir.join(format!("images/manifests/{id}.json"))).unwrap();
    let left = Releases::new(&lab.place.state_dir).current().unwrap().unwrap();
    assert!(!left.finished && !left.told);
    finish(&left, &lab.place).unwrap();
    assert!(lab.place.images.manifest(id).is_ok());
    assert!(Releases::new(&lab.place.state_dir).current().unwrap().unwrap().finished);
    fs::remove_file(release.dir.join("finished")).unwrap();
    fs::remove_file(lab.place.state_dir.join(format!("images/manifests/{id}.json"))).unwrap();
    lab.place.images.collect_garbage().unwrap();
    assert!(finish(&left, &lab.place).is_err(), "its chunks are gone: it is not said to be whole");
}

#[test]
fn another_one_is_switched_to_and_old_ones_go() {
    let lab = Lab::new();
    for number in 1..=5 {
        lab.take(&lab.bundle(lab.source(number, format!("kernel {number}").as_bytes()))).unwrap();
    }
    let releases = Releases::new(&lab.place.state_dir);
    let numbers = || releases.list().unwrap().iter().map(|it| it.index.number).collect::<Vec<_>>();
    assert_eq!(numbers(), [5, 4, 3]);
    releases.switch(Some(3)).unwrap();
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"kernel 3");
    assert!(matches!(releases.switch(Some(1)), Err(BundleError::NotKept(1))));
    releases.switch(None).unwrap();
    assert_eq!((lab.served("boot/vmlinuz"), numbers()), (None, vec![5, 4, 3]));
    releases.switch(Some(5)).unwrap();
    assert_eq!(lab.served("boot/vmlinuz").unwrap(), b"kernel 5");
    let lock = releases.lock().unwrap();
    let error = lab.take(&lab.bundle(lab.source(6, b"x"))).unwrap_err();
    assert!(matches!(error, BundleError::Busy), "{error}");
    drop(lock);
}

#[test]
fn what_a_machine_boots_is_gathered() {
    let lab = Lab::new();
    let dir = |name: &str| {
        let dir = lab.scratch.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    };
    let (boot, loaders, shared) = (dir("boot"), dir("loaders"), dir("shared"));
    fs::write(boot.join("vmlinuz"), b"kernel").unwrap();
    let mut config = Config { state_dir: dir("state"), ..Config::default() };
    config.boot.directory = Some(boot.clone());
    config.boot.loaders = vec![loaders.clone()];
    let wanted =
        Gather { programs: vec![("x86_64".to_owned(), "/bin/true".into())], shared: Some(shared.clone()) };
    let half = gather(&config, &wanted).unwrap_err();
    assert!(matches!(half, BundleError::Half(_)), "{half}");
    fs::write(boot.join("initramfs.zst"), b"ramdisk").unwrap();
    fs::write(loaders.join("snponly.efi"), b"loader").unwrap();
    fs::write(loaders.join("unknown.efi"), b"loader").unwrap();
    fs::create_dir_all(shared.join("docs/guide")).unwrap();
    fs::write(shared.join("docs/guide/bundles.md"), b"text").unwrap();
    fs::write(shared.join("docs/.hidden"), b"text").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", shared.join("docs/link")).unwrap();
    fs::write(shared.join("other"), b"text").unwrap();
    let mut names: Vec<_> = gather(&config, &wanted).unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let all = [
        "bin/x86_64/billet",
        "boot/initramfs.zst",
        "boot/vmlinuz",
        "docs/guide/bundles.md",
        "loaders/snponly.efi",
    ];
    assert_eq!(names, all);
}

#[test]
fn what_cannot_be_in_a_bundle_is_not_packed() {
    let lab = Lab::new();
    let make = |path: &str| {
        let file = lab.file("x", b"x");
        let source = Source { files: vec![(path.to_owned(), file)], ..lab.source(1, b"") };
        create(source, &lab.signer, &lab.scratch.0.join("x.bundle"))
    };
    for bad in ["boot/../x", "/boot/x", "etc/passwd", "boot/a b"] {
        assert!(matches!(make(bad), Err(BundleError::Path { .. })), "{bad}");
    }
    assert!(!lab.scratch.0.join("x.bundle").exists() && !lab.scratch.0.join("x.bundle.part").exists());
    make("boot/x").unwrap();
    assert!(matches!(make("boot/x"), Err(BundleError::File { .. })), "nothing is written over");
    // A chunk that is damaged in the store is not carried on.
    let (_, manifest) = lab.image("tiny", 1);
    fs::write(lab.maker.chunk_path(manifest.chunks[0].unwrap().id), b"damaged").unwrap();
    let damaged = create(lab.source(2, b""), &lab.signer, &lab.scratch.0.join("y.bundle"));
    assert!(matches!(damaged, Err(BundleError::Images(_))));
}
