//! The server's own signatures, in minisign's form ([`images::minisign`]): what it says of itself, such as a report, can be checked by
//! `minisign -V`, and by `billet usage verify`, without the server. Here is the key's file. Images are signed by another key, the site's
//! ([`crate::engine`], `trust`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use images::minisign::{Hash, hash};
use images::minisign::{MinisignError, PublicKey, SecretKey, Signature};

use crate::secret::{self, NoRandomness};

/// What the first line of the public key's file says.
const TITLE: &str = "Billet's public key for reports";

/// Why nothing is signed, or a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key's file.
    #[error("cannot {action} the signing key {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is in it.
    #[error("{} holds no signing key; remove it, and a new one is made", .0.display())]
    Damaged(PathBuf),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Not of this form, by another key, or broken.
    #[error(transparent)]
    Minisign(#[from] MinisignError),
}

/// A key that signs.
pub struct Signer(SecretKey);

impl Signer {
    /// Reads the key at `path`; makes one, readable by its owner alone, where there is none.
    ///
    /// # Errors
    /// Where the file can be neither read nor made, or holds something else.
    pub fn open(path: &Path) -> Result<Self, SignError> {
        let file = |action| move |cause| SignError::File { action, path: path.to_owned(), cause };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = SecretKey::of_seed(&secret::random()?).to_file("Billet's private key for reports");
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                let mut made = made.map_err(file("make"))?;
                made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(file("write"))?;
                text
            }
            Err(error) => return Err(file("read")(error)),
        };
        SecretKey::parse(&text).map(Self).map_err(|_| SignError::Damaged(path.to_owned()))
    }

    /// The public key's file.
    pub fn public(&self) -> String {
        self.0.public().to_file(TITLE)
    }

    /// The signature's file for these octets. The comment is signed too; it has one line.
    pub fn sign(&self, octets: &[u8], comment: &str) -> String {
        self.0.sign(octets, comment)
    }

    /// As [`Signer::sign`], for octets of which there are too many to have them together.
    pub fn sign_hash(&self, hash: &Hash, comment: &str) -> String {
        self.0.sign_hash(hash, comment)
    }
}

/// Checks a signature's file against octets and a public key (its file, or its second line), and returns the comment that was
/// signed with them.
///
/// # Errors
/// [`SignError::Minisign`].
pub fn verify(octets: &[u8], signature: &str, public: &str) -> Result<String, SignError> {
    verify_hash(&hash(octets), signature, public)
}

/// As [`verify`], against the hash of octets.
///
/// # Errors
/// As [`verify`].
pub fn verify_hash(hash: &Hash, signature: &str, public: &str) -> Result<String, SignError> {
    let (key, signature): (PublicKey, Signature) = (public.parse()?, signature.parse()?);
    Ok(signature.verify(&key, hash)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked once with minisign 0.11: it takes this key and this signature.
    #[test]
    fn the_form_is_minisigns() {
        let signer = Signer(SecretKey::of_seed(&[7; 32]));
        insta::assert_snapshot!(format!("{}{}", signer.public(), signer.sign(b"test", "comment")));
        let broken = verify(b"tesT", &signer.sign(b"test", "comment"), &signer.public());
        assert!(matches!(broken, Err(SignError::Minisign(MinisignError::Broken))));
    }

    #[test]
    fn a_key_is_made_once() {
        let scratch = crate::store::tests::Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let path = scratch.0.join("signing.key");
        let first = Signer::open(&path).unwrap().public();
        assert_eq!(Signer::open(&path).unwrap().public(), first);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // As it was written before keys had minisign's form.
        fs::write(&path, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
        assert_eq!(Signer::open(&path).unwrap().0.public(), SecretKey::of_seed(&[7; 32]).public());
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Signer::open(&path), Err(SignError::Damaged(_))));
    }
}
