//! SSH host keys that an OS tells of when it phones home, so that who logs in first can compare.

use serde::{Deserialize, Serialize};

/// Keys that are kept of one OS; OpenSSH makes three.
pub const KEYS_MAX: usize = 8;
/// Longest public key, in octets: RSA of 16,384 bits in base64 has 2,800.
pub const KEY_MAX: usize = 4096;

/// A host key by its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostKey {
    /// Such as `ssh-ed25519`.
    pub kind: String,
    /// As `ssh-keygen -l` shows it: `SHA256:` and the hash in base64.
    pub fingerprint: String,
}

/// Type and base64 text of a public key in the form of `ssh_host_*_key.pub`; nothing where it is none.
pub fn parts(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.len() > KEY_MAX {
        return None;
    }
    let mut words = line.split_ascii_whitespace();
    let (kind, body) = (words.next()?, words.next()?);
    let known = [
        "ssh-ed25519",
        "ssh-rsa",
        "ssh-dss",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
    ];
    known.contains(&kind).then_some((kind, body))
}

/// True where the blob is a key of this type: it begins with its name (RFC 4253 section 6.6).
pub fn is_of(kind: &str, blob: &[u8]) -> bool {
    let Some((length, rest)) = blob.split_first_chunk::<4>() else { return false };
    let length = u32::from_be_bytes(*length) as usize;
    rest.get(..length).is_some_and(|name| name == kind.as_bytes()) && rest.len() > length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_are_keys() {
        assert_eq!(parts(" ssh-ed25519 AAAA root@web-1\n"), Some(("ssh-ed25519", "AAAA")));
        for bad in [
            "",
            "ssh-ed25519",
            "N/A",
            "<script> AAAA",
            "ssh-ed25519<b> AAAA",
            &format!("ssh-rsa {}", "A".repeat(KEY_MAX)),
        ] {
            assert_eq!(parts(bad), None, "{bad:.40}");
        }
        assert!(is_of("ssh-rsa", b"\0\0\0\x07ssh-rsa\0\0\0\x01x"));
        for bad in [&b""[..], b"\0\0\0\x07ssh-dss1", b"\xff\xff\xff\xffssh-rsa", b"\0\0\0\x07ssh-rsa"] {
            assert!(!is_of("ssh-rsa", bad), "{bad:?}");
        }
    }
}
