//! Real images of `qemu-img`, and what becomes of them when bits flip.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::scratch::{Scratch, noise};

/// Runs `qemu-img`; false where there is none.
fn qemu_img(args: &[&str]) -> bool {
    match Command::new("qemu-img").args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(e) => {
            println!("skipped: qemu-img does not run here: {e}");
            false
        }
    }
}

/// A disk of `len` bytes with noise, text, zeros and holes in runs of odd lengths.
fn sparse_disk(seed: u64, len: usize) -> Vec<u8> {
    let mut disk = vec![0; len];
    let dice = noise(seed, 4096);
    let (mut at, mut i) = (0, 0);
    while at < len && i + 2 < dice.len() {
        let run = (usize::from(dice[i]) * 523 + usize::from(dice[i + 1])).max(1).min(len - at);
        match dice[i + 2] % 4 {
            0 => disk[at..at + run].copy_from_slice(&noise(seed + i as u64, run)),
            1 => disk[at..at + run].iter_mut().enumerate().for_each(|(n, b)| *b = (n % 61) as u8),
            _ => {}
        }
        at += run;
        i += 3;
    }
    disk
}

fn convert(dir: &Path, disk: &[u8], args: &[&str]) -> Option<PathBuf> {
    let raw = dir.join("disk.raw");
    std::fs::write(&raw, disk).unwrap();
    let out = dir.join("disk.qcow2");
    let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
    all.extend(args);
    all.extend([raw.to_str().unwrap(), out.to_str().unwrap()]);
    qemu_img(&all).then_some(out)
}

/// All of a disk, in reads of `chunk` bytes; holes as zeros over what was in the buffer.
fn read_all<R: Read + Seek + Send>(file: R, chunk: usize) -> Result<Vec<u8>, ReadError> {
    let mut disk = Qcow2::open(file)?;
    let mut bytes = Vec::new();
    let mut buf = vec![0xcc; chunk];
    loop {
        let piece = disk.read_chunk(&mut buf)?;
        match piece {
            Piece::Data(n) => bytes.extend_from_slice(&buf[..n]),
            Piece::Hole(n) => bytes.resize(bytes.len() + n, 0),
        }
        if piece.len() < chunk {
            return Ok(bytes);
        }
        buf.fill(0xcc);
    }
}

#[test]
fn what_qemu_img_writes_reads_the_same() {
    let options: [&[&str]; 12] = [
        &["-o", "compat=0.10"],
        &["-o", "compat=1.1"],
        &["-o", "compat=1.1,cluster_size=512"],
        &["-o", "compat=0.10,cluster_size=4096"],
        &["-o", "cluster_size=2M"],
        &["-c", "-o", "compat=0.10"],
        &["-c", "-o", "compat=1.1,cluster_size=4096"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-o", "preallocation=metadata"],
        &["-o", "refcount_bits=1,lazy_refcounts=on"],
    ];
    for (seed, options) in (1..).zip(options) {
        let dir = Scratch::new();
        // The last one ends within a cluster.
        let disk = sparse_disk(seed, (9 << 20) + 512 * usize::try_from(seed).unwrap());
        let Some(path) = convert(dir.path(), &disk, options) else { return };
        for chunk in [65536, 4 << 20] {
            let read = read_all(std::fs::File::open(&path).unwrap(), chunk).unwrap();
            assert!(read == disk, "{options:?} in reads of {chunk}");
        }
    }
}

#[test]
fn an_image_written_in_place_reads_the_same() {
    let dir = Scratch::new();
    let path = dir.path().join("disk.qcow2");
    let name = path.to_str().unwrap();
    if !qemu_img(&["create", "-f", "qcow2", name, "20M"]) {
        return;
    }
    let script = "write -P 0x11 1000448 70144;write -P 0x22 5M 1M;write -z 5242880 131072;discard 6M 64k;write -P 0x33 20971008 512";
    let mut io = Command::new("qemu-io");
    io.args(["-f", "qcow2"]);
    for command in script.split(';') {
        io.args(["-c", command]);
    }
    match io.arg(name).output() {
        Err(e) => return println!("skipped: qemu-io does not run here: {e}"),
        Ok(output) => assert!(output.status.success()),
    }
    let mut disk = vec![0; 20 << 20];
    disk[1_000_448..][..70_144].fill(0x11);
    disk[5 << 20..6 << 20].fill(0x22);
    disk[5 << 20..][..131_072].fill(0);
    disk[20_971_008..].fill(0x33);
    assert!(read_all(std::fs::File::open(&path).unwrap(), 1 << 20).unwrap() == disk);
    // An internal snapshot keeps old clusters, and changes nothing.
    assert!(qemu_img(&["snapshot", "-c", "before", name]));
    assert!(read_all(std::fs::File::open(&path).unwrap(), 1 << 20).unwrap() == disk);
}

#[test]
fn holes_are_told_without_reading() {
    let dir = Scratch::new();
    let path = dir.path().join("disk.qcow2");
    if !qemu_img(&["create", "-f", "qcow2", path.to_str().unwrap(), "100G"]) {
        return;
    }
    let mut disk = Qcow2::open(std::fs::File::open(&path).unwrap()).unwrap();
    let mut buf = vec![0; 4 << 20];
    let mut chunks = 0;
    while disk.read_chunk(&mut buf).unwrap() == Piece::Hole(4 << 20) {
        chunks += 1;
    }
    assert_eq!(chunks, 25_600);
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let dir = Scratch::new();
    let (base, image) = (dir.path().join("base.qcow2"), dir.path().join("image.qcow2"));
    let (base, image) = (base.to_str().unwrap(), image.to_str().unwrap());
    if !qemu_img(&["create", "-f", "qcow2", base, "1M"]) {
        return;
    }
    let refused = |expected: Qcow2Error| {
        let error = Qcow2::open(std::fs::File::open(image).unwrap()).err().unwrap();
        assert_eq!(error.to_string(), expected.to_string());
    };
    qemu_img(&["create", "-f", "qcow2", "-b", base, "-F", "qcow2", image]);
    refused(Qcow2Error::BackingFile);
    let data = format!("data_file={}/data.raw", dir.path().display());
    qemu_img(&["create", "-f", "qcow2", "-o", &data, image, "1M"]);
    refused(Qcow2Error::ExternalData);
    qemu_img(&["create", "-f", "qcow2", "-o", "extended_l2=on", image, "1M"]);
    refused(Qcow2Error::ExtendedL2);
    // qemu-img measures the CPU before it encrypts, and gives up on a busy one; the field says it as well: crypt_method,
    // offset 32, 2 = LUKS (docs/interop/qcow2.txt).
    qemu_img(&["create", "-f", "qcow2", image, "1M"]);
    let mut bytes = std::fs::read(image).unwrap();
    bytes[32..36].copy_from_slice(&2u32.to_be_bytes());
    std::fs::write(image, bytes).unwrap();
    refused(Qcow2Error::Encrypted);
}

#[test]
fn a_cut_file_and_a_longer_file_are_refused() {
    for options in [&["-o", "compat=1.1"][..], &["-c"], &["-c", "-o", "compression_type=zstd"]] {
        let dir = Scratch::new();
        let disk = sparse_disk(3, 4 << 20);
        let Some(path) = convert(dir.path(), &disk, options) else { return };
        let whole = std::fs::read(&path).unwrap();
        for cut in [1, 1000, 70_000, whole.len() / 2, whole.len() - 100] {
            match read_all(Cursor::new(&whole[..whole.len() - cut]), 1 << 20) {
                Err(error) => assert!(matches!(error, ReadError::Qcow2(_)), "{options:?} -{cut}: {error}"),
                // What qemu-img fills the last sector up with.
                Ok(read) => assert!(cut < 512 && read == disk, "{options:?} cut by {cut}"),
            }
        }
        let longer = [&whole[..], &[0; 1 << 20]].concat();
        let error = read_all(Cursor::new(longer), 1 << 20).err().unwrap();
        assert!(matches!(error, ReadError::Qcow2(Qcow2Error::TrailingData { .. })), "{error}");
    }
}

/// Small images to break: plain, deflate, zstd. Empty without `qemu-img`.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let options: [&[&str]; 3] = [
            &["-o", "cluster_size=512"],
            &["-c", "-o", "cluster_size=1024"],
            &["-c", "-o", "compression_type=zstd,cluster_size=1024"],
        ];
        let disk = sparse_disk(5, 100 << 10);
        let make = |options: &&[&str]| {
            let dir = Scratch::new();
            convert(dir.path(), &disk, options).map(|path| std::fs::read(path).unwrap())
        };
        options.iter().filter_map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is written over an image: an error or a disk of the size the header says, and no panic.
    #[test]
    fn a_broken_image_never_panics(
        which in 0_usize..3,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<[u8; 8]>(), 1_usize..=8, any::<bool>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        if let Some(image) = samples().get(which) {
            let mut image = image.clone();
            for (at, bytes, len, early) in edits {
                // Half of them go where the tables are.
                let room = if early { 4096.min(image.len()) } else { image.len() };
                let at = at.index(room);
                let len = len.min(image.len() - at);
                image[at..at + len].copy_from_slice(&bytes[..len]);
            }
            if let Some(cut) = cut {
                image.truncate(cut.index(image.len()));
            }
            read_bounded(&image);
        }
    }

    /// Single table entries replaced by likely ones.
    #[test]
    fn a_wrong_entry_never_panics(which in 0_usize..3, slot: prop::sample::Index, entry: u64, flags in 0_u64..4) {
        if let Some(image) = samples().get(which) {
            let mut image = image.clone();
            let at = slot.index(image.len() / 8) * 8;
            let near = (entry % (image.len() as u64 * 2)) & !511;
            image[at..at + 8].copy_from_slice(&(near | flags << 62).to_be_bytes());
            read_bounded(&image);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_bounded(&[b"QFI\xfb\0\0\0\x03".as_slice(), &bytes].concat());
    }
}

/// Reads an image for at most 64 MiB.
fn read_bounded(image: &[u8]) {
    let Ok(mut disk) = Qcow2::open(Cursor::new(image)) else { return };
    let size = disk.size().unwrap();
    let mut buf = vec![0; 1 << 20];
    let mut read = 0;
    for _ in 0..64 {
        match disk.read_chunk(&mut buf) {
            Err(_) => return,
            Ok(piece) => {
                read += piece.len() as u64;
                if piece.len() < buf.len() {
                    assert_eq!(read, size);
                    return;
                }
            }
        }
    }
}
