//! TLS as Open vSwitch's programs speak it (ovs-pki(8)): both ends show a certificate, and each believes who has one that is signed by the
//! authority. Names in certificates are not looked at: none of these programs does, and its certificates have none that fits.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::{Tls, TlsError};

/// Takes a connection over.
pub(crate) async fn connect(
    tls: &Tls,
    host: &str,
    stream: TcpStream,
) -> Result<io::Result<TlsStream<TcpStream>>, TlsError> {
    let connector = TlsConnector::from(Arc::new(config(tls)?));
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let done = connector.connect(name, stream).await;
    let refused = done.as_ref().err().and_then(|e| e.get_ref()?.downcast_ref::<Error>());
    match refused {
        Some(Error::InvalidCertificate(why)) => {
            Err(TlsError::Stranger { ca: tls.ca.clone(), why: format!("{why:?}") })
        }
        _ => Ok(done),
    }
}

/// Read anew for each connection: certificates are renewed while programs run.
fn config(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let read = |path: &std::path::Path| {
        let path = path.to_owned();
        move |e: rustls::pki_types::pem::Error| TlsError::Read { path, why: e.to_string() }
    };
    let certificates = |path: &std::path::Path| {
        let all = CertificateDer::pem_file_iter(path).map_err(read(path))?;
        all.collect::<Result<Vec<_>, _>>().map_err(read(path))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|e| TlsError::Read { path: tls.ca.clone(), why: e.to_string() })?;
    }
    if roots.is_empty() {
        return Err(TlsError::Read { path: tls.ca.clone(), why: "it holds no certificate".to_owned() });
    }
    let own = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(read(&tls.key))?;
    let provider = Arc::new(ring::default_provider());
    let authority = Authority { roots, provider: provider.clone() };
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(authority));
            builder.with_client_auth_cert(own, key)
        })
        .map_err(|e| TlsError::Read { path: tls.certificate.clone(), why: e.to_string() })
}

/// Who is believed.
#[derive(Debug)]
struct Authority {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&shown, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
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
