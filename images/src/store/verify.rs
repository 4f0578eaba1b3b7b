//! Reading an image back and hashing all of it again.

use std::ops::ControlFlow;

use protocol::{ChunkId, ImageId, Sha256};
use sha2::Digest;

use super::{Store, StoreError};
use crate::chunk::{self, ChunkError};
use crate::manifest::ChunkRef;

/// What [`Store::verify`] found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The image.
    pub image: ImageId,
    /// Chunks looked at; holes are not counted.
    pub checked: u64,
    /// Chunks that are missing or wrong, in disk order.
    pub bad: Vec<BadChunk>,
    /// SHA-256 of the whole raw image where it is not what the manifest says; only known where no chunk is bad.
    pub whole: Option<Sha256>,
    /// True where the caller stopped before the end, so the rest is not known.
    pub stopped: bool,
}

/// One chunk of an image that cannot be used.
#[derive(Debug)]
pub struct BadChunk {
    /// Its place in the manifest.
    pub index: usize,
    /// Its offset on the raw disk, in bytes.
    pub offset: u64,
    /// Its id.
    pub id: ChunkId,
    /// What is wrong.
    pub fault: ChunkFault,
}

/// What is wrong with a chunk.
#[derive(Debug, thiserror::Error)]
pub enum ChunkFault {
    /// No file.
    #[error("missing")]
    Missing,
    /// The file cannot be read.
    #[error("unreadable")]
    Unreadable(#[source] StoreError),
    /// The bytes are not the chunk's.
    #[error(transparent)]
    Damaged(#[from] ChunkError),
    /// The bytes are right and the manifest's probe of them is not.
    #[error("probe in the manifest does not fit the chunk")]
    Probe,
}

impl VerifyReport {
    /// True where every byte of the image is there and right.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.whole.is_none() && !self.stopped
    }
}

impl Store {
    /// Reads every chunk of an image, and compares all hashes.
    ///
    /// # Errors
    /// Where the manifest itself is missing or damaged; what is wrong with chunks stands in the report.
    pub fn verify(&self, id: ImageId) -> Result<VerifyReport, StoreError> {
        self.verify_with(id, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Store::verify`]; `progress` is told the raw bytes done and the raw bytes in all, and can stop it.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn verify_with(
        &self,
        id: ImageId,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<VerifyReport, StoreError> {
        let manifest = self.manifest(id)?;
        let mut report = VerifyReport { image: id, checked: 0, bad: Vec::new(), whole: None, stopped: false };
        let mut whole = sha2::Sha256::new();
        let mut buffer = vec![0; manifest.chunk_size as usize];
        let mut decompressor = decompressor()?;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let offset = manifest.chunk_offset(index);
            let raw = buffer.get_mut(..manifest.chunk_len(index)).unwrap_or_default();
            match chunk {
                None => raw.fill(0),
                Some(chunk) => {
                    report.checked += 1;
                    if let Err(fault) = self.check_chunk(&mut decompressor, chunk, raw) {
                        report.bad.push(BadChunk { index, offset, id: chunk.id, fault });
                    }
                }
            }
            if report.bad.is_empty() {
                whole.update(&*raw);
            }
            if progress(offset + raw.len() as u64, manifest.raw_size).is_break() {
                report.stopped = index + 1 < manifest.chunks.len();
                break;
            }
        }
        let found = Sha256(whole.finalize().into());
        if report.bad.is_empty() && !report.stopped && found != manifest.sha256 {
            report.whole = Some(found);
        }
        Ok(report)
    }

    fn check_chunk(
        &self,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
        chunk: &ChunkRef,
        raw: &mut [u8],
    ) -> Result<(), ChunkFault> {
        let frame = self.chunk_frame(chunk.id).map_err(|e| match e {
            StoreError::NoChunk(_) => ChunkFault::Missing,
            other => ChunkFault::Unreadable(other),
        })?;
        chunk::open(decompressor, chunk.id, &frame, raw)?;
        if chunk::probe(raw) == Some(chunk.probe) { Ok(()) } else { Err(ChunkFault::Probe) }
    }
}

/// A decompressor; that fails only where memory is short.
fn decompressor() -> Result<zstd::bulk::Decompressor<'static>, StoreError> {
    zstd::bulk::Decompressor::new().map_err(StoreError::io("decompress", std::path::Path::new("chunks")))
}
