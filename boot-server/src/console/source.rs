//! Opening a console's source.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bmc::Console;
use boot_server_core::console::Source;
use futures_util::future::BoxFuture;
use protocol::NodeId;
use tokio::net::{TcpStream, UnixStream};

/// Opens the serial console of a node's BMC, or says why not and what to do; the BMC's worker carries it out.
pub type OpenBmc = Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Box<dyn Console>, String>> + Send + Sync>;

/// How long a source may take to open; a BMC's session takes several exchanges of its slow processor.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// How long a socket may take: it is on the same site.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Why a source is not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// There is no BMC to ask.
    #[error("this node's console is not known: say where it is with `billet console set`")]
    Nowhere,
    /// The BMC.
    #[error("{0}")]
    Bmc(String),
    /// The socket.
    #[error("cannot connect to {to}: {cause}")]
    Socket {
        /// Where.
        to: String,
        /// Why not.
        cause: io::Error,
    },
    /// It took too long.
    #[error("{to} did not answer within {} s", after.as_secs())]
    Slow {
        /// Where.
        to: String,
        /// How long it was waited for.
        after: Duration,
    },
}

/// Opens it.
pub(super) async fn open(
    node: NodeId,
    source: &Source,
    bmc: Option<&OpenBmc>,
) -> Result<Box<dyn Console>, SourceError> {
    let to = source.to_string();
    let socket = |cause| SourceError::Socket { to: to.clone(), cause };
    let slow = |after| move |_| SourceError::Slow { to: source.to_string(), after };
    match source {
        Source::Bmc => {
            let opening = bmc.ok_or(SourceError::Nowhere)?(node);
            Ok(tokio::time::timeout(OPEN_MAX, opening)
                .await
                .map_err(slow(OPEN_MAX))?
                .map_err(SourceError::Bmc)?)
        }
        Source::Tcp { host, port } => {
            let connecting = TcpStream::connect(format!("{host}:{port}"));
            let stream = tokio::time::timeout(CONNECT_MAX, connecting)
                .await
                .map_err(slow(CONNECT_MAX))?
                .map_err(socket)?;
            keep_alive(&stream).map_err(socket)?;
            Ok(Box::new(stream))
        }
        Source::Unix(path) => {
            let connecting = UnixStream::connect(path);
            let stream = tokio::time::timeout(CONNECT_MAX, connecting)
                .await
                .map_err(slow(CONNECT_MAX))?
                .map_err(socket)?;
            Ok(Box::new(stream))
        }
    }
}

/// A terminal server that lost power says nothing: a console may be silent for days, so the kernel has to ask.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let every = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&every)
}
