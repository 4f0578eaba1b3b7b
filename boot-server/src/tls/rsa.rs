//! Making an RSA key, which `ring` uses but does not make. RSA, because firmware without elliptic curves trusts nothing
//! else (see `dhe`). Signing is ring's, which also checks the key before it uses it.

use crypto_bigint::rand_core::UnwrapErr;
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, NonZero, Resize as _};
use crypto_primes::{Flavor, random_prime};

/// Bits of the modulus.
const BITS: u32 = 2048;
/// The public exponent.
const EXPONENT: u64 = 65537;

/// A new private key, PKCS#8 (RFC 5208) in DER. `None` where the system has no random octets.
pub(super) fn generate() -> Option<Vec<u8>> {
    // After these the system's source does not fail any more (getrandom(2)).
    getrandom::fill(&mut [0; 32]).ok()?;
    loop {
        let (p, q) = (prime(), prime());
        // ring wants p > q; that two such primes are near each other does not happen.
        let (p, q) = if p > q { (p, q) } else { (q, p) };
        if let Some(key) = private_key(&p, &q) {
            return Some(pkcs8(&key));
        }
    }
}

/// A prime of half the length whose two highest bits are set, so that the product of two has the whole length
/// (FIPS 186-5 section A.1.3 asks for more than sqrt(2) times 2^1023).
fn prime() -> BoxedUint {
    loop {
        let prime: BoxedUint = random_prime(&mut UnwrapErr(getrandom::SysRng), Flavor::Any, BITS / 2);
        if prime.to_be_bytes().first().is_some_and(|b| *b >= 0xc0) {
            return prime;
        }
    }
}

/// The numbers of RFC 8017 section A.1.2, in its order after the version. `None` where the primes do not go with the
/// exponent, which is rare.
fn private_key(p: &BoxedUint, q: &BoxedUint) -> Option<[BoxedUint; 8]> {
    let one = BoxedUint::one_with_precision(BITS / 2);
    let (p1, q1) = (p.wrapping_sub(&one), q.wrapping_sub(&one));
    let n = p.concatenating_mul(q);
    let nonzero = |x: BoxedUint| Option::<NonZero<BoxedUint>>::from(x.into_nz());
    let phi = nonzero(p1.concatenating_mul(&q1))?;
    let e = BoxedUint::from(EXPONENT).resize(BITS);
    let d = Option::<BoxedUint>::from(e.invert_mod(&phi))?;
    let half = |m: BoxedUint| Some(d.rem(&nonzero(m.resize(BITS))?));
    let (dp, dq) = (half(p1)?, half(q1)?);
    let inverse = Option::<BoxedUint>::from(q.invert_mod(&nonzero(p.clone())?))?;
    Some([n, BoxedUint::from(EXPONENT), d, p.clone(), q.clone(), dp, dq, inverse])
}

/// `PrivateKeyInfo { 0, rsaEncryption, RSAPrivateKey { 0, numbers } }`.
fn pkcs8(numbers: &[BoxedUint; 8]) -> Vec<u8> {
    const VERSION: &[u8] = &[0x02, 1, 0];
    /// 1.2.840.113549.1.1.1 and NULL (RFC 8017 appendix C).
    const RSA_ENCRYPTION: &[u8] =
        &[0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut key = VERSION.to_vec();
    for number in numbers {
        let octets = number.to_be_bytes();
        let zeros = octets.iter().take_while(|b| **b == 0).count();
        let mut integer = octets[zeros..].to_vec();
        if integer.first().is_none_or(|b| b & 0x80 != 0) {
            integer.insert(0, 0); // positive
        }
        key.extend(der(0x02, &integer));
    }
    let key = der(0x04, &der(0x30, &key));
    der(0x30, &[VERSION, RSA_ENCRYPTION, &key].concat())
}

/// Tag, length and content (X.690 section 8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let len = &len[len.iter().take_while(|b| **b == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        0..0x80 => out.push(content.len().to_le_bytes()[0]),
        _ => {
            out.push(0x80 | len.len().to_le_bytes()[0]);
            out.extend(len);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_der() {
        assert_eq!(der(4, &[]), [4, 0]);
        assert_eq!(der(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(der(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }

    /// ring reckons whether the numbers belong together.
    #[test]
    fn a_key_is_one() {
        let key = generate().unwrap();
        let key = rcgen::KeyPair::try_from(key.as_slice()).unwrap();
        assert!(key.is_compatible(&rcgen::PKCS_RSA_SHA256));
    }
}
