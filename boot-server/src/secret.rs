//! Tokens and nonces: made from the system's random source, kept only as SHA-256 hashes. And what is signed by a secret,
//! and files that hold one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::Sha256;
use sha2::Digest as _;
use subtle::ConstantTimeEq as _;

/// The system gives no random bytes (kernel without entropy, or a broken sandbox).
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness(#[source] getrandom::Error);

/// 256 random bits.
///
/// # Errors
/// Where the system gives none.
pub fn random() -> Result<[u8; 32], NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// 256 random bits as 64 hexadecimal digits (boot nonces).
///
/// # Errors
/// Where the system gives none.
pub fn hex() -> Result<String, NoRandomness> {
    Ok(Sha256(random()?).to_string())
}

/// 256 random bits as 43 characters of base64url (RFC 4648 section 5), without padding.
///
/// # Errors
/// Where the system gives none.
pub fn token() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

/// SHA-256 of a secret's text, which is all that is kept of it.
pub fn hash(text: &str) -> Sha256 {
    Sha256(sha2::Sha256::digest(text.as_bytes()).into())
}

/// SHA-256 of octets.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// Compares two hashes in constant time.
pub fn same(a: &Sha256, b: &Sha256) -> bool {
    a.0.ct_eq(&b.0).into()
}

/// HMAC-SHA-256 (RFC 2104).
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Writes a file that its owner alone can read; a new one each time, because the mode of an old one could let others read.
/// It has its name only once it is complete and durable. Its directory is made where there is none.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_added_extension("new");
    let _ = fs::remove_file(&temporary); // left by a crash, or not there
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let hex = |key: &[u8], text: &[u8]| Sha256(hmac(key, text)).to_string();
        assert_eq!(
            hex(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn secrets_have_their_forms() {
        assert_eq!(hex().unwrap().len(), 64);
        let token = token().unwrap();
        assert_eq!(token.len(), 43);
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert!(same(&hash(&token), &hash(&token)));
        assert!(!same(&hash(&token), &hash("")));
        assert_eq!(
            hash("abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
