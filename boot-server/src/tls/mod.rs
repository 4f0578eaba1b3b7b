//! TLS of the provisioning side: for firmware that boots by HTTPS, which trusts the CA that was enrolled in it. The
//! certificate is the site's own, or one that we make (`site`). Beside what everybody speaks there is one old key exchange
//! that firmware needs (`dhe`). Decision record 0013.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

mod dhe;
mod rsa;
mod site;

/// Certificates in a chain that is configured.
const CHAIN_MAX: usize = 8;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files of the site: the certificate and what leads to its CA, and the key, both PEM.
    Files {
        /// The chain, our own certificate first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A CA of our own, kept in this directory, which names these addresses.
    Own {
        /// The directory; made where it is not there.
        directory: PathBuf,
        /// What the certificate is for.
        addresses: Vec<IpAddr>,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that should hold PEM does not, or cannot be read.
    #[error("{} holds no {what} that can be read (PEM)", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
        /// Why.
        #[source]
        cause: pem::Error,
    },
    /// A file with too many certificates, or none.
    #[error("{} holds {count} certificates; 1 to {CHAIN_MAX} make a chain", .path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The files do not go together, or not with what rustls can do.
    #[error("certificate and key of {source_name} cannot be used for TLS")]
    Unusable {
        /// Where they come from.
        source_name: String,
        /// Why.
        #[source]
        cause: rustls::Error,
    },
    /// Our own CA could not be made or read.
    #[error(transparent)]
    Site(#[from] site::SiteError),
}

/// A certificate, ready to be shown to clients.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads or makes the certificate. Takes a second or two where an RSA key must be made.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn open(source: &Source) -> Result<Self, TlsError> {
        let (chain, key, source_name) = match source {
            Source::Files { certificate, key } => {
                (read_chain(certificate)?, read_key(key)?, certificate.display().to_string())
            }
            Source::Own { directory, addresses } => {
                let (chain, key) = site::certificate(directory, addresses)?;
                (chain, key, directory.display().to_string())
            }
        };
        let unusable = |cause| TlsError::Unusable { source_name: source_name.clone(), cause };
        let mut config = ServerConfig::builder_with_provider(Arc::new(dhe::provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// Where the client does not trust us, or speaks another language.
    pub async fn accept<I>(&self, io: I) -> std::io::Result<TlsStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(io).await
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |cause| TlsError::Pem { path: path.to_owned(), what: "certificate", cause };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(fail)?.collect::<Result<_, _>>().map_err(fail)?;
    match chain.len() {
        1..=CHAIN_MAX => Ok(chain),
        count => Err(TlsError::Chain { path: path.to_owned(), count }),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|cause| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        cause,
    })
}

#[cfg(test)]
mod tests;
