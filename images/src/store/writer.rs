//! Putting chunks and, at the end, the manifest that makes them an image.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use failpoint::{Point, hit};
use protocol::{ChunkId, ImageId};

use super::{Store, StoreError, sync_dir};
use crate::chunk;
use crate::manifest::{MANIFEST_MAX, Manifest, ManifestError};

/// Puts one image into a store. Threads may share it. Dropped without [`Writer::put_manifest`], it takes back the
/// chunks that it brought and nobody else uses.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    mine: Mutex<Mine>,
}

#[derive(Debug, Default)]
struct Mine {
    /// Chunks this writer relies on.
    held: BTreeSet<ChunkId>,
    /// Those of them that were not there before.
    brought: BTreeSet<ChunkId>,
}

impl Writer {
    pub(super) fn new(store: Store) -> Self {
        Self { store, mine: Mutex::default() }
    }

    /// Relies on a chunk that the store may already have: true where it does and its bytes, read and hashed again
    /// here, are good. Then it need not be put.
    ///
    /// # Errors
    /// Where the chunk's file is there and cannot be read.
    pub fn reuse_chunk(
        &self,
        id: ChunkId,
        raw_len: usize,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
    ) -> Result<bool, StoreError> {
        self.hold(id);
        let frame = match self.store.chunk_frame(id) {
            Ok(frame) => frame,
            Err(StoreError::NoChunk(_) | StoreError::TooLarge { .. }) => return Ok(false),
            Err(other) => return Err(other),
        };
        let mut raw = vec![0; raw_len];
        Ok(chunk::open(decompressor, id, &frame, &mut raw).is_ok())
    }

    /// Puts the frame of a chunk, durable except for its name, which [`Writer::put_manifest`] makes so. A file that
    /// is there already is replaced: the caller asked [`Writer::reuse_chunk`] first, so it is damaged.
    ///
    /// The caller vouches that `frame` is `id`.
    ///
    /// # Errors
    /// Where the disk is full or broken.
    pub fn put_chunk(&self, id: ChunkId, frame: &[u8]) -> Result<(), StoreError> {
        self.hold(id);
        let path = self.store.chunk_path(id);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(StoreError::io("make", dir))?;
        }
        let (tmp, mut file) = self.store.tmp_file()?;
        let new = !path.exists();
        hit(Point::ImageChunk)
            .and_then(|()| file.write_all(frame))
            .and_then(|()| file.sync_all())
            .and_then(|()| hit(Point::ImageChunkWritten))
            .and_then(|()| fs::rename(&tmp, &path))
            .inspect_err(|_| discard(&tmp))
            .map_err(StoreError::io("write", &path))?;
        if new {
            self.mine().brought.insert(id);
        }
        Ok(())
    }

    /// Makes the image visible, after everything it needs is durable.
    ///
    /// # Errors
    /// Where the manifest contradicts itself, names a chunk that this writer neither put nor reused, or the disk
    /// fails; then nothing is visible.
    pub fn put_manifest(self, manifest: &Manifest) -> Result<ImageId, StoreError> {
        self.put_signed(manifest, None)
    }

    /// As [`Writer::put_manifest`], with its signature, which is there before the image is: none is ever seen without.
    ///
    /// # Errors
    /// As [`Writer::put_manifest`].
    pub fn put_signed(self, manifest: &Manifest, signature: Option<&str>) -> Result<ImageId, StoreError> {
        let id = self.put_one_of(manifest, signature)?;
        self.done();
        Ok(id)
    }

    /// All images are put: what was brought stays.
    pub fn done(self) {
        self.mine().brought.clear();
    }

    /// As [`Writer::put_signed`], for one of several images that this writer brings.
    ///
    /// # Errors
    /// As [`Writer::put_manifest`].
    pub fn put_one_of(&self, manifest: &Manifest, signature: Option<&str>) -> Result<ImageId, StoreError> {
        let id = self.prepare(manifest)?;
        if let Some(signature) = signature {
            self.store.put_signature(id, signature)?;
        }
        let path = self.store.manifest_path(id);
        hit(Point::ImageManifest).map_err(StoreError::io("write", &path))?;
        put(&self.store, &path, &manifest.canonical())?;
        // A name that might not last must not be seen either.
        hit(Point::ImageManifestPlaced)
            .map_err(StoreError::io("flush", &path))
            .and_then(|()| sync_dir(&self.store.root().join("manifests")))
            .inspect_err(|_| discard(&path))?;
        Ok(id)
    }

    /// Checks a manifest and makes all that it names durable, so that nothing but a full or broken disk keeps it from being
    /// put later. It cannot be seen yet.
    ///
    /// # Errors
    /// As [`Writer::put_manifest`].
    pub fn prepare(&self, manifest: &Manifest) -> Result<ImageId, StoreError> {
        let bytes = manifest.canonical();
        let id = manifest.id();
        let invalid = |cause| StoreError::Manifest { id, cause };
        if bytes.len() > MANIFEST_MAX {
            let why = format!("{} bytes, more than the {MANIFEST_MAX} a manifest may have", bytes.len());
            return Err(invalid(ManifestError::Invalid(why)));
        }
        Manifest::parse(&bytes).map_err(invalid)?;
        self.sync_names(id, manifest)?;
        Ok(id)
    }

    /// Makes the names of the manifest's chunks durable: their directories, then the directory of those.
    fn sync_names(&self, id: ImageId, manifest: &Manifest) -> Result<(), StoreError> {
        let mut dirs = BTreeSet::new();
        let mine = self.mine();
        for chunk in manifest.chunks.iter().flatten() {
            if !mine.held.contains(&chunk.id) {
                return Err(StoreError::ChunkNotHeld { id, chunk: chunk.id });
            }
            let path = self.store.chunk_path(chunk.id);
            if let Some(dir) = path.parent()
                && dirs.insert(dir.to_owned())
            {
                sync_dir(dir)?;
            }
        }
        sync_dir(&self.store.root().join("chunks"))
    }

    fn hold(&self, id: ChunkId) {
        if self.mine().held.insert(id) {
            *self.store.held().entry(id).or_default() += 1;
        }
    }

    fn mine(&self) -> std::sync::MutexGuard<'_, Mine> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Mine { held, brought } = std::mem::take(&mut *self.mine());
        self.store.release(&held);
        // What cannot be taken back now is found by the next garbage collection.
        let _ = self.store.collect_only(brought);
    }
}

impl Store {
    /// A new file in `tmp/` that nobody else has, for this process to fill and rename or remove.
    pub(crate) fn tmp_file(&self) -> Result<(PathBuf, File), StoreError> {
        loop {
            let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
            let path = self.0.root.join("tmp").join(format!("{}-{serial}", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&path) {
                // Another store or another container's process of the same number.
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    let file = other.map_err(StoreError::io("make", &path))?;
                    return Ok((path, file));
                }
            }
        }
    }
}

/// Puts a file in the place of the one that is there, durable before it has the name.
pub(super) fn put(store: &Store, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let (tmp, mut file) = store.tmp_file()?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&tmp, path))
        .inspect_err(|_| discard(&tmp))
        .map_err(StoreError::io("write", path))
}

/// Removes a file of ours that did not come to anything; where even that fails, there is nobody to tell.
fn discard(tmp: &Path) {
    let _ = fs::remove_file(tmp);
}
