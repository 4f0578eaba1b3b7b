//! The layer against a plain array of bytes, over disks that lose what was not made durable.

use std::sync::Arc;

use images::Manifest;
use proptest::prelude::*;
use protocol::ImageId;

use super::*;
use crate::layer::journal::Head;
use crate::layer::map::tests::{CHUNK, manifest_of};

/// Bytes of the volume: four chunks of image, of which one is a hole and one is short, and a piece beyond.
const SIZE: usize = 5 * CHUNK;
const IMAGE: usize = 3 * CHUNK + 4096;
/// Sectors of the volume.
const SECTORS: usize = SIZE / SECTOR as usize;

/// A disk with a cache: what was written and not synced may be lost, sector by sector.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Clone, Default)]
struct Platter {
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl Disk {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { durable: bytes.clone(), now: bytes })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// Each sector keeps what was synced or has what was written last, as `luck` has it.
    fn power_cut(&self, luck: &mut impl FnMut() -> bool) {
        let mut platter = self.platter();
        let Platter { now, durable } = &mut *platter;
        durable.resize(now.len(), 0);
        for (now, durable) in now.chunks_mut(512).zip(durable.chunks_mut(512)) {
            if now != durable {
                if luck() {
                    durable.copy_from_slice(now);
                } else {
                    now.copy_from_slice(durable);
                }
            }
        }
    }

    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.platter().clone())))
    }
}

impl Storage for Disk {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let platter = self.platter();
        let from = platter.now.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let (mut platter, end) = (self.platter(), offset as usize + from.len());
        let len = platter.now.len().max(end);
        platter.now.resize(len, 0);
        platter.now[offset as usize..end].copy_from_slice(from);
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.write_at(&vec![0; (range.end - range.start) as usize], range.start)
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.durable = platter.now.clone();
        Ok(())
    }
}

/// A machine with a volume.
struct Machine {
    image: Vec<u8>,
    manifest: Manifest,
    bytes: Disk,
    journal: Disk,
    boot: u8,
    layer: Layer<Disk>,
}

impl Machine {
    fn new(image: Vec<u8>) -> Self {
        let manifest = manifest_of(&image);
        let (bytes, boot) = (Disk::new(vec![0; SIZE]), 0);
        let journal = Disk::new(head(&manifest, boot).journal(&[]));
        let layer = open(&manifest, &bytes, &journal, boot);
        Self { image, manifest, bytes, journal, boot, layer }
    }

    fn start_again(&mut self) {
        self.layer = open(&self.manifest, &self.bytes, &self.journal, self.boot);
    }

    fn power_cut(&mut self, luck: &mut impl FnMut() -> bool) {
        self.bytes.power_cut(luck);
        self.journal.power_cut(luck);
        self.boot += 1;
        self.start_again();
    }

    fn fetch(&self, layer: &Layer<Disk>, chunk: u32) {
        if let Some(raw) = self.image.chunks(CHUNK).nth(chunk as usize) {
            layer.fill(chunk, raw).unwrap();
        }
    }

    /// All that the guest would read, with everything fetched; of a copy, so that nothing is changed by looking.
    fn content(&self) -> Vec<u8> {
        let (bytes, journal) = (self.bytes.copy(), self.journal.copy());
        let layer = open(&self.manifest, &bytes, &journal, self.boot);
        let missing = layer.state().map.missing_chunks();
        for chunk in missing {
            self.fetch(&layer, chunk);
        }
        let mut content = vec![0; SIZE];
        layer.read(&mut content, 0).unwrap();
        content
    }
}

fn head(manifest: &Manifest, boot: u8) -> Head {
    Head { image: ImageId(manifest.sha256), size: SIZE as u64, boot: [boot; 16] }
}

/// As `open` does with files.
fn open(manifest: &Manifest, bytes: &Disk, journal: &Disk, boot: u8) -> Layer<Disk> {
    let head = head(manifest, boot);
    let mut map = Map::new(manifest);
    let found = journal.platter().now.clone();
    head.replay(&found).unwrap().into_iter().for_each(|change| map.apply(change));
    bytes.sync().unwrap();
    let changes = map.as_changes(manifest);
    let whole = head.journal(&changes);
    *journal.platter() = Platter { now: whole.clone(), durable: whole };
    Layer::new(bytes.clone(), journal.clone(), manifest.chunk_size, map, changes.len() as u64 + 1)
}

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: u64 = CHUNK as u64;

/// A new layer, its image, and the size of the volume.
pub(crate) fn new_layer() -> (Layer<impl Storage + 'static>, Manifest, u64) {
    let machine = Machine::new(image());
    (machine.layer, machine.manifest, SIZE as u64)
}

#[derive(Debug, Clone)]
enum Step {
    Write { first: usize, count: usize, byte: u8 },
    Zero { first: usize, count: usize },
    Read { first: usize, count: usize },
    Flush,
    Fetch { chunk: u32 },
    Kill,
    PowerCut { seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..SECTORS, prop_oneof![1..16_usize, 1..300_usize]);
    let step = prop_oneof![
        8 => (place(), 1_u8..).prop_map(|((first, count), byte)| Step::Write { first, count, byte }),
        2 => place().prop_map(|(first, count)| Step::Zero { first, count }),
        3 => place().prop_map(|(first, count)| Step::Read { first, count }),
        3 => Just(Step::Flush),
        3 => (0..5_u32).prop_map(|chunk| Step::Fetch { chunk }),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What each sector may read as: the last value, and after a power cut also those since the last flush.
struct Model(Vec<Vec<u8>>);

impl Model {
    fn new(content: &[u8]) -> Self {
        Self(content.chunks(512).map(|sector| Vec::from([sector[0]])).collect())
    }

    fn write(&mut self, first: usize, count: usize, byte: u8) {
        self.0[first..first + count].iter_mut().for_each(|values| values.push(byte));
    }

    fn flush(&mut self) {
        self.0.iter_mut().for_each(|values| drop(values.drain(..values.len() - 1)));
    }

    fn last(&self, first: usize, count: usize) -> Vec<u8> {
        self.0[first..first + count].iter().flat_map(|values| [*values.last().unwrap(); 512]).collect()
    }
}

/// An image whose sectors each hold one byte again and again.
fn image() -> Vec<u8> {
    let mut image: Vec<u8> = (0..IMAGE).map(|at| (at / 512 % 200) as u8 + 50).collect();
    image[CHUNK..2 * CHUNK].fill(0);
    image
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut machine = Machine::new(image());
    let mut model = Model::new(&machine.content());
    let range = |first: usize, count: usize| first as u64 * SECTOR..(first + count) as u64 * SECTOR;
    for step in steps {
        match step {
            Step::Write { first, count, byte } => {
                let count = count.min(SECTORS - first);
                let here = machine.layer.write(&vec![byte; count * 512], first as u64 * SECTOR).unwrap();
                prop_assert!(here.iter().all(|chunk| machine.layer.is_here(*chunk)));
                model.write(first, count, byte);
            }
            Step::Zero { first, count } => {
                let count = count.min(SECTORS - first);
                machine.layer.zero(range(first, count)).unwrap();
                model.write(first, count, 0);
            }
            Step::Read { first, count } => {
                let count = count.min(SECTORS - first);
                let mut found = vec![0; count * 512];
                while let Some(chunk) = machine.layer.missing(&range(first, count)) {
                    prop_assert!(machine.layer.read(&mut found, first as u64 * SECTOR).is_err());
                    machine.fetch(&machine.layer, chunk);
                }
                machine.layer.read(&mut found, first as u64 * SECTOR).unwrap();
                prop_assert!(found == model.last(first, count), "read at {}", first);
            }
            Step::Flush => {
                machine.layer.flush().unwrap();
                model.flush();
            }
            Step::Fetch { chunk } => machine.fetch(&machine.layer, chunk),
            Step::Kill => {
                machine.start_again();
                prop_assert!(machine.content() == model.last(0, SECTORS), "after a kill");
            }
            Step::PowerCut { mut seed } => {
                machine.power_cut(&mut || {
                    // xorshift64 (Marsaglia 2003)
                    seed |= 1;
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed >> 40 & 1 == 1
                });
                let content = machine.content();
                for (at, (sector, values)) in content.chunks(512).zip(&model.0).enumerate() {
                    let one = sector.iter().all(|b| *b == sector[0]);
                    prop_assert!(one && values.contains(&sector[0]), "sector {} after a power cut", at);
                }
                model = Model::new(&content);
            }
        }
    }
    prop_assert!(machine.content() == model.last(0, SECTORS), "at the end");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_was_written_survives_a_kill_and_what_was_flushed_a_power_cut(steps in steps()) {
        run(steps)?;
    }
}

#[test]
fn a_flush_promises_nothing_that_came_while_it_lasted() {
    // A write that is acknowledged between the layer's sync and the commit may be lost, but never reads as something else.
    let machine = Machine::new(image());
    machine.layer.write(&[1; 512], 0).unwrap();
    machine.layer.flush().unwrap();
    let counts = |state: &State| (state.records, state.committed);
    assert_eq!(counts(&machine.layer.state()), (3, 3), "the commit counts itself");
    machine.layer.flush().unwrap();
    assert_eq!(machine.layer.state().records, 3, "nothing to say, nothing said");
    machine.layer.write(&[1; 512], 0).unwrap();
    assert_eq!(machine.layer.state().records, 3, "a sector that is there already");
}

#[test]
fn a_journal_that_cannot_be_written_keeps_the_map_as_it_was() {
    struct Full(Disk);
    impl Storage for Full {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(into, offset)
        }
        fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
            if offset >= HEAD as u64 + 2 * RECORD as u64 && self.0.platter().now.len() < SIZE {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write_at(from, offset)
        }
        fn zero(&self, range: Range<u64>) -> io::Result<()> {
            self.0.zero(range)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }
    let manifest = manifest_of(&image());
    let journal = Disk::new(head(&manifest, 0).journal(&[]));
    let bytes = Full(Disk::new(vec![0; SIZE]));
    let layer = Layer::new(bytes, Full(journal), manifest.chunk_size, Map::new(&manifest), 1);
    layer.write(&[1; 512], 0).unwrap();
    assert_eq!(layer.write(&[2; 512], 512).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!((layer.missing(&(0..512)), layer.missing(&(512..1024))), (None, Some(0)));
}
