//! Makes what only one TPM can open (TPM2_MakeCredential; part 1, 24 and annexes B.10.3 and C.6.1): a secret under the public
//! part of an endorsement key, bound to the name of another key in the same TPM. Random octets are the caller's.

use aes::Aes128;
use aes::cipher::{Block, BlockCipherEncrypt as _, KeyInit as _};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use hmac::{Hmac, Mac as _};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use sha2::{Digest as _, Sha256};

use crate::SHA256;
use crate::public::{Key, Public};
use crate::wire::Writer;

/// The endorsement key is none that anything could be made for, or the random octets are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be made for this endorsement key")]
pub struct BadKey;

/// What one TPM can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// What is in a TPM2B_ID_OBJECT.
    pub blob: Vec<u8>,
    /// What is in a TPM2B_ENCRYPTED_SECRET.
    pub secret: Vec<u8>,
}

/// Random octets, each used for one credential.
#[derive(Debug, Clone)]
pub struct Chance {
    /// Seed (RSA), or the ephemeral key (ECC).
    pub seed: [u8; SHA256],
    /// Of OAEP.
    pub pad: [u8; SHA256],
}

/// Name of a key: its hash algorithm and the hash of its public area (part 1, 16).
pub fn name(area: &[u8]) -> Vec<u8> {
    Writer::default().u16(crate::public::ALG_SHA256).octets(&Sha256::digest(area)).done()
}

/// Makes a credential of `secret`, at most 32 octets, for the key of this name in the TPM with this endorsement key.
///
/// # Errors
/// [`BadKey`].
pub fn make(ek: &Public, name: &[u8], secret: &[u8], chance: &Chance) -> Result<Credential, BadKey> {
    if secret.len() > SHA256 {
        return Err(BadKey);
    }
    let (seed, encrypted) = match &ek.key {
        Key::Rsa(modulus) => (chance.seed, oaep(modulus, &chance.seed, &chance.pad)?),
        Key::Ecc { x, y } => agree(x, y, &chance.seed)?,
    };
    let key = kdf_a(&seed, b"STORAGE", name, 128);
    let mut identity = Writer::default().sized(secret).done();
    cfb(&key, &mut identity)?;
    let key = kdf_a(&seed, b"INTEGRITY", &[], 256);
    let integrity = mac(&key, &[&identity, name]);
    let blob = Writer::default().sized(&integrity).octets(&identity).done();
    Ok(Credential { blob, secret: encrypted })
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// KDFa (part 1, 11.4.10.2) of up to 256 bits, with SHA-256.
fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let made = mac(key, &[&1_u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()]);
    made.iter().copied().take((bits / 8) as usize).collect()
}

/// KDFe (part 1, 11.4.10.3) of 256 bits, with SHA-256.
fn kdf_e(z: &[u8], label: &[u8], u: &[u8], v: &[u8]) -> [u8; SHA256] {
    let parts: [&[u8]; 6] = [&1_u32.to_be_bytes(), z, label, &[0], u, v];
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// AES-128 in CFB mode with an initial vector of zeros.
fn cfb(key: &[u8], octets: &mut [u8]) -> Result<(), BadKey> {
    let cipher = Aes128::new_from_slice(key).map_err(|_| BadKey)?;
    let mut before = Block::<Aes128>::default();
    for part in octets.chunks_mut(16) {
        cipher.encrypt_block(&mut before);
        for (octet, stream) in part.iter_mut().zip(&before) {
            *octet ^= stream;
        }
        for (kept, octet) in before.iter_mut().zip(part.iter()) {
            *kept = *octet;
        }
    }
    Ok(())
}

/// An ephemeral key and the one of the TPM: the seed, and the ephemeral point as the TPM reads it.
fn agree(x: &[u8; 32], y: &[u8; 32], ephemeral: &[u8; 32]) -> Result<([u8; SHA256], Vec<u8>), BadKey> {
    let point = [&[4][..], x, y].concat();
    // Refuses points that are not on the curve, which would tell of the key.
    let theirs = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| BadKey)?;
    let ours = p256::SecretKey::from_slice(ephemeral).map_err(|_| BadKey)?;
    let shared = ours.diffie_hellman(&theirs);
    let own = ours.public_key().to_sec1_point(false);
    let (own_x, own_y) = match (own.x(), own.y()) {
        (Some(x), Some(y)) => (x, y),
        _ => return Err(BadKey),
    };
    let seed = kdf_e(shared.raw_secret_bytes(), b"IDENTITY", own_x, x);
    Ok((seed, Writer::default().sized(own_x).sized(own_y).done()))
}

/// RSAES-OAEP (RFC 8017, 7.1.1) of a seed, with SHA-256 and the label `IDENTITY`, whose terminating zero counts.
fn oaep(modulus: &[u8], seed: &[u8; SHA256], pad: &[u8; SHA256]) -> Result<Vec<u8>, BadKey> {
    let size = modulus.len();
    let mut block = vec![0; size.checked_sub(1 + SHA256).ok_or(BadKey)?];
    let message = block.len().checked_sub(SHA256).filter(|at| *at > SHA256).ok_or(BadKey)?;
    block[..SHA256].copy_from_slice(&Sha256::digest(b"IDENTITY\0"));
    block[message - 1] = 1;
    block[message..].copy_from_slice(seed);
    mask(&mut block, pad);
    let mut start = *pad;
    mask(&mut start, &block);
    let padded = [&[0][..], &start, &block].concat();

    let bits = u32::try_from(size * 8).map_err(|_| BadKey)?;
    let number = |octets: &[u8]| BoxedUint::from_be_slice(octets, bits).map_err(|_| BadKey);
    let odd = Option::<Odd<BoxedUint>>::from(number(modulus)?.to_odd()).ok_or(BadKey)?;
    // The modulus is public; its form is no secret.
    let modulus = BoxedMontyParams::new_vartime(odd);
    let power = BoxedMontyForm::new(number(&padded)?, &modulus).pow(&BoxedUint::from(65_537_u32));
    Ok(power.retrieve().to_be_bytes().to_vec())
}

/// MGF1 (RFC 8017, B.2.1) with SHA-256, laid over octets.
fn mask(octets: &mut [u8], seed: &[u8]) {
    for (n, part) in octets.chunks_mut(SHA256).enumerate() {
        let counter = u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        let stream = Sha256::new().chain_update(seed).chain_update(counter).finalize();
        for (octet, stream) in part.iter_mut().zip(&stream) {
            *octet ^= stream;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::Template;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
        text.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
    }

    /// NIST SP 800-38A, F.3.13 (CFB128-AES128), with its initial vector put before as a block whose stream is known.
    #[test]
    fn cfb_is_that_of_nist() {
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        // With a vector of zeros the first block's stream is E(0); a first block that comes out as the vector of the
        // standard makes the rest the standard's.
        let cipher = Aes128::new_from_slice(&key).unwrap();
        let mut zero = Block::<Aes128>::default();
        cipher.encrypt_block(&mut zero);
        let vector = hex("000102030405060708090a0b0c0d0e0f");
        let mut text: Vec<u8> = vector.iter().zip(&zero).map(|(a, b)| a ^ b).collect();
        text.extend(hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"));
        cfb(&key, &mut text).unwrap();
        assert_eq!(text[..16], vector);
        assert_eq!(text[16..], hex("3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b"));
    }

    /// Test vectors of MGF1 with SHA-256 (as of the Python package `cryptography` and others).
    #[test]
    fn the_mask_is_that_of_the_standard() {
        let mut out = [0; 50];
        mask(&mut out, b"bar");
        assert_eq!(
            out[..],
            hex(
                "382576a7841021cc28fc4c0948753fb8312090cea942ea4c4e735d10dc724b155f9f6069f289d61daca0cb814502ef04eae1"
            )
        );
    }

    #[test]
    fn no_key_no_credential() {
        let off_curve = Public { template: Template::EkEcc, key: Key::Ecc { x: [1; 32], y: [1; 32] } };
        let chance = Chance { seed: [7; 32], pad: [8; 32] };
        assert_eq!(make(&off_curve, b"n", b"s", &chance), Err(BadKey));
        let short = Public { template: Template::EkRsa, key: Key::Rsa(vec![0x81; 64]) };
        assert_eq!(make(&short, b"n", b"s", &chance), Err(BadKey));
        let rsa = Public { template: Template::EkRsa, key: Key::Rsa(vec![0x81; 256]) };
        assert_eq!(make(&rsa, b"n", b"s", &chance).unwrap().secret.len(), 256);
        assert_eq!(make(&rsa, b"n", &[0; 33], &chance), Err(BadKey));
    }
}
