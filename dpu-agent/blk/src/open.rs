//! The directory of an instant volume: opened, made where it is new, recovered where somebody died.
//!
//! ```text
//! <layer>/manifest.json   the image, as its store gave it
//!         layer.raw       sparse, as large as the volume
//!         journal         which of its bytes count
//!         journal.begun   the same, of a volume that no host ever had: where there is no other, all begins anew
//!         lock            held by whoever serves it
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use images::{Manifest, ManifestError};
use protocol::ImageId;
use protocol::dpu::STATE_MAX;
use ramdisk_agent_core::seal::Adapted;

use crate::adapt::{AdaptError, Wish, adapt};
use crate::event::{Event, say};
use crate::hydrate::InstantVolume;
use crate::instant::Layer;
use crate::layer::journal::{BootId, Head, JournalError};
use crate::layer::map::{Change, Map};
use crate::layer::plan::Pace;
use crate::request::SECTOR;
use crate::source::{Source, SourceError};
use crate::volume::{Backing, Volume};

/// Which bytes of the layer count.
const JOURNAL: &str = "journal";
/// The same, as long as no host had the volume.
const BEGUN: &str = "journal.begun";

/// Why an instant volume cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of the layer.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `open`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another process serves it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A new layer needs the manifest from the store.
    #[error("cannot begin the layer")]
    Source(#[from] SourceError),
    /// The manifest in the layer is damaged.
    #[error("the layer's manifest is not the image's")]
    Manifest(#[from] ManifestError),
    /// The journal in the layer is damaged or another volume's.
    #[error("the layer's journal cannot be used")]
    Journal(#[from] JournalError),
    /// A size that does not fit the image.
    #[error(
        "a volume of {size} bytes cannot hold the image; give --size as a multiple of 512 of at least {least}"
    )]
    Size {
        /// Bytes asked for.
        size: u64,
        /// Bytes needed.
        least: u64,
    },
    /// The image cannot be what it is to become.
    #[error("the image cannot be made to fit the volume")]
    Adapt(#[from] AdaptError),
    /// The config is none.
    #[error("{} is no config", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: serde_json::Error,
    },
    /// The boot id of this machine.
    #[error("this machine does not say which boot it is (/proc/sys/kernel/random/boot_id)")]
    BootId,
}

/// What an instant volume is made of.
#[derive(Debug)]
pub struct Instant<'a> {
    /// Directory of the layer.
    pub dir: &'a Path,
    /// Image.
    pub image: ImageId,
    /// Bytes of the volume; the image's smallest disk where `None`.
    pub size: Option<u64>,
    /// Where the image is.
    pub source: Source,
    /// How fast it comes.
    pub pace: Pace,
    /// File with the config (`protocol::job::CloudConfig`) that the image is given before a host has the volume for the first
    /// time; read then and never again.
    pub config: Option<&'a Path>,
    /// Grow its last partition, then too.
    pub grow_root: bool,
}

/// A volume that may still have to become what it is to be.
struct Begun {
    volume: InstantVolume<Backing>,
    lock: File,
    manifest: Manifest,
    /// No host ever had it.
    new: bool,
}

impl Instant<'_> {
    /// Opens the volume and begins to fetch; a new one becomes what it is to be. The lock is held as long as the returned file is.
    ///
    /// # Errors
    /// Where the layer is somebody else's, in use, or damaged, or is new and the store does not answer or the image cannot be
    /// adapted.
    pub fn open(self) -> Result<(InstantVolume<Backing>, File), OpenError> {
        let begun = self.begin()?;
        if begun.new {
            if self.config.is_some() || self.grow_root {
                let guid = uuid::Uuid::new_v4().to_bytes_le();
                let Adapted { config, grown, .. } =
                    adapt(&begun.volume, &begun.manifest, &self.wish()?, guid)?;
                say(&Event::Adapted { config, grown });
            }
            self.settle(&begun)?;
        }
        Ok((begun.volume, begun.lock))
    }

    /// The volume as it was left, or a new one.
    fn begin(&self) -> Result<Begun, OpenError> {
        fs::create_dir_all(self.dir).map_err(failed("make", self.dir))?;
        let lock = self.lock()?;
        let manifest = self.manifest()?;
        let size = self.size.unwrap_or(manifest.minimum_disk);
        if size < manifest.raw_size || !size.is_multiple_of(SECTOR) {
            return Err(OpenError::Size { size, least: manifest.raw_size });
        }
        let head = Head { image: self.image, size, boot: boot_id()? };
        let known = self.known(&head)?;
        let new = known.is_none();
        let (layer, map) = self.layer(size, known, &manifest)?;
        // What the journal says from here on is durable in the layer, so that the new one may say that it is.
        let path = self.dir.join("layer.raw");
        layer.sync_data().map_err(failed("write", &path))?;
        let changes = map.as_changes(&manifest);
        let records = changes.len() as u64 + 1;
        let journal = self.replace(if new { BEGUN } else { JOURNAL }, &head.journal(&changes))?;
        let backing = |file| Backing::new(file).map_err(failed("look at", self.dir));
        let missing = map.missing_chunks();
        let layer = Layer::new(backing(layer)?, backing(journal)?, manifest.chunk_size, map, records);
        let source = self.source.clone();
        let volume = InstantVolume::start(layer, missing, manifest.clone(), size, source, self.pace);
        let volume = volume.map_err(failed("start threads for", self.dir))?;
        Ok(Begun { volume, lock, manifest, new })
    }

    /// What the image is to become.
    fn wish(&self) -> Result<Wish, OpenError> {
        let read = |path: &Path| {
            let mut text = Vec::new();
            let mut read = || File::open(path)?.take(STATE_MAX as u64 + 1).read_to_end(&mut text);
            read().map_err(failed("read", path))?;
            serde_json::from_slice(&text).map_err(|cause| OpenError::Config { path: path.to_owned(), cause })
        };
        Ok(Wish { config: self.config.map(read).transpose()?, grow_root: self.grow_root })
    }

    /// From here on the layer counts, whatever becomes of us: a host may have the volume.
    fn settle(&self, begun: &Begun) -> Result<(), OpenError> {
        let path = self.dir.join(JOURNAL);
        let settle = || {
            begun.volume.flush()?;
            fs::rename(self.dir.join(BEGUN), &path)?;
            File::open(self.dir)?.sync_all()
        };
        settle().map_err(failed("write", &path))
    }

    fn lock(&self) -> Result<File, OpenError> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(self.dir.to_owned())),
            Err(fs::TryLockError::Error(cause)) => Err(failed("lock", &path)(cause)),
        }
    }

    fn manifest(&self) -> Result<Manifest, OpenError> {
        let path = self.dir.join("manifest.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Manifest::parse_as(&bytes, self.image)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let manifest = self.source.manifest(self.image)?;
                self.replace("manifest.json", &manifest.canonical())?;
                Ok(manifest)
            }
            Err(cause) => Err(failed("read", &path)(cause)),
        }
    }

    /// What the journal says; `None` where a host never had the volume.
    fn known(&self, head: &Head) -> Result<Option<Vec<Change>>, OpenError> {
        let journal = self.dir.join(JOURNAL);
        match fs::read(&journal) {
            Ok(bytes) => Ok(Some(head.replay(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed("read", &journal)(cause)),
        }
    }

    /// The layer's file, and what of it counts.
    fn layer(
        &self,
        size: u64,
        known: Option<Vec<Change>>,
        manifest: &Manifest,
    ) -> Result<(File, Map), OpenError> {
        let path = self.dir.join("layer.raw");
        let mut map = Map::new(manifest);
        // Without a journal nothing of a layer counts, not even that it is there.
        let fresh = known.is_none();
        let file = File::options().read(true).write(true).create(fresh).truncate(fresh).open(&path);
        let file = file.map_err(failed("open", &path))?;
        if fresh {
            file.set_len(size).and_then(|()| file.sync_all()).map_err(failed("make", &path))?;
        } else if file.metadata().map_err(failed("look at", &path))?.len() != size {
            return Err(failed("use", &path)(io::Error::other("it is not as large as the volume")));
        }
        known.into_iter().flatten().for_each(|change| map.apply(change));
        Ok((file, map))
    }

    /// Puts `bytes` in the place of file `name`, durable before it has the name. The file, open.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<File, OpenError> {
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let write = || {
            let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(self.dir)?.sync_all()?;
            Ok(file)
        };
        write().map_err(failed("write", &path))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |cause| OpenError::File { action, path: path.to_owned(), cause }
}

fn boot_id() -> Result<BootId, OpenError> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.trim().replace('-', "");
    let number = u128::from_str_radix(&digits, 16).map_err(|_| OpenError::BootId)?;
    Ok(number.to_be_bytes())
}

#[cfg(test)]
pub(crate) mod tests;
