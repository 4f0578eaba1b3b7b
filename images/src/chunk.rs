//! One chunk: a zstd frame (RFC 8878) whose raw bytes hash to the chunk's name.

use protocol::{ChunkId, Sha256};
use sha2::Digest;

use crate::manifest::{PROBE_BLOCK, Probe};

/// Largest frame accepted for a chunk of `raw` bytes: zstd's own bound for data that does not compress.
pub fn frame_max(raw: usize) -> usize {
    raw + (raw >> 8) + 1024
}

/// Why a frame is not the chunk it should be.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Not a zstd frame, or damaged.
    #[error("chunk {id}: frame does not decompress")]
    Frame {
        /// The chunk.
        id: ChunkId,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Decompresses to another length than the manifest says.
    #[error("chunk {id}: {found} raw bytes, manifest says {wanted}")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// Length found.
        found: usize,
        /// Length wanted.
        wanted: usize,
    },
    /// Raw bytes with another hash.
    #[error("chunk {id}: raw bytes hash to {found}")]
    Hash {
        /// The chunk.
        id: ChunkId,
        /// Hash found.
        found: Sha256,
    },
}

/// Decompresses `frame` into `raw` (which has the exact length of the chunk) and compares the hash. On error the
/// content of `raw` is not to be used.
///
/// # Errors
/// Where the frame is damaged or the bytes are not the chunk's.
pub fn open(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    id: ChunkId,
    frame: &[u8],
    raw: &mut [u8],
) -> Result<(), ChunkError> {
    let wanted = raw.len();
    let found =
        decompressor.decompress_to_buffer(frame, raw).map_err(|cause| ChunkError::Frame { id, cause })?;
    if found != wanted {
        return Err(ChunkError::Length { id, found, wanted });
    }
    let hash = sha256(raw);
    if hash == id.0 { Ok(()) } else { Err(ChunkError::Hash { id, found: hash }) }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// The probe of a chunk's raw bytes; `None` where they are all zero (then the chunk is a hole).
pub fn probe(raw: &[u8]) -> Option<Probe> {
    let (index, block) = raw.chunks(PROBE_BLOCK).enumerate().find(|(_, block)| !is_zero(block))?;
    Some(Probe(u32::try_from(index).ok()?, crc32fast::hash(block)))
}

/// True where every byte is zero. Compared 32 bytes at a time, which the compiler turns into vector compares.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, tail) = bytes.as_chunks::<32>();
    blocks.iter().all(|block| *block == [0; 32]) && tail.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompressor() -> zstd::bulk::Decompressor<'static> {
        zstd::bulk::Decompressor::new().unwrap()
    }

    #[test]
    fn a_chunk_opens_only_as_itself() {
        let raw = b"billet".repeat(1000);
        let id = ChunkId(sha256(&raw));
        let frame = zstd::bulk::compress(&raw, 3).unwrap();
        let mut buffer = vec![0; raw.len()];
        open(&mut decompressor(), id, &frame, &mut buffer).unwrap();
        assert_eq!(buffer, raw);
        let other = ChunkId(sha256(b"other"));
        let wrong = open(&mut decompressor(), other, &frame, &mut buffer);
        assert!(matches!(wrong, Err(ChunkError::Hash { .. })));
        let wrong = open(&mut decompressor(), id, &frame, &mut vec![0; raw.len() + 1]);
        assert!(matches!(wrong, Err(ChunkError::Length { found: 6000, wanted: 6001, .. })));
        let wrong = open(&mut decompressor(), id, &frame, &mut buffer[1..]);
        assert!(matches!(wrong, Err(ChunkError::Frame { .. })));
        let wrong = open(&mut decompressor(), id, &frame[..frame.len() - 1], &mut buffer);
        assert!(matches!(wrong, Err(ChunkError::Frame { .. })));
    }

    #[test]
    fn a_probe_is_the_first_block_with_data() {
        assert_eq!(probe(&[]), None);
        assert_eq!(probe(&[0; 3 * PROBE_BLOCK]), None);
        let mut raw = [0; 3 * PROBE_BLOCK - 5];
        raw[3 * PROBE_BLOCK - 6] = 1;
        assert_eq!(probe(&raw).unwrap(), Probe(2, crc32fast::hash(&raw[2 * PROBE_BLOCK..])));
        raw[0] = 1;
        assert_eq!(probe(&raw).unwrap().0, 0);
        // CRC-32/ISO-HDLC check value.
        assert_eq!(probe(b"123456789").unwrap().1, 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn zero_is_zero(len in 0_usize..200, at: prop::sample::Index, byte in 1_u8..) {
            let mut bytes = vec![0; len];
            prop_assert!(is_zero(&bytes));
            if len > 0 {
                bytes[at.index(len)] = byte;
                prop_assert!(!is_zero(&bytes));
            }
        }

        #[test]
        fn frames_of_noise_fit_their_bound(raw in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let frame = zstd::bulk::compress(&raw, 1).unwrap();
            prop_assert!(frame.len() <= frame_max(raw.len()));
        }
    }
}
