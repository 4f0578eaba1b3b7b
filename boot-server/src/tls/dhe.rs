//! The key exchange of old firmware: finite-field Diffie-Hellman in TLS 1.2, beside everything that `ring` brings.
//!
//! EDK2 of 2022 (OVMF in Debian 12, and firmware of those years) is built without elliptic curves. It offers
//! `TLS_DHE_RSA_*` and static RSA, and nothing else; rustls brings neither. rustls has a place for the former, so it is
//! filled here: group ffdhe2048 (RFC 7919 appendix A.1), ephemeral keys, AES-GCM. Such clients name no groups, and the
//! server chooses (RFC 7919 section 4). The arithmetic is constant-time (`crypto-bigint`).

use std::sync::LazyLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{
    ActiveKeyExchange, CipherSuiteCommon, CryptoProvider, KeyExchangeAlgorithm, SharedSecret,
    SupportedKxGroup,
};
use rustls::ffdhe_groups::{FFDHE2048, FfdheGroup};
use rustls::{
    CipherSuite, Error, NamedGroup, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite, Tls12CipherSuite,
};

/// Bits of the group's modulus.
const BITS: u32 = 2048;
/// Bits of a secret exponent: at least 225 for this group (RFC 7919 appendix A.1).
const SECRET_BITS: u32 = 256;

/// `ring`, and after all that it offers, the old suites.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    for suite in [&*AES_256, &*AES_128].into_iter().flatten() {
        provider.cipher_suites.push(SupportedCipherSuite::Tls12(suite));
    }
    provider.kx_groups.push(&Ffdhe2048);
    provider
}

static AES_128: LazyLock<Option<Tls12CipherSuite>> = LazyLock::new(|| {
    with_dhe(
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256,
    )
});
static AES_256: LazyLock<Option<Tls12CipherSuite>> = LazyLock::new(|| {
    with_dhe(
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384,
    )
});

/// The same cipher, hash and signature after another key exchange (RFC 5288 section 3 and RFC 5289 section 3.2 differ in
/// nothing else).
fn with_dhe(suite: SupportedCipherSuite, name: CipherSuite) -> Option<Tls12CipherSuite> {
    let SupportedCipherSuite::Tls12(base) = suite else { return None };
    Some(Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: name,
            hash_provider: base.common.hash_provider,
            confidentiality_limit: base.common.confidentiality_limit,
        },
        prf_provider: base.prf_provider,
        kx: KeyExchangeAlgorithm::DHE,
        sign: base.sign,
        aead_alg: base.aead_alg,
    })
}

/// The group's modulus, ready to reckon with; `None` only if rustls' constant were not what it is.
static MODULUS: LazyLock<Option<BoxedMontyParams>> = LazyLock::new(|| {
    let modulus = BoxedUint::from_be_slice(FFDHE2048.p, BITS).ok()?;
    Option::<Odd<BoxedUint>>::from(modulus.to_odd()).map(BoxedMontyParams::new_vartime)
});

fn modulus() -> Result<&'static BoxedMontyParams, Error> {
    MODULUS.as_ref().ok_or_else(|| Error::General("ffdhe2048 is not there".into()))
}

#[derive(Debug)]
struct Ffdhe2048;

impl SupportedKxGroup for Ffdhe2048 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut octets = [0; SECRET_BITS as usize / 8];
        getrandom::fill(&mut octets).map_err(|_| Error::FailedToGetRandomBytes)?;
        let secret = BoxedUint::from_be_slice(&octets, SECRET_BITS)
            .map_err(|_| Error::General("a secret exponent of 256 bits".into()))?;
        let generator = BoxedUint::from_be_slice_truncated(FFDHE2048.g, BITS);
        Ok(Box::new(Exchange { public: power(generator, &secret)?, secret }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }

    /// TLS 1.3 has better, and everybody who speaks it speaks them.
    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

/// base^secret, as octets of the modulus' length.
fn power(base: BoxedUint, secret: &BoxedUint) -> Result<Vec<u8>, Error> {
    let base = BoxedMontyForm::new(base, modulus()?);
    Ok(base.pow_bounded_exp(secret, SECRET_BITS).retrieve().to_be_bytes().into_vec())
}

struct Exchange {
    secret: BoxedUint,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        // A TLS 1.2 client may leave leading zeros out.
        let peer = BoxedUint::from_be_slice(peer, BITS).map_err(|_| invalid())?;
        // RFC 7919 section 5.1: 1 < Y < p - 1, which in a group of a safe prime leaves no small subgroup.
        let one = BoxedUint::one_with_precision(BITS);
        let last = modulus()?.modulus().as_ref().wrapping_sub(&one);
        if peer <= one || peer >= last {
            return Err(invalid());
        }
        Ok(SharedSecret::from(power(peer, &self.secret)?))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_the_same() {
        let (one, other) = (Ffdhe2048.start().unwrap(), Ffdhe2048.start().unwrap());
        let (to_one, to_other) = (other.pub_key().to_vec(), one.pub_key().to_vec());
        assert!(to_one.len() == 256 && to_one != to_other);
        let (a, b) = (one.complete(&to_one).unwrap(), other.complete(&to_other).unwrap());
        assert_eq!(a.secret_bytes(), b.secret_bytes());
        assert_eq!(a.secret_bytes().len(), 256);
    }

    #[test]
    fn keys_that_give_the_secret_away_are_refused() {
        let mut last = FFDHE2048.p.to_vec();
        let mut above = last.clone();
        *last.last_mut().unwrap() -= 1;
        above.insert(0, 1);
        let bad: [&[u8]; 7] = [&[], &[0], &[1], &last, FFDHE2048.p, &above, &[0xff; 256]];
        for key in bad {
            assert!(Ffdhe2048.start().unwrap().complete(key).is_err(), "{key:02x?}");
        }
        assert!(Ffdhe2048.start().unwrap().complete(&[2]).is_ok());
    }

    #[test]
    fn the_old_comes_last() {
        let names: Vec<_> = provider().cipher_suites.iter().map(|s| s.suite()).collect();
        let old = [
            CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384,
            CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
        assert!(names.len() > 4 && names.ends_with(&old), "{names:?}");
    }
}
