//! The site's signing key: an Ed25519 key (RFC 8032) in a file of its own, by which others can tell that a head of the audit
//! came from this site. The key proves nothing against whoever has the server itself: heads that left it do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use boot_server_core::audit::Anchor;
use boot_server_core::audit::chain::{Checkpoint, signed_text};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use protocol::{Sha256, Timestamp};

use crate::secret::{self, NoRandomness};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file cannot be read or made.
    #[error("cannot {action} the site's signing key {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no signing key (64 hexadecimal digits): restore it from a backup", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The key.
pub struct SiteKey(SigningKey);

impl std::fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteKey({})", self.public())
    }
}

impl SiteKey {
    /// Reads the key at `path`; makes one, readable by the owner alone, where there is none.
    ///
    /// # Errors
    /// Where the file can be neither read nor made, or holds no key.
    pub fn open(path: &Path) -> Result<Self, SigningError> {
        let file = |action| move |cause| SigningError::File { action, path: path.to_owned(), cause };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let seed = secret::hex()?;
                secret::write_private(path, &format!("{seed}\n")).map_err(file("make"))?;
                tracing::info!(path = %path.display(), "made the site's signing key");
                seed
            }
            Err(cause) => return Err(file("read")(cause)),
        };
        let seed: Sha256 = text.trim().parse().map_err(|_| SigningError::NoKey { path: path.to_owned() })?;
        Ok(Self(SigningKey::from_bytes(&seed.0)))
    }

    /// The public key, 64 hexadecimal digits.
    pub fn public(&self) -> String {
        hex(self.0.verifying_key().as_bytes())
    }

    /// Signs octets; 128 hexadecimal digits.
    pub fn sign(&self, octets: &[u8]) -> String {
        hex(&self.0.sign(octets).to_bytes())
    }

    /// Signs a head of the audit.
    pub fn checkpoint(&self, head: Anchor, at: Timestamp) -> Checkpoint {
        let signature = self.sign(signed_text(&head, at).as_bytes());
        Checkpoint { head, at, key: self.public(), signature }
    }
}

/// True where the key that a checkpoint names has signed it. Whose key that is, somebody must know.
pub fn is_signed(it: &Checkpoint) -> bool {
    verify(&it.key, signed_text(&it.head, it.at).as_bytes(), &it.signature)
}

/// True where `signature` is that of `octets` by `key` (both hexadecimal).
pub fn verify(key: &str, octets: &[u8], signature: &str) -> bool {
    let (Some(key), Some(signature)) = (unhex::<32>(key), unhex::<64>(signature)) else { return false };
    VerifyingKey::from_bytes(&key)
        .is_ok_and(|key| key.verify_strict(octets, &Signature::from_bytes(&signature)).is_ok())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut octets = [0; N];
    for (octet, at) in octets.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn a_head_is_signed_and_nothing_else() {
        let scratch = Scratch::new();
        let path = scratch.0.join("site.key");
        let key = SiteKey::open(&path).unwrap();
        assert_eq!(SiteKey::open(&path).unwrap().public(), key.public(), "the same again");
        let it = key.checkpoint(Anchor { number: 7, hash: Sha256([3; 32]) }, Timestamp(5));
        assert!(is_signed(&it));
        for wrong in [
            Checkpoint { head: Anchor { number: 8, ..it.head }, ..it.clone() },
            Checkpoint { at: Timestamp(6), ..it.clone() },
            Checkpoint { key: SiteKey::open(&scratch.0.join("other.key")).unwrap().public(), ..it.clone() },
            Checkpoint { signature: it.signature.replace('a', "b").replace('1', "2"), ..it.clone() },
            Checkpoint { signature: "ü".repeat(64), ..it.clone() },
            Checkpoint { key: String::new(), ..it },
        ] {
            assert!(!is_signed(&wrong), "{wrong:?}");
        }
        fs::write(&path, "short").unwrap();
        assert!(matches!(SiteKey::open(&path), Err(SigningError::NoKey { .. })));
    }

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_rfc_8032() {
        let scratch = Scratch::new();
        let path = scratch.0.join("site.key");
        fs::write(&path, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SiteKey::open(&path).unwrap();
        assert_eq!(key.public(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(key.sign(&[0x72]), signature);
        assert!(verify(&key.public(), &[0x72], signature) && !verify(&key.public(), &[0x73], signature));
    }
}
