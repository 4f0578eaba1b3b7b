//! An image into a disk in memory: whole, bootable last, and never half.

use std::collections::BTreeSet;
use std::io::{self, Cursor};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use images::manifest::{self, Architecture, Probe};
use images::{ChunkRef, Manifest, PartitionTable, chunk};
use protocol::ChunkId;
use protocol::job::CloudConfig;
use zstd::bulk::Decompressor;

use super::*;

const MIB: usize = 1 << 20;
/// Bytes of a chunk of the image.
const CHUNK: usize = MIB;
/// Bytes of the disk.
const DISK: usize = 40 * MIB;

/// A disk whose `left`-th change fails, half done.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    left: AtomicUsize,
    lies: bool,
}

impl Memory {
    /// With what somebody else left on it.
    fn new() -> Self {
        Self { bytes: Mutex::new(vec![0xee; DISK]), left: AtomicUsize::new(usize::MAX), lies: false }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dies(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    fn put(&self, offset: u64, from: &[u8]) {
        self.lock()[offset as usize..offset as usize + from.len()].copy_from_slice(from);
    }
}

impl Medium for Memory {
    fn size(&self) -> u64 {
        DISK as u64
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.lock()[offset as usize..offset as usize + into.len()]);
        if self.lies && offset as usize == 4 * MIB {
            into[7] ^= 1;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        if self.dies() {
            self.put(offset, &from[..from.len() / 1024 * 512]);
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.put(offset, from);
        Ok(())
    }
    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.lock()[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        if self.dies() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// The image's bytes, of which one chunk may be refused.
struct Raw(Vec<u8>, Option<usize>);

impl Chunks for Raw {
    fn chunk(
        &self,
        index: usize,
        _id: ChunkId,
        _decompressor: &mut Decompressor<'_>,
        raw: &mut [u8],
        _is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), ImagingError> {
        if self.1 == Some(index) {
            return Err(ImagingError::Refused(format!("chunk {index} has other bytes")));
        }
        raw.copy_from_slice(&self.0[index * CHUNK..index * CHUNK + raw.len()]);
        Ok(())
    }
}

struct Silent;

impl Watch for Silent {
    fn tell(&self, _: Progress) {}
}

/// 16 MiB with a GPT by the crate `gpt`, and some bytes in its only partition.
fn image() -> (Vec<u8>, Manifest) {
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut disk = config.create_from_device(Cursor::new(vec![0; 16 * MIB]), None).unwrap();
    disk.add_partition("root", 12 << 20, gpt::partition_types::LINUX_FS, 0, Some(2048)).unwrap();
    let mut raw = disk.write().unwrap().into_inner();
    // The crate writes no protective MBR; its signature is what a first sector needs here.
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    raw[4 * MIB..6 * MIB].iter_mut().zip(0_usize..).for_each(|(byte, at)| *byte = (at % 251) as u8 | 1);
    let chunk = |bytes: &[u8]| {
        chunk::probe(bytes).map(|_| ChunkRef { id: ChunkId(chunk::sha256(bytes)), probe: Probe(0, 0) })
    };
    let manifest = Manifest {
        format: manifest::FORMAT.to_owned(),
        name: "test".to_owned(),
        version: "1".to_owned(),
        architecture: Architecture::X86_64,
        firmware: BTreeSet::new(),
        partition_table: PartitionTable::Gpt,
        raw_size: raw.len() as u64,
        sha256: chunk::sha256(&raw),
        minimum_disk: raw.len() as u64,
        default_user: None,
        datasource: None,
        chunk_size: CHUNK as u32,
        chunks: raw.chunks(CHUNK).map(chunk).collect(),
    };
    (raw, manifest)
}

fn config() -> CloudConfig {
    CloudConfig { meta_data: "local-hostname: db1\n".into(), ..CloudConfig::default() }
}

fn put(disk: &Memory, raw: &Raw, manifest: &Manifest, encrypted: bool) -> Result<Written, ImagingError> {
    let config = config();
    let image = Image { manifest, chunks: raw, config: Some(&config), grow_root: true, encrypted };
    write(disk, &image, &Silent)
}

/// What a machine looks at first when it boots: without its first sector a disk has neither boot code nor a table that counts.
fn boots(disk: &Memory) -> bool {
    disk.lock()[..512].iter().any(|byte| *byte != 0)
}

#[test]
fn an_image_is_on_the_disk_whole_and_nothing_else_is() {
    let (bytes, manifest) = image();
    let raw = Raw(bytes, None);
    let disk = Memory::new();
    let written = put(&disk, &raw, &manifest, false).unwrap();
    assert!(written.grown.is_some() && written.verified > 4 << 20, "{written:?}");
    let there = disk.lock().clone();
    assert!(there[MIB..16 * MIB] == raw.0[MIB..16 * MIB], "between the ends it is the image");
    // One octet of an id or a checksum may be the same by chance.
    assert!(!there.windows(16).any(|part| part == [0xee; 16]), "what was there before is gone");
    let text = b"local-hostname: db1";
    assert!(there[16 * MIB..].windows(text.len()).any(|part| part == text), "the config partition");

    // Behind an encrypted one's image nothing that was there before can be read anyway.
    let disk = Memory::new();
    put(&disk, &raw, &manifest, true).unwrap();
    assert!(disk.lock()[20 * MIB..30 * MIB].iter().all(|byte| *byte == 0xee));
}

#[test]
fn wherever_it_dies_the_disk_does_not_boot_and_done_again_it_does() {
    let (bytes, manifest) = image();
    let raw = Raw(bytes, None);
    let mut died = 0;
    for left in 2.. {
        let disk = Memory::new();
        disk.left.store(left, Ordering::Relaxed);
        // The last change is the flush of the first MiB: what is there then is whole.
        let is_whole = match put(&disk, &raw, &manifest, false) {
            Ok(_) => break,
            Err(error) => {
                assert!(matches!(error, ImagingError::Io { .. }), "{error}");
                disk.lock()[4 * MIB..6 * MIB] == raw.0[4 * MIB..6 * MIB]
            }
        };
        assert!(!boots(&disk) || is_whole, "change {left}");
        died += 1;
        disk.left.store(usize::MAX, Ordering::Relaxed);
        put(&disk, &raw, &manifest, false).unwrap();
        assert!(boots(&disk));
    }
    assert!(died > 6, "{died}");
}

#[test]
fn a_wrong_chunk_and_a_disk_that_lies_are_refused() {
    let (bytes, manifest) = image();
    let disk = Memory::new();
    let error = put(&disk, &Raw(bytes.clone(), Some(5)), &manifest, false).unwrap_err();
    assert!(error.to_string().contains("chunk 5 has other bytes") && !boots(&disk), "{error}");
    let disk = Memory { lies: true, ..Memory::new() };
    let error = put(&disk, &Raw(bytes.clone(), None), &manifest, false).unwrap_err();
    assert!(matches!(error, ImagingError::Differs(at) if at == 4 << 20) && !boots(&disk), "{error}");
    let small = Manifest { minimum_disk: 1 << 40, ..manifest };
    assert!(matches!(put(&Memory::new(), &Raw(bytes, None), &small, false), Err(ImagingError::Refused(_))));
}
