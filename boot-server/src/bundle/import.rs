//! Taking a bundle in, and looking whether it could be: one pass over a file or a stream. Everything that it brings lies where
//! nobody can name it until all of it was checked and is durable; then one link is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use boot_server_core::bundle::{Index, Wanted};
use images::chunk;
use images::{Manifest, Store};
use nix::sys::statvfs::statvfs;
use protocol::{ChunkId, ImageId, Sha256, Timestamp};

use super::file::{Opened, Pieces, check_frame, open};
use super::releases::{Note, Release, Releases, describe};
use super::{BundleError, Keys, Progress, io, sync_dir};

/// Octets that must stay free beside what is needed: the database goes on.
const SPARE: u64 = 16 << 20;

/// Where bundles are taken in.
#[derive(Debug, Clone)]
pub struct Place {
    /// The site's directory.
    pub state_dir: PathBuf,
    /// Its images.
    pub images: Store,
}

/// How it is to be done.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Also one that is older than what was there.
    pub allow_older: bool,
    /// By whom.
    pub by: String,
    /// When.
    pub now: Timestamp,
}

/// A bundle in which everything is as it should be.
#[derive(Debug)]
pub struct Checked {
    /// What it is.
    pub opened: Opened,
    /// Why this site would refuse it nevertheless: it is older, or its base is not here.
    pub refused: Option<BundleError>,
}

/// Reads a bundle from end to end and changes nothing. With a `place`, says too whether it could be taken in there.
///
/// # Errors
/// [`BundleError`].
pub fn verify(
    from: impl Read,
    keys: &Keys,
    place: Option<&Place>,
    progress: &mut Progress<'_>,
) -> Result<Checked, BundleError> {
    let (opened, mut pieces) = open(from, keys)?;
    let index = &opened.index;
    let manifests = pieces.manifests(index)?;
    let wanted = index.wanted(manifests.iter().map(|(_, manifest)| manifest))?;
    let mut done = Done::new(index, progress);
    for piece in &index.blocks {
        pieces.next(piece)?;
        done.add(piece.stored)?;
    }
    for piece in &index.chunks {
        let (_, raw) = pieces.next(piece)?;
        probe(&wanted, ChunkId(piece.id), raw)?;
        done.add(piece.stored)?;
    }
    let fits = |place: &Place, pieces: &mut Pieces<_>| {
        let releases = Releases::new(&place.state_dir);
        releases.judge(index.number, opened.digest, false)?;
        let mut raw = Vec::new();
        foreign_chunks(index, &wanted, &mut |id, size| match place.images.chunk_frame(id) {
            Ok(frame) => Ok(check_frame(pieces.decompressor(), id, &frame, &mut raw, size).is_ok()),
            Err(images::StoreError::NoChunk(_) | images::StoreError::TooLarge { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        })?;
        foreign_blocks(index, &releases, &mut |_, _| Ok(()))
    };
    let refused = place.and_then(|place| fits(place, &mut pieces).err());
    pieces.end()?;
    Ok(Checked { opened, refused })
}

/// Takes a bundle in. Whatever ends it before its end, nothing of it can be seen, and it can be done again.
///
/// When it returns, boot files of the bundle are served and its images lie in the image store; the list of images is the caller's.
///
/// # Errors
/// [`BundleError`].
pub fn import(
    from: impl Read,
    keys: &Keys,
    place: &Place,
    wishes: &Wishes,
    progress: &mut Progress<'_>,
) -> Result<Release, BundleError> {
    let releases = Releases::new(&place.state_dir);
    let _lock = releases.lock()?;
    let (opened, mut pieces) = open(from, keys)?;
    let index = &opened.index;
    let over = releases.judge(index.number, opened.digest, wishes.allow_older)?;
    let manifests = pieces.manifests(index)?;
    let wanted = index.wanted(manifests.iter().map(|(_, manifest)| manifest))?;
    let writer = place.images.writer();
    foreign_chunks(index, &wanted, &mut |id, size| {
        Ok(writer.reuse_chunk(id, size as usize, pieces.decompressor())?)
    })?;
    room(index, place)?;
    let staging = Staging::new(releases.staging()?, index)?;
    staging.manifests(&manifests)?;
    foreign_blocks(index, &releases, &mut |id, raw| staging.block(id, raw))?;
    let mut done = Done::new(index, progress);
    for piece in &index.blocks {
        let (_, raw) = pieces.next(piece)?;
        staging.block(piece.id, raw)?;
        done.add(piece.stored)?;
    }
    for piece in &index.chunks {
        let id = ChunkId(piece.id);
        let (frame, raw) = pieces.next(piece)?;
        probe(&wanted, id, raw)?;
        let new = !place.images.chunk_path(id).exists();
        if new {
            writer.put_chunk(id, frame)?;
        } else {
            let frame = frame.to_vec();
            if !writer.reuse_chunk(id, piece.size as usize, pieces.decompressor())? {
                writer.put_chunk(id, &frame)?;
            }
        }
        done.add(piece.stored)?;
    }
    pieces.end()?;
    for (_, manifest) in &manifests {
        writer.prepare(manifest)?;
    }
    let note = Note { at: wishes.now, key: opened.key.clone(), by: wishes.by.clone(), over };
    describe(&staging.dir, &opened.octets, &opened.signature, &note)?;
    staging.durable()?;
    releases.commit(&staging.dir, index.number, opened.digest)?;
    // From here on it is what the site has; what fails now is done by the next start.
    for (_, manifest) in &manifests {
        writer.put_one_of(manifest, None)?;
    }
    writer.done();
    let release = releases.current()?.ok_or(BundleError::NotKept(index.number))?;
    releases.finished(&release)?;
    Ok(Release { finished: true, ..release })
}

/// Finishes what a crash left between the switch and the images of a bundle.
///
/// # Errors
/// Where a chunk is gone, or the disk fails.
pub fn finish(release: &Release, place: &Place) -> Result<(), BundleError> {
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(BundleError::Read)?;
    let writer = place.images.writer();
    for image in &release.index.images {
        let id = ImageId(image.manifest.id);
        if place.images.manifest(id).is_ok() {
            continue;
        }
        let path = release.dir.join("manifests").join(format!("{id}.json"));
        let octets = fs::read(&path).map_err(io("read", &path))?;
        let manifest =
            Manifest::parse_as(&octets, id).map_err(|cause| BundleError::Manifest { id, cause })?;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let Some(chunk) = chunk else { continue };
            if !writer.reuse_chunk(chunk.id, manifest.chunk_len(index), &mut decompressor)? {
                return Err(images::StoreError::NoChunk(chunk.id).into());
            }
        }
        writer.put_one_of(&manifest, None)?;
    }
    writer.done();
    Releases::new(&place.state_dir).finished(release)
}

/// Takes a block of a file.
type Take<'a> = dyn FnMut(Sha256, &[u8]) -> Result<(), BundleError> + 'a;

/// How far it is.
struct Done<'a, 'b> {
    done: u64,
    all: u64,
    progress: &'a mut Progress<'b>,
}

impl<'a, 'b> Done<'a, 'b> {
    fn new(index: &Index, progress: &'a mut Progress<'b>) -> Self {
        Self { done: 0, all: index.stored(), progress }
    }

    fn add(&mut self, octets: u32) -> Result<(), BundleError> {
        self.done += u64::from(octets);
        match (self.progress)(self.done, self.all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BundleError::Stopped),
        }
    }
}

/// The agent trusts what a manifest says of the first block of a chunk: it must be so.
fn probe(wanted: &BTreeMap<ChunkId, Wanted>, id: ChunkId, raw: &[u8]) -> Result<(), BundleError> {
    let fits = wanted.get(&id).is_some_and(|this| chunk::probe(raw) == Some(this.chunk.probe));
    if fits { Ok(()) } else { Err(BundleError::Probe(id)) }
}

/// Every chunk that is not in the bundle must be here, and good.
fn foreign_chunks(
    index: &Index,
    wanted: &BTreeMap<ChunkId, Wanted>,
    is_here: &mut dyn FnMut(ChunkId, u32) -> Result<bool, BundleError>,
) -> Result<(), BundleError> {
    let own: BTreeSet<Sha256> = index.chunks.iter().map(|piece| piece.id).collect();
    for (id, this) in wanted.iter().filter(|(id, _)| !own.contains(&id.0)) {
        if !is_here(*id, this.size)? {
            return Err(no_base(index, format!("chunk {id} of an image")));
        }
    }
    Ok(())
}

/// Reads every block that is not in the bundle from one that was taken in before.
fn foreign_blocks(index: &Index, releases: &Releases, take: &mut Take<'_>) -> Result<(), BundleError> {
    let wanted = index.foreign_blocks();
    let places = releases.blocks(&wanted)?;
    let mut raw = Vec::new();
    for (id, size) in &wanted {
        raw.resize(*size as usize, 0);
        let good = places.get(id).is_some_and(|(path, offset)| {
            let read = File::open(path).and_then(|file| file.read_exact_at(&mut raw, *offset));
            read.is_ok() && chunk::sha256(&raw) == *id
        });
        if !good {
            return Err(no_base(index, format!("block {id} of a file")));
        }
        take(*id, &raw)?;
    }
    Ok(())
}

fn no_base(index: &Index, what: String) -> BundleError {
    BundleError::NoBase { base: index.base.map_or(0, |base| base.number), what }
}

/// Everything must find room before anything is written.
fn room(index: &Index, place: &Place) -> Result<(), BundleError> {
    let missing = index.chunks.iter().filter(|piece| !place.images.chunk_path(ChunkId(piece.id)).exists());
    let manifests: u64 = index.images.iter().map(|image| u64::from(image.manifest.size)).sum();
    let chunks = missing.map(|piece| u64::from(piece.stored)).sum::<u64>() + manifests;
    let files = index.file_octets() + manifests;
    let (state, images) = (place.state_dir.as_path(), place.images.root());
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).map_err(io("look at", path));
    if device(state)? == device(images)? {
        return free(state, chunks + files);
    }
    free(state, files)?;
    free(images, chunks)
}

fn free(path: &Path, needed: u64) -> Result<(), BundleError> {
    let stat = statvfs(path).map_err(|error| io("look at", path)(error.into()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let needed = needed.saturating_add(SPARE);
    if free >= needed { Ok(()) } else { Err(BundleError::NoSpace { path: path.to_owned(), free, needed }) }
}

/// Files of a bundle on their way in.
struct Staging {
    dir: PathBuf,
    files: Vec<PathBuf>,
    /// Which files have a block, and where.
    places: BTreeMap<Sha256, Vec<(usize, u64)>>,
    dirs: BTreeSet<PathBuf>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // It has another name by now, or it came to nothing. What stays is removed by the next import.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Staging {
    /// All files, empty. Their paths were checked with the index, and the directory is ours and was empty: nothing in it is a
    /// link.
    fn new(dir: PathBuf, index: &Index) -> Result<Self, BundleError> {
        let mut staging = Self { files: Vec::new(), places: BTreeMap::new(), dirs: BTreeSet::new(), dir };
        staging.dirs.insert(staging.dir.clone());
        for file in &index.files {
            let path = staging.dir.join(&file.path);
            staging.make_dirs(&path)?;
            let mode = if file.path.starts_with("bin/") { 0o755 } else { 0o644 };
            let made = File::options().write(true).create_new(true).mode(mode).open(&path);
            made.and_then(|made| made.set_len(file.size)).map_err(io("make", &path))?;
            for (id, offset, _) in file.places() {
                staging.places.entry(id).or_default().push((staging.files.len(), offset));
            }
            staging.files.push(path);
        }
        Ok(staging)
    }

    fn make_dirs(&mut self, path: &Path) -> Result<(), BundleError> {
        let below = path.ancestors().skip(1).take_while(|dir| **dir != *self.dir);
        let missing: Vec<PathBuf> = below.map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            if self.dirs.insert(dir.clone()) {
                fs::create_dir(&dir).map_err(io("make", &dir))?;
            }
        }
        Ok(())
    }

    /// Puts a block wherever it belongs.
    fn block(&self, id: Sha256, raw: &[u8]) -> Result<(), BundleError> {
        for (number, offset) in self.places.get(&id).into_iter().flatten() {
            let Some(path) = self.files.get(*number) else { continue };
            let file = File::options().write(true).open(path).map_err(io("open", path))?;
            file.write_all_at(raw, *offset).map_err(io("write", path))?;
        }
        Ok(())
    }

    fn manifests(&self, manifests: &[(ImageId, Manifest)]) -> Result<(), BundleError> {
        let dir = self.dir.join("manifests");
        fs::create_dir(&dir).map_err(io("make", &dir))?;
        for (id, manifest) in manifests {
            let path = dir.join(format!("{id}.json"));
            let written = fs::write(&path, manifest.canonical()).and_then(|()| File::open(&path)?.sync_all());
            written.map_err(io("write", &path))?;
        }
        sync_dir(&dir)
    }

    /// All of it stays, whatever happens to the machine.
    fn durable(&self) -> Result<(), BundleError> {
        for path in &self.files {
            File::open(path).and_then(|file| file.sync_all()).map_err(io("write", path))?;
        }
        self.dirs.iter().try_for_each(|dir| sync_dir(dir))
    }
}
