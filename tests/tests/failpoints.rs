//! Every failpoint is walked: the server dies at each of its own under load, the agent at each of its own while it writes, the writer
//! of volumes likewise. Nothing is lost, and no disk boots that is not whole.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use failpoint::Point;
use images::manifest::{FORMAT, Probe};
use images::{Architecture, ChunkRef, Manifest, PartitionTable, chunk};
use imaging::{Chunks, FileMedium, Image, ImagingError, Progress, Watch};
use protocol::ChunkId;
use tests::chaos::{Plan, Store};
use tests::powercut::{Complete, Disk, Judge, Verdict};
use tests::rack::{source_root, target};

const MIB: usize = 1 << 20;
/// Says to the child where its disk is.
const CHILD: &str = "BILLET_TEST_CHILD_DISK";

#[test]
fn a_server_that_dies_at_any_of_its_points_loses_nothing() -> Result<()> {
    let plan = Plan { seed: 3, rounds: 0, store: Store::Sqlite };
    let (report, missed) = plan.walk(&target().join("chaos/walk"))?;
    println!("{report}");
    ensure!(report.is_clean(), "{:#?}", report.wrong);
    ensure!(missed.is_empty(), "nothing led to {missed:?}");
    Ok(())
}

/// A point that is in the catalogue and nowhere in the programs proves nothing, and one that is there twice is no place.
#[test]
fn every_point_is_in_the_programs_once() -> Result<()> {
    let mut text = String::new();
    for root in ["boot-server/src", "images/src", "ramdisk-agent/src", "ramdisk-agent/imaging/src"] {
        read_all(&source_root().join(root), &mut text)?;
    }
    let mut seen = BTreeSet::new();
    for point in Point::ALL {
        let variant = format!("Point::{point:?}");
        let uses = text
            .match_indices(&variant)
            .filter(|(at, _)| !text[at + variant.len()..].starts_with(|c: char| c.is_ascii_alphanumeric()));
        ensure!(uses.count() == 1, "{variant} is not used once");
        seen.insert(point.name());
    }
    ensure!(seen.len() == Point::ALL.len() && seen.len() > 30, "{} points", seen.len());
    Ok(())
}

fn read_all(dir: &Path, into: &mut String) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, into)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

/// A disk image of 8 MiB, some of it holes.
fn raw() -> Vec<u8> {
    let mut raw = tests::site::disk_with_gpt();
    for mib in [3, 4, 6] {
        raw[mib * MIB..(mib + 1) * MIB]
            .iter_mut()
            .zip(1_usize..)
            .for_each(|(b, n)| *b = (n * mib % 251) as u8 | 1);
    }
    raw
}

struct Raw(Vec<u8>);

impl Chunks for Raw {
    fn chunk(
        &self,
        index: usize,
        _: ChunkId,
        _: &mut zstd::bulk::Decompressor<'_>,
        raw: &mut [u8],
        _: &dyn Fn() -> bool,
    ) -> Result<(), ImagingError> {
        raw.copy_from_slice(&self.0[index * MIB..index * MIB + raw.len()]);
        Ok(())
    }
}

struct Silent;

impl Watch for Silent {
    fn tell(&self, _: Progress) {}
}

fn write_volume(path: &Path) -> Result<()> {
    let raw = raw();
    let chunk = |bytes: &[u8]| {
        chunk::probe(bytes).map(|_| ChunkRef { id: ChunkId(chunk::sha256(bytes)), probe: Probe(0, 0) })
    };
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        name: "test".to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::X86_64,
        firmware: BTreeSet::new(),
        partition_table: PartitionTable::None,
        raw_size: raw.len() as u64,
        sha256: chunk::sha256(&raw),
        minimum_disk: raw.len() as u64,
        default_user: None,
        datasource: None,
        chunk_size: MIB as u32,
        chunks: raw.chunks(MIB).map(chunk).collect(),
    };
    let (medium, chunks) = (FileMedium::open(path)?, Raw(raw));
    let image =
        Image { manifest: &manifest, chunks: &chunks, config: None, grow_root: false, encrypted: false };
    imaging::write(&medium, &image, &Silent)?;
    Ok(())
}

/// What [`a_writer_of_volumes_that_dies_at_any_of_its_points_leaves_none_that_boots_half`] starts; by itself it does nothing.
#[test]
fn child_that_writes_a_volume() -> Result<()> {
    match std::env::var_os(CHILD) {
        Some(path) => write_volume(Path::new(&path)),
        None => Ok(()),
    }
}

#[test]
fn a_writer_of_volumes_that_dies_at_any_of_its_points_leaves_none_that_boots_half() -> Result<()> {
    let dir = folder("imaging")?;
    let disk = dir.join("disk");
    let judge = Judge::new(vec![Complete { name: "new", bytes: raw() }]);
    let run = |failpoints: &str| -> Result<std::process::ExitStatus> {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--exact", "child_that_writes_a_volume"]).env(CHILD, &disk);
        child.env(failpoint::VARIABLE, failpoints).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(child.status()?)
    };
    let points: Vec<_> = Point::ALL.iter().filter(|point| point.name().starts_with("imaging.")).collect();
    ensure!(!points.is_empty(), "nothing was walked");
    for point in points {
        fs::write(&disk, vec![0; 8 * MIB])?;
        let died = run(&format!("{}=kill@1", point.name()))?;
        ensure!(died.signal() == Some(6), "{} was not come to: {died}", point.name());
        let verdict = judge.judge(&Disk::read(&disk)?);
        ensure!(!matches!(verdict, Verdict::Incomplete(_)), "{}: {verdict:?}", point.name());
        ensure!(!run(&format!("{}=eio@1", point.name()))?.success(), "{} does not fail", point.name());
        let verdict = judge.judge(&Disk::read(&disk)?);
        ensure!(!matches!(verdict, Verdict::Incomplete(_)), "{}: {verdict:?}", point.name());
        ensure!(run("")?.success(), "it is not written again");
        ensure!(judge.judge(&Disk::read(&disk)?) == Verdict::Complete("new"));
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn folder(name: &str) -> Result<PathBuf> {
    let dir = target().join("failpoints").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}
