//! Public areas of keys (TPMT_PUBLIC, part 2, 12.2.4): the three templates that are used here, and nothing else.
//!
//! An endorsement key of another shape than TCG's default (EK Credential Profile 2.5, B.3.3 and B.3.4), or an attestation key
//! that is not restricted to signing what its TPM made, proves nothing, and is refused.

use crate::wire::{Reader, WireError, Writer};

pub(crate) const ALG_RSA: u16 = 0x0001;
pub(crate) const ALG_AES: u16 = 0x0006;
pub(crate) const ALG_SHA256: u16 = 0x000b;
pub(crate) const ALG_NULL: u16 = 0x0010;
pub(crate) const ALG_ECDSA: u16 = 0x0018;
pub(crate) const ALG_ECC: u16 = 0x0023;
pub(crate) const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const EK_ATTRIBUTES: u32 = 0x0003_00b2;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign. A TPM that locks because somebody guessed does
/// not lock this key.
const AK_ATTRIBUTES: u32 = 0x0005_0472;
/// `PolicySecret(TPM_RH_ENDORSEMENT)`.
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// Octets of the modulus of RSA 2048.
const MODULUS: usize = 256;
/// Octets of a coordinate of P-256.
const COORDINATE: usize = 32;

/// What a key is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Endorsement key, RSA 2048 (template L-1).
    EkRsa,
    /// Endorsement key, ECC P-256 (template L-2).
    EkEcc,
    /// Attestation key: ECDSA over P-256 with SHA-256.
    Ak,
}

/// The public part itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Modulus; the exponent is 65,537.
    Rsa(Vec<u8>),
    /// A point of P-256.
    Ecc {
        /// Coordinate.
        x: [u8; COORDINATE],
        /// Coordinate.
        y: [u8; COORDINATE],
    },
}

/// A key of one of the templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// Which.
    pub template: Template,
    /// Its public part.
    pub key: Key,
}

impl Template {
    fn start(self) -> Vec<u8> {
        let (kind, attributes, policy): (u16, u32, &[u8]) = match self {
            Self::EkRsa => (ALG_RSA, EK_ATTRIBUTES, &EK_POLICY),
            Self::EkEcc => (ALG_ECC, EK_ATTRIBUTES, &EK_POLICY),
            Self::Ak => (ALG_ECC, AK_ATTRIBUTES, &[]),
        };
        let w = Writer::default().u16(kind).u16(ALG_SHA256).u32(attributes).sized(policy);
        let w = match self {
            // Symmetric algorithm, scheme, size, exponent (0 is 65,537).
            Self::EkRsa => w.u16(ALG_AES).u16(128).u16(ALG_CFB).u16(ALG_NULL).u16(2048).u32(0),
            // Symmetric algorithm, scheme, curve, key derivation.
            Self::EkEcc => w.u16(ALG_AES).u16(128).u16(ALG_CFB).u16(ALG_NULL).u16(CURVE_P256).u16(ALG_NULL),
            Self::Ak => w.u16(ALG_NULL).u16(ALG_ECDSA).u16(ALG_SHA256).u16(CURVE_P256).u16(ALG_NULL),
        };
        w.done()
    }

    /// What a TPM is asked to make: the public area without the key.
    pub fn area(self) -> Vec<u8> {
        let w = Writer::default().octets(&self.start());
        match self {
            Self::EkRsa => w.sized(&[0; MODULUS]),
            Self::EkEcc => w.sized(&[0; COORDINATE]).sized(&[0; COORDINATE]),
            Self::Ak => w.sized(&[]).sized(&[]),
        }
        .done()
    }
}

impl Public {
    /// Reads a public area that must be of one of these templates, in every attribute.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(area: &[u8], templates: &[Template]) -> Result<Self, WireError> {
        let fits = |template: &&Template| area.starts_with(&template.start());
        let template = *templates.iter().find(fits).ok_or(WireError::Value("the template of the key"))?;
        let mut r = Reader::new(&area[template.start().len()..]);
        let key = match template {
            Template::EkRsa => {
                let modulus = r.sized()?;
                // As long as it says, and odd, as a product of primes is.
                let good = modulus.len() == MODULUS
                    && modulus.first().is_some_and(|first| first & 0x80 != 0)
                    && modulus.last().is_some_and(|last| last & 1 == 1);
                if !good {
                    return Err(WireError::Value("the modulus"));
                }
                Key::Rsa(modulus.to_vec())
            }
            Template::EkEcc | Template::Ak => {
                Key::Ecc { x: coordinate(r.sized()?)?, y: coordinate(r.sized()?)? }
            }
        };
        r.end()?;
        Ok(Self { template, key })
    }
}

/// Some TPMs leave leading zeros out.
pub(crate) fn coordinate(octets: &[u8]) -> Result<[u8; COORDINATE], WireError> {
    let mut padded = [0; COORDINATE];
    let at = COORDINATE.checked_sub(octets.len()).ok_or(WireError::Value("a coordinate"))?;
    padded[at..].copy_from_slice(octets);
    Ok(padded)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn area(template: Template, fill: u8) -> Vec<u8> {
        let w = Writer::default().octets(&template.start());
        match template {
            Template::EkRsa => w.sized(&[fill | 0x81; MODULUS]),
            _ => w.sized(&[fill; COORDINATE]).sized(&[fill; COORDINATE]),
        }
        .done()
    }

    #[test]
    fn a_key_is_of_its_template_or_none() {
        for template in [Template::EkRsa, Template::EkEcc, Template::Ak] {
            let octets = area(template, 1);
            assert_eq!(Public::read(&octets, &[template]).unwrap().template, template);
            // Not one bit of attributes, policy or parameters may differ.
            for at in 0..template.start().len() {
                let mut other = octets.clone();
                other[at] ^= 1;
                assert!(Public::read(&other, &[template]).is_err(), "{template:?}, octet {at}");
            }
            let mut long = octets.clone();
            long.push(0);
            assert_eq!(Public::read(&long, &[template]), Err(WireError::Trailing));
            for n in 0..octets.len() {
                assert!(Public::read(&octets[..n], &[template]).is_err());
            }
        }
        let ak = area(Template::Ak, 1);
        assert!(
            Public::read(&ak, &[Template::EkRsa, Template::EkEcc]).is_err(),
            "a key that signs is none that decrypts"
        );
        let mut even = area(Template::EkRsa, 1);
        *even.last_mut().unwrap() = 2;
        assert!(Public::read(&even, &[Template::EkRsa]).is_err());
    }

    #[test]
    fn short_coordinates_are_padded() {
        let octets = Writer::default().octets(&Template::Ak.start()).sized(&[7; 31]).sized(&[8; 32]).done();
        let Key::Ecc { x, y } = Public::read(&octets, &[Template::Ak]).unwrap().key else { panic!() };
        assert_eq!((x[0], x[1], y[0]), (0, 7, 8));
        let long = Writer::default().octets(&Template::Ak.start()).sized(&[7; 33]).sized(&[8; 32]).done();
        assert!(Public::read(&long, &[Template::Ak]).is_err());
    }
}
