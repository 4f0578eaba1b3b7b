//! A stream that nobody reads or changes without its passphrase: XChaCha20-Poly1305 in pieces, as the STREAM construction has
//! it (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce of each piece is a random prefix, the piece's number and whether
//! it is the last, so that none can be left out, moved or cut off. The key comes from the passphrase by Argon2id (RFC 9106).

use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};

use crate::secret::{self, NoRandomness};

/// Octets of a piece before it is sealed.
const PIECE: usize = 64 << 10;
/// Octets that sealing adds to each.
const TAG: usize = 16;
/// Octets of the nonces' common beginning.
const PREFIX: usize = 19;
/// Octets of the salt.
const SALT: usize = 16;
/// KiB, passes and lanes of new seals: what RFC 9106 section 4 recommends where memory is scarce.
const COSTS: [u32; 3] = [64 << 10, 3, 4];
/// The most that is read: 1 GiB, 20 passes, 16 lanes. A file must not say how much memory its reader spends.
const COSTS_MAX: [u32; 3] = [1 << 20, 20, 16];

/// How a stream was sealed; all but the passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Argon2id: KiB of memory, passes, lanes.
    costs: [u32; 3],
    salt: [u8; SALT],
    prefix: [u8; PREFIX],
}

impl Seal {
    /// A seal that nobody had before.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn new() -> Result<Self, NoRandomness> {
        let (mut salt, mut prefix) = ([0; SALT], [0; PREFIX]);
        salt.copy_from_slice(&secret::random()?[..SALT]);
        prefix.copy_from_slice(&secret::random()?[..PREFIX]);
        Ok(Self { costs: COSTS, salt, prefix })
    }

    /// The cipher for this passphrase; `None` where the seal asks for more than is allowed.
    fn cipher(&self, passphrase: &str) -> Option<XChaCha20Poly1305> {
        let [memory, passes, lanes] = self.costs;
        if self.costs.iter().zip(COSTS_MAX).any(|(cost, max)| *cost > max) {
            return None;
        }
        let mut key = [0; 32];
        let params = Params::new(memory, passes, lanes, Some(key.len())).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase.as_bytes(), &self.salt, &mut key).ok()?;
        Some(XChaCha20Poly1305::new(&key.into()))
    }

    fn nonce(&self, piece: u32, last: bool) -> XNonce {
        let mut nonce = [0; PREFIX + 5];
        nonce[..PREFIX].copy_from_slice(&self.prefix);
        nonce[PREFIX..PREFIX + 4].copy_from_slice(&piece.to_be_bytes());
        nonce[PREFIX + 4] = u8::from(last);
        nonce.into()
    }
}

fn refused(seal: &Seal) -> io::Error {
    let [memory, passes, lanes] = seal.costs;
    io::Error::other(format!("the seal asks for {memory} KiB, {passes} passes and {lanes} lanes of Argon2id"))
}

/// Writes what is sealed.
pub struct Sealer<W> {
    inner: W,
    cipher: XChaCha20Poly1305,
    seal: Seal,
    /// What every piece is bound to, such as what stands before the stream.
    bound: Vec<u8>,
    piece: u32,
    waiting: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// # Errors
    /// None in practice: the seal's own costs are allowed.
    pub fn new(inner: W, seal: Seal, passphrase: &str, bound: Vec<u8>) -> io::Result<Self> {
        let cipher = seal.cipher(passphrase).ok_or_else(|| refused(&seal))?;
        Ok(Self { inner, cipher, seal, bound, piece: 0, waiting: Vec::with_capacity(PIECE) })
    }

    fn piece(&mut self, last: bool) -> io::Result<()> {
        let payload = Payload { msg: &self.waiting, aad: &self.bound };
        let nonce = self.seal.nonce(self.piece, last);
        let sealed =
            self.cipher.encrypt(&nonce, payload).map_err(|_| io::Error::other("a piece is too long"))?;
        self.inner.write_all(&sealed)?;
        self.piece = self.piece.checked_add(1).ok_or_else(|| io::Error::other("more than 256 TiB"))?;
        self.waiting.clear();
        Ok(())
    }

    /// Writes the last piece; without it nothing is read to its end.
    ///
    /// # Errors
    /// What the writer below says.
    pub fn finish(mut self) -> io::Result<W> {
        self.piece(true)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only when more comes is it known that a full piece is not the last.
        if self.waiting.len() == PIECE && !bytes.is_empty() {
            self.piece(false)?;
        }
        let taken = bytes.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads what was sealed. Nothing is given out that was not checked.
pub struct Opener<R> {
    inner: R,
    /// Sealed octets that are still to come.
    left: u64,
    cipher: XChaCha20Poly1305,
    seal: Seal,
    bound: Vec<u8>,
    piece: u32,
    open: Vec<u8>,
    at: usize,
}

impl<R: Read> Opener<R> {
    /// Opens the next `length` octets of `inner`.
    ///
    /// # Errors
    /// Where the seal asks for more memory or time than is allowed.
    pub fn new(inner: R, length: u64, seal: Seal, passphrase: &str, bound: Vec<u8>) -> io::Result<Self> {
        let cipher = seal.cipher(passphrase).ok_or_else(|| refused(&seal))?;
        Ok(Self { inner, left: length, cipher, seal, bound, piece: 0, open: Vec::new(), at: 0 })
    }

    fn next(&mut self) -> io::Result<()> {
        let length = self.left.min((PIECE + TAG) as u64);
        let mut sealed = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.inner.read_exact(&mut sealed)?;
        self.left -= length;
        let payload = Payload { msg: &sealed, aad: &self.bound };
        let nonce = self.seal.nonce(self.piece, self.left == 0);
        self.open = self.cipher.decrypt(&nonce, payload).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the passphrase is wrong, or the file was changed")
        })?;
        self.piece = self.piece.wrapping_add(1);
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at == self.open.len() {
            // A stream of no octets has one piece all the same.
            if self.left == 0 && self.piece > 0 {
                return Ok(0);
            }
            self.next()?;
        }
        let taken = bytes.len().min(self.open.len() - self.at);
        bytes[..taken].copy_from_slice(&self.open[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cheap, so that many can be tried.
    fn seal() -> Seal {
        Seal { costs: [8, 1, 1], ..Seal::new().unwrap() }
    }

    fn sealed(seal: &Seal, text: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), seal.clone(), "correct horse", b"head".to_vec()).unwrap();
        sealer.write_all(text).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(seal: &Seal, bytes: &[u8], passphrase: &str, bound: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let length = bytes.len() as u64;
        Opener::new(bytes, length, seal.clone(), passphrase, bound.to_vec())?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn all_lengths_about_a_piece_come_back() {
        let seal = seal();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7] {
            let text: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let bytes = sealed(&seal, &text);
            assert_eq!(opened(&seal, &bytes, "correct horse", b"head").unwrap(), text, "{length}");
            assert!(opened(&seal, &bytes, "correct horsf", b"head").is_err());
            assert!(opened(&seal, &bytes, "correct horse", b"heaf").is_err());
        }
    }

    #[test]
    fn pieces_are_not_left_out_or_moved() {
        let seal = seal();
        let bytes = sealed(&seal, &vec![7; 3 * PIECE]);
        let piece = PIECE + TAG;
        let without = [&bytes[..piece], &bytes[2 * piece..]].concat();
        let moved = [&bytes[piece..2 * piece], &bytes[..piece], &bytes[2 * piece..]].concat();
        for bad in [&without[..], &moved, &bytes[..2 * piece], &bytes[..piece], &[]] {
            assert!(opened(&seal, bad, "correct horse", b"head").is_err());
        }
    }

    #[test]
    fn a_file_does_not_say_how_much_memory_is_spent() {
        for costs in [[COSTS_MAX[0] + 1, 1, 1], [8, 21, 1], [8, 1, 17], [0, 0, 0]] {
            let seal = Seal { costs, ..Seal::new().unwrap() };
            assert!(opened(&seal, &[0; 16], "x", b"").is_err(), "{costs:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_octet_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u32, length in 0..200_usize) {
            let seal = seal();
            let mut bytes = sealed(&seal, &vec![1; length]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(opened(&seal, &bytes, "correct horse", b"head").is_err());
        }
    }
}
