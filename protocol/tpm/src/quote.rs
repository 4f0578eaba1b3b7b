//! Checks a quote (TPMS_ATTEST, part 2, 10.12.8): that this attestation key signed it, over this nonce, and that the registers
//! that came beside it are those that it is of.

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::public::{Key, Public, Template};
use crate::wire::{Reader, WireError};
use crate::{PCRS, SHA256};

/// `TPM_GENERATED_VALUE`: what a restricted key signs begins with it only where the TPM itself made it.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;

/// Why a quote proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// It is none.
    #[error("the quote cannot be read: {0}")]
    Wire(#[from] WireError),
    /// The key that is said to have signed is none that could.
    #[error("the attestation key is none")]
    Key,
    /// Somebody else signed, or nobody.
    #[error("its signature is not that of the attestation key")]
    Signature,
    /// It is of another time, or was made for somebody else.
    #[error("it is not over the nonce that was given")]
    Nonce,
    /// Other registers than all that are wanted.
    #[error("it is not of the registers that are wanted")]
    Selection,
    /// The registers that came beside it are others.
    #[error("the registers that came with it are not those that were signed")]
    Registers,
}

/// # Errors
/// [`QuoteError`] unless all of it holds.
pub fn check(
    ak: &Public,
    nonce: &[u8],
    attest: &[u8],
    signature: &[u8],
    pcrs: &[[u8; SHA256]],
) -> Result<(), QuoteError> {
    let (Template::Ak, Key::Ecc { x, y }) = (ak.template, &ak.key) else { return Err(QuoteError::Key) };
    let point = [&[4][..], x, y].concat();
    let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_| QuoteError::Key)?;
    let signature = Signature::from_slice(signature).map_err(|_| QuoteError::Signature)?;
    key.verify(attest, &signature).map_err(|_| QuoteError::Signature)?;

    let mut r = Reader::new(attest);
    if r.u32()? != GENERATED || r.u16()? != ST_ATTEST_QUOTE {
        return Err(WireError::Value("its kind").into());
    }
    let _signer = r.sized()?;
    if r.sized()? != nonce {
        return Err(QuoteError::Nonce);
    }
    // Clock, counts of resets and restarts, whether the clock is safe; version of the firmware.
    let _ = (r.u64()?, r.u32()?, r.u32()?, r.u8()?, r.u64()?);
    if r.u32()? != 1 || r.u16()? != crate::public::ALG_SHA256 || r.u8()? != 3 || r.take(3)? != [0xff, 0xff, 0]
    {
        return Err(QuoteError::Selection);
    }
    let digest = r.sized()?;
    r.end()?;
    if pcrs.len() != usize::from(PCRS) || digest != Sha256::digest(pcrs.concat()).as_slice() {
        return Err(QuoteError::Registers);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer as _;
    use p256::elliptic_curve::sec1::ToSec1Point as _;

    use super::*;
    use crate::wire::Writer;

    fn attest(nonce: &[u8], magic: u32, bits: [u8; 3], pcrs: &[[u8; SHA256]]) -> Vec<u8> {
        let w = Writer::default().u32(magic).u16(ST_ATTEST_QUOTE).sized(b"signer").sized(nonce);
        let w = w.octets(&[0; 17]).octets(&[0; 8]).u32(1).u16(0x0b).u8(3).octets(&bits);
        w.sized(&Sha256::digest(pcrs.concat())).done()
    }

    #[test]
    fn each_part_of_a_quote_must_hold() {
        let secret = p256::SecretKey::from_slice(&[5; 32]).unwrap();
        let signer = SigningKey::from(&secret);
        let point = secret.public_key().to_sec1_point(false);
        let coordinate = |part: &[u8]| -> [u8; 32] { part.try_into().unwrap() };
        let key = Key::Ecc { x: coordinate(point.x().unwrap()), y: coordinate(point.y().unwrap()) };
        let ak = Public { template: Template::Ak, key };
        let pcrs = [[3; SHA256]; 16];
        let said = |octets: &[u8], pcrs: &[[u8; SHA256]]| {
            let signature: Signature = signer.sign(octets);
            check(&ak, b"nonce", octets, &signature.to_bytes(), pcrs)
        };
        let all = [0xff, 0xff, 0];
        let good = attest(b"nonce", GENERATED, all, &pcrs);
        assert_eq!(said(&good, &pcrs), Ok(()));
        assert_eq!(said(&attest(b"other", GENERATED, all, &pcrs), &pcrs), Err(QuoteError::Nonce));
        assert!(said(&attest(b"nonce", 0, all, &pcrs), &pcrs).is_err(), "a file that looks like a quote");
        assert_eq!(
            said(&attest(b"nonce", GENERATED, [0xff, 0xfe, 0], &pcrs), &pcrs),
            Err(QuoteError::Selection)
        );
        let mut other = pcrs;
        other[4] = [4; SHA256];
        assert_eq!(said(&good, &other), Err(QuoteError::Registers));
        assert_eq!(said(&good, &pcrs[..15]), Err(QuoteError::Registers));
        let long = [&good[..], &[0]].concat();
        assert_eq!(said(&long, &pcrs), Err(QuoteError::Wire(WireError::Trailing)));

        let signature: Signature = signer.sign(&good);
        let mut bent = good.clone();
        *bent.last_mut().unwrap() ^= 1;
        assert_eq!(check(&ak, b"nonce", &bent, &signature.to_bytes(), &pcrs), Err(QuoteError::Signature));
        assert_eq!(check(&ak, b"nonce", &good, &[0; 64], &pcrs), Err(QuoteError::Signature));
        assert_eq!(check(&ak, b"nonce", &good, &[], &pcrs), Err(QuoteError::Signature));
        let ek = Public { template: Template::EkEcc, ..ak };
        assert_eq!(check(&ek, b"nonce", &good, &signature.to_bytes(), &pcrs), Err(QuoteError::Key));
    }
}
