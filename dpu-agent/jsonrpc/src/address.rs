//! Where a service listens, in the form that Open vSwitch's programs take.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// `unix:/run/ovn/ovnnb_db.sock`, `tcp:192.0.2.1:6641`, `tcp:[2001:db8::1]:6641`, `ssl:192.0.2.1:6641`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// Host (a name or an address) and port.
    Tcp(String, u16),
    /// The same, by TLS with these files; where none are known nobody can connect.
    Ssl(String, u16, Option<Box<Tls>>),
}

/// Files (PEM) of one end of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of authorities: the other end is believed if one of them signed its certificate.
    pub ca: PathBuf,
    /// Our own certificate, with those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// The other end is not believed.
    #[error("its certificate is not one that {} vouches for ({why})", ca.display())]
    Stranger {
        /// Who would have to.
        ca: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Neither a name nor an address.
    #[error("`{0}` is no name and no address of a host")]
    Name(String),
}

/// A text that is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a service: it is unix:/path/of/socket, tcp:host:port or ssl:host:port")]
pub struct AddressError(String);

/// Nobody answered there.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system's words.
    #[error("connecting to {0}")]
    Io(Address, #[source] io::Error),
    /// No TLS.
    #[error("connecting to {0}")]
    Tls(Address, #[source] TlsError),
    /// Nobody said with which certificate.
    #[error("{0} wants a certificate of ours, and none is known here")]
    NoCertificate(Address),
    /// Not within the time.
    #[error("{0} did not take the connection within {1:?}")]
    TimeOut(Address, Duration),
}

/// Both directions of a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, within: Duration) -> Result<Box<dyn Io>, ConnectError> {
        let connected = tokio::time::timeout(within, self.dial()).await;
        match connected {
            Ok(stream) => stream,
            Err(_) => Err(ConnectError::TimeOut(self.clone(), within)),
        }
    }

    async fn dial(&self) -> Result<Box<dyn Io>, ConnectError> {
        let failed = |e| ConnectError::Io(self.clone(), e);
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
            Self::Tcp(host, port) => Box::new(reach(host, *port).await.map_err(failed)?),
            Self::Ssl(host, port, tls) => self.secure(host, *port, tls.as_deref()).await?,
        })
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, host: &str, port: u16, tls: Option<&Tls>) -> Result<Box<dyn Io>, ConnectError> {
        let tls = tls.ok_or_else(|| ConnectError::NoCertificate(self.clone()))?;
        let failed = |e| ConnectError::Io(self.clone(), e);
        let stream = reach(host, port).await.map_err(failed)?;
        let begun = crate::tls::connect(tls, host, stream).await;
        let stream = begun.map_err(|e| ConnectError::Tls(self.clone(), e))?.map_err(failed)?;
        Ok(Box::new(stream))
    }

    #[cfg(not(feature = "tls"))]
    fn secure(
        &self,
        _: &str,
        _: u16,
        _: Option<&Tls>,
    ) -> std::future::Ready<Result<Box<dyn Io>, ConnectError>> {
        std::future::ready(Err(ConnectError::NoCertificate(self.clone())))
    }

    /// The same, where it is one of TLS with these files.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        match self {
            Self::Ssl(host, port, _) => Self::Ssl(host, port, Some(Box::new(tls))),
            other => other,
        }
    }
}

async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let read = || match text.split_once(':')? {
            ("unix", path) if !path.is_empty() => Some(Self::Unix(path.into())),
            (kind @ ("tcp" | "ssl"), rest) => {
                let (host, port) = rest.rsplit_once(':')?;
                let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                let whole = !host.is_empty() && (bare.is_some() || !host.contains(':'));
                let port = port.parse().ok().filter(|port| whole && *port != 0)?;
                let host = host.to_owned();
                Some(if kind == "ssl" { Self::Ssl(host, port, None) } else { Self::Tcp(host, port) })
            }
            _ => None,
        };
        read().ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, host, port) = match self {
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::Ssl(host, port, _) => ("ssl", host, port),
        };
        if host.contains(':') {
            write!(f, "{kind}:[{host}]:{port}")
        } else {
            write!(f, "{kind}:{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_open_vswitch_takes() {
        for text in [
            "unix:/run/ovn/nb.sock",
            "tcp:192.0.2.1:6641",
            "tcp:[2001:db8::1]:6641",
            "tcp:central:6641",
            "ssl:192.0.2.1:6641",
            "ssl:[2001:db8::1]:6641",
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
        for bad in [
            "",
            "unix:",
            "/run/x",
            "tcp:",
            "tcp:host",
            "tcp::6641",
            "tcp:a:0",
            "tcp:2001:db8::1:1",
            "ssl:a",
            "tls:a:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
