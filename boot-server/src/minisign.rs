//! Detached signatures as minisign has them (Ed25519 over BLAKE2b-512; jedisct1.github.io/minisign, "Signature format"): what the
//! server signs can be checked by `minisign -V`, and by `billet usage verify`, without the server.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::secret::{self, NoRandomness};

/// Algorithm of a signature over the hash of a file.
const HASHED: &[u8; 2] = b"ED";
/// Algorithm of a public key.
const KEY: &[u8; 2] = b"Ed";
/// What begins the line of the trusted comment.
const TRUSTED: &str = "trusted comment: ";

/// BLAKE2b-512 of what is signed.
pub type Hash = [u8; 64];

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
    /// No signature, or no key, of this form.
    #[error("this is no {0} of minisign's form")]
    Form(&'static str),
    /// By another key.
    #[error("the signature is by another key")]
    OtherKey,
    /// The file or the comment was changed, or the key is not that of the signer.
    #[error("the signature does not hold: the file was changed, or somebody else signed it")]
    Broken,
}

/// A key that signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    id: [u8; 8],
}

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
                let text = format!("{}\n", STANDARD.encode(secret::random()?));
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                let mut made = made.map_err(file("make"))?;
                made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(file("write"))?;
                text
            }
            Err(error) => return Err(file("read")(error)),
        };
        let seed = STANDARD.decode(text.trim()).map_err(|_| SignError::Damaged(path.to_owned()))?;
        Self::of(&seed).ok_or_else(|| SignError::Damaged(path.to_owned()))
    }

    fn of(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        // Its number follows from it, so that the key is one text.
        let mut id = [0; 8];
        id.copy_from_slice(&Blake2b512::digest(pair.public_key().as_ref())[..8]);
        Some(Self { pair, id })
    }

    /// The public key's file.
    pub fn public(&self) -> String {
        let octets = [&KEY[..], &self.id, self.pair.public_key().as_ref()].concat();
        format!("untrusted comment: Billet's public key for reports\n{}\n", STANDARD.encode(octets))
    }

    /// The signature's file for these octets. The comment is signed too; it has one line.
    pub fn sign(&self, octets: &[u8], comment: &str) -> String {
        self.sign_hash(&Blake2b512::digest(octets).into(), comment)
    }

    /// As [`Signer::sign`], for octets of which there are too many to have them together.
    pub fn sign_hash(&self, hash: &Hash, comment: &str) -> String {
        let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
        let signature = self.pair.sign(hash);
        let whole = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let first = [&HASHED[..], &self.id, signature.as_ref()].concat();
        format!(
            "untrusted comment: signature by Billet\n{}\n{TRUSTED}{comment}\n{}\n",
            STANDARD.encode(first),
            STANDARD.encode(whole)
        )
    }
}

/// Checks a signature's file against octets and a public key (its file, or its second line), and returns the comment that was
/// signed with them.
///
/// # Errors
/// [`SignError::Form`], [`SignError::OtherKey`], [`SignError::Broken`].
pub fn verify(octets: &[u8], signature: &str, public: &str) -> Result<String, SignError> {
    verify_hash(&Blake2b512::digest(octets).into(), signature, public)
}

/// As [`verify`], against the hash of octets.
///
/// # Errors
/// As [`verify`].
pub fn verify_hash(hash: &Hash, signature: &str, public: &str) -> Result<String, SignError> {
    let decoded = |line: Option<&str>, what| {
        STANDARD.decode(line.unwrap_or_default().trim()).map_err(|_| SignError::Form(what))
    };
    let line = public.lines().map(str::trim).rfind(|line| !line.is_empty());
    let key = decoded(line, "public key")?;
    let (Some(KEY), Some(id), Some(point), 42) =
        (key.get(..2).and_then(|k| k.as_array()), key.get(2..10), key.get(10..), key.len())
    else {
        return Err(SignError::Form("public key"));
    };
    let mut lines = signature.lines().skip(1);
    let first = decoded(lines.next(), "signature")?;
    let comment =
        lines.next().and_then(|line| line.strip_prefix(TRUSTED)).ok_or(SignError::Form("signature"))?;
    let whole = decoded(lines.next(), "signature")?;
    if first.len() != 74 || &first[..2] != HASHED || whole.len() != 64 {
        return Err(SignError::Form("signature"));
    }
    if &first[2..10] != id {
        return Err(SignError::OtherKey);
    }
    let key = UnparsedPublicKey::new(&ED25519, point);
    let holds = key.verify(hash, &first[10..]).is_ok()
        && key.verify(&[&first[10..], comment.as_bytes()].concat(), &whole).is_ok();
    if holds { Ok(comment.to_owned()) } else { Err(SignError::Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_holds_and_nothing_else() {
        let signer = Signer::of(&[7; 32]).unwrap();
        let signature = signer.sign(b"a,b\r\n", "usage.csv");
        assert_eq!(verify(b"a,b\r\n", &signature, &signer.public()).unwrap(), "usage.csv");
        let second_line = signer.public().lines().nth(1).unwrap().to_owned();
        assert!(verify(b"a,b\r\n", &signature, &second_line).is_ok(), "the key alone");
        assert!(matches!(verify(b"a,c\r\n", &signature, &signer.public()), Err(SignError::Broken)));
        let comment = signature.replace("usage.csv", "other.csv");
        assert!(matches!(verify(b"a,b\r\n", &comment, &signer.public()), Err(SignError::Broken)));
        let other = Signer::of(&[8; 32]).unwrap();
        assert!(matches!(verify(b"a,b\r\n", &signature, &other.public()), Err(SignError::OtherKey)));
        for bad in ["", "x\ny\nz\n", &signature[..40]] {
            assert!(matches!(verify(b"", bad, &signer.public()), Err(SignError::Form(_))), "{bad}");
        }
        assert!(matches!(verify(b"", &signature, "AAAA"), Err(SignError::Form(_))));
    }

    /// Checked once with minisign 0.11: it takes this key and this signature.
    #[test]
    fn the_form_is_minisigns() {
        let signer = Signer::of(&[7; 32]).unwrap();
        insta::assert_snapshot!(format!("{}{}", signer.public(), signer.sign(b"test", "comment")));
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
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Signer::open(&path), Err(SignError::Damaged(_))));
    }
}
