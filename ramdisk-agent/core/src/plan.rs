//! From what a job wants and what the machine has to what will be written: all checks that can be made before the
//! first byte. Anything ambiguous is refused.

use std::ops::Range;

use images::{Manifest, PartitionTable};
use protocol::fault::{Fault, FaultCode};
use protocol::inventory::Disk;
use protocol::job::{DeploySpec, DiskTarget};
use serde::Serialize;

use crate::edges::{EDGE, Edges};
use crate::gpt;

/// Room that the config partition and the backup table need behind the image, in bytes.
pub const CONFIG_ROOM: u64 = gpt::CONFIG_SIZE + 2 * EDGE;
/// Longest hole that is zeroed in one call, in bytes: an abort is noticed between two.
const HOLE_PIECE: u64 = 1 << 30;

/// What a deploy will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WritePlan {
    /// The disk to write.
    pub disk: Disk,
    /// Every other disk, in words for people: these are not touched.
    pub untouched: Vec<String>,
    /// Doubts that do not forbid the write.
    pub warnings: Vec<String>,
    /// Chunks that hold data.
    pub data_chunks: u64,
    /// Raw bytes in them.
    pub data_bytes: u64,
    /// Ranges of the disk to zero, without the edges; each at most 1 GiB.
    pub holes: Vec<Range<u64>>,
}

/// Plans a deploy.
///
/// # Errors
/// The first reason why the disk must not or cannot be written.
pub fn deploy(spec: &DeploySpec, manifest: &Manifest, disks: &[Disk]) -> Result<WritePlan, Fault> {
    let disk = find(&spec.target, disks)?;
    let mut plan = for_disk(manifest, disk, spec.config.is_some())?;
    if spec.target.id.is_weak() {
        plan.warnings.push(format!(
            "{} reports no serial number and no WWN; it is known only by the slot it is in",
            describe(disk)
        ));
    }
    plan.untouched = disks.iter().filter(|d| d.name != disk.name).map(describe).collect();
    Ok(plan)
}

/// Plans a write to this very disk, with a config partition or without.
///
/// # Errors
/// Where the image cannot be written to it.
pub fn for_disk(manifest: &Manifest, disk: &Disk, config: bool) -> Result<WritePlan, Fault> {
    let edges = check_size(manifest, disk)?;
    check_sectors(manifest, disk)?;
    if config {
        check_config(manifest, disk)?;
    }
    Ok(WritePlan {
        disk: disk.clone(),
        untouched: Vec::new(),
        warnings: Vec::new(),
        data_chunks: manifest.chunks.iter().filter(|c| c.is_some()).count() as u64,
        data_bytes: manifest.data_bytes(),
        holes: holes(manifest, edges),
    })
}

/// The one disk that is meant, if it may be written at all.
///
/// # Errors
/// Where none or several match, or the match is read-only or removable.
pub fn find<'a>(target: &DiskTarget, disks: &'a [Disk]) -> Result<&'a Disk, Fault> {
    let named: Vec<_> = disks.iter().filter(|d| d.id.as_ref() == Some(&target.id)).collect();
    let there = || disks.iter().map(describe).collect::<Vec<_>>().join(", ");
    let disk = match named.as_slice() {
        [one] if one.size_bytes == target.size_bytes => *one,
        [] => {
            return Err(Fault::new(
                FaultCode::DiskNotFound,
                format!("no disk answers to {}; there are: {}", target.id, there()),
                "check that the disk is seated, or inspect the node again and choose another disk",
            ));
        }
        [other] => {
            return Err(Fault::new(
                FaultCode::DiskNotFound,
                format!("{} has {} bytes, the job says {}", target.id, other.size_bytes, target.size_bytes),
                "the disk was exchanged since the inspection; inspect the node again",
            ));
        }
        many => {
            return Err(Fault::new(
                FaultCode::DiskNotFound,
                format!("{} disks answer to {}: {}", many.len(), target.id, there()),
                "two disks must not have one name; remove one, or use multipath-free cabling",
            ));
        }
    };
    let refuse = |why: &str, hint: &str| {
        Err(Fault::new(FaultCode::DiskRefused, format!("{} is {why}", describe(disk)), hint))
    };
    if disk.read_only {
        return refuse("write protected", "lift the write protection of the drive");
    }
    if disk.removable {
        return refuse("removable", "an OS is not written to removable media; choose a fixed disk");
    }
    Ok(disk)
}

/// A disk in words: serial, model, size, kernel name.
pub fn describe(disk: &Disk) -> String {
    let id = disk.id.as_ref().map_or("no id", |id| id.label());
    let gib = disk.size_bytes as f64 / (1u64 << 30) as f64;
    let model = disk.model.as_deref().unwrap_or("disk");
    format!("{id} ({model}, {gib:.1} GiB, {})", disk.name)
}

fn check_size(manifest: &Manifest, disk: &Disk) -> Result<Edges, Fault> {
    let small = |needs: u64| {
        Fault::new(
            FaultCode::DiskTooSmall,
            format!(
                "{} has {} bytes, {} {} needs {needs}",
                describe(disk),
                disk.size_bytes,
                manifest.name,
                manifest.version
            ),
            "choose a larger disk or a smaller image",
        )
    };
    if disk.size_bytes < manifest.minimum_disk {
        return Err(small(manifest.minimum_disk));
    }
    Edges::of(disk.size_bytes).ok_or_else(|| small(4 * EDGE))
}

fn check_sectors(manifest: &Manifest, disk: &Disk) -> Result<(), Fault> {
    let table = manifest.partition_table != PartitionTable::None;
    let sector = u64::from(disk.logical_sector.max(1));
    if (table && sector != gpt::SECTOR) || !manifest.raw_size.is_multiple_of(sector) {
        return Err(Fault::new(
            FaultCode::DiskRefused,
            format!("{} has logical sectors of {sector} bytes, the image is made for 512", describe(disk)),
            "format the drive to 512-byte sectors, or choose another disk",
        ));
    }
    Ok(())
}

fn check_config(manifest: &Manifest, disk: &Disk) -> Result<(), Fault> {
    if manifest.partition_table != PartitionTable::Gpt {
        return Err(Fault::new(
            FaultCode::Customise,
            format!("{} {} has no GPT to add a config partition to", manifest.name, manifest.version),
            "deploy this image without user, keys and user data, or use an image with a GPT",
        ));
    }
    if disk.size_bytes < manifest.raw_size.saturating_add(CONFIG_ROOM) {
        return Err(Fault::new(
            FaultCode::DiskTooSmall,
            format!(
                "{} has {} bytes; the image and its config partition need {}",
                describe(disk),
                disk.size_bytes,
                manifest.raw_size.saturating_add(CONFIG_ROOM)
            ),
            "choose a larger disk or a smaller image",
        ));
    }
    Ok(())
}

/// Runs of holes, cut at the edges and into pieces.
fn holes(manifest: &Manifest, edges: Edges) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (index, _) in manifest.chunks.iter().enumerate().filter(|(_, c)| c.is_none()) {
        let start = manifest.chunk_offset(index);
        let end = start + manifest.chunk_len(index) as u64;
        match runs.last_mut() {
            Some(last) if last.end == start && end - last.start <= HOLE_PIECE => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs.into_iter().map(|r| edges.split(r).body).filter(|r| !r.is_empty()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use images::manifest::{ChunkRef, Probe};
    use images::{Architecture, Firmware};
    use proptest::prelude::*;
    use protocol::inventory::{DiskContent, Transport};
    use protocol::{ChunkId, DiskId, ImageId, Sha256};
    use std::collections::BTreeSet;

    pub(crate) fn disk(name: &str, serial: &str, size_bytes: u64) -> Disk {
        Disk {
            id: DiskId::of(None, Some(serial), None),
            name: name.into(),
            bus_path: None,
            model: Some("M".into()),
            serial: Some(serial.into()),
            wwn: None,
            firmware: None,
            size_bytes,
            logical_sector: 512,
            physical_sector: 512,
            rotational: false,
            transport: Transport::Virtio,
            removable: false,
            read_only: false,
            content: DiskContent::Blank,
        }
    }

    fn manifest(pattern: &[bool]) -> Manifest {
        let chunk = ChunkRef { id: ChunkId(Sha256([1; 32])), probe: Probe(0, 0) };
        let raw_size = pattern.len() as u64 * (4 << 20);
        Manifest {
            format: images::manifest::FORMAT.into(),
            name: "t".into(),
            version: "1".into(),
            architecture: Architecture::X86_64,
            firmware: BTreeSet::from([Firmware::Bios]),
            partition_table: PartitionTable::Gpt,
            raw_size,
            sha256: Sha256([0; 32]),
            minimum_disk: raw_size,
            default_user: None,
            datasource: None,
            chunk_size: 4 << 20,
            chunks: pattern.iter().map(|data| data.then_some(chunk)).collect(),
        }
    }

    fn spec(serial: &str, size_bytes: u64) -> DeploySpec {
        DeploySpec {
            image: ImageId(Sha256([0; 32])),
            image_name: "t 1".into(),
            target: DiskTarget { id: DiskId::of(None, Some(serial), None).unwrap(), size_bytes },
            config: Some(protocol::job::CloudConfig::default()),
            grow_root: true,
            boot_entry: None,
        }
    }

    #[test]
    fn names_one_disk_and_leaves_the_rest() {
        let disks = [disk("sda", "A", 64 << 20), disk("sdb", "B", 64 << 20)];
        let plan = deploy(&spec("B", 64 << 20), &manifest(&[true, false, false, true]), &disks).unwrap();
        assert_eq!(plan.disk.name, "sdb");
        assert_eq!(plan.untouched, ["A (M, 0.1 GiB, sda)"]);
        assert_eq!(plan.holes, vec![Range { start: 4 << 20, end: 12 << 20 }]);
        assert_eq!(plan.data_chunks, 2);
    }

    #[test]
    fn refusals() {
        let m = manifest(&[true; 4]);
        let code = |s: &DeploySpec, d: &[Disk]| deploy(s, &m, d).unwrap_err().code;
        let size = 64 << 20;
        let good = disk("sda", "A", size);
        assert_eq!(code(&spec("X", size), std::slice::from_ref(&good)), FaultCode::DiskNotFound);
        assert_eq!(code(&spec("A", size + 512), std::slice::from_ref(&good)), FaultCode::DiskNotFound);
        assert_eq!(code(&spec("A", size), &[good.clone(), disk("sdb", "A", size)]), FaultCode::DiskNotFound);
        let small = disk("sda", "A", 8 << 20);
        assert_eq!(code(&spec("A", 8 << 20), &[small]), FaultCode::DiskTooSmall);
        let tight = disk("sda", "A", 17 << 20);
        assert_eq!(code(&spec("A", 17 << 20), &[tight]), FaultCode::DiskTooSmall);
        for change in [
            (|d: &mut Disk| d.read_only = true) as fn(&mut Disk),
            |d| d.removable = true,
            |d| d.logical_sector = 4096,
        ] {
            let mut d = good.clone();
            change(&mut d);
            assert_eq!(code(&spec("A", size), &[d]), FaultCode::DiskRefused);
        }
        let no_gpt = Manifest { partition_table: PartitionTable::Mbr, ..m.clone() };
        assert_eq!(deploy(&spec("A", size), &no_gpt, &[good]).unwrap_err().code, FaultCode::Customise);
    }

    proptest! {
        /// Every byte of the image is either a data chunk's, a hole's, or lies in an edge; never two of them.
        #[test]
        fn image_is_covered(pattern in proptest::collection::vec(any::<bool>(), 1..40), extra in 0u64..8) {
            let m = manifest(&pattern);
            let size = m.raw_size + CONFIG_ROOM + extra * 512;
            let plan = deploy(&spec("A", size), &m, &[disk("sda", "A", size)]).unwrap();
            let edges = Edges::of(size).unwrap();
            let data: u64 = pattern.iter().enumerate().filter(|(_, d)| **d).map(|(i, _)| {
                let b = edges.split(m.chunk_offset(i)..m.chunk_offset(i) + m.chunk_len(i) as u64).body;
                b.end - b.start
            }).sum();
            let zero: u64 = plan.holes.iter().map(|r| r.end - r.start).sum();
            let all = edges.split(0..m.raw_size).body;
            prop_assert_eq!(data + zero, all.end - all.start);
        }
    }
}
