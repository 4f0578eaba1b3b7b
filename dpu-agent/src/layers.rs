//! Layers of instant volumes on our disk: how far they are, and their end.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use dpu_agent_core::instant::hear;
use protocol::ImageId;
use protocol::dpu::{Exporter, InstantSeen, Serves, Volume};

/// The files of a layer (`dpu-agent/blk/src/open.rs`), in the order in which they go: without a journal nothing of it counts.
const FILES: [&str; 8] = [
    "journal",
    "journal.begun",
    "journal.new",
    "journal.begun.new",
    "layer.raw",
    "manifest.json",
    "manifest.json.new",
    LOCK,
];
/// Held by whoever serves it.
const LOCK: &str = "lock";
/// Octets of a log that are read at once: of what is older nothing is told.
const HEARD_MAX: u64 = 1 << 20;

/// Why a layer is left where it is.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A path that is no layer of ours.
    #[error("{} is left as it is: it is no layer of an instant volume ({why}); remove it by hand", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Somebody serves it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The disk.
    #[error("cannot remove {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Where the layer of a volume is, where it has one.
pub fn of(volume: &Volume) -> Option<&str> {
    match &volume.exporter {
        Exporter::Blk { serves: Serves::Image { layer, .. } } => Some(layer),
        _ => None,
    }
}

/// Whether anything is at a layer's path. What cannot be looked at is there.
pub fn is_there(layer: &str) -> bool {
    !matches!(fs::symlink_metadata(layer), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

/// Removes a layer: a directory with nothing in it but what a layer has. Nothing is said where there is none.
///
/// # Errors
/// [`LayerError`]; what is foreign is not touched.
pub fn remove(layer: &str) -> Result<(), LayerError> {
    let dir = Path::new(layer);
    let foreign = |why: String| LayerError::Foreign { path: dir.to_owned(), why };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| LayerError::File { path, cause }
    };
    if !fs::symlink_metadata(dir).map_err(failed(dir))?.is_dir() {
        return Err(foreign("no directory".to_owned()));
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let name = entry.map_err(failed(dir))?.file_name().to_string_lossy().into_owned();
        if !FILES.contains(&name.as_str()) {
            return Err(foreign(format!("it has {name}")));
        }
        found.insert(name);
    }
    let _lock = match File::open(dir.join(LOCK)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => return Err(LayerError::InUse(dir.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(failed(&dir.join(LOCK))(cause)),
        },
        // A removal before this one got that far.
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => return Err(failed(&dir.join(LOCK))(cause)),
    };
    for name in FILES.into_iter().filter(|name| found.contains(*name)) {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    fs::remove_dir(dir).map_err(failed(dir))
}

/// Follows what an exporter says of the image of its volume.
#[derive(Debug)]
pub struct Hearing {
    log: PathBuf,
    /// Is there from the moment on when the volume is what it is to be.
    sign: PathBuf,
    /// What stands in it, where that is to be compared.
    text: Option<String>,
    read: u64,
    /// The beginning of a line that is not whole yet.
    rest: Vec<u8>,
    seen: InstantSeen,
}

impl Hearing {
    /// Of the exporter that writes this log and serves this layer.
    pub fn new(log: PathBuf, layer: &Path) -> Self {
        Self::with(log, layer.join("journal"), None)
    }

    /// Of the exporter that writes this log, and makes this file once it has written this image. With another image in it the volume is not
    /// what it is to be.
    pub fn until(log: PathBuf, sign: PathBuf, image: &ImageId) -> Self {
        Self::with(log, sign, Some(image.to_string()))
    }

    fn with(log: PathBuf, sign: PathBuf, text: Option<String>) -> Self {
        Self { log, sign, text, read: 0, rest: Vec::new(), seen: InstantSeen::default() }
    }

    /// What is known.
    pub fn seen(&self) -> &InstantSeen {
        &self.seen
    }

    /// Takes in what was said since the last time. A log that cannot be read says nothing.
    pub fn listen(&mut self) {
        self.seen.adapted = match &self.text {
            None => self.sign.exists(),
            Some(text) => fs::read_to_string(&self.sign).is_ok_and(|there| there.trim() == text),
        };
        let _ = self.read_on();
    }

    fn read_on(&mut self) -> io::Result<()> {
        let mut file = File::open(&self.log)?;
        let length = file.metadata()?.len();
        // Begun anew, or longer than is worth it.
        let from = if length < self.read { 0 } else { self.read };
        let from = from.max(length.saturating_sub(HEARD_MAX));
        if from != self.read {
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(from))?;
        let mut said = Vec::new();
        let count = file.take(HEARD_MAX).read_to_end(&mut said)?;
        self.read = from + count as u64;
        self.rest.extend(said);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            hear(&mut self.seen, String::from_utf8_lossy(&line).trim_end());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("layers-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_layer_goes_whole_and_nothing_else_is_touched() {
        let dir = scratch("remove");
        let layer = dir.join("v1");
        let text = layer.display().to_string();
        fs::create_dir(&layer).unwrap();
        for name in ["journal", "layer.raw", "manifest.json", "lock"] {
            fs::write(layer.join(name), "x").unwrap();
        }
        let held = File::open(layer.join("lock")).unwrap();
        held.try_lock().unwrap();
        assert!(matches!(remove(&text), Err(LayerError::InUse(_))));
        drop(held);
        fs::write(layer.join("thesis.txt"), "x").unwrap();
        assert!(remove(&text).unwrap_err().to_string().contains("thesis.txt"));
        assert!(layer.join("journal").exists(), "all of it stays");
        fs::remove_file(layer.join("thesis.txt")).unwrap();
        assert!(is_there(&text));
        remove(&text).unwrap();
        assert!(!is_there(&text));
        std::os::unix::fs::symlink("/", dir.join("link")).unwrap();
        let link = dir.join("link").display().to_string();
        assert!(is_there(&link) && matches!(remove(&link), Err(LayerError::Foreign { .. })));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mark_of_another_image_is_none() {
        let dir = scratch("mark");
        let image = "de67b0497beb204c811a6fa64a6677226f3ec27b75acad02ae5c8b6ee2f4ea65";
        let mark = dir.join("v.filled");
        let mut hearing = Hearing::until(dir.join("v.log"), mark.clone(), &image.parse().unwrap());
        for (text, is_its) in [(image, true), (image.replace('d', "e").as_str(), false), ("", false)] {
            fs::write(&mark, text).unwrap();
            hearing.listen();
            assert_eq!(hearing.seen().adapted, is_its, "{text:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_log_is_followed_over_halves_of_lines_and_new_beginnings() {
        let dir = scratch("hear");
        let log = dir.join("x.log");
        let mut hearing = Hearing::new(log.clone(), &dir);
        hearing.listen();
        assert_eq!(hearing.seen(), &InstantSeen::default());
        let mut file = File::options().create(true).append(true).open(&log).unwrap();
        file.write_all(b"{\"event\":\"progress\",\"percent\":12,\"by").unwrap();
        hearing.listen();
        assert_eq!(hearing.seen().percent, 0);
        file.write_all(b"tes\":77}\n").unwrap();
        fs::write(dir.join("journal"), "").unwrap();
        hearing.listen();
        assert_eq!((hearing.seen().percent, hearing.seen().bytes, hearing.seen().adapted), (12, 77, true));
        file.set_len(0).unwrap();
        hearing.listen();
        file.write_all(b"{\"event\":\"hydrated\"}\n").unwrap();
        hearing.listen();
        assert!(hearing.seen().hydrated);
        fs::remove_dir_all(&dir).unwrap();
    }
}
