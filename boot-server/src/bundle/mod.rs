//! Bundles: one file with everything that a site without a network needs, made on one machine and taken in on another.
//!
//! ```text
//! image store ┐                                                     ┌─▶ image store: chunks, which nobody can name yet
//! boot files  ┼─ create ─▶ index, signature, pieces ─▶ read, checked ┤
//! documents   ┘                                                     └─▶ bundles/staging: files, manifests
//!                                            all of it durable ─▶ rename ─▶ `current` is another link ─▶ manifests, list of images
//! ```
//!
//! What the file is lies in `boot_server_core::bundle`. Before `current` is changed nothing of a bundle can be seen, whatever
//! happens; after it, the next start finishes what was left.

mod create;
mod file;
mod gather;
mod import;
mod releases;
mod trust;

use std::io;
use std::path::{Path, PathBuf};

use boot_server_core::bundle::{HeadError, IndexError};
use protocol::{ImageId, Sha256};

pub use create::{Known, Made, Source, create};
pub use file::{Opened, open};
pub use gather::{Gather, gather};
pub use import::{Checked, Place, Wishes, finish, import, verify};
pub use releases::{Release, Releases};
pub use trust::Keys;

use crate::minisign::SignError;

/// Told the octets of the pieces that are done, and of all; may end it.
pub type Progress<'a> = dyn FnMut(u64, u64) -> std::ops::ControlFlow<()> + 'a;

/// Why a bundle was not made, or is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file of this machine.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The bundle cannot be read to its end.
    #[error("the bundle cannot be read")]
    Read(#[source] io::Error),
    /// Not the first octets of one.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// It ends in the middle.
    #[error("the bundle is cut off: it ends within {0}")]
    Truncated(&'static str),
    /// Something follows.
    #[error("something follows the end of the bundle")]
    Trailing,
    /// Nobody said whose bundles are taken.
    #[error("no key is trusted: a bundle does not say itself whether it may be trusted")]
    NoKeys,
    /// A key that is none.
    #[error("`{0}` is no public key as minisign has it")]
    Key(String),
    /// Not in the one form that is taken.
    #[error("the signature of the bundle is not as minisign writes it")]
    SignatureForm,
    /// By a key that nobody trusts.
    #[error("the bundle is signed by key {0}, which is not trusted here")]
    Stranger(String),
    /// The index or the signature was changed.
    #[error("the signature of the bundle")]
    Signature(#[source] SignError),
    /// It is a signature over something else.
    #[error("the signature is for `{0}`, not for this bundle")]
    Purpose(String),
    /// The signing key.
    #[error("the signing key")]
    Signing(#[source] SignError),
    /// What the index says.
    #[error("the index of the bundle is refused")]
    Index(#[from] IndexError),
    /// A piece.
    #[error("piece {0} of the bundle was changed")]
    Altered(Sha256),
    /// A piece that does not hold what its name says.
    #[error("piece {id} of the bundle does not hold what the index says")]
    Piece {
        /// Its name.
        id: Sha256,
        /// Why.
        #[source]
        cause: images::chunk::ChunkError,
    },
    /// A manifest.
    #[error("image {id} of the bundle")]
    Manifest {
        /// The image.
        id: ImageId,
        /// Why.
        #[source]
        cause: images::ManifestError,
    },
    /// A manifest that says something else than the index.
    #[error("image {0} has another name in the index than in its manifest")]
    Name(ImageId),
    /// A chunk that the manifest describes wrongly.
    #[error("chunk {0} does not fit what a manifest says of its first block")]
    Probe(protocol::ChunkId),
    /// Older than what was taken in.
    #[error("this is bundle {found}; bundle {floor} was taken in before")]
    Older {
        /// Its number.
        found: u64,
        /// The newest.
        floor: u64,
    },
    /// Another one of the same number.
    #[error("another bundle with number {0} was taken in before")]
    Same(u64),
    /// A part of what it lacks is not here.
    #[error("this bundle has only what bundle {base} lacks, and {what} of that is not here")]
    NoBase {
        /// The number of its base.
        base: u64,
        /// What is missing.
        what: String,
    },
    /// Not enough room.
    #[error("{} has {free} octets free, and {needed} are needed", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Octets.
        free: u64,
        /// Octets.
        needed: u64,
    },
    /// Two at once.
    #[error("another bundle is being taken in")]
    Busy,
    /// Somebody ended it.
    #[error("it was ended before it was done; nothing of the bundle can be seen")]
    Stopped,
    /// No such bundle.
    #[error("bundle {0} is not kept here")]
    NotKept(u64),
    /// A file whose name no bundle has.
    #[error("{} cannot be in a bundle: {cause}", path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: boot_server_core::bundle::PathError,
    },
    /// It changed while it was read.
    #[error("{0} changed while the bundle was made: make it again")]
    Changed(String),
    /// More than a bundle can hold.
    #[error("the index has {0} octets, more than a bundle can have: make two, the second with --since")]
    TooLarge(usize),
    /// A kernel without its ramdisk, or the reverse.
    #[error("{0}: a bundle has kernel and ramdisk together, or none of them")]
    Half(String),
    /// No such image.
    #[error("no image is `{0}`")]
    NoImage(String),
    /// The images.
    #[error("the image store")]
    Images(#[from] images::StoreError),
}

impl BundleError {
    /// Refusals of what is in the file, which no repetition changes.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::File { .. }
                | Self::Images(_)
                | Self::Busy
                | Self::Stopped
                | Self::NoSpace { .. }
                | Self::Read(_)
        )
    }

    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKeys => {
                "give the maker's public key with --key FILE, or list it under bundles.keys in the configuration; get it by \
                 another way than the bundle"
            }
            Self::Stranger(_) => {
                "if that key is right, give it with --key FILE, or list it under bundles.keys"
            }
            Self::Older { .. } | Self::Same(_) => {
                "take a newer one; --allow-older takes this one, and is written down"
            }
            Self::NoBase { .. } => "take in its base first, or make a bundle without --since",
            Self::NoSpace { .. } => "make room: `billet image remove`, or a larger disk",
            Self::Busy => "wait until it is done",
            Self::Head(HeadError::Version) => "take a newer billet from where the bundle was made",
            Self::File { .. } | Self::Images(_) => {
                "look at the disk; run this as root, or as the server's user"
            }
            Self::NotKept(_) => "see `billet bundle list`",
            Self::Half(_) | Self::NoImage(_) | Self::Path { .. } | Self::Changed(_) | Self::TooLarge(_) => {
                "mend that and make it again"
            }
            Self::Key(_) => {
                "a key is the second line of a .pub file of minisign, or of what `billet usage key` says"
            }
            Self::Stopped | Self::Read(_) => "nothing was changed; do it again",
            _ => "get the file again from where it was made; nothing of it was taken in",
        }
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |cause| BundleError::File { action, path, cause }
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), BundleError> {
    std::fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io("sync", path))
}

#[cfg(test)]
mod tests;
