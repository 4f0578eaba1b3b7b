//! Cipher suites and keys (IPMI 2.0 revision 1.1, sections 13.20 to 13.32). Only suites that authenticate, protect and
//! encrypt exist here; suite 0 and its like cannot be named.

use aes::Aes128;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// AES block and initialisation vector, in octets.
pub const BLOCK: usize = 16;

/// A cipher suite (table 22-20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

/// Numbers of the three algorithms of a suite (tables 13-17 to 13-19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithms {
    /// RAKP's.
    pub authentication: u8,
    /// That of the session's packets.
    pub integrity: u8,
    /// That of their payload.
    pub confidentiality: u8,
}

impl Suite {
    /// All, the best first.
    pub const ALL: [Self; 2] = [Self::Seventeen, Self::Three];

    /// Its number.
    pub fn id(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Seventeen => 17,
        }
    }

    /// The suite of this number; `None` for those that are not used here.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.id() == id)
    }

    /// Its algorithms.
    pub fn algorithms(self) -> Algorithms {
        match self {
            Self::Three => Algorithms { authentication: 1, integrity: 1, confidentiality: 1 },
            Self::Seventeen => Algorithms { authentication: 3, integrity: 4, confidentiality: 1 },
        }
    }

    /// The suite of these algorithms; `None` for those that are not used here.
    pub fn from_algorithms(algorithms: Algorithms) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.algorithms() == algorithms)
    }

    /// Octets of an integrity check value, in packets and in RAKP 4 (section 13.28).
    pub fn check_len(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }

    /// Octets of a key exchange authentication code, in RAKP 2 and 3.
    pub fn code_len(self) -> usize {
        match self {
            Self::Three => 20,
            Self::Seventeen => 32,
        }
    }

    /// HMAC over the parts, one behind the other.
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Code {
        match self {
            Self::Three => mac::<Hmac<Sha1>>(key, parts),
            Self::Seventeen => mac::<Hmac<Sha256>>(key, parts),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Code {
    let mut code = Code { octets: [0; 32], len: 0 };
    // HMAC takes keys of any length (RFC 2104 section 2).
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return code };
    for part in parts {
        mac.update(part);
    }
    let tag = mac.finalize().into_bytes();
    for (to, from) in code.octets.iter_mut().zip(&tag) {
        *to = *from;
    }
    code.len = tag.len().min(code.octets.len());
    code
}

/// A code of HMAC, or a key made by it. Compared in constant time, never printed.
#[derive(Clone)]
pub struct Code {
    octets: [u8; 32],
    len: usize,
}

impl Code {
    /// Its octets.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Its first octets, at most `len`.
    pub fn cut(&self, len: usize) -> &[u8] {
        &self.octets[..self.len.min(len)]
    }

    /// True where `theirs` is all of it, or its first `len` octets; the time taken does not tell where they differ.
    pub fn matches(&self, theirs: &[u8], len: usize) -> bool {
        let ours = self.cut(len);
        !ours.is_empty() && bool::from(ours.ct_eq(theirs))
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(code)")
    }
}

/// What both ends of a handshake know after RAKP 2.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The suite.
    pub suite: Suite,
    /// Session id of the remote console, `SID_M`.
    pub console: u32,
    /// Session id of the controller, `SID_C`.
    pub bmc: u32,
    /// Random number of the console, `R_M`.
    pub console_random: [u8; 16],
    /// Random number of the controller, `R_C`.
    pub bmc_random: [u8; 16],
    /// GUID of the controller.
    pub guid: [u8; 16],
    /// Requested privilege level with the bit for the kind of look-up, as in RAKP 1.
    pub role: u8,
    /// User name.
    pub user: Vec<u8>,
}

impl Handshake {
    fn user_len(&self) -> [u8; 1] {
        // RAKP 1 has one octet for it; names are at most 16 octets.
        [u8::try_from(self.user.len()).unwrap_or(u8::MAX)]
    }

    /// The code of RAKP 2, by the user's password (section 13.31).
    pub fn rakp2(&self, password: &[u8]) -> Code {
        let parts: &[&[u8]] = &[
            &self.console.to_le_bytes(),
            &self.bmc.to_le_bytes(),
            &self.console_random,
            &self.bmc_random,
            &self.guid,
            &[self.role],
            &self.user_len(),
            &self.user,
        ];
        self.suite.mac(password, parts)
    }

    /// The code of RAKP 3, by the user's password (section 13.31).
    pub fn rakp3(&self, password: &[u8]) -> Code {
        let parts: &[&[u8]] =
            &[&self.bmc_random, &self.console.to_le_bytes(), &[self.role], &self.user_len(), &self.user];
        self.suite.mac(password, parts)
    }

    /// The session integrity key, by K_g, or the password where there is none (section 13.31).
    pub fn session_key(&self, key: &[u8]) -> Code {
        let parts: &[&[u8]] =
            &[&self.console_random, &self.bmc_random, &[self.role], &self.user_len(), &self.user];
        self.suite.mac(key, parts)
    }

    /// The integrity check value of RAKP 4, before it is cut to [`Suite::check_len`].
    pub fn rakp4(&self, session_key: &Code) -> Code {
        self.suite.mac(session_key.as_slice(), &[&self.console_random, &self.bmc.to_le_bytes(), &self.guid])
    }
}

/// Keys of the packets of a session (section 13.32).
#[derive(Debug, Clone)]
pub struct Keys {
    suite: Suite,
    integrity: Code,
    encryption: [u8; BLOCK],
}

impl Keys {
    /// Makes K1 and K2 of the session integrity key.
    pub fn new(suite: Suite, session_key: &Code) -> Self {
        let second = suite.mac(session_key.as_slice(), &[&[2; 20]]);
        let mut encryption = [0; BLOCK];
        encryption.copy_from_slice(&second.octets[..BLOCK]);
        Self { suite, integrity: suite.mac(session_key.as_slice(), &[&[1; 20]]), encryption }
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The integrity check value of these octets, before it is cut.
    pub fn check(&self, octets: &[u8]) -> Code {
        self.suite.mac(self.integrity.as_slice(), &[octets])
    }

    /// Encrypts with this vector (section 13.29): vector, then the payload and its padding, encrypted.
    pub fn encrypt(&self, vector: [u8; BLOCK], payload: &[u8]) -> Vec<u8> {
        let pad = (BLOCK - (payload.len() + 1) % BLOCK) % BLOCK;
        let mut text = payload.to_vec();
        text.extend((1..=pad).map(|n| n as u8));
        text.push(pad as u8);
        let len = text.len();
        let cipher = cbc::Encryptor::<Aes128>::new(&self.encryption.into(), &vector.into());
        let mut out = vector.to_vec();
        // The text is a whole number of blocks, so there is always room.
        if let Ok(text) = cipher.encrypt_padded::<NoPadding>(&mut text, len) {
            out.extend_from_slice(text);
        }
        out
    }

    /// Decrypts what [`Keys::encrypt`] makes; `None` where it is none.
    pub fn decrypt(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let (vector, text) = octets.split_first_chunk::<BLOCK>()?;
        if text.is_empty() || !text.len().is_multiple_of(BLOCK) {
            return None;
        }
        let cipher = cbc::Decryptor::<Aes128>::new(&self.encryption.into(), &(*vector).into());
        let mut text = text.to_vec();
        cipher.decrypt_padded::<NoPadding>(&mut text).ok()?;
        let pad = usize::from(text.pop()?);
        let len = text.len().checked_sub(pad)?;
        let sound = text[len..].iter().zip(1_u8..).all(|(octet, n)| *octet == n);
        text.truncate(len);
        (sound && pad < BLOCK).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(code: &[u8]) -> String {
        code.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn hmac_is_that_of_the_published_vectors() {
        // RFC 2202 section 3, test case 2; RFC 4231 section 4.3.
        let text: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        assert_eq!(
            hex(Suite::Three.mac(b"Jefe", text).as_slice()),
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        );
        assert_eq!(
            hex(Suite::Seventeen.mac(b"Jefe", text).as_slice()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn what_is_encrypted_can_be_decrypted_and_nothing_else() {
        let keys = Keys::new(Suite::Three, &Suite::Three.mac(b"k", &[b"x"]));
        for len in 0..70 {
            let payload = vec![7; len];
            let mut sealed = keys.encrypt([9; BLOCK], &payload);
            assert_eq!(sealed.len() % BLOCK, 0);
            assert_eq!(keys.decrypt(&sealed).as_deref(), Some(&payload[..]));
            assert_eq!(keys.decrypt(&sealed[1..]), None);
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
            assert_ne!(keys.decrypt(&sealed).as_deref(), Some(&payload[..]));
        }
    }

    #[test]
    fn a_suite_without_all_three_protections_cannot_be_named() {
        for id in (0..=255).filter(|id| ![3, 17].contains(id)) {
            assert_eq!(Suite::from_id(id), None);
        }
        for (authentication, integrity, confidentiality) in
            [(0, 0, 0), (1, 0, 0), (1, 1, 0), (3, 4, 0), (0, 1, 1), (2, 2, 1)]
        {
            assert_eq!(
                Suite::from_algorithms(Algorithms { authentication, integrity, confidentiality }),
                None
            );
        }
    }

    #[test]
    fn a_code_matches_only_in_full_length() {
        let code = Suite::Three.mac(b"k", &[b"x"]);
        assert!(code.matches(code.as_slice(), 20) && code.matches(code.cut(12), 12));
        assert!(
            !code.matches(&[], 12) && !code.matches(code.cut(11), 12) && !code.matches(code.as_slice(), 12)
        );
    }
}
