//! Crate `images`: what an image is, and whose is taken. A manifest names chunks, and is signed; a chunk is a piece of the raw disk, named by the
//! SHA-256 of its raw bytes and carried as one zstd frame. Where chunks are kept and who may fetch them is the
//! server's business; how they reach a disk is the agent's.

pub mod chunk;
#[cfg(feature = "ingest")]
pub mod disk;
#[cfg(feature = "ingest")]
pub mod ingest;
#[cfg(feature = "ingest")]
pub mod initramfs;
pub mod manifest;
pub mod minisign;
#[cfg(feature = "ingest")]
pub mod reader;
#[cfg(test)]
#[cfg(feature = "ingest")]
mod scratch;
#[cfg(feature = "ingest")]
pub mod store;
pub mod trust;

pub use manifest::{Architecture, ChunkRef, Datasource, Firmware, Manifest, ManifestError, PartitionTable};
#[cfg(feature = "ingest")]
pub use {
    ingest::{IngestError, IngestOptions, IngestProgress, Limits, ingest, ingest_signed},
    reader::{Format, Source},
    store::{Store, StoreError},
};
