//! An image of a store in a directory, written into a file.

use std::fs;
use std::path::PathBuf;

use imaging::FileMedium;
use protocol::job::CloudConfig;

use super::*;
use crate::open::tests::{Scratch, image, store};

/// Bytes of the image, and of the volume.
const IMAGE: usize = 8 << 20;
const SIZE: u64 = 32 << 20;

/// A store with an image, an order, and a volume.
struct Place {
    dir: Scratch,
    order: PathBuf,
    mark: PathBuf,
    raw: Vec<u8>,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = Scratch::new(name);
        let raw = image(IMAGE);
        let fill = Fill {
            image: store(&dir.0, &raw),
            store: dir.0.display().to_string(),
            config: Some(CloudConfig { meta_data: "local-hostname: db1\n".into(), ..CloudConfig::default() }),
            grow_root: true,
        };
        let (order, mark) = (dir.0.join("v.fill"), dir.0.join("v.filled"));
        fs::write(&order, serde_json::to_vec(&fill).unwrap()).unwrap();
        File::create(dir.0.join("volume")).unwrap().set_len(SIZE).unwrap();
        Self { dir, order, mark, raw }
    }

    fn filling(&self) -> Filling<'_> {
        let whose = Whose::Keys(self.dir.0.join("trust.json"));
        Filling { order: &self.order, mark: &self.mark, encrypted: false, whose }
    }

    fn write(&self) -> Result<(), FillError> {
        let filling = self.filling();
        assert!(!filling.is_done().unwrap());
        let done = filling.write(&FileMedium::open(&self.dir.0.join("volume")).unwrap());
        assert_eq!(filling.is_done().unwrap(), done.is_ok());
        done
    }

    fn volume(&self) -> Vec<u8> {
        fs::read(self.dir.0.join("volume")).unwrap()
    }

    /// The files of its chunks.
    fn chunks(&self) -> Vec<PathBuf> {
        let dirs = fs::read_dir(self.dir.0.join("chunks")).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> =
            dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect();
        all.sort();
        all
    }
}

#[test]
fn an_image_is_written_and_the_mark_comes_last() {
    let place = Place::new("fill");
    place.write().unwrap();
    let there = place.volume();
    let edge = 1 << 20;
    assert!(there[edge..IMAGE] == place.raw[edge..], "all of the image between the ends");
    assert!(there[512..1024] != [0; 512] && there[there.len() - 512..] != [0; 512], "both partition tables");
    let text = b"local-hostname: db1";
    assert!(there.windows(text.len()).any(|part| part == text), "the config partition");
}

#[test]
fn a_bit_that_flipped_is_refused_and_the_volume_does_not_boot() {
    let place = Place::new("fill-flipped");
    let chunk = place.chunks().remove(0);
    let whole = fs::read(&chunk).unwrap();
    let mut bad = whole.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    fs::write(&chunk, bad).unwrap();
    let error = place.write().unwrap_err().to_string();
    assert!(error.contains("came with other bytes 3 times"), "{error}");
    assert!(place.volume()[..1 << 20].iter().all(|byte| *byte == 0), "it boots");
    fs::write(&chunk, whole).unwrap();
    place.write().unwrap();
}

/// The mark outlives its order, whose config is forgotten, and whoever asks for another image is told so.
#[test]
fn a_volume_that_was_written_is_never_given_another_image() {
    let place = Place::new("fill-another");
    place.write().unwrap();
    let host = b"a host wrote this";
    let mut there = place.volume();
    there[3 << 20..(3 << 20) + host.len()].copy_from_slice(host);
    fs::write(place.dir.0.join("volume"), &there).unwrap();
    let filling = place.filling();
    assert!(filling.is_done().unwrap());
    let mut order: Fill = serde_json::from_slice(&fs::read(&place.order).unwrap()).unwrap();
    let image = order.image;
    order.image = "ab".repeat(32).parse().unwrap();
    fs::write(&place.order, serde_json::to_vec(&order).unwrap()).unwrap();
    let error = filling.is_done().unwrap_err().to_string();
    assert!(error.contains(&format!("image {image} was written")) && error.len() < 300, "{error}");
    fs::write(&place.mark, "").unwrap();
    assert!(matches!(filling.is_done(), Err(FillError::Another { .. })), "a mark that names none");
    fs::write(&place.order, "{").unwrap();
    assert!(matches!(filling.is_done(), Err(FillError::Order { .. })), "it cannot be told");
    fs::remove_file(&place.order).unwrap();
    assert!(filling.is_done().unwrap());
    assert!(place.volume() == there);
}

#[test]
fn a_manifest_that_came_wrong_is_asked_for_again() {
    let place = Place::new("fill-manifest");
    let order: Fill = serde_json::from_slice(&fs::read(&place.order).unwrap()).unwrap();
    let manifest = place.dir.0.join(format!("manifests/{}.json", order.image));
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, b"{}").unwrap();
    let begun = std::time::Instant::now();
    assert!(matches!(place.write(), Err(FillError::Source(SourceError::Untrusted(_)))));
    assert!(begun.elapsed() >= PAUSE * (TRIES - 1));
    std::thread::scope(|scope| {
        let written = scope.spawn(|| place.write());
        std::thread::sleep(PAUSE / 2);
        let next = place.dir.0.join("next");
        fs::write(&next, whole).unwrap();
        fs::rename(next, &manifest).unwrap();
        written.join().unwrap().unwrap();
    });
}

#[test]
fn an_image_that_nobody_vouches_for_is_not_written() {
    let place = Place::new("fill-unsigned");
    let order: Fill = serde_json::from_slice(&fs::read(&place.order).unwrap()).unwrap();
    fs::remove_file(place.dir.0.join(format!("manifests/{}.minisig", order.image))).unwrap();
    assert!(matches!(place.write(), Err(FillError::Source(SourceError::Untrusted(_)))));
    assert!(place.volume().iter().all(|byte| *byte == 0), "something was written");
}

#[test]
fn what_is_away_is_waited_for() {
    let place = Place::new("fill-away");
    let chunks = place.dir.0.join("chunks");
    let away = place.dir.0.join("away");
    fs::rename(&chunks, &away).unwrap();
    std::thread::scope(|scope| {
        let written = scope.spawn(|| place.write());
        std::thread::sleep(PAUSE * 2);
        assert!(!written.is_finished());
        fs::rename(&away, &chunks).unwrap();
        written.join().unwrap().unwrap();
    });
}
