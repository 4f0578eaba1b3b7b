//! Passwords, kept as argon2id (RFC 9106) with the parameters that OWASP's password storage cheat sheet asks for at least:
//! 19 MiB, 2 passes, 1 lane. Kept text: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`, as the PHC string format has it.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::secret::{self, NoRandomness};

/// Memory of one hash, in KiB.
const MEMORY: u32 = 19 * 1024;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Octets of salt.
const SALT: usize = 16;
/// Octets of the hash.
const HASH: usize = 32;
/// Memory that a stored text may ask for, in KiB; ours are all the same, until the number above is raised.
const MEMORY_MAX: u32 = 256 * 1024;
/// Shortest password, in characters (NIST SP 800-63B asks for 8; nobody here needs a short one).
const LENGTH_MIN: usize = 10;
/// Longest, in octets, so that nobody makes us hash a megabyte.
pub(super) const LENGTH_MAX: usize = 256;

/// Why it cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Too few characters.
    #[error("a password has at least {LENGTH_MIN} characters")]
    Short,
    /// Too many.
    #[error("a password has at most {LENGTH_MAX} octets")]
    Long,
    /// It is the name, or one character again and again.
    #[error("a password is neither the name nor one character again and again")]
    Plain,
}

/// Whether `text` can be the password of the user with this name. No rules about kinds of characters: length is what counts.
///
/// # Errors
/// [`Weak`].
pub fn check(text: &str, name: &str) -> Result<(), Weak> {
    let first = text.chars().next();
    if text.chars().count() < LENGTH_MIN {
        Err(Weak::Short)
    } else if text.len() > LENGTH_MAX {
        Err(Weak::Long)
    } else if text.eq_ignore_ascii_case(name) || text.chars().all(|c| Some(c) == first) {
        Err(Weak::Plain)
    } else {
        Ok(())
    }
}

/// What is kept of a password. Takes tens of milliseconds and 19 MiB: not on a thread of the runtime.
///
/// # Errors
/// Where the system gives no random bytes.
pub fn hash(text: &str) -> Result<String, NoRandomness> {
    let salt = &secret::random()?[..SALT];
    let hash = derive(text, salt, MEMORY, PASSES, LANES).unwrap_or_default();
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Ok(format!("$argon2id$v=19$m={MEMORY},t={PASSES},p={LANES}${salt}${hash}"))
}

/// Whether this is the password that was kept. Where nothing was kept, the work is the same, and the answer no.
pub fn verify(text: &str, kept: Option<&str>) -> bool {
    match kept.and_then(parse) {
        Some(kept) => {
            let found = derive(text, &kept.salt, kept.memory, kept.passes, kept.lanes);
            found.is_some_and(|found| found[..].ct_eq(&kept.hash).into())
        }
        None => {
            let nothing = derive(text, &[0; SALT], MEMORY, PASSES, LANES);
            std::hint::black_box(nothing);
            false
        }
    }
}

struct Kept {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

fn parse(text: &str) -> Option<Kept> {
    let rest = text.strip_prefix("$argon2id$v=19$")?;
    let mut parts = rest.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut costs = costs.split(',');
    let mut cost = |key: &str| costs.next()?.strip_prefix(key)?.parse::<u32>().ok();
    let (memory, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    let (salt, hash) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(hash).ok()?);
    let fits = memory <= MEMORY_MAX && passes <= 10 && lanes <= 4 && hash.len() == HASH;
    fits.then_some(Kept { memory, passes, lanes, salt, hash })
}

fn derive(text: &str, salt: &[u8], memory: u32, passes: u32, lanes: u32) -> Option<[u8; HASH]> {
    let params = Params::new(memory, passes, lanes, Some(HASH)).ok()?;
    let mut out = [0; HASH];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(text.as_bytes(), salt, &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the reference implementation: `echo -n "password" | argon2 somesalt -id -t 2 -k 65536 -p 1` and others of its
    /// test vectors (phc-winner-argon2, `src/test.c`, version 0x13, Argon2id).
    #[test]
    fn the_references_hashes_are_known() {
        let kept = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(verify("password", Some(kept)));
        assert!(!verify("Password", Some(kept)));
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let kept = hash("correct horse").unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert!(verify("correct horse", Some(&kept)) && !verify("correct horsf", Some(&kept)));
        assert_ne!(kept, hash("correct horse").unwrap(), "salted");
        assert!(!verify("", None) && !verify("x", Some("$argon2id$v=19$m=4294967295,t=1,p=1$AAAA$AAAA")));
    }

    #[test]
    fn length_is_what_counts() {
        assert_eq!(check("correct horse", "alice"), Ok(()));
        assert_eq!(check("short", "alice"), Err(Weak::Short));
        assert_eq!(check("aaaaaaaaaaaa", "alice"), Err(Weak::Plain));
        assert_eq!(check("Alice@example", "alice@example"), Err(Weak::Plain));
        assert_eq!(check(&"ab".repeat(200), "alice"), Err(Weak::Long));
    }
}
