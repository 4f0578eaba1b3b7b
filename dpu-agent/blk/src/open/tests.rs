//! A new volume becomes what it is to be, wherever whoever does it dies; and a volume that a host had never does again.

use std::io::Cursor;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use images::PartitionTable;
use images::minisign::SecretKey;
use images::trust::{Anchor, TrustError, TrustedKey};
use protocol::job::CloudConfig;
use ramdisk_agent_core::edges::EDGE;

use super::*;
use crate::layer::map::tests::{CHUNK, manifest_of};
use crate::source::Whose;
use crate::volume::Then;

/// All of the image lies in the first MiB, so that nothing is fetched any more when the first write comes.
const IMAGE: usize = EDGE as usize;
/// Bytes of the volume.
const SIZE: u64 = (16 << 20) + 512;
const GUID: [u8; 16] = [7; 16];

/// A directory that goes with its test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("billet-blk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An image with a GPT by the crate `gpt`, and noise in its only partition.
pub(crate) fn image(size: usize) -> Vec<u8> {
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut disk = config.create_from_device(Cursor::new(vec![0; size]), None).unwrap();
    let bytes = size as u64 / 2;
    disk.add_partition("root", bytes, gpt::partition_types::LINUX_FS, 0, Some(8)).unwrap();
    let mut image = disk.write().unwrap().into_inner();
    let start = size / 4;
    image[start..start + 4096].iter_mut().zip(0_usize..).for_each(|(byte, at)| *byte = (at % 251) as u8);
    image
}

/// Puts the image into a store in `dir`.
pub(crate) fn store(dir: &Path, raw: &[u8]) -> ImageId {
    let manifest = Manifest { partition_table: PartitionTable::Gpt, ..manifest_of(raw) };
    for (bytes, chunk) in raw.chunks(CHUNK).zip(&manifest.chunks) {
        if let Some(chunk) = chunk {
            let id = chunk.id.to_string();
            let place = dir.join("chunks").join(&id[..2]);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(format!("{id}.zst")), zstd::bulk::compress(bytes, 1).unwrap()).unwrap();
        }
    }
    fs::create_dir_all(dir.join("manifests")).unwrap();
    fs::write(dir.join(format!("manifests/{}.json", manifest.id())), manifest.canonical()).unwrap();
    sign(dir, &manifest, 1, 5);
    let key = TrustedKey {
        key: SecretKey::of_seed(&[1; 32]).public(),
        title: "tests".into(),
        floors: [(manifest.name.clone(), 5)].into(),
    };
    fs::write(dir.join("trust.json"), Anchor::new(vec![key]).to_json()).unwrap();
    manifest.id()
}

/// Signs the image by the key of this seed; 1 is trusted, from number 5 on.
fn sign(dir: &Path, manifest: &Manifest, seed: u8, number: u64) {
    let signature = images::trust::sign(&SecretKey::of_seed(&[seed; 32]), manifest, number);
    fs::write(dir.join(format!("manifests/{}.minisig", manifest.id())), signature).unwrap();
}

fn config() -> CloudConfig {
    CloudConfig { meta_data: "local-hostname: db1\n".into(), ..CloudConfig::default() }
}

fn wish() -> Wish {
    Wish { config: Some(config()), grow_root: true }
}

/// A volume that dies in the middle of a write or a flush: half of it is done, and then nothing.
struct Dying<'a> {
    volume: &'a dyn Volume,
    left: AtomicUsize,
}

impl Dying<'_> {
    fn dies(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

impl Volume for Dying<'_> {
    fn size(&self) -> u64 {
        self.volume.size()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.volume.read(into, offset)
    }
    fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        if self.dies() {
            self.volume.write(&from[..from.len() / 1024 * 512], offset)?;
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.volume.write(from, offset)
    }
    fn zero(&self, range: Range<u64>) -> io::Result<()> {
        self.volume.zero(range)
    }
    fn flush(&self) -> io::Result<()> {
        if self.dies() { Err(io::ErrorKind::Interrupted.into()) } else { self.volume.flush() }
    }
    fn missing(&self, range: &Range<u64>) -> Option<u32> {
        self.volume.missing(range)
    }
    fn when_here(&self, missing: u32, then: Then) {
        self.volume.when_here(missing, then);
    }
}

fn instant<'a>(dir: &'a Path, image: ImageId, store: &Path, config: Option<&'a Path>) -> Instant<'a> {
    Instant {
        dir,
        image,
        size: Some(SIZE),
        source: Source::new(store.to_str().unwrap(), Whose::Keys(store.join("trust.json"))),
        pace: Pace { rate: None, deadline: Duration::from_secs(30) },
        config,
        grow_root: config.is_some(),
    }
}

fn content(volume: &dyn Volume) -> Vec<u8> {
    let mut bytes = vec![0; volume.size() as usize];
    volume.read(&mut bytes, 0).unwrap();
    bytes
}

/// What a deploy leaves on a disk (`ramdisk_agent_core::seal`, which has its own tests).
fn deployed(image: &[u8], guid: [u8; 16]) -> Vec<u8> {
    use ramdisk_agent_core::{cidata, gpt::CONFIG_SIZE, seal::Ends};
    let mut disk = image.to_vec();
    disk.resize(SIZE as usize, 0);
    let (mut head, mut tail) = (disk[..IMAGE].to_vec(), vec![0; IMAGE]);
    let ends = Ends { head: &mut head, tail: &mut tail, disk_size: SIZE };
    let range = ends.adapt("test", true, Some(guid)).unwrap().config.unwrap();
    assert_eq!(range, 7 << 20..15 << 20);
    let mut partition = vec![0; CONFIG_SIZE as usize];
    cidata::make(&config(), &mut partition).unwrap();
    disk[range.start as usize..range.end as usize].copy_from_slice(&partition);
    let at = disk.len() - IMAGE;
    disk[at..].copy_from_slice(&tail);
    disk[..IMAGE].copy_from_slice(&head);
    disk
}

/// The unique id of the config partition in the second entry of the table (UEFI 2.10, 5.3.3).
fn guid(disk: &[u8]) -> [u8; 16] {
    disk[1024 + 128 + 16..1024 + 128 + 32].try_into().unwrap()
}

#[test]
fn a_volume_becomes_what_a_deploy_leaves_wherever_its_exporter_dies() {
    let scratch = Scratch::new("adapt");
    let raw = image(IMAGE);
    let (stored, told) = (scratch.0.join("store"), scratch.0.join("config.json"));
    let id = store(&stored, &raw);
    fs::write(&told, serde_json::to_vec(&config()).unwrap()).unwrap();
    let mut deaths = 0;
    for steps in 0.. {
        let dir = scratch.0.join(format!("layer-{steps}"));
        let instant = || instant(&dir, id, &stored, Some(&told));
        let begun = instant().begin().unwrap();
        assert!(begun.new);
        let dying = Dying { volume: &begun.volume, left: AtomicUsize::new(steps) };
        let adapted = adapt(&dying, &begun.manifest, &wish(), GUID);
        let died = matches!(adapted, Err(AdaptError::Layer { .. }));
        if !died {
            // Everything was written and flushed, and nobody wrote down that it was.
            assert_eq!(content(&begun.volume), deployed(&raw, GUID));
        }
        drop(begun);
        let (volume, lock) = instant().open().unwrap();
        let found = content(&volume);
        assert_eq!(found, deployed(&raw, guid(&found)), "after a death at step {steps}");
        assert_ne!(guid(&found), GUID, "begun anew");

        // A host writes over all that was made for it, and that stays, whatever the volume is opened with.
        volume.write(&vec![9; IMAGE], 0).unwrap();
        volume.write(&[9; 512], 7 << 20).unwrap();
        volume.write(&[9; 512], SIZE - 512).unwrap();
        let written = content(&volume);
        drop((volume, lock));
        fs::write(dir.join(BEGUN), "remains").unwrap();
        let nowhere = Path::new("/nonexistent");
        for told in [Some(told.as_path()), None, Some(nowhere)] {
            let (volume, _lock) = self::instant(&dir, id, nowhere, told).open().unwrap();
            assert!(content(&volume) == written, "what a host wrote was written over");
        }
        deaths += usize::from(died);
        if !died {
            break;
        }
    }
    assert_eq!(deaths, 6, "three writes and three flushes");
}

#[test]
fn a_volume_of_which_nothing_is_asked_stays_the_image() {
    let scratch = Scratch::new("plain");
    let raw = image(IMAGE);
    let id = store(&scratch.0, &raw);
    let dir = scratch.0.join("layer");
    let (volume, lock) = instant(&dir, id, &scratch.0, None).open().unwrap();
    volume.write(&[1; 512], SIZE - 512).unwrap();
    drop((volume, lock));
    // It is a host's from the first moment on, and a wish comes too late.
    let told = scratch.0.join("config.json");
    fs::write(&told, serde_json::to_vec(&config()).unwrap()).unwrap();
    let (volume, _lock) = instant(&dir, id, &scratch.0, Some(&told)).open().unwrap();
    while let Some(chunk) = volume.missing(&(0..SIZE)) {
        let (sender, receiver) = std::sync::mpsc::channel();
        volume.when_here(chunk, Box::new(move |here| sender.send(here).unwrap()));
        assert!(receiver.recv().unwrap());
    }
    let mut expected = raw;
    expected.resize(SIZE as usize, 0);
    expected[SIZE as usize - 512..].fill(1);
    assert!(content(&volume) == expected);
}

#[test]
fn a_volume_that_cannot_become_what_it_is_to_be_is_not_served() {
    let scratch = Scratch::new("refused");
    let id = store(&scratch.0, &image(IMAGE));
    let told = scratch.0.join("config.json");
    // Each in a layer of its own: what died here is not a process, and may still fetch.
    let refused = |layer: &str, size, store: &Path| {
        let dir = scratch.0.join(layer);
        let pace = Pace { rate: None, deadline: Duration::from_millis(50) };
        let instant = Instant { size: Some(size), pace, ..instant(&dir, id, store, Some(&told)) };
        let error = instant.open().err().expect("an error");
        assert!(!dir.join(JOURNAL).exists());
        error
    };
    assert!(matches!(refused("a", SIZE, &scratch.0), OpenError::File { action: "read", .. }));
    fs::write(&told, "no config").unwrap();
    assert!(matches!(refused("b", SIZE, &scratch.0), OpenError::Config { .. }));
    fs::write(&told, serde_json::to_vec(&config()).unwrap()).unwrap();
    let small = refused("c", 8 << 20, &scratch.0);
    assert!(matches!(small, OpenError::Adapt(AdaptError::Refused { .. })), "{small:?}");
    // A store that has the manifest and no chunk.
    let empty = scratch.0.join("empty");
    fs::create_dir_all(empty.join("manifests")).unwrap();
    let manifest = format!("manifests/{id}.json");
    for file in [manifest, format!("manifests/{id}.minisig"), "trust.json".to_owned()] {
        fs::copy(scratch.0.join(&file), empty.join(&file)).unwrap();
    }
    let away = refused("d", SIZE, &empty);
    assert!(matches!(away, OpenError::Adapt(AdaptError::Missing(_))), "{away:?}");
    // When the store is there it is served after all.
    instant(&scratch.0.join("d"), id, &scratch.0, Some(&told)).open().unwrap();
}

/// Whose image is not taken gets no layer; one that a host has is served whoever signed it.
#[test]
fn an_image_that_nobody_vouches_for_gets_no_layer() {
    let scratch = Scratch::new("unsigned");
    let stored = scratch.0.join("store");
    let image_id = store(&stored, &image(IMAGE));
    let layer = scratch.0.join("layer");
    let open = || instant(&layer, image_id, &stored, None).open();
    let manifest = fs::read(stored.join(format!("manifests/{image_id}.json"))).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    let signature = stored.join(format!("manifests/{image_id}.minisig"));
    let refused = |what: &str, is: fn(&SourceError) -> bool| {
        let Err(OpenError::Source(error)) = open() else { unreachable!("{what} was taken") };
        assert!(is(&error), "{what}: {error:?}");
        assert!(!layer.join("manifest.json").exists() && !layer.join(JOURNAL).exists(), "{what}");
    };
    fs::remove_file(&signature).unwrap();
    refused("unsigned", |e| matches!(e, SourceError::Untrusted(TrustError::Unsigned)));
    sign(&stored, &manifest, 2, 5);
    refused("foreign", |e| matches!(e, SourceError::Untrusted(TrustError::Foreign(_))));
    sign(&stored, &manifest, 1, 4);
    refused("older", |e| matches!(e, SourceError::Untrusted(TrustError::Older { .. })));
    sign(&stored, &manifest, 1, 5);
    let keys = fs::read(stored.join("trust.json")).unwrap();
    fs::remove_file(stored.join("trust.json")).unwrap();
    refused("without keys", |e| matches!(e, SourceError::NoKeys(_)));
    fs::write(stored.join("trust.json"), keys).unwrap();
    drop(open().unwrap());
    fs::remove_file(&signature).unwrap();
    fs::remove_file(stored.join("trust.json")).unwrap();
    assert!(open().is_ok(), "a host may have it");
}
