//! TLS with a controller: its certificate is self-signed and made out to nobody, so it is known by its SHA-256.
//!
//! Trust at first use: the first certificate is reported and kept, and from then on no other one is talked to. That
//! the controller holds the certificate's key is checked as ever (RFC 8446, section 4.4.3).

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate (DER), in hexadecimal where it is a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the SHA-256 of a certificate has 64 hexadecimal digits")]
pub struct ParsePinError;

impl FromStr for Pin {
    type Err = ParsePinError;

    /// Takes what `openssl x509 -fingerprint -sha256` prints, too: colons between the octets.
    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
        let mut out = [0; 32];
        if digits.len() != 2 * out.len() {
            return Err(ParsePinError);
        }
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ParsePinError)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParsePinError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParsePinError)?;
        }
        Ok(Self(out))
    }
}

/// Which certificate is the right one: the pinned one, else the first that is seen.
#[derive(Debug)]
pub(super) struct Trust {
    seen: Mutex<Seen>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    pinned: Option<Pin>,
    shown: Option<Pin>,
}

impl Trust {
    pub(super) fn new(pinned: Option<Pin>) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { seen: Mutex::new(Seen { pinned, shown: None }), provider })
    }

    /// The certificate that is trusted now.
    pub(super) fn pinned(&self) -> Option<Pin> {
        self.seen().pinned
    }

    /// What was shown last and what is pinned, where they differ.
    pub(super) fn change(&self) -> Option<(Pin, Pin)> {
        let seen = self.seen();
        seen.shown.zip(seen.pinned).filter(|(shown, pinned)| shown != pinned)
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS 1.2 or newer, without resumption: a resumed session would not show the certificate.
    pub(super) fn config(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Pin::of(end_entity);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.shown = Some(shown);
        if *seen.pinned.get_or_insert(shown) == shown {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_as_text() {
        let pin = Pin::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(pin.to_string(), text);
        assert_eq!(text.parse(), Ok(pin));
        let colons: Vec<String> =
            text.to_uppercase().as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into()).collect();
        assert_eq!(colons.join(":").parse(), Ok(pin));
        for wrong in ["", "e3", &text[1..], &format!("{}+f", &text[2..])] {
            assert_eq!(wrong.parse::<Pin>(), Err(ParsePinError), "{wrong}");
        }
    }
}
