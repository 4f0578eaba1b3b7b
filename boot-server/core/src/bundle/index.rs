//! The index of a bundle: canonical JSON that names every piece by its hash and size. What it says of itself is checked
//! here; that the pieces are what it says, where they are read.

use std::collections::{BTreeMap, BTreeSet};

use images::chunk::frame_max;
use images::manifest::is_name;
use images::{ChunkRef, Manifest};
use protocol::{ChunkId, ImageId, Sha256};
use serde::{Deserialize, Serialize};

use super::path::{self, PathError};
use super::{BLOCK, FILE_MAX, MANIFEST_RAW_MAX, NAMES_MAX};

/// Value of [`Index::format`].
const FORMAT: &str = "billet-bundle/1";

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Which form this is.
    pub format: String,
    /// Goes up from bundle to bundle: a site takes no smaller one than it had.
    pub number: u64,
    /// Version of Billet that made it.
    pub version: String,
    /// What must have been taken in before; absent where everything is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Images, in order of id. Their manifests come first in the file.
    pub images: Vec<BundleImage>,
    /// Files, in order of path.
    pub files: Vec<BundleFile>,
    /// Pieces of files.
    pub blocks: Vec<Piece>,
    /// Pieces of images.
    pub chunks: Vec<Piece>,
}

/// An older bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its index.
    pub index: Sha256,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleImage {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The manifest: its id is that of the image.
    pub manifest: Piece,
    /// The manifest's signature, as minisign has it, where the image has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFile {
    /// Where it lies, below the bundle's own directory.
    pub path: String,
    /// Octets.
    pub size: u64,
    /// Its octets in blocks of 4 MiB, by SHA-256.
    pub blocks: Vec<Sha256>,
}

/// One zstd frame of the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// SHA-256 of the raw octets.
    pub id: Sha256,
    /// Raw octets.
    pub size: u32,
    /// SHA-256 of the frame, which is compared before it is decompressed.
    pub frame: Sha256,
    /// Octets of the frame.
    pub stored: u32,
}

/// Why an index is refused.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not JSON, or not of this shape.
    #[error("it is not an index of form {FORMAT}")]
    Json(#[from] serde_json::Error),
    /// Other octets than this program would write.
    #[error("it is not in canonical form")]
    NotCanonical,
    /// A path.
    #[error("the path `{path}` is refused: {cause}")]
    Path {
        /// As far as it can be shown.
        path: String,
        /// Why.
        cause: PathError,
    },
    /// A path that another one leads through, or the same twice, or not in order.
    #[error("the path `{0}` is there twice, leads through a file, or is not in order")]
    Order(String),
    /// An image twice, or not in order.
    #[error("image {0} is there twice, or is not in order")]
    Image(ImageId),
    /// A piece twice.
    #[error("piece {0} is there twice")]
    Twice(Sha256),
    /// A piece whose sizes cannot be.
    #[error("piece {id} says that {stored} octets become {size}")]
    Size {
        /// The piece.
        id: Sha256,
        /// Octets in the bundle.
        stored: u32,
        /// Raw.
        size: u32,
    },
    /// A piece that nothing needs.
    #[error("piece {0} belongs to nothing")]
    Stray(Sha256),
    /// A piece that is needed and not there, in a bundle without a base.
    #[error("piece {id} of {of} is not in the bundle")]
    Missing {
        /// The piece.
        id: Sha256,
        /// A path or an image.
        of: String,
    },
    /// Anything else that contradicts itself.
    #[error("{0}")]
    Invalid(String),
}

/// What a piece of an image must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Raw octets.
    pub size: u32,
    /// As the manifest has it.
    pub chunk: ChunkRef,
}

impl Index {
    /// Parses canonical octets and checks them.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn parse(octets: &[u8]) -> Result<Self, IndexError> {
        let index: Self = serde_json::from_slice(octets)?;
        index.check()?;
        if index.canonical() == octets { Ok(index) } else { Err(IndexError::NotCanonical) }
    }

    /// The canonical octets: compact JSON, fields in order of declaration.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// A new one, of this program's form.
    pub fn new(number: u64, version: &str, base: Option<Base>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            number,
            version: version.to_owned(),
            base,
            images: Vec::new(),
            files: Vec::new(),
            blocks: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// What is signed with it, so that no signature over something else passes for that of a bundle.
    pub fn comment(&self) -> String {
        format!("billet bundle {}", self.number)
    }

    /// All pieces in the order of the file.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.images.iter().map(|image| &image.manifest).chain(&self.blocks).chain(&self.chunks)
    }

    /// Octets of all pieces in the file.
    pub fn stored(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.stored)).sum()
    }

    /// Octets of all files when they are laid out.
    pub fn file_octets(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Which blocks must come from elsewhere, with the octets that each has; empty where all are in the bundle.
    pub fn foreign_blocks(&self) -> BTreeMap<Sha256, u32> {
        let own: BTreeSet<Sha256> = self.blocks.iter().map(|piece| piece.id).collect();
        let all = self.files.iter().flat_map(BundleFile::places);
        all.filter(|(id, ..)| !own.contains(id)).map(|(id, _, size)| (id, size)).collect()
    }

    /// What the chunks of these images must be; `manifests` are all of them.
    ///
    /// # Errors
    /// Where a manifest names a chunk that is neither here nor in a base, two of them disagree about one, or a chunk is here
    /// that none of them names or that has another size there.
    pub fn wanted<'a>(
        &self,
        manifests: impl IntoIterator<Item = &'a Manifest>,
    ) -> Result<BTreeMap<ChunkId, Wanted>, IndexError> {
        let mut wanted = BTreeMap::new();
        let own: BTreeMap<Sha256, u32> = self.chunks.iter().map(|piece| (piece.id, piece.size)).collect();
        for manifest in manifests {
            for (index, chunk) in manifest.chunks.iter().enumerate() {
                let Some(chunk) = *chunk else { continue };
                let size = u32::try_from(manifest.chunk_len(index)).unwrap_or(u32::MAX);
                let this = Wanted { size, chunk };
                if self.base.is_none() && !own.contains_key(&chunk.id.0) {
                    let of = format!("image {}:{}", manifest.name, manifest.version);
                    return Err(IndexError::Missing { id: chunk.id.0, of });
                }
                if *wanted.entry(chunk.id).or_insert(this) != this {
                    return Err(IndexError::Invalid(format!("images disagree about chunk {}", chunk.id)));
                }
            }
        }
        for (id, size) in own {
            match wanted.get(&ChunkId(id)) {
                None => return Err(IndexError::Stray(id)),
                Some(this) if this.size != size => {
                    return Err(IndexError::Invalid(format!(
                        "chunk {id} has {size} octets, not {}",
                        this.size
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(wanted)
    }

    fn check(&self) -> Result<(), IndexError> {
        let invalid = |why: &str| Err(IndexError::Invalid(why.to_owned()));
        if self.format != FORMAT {
            return invalid("it is of another form than this program reads");
        }
        if self.number == 0 {
            return invalid("its number is 0");
        }
        if !(1..=64).contains(&self.version.len()) || !self.version.bytes().all(|b| b.is_ascii_graphic()) {
            return invalid("its version is no version");
        }
        if self.base.is_some_and(|base| base.number >= self.number) {
            return invalid("its base is not older than itself");
        }
        if self.files.len() > NAMES_MAX || self.images.len() > NAMES_MAX {
            return invalid("it has more than 4,096 files or images");
        }
        self.check_images()?;
        self.check_files()?;
        sizes(&self.blocks, BLOCK)?;
        sizes(&self.chunks, BLOCK)?;
        self.check_blocks()
    }

    fn check_images(&self) -> Result<(), IndexError> {
        let mut last = None;
        for image in &self.images {
            let id = image.manifest.id;
            if last.is_some_and(|last| last >= id) {
                return Err(IndexError::Image(ImageId(id)));
            }
            last = Some(id);
            size(&image.manifest, MANIFEST_RAW_MAX)?;
            let signature = image.signature.as_ref().map_or(0, String::len);
            if !is_name(&image.name) || !is_name(&image.version) || signature > super::SIGNATURE_MAX as usize
            {
                return Err(IndexError::Invalid(format!("image {id} has no name, or too long a signature")));
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), IndexError> {
        let mut known = BTreeSet::new();
        let mut last = "";
        for file in &self.files {
            let shown = || file.path.chars().take(80).filter(|c| !c.is_control()).collect::<String>();
            path::check(&file.path).map_err(|cause| IndexError::Path { path: shown(), cause })?;
            let through = file.path.match_indices('/').any(|(at, _)| known.contains(&file.path[..at]));
            if *last >= *file.path || through {
                return Err(IndexError::Order(shown()));
            }
            last = &file.path;
            known.insert(file.path.as_str());
            if file.size > FILE_MAX || file.blocks.len() as u64 != file.size.div_ceil(u64::from(BLOCK)) {
                return Err(IndexError::Invalid(format!("{}: its blocks do not make its size", shown())));
            }
        }
        Ok(())
    }

    /// Every block is needed, has the size that its place asks for, and without a base all are there.
    fn check_blocks(&self) -> Result<(), IndexError> {
        let own: BTreeMap<Sha256, u32> = self.blocks.iter().map(|piece| (piece.id, piece.size)).collect();
        let mut needed: BTreeMap<Sha256, u32> = BTreeMap::new();
        for file in &self.files {
            for (id, _, size) in file.places() {
                let here = own.get(&id);
                if here.is_none() && self.base.is_none() {
                    return Err(IndexError::Missing { id, of: file.path.clone() });
                }
                if here.is_some_and(|here| *here != size) || *needed.entry(id).or_insert(size) != size {
                    return Err(IndexError::Invalid(format!("{}: block {id} has another size", file.path)));
                }
            }
        }
        match own.keys().find(|id| !needed.contains_key(*id)) {
            Some(stray) => Err(IndexError::Stray(*stray)),
            None => Ok(()),
        }
    }
}

impl BundleFile {
    /// Its blocks, each with offset and octets.
    pub fn places(&self) -> impl Iterator<Item = (Sha256, u64, u32)> {
        let block = u64::from(BLOCK);
        self.blocks.iter().zip(0_u64..).map(move |(id, number)| {
            let offset = number.saturating_mul(block);
            let size = self.size.saturating_sub(offset).min(block);
            (*id, offset, u32::try_from(size).unwrap_or(BLOCK))
        })
    }
}

/// Each piece can be what it says, and is there once.
fn sizes(pieces: &[Piece], max: u32) -> Result<(), IndexError> {
    let mut known = BTreeSet::new();
    for piece in pieces {
        size(piece, max)?;
        if !known.insert(piece.id) {
            return Err(IndexError::Twice(piece.id));
        }
    }
    Ok(())
}

fn size(piece: &Piece, max: u32) -> Result<(), IndexError> {
    let Piece { id, size, stored, .. } = *piece;
    let fits = (1..=max).contains(&size) && stored > 0 && stored as usize <= frame_max(size as usize);
    if fits { Ok(()) } else { Err(IndexError::Size { id, stored, size }) }
}

#[cfg(test)]
mod tests;
