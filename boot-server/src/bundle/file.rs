//! A bundle as it is read, from a file or a stream: index and signature first, then piece by piece, each checked before anybody
//! gets it. Memory: the index, and one piece.

use std::io::{ErrorKind, Read};

use boot_server_core::bundle::{BLOCK, HEAD, Head, INDEX_MAX, Index, Piece};
use images::Manifest;
use images::chunk::{self, ChunkError, sha256};
use protocol::{ChunkId, ImageId, Sha256};

use super::{BundleError, Keys};

/// What a bundle says of itself, after its signature was checked.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What is in it.
    pub index: Index,
    /// The same as it stands in the file.
    pub octets: Vec<u8>,
    /// SHA-256 of that: which bundle it is.
    pub digest: Sha256,
    /// Its signature.
    pub signature: String,
    /// The key that signed it, second line.
    pub key: String,
}

/// The pieces of a bundle, in order.
pub struct Pieces<R> {
    from: R,
    decompressor: zstd::bulk::Decompressor<'static>,
    frame: Vec<u8>,
    raw: Vec<u8>,
}

/// Opens a bundle that one of these keys signed.
///
/// # Errors
/// [`BundleError`]; then nothing of it was looked at but its first octets.
pub fn open<R: Read>(mut from: R, keys: &Keys) -> Result<(Opened, Pieces<R>), BundleError> {
    let mut head = [0; HEAD];
    fill(&mut from, &mut head, "its first octets")?;
    let head = Head::parse(&head)?;
    let octets = taken(&mut from, head.index, "its index")?;
    let signature = taken(&mut from, head.signature, "its signature")?;
    let signature = String::from_utf8(signature).map_err(|_| BundleError::SignatureForm)?;
    let (key, comment) = keys.signer(&octets, &signature)?;
    let index = Index::parse(&octets)?;
    if comment != index.comment() {
        return Err(BundleError::Purpose(comment));
    }
    let decompressor = zstd::bulk::Decompressor::new().map_err(BundleError::Read)?;
    let pieces = Pieces { from, decompressor, frame: Vec::new(), raw: Vec::new() };
    Ok((Opened { digest: sha256(&octets), index, octets, signature, key }, pieces))
}

impl<R: Read> Pieces<R> {
    /// The next piece: its frame, and what is in it.
    pub fn next(&mut self, piece: &Piece) -> Result<(&[u8], &[u8]), BundleError> {
        self.frame.resize(piece.stored as usize, 0);
        fill(&mut self.from, &mut self.frame, "its pieces")?;
        if sha256(&self.frame) != piece.frame {
            return Err(BundleError::Altered(piece.id));
        }
        // Manifests may be larger; what they took is given back.
        self.raw.truncate(BLOCK as usize);
        self.raw.resize(piece.size as usize, 0);
        let opened = chunk::open(&mut self.decompressor, ChunkId(piece.id), &self.frame, &mut self.raw);
        opened.map_err(|cause| BundleError::Piece { id: piece.id, cause })?;
        Ok((&self.frame, &self.raw))
    }

    /// The manifests, which come first.
    pub fn manifests(&mut self, index: &Index) -> Result<Vec<(ImageId, Manifest)>, BundleError> {
        let mut manifests = Vec::with_capacity(index.images.len());
        for image in &index.images {
            let id = ImageId(image.manifest.id);
            let (_, raw) = self.next(&image.manifest)?;
            let manifest =
                Manifest::parse_as(raw, id).map_err(|cause| BundleError::Manifest { id, cause })?;
            if (&manifest.name, &manifest.version) != (&image.name, &image.version) {
                return Err(BundleError::Name(id));
            }
            manifests.push((id, manifest));
        }
        Ok(manifests)
    }

    /// Nothing may follow the last piece.
    pub fn end(mut self) -> Result<(), BundleError> {
        let mut one = [0];
        loop {
            match self.from.read(&mut one) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(BundleError::Trailing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BundleError::Read(error)),
            }
        }
    }

    /// Decompresses something that lies elsewhere.
    pub fn decompressor(&mut self) -> &mut zstd::bulk::Decompressor<'static> {
        &mut self.decompressor
    }
}

/// Compares a frame that lies elsewhere with its piece of a bundle.
pub fn check_frame(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    id: ChunkId,
    frame: &[u8],
    raw: &mut Vec<u8>,
    size: u32,
) -> Result<(), ChunkError> {
    raw.resize(size as usize, 0);
    chunk::open(decompressor, id, frame, raw)
}

fn fill(from: &mut impl Read, into: &mut [u8], what: &'static str) -> Result<(), BundleError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => BundleError::Truncated(what),
        _ => BundleError::Read(error),
    })
}

/// Octets as they come: what is announced costs nothing before it is there.
fn taken(from: &mut impl Read, length: u32, what: &'static str) -> Result<Vec<u8>, BundleError> {
    let mut octets = Vec::new();
    let limit = u64::from(length.min(INDEX_MAX));
    from.take(limit).read_to_end(&mut octets).map_err(BundleError::Read)?;
    if octets.len() as u64 == u64::from(length) { Ok(octets) } else { Err(BundleError::Truncated(what)) }
}
