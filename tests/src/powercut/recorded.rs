//! A medium in memory that logs what it is told, for the writer of volumes (crate `imaging`), which the server and `billet-blk` share.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imaging::Medium;

use super::{Disk, Entry, Log};

/// A disk and its log.
#[derive(Debug)]
pub struct Recorder {
    size: u64,
    state: Mutex<(Disk, Log)>,
}

impl Recorder {
    /// A disk with these octets, and an empty log.
    pub fn new(bytes: Vec<u8>) -> Self {
        let size = bytes.len() as u64;
        Self { size, state: Mutex::new((Disk::new(bytes), Log::default())) }
    }

    /// What the disk holds, and how it came to.
    pub fn into_parts(self) -> (Disk, Log) {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, (Disk, Log)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<Range<usize>> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(offset as usize..end as usize)
    }
}

impl Medium for Recorder {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, into.len())?;
        into.copy_from_slice(&self.lock().0.bytes()[range]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.range(offset, from.len())?;
        let mut state = self.lock();
        state.0.write(offset, from);
        state.0.settle();
        state.1.0.push(Entry::Write { offset, data: from.into() });
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.write_at(range.start, &vec![0; (range.end - range.start) as usize])
    }

    fn flush(&self) -> io::Result<()> {
        self.lock().1.0.push(Entry::Flush);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use images::manifest::{self, Architecture, Probe};
    use images::{ChunkRef, Manifest, PartitionTable, chunk};
    use imaging::{Chunks, Image, ImagingError, Progress, Watch, write};
    use protocol::ChunkId;

    use super::super::judge::tests::whole;
    use super::*;
    use crate::powercut::{Complete, Depth, Judge, search};

    const MIB: usize = 1 << 20;

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

    fn manifest(raw: &[u8]) -> Manifest {
        let chunk = |bytes: &[u8]| {
            chunk::probe(bytes).map(|_| ChunkRef { id: ChunkId(chunk::sha256(bytes)), probe: Probe(0, 0) })
        };
        Manifest {
            format: manifest::FORMAT.to_owned(),
            name: "test".to_owned(),
            version: "1".to_owned(),
            architecture: Architecture::X86_64,
            firmware: BTreeSet::new(),
            partition_table: PartitionTable::None,
            raw_size: raw.len() as u64,
            sha256: chunk::sha256(raw),
            minimum_disk: raw.len() as u64,
            default_user: None,
            datasource: None,
            chunk_size: MIB as u32,
            chunks: raw.chunks(MIB).map(chunk).collect(),
        }
    }

    /// The writer that the server and a DPU use: no cut leaves a volume that boots and is not whole.
    #[test]
    fn the_writer_of_volumes_survives_every_cut() {
        let raw = whole();
        let disk = Recorder::new(vec![0xee; raw.len()]);
        let manifest = manifest(&raw);
        let source = Raw(raw.clone());
        let image =
            Image { manifest: &manifest, chunks: &source, config: None, grow_root: false, encrypted: false };
        write(&disk, &image, &Silent).unwrap();
        let (disk, log) = disk.into_parts();
        assert!(disk.bytes() == raw, "the image is on the disk");
        // Before the first write there is whatever somebody left; that it looks bootable is not the writer's doing.
        let judge = Judge::new(vec![
            Complete { name: "new", bytes: raw.clone() },
            Complete { name: "old", bytes: vec![0xee; raw.len()] },
        ]);
        let mut disk = Disk::new(vec![0xee; raw.len()]);
        let report = search(&mut disk, &log, &judge, Depth::whole(3), &mut |_, _, _| ());
        assert_eq!(report.incomplete, 0, "{report}: {:?}", report.shown);
        assert!(report.complete > 1 && report.dark > 10 && report.torn > 50, "{report}");
    }
}
