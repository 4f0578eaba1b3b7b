//! What a bundle is: one file with everything that a site without a network needs. Here is its form, and what of it is
//! refused; reading, writing and taking in are the shell's.
//!
//! ```text
//! "billet-bundle 1\n"            16 octets
//! length of the index            u32, little-endian
//! length of the signature        u32, little-endian
//! index                          canonical JSON: names, size and SHA-256 of every piece, in the order of the file
//! signature                      of the index, as minisign has it
//! manifests, blocks, chunks      one zstd frame each, without gaps; nothing behind the last
//! ```
//!
//! The index comes first and is signed as a whole, so nothing behind it is looked at before it is known whose it is, and
//! nothing is decompressed that the signer did not name. A file is a list of blocks, a block has its hash as its name: what
//! two files or two bundles share is there once. No piece has a path; only the index has, and it takes few characters.

mod index;
mod path;

pub use index::{Base, BundleFile, BundleImage, Index, IndexError, Piece, Wanted};
pub use path::{PathError, check as check_path};

use images::manifest::{CHUNK_SIZE, MANIFEST_MAX};

/// First octets of a bundle; the number goes up when the rest changes.
pub const MAGIC: &[u8; 16] = b"billet-bundle 1\n";
/// Octets before the index.
pub const HEAD: usize = 24;
/// Largest index in octets: 300,000 pieces, that is about 1 TiB. It is in memory, with what it says, while a bundle is read.
pub const INDEX_MAX: u32 = 64 << 20;
/// Largest signature in octets; one of minisign's has about 300.
pub const SIGNATURE_MAX: u32 = 4096;
/// Raw octets of a block, except the last one of a file.
pub const BLOCK: u32 = CHUNK_SIZE;
/// Largest file in octets.
pub const FILE_MAX: u64 = 16 << 30;
/// Most files, and most images.
pub const NAMES_MAX: usize = 4096;
/// Largest manifest of an image in octets.
pub const MANIFEST_RAW_MAX: u32 = MANIFEST_MAX as u32;

/// How much there is before the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Octets of the index.
    pub index: u32,
    /// Octets of the signature.
    pub signature: u32,
}

/// Why the first octets are not those of a bundle that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Something else.
    #[error("this is no bundle")]
    NoBundle,
    /// Made by a newer program.
    #[error("this is a bundle of another form than this program reads (1): take a newer program")]
    Version,
    /// Longer than it may be, or empty.
    #[error("the index has {0} octets; one has 1 to {INDEX_MAX}")]
    Index(u32),
    /// Longer than it may be, or empty.
    #[error("the signature has {0} octets; one has 1 to {SIGNATURE_MAX}")]
    Signature(u32),
}

impl Head {
    /// Reads the first octets.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(octets: &[u8; HEAD]) -> Result<Self, HeadError> {
        let [magic @ .., i0, i1, i2, i3, s0, s1, s2, s3] = *octets;
        if &magic != MAGIC {
            let known = magic.starts_with(&MAGIC[..14]);
            return Err(if known { HeadError::Version } else { HeadError::NoBundle });
        }
        let (index, signature) = (u32::from_le_bytes([i0, i1, i2, i3]), u32::from_le_bytes([s0, s1, s2, s3]));
        if index == 0 || index > INDEX_MAX {
            return Err(HeadError::Index(index));
        }
        if signature == 0 || signature > SIGNATURE_MAX {
            return Err(HeadError::Signature(signature));
        }
        Ok(Self { index, signature })
    }

    /// The first octets.
    pub fn octets(self) -> [u8; HEAD] {
        let mut octets = [0; HEAD];
        octets[..16].copy_from_slice(MAGIC);
        octets[16..20].copy_from_slice(&self.index.to_le_bytes());
        octets[20..].copy_from_slice(&self.signature.to_le_bytes());
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_octets_say_what_it_is() {
        let head = Head { index: 1000, signature: 300 };
        assert_eq!(Head::parse(&head.octets()), Ok(head));
        let with = |change: fn(&mut [u8; HEAD])| {
            let mut octets = head.octets();
            change(&mut octets);
            Head::parse(&octets)
        };
        assert_eq!(with(|o| o[0] = b'B'), Err(HeadError::NoBundle));
        assert_eq!(with(|o| o[14] = b'2'), Err(HeadError::Version));
        assert_eq!(with(|o| o[19] = 0x80), Err(HeadError::Index(0x8000_03e8)));
        assert_eq!(with(|o| o[16..20].fill(0)), Err(HeadError::Index(0)));
        assert_eq!(with(|o| o[22] = 1), Err(HeadError::Signature(0x1_012c)));
        assert_eq!(with(|o| o[20..].fill(0)), Err(HeadError::Signature(0)));
    }
}
