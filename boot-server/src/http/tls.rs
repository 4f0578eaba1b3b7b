//! TLS of the provisioning side.

use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;

/// A certificate and how it is used.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    pub(super) async fn accept(&self, wire: Wire) -> std::io::Result<TlsStream<Wire>> {
        self.0.accept(wire).await
    }
}
