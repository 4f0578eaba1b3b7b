//! Making a bundle. Everything is read twice: once for the index, which comes first in the file, and once for the file; what
//! changed in between is found. The same content gives the same octets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use boot_server_core::bundle::{
    BLOCK, Base, BundleFile, BundleImage, FILE_MAX, Head, INDEX_MAX, Index, Piece, check_path,
};
use images::chunk::sha256;
use images::{Manifest, Store};
use protocol::{ChunkId, ImageId, Sha256};

use super::file::{check_frame, open};
use super::trust::normal;
use super::{BundleError, Keys, io, sync_dir};
use crate::minisign::Signer;

/// Level of zstd for files: they are packed once and read often.
const LEVEL: i32 = 6;

/// What a bundle is made of.
pub struct Source<'a> {
    /// Goes up from bundle to bundle.
    pub number: u64,
    /// Files, by the path that they get.
    pub files: Vec<(String, PathBuf)>,
    /// Images.
    pub images: Vec<ImageId>,
    /// Where those are.
    pub store: &'a Store,
    /// The site that takes it in has this one already.
    pub base: Option<Known>,
}

/// What is in a bundle that was made before.
#[derive(Debug, Clone)]
pub struct Known {
    base: Base,
    pieces: BTreeSet<Sha256>,
}

impl Known {
    /// Reads the beginning of a bundle: index and manifests.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(path: &Path, keys: &Keys) -> Result<Self, BundleError> {
        let file = File::open(path).map_err(io("read", path))?;
        let (opened, mut pieces) = open(BufReader::with_capacity(1 << 20, file), keys)?;
        let index = &opened.index;
        let mut all: BTreeSet<Sha256> =
            index.files.iter().flat_map(|file| file.blocks.iter().copied()).collect();
        for (_, manifest) in pieces.manifests(index)? {
            all.extend(manifest.chunks.iter().flatten().map(|chunk| chunk.id.0));
        }
        Ok(Self { base: Base { number: index.number, index: opened.digest }, pieces: all })
    }
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// What is in it.
    pub index: Index,
    /// SHA-256 of its index.
    pub digest: Sha256,
    /// Octets of the file.
    pub size: u64,
}

/// Writes a bundle to a new file. It gets its name when it is whole and durable.
///
/// # Errors
/// [`BundleError`]; the file is not there then.
pub fn create(source: Source<'_>, signer: &Signer, to: &Path) -> Result<Made, BundleError> {
    if to.exists() {
        return Err(io("make", to)(ErrorKind::AlreadyExists.into()));
    }
    let plan = Plan::new(source)?;
    let octets = plan.index.canonical();
    if octets.len() > INDEX_MAX as usize {
        return Err(BundleError::TooLarge(octets.len()));
    }
    // Whoever reads it says the same of it.
    Index::parse(&octets)?;
    let signature = signer.sign(&octets, &plan.index.comment());
    let signature = normal(&signature).ok_or(BundleError::SignatureForm)?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).map_err(io("make", &part))?;
    let written = plan.write(&octets, &signature, &file).inspect_err(|_| drop(fs::remove_file(&part)));
    written?;
    file.sync_all().map_err(io("write", &part))?;
    let size = file.metadata().map_err(io("read", &part))?.len();
    fs::rename(&part, to).map_err(io("make", to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent)?;
    Ok(Made { digest: sha256(&octets), index: plan.index, size })
}

/// What will be written, in order.
struct Plan<'a> {
    index: Index,
    /// Files by path, as they are read.
    files: Vec<PathBuf>,
    store: &'a Store,
    /// What the base has, and what was planned.
    known: BTreeSet<Sha256>,
}

impl<'a> Plan<'a> {
    fn new(source: Source<'a>) -> Result<Self, BundleError> {
        let Source { number, mut files, mut images, store, base } = source;
        let (base, known) = base.map_or((None, BTreeSet::new()), |known| (Some(known.base), known.pieces));
        let index = Index::new(number, env!("CARGO_PKG_VERSION"), base);
        let mut plan = Self { index, files: Vec::new(), store, known };
        images.sort_unstable();
        images.dedup();
        images.iter().try_for_each(|id| plan.image(*id))?;
        files.sort();
        for (path, from) in files {
            plan.file(path, &from)?;
            plan.files.push(from);
        }
        Ok(plan)
    }

    fn image(&mut self, id: ImageId) -> Result<(), BundleError> {
        let octets = self.store.manifest_bytes(id)?;
        let manifest =
            Manifest::parse_as(&octets, id).map_err(|cause| BundleError::Manifest { id, cause })?;
        let frame = pack(&octets)?;
        let mut decompressor = zstd::bulk::Decompressor::new().map_err(BundleError::Read)?;
        let mut raw = Vec::new();
        for (number, chunk) in manifest.chunks.iter().enumerate() {
            let Some(chunk) = chunk.as_ref().filter(|chunk| self.known.insert(chunk.id.0)) else { continue };
            let size = u32::try_from(manifest.chunk_len(number)).unwrap_or(u32::MAX);
            let frame = self.store.chunk_frame(chunk.id)?;
            check_frame(&mut decompressor, chunk.id, &frame, &mut raw, size)
                .map_err(images::StoreError::Chunk)?;
            self.index.chunks.push(piece(chunk.id.0, size, &frame));
        }
        let size = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        let (name, version) = (manifest.name, manifest.version);
        self.index.images.push(BundleImage {
            name,
            version,
            manifest: piece(id.0, size, &frame),
            signature: None,
        });
        Ok(())
    }

    fn file(&mut self, path: String, from: &Path) -> Result<(), BundleError> {
        check_path(&path).map_err(|cause| BundleError::Path { path: from.to_owned(), cause })?;
        let (mut blocks, mut size) = (Vec::new(), 0_u64);
        each_block(from, |raw| {
            let id = sha256(raw);
            blocks.push(id);
            size += raw.len() as u64;
            if size > FILE_MAX {
                return Err(io("pack", from)(ErrorKind::FileTooLarge.into()));
            }
            if self.known.insert(id) {
                let size = u32::try_from(raw.len()).unwrap_or(BLOCK);
                self.index.blocks.push(piece(id, size, &pack(raw)?));
            }
            Ok(())
        })?;
        self.index.files.push(BundleFile { path, size, blocks });
        Ok(())
    }

    fn write(&self, octets: &[u8], signature: &str, file: &File) -> Result<(), BundleError> {
        let to = &mut BufWriter::with_capacity(1 << 20, file);
        let length = |length: usize| u32::try_from(length).map_err(|_| BundleError::TooLarge(length));
        let head = Head { index: length(octets.len())?, signature: length(signature.len())? };
        put(to, &head.octets())?;
        put(to, octets)?;
        put(to, signature.as_bytes())?;
        for image in &self.index.images {
            let id = ImageId(image.manifest.id);
            same(&image.manifest, &pack(&self.store.manifest_bytes(id)?)?, || format!("image {id}"), to)?;
        }
        let mut blocks = self.index.blocks.iter().peekable();
        for from in &self.files {
            each_block(from, |raw| {
                let id = sha256(raw);
                match blocks.next_if(|next| next.id == id) {
                    Some(piece) => same(piece, &pack(raw)?, || from.display().to_string(), to),
                    // It was written before, or the base has it, or it is another one now: then one is left at the end.
                    None => Ok(()),
                }
            })?;
        }
        if blocks.next().is_some() {
            return Err(BundleError::Changed("a file".to_owned()));
        }
        for piece in &self.index.chunks {
            let frame = self.store.chunk_frame(ChunkId(piece.id))?;
            same(piece, &frame, || format!("chunk {}", piece.id), to)?;
        }
        to.flush().map_err(BundleError::Read)
    }
}

/// Writes a piece, if it is what the index says.
fn same(
    piece: &Piece,
    frame: &[u8],
    what: impl Fn() -> String,
    to: &mut impl Write,
) -> Result<(), BundleError> {
    if sha256(frame) != piece.frame {
        return Err(BundleError::Changed(what()));
    }
    put(to, frame)
}

fn put(to: &mut impl Write, octets: &[u8]) -> Result<(), BundleError> {
    to.write_all(octets).map_err(io("write", Path::new("the bundle")))
}

fn piece(id: Sha256, size: u32, frame: &[u8]) -> Piece {
    Piece { id, size, frame: sha256(frame), stored: u32::try_from(frame.len()).unwrap_or(u32::MAX) }
}

fn pack(raw: &[u8]) -> Result<Vec<u8>, BundleError> {
    zstd::bulk::compress(raw, LEVEL).map_err(BundleError::Read)
}

/// Reads a file in blocks.
fn each_block(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let mut raw = Vec::with_capacity(BLOCK as usize);
    loop {
        raw.clear();
        (&mut file).take(u64::from(BLOCK)).read_to_end(&mut raw).map_err(io("read", path))?;
        if raw.is_empty() {
            return Ok(());
        }
        take(&raw)?;
    }
}
