//! Where images lie: a directory of chunks and manifests.
//!
//! ```text
//! <store>/chunks/ab/<sha256 of raw bytes>.zst   one zstd frame each
//!         manifests/<sha256 of manifest>.json   canonical bytes
//!         manifests/<the same>.minisig          signature, if there is one
//!         tmp/                                  files being written
//!         lock                                  shared by everybody who has the store open
//! ```
//!
//! A file gets its name only after its bytes are durable, and a manifest gets its name only after all its chunks
//! have theirs, so whatever can be listed can be served, and a crash at any moment leaves at most garbage.
//! Everything blocks; an asynchronous caller wraps it. What a chunk must hold is `chunk`'s business, who may fetch
//! it is the server's.

mod garbage;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{ChunkId, ImageId};

pub use garbage::Collected;
pub use verify::{BadChunk, ChunkFault, VerifyReport};
pub use writer::Writer;

use crate::chunk::{ChunkError, frame_max};
use crate::manifest::{CHUNK_SIZE, MANIFEST_MAX, Manifest, ManifestError};
use crate::minisign::TEXT_MAX;
use crate::trust::{Anchor, TrustError, Vouched};

/// An image store in a directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Holds the shared lock for as long as the store is open.
    lock: File,
    /// Chunks that writers of this process rely on, with the number of writers. Garbage collection keeps the mutex
    /// while it works, so no writer can take up a chunk that is about to go.
    held: Mutex<BTreeMap<ChunkId, usize>>,
    /// Makes names in `tmp/` differ.
    serial: AtomicU64,
}

/// The images of a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Images that can be read, in order of id.
    pub images: Vec<(ImageId, Manifest)>,
    /// Manifests that cannot, with the reason. They keep garbage collection from running.
    pub broken: Vec<(ImageId, ManifestError)>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Such as `open`.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No such image.
    #[error("image {0} is not in the store")]
    NoImage(ImageId),
    /// No such chunk.
    #[error("chunk {0} is not in the store")]
    NoChunk(ChunkId),
    /// A manifest in the store, or on its way into it, is not valid.
    #[error("manifest {id} is not valid")]
    Manifest {
        /// The image.
        id: ImageId,
        /// Why.
        #[source]
        cause: ManifestError,
    },
    /// A manifest names a chunk that its writer never put.
    #[error("manifest {id} names chunk {chunk}, which was not put by the same writer")]
    ChunkNotHeld {
        /// The image.
        id: ImageId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// A file that is larger than what it can be.
    #[error("{} has {found} bytes, more than the {limit} it may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A chunk could not be made or is not what it should be.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Its signature is missing, or not good for what it is.
    #[error("image {id} is refused")]
    Untrusted {
        /// The image.
        id: ImageId,
        /// Why.
        #[source]
        cause: TrustError,
    },
    /// Somebody else has the store open, so nobody can say which chunks are garbage.
    #[error("another process has the image store open, its garbage stays for now")]
    InUse,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}

impl Store {
    /// Opens the store in directory `root`, which is made where it does not exist. Where no other process has it
    /// open, what an earlier one left in `tmp/` is removed.
    ///
    /// # Errors
    /// Where the directory cannot be made, locked or cleaned.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = root.as_ref().to_owned();
        for dir in [root.clone(), root.join("chunks"), root.join("manifests"), root.join("tmp")] {
            fs::create_dir_all(&dir).map_err(StoreError::io("make", &dir))?;
        }
        let path = root.join("lock");
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let alone = lock::try_exclusive(&lock).map_err(StoreError::io("lock", &path))?;
        if alone {
            clear(&root.join("tmp"))?;
        }
        lock::shared(&lock).map_err(StoreError::io("lock", &path))?;
        sync_dir(&root)?;
        let (held, serial) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { root, lock, held, serial })))
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where the frame of a chunk lies, or would.
    pub fn chunk_path(&self, id: ChunkId) -> PathBuf {
        let name = id.to_string();
        let mut path = self.0.root.join("chunks");
        path.push(name.get(..2).unwrap_or_default());
        path.push(format!("{name}.zst"));
        path
    }

    /// Opens the frame of a chunk for reading; an open file outlives the chunk's removal.
    ///
    /// # Errors
    /// [`StoreError::NoChunk`] where it is not there.
    pub fn open_chunk(&self, id: ChunkId) -> Result<File, StoreError> {
        let path = self.chunk_path(id);
        File::open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => StoreError::NoChunk(id),
            _ => StoreError::io("open", &path)(cause),
        })
    }

    /// The frame of a chunk: not decompressed, not checked.
    ///
    /// # Errors
    /// Where it is not there, cannot be read, or is larger than any frame of a chunk.
    pub fn chunk_frame(&self, id: ChunkId) -> Result<Vec<u8>, StoreError> {
        let file = self.open_chunk(id)?;
        read_bounded(file, &self.chunk_path(id), frame_max(CHUNK_SIZE as usize) as u64)
    }

    /// Ids of all images, in order.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn image_ids(&self) -> Result<Vec<ImageId>, StoreError> {
        let mut ids: Vec<ImageId> = names(&self.0.root.join("manifests"))?
            .iter()
            .filter_map(|name| name.strip_suffix(".json")?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All images. One broken manifest does not hide the others.
    ///
    /// # Errors
    /// Where a file cannot be read at all.
    pub fn manifests(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for id in self.image_ids()? {
            match self.manifest(id) {
                Ok(manifest) => listing.images.push((id, manifest)),
                Err(StoreError::Manifest { id, cause }) => listing.broken.push((id, cause)),
                Err(StoreError::NoImage(_)) => {} // removed while we looked
                Err(other) => return Err(other),
            }
        }
        Ok(listing)
    }

    /// The manifest of one image, checked against its id.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] where it is not there, [`StoreError::Manifest`] where it is damaged.
    pub fn manifest(&self, id: ImageId) -> Result<Manifest, StoreError> {
        let bytes = self.manifest_bytes(id)?;
        Manifest::parse_as(&bytes, id).map_err(|cause| StoreError::Manifest { id, cause })
    }

    /// The manifest's bytes as they are stored, for serving; not checked.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] where it is not there.
    pub fn manifest_bytes(&self, id: ImageId) -> Result<Vec<u8>, StoreError> {
        let path = self.manifest_path(id);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => StoreError::NoImage(id),
            _ => StoreError::io("open", &path)(cause),
        })?;
        read_bounded(file, &path, MANIFEST_MAX as u64)
    }

    /// The signature of an image as it is stored, not checked; `None` where it has none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn signature(&self, id: ImageId) -> Result<Option<String>, StoreError> {
        let path = self.signature_path(id);
        let file = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        let octets = read_bounded(file, &path, TEXT_MAX as u64)?;
        // What is no text is no signature.
        Ok(Some(String::from_utf8_lossy(&octets).into_owned()))
    }

    /// Gives an image this signature, in the place of the one that it had; durable. It is the caller's who checked it. The image need not be
    /// there yet.
    ///
    /// # Errors
    /// Where the disk is full or broken.
    pub fn put_signature(&self, id: ImageId, text: &str) -> Result<(), StoreError> {
        writer::put(self, &self.signature_path(id), text.as_bytes())?;
        sync_dir(&self.0.root.join("manifests"))
    }

    /// An image that these keys vouch for. Nothing of the manifest is read before.
    ///
    /// # Errors
    /// [`StoreError::Untrusted`], [`StoreError::NoImage`], or where a file cannot be read.
    pub fn vouched(&self, id: ImageId, anchor: &Anchor) -> Result<Vouched, StoreError> {
        let (bytes, signature) = (self.manifest_bytes(id)?, self.signature(id)?);
        anchor.judge(id, &bytes, signature.as_deref()).map_err(|cause| StoreError::Untrusted { id, cause })
    }

    /// Forgets an image. Its chunks stay until [`Store::collect_garbage`].
    ///
    /// # Errors
    /// [`StoreError::NoImage`] where it is not there.
    pub fn remove(&self, id: ImageId) -> Result<(), StoreError> {
        let path = self.manifest_path(id);
        fs::remove_file(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => StoreError::NoImage(id),
            _ => StoreError::io("remove", &path)(cause),
        })?;
        let signature = self.signature_path(id);
        match fs::remove_file(&signature) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(StoreError::io("remove", &signature))?,
        }
        sync_dir(&self.0.root.join("manifests"))
    }

    /// Starts putting an image: what the writer puts is safe from garbage collection for as long as it lives.
    pub fn writer(&self) -> Writer {
        Writer::new(self.clone())
    }

    fn manifest_path(&self, id: ImageId) -> PathBuf {
        self.0.root.join("manifests").join(format!("{id}.json"))
    }

    fn signature_path(&self, id: ImageId) -> PathBuf {
        self.0.root.join("manifests").join(format!("{id}.minisig"))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ChunkId, usize>> {
        // A panic while it was locked leaves counts too high at worst, which only keeps chunks longer.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", path))
}

/// Names in a directory that are UTF-8, which all of ours are.
fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Removes all files in a directory.
fn clear(dir: &Path) -> Result<(), StoreError> {
    for name in names(dir)? {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}

fn read_bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let found = file.metadata().map_err(StoreError::io("look at", path))?.len();
    if found > limit {
        return Err(StoreError::TooLarge { path: path.to_owned(), found, limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(bytes)
}

/// Open-file-description locks (`fcntl(2)`): unlike `flock(2)`, a shared lock survives an attempt to upgrade it that
/// fails.
mod lock {
    use std::fs::File;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    /// Waits for the shared lock, or comes back to it from the exclusive one.
    pub(super) fn shared(file: &File) -> io::Result<()> {
        let lock = whole_file(libc::F_RDLCK);
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// True where the exclusive lock was taken; false where somebody else has a lock, and ours is what it was.
    pub(super) fn try_exclusive(file: &File) -> io::Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Lets the lock go, as the end of a process does.
    #[cfg(test)]
    pub(super) fn unlock_for_test(file: &File) {
        fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK))).unwrap();
    }

    fn whole_file(kind: libc::c_int) -> libc::flock {
        // The kernel's values are 0 to 2; `l_pid` must be 0 for this kind of lock.
        let l_type = kind as libc::c_short;
        libc::flock { l_type, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 }
    }
}

#[cfg(test)]
mod tests;
