//! Indexes that lie, and those that do not.

use proptest::prelude::*;

use super::*;

fn hash(octet: u8) -> Sha256 {
    Sha256([octet; 32])
}

fn piece(octet: u8, size: u32) -> Piece {
    Piece { id: hash(octet), size, frame: hash(octet ^ 0xff), stored: size.min(100) }
}

fn image(octet: u8, name: &str) -> BundleImage {
    BundleImage {
        name: name.to_owned(),
        version: "1".to_owned(),
        manifest: piece(octet, 700),
        signature: None,
    }
}

fn file(path: &str, size: u64, blocks: &[u8]) -> BundleFile {
    BundleFile { path: path.to_owned(), size, blocks: blocks.iter().map(|octet| hash(*octet)).collect() }
}

fn sample() -> Index {
    Index {
        images: vec![image(1, "debian-12"), image(2, "tiny")],
        files: vec![
            file("boot/initramfs", u64::from(BLOCK) + 5, &[10, 11]),
            file("boot/vmlinuz", 0, &[]),
            file("docs/README.md", 5, &[11]),
        ],
        blocks: vec![piece(10, BLOCK), piece(11, 5)],
        chunks: vec![piece(20, 65536)],
        ..Index::new(7, "0.1.0", None)
    }
}

/// The canonical octets of form 1. If a test against them fails, do not change them: bundles that were made would be refused.
#[test]
fn golden_octets_of_form_1() {
    let index = Index {
        images: vec![image(1, "tiny")],
        files: vec![file("boot/vmlinuz", 5, &[11])],
        blocks: vec![piece(11, 5)],
        chunks: vec![],
        ..Index::new(7, "0.1.0", Some(Base { number: 6, index: hash(3) }))
    };
    let (one, three, eleven) = ("01".repeat(32), "03".repeat(32), "0b".repeat(32));
    let golden = format!(
        concat!(
            r#"{{"format":"billet-bundle/1","number":7,"version":"0.1.0","base":{{"number":6,"index":"{three}"}},"#,
            r#""images":[{{"name":"tiny","version":"1","manifest":{{"id":"{one}","size":700,"frame":"{fe}","stored":100}}}}],"#,
            r#""files":[{{"path":"boot/vmlinuz","size":5,"blocks":["{eleven}"]}}],"#,
            r#""blocks":[{{"id":"{eleven}","size":5,"frame":"{f4}","stored":5}}],"chunks":[]}}"#,
        ),
        one = one,
        three = three,
        eleven = eleven,
        fe = "fe".repeat(32),
        f4 = "f4".repeat(32),
    );
    assert_eq!(String::from_utf8(index.canonical()).unwrap(), golden);
    assert_eq!(Index::parse(golden.as_bytes()).unwrap(), index);
}

#[test]
fn what_it_says_fits_together() {
    let index = sample();
    assert_eq!(Index::parse(&index.canonical()).unwrap(), index);
    assert!(index.foreign_blocks().is_empty());
    assert_eq!(index.pieces().count(), 5);
}

#[test]
fn whatever_contradicts_itself_is_refused() {
    type Spoil = (&'static str, fn(&mut Index));
    let spoils: [Spoil; 26] = [
        ("another form", |i| i.format = "billet-bundle/2".to_owned()),
        ("number 0", |i| i.number = 0),
        ("no version", |i| i.version = String::new()),
        ("a version with control characters", |i| i.version = "1\n".to_owned()),
        ("a base as new as itself", |i| i.base = Some(Base { number: 7, index: hash(1) })),
        ("an image twice", |i| i.images[1] = i.images[0].clone()),
        ("images out of order", |i| i.images.swap(0, 1)),
        ("a name with a path", |i| i.images[0].name = "../x".to_owned()),
        ("a manifest that is too large", |i| i.images[0].manifest.size = MANIFEST_RAW_MAX + 1),
        ("a signature that is too long", |i| i.images[0].signature = Some("x".repeat(5000))),
        ("a path that leads up", |i| i.files[0].path = "boot/../../etc/passwd".to_owned()),
        ("an absolute path", |i| i.files[0].path = "/boot/initramfs".to_owned()),
        ("a path twice", |i| i.files[1].path = i.files[0].path.clone()),
        ("paths out of order", |i| i.files.swap(0, 2)),
        ("a path through a file", |i| i.files[1].path = "boot/initramfs/x".to_owned()),
        ("a file that is too large", |i| i.files[0].size = FILE_MAX + 1),
        ("too few blocks", |i| i.files[0].size = u64::from(BLOCK) * 2 + 1),
        ("a block of another size", |i| i.files[0].size -= 1),
        ("a block that is not there", |i| i.blocks.truncate(1)),
        ("a block twice", |i| i.blocks.push(i.blocks[0])),
        ("a block that nothing needs", |i| i.blocks.push(piece(12, 5))),
        ("a chunk twice", |i| i.chunks.push(i.chunks[0])),
        ("a piece without octets", |i| i.chunks[0].stored = 0),
        ("a piece of nothing", |i| i.chunks[0].size = 0),
        ("a piece that grows too far", |i| i.chunks[0].size = BLOCK + 1),
        ("a frame larger than what is in it", |i| i.chunks[0].stored = 65536 + 256 + 1025),
    ];
    for (what, spoil) in spoils {
        let mut index = sample();
        spoil(&mut index);
        assert!(Index::parse(&index.canonical()).is_err(), "{what}");
    }
    let many = |count: usize| Index {
        files: (0..count).map(|n| file(&format!("docs/{n:06}"), 0, &[])).collect(),
        ..Index::new(1, "1", None)
    };
    assert!(Index::parse(&many(NAMES_MAX).canonical()).is_ok());
    assert!(Index::parse(&many(NAMES_MAX + 1).canonical()).is_err());
}

#[test]
fn only_canonical_octets_are_taken() {
    let text = String::from_utf8(sample().canonical()).unwrap();
    for other in [
        format!("{text}\n"),
        text.replacen(r#","number""#, r#", "number""#, 1),
        text.replacen("0b0b", "0B0b", 1),
        text.replacen("0b0b", "+b0b", 1),
        text.replacen(r#""number":7"#, r#""number":7,"extra":1"#, 1),
        text.replacen(r#""number":7"#, r#""number":7,"number":7"#, 1),
        text.replacen(r#""number":7"#, r#""number":7,"base":null"#, 1),
    ] {
        assert_ne!(other, text);
        assert!(Index::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn a_delta_says_what_it_lacks() {
    let mut index = sample();
    index.base = Some(Base { number: 6, index: hash(9) });
    index.blocks.truncate(1);
    let index = Index::parse(&index.canonical()).unwrap();
    assert_eq!(index.foreign_blocks(), BTreeMap::from([(hash(11), 5)]));
}

/// A manifest of three chunks, of which the second is a hole.
fn manifest(first: u8) -> Manifest {
    let text = format!(
        concat!(
            r#"{{"format":"billet-image/1","name":"tiny","version":"1","architecture":"x86_64","firmware":["uefi"],"#,
            r#""partition_table":"gpt","raw_size":131584,"sha256":"{zero}","minimum_disk":131584,"default_user":null,"#,
            r#""chunk_size":65536,"chunks":[{{"id":"{first}","probe":[0,1]}},null,{{"id":"{last}","probe":[0,2]}}]}}"#
        ),
        zero = hash(0),
        first = hash(first),
        last = hash(21),
    );
    Manifest::parse(text.as_bytes()).unwrap()
}

#[test]
fn manifests_and_chunks_fit_together() {
    let index = |chunks: &[Piece]| Index { chunks: chunks.to_vec(), ..sample() };
    let both = [piece(20, 65536), piece(21, 512)];
    let wanted = index(&both).wanted([&manifest(20)]).unwrap();
    assert_eq!(wanted.len(), 2);
    assert_eq!(wanted[&ChunkId(hash(21))].size, 512);
    let missing = index(&both[..1]).wanted([&manifest(20)]);
    assert!(matches!(missing, Err(IndexError::Missing { id, .. }) if id == hash(21)));
    let stray = index(&[both[0], both[1], piece(22, 5)]).wanted([&manifest(20)]);
    assert!(matches!(stray, Err(IndexError::Stray(id)) if id == hash(22)));
    let sized = index(&[both[0], piece(21, 511)]).wanted([&manifest(20)]);
    assert!(matches!(sized, Err(IndexError::Invalid(_))));
    // The last chunk of one is a whole chunk of the other.
    let disagree = index(&both).wanted([&manifest(20), &manifest(21)]);
    assert!(matches!(disagree, Err(IndexError::Invalid(_))));
    let delta = Index { base: Some(Base { number: 1, index: hash(0) }), ..index(&both[..1]) };
    assert!(delta.wanted([&manifest(20)]).is_ok(), "the rest is in the base");
}

proptest! {
    #[test]
    fn no_octets_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut octets = sample().canonical();
        for (at, octet) in edits {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if let Ok(index) = Index::parse(&octets) {
            prop_assert_eq!(index.canonical(), octets);
        }
    }
}
