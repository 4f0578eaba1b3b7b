//! Where a service listens, in the form that Open vSwitch's programs take.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// `unix:/run/ovn/ovnnb_db.sock`, `tcp:192.0.2.1:6641`, `tcp:[2001:db8::1]:6641`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// Host (a name or an address) and port.
    Tcp(String, u16),
}

/// A text that is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a service: it is unix:/path/of/socket or tcp:host:port")]
pub struct AddressError(String);

/// Nobody answered there.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system's words.
    #[error("connecting to {0}")]
    Io(Address, #[source] io::Error),
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
            Ok(stream) => stream.map_err(|e| ConnectError::Io(self.clone(), e)),
            Err(_) => Err(ConnectError::TimeOut(self.clone(), within)),
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let read = || match text.split_once(':')? {
            ("unix", path) if !path.is_empty() => Some(Self::Unix(path.into())),
            ("tcp", rest) => {
                let (host, port) = rest.rsplit_once(':')?;
                let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                let whole = !host.is_empty() && (bare.is_some() || !host.contains(':'));
                Some(Self::Tcp(host.to_owned(), port.parse().ok().filter(|port| whole && *port != 0)?))
            }
            _ => None,
        };
        read().ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_open_vswitch_takes() {
        for text in
            ["unix:/run/ovn/nb.sock", "tcp:192.0.2.1:6641", "tcp:[2001:db8::1]:6641", "tcp:central:6641"]
        {
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
            "ssl:a:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
