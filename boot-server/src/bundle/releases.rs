//! Bundles that were taken in, as they lie in the state directory, and which of them is served.
//!
//! ```text
//! <state>/bundles/lock                        whoever takes one in
//!         bundles/staging/                    one on its way in; a crash leaves it, the next import removes it
//!         bundles/kept/<number>-<digest>/     boot/, loaders/, docs/, …, manifests/, index.json, index.json.minisig, import.json
//!         bundles/current -> kept/…           the one that is served: this link is the switch
//!         bundle.floor                        number and digest of the newest that ever was
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use boot_server_core::bundle::Index;
use images::chunk::sha256;
use nix::fcntl::{Flock, FlockArg};
use protocol::{Sha256, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BundleError, io, sync_dir};

/// Bundles that are kept beside the one that is served.
const KEPT: usize = 2;
/// Says that images of a bundle are in the image store and its list.
const FINISHED: &str = "finished";
/// Says that the list of images has them, and that it was written down who took it in.
const TOLD: &str = "told";
/// Of whom and when.
const NOTE: &str = "import.json";
/// What is in it.
const INDEX: &str = "index.json";

/// Of whom and when a bundle was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// The public key that signed it.
    pub key: String,
    /// Who, or how.
    pub by: String,
    /// The newer one that was there, where it was taken in nevertheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<u64>,
}

/// A bundle that was taken in.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its directory.
    pub dir: PathBuf,
    /// What is in it.
    pub index: Index,
    /// SHA-256 of that.
    pub digest: Sha256,
    /// Of whom and when.
    pub note: Note,
    /// It is served.
    pub current: bool,
    /// Its images are where they belong.
    pub finished: bool,
    /// They are in the list, and it was written down.
    pub told: bool,
}

/// The newest that ever was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Its number.
    pub number: u64,
    /// Which one it was.
    pub digest: Sha256,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Releases {
    state: PathBuf,
}

impl Releases {
    /// Those of a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { state: state_dir.to_owned() }
    }

    fn root(&self) -> PathBuf {
        self.state.join("bundles")
    }

    /// The directory of what is served, whatever that is.
    pub fn current_dir(state_dir: &Path) -> PathBuf {
        state_dir.join("bundles/current")
    }

    /// Nobody else takes one in or switches while this is held.
    pub(super) fn lock(&self) -> Result<Flock<File>, BundleError> {
        let kept = self.root().join("kept");
        fs::create_dir_all(&kept).map_err(io("make", &kept))?;
        let path = self.root().join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| BundleError::Busy)
    }

    /// A directory for one that comes in; what an earlier one left is removed.
    pub(super) fn staging(&self) -> Result<PathBuf, BundleError> {
        let path = self.root().join("staging");
        remove(&path)?;
        fs::create_dir(&path).map_err(io("make", &path))?;
        Ok(path)
    }

    /// The newest that ever was taken in.
    ///
    /// # Errors
    /// Where the note of it cannot be read: then nobody can say what is older.
    pub fn floor(&self) -> Result<Option<Floor>, BundleError> {
        let path = self.state.join("bundle.floor");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let parsed = text.trim().split_once(' ').and_then(|(number, digest)| {
            Some(Floor { number: number.parse().ok()?, digest: digest.parse().ok()? })
        });
        parsed.map(Some).ok_or_else(|| io("understand", &path)(ErrorKind::InvalidData.into()))
    }

    /// Refuses what is older than the floor; `allow` lets it in, and what it is older than is returned.
    pub(super) fn judge(&self, number: u64, digest: Sha256, allow: bool) -> Result<Option<u64>, BundleError> {
        let Some(floor) = self.floor()? else { return Ok(None) };
        let refused = match number.cmp(&floor.number) {
            std::cmp::Ordering::Less => BundleError::Older { found: number, floor: floor.number },
            std::cmp::Ordering::Equal if digest != floor.digest => BundleError::Same(number),
            _ => return Ok(None),
        };
        if allow { Ok(Some(floor.number)) } else { Err(refused) }
    }

    /// All that were taken in, newest first. What was never served is not among them.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn list(&self) -> Result<Vec<Release>, BundleError> {
        let kept = self.root().join("kept");
        let entries = match fs::read_dir(&kept) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("list", &kept)(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let dir = entry.map_err(io("list", &kept))?.path();
            match self.read(&dir) {
                Ok(release) => all.extend(Some(release).filter(|it| it.current || it.finished)),
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "a bundle that was taken in cannot be read")
                }
            }
        }
        all.sort_by_key(|release| std::cmp::Reverse((release.index.number, release.digest)));
        Ok(all)
    }

    /// The one that is served.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn current(&self) -> Result<Option<Release>, BundleError> {
        self.target().map(|dir| self.read(&dir)).transpose()
    }

    fn target(&self) -> Option<PathBuf> {
        fs::read_link(self.root().join("current")).ok().map(|target| self.root().join(target))
    }

    fn read(&self, dir: &Path) -> Result<Release, BundleError> {
        let path = dir.join(INDEX);
        let octets = fs::read(&path).map_err(io("read", &path))?;
        let index = Index::parse(&octets)?;
        let path = dir.join(NOTE);
        let note = fs::read(&path).map_err(io("read", &path))?;
        let note = serde_json::from_slice(&note).map_err(|e| io("understand", &path)(e.into()))?;
        Ok(Release {
            index,
            digest: sha256(&octets),
            note,
            current: self.target().as_deref() == Some(dir),
            finished: dir.join(FINISHED).exists(),
            told: dir.join(TOLD).exists(),
            dir: dir.to_owned(),
        })
    }

    /// The moment from which a bundle is what the site has: everything in `staging` is durable.
    pub(super) fn commit(&self, staging: &Path, number: u64, digest: Sha256) -> Result<(), BundleError> {
        let digits = digest.to_string();
        let name = format!("{number}-{}", digits.get(..16).unwrap_or_default());
        let place = self.root().join("kept").join(&name);
        if self.target().as_ref() == Some(&place) {
            // The same once more: it is served.
            return remove(staging);
        }
        remove(&place)?;
        fs::rename(staging, &place).map_err(io("make", &place))?;
        sync_dir(&self.root().join("kept"))?;
        if self.floor()?.is_none_or(|floor| floor.number < number) {
            self.raise(&format!("{number} {digest}\n"))?;
        }
        self.point(Some(&place))
    }

    fn raise(&self, text: &str) -> Result<(), BundleError> {
        let path = self.state.join("bundle.floor");
        let new = self.state.join("bundle.floor.new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&new, &path)).map_err(io("write", &path))?;
        sync_dir(&self.state)
    }

    /// Another one is served from here on, or none.
    fn point(&self, to: Option<&Path>) -> Result<(), BundleError> {
        let (link, new) = (self.root().join("current"), self.root().join("current.new"));
        match to {
            Some(dir) => {
                let _ = fs::remove_file(&new); // left by a crash, or not there
                let name = Path::new("kept").join(dir.file_name().unwrap_or_default());
                symlink(name, &new).and_then(|()| fs::rename(&new, &link)).map_err(io("write", &link))?;
            }
            None => match fs::remove_file(&link) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &link)(error)),
                _ => {}
            },
        }
        sync_dir(&self.root())
    }

    /// Serves the boot files of another bundle that is kept, or with `None` those of the configuration alone. Images stay.
    ///
    /// # Errors
    /// [`BundleError::NotKept`], [`BundleError::Busy`], or what the disk says.
    pub fn switch(&self, number: Option<u64>) -> Result<Option<Release>, BundleError> {
        let _lock = self.lock()?;
        let Some(number) = number else { return self.point(None).map(|()| None) };
        let mut all = self.list()?.into_iter();
        let found = all.find(|release| release.index.number == number).ok_or(BundleError::NotKept(number))?;
        self.point(Some(&found.dir))?;
        Ok(Some(Release { current: true, ..found }))
    }

    /// Notes that the images of a bundle are where they belong, and removes what is no longer kept.
    pub(super) fn finished(&self, release: &Release) -> Result<(), BundleError> {
        let path = release.dir.join(FINISHED);
        File::create(&path).and_then(|file| file.sync_all()).map_err(io("write", &path))?;
        sync_dir(&release.dir)?;
        let current = self.target();
        let others = self.list()?.into_iter().filter(|it| !it.current).take(KEPT).map(|it| it.dir);
        let keep: Vec<PathBuf> = others.chain(current).collect();
        let kept = self.root().join("kept");
        for entry in fs::read_dir(&kept).map_err(io("list", &kept))? {
            let dir = entry.map_err(io("list", &kept))?.path();
            if !keep.contains(&dir) {
                remove(&dir)?;
            }
        }
        Ok(())
    }

    /// Notes that its images are in the list.
    ///
    /// # Errors
    /// What the disk says.
    pub fn told(&self, release: &Release) -> Result<(), BundleError> {
        let path = release.dir.join(TOLD);
        File::create(&path).and_then(|file| file.sync_all()).map_err(io("write", &path))?;
        sync_dir(&release.dir)
    }

    /// Where blocks lie that bundles brought before: file and offset, by name.
    pub(super) fn blocks(
        &self,
        wanted: &BTreeMap<Sha256, u32>,
    ) -> Result<BTreeMap<Sha256, (PathBuf, u64)>, BundleError> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        for release in self.list()? {
            for file in &release.index.files {
                for (id, offset, size) in file.places() {
                    if wanted.get(&id) == Some(&size) {
                        found.entry(id).or_insert_with(|| (release.dir.join(&file.path), offset));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Writes what a bundle says of itself, and who took it in, into its directory.
pub(super) fn describe(dir: &Path, index: &[u8], signature: &str, note: &Note) -> Result<(), BundleError> {
    let note = serde_json::to_vec(note).map_err(|e| io("write", dir)(e.into()))?;
    for (name, octets) in [(INDEX, index), ("index.json.minisig", signature.as_bytes()), (NOTE, &note)] {
        let path = dir.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        });
        written.map_err(io("write", &path))?;
    }
    Ok(())
}

/// Removes a directory with all that is in it, if it is there.
fn remove(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}
