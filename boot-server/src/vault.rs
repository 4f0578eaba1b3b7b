//! Secrets at rest: passwords of management controllers and keys of second factors, sealed before they go into the database.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under a key of 256 bits in its own file, with a random nonce of 192 bits
//! for each. What is sealed is bound to its place (row and column) as associated data, so that a value that is copied to
//! another row cannot be opened there.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bmc::Secret;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use protocol::Sha256;
use uuid::Uuid;

use crate::secret::{self, NoRandomness};

/// What every sealed text begins with: the way it was sealed.
const VERSION: &str = "1.";
/// Octets of a nonce.
const NONCE: usize = 24;

/// Why a secret cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be read or made.
    #[error("cannot {action} the key file {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Others can read the key.
    #[error(
        "the key file {} can be read by others (mode {mode:o}): `chmod 600` it, and give the BMCs new passwords if somebody may have read it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds something else.
    #[error("the key file {} holds no key (64 hexadecimal digits): restore it from a backup", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Sealed with another key, for another place, or damaged.
    #[error("a stored secret cannot be opened: it was sealed with another key, or it is damaged")]
    Sealed,
}

/// Where a secret is kept.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The row it is in: that of a node, or a user.
    pub row: Uuid,
    /// Table and column.
    pub column: &'static str,
}

impl Place {
    fn associated(&self) -> String {
        format!("{} {}", self.column, self.row)
    }
}

/// The key. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    cipher: XChaCha20Poly1305,
    /// Another key, made of the first, for names that nobody can guess.
    names: [u8; 32],
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Reads the key at `path`; makes one, readable by the owner alone, where there is none.
    ///
    /// # Errors
    /// Where the file can be neither read nor made, can be read by others, or holds no key.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let file = |action| move |cause| VaultError::File { action, path: path.to_owned(), cause };
        let text = match fs::metadata(path) {
            Ok(found) => {
                let mode = found.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(VaultError::Open { path: path.to_owned(), mode });
                }
                fs::read_to_string(path).map_err(file("read"))?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = secret::hex()?;
                secret::write_private(path, &format!("{key}\n")).map_err(file("make"))?;
                tracing::info!(path = %path.display(), "made a new key for secrets: back it up beside the database");
                key
            }
            Err(cause) => return Err(file("read")(cause)),
        };
        let key: Sha256 = text.trim().parse().map_err(|_| VaultError::NoKey { path: path.to_owned() })?;
        let names = secret::hmac(&key.0, b"billet names");
        Ok(Self { cipher: XChaCha20Poly1305::new(&key.0.into()), names })
    }

    /// A name that only who has the key can make, the same each time.
    pub fn name(&self, what: &str) -> Sha256 {
        Sha256(secret::hmac(&self.names, what.as_bytes()))
    }

    /// A digest of octets that only who has the key can make: what is short or likely cannot be guessed from it.
    pub fn digest(&self, octets: &[u8]) -> Sha256 {
        let key = secret::hmac(&self.names, b"billet audit digest");
        Sha256(secret::hmac(&key, octets))
    }

    /// Seals a text for its place.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn seal(&self, place: Place, text: &Secret) -> Result<String, VaultError> {
        let mut sealed = secret::random()?[..NONCE].to_vec();
        let nonce = nonce(&sealed).ok_or(VaultError::Sealed)?;
        let aad = place.associated();
        let payload = Payload { msg: text.0.as_bytes(), aad: aad.as_bytes() };
        sealed.extend(self.cipher.encrypt(&nonce, payload).map_err(|_| VaultError::Sealed)?);
        Ok(format!("{VERSION}{}", STANDARD_NO_PAD.encode(sealed)))
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`VaultError::Sealed`].
    pub fn unseal(&self, place: Place, sealed: &str) -> Result<Secret, VaultError> {
        let text = sealed.strip_prefix(VERSION).ok_or(VaultError::Sealed)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| VaultError::Sealed)?;
        let (start, rest) = bytes.split_at_checked(NONCE).ok_or(VaultError::Sealed)?;
        let nonce = nonce(start).ok_or(VaultError::Sealed)?;
        let aad = place.associated();
        let payload = Payload { msg: rest, aad: aad.as_bytes() };
        let text = self.cipher.decrypt(&nonce, payload).map_err(|_| VaultError::Sealed)?;
        String::from_utf8(text).map(Secret).map_err(|_| VaultError::Sealed)
    }
}

fn nonce(bytes: &[u8]) -> Option<XNonce> {
    <[u8; NONCE]>::try_from(bytes).ok().map(XNonce::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    fn place(node: u128) -> Place {
        Place { row: Uuid::from_u128(node), column: "bmcs.password" }
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let scratch = Scratch::new();
        let path = scratch.0.join("secrets.key");
        let vault = Vault::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let secret = Secret("calvin".into());
        let sealed = vault.seal(place(1), &secret).unwrap();
        assert!(!sealed.contains("calvin") && sealed != vault.seal(place(1), &secret).unwrap());
        let again = Vault::open(&path).unwrap();
        assert_eq!(again.unseal(place(1), &sealed).unwrap(), secret);
        assert!(again.unseal(place(2), &sealed).is_err(), "copied to another node");
        let column = Place { column: "bmcs.next_password", ..place(1) };
        assert!(again.unseal(column, &sealed).is_err(), "copied to another column");
        let mut damaged = sealed.clone();
        damaged.replace_range(10..11, if &sealed[10..11] == "A" { "B" } else { "A" });
        for wrong in ["", "1.", "2.AAAA", "1.AAAA", damaged.as_str()] {
            assert!(again.unseal(place(1), wrong).is_err(), "{wrong}");
        }
        let other = Vault::open(&scratch.0.join("other.key")).unwrap();
        assert!(other.unseal(place(1), &sealed).is_err());
        assert_eq!(format!("{vault:?} {secret:?}"), "Vault (secret)");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.0.join("secrets.key");
        Vault::open(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Vault::open(&path).unwrap_err();
            assert!(
                matches!(error, VaultError::Open { .. }) && error.to_string().contains("chmod 600"),
                "{error}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(Vault::open(&path), Err(VaultError::NoKey { .. })));
    }
}
